//! Scenario: a line of a container is split over two files, and the batch that holds it is handed
//! back, or one of the files is given up meanwhile. Guarantee: the line is read again as a whole, the
//! positions of both files pass it together and not before it is delivered, and the account adds up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pipeline::checkpoint::{
    CheckpointHandle, CheckpointStore, StoreOptions, WriterCore, WriterOptions,
};
use tailwater_pipeline::clock::{Clock, Mono, SimClock};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::fs::SimFs;
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{
    Admission, Batch, Budget, BuildError, DropReason, LogsPart, Outcome, Output, Progress,
    ReceiverNode, ShardHandle, Source, SourceCx, Wake,
};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::{Accounting, MetricsRegistry};

use super::logfs::OsLogFs;
use super::position::Position;
use super::saver::Saver;
use super::watch::{News, WatchEvent};
use super::{Driver, FilelogSettings};

const ID: &str = "file_log";

pub(super) struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// No news: the directories are looked at.
pub(super) struct Looking;

impl News for Looking {
    fn follow(&mut self, _dirs: &BTreeSet<PathBuf>) {}

    fn is_polling(&self) -> bool {
        true
    }

    fn why_polling(&self) -> &str {
        "a test"
    }

    fn wait(&mut self, _timeout: Duration) -> std::io::Result<Vec<WatchEvent>> {
        Ok(Vec::new())
    }
}

pub(super) struct OneStore(pub CheckpointHandle);

impl Storages for OneStore {
    fn open(&self, _id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Ok(self.0.clone())
    }
}

/// What a source emitted and nobody settled yet.
struct Caught {
    now: Mono,
    parts: Vec<LogsPart>,
}

impl Output for Caught {
    fn emit(&mut self, batch: Batch) {
        self.parts.extend(batch.into_logs());
    }

    fn now(&self) -> Mono {
        self.now
    }
}

impl SourceCx for Caught {
    fn admission(&self) -> Admission {
        Admission::Open
    }
}

/// A receiver of one shard, driven by hand, and what it reads.
struct Rig {
    dir: tempfile::TempDir,
    store: CheckpointHandle,
    clock: Arc<SimClock>,
    core: WriterCore,
    driver: Driver,
    source: Box<dyn Source>,
    account: Arc<Accounting>,
    caught: Caught,
    _runtime: tokio::runtime::Runtime,
}

pub(super) fn open_store() -> CheckpointStore {
    let (fs, dir) = (Arc::new(SimFs::new(0)), Path::new("/state"));
    let opened = CheckpointStore::open(fs, dir, StoreOptions::default());
    opened.unwrap().0
}

fn settings(dir: &Path) -> FilelogSettings {
    let yaml = format!(
        "include: [{}/0.log]\n\
         start_at: beginning\n\
         compression: auto\n\
         deleted_files: {{hold_age_max: 5s}}\n\
         operators: [{{type: container, add_metadata_from_filepath: false}}]\n",
        dir.display()
    );
    let mut errors = Errors::new();
    let node = parse(&yaml, "test").unwrap();
    let settings = FilelogSettings::decode(&node, &KeyPath::default(), &mut errors);
    settings.unwrap_or_else(|| panic!("{errors}"))
}

impl Rig {
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
        let mut node = settings(dir.path()).node(&cx, Arc::new(OsLogFs)).unwrap();
        let source = node.source(&ShardHandle {
            index: 0,
            waker: Arc::new(Nobody),
        });
        Rig {
            driver: node.driver(Box::new(Looking)),
            account: Accounting::new(&cx.metrics, "receiver", ID, DropReason::NAMES),
            caught: Caught {
                now: Mono(0),
                parts: Vec::new(),
            },
            dir,
            store,
            clock,
            core,
            source,
            _runtime: runtime,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Lets `time` pass, in small steps.
    fn pass(&mut self, time: Duration) {
        const STEP: Duration = Duration::from_millis(50);
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.clock.advance(STEP);
            let now = self.clock.now();
            self.caught.now = now;
            self.driver.turn(now);
            self.core.step(now);
            // A source that is never idle would hang the test.
            let mut polls = 0;
            while self.source.poll(&mut self.caught) == Progress::Busy {
                polls += 1;
                assert!(polls < 1000, "busy for ever");
            }
        }
        self.account.snapshot().check().unwrap();
    }

    fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    /// Takes what was emitted: its texts, and the parts to be settled.
    fn take(&mut self) -> (Vec<String>, Vec<LogsPart>) {
        let parts = std::mem::take(&mut self.caught.parts);
        let mut texts = Vec::new();
        for part in &parts {
            let rows = 0..part.logs.rows();
            texts.extend(rows.map(|row| part.logs.body(row).unwrap().to_display_string()));
        }
        (texts, parts)
    }

    fn settle(&mut self, parts: Vec<LogsPart>, outcome: Outcome) {
        for part in parts {
            part.ack.resolve(outcome);
        }
    }

    /// Offsets that are stored: of the first file, and of the second one.
    fn stored(&self) -> (u64, u64) {
        let all = Saver::load(&self.store, ID);
        let of = |content: &str| {
            let is_it = |p: &&Position| p.head.len > 0 && p.head.starts(content.as_bytes());
            all.iter().find(is_it).map_or(0, |p| p.offset)
        };
        (of(FIRST), of(SECOND))
    }

    /// Delivered and given up, in records, when all is settled.
    fn settled(&self) -> (u64, u64) {
        let snapshot = self.account.snapshot();
        assert!(snapshot.is_settled(), "{snapshot:?}");
        let dropped = snapshot.dropped.iter().map(|(_, n)| n.records).sum();
        (snapshot.delivered.records, dropped)
    }
}

const FIRST: &str = "2024-01-01T00:00:01Z stdout F whole\n2024-01-01T00:00:02Z stdout P half-\n";
/// The same, and the last write did not come to its end.
const UNFINISHED: &str = FIRST.trim_ascii_end();
const SECOND: &str = "2024-01-01T00:00:03Z stdout F line\n2024-01-01T00:00:04Z stdout F next\n";
const ROTATED: &str = "0.log.20240101-000005";
/// Where the line begins that is split over the files.
const SPLIT_AT: u64 = 36;

/// A receiver that has read both files, and the batch with the line that is split over them.
fn split_over_two_files(first: &str) -> (Rig, Vec<LogsPart>) {
    let mut rig = Rig::new();
    fs::write(rig.path("0.log"), first).unwrap();
    rig.pass_ms(500);
    let (texts, parts) = rig.take();
    assert_eq!(texts, ["whole"]);
    rig.settle(parts, Outcome::Delivered);
    rig.pass_ms(300);
    assert_eq!(rig.stored(), (SPLIT_AT, 0));
    fs::rename(rig.path("0.log"), rig.path(ROTATED)).unwrap();
    fs::write(rig.path("0.log"), SECOND).unwrap();
    rig.pass_ms(1_500);
    let (texts, parts) = rig.take();
    assert_eq!(texts, ["half-line", "next"]);
    assert_eq!(rig.stored(), (SPLIT_AT, 0), "nothing of it is delivered");
    (rig, parts)
}

#[test]
fn a_line_that_is_split_over_files_and_handed_back_is_read_again_as_a_whole() {
    for first in [FIRST, UNFINISHED] {
        let (mut rig, mut parts) = split_over_two_files(first);
        for _ in 0..3 {
            rig.settle(parts, Outcome::Retry);
            rig.pass_ms(1_500);
            let again = rig.take();
            assert_eq!(again.0, ["half-line", "next"], "{first:?}");
            assert_eq!(rig.stored(), (SPLIT_AT, 0));
            parts = again.1;
        }
        rig.settle(parts, Outcome::Delivered);
        rig.pass_ms(500);
        assert_eq!(rig.stored(), (first.len() as u64, SECOND.len() as u64));
        assert_eq!(rig.settled(), (3, 0));
        assert!(rig.take().0.is_empty());
    }
}

