//! The program as a process, and agents that get certificates from it.
//!
//! Guarantee: an agent that comes with a token gets a certificate for its own key, and nothing else before it shows that; it
//! speaks for no other agent; what is revoked ends at once; two agents under one name over HTTP are told apart.
#![allow(clippy::unwrap_used)]

mod peer;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use hyper::{Method, StatusCode};
use prost::Message as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tailwater_control::client::Client;
use tailwater_control::http::Target;
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{
    AgentToServer, CertificateRequest, ConnectionSettingsRequest, OpAmpConnectionSettingsRequest,
    ServerToAgent, server,
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use peer::{Agent, BOUND, Process, command, hello, post, runtime, uid};

const AGENT: (&str, &str) = ("authorization", "Bearer dddddddddddddddd");

struct Home {
    process: Process,
    ca: String,
}

impl Home {
    /// A server with an authority.
    fn new(args: &[&str]) -> Home {
        let state = tempfile::tempdir().unwrap();
        let at = |name: &str| state.path().join(name).display().to_string();
        let run = |args: &[&str]| {
            let out = command().args(args).output().unwrap();
            let error = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{error}");
            String::from_utf8(out.stdout).unwrap()
        };
        let dir = state.path().display().to_string();
        let ca = run(&["ca", "init", "--state", &dir]);
        let (cert, key, tokens) = (at("server.pem"), at("server-key.pem"), at("tokens"));
        run(&[
            "ca",
            "server",
            "--state",
            &dir,
            "--host",
            "localhost",
            "--cert",
            &cert,
            "--key",
            &key,
        ]);
        write_secret(
            Path::new(&tokens),
            "admin anna cccccccccccccccc\nagent fleet dddddddddddddddd\n",
        );
        let tls = ["--tls-cert", &cert, "--tls-key", &key, "--tokens", &tokens];
        let all = [&tls[..], &["--issue-certificates"], args].concat();
        let all: Vec<String> = all.iter().map(|a| (*a).to_owned()).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Home {
            process: Process::start_in(state, &all),
            ca,
        }
    }

    fn person(&self) -> Client {
        let at = format!("https://localhost:{}", self.process.addr.port());
        let server = Target::of_api(&at, Some(&"c".repeat(16))).unwrap();
        let ca = self.process.state.path().join("ca.pem");
        Client::new(server.trusting(Some(ca)))
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Value, String> {
        let body = (method == Method::POST).then(String::new);
        let answer = self.person().ask(method, path, body).await;
        answer.map_err(|e| format!("{e:#}"))
    }

    /// A connection with a certificate or without; none if the server does not want it.
    async fn open(&self, shows: Option<&Certified>) -> Option<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shows {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let cert = CertificateDer::from_pem_slice(&own.cert).unwrap();
                let key = PrivateKeyDer::Pkcs8(own.key.serialize_der().into());
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(self.process.addr).await.unwrap();
        connector
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .ok()
    }

    async fn agent(&self, uid: InstanceUid, shows: Option<&Certified>) -> Agent {
        let stream = self.open(shows).await.expect("a connection");
        let headers = [AGENT];
        let with = match shows {
            Some(_) => &headers[..0],
            None => &headers[..],
        };
        Agent::over(stream, uid, with).await.expect("a handshake")
    }
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

struct Certified {
    cert: Vec<u8>,
    key: KeyPair,
}

fn request(uid: InstanceUid) -> (KeyPair, AgentToServer) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, uid.to_string());
    let csr = params
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap()
        .into_bytes();
    let message = AgentToServer {
        connection_settings_request: Some(ConnectionSettingsRequest {
            opamp: Some(OpAmpConnectionSettingsRequest {
                certificate_request: Some(CertificateRequest { csr }),
            }),
        }),
        ..AgentToServer::default()
    };
    (key, message)
}

fn certificate(answer: &ServerToAgent) -> Vec<u8> {
    let settings = answer.connection_settings.clone().expect("settings");
    settings
        .opamp
        .unwrap()
        .certificate
        .expect("a certificate")
        .cert
}

/// How the other end ended the connection.
async fn ended(agent: &mut Agent) -> String {
    loop {
        match tokio::time::timeout(BOUND, agent.socket.next())
            .await
            .expect("in time")
        {
            Some(Ok(Message::Close(frame))) => return frame.unwrap().reason.to_string(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_agent_gets_a_certificate_and_speaks_for_itself_alone() {
    let home = Home::new(&[]);
    runtime().block_on(async {
        // Without a token nobody asks for anything.
        let stream = home.open(None).await.unwrap();
        let stranger = Agent::over(stream, uid(1), &[]).await;
        assert_eq!(stranger.err(), Some(StatusCode::UNAUTHORIZED));
        let mut first = home.agent(uid(1), None).await;
        let answer = first.say(hello(uid(1))).await;
        let issues =
            server::OFFERS_CONNECTION_SETTINGS | server::ACCEPTS_CONNECTION_SETTINGS_REQUEST;
        assert_eq!(answer.capabilities & issues, issues);
        let listed = home.ask(Method::GET, "/api/v1/agents").await.unwrap();
        assert_eq!(listed["agents"][0]["enrolled"], false);
        let (key, wish) = request(uid(1));
        let cert = certificate(&first.say(AgentToServer { ..wish.clone() }).await);
        assert_eq!(
            certificate(&first.say(wish).await),
            cert,
            "an answer may get lost"
        );
        let own = Certified { cert, key };
        drop(first);
        let mut first = home.agent(uid(1), Some(&own)).await;
        assert_eq!(first.say(hello(uid(1))).await.error_response, None);
        let listed = home.ask(Method::GET, "/api/v1/agents").await.unwrap();
        assert_eq!(listed["agents"][0]["enrolled"], true);
        let of = home.ask(Method::GET, "/api/v1/certificates").await.unwrap();
        let of = of["certificates"].as_array().unwrap();
        assert_eq!(
            (of.len(), &of[0]["state"], &of[0]["author"]),
            (1, &"valid".into(), &"fleet".into())
        );
        // The certificate speaks for nobody else.
        let mut other = home.agent(uid(2), Some(&own)).await;
        assert!(other.say(hello(uid(2))).await.error_response.is_some());
        assert!(ended(&mut other).await.contains("another agent"));
        // Under a name that has a certificate, who has none is another agent.
        let mut clone = home.agent(uid(1), None).await;
        let new = clone.say(hello(uid(1))).await.agent_identification;
        assert!(new.is_some());
        // It renews by what it has.
        let (_, wish) = request(uid(1));
        let answer = first.say(wish).await;
        // So soon, it gets none; but this may have taken a while.
        if answer.connection_settings.is_none() {
            let refused = first.hear().await.error_response.unwrap();
            assert!(refused.error_message.contains("just now"));
        }
        // What is revoked ends at once, and opens nothing any more.
        let path = format!("/api/v1/certificates/{}/revoke", uid(1));
        let revoked = home.ask(Method::POST, &path).await.unwrap();
        assert!(revoked["revoked"].as_u64().is_some_and(|n| n >= 1));
        assert!(ended(&mut first).await.contains("revoked"));
        let opened = home.open(Some(&own)).await;
        if let Some(stream) = opened {
            // With TLS 1.3 the refusal comes after the handshake.
            let io = hyper_util::rt::TokioIo::new(stream);
            let handshake = hyper::client::conn::http1::handshake::<
                _,
                http_body_util::Full<hyper::body::Bytes>,
            >(io);
            let (mut sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            let asked = hyper::Request::builder()
                .uri("/healthz")
                .body(Default::default());
            assert!(sender.send_request(asked.unwrap()).await.is_err());
        }
        let mut back = home.agent(uid(1), None).await;
        assert!(
            back.say(hello(uid(1))).await.error_response.is_some(),
            "not by a token either"
        );
        let twice = home.ask(Method::POST, &path).await.unwrap_err();
        assert!(twice.contains("no certificate"), "{twice}");
        let audit = home.ask(Method::GET, "/api/v1/audit").await.unwrap();
        assert_eq!(audit["entries"][1]["action"], "revoke");
        assert_eq!(audit["entries"][1]["who"], "anna");
    });
}

#[test]
fn the_first_certificate_waits_for_somebody() {
    let home = Home::new(&["--approve-certificates"]);
    runtime().block_on(async {
        let mut agent = home.agent(uid(1), None).await;
        agent.say(hello(uid(1))).await;
        let (_, wish) = request(uid(1));
        let answer = agent.say(wish).await;
        assert_eq!(
            (answer.connection_settings, answer.error_response),
            (None, None)
        );
        let waiting = home.ask(Method::GET, "/api/v1/certificates").await.unwrap();
        assert_eq!(waiting["waiting"][0]["uid"], uid(1).to_string());
        let path = format!("/api/v1/certificates/{}/admit", uid(1));
        home.ask(Method::POST, &path).await.unwrap();
        // It comes without having been asked for again.
        let cert = certificate(&agent.hear().await);
        assert!(CertificateDer::from_pem_slice(&cert).is_ok());
        assert!(home.ask(Method::POST, &path).await.is_err(), "once");
    });
}

#[test]
fn two_under_one_name_over_http_are_told_apart() {
    let process = Process::start(&[]);
    let kind = [("content-type", "application/x-protobuf")];
    runtime().block_on(async {
        let say = async |sequence_num| {
            let message = AgentToServer {
                sequence_num,
                ..hello(uid(1))
            };
            let (status, body) = post(process.addr, &kind, message.encode_to_vec()).await;
            assert_eq!(status, StatusCode::OK);
            let answer = ServerToAgent::decode(body).unwrap();
            let new = answer.agent_identification?.new_instance_uid;
            InstanceUid::from_bytes(&new)
        };
        let mut given = None;
        for i in 0..4 {
            assert_eq!(say(10 + i).await, None, "the first one keeps its name");
            given = given.or(say(i).await);
        }
        assert!(given.is_some_and(|new| new != uid(1)), "{given:?}");
    });
}
