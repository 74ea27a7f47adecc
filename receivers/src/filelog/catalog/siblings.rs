//! The rotated files beside a log: which names are its generations, and in what order they came.
//!
//! Where a log is read by a symbolic link, they are beside what it leads to and named after that, as
//! those of containers below `/var/log/containers` are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use super::super::identity::is_rotated_name;
use super::super::logfs::{LogFs, Meta};

/// A rotated file.
#[derive(Clone, Debug, PartialEq)]
pub struct Sibling {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub meta: Meta,
}

/// What is beside a log.
#[derive(Debug, Default)]
pub struct Siblings {
    /// The rotated files, oldest first.
    pub files: Vec<Sibling>,
    /// False if names changed while they were looked at, or could not be looked at: something may
    /// be missing or stand in the wrong place. Looking again helps.
    pub stable: bool,
}

/// Directories with no more names than this are cheap to look at twice.
const SMALL: usize = 256;
/// So often they are looked at again until nothing has changed meanwhile.
const LOOKS: usize = 6;
/// Directories with more names than this are not listed anew for every question.
const LARGE: usize = 2_000;
/// How old a listing of a large directory may be.
const LARGE_AGE_MAX: Duration = Duration::from_millis(200);

/// Names of directories, kept for the length of one look around.
#[derive(Default)]
pub struct Listings {
    dirs: HashMap<PathBuf, Listing>,
    /// Where links among the logs lead, also while nothing is there.
    links: HashMap<PathBuf, PathBuf>,
}

struct Listing {
    at: Mono,
    /// When names in it changed last, before it was listed.
    changed_ns: Option<i64>,
    /// False if the directory could not be listed.
    is_whole: bool,
    /// In order, so that those of one log are found among many.
    names: Vec<String>,
}

impl Listings {
    /// Forgets what may be out of date at `now`.
    pub fn refresh(&mut self, now: Mono) {
        let fresh = |l: &Listing| l.names.len() > LARGE && now.since(l.at) < LARGE_AGE_MAX;
        self.dirs.retain(|_, l| fresh(l));
    }

    /// Takes note of where the log at `base` is: at `target`, if it is a link. True if that is news.
    pub fn leads(&mut self, base: &Path, target: Option<&Path>) -> bool {
        match target {
            None if self.links.is_empty() => {}
            None => drop(self.links.remove(base)),
            Some(target) if self.links.get(base).is_some_and(|t| t == target) => {}
            Some(target) => {
                self.links.insert(base.into(), target.into());
                return true;
            }
        }
        false
    }

    /// Forgets where links lead, except for those at which `is_log` is true.
    pub fn retain_links(&mut self, is_log: impl Fn(&Path) -> bool) {
        self.links.retain(|base, _| is_log(base));
    }

    /// The directories that links lead to.
    pub fn link_dirs(&self) -> BTreeSet<PathBuf> {
        let dirs = self.links.values().filter_map(|t| t.parent());
        dirs.map(Path::to_path_buf).collect()
    }

    /// Where the log at `base` is.
    pub fn place<'a>(&'a self, base: &'a Path) -> &'a Path {
        self.links.get(base).map_or(base, PathBuf::as_path)
    }

    /// Forgets the directory of the log at `base`.
    pub fn forget(&mut self, base: &Path) {
        if let Some(dir) = self.place(base).parent().map(Path::to_path_buf) {
            self.dirs.remove(&dir);
        }
    }

    /// True if the answer for `base` may be older than the question.
    pub fn is_stale(&self, base: &Path, now: Mono) -> bool {
        let listing = self.place(base).parent().and_then(|d| self.dirs.get(d));
        listing.is_some_and(|l| l.at < now)
    }

    /// The rotated files of the log at `base`. A file whose compressed form appears beside it is
    /// there once, as itself: the other one is still being written.
    pub fn of(&mut self, fs: &dyn LogFs, base: &Path, now: Mono) -> Siblings {
        let mut found = self.look(fs, base, now);
        // Where names move on while they are looked at one by one, a file can be missed without any
        // trace: at the name it had, there is another one already.
        for _ in 0..LOOKS {
            if !self.may_have_changed(fs, base) {
                return found;
            }
            self.forget(base);
            let again = self.look(fs, base, now);
            let is_same = |(a, b): (&Sibling, &Sibling)| a.path == b.path && a.meta.id == b.meta.id;
            if again.files.len() == found.files.len()
                && again.files.iter().zip(&found.files).all(is_same)
            {
                return again;
            }
            found = again;
        }
        found.stable = false;
        found
    }

    /// True if names of the directory of the log at `base` may have changed since they were listed.
    fn may_have_changed(&self, fs: &dyn LogFs, base: &Path) -> bool {
        let dir = self.place(base).parent();
        let Some((dir, listing)) = dir.and_then(|d| Some((d, self.dirs.get(d)?))) else {
            return false;
        };
        match listing.names.len() {
            // Two changes within a tick of file times look like one.
            names if names <= SMALL => true,
            names if names <= LARGE => changed_at(fs, dir) != listing.changed_ns,
            _ => false,
        }
    }

