//! The disk: inodes, names, and what of them survives a power cut.
//!
//! A file's content is durable up to what was synchronised or written back; the rest is lost from
//! some byte on, as with delayed allocation. Changes of names and truncations go to a journal.
//! What a cut leaves of it depends on [`Journal`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tailwater_pipeline::clock::Rng64;

/// Number of an inode object; never used twice, unlike the inode number.
pub type Uid = usize;

/// Names and what they lead to. Compared byte by byte: paths are looked up all the time.
type Names = BTreeMap<OsString, Uid>;

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
    /// It is not of the state: logs, their directories and links.
    pub is_log: bool,
    /// Names.
    pub names: Vec<PathBuf>,
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

impl Inode {
    /// What readers see, unpacked.
    pub fn content(&self) -> &[u8] {
        self.plain.as_ref().unwrap_or(&self.data)
    }
}

/// Step of modification times, ns.
pub const TICK_NS: i64 = 4_000_000;
/// Unit in which unwritten content reads as zeros.
const PAGE_BYTES: usize = 64;
/// What is below is logs.
const LOG_ROOT: &str = "/var/log";
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

    fn apply(self, names: &mut Names) {
        match self {
            Change::Link(path, uid) => {
                names.insert(path.into(), uid);
            }
            Change::Unlink(path, _) => {
                names.remove(path.as_os_str());
            }
            Change::Rename(from, to, uid) => {
                names.remove(from.as_os_str());
                names.insert(to.into(), uid);
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
    names: Names,
    durable: Names,
    journal: Vec<Change>,
    /// Inode numbers below `next_ino` that nothing has.
    free: BTreeSet<u64>,
    next_ino: u64,
    /// There are symbolic links.
    has_links: bool,
    /// Bytes of all files together; `None` = no limit.
    pub capacity_bytes: Option<usize>,
    /// What happened to logs since it was last taken.
    pub events: Vec<(PathBuf, Event)>,
    /// Content of logs that was destroyed since it was last taken.
    pub destroyed: Vec<Vec<u8>>,
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
            names: Names::new(),
            durable: Names::new(),
            journal: Vec::new(),
            free: BTreeSet::new(),
            next_ino: FIRST_INO,
            has_links: false,
            capacity_bytes: None,
            events: Vec::new(),
            destroyed: Vec::new(),
            no_birth: false,
            now_ns: 0,
        };
        let root = disk.new_inode(Node::Dir, false);
        disk.add_name(PathBuf::from("/"), root);
        disk.durable = disk.names.clone();
        disk
    }

    /// What a power cut leaves.
    pub fn journal_kind(&self) -> Journal {
        self.journal_kind
    }

    fn new_inode(&mut self, node: Node, is_log: bool) -> Uid {
        let ino = self.free.pop_first().unwrap_or(self.next_ino);
        self.next_ino = self.next_ino.max(ino + 1);
        self.has_links |= matches!(node, Node::Link(_));
        self.inodes.push(Inode {
            node,
            ino,
            birth_ns: self.now_ns,
            mtime_ns: self.now_ns / TICK_NS * TICK_NS,
            data: Vec::new(),
            synced: 0,
            plain: None,
            is_log,
            names: Vec::new(),
            handles: 0,
            held: 0,
            freed: false,
            sync_lies: false,
            locked_by: None,
        });
        self.inodes.len() - 1
    }

    fn add_name(&mut self, path: PathBuf, uid: Uid) {
        self.touch_parent(&path);
        self.inodes[uid].names.push(path.clone());
        self.names.insert(path.into(), uid);
    }

    /// A name in the directory of `path` changes.
    fn touch_parent(&mut self, path: &Path) {
        let parent = path.parent().map(Path::as_os_str);
        if let Some(dir) = parent.and_then(|dir| self.names.get(dir)) {
            self.inodes[*dir].mtime_ns = self.now_ns / TICK_NS * TICK_NS;
        }
    }

    fn remove_name(&mut self, path: &Path) -> Option<Uid> {
        let uid = self.names.remove(path.as_os_str())?;
        self.touch_parent(path);
        self.inodes[uid].names.retain(|n| n != path);
        Some(uid)
    }

    fn event(&mut self, path: &Path, uid: Uid, event: Event) {
        if self.inodes[uid].is_log {
            self.events.push((path.to_path_buf(), event));
        }
    }

    /// The path without links: all of them, or not the last component.
    ///
    /// # Errors
    /// `ELOOP`.
    pub fn resolve<'p>(&self, path: &'p Path, last: bool) -> io::Result<Cow<'p, Path>> {
        if !self.has_links {
            return Ok(Cow::Borrowed(path));
        }
        let mut rest: Vec<OsString> = path.iter().map(OsString::from).collect();
        rest.reverse();
        let (mut at, mut links) = (PathBuf::new(), 0);
        while let Some(name) = rest.pop() {
            at.push(&name);
            let Some(&uid) = self.names.get(at.as_os_str()) else {
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
        Ok(Cow::Owned(at))
    }

    /// What `path` leads to.
    ///
    /// # Errors
    /// `ENOENT`, `ELOOP`.
    pub fn find(&self, path: &Path, follow: bool) -> io::Result<Uid> {
        let path = self.resolve(path, follow)?;
        self.names
            .get(path.as_os_str())
            .copied()
            .ok_or(os(Errno::NOENT))
    }

    /// Creates something at a path where there is nothing.
    ///
    /// # Errors
    /// `EEXIST`, or the directory is not there.
    pub fn create(&mut self, path: &Path, node: Node) -> io::Result<Uid> {
        let path = self.resolve(path, false)?.into_owned();
        if self.names.contains_key(path.as_os_str()) {
            return Err(os(Errno::EXIST));
        }
        let parent = path.parent().ok_or(os(Errno::INVAL))?;
        let dir = self.find(parent, true)?;
        if self.inodes[dir].node != Node::Dir {
            return Err(os(Errno::NOTDIR));
        }
        let uid = self.new_inode(node, path.starts_with(LOG_ROOT));
        self.add_name(path.clone(), uid);
        self.event(&path, uid, Event::Appeared);
        self.journal.push(Change::Link(path, uid));
        Ok(uid)
    }

    /// A second name for a file.
    ///
    /// # Errors
    /// There is no such file, or the name is taken.
    pub fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let uid = self.find(from, false)?;
        if self.names.contains_key(to.as_os_str()) {
            return Err(os(Errno::EXIST));
        }
        self.add_name(to.to_path_buf(), uid);
        self.event(to, uid, Event::Appeared);
        self.journal.push(Change::Link(to.to_path_buf(), uid));
        Ok(())
    }

    /// Removes a name.
    ///
    /// # Errors
    /// There is none.
    pub fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let path = self.resolve(path, false)?.into_owned();
        let uid = self.remove_name(&path).ok_or(os(Errno::NOENT))?;
        self.event(&path, uid, Event::Gone);
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
        let (from, to) = (from.into_owned(), to.into_owned());
        let uid = self.remove_name(&from).ok_or(os(Errno::NOENT))?;
        let replaced = self.remove_name(&to);
        self.add_name(to.clone(), uid);
        self.event(&from, uid, Event::Gone);
        self.event(&to, uid, Event::Appeared);
        self.journal.push(Change::Rename(from, to, uid));
        if let Some(old) = replaced {
            self.free_if_unused(old);
        }
        Ok(())
    }

    /// Gives an inode number back that nothing leads to.
    pub fn free_if_unused(&mut self, uid: Uid) {
        let inode = &mut self.inodes[uid];
        if inode.names.is_empty() && inode.handles == 0 && inode.held == 0 && !inode.freed {
            inode.freed = true;
            self.free.insert(inode.ino);
            if inode.is_log {
                self.destroyed.push(inode.content().to_vec());
            }
        }
    }

    /// Bytes of everything that is there.
    pub fn used_bytes(&self) -> usize {
        let there = self.inodes.iter().filter(|i| !i.freed);
        there.map(|i| i.data.len()).sum()
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        let room = |c: usize| c.saturating_sub(self.used_bytes());
        self.capacity_bytes.map_or(usize::MAX, room)
    }

    /// Appends; what does not fit is left out.
    ///
    /// # Errors
    /// `ENOSPC` if not all of it fits.
    pub fn append(&mut self, uid: Uid, bytes: &[u8]) -> io::Result<()> {
        let room = self.room();
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
        let inode = &self.inodes[uid];
        if inode.is_log {
            let event = |p: &PathBuf| (p.clone(), Event::Modified);
            self.events.extend(inode.names.iter().map(event));
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
        if inode.is_log {
            self.destroyed.push(before.clone());
        }
        self.journal.push(Change::Cut(uid, before, inode.synced));
        inode.data.truncate(len);
        inode.synced = inode.synced.min(len);
        inode.mtime_ns = self.now_ns / TICK_NS * TICK_NS;
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
        for inode in &mut self.inodes {
            inode.names.clear();
            (inode.handles, inode.held) = (0, 0);
            (inode.locked_by, inode.sync_lies, inode.freed) = (None, false, true);
        }
        let mut used = BTreeSet::new();
        for (path, uid) in std::mem::take(&mut self.names) {
            let inode = &mut self.inodes[uid];
            if inode.freed && !used.insert(inode.ino) {
                continue;
            }
            inode.freed = false;
            inode.names.push(path.clone().into());
            self.names.insert(path, uid);
        }
        self.free = (FIRST_INO..self.next_ino)
            .filter(|i| !used.contains(i))
            .collect();
        self.durable = self.names.clone();
        self.events.clear();
        self.destroyed.clear();
    }

    /// The names in a directory, in order.
    pub fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Uid)>> {
        let dir = self.resolve(dir, true)?;
        let uid = self.names.get(dir.as_os_str()).ok_or(os(Errno::NOENT))?;
        if self.inodes[*uid].node != Node::Dir {
            return Err(os(Errno::NOTDIR));
        }
        let mut first = dir.as_os_str().to_owned();
        first.push("/");
        let prefix = first.as_encoded_bytes();
        let name = |path: &OsStr| {
            let name = path.as_encoded_bytes().strip_prefix(prefix)?;
            let inside = !name.is_empty() && !name.contains(&b'/');
            inside.then(|| OsString::from(OsStr::from_bytes(name)))
        };
        let below = self.names.range(first.clone()..);
        let below = below.take_while(|(p, _)| p.as_encoded_bytes().starts_with(prefix));
        Ok(below.filter_map(|(p, u)| Some((name(p)?, *u))).collect())
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
