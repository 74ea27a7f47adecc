use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::proto::{
    AgentConfigMap, AgentIdentification, CertificateRequest, OpAmpConnectionSettings,
    OpAmpConnectionSettingsRequest, RetryInfo, ServerToAgentCommand,
};

const ALL_OF_OURS: u64 = agent::ACCEPTS_REMOTE_CONFIG
    | agent::REPORTS_EFFECTIVE_CONFIG
    | agent::ACCEPTS_OPAMP_CONNECTION_SETTINGS
    | agent::REPORTS_HEALTH
    | agent::REPORTS_REMOTE_CONFIG
    | agent::REPORTS_HEARTBEAT
    | agent::REPORTS_AVAILABLE_COMPONENTS
    | agent::REPORTS_CONNECTION_SETTINGS_STATUS;
const SERVER: u64 = 0x67;
const RESULTS: &str = "io.tailwater.results/v1";

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn client(capabilities: u64) -> Client {
    let mut report = Report {
        custom: vec![RESULTS.to_owned()],
        ..Report::default()
    };
    report.components.hash = vec![7];
    let details = Default::default();
    report
        .components
        .components
        .insert("receivers".to_owned(), details);
    Client::new(Start {
        uid: InstanceUid([1; 16]),
        capabilities,
        report,
        remote: RemoteConfigStatus::default(),
        connection: ConnectionSettingsStatus::default(),
    })
}

/// A client that has said everything to a server that takes everything.
fn greeted() -> Client {
    let mut c = client(ALL_OF_OURS);
    c.connected();
    say(&mut c, 0).expect("everything");
    let answer = ServerToAgent {
        capabilities: SERVER,
        ..answer()
    };
    assert_eq!(c.received(answer), []);
    assert_eq!(say(&mut c, 0), None);
    c
}

fn answer() -> ServerToAgent {
    ServerToAgent {
        instance_uid: vec![1; 16],
        ..ServerToAgent::default()
    }
}

fn say(c: &mut Client, second: u64) -> Option<AgentToServer> {
    let message = c.take(seconds(second))?;
    c.sent();
    Some(message)
}

fn offer(hash: u8) -> AgentRemoteConfig {
    AgentRemoteConfig {
        config: Some(AgentConfigMap::default()),
        config_hash: vec![hash],
    }
}

fn offers(c: &mut Client, hash: u8) -> Vec<Event> {
    c.received(ServerToAgent {
        remote_config: Some(offer(hash)),
        ..answer()
    })
}

fn is_full(m: &AgentToServer) -> bool {
    m.agent_description.is_some()
        && m.health.is_some()
        && m.effective_config.is_some()
        && m.remote_config_status.is_some()
        && m.custom_capabilities.is_some()
        && m.available_components.is_some()
        && m.connection_settings_status.is_some()
}

#[test]
fn everything_is_said_first_and_then_what_changed() {
    let mut c = client(ALL_OF_OURS);
    c.connected();
    let first = say(&mut c, 0).expect("everything");
    assert!(is_full(&first), "{first:?}");
    assert_eq!((first.sequence_num, first.capabilities), (0, 0xf907));
    assert_eq!(first.available_components.unwrap().components.len(), 0);
    assert_eq!(say(&mut c, 0), None, "nothing changed");
    assert_eq!(c.received(answer()), []);
    assert_eq!(say(&mut c, 0), None, "an answer is no change");
    let ill = ComponentHealth {
        last_error: "x".into(),
        ..ComponentHealth::default()
    };
    c.set_health(ill.clone(), false);
    c.set_health(ill.clone(), false);
    let second = say(&mut c, 0).expect("a change");
    assert_eq!(second.sequence_num, 1);
    assert_eq!(second.health, Some(ill));
    assert!(second.agent_description.is_none() && second.effective_config.is_none());
}

