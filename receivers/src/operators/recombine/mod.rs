//! The `recombine` operator: consecutive records become one.
//!
//! An expression says which record is the first or the last of a group. Groups are told apart by the
//! log they come from and a field, the path of the file if nothing is set. A group that is not
//! complete at the end of a batch is held back (see `group`); the caller keeps its checkpoint before
//! it. A group that got complete stands where its last record stood, or, if that was in an earlier
//! batch, before the records of this one.

mod group;

use std::time::Duration;

use foldhash::{HashMap, HashSet};
use tailwater_config::{Environment, Section};
use tailwater_pdata::{Cell, LogsBatch, Slice};

use super::expr::{Expr, Record};
use super::field::{Field, Root};
use super::operator::{Cover, Due, Operator, OperatorCx, Rows};
use super::options::{condition, field, required_field};
use super::record_error::{RecordError, kind_of};
use group::{Groups, Held};

/// Bytes of text beyond which a group is passed on whatever is set.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// What the options say.
#[derive(Debug)]
pub(super) struct Rules {
    expr: Expr,
    /// The expression says which record is the first of a group, else the last.
    first: bool,
    field: Field,
    with: Vec<u8>,
    source: Field,
    /// The last record gives the group its other fields, else the first.
    newest: bool,
    flush_after: Duration,
    /// 0 = no limit.
    records_max: usize,
    unmatched_max: usize,
    sources_max: usize,
    bytes_max: usize,
}

/// A group with records in this batch.
#[derive(Debug, Default)]
struct Open {
    /// What earlier batches had of it.
    carried: Option<Held>,
    rows: Vec<usize>,
    /// Texts of the rows that have one.
    parts: Vec<Slice>,
    /// Bytes of text.
    bytes: usize,
    /// Records.
    count: usize,
    /// The expression was true for one of them.
    matched: bool,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.carried.is_none() && self.rows.is_empty()
    }

    fn clear(&mut self) {
        self.carried = None;
        self.rows.clear();
        self.parts.clear();
        (self.bytes, self.count, self.matched) = (0, 0, false);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recombine {
    rules: Rules,
    groups: Groups,
    /// Memory: the groups of this batch, by their field.
    open: Vec<(Box<[u8]>, Open)>,
    index: HashMap<Box<[u8]>, usize>,
    /// How many of `open` have records, and which ones began to have some.
    live: usize,
    begun: Vec<usize>,
    /// Groups of earlier batches that got complete without a record of this one.
    ahead: Vec<Held>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "is_first_entry",
        "An expression that holds for the first record of a group. It or `is_last_entry` is required.",
    ),
    (
        "is_last_entry",
        "An expression that holds for the last record of a group.",
    ),
    ("combine_field", "The field whose texts are put together."),
    (
        "source_identifier",
        "The field by which records of one source are told; `attributes[\"log.file.path\"]` unless set.",
    ),
    ("combine_with", "What is put between texts."),
    ("overwrite_with", "Which record gives all other fields."),
    (
        "force_flush_period",
        "A group that gets nothing for so long is passed on.",
    ),
    ("max_batch_size", "Records of a group; 0 = no limit."),
    (
        "max_unmatched_batch_size",
        "Records that are put together before a first one was seen; 0 = no limit.",
    ),
    (
        "max_sources",
        "Sources with an open group; at more, all groups are passed on.",
    ),
    (
        "max_log_size",
        "Bytes of the text of a group; 0 means 8MiB.",
    ),
];

impl Recombine {
    pub(super) fn decode(
        s: &mut Section<'_, '_>,
        environment: &dyn Environment,
    ) -> Option<Recombine> {
        s.describe(OPTIONS);
        let given = |s: &mut Section<'_, '_>, key: &str| {
            s.str_optional(key).is_some_and(|text| !text.is_empty())
        };
        let (has_first, has_last) = (given(s, "is_first_entry"), given(s, "is_last_entry"));
        let expr = match (has_first, has_last) {
            (true, false) => condition(s, "is_first_entry", environment),
            (false, true) => condition(s, "is_last_entry", environment),
            _ => {
                s.error("set one of is_first_entry and is_last_entry");
                None
            }
        };
        let combined = required_field(s, "combine_field", Field::parse);
        let source = field(s, "source_identifier").unwrap_or_else(|| Field {
            root: Root::Attributes,
            keys: vec!["log.file.path".into()],
        });
        let orders = [("oldest", false), ("newest", true), ("", false)];
        let least = Duration::from_millis(1);
        let rules = Rules {
            first: has_first,
            with: s.string("combine_with", "\n").into_bytes(),
            newest: s.choice("overwrite_with", &orders, false),
            flush_after: s.duration_in("force_flush_period", Duration::from_secs(5), least..),
            records_max: s.usize("max_batch_size", 1000, ..),
            unmatched_max: s.usize("max_unmatched_batch_size", 100, ..),
            sources_max: s.usize("max_sources", 1000, 1..),
            bytes_max: usize::try_from(s.byte_size("max_log_size", 0, ..)).unwrap_or(usize::MAX),
            expr: expr?,
            field: combined?,
            source,
        };
        Some(Recombine {
            rules,
            groups: Groups::default(),
            open: Vec::new(),
            index: HashMap::default(),
            live: 0,
            begun: Vec::new(),
            ahead: Vec::new(),
        })
    }

