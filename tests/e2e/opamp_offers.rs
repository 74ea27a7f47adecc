//! What a control plane offers to an agent, and what becomes of it: configurations and settings of the
//! connection.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tailwater_opamp::proto::{Header, Headers, OpAmpConnectionSettings};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::admin::Way;
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::opamp::{OpAmpServer, Seen};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const RESULTS: &str = "io.tailwater.config-results/v1";
const APPLIED: i32 = 1;
const FAILED: i32 = 3;

struct Stand {
    rig: Rig,
    server: OpAmpServer,
    config: Value,
    admin: PathBuf,
}

impl Stand {
    fn new(label: &str, scheme: &str, change: impl FnOnce(&mut Value)) -> Stand {
        let rig = Rig::new(label);
        let server = OpAmpServer::start();
        server.announce(RESULTS);
        let mut config = rig.config();
        let mut opamp = json!({
            "server": {scheme: {"endpoint": server.url(scheme)}},
            "heartbeat_interval": "1s",
            "capabilities": {"accepts_remote_config": true, "accepts_opamp_connection_settings": true},
        });
        if scheme == "http" {
            opamp["server"]["http"]["polling_interval"] = json!("1s");
        }
        change(&mut opamp);
        let admin = rig.path("admin.sock");
        config["extensions"]["opamp"] = opamp;
        config["service"]["extensions"] = json!(["opamp"]);
        config["service"]["admin"] = json!({"socket": admin});
        Stand {
            rig,
            server,
            config,
            admin,
        }
    }

    fn start(&self) -> Agent {
        let agent = self.rig.start(&self.config);
        self.server.wait("a first message", |s| s.health.healthy);
        agent
    }

    /// Offers a configuration and waits for what became of it.
    fn offer(&self, hash: &str, files: &[(&str, &str)]) -> Seen {
        self.server.offer(hash, files);
        let settled = |s: &Seen| {
            let (status, of) = s.status();
            of == hash && (status == APPLIED || status == FAILED)
        };
        self.server.wait(hash, settled)
    }

    fn expect_applied(&self, hash: &str, files: &[(&str, &str)]) -> Seen {
        let seen = self.offer(hash, files);
        assert_eq!(seen.status().0, APPLIED, "{hash}: {}", seen.error());
        seen
    }

    fn expect_failed(&self, hash: &str, files: &[(&str, &str)], reasons: &[&str]) -> Seen {
        let seen = self.offer(hash, files);
        assert_eq!(seen.status().0, FAILED, "{hash}");
        for reason in reasons {
            assert!(
                seen.error().contains(reason),
                "{hash}: {reason}: {}",
                seen.error()
            );
        }
        seen
    }

    fn finish(&self, agent: Agent) {
        self.rig.finish(agent);
        self.server.assert_strict();
    }
}

fn timeout(ms: u32) -> String {
    format!("processors: {{batch: {{timeout: {ms}ms}}}}")
}

fn live(rig: &Rig) -> LiveWriter {
    let options = LiveOptions {
        lines_per_second: 1_000,
        rotate_every_lines: None,
        lines_max: None,
    };
    LiveWriter::start(rig.writer(1, "app.log", |_| {}), options).expect("a thread")
}

fn generation(agent: &Agent) -> f64 {
    agent.scrape().sum("tailwater_config_generation", &[])
}

