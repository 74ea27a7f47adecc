//! What those who are told of alerts know.

use super::StoreError;

/// See the module's documentation.
pub trait Notified: Send + Sync {
    /// What was kept of a receiver; none if nothing was.
    ///
    /// # Errors
    /// What the database says, as [`super::Artefacts::put_artefact`].
    fn notified(&self, receiver: &str) -> Result<Option<String>, StoreError>;

    /// Keeps this of a receiver, in place of what was there.
    ///
    /// # Errors
    /// As [`Notified::notified`].
    fn keep_notified(&self, receiver: &str, body: &str) -> Result<(), StoreError>;
}
