use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use tailwater_pdata::otlp::{Encoded, Limits};
use tailwater_pipeline::clock::SystemClock;
use tailwater_telemetry::metrics::{Exposition, MetricsRegistry, SERIES_MAX_DEFAULT};

use super::super::compress::Compression;
use super::super::packing::Form;
use super::*;
use crate::delivery::{Acks, SendErrorKind};

fn judge(carrier: Carrier, form: Form, compression: Compression) -> OtlpJudge {
    let registry = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
    OtlpJudge {
        name: "otlp".into(),
        carrier,
        packing: Packing::new(Signal::Logs, carrier, form, compression),
        on_configuration_error: OnConfigurationError::Drop,
        bytes_max: Arc::new(AtomicUsize::new(usize::MAX)),
        clock: Arc::new(SystemClock::default()),
        partial: PartialSuccessMetrics::new(&registry, "otlp", "logs"),
    }
}

fn plain(carrier: Carrier) -> OtlpJudge {
    judge(carrier, Form::Proto, Compression::None)
}

/// `n` records, each in a resource of its own.
fn records(n: u64) -> Encoded {
    let body = b"\x0a\x04\x12\x02\x12\x00".repeat(n as usize).into();
    let encoded = Encoded::parse(Signal::Logs, body, &Limits::default()).unwrap();
    assert_eq!(encoded.items() as u64, n);
    encoded
}

fn request(judge: &OtlpJudge, items: u64) -> OutgoingRequest<Acks> {
    let packing = &judge.packing;
    let body = packing.pack(&records(items)).unwrap();
    let headers = packing.headers().clone();
    OutgoingRequest::new(body, headers, None, Vec::new(), items, Acks::new())
}

fn reply(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Reply {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: map,
        body: Bytes::copy_from_slice(body),
        truncated: false,
    }
}

/// A verdict in short.
fn short(verdict: &Verdict<Acks>) -> String {
    match verdict {
        Verdict::Delivered => "sent".to_owned(),
        Verdict::DeliveredExcept { .. } => "sent in part".to_owned(),
        Verdict::Retry { scope, after, .. } => {
            let after = after.map(|a| format!(" after {} s", a.as_secs()));
            format!("retry {scope:?}{}", after.unwrap_or_default())
        }
        Verdict::Replace { parts, .. } => format!("{} parts", parts.len()),
        Verdict::Drop { reason, .. } => format!("drop {}", reason.as_str()),
        Verdict::Hold { scope, .. } => format!("hold {scope:?}"),
    }
}

fn verdict(judge: &OtlpJudge, items: u64, reply: Reply) -> Verdict<Acks> {
    judge.judge(&mut request(judge, items), Ok(reply))
}

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");

#[test]
fn statuses_of_http_mean_what_the_collector_takes_them_for() {
    let judge = plain(Carrier::Http);
    for (status, headers, body, expect) in [
        (200, &[PROTO][..], &b""[..], "sent"),
        (200, &[PROTO], b"\x0a\x02\x08\x07", "sent"),
        (200, &[PROTO], b"<html>", "drop rejected"),
        (200, &[("content-type", "application/json")], b"{}", "sent"),
        (
            200,
            &[("content-type", "application/json; charset=utf-8")],
            b"[",
            "drop rejected",
        ),
        (200, &[("content-type", "text/html")], b"<html>", "sent"),
        (202, &[], b"", "sent"),
        (204, &[], b"", "sent"),
        (301, &[], b"", "hold Destination"),
        (400, &[], b"", "drop rejected"),
        (401, &[], b"", "drop rejected"),
        (404, &[], b"", "drop rejected"),
        (408, &[], b"", "drop rejected"),
        (429, &[], b"", "retry Request"),
        (
            429,
            &[("retry-after", "7")],
            b"",
            "retry Destination after 7 s",
        ),
        (429, &[("retry-after", "soon")], b"", "retry Request"),
        (500, &[("retry-after", "7")], b"", "drop rejected"),
        (501, &[], b"", "drop rejected"),
        (502, &[("retry-after", "7")], b"", "retry Request"),
        (
            503,
            &[("retry-after", "7")],
            b"",
            "retry Destination after 7 s",
        ),
        (503, &[], b"", "retry Destination"),
        (504, &[], b"", "retry Request"),
    ] {
        let got = verdict(&judge, 2, reply(status, headers, body));
        assert_eq!(short(&got), expect, "{status} {headers:?}");
    }
    assert_eq!(judge.partial.rejected.get(), 7);
}

