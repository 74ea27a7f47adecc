//! `diagnostics`: everything that the report of a bug wants, in one file.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::Value;

use super::admin::{place_of, text};
use crate::admin::client::{Ask, fetch};
use crate::admin::diagnostics::archive_name;
use crate::cli::{DiagnosticsArgs, exit};

/// `tailwater diagnostics`.
pub fn diagnostics(args: &DiagnosticsArgs) -> Result<u8> {
    let fetched = fetch(&place_of(&args.place)?, Ask::get("/v1/diagnostics"))?;
    if !fetched.status.is_success() {
        let body: Value = serde_json::from_slice(&fetched.body).unwrap_or_default();
        let why = text(&body, "error");
        eprintln!("error: {}: {why}", fetched.status);
        return Ok(exit::ERROR);
    }
    if args.output.as_deref() == Some(Path::new("-")) {
        std::io::stdout().write_all(&fetched.body)?;
        return Ok(exit::OK);
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => PathBuf::from(default_name()),
    };
    write(&path, &fetched.body)?;
    say!("{} ({} bytes)", path.display(), fetched.body.len());
    eprintln!("secrets are left out; look through it before you give it away");
    Ok(exit::OK)
}

/// With the time, so that one archive does not stand in the way of the next one.
fn default_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let unix_ns = i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or_default();
    archive_name(unix_ns)
}

/// Into a new file, for its owner alone.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| {
        let path = path.display();
        format!("cannot make the file {path}; name another one by --output")
    })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))
}
