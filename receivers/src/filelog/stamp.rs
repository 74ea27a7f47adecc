//! Times that are the same when a line is read again.
//!
//! Loki drops entries that are equal in stream, time and line, so a replay is invisible exactly if
//! it carries the same times. Two cases need care:
//!
//! - A line without a time of its own is stamped from a *mark*: an (offset, wall time) pair that is
//!   on disk before any line behind it is emitted. Its time is the mark's plus one nanosecond per
//!   byte since the mark, which is deterministic and keeps the order of lines.
//! - Genuine repeats (equal time and text) would collapse into one entry. Each repeat gets one
//!   nanosecond more than the one before, counted from state that the checkpoint carries.

use std::time::Duration;

use tailwater_pdata::{LogsBatch, Times};

use super::hash::stable_hash;

/// How old a mark may be before a new one is taken, where saving marks is cheap.
pub const MARK_AGE_MAX: Duration = Duration::from_secs(1);

/// However many files there are, no mark is used for longer.
pub const MARK_AGE_LIMIT: Duration = Duration::from_secs(60);

/// The offset of a mark that stamps nothing: it keeps the time that earlier content of the same file
/// came to.
const EARLIER_CONTENT: u64 = u64::MAX;

/// Marks of one file, oldest first: the newest one at or before an offset stamps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks(Vec<(u64, i64)>);

impl Marks {
    /// Marks as stored.
    pub fn from_entries(entries: Vec<(u64, i64)>) -> Marks {
        Marks(entries)
    }

    /// (offset, ns since the epoch), ascending.
    pub fn entries(&self) -> &[(u64, i64)] {
        &self.0
    }

    /// True if lines from `offset` on need a newer mark at wall time `now_ns`: there is none, or it
    /// would make them older than `age_max`.
    pub fn is_stale(&self, offset: u64, now_ns: i64, age_max: Duration) -> bool {
        match self.time_of(offset) {
            None => true,
            // A clock that was set back does not make marks stale: time never goes back here.
            Some(t) => i128::from(now_ns.saturating_sub(t)) > age_max.as_nanos() as i128,
        }
    }

    /// True if no mark stamps a line that starts at `offset`.
    pub fn is_empty_at(&self, offset: u64) -> bool {
        self.time_of(offset).is_none()
    }

    /// The stamp of a line that starts at `offset`.
    pub fn time_of(&self, offset: u64) -> Option<i64> {
        let &(from, time) = self.0.iter().rev().find(|(from, _)| *from <= offset)?;
        Some(time.saturating_add((offset - from).min(i64::MAX as u64) as i64))
    }

    /// Adds a mark at `offset`; never earlier than any stamp before it.
    pub fn add(&mut self, offset: u64, now_ns: i64) {
        let before = self.time_of(offset).map(|t| t.saturating_add(1));
        let earlier = self.0.iter().find(|(from, _)| *from == EARLIER_CONTENT);
        let floor = before.max(earlier.map(|(_, time)| *time));
        self.0.retain(|(from, _)| *from < offset);
        // Most files have one.
        self.0.reserve_exact(1);
        self.0.push((offset, now_ns.max(floor.unwrap_or(i64::MIN))));
    }

    /// The marks of a file whose content starts anew: none, but its first stamp comes after all
    /// before.
    pub fn restarted(self) -> Marks {
        let last = self.0.last();
        let floor = last.map(|(_, time)| (EARLIER_CONTENT, time.saturating_add(1)));
        Marks(floor.into_iter().collect())
    }

    /// Forgets what lines from `offset` on do not need.
    pub fn prune(&mut self, offset: u64) {
        if let Some(i) = self.0.iter().rposition(|(from, _)| *from <= offset) {
            self.0.drain(..i);
        }
    }
}

/// Distinct texts remembered for one instant. Beyond it, repeats of forgotten ones may collapse.
const TIES_MAX: usize = 256;

/// Texts seen at the newest time of a file, with the next offset in ns for a repeat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ties {
    /// The newest time, ns since the epoch.
    pub time_ns: i64,
    /// (hash of the text, ns to add to the next repeat).
    pub seen: Vec<(u64, u32)>,
}

impl Ties {
    /// Moves repeats in `batch` apart. Rows without a time of their own are left alone.
    pub fn spread(&mut self, batch: &mut LogsBatch) {
        if !has_ties(&batch.time, self.time_ns) {
            self.remember_last(batch);
            return;
        }
        let mut first: Option<usize> = None;
        for row in 0..batch.rows() {
            let time = batch.time.get(row);
            if time == 0 {
                continue;
            }
            if time != self.time_ns {
                (self.time_ns, first) = (time, Some(row));
                self.seen.clear();
                continue;
            }
            if let Some(row) = first.take() {
                self.seen.push((text_hash(batch, row), 1));
            }
            let hash = text_hash(batch, row);
            match self.seen.iter_mut().find(|(h, _)| *h == hash) {
                Some((_, next)) => {
                    let rows = batch.rows();
                    batch.time.each_mut(rows)[row] = time.saturating_add(i64::from(*next));
                    *next += 1;
                }
                None => {
                    if self.seen.len() == TIES_MAX {
                        self.seen.remove(0);
                    }
                    self.seen.push((hash, 1));
                }
            }
        }
        if let Some(row) = first {
            self.seen.push((text_hash(batch, row), 1));
        }
    }

