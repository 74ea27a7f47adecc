//! A line of `journalctl --output=json` as a record.
//!
//! Source: systemd, systemd.journal-fields(7) and the JSON of journalctl(1): a field is text, an array of
//! numbers where it is no text, null where it is too long, an array of these where it comes more than once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tailwater_pdata::{
    Cell, Column, Key, LogsBatch, Map, Severities, Slice, SourceRows, Text, Times, Value,
};

use crate::input::constants::Constants;

/// Fields of an entry; journald has the same limit.
const FIELDS_MAX: usize = 1024;
/// Longest cursor: it has to fit a position.
const CURSOR_BYTES_MAX: usize = 4 << 10;

/// Severities by `PRIORITY`, which is that of syslog; their names as journalctl has them.
const SEVERITIES: [(u8, &str); 8] = [
    (21, "emerg"),
    (19, "alert"),
    (18, "crit"),
    (17, "err"),
    (13, "warning"),
    (10, "notice"),
    (9, "info"),
    (5, "debug"),
];

/// Fields that are attributes by the semantic conventions. Source: the specification of OpenTelemetry, logs,
/// and the collector.
const ATTRIBUTES: [(&str, &str); 7] = [
    ("CODE_FILE", "code.file.path"),
    ("CODE_FUNC", "code.function.name"),
    ("CODE_LINE", "code.line.number"),
    ("TID", "thread.id"),
    ("SYSLOG_FACILITY", "syslog.facility.code"),
    ("SYSLOG_IDENTIFIER", "syslog.msgid"),
    ("SYSLOG_PID", "syslog.pid"),
];

/// Fields that are attributes of the resource.
const RESOURCE: [(&str, &str); 5] = [
    ("_HOSTNAME", "host.name"),
    ("_PID", "process.pid"),
    ("_COMM", "process.command"),
    ("_EXE", "process.executable.path"),
    ("_CMDLINE", "process.command_line"),
];

/// Of those the ones that are numbers.
const NUMBERS: [&str; 5] = ["CODE_LINE", "TID", "SYSLOG_FACILITY", "SYSLOG_PID", "_PID"];

/// An entry of the journal.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// When it came into the journal, in ns since the epoch.
    pub time_ns: i64,
    /// Its place there.
    pub cursor: String,
    /// All fields but the time.
    pub fields: Fields,
}

impl Entry {
    /// Reads a line. `message_bytes`: a message that is no text is made text.
    ///
    /// # Errors
    /// It is no entry, and why.
    pub fn read(line: &[u8], message_bytes: bool) -> Result<Entry, String> {
        let Object(mut fields) = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        if fields.len() > FIELDS_MAX {
            return Err(format!("it has more than {FIELDS_MAX} fields"));
        }
        let time = fields
            .iter()
            .rposition(|(k, _)| **k == *"__REALTIME_TIMESTAMP");
        let time = time.ok_or("it has no __REALTIME_TIMESTAMP")?;
        let micros = match fields.remove(time) {
            (_, Value::Str(text)) => text.parse::<i64>().ok(),
            _ => None,
        };
        let ns = micros.and_then(|micros| micros.checked_mul(1000));
        let time_ns = ns
            .filter(|ns| *ns >= 0)
            .ok_or("its __REALTIME_TIMESTAMP is no time")?;
        let cursor = fields.iter().rfind(|(key, _)| **key == *"__CURSOR");
        let cursor = match cursor {
            Some((_, Value::Str(text))) if text.len() <= CURSOR_BYTES_MAX => text.to_string(),
            Some(_) => return Err("its __CURSOR is no cursor".to_owned()),
            None => return Err("it has no __CURSOR".to_owned()),
        };
        if message_bytes {
            let message = fields.iter_mut().rfind(|(key, _)| **key == *"MESSAGE");
            if let Some((_, value)) = message
                && let Some(text) = text_of_bytes(value)
            {
                *value = text;
            }
        }
        Ok(Entry {
            time_ns,
            cursor,
            fields,
        })
    }
}

/// The text of an array of bytes.
fn text_of_bytes(value: &Value) -> Option<Value> {
    let Value::List(list) = value else {
        return None;
    };
    let byte = |v: &Value| match v {
        Value::Int(n) => u8::try_from(*n).ok(),
        _ => None,
    };
    let bytes: Vec<u8> = list.iter().map(byte).collect::<Option<_>>()?;
    Some(Value::str(String::from_utf8_lossy(&bytes)))
}

/// Records of entries, the first of which has the number `first`; `seen_ns` is now. With `conventions` fields
/// become what they stand for, else the body has all of them.
pub fn records(
    entries: Vec<Entry>,
    first: u64,
    seen_ns: i64,
    constants: &Constants,
    conventions: bool,
) -> LogsBatch {
    let rows = entries.len();
    let mut batch = LogsBatch::from_slices(Text::default(), vec![Slice::ABSENT; rows]);
    batch.time = Times::Each(entries.iter().map(|entry| entry.time_ns).collect());
    batch.observed = Times::Const(seen_ns);
    batch.source = Some(SourceRows {
        base: first,
        rel: (0..rows as u32).collect(),
    });
    let all = entries.into_iter().map(|e| Map::from_entries(e.fields));
    let all: Vec<Map> = all.collect();
    let bodies = all
        .iter()
        .map(|map| batch.big_cell(Value::Map(map.clone())));
    batch.body = Column::Cells(bodies.collect());
    constants.add_to(&mut batch, None);
    if conventions {
        fill(&mut batch, all);
    }
    batch
}

