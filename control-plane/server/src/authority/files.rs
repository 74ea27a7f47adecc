//! The authority's own files, and certificates as such.

use std::path::Path;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
    date_time_ymd,
};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::signature::hex;

use crate::now_ms;
use crate::secret;

/// The certificate of the authority, in the state directory.
pub const CA_FILE: &str = "ca.pem";
/// Its key.
const KEY_FILE: &str = "ca-key.pem";
/// How long the authority lasts, days.
const CA_DAYS: u64 = 3_650;
const DAY_MS: u64 = 86_400_000;
/// Clocks of agents may be so much behind, ms.
const SKEW_MS: u64 = 300_000;

fn failed(error: rcgen::Error) -> String {
    error.to_string()
}

/// A point in time, as certificates have it: whole seconds.
fn set_times(params: &mut CertificateParams, from_ms: u64, to_ms: u64) {
    let at = |ms: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(ms / 1_000);
    params.not_before = at(from_ms);
    params.not_after = at(to_ms);
}

fn serial() -> Result<[u8; 16], String> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|e| e.to_string())?;
    // Positive, and of the same length always (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Makes the authority of a state directory. Its certificate, PEM.
///
/// # Errors
/// There is one, or it cannot be written; for people.
pub fn init(dir: &Path) -> Result<String, String> {
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("tailwater-control");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from(serial()?.to_vec()));
    let now = now_ms();
    set_times(&mut params, now - SKEW_MS, now + CA_DAYS * DAY_MS);
    let pem = params.self_signed(&key).map_err(failed)?.pem();
    // The key first: a certificate without one would be in the way.
    secret::make(&dir.join(KEY_FILE), &key.serialize_pem())?;
    secret::make(&dir.join(CA_FILE), &pem)?;
    Ok(pem)
}

/// The authority of a state directory: its certificate, and what signs.
pub(super) fn load(dir: &Path) -> Result<(String, Issuer<'static, KeyPair>), String> {
    let path = dir.join(CA_FILE);
    let pem = std::fs::read_to_string(&path).map_err(|e| {
        format!(
            "{}: {e}; `tailwater-control ca init` makes an authority",
            path.display()
        )
    })?;
    let path = dir.join(KEY_FILE);
    let text = secret::read(&path)?;
    // What the parser says could quote the key.
    let key = KeyPair::from_pem(&text)
        .map_err(|_| format!("{}: no private key in PEM form in it", path.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&pem, key);
    let issuer = issuer.map_err(|e| format!("{}: {e}", dir.join(CA_FILE).display()))?;
    Ok((pem, issuer))
}

/// A certificate for the listener, and its key, in files that are not there yet.
///
/// # Errors
/// There is no authority, or what cannot be written; for people.
pub fn issue_server(
    dir: &Path,
    hosts: &[String],
    days: u64,
    cert: &Path,
    key_file: &Path,
) -> Result<(), String> {
    let (_, issuer) = load(dir)?;
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(hosts).map_err(failed)?;
    params.distinguished_name = named(hosts.first().map_or("tailwater-control", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from(serial()?.to_vec()));
    let now = now_ms();
    set_times(&mut params, now - SKEW_MS, now + days * DAY_MS);
    let pem = params.signed_by(&key, &issuer).map_err(failed)?.pem();
    secret::make(key_file, &key.serialize_pem())?;
    secret::make(cert, &pem)
}

/// A certificate that was made.
pub(super) struct Made {
    /// Its number, in hexadecimal.
    pub serial: String,
    /// Itself.
    pub pem: String,
}

/// The certificate of an agent. Of the request nothing is taken over but the key.
pub(super) fn certificate(
    uid: InstanceUid,
    request: &CertificateSigningRequestParams,
    issuer: &Issuer<'static, KeyPair>,
    now_ms: u64,
    ends_ms: u64,
) -> Result<Made, String> {
    let number = serial()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&uid.to_string());
    let uri = Ia5String::try_from(format!("urn:uuid:{uid}")).map_err(failed)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from(number.to_vec()));
    set_times(&mut params, now_ms.saturating_sub(SKEW_MS), ends_ms);
    let made = params.signed_by(&request.public_key, issuer);
    Ok(Made {
        serial: hex(&number),
        pem: made.map_err(failed)?.pem(),
    })
}