    /// The group that `row` belongs to; made if there is none.
    fn group_of(&mut self, batch: &mut LogsBatch, row: usize, cx: &OperatorCx) -> usize {
        let source = match self.rules.source.cell(batch, row) {
            Some(Cell::Str(slice)) => slice,
            // As in the collector: records without it share a group.
            _ => Slice::EMPTY,
        };
        let id = batch.text.get(source);
        if let Some(&at) = self.index.get(id) {
            return at;
        }
        let at = self.open.len();
        let mut open = Open::default();
        if let Some(held) = self.groups.take(cx.lineage, id) {
            open.bytes = held.text.len();
            (open.count, open.matched) = (held.count, held.matched);
            open.carried = Some(held);
            self.live += 1;
            self.begun.push(at);
        }
        self.open.push((id.into(), open));
        self.index.insert(id.into(), at);
        at
    }

    /// Adds `row` to a group, and passes the group on if that makes it too large.
    fn add(
        &mut self,
        at: usize,
        matches: bool,
        batch: &mut LogsBatch,
        rows: &mut Rows,
        row: usize,
        cx: &mut OperatorCx,
    ) {
        if self.open[at].1.is_empty() {
            self.make_room(batch, rows, cx);
            self.live += 1;
            self.begun.push(at);
        }
        let rules = &self.rules;
        let text = rules.field.cell(batch, row);
        let open = &mut self.open[at].1;
        open.count += 1;
        open.matched |= matches;
        match text {
            Some(Cell::Str(text)) => {
                if open.bytes > 0 {
                    open.bytes += rules.with.len();
                }
                open.bytes += text.len();
                open.parts.push(text);
                open.rows.push(row);
            }
            _ if open.is_empty() => open.rows.push(row),
            _ => {
                // Its other fields would be lost with it.
                let found = rules.field.get(batch, row).map_or("nothing", kind_of);
                let parser = "recombine";
                rows.fail(row, || RecordError::NotText { parser, found });
            }
        }
        let over = |count: usize, most: usize| most > 0 && count >= most;
        let full = open.bytes > GROUP_BYTES_MAX
            || (rules.bytes_max > 0 && open.bytes > rules.bytes_max)
            || over(open.count, rules.records_max)
            || (!open.matched && over(open.count, rules.unmatched_max));
        if full {
            cx.report.cut += 1;
            self.complete(at, batch, rows, cx);
        }
    }

    /// Passes on all groups if another one would be one too many.
    fn make_room(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        if self.groups.len() + self.live < self.rules.sources_max {
            return;
        }
        for at in std::mem::take(&mut self.begun) {
            if !self.open[at].1.is_empty() {
                cx.report.cut += 1;
                self.complete(at, batch, rows, cx);
            }
        }
        // Those of other logs, or without records here, are passed on by the clock.
        self.groups.hurry(cx.elapsed);
    }

    /// Makes one record of a group, in the row of its last one.
    fn complete(&mut self, at: usize, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        let mut open = std::mem::take(&mut self.open[at].1);
        self.live -= usize::from(!open.is_empty());
        let carried = open.carried.take();
        let Some((&last, others)) = open.rows.split_last() else {
            if let Some(held) = carried {
                cx.report.covers.push(held.from.clone());
                cx.report.spans.extend(held.span(cx.source));
                cx.report.flushed += 1;
                self.ahead.push(held);
            }
            self.open[at].1 = open;
            self.open[at].1.clear();
            return;
        };
        if carried.is_some() || !others.is_empty() {
            for row in others {
                rows.join(*row);
            }
            let offsets = open.rows.iter().filter_map(|r| batch.source_offset(*r));
            let (least, most) = (offsets.clone().min(), offsets.max());
            let begun = carried.as_ref().map(|held| held.start(cx.source));
            cx.report.spans.extend(begun.or(least).zip(most));
            self.combine(&open, carried.as_ref(), batch, last);
            cx.report.covers.extend(carried.map(|held| held.from));
        }
        open.clear();
        self.open[at].1 = open;
    }

