//! TLS settings of a client, read again when their files change.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use tailwater_pipeline::pem::{FileMark, PemError, PemSource};

use super::expiry::{Expiry, Whose};
use super::options::TlsOptions;

/// Why TLS cannot work as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("tls::{option}: cannot read {path}: {problem}")]
    Read {
        /// The option.
        option: &'static str,
        /// The file.
        path: String,
        /// What went wrong.
        problem: String,
    },
    /// PEM text that holds no usable certificate or key.
    #[error("tls::{option}: {problem}")]
    Content {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Options that contradict each other.
    #[error("tls: {0}")]
    Options(&'static str),
    /// There is nobody to trust.
    #[error("tls: the system has no usable certificate authorities ({0}); set tls::ca_file")]
    NoRoots(String),
}

impl TlsError {
    fn pem(option: &'static str, e: PemError) -> TlsError {
        match e {
            PemError::Read { path, problem } => TlsError::Read {
                option,
                path,
                problem,
            },
            PemError::Content(problem) => TlsError::Content { option, problem },
        }
    }
}

struct Loaded {
    /// `None` until the first TLS connection, if nothing but the system's authorities is needed.
    config: Option<Arc<ClientConfig>>,
    marks: [Option<FileMark>; 3],
    looked: Instant,
}

/// What is spoken over the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/2 where the server chooses it, as far as TLS can ask for it; otherwise HTTP/1.1.
    Either,
}

/// The name of HTTP/2 in ALPN (RFC 7301).
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

impl Protocol {
    /// What a server is offered by ALPN, the first one before the others.
    fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Protocol::Http1 => &[HTTP1],
            Protocol::Http2 => &[HTTP2],
            Protocol::Either => &[HTTP2, HTTP1],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// Makes TLS configurations for new connections.
pub(super) struct TlsSource {
    options: TlsOptions,
    protocol: Protocol,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Loaded>,
    expiry: Option<Expiry>,
}

impl TlsSource {
    /// Reads the configured files once, so that mistakes show before anything runs. The system's
    /// authorities are read for the first TLS connection: who sends plain HTTP needs none.
    pub fn new(
        options: TlsOptions,
        protocol: Protocol,
        expiry: Option<Expiry>,
    ) -> Result<TlsSource, TlsError> {
        let provider = options.handshake.provider();
        let marks = marks(&options);
        let config = if options.ca.is_some() || options.cert.is_some() || options.key.is_some() {
            match build(&options, protocol, &provider) {
                Ok(config) => Some(Arc::new(config)),
                Err(TlsError::NoRoots(_)) => None,
                Err(e) => return Err(e),
            }
        } else {
            None
        };
        let loaded = Mutex::new(Loaded {
            config,
            marks,
            looked: Instant::now(),
        });
        let source = TlsSource {
            options,
            protocol,
            provider,
            loaded,
            expiry,
        };
        source.show_expiry();
        Ok(source)
    }

    /// Whether a connection was made as one would be made now. Files that changed are read again.
    pub fn is_current(&self, secured: &Option<Arc<ClientConfig>>) -> bool {
        let Some(secured) = secured else { return true };
        // Without a configuration that works there is none to prefer.
        self.current()
            .map_or(true, |now| Arc::ptr_eq(&now, secured))
    }

    /// Shows when the server's certificate ends, the first one of `chain`.
    pub fn server_showed(&self, chain: &[CertificateDer<'_>]) {
        if let Some(expiry) = &self.expiry {
            expiry.show(Whose::Server, &chain[..chain.len().min(1)]);
        }
    }

    /// Shows when what is configured ends.
    fn show_expiry(&self) {
        let Some(expiry) = &self.expiry else { return };
        let whose = [
            (Whose::Authority, "ca_file", &self.options.ca, usize::MAX),
            // The rest of our chain are authorities that others renew.
            (Whose::Client, "cert_file", &self.options.cert, 1),
        ];
        for (whose, option, source, most) in whose {
            // What could not be read was said already.
            let found = source.as_ref().map(|source| certificates(option, source));
            if let Some(Ok(found)) = found {
                expiry.show(whose, &found[..found.len().min(most)]);
            }
        }
    }

    /// The configuration for a new connection. Files that changed are read again; if that fails,
    /// as in the middle of a replacement, the last good configuration goes on.
    pub fn current(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        let Some(known) = loaded.config.clone() else {
            let config = Arc::new(build(&self.options, self.protocol, &self.provider)?);
            loaded.config = Some(config.clone());
            return Ok(config);
        };
        if loaded.looked.elapsed() < self.options.reload_interval {
            return Ok(known);
        }
        loaded.looked = Instant::now();
        let marks = marks(&self.options);
        if marks == loaded.marks {
            return Ok(known);
        }
        match build(&self.options, self.protocol, &self.provider) {
            Ok(config) => {
                let config = Arc::new(config);
                loaded.config = Some(config.clone());
                loaded.marks = marks;
                self.show_expiry();
                tracing::info!("TLS certificates were read again");
                Ok(config)
            }
            Err(e) => {
                tracing::warn!(error = %e, "keeping the TLS certificates read before");
                Ok(known)
            }
        }
    }

    /// The name to send and to verify for `host`.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, String> {
        let name = self.options.server_name_override.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name:?} is not a name that a certificate can have"))
    }
}

