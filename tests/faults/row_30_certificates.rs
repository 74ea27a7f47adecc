//! Row 30: certificates that are rotated, expire, are of the wrong authority or half-written.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::tls::{TlsFront, TlsServer, certificate};
use tailwater_tests::wait;

const PASS: &str = "loss 0; new certificate on the next connection <= 10 s; half-written pair ignored; \
                    a metric of the end";

/// The longest that a new certificate may go unused.
const USED: Duration = Duration::from_secs(10);

const EXPIRY: &str = "tailwater_certificate_expiry_timestamp_seconds";

/// Ends of the test certificates: 2124 and 2025.
const END: f64 = 4_859_740_800.0;
const EXPIRED_END: f64 = 1_735_689_600.0;

fn server(certificate: &'static str) -> TlsServer {
    TlsServer {
        certificate,
        mutual: true,
        ..TlsServer::default()
    }
}

/// An agent under load whose certificates are files that the test replaces, and its server.
struct Secured {
    rig: Rig,
    front: TlsFront,
    agent: Agent,
    live: LiveWriter,
}

impl Secured {
    fn start() -> Self {
        let rig = Rig::new("certificates");
        let front = TlsFront::start(&server("server1"), rig.loki.addr());
        for (from, to) in [
            ("ca1.pem", "ca"),
            ("client1.pem", "cert"),
            ("client1.key", "key"),
        ] {
            fs::copy(certificate(from), rig.path(to)).expect("copied");
        }
        let mut config = rig.config();
        let loki = &mut config["exporters"]["loki"];
        loki["endpoint"] = json!(format!("https://{}/loki/api/v1/push", front.addr));
        loki["tls"] = json!({
            "ca_file": rig.path("ca"), "cert_file": rig.path("cert"), "key_file": rig.path("key"),
        });
        let options = LiveOptions {
            lines_per_second: 500,
            rotate_every_lines: None,
            lines_max: None,
        };
        let writer = rig.writer(1, "a.log", |_| {});
        let live = LiveWriter::start(writer, options).expect("a thread");
        let agent = rig.start(&config);
        let it = Self {
            rig,
            front,
            agent,
            live,
        };
        it.until("delivery begins", || it.delivered() > 0);
        it
    }

    fn file(&self, name: &str) -> PathBuf {
        self.rig.path(name)
    }

    /// Replaces a file in one step, as those do who know how.
    fn replace(&self, from: &str, to: &str) {
        fs::copy(certificate(from), self.file("new")).expect("copied");
        fs::rename(self.file("new"), self.file(to)).expect("renamed");
    }

    fn replace_pair(&self, name: &str) {
        self.replace(&format!("{name}.pem"), "cert");
        self.replace(&format!("{name}.key"), "key");
    }

    /// Writes the first half of a file in place.
    fn write_half(&self, from: &str, to: &str) {
        let whole = fs::read(certificate(from)).expect("a certificate");
        fs::write(self.file(to), &whole[..whole.len() / 2]).expect("written");
    }

    fn delivered(&self) -> u64 {
        self.rig.oracle.report().totals.delivered
    }

    fn until(&self, what: &str, met: impl FnMut() -> bool) -> f64 {
        let begin = Instant::now();
        let met = wait::within(3 * USED, met);
        assert!(met, "{what}: never\n{}", tail(&self.agent.log()));
        begin.elapsed().as_secs_f64()
    }

    /// How long it takes until something more is delivered.
    fn until_delivered(&self, what: &str) -> f64 {
        let before = self.delivered();
        self.until(what, || self.delivered() > before)
    }

    /// Waits until a mistake is noticed: nothing is delivered any more.
    fn until_refused(&self, marker: &str) {
        let seen = self.agent.log().matches(marker).count();
        self.until(marker, || self.agent.log().matches(marker).count() > seen);
    }

    /// How long it takes until the server sees a client's certificate.
    fn until_shown(&self, name: &str) -> f64 {
        let der = CertificateDer::from_pem_file(certificate(name)).expect("a certificate");
        let shown = || self.front.handshakes().last()?.client_certificate.clone();
        self.until(name, || shown().is_some_and(|shown| shown == *der))
    }

    fn expiry(&self, whose: &str) -> f64 {
        self.agent.scrape().sum(EXPIRY, &[("certificate", whose)])
    }
}

