//! A control plane, three agents, and changes of their pipeline: as processes, by their command lines.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::Agent;
use tailwater_tests::control::Control;
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

/// Rolling out takes its time: a past, a soak, and what is between, for each stage.
const BOUND: Duration = Duration::from_secs(180);
/// The destination takes no more labels on a stream.
const LABELS_MAX: usize = 4;

/// Labels of a stream under a pipeline that does well.
const GOOD: &str = "exporters: {loki: {labels: {static: {release: good}}}}\n";
/// Under one that is valid, comes into force, and whose lines the destination refuses.
const BAD: &str =
    "exporters: {loki: {labels: {static: {a: '1', b: '2', c: '3', d: '4', e: '5'}}}}\n";

const QUICK: [&str; 14] = [
    "--soak",
    "6s",
    "--baseline",
    "3s",
    "--confirm",
    "2s",
    "--poll",
    "1s",
    "--reconcile",
    "2s",
    "--waves",
    "50,100",
    "--offer-timeout",
    "20s",
];

struct Host {
    rig: Rig,
    agent: Agent,
    _writer: LiveWriter,
}

struct Fleet {
    control: Control,
    hosts: Vec<Host>,
    /// What each agent ran, from when, ms.
    ran: BTreeMap<String, Vec<(u64, String)>>,
    home: Rig,
}

impl Fleet {
    fn new(args: &[&str]) -> Fleet {
        let home = Rig::new("fleet");
        let control = Control::start(&home.path("run"), &[&QUICK[..], args].concat());
        let host = |number: u32| {
            let behaviour = LokiBehaviour {
                label_names_max: Some(LABELS_MAX),
                ..LokiBehaviour::permissive()
            };
            let rig = Rig::with(&format!("fleet-{number}"), behaviour, Faults::default());
            let mut config = rig.config();
            config["extensions"]["opamp"] = json!({
                "server": {"ws": {"endpoint": control.url("ws")}},
                "heartbeat_interval": "1s",
                "capabilities": {"accepts_remote_config": true},
                "agent_description": {"non_identifying_attributes": {"tailwater.group": "shop"}},
            });
            config["service"]["extensions"] = json!(["opamp"]);
            // Lines that are refused are lost on purpose here.
            let writer = rig.writer(number, "a.log", |o| o.oracle = None);
            let options = LiveOptions {
                lines_per_second: 50,
                rotate_every_lines: None,
                lines_max: None,
            };
            let _writer = LiveWriter::start(writer, options).expect("a thread");
            let agent = rig.start(&config);
            Host {
                rig,
                agent,
                _writer,
            }
        };
        let hosts = (1..=3).map(host).collect();
        let mut fleet = Fleet {
            control,
            hosts,
            ran: BTreeMap::new(),
            home,
        };
        fleet.wait("three agents with their own configuration", |f| {
            let runs = f.runs();
            runs.len() == 3 && runs.values().all(|r| r == "own")
        });
        fleet
    }

    fn agents(&self) -> Vec<Value> {
        let answer = self.control.ask(&["agents", "--group", "shop"]);
        answer["agents"].as_array().expect("a list").clone()
    }

    /// What each connected agent runs.
    fn runs(&self) -> BTreeMap<String, String> {
        let there = self.agents().into_iter().filter(|a| a["connected"] == true);
        let text = |v: &Value| v.as_str().unwrap_or("unknown").to_owned();
        there.map(|a| (text(&a["uid"]), text(&a["runs"]))).collect()
    }

    fn group(&self) -> Value {
        self.control.ask(&["rollouts", "shop"])
    }

    fn wait(&mut self, what: &str, mut met: impl FnMut(&Fleet) -> bool) {
        let done = wait::within(BOUND, || met(self));
        assert!(
            done,
            "not seen: {what}\n{}\n{}\n{}",
            self.group(),
            self.table(),
            self.control.log()
        );
    }

    /// Has a pipeline rolled out, and gives its digest.
    fn apply(&self, name: &str, text: &str) -> String {
        let file = self.home.path(name);
        fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("a path");
        let answer = self.control.ask(&["apply", path, "--group", "shop"]);
        answer["digest"].as_str().expect("a digest").to_owned()
    }

    /// What each agent ran when, as the control plane tells it.
    fn history(&mut self) -> &BTreeMap<String, Vec<(u64, String)>> {
        for agent in self.agents() {
            let uid = agent["uid"].as_str().expect("a uid").to_owned();
            let whole = self.control.ask(&["agents", &uid]);
            let ran = whole["ran"].as_array().expect("a list");
            let one = |r: &Value| {
                let runs = r["runs"].as_str().unwrap_or("unknown").to_owned();
                (r["since_ms"].as_u64().expect("a time"), runs)
            };
            self.ran.insert(uid, ran.iter().map(one).collect());
        }
        &self.ran
    }

    fn table(&mut self) -> String {
        self.history();
        let begin = self
            .ran
            .values()
            .flatten()
            .map(|(at, _)| *at)
            .min()
            .unwrap_or(0);
        let mut out = String::from("agent                                 after s  runs\n");
        for (uid, ran) in &self.ran {
            for (at, runs) in ran {
                let seconds = (at - begin) as f64 / 1000.0;
                let runs = runs.get(..12).unwrap_or(runs);
                out += &format!("{uid}  {seconds:7.1}  {runs}\n");
            }
        }
        out
    }

