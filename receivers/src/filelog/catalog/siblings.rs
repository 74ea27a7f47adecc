//! The rotated files beside a log: which names are its generations, and in what order they came.
//!
//! Where a log is read by a symbolic link, they are beside what it leads to and named after that, as
//! those of containers below `/var/log/containers` are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use super::super::hash::stable_hash;
use super::super::identity::is_rotated_name;
use super::super::logfs::{FileId, LogFs, Meta};
use super::pairs::{Pairs, ToRead};

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
    /// There are older ones, which were read and do not change any more.
    pub has_older: bool,
}

/// Directories with no more names than this are cheap to list twice.
const SMALL: usize = 256;
/// So often they are looked at again until nothing has changed meanwhile.
const LOOKS: usize = 6;
/// Of so many files it is learnt whether inodes tell.
const LEARNT_FROM: usize = 4;
/// Directories with more names than this are not listed anew for every question.
const LARGE: usize = 2_000;
/// How old a listing of a large directory may be.
const LARGE_AGE_MAX: Duration = Duration::from_millis(200);
/// Names of directories that nobody asked for are kept for no longer than this.
const KEPT: Duration = Duration::from_secs(30);
/// The same for large ones.
const LARGE_KEPT: Duration = Duration::from_secs(2);
/// Two changes within this time may give a directory the same time of its last change.
const TICK: Duration = Duration::from_millis(50);
/// The same where times are told in whole seconds.
const COARSE_TICK: Duration = Duration::from_millis(2_500);
/// What did not change between two looks that far apart is not being written.
const SETTLED: Duration = Duration::from_millis(500);
/// A file that was changed so much earlier than the names beside it, in ns, is not either.
const SETTLED_NS: i64 = 2_000_000_000;
/// So many digits in the name of a rotated file are a time, which no other file gets.
const TIME_DIGITS: usize = 6;

/// Why the file of a name that has the same inode as before is the one that was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stays {
    /// Nothing says so.
    Perhaps,
    /// Its reader has it open: no other file gets its inode.
    Open,
    /// Nothing is left to read in it.
    Read,
}

/// Names of directories, and what they led to when they were looked at.
#[derive(Default)]
pub struct Listings {
    dirs: HashMap<PathBuf, Listing>,
    /// When old ones were forgotten.
    tidied: Mono,
    /// Number of the look around.
    round: u64,
    /// News of changes come of all directories, or nearly: what was seen is believed for a while.
    pub hears: bool,
    /// Where links among the logs lead, also while nothing is there.
    links: HashMap<PathBuf, PathBuf>,
    /// Files beside their compressed forms.
    pairs: Pairs,
}

#[derive(Default)]
struct Listing {
    at: Mono,
    /// The look around in which it was listed; 0 = it is to be listed again.
    round: u64,
    /// When it was asked for.
    asked: Mono,
    /// When names in it changed last, before it was listed.
    changed_ns: Option<i64>,
    /// Since when that is known.
    changed_since: Mono,
    /// Every change of names since it was listed shows in the time of the last change.
    is_sure: bool,
    /// False if the directory could not be listed.
    is_whole: bool,
    /// In order, so that those of one log are found among many.
    names: Vec<Name>,
    /// Files have the inodes that they are listed with. With some file systems none has.
    inodes_tell: bool,
    /// The same, learnt of a few of them.
    inodes_told: bool,
}

/// A name and the inode that it is listed with.
struct Name {
    text: String,
    ino: u64,
    /// What was there when it was looked at.
    looked: Option<Box<Looked>>,
}

/// What was at a name.
struct Looked {
    meta: Meta,
    /// Since when it is just that,
    since: Mono,
    /// and until when at least.
    until: Mono,
    /// A hash of the name of the log of which it is a generation that was read and does not change
    /// any more; 0 = that is not known.
    read_of: u64,
}

impl Listings {
    /// No names so far. `started_ns`: wall time of the start, ns since the epoch.
    pub fn new(started_ns: i64) -> Listings {
        let mut listings = Listings::default();
        listings.pairs.started_ns = started_ns;
        listings
    }

    /// Forgets what may be out of date at `now`.
    pub fn refresh(&mut self, now: Mono) {
        self.round += 1;
        if now.since(self.tidied) >= KEPT {
            self.tidied = now;
            self.dirs.retain(|_, l| now.since(l.asked) < KEPT);
        }
    }

