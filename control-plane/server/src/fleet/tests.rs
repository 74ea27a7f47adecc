use std::time::Duration;

use tailwater_control_plane::store::{Releases, SqliteStore};
use tailwater_opamp::proto::{
    AgentConfigFile, AgentConfigMap, AgentRemoteConfig, ConnectionSettingsStatus, EffectiveConfig,
    RemoteConfigStatus, agent,
};
use tailwater_opamp::{Client, Event, Report as Said, Start};

use super::*;
use crate::dry_run::DryRuns;
use crate::hub::{Attached, DRY_RUN, How};

const BODY: &str = "receivers: {otlp: {protocols: {grpc: {}}}}\nservice: {extensions: [x]}\n";

/// An agent in the same process: the state machine of our own.
struct Agent {
    client: Client,
    hub: Arc<Hub>,
    connection: u64,
    uid: InstanceUid,
    now: u64,
    /// How often it was told to begin anew.
    restarts: usize,
}

impl Agent {
    fn new(hub: &Arc<Hub>, number: u8, is_ours: bool) -> Agent {
        let uid = InstanceUid([number; 16]);
        let custom = match is_ours {
            true => vec![STATE.to_owned(), DRY_RUN.to_owned()],
            false => Vec::new(),
        };
        let client = Client::new(Start {
            uid,
            capabilities: agent::ACCEPTS_REMOTE_CONFIG
                | agent::REPORTS_EFFECTIVE_CONFIG
                | agent::REPORTS_REMOTE_CONFIG
                | if is_ours {
                    agent::ACCEPTS_RESTART_COMMAND
                } else {
                    0
                },
            report: Said {
                custom,
                ..Said::default()
            },
            remote: RemoteConfigStatus::default(),
            connection: ConnectionSettingsStatus::default(),
        });
        let mut agent = Agent {
            client,
            hub: hub.clone(),
            connection: 0,
            uid,
            now: 0,
            restarts: 0,
        };
        agent.connect();
        agent
    }

    fn connect(&mut self) {
        let how = How {
            anyway: true,
            is_enrolled: true,
        };
        let attached = self
            .hub
            .attach(self.uid, Some(Arc::default()), how, now_ms());
        let Attached::As(id) = attached else {
            panic!("no room");
        };
        self.connection = id;
        self.client.connected();
    }

    fn runs(&mut self, layer: &[(&str, &str)]) {
        let file = |(name, body): &(&str, &str)| json!({"file": name, "sha256": Digest::of(body.as_bytes())});
        let value = json!({
            "process": 1, "generation": 1,
            "layer": layer.iter().map(file).collect::<Vec<_>>(),
            "counters": {"records_read": 5, "records_delivered": 4, "records_in_flight": 1},
        });
        self.client.set_state(CustomMessage {
            capability: STATE.to_owned(),
            r#type: "state".to_owned(),
            data: value.to_string().into_bytes(),
        });
    }

    /// Everything is said; offers and questions that came.
    fn speak(&mut self) -> (Vec<AgentRemoteConfig>, Vec<CustomMessage>) {
        let (mut offers, mut questions) = (Vec::new(), Vec::new());
        self.now += 10;
        loop {
            let mut answers = Vec::new();
            let said = self.client.take(Duration::from_secs(self.now));
            let is_silent = said.is_none();
            if let Some(message) = said {
                self.client.sent();
                let answer = self
                    .hub
                    .received(self.uid, self.connection, message, now_ms());
                answers.extend(answer.map(|a| a.message));
            }
            let pushed = self.hub.push(self.uid, self.connection).expect("it speaks");
            let is_pushed = pushed.message.is_some();
            answers.extend(pushed.message);
            for event in answers.into_iter().flat_map(|a| self.client.received(a)) {
                match event {
                    Event::Apply(offer) => offers.push(offer),
                    Event::Custom(custom) => questions.push(custom),
                    Event::Restart => self.restarts += 1,
                    other => panic!("{other:?}"),
                }
            }
            if is_silent && !is_pushed {
                return (offers, questions);
            }
        }
    }
}

fn fleet(hub: &Arc<Hub>, dir: &std::path::Path) -> HubFleet {
    let store = Arc::new(SqliteStore::open(&dir.join("db")).unwrap());
    store
        .put_artefact("pipeline", &Digest::of(BODY.as_bytes()), BODY)
        .unwrap();
    HubFleet {
        hub: hub.clone(),
        offers: Arc::new(Offers::new(store.clone(), None)),
        artefacts: store,
        group: "default".to_owned(),
        audit: Arc::new(Audit::open(dir).unwrap()),
        wanted: Wanted::default(),
        sample_ms: 1_000,
        probe_ms: 2_000,
        by_query: false,
        fence: Fence::default(),
    }
}

