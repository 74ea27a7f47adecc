//! News of changes, by inotify on directories (inotify(7)).
//!
//! Directories are watched, never files: one watch per directory, whatever it holds. News are
//! hints, not truth. Where some can be missing (the kernel's queue overflowed, a directory was
//! watched only after it had been listed) the answer is [`WatchEvent::Rescan`]; where none are
//! given (network file systems, no watches left, a directory that may not be read) the receiver
//! has to look by itself: [`Watch::is_polling`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::config::WatchMode;

/// What happened, after merging repeats. Paths are those of the directories that were asked for,
/// with the name in it. Where a directory is watched under several paths, each gets the event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// A file was written to or truncated.
    Modified(PathBuf),
    /// A file, directory or link is new at this path: created, or moved there. Or who may do what
    /// with it has changed.
    Appeared(PathBuf),
    /// What was at this path is gone: deleted, or moved away. Also a watched directory itself.
    Gone(PathBuf),
    /// News may be missing: everything has to be looked at once.
    Rescan,
}

/// Most events read in one go, so that a flood cannot keep the caller from its other work.
const EVENTS_MAX: usize = 4096;
/// Size of the buffer events are read into.
const BUFFER_BYTES: usize = 16 << 10;
/// News of mounts are heard at most this often: each asks for a look at everything, and where
/// containers come and go they are many.
const MOUNTS_INTERVAL: Duration = Duration::from_secs(2);

/// Where news of changes come from: [`Watch`], or a simulation.
pub trait News: Send {
    /// Watches exactly `dirs` from now on; see [`Watch::follow`].
    fn follow(&mut self, dirs: &BTreeSet<PathBuf>);
    /// True if some directory has to be looked at instead.
    fn is_polling(&self) -> bool;
    /// Why [`News::is_polling`]; empty if it is not.
    fn why_polling(&self) -> &str;
    /// News, as soon as there are some, or none after `timeout`; see [`Watch::wait`].
    ///
    /// # Errors
    /// As [`Watch::wait`].
    fn wait(&mut self, timeout: Duration) -> io::Result<Vec<WatchEvent>>;
}

impl News for Watch {
    fn follow(&mut self, dirs: &BTreeSet<PathBuf>) {
        Watch::follow(self, dirs);
    }

    fn is_polling(&self) -> bool {
        Watch::is_polling(self)
    }

    fn why_polling(&self) -> &str {
        Watch::why_polling(self)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<Vec<WatchEvent>> {
        Watch::wait(self, timeout)
    }
}

/// Listens for changes in a set of directories.
pub struct Watch {
    mode: WatchMode,
    /// `None`: nothing can be watched at all.
    inotify: Option<OwnedFd>,
    waker: Option<Arc<OwnedFd>>,
    /// Paths by watch descriptor; several if links lead to one directory.
    paths: HashMap<i32, Vec<PathBuf>>,
    by_path: BTreeMap<PathBuf, i32>,
    /// Directories that are not watched, and why.
    unwatched: BTreeMap<PathBuf, String>,
    why_polling: String,
    /// A directory was watched after it had been listed, or something was mounted or unmounted.
    rescan: bool,
    /// The table of mounts. What a path leads to can change without any news of the directories on
    /// it; the kernel tells of every change of the table (proc_pid_mounts(5)).
    mounts: Option<OwnedFd>,
    mounts_heard_at: Option<Instant>,
}

/// Ends a wait from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Option<Arc<OwnedFd>>);

impl Waker {
    /// Makes the wait that is under way, or the next one, return.
    pub fn wake(&self) {
        if let Some(fd) = &self.0 {
            // A counter that is full wakes as well.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }
}

/// An event as the kernel gives it.
struct Raw<'a> {
    wd: i32,
    flags: ReadFlags,
    name: &'a [u8],
}

impl Watch {
    /// A watch of nothing yet. If the kernel gives no inotify instance (its limit
    /// `fs.inotify.max_user_instances` or that of open files is reached) everything is polled.
    pub fn new(mode: WatchMode) -> Watch {
        let mut why_polling = String::new();
        let inotify = match mode {
            WatchMode::Poll => {
                why_polling = "watch: poll is configured".into();
                None
            }
            WatchMode::Auto | WatchMode::Inotify => {
                inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
                    .map_err(|e| why_polling = no_instance(e))
                    .ok()
            }
        };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Watch {
            mode,
            inotify,
            waker: eventfd(0, flags).ok().map(Arc::new),
            paths: HashMap::new(),
            by_path: BTreeMap::new(),
            unwatched: BTreeMap::new(),
            why_polling,
            rescan: false,
            mounts: mount_table(mode),
            mounts_heard_at: None,
        }
    }