    /// Forgets the names in large directories that nobody asked for of late: they are most of the memory
    /// of files at rest.
    pub fn forget_large(&mut self, now: Mono) {
        let is_kept = |l: &Listing| l.names.len() <= LARGE || now.since(l.asked) < LARGE_KEPT;
        self.dirs.retain(|_, l| is_kept(l));
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

    /// Forgets the names in the directory of the log at `base`.
    pub fn forget(&mut self, base: &Path) {
        if let Some(dir) = self.place(base).parent().map(Path::to_path_buf)
            && let Some(listing) = self.dirs.get_mut(&dir)
        {
            listing.round = 0;
        }
    }

    /// Something happened to the file at `path`.
    pub fn touched(&mut self, path: &Path) {
        if let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
            && let Some(listing) = self.dirs.get_mut(dir)
            && let Ok(i) = listing
                .names
                .binary_search_by(|n| n.text.as_str().cmp(name))
        {
            listing.names[i].looked = None;
        }
    }

    /// News may have been missed: everything is looked at again.
    pub fn forget_all(&mut self) {
        self.dirs.clear();
    }

    /// True if the answer for `base` may be older than the question.
    pub fn is_stale(&self, base: &Path, now: Mono) -> bool {
        let listing = self.place(base).parent().and_then(|d| self.dirs.get(d));
        listing.is_some_and(|l| l.round > 0 && l.names.len() > LARGE && l.at < now)
    }

    /// The rotated files of the log at `base`. A file whose compressed form appears beside it is
    /// there once, as itself: the other one is still being written (see [`Pairs`] for the exception). `stays` tells why a file that was
    /// looked at once is still the one of its inode. Without `whole`, the oldest are left out if they
    /// were read and do not change any more.
    pub fn of(
        &mut self,
        fs: &dyn LogFs,
        base: &Path,
        now: Mono,
        whole: bool,
        stays: &dyn Fn(&Meta) -> Stays,
    ) -> Siblings {
        let place = self.place(base).to_path_buf();
        let Some((dir, name)) = split(&place) else {
            return Siblings {
                stable: true,
                ..Siblings::default()
            };
        };
        let mut listing = self.take(fs, dir, now);
        let stays = |meta: &Meta| match self.hears {
            true => stays(meta),
            false => Stays::Perhaps,
        };
        let mut found = listing.look(fs, (dir, name), now, whole, &mut self.pairs, &stays);
        // Where names move on while they are looked at one by one, a file can be missed without any
        // trace: at the name it had, there is another one already.
        for attempt in 0..=LOOKS {
            if !listing.has_changed(fs, dir, name, now) {
                break;
            }
            if attempt == LOOKS {
                found.stable = false;
                break;
            }
            found = listing.look(fs, (dir, name), now, whole, &mut self.pairs, &stays);
        }
        self.dirs.insert(dir.to_path_buf(), listing);
        found
    }

    /// Where the file `id` is among the rotated files of the log at `base`, as [`Listings::of`] tells.
    pub fn find(&mut self, fs: &dyn LogFs, base: &Path, id: FileId, now: Mono) -> Option<PathBuf> {
        let place = self.place(base).to_path_buf();
        let (dir, name) = split(&place)?;
        let mut listing = self.take(fs, dir, now);
        let mut found = listing.find(fs, dir, name, id, &self.pairs);
        for _ in 0..LOOKS {
            if found.is_some() || !listing.has_changed(fs, dir, name, now) {
                break;
            }
            found = listing.find(fs, dir, name, id, &self.pairs);
        }
        self.dirs.insert(dir.to_path_buf(), listing);
        found
    }

    /// True if the file `id` may be among the rotated files of the log at `base`, by names that are asked for once
    /// in a look around: also where they change all the time.
    pub fn may_hold(&mut self, fs: &dyn LogFs, base: &Path, id: FileId, now: Mono) -> bool {
        let place = self.place(base).to_path_buf();
        let Some((dir, name)) = split(&place) else {
            return false;
        };
        let mut listing = self.take(fs, dir, now);
        let may = listing.may_hold(fs, dir, name, id);
        self.dirs.insert(dir.to_path_buf(), listing);
        may
    }

    /// The names in a directory, for one question.
    fn take(&mut self, fs: &dyn LogFs, dir: &Path, now: Mono) -> Listing {
        let mut listing = self.dirs.remove(dir).unwrap_or_default();
        listing.asked = now;
        if listing.round != self.round && !listing.is_fresh(fs, dir, now, self.hears) {
            listing.list(fs, dir, now);
        }
        listing.round = self.round;
        listing
    }
}

/// The directory and the name of a log.
fn split(log: &Path) -> Option<(&Path, &str)> {
    Some((log.parent()?, log.file_name()?.to_str()?))
}

/// When names in a directory changed last.
fn changed_at(fs: &dyn LogFs, dir: &Path) -> Option<i64> {
    fs.meta(dir).ok().map(|meta| meta.mtime_ns)
}

impl Listing {
    /// True if its names are those that are there, or old enough to be given once more.
    fn is_fresh(&self, fs: &dyn LogFs, dir: &Path, now: Mono, hears: bool) -> bool {
        if !self.is_whole {
            return false;
        }
        let is_young = self.round > 0 && now.since(self.at) < LARGE_AGE_MAX;
        if self.names.len() > LARGE && is_young {
            return true;
        }
        hears && self.is_sure && self.changed_ns.is_some() && changed_at(fs, dir) == self.changed_ns
    }

