//! Answers of Loki, and of whatever stands in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bytes::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};
use tailwater_pipeline::clock::SimClock;

use super::requests::entries;
use crate::delivery::{Acks, Judge, OutgoingRequest, Reply, Verdict};
use crate::loki::body::{BodyWriter, StreamBuffer};
use crate::loki::compress::CompressionEncoder;
use crate::loki::decode::RequestView;
use crate::loki::judge::LokiJudge;
use crate::loki::{parts, wire};

/// Longest cause that is shown, with the status before it.
const CAUSE_BYTES_MAX: usize = 420;

/// Statuses that say nothing about the request itself: nothing is ever given up for them.
const TEMPORARY: [u16; 11] = [401, 402, 403, 404, 405, 407, 408, 425, 429, 503, 260];

/// Statuses that are tried.
const STATUSES: [u16; 24] = [
    200, 204, 260, 302, 400, 401, 402, 403, 404, 405, 407, 408, 409, 413, 415, 422, 425, 429, 500,
    502, 503, 504, 505, 599,
];

/// One answer to a request and to all that it is divided into: entries are delivered, dropped and
/// counted, or kept, each once; nothing is given up for what may pass; causes are short.
///
/// The input: a byte for the status, one for the shape of the request and whether the answer was
/// cut, then `Retry-After` up to a line end, then the body.
pub fn responses(data: &[u8]) {
    let Some(([status, shape], rest)) = data.split_first_chunk() else {
        return;
    };
    let (after, body) = match rest.iter().position(|b| *b == b'\n') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (&[][..], rest),
    };
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    let mut headers = HeaderMap::new();
    if let Ok(value) = after.try_into() {
        headers.insert(RETRY_AFTER, value);
    }
    let reply = Reply {
        status: StatusCode::from_u16(status).expect("in range"),
        headers,
        body: Bytes::copy_from_slice(body),
        truncated: shape & 1 == 1,
    };
    let judge = LokiJudge {
        success: vec![204],
        encoder: CompressionEncoder::Tailwater,
        dead_letters: None,
        clock: Arc::new(SimClock::new(0)),
        parked: Arc::default(),
        rejections: AtomicU32::new(0),
        parkings: AtomicU64::new(0),
    };
    let streams = [[3, 0, 0], [1, 1, 0], [2, 1, 3], [1, 0, 0]][usize::from(shape >> 1) % 4];
    let mut queue = vec![request(&streams)];
    let mut judged = 0;
    while let Some(mut request) = queue.pop() {
        judged += 1;
        assert!(judged < 64, "a conversation ends");
        let verdict = judge.judge(&mut request, Ok(again(&reply)));
        queue.extend(check(status, &request, verdict));
    }
}

/// Checks a verdict, and gives back what the request was divided into.
fn check(
    status: u16,
    request: &OutgoingRequest<Acks>,
    verdict: Verdict<Acks>,
) -> Vec<OutgoingRequest<Acks>> {
    let temporary = TEMPORARY.contains(&status);
    match verdict {
        Verdict::Delivered => assert_eq!(status, 204),
        Verdict::DeliveredExcept { dropped } => {
            assert!(status == 400, "{status}");
            let dropped: u64 = dropped.iter().map(|(_, n)| n).sum();
            assert!(dropped <= request.items);
        }
        Verdict::Drop { cause, .. } => {
            assert!(!temporary && status >= 400 && cause.len() <= CAUSE_BYTES_MAX);
        }
        Verdict::Retry { cause, .. } | Verdict::Hold { cause, .. } => {
            assert!(status != 204 && cause.len() <= CAUSE_BYTES_MAX);
        }
        Verdict::Replace { parts, dropped } => {
            assert!(dropped.is_empty());
            let view = |r: &OutgoingRequest<Acks>| RequestView::decode(&r.body).expect("our own");
            let mut want = entries(&view(request));
            let mut got: Vec<_> = parts.iter().flat_map(|p| entries(&view(p))).collect();
            want.sort();
            got.sort();
            assert_eq!(got, want);
            assert_eq!(parts.iter().map(|p| p.items).sum::<u64>(), request.items);
            assert!(parts.len() > 1 && parts.iter().all(|p| p.items > 0));
            return parts;
        }
    }
    Vec::new()
}

fn again(reply: &Reply) -> Reply {
    Reply {
        status: reply.status,
        headers: reply.headers.clone(),
        body: reply.body.clone(),
        truncated: reply.truncated,
    }
}

/// A request with streams of the given numbers of entries.
fn request(streams: &[usize]) -> OutgoingRequest<Acks> {
    let mut writer = BodyWriter::new(CompressionEncoder::Tailwater, i64::MAX);
    let mut buffers = Vec::new();
    for n in streams.iter().filter(|n| **n > 0) {
        let mut buffer = StreamBuffer::default();
        for i in 0..*n {
            let line = [b"a line", &b"a longer line"[..]][i % 2];
            writer.push(&mut buffer, i as i64, &[line], &[]);
        }
        let labels = format!("{{stream=\"{}\"}}", buffers.len());
        buffers.push((labels, buffer));
    }
    let len =
        |(labels, b): &(String, StreamBuffer)| wire::stream_len(labels.len(), b.entries_bytes());
    writer.begin(buffers.iter().map(len).sum());
    for (labels, buffer) in &mut buffers {
        writer.stream(labels, buffer);
    }
    let lanes = buffers
        .iter()
        .map(|(labels, _)| parts::lane(None, labels))
        .collect();
    let items = streams.iter().sum::<usize>() as u64;
    OutgoingRequest::new(
        writer.end(),
        Arc::default(),
        None,
        lanes,
        items,
        Acks::new(),
    )
}
