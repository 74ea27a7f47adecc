//! Wakes whoever waits when a name appears in, or goes from, one of some directories (inotify(7)).
//!
//! It says that there is something to look at, not what: whoever is woken looks at everything. Where a
//! directory cannot be watched, it has to be looked at every now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// What changes which names there are.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// See the module's documentation.
pub struct Watch {
    fd: OwnedFd,
    watched: BTreeMap<PathBuf, i32>,
    /// Not all that was asked for is watched.
    pub is_partial: bool,
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel has no more of them.
    pub fn new() -> std::io::Result<Watch> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Watch {
            fd,
            watched: BTreeMap::new(),
            is_partial: false,
        })
    }

    /// Watches these from now on. True if some were not watched before: what happened in them between the look
    /// and now is not known.
    pub fn follow(&mut self, dirs: &BTreeSet<PathBuf>) -> bool {
        let gone: Vec<PathBuf> = self
            .watched
            .keys()
            .filter(|dir| !dirs.contains(*dir))
            .cloned()
            .collect();
        for dir in gone {
            if let Some(wd) = self.watched.remove(&dir) {
                // The kernel has taken it away itself if the directory is gone.
                let _ = inotify::remove_watch(&self.fd, wd);
            }
        }
        self.is_partial = false;
        let mut new = false;
        for dir in dirs {
            // Again each time: the directory may be another one of the same name.
            match inotify::add_watch(&self.fd, dir.as_path() as &Path, NAMES) {
                Ok(wd) => new |= self.watched.insert(dir.clone(), wd) != Some(wd),
                Err(_) => self.is_partial = true,
            }
        }
        new
    }

    /// Waits for news for so long at most; true if there were some.
    pub fn wait(&self, time: Duration) -> bool {
        let timeout = Timespec::try_from(time).ok();
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        if !poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0) {
            return false;
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut any = false;
        while reader.next().is_ok() {
            any = true;
        }
        any
    }
}
