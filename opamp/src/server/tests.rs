use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::client::{Client, Event, Report, Start};
use crate::proto::{
    AgentConfigFile, AgentConfigMap, AgentDisconnect, ConnectionSettingsStatus, server,
};

const UID: InstanceUid = InstanceUid([1; 16]);
const OWN: &str = "io.tailwater.test/v1";
const CLAIMS: u64 = agent::ACCEPTS_REMOTE_CONFIG
    | agent::REPORTS_EFFECTIVE_CONFIG
    | agent::REPORTS_HEALTH
    | agent::REPORTS_REMOTE_CONFIG
    | agent::REPORTS_AVAILABLE_COMPONENTS;

fn welcome() -> Welcome {
    Welcome {
        capabilities: server::ACCEPTS_STATUS
            | server::OFFERS_REMOTE_CONFIG
            | server::ACCEPTS_EFFECTIVE_CONFIG,
        custom: vec![OWN.to_owned()],
    }
}

fn client() -> Client {
    let mut report = Report::default();
    let kind = crate::proto::ComponentDetails {
        sub_component_map: BTreeMap::from([("otlp".to_owned(), Default::default())]),
        ..Default::default()
    };
    report
        .components
        .components
        .insert("receivers".into(), kind);
    report.components.hash = vec![9];
    report.description.identifying_attributes = vec![KeyValue::text("service.name", "a")];
    Client::new(Start {
        uid: UID,
        capabilities: CLAIMS,
        report,
        remote: RemoteConfigStatus::default(),
        connection: ConnectionSettingsStatus::default(),
    })
}

fn offer(hash: u8) -> AgentRemoteConfig {
    AgentRemoteConfig {
        config: Some(AgentConfigMap::default()),
        config_hash: vec![hash],
    }
}

fn effective(text: &str) -> EffectiveConfig {
    let file = AgentConfigFile {
        body: text.as_bytes().to_vec(),
        content_type: String::new(),
    };
    EffectiveConfig {
        config_map: Some(AgentConfigMap {
            config_map: BTreeMap::from([(String::new(), file)]),
        }),
    }
}

/// Both speak until neither has anything to say; how often the agent was offered something.
fn converse(
    c: &mut Client,
    p: &mut Peer,
    desired: Option<&AgentRemoteConfig>,
    now: Duration,
) -> u32 {
    let mut offers = 0;
    for round in 0..20 {
        let Some(message) = c.take(now) else {
            return offers;
        };
        c.sent();
        p.received(message);
        let answer = p.answer(&welcome(), UID, None, desired);
        for event in c.received(answer) {
            assert!(matches!(event, Event::Apply(_)), "{event:?}");
            offers += 1;
        }
        assert!(round < 19, "they never end");
    }
    offers
}

/// Guarantee: our own agent and this server end every conversation; an offer is answered once, refused or not,
/// and not made again; the effective configuration and the components arrive.
#[test]
fn an_offer_is_made_once_whatever_comes_of_it() {
    let (mut c, mut p) = (client(), Peer::default());
    c.connected();
    p.connected();
    let now = Duration::from_secs(5);
    assert_eq!(converse(&mut c, &mut p, Some(&offer(1)), now), 1);
    assert_eq!(
        p.components,
        Some(BTreeSet::from(["receivers/otlp".to_owned()]))
    );
    assert!(p.is_configurable());
    let is = |p: &Peer, hash: u8, status| {
        assert_eq!(
            p.answer_to_offer().map(|(h, s, _)| (h.to_vec(), s)),
            Some((vec![hash], status))
        );
    };
    is(&p, 1, Status::Applying);
    assert_eq!(c.settle(Err("no such receiver".into())), None);
    assert_eq!(converse(&mut c, &mut p, Some(&offer(1)), now), 0);
    is(&p, 1, Status::Failed);
    assert_eq!(p.push(UID, Some(&offer(1)), None), None);
    // The way back is another offer.
    let pushed = p.push(UID, Some(&offer(2)), None).expect("an offer");
    assert_eq!(
        p.push(UID, Some(&offer(2)), None),
        None,
        "once over a connection"
    );
    assert_eq!(c.received(pushed), [Event::Apply(offer(2))]);
    c.set_effective(effective("b"));
    assert_eq!(c.settle(Ok(())), None);
    assert_eq!(converse(&mut c, &mut p, Some(&offer(2)), now), 0);
    is(&p, 2, Status::Applied);
    assert_eq!(p.effective.unwrap()[""], b"b");
}

