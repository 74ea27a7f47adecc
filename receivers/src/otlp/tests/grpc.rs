//! OTLP over gRPC: what is answered to what.

use std::io::Write;

use tailwater_pipeline::{Admission, Outcome};

use super::stand::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    w.write_all(bytes).unwrap();
    w.finish().unwrap()
}

/// Guarantee: success is an empty message and a status of 0 behind it, after delivery.
#[tokio::test]
async fn calls_succeed_when_records_are_delivered() {
    let stand = Stand::new(&both(""));
    let client = GrpcClient::connect(stand.grpc()).await;
    stand.destination().set(None);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call(&[], frame(0, ONE)).await }
    });
    stand
        .until("it came", |s| s.destination().records() == 1)
        .await;
    assert!(!call.is_finished());
    stand.destination().set(Some(Outcome::Delivered));
    let answer = call.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &[0; 5][..])
    );
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(
        stand.metric("otelcol_receiver_accepted_log_records", "grpc"),
        1.0
    );
}

/// Guarantee: every compression of gRPC is taken, and bodies may still be plain.
#[tokio::test]
async fn messages_may_be_compressed() {
    let stand = Stand::new(&both(""));
    let client = GrpcClient::connect(stand.grpc()).await;
    let mut snappy = snap::write::FrameEncoder::new(Vec::new());
    snappy.write_all(ONE).unwrap();
    for (encoding, body) in [
        ("gzip", frame(1, &gzip(ONE))),
        ("zstd", frame(1, &zstd::encode_all(ONE, 1).unwrap())),
        ("snappy", frame(1, &snappy.into_inner().unwrap())),
        ("gzip", frame(0, ONE)),
        ("identity", frame(0, ONE)),
    ] {
        let answer = client.call(&[("grpc-encoding", encoding)], body).await;
        assert_eq!(answer.code(), 0, "{encoding}: {answer:?}");
    }
    assert_eq!(stand.account(0).delivered.records, 5);
}

#[tokio::test]
async fn calls_that_are_none_are_told_so() {
    let stand = Stand::new(&both(""));
    let client = GrpcClient::connect(stand.grpc()).await;
    for (headers, body, code, part) in [
        (&[][..], frame(0, b"\x0a\x09"), 3, ""),
        (&[], frame(1, ONE), 13, "grpc-encoding does not say"),
        (
            &[("grpc-encoding", "br")],
            frame(1, ONE),
            12,
            "grpc-encoding",
        ),
        (&[("grpc-encoding", "gzip")], frame(1, ONE), 3, "gzip"),
        (&[("grpc-timeout", "1s")], frame(0, ONE), 13, "grpc-timeout"),
        (&[], frame(7, ONE), 13, "flags"),
        (&[], vec![], 13, "missing"),
        (&[], frame(0, ONE)[..9].to_vec(), 13, "cut off"),
        (
            &[],
            [frame(0, ONE), frame(0, ONE)].concat(),
            13,
            "more than one",
        ),
        (&[], frame(0, &vec![0; (4 << 20) + 1]), 8, "larger than max"),
        (&[], frame(0, b""), 0, ""),
    ] {
        let answer = client.call(headers, body).await;
        assert_eq!(answer.code(), code, "{headers:?} {answer:?}");
        assert!(answer.header("grpc-message").contains(part), "{answer:?}");
        assert_eq!(answer.header("grpc-accept-encoding"), "gzip,snappy,zstd");
    }
    for path in [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Other",
        "/",
    ] {
        assert_eq!(client.call_at(path, &[], frame(0, b"")).await.code(), 12);
    }
    let answer = client
        .call(&[("content-type", "application/json")], "{}")
        .await;
    assert_eq!(answer.status, 415);
}

/// Guarantee: what may come again says when, in the details of the status; the client's own time
/// limit is kept, and a call that nobody took meanwhile is not taken later.
#[tokio::test]
async fn calls_may_come_again_and_end_in_time() {
    let stand = Stand::new(&both(""));
    let client = GrpcClient::connect(stand.grpc()).await;
    stand.destination().set(Some(Outcome::Retry));
    let answer = client.call(&[], frame(0, ONE)).await;
    assert_eq!(answer.code(), 14);
    assert!(!answer.header("grpc-status-details-bin").is_empty());
    stand.destination().set(Some(Outcome::Refused));
    let answer = client.call(&[], frame(0, ONE)).await;
    assert_eq!(
        (answer.code(), answer.header("grpc-status-details-bin")),
        (13, "")
    );
    stand.destination().set(Some(Outcome::Delivered));
    stand.destination().admit(Admission::Closed);
    let answer = client.call(&[("grpc-timeout", "50m")], frame(0, ONE)).await;
    assert_eq!(answer.code(), 4, "{answer:?}");
    stand
        .until("it was handed back", |s| {
            s.metric("otelcol_receiver_refused_log_records", "grpc") == 3.0
        })
        .await;
    stand.destination().admit(Admission::Open);
    let answer = client.call(&[], frame(0, ONE)).await;
    assert_eq!((answer.code(), stand.account(0).delivered.records), (0, 1));
}

/// Guarantee: a client that goes away while its records are under way changes nothing: they are
/// delivered and counted once.
#[tokio::test]
async fn a_client_that_goes_away_is_counted_once() {
    let stand = Stand::new(&both(""));
    stand.destination().set(None);
    let call = tokio::spawn({
        let port = stand.grpc();
        async move {
            GrpcClient::connect(port)
                .await
                .call(&[], frame(0, ONE))
                .await
        }
    });
    stand
        .until("it came", |s| s.destination().records() == 1)
        .await;
    call.abort();
    let _ = call.await;
    stand
        .until("no request is under way", |s| {
            s.metric("tailwater_receiver_requests_in_flight", "otlp") == 0.0
        })
        .await;
    stand.destination().set(Some(Outcome::Delivered));
    stand
        .until("it is counted", |s| {
            s.metric("otelcol_receiver_accepted_log_records", "grpc") == 1.0
        })
        .await;
    let account = stand.account(0);
    assert!(account.is_settled() && account.delivered.records == 1);
    assert_eq!(
        stand.metric("otelcol_receiver_refused_log_records", "grpc"),
        0.0
    );
}
