//! Groups that are not complete, and how records are put together.

use std::time::Duration;

use foldhash::HashMap;
use tailwater_pdata::{
    Cell, Column, Columns, Entry, Key, LogsBatch, Severities, Slice, SourceRows, Times,
};

use super::Field;
use crate::operators::operator::Cover;

/// A group that is held back.
#[derive(Debug)]
pub(super) struct Held {
    /// The record whose other fields the group gets.
    pub(super) base: Entry,
    /// Texts so far.
    pub(super) text: Vec<u8>,
    /// Some record had a text.
    pub(super) has_text: bool,
    /// Records so far.
    pub(super) count: usize,
    /// The expression was true for one of them.
    pub(super) matched: bool,
    /// Where its records begin in each source; empty if they came from none.
    pub(super) from: Vec<Cover>,
    pub(super) last_offset: Option<u64>,
    since: Duration,
    /// It is due at this time already.
    due: Option<Duration>,
}

impl Held {
    pub(super) fn new(base: Entry, since: Duration) -> Held {
        Held {
            base,
            text: Vec::new(),
            has_text: false,
            count: 0,
            matched: false,
            from: Vec::new(),
            last_offset: None,
            since,
            due: None,
        }
    }

    /// Adds texts of a batch.
    pub(super) fn add(&mut self, parts: &[Slice], with: &[u8], batch: &LogsBatch) {
        let more: usize = parts.iter().map(|p| p.len() + with.len()).sum();
        // No more than it takes: doubling would hold twice the longest text.
        self.text.reserve_exact(more);
        for part in parts {
            if !self.text.is_empty() {
                self.text.extend_from_slice(with);
            }
            self.text.extend_from_slice(batch.bytes(*part));
            self.has_text = true;
        }
    }

    /// Takes account of a record of a source.
    pub(super) fn cover(&mut self, new: Cover) {
        match self.from.iter_mut().find(|c| c.source == new.source) {
            Some(cover) => cover.offset = cover.offset.min(new.offset),
            None => self.from.push(new),
        }
    }

    /// Where it begins in `source`: at its start, if it began in one before.
    pub(super) fn start(&self, source: u64) -> u64 {
        match &self.from[..] {
            [cover] if cover.source == source => cover.offset,
            _ => 0,
        }
    }

    /// Where its first and its last record so far begin in `source`.
    pub(super) fn span(&self, source: u64) -> Option<(u64, u64)> {
        let last = self.from.last().filter(|c| c.source == source);
        Some(self.start(source)).zip(self.last_offset.filter(|_| last.is_some()))
    }

    pub(super) fn bytes(&self) -> usize {
        let attributes = self.base.attributes.iter().chain(self.base.resource.iter());
        let attributes: usize = attributes.map(|(k, v)| k.len() + v.heap_bytes()).sum();
        self.text.capacity() + attributes + self.base.body.heap_bytes() + size_of::<Held>()
    }

    fn due_at(&self, after: Duration) -> Duration {
        let due = self.since + after;
        self.due.map_or(due, |at| at.min(due))
    }
}

/// The groups that are held, by log and field.
#[derive(Debug, Default)]
pub(super) struct Groups {
    held: HashMap<u64, HashMap<Box<[u8]>, Held>>,
    count: usize,
    /// What comes is due at once.
    ending: bool,
    /// All that is held is due at this time.
    hurried: Option<Duration>,
}

impl Groups {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Held> {
        self.held.values().flat_map(HashMap::values)
    }

    /// Those of one log.
    pub(super) fn of(&self, lineage: u64) -> impl Iterator<Item = &Held> {
        self.held
            .get(&lineage)
            .into_iter()
            .flat_map(HashMap::values)
    }

    pub(super) fn take(&mut self, lineage: u64, id: &[u8]) -> Option<Held> {
        let of_log = self.held.get_mut(&lineage)?;
        let held = of_log.remove(id)?;
        if of_log.is_empty() {
            self.held.remove(&lineage);
        }
        self.count -= 1;
        Some(held)
    }

    pub(super) fn put(&mut self, lineage: u64, id: &[u8], mut held: Held) {
        if self.ending {
            held.due = Some(held.since);
        }
        let before = self
            .held
            .entry(lineage)
            .or_default()
            .insert(id.into(), held);
        self.count += usize::from(before.is_none());
    }

    /// All are due at `now`.
    pub(super) fn hurry(&mut self, now: Duration) {
        if self.hurried.is_some_and(|at| at <= now) {
            return;
        }
        self.hurried = Some(now);
        for held in self.held.values_mut().flat_map(HashMap::values_mut) {
            held.due = Some(held.due.map_or(now, |at| at.min(now)));
        }
    }

    /// All are due, and so is what comes.
    pub(super) fn end(&mut self) {
        self.ending = true;
        for held in self.held.values_mut().flat_map(HashMap::values_mut) {
            held.due = Some(held.since);
        }
    }

    /// Takes out what is due at `now`, the oldest first, with the log it is of.
    pub(super) fn due(&mut self, now: Duration, after: Duration) -> Vec<(u64, Held)> {
        let mut due = Vec::new();
        self.held.retain(|lineage, of_log| {
            let ids = of_log.extract_if(|_, held| held.due_at(after) <= now);
            due.extend(ids.map(|(id, held)| (held.since, *lineage, id, held)));
            !of_log.is_empty()
        });
        self.count -= due.len();
        due.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        due.into_iter()
            .map(|(_, lineage, _, held)| (lineage, held))
            .collect()
    }

    pub(super) fn deadline(&self, after: Duration) -> Option<Duration> {
        self.all().map(|held| held.due_at(after)).min()
    }