/// Guarantees that remote configurations come into force while lines flow, and bad ones do not; nothing is
/// lost or repeated by either, and the server is told the truth about the whole, each file and each node.
#[test]
fn configurations_come_into_force_while_lines_flow() {
    for scheme in ["ws", "http"] {
        let stand = Stand::new("opamp-config", scheme, |_| {});
        let agent = stand.start();
        let live = live(&stand.rig);
        let seen = stand.expect_applied("one", &[("", &timeout(111))]);
        assert!(
            seen.effective_text().contains("timeout: 111ms"),
            "{}",
            seen.effective_text()
        );
        let files = [
            ("10-base.yaml", &*timeout(112)),
            (
                "20-more.yaml",
                "exporters: {loki: {labels: {static: {job: e2e, more: x}}}}",
            ),
        ];
        let seen = stand.expect_applied("two", &files);
        assert!(
            seen.effective_text().contains("more: x"),
            "{}",
            seen.effective_text()
        );
        let told = stand.server.wait("a result", |s| {
            s.results
                .last()
                .is_some_and(|r| r["hash"] == "74776f" && r["applied"] == true)
        });
        let result = told.results.last().expect("one");
        assert_eq!(
            result["files"][0],
            json!({"file": "10-base.yaml", "errors": []})
        );
        let nodes = result["nodes"].as_array().expect("a list");
        assert!(
            nodes.iter().any(|n| n["node"] == "receiver filelog (logs)"),
            "{result:#}"
        );
        let before = generation(&agent);
        let bad = [
            ("a.yaml", &*timeout(113)),
            (
                "b.yaml",
                "processors:\n  batch: {timout: 1s}\nreceivers: {filelog: {include: 7}}",
            ),
        ];
        let seen = stand.expect_failed("bad", &bad, &["remote b.yaml:2:11", "timout", "include"]);
        let parts = &seen.health.component_health_map["remote_config"].component_health_map;
        assert!(seen.health.healthy, "a bad offer makes nobody ill");
        assert!(
            !parts["file:b.yaml"].healthy && parts["file:a.yaml"].healthy,
            "{parts:?}"
        );
        assert!(seen.effective_text().contains("timeout: 112ms"));
        for (hash, text) in [
            ("yaml", "{"),
            ("workers", "service: {workers: 7}"),
            (
                "redacted",
                "exporters: {loki: {headers: {Authorization: '[REDACTED]'}}}",
            ),
            (
                "twice",
                "service: {pipelines: {logs: {exporters: [lokki]}}}",
            ),
        ] {
            stand.expect_failed(hash, &[("", text)], &[]);
        }
        assert_eq!(generation(&agent), before, "what runs is not touched");
        stand.expect_applied("none", &[]);
        let seen = stand.server.wait("the local one", |s| {
            s.effective_text().contains("timeout: 100ms")
        });
        assert_eq!(seen.status(), (APPLIED, "none".into()));
        live.stop().expect("written");
        stand.rig.wait_delivered(&agent);
        stand.finish(agent);
    }
}

/// Guarantees that an agent starts with the remote configuration that it had, with the server away, after a
/// clean end and after a kill; says so when the server is back; and takes the same offer for known.
#[test]
fn without_its_server_an_agent_runs_on_what_it_had() {
    let mut stand = Stand::new("opamp-last", "ws", |_| {});
    let agent = stand.start();
    stand.expect_applied("kept", &[("", &timeout(123))]);
    let live = live(&stand.rig);
    agent.kill();
    let addr = stand.server.addr();
    let elsewhere = OpAmpServer::start();
    stand.server.assert_strict();
    stand.server = elsewhere;
    // The former server ended with its value: nobody listens there now.
    let agent = stand.rig.start(&stand.config);
    let started = generation(&agent);
    live.stop().expect("written");
    stand.rig.wait_delivered(&agent);
    stand.server = OpAmpServer::start_at(addr);
    stand.server.announce(RESULTS);
    stand.server.offer("kept", &[("", &timeout(123))]);
    let seen = stand.server.wait("the truth", |s| s.health.healthy);
    assert_eq!(seen.status(), (APPLIED, "kept".into()));
    let first = seen.messages[0]
        .remote_config_status
        .clone()
        .expect("a status");
    assert_eq!(
        (first.status, first.last_remote_config_hash),
        (APPLIED, b"kept".to_vec())
    );
    assert!(
        seen.effective_text().contains("timeout: 123ms"),
        "{}",
        seen.effective_text()
    );
    assert_eq!(generation(&agent), started, "it was not applied again");
    // The files are read again; what the server laid over them stays.
    let mut config = stand.config.clone();
    config["exporters"]["loki"]["labels"]["static"]["more"] = json!("local");
    assert!(agent.reload(&config), "{}", tail(&agent.log()));
    let both = |s: &Seen| {
        s.effective_text().contains("more: local") && s.effective_text().contains("123ms")
    };
    stand.server.wait("both", both);
    stand.rig.wait_delivered(&agent);
    stand.finish(agent);
}

/// Guarantees that somebody who puts another configuration into force here is not hidden from the server: the
/// newest offer is not in force, what is in force is shown, and that is so after a restart.
#[test]
fn a_rollback_here_is_told() {
    let stand = Stand::new("opamp-rollback", "http", |_| {});
    let agent = stand.start();
    stand.expect_applied("a", &[("", &timeout(131))]);
    stand.expect_applied("b", &[("", &timeout(132))]);
    let admin = Way::Socket(stand.admin.clone());
    let reply = admin.ask("POST", "/v1/generations/2/apply", &[], "");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let back = |s: &Seen| s.status() == (FAILED, "b".into());
    let seen = stand.server.wait("the truth", back);
    assert!(
        seen.error().contains("not in force any more"),
        "{}",
        seen.error()
    );
    stand
        .server
        .wait("what is in force", |s| s.effective_text().contains("131ms"));
    stand.rig.finish(agent);
    let agent = stand.rig.start(&stand.config);
    let seen = stand.server.wait("the same", |s| {
        s.messages
            .last()
            .is_some_and(|m| m.effective_config.is_some())
    });
    assert_eq!(seen.status(), (FAILED, "b".into()));
    assert!(
        seen.effective_text().contains("131ms"),
        "{}",
        seen.effective_text()
    );
    stand.expect_applied("c", &[("", &timeout(133))]);
    stand.rig.finish(agent);
}

