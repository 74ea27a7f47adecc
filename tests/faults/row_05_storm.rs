//! Row 5: a storm of 429s for one tenant.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::loki::LokiStats;
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour, Matcher, Scripted};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "loss 0; other tenants >= 95 % of their rate; requests of the refused <= 1.2 times what is allowed";

/// One receiver per tenant, `<tenant>*.log` each; the tenant is a resource attribute.
fn tenants_config(rig: &Rig, tenants: &[&str]) -> Value {
    let mut config = rig.config();
    let base = config["receivers"]["filelog"].take();
    let mut receivers = serde_json::Map::new();
    for tenant in tenants {
        let mut receiver = base.clone();
        receiver["include"] = json!([rig.logs(&format!("{tenant}*.log"))]);
        receiver["resource"] = json!({"team": tenant});
        receivers.insert(format!("filelog/{tenant}"), receiver);
    }
    config["service"]["pipelines"]["logs"]["receivers"] = receivers.keys().cloned().collect();
    config["receivers"] = receivers.into();
    config["exporters"]["loki"]["tenant"] = json!({"from_resource": "team"});
    config
}

/// Guarantees that one tenant's 429s delay that tenant alone.
#[test]
fn a_429_storm_on_one_tenant_leaves_the_other_going() {
    let mut row = Row::new(5, "429 for one tenant, for ever")
        .how(
            "every request of a tenant with 40 full files is refused, until another tenant has got \
             ten rounds through; then none is",
        )
        .pass(PASS);
    let behaviour = LokiBehaviour {
        auth_enabled: true,
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("storm", behaviour, Faults::default());
    let config = tenants_config(&rig, &["calm", "noisy"]);
    // Many files of the one, so that what cannot be delivered is more than a queue holds.
    let mut noisy: Vec<_> = (10..50)
        .map(|id| rig.writer(id, &format!("noisy{id}.log"), |_| {}))
        .collect();
    let mut calm = rig.writer(2, "calm.log", |_| {});
    let refusal = Scripted::Answer {
        status: 429,
        body: "Ingestion rate limit exceeded".into(),
    };
    // Without an end, until the scripts are cleared.
    rig.loki
        .script(Matcher::Tenant("noisy".into()), vec![refusal; 100_000]);
    for writer in &mut noisy {
        writer.write_lines(5_000).expect("written");
    }
    let agent = rig.start(&config);
    let refused = |s: &LokiStats| s.push_responses.contains_key(&429);
    assert!(rig.loki.wait_until(wait::BOUND, refused), "{}", agent.log());
    for round in 0..10 {
        calm.write_lines(2_000).expect("written");
        let through = wait::within(wait::BOUND, || delivered(&rig, 2) == calm.lines_written());
        assert!(
            through,
            "round {round}: the calm tenant waits\n{}\n{}",
            rig.summary(),
            tail(&agent.log())
        );
    }
    assert!((10..50).all(|id| delivered(&rig, id) == 0));
    rig.loki.clear_scripts();
    rig.wait_delivered_within(&agent, Duration::from_secs(60));
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost; the other tenant never waited",
        t.written
    ));
    row.record();
}

/// Lines of a writer that arrived.
fn delivered(rig: &Rig, writer: u32) -> u64 {
    let report = rig.oracle.report();
    report
        .writers
        .iter()
        .find(|w| w.writer == writer)
        .map_or(0, |w| w.delivered)
}

/// Guarantees that a tenant of which nine requests in ten are refused costs the others nothing,
/// is not asked more often than it said, and gets everything through in the end.
#[test]
fn a_storm_of_429s_leaves_other_tenants_their_rate() {
    for (name, retry_after) in [("without Retry-After", None), ("Retry-After: 1", Some(1))] {
        storm(name, retry_after);
    }
}

fn storm(name: &str, retry_after: Option<u64>) {
    let time = scaled(Duration::from_secs(8), Duration::from_secs(120));
    let mut row = Row::new(5, &format!("429 storm, {name}"))
        .how(format!(
            "for {} s 9 of 10 requests of one of three tenants are refused, {name}; each tenant \
             writes 2,000 lines/s; the same time without the storm before it",
            time.as_secs()
        ))
        .pass(PASS);
    let behaviour = LokiBehaviour {
        auth_enabled: true,
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("storm-rate", behaviour, Faults::default());
    let config = tenants_config(&rig, &["calm", "other", "noisy"]);
    let options = LiveOptions {
        lines_per_second: 2_000,
        rotate_every_lines: None,
        lines_max: None,
    };
    let live: Vec<_> = ["calm", "other", "noisy"]
        .iter()
        .zip(1..)
        .map(|(tenant, id)| {
            let writer = rig.writer(id, &format!("{tenant}.log"), |_| {});
            LiveWriter::start(writer, options).expect("a thread")
        })
        .collect();
    let agent = rig.start(&config);
    // The rate at which the two others arrive, in lines per second.
    let measure = || {
        let (begin, before) = (Instant::now(), delivered(&rig, 1) + delivered(&rig, 2));
        wait::let_pass(time);
        let arrived = delivered(&rig, 1) + delivered(&rig, 2) - before;
        arrived as f64 / begin.elapsed().as_secs_f64()
    };
    let solo = measure();
    rig.loki.set_faults(|f| f.retry_after_seconds = retry_after);
    let refusal = Scripted::Answer {
        status: 429,
        body: "Ingestion rate limit exceeded".into(),
    };
    let pattern = (0..100_000).map(|n| match n % 10 {
        9 => Scripted::Process,
        _ => refusal.clone(),
    });
    rig.loki.script(Matcher::Tenant("noisy".into()), pattern);
    let begin = Instant::now();
    let beside = measure();
    let seconds = begin.elapsed().as_secs_f64();
    let refused = rig
        .loki
        .stats()
        .push_responses
        .get(&429)
        .copied()
        .unwrap_or_default();
    rig.loki.clear_scripts();
    for writer in live {
        writer.stop().expect("written");
    }
    rig.wait_delivered_within(&agent, 3 * wait::BOUND);
    let t = rig.finish(agent).totals;
    row.reached(format!("0 of {} lines lost", t.written));
    row.held(
        beside >= 0.95 * solo,
        format!(
            "other tenants at {:.1} % of their rate without it",
            100.0 * beside / solo
        ),
    );
    // Each refusal buys the wait the server asked for, or at least half of the longest of the
    // configuration (500 ms, half of it at random) after the first few, which are shorter.
    let allowed = match retry_after {
        Some(wait) => seconds / wait as f64 + 1.0,
        None => seconds / 0.25 + 5.0,
    };
    assert!(refused > 0, "there was no storm");
    row.held(
        refused as f64 <= 1.2 * allowed,
        format!("{refused} requests refused, {allowed:.0} allowed"),
    );
    row.record();
}
