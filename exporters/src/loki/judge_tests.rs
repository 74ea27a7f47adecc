//! Verdicts over whole conversations: a pretended Loki that rejects what it is told to reject.

use std::collections::VecDeque;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use tailwater_pipeline::clock::SimClock;

use super::super::wire::oracle;
use super::*;
use crate::delivery::{Acks, SendErrorKind};

fn judge() -> LokiJudge {
    LokiJudge {
        success: vec![204],
        encoder: CompressionEncoder::Tailwater,
        dead_letters: None,
        clock: Arc::new(SimClock::new(0)),
        parked: Arc::default(),
        rejections: AtomicU32::new(0),
        parkings: AtomicU64::new(0),
    }
}

fn reply(status: u16, body: &str) -> Reply {
    Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        truncated: false,
    }
}

/// A request with the lines given for each stream.
fn request(streams: &[(&str, &[&str])]) -> OutgoingRequest<Acks> {
    let stream = |(labels, lines): &(&str, &[&str])| oracle::Stream {
        labels: (*labels).into(),
        entries: lines
            .iter()
            .map(|l| oracle::Entry::new(7, l.as_bytes(), &[]))
            .collect(),
    };
    let push = oracle::Push {
        streams: streams.iter().map(stream).collect(),
    };
    let raw = prost::Message::encode_to_vec(&push);
    let body = snap::raw::Encoder::new().compress_vec(&raw).unwrap();
    let items = streams.iter().map(|s| s.1.len() as u64).sum();
    let lanes = streams.iter().map(|s| parts::lane(None, s.0)).collect();
    let headers = Arc::default();
    OutgoingRequest::new(vec![body.into()], headers, None, lanes, items, Acks::new())
}

/// Plays a request and its parts against `loki` and returns the lines that were stored and the
/// number dropped.
fn play(
    judge: &LokiJudge,
    first: OutgoingRequest<Acks>,
    loki: impl Fn(&oracle::Push) -> (u16, String),
) -> (Vec<String>, u64) {
    let (mut queue, mut stored, mut dropped) = (VecDeque::from([first]), Vec::new(), 0);
    for _ in 0..500 {
        let Some(mut request) = queue.pop_front() else {
            stored.sort();
            return (stored, dropped);
        };
        let push = oracle::decode(&request.body.concat());
        let lanes: Vec<_> = push
            .streams
            .iter()
            .map(|s| parts::lane(None, &s.labels))
            .collect();
        assert!(lanes.iter().all(|l| request.lanes.contains(l)));
        let (status, body) = loki(&push);
        match judge.judge(&mut request, Ok(reply(status, &body))) {
            Verdict::Delivered => {
                let lines = push.streams.into_iter().flat_map(|s| s.entries);
                stored.extend(lines.map(|e| String::from_utf8(e.line).unwrap()));
            }
            Verdict::Replace { parts, dropped: d } => {
                assert!(d.is_empty());
                assert_eq!(parts.iter().map(|p| p.items).sum::<u64>(), request.items);
                parts.into_iter().rev().for_each(|p| queue.push_front(p));
            }
            Verdict::Drop { .. } => dropped += request.items,
            other => panic!("{other:?}"),
        }
    }
    panic!("no end");
}

#[test]
fn poison_is_isolated_and_only_it_is_dropped() {
    let poison = |push: &oracle::Push| {
        let bad = |e: &oracle::Entry| e.line.starts_with(b"bad");
        match push.streams.iter().flat_map(|s| &s.entries).any(bad) {
            true => (500, "label name is empty".to_owned()),
            false => (204, String::new()),
        }
    };
    let first = request(&[
        ("{a=\"1\"}", &["1", "2", "bad", "3", "4", "5"]),
        ("{a=\"2\"}", &["6"]),
        ("{a=\"3\"}", &["bad", "7"]),
    ]);
    let (stored, dropped) = play(&judge(), first, poison);
    assert_eq!((stored.join(""), dropped), ("1234567".to_owned(), 2));
}

