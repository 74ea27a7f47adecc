//! The program with its events on a real NATS, which is killed and loses what it had.
#![allow(clippy::unwrap_used)]

mod peer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use tailwater_control_plane::bus::jetstream::Address;
use tailwater_control_plane::bus::{Bus, JetStreamBus, ReadFrom};
use tailwater_control_plane::model::{Event, Format, Origin, State};
use tailwater_control_plane::report::{CAPABILITY, Report, Reported, TYPE};
use tailwater_control_plane::store::SqliteStore;
use tailwater_opamp::proto::{AgentToServer, CustomMessage, REPORT_FULL_STATE};
use tailwater_testkit::nats::{Nats, find};

use peer::{Agent, BOUND, Process, hello, runtime, uid};

/// What an agent says of its sources.
fn report(sources: &[(&str, State)]) -> CustomMessage {
    let of = |(id, state): &(&str, State)| Reported {
        id: (*id).into(),
        kind: Origin::Docker,
        format: Format::Docker,
        paths: vec![format!("/var/lib/docker/{id}.log")],
        state: *state,
        generation: 10,
        since_ms: 1,
        lag_bytes: 0,
        labels: BTreeMap::from([("service.name".into(), "shop".into())]),
    };
    CustomMessage {
        capability: CAPABILITY.to_owned(),
        r#type: TYPE.to_owned(),
        data: Report::of(sources.iter().map(of), 0).to_bytes(),
    }
}

/// Ids and states, as people see them.
async fn listed(control: &Process) -> Vec<(String, String)> {
    let asked = control.client();
    let asked = asked.ask(Method::GET, "/api/v1/sources?limit=1000", None);
    let answer = asked.await.unwrap();
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = answer["sources"].as_array().unwrap();
    rows.iter()
        .map(|row| (text(row, "id"), text(row, "state")))
        .collect()
}

async fn until_listed(control: &Process, wanted: &[(&str, &str)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(id, state)| ((*id).to_owned(), (*state).to_owned()))
        .collect();
    let begun = Instant::now();
    loop {
        let found = listed(control).await;
        if found == wanted {
            return;
        }
        assert!(begun.elapsed() < BOUND, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn say(agent: &mut Agent, sources: &[(&str, State)]) -> u64 {
    let message = AgentToServer {
        custom_message: Some(report(sources)),
        ..agent.beat()
    };
    agent.say(message).await.flags
}

/// Guarantee: what agents read goes over the bus to the registry, and can be read there by others from the beginning; while the
/// bus is away all else goes on, and what was said meanwhile is there when it comes back; when it has lost everything, agents
/// are asked for everything; and another process goes on.
#[test]
fn sources_go_over_nats() {
    let binary = match find() {
        Ok(binary) => binary,
        Err(why) => return println!("SKIPPED: a control plane over NATS: {why}"),
    };
    let mut nats = Nats::start(&binary);
    let url = nats.url();
    let args = ["--bus", &*url, "--bus-stream", "shop"];
    let control = Process::start(&args);
    let all = [("docker:a", State::Live), ("docker:b", State::Live)];
    runtime().block_on(async {
        let mut agent = Agent::connect(control.addr, uid(1)).await;
        agent.say(hello(uid(1))).await;
        say(&mut agent, &all[..1]).await;
        until_listed(&control, &[("docker:a", "live")]).await;
        nats.kill();
        say(&mut agent, &all).await;
        // It is tried, and what there is, is shown.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(listed(&control).await.len(), 1);
        nats.start_again();
        until_listed(&control, &[("docker:a", "live"), ("docker:b", "live")]).await;
    });
    let read = replay(&url);
    let named: Vec<_> = read.iter().flat_map(|(_, ids)| ids.clone()).collect();
    assert_eq!(named, ["docker:a", "docker:b"], "what is news, once");
    assert!(read.iter().all(|(agent, _)| *agent == uid(1).to_string()));
    runtime().block_on(async {
        nats.kill();
        nats.lose_all();
        nats.start_again();
        let mut agent = Agent::connect(control.addr, uid(1)).await;
        agent.say(hello(uid(1))).await;
        let begun = Instant::now();
        while agent.say(agent.beat()).await.flags & REPORT_FULL_STATE == 0 {
            assert!(begun.elapsed() < BOUND, "it is not asked for everything");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        say(&mut agent, &all[..1]).await;
        until_listed(&control, &[("docker:a", "live")]).await;
    });
    let control = control.again(&args);
    runtime().block_on(async {
        until_listed(&control, &[("docker:a", "live")]).await;
        let mut agent = Agent::connect(control.addr, uid(1)).await;
        agent.say(hello(uid(1))).await;
        say(&mut agent, &[all[0], ("docker:c", State::Live)]).await;
        until_listed(&control, &[("docker:a", "live"), ("docker:c", "live")]).await;
    });
}

/// Of which agent, and which sources: all that is on the bus, as somebody else reads it.
fn replay(url: &str) -> Vec<(String, Vec<String>)> {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let bus = JetStreamBus::new(Address::parse(url).unwrap(), "shop", store).unwrap();
    let mut reader = bus.subscribe("somebody", ReadFrom::Event(0)).unwrap();
    let mut all = Vec::new();
    loop {
        let batch = reader.next(100, Duration::from_millis(500)).unwrap();
        if batch.events.is_empty() {
            return all;
        }
        for recorded in batch.events {
            match recorded.event {
                Event::Reported { agent, sources, .. } => {
                    all.push((agent, sources.into_iter().map(|s| s.id).collect()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