/// Guarantees that a remote configuration cannot reach what the local one neither names nor allows: files,
/// servers, variables, and what decides about that; each refusal says how to allow it.
#[test]
fn a_remote_configuration_is_confined() {
    let stand = Stand::new("opamp-confined", "ws", |_| {});
    fs::write(stand.rig.path("secret"), "hidden").expect("a file");
    let allowed = stand.rig.path("allowed");
    fs::create_dir(&allowed).expect("a directory");
    std::os::unix::fs::symlink("/etc", allowed.join("out")).expect("a link");
    let mut config = stand.config.clone();
    config["extensions"]["opamp"]["remote_config"] = json!({
        "allow_read": [allowed],
        "allow_endpoints": ["*.loki.example:3100"],
    });
    let stand = Stand { config, ..stand };
    let agent = stand.start();
    let secret = stand.rig.path("secret").display().to_string();
    let allowed = allowed.display().to_string();
    let include = |path: &str| format!("receivers: {{filelog: {{include: ['{path}']}}}}");
    let cases = [
        (include("/etc/*.conf"), "allow_read"),
        (include(&format!("{allowed}/../*.log")), "allow_read"),
        (include(&format!("{allowed}/out/*.conf")), "allow_read"),
        (format!("exporters: {{loki: {{labels: {{static: {{x: '${{file:{secret}}}'}}}}}}}}"), "allow_read"),
        ("exporters: {loki: {labels: {static: {x: '${env:HOME}'}}}}".into(), "allow_variables"),
        ("exporters: {loki: {endpoint: 'http://evil.example:3100/x'}}".into(), "allow_endpoints"),
        ("exporters: {loki: {proxy_url: 'http://evil.example:3128'}}".into(), "allow_endpoints"),
        (
            "exporters: {file: {path: /tmp/x}}\nservice: {pipelines: {logs: {exporters: [loki, file]}}}".into(),
            "allow_write",
        ),
        ("extensions: {opamp: {remote_config: {allow_read: [/]}}}".into(), "extensions::opamp"),
        ("extensions: null".into(), "opamp"),
        ("service: {admin: null}".into(), "service::admin"),
        ("service: {sandbox: {enabled: false}}".into(), "service::sandbox"),
    ];
    for (i, (text, reason)) in cases.iter().enumerate() {
        let seen = stand.expect_failed(&format!("bad-{i}"), &[("", text)], &[reason]);
        assert!(!seen.error().contains("hidden"), "{}", seen.error());
    }
    let good = [
        include(&format!("{allowed}/*.txt")),
        "exporters: {loki: {endpoint: 'http://a.loki.example:3100/x'}}".into(),
        // A list of extensions need not name the one that brings it.
        "service: {extensions: []}".into(),
    ];
    for (i, text) in good.iter().enumerate() {
        stand.expect_applied(&format!("good-{i}"), &[("", text)]);
    }
    stand.server.assert_strict();
    agent.end_now();
}

/// Files with the signature of a key, as `docs/OPAMP.md` says it is made.
fn signed(text: &str, version: u64, key: &ring::signature::Ed25519KeyPair) -> String {
    let hash = Sha256::digest(text.as_bytes());
    let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    let what = format!("tailwater remote configuration 1\nversion {version}\n{hash}  a.yaml\n");
    let signature = key.sign(what.as_bytes());
    use base64::Engine;
    let signature = base64::prelude::BASE64_STANDARD.encode(signature.as_ref());
    json!({"version": version, "signature": signature}).to_string()
}