fn call(epoch: u64, step: u64) -> Call<'static> {
    Call {
        fence: Fence { epoch, step },
        key: "key",
        timeout: Duration::from_secs(1),
    }
}

/// Guarantee: what an agent runs is known by what it runs, not by what it answered; an offer is made once; the
/// way back from a refused one is made; an older leader is not obeyed.
#[test]
fn agents_are_offered_what_they_should_run() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::new(10, false));
    let mut fleet = fleet(&hub, dir.path());
    let mut agent = Agent::new(&hub, 1, true);
    assert_eq!(agent.speak().0, []);
    let listed = |fleet: &mut HubFleet| fleet.collectors(&call(1, 1)).unwrap().remove(0);
    assert!(
        !listed(&mut fleet).connected,
        "it is not known what it runs"
    );
    agent.runs(&[]);
    agent.speak();
    let own = Digest::of(b"");
    let seen = listed(&mut fleet);
    assert!(seen.connected);
    assert_eq!(seen.report.effective, Some(own.clone()));
    let all = BTreeSet::from([seen.id.clone()]);
    let digest = Digest::of(BODY.as_bytes());
    fleet.offer(&call(1, 2), &all, &digest).unwrap();
    let (offers, _) = agent.speak();
    assert_eq!(offers.len(), 1);
    let file = &offers[0].config.as_ref().unwrap().config_map["pipeline.yaml"];
    assert_eq!(file.body, BODY.as_bytes());
    fleet.offer(&call(1, 3), &all, &digest).unwrap();
    assert_eq!(agent.speak().0, [], "once");
    let report = |fleet: &mut HubFleet| {
        fleet
            .reports(&call(1, 1), &all)
            .unwrap()
            .remove(&seen.id)
            .unwrap()
    };
    assert_eq!(report(&mut fleet).answered, None, "APPLYING is no answer");
    // It says that it runs it, and does not.
    agent.client.settle(Ok(()));
    agent.speak();
    let lying = report(&mut fleet);
    assert_eq!(
        (lying.answered, lying.effective),
        (Some(digest.clone()), Some(own.clone()))
    );
    agent.runs(&[("pipeline.yaml", BODY), ("targets.yaml", "anything")]);
    agent.speak();
    assert_eq!(report(&mut fleet).effective, Some(digest.clone()));
    // Back; the agent refuses that, and is not asked over and over.
    fleet.offer(&call(2, 4), &all, &own).unwrap();
    let (offers, _) = agent.speak();
    assert!(offers[0].config.as_ref().unwrap().config_map.is_empty());
    agent.client.settle(Err("a full disk".to_owned()));
    agent.speak();
    let refused = report(&mut fleet);
    assert_eq!(refused.refused.as_deref(), Some("a full disk"));
    fleet.offer(&call(2, 5), &all, &own).unwrap();
    assert_eq!(agent.speak().0, [], "not before its time");
    let old = fleet.offer(&call(1, 9), &all, &digest);
    assert!(matches!(old, Err(Failure::Fenced)));
    // It leaves, and is left out.
    hub.detach(agent.uid, agent.connection, now_ms());
    assert!(fleet.reports(&call(2, 6), &all).unwrap().is_empty());
    assert!(!listed(&mut fleet).connected);
    assert_eq!(hub.look(agent.uid, |a| a.ran.len()), Some(2));
}