/// Makes of fields what they stand for: body, severity, attributes, resource.
fn fill(batch: &mut LogsBatch, all: Vec<Map>) {
    let mut bodies = vec![Cell::Absent; all.len()];
    let mut severities = vec![0; all.len()];
    let mut names = vec![Slice::ABSENT; all.len()];
    for (row, fields) in all.into_iter().enumerate() {
        for (key, value) in fields.into_entries() {
            let named = |table: &[(&str, &'static str)]| {
                let found = table.iter().find(|(field, _)| **field == *key);
                found.map(|(_, name)| *name)
            };
            if *key == *"MESSAGE" {
                bodies[row] = batch.cell(&value);
            } else if *key == *"PRIORITY" {
                if let Some((number, name)) = severity(&value) {
                    severities[row] = number;
                    names[row] = batch.text.push(name.as_bytes());
                }
            } else if let Some(name) = named(&ATTRIBUTES) {
                let cell = number_or(batch, &key, &value);
                batch.set_attribute(row, name, cell);
            } else if let Some(name) = named(&RESOURCE) {
                let cell = number_or(batch, &key, &value);
                batch.set_resource_attribute(row, name, cell);
            } else {
                let cell = batch.cell(&value);
                batch.set_attribute(row, &format!("journald.{key}"), cell);
            }
        }
    }
    batch.body = Column::Cells(bodies);
    batch.severity = Severities::Each(severities);
    batch.severity_text = Some(Column::Slices(names));
}

fn severity(value: &Value) -> Option<(u8, &'static str)> {
    let Value::Str(text) = value else {
        return None;
    };
    SEVERITIES.get(text.parse::<usize>().ok()?).copied()
}

fn number_or(batch: &mut LogsBatch, field: &str, value: &Value) -> Cell {
    match value {
        Value::Str(text) if NUMBERS.contains(&field) => match text.parse() {
            Ok(number) => Cell::Int(number),
            Err(_) => batch.cell(value),
        },
        _ => batch.cell(value),
    }
}

/// The cursor of a line, without reading the rest of it: these quotes stand nowhere within a text, where
/// they would have a backslash before them.
pub fn cursor_of(line: &[u8]) -> Option<&str> {
    const NAME: &[u8] = b"\"__CURSOR\"";
    let found = memchr::memmem::find_iter(line, NAME).find_map(|at| {
        let rest = line[at + NAME.len()..].trim_ascii_start();
        let rest = rest.strip_prefix(b":")?.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"")?;
        let length = memchr::memchr2(b'"', b'\\', rest)?;
        (rest[length] == b'"' && length <= CURSOR_BYTES_MAX).then(|| &rest[..length])
    });
    std::str::from_utf8(found?).ok()
}

/// Fields and their values.
type Fields = Vec<(Key, Value)>;

/// An object of JSON, in its order.
struct Object(Fields);

impl<'d> Deserialize<'d> for Object {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Object, D::Error> {
        match Any::deserialize(from)? {
            Any(Value::Map(map)) => Ok(Object(map.into_entries())),
            _ => Err(D::Error::custom("it is no object")),
        }
    }
}

/// Any value of JSON.
struct Any(Value);

impl<'d> Deserialize<'d> for Any {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Any, D::Error> {
        struct Of;
        impl<'d> Visitor<'d> for Of {
            type Value = Any;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of JSON")
            }

            fn visit_unit<E: Error>(self) -> Result<Any, E> {
                Ok(Any(Value::Null))
            }

            fn visit_bool<E: Error>(self, b: bool) -> Result<Any, E> {
                Ok(Any(Value::Bool(b)))
            }

            fn visit_i64<E: Error>(self, n: i64) -> Result<Any, E> {
                Ok(Any(Value::Int(n)))
            }

            fn visit_u64<E: Error>(self, n: u64) -> Result<Any, E> {
                let value = i64::try_from(n).map_or(Value::Double(n as f64), Value::Int);
                Ok(Any(value))
            }

            fn visit_f64<E: Error>(self, x: f64) -> Result<Any, E> {
                Ok(Any(Value::Double(x)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Any, E> {
                Ok(Any(Value::str(text)))
            }

            fn visit_seq<A: SeqAccess<'d>>(self, mut all: A) -> Result<Any, A::Error> {
                let mut list = Vec::new();
                while let Some(Any(value)) = all.next_element()? {
                    list.push(value);
                }
                Ok(Any(Value::List(list)))
            }

            fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Any, A::Error> {
                let mut entries: Fields = Vec::new();
                while let Some((key, Any(value))) = map.next_entry::<String, Any>()? {
                    entries.push((key.into(), value));
                }
                Ok(Any(Value::Map(Map::from_entries(entries))))
            }
        }
        from.deserialize_any(Of)
    }
}
