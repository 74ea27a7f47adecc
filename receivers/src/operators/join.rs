//! Joining the parts of long lines that container runtimes split.
//!
//! A runtime cuts lines at 16 KiB and marks all parts but the last. Parts of one stream of one
//! lineage of files are joined across reads, rotations and restarts: what is not complete at the
//! end of a batch is held back, and the caller keeps its checkpoint before it. The joined record
//! has the time and the attributes of the first part and stands where the last part stood.

use std::time::Duration;

use foldhash::HashMap;
use tailwater_pdata::{Cell, Column, Columns, Entry, Key, LogsBatch, Slice, SourceRows};

use super::operator::{Cover, Due, OperatorCx, Rows};

/// Streams whose parts are joined: stdout and stderr.
pub(super) const STREAMS: usize = 2;

/// Held parts are passed on when they get this old, as the collector does.
const FLUSH_AFTER: Duration = Duration::from_secs(5);

/// What was read from the lines of a batch, one element per row.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The message.
    pub(super) body: Vec<Slice>,
    /// ns since the epoch.
    pub(super) time: Vec<i64>,
    /// 0 = stdout, 1 = stderr, other values are never joined.
    pub(super) stream: Vec<u8>,
    /// Code of the tag.
    pub(super) tag: Vec<u8>,
    /// The line goes on in the next row of the stream.
    pub(super) partial: Vec<bool>,
}

impl Lines {
    /// Makes it `rows` rows, new ones with nothing read.
    pub(super) fn resize(&mut self, rows: usize) {
        self.body.resize(rows, Slice::ABSENT);
        self.time.resize(rows, 0);
        self.stream.resize(rows, u8::MAX);
        self.tag.resize(rows, u8::MAX);
        self.partial.resize(rows, false);
    }
}

/// Parts of a line that is not complete.
#[derive(Debug)]
struct Held {
    text: Vec<u8>,
    /// The first part but for its body.
    first: Entry,
    /// Where the parts of each file begin, in order; empty if they came from none.
    from: Vec<Cover>,
    last_offset: Option<u64>,
    since: Duration,
}

/// Parts of a line that was begun in this batch, or goes on in it.
#[derive(Debug, Default)]
struct Open {
    carried: Option<Held>,
    rows: Vec<usize>,
    bytes: usize,
}

/// What a joining left to be done when the columns of the batch are in place.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// Rows of the first and of the last part of lines that are all in this batch, by the latter.
    pub(super) within: Vec<(usize, usize)>,
    restore: Vec<(usize, Held)>,
    open: [Open; STREAMS],
}

/// Joins parts. Keeps what is not complete.
#[derive(Debug)]
pub(super) struct Joiner {
    /// A line is passed on when it gets longer; 0 = never.
    line_bytes_max: usize,
    held: HashMap<(u64, usize), Held>,
}

impl Joiner {
    pub(super) fn new(line_bytes_max: usize) -> Joiner {
        Joiner {
            line_bytes_max,
            held: HashMap::default(),
        }
    }

    /// Joins the active rows. Puts text and time of a complete line into the row of its last part
    /// and takes the other rows out. `batch` still has the columns it came with.
    pub(super) fn join(
        &mut self,
        lines: &mut Lines,
        batch: &mut LogsBatch,
        rows: &mut Rows,
        cx: &mut OperatorCx,
    ) -> Joined {
        let mut out = Joined::default();
        if !self.held.is_empty() {
            for (stream, open) in out.open.iter_mut().enumerate() {
                open.carried = self.held.remove(&(cx.lineage, stream));
                open.bytes = open.carried.as_ref().map_or(0, |h| h.text.len());
            }
        }
        for row in 0..rows.len() {
            let Some(open) = out.open.get_mut(usize::from(lines.stream[row])) else {
                continue;
            };
            let partial = lines.partial[row];
            let begun = open.carried.is_some() || !open.rows.is_empty();
            if !rows.is_active(row) || !(partial || begun) {
                continue;
            }
            open.rows.push(row);
            open.bytes += lines.body[row].len();
            let full = self.line_bytes_max > 0 && open.bytes > self.line_bytes_max;
            if partial && !full {
                continue;
            }
            cx.report.cut += u64::from(partial);
            let open = std::mem::take(open);
            if open.carried.is_none() && open.rows[0] != row {
                out.within.push((open.rows[0], row));
            }
            out.restore
                .extend(complete(open, row, lines, batch, rows, cx));
        }
        out
    }

