//! Row 12: rotation in every usual way, while the agent runs, while it is away and while the sink is.
//!
//! The include pattern matches the live file only, so rotated files have to be recognised.

use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::writer::kubernetes::{Container, NodeLogs};
use tailwater_testkit::writer::{Compress, Format, LogWriter, Naming, Rotation};
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::Row;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// What happens around the rotations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Around {
    Running,
    AgentDown,
    SinkDown,
}

const PASS: &str =
    "loss 0; of copytruncate and deletion at most what nobody could read, counted exactly";

const AROUND: [Around; 3] = [Around::Running, Around::AgentDown, Around::SinkDown];

/// Files kept by rotations; more than are made while something is down.
const KEEP: usize = 8;
/// Lines per generation.
const LINES: u64 = 500;

fn ways() -> [(&'static str, Format, Rotation); 6] {
    let rename = |naming, compress, late_lines| Rotation::RenameCreate {
        naming,
        keep: KEEP,
        compress,
        late_lines,
    };
    let copy = |compress| Rotation::CopyTruncate {
        keep: KEEP,
        compress,
        late_lines: 0,
    };
    [
        (
            "rename-create",
            Format::Plain,
            rename(Naming::Numbered, Compress::Never, 20),
        ),
        (
            "compress",
            Format::Plain,
            rename(Naming::Numbered, Compress::AtOnce, 0),
        ),
        (
            "kubernetes",
            Format::Cri,
            rename(Naming::Kubernetes, Compress::Delayed, 0),
        ),
        ("copytruncate", Format::Plain, copy(Compress::Never)),
        ("copytruncate+gz", Format::Plain, copy(Compress::Delayed)),
        ("delete-create", Format::Plain, Rotation::DeleteCreate),
    ]
}

/// One cell of the table.
struct Outcome {
    way: &'static str,
    around: Around,
    written: u64,
    unreadable: u64,
    lost: u64,
    lost_unreadable: u64,
    repeated_raw: u64,
    repeated_shown: u64,
    other: u64,
    /// The numbers of the first missing lines.
    missing: String,
    problem: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<16} {:<10} {:>7} {:>10} {:>6} {:>8} {:>8} {:>6}  {}",
            self.way,
            format!("{:?}", self.around),
            self.written,
            self.unreadable,
            self.lost,
            self.repeated_raw,
            self.repeated_shown,
            self.other,
            if self.problem.is_some() {
                self.missing.as_str()
            } else {
                "ok"
            },
        )
    }
}

/// Lines the agent has read so far.
fn read_count(agent: &Agent) -> u64 {
    agent.scrape().account("receiver").read as u64
}

/// Time between rotations while the agent is there: ten a second.
const PACE: Duration = Duration::from_millis(100);

/// Writes a generation and rotates. With an agent it lives for longer than a moment; and if it is
/// to be deleted, the agent has seen it by then: what nobody opened is gone for good.
fn generation(writer: &mut LogWriter, agent: Option<&Agent>) -> Result<(), String> {
    writer.write_lines(LINES / 5).map_err(|e| e.to_string())?;
    if let (Some(agent), Rotation::DeleteCreate) = (agent, writer.options().rotation) {
        let wanted = writer.lines_written();
        if !wait::within(wait::BOUND, || read_count(agent) >= wanted) {
            return Err(format!("{} of {wanted} lines read", read_count(agent)));
        }
    }
    if agent.is_some() {
        wait::let_pass(PACE);
    }
    writer
        .write_lines(LINES - LINES / 5)
        .map_err(|e| e.to_string())?;
    writer.rotate().map_err(|e| e.to_string())
}

