//! TLS of the listener.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tailwater_control_plane::tls::{certificates, private_key, provider, roots, said};

use crate::authority::{Authority, CA_FILE, Unrevoked};

/// Files of the listener.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// Chain of certificates, PEM.
    pub cert: &'a Path,
    /// Its key, PEM.
    pub key: &'a Path,
    /// Who signs certificates of agents, PEM.
    pub client_ca: Option<&'a Path>,
    /// Certificates of agents that do not count any more, PEM.
    pub client_crl: Option<&'a Path>,
    /// Issues certificates of agents.
    pub authority: Option<&'a Arc<Authority>>,
}

/// Of the listener. A certificate of the other end is looked at if it shows one, and must be good then; who has to
/// show one is decided by what it asks for.
///
/// # Errors
/// A file cannot be used; for people.
pub fn listener(files: &Files<'_>) -> Result<Arc<ServerConfig>, String> {
    let key = private_key(files.key)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match (files.client_ca, files.authority) {
        (None, None) => builder.with_no_client_auth(),
        (None, Some(authority)) => {
            let said = |e: &dyn std::fmt::Display| format!("{CA_FILE}: {e}");
            let own = CertificateDer::from_pem_slice(authority.pem().as_bytes());
            let mut roots = RootCertStore::empty();
            let added = roots.add(own.map_err(|e| said(&e))?);
            added.map_err(|e| said(&e))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let inner = verifier.allow_unauthenticated().build();
            let verifier = Unrevoked {
                inner: inner.map_err(|e| said(&e))?,
                authority: authority.clone(),
            };
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
        (Some(path), _) => {
            let roots = Arc::new(roots(path)?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated();
            if let Some(path) = files.client_crl {
                let lists =
                    CertificateRevocationListDer::pem_file_iter(path).map_err(said(path))?;
                let lists: Vec<_> = lists.collect::<Result<_, _>>().map_err(said(path))?;
                verifier = verifier.with_crls(lists);
            }
            builder.with_client_cert_verifier(verifier.build().map_err(said(path))?)
        }
    };
    let chain = certificates(files.cert)?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(said(files.cert))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if files.authority.is_some() {
        // A session that is taken up again shows no certificate anew.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}
