use std::time::Duration;

use tailwater_control_plane::store::{Releases, SqliteStore};
use tailwater_opamp::proto::{
    AgentConfigFile, AgentConfigMap, AgentRemoteConfig, ConnectionSettingsStatus, EffectiveConfig,
    RemoteConfigStatus, agent,
};
use tailwater_opamp::{Client, Event, Report as Said, Start};

use super::*;
use crate::hub::{Attached, How};

const BODY: &str = "receivers: {otlp: {protocols: {grpc: {}}}}\nservice: {extensions: [x]}\n";

/// An agent in the same process: the state machine of our own.
struct Agent {
    client: Client,
    hub: Arc<Hub>,
    connection: u64,
    uid: InstanceUid,
    now: u64,
}

impl Agent {
    fn new(hub: &Arc<Hub>, number: u8, is_ours: bool) -> Agent {
        let uid = InstanceUid([number; 16]);
        let custom = match is_ours {
            true => vec![STATE.to_owned()],
            false => Vec::new(),
        };
        let client = Client::new(Start {
            uid,
            capabilities: agent::ACCEPTS_REMOTE_CONFIG
                | agent::REPORTS_EFFECTIVE_CONFIG
                | agent::REPORTS_REMOTE_CONFIG,
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
        json!({"interval_ms": 1000, "duration_ms": SAMPLE_MS})
    );
    fleet.health(&call(1, 2), &all).unwrap();
    assert_eq!(agent.speak().1.len(), 0);
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
