//! Settings of the connection that a server offers: what they come to, and certificates.
//!
//! The local ones are where everything begins. An offer that names a destination is whole: what it does not
//! say about certificates is that there is none. One without a destination changes only what it names.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost::Message;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tailwater_exporters::client::{ClientOptions, Endpoint, validity};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{
    CertificateRequest, ConnectionSettingsRequest, OpAmpConnectionSettings,
    OpAmpConnectionSettingsRequest, TlsConnectionSettings, agent,
};
use tailwater_pipeline::pem::PemSource;
use tailwater_pipeline::tls::TlsVersion;

use super::link::Way;
use super::settings::{Settings, Target};
use super::signature::hex;
use super::store::{Store, unhex};

/// Where they are kept.
const FILE: &str = "connection.json";
/// Headers of an offer.
const HEADERS_MAX: usize = 64;

/// Settings that were offered.
#[derive(Clone, PartialEq)]
pub struct Offered {
    /// The server's name for them.
    pub hash: Vec<u8>,
    /// With what earlier ones said.
    pub settings: OpAmpConnectionSettings,
    /// The key of their certificate, PEM, if it is the agent's own.
    pub key: Option<String>,
}

/// Nothing of it is for others to see.
impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offered({})", hex(&self.hash))
    }
}

/// What there is at a start.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// What is in use.
    pub valid: Option<Offered>,
    /// What was being tried.
    pub candidate: Option<Offered>,
}

impl Offered {
    /// An offer, with what `before` said. A certificate without a key is one for `own_key`.
    pub fn new(
        hash: Vec<u8>,
        offer: OpAmpConnectionSettings,
        before: Option<&Offered>,
        own_key: Option<&str>,
    ) -> Offered {
        let certified = offer.certificate.as_ref();
        let own = certified.is_some_and(|c| c.private_key.is_empty());
        let key = match certified {
            Some(_) => own_key.filter(|_| own).map(str::to_owned),
            None => before.and_then(|b| b.key.clone()),
        };
        let Some(before) = before.filter(|_| offer.destination_endpoint.is_empty()) else {
            return Offered {
                hash,
                settings: offer,
                key,
            };
        };
        let old = before.settings.clone();
        let settings = OpAmpConnectionSettings {
            destination_endpoint: old.destination_endpoint,
            headers: offer.headers.or(old.headers),
            certificate: offer.certificate.or(old.certificate),
            heartbeat_interval_seconds: offer.heartbeat_interval_seconds,
            tls: offer.tls.or(old.tls),
            proxy: offer.proxy.or(old.proxy),
        };
        Offered {
            hash,
            settings,
            key,
        }
    }

    /// How the server is reached by them.
    ///
    /// # Errors
    /// What is not taken; for people.
    pub fn way(&self, local: &Settings) -> Result<Way, String> {
        let s = &self.settings;
        let whole = !s.destination_endpoint.is_empty();
        let target = match whole {
            true => self.target(local)?,
            false => local.target.clone(),
        };
        let mut client = ClientOptions {
            http2: !target.websocket,
            ..local.client.clone()
        };
        if let Some(headers) = &s.headers {
            if headers.headers.len() > HEADERS_MAX {
                return Err(format!("more than {HEADERS_MAX} headers"));
            }
            let all = headers.headers.iter();
            client.headers = all.map(|h| (h.key.clone(), h.value.clone())).collect();
        }
        match &s.certificate {
            Some(certificate) => {
                let text = |bytes: &[u8], what: &str| {
                    let text = String::from_utf8(bytes.to_vec());
                    text.map_err(|_| format!("the {what} is not in PEM form"))
                };
                let key = match certificate.private_key.is_empty() {
                    false => text(&certificate.private_key, "key")?,
                    true => self.key.clone().ok_or(
                        "the certificate has no key, and it was not made for a request of this agent",
                    )?,
                };
                client.tls.cert = Some(PemSource::Text(text(&certificate.cert, "certificate")?));
                client.tls.key = Some(PemSource::Text(key));
            }
            None if whole => {
                client.tls.cert = None;
                client.tls.key = None;
            }
            None => {}
        }
        if let Some(tls) = &s.tls {
            set_tls(tls, &mut client)?;
        }
        if let Some(proxy) = &s.proxy {
            if proxy
                .connect_headers
                .as_ref()
                .is_some_and(|h| !h.headers.is_empty())
            {
                return Err("headers for a proxy are not supported".to_owned());
            }
            let at = Endpoint::parse(&proxy.url).map_err(|e| format!("proxy: {}", e.problem))?;
            allowed(local, &at)?;
            client.proxy_url = Some(proxy.url.clone());
        }
        Ok(Way { target, client })
    }

    fn target(&self, local: &Settings) -> Result<Target, String> {
        let target = Target::parse(&self.settings.destination_endpoint)?;
        if local.target.endpoint.https && !target.endpoint.https {
            return Err(
                "the destination is without TLS, the one in the configuration is not".to_owned(),
            );
        }
        if target.endpoint.host_port() != local.target.endpoint.host_port() {
            allowed(local, &target.endpoint)?;
        }
        Ok(target)
    }

    /// How long nothing may be said; `None`: for ever.
    pub fn interval(&self, local: &Settings) -> Option<Duration> {
        let websocket = match self.settings.destination_endpoint.as_str() {
            "" => local.target.websocket,
            url => Target::parse(url).map_or(local.target.websocket, |t| t.websocket),
        };
        match self.settings.heartbeat_interval_seconds {
            // Who asks the server has to ask it sometimes.
            0 => (!websocket).then_some(local.interval),
            // A day is long enough; what is longer does not fit into a clock.
            seconds => Some(Duration::from_secs(seconds.min(86_400))),
        }
    }

