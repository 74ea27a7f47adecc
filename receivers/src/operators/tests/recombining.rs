//! `recombine`: groups in a batch, over batches, over rotation, by the clock.

use super::*;
use proptest::prelude::*;

const FIRST: &str =
    r#"[{"type":"recombine","combine_field":"body","is_first_entry":"body matches '^[^ ]'"}]"#;
const LAST: &str =
    r#"[{"type":"recombine","combine_field":"body","is_last_entry":"body endsWith '.'"}]"#;

/// Sends lines through, `per_batch` at a time, and lets time pass then; bodies and offsets.
fn through(operators: &str, all: &[&str], per_batch: usize) -> Vec<(String, Option<u64>)> {
    let mut chain = chain(operators);
    let mut cx = cx(1, 1, 0);
    let (mut base, mut out) = (0, Vec::new());
    let mut rows_in = 0;
    let mut take = |batches: &[LogsBatch]| {
        for b in batches {
            for row in 0..b.rows() {
                let body = b.body(row).map(|v| v.to_display_string());
                out.push((body.unwrap_or_default(), b.source_offset(row)));
            }
        }
    };
    for group in all.chunks(per_batch) {
        let mut batch = lines(base, "/p", group);
        rows_in += group.len() as u64;
        base += group.iter().map(|l| l.len() as u64 + 1).sum::<u64>();
        chain.process(&mut batch, &mut cx);
        take(&[batch]);
        take(&std::mem::take(&mut cx.report.more));
        let held = chain.held_from(1);
        assert_eq!(held.is_some(), chain.held_bytes() > 0);
        assert!(held.is_none_or(|from| from < base && chain.holds(1, 1)));
    }
    cx.elapsed = Duration::from_secs(5);
    for passed in chain.tick(&mut cx) {
        assert!(!passed.covers.is_empty());
        take(&passed.batches);
    }
    assert_eq!((chain.held_bytes(), chain.deadline()), (0, None));
    let r = &cx.report;
    let out_rows = out.len() as u64;
    assert_eq!(
        rows_in + r.flushed,
        out_rows + r.dropped + r.joined,
        "{r:?}"
    );
    out
}

fn texts(operators: &str, all: &[&str]) -> Vec<String> {
    through(operators, all, all.len().max(1))
        .into_iter()
        .map(|(b, _)| b)
        .collect()
}

