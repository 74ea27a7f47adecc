//! The store: memory and disk together, used by one thread.

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind::ReadOnlyFilesystem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::disk::{Disk, lock};
use super::recover::recover;
use super::table::{Changes, Checkpoint, PutError, Table};
use super::{CheckpointError, OpenReport};
use crate::fs::{Fs, FsFile};

/// Permission bits of the state directory.
const DIR_MODE: u32 = 0o700;
/// The file that is locked while the directory is in use; it holds the holder's process id.
const LOCK_NAME: &str = "lock";

/// What to do when a file of the store cannot be read (`EIO`, not damaged content).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadErrors {
    /// Opening fails: a later attempt may find everything.
    Refuse,
    /// What cannot be read counts as damaged, and the previous generation stands in for it as far
    /// as it goes. For a disk that stays broken.
    TakeAsDamage,
}

/// Limits of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreOptions {
    /// Live checkpoints take at most this many bytes, in memory and in a snapshot. Beyond it keys
    /// that nobody holds make room, the ones first that were not written for the longest time;
    /// without any, new keys are refused. Default 64 MiB: about 200,000 files.
    pub live_bytes_max: u64,
    /// A log below this size is not replaced. Default 1 MiB.
    pub log_bytes_min: u64,
    /// A log above `log_bytes_min` is replaced once it has this many times the bytes of the live
    /// checkpoints. Default 4.
    pub log_per_live: u64,
    /// What a file that cannot be read means. Default [`ReadErrors::Refuse`].
    pub read_errors: ReadErrors,
    /// Seed of the salts that tell files apart; random by default.
    pub seed: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            live_bytes_max: 64 << 20,
            log_bytes_min: 1 << 20,
            log_per_live: 4,
            read_errors: ReadErrors::Refuse,
            seed: RandomState::new().hash_one(std::process::id()),
        }
    }
}

/// What a commit did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommitReport {
    /// Records written.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes of a new generation among them.
    pub generation_bytes: u64,
    /// A new generation was begun.
    pub compacted: bool,
}

/// Why the disk does not have what memory has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// Commits that failed since the last one that did not.
    pub failures: u64,
    /// The newest error, for people.
    pub error: String,
    /// Whether the disk is full.
    pub is_disk_full: bool,
}

/// Numbers about a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    /// Live keys.
    pub keys: usize,
    /// Checkpoints that were refused: too long, or a new key without room.
    pub refused: u64,
    /// Keys that made room for others.
    pub evicted: u64,
    /// There is no room for new keys now.
    pub full: bool,
    /// Keys that the disk does not have as they are.
    pub unsaved_keys: usize,
    /// Bytes of a snapshot of the live keys.
    pub live_bytes: u64,
    /// Bytes of the current log; 0 if there is none that can be appended to.
    pub log_bytes: u64,
    /// Bytes of all files of the store.
    pub size_bytes: u64,
    /// Commits that wrote something.
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// New generations.
    pub compactions: u64,
    /// New generations that were wanted for space only and failed; the old one went on.
    pub failed_compactions: u64,
    /// Bytes written by commits and compactions.
    pub written_bytes: u64,
}

/// Checkpoints by key: see [`crate::checkpoint`].
pub struct CheckpointStore {
    table: Arc<Mutex<Table>>,
    disk: Disk,
    options: StoreOptions,
    /// After a failed compaction, the log size at which it is tried again.
    compact_at_bytes: u64,
    stats: StoreStats,
    alarm: Option<Alarm>,
    opened: OpenReport,
}

