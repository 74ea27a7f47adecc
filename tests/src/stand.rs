//! An agent whose records come out as they are: through the `file` exporter, as OTLP JSON lines.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use serde_json::{Map, Value, json};

use crate::agent::Agent;
use crate::rig::{Rig, tail};
use crate::wait;

/// A record: body, attributes and resource in plain JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// ns since the epoch, as it is written there; empty without a time.
    pub time_ns: String,
    /// As it came; bytes as `{"bytes": text}`, one character per byte.
    pub body: Value,
    /// Of the record.
    pub attributes: Value,
    /// Of its resource.
    pub resource: Value,
}

/// An OTLP value in plain JSON; bytes as `{"bytes": text}` with one character per byte.
fn plain(any: &Value) -> Value {
    let Some((kind, value)) = any.as_object().and_then(|o| o.iter().next()) else {
        return Value::Null;
    };
    match kind.as_str() {
        "intValue" => value
            .as_str()
            .and_then(|n| n.parse::<i64>().ok())
            .map_or_else(|| value.clone(), Value::from),
        "bytesValue" => {
            let text = value.as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let chars = bytes.expect("base64").into_iter().map(char::from);
            json!({"bytes": chars.collect::<String>()})
        }
        "kvlistValue" => pairs(&value["values"]),
        "arrayValue" => {
            let items = value["values"].as_array();
            items.into_iter().flatten().map(plain).collect()
        }
        _ => value.clone(),
    }
}

fn pairs(list: &Value) -> Value {
    let pairs = list.as_array().into_iter().flatten();
    let pairs = pairs.map(|p| {
        (
            p["key"].as_str().unwrap_or_default().to_owned(),
            plain(&p["value"]),
        )
    });
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn records_of(line: &str) -> Vec<Record> {
    let root: Value = serde_json::from_str(line).expect("a line of JSON");
    let mut out = Vec::new();
    for r in root["resourceLogs"].as_array().into_iter().flatten() {
        for s in r["scopeLogs"].as_array().into_iter().flatten() {
            for l in s["logRecords"].as_array().into_iter().flatten() {
                out.push(Record {
                    time_ns: l["timeUnixNano"].as_str().unwrap_or_default().to_owned(),
                    body: plain(&l["body"]),
                    attributes: pairs(&l["attributes"]),
                    resource: pairs(&r["resource"]["attributes"]),
                });
            }
        }
    }
    out
}

/// An agent on one directory of logs, and what came out of it.
pub struct Stand {
    /// Files, sink and agents; the sink is not used.
    pub rig: Rig,
    /// The whole configuration.
    pub config: Value,
}

impl Stand {
    /// Reads `*.log` from the beginning, without attributes; `options` are laid over that.
    pub fn new(options: &Value) -> Stand {
        let rig = Rig::new("options");
        let mut config = rig.config();
        config["exporters"] = json!({"file": {"path": rig.path("out.json"), "append": true}});
        config["service"]["pipelines"]["logs"]["exporters"] = json!(["file"]);
        config["receivers"]["filelog"] = json!({
            "include": [rig.logs("*.log")],
            "start_at": "beginning",
            "include_file_name": false,
            "poll_interval": "50ms",
        });
        let mut stand = Stand { rig, config };
        stand.set(options);
        stand
    }

    /// Sets options of the receiver; null takes one away.
    pub fn set(&mut self, options: &Value) {
        let receiver = self.config["receivers"]["filelog"].as_object_mut();
        let receiver = receiver.expect("a map");
        for (key, value) in options.as_object().into_iter().flatten() {
            if value.is_null() {
                receiver.remove(key);
            } else {
                receiver.insert(key.clone(), value.clone());
            }
        }
    }

    /// The directory of logs.
    pub fn dir(&self) -> PathBuf {
        self.rig.logs("")
    }

    /// Writes a file below the directory of logs, and the directories on the way.
    ///
    /// # Panics
    /// When it cannot be written; so with the others.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.rig.logs(name);
        fs::create_dir_all(path.parent().expect("below logs")).expect("a directory");
        fs::write(path, bytes).expect("written");
    }

    /// Appends to a file that is there.
    pub fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let file = OpenOptions::new().append(true).open(self.rig.logs(name));
        file.expect("there")
            .write_all(bytes.as_ref())
            .expect("written");
    }

    /// Starts an agent and waits until it is ready.
    pub fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    /// What has come out so far; a line that is being written does not count.
    pub fn records(&self) -> Vec<Record> {
        let text = fs::read_to_string(self.rig.path("out.json")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().flat_map(records_of).collect()
    }

    /// The bodies of [`Stand::records`].
    pub fn bodies(&self) -> Vec<Value> {
        self.records().into_iter().map(|r| r.body).collect()
    }

    /// Waits for `n` records.
    pub fn wait(&self, agent: &Agent, n: usize) -> Vec<Record> {
        let done = wait::within(wait::BOUND, || self.records().len() >= n);
        let got = self.records();
        assert!(
            done,
            "{} of {n} records: {:?}\n{}",
            got.len(),
            self.bodies(),
            tail(&agent.log())
        );
        got
    }

    /// Waits until so many files are open.
    pub fn wait_open(&self, agent: &Agent, n: f64) {
        let open = || agent.scrape().sum("otelcol_fileconsumer_open_files", &[]);
        assert!(
            wait::within(wait::BOUND, || open() >= n),
            "{} of {n} files are open\n{}",
            open(),
            tail(&agent.log())
        );
    }

    /// Starts, waits for `n` records, stops, and gives exactly what came.
    pub fn run(&self, n: usize) -> Vec<Record> {
        let agent = self.start();
        self.wait(&agent, n);
        agent.stop_clean();
        self.records()
    }
}

/// Their bodies.
pub fn bodies(records: &[Record]) -> Vec<Value> {
    records.iter().map(|r| r.body.clone()).collect()
}

/// Their bodies, which are text, in order of the text.
pub fn sorted(records: &[Record]) -> Vec<String> {
    let mut out: Vec<String> = records
        .iter()
        .map(|r| r.body.as_str().unwrap_or_default().to_owned())
        .collect();
    out.sort();
    out
}

/// UTF-16, low byte first.
pub fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// UTF-16, high byte first.
pub fn utf16be(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}
/// Texts as bodies.
pub fn texts(list: &[&str]) -> Vec<Value> {
    list.iter().map(|t| json!(t)).collect()
}

/// A gzip member.
pub fn gz(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}
