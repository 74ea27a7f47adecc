//! Row 8: answers that are too large, refuse for size, hang, dribble or never end.

use std::time::Duration;

use serde_json::json;
use tailwater_testkit::loki::behaviour::{BodyFault, Faults, LokiBehaviour};
use tailwater_tests::fault_row::Row;
use tailwater_tests::front::{Front, Way};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "loss 0; at most 64 KiB of an answer are read";
const MIB: u64 = 1024 * 1024;

/// A change of the faults.
type Fault = fn(&mut Faults);

/// Guarantees that a request which is too large for the server is sent in smaller ones.
#[test]
fn a_request_that_is_too_large_is_split() {
    type Limit = fn(&mut LokiBehaviour);
    let cases: [(&str, Limit); 2] = [
        ("500 by the message's size", |b| {
            b.grpc_message_bytes_max = Some(200_000)
        }),
        ("413 by the body's size", |b| b.body_bytes_max = 60_000),
    ];
    let mut row = Row::new(8, "413 and 500 by size")
        .how("servers that refuse requests above 60 kB (413) and messages above 200 kB (500)")
        .pass(PASS);
    for (name, limit) in cases {
        let mut behaviour = LokiBehaviour::permissive();
        limit(&mut behaviour);
        let rig = Rig::with("large", behaviour, Faults::default());
        let mut writer = rig.writer(1, "a.log", |_| {});
        writer.write_lines(10_000).expect("written");
        let agent = rig.start(&rig.config());
        rig.wait_delivered(&agent);
        let account = agent.scrape().account("receiver");
        assert_eq!(account.dropped, 0.0, "{name}: {account:?}");
        agent.stop_clean();
        rig.assert_faultless();
        let refused = rig.loki.stats().push_responses;
        assert!(
            refused.keys().any(|s| *s != 204),
            "{name}: the limit was never met: {refused:?}"
        );
        row.reached(format!(
            "{name}: 0 of 10,000 lines lost or dropped, answers {refused:?}"
        ));
    }
    row.record();
}

/// Guarantees that an answer that never comes, comes slowly or is huge costs time, not lines and
/// not memory.
#[test]
fn answers_that_hang_dribble_or_never_end_cost_only_time() {
    let mut row = Row::new(8, "answers that hang, dribble or never end")
        .how("in turn: no answer, one byte every 2 ms, 64 MiB, 10 GB; then good again")
        .pass(PASS);
    let rig = Rig::new("answers");
    let front = Front::start(rig.loki.addr()).expect("a port");
    let mut config = rig.config();
    config["exporters"]["loki"]["endpoint"] = json!(front.push_url());
    config["exporters"]["loki"]["timeout"] = json!("1s");
    let mut writer = rig.writer(1, "a.log", |_| {});
    let agent = rig.start(&config);
    let faults: [(&str, Fault); 3] = [
        ("hang", |f| f.hang = true),
        // Always errors: a success with a body would be a 200, which no Loki answers.
        ("slow", |f| {
            let (bytes, pause) = (3_000, Duration::from_millis(2));
            (f.status_500, f.body) = (1.0, BodyFault::Slow { bytes, pause });
        }),
        ("huge", |f| {
            (f.status_500, f.body) = (1.0, BodyFault::Huge { bytes: 64 << 20 });
        }),
    ];
    for (name, fault) in faults {
        rig.loki.set_faults(|f| {
            *f = Faults::default();
            fault(f);
        });
        let pushes = rig.loki.stats().pushes;
        writer.write_lines(1_000).expect("written");
        let tried = rig.loki.wait_until(wait::BOUND, |s| s.pushes >= pushes + 2);
        assert!(tried, "{name}: {}", tail(&agent.log()));
    }
    front.set(Way::Endless(10_000_000_000));
    rig.loki.set_faults(|f| *f = Faults::default());
    writer.write_lines(1_000).expect("written");
    let begun = wait::within(wait::BOUND, || front.endless().0 >= 5);
    assert!(begun, "{}", tail(&agent.log()));
    front.set(Way::Pass);
    rig.wait_delivered(&agent);
    let peak = agent.resident_bytes_peak();
    assert!(peak < 160 * MIB, "{} MiB resident", peak / MIB);
    let (answers, bytes) = front.endless();
    let t = rig.finish(agent).totals;
    row.reached(format!("0 of {} lines lost", t.written));
    row.reached(format!("{} MiB resident at most", peak / MIB));
    // The kernel takes what fits into the buffers of both ends, a few MiB on loopback, before the
    // agent closes: that it reads 64 KiB and no more is asserted by a test of its client.
    row.held(
        bytes < 16 * MIB,
        format!(
            "of {answers} answers of 10 GB at most {:.1} MiB went into the connection, the kernel's \
             buffers included",
            bytes as f64 / MIB as f64
        ),
    );
    row.record();
}
