//! `tls` of a listener.

use std::time::Duration;

use tailwater_config::Section;
use tailwater_pipeline::pem::{PemSource, decode_pem};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::tls::Handshake;

/// `tls` of a listener.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// `cert_file` or `cert_pem`: our certificate chain.
    pub cert: PemSource,
    /// `key_file` or `key_pem`.
    pub key: PemSource,
    /// `client_ca_file`: clients must show a certificate of one of these authorities.
    pub client_ca: Option<PemSource>,
    /// `client_ca_file_reload`: read it again when it changes. Default false.
    pub client_ca_reload: bool,
    /// Versions, suites and curves.
    pub handshake: Handshake,
    /// `reload_interval`: how often files are looked at for changes at most; zero (the default) =
    /// whenever a connection is opened.
    pub reload_interval: Duration,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "ca_file",
        "Accepted with a warning: no effect on a listener; `client_ca_file` names the authorities of clients.",
    ),
    (
        "ca_pem",
        "Accepted with a warning: no effect on a listener; `client_ca_file` names the authorities of clients.",
    ),
    (
        "include_system_ca_certs_pool",
        "Accepted with a warning: no effect on a listener; `client_ca_file` names the authorities of clients.",
    ),
    (
        "cert_file",
        "File with the certificate of the listener, PEM. It or `cert_pem` is required.",
    ),
    ("cert_pem", "The same as text."),
    (
        "key_file",
        "File with its key, PEM. It or `key_pem` is required.",
    ),
    ("key_pem", "The same as text."),
    (
        "client_ca_file",
        "Clients must show a certificate that one of these authorities signed.",
    ),
    (
        "client_ca_file_reload",
        "`client_ca_file` is read again when it changes.",
    ),
    (
        "reload_interval",
        "How often files are looked at for changes at most; 0 = with each connection. Certificates that were replaced are used for the next connection.",
    ),
];

impl TlsOptions {
    /// Reads the section. Without a certificate nothing but errors come of it.
    pub fn decode(s: &mut Section<'_, '_>) -> TlsOptions {
        s.describe(OPTIONS);
        for key in ["ca_file", "ca_pem"] {
            if s.secret(key).is_some_and(|text| !text.is_empty()) {
                s.warn(
                    key,
                    "has no effect on a listener; client_ca_file names the authorities of clients",
                );
            }
        }
        if s.bool("include_system_ca_certs_pool", false) {
            s.warn(
                "include_system_ca_certs_pool",
                "has no effect on a listener",
            );
        }
        let cert = decode_pem(s, "cert_file", "cert_pem");
        let key = decode_pem(s, "key_file", "key_pem");
        if cert.is_none() || key.is_none() {
            s.error("cert_file (or cert_pem) and key_file (or key_pem) are required");
        }
        let client_ca = s
            .string_optional("client_ca_file")
            .filter(|path| !path.is_empty());
        let empty = || PemSource::Text(String::new());
        let tls = TlsOptions {
            cert: cert.unwrap_or_else(empty),
            key: key.unwrap_or_else(empty),
            client_ca: client_ca.map(|path| PemSource::File(path.into())),
            client_ca_reload: s.bool("client_ca_file_reload", false),
            handshake: Handshake::decode(s),
            reload_interval: s.duration("reload_interval", Duration::ZERO),
        };
        for (option, problem) in super::tls::text_problems(&tls) {
            s.invalid(option, problem);
        }
        tls
    }

    /// Adds the files that are read while connections are opened.
    pub fn reach(&self, reach: &mut Reach) {
        let pem = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        for source in pem.into_iter().flatten() {
            if let PemSource::File(path) = source {
                reach.reads_file(path);
            }
        }
    }
}
