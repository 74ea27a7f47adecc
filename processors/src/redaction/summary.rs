//! What a record, resource or scope is told about what became of its attributes (`summary`).

use tailwater_pdata::{Cell, Key, LogsBatch, Map, Value};

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Summary {
    /// Nothing.
    Silent,
    /// Numbers.
    Info,
    /// Numbers, and the keys.
    Debug,
}

/// What is told of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Redacted,
    Masked,
    Allowed,
    Ignored,
    BodyRedacted,
    BodyMasked,
    BodyAllowed,
    BodyIgnored,
}

/// The attributes that summaries are: they are allowed, so that what one processor tells stays behind the next.
pub(super) const KEYS: [&str; 14] = [
    "redaction.redacted.keys",
    "redaction.redacted.count",
    "redaction.masked.keys",
    "redaction.masked.count",
    "redaction.allowed.keys",
    "redaction.allowed.count",
    "redaction.ignored.count",
    "redaction.body.redacted.keys",
    "redaction.body.redacted.count",
    "redaction.body.masked.keys",
    "redaction.body.masked.count",
    "redaction.body.allowed.keys",
    "redaction.body.allowed.count",
    "redaction.body.ignored.count",
];

impl Kind {
    /// The attributes with the keys, if they are told, and with their number.
    fn attributes(self) -> (Option<&'static str>, &'static str) {
        match self {
            Kind::Redacted => (Some(KEYS[0]), KEYS[1]),
            Kind::Masked => (Some(KEYS[2]), KEYS[3]),
            Kind::Allowed => (Some(KEYS[4]), KEYS[5]),
            Kind::Ignored => (None, KEYS[6]),
            Kind::BodyRedacted => (Some(KEYS[7]), KEYS[8]),
            Kind::BodyMasked => (Some(KEYS[9]), KEYS[10]),
            Kind::BodyAllowed => (Some(KEYS[11]), KEYS[12]),
            Kind::BodyIgnored => (None, KEYS[13]),
        }
    }
}

/// What is to be told, by row.
#[derive(Default)]
pub(super) struct Notes(Vec<(usize, Kind, Key)>);

impl Notes {
    /// Takes down what became of a key of a row.
    pub fn add(&mut self, row: usize, kind: Kind, key: &Key) {
        self.0.push((row, kind, key.clone()));
    }

    /// Tells the rows of a batch.
    pub fn tell_rows(&mut self, summary: Summary, batch: &mut LogsBatch) {
        self.0.sort_by_key(|note| (note.0, note.1));
        for notes in self.0.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let row = notes[0].0;
            let read = |key: &str| batch.attribute(row, key).map(|v| v.to_value());
            for (key, value) in told(summary, notes, read).into_iter().flatten() {
                let cell: Cell = batch.cell(&value);
                batch.set_attribute(row, key, cell);
            }
        }
        self.0.clear();
    }

    /// Tells a map, whose notes are of row 0.
    pub fn tell_map(&mut self, summary: Summary, map: &mut Map) {
        self.0.sort_by_key(|note| note.1);
        for notes in self.0.chunk_by(|a, b| a.1 == b.1) {
            let told = told(summary, notes, |key| map.get(key).cloned());
            for (key, value) in told.into_iter().flatten() {
                map.insert(key, value);
            }
        }
        self.0.clear();
    }
}

/// What is told of keys of one kind, with what was told before.
fn told(
    summary: Summary,
    notes: &[(usize, Kind, Key)],
    read: impl Fn(&str) -> Option<Value>,
) -> [Option<(&'static str, Value)>; 2] {
    let (names, count) = notes[0].1.attributes();
    let names = names.filter(|_| summary == Summary::Debug).map(|name| {
        let before = read(name);
        let mut keys: Vec<&str> = notes.iter().map(|(_, _, key)| &**key).collect();
        if let Some(Value::Str(before)) = &before
            && !before.is_empty()
        {
            keys.extend(before.split(','));
        }
        keys.sort_unstable();
        (name, Value::str(keys.join(",")))
    });
    let before = match read(count) {
        Some(Value::Int(n)) => n,
        _ => 0,
    };
    let number = i64::try_from(notes.len()).unwrap_or(i64::MAX);
    let number = Value::Int(before.saturating_add(number));
    [names, Some((count, number))]
}
