//! The account adds up after every step, whatever happens in whatever order.

use super::accounting::*;
use super::registry::MetricsRegistry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const REASONS: &[&str] = &["too_old", "rejected"];

fn account() -> Arc<Accounting> {
    Accounting::new(&MetricsRegistry::default(), "receiver", "filelog", REASONS)
}

fn settle(records: u64, bytes: u64, filtered: u64, dropped: &[u32]) -> Settlement<'_> {
    Settlement {
        batch: Amount::new(records, bytes),
        filtered_by: &[],
        filtered,
        dropped,
    }
}

#[test]
fn a_batch_is_shared_out_without_a_record_or_byte_left_over() {
    let a = account();
    a.read(Amount::new(10, 101));
    assert_eq!(a.snapshot().in_flight, Amount::new(10, 101));
    a.settled(settle(10, 101, 3, &[0, 2]));
    let s = a.snapshot();
    s.check().unwrap();
    assert!(s.is_settled());
    assert_eq!(s.filtered[0], ("pipeline".to_owned(), Amount::new(3, 30)));
    assert_eq!(
        s.dropped,
        [
            ("too_old", Amount::default()),
            ("rejected", Amount::new(2, 20))
        ]
    );
    assert_eq!(s.delivered, Amount::new(5, 51));
}

#[test]
fn what_the_component_removed_itself_is_counted_by_who_did() {
    let a = account();
    let by = [(a.filter("noise"), 2), (a.filter("debug"), 3)];
    a.read(Amount::new(10, 101));
    let settlement = Settlement {
        filtered_by: &by,
        ..settle(10, 101, 1, &[1, 0])
    };
    a.settled(settlement);
    let s = a.snapshot();
    s.check().unwrap();
    let of = |by: &str| s.filtered.iter().find(|(b, _)| b == by).unwrap().1.records;
    assert_eq!((of("noise"), of("debug"), of("pipeline")), (2, 3, 1));
    assert_eq!((s.delivered.records, s.is_settled()), (3, true));
}

#[test]
fn going_back_keeps_records_in_flight_and_counts_them_once() {
    let a = account();
    a.read(Amount::new(10, 100));
    a.rewound(Amount::new(10, 100));
    assert_eq!(a.snapshot().in_flight, Amount::new(10, 100));
    a.reread(Amount::new(8, 100));
    a.replay_ended(Amount::new(2, 0));
    a.settled(settle(8, 100, 0, &[]));
    let s = a.snapshot();
    s.check().unwrap();
    assert!(s.is_settled() && s.owed == Amount::default());
    assert_eq!((s.read.records, s.delivered.records), (10, 8));
    assert_eq!(s.filtered[1], ("replay".to_owned(), Amount::new(2, 0)));
    a.reread(Amount::new(3, 30));
    assert_eq!(a.snapshot().read, Amount::new(13, 130));
}

/// Scenario: 10 records under way in the old content, 4 in the new; the file was truncated
/// between them and everything comes back. Guarantee: the 10 are dropped, not filtered.
#[test]
fn what_a_truncation_took_is_dropped_and_the_rest_is_read_again() {
    let a = account();
    a.read(Amount::new(14, 140));
    a.dropped(0, Amount::new(10, 100));
    a.rewound(Amount::new(4, 40));
    assert_eq!(a.snapshot().in_flight, Amount::new(4, 40));
    a.reread(Amount::new(4, 40));
    a.settled(settle(4, 40, 0, &[]));
    let s = a.snapshot();
    s.check().unwrap();
    assert!(s.is_settled() && s.owed == Amount::default());
    assert_eq!(s.dropped[0].1, Amount::new(10, 100));
    assert_eq!(s.filtered[1].1, Amount::default());
}

/// Scenario: a file is rewound, then truncated before it was read again. Guarantee: what it
/// owed leaves the flight as dropped, and what another file owes stays.
#[test]
fn a_debt_that_cannot_be_paid_is_dropped() {
    let a = account();
    a.read(Amount::new(15, 150));
    a.rewound(Amount::new(10, 100));
    a.rewound(Amount::new(5, 50));
    a.owed_lost(1, Amount::new(10, 100));
    let s = a.snapshot();
    s.check().unwrap();
    assert_eq!((s.in_flight, s.owed), (s.owed, Amount::new(5, 50)));
    assert_eq!(s.dropped[1], ("rejected", Amount::new(10, 100)));
    a.owed_lost(1, Amount::new(9, 90));
    a.owed_lost(1, Amount::new(9, 90));
    let s = a.snapshot();
    s.check().unwrap();
    assert!(s.is_settled(), "never more than is owed: {s:?}");
}

/// One file of the model below: what is under way, and what must be read again.
#[derive(Clone, Copy, Default)]
struct File {
    under_way: Amount,
    owed: Amount,
}

