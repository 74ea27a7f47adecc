//! Row 36: positions that another version wrote.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::rng::Rng;
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::{Agent, run_once};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "loss 0, dup 0";

/// The store as the first version of its format wrote it: `logs/app.log` at the end of 40 lines,
/// `logs/done.log` at the end of 20. These bytes never change; every later version reads them.
const LOG_1: &str = "\
    74772d636b70740a0100020000000000010000000000000071aae8239bacfc48cb8f0b02f577c20095682f7f01240000\
    00000000000000000000000000000066696c656c6f6700666530303a3939383039333a31386563346664383136366565\
    6536390100fe000000000000938099000000000069ee6e16d84fec182c01000000000000987197035c02bb7800000000\
    0000000000000000000000000000000000000000010000000000000000000000000000004387151ad84fec1800000000\
    00000000000000000000000000000000000000000000104387151ad84fec180d006c6f67732f646f6e652e6c6f67f577\
    c1009f925a930124000000000000000000300200000000000066696c656c6f6700666530303a3939383039323a313865\
    633466643831363234353532630100fe00000000000092809900000000002c552416d84fec183002000000000000d7fe\
    67ef34803c8c000100000000000095a000fd912863ec280000000000000001000000000000000000000000000000eed3\
    031ad84fec18000000000000000000000000000000000000000000000000000010f610511ad84fec180c006c6f67732f\
    6170702e6c6f67f577c200f155866a01240000000000000000002c0100000000000066696c656c6f6700666530303a39\
    39383039333a313865633466643831363665656536390100fe000000000000938099000000000069ee6e16d84fec182c\
    01000000000000987197035c02bb7800010000000000005a66032c555bf1081400000000000000010000000000000000\
    000000000000004387151ad84fec18000000000000000000000000000000000000000000000000000010223e6a1ad84f\
    ec180d006c6f67732f646f6e652e6c6f67\
    ";

/// The snapshot that goes with it.
const SNAPSHOT_1: &str = "\
    74772d636b70740a0100010000000000010000000000000071aae8239bacfc488b22733bf577c100d8c8c80c01240000\
    00000000000000000000000000000066696c656c6f6700666530303a3939383039323a31386563346664383136323435\
    3532630100fe00000000000092809900000000002c552416d84fec183002000000000000d7fe67ef34803c8c00000000\
    000000000000000000000000000000000000000001000000000000000000000000000000eed3031ad84fec1800000000\
    0000000000000000000000000000000000000000000010eed3031ad84fec180c006c6f67732f6170702e6c6f67f577c2\
    0095682f7f0124000000000000000000000000000000000066696c656c6f6700666530303a3939383039333a31386563\
    3466643831363665656536390100fe000000000000938099000000000069ee6e16d84fec182c01000000000000987197\
    035c02bb7800000000000000000000000000000000000000000000000001000000000000000000000000000000438715\
    1ad84fec180000000000000000000000000000000000000000000000000000104387151ad84fec180d006c6f67732f64\
    6f6e652e6c6f67f57709008e845f83030200000000000000\
    ";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("hexadecimal digits");
        u8::from_str_radix(text, 16).expect("hexadecimal digits")
    };
    digits.chunks(2).map(pair).collect()
}

/// Logs, an old store and what came out, below one directory. The old store names its logs by paths
/// relative to it.
struct Old {
    dir: TempDir,
}

impl Old {
    fn new() -> Old {
        let dir = TempDir::new("versions").expect("a temporary directory");
        for sub in ["logs", "run", "state/checkpoints"] {
            fs::create_dir_all(dir.join(sub)).expect("a directory");
        }
        let old = Old { dir };
        let stored = old.dir.join("state/checkpoints");
        fs::write(stored.join("0000000000000001.log"), bytes(LOG_1)).expect("written");
        fs::write(stored.join("0000000000000001.snapshot"), bytes(SNAPSHOT_1)).expect("written");
        old.append("app", 0..40);
        old.append("done", 0..20);
        old
    }

