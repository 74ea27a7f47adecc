//! The accounting identity, from the outside: read = delivered + in flight + filtered + dropped,
//! in every scrape, whatever the sink does; and at the end it is what the sink has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour, Reach};
use tailwater_testkit::writer::Format;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::scrape::Scrape;
use tailwater_tests::wait;

/// Lines of this writer are removed by a filter.
const FILTERED: u32 = 7;
/// Lines of this writer are longer than the sink takes.
const TOO_LONG: u32 = 8;
const LINE_BYTES_MAX: usize = 600;

/// Time between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(50);

/// The components whose numbers do not add up, and all that were looked at.
fn violations(scrape: &Scrape) -> (Vec<String>, usize) {
    let (mut wrong, mut components) = (Vec::new(), 0);
    for unit in ["records", "bytes"] {
        let accounts = scrape.accounts_in(unit);
        components = accounts.len();
        for (id, a) in accounts {
            if a.unexplained() != 0.0 || a.overdrawn != 0.0 || a.in_flight < 0.0 {
                wrong.push(format!("{unit} of {id:?}: {a:?}"));
            }
        }
    }
    (wrong, components)
}

/// Scrapes until `done`; how often, and what did not add up. Fails if a component has no account.
fn watch(agent: &Agent, done: &AtomicBool) -> (u32, Vec<String>) {
    let (mut scrapes, mut wrong) = (0_u32, Vec::new());
    while !done.load(Ordering::Acquire) {
        let (found, components) = violations(&agent.scrape());
        assert!(components >= 2, "receiver and exporter have an account");
        wrong.extend(found);
        scrapes += 1;
        wait::let_pass(SCRAPE_INTERVAL);
    }
    (scrapes, wrong)
}

