//! Finds the files that patterns match, and tells which directories to watch for news of them.
//!
//! A walk follows each pattern component by component: names are looked up, only directories under
//! a wildcard are listed, and nothing is listed that cannot hold a match. Links are followed; a
//! directory that is reached through itself ends the walk there, so loops do no harm. Only regular
//! files are found, and nothing is opened but directories.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::glob::{Components, Glob, Part};
use super::links::Refusal;
use super::logfs::{Entry, Kind, LogFs, Meta};
use super::order::{OrderError, OrderingCriteria};

/// What to find.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// Files that match any of these,
    pub include: Vec<Glob>,
    /// and none of these.
    pub exclude: Vec<Glob>,
    /// Leaves files out whose modification time is longer ago; zero = none.
    pub exclude_older_than: Duration,
    /// Sorts and limits.
    pub ordering: Option<OrderingCriteria>,
}

/// A file that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundFile {
    /// The path that matched.
    pub path: PathBuf,
    /// What it leads to.
    pub meta: Meta,
    /// The path without links, if `path` itself is a link.
    pub target: Option<PathBuf>,
}

/// Why something that could match was left out.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A directory could not be listed, or only in part.
    #[error("the directory cannot be listed: {0}")]
    Directory(io::Error),
    /// Something could not be looked at.
    #[error("cannot be looked at: {0}")]
    Stat(io::Error),
    /// Directories nested deeper than is followed.
    #[error("nested more than {DEPTH_MAX} directories deep")]
    TooDeep,
    /// A link to nothing.
    #[error("the link leads nowhere")]
    BrokenLink,
    /// A link that is not followed.
    #[error("{0}")]
    Refused(io::Error),
    /// The name does not say what `ordering_criteria` asks for.
    #[error(transparent)]
    Order(OrderError),
}

impl Problem {
    /// What the system said, if that is what it is about.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Problem::Directory(e) | Problem::Stat(e) => Some(e),
            Problem::Refused(_) | Problem::TooDeep | Problem::BrokenLink | Problem::Order(_) => {
                None
            }
        }
    }
}

/// The outcome of a walk.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files: in order of `ordering_criteria`, else of their paths. Each path is there once.
    pub files: Vec<FoundFile>,
    /// Directories in which a new name could change the outcome, and those that hold the targets
    /// of links; as they are reached, links included.
    pub dirs: BTreeSet<PathBuf>,
    /// What was left out, by path.
    pub problems: Vec<(PathBuf, Problem)>,
}

/// Deepest nesting of directories that is followed.
const DEPTH_MAX: usize = 256;

impl Discovery {
    /// Walks all patterns on `fs`. `now_ns` is the wall time.
    pub fn scan(&self, fs: &dyn LogFs, now_ns: i64) -> Scan {
        let mut walk = Walk {
            discovery: self,
            fs,
            found: Vec::new(),
            dirs: Vec::new(),
            problems: Vec::new(),
            entered: HashSet::new(),
        };
        for components in self.include.iter().flat_map(Glob::alternatives) {
            let start = PathBuf::from(if components.absolute { "/" } else { "" });
            walk.entered.clear();
            walk.step(&start, &components.parts, &mut Vec::new());
        }
        let Walk {
            mut found,
            dirs,
            mut problems,
            ..
        } = walk;
        // By bytes: the order of the names, and far cheaper than by components.
        found.sort_unstable_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
        found.dedup_by(|a, b| a.path.as_os_str() == b.path.as_os_str());
        found.retain(|f| self.is_young(f, now_ns));
        let files = match &self.ordering {
            None => found,
            Some(ordering) => {
                let (files, left_out) = ordering.apply(found, now_ns);
                let problem = |(f, e): (FoundFile, _)| (f.path, Problem::Order(e));
                problems.extend(left_out.into_iter().map(problem));
                files
            }
        };
        Scan {
            files,
            dirs: dirs.into_iter().collect(),
            problems,
        }
    }

    /// Looks at one path, after news of it: the file if it matches by itself. Not with
    /// `ordering_criteria`, where it depends on the others; only a scan can tell then.
    pub fn look(&self, fs: &dyn LogFs, path: &Path, now_ns: i64) -> Option<FoundFile> {
        if self.ordering.is_some() || !self.matches(path) {
            return None;
        }
        let file = find(fs, path).ok().flatten()?;
        self.is_young(&file, now_ns).then_some(file)
    }