/// What a file does next, with a size.
fn step(a: &Accounting, file: &mut File, what: u8, n: u64) {
    let amount = Amount::new(n, 10 * n);
    match what {
        0 => {
            a.read(amount);
            file.under_way = file.under_way.plus(amount);
        }
        1 => {
            a.rewound(file.under_way);
            file.owed = file.owed.plus(std::mem::take(&mut file.under_way));
        }
        2 if file.owed != Amount::default() => {
            // Cut differently than before: more or fewer records than are owed.
            a.reread(amount);
            file.owed = file.owed.minus(amount);
            file.under_way = file.under_way.plus(amount);
        }
        3 => a.replay_ended(std::mem::take(&mut file.owed)),
        4 => a.owed_lost(0, std::mem::take(&mut file.owed)),
        5 => a.dropped(1, std::mem::take(&mut file.under_way)),
        6 => {
            let Amount { records, bytes } = std::mem::take(&mut file.under_way);
            a.settled(settle(records, bytes, records / 3, &[1, 1]));
        }
        _ => {}
    }
}

proptest::proptest! {
    /// Guarantee: whatever files do in whatever order, the account adds up after each step,
    /// and nothing stays in flight once every file has settled or given up what it had.
    #[test]
    fn property_nothing_stays_in_flight_for_ever(
        steps in proptest::collection::vec((0usize..3, 0u8..7, 0u64..6), 0..80),
    ) {
        let a = account();
        let mut files = [File::default(); 3];
        for (file, what, n) in steps {
            step(&a, &mut files[file], what, n);
            a.snapshot().check().unwrap();
        }
        for file in &mut files {
            (3..7).for_each(|what| step(&a, file, what, 0));
        }
        let s = a.snapshot();
        s.check().unwrap();
        proptest::prop_assert!(s.is_settled() && s.owed == Amount::default(), "{:?}", s);
    }
}

#[test]
fn settling_twice_is_seen() {
    let a = account();
    a.read(Amount::new(1, 1));
    a.settled(settle(1, 1, 0, &[]));
    a.settled(settle(1, 1, 0, &[]));
    assert!(a.snapshot().check().is_err());
}

#[test]
fn more_fates_than_records_do_not_invent_records() {
    let a = account();
    a.read(Amount::new(2, 20));
    a.settled(settle(2, 20, 9, &[7, 7]));
    let s = a.snapshot();
    s.check().unwrap();
    assert_eq!(s.filtered[0].1, Amount::new(2, 20));
}

/// Guarantee: whatever other threads do, a snapshot adds up and nothing goes backwards.
#[test]
fn a_scrape_between_any_two_steps_adds_up() {
    let a = account();
    let done = AtomicBool::new(false);
    let writer = |a: &Accounting, own: &FilterCount| {
        for i in 0..20_000_u64 {
            a.read(Amount::new(7, 70));
            if i % 5 == 0 {
                a.rewound(Amount::new(7, 70));
                a.reread(Amount::new(7, 70));
            }
            own.add(Amount::new(1, 10));
            a.settled(settle(6, 60, 1, &[1, 0]));
        }
    };
    let own = a.filter("operator");
    std::thread::scope(|scope| {
        let (a, own) = (&a, &own);
        let writers: Vec<_> = (0..2)
            .map(|_| scope.spawn(move || writer(a, own)))
            .collect();
        let reader = scope.spawn(|| {
            let mut last = a.snapshot();
            while !done.load(Ordering::Acquire) {
                let now = a.snapshot();
                now.check().unwrap();
                assert!(now.read.records >= last.read.records);
                assert!(now.delivered.records >= last.delivered.records);
                last = now;
            }
        });
        for w in writers {
            w.join().unwrap();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
    let s = a.snapshot();
    s.check().unwrap();
    assert_eq!((s.read.records, s.in_flight.records), (280_000, 0));
}

#[test]
fn the_text_of_a_scrape_adds_up() {
    let registry = MetricsRegistry::default();
    let a = Accounting::new(&registry, "receiver", "filelog/x", REASONS);
    a.read(Amount::new(9, 90));
    a.filter("drop_debug").add(Amount::new(2, 20));
    a.settled(settle(4, 40, 0, &[1, 0]));
    let text = registry.render();
    for line in [
        "tailwater_records_read{kind=\"receiver\",component=\"filelog/x\"} 9\n",
        "tailwater_records_delivered{kind=\"receiver\",component=\"filelog/x\"} 3\n",
        "tailwater_records_in_flight{kind=\"receiver\",component=\"filelog/x\"} 3\n",
        "component=\"filelog/x\",by=\"drop_debug\"} 2\n",
        "component=\"filelog/x\",reason=\"too_old\"} 1\n",
        "tailwater_bytes_in_flight{kind=\"receiver\",component=\"filelog/x\"} 30\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