#[test]
fn nothing_is_said_that_was_not_claimed() {
    let mut c = client(0);
    c.connected();
    let first = say(&mut c, 0).expect("a message");
    assert_eq!(first.capabilities, agent::REPORTS_STATUS);
    assert!(first.agent_description.is_some() && first.custom_capabilities.is_some());
    assert!(first.health.is_none() && first.effective_config.is_none());
    assert!(first.remote_config_status.is_none() && first.available_components.is_none());
    assert!(first.connection_settings_status.is_none());
    assert!(matches!(offers(&mut c, 1)[..], [Event::Ignored(_)]));
    c.set_effective(EffectiveConfig {
        config_map: Some(AgentConfigMap::default()),
    });
    assert_eq!(say(&mut c, 0), None);
}

#[test]
fn a_server_is_not_told_what_it_does_not_take() {
    let mut c = client(ALL_OF_OURS);
    c.connected();
    c.set_request(Some(ConnectionSettingsRequest::default()));
    let result = CustomMessage {
        capability: RESULTS.to_owned(),
        ..CustomMessage::default()
    };
    c.set_result(result.clone());
    let first = say(&mut c, 0).expect("everything");
    assert!(first.connection_settings_request.is_none() && first.custom_message.is_none());
    c.received(ServerToAgent {
        capabilities: server::ACCEPTS_STATUS,
        ..answer()
    });
    c.set_effective(EffectiveConfig {
        config_map: Some(AgentConfigMap::default()),
    });
    assert_eq!(say(&mut c, 0), None);
    c.received(ServerToAgent {
        capabilities: SERVER,
        custom_capabilities: Some(CustomCapabilities {
            capabilities: vec![RESULTS.to_owned()],
        }),
        ..answer()
    });
    let next = say(&mut c, 0).expect("what was kept");
    assert!(next.effective_config.is_some() && next.connection_settings_request.is_some());
    assert_eq!(next.custom_message, Some(result));
    assert_eq!(say(&mut c, 0), None);
}

#[test]
fn a_message_that_may_be_lost_keeps_its_number_and_everything_comes_again() {
    let mut c = greeted();
    c.set_health(
        ComponentHealth {
            healthy: true,
            ..Default::default()
        },
        false,
    );
    let lost = c.take(seconds(1)).expect("a message");
    assert_eq!(c.take(seconds(1)), None, "one at a time");
    c.lost();
    let again = say(&mut c, 2).expect("a message");
    assert_eq!(again.sequence_num, lost.sequence_num);
    assert!(is_full(&again));
    c.connected();
    let reconnected = say(&mut c, 3).expect("a message");
    assert_eq!(reconnected.sequence_num, lost.sequence_num + 1);
    assert!(is_full(&reconnected));
}

#[test]
fn full_state_is_said_when_asked_but_in_no_tight_loop() {
    let mut c = greeted();
    let ask = || ServerToAgent {
        flags: REPORT_FULL_STATE,
        ..answer()
    };
    c.received(ask());
    assert!(is_full(&say(&mut c, 10).expect("everything")));
    c.received(ask());
    assert_eq!(say(&mut c, 10), None);
    assert_eq!(c.deadline(), Some(seconds(11)));
    assert!(is_full(&say(&mut c, 11).expect("everything")));
    assert_eq!(say(&mut c, 60), None);
    c.received(ServerToAgent {
        flags: REPORT_AVAILABLE_COMPONENTS,
        ..answer()
    });
    let listed = say(&mut c, 60).expect("components");
    assert_eq!(listed.available_components.unwrap().components.len(), 1);
    assert!(listed.agent_description.is_none());
}

