//! Content types and encodings, queries, storage.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::*;

const PROTO: &str = "Content-Type: application/x-protobuf\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.into_inner().unwrap()
}

#[test]
fn only_raw_snappy_protobuf_is_protobuf() {
    let f = with(|_| {});
    let plain = encode_push(&PushRequest {
        streams: vec![good(r#"{a="1"}"#)],
    });
    let raw = snappy(&plain);
    let encoded = |coding: &str| format!("{PROTO}Content-Encoding: {coding}\r\n");
    let cases: Vec<(String, Vec<u8>, u16, &str)> = vec![
        (PROTO.to_owned(), raw.clone(), 204, ""),
        (encoded("snappy"), raw.clone(), 204, ""),
        (
            "Content-Type: text/plain\r\n".to_owned(),
            raw.clone(),
            204,
            "",
        ),
        (encoded("gzip"), gzip(&raw), 204, ""),
        (encoded("gzip"), gzip(&plain), 400, "snappy: corrupt input"),
        (encoded("gzip"), raw.clone(), 400, ""),
        (
            PROTO.to_owned(),
            plain.clone(),
            400,
            "snappy: corrupt input",
        ),
        (
            PROTO.to_owned(),
            framed(&plain),
            400,
            "snappy: corrupt input",
        ),
        (encoded("zstd"), raw.clone(), 400, "not supported"),
        (String::new(), raw.clone(), 400, "mime: no media type"),
        (
            "Content-Type: ;x\r\n".to_owned(),
            raw.clone(),
            400,
            "mime: no media type",
        ),
        (PROTO.to_owned(), snappy(b"\x0a\x7f"), 400, "unexpected EOF"),
        (
            PROTO.to_owned(),
            snappy(b""),
            422,
            "at least one valid stream",
        ),
    ];
    for (headers, body, status, marker) in cases {
        let answer = f.post(&headers, &body).unwrap();
        assert_eq!(answer.status, status, "{headers}: {answer:?}");
        assert!(answer.body.contains(marker), "{headers}: {answer:?}");
    }
    f.expect(vec![stream(r#"{a="1"}"#, vec![])], 204, "");
    assert_eq!(f.loki.stats().entries_accepted, 4);
    assert_eq!(f.lines(r#"{a="1"}"#), ["good"]);
}

#[test]
fn json_pushes_come_plain_gzipped_or_raw_deflated() {
    let f = with(|_| {});
    let body = format!(
        r#"{{"streams":[{{"stream":{{"b":"2","a":"x\"y"}},
            "values":[["{NOW}","hi",{{"k":"v"}}]]}}]}}"#
    );
    let body = body.as_bytes();
    let encoded = |coding: &str| format!("{JSON}Content-Encoding: {coding}\r\n");
    for (headers, body, status) in [
        (JSON.to_owned(), body.to_vec(), 204),
        (
            "Content-Type: application/json; charset=utf-8\r\n".to_owned(),
            body.to_vec(),
            204,
        ),
        (encoded("gzip"), gzip(body), 204),
        (encoded("deflate"), deflate(body), 204),
        (encoded("deflate"), zlib(body), 400),
        (JSON.to_owned(), b"{".to_vec(), 400),
        (JSON.to_owned(), b"{}".to_vec(), 422),
        (
            JSON.to_owned(),
            br#"{"streams":[{"labels":"{}","entries":[]}]}"#.to_vec(),
            204,
        ),
    ] {
        let answer = f.post(&headers, &body).unwrap();
        assert_eq!(answer.status, status, "{headers}: {answer:?}");
    }
    let entries = f.loki.entries(DEFAULT_TENANT, r#"{a="x\"y", b="2"}"#);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].copies, 4);
    assert_eq!(entries[0].metadata, [("k".to_owned(), "v".to_owned())]);
}

#[test]
fn bodies_over_the_limit_are_413_before_and_after_decompression() {
    let f = with(|b| {
        b.body_bytes_max = 1_000;
        b.decompressed_bytes_max = 5_000;
    });
    let noise: Vec<u8> = {
        let mut rng = Rng::new(1);
        (0..2_000).map(|_| rng.next_u64() as u8).collect()
    };
    let answer = f.post(PROTO, &noise).unwrap();
    assert_eq!(answer.status, 413);
    assert_eq!(
        answer.body,
        "request body too large: 2000 bytes, limit: 1000 bytes\n"
    );
    assert_eq!(f.post(PROTO, &snappy(&[0; 6_000])).unwrap().status, 413);
    let json = format!("{JSON}Content-Encoding: gzip\r\n");
    assert_eq!(f.post(&json, &gzip(&[b' '; 6_000])).unwrap().status, 413);
    assert_eq!(f.loki.stats().push_responses[&413], 3);
}

#[test]
fn chunked_bodies_and_other_methods_and_paths() {
    let f = with(|_| {});
    let body = snappy(&encode_push(&PushRequest {
        streams: vec![good(r#"{a="1"}"#)],
    }));
    let head = format!(
        "POST /loki/api/v1/push HTTP/1.1\r\nConnection: close\r\n{PROTO}\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    let chunked = [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(f.raw(&chunked).unwrap().status, 204);
    assert_eq!(f.get("/loki/api/v1/push", "").status, 405);
    assert_eq!(f.get("/nothing", "").status, 404);
    assert_eq!(f.get("/ready", "").body, "ready\n");
    f.loki.set_ready(false);
    assert_eq!(f.get("/ready", "").status, 503);
    f.expect(vec![good(r#"{a="1"}"#)], 204, "");
}

#[test]
fn equal_streams_of_a_request_are_merged_whatever_the_order_of_their_labels() {
    let f = with(|_| {});
    let second = stream(r#"{b='2',a="1"}"#, vec![entry(NOW + 1, "second")]);
    f.expect(vec![good(r#"{a="1",b="2"}"#), second], 204, "");
    assert_eq!(f.loki.streams(DEFAULT_TENANT), [r#"{a="1", b="2"}"#]);
    assert_eq!(f.lines(r#"{a="1", b="2"}"#), ["good", "second"]);
}

#[test]
fn repeats_are_one_entry_in_queries_and_counted_apart() {
    let f = with(|_| {});
    for _ in 0..3 {
        let entries = vec![entry(NOW, "same"), entry(NOW, "same"), entry(NOW, "other")];
        f.expect(vec![stream(r#"{a="1"}"#, entries)], 204, "");
    }
    let stats = f.loki.stats();
    assert_eq!(
        (stats.entries_accepted, stats.entries_distinct),
        (9, Some(2))
    );
    let copies: Vec<u64> = f
        .loki
        .entries(DEFAULT_TENANT, r#"{a="1"}"#)
        .iter()
        .map(|e| e.copies)
        .collect();
    assert_eq!(copies, [6, 3]);
}

#[test]
fn the_store_is_bounded_and_can_only_count() {
    let f = start(|o| o.store = StoreMode::Entries { entries_max: 2 });
    let entries = (0..5).map(|n| entry(NOW + n, "x")).collect();
    f.expect(vec![stream(r#"{a="1"}"#, entries)], 204, "");
    let stats = f.loki.stats();
    assert_eq!((stats.entries_accepted, stats.entries_not_kept), (5, 3));
    assert_eq!(f.lines(r#"{a="1"}"#).len(), 2);

    let seen = Arc::new(Mutex::new(Vec::new()));
    let f = start(|o| {
        let seen = Arc::clone(&seen);
        o.store = StoreMode::CountOnly;
        o.on_entry = Some(Arc::new(move |e| {
            let line = String::from_utf8_lossy(e.line).into_owned();
            lock(&seen).push((e.tenant.to_owned(), e.labels.to_owned(), e.ts_ns, line));
        }));
    });
    f.expect(vec![good(r#"{a="1"}"#), good(r#"{a="1"}"#)], 204, "");
    let one = (
        "fake".to_owned(),
        r#"{a="1"}"#.to_owned(),
        NOW,
        "good".to_owned(),
    );
    assert_eq!(*lock(&seen), [one.clone(), one]);
    assert_eq!(f.loki.copies(DEFAULT_TENANT, r#"{a="1"}"#), 2);
    assert_eq!(f.loki.stats().entries_distinct, None);
    assert!(f.lines(r#"{a="1"}"#).is_empty());
    assert_eq!(
        f.get("/loki/api/v1/query_range?query=%7Ba%3D%221%22%7D", "")
            .status,
        501
    );
}

fn query(f: &Fixture, parameters: &str, headers: &str) -> serde_json::Value {
    let answer = f.get(&format!("/loki/api/v1/query_range?{parameters}"), headers);
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn queries_select_by_label_time_limit_and_direction() {
    let f = with(|_| {});
    let mut marked = with_metadata(&[("k", "v"), ("app", "x")]);
    marked.ts_ns = NOW - 2;
    let entries = vec![entry(NOW - 3, "a"), marked, entry(NOW - 1, "b")];
    f.expect(
        vec![stream(r#"{app="web"}"#, entries), good(r#"{app="db"}"#)],
        204,
        "",
    );
    let q = "query=%7Bapp%3D%22web%22%7D";
    let all = query(&f, q, "");
    let result = &all["data"]["result"];
    assert_eq!(
        result[0]["stream"],
        serde_json::json!({"app": "web", "service_name": "web"})
    );
    assert_eq!(result[0]["values"][0][1], "b");
    assert_eq!(result[0]["values"][1][1], "a");
    assert_eq!(result[1]["stream"]["k"], "v");
    assert_eq!(result[1]["stream"]["app_extracted"], "x");
    let first = query(&f, &format!("{q}&direction=forward&limit=1"), "");
    assert_eq!(
        first["data"]["result"][0]["values"][0],
        serde_json::json!([(NOW - 3).to_string(), "a"])
    );
    let none = query(&f, &format!("{q}&start={}&end={}", NOW - 100, NOW - 3), "");
    assert_eq!(none["data"]["result"].as_array().unwrap().len(), 0);
    let flags = "X-Loki-Response-Encoding-Flags: categorize-labels\r\n";
    let apart = query(&f, &format!("{q}&start=1704207840&end=1704207846.5"), flags);
    assert_eq!(apart["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(
        apart["data"]["result"][0]["values"][1][2]["structuredMetadata"]["k"],
        "v"
    );
    for bad in [
        "query=x",
        "query=%7B%7D",
        &format!("{q}&limit=5001"),
        &format!("{q}&start=x"),
        &format!("{q}&direction=up"),
        &format!("{q}&limit=-1"),
    ] {
        assert_eq!(
            f.get(&format!("/loki/api/v1/query_range?{bad}"), "").status,
            400,
            "{bad}"
        );
    }
}

#[test]
fn quoted_label_names_are_accepted_and_then_break_reads() {
    let f = with(|_| {});
    f.expect(vec![good(r#"{"a.b"="1", app="x"}"#)], 204, "");
    let answer = f.get("/loki/api/v1/query_range?query=%7Bapp%3D%22x%22%7D", "");
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("could not write JSON response"));
}

#[test]
fn invalid_utf8_is_stored_in_lines_and_fatal_in_labels() {
    let f = with(|_| {});
    let line = PushEntry {
        line: vec![b'a', 0xff, 0].into(),
        ..entry(NOW, "")
    };
    f.expect(
        vec![stream(r#"{a="1"}"#, vec![line, entry(NOW, "")])],
        204,
        "",
    );
    assert_eq!(
        &f.loki.entries(DEFAULT_TENANT, r#"{a="1"}"#)[0].line[..],
        [b'a', 0xff, 0]
    );
    let body = snappy(b"\x0a\x0f\x0a\x07{a=\"\xff\"}\x12\x04\x12\x02hi");
    assert_eq!(f.post(PROTO, &body).unwrap().status, 400);
}