/// Guarantee: an agent that shows its configuration and no digests is known by what is in it.
#[test]
fn other_agents_are_known_by_their_effective_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::new(10, false));
    let mut fleet = fleet(&hub, dir.path());
    let mut agent = Agent::new(&hub, 1, false);
    let shows = |agent: &mut Agent, text: &str| {
        let file = AgentConfigFile {
            body: text.as_bytes().to_vec(),
            content_type: String::new(),
        };
        agent.client.set_effective(EffectiveConfig {
            config_map: Some(AgentConfigMap {
                config_map: BTreeMap::from([(String::new(), file)]),
            }),
        });
    };
    shows(&mut agent, "receivers: {hostmetrics: {}}");
    agent.speak();
    let all = BTreeSet::from([agent.uid.to_string()]);
    let digest = Digest::of(BODY.as_bytes());
    let report = |fleet: &mut HubFleet| {
        fleet
            .reports(&call(1, 1), &all)
            .unwrap()
            .pop_first()
            .unwrap()
            .1
    };
    assert_eq!(report(&mut fleet).effective, Some(Digest::of(b"")));
    fleet.offer(&call(1, 2), &all, &digest).unwrap();
    assert_eq!(agent.speak().0.len(), 1);
    agent.client.settle(Ok(()));
    agent.speak();
    assert_eq!(
        report(&mut fleet).effective,
        None,
        "it shows something else"
    );
    shows(
        &mut agent,
        "receivers: {hostmetrics: {}, otlp: {protocols: {grpc: {endpoint: a}}}}\nservice: {extensions: [opamp, x]}",
    );
    agent.speak();
    assert_eq!(report(&mut fleet).effective, Some(digest.clone()));
    // A control plane that was started anew knows as much.
    let hub = Arc::new(Hub::new(10, false));
    fleet.hub = hub.clone();
    agent.hub = hub;
    agent.connect();
    agent.speak();
    assert_eq!(report(&mut fleet).effective, Some(digest.clone()));
    fleet.offer(&call(1, 3), &all, &digest).unwrap();
    assert_eq!(agent.speak().0, [], "it runs it already");
}

/// Guarantee: counters are asked for, arrive with the time at which they did, and are not asked for all the time.
#[test]
fn counters_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::new(10, false));
    let mut fleet = fleet(&hub, dir.path());
    let mut agent = Agent::new(&hub, 1, true);
    agent.speak();
    agent.runs(&[]);
    agent.speak();
    let all = BTreeSet::from([agent.uid.to_string()]);
    let before = now_ms();
    let (_, sample) = fleet
        .health(&call(1, 1), &all)
        .unwrap()
        .pop_first()
        .unwrap()
        .1;
    let sample = sample.expect("it said so");
    assert!(sample.at_ms <= before);
    assert_eq!((sample.lines_read, sample.unaccounted()), (5, 0));
    let (_, questions) = agent.speak();
    assert_eq!(questions.len(), 1);
    let asked: serde_json::Value = serde_json::from_slice(&questions[0].data).unwrap();
    assert_eq!(
        asked,
        json!({"interval_ms": 1000, "duration_ms": SAMPLE_MS, "probe_interval_ms": 2000})
    );
    fleet.health(&call(1, 2), &all).unwrap();
    assert_eq!(agent.speak().1.len(), 0);
}

/// Guarantee: agents that claim it are told to begin anew, once, and those that do not are not; nobody is told by an
/// older leader; what is offered anew is another offer, also of what was answered.
#[test]
fn agents_are_restarted_and_offered_anew() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::new(10, false));
    let mut fleet = fleet(&hub, dir.path());
    let (mut ours, mut other) = (Agent::new(&hub, 1, true), Agent::new(&hub, 2, false));
    ours.speak();
    ours.runs(&[]);
    ours.speak();
    other.speak();
    let all = BTreeSet::from([ours.uid.to_string(), other.uid.to_string()]);
    let told = fleet.restart(&call(1, 1), &all).unwrap();
    assert_eq!(told, BTreeSet::from([ours.uid.to_string()]));
    ours.speak();
    other.speak();
    assert_eq!((ours.restarts, other.restarts), (1, 0));
    ours.speak();
    assert_eq!(ours.restarts, 1, "once");
    let digest = Digest::of(BODY.as_bytes());
    fleet.offer(&call(1, 2), &all, &digest).unwrap();
    let first = ours.speak().0;
    ours.client.settle(Err("not now".to_owned()));
    ours.speak();
    fleet.offer(&call(1, 3), &all, &digest).unwrap();
    assert_eq!(ours.speak().0, [], "not before its time");
    std::thread::sleep(Duration::from_millis(2));
    fleet.reoffer(&call(1, 4), &all, &digest).unwrap();
    let again = ours.speak().0;
    assert_eq!(again[0].config, first[0].config);
    assert_ne!(again[0].config_hash, first[0].config_hash);
    fleet.offer(&call(2, 5), &all, &digest).unwrap();
    assert!(matches!(
        fleet.restart(&call(1, 9), &all),
        Err(Failure::Fenced)
    ));
}

