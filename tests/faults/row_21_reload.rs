//! Row 21: reloads under load, of every kind of change, one after the other.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::{LokiBehaviour, Reach};
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{LogWriter, Naming, Rotation};
use tailwater_tests::agent::Agent;
use tailwater_tests::changes::{Changes, KINDS_COUNT};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Time from one change to the next.
const EVERY: Duration = Duration::from_millis(100);

/// Writers of the files that `*.log` names; there is one more of what the other pipeline reads.
const WRITERS: u32 = 4;

/// Rotated files that are kept of each: more than a run makes, so that none goes before it is read.
const KEEP: usize = 1_000;

/// A rig, a second way to its sink, and changes of its configuration.
struct Scene {
    rig: Rig,
    /// Another address of the same sink: one judge knows what comes by either.
    second: FakeLoki,
    config: Value,
    changes: Changes,
    /// Changes made so far.
    made: usize,
}

impl Scene {
    fn new(label: &str) -> Scene {
        let rig = Rig::keeping(label, StoreMode::CountOnly);
        let second = FakeLoki::start(LokiOptions {
            behaviour: LokiBehaviour::permissive(),
            store: StoreMode::CountOnly,
            on_entry: Some(rig.oracle.hook()),
            ..LokiOptions::default()
        });
        let second = second.expect("a server on a loopback port");
        let mut config = rig.config();
        // Each answer is looked for in the log.
        config["service"]["telemetry"]["logs"] =
            json!({"level": "info", "sampling": {"enabled": false}});
        let changes = Changes::new(&config, second.push_url(), rig.logs("other*.txt"));
        Scene {
            rig,
            second,
            config: changes.settle(),
            changes,
            made: 0,
        }
    }

    fn set_reach(&self, reach: Reach) {
        self.rig.loki.set_reach(reach).expect("a port");
        self.second.set_reach(reach).expect("a port");
    }

    /// What is to be written, `bytes` each line: before it begins.
    fn writers(&self, bytes: usize) -> Vec<LogWriter> {
        let writer = |id: u32| {
            let name = match id {
                0 => "other.txt".to_owned(),
                id => format!("app-{id}.log"),
            };
            self.rig.writer(id + 1, &name, |o| {
                o.pad_bytes = bytes * 4 / 5..=bytes;
                o.rotation = Rotation::RenameCreate {
                    naming: Naming::Numbered,
                    keep: KEEP,
                    compress: Default::default(),
                    late_lines: 3,
                };
            })
        };
        (0..=WRITERS).map(writer).collect()
    }

    /// The next change, which comes into force.
    fn change(&mut self, agent: &Agent) {
        self.changes.make(&mut self.config, self.made);
        let (n, name) = (self.made, Changes::name(self.made));
        assert!(
            agent.reload(&self.config),
            "{n} ({name}): {}",
            tail(&agent.log())
        );
        self.made += 1;
    }

    /// `count` changes, one every [`EVERY`].
    fn changes(&mut self, agent: &Agent, count: usize) {
        let mut next = Instant::now();
        for _ in 0..count {
            wait::let_pass(next.saturating_duration_since(Instant::now()));
            next += EVERY;
            self.change(agent);
        }
    }

    /// Looks several times at what the process holds, as [`settle`](Scene::settle) does, each kind of change once
    /// between two looks, the sink `away` meanwhile. The means of memory, the least of the others.
    fn look(
        &mut self,
        agent: &Agent,
        mut writers: Vec<LogWriter>,
        rate: u64,
        away: bool,
    ) -> (Held, Vec<LogWriter>) {
        let mut held = self.settle(agent);
        let mut memory = vec![(held.allocated, held.resident)];
        for _ in 1..looks() {
            if away {
                self.set_reach(Reach::Refused);
            }
            let live = start(writers, rate, None);
            self.changes(agent, KINDS_COUNT);
            writers = stop(live);
            self.set_reach(Reach::Up);
            let next = self.settle(agent);
            memory.push((next.allocated, next.resident));
            held = held.or_less(next);
        }
        println!("bytes allocated and resident at each look: {memory:?}");
        let looks = memory.len() as u64;
        held.allocated = memory.iter().map(|m| m.0).sum::<u64>() / looks;
        held.resident = memory.iter().map(|m| m.1).sum::<u64>() / looks;
        (held, writers)
    }