    /// Which digests each agent ran, in their order.
    fn order(&mut self) -> Vec<Vec<String>> {
        let ran = self.history().values();
        ran.map(|r| r.iter().map(|(_, runs)| runs.clone()).collect())
            .collect()
    }
}

/// Guarantee: a pipeline that does harm reaches one agent of three and is taken back by itself, is never offered
/// again, and hurts nobody else; one that does well reaches all, one after the other; what runs outlives the
/// control plane.
#[test]
fn a_bad_pipeline_reaches_one_agent_and_a_good_one_all() {
    let mut fleet = Fleet::new(&[]);
    let bad = fleet.apply("bad.yaml", BAD);
    let is_on = |f: &Fleet, digest: &str| f.runs().values().filter(|r| *r == digest).count();
    fleet.wait("the canary", |f| is_on(f, &bad) == 1);
    fleet.wait("the way back", |f| {
        let group = f.group();
        group["phase"] == "idle" && group["candidate"].is_null() && is_on(f, "own") == 3
    });
    let group = fleet.group();
    let reason = group["quarantine"][&bad]
        .as_str()
        .expect("it is quarantined");
    assert!(reason.contains("dropped lines"), "{reason}");
    let order = fleet.order();
    assert_eq!(
        order.iter().filter(|o| o.contains(&bad)).count(),
        1,
        "{order:?}"
    );
    let again = fleet.control.run(&[
        "apply",
        fleet.home.path("bad.yaml").to_str().expect("a path"),
        "--group",
        "shop",
    ]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("quarantined"));

    let good = fleet.apply("good.yaml", GOOD);
    fleet.wait("the canary", |f| is_on(f, &good) >= 1);
    assert!(is_on(&fleet, &good) < 3, "not all at once");
    fleet.wait("the promotion", |f| {
        f.group()["good"]["digest"] == good.as_str() && is_on(f, &good) == 3
    });
    let table = fleet.table();
    println!("{table}");
    let own = "own".to_owned();
    for order in fleet.order() {
        let expected = match order.contains(&bad) {
            true => vec![own.clone(), bad.clone(), own.clone(), good.clone()],
            false => vec![own.clone(), good.clone()],
        };
        assert_eq!(order, expected, "{table}");
    }
    // And so does the destination see it.
    for host in &fleet.hosts {
        let has = || {
            host.rig
                .loki
                .streams(DEFAULT_TENANT)
                .iter()
                .any(|s| s.contains("release=\"good\""))
        };
        assert!(wait::within(wait::BOUND, has), "{}", host.agent.log());
    }
    // The control plane is killed; a new one knows what is good, and finds nothing to do.
    let before = fleet.control.log().matches("is offered").count();
    fleet.control.restart();
    fleet.wait("all agents again", |f| is_on(f, &good) == 3);
    fleet.wait("a comparison", |f| {
        let steps = f.group()["steps"].clone();
        let newest = steps[0]["epoch"].as_u64();
        newest > Some(1)
    });
    assert_eq!(fleet.group()["good"]["digest"], good.as_str());
    assert_eq!(fleet.control.log().matches("is offered").count(), before);
    let audit = fleet.control.ask(&["audit"]);
    let actions: Vec<_> = audit["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| e["action"].clone())
        .collect();
    for action in ["apply", "alert rolled_back", "promote"] {
        assert!(actions.contains(&json!(action)), "{action}: {actions:?}");
    }
}

/// Guarantee: with an approval, no agent is offered anything before somebody said yes; a mistake that can be seen
/// is refused with its place; pausing keeps it where it is, and taking it back brings all back.
#[test]
fn nothing_begins_before_somebody_approves() {
    let mut fleet = Fleet::new(&["--approval", "10m"]);
    let wrong = fleet.home.path("wrong.yaml");
    fs::write(&wrong, "exporter: {}\n").expect("a file");
    let path = wrong.to_str().expect("a path");
    let refused = fleet.control.run(&["apply", path, "--group", "shop"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pipeline:1:1: unknown section"));
    let good = fleet.apply("good.yaml", GOOD);
    fleet.wait("the gate", |f| f.group()["phase"] == "approve");
    assert!(fleet.runs().values().all(|r| r == "own"));
    assert!(!fleet.control.log().contains("is offered"));
    fleet.control.tell(&["approve", "--group", "shop"]);
    fleet.wait("the canary", |f| f.runs().values().any(|r| *r == good));
    fleet.control.tell(&["pause", "--group", "shop"]);
    fleet.wait("the pause", |f| !f.group()["candidate"]["paused"].is_null());
    let twice = fleet.control.run(&["approve", "--group", "shop"]);
    assert!(String::from_utf8_lossy(&twice.stderr).contains("nothing waits for an approval"));
    fleet.control.tell(&["rollback", "--group", "shop"]);
    fleet.wait("the way back", |f| {
        f.group()["phase"] == "idle" && f.runs().values().all(|r| r == "own")
    });
    assert!(fleet.group()["quarantine"][&good].is_string());
}
