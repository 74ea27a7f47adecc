//! What answers mean, by the specifications of remote write 1.0 and 2.0.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use tailwater_pipeline::DropReason;
use tailwater_pipeline::clock::Clock;

use crate::client::http_date;
use crate::delivery::{Duty, Judge, OutgoingRequest, Reply, RetryScope, SendError, Verdict};

use super::options::Protocol;
use super::wire::v2_counts;

/// How much of an answer is shown.
const CAUSE_BYTES_MAX: usize = 400;
/// What a receiver of version 2 says of what it has written: samples and histograms.
const WRITTEN: [&str; 2] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
];
/// The same of exemplars.
const EXEMPLARS_WRITTEN: &str = "x-prometheus-remote-write-exemplars-written";
/// For those whose receiver does not know version 2.
const USE_V1: &str = "the receiver does not take version 2 of remote write; set protobuf_message: \
                      prometheus.WriteRequest";

/// Judges the answers of receivers of remote write.
pub(super) struct RemoteWriteJudge {
    /// For `Retry-After`.
    pub clock: Arc<dyn Clock>,
}

impl<D: Duty> Judge<D> for RemoteWriteJudge {
    fn judge(
        &self,
        request: &mut OutgoingRequest<D>,
        result: Result<Reply, SendError>,
    ) -> Verdict<D> {
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => return error.verdict(),
        };
        let after = || {
            let text = reply.headers.get("retry-after")?.to_str().ok()?;
            http_date::retry_after(text, self.clock.wall_ns())
        };
        let cause = cause(&reply);
        match reply.status.as_u16() {
            429 => Verdict::Retry {
                scope: RetryScope::Destination,
                after: after(),
                cause,
            },
            500..=599 => Verdict::Retry {
                scope: RetryScope::Request,
                after: after(),
                cause,
            },
            _ if is_v2(request) => v2(request, &reply, cause),
            200..300 => Verdict::Delivered,
            status => refused(status, cause),
        }
    }
}

/// What a request is, is said by itself: one from a queue on disk may be older than the
/// configuration.
fn is_v2<D>(request: &OutgoingRequest<D>) -> bool {
    let content = request.headers.get(CONTENT_TYPE);
    content.is_some_and(|c| c.as_bytes() == Protocol::V2.content_type().as_bytes())
}

fn refused<D>(status: u16, cause: Arc<str>) -> Verdict<D> {
    let reason = match status {
        413 => DropReason::TooLarge,
        _ => DropReason::Rejected,
    };
    Verdict::Drop { reason, cause }
}

/// An answer to a request of version 2 that is final.
fn v2<D: Duty>(request: &OutgoingRequest<D>, reply: &Reply, cause: Arc<str>) -> Verdict<D> {
    let status = reply.status.as_u16();
    let Some(written) = written(&reply.headers) else {
        // A receiver of version 1 that does not look at the content type finds nothing in it, and
        // answers with success.
        let mistaken = (200..300).contains(&status) || status == 415;
        let cause = match mistaken {
            true => format!("{USE_V1} ({cause})").into(),
            false => cause,
        };
        return refused(status, cause);
    };
    // A success that is one costs no second look at the body: a point is at least one sample.
    if (200..300).contains(&status) && written >= request.items {
        return Verdict::Delivered;
    }
    let missing = match sent(request) {
        Some(sent) => sent.saturating_sub(written),
        // What cannot be read back was not written by this exporter; all of it may be missing.
        None => request.items,
    };
    if missing == 0 {
        return Verdict::Delivered;
    }
    if written == 0 {
        return refused(status, cause);
    }
    // A point of a histogram or summary is several samples, so there may be fewer.
    let dropped = missing.min(request.items);
    tracing::error!(
        dropped_items = dropped,
        error = &*cause,
        reason = DropReason::Rejected.as_str(),
        "The receiver took only a part of a request."
    );
    Verdict::DeliveredExcept {
        dropped: vec![(DropReason::Rejected, dropped)],
    }
}

/// Samples and histograms that the receiver says it has written. `None` if it says nothing about
/// writing.
fn written(headers: &HeaderMap) -> Option<u64> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let counts = WRITTEN.map(number);
    if counts == [None, None] && !headers.contains_key(EXEMPLARS_WRITTEN) {
        return None;
    }
    Some(counts.into_iter().flatten().fold(0, u64::saturating_add))
}

/// Samples and histograms in a request.
fn sent<D: Duty>(request: &OutgoingRequest<D>) -> Option<u64> {
    let body = request.body.concat();
    let message = snap::raw::Decoder::new().decompress_vec(&body).ok()?;
    v2_counts(&message).map(|(samples, _)| samples)
}

fn cause(reply: &Reply) -> Arc<str> {
    let body = String::from_utf8_lossy(&reply.body);
    let body = body.trim();
    let end = (0..=body.len().min(CAUSE_BYTES_MAX))
        .rev()
        .find(|i| body.is_char_boundary(*i));
    let shown = &body[..end.unwrap_or(0)];
    format!("HTTP {}: {shown}", reply.status.as_u16()).into()
}