    /// Puts the configuration of the beginning into force, waits until all is delivered and nothing is
    /// left to do, and looks at what the process holds then.
    fn settle(&self, agent: &Agent) -> Held {
        let settled = self.changes.settle();
        assert!(agent.reload(&settled), "{}", tail(&agent.log()));
        let bound = scaled(2 * wait::BOUND, 20 * wait::BOUND);
        self.rig.wait_delivered_within(agent, bound);
        // Longer than anything that goes is waited for, and until memory is given back.
        wait::let_pass(Duration::from_secs(scaled(12, 15)));
        Held::least(agent)
    }
}

/// How often it is looked at what the process holds: a look alone differs from the next by some 2 % of resident memory in
/// either direction, however few changes are between them. Every other one is higher (as every other generation is), so
/// they are even in number.
fn looks() -> usize {
    scaled(1, 6)
}

/// Changes before the first look, as a multiple of those that are looked at: what they need for a moment, an allocator
/// and its threads keep for long, less of it with each thousand.
fn warm_up() -> usize {
    scaled(1, 3)
}

/// Time between two rotations of a file, before the first look. From there on files do not rotate: the agent remembers tens
/// of thousands of files that were rotated away, each in about a KiB, and what a hundred of them take is not to be taken for
/// what changes leave behind.
fn rotate_seconds() -> u64 {
    scaled(1, 10)
}

/// Begins to write: `rate` lines/s of each, and a hundredth of it of what comes and goes as a whole.
fn start(writers: Vec<LogWriter>, rate: u64, rotate_seconds: Option<u64>) -> Vec<LiveWriter> {
    let start = |(i, writer): (usize, LogWriter)| {
        let lines_per_second = if i == 0 { rate / 100 + 1 } else { rate };
        let options = LiveOptions {
            lines_per_second,
            rotate_every_lines: rotate_seconds.map(|s| lines_per_second * s),
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    };
    writers.into_iter().enumerate().map(start).collect()
}

fn stop(live: Vec<LiveWriter>) -> Vec<LogWriter> {
    let stop = |w: LiveWriter| w.stop().expect("written");
    live.into_iter().map(stop).collect()
}

/// MB that they have written.
fn megabytes(writers: &[LogWriter]) -> f64 {
    writers
        .iter()
        .map(|w| w.bytes_written() as f64)
        .sum::<f64>()
        / 1e6
}

/// The values of a field of the lines that say that a configuration changed.
fn field(log: &str, name: &str) -> Vec<f64> {
    let changed = log.lines().filter(|l| l.contains("configuration changed"));
    let name = format!("\"{name}\": ");
    let value = |l: &str| {
        let rest = &l[l.find(&name)? + name.len()..];
        rest[..rest.find([',', '}'])?].parse().ok()
    };
    changed.filter_map(value).collect()
}

fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * 99).div_ceil(100).max(1) - 1;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// How much two looks at resident memory differ with nothing between them, as a share of it: pages are more or less full.
const RESIDENT_NOISE: f64 = 0.03;

/// What a process has that must not grow.
struct Held {
    /// Bytes that are allocated and not freed, as the agent's allocator counts them.
    allocated: u64,
    resident: u64,
    /// What descriptors lead to.
    descriptors: Vec<String>,
    threads: usize,
}

impl Held {
    fn of(agent: &Agent) -> Held {
        let list = |of: &str| {
            let entries = std::fs::read_dir(format!("/proc/{}/{of}", agent.pid()));
            entries.expect("it runs").flatten()
        };
        // One that was closed meanwhile leads nowhere.
        let target = |e: std::fs::DirEntry| std::fs::read_link(e.path()).ok();
        let targets = list("fd").filter_map(target);
        let mut descriptors: Vec<String> = targets.map(|t| t.display().to_string()).collect();
        descriptors.sort();
        let allocated = agent
            .scrape()
            .sum("otelcol_process_runtime_heap_alloc_bytes", &[]);
        Held {
            allocated: allocated as u64,
            resident: agent.resident_bytes(),
            descriptors,
            threads: list("task").count(),
        }
    }

    /// The least of each within some time: what stays, without what comes and goes by itself (a file that
    /// is looked into, a thread that ends).
    fn least(agent: &Agent) -> Held {
        let mut least = Held::of(agent);
        for _ in 0..scaled(5, 50) {
            wait::let_pass(Duration::from_millis(200));
            least = least.or_less(Held::of(agent));
        }
        least
    }

    /// The least of each.
    fn or_less(mut self, other: Held) -> Held {
        self.allocated = self.allocated.min(other.allocated);
        self.resident = self.resident.min(other.resident);
        self.threads = self.threads.min(other.threads);
        if other.descriptors.len() < self.descriptors.len() {
            self.descriptors = other.descriptors;
        }
        self
    }

