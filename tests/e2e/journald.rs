//! The journal into the real binary: through the system's journalctl where there is one that reads made journals,
//! and through a stand-in that ends, stutters and waits as it is told.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

/// What makes journals of text.
const REMOTE: &str = "/lib/systemd/systemd-journal-remote";

/// A rig whose agents read a journal in a directory, and deliver messages to the sink.
struct Journal {
    rig: Rig,
    config: Value,
    dir: PathBuf,
    /// When the first entry came, in microseconds.
    first_us: u64,
}

impl Journal {
    fn new(label: &str) -> Journal {
        let rig = Rig::new(label);
        let dir = rig.path("journal");
        fs::create_dir(&dir).expect("a directory");
        let mut config = rig.config();
        config["receivers"] = json!({"journald": {
            "directory": dir,
            "start_at": "beginning",
            "convert_to_semantic_conventions": true,
        }});
        config["service"]["pipelines"]["logs"]["receivers"] = json!(["journald"]);
        // Each change is waited for by what the log says of it.
        config["service"]["telemetry"]["logs"] =
            json!({"level": "info", "sampling": {"enabled": false}});
        let first_us = rig.start_ns() as u64 / 1000;
        Journal {
            rig,
            config,
            dir,
            first_us,
        }
    }

    /// The same, with the stand-in for journalctl.
    fn stand_in(label: &str) -> Journal {
        let mut journal = Journal::new(label);
        let python =
            "import os, sys; print(os.path.realpath(sys.executable)); print(sys.base_prefix)";
        let out = Command::new("python3").args(["-c", python]).output();
        let out = out.expect("python3 runs").stdout;
        let out = String::from_utf8(out).expect("text");
        let (python, prefix) = out.trim().split_once('\n').expect("two lines");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/journalctl_standin.py");
        let text = fs::read_to_string(script).expect("the stand-in");
        let program = journal.rig.path("journalctl");
        fs::write(&program, format!("#!{python}\n{text}")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        journal.config["receivers"]["journald"]["journalctl_path"] = json!(program);
        // What the interpreter reads, and where the stand-in says how it was started.
        journal.config["service"]["sandbox"] = json!({"read": [prefix], "write": [journal.dir]});
        File::create(journal.dir.join("journal")).expect("a journal");
        journal
    }

    fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    /// Adds a line to the journal of the stand-in.
    fn add(&self, line: &str) {
        append(&self.dir, line);
    }

    fn add_entries(&self, numbers: std::ops::Range<usize>) {
        numbers.for_each(|n| self.add(&entry(self.first_us, n)));
    }

    /// Adds an entry every millisecond until `ended`; then says how many.
    fn write_on(&self, ended: &Arc<AtomicBool>) -> JoinHandle<usize> {
        let (ended, dir, first_us) = (ended.clone(), self.dir.clone(), self.first_us);
        std::thread::spawn(move || {
            let mut sent = 0;
            while !ended.load(Ordering::SeqCst) {
                append(&dir, &entry(first_us, sent));
                sent += 1;
                wait::let_pass(Duration::from_millis(1));
            }
            sent
        })
    }

    /// Behind which entry the stand-in was started the last time.
    fn started_behind(&self) -> Option<usize> {
        let (_, args) = self.starts().pop()?;
        let (_, cursor) = args.split_once("\"--after-cursor\",\"s=1;i=")?;
        let (number, _) = cursor.split_once('"')?;
        Some(usize::from_str_radix(number, 16).expect("a cursor of the stand-in"))
    }

    /// How the stand-in was started: its process and arguments.
    fn starts(&self) -> Vec<(u32, String)> {
        let text = fs::read_to_string(self.dir.join("starts")).unwrap_or_default();
        let start = |line: &str| -> Option<(u32, String)> {
            let start: Value = serde_json::from_str(line).ok()?;
            let pid = u32::try_from(start["pid"].as_u64()?).ok()?;
            Some((pid, start["args"].to_string()))
        };
        text.lines().filter_map(start).collect()
    }

    /// How often the sink has each line.
    fn lines(&self) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        for labels in self.rig.loki.streams(DEFAULT_TENANT) {
            for entry in self.rig.loki.entries(DEFAULT_TENANT, &labels) {
                let line = String::from_utf8_lossy(&entry.line).into_owned();
                *lines.entry(line).or_insert(0) += 1;
            }
        }
        lines
    }

