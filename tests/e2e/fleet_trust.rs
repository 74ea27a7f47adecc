//! Trust between agents and a control plane, with real programs: certificates, signed offers, and what becomes of
//! those that are not to be trusted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::Agent;
use tailwater_tests::control::{Control, once};
use tailwater_tests::opamp::OpAmpServer;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const FAILED: i32 = 3;
/// A rollout of three agents in some seconds.
const QUICK: [&str; 14] = [
    "--soak",
    "2s",
    "--baseline",
    "1s",
    "--confirm",
    "1s",
    "--poll",
    "1s",
    "--reconcile",
    "1s",
    "--waves",
    "100",
    "--heartbeat-interval",
    "1s",
];
const FIRST: &str = "exporters: {loki: {labels: {static: {release: first}}}}\n";
const SECOND: &str = "exporters: {loki: {labels: {static: {release: second}}}}\n";

/// A control plane with an authority and a key, and what agents need to know of it.
struct Home {
    rig: Rig,
    control: Control,
    key: String,
}

impl Home {
    fn new(label: &str, args: &[&str]) -> Home {
        let rig = Rig::new(label);
        let at = |name: &str| rig.path(name).display().to_string();
        let run = rig.path("run");
        let state = Control::state_in(&run);
        let state = state.to_str().expect("a path");
        once(&["ca", "init", "--state", state]);
        let ca = format!("{state}/ca.pem");
        let (cert, key) = (at("server.pem"), at("server-key.pem"));
        once(&[
            "ca",
            "server",
            "--state",
            state,
            "--host",
            "localhost",
            "--cert",
            &cert,
            "--key",
            &key,
        ]);
        let signing = at("signing.pem");
        let public = once(&["key", &signing]);
        assert_eq!(once(&["key", &signing]), public, "it is made once");
        let (tokens, own) = (at("tokens"), at("token"));
        let lines = "admin anna cccccccccccccccc\nagent fleet dddddddddddddddd\n";
        for (path, text) in [(&tokens, lines), (&own, "cccccccccccccccc")] {
            fs::write(path, text).expect("a file");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        let own_args = [
            "--issue-certificates",
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tokens",
            &tokens,
            "--signing-key",
            &signing,
        ];
        let client = ["--ca-file", &ca, "--token-file", &own];
        let control = Control::start_with_tls(&run, &[&own_args[..], args].concat(), &client);
        Home {
            key: public.trim().to_owned(),
            rig,
            control,
        }
    }

    /// The configuration of an agent that has a token, and gets everything else.
    fn config(&self, rig: &Rig, renew_before: &str) -> Value {
        let ca = Control::state_in(&self.rig.path("run")).join("ca.pem");
        let mut config = rig.config();
        config["extensions"]["opamp"] = json!({
            "server": {"ws": {
                "endpoint": self.control.url("wss"),
                "headers": {"Authorization": "Bearer dddddddddddddddd"},
                "tls": {"ca_file": ca},
            }},
            "heartbeat_interval": "1s",
            "capabilities": {"accepts_remote_config": true, "accepts_opamp_connection_settings": true},
            "certificate_request": {"enabled": true, "renew_before": renew_before},
            "remote_config": {"public_keys": [self.key]},
            "agent_description": {"non_identifying_attributes": {"tailwater.group": "shop"}},
        });
        config["service"]["extensions"] = json!(["opamp"]);
        config
    }

    /// What each connected agent with a certificate runs, by its uid.
    fn runs(&self) -> BTreeMap<String, String> {
        let answer = self.control.ask(&["agents"]);
        let all = answer["agents"].as_array().expect("a list").clone();
        let is_there = |a: &Value| a["connected"] == true && a["enrolled"] == true;
        let text = |v: &Value| v.as_str().unwrap_or("unknown").to_owned();
        let there = all.into_iter().filter(is_there);
        there.map(|a| (text(&a["uid"]), text(&a["runs"]))).collect()
    }

    fn wait(&self, what: &str, met: impl FnMut() -> bool) {
        let done = wait::by_asking(wait::BOUND * 4, met);
        let shown = || self.control.ask(&["rollouts", "shop"]);
        assert!(
            done,
            "not seen: {what}\n{}\n{}",
            shown(),
            self.control.log()
        );
    }

    /// Has a pipeline rolled out, and gives its digest.
    fn apply(&self, text: &str) -> String {
        let file = self.rig.path("pipeline.yaml");
        fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("a path");
        let answer = self.control.ask(&["apply", path, "--group", "shop"]);
        answer["digest"].as_str().expect("a digest").to_owned()
    }
}

struct Host {
    rig: Rig,
    agent: Option<Agent>,
    _writer: LiveWriter,
}

impl Host {
    fn new(home: &Home, number: u32) -> Host {
        let rig = Rig::new(&format!("trust-{number}"));
        let writer = rig.writer(number, "a.log", |o| o.oracle = None);
        let options = LiveOptions {
            lines_per_second: 50,
            rotate_every_lines: None,
            lines_max: None,
        };
        let _writer = LiveWriter::start(writer, options).expect("a thread");
        let agent = rig.start(&home.config(&rig, "1h"));
        Host {
            rig,
            agent: Some(agent),
            _writer,
        }
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("it runs")
    }

    fn kept(&self, name: &str) -> Value {
        let path = self.rig.state().join("opamp").join(name);
        let text = fs::read_to_string(path).expect("a file");
        serde_json::from_str(&text).expect("JSON")
    }

    fn uid(&self) -> String {
        self.kept("instance.json")["uid"]
            .as_str()
            .expect("a uid")
            .to_owned()
    }