/// Runs one cell; the last agent comes back running.
fn play(
    rig: &Rig,
    config: &Value,
    writer: &mut LogWriter,
    around: Around,
) -> Result<Agent, String> {
    let deliver = |agent: &Agent| {
        let done = wait::within(wait::BOUND, || rig.oracle.is_complete());
        done.then_some(())
            .ok_or_else(|| format!("missing lines; {}", tail(&agent.log())))
    };
    let io = |e: std::io::Error| e.to_string();
    let mut agent = rig.start(config);
    writer.write_lines(LINES).map_err(io)?;
    deliver(&agent)?;
    match around {
        Around::Running => {
            for _ in 0..KEEP {
                generation(writer, Some(&agent))?;
            }
        }
        Around::AgentDown => {
            writer.write_lines(LINES).map_err(io)?;
            let code = agent.stop_within(wait::BOUND);
            if code != 0 {
                return Err(format!("exit code {code}"));
            }
            for _ in 0..4 {
                generation(writer, None)?;
            }
            agent = rig.start(config);
        }
        Around::SinkDown => {
            rig.loki.set_reach(Reach::Refused).map_err(io)?;
            for _ in 0..4 {
                generation(writer, Some(&agent))?;
            }
            rig.loki.set_reach(Reach::Up).map_err(io)?;
        }
    }
    writer.write_lines(LINES).map_err(io)?;
    deliver(&agent)?;
    Ok(agent)
}

fn cell(way: &'static str, format: Format, rotation: Rotation, around: Around) -> Outcome {
    let rig = Rig::new("rotation");
    let config = match format {
        Format::Cri => rig.container_config("containerd"),
        _ => rig.config(),
    };
    let mut writer = rig.writer(1, "app.log", |o| {
        (o.format, o.rotation) = (format, rotation)
    });
    let played = play(&rig, &config, &mut writer, around);
    // Whatever is going to be repeated has been by the time of a clean stop.
    let problem = played.map_or_else(Some, |agent| {
        let code = agent.stop_within(wait::BOUND);
        (code != 0).then(|| format!("exit code {code}"))
    });
    let report = rig.oracle.report();
    let t = report.totals;
    Outcome {
        way,
        around,
        written: t.written,
        unreadable: t.missing_removed,
        lost: t.missing,
        lost_unreadable: t.missing_removed,
        repeated_raw: t.duplicates_raw,
        repeated_shown: t.duplicates_after_dedup + t.duplicates_unclassified,
        other: t.corrupt + t.phantom + report.foreign + report.unknown,
        missing: report
            .writers
            .iter()
            .map(|w| format!("missing {:?}", w.missing_ranges))
            .collect(),
        problem,
    }
}

/// Lines that were in no file any longer when the agent came back: only deletion does that.
fn unreadable_allowed(way: &str, around: Around) -> u64 {
    match (way, around) {
        // The whole of four generations, and what was written last before the stop, unless the
        // drain still read it: that one is at most a generation.
        ("delete-create", Around::AgentDown) => 5 * LINES,
        _ => 0,
    }
}

