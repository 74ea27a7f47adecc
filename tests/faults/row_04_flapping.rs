//! Row 4: a sink that comes and goes, cuts connections in the middle of a request and loses
//! answers after it has stored what they are about.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_testkit::loki::behaviour::{Faults, Reach};
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::Format;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::front::{Front, Way};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

/// What the sink does for a while.
const STATES: [&str; 6] = ["up", "refused", "503", "cut in a body", "204 lost", "hang"];

fn enter(state: &str, rig: &Rig, front: &Front, rng: &mut Rng) {
    let reach = match state {
        "refused" => Reach::Refused,
        "503" => Reach::Unavailable,
        _ => Reach::Up,
    };
    rig.loki.set_reach(reach).expect("the port is still free");
    front.set(match state {
        "cut in a body" => Way::CutAfter(200 + rng.below(20_000)),
        _ => Way::Pass,
    });
    rig.loki.set_faults(|f| {
        *f = Faults::default();
        f.hang = state == "hang";
        f.reset_after = if state == "204 lost" { 0.7 } else { 0.0 };
    });
}

#[test]
fn a_flapping_sink_loses_nothing_and_shows_nothing_twice() {
    let time = scaled(Duration::from_secs(20), Duration::from_secs(900));
    let (shortest, longest) = scaled((200, 1_500), (500, 20_000));
    let mut row = Row::new(4, "Loki flapping")
        .how(format!(
            "for {} s, a new state every {shortest} to {longest} ms at random: up, refused, 503, \
             connections cut in the middle of a body, stored and then no answer, hanging",
            time.as_secs()
        ))
        .pass("loss 0; shown twice 0; full rate again <= 30 s");
    let rig = Rig::new("flapping");
    let front = Front::start(rig.loki.addr()).expect("a port");
    let mut config = rig.container_config("containerd");
    config["exporters"]["loki"]["endpoint"] = json!(front.push_url());
    config["exporters"]["loki"]["timeout"] = json!("2s");
    let options = LiveOptions {
        lines_per_second: 1_000,
        // The sink is away for longer in the long form: no more generations than are kept in order.
        rotate_every_lines: Some(scaled(5_000, 50_000)),
        lines_max: None,
    };
    let live: Vec<_> = (1..=4)
        .map(|id| {
            let writer = rig.writer(id, &format!("{id}.log"), |o| {
                o.format = Format::Cri;
                o.rotation = tailwater_testkit::writer::Rotation::kubernetes(1_000);
            });
            LiveWriter::start(writer, options).expect("a thread")
        })
        .collect();
    let agent = rig.start(&config);
    let mut rng = Rng::new(4);
    let begin = Instant::now();
    let mut entered = BTreeMap::<&str, u32>::new();
    while begin.elapsed() < time {
        let state = STATES[rng.below(STATES.len() as u64) as usize];
        *entered.entry(state).or_default() += 1;
        enter(state, &rig, &front, &mut rng);
        wait::let_pass(Duration::from_millis(
            shortest + rng.below(longest - shortest),
        ));
    }
    enter("up", &rig, &front, &mut rng);
    let over = Instant::now();
    // Caught up while the writers go on: what was written by now has arrived.
    let due: u64 = live.iter().map(LiveWriter::lines).sum();
    let caught_up = wait::within(scaled(4, 40) * wait::BOUND, || {
        rig.oracle.report().totals.delivered >= due
    });
    let recovery = over.elapsed();
    for writer in live {
        writer.stop().expect("written");
    }
    rig.wait_delivered_within(&agent, scaled(1, 20) * wait::BOUND);
    let t = rig.finish(agent).totals;
    assert!(caught_up && front.cuts() > 0, "{} cuts", front.cuts());
    let lost_answers = rig.loki.stats().pushes_unanswered;
    assert!(lost_answers > 0, "{entered:?}");
    row.reached(format!(
        "0 of {} lines lost, {} sent twice, 0 shown twice; states {entered:?}, {} connections cut, \
         {lost_answers} requests without an answer",
        t.written,
        t.duplicates_raw,
        front.cuts()
    ));
    row.held(
        recovery <= Duration::from_secs(30),
        format!(
            "caught up {:.1} s after the last fault",
            recovery.as_secs_f64()
        ),
    );
    row.record();
}
