//! How the agent reaches Loki: over TLS, with credentials, through proxies. Each option has its
//! effect on the wire, and a mistake in one costs time, not lines.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::version::TLS12;
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use serde_json::{Value, json};
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::tls::{Handshake, Proxy, TlsFront, TlsServer, certificate};
use tailwater_tests::wait;

/// A server that has not heard of TLS 1.3.
const OLD: &[&SupportedProtocolVersion] = &[&TLS12];
/// What is held is tried again after 30 s; that, and to spare.
const HELD: Duration = Duration::from_secs(90);

fn push_url(scheme: &str, to: SocketAddr) -> String {
    format!("{scheme}://{to}/loki/api/v1/push")
}

/// The rig's configuration with these options of the exporter over it.
fn config(rig: &Rig, options: &Value) -> Value {
    let mut config = rig.config();
    for (key, value) in options.as_object().expect("an object") {
        config["exporters"]["loki"][key] = value.clone();
    }
    config
}

fn over_tls(rig: &Rig, front: &TlsFront, tls: &Value) -> Value {
    let endpoint = push_url("https", front.addr);
    config(rig, &json!({"endpoint": endpoint, "tls": tls}))
}

fn pem(name: &str) -> String {
    fs::read_to_string(certificate(name)).expect("a test certificate")
}

/// Guarantees that each option of `tls` is what the server sees.
#[test]
fn lines_are_delivered_over_tls_as_configured() {
    type Check = fn(&Handshake) -> bool;
    let server = TlsServer::default;
    let cases: [(&str, TlsServer, Value, Check); 9] = [
        (
            "ca_file",
            server(),
            json!({"ca_file": certificate("ca1.pem")}),
            |h| h.version == Some(ProtocolVersion::TLSv1_3) && h.name.is_none(),
        ),
        ("ca_pem", server(), json!({"ca_pem": pem("ca1.pem")}), |h| {
            h.client_certificate.is_none()
        }),
        (
            "insecure_skip_verify",
            TlsServer {
                certificate: "server2",
                ..server()
            },
            json!({"ca_file": certificate("ca1.pem"), "insecure_skip_verify": true}),
            |_| true,
        ),
        (
            "server_name_override",
            server(),
            json!({"ca_file": certificate("ca1.pem"), "server_name_override": "other.test"}),
            |h| h.name.as_deref() == Some("other.test"),
        ),
        (
            "min_version",
            server(),
            json!({"ca_file": certificate("ca1.pem"), "min_version": "1.3"}),
            |h| h.version == Some(ProtocolVersion::TLSv1_3),
        ),
        (
            "max_version",
            server(),
            json!({"ca_file": certificate("ca1.pem"), "max_version": "1.2"}),
            |h| h.version == Some(ProtocolVersion::TLSv1_2),
        ),
        (
            "a server of TLS 1.2",
            TlsServer {
                versions: OLD,
                ..server()
            },
            json!({"ca_file": certificate("ca1.pem")}),
            |h| h.version == Some(ProtocolVersion::TLSv1_2),
        ),
        (
            "cert_file and key_file",
            TlsServer {
                mutual: true,
                ..server()
            },
            json!({
                "ca_file": certificate("ca1.pem"), "cert_file": certificate("client1.pem"),
                "key_file": certificate("client1.key"),
            }),
            |h| h.client_certificate.is_some(),
        ),
        (
            "cert_pem and key_pem",
            TlsServer {
                mutual: true,
                ..server()
            },
            json!({
                "ca_file": certificate("ca1.pem"), "cert_pem": pem("client1.pem"),
                "key_pem": pem("client1.key"),
            }),
            |h| h.client_certificate.is_some(),
        ),
    ];
    for (name, server, tls, check) in cases {
        let rig = Rig::new("tls");
        let front = TlsFront::start(&server, rig.loki.addr());
        let mut writer = rig.writer(1, "a.log", |_| {});
        writer.write_lines(1_000).expect("written");
        let agent = rig.start(&over_tls(&rig, &front, &tls));
        rig.wait_delivered(&agent);
        agent.stop_clean();
        rig.assert_faultless();
        let seen = front.handshakes();
        assert!(
            !seen.is_empty() && seen.iter().all(check),
            "{name}: {seen:?}"
        );
    }
}

/// Waits until the log says that data is kept; expects that none is given up.
fn expect_held(name: &str, rig: &Rig, agent: &Agent, marker: &str) {
    let said = wait::within(wait::BOUND, || {
        let log = agent.log();
        log.contains("Data is kept and tried again slowly") && log.contains(marker)
    });
    assert!(said, "{name}: {}", tail(&agent.log()));
    let account = agent.scrape().account("receiver");
    assert_eq!((account.dropped, account.delivered), (0.0, 0.0), "{name}");
    assert_eq!(rig.loki.stats().pushes, 0, "{name}");
}

