use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tailwater_pdata::LogsBatch;
use tailwater_pdata::otlp::{Limits, json};
use tailwater_pipeline::ack::AckSink;
use tailwater_pipeline::clock::{Mono, SimClock, SystemClock};
use tailwater_pipeline::{AckToken, Counts, Outcome, Part, Permit, Wake};

use tailwater_telemetry::metrics::{Exposition, SERIES_MAX_DEFAULT};

use super::*;

const LONG: Duration = Duration::from_secs(20);

struct NoWake;
impl Wake for NoWake {
    fn wake(&self) {}
}

/// Reports what became of batches.
struct Told(Mutex<mpsc::Sender<(u64, Outcome)>>);
impl AckSink for Told {
    fn settled(&self, key: u64, outcome: Outcome, _: &Counts) {
        self.0.lock().unwrap().send((key, outcome)).ok();
    }
}

struct Rig {
    node: FileExporter,
    metrics: Arc<ExporterMetrics>,
    front: Box<dyn Exporter>,
    sink: Arc<Told>,
    told: mpsc::Receiver<(u64, Outcome)>,
    clock: Arc<SystemClock>,
}

impl Rig {
    fn new(options: FileOptions) -> Rig {
        let clock = Arc::new(SystemClock::default());
        let registry = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
        let shared: Arc<dyn Clock> = clock.clone();
        let settings = FileSettings::new(options);
        let mut node = settings.node(&"file".into(), Signal::Logs, &shared, &registry);
        let metrics = ExporterMetrics::new(&registry, "file");
        let front = node.front(&ShardHandle {
            index: 0,
            waker: Arc::new(NoWake),
        });
        let (tx, told) = mpsc::channel();
        Rig {
            node,
            metrics,
            front,
            sink: Arc::new(Told(Mutex::new(tx))),
            told,
            clock,
        }
    }

    fn export(&mut self, key: u64, lines: &[&str]) {
        let mut batch = Batch::default();
        for line in lines {
            let logs = LogsBatch::from_lines(
                Bytes::copy_from_slice(line.as_bytes()),
                &[(0, line.len() as u32)],
            );
            let ack = AckToken::new(self.sink.clone(), key);
            batch.parts.push(Part {
                data: logs.into(),
                ack,
                permit: Permit::none(),
            });
        }
        self.front.export(batch, Mono(0));
    }

    fn told(&self) -> (u64, Outcome) {
        self.told.recv_timeout(LONG).expect("the batch is settled")
    }

    fn stop(&mut self) -> u64 {
        self.node.stop(self.clock.now().after(LONG))
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|l| serde_json::from_str(l).expect("one object per line"))
        .collect()
}