#[test]
fn heartbeats_count_from_the_last_message_and_carry_nothing_else() {
    let mut c = greeted();
    assert_eq!(c.deadline(), None);
    c.set_interval(Some(seconds(30)));
    assert_eq!(c.deadline(), Some(seconds(30)));
    assert_eq!(say(&mut c, 29), None);
    c.set_effective(EffectiveConfig {
        config_map: Some(AgentConfigMap::default()),
    });
    assert!(say(&mut c, 29).is_some());
    assert_eq!(say(&mut c, 58), None);
    let beat = say(&mut c, 59).expect("a heartbeat");
    let bare = AgentToServer {
        instance_uid: vec![1; 16],
        capabilities: beat.capabilities,
        sequence_num: beat.sequence_num,
        ..AgentToServer::default()
    };
    assert_eq!(beat, bare);
    let text = |text: &str| ComponentHealth {
        last_error: text.into(),
        ..ComponentHealth::default()
    };
    c.set_health(text("for 3 s"), true);
    assert_eq!(say(&mut c, 60), None, "it can wait");
    let beat = say(&mut c, 89).expect("a heartbeat");
    assert_eq!(beat.health, Some(text("for 3 s")));
    assert_eq!(say(&mut c, 119).expect("a heartbeat").health, None);
    c.set_interval(None);
    assert_eq!(say(&mut c, 1000), None);
}

#[test]
fn an_offer_is_handed_out_once_and_its_status_is_told() {
    let mut c = greeted();
    assert!(matches!(offers(&mut c, 1)[..], [Event::Apply(_)]));
    let status = |m: AgentToServer| m.remote_config_status.expect("a status");
    let applying = status(say(&mut c, 1).expect("a message"));
    assert_eq!(applying.status, Status::Applying as i32);
    assert_eq!(offers(&mut c, 1), [], "it is under way");
    assert_eq!(c.settle(Err("no".into())), None);
    let failed = status(say(&mut c, 1).expect("a message"));
    assert_eq!((failed.status, &*failed.error_message), (3, "no"));
    assert_eq!(offers(&mut c, 1), [], "it is known to be bad");
    assert!(matches!(offers(&mut c, 2)[..], [Event::Apply(_)]));
    assert_eq!(offers(&mut c, 3), []);
    assert_eq!(offers(&mut c, 2), [], "what is under way is wanted again");
    assert_eq!(c.settle(Ok(())), None);
    assert_eq!(c.remote_status().last_remote_config_hash, [2]);
    assert_eq!(c.remote_status().status, Status::Applied as i32);
    c.set_in_force(Err("rolled back".into()));
    let back = status(say(&mut c, 2).expect("a message"));
    assert_eq!((back.status, &*back.error_message), (3, "rolled back"));
    assert_eq!(back.last_remote_config_hash, [2]);
    c.set_in_force(Ok(()));
    assert_eq!(c.remote_status().status, Status::Applied as i32);
    assert_eq!(c.settle(Ok(())), None, "nothing is under way");
}

/// Guarantee: an agent that was restarted says what it said before, and the same offer changes nothing.
#[test]
fn what_was_applied_before_a_restart_is_reported_and_not_applied_again() {
    let mut c = Client::new(Start {
        uid: InstanceUid([1; 16]),
        capabilities: ALL_OF_OURS,
        report: Report::default(),
        remote: RemoteConfigStatus {
            last_remote_config_hash: vec![9],
            status: Status::Applied as i32,
            error_message: String::new(),
        },
        connection: ConnectionSettingsStatus::default(),
    });
    c.connected();
    let first = say(&mut c, 0).expect("everything");
    assert_eq!(first.remote_config_status.unwrap().status, 1);
    assert_eq!(offers(&mut c, 9), []);
    assert!(matches!(offers(&mut c, 8)[..], [Event::Apply(_)]));
}

#[test]
fn errors_of_the_server_are_told_apart() {
    let mut c = greeted();
    let error = |kind, details| ServerToAgent {
        error_response: Some(ServerErrorResponse {
            r#type: kind as i32,
            error_message: "why".into(),
            details,
        }),
        remote_config: Some(offer(1)),
        ..answer()
    };
    let refused = c.received(error(ErrorKind::BadRequest, None));
    assert_eq!(refused, [Event::Refused("why".into())]);
    assert_eq!(say(&mut c, 0), None, "it is not said again");
    let info = ErrorDetails::RetryInfo(RetryInfo {
        retry_after_nanoseconds: 5_000_000_000,
    });
    let throttled = c.received(error(ErrorKind::Unavailable, Some(info)));
    assert_eq!(throttled, [Event::Throttled(Some(seconds(5)))]);
    assert!(is_full(&say(&mut c, 6).expect("again")));
    assert_eq!(
        c.received(error(ErrorKind::Unavailable, None)),
        [Event::Throttled(None)]
    );
}

