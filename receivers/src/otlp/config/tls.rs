//! `tls` of a listener.

use std::time::Duration;

use rustls::crypto::SupportedKxGroup;
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite};
use tailwater_config::Section;
use tailwater_pipeline::pem::{PemSource, decode_pem};
use tailwater_pipeline::reach::Reach;

/// A TLS version. Older ones are not supported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

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
    /// `min_version`. Default 1.2.
    pub min_version: TlsVersion,
    /// `max_version`. Default 1.3.
    pub max_version: TlsVersion,
    /// `cipher_suites` of TLS 1.2; those of 1.3 cannot be chosen. Default all safe ones.
    pub suites: Vec<SupportedCipherSuite>,
    /// `curve_preferences`, in order. Default X25519, P256, P384.
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    /// `reload_interval`: how often files are looked at for changes at most; zero (the default) =
    /// whenever a connection is opened.
    pub reload_interval: Duration,
}

impl TlsOptions {
    /// Reads the section. Without a certificate nothing but errors come of it.
    pub fn decode(s: &mut Section<'_, '_>) -> TlsOptions {
        s.refuse("tpm", "keys in a TPM cannot be used");
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
        let versions = [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];
        let cert = decode_pem(s, "cert_file", "cert_pem");
        let key = decode_pem(s, "key_file", "key_pem");
        if cert.is_none() || key.is_none() {
            s.error("cert_file (or cert_pem) and key_file (or key_pem) are required");
        }
        let client_ca = s
            .string_optional("client_ca_file")
            .filter(|path| !path.is_empty());
        let min_version = s.choice("min_version", &versions, TlsVersion::V12);
        let max_version = s.choice("max_version", &versions, TlsVersion::V13);
        if min_version > max_version {
            s.invalid("min_version", "is above max_version");
        }
        let empty = || PemSource::Text(String::new());
        let tls = TlsOptions {
            cert: cert.unwrap_or_else(empty),
            key: key.unwrap_or_else(empty),
            client_ca: client_ca.map(|path| PemSource::File(path.into())),
            client_ca_reload: s.bool("client_ca_file_reload", false),
            min_version,
            max_version,
            suites: decode_suites(s),
            groups: decode_groups(s),
            reload_interval: s.duration("reload_interval", Duration::ZERO),
        };
        for (option, problem) in super::super::tls::text_problems(&tls) {
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

/// The name that Go and IANA have for a suite.
fn name(suite: CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}

fn decode_suites(s: &mut Section<'_, '_>) -> Vec<SupportedCipherSuite> {
    let all = rustls::crypto::ring::ALL_CIPHER_SUITES;
    let Some(names) = s.string_list("cipher_suites") else {
        return all.to_vec();
    };
    let chosen = |suite: &SupportedCipherSuite| {
        suite.tls13().is_some() || names.iter().any(|n| n.trim() == name(suite.suite()))
    };
    for wanted in names.iter().map(|n| n.trim()) {
        if !all.iter().any(|suite| name(suite.suite()) == wanted) {
            let known: Vec<_> = all.iter().map(|suite| name(suite.suite())).collect();
            let text = format!("{wanted:?} is none of {}", known.join(", "));
            s.invalid("cipher_suites", text);
        }
    }
    all.iter().filter(|suite| chosen(suite)).copied().collect()
}

fn decode_groups(s: &mut Section<'_, '_>) -> Vec<&'static dyn SupportedKxGroup> {
    let all = rustls::crypto::ring::ALL_KX_GROUPS;
    let Some(names) = s.string_list("curve_preferences") else {
        return all.to_vec();
    };
    let known = [
        ("X25519", NamedGroup::X25519),
        ("P256", NamedGroup::secp256r1),
        ("P384", NamedGroup::secp384r1),
    ];
    let mut chosen = Vec::new();
    for wanted in names.iter().map(|n| n.trim()) {
        let group = known.iter().find(|(name, _)| *name == wanted);
        let group = group.and_then(|(_, id)| all.iter().find(|g| g.name() == *id));
        match group {
            Some(group) => chosen.push(*group),
            None => s.invalid(
                "curve_preferences",
                format!("{wanted:?} is none of X25519, P256, P384"),
            ),
        }
    }
    chosen
}
