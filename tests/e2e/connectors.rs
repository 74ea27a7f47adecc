//! Connectors: lines go through them to several destinations, over kills and while pipelines are joined in
//! another way, and none is lost; they show up wherever components do.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::FakeLoki;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Compress, Naming, Rotation};
use tailwater_tests::admin::Way;
use tailwater_tests::agent::{Agent, run_once};
use tailwater_tests::rig::{Rig, add_exporter, sink_beside, tail};
use tailwater_tests::wait;

/// How pipelines lead from the files to `loki` and `loki/other`.
const SHAPES: [fn() -> Value; 5] = [
    || {
        json!({
            "logs": {"receivers": ["filelog"], "processors": ["batch"], "exporters": ["forward"]},
            "logs/1": {"receivers": ["forward"], "exporters": ["loki"]},
            "logs/2": {"receivers": ["forward"], "processors": ["batch"], "exporters": ["loki/other"]},
        })
    },
    || {
        json!({
            "logs": {
                "receivers": ["filelog"], "processors": ["batch"], "exporters": ["loki", "loki/other"],
            },
        })
    },
    || {
        json!({
            "logs": {
                "receivers": ["filelog"], "processors": ["batch"], "exporters": ["loki", "forward"],
            },
            "logs/2": {"receivers": ["forward"], "exporters": ["loki/other"]},
        })
    },
    || {
        json!({
            "logs": {"receivers": ["filelog"], "processors": ["batch"], "exporters": ["forward"]},
            "logs/mid": {"receivers": ["forward"], "processors": ["batch"], "exporters": ["forward/b"]},
            "logs/1": {"receivers": ["forward/b"], "exporters": ["loki", "loki/other"]},
        })
    },
    || {
        json!({
            "logs": {"receivers": ["filelog"], "exporters": ["forward", "forward/b"]},
            "logs/1": {"receivers": ["forward"], "processors": ["batch"], "exporters": ["loki"]},
            "logs/2": {"receivers": ["forward/b"], "exporters": ["loki/other"]},
        })
    },
];

fn shaped(rig: &Rig, other: &FakeLoki, shape: usize) -> Value {
    let mut config = rig.config();
    add_exporter(&mut config, "loki/other", other);
    config["connectors"] = json!({"forward": null, "forward/b": null});
    config["service"]["pipelines"] = SHAPES[shape % SHAPES.len()]();
    config["service"]["shutdown_timeout"] = json!("1s");
    config["service"]["telemetry"]["logs"] =
        json!({"level": "info", "sampling": {"enabled": false}});
    config
}