    /// Lists the directory. Gives the names of before.
    fn list(&mut self, fs: &dyn LogFs, dir: &Path, now: Mono) -> Vec<Name> {
        let changed_ns = changed_at(fs, dir);
        if changed_ns != self.changed_ns || changed_ns.is_none() {
            (self.changed_ns, self.changed_since) = (changed_ns, now);
        }
        let tick = match changed_ns {
            Some(ns) if ns % 1_000_000_000 == 0 => COARSE_TICK,
            _ => TICK,
        };
        self.is_sure = now.since(self.changed_since) >= tick;
        self.at = now;
        let mut names = Vec::with_capacity(self.names.len() + 8);
        let listed = fs.list(dir, &mut |entry| {
            if let Ok(text) = entry.name.into_string() {
                let (ino, looked) = (entry.ino, None);
                names.push(Name { text, ino, looked });
            }
        });
        self.is_whole = match listed {
            Ok(()) => true,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        };
        names.sort_unstable_by(|a, b| a.text.cmp(&b.text));
        let mut before = std::mem::replace(&mut self.names, names);
        let mut known = before.iter_mut().peekable();
        for name in &mut self.names {
            while known.next_if(|k| k.text < name.text).is_some() {}
            if let Some(known) = known.next_if(|k| k.text == name.text) {
                name.looked = known.looked.take();
            }
        }
        before
    }

    /// True if names of the log `base` may have changed since they were listed; they are listed again
    /// then.
    fn has_changed(&mut self, fs: &dyn LogFs, dir: &Path, base: &str, now: Mono) -> bool {
        if self.names.len() > LARGE {
            return false;
        }
        let is_same = changed_at(fs, dir) == self.changed_ns;
        // Two changes within a tick of file times look like one.
        if is_same && (self.is_sure || self.names.len() > SMALL) {
            return false;
        }
        let before = self.list(fs, dir, now);
        let names = |names| rotated(names, base).map(|n: &Name| (n.text.as_str(), n.ino));
        !names(&before).eq(names(&self.names))
    }

    /// What is at the rotated names of the log `base`, oldest first.
    fn look(
        &mut self,
        fs: &dyn LogFs,
        (dir, base): (&Path, &str),
        now: Mono,
        whole: bool,
        pairs: &mut Pairs,
        stays: &dyn Fn(&Meta) -> Stays,
    ) -> Siblings {
        let log = stable_hash(base.as_bytes());
        let (mut names, has_older) = self.rotated(base, if whole { 0 } else { log });
        let mut out = Siblings {
            stable: self.is_whole,
            has_older,
            files: Vec::with_capacity(names.len()),
        };
        // In order of their times if their names do not tell.
        let by_name = is_by_name(names.iter().map(|i| age(base, &self.names[*i].text)));
        let mut inodes = HashSet::with_capacity(names.len());
        let (mut as_listed, mut other) = (0, 0);
        let (mut left_out, mut first) = (Vec::new(), HashSet::new());
        for &i in &names {
            let compressed = &self.names[i].text;
            let Some(plain) = self.plain_beside(base, compressed) else {
                continue;
            };
            match pairs.which(fs, &dir.join(plain), &dir.join(compressed)) {
                ToRead::Plain => left_out.push(compressed.clone()),
                ToRead::Compressed => left_out.push(plain.to_owned()),
                // What the plain file has more is behind what the other one has.
                ToRead::Both => _ = first.insert(i),
            }
        }
        for at in 1..names.len() {
            if first.contains(&names[at]) && !first.contains(&names[at - 1]) {
                names.swap(at - 1, at);
            }
        }
        for i in names {
            if left_out.contains(&self.names[i].text) {
                continue;
            }
            let name = &mut self.names[i];
            let path = dir.join(&name.text);
            let meta = match name.known(base, log, by_name, self.changed_ns, stays) {
                Some(meta) => Ok(meta),
                None => fs.meta(&path).inspect(|meta| {
                    match meta.id.ino == name.ino {
                        true => as_listed += 1,
                        false => other += 1,
                    }
                    match &mut name.looked {
                        Some(looked) => looked.again(*meta, now),
                        none => *none = Some(Box::new(Looked::new(*meta, now))),
                    }
                }),
            };
            match meta {
                // The same file under two names: it was renamed in between.
                Ok(meta) if !inodes.insert(meta.id) => out.stable = false,
                Ok(meta) => out.files.push(Sibling { path, meta }),
                // Gone, or it cannot be told now what it is.
                Err(_) => out.stable = false,
            }
        }
        if as_listed + other > 0 {
            self.inodes_tell = as_listed > 0;
        }
        sort(base, &mut out.files);
        out
    }