    /// A handle that ends waits. Without descriptors left for it, waits end by their timeout only.
    pub fn waker(&self) -> Waker {
        Waker(self.waker.clone())
    }

    /// True if some directory, or all of them, cannot be watched and has to be looked at.
    pub fn is_polling(&self) -> bool {
        self.inotify.is_none() || !self.unwatched.is_empty()
    }

    /// Why [`Watch::is_polling`]; empty if it is not.
    pub fn why_polling(&self) -> &str {
        &self.why_polling
    }

    /// Watches exactly `dirs` from now on. If any of them is new, what happened there between the
    /// caller's listing and this call is unknown: the next [`Watch::wait`] asks for a rescan at
    /// once. Directories that cannot be watched are tried again with each call.
    pub fn follow(&mut self, dirs: &BTreeSet<PathBuf>) {
        let Some(inotify) = self.inotify.take() else {
            return;
        };
        let gone: Vec<_> = self
            .by_path
            .keys()
            .filter(|p| !dirs.contains(*p))
            .cloned()
            .collect();
        for path in gone {
            self.unfollow(&inotify, &path);
        }
        self.unwatched.clear();
        let mut full: Option<String> = None;
        for dir in dirs {
            if let Some(why) = &full {
                // One refusal is enough: the others would get the same.
                if !self.by_path.contains_key(dir) {
                    self.unwatched.insert(dir.clone(), why.clone());
                }
                continue;
            }
            full = self.follow_one(&inotify, dir);
        }
        self.inotify = Some(inotify);
        self.explain();
    }

    /// Watches one directory, again if it is watched: its path may lead to another one by now.
    /// Returns why there will be no more watches, if so.
    fn follow_one(&mut self, inotify: &OwnedFd, dir: &Path) -> Option<String> {
        let known = self.by_path.get(dir).copied();
        if known.is_none()
            && self.mode == WatchMode::Auto
            && let Some(name) = silent_file_system(dir)
        {
            let why = format!(
                "{} is on {name}, where changes are not reported",
                dir.display()
            );
            self.unwatched.insert(dir.to_path_buf(), why);
            return None;
        }
        let flags = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(inotify, dir, flags) {
            Ok(wd) if known == Some(wd) => None,
            Ok(wd) => {
                if known.is_some() {
                    self.unfollow(inotify, dir);
                }
                self.by_path.insert(dir.to_path_buf(), wd);
                self.paths.entry(wd).or_default().push(dir.to_path_buf());
                self.rescan = true;
                None
            }
            // Gone since it was listed: its parent's watch tells when it comes back.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                if known.is_some() {
                    self.unfollow(inotify, dir);
                }
                self.rescan |= known.is_some();
                None
            }
            Err(e) => {
                let why = format!("{} cannot be watched: {}", dir.display(), no_watch(e));
                self.unwatched.insert(dir.to_path_buf(), why.clone());
                matches!(e, Errno::NOSPC | Errno::NOMEM).then_some(why)
            }
        }
    }

    fn unfollow(&mut self, inotify: &OwnedFd, path: &Path) {
        let Some(wd) = self.by_path.remove(path) else {
            return;
        };
        if let Some(paths) = self.paths.get_mut(&wd) {
            paths.retain(|p| p != path);
            if paths.is_empty() {
                self.paths.remove(&wd);
                // It fails if the directory is gone, and the watch with it.
                let _ = inotify::remove_watch(inotify, wd);
            }
        }
    }

