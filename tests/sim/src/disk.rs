//! The disk: inodes, names, and what of them survives a power cut.
//!
//! A file's content is durable up to what was synchronised or written back; the rest is lost from
//! some byte on, as with delayed allocation. Changes of names and truncations go to a journal.
//! What a cut leaves of it depends on [`Journal`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tailwater_pipeline::clock::Rng64;

/// Number of an inode object; never used twice, unlike the inode number.
pub type Uid = usize;

/// What a cut leaves of changes that were not synchronised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Journal {
    /// ext4, `data=ordered`: the changes up to some point; any synchronisation commits all of them.
    Ext4,
    /// xfs: the changes up to some point; a synchronisation forces the log up to the last change
    /// of what is synchronised. Pages that were never written read as zeros.
    Xfs,
    /// Any of the changes, each for itself, as far as POSIX goes.
    Loose,
}

/// What an inode is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link and where it leads.
    Link(PathBuf),
}

/// An inode.
#[derive(Clone, Debug)]
pub struct Inode {
    /// What it is.
    pub node: Node,
    /// Its number; the lowest free one is used again at once.
    pub ino: u64,
    /// Birth time, ns.
    pub birth_ns: i64,
    /// Time of the last change, ns, in steps of [`TICK_NS`].
    pub mtime_ns: i64,
    /// What readers see.
    pub data: Vec<u8>,
    /// How much of it is sure to survive.
    synced: usize,
    /// What it holds, where that is compressed.
    pub plain: Option<Vec<u8>>,
    /// Names.
    pub names: u32,
    /// Open files of the agent.
    pub handles: u32,
    /// Open files of others.
    pub held: u32,
    /// Nothing leads to it any more.
    pub freed: bool,
    /// A synchronisation failed: later ones succeed and do nothing.
    pub sync_lies: bool,
    /// The handle that holds the exclusive lock.
    pub locked_by: Option<u64>,
}

/// Step of modification times, ns.
pub const TICK_NS: i64 = 4_000_000;
/// Unit in which unwritten content reads as zeros.
const PAGE_BYTES: usize = 64;
/// The first inode number that is given out.
const FIRST_INO: u64 = 12;

/// A change that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, Uid),
    Unlink(PathBuf, Uid),
    Rename(PathBuf, PathBuf, Uid),
    /// A truncation, with the content and the durable length of before.
    Cut(Uid, Vec<u8>, usize),
}

impl Change {
    fn touches(&self, uid: Uid) -> bool {
        match self {
            Change::Link(_, u) | Change::Unlink(_, u) => *u == uid,
            Change::Rename(_, _, u) | Change::Cut(u, _, _) => *u == uid,
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Change::Link(p, _) | Change::Unlink(p, _) => p.parent() == Some(dir),
            Change::Rename(from, to, _) => [from, to].iter().any(|p| p.parent() == Some(dir)),
            Change::Cut(..) => false,
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, Uid>) {
        match self {
            Change::Link(path, uid) => {
                names.insert(path, uid);
            }
            Change::Unlink(path, _) => {
                names.remove(&path);
            }
            Change::Rename(from, to, uid) => {
                names.remove(&from);
                names.insert(to, uid);
            }
            Change::Cut(..) => {}
        }
    }
}

/// What happened in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A file was written to or truncated.
    Modified,
    /// A name is new.
    Appeared,
    /// A name is gone.
    Gone,
}

/// See the module's documentation.
pub struct Disk {
    journal_kind: Journal,
    /// All inodes there ever were.
    pub inodes: Vec<Inode>,
    /// The names that are there.
    pub names: BTreeMap<PathBuf, Uid>,
    durable: BTreeMap<PathBuf, Uid>,
    journal: Vec<Change>,
    used: BTreeSet<u64>,
    /// Bytes of all files together; `None` = no limit.
    pub capacity_bytes: Option<usize>,
    /// What happened since it was last taken.
    pub events: Vec<(PathBuf, OsString, Event)>,
    /// Content was destroyed since it was last asked.
    pub destroyed: bool,
    /// File times are told without birth times.
    pub no_birth: bool,
    /// Wall time, ns; kept by the world.
    pub now_ns: i64,
}

fn os(e: Errno) -> io::Error {
    e.into()
}