    /// Finishes what [`Joiner::join`] began: gives rows that complete a line of an earlier batch
    /// the attributes of its first part, and holds back what is not complete.
    pub(super) fn settle(
        &mut self,
        joined: Joined,
        lines: &Lines,
        batch: &mut LogsBatch,
        rows: &mut Rows,
        cx: &OperatorCx,
    ) {
        for (row, held) in joined.restore {
            restore(batch, row, &held.first);
        }
        for (stream, open) in joined.open.into_iter().enumerate() {
            let last = open.rows.last().copied();
            let held = match (open.carried, open.rows.first()) {
                (Some(held), _) => Some(held),
                (None, Some(&first)) => {
                    let mut entry = batch.entry(first);
                    entry.body = Default::default();
                    let offset = batch.source_offset(first);
                    let (text, since, last_offset) = (Vec::new(), cx.elapsed, offset);
                    Some(Held {
                        text,
                        first: entry,
                        from: Vec::new(),
                        last_offset,
                        since,
                    })
                }
                (None, None) => None,
            };
            let Some(mut held) = held else { continue };
            if let Some(offset) = open.rows.first().and_then(|r| batch.source_offset(*r))
                && !held.from.iter().any(|c| c.source == cx.source)
            {
                let source = cx.source;
                let covering = cx.covering.iter().filter(|c| c.source == source);
                let offset = covering.map(|c| c.offset).fold(offset, u64::min);
                held.from.push(Cover { source, offset });
            }
            // No more than it takes: doubling would hold twice the longest line.
            let more = open.rows.iter().map(|r| lines.body[*r].len()).sum();
            held.text.reserve_exact(more);
            for row in open.rows {
                held.text.extend_from_slice(batch.bytes(lines.body[row]));
                rows.join(row);
            }
            if let Some(row) = last {
                held.last_offset = batch.source_offset(row);
            }
            self.held.insert((cx.lineage, stream), held);
        }
    }

    /// True if nothing is held and no row of `lines` begins a line, so that there is nothing to do.
    pub(super) fn is_idle(&self, lines: &Lines) -> bool {
        self.held.is_empty() && !lines.partial.contains(&true)
    }

    /// The lines that got too old, one batch each, and where their parts begin.
    pub(super) fn due(&mut self, cx: &mut OperatorCx) -> Vec<Due> {
        let mut due: Vec<(u64, usize)> = self
            .held
            .iter()
            .filter(|(_, h)| h.since + FLUSH_AFTER <= cx.elapsed)
            .map(|(key, _)| *key)
            .collect();
        due.sort_unstable();
        let mut out = Vec::new();
        for ((lineage, _), held) in due
            .into_iter()
            .filter_map(|key| Some((key, self.held.remove(&key)?)))
        {
            let mut batch = LogsBatch::from_entries(std::slice::from_ref(&held.first));
            let slice = batch.text.push(&held.text);
            batch.set_body(0, Cell::Str(slice));
            batch.source = held
                .last_offset
                .map(|base| SourceRows { base, rel: vec![0] });
            cx.report.cut += 1;
            cx.report.flushed += 1;
            out.push(Due {
                lineage,
                covers: held.from,
                batch,
            });
        }
        out
    }

