//! What TLS of clients and of listeners has in common beside certificates: versions, cipher suites and
//! curves, under the names that the collector (`configtls`) has for them.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};
use tailwater_config::Section;

/// Names of curves. P521 and the hybrid with ML-KEM, which Go also has, are not built in.
const CURVES: [(&str, NamedGroup); 3] = [
    ("X25519", NamedGroup::X25519),
    ("P256", NamedGroup::secp256r1),
    ("P384", NamedGroup::secp384r1),
];

/// A TLS version. Older ones are not supported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// How a connection is made secure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// `min_version`. Default 1.2.
    pub min_version: TlsVersion,
    /// `max_version`. Default 1.3.
    pub max_version: TlsVersion,
    /// `cipher_suites` of TLS 1.2; those of 1.3 cannot be chosen. Default all there are.
    pub suites: Vec<CipherSuite>,
    /// `curve_preferences`, in order. Default X25519, P256, P384.
    pub curves: Vec<NamedGroup>,
}

impl Default for Handshake {
    fn default() -> Handshake {
        Handshake {
            min_version: TlsVersion::V12,
            max_version: TlsVersion::V13,
            suites: all_suites().map(|suite| suite.suite()).collect(),
            curves: CURVES.map(|(_, group)| group).to_vec(),
        }
    }
}

fn all_suites() -> std::slice::Iter<'static, SupportedCipherSuite> {
    ring::ALL_CIPHER_SUITES.iter()
}

/// The name that Go and IANA have for a suite.
fn suite_name(suite: CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "min_version",
        "The oldest version of TLS; 1.2 unless set. 1.0 and 1.1 mean 1.2, with a warning.",
    ),
    (
        "max_version",
        "The newest version; 1.3 unless set. 1.0 and 1.1 are refused.",
    ),
    (
        "cipher_suites",
        "Of TLS 1.2: those of ECDHE with AES-GCM or ChaCha20; all unless set. Others are refused: they are weak and not built in. Those of 1.3 can be named, and are always on.",
    ),
    (
        "include_insecure_cipher_suites",
        "Accepted with a warning: none is built in.",
    ),
    (
        "curve_preferences",
        "X25519, P256, P384, in order; all unless set. P521 and X25519MLKEM768 are refused.",
    ),
    ("tpm", "Keys in a TPM cannot be used."),
    ("tpm::enabled", "True is refused."),
    ("tpm::auth", "Has nothing to act on."),
    ("tpm::owner_auth", "Has nothing to act on."),
    ("tpm::path", "Has nothing to act on."),
];

impl Handshake {
    /// Reads the options out of a section `tls`, and refuses keys in a TPM.
    pub fn decode(s: &mut Section<'_, '_>) -> Handshake {
        s.describe(OPTIONS);
        refuse_tpm(s);
        let d = Handshake::default();
        let handshake = Handshake {
            min_version: decode_min(s).unwrap_or(d.min_version),
            max_version: decode_max(s).unwrap_or(d.max_version),
            suites: decode_suites(s).unwrap_or(d.suites),
            curves: decode_curves(s).unwrap_or(d.curves),
        };
        if handshake.min_version > handshake.max_version {
            s.invalid("min_version", "is above max_version");
        } else if handshake.max_version == TlsVersion::V12
            && handshake.chosen().all(|suite| suite.tls13().is_some())
        {
            s.invalid("cipher_suites", "none of them is of TLS 1.2 (max_version)");
        }
        handshake
    }

    /// The suites, those of TLS 1.3 always.
    fn chosen(&self) -> impl Iterator<Item = &'static SupportedCipherSuite> {
        all_suites().filter(|s| s.tls13().is_some() || self.suites.contains(&s.suite()))
    }

    /// The cryptography to make connections with.
    pub fn provider(&self) -> Arc<CryptoProvider> {
        let group = |wanted: &NamedGroup| -> Option<&'static dyn SupportedKxGroup> {
            let mut all = ring::ALL_KX_GROUPS.iter();
            all.find(|group| group.name() == *wanted).copied()
        };
        let mut provider = ring::default_provider();
        provider.cipher_suites = self.chosen().copied().collect();
        provider.kx_groups = self.curves.iter().filter_map(group).collect();
        Arc::new(provider)
    }

    /// The versions, the newest one first.
    pub fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let range = self.min_version..=self.max_version;
        let all = [
            (TlsVersion::V13, &rustls::version::TLS13),
            (TlsVersion::V12, &rustls::version::TLS12),
        ];
        let wanted = all.into_iter().filter(|(v, _)| range.contains(v));
        wanted.map(|(_, version)| version).collect()
    }
}

fn refuse_tpm(s: &mut Section<'_, '_>) {
    let enabled = s.section("tpm", |t| {
        t.secret("auth");
        t.secret("owner_auth");
        t.string_optional("path");
        t.bool("enabled", false)
    });
    if enabled {
        s.invalid("tpm", "keys in a TPM cannot be used; set key_file instead");
    }
}

fn version(name: &str) -> Option<TlsVersion> {
    match name {
        "1.2" => Some(TlsVersion::V12),
        "1.3" => Some(TlsVersion::V13),
        _ => None,
    }
}

/// What is older than 1.2 is less than what is asked for in any case.
fn decode_min(s: &mut Section<'_, '_>) -> Option<TlsVersion> {
    let name = s.one_of("min_version", &["", "1.0", "1.1", "1.2", "1.3"], "");
    if ["1.0", "1.1"].contains(&name) {
        s.warn("min_version", "1.2 is the oldest version that is built in");
    }
    version(name)
}

