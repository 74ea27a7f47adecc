//! Row 7: successes that hide refusals.

use std::time::Duration;

use serde_json::json;
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour};
use tailwater_testkit::writer::LogWriter;
use tailwater_tests::fault_row::Row;
use tailwater_tests::rig::Rig;

/// Guarantees that `delivery: verified` is not fooled by a success that hides refused streams.
#[test]
fn a_204_that_hides_refusals_hides_nothing_from_verified_delivery() {
    let mut row = Row::new(7, "204 with hidden refusals")
        .how(
            "the stand-in reports only what happened to the last stream of a request, as Loki does; \
             300 kB/s per stream, 50 streams of which 13 have far more; delivery: verified",
        )
        .pass("strict mode: 0 missing by query");
    let behaviour = LokiBehaviour {
        stream_rate_bytes: Some(300_000),
        stream_burst_bytes: 300_000,
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("hidden", behaviour, Faults::default());
    let mut config = rig.config();
    config["receivers"]["filelog"]["include_file_name"] = json!(true);
    let loki = &mut config["exporters"]["loki"];
    loki["labels"]["attributes"] = json!({"file": "log.file.name"});
    loki["delivery"] = json!("verified");
    loki["limits"] = json!({"stream_rate_bytes": 300_000, "stream_burst_bytes": 300_000});
    let mut writers: Vec<LogWriter> = (0..50)
        .map(|id| rig.writer(id, &format!("s{id}.log"), |_| {}))
        .collect();
    for (i, writer) in writers.iter_mut().enumerate() {
        // Some have far more than the rate allows at once, most do not.
        writer
            .write_lines(if i % 4 == 0 { 4_500 } else { 300 })
            .expect("written");
    }
    let agent = rig.start(&config);
    rig.wait_delivered_within(&agent, Duration::from_secs(60));
    let t = rig.finish(agent).totals;
    let stats = rig.loki.stats();
    assert_eq!(stats.discarded_hidden, 0, "{stats:?}");
    let refused = stats.push_responses.get(&429).copied().unwrap_or_default();
    assert!(refused > 0, "the limit was never met: {stats:?}");
    row.reached(format!(
        "0 of {} lines missing, none refused in a success; {refused} requests refused and sent again",
        t.written
    ));
    row.record();
}
