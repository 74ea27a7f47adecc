//! The disk as the agent sees it: log files, state, and news of changes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use tailwater_pipeline::fs::{Fs, FsFile};
use tailwater_receivers::filelog::logfs::{Entry, FileId, Kind, LogFile, LogFs, Meta, Owner};
use tailwater_receivers::filelog::watch::{News, WatchEvent};

use crate::dice::{chance, one_of};
use crate::disk::{Disk, Node, Uid};
use crate::world::{SharedWorld, World};

/// The number of the device.
const DEV: u64 = 7;

/// The disk, for one life of the agent.
#[derive(Clone)]
pub struct AgentFs {
    /// The world.
    pub world: SharedWorld,
    /// Which life.
    pub boot: u64,
    /// What it has open is not gone when it has no name any more. False for who only stands beside
    /// the one that is judged: what that one cannot read is gone.
    pub keeps: bool,
}

fn os(e: Errno) -> io::Error {
    e.into()
}

fn meta(disk: &Disk, uid: Uid) -> (Kind, Meta) {
    let i = &disk.inodes[uid];
    let kind = match i.node {
        Node::File => Kind::File,
        Node::Dir => Kind::Dir,
        Node::Link(_) => Kind::Link,
    };
    let meta = Meta {
        id: FileId {
            dev: DEV,
            ino: i.ino,
            birth_ns: if disk.no_birth { 0 } else { i.birth_ns },
        },
        size: i.data.len() as u64,
        mtime_ns: i.mtime_ns,
        links: i.names.len() as u64,
    };
    (kind, meta)
}

impl AgentFs {
    /// Does `f` to the world, unless the agent is dead.
    fn call<R>(&self, f: impl FnOnce(&mut World) -> io::Result<R>) -> io::Result<R> {
        let mut world = self.world.lock();
        if !world.enter(self.boot) {
            return Err(os(Errno::INTR));
        }
        let done = f(&mut world);
        world.settle();
        done
    }
}

/// Fails as files fail that cannot be opened now.
fn open_fault(w: &mut World) -> io::Result<()> {
    if !chance(&mut w.dice.disk, w.faults.open) {
        return Ok(());
    }
    let errors = [Errno::ACCESS, Errno::IO, Errno::MFILE];
    Err(os(one_of(&mut w.dice.disk, errors)))
}

fn state_fault(w: &mut World) -> io::Result<()> {
    if chance(&mut w.dice.disk, w.faults.state) {
        w.oracle.unsaved = true;
        return Err(os(Errno::IO));
    }
    Ok(())
}

impl LogFs for AgentFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let uid = self.call(|w| {
            open_fault(w)?;
            let uid = w.disk.find(path, true)?;
            if w.disk.inodes[uid].node != Node::File {
                return Err(os(Errno::INVAL));
            }
            w.disk.inodes[uid].handles += u32::from(self.keeps);
            w.tell("open", || {
                format!("{} is inode object {uid}", path.display())
            });
            Ok(uid)
        })?;
        Ok(Box::new(AgentLogFile(self.clone(), uid)))
    }

    fn look(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        self.call(|w| {
            open_fault(w)?;
            let uid = w.disk.find(path, false)?;
            Ok(meta(&w.disk, uid))
        })
    }

    fn look_through(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        self.call(|w| {
            open_fault(w)?;
            let uid = w.disk.find(path, true)?;
            Ok(meta(&w.disk, uid))
        })
    }

    fn list(&self, dir: &Path, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
        self.call(|w| {
            let entries = w.disk.list(dir)?;
            let entry = |(name, uid): (OsString, Uid)| Entry {
                name,
                kind: Some(meta(&w.disk, uid).0),
                ino: w.disk.inodes[uid].ino,
            };
            let entries: Vec<Entry> = entries.into_iter().map(entry).collect();
            let fails = chance(&mut w.dice.disk, w.faults.list);
            let n = match fails {
                true => w.dice.disk.below(entries.len() as u64 + 1) as usize,
                false => entries.len(),
            };
            entries.into_iter().take(n).for_each(each);
            if fails { Err(os(Errno::IO)) } else { Ok(()) }
        })
    }

    fn owner(&self, _path: &Path) -> io::Result<Owner> {
        Ok(Owner {
            uid: 0,
            gid: 0,
            mode: 0o644,
        })
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.call(|w| {
            w.disk.find(path, true)?;
            Ok(w.disk.resolve(path, true)?.into_owned())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|w| w.disk.unlink(path))
    }
}

/// An open log file.
struct AgentLogFile(AgentFs, Uid);