    fn append(&self, name: &str, lines: std::ops::Range<u32>) {
        let path = self.dir.join(format!("logs/{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        let mut file = file.expect("a file");
        for n in lines {
            writeln!(file, "{name} line {n:04}").expect("written");
        }
    }

    /// What version 1 had not seen: new lines, a rotation, a new log.
    fn go_on(&self) {
        self.append("app", 40..60);
        let path = |name: &str| self.dir.join(name);
        fs::rename(path("logs/done.log"), path("logs/done.log.1")).expect("renamed");
        self.append("done", 20..30);
        self.append("new", 0..10);
    }

    fn spawn(&self) -> Agent {
        let config: Value = json!({
            "receivers": {"file_log": {
                "include": ["logs/*.log"], "start_at": "beginning", "poll_interval": "50ms",
            }},
            "exporters": {"file": {"path": "out.json", "append": true}},
            "service": {"pipelines": {"logs": {
                "receivers": ["file_log"], "exporters": ["file"],
            }}},
        });
        let agent = Agent::spawn_by(
            &config,
            &self.dir.join("state"),
            &self.dir.join("run"),
            |mut command| {
                command.current_dir(self.dir.join(""));
                command
            },
        );
        agent.expect("a process")
    }

    /// The lines that came out, and how often each.
    fn lines(&self) -> BTreeMap<String, u32> {
        let text = fs::read_to_string(self.dir.join("out.json")).unwrap_or_default();
        let mut lines = BTreeMap::new();
        for piece in text.split("\"body\":{\"stringValue\":\"").skip(1) {
            let line = piece.split('"').next().unwrap_or_default();
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        lines
    }
}

/// What is to come out: what version 1 had not delivered.
fn wanted() -> Vec<String> {
    let of = |name: &str, lines: std::ops::Range<u32>| -> Vec<String> {
        lines.map(|n| format!("{name} line {n:04}")).collect()
    };
    [of("app", 40..60), of("done", 20..30), of("new", 0..10)].concat()
}

/// Guarantees that an upgrade goes on where the version before it was, although rotation went on
/// meanwhile.
#[test]
fn positions_of_the_first_version_are_gone_on_from() {
    let mut row = Row::new(36, "upgrade from the first format of positions")
        .how("a store written by the first version (kept byte by byte); its files have grown and rotated")
        .pass(PASS);
    let old = Old::new();
    old.go_on();
    let mut agent = old.spawn();
    agent.expect_ready();
    let all = wait::within(wait::BOUND, || old.lines().len() >= wanted().len());
    assert!(all, "{:?}\n{}", old.lines(), tail(&agent.log()));
    agent.stop_clean();
    let lines = old.lines();
    assert_eq!(lines.keys().cloned().collect::<Vec<_>>(), wanted());
    assert!(lines.values().all(|n| *n == 1), "repeated: {lines:?}");
    row.reached("60 old lines not sent again, 40 new ones once each");
    row.record();
}

/// Guarantees that an upgrade which is killed at any moment goes on from the same place.
#[test]
fn an_upgrade_that_is_killed_goes_on_from_the_same_place() {
    let upgrades: u64 = scaled(15, 500);
    let mut row = Row::new(36, "upgrade from the first format, killed in the middle")
        .how(format!(
            "{upgrades} upgrades, each killed up to three times within 40 ms of its start"
        ))
        .pass(PASS);
    let mut rng = Rng::new(36);
    let mut again = 0;
    for _ in 0..upgrades {
        let old = Old::new();
        old.go_on();
        for _ in 0..=rng.below(3) {
            let agent = old.spawn();
            wait::let_pass(Duration::from_millis(rng.below(40)));
            agent.end_now();
        }
        let mut agent = old.spawn();
        agent.expect_ready();
        let all = wait::within(wait::BOUND, || old.lines().len() >= wanted().len());
        assert!(all, "{:?}\n{}", old.lines(), tail(&agent.log()));
        agent.stop_clean();
        let lines = old.lines();
        assert_eq!(lines.keys().cloned().collect::<Vec<_>>(), wanted());
        // The file exporter takes no repeats out; after a kill there may be some, as ever.
        again += lines.values().map(|n| n - 1).sum::<u32>();
    }
    row.reached(format!(
        "no line of {} lost, no old one sent again; {again} new ones sent again after the kills",
        upgrades * wanted().len() as u64
    ));
    row.record();
}

/// The files of a store.
fn stored(state: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let dir = fs::read_dir(state.join("checkpoints")).expect("a store");
    let paths = dir.map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|p| p.extension().is_some_and(|e| e == "log" || e == "snapshot"));
    files
        .map(|p| (p.clone(), fs::read(&p).expect("read")))
        .collect()
}

/// Guarantees that positions of a later version are refused by name and left as they are, so that
/// going back to that version loses and repeats nothing.
#[test]
fn positions_of_a_later_version_are_refused_and_left_alone() {
    let mut row = Row::new(36, "rollback to a version that does not know the format")
        .how("the version in the headers of the store is raised, the agent started, then put back")
        .pass("refused by name; nothing changed; loss 0, dup 0 when the later version runs again");
    let rig = Rig::new("newer");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(1_000).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let before = stored(&rig.state());
    assert!(!before.is_empty());
    let mut later = before.clone();
    for (path, content) in &mut later {
        // Magic, version and checksum are where they are in every version of the format.
        content[8..10].copy_from_slice(&4_000_u16.to_le_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&content[..32]);
        content[32..36].copy_from_slice(&crc.sum().to_le_bytes());
        fs::write(path, &*content).expect("written");
    }
    writer.write_lines(1_000).expect("written");
    let file = rig.path("run/agent.yaml");
    let mut config = rig.config();
    config["service"]["telemetry"]["metrics"]["level"] = json!("none");
    fs::write(&file, config.to_string()).expect("written");
    let pushes = rig.loki.stats().pushes;
    let file = file.to_str().expect("temporary paths are UTF-8");
    let output = run_once(&["--config", file], &rig.state()).expect("the binary runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("newer version (format 4000"), "{err}");
    assert_eq!(stored(&rig.state()), later, "the store was changed");
    assert_eq!(rig.loki.stats().pushes, pushes, "something was sent");
    for (path, content) in &before {
        fs::write(path, content).expect("written");
    }
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    assert_eq!(t.duplicates_raw, 0, "positions were not used");
    row.reached(format!(
        "refused by name, code 1; then 0 of {} lines lost or sent again",
        t.written
    ));
    row.record();
}
