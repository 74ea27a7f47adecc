//! The agent of OpAMP through what takes a while: kills while offers come, many bad offers, and certificates
//! that are asked for and renewed.

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{OpAmpConnectionSettings, TlsCertificate};
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::opamp::{Fault, OpAmpServer, Seen};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::tls::{TlsFront, TlsServer, certificate};
use tailwater_tests::wait;

const APPLIED: i32 = 1;
const FAILED: i32 = 3;

fn managed(rig: &Rig, url: String) -> Value {
    let mut config = rig.config();
    config["extensions"]["opamp"] = json!({
        "server": {"ws": {"endpoint": url}},
        "heartbeat_interval": "1s",
        "capabilities": {"accepts_remote_config": true, "accepts_opamp_connection_settings": true},
    });
    config["service"]["extensions"] = json!(["opamp"]);
    config
}

fn timeout(ms: u32) -> String {
    format!("processors: {{batch: {{timeout: {ms}ms}}}}")
}

fn live(rig: &Rig) -> LiveWriter {
    let options = LiveOptions {
        lines_per_second: 500,
        rotate_every_lines: None,
        lines_max: None,
    };
    LiveWriter::start(rig.writer(1, "app.log", |_| {}), options).expect("a thread")
}

/// Guarantees that whenever an agent is killed while configurations come, it comes back with a good one, says
/// the truth about the newest, and has it in force in the end; and no line is lost.
#[test]
fn kills_while_offers_come_end_in_the_truth() {
    let rig = Rig::new("opamp-kills");
    let server = OpAmpServer::start();
    let config = managed(&rig, server.url("ws"));
    let live = live(&rig);
    let mut rng = Rng::new(7);
    for round in 0..8u32 {
        let agent = rig.start(&config);
        for n in 0..4 {
            let ms = 200 + round * 10 + n;
            server.offer(&ms.to_string(), &[("", &timeout(ms))]);
            wait::let_pass(Duration::from_millis(rng.below(40)));
        }
        agent.kill();
    }
    let agent = rig.start(&config);
    let newest = 200 + 7 * 10 + 3;
    let seen = server.wait("the newest", |s| {
        s.status() == (APPLIED, newest.to_string())
    });
    let text = format!("timeout: {newest}ms");
    assert!(
        seen.effective_text().contains(&text),
        "{}",
        seen.effective_text()
    );
    live.stop().expect("written");
    rig.wait_delivered(&agent);
    // A line that was delivered and not yet accounted for when the agent was killed comes again, under the
    // same time: the sink shows it once.
    rig.finish(agent);
}

/// Guarantees that a configuration during which the agent ended is tried once more, and then said to be bad.
#[test]
fn what_kills_the_agent_is_not_tried_for_ever() {
    let rig = Rig::new("opamp-attempts");
    let server = OpAmpServer::start();
    let config = managed(&rig, server.url("ws"));
    let dir = rig.state().join("opamp");
    fs::create_dir(&dir).expect("a directory");
    let body = BASE64_STANDARD.encode(timeout(321));
    let begun = |attempts: u32| {
        let record = json!({
            "hash": "6b31", "status": 2, "error": "", "attempts": attempts,
            "offered": {"a.yaml": [body, "text/yaml"]}, "applied": null, "version": null,
        });
        fs::write(dir.join("remote.json"), record.to_string()).expect("a file");
    };
    begun(2);
    let agent = rig.start(&config);
    let seen = server.wait("the end", |s| s.status() == (FAILED, "k1".into()));
    assert!(seen.error().contains("ended 2 times"), "{}", seen.error());
    assert!(seen.effective_text().contains("timeout: 100ms"));
    rig.finish(agent);
    begun(1);
    let agent = rig.start(&config);
    let good =
        |s: &Seen| s.status() == (APPLIED, "k1".into()) && s.effective_text().contains("321ms");
    server.wait("another try", good);
    rig.finish(agent);
    server.assert_strict();
}

/// Guarantees that two hundred bad configurations are refused with their reasons, and what runs does not
/// notice.
#[test]
fn two_hundred_bad_offers_touch_nothing() {
    let rig = Rig::new("opamp-bad");
    let server = OpAmpServer::start();
    let agent = rig.start(&managed(&rig, server.url("ws")));
    server.wait("health", |s| s.health.healthy);
    let live = live(&rig);
    let bad: [(&str, &str); 10] = [
        ("processors: {batch: {timeout: xN}}", "timeout"),
        ("processors: {batch: {timout: Nms}}", "timout"),
        ("receivers: {filelog: {include: N}}", "include"),
        (
            "receivers: {filelog: {operators: [{type: xN}]}}",
            "operators",
        ),
        ("exporters: {loki: {endpoint: 'hN'}}", "endpoint"),
        ("exporters: {lokkiN: {}}", "lokki"),
        ("service: {pipelines: {logs: {exporters: [xN]}}}", "xN"),
        ("service: {pipelines: {logs: {receivers: []}}}", "receiver"),
        ("service: {workers: N}", "workers"),
        ("N: [", ""),
    ];
    for n in 0..200u32 {
        let (text, said) = bad[n as usize % bad.len()];
        let number = (n + 7).to_string();
        let hash = format!("bad-{n}");
        server.offer(&hash, &[("", &text.replace('N', &number))]);
        let seen = server.wait(&hash, |s| s.status() == (FAILED, hash.clone()));
        let said = said.replace('N', &number);
        assert!(seen.error().contains(&said), "{text}: {}", seen.error());
    }
    let scrape = agent.scrape();
    assert_eq!(scrape.sum("tailwater_config_generation", &[]), 1.0);
    assert_eq!(scrape.sum("tailwater_opamp_offers_refused", &[]), 200.0);
    assert_eq!(
        scrape.sum("tailwater_opamp_connected", &[("extension", "opamp")]),
        1.0
    );
    live.stop().expect("written");
    rig.wait_delivered(&agent);
    rig.finish(agent);
    server.assert_strict();
}