impl Disk {
    /// A disk with the root directory.
    pub fn new(journal_kind: Journal) -> Disk {
        let mut disk = Disk {
            journal_kind,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            journal: Vec::new(),
            used: BTreeSet::new(),
            capacity_bytes: None,
            events: Vec::new(),
            destroyed: false,
            no_birth: false,
            now_ns: 0,
        };
        let root = disk.new_inode(Node::Dir);
        disk.inodes[root].names = 1;
        disk.names.insert(PathBuf::from("/"), root);
        disk.durable = disk.names.clone();
        disk
    }

    fn new_inode(&mut self, node: Node) -> Uid {
        let free = (FIRST_INO..).find(|ino| !self.used.contains(ino));
        let ino = free.unwrap_or(FIRST_INO);
        self.used.insert(ino);
        self.inodes.push(Inode {
            node,
            ino,
            birth_ns: self.now_ns,
            mtime_ns: self.now_ns / TICK_NS * TICK_NS,
            data: Vec::new(),
            synced: 0,
            plain: None,
            names: 0,
            handles: 0,
            held: 0,
            freed: false,
            sync_lies: false,
            locked_by: None,
        });
        self.inodes.len() - 1
    }

    fn event(&mut self, path: &Path, event: Event) {
        if let (Some(dir), Some(name)) = (path.parent(), path.file_name()) {
            self.events
                .push((dir.to_path_buf(), name.to_os_string(), event));
        }
    }

    /// The path without links: all of them, or not the last component.
    ///
    /// # Errors
    /// `ELOOP`.
    pub fn resolve(&self, path: &Path, last: bool) -> io::Result<PathBuf> {
        let mut rest: Vec<OsString> = path.iter().map(OsString::from).collect();
        rest.reverse();
        let (mut at, mut links) = (PathBuf::new(), 0);
        while let Some(name) = rest.pop() {
            at.push(&name);
            let Some(&uid) = self.names.get(&at) else {
                continue;
            };
            if let Node::Link(target) = &self.inodes[uid].node
                && (last || !rest.is_empty())
            {
                links += 1;
                if links > 8 {
                    return Err(os(Errno::LOOP));
                }
                let target: Vec<OsString> = target.iter().map(OsString::from).collect();
                rest.extend(target.into_iter().rev());
                at = PathBuf::new();
            }
        }
        Ok(at)
    }

    /// What `path` leads to.
    ///
    /// # Errors
    /// `ENOENT`, `ELOOP`.
    pub fn find(&self, path: &Path, follow: bool) -> io::Result<Uid> {
        let path = self.resolve(path, follow)?;
        self.names.get(&path).copied().ok_or(os(Errno::NOENT))
    }

    /// Creates something at a path where there is nothing.
    ///
    /// # Errors
    /// `EEXIST`, or the directory is not there.
    pub fn create(&mut self, path: &Path, node: Node) -> io::Result<Uid> {
        let path = self.resolve(path, false)?;
        if self.names.contains_key(&path) {
            return Err(os(Errno::EXIST));
        }
        let parent = path.parent().ok_or(os(Errno::INVAL))?;
        let dir = self.find(parent, true)?;
        if self.inodes[dir].node != Node::Dir {
            return Err(os(Errno::NOTDIR));
        }
        let uid = self.new_inode(node);
        self.inodes[uid].names = 1;
        self.names.insert(path.clone(), uid);
        self.event(&path, Event::Appeared);
        self.journal.push(Change::Link(path, uid));
        Ok(uid)
    }

