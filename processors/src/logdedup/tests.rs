//! What becomes of records, of their duties and of memory. Rows with a `source` restate what the collector's
//! `logdedupprocessor` does.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use tailwater_config::parse;
use tailwater_pdata::{Entry, Map, Value};
use tailwater_pipeline::ack::{AckSink, NoSink};
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::clock::SimClock;
use tailwater_pipeline::{AckWindow, Counts, DropReason, Front, Permit};
use tailwater_telemetry::metrics::MetricsRegistry;

use super::*;

/// 2024-10-04 19:21:48 UTC.
const START_NS: i64 = 1_728_069_708_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

fn config(yaml: &str) -> Result<(LogDedupConfig, Vec<String>), String> {
    let node = parse(yaml, "a.yaml").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "processors::log_dedup", &mut errors);
    let config = LogDedupConfig::decode(&mut section);
    section.finish();
    let warnings = errors.take_warnings().into_iter().map(|w| w.message);
    let warnings = warnings.collect();
    let result = errors.into_result((config, warnings));
    result.map_err(|e| e.to_string())
}

struct Out {
    now: Mono,
    parts: Vec<Part>,
}

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.parts.extend(batch.parts);
    }
    fn now(&self) -> Mono {
        self.now
    }
}

/// A processor with a clock, and one source behind it.
struct Setup {
    shared: Arc<Shared>,
    processor: LogDedup,
    clock: Arc<SimClock>,
    budget: Arc<Budget>,
    window: AckWindow<usize>,
    out: Out,
    read: usize,
}

impl Setup {
    fn new(yaml: &str) -> Setup {
        let (config, _) = config(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
        let clock = Arc::new(SimClock::new(START_NS));
        let budget = Budget::new(1 << 30);
        let shared = Arc::new(Shared {
            config,
            identity: Identity::new(7),
            held: Mutex::default(),
            returns: Arc::default(),
            started: clock.now(),
            emit_at: AtomicU64::new(u64::MAX),
            clock: clock.clone(),
            budget: budget.clone(),
            meters: LogDedupMetrics::new(&MetricsRegistry::default(), "log_dedup"),
        });
        Setup {
            processor: LogDedup::of(shared.clone(), Report::uncounted()),
            shared,
            window: AckWindow::new(Arc::new(NoSink), 0),
            out: Out {
                now: clock.now(),
                parts: Vec::new(),
            },
            clock,
            budget,
            read: 0,
        }
    }

    /// Another shard's instance of the same chain.
    fn sibling(&self) -> LogDedup {
        LogDedup::of(self.shared.clone(), Report::uncounted())
    }

    fn part(&mut self, entries: &[Entry]) -> Part {
        let logs = LogsBatch::from_entries(entries);
        self.read += entries.len();
        Part {
            permit: self.budget.take(logs.heap_bytes()),
            data: logs.into(),
            ack: self.window.reserve(self.read, entries.len() as u32, 0),
        }
    }

    fn take_in(&mut self, entries: &[Entry]) {
        let part = self.part(entries);
        self.processor.process(Batch::of(part), &mut self.out);
    }

    fn wait(&mut self, seconds: u64) {
        self.clock.advance(std::time::Duration::from_secs(seconds));
        self.out.now = self.clock.now();
        self.processor.tick(&mut self.out);
    }

    /// What was passed on, its duties resolved.
    fn deliver(&mut self, outcome: Outcome) -> Vec<Entry> {
        let mut entries = Vec::new();
        for part in self.out.parts.drain(..).flat_map(Part::into_logs) {
            entries.extend(part.logs.to_entries());
            part.ack.resolve(outcome);
        }
        entries
    }

    /// Records of the source, read, filtered and dropped, of what is settled as final.
    fn account(&mut self) -> (Front, [u32; 3]) {
        let mut sum = [0; 3];
        let front = self.window.advance(|settled| {
            sum[0] += settled.records;
            sum[1] += settled.counts.filtered;
            sum[2] += settled.counts.dropped_total();
            let of_it = settled.counts.filtered + settled.counts.dropped_total();
            assert!(of_it <= settled.records, "no part counts more than it has");
        });
        (front, sum)
    }
}

fn record(body: impl Into<Value>, attributes: &[(&str, Value)]) -> Entry {
    Entry {
        body: body.into(),
        attributes: attributes.iter().cloned().collect(),
        resource: [("host", "h")].into_iter().collect(),
        ..Entry::default()
    }
}

fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Map(pairs.iter().cloned().collect())
}