fn decode_max(s: &mut Section<'_, '_>) -> Option<TlsVersion> {
    let name = s.one_of("max_version", &["", "1.0", "1.1", "1.2", "1.3"], "");
    if ["1.0", "1.1"].contains(&name) {
        let why = "1.2 is the oldest version that is built in; set 1.2 or 1.3, or leave it out";
        s.invalid("max_version", why);
    }
    version(name)
}

/// `None` if none are given.
fn decode_suites(s: &mut Section<'_, '_>) -> Option<Vec<CipherSuite>> {
    if s.bool("include_insecure_cipher_suites", false) {
        let why = "has no effect: no insecure suites are built in";
        s.warn("include_insecure_cipher_suites", why);
    }
    let names = s.string_list("cipher_suites").filter(|n| !n.is_empty())?;
    let mut chosen = Vec::new();
    for wanted in names.iter().map(|n| n.trim()) {
        let known = all_suites().map(|suite| suite.suite());
        match known.clone().find(|suite| suite_name(*suite) == wanted) {
            Some(suite) => chosen.push(suite),
            None => {
                let all: Vec<String> = known.map(suite_name).collect();
                s.invalid("cipher_suites", suite_problem(wanted, &all.join(", ")));
            }
        }
    }
    Some(chosen)
}

fn suite_problem(wanted: &str, all: &str) -> String {
    let old = ["_CBC_", "_RC4_", "_3DES_", "TLS_RSA_WITH_"];
    if wanted.starts_with("TLS_") && old.iter().any(|part| wanted.contains(part)) {
        return format!(
            "{wanted:?} is left out of this build, as it is weak: remove it; a peer that knows nothing else \
             cannot be spoken with. There are {all}"
        );
    }
    format!("{wanted:?} is none of {all}")
}

/// `None` if none are given.
fn decode_curves(s: &mut Section<'_, '_>) -> Option<Vec<NamedGroup>> {
    let names = s
        .string_list("curve_preferences")
        .filter(|n| !n.is_empty())?;
    let mut chosen = Vec::new();
    for wanted in names.iter().map(|n| n.trim()) {
        match CURVES.iter().find(|(name, _)| *name == wanted) {
            Some((_, group)) => chosen.push(*group),
            None if ["P521", "X25519MLKEM768"].contains(&wanted) => s.invalid(
                "curve_preferences",
                format!("{wanted:?} is not built in: remove it; there are X25519, P256, P384"),
            ),
            None => s.invalid(
                "curve_preferences",
                format!("{wanted:?} is none of X25519, P256, P384"),
            ),
        }
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use tailwater_config::{Errors, parse};

    use super::*;

    fn decode(yaml: &str) -> (Handshake, Errors) {
        let node = parse(yaml, "test.yaml").expect("it is YAML");
        let mut errors = Errors::new();
        let mut section = Section::new(&node, "tls", &mut errors);
        let handshake = Handshake::decode(&mut section);
        section.finish();
        (handshake, errors)
    }

    fn good(yaml: &str) -> Handshake {
        let (handshake, errors) = decode(yaml);
        assert!(errors.is_empty(), "{yaml}: {errors}");
        handshake
    }

    #[test]
    fn nothing_and_emptiness_give_the_defaults() {
        for yaml in [
            "",
            "{cipher_suites: [], curve_preferences: [], min_version: '', max_version: ''}",
            "{tpm: {enabled: false, path: /dev/tpm0, auth: a, owner_auth: b}}",
            "{min_version: '1.0'}",
            "{min_version: '1.1', include_insecure_cipher_suites: true}",
        ] {
            assert_eq!(good(yaml), Handshake::default(), "{yaml}");
        }
        let d = Handshake::default();
        assert_eq!(d.versions().len(), 2);
        let provider = d.provider();
        assert_eq!(provider.cipher_suites, ring::ALL_CIPHER_SUITES);
        let names: Vec<_> = provider.kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(names, CURVES.map(|(_, group)| group));
    }

    #[test]
    fn every_option_has_its_effect() {
        let h = good(
            "{min_version: '1.2', max_version: '1.2', curve_preferences: [P384, X25519],
              cipher_suites: [TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256]}",
        );
        assert_eq!(h.versions(), [&rustls::version::TLS12]);
        let provider = h.provider();
        let curves: Vec<_> = provider.kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(curves, [NamedGroup::secp384r1, NamedGroup::X25519]);
        let old = provider
            .cipher_suites
            .iter()
            .filter(|s| s.tls13().is_none());
        let old: Vec<_> = old.map(|s| s.suite()).collect();
        assert_eq!(
            old,
            [CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]
        );
        let h = good("{min_version: '1.3'}");
        assert_eq!(h.versions(), [&rustls::version::TLS13]);
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_remedy() {
        for (yaml, part) in [
            ("{min_version: '1.4'}", "1.3"),
            ("{max_version: '1.1'}", "leave it out"),
            (
                "{min_version: '1.3', max_version: '1.2'}",
                "above max_version",
            ),
            ("{cipher_suites: [x]}", "TLS_AES_128_GCM_SHA256"),
            (
                "{cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]}",
                "as it is weak: remove it",
            ),
            (
                "{cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]}",
                "remove it",
            ),
            (
                "{max_version: '1.2', cipher_suites: [TLS_AES_128_GCM_SHA256]}",
                "none of them is of TLS 1.2",
            ),
            (
                "{curve_preferences: [P256, P521]}",
                "not built in: remove it",
            ),
            ("{curve_preferences: [X25519MLKEM768]}", "remove it"),
            ("{curve_preferences: [p256]}", "is none of X25519"),
            ("{tpm: {enabled: true}}", "key_file"),
        ] {
            let (_, errors) = decode(yaml);
            let text = errors.to_string();
            assert!(text.contains(part), "{yaml}: {text}");
        }
    }
}