#[test]
fn a_split_line_whose_first_file_is_given_up_is_the_duty_of_the_other_one_alone() {
    let (mut rig, parts) = split_over_two_files(FIRST);
    fs::remove_file(rig.path(ROTATED)).unwrap();
    rig.pass_ms(8_000);
    rig.settle(parts, Outcome::Delivered);
    rig.pass_ms(500);
    assert_eq!(rig.stored().1, SECOND.len() as u64);
    assert_eq!(rig.settled(), (3, 0));
    assert!(rig.take().0.is_empty());
}

#[test]
fn a_split_line_whose_last_file_is_given_up_is_counted_once() {
    let (mut rig, parts) = split_over_two_files(FIRST);
    fs::remove_file(rig.path("0.log")).unwrap();
    rig.pass_ms(8_000);
    assert_eq!(rig.settled(), (1, 2), "given up with the file");
    rig.settle(parts, Outcome::Delivered);
    rig.pass_ms(500);
    assert_eq!(rig.settled(), (1, 2), "and not counted again");
    assert_eq!(rig.stored().0, FIRST.len() as u64, "nothing waits for it");
    assert!(rig.take().0.is_empty());
}

/// Guarantee: where a line begins, which is what it is stamped by, does not depend on whether blank
/// lines before it were read together with it.
#[test]
fn blank_lines_that_were_read_before_do_not_move_a_line() {
    const START: &str = "2024-01-01T00:00:01Z stdout F one\n\n\n";
    const LINE: &str = "2024-01-01T00:00:02Z stdout F two\n";
    let whole = format!("{START}{LINE}");
    let begins = |steps: &[&str]| {
        let mut rig = Rig::new();
        for step in steps {
            fs::write(rig.path("0.log"), step).unwrap();
            rig.pass_ms(700);
        }
        let (texts, parts) = rig.take();
        assert_eq!(texts, ["one", "two"]);
        let last = parts.last().unwrap();
        last.logs.source_offset(last.logs.rows() - 1)
    };
    assert_eq!(begins(&[START, &whole]), Some(START.len() as u64));
    assert_eq!(begins(&[&whole]), Some(START.len() as u64));
}

/// Guarantee: what comes after a compressed generation that is damaged is read, and what is before
/// the damage, too.
#[test]
fn a_damaged_generation_does_not_hold_up_the_log() {
    let mut rig = Rig::new();
    fs::write(rig.path("0.log"), FIRST).unwrap();
    rig.pass_ms(500);
    let (_, parts) = rig.take();
    rig.settle(parts, Outcome::Delivered);
    let line = |n: u64| {
        let noise = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("2024-01-01T00:00:05Z stdout F {n} {noise:x}\n")
    };
    let content: String = (0..2_000).map(line).collect();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, content.as_bytes()).unwrap();
    let mut packed = encoder.finish().unwrap();
    let middle = packed.len() / 2;
    packed[middle..middle + 64].fill(0xFF);
    // The beginning of a line that is split would wait for its end.
    fs::remove_file(rig.path("0.log")).unwrap();
    fs::write(rig.path(&format!("{ROTATED}.gz")), packed).unwrap();
    fs::write(rig.path("0.log"), "2024-01-01T00:00:06Z stdout F last\n").unwrap();
    let mut all = Vec::new();
    for _ in 0..200 {
        rig.pass_ms(200);
        let (texts, parts) = rig.take();
        rig.settle(parts, Outcome::Delivered);
        all.extend(texts);
    }
    let kept = all.iter().filter(|t| t.contains(' ')).count();
    assert!((100..2_000).contains(&kept), "{kept}");
    assert_eq!(all.last().map(String::as_str), Some("last"));
}
