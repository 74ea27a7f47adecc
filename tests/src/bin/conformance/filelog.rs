//! Kinds `filelog` and `rotation`: the release binary on a fresh directory, records read back
//! from a `file` exporter.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value as Json, json};
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::{Agent, find_binary};
use tailwater_tests::wait;

use crate::case::{Case, Verdict};
use crate::records::base64_bytes;

/// Where cases that give none were run with this.
const POLL_INTERVAL: &str = "50ms";
/// Two poll intervals, and the time in which a busy machine gets to them.
const POLLS: Duration = Duration::from_millis(300);
/// How long an expectation may take unless the case says.
const EXPECT_MS: u64 = 3_000;

/// Runs the case.
pub fn run(case: &Case) -> Verdict {
    if find_binary().is_none() {
        return Verdict::NotRun("needs the release binary: set TAILWATER_BIN".to_owned());
    }
    play(&case.json).into()
}

fn play(vector: &Json) -> Result<(), String> {
    let mut player = Player::new(vector)?;
    for (i, step) in vector["input"]["steps"]
        .as_array()
        .ok_or("no steps")?
        .iter()
        .enumerate()
    {
        let what = step["do"].as_str().unwrap_or_default();
        player
            .step(what, step)
            .map_err(|e| format!("step {} ({what}): {e}", i + 1))?;
    }
    match player.agent.take() {
        Some(agent) => player.stop(agent),
        None => Ok(()),
    }
}

/// Does what the steps say.
struct Player {
    config: Json,
    data: PathBuf,
    out: PathBuf,
    agent: Option<Agent>,
    /// Files kept open for writing, as an application does.
    writers: HashMap<String, File>,
    /// Records seen and expected so far.
    taken: usize,
    dir: TempDir,
}

impl Player {
    fn new(vector: &Json) -> Result<Player, String> {
        let dir = TempDir::new("vector").map_err(|e| e.to_string())?;
        let data = dir.join("data");
        for sub in ["data", "state", "run"] {
            fs::create_dir(dir.join(sub)).map_err(|e| e.to_string())?;
        }
        let real = fs::canonicalize(&data).map_err(|e| e.to_string())?;
        let mut receiver = vector["config"]["filelog"].to_string();
        for (name, path) in [("${DIR}", &data), ("${REALDIR}", &real)] {
            receiver = receiver.replace(name, &path.to_string_lossy());
        }
        let mut receiver: Json = serde_json::from_str(&receiver).map_err(|e| e.to_string())?;
        if receiver.get("poll_interval").is_none() {
            receiver["poll_interval"] = POLL_INTERVAL.into();
        }
        let out = dir.join("out.json");
        let pipeline = json!({"receivers": ["filelog"], "exporters": ["file"]});
        let config = json!({
            "receivers": {"filelog": receiver},
            "exporters": {"file": {"path": out, "append": true}},
            "service": {"pipelines": {"logs": pipeline}},
        });
        let writers = HashMap::new();
        Ok(Player {
            config,
            data,
            out,
            agent: None,
            writers,
            taken: 0,
            dir,
        })
    }

    fn stop(&self, agent: Agent) -> Result<(), String> {
        match agent.stop_within(wait::BOUND) {
            0 => Ok(()),
            code => Err(format!("the agent ended with {code}")),
        }
    }

