//! Certificates that others show: of which agent they are, and whether they still count.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::signature::hex;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Authority;

/// What a certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Its number, in hexadecimal.
    pub serial: String,
    /// Of which agent it is: `urn:uuid:` among its names, or a UUID as its common name. None if it does not say it.
    pub uid: Option<InstanceUid>,
}

impl Shown {
    /// What a certificate says that was verified. None if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Shown> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|n| &n.value.general_names[..]);
        let by_uri = names
            .unwrap_or_default()
            .iter()
            .find_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix("urn:uuid:")?.parse().ok(),
                _ => None,
            });
        let mut commons = parsed.subject().iter_common_name();
        let by_name = || commons.find_map(|n| n.as_str().ok()?.parse().ok());
        Some(Shown {
            serial: hex(parsed.raw_serial()),
            uid: by_uri.or_else(by_name),
        })
    }
}

/// Verifies as another one does, and refuses what the authority has revoked since.
#[derive(Debug)]
pub struct Unrevoked {
    /// Who signed it, and whether it has ended.
    pub inner: Arc<dyn ClientCertVerifier>,
    /// Whose it is.
    pub authority: Arc<Authority>,
}

impl ClientCertVerifier for Unrevoked {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        let shown = Shown::of(end_entity).ok_or(CertificateError::BadEncoding)?;
        match self.authority.is_revoked(&shown.serial) {
            false => Ok(verified),
            true => Err(CertificateError::Revoked.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