    /// A second name for a file.
    ///
    /// # Errors
    /// There is no such file, or the name is taken.
    pub fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let uid = self.find(from, false)?;
        if self.names.contains_key(to) {
            return Err(os(Errno::EXIST));
        }
        self.inodes[uid].names += 1;
        self.names.insert(to.to_path_buf(), uid);
        self.event(to, Event::Appeared);
        self.journal.push(Change::Link(to.to_path_buf(), uid));
        Ok(())
    }

    /// Removes a name.
    ///
    /// # Errors
    /// There is none.
    pub fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let path = self.resolve(path, false)?;
        let uid = self.names.remove(&path).ok_or(os(Errno::NOENT))?;
        self.inodes[uid].names -= 1;
        self.event(&path, Event::Gone);
        self.journal.push(Change::Unlink(path, uid));
        self.free_if_unused(uid);
        Ok(())
    }

    /// Renames, replacing what had the name.
    ///
    /// # Errors
    /// There is no such file.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.resolve(from, false)?, self.resolve(to, false)?);
        let uid = self.names.remove(&from).ok_or(os(Errno::NOENT))?;
        let replaced = self.names.insert(to.clone(), uid);
        self.event(&from, Event::Gone);
        self.event(&to, Event::Appeared);
        self.journal.push(Change::Rename(from, to, uid));
        if let Some(old) = replaced {
            self.inodes[old].names -= 1;
            self.free_if_unused(old);
        }
        Ok(())
    }

    /// Gives an inode number back that nothing leads to.
    pub fn free_if_unused(&mut self, uid: Uid) {
        let inode = &mut self.inodes[uid];
        if inode.names == 0 && inode.handles == 0 && inode.held == 0 && !inode.freed {
            inode.freed = true;
            self.used.remove(&inode.ino);
            self.destroyed = true;
        }
    }

    /// Bytes of everything that is there.
    pub fn used_bytes(&self) -> usize {
        let there = self.inodes.iter().filter(|i| !i.freed);
        there.map(|i| i.data.len()).sum()
    }

    /// Appends; what does not fit is left out.
    ///
    /// # Errors
    /// `ENOSPC` if not all of it fits.
    pub fn append(&mut self, uid: Uid, bytes: &[u8]) -> io::Result<()> {
        let room = self
            .capacity_bytes
            .map_or(usize::MAX, |c| c.saturating_sub(self.used_bytes()));
        let n = bytes.len().min(room);
        self.append_reserved(uid, &bytes[..n]);
        if n < bytes.len() {
            return Err(os(Errno::NOSPC));
        }
        Ok(())
    }

    /// Appends what room was kept for.
    pub fn append_reserved(&mut self, uid: Uid, bytes: &[u8]) {
        let inode = &mut self.inodes[uid];
        inode.data.extend_from_slice(bytes);
        inode.mtime_ns = self.now_ns / TICK_NS * TICK_NS;
        self.modified(uid);
    }

    fn modified(&mut self, uid: Uid) {
        let at = self.names.iter().filter(|(_, u)| **u == uid);
        let paths: Vec<PathBuf> = at.map(|(p, _)| p.clone()).collect();
        for path in paths {
            self.event(&path, Event::Modified);
        }
    }

    /// Cuts a file.
    pub fn truncate(&mut self, uid: Uid, len: usize) {
        let inode = &mut self.inodes[uid];
        if len >= inode.data.len() {
            inode.data.resize(len, 0);
            return;
        }
        let before = inode.data.clone();
        self.journal.push(Change::Cut(uid, before, inode.synced));
        inode.data.truncate(len);
        inode.synced = inode.synced.min(len);
        inode.mtime_ns = self.now_ns / TICK_NS * TICK_NS;
        self.destroyed = true;
        self.modified(uid);
    }

    /// Makes content and length durable.
    pub fn sync(&mut self, uid: Uid) {
        if self.inodes[uid].sync_lies {
            return;
        }
        self.write_back(uid);
        match self.journal_kind {
            Journal::Ext4 => self.commit(self.journal.len()),
            Journal::Xfs => {
                let last = self.journal.iter().rposition(|c| c.touches(uid));
                self.commit(last.map_or(0, |i| i + 1));
            }
            Journal::Loose => self
                .journal
                .retain(|c| !matches!(c, Change::Cut(u, _, _) if *u == uid)),
        }
    }

    /// Makes the names in a directory durable.
    pub fn sync_dir(&mut self, dir: &Path) {
        match self.journal_kind {
            Journal::Ext4 => self.commit(self.journal.len()),
            Journal::Xfs => {
                let last = self.journal.iter().rposition(|c| c.is_in(dir));
                self.commit(last.map_or(0, |i| i + 1));
            }
            Journal::Loose => {
                let all = std::mem::take(&mut self.journal);
                let (done, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| c.is_in(dir));
                done.into_iter().for_each(|c| c.apply(&mut self.durable));
                self.journal = left;
            }
        }
    }

    /// What the kernel does by itself after a while: the content of one file reaches the disk.
    pub fn write_back(&mut self, uid: Uid) {
        let inode = &mut self.inodes[uid];
        inode.synced = inode.data.len();
    }

    /// What the kernel does by itself after a while: the journal reaches the disk.
    pub fn commit_all(&mut self) {
        self.commit(self.journal.len());
    }

    fn commit(&mut self, n: usize) {
        for change in self.journal.drain(..n) {
            change.apply(&mut self.durable);
        }
    }

    /// Every open file is closed: those of the agent, or all.
    pub fn close_all(&mut self, others_too: bool) {
        for uid in 0..self.inodes.len() {
            let inode = &mut self.inodes[uid];
            (inode.handles, inode.locked_by) = (0, None);
            if others_too {
                inode.held = 0;
            }
            self.free_if_unused(uid);
        }
    }

    /// The power fails.
    pub fn power_cut(&mut self, rng: &mut Rng64) {
        let fate = rng.below(4);
        let survives = |rng: &mut Rng64| match fate {
            0 => false,
            1 => true,
            _ => rng.below(2) == 0,
        };
        let journal = std::mem::take(&mut self.journal);
        let upto = match fate {
            0 => 0,
            1 => journal.len() as u64,
            _ => rng.below(journal.len() as u64 + 1),
        };
        let mut undone: BTreeMap<Uid, (Vec<u8>, usize)> = BTreeMap::new();
        for (i, change) in journal.into_iter().enumerate() {
            let kept = match self.journal_kind {
                Journal::Loose => survives(rng),
                _ => (i as u64) < upto,
            };
            match change {
                Change::Cut(uid, before, synced) if !kept => {
                    undone.entry(uid).or_insert((before, synced));
                }
                _ if !kept => {}
                change => change.apply(&mut self.durable),
            }
        }
        for (uid, inode) in self.inodes.iter_mut().enumerate() {
            if let Some((before, synced)) = undone.remove(&uid) {
                (inode.data, inode.synced) = (before, synced);
            }
            tear(inode, fate, self.journal_kind, rng);
        }
        self.names = self.durable.clone();
        self.after_cut();
    }

    /// Brings everything that follows from names and content up to date.
    fn after_cut(&mut self) {
        self.used.clear();
        for inode in &mut self.inodes {
            (inode.names, inode.handles, inode.held) = (0, 0, 0);
            (inode.locked_by, inode.sync_lies, inode.freed) = (None, false, true);
        }
        let mut gone = Vec::new();
        for (path, &uid) in &self.names {
            let inode = &mut self.inodes[uid];
            if inode.freed && !self.used.insert(inode.ino) {
                gone.push(path.clone());
                continue;
            }
            inode.freed = false;
            inode.names += 1;
        }
        for path in gone {
            self.names.remove(&path);
        }
        self.durable = self.names.clone();
        self.events.clear();
        self.destroyed = true;
    }

    /// The names in a directory, in order.
    pub fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Uid)>> {
        let dir = self.resolve(dir, true)?;
        let uid = self.names.get(&dir).ok_or(os(Errno::NOENT))?;
        if self.inodes[*uid].node != Node::Dir {
            return Err(os(Errno::NOTDIR));
        }
        let below = self.names.range(dir.clone()..).skip(1);
        let below = below.take_while(|(p, _)| p.starts_with(&dir));
        let inside = below.filter(|(p, _)| p.parent() == Some(&dir));
        Ok(inside
            .filter_map(|(p, u)| Some((p.file_name()?.to_os_string(), *u)))
            .collect())
    }
}

/// Loses what was not on disk.
fn tear(inode: &mut Inode, fate: u64, kind: Journal, rng: &mut Rng64) {
    let (len, synced) = (inode.data.len(), inode.synced.min(inode.data.len()));
    if synced == len {
        return;
    }
    let kept = match fate {
        0 => synced,
        1 => len,
        _ => synced + rng.below((len - synced) as u64 + 1) as usize,
    };
    inode.data.truncate(kept);
    if kind != Journal::Ext4 && fate > 1 {
        let mut at = synced;
        while at < kept {
            let end = (at / PAGE_BYTES * PAGE_BYTES + PAGE_BYTES).min(kept);
            if rng.below(8) == 0 {
                inode.data[at..end].fill(0);
            }
            at = end;
        }
    }
    inode.synced = inode.data.len();
}
