//! Records that wait, in the order in which they came.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tailwater_pdata::{Entry, Key, LogsBatch, Map, ResourceFields, Scope, Value};
use tailwater_pipeline::Permit;
use tailwater_pipeline::ack::{AckToken, SourceId};

use super::config::{LogDedupConfig, TimestampMode};
use crate::duties::Duty;

/// Parts of one source, and their bytes, that are held at most before all is passed on: half of what a source
/// of files has under way at most, so that none of them has to pause for an interval to end.
const SOURCE_PARTS_MAX: usize = 32;
const SOURCE_BYTES_MAX: usize = 8 << 20;
/// Parts of all sources: half of the requests that a receiver of OTLP has under way at most.
const PARTS_MAX: usize = 2048;

/// Records of one resource and scope.
pub(super) struct Stream {
    /// What they are in, to find it again.
    pub id: u128,
    pub resource: Arc<Map>,
    pub scope: Arc<Scope>,
    pub fields: Arc<ResourceFields>,
    pub rows: Vec<Row>,
    /// Whoever waits for them.
    pub duties: Vec<Duty>,
}

/// A record that stands for those that are the same.
pub(super) struct Row {
    pub id: u128,
    /// The first of them.
    pub entry: Entry,
    pub count: i64,
    /// When the first and the last one came, in ns since the epoch.
    pub first_ns: i64,
    pub last_ns: i64,
    /// The time of the last one, 0 = none.
    pub last_event_ns: i64,
}

/// All that is held since the last time it was taken out.
#[derive(Default)]
pub(super) struct Held {
    streams: Vec<Stream>,
    places: HashMap<u128, usize>,
    /// By the identity of records: which stream, and which of its rows.
    rows: HashMap<u128, (usize, usize)>,
    bytes: usize,
    sources: HashMap<SourceId, (usize, usize)>,
    parts: usize,
    /// Combinations of metadata.
    pub combinations: HashSet<u128>,
    /// True if a source would soon have to pause.
    pressed: bool,
    /// For the bytes.
    pub permit: Permit,
}

impl Held {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of memory, within a few percent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all is to be passed on before its time.
    pub fn is_full(&self, config: &LogDedupConfig) -> bool {
        let limit = config.metadata_cardinality_limit;
        self.bytes as u64 >= config.held_bytes_max
            || self.pressed
            || self.parts >= PARTS_MAX
            || (limit > 0 && self.combinations.len() > limit)
    }

    /// Takes down that records of a source are held, which took so many bytes.
    pub fn count_source(&mut self, token: &AckToken, bytes: usize) {
        let (parts, sum) = self.sources.entry(token.source()).or_default();
        *parts += 1;
        *sum += bytes;
        self.pressed |= *parts >= SOURCE_PARTS_MAX || *sum >= SOURCE_BYTES_MAX;
        self.parts += 1;
    }

    /// The place of the records of `batch`, which is made if need be.
    fn stream(&mut self, id: u128, batch: &LogsBatch) -> usize {
        *self.places.entry(id).or_insert_with(|| {
            let otlp = batch.otlp.as_ref();
            self.bytes += size_of::<Stream>() + map_bytes(&batch.resource);
            self.streams.push(Stream {
                id,
                resource: batch.resource.clone(),
                scope: batch.scope.clone(),
                fields: otlp.map(|o| o.resource.clone()).unwrap_or_default(),
                rows: Vec::new(),
                duties: Vec::new(),
            });
            self.streams.len() - 1
        })
    }

    /// Holds the records of `batch`, whose identities are `ids`; `token` is whoever waits for them. Returns how
    /// many became one with others.
    pub fn merge(
        &mut self,
        id: u128,
        batch: &LogsBatch,
        ids: &[u128],
        token: Option<&AckToken>,
        now_ns: i64,
    ) -> usize {
        let at = self.stream(id, batch);
        let mut new = 0;
        for (row, id) in ids.iter().enumerate() {
            let time = batch.time.get(row);
            if let Some((stream, held)) = self.rows.get(id) {
                let held = &mut self.streams[*stream].rows[*held];
                held.count = held.count.saturating_add(1);
                held.last_ns = now_ns;
                held.last_event_ns = time;
                continue;
            }
            let mut entry = batch.entry(row);
            (entry.resource, entry.scope_name) = (Map::new(), String::new());
            new += 1;
            self.add(
                at,
                Row {
                    id: *id,
                    entry,
                    count: 1,
                    first_ns: now_ns,
                    last_ns: now_ns,
                    last_event_ns: time,
                },
            );
        }
        if let Some(token) = token {
            let stream = &mut self.streams[at];
            let records = u32::try_from(new).unwrap_or(u32::MAX);
            match stream.duties.last_mut() {
                Some(last) if last.token.same_as(token) => last.records += records,
                _ => stream.duties.push(Duty {
                    token: token.clone(),
                    records,
                }),
            }
        }
        ids.len() - new
    }

