//! Between discovery and what acts on it: events with idempotency keys, kept until every consumer has
//! had them.
//!
//! At least once: a consumer that ends before it has acknowledged gets the same again. So consumers are
//! idempotent. How far a consumer is, is kept beside what it makes of events, in one transaction with that where it
//! makes something: so what it has made and how far it is never differ.
//!
//! A log that forgets by itself may have forgotten what a consumer has not had. It is told so, as a [`Gap`], and then has to
//! ask for everything that there is.

pub mod embedded;
#[cfg(feature = "jetstream")]
pub mod jetstream;
#[cfg(test)]
pub(crate) mod suite;

use std::fmt;
use std::time::Duration;

use crate::model::Event;
use crate::store::{Recorded, StoreError};

pub use embedded::EmbeddedBus;
#[cfg(feature = "jetstream")]
pub use jetstream::JetStreamBus;

/// From where a consumer reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFrom {
    /// Behind what it has acknowledged; what there is, if it never has.
    Acknowledged,
    /// Behind this event; 0 = all that is kept.
    Event(u64),
}

/// Events that a consumer has not had and never will.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gap {
    /// They are not kept any more.
    Forgotten {
        /// The newest one that it had.
        after: u64,
        /// The oldest one that may be there.
        before: u64,
    },
    /// All that were left: the log is another one than that of which it had some.
    OtherLog,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gap::Forgotten { after, before } => write!(
                f,
                "events behind {after} and before {before} were forgotten before they were read"
            ),
            Gap::OtherLog => f.write_str(
                "the log of events was made anew; what was not read of the former one is lost",
            ),
        }
    }
}

/// What a consumer is given.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    /// What is missing in front of these events. It is told once, and again if the consumer ends before it has gone on.
    pub gap: Option<Gap>,
    /// The next events, in order.
    pub events: Vec<Recorded>,
}

/// See the module's documentation.
pub trait Bus: Send + Sync {
    /// Publishes an event, unless one of this key is known. True if it is new.
    ///
    /// # Errors
    /// It could not be kept, or that is not known. It is to be published again then.
    fn publish(&self, key: &str, event: &Event) -> Result<bool, StoreError>;

    /// What a consumer of this name reads.
    ///
    /// # Errors
    /// It cannot be found out how far it is.
    fn subscribe(
        &self,
        consumer: &str,
        from: ReadFrom,
    ) -> Result<Box<dyn Subscription>, StoreError>;
}

/// One consumer's way through the events.
pub trait Subscription: Send {
    /// The next events, in order; none if there are none in this time.
    ///
    /// # Errors
    /// They cannot be read; the next call tries again.
    fn next(&mut self, limit: usize, wait: Duration) -> Result<Batch, StoreError>;

    /// Says that all up to this one are done with.
    ///
    /// # Errors
    /// It could not be kept: they may come again after a restart.
    fn acknowledge(&mut self, seq: u64) -> Result<(), StoreError>;

    /// Goes back to behind what was acknowledged.
    ///
    /// # Errors
    /// It cannot be found out what that is.
    fn restart(&mut self) -> Result<(), StoreError>;

    /// The name under which it acknowledges, for those who do that in a transaction of their own.
    fn consumer(&self) -> &str;
}
