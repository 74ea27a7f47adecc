//! How connections, sockets and the receiver itself end.

use tailwater_pipeline::Outcome;

use super::stand::*;
use crate::server::REQUEST_BYTES;

const PROTO: &str = "application/x-protobuf";

/// Guarantee: connections that are idle or old end, and what is under way on them is answered.
#[tokio::test]
async fn connections_end_by_idleness_and_age() {
    for parameters in ["max_connection_idle: 50ms", "max_connection_age: 50ms"] {
        let stand = Stand::new(&format!(
            "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0', keepalive: {{server_parameters: \
             {{{parameters}}}}}}}}}}}"
        ));
        let client = GrpcClient::connect(stand.grpc()).await;
        stand.destination().set(None);
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.call(&[], frame(0, ONE)).await }
        });
        stand
            .until("it came", |s| s.destination().records() == 1)
            .await;
        stand.destination().set(Some(Outcome::Delivered));
        assert_eq!(call.await.unwrap().code(), 0, "{parameters}");
        stand.until("it has ended", |_| client.is_closed()).await;
        stand
            .until("it is gone", |s| {
                s.metric("tailwater_receiver_connections", "grpc") == 0.0
            })
            .await;
    }
}

/// Guarantee: when the agent stops, requests under way are answered by what becomes of them, and
/// nothing new is taken.
#[tokio::test]
async fn stopping_answers_what_is_under_way() {
    let mut stand = Stand::new(&both(""));
    stand.destination().set(None);
    let client = GrpcClient::connect(stand.grpc()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call(&[], frame(0, ONE)).await }
    });
    let request = tokio::spawn(send(stand.http(), post("/v1/logs", PROTO, ONE)));
    stand
        .until("both came", |s| s.destination().records() == 2)
        .await;
    let port = stand.http();
    stand.stop().await;
    stand.destination().set(Some(Outcome::Delivered));
    assert_eq!(call.await.unwrap().code(), 0);
    assert_eq!(request.await.unwrap().status, 200);
    stand
        .until("the listener is closed", |_| {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
        })
        .await;
}

/// Guarantee: what cannot be delivered before the agent ends is answered with come again.
#[tokio::test]
async fn what_is_left_at_the_end_may_come_again() {
    let stand = Stand::new(&both(""));
    stand.destination().set(None);
    let request = tokio::spawn(send(stand.http(), post("/v1/logs", PROTO, ONE)));
    stand
        .until("it came", |s| s.destination().records() == 1)
        .await;
    // As the agent stops: sources, exporters, then nodes. It blocks, so the client runs beside it.
    let end = tokio::task::spawn_blocking(move || drop(stand));
    assert_eq!(request.await.unwrap().status, 503);
    end.await.unwrap();
}

/// Guarantee: a listener at a socket in the file system works, takes the place of one that a killed
/// process has left, leaves one alone that is in use, and removes its own.
#[tokio::test]
async fn sockets_in_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otlp.sock");
    let yaml = format!(
        "{{protocols: {{grpc: {{endpoint: 'unix://{}'}}}}}}",
        path.display()
    );
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let stand = Stand::new(&yaml);
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let client = GrpcClient::over(stream).await;
    assert_eq!(client.call(&[], frame(0, ONE)).await.code(), 0);
    let second = Stand::try_new(&yaml, &["one"]).err().unwrap().to_string();
    assert!(second.contains("another process listens"), "{second}");
    drop(client);
    tokio::task::spawn_blocking(move || drop(stand))
        .await
        .unwrap();
    assert!(!path.exists());
}

/// Guarantee: an address that is taken is an error that names it, and what to set.
#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let yaml = format!("{{protocols: {{http: {{endpoint: '{address}'}}}}}}");
    let text = Stand::try_new(&yaml, &["one"]).err().unwrap().to_string();
    assert!(text.contains(&address.to_string()), "{text}");
    assert!(text.contains("protocols::http::endpoint"), "{text}");
}

/// Guarantee: an address that others reach is refused without client certificates, if that is asked
/// for.
#[tokio::test]
async fn unprotected_listeners_can_be_refused() {
    for (endpoint, refused) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
        let yaml = format!(
            "{{protocols: {{http: {{endpoint: '{endpoint}'}}}}, refuse_unprotected: true}}"
        );
        let stand = Stand::try_new(&yaml, &["one"]);
        assert_eq!(stand.is_err(), refused, "{endpoint}");
        if let Err(e) = stand {
            assert!(e.to_string().contains("without TLS"), "{e}");
        }
    }
}

/// Guarantee: what a processor refuses goes back to its sender at once, although the pipeline is closed, and
/// is counted; it was never lost or kept.
#[tokio::test]
async fn what_a_processor_refuses_goes_back() {
    let stand = Stand::new(&both(""));
    let destination = stand.destination();
    destination.refuse(true);
    let client = GrpcClient::connect(stand.grpc()).await;
    assert_eq!(client.call(&[], frame(0, ONE)).await.code(), 14);
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(answer.status, 503);
    // It went into the pipeline and came back: it did not wait in front of it.
    let account = stand.account(0);
    assert_eq!((account.read.records, destination.records()), (2, 0));
    for transport in ["grpc", "http"] {
        let refused = stand.metric("otelcol_receiver_refused_log_records", transport);
        assert_eq!(refused, 1.0, "{transport}");
    }
    assert_eq!(stand.held.used_bytes(), 0);
    destination.refuse(false);
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(destination.records(), 1);
}

/// Guarantee: a request counts as memory of the agent until it is settled, wherever it is.
#[tokio::test]
async fn requests_are_memory_of_the_agent_until_they_are_settled() {
    let stand = Stand::with_lanes(&both(""), &["one", "two"]);
    stand.destinations[1].set(None);
    let request = tokio::spawn(send(stand.http(), post("/v1/logs", PROTO, ONE)));
    stand
        .until("it came", |s| s.destinations[1].records() == 1)
        .await;
    stand
        .until("one of two has it", |s| {
            let held = s.held.used_bytes();
            held >= ONE.len() && held < 2 * REQUEST_BYTES
        })
        .await;
    stand.destinations[1].set(Some(Outcome::Delivered));
    assert_eq!(request.await.unwrap().status, 200);
    stand
        .until("nothing is held", |s| s.held.used_bytes() == 0)
        .await;
}
