//! TLS: certificates of both sides, and their replacement.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::stand::*;

fn pem(name: &str) -> String {
    format!(
        "{}/../exporters/src/client/test_certs/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// A client that trusts one authority, and shows a certificate if it has one.
fn client(ca: &str, own: Option<&str>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(pem(ca)).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = CertificateDer::from_pem_file(pem(&format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(pem(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Whether a call succeeds.
async fn call(port: u16, config: ClientConfig) -> bool {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connect = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let Ok(stream) = connect.await else {
        return false;
    };
    let handshake = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    );
    let Ok((mut sender, connection)) = handshake.await else {
        return false;
    };
    tokio::spawn(connection);
    let request = hyper::Request::post(
        "https://localhost/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    )
    .header("content-type", "application/grpc")
    .body(http_body_util::Full::new(bytes::Bytes::from(frame(0, ONE))))
    .unwrap();
    match tokio::time::timeout(LONG, sender.send_request(request)).await {
        Ok(Ok(response)) => answered(response).await.code() == 0,
        Ok(Err(_)) => false,
        Err(_) => panic!("no answer in time"),
    }
}

/// Guarantee: without a certificate of the right authority nobody gets in, and nobody without TLS.
#[tokio::test]
async fn clients_must_show_certificates_if_asked() {
    let stand = Stand::new(&format!(
        "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0', tls: {{cert_file: {}, key_file: {}, \
         client_ca_file: {}}}}}}}}}",
        pem("server1.pem"),
        pem("server1.key"),
        pem("ca1.pem"),
    ));
    let port = stand.grpc();
    assert!(call(port, client("ca1.pem", Some("client1"))).await);
    assert!(!call(port, client("ca1.pem", None)).await);
    assert!(!call(port, client("ca1.pem", Some("client_expired"))).await);
    assert!(!call(port, client("ca2.pem", Some("client1"))).await);
    assert_eq!(stand.account(0).delivered.records, 1);
}

/// Guarantee: certificates that were replaced are used for the next connection; while they are
/// half-replaced, those from before go on.
#[tokio::test]
async fn certificates_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let put = |from: &str, to: &str| {
        let new = place(&format!("{to}.new"));
        std::fs::copy(pem(from), &new).unwrap();
        std::fs::rename(new, place(to)).unwrap();
    };
    put("server1.pem", "cert");
    put("server1.key", "key");
    let stand = Stand::new(&format!(
        "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0', tls: {{cert_file: {}, key_file: {}}}}}}}}}",
        place("cert").display(),
        place("key").display(),
    ));
    let port = stand.grpc();
    assert!(call(port, client("ca1.pem", None)).await);
    put("server2.pem", "cert");
    assert!(
        call(port, client("ca1.pem", None)).await,
        "the pair does not fit yet"
    );
    put("server2.key", "key");
    assert!(call(port, client("ca2.pem", None)).await);
    assert!(!call(port, client("ca1.pem", None)).await);
}

/// Guarantee: what cannot work is told when it is built, with its option.
#[tokio::test]
async fn missing_certificates_are_named() {
    let yaml = "{protocols: {grpc: {endpoint: '127.0.0.1:0', tls: {cert_file: /nowhere.pem, \
                key_file: /nowhere.key}}}}";
    let text = Stand::try_new(yaml, &["one"]).err().unwrap().to_string();
    assert!(
        text.contains("tls::cert_file") && text.contains("/nowhere.pem"),
        "{text}"
    );
}

/// Guarantee: over HTTP with TLS, a client gets the version of HTTP that it asks for first of those there
/// are, and HTTP/1.1 if it does not ask; requests are taken over each.
#[tokio::test]
async fn http_speaks_what_was_agreed_on() {
    let stand = Stand::new(&format!(
        "{{protocols: {{http: {{endpoint: '127.0.0.1:0', tls: {{cert_file: {}, key_file: {}}}}}}}}}",
        pem("server1.pem"),
        pem("server1.key"),
    ));
    for (asked, agreed) in [
        (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
        (&[b"h2"], Some(b"h2")),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let mut config = client("ca1.pem", None);
        config.alpn_protocols = asked.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(("127.0.0.1", stand.http()));
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream.await.unwrap())
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{asked:?}");
        let io = hyper_util::rt::TokioIo::new(stream);
        let request = post("https://localhost/v1/logs", "application/x-protobuf", ONE);
        let response = if agreed == Some(b"h2") {
            let executor = hyper_util::rt::TokioExecutor::new();
            let made = hyper::client::conn::http2::handshake(executor, io).await;
            let (mut sender, connection) = made.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let made = hyper::client::conn::http1::handshake(io).await;
            let (mut sender, connection) = made.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        assert_eq!(answered(response).await.status, 200, "{asked:?}");
    }
    assert_eq!(stand.account(0).delivered.records, 4);
}
