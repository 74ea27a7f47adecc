//! `GET /v1/tap`: what passes an edge of the graph, as lines of JSON.
//!
//! Each tap has a thread of its own that looks into what was sampled. It waits for nobody: what the
//! client does not take in time is left out and counted.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use serde_json::json;
use tailwater_config::nearest;
use tailwater_pdata::otlp::{PickLimits, Picked};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::tap::{Edge, Next, NoTap, Passed, Probe, RATE_MAX, Sample, Side, Tap};
use tailwater_telemetry::rfc3339_nano;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::handlers::{Api, Reply, error, set};

/// How much of a record is shown.
const SHOWN: PickLimits = PickLimits {
    text_bytes: 8 << 10,
    bytes: 32 << 10,
};
/// Bytes of lines that wait for the client.
const LINES_BYTES_MAX: usize = 1 << 20;
/// How often it is said how much passed.
const COUNTS_INTERVAL: Duration = Duration::from_secs(1);
/// For how long a client may take what is left when a tap is over.
const REST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer waits until a tap is in place, which takes longer only where a shard hangs.
const PLACED_MAX: Duration = Duration::from_secs(1);
/// The longest tap, in seconds.
const SECONDS_MAX: u64 = 3_600;
/// The most records of a tap.
const LIMIT_MAX: u64 = 1_000_000;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    node: String,
    side: Option<Side>,
    rate: u32,
    limit: Option<u64>,
    seconds: u64,
}

impl Query {
    fn of(text: &str) -> Result<Query, String> {
        let mut query = Query {
            node: String::new(),
            side: None,
            rate: 10,
            limit: None,
            seconds: 60,
        };
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if seen.contains(&name) {
                return Err(format!("{name} is in the query twice"));
            }
            match &*name {
                "node" => query.node = value.into_owned(),
                "side" => {
                    query.side = Some(match &*value {
                        "in" => Side::In,
                        "out" => Side::Out,
                        _ => return Err("side must be in or out".to_owned()),
                    });
                }
                "rate" => {
                    let rate = number("rate", &value, u64::from(RATE_MAX))?;
                    query.rate = u32::try_from(rate).unwrap_or(RATE_MAX);
                }
                "limit" => query.limit = Some(number("limit", &value, LIMIT_MAX)?),
                "seconds" => query.seconds = number("seconds", &value, SECONDS_MAX)?,
                _ => {
                    return Err(format!(
                        "the query may hold node, side, rate, limit and seconds, not {name:?}"
                    ));
                }
            }
            seen.push(name);
        }
        match query.node.is_empty() {
            true => Err("node is missing: the key of a node, as GET /v1/graph has it".to_owned()),
            false => Ok(query),
        }
    }
}

/// A whole number from 1 on.
fn number(name: &str, text: &str, max: u64) -> Result<u64, String> {
    let number = text.parse().ok();
    number
        .filter(|n| (1..=max).contains(n) && text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| format!("{name} must be a whole number from 1 to {max}"))
}

fn refused(why: NoTap) -> Reply {
    let text = why.to_string();
    match why {
        NoTap::TooMany => error(StatusCode::TOO_MANY_REQUESTS, &text),
        NoTap::NothingPasses(_) => error(StatusCode::UNPROCESSABLE_ENTITY, &text),
        NoTap::Stopping => error(StatusCode::SERVICE_UNAVAILABLE, &text),
        NoTap::NoNode(node, _, known) => {
            let text = match nearest(&node, known.iter().map(String::as_str)) {
                Some(key) => format!("{text}; did you mean {key:?}?"),
                None => format!("{text}; GET /v1/graph lists them"),
            };
            error(StatusCode::NOT_FOUND, &text)
        }
    }
}

/// Says of a reply how long it may take, and ends it before.
#[derive(Clone)]
pub struct Streams {
    /// When it is over at the latest.
    pub until: Instant,
    /// Of the tap.
    pub probe: Arc<Probe>,
}

