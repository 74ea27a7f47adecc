//! Row 23: a control plane that is gone, slow or lies, and pipelines that are worse than what runs.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_opamp::proto::Status;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::loki::{DEFAULT_TENANT, FakeLoki};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::Agent;
use tailwater_tests::control::{self, Control};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::front::{Front, Way};
use tailwater_tests::opamp::OpAmpServer;
use tailwater_tests::rig::{Rig, sink_beside, tail};
use tailwater_tests::wait;

const PASS: &str = "loss 0; runs on the last good configuration for ever, also after a restart; rolled back by itself <= 30 s";

/// Rolling out takes its time: a past, a soak, and what is between.
const BOUND: Duration = Duration::from_secs(180);
/// How long a regressing configuration may be in force anywhere.
const BACK: Duration = Duration::from_secs(30);

/// What is rolled out first. Its lines have a label that tells them from those of the local configuration.
const GOOD: &str = "exporters: {loki: {labels: {static: {release: good}}}}\n";
/// What is rolled out at the end.
const NEXT: &str = "exporters: {loki: {labels: {static: {release: next}}}}\n";

/// The stream of the local configuration.
const OWN_STREAM: &str = r#"{job="e2e"}"#;

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
    "100",
    "--offer-timeout",
    "20s",
];

/// A control plane that signs.
struct Plane {
    control: Control,
    /// The public half of its key.
    key: String,
    home: Rig,
}

impl Plane {
    fn start() -> Plane {
        let home = Rig::new("row23");
        let file = home.path("signing.pem").display().to_string();
        let key = control::once(&["key", &file]).trim().to_owned();
        let options = ["--signing-key", &file];
        let control = Control::start(&home.path("run"), &[&QUICK[..], &options].concat());
        Plane { control, key, home }
    }

    /// The configuration of an agent that is managed by whoever is at this URL.
    fn config(&self, rig: &Rig, url: &str) -> Value {
        let mut config = rig.config();
        config["extensions"]["opamp"] = json!({
            "server": {"ws": {"endpoint": url}},
            "heartbeat_interval": "1s",
            "capabilities": {"accepts_remote_config": true},
            "remote_config": {"public_keys": [self.key], "allow_endpoints": ["127.0.0.1:*"]},
            "agent_description": {"non_identifying_attributes": {"tailwater.group": "shop"}},
        });
        config["service"]["extensions"] = json!(["opamp"]);
        config
    }

    fn agents(&self) -> Vec<Value> {
        let answer = self.control.ask(&["agents", "--group", "shop"]);
        answer["agents"].as_array().expect("a list").clone()
    }

    /// How many connected agents run this.
    fn running(&self, digest: &str) -> usize {
        let is = |a: &&Value| a["connected"] == true && a["runs"] == digest;
        self.agents().iter().filter(is).count()
    }

    /// Has a pipeline rolled out, and gives its digest.
    fn apply(&self, text: &str) -> String {
        let file = self.home.path("pipeline.yaml");
        fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("a path");
        let answer = self.control.ask(&["apply", path, "--group", "shop"]);
        answer["digest"].as_str().expect("a digest").to_owned()
    }

    fn wait(&self, what: &str, met: impl FnMut() -> bool) {
        let done = wait::by_asking(BOUND, met);
        let group = || self.control.ask(&["rollouts", "shop"]);
        assert!(
            done,
            "not seen: {what}\n{}\n{:#?}\n{}",
            group(),
            self.agents(),
            self.control.log()
        );
    }

    /// Applies, and waits until all of so many agents run it and it is what is good.
    fn promote(&self, text: &str, agents: usize) -> String {
        let digest = self.apply(text);
        self.wait("the promotion", || {
            let group = self.control.ask(&["rollouts", "shop"]);
            group["good"]["digest"] == digest.as_str() && self.running(&digest) == agents
        });
        digest
    }
}

fn live(rig: &Rig, lines_per_second: u64) -> LiveWriter {
    let options = LiveOptions {
        lines_per_second,
        rotate_every_lines: Some(2_000),
        lines_max: None,
    };
    LiveWriter::start(rig.writer(1, "a.log", |_| {}), options).expect("a thread")
}