#[test]
fn a_stream_with_bad_labels_is_dropped_as_a_whole() {
    let labels = |push: &oracle::Push| match push.streams.iter().any(|s| s.labels.contains('-')) {
        true => (400, "couldn't parse labels: 1:4: parse error".to_owned()),
        false => (204, String::new()),
    };
    let first = request(&[
        ("{a=\"1\"}", &["1"]),
        ("{a-b=\"2\"}", &["x"; 40]),
        ("{c=\"3\"}", &["2"]),
    ]);
    let (stored, dropped) = play(&judge(), first, labels);
    assert_eq!((stored.join(""), dropped), ("12".to_owned(), 40));
}

#[test]
fn what_is_too_large_is_divided_until_it_fits() {
    let limit = |push: &oracle::Push| {
        let size = prost::Message::encoded_len(push);
        match size > 90 {
            true => (
                500,
                "rpc error: received message larger than max".to_owned(),
            ),
            false => (204, String::new()),
        }
    };
    let lines = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let huge = "x".repeat(100);
    let first = request(&[("{a=\"1\"}", &lines), ("{a=\"2\"}", &[&huge])]);
    let (stored, dropped) = play(&judge(), first, limit);
    assert_eq!((stored.join(""), dropped), ("123456789".to_owned(), 1));
}

