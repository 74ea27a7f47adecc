//! Which symbolic links are followed: a link among logs must not make this process, which may read
//! more than others, read for them what they may not.
//!
//! The rule of the kernel's `fs.protected_symlinks`, made for an agent: a link counts if it was made
//! by root, by the user of this process, or by the owner of what it leads to; and, since containers
//! run as root over directories that the host reads, never if it leads to where secrets are. Links
//! on the way to a directory that the configuration names are the configuration's own.
//!
//! A path is opened without following anything (`openat2`); only if there is a link on it, it is
//! walked by descriptors, each link's owner read from the link that is then followed. What is
//! opened is what was judged, whoever changes the directories meanwhile. Sources: openat2(2),
//! path_resolution(7), the kernel's `Documentation/admin-guide/sysctl/fs.rst`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::logfs::{Entry, Kind, LogFile, LogFs, Meta, OsLogFs, Owner, log_file};

/// Links on one path, as the kernel allows.
const LINKS_MAX: usize = 40;

/// Where no program writes logs, and where secrets are.
const PROTECTED: [&str; 10] = [
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/root",
    "/run/credentials",
    "/run/secrets",
    "/sys",
    "/var/lib/kubelet",
    "/var/run/secrets",
];

/// The part of Kubernetes' directory that containers write to: volumes of this kind.
const WRITTEN_BY_PODS: &str = "kubernetes.io~empty-dir";

/// Where container runtimes keep what the links below `/var/log/containers` and `/var/log/pods`
/// lead to: Kubernetes and containerd, Docker, CRI-O and Podman.
pub const CONTAINER_LOGS: [&str; 4] = [
    "/var/log/containers",
    "/var/log/pods",
    "/var/lib/docker/containers",
    "/var/lib/containers/storage/overlay-containers",
];

/// Option `links::follow`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Follow {
    /// Those that somebody made who is trusted with what they lead to.
    #[default]
    Trusted,
    /// Of these, the ones that lead to where logs are.
    Inside,
    /// All, as the collector does.
    All,
}

/// Why a link is not followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Its owner could not have read it.
    #[error(
        "a link made by user {owner} to a file of user {target_owner} ({target}) is not followed; \
         if it is meant, name that directory in links::roots"
    )]
    Owner {
        /// The owner of the link.
        owner: u32,
        /// The owner of what it leads to.
        target_owner: u32,
        /// What it leads to.
        target: String,
    },
    /// It leads to where secrets are.
    #[error("a link to {0} is not followed; if it is meant, name that directory in links::roots")]
    Protected(String),
    /// It leads to a place that is none of logs, and `links::follow` is `inside`.
    #[error(
        "a link to {0} is not followed (links::follow: inside); if it is meant, name that \
         directory in links::roots"
    )]
    Outside(String),
}

impl Refusal {
    /// The refusal that an error is about.
    pub fn of(error: &io::Error) -> Option<&Refusal> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        io::Error::other(refusal)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct LinkRules {
    follow: Follow,
    /// `links::roots`.
    named: Vec<PathBuf>,
    /// The fixed beginnings of the patterns, as written.
    includes: Vec<PathBuf>,
    user: u32,
    /// What they were without links when somebody last asked in vain.
    places: Mutex<Arc<Places>>,
}

/// Directories, without links; those that do not exist are left out.
#[derive(Debug, Default)]
struct Places {
    named: Vec<PathBuf>,
    logs: Vec<PathBuf>,
}

/// What a link leads to.
struct Target<'a> {
    path: &'a Path,
    owner: u32,
    mode: u32,
}

impl LinkRules {
    /// Rules for patterns that begin with `includes`; links may lead to `roots` whoever made them.
    pub fn new(follow: Follow, roots: &[PathBuf], includes: Vec<PathBuf>) -> LinkRules {
        LinkRules {
            follow,
            named: roots.to_vec(),
            includes,
            user: rustix::process::geteuid().as_raw(),
            places: Mutex::default(),
        }
    }

    fn places(&self) -> Places {
        let real = |dir: &PathBuf| fs::canonicalize(dir).ok();
        let runtimes = CONTAINER_LOGS.iter().map(PathBuf::from);
        Places {
            named: self.named.iter().filter_map(real).collect(),
            logs: self
                .includes
                .iter()
                .cloned()
                .chain(runtimes)
                .filter_map(|dir| real(&dir))
                .collect(),
        }
    }

