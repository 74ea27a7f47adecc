use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::CertificateParams;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use tailwater_control_plane::store::SqliteStore;

use super::*;
use crate::trust::{REVOKED, Speaks, Trust};

const HOUR: u64 = 3_600_000;
const TERMS: Terms = Terms {
    lifetime_ms: 100 * HOUR,
    approval: false,
    heartbeat_seconds: 30,
};

fn uid(n: u8) -> InstanceUid {
    InstanceUid([n; 16])
}

struct Home {
    dir: tempfile::TempDir,
    authority: Arc<Authority>,
}

impl Home {
    fn new(terms: Terms) -> Home {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let authority = Home::open(dir.path(), terms);
        Home { dir, authority }
    }

    fn open(dir: &Path, terms: Terms) -> Arc<Authority> {
        let store = Arc::new(SqliteStore::open(&dir.join("db")).unwrap());
        Arc::new(Authority::open(dir, store, terms).unwrap())
    }

    fn trust(&self) -> Trust {
        Trust {
            authority: Some(self.authority.clone()),
            needs_certificate: false,
        }
    }
}

/// A request as an agent makes it.
fn request(name: &str) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let csr = params.serialize_request(&key).unwrap();
    csr.pem().unwrap().into_bytes()
}

fn by_token() -> Caller {
    Caller {
        certificate: None,
        token: Some("fleet".to_owned()),
    }
}

/// Who shows what was given.
fn showing(offer: &ConnectionSettingsOffers) -> Caller {
    let settings = offer.opamp.clone().unwrap();
    let pem = settings.certificate.unwrap().cert;
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    Caller {
        certificate: Shown::of(&der),
        token: None,
    }
}

fn enrol(authority: &Authority, n: u8, now: u64) -> Caller {
    let csr = request(&uid(n).to_string());
    let given = authority.request(uid(n), &csr, &by_token(), now);
    let caller = showing(&given.unwrap().expect("a certificate"));
    let serial = &caller.certificate.as_ref().unwrap().serial;
    authority.shown(uid(n), serial, now).unwrap();
    caller
}

/// Guarantee: a certificate is of one agent, ends in time, and nothing of the request is taken over but the key; the
/// same request is answered by the same certificate.
#[test]
fn a_certificate_says_of_which_agent_it_is() {
    let home = Home::new(TERMS);
    let csr = request(&uid(1).to_string());
    let ask = |now| home.authority.request(uid(1), &csr, &by_token(), now);
    let offer = ask(HOUR).unwrap().expect("a certificate");
    assert_eq!(ask(2 * HOUR), Ok(Some(offer.clone())), "once");
    let settings = offer.opamp.clone().unwrap();
    assert_eq!(settings.heartbeat_interval_seconds, 30);
    assert_eq!(settings.destination_endpoint, "");
    let given = settings.certificate.unwrap();
    assert!(given.private_key.is_empty());
    assert_eq!(given.ca_cert, home.authority.pem().as_bytes());
    let der = CertificateDer::from_pem_slice(&given.cert).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(parsed.validity().not_after.timestamp(), 101 * 3_600);
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.client_auth && !usage.value.server_auth && !usage.value.any);
    let shown = Shown::of(&der).unwrap();
    assert_eq!(shown.uid, Some(uid(1)));
    let (listed, _) = home.authority.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].serial, &*listed[0].author),
        (&shown.serial, "fleet")
    );
}

#[test]
fn requests_that_are_none_are_refused() {
    let home = Home::new(TERMS);
    let said = |csr: &[u8]| {
        let answer = home.authority.request(uid(1), csr, &by_token(), HOUR);
        answer.unwrap_err()
    };
    let of_another = request(&uid(2).to_string());
    assert!(said(&of_another).contains("another agent"));
    assert!(said(b"").contains("cannot be taken"));
    assert!(said(&[0xff]).contains("PEM"));
    assert!(said(&vec![b'a'; REQUEST_BYTES_MAX + 1]).contains("at most"));
    // Who asks has to have the key.
    let text = String::from_utf8(request(&uid(1).to_string())).unwrap();
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(text.as_bytes());
    let mut der = der.unwrap().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let broken = crate::secret::pem("CERTIFICATE REQUEST", &der);
    assert!(said(broken.as_bytes()).contains("cannot be taken"));
    // Any other name is none of ours to judge.
    assert!(
        home.authority
            .request(uid(1), &request("host"), &by_token(), HOUR)
            .is_ok()
    );
    assert_eq!(
        home.authority
            .counts
            .refused
            .load(std::sync::atomic::Ordering::Relaxed),
        5
    );
}