/// Waits until so many lines more are written, and the one that is the newest then has arrived.
fn flows(rig: &Rig, live: &LiveWriter, agent: &Agent, lines: u64) {
    let target = live.lines() + lines;
    assert!(live.wait_lines(target, wait::BOUND), "the writer stopped");
    let delivered = || {
        let progress = rig.oracle.progress();
        progress.iter().map(|p| p.delivered).sum::<u64>() >= target
    };
    let done = wait::within(wait::BOUND, delivered);
    assert!(done, "{}\n{}", rig.summary(), tail(&agent.log()));
}

/// A stand-in for a control plane that was taken over offers what it likes: each offer is refused with a reason, and
/// what is in force stays.
fn lie(liar: &OpAmpServer) {
    let forged = r#"{"version": 1000000, "signature": "AAAA"}"#;
    let long = json!({"version": 1_000_000, "signature": format!("{}==", "A".repeat(86))});
    let long = long.to_string();
    let elsewhere = "exporters: {loki: {endpoint: 'http://127.0.0.1:9/loki/api/v1/push'}}\n";
    let signature = "tailwater-signature.json";
    let offers: [(&str, &[(&str, &str)]); 5] = [
        ("unsigned", &[("pipeline.yaml", elsewhere)]),
        (
            "forged",
            &[("pipeline.yaml", elsewhere), (signature, forged)],
        ),
        ("zeros", &[("pipeline.yaml", GOOD), (signature, &long)]),
        ("broken", &[("pipeline.yaml", "exporters: [")]),
        // It takes away what is there.
        ("nothing", &[]),
    ];
    for (name, files) in offers {
        liar.offer(name, files);
        let seen = liar.wait(name, |s| {
            s.status() == (Status::Failed as i32, name.to_owned())
        });
        assert!(!seen.error().is_empty(), "{name}");
        let effective = seen.effective_text();
        assert!(effective.contains("release: good"), "{name}: {effective}");
    }
}

/// Guarantees that a control plane that is slow, silent, cut off, gone or taken over costs no line and changes nothing:
/// the agent runs on what was good last, also when it is killed or started again meanwhile; and that one that is back
/// goes on where it was.
#[test]
fn a_control_plane_that_is_gone_slow_or_lies_changes_nothing() {
    let each = scaled(Duration::from_secs(2), Duration::from_secs(60));
    let mut row = Row::new(23, "control plane slow, silent, gone or taken over")
        .how(format!(
            "a signed pipeline is in force; then, for {} s each, what the control plane says comes at 200 B/s, nothing of it arrives, \
             connections are cut after 300 bytes, and answers have no end; it is killed, the agent started again after SIGTERM and \
             after SIGKILL; somebody else listens in its place and offers five things; it comes back; all under writing with rotation",
            each.as_secs()
        ))
        .pass(PASS);
    let mut plane = Plane::start();
    let front = Front::start(plane.control.addr()).expect("a port");
    let rig = Rig::new("row23-agent");
    let url = format!("ws://{}/v1/opamp", front.addr());
    let config = plane.config(&rig, &url);
    let live = live(&rig, scaled(200, 500));
    let mut agent = rig.start(&config);
    plane.wait("the agent", || plane.running("own") == 1);
    let good = plane.promote(GOOD, 1);
    flows(&rig, &live, &agent, 50);
    let own_lines = rig.loki.copies(DEFAULT_TENANT, OWN_STREAM);

    for way in [
        Way::Slow(200),
        Way::Swallow,
        Way::CutAfter(300),
        Way::Endless(1 << 20),
    ] {
        front.set(way);
        wait::let_pass(each);
        flows(&rig, &live, &agent, 50);
    }
    front.set(Way::Pass);
    plane.wait("the agent again", || plane.running(&good) == 1);

    plane.control.kill();
    wait::let_pass(each);
    flows(&rig, &live, &agent, 50);
    let mut starts = Vec::new();
    for kill in [false, true] {
        match kill {
            true => agent.kill(),
            false => agent.stop_clean(),
        }
        let begin = Instant::now();
        agent = rig.start(&config);
        starts.push(begin.elapsed());
        flows(&rig, &live, &agent, 50);
    }
    let liar = OpAmpServer::start_at(plane.control.addr());
    lie(&liar);
    flows(&rig, &live, &agent, 50);
    drop(liar);
    let now = rig.loki.copies(DEFAULT_TENANT, OWN_STREAM);
    assert_eq!(now, own_lines, "the local configuration came into force");

    plane.control.start_again();
    plane.wait("the agent again", || plane.running(&good) == 1);
    plane.promote(NEXT, 1);
    flows(&rig, &live, &agent, 50);
    live.stop().expect("a writer");
    rig.wait_delivered(&agent);
    let totals = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost or shown twice; all of them under what was good last",
        totals.written
    ));
    row.reached("5 of 5 offers of somebody else refused with a reason");
    let longest = starts.into_iter().max().unwrap_or_default();
    row.reached(format!(
        "started without it in {:.2} s at most",
        longest.as_secs_f64()
    ));
    row.record();
}

