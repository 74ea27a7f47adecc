//! Certificates that were issued to agents.

use super::StoreError;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateRecord {
    /// Its number, in hexadecimal.
    pub serial: String,
    /// Of which agent.
    pub uid: String,
    /// SHA-256 of the request that it answered, in hexadecimal.
    pub request: String,
    /// Itself, PEM.
    pub pem: String,
    /// By whom the agent got it: the name of a token, of a person, or `certificate`.
    pub author: String,
    /// When it was made, ms since the epoch of the wall clock.
    pub issued_ms: u64,
    /// When it ends.
    pub ends_ms: u64,
    /// When it was shown first.
    pub used_ms: Option<u64>,
    /// When it was revoked.
    pub revoked_ms: Option<u64>,
}

impl CertificateRecord {
    /// Whether it is neither revoked nor at its end.
    pub fn counts(&self, now_ms: u64) -> bool {
        self.revoked_ms.is_none() && self.ends_ms > now_ms
    }
}

/// See the module's documentation.
pub trait Certificates: Send + Sync {
    /// Keeps one, with what became of it. On disk before it returns, whatever becomes of the machine.
    ///
    /// # Errors
    /// What the database says, as [`super::Artefacts::put_artefact`]. So of all methods.
    fn keep_certificate(&self, certificate: &CertificateRecord) -> Result<(), StoreError>;

    /// All of them, the oldest first.
    ///
    /// # Errors
    /// As [`Certificates::keep_certificate`].
    fn certificates(&self) -> Result<Vec<CertificateRecord>, StoreError>;

    /// One of them.
    ///
    /// # Errors
    /// As [`Certificates::keep_certificate`].
    fn certificate(&self, serial: &str) -> Result<Option<CertificateRecord>, StoreError>;

    /// Forgets those that ended before. How many that were.
    ///
    /// # Errors
    /// As [`Certificates::keep_certificate`].
    fn forget_certificates(&self, ended_before_ms: u64) -> Result<usize, StoreError>;
}
