//! Certificates and keys in files, and what a client trusts and shows: of the store, of the server and of its commands.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The cryptography of all connections.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What went wrong with a file; for people.
pub fn said<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}

/// All certificates of a PEM file, in their order: a chain, or authorities.
///
/// # Errors
/// It cannot be read, or there is none in it; for people.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path).map_err(said(path))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(said(path))?;
    match all.is_empty() {
        true => Err(format!("{}: no certificate in it", path.display())),
        false => Ok(all),
    }
}

/// The first private key of a PEM file.
///
/// # Errors
/// It cannot be read, or there is none in it; for people, without a byte of the file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    // The parser's error could quote the key.
    let none = |_| format!("{}: no private key in PEM form in it", path.display());
    PrivateKeyDer::from_pem_file(path).map_err(none)
}

/// The authorities of a PEM file.
///
/// # Errors
/// As [`certificates`]; or one of them is none of an authority.
pub fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(said(path))?;
    }
    Ok(roots)
}

/// Of a client: trusts the authorities of a file, or the system's; shows a certificate with its key (two files), or none.
///
/// # Errors
/// A file cannot be used; for people.
pub fn client(ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let trusted = match ca {
        Some(path) => roots(path)?,
        None => {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(trusted);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = private_key(key)?;
            builder
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(said(cert))?
        }
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: a file that cannot be used is named, and nothing of a key is quoted.
    #[test]
    fn files_that_cannot_be_used_are_named_and_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let issued = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let cert = at("cert.pem", &issued.cert.pem());
        let key = at("key.pem", &issued.signing_key.serialize_pem());
        let empty = at("empty.pem", "");
        let label = "PRIVATE KEY";
        let broken = at(
            "broken.pem",
            &format!("-----BEGIN {label}-----\ns3cret!\n-----END {label}-----\n"),
        );
        assert!(client(Some(&cert), Some((&cert, &key))).is_ok());
        let gone = dir.path().join("gone.pem");
        for (ca, own, about) in [
            (&gone, (&cert, &key), "gone.pem: "),
            (&empty, (&cert, &key), "empty.pem: no certificate in it"),
            (&cert, (&empty, &key), "empty.pem: no certificate in it"),
            (
                &cert,
                (&cert, &broken),
                "broken.pem: no private key in PEM form in it",
            ),
            (
                &cert,
                (&cert, &empty),
                "empty.pem: no private key in PEM form in it",
            ),
        ] {
            let error = client(Some(ca), Some((own.0, own.1))).unwrap_err();
            assert!(
                error.contains(about) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