/// Guarantees that with a key only what it signed comes into force, and no older version than one that was.
#[test]
fn only_what_is_signed_and_newer_is_taken() {
    use base64::Engine;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("a key");
    let other = Ed25519KeyPair::from_seed_unchecked(&[4; 32]).expect("a key");
    let public = base64::prelude::BASE64_STANDARD.encode(key.public_key().as_ref());
    let stand = Stand::new("opamp-signed", "ws", |opamp| {
        opamp["remote_config"] = json!({"public_keys": [public]});
    });
    let agent = stand.start();
    let sign = |ms, version, key| signed(&timeout(ms), version, key);
    let files = |ms: u32| timeout(ms);
    const SIGNATURE: &str = "tailwater-signature.json";
    let offer = |hash: &str, ms: u32, signature: &str| {
        stand.offer(hash, &[("a.yaml", &files(ms)), (SIGNATURE, signature)])
    };
    stand.expect_failed("unsigned", &[("a.yaml", &files(141))], &["not signed"]);
    let seen = offer("other", 141, &sign(141, 5, &other));
    assert!(seen.error().contains("public_keys"), "{}", seen.error());
    assert_eq!(
        offer("changed", 142, &sign(141, 5, &key)).status().0,
        FAILED
    );
    assert_eq!(offer("good", 141, &sign(141, 5, &key)).status().0, APPLIED);
    let seen = offer("older", 140, &sign(140, 4, &key));
    assert!(
        seen.status().0 == FAILED && seen.error().contains("older"),
        "{}",
        seen.error()
    );
    let seen = offer("same", 142, &sign(142, 5, &key));
    assert!(
        seen.status().0 == FAILED && seen.error().contains("version 5"),
        "{}",
        seen.error()
    );
    let seen = offer("newer", 143, &sign(143, 6, &key));
    assert_eq!(seen.status().0, APPLIED, "{}", seen.error());
    assert!(seen.effective_text().contains("143ms"));
    stand.rig.finish(agent);
    // After a restart the signature is looked at again.
    let mut config = stand.config.clone();
    let public = base64::prelude::BASE64_STANDARD.encode(other.public_key().as_ref());
    config["extensions"]["opamp"]["remote_config"] = json!({"public_keys": [public]});
    let agent = stand.rig.start(&config);
    let failed = |s: &Seen| s.status() == (FAILED, "newer".into());
    let seen = stand.server.wait("the truth", failed);
    assert!(
        seen.effective_text().contains("timeout: 100ms"),
        "{}",
        seen.effective_text()
    );
    stand.finish(agent);
}

fn settings(url: String, token: Option<&str>) -> OpAmpConnectionSettings {
    let header = |value: &str| Header {
        key: "Authorization".into(),
        value: value.into(),
    };
    OpAmpConnectionSettings {
        destination_endpoint: url,
        headers: token.map(|t| Headers {
            headers: vec![header(t)],
        }),
        heartbeat_interval_seconds: 1,
        ..OpAmpConnectionSettings::default()
    }
}

/// Guarantees that offered settings are tried and come to stay only if they work; else the former ones are
/// used again and the server is told. What stays does so after a restart.
#[test]
fn settings_of_the_connection_stay_only_if_they_work() {
    for scheme in ["ws", "http"] {
        let nobody = SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
        let second = OpAmpServer::start();
        second.require("Bearer new");
        second.announce(RESULTS);
        let allowed = [nobody.to_string(), second.addr().to_string()];
        let stand = Stand::new("opamp-settings", scheme, |opamp| {
            opamp["remote_config"] = json!({"allow_endpoints": allowed});
        });
        let agent = stand.start();
        let expect = |hash: &str, url: String, status: i32, said: &str| {
            stand.server.offer_settings(hash, settings(url, None));
            let seen = stand
                .server
                .wait(hash, |s| s.settings_status() == (status, hash.to_owned()));
            let error = seen.connection.clone().unwrap_or_default().error_message;
            assert!(error.contains(said), "{hash}: {error}");
        };
        let dead = format!("{scheme}://{nobody}/v1/opamp");
        expect("dead", dead, FAILED, "cannot connect");
        expect("denied", second.url(scheme), FAILED, "401");
        expect(
            "elsewhere",
            format!("{scheme}://127.0.0.2:1/v1/opamp"),
            FAILED,
            "allow_endpoints",
        );
        expect("no url", "nowhere".into(), FAILED, "ws://");
        expect("beat", String::new(), APPLIED, "");
        let seen = stand.server.seen().expect("an agent");
        assert!(seen.health.healthy, "health is that of the pipelines");
        // Over the other transport, with a new token.
        let other = if scheme == "ws" { "http" } else { "ws" };
        stand
            .server
            .offer_settings("good", settings(second.url(other), Some("Bearer new")));
        let good = |s: &Seen| s.settings_status() == (APPLIED, "good".into());
        second.wait("good", good);
        stand.server.wait("a farewell", |s| s.gone);
        let before = stand.server.let_in();
        stand.rig.finish(agent);
        let agent = stand.rig.start(&stand.config);
        let again = second.seen().expect("an agent").messages.len();
        let seen = second.wait("the agent again", |s| s.messages.len() > again && !s.gone);
        assert_eq!(seen.settings_status(), (APPLIED, "good".into()));
        assert_eq!(
            stand.server.let_in(),
            before,
            "the former ones are not used"
        );
        stand.rig.finish(agent);
        stand.server.assert_strict();
        second.assert_strict();
    }
}

