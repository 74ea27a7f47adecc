//! From batches to requests.

mod entries;
mod labels;
mod requests;

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use proptest::prelude::*;
use tailwater_pdata::{Column, Entry, Map, Slice, Times, Value};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::SimClock;
use tailwater_pipeline::{AckWindow, Front, Permit};

use super::super::options::{DeliveryMode, LabelMapping, LabelOptions, Limits, MetadataOptions};
use super::super::wire::oracle;
use super::*;

const NOW: i64 = 1_763_909_608_000_000_000;
const HOUR: i64 = 3_600_000_000_000;

#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<OutgoingRequest<Acks>>>>);

impl Outlet for Sent {
    fn submit(&self, request: OutgoingRequest<Acks>) {
        self.0.lock().unwrap().push(request);
    }

    fn admission(&self) -> Admission {
        Admission::Open
    }
}

struct Rig {
    front: LokiFront<Sent>,
    sent: Sent,
    window: AckWindow<u64>,
    shared: Arc<Shared>,
}

fn rig(options: LokiOptions) -> Rig {
    rig_with(options, None)
}

fn rig_with(options: LokiOptions, dead_letters: Option<Arc<DeadLetters>>) -> Rig {
    let shared = Arc::new(Shared {
        dead_letters,
        budget: None,
        stats: Arc::default(),
        parked: Arc::default(),
        streams: AtomicUsize::new(0),
        clock: Arc::new(SimClock::new(NOW)),
        options,
    });
    let sent = Sent::default();
    Rig {
        front: LokiFront::new(shared.clone(), sent.clone()),
        sent,
        window: AckWindow::new(Arc::new(NoSink), 0),
        shared,
    }
}

fn mapping() -> LokiOptions {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    LokiOptions {
        labels: LabelOptions::Mapping(LabelMapping {
            fixed: vec![pair("cluster", "c1")],
            resource: vec![pair("pod", "k8s.pod.name")],
            attributes: vec![pair("stream", "log.iostream")],
            severity: None,
        }),
        line_format: LineFormat::Raw,
        structured_metadata: MetadataOptions::all(),
        ..LokiOptions::default()
    }
}

/// One message of a request: tenant and streams with their entries.
type Message = (Option<String>, Vec<(String, Vec<oracle::Entry>)>);

impl Rig {
    fn export(&mut self, logs: LogsBatch) {
        let rows = logs.rows() as u32;
        let ack = self.window.reserve(0, rows, 1);
        let permit = Permit::none();
        let batch = Batch::of(LogsPart { logs, ack, permit });
        self.front.export(batch, Mono(1));
    }

    /// Closes what is open and takes all requests.
    fn take(&mut self) -> Vec<OutgoingRequest<Acks>> {
        self.front.flush(Mono(1));
        std::mem::take(&mut *self.sent.0.lock().unwrap())
    }

    /// As messages; every request is resolved as delivered.
    fn messages(&mut self) -> Vec<Message> {
        use crate::delivery::Duty;
        let mut out = Vec::new();
        for request in self.take() {
            let push = oracle::decode(&request.body.concat());
            let entries: usize = push.streams.iter().map(|s| s.entries.len()).sum();
            assert_eq!(request.items, entries as u64);
            assert_eq!(request.lanes.len(), push.streams.len());
            let tenant = request.tenant.as_deref().map(str::to_owned);
            let header = request.headers.get("x-scope-orgid");
            assert_eq!(header.map(|h| h.to_str().unwrap()), tenant.as_deref());
            let streams = push.streams.into_iter().map(|s| (s.labels, s.entries));
            out.push((tenant, streams.collect()));
            request.duty.resolve(Outcome::Delivered);
        }
        out
    }

    fn settled(&mut self) -> (Front, u32) {
        let mut dropped = 0;
        let front = self.window.advance(|s| dropped += s.counts.dropped_total());
        (front, dropped)
    }
}

fn entry(body: &str) -> Entry {
    Entry {
        time: NOW,
        body: body.into(),
        ..Entry::default()
    }
}

fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(k, v)| (*k, Value::str(v))).collect()
}

fn lines(message: &Message) -> Vec<(String, Vec<String>)> {
    let text = |e: &oracle::Entry| String::from_utf8(e.line.clone()).unwrap();
    let stream = |(labels, entries): &(String, Vec<oracle::Entry>)| {
        (labels.clone(), entries.iter().map(text).collect())
    };
    message.1.iter().map(stream).collect()
}

/// The entries of all messages by stream, in order.
fn by_stream(messages: &[Message]) -> Vec<(String, Vec<oracle::Entry>)> {
    let mut out: Vec<(String, Vec<oracle::Entry>)> = Vec::new();
    for (labels, entries) in messages.iter().flat_map(|m| &m.1) {
        match out.iter_mut().find(|(l, _)| l == labels) {
            Some((_, all)) => all.extend_from_slice(entries),
            None => out.push((labels.clone(), entries.clone())),
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn pairs(entry: &oracle::Entry) -> Vec<(String, String)> {
    let pair = |p: &oracle::Pair| (p.name.clone(), p.value.clone());
    entry.metadata.iter().map(pair).collect()
}

/// What becomes of `batches`: tenant, labels and line of every entry, in order within streams.
pub(crate) fn export_all(
    options: LokiOptions,
    batches: Vec<LogsBatch>,
) -> Vec<(Option<String>, String, String)> {
    let mut rig = rig(options);
    batches.into_iter().for_each(|logs| rig.export(logs));
    let mut out = Vec::new();
    for message in rig.messages() {
        for (labels, texts) in lines(&message) {
            let entry = |line| (message.0.clone(), labels.clone(), line);
            out.extend(texts.into_iter().map(entry));
        }
    }
    out
}
