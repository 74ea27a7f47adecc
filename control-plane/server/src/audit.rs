//! Who did what: a line of JSON for each request that changes something, for each that was turned away, and for
//! what the control plane did by itself. On disk before the answer: in a file, or in the database that several control planes
//! share.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tailwater_control_plane::store::{AuditRows, StoreError};

use crate::access::Who;
use crate::now_ms;

/// A file is put aside at this size, bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// So many are put aside.
const FILES_MAX: usize = 8;
/// So many of the newest are shown.
const SHOWN_MAX: usize = 1_000;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When, ms since the epoch.
    pub at_ms: u64,
    /// Who; `control` for the control plane itself.
    pub who: String,
    /// As what.
    pub role: String,
    /// What.
    pub action: String,
    /// Of which group, if of one.
    pub group: String,
    /// What there is to say.
    pub detail: String,
}

impl Entry {
    /// What somebody did.
    pub fn of(who: &Who, action: &str, group: &str, detail: &str) -> Entry {
        Entry {
            at_ms: now_ms(),
            who: who.name.clone(),
            role: who.role.name().to_owned(),
            action: action.to_owned(),
            group: group.to_owned(),
            detail: detail.to_owned(),
        }
    }

    /// What the control plane did by itself.
    pub fn of_itself(group: &str, action: &str, detail: &str) -> Entry {
        Entry {
            at_ms: now_ms(),
            who: "control".to_owned(),
            role: String::new(),
            action: action.to_owned(),
            group: group.to_owned(),
            detail: detail.to_owned(),
        }
    }
}

struct Open {
    file: File,
    bytes: u64,
    newest: VecDeque<Entry>,
}

/// Files of a directory.
struct Files {
    path: PathBuf,
    open: Mutex<Open>,
}

enum Kept {
    Files(Files),
    Rows(Arc<dyn AuditRows>),
}

/// See the module's documentation.
pub struct Audit {
    kept: Kept,
}

impl Audit {
    /// That of a database.
    pub fn of_database(rows: Arc<dyn AuditRows>) -> Audit {
        Audit {
            kept: Kept::Rows(rows),
        }
    }

    /// Goes on with `audit.jsonl` in a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(dir: &Path) -> io::Result<Audit> {
        let path = dir.join("audit.jsonl");
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        let mut newest = VecDeque::new();
        for line in BufReader::new(File::open(&path)?).lines() {
            // A line that was cut off by the end of the machine is none.
            if let Ok(entry) = serde_json::from_str(&line?) {
                keep(&mut newest, entry);
            }
        }
        let open = Mutex::new(Open {
            file,
            bytes,
            newest,
        });
        Ok(Audit {
            kept: Kept::Files(Files { path, open }),
        })
    }

    /// Writes one down.
    ///
    /// # Errors
    /// It is not on disk.
    pub fn write(&self, entry: Entry) -> io::Result<()> {
        match &self.kept {
            Kept::Files(files) => files.write(entry),
            Kept::Rows(rows) => {
                let line = serde_json::to_string(&entry)?;
                rows.keep_audit(entry.at_ms, &line)
                    .map_err(io::Error::other)
            }
        }
    }

    /// As [`Audit::write`], for what has happened already: what cannot be written is said in the log.
    pub fn note(&self, entry: Entry) {
        let text = format!("{} {}: {}", entry.group, entry.action, entry.detail);
        if let Err(error) = self.write(entry) {
            tracing::error!(%error, "not in the audit log: {text}");
        }
    }

    /// The newest ones, the newest first.
    ///
    /// # Errors
    /// What the database says.
    pub fn newest(&self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        match &self.kept {
            Kept::Files(files) => {
                let open = files.open.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(open.newest.iter().rev().take(limit).cloned().collect())
            }
            Kept::Rows(rows) => {
                let lines = rows.audit(limit)?;
                let damaged = |e: serde_json::Error| StoreError::Damaged(e.to_string());
                let entries = lines
                    .iter()
                    .map(|l| serde_json::from_str(l).map_err(damaged));
                entries.collect()
            }
        }
    }
}

impl Files {
    fn write(&self, entry: Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.bytes + line.len() as u64 > FILE_BYTES_MAX {
            self.put_aside()?;
            open.file = append(&self.path)?;
            open.bytes = 0;
        }
        open.file.write_all(&line)?;
        open.file.sync_data()?;
        open.bytes += line.len() as u64;
        keep(&mut open.newest, entry);
        Ok(())
    }

    fn put_aside(&self) -> io::Result<()> {
        let name = |i: usize| self.path.with_extension(format!("jsonl.{i}"));
        for i in (1..FILES_MAX).rev() {
            match fs::rename(name(i), name(i + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, name(1))
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

fn keep(newest: &mut VecDeque<Entry>, entry: Entry) {
    if newest.len() == SHOWN_MAX {
        newest.pop_front();
    }
    newest.push_back(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_after_a_restart_and_files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        for i in 0..3 {
            audit.note(Entry::of_itself("g", "promote", &i.to_string()));
        }
        drop(audit);
        // Cut off.
        let mut file = append(&dir.path().join("audit.jsonl")).unwrap();
        file.write_all(b"{\"at_ms\": 7").unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        let newest: Vec<_> = audit
            .newest(2)
            .unwrap()
            .into_iter()
            .map(|e| e.detail)
            .collect();
        assert_eq!(newest, ["2", "1"]);
        let large = "x".repeat(FILE_BYTES_MAX as usize / 2);
        for _ in 0..4 {
            audit.write(Entry::of_itself("g", "a", &large)).unwrap();
        }
        assert!(dir.path().join("audit.jsonl.1").exists());
        let bytes = fs::metadata(dir.path().join("audit.jsonl")).unwrap().len();
        assert!(bytes <= FILE_BYTES_MAX);
    }
}
