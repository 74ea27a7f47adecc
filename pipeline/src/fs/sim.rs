//! A file system in memory that forgets what was not synchronised.
//!
//! It is as hostile as POSIX allows, and a little more: content that was not synchronised may
//! survive, vanish, be cut anywhere or come back with zeroed sectors; each change of a name that
//! was not synchronised survives or not on its own; a failed append may have written a part, a
//! failed rename may have happened; after a failed synchronisation later ones lie.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Fs, FsFile};
use crate::clock::Rng64;

/// The unit in which writes are torn, in bytes: less than any disk's, to tear more often.
const SECTOR_BYTES: usize = 64;

/// See the module's documentation. Clones share one disk.
#[derive(Clone, Debug)]
pub struct SimFs(Arc<Mutex<Disk>>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Dir,
    File(u64),
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, Entry),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        let path = match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) => path,
            NameChange::Rename(_, to, _) => to,
        };
        path.parent()
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            NameChange::Link(path, entry) => {
                names.insert(path, entry);
            }
            NameChange::Unlink(path) => {
                names.remove(&path);
            }
            NameChange::Rename(from, to, inode) => {
                names.remove(&from);
                names.insert(to, Entry::File(inode));
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What readers see.
    now: Vec<u8>,
    /// What is sure to survive a power loss.
    durable: Vec<u8>,
    /// A synchronisation failed: later ones report success and do nothing.
    sync_lies: bool,
    /// Reading fails here.
    unreadable: Range<usize>,
    /// The handle that holds the exclusive lock.
    locked_by: Option<u64>,
}

#[derive(Debug)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, Entry>,
    durable_names: BTreeMap<PathBuf, Entry>,
    journal: Vec<NameChange>,
    /// Number of the next operation.
    operation: u64,
    /// Operations that fail, and how.
    faults: BTreeMap<u64, io::ErrorKind>,
    /// From this operation on nothing happens any more.
    halt_at: Option<u64>,
    capacity_bytes: Option<u64>,
    next_id: u64,
    /// Raised by a crash or kill: handles of before are dead.
    boot: u64,
    rng: Rng64,
}

impl SimFs {
    /// An empty disk without a limit. `seed` decides what is left to chance.
    pub fn new(seed: u64) -> SimFs {
        SimFs(Arc::new(Mutex::new(Disk {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            journal: Vec::new(),
            operation: 0,
            faults: BTreeMap::new(),
            halt_at: None,
            capacity_bytes: None,
            next_id: 1,
            boot: 0,
            rng: Rng64::new(seed),
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of operations so far; the next one has this number.
    pub fn operations(&self) -> u64 {
        self.disk().operation
    }

    /// Makes operation number `operation` fail.
    pub fn fail_at(&self, operation: u64, kind: io::ErrorKind) {
        self.disk().faults.insert(operation, kind);
    }

    /// Makes every reading of a file fail that touches `bytes`; replaces what was said before.
    pub fn set_unreadable(&self, path: &Path, bytes: Range<usize>) {
        let mut disk = self.disk();
        if let Ok(inode) = disk.inode_at(path)
            && let Some(inode) = disk.inodes.get_mut(&inode)
        {
            inode.unreadable = bytes;
        }
    }

    /// Makes the machine stand still at operation number `operation`: that one is done in part
    /// or not at all, and every later one fails until [`SimFs::crash`] or [`SimFs::kill`].
    pub fn halt_at(&self, operation: u64) {
        self.disk().halt_at = Some(operation);
    }

    /// Limits the bytes of all files, or lifts the limit. Appends that do not fit write what
    /// fits and fail with `StorageFull`.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.disk().capacity_bytes = capacity_bytes;
    }

    /// Bytes of all files that have a name.
    pub fn used_bytes(&self) -> u64 {
        self.disk().used_bytes()
    }

    /// Power loss and restart: what was not synchronised survives, is torn or is gone, decided by
    /// `seed` (a multiple of 4: all of it is gone; a multiple of 4 plus 1: all of it survives).
    /// Open files are dead, planned faults forgotten.
    pub fn crash(&self, seed: u64) {
        let mut disk = self.disk();
        let mut rng = Rng64::new(seed);
        let fate = seed % 4;
        let keep = |rng: &mut Rng64| match fate {
            0 => false,
            1 => true,
            _ => rng.below(2) == 1,
        };
        for change in std::mem::take(&mut disk.journal) {
            if keep(&mut rng) {
                change.apply(&mut disk.durable_names);
            }
        }
        disk.drop_orphans();
        for inode in disk.inodes.values_mut() {
            let survived = match fate {
                0 => inode.durable.clone(),
                1 => std::mem::take(&mut inode.now),
                _ => torn(inode, &mut rng),
            };
            *inode = Inode {
                now: survived.clone(),
                durable: survived,
                ..Inode::default()
            };
        }
        disk.reboot();
    }

    /// The process is killed and started again: everything written is still there, though no more
    /// durable than before. Open files are dead, planned faults forgotten.
    pub fn kill(&self) {
        let mut disk = self.disk();
        for inode in disk.inodes.values_mut() {
            inode.locked_by = None;
        }
        disk.reboot();
    }

    /// The content of a file as readers see it, for tests.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        match disk.names.get(path)? {
            Entry::File(inode) => disk.inodes.get(inode).map(|i| i.now.clone()),
            Entry::Dir => None,
        }
    }

    /// Replaces the content of a file and its name durably, for tests that damage files.
    pub fn set_content(&self, path: &Path, content: Vec<u8>) {
        let mut disk = self.disk();
        let number = disk.next_id();
        let inode = Inode {
            now: content.clone(),
            durable: content,
            ..Inode::default()
        };
        disk.inodes.insert(number, inode);
        disk.names.insert(path.to_owned(), Entry::File(number));
        disk.durable_names
            .insert(path.to_owned(), Entry::File(number));
    }

    fn handle(&self, disk: &mut Disk, inode: u64) -> Box<dyn FsFile> {
        let (id, boot) = (disk.next_id(), disk.boot);
        Box::new(SimFile {
            fs: self.clone(),
            inode,
            id,
            boot,
        })
    }
}

/// What is left of an inode whose content was being changed when the power went.
fn torn(inode: &Inode, rng: &mut Rng64) -> Vec<u8> {
    let (old, new) = (&inode.durable, &inode.now);
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    match rng.below(4) {
        0 => old.clone(),
        1 => new.clone(),
        2 => new[..same + rng.below((new.len() - same) as u64 + 1) as usize].to_vec(),
        _ => {
            let mut mixed = new.clone();
            for (i, byte) in mixed.iter_mut().enumerate().skip(same) {
                let sector = (i / SECTOR_BYTES) as u64;
                if Rng64::new(sector ^ rng.clone().next_u64()).below(2) == 0 {
                    *byte = 0;
                }
            }
            mixed
        }
    }
}

fn error(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "injected by the simulation")
}

impl Disk {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().filter_map(|e| e.inode()).collect();
        let sizes = named.iter().filter_map(|n| self.inodes.get(n));
        sizes.map(|inode| inode.now.len() as u64).sum()
    }

