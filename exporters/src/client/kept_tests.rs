//! Connections that outlive the client that opened them.

use std::sync::Arc;
use std::time::Duration;

use tailwater_pipeline::connections::Connections;

use super::test_server::{LONG, Server, parts, post, run};
use super::*;

/// Guarantee: a client goes on with the connections of the one before it, unless what they depend on is another thing; of
/// somebody else it has none.
#[test]
fn connections_outlive_their_client_over_http() {
    let server = Server::echo();
    let all = Arc::new(Connections::default());
    let client = |owner: &str, options: ClientOptions| {
        let kept = Some((all.clone(), owner.to_owned()));
        HttpClient::new(ClientParts {
            kept,
            ..parts(options)
        })
        .unwrap()
    };
    run(async {
        let to = server.endpoint("/push");
        let first = client("loki", ClientOptions::default());
        post(&first, &to).await.unwrap();
        let other = ClientOptions {
            headers: vec![("x".into(), "y".into())],
            timeout: LONG,
            auth: AuthOptions::Bearer { token: "t".into() },
            ..ClientOptions::default()
        };
        let second = client("loki", other.clone());
        drop(first);
        let reply = post(&second, &to).await.unwrap();
        let head = String::from_utf8_lossy(&reply.body).to_lowercase();
        assert!(head.contains("x: y") && head.contains("bearer t"), "{head}");
        assert_eq!(server.connections(), 1);
        post(&client("loki/2", other.clone()), &to).await.unwrap();
        assert_eq!(server.connections(), 2);
        let idle = ClientOptions {
            idle_conn_timeout: Duration::from_secs(5),
            ..other.clone()
        };
        post(&client("loki", idle), &to).await.unwrap();
        assert_eq!(server.connections(), 3);
        // What nobody uses any more is closed.
        drop(second);
        post(&client("loki", other), &to).await.unwrap();
        assert_eq!(server.connections(), 4);
    });
}

/// Guarantee: a client goes on with the connections of the one before it, unless what they depend on is another thing.
#[test]
fn connections_outlive_their_client_over_grpc() {
    run(async {
        let server = grpc_tests::serve("127.0.0.1:0", |_, _| async { grpc_tests::done(b"") }).await;
        let all = Arc::new(Connections::default());
        let client = |o: GrpcOptions| {
            let kept = Some((all.clone(), "otlp logs".to_owned()));
            GrpcClient::new(GrpcParts {
                kept,
                ..grpc_tests::parts(o)
            })
            .unwrap()
        };
        let first = client(grpc_tests::options(server.address));
        grpc_tests::call(&first).await.unwrap();
        let other = GrpcOptions {
            headers: vec![("x".into(), "y".into())],
            timeout: LONG,
            ..grpc_tests::options(server.address)
        };
        let second = client(other.clone());
        drop(first);
        grpc_tests::call(&second).await.unwrap();
        assert_eq!((server.calls(), server.connections()), (2, 1));
        let pings = GrpcOptions {
            keepalive: Some(Keepalive {
                time: LONG,
                timeout: LONG,
                permit_without_stream: false,
            }),
            ..other
        };
        grpc_tests::call(&client(pings)).await.unwrap();
        assert_eq!((server.calls(), server.connections()), (3, 2));
    });
}