struct Host {
    rig: Rig,
    agent: Agent,
    live: LiveWriter,
}

/// How long the longest of the times is for which an agent ran this, by what the control plane saw; s.
fn ran_for(plane: &Plane, digest: &str) -> f64 {
    let mut longest = 0_u64;
    for agent in plane.agents() {
        let uid = agent["uid"].as_str().expect("a uid");
        let whole = plane.control.ask(&["agents", uid]);
        let ran = whole["ran"].as_array().expect("a list").clone();
        let since = |r: &Value| r["since_ms"].as_u64().expect("a time");
        for pair in ran.windows(2).filter(|p| p[0]["runs"] == digest) {
            longest = longest.max(since(&pair[1]) - since(&pair[0]));
        }
    }
    longest as f64 / 1e3
}

/// A pipeline that leads to a destination that does not take anything; its text differs with `n`.
fn regression(n: u32, sink: &FakeLoki) -> String {
    format!(
        "exporters: {{loki: {{endpoint: '{}', labels: {{static: {{release: r{n}}}}}}}}}\n",
        sink.push_url()
    )
}

/// Guarantees that a pipeline which is worse than what runs reaches one agent of three, is taken back by itself, and
/// costs no line of any.
#[test]
fn a_pipeline_that_is_worse_is_taken_back_and_costs_no_line() {
    let times = scaled(1, 6);
    let mut row = Row::new(23, "a regressing pipeline")
        .how(format!(
            "three agents under writing with rotation; {times} times a pipeline is rolled out whose destination refuses connections \
             or answers 503 to everything; soak of 6 s, confirmed for 2 s"
        ))
        .pass(PASS);
    let plane = Plane::start();
    let url = plane.control.url("ws");
    let host = |n: u32| {
        let rig = Rig::new(&format!("row23-{n}"));
        let live = live(&rig, 50);
        let agent = rig.start(&plane.config(&rig, &url));
        Host { rig, agent, live }
    };
    let hosts: Vec<Host> = (1..=3).map(host).collect();
    plane.wait("three agents", || plane.running("own") == 3);
    let good = plane.promote(GOOD, 3);
    let mut longest = 0_f64;
    for n in 0..times {
        let reach = match n % 2 {
            0 => Reach::Refused,
            _ => Reach::Unavailable,
        };
        let dead = sink_beside(reach);
        let bad = plane.apply(&regression(n, &dead));
        plane.wait("the canary", || plane.running(&bad) == 1);
        plane.wait("the way back", || {
            let group = plane.control.ask(&["rollouts", "shop"]);
            let is_over = group["phase"] == "idle" && group["candidate"].is_null();
            is_over && plane.running(&good) == 3
        });
        let group = plane.control.ask(&["rollouts", "shop"]);
        let reason = group["quarantine"][&bad].as_str();
        println!("taken back: {}", reason.expect("it is quarantined"));
        longest = longest.max(ran_for(&plane, &bad));
        assert_eq!(dead.stats().entries_accepted, 0);
        if group["frozen"] == true {
            plane.control.tell(&["unfreeze", "--group", "shop"]);
        }
    }
    let mut written = 0;
    for host in hosts {
        host.live.stop().expect("a writer");
        host.rig.wait_delivered(&host.agent);
        written += host.rig.finish(host.agent).totals.written;
    }
    row.reached(format!(
        "0 of {written} lines of three agents lost or shown twice"
    ));
    row.held(
        longest <= BACK.as_secs_f64(),
        format!("in force on one agent of three for {longest:.1} s at most"),
    );
    row.record();
}
