//! What agents read, as a control plane lists it: as processes, by their command lines.

use std::fs;

use serde_json::{Value, json};
use tailwater_tests::agent::Agent;
use tailwater_tests::control::Control;
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

struct Fleet {
    home: Rig,
    control: Control,
}

impl Fleet {
    fn sources(&self, args: &[&str]) -> Vec<Value> {
        let answer = self.control.ask(&[&["sources"], args].concat());
        answer["sources"].as_array().expect("a list").clone()
    }

    /// Waits until sources are these, by kind, id and state.
    fn expect(&self, args: &[&str], wanted: &[(&str, String, &str)]) {
        let mut wanted = wanted.to_vec();
        wanted.sort();
        let found = || {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let row = |s: &Value| (text(&s["kind"]), text(&s["id"]), text(&s["state"]));
            let mut all: Vec<_> = self.sources(args).iter().map(row).collect();
            all.sort();
            all
        };
        let as_wanted = |all: &[(String, String, String)]| {
            let wanted = wanted.iter().map(|(k, i, s)| (*k, i.as_str(), *s));
            all.iter()
                .map(|(k, i, s)| (k.as_str(), i.as_str(), s.as_str()))
                .eq(wanted)
        };
        let done = wait::by_asking(wait::BOUND, || as_wanted(&found()));
        assert!(
            done,
            "{:#?}\nwanted {wanted:#?}\n{}",
            found(),
            self.control.log()
        );
    }

    fn opamp(&self) -> Value {
        json!({"server": {"ws": {"endpoint": self.control.url("ws")}}, "heartbeat_interval": "1s"})
    }
}

fn id(path: &std::path::Path) -> String {
    format!("file:{}", path.display())
}

/// Guarantees that files of an agent and what discovery finds are listed as they are, with what is known of them; that those
/// which end leave, with the reason in the history; that a control plane that was killed knows all of it; and that agents
/// which it does not configure are listed, too.
#[test]
fn what_agents_read_is_listed_from_its_beginning_to_its_end() {
    let home = Rig::new("sources");
    let control = Control::start(&home.path("run"), &[]);
    let mut fleet = Fleet { home, control };
    let plain = Rig::new("sources-plain");
    let mut config = plain.config();
    config["extensions"]["opamp"] = fleet.opamp();
    config["service"]["extensions"] = json!(["opamp"]);
    fs::write(plain.logs("a.log"), "one\n").expect("a file");
    let agent = plain.start(&config);
    let a = id(&plain.logs("a.log"));
    fleet.expect(&[], &[("file", a.clone(), "live")]);
    let row = fleet.sources(&[])[0].clone();
    assert_eq!(row["connected"], true);
    assert_eq!(row["paths"], json!([plain.logs("a.log")]));
    // Its line may still be on its way when the file is live.
    let caught_up = || fleet.sources(&[])[0]["lag_bytes"] == 0;
    assert!(
        wait::within(wait::BOUND, caught_up),
        "{:#?}",
        fleet.sources(&[])
    );
    let uid = row["agent"].as_str().expect("a uid").to_owned();

    // Discovery on another machine.
    let other = Rig::new("sources-up");
    let base = json!({
        "exporters": {"loki": {
            "endpoint": other.loki.push_url(), "labels": {"resource": {"file": "log.file.pattern"}},
        }},
        "extensions": {"opamp": fleet.opamp()},
        "service": {"extensions": ["opamp"], "pipelines": {"logs": {"exporters": ["loki"]}}},
    });
    let file = other.path("base.yaml");
    fs::write(&file, base.to_string()).expect("a file");
    let (found, named) = (other.logs("job-20260501.log"), other.logs("own.txt"));
    for path in [&found, &named] {
        fs::write(path, "one\n").expect("a file");
    }
    let text = |path: &std::path::Path| path.display().to_string();
    let (base, pattern, own) = (text(&file), text(&other.logs("*.log")), text(&named));
    let args = [
        "--docker", "off", "--base", &base, "--files", &pattern, "--files", &own,
    ];
    let up = Agent::up(&args, &other.state(), &other.path("run"));
    let all = [
        ("file", a.clone(), "live"),
        ("file", id(&found), "live"),
        ("static", format!("static:{}", named.display()), "live"),
    ];
    fleet.expect(&[], &all);
    fleet.expect(&["--kind", "static"], &all[2..]);
    fleet.expect(&["--contains", "job-"], &all[1..2]);
    fleet.expect(&["--agent", &uid], &all[..1]);
    let labels = &fleet.sources(&["--contains", "job-"])[0]["labels"];
    assert!(
        labels["log.file.pattern"]
            .as_str()
            .is_some_and(|p| p.ends_with("job-*.log")),
        "{labels}"
    );

    // Both end, each as its agent sees it.
    fs::remove_file(&found).expect("a file");
    fs::remove_file(plain.logs("a.log")).expect("a file");
    fleet.expect(&[], &all[2..]);
    fleet.expect(
        &["--state", "gone"],
        &[("file", a.clone(), "gone"), ("file", id(&found), "gone")],
    );
    let history = fleet
        .control
        .ask(&["sources", "--agent", &uid, "--history", &a]);
    let steps = history["history"].as_array().expect("a list").clone();
    let to: Vec<&Value> = steps.iter().rev().map(|m| &m["to"]).collect();
    assert_eq!(
        (to[0], to[1], to[to.len() - 1]),
        (&json!("starting"), &json!("live"), &json!("gone"))
    );
    for activity in ["register_service", "deregister_service"] {
        assert!(
            fleet.control.log().contains(activity),
            "{}",
            fleet.control.log()
        );
    }

    up.stop_clean();
    fleet.control.restart();
    let away = fleet.sources(&["--kind", "static"]);
    assert_eq!(
        (&away[0]["state"], &away[0]["connected"]),
        (&json!("live"), &json!(false))
    );
    let refused = fleet.control.run(&["sources", "--kind", "journal"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("one of docker, file"),
        "{text}"
    );
    let shown = fleet.control.tell(&["sources"]);
    assert!(
        shown.contains("(agent away)") && shown.contains("own.txt"),
        "{shown}"
    );
    // The one that is there still comes back to the new process, and goes on.
    fs::write(plain.logs("b.log"), "two\n").expect("a file");
    fleet.expect(
        &["--contains", "b.log"],
        &[("file", id(&plain.logs("b.log")), "live")],
    );
    agent.stop_clean();
    drop(fleet.home);
}