    /// True if the path is included and not excluded, whatever is there.
    pub fn matches(&self, path: &Path) -> bool {
        self.include.iter().any(|g| g.matches(path)) && !self.is_excluded(path)
    }

    /// True if something below the directory `dir` could match: news of its creation ask for a
    /// scan.
    pub fn may_hold_matches(&self, dir: &Path) -> bool {
        let names: Vec<&[u8]> = names_of(dir);
        let alternatives = self.include.iter().flat_map(Glob::alternatives);
        alternatives
            .filter(|c| c.absolute == dir.is_absolute())
            .any(|c| leads_to(c, &names))
    }

    fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.iter().any(|g| g.matches(path))
    }

    fn is_young(&self, file: &FoundFile, now_ns: i64) -> bool {
        let age = i128::from(now_ns) - i128::from(file.meta.mtime_ns);
        self.exclude_older_than.is_zero() || age <= self.exclude_older_than.as_nanos() as i128
    }
}

fn names_of(path: &Path) -> Vec<&[u8]> {
    path.iter()
        .map(OsStrExt::as_bytes)
        .filter(|name| *name != b"/" && *name != b".")
        .collect()
}

/// True if `names` are the beginning of something that matches.
fn leads_to(c: &Components, names: &[&[u8]]) -> bool {
    for (i, part) in c.parts.iter().enumerate() {
        match (part, names.get(i)) {
            (Part::Any, _) => return true,
            (_, None) => return true,
            (part, Some(name)) if !part.matches(name) => return false,
            _ => {}
        }
    }
    false
}

/// One walk over all patterns.
struct Walk<'a> {
    discovery: &'a Discovery,
    fs: &'a dyn LogFs,
    /// What matches, unsorted; a path may be there several times.
    found: Vec<FoundFile>,
    /// Directories to watch, unsorted.
    dirs: Vec<PathBuf>,
    problems: Vec<(PathBuf, Problem)>,
    /// Directories that `**` entered through a link, with the number of components left to match.
    /// Each is entered once: links among directories could make any number of paths otherwise.
    entered: HashSet<(u64, u64, usize)>,
}

/// A directory on the way, by device and inode.
type Passed = (u64, u64);