#[test]
fn the_identity_holds_in_every_scrape_and_ends_at_what_the_sink_has() {
    let behaviour = LokiBehaviour {
        line_bytes_max: Some(LINE_BYTES_MAX),
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("accounting", behaviour, Faults::default());
    let mut config = rig.config();
    config["receivers"]["filelog"]["operators"] = json!([{"type": "filter", "id": "noise", "expr": format!("body startsWith \"tw-{FILTERED} \"")}]);
    let agent = rig.start(&config);
    let start = |id: u32, rate, judged: bool| {
        let writer = rig.writer(id, &format!("app{id}.log"), |o| {
            if !judged {
                o.oracle = None;
            }
            if id == TOO_LONG {
                o.pad_bytes = LINE_BYTES_MAX..=LINE_BYTES_MAX + 300;
            }
        });
        let (lines_per_second, rotate_every_lines) = (rate, Some(2_000));
        let options = LiveOptions {
            lines_per_second,
            rotate_every_lines,
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    };
    let live = [
        start(1, 3_000, true),
        start(2, 2_000, true),
        start(FILTERED, 500, false),
        start(TOO_LONG, 20, false),
    ];
    let done = AtomicBool::new(false);
    let (scrapes, wrong) = std::thread::scope(|scope| {
        let scraping = scope.spawn(|| watch(&agent, &done));
        let faults: [fn(&mut Faults); 4] = [
            |_| {},
            |f| (f.status_500, f.status_429, f.reset_before) = (0.2, 0.1, 0.1),
            |f| (f.reset_after, f.delay) = (0.3, Duration::from_millis(30)),
            |f| f.hang = true,
        ];
        for fault in faults {
            rig.loki.set_faults(|f| {
                *f = Faults::default();
                fault(f);
            });
            wait::let_pass(Duration::from_secs(2));
        }
        rig.loki.set_faults(|f| *f = Faults::default());
        rig.loki.set_reach(Reach::Refused).expect("a port");
        wait::let_pass(Duration::from_secs(1));
        rig.loki
            .set_reach(Reach::Up)
            .expect("the port is still free");
        done.store(true, Ordering::Release);
        scraping.join().expect("scraping goes on")
    });
    println!("{scrapes} scrapes, {} violations", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} violations, e.g. {}",
        wrong.len(),
        wrong[0]
    );
    assert!(scrapes > 50, "only {scrapes} scrapes");
    let [one, two, filtered, too_long] =
        live.map(|writer| writer.stop().expect("written").lines_written());
    rig.wait_delivered(&agent);
    let settled = wait::within(wait::BOUND, || {
        let a = agent.scrape().account("receiver");
        a.in_flight == 0.0 && a.read == (one + two + filtered + too_long) as f64
    });
    let account = agent.scrape().account("receiver");
    assert!(settled, "{account:?}\n{}", tail(&agent.log()));
    assert_eq!(account.filtered, filtered as f64, "{account:?}");
    let by_operator = agent.scrape().sum(
        "tailwater_records_filtered",
        &[("kind", "receiver"), ("by", "noise")],
    );
    assert_eq!(by_operator, filtered as f64, "under the operator's id");
    assert_eq!(account.dropped, too_long as f64, "{account:?}");
    assert_eq!(account.delivered, (one + two) as f64, "{account:?}");
    let distinct = rig.loki.stats().entries_distinct.expect("entries are kept");
    assert_eq!(account.delivered, distinct as f64, "what the sink has");
    let exporter = agent.scrape().account("exporter");
    assert_eq!(exporter.in_flight, 0.0, "{exporter:?}");
    assert_eq!(
        (exporter.delivered, exporter.dropped, exporter.filtered),
        (account.delivered, account.dropped, 0.0),
        "the exporter got what no operator removed: {exporter:?}"
    );
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that the account of a process that begins where another was killed adds up from its
/// first scrape on, and that what is read again is settled like all else.
#[test]
fn the_identity_holds_across_kills_refusals_and_filters() {
    const KILLS: u32 = 8;
    let behaviour = LokiBehaviour {
        line_bytes_max: Some(LINE_BYTES_MAX),
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("accounting-kills", behaviour, Faults::default());
    let mut config = rig.container_config("containerd");
    let operators = config["receivers"]["filelog"]["operators"].as_array_mut();
    operators
        .expect("a list")
        .push(json!({"type": "filter", "expr": format!("body startsWith \"tw-{FILTERED} \"")}));
    rig.loki.set_faults(|f| {
        (f.status_429, f.status_500, f.reset_after) = (0.1, 0.05, 0.05);
    });
    let live = [(1, true), (FILTERED, false), (TOO_LONG, false)].map(|(id, judged)| {
        let writer = rig.writer(id, &format!("app{id}.log"), |o| {
            o.format = Format::Cri;
            if !judged {
                o.oracle = None;
            }
            if id == TOO_LONG {
                o.pad_bytes = LINE_BYTES_MAX..=LINE_BYTES_MAX + 300;
            }
        });
        let options = LiveOptions {
            lines_per_second: if id == TOO_LONG { 20 } else { 2_000 },
            rotate_every_lines: None,
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    });
    let mut scrapes = 0;
    for kill in 0..KILLS {
        let agent = rig.start(&config);
        let done = AtomicBool::new(false);
        let (seen, wrong) = std::thread::scope(|scope| {
            let scraping = scope.spawn(|| watch(&agent, &done));
            wait::let_pass(Duration::from_millis(300 + 100 * u64::from(kill)));
            done.store(true, Ordering::Release);
            scraping.join().expect("scraping goes on")
        });
        assert!(wrong.is_empty(), "life {kill}: {}", wrong[0]);
        scrapes += seen;
        agent.kill();
    }
    assert!(scrapes > 4 * KILLS, "only {scrapes} scrapes");
    for writer in live {
        writer.stop().expect("written");
    }
    rig.loki.set_faults(|f| *f = Faults::default());
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let settled = wait::within(wait::BOUND, || {
        let scrape = agent.scrape();
        scrape.account("receiver").in_flight == 0.0 && scrape.account("exporter").in_flight == 0.0
    });
    let scrape = agent.scrape();
    assert!(settled, "{:?}\n{}", scrape.accounts(), tail(&agent.log()));
    assert_eq!(violations(&scrape).0, [""; 0]);
    agent.stop_clean();
    rig.assert_faultless();
}
