//! When certificates end, as a metric.

use std::sync::{Arc, Mutex};

use foldhash::HashMap;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tailwater_telemetry::metrics::{CertificateMetrics, MetricsRegistry};

/// Whose certificate it is: the value of the metric's label.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Whose {
    /// Ours, for mutual TLS.
    Client,
    /// Of the authorities in `ca_file` or `ca_pem`, the one that ends first.
    Authority,
    /// The one that the server showed last.
    Server,
}

impl Whose {
    fn label(self) -> &'static str {
        match self {
            Whose::Client => "client",
            Whose::Authority => "authority",
            Whose::Server => "server",
        }
    }
}

/// Shows when the certificates of one exporter end. A series appears when its certificate is known.
pub struct Expiry {
    registry: Arc<MetricsRegistry>,
    exporter: Arc<str>,
    shown: Mutex<HashMap<Whose, Arc<CertificateMetrics>>>,
}

impl Expiry {
    /// Shows them in `registry`, under the exporter's name.
    pub fn new(registry: Arc<MetricsRegistry>, exporter: Arc<str>) -> Expiry {
        Expiry {
            registry,
            exporter,
            shown: Mutex::default(),
        }
    }

    /// Shows when the first of `certificates` to end does. One whose end cannot be read shows
    /// nothing.
    pub(super) fn show(&self, whose: Whose, certificates: &[CertificateDer<'_>]) {
        let Some(end) = certificates.iter().filter_map(|c| not_after(c)).min() else {
            return;
        };
        let mut shown = self.shown.lock().unwrap_or_else(|e| e.into_inner());
        let series = shown.entry(whose).or_insert_with(|| {
            CertificateMetrics::new(&self.registry, &self.exporter, whose.label())
        });
        series.expiry.set(end);
    }
}

fn not_after(certificate: &[u8]) -> Option<i64> {
    validity(certificate).map(|(_, end)| end)
}

/// Begin and end of a certificate's validity as Unix time in seconds (RFC 5280, 4.1): certificate, to be
/// signed, [version], serial number, signature, issuer, validity of two times.
pub fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let inside = |bytes| element(bytes).filter(|e| e.tag == SEQUENCE);
    let mut rest = inside(inside(certificate)?.content)?.content;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.rest;
    }
    for _before_validity in 0..3 {
        rest = element(rest)?.rest;
    }
    let begin = element(inside(rest)?.content)?;
    let end = element(begin.rest)?;
    let time = |element: &Element<'_>| {
        let text = std::str::from_utf8(element.content).ok()?;
        match element.tag {
            // Two digits of the year; 50 to 99 are of the last century.
            UTC_TIME => {
                let century = if text.get(..1)? >= "5" { "19" } else { "20" };
                seconds(&format!("{century}{text}"))
            }
            GENERALIZED_TIME => seconds(text),
            _ => None,
        }
    };
    Some((time(&begin)?, time(&end)?))
}

/// Unix time of `YYYYMMDDhhmmssZ`, the only form that certificates may have.
fn seconds(text: &str) -> Option<i64> {
    let (date, time) = text.split_at_checked(8)?;
    let at: Timestamp = format!("{date}T{time}").parse().ok()?;
    Some(at.as_second())
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

/// The first element of DER (X.690, 8.1).
fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (tag, after) = bytes.split_first()?;
    let (first, mut after) = after.split_first()?;
    let mut length = usize::from(*first);
    if *first >= 0x80 {
        let count = usize::from(first & 0x7f);
        let digits = after.get(..count).filter(|d| (1..=4).contains(&d.len()))?;
        length = digits.iter().fold(0, |l, d| l << 8 | usize::from(*d));
        after = &after[count..];
    }
    let content = after.get(..length)?;
    Some(Element {
        tag: *tag,
        content,
        rest: &after[length..],
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn test_certificate(name: &str) -> Vec<u8> {
        let path = format!(
            "{}/src/client/test_certs/{name}",
            env!("CARGO_MANIFEST_DIR")
        );
        CertificateDer::from_pem_file(path).unwrap().to_vec()
    }

    fn at(time: &str) -> Option<i64> {
        Some(time.parse::<Timestamp>().unwrap().as_second())
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        // The years of both forms of time.
        let end = not_after(&test_certificate("client1.pem"));
        assert_eq!(end, at("2124-01-01T00:00:00Z"));
        let end = not_after(&test_certificate("client_expired.pem"));
        assert_eq!(end, at("2025-01-01T00:00:00Z"));
        let (begin, end) = validity(&test_certificate("client1.pem")).unwrap();
        assert!(begin < end && Some(end) == at("2124-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let whole = test_certificate("client1.pem");
        let validity = whole.len() / 3;
        for bytes in [&whole[..0], &whole[..1], &whole[..validity], &[0x30, 0x84]] {
            assert_eq!(not_after(bytes), None);
        }
        let mut damaged = whole.clone();
        for (at, byte) in whole.iter().enumerate() {
            damaged[at] = !byte;
            // Whatever it says, it says it without a panic.
            let _ = not_after(&damaged);
            damaged[at] = *byte;
        }
    }

    #[test]
    fn the_first_end_of_several_is_shown() {
        let registry = Arc::new(MetricsRegistry::default());
        let expiry = Expiry::new(registry.clone(), "loki/a".into());
        assert!(!registry.render().contains("tailwater_certificate_expiry"));
        let certificates = ["ca1.pem", "client_expired.pem"].map(test_certificate);
        let certificates = certificates.map(CertificateDer::from);
        expiry.show(Whose::Authority, &certificates);
        let wanted = format!(
            "{{exporter=\"loki/a\",certificate=\"authority\"}} {}",
            at("2025-01-01T00:00:00Z").unwrap()
        );
        assert!(registry.render().contains(&wanted), "{}", registry.render());
    }
}