/// Guarantees that the file of what was kept is the owner's alone, and that a configuration which is kept
/// in a place that cannot be written is not taken: it would be gone after a restart.
#[test]
fn what_cannot_be_kept_is_not_taken() {
    use std::os::unix::fs::PermissionsExt;
    let stand = Stand::new("opamp-kept", "ws", |_| {});
    let agent = stand.start();
    stand.expect_applied("kept", &[("", &timeout(151))]);
    let dir = stand.rig.state().join("opamp");
    for file in ["instance.json", "remote.json"] {
        let mode = fs::metadata(dir.join(file))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // A directory stands where the file is to be made.
    fs::create_dir(dir.join("remote.new")).expect("a directory");
    stand.expect_failed("lost", &[("", &timeout(152))], &["cannot keep"]);
    assert!(wait::within(wait::BOUND, || {
        stand
            .server
            .seen()
            .is_some_and(|s| s.effective_text().contains("151ms"))
    }));
    fs::remove_dir(dir.join("remote.new")).expect("a directory");
    stand.expect_applied("better", &[("", &timeout(153))]);
    stand.finish(agent);
}

/// Guarantees that what is too large is not taken, neither as it comes nor when it is inflated; that the agent
/// goes on; and that it takes what fits.
#[test]
fn offers_that_are_too_large_are_left_out() {
    for scheme in ["ws", "http"] {
        let stand = Stand::new("opamp-large", scheme, |opamp| {
            opamp["message_bytes_max"] = json!("64KiB");
        });
        let agent = stand.start();
        // Nothing compresses better.
        let large = format!("{}\n#{}", timeout(171), " ".repeat(200_000));
        stand.server.offer("large", &[("", &large)]);
        let said = || {
            let log = agent.log();
            log.contains("message_bytes_max") || log.contains("too long")
        };
        assert!(wait::within(wait::BOUND, said), "{}", tail(&agent.log()));
        let seen = stand.server.seen().expect("an agent");
        assert_eq!(seen.status().1, "", "it was not taken");
        stand.expect_applied("fits", &[("", &timeout(172))]);
        stand.rig.finish(agent);
    }
}

/// Guarantees that a rollback here holds after a restart although a later offer was refused before it, and that
/// who goes forward again has the server told that, too.
#[test]
fn what_was_put_into_force_here_is_not_undone_by_a_restart() {
    let stand = Stand::new("opamp-forward", "ws", |_| {});
    let agent = stand.start();
    stand.expect_applied("a", &[("", &timeout(181))]);
    stand.expect_applied("b", &[("", &timeout(182))]);
    let admin = Way::Socket(stand.admin.clone());
    let go = |generation: u32| {
        let path = format!("/v1/generations/{generation}/apply");
        let reply = admin.ask("POST", &path, &[], "");
        assert_eq!(reply.status, 200, "{}", reply.body);
    };
    go(2);
    stand
        .server
        .wait("back", |s| s.status() == (FAILED, "b".into()));
    go(3);
    stand
        .server
        .wait("forward", |s| s.status() == (APPLIED, "b".into()));
    stand.expect_failed("c", &[("", "nonsense: 1")], &["nonsense"]);
    go(2);
    let shown = |s: &Seen| s.effective_text().contains("181ms");
    let seen = stand.server.wait("what is in force", shown);
    assert_eq!(
        seen.status(),
        (FAILED, "c".into()),
        "the newest offer is another one"
    );
    let kept = || {
        let text = fs::read_to_string(stand.rig.state().join("opamp/remote.json"));
        let kept: Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
        use base64::Engine;
        let body = base64::prelude::BASE64_STANDARD.encode(timeout(181));
        kept["applied"][""][0] == body.as_str()
    };
    assert!(wait::within(wait::BOUND, kept));
    agent.kill();
    let agent = stand.rig.start(&stand.config);
    let again = |s: &Seen| {
        shown(s) && s.health.healthy && s.messages.last().is_some_and(|m| m.sequence_num > 0)
    };
    let seen = stand.server.wait("the same", again);
    assert_eq!(seen.status(), (FAILED, "c".into()));
    stand.rig.finish(agent);
}
