//! Several destinations behind one receiver: each gets a request once, whatever becomes of it elsewhere.

use tailwater_pipeline::{Admission, Outcome};

use super::stand::*;

const PROTO: &str = "application/x-protobuf";

/// A log record with this body.
fn record(body: &str) -> Vec<u8> {
    let put = |field: u8, inner: Vec<u8>| {
        let mut out = vec![field << 3 | 2];
        let mut length = inner.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(inner);
        out
    };
    let text = put(1, body.as_bytes().to_vec());
    put(1, put(2, put(2, put(5, text))))
}

async fn status(stand: &Stand, body: &str) -> u16 {
    let request = post("/v1/logs", PROTO, record(body));
    send(stand.http(), request).await.status.as_u16()
}

/// Sends until it is a success: on a busy machine an answer may take longer than a request may.
async fn succeed(stand: &Stand, body: &str) {
    for _ in 0..100 {
        if status(stand, body).await == 200 {
            return;
        }
    }
    panic!("it is never taken");
}

fn got(stand: &Stand) -> [usize; 2] {
    [0, 1].map(|i| stand.destinations[i].records())
}

/// Guarantee: a request that one destination has and another handed back goes, when it comes again,
/// to the other alone, however often; over whichever protocol; and once that has it, too, the same bytes
/// are a request of their own again.
#[tokio::test]
async fn a_retry_does_not_repeat_to_the_healthy_branch() {
    let stand = Stand::with_lanes(&both(""), &["a", "b"]);
    stand.destinations[1].set(Some(Outcome::Retry));
    for n in 1..=3 {
        assert_eq!(status(&stand, "x").await, 503);
        assert_eq!(got(&stand), [1, n]);
    }
    stand.destinations[1].set(Some(Outcome::Delivered));
    let client = GrpcClient::connect(stand.grpc()).await;
    let answer = client.call(&[], frame(0, &record("x"))).await;
    assert_eq!((answer.code(), got(&stand)), (0, [1, 4]));
    for n in 2..4 {
        assert_eq!(status(&stand, "x").await, 200);
        assert_eq!(got(&stand), [n, n + 3], "nothing is left out");
    }
    assert_eq!(stand.metric("tailwater_receiver_resumed_requests", ""), 3.0);
    assert_eq!(
        stand.metric("tailwater_receiver_remembered_requests", ""),
        0.0
    );
    assert_eq!(stand.account(0).delivered.records, 3);
    assert_eq!(stand.account(1).delivered.records, 3);
    let count =
        |what: &str, labels| stand.metric(&format!("otelcol_receiver_{what}_log_records"), labels);
    assert_eq!(count("refused", "http"), 3.0);
    assert_eq!(
        (count("accepted", "http"), count("accepted", "grpc")),
        (2.0, 1.0)
    );
}

/// Guarantee: what one destination gave up for good is not offered to it again, and is what the
/// sender is told in the end.
#[tokio::test]
async fn what_one_branch_gave_up_is_told_when_the_other_has_it() {
    let stand = Stand::with_lanes(&both(""), &["a", "b"]);
    stand.destinations[0].set(Some(Outcome::Refused));
    stand.destinations[1].set(Some(Outcome::Retry));
    assert_eq!(status(&stand, "x").await, 503);
    stand.destinations[1].set(Some(Outcome::Delivered));
    assert_eq!(status(&stand, "x").await, 500);
    assert_eq!(got(&stand), [1, 2]);
    assert_eq!(
        stand
            .account(0)
            .dropped
            .iter()
            .map(|d| d.1.records)
            .sum::<u64>(),
        1
    );
}

/// Guarantee: what is still on its way when its sender is told to come again, or goes away, is waited for when
/// it comes, and goes nowhere twice; also when it has arrived meanwhile.
#[tokio::test]
async fn what_is_under_way_is_waited_for() {
    let stand = Stand::with_lanes(&both(", limits: {request_timeout: 50ms}"), &["a", "b"]);
    stand.destinations[1].set(None);
    let mut tries = 0;
    while got(&stand) != [1, 1] {
        // On a busy machine its time may be over before any destination has it.
        assert!(tries < 100, "nobody gets it");
        tries += 1;
        assert_eq!(status(&stand, "x").await, 503);
    }
    assert_eq!(status(&stand, "x").await, 503);
    assert_eq!(got(&stand), [1, 1]);
    stand.destinations[1].set(Some(Outcome::Delivered));
    succeed(&stand, "x").await;
    assert_eq!(got(&stand), [1, 1]);

    let stand = Stand::with_lanes(&both(""), &["a", "b"]);
    stand.destinations[1].set(None);
    let call = tokio::spawn({
        let port = stand.grpc();
        async move {
            let client = GrpcClient::connect(port).await;
            client.call(&[], frame(0, &record("y"))).await
        }
    });
    stand.until("both have it", |s| got(s) == [1, 1]).await;
    call.abort();
    let _ = call.await;
    stand
        .until("it is remembered", |s| {
            s.metric("tailwater_receiver_requests_in_flight", "") == 0.0
        })
        .await;
    stand.destinations[1].set(Some(Outcome::Retry));
    stand.destinations[1].set(Some(Outcome::Delivered));
    assert_eq!(status(&stand, "y").await, 200);
    assert_eq!(got(&stand), [1, 2], "to the one that handed it back");
}

