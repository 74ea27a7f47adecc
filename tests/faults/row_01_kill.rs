//! Row 1: SIGKILL at any moment, under rotation and a failing sink, under a high rate, and at the
//! moments that matter: nothing is lost, and nothing repeated that Loki would show.
//!
//! `TAILWATER_KILLS` and `TAILWATER_SEED` (default 1) choose how many kills and which.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde_json::Value;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Compress, Format, LogWriter, Naming, Rotation};
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

const PASS: &str = "loss 0; repeats <= what is in flight (8 MiB or 1 s); restart <= 2 s";
const MIB: f64 = 1024.0 * 1024.0;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number: {text:?}")),
        Err(_) => default,
    }
}

/// Two plain logs, one that is compressed when rotated, and two of containers, all growing.
fn writers(rig: &Rig, seed: u64) -> Vec<LiveWriter> {
    let rename = |naming, compress| Rotation::RenameCreate {
        naming,
        keep: 1_000,
        compress,
        late_lines: 3,
    };
    let kinds = [
        (Format::Plain, rename(Naming::Numbered, Compress::Never)),
        (Format::Plain, rename(Naming::Numbered, Compress::Delayed)),
        (Format::Cri, rename(Naming::Kubernetes, Compress::Delayed)),
        (Format::Cri, rename(Naming::Kubernetes, Compress::Never)),
    ];
    let start = |(id, (format, rotation))| {
        let (dir, id) = (
            if format == Format::Cri {
                "cri"
            } else {
                "plain"
            },
            id as u32,
        );
        let writer = rig.writer(id, &format!("{dir}/app{id}.log"), |o| {
            (o.format, o.rotation, o.seed) = (format, rotation, seed);
            (o.stderr, o.partial_bytes_max, o.pad_bytes) = (0.2, 150, 20..=200);
        });
        let (lines_per_second, every) = (1_500, 1_000 + 400 * u64::from(id));
        let options = LiveOptions {
            lines_per_second,
            rotate_every_lines: Some(every),
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    };
    kinds.into_iter().enumerate().map(start).collect()
}

/// The longest time from starting a process to pipelines that run.
#[derive(Default)]
struct Restarts {
    measured: u32,
    longest: Duration,
}

impl Restarts {
    /// Starts an agent that lives for `life`; how long it took to be ready, if it got there.
    fn live(&mut self, rig: &Rig, config: &Value, life: Duration) -> Agent {
        let begin = Instant::now();
        let agent = rig.spawn(config);
        if wait::within(life, || agent.is_ready()) {
            self.measured += 1;
            self.longest = self.longest.max(begin.elapsed());
        }
        wait::let_pass(life.saturating_sub(begin.elapsed()));
        agent
    }

    fn tell(&self, row: &mut Row) {
        row.held(
            self.measured > 0 && self.longest <= Duration::from_secs(2),
            format!(
                "restart {:.2} s at most ({} measured)",
                self.longest.as_secs_f64(),
                self.measured
            ),
        );
    }
}

#[test]
fn kills_at_any_moment_lose_nothing_and_show_nothing_twice() {
    let (kills, seed) = (
        setting("TAILWATER_KILLS", scaled(100, 1_000)),
        setting("TAILWATER_SEED", 1),
    );
    let mut row = Row::new(1, "kill -9 at any moment")
        .how(format!(
            "{kills} kills at random moments (seed {seed}); four logs that rotate, two of them with \
             gzip; the sink fails a quarter of the requests, in five ways"
        ))
        .pass(PASS);
    let rig = Rig::new("kill9");
    for dir in ["plain", "cri"] {
        fs::create_dir(rig.logs(dir)).expect("a directory");
    }
    let mut config = rig.container_config("containerd");
    let mut plain = config["receivers"]["filelog"].clone();
    config["receivers"]["filelog"]["include"] = rig.logs("cri/*.log").to_str().into();
    plain["include"] = rig.logs("plain/*.log").to_str().into();
    plain.as_object_mut().expect("a map").remove("operators");
    config["receivers"]["filelog/plain"] = plain;
    config["service"]["pipelines"]["logs"]["receivers"] = vec!["filelog", "filelog/plain"].into();
    rig.loki.set_faults(|f| {
        (f.status_500, f.status_503, f.status_429) = (0.08, 0.04, 0.04);
        (f.reset_before, f.reset_after) = (0.05, 0.05);
        f.delay = Duration::from_millis(3);
    });
    let live = writers(&rig, seed);
    let mut rng = Rng::new(seed);
    let mut restarts = Restarts::default();
    for _ in 0..kills {
        // Most kills hit an agent at work, some one that is still starting.
        let life = if rng.chance(0.2) {
            rng.below(60)
        } else {
            60 + rng.below(500)
        };
        restarts
            .live(&rig, &config, Duration::from_millis(life))
            .kill();
    }
    for writer in live {
        writer.stop().expect("written");
    }
    rig.loki.set_faults(|f| *f = Default::default());
    let agent = rig.start(&config);
    rig.wait_delivered_within(&agent, Duration::from_secs(90));
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} repeated, none of them shown by Loki",
        t.written, t.duplicates_raw
    ));
    restarts.tell(&mut row);
    row.record();
}