    /// Forgets entries whose directory is gone, and inodes that no name leads to.
    fn drop_orphans(&mut self) {
        let names = self.durable_names.clone();
        let is_there = |dir: &Path| dir.parent().is_none() || names.get(dir) == Some(&Entry::Dir);
        self.durable_names
            .retain(|path, _| path.ancestors().skip(1).all(is_there));
        let used: BTreeSet<u64> = self
            .durable_names
            .values()
            .filter_map(|e| e.inode())
            .collect();
        self.inodes.retain(|number, _| used.contains(number));
        self.names = self.durable_names.clone();
    }

    fn reboot(&mut self) {
        self.boot += 1;
        self.halt_at = None;
        self.faults.clear();
    }

    /// Counts an operation. `Err` = it fails; the number says how much of it is done before, in
    /// 1/256.
    fn step(&mut self) -> Result<(), (io::Error, u64)> {
        let operation = self.operation;
        self.operation += 1;
        let share = self.rng.below(257);
        match self.halt_at {
            Some(at) if operation > at => return Err((error(io::ErrorKind::NotConnected), 0)),
            Some(at) if operation == at => {
                return Err((error(io::ErrorKind::NotConnected), share));
            }
            _ => {}
        }
        match self.faults.remove(&operation) {
            Some(kind) => Err((error(kind), share)),
            None => Ok(()),
        }
    }

    /// For operations that are done as a whole or not at all: whether to do it, and the answer.
    fn whole_step(&mut self) -> (bool, io::Result<()>) {
        match self.step() {
            Ok(()) => (true, Ok(())),
            Err((e, share)) => (share > 128, Err(e)),
        }
    }

    /// For operations that change nothing.
    fn read_step(&mut self) -> io::Result<()> {
        self.step().map_err(|(e, _)| e)
    }

    fn inode_at(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Entry::File(inode)) => Ok(*inode),
            Some(Entry::Dir) => Err(error(io::ErrorKind::IsADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        }
    }

    fn needs_dir(&self, dir: &Path) -> io::Result<()> {
        match self.names.get(dir) {
            Some(Entry::Dir) => Ok(()),
            None if dir.parent().is_none() => Ok(()),
            None => Err(error(io::ErrorKind::NotFound)),
            Some(_) => Err(error(io::ErrorKind::NotADirectory)),
        }
    }

    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.journal.push(change);
    }
}