    /// Whether it changes nothing but how often something is said.
    pub fn same_way(&self, local: &Settings, way: &Way) -> bool {
        self.way(local).is_ok_and(|w| w == *way)
    }

    /// From when until when the certificate is good, in seconds of Unix time.
    pub fn certificate_lasts(&self) -> Option<(i64, i64)> {
        let text = String::from_utf8(self.settings.certificate.as_ref()?.cert.clone()).ok()?;
        let chain = PemSource::Text(text).certificates().ok()?;
        validity(chain.first()?)
    }

    /// Whether nobody takes its certificate any more.
    pub fn is_over(&self, unix_seconds: i64) -> bool {
        let lasts = self.certificate_lasts();
        lasts.is_some_and(|(_, end)| end <= unix_seconds)
    }

    /// Whether it is time for another certificate: `before` its end, in seconds. Not before a third of its time is over:
    /// who issues them for a short time is not asked all the time.
    pub fn renews(&self, before: i64, unix_seconds: i64) -> bool {
        self.certificate_lasts().is_none_or(|(begin, end)| {
            let most = end.saturating_sub(begin) / 3 * 2;
            end.saturating_sub(before.min(most)) <= unix_seconds
        })
    }
}

fn allowed(local: &Settings, server: &Endpoint) -> Result<(), String> {
    match local.rules.allows_server(&server.host_port()) {
        true => Ok(()),
        false => Err(format!(
            "{} is another server than that of the configuration; to allow it, add it to allow_endpoints of \
             extensions::opamp::remote_config",
            server.host_port()
        )),
    }
}

fn set_tls(tls: &TlsConnectionSettings, client: &mut ClientOptions) -> Result<(), String> {
    let options = &mut client.tls;
    if tls.insecure_skip_verify && !options.insecure_skip_verify {
        return Err("insecure_skip_verify: only the local configuration can say that".to_owned());
    }
    options.insecure_skip_verify = tls.insecure_skip_verify;
    if !tls.ca_pem_contents.is_empty() {
        options.ca = Some(PemSource::Text(tls.ca_pem_contents.clone()));
    }
    options.include_system_ca_certs_pool = tls.include_system_ca_certs_pool;
    let version = |text: &str| match text.trim_start_matches("TLSv") {
        "" => Ok(None),
        "1.2" => Ok(Some(TlsVersion::V12)),
        "1.3" => Ok(Some(TlsVersion::V13)),
        _ => Err(format!(
            "TLS version {text:?} is not supported; there are 1.2 and 1.3"
        )),
    };
    let handshake = &mut options.handshake;
    handshake.min_version = version(&tls.min_version)?.unwrap_or(handshake.min_version);
    handshake.max_version = version(&tls.max_version)?.unwrap_or(handshake.max_version);
    if handshake.min_version > handshake.max_version {
        return Err("the lowest version of TLS is above the highest".to_owned());
    }
    match tls.cipher_suites.is_empty() {
        true => Ok(()),
        false => Err("cipher_suites can only be set in the local configuration".to_owned()),
    }
}

/// What tells whether the local settings are those that an offer was made over: someone who changes them
/// wants them to be used.
fn fingerprint(local: &Settings) -> String {
    let mut hash = Sha256::new();
    let target = &local.target;
    hash.update(format!("{} {}", target.websocket, target.endpoint));
    for (name, value) in &local.client.headers {
        hash.update(format!("\n{name}: {value}"));
    }
    hash.update(format!("\n{:?}", local.client.tls));
    hex(&hash.finalize())
}

/// What was kept. What was offered over other local settings is left out.
pub fn kept(store: &Store, local: &Settings) -> Kept {
    let accepts = local.capabilities & agent::ACCEPTS_OPAMP_CONNECTION_SETTINGS != 0;
    let value = store
        .read(FILE)
        .filter(|v| accepts && v["local"] == fingerprint(local));
    let one = |value: &Value| {
        let bytes = BASE64_STANDARD.decode(value["settings"].as_str()?).ok()?;
        Some(Offered {
            hash: unhex(value["hash"].as_str()?)?,
            settings: OpAmpConnectionSettings::decode(bytes.as_slice()).ok()?,
            key: value["key"].as_str().map(str::to_owned),
        })
    };
    value.map_or_else(Kept::default, |v| Kept {
        valid: one(&v["valid"]),
        candidate: one(&v["candidate"]),
    })
}

/// Keeps them.
pub fn keep(store: &Store, local: &Settings, kept: &Kept) -> Result<(), String> {
    let one = |o: &Offered| {
        json!({
            "hash": hex(&o.hash),
            "settings": BASE64_STANDARD.encode(o.settings.encode_to_vec()),
            "key": o.key,
        })
    };
    let value = json!({
        "local": fingerprint(local),
        "valid": kept.valid.as_ref().map(one),
        "candidate": kept.candidate.as_ref().map(one),
    });
    store.write(FILE, &value)
}

/// A new key, in PEM form, and the request for its certificate. Whoever answers it can tell by its
/// common name that an agent asks for itself.
pub fn certificate_request(
    uid: InstanceUid,
) -> Result<(String, ConnectionSettingsRequest), String> {
    let failed = |e: rcgen::Error| format!("cannot make a certificate request: {e}");
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, uid.to_string());
    let csr = params.serialize_request(&key).map_err(failed)?;
    let request = ConnectionSettingsRequest {
        opamp: Some(OpAmpConnectionSettingsRequest {
            certificate_request: Some(CertificateRequest {
                csr: pem("CERTIFICATE REQUEST", csr.der()).into_bytes(),
            }),
        }),
    };
    Ok((pem("PRIVATE KEY", &key.serialize_der()), request))
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests;