/// Guarantee: while one destination hangs, the other gets everything, though neither places nor memory
/// suffice for what waits; when it is back, it gets the rest, and nobody anything twice.
#[tokio::test]
async fn a_branch_that_hangs_leaves_the_other_all_of_its_rate() {
    let more = ", limits: {requests_max: 1, in_flight_bytes_max: 1MiB}";
    for hang in [Admission::Open, Admission::Closed] {
        let stand = Stand::with_lanes(&both(more), &["a", "b"]);
        stand.destinations[1].set(None);
        stand.destinations[1].admit(hang);
        let large = "z".repeat(100_000);
        let bodies: Vec<String> = (0..30).map(|n| format!("{n} {large}")).collect();
        let mut waiting = Vec::new();
        for (n, body) in bodies.iter().enumerate() {
            let request = post("/v1/logs", PROTO, record(body));
            waiting.push(tokio::spawn(send(stand.http(), request)));
            stand
                .until("the healthy one has it", |s| {
                    let places = s.metric("tailwater_receiver_requests_in_flight", "");
                    got(s)[0] == n + 1 && places == 0.0
                })
                .await;
        }
        for request in waiting {
            // Whoever was not told to come again goes away.
            request.abort();
            if let Ok(answer) = request.await {
                assert_eq!(answer.status, 503);
            }
        }
        stand
            .until("all have gone", |s| {
                s.metric("tailwater_receiver_connections", "http") == 0.0
            })
            .await;
        stand.destinations[1].admit(Admission::Open);
        stand.destinations[1].set(Some(Outcome::Delivered));
        for body in &bodies {
            succeed(&stand, body).await;
        }
        assert_eq!(got(&stand), [30, 30], "{hang:?}");
        assert_eq!(stand.account(0).delivered.records, 30);
        assert_eq!(stand.account(1).delivered.records, 30);
    }
}

/// Guarantee: if no destination has room, nothing is taken, and nothing is remembered.
#[tokio::test]
async fn without_room_anywhere_nothing_is_remembered() {
    let stand = Stand::with_lanes(&both(""), &["a", "b"]);
    for destination in &stand.destinations {
        destination.set(Some(Outcome::Retry));
    }
    assert_eq!(status(&stand, "x").await, 503);
    assert_eq!(
        stand.metric("tailwater_receiver_remembered_requests", ""),
        0.0
    );
    for destination in &stand.destinations {
        destination.set(Some(Outcome::Delivered));
    }
    assert_eq!(status(&stand, "x").await, 200);
    assert_eq!(got(&stand), [2, 2]);
    assert_eq!(stand.metric("tailwater_receiver_resumed_requests", ""), 0.0);
}

/// Guarantee: equal bytes of two tenants are two requests.
#[tokio::test]
async fn tenants_are_told_apart() {
    let http = "{protocols: {http: {endpoint: '127.0.0.1:0', include_metadata: true}}}";
    let stand = Stand::with_lanes(http, &["a", "b"]);
    let of = async |tenant: &'static str, trace: &'static str| {
        let mut request = post("/v1/logs", PROTO, record("x"));
        let headers = request.headers_mut();
        headers.insert("x-scope-orgid", tenant.parse().unwrap());
        headers.insert("traceparent", trace.parse().unwrap());
        send(stand.http(), request).await.status.as_u16()
    };
    stand.destinations[1].set(Some(Outcome::Retry));
    assert_eq!((of("t1", "1").await, got(&stand)), (503, [1, 1]));
    assert_eq!((of("t2", "2").await, got(&stand)), (503, [2, 2]));
    stand.destinations[1].set(Some(Outcome::Delivered));
    assert_eq!((of("t1", "3").await, got(&stand)), (200, [2, 3]));
    let client = stand.destinations[1].client();
    assert_eq!(
        &*client.metadata("traceparent")[0],
        "3",
        "of the last attempt"
    );
    assert_eq!((of("t2", "4").await, got(&stand)), (200, [2, 4]));
}