/// Each body with how many records it stands for.
fn counts(entries: &[Entry]) -> Vec<(String, i64)> {
    let count = |entry: &Entry| {
        let Some(Value::Int(n)) = entry.attributes.get("log_count") else {
            return (entry.body.as_ref().to_display_string(), 0);
        };
        (entry.body.as_ref().to_display_string(), *n)
    };
    entries.iter().map(count).collect()
}

#[test]
fn the_same_records_become_one_that_says_how_many_and_when() {
    // source: contrib processor/logdedupprocessor counter.go Export, README
    let mut s = Setup::new("timezone: America/Los_Angeles");
    let mut first = record("a", &[("k", 1.into())]);
    first.time = 5;
    first.severity = 9;
    first.trace_id = [1; 16];
    let mut second = first.clone();
    (second.time, second.trace_id) = (6, [2; 16]);
    s.take_in(&[first.clone(), record("b", &[])]);
    assert!(s.out.parts.is_empty(), "they wait");
    s.wait(3);
    s.take_in(&[second.clone(), second]);
    s.wait(6);
    assert!(s.out.parts.is_empty(), "the interval has not ended");
    s.wait(1);
    let entries = s.deliver(Outcome::Delivered);
    assert_eq!(counts(&entries), [("a".into(), 3), ("b".into(), 1)]);
    let told = [
        ("k", Value::Int(1)),
        ("log_count", Value::Int(3)),
        (
            "first_observed_timestamp",
            "2024-10-04T12:21:48-07:00".into(),
        ),
        (
            "last_observed_timestamp",
            "2024-10-04T12:21:51-07:00".into(),
        ),
    ];
    let want = Entry {
        time: START_NS + 10 * SECOND_NS as i64,
        observed: START_NS,
        attributes: told.into_iter().collect(),
        ..first
    };
    assert_eq!(entries[0], want);
    assert_eq!(entries[1].time, want.time + 1, "two times differ");
    s.take_in(&[record("a", &[])]);
    s.wait(10);
    assert_eq!(
        counts(&s.deliver(Outcome::Delivered)),
        [("a".into(), 1)],
        "counted anew"
    );
}

#[test]
fn records_are_the_same_if_all_that_counts_is() {
    // source: contrib processor/logdedupprocessor counter.go getResourceKey, getScopeKey, getLogKey
    let base = || record("x", &[("a", 1.into()), ("b", "2".into())]);
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut entry = base();
        change(&mut entry);
        entry
    };
    let mut s = Setup::new("{}");
    let different = [
        base(),
        with(&|e| e.body = "y".into()),
        with(&|e| e.body = Value::Null),
        with(&|e| e.severity = 9),
        with(&|e| e.severity_text = "INFO".into()),
        with(&|e| e.attributes = Map::new()),
        with(&|e| {
            e.attributes.insert("a", 2);
        }),
        with(&|e| {
            e.attributes.insert("a", "1");
        }),
        with(&|e| {
            e.attributes.insert("c", 1);
        }),
        with(&|e| {
            e.resource.insert("host", "i");
        }),
        with(&|e| e.scope_name = "s".into()),
        with(&|e| e.body = map(&[("x", 1.into())])),
        with(&|e| e.body = Value::List(vec![1.into()])),
        with(&|e| e.body = Value::List(vec![])),
    ];
    let same = [
        with(&|e| e.time = 7),
        with(&|e| e.observed = 7),
        with(&|e| e.span_id = [3; 8]),
        with(&|e| {
            e.attributes = [("b", Value::from("2")), ("a", 1.into())]
                .into_iter()
                .collect()
        }),
    ];
    for entry in different.iter().chain(&same) {
        s.take_in(std::slice::from_ref(entry));
    }
    s.wait(10);
    let counts = counts(&s.deliver(Outcome::Delivered));
    assert_eq!(counts.len(), different.len(), "{counts:?}");
    assert_eq!(counts[0].1, 1 + same.len() as i64);
}

