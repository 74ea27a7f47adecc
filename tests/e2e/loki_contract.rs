//! What each kind of refusal of Loki costs: the entries it is about, counted by reason and kept as
//! dead letters, and nothing else. The exporter runs in this process; the server has the limit that
//! the row is about, and the exporter does not know it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_pdata::Entry;
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::loki::behaviour::{LokiBehaviour, Matcher, Scripted};
use tailwater_tests::contract::{Case, NOW, SECOND, entries, entry, good};

/// A refusal that some entries earn for good.
struct Row {
    name: &'static str,
    /// Over the configuration.
    config: Value,
    server: fn(&mut LokiBehaviour),
    /// Answers to every request with the stream `app="bad"`, in place of processing it.
    script: Option<(u16, &'static str)>,
    /// Sent one after another; lines that begin with `bad` are those refused.
    batches: Vec<Vec<Entry>>,
    reason: &'static str,
    /// The status that was met.
    status: u16,
    /// Loki can hide it behind the success of a later stream, and what differs are limits that the
    /// exporter does not know: exact with `delivery: verified` only.
    hidden: bool,
}

impl Default for Row {
    fn default() -> Row {
        Row {
            name: "",
            config: json!({}),
            server: |_| {},
            script: None,
            batches: Vec::new(),
            reason: "",
            status: 400,
            hidden: false,
        }
    }
}

fn with_metadata(mut entry: Entry, name: &str, bytes: usize) -> Entry {
    entry.attributes = [(name, "v".repeat(bytes).as_str())].into_iter().collect();
    entry
}

fn later(mut entry: Entry, ms: i64) -> Entry {
    entry.time += ms * 1_000_000;
    entry
}

fn and_good(bad: Vec<Entry>) -> Vec<Vec<Entry>> {
    vec![[good(), bad].concat(), entries("three", "good", 5, 60)]
}

/// Refusals of single entries: the others of the request are stored.
fn rows_of_entries() -> Vec<Row> {
    let mixed = |bad: Entry| and_good([entries("mix", "good", 20, 60), vec![bad]].concat());
    vec![
        Row {
            name: "too old",
            server: |b| b.reject_old_samples = Some(Duration::from_secs(600)),
            batches: mixed(entry("mix", "bad old", 900)),
            reason: "too_old",
            ..Row::default()
        },
        Row {
            name: "several too old, in two streams",
            server: |b| b.reject_old_samples = Some(Duration::from_secs(600)),
            batches: and_good(
                ["mix", "other"]
                    .into_iter()
                    .flat_map(|app| {
                        let old = |n: i64| entry(app, &format!("bad old {app} {n:02}"), 900 + n);
                        let good = entries(app, "good", 20, 60);
                        (0..13).map(old).chain(good).collect::<Vec<_>>()
                    })
                    .collect(),
            ),
            reason: "too_old",
            ..Row::default()
        },
        Row {
            name: "too far in the future",
            server: |b| b.creation_grace = Some(Duration::from_secs(60)),
            batches: mixed(entry("mix", "bad new", -300)),
            reason: "too_new",
            ..Row::default()
        },
        Row {
            name: "line too long",
            server: |b| b.line_bytes_max = Some(100),
            batches: mixed(entries("mix", "bad", 1, 200).remove(0)),
            reason: "line_too_long",
            ..Row::default()
        },
        Row {
            name: "metadata too large",
            server: |b| b.metadata_bytes_max = Some(100),
            batches: mixed(with_metadata(entry("alone", "bad meta", 5), "a", 200)),
            reason: "invalid_metadata",
            ..Row::default()
        },
        Row {
            name: "metadata disallowed",
            server: |b| b.metadata_allowed = false,
            batches: mixed(with_metadata(entry("alone", "bad meta", 5), "a", 2)),
            reason: "invalid_metadata",
            ..Row::default()
        },
        Row {
            name: "too far behind",
            server: |b| b.behind_head_max = Some(Duration::from_secs(300)),
            // More than an answer lists, and one in the second that the bound is printed with.
            batches: vec![
                [
                    entries("mix", "good", 20, 60),
                    vec![later(entry("mix", "good head", 180), 700)],
                ]
                .concat(),
                [
                    good(),
                    (0..14)
                        .map(|n| entry("mix", &format!("bad behind {n:02}"), 900 + n))
                        .collect(),
                    vec![
                        later(entry("mix", "bad by half a second", 480), 200),
                        entry("mix", "good again", 470),
                    ],
                ]
                .concat(),
            ],
            reason: "too_far_behind",
            hidden: true,
            ..Row::default()
        },
    ]
}

/// Refusals of whole streams, and of whole requests for the sake of something in them.
fn rows_of_streams_and_requests() -> Vec<Row> {
    let bad = || and_good(entries("bad", "bad", 20, 60));
    vec![
        Row {
            name: "too many labels",
            server: |b| b.label_names_max = Some(1),
            batches: and_good(
                entries("bad", "bad", 20, 60)
                    .into_iter()
                    .map(|mut e| {
                        e.resource.insert("env", "x");
                        e
                    })
                    .collect(),
            ),
            reason: "invalid_labels",
            ..Row::default()
        },
        Row {
            name: "label value too long",
            server: |b| b.label_value_bytes_max = Some(5),
            batches: and_good(entries("too-long", "bad", 20, 60)),
            reason: "invalid_labels",
            ..Row::default()
        },
        Row {
            name: "labels that cannot be parsed",
            script: Some((400, "couldn't parse labels: 1:3: parse error")),
            batches: bad(),
            reason: "invalid_labels",
            ..Row::default()
        },
        Row {
            name: "a body that cannot be read",
            script: Some((400, "snappy: corrupt input")),
            batches: bad(),
            reason: "rejected",
            ..Row::default()
        },
        Row {
            name: "a metadata key that poisons",
            script: Some((
                500,
                "normalization for \"_\" resulted in invalid name \"_\"",
            )),
            batches: bad(),
            reason: "invalid_metadata",
            status: 500,
            ..Row::default()
        },
        Row {
            name: "an empty metadata key",
            script: Some((500, "label name is empty")),
            batches: bad(),
            reason: "invalid_metadata",
            status: 500,
            ..Row::default()
        },
        Row {
            name: "before the first schema",
            server: |b| b.schema_start_ns = Some(NOW - 600 * SECOND),
            batches: and_good(vec![entry("bad", "bad early", 900)]),
            reason: "too_old",
            status: 500,
            ..Row::default()
        },
        Row {
            name: "no stream",
            script: Some((
                422,
                "error at least one valid stream is required for ingestion",
            )),
            batches: vec![entries("bad", "bad", 20, 60), good()],
            reason: "encode_error",
            status: 422,
            ..Row::default()
        },
        Row {
            name: "one entry larger than the message may be",
            server: |b| b.grpc_message_bytes_max = Some(2_000),
            batches: and_good(entries("bad", "bad", 1, 3_000)),
            reason: "too_large",
            status: 500,
            ..Row::default()
        },
        Row {
            name: "one entry larger than the body may be",
            server: |b| b.decompressed_bytes_max = 2_000,
            batches: and_good(entries("bad", "bad", 1, 3_000)),
            reason: "too_large",
            status: 413,
            ..Row::default()
        },
        Row {
            name: "one entry larger than the burst of the stream",
            server: |b| (b.stream_rate_bytes, b.stream_burst_bytes) = (Some(1_000), 1_000),
            batches: and_good(entries("bad", "bad", 1, 3_000)),
            reason: "too_large",
            status: 429,
            hidden: true,
            ..Row::default()
        },
        Row {
            name: "the same, entry by entry",
            server: |b| {
                (b.stream_rate_bytes, b.stream_burst_bytes) = (Some(1_000), 1_000);
                b.shard_streams = false;
            },
            batches: and_good(entries("bad", "bad", 1, 3_000)),
            reason: "too_large",
            status: 429,
            hidden: true,
            ..Row::default()
        },
        Row {
            name: "one entry larger than the burst of the tenant",
            server: |b| (b.ingestion_rate_bytes, b.ingestion_burst_bytes) = (Some(2_000), 2_000),
            batches: and_good(entries("bad", "bad", 1, 3_000)),
            reason: "too_large",
            status: 429,
            ..Row::default()
        },
    ]
}

/// Guarantees that what Loki will never take is given up, counted and kept as dead letters, and
/// that everything else of the same request, stream and tenant is stored.
#[test]
fn a_refusal_costs_what_it_is_about_and_nothing_else() {
    let rows = rows_of_entries()
        .into_iter()
        .chain(rows_of_streams_and_requests());
    let mut failed = Vec::new();
    for row in rows {
        for delivery in ["probed", "verified"] {
            if row.hidden && delivery == "probed" {
                continue;
            }
            if let Err(problem) = check(&row, delivery) {
                failed.push(format!("{} ({delivery}): {problem}", row.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What is not as it should be.
fn check(row: &Row, delivery: &str) -> Result<(), String> {
    let mut config = row.config.clone();
    config["delivery"] = delivery.into();
    let mut case = Case::start(&config, row.server);
    if let Some((status, body)) = row.script {
        let answer = Scripted::Answer {
            status,
            body: body.into(),
        };
        let matcher = Matcher::Stream {
            name: "app".into(),
            value: "bad".into(),
        };
        case.loki.script(matcher, vec![answer; 500]);
    }
    let (mut dropped, mut good, mut bad) = (BTreeMap::new(), Vec::new(), Vec::new());
    for batch in &row.batches {
        case.bench.send(batch);
        for (reason, n) in case.bench.settle() {
            *dropped.entry(reason).or_insert(0) += n;
        }
        for line in batch.iter().map(|e| e.body.as_ref().to_display_string()) {
            if line.starts_with("bad") {
                bad.push((line, row.reason.to_owned()));
            } else {
                good.push(line);
            }
        }
    }
    good.sort();
    bad.sort();
    let stats = case.loki.stats();
    let want = BTreeMap::from([(row.reason, bad.len() as u64)]);
    let status = stats.push_responses.contains_key(&row.status);
    let (stored, letters) = (case.stored(), case.letters());
    match (stored == good, letters == bad, dropped == want, status) {
        (true, true, true, true) => Ok(()),
        (false, ..) => Err(format!(
            "{} of {} stored: {stats:?}",
            stored.len(),
            good.len()
        )),
        (_, false, ..) => Err(format!("letters {letters:?}\nwanted {bad:?}")),
        (_, _, false, _) => Err(format!("dropped {dropped:?}, wanted {want:?}")),
        (.., false) => Err(format!("the status was not met: {stats:?}")),
    }
}

/// Names and values that Loki refuses, or accepts and then chokes on, if they are sent as they are.
const NASTY: [&str; 16] = [
    "",
    "_",
    "__",
    "*",
    "日本",
    "é",
    "a.b",
    "a-b",
    "9lives",
    "__stream_shard__",
    "quote\" and \\ backslash",
    "new\nline and \t tab",
    "\u{0}\u{1}\u{7f}",
    "service_name",
    "{job=\"x\"}",
    "a b",
];

/// Guarantees that nothing in a record makes Loki, with its own limits, refuse anything: names,
/// values, lengths, numbers of labels and of metadata.
#[test]
fn no_record_is_refused_for_what_is_in_it() {
    let limits = |b: &mut LokiBehaviour| {
        let (rate, burst) = (b.stream_rate_bytes, b.ingestion_rate_bytes);
        *b = LokiBehaviour::default();
        // What is in a record, not how much of it.
        (b.stream_rate_bytes, b.ingestion_rate_bytes) = (rate, burst);
    };
    let mapping = json!({
        "resource": {"app": "app", "env": "env"}, "attributes": {"value": "value"}, "severity": "level",
    });
    let raw = json!({"labels": mapping});
    // The collector's way: hints name the labels, whatever they are called.
    let hints = json!({"labels": null});
    for config in [raw, hints] {
        let mut case = Case::start(&config, limits);
        let mut sent = Vec::new();
        for (i, name) in NASTY.iter().enumerate() {
            for value in NASTY {
                let mut e = entry("app", &format!("{} {}", sent.len(), value), 100 - i as i64);
                e.resource.insert("env", value);
                e.resource.insert("loki.resource.labels", *name);
                e.resource.insert(*name, value);
                e.attributes.insert("value", value);
                e.attributes.insert(*name, value);
                e.attributes
                    .insert("loki.attribute.labels", format!("{name}, value").as_str());
                if value == *name {
                    // More and longer than may be.
                    for n in 0..150 {
                        e.attributes.insert(format!("{name}{n}").as_str(), value);
                    }
                    let long = "long ".repeat(20_000);
                    e.attributes.insert("long", long.as_str());
                    e.resource.insert("env", long.as_str());
                }
                sent.push(e);
            }
        }
        let long = format!("{} {}", sent.len(), "line ".repeat(100_000));
        sent.push(entry("app", &long, 1));
        case.bench.send(&sent);
        assert_eq!(case.bench.settle(), BTreeMap::new(), "{config}");
        let stats = case.loki.stats();
        let statuses: Vec<u16> = stats.push_responses.keys().copied().collect();
        assert_eq!(statuses, [204], "{config}: {stats:?}");
        assert_eq!(case.stored().len(), sent.len(), "{config}");
        let streams = case.loki.streams(DEFAULT_TENANT);
        let quoted = |labels: &String| labels.contains("{\"") || labels.contains(", \"");
        assert!(
            !streams.iter().any(quoted),
            "names that break reads: {streams:?}"
        );
    }
}