    /// Says in words why there is polling, and logs it where the user asked for inotify.
    fn explain(&mut self) {
        let why = match self.unwatched.len() {
            0 => String::new(),
            n => {
                let first = self
                    .unwatched
                    .values()
                    .next()
                    .map(String::as_str)
                    .unwrap_or_default();
                if n == 1 {
                    first.to_owned()
                } else {
                    format!("{first} (and {} more)", n - 1)
                }
            }
        };
        if why != self.why_polling && !why.is_empty() && self.mode == WatchMode::Inotify {
            tracing::error!(why = %why, "watch: inotify does not work for every directory");
        }
        self.why_polling = why;
    }

    /// Waits for news, for at most `timeout`. Returns at once if there are some. None if the time
    /// is over or [`Waker::wake`] was called.
    ///
    /// # Errors
    /// If waiting or reading fails for a reason that is not about what is watched.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Vec<WatchEvent>> {
        let mut events = Vec::new();
        if !self.rescan {
            self.sleep(timeout)?;
        }
        if std::mem::take(&mut self.rescan) {
            events.push(WatchEvent::Rescan);
        }
        let Some(inotify) = self.inotify.take() else {
            return Ok(events);
        };
        let done = self.drain(&inotify, &mut events);
        self.inotify = Some(inotify);
        done?;
        Ok(events)
    }

    /// Sleeps until there is something to read, mounts have changed, or the waker is used.
    fn sleep(&mut self, timeout: Duration) -> io::Result<()> {
        let begin = Instant::now();
        let end = begin + timeout;
        let mut fds = Vec::with_capacity(3);
        let heard = self.mounts_heard_at;
        let deaf = heard.is_some_and(|at| begin.saturating_duration_since(at) < MOUNTS_INTERVAL);
        if let Some(mounts) = self.mounts.as_ref().filter(|_| !deaf) {
            fds.push(PollFd::new(mounts, PollFlags::PRI));
        }
        if let Some(waker) = &self.waker {
            fds.push(PollFd::new(waker, PollFlags::IN));
        }
        if let Some(inotify) = &self.inotify {
            fds.push(PollFd::new(inotify, PollFlags::IN));
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timespec = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
            match poll(&mut fds, Some(&timespec)) {
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(_) => break,
            }
        }
        if fds.iter().any(|fd| fd.revents().contains(PollFlags::PRI)) {
            self.rescan = true;
            self.mounts_heard_at = Some(begin);
        }
        if let Some(waker) = &self.waker {
            // Resets the counter; empty if it was not the waker.
            let _ = rustix::io::read(waker, &mut [0u8; 8]);
        }
        Ok(())
    }

    /// Reads what the kernel has, up to [`EVENTS_MAX`].
    fn drain(&mut self, inotify: &OwnedFd, events: &mut Vec<WatchEvent>) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut seen = HashSet::new();
        // What is in the buffer has been taken from the kernel and must not be left there.
        let mut count = 0;
        while count < EVENTS_MAX || !reader.is_buffer_empty() {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            count += 1;
            let name = event.file_name().map(|n| n.to_bytes()).unwrap_or_default();
            let raw = Raw {
                wd: event.wd(),
                flags: event.events(),
                name,
            };
            self.absorb(inotify, &raw, &mut seen, events);
        }
        Ok(())
    }

    /// Translates one event. `seen` holds the files already reported as modified.
    fn absorb(
        &mut self,
        inotify: &OwnedFd,
        raw: &Raw<'_>,
        seen: &mut HashSet<(i32, Vec<u8>)>,
        events: &mut Vec<WatchEvent>,
    ) {
        let is = |flags: ReadFlags| raw.flags.intersects(flags);
        if is(ReadFlags::QUEUE_OVERFLOW) {
            if events.last() != Some(&WatchEvent::Rescan) {
                events.push(WatchEvent::Rescan);
            }
            return;
        }
        if is(ReadFlags::IGNORED
            | ReadFlags::DELETE_SELF
            | ReadFlags::MOVE_SELF
            | ReadFlags::UNMOUNT)
        {
            return self.lost(inotify, raw, events);
        }
        let Some(dirs) = self.paths.get(&raw.wd) else {
            return;
        };
        let key = (raw.wd, raw.name.to_vec());
        let make: fn(PathBuf) -> WatchEvent = if is(ReadFlags::MODIFY) {
            if !seen.insert(key) {
                return;
            }
            WatchEvent::Modified
        } else {
            // Another file may have this name from now on.
            seen.remove(&key);
            // What could not be opened or listed perhaps can from now on.
            let allowed = is(ReadFlags::ATTRIB);
            if allowed && raw.name.is_empty() {
                events.push(WatchEvent::Rescan);
                return;
            }
            let appeared = allowed || is(ReadFlags::CREATE | ReadFlags::MOVED_TO);
            if appeared {
                WatchEvent::Appeared
            } else {
                WatchEvent::Gone
            }
        };
        for dir in dirs {
            events.push(make(within(dir, raw.name)));
        }
    }

    /// A watched directory is gone, or is elsewhere: its watch ends.
    fn lost(&mut self, inotify: &OwnedFd, raw: &Raw<'_>, events: &mut Vec<WatchEvent>) {
        let Some(paths) = self.paths.remove(&raw.wd) else {
            return;
        };
        for path in paths {
            self.by_path.remove(&path);
            events.push(WatchEvent::Gone(path));
        }
        if !raw.flags.contains(ReadFlags::IGNORED) {
            // A directory that was moved is still watched by the kernel.
            let _ = inotify::remove_watch(inotify, raw.wd);
        }
    }
}