    /// Whether links of `owners` are followed to `target`.
    fn judge(&self, owners: &[u32], target: &Target<'_>) -> Result<(), Refusal> {
        let known = self
            .places
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone();
        self.judge_by(&known, owners, target).or_else(|_| {
            // A directory may have come, or be another one by now.
            let fresh = Arc::new(self.places());
            *self.places.lock().unwrap_or_else(|e| e.into_inner()) = fresh.clone();
            self.judge_by(&fresh, owners, target)
        })
    }

    fn judge_by(
        &self,
        places: &Places,
        owners: &[u32],
        target: &Target<'_>,
    ) -> Result<(), Refusal> {
        let below = |dirs: &[PathBuf]| dirs.iter().any(|dir| target.path.starts_with(dir));
        if self.follow == Follow::All || below(&places.named) {
            return Ok(());
        }
        let trusted = |owner: &u32| *owner == 0 || *owner == self.user || *owner == target.owner;
        let untrusted = owners.iter().find(|owner| !trusted(owner));
        let shown = || target.path.display().to_string();
        let inside = below(&places.logs);
        if inside && (untrusted.is_none() || target.mode & 0o004 != 0) {
            return Ok(());
        }
        match untrusted {
            Some(owner) => Err(Refusal::Owner {
                owner: *owner,
                target_owner: target.owner,
                target: shown(),
            }),
            None if self.follow == Follow::Inside => Err(Refusal::Outside(shown())),
            None if is_protected(target.path) => Err(Refusal::Protected(shown())),
            None => Ok(()),
        }
    }

    /// The directory that the configuration names on the way to `path`.
    fn start_of<'p>(&self, path: &'p Path) -> (PathBuf, &'p Path) {
        let named = self.includes.iter();
        let longest = named
            .filter(|dir| dir.is_absolute() == path.is_absolute())
            .filter_map(|dir| {
                let written = dir.strip_prefix(".").unwrap_or(dir);
                Some((dir, path.strip_prefix(written).ok()?))
            })
            .filter(|(_, rest)| rest.components().next().is_some())
            .max_by_key(|(dir, _)| dir.as_os_str().len());
        match longest {
            Some((dir, rest)) => (dir.clone(), rest),
            None if path.is_absolute() => (PathBuf::from("/"), path),
            None => (PathBuf::from("."), path),
        }
    }

    /// Follows `path` to its end, or to the directory that holds its last component; judges what
    /// it comes to if there was a link.
    fn walk(&self, path: &Path, last: bool) -> io::Result<Found> {
        let (start, rest) = self.start_of(path);
        let mut walk = Walk::new(&start)?;
        walk.push(rest);
        let name = if last { None } else { walk.left.pop_back() };
        let stat = walk.finish()?;
        let target = Target {
            path: &walk.path,
            owner: stat.st_uid,
            mode: stat.st_mode,
        };
        if !walk.owners.is_empty() {
            self.judge(&walk.owners, &target)?;
        }
        Ok(Found {
            dir: walk.dir,
            name: name.or(walk.name),
            stat,
        })
    }
}

fn is_protected(path: &Path) -> bool {
    let written_by_pods = |c: Component<'_>| c.as_os_str() == WRITTEN_BY_PODS;
    PROTECTED.iter().any(|dir| path.starts_with(dir)) && !path.components().any(written_by_pods)
}

/// Where a walk has ended.
struct Found {
    /// The directory that holds it, or itself if it is one.
    dir: OwnedFd,
    /// Its name there, if it is no directory.
    name: Option<OsString>,
    stat: Stat,
}

/// A walk along a path.
struct Walk {
    dir: OwnedFd,
    /// Where `dir` is, and at the end what was come to.
    path: PathBuf,
    /// What is left to do.
    left: VecDeque<OsString>,
    /// The owners of the links that were followed.
    owners: Vec<u32>,
    /// The last component, if it is no directory.
    name: Option<OsString>,
}