/// Guarantee: a certificate speaks for its agent and no other; who comes without one under a name that has one is
/// another agent; what is revoked counts nowhere, at once and after a restart.
#[test]
fn a_connection_speaks_for_its_own_agent() {
    let home = Home::new(TERMS);
    let trust = home.trust();
    assert_eq!(trust.speaks(uid(1), &by_token(), HOUR), Speaks::ToEnrol);
    let one = enrol(&home.authority, 1, HOUR);
    let two = enrol(&home.authority, 2, HOUR);
    assert_eq!(trust.speaks(uid(1), &one, HOUR), Speaks::Fully);
    assert!(matches!(trust.speaks(uid(2), &one, HOUR), Speaks::Not(_)));
    assert!(matches!(trust.speaks(uid(3), &one, HOUR), Speaks::Not(_)));
    assert_eq!(
        trust.speaks(uid(1), &by_token(), HOUR),
        Speaks::UnderAnother
    );
    let stolen = home
        .authority
        .request(uid(1), &request("x"), &by_token(), HOUR);
    assert!(
        stolen.is_err(),
        "a token gets no certificate of another agent"
    );
    let stolen = home.authority.request(uid(1), &request("x"), &two, HOUR);
    assert!(stolen.is_err(), "nor does a certificate of another one");
    // The name that it was given is the exception, until it has its own certificate.
    home.authority.gave(uid(4), uid(1), HOUR);
    assert_eq!(trust.speaks(uid(4), &one, HOUR), Speaks::ToEnrol);
    assert!(matches!(trust.speaks(uid(4), &two, HOUR), Speaks::Not(_)));
    let csr = request(&uid(4).to_string());
    assert!(
        home.authority
            .request(uid(4), &csr, &one, HOUR)
            .unwrap()
            .is_some()
    );
    assert!(matches!(
        trust.speaks(uid(4), &one, HOUR + WAITING_MS),
        Speaks::Not(_)
    ));

    assert_eq!(home.authority.revoke(uid(1), 2 * HOUR), Ok(1));
    assert!(home.authority.revoke(uid(1), 2 * HOUR).is_err());
    assert_eq!(trust.speaks(uid(1), &one, 2 * HOUR), Speaks::Not(REVOKED));
    assert_eq!(
        trust.speaks(uid(1), &by_token(), 2 * HOUR),
        Speaks::Not(REVOKED)
    );
    assert_eq!(trust.speaks(uid(2), &two, 2 * HOUR), Speaks::Fully);
    let again = home
        .authority
        .request(uid(1), &request("x"), &by_token(), 2 * HOUR);
    assert!(again.is_err(), "it stays out");
    let serial = one.certificate.unwrap().serial;
    let after = Home::open(home.dir.path(), TERMS);
    assert!(after.is_revoked(&serial));
    assert_eq!(after.standing(uid(2), 2 * HOUR), Standing::Certified);
    // Until nothing of it could be shown any more.
    assert_eq!(after.standing(uid(1), 200 * HOUR), Standing::New);
    assert_eq!(after.forget_ended(200 * HOUR).unwrap(), 3);
    assert_eq!(after.list().0, []);
}