/// Guarantee: sample lines are counted as acknowledged, or, where they are looked for, as found; an agent whose
/// pipelines take none has none.
#[test]
fn sample_lines_are_those_acknowledged_or_those_found() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::new(10, false));
    let mut fleet = fleet(&hub, dir.path());
    let mut agent = Agent::new(&hub, 1, true);
    agent.speak();
    let says = |agent: &mut Agent, probes: serde_json::Value| {
        let value =
            json!({"process": 7, "layer": [], "counters": {"records_read": 5}, "probes": probes});
        agent.client.set_state(CustomMessage {
            capability: STATE.to_owned(),
            r#type: "state".to_owned(),
            data: value.to_string().into_bytes(),
        });
        agent.speak();
    };
    let all = BTreeSet::from([agent.uid.to_string()]);
    let counts = |fleet: &mut HubFleet| {
        let health = fleet.health(&call(1, 1), &all).unwrap();
        let sample = health.values().next().unwrap().1.unwrap();
        (sample.probes_due, sample.probes_found)
    };
    says(&mut agent, serde_json::Value::Null);
    assert_eq!(counts(&mut fleet), (0, 0));
    says(
        &mut agent,
        json!({"due": 4, "due_up_to": 5, "delivered": 3}),
    );
    assert_eq!(counts(&mut fleet), (4, 3));
    fleet.by_query = true;
    assert_eq!(counts(&mut fleet), (0, 0), "it was not looked for them");
    hub.look(agent.uid, |a| a.arrivals.looked(7, 5, [1, 2, 4, 5, 6]));
    assert_eq!(counts(&mut fleet), (5, 4));
}

/// Answers what it is asked, in a thread, until it was asked so often.
fn answers(mut agent: Agent, says: Option<serde_json::Value>) -> std::thread::JoinHandle<Agent> {
    std::thread::spawn(move || {
        for _ in 0..1_000 {
            let (_, questions) = agent.speak();
            if let Some(question) = questions.iter().find(|q| q.capability == DRY_RUN) {
                let asked: serde_json::Value = serde_json::from_slice(&question.data).unwrap();
                assert_eq!(asked["files"][0]["body"], BODY);
                let Some(mut answer) = says.clone() else {
                    return agent;
                };
                answer["id"] = asked["id"].clone();
                agent.client.set_check(CustomMessage {
                    capability: DRY_RUN.to_owned(),
                    r#type: "checked".to_owned(),
                    data: answer.to_string().into_bytes(),
                });
                agent.speak();
                return agent;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it was not asked");
    })
}

/// Guarantee: an agent of ours that could have it is asked whether it would take it, and its reasons are those to refuse
/// it; one that does not answer makes way for another; without any, it goes on.
#[test]
fn an_agent_is_asked_before_any_is_offered_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::new(10, false));
    let fleet = fleet(&hub, dir.path());
    let mut runs = DryRuns::new(hub.clone(), fleet.offers.clone(), "default");
    let built = tailwater_control_plane::rollout::ports::Built {
        body: BODY.to_owned(),
        requires: BTreeSet::new(),
    };
    let mut other = Agent::new(&hub, 9, false);
    other.speak();
    assert_eq!(
        runs.reasons(&call(1, 1), &built).unwrap(),
        [""; 0],
        "nobody can"
    );
    let mut agent = Agent::new(&hub, 1, true);
    agent.runs(&[]);
    agent.speak();
    let yes = answers(
        agent,
        Some(json!({"accepted": true, "changes": ["a", "b"]})),
    );
    assert_eq!(runs.reasons(&call(1, 2), &built).unwrap(), [""; 0]);
    let no = answers(
        yes.join().unwrap(),
        Some(json!({"accepted": false, "reasons": ["no such option"]})),
    );
    let reasons = runs.reasons(&call(1, 3), &built).unwrap();
    assert!(reasons[0].contains("no such option"), "{reasons:?}");
    // The first one is silent; the second one is asked at the next attempt.
    let silent = answers(no.join().unwrap(), None);
    let mut second = Agent::new(&hub, 2, true);
    second.runs(&[]);
    second.speak();
    let waits = runs.reasons(&call(1, 4), &built);
    assert!(matches!(waits, Err(Failure::Unavailable(_))));
    silent.join().unwrap();
    let yes = answers(second, Some(json!({"accepted": true, "changes": []})));
    assert_eq!(runs.reasons(&call(1, 4), &built).unwrap(), [""; 0]);
    yes.join().unwrap();
    let counts = &hub.counts;
    let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        (
            load(&counts.dry_runs_accepted),
            load(&counts.dry_runs_refused),
            load(&counts.dry_runs_silent)
        ),
        (2, 1, 1)
    );
}

