use tailwater_opamp::proto::{AgentDescription, AgentDisconnect, KeyValue, agent};

use super::*;

const UID: InstanceUid = InstanceUid([1; 16]);

fn message(number: u64) -> AgentToServer {
    AgentToServer {
        instance_uid: UID.0.to_vec(),
        sequence_num: number,
        capabilities: agent::REPORTS_STATUS,
        agent_description: Some(AgentDescription {
            identifying_attributes: vec![KeyValue::text("service.name", "a")],
            ..AgentDescription::default()
        }),
        ..AgentToServer::default()
    }
}

fn attached(attached: Attached) -> u64 {
    match attached {
        Attached::As(id) => id,
        Attached::Taken(_) => panic!("taken"),
        Attached::Full => panic!("full"),
    }
}

fn how(anyway: bool) -> How {
    How {
        anyway,
        is_enrolled: true,
    }
}

fn socket(hub: &Hub, uid: InstanceUid, anyway: bool) -> (Attached, Arc<Notify>) {
    let wake: Arc<Notify> = Arc::default();
    (hub.attach(uid, Some(wake.clone()), how(anyway), 0), wake)
}

/// Guarantee: two that live under one name are told apart, and one that died makes way for the one that came
/// again; nobody but the newest speaks for the agent.
#[test]
fn a_name_has_one_connection() {
    let hub = Hub::new(10, false);
    let first = attached(socket(&hub, UID, false).0);
    assert!(hub.received(UID, first, message(0), 0).is_some());
    let Attached::Taken(mut lives) = socket(&hub, UID, false).0 else {
        panic!("it is taken");
    };
    assert!(hub.push(UID, first).is_ok_and(|p| p.is_challenged));
    assert!(lives.try_recv().is_err(), "it has not answered yet");
    // Anything that comes over it shows that it lives.
    assert!(hub.lives(UID, first));
    assert_eq!(lives.try_recv(), Ok(()));
    let other = InstanceUid([2; 16]);
    let answer = hub.renamed(UID, message(0), other);
    let name = answer.agent_identification.map(|i| i.new_instance_uid);
    assert_eq!(name, Some(other.0.to_vec()));
    assert_eq!(hub.counts.conflicts.load(Ordering::Relaxed), 1);
    // Now it is dead.
    let Attached::Taken(lives) = socket(&hub, UID, false).0 else {
        panic!("it is taken");
    };
    drop(lives);
    let second = attached(socket(&hub, UID, true).0);
    assert!(hub.push(UID, first).is_err(), "the first one has to end");
    assert!(hub.received(UID, first, message(1), 0).is_none());
    hub.detach(UID, first, 5);
    assert!(hub.received(UID, second, message(1), 0).is_some());
    hub.each(|_, agent| assert!(agent.is_connected(0)));
}

#[test]
fn the_one_that_is_away_for_longest_makes_room() {
    let hub = Hub::new(2, false);
    let uid = |n| InstanceUid([n; 16]);
    let ids: Vec<_> = (1..=2)
        .map(|n| attached(socket(&hub, uid(n), false).0))
        .collect();
    assert!(matches!(socket(&hub, uid(3), false).0, Attached::Full));
    hub.detach(uid(2), ids[1], 7);
    attached(socket(&hub, uid(3), false).0);
    let mut known = Vec::new();
    hub.each(|uid, _| known.push(uid.0[0]));
    known.sort_unstable();
    assert_eq!(known, [1, 3]);
    hub.detach(uid(1), ids[0], 10);
    hub.forget(100, 109);
    hub.forget(100, 110);
    known.clear();
    hub.each(|uid, _| known.push(uid.0[0]));
    assert_eq!(known, [3]);
}

/// Guarantee: who says farewell is away at once; who asks over HTTP is away when it does not ask any more.
#[test]
fn who_is_there_is_known() {
    let hub = Hub::new(2, false);
    let id = attached(hub.attach(UID, None, how(false), 0));
    hub.received(UID, id, message(0), 1_000).expect("an answer");
    let is_there = |now| {
        let mut there = false;
        hub.each(|_, agent| there = agent.is_connected(now));
        there
    };
    assert!(is_there(1_000 + POLL_MS_MAX - 1));
    assert!(!is_there(1_000 + POLL_MS_MAX));
    let id = attached(hub.attach(UID, None, how(false), 0));
    let bye = AgentToServer {
        agent_disconnect: Some(AgentDisconnect {}),
        ..message(1)
    };
    hub.received(UID, id, bye, 2_000);
    assert!(!is_there(2_001));
}

/// Guarantee: who has no certificate yet is told nothing but that, and makes way for the one that has it.
#[test]
fn who_is_not_enrolled_is_offered_nothing() {
    use tailwater_control_plane::model::Digest;
    use tailwater_control_plane::store::SqliteStore;
    use tailwater_opamp::proto::{ConnectionSettingsOffers, ConnectionSettingsRequest};
    let hub = Hub::new(10, true);
    let offers = crate::offers::Offers::new(Arc::new(SqliteStore::in_memory().unwrap()), None);
    let digest = Digest::of(b"a: 1");
    let offer = offers.make("default", &digest, "a: 1", "x").unwrap();
    let generation = Generation {
        number: 1,
        digest,
        requires: std::collections::BTreeSet::new(),
    };
    hub.set_good("default", generation, offer);
    let configurable = |number| AgentToServer {
        capabilities: agent::REPORTS_STATUS
            | agent::ACCEPTS_REMOTE_CONFIG
            | agent::REPORTS_REMOTE_CONFIG
            | agent::REPORTS_EFFECTIVE_CONFIG,
        ..message(number)
    };
    let stranger: Arc<Notify> = Arc::default();
    let first = attached(hub.attach(UID, Some(stranger.clone()), How::default(), 0));
    let wish = AgentToServer {
        connection_settings_request: Some(ConnectionSettingsRequest {
            opamp: Some(tailwater_opamp::proto::OpAmpConnectionSettingsRequest {
                certificate_request: Some(tailwater_opamp::proto::CertificateRequest {
                    csr: vec![7],
                }),
            }),
        }),
        ..configurable(0)
    };
    let reply = hub.received(UID, first, wish, 0).unwrap();
    assert_eq!(reply.request, Some(vec![7]));
    assert_eq!(reply.message.remote_config, None);
    assert!(hub.push(UID, first).unwrap().message.is_none());
    let settings = ConnectionSettingsOffers {
        hash: vec![1],
        opamp: None,
    };
    hub.with(UID, |a| a.settings = Some(Box::new(settings.clone())));
    let pushed = hub.push(UID, first).unwrap().message.unwrap();
    assert_eq!(pushed.connection_settings, Some(settings));
    assert!(hub.push(UID, first).unwrap().message.is_none(), "once");
    let second = attached(socket(&hub, UID, false).0);
    assert!(hub.push(UID, first).is_err());
    let reply = hub.received(UID, second, configurable(1), 0).unwrap();
    assert!(reply.message.remote_config.is_some());
    // Out.
    hub.expel(UID);
    assert!(hub.push(UID, second).is_err());
    assert!(hub.received(UID, second, configurable(2), 0).is_none());
}
