//! The agent of OpAMP against a server that is strict: what it says over both transports, and when.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_opamp::InstanceUid;
use tailwater_tests::agent::Agent;
use tailwater_tests::opamp::{Fault, OpAmpServer};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::tls::{TlsFront, TlsServer, certificate};
use tailwater_tests::wait;

/// Both transports, by the scheme of their URL.
const SCHEMES: [&str; 2] = ["ws", "http"];

/// The rig's configuration, managed by `server`; `change` is for the section of the extension.
fn managed(
    rig: &Rig,
    server: &OpAmpServer,
    scheme: &str,
    change: impl FnOnce(&mut Value),
) -> Value {
    let mut config = rig.config();
    let mut opamp = json!({
        "server": {scheme: {"endpoint": server.url(scheme)}},
        "heartbeat_interval": "1s",
    });
    if scheme == "http" {
        opamp["server"]["http"]["polling_interval"] = json!("1s");
    }
    change(&mut opamp);
    config["extensions"]["opamp"] = opamp;
    config["service"]["extensions"] = json!(["opamp"]);
    config
}

fn started(label: &str, scheme: &str) -> (Rig, OpAmpServer, Agent) {
    let rig = Rig::new(label);
    let server = OpAmpServer::start();
    let agent = rig.start(&managed(&rig, &server, scheme, |_| {}));
    (rig, server, agent)
}

/// Guarantees what the agent says of itself, that it has no secret in it, that heartbeats come by
/// themselves, and that it says farewell.
#[test]
fn an_agent_says_who_and_how_it_is_until_it_stops() {
    for scheme in SCHEMES {
        let rig = Rig::new("opamp-says");
        let server = OpAmpServer::start();
        server.require("Bearer s3cret");
        let config = managed(&rig, &server, scheme, |opamp| {
            opamp["server"][scheme]["headers"] = json!({"Authorization": "Bearer s3cret"});
            opamp["agent_description"] = json!({
                "non_identifying_attributes": {"place": "here"},
            });
        });
        let agent = rig.start(&config);
        let seen = server.wait("health", |s| s.health.healthy);
        assert_eq!(seen.messages[0].capabilities, 0x6805);
        assert_eq!(seen.attribute("service.name").as_deref(), Some("tailwater"));
        assert_eq!(seen.attribute("os.type").as_deref(), Some("linux"));
        assert_eq!(seen.attribute("place").as_deref(), Some("here"));
        assert!(seen.attribute("service.instance.id").is_some());
        let text = seen.effective_text();
        assert!(
            text.contains("filelog") && text.contains("[REDACTED]"),
            "{text}"
        );
        assert!(!text.contains("s3cret"), "{text}");
        let parts = &seen.health.component_health_map;
        assert!(parts.contains_key("exporter:loki"), "{parts:?}");
        let count = seen.messages.len();
        let seen = server.wait("heartbeats", |s| s.messages.len() >= count + 3);
        for beat in &seen.messages[count..] {
            let bare = beat.agent_description.is_none() && beat.effective_config.is_none();
            assert!(bare, "{scheme}: {beat:?}");
        }
        server.fault(Fault::Components);
        let listed = |s: &tailwater_tests::opamp::Seen| {
            s.components
                .as_ref()
                .is_some_and(|c| !c.components.is_empty())
        };
        let seen = server.wait("components", listed);
        let components = seen.components.expect("listed").components;
        assert!(
            components["exporters"]
                .sub_component_map
                .contains_key("loki")
        );
        rig.finish(agent);
        server.wait("a farewell", |s| s.gone);
        server.assert_strict();
    }
}

/// Guarantees that health means progress: a destination that takes nothing makes the agent ill, and the
/// reason is there, while the connection to the control plane is fine.
#[test]
fn health_means_progress() {
    let (rig, server, agent) = started("opamp-health", "ws");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(10).expect("written");
    rig.wait_delivered(&agent);
    server.wait("health", |s| s.health.healthy);
    rig.loki
        .set_reach(tailwater_testkit::loki::behaviour::Reach::Refused)
        .expect("a port");
    writer.write_lines(10).expect("written");
    let seen = server.wait("illness", |s| {
        let part = s.health.component_health_map.get("exporter:loki");
        !s.health.healthy && part.is_some_and(|p| !p.healthy && !p.last_error.is_empty())
    });
    assert!(!seen.health.last_error.is_empty());
    rig.loki
        .set_reach(tailwater_testkit::loki::behaviour::Reach::Up)
        .expect("a port");
    server.wait("health", |s| s.health.healthy);
    rig.wait_delivered(&agent);
    rig.finish(agent);
    server.assert_strict();
}

