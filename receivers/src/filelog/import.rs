//! Reads where other agents had read to, so that moving to this one repeats and loses nothing.
//!
//! [`read_file_storage`] takes the collector's `file_storage` database of a filelog receiver (a
//! bbolt file named `receiver_filelog_<name>`), [`read_positions`] takes Promtail's positions
//! file. Both are pure: bytes in, offsets out, no content of them makes them panic or loop.
//! [`claim_offsets`] and [`claim_positions`] find the files that are meant.
//!
//! What is read is what those agents had *read*, not what they had delivered: lines that were
//! under way in them when they stopped are not known here. Stop the other agent first; its last
//! save is at its end.

mod bolt;
mod claim;
mod claim_paths;
mod known_files;
mod place;
mod positions;

#[cfg(test)]
mod bolt_writer;
#[cfg(test)]
mod tests;

pub use claim::{Claim, claim_offsets, read_bounded};
pub use claim_paths::claim_positions;
pub use positions::read_positions;

use std::collections::HashMap;
use std::path::PathBuf;

/// What was read, and what was left out and why.
#[derive(Clone, PartialEq, Debug)]
pub struct Imported<T> {
    /// One entry per file.
    pub files: Vec<T>,
    /// What could not be taken over, for people.
    pub notes: Vec<String>,
}

impl<T> Default for Imported<T> {
    fn default() -> Self {
        Imported {
            files: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// A file that the collector had read. It knew files by their first bytes only.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ImportedOffset {
    /// The operator that had read it; `file_input` unless it was given another id.
    pub operator_id: String,
    /// The first bytes of the file (of its decompressed content), at most its `fingerprint_size`;
    /// a file is this one if it begins with them. Not empty.
    pub fingerprint_first_bytes: Vec<u8>,
    /// Bytes read. Of a file that was read as gzip (`file_type`) compressed ones.
    pub offset: u64,
    /// Records read.
    pub record_number: u64,
    /// Attributes of the file, those from its header among them.
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// The header was read to its end.
    pub header_done: bool,
    /// `.gz` if the file was read as compressed, else empty.
    pub file_type: String,
    /// The rest of an over-long line, up to its end, is to be skipped
    /// (`max_log_size_behavior: truncate`).
    pub skips_line: bool,
    /// From the archive (`polls_to_archive`): not seen in the newest polls.
    pub archived: bool,
}

/// A file that Promtail had read. It knew files by their paths only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportedPosition {
    /// The file.
    pub path: PathBuf,
    /// Bytes read; of decompressed content if it was read with decompression.
    pub offset: u64,
}

/// Why nothing could be imported.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImportError {
    /// The bytes are no bbolt database.
    #[error("not a bbolt database: {0}")]
    NotBolt(&'static str),
    /// A part of the database that is needed is damaged.
    #[error("the bbolt database is damaged: {0}")]
    Damaged(String),
    /// There is no file state in the database.
    #[error("no file state in the database: {0}")]
    NoFileState(String),
    /// A stored value is not what the collector writes.
    #[error("the value of {key:?} cannot be read: {why}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The text is no positions file.
    #[error("not a positions file: {0}")]
    NotPositions(String),
}

/// Reads the file state in a database that the collector's `file_storage` extension wrote. The
/// database must not be in use: a page that changes meanwhile looks like damage.
///
/// Of several entries with the same first bytes the one the collector would use is returned:
/// the one among the newest polls, else the archived one with the highest offset.
///
/// # Errors
/// The bytes are no such database, or it is damaged where it matters.
pub fn read_file_storage(database: &[u8]) -> Result<Imported<ImportedOffset>, ImportError> {
    let bolt = bolt::Bolt::open(database)?;
    let bucket = bolt
        .bucket(b"default")?
        .ok_or_else(|| ImportError::NoFileState("it has no bucket `default`".to_owned()))?;
    let mut values = Vec::new();
    bolt.walk(bucket, &mut |key, value| values.push((key, value)))?;
    let mut collected = Collected::default();
    let mut is_known = false;
    // The newest polls before the archive.
    for archived in [false, true] {
        for (key, value) in &values {
            let Some(name) = known_files::parse_key(key).filter(|n| n.archived == archived) else {
                continue;
            };
            is_known = true;
            match known_files::decode(value) {
                Ok(entries) => collected.add(&name, entries),
                // The archive is a bonus; the newest polls are what this is about.
                Err(why) if archived => {
                    let note = format!("archive {:?} left out: {why}", name.text);
                    collected.imported.notes.push(note);
                }
                Err(why) => {
                    return Err(ImportError::Value {
                        key: name.text,
                        why,
                    });
                }
            }
        }
    }
    if !is_known {
        let why = format!("none of its {} keys ends with `.knownFiles`", values.len());
        return Err(ImportError::NoFileState(why));
    }
    Ok(collected.imported)
}

/// Entries so far, found by operator and fingerprint.
#[derive(Default)]
struct Collected {
    imported: Imported<ImportedOffset>,
    index: HashMap<(String, Vec<u8>), usize>,
}

impl Collected {
    fn add(&mut self, name: &known_files::KeyName, entries: Vec<Result<ImportedOffset, String>>) {
        for (number, entry) in entries.into_iter().enumerate() {
            let entry = match entry {
                Ok(entry) => ImportedOffset {
                    operator_id: name.operator_id.clone(),
                    archived: name.archived,
                    ..entry
                },
                Err(why) => {
                    let note = format!("entry {number} of {:?} left out: {why}", name.text);
                    self.imported.notes.push(note);
                    continue;
                }
            };
            let files = &mut self.imported.files;
            let key = (
                entry.operator_id.clone(),
                entry.fingerprint_first_bytes.clone(),
            );
            let at = *self.index.entry(key).or_insert(files.len());
            match files.get_mut(at) {
                Some(known) if known.archived && known.offset < entry.offset => *known = entry,
                Some(_) => {}
                None => files.push(entry),
            }
        }
    }
}