#[test]
fn a_new_name_is_used_at_once_and_commands_and_strangers_are_left_alone() {
    let mut c = greeted();
    let named = |bytes: Vec<u8>| ServerToAgent {
        agent_identification: Some(AgentIdentification {
            new_instance_uid: bytes,
        }),
        ..answer()
    };
    assert!(matches!(
        c.received(named(vec![2; 15]))[..],
        [Event::Ignored(_)]
    ));
    assert_eq!(c.received(named(vec![1; 16])), []);
    let renamed = c.received(named(vec![2; 16]));
    assert_eq!(renamed, [Event::Renamed(InstanceUid([2; 16]))]);
    let next = say(&mut c, 0).expect("everything");
    assert!(next.instance_uid == [2; 16] && is_full(&next));
    assert_eq!(
        c.received(answer()),
        [],
        "one to the former name was under way"
    );
    let stranger = ServerToAgent {
        instance_uid: vec![3; 16],
        remote_config: Some(offer(1)),
        ..ServerToAgent::default()
    };
    assert!(matches!(c.received(stranger)[..], [Event::Ignored(_)]));
    let command = ServerToAgent {
        command: Some(ServerToAgentCommand::default()),
        remote_config: Some(offer(1)),
        ..answer()
    };
    assert!(matches!(c.received(command)[..], [Event::Ignored(_)]));
    let unknown = ServerToAgent {
        command: Some(ServerToAgentCommand { r#type: 7 }),
        ..answer()
    };
    assert!(matches!(c.received(unknown)[..], [Event::Ignored(_)]));
    let farewell = c.farewell();
    assert!(farewell.agent_disconnect.is_some());
    assert_eq!(farewell.sequence_num, next.sequence_num + 1);
}

#[test]
fn offered_settings_are_handed_out_once() {
    let mut c = greeted();
    let offer = |hash: u8, opamp| ServerToAgent {
        connection_settings: Some(ConnectionSettingsOffers {
            hash: vec![hash],
            opamp,
        }),
        ..answer()
    };
    assert_eq!(c.received(offer(1, None)), [], "others than ours");
    let ours = || Some(OpAmpConnectionSettings::default());
    assert!(matches!(
        c.received(offer(1, ours()))[..],
        [Event::Connection(_)]
    ));
    c.connection_status(vec![1], Status::Failed, "no");
    let status = say(&mut c, 0).and_then(|m| m.connection_settings_status);
    assert_eq!(status.map(|s| s.status), Some(3));
    assert_eq!(c.received(offer(1, ours())), []);
    assert!(matches!(
        c.received(offer(2, ours()))[..],
        [Event::Connection(_)]
    ));
}

/// The numbers of fields and their types, as the specification has them: a message written by hand.
#[test]
fn messages_are_on_the_wire_as_specified() {
    let message = AgentToServer {
        instance_uid: vec![1, 2],
        sequence_num: 3,
        capabilities: 4,
        agent_disconnect: Some(AgentDisconnect {}),
        connection_settings_request: Some(ConnectionSettingsRequest {
            opamp: Some(OpAmpConnectionSettingsRequest {
                certificate_request: Some(CertificateRequest { csr: vec![9] }),
            }),
        }),
        health: Some(ComponentHealth {
            healthy: true,
            start_time_unix_nano: 1,
            ..ComponentHealth::default()
        }),
        remote_config_status: Some(RemoteConfigStatus {
            last_remote_config_hash: vec![5],
            status: Status::Failed as i32,
            error_message: "e".into(),
        }),
        ..AgentToServer::default()
    };
    let bytes = [
        &[0x0a, 2, 1, 2, 0x10, 3, 0x20, 4][..],
        &[0x2a, 11, 0x08, 1, 0x11, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0x3a, 8, 0x0a, 1, 5, 0x10, 3, 0x1a, 1, b'e'],
        &[0x4a, 0],
        &[0x5a, 7, 0x0a, 5, 0x0a, 3, 0x0a, 1, 9],
    ]
    .concat();
    assert_eq!(message.encode_to_vec(), bytes);
}

/// What can happen to a client.
#[derive(Clone, Debug)]
enum Step {
    Offer(u8),
    Settle(bool),
    Say,
    Lose,
    Reconnect,
    AskAll,
    Pass(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4u8).prop_map(Step::Offer),
        3 => any::<bool>().prop_map(Step::Settle),
        4 => Just(Step::Say),
        1 => Just(Step::Lose),
        1 => Just(Step::Reconnect),
        1 => Just(Step::AskAll),
        1 => (0..40u8).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    /// Guarantee: whatever a server sends, the agent goes on, and what it says is of bounded size.
    #[test]
    fn no_message_of_a_server_stops_the_agent(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        error in prop::collection::vec(any::<char>(), 0..9000),
    ) {
        let mut c = client(ALL_OF_OURS);
        c.connected();
        if let Ok(message) = crate::unframe::<ServerToAgent>(&[&[0][..], &bytes].concat()) {
            c.received(message);
        }
        offers(&mut c, 1);
        c.settle(Err(error.into_iter().collect()));
        let message = say(&mut c, 1).expect("the first one");
        prop_assert!(message.encoded_len() < 20 << 10);
    }

    /// Guarantee: however offers, results, losses and reconnects come, one configuration is under way at
    /// a time, none of the same hash twice in a row, numbers are one after the other, and in the end the
    /// server knows the truth about the newest offer.
    #[test]
    fn every_sequence_of_offers_ends_in_a_truthful_status(steps in steps()) {
        let mut c = client(ALL_OF_OURS);
        c.connected();
        let mut world = World::default();
        let mut second = 0;
        for step in steps {
            match step {
                Step::Offer(hash) => {
                    world.wanted = Some(hash);
                    let events = offers(&mut c, hash);
                    world.hand_out(events);
                }
                Step::Settle(good) => world.settle(&mut c, good),
                Step::Say => world.hear(say(&mut c, second)),
                Step::Lose => {
                    if c.take(seconds(second)).is_some() {
                        c.lost();
                    }
                }
                Step::Reconnect => c.connected(),
                Step::AskAll => {
                    c.received(ServerToAgent { flags: REPORT_FULL_STATE, ..answer() });
                }
                Step::Pass(s) => second += u64::from(s),
            }
        }
        while world.applying.is_some() {
            world.settle(&mut c, true);
        }
        second += 2;
        while let Some(message) = say(&mut c, second) {
            world.hear(Some(message));
        }
        let told = world.told.expect("the first message has it");
        match (world.wanted, world.last) {
            (Some(wanted), Some((hash, good))) => {
                prop_assert_eq!(wanted, hash);
                prop_assert_eq!(told, (vec![hash], if good { 1 } else { 3 }));
            }
            _ => prop_assert_eq!(told, (vec![], 0)),
        }
    }
}

/// What a server and a supervisor know.
#[derive(Default)]
struct World {
    wanted: Option<u8>,
    applying: Option<u8>,
    last: Option<(u8, bool)>,
    heard: Option<u64>,
    told: Option<(Vec<u8>, i32)>,
}

impl World {
    fn hand_out(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let Event::Apply(offer) = event else {
                panic!("{event:?}")
            };
            assert_eq!(self.applying, None, "two at a time");
            assert_ne!(self.last.map(|l| l.0), Some(offer.config_hash[0]), "twice");
            self.applying = Some(offer.config_hash[0]);
        }
    }

    fn settle(&mut self, c: &mut Client, good: bool) {
        let Some(hash) = self.applying.take() else {
            return;
        };
        self.last = Some((hash, good));
        let next = c.settle(if good { Ok(()) } else { Err("no".into()) });
        self.hand_out(next);
    }

    fn hear(&mut self, message: Option<AgentToServer>) {
        let Some(message) = message else { return };
        let expected = self.heard.map_or(0, |n| n + 1);
        assert_eq!(message.sequence_num, expected);
        self.heard = Some(message.sequence_num);
        if let Some(status) = message.remote_config_status {
            self.told = Some((status.last_remote_config_hash, status.status));
        }
    }
}

/// Guarantee: a message holds one of our own at a time and none is forgotten; nothing of it is said to a server
/// that does not know it; what a server says in one comes out.
#[test]
fn own_messages_take_turns() {
    let mut c = client(ALL_OF_OURS);
    let own = |kind: &str| CustomMessage {
        capability: RESULTS.to_owned(),
        r#type: kind.to_owned(),
        data: Vec::new(),
    };
    c.set_result(own("result"));
    c.set_state(own("state"));
    c.set_sources(own("sources"));
    c.connected();
    assert_eq!(say(&mut c, 0).expect("everything").custom_message, None);
    let told = |custom: &str| ServerToAgent {
        capabilities: SERVER,
        custom_capabilities: Some(CustomCapabilities {
            capabilities: vec![custom.to_owned()],
        }),
        ..answer()
    };
    c.received(told("other"));
    assert_eq!(say(&mut c, 0), None);
    c.received(told(RESULTS));
    let mut next = || say(&mut c, 0).and_then(|m| m.custom_message);
    assert_eq!(next(), Some(own("result")));
    assert_eq!(next(), Some(own("state")));
    assert_eq!(next(), Some(own("sources")));
    assert_eq!(next(), None);
    c.set_state(own("state"));
    assert_eq!(say(&mut c, 0), None, "nothing new");
    let asks = |custom| ServerToAgent {
        custom_message: Some(custom),
        ..answer()
    };
    assert_eq!(
        c.received(asks(own("sample"))),
        [Event::Custom(own("sample"))]
    );
    let other = CustomMessage::default();
    assert!(matches!(c.received(asks(other))[..], [Event::Ignored(_)]));
}

/// Guarantee: an agent that claims it is told to restart, by a message in which nothing else counts.
#[test]
fn a_restart_is_told_where_it_is_claimed() {
    let mut c = client(agent::ACCEPTS_REMOTE_CONFIG | agent::ACCEPTS_RESTART_COMMAND);
    let command = ServerToAgent {
        command: Some(ServerToAgentCommand {
            r#type: crate::proto::COMMAND_RESTART,
        }),
        remote_config: Some(offer(1)),
        ..answer()
    };
    assert_eq!(c.received(command), [Event::Restart]);
}

/// Guarantee: a message holds one of our own, and each of them is said.
#[test]
fn answers_to_questions_go_before_other_messages_of_our_own() {
    let own = |name: &str| CustomMessage {
        capability: name.to_owned(),
        r#type: "x".to_owned(),
        data: Vec::new(),
    };
    let mut c = Client::new(Start {
        uid: InstanceUid([1; 16]),
        capabilities: 0,
        report: Report {
            custom: ["check", "result", "state"].map(str::to_owned).into(),
            ..Report::default()
        },
        remote: RemoteConfigStatus::default(),
        connection: ConnectionSettingsStatus::default(),
    });
    c.connected();
    c.set_state(own("state"));
    c.set_result(own("result"));
    c.set_check(own("check"));
    let mut said = Vec::new();
    c.take(Duration::ZERO).expect("the first message");
    c.sent();
    c.received(ServerToAgent {
        capabilities: 1,
        custom_capabilities: Some(CustomCapabilities {
            capabilities: ["check", "result", "state"].map(str::to_owned).into(),
        }),
        ..answer()
    });
    while let Some(message) = c.take(Duration::ZERO) {
        said.extend(message.custom_message.map(|m| m.capability));
        c.sent();
    }
    assert_eq!(said, ["check", "result", "state"]);
}
