//! The accounting identity, from the outside: read = delivered + in flight + filtered + dropped,
//! in every scrape, whatever the sink does; and at the end it is what the sink has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour, Reach};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::scrape::Scrape;
use tailwater_tests::wait;

/// Lines of this writer are removed by a filter.
const FILTERED: u32 = 7;
/// Lines of this writer are longer than the sink takes.
const TOO_LONG: u32 = 8;
const LINE_BYTES_MAX: usize = 600;

/// The components whose numbers do not add up, and all that were looked at.
fn violations(scrape: &Scrape) -> (Vec<String>, usize) {
    let accounts = scrape.accounts();
    let wrong = accounts
        .iter()
        .filter(|(_, a)| a.unexplained() != 0.0 || a.overdrawn != 0.0);
    (
        wrong.map(|(id, a)| format!("{id:?}: {a:?}")).collect(),
        accounts.len(),
    )
}

#[test]
fn the_identity_holds_in_every_scrape_and_ends_at_what_the_sink_has() {
    let behaviour = LokiBehaviour {
        line_bytes_max: Some(LINE_BYTES_MAX),
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("accounting", behaviour, Faults::default());
    let mut config = rig.config();
    config["receivers"]["filelog"]["operators"] =
        json!([{"type": "filter", "expr": format!("body startsWith \"tw-{FILTERED} \"")}]);
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
        let scraping = scope.spawn(|| {
            let (mut scrapes, mut wrong) = (0_u32, Vec::new());
            while !done.load(Ordering::Acquire) {
                let (found, components) = violations(&agent.scrape());
                assert!(components >= 1, "no account is shown");
                wrong.extend(found);
                scrapes += 1;
            }
            (scrapes, wrong)
        });
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
    assert_eq!(account.dropped, too_long as f64, "{account:?}");
    assert_eq!(account.delivered, (one + two) as f64, "{account:?}");
    let distinct = rig.loki.stats().entries_distinct.expect("entries are kept");
    assert_eq!(account.delivered, distinct as f64, "what the sink has");
    agent.stop_clean();
    rig.assert_faultless();
}