    /// Waits until the sink has so many lines, each once.
    fn expect_once(&self, agent: &Agent, lines: usize) {
        let there = wait::within(wait::BOUND, || self.lines().len() >= lines);
        let found = self.lines();
        assert!(there, "{} of {lines}\n{}", found.len(), agent.log());
        let twice: Vec<_> = found.iter().filter(|(_, n)| **n != 1).collect();
        assert!(found.len() == lines && twice.is_empty(), "{twice:?}");
    }

    /// Makes a journal of entries for the real journalctl.
    fn make(&self, name: &str, numbers: std::ops::Range<usize>) {
        let boot = "97aadff9d7c34ac7923d4a9af0c1c2b4";
        let mut text = String::new();
        for n in numbers {
            let (us, place) = (self.first_us + n as u64, n + 1);
            text += &format!(
                "__REALTIME_TIMESTAMP={us}\n__MONOTONIC_TIMESTAMP={place}\n_BOOT_ID={boot}\n\
                 MESSAGE=line-{n}\nPRIORITY=6\nSYSLOG_IDENTIFIER=made\n\n"
            );
        }
        let mut remote = Command::new(REMOTE)
            .arg("-o")
            .arg(self.dir.join(name))
            .arg("-")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let stdin = remote.stdin.take().expect("a pipe");
        let mut stdin = stdin;
        stdin.write_all(text.as_bytes()).expect("written");
        drop(stdin);
        assert!(remote.wait().expect("it ends").success());
    }
}

fn append(dir: &Path, line: &str) {
    let journal = OpenOptions::new().append(true).open(dir.join("journal"));
    let line = format!("{line}\n");
    journal
        .expect("it is there")
        .write_all(line.as_bytes())
        .expect("written");
}

fn entry(first_us: u64, n: usize) -> String {
    json!({
        "__CURSOR": format!("s=1;i={n:x}"),
        "__REALTIME_TIMESTAMP": (first_us + n as u64).to_string(),
        "MESSAGE": format!("line-{n}"),
        "PRIORITY": "6",
    })
    .to_string()
}