    /// Whether it did not grow since `before`, and what it was and is.
    fn against(&self, before: &Held) -> (bool, String) {
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        let grown = |now: u64, then: u64| now as f64 / then as f64 - 1.0;
        let allocated = grown(self.allocated, before.allocated);
        let resident = grown(self.resident, before.resident);
        let count = |held: &Held| (held.descriptors.len(), held.threads);
        let (now, then) = (count(self), count(before));
        let same = now.0 <= then.0 && now.1 <= then.1;
        if !same {
            println!("{:#?}\n{:#?}", before.descriptors, self.descriptors);
        }
        let text = format!(
            "allocated {:.3} to {:.3} MiB ({:+.1} %), RSS {:.1} to {:.1} MiB ({:+.1} %), descriptors {} to {}, threads {} to {}",
            mib(before.allocated),
            mib(self.allocated),
            allocated * 100.0,
            mib(before.resident),
            mib(self.resident),
            resident * 100.0,
            before.descriptors.len(),
            self.descriptors.len(),
            before.threads,
            self.threads,
        );
        (
            // One look, as in the cheap form, says nothing of a per cent.
            same && scaled(true, allocated <= 0.01 && resident <= RESIDENT_NOISE),
            text,
        )
    }
}

/// How that is looked at.
fn how_held() -> &'static str {
    scaled(
        "memory, descriptors and threads are compared with the first configuration in force, all delivered and \
         12 s without work: the least within 1 s, while files do not rotate",
        "memory, descriptors and threads are compared with the first configuration in force, all delivered and \
         15 s without work: the least within 10 s, of memory the mean of 6 such looks with 20 changes between them, \
         while files do not rotate",
    )
}

/// Guarantees that reloads of every kind under load lose nothing and send nothing twice, and leave nothing
/// behind in the agent.
#[test]
fn reloads_under_load_lose_and_repeat_nothing() {
    let reloads = scaled(120, 1_000);
    let (rate, bytes) = scaled((5_000, 300), (6_800, 2_100));
    let mut row = Row::new(21, "reloads under load")
        .how(format!(
            "{reloads} changes of {KINDS_COUNT} kinds, one every 100 ms, {} lines/s of {bytes} bytes in {} \
             files that rotate every {} s before the first look; {}, after {} such changes \
             and after {reloads} more",
            WRITERS as u64 * rate,
            WRITERS + 1,
            rotate_seconds(),
            how_held(),
            warm_up() * reloads,
        ))
        .pass(scaled(
            "loss 0, sent twice 0; descriptors and threads equal (memory is judged in the long form); p99 pause <= 50 ms",
            "loss 0, sent twice 0; memory allocated <= +1 %, RSS <= +3 %, descriptors and threads equal; p99 pause <= 50 ms; >= 50 MB/s",
        ));
    let mut scene = Scene::new("reloads");
    let agent = scene.rig.start(&scene.config);
    let live = start(scene.writers(bytes), rate, Some(rotate_seconds()));
    scene.changes(&agent, warm_up() * reloads);
    let writers = stop(live);
    let (before, writers) = scene.look(&agent, writers, rate, false);
    let (written, begin) = (megabytes(&writers), Instant::now());
    let live = start(writers, rate, None);
    scene.changes(&agent, reloads);
    let writers = stop(live);
    let seconds = begin.elapsed().as_secs_f64();
    let reached = (megabytes(&writers) - written) / seconds;
    let (after, _) = scene.look(&agent, writers, rate, false);
    let log = agent.log();
    let (took, pause) = (field(&log, "took_ms"), field(&log, "pause_ms"));
    let peak = agent.resident_bytes_peak() as f64 / 1048576.0;
    let t = scene.rig.finish(agent).totals;
    // Also what Loki would not show: nothing that a change leaves under way is sent again.
    assert_eq!(t.duplicates_raw, 0, "{}", scene.rig.summary());
    row.reached(format!("0 of {} lines lost, 0 sent twice", t.written));
    let figure = format!(
        "{reached:.1} MB/s, a change every {:.0} ms",
        seconds * 1e3 / reloads as f64
    );
    row.held(reached >= scaled(0.0, 50.0), figure);
    let (within, figure) = after.against(&before);
    row.held(within, format!("{figure}; peak {peak:.1} MiB"));
    row.held(
        p99(pause.clone()) <= 50.0,
        format!(
            "pause of a shard p99 {:.1} ms, a whole reload p99 {:.0} ms",
            p99(pause),
            p99(took)
        ),
    );
    row.record();
}

