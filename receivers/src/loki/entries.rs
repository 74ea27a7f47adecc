//! Entries of a push as columns: a batch for each stream, over the bytes that came.
//!
//! Labels are attributes that all entries of the stream have, structured metadata are attributes of each.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tailwater_pdata::{Column, Columns, Key, LogsBatch, Slice, Text, Times, Value};

use super::labels::Labels;

/// Streams of one push: each takes some hundred bytes besides its entries. Loki's own limit of all streams of
/// a tenant is 5000.
pub const STREAMS_MAX: usize = 10_000;
/// Cells of all columns for each pair of metadata that came, beyond which a batch is ended: entries that
/// have hardly a name in common would take rows times columns.
const CELLS_PER_PAIR: usize = 16;
/// Cells that a batch may have in any case.
const CELLS_FREE: usize = 1024;
/// Up to this number of columns a name is looked for in all of them, beyond by hashing.
const COLUMNS_FEW: usize = 32;
/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;

/// Why a push is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// It is not what it should be.
    Invalid(String),
    /// There is no room for it now.
    NoRoom,
}

/// A push that is being read.
pub struct Push<'r> {
    /// What was read of it.
    pub batches: Vec<LogsBatch>,
    incoming_timestamp: bool,
    arrived_ns: i64,
    streams: usize,
    room: &'r mut dyn FnMut(usize) -> bool,
}

impl<'r> Push<'r> {
    /// One that came at `arrived_ns`, which is the time of records that have no other, or of all. `room` is
    /// asked for what their columns take.
    pub fn new(
        incoming_timestamp: bool,
        arrived_ns: i64,
        room: &'r mut dyn FnMut(usize) -> bool,
    ) -> Push<'r> {
        Push {
            batches: Vec::new(),
            incoming_timestamp,
            arrived_ns,
            streams: 0,
            room,
        }
    }

    /// Adds a stream.
    ///
    /// # Errors
    /// There are too many, or there is no room.
    pub fn add(&mut self, entries: Entries, labels: &Labels) -> Result<(), Problem> {
        let batches = entries.finish(labels);
        if batches.is_empty() {
            return Ok(());
        }
        self.streams += 1;
        if self.streams > STREAMS_MAX {
            let text = format!("a push may have {STREAMS_MAX} streams");
            return Err(Problem::Invalid(text));
        }
        let bytes = |b: &LogsBatch| b.heap_bytes() - b.text.shared().len();
        if !(self.room)(batches.iter().map(bytes).sum()) {
            return Err(Problem::NoRoom);
        }
        for mut batch in batches {
            batch.observed = Times::Const(self.arrived_ns);
            if !self.incoming_timestamp {
                batch.time = Times::Const(self.arrived_ns);
            } else if let Times::Each(times) = &mut batch.time {
                let unset = times.iter_mut().filter(|time| **time == NO_TIME);
                unset.for_each(|time| *time = self.arrived_ns);
            }
            self.batches.push(batch);
        }
        Ok(())
    }
}

/// The time of an entry without one.
pub const NO_TIME: i64 = i64::MIN;

/// The time of an entry in ns since the epoch; [`NO_TIME`] for one that no record can have.
pub fn time(seconds: i64, nanos: i64) -> i64 {
    let whole = seconds.checked_mul(SECOND_NS);
    let whole = whole.and_then(|whole| whole.checked_add(nanos));
    whole.filter(|ns| *ns >= 0).unwrap_or(NO_TIME)
}

/// Entries of one stream.
pub struct Entries {
    source: Bytes,
    done: Vec<LogsBatch>,
    text: Text,
    lines: Vec<Slice>,
    times: Vec<i64>,
    columns: Vec<(Key, Vec<Slice>)>,
    index: HashMap<Key, usize>,
    /// The column that the next pair probably belongs to.
    expected: usize,
    /// Pairs of the batch so far.
    pairs: usize,
}

impl Entries {
    /// None yet; texts may lie in `source`.
    pub fn new(source: Bytes) -> Entries {
        Entries {
            text: Text::new(source.clone()),
            source,
            done: Vec::new(),
            lines: Vec::new(),
            times: Vec::new(),
            columns: Vec::new(),
            index: HashMap::new(),
            expected: 0,
            pairs: 0,
        }
    }

