//! Who may send, with an authenticator that a test decides for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use tailwater_pipeline::auth::{Denied, ServerAuth};

use super::stand::*;

const PROTO: &str = "application/x-protobuf";

/// Takes the token `right`, which it has to look up once.
#[derive(Default)]
pub struct Doorkeeper(Mutex<bool>);

impl ServerAuth for Doorkeeper {
    fn is_known(&self, headers: &HeaderMap) -> bool {
        *self.0.lock().unwrap() && self.check(headers).is_ok()
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let sent = headers.get(AUTHORIZATION).ok_or(Denied::Missing)?;
        if sent != "right" {
            return Err(Denied::Wrong);
        }
        *self.0.lock().unwrap() = true;
        Ok(())
    }

    fn attributes(&self, _headers: &HeaderMap) -> Vec<(&'static str, String)> {
        vec![("username", "someone".to_owned())]
    }
}

/// Knows `known`, and takes as long to check anybody else as the test wants.
pub struct SlowDoor;

static OPEN: (Mutex<bool>, Condvar) = (Mutex::new(true), Condvar::new());
static CHECKING: AtomicUsize = AtomicUsize::new(0);

fn open() -> MutexGuard<'static, bool> {
    OPEN.0.lock().unwrap()
}

impl ServerAuth for SlowDoor {
    fn is_known(&self, headers: &HeaderMap) -> bool {
        headers
            .get(AUTHORIZATION)
            .is_some_and(|sent| sent == "known")
    }

    fn check(&self, _headers: &HeaderMap) -> Result<(), Denied> {
        CHECKING.fetch_add(1, Ordering::SeqCst);
        let waited = OPEN.1.wait_timeout_while(open(), LONG, |open| !*open);
        drop(waited);
        CHECKING.fetch_sub(1, Ordering::SeqCst);
        Err(Denied::Wrong)
    }
}

/// Guarantee: however many want to be checked by a slow check, two are at a time, a bounded number waits and
/// the rest is told to come again; whoever is known is served meanwhile, with bodies that are not
/// decoded on the thread of the sockets, too. Over either protocol.
#[tokio::test]
async fn slow_checks_hold_up_nobody_who_is_known() {
    let auth = "auth: {authenticator: slow}";
    let yaml = format!(
        "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0', {auth}}}, http: {{endpoint: '127.0.0.1:0', {auth}}}}}}}"
    );
    let stand = Stand::new(&yaml);
    *open() = false;
    let client = GrpcClient::connect(stand.grpc()).await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        let client = client.clone();
        strangers.push(tokio::spawn(async move {
            let answer = client.call(&[("authorization", "who")], frame(0, ONE));
            i32::from(answer.await.code())
        }));
        let mut request = post("/v1/logs", PROTO, ONE);
        let value = HeaderValue::from_static("who");
        request.headers_mut().insert(AUTHORIZATION, value);
        let port = stand.http();
        strangers.push(tokio::spawn(async move {
            i32::from(send(port, request).await.status.as_u16())
        }));
    }
    let refused = |s: &Stand| {
        let of = |transport| s.metric("tailwater_receiver_rejected_requests", transport);
        of("grpc") + of("http")
    };
    stand
        .until("the rest is told to come again", |s| {
            refused(s) >= 72.0 && CHECKING.load(Ordering::SeqCst) >= 4
        })
        .await;
    assert_eq!(CHECKING.load(Ordering::SeqCst), 4, "two of each listener");
    // Large enough to be decoded elsewhere.
    let many = ONE.repeat(4_000);
    let known = [("authorization", "known")];
    assert_eq!(client.call(&known, frame(0, &many)).await.code(), 0);
    let mut request = post("/v1/logs", PROTO, many);
    let value = HeaderValue::from_static("known");
    request.headers_mut().insert(AUTHORIZATION, value);
    assert_eq!(send(stand.http(), request).await.status, 200);
    *open() = true;
    OPEN.1.notify_all();
    let mut codes = std::collections::BTreeMap::new();
    for stranger in strangers {
        *codes.entry(stranger.await.unwrap()).or_insert(0) += 1;
    }
    let expect = [(14, 36), (16, 64), (401, 64), (503, 36)];
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), expect);
}