    fn step(&mut self, what: &str, step: &Json) -> Result<(), String> {
        let io = |e: std::io::Error| e.to_string();
        let text = |key: &str| step[key].as_str().map(str::to_owned);
        let path = |key: &str| {
            let name = text(key).ok_or(format!("no {key}"))?;
            Ok::<_, String>((self.data.join(&name), name))
        };
        let millis =
            |key: &str, default| Duration::from_millis(step[key].as_u64().unwrap_or(default));
        match what {
            "append" => {
                let (path, name) = path("file")?;
                self.append(&path, &name, &content(step))?;
            }
            "append_gzip" => {
                let (path, name) = path("file")?;
                let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
                gzip.write_all(&content(step)).map_err(io)?;
                self.append(&path, &name, &gzip.finish().map_err(io)?)?;
            }
            "create" => drop(File::create(path("file")?.0).map_err(io)?),
            "truncate" => {
                let file = OpenOptions::new()
                    .write(true)
                    .open(path("file")?.0)
                    .map_err(io)?;
                file.set_len(step["to"].as_u64().unwrap_or(0)).map_err(io)?;
            }
            "rename" => {
                let ((from, old), (to, new)) = (path("from")?, path("to")?);
                fs::rename(from, to).map_err(io)?;
                let writer = self.writers.remove(&old);
                if let Some(writer) = writer.filter(|_| step["writer_follows"] == true) {
                    self.writers.insert(new, writer);
                }
            }
            "copy" => drop(fs::copy(path("from")?.0, path("to")?.0).map_err(io)?),
            "remove" => {
                let (path, name) = path("file")?;
                fs::remove_file(path).map_err(io)?;
                self.writers.remove(&name);
            }
            "mkdir" => {
                let key = if step.get("dir").is_some() {
                    "dir"
                } else {
                    "file"
                };
                fs::create_dir_all(path(key)?.0).map_err(io)?;
            }
            "symlink" => {
                let (target, link) = (path("target")?.0, path("link")?.0);
                std::os::unix::fs::symlink(target, link).map_err(io)?;
            }
            "start" => self.start()?,
            "stop" => {
                let agent = self.agent.take().ok_or("nothing runs")?;
                self.stop(agent)?;
            }
            "kill" => self.agent.take().ok_or("nothing runs")?.kill(),
            "poll" => wait::let_pass(POLLS),
            "wait" => wait::let_pass(millis("ms", 0)),
            "expect" => self.expect(step, millis("within_ms", EXPECT_MS))?,
            "expect_none" => {
                wait::let_pass(millis("for_ms", EXPECT_MS));
                let got = self.records()?;
                if got.len() > self.taken {
                    return Err(format!("got {}", Json::from(got[self.taken..].to_vec())));
                }
            }
            "expect_missing" => {
                let (path, _) = path("file")?;
                if !wait::within(millis("within_ms", EXPECT_MS), || !path.exists()) {
                    return Err("the file is still there".to_owned());
                }
            }
            "expect_at_least_once" => self.expect_all(step, millis("within_ms", EXPECT_MS))?,
            _ => return Err("no such step is known".to_owned()),
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), String> {
        let agent = Agent::start(&self.config, &self.dir.join("state"), &self.dir.join("run"));
        self.agent = Some(agent);
        Ok(())
    }

    fn append(&mut self, path: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
        if !self.writers.contains_key(name) {
            let open = OpenOptions::new().create(true).append(true).open(path);
            self.writers
                .insert(name.to_owned(), open.map_err(|e| e.to_string())?);
        }
        let file = self.writers.get_mut(name).ok_or("inserted above")?;
        file.write_all(bytes).map_err(|e| e.to_string())
    }

    /// Exactly the records named have come since the last expectation.
    fn expect(&mut self, step: &Json, bound: Duration) -> Result<(), String> {
        let want = step["records"].as_array().ok_or("no records")?;
        let optional = step["optional"].as_array().cloned().unwrap_or_default();
        let mut last = Err("nothing was looked at".to_owned());
        let mut count = 0;
        wait::within(bound, || {
            last = self.records().and_then(|got| {
                count = got.len();
                differences(&got[self.taken.min(count)..], want, &optional)
            });
            last.is_ok()
        });
        self.taken = count;
        last.map_err(|e| format!("{e}{}", self.log()))
    }

    /// Every record named has come since the last expectation, perhaps more than once.
    fn expect_all(&mut self, step: &Json, bound: Duration) -> Result<(), String> {
        let want = step["records"].as_array().ok_or("no records")?;
        let mut count = 0;
        let all = wait::within(bound, || {
            let got = self.records().unwrap_or_default();
            count = got.len();
            let got = &got[self.taken.min(count)..];
            want.iter().all(|w| got.iter().any(|g| matches(g, w)))
        });
        self.taken = count;
        all.then_some(())
            .ok_or_else(|| format!("not all came{}", self.log()))
    }

    fn log(&self) -> String {
        let complaint = |line: &&str| line.contains("warn") || line.contains("error");
        let log = self.agent.as_ref().map(Agent::log).unwrap_or_default();
        log.lines()
            .filter(complaint)
            .map(|line| format!("\n         log: {line}"))
            .collect()
    }

    /// Everything written by the exporter so far; a line that is not complete yet is left out.
    fn records(&self) -> Result<Vec<Json>, String> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut out = Vec::new();
        for line in whole.lines() {
            let request: Json = serde_json::from_str(line).map_err(|e| e.to_string())?;
            for r in list(&request, "resourceLogs") {
                for s in list(r, "scopeLogs") {
                    out.extend(list(s, "logRecords").map(record));
                }
            }
        }
        Ok(out)
    }
}