/// Guarantee: an agent renews by what it has; the number of certificates that count is bounded; what was never shown
/// keeps no agent out.
#[test]
fn certificates_are_renewed_and_bounded() {
    let home = Home::new(TERMS);
    let authority = &home.authority;
    let caller = enrol(authority, 1, HOUR);
    let renew = |now| authority.request(uid(1), &request("x"), &caller, now);
    assert!(renew(HOUR + 1_000).unwrap_err().contains("just now"));
    for i in 0..20 {
        assert!(renew(2 * HOUR + i * 20_000).unwrap().is_some());
    }
    let now = 3 * HOUR;
    let live = |authority: &Authority| {
        let all = authority.list().0;
        all.iter().filter(|c| c.counts(now)).count()
    };
    assert_eq!(live(authority), LIVE_MAX);
    // When one is shown, others that were never shown do not count any more; what is in use does.
    let newest = showing(&renew(now).unwrap().unwrap());
    let serial = newest.certificate.unwrap().serial;
    authority.shown(uid(1), &serial, now).unwrap();
    assert_eq!(live(authority), 2);
    assert_eq!(home.trust().speaks(uid(1), &caller, now), Speaks::Fully);
    // An answer got lost, and the agent with it: it has another key now.
    let lost = authority.request(uid(7), &request("a"), &by_token(), now);
    assert!(lost.unwrap().is_some());
    assert_eq!(
        home.trust().speaks(uid(7), &by_token(), now),
        Speaks::ToEnrol
    );
    let given = authority
        .request(uid(7), &request("b"), &by_token(), now)
        .unwrap();
    assert!(given.is_some());
    // The database was restored: what it does not know is known when it is shown.
    let other = Home::new(TERMS);
    other.authority.shown(uid(1), &serial, now).unwrap();
    assert_eq!(other.authority.standing(uid(1), now), Standing::Certified);
    assert_eq!(other.authority.revoke(uid(1), now), Ok(1));
    assert!(other.authority.is_revoked(&serial));
}

/// Guarantee: with an approval, the first certificate is made when somebody said so, and renewals need nobody.
#[test]
fn the_first_one_waits_for_somebody() {
    let home = Home::new(Terms {
        approval: true,
        ..TERMS
    });
    let authority = &home.authority;
    let csr = request(&uid(1).to_string());
    let ask = |now| authority.request(uid(1), &csr, &by_token(), now);
    assert_eq!(ask(HOUR), Ok(None));
    assert_eq!(ask(2 * HOUR), Ok(None));
    let (made, waiting) = authority.list();
    assert_eq!((made.len(), waiting.len()), (0, 1));
    assert_eq!((waiting[0].since_ms, &*waiting[0].author), (HOUR, "fleet"));
    assert!(authority.admit(uid(2), HOUR).is_err());
    let given = authority.admit(uid(1), 2 * HOUR).unwrap();
    assert_eq!(authority.waiting(), 0);
    let caller = showing(&given);
    assert_eq!(ask(3 * HOUR), Ok(Some(given)), "if that got lost");
    let renewed = authority.request(uid(1), &request("x"), &caller, 4 * HOUR);
    assert!(renewed.unwrap().is_some());
    // What waits is bounded, and can be refused.
    for n in 0..WAITING_MAX + 10 {
        let mut uid = InstanceUid([9; 16]);
        uid.0[..8].copy_from_slice(&n.to_be_bytes());
        let waits = authority.wait(uid, b"", String::new(), 5 * HOUR);
        assert_eq!(waits.is_ok(), n < WAITING_MAX);
    }
    assert_eq!(authority.waiting(), WAITING_MAX);
}

#[test]
fn the_authority_is_made_once_and_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = || Arc::new(SqliteStore::in_memory().unwrap());
    let none = Authority::open(dir.path(), store(), TERMS).unwrap_err();
    assert!(none.contains("ca init"), "{none}");
    let pem = init(dir.path()).unwrap();
    assert!(init(dir.path()).unwrap_err().contains("is there already"));
    assert_eq!(
        Authority::open(dir.path(), store(), TERMS).unwrap().pem(),
        pem
    );
    let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
    let hosts = ["control.example".to_owned(), "127.0.0.1".to_owned()];
    issue_server(dir.path(), &hosts, 90, &cert, &key).unwrap();
    let der = CertificateDer::from_pem_file(&cert).unwrap();
    assert_eq!(Shown::of(&der).unwrap().uid, None);
    assert!(issue_server(dir.path(), &hosts, 90, &cert, &key).is_err());
    let path = dir.path().join("ca-key.pem");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let open = Authority::open(dir.path(), store(), TERMS).unwrap_err();
    assert!(open.contains("chmod 600"), "{open}");
}