    /// The rotated names of the log `base`, without the oldest that were read as those of `log`; and
    /// whether there are such.
    fn rotated(&self, base: &str, log: u64) -> (Vec<usize>, bool) {
        let range = in_range(&self.names, base);
        let (mut names, mut left_out) = (Vec::new(), 0);
        for (i, name) in self.names[range.clone()].iter().enumerate() {
            let was_read = log != 0 && name.is_read_of(log);
            if was_read && names.is_empty() {
                left_out += 1;
            } else if was_read || is_rotated_name(base, &name.text) {
                names.push(range.start + i);
            }
        }
        let is_dated = |i: &usize| matches!(age(base, &self.names[*i].text), Some(Age::Text(_)));
        match left_out > 0 && !names.iter().all(is_dated) {
            // Which ones are the oldest is not told by their names.
            true => self.rotated(base, 0),
            false => (names, left_out > 0),
        }
    }

    /// True if the file `id` may be among the rotated files of the log `base`, by what they are listed with. Whether
    /// that tells is learnt of a few of them.
    fn may_hold(&mut self, fs: &dyn LogFs, dir: &Path, base: &str, id: FileId) -> bool {
        let range = in_range(&self.names, base);
        if !(self.inodes_tell || self.inodes_told) {
            // One that has another inode may have been renamed meanwhile.
            let as_listed = |n: &Name| {
                let meta = fs.meta(&dir.join(&n.text));
                meta.is_ok_and(|meta| meta.id.ino == n.ino)
            };
            let some = self.names[range.clone()].iter().take(LEARNT_FROM);
            self.inodes_told = some.into_iter().any(as_listed);
        }
        let tells = self.inodes_tell || self.inodes_told;
        let may_be = |n: &&Name| !tells || n.ino == id.ino;
        let mut names = self.names[range].iter().filter(may_be);
        !self.is_whole || names.any(|n| is_rotated_name(base, &n.text))
    }

    /// Where the file `id` is among the rotated files of the log `base`.
    fn find(
        &self,
        fs: &dyn LogFs,
        dir: &Path,
        base: &str,
        id: FileId,
        pairs: &Pairs,
    ) -> Option<PathBuf> {
        let may_be = |n: &&Name| n.ino == id.ino || !self.inodes_tell;
        let names = self.names[in_range(&self.names, base)].iter();
        let names = names.filter(may_be);
        let names = names.filter(|n| is_rotated_name(base, &n.text));
        let mut paths = names
            .map(|n| (n, dir.join(&n.text)))
            .filter(|(n, path)| {
                let is_alone = self.plain_beside(base, &n.text).is_none();
                is_alone || pairs.is_read(path)
            })
            .map(|(_, path)| path);
        paths.find(|path| fs.meta(path).is_ok_and(|meta| meta.id == id))
    }

    /// The rotated file that `name` is a compressed form of, if that is there, too.
    fn plain_beside<'a>(&self, base: &str, name: &'a str) -> Option<&'a str> {
        let plain = name.strip_suffix(".gz")?;
        let found = self.names.binary_search_by(|n| n.text.as_str().cmp(plain));
        (found.is_ok() && is_rotated_name(base, plain)).then_some(plain)
    }
}