fn bodies(request: &serde_json::Value) -> Vec<String> {
    let resources = request["resourceLogs"].as_array().unwrap();
    let records = resources
        .iter()
        .map(|r| &r["scopeLogs"][0]["logRecords"][0]);
    records
        .map(|r| r["body"]["stringValue"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_batch_is_one_line_and_is_acknowledged_when_it_is_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/out.json");
    let mut rig = Rig::new(FileOptions {
        create_directory: true,
        ..FileOptions::new(path.clone())
    });
    rig.node.start().unwrap();
    rig.export(1, &["one", "two \u{e4}\n\"quoted\""]);
    assert_eq!(
        (rig.told(), rig.told()),
        ((1, Outcome::Delivered), (1, Outcome::Delivered))
    );
    assert_eq!(bodies(&lines(&path)[0]), ["one", "two \u{e4}\n\"quoted\""]);
    rig.export(2, &["three"]);
    assert_eq!(rig.stop(), 0);
    assert_eq!(rig.told(), (2, Outcome::Delivered));
    assert_eq!(lines(&path).len(), 2);
    assert_eq!(rig.metrics.sent_log_records.get(), 3);
    assert_eq!(
        rig.metrics.sent_bytes.get(),
        fs::metadata(&path).unwrap().len()
    );
    rig.export(3, &["late"]);
    assert_eq!(
        rig.told(),
        (3, Outcome::Retry),
        "after the stop, sources keep their data"
    );
}

/// What is in a file of requests, each behind its length.
fn requests(path: &Path) -> Vec<Vec<u8>> {
    let mut rest = &fs::read(path).unwrap()[..];
    let mut requests = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (request, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
        requests.push(request.to_vec());
        rest = behind;
    }
    assert!(rest.is_empty());
    requests
}

#[test]
fn every_form_holds_the_requests_as_they_came() {
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"},{"name":"b"}]}]}]}"#;
    let proto = json::to_proto(Signal::Traces, json.as_bytes(), &Limits::default()).unwrap();
    for (form, compressed) in [
        (Form::Json, false),
        (Form::Json, true),
        (Form::Proto, false),
        (Form::Proto, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut rig = Rig::new(FileOptions {
            form,
            compressed,
            ..FileOptions::new(path.clone())
        });
        rig.node.start().unwrap();
        let encoded = Encoded::parse(Signal::Traces, proto.clone(), &Limits::default()).unwrap();
        let mut front = FileFront {
            shared: rig.node.shared.clone(),
            signal: Signal::Traces,
            items: rig.node.items.clone(),
        };
        for key in 0..2 {
            front.export(
                Batch::of(Part {
                    data: encoded.clone().into(),
                    ack: AckToken::new(rig.sink.clone(), key),
                    permit: Permit::none(),
                }),
                Mono(0),
            );
            assert_eq!(rig.told(), (key, Outcome::Delivered));
        }
        rig.stop();
        if (form, compressed) == (Form::Json, false) {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text, format!("{json}\n{json}\n"));
            continue;
        }
        let mut got = requests(&path);
        if compressed {
            for request in &mut got {
                *request = zstd::bulk::decompress(request, 1 << 20).unwrap();
            }
        }
        let want = match form {
            Form::Json => json.as_bytes(),
            Form::Proto => &proto[..],
        };
        assert_eq!(got, [want, want], "{form:?} {compressed}");
    }
}

#[test]
fn signals_share_one_file_until_the_last_one_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.json");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let registry = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
    let settings = FileSettings::new(FileOptions::new(path.clone()));
    let name: Arc<str> = "file".into();
    let signals = [Signal::Logs, Signal::Metrics, Signal::Traces];
    let mut nodes = signals.map(|signal| settings.node(&name, signal, &clock, &registry));
    let shard = ShardHandle {
        index: 0,
        waker: Arc::new(NoWake),
    };
    nodes.iter_mut().for_each(|n| n.start().unwrap());
    let mut fronts: Vec<_> = nodes.iter_mut().map(|n| n.front(&shard)).collect();
    let (tx, told) = mpsc::channel();
    let sink = Arc::new(Told(Mutex::new(tx)));
    let texts = [
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityText":"x"}]}]}]}"#,
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"g","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"s"}]}]}]}"#,
    ];
    let mut send = |i: usize| {
        let (signal, limits) = (signals[i], Limits::default());
        let body = json::to_proto(signal, texts[i].as_bytes(), &limits).unwrap();
        let part = Part {
            data: Encoded::parse(signal, body, &limits).unwrap().into(),
            ack: AckToken::new(sink.clone(), i as u64),
            permit: Permit::none(),
        };
        fronts[i].export(Batch::of(part), Mono(0));
        told.recv_timeout(LONG).expect("settled").1
    };
    let last = clock.now().after(LONG);
    for i in 0..3 {
        assert_eq!(send(i), Outcome::Delivered);
    }
    assert_eq!(nodes[0].stop(last), 0);
    assert_eq!(send(2), Outcome::Delivered, "the others go on");
    assert_eq!((nodes[1].stop(last), nodes[2].stop(last)), (0, 0));
    assert_eq!(send(1), Outcome::Retry);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [texts[0], texts[1], texts[2], texts[2]]
    );
    assert_eq!(
        ItemMetrics::new(&registry, "file", Signal::Traces)
            .sent()
            .get(),
        2
    );
}

