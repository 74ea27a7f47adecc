//! Who may send, with an authenticator that a test decides for.

use std::sync::Mutex;

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
