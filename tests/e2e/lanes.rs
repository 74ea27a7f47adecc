//! Several destinations of one receiver: each goes on by itself, whatever becomes of the others, over
//! kills, restarts and changes of the configuration.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::FakeLoki;
use tailwater_testkit::loki::behaviour::{Faults, Reach};
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Compress, Naming, Rotation};
use tailwater_tests::agent::{Agent, run_once};
use tailwater_tests::rig::{Rig, add_exporter, sink_beside, tail};
use tailwater_tests::wait;

/// The configuration of `rig` with exporters `loki` and, to another address, `loki/dead`.
fn with_dead(rig: &Rig, dead: &FakeLoki) -> Value {
    let mut config = rig.config();
    add_exporter(&mut config, "loki/dead", dead);
    config["service"]["pipelines"]["logs"]["exporters"] = json!(["loki", "loki/dead"]);
    config["service"]["shutdown_timeout"] = json!("1s");
    config
}

/// Waits until positions are on disk.
fn wait_saved(agent: &Agent) {
    let unsaved = || {
        agent
            .scrape()
            .sum("tailwater_checkpoint_unsaved_entries", &[])
    };
    assert!(wait::within(wait::BOUND, || unsaved() == 0.0), "unsaved");
}

/// Records of the receiver's account in the lane to `exporter`.
fn of_lane(agent: &Agent, what: &str, exporter: &str) -> f64 {
    let labels = [("kind", "receiver"), ("exporter", exporter)];
    agent
        .scrape()
        .sum(&format!("tailwater_records_{what}"), &labels)
}

/// Guarantees that a destination that is dead for long costs the one beside it nothing: it has all
/// lines all the time, and none again, whether the agent is killed or stopped and whatever rotation
/// does; the dead one gets everything once it is back.
#[test]
fn a_dead_destination_costs_a_live_one_nothing_over_kills_and_restarts() {
    const LIVES: u64 = 6;
    const LINES: u64 = 3_000;
    let (rig, dead) = (Rig::new("lanes-dead"), sink_beside(Reach::Refused));
    let config = with_dead(&rig, &dead);
    let mut writer = rig.writer(1, "app.log", |_| {});
    for life in 0..LIVES {
        let agent = rig.start(&config);
        writer.write_lines(LINES).expect("written");
        rig.wait_delivered(&agent);
        if life % 3 == 1 {
            writer.rotate().expect("rotated");
            writer.write_lines(LINES).expect("written");
            rig.wait_delivered(&agent);
        }
        let settled = wait::within(wait::BOUND, || of_lane(&agent, "in_flight", "loki") == 0.0);
        assert!(settled, "{}", tail(&agent.log()));
        assert_eq!(
            of_lane(&agent, "read", "loki"),
            of_lane(&agent, "delivered", "loki")
        );
        let read = of_lane(&agent, "read", "loki/dead");
        assert!(read > 0.0);
        assert_eq!(read, of_lane(&agent, "in_flight", "loki/dead"));
        assert_eq!(agent.scrape().faults(), [""; 0]);
        wait_saved(&agent);
        if life % 2 == 0 {
            agent.kill();
        } else {
            let code = agent.stop_within(wait::BOUND);
            assert_eq!(code, 3, "the dead one has not got everything");
        }
        assert_eq!(
            rig.assert_faultless().totals.duplicates_raw,
            0,
            "life {life}"
        );
    }
    assert_eq!(dead.stats().entries_accepted, 0);
    dead.set_reach(Reach::Up).expect("the port is still free");
    let agent = rig.start(&config);
    let written = writer.lines_written();
    let all = dead.wait_until(wait::BOUND, |s| s.entries_distinct == Some(written));
    assert!(
        all,
        "{:?} of {written}\n{}",
        dead.stats(),
        tail(&agent.log())
    );
    let report = rig.finish(agent);
    assert_eq!(
        report.totals.duplicates_raw, 0,
        "nothing again to the live one"
    );
    assert_eq!(dead.stats().entries_distinct, Some(written));
}

