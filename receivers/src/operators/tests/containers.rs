use super::*;
use proptest::prelude::*;

const PATH: &str = "/var/log/pods/ns_pod-1_49cc7c1fd370/app/3.log";
const T: &str = "2024-04-13T07:59:37.000000001Z";

fn line(stream: &str, tag: &str, text: &str) -> String {
    format!("{T} {stream} {tag} {text}")
}

fn parse(chain: &mut Chain, cx: &mut OperatorCx, base: u64, all: &[String]) -> LogsBatch {
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut batch = lines(base, PATH, &all);
    chain.process(&mut batch, cx);
    batch
}

/// Guarantees: whole batches stay columns, and the path is read into the shared resource.
#[test]
fn whole_batches_get_constant_columns_and_one_resource() {
    let mut chain = chain(r#"[{"type":"container"}]"#);
    let mut c = cx(1, 1, 0);
    let batch = parse(
        &mut chain,
        &mut c,
        0,
        &[line("stderr", "F", "a"), line("stderr", "F", "")],
    );
    assert!(c.report.errors.is_empty(), "{:?}", c.report.errors);
    let column = |k| batch.attributes.get(k).and_then(Column::as_const).cloned();
    assert_eq!(column("log.iostream"), Some("stderr".into()));
    assert_eq!(column("logtag"), Some("F".into()));
    assert!(batch.resource_rows.is_empty());
    assert_eq!(
        batch.resource.get("k8s.container.restart_count"),
        Some(&"3".into())
    );
    assert_eq!(batch.time.get(1), 1_712_995_177_000_000_001);
    assert_eq!(bodies(&batch, &c), ["a", ""]);
    let again = parse(
        &mut chain,
        &mut c,
        0,
        &[line("stdout", "F", "b"), line("stderr", "F", "c")],
    );
    assert_eq!(
        again.attribute(0, "log.iostream"),
        Some(Value::str("stdout").as_ref())
    );
    assert_eq!(
        again.attribute(1, "log.iostream"),
        Some(Value::str("stderr").as_ref())
    );
    // Batches that come with one resource go on with one, so nothing is built per batch.
    let came_with = std::sync::Arc::new(map(&[("host", "h".into())]));
    let went_with = [(); 2].map(|()| {
        let mut batch = lines(0, PATH, &[&line("stdout", "F", "d")]);
        batch.resource = came_with.clone();
        chain.process(&mut batch, &mut c);
        batch.resource
    });
    assert!(std::sync::Arc::ptr_eq(&went_with[0], &went_with[1]));
    assert_eq!((came_with.len(), went_with[0].len()), (1, 6));
}

/// Guarantees: streams are joined apart, in one read, at the place of the last part.
#[test]
fn parts_are_joined_per_stream() {
    let mut chain = chain(r#"[{"type":"container"}]"#);
    let mut c = cx(1, 1, 0);
    let all = [
        line("stdout", "P", "a"),
        line("stderr", "P", "x"),
        line("stdout", "P", "b"),
        line("stdout", "F", "c"),
        line("stderr", "F", "y"),
        line("stdout", "F", "d"),
    ];
    let batch = parse(&mut chain, &mut c, 100, &all);
    assert_eq!(bodies(&batch, &c), ["abc", "xy", "d"]);
    let tags = (0..3).map(|r| batch.attribute(r, "logtag").map(|v| v.to_value()));
    assert_eq!(
        tags.collect::<Vec<_>>(),
        [Some("P".into()), Some("P".into()), Some("F".into())]
    );
    assert_eq!((c.report.joined, chain.held_from(1)), (3, None));
    assert!(batch.resource_rows.is_empty(), "the resource stays shared");
    let third = all[..3].iter().map(|l| l.len() as u64 + 1).sum::<u64>();
    assert_eq!(batch.source_offset(0), Some(100 + third));
}

/// Guarantees: a line split over reads and a rotation is joined, the checkpoint stays before its
/// first part until it is out, and then its batch answers for the whole of it.
#[test]
fn parts_are_joined_across_reads_and_rotation() {
    let mut chain = chain(r#"[{"type":"container"}]"#);
    let mut c = cx(7, 1, 0);
    let first = [
        line("stdout", "F", "one"),
        line("stdout", "P", "a"),
        line("stderr", "F", "e"),
    ];
    let batch = parse(&mut chain, &mut c, 1000, &first);
    assert_eq!(bodies(&batch, &c), ["one", "e"]);
    let from = 1000 + first[0].len() as u64 + 1;
    assert_eq!((chain.held_from(7), chain.held_from(8)), (Some(from), None));
    let batch = parse(&mut chain, &mut c, 2000, &[line("stdout", "P", "b")]);
    assert_eq!(bodies(&batch, &c), [""; 0]);
    assert_eq!(chain.held_from(7), Some(from));
    assert!(chain.held_bytes() > 0 && chain.deadline() == Some(Duration::from_secs(5)));
    // The same lineage, another file.
    let mut c = cx(8, 1, 1);
    let other = cx(9, 2, 1);
    let batch = parse(
        &mut chain,
        &mut { other },
        0,
        &[line("stdout", "F", "not mine")],
    );
    assert_eq!(batch.body(0).map(|v| v.to_value()), Some("not mine".into()));
    let later = "2025-01-01T00:00:00Z stdout F c".to_owned();
    let batch = parse(&mut chain, &mut c, 0, &[later, line("stdout", "F", "d")]);
    assert_eq!(bodies(&batch, &c), ["abc", "d"]);
    assert_eq!(
        batch.time.get(0),
        1_712_995_177_000_000_001,
        "the first part's time"
    );
    assert_eq!(
        batch.attribute(0, "logtag").map(|v| v.to_value()),
        Some("P".into())
    );
    assert_eq!(
        batch.attribute(1, "logtag").map(|v| v.to_value()),
        Some("F".into())
    );
    assert_eq!(
        c.report.covers,
        [[crate::operators::Cover {
            source: 7,
            offset: from
        }]]
    );
    assert_eq!(
        (chain.held_from(7), chain.held_bytes(), chain.deadline()),
        (None, 0, None)
    );
}

/// Guarantees: while parts of a line are held, no file that holds one of them is passed, and the line
/// says where it comes from.
#[test]
fn a_line_over_several_files_is_the_duty_of_each() {
    let mut chain = chain(r#"[{"type":"container"}]"#);
    let cover = |source, offset| crate::operators::Cover { source, offset };
    parse(
        &mut chain,
        &mut cx(7, 1, 0),
        70,
        &[line("stdout", "P", "a")],
    );
    let whole = line("stderr", "F", "x");
    let from = 30 + whole.len() as u64 + 1;
    let middle = [whole, line("stdout", "P", "b")];
    parse(&mut chain, &mut cx(8, 1, 0), 30, &middle);
    assert_eq!(
        (chain.held_from(7), chain.held_from(8)),
        (Some(70), Some(from))
    );
    let mut c = cx(9, 1, 0);
    let batch = parse(&mut chain, &mut c, 0, &[line("stdout", "F", "c")]);
    assert_eq!(bodies(&batch, &c), ["abc"]);
    assert_eq!(c.report.covers, [[cover(7, 70), cover(8, from)]]);
    assert_eq!((chain.held_from(7), chain.held_from(8)), (None, None));
}

/// Guarantees: what is never completed comes out after five seconds, through the rest of the
/// chain, and a source that is read again leaves nothing behind.
#[test]
fn a_held_line_that_is_filtered_out_keeps_its_place_among_the_others() {
    let operators = r#"[{"type":"container"},{"type":"filter","id":"f","expr":"body == 'a'"}]"#;
    let mut chain = chain(operators);
    for (source, text) in [(7, "a"), (8, "b")] {
        let mut c = cx(source, source, 10);
        parse(&mut chain, &mut c, 50, &[line("stdout", "P", text)]);
    }
    assert!(chain.holds(7, 7) && chain.holds(8, 9) && !chain.holds(8, 7));
    let mut c = cx(7, 7, 10);
    c.elapsed = Duration::from_secs(15);
    let passed = chain.tick(&mut c);
    let told: Vec<_> = passed
        .iter()
        .map(|p| {
            let rows: usize = p.batches.iter().map(LogsBatch::rows).sum();
            (p.covers[0].source, rows, p.filtered.clone())
        })
        .collect();
    assert_eq!(told, [(7, 0, vec![("f".into(), 1)]), (8, 1, vec![])]);
}

#[test]
fn held_parts_are_passed_on_by_the_clock_or_forgotten() {
    let operators = r#"[{"type":"container"},{"type":"add","field":"attributes.k","value":1}]"#;
    let mut chain = chain(operators);
    let mut c = cx(7, 1, 10);
    parse(
        &mut chain,
        &mut c,
        50,
        &[line("stdout", "P", "a"), line("stdout", "P", "b")],
    );
    c.elapsed = Duration::from_millis(14_999);
    assert!(chain.tick(&mut c).is_empty());
    c.elapsed = Duration::from_secs(15);
    let passed = chain.tick(&mut c);
    let batches = passed.iter().flat_map(|p| &p.batches);
    let out: Vec<Entry> = batches.flat_map(|b| b.to_entries()).collect();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].body, "ab".into());
    assert_eq!(out[0].attributes.get("k"), Some(&Value::Int(1)));
    assert_eq!(out[0].attributes.get("log.file.path"), Some(&PATH.into()));
    assert_eq!(out[0].resource.get("k8s.pod.name"), Some(&"pod-1".into()));
    let covers: Vec<_> = passed.iter().map(|p| p.covers.clone()).collect();
    assert_eq!(
        covers,
        [[crate::operators::Cover {
            source: 7,
            offset: 50
        }]]
    );
    assert_eq!((c.report.joined, c.report.flushed, c.report.cut), (2, 1, 1));
    parse(&mut chain, &mut c, 50, &[line("stdout", "P", "a")]);
    chain.forget(7);
    assert_eq!(chain.held_from(7), None);
}

/// Guarantees: an endless line takes bounded memory and all of it comes out.
#[test]
fn lines_beyond_the_limit_are_cut_and_none_of_it_is_lost() {
    let mut chain = chain(r#"[{"type":"container","max_log_size":10}]"#);
    let mut c = cx(1, 1, 0);
    let mut out = Vec::new();
    for _ in 0..4 {
        let batch = parse(
            &mut chain,
            &mut c,
            0,
            &vec![line("stdout", "P", "1234567"); 3],
        );
        out.extend(bodies(&batch, &cx(0, 0, 0)));
        assert!(chain.held_bytes() < 1000);
    }
    let batch = parse(&mut chain, &mut c, 0, &[line("stdout", "F", "end")]);
    out.extend(bodies(&batch, &cx(0, 0, 0)));
    assert_eq!(out.concat(), "1234567".repeat(12) + "end");
    assert!(out.iter().all(|b| b.len() <= 17), "{out:?}");
    assert_eq!(c.report.cut, 6);
}

fn docker(log: &str) -> String {
    let log = serde_json::to_string(log).expect("text");
    format!(r#"{{"log":{log},"stream":"stdout","time":"2024-04-13T07:59:37.5Z"}}"#)
}

/// Guarantees: Docker's line ends go, its 16 KiB parts are joined, other fields are kept.
#[test]
fn docker_lines_lose_their_line_end_and_parts_are_joined() {
    let mut chain = chain(r#"[{"type":"container","format":"docker"}]"#);
    let mut c = cx(1, 1, 0);
    let part = "x".repeat(16 * 1024);
    let batch = parse(
        &mut chain,
        &mut c,
        0,
        &[
            docker("a\n"),
            docker("tab\tb\n"),
            docker(&part),
            docker("rest\n"),
            docker("no end"),
        ],
    );
    assert_eq!(
        bodies(&batch, &c),
        ["a", "tab\tb", &format!("{part}rest"), "no end"]
    );
    assert_eq!(batch.time.get(0), 1_712_995_177_500_000_000);
    assert!(batch.attributes.get("logtag").is_none());
    let extra =
        r#"{"log":"z\n","stream":"stdout","attrs":{"tag":"t"},"time":"2024-04-13T07:59:37Z"}"#;
    let batch = parse(&mut chain, &mut c, 0, &[extra.to_owned()]);
    let attrs = Value::Map(map(&[("tag", "t".into())]));
    assert_eq!(
        batch.attribute(0, "attrs").map(|v| v.to_value()),
        Some(attrs)
    );
}

/// Guarantees: a joined line has the other fields of its first part and of no other, whether its parts
/// are read at once or not, so it is the same when it is read again.
#[test]
fn joined_docker_lines_have_the_fields_of_their_first_part() {
    let part = |log: &str, field: &str| docker(log).replacen('{', &format!(r#"{{{field},"#), 1);
    let long = "x".repeat(16 * 1024);
    let all = [
        part(&long, r#""first":"1","both":"a""#),
        part(&long, r#""middle":"2""#),
        part("end\n", r#""last":"3","both":"b""#),
        part("another\n", r#""both":"c""#),
    ];
    let text = |batch: &LogsBatch, row, key: &str| {
        let value = batch.attribute(row, key)?;
        Some(value.to_display_string())
    };
    for per_read in [4, 1] {
        let mut chain = chain(r#"[{"type":"container"}]"#);
        let mut got = Vec::new();
        for lines in all.chunks(per_read) {
            let batch = parse(&mut chain, &mut cx(1, 1, 0), 0, lines);
            let fields = ["first", "middle", "last", "both"];
            got.extend((0..batch.rows()).map(|row| fields.map(|key| text(&batch, row, key))));
        }
        let joined = [Some("1".to_owned()), None, None, Some("a".to_owned())];
        let another = [None, None, None, Some("c".to_owned())];
        assert_eq!(got, [joined, another], "{per_read} lines per read");
    }
}

/// Guarantees: however many different tags, streams and fields the lines of a read have, each line is
/// read, and the columns of a batch stay few.
#[test]
fn lines_with_many_tags_streams_and_fields_are_all_read() {
    let tagged = |i| line("stdout", &format!("F:{i}"), "text");
    let time = "2024-04-13T07:59:37Z";
    let streams = |i| format!(r#"{{"log":"text\n","stream":"s{i}","time":"{time}"}}"#);
    let fields = |i| format!(r#"{{"log":"text\n","k{i}":"v","time":"{time}"}}"#);
    let all: [&dyn Fn(usize) -> String; 3] = [&tagged, &streams, &fields];
    for one in all {
        let lines: Vec<String> = (0..1_500).map(one).collect();
        let mut chain = chain(r#"[{"type":"container","on_error":"drop"}]"#);
        let mut c = cx(1, 1, 0);
        let batch = parse(&mut chain, &mut c, 0, &lines);
        assert_eq!(bodies(&batch, &c), ["text"; 1_500]);
        assert_eq!((c.report.dropped, c.report.errors.len()), (0, 0));
        for batch in std::iter::once(&batch).chain(&c.report.more) {
            assert!(batch.attributes.len() <= 520, "{}", batch.attributes.len());
        }
        let last = c.report.more.last().expect("a batch of the rest");
        let row = last.rows() - 1;
        let before: usize = lines[..1_499].iter().map(|l| l.len() + 1).sum();
        assert_eq!(last.source_offset(row), Some(before as u64));
        let names = ["logtag", "log.iostream", "k1499"];
        let has = |name: &&str| last.attribute(row, name).map(|v| v.to_display_string());
        let own = names.iter().filter_map(has).filter(|v| v != "stdout");
        assert_eq!(own.count(), 1);
    }
    // What is left for a batch of its own is not taken for read.
    let mut lines: Vec<String> = (0..300).map(tagged).collect();
    lines.push("not a container line".to_owned());
    let mut c = cx(1, 1, 0);
    let mut send = chain(r#"[{"type":"container"}]"#);
    let batch = parse(&mut send, &mut c, 0, &lines);
    let last = c.report.more.last().expect("a batch of the rest");
    let pod = |batch: &LogsBatch, row| batch.resource_attribute(row, "k8s.pod.name").is_some();
    assert!(pod(&batch, 0) && pod(last, 0) && !pod(last, last.rows() - 1));
    // One line with more fields than any record may have.
    let many: Vec<String> = (0..5_000).map(|i| format!(r#""k{i}":1"#)).collect();
    let line = format!(r#"{{"log":"text\n","time":"{time}",{}}}"#, many.join(","));
    let mut c = cx(1, 1, 0);
    let mut chain = chain(r#"[{"type":"container"}]"#);
    let batch = parse(&mut chain, &mut c, 0, std::slice::from_ref(&line));
    assert_eq!(bodies(&batch, &c), [line]);
    let error = c.report.errors[0].first.to_string();
    assert!(error.contains("4096"), "{error}");
}

/// Guarantees: formats may be mixed, and a line of none of them goes on as it is.
#[test]
fn lines_of_several_formats_and_of_none_come_out() {
    let mut auto = chain(r#"[{"type":"container"}]"#);
    let mut c = cx(1, 1, 0);
    let all = [
        docker("d\n"),
        line("stdout", "F", "c"),
        "2024-04-13T07:59:37+02:00 stderr F o".to_owned(),
        "not a container line".to_owned(),
        "yesterday stdout F x".to_owned(),
        "{\"log\":1}".to_owned(),
    ];
    let batch = parse(&mut auto, &mut c, 0, &all);
    assert_eq!(
        bodies(&batch, &c),
        ["d", "c", "o", &all[3], &all[4], &all[5]]
    );
    assert_eq!(
        batch.attribute(2, "log.iostream").map(|v| v.to_value()),
        Some("stderr".into())
    );
    assert_eq!(batch.attribute(3, "log.iostream"), None);
    assert_eq!(
        batch
            .resource_attribute(0, "k8s.pod.name")
            .map(|v| v.to_value()),
        Some("pod-1".into())
    );
    assert_eq!((c.report.errors.len(), c.report.errors[0].records), (1, 3));
    let mut dropping = chain(r#"[{"type":"container","format":"containerd","on_error":"drop"}]"#);
    let mut c = cx(1, 1, 0);
    let batch = parse(&mut dropping, &mut c, 0, &all);
    assert_eq!(
        (bodies(&batch, &c), c.report.dropped),
        (vec!["c".to_owned()], 5)
    );
}

/// Guarantees: without a usable path records are reported, not lost.
#[test]
fn a_path_that_says_nothing_is_an_error_per_record() {
    for (path, operators, errors) in [
        ("", r#"[{"type":"container"}]"#, 2),
        ("/tmp/x.log", r#"[{"type":"container"}]"#, 2),
        (
            "",
            r#"[{"type":"container","add_metadata_from_filepath":false}]"#,
            0,
        ),
    ] {
        let mut chain = chain(operators);
        let mut c = cx(1, 1, 0);
        let all = [line("stdout", "F", "a"), line("stdout", "F", "b")];
        let mut batch = lines(0, path, &all.iter().map(String::as_str).collect::<Vec<_>>());
        chain.process(&mut batch, &mut c);
        assert_eq!(bodies(&batch, &c), ["a", "b"]);
        assert_eq!(
            c.report.errors.iter().map(|e| e.records).sum::<u64>(),
            errors
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// However the lines of a file are spread over reads, the same records come out, and the rows
    /// add up.
    #[test]
    fn reads_do_not_change_what_comes_out(
        rows in prop::collection::vec((any::<bool>(), 0u8..3, "[a-z]{0,3}"), 1..30),
        cuts in prop::collection::vec(1usize..8, 1..30),
    ) {
        let all: Vec<String> = rows
            .iter()
            .map(|(out, tag, text)| match tag {
                2 => format!("{text} is no container line"),
                tag => line(if *out { "stdout" } else { "stderr" }, ["F", "P"][usize::from(*tag)], text),
            })
            .collect();
        let collect = |sizes: &mut dyn Iterator<Item = usize>| {
            let mut chain = chain(r#"[{"type":"container"}]"#);
            let mut c = cx(1, 1, 0);
            let (mut out, mut rest, mut base) = (Vec::new(), &all[..], 0);
            while !rest.is_empty() {
                let n = sizes.next().unwrap_or(1).min(rest.len());
                let batch = parse(&mut chain, &mut c, base, &rest[..n]);
                base += rest[..n].iter().map(|l| l.len() as u64 + 1).sum::<u64>();
                rest = &rest[n..];
                out.extend(batch.to_entries());
            }
            c.elapsed = Duration::from_secs(60);
            let passed = chain.tick(&mut c);
            out.extend(passed.iter().flat_map(|p| &p.batches).flat_map(|b| b.to_entries()));
            let report = &c.report;
            assert_eq!(all.len() as u64 + report.flushed, out.len() as u64 + report.joined);
            out
        };
        let whole = collect(&mut std::iter::once(all.len()));
        let split = collect(&mut cuts.iter().copied());
        prop_assert_eq!(whole, split);
    }
}