#[test]
fn a_date_is_a_wait_too() {
    let judge = plain(Carrier::Http);
    let far = ("retry-after", "Fri, 31 Dec 2199 23:59:59 GMT");
    let got = verdict(&judge, 1, reply(503, &[far], b""));
    let Verdict::Retry {
        after: Some(after), ..
    } = got
    else {
        panic!("{}", short(&got));
    };
    assert!(after.as_secs() > 1 << 31);
}

#[test]
fn codes_of_grpc_mean_what_the_collector_takes_them_for() {
    let judge = plain(Carrier::Grpc);
    for (code, expect) in [
        ("0", "sent"),
        ("1", "retry Request"),
        ("2", "drop rejected"),
        ("3", "drop rejected"),
        ("4", "retry Request"),
        ("5", "drop rejected"),
        ("6", "drop rejected"),
        ("7", "drop rejected"),
        ("8", "drop rejected"),
        ("9", "drop rejected"),
        ("10", "retry Request"),
        ("11", "retry Request"),
        ("12", "drop rejected"),
        ("13", "drop rejected"),
        ("14", "retry Destination"),
        ("15", "retry Request"),
        ("16", "drop rejected"),
        ("99", "drop rejected"),
    ] {
        let got = verdict(&judge, 2, reply(200, &[("grpc-status", code)], b""));
        assert_eq!(short(&got), expect, "{code}");
    }
}

/// `Status` with a `RetryInfo` of 3 s, and of none.
const DETAILS: &str = "CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAw";
const NO_DELAY: &str = "CAgaLAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIA";

#[test]
fn retry_info_is_a_floor_and_makes_exhaustion_retryable() {
    let judge = plain(Carrier::Grpc);
    for (code, details, expect) in [
        ("8", DETAILS, "retry Destination after 3 s"),
        ("8", NO_DELAY, "retry Request"),
        ("14", DETAILS, "retry Destination after 3 s"),
        ("4", DETAILS, "retry Destination after 3 s"),
        ("3", DETAILS, "drop rejected"),
    ] {
        let headers = [("grpc-status", code), ("grpc-status-details-bin", details)];
        let got = verdict(&judge, 2, reply(200, &headers, b""));
        assert_eq!(short(&got), expect, "{code}");
    }
}

#[test]
fn an_answer_that_is_no_grpc_answer_is_read_by_its_http_status() {
    let judge = plain(Carrier::Grpc);
    for (status, expect) in [
        (200, "retry Request"),
        (400, "drop rejected"),
        (401, "drop rejected"),
        (404, "drop rejected"),
        (500, "drop rejected"),
        (502, "retry Destination"),
        (429, "retry Destination"),
        (503, "retry Destination"),
    ] {
        let got = verdict(&judge, 2, reply(status, &[], b"<html>"));
        assert_eq!(short(&got), expect, "{status}");
    }
}

#[test]
fn a_message_of_grpc_may_be_compressed() {
    let judge = plain(Carrier::Grpc);
    let partial = Bytes::from_static(b"\x0a\x06\x08\x05\x12\x02no");
    for name in ["gzip", "zstd", "snappy"] {
        let packed = Compression::grpc(name)
            .compress(vec![partial.clone()])
            .unwrap();
        let mut body = vec![1, 0, 0, 0, packed[0].len() as u8];
        body.extend_from_slice(&packed[0]);
        let headers = [("grpc-status", "0"), ("grpc-encoding", name)];
        let got = verdict(&judge, 1, reply(200, &headers, &body));
        assert_eq!(short(&got), "sent", "{name}");
    }
    assert_eq!(judge.partial.rejected.get(), 15);
    let cut = reply(200, &[("grpc-status", "0")], b"\0\0\0\0\x09\x0a");
    assert_eq!(short(&verdict(&judge, 1, cut)), "drop rejected");
}

#[test]
fn wrong_credentials_are_waited_out_if_the_user_says_so() {
    for (carrier, reply) in [
        (Carrier::Http, reply(401, &[], b"")),
        (Carrier::Http, reply(403, &[], b"")),
        (Carrier::Http, reply(404, &[], b"")),
        (Carrier::Grpc, reply(200, &[("grpc-status", "16")], b"")),
        (Carrier::Grpc, reply(200, &[("grpc-status", "7")], b"")),
        (Carrier::Grpc, reply(200, &[("grpc-status", "12")], b"")),
    ] {
        let mut judge = plain(carrier);
        assert_eq!(short(&verdict(&judge, 1, reply.clone())), "drop rejected");
        judge.on_configuration_error = OnConfigurationError::Hold;
        assert_eq!(short(&verdict(&judge, 1, reply)), "hold Destination");
    }
}

