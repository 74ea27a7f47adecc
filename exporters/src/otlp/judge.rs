//! What an answer means, by the tables of the collector's exporters.
//!
//! | HTTP | gRPC | what is done |
//! |---|---|---|
//! | 2xx | `OK` | sent; what a partial success rejects is counted and logged |
//! | 429, 502, 503, 504, no answer | `CANCELLED`, `DEADLINE_EXCEEDED`, `ABORTED`, `OUT_OF_RANGE`, `UNAVAILABLE`, `DATA_LOSS`, and `RESOURCE_EXHAUSTED` with a `RetryInfo` | sent again; `Retry-After` (429, 503) and `RetryInfo` are a floor for the wait |
//! | 413 | a message is larger than the server takes | sent again in halves; what is alone is given up as `too_large` |
//! | 3xx | | held: the address is not right |
//! | anything else | anything else | given up as `rejected` |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use tailwater_pdata::Signal;
use tailwater_pipeline::DropReason;
use tailwater_pipeline::clock::Clock;
use tailwater_telemetry::metrics::PartialSuccessMetrics;

use crate::client::{GRPC_ENCODING, MESSAGE_BYTES_MAX, http_date, message};
use crate::delivery::{Duty, Judge, OutgoingRequest, Reply, RetryScope, SendError, Verdict};

use super::answer::{Broken, PartialSuccess, RpcStatus, percent_decoded, shown};
use super::compress::decompress;
use super::packing::{Carrier, JSON, PROTOBUF, Packing};

/// Requests are never made smaller than this for having been too large.
const LEARNED_BYTES_MIN: usize = 64 << 10;

/// What is done about answers that say that the configuration is wrong: credentials, addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnConfigurationError {
    /// As the collector does it: the request is given up.
    #[default]
    Drop,
    /// Everything is kept, with an alarm, and tried again slowly.
    Hold,
}

pub(super) struct OtlpJudge {
    pub name: Arc<str>,
    pub carrier: Carrier,
    pub packing: Packing,
    pub on_configuration_error: OnConfigurationError,
    /// Bytes of a request before compression that the destination takes, as far as is known.
    pub bytes_max: Arc<AtomicUsize>,
    /// For `Retry-After`.
    pub clock: Arc<dyn Clock>,
    pub partial: Arc<PartialSuccessMetrics>,
}

impl<D: Duty> Judge<D> for OtlpJudge {
    fn judge(
        &self,
        request: &mut OutgoingRequest<D>,
        result: Result<Reply, SendError>,
    ) -> Verdict<D> {
        match (result, self.carrier) {
            (Err(e), _) => e.verdict(),
            (Ok(reply), Carrier::Http) => self.http(request, &reply),
            (Ok(reply), Carrier::Grpc) => self.grpc(request, &reply),
        }
    }
}

/// What to do about a status that is not a success.
enum Failure {
    Retry(RetryScope, Option<Duration>),
    TooLarge,
    Configuration,
    Address,
    Permanent,
}

impl OtlpJudge {
    fn http<D: Duty>(&self, request: &mut OutgoingRequest<D>, reply: &Reply) -> Verdict<D> {
        let kind = reply.headers.get(CONTENT_TYPE);
        let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        let status = reply.status.as_u16();
        if (200..300).contains(&status) {
            let said = match kind {
                _ if reply.body.is_empty() => Ok(PartialSuccess::default()),
                _ if PROTOBUF == kind => PartialSuccess::of_proto(&reply.body),
                _ if JSON == kind => PartialSuccess::of_json(&reply.body),
                _ => Ok(PartialSuccess::default()),
            };
            return self.accepted(said);
        }
        let after = || {
            let value = reply.headers.get(RETRY_AFTER)?.to_str().ok()?;
            http_date::retry_after(value, self.clock.wall_ns())
        };
        let failure = match status {
            429 => throttled(RetryScope::Request, after()),
            503 => Failure::Retry(RetryScope::Destination, after()),
            502 | 504 => Failure::Retry(RetryScope::Request, None),
            413 => Failure::TooLarge,
            300..=399 => Failure::Address,
            401 | 403..=405 | 407 => Failure::Configuration,
            _ => Failure::Permanent,
        };
        let text = match kind {
            _ if PROTOBUF == kind => RpcStatus::of_proto(&reply.body).ok(),
            _ if JSON == kind => RpcStatus::of_json(&reply.body),
            _ => None,
        };
        let text = text.map(|s| s.message).unwrap_or_else(|| {
            let plain = kind.is_empty() || kind == "text/plain";
            let body = plain.then(|| String::from_utf8_lossy(&reply.body));
            shown(body.unwrap_or_default().trim())
        });
        let mut cause = format!("HTTP status {}", reply.status);
        if !text.is_empty() {
            cause = format!("{cause}: {text}");
        }
        self.failed(request, failure, &cause)
    }

