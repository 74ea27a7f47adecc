//! Which file on disk a position of Promtail is about. It knew files by their paths only, so what is
//! known is: the file that was at the path when the positions were saved, or the one before it, was
//! read up to the offset.
//!
//! What decides, in this order:
//! - Times that a container runtime put before the lines. Of all places in all generations one was the
//!   end of what was written when the positions were saved: the line before it is older than that, the
//!   line behind it is not. Promtail stood there, but for what it was behind. A place behind a line that
//!   is younger was never reached.
//! - Birth: the file at the path was there when the positions were saved, and nothing was rotated since;
//!   or the youngest of the renamed ones that were there.
//! - The times of last change, which compression keeps: the first generation that was changed after the
//!   positions were saved.
//!
//! Where more than one file fits, none is taken: a wrong one would lose lines or repeat them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::ImportedPosition;
use super::claim::{Candidate, Claim};
use super::place::{After, Place};
use crate::filelog::identity::is_rotated_name;
use crate::filelog::logfs::LogFs;
use crate::filelog::position::Position;
use crate::operators::written_at;

const SECOND_NS: i64 = 1_000_000_000;
/// Clocks of file systems are this coarse at most.
const CLOCK_NS: i64 = SECOND_NS;
/// How far behind Promtail is when it was stopped and had nothing to wait for.
const STOPPED_LAG_NS: i64 = SECOND_NS;
/// How far behind its positions are when it was killed: it saves them every 10 s, and notes each
/// as often.
const KILLED_LAG_NS: i64 = 30 * SECOND_NS;
/// First bytes of a file that are searched for a line with a time.
const HEAD_BYTES: usize = 16 << 10;

/// Finds the files of Promtail's entries. `saved_ns` is when it saved them (ns since the epoch, the
/// time of change of its file).
pub fn claim_positions(entries: &[ImportedPosition], saved_ns: i64, fs: &dyn LogFs) -> Vec<Claim> {
    let logs: Vec<Log> = entries.iter().map(|e| Log::find(e, saved_ns, fs)).collect();
    let was_stopped = logs.iter().all(Log::shows_no_kill);
    let claim = |(entry, log): (&ImportedPosition, Log)| {
        let (path, outcome) = match log.decide(was_stopped) {
            Ok(fit) => (fit.path, Ok(fit.position)),
            Err(why) => (entry.path.clone(), Err(why)),
        };
        Claim {
            path,
            offset: entry.offset,
            outcome,
        }
    };
    entries.iter().zip(logs).map(claim).collect()
}

/// A file of which the offset can be a place.
struct Fit {
    path: PathBuf,
    position: Position,
    birth_ns: i64,
    mtime_ns: i64,
    is_live: bool,
    /// Nothing is behind the place.
    is_end: bool,
    /// When the line behind the place was written, if lines tell.
    next_ns: Option<i64>,
}

/// What is known of the generations of one log.
struct Log {
    saved_ns: i64,
    offset: u64,
    fits: Vec<Fit>,
    /// Times of last change of the rotated generations, whether they fit or not.
    rotated_ns: Vec<i64>,
    /// Birth of the file at the path.
    live_birth_ns: Option<i64>,
}

impl Log {
    fn find(entry: &ImportedPosition, saved_ns: i64, fs: &dyn LogFs) -> Log {
        let at = |path: PathBuf| Candidate::at(path, entry.path.clone(), HEAD_BYTES, fs);
        let live = at(entry.path.clone());
        let live_id = live.as_ref().map(|c| c.meta.id);
        let mut known: HashSet<_> = live_id.into_iter().collect();
        let rotated = neighbours(&entry.path, fs).into_iter().filter_map(at);
        let mut files: Vec<Candidate> = rotated.filter(|c| known.insert(c.meta.id)).collect();
        let rotated_ns = files.iter().map(|c| c.meta.mtime_ns).collect();
        files.extend(live);
        let begins: Vec<i64> = files.iter().filter_map(begins_at).collect();
        let fit = |c: &Candidate| {
            let file = c.open(fs).ok()?;
            let position = c.position(entry.offset, &*file).ok()??;
            let place = Place::at(&*file, entry.offset).ok()?;
            let is_past = place.before_ns.is_some_and(|t| t > saved_ns + CLOCK_NS);
            (place.is_line_start && !is_past).then(|| Fit {
                path: c.path.clone(),
                position,
                birth_ns: c.meta.id.birth_ns,
                mtime_ns: c.meta.mtime_ns,
                is_live: Some(c.meta.id) == live_id,
                is_end: place.after == After::End,
                next_ns: next(&place, &begins),
            })
        };
        Log {
            saved_ns,
            offset: entry.offset,
            fits: files.iter().filter_map(fit).collect(),
            rotated_ns,
            live_birth_ns: live_id.map(|id| id.birth_ns),
        }
    }

    /// Places that were the end of what was written not longer than this before the positions were
    /// saved.
    fn within(&self, lag_ns: i64) -> Vec<usize> {
        let from = self.saved_ns.saturating_sub(lag_ns);
        let is_within = |i: &usize| self.fits[*i].next_ns.is_some_and(|at| at >= from);
        (0..self.fits.len()).filter(is_within).collect()
    }

    /// False if there is a place where Promtail may have been killed, and none where it may have
    /// been stopped.
    fn shows_no_kill(&self) -> bool {
        !self.within(STOPPED_LAG_NS).is_empty() || self.within(KILLED_LAG_NS).is_empty()
    }