    /// Without ties only the last row matters for what comes next.
    fn remember_last(&mut self, batch: &LogsBatch) {
        let timed = (0..batch.rows())
            .rev()
            .find(|&row| batch.time.get(row) != 0);
        if let Some(row) = timed {
            self.time_ns = batch.time.get(row);
            self.seen.clear();
            self.seen.push((text_hash(batch, row), 1));
        }
    }
}

/// True if any row has the time of the row before it.
fn has_ties(times: &Times, before: i64) -> bool {
    match times {
        Times::Const(t) => *t != 0,
        Times::Each(v) => {
            let mut last = before;
            v.iter()
                .any(|&t| t != 0 && std::mem::replace(&mut last, t) == t)
        }
    }
}

fn text_hash(batch: &LogsBatch, row: usize) -> u64 {
    match batch.body(row) {
        Some(v) => match v.as_text() {
            Some(text) => stable_hash(text),
            None => stable_hash(v.to_display_string().as_bytes()),
        },
        None => 0,
    }
}

/// Stamps rows that have no time of their own from `marks`, and the others with `now_ns`.
/// Every row must have a source offset, and `marks` a mark at or before it where needed.
pub fn stamp_observed(batch: &mut LogsBatch, marks: &Marks, now_ns: i64) {
    let untimed = |b: &LogsBatch| (0..b.rows()).any(|row| b.time.get(row) == 0);
    if !untimed(batch) {
        batch.observed = Times::Const(now_ns);
        return;
    }
    let stamp = |row: usize| {
        let own = batch.time.get(row) != 0;
        let offset = batch.source_offset(row).filter(|_| !own);
        offset.and_then(|o| marks.time_of(o)).unwrap_or(now_ns)
    };
    batch.observed = Times::Each((0..batch.rows()).map(stamp).collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_pdata::Entry;

    fn batch(rows: &[(i64, &str)]) -> LogsBatch {
        let entry = |(time, body): &(i64, &str)| Entry {
            time: *time,
            body: (*body).into(),
            ..Entry::default()
        };
        LogsBatch::from_entries(&rows.iter().map(entry).collect::<Vec<_>>())
    }

    fn times(b: &LogsBatch) -> Vec<i64> {
        (0..b.rows()).map(|r| b.time.get(r)).collect()
    }

    #[test]
    fn repeats_get_their_own_nanosecond_and_others_keep_theirs() {
        let mut t = Ties::default();
        let mut b = batch(&[(5, "a"), (9, "x"), (9, "y"), (9, "x"), (9, "x"), (12, "x")]);
        t.spread(&mut b);
        assert_eq!(times(&b), [5, 9, 9, 10, 11, 12]);
    }

    #[test]
    fn the_result_does_not_depend_on_where_batches_end() {
        let rows = [
            (1, "a"),
            (1, "a"),
            (1, "b"),
            (1, "a"),
            (2, "a"),
            (2, "a"),
            (3, "a"),
            (3, "b"),
        ];
        let mut whole = batch(&rows);
        Ties::default().spread(&mut whole);
        for cut in 0..=rows.len() {
            let mut t = Ties::default();
            let (mut a, mut b) = (batch(&rows[..cut]), batch(&rows[cut..]));
            t.spread(&mut a);
            t.spread(&mut b);
            assert_eq!(
                [times(&a), times(&b)].concat(),
                times(&whole),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn stamps_grow_with_the_offset_and_never_go_back() {
        let mut m = Marks::default();
        let (second, age_max) = (1_000_000_000, MARK_AGE_MAX);
        assert!(m.is_stale(0, 100, age_max));
        m.add(0, 1_000);
        assert_eq!(m.time_of(50), Some(1_050));
        assert!(!m.is_stale(50, 1_000 + second, age_max));
        assert!(m.is_stale(50, 1_051 + second, age_max));
        assert!(!m.is_stale(50, 1_051 + second, 2 * age_max));
        m.add(100, 900);
        assert_eq!(m.time_of(99), Some(1_099));
        assert_eq!(
            m.time_of(100),
            Some(1_101),
            "the clock went back, stamps do not"
        );
        m.add(200, 5_000);
        m.prune(150);
        assert_eq!(m.entries(), [(100, 1_101), (200, 5_000)]);
        assert_eq!(m.time_of(10), None);
    }
}