impl CheckpointStore {
    /// Opens the store in `dir`, which is created (mode 0700) if need be, and reads it in constant
    /// memory beyond the live state. Nothing but the lock is written before the first commit.
    ///
    /// # Errors
    /// The directory is in use or cannot be used, a file cannot be opened or read (see
    /// [`ReadErrors`]), or a newer version wrote it. Damaged content is no error: the report
    /// counts it.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: StoreOptions,
    ) -> Result<(CheckpointStore, OpenReport), CheckpointError> {
        let dir_lock = match lock_dir(&*fs, dir) {
            // Nobody writes to a file system that is read-only, so nobody needs to be kept out.
            // The lock is taken before the first write.
            Err(CheckpointError::Directory { source, .. })
                if source.kind() == ReadOnlyFilesystem && fs.list(dir).is_ok() =>
            {
                None
            }
            locked => Some(locked?),
        };
        let mut found = recover(&*fs, dir, &options)?;
        let disk = Disk::new(fs, dir, dir_lock, &found, options.seed);
        let store = CheckpointStore {
            table: Arc::new(Mutex::new(std::mem::take(&mut found.table))),
            disk,
            options,
            compact_at_bytes: 0,
            stats: StoreStats::default(),
            alarm: None,
            opened: found.report,
        };
        Ok((store, found.report))
    }

    /// The checkpoint of a key, saved or not.
    pub fn get(&self, key: &[u8]) -> Option<Checkpoint> {
        lock(&self.table).get(key).cloned()
    }

    /// All checkpoints whose keys begin with `prefix`, in order of keys; all there are for an
    /// empty one.
    pub fn with_prefix(&self, prefix: &[u8]) -> Vec<(Box<[u8]>, Checkpoint)> {
        copy_prefix(&self.table, prefix)
    }

    /// Stores a checkpoint in memory and holds its key; [`CheckpointStore::commit`] saves it.
    pub fn put(&self, key: &[u8], checkpoint: Checkpoint) -> Result<(), PutError> {
        lock(&self.table).put(key, checkpoint, false)
    }

    /// Stores checkpoints that are right only together: no crash leaves a part of them on disk.
    ///
    /// # Errors
    /// The first checkpoint that is refused; the others are stored.
    pub fn put_all<'a>(
        &self,
        batch: impl IntoIterator<Item = (&'a [u8], Checkpoint)>,
    ) -> Result<(), PutError> {
        lock(&self.table).put_all(batch)
    }

    /// What a key belongs to is gone: its checkpoint is kept while there is room.
    pub fn release(&self, key: &[u8]) {
        lock(&self.table).release(key);
    }

    /// Removes a key; false if there is none. The next commit saves that.
    pub fn remove(&self, key: &[u8]) -> bool {
        lock(&self.table).remove(key)
    }

    /// Makes everything that was put and removed durable.
    ///
    /// # Errors
    /// Nothing is lost from memory: what was not saved stays pending, [`CheckpointStore::alarm`]
    /// tells, and the next commit tries again.
    pub fn commit(&mut self) -> Result<CommitReport, CheckpointError> {
        self.commit_of(Changes::All)
    }

    /// As [`CheckpointStore::commit`], of a part of what is pending. A new generation has all.
    ///
    /// # Errors
    /// As [`CheckpointStore::commit`].
    pub fn commit_of(&mut self, which: Changes) -> Result<CommitReport, CheckpointError> {
        let (sequence, changed) = {
            let table = lock(&self.table);
            (table.sequence(), table.changed())
        };
        if changed == 0 && !self.disk.needs_rewrite() {
            return Ok(CommitReport::default());
        }
        let locked = match self.disk.is_locked() {
            true => Ok(()),
            false => self.disk.take_lock(lock_dir),
        };
        match locked.and_then(|()| self.write(which)) {
            Ok(report) => {
                let saved = if report.compacted {
                    Changes::All
                } else {
                    which
                };
                lock(&self.table).saved(saved, sequence);
                self.alarm = None;
                self.stats.commits += 1;
                self.stats.written_bytes += report.bytes;
                self.stats.compactions += u64::from(report.compacted);
                Ok(report)
            }
            Err(e) => {
                self.stats.failed_commits += 1;
                self.alarm = Some(Alarm {
                    failures: self.alarm.as_ref().map_or(1, |a| a.failures + 1),
                    error: e.to_string(),
                    is_disk_full: e.is_disk_full(),
                });
                Err(e)
            }
        }
    }

    fn write(&mut self, which: Changes) -> Result<CommitReport, CheckpointError> {
        let written = self.append_or_rotate(which);
        let report = match written {
            Err(e) if e.is_disk_full() => self.write_to_full_disk(which, e)?,
            written => written?,
        };
        let live_bytes = lock(&self.table).live_bytes();
        let grown = live_bytes.saturating_mul(self.options.log_per_live);
        let limit = grown
            .max(self.options.log_bytes_min)
            .max(self.compact_at_bytes);
        if self.disk.log_bytes() <= limit {
            return Ok(report);
        }
        // The commit is durable by now, whatever comes of this.
        match self.rotate(report) {
            Ok(report) => Ok(report),
            Err(_) => {
                self.stats.failed_compactions += 1;
                self.compact_at_bytes = self.disk.log_bytes() + self.options.log_bytes_min / 4;
                Ok(report)
            }
        }
    }

    fn append_or_rotate(&mut self, which: Changes) -> Result<CommitReport, CheckpointError> {
        if !self.disk.can_append() {
            return self.rotate(CommitReport::default());
        }
        let (records, bytes) = self.disk.append(&self.table, which)?;
        Ok(CommitReport {
            records,
            bytes,
            ..CommitReport::default()
        })
    }

    /// Makes room: first the previous generation goes, then the log's superseded records.
    fn write_to_full_disk(
        &mut self,
        which: Changes,
        full: CheckpointError,
    ) -> Result<CommitReport, CheckpointError> {
        if self.disk.remove_previous()
            && let Ok(report) = self.append_or_rotate(which)
        {
            return Ok(report);
        }
        let live_bytes = lock(&self.table).live_bytes();
        if self.disk.log_bytes() > live_bytes {
            return self.rotate(CommitReport::default());
        }
        Err(full)
    }

    fn rotate(&mut self, before: CommitReport) -> Result<CommitReport, CheckpointError> {
        let (records, bytes) = self.disk.rotate(&self.table)?;
        self.compact_at_bytes = 0;
        Ok(CommitReport {
            records: before.records + records,
            bytes: before.bytes + bytes,
            generation_bytes: bytes,
            compacted: true,
        })
    }

    /// What was found when it was opened.
    pub fn opened(&self) -> OpenReport {
        self.opened
    }

    /// Whether the newest commit failed, and why.
    pub fn alarm(&self) -> Option<&Alarm> {
        self.alarm.as_ref()
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> StoreStats {
        let of_disk = StoreStats {
            log_bytes: self.disk.log_bytes(),
            size_bytes: self.disk.size_bytes(),
            ..self.stats
        };
        lock(&self.table).count_into(of_disk)
    }

    /// As [`CheckpointStore::stats`], of commits only.
    pub(super) fn totals(&self) -> &StoreStats {
        &self.stats
    }

    /// Whether a commit has something to do.
    pub fn needs_commit(&self) -> bool {
        self.disk.needs_rewrite() || lock(&self.table).changed() > 0
    }

    /// Whether the next commit writes everything, whatever changed.
    pub(super) fn needs_rewrite(&self) -> bool {
        !self.disk.can_append()
    }

    /// The state in memory, to be shared with the threads that change it.
    pub(super) fn table(&self) -> &Arc<Mutex<Table>> {
        &self.table
    }
}

