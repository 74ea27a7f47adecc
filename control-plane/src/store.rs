//! Where the control plane keeps what it knows, so that a restart goes on: events and how far each
//! consumer is, sources, artefacts, what was offered, and rollouts with who leads them.
//!
//! Every method is one transaction. Nothing here is on the path of log lines.

mod certificates;
#[cfg(test)]
pub(crate) mod memory;
mod notified;
#[cfg(feature = "postgres")]
pub mod postgres;
mod releases;
pub mod sqlite;
#[cfg(test)]
mod suite;

use std::collections::BTreeMap;

use crate::model::{Digest, Event, Manifest, Origin, Source};
use crate::registry::{Changes, Transition};

pub use certificates::{CertificateRecord, Certificates};
pub use notified::Notified;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use releases::{Applied, RELEASES_MAX, Release, Releases};
pub use sqlite::SqliteStore;

/// So many steps of a group are kept.
const STEPS_MAX: i64 = 1_000;
/// So many keys of what was submitted to a group and taken in are remembered.
const KEYS_MAX: i64 = 1_000;

/// What keeps a store from doing its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What a server of events says, or why it cannot be asked.
    #[error("the bus {server}: {text}")]
    Bus {
        /// Which one, without a password.
        server: String,
        /// For people, without a password.
        text: String,
    },
    /// What the database says.
    #[error("the registry's database: {0}")]
    Database(#[from] rusqlite::Error),
    /// What a database server says, or why it cannot be asked.
    #[error("the database {server}: {text}")]
    Server {
        /// Which one, without a password.
        server: String,
        /// For people, without a password.
        text: String,
    },
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
        "the database has version {found}, and this program knows {known}; use the newer program, or another database"
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

fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(damaged)
}

/// Configurations by their digest.
pub trait Artefacts: Send + Sync {
    /// Keeps an artefact unless it is kept. It is never changed.
    ///
    /// # Errors
    /// What the database says; nothing was kept then. Where a connection to a server was lost at the very end, that is not
    /// known, and the error says so. So of all methods of all stores.
    fn put_artefact(&self, kind: &str, digest: &Digest, body: &str) -> Result<(), StoreError>;

    /// The body of an artefact.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn artefact(&self, digest: &Digest) -> Result<Option<String>, StoreError>;
}

/// A step of a rollout, for the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepRecord {
    /// Of the lease under which it was taken.
    pub epoch: u64,
    /// Its number; each is one more than the one before.
    pub step: u64,
    /// When, ms since the epoch of the wall clock.
    pub at_ms: u64,
    /// Where it led.
    pub phase: String,
    /// What it was about.
    pub input: String,
}

/// Something that a rollout is to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submitted {
    /// Its place; they grow.
    pub seq: u64,
    /// An input of the machine, JSON.
    pub body: String,
}

/// Where rollouts are kept, a state for each group.
pub trait RolloutStore: Artefacts {
    /// Takes the lease of a group, or renews it: until `now_ms + ttl_ms` nobody else gets it. The epoch, which
    /// grows with each holder; none if another one has it.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn lease(
        &self,
        group: &str,
        holder: &str,
        now_ms: u64,
        ttl_ms: u64,
    ) -> Result<Option<u64>, StoreError>;

    /// Gives the lease of a group back, if this one holds it: another one gets it at once.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn resign(&self, group: &str, holder: &str) -> Result<(), StoreError>;

    /// The newest state of a group, JSON.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn rollout(&self, group: &str) -> Result<Option<String>, StoreError>;

    /// All groups that something was kept of or submitted to, in the order of their names.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn groups(&self) -> Result<Vec<String>, StoreError>;

    /// Keeps a state, what it was about, which artefacts must stay for it, and that what was submitted up to
    /// `consumed` is taken in: all of it, or nothing. False, and nothing, if the lease has another epoch or if
    /// it is not the step behind the one that is kept.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn keep_rollout(
        &self,
        group: &str,
        record: &StepRecord,
        state: &str,
        pins: &[Digest],
        consumed: Option<u64>,
    ) -> Result<bool, StoreError>;

    /// Keeps something that a rollout is to be told, unless it was submitted under this key. True if it is new.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn submit(&self, group: &str, key: &str, body: &str) -> Result<bool, StoreError>;

    /// The oldest thing that was submitted and not taken in.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn submitted(&self, group: &str) -> Result<Option<Submitted>, StoreError>;

    /// The newest steps, the newest first; of each group the newest 1000 are kept.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn steps(&self, group: &str, limit: usize) -> Result<Vec<StepRecord>, StoreError>;
}

/// Who did what, line by line.
pub trait AuditRows: Send + Sync {
    /// Keeps a line; it is on disk when this returns. `at_ms` is the wall clock's.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn keep_audit(&self, at_ms: u64, line: &str) -> Result<(), StoreError>;

    /// The newest lines, the newest first.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn audit(&self, limit: usize) -> Result<Vec<String>, StoreError>;
}

/// All that the control plane of a fleet keeps.
pub trait FleetStore: RolloutStore + Releases + Certificates + Notified {}

impl<S: RolloutStore + Releases + Certificates + Notified> FleetStore for S {}

/// See the module's documentation.
pub trait Store: Artefacts {
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

    /// Events up to this one may be forgotten; 0 if none is.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn forgotten_events(&self) -> Result<u64, StoreError>;

    /// How far a consumer is; 0 if it never was anywhere. Names with `@` are of consumers of other logs than this store's events.
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

    /// Of what [`Store::prune`] forgets, events alone; how many.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn prune_events(&self, keep: u64) -> Result<u64, StoreError>;

    /// Of what [`Store::prune`] forgets, sources and their history alone: sources that are gone since before an instant (which
    /// ones is said), and all but so many of the newest transitions.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn forget_sources(&self, gone_before_ns: i64, history: u64) -> Result<Vec<String>, StoreError>;
}
