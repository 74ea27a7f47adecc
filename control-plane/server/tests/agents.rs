//! The program as a process, with agents that open connections by the protocol.
//!
//! Guarantee: 5,000 connected agents cost less than 100 MB; a second agent under a name that is taken gets another
//! one; what is no message is refused and hurts nobody else; nothing is open to others without TLS and tokens.
#![allow(clippy::unwrap_used)]

mod peer;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tailwater_control::client::Client;
use tailwater_control::http::Target;
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{REPORT_FULL_STATE, ServerToAgent};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::protocol::Message;

use peer::{Agent, BOUND, Process, command, hello, post, runtime, uid};

const AGENTS: usize = 5_000;
/// So many come at the same time.
const AT_A_TIME: usize = 50;
const RSS_KB_MAX: u64 = 100_000;
/// Answers pings, and says something at each turn. What came of it, or none if the connection ended.
async fn stay(
    mut agent: Agent,
    mut turn: watch::Receiver<u32>,
    tell: mpsc::UnboundedSender<Option<u64>>,
) {
    loop {
        let told = tokio::select! {
            changed = turn.changed() => {
                if changed.is_err() {
                    return;
                }
                let beat = agent.beat();
                Some(agent.say(beat).await.flags)
            }
            heard = agent.socket.next() => match heard {
                Some(Ok(_)) => continue,
                _ => None,
            },
        };
        if tell.send(told).is_err() || told.is_none() {
            return;
        }
    }
}

#[test]
fn five_thousand_agents_cost_less_than_100_mb() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let process = Process::start(&[]);
    let before = process.rss_kb();
    runtime().block_on(async {
        let (beat, turn) = watch::channel(0);
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut numbers = (0..AGENTS).map(|n| uid(u32::try_from(n).unwrap()));
        loop {
            let mut coming = tokio::task::JoinSet::new();
            for uid in numbers.by_ref().take(AT_A_TIME) {
                let addr = process.addr;
                coming.spawn(async move {
                    let mut agent = Agent::connect(addr, uid).await;
                    let answer = agent.say(hello(uid)).await;
                    assert_eq!((answer.flags, answer.error_response), (0, None));
                    agent
                });
            }
            if coming.is_empty() {
                break;
            }
            while let Some(agent) = coming.join_next().await {
                tokio::spawn(stay(agent.unwrap(), turn.clone(), tell.clone()));
            }
        }
        beat.send_replace(1);
        for _ in 0..AGENTS {
            let flags = tokio::time::timeout(BOUND, told.recv())
                .await
                .expect("in time");
            assert_eq!(flags, Some(Some(0)));
        }
        let rss = process.rss_kb();
        println!(
            "{AGENTS} agents: {rss} kB resident, {before} kB without, {} bytes each",
            (rss - before) * 1024 / AGENTS as u64
        );
        assert!(rss < RSS_KB_MAX, "{rss} kB");
        let listed = process
            .client()
            .ask(Method::GET, "/api/v1/agents", None)
            .await
            .unwrap();
        let listed = listed["agents"].as_array().unwrap();
        assert_eq!(listed.len(), AGENTS);
        assert!(
            listed
                .iter()
                .all(|a| a["connected"] == true && a["runs"] == "own" || a["runs"].is_null())
        );
        // A message is lost, and all is asked for.
        let number = u32::try_from(AGENTS).unwrap();
        let mut agent = Agent::connect(process.addr, uid(number)).await;
        agent.say(hello(agent.uid)).await;
        agent.sequence += 1;
        let beat = agent.beat();
        assert_eq!(agent.say(beat).await.flags, REPORT_FULL_STATE);
    });
}

