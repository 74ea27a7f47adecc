//! What an operator is to its chain, and what a chain tells its caller.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tailwater_pdata::LogsBatch;

use super::record_error::RecordError;

/// What a chain gets to know about a batch, and where it puts what it has to say.
#[derive(Debug, Default)]
pub struct OperatorCx {
    /// The source (file) the rows came from. Offsets in the answers are offsets in it.
    pub source: u64,
    /// Sources that follow each other by rotation share it, so that a line that is split between
    /// two files is joined. Usually a hash of the path that is written to.
    pub lineage: u64,
    /// Where the rows of this call begin, if that is before where they say: lines that were held back
    /// and are passed on by the clock. Set by the chain.
    pub covering: Vec<Cover>,
    /// The time of day in ns since the epoch; decides the year of times that have none.
    pub now_ns: i64,
    /// Time since some fixed start that never goes back; decides when held parts are passed on.
    pub elapsed: Duration,
    /// What came of it. The caller empties it.
    pub report: Report,
}

/// What happened to the records of the batches since it was last emptied.
#[derive(Debug, Default)]
pub struct Report {
    /// Batches to be passed on after the one that was given to the chain, in this order.
    pub more: Vec<LogsBatch>,
    /// Records an operator was told to drop (`filter`), by the operator's id.
    pub filtered: Vec<(Arc<str>, u64)>,
    /// Records dropped because of an error: `on_error` was `drop`, or the expression of a filter
    /// failed.
    pub dropped: u64,
    /// Rows that went into another row (parts of one line).
    pub joined: u64,
    /// Lines passed on before they were complete, for their size or their age.
    pub cut: u64,
    /// Lines that were held back and passed on by the clock; their parts were counted in
    /// `joined`. So rows in + flushed = rows out + filtered + dropped + joined.
    pub flushed: u64,
    /// Errors of records, one per operator and call.
    pub errors: Vec<OperatorErrors>,
    /// Text of earlier reads that is in the batches of this call: for each line that was held, where
    /// its parts begin in each source.
    pub covers: Vec<Vec<Cover>>,
    /// Records that were put together of several: where the first and the last of them begin in the
    /// source of this call. Reading must not begin between the two.
    pub spans: Vec<(u64, u64)>,
}

impl Report {
    /// Records that operators were told to drop, in all.
    pub fn filtered_total(&self) -> u64 {
        self.filtered.iter().map(|(_, records)| records).sum()
    }

    fn count_filtered(&mut self, id: &Arc<str>, records: u64) {
        if records == 0 {
            return;
        }
        match self.filtered.iter_mut().find(|(by, _)| by == id) {
            Some((_, sum)) => *sum += records,
            None => self.filtered.push((id.clone(), records)),
        }
    }
}

/// The errors an operator had with the records of one batch.
#[derive(Clone, Debug)]
pub struct OperatorErrors {
    /// The operator's id.
    pub operator: Arc<str>,
    /// Records with an error.
    pub records: u64,
    /// `on_error` is one of the quiet ones: to be counted, not logged.
    pub quiet: bool,
    /// The first error.
    pub first: RecordError,
}

/// A batch holds text of `source` from `offset` on that was held back until now. The checkpoint of
/// that source must not pass `offset` before the batch is resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cover {
    /// The source.
    pub source: u64,
    /// Offset of the first byte.
    pub offset: u64,
}

/// What became of a line that was held back and passed on by the clock.
#[derive(Debug, Default)]
pub struct Passed {
    /// Where its parts begin in each source.
    pub covers: Vec<Cover>,
    /// What came out of the chain; nothing if an operator removed it.
    pub batches: Vec<LogsBatch>,
    /// Records an operator was told to drop, by the operator's id.
    pub filtered: Vec<(Arc<str>, u64)>,
    /// Records dropped because of an error.
    pub dropped: u64,
}

/// What happens to a record an operator could not treat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnError {
    /// It goes on as it is.
    #[default]
    Send,
    /// The same, and the error is not logged.
    SendQuiet,
    /// It is dropped.
    Drop,
    /// The same, and the error is not logged.
    DropQuiet,
}

impl OnError {
    /// The spellings, in the order they are documented.
    pub const ALL: [(&'static str, OnError); 4] = [
        ("send", OnError::Send),
        ("send_quiet", OnError::SendQuiet),
        ("drop", OnError::Drop),
        ("drop_quiet", OnError::DropQuiet),
    ];

    fn drops(self) -> bool {
        matches!(self, OnError::Drop | OnError::DropQuiet)
    }

    fn is_quiet(self) -> bool {
        matches!(self, OnError::SendQuiet | OnError::DropQuiet)
    }
}

/// What becomes of a row in one operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// The operator treats it.
    Active,
    /// The condition was false: it goes on untouched.
    Skipped,
    /// The operator failed: it goes on, and nothing more is done to it here.
    Failed,
    /// It does not go on.
    Gone,
}

/// The rows of a batch as one operator sees them.
#[derive(Debug)]
pub(super) struct Rows {
    /// Empty = all active.
    fates: Vec<Fate>,
    rows: usize,
    on_error: OnError,
    gone: bool,
    filtered: u64,
    dropped: u64,
    joined: u64,
    errors: u64,
    first_error: Option<RecordError>,
    /// Rows from here on were not treated and have to come again as a batch of their own.
    pub(super) split_at: Option<usize>,
    /// Rows of earlier batches that the operator is done with: they go on before these.
    pub(super) ahead: Option<LogsBatch>,
}

