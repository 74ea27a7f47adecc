//! Row 19: a wall clock that jumps, or stands still.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour};
use tailwater_testkit::time::system_unix_nanos;
use tailwater_testkit::writer::{Compress, Format, LogWriter, Naming, Rotation, WriterClock};
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "loss 0; no timer stalls > 1 s; no 400 poisoning";

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;

/// Beyond what delivery takes anyway: the batch's timeout and retries.
const STALL: Duration = Duration::from_secs(1);

/// A wall clock for agents; others keep theirs.
struct WallClock {
    library: PathBuf,
    page: PathBuf,
    file: File,
}

impl WallClock {
    /// None, with the reason, where no library can be made.
    fn make(rig: &Rig) -> Result<WallClock, String> {
        let library = rig.path("clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/faults/clock.c");
        let cc = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(source)
            .output();
        match cc {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(e) => return Err(format!("no C compiler: {e}")),
        }
        let page = rig.path("clock");
        fs::write(&page, [0; 16]).expect("written");
        let file = File::options().write(true).open(&page).expect("a file");
        Ok(WallClock {
            library,
            page,
            file,
        })
    }

    fn set(&self, moved_ns: i64, stands_at_ns: i64) {
        let numbers = [moved_ns.to_ne_bytes(), stands_at_ns.to_ne_bytes()].concat();
        self.file.write_all_at(&numbers, 0).expect("written");
    }

    fn start(&self, rig: &Rig, config: &Value) -> Agent {
        rig.start_by(config, |mut command| {
            command.env("LD_PRELOAD", &self.library);
            command.env("TAILWATER_TEST_CLOCK", &self.page);
            command
        })
    }
}

/// What the clock does: a name, seconds it is moved by, whether it stands still.
const STEPS: [(&str, i64, bool); 7] = [
    ("an hour ahead", HOUR, false),
    ("an hour behind", -HOUR, false),
    ("right again", 0, false),
    ("a year ahead", YEAR, false),
    ("a year behind", -YEAR, false),
    ("standing still", 0, true),
    ("right at last", 0, false),
];

/// A plain log, which gets its times from the clock, and one of containers, which has its own.
fn logs(rig: &Rig) -> (Value, [LogWriter; 2]) {
    for dir in ["plain", "cri"] {
        fs::create_dir(rig.logs(dir)).expect("a directory");
    }
    let mut config = rig.container_config("containerd");
    let receivers = &mut config["receivers"];
    let mut plain = receivers["filelog"].clone();
    receivers["filelog"]["include"] = rig.logs("cri/*.log").to_str().into();
    plain["include"] = rig.logs("plain/*.log").to_str().into();
    plain.as_object_mut().expect("a map").remove("operators");
    receivers["filelog/plain"] = plain;
    config["service"]["pipelines"]["logs"]["receivers"] = json!(["filelog", "filelog/plain"]);
    config["exporters"]["loki"]["dead_letter_file"] = json!(rig.path("dead.json"));
    let rotation = Rotation::RenameCreate {
        naming: Naming::Numbered,
        keep: 100,
        compress: Compress::Delayed,
        late_lines: 1,
    };
    let writer = |id, dir: &str, format| {
        rig.writer(id, &format!("{dir}/app{id}.log"), |o| {
            (o.format, o.rotation, o.clock) = (format, rotation, WriterClock::System);
        })
    };
    let writers = [
        writer(1, "plain", Format::Plain),
        writer(2, "cri", Format::Cri),
    ];
    (config, writers)
}