/// Guarantees that kills at any moment, under rotation with compression, cost neither of two
/// destinations a line and show none twice: one that fails now and then, and one that is down most of
/// the time, and so reads from files that were compressed long ago.
#[test]
fn kills_at_any_moment_cost_neither_of_two_destinations_a_line() {
    const KILLS: u64 = 20;
    let (rig, other) = (Rig::new("lanes-kills"), sink_beside(Reach::Refused));
    let config = with_dead(&rig, &other);
    rig.loki
        .set_faults(|f| (f.status_500, f.status_429, f.reset_after) = (0.1, 0.05, 0.1));
    let live = [(1, Compress::Delayed), (2, Compress::Never)].map(|(id, compress)| {
        let writer = rig.writer(id, &format!("app{id}.log"), |o| {
            o.rotation = Rotation::RenameCreate {
                naming: Naming::Numbered,
                keep: 1_000,
                compress,
                late_lines: 3,
            };
        });
        let options = LiveOptions {
            lines_per_second: 1_500,
            rotate_every_lines: Some(700 + 400 * u64::from(id)),
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    });
    let mut rng = Rng::new(9);
    for kill in 0..KILLS {
        // Down for eight lives, up for two.
        let reach = if kill % 10 < 8 {
            Reach::Refused
        } else {
            Reach::Up
        };
        other.set_reach(reach).expect("the port is still free");
        let agent = rig.spawn(&config);
        wait::let_pass(Duration::from_millis(100 + rng.below(700)));
        agent.kill();
    }
    let written: u64 = live
        .map(|w| w.stop().expect("written").lines_written())
        .iter()
        .sum();
    rig.loki.set_faults(|f| *f = Faults::default());
    other.set_reach(Reach::Up).expect("the port is still free");
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let has_all = || other.stats().entries_distinct >= Some(written);
    let all = wait::within(2 * wait::BOUND, has_all);
    assert!(
        all,
        "{:?} of {written}\n{}",
        other.stats(),
        tail(&agent.log())
    );
    rig.finish(agent);
    assert_eq!(other.stats().entries_distinct, Some(written));
}

/// Agents on one directory of logs that write to files, an exporter for each.
struct Files {
    rig: Rig,
    config: Value,
}

impl Files {
    fn new(label: &str) -> Files {
        let rig = Rig::new(label);
        let mut config = rig.config();
        config["receivers"]["filelog"]["start_at"] = json!("end");
        Files { rig, config }
    }

    /// The configuration with these exporters.
    fn to(&self, exporters: &[&str]) -> Value {
        let mut config = self.config.clone();
        let out = |id: &&str| {
            let path = self.rig.path(&id.replace('/', "-"));
            (id.to_string(), json!({"path": path, "append": true}))
        };
        config["exporters"] = exporters
            .iter()
            .map(out)
            .collect::<serde_json::Map<_, _>>()
            .into();
        config["service"]["pipelines"]["logs"]["exporters"] = json!(exporters);
        config
    }

    fn append(&self, name: &str, lines: std::ops::Range<u32>) {
        let options = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.rig.logs(name));
        let text: String = lines.map(|i| format!("{name} {i}\n")).collect();
        options
            .expect("there")
            .write_all(text.as_bytes())
            .expect("written");
    }

    /// The texts that an exporter has written.
    fn got(&self, exporter: &str) -> Vec<String> {
        let text =
            fs::read_to_string(self.rig.path(&exporter.replace('/', "-"))).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut bodies = Vec::new();
        for line in whole.lines() {
            let root: Value = serde_json::from_str(line).expect("a line of JSON");
            let logs = root.pointer("/resourceLogs/0/scopeLogs/0/logRecords");
            let bodies_of = logs.and_then(Value::as_array).into_iter().flatten();
            bodies.extend(
                bodies_of.filter_map(|r| Some(r["body"]["stringValue"].as_str()?.to_owned())),
            );
        }
        bodies
    }

    /// Runs until each of these exporters has exactly these lines of `a.log`.
    fn run(&self, expect: &[(&str, std::ops::Range<u32>)]) {
        let exporters: Vec<&str> = expect.iter().map(|e| e.0).collect();
        let agent = self.rig.start(&self.to(&exporters));
        for (exporter, lines) in expect {
            let want: Vec<String> = lines.clone().map(|i| format!("a.log {i}")).collect();
            wait::within(wait::BOUND, || self.got(exporter).len() >= want.len());
            assert_eq!(
                self.got(exporter),
                want,
                "{exporter}\n{}",
                tail(&agent.log())
            );
        }
        agent.stop_clean();
    }

    fn checkpoints(&self, args: &[&str]) -> String {
        let out = run_once(&[&["checkpoints"], args].concat(), &self.rig.state());
        let out = out.expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            out.status.success(),
            "{}{}",
            text(&out.stdout),
            text(&out.stderr)
        );
        text(&out.stdout)
    }
}