impl Looked {
    fn new(meta: Meta, now: Mono) -> Looked {
        Looked {
            meta,
            since: now,
            until: now,
            read_of: 0,
        }
    }

    /// Takes what is there now.
    fn again(&mut self, meta: Meta, now: Mono) {
        if meta != self.meta {
            *self = Looked::new(meta, now);
        }
        self.until = now;
    }
}

impl Name {
    /// What is there, if it need not be looked at again.
    fn known(
        &mut self,
        base: &str,
        log: u64,
        by_name: bool,
        names_changed_ns: Option<i64>,
        stays: &dyn Fn(&Meta) -> Stays,
    ) -> Option<Meta> {
        let looked = self.looked.as_mut()?;
        if !by_name || looked.meta.id.ino != self.ino {
            return None;
        }
        let mtime_ns = looked.meta.mtime_ns;
        let is_old = names_changed_ns.is_some_and(|at| at.saturating_sub(mtime_ns) >= SETTLED_NS);
        let is_settled = is_old || looked.until.since(looked.since) >= SETTLED;
        let holds = match stays(&looked.meta) {
            Stays::Open => true,
            Stays::Read if is_settled && is_given_once(base, &self.text) => {
                looked.read_of = log;
                true
            }
            Stays::Read | Stays::Perhaps => false,
        };
        holds.then_some(looked.meta)
    }

    fn is_read_of(&self, log: u64) -> bool {
        let looked = self.looked.as_ref();
        looked.is_some_and(|l| l.read_of == log && l.meta.id.ino == self.ino)
    }
}

/// True if a rotated name has a time in it, so that no other file will have it.
fn is_given_once(base: &str, name: &str) -> bool {
    let digits = |s: &str| s.bytes().filter(u8::is_ascii_digit).count();
    digits(name) >= digits(base) + TIME_DIGITS
}

/// Where the names are that begin as rotated forms of `base` do: with what is before its extension.
fn in_range(names: &[Name], base: &str) -> Range<usize> {
    let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
    let from = names.partition_point(|n| n.text.as_str() < stem);
    let many = names[from..].partition_point(|n| n.text.starts_with(stem));
    from..from + many
}

/// Rotated forms of `base`.
fn rotated<'a>(names: &'a [Name], base: &'a str) -> impl Iterator<Item = &'a Name> {
    let names = names[in_range(names, base)].iter();
    names.filter(move |n| is_rotated_name(base, &n.text))
}

/// What a name says about the age of a generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age<'a> {
    /// `.1`, `.2`: the larger, the older.
    Number(std::cmp::Reverse<u32>),
    /// A date or the like: in order of its text.
    Text(&'a str),
}

fn age<'a>(base: &str, name: &'a str) -> Option<Age<'a>> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let mark = name.strip_prefix(base)?.get(1..)?;
    let is_number = mark.len() <= 4 && mark.bytes().all(|b| b.is_ascii_digit());
    match mark.parse::<u32>() {
        Ok(n) if is_number => Some(Age::Number(std::cmp::Reverse(n))),
        _ if mark.starts_with(|c: char| c.is_ascii_digit()) => Some(Age::Text(mark)),
        _ => None,
    }
}

/// True if all have the same kind of age.
fn is_by_name<'a>(mut ages: impl Iterator<Item = Option<Age<'a>>>) -> bool {
    match ages.next() {
        None => true,
        Some(None) => false,
        Some(Some(Age::Number(_))) => ages.all(|a| matches!(a, Some(Age::Number(_)))),
        Some(Some(Age::Text(_))) => ages.all(|a| matches!(a, Some(Age::Text(_)))),
    }
}

fn age_at<'a>(base: &str, path: &'a Path) -> Option<Age<'a>> {
    age(base, path.file_name()?.to_str()?)
}

/// Oldest first: by the numbers or the dates in their names if all have the same kind of them, else
/// by the time of their last change.
fn sort(base: &str, files: &mut [Sibling]) {
    if is_by_name(files.iter().map(|s| age_at(base, &s.path))) {
        files.sort_by(|a, b| age_at(base, &a.path).cmp(&age_at(base, &b.path)));
    } else {
        files.sort_by(|a, b| (a.meta.mtime_ns, &a.path).cmp(&(b.meta.mtime_ns, &b.path)));
    }
}

#[cfg(test)]
#[path = "siblings_tests.rs"]
mod tests;