/// Guarantee: an agent that comes after a promotion runs what was promoted, if it can.
#[test]
fn who_comes_late_follows() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::new(10, false));
    let mut fleet = fleet(&hub, dir.path());
    let digest = Digest::of(BODY.as_bytes());
    let generation = |number| Generation {
        number,
        digest: digest.clone(),
        requires: BTreeSet::new(),
    };
    fleet.promote(&call(1, 1), &generation(2)).unwrap();
    assert!(matches!(
        fleet.promote(&call(1, 2), &generation(1)),
        Err(Failure::Fenced)
    ));
    let mut agent = Agent::new(&hub, 1, true);
    agent.speak();
    agent.runs(&[]);
    assert_eq!(agent.speak().0.len(), 1);
}

/// The version of an offer.
fn version(offer: &AgentRemoteConfig) -> u64 {
    let files = &offer.config.as_ref().unwrap().config_map;
    let file = &files[tailwater_opamp::signature::SIGNATURE_FILE];
    let said: serde_json::Value = serde_json::from_slice(&file.body).unwrap();
    said["version"].as_u64().unwrap()
}

/// Guarantee: every signed offer has a higher version than those before, the way back too; what an agent runs is signed
/// again by another key, without any change, until it takes that; agents of others get no signature.
#[test]
fn offers_are_signed_and_their_versions_grow() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::new(10, false));
    let mut fleet = fleet(&hub, dir.path());
    let store = Arc::new(SqliteStore::open(&dir.path().join("db")).unwrap());
    let sign_with = |fleet: &mut HubFleet, name: &str| {
        let key = crate::sign::SigningKey::make(&dir.path().join(name)).unwrap();
        fleet.offers = Arc::new(Offers::new(store.clone(), Some(key)));
    };
    let mut agent = Agent::new(&hub, 1, true);
    let mut other = Agent::new(&hub, 2, false);
    agent.runs(&[]);
    agent.speak();
    other.speak();
    let all = BTreeSet::from([agent.uid.to_string(), other.uid.to_string()]);
    let digest = Digest::of(BODY.as_bytes());
    // What runs unsigned is signed when there is a key.
    fleet.offer(&call(1, 1), &all, &digest).unwrap();
    assert_eq!(
        agent.speak().0[0].config.as_ref().unwrap().config_map.len(),
        1
    );
    agent.client.settle(Ok(()));
    agent.runs(&[("pipeline.yaml", BODY)]);
    agent.speak();
    assert_eq!(other.speak().0.len(), 1);
    other.client.settle(Err("no".to_owned()));
    other.speak();
    sign_with(&mut fleet, "first");
    fleet.collectors(&call(1, 2)).unwrap();
    let (offers, _) = agent.speak();
    assert_eq!((offers.len(), version(&offers[0])), (1, 1));
    assert_eq!(other.speak().0, [], "it knows no signatures");
    fleet.collectors(&call(1, 3)).unwrap();
    assert_eq!(agent.speak().0, [], "once");
    agent.client.settle(Ok(()));
    agent.speak();
    fleet.collectors(&call(1, 4)).unwrap();
    assert_eq!(agent.speak().0, [], "it is signed");
    // Another key, which the agent does not know yet: it is tried again later.
    sign_with(&mut fleet, "second");
    fleet.collectors(&call(1, 5)).unwrap();
    let (offers, _) = agent.speak();
    assert_eq!((offers.len(), version(&offers[0])), (1, 2));
    agent.client.settle(Err("none of public_keys".to_owned()));
    agent.speak();
    fleet.collectors(&call(1, 6)).unwrap();
    assert_eq!(agent.speak().0, [], "not before its time");
    hub.look(agent.uid, |a| a.desired.as_mut().unwrap().again_ms = 0);
    fleet.collectors(&call(1, 7)).unwrap();
    let (offers, _) = agent.speak();
    assert_eq!((offers.len(), version(&offers[0])), (1, 3));
    agent.client.settle(Ok(()));
    agent.speak();
    // Back is a new version of an old text.
    let own = Digest::of(b"");
    fleet.offer(&call(1, 8), &all, &own).unwrap();
    let (offers, _) = agent.speak();
    assert_eq!((offers.len(), version(&offers[0])), (1, 4));
    let (offers, _) = other.speak();
    assert!(offers[0].config.as_ref().unwrap().config_map.is_empty());
    // A leader of the past signs nothing.
    fleet
        .promote(
            &call(2, 9),
            &Generation {
                number: 1,
                digest: digest.clone(),
                requires: BTreeSet::new(),
            },
        )
        .unwrap();
    let newest = store.version().unwrap();
    fleet.collectors(&call(1, 10)).unwrap();
    assert_eq!(store.version().unwrap(), newest);
    let releases = store.releases("default", 10).unwrap();
    assert_eq!((releases[0].version, &*releases[0].cause), (newest, "key"));
}