impl Walk<'_> {
    /// Follows `parts` from the directory `dir` (empty = the current one). `passed` are the
    /// directories that `**` went through.
    fn step(&mut self, dir: &Path, parts: &[Part], passed: &mut Vec<Passed>) {
        let Some((part, rest)) = parts.split_first() else {
            return;
        };
        match part {
            Part::Name(name) => {
                let path = dir.join(std::ffi::OsStr::from_bytes(name));
                if rest.is_empty() {
                    self.watch(dir);
                    self.take(path, None);
                } else if self.is_dir(&path) {
                    self.step(&path, rest, passed);
                } else {
                    self.watch(dir);
                }
            }
            Part::Match(_) => self.list(dir, part, rest, passed),
            Part::Any => {
                // `**` is no directory at all, or one, and then `**` again.
                match rest {
                    [] | [Part::Match(_)] => {}
                    _ => self.step(dir, rest, passed),
                }
                self.descend(dir, parts, passed);
            }
        }
    }

    /// Lists `dir` for names that match `part`.
    fn list(&mut self, dir: &Path, part: &Part, rest: &[Part], passed: &mut Vec<Passed>) {
        for entry in self.entries(dir) {
            if !part.matches(entry.name.as_bytes()) {
                continue;
            }
            let (path, kind) = (dir.join(&entry.name), entry.kind);
            if rest.is_empty() {
                self.take(path, kind);
            } else if kind == Some(Kind::Dir)
                || (kind.is_none_or(|k| k == Kind::Link) && self.is_dir(&path))
            {
                self.step(&path, rest, passed);
            }
        }
    }

    /// Lists `dir` for `**` and what follows it: its files are matched against the component
    /// behind `**` in the same go, its directories are entered.
    fn descend(&mut self, dir: &Path, parts: &[Part], passed: &mut Vec<Passed>) {
        let own = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let Ok(meta) = self.fs.meta(own) else { return };
        let this = (meta.id.dev, meta.id.ino);
        if passed.contains(&this) {
            return;
        }
        if passed.len() >= DEPTH_MAX {
            self.problems.push((own.to_path_buf(), Problem::TooDeep));
            return;
        }
        passed.push(this);
        let last = match parts {
            [Part::Any] => Some(&Part::Any),
            [Part::Any, part @ Part::Match(_)] => Some(part),
            _ => None,
        };
        let mut entries = self.entries(dir);
        // Which of several links to a directory is followed must not depend on how they are listed.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let Entry { name, kind, .. } = entry;
            let path = dir.join(&name);
            let target = match kind {
                Some(k) if k != Kind::Link => None,
                _ => self.directory(&path),
            };
            if let Some(target) = target {
                let target = target.id;
                if self.entered.insert((target.dev, target.ino, parts.len())) {
                    self.step(&path, parts, passed);
                }
            } else if kind == Some(Kind::Dir) {
                self.step(&path, parts, passed);
            } else if last.is_some_and(|part| part.matches(name.as_bytes())) {
                self.take(path, kind);
            }
        }
        passed.pop();
    }

    fn is_dir(&mut self, path: &Path) -> bool {
        self.directory(path).is_some()
    }

    /// The directory that is at `path`, or that a link there leads to.
    fn directory(&mut self, path: &Path) -> Option<Meta> {
        match self.fs.look_through(path) {
            Ok((Kind::Dir, meta)) => Some(meta),
            Ok(_) => None,
            Err(e) => {
                if Refusal::of(&e).is_some() {
                    self.problems
                        .push((path.to_path_buf(), Problem::Refused(e)));
                }
                None
            }
        }
    }

    /// The entries of a directory, which is to be watched. One that is gone is no problem, nor is
    /// something that is no directory.
    fn entries(&mut self, dir: &Path) -> Vec<Entry> {
        let own = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let gone = |e: &io::Error| {
            matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        };
        let mut entries = Vec::new();
        match self.fs.list(own, &mut |entry| entries.push(entry)) {
            Ok(()) => {}
            Err(e) if entries.is_empty() && gone(&e) => {
                if let Some(parent) = dir.parent() {
                    self.watch(parent);
                }
                return entries;
            }
            // What was listed so far counts; the rest is for the next walk.
            Err(e) => {
                let problem = Problem::Directory(e);
                self.problems.push((own.to_path_buf(), problem));
                if entries.is_empty() {
                    return entries;
                }
            }
        }
        self.watch(dir);
        entries
    }

    fn watch(&mut self, dir: &Path) {
        let own = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        if self
            .dirs
            .last()
            .is_none_or(|last| last.as_os_str() != own.as_os_str())
        {
            self.dirs.push(own.to_path_buf());
        }
    }

    /// Takes what is at `path`, if it is a regular file and not excluded.
    fn take(&mut self, path: PathBuf, kind: Option<Kind>) {
        let other = kind.is_some_and(|k| !matches!(k, Kind::File | Kind::Link));
        if other || self.discovery.is_excluded(&path) {
            return;
        }
        match find(self.fs, &path) {
            Ok(Some(file)) => {
                let parent = file.target.as_ref().and_then(|t| t.parent());
                if let Some(parent) = parent.map(Path::to_path_buf) {
                    self.watch(&parent);
                }
                self.found.push(file);
            }
            Ok(None) => {}
            Err(problem) => self.problems.push((path, problem)),
        }
    }
}

/// The regular file that `path` leads to; `None` if there is nothing, or something else.
fn find(fs: &dyn LogFs, path: &Path) -> Result<Option<FoundFile>, Problem> {
    let (kind, meta) = match fs.look(path) {
        Ok(own) => own,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Problem::Stat(e)),
    };
    let file = |meta, target| FoundFile {
        path: path.to_path_buf(),
        meta,
        target,
    };
    if kind != Kind::Link {
        return Ok((kind == Kind::File).then(|| file(meta, None)));
    }
    let (kind, meta) = match fs.look_through(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Problem::BrokenLink),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(Problem::BrokenLink);
        }
        Err(e) if Refusal::of(&e).is_some() => return Err(Problem::Refused(e)),
        Err(e) => return Err(Problem::Stat(e)),
    };
    Ok((kind == Kind::File).then(|| file(meta, fs.resolve(path).ok())))
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
