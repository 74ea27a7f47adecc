//! What was applied, and under which versions it was offered: the account of each text that agents may run.

use super::{Artefacts, StoreError};
use crate::model::Digest;

/// So many releases of a group are kept.
pub const RELEASES_MAX: usize = 200;
/// The counter of versions.
pub(super) const VERSION: &str = "version";

/// A text that somebody applied to a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// To which group.
    pub group: String,
    /// The text.
    pub digest: Digest,
    /// What was good in the group then.
    pub parent: Option<Digest>,
    /// What led to it.
    pub cause: String,
    /// Who did it.
    pub author: String,
    /// When, ms since the epoch of the wall clock.
    pub at_ms: u64,
}

/// An offer of a text, under a version that no other offer has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// Higher than that of each release before it, whatever group that was of.
    pub version: u64,
    /// To which group.
    pub group: String,
    /// The text.
    pub digest: Digest,
    /// The key of the command that led to it.
    pub cause: String,
    /// Which key signed it.
    pub key: String,
    /// The signature, as it is offered.
    pub signature: String,
    /// When, ms since the epoch of the wall clock.
    pub at_ms: u64,
}

/// See the module's documentation.
pub trait Releases: Artefacts {
    /// Keeps a text, and who applied it.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`]. So of all methods.
    fn keep_applied(&self, body: &str, applied: &Applied) -> Result<(), StoreError>;

    /// What was applied to a group, the newest first.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn applied(&self, group: &str, limit: usize) -> Result<Vec<Applied>, StoreError>;

    /// Takes the next version, has it signed, and keeps that. On disk before it returns, whatever becomes of
    /// the machine: a version that was offered is never taken again. Of a group the newest [`RELEASES_MAX`] are kept.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn release(
        &self,
        draft: Release,
        sign: &(dyn Fn(u64) -> String + Sync),
    ) -> Result<Release, StoreError>;

    /// The releases of a group, the newest first.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn releases(&self, group: &str, limit: usize) -> Result<Vec<Release>, StoreError>;

    /// The newest version that was taken; 0 if none was.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn version(&self) -> Result<u64, StoreError>;

    /// The next version is above this one, and above each that was taken. The newest one that counts as taken.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn raise_version(&self, to: u64) -> Result<u64, StoreError>;

    /// Forgets texts that nobody needs: all but those that `runs` names, that a rollout holds or is to be
    /// told of, and the `history` newest applied to each group. How many that were.
    ///
    /// # Errors
    /// As [`Artefacts::put_artefact`].
    fn forget_texts(&self, runs: &[Digest], history: usize) -> Result<usize, StoreError>;
}
