//! Where the control plane keeps what it knows, so that a restart goes on: events and how far each
//! consumer is, sources, artefacts, and what was offered.
//!
//! Every method is one transaction. Nothing here is on the path of log lines.

pub mod sqlite;
#[cfg(test)]
mod suite;

use std::collections::BTreeMap;

use crate::model::{Digest, Event, Manifest, Origin, Source};
use crate::registry::{Changes, Transition};

pub use sqlite::SqliteStore;

/// What keeps a store from doing its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What the database says.
    #[error("the registry's database: {0}")]
    Database(#[from] rusqlite::Error),
    /// The directory or file of it.
    #[error("{path}: {error}")]
    File {
        /// Which one.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "the registry's database has version {found}, and this program knows {known}; use the newer program, or another state directory"
    )]
    TooNew {
        /// Its version.
        found: u32,
        /// The newest one that is known.
        known: u32,
    },
    /// Something in it is none of what is written there.
    #[error("the registry's database holds what cannot be read: {0}")]
    Damaged(String),
}

/// An event as it was published.
#[derive(Clone, PartialEq, Debug)]
pub struct Recorded {
    /// Its place; they grow.
    pub seq: u64,
    /// Its idempotency key.
    pub key: String,
    /// What it says.
    pub event: Event,
}

/// What became of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offered {
    /// What was offered.
    pub manifest: Manifest,
    /// The agent took it.
    pub applied: bool,
    /// What it said.
    pub answer: String,
}

/// How much is kept of what is over.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// So many events that every consumer has had.
    pub events: u64,
    /// So many transitions.
    pub history: u64,
    /// So many offers, with the artefacts that they name.
    pub offers: u64,
    /// Sources that are gone since before this instant are forgotten, ns since the epoch.
    pub gone_before_ns: i64,
}

/// See the module's documentation.
pub trait Store: Send + Sync {
    /// Keeps an event unless one of the same key is kept. Its place, or none.
    ///
    /// # Errors
    /// What the database says; nothing was kept then. So of all methods.
    fn publish(&self, key: &str, event: &Event, at_ns: i64) -> Result<Option<u64>, StoreError>;

    /// Events behind `seq`, in order.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn events_after(&self, seq: u64, limit: usize) -> Result<Vec<Recorded>, StoreError>;

    /// How far a consumer is; 0 if it never was anywhere.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn cursor(&self, consumer: &str) -> Result<u64, StoreError>;

    /// Moves a consumer on; it never goes back by this.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn advance(&self, consumer: &str, seq: u64) -> Result<(), StoreError>;

    /// Writes what events changed, and moves the consumer that read them on, at once. A row whose
    /// generation is older than the one there is not written.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn apply(&self, changes: &Changes, read: Option<(&str, u64)>) -> Result<(), StoreError>;

    /// All sources.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn sources(&self) -> Result<Vec<Source>, StoreError>;

    /// The generation of the newest snapshot of each origin.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn snapshots(&self) -> Result<BTreeMap<Origin, i64>, StoreError>;

    /// The newest transitions of a source, the newest first.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn history(&self, id: &str, limit: usize) -> Result<Vec<Transition>, StoreError>;

    /// Keeps an artefact unless it is kept. It is never changed.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn put_artefact(&self, kind: &str, digest: &Digest, body: &str) -> Result<(), StoreError>;

    /// The body of an artefact.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn artefact(&self, digest: &Digest) -> Result<Option<String>, StoreError>;

    /// Keeps what became of an offer.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn record_offer(&self, offered: &Offered, at_ns: i64) -> Result<(), StoreError>;

    /// The newest offers, the newest first.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn offers(&self, limit: usize) -> Result<Vec<Offered>, StoreError>;

    /// Forgets what is over, and says which sources. Events that a consumer has not had stay.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn prune(&self, keep: &Retention) -> Result<Vec<String>, StoreError>;
}