    /// Gives row `last` the text of the group, and the other fields of its base.
    fn combine(&self, open: &Open, carried: Option<&Held>, batch: &mut LogsBatch, last: usize) {
        let rules = &self.rules;
        if !rules.newest {
            match carried {
                Some(held) => group::restore(batch, last, &held.base),
                None => group::copy_record(batch, open.rows[0], last),
            }
        }
        let before = carried.map_or(&[][..], |held| &held.text);
        let has_text = !open.parts.is_empty() || carried.is_some_and(|held| held.has_text);
        if !has_text {
            return;
        }
        let with = batch.text.push(&rules.with);
        let mut parts = Vec::with_capacity(open.parts.len() * 2);
        let mut bytes = before.len();
        for part in &open.parts {
            if bytes > 0 {
                parts.push(with);
                bytes += with.len();
            }
            parts.push(*part);
            bytes += part.len();
        }
        let text = batch.text.concat_after(before, &parts);
        // Only maps can be refused.
        let _ = rules.field.set(batch, last, Cell::Str(text));
    }

    /// Holds back what is not complete.
    fn settle(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &OperatorCx) {
        for (id, open) in &mut self.open {
            if open.is_empty() {
                continue;
            }
            let carried = open.carried.take();
            if let Some((first, last)) = open.rows.first().copied().zip(open.rows.last().copied()) {
                let mut held = carried.unwrap_or_else(|| {
                    let base = batch.entry(first);
                    Held::new(base, cx.elapsed)
                });
                if self.rules.newest {
                    held.base = batch.entry(last);
                }
                held.add(&open.parts, &self.rules.with, batch);
                (held.count, held.matched) = (open.count, open.matched);
                let offsets = open.rows.iter().filter_map(|r| batch.source_offset(*r));
                if let Some(least) = offsets.clone().min() {
                    held.cover(Cover {
                        source: cx.source,
                        offset: least,
                    });
                }
                for cover in &cx.covering {
                    held.cover(*cover);
                }
                held.last_offset = offsets.max().or(held.last_offset);
                for row in &open.rows {
                    rows.join(*row);
                }
                if self.rules.field == Field::body() && held.has_text {
                    // It is in the text.
                    held.base.body = Default::default();
                }
                self.groups.put(cx.lineage, id, held);
            } else if let Some(held) = carried {
                self.groups.put(cx.lineage, id, held);
            }
        }
        self.open.clear();
        self.index.clear();
        self.begun.clear();
        self.live = 0;
    }

    /// A batch of groups of earlier batches.
    fn batch_of(&self, held: &[Held]) -> LogsBatch {
        group::batch_of(held, &self.rules.field)
    }

    /// True if no record of this batch is in a group with another one, so that there is nothing to
    /// do: every record is the last of its group, and nothing is held.
    fn passes(&self, batch: &LogsBatch, rows: &Rows) -> bool {
        !self.rules.first
            && self.groups.len() == 0
            && rows.all_active()
            && (0..batch.rows()).all(|row| self.rules.expr.truth(Record { batch, row }) == Ok(true))
    }
}

impl Operator for Recombine {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        if self.passes(batch, rows) {
            return;
        }
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            let matches = match self.rules.expr.truth(Record { batch, row }) {
                Ok(matches) => matches,
                Err(e) => {
                    rows.fail(row, || e.into());
                    continue;
                }
            };
            let at = self.group_of(batch, row, cx);
            if matches && self.rules.first {
                self.complete(at, batch, rows, cx);
            }
            self.add(at, matches, batch, rows, row, cx);
            if matches && !self.rules.first && !self.open[at].1.is_empty() {
                self.complete(at, batch, rows, cx);
            }
        }
        self.settle(batch, rows, cx);
        if !self.ahead.is_empty() {
            rows.ahead = Some(self.batch_of(&self.ahead));
            self.ahead.clear();
        }
    }

    fn due(&mut self, cx: &mut OperatorCx) -> Vec<Due> {
        let due = self.groups.due(cx.elapsed, self.rules.flush_after);
        let mut out = Vec::with_capacity(due.len());
        for (lineage, held) in due {
            cx.report.cut += 1;
            cx.report.flushed += 1;
            let batch = self.batch_of(std::slice::from_ref(&held));
            out.push(Due {
                lineage,
                covers: held.from,
                batch,
            });
        }
        out
    }

    fn deadline(&self) -> Option<Duration> {
        self.groups.deadline(self.rules.flush_after)
    }

    fn holds(&self, lineage: u64, source: u64) -> bool {
        let mut held = self.groups.of(lineage);
        held.any(|h| h.from.iter().any(|f| f.source <= source))
    }

    fn held_from(&self, source: u64) -> Option<u64> {
        let mut starts = Vec::new();
        self.held_starts(source, &mut starts);
        starts.into_iter().min()
    }

    fn held_starts(&self, source: u64, out: &mut Vec<u64>) {
        let parts = self.groups.all().flat_map(|h| &h.from);
        out.extend(parts.filter(|f| f.source == source).map(|f| f.offset));
    }

    fn hurry(&mut self) {
        self.groups.end();
    }

    fn held_bytes(&self) -> usize {
        self.groups.all().map(Held::bytes).sum()
    }

    fn forget(&mut self, source: u64) -> Vec<u64> {
        let others: HashSet<u64> = self.groups.forget(source).into_iter().collect();
        others.into_iter().filter(|s| *s != source).collect()
    }
}
