use super::*;

fn line(writer: u32, seq: u64) -> Vec<u8> {
    let mut line = Vec::new();
    message::append(&mut line, writer, seq, seq, 20);
    line
}

fn entry<'a>(labels: &'a str, ts_ns: i64, line: &'a [u8]) -> EntryRef<'a> {
    EntryRef {
        tenant: "t",
        labels,
        ts_ns,
        line,
        metadata: &[],
    }
}

fn deliver(oracle: &DeliveryOracle, seq: u64) {
    oracle.observe(&entry("{a=\"1\"}", seq as i64, &line(1, seq)));
}

fn written(lines: u64) -> DeliveryOracle {
    let oracle = DeliveryOracle::new();
    oracle.announce(1, "a.log", 0..lines);
    oracle.confirm(1, lines);
    oracle
}

#[test]
fn what_did_not_arrive_is_missing_with_its_ranges_and_files() {
    let oracle = written(10);
    oracle.announce(1, "b.log", 10..20);
    oracle.confirm(1, 20);
    for seq in (0..20).filter(|seq| ![3, 4, 12].contains(seq)) {
        deliver(&oracle, seq);
    }
    assert!(!oracle.is_complete());
    let report = oracle.report();
    let writer = &report.writers[0];
    assert_eq!(
        (writer.written, writer.delivered, writer.missing),
        (20, 17, 3)
    );
    assert_eq!(writer.missing_ranges, [3..5, 12..13]);
    let file = |file: &str, missing| FileReport {
        file: file.into(),
        written: 10,
        missing,
    };
    assert_eq!(writer.files, [file("a.log", 2), file("b.log", 1)]);
    assert!(!report.is_faultless());
    for seq in [3, 4, 12] {
        deliver(&oracle, seq);
    }
    assert!(oracle.is_complete());
    assert_eq!(oracle.report().totals.missing, 0);
    assert!(oracle.report().is_faultless());
}

#[test]
fn gaps_of_any_length_are_found_whole() {
    let oracle = written(200_000);
    let mut expect = Vec::new();
    let mut start = 0;
    for length in [1, 2, 3, 7, 8, 9, 1_000, 70_000] {
        expect.push(start..start + length);
        deliver(&oracle, start + length);
        start += length + 1;
    }
    expect.push(start..200_000);
    assert_eq!(oracle.report().writers[0].missing_ranges, expect);
}

#[test]
fn repeats_are_told_apart_by_whether_loki_would_show_them() {
    let oracle = written(2);
    let text = line(1, 0);
    oracle.observe(&entry("{a=\"1\"}", 5, &text));
    oracle.observe(&entry("{a=\"1\"}", 5, &text));
    let totals = oracle.report().totals;
    assert_eq!(
        (totals.duplicates_raw, totals.duplicates_after_dedup),
        (1, 0)
    );
    for other in [entry("{a=\"2\"}", 5, &text), entry("{a=\"1\"}", 6, &text)] {
        oracle.observe(&other);
        oracle.observe(&other);
    }
    let totals = oracle.report().totals;
    assert_eq!(
        (totals.duplicates_raw, totals.duplicates_after_dedup),
        (5, 2)
    );
    assert_eq!(totals.delivered, 1);
}

#[test]
fn order_is_judged_per_stream_and_first_deliveries_only() {
    let oracle = written(10);
    for (labels, seq) in [
        ("{s=\"1\"}", 0),
        ("{s=\"2\"}", 5),
        ("{s=\"1\"}", 2),
        ("{s=\"1\"}", 1),
    ] {
        oracle.observe(&entry(labels, 0, &line(1, seq)));
    }
    oracle.observe(&entry("{s=\"1\"}", 0, &line(1, 0)));
    let report = oracle.report();
    assert_eq!(report.totals.out_of_order, 1);
    let streams: Vec<_> = report.writers[0]
        .streams
        .iter()
        .map(|s| (s.delivered, s.out_of_order))
        .collect();
    assert_eq!(streams, [(3, 1), (1, 0)]);
}

#[test]
fn damaged_foreign_unknown_and_invented_lines_are_counted_apart() {
    let oracle = written(5);
    let mut cut = line(1, 0);
    cut.pop();
    for text in [cut, b"hello".to_vec(), line(9, 0), line(1, 5)] {
        oracle.observe(&entry("{}", 0, &text));
    }
    let report = oracle.report();
    let totals = report.totals;
    assert_eq!(
        (
            totals.corrupt,
            report.foreign,
            report.unknown,
            totals.phantom
        ),
        (1, 1, 1, 1)
    );
    assert_eq!((totals.delivered, totals.missing), (0, 5));
}

#[test]
fn lines_of_removed_files_are_missing_but_excusable() {
    let oracle = written(10);
    deliver(&oracle, 1);
    oracle.removed(1, 0..4);
    let totals = oracle.report().totals;
    assert_eq!(
        (
            totals.missing,
            totals.missing_removed,
            totals.missing_readable()
        ),
        (9, 3, 6)
    );
    for seq in 4..10 {
        deliver(&oracle, seq);
    }
    assert!(oracle.is_complete());
    assert!(!oracle.report().is_faultless());
    deliver(&oracle, 0);
    assert_eq!(oracle.report().totals.missing_removed, 2);
}

