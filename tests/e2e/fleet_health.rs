//! What a fleet does about changes that do harm, about agents that do not come back, and whom it tells.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_tests::alertmanager::{self, Alertmanager};
use tailwater_tests::fleet::{Fleet, Host};
use tailwater_tests::wait;

/// Lines cannot be parsed, and are dropped for it.
const DROPS: &str = "receivers: {filelog: {operators: [{type: regex_parser, regex: '^(?P<all>none)$', on_error: drop}]}}\n";
/// What was delivered at once waits for half a minute.
const LAGS: &str = "processors: {batch: {timeout: 30s, send_batch_size: 1000000}}\n";
/// The destination refuses what has so many labels.
const ERRORS: &str =
    "exporters: {loki: {labels: {static: {a: '1', b: '2', c: '3', d: '4', e: '5'}}}}\n";
/// Harmless.
const OTHER: &str = "exporters: {loki: {labels: {static: {release: other}}}}\n";
const GOOD: &str = "exporters: {loki: {labels: {static: {release: good}}}}\n";

/// Agents take sample lines, and begin anew when they are told to.
fn with_duties(config: &mut Value) {
    config["receivers"]["probe"] = Value::Null;
    config["service"]["pipelines"]["logs"]["receivers"] = json!(["filelog", "probe"]);
    config["extensions"]["opamp"]["capabilities"]["accepts_restart_command"] = json!(true);
}

fn is_on(fleet: &Fleet, digest: &str) -> usize {
    fleet.runs().values().filter(|r| *r == digest).count()
}

fn is_back(fleet: &Fleet) -> bool {
    let group = fleet.group();
    group["phase"] == "idle" && group["candidate"].is_null() && is_on(fleet, "own") == 3
}

/// Names of alerts that fire, as the control plane shows them.
fn fires(fleet: &Fleet) -> Vec<String> {
    let group = fleet.group();
    let alerts = group["alerts"].as_array().cloned().unwrap_or_default();
    let name = |a: &Value| a["alert"].as_str().unwrap_or_default().to_owned();
    alerts.iter().map(name).collect()
}

/// A pipeline that does harm reaches one agent of three and is taken back by itself, for one of these reasons, and no
/// agent runs it again. Its digest.
fn is_taken_back(fleet: &mut Fleet, name: &str, text: &str, reasons: &[&str]) -> String {
    let digest = fleet.apply(&format!("{name}.yaml"), text);
    // It may be gone before anybody looks.
    let is_over = |f: &Fleet| f.group()["quarantine"][&digest].is_string();
    fleet.wait(name, |f| is_on(f, &digest) == 1 || is_over(f));
    fleet.wait("the way back", |f| is_over(f) && is_back(f));
    let group = fleet.group();
    let why = group["quarantine"][&digest].as_str().unwrap_or_default();
    let is_known = reasons.iter().any(|r| why.contains(r));
    assert!(is_known, "{name}: {why}\n{}", fleet.table());
    let order = fleet.order();
    let ran = order.iter().filter(|o| o.contains(&digest)).count();
    assert_eq!(ran, 1, "{}", fleet.table());
    println!("{name}: {why}\n{}", fleet.table());
    digest
}

/// Guarantee: a pipeline that drops lines reaches one agent, and is taken back by itself; one of them freezes no group.
#[test]
fn what_drops_lines_is_taken_back() {
    let mut fleet = Fleet::new(&[], with_duties);
    is_taken_back(&mut fleet, "drops", DROPS, &["dropped lines"]);
    assert_eq!(fleet.group()["frozen"], false);
    assert_eq!(fires(&fleet), ["rolled_back"]);
}

/// Guarantee: so is one under which lines come late.
#[test]
fn what_delays_lines_is_taken_back() {
    // A sample line is late after some seconds.
    let mut fleet = Fleet::new(&["--soak", "16s"], with_duties);
    // What waits is not read either.
    let reasons = ["lag", "sample lines are missing", "less is read"];
    is_taken_back(&mut fleet, "lags", LAGS, &reasons);
}