impl LogFile for AgentLogFile {
    fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.0.call(|w| {
            if chance(&mut w.dice.disk, w.faults.read) {
                return Err(os(Errno::IO));
            }
            let short = chance(&mut w.dice.disk, w.faults.short);
            let data = &w.disk.inodes[self.1].data;
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let mut n = (data.len() - from).min(max);
            if short && n > 1 {
                n = 1 + w.dice.disk.below(n as u64 - 1) as usize;
            }
            buf.extend_from_slice(&w.disk.inodes[self.1].data[from..from + n]);
            let of = w.disk.inodes[self.1].data.len();
            w.tell("read", || {
                format!("inode object {}: {n} bytes from {from} of {of}", self.1)
            });
            Ok(n)
        })
    }

    /// The disk of the simulation does not tell of holes.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok(Some(from))
    }

    fn meta(&self) -> io::Result<Meta> {
        self.0.call(|w| Ok(meta(&w.disk, self.1).1))
    }

    fn forget_pages(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AgentLogFile {
    fn drop(&mut self) {
        close(&self.0, self.1, None);
    }
}

/// Closes a file, and gives back the lock that `handle` has on it.
fn close(fs: &AgentFs, uid: Uid, handle: Option<u64>) {
    let mut world = fs.world.lock();
    if world.boot != fs.boot {
        return;
    }
    let inode = &mut world.disk.inodes[uid];
    inode.handles = inode.handles.saturating_sub(u32::from(fs.keeps));
    if handle.is_some() && inode.locked_by == handle {
        inode.locked_by = None;
    }
    world.disk.free_if_unused(uid);
    world.settle();
}

/// An open file of the state.
struct AgentStateFile {
    fs: AgentFs,
    uid: Uid,
    handle: u64,
    is_lock: bool,
}

impl Drop for AgentStateFile {
    fn drop(&mut self) {
        close(&self.fs, self.uid, Some(self.handle));
    }
}

impl FsFile for AgentStateFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.fs.call(|w| {
            let data = &w.disk.inodes[self.uid].data;
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let n = (data.len() - from).min(buf.len());
            buf[..n].copy_from_slice(&data[from..from + n]);
            Ok(n)
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_lock {
            // It holds the number of this very process, which is not the same in every run.
            return Ok(());
        }
        self.fs.call(|w| {
            if let Err(e) = state_fault(w) {
                let n = w.dice.disk.below(bytes.len() as u64 + 1) as usize;
                w.disk.append(self.uid, &bytes[..n])?;
                return Err(e);
            }
            let done = w.disk.append(self.uid, bytes);
            w.oracle.unsaved |= done.is_err();
            done
        })
    }

    fn byte_len(&self) -> io::Result<u64> {
        self.fs
            .call(|w| Ok(w.disk.inodes[self.uid].data.len() as u64))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.fs.call(|w| {
            state_fault(w)?;
            let len = usize::try_from(len).map_err(|_| os(Errno::INVAL))?;
            w.disk.truncate(self.uid, len);
            Ok(())
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.fs.call(|w| {
            if let Err(e) = state_fault(w) {
                w.disk.inodes[self.uid].sync_lies = true;
                return Err(e);
            }
            w.disk.sync(self.uid);
            Ok(())
        })
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.fs.call(|w| {
            let inode = &mut w.disk.inodes[self.uid];
            let free = inode.locked_by.is_none_or(|h| h == self.handle);
            if free {
                inode.locked_by = Some(self.handle);
            }
            Ok(free)
        })
    }
}

impl AgentFs {
    fn state_file(&self, path: &Path, create: bool) -> io::Result<Box<dyn FsFile>> {
        let (uid, handle) = self.call(|w| {
            let uid = match w.disk.find(path, true) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && create => {
                    state_fault(w)?;
                    w.disk.create(path, Node::File)?
                }
                found => found?,
            };
            w.disk.inodes[uid].handles += 1;
            Ok((uid, w.handle()))
        })?;
        Ok(Box::new(AgentStateFile {
            fs: self.clone(),
            uid,
            handle,
            is_lock: path.ends_with("lock"),
        }))
    }
}

impl Fs for AgentFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.state_file(path, false)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.state_file(path, true)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut file = self.state_file(path, true)?;
        file.truncate(0)?;
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|w| {
            if let Err(e) = state_fault(w) {
                if w.dice.disk.below(2) == 0 {
                    w.disk.rename(from, to)?;
                }
                return Err(e);
            }
            w.disk.rename(from, to)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|w| {
            state_fault(w)?;
            w.disk.unlink(path)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(|w| {
            state_fault(w)?;
            w.disk.find(dir, true)?;
            w.disk.sync_dir(dir);
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.call(|w| Ok(w.disk.list(dir)?.into_iter().map(|(n, _)| n).collect()))
    }

    fn create_dir(&self, dir: &Path, _mode: u32) -> io::Result<()> {
        self.call(|w| {
            let mut parents: Vec<&Path> = dir.ancestors().collect();
            parents.reverse();
            for dir in parents {
                if w.disk.find(dir, true).is_err() {
                    w.disk.create(dir, Node::Dir)?;
                }
            }
            Ok(())
        })
    }
}

/// The simulated inotify, for one life of the agent.
pub struct SimNews(pub AgentFs);

impl News for SimNews {
    fn follow(&mut self, dirs: &BTreeSet<PathBuf>) {
        let mut world = self.0.world.lock();
        if world.boot != self.0.boot {
            return;
        }
        let there = |d: &&PathBuf| world.disk.find(d, true).is_ok();
        let dirs: BTreeSet<PathBuf> = dirs.iter().filter(there).cloned().collect();
        let new = dirs.iter().any(|d| !world.news.dirs.contains(d));
        world.news.rescan |= new;
        world.news.dirs = dirs;
    }

    fn is_polling(&self) -> bool {
        false
    }

    fn why_polling(&self) -> &str {
        ""
    }

    fn wait(&mut self, _timeout: Duration) -> io::Result<Vec<WatchEvent>> {
        let mut world = self.0.world.lock();
        if world.boot != self.0.boot {
            return Ok(Vec::new());
        }
        let now = world.now();
        let mut events = Vec::new();
        if std::mem::take(&mut world.news.rescan) {
            events.push(WatchEvent::Rescan);
        }
        while world.news.queue.front().is_some_and(|(at, _)| *at <= now) {
            events.extend(world.news.queue.pop_front().map(|(_, e)| e));
        }
        Ok(events)
    }
}