    /// Drops those that have records of `source`. Gives all sources they have records of.
    pub(super) fn forget(&mut self, source: u64) -> Vec<u64> {
        let mut sources = Vec::new();
        let mut forgotten = 0;
        self.held.retain(|_, of_log| {
            of_log.retain(|_, held| {
                let is_of_it = held.from.iter().any(|f| f.source == source);
                if is_of_it {
                    forgotten += 1;
                    sources.extend(held.from.iter().map(|f| f.source));
                }
                !is_of_it
            });
            !of_log.is_empty()
        });
        self.count -= forgotten;
        sources
    }
}

/// The records that groups become.
pub(super) fn batch_of(held: &[Held], field: &Field) -> LogsBatch {
    let entries: Vec<Entry> = held.iter().map(|h| h.base.clone()).collect();
    let mut batch = LogsBatch::from_entries(&entries);
    for (row, held) in held.iter().enumerate().filter(|(_, h)| h.has_text) {
        let text = batch.text.push(&held.text);
        // Only maps can be refused.
        let _ = field.set(&mut batch, row, Cell::Str(text));
    }
    let offsets: Option<Vec<u64>> = held.iter().map(|h| h.last_offset).collect();
    batch.source = offsets.and_then(|offsets| {
        let base = offsets.iter().copied().min()?;
        let rel = offsets
            .iter()
            .map(|o| u32::try_from(o - base).unwrap_or(u32::MAX));
        Some(SourceRows {
            base,
            rel: rel.collect(),
        })
    });
    batch
}

/// Gives row `to` everything that row `from` has but where it came from.
pub(super) fn copy_record(batch: &mut LogsBatch, from: usize, to: usize) {
    if from == to {
        return;
    }
    copy_columns(&mut batch.attributes, from, to);
    copy_columns(&mut batch.resource_rows, from, to);
    copy_cell(&mut batch.body, from, to);
    if let Some(column) = &mut batch.severity_text {
        copy_cell(column, from, to);
    }
    for times in [&mut batch.time, &mut batch.observed] {
        if let Times::Each(times) = times {
            times[to] = times[from];
        }
    }
    if let Severities::Each(severities) = &mut batch.severity {
        severities[to] = severities[from];
    }
    if let Some(trace) = &mut batch.trace {
        trace.trace_id[to] = trace.trace_id[from];
        trace.span_id[to] = trace.span_id[from];
        trace.flags[to] = trace.flags[from];
    }
    if !batch.scope_names.is_empty() {
        batch.scope_names[to] = batch.scope_names[from];
    }
}

fn copy_columns(columns: &mut Columns, from: usize, to: usize) {
    for i in 0..columns.len() {
        if let Some(column) = columns.at_mut(i) {
            copy_cell(column, from, to);
        }
    }
}

fn copy_cell(column: &mut Column, from: usize, to: usize) {
    match column {
        Column::Dict { codes, .. } => codes[to] = codes[from],
        Column::Slices(s) => s[to] = s[from],
        Column::Cells(c) => c[to] = c[from],
        Column::Const(_) => {}
    }
}

/// Gives `row` everything that `base` has.
pub(super) fn restore(batch: &mut LogsBatch, row: usize, base: &Entry) {
    let keys = |columns: &Columns| columns.iter().map(|(k, _)| k.clone()).collect::<Vec<Key>>();
    for key in keys(&batch.attributes) {
        if base.attributes.get(&key).is_none() && batch.attribute(row, &key).is_some() {
            batch.set_attribute(row, &key, Cell::Absent);
        }
    }
    for (key, value) in base.attributes.iter() {
        if batch.attribute(row, key) != Some(value.as_ref()) {
            let cell = batch.cell(value);
            batch.set_attribute(row, key, cell);
        }
    }
    for (key, value) in base.resource.iter() {
        if batch.resource_attribute(row, key) != Some(value.as_ref()) {
            let cell = batch.cell(value);
            batch.set_resource_attribute(row, key, cell);
        }
    }
    for (key, _) in batch.resource_of(row).iter() {
        if base.resource.get(key).is_none() {
            batch.set_resource_attribute(row, key, Cell::Absent);
        }
    }
    let body = batch.cell(&base.body);
    batch.set_body(row, body);
    restore_rest(batch, row, base);
}

/// [`restore`] of what is neither attribute nor body.
fn restore_rest(batch: &mut LogsBatch, row: usize, base: &Entry) {
    let rows = batch.rows();
    if batch.time.get(row) != base.time {
        batch.time.each_mut(rows)[row] = base.time;
    }
    if batch.observed.get(row) != base.observed {
        batch.observed.each_mut(rows)[row] = base.observed;
    }
    if batch.severity.get(row) != base.severity {
        batch.severity.each_mut(rows)[row] = base.severity;
    }
    if !base.severity_text.is_empty() {
        let text = batch.text.push(base.severity_text.as_bytes());
        batch.set_severity_text(row, Cell::Str(text));
    } else if batch.severity_text.is_some() {
        batch.set_severity_text(row, Cell::Absent);
    }
    let traced = base.trace_id != [0; 16] || base.span_id != [0; 8] || base.flags != 0;
    if traced || batch.trace.is_some() {
        let trace = batch.trace_mut();
        trace.trace_id[row] = base.trace_id;
        trace.span_id[row] = base.span_id;
        trace.flags[row] = base.flags;
    }
    if batch.scope_name(row) != base.scope_name.as_bytes() {
        let name = batch.text.push(base.scope_name.as_bytes());
        batch.set_scope_name(row, name);
    }
}