#[test]
fn a_name_that_is_taken_is_given_once() {
    let process = Process::start(&[]);
    runtime().block_on(async {
        let mut first = Agent::connect(process.addr, uid(1)).await;
        first.say(hello(uid(1))).await;
        let mut second = Agent::connect(process.addr, uid(1)).await;
        // The first one answers pings as long as somebody reads from it.
        let lives = tokio::spawn(async move { while first.socket.next().await.is_some() {} });
        let answer = second.say(hello(uid(1))).await;
        let new = answer
            .agent_identification
            .expect("another name")
            .new_instance_uid;
        second.uid = InstanceUid::from_bytes(&new).unwrap();
        assert_ne!(second.uid, uid(1));
        let answer = second.say(hello(second.uid)).await;
        assert_eq!(answer.agent_identification, None);
        let listed = process
            .client()
            .ask(Method::GET, "/api/v1/agents", None)
            .await
            .unwrap();
        assert_eq!(listed["agents"].as_array().unwrap().len(), 2);
        lives.abort();
        // One that is dead makes way: nobody reads from it, and its socket stays open.
        let mut dead = Agent::connect(process.addr, uid(9)).await;
        dead.say(hello(uid(9))).await;
        let mut back = Agent::connect(process.addr, uid(9)).await;
        assert_eq!(back.say(hello(uid(9))).await.agent_identification, None);
        drop(dead);
    });
}

#[test]
fn what_is_no_message_is_refused() {
    let process = Process::start(&["--message-bytes-max", "65536"]);
    let kind = ("content-type", "application/x-protobuf");
    runtime().block_on(async {
        let addr = process.addr;
        assert_eq!(
            post(addr, &[], vec![]).await.0,
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        let large = post(addr, &[kind], vec![0; 70_000]).await.0;
        assert_eq!(large, StatusCode::PAYLOAD_TOO_LARGE);
        let zip = |bytes: &[u8]| {
            use std::io::Write;
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let zipped = [
            kind,
            ("content-encoding", "gzip"),
            ("accept-encoding", "gzip"),
        ];
        let bomb = post(addr, &zipped, zip(&vec![0; 10 << 20])).await.0;
        assert_eq!(bomb, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            post(addr, &zipped, vec![1, 2, 3]).await.0,
            StatusCode::BAD_REQUEST
        );
        let (status, body) = post(addr, &[kind], vec![0xff; 10]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            ServerToAgent::decode(body)
                .unwrap()
                .error_response
                .is_some()
        );
        let (status, body) = post(addr, &zipped, zip(&hello(uid(1)).encode_to_vec())).await;
        assert_eq!(status, StatusCode::OK);
        let answer = ServerToAgent::decode(body).unwrap();
        assert_eq!((answer.error_response, answer.flags), (None, 0));
        assert!(answer.custom_capabilities.is_some());
        // Over a socket: the bad one alone is closed.
        let mut good = Agent::connect(addr, uid(2)).await;
        good.say(hello(uid(2))).await;
        let mut bad = Agent::connect(addr, uid(3)).await;
        bad.socket
            .send(Message::Binary(vec![0; 70_000].into()))
            .await
            .unwrap();
        let closed = tokio::time::timeout(BOUND, bad.socket.next())
            .await
            .expect("in time");
        assert!(
            !matches!(closed, Some(Ok(Message::Binary(_)))),
            "{closed:?}"
        );
        let beat = good.beat();
        assert_eq!(good.say(beat).await.error_response, None);
    });
}

fn refused_to_serve(args: &[&str]) -> String {
    let state = tempfile::tempdir().unwrap();
    let out = command()
        .arg("serve")
        .args(args)
        .arg("--state")
        .arg(state.path())
        .output()
        .unwrap();
    assert!(!out.status.success());
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn certificate(dir: &Path) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert.display().to_string(), key.display().to_string())
}

#[test]
fn nothing_is_open_to_others_without_tls_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let tokens = dir.path().join("tokens");
    let write = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(&tokens, text).unwrap();
        fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let file = tokens.display().to_string();
    let open = ["--listen", "0.0.0.0:0"];
    assert!(refused_to_serve(&open).contains("--tls-cert"));
    let tls = [&open[..], &["--tls-cert", &cert, "--tls-key", &key]].concat();
    assert!(refused_to_serve(&tls).contains("--tokens"));
    write("admin anna cccccccccccccccc\n");
    let all = [&tls[..], &["--tokens", &file]].concat();
    assert!(refused_to_serve(&all).contains("--client-ca"));
    // With all of it, over TLS, roles hold.
    write(
        "admin anna cccccccccccccccc\nviewer vera aaaaaaaaaaaaaaaa\nagent fleet dddddddddddddddd\n",
    );
    let process = Process::start(&all[2..]);
    runtime().block_on(async {
        let as_who = |token: Option<&str>| {
            let at = format!("https://localhost:{}", process.addr.port());
            let token = token.map(|t| t.repeat(16));
            let server = Target::of_api(&at, token.as_deref()).unwrap();
            Client::new(server.trusting(Some(cert.clone().into())))
        };
        let ask = async |token, method, path: &str| {
            let answer = as_who(token).ask(method, path, Some(String::new())).await;
            answer.map_err(|e| format!("{e:#}"))
        };
        let agents = "/api/v1/agents";
        assert!(ask(Some("a"), Method::GET, agents).await.is_ok());
        assert!(
            ask(None, Method::GET, agents)
                .await
                .unwrap_err()
                .contains("token")
        );
        assert!(
            ask(Some("d"), Method::GET, agents)
                .await
                .unwrap_err()
                .contains("role")
        );
        let pause = "/api/v1/rollouts/default/pause";
        assert!(
            ask(Some("a"), Method::POST, pause)
                .await
                .unwrap_err()
                .contains("role")
        );
        assert!(
            ask(Some("c"), Method::POST, pause)
                .await
                .unwrap_err()
                .contains("no group")
        );
        let audit = ask(Some("c"), Method::GET, "/api/v1/audit").await.unwrap();
        assert_eq!(audit["entries"][0]["who"], "anna");
        assert!(
            ask(Some("c"), Method::GET, "/v1/opamp")
                .await
                .unwrap_err()
                .contains("403")
        );
        // Without TLS there is no answer.
        assert!(
            process
                .client()
                .ask(Method::GET, agents, None)
                .await
                .is_err()
        );
    });
}