    /// When the oldest held line is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.held.values().map(|h| h.since + FLUSH_AFTER).min()
    }

    /// True if a line of `lineage` is held that has parts from `source` or from a source before it.
    pub(super) fn holds(&self, lineage: u64, source: u64) -> bool {
        let of_lineage = self.held.iter().filter(|((l, _), _)| *l == lineage);
        of_lineage
            .flat_map(|(_, h)| &h.from)
            .any(|f| f.source <= source)
    }

    /// Offset of the first part of `source` that is held.
    pub(super) fn held_from(&self, source: u64) -> Option<u64> {
        let parts = self.held.values().flat_map(|h| &h.from);
        let of_source = parts.filter(|f| f.source == source);
        of_source.map(|f| f.offset).min()
    }

    /// Offsets of the first parts of `source` of all lines that are held.
    pub(super) fn held_starts(&self, source: u64, out: &mut Vec<u64>) {
        let parts = self.held.values().flat_map(|h| &h.from);
        out.extend(parts.filter(|f| f.source == source).map(|f| f.offset));
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held
            .values()
            .map(|h| h.text.capacity() + size_of::<Held>())
            .sum()
    }

    pub(super) fn forget(&mut self, source: u64) -> Vec<u64> {
        let of_source = |_: &(u64, usize), h: &mut Held| h.from.iter().any(|f| f.source == source);
        let forgotten = self.held.extract_if(of_source);
        let sources = forgotten.flat_map(|(_, h)| h.from).map(|f| f.source);
        sources.filter(|s| *s != source).collect()
    }
}

/// Joins the parts of `open` into its last row, `row`.
fn complete(
    open: Open,
    row: usize,
    lines: &mut Lines,
    batch: &mut LogsBatch,
    rows: &mut Rows,
    cx: &mut OperatorCx,
) -> Option<(usize, Held)> {
    let before = open.carried.as_ref().map_or(&[][..], |h| &h.text);
    if open.carried.is_some() || open.rows.len() > 1 {
        let parts: Vec<Slice> = open.rows.iter().map(|&r| lines.body[r]).collect();
        lines.body[row] = batch.text.concat_after(before, &parts);
    }
    for &part in open.rows.iter().filter(|&&r| r != row) {
        rows.join(part);
    }
    if open.carried.is_some() || open.rows.len() > 1 {
        // What was carried may have begun in another file: then its parts reach back to the start.
        let carried = open.carried.as_ref().map(|held| {
            let here = held.from.iter().find(|c| c.source == cx.source);
            here.map_or(0, |c| c.offset)
        });
        let first = carried.or_else(|| batch.source_offset(open.rows[0]));
        cx.report.spans.extend(first.zip(batch.source_offset(row)));
    }
    let Some(held) = open.carried else {
        let first = open.rows[0];
        if first != row {
            lines.time[row] = lines.time[first];
            lines.tag[row] = lines.tag[first];
            copy_row(&mut batch.attributes, first, row);
            copy_row(&mut batch.resource_rows, first, row);
        }
        return None;
    };
    lines.time[row] = held.first.time;
    cx.report.covers.push(held.from.clone());
    Some((row, held))
}

/// Gives row `to` the values of row `from`.
fn copy_row(columns: &mut Columns, from: usize, to: usize) {
    for i in 0..columns.len() {
        match columns.at_mut(i) {
            Some(Column::Dict { codes, .. }) => codes[to] = codes[from],
            Some(Column::Slices(s)) => s[to] = s[from],
            Some(Column::Cells(c)) => c[to] = c[from],
            Some(Column::Const(_)) | None => {}
        }
    }
}

/// Gives `row` the attributes and the resource of `first`.
fn restore(batch: &mut LogsBatch, row: usize, first: &Entry) {
    let keys = |columns: &Columns| columns.iter().map(|(k, _)| k.clone()).collect::<Vec<Key>>();
    for key in keys(&batch.attributes) {
        if first.attributes.get(&key).is_none() {
            batch.set_attribute(row, &key, Cell::Absent);
        }
    }
    for (key, value) in first.attributes.iter() {
        if batch.attribute(row, key) != Some(value.as_ref()) {
            let cell = batch.cell(value);
            batch.set_attribute(row, key, cell);
        }
    }
    for (key, value) in first.resource.iter() {
        if batch.resource_attribute(row, key) != Some(value.as_ref()) {
            let cell = batch.cell(value);
            batch.set_resource_attribute(row, key, cell);
        }
    }
    for (key, _) in batch.resource_of(row).iter() {
        if first.resource.get(key).is_none() {
            batch.set_resource_attribute(row, key, Cell::Absent);
        }
    }
}