#[test]
fn what_is_too_large_is_halved_down_to_single_records() {
    let words = [
        "grpc: received message larger than max (5 vs. 4)",
        "grpc: received message after decompression larger than max 4",
        "gRPC message exceeds maximum size 4: 5",
        "Received message exceeds the maximum configured message size.",
    ];
    let mut answers = vec![(Carrier::Http, reply(413, &[], b""))];
    for text in words {
        let headers = [("grpc-status", "8"), ("grpc-message", text)];
        answers.push((Carrier::Grpc, reply(200, &headers, b"")));
    }
    let tonic = [
        ("grpc-status", "11"),
        ("grpc-message", "message length too large"),
    ];
    answers.push((Carrier::Grpc, reply(200, &tonic, b"")));
    for (carrier, reply) in answers {
        let judge = plain(carrier);
        let mut request = request(&judge, 5);
        let Verdict::Replace { parts, dropped } = judge.judge(&mut request, Ok(reply.clone()))
        else {
            panic!("it is halved");
        };
        assert!(dropped.is_empty());
        let sizes: Vec<u64> = parts.iter().map(|p| p.items).collect();
        assert_eq!(sizes, [3, 2]);
        let bodies: Vec<Bytes> = parts.iter().flat_map(|p| p.body.clone()).collect();
        assert_eq!(bodies.concat(), request.body.concat(), "{carrier:?}");
        assert_eq!(judge.bytes_max.load(Ordering::Relaxed), LEARNED_BYTES_MIN);
        assert_eq!(short(&verdict(&judge, 1, reply)), "drop too_large");
    }
}

#[test]
fn halves_are_packed_as_the_whole_was_whatever_is_configured_now() {
    let now = plain(Carrier::Http);
    for (form, name) in [
        (Form::Proto, "gzip"),
        (Form::Proto, "x-snappy-framed"),
        (Form::Json, "zstd"),
        (Form::Json, "none"),
    ] {
        let before = judge(Carrier::Http, form, Compression::http(name, 0).unwrap());
        let mut request = request(&before, 4);
        let Verdict::Replace { parts, .. } = now.judge(&mut request, Ok(reply(413, &[], b"")))
        else {
            panic!("it is halved");
        };
        assert_eq!(parts.len(), 2);
        for part in parts {
            assert_eq!(part.headers, request.headers);
            let back = before.packing.unpack(&part.body).unwrap();
            assert_eq!(back, records(2), "{form:?} {name}");
        }
    }
}

#[test]
fn causes_quote_the_server() {
    let http = plain(Carrier::Http);
    let grpc = plain(Carrier::Grpc);
    let error = ("grpc-message", "no%20room");
    for (judge, reply, expect) in [
        (
            &http,
            reply(503, &[PROTO], b"\x12\x04full"),
            "503 Service Unavailable: full",
        ),
        (
            &http,
            reply(
                400,
                &[("content-type", "application/json")],
                br#"{"code":3,"message":"bad"}"#,
            ),
            "400 Bad Request: bad",
        ),
        (&http, reply(400, &[], b"plain\n"), "400 Bad Request: plain"),
        (
            &http,
            reply(400, &[("content-type", "text/html")], b"<html>"),
            "400 Bad Request",
        ),
        (
            &grpc,
            reply(200, &[("grpc-status", "14"), error], b""),
            "gRPC status UNAVAILABLE: no room",
        ),
        (
            &grpc,
            reply(502, &[], b""),
            "HTTP status 502 Bad Gateway (gRPC status UNAVAILABLE)",
        ),
    ] {
        let cause = verdict(judge, 1, reply).cause().unwrap();
        assert!(cause.ends_with(expect), "{cause}");
    }
}

#[test]
fn without_an_answer_it_is_sent_again() {
    let judge = plain(Carrier::Grpc);
    for kind in [
        SendErrorKind::Connect,
        SendErrorKind::Timeout,
        SendErrorKind::Broken,
    ] {
        let error = SendError::new(kind, "x");
        let got: Verdict<Acks> = judge.judge(&mut request(&judge, 1), Err(error));
        assert!(short(&got).starts_with("retry"), "{kind:?}");
    }
}