/// Guarantees that whatever a server answers, the numbers of messages stay in order, everything is said
/// when it is asked for, waits are kept, and another name is used at once and after a restart.
#[test]
fn answers_of_every_kind_are_obeyed() {
    for scheme in SCHEMES {
        let (rig, server, agent) = started("opamp-answers", scheme);
        server.wait("health", |s| s.health.healthy);
        for fault in [
            Fault::FullState,
            Fault::Unavailable(Some(Duration::from_millis(700))),
            Fault::BadRequest,
            Fault::Drop,
            Fault::Status503(1),
            Fault::FullState,
        ] {
            let before = server.seen().expect("an agent").messages.len();
            if scheme == "ws" && matches!(fault, Fault::Status503(_)) {
                // It is for handshakes.
                server.fault(Fault::Drop);
            }
            server.fault(fault.clone());
            let text = format!("{scheme}: after {fault:?}");
            server.wait(&text, |s| s.messages.len() >= before + 2);
        }
        server.wait("everything", |s| s.health.healthy && !s.messages.is_empty());
        let uid = InstanceUid::v7(1, [9; 10]);
        server.fault(Fault::Rename(uid));
        let named = wait::for_some(wait::BOUND, || {
            let seen = server.seen_as(uid)?;
            let last = seen.messages.last()?.clone();
            (last.instance_uid == uid.0).then_some(seen)
        });
        assert!(named.is_some(), "{}", tail(&agent.log()));
        let config: Value =
            serde_json::from_str(&std::fs::read_to_string(agent.config_file()).expect("a file"))
                .expect("JSON");
        rig.finish(agent);
        server.assert_strict();
        let again = OpAmpServer::start();
        let mut config = config;
        config["extensions"]["opamp"]["server"][scheme]["endpoint"] = json!(again.url(scheme));
        config["service"]["telemetry"] = Value::Null;
        let agent = rig.start(&config);
        let seen = again.wait("the name", |s| !s.messages.is_empty());
        assert_eq!(seen.messages[0].instance_uid, uid.0);
        rig.finish(agent);
        again.assert_strict();
    }
}

/// Guarantees that a server that comes back is found again, with everything said over each connection,
/// and that the agent does not care meanwhile.
#[test]
fn a_server_that_comes_and_goes_is_found_again() {
    for scheme in SCHEMES {
        let rig = Rig::new("opamp-away");
        let server = OpAmpServer::start();
        let addr = server.addr();
        let config = managed(&rig, &server, scheme, |_| {});
        drop(server);
        let agent = rig.start(&config);
        let mut writer = rig.writer(1, "app.log", |_| {});
        writer.write_lines(10).expect("written");
        rig.wait_delivered(&agent);
        let server = OpAmpServer::start_at(addr);
        let first = server.wait("a first message", |s| s.health.healthy);
        let uid = first.messages[0].instance_uid.clone();
        drop(server);
        writer.write_lines(10).expect("written");
        rig.wait_delivered(&agent);
        let server = OpAmpServer::start_at(addr);
        let second = server.wait("it again", |s| s.health.healthy);
        assert_eq!(second.messages[0].instance_uid, uid);
        assert!(second.attribute("service.name").is_some());
        rig.finish(agent);
        server.assert_strict();
    }
}

/// Guarantees that the section itself changes like every other: the former server is told farewell, then
/// the new one has the agent.
#[test]
fn another_server_is_another_configuration() {
    let (rig, server, agent) = started("opamp-moves", "ws");
    server.wait("health", |s| s.health.healthy);
    let other = OpAmpServer::start();
    let config = managed(&rig, &other, "http", |_| {});
    assert!(agent.reload(&config), "{}", tail(&agent.log()));
    server.wait("a farewell", |s| s.gone);
    let seen = other.wait("the agent", |s| s.health.healthy);
    let before = server.seen().expect("an agent");
    assert_eq!(
        seen.messages[0].instance_uid,
        before.messages[0].instance_uid
    );
    rig.finish(agent);
    server.assert_strict();
    other.assert_strict();
}

/// Guarantees that both transports go over TLS with the authority and the client certificate that are
/// configured, and not to a server whose certificate is of somebody else.
#[test]
fn connections_are_secured_as_configured() {
    for (scheme, secure) in [("ws", "wss"), ("http", "https")] {
        let rig = Rig::new("opamp-tls");
        let server = OpAmpServer::start();
        let mutual = TlsServer {
            mutual: true,
            ..TlsServer::default()
        };
        let front = TlsFront::start(&mutual, server.addr());
        let with_authority = |authority: &str| {
            managed(&rig, &server, scheme, |opamp| {
                let url = format!("{secure}://localhost:{}/v1/opamp", front.addr.port());
                opamp["server"][scheme]["endpoint"] = json!(url);
                opamp["server"][scheme]["tls"] = json!({
                    "ca_file": certificate(authority),
                    "cert_file": certificate("client1.pem"),
                    "key_file": certificate("client1.key"),
                });
            })
        };
        let agent = rig.start(&with_authority("ca2.pem"));
        let refused = || agent.log().contains("UnknownIssuer");
        assert!(wait::within(wait::BOUND, refused), "{}", tail(&agent.log()));
        assert!(server.seen().is_none());
        assert!(
            agent.reload(&with_authority("ca1.pem")),
            "{}",
            tail(&agent.log())
        );
        server.wait("the agent", |s| s.health.healthy);
        let shown = front.handshakes().pop().and_then(|h| h.client_certificate);
        assert!(shown.is_some());
        rig.finish(agent);
        server.wait("a farewell", |s| s.gone);
        server.assert_strict();
    }
}