fn list<'a>(json: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    json[key].as_array().into_iter().flatten()
}

/// What an append writes.
fn content(step: &Json) -> Vec<u8> {
    if let Some(text) = step["base64"].as_str() {
        return base64_bytes(text);
    }
    if let Some(part) = step["repeat"].as_str() {
        let times = step["times"].as_u64().unwrap_or(1) as usize;
        return (part.repeat(times) + step["suffix"].as_str().unwrap_or_default()).into_bytes();
    }
    step["text"]
        .as_str()
        .unwrap_or_default()
        .as_bytes()
        .to_vec()
}

/// An OTLP/JSON log record in the form of the vectors.
fn record(json: &Json) -> Json {
    let attributes = list(json, "attributes");
    let attributes: serde_json::Map<String, Json> = attributes
        .map(|a| {
            (
                a["key"].as_str().unwrap_or_default().to_owned(),
                any_value(&a["value"]),
            )
        })
        .collect();
    let severity = json["severityNumber"].as_i64().unwrap_or(0);
    json!({
        "body": any_value(&json["body"]),
        "attributes": attributes,
        "severity_number": severity,
    })
}

/// OTLP's AnyValue as plain JSON; bytes as `{"$base64": ...}`.
fn any_value(json: &Json) -> Json {
    let Some((kind, value)) = json.as_object().and_then(|o| o.iter().next()) else {
        return Json::Null;
    };
    match kind.as_str() {
        "intValue" => {
            let number = value.as_str().and_then(|s| s.parse::<i64>().ok());
            number.map_or_else(|| value.clone(), Json::from)
        }
        "bytesValue" => json!({"$base64": value}),
        "arrayValue" => list(value, "values").map(any_value).collect(),
        "kvlistValue" => {
            let pair = |kv: &Json| {
                (
                    kv["key"].as_str().unwrap_or_default().to_owned(),
                    any_value(&kv["value"]),
                )
            };
            Json::Object(list(value, "values").map(pair).collect())
        }
        _ => value.clone(),
    }
}

/// The body a vector expects.
fn body_of(want: &Json) -> Json {
    if let Some(text) = want["body_base64"].as_str() {
        return json!({"$base64": text});
    }
    if let Some(part) = want["body_repeat"].as_str() {
        let times = want["times"].as_u64().unwrap_or(1) as usize;
        return (part.repeat(times) + want["suffix"].as_str().unwrap_or_default()).into();
    }
    want["body"].clone()
}

fn matches(got: &Json, want: &Json) -> bool {
    let contains = |part: &Json| {
        part.as_object()
            .into_iter()
            .flatten()
            .all(|(k, v)| got["attributes"].get(k) == Some(v))
    };
    got["body"] == body_of(want)
        && want
            .get("attributes")
            .is_none_or(|a| *a == got["attributes"])
        && want.get("attributes_contain").is_none_or(contains)
        && want
            .get("severity_number")
            .is_none_or(|s| *s == got["severity_number"])
}

/// Every wanted record once, and beside them only optional bodies.
fn differences(got: &[Json], want: &[Json], optional: &[Json]) -> Result<(), String> {
    let mut left: Vec<&Json> = got.iter().collect();
    let mut missing = Vec::new();
    for w in want {
        match left.iter().position(|g| matches(g, w)) {
            Some(at) => drop(left.remove(at)),
            None => missing.push(w),
        }
    }
    left.retain(|g| !optional.contains(&g["body"]));
    if missing.is_empty() && left.is_empty() {
        return Ok(());
    }
    Err(format!("missing {missing:?}, unexpected {left:?}"))
}