    /// The offer that it runs, file by file, as anybody between could have seen it.
    fn offered(&self, text: &str) -> Vec<(String, String)> {
        let read = || {
            let kept = self.kept("remote.json");
            let one = |(name, file): (&String, &Value)| {
                let body = BASE64_STANDARD.decode(file[0].as_str()?).ok()?;
                Some((name.clone(), String::from_utf8(body).ok()?))
            };
            let files = kept["applied"].as_object()?;
            let files: Vec<_> = files.iter().filter_map(one).collect();
            // It says what it runs a moment before that is kept.
            files.iter().any(|(_, body)| body == text).then_some(files)
        };
        wait::for_some(wait::BOUND, read).expect("it is kept")
    }
}

/// Guarantee: agents that have a token get certificates of their own and signed offers; one whose certificate is revoked
/// is out at once and stays out; what is offered by somebody else, an older offer or one that is not signed, is
/// refused and counted, and what runs goes on.
#[test]
fn only_what_is_to_be_trusted_is() {
    let home = Home::new("trust", &QUICK);
    let mut hosts: Vec<Host> = (1..=3).map(|n| Host::new(&home, n)).collect();
    home.wait("three agents with certificates", || {
        let runs = home.runs();
        runs.len() == 3 && runs.values().all(|r| r == "own")
    });
    let listed = home.control.ask(&["certificates"]);
    let listed = listed["certificates"].as_array().expect("a list");
    assert!(
        listed
            .iter()
            .all(|c| c["state"] == "valid" && c["author"] == "fleet")
    );
    let first = home.apply(FIRST);
    home.wait("the first one everywhere", || {
        home.runs().values().filter(|r| **r == first).count() == 3
    });
    let old = hosts.iter().map(|h| (h.uid(), h.offered(FIRST)));
    let old: BTreeMap<_, _> = old.collect();
    assert!(old.values().all(|files| files.len() == 2), "{old:?}");
    let group = home.control.ask(&["rollouts", "shop"]);
    assert_eq!(group["applied"][0]["author"], "anna");
    assert_eq!(group["applied"][0]["parent"], "own");
    let release = &group["releases"][0];
    assert!(release["signature"].is_string() && release["key"].is_string());

    // One is revoked: it is out, and nobody else is.
    let out = hosts.pop().expect("three");
    let uid = out.uid();
    home.control.tell(&["revoke", &uid]);
    home.wait("it is out", || {
        let runs = home.runs();
        runs.len() == 2 && !runs.contains_key(&uid)
    });
    let said = || out.agent().log().to_lowercase().contains("revoked");
    assert!(
        wait::within(wait::BOUND, said),
        "{}",
        tail(&out.agent().log())
    );

    let second = home.apply(SECOND);
    let runs_it = || home.runs().into_iter().find(|(_, runs)| *runs == second);
    home.wait("the second one somewhere", || runs_it().is_some());
    assert!(!home.runs().contains_key(&uid), "it stays out");
    let lines = out.agent().scrape().sum("tailwater_records_delivered", &[]);
    let goes_on = || out.agent().scrape().sum("tailwater_records_delivered", &[]) > lines;
    assert!(
        wait::within(wait::BOUND, goes_on),
        "it goes on with what it has"
    );

    // Somebody else takes the place of the control plane.
    let canary = runs_it().expect("it runs it").0;
    let at = hosts.iter().position(|h| h.uid() == canary);
    let host = &mut hosts[at.expect("one of them")];
    host.offered(SECOND);
    host.agent.take().expect("it runs").stop_clean();
    let stranger = OpAmpServer::start();
    let mut config = home.config(&host.rig, "1h");
    config["extensions"]["opamp"]["server"] = json!({"ws": {"endpoint": stranger.url("ws")}});
    host.agent = Some(host.rig.start(&config));
    let unsigned = vec![("pipeline.yaml".to_owned(), FIRST.to_owned())];
    for (hash, files, why) in [
        ("replay", old[&canary].clone(), "is older than"),
        ("unsigned", unsigned, "it is not signed"),
    ] {
        let files: Vec<_> = files
            .iter()
            .map(|(n, b)| (n.as_str(), b.as_str()))
            .collect();
        stranger.offer(hash, &files);
        let seen = stranger.wait(hash, |s| s.status() == (FAILED, hash.to_owned()));
        assert!(seen.error().contains(why), "{hash}: {}", seen.error());
        assert!(host.agent().log().contains(why));
    }
    let scrape = host.agent().scrape();
    for counter in ["offers_outdated", "offers_unsigned"] {
        let name = format!("tailwater_opamp_{counter}");
        assert_eq!(scrape.sum(&name, &[]), 1.0, "{name}");
    }
    host.offered(SECOND);
}

/// Guarantee: an agent renews its certificate before it ends, by the one that it has, with a key that never leaves it.
#[test]
fn certificates_are_renewed_by_themselves() {
    let home = Home::new(
        "renewal",
        &["--certificate-lifetime", "6s", "--heartbeat-interval", "1s"],
    );
    let rig = Rig::new("renewed");
    let agent = rig.start(&home.config(&rig, "4s"));
    let certificates = || {
        let listed = home.control.ask(&["certificates"]);
        let all = listed["certificates"].as_array().expect("a list").clone();
        let shown = |c: &&Value| !c["used_ms"].is_null() && c["revoked_ms"].is_null();
        all.iter()
            .filter(shown)
            .map(|c| c["author"].clone())
            .collect::<Vec<_>>()
    };
    home.wait("two renewals", || certificates().len() >= 3);
    assert_eq!(
        certificates()[..3],
        [json!("fleet"), json!("certificate"), json!("certificate")]
    );
    home.wait("the agent", || home.runs().len() == 1);
    assert!(!home.control.log().contains("PRIVATE") && !agent.log().contains("PRIVATE"));
    rig.finish(agent);
}