#[test]
fn records_are_put_together_by_their_first_or_last() {
    let trace = ["one", "Error", "  at a", "  at b", "two"];
    assert_eq!(
        texts(FIRST, &trace),
        ["one", "Error\n  at a\n  at b", "two"]
    );
    assert_eq!(texts(FIRST, &["  x", "  y", "a"]), ["  x\n  y", "a"]);
    assert_eq!(texts(LAST, &["a", "b.", "c.", "d"]), ["a\nb.", "c.", "d"]);
    let with = |more: &str, op: &str| op.replacen('{', &format!("{{{more},"), 1);
    let joined = with(r#""combine_with":"""#, LAST);
    assert_eq!(texts(&joined, &["a", "b."]), ["ab."]);
    let sized = with(r#""max_batch_size":2"#, LAST);
    assert_eq!(texts(&sized, &["a", "b", "c", "d."]), ["a\nb", "c\nd."]);
    let unmatched = with(r#""max_unmatched_batch_size":1"#, LAST);
    assert_eq!(texts(&unmatched, &["a", "b", "c."]), ["a", "b", "c."]);
    let unmatched = with(r#""max_unmatched_batch_size":2"#, FIRST);
    assert_eq!(
        texts(&unmatched, &[" a", " b", " c", "d", " e", " f"]),
        [" a\n b", " c", "d\n e\n f"]
    );
    let bytes = with(r#""max_log_size":5"#, LAST);
    assert_eq!(
        texts(&bytes, &["file1", "file1", "file2", "e."]),
        ["file1\nfile1", "file2\ne."]
    );
}

#[test]
fn the_oldest_or_the_newest_gives_the_other_fields() {
    let entry = |body: &str, time: i64, severity: u8| Entry {
        time,
        severity,
        attributes: map(&[("t", Value::Int(time))]),
        resource: map(&[("r", Value::Int(time))]),
        scope_name: format!("s{time}"),
        trace_id: [time as u8; 16],
        ..text(body)
    };
    let entries = [entry("a", 1, 9), entry(" b", 2, 17)];
    for (newest, split) in [(false, false), (true, false), (false, true), (true, true)] {
        let order = if newest { "newest" } else { "oldest" };
        let operators = FIRST.replacen('{', &format!(r#"{{"overwrite_with":"{order}","#), 1);
        let mut chain = chain(&operators);
        let mut cx = cx(0, 0, 0);
        let groups = if split {
            entries.chunks(1)
        } else {
            entries.chunks(2)
        };
        for group in groups {
            chain.process(&mut LogsBatch::from_entries(group), &mut cx);
        }
        let mut batch = LogsBatch::from_entries(&[text("c")]);
        chain.process(&mut batch, &mut cx);
        let all: Vec<Entry> = std::iter::once(&batch)
            .chain(&cx.report.more)
            .flat_map(|b| b.to_entries())
            .collect();
        let base = &entries[usize::from(newest)];
        let want = Entry {
            body: "a\n b".into(),
            ..base.clone()
        };
        assert_eq!(all, [want], "{order} {split}");
    }
}

/// Guarantees: sources are told apart; files of different logs never share a group.
#[test]
fn sources_have_groups_of_their_own() {
    let operators = r#"[{"type":"recombine","combine_field":"body","is_last_entry":"body == 'end'",
        "source_identifier":"attributes.s","max_sources":2}]"#;
    let from = |body: &str, s: &str| Entry {
        attributes: map(&[("s", s.into())]),
        ..text(body)
    };
    let all = [
        from("a", "1"),
        from("b", "2"),
        from("end", "1"),
        text("c"),
        from("end", "2"),
        text("end"),
    ];
    let (out, _) = run(&mut chain(operators), &all);
    let got: Vec<String> = out
        .iter()
        .map(|e| e.body.as_ref().to_display_string())
        .collect();
    assert_eq!(got, ["a\nend", "b\nend", "c\nend"]);
    // A third group is one too many.
    let (out, cx) = run(
        &mut chain(operators),
        &[
            from("a", "1"),
            from("b", "2"),
            from("c", "3"),
            from("end", "3"),
        ],
    );
    let got: Vec<String> = out
        .iter()
        .map(|e| e.body.as_ref().to_display_string())
        .collect();
    assert_eq!(
        (got, cx.report.cut),
        (["a", "b", "c\nend"].map(str::to_owned).to_vec(), 2)
    );
    let mut chain = chain(LAST);
    for (source, lineage) in [(1, 1), (2, 2)] {
        chain.process(&mut lines(0, "/p", &["x"]), &mut cx_of(source, lineage));
    }
    let mut batch = lines(2, "/p", &["y."]);
    chain.process(&mut batch, &mut cx_of(1, 1));
    assert_eq!(
        batch.body(0).map(|v| v.to_display_string()),
        Some("x\ny.".into())
    );
    assert_eq!((chain.held_from(1), chain.held_from(2)), (None, Some(0)));
}

fn cx_of(source: u64, lineage: u64) -> OperatorCx {
    cx(source, lineage, 0)
}

/// Guarantees: a group goes on over reads and rotation; the checkpoint stays before its first record
/// until it is out, and its batch answers for all of it then.
#[test]
fn groups_go_on_over_reads_and_rotation() {
    let mut chain = chain(FIRST);
    let mut c = cx(7, 1, 0);
    let mut batch = lines(100, "/p", &["a", "b", " c"]);
    chain.process(&mut batch, &mut c);
    assert_eq!(bodies(&batch, &c), ["a"]);
    assert_eq!(
        (chain.held_from(7), chain.held_starts(7)),
        (Some(102), vec![102])
    );
    assert_eq!(chain.deadline(), Some(Duration::from_secs(5)));
    assert!(chain.recombines() && chain.holds(1, 7) && !chain.holds(1, 6) && !chain.holds(2, 7));
    // The log goes on in another file.
    let mut c = cx(8, 1, 1);
    let mut batch = lines(0, "/p", &[" d", "e"]);
    chain.process(&mut batch, &mut c);
    assert_eq!(bodies(&batch, &c), ["b\n c\n d"]);
    assert_eq!(c.report.covers.len(), 1);
    assert_eq!(c.report.covers[0][0].offset, 102);
    assert_eq!(
        c.report.spans,
        [(0, 0)],
        "it reaches back over the start of the file"
    );
    assert_eq!((chain.held_from(7), chain.held_from(8)), (None, Some(3)));
    // Read again: what is held of it is forgotten.
    assert_eq!(chain.forget(8), Vec::<u64>::new());
    assert_eq!((chain.held_bytes(), chain.deadline()), (0, None));
}

/// Guarantee: when another chain takes over, what is held is due at once.
#[test]
fn what_is_held_is_due_when_another_chain_takes_over() {
    let mut chain = chain(FIRST);
    chain.process(&mut lines(0, "/p", &["a"]), &mut cx(1, 1, 3));
    assert_eq!(chain.deadline(), Some(Duration::from_secs(8)));
    chain.hurry();
    assert_eq!(chain.deadline(), Some(Duration::from_secs(3)));
    assert_eq!(chain.tick(&mut cx(1, 1, 3)).len(), 1);
}

/// Guarantee: a part of a container line that is passed on by the clock, and held back by `recombine`
/// then, belongs to its file and begins where the line begins.
#[test]
fn what_one_operator_passes_on_another_holds_where_it_began() {
    let operators = r#"[{"type":"container","add_metadata_from_filepath":false},
        {"type":"recombine","combine_field":"body","is_first_entry":"body matches '^[^ ]'"}]"#;
    let mut chain = chain(operators);
    let part = |text: &str| format!("2024-04-13T07:59:37Z stdout P {text}");
    let (a, b) = (part("a"), part("b"));
    let mut batch = lines(100, "/p", &[&a, &b]);
    chain.process(&mut batch, &mut cx(7, 3, 0));
    assert_eq!(chain.held_starts(7), [100]);
    let mut late = cx(0, 0, 6);
    let passed = chain.tick(&mut late);
    assert!(passed.iter().all(|p| p.batches.is_empty()));
    assert_eq!((late.source, late.lineage, late.covering.len()), (0, 0, 0));
    assert_eq!((chain.held_starts(7), chain.holds(3, 7)), (vec![100], true));
    let mut later = cx(0, 0, 12);
    let passed = chain.tick(&mut later);
    assert_eq!(passed[0].covers[0].offset, 100);
    assert_eq!(
        passed[0].batches[0].body(0).map(|v| v.to_display_string()),
        Some("ab".into())
    );
    assert_eq!(chain.held_bytes(), 0);
}

#[test]
fn a_record_without_text_starts_a_group_or_goes_its_own_way() {
    let number = Entry {
        body: Value::Int(1),
        ..Entry::default()
    };
    let operators = LAST.replacen('{', r#"{"on_error":"send_quiet","#, 1);
    let operators = operators.replace("body endsWith '.'", "string(body) endsWith '.'");
    let (out, cx) = run(
        &mut chain(&operators),
        &[text("a"), number.clone(), text("b.")],
    );
    assert_eq!(out, [number.clone(), text("a\nb.")]);
    assert_eq!((cx.report.errors[0].records, cx.report.joined), (1, 1));
}

#[test]
fn recombine_is_checked_when_it_is_built() {
    for (options, want) in [
        (
            r#""combine_field":"body""#,
            "one of is_first_entry and is_last_entry",
        ),
        (
            r#""combine_field":"body","is_first_entry":"true","is_last_entry":"true""#,
            "one of",
        ),
        (r#""is_first_entry":"true""#, "operators::0::combine_field"),
        (
            r#""combine_field":"body","is_first_entry":"1""#,
            "has to be bool",
        ),
        (
            r#""combine_field":"body","is_first_entry":"true","overwrite_with":"x""#,
            "newest",
        ),
        (
            r#""combine_field":"body","is_first_entry":"true","force_flush_period":"0s""#,
            "force_flush_period",
        ),
        (
            r#""combine_field":"body","is_first_entry":"true","max_batch_size":-1"#,
            "max_batch_size",
        ),
    ] {
        let e = refused(&format!(r#"[{{"type":"recombine",{options}}}]"#));
        assert!(e.contains(want), "{options}:\n{e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Guarantee: how reads cut a file changes neither records nor their places.
    #[test]
    fn reads_do_not_change_groups(words in proptest::collection::vec("[ a]?[a.]{0,3}", 1..40), per_batch in 1usize..7) {
        let all: Vec<&str> = words.iter().map(String::as_str).collect();
        for operators in [FIRST, LAST] {
            let sized = operators.replacen('{', r#"{"max_batch_size":3,"max_unmatched_batch_size":2,"#, 1);
            for operators in [operators, &sized] {
                let whole = through(operators, &all, all.len());
                prop_assert_eq!(&through(operators, &all, per_batch), &whole);
                prop_assert_eq!(&through(operators, &all, 1), &whole);
            }
        }
    }
}