impl Entry {
    fn inode(&self) -> Option<u64> {
        match self {
            Entry::File(inode) => Some(*inode),
            Entry::Dir => None,
        }
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut disk = self.disk();
        disk.read_step()?;
        let inode = disk.inode_at(path)?;
        Ok(self.handle(&mut disk, inode))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut disk = self.disk();
        let (done, answer) = disk.whole_step();
        disk.needs_dir(path.parent().unwrap_or(Path::new("/")))?;
        let inode = match disk.inode_at(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && done => {
                let inode = disk.next_id();
                disk.inodes.insert(inode, Inode::default());
                disk.change(NameChange::Link(path.to_owned(), Entry::File(inode)));
                Ok(inode)
            }
            found => found,
        };
        answer?;
        let inode = inode?;
        Ok(self.handle(&mut disk, inode))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut file = self.open_append(path)?;
        file.truncate(0)?;
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let (done, answer) = disk.whole_step();
        if from.parent() != to.parent() {
            return Err(error(io::ErrorKind::CrossesDevices));
        }
        let inode = disk.inode_at(from)?;
        if done {
            disk.change(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        }
        answer
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let (done, answer) = disk.whole_step();
        disk.inode_at(path)?;
        if done {
            disk.change(NameChange::Unlink(path.to_owned()));
        }
        answer
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let (done, answer) = disk.whole_step();
        disk.needs_dir(dir)?;
        if done {
            let journal = std::mem::take(&mut disk.journal);
            let (now, later): (Vec<_>, Vec<_>) =
                journal.into_iter().partition(|c| c.dir() == Some(dir));
            disk.journal = later;
            for change in now {
                change.apply(&mut disk.durable_names);
            }
        }
        answer
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut disk = self.disk();
        disk.read_step()?;
        disk.needs_dir(dir)?;
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| path.file_name().map(OsString::from))
            .collect())
    }

    fn create_dir(&self, dir: &Path, _mode: u32) -> io::Result<()> {
        let mut disk = self.disk();
        let (done, answer) = disk.whole_step();
        let mut chain: Vec<&Path> = dir.ancestors().filter(|d| d.parent().is_some()).collect();
        chain.reverse();
        for dir in chain {
            match disk.names.get(dir) {
                Some(Entry::Dir) => {}
                Some(Entry::File(_)) => return Err(error(io::ErrorKind::NotADirectory)),
                None if done => disk.change(NameChange::Link(dir.to_owned(), Entry::Dir)),
                None => {}
            }
        }
        answer
    }
}

struct SimFile {
    fs: SimFs,
    inode: u64,
    id: u64,
    boot: u64,
}

impl SimFile {
    /// Runs `f` on the disk and this file's inode.
    fn with<R>(&self, f: impl FnOnce(&mut Disk, &mut Inode) -> io::Result<R>) -> io::Result<R> {
        let mut disk = self.fs.disk();
        if disk.boot != self.boot {
            return Err(error(io::ErrorKind::NotConnected));
        }
        let Some(mut inode) = disk.inodes.remove(&self.inode) else {
            return Err(error(io::ErrorKind::NotFound));
        };
        let result = f(&mut disk, &mut inode);
        disk.inodes.insert(self.inode, inode);
        result
    }
}

impl FsFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|disk, inode| {
            disk.read_step()?;
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(inode.now.len());
            let bytes = &inode.now[start..];
            let n = bytes.len().min(buf.len());
            if start < inode.unreadable.end && inode.unreadable.start < start + n {
                return Err(error(io::ErrorKind::Other));
            }
            buf[..n].copy_from_slice(&bytes[..n]);
            Ok(n)
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.with(|disk, inode| {
            let (mut n, mut answer) = match disk.step() {
                Ok(()) => (bytes.len(), Ok(())),
                Err((e, share)) => (bytes.len() * share as usize / 256, Err(e)),
            };
            if let Some(capacity) = disk.capacity_bytes {
                let used = disk.used_bytes() + inode.now.len() as u64;
                let room = usize::try_from(capacity.saturating_sub(used)).unwrap_or(usize::MAX);
                if n > room {
                    (n, answer) = (room, Err(error(io::ErrorKind::StorageFull)));
                }
            }
            inode.now.extend_from_slice(&bytes[..n]);
            answer
        })
    }

    fn byte_len(&self) -> io::Result<u64> {
        self.with(|disk, inode| {
            disk.read_step()?;
            Ok(inode.now.len() as u64)
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.with(|disk, inode| {
            let (done, answer) = disk.whole_step();
            if done {
                inode
                    .now
                    .resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            }
            answer
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.with(|disk, inode| {
            match disk.step() {
                Ok(()) if inode.sync_lies => {}
                Ok(()) => inode.durable.clone_from(&inode.now),
                Err((e, share)) => {
                    inode.sync_lies = true;
                    if share > 128 {
                        inode.durable.clone_from(&inode.now);
                    }
                    return Err(e);
                }
            }
            Ok(())
        })
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.with(|disk, inode| {
            disk.read_step()?;
            let free = inode.locked_by.is_none_or(|holder| holder == self.id);
            if free {
                inode.locked_by = Some(self.id);
            }
            Ok(free)
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut disk = self.fs.disk();
        if disk.boot == self.boot
            && let Some(inode) = disk.inodes.get_mut(&self.inode)
            && inode.locked_by == Some(self.id)
        {
            inode.locked_by = None;
        }
    }
}

#[cfg(test)]
mod tests;
