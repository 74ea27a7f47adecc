//! Scenario: settings of a receiver that runs change, or exporters come and go. Guarantee: whatever is
//! under way, held back or open, nothing is lost, repeated or cut, and no position passes what was not
//! delivered.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::Signal;
use tailwater_pipeline::checkpoint::{CheckpointHandle, WriterCore, WriterOptions};
use tailwater_pipeline::clock::{Clock, Mono, SimClock};
use tailwater_pipeline::factory::{NodeCx, ReceiverSettings, Succession};
use tailwater_pipeline::lanes::{LANE_LABEL, Lane};
use tailwater_pipeline::{
    Admission, Batch, Budget, DropReason, LogsPart, Outcome, Output, Progress, ReceiverNode,
    ShardHandle, Source, SourceCx,
};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::{Accounting, MetricsRegistry};

use super::joint_tests::{Looking, Nobody, OneStore, open_store};
use super::lanes::namespace;
use super::logfs::OsLogFs;
use super::saver::Saver;
use super::{Driver, FilelogNode, FilelogSettings};

const ID: &str = "file_log";

/// A destination: what it got and did not answer.
struct End {
    now: Mono,
    admission: Admission,
    parts: Vec<LogsPart>,
}

impl Output for End {
    fn emit(&mut self, batch: Batch) {
        self.parts.extend(batch.into_logs());
    }

    fn now(&self) -> Mono {
        self.now
    }
}

impl SourceCx for End {
    fn admission(&self) -> Admission {
        self.admission
    }
}

/// A lane, driven by hand.
struct Reading {
    lane: Lane,
    node: FilelogNode,
    /// None until it begins.
    driver: Option<Driver>,
    source: Box<dyn Source>,
    account: Arc<Accounting>,
    end: End,
}

/// A receiver of one shard, and what it reads.
struct Rig {
    dir: tempfile::TempDir,
    store: CheckpointHandle,
    clock: Arc<SimClock>,
    core: WriterCore,
    cx: NodeCx,
    lanes: Vec<Reading>,
    leaving: Vec<Reading>,
    _runtime: tokio::runtime::Runtime,
}

fn settings(yaml: &str) -> FilelogSettings {
    let mut errors = Errors::new();
    let node = parse(yaml, "test").unwrap();
    let settings = FilelogSettings::decode(&node, &KeyPath::default(), &mut errors);
    settings.unwrap_or_else(|| panic!("{errors}"))
}