/// Guarantees that an agent asks for a certificate for a key that never leaves it, shows what it is given from
/// then on and after a restart, and asks again before that ends.
#[test]
fn certificates_are_asked_for_and_renewed() {
    let authority = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).expect("a certificate");
    let issuer = Issuer::new(params, authority);
    let rig = Rig::new("opamp-csr");
    let server = OpAmpServer::start();
    let tls = TlsServer {
        clients: Some(root.der().to_vec()),
        ..TlsServer::default()
    };
    let front = TlsFront::start(&tls, server.addr());
    let url = format!("wss://localhost:{}/v1/opamp", front.addr.port());
    let mut config = managed(&rig, url);
    let opamp = &mut config["extensions"]["opamp"];
    opamp["server"]["ws"]["tls"] = json!({"ca_file": certificate("ca1.pem")});
    opamp["certificate_request"] = json!({"enabled": true, "renew_before": "24h"});
    let agent = rig.start(&config);
    let sign = |csr: &[u8], (year, month, day): (i32, u8, u8)| {
        let text = String::from_utf8(csr.to_vec()).expect("PEM");
        let mut request = CertificateSigningRequestParams::from_pem(&text).expect("a request");
        request.params.not_after = rcgen::date_time_ymd(year, month, day);
        request.signed_by(&issuer).expect("a certificate")
    };
    let give = |hash: &str, pem: String| {
        let settings = OpAmpConnectionSettings {
            certificate: Some(TlsCertificate {
                cert: pem.into_bytes(),
                ..TlsCertificate::default()
            }),
            heartbeat_interval_seconds: 1,
            ..OpAmpConnectionSettings::default()
        };
        server.offer_settings(hash, settings);
        server.wait(hash, |s| s.settings_status() == (APPLIED, hash.to_owned()));
    };
    let shown = || front.handshakes().pop().and_then(|h| h.client_certificate);
    let seen = server.wait("a request", |s| !s.requests.is_empty());
    assert_eq!(shown(), None);
    let first = sign(&seen.requests[0], (2089, 1, 1));
    give("first", first.pem());
    assert_eq!(shown().as_deref(), Some(&first.der()[..]));
    rig.finish(agent);
    // A century before its end: it is renewed at the start.
    config["extensions"]["opamp"]["certificate_request"]["renew_before"] = json!("876000h");
    let before = server.seen().expect("an agent").requests.len();
    let agent = rig.start(&config);
    let seen = server.wait("a renewal", |s| s.requests.len() > before);
    assert_eq!(
        shown().as_deref(),
        Some(&first.der()[..]),
        "{}",
        tail(&agent.log())
    );
    let second = sign(seen.requests.last().expect("one"), (2090, 1, 1));
    give("second", second.pem());
    assert_eq!(shown().as_deref(), Some(&second.der()[..]));
    // Under another name it needs another one.
    let uid = InstanceUid::v7(2, [8; 10]);
    let before = server.seen().expect("an agent").requests.len();
    server.fault(Fault::Rename(uid));
    let asked = wait::for_some(wait::BOUND, || {
        server.seen_as(uid).filter(|s| s.requests.len() > before)
    });
    let asked = asked.unwrap_or_else(|| panic!("{}", tail(&agent.log())));
    let third = sign(asked.requests.last().expect("one"), (2090, 1, 1));
    let name = uid.to_string();
    assert!(
        third
            .der()
            .windows(name.len())
            .any(|w| w == name.as_bytes())
    );
    give("third", third.pem());
    assert_eq!(shown().as_deref(), Some(&third.der()[..]));
    let kept = fs::read_to_string(rig.state().join("opamp/connection.json")).expect("a file");
    assert!(kept.contains("PRIVATE KEY"), "it has the key");
    let said = server.seen().expect("an agent");
    let leaked = said
        .messages
        .iter()
        .any(|m| format!("{m:?}").contains("PRIVATE"));
    assert!(!leaked && !agent.log().contains("PRIVATE"));
    rig.finish(agent);
    server.assert_strict();
}