    fn grpc<D: Duty>(&self, request: &mut OutgoingRequest<D>, reply: &Reply) -> Verdict<D> {
        let header = |name: &str| reply.headers.get(name).map(|v| v.as_bytes());
        let code = header("grpc-status").and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
        let code: u32 = match (code, reply.status.as_u16()) {
            (Some(code), _) => code,
            // Cut off, by something in between: nothing is known about the request.
            (None, 200) => {
                let cause = "the answer ended without a gRPC status".into();
                return retry(RetryScope::Request, None, cause);
            }
            (None, status) => code_of_http(status),
        };
        if code == 0 {
            return self.accepted(self.grpc_message(&reply.headers, &reply.body));
        }
        let details = header("grpc-status-details-bin").and_then(RpcStatus::of_header);
        let mut text = header("grpc-message")
            .map(percent_decoded)
            .unwrap_or_default();
        let delay = details.as_ref().and_then(|d| d.retry_delay);
        if let Some(d) = details.filter(|_| text.is_empty()) {
            text = d.message;
        }
        let after = delay.filter(|d| !d.is_zero());
        let failure = match code {
            8 | 11 if says_too_large(&text) => Failure::TooLarge,
            8 if delay.is_some() => throttled(RetryScope::Request, after),
            14 => Failure::Retry(RetryScope::Destination, after),
            1 | 4 | 10 | 11 | 15 => throttled(RetryScope::Request, after),
            7 | 12 | 16 => Failure::Configuration,
            _ => Failure::Permanent,
        };
        let mut cause = format!("gRPC status {}", code_name(code));
        if header("grpc-status").is_none() {
            cause = format!("HTTP status {} ({cause})", reply.status);
        }
        if !text.is_empty() {
            cause = format!("{cause}: {text}");
        }
        self.failed(request, failure, &cause)
    }

    /// The message of an answer. It may be compressed as the request was.
    fn grpc_message(&self, headers: &HeaderMap, body: &Bytes) -> Result<PartialSuccess, Broken> {
        if body.is_empty() {
            return Ok(PartialSuccess::default());
        }
        let (compressed, message) = message(body).ok_or(Broken)?;
        if !compressed {
            return PartialSuccess::of_proto(&message);
        }
        let name = headers.get(GRPC_ENCODING).and_then(|v| v.to_str().ok());
        let plain = decompress(name.unwrap_or(""), &message, MESSAGE_BYTES_MAX);
        PartialSuccess::of_proto(&plain.map_err(|_| Broken)?)
    }

    /// The server took the request.
    fn accepted<D>(&self, said: Result<PartialSuccess, Broken>) -> Verdict<D> {
        let said = match said {
            Ok(said) => said,
            Err(Broken) => {
                return Verdict::Drop {
                    reason: DropReason::Rejected,
                    cause: "the answer says success and cannot be read".into(),
                };
            }
        };
        if !said.is_empty() {
            let rejected = u64::try_from(said.rejected).unwrap_or(0);
            self.partial.rejected.inc_by(rejected);
            let (exporter, error) = (&*self.name, said.message.as_str());
            match self.packing.signal() {
                Signal::Logs => tracing::warn!(
                    exporter,
                    error,
                    dropped_log_records = rejected,
                    "Partial success response"
                ),
                Signal::Metrics => tracing::warn!(
                    exporter,
                    error,
                    dropped_data_points = rejected,
                    "Partial success response"
                ),
                Signal::Traces => tracing::warn!(
                    exporter,
                    error,
                    dropped_spans = rejected,
                    "Partial success response"
                ),
            }
        }
        Verdict::Delivered
    }

    fn failed<D: Duty>(
        &self,
        request: &mut OutgoingRequest<D>,
        failure: Failure,
        cause: &str,
    ) -> Verdict<D> {
        let hold = self.on_configuration_error == OnConfigurationError::Hold;
        match failure {
            Failure::Retry(scope, after) => retry(scope, after, cause.into()),
            Failure::TooLarge => self.halve(request, cause),
            Failure::Configuration if hold => held(cause),
            Failure::Address => held(cause),
            Failure::Configuration | Failure::Permanent => Verdict::Drop {
                reason: DropReason::Rejected,
                cause: cause.into(),
            },
        }
    }

    /// The request was too large: its halves take its place. Later ones are made smaller.
    fn halve<D: Duty>(&self, request: &mut OutgoingRequest<D>, cause: &str) -> Verdict<D> {
        let drop = |reason, cause: &str| Verdict::Drop {
            reason,
            cause: cause.into(),
        };
        if request.items <= 1 {
            return drop(DropReason::TooLarge, cause);
        }
        let packing = self.packing.of(&request.headers);
        let whole = match packing.unpack(&request.body) {
            Ok(whole) => whole,
            Err(e) => return drop(DropReason::EncodeError, &format!("{cause}; {e}")),
        };
        let smaller = (whole.len() / 2).max(LEARNED_BYTES_MIN);
        self.bytes_max.fetch_min(smaller, Ordering::Relaxed);
        let mut parts = Vec::new();
        for half in whole.split(request.items.div_ceil(2) as usize) {
            let items = half.items() as u64;
            match packing.pack(&half) {
                Ok(body) if items > 0 => parts.push(request.part(body, Vec::new(), items)),
                Ok(_) => {}
                Err(e) => return drop(DropReason::EncodeError, &format!("{cause}; {e}")),
            }
        }
        Verdict::Replace {
            parts,
            dropped: Vec::new(),
        }
    }
}

/// Who says how long to wait means everything that comes.
fn throttled(scope: RetryScope, after: Option<Duration>) -> Failure {
    match after {
        Some(_) => Failure::Retry(RetryScope::Destination, after),
        None => Failure::Retry(scope, None),
    }
}

fn retry<D>(scope: RetryScope, after: Option<Duration>, cause: Arc<str>) -> Verdict<D> {
    Verdict::Retry {
        scope,
        after,
        cause,
    }
}

fn held<D>(cause: &str) -> Verdict<D> {
    Verdict::Hold {
        scope: RetryScope::Destination,
        wait: None,
        cause: cause.into(),
    }
}

/// Whether an error is about the size of the message. There is no code for it: these are the words
/// of grpc-go and the C core, grpc-java, .NET and tonic.
fn says_too_large(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "larger than max",
        "exceeds maximum size",
        "exceeds the maximum",
        "message length too large",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// The code for an answer that is no gRPC answer, as gRPC's document on HTTP/2 has it.
fn code_of_http(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let name = NAMES.get(code as usize);
    name.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