/// What is wrong with options that are text in the configuration, by the name of the option. Reads
/// no file.
pub(super) fn text_problems(options: &TlsOptions) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut note = |option, result: Result<(), TlsError>| match result {
        Err(TlsError::Content { problem, .. }) => found.push((option, problem)),
        Err(other) => found.push((option, other.to_string())),
        Ok(()) => {}
    };
    if let Some(ca @ PemSource::Text(_)) = &options.ca {
        note("ca_pem", add_authorities(&mut RootCertStore::empty(), ca));
    }
    if let Some(cert @ PemSource::Text(_)) = &options.cert {
        note("cert_pem", certificates("cert_pem", cert).map(drop));
    }
    if let Some(key @ PemSource::Text(_)) = &options.key {
        note("key_pem", private_key(key).map(drop));
    }
    if let Some(name) = &options.server_name_override
        && ServerName::try_from(name.as_str()).is_err()
    {
        let problem = "is not a name that a certificate can have".to_owned();
        found.push(("server_name_override", problem));
    }
    let (Some(PemSource::Text(_)), Some(PemSource::Text(_)), true) =
        (&options.cert, &options.key, found.is_empty())
    else {
        return found;
    };
    let pair = TlsOptions {
        cert: options.cert.clone(),
        key: options.key.clone(),
        insecure_skip_verify: true,
        ..TlsOptions::default()
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    if let Err(TlsError::Content { problem, .. }) = build(&pair, Protocol::Http1, &provider) {
        found.push(("cert_pem", problem));
    }
    found
}

fn marks(options: &TlsOptions) -> [Option<FileMark>; 3] {
    let mark = |source: &Option<PemSource>| source.as_ref().and_then(PemSource::mark);
    [mark(&options.ca), mark(&options.cert), mark(&options.key)]
}

fn build(
    options: &TlsOptions,
    protocol: Protocol,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&options.handshake.versions())
        .map_err(|_| TlsError::Options("versions, suites and curves do not go together"))?;
    let roots = Arc::new(roots(options)?);
    let builder = if options.insecure_skip_verify {
        let any = Arc::new(AnyCertificate(provider.clone()));
        builder.dangerous().with_custom_certificate_verifier(any)
    } else {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|e| TlsError::Content {
                option: "ca_file",
                problem: e.to_string(),
            })?;
        builder.with_webpki_verifier(verifier)
    };
    let mut config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let (chain, key) = (certificates("cert_file", cert)?, private_key(key)?);
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                let problem = format!("it does not go with the key: {e}");
                TlsError::Content {
                    option: "cert_file",
                    problem,
                }
            })?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => return Err(TlsError::Options("cert_file needs key_file")),
        (None, Some(_)) => return Err(TlsError::Options("key_file needs cert_file")),
    };
    config.alpn_protocols = protocol.alpn();
    Ok(config)
}

fn roots(options: &TlsOptions) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    if let Some(ca) = &options.ca {
        add_authorities(&mut store, ca)?;
    }
    let system = options.ca.is_none() || options.include_system_ca_certs_pool;
    if system && !options.insecure_skip_verify {
        let found = rustls_native_certs::load_native_certs();
        // Systems carry roots that are no longer valid X.509; the usable ones count.
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let errors: Vec<String> = found.errors.iter().map(|e| e.to_string()).collect();
            return Err(TlsError::NoRoots(errors.join("; ")));
        }
    }
    Ok(store)
}

fn add_authorities(store: &mut RootCertStore, ca: &PemSource) -> Result<(), TlsError> {
    for cert in certificates("ca_file", ca)? {
        store.add(cert).map_err(|e| {
            let problem = format!("not a certificate authority that can be used: {e}");
            TlsError::Content {
                option: "ca_file",
                problem,
            }
        })?;
    }
    Ok(())
}

fn certificates(
    option: &'static str,
    source: &PemSource,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    source.certificates().map_err(|e| TlsError::pem(option, e))
}

fn private_key(source: &PemSource) -> Result<PrivateKeyDer<'static>, TlsError> {
    let key = source.private_key();
    key.map_err(|e| TlsError::pem("key_file", e))
}

/// `insecure_skip_verify`: any certificate will do; signatures are still checked.
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
