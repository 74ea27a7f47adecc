//! Processors in the running agent, where what they do to sources and to delivery shows.

use serde_json::json;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Guarantees that `memory_limiter` pauses the reading and loses nothing: with a limit that the
/// process is always above and a sink that is down, most of the files stays where it is, and all
/// of it arrives when the sink is back.
#[test]
fn a_memory_limiter_pauses_the_files_and_loses_nothing() {
    const LINES: u64 = 20_000;
    let rig = Rig::new("limiter");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(LINES).expect("written");
    let mut config = rig.config();
    config["processors"]["memory_limiter"] =
        json!({"check_interval": "20ms", "limit_mib": 2, "spike_limit_mib": 1});
    config["service"]["pipelines"]["logs"]["processors"] = json!(["memory_limiter", "batch"]);
    rig.loki.set_faults(|f| f.status_503 = 1.0);
    let agent = rig.start(&config);
    let limited = || agent.scrape().sum("tailwater_memory_limiter_limited", &[]) == 1.0;
    let paused = wait::within(wait::BOUND, || {
        limited() && agent.scrape().account("receiver").read > 0.0
    });
    assert!(paused, "not limited:\n{}", tail(&agent.log()));
    let read = agent.scrape().account("receiver").read;
    assert!(
        read < LINES as f64 / 2.0,
        "{read} lines were read all the same"
    );
    rig.loki.set_faults(|f| f.status_503 = 0.0);
    rig.wait_delivered(&agent);
    let refused = agent
        .scrape()
        .sum("otelcol_processor_memory_limiter_refused_log_records", &[]);
    assert_eq!(refused, 0.0, "a pause is no refusal");
    agent.stop_clean();
    rig.assert_faultless();
}