impl Rows {
    pub(super) fn new(rows: usize, on_error: OnError) -> Rows {
        Rows {
            fates: Vec::new(),
            rows,
            on_error,
            gone: false,
            filtered: 0,
            dropped: 0,
            joined: 0,
            errors: 0,
            first_error: None,
            split_at: None,
            ahead: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// True if the operator has to treat `row`.
    #[inline]
    pub(super) fn is_active(&self, row: usize) -> bool {
        self.fates.is_empty() || self.fates[row] == Fate::Active
    }

    /// True if it has to treat every row.
    pub(super) fn all_active(&self) -> bool {
        self.fates.is_empty()
    }

    /// True if it has to treat every row that stays.
    pub(super) fn all_that_stay(&self) -> bool {
        self.fates
            .iter()
            .all(|f| matches!(f, Fate::Active | Fate::Gone))
    }

    /// True if its condition is false for every row.
    pub(super) fn all_skipped(&self) -> bool {
        !self.fates.is_empty() && self.fates.iter().all(|f| *f == Fate::Skipped)
    }

    fn set(&mut self, row: usize, fate: Fate) {
        if self.fates.is_empty() {
            self.fates = vec![Fate::Active; self.rows];
        }
        self.fates[row] = fate;
    }

    pub(super) fn skip(&mut self, row: usize) {
        self.set(row, Fate::Skipped);
    }

    /// The operator failed with `row`; `error` is made only when it will be reported.
    pub(super) fn fail(&mut self, row: usize, error: impl FnOnce() -> RecordError) {
        self.note(error);
        if self.on_error.drops() {
            self.dropped += 1;
            self.go(row);
        } else {
            self.set(row, Fate::Failed);
        }
    }

    /// An error of a row that goes away whatever `on_error` says.
    pub(super) fn fail_and_drop(&mut self, row: usize, error: impl FnOnce() -> RecordError) {
        self.note(error);
        self.dropped += 1;
        self.go(row);
    }

    /// Something went wrong with a row that goes on regardless.
    pub(super) fn warn(&mut self, error: impl FnOnce() -> RecordError) {
        self.note(error);
    }

    fn note(&mut self, error: impl FnOnce() -> RecordError) {
        self.errors += 1;
        self.first_error.get_or_insert_with(error);
    }

    /// The operator was told to drop `row`.
    pub(super) fn filter(&mut self, row: usize) {
        self.filtered += 1;
        self.go(row);
    }

    /// The text of `row` went into another row.
    pub(super) fn join(&mut self, row: usize) {
        self.joined += 1;
        self.go(row);
    }

    fn go(&mut self, row: usize) {
        self.gone = true;
        self.set(row, Fate::Gone);
    }

    /// Leaves the rows from `at` on, which the operator has not looked at, for another batch. Where its
    /// condition failed on them, it fails there again and counts there.
    pub(super) fn split(&mut self, at: usize) {
        self.split_at = Some(at);
        self.rows = at;
        if self.fates.is_empty() {
            return;
        }
        for fate in self.fates.drain(at..) {
            let dropped = fate == Fate::Gone;
            self.errors -= u64::from(dropped || fate == Fate::Failed);
            self.dropped -= u64::from(dropped);
        }
        if self.errors == 0 {
            self.first_error = None;
        }
    }

    /// Removes the rows that do not go on and adds up what happened. The caller has split off the
    /// rows behind `split_at`.
    pub(super) fn finish(self, batch: &mut LogsBatch, id: &Arc<str>, report: &mut Report) {
        if self.gone {
            let keep: Vec<bool> = self.fates.iter().map(|f| *f != Fate::Gone).collect();
            batch.retain_rows(&keep);
        }
        report.count_filtered(id, self.filtered);
        report.dropped += self.dropped;
        report.joined += self.joined;
        if let Some(first) = self.first_error {
            let (operator, quiet) = (id.clone(), self.on_error.is_quiet());
            report.errors.push(OperatorErrors {
                operator,
                records: self.errors,
                quiet,
                first,
            });
        }
    }
}

/// A row that was held back and is passed on by the clock.
#[derive(Debug)]
pub(super) struct Due {
    /// The log it is of.
    pub(super) lineage: u64,
    /// Where its parts begin.
    pub(super) covers: Vec<Cover>,
    /// A batch of it alone, yet to be finished.
    pub(super) batch: LogsBatch,
}

/// An operator at work. One belongs to one chain of one shard.
pub(super) trait Operator: Send + fmt::Debug {
    /// Treats the active rows of `batch`.
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx);

    /// Rows held back that are due at `cx.elapsed`.
    fn due(&mut self, _cx: &mut OperatorCx) -> Vec<Due> {
        Vec::new()
    }

    /// Does the rest of the operator's work on a batch of [`Operator::due`].
    fn finish(&mut self, _batch: &mut LogsBatch, _rows: &mut Rows, _cx: &mut OperatorCx) {}

    /// When [`Operator::due`] has something to pass on.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// True if a row of `lineage` is held back that has parts from `source` or one before it.
    fn holds(&self, _lineage: u64, _source: u64) -> bool {
        false
    }

    /// Offset of the first row of `source` that is held back.
    fn held_from(&self, _source: u64) -> Option<u64> {
        None
    }

    /// Offsets of the first rows of `source` of all that is held back.
    fn held_starts(&self, _source: u64, _out: &mut Vec<u64>) {}

    /// Nothing more is worth waiting for: what is held back is due as soon as it is.
    fn hurry(&mut self) {}

    /// Bytes held back.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Drops the lines held back that have parts from `source`, because it will be read again. Says
    /// which other sources they have parts from: these have to be read again, too.
    fn forget(&mut self, _source: u64) -> Vec<u64> {
        Vec::new()
    }
}