/// Guarantee: so is one whose lines the sink refuses; when there were too many of them the group is frozen, which is told to
/// an Alertmanager and taken back when somebody unfreezes it; then a good one reaches all.
#[test]
fn what_is_refused_is_taken_back_and_people_are_told() {
    let manager = alertmanager::find().map(|binary| Alertmanager::start(&binary));
    let url = manager.as_ref().map(Alertmanager::url);
    // More of them are counted in the tests of the machine.
    let mut args = vec!["--freeze-after", "1"];
    match &url {
        Ok(url) => args.extend(["--alertmanager", url]),
        Err(why) => println!("SKIPPED: no alert is sent to an Alertmanager: {why}"),
    }
    let mut fleet = Fleet::new(&args, with_duties);
    let reasons = ["rejected lines", "permanent errors"];
    is_taken_back(&mut fleet, "errors", ERRORS, &reasons);
    fleet.wait("frozen", |f| f.group()["frozen"] == true);
    let all = fires(&fleet);
    assert!(all.contains(&"frozen".to_owned()), "{all:?}");
    let is_told = |fleet: &Fleet, met: &dyn Fn(&Alertmanager) -> bool| {
        let Ok(manager) = &manager else { return };
        let done = wait::within(wait::BOUND, || met(manager));
        let said = || fleet.control.log();
        assert!(done, "{:?}\n{}", manager.alerts(), said());
    };
    is_told(&fleet, &|m| m.fires("frozen") && m.fires("rolled_back"));
    let good = fleet.apply("good.yaml", GOOD);
    fleet.control.tell(&["unfreeze", "--group", "shop"]);
    fleet.wait("the promotion", |f| {
        f.group()["good"]["digest"] == good.as_str() && is_on(f, &good) == 3
    });
    fleet.wait("nothing fires", |f| fires(f).is_empty());
    is_told(&fleet, &|m| m.alerts().is_empty());
    println!("{}", fleet.table());
    let log = fleet.control.log();
    for activity in [
        "send_alert",
        "rollback_config",
        "canary_reload",
        "promote_config",
    ] {
        assert!(log.contains(activity), "{activity}:\n{log}");
    }
    assert!(log.contains("would take it"), "a dry run:\n{log}");
}

/// Guarantee: a backend that fails for all while a canary is looked at is not held against the configuration: it waits, and
/// goes on when the backend is back and somebody says so.
#[test]
fn an_outage_during_a_canary_is_not_blamed_on_it() {
    let mut fleet = Fleet::new(&["--soak", "4s"], with_duties);
    let good = fleet.apply("good.yaml", GOOD);
    fleet.wait("the canary", |f| {
        is_on(f, &good) == 1 && f.group()["phase"] == "soak"
    });
    for host in &fleet.hosts {
        host.rig.loki.set_faults(|f| f.status_503 = 1.0);
    }
    fleet.wait("it waits for somebody", |f| {
        !f.group()["candidate"]["paused"].is_null()
    });
    assert_eq!(is_on(&fleet, &good), 1);
    assert_eq!(fleet.group()["quarantine"], json!({}));
    assert!(
        fires(&fleet).contains(&"backend".to_owned()),
        "{:?}",
        fires(&fleet)
    );
    for host in &fleet.hosts {
        host.rig.loki.set_faults(|f| f.status_503 = 0.0);
    }
    // Until what was held up is delivered.
    let caught_up = || {
        let lag = |h: &Host| {
            h.agent
                .scrape()
                .sum("tailwater_lag_bytes", &[("group", "all")])
        };
        fleet.hosts.iter().all(|h| lag(h) < 20_000.0)
    };
    assert!(wait::within(wait::BOUND, caught_up));
    fleet.control.tell(&["resume", "--group", "shop"]);
    fleet.wait("the promotion", |f| {
        f.group()["good"]["digest"] == good.as_str() && is_on(f, &good) == 3
    });
    assert_eq!(fleet.group()["quarantine"], json!({}));
    println!("{}", fleet.table());
}

/// Guarantee: a pipeline that an agent would refuse is found by its dry run, and reaches no agent.
#[test]
fn what_a_dry_run_refuses_reaches_nobody() {
    let mut fleet = Fleet::new(&[], with_duties);
    // Only an agent knows its options.
    let wrong = fleet.apply("wrong.yaml", "processors: {batch: {timeot: 1s}}\n");
    fleet.wait("its end", |f| f.group()["quarantine"][&wrong].is_string());
    let group = fleet.group();
    let why = group["quarantine"][&wrong].as_str().unwrap_or_default();
    assert!(why.contains("agent ") && why.contains("timeot"), "{why}");
    assert!(fires(&fleet).contains(&"rejected".to_owned()));
    assert!(
        !fleet.control.log().contains("is offered"),
        "{}",
        fleet.control.log()
    );
    assert!(fleet.order().iter().all(|o| *o == ["own"]));
}