#[test]
fn a_destination_that_rejects_everything_loses_nothing() {
    let judge = judge();
    let mut held = 0;
    let mut dropped = 0;
    for _ in 0..200 {
        let mut r = request(&[("{a=\"1\"}", &["1"])]);
        match judge.judge(&mut r, Ok(reply(400, "go away"))) {
            Verdict::Hold {
                scope: RetryScope::Request,
                ..
            } => held += 1,
            Verdict::Drop { .. } => dropped += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((held, dropped), (136, 64));
    let mut r = request(&[("{a=\"1\"}", &["1"])]);
    assert!(matches!(
        judge.judge(&mut r, Ok(reply(204, ""))),
        Verdict::Delivered
    ));
    assert!(matches!(
        judge.judge(&mut r, Ok(reply(400, "x"))),
        Verdict::Drop { .. }
    ));
}

#[test]
fn a_limited_stream_waits_alone() {
    let judge = judge();
    let text = "maximum active stream limit exceeded when trying to create stream {a=\"2\", service_name=\"x\"}, reduce";
    let mut r = request(&[("{a=\"1\"}", &["1", "2"]), ("{a=\"2\"}", &["3"])]);
    let Verdict::Replace { parts, .. } = judge.judge(&mut r, Ok(reply(429, text))) else {
        panic!("divided");
    };
    let items: Vec<_> = parts.iter().map(|p| (p.items, p.lanes.clone())).collect();
    let lane = |l| vec![parts::lane(None, l)];
    assert_eq!(items, [(2, lane("{a=\"1\"}")), (1, lane("{a=\"2\"}"))]);
    assert!(judge.parked.contains(lane("{a=\"2\"}")[0]));
    let mut alone = parts.into_iter().nth(1).unwrap();
    for _ in 0..20 {
        let verdict = judge.judge(&mut alone, Ok(reply(429, text)));
        assert!(matches!(
            verdict,
            Verdict::Retry {
                scope: RetryScope::Lanes,
                ..
            }
        ));
    }
    judge.judge(&mut alone, Ok(reply(204, "")));
    assert!(!judge.parked.contains(lane("{a=\"2\"}")[0]));
}

/// A bucket of one stream or tenant, as Loki keeps them; refused requests take nothing.
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
}

impl Bucket {
    /// What of a request is taken, all or nothing, or entry by entry if not `whole`. Bytes are
    /// those of lines.
    fn take(&mut self, push: &oracle::Push, whole: bool) -> Vec<bool> {
        let sizes = push.streams.iter().flat_map(|s| &s.entries);
        let sizes: Vec<f64> = sizes.map(|e| e.line.len() as f64).collect();
        let mut take = |bytes: f64| {
            let fits = bytes <= self.tokens;
            self.tokens -= if fits { bytes } else { 0.0 };
            fits
        };
        if whole {
            vec![take(sizes.iter().sum()); sizes.len()]
        } else {
            sizes.into_iter().map(take).collect()
        }
    }
}

/// Sends a request, and what takes its place, until all of it is settled; a wait is as long as the
/// verdict asks for, at least `wait_min`. Returns the entries stored in order, the entries
/// dropped and the number of requests.
fn throttle(
    mut bucket: Bucket,
    whole: bool,
    text: &str,
    first: OutgoingRequest<Acks>,
) -> (Vec<String>, u64, usize) {
    let clock = Arc::new(SimClock::new(0));
    let judge = LokiJudge {
        clock: clock.clone(),
        ..judge()
    };
    let (mut queue, mut stored, mut dropped) = (VecDeque::from([first]), Vec::new(), 0);
    for sent in 0..20_000 {
        let Some(mut request) = queue.pop_front() else {
            return (stored, dropped, sent);
        };
        let push = oracle::decode(&request.body.concat());
        let taken = bucket.take(&push, whole);
        let entries = push.streams.iter().flat_map(|s| &s.entries);
        let lines = entries.map(|e| String::from_utf8(e.line.clone()).unwrap());
        for (line, _) in lines.zip(&taken).filter(|(_, taken)| **taken) {
            if !stored.contains(&line) {
                stored.push(line);
            }
        }
        let status = if taken.iter().all(|t| *t) { 204 } else { 429 };
        let mut wait = Duration::from_millis(50);
        match judge.judge(&mut request, Ok(reply(status, text))) {
            Verdict::Delivered => {}
            Verdict::Replace { parts, .. } => {
                assert_eq!(parts.iter().map(|p| p.items).sum::<u64>(), request.items);
                parts.into_iter().rev().for_each(|p| queue.push_front(p));
            }
            Verdict::Drop { reason, .. } => {
                assert_eq!(reason, DropReason::TooLarge);
                dropped += request.items;
            }
            Verdict::Retry { after, .. } => {
                wait = wait.max(after.unwrap_or_default());
                queue.push_front(request);
            }
            other => panic!("{other:?}"),
        }
        clock.advance(wait);
        let tokens = bucket.tokens + wait.as_secs_f64() * bucket.rate;
        bucket.tokens = tokens.min(bucket.burst);
    }
    panic!("no end: {} stored, {dropped} dropped", stored.len());
}

/// Guarantees that a request larger than any burst gets through in pieces and in order, that an
/// entry larger than the burst is given up alone, and that neither takes a storm of requests.
#[test]
fn what_is_larger_than_a_burst_goes_through_in_pieces() {
    const KB: f64 = 1024.0;
    let stream = |rate: &str| {
        format!(
            "Per stream rate limit exceeded (limit: {rate}/sec) while attempting to ingest for stream '{{a=\"1\"}}' totaling 200B, consider"
        )
    };
    let tenant = "Ingestion rate limit exceeded for user x (limit: 10240 bytes/sec) while attempting to ingest '200' lines totaling '40000' bytes, reduce";
    let mut lines: Vec<String> = (0..200).map(|i| format!("{i:-<200}")).collect();
    lines[70] = format!("{:-<50000}", "huge");
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for (rate, burst, whole, text, sent_max) in [
        (10.0 * KB, 10.0 * KB, true, stream("10KB"), 60),
        (10.0 * KB, 40.0 * KB, true, stream("10KB"), 60),
        (10.0 * KB, 10.0 * KB, false, stream("10KB"), 60),
        (10.0 * KB, 10.0 * KB, true, tenant.to_owned(), 60),
        // A burst below the rate, which makes no sense.
        (200.0 * KB, 3.0 * KB, true, stream("10KB"), 2_000),
    ] {
        let tokens = burst;
        let bucket = Bucket {
            rate,
            burst,
            tokens,
        };
        let first = request(&[("{a=\"1\"}", &lines)]);
        let (stored, dropped, sent) = throttle(bucket, whole, &text, first);
        let want: Vec<_> = lines.iter().filter(|l| l.len() < 50_000).collect();
        assert_eq!((stored.len(), dropped), (199, 1), "{burst} {text}");
        assert!(stored.iter().eq(want), "in order");
        assert!(sent < sent_max, "{sent} requests: {burst} {text}");
    }
}

#[test]
fn what_may_pass_is_waited_for_and_not_divided() {
    let text = "Per stream rate limit exceeded (limit: 10KB/sec) while attempting to ingest for stream '{a=\"1\"}' totaling 20B, consider";
    let bucket = Bucket {
        rate: 10_240.0,
        burst: 10_240.0,
        tokens: 0.0,
    };
    let lines: Vec<String> = (0..50).map(|i| format!("{i:-<100}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let first = request(&[("{a=\"1\"}", &lines)]);
    let (stored, dropped, sent) = throttle(bucket, true, text, first);
    assert_eq!((stored.len(), dropped, sent), (50, 0, 2));
}

/// Guarantees that requests made before a stream was parked do not make others wait with it.
#[test]
fn a_parked_stream_is_taken_out_of_requests_that_wait() {
    let judge = judge();
    let [one, two, three] = ["{a=\"1\"}", "{a=\"2\"}", "{a=\"3\"}"];
    let mut r = request(&[(one, &["1", "2"]), (two, &["3"]), (three, &["4"])]);
    let before = <LokiJudge as Judge<Acks>>::divisions(&judge);
    assert!(judge.divide(&mut r).is_empty());
    let text =
        format!("maximum active stream limit exceeded when trying to create stream {two}, reduce");
    let mut alone = request(&[(two, &["0"])]);
    judge.judge(&mut alone, Ok(reply(429, &text)));
    assert_ne!(before, <LokiJudge as Judge<Acks>>::divisions(&judge));
    let parts = judge.divide(&mut r);
    let shown: Vec<_> = parts
        .iter()
        .map(|p| {
            let push = oracle::decode(&p.body.concat());
            let labels: Vec<String> = push.streams.into_iter().map(|s| s.labels).collect();
            (labels.concat(), p.items)
        })
        .collect();
    assert_eq!(shown, [(two.to_owned(), 1), (format!("{one}{three}"), 3)]);
}

#[test]
fn refusals_are_counted_by_reason_and_never_exceed_the_request() {
    let judge = judge();
    let mut r = request(&[("{a=\"1\"}", &["1", "2", "3"]), ("{a=\"2\"}", &["4", "5"])]);
    let dropped = |r: &mut _, text: &str| match judge.judge(r, Ok(reply(400, text))) {
        Verdict::DeliveredExcept { dropped } => dropped,
        other => panic!("{other:?}"),
    };
    let old = "2 errors like: entry for stream '{a=\"1\"}' has timestamp too old: x; 1 errors like: stream '{a=\"2\"}' has label name too long: 'y'";
    assert_eq!(
        dropped(&mut r, old),
        [(DropReason::TooOld, 2), (DropReason::InvalidLabels, 2)]
    );
    let many = "900 errors like: max entry size '1' bytes exceeded for stream '{}'";
    assert_eq!(dropped(&mut r, many), [(DropReason::LineTooLong, 5)]);
}

/// Guarantee: entries that the distributor refused are counted where the ingester's answer takes the
/// place of its own.
#[test]
fn refusals_behind_those_of_an_ingester_are_counted() {
    let judge = judge();
    let text = |n: usize| {
        format!(
            "entry with timestamp x ignored, reason: 'entry too far behind, oldest acceptable timestamp is: 1970-01-01T00:00:01Z',\nuser 'fake', total ignored: 1 out of {n} for stream: {{a=\"1\"}}"
        )
    };
    let mut r = request(&[("{a=\"2\"}", &["4", "5"]), ("{a=\"1\"}", &["1", "2", "3"])]);
    assert!(judge.divide(&mut r).is_empty());
    for (n, unnamed) in [(3, None), (2, Some(1)), (1, Some(2)), (9, None)] {
        let Verdict::DeliveredExcept { dropped } = judge.judge(&mut r, Ok(reply(400, &text(n))))
        else {
            panic!("partial");
        };
        let mut want = vec![(DropReason::TooFarBehind, 1)];
        want.extend(unnamed.map(|n| (DropReason::Rejected, n)));
        assert_eq!(dropped, want, "{n}");
    }
    // From now on the stream is sent alone: with others behind it, a refusal would not be seen.
    let items: Vec<u64> = judge.divide(&mut r).iter().map(|p| p.items).collect();
    assert_eq!(items, [3, 2]);
    judge.judge(&mut r, Ok(reply(204, "")));
    assert_eq!(judge.divide(&mut r).len(), 2);
}

#[test]
fn an_answer_that_was_cut_is_completed_from_the_request() {
    let judge = judge();
    // All entries have the time 7 ns.
    let text = "1 errors like: entry for stream '{a=\"1\"}' has timestamp too old: x, oldest acceptable timestamp is: 1970-01-01T00:00:01Z; 1 errors li";
    let mut r = request(&[("{a=\"1\"}", &["1", "2", "3"]), ("{a=\"2\"}", &["4", "5"])]);
    for (truncated, want) in [(false, 1), (true, 5)] {
        let mut reply = reply(400, text);
        reply.truncated = truncated;
        let Verdict::DeliveredExcept { dropped } = judge.judge(&mut r, Ok(reply)) else {
            panic!("partial");
        };
        assert_eq!(dropped, [(DropReason::TooOld, want)]);
    }
}

#[test]
fn dead_letters_hold_the_entries_that_were_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead");
    let mut judge = judge();
    judge.dead_letters = Some(Arc::new(DeadLetters::new(path.clone(), 1 << 20)));
    let mut r = request(&[
        ("{a=\"1\"}", &["short", "quite long"]),
        ("{a=\"2\"}", &["quite long too"]),
    ]);
    let text = "max entry size '7' bytes exceeded for stream '{a=\"1\"}' while adding an entry with length '10' bytes";
    judge.judge(&mut r, Ok(reply(400, text)));
    judge.judge(&mut r, Ok(reply(422, "at least one valid stream")));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let shown: Vec<_> = lines
        .iter()
        .map(|l| (l["reason"].as_str(), l["line"].as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (Some("line_too_long"), Some("quite long")),
            (Some("encode_error"), Some("short")),
            (Some("encode_error"), Some("quite long")),
            (Some("encode_error"), Some("quite long too")),
        ]
    );
}

