//! Row 20: SIGTERM while the sink is down.

use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::rng::Rng;
use tailwater_tests::disk_stall::Watch;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// How the sink fails: unreachable, overloaded, silent, or failing now and then.
const WAYS: u64 = 4;

fn spoil(rig: &Rig, way: u64) {
    let reach = match way {
        0 => Reach::Refused,
        1 => Reach::Unavailable,
        _ => Reach::Up,
    };
    rig.loki.set_reach(reach).expect("the port is still free");
    rig.loki.set_faults(|f| {
        *f = Default::default();
        f.hang = way == 2;
        if way == 3 {
            (f.status_500, f.reset_after, f.reset_before) = (0.4, 0.3, 0.2);
        }
    });
}

/// Guarantees that a stop while nothing or little can be delivered ends within its grace, with a
/// code that says whether something is left, and that the next start delivers what is left once.
#[test]
fn a_stop_while_the_sink_is_down_ends_in_its_grace_and_loses_nothing() {
    let runs = scaled(40, 500);
    let mut row = Row::new(20, "SIGTERM during retry, sink down")
        .how(format!(
            "{runs} stops at random moments with the sink unreachable, overloaded, silent or \
             failing; grace 0 s, 1 s, in some 5 s or 30 s; a second SIGTERM in a third of them"
        ))
        .pass("exit <= grace; loss 0; no panic");
    let rig = Rig::new("stops");
    let mut config = rig.config();
    config["exporters"]["loki"]["timeout"] = json!("60s");
    let mut writer = rig.writer(1, "app.log", |_| {});
    let mut rng = Rng::new(20);
    let (mut over, mut stalls, mut twice, mut left) = (Duration::ZERO, Duration::ZERO, 0, 0);
    for run in 0..runs {
        writer.write_lines(50 + rng.below(300)).expect("written");
        spoil(&rig, rng.below(WAYS));
        // Long ones are few: the point is the moment, not the wait.
        let grace = match run % 40 {
            13 => 5,
            29 => 30,
            _ => rng.below(2),
        };
        config["service"]["shutdown_timeout"] = json!(format!("{grace}s"));
        let mut agent = rig.start(&config);
        wait::let_pass(Duration::from_millis(rng.below(200)));
        let second = rng.chance(0.33) || grace > 1;
        let (begin, watch) = (Instant::now(), Watch::start());
        agent.terminate();
        let mut allowed = Duration::from_secs(grace);
        if second {
            wait::let_pass(Duration::from_millis(rng.below(300)));
            twice += 1;
            // Signals do not queue: one that comes before the other was taken is the same one.
            let taken = wait::within(wait::BOUND, || {
                agent.has_ended() || agent.log().contains("Starting shutdown")
            });
            assert!(taken, "the first signal: {}", tail(&agent.log()));
            if !agent.has_ended() {
                agent.terminate();
                allowed = allowed.min(begin.elapsed());
            }
        }
        let status = agent.wait_end(Duration::from_secs(60));
        let status = status.unwrap_or_else(|| panic!("still running:\n{}", tail(&agent.log())));
        // Nothing ends before the disk has answered it.
        let stalled = watch.stalled();
        stalls += stalled;
        over = over.max(begin.elapsed().saturating_sub(allowed + stalled));
        let code = status.code();
        assert!(
            matches!(code, Some(0 | 3 | 4)),
            "run {run}: {status}\n{}",
            tail(&agent.log())
        );
        assert!(!agent.log().contains("panicked"), "{}", agent.log());
        if code == Some(0) {
            assert!(
                rig.oracle.is_complete(),
                "run {run}: code 0 with lines left"
            );
        }
        left += u32::from(code != Some(0));
    }
    spoil(&rig, WAYS);
    config["service"]["shutdown_timeout"] = json!("30s");
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost or shown twice, {} sent again; {left} stops left lines for the next \
         start; {twice} were asked twice",
        t.written, t.duplicates_raw
    ));
    let mut figure = format!("at most {:.2} s beyond the grace", over.as_secs_f64());
    if !stalls.is_zero() {
        let seconds = stalls.as_secs_f64();
        figure += &format!(", not counting {seconds:.0} s in which the disk did not answer");
    }
    row.held(over <= Duration::from_secs(1), figure);
    row.record();
}