/// Guarantee: what was lost is asked for, and what was said whole is not.
#[test]
fn a_gap_is_filled() {
    let (mut c, mut p) = (client(), Peer::default());
    c.connected();
    p.connected();
    converse(&mut c, &mut p, None, Duration::ZERO);
    let flags = |p: &mut Peer| p.answer(&welcome(), UID, None, None).flags;
    // A message gets lost on the way.
    c.set_effective(effective("lost"));
    c.take(Duration::from_secs(2)).expect("it is new");
    c.sent();
    c.set_effective(effective("seen"));
    let heard = p.received(c.take(Duration::from_secs(2)).expect("it is new"));
    c.sent();
    assert!(heard.gap && heard.effective);
    let answer = p.answer(&welcome(), UID, None, None);
    assert_eq!(answer.flags, REPORT_FULL_STATE);
    c.received(answer);
    let whole = c.take(Duration::from_secs(9)).expect("everything");
    c.sent();
    assert!(whole.agent_description.is_some());
    assert!(!p.received(whole).gap);
    assert_eq!(flags(&mut p), 0);
    // A server that was started anew knows nothing, but everything was said.
    let mut other = Peer::default();
    c.connected();
    assert!(
        other
            .received(c.take(Duration::from_secs(10)).expect("all"))
            .gap
    );
    assert_eq!(flags(&mut other) & REPORT_FULL_STATE, 0);
    // And one that heard only of a heartbeat.
    let mut third = Peer::default();
    let beat = AgentToServer {
        instance_uid: UID.0.to_vec(),
        sequence_num: 7,
        capabilities: CLAIMS,
        ..AgentToServer::default()
    };
    third.received(beat.clone());
    assert_eq!(flags(&mut third), REPORT_FULL_STATE);
    let bye = AgentToServer {
        agent_disconnect: Some(AgentDisconnect {}),
        ..beat
    };
    assert!(third.received(bye).farewell);
    assert_eq!(flags(&mut third), 0, "who goes is asked nothing");
}

#[test]
fn what_is_not_claimed_is_neither_believed_nor_offered() {
    let mut p = Peer::default();
    let heard = p.received(AgentToServer {
        agent_description: Some(AgentDescription::default()),
        remote_config_status: Some(RemoteConfigStatus {
            last_remote_config_hash: vec![1],
            status: Status::Applied as i32,
            error_message: String::new(),
        }),
        capabilities: agent::REPORTS_STATUS,
        ..AgentToServer::default()
    });
    assert_eq!(heard.unclaimed, Some("remote_config_status"));
    assert_eq!(p.answer_to_offer(), None);
    assert!(!p.is_configurable());
    assert_eq!(
        p.answer(&welcome(), UID, None, Some(&offer(1)))
            .remote_config,
        None
    );
}

#[test]
fn an_agent_with_another_name_is_offered_nothing_under_the_old_one() {
    let mut p = Peer::default();
    p.received(AgentToServer {
        capabilities: CLAIMS,
        ..AgentToServer::default()
    });
    let new = InstanceUid([2; 16]);
    let answer = p.answer(&welcome(), UID, Some(new), Some(&offer(1)));
    let named = answer.agent_identification.map(|i| i.new_instance_uid);
    assert_eq!(named, Some(new.0.to_vec()));
    assert_eq!(answer.remote_config, None);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut p = Peer::default();
    let many = (0..10_000).map(|i| KeyValue::text(i.to_string(), "é".repeat(5_000)));
    let part = ComponentHealth {
        last_error: "x".repeat(100_000),
        ..Default::default()
    };
    let parts = (0..10_000).map(|i| (i.to_string(), part.clone()));
    p.received(AgentToServer {
        capabilities: CLAIMS,
        agent_description: Some(AgentDescription {
            identifying_attributes: many.collect(),
            ..Default::default()
        }),
        health: Some(ComponentHealth {
            component_health_map: parts.collect(),
            ..Default::default()
        }),
        effective_config: Some(effective(&"x".repeat(EFFECTIVE_BYTES_MAX + 1))),
        ..AgentToServer::default()
    });
    assert_eq!(p.identifying.len(), ENTRIES_MAX);
    assert!(p.identifying.values().all(|v| v.len() <= TEXT_BYTES_MAX));
    let health = p.health.expect("said");
    assert_eq!(health.parts.len(), ENTRIES_MAX);
    assert_eq!(p.effective, None);
}

proptest! {
    /// Guarantee: whatever order connections, losses, offers and answers come in, in the end the agent has
    /// answered the newest offer, and the server knows it.
    #[test]
    fn the_newest_offer_is_answered(steps in proptest::collection::vec((0u8..6, 1u8..4), 1..60)) {
        let (mut c, mut p) = (client(), Peer::default());
        c.connected();
        p.connected();
        let mut desired = offer(1);
        let mut now = Duration::ZERO;
        for (what, hash) in steps {
            now += Duration::from_secs(2);
            match what {
                0 => desired = offer(hash),
                1 => { let _ = c.settle(Ok(())); }
                2 => { let _ = c.settle(Err("no".into())); }
                3 => {
                    // The message, or its answer, is lost with the connection.
                    if let Some(message) = c.take(now) {
                        if hash > 1 { p.received(message); let _ = p.answer(&welcome(), UID, None, Some(&desired)); }
                        c.lost();
                    }
                    c.connected();
                    p.connected();
                }
                _ => {
                    if let Some(message) = c.take(now) {
                        c.sent();
                        p.received(message);
                        let answer = p.answer(&welcome(), UID, None, Some(&desired));
                        c.received(answer);
                    }
                }
            }
        }
        c.connected();
        p.connected();
        for _ in 0..20 {
            now += Duration::from_secs(2);
            converse(&mut c, &mut p, Some(&desired), now);
            if let Some(pushed) = p.push(UID, Some(&desired), None) {
                c.received(pushed);
            }
            let _ = c.settle(Ok(()));
        }
        let (hash, status, _) = p.answer_to_offer().expect("an answer");
        prop_assert_eq!(hash, &desired.config_hash[..]);
        prop_assert!(status == Status::Applied || status == Status::Failed);
    }
}