/// Guarantees that a server which cannot be trusted gets nothing and costs nothing, and that a file
/// which is mended is taken without a restart.
#[test]
fn a_wrong_authority_holds_delivery_until_its_file_is_mended() {
    let rig = Rig::new("wrongca");
    let front = TlsFront::start(&TlsServer::default(), rig.loki.addr());
    let ca = rig.path("ca.pem");
    fs::copy(certificate("ca2.pem"), &ca).expect("copied");
    let mut writer = rig.writer(1, "a.log", |_| {});
    writer.write_lines(1_000).expect("written");
    let agent = rig.start(&over_tls(&rig, &front, &json!({"ca_file": ca})));
    expect_held("wrong authority", &rig, &agent, "UnknownIssuer");
    writer.write_lines(1_000).expect("written");
    fs::copy(certificate("ca1.pem"), &ca).expect("copied");
    rig.wait_delivered_within(&agent, HELD);
    assert_eq!(agent.scrape().account("receiver").dropped, 0.0);
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that every other kind of mistrust holds delivery too, and says what is wrong.
#[test]
fn a_server_that_does_not_fit_is_refused_and_nothing_is_lost() {
    let ca = certificate("ca1.pem");
    let old = TlsServer {
        versions: OLD,
        ..TlsServer::default()
    };
    for (name, server, tls, marker) in [
        (
            "another name",
            TlsServer::default(),
            json!({"ca_file": ca, "server_name_override": "elsewhere.test"}),
            "not valid for name",
        ),
        (
            "too old a version",
            old,
            json!({"ca_file": ca, "min_version": "1.3"}),
            "ProtocolVersion",
        ),
    ] {
        let rig = Rig::new("misfit");
        let front = TlsFront::start(&server, rig.loki.addr());
        let mut writer = rig.writer(1, "a.log", |_| {});
        writer.write_lines(100).expect("written");
        let agent = rig.start(&over_tls(&rig, &front, &tls));
        expect_held(name, &rig, &agent, marker);
        agent.kill();
        // The mistake is in the configuration; without it everything is there.
        let agent = rig.start(&over_tls(&rig, &front, &json!({"ca_file": ca})));
        rig.wait_delivered(&agent);
        agent.stop_clean();
        rig.assert_faultless();
    }
}

/// Guarantees that a server which wants a certificate and gets none costs no line.
#[test]
fn a_client_certificate_that_is_missing_costs_only_time() {
    let rig = Rig::new("mutual");
    let server = TlsServer {
        mutual: true,
        ..TlsServer::default()
    };
    let front = TlsFront::start(&server, rig.loki.addr());
    let mut writer = rig.writer(1, "a.log", |_| {});
    writer.write_lines(1_000).expect("written");
    let mut tls = json!({"ca_file": certificate("ca1.pem")});
    let agent = rig.start(&over_tls(&rig, &front, &tls));
    let said = wait::within(wait::BOUND, || agent.log().contains("CertificateRequired"));
    assert!(said, "{}", tail(&agent.log()));
    assert_eq!(agent.scrape().account("receiver").dropped, 0.0);
    agent.kill();
    tls["cert_file"] = json!(certificate("client1.pem"));
    tls["key_file"] = json!(certificate("client1.key"));
    let agent = rig.start(&over_tls(&rig, &front, &tls));
    rig.wait_delivered(&agent);
    agent.stop_clean();
    rig.assert_faultless();
}

/// The `Authorization` of the newest push.
fn authorization(rig: &Rig) -> Option<String> {
    let requests = rig.loki.requests();
    let headers = &requests.last()?.headers;
    let found = headers.iter().find(|(name, _)| name == "authorization");
    found.map(|(_, value)| value.clone())
}

/// Guarantees that credentials arrive as configured, and are never in the log.
#[test]
fn credentials_arrive_at_the_server() {
    let basic = "Basic YWdlbnQ6b3BlbiBzZXNhbWU=";
    let rig = Rig::new("auth");
    fs::write(rig.path("password"), "open sesame\n").expect("written");
    let mut writer = rig.writer(1, "a.log", |_| {});
    for (options, want) in [
        (
            json!({"basic_auth": {"username": "agent", "password": "open sesame"}}),
            basic,
        ),
        (
            json!({"basic_auth": {"username": "agent", "password_file": rig.path("password")}}),
            basic,
        ),
        (json!({"bearer_token": "sesame"}), "Bearer sesame"),
        (
            json!({"headers": {"Authorization": "Own sesame"}}),
            "Own sesame",
        ),
    ] {
        writer.write_lines(100).expect("written");
        let agent = rig.start(&config(&rig, &options));
        rig.wait_delivered(&agent);
        assert_eq!(authorization(&rig).as_deref(), Some(want));
        assert!(!agent.log().contains("sesame"), "{}", agent.log());
        agent.stop_clean();
    }
    rig.assert_faultless();
}

/// Guarantees that an exporter sends what the extension it names has to send, also after that was
/// replaced in its file.
#[test]
fn extensions_have_credentials_to_send() {
    let rig = Rig::new("authext");
    fs::write(rig.path("password"), "open sesame\n").expect("written");
    let mut writer = rig.writer(1, "a.log", |_| {});
    let mut deliver = |extension: &str, options: Value, replace: &dyn Fn()| {
        let mut config = config(&rig, &json!({"auth": {"authenticator": extension}}));
        config["extensions"] = json!({extension: options});
        config["service"]["extensions"] = json!([extension]);
        let agent = rig.start(&config);
        let mut seen = Vec::new();
        for step in 0..2 {
            if step == 1 {
                replace();
            }
            writer.write_lines(100).expect("written");
            rig.wait_delivered(&agent);
            seen.extend(authorization(&rig));
        }
        assert!(!agent.log().contains("sesame"), "{}", agent.log());
        agent.stop_clean();
        seen
    };
    let basic = "Basic YWdlbnQ6b3BlbiBzZXNhbWU=";
    let client = json!({"client_auth": {"username": "agent", "password": "open sesame"}});
    assert_eq!(deliver("basicauth", client, &|| {}), [basic, basic]);
    let file = rig.path("password");
    let client = json!({"client_auth": {"username": "agent", "password_file": file}});
    let replace = || fs::write(&file, "close sesame").expect("written");
    let changed = "Basic YWdlbnQ6Y2xvc2Ugc2VzYW1l";
    assert_eq!(
        deliver("basicauth/file", client, &replace),
        [basic, changed]
    );
    let bearer = json!({"token": "sesame"});
    let sent = deliver("bearertokenauth/a", bearer, &|| {});
    assert_eq!(sent, ["Bearer sesame", "Bearer sesame"]);
    rig.assert_faultless();
}

/// Guarantees that a token which is replaced in its file is used from then on, and that a refused
/// one holds delivery instead of losing anything.
#[test]
fn a_token_file_is_read_again() {
    let rig = Rig::new("token");
    let token = rig.path("token");
    fs::write(&token, "first").expect("written");
    let mut writer = rig.writer(1, "a.log", |_| {});
    writer.write_lines(100).expect("written");
    let options = json!({"bearer_token_file": token});
    let agent = rig.start(&config(&rig, &options));
    rig.wait_delivered(&agent);
    assert_eq!(authorization(&rig).as_deref(), Some("Bearer first"));
    fs::write(&token, "and the second").expect("written");
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    assert_eq!(
        authorization(&rig).as_deref(),
        Some("Bearer and the second")
    );
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that `proxy_url` is used: with a tunnel for TLS, with whole URLs otherwise, and with
/// its own credentials.
#[test]
fn lines_are_delivered_through_a_proxy() {
    for tls in [false, true] {
        let rig = Rig::new("proxy");
        let front = TlsFront::start(&TlsServer::default(), rig.loki.addr());
        let (scheme, to) = if tls {
            ("https", front.addr)
        } else {
            ("http", rig.loki.addr())
        };
        let proxy = Proxy::start(to);
        let mut writer = rig.writer(1, "a.log", |_| {});
        writer.write_lines(1_000).expect("written");
        // A name that the proxy alone knows; the certificate is checked against it.
        let options = json!({
            "endpoint": format!("{scheme}://other.test:3100/loki/api/v1/push"),
            "proxy_url": format!("http://user:pw@{}", proxy.addr),
            "tls": {"ca_file": certificate("ca1.pem")},
        });
        let agent = rig.start(&config(&rig, &options));
        rig.wait_delivered(&agent);
        agent.stop_clean();
        rig.assert_faultless();
        let heads = proxy.heads();
        let begin = if tls {
            "CONNECT other.test:3100 HTTP/1.1"
        } else {
            "POST http://other.test:3100/loki/api/v1/push HTTP/1.1"
        };
        let right = |h: &String| {
            h.starts_with(begin)
                && h.to_ascii_lowercase()
                    .contains("proxy-authorization: basic dxnlcjpwdw==")
        };
        assert!(!heads.is_empty() && heads.iter().all(right), "{heads:?}");
        if tls {
            let seen = front.handshakes();
            assert!(seen.iter().all(|h| h.name.as_deref() == Some("other.test")));
        }
    }
}