#[test]
fn the_wait_that_is_asked_for_and_the_cause_are_passed_on() {
    let judge = judge();
    let mut r = request(&[("{a=\"1\"}", &["1"])]);
    let mut busy = reply(503, &"\u{e9}".repeat(900));
    busy.headers.insert("retry-after", "17".parse().unwrap());
    match judge.judge(&mut r, Ok(busy)) {
        Verdict::Retry {
            scope,
            after,
            cause,
        } => {
            assert_eq!(
                (scope, after),
                (
                    RetryScope::Destination,
                    Some(std::time::Duration::from_secs(17))
                )
            );
            assert!(cause.starts_with("HTTP 503: \u{e9}") && cause.len() < 500);
        }
        other => panic!("{other:?}"),
    }
    let error = SendError::new(SendErrorKind::Connect, "refused");
    let verdict = judge.judge(&mut r, Err(error));
    assert!(matches!(
        verdict,
        Verdict::Retry {
            scope: RetryScope::Destination,
            ..
        }
    ));
}

#[test]
fn a_body_that_cannot_be_read_back_is_still_judged() {
    let judge = judge();
    let body = vec![Bytes::from_static(b"\xff\xff")];
    let mut r = OutgoingRequest::new(body, Arc::default(), None, vec![1], 9, Acks::new());
    for (status, text) in [
        (429, "Per stream rate limit exceeded for stream '{a=\"b\"}'"),
        (400, "max entry size"),
    ] {
        let verdict = judge.judge(&mut r, Ok(reply(status, text)));
        assert!(matches!(
            verdict,
            Verdict::Retry { .. } | Verdict::DeliveredExcept { .. }
        ));
    }
    assert!(matches!(
        judge.judge(&mut r, Ok(reply(413, ""))),
        Verdict::Drop { .. }
    ));
}