/// Copies the checkpoints whose keys begin with `prefix`.
pub(super) fn copy_prefix(table: &Mutex<Table>, prefix: &[u8]) -> Vec<(Box<[u8]>, Checkpoint)> {
    let table = lock(table);
    table
        .with_prefix(prefix)
        .map(|(key, value)| (key.into(), value.clone()))
        .collect()
}

/// Creates the directory if need be and takes its lock.
fn lock_dir(fs: &dyn Fs, dir: &Path) -> Result<Box<dyn FsFile>, CheckpointError> {
    let unusable = |source| CheckpointError::Directory {
        dir: dir.to_owned(),
        source,
    };
    fs.create_dir(dir, DIR_MODE).map_err(unusable)?;
    sync_parents(fs, dir)?;
    let path = dir.join(LOCK_NAME);
    let mut file = fs.open_append(&path).map_err(unusable)?;
    let locked = file
        .try_lock_exclusive()
        .map_err(|source| CheckpointError::Io {
            action: "lock",
            path,
            source,
        })?;
    if !locked {
        let holder = holder_of(&*file);
        return Err(CheckpointError::Locked {
            dir: dir.to_owned(),
            holder,
        });
    }
    // The content is for people only; it may be missing where the disk is full.
    let _ = file.truncate(0).and_then(|()| {
        let pid = format!("{}\n", std::process::id());
        file.append(pid.as_bytes())
    });
    Ok(file)
}

/// Makes the directory's own name durable, in case it is new. Parents that may not be read were
/// not made by us.
fn sync_parents(fs: &dyn Fs, dir: &Path) -> Result<(), CheckpointError> {
    for parent in dir.ancestors().skip(1) {
        let path = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        match fs.sync_dir(path) {
            Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => {
                let path: PathBuf = path.to_owned();
                return Err(CheckpointError::Io {
                    action: "synchronise",
                    path,
                    source: e,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Who holds the lock, from what the holder wrote.
fn holder_of(file: &dyn FsFile) -> String {
    let mut bytes = [0; 16];
    let len = file.read_at(0, &mut bytes).unwrap_or(0);
    let pid = std::str::from_utf8(&bytes[..len])
        .ok()
        .and_then(|s| s.trim().parse::<u32>().ok());
    match pid {
        Some(pid) if pid == std::process::id() => "this process itself".to_owned(),
        Some(pid) => format!("process {pid} (as numbered where it runs)"),
        None => "another process".to_owned(),
    }
}