#[test]
fn fields_that_are_excluded_do_not_count_and_are_gone() {
    // source: contrib processor/logdedupprocessor field_remover.go
    let yaml = r"exclude_fields: [body.timestamp, 'attributes.host\.name', attributes.src.ip]";
    let mut s = Setup::new(yaml);
    let entry = |n: i64| {
        let src = map(&[("ip", n.into()), ("port", 1.into())]);
        record(
            map(&[("timestamp", n.into()), ("m", "x".into())]),
            &[("host.name", n.into()), ("src", src), ("k", "v".into())],
        )
    };
    s.take_in(&[entry(1), entry(2)]);
    s.wait(10);
    let entries = s.deliver(Outcome::Delivered);
    assert_eq!(counts(&entries), [(r#"{"m":"x"}"#.into(), 2)]);
    let attributes = &entries[0].attributes;
    assert_eq!(attributes.get("host.name"), None);
    assert_eq!(attributes.get("src"), Some(&map(&[("port", 1.into())])));
    let mut s = Setup::new("exclude_fields: [attributes]");
    s.take_in(&[
        record("x", &[("a", 1.into())]),
        record("x", &[("b", 1.into())]),
    ]);
    s.wait(10);
    assert_eq!(counts(&s.deliver(Outcome::Delivered)), [("x".into(), 2)]);
}

#[test]
fn only_the_fields_that_are_included_count() {
    // source: contrib processor/logdedupprocessor counter.go getLogKey
    let mut s = Setup::new("include_fields: [attributes.id, body.user.name]");
    let entry = |body: &str, id: i64| record(body, &[("id", id.into()), ("n", body.into())]);
    let user = |name: &str, n: i64| {
        record(
            map(&[("user", map(&[("name", name.into())])), ("n", n.into())]),
            &[],
        )
    };
    s.take_in(&[
        entry("a", 1),
        entry("b", 1),
        entry("c", 2),
        user("ann", 1),
        user("ann", 2),
        user("bob", 1),
    ]);
    s.take_in(&[
        record("none", &[]),
        record("none", &[]),
        record("other", &[]),
    ]);
    s.wait(10);
    let counts: Vec<i64> = counts(&s.deliver(Outcome::Delivered))
        .iter()
        .map(|(_, n)| *n)
        .collect();
    assert_eq!(counts, [2, 1, 2, 1, 2, 1]);
}

#[test]
fn records_without_a_condition_that_holds_pass_at_once() {
    // source: contrib processor/logdedupprocessor processor.go ConsumeLogs, README
    let yaml = r#"conditions: ['log.attributes["ID"] == 1', 'resource.attributes["host"] == "other"', 'attributes["ID"] == 5']"#;
    let mut s = Setup::new(yaml);
    let entry = |body: &str, id: i64| record(body, &[("ID", id.into())]);
    s.take_in(&[entry("a", 1), entry("b", 2), entry("a", 1), entry("d", 5)]);
    assert_eq!(counts(&s.deliver(Outcome::Delivered)), [("b".into(), 0)]);
    assert_eq!(
        s.account().0,
        Front::Waiting,
        "the others of the part are not delivered"
    );
    s.take_in(&[entry("c", 3)]);
    assert_eq!(s.deliver(Outcome::Delivered).len(), 1);
    s.wait(10);
    assert_eq!(
        counts(&s.deliver(Outcome::Delivered)),
        [("a".into(), 2), ("d".into(), 1)]
    );
    assert_eq!(s.account(), (Front::Empty, [5, 1, 0]));
}

#[test]
fn a_condition_that_cannot_be_told_does_not_hold() {
    let mut s = Setup::new(r#"conditions: ['Int(log.attributes["a"]["b"]) + 1 == 2']"#);
    s.take_in(&[record("a", &[("a", 1.into())])]);
    assert_eq!(s.deliver(Outcome::Delivered).len(), 1);
}

#[test]
fn the_first_time_is_preserved_if_wanted() {
    let mut s = Setup::new("timestamp_mode: preserved");
    let at = |time: i64| Entry {
        time,
        ..record("a", &[])
    };
    s.take_in(&[at(START_NS - 9_000_000_000), at(START_NS - 5_000_000_000)]);
    s.take_in(&[record("no time", &[])]);
    s.wait(10);
    let entries = s.deliver(Outcome::Delivered);
    assert_eq!(entries[0].time, START_NS - 9_000_000_000);
    let last = entries[0].attributes.get("last_event_timestamp");
    assert_eq!(last, Some(&"2024-10-04T19:21:43Z".into()));
    assert_eq!((entries[1].time, entries[1].observed), (0, START_NS));
    assert_eq!(entries[1].attributes.get("last_event_timestamp"), None);
}

/// Guarantees that a record is acknowledged when the one that it became is delivered, not before, and that
/// all are accounted for, whatever became of it.
#[test]
fn the_duty_of_every_record_ends_with_that_of_the_one_it_became() {
    for (outcome, front, account) in [
        (Outcome::Delivered, Front::Empty, [6, 4, 0]),
        (Outcome::Refused, Front::Empty, [6, 4, 0]),
        (Outcome::Retry, Front::Rewind(Outcome::Retry), [0, 0, 0]),
    ] {
        let mut s = Setup::new("{}");
        s.take_in(&[record("a", &[]), record("a", &[])]);
        s.take_in(&[record("a", &[]), record("b", &[])]);
        s.take_in(&[record("a", &[]), record("b", &[])]);
        assert_eq!(s.account(), (Front::Waiting, [0; 3]));
        s.wait(10);
        assert_eq!(
            s.account(),
            (Front::Waiting, [0; 3]),
            "passed on is not delivered"
        );
        assert_eq!(s.deliver(outcome).len(), 2);
        assert_eq!(s.account(), (front, account), "{outcome:?}");
    }
}

/// Guarantees that what becomes of single records further on is counted for parts that have them.
#[test]
fn drops_further_on_are_shared_out() {
    let mut s = Setup::new("{}");
    s.take_in(&[record("a", &[]), record("a", &[])]);
    s.take_in(&[record("a", &[])]);
    s.take_in(&[record("b", &[]), record("c", &[])]);
    s.wait(10);
    for part in s.out.parts.drain(..) {
        part.ack.count_dropped(DropReason::TooOld, 2);
        part.ack.count_filtered(1);
        part.ack.resolve(Outcome::Delivered);
    }
    assert_eq!(s.account(), (Front::Empty, [5, 3, 2]));
}

/// Guarantees that a stop or a change of the configuration passes on what is held.
#[test]
fn a_flush_passes_on_what_is_held() {
    let mut s = Setup::new("interval: 1h");
    s.take_in(&[record("a", &[]), record("a", &[])]);
    s.processor.flush(&mut s.out);
    assert_eq!(counts(&s.deliver(Outcome::Delivered)), [("a".into(), 2)]);
    assert_eq!(s.account(), (Front::Empty, [2, 1, 0]));
    assert_eq!(s.processor.deadline(), None);
    assert_eq!(s.budget.used_bytes(), 0);
}

/// Guarantees that records which come by different shards become one.
#[test]
fn shards_hold_together() {
    let mut s = Setup::new("{}");
    let mut other = s.sibling();
    s.take_in(&[record("a", &[])]);
    let part = s.part(&[record("a", &[])]);
    other.process(Batch::of(part), &mut s.out);
    assert_eq!(other.deadline(), s.processor.deadline());
    s.wait(10);
    assert_eq!(counts(&s.deliver(Outcome::Delivered)), [("a".into(), 2)]);
    assert_eq!(other.deadline(), None);
    assert_eq!(s.account(), (Front::Empty, [2, 1, 0]));
}

/// Guarantees that held records count as memory under way, and are passed on early where they take too much.
#[test]
fn memory_is_bounded_and_counted() {
    let mut s = Setup::new("held_bytes_max: 64KiB");
    let mut most = 0;
    for n in 0..2000 {
        s.take_in(&[record(format!("{n:01000}"), &[])]);
        most = most.max(s.shared.held().bytes());
        if n == 3 {
            assert_eq!(s.budget.used_bytes(), s.shared.held().bytes());
            assert!(s.budget.used_bytes() > 4000);
        }
        s.deliver(Outcome::Delivered);
    }
    assert!(most < 80 << 10, "{most}");
    s.wait(10);
    s.deliver(Outcome::Delivered);
    assert_eq!(s.account(), (Front::Empty, [2000, 0, 0]));
    assert_eq!(s.budget.used_bytes(), 0);
    // A million of the same take no more than one.
    let entries = vec![record("same", &[]); 1000];
    for _ in 0..30 {
        s.take_in(&entries);
    }
    assert!(s.shared.held().bytes() < 4096);
    assert!(s.out.parts.is_empty());
}

/// Guarantees that a source does not have to pause until the interval ends: before it has all under way that it
/// may have, records are passed on, and the sum of the counts is that of the records.
#[test]
fn a_busy_source_does_not_wait_for_the_interval() {
    let mut s = Setup::new("interval: 1h");
    let mut sum = 0;
    for _ in 0..100 {
        s.take_in(&[record("a", &[])]);
        let entries = s.deliver(Outcome::Delivered);
        sum += counts(&entries).iter().map(|(_, n)| n).sum::<i64>();
        s.account();
        assert!(s.window.len() < 64, "a source of files would pause");
    }
    s.processor.flush(&mut s.out);
    sum += counts(&s.deliver(Outcome::Delivered))
        .iter()
        .map(|(_, n)| n)
        .sum::<i64>();
    assert_eq!(sum, 100);
    // Many sources with little each do wait.
    let mut s = Setup::new("interval: 1h");
    for key in 0..1000 {
        let mut part = s.part(&[record("a", &[])]);
        let token = AckToken::new(Arc::new(NoSink), key);
        std::mem::replace(&mut part.ack, token).resolve(Outcome::Delivered);
        s.processor.process(Batch::of(part), &mut s.out);
    }
    assert!(s.out.parts.is_empty());
    s.processor.flush(&mut s.out);
    assert_eq!(counts(&s.deliver(Outcome::Delivered)), [("a".into(), 1000)]);
}

/// Guarantees of `acknowledge: held` that senders are answered at once, and that what comes back is
/// held again with its count.
#[test]
fn held_records_that_come_back_are_held_again() {
    let mut s = Setup::new("acknowledge: held");
    s.take_in(&[record("a", &[]), record("a", &[])]);
    assert_eq!(s.account(), (Front::Empty, [2, 1, 0]));
    s.wait(10);
    s.deliver(Outcome::Retry);
    s.take_in(&[record("a", &[]), record("b", &[])]);
    s.wait(10);
    let entries = s.deliver(Outcome::Delivered);
    assert_eq!(counts(&entries), [("a".into(), 3), ("b".into(), 1)]);
    assert_eq!(entries[0].observed, START_NS, "since the first of all");
    s.wait(10);
    assert!(s.out.parts.is_empty());
    assert_eq!(s.budget.used_bytes(), 0);
}

struct Tenant(&'static str);

impl AckSink for Tenant {
    fn settled(&self, _key: u64, _outcome: Outcome, _counts: &Counts) {}
    fn client(&self) -> Option<Arc<ClientInfo>> {
        let mut client = ClientInfo::default();
        client.add_metadata("X-Tenant", self.0);
        Some(Arc::new(client))
    }
}

/// Guarantees that records of different senders stay apart if wanted, each with what is known of its sender.
#[test]
fn metadata_keeps_records_apart() {
    let mut s = Setup::new("{metadata_keys: [x-tenant], metadata_cardinality_limit: 2}");
    let tenant = |s: &mut Setup, name| {
        let mut part = s.part(&[record("a", &[])]);
        let token = AckToken::new(Arc::new(Tenant(name)), 0);
        std::mem::replace(&mut part.ack, token).resolve(Outcome::Delivered);
        s.processor.process(Batch::of(part), &mut s.out);
    };
    for name in ["one", "two", "one"] {
        tenant(&mut s, name);
    }
    assert!(s.out.parts.is_empty());
    tenant(&mut s, "three");
    let tenants: Vec<String> = s
        .out
        .parts
        .iter()
        .map(|part| part.ack.client().unwrap().metadata("x-tenant")[0].to_string())
        .collect();
    assert_eq!(tenants, ["one", "two", "three"], "all at the limit");
    let counted: Vec<i64> = counts(&s.deliver(Outcome::Delivered))
        .iter()
        .map(|c| c.1)
        .collect();
    assert_eq!(counted, [2, 1, 1]);
}

/// Guarantees that records with very many different keys do not take memory by the square of their number.
#[test]
fn many_different_keys_are_passed_on_in_several_batches() {
    let mut s = Setup::new("{}");
    for n in 0..20 {
        let keys: Vec<String> = (0..100).map(|i| format!("k{}", n * 100 + i)).collect();
        let entries: Vec<Entry> = keys.iter().map(|k| record("a", &[(k, 1.into())])).collect();
        s.take_in(&entries);
    }
    s.wait(10);
    let cells = |part: &Part| match &part.data {
        tailwater_pipeline::Payload::Logs(logs) => logs.rows() * logs.attributes.len(),
        _ => 0,
    };
    assert!(s.out.parts.iter().all(|p| cells(p) < 300_000));
    assert_eq!(s.deliver(Outcome::Delivered).len(), 2000);
    assert_eq!(s.account(), (Front::Empty, [2000, 0, 0]));
}

#[test]
fn mistakes_are_errors_that_say_where_and_what_is_allowed() {
    for (yaml, want) in [
        ("interval: 0s", "must be greater than 0"),
        ("log_count_attribute: ''", "must be set"),
        (
            "timezone: Mars/Olympus",
            "there is no time zone \"Mars/Olympus\"",
        ),
        (
            "{exclude_fields: [body.a], include_fields: [body.b]}",
            "cannot be used together with exclude_fields",
        ),
        (
            "exclude_fields: [body]",
            "a.yaml:1:18: processors::log_dedup::exclude_fields::0: the whole body cannot be named",
        ),
        (
            "include_fields: [host]",
            "must begin with body or attributes",
        ),
        (
            "include_fields: [attributes]",
            "all attributes cannot be named",
        ),
        (
            "include_fields: [attributes.a, attributes.a]",
            "is there twice",
        ),
        ("include_fields: [attributes..a]", "has an empty name"),
        ("conditions: ['log.attribute[\"a\"] == 1']", "conditions::0"),
        ("metadata_keys: [A, a]", "duplicate entry \"a\""),
        ("timestamp_mode: first", "observed"),
        ("log_count: x", "unknown option \"log_count\""),
    ] {
        let error = config(yaml).err().unwrap_or_default();
        assert!(error.contains(want), "{yaml}: {error}");
    }
    assert_eq!(
        config("{}").unwrap().1.len(),
        1,
        "senders may wait for long"
    );
    for yaml in [
        "interval: 4s",
        "acknowledge: held",
        "acknowledge: delivered",
    ] {
        assert!(config(yaml).unwrap().1.is_empty(), "{yaml}");
    }
}

proptest! {
    /// Guarantees that counts add up to what came for each text, however it came, and that every record is
    /// accounted for.
    #[test]
    fn counts_add_up(parts in proptest::collection::vec(proptest::collection::vec((0u8..5, 0u8..2), 0..20), 0..80), each in 0u64..4) {
        let mut s = Setup::new(r#"conditions: ['body != "4"']"#);
        let mut want: HashMap<String, i64> = HashMap::new();
        let mut got: HashMap<String, i64> = HashMap::new();
        let mut total = [0; 3];
        let mut add = |s: &mut Setup, got: &mut HashMap<String, i64>| {
            for (body, n) in counts(&s.deliver(Outcome::Delivered)) {
                *got.entry(body).or_default() += n.max(1);
            }
            let (_, sum) = s.account();
            (0..3).for_each(|i| total[i] += sum[i]);
            total
        };
        for part in &parts {
            let entries: Vec<Entry> = part.iter().map(|(body, host)| {
                *want.entry(body.to_string()).or_default() += 1;
                let mut entry = record(body.to_string(), &[]);
                entry.resource.insert("host", i64::from(*host));
                entry
            }).collect();
            s.take_in(&entries);
            s.wait(each);
            add(&mut s, &mut got);
        }
        s.processor.flush(&mut s.out);
        let total = add(&mut s, &mut got);
        prop_assert_eq!(&got, &want);
        prop_assert!(s.window.is_empty());
        let passed = got.values().sum::<i64>() as u32;
        prop_assert_eq!(total[0], passed);
        prop_assert_eq!(total[2], 0);
        prop_assert_eq!(s.budget.used_bytes(), 0);
    }
}

/// Guarantees that what text is shared by many records is not held with each of them.
#[test]
fn the_buffer_of_a_read_is_not_held() {
    let mut s = Setup::new("{}");
    let text = vec![b'x'; 1 << 20];
    let logs = LogsBatch::from_lines(Bytes::from(text), &[(0, 10)]);
    let part = Part {
        permit: Permit::none(),
        data: logs.into(),
        ack: AckToken::detached(),
    };
    s.processor.process(Batch::of(part), &mut s.out);
    s.wait(10);
    let held: usize = s.out.parts.iter().map(|p| p.data.heap_bytes()).sum();
    assert!(held < 4096, "{held}");
    s.deliver(Outcome::Delivered);
}