    /// A text that lies in the source. Bytes that are no characters become U+FFFD.
    pub fn shared(&mut self, from: usize, to: usize) -> Slice {
        let bytes = self.source.slice(from..to);
        match std::str::from_utf8(&bytes) {
            // The source has less than 2 GiB.
            Ok(_) => Slice::shared(from as u32, (to - from) as u32),
            Err(_) => self.copied(&bytes),
        }
    }

    /// A text that lies elsewhere. Bytes that are no characters become U+FFFD.
    pub fn copied(&mut self, bytes: &[u8]) -> Slice {
        match std::str::from_utf8(bytes) {
            Ok(_) => self.text.push(bytes),
            Err(_) => self.text.push(String::from_utf8_lossy(bytes).as_bytes()),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.done.is_empty()
    }

    /// An entry begins.
    pub fn begin(&mut self) {
        if self.columns.len() * (self.lines.len() + 1) > self.pairs * CELLS_PER_PAIR + CELLS_FREE {
            self.end_batch();
        }
        self.expected = 0;
    }

    /// Adds metadata to the entry that has begun. A name that comes twice has the last value; what has no
    /// name or no value is left out.
    pub fn pair(&mut self, name: &[u8], value: Slice) {
        if name.is_empty() || value.len() == 0 {
            return;
        }
        let row = self.lines.len();
        let i = self.column(name);
        let (_, values) = &mut self.columns[i];
        values.resize(row, Slice::ABSENT);
        values.push(value);
        self.expected = i + 1;
        self.pairs += 1;
    }

    fn column(&mut self, name: &[u8]) -> usize {
        match self.columns.get(self.expected) {
            Some((known, _)) if known.as_bytes() == name => return self.expected,
            _ => {}
        }
        let name = String::from_utf8_lossy(name);
        let found = if self.columns.len() <= COLUMNS_FEW {
            self.columns.iter().position(|(known, _)| **known == *name)
        } else {
            if self.index.is_empty() {
                let known = self.columns.iter().enumerate();
                self.index = known.map(|(i, (name, _))| (name.clone(), i)).collect();
            }
            self.index.get(&*name).copied()
        };
        found.unwrap_or_else(|| {
            let (i, key) = (self.columns.len(), Key::from(name));
            if !self.index.is_empty() {
                self.index.insert(key.clone(), i);
            }
            self.columns.push((key, Vec::new()));
            i
        })
    }

    /// The entry ends; see [`time`].
    pub fn end(&mut self, time_ns: i64, line: Slice) {
        self.lines.push(line);
        self.times.push(time_ns);
    }

    fn end_batch(&mut self) {
        let next = Text::new(self.source.clone());
        let text = std::mem::replace(&mut self.text, next);
        let lines = std::mem::take(&mut self.lines);
        if lines.is_empty() {
            return;
        }
        let rows = lines.len();
        let mut batch = LogsBatch::from_slices(text, lines);
        batch.time = Times::Each(std::mem::take(&mut self.times));
        let columns = std::mem::take(&mut self.columns).into_iter();
        let columns = columns.map(|(name, mut values)| {
            values.resize(rows, Slice::ABSENT);
            (name, Column::Slices(values))
        });
        batch.attributes = Columns::from_unique(columns.collect());
        self.index = HashMap::new();
        self.pairs = 0;
        self.done.push(batch);
    }

    /// The batches of a stream with these labels.
    fn finish(mut self, labels: &Labels) -> Vec<LogsBatch> {
        self.end_batch();
        let mut done = self.done;
        for batch in &mut done {
            let metadata = std::mem::take(&mut batch.attributes);
            let constant = |(name, value): &(String, String)| {
                let column = Column::Const(Value::str(value));
                (Key::from(name.as_str()), column)
            };
            let mut all: Vec<(Key, Column)> = labels.iter().map(constant).collect();
            let known = |name: &str| {
                labels
                    .binary_search_by(|(l, _)| l.as_str().cmp(name))
                    .is_ok()
            };
            let mut names: Option<HashSet<Key>> = None;
            for (name, column) in metadata.iter() {
                let mut name = name.clone();
                if known(&name) {
                    let names = names.get_or_insert_with(|| {
                        let labels = all.iter().map(|(name, _)| name.clone());
                        labels
                            .chain(metadata.iter().map(|(n, _)| n.clone()))
                            .collect()
                    });
                    // As Loki shows metadata that has the name of a label.
                    while !names.insert(name.clone()) {
                        name = format!("{name}_extracted").into();
                    }
                }
                all.push((name, column.clone()));
            }
            batch.attributes = Columns::from_unique(all);
        }
        done
    }
}