/// A request as an agent, with a certificate or without; its status, if there is an answer.
async fn post_as(
    addr: SocketAddr,
    roots: &rustls::RootCertStore,
    shows: Option<(&rcgen::Certificate, &rcgen::KeyPair)>,
) -> Option<StatusCode> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone());
    let config = match shows {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
            builder
                .with_client_auth_cert(vec![cert.der().clone()], key)
                .unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = connector.connect(name, stream).await.ok()?;
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/opamp")
        .header("host", "localhost")
        .header("content-type", "application/x-protobuf");
    let body = Full::new(Bytes::from(hello(uid(1)).encode_to_vec()));
    let response = sender
        .send_request(request.body(body).unwrap())
        .await
        .ok()?;
    Some(response.status())
}

/// Guarantee: with `--client-ca` an agent without a certificate, with one of somebody else, or with one that was
/// revoked says nothing.
#[test]
fn a_certificate_is_needed_and_can_be_revoked() {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
        KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), pem)
    };
    let (ours, pem) = authority();
    let (others, _) = authority();
    let issue = |issuer: &Issuer<'_, KeyPair>, serial: u64| {
        let mut params = CertificateParams::new(vec!["agent".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, issuer).unwrap(), key)
    };
    let (good, revoked, foreign) = (issue(&ours, 7), issue(&ours, 8), issue(&others, 7));
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2124, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(8),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let (ca, crl) = (dir.path().join("ca.pem"), dir.path().join("crl.pem"));
    fs::write(&ca, pem).unwrap();
    fs::write(&crl, list.signed_by(&ours).unwrap().pem().unwrap()).unwrap();
    let (ca, crl) = (ca.display().to_string(), crl.display().to_string());
    let process = Process::start(&[
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--client-ca",
        &ca,
        "--client-crl",
        &crl,
    ]);
    let mut roots = rustls::RootCertStore::empty();
    let pem = fs::read(&cert).unwrap();
    use rustls::pki_types::pem::PemObject;
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    runtime().block_on(async {
        let post = async |shows| post_as(process.addr, &roots, shows).await;
        assert_eq!(post(Some((&good.0, &good.1))).await, Some(StatusCode::OK));
        assert_eq!(post(None).await, Some(StatusCode::FORBIDDEN));
        assert_eq!(post(Some((&foreign.0, &foreign.1))).await, None);
        assert_eq!(post(Some((&revoked.0, &revoked.1))).await, None);
    });
}