/// Guarantees that no way of rotating loses a line that could be read or shows one twice.
#[test]
fn no_way_of_rotating_loses_or_repeats() {
    let mut row = Row::new(12, "rotation, each way")
        .how(
            "rename, rename and gzip, the kubelet's, copytruncate, copytruncate and gzip, deletion; \
             each while all is well (10/s), while the agent is down and while Loki is",
        )
        .pass(PASS);
    let cells: Vec<_> = ways()
        .into_iter()
        .flat_map(|(way, format, rotation)| AROUND.map(|a| (way, format, rotation, a)))
        .collect();
    let queue = Mutex::new(cells.into_iter());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic in between").next();
                    let Some((way, format, rotation, around)) = next else {
                        return;
                    };
                    let outcome = cell(way, format, rotation, around);
                    outcomes.lock().expect("no panic in between").push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no panic in between");
    outcomes.sort_by_key(|o| (o.way, o.around as u8));
    println!(
        "{:<16} {:<10} {:>7} {:>10} {:>6} {:>8} {:>8} {:>6}",
        "rotation", "while", "written", "unreadable", "lost", "repeated", "shown 2x", "other"
    );
    let mut failed = Vec::new();
    for o in &outcomes {
        println!("{o}");
        let good = o.problem.is_none()
            && o.lost == o.lost_unreadable
            && o.lost <= unreadable_allowed(o.way, o.around)
            && o.repeated_shown + o.other == 0;
        if !good {
            failed.push(format!("{o}\n{}", o.problem.as_deref().unwrap_or_default()));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        outcomes.len(),
        failed.join("\n")
    );
    assert_eq!(outcomes.len(), 18);
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    row.reached(format!(
        "18 ways, {} lines: {} lost, all of them in files deleted while the agent was down; 0 shown \
         twice",
        sum(|o| o.written),
        sum(|o| o.lost)
    ));
    row.record();
}

/// Guarantees that generations which were renamed before anyone could look at them are read all
/// the same, as long as their files exist.
#[test]
fn rotations_faster_than_anyone_can_look_lose_nothing() {
    let mut row = Row::new(12, "rotation, faster than anyone can look")
        .how("20 generations at once, without a pause")
        .pass(PASS);
    let rig = Rig::new("burst");
    let (naming, compress) = (Naming::Numbered, Compress::Never);
    let mut writer = rig.writer(1, "app.log", |o| {
        o.rotation = Rotation::RenameCreate {
            naming,
            keep: 30,
            compress,
            late_lines: 0,
        };
    });
    let agent = rig.start(&rig.config());
    writer.write_lines(LINES).expect("written");
    rig.wait_delivered(&agent);
    for _ in 0..20 {
        writer.write_lines(LINES).expect("written");
        writer.rotate().expect("rotated");
    }
    writer.write_lines(LINES).expect("written");
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    row.reached(format!("0 of {} lines lost", t.written));
    row.record();
}

/// Guarantees that lines which fall between copying and truncating are lost only when nobody had
/// read them, and that nothing else is.
#[test]
fn copytruncate_costs_at_most_what_was_written_in_between() {
    let mut row = Row::new(12, "copytruncate, written in between")
        .how("10 rotations, 50 lines between copy and cut in each")
        .pass(PASS);
    let rig = Rig::new("late");
    let late_lines = 50;
    let mut writer = rig.writer(1, "app.log", |o| {
        o.rotation = Rotation::CopyTruncate {
            keep: KEEP,
            compress: Compress::Never,
            late_lines,
        };
    });
    let agent = rig.start(&rig.config());
    for _ in 0..10 {
        writer.write_lines(LINES).expect("written");
        wait::let_pass(PACE);
        writer.rotate().expect("rotated");
    }
    writer.write_lines(LINES).expect("written");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.oracle.report();
    let t = report.totals;
    row.reached(format!(
        "{} of the {} lines in between were gone before anyone read them, no other of {}",
        t.missing,
        10 * late_lines,
        t.written
    ));
    assert!(
        t.missing_readable() == 0 && t.missing <= 10 * late_lines,
        "{}",
        rig.summary()
    );
    let shown = t.duplicates_after_dedup + t.duplicates_unclassified + t.corrupt + t.phantom;
    assert_eq!(shown, 0, "{}", rig.summary());
    row.record();
}

/// Guarantees that logs behind links are followed through their rotation, and that each file is
/// read once although two paths lead to it.
#[test]
fn links_are_followed_and_a_file_is_read_once() {
    let rig = Rig::new("links");
    let node = NodeLogs::create(rig.path("var")).expect("directories");
    let container = Container {
        namespace: "ns".into(),
        pod: "pod".into(),
        uid: "u1".into(),
        name: "app".into(),
        id: "f".repeat(64),
        restarts: 0,
    };
    let pod_log = node.add(&container).expect("a pod");
    // A chain of three: containers/x.log -> pods/../0.log -> docker/app.log.
    fs::create_dir(rig.path("docker")).expect("a directory");
    symlink(rig.path("docker/app.log"), &pod_log).expect("a link");
    symlink(
        node.root().join("containers"),
        node.root().join("containers/loop"),
    )
    .expect("a link");
    let mut writer = rig.writer(1, "unused", |o| {
        (o.path, o.format) = (rig.path("docker/app.log"), Format::Cri);
    });
    let mut config = rig.container_config("containerd");
    let root = node.root().display();
    config["receivers"]["filelog"]["include"] = json!([
        format!("{root}/containers/**/*.log"),
        format!("{root}/pods/*/*/*.log")
    ]);
    let agent = rig.start(&config);
    for _ in 0..4 {
        writer.write_lines(LINES).expect("written");
        // Nothing tells of news at the end of a chain of links; it is found by polling.
        wait::let_pass(3 * PACE);
        writer.rotate().expect("rotated");
    }
    writer.write_lines(LINES).expect("written");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    assert_eq!(report.totals.duplicates_raw, 0, "{}", rig.summary());
}