/// Guarantees that a clock which jumps or stands still stops nothing and loses nothing, and that
/// lines which are sent again after a kill carry the same times.
#[test]
fn a_clock_that_jumps_stops_nothing() {
    let rounds = scaled(1, 20);
    let mut row = Row::new(19, "clock jumps by an hour and a year, stands still")
        .how(format!(
            "the agent's wall clock alone (LD_PRELOAD), {} settings, {rounds} times; lines, a \
             rotation and a kill in each",
            STEPS.len()
        ))
        .pass(PASS);
    let rig = Rig::new("clock");
    let clock = match WallClock::make(&rig) {
        Ok(clock) => clock,
        Err(why) => return row.not_shown(why),
    };
    let (config, mut writers) = logs(&rig);
    let mut agent = clock.start(&rig, &config);
    let mut slowest = (Duration::ZERO, "");
    for _ in 0..rounds {
        for (name, seconds, stands) in STEPS {
            let moved = seconds * 1_000_000_000;
            clock.set(moved, if stands { system_unix_nanos() } else { 0 });
            let begin = Instant::now();
            for writer in &mut writers {
                writer.write_lines(200).expect("written");
            }
            rig.wait_delivered(&agent);
            if begin.elapsed() > slowest.0 {
                slowest = (begin.elapsed(), name);
            }
            for writer in &mut writers {
                writer.rotate().expect("rotated");
                writer.write_lines(200).expect("written");
            }
            // In the middle of it.
            agent.kill();
            agent = clock.start(&rig, &config);
            rig.wait_delivered(&agent);
        }
    }
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost or shown twice, {} sent again after the kills",
        t.written, t.duplicates_raw
    ));
    let took = slowest.0.as_secs_f64();
    row.held(
        slowest.0 <= STALL,
        format!(
            "the slowest lines after a jump took {took:.2} s ({})",
            slowest.1
        ),
    );
    row.record();
}

/// Guarantees that lines with a time from a wrong clock, which Loki refuses, harm no others: those
/// with times of their own arrive, and what is refused is counted and kept.
#[test]
fn times_of_a_wrong_clock_harm_no_other_line() {
    let mut row = Row::new(19, "clock ahead by an hour, Loki with its limits")
        .how("plain lines get times Loki refuses; container lines have their own")
        .pass(PASS);
    let behaviour = LokiBehaviour::default();
    let rig = Rig::with("ahead", behaviour, Faults::default());
    let clock = match WallClock::make(&rig) {
        Ok(clock) => clock,
        Err(why) => return row.not_shown(why),
    };
    let (config, [mut plain, mut container]) = logs(&rig);
    let agent = clock.start(&rig, &config);
    plain.write_lines(300).expect("written");
    container.write_lines(300).expect("written");
    rig.wait_delivered(&agent);
    clock.set(HOUR * 1_000_000_000, 0);
    for _ in 0..5 {
        plain.write_lines(100).expect("written");
        container.write_lines(100).expect("written");
    }
    let of = |writer: u32| {
        let progress = rig.oracle.progress();
        let of = progress.iter().find(|p| p.writer == writer);
        of.map_or(0, |p| p.delivered)
    };
    let through = wait::within(wait::BOUND, || of(2) == 800);
    assert!(through, "{}\n{}", rig.summary(), tail(&agent.log()));
    clock.set(0, 0);
    plain.write_lines(300).expect("written");
    let settled = wait::within(wait::BOUND, || {
        let account = agent.scrape().account("receiver");
        account.delivered + account.dropped == 1_900.0
    });
    let account = agent.scrape().account("receiver");
    assert!(settled, "{account:?}\n{}", tail(&agent.log()));
    let letters = fs::read_to_string(rig.path("dead.json")).unwrap_or_default();
    assert_eq!(
        letters.lines().count() as f64,
        account.dropped,
        "{account:?}"
    );
    assert_eq!(of(1) as f64 + account.dropped, 1_100.0, "{account:?}");
    let faults = agent.scrape().faults();
    assert!(faults.is_empty(), "{faults:?}");
    agent.stop_clean();
    row.reached(format!(
        "800 of 800 lines with times of their own delivered; of 1,100 others {} refused by Loki, \
         each counted and in the dead letter file",
        account.dropped
    ));
    row.record();
}