/// Guarantee: nobody but who is known sends, over either protocol; who is refused is told so, and nothing
/// of it is counted as taken in.
#[tokio::test]
async fn only_known_senders_are_taken() {
    let auth = "auth: {authenticator: door}";
    let yaml = format!(
        "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0', {auth}}}, http: {{endpoint: '127.0.0.1:0', {auth}}}}}}}"
    );
    let stand = Stand::new(&yaml);
    let client = GrpcClient::connect(stand.grpc()).await;
    for round in 0..2 {
        for (token, status, code) in [
            (None, 401, 16),
            (Some("wrong"), 401, 16),
            (Some("right"), 200, 0),
        ] {
            let mut request = post("/v1/logs", PROTO, ONE);
            if let Some(token) = token {
                let value = HeaderValue::from_static(token);
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            let answer = send(stand.http(), request).await;
            assert_eq!(answer.status.as_u16(), status, "{round} {token:?}");
            let headers: Vec<_> = token.iter().map(|t| ("authorization", *t)).collect();
            let answer = client.call(&headers, frame(0, ONE)).await;
            assert_eq!(answer.code(), code, "{round} {token:?}");
        }
    }
    assert_eq!(stand.account(0).read.records, 4);
    assert_eq!(stand.destination().records(), 4);
}

/// Guarantee: an authenticator that is not there stops the start, and names itself.
#[tokio::test]
async fn an_authenticator_that_is_not_there_is_named() {
    let yaml = "{protocols: {http: {endpoint: '127.0.0.1:0', auth: {authenticator: who}}}}";
    let text = Stand::try_new(yaml, &["one"]).err().unwrap().to_string();
    assert!(text.contains("\"who\""), "{text}");
}

/// Guarantee: with its duty, a request carries who sent it: the address always, metadata if it is asked
/// for, and what the authenticator knows; over either protocol.
#[tokio::test]
async fn requests_carry_who_sent_them() {
    for metadata in [false, true] {
        let options = format!(
            "endpoint: '127.0.0.1:0', auth: {{authenticator: door}}, include_metadata: {metadata}"
        );
        let stand = Stand::new(&format!(
            "{{protocols: {{grpc: {{{options}}}, http: {{{options}}}}}}}"
        ));
        let client = GrpcClient::connect(stand.grpc()).await;
        let headers = [("authorization", "right"), ("x-scope-orgid", "t1")];
        assert_eq!(client.call(&headers, frame(0, ONE)).await.code(), 0);
        let by_grpc = stand.destination().client();
        let mut request = post("/v1/logs", PROTO, ONE);
        for tenant in ["t1", "t2"] {
            let value = HeaderValue::from_static(tenant);
            request.headers_mut().append("x-scope-orgid", value);
        }
        let value = HeaderValue::from_static("right");
        request.headers_mut().insert(AUTHORIZATION, value);
        assert_eq!(send(stand.http(), request).await.status, 200);
        let by_http = stand.destination().client();
        for (client, tenants) in [(&by_grpc, &["t1"][..]), (&by_http, &["t1", "t2"])] {
            assert_eq!(client.address, Some([127, 0, 0, 1].into()));
            assert!(client.auth().eq([("username", "someone")]));
            let found: Vec<&str> = client
                .metadata("x-scope-orgid")
                .iter()
                .map(|v| &**v)
                .collect();
            let wanted = if metadata { tenants } else { &[] };
            assert_eq!(found, wanted);
            assert_eq!(client.all_metadata().next().is_some(), metadata);
        }
        assert_eq!(by_http.metadata("host").len(), usize::from(metadata));
    }
}

/// Guarantee: with `request_params`, a parameter of the query counts instead of the header of its name,
/// escapes and all; without it, it does not.
#[tokio::test]
async fn a_parameter_may_say_who_sends() {
    let stand = |params: &str| {
        Stand::new(&format!(
            "{{protocols: {{http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: door, {params}}}}}}}}}"
        ))
    };
    let (with, without) = (stand("request_params: [authorization]"), stand(""));
    for (stand, query, header, status) in [
        (&with, "?a=b&Authorization=righ%74", None, 200),
        (&with, "?authorization=right", Some("wrong"), 200),
        (&with, "?authorization=wrong", Some("right"), 401),
        (&with, "?authorization=%0a", Some("right"), 401),
        (&with, "?other=wrong", Some("right"), 200),
        (&with, "", None, 401),
        (&without, "?authorization=right", None, 401),
        (&without, "?authorization=wrong", Some("right"), 200),
    ] {
        let mut request = post(&format!("/v1/logs{query}"), PROTO, ONE);
        if let Some(token) = header {
            let value = HeaderValue::from_static(token);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answer = send(stand.http(), request).await;
        assert_eq!(answer.status.as_u16(), status, "{query} {header:?}");
    }
}