/// Guarantee: sample lines are looked for at the destination when it is said where that is, and without them there is no
/// pass: lines that are acknowledged and not to be found hold a change up.
#[test]
fn sample_lines_are_found_at_the_destination() {
    let loki = FakeLoki::start(LokiOptions::default()).expect("a server on a loopback port");
    let (url, push) = (loki.url(), loki.push_url());
    let mut fleet = Fleet::new(&["--loki", &url], |config| {
        with_duties(config);
        config["exporters"]["loki"]["endpoint"] = json!(push);
    });
    let good = fleet.apply("good.yaml", GOOD);
    let mut most: BTreeMap<String, u64> = BTreeMap::new();
    fleet.wait("the promotion", |f| {
        for uid in f.runs().into_keys() {
            let agent = f.control.ask(&["agents", &uid]);
            let found = agent["counters"]["probes_found"].as_u64().unwrap_or(0);
            let seen = most.entry(uid).or_default();
            *seen = found.max(*seen);
        }
        f.group()["good"]["digest"] == good.as_str() && is_on(f, &good) == 3
    });
    assert!(most.values().filter(|n| **n > 0).count() >= 2, "{most:?}");
    let streams = loki.streams(DEFAULT_TENANT);
    let own = streams
        .iter()
        .filter(|s| s.contains("tailwater_probe=\"true\""));
    // Under both configurations, and none with users' lines in it.
    for stream in own {
        let entries = loki.entries(DEFAULT_TENANT, stream);
        let is_sample = |line: &[u8]| line.starts_with(b"tailwater sample line ");
        assert!(entries.iter().all(|e| is_sample(&e.line)), "{stream}");
    }
    let scraped = fleet.control.log();
    assert!(!scraped.contains("cannot be looked for"), "{scraped}");
}

/// Guarantee: of two agents one goes back, and the one that cannot is offered it anew, begins anew, gets the fallback, and is
/// left to people, in this order; when somebody mends it, it comes home by itself, and those who were told hear of it.
#[test]
fn who_does_not_come_back_is_repaired_or_left_to_people() {
    let args = ["--offer-timeout", "4s", "--canary", "2", "--soak", "5s"];
    let mut fleet = Fleet::new(&args, with_duties);
    let good = fleet.apply("good.yaml", GOOD);
    fleet.wait("the promotion", |f| {
        f.group()["good"]["digest"] == good.as_str() && is_on(f, &good) == 3
    });
    let bad = fleet.apply("other.yaml", OTHER);
    fleet.wait("the canaries", |f| is_on(f, &bad) == 2);
    // What is on the machine cannot be read any more, so no offer can be laid over it.
    let runs = fleet.runs();
    let mut on_it = runs.iter().filter(|(_, r)| **r == bad);
    let uid = on_it.next().expect("a canary").0;
    let is_it = |h: &Host| {
        let file = h.rig.state().join("opamp/instance.json");
        fs::read_to_string(file).is_ok_and(|t| t.contains(uid))
    };
    let canary = fleet.hosts.iter().position(is_it).expect("one of them");
    let file = fleet.hosts[canary].agent.config_file().to_owned();
    let whole = fs::read_to_string(&file).expect("its configuration");
    fs::write(&file, "receivers: [\n").expect("a file");
    fleet.control.tell(&["rollback", "--group", "shop"]);
    fleet.wait("it is left to people", |f| {
        f.group()["isolated"]
            .as_array()
            .is_some_and(|i| i.len() == 1)
    });
    let said = fleet.control.log();
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text}:\n{said}"));
    assert!(at("is to begin anew") < at("did not come back"), "{said}");
    assert!(fires(&fleet).contains(&"rollback_partial".to_owned()));
    let agent = fleet.hosts[canary].agent.log();
    assert!(
        agent.contains("the server has this agent begin anew"),
        "{agent}"
    );
    fs::write(&file, whole).expect("a file");
    fleet.wait("it is home", |f| {
        is_on(f, &good) == 3 && f.group()["isolated"] == json!([])
    });
    fleet.wait("it is over", |f| {
        !fires(f).contains(&"rollback_partial".to_owned())
    });
    println!("{}", fleet.table());
}
