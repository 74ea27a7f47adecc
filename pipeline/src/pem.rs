//! Certificates and keys in PEM form, for whoever speaks TLS: clients and listeners alike.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tailwater_config::Section;

/// Largest PEM file that is read.
const PEM_BYTES_MAX: u64 = 8 << 20;

/// Text in PEM form, in a file or in the configuration itself. Debug output shows no content.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PemSource::File(path) => write!(f, "File({path:?})"),
            PemSource::Text(_) => f.write_str("Text([REDACTED])"),
        }
    }
}

/// Why PEM text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// A file cannot be read.
    #[error("cannot read {path}: {problem}")]
    Read {
        /// The file.
        path: String,
        /// What went wrong.
        problem: String,
    },
    /// It holds no usable certificate or key.
    #[error("{0}")]
    Content(String),
}

impl PemSource {
    /// The version of the file there is now; `None` for text, and for a file that cannot be seen.
    pub fn mark(&self) -> Option<FileMark> {
        match self {
            PemSource::File(path) => FileMark::of(path),
            PemSource::Text(_) => None,
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, PemError> {
        let path = match self {
            PemSource::Text(text) => return Ok(text.as_bytes().to_vec()),
            PemSource::File(path) => path,
        };
        let fail = |problem: String| PemError::Read {
            path: path.display().to_string(),
            problem,
        };
        let bytes = std::fs::metadata(path)
            .map_err(|e| fail(e.to_string()))?
            .len();
        if bytes > PEM_BYTES_MAX {
            return Err(fail(format!("{bytes} bytes are too much for PEM text")));
        }
        std::fs::read(path).map_err(|e| fail(e.to_string()))
    }

    /// All certificates in it, in order.
    ///
    /// # Errors
    /// There is none, or what is there is broken.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PemError> {
        let pem = self.bytes()?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let all = all.map_err(|e| PemError::Content(format!("broken PEM text: {e}")))?;
        if all.is_empty() {
            return Err(PemError::Content("no certificate in it".to_owned()));
        }
        Ok(all)
    }

    /// The private key in it.
    ///
    /// # Errors
    /// There is none.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, PemError> {
        let pem = self.bytes()?;
        // The parser's error could quote the key, so it is not shown.
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            let text = "no private key in PEM form (PKCS#8, PKCS#1 or SEC1) in it";
            PemError::Content(text.to_owned())
        })
    }
}

/// What tells versions of a file apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileMark {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl FileMark {
    /// The file's mark; `None` if it cannot be seen.
    pub fn of(path: &Path) -> Option<FileMark> {
        let m = std::fs::metadata(path).ok()?;
        Some(FileMark {
            device: m.dev(),
            inode: m.ino(),
            bytes: m.len(),
            changed: (m.ctime(), m.ctime_nsec()),
        })
    }
}

/// Reads an option that is a file or a text; only one of them may be given.
pub fn decode_pem(s: &mut Section<'_, '_>, file: &str, text: &str) -> Option<PemSource> {
    let path = s.string_optional(file).filter(|p| !p.is_empty());
    let pem = s.secret(text).filter(|p| !p.is_empty());
    match (path, pem) {
        (Some(_), Some(_)) => {
            s.error(format!("only one of {file} and {text} can be set"));
            None
        }
        (Some(path), None) => Some(PemSource::File(path.into())),
        (None, Some(pem)) => Some(PemSource::Text(pem.expose().to_owned())),
        (None, None) => None,
    }
}