/// Guarantees that a kill repeats no more than what was under way: a sink that takes everything
/// sees at most 8 MiB, or what a second brings, again.
#[test]
fn a_kill_under_a_high_rate_repeats_what_was_under_way_and_no_more() {
    const LINES_PER_SECOND: u64 = 25_000;
    let kills = scaled(10, 100);
    let mut row = Row::new(1, "kill -9 under 50 MB/s")
        .how(format!(
            "{kills} kills at random moments, one file at 50 MB/s, a sink that takes everything"
        ))
        .pass(PASS);
    let rig = Rig::new("kill-rate");
    let config = rig.config();
    let writer = rig.writer(1, "app.log", |o| o.pad_bytes = 1_900..=2_000);
    let live = LiveOptions {
        lines_per_second: LINES_PER_SECOND,
        rotate_every_lines: None,
        lines_max: None,
    };
    let live = LiveWriter::start(writer, live).expect("a thread");
    let mut rng = Rng::new(2);
    let mut restarts = Restarts::default();
    let begin = Instant::now();
    let mut repeats = Vec::new();
    let mut before = 0;
    for _ in 0..kills {
        let life = Duration::from_millis(200 + rng.below(600));
        restarts.live(&rig, &config, life).kill();
        let total = rig.oracle.report().totals.duplicates_raw;
        repeats.push(total - before);
        before = total;
    }
    let writer = live.stop().expect("written");
    let seconds = begin.elapsed().as_secs_f64();
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    repeats.push(t.duplicates_raw - before);
    let bytes_per_line = writer.bytes_written() as f64 / t.written as f64;
    let most = *repeats.iter().max().expect("kills") as f64 * bytes_per_line;
    let rate = writer.bytes_written() as f64 / seconds;
    row.reached(format!(
        "0 of {} lines lost at {:.0} MB/s written",
        t.written,
        rate / 1e6
    ));
    row.held(
        most <= (8.0 * MIB).max(rate),
        format!("{:.1} MiB repeated by a kill at most", most / MIB),
    );
    restarts.tell(&mut row);
    row.record();
}

/// When a kill comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// While the sink answers a request it has stored.
    Answer,
    /// A position has just been appended to the log of positions.
    PositionWritten,
    /// A file of the store has just been made, renamed or removed.
    StoreCompacted,
    /// In the middle of a rotation with compression.
    Rotation,
}

const MOMENTS: [Moment; 4] = [
    Moment::Answer,
    Moment::PositionWritten,
    Moment::StoreCompacted,
    Moment::Rotation,
];

/// What the directory of positions looks like: names, inodes and, if asked for, lengths.
fn store(rig: &Rig, lengths: bool) -> Vec<(String, u64, u64)> {
    let dir = fs::read_dir(rig.state().join("checkpoints"));
    let entries = dir.into_iter().flatten().flatten();
    let look = |e: fs::DirEntry| {
        let meta = e.metadata().ok()?;
        let len = if lengths { meta.len() } else { 0 };
        Some((
            e.file_name().to_string_lossy().into_owned(),
            meta.ino(),
            len,
        ))
    };
    let mut seen: Vec<_> = entries.filter_map(look).collect();
    seen.sort();
    seen
}

/// Looks without a pause, for what lasts for microseconds; whether the moment came.
fn catch(mut met: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        if met() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Kills `agent` at a moment. Whether the moment was met.
fn kill_at(
    moment: Moment,
    rig: &Rig,
    config: &Value,
    mut agent: Agent,
    writer: &mut LogWriter,
    rng: &mut Rng,
) -> bool {
    let lines = 100 + rng.below(400);
    let accepted = rig.loki.stats().entries_accepted;
    let (positions, files) = (store(rig, true), store(rig, false));
    writer.write_lines(lines).expect("written");
    let met = match moment {
        Moment::Answer => rig
            .loki
            .wait_until(wait::BOUND, |s| s.entries_accepted > accepted),
        Moment::PositionWritten => catch(|| store(rig, true) != positions),
        // A start begins a new generation of files.
        Moment::StoreCompacted => {
            agent.end_now();
            agent = rig.spawn(config);
            catch(|| store(rig, false) != files)
        }
        Moment::Rotation => {
            let delay = Duration::from_micros(rng.below(3_000));
            std::thread::scope(|scope| {
                let rotation = scope.spawn(|| writer.rotate());
                wait::let_pass(delay);
                agent.signal(rustix::process::Signal::KILL);
                rotation.join().expect("no panic").expect("rotated");
            });
            true
        }
    };
    agent.end_now();
    met
}

/// Guarantees the same where a kill hits between two steps that belong together.
#[test]
fn kills_at_the_moments_that_matter_lose_nothing() {
    let rounds: u32 = scaled(32, 400);
    let mut row = Row::new(1, "kill -9 between two steps")
        .how(format!(
            "{rounds} kills: as the sink answers what it has stored, as a position is written, as \
             the store of positions changes its files, in the middle of a rotation"
        ))
        .pass(PASS);
    let rig = Rig::new("kill-moments");
    let config = rig.config();
    let mut writer = rig.writer(1, "app.log", |o| {
        o.rotation = Rotation::RenameCreate {
            naming: Naming::Numbered,
            keep: 1_000,
            compress: Compress::Delayed,
            late_lines: 3,
        };
    });
    let mut rng = Rng::new(3);
    let mut restarts = Restarts::default();
    let mut met = [0; MOMENTS.len()];
    for round in 0..rounds as usize {
        let begin = Instant::now();
        let agent = rig.start(&config);
        restarts.measured += 1;
        restarts.longest = restarts.longest.max(begin.elapsed());
        let at = round % MOMENTS.len();
        met[at] += u32::from(kill_at(
            MOMENTS[at],
            &rig,
            &config,
            agent,
            &mut writer,
            &mut rng,
        ));
    }
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} repeated, none of them shown by Loki",
        t.written, t.duplicates_raw
    ));
    for (moment, met) in MOMENTS.iter().zip(met) {
        row.reached(format!("{moment:?} met {met} times"));
    }
    restarts.tell(&mut row);
    assert!(met.iter().all(|n| *n > 0), "{met:?}");
    row.record();
}