/// Guarantees the same while the sink is away all the time: what was written meanwhile arrives once when
/// it is back.
#[test]
fn reloads_without_a_sink_lose_and_repeat_nothing() {
    let reloads = scaled(60, 1_000);
    let (rate, bytes) = scaled((500, 300), (6_800, 2_100));
    let mut row = Row::new(21, "reloads while the sink is away")
        .how(format!(
            "{reloads} changes of {KINDS_COUNT} kinds, one every 100 ms, {} lines/s of {bytes} bytes; the sink \
             refuses connections throughout and is back at the end; {}, after {} such changes and \
             after {reloads} more",
            WRITERS as u64 * rate,
            how_held(),
            warm_up() * reloads,
        ))
        .pass(scaled(
            "loss 0, sent twice 0; descriptors and threads equal (memory is judged in the long form)",
            "loss 0, sent twice 0; memory allocated <= +1 %, RSS <= +3 %, descriptors and threads equal",
        ));
    let mut scene = Scene::new("reloads-down");
    let agent = scene.rig.start(&scene.config);
    // What a start, changes and a backlog take, once; the agent remembers some hundred KiB of its log.
    scene.set_reach(Reach::Refused);
    let live = start(scene.writers(bytes), rate, Some(rotate_seconds()));
    scene.changes(&agent, warm_up() * reloads);
    let writers = stop(live);
    scene.set_reach(Reach::Up);
    let (before, writers) = scene.look(&agent, writers, rate, true);
    scene.set_reach(Reach::Refused);
    let (written, begin) = (megabytes(&writers), Instant::now());
    let live = start(writers, rate, None);
    scene.changes(&agent, reloads);
    let writers = stop(live);
    let reached = (megabytes(&writers) - written) / begin.elapsed().as_secs_f64();
    scene.set_reach(Reach::Up);
    let (after, _) = scene.look(&agent, writers, rate, true);
    let t = scene.rig.finish(agent).totals;
    assert_eq!(t.duplicates_raw, 0, "{}", scene.rig.summary());
    row.reached(format!("0 of {} lines lost, 0 sent twice", t.written));
    row.held(reached >= scaled(0.0, 50.0), format!("{reached:.1} MB/s"));
    let (within, figure) = after.against(&before);
    row.held(within, figure);
    row.record();
}

/// Guarantees that a kill at any moment of a reload loses nothing and shows nothing twice.
#[test]
fn kills_during_reloads_lose_nothing() {
    let kills = scaled(15, 100);
    let (rate, bytes) = scaled((500, 300), (6_800, 2_100));
    let mut row = Row::new(21, "kill -9 during reloads")
        .how(format!(
            "{kills} kills at random moments while one change follows the other, {} lines/s of {bytes} bytes; \
             labels stay as they are",
            WRITERS as u64 * rate
        ))
        .pass("loss 0, shown twice 0");
    let mut scene = Scene::new("reload-kills");
    scene.changes = scene.changes.same_streams();
    let live = start(scene.writers(bytes), rate, Some(rotate_seconds()));
    let begin = Instant::now();
    // What is rotated away before there is a position of its file is nobody's.
    let first = scene.rig.start(&scene.config);
    let all = || scene.rig.oracle.progress().iter().all(|p| p.delivered > 0);
    assert!(wait::within(wait::BOUND, all), "{}", tail(&first.log()));
    first.stop_clean();
    let mut rng = Rng::new(21);
    for _ in 0..kills {
        let agent = scene.rig.start(&scene.config);
        let until = Instant::now() + Duration::from_millis(20 + rng.below(400));
        while Instant::now() < until {
            scene.changes.make(&mut scene.config, scene.made);
            scene.made += 1;
            agent.offer(&scene.config);
            agent.signal(rustix::process::Signal::HUP);
            wait::let_pass(Duration::from_millis(rng.below(60)));
        }
        agent.kill();
    }
    let writers = stop(live);
    let written = megabytes(&writers) / begin.elapsed().as_secs_f64();
    let agent = scene.rig.start(&scene.changes.settle());
    let bound = scaled(2 * wait::BOUND, 20 * wait::BOUND);
    scene.rig.wait_delivered_within(&agent, bound);
    let t = scene.rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} sent twice, 0 shown twice, {} changes, {written:.1} MB/s",
        t.written, t.duplicates_raw, scene.made
    ));
    row.record();
}
