//! The files of the current generation: appending to its log, replacing it by the next one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::CheckpointError;
use super::frame::{END_BYTES, FileKind, HEADER_BYTES, Header, Record};
use super::recover::{Recovered, generation_of, path_of, unfinished_path_of};
use super::table::{Changes, Table};
use crate::clock::Rng64;
use crate::fs::{Fs, FsFile};

/// What is encoded under the table's lock and written at once.
const WRITE_BYTES: usize = 128 << 10;

/// The log of the current generation.
enum Log {
    /// Nothing was ever written.
    Absent,
    /// The disk has every byte of it but those of an append under way.
    Open {
        generation: u64,
        file: Box<dyn FsFile>,
        salt: u64,
        bytes: u64,
    },
    /// It must not be written any more; the next commit begins a new generation.
    Unusable,
}

/// A new generation whose snapshot does not have its name yet.
struct Begun {
    log: Box<dyn FsFile>,
    log_bytes: u64,
    /// Records and their bytes in the snapshot.
    records: u64,
    bytes: u64,
}

/// See the module's documentation.
pub(super) struct Disk {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Held as long as the directory is used; `None` until it can be written to.
    lock: Option<Box<dyn FsFile>>,
    log: Log,
    /// The newest generation that any file may belong to.
    newest: u64,
    /// The oldest generation that is needed to rebuild what is durable.
    keep_from: u64,
    /// Bytes of the files of each generation that is there.
    sizes: BTreeMap<u64, u64>,
    salts: Rng64,
}

