//! What this exporter must do with any bytes. Bodies of fuzz targets: they panic where it does not
//! hold.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits};
use tailwater_pipeline::clock::SystemClock;
use tailwater_telemetry::metrics::{
    Exposition, MetricsRegistry, PartialSuccessMetrics, SERIES_MAX_DEFAULT,
};

use super::compress::Compression;
use super::judge::{OnConfigurationError, OtlpJudge};
use super::packing::{Carrier, Form, Packing};
use crate::delivery::{Acks, Judge, OutgoingRequest, Reply, Verdict};

/// Headers that an input may set.
const NAMES: [&str; 6] = [
    "content-type",
    "retry-after",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-encoding",
];
const ITEMS: u64 = 5;

/// Any answer: `data` is the carrier and the status (two bytes), then lines, each the number of a
/// header and its value, up to an empty one, then the body. Each item of the request is sent,
/// kept or given up, and none is given up for what may pass.
pub fn answers(data: &[u8]) {
    let Some((&[first, second], mut rest)) = data.split_first_chunk() else {
        return;
    };
    let (carrier, compression) = match first & 1 {
        0 => (Carrier::Http, Compression::SnappyBlock),
        _ => (Carrier::Grpc, Compression::SnappyFramed("snappy")),
    };
    let status = match first >> 1 {
        0..=63 => 200 + u16::from(second) % 5,
        _ => 200 + u16::from(second) * 2,
    };
    let mut headers = HeaderMap::new();
    while let Some(at) = rest.iter().position(|b| *b == b'\n') {
        let line = &rest[..at];
        rest = &rest[at + 1..];
        let Some((&n, value)) = line.split_first() else {
            break;
        };
        let name = HeaderName::from_static(NAMES[usize::from(n) % NAMES.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let reply = Reply {
        status: StatusCode::from_u16(status).expect("it has three digits"),
        headers,
        body: Bytes::copy_from_slice(rest),
        truncated: false,
    };
    let judge = judge(carrier, compression);
    let packing = &judge.packing;
    let body = b"\x0a\x04\x12\x02\x12\x00".repeat(ITEMS as usize).into();
    let whole = Encoded::parse(Signal::Logs, body, &Limits::default()).expect("well formed");
    let body = packing.pack(&whole).expect("it can be packed");
    let headers = packing.headers().clone();
    let mut request = OutgoingRequest::new(body, headers, None, Vec::new(), ITEMS, Acks::new());
    match judge.judge(&mut request, Ok(reply)) {
        Verdict::Replace { parts, dropped } => {
            assert!(parts.len() > 1 && dropped.is_empty());
            assert_eq!(parts.iter().map(|p| p.items).sum::<u64>(), ITEMS);
            for part in parts {
                let back = packing.unpack(&part.body).expect("it can be unpacked");
                assert_eq!(back.items() as u64, part.items);
            }
        }
        Verdict::Drop { cause, .. } => {
            let may_pass = [429, 502, 503, 504].contains(&status) && carrier == Carrier::Http;
            assert!(!may_pass, "{status}: {cause}");
            assert!(!cause.chars().any(char::is_control), "{cause:?}");
        }
        Verdict::DeliveredExcept { .. } => panic!("a partial success counts as sent"),
        Verdict::Delivered | Verdict::Retry { .. } | Verdict::Hold { .. } => {}
    }
}

fn judge(carrier: Carrier, compression: Compression) -> OtlpJudge {
    let registry = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
    OtlpJudge {
        name: "otlp".into(),
        carrier,
        packing: Packing::new(Signal::Logs, carrier, Form::Proto, compression),
        on_configuration_error: OnConfigurationError::Drop,
        bytes_max: Arc::new(AtomicUsize::new(usize::MAX)),
        clock: Arc::new(SystemClock::default()),
        partial: PartialSuccessMetrics::new(&registry, "otlp", "logs"),
    }
}