/// Writers that rotate, one with compression.
fn writers(rig: &Rig) -> [LiveWriter; 2] {
    [(1, Compress::Delayed), (2, Compress::Never)].map(|(id, compress)| {
        let writer = rig.writer(id, &format!("app{id}.log"), |o| {
            o.rotation = Rotation::RenameCreate {
                naming: Naming::Numbered,
                keep: 1_000,
                compress,
                late_lines: 3,
            };
        });
        let options = LiveOptions {
            lines_per_second: 1_000,
            rotate_every_lines: Some(700 + 400 * u64::from(id)),
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    })
}

/// Waits until both sinks have all lines, each once, and ends.
fn finish(rig: &Rig, other: &FakeLoki, live: [LiveWriter; 2], agent: Agent) -> u64 {
    let written: u64 = live
        .map(|w| w.stop().expect("written").lines_written())
        .iter()
        .sum();
    other.set_reach(Reach::Up).expect("the port is still free");
    rig.wait_delivered(&agent);
    let has_all = || other.stats().entries_distinct >= Some(written);
    let all = wait::within(2 * wait::BOUND, has_all);
    let log = tail(&agent.log());
    assert!(all, "{:?} of {written}\n{log}", other.stats());
    rig.finish(agent);
    assert_eq!(other.stats().entries_distinct, Some(written));
    written
}

/// Guarantees that connectors come, go and are joined in another way while lines flow and one backend is
/// down most of the time: nothing is lost on any way, and as exporters stay, nothing is sent twice.
#[test]
fn pipelines_are_joined_in_other_ways_while_lines_flow() {
    const CHANGES: usize = 40;
    let (rig, other) = (Rig::new("connectors"), sink_beside(Reach::Refused));
    let agent = rig.start(&shaped(&rig, &other, 0));
    let live = writers(&rig);
    let (mut rng, mut before) = (Rng::new(11), 0);
    for n in 0..CHANGES {
        if n % 10 == 8 {
            other.set_reach(Reach::Up).expect("the port is still free");
        }
        let shape = (n + 1 + rng.below(2) as usize * 2) % SHAPES.len();
        let changed = agent.reload(&shaped(&rig, &other, shape));
        assert_eq!(changed, shape != before, "{n}: {}", tail(&agent.log()));
        before = shape;
        assert_eq!(agent.changes()[2], 0, "{n}: {}", tail(&agent.log()));
        if n % 10 == 9 {
            other.set_reach(Reach::Refused).expect("a port");
        }
        wait::let_pass(Duration::from_millis(rng.below(60)));
    }
    let written = finish(&rig, &other, live, agent);
    let report = rig.oracle.report();
    assert_eq!(report.totals.duplicates_raw, 0, "{}", rig.summary());
    println!(
        "{written} lines, {CHANGES} changes; other: {:?}",
        other.stats()
    );
}

/// Guarantees that kills at any moment, each followed by a start with pipelines joined in another way,
/// cost neither destination a line and show none twice.
#[test]
fn kills_between_changes_lose_nothing() {
    const KILLS: u64 = 15;
    let (rig, other) = (Rig::new("connectors-kill"), sink_beside(Reach::Refused));
    let live = writers(&rig);
    let mut rng = Rng::new(3);
    for kill in 0..KILLS {
        let reach = if kill % 5 < 4 {
            Reach::Refused
        } else {
            Reach::Up
        };
        other.set_reach(reach).expect("the port is still free");
        let mut agent = rig.spawn(&shaped(&rig, &other, kill as usize));
        if kill % 3 == 0 {
            agent.expect_ready();
            agent.reload(&shaped(&rig, &other, kill as usize + 1));
        }
        wait::let_pass(Duration::from_millis(100 + rng.below(700)));
        agent.kill();
    }
    let agent = rig.start(&shaped(&rig, &other, 0));
    finish(&rig, &other, live, agent);
}

/// Guarantees that a connector is seen wherever a component is: in what the build has, in the graph with
/// its edges and numbers, in metrics under the collector's names, and by a tap.
#[test]
fn a_connector_is_seen_where_components_are() {
    let (rig, other) = (Rig::new("connectors-seen"), sink_beside(Reach::Up));
    let mut config = shaped(&rig, &other, 0);
    let socket = rig.path("admin.sock");
    config["service"]["admin"] = json!({"socket": socket});
    let agent = rig.start(&config);
    let way = Way::Socket(socket);
    let components = way.get("/v1/components").json();
    let known = components["connectors"].as_array().expect("a list");
    let names: Vec<&Value> = known.iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["count", "forward", "routing"]);
    let output = run_once(&["components"], &rig.state()).expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("connectors:\n  - name: count\n"), "{text}");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(500).expect("written");
    rig.wait_delivered(&agent);
    let both = wait::within(wait::BOUND, || other.stats().entries_distinct == Some(500));
    assert!(both, "{}", tail(&agent.log()));
    // Each of the two lanes goes through it.
    let scrape = agent.scrape();
    let sum = |name: &str, pipeline: Option<&str>| {
        let mut labels = vec![("connector", "forward"), ("otel_signal", "logs")];
        labels.extend(pipeline.map(|p| ("otelcol_pipeline_id", p)));
        scrape.sum(&format!("otelcol_connector_{name}_items"), &labels)
    };
    assert_eq!(sum("consumed", None), 1000.0);
    assert_eq!(sum("produced", Some("logs/1")), 500.0);
    assert_eq!(sum("produced", Some("logs/2")), 500.0);
    let graph = way.get("/v1/graph").json();
    let key = "connector forward (logs)";
    let nodes = graph["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|n| n["key"] == key).expect("it is there");
    assert_eq!(
        (&node["kind"], &node["id"]),
        (&json!("connector"), &json!("forward"))
    );
    assert_eq!(
        (&node["signal"], &node["state"]),
        (&json!("logs"), &json!("running"))
    );
    let numbers = json!({"items_in": 1000, "items_out": 1000});
    assert_eq!(node["numbers"], numbers);
    let edges = graph["edges"].as_array().expect("a list");
    for (from, to) in [
        ("processor batch in logs", key),
        (key, "pipeline logs/1"),
        (key, "pipeline logs/2"),
    ] {
        let edge = json!({"from": from, "to": to});
        assert!(edges.contains(&edge), "{edge} in {edges:?}");
    }
    for (side, from, to) in [
        ("in", "processor batch in logs", key),
        ("out", key, "pipeline logs/"),
    ] {
        let path = format!("/v1/tap?node=connector+forward+(logs)&side={side}&limit=1&seconds=60");
        let mut lines = way.follow(&path);
        assert_eq!(lines.reply.status, 200);
        writer.write_lines(10).expect("written");
        let line = lines.next_line().expect("no error").expect("a line");
        let line: Value = serde_json::from_str(&line).expect("it is JSON");
        let edge = &line["record"]["edge"];
        assert_eq!(edge["from"], from, "{line}");
        assert!(
            edge["to"].as_str().is_some_and(|t| t.starts_with(to)),
            "{line}"
        );
    }
    rig.wait_delivered(&agent);
    rig.finish(agent);
}