#[test]
fn an_existing_file_is_emptied_unless_append_or_rotation_is_set() {
    for (append, rotation, kept) in [
        (false, None, 0),
        (true, None, 1),
        (false, Some(RotationOptions::default()), 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.json");
        fs::write(&path, "{\"old\":1}\n").unwrap();
        let mut rig = Rig::new(FileOptions {
            append,
            rotation,
            ..FileOptions::new(path.clone())
        });
        rig.node.start().unwrap();
        rig.export(1, &["new"]);
        rig.stop();
        assert_eq!(lines(&path).len(), kept + 1);
    }
}

#[test]
fn a_full_disk_holds_batches_and_a_stop_hands_them_back() {
    let mut rig = Rig::new(FileOptions {
        queue_bytes_max: 1,
        append: true,
        ..FileOptions::new("/dev/full")
    });
    rig.node.start().unwrap();
    rig.export(1, &["x"]);
    assert_eq!(rig.front.admission(), Admission::Closed);
    rig.export(2, &["y", "z"]);
    assert_eq!(rig.stop(), 3);
    for _ in 0..3 {
        assert_eq!(rig.told().1, Outcome::Retry);
    }
    assert!(rig.metrics.retries.get() >= 1);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_of_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("absent/out.json");
    let mut rig = Rig::new(FileOptions::new(path));
    let error = rig.node.start().unwrap_err().to_string();
    assert!(
        error.contains("exporter \"file\"") && error.contains("absent/out.json"),
        "{error}"
    );
    rig.export(1, &["x"]);
    assert_eq!(rig.stop(), 1);
    assert_eq!(rig.told().1, Outcome::Retry);
}

/// Names of backups in `dir`, sorted.
fn backups(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|n| n != "out.json").collect();
    names.sort();
    names
}

#[test]
fn a_full_file_becomes_a_backup_and_old_backups_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.json");
    fs::write(dir.path().join("other-2000-01-01T00-00-00.000.json"), "").unwrap();
    fs::write(dir.path().join("out-2000-01-01T00-00-00.000.json"), "").unwrap();
    let rotation = RotationOptions {
        max_bytes: 10,
        max_backups: 2,
        max_days: 9,
        localtime: false,
    };
    let options = FileOptions {
        rotation: Some(rotation),
        ..FileOptions::new(path.clone())
    };
    let clock = SimClock::new(1_600_000_000_123_000_000);
    let mut file = LogFile::open(options).unwrap();
    let mut write = |line: &[u8]| file.write(line, clock.wall_ns()).unwrap();
    write(b"1234567890\n");
    assert_eq!(
        fs::read(&path).unwrap(),
        b"1234567890\n",
        "a line is never cut"
    );
    write(b"2\n");
    write(b"3\n");
    assert_eq!(fs::read(&path).unwrap(), b"2\n3\n");
    let first = "out-2020-09-13T12-26-40.123.json";
    assert_eq!(
        backups(dir.path()),
        ["other-2000-01-01T00-00-00.000.json", first]
    );
    for line in [b"45678901\n", b"56789012\n"] {
        write(line);
    }
    // The clock stood still: names that are taken are not overwritten, and two backups are kept.
    assert_eq!(
        backups(dir.path())[1..],
        [
            "out-2020-09-13T12-26-40.124.json",
            "out-2020-09-13T12-26-40.125.json"
        ]
    );
    assert_eq!(
        fs::read(dir.path().join(&backups(dir.path())[2])).unwrap(),
        b"45678901\n"
    );
}

#[test]
fn a_line_that_was_begun_is_completed_or_taken_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.json");
    let mut file = LogFile::open(FileOptions::new(path.clone())).unwrap();
    file.write(b"whole\n", 0).unwrap();
    file.begin_for_test(b"begun");
    file.give_up_line();
    assert_eq!(fs::read(&path).unwrap(), b"whole\n");
    file.begin_for_test(b"beg");
    file.write(b"begun\n", 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole\nbegun\n");
}