fn is_running(pid: u32) -> bool {
    // One that ended and that nobody waited for has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Guarantee: entries of journals that the system's own tools make arrive once each, also those that come
/// while it follows, after a kill, and after a stop.
#[test]
fn the_systems_journalctl_is_read() {
    let runs = Command::new("journalctl").arg("--version").output();
    if runs.is_err() || !Path::new(REMOTE).exists() {
        println!(
            "SKIPPED: there is no journalctl, or no systemd-journal-remote to make journals with"
        );
        return;
    }
    let journal = Journal::new("journald-real");
    journal.make("a.journal", 0..3000);
    let agent = journal.start();
    journal.expect_once(&agent, 3000);
    journal.make("b.journal", 3000..4000);
    journal.expect_once(&agent, 4000);
    let account = agent.scrape().account("receiver");
    assert_eq!((account.read, account.delivered), (4000.0, 4000.0));
    agent.stop_clean();
    journal.make("c.journal", 4000..5000);
    let agent = journal.start();
    journal.expect_once(&agent, 5000);
    journal.rig.loki.set_reach(Reach::Refused).expect("closed");
    journal.make("d.journal", 5000..6000);
    let read = || agent.scrape().account("receiver").read >= 1100.0;
    assert!(wait::within(wait::BOUND, read), "{}", agent.log());
    agent.kill();
    journal.rig.loki.set_reach(Reach::Up).expect("open");
    let agent = journal.start();
    journal.expect_once(&agent, 6000);
    agent.stop_clean();
}

/// Guarantee: a process that ends is started again behind the last entry that came, and counted; lines that are no
/// entry, and those that are too long, are left out and counted; at a stop it ends, too.
#[test]
fn a_process_that_ends_is_started_again() {
    let mut journal = Journal::stand_in("journald-ends");
    journal.config["receivers"]["journald"]["entry_bytes_max"] = json!(64 << 10);
    journal.add_entries(0..100);
    journal.add("no entry at all");
    journal.add(&json!({"__CURSOR": "s=1;i=x", "MESSAGE": "y".repeat(100_000)}).to_string());
    let agent = journal.start();
    journal.expect_once(&agent, 100);
    File::create(journal.dir.join("die")).expect("told");
    let again = || journal.starts().len() == 2;
    assert!(wait::within(wait::BOUND, again), "{}", agent.log());
    journal.add_entries(100..150);
    journal.expect_once(&agent, 150);
    let starts = journal.starts();
    assert!(starts[0].1.contains("--no-tail"), "{starts:?}");
    assert!(!starts[0].1.contains("--after-cursor"), "{starts:?}");
    let cursor = format!("\"--after-cursor\",\"s=1;i={:x}\"", 99);
    assert!(starts[1].1.contains(&cursor), "{starts:?}");
    let scrape = agent.scrape();
    let count = |name: &str| scrape.sum(&format!("tailwater_receiver_{name}"), &[]);
    assert_eq!(count("journalctl_restarts"), 1.0);
    assert_eq!(
        count("oversized_entries"),
        2.0,
        "it comes again behind the cursor"
    );
    assert_eq!(count("unreadable_entries"), 2.0);
    assert!(agent.log().contains("told to end"), "{}", agent.log());
    let account = scrape.account("receiver");
    assert_eq!((account.read, account.delivered), (150.0, 150.0));
    agent.stop_clean();
    assert!(!is_running(starts[1].0), "it goes on");
}

/// Guarantee: the position does not pass what the destination has not accepted, over a kill and over a stop, and
/// nothing is shown twice.
#[test]
fn the_position_passes_what_is_accepted() {
    let journal = Journal::stand_in("journald-outage");
    journal.add_entries(0..50);
    let agent = journal.start();
    journal.expect_once(&agent, 50);
    journal.rig.loki.set_reach(Reach::Refused).expect("closed");
    journal.add_entries(50..500);
    let read = || agent.scrape().account("receiver").read == 500.0;
    assert!(wait::within(wait::BOUND, read), "{}", agent.log());
    agent.kill();
    journal.rig.loki.set_reach(Reach::Up).expect("open");
    let agent = journal.start();
    journal.expect_once(&agent, 500);
    agent.stop_clean();
    journal.add_entries(500..600);
    let agent = journal.start();
    journal.expect_once(&agent, 600);
    let account = agent.scrape().account("receiver");
    assert_eq!(account.read, 100.0, "nothing is read again after a stop");
    agent.stop_clean();
}

/// Guarantee: changes of the receiver and of what is behind it while entries come lose nothing and repeat nothing, and
/// one process at a time reads for each destination.
#[test]
fn changes_lose_and_repeat_nothing() {
    let mut journal = Journal::stand_in("journald-reload");
    let agent = journal.start();
    let ended = Arc::new(AtomicBool::new(false));
    let writing = journal.write_on(&ended);
    for n in 0..8 {
        let receiver = &mut journal.config["receivers"]["journald"];
        receiver["attributes"] = json!({"change": n.to_string()});
        journal.config["processors"]["batch"]["send_batch_size"] = json!(1000 + n);
        assert!(agent.reload(&journal.config), "{n}: {}", agent.log());
        wait::let_pass(Duration::from_millis(100));
    }
    ended.store(true, Ordering::SeqCst);
    let sent = writing.join().expect("no panic");
    journal.expect_once(&agent, sent);
    let starts = journal.starts();
    let running = || starts.iter().filter(|(pid, _)| is_running(*pid)).count();
    assert!(wait::within(wait::BOUND, || running() == 1), "{starts:?}");
    let faults = agent.scrape().faults();
    assert!(faults.is_empty(), "{faults:?}");
    agent.stop_clean();
    assert_eq!(running(), 0);
}

/// Guarantee: however often the agent is killed while entries come, each arrives and none twice; a position never
/// passes an entry that is not there, and after a stop it is the last one's.
#[test]
fn kills_lose_and_repeat_nothing() {
    let journal = Journal::stand_in("journald-kills");
    let ended = Arc::new(AtomicBool::new(false));
    let writing = journal.write_on(&ended);
    let mut there = BTreeMap::new();
    let mut moved = 0;
    for kill in 0..12 {
        let starts = journal.starts().len();
        let agent = journal.start();
        let started = || journal.starts().len() > starts;
        assert!(wait::within(wait::BOUND, started), "{}", agent.log());
        if let Some(last) = journal.started_behind() {
            let missing = (0..=last).find(|n| !there.contains_key(&format!("line-{n}")));
            assert_eq!(missing, None, "kill {kill}: the position is {last}");
            moved += usize::from(last > 0);
        }
        // From before the first position to well behind several.
        wait::let_pass(Duration::from_millis(37 * kill % 400));
        agent.kill();
        there = journal.lines();
    }
    assert!(moved > 0, "no position was ever kept");
    ended.store(true, Ordering::SeqCst);
    let sent = writing.join().expect("no panic");
    let agent = journal.start();
    journal.expect_once(&agent, sent);
    agent.stop_clean();
    let agent = journal.start();
    let started = || journal.started_behind() == Some(sent - 1);
    assert!(wait::within(wait::BOUND, started), "{:?}", journal.starts());
    agent.stop_clean();
    journal.starts().iter().for_each(|(pid, _)| {
        assert!(wait::within(wait::BOUND, || !is_running(*pid)), "{pid}");
    });
}

/// Guarantee: entries that operators put together are there once, whatever the position was when the agent was
/// killed.
#[test]
fn entries_that_belong_together_stay_so() {
    let mut journal = Journal::stand_in("journald-joined");
    journal.config["receivers"]["journald"]["operators"] = json!([{
        "type": "recombine", "combine_field": "body", "combine_with": "+",
        "is_first_entry": "body matches '[05]$'", "force_flush_period": "300ms",
    }]);
    journal.add_entries(0..998);
    let agent = journal.start();
    let some = || journal.lines().len() >= 150;
    assert!(wait::within(wait::BOUND, some), "{}", agent.log());
    agent.kill();
    journal.add_entries(998..1000);
    let agent = journal.start();
    let joined = |n: usize| {
        let parts: Vec<String> = (n..n + 5).map(|n| format!("line-{n}")).collect();
        parts.join("+")
    };
    let all: Vec<String> = (0..200).map(|n| joined(5 * n)).collect();
    let there = || {
        let lines = journal.lines();
        all[..199].iter().all(|line| lines.contains_key(line))
    };
    assert!(wait::within(wait::BOUND, there), "{:?}", journal.lines());
    let lines = journal.lines();
    let odd: Vec<_> = lines.keys().filter(|line| !all.contains(line)).collect();
    // What came last may have been passed on before it was complete.
    let last = |line: &&&String| line.starts_with("line-995") || line.starts_with("line-998");
    assert!(odd.iter().all(|line| last(&line)), "{odd:?}");
    assert!(lines.values().all(|n| *n == 1), "{lines:?}");
    agent.stop_clean();
}