/// The path of a name in a directory, spelled as a walk spells it.
fn within(dir: &Path, name: &[u8]) -> PathBuf {
    let name = OsStr::from_bytes(name);
    if dir == Path::new(".") {
        PathBuf::from(name)
    } else {
        dir.join(name)
    }
}

/// The table of mounts, where notifications are used; without it, mounts are found by the complete
/// look every `rescan_interval`.
fn mount_table(mode: WatchMode) -> Option<OwnedFd> {
    let wanted = mode != WatchMode::Poll;
    let open = || std::fs::File::open("/proc/self/mountinfo").ok();
    wanted.then(open).flatten().map(OwnedFd::from)
}

fn no_instance(e: Errno) -> String {
    match e {
        Errno::MFILE => "no inotify instance: the limit fs.inotify.max_user_instances or that of \
                         open files is reached"
            .into(),
        e => format!("no inotify instance: {e}"),
    }
}

fn no_watch(e: Errno) -> String {
    match e {
        Errno::NOSPC => "the limit fs.inotify.max_user_watches is reached".into(),
        e => e.to_string(),
    }
}

/// File systems on which others write without this kernel's knowledge, by the magic numbers of
/// statfs(2).
const SILENT: &[(u32, &str)] = &[
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x517b, "smb"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0x00c3_6400, "ceph"),
    (0x0bd0_0bd0, "lustre"),
    (0x786f_4256, "vboxsf"),
    (0x4750_4653, "gpfs"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x1983_0326, "beegfs"),
    (0x2003_0528, "orangefs"),
    (0xaad7_aaea, "panfs"),
    (0xbeef_dead, "snfs"),
    (0x6163_6673, "acfs"),
    (0x0131_11a8, "ibrix"),
    (0xbacb_acbc, "vmhgfs"),
    (0x7c7c_6673, "prl_fs"),
    (0x564c, "ncp"),
];

/// The name of the file system of `dir`, if changes on it may go unreported.
fn silent_file_system(dir: &Path) -> Option<&'static str> {
    // The magic number has 32 bits in every system call's form of it.
    silent_by_magic(rustix::fs::statfs(dir).ok()?.f_type as u32)
}

fn silent_by_magic(magic: u32) -> Option<&'static str> {
    let found = SILENT.iter().find(|(m, _)| *m == magic);
    found.map(|(_, name)| *name)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