pub(super) fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// Takes over what recovery found. The log of another process is not written any more: what
    /// was read from it may be in memory only, by a write that failed.
    pub fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        dir_lock: Option<Box<dyn FsFile>>,
        found: &Recovered,
        seed: u64,
    ) -> Disk {
        Disk {
            fs,
            dir: dir.to_owned(),
            lock: dir_lock,
            log: if found.newest == 0 {
                Log::Absent
            } else {
                Log::Unusable
            },
            newest: found.newest,
            keep_from: found.oldest_used,
            sizes: found.sizes.clone(),
            salts: Rng64::new(seed),
        }
    }

    /// Bytes of the current log, 0 if there is none to append to.
    pub fn log_bytes(&self) -> u64 {
        match self.log {
            Log::Open { bytes, .. } => bytes,
            Log::Absent | Log::Unusable => 0,
        }
    }

    /// Whether nobody else may write here.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Takes the lock by `take`, which could not be taken before.
    pub fn take_lock(
        &mut self,
        take: impl FnOnce(&dyn Fs, &Path) -> Result<Box<dyn FsFile>, CheckpointError>,
    ) -> Result<(), CheckpointError> {
        self.lock = Some(take(&*self.fs, &self.dir)?);
        Ok(())
    }

    /// Bytes of all files but the lock.
    pub fn size_bytes(&self) -> u64 {
        self.sizes.values().sum()
    }

    /// Whether changes can be appended, and not only be saved with all the rest.
    pub fn can_append(&self) -> bool {
        matches!(self.log, Log::Open { .. })
    }

    /// Whether files are there that a new generation should replace.
    pub fn needs_rewrite(&self) -> bool {
        matches!(self.log, Log::Unusable)
    }

    /// Appends changed records and makes them durable; returns records and bytes. After an
    /// error the log is as before, or is not used any more.
    pub fn append(
        &mut self,
        table: &Mutex<Table>,
        which: Changes,
    ) -> Result<(u64, u64), CheckpointError> {
        let Log::Open {
            generation,
            file,
            salt,
            bytes,
        } = &mut self.log
        else {
            return Ok((0, 0));
        };
        let path = path_of(&self.dir, *generation, FileKind::Log);
        let failed = |action, source| {
            let path = path.clone();
            CheckpointError::Io {
                action,
                path,
                source,
            }
        };
        let mut writer = |chunk: &[u8]| file.append(chunk);
        let mut pass = lock(table).changes(which);
        let mut encode = |out: &mut Vec<u8>| lock(table).encode(&mut pass, *salt, WRITE_BYTES, out);
        match write_chunks(&mut encode, &mut writer) {
            Ok((records, written)) => match file.sync_data() {
                Ok(()) => {
                    *bytes += written;
                    *self.sizes.entry(*generation).or_default() += written;
                    Ok((records, written))
                }
                Err(e) => {
                    self.log = Log::Unusable;
                    Err(failed("synchronise", e))
                }
            },
            Err(e) => {
                if file.truncate(*bytes).is_err() {
                    self.log = Log::Unusable;
                }
                Err(failed("append to", e))
            }
        }
    }

    /// Begins a new generation with everything that is live; returns records and bytes. After an
    /// error the current log goes on, or (if it is not known which generation a crash would find)
    /// is not used any more.
    pub fn rotate(&mut self, table: &Mutex<Table>) -> Result<(u64, u64), CheckpointError> {
        self.newest += 1;
        let header = Header {
            kind: FileKind::Log,
            generation: self.newest,
            salt: self.salts.next_u64(),
        };
        let written = self.write_generation(header, table);
        let Begun {
            log,
            log_bytes,
            records,
            bytes,
        } = written.inspect_err(|_| self.remove_unfinished())?;

        let unfinished = unfinished_path_of(&self.dir, self.newest);
        let finished = path_of(&self.dir, self.newest, FileKind::Snapshot);
        self.log = Log::Unusable;
        let at = |action, path: &Path, source| {
            let path = path.to_owned();
            CheckpointError::Io {
                action,
                path,
                source,
            }
        };
        self.fs
            .rename(&unfinished, &finished)
            .map_err(|e| at("rename", &unfinished, e))?;
        self.fs
            .sync_dir(&self.dir)
            .map_err(|e| at("synchronise", &self.dir, e))?;

        let (generation, salt) = (header.generation, header.salt);
        let snapshot_bytes = HEADER_BYTES as u64 + bytes + END_BYTES;
        self.sizes.insert(generation, snapshot_bytes + log_bytes);
        self.log = Log::Open {
            generation,
            file: log,
            salt,
            bytes: log_bytes,
        };
        // What the old state rests on stays until there is a second generation behind it.
        let previous = std::mem::replace(&mut self.keep_from, generation);
        self.remove_older_than(previous);
        Ok((records, bytes))
    }

    /// Writes the new log and the snapshot under its unfinished name, durably but for the names.
    fn write_generation(
        &self,
        header: Header,
        table: &Mutex<Table>,
    ) -> Result<Begun, CheckpointError> {
        let log_path = path_of(&self.dir, header.generation, FileKind::Log);
        let write_log = || {
            let mut log = self.fs.create(&log_path)?;
            log.append(&header.encode())?;
            log.sync_data()?;
            Ok(log)
        };
        let failed = |path: &Path, source| {
            let path = path.to_owned();
            CheckpointError::Io {
                action: "write",
                path,
                source,
            }
        };
        let mut log = write_log().map_err(|e| failed(&log_path, e))?;

        let snapshot_path = unfinished_path_of(&self.dir, header.generation);
        let write_snapshot = || {
            let mut snapshot = self.fs.create(&snapshot_path)?;
            snapshot.append(
                &Header {
                    kind: FileKind::Snapshot,
                    ..header
                }
                .encode(),
            )?;
            // In order of age, so that a later run knows it. What is put meanwhile counts as
            // changed, and what is removed is left out here.
            let (since, mut pass) = {
                let table = lock(table);
                (table.sequence(), table.oldest_first())
            };
            let mut encode =
                |out: &mut Vec<u8>| lock(table).encode(&mut pass, header.salt, WRITE_BYTES, out);
            let (count, bytes) = write_chunks(&mut encode, &mut |chunk| snapshot.append(chunk))?;
            let mut end = Vec::new();
            Record::End { count }.encode(header.salt, &mut end);
            snapshot.append(&end)?;
            snapshot.sync_data()?;
            Ok((count, bytes, since))
        };
        let (records, bytes, since) = write_snapshot().map_err(|e| failed(&snapshot_path, e))?;

        // The snapshot may have one of two that were put together meanwhile.
        let mut late = Vec::new();
        lock(table).encode_groups_since(since, header.salt, &mut late);
        if !late.is_empty() {
            let written = log.append(&late).and_then(|()| log.sync_data());
            written.map_err(|e| failed(&log_path, e))?;
        }
        Ok(Begun {
            log,
            log_bytes: (HEADER_BYTES + late.len()) as u64,
            records,
            bytes,
        })
    }

    /// Gives the space of a failed attempt back. What cannot be removed does no harm: an empty
    /// log, and a name that recovery does not look at.
    fn remove_unfinished(&self) {
        let _ = self.fs.remove(&unfinished_path_of(&self.dir, self.newest));
        let _ = self
            .fs
            .remove(&path_of(&self.dir, self.newest, FileKind::Log));
    }

    /// Gives up, for their space, generations that the current state does not rest on; true if
    /// anything was removed.
    pub fn remove_previous(&mut self) -> bool {
        // A killed process may have left the name of the generation to keep in memory only.
        self.fs.sync_dir(&self.dir).is_ok() && self.remove_older_than(self.keep_from)
    }

    /// Removes generations before `generation`, and unfinished files. What fails is tried again
    /// with the next generation.
    fn remove_older_than(&mut self, generation: u64) -> bool {
        let mut removed = false;
        let mut left = false;
        for name in self.fs.list(&self.dir).unwrap_or_default() {
            let is_old = match generation_of(Path::new(&name)) {
                Some((number, Some(_))) => number < generation,
                Some((_, None)) => true,
                None => false,
            };
            let gone = is_old && self.fs.remove(&self.dir.join(&name)).is_ok();
            removed |= gone;
            left |= is_old && !gone;
        }
        if !left {
            self.sizes = self.sizes.split_off(&generation);
        }
        removed
    }
}

/// Encodes and writes until nothing is left; returns records and bytes.
fn write_chunks(
    encode: &mut dyn FnMut(&mut Vec<u8>) -> u64,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, u64)> {
    let (mut records, mut bytes) = (0, 0);
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        match encode(&mut chunk) {
            0 => return Ok((records, bytes)),
            count => records += count,
        }
        write(&chunk)?;
        bytes += chunk.len() as u64;
    }
}