    fn add(&mut self, stream: usize, row: Row) {
        let rows = &mut self.streams[stream].rows;
        self.bytes += row_bytes(&row.entry);
        self.rows.insert(row.id, (stream, rows.len()));
        rows.push(row);
    }

    /// Holds again what came back; nobody waits for it.
    pub fn take_back(&mut self, back: Stream) {
        let mut batch = LogsBatch::default();
        (batch.resource, batch.scope) = (back.resource, back.scope);
        batch.otlp.get_or_insert_default().resource = back.fields;
        let at = self.stream(back.id, &batch);
        for row in back.rows {
            let Some((stream, held)) = self.rows.get(&row.id) else {
                self.add(at, row);
                continue;
            };
            let held = &mut self.streams[*stream].rows[*held];
            held.count = held.count.saturating_add(row.count);
            held.first_ns = held.first_ns.min(row.first_ns);
            held.last_ns = held.last_ns.max(row.last_ns);
        }
    }

    /// All of it.
    pub fn into_streams(self) -> Vec<Stream> {
        self.streams
    }
}

/// Cells of attributes in a batch at most, from [`KEYS_USUAL`] keys on: each key is a column, and records that
/// have one each would take memory by the square of their number.
const CELLS_MAX: usize = 1 << 18;
const KEYS_USUAL: usize = 64;

impl Stream {
    /// The records as they are passed on. `at_ns` is the time of the first one; each later one is 1 ns after
    /// it, so that no two of them look the same to whoever goes by time and text.
    pub fn batches(&self, config: &LogDedupConfig, at_ns: &mut i64) -> Vec<LogsBatch> {
        let mut batches = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys: HashSet<Key> = HashSet::new();
        for row in &self.rows {
            let entry = row.emitted(config, at_ns);
            keys.extend(entry.attributes.iter().map(|(key, _)| key.clone()));
            entries.push(entry);
            if keys.len() > KEYS_USUAL && keys.len() * entries.len() > CELLS_MAX {
                batches.push(self.batch(&entries));
                entries.clear();
                keys.clear();
            }
        }
        if !entries.is_empty() {
            batches.push(self.batch(&entries));
        }
        batches
    }

    fn batch(&self, entries: &[Entry]) -> LogsBatch {
        let mut batch = LogsBatch::from_entries(entries);
        batch.resource = self.resource.clone();
        batch.scope = self.scope.clone();
        if *self.fields != ResourceFields::default() {
            batch.otlp.get_or_insert_default().resource = self.fields.clone();
        }
        batch
    }
}

impl Row {
    fn emitted(&self, config: &LogDedupConfig, at_ns: &mut i64) -> Entry {
        let mut entry = self.entry.clone();
        let told = &mut entry.attributes;
        told.insert(config.count_attribute.clone(), self.count);
        let text = |ns| Value::from(config.zone.rfc3339(ns));
        told.insert("first_observed_timestamp", text(self.first_ns));
        told.insert("last_observed_timestamp", text(self.last_ns));
        match config.timestamp_mode {
            TimestampMode::Observed => {
                entry.time = *at_ns;
                *at_ns += 1;
            }
            TimestampMode::Preserved if self.last_event_ns != 0 => {
                told.insert("last_event_timestamp", text(self.last_event_ns));
            }
            TimestampMode::Preserved => {}
        }
        entry.observed = self.first_ns;
        entry
    }
}

fn map_bytes(map: &Map) -> usize {
    map.iter()
        .map(|(key, value)| key.len() + value.heap_bytes() + 48)
        .sum()
}

fn row_bytes(entry: &Entry) -> usize {
    let texts = entry.severity_text.len() + entry.event_name.len();
    // The row, and its place in the table.
    let fixed = size_of::<Row>() + 2 * size_of::<(u128, (usize, usize))>();
    fixed + texts + entry.body.heap_bytes() + map_bytes(&entry.attributes)
}