/// Opens a tap; `by` says which way it was asked for, for the log.
pub async fn open(api: &Api, query: &str, by: &'static str) -> Result<Reply, Reply> {
    let query = Query::of(query).map_err(|text| error(StatusCode::BAD_REQUEST, &text))?;
    let tap = api
        .taps
        .open(&query.node, query.side, query.rate)
        .map_err(refused)?;
    // Who has an answer sees what passes from then on.
    let begin = Instant::now();
    while !tap.is_in_place() && begin.elapsed() < PLACED_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let probe = tap.probe();
    let queued = Arc::new(AtomicUsize::new(0));
    let (lines, waiting) = unbounded_channel();
    let lasts = Duration::from_secs(query.seconds);
    let until = Instant::now() + lasts;
    let reader = Reader {
        tap,
        clock: api.clock.clone(),
        lines: Lines {
            lines,
            queued: queued.clone(),
        },
        shown: 0,
        limit: query.limit.unwrap_or(u64::MAX),
        until,
    };
    let thread = std::thread::Builder::new().name("tap".into());
    if let Err(e) = thread.spawn(move || reader.run(lasts)) {
        let text = format!("there is no thread for a tap: {e}");
        return Err(error(StatusCode::SERVICE_UNAVAILABLE, &text));
    }
    tracing::info!(
        by,
        node = query.node,
        seconds = query.seconds,
        "a tap is open"
    );
    let body = Stream {
        waiting,
        queued,
        probe: probe.clone(),
        open: api.streams.clone(),
    };
    body.open.fetch_add(1, Ordering::AcqRel);
    let mut reply = Response::new(ReplyBody::Lines(body));
    set(&mut reply, CONTENT_TYPE, "application/x-ndjson");
    set(&mut reply, CACHE_CONTROL, "no-store");
    let until = until + REST_TIMEOUT;
    reply.extensions_mut().insert(Streams { until, probe });
    Ok(reply)
}

/// Where lines for the client are put.
struct Lines {
    lines: UnboundedSender<Bytes>,
    /// Bytes of those that wait.
    queued: Arc<AtomicUsize>,
}

impl Lines {
    fn is_full(&self) -> bool {
        self.queued.load(Ordering::Acquire) >= LINES_BYTES_MAX
    }

    fn put(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        self.queued.fetch_add(line.len(), Ordering::AcqRel);
        // A client that has gone is noticed by the tap.
        let _ = self.lines.send(line.into());
    }
}

/// Reads from a tap, for a client.
struct Reader {
    tap: Tap,
    clock: Arc<dyn Clock>,
    lines: Lines,
    /// Records that were.
    shown: u64,
    limit: u64,
    until: Instant,
}

impl Reader {
    fn run(mut self, lasts: Duration) {
        let why = self.read(lasts);
        self.put_counts();
        self.lines.put(json!({"end": why}).to_string().into_bytes());
    }

    /// Until it is over; says why it is.
    fn read(&mut self, lasts: Duration) -> String {
        let mut counted = Instant::now();
        loop {
            let now = Instant::now();
            if now >= self.until {
                return format!("{} s are over", lasts.as_secs());
            }
            if now >= counted + COUNTS_INTERVAL {
                counted = now;
                if !self.lines.is_full() {
                    self.put_counts();
                }
            }
            let next = self.until.min(counted + COUNTS_INTERVAL);
            match self.tap.next(next.saturating_duration_since(now)) {
                Next::Quiet => {}
                Next::Ended(why) => return why,
                Next::Sample(sample) => self.show(sample),
            }
            if self.shown >= self.limit {
                return format!("{} records were shown, as asked for", self.shown);
            }
        }
    }

    fn show(&mut self, mut sample: Sample) {
        if self.lines.is_full() {
            self.tap.miss(sample.items.len() as u64);
            return;
        }
        let left = usize::try_from(self.limit - self.shown).unwrap_or(usize::MAX);
        sample.items.truncate(left);
        let ago = self.clock.now().since(sample.at).as_nanos();
        let passed = self.clock.wall_ns() - i64::try_from(ago).unwrap_or(0);
        let signal = sample.data.signal().as_str();
        for picked in sample.data.pick(&sample.items, SHOWN) {
            if self.lines.is_full() {
                self.tap.miss(1);
                continue;
            }
            self.lines
                .put(record(signal, &sample.edge, passed, &picked));
            self.shown += 1;
        }
    }

    fn put_counts(&self) {
        let Passed { all, missed } = self.tap.passed();
        let left_out = all.saturating_sub(self.shown);
        let line = json!({"passed": all, "left_out": left_out, "missed": missed});
        self.lines.put(line.to_string().into_bytes());
    }
}