impl Rig {
    /// Not configured yet.
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        // Files have times of the system's clock.
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let clock = Arc::new(SimClock::new(wall.unwrap().as_nanos() as i64));
        let options = WriterOptions {
            interval: Duration::from_millis(250),
            ..WriterOptions::default()
        };
        let (core, store) = WriterCore::new(open_store(), options);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        let cx = NodeCx {
            id: ID.into(),
            pipeline: None,
            signal: None,
            shards: 1,
            clock: clock.clone(),
            seed: 1,
            budget: Budget::new(64 << 20),
            metrics: Arc::new(MetricsRegistry::default()),
            health: Arc::new(HealthRegistry::new()),
            runtime: runtime.handle().clone(),
            listeners: Default::default(),
            connections: Default::default(),
            storages: Arc::new(OneStore(store.clone())),
            authenticators: Default::default(),
            agent: None,
        };
        Rig {
            dir,
            store,
            clock,
            core,
            cx,
            lanes: Vec::new(),
            leaving: Vec::new(),
            _runtime: runtime,
        }
    }

    /// A receiver of one exporter with these lines of settings; `DIR` is where its files are.
    fn with(yaml: &str) -> Rig {
        let mut rig = Rig::new();
        rig.configure(yaml, &["a"]);
        rig
    }

    /// Another configuration, as the graph puts it into force.
    fn configure(&mut self, yaml: &str, exporters: &[&str]) {
        let yaml = yaml.replace("DIR", &self.dir.path().display().to_string());
        let lane =
            |exporter: &&str| match self.lanes.iter().find(|r| *r.lane.exporter == **exporter) {
                Some(running) => running.lane.clone(),
                None => Lane {
                    exporter: (*exporter).into(),
                    metrics: match exporters.len() {
                        1 => self.cx.metrics.clone(),
                        _ => Arc::new(self.cx.metrics.scoped(LANE_LABEL, exporter)),
                    },
                    budget: Budget::new(64 << 20),
                    alone: exporters.len() == 1,
                    signals: vec![Signal::Logs],
                },
            };
        let lanes: Vec<Lane> = exporters.iter().map(lane).collect();
        let nodes = settings(&yaml).nodes(&self.cx, &lanes, &|_| Arc::new(OsLogFs));
        let goes = |r: &mut Reading| !exporters.contains(&&*r.lane.exporter);
        self.leaving.extend(self.lanes.extract_if(.., goes));
        for (lane, mut node) in lanes.into_iter().zip(nodes.unwrap()) {
            let mut running = self.lanes.iter_mut();
            if let Some(r) = running.find(|r| r.lane.exporter == lane.exporter) {
                let update = r.node.update(node);
                if let Some(driver) = &mut r.driver {
                    driver.take_over(update);
                }
                continue;
            }
            let source = node.source(&ShardHandle {
                index: 0,
                waker: Arc::new(Nobody),
            });
            self.lanes.push(Reading {
                account: Accounting::new(&lane.metrics, "receiver", ID, DropReason::NAMES),
                lane,
                node,
                driver: None,
                source,
                end: End {
                    now: self.clock.now(),
                    admission: Admission::Open,
                    parts: Vec::new(),
                },
            });
        }
    }

    fn lane(&mut self, exporter: &str) -> &mut Reading {
        let mut lanes = self.lanes.iter_mut().chain(&mut self.leaving);
        lanes.find(|r| *r.lane.exporter == *exporter).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Appends to a file.
    fn write(&self, name: &str, text: &str) {
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).append(true).open(self.path(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn pass_ms(&mut self, ms: u64) {
        const STEP_MS: u64 = 50;
        for _ in 0..ms / STEP_MS {
            self.clock.advance(Duration::from_millis(STEP_MS));
            let now = self.clock.now();
            self.leaving.retain_mut(|r| !r.source.drain(&mut r.end));
            let free = self.leaving.is_empty();
            for r in &mut self.lanes {
                if r.driver.is_none() && free {
                    r.node.arrange().unwrap();
                    r.driver = Some(r.node.driver(Box::new(Looking)));
                }
                if let Some(driver) = &mut r.driver {
                    driver.turn(now);
                }
                r.end.now = now;
                let mut polls = 0;
                while r.source.poll(&mut r.end) == Progress::Busy {
                    polls += 1;
                    assert!(polls < 1000, "busy for ever");
                }
                r.account.snapshot().check().unwrap();
            }
            self.core.step(now);
        }
    }

    /// What the destination got since it was last asked, with the attribute `v` where there is one,
    /// and the parts to be settled.
    fn take_of(&mut self, exporter: &str) -> (Vec<String>, Vec<LogsPart>) {
        let parts = std::mem::take(&mut self.lane(exporter).end.parts);
        let mut texts = Vec::new();
        for LogsPart { logs, .. } in &parts {
            texts.extend((0..logs.rows()).map(|row| {
                let text = logs.body(row).unwrap().to_display_string();
                match logs.attributes_of(row).get("v") {
                    Some(v) => format!("{text} v={}", v.as_ref().to_display_string()),
                    None => text,
                }
            }));
        }
        (texts, parts)
    }

    /// As [`Rig::take_of`] the first destination, which accepts it.
    fn take(&mut self) -> Vec<String> {
        let exporter = self.lanes[0].lane.exporter.clone();
        let (texts, parts) = self.take_of(&exporter);
        settle(parts, Outcome::Delivered);
        texts
    }

    /// The offsets that are stored in a namespace.
    fn stored(&self, namespace: &str) -> Vec<u64> {
        let all = Saver::load(&self.store, namespace);
        let mut offsets: Vec<u64> = all.iter().map(|p| p.offset).collect();
        offsets.sort_unstable();
        offsets
    }
}

fn settle(parts: Vec<LogsPart>, outcome: Outcome) {
    for part in parts {
        part.ack.resolve(outcome);
    }
}

const PLAIN: &str = "include: [DIR/*.log]\nstart_at: beginning\n";
const CRI: &str = "include: [DIR/*.log]\nstart_at: beginning\n\
    operators: [{type: container, add_metadata_from_filepath: false}]\n";
/// The same, and something more.
const CRI_V2: &str = "include: [DIR/*.log]\nstart_at: beginning\nattributes: {v: two}\n\
    operators: [{type: container, add_metadata_from_filepath: false}]\n";
const PLAIN_V2: &str = "include: [DIR/*.log]\nstart_at: beginning\nattributes: {v: two}\n";
const BEGUN: &str = "T1 stdout F whole\n2024-01-01T00:00:02Z stdout P half- \n";

fn begun() -> String {
    BEGUN.replace("T1", "2024-01-01T00:00:01Z")
}

/// A container log in the middle of a line, with new settings.
fn in_the_middle_of_a_line(next: &str) -> Rig {
    let mut rig = Rig::with(CRI);
    rig.write("0.log", &begun());
    rig.pass_ms(500);
    assert_eq!(rig.take(), ["whole"]);
    rig.pass_ms(300);
    assert_eq!(rig.stored(ID), [36]);
    rig.configure(next, &["a"]);
    rig.pass_ms(300);
    assert_eq!(rig.take(), [""; 0]);
    assert_eq!(rig.stored(ID), [36], "the part is not delivered");
    rig
}

/// Guarantee: a line of which a part is held when the operators change is passed on whole, once, as the
/// operators before would have done; what comes after it goes by the new ones.
#[test]
fn a_line_that_is_held_while_operators_change_is_whole() {
    let (line, later) = (
        "2024-01-01T00:00:03Z stdout F line\n",
        "2024-01-01T00:00:04Z stdout F later\n",
    );
    for (next, want) in [
        (CRI_V2, "later v=two".to_owned()),
        (PLAIN_V2, format!("{} v=two", later.trim_end())),
    ] {
        let mut rig = in_the_middle_of_a_line(next);
        rig.write("0.log", line);
        rig.pass_ms(500);
        let (texts, parts) = rig.take_of("a");
        assert_eq!(texts, ["half- line"]);
        assert_eq!(rig.stored(ID), [36], "not before it is delivered");
        rig.write("0.log", later);
        rig.pass_ms(500);
        settle(parts, Outcome::Delivered);
        assert_eq!(rig.take(), [want]);
        rig.pass_ms(500);
        let size = fs::metadata(rig.path("0.log")).unwrap().len();
        assert_eq!(rig.stored(ID), [size]);
    }
}

/// Guarantee: the same where rotation comes between, or nothing comes at all, or settings change again.
#[test]
fn a_held_line_survives_rotation_time_and_further_changes() {
    let mut rig = in_the_middle_of_a_line(PLAIN_V2);
    rig.configure(CRI_V2, &["a"]);
    fs::rename(rig.path("0.log"), rig.path("0.log.20240101-000005")).unwrap();
    rig.write("0.log", "2024-01-01T00:00:03Z stdout F line\n");
    rig.pass_ms(1_500);
    assert_eq!(rig.take(), ["half- line"]);
    rig.write("0.log", "2024-01-01T00:00:04Z stdout F later\n");
    rig.pass_ms(500);
    assert_eq!(rig.take(), ["later v=two"]);

    let mut rig = in_the_middle_of_a_line(PLAIN_V2);
    rig.pass_ms(6_000);
    assert_eq!(rig.take(), ["half- "]);
    rig.write("0.log", "plain\n");
    rig.pass_ms(500);
    assert_eq!(rig.take(), ["plain v=two"]);
}

/// Guarantee: what is handed back after a change is read again by the new settings, whole.
#[test]
fn what_is_handed_back_is_read_by_the_new_settings() {
    let mut rig = Rig::with(CRI);
    rig.write("0.log", &begun());
    rig.pass_ms(500);
    let (texts, parts) = rig.take_of("a");
    assert_eq!(texts, ["whole"]);
    rig.configure(CRI_V2, &["a"]);
    rig.pass_ms(300);
    settle(parts, Outcome::Retry);
    rig.write("0.log", "2024-01-01T00:00:03Z stdout F line\n");
    rig.pass_ms(1_000);
    assert_eq!(rig.take(), ["whole v=two", "half- line v=two"]);
}

/// Guarantee: a record that is not complete when the rules of framing change is cut by the new ones,
/// from where it begins.
#[test]
fn an_unfinished_record_is_cut_by_the_new_rules() {
    let multiline = |start: &str| format!("{PLAIN}multiline: {{line_start_pattern: '^{start}'}}\n");
    let mut rig = Rig::with(&multiline("A"));
    rig.write("0.log", "A one\n two\nA three\nB four\n");
    rig.pass_ms(200);
    assert_eq!(rig.take(), ["A one\n two"]);
    rig.configure(&multiline("B"), &["a"]);
    rig.write("0.log", "A five\nB six\n");
    rig.pass_ms(1_500);
    assert_eq!(rig.take(), ["A three", "B four\nA five", "B six"]);
}

/// Guarantee: files that are not selected any more are read as far as they go and let go, with their
/// positions; new ones are read from their beginning, and so on when they are selected again.
#[test]
fn files_come_and_go_with_the_patterns() {
    let only = |name: &str| format!("include: [DIR/{name}.log]\nstart_at: end\n");
    let mut rig = Rig::new();
    rig.write("a.log", "a1\n");
    rig.configure(&only("a").replace("end", "beginning"), &["a"]);
    rig.pass_ms(500);
    let (texts, parts) = rig.take_of("a");
    assert_eq!(texts, ["a1"]);
    rig.write("a.log", "a2\na3");
    rig.write("b.log", "b1\n");
    rig.configure(&only("b"), &["a"]);
    rig.pass_ms(2_000);
    let (texts, more) = rig.take_of("a");
    assert_eq!(texts, ["a2", "b1", "a3"], "a3 is flushed");
    assert_eq!(rig.lane("a").driver.as_ref().unwrap().files(), 2);
    rig.write("a.log", "\na4\n");
    rig.pass_ms(1_000);
    settle(parts, Outcome::Delivered);
    settle(more, Outcome::Delivered);
    rig.pass_ms(3_000);
    assert_eq!(rig.lane("a").driver.as_ref().unwrap().files(), 1);
    assert_eq!(rig.take(), [""; 0]);
    assert_eq!(rig.stored(ID), [3, 8]);
    rig.configure(&only("?"), &["a"]);
    rig.pass_ms(1_000);
    assert_eq!(rig.take(), ["a4"]);
}

/// Guarantee: a file that is written to without end is let go all the same.
#[test]
fn a_file_that_is_not_selected_any_more_is_let_go_although_it_grows() {
    let mut rig = Rig::with(PLAIN);
    rig.write("a.log", "a1\n");
    rig.pass_ms(500);
    assert_eq!(rig.take(), ["a1"]);
    rig.configure(&PLAIN.replace("*", "b"), &["a"]);
    let mut read = 0;
    for _ in 0..40 {
        rig.write("a.log", "more\n");
        rig.pass_ms(50);
        read += rig.take().len();
    }
    assert!(read <= 2, "{read} lines were written before it was known");
    assert_eq!(rig.lane("a").driver.as_ref().unwrap().files(), 0);
}

/// Guarantee: what nobody has read of a deleted file is read, though settings change while the
/// destination takes nothing, whether the patterns still select it or not.
#[test]
fn a_deleted_file_survives_a_change() {
    let small = format!("{PLAIN}initial_buffer_size: 4096\n");
    for next in [PLAIN_V2.to_owned(), PLAIN.replace("*", "none")] {
        let mut rig = Rig::with(&small);
        rig.write("a.log", "a0\n");
        rig.pass_ms(500);
        assert_eq!(rig.take(), ["a0"]);
        rig.lane("a").end.admission = Admission::Closed;
        let line = |n: u64| format!("a{n:07}");
        let text: String = (0..2_000).map(|n| line(n) + "\n").collect();
        rig.write("a.log", &text);
        rig.pass_ms(500);
        fs::remove_file(rig.path("a.log")).unwrap();
        rig.pass_ms(500);
        rig.configure(&next, &["a"]);
        rig.pass_ms(60_000);
        rig.lane("a").end.admission = Admission::Open;
        rig.pass_ms(2_000);
        let texts = rig.take();
        let read = texts.iter().map(|t| t.trim_end_matches(" v=two"));
        assert!(read.eq((0..2_000).map(line)), "{}", texts.len());
        rig.pass_ms(30_000);
        assert_eq!(rig.lane("a").driver.as_ref().unwrap().files(), 0);
    }
}

/// Guarantee: a header that is asked for later is not looked for in the middle of files.
#[test]
fn a_header_is_looked_for_in_new_files_only() {
    let mut rig = Rig::with(PLAIN);
    rig.write("a.log", "one\n");
    rig.pass_ms(500);
    let header = "header: {pattern: '^#', metadata_operators: \
        [{type: regex_parser, regex: '^#(?P<v>.*)'}]}\n";
    rig.configure(&format!("{PLAIN}{header}"), &["a"]);
    rig.write("a.log", "#two\n");
    rig.pass_ms(500);
    rig.write("b.log", "#b\nthree\n");
    rig.pass_ms(1_000);
    assert_eq!(rig.take(), ["one", "#two", "three v=b"]);
}

/// Guarantee: lanes that stay go on as they are while others come and go, also where their destination
/// takes nothing; new ones begin where the rules of a start say; a restart finds all positions.
#[test]
fn lanes_come_and_go_while_a_destination_is_down() {
    let mut rig = Rig::with(PLAIN);
    rig.write("a.log", "one\n");
    rig.pass_ms(500);
    assert_eq!(rig.take(), ["one"]);
    rig.write("a.log", "two\n");
    rig.pass_ms(500);
    let (texts, of_a) = rig.take_of("a");
    assert_eq!(texts, ["two"], "never answered");
    rig.configure(PLAIN, &["a", "b"]);
    rig.pass_ms(500);
    let (texts, of_b) = rig.take_of("b");
    assert_eq!(texts, ["two"], "begins where the other is");
    settle(of_b, Outcome::Delivered);
    rig.pass_ms(300);
    assert_eq!(rig.stored(ID), [4]);
    assert_eq!(rig.stored(&namespace(ID, "b")), [8]);

    // In the place of one that goes: where that was, when nothing of it is under way any more.
    rig.write("a.log", "three\n");
    rig.pass_ms(500);
    let (texts, of_b) = rig.take_of("b");
    assert_eq!(texts, ["three"]);
    rig.configure(PLAIN, &["a", "c"]);
    rig.pass_ms(500);
    assert_eq!(rig.take_of("c").0, [""; 0], "it waits");
    settle(of_b, Outcome::Delivered);
    rig.write("a.log", "four\n");
    rig.pass_ms(500);
    let (texts, of_c) = rig.take_of("c");
    assert_eq!(texts, ["four"]);
    settle(of_c, Outcome::Delivered);
    // Back again: where it was when it went.
    rig.configure(PLAIN, &["a", "b", "c"]);
    rig.pass_ms(500);
    let (texts, of_b) = rig.take_of("b");
    assert_eq!(texts, ["four"]);
    settle(of_b, Outcome::Delivered);
    rig.configure(PLAIN, &["a", "c"]);
    rig.pass_ms(500);
    let (texts, more_of_a) = rig.take_of("a");
    assert_eq!(texts, ["three", "four"], "it read on all the time");
    settle(of_a, Outcome::Delivered);
    settle(more_of_a, Outcome::Delivered);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [19]);
    let account = rig.lane("a").account.snapshot();
    assert_eq!((account.delivered.records, account.is_settled()), (4, true));

    // A restart, and one that leaves the receiver with another lane.
    for exporters in [&["a", "c"][..], &["b"]] {
        rig.lanes.clear();
        rig.write("a.log", "more\n");
        rig.configure(PLAIN, exporters);
        rig.pass_ms(500);
        for exporter in exporters {
            let (texts, parts) = rig.take_of(exporter);
            let want: &[&str] = match *exporter {
                "b" => &["more", "more"],
                _ => &["more"],
            };
            assert_eq!(texts, want, "{exporter}");
            settle(parts, Outcome::Delivered);
        }
        rig.pass_ms(500);
    }
}

/// Guarantee: all but the store of positions can change while the receiver runs.
#[test]
fn only_the_store_of_positions_asks_for_a_restart() {
    let running = settings(PLAIN);
    let next = settings(
        "include: [DIR/b]\nencoding: utf-16le\nfingerprint_size: 500\ncompression: gzip\nwatch: poll\n\
         delete_after_read: true\nstart_at: beginning\npoll_interval: 1s\n",
    );
    assert_eq!(next.succession(&running), Succession::InPlace);
    let next = settings(&format!("{PLAIN}storage: file_storage\n"));
    assert!(
        matches!(next.succession(&running), Succession::Restart(why) if why.starts_with("storage"))
    );
}

/// Guarantee: with its own threads, too, a receiver goes on with other settings, any number of times, and
/// stops.
#[test]
fn the_thread_that_finds_files_goes_on_with_other_settings() {
    let mut rig = Rig::new();
    let cx = NodeCx {
        clock: Arc::new(tailwater_pipeline::clock::SystemClock::default()),
        ..rig.cx.clone()
    };
    let node = |name: &str, watch: &str| {
        let dir = rig.dir.path().display();
        let yaml = format!("include: [{dir}/{name}]\nstart_at: beginning\nwatch: {watch}\n");
        settings(&yaml).node(&cx, Arc::new(OsLogFs)).unwrap()
    };
    let mut running = node("a", "auto");
    let mut source = running.source(&ShardHandle {
        index: 0,
        waker: Arc::new(Nobody),
    });
    // It did not begin yet.
    running.take_over(Box::new(node("b", "auto")));
    running.start().unwrap();
    let mut end = End {
        now: cx.clock.now(),
        admission: Admission::Open,
        parts: Vec::new(),
    };
    for (name, watch) in [("b", "auto"), ("c", "poll"), ("d", "auto"), ("e", "auto")] {
        // The second one takes the place of the first before that is at work.
        running.take_over(Box::new(node("none", watch)));
        running.take_over(Box::new(node(name, watch)));
        rig.write(name, "line\n");
        let begin = std::time::Instant::now();
        while end.parts.is_empty() {
            end.now = cx.clock.now();
            source.poll(&mut end);
            rig.core.step(end.now);
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{name} is not found"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        settle(std::mem::take(&mut end.parts), Outcome::Delivered);
    }
    running.stop();
}

#[path = "recombine_tests.rs"]
mod recombine_tests;

/// Guarantee: each file that is named has its own resource over that of all, one that comes changes nothing of the
/// others, and one that is not named any more is read to its end as what it was.
#[test]
fn files_have_resources_of_their_own() {
    fn yaml(files: &[(&str, &str)]) -> String {
        let one = |(name, app): &(&str, &str)| {
            format!("{{path: 'DIR/{name}', resource: {{app: {app}, own: 'x'}}}}")
        };
        let files: Vec<_> = files.iter().map(one).collect();
        let files = files.join(", ");
        format!("start_at: beginning\nresource: {{app: all, host: h}}\nfiles: [{files}]\n")
    }
    fn take(rig: &mut Rig) -> Vec<String> {
        let (_, parts) = rig.take_of("a");
        let mut texts = Vec::new();
        for LogsPart { logs, .. } in &parts {
            let of = |key: &str| {
                let value = logs.resource.get(key);
                value
                    .map(|v| v.as_ref().to_display_string())
                    .unwrap_or_default()
            };
            let resource = format!("{}/{}/{}", of("app"), of("host"), of("own"));
            let text = |row| logs.body(row).unwrap().to_display_string();
            texts.extend((0..logs.rows()).map(|row| format!("{} {resource}", text(row))));
        }
        texts.sort();
        settle(parts, Outcome::Delivered);
        texts
    }
    let mut rig = Rig::with(&yaml(&[]));
    rig.write("0.log", "0\n");
    rig.write("1.log", "1\n");
    rig.pass_ms(500);
    assert_eq!(take(&mut rig), [""; 0]);
    rig.configure(&yaml(&[("0.log", "zero")]), &["a"]);
    rig.pass_ms(500);
    assert_eq!(take(&mut rig), ["0 zero/h/x"]);
    rig.configure(&yaml(&[("0.log", "zero"), ("1.log", "one")]), &["a"]);
    rig.write("0.log", "00\n");
    rig.pass_ms(500);
    assert_eq!(take(&mut rig), ["00 zero/h/x", "1 one/h/x"]);
    // Rotated, it is the same log.
    fs::rename(rig.path("0.log"), rig.path("0.log.1")).unwrap();
    rig.write("0.log.1", "late\n");
    rig.write("0.log", "new\n");
    rig.pass_ms(1_500);
    assert_eq!(take(&mut rig), ["late zero/h/x", "new zero/h/x"]);
    rig.write("0.log", "last\n");
    rig.configure(&yaml(&[("1.log", "other")]), &["a"]);
    rig.write("1.log", "11\n");
    rig.pass_ms(500);
    assert_eq!(take(&mut rig), ["11 other/h/x", "last zero/h/x"]);
}