#[test]
fn an_announced_line_may_arrive_early_and_is_missing_only_once_confirmed() {
    let oracle = DeliveryOracle::new();
    oracle.announce(1, "a", 0..3);
    deliver(&oracle, 2);
    let totals = oracle.report().totals;
    assert_eq!(
        (
            totals.written,
            totals.delivered,
            totals.missing,
            totals.phantom
        ),
        (0, 0, 0, 0)
    );
    oracle.confirm(1, 100);
    let totals = oracle.report().totals;
    assert_eq!(
        (totals.written, totals.delivered, totals.missing),
        (3, 1, 2)
    );
}

#[test]
fn the_balance_names_silent_loss_and_false_excuses() {
    let oracle = written(10);
    for seq in 0..7 {
        deliver(&oracle, seq);
    }
    let unexplained = |dropped, in_flight| {
        let accounted = Accounted {
            dropped,
            in_flight,
            ..Accounted::default()
        };
        oracle.balance(&accounted).unexplained
    };
    assert_eq!(unexplained(0, 0), 3);
    assert_eq!(unexplained(2, 1), 0);
    assert_eq!(unexplained(5, 0), -2);
    let exact = Accounted {
        filtered: 1,
        unread: 2,
        ..Accounted::default()
    };
    assert!(oracle.balance(&exact).is_exact());
}

#[test]
fn many_files_do_not_grow_the_memory_of_a_writer_that_delivers() {
    let oracle = DeliveryOracle::new();
    for seq in 0..20_000 {
        oracle.announce(1, &format!("file-{seq}"), seq..seq + 1);
        oracle.confirm(1, seq + 1);
        if seq != 77 {
            deliver(&oracle, seq);
        }
    }
    let report = oracle.report();
    assert!(report.writers[0].files.len() <= 4_096);
    assert_eq!(
        (report.totals.missing, report.totals.delivered),
        (1, 19_999)
    );
    assert_eq!(report.writers[0].missing_ranges.first(), Some(&(77..78)));
}

#[test]
fn threads_may_deliver_and_report_at_once() {
    let oracle = DeliveryOracle::new();
    std::thread::scope(|scope| {
        for writer in 0..4u32 {
            let oracle = oracle.clone();
            scope.spawn(move || {
                for seq in 0..2_000 {
                    oracle.announce(writer, "f", seq..seq + 1);
                    oracle.confirm(writer, seq + 1);
                    let text = line(writer, seq);
                    oracle.observe(&entry("{}", 0, &text));
                }
            });
        }
        for _ in 0..20 {
            let totals = oracle.report().totals;
            assert_eq!(totals.written, totals.delivered + totals.missing);
        }
    });
    assert!(oracle.report().is_faultless());
    assert_eq!(oracle.report().totals.delivered, 8_000);
}

#[test]
fn progress_counts_what_was_confirmed_and_what_of_it_arrived() {
    let oracle = DeliveryOracle::remembering(10);
    oracle.announce(1, "a.log", 0..12);
    oracle.confirm(1, 10);
    for seq in [0, 1, 1, 11] {
        deliver(&oracle, seq);
    }
    let expect = Progress {
        writer: 1,
        written: 10,
        delivered: 2,
    };
    assert_eq!(oracle.progress(), [expect]);
}

#[test]
fn removals_in_any_order_are_counted_as_a_model_counts_them() {
    let mut rng = crate::rng::Rng::new(3);
    for _ in 0..50 {
        let oracle = DeliveryOracle::new();
        let mut lines = 0;
        let mut removed = std::collections::BTreeSet::new();
        let mut arrived = std::collections::BTreeSet::new();
        for step in 0..100 {
            let end = lines + 1 + rng.below(9);
            oracle.announce(1, &format!("{}.log", step % 5), lines..end);
            oracle.confirm(1, end);
            lines = end;
            let from = rng.below(lines);
            let to = lines.min(from + rng.below(30));
            oracle.removed(1, from..to);
            removed.extend(from..to);
            let seq = rng.below(lines);
            if arrived.insert(seq) {
                deliver(&oracle, seq);
            }
        }
        let report = oracle.report();
        let missing = |set: &dyn Fn(u64) -> bool| {
            let of = (0..lines).filter(|seq| !arrived.contains(seq) && set(*seq));
            of.count() as u64
        };
        assert_eq!(report.totals.missing, missing(&|_| true));
        let gone = missing(&|seq| removed.contains(&seq));
        assert_eq!(report.totals.missing_removed, gone);
        let files = &report.writers[0].files;
        assert_eq!(files.len(), 5);
        let sums = (
            files.iter().map(|f| f.written).sum::<u64>(),
            files.iter().map(|f| f.missing).sum::<u64>(),
        );
        assert_eq!(sums, (lines, report.totals.missing));
    }
}