/// Guarantees that each thing that happens to certificates costs time only, and little of it once
/// it is mended.
#[test]
fn certificates_that_are_replaced_expire_or_are_wrong_lose_nothing() {
    let mut row = Row::new(30, "certificates rotated, expired, of the wrong authority, half-written")
        .how(
            "mutual TLS, one connection that is always busy; each file replaced under writing, the server \
             started again with another authority's certificate and with an expired one",
        )
        .pass(PASS);
    let it = Secured::start();
    let ends = ["client", "authority", "server"].map(|whose| it.expiry(whose));
    assert_eq!(ends, [END; 3]);

    // One after the other, as most do: until the key is there, the pair of before goes on.
    it.write_half("client2.pem", "cert");
    it.until_delivered("half a certificate");
    it.replace("client2.pem", "cert");
    it.until_delivered("a certificate whose key is not there yet");
    it.write_half("client2.key", "key");
    it.until_delivered("half a key");
    it.write_half("ca1.pem", "ca");
    it.until_delivered("half an authority");
    assert_eq!(it.front.handshakes().len(), 1, "no reason to connect again");
    it.replace("client2.key", "key");
    it.replace("ca1.pem", "ca");
    let rotated = it.until_shown("client2.pem");

    let mut slowest = rotated;
    it.replace_pair("client_expired");
    it.until_refused("CertificateExpired");
    assert_eq!(it.expiry("client"), EXPIRED_END);
    it.replace_pair("client1");
    slowest = slowest.max(it.until_shown("client1.pem"));

    it.front.restart(&server("server2"));
    it.until_refused("UnknownIssuer");
    it.replace("ca2.pem", "ca");
    slowest = slowest.max(it.until_delivered("the other authority"));

    it.replace("ca1.pem", "ca");
    it.front.restart(&server("server_expired"));
    it.until_refused("certificate expired");
    it.front.restart(&server("server1"));
    slowest = slowest.max(it.until_delivered("the server's new certificate"));

    it.live.stop().expect("written");
    it.rig.wait_delivered(&it.agent);
    let t = it.rig.finish(it.agent).totals;
    row.reached(format!("0 of {} lines lost or shown twice", t.written));
    row.held(
        slowest <= USED.as_secs_f64(),
        format!("a new pair shown after {rotated:.1} s; going again {slowest:.1} s at most after what was wrong was mended"),
    );
    row.reached("half-written files, and a certificate without its key, changed nothing; the ends of all three are shown");
    row.record();
}

/// Guarantees that files which change all the time, in place and half-written, lose nothing.
#[test]
fn files_that_are_swapped_all_the_time_lose_nothing() {
    let (rounds, pause) = scaled(
        (30, Duration::from_millis(500)),
        (120, Duration::from_secs(5)),
    );
    let mut row = Row::new(30, "certificate files swapped all the time")
        .how(format!(
            "mutual TLS; under writing, a file is replaced, cut in half, or of another certificate, or the server \
             starts again, {rounds} times, each {} ms",
            pause.as_millis()
        ))
        .pass(PASS);
    let it = Secured::start();
    let mut rng = Rng::new(30);
    let pick = |rng: &mut Rng, of: &[&'static str]| of[rng.below(of.len() as u64) as usize];
    for _ in 0..rounds {
        let pair = pick(&mut rng, &["client1", "client2", "client_expired"]);
        let ca = pick(&mut rng, &["ca1.pem", "ca2.pem"]);
        match rng.below(7) {
            0 => it.replace_pair(pair),
            1 => it.replace(&format!("{pair}.pem"), "cert"),
            2 => it.write_half(&format!("{pair}.key"), "key"),
            3 => it.write_half(&format!("{pair}.pem"), "cert"),
            4 => it.replace(ca, "ca"),
            5 => it.write_half(ca, "ca"),
            _ => {
                let names = ["server1", "server2", "server_expired"];
                it.front.restart(&server(pick(&mut rng, &names)));
            }
        }
        wait::let_pass(pause);
    }
    it.front.restart(&server("server1"));
    it.replace("ca1.pem", "ca");
    it.replace_pair("client1");
    let recovered = it.until_delivered("everything mended");
    it.live.stop().expect("written");
    it.rig.wait_delivered(&it.agent);
    let handshakes = it.front.handshakes().len();
    let t = it.rig.finish(it.agent).totals;
    row.reached(format!(
        "0 of {} lines lost or shown twice; {handshakes} connections",
        t.written
    ));
    row.held(
        recovered <= USED.as_secs_f64(),
        format!("going again {recovered:.1} s after all was mended"),
    );
    row.record();
}
