//! TLS to the API.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::access::Target;

/// What a connection to `target` is made with, or what is wrong with that.
pub(crate) fn config(target: &Target) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if target.insecure {
        let any = Arc::new(AnyCertificate(provider));
        builder.dangerous().with_custom_certificate_verifier(any)
    } else {
        let roots = Arc::new(roots(target)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider);
        let verifier = verifier.build().map_err(|e| e.to_string())?;
        builder.with_webpki_verifier(verifier)
    };
    let Some((chain, key)) = &target.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
    let key = key.map_err(|e| format!("the client's key: {e}"))?;
    let config = builder.with_client_auth_cert(chain, key);
    config.map_err(|e| format!("the client's certificate does not go with its key: {e}"))
}

/// The name that the certificate of `target` has to have.
pub(crate) fn server_name(target: &Target) -> Result<ServerName<'static>, String> {
    let name = target.server_name.as_ref().unwrap_or(&target.host);
    let name = ServerName::try_from(name.clone());
    name.map_err(|_| {
        format!(
            "{:?} is not a name that a certificate can have",
            target.host
        )
    })
}

fn roots(target: &Target) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let Some(pem) = &target.authorities else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    };
    for authority in certificates(pem)? {
        let added = store.add(authority);
        added.map_err(|e| format!("the API server's authority cannot be used: {e}"))?;
    }
    Ok(store)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("there is no certificate in PEM form".into()),
        Err(e) => Err(format!("a certificate in PEM form: {e}")),
    }
}

/// Any certificate will do; signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::access::{Access, Auth};
    use crate::client::{Client, Form};
    use crate::model::Named;

    struct Pair {
        certificate: String,
        key: String,
    }

    fn pair() -> Pair {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        Pair {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    /// A server that knows one node; its port.
    async fn server(own: &Pair) -> u16 {
        let provider = Arc::new(ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                certificates(own.certificate.as_bytes()).unwrap(),
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Who does not trust the server hangs up.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                let body = r#"{"metadata":{"name":"n1","uid":"u1"}}"#;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }

    fn kubeconfig(dir: &std::path::Path, cluster: serde_json::Value) -> PathBuf {
        let path = dir.join("config");
        let text = json!({
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// Guarantee: the server's certificate is verified by the authority that is named, and for the name that is
    /// wanted; not at all only if that is said.
    #[tokio::test]
    async fn the_server_is_verified() {
        let (own, other) = (pair(), pair());
        let port = server(&own).await;
        let dir = tempfile::tempdir().unwrap();
        let (good, bad) = (
            STANDARD.encode(&own.certificate),
            STANDARD.encode(&other.certificate),
        );
        let server = |host: &str| format!("https://{host}:{port}");
        let cases = [
            (
                json!({"server": server("localhost"), "certificate-authority-data": good}),
                true,
            ),
            (
                json!({"server": server("localhost"), "certificate-authority-data": bad}),
                false,
            ),
            (json!({"server": server("localhost")}), false),
            (
                json!({"server": server("127.0.0.1"), "certificate-authority-data": good}),
                false,
            ),
            (
                json!({"server": server("127.0.0.1"), "certificate-authority-data": good, "tls-server-name": "localhost"}),
                true,
            ),
            (
                json!({"server": server("127.0.0.1"), "insecure-skip-tls-verify": true}),
                true,
            ),
            (
                json!({"server": server("localhost"), "certificate-authority-data": "UEVN"}),
                false,
            ),
        ];
        for (cluster, works) in cases {
            let access = Access {
                auth: Auth::KubeConfig,
                context: None,
                kube_config: Some(kubeconfig(dir.path(), cluster.clone())),
            };
            let client = Client::new(access, "test");
            let answer = client
                .get::<Named>("/api/v1/nodes/n1", Form::Metadata)
                .await;
            match answer {
                Ok(node) => assert!(works && node.metadata.uid == "u1", "{cluster}"),
                Err(error) => assert!(!works, "{cluster}: {error}"),
            }
        }
    }
}
