//! Files that only their owner may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Reads one.
///
/// # Errors
/// It cannot be read, or others may read it; for people.
pub fn read(path: &Path) -> Result<String, String> {
    let at = path.display();
    let failed = |e: std::io::Error| format!("{at}: {e}");
    let mode = fs::metadata(path).map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{at}: others may read it (mode {:o}); chmod 600 it",
            mode & 0o777
        ));
    }
    fs::read_to_string(path).map_err(failed)
}

/// Makes one that is not there yet, and its directory. It is on disk when this returns.
///
/// # Errors
/// It is there, or cannot be written; for people.
pub fn make(path: &Path, text: &str) -> Result<(), String> {
    let at = path.display();
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::AlreadyExists => format!("{at}: is there already; it is not written over"),
        _ => format!("{at}: {e}"),
    };
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty());
    if let Some(dir) = dir {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(failed)?;
    dir.sync_all().map_err(failed)
}

/// PEM (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