impl Walk {
    fn new(start: &Path) -> io::Result<Walk> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Walk {
            dir: rustix::fs::openat(CWD, start, flags, Mode::empty())?,
            path: fs::canonicalize(start)?,
            left: VecDeque::new(),
            owners: Vec::new(),
            name: None,
        })
    }

    /// Goes along `path` before anything else.
    fn push(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.left.push_front(name.to_owned()),
                Component::ParentDir => self.left.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.dir = rustix::fs::openat(&self.dir, name, flags, Mode::empty())?;
        if name == ".." {
            self.path.pop();
        } else {
            self.path.push(name);
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Stat> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        while let Some(name) = self.left.pop_front() {
            if name == ".." {
                self.enter(&name)?;
                continue;
            }
            let here = rustix::fs::openat(&self.dir, &name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&here)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => self.follow(&here, &stat)?,
                FileType::Directory => {
                    self.dir = here;
                    self.path.push(name);
                }
                _ if !self.left.is_empty() => return Err(Errno::NOTDIR.into()),
                _ => {
                    self.path.push(&name);
                    self.name = Some(name);
                    return Ok(stat);
                }
            }
        }
        Ok(rustix::fs::fstat(&self.dir)?)
    }

    fn follow(&mut self, link: &OwnedFd, stat: &Stat) -> io::Result<()> {
        if self.owners.len() >= LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        self.owners.push(stat.st_uid);
        let target = rustix::fs::readlinkat(link, "", Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            let start = Walk::new(Path::new("/"))?;
            (self.dir, self.path) = (start.dir, start.path);
        }
        self.push(&target);
        Ok(())
    }
}

/// Names that were looked at, remembered at most.
const SEEN_MAX: usize = 1 << 17;

/// The operating system's file system, with links followed by rules.
#[derive(Debug)]
pub struct GuardedFs {
    rules: LinkRules,
    hash: RandomState,
    /// Hashes of paths with what they led to, which need no other look: nothing is opened by that.
    seen: Mutex<HashSet<u64>>,
    /// Links with what they were without links when last asked. A look at both ends costs two calls;
    /// finding the way, one for each component of each path on it.
    resolved: Mutex<HashMap<PathBuf, PathBuf>>,
}

impl GuardedFs {
    /// Follows links by `rules`.
    pub fn new(rules: LinkRules) -> GuardedFs {
        GuardedFs {
            rules,
            hash: RandomState::new(),
            seen: Mutex::default(),
            resolved: Mutex::default(),
        }
    }
}

/// Opened for reading; a FIFO that took the place of a file must not hang.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

impl LogFs for GuardedFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let plain = rustix::fs::openat2(CWD, path, READ, Mode::empty(), ResolveFlags::NO_SYMLINKS);
        match plain {
            Ok(file) => return log_file(File::from(file)),
            // A link, or a kernel or container runtime that does not know the call.
            Err(Errno::LOOP | Errno::NOSYS | Errno::PERM | Errno::INVAL) => {}
            Err(e) => return Err(e.into()),
        }
        let found = self.rules.walk(path, true)?;
        let name = found.name.as_deref().unwrap_or(OsStr::from_bytes(b"."));
        let flags = READ | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::openat(&found.dir, name, flags, Mode::empty())?);
        let stat = rustix::fs::fstat(&file)?;
        if (stat.st_dev, stat.st_ino) != (found.stat.st_dev, found.stat.st_ino) {
            return Err(io::Error::other("it was replaced while it was opened"));
        }
        log_file(file)
    }

    fn look(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        OsLogFs.look(path)
    }

    /// Links on the way are not judged: whoever walks there has judged them, or opens it next.
    fn look_through(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        let found = OsLogFs.look_through(path)?;
        if !matches!(found.0, Kind::File | Kind::Dir) {
            return Ok(found);
        }
        let hash = self.hash.hash_one((path.as_os_str(), found.1.id));
        let seen = || self.seen.lock().unwrap_or_else(|e| e.into_inner());
        if seen().contains(&hash) {
            return Ok(found);
        }
        if OsLogFs.look(path)?.0 == Kind::Link {
            self.rules.walk(path, true)?;
        }
        let mut seen = seen();
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert(hash);
        Ok(found)
    }

    fn list(&self, dir: &Path, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
        OsLogFs.list(dir, each)
    }

    fn owner(&self, path: &Path) -> io::Result<Owner> {
        OsLogFs.owner(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let resolved = || self.resolved.lock().unwrap_or_else(|e| e.into_inner());
        let known = resolved().get(path).cloned();
        if let Some(known) = known
            && let (Ok((_, there)), Ok((kind, here))) =
                (OsLogFs.look_through(path), OsLogFs.look(&known))
            && (kind, here.id) == (Kind::File, there.id)
        {
            return Ok(known);
        }
        let found = OsLogFs.resolve(path)?;
        let mut resolved = resolved();
        if resolved.len() >= SEEN_MAX {
            resolved.clear();
        }
        resolved.insert(path.to_owned(), found.clone());
        Ok(found)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let found = self.rules.walk(path, false)?;
        let name = found.name.ok_or(Errno::ISDIR)?;
        Ok(rustix::fs::unlinkat(&found.dir, name, AtFlags::empty())?)
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
