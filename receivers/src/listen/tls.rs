//! The server side of TLS, read again when its files change.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tailwater_pipeline::pem::{FileMark, PemError, PemSource};

use super::tls_options::TlsOptions;

/// Why TLS cannot work as configured.
#[derive(Debug, thiserror::Error)]
#[error("tls::{option}: {problem}")]
pub struct TlsError {
    option: &'static str,
    problem: String,
}

fn fail(option: &'static str) -> impl Fn(PemError) -> TlsError {
    move |e| TlsError {
        option,
        problem: e.to_string(),
    }
}

struct Loaded {
    config: Arc<ServerConfig>,
    marks: [Option<FileMark>; 3],
    looked: Instant,
}

/// Makes TLS configurations for new connections.
pub struct TlsSource {
    options: TlsOptions,
    /// Protocols by the names that ALPN has for them (RFC 7301).
    protocols: Vec<Vec<u8>>,
    loaded: Mutex<Loaded>,
}

impl TlsSource {
    /// Reads the configured files once, so that mistakes show before anything runs.
    ///
    /// # Errors
    /// A file cannot be read or used; the option is named.
    pub fn new(options: TlsOptions, protocols: &[&str]) -> Result<TlsSource, TlsError> {
        let protocols: Vec<_> = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let marks = marks(&options);
        let loaded = Loaded {
            config: Arc::new(build(&options, &protocols)?),
            marks,
            looked: Instant::now(),
        };
        Ok(TlsSource {
            options,
            protocols,
            loaded: Mutex::new(loaded),
        })
    }

    /// The configuration for a new connection. Files that changed are read again; if that fails,
    /// as in the middle of a replacement, the last good configuration goes on.
    pub fn current(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        if loaded.looked.elapsed() < self.options.reload_interval {
            return loaded.config.clone();
        }
        loaded.looked = Instant::now();
        let now = marks(&self.options);
        if now != loaded.marks {
            match build(&self.options, &self.protocols) {
                Ok(config) => {
                    (loaded.config, loaded.marks) = (Arc::new(config), now);
                    tracing::info!("TLS certificates were read again");
                }
                Err(e) => {
                    tracing::warn!(error = %e, "keeping the TLS certificates read before");
                }
            }
        }
        loaded.config.clone()
    }
}

/// The versions of the files that are to be read again when they change.
fn marks(options: &TlsOptions) -> [Option<FileMark>; 3] {
    let client_ca = options.client_ca.as_ref();
    let client_ca = client_ca.filter(|_| options.client_ca_reload);
    [
        options.cert.mark(),
        options.key.mark(),
        client_ca.and_then(PemSource::mark),
    ]
}

/// What is wrong with what is text in the configuration, by the name of the option. Reads no file.
pub fn text_problems(options: &TlsOptions) -> Vec<(&'static str, String)> {
    let given = |source: &PemSource| matches!(source, PemSource::Text(text) if !text.is_empty());
    let mut found = Vec::new();
    if given(&options.cert)
        && let Err(e) = options.cert.certificates()
    {
        found.push(("cert_pem", e.to_string()));
    }
    if given(&options.key)
        && let Err(e) = options.key.private_key()
    {
        found.push(("key_pem", e.to_string()));
    }
    if given(&options.cert) && given(&options.key) && found.is_empty() {
        let pair = TlsOptions {
            client_ca: None,
            ..options.clone()
        };
        if let Err(e) = build(&pair, &[]) {
            found.push(("cert_pem", e.problem));
        }
    }
    found
}

fn build(options: &TlsOptions, protocols: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
    let provider = options.handshake.provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&options.handshake.versions())
        .map_err(|e| TlsError {
            option: "min_version",
            problem: format!("versions, suites and curves do not go together: {e}"),
        })?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(verifier(ca, &provider)?),
    };
    let chain = options.cert.certificates().map_err(fail("cert_file"))?;
    let key = options.key.private_key().map_err(fail("key_file"))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|e| TlsError {
        option: "cert_file",
        problem: format!("it does not go with the key: {e}"),
    })?;
    config.alpn_protocols = protocols.to_vec();
    Ok(config)
}

fn verifier(
    ca: &PemSource,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let unusable = |e: &dyn std::fmt::Display| TlsError {
        option: "client_ca_file",
        problem: format!("not certificate authorities that can be used: {e}"),
    };
    let mut roots = RootCertStore::empty();
    for cert in ca.certificates().map_err(fail("client_ca_file"))? {
        roots.add(cert).map_err(|e| unusable(&e))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| unusable(&e))
}