    fn look(&mut self, fs: &dyn LogFs, base: &Path, now: Mono) -> Siblings {
        let place = self.place(base).to_path_buf();
        let (Some(dir), Some(name)) = (place.parent(), place.file_name().and_then(|n| n.to_str()))
        else {
            return Siblings {
                stable: true,
                ..Siblings::default()
            };
        };
        let listing = self.dirs.entry(dir.to_path_buf()).or_insert_with(|| {
            let changed_ns = changed_at(fs, dir);
            let names = fs.names(dir);
            let text = |n: PathBuf| n.into_os_string().into_string().ok();
            let is_whole = match &names {
                Ok(_) => true,
                Err(e) => e.kind() == io::ErrorKind::NotFound,
            };
            let names = names.unwrap_or_default();
            let mut names: Vec<String> = names.into_iter().filter_map(text).collect();
            names.sort_unstable();
            Listing {
                at: now,
                changed_ns,
                is_whole,
                names,
            }
        });
        let stable = listing.is_whole;
        let names = listing.rotated(name);
        let plain: HashSet<&str> = names.iter().copied().collect();
        let unfinished = |n: &str| n.strip_suffix(".gz").is_some_and(|p| plain.contains(p));
        let mut out = Siblings {
            stable,
            ..Siblings::default()
        };
        let mut inodes = HashSet::new();
        for name in names.iter().filter(|n| !unfinished(n)) {
            let path = dir.join(name);
            match fs.meta(&path) {
                // The same file under two names: it was renamed in between.
                Ok(meta) if !inodes.insert(meta.id) => out.stable = false,
                Ok(meta) => out.files.push(Sibling { path, meta }),
                // Gone, or it cannot be told now what it is.
                Err(_) => out.stable = false,
            }
        }
        sort(name, &mut out.files);
        out
    }
}

/// When names in a directory changed last.
fn changed_at(fs: &dyn LogFs, dir: &Path) -> Option<i64> {
    fs.meta(dir).ok().map(|meta| meta.mtime_ns)
}

impl Listing {
    /// Rotated forms of `base`. All of them begin with what is before its extension.
    fn rotated(&self, base: &str) -> Vec<&str> {
        let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
        let from = self.names.partition_point(|n| n.as_str() < stem);
        let names = self.names[from..].iter().map(String::as_str);
        let names = names.take_while(|n| n.starts_with(stem));
        names.filter(|n| is_rotated_name(base, n)).collect()
    }
}

/// What a name says about the age of a generation.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// `.1`, `.2`: the larger, the older.
    Number(std::cmp::Reverse<u32>),
    /// A date or the like: in order of its text.
    Text(String),
}

fn age(base: &str, path: &Path) -> Option<Age> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let mark = name.strip_prefix(base)?.get(1..)?;
    let is_number = mark.len() <= 4 && mark.bytes().all(|b| b.is_ascii_digit());
    match mark.parse::<u32>() {
        Ok(n) if is_number => Some(Age::Number(std::cmp::Reverse(n))),
        _ if mark.starts_with(|c: char| c.is_ascii_digit()) => Some(Age::Text(mark.to_owned())),
        _ => None,
    }
}

/// Oldest first: by the numbers or the dates in their names if all have the same kind of them, else
/// by the time of their last change.
fn sort(base: &str, files: &mut [Sibling]) {
    let ages: Vec<Option<Age>> = files.iter().map(|s| age(base, &s.path)).collect();
    let numbers = ages.iter().all(|a| matches!(a, Some(Age::Number(_))));
    let dates = ages.iter().all(|a| matches!(a, Some(Age::Text(_))));
    if numbers || dates {
        files.sort_by_cached_key(|s| age(base, &s.path));
    } else {
        files.sort_by(|a, b| (a.meta.mtime_ns, &a.path).cmp(&(b.meta.mtime_ns, &b.path)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::logfs::OsLogFs;
    use super::*;

    fn order(base: &str, names: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        for name in names {
            std::fs::write(dir.path().join(name), name).expect("written");
        }
        let mut listings = Listings::default();
        let found = listings.of(&OsLogFs, &dir.path().join(base), Mono::default());
        assert!(found.stable);
        let name = |s: Sibling| s.path.file_name().unwrap().to_string_lossy().into_owned();
        found.files.into_iter().map(name).collect()
    }

    #[test]
    fn generations_stand_in_the_order_of_their_names() {
        for (base, names, want) in [
            (
                "a.log",
                &["a.log", "a.log.2.gz", "a.log.10", "a.log.1", "b.log.3"][..],
                &["a.log.10", "a.log.2.gz", "a.log.1"][..],
            ),
            (
                "0.log",
                &[
                    "0.log.20240102-000000",
                    "0.log.20240101-000000.gz",
                    "0.log.20240103-000000",
                ],
                &[
                    "0.log.20240101-000000.gz",
                    "0.log.20240102-000000",
                    "0.log.20240103-000000",
                ],
            ),
            // Of two forms of one file the compressed one is not complete.
            ("a", &["a.1", "a.1.gz", "a.2.gz"], &["a.2.gz", "a.1"]),
        ] {
            assert_eq!(order(base, names), want, "{base}");
        }
    }

    #[test]
    fn many_questions_about_one_directory_get_the_answers_of_few() {
        let names: Vec<String> = (0..40)
            .flat_map(|i| [format!("l{i}.log"), format!("l{i}.log.1")])
            .collect();
        let dir = tempfile::tempdir().expect("a directory");
        for name in &names {
            std::fs::write(dir.path().join(name), name).expect("written");
        }
        let mut listings = Listings::default();
        for i in 0..40 {
            let base = dir.path().join(format!("l{i}.log"));
            let found = listings.of(&OsLogFs, &base, Mono::default());
            let paths: Vec<_> = found.files.into_iter().map(|s| s.path).collect();
            assert_eq!(paths, [dir.path().join(format!("l{i}.log.1"))]);
        }
    }
}