/// Guarantees that a destination that is added gets what is written from then on, one that is taken
/// away and put back goes on where it was, and none gets a line twice.
#[test]
fn destinations_come_and_go() {
    let files = Files::new("lanes-come-and-go");
    files.append("a.log", 0..10);
    let (a, b) = ("file/a", "file/b");
    // The very first start is at the end.
    let agent = files.rig.start(&files.to(&[a]));
    let known = || files.checkpoints_of(&agent) == 1.0;
    assert!(wait::within(wait::BOUND, known), "{}", tail(&agent.log()));
    agent.stop_clean();
    files.append("a.log", 10..20);
    files.run(&[(a, 10..20)]);
    files.append("a.log", 20..30);
    files.run(&[(a, 10..30), (b, 20..30)]);
    files.append("a.log", 30..40);
    files.run(&[(b, 20..40)]);
    let list = files.checkpoints(&["list"]);
    assert!(list.contains("filelog to file/a (kept)"), "{list}");
    files.append("a.log", 40..50);
    files.run(&[(a, 10..50), (b, 20..50)]);
    let list = files.checkpoints(&["list"]);
    for name in ["filelog to file/a ", "filelog to file/b "] {
        assert_eq!(list.matches(name).count(), 1, "{list}");
    }
    assert!(list.contains("2 positions"), "{list}");
    let exported = files.checkpoints(&["export"]);
    let exported: Vec<Value> = exported
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let of = |v: &Value| {
        (
            v["receiver"].clone(),
            v["exporter"].clone(),
            v["kept"].clone(),
        )
    };
    let exported: Vec<_> = exported.iter().map(of).collect();
    let lane = |exporter| (json!("filelog"), json!(exporter), json!(false));
    assert_eq!(exported, [lane(a), lane(b)]);
    let told = files.checkpoints(&["reset", "--path", "a.log", "--yes"]);
    assert!(
        told.contains("filelog to file/a ") && told.contains("2 positions forgotten"),
        "{told}"
    );
}

impl Files {
    fn checkpoints_of(&self, agent: &Agent) -> f64 {
        agent.scrape().sum("tailwater_checkpoint_entries", &[])
    }
}

/// Guarantees that positions of another agent are those of all destinations, whether these have run
/// before or not.
#[test]
fn an_import_is_for_all_destinations() {
    let files = Files::new("lanes-import");
    let (a, b) = ("file/a", "file/b");
    let import = |name: &str| {
        let read: usize = (0..5).map(|i| format!("{name} {i}\n").len()).sum();
        let log = files.rig.logs(name);
        let text = format!("positions:\n  {}: \"{read}\"\n", log.display());
        let positions = files.rig.path("positions.yaml");
        fs::write(&positions, text).expect("written");
        let told = files.checkpoints(&["import", "--from", "promtail", text_of(&positions)]);
        assert!(told.contains("1 position taken over"), "{told}");
    };
    let mut want = Vec::new();
    for name in ["first.log", "second.log"] {
        files.append(name, 0..10);
        import(name);
        want.extend((5..10).map(|i| format!("{name} {i}")));
        let agent = files.rig.start(&files.to(&[a, b]));
        for exporter in [a, b] {
            wait::within(wait::BOUND, || files.got(exporter).len() >= want.len());
            assert_eq!(
                files.got(exporter),
                want,
                "{exporter}\n{}",
                tail(&agent.log())
            );
        }
        agent.stop_clean();
    }
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Guarantees that a file is not deleted before all destinations have it, by whatever pipelines it
/// goes to them, and is then.
#[test]
fn a_file_is_deleted_when_all_destinations_have_it() {
    let (rig, dead) = (Rig::new("lanes-delete"), sink_beside(Reach::Refused));
    let mut config = with_dead(&rig, &dead);
    config["receivers"]["filelog"]["delete_after_read"] = json!(true);
    config["service"]["pipelines"] = json!({
        "logs/live": {"receivers": ["filelog"], "processors": ["batch"], "exporters": ["loki"]},
        "logs/dead": {"receivers": ["filelog"], "exporters": ["loki/dead"]},
    });
    let mut writer = rig.writer(1, "app.log", |_| {});
    let agent = rig.start(&config);
    for _ in 0..3 {
        writer.write_lines(500).expect("written");
        rig.wait_delivered(&agent);
        // Several looks at a file at rest.
        wait::let_pass(Duration::from_millis(300));
        assert!(writer.path().exists(), "the dead one has nothing of it");
    }
    agent.kill();
    let agent = rig.start(&config);
    wait::let_pass(Duration::from_millis(300));
    assert!(writer.path().exists(), "nor after a restart");
    dead.set_reach(Reach::Up).expect("the port is still free");
    let gone = wait::within(wait::BOUND, || !writer.path().exists());
    assert!(gone, "still there\n{}", tail(&agent.log()));
    let written = writer.lines_written();
    assert_eq!(dead.stats().entries_distinct, Some(written));
    rig.finish(agent);
}