/// The line of a record.
fn record(signal: &str, edge: &Edge, passed_ns: i64, picked: &Picked) -> Vec<u8> {
    let head = json!({
        "signal": signal,
        "time": rfc3339_nano(passed_ns),
        "edge": {
            "from": edge.from,
            "to": edge.to,
            "pipeline": &*edge.pipeline,
            "exporter": &*edge.exporter,
        },
        "truncated": picked.is_cut(),
    });
    let head = head.to_string();
    let mut line = b"{\"record\":".to_vec();
    // The rest of its members comes before its end.
    line.extend_from_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
    line.push(b',');
    picked.write_json(&mut line);
    line.extend_from_slice(b"}}");
    line
}

/// Lines on their way to a client.
pub struct Stream {
    waiting: UnboundedReceiver<Bytes>,
    queued: Arc<AtomicUsize>,
    probe: Arc<Probe>,
    /// Counts those that are not at their end.
    open: Arc<AtomicUsize>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.probe.end("the client has gone");
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is answered: all at once, or as it comes.
pub enum ReplyBody {
    /// All of it.
    Whole(Full<Bytes>),
    /// Lines of a tap.
    Lines(Stream),
}

impl From<Full<Bytes>> for ReplyBody {
    fn from(whole: Full<Bytes>) -> ReplyBody {
        ReplyBody::Whole(whole)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            ReplyBody::Whole(whole) => Pin::new(whole).poll_frame(cx),
            ReplyBody::Lines(stream) => stream.waiting.poll_recv(cx).map(|line| {
                let line = line?;
                stream.queued.fetch_sub(line.len(), Ordering::AcqRel);
                Some(Ok(Frame::data(line)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Whole(whole) => whole.is_end_stream(),
            ReplyBody::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(whole) => whole.size_hint(),
            ReplyBody::Lines(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tailwater_pdata::Signal;
    use tailwater_pdata::otlp::{Encoded, Limits};

    #[test]
    fn queries_are_read_strictly() {
        let query = Query::of("node=processor+batch%20in%20logs&side=out&rate=7&limit=3&seconds=9");
        let want = Query {
            node: "processor batch in logs".into(),
            side: Some(Side::Out),
            rate: 7,
            limit: Some(3),
            seconds: 9,
        };
        assert_eq!(query, Ok(want));
        let plain = Query::of("node=x").unwrap();
        let rest = (plain.side, plain.rate, plain.limit, plain.seconds);
        assert_eq!(rest, (None, 10, None, 60));
        for (text, said) in [
            ("", "node is missing"),
            ("node=", "node is missing"),
            ("node=x&side=both", "in or out"),
            ("node=x&rate=0", "1 to 1000"),
            ("node=x&rate=1001", "1 to 1000"),
            ("node=x&rate=+5", "rate must be"),
            ("node=x&limit=-1", "limit must be"),
            ("node=x&seconds=3601", "1 to 3600"),
            ("node=x&node=y", "twice"),
            ("node=x&dry_run=true", "\"dry_run\""),
        ] {
            let refused = Query::of(text).unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }

    /// Guarantee: a line is one JSON object without line ends, with what OTLP/JSON says of the record.
    #[test]
    fn a_record_is_one_line() {
        let json = br#"{"resourceLogs":[{"resource":{"attributes":[{"key":"a","value":{"intValue":"1"}}]},
            "scopeLogs":[{"scope":{"name":"s"},"logRecords":[{"body":{"stringValue":"x\ny}"}}]}]}]}"#;
        let limits = Limits::default();
        let body = tailwater_pdata::otlp::json::to_proto(Signal::Logs, json, &limits).unwrap();
        let logs = Encoded::parse(Signal::Logs, body, &limits).unwrap();
        let edge = Edge {
            from: "pipeline logs".into(),
            to: "exporter loki/}} (logs)".into(),
            pipeline: "logs".into(),
            exporter: "loki/}}".into(),
        };
        let line = record("logs", &edge, 0, &logs.pick(&[0], SHOWN)[0]);
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert!(!line.contains(&b'\n'));
        let record = &value["record"];
        assert_eq!(record["signal"], "logs");
        assert_eq!(record["time"], "1970-01-01T00:00:00Z");
        assert_eq!(record["edge"]["to"], "exporter loki/}} (logs)");
        assert_eq!(record["truncated"], false);
        assert_eq!(
            record["resource"]["attributes"][0]["value"]["intValue"],
            "1"
        );
        assert_eq!(record["scope"]["name"], "s");
        assert_eq!(record["logRecord"]["body"]["stringValue"], "x\ny}");
    }
}