    /// The file that is meant, or why it is not clear.
    fn decide(mut self, was_stopped: bool) -> Result<Fit, String> {
        let chosen = match self.by_lines(was_stopped)? {
            Some(i) => Some(i),
            None => self.by_birth().or_else(|| self.by_last_change()),
        };
        match chosen {
            Some(i) => Ok(self.fits.swap_remove(i)),
            None => Err(self.why_not()),
        }
    }

    /// The place that the times of lines lead to; `None` if they lead to none.
    fn by_lines(&self, was_stopped: bool) -> Result<Option<usize>, String> {
        let killed = self.within(KILLED_LAG_NS);
        let stopped = self.within(STOPPED_LAG_NS);
        if self.offset == 0 {
            // Whatever began later was not begun to be read either.
            let fits = if was_stopped { stopped } else { killed };
            return Ok(fits.into_iter().min_by_key(|i| self.fits[*i].next_ns));
        }
        match (&killed[..], &stopped[..]) {
            ([], _) => Ok(None),
            ([one], _) => Ok(Some(*one)),
            (_, [one]) if was_stopped => Ok(Some(*one)),
            (several, _) => Err(unclear(several.len())),
        }
    }

    fn by_birth(&self) -> Option<usize> {
        let mut fits = self.fits.iter();
        if self.live_birth_ns.is_some_and(|at| at <= self.saved_ns) {
            // A copy that was made since has what was read, and the file has other content.
            let was_copied = |fit: &Fit| {
                let is_born_since = fit.birth_ns == 0 || fit.birth_ns > self.saved_ns;
                !fit.is_live && is_born_since && fit.mtime_ns >= self.saved_ns
            };
            let is_same = !self.fits.iter().any(was_copied);
            return fits.position(|fit| fit.is_live && is_same);
        }
        // The youngest that was there was at the path then.
        let was_there = |fit: &Fit| (1..=self.saved_ns).contains(&fit.birth_ns);
        let there = fits.enumerate().filter(|(_, fit)| was_there(fit));
        there.max_by_key(|(_, fit)| fit.birth_ns).map(|(i, _)| i)
    }

    /// A copy or a compressed file is born when it is made, but has the time of its last line.
    fn by_last_change(&self) -> Option<usize> {
        let before = self.rotated_ns.iter().filter(|at| **at < self.saved_ns);
        let before = before.max().copied();
        // Read to its end, and nothing came after that while it was there.
        let is_whole = |fit: &Fit| !fit.is_live && fit.is_end && Some(fit.mtime_ns) == before;
        let whole = self.fits.iter().position(is_whole);
        if self.offset > 0 && whole.is_some() {
            return whole;
        }
        let later = self.later();
        let first = later.iter().min_by_key(|i| self.fits[**i].mtime_ns)?;
        // If there is no choice it is safe to skip what was read of it; else it has to be known that
        // none is missing between those of before and this one.
        let first_ns = self.fits[*first].mtime_ns;
        let between = self.saved_ns..first_ns;
        let is_next = before.is_some() && !self.rotated_ns.iter().any(|at| between.contains(at));
        (later.len() == 1 || is_next).then_some(*first)
    }

    /// Rotated files that were changed since.
    fn later(&self) -> Vec<usize> {
        let is_later = |fit: &Fit| !fit.is_live && fit.mtime_ns >= self.saved_ns;
        let fits = self.fits.iter().enumerate();
        let later = fits.filter(|(_, fit)| is_later(fit));
        later.map(|(i, _)| i).collect()
    }

    fn why_not(&self) -> String {
        let text = match (self.later().len(), self.live_birth_ns) {
            (0, None) => "the file is not there, nor a rotated one that is long enough",
            (0, Some(birth)) if birth > self.saved_ns => {
                "another file has taken its place, and no rotated one is long enough"
            }
            (0, Some(_)) => {
                "the file is shorter than what was read of it, or has other content by now"
            }
            (n, _) => return unclear(n),
        };
        text.to_owned()
    }
}

fn unclear(n: usize) -> String {
    format!("{n} rotated files could be the one that was read; it is not clear which")
}

/// When the first line of a file was written.
fn begins_at(c: &Candidate) -> Option<i64> {
    written_at(c.head.split(|b| *b == b'\n').next()?)
}

/// When the line behind a place was written, of files that begin then.
fn next(place: &Place, begins: &[i64]) -> Option<i64> {
    match place.after {
        After::Written(at) => Some(at),
        After::Unknown => None,
        After::End => {
            // What comes next is in the next generation, or yet to come.
            let before = place.before_ns?;
            let later = begins.iter().filter(|at| **at > before).min();
            Some(later.copied().unwrap_or(i64::MAX))
        }
    }
}

/// Paths of what rotation may have made of the file at `path`, beside it and beside what it leads
/// to. A compressed file beside the one it is made of is not finished.
fn neighbours(path: &Path, fs: &dyn LogFs) -> Vec<PathBuf> {
    let mut paths = vec![path.to_path_buf()];
    paths.extend(fs.resolve(path).ok().filter(|p| p != path));
    let mut out = Vec::new();
    for path in paths {
        let (Some(dir), Some(base)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let base = base.to_string_lossy();
        let names: HashSet<PathBuf> = fs.names(dir).unwrap_or_default().into_iter().collect();
        let is_unfinished = |n: &PathBuf| {
            n.extension().is_some_and(|e| e == "gz") && names.contains(&n.with_extension(""))
        };
        let rotated = names
            .iter()
            .filter(|n| is_rotated_name(&base, &n.to_string_lossy()) && !is_unfinished(n));
        out.extend(rotated.map(|n| dir.join(n)));
    }
    out.sort();
    out
}

#[cfg(test)]
#[path = "claim_paths_tests.rs"]
mod tests;
