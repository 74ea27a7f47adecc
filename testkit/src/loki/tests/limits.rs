//! The error table: status, text, what is stored in spite of it.

use super::*;

#[test]
fn entry_errors_are_partial_and_grouped_by_text() {
    let f = with(|b| b.line_bytes_max = Some(4));
    let entries = vec![
        entry(NOW, "12345"),
        entry(NOW - 1, "good"),
        entry(NOW - 8 * 24 * 3600 * SECOND, "old"),
        entry(NOW + 700 * SECOND, "new"),
        entry(NOW, "54321"),
    ];
    let answer = f.expect(vec![stream(r#"{a="1"}"#, entries)], 400, "");
    assert_eq!(
        answer.body,
        "2 errors like: max entry size '4' bytes exceeded for stream '{a=\"1\"}' while adding an \
         entry with length '5' bytes; 1 errors like: entry for stream '{a=\"1\"}' has timestamp \
         too old: 2023-12-25T15:04:05Z, oldest acceptable timestamp is: 2023-12-26T15:04:05Z; \
         1 errors like: entry for stream '{a=\"1\"}' has timestamp too new: \
         2024-01-02T15:15:45Z\n"
    );
    assert_eq!(f.lines(r#"{a="1"}"#), ["good"]);
    assert_eq!(f.discarded("line_too_long"), 2);
    assert_eq!(f.discarded("greater_than_max_sample_age"), 1);
    assert_eq!(f.discarded("too_far_in_future"), 1);
    assert_eq!(f.loki.stats().discarded_hidden, 0);
    f.assert_balanced();
}

#[test]
fn the_edges_of_the_limits_are_inclusive() {
    let f = with(|b| b.line_bytes_max = Some(4));
    let week = 7 * 24 * 3600 * SECOND;
    for ts in [NOW - week, NOW + 600 * SECOND] {
        f.expect(
            vec![stream(&format!("{{t=\"{ts}\"}}"), vec![entry(ts, "1234")])],
            204,
            "",
        );
        let beyond = if ts < NOW { ts - 1 } else { ts + 1 };
        f.expect(
            vec![stream(r#"{b="1"}"#, vec![entry(beyond, "x")])],
            400,
            "has timestamp too",
        );
    }
}

#[test]
fn long_lines_are_cut_when_the_server_says_so() {
    let f = with(|b| {
        b.line_bytes_max = Some(4);
        b.line_truncate = true;
    });
    f.expect(
        vec![stream(r#"{a="1"}"#, vec![entry(NOW, "123456")])],
        204,
        "",
    );
    assert_eq!(f.lines(r#"{a="1"}"#), ["1234"]);
}

#[test]
fn the_last_stream_decides_so_a_204_can_hide_a_loss() {
    let f = with(|_| {});
    let behind = || stream(r#"{a="1"}"#, vec![entry(NOW - 3601 * SECOND, "lost")]);
    f.expect(
        vec![stream(r#"{a="1"}"#, vec![entry(NOW, "head")])],
        204,
        "",
    );
    // [bad, good]: 204, and the line is gone.
    f.expect(vec![behind(), good(r#"{b="1"}"#)], 204, "");
    assert_eq!(f.lines(r#"{a="1"}"#), ["head"]);
    assert_eq!(f.loki.stats().discarded_hidden, 1);
    // [good, bad]: 400, and the good one is stored.
    f.expect(
        vec![good(r#"{c="1"}"#), behind()],
        400,
        "entry too far behind",
    );
    assert_eq!(f.lines(r#"{c="1"}"#), ["good"]);
    assert_eq!(f.loki.stats().discarded_hidden, 1);
    assert_eq!(f.discarded("too_far_behind"), 2);
    // Before 2.7 the error stayed.
    f.loki.set_behaviour(|b| b.last_stream_decides = false);
    f.expect(
        vec![behind(), good(r#"{b="1"}"#)],
        400,
        "entry too far behind",
    );
    f.assert_balanced();
}

#[test]
fn entries_behind_the_head_are_listed_up_to_a_cap_and_counted_exactly() {
    let f = with(|_| {});
    let mut entries = vec![entry(NOW, "head")];
    entries.extend((0..12).map(|n| entry(NOW - 7200 * SECOND + n, "x")));
    let answer = f.expect(vec![stream(r#"{a="1"}"#, entries)], 400, "");
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines.len(), 11);
    assert_eq!(
        lines[0],
        "entry with timestamp 2024-01-02 13:04:05 +0000 UTC ignored, reason: 'entry too far \
         behind, entry timestamp is: 2024-01-02T13:04:05Z, oldest acceptable timestamp is: \
         2024-01-02T14:04:05Z',"
    );
    assert_eq!(
        lines[10],
        "user 'fake', total ignored: 12 out of 13 for stream: {a=\"1\"}"
    );
}

#[test]
fn the_window_moves_entry_by_entry_in_the_order_of_arrival() {
    let f = with(|_| {});
    let (three, five) = (NOW - 3 * 3600 * SECOND, NOW - 5 * 3600 * SECOND);
    let descending = vec![entry(three, "3"), entry(five, "5")];
    f.expect(
        vec![stream(r#"{a="1"}"#, descending)],
        400,
        "total ignored: 1 out of 2",
    );
    f.expect(
        vec![stream(
            r#"{b="1"}"#,
            vec![entry(five, "5"), entry(three, "3")],
        )],
        204,
        "",
    );
    assert_eq!(f.lines(r#"{b="1"}"#), ["5", "3"]);
}

#[test]
fn stream_labels_are_limited_stream_by_stream() {
    let f = with(|b| {
        b.label_names_max = Some(2);
        b.label_name_bytes_max = Some(12);
        b.label_value_bytes_max = Some(3);
    });
    for (labels, marker) in [
        (r#"{a="1",b="2",c="3"}"#, "has 3 label names; limit 2"),
        (
            r#"{abcdefghijklm="1"}"#,
            "has label name too long: 'abcdefghijklm'",
        ),
        (r#"{a="1234"}"#, "has label value too long: '1234'"),
        (r#"{a="1",a="2"}"#, "has duplicate label name: 'a'"),
    ] {
        let bad = stream(labels, vec![entry(NOW, "x"), entry(NOW, "y")]);
        let answer = f.expect(vec![bad, good(r#"{g="1"}"#)], 400, marker);
        // One error for the stream although two entries are gone.
        assert!(answer.body.starts_with("1 errors like: "), "{answer:?}");
    }
    assert_eq!(f.loki.stats().discarded_total(), 8);
    assert_eq!(f.loki.copies(DEFAULT_TENANT, r#"{g="1"}"#), 4);
    // The service name is not counted, and a value of exactly the limit passes.
    f.expect(vec![good(r#"{a="123",b="2",service_name="s"}"#)], 204, "");
    f.assert_balanced();
}

#[test]
fn required_labels_and_streams_without_labels() {
    let f = with(|b| b.labels_required = vec!["env".to_owned(), "team".to_owned()]);
    let marker = "missing required labels env,team for user fake for stream {a=\"1\"}";
    f.expect(vec![good(r#"{a="1"}"#)], 400, marker);
    f.loki.set_behaviour(|b| b.labels_required.clear());
    f.expect(vec![good("{}")], 204, "");
    f.loki.set_behaviour(|b| b.discover_service_name = false);
    f.expect(vec![good("{}")], 400, "at least one label pair");
}

#[test]
fn metadata_is_limited_and_can_be_disallowed() {
    let f = with(|b| {
        b.metadata_bytes_max = Some(8);
        b.metadata_pairs_max = Some(2);
    });
    let push = |pairs: &[(&'static str, &str)], status, marker| {
        f.expect(
            vec![stream(r#"{a="1"}"#, vec![with_metadata(pairs)])],
            status,
            marker,
        );
    };
    push(&[("abcd", "1234")], 204, "");
    push(
        &[("abcd", "12345")],
        400,
        "structured metadata too large: '9' bytes, limit: '8'",
    );
    push(
        &[("a", "1"), ("b", "2"), ("c", "3")],
        400,
        "too many structured metadata labels: '3'",
    );
    f.loki.set_behaviour(|b| b.metadata_allowed = false);
    push(&[("a", "1")], 400, "includes structured metadata");
    assert_eq!(f.loki.stats().discarded_total(), 3);
    f.assert_balanced();
}

#[test]
fn a_metadata_name_that_cannot_be_normalised_loses_the_whole_request() {
    let f = with(|_| {});
    for (name, marker) in [
        ("", "label name is empty"),
        ("_", "resulted in invalid name"),
        ("\u{65e5}\u{672c}", "resulted in invalid name"),
    ] {
        let bad = stream(r#"{a="1"}"#, vec![with_metadata(&[(name, "v")])]);
        f.expect(vec![good(r#"{g="1"}"#), bad], 500, marker);
    }
    assert!(f.loki.streams(DEFAULT_TENANT).is_empty());
    assert_eq!(f.loki.stats().discarded_total(), 6);
    f.assert_balanced();
}

#[test]
fn metadata_names_are_rewritten_and_the_last_of_equal_ones_wins() {
    let f = with(|_| {});
    let pairs = [("a.b", "1"), ("c", ""), ("a_b", "2"), ("1d", "3")];
    f.expect(
        vec![stream(r#"{a="1"}"#, vec![with_metadata(&pairs)])],
        204,
        "",
    );
    let entries = f.loki.entries(DEFAULT_TENANT, r#"{a="1"}"#);
    let expect = [("a_b", "2"), ("key_1d", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(entries[0].metadata, expect);
}

#[test]
fn a_label_string_that_cannot_be_parsed_loses_the_whole_request() {
    let f = with(|_| {});
    for labels in [r#"{a-b="1"}"#, r#"{a.b="1"}"#, "{a=b}", ""] {
        f.expect(
            vec![good(r#"{g="1"}"#), good(labels)],
            400,
            "couldn't parse labels: 1:",
        );
    }
    assert_eq!(f.discarded("invalid_labels"), 8);
    assert_eq!(f.loki.stats().entries_accepted, 0);
}

#[test]
fn a_request_too_large_for_the_ingester_is_a_permanent_500() {
    let f = with(|b| {
        b.line_bytes_max = None;
        b.ingestion_rate_bytes = None;
    });
    let line = "x".repeat(1_048_576);
    let big = |n| {
        stream(
            r#"{a="1"}"#,
            (0..n).map(|t| entry(NOW + t, &line)).collect(),
        )
    };
    f.expect(vec![big(3)], 204, "");
    let text =
        "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (";
    for _ in 0..2 {
        f.expect(vec![big(4)], 500, text);
    }
    assert_eq!(f.loki.stats().entries_accepted, 3);
    f.assert_balanced();
}

#[test]
fn the_tenant_rate_refuses_whole_requests_and_larger_ones_than_the_burst_for_ever() {
    let f = with(|b| {
        b.ingestion_rate_bytes = Some(10);
        b.ingestion_burst_bytes = 20;
    });
    let bytes = |n: usize| vec![stream(r#"{a="1"}"#, vec![entry(NOW, &"x".repeat(n))])];
    f.expect(bytes(20), 204, "");
    let text = "ingestion rate limit exceeded for user fake (limit: 10 bytes/sec) while \
                attempting to ingest '1' lines totaling '5' bytes";
    f.expect(bytes(5), 429, text);
    f.now.fetch_add(SECOND, Ordering::SeqCst);
    f.expect(bytes(5), 204, "");
    f.now.fetch_add(3600 * SECOND, Ordering::SeqCst);
    f.expect(bytes(21), 429, "totaling '21' bytes");
    assert_eq!(f.discarded("rate_limited"), 2);
    f.assert_balanced();
}

#[test]
fn the_stream_rate_takes_a_stream_whole_or_not_at_all_while_sharding_is_on() {
    let f = with(|b| {
        b.stream_rate_bytes = Some(10);
        b.stream_burst_bytes = 10;
    });
    let three = || {
        stream(
            r#"{a="1"}"#,
            (0..3).map(|n| entry(NOW + n, "1234")).collect(),
        )
    };
    let answer = f.expect(
        vec![three()],
        429,
        "Per stream rate limit exceeded (limit: 10B/sec)",
    );
    assert!(
        answer
            .body
            .ends_with("total ignored: 3 out of 3 for stream: {a=\"1\"}\n")
    );
    assert_eq!(f.loki.stats().entries_accepted, 0);
    // Hidden by a later stream, as every ingester failure.
    f.expect(vec![three(), good(r#"{b="1"}"#)], 204, "");
    assert_eq!(f.loki.stats().discarded_hidden, 3);
    // Without sharding the first two fit.
    f.loki.set_behaviour(|b| b.shard_streams = false);
    f.expect(vec![three()], 429, "total ignored: 1 out of 3");
    assert_eq!(f.loki.copies(DEFAULT_TENANT, r#"{a="1"}"#), 2);
    f.assert_balanced();
}

#[test]
fn a_stream_over_the_stream_limit_is_refused_and_the_others_go_on() {
    let f = with(|b| b.streams_max = Some(2));
    f.expect(vec![good(r#"{a="1"}"#), good(r#"{b="1"}"#)], 204, "");
    let marker = "maximum active stream limit exceeded when trying to create stream {c=\"1\"}";
    f.expect(vec![good(r#"{a="1"}"#), good(r#"{c="1"}"#)], 429, marker);
    f.expect(vec![good(r#"{c="1"}"#), good(r#"{a="1"}"#)], 204, "");
    assert_eq!(f.loki.stats().discarded_hidden, 1);
    assert_eq!(f.discarded("stream_limit"), 2);
    f.assert_balanced();
}

#[test]
fn a_new_stream_from_before_the_schema_is_a_permanent_500() {
    let f = with(|b| {
        b.reject_old_samples = None;
        b.schema_start_ns = Some(0);
    });
    let old = vec![entry(NOW, "x"), entry(-1, "old")];
    f.expect(
        vec![stream(r#"{a="1"}"#, old)],
        500,
        "no schema config found",
    );
    assert_eq!(f.discarded("no_schema"), 2);
    f.expect(vec![good(r#"{a="1"}"#)], 204, "");
}

#[test]
fn an_ingester_error_replaces_a_distributor_error() {
    let f = with(|b| b.streams_max = Some(1));
    f.expect(vec![good(r#"{a="1"}"#)], 204, "");
    let old = || stream(r#"{a="1"}"#, vec![entry(0, "old")]);
    f.expect(
        vec![old(), good(r#"{b="1"}"#)],
        429,
        "maximum active stream limit",
    );
    // And a later success of the ingester leaves the distributor's.
    f.expect(
        vec![old(), good(r#"{b="1"}"#), good(r#"{a="1"}"#)],
        400,
        "too old",
    );
    f.assert_balanced();
}

#[test]
fn a_blocked_tenant_gets_a_2xx_that_means_dropped() {
    let f = with(|b| b.blocked_tenants = vec!["fake".to_owned()]);
    f.expect(
        vec![good(r#"{a="1"}"#)],
        260,
        "ingestion blocked for user fake until '",
    );
    f.loki.set_behaviour(|b| b.blocked_status = 200);
    f.expect(vec![good(r#"{a="1"}"#)], 204, "");
    assert_eq!(f.discarded("blocked_ingestion"), 2);
    assert_eq!(f.loki.stats().discarded_hidden, 1);
    assert_eq!(f.loki.stats().entries_accepted, 0);
}

#[test]
fn tenants_are_checked_when_authentication_is_on() {
    let f = with(|b| b.auth_enabled = true);
    let body = snappy(&encode_push(&PushRequest {
        streams: vec![good(r#"{a="1"}"#)],
    }));
    let long = "x".repeat(151);
    for (tenant, status, marker) in [
        ("", 401, "no org id"),
        ("a|b", 400, "multiple org IDs present"),
        (
            "a/b",
            400,
            "tenant ID 'a/b' contains unsupported character '/'",
        ),
        ("a b", 400, "tenant ID"),
        (".", 400, "tenant ID"),
        ("..", 400, "tenant ID"),
        (long.as_str(), 400, "tenant ID is too long"),
        ("team-1.x", 204, ""),
    ] {
        let headers =
            format!("Content-Type: application/x-protobuf\r\nX-Scope-OrgID: {tenant}\r\n");
        let answer = f.post(&headers, &body).unwrap();
        assert_eq!(answer.status, status, "{tenant}: {answer:?}");
        assert!(answer.body.contains(marker), "{tenant}: {answer:?}");
    }
    assert_eq!(f.loki.streams("team-1.x"), [r#"{a="1"}"#]);
    assert!(f.loki.streams(DEFAULT_TENANT).is_empty());
}

#[test]
fn permissive_takes_what_the_defaults_refuse() {
    let f = with(|b| *b = LokiBehaviour::permissive());
    let long = "x".repeat(5_000_000);
    let entries = vec![
        entry(NOW, &long),
        entry(-5, "ancient"),
        entry(NOW * 2, "future"),
    ];
    f.expect(vec![stream(r#"{a="1"}"#, entries)], 204, "");
    assert_eq!(f.loki.stats().entries_accepted, 3);
}
