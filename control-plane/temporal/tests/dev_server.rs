//! The driver against a real Temporal: its dev server, in memory, on a loopback port.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::rollout::driver::Parts;
use tailwater_control_plane::rollout::model::Phase;
use tailwater_control_plane::rollout::{Driver, Input, Operator, State, Turn};
use tailwater_control_plane::store::{RolloutStore, SqliteStore};
use tailwater_telemetry::metrics::MetricsRegistry;
use tailwater_temporal::{Ended, Reload, Rollouts};
use temporalio_client::{
    Client, WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowHistory,
};
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};

use world::{BOUND, GROUP, Temporal, World, begin, digest, policy, until};

/// Of what ran once.
const HISTORIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/histories");
/// More than any test takes: one run.
const ONE_RUN: u32 = 100_000;

/// What is submitted, one after the other, and whether it becomes good or is never offered again.
const REVISIONS: [(&str, bool); 4] = [
    ("good-1", true),
    ("bad-2", false),
    ("refused-3", false),
    ("good-4", true),
];

fn is_over(state: &State, revision: &str, is_good: bool) -> bool {
    let wanted = digest(revision);
    let decided = match is_good {
        true => state.good.digest == wanted,
        false => state.quarantine.contains_key(&wanted),
    };
    decided && matches!(state.phase, Phase::Idle)
}

/// The history of the newest run.
async fn history(client: &Client) -> Vec<u8> {
    let handle = client.get_workflow_handle::<Reload>(Rollouts::id(GROUP));
    let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
    history.to_json().await.unwrap()
}

async fn replays(history: &[u8]) -> Result<(), String> {
    let options = WorkflowReplayerOptions::new().register_workflow::<Reload>();
    let replayer = WorkflowReplayer::new(options.unwrap().build()).unwrap();
    let history = WorkflowHistory::from_json(history).unwrap();
    let replayed = replayer.replay_workflow(history).await;
    replayed.map(drop).map_err(|e| format!("{e:?}"))
}

/// Keeps a history for versions to come, if it is asked to: without who took part.
fn record(name: &str, mut history: serde_json::Value) {
    if std::env::var_os("TAILWATER_BLESS").is_none() {
        return;
    }
    scrub(&mut history);
    let path = format!("{HISTORIES}/{name}");
    std::fs::write(path, history.to_string() + "\n").unwrap();
}

/// Names of processes and machines have an `@`.
fn scrub(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) if text.contains('@') => *text = "worker".into(),
        serde_json::Value::Array(all) => all.iter_mut().for_each(scrub),
        serde_json::Value::Object(all) => all.values_mut().for_each(scrub),
        _ => {}
    }
}

/// Guarantee: histories that were recorded by this version or one before lead to the same commands, so that groups go on when
/// workers are renewed. One that cannot any more needs a patch of the workflow, or that all runs are handed on before.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_histories_replay() {
    let files = std::fs::read_dir(HISTORIES).unwrap();
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        replays(&text)
            .await
            .unwrap_or_else(|e| panic!("{path:?}: {e}"));
        count += 1;
    }
    assert!(count > 0);
}

/// What the embedded driver does with the same, from the same beginning.
fn embedded() -> Vec<String> {
    let (world, store) = (World::new(), Arc::new(SqliteStore::in_memory().unwrap()));
    let mut driver = Driver::new(Parts {
        store: store.clone(),
        fleet: Box::new(world.clone()),
        configs: Box::new(world.clone()),
        policy: policy(),
        metrics: Metrics::new(Arc::new(MetricsRegistry::default())),
        group: GROUP.into(),
        holder: "me".into(),
        lease_ms: 10_000,
    });
    for (revision, is_good) in REVISIONS {
        let input = Input::Changed {
            revision: revision.into(),
        };
        let body = serde_json::to_string(&input).unwrap();
        store.submit(GROUP, revision, &body).unwrap();
        let begun = Instant::now();
        while !driver
            .state()
            .is_some_and(|s| is_over(s, revision, is_good))
        {
            assert!(begun.elapsed() < BOUND, "{revision}: {:?}", driver.state());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let now_ms = u64::try_from(now.as_millis()).unwrap();
            if let Turn::Waits(_) = driver.turn(now_ms).unwrap() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    world.decisions()
}

/// Guarantee: both drivers do the same with the same, through promotion, harm that is taken back, a refusal and builds that
/// fail at first; the history replays, and one that tells something else does not.
#[tokio::test(flavor = "multi_thread")]
async fn both_drivers_do_the_same() {
    let wanted = std::thread::spawn(embedded);
    let (server, client) = Temporal::start().await;
    let world = World::new();
    let worker = server.worker(&world);
    let rollouts = Rollouts::new(client.clone());
    world.fail_builds(2);
    rollouts.start(begin(ONE_RUN)).await.unwrap();
    for (revision, is_good) in REVISIONS {
        rollouts.source_changed(GROUP, revision).await.unwrap();
        let what = |state: &State| is_over(state, revision, is_good);
        until(&rollouts, revision, what).await;
    }
    let state = until(&rollouts, "all follow", |_| world.running().len() == 1).await;
    assert_eq!(world.running(), ["good-4".to_owned()].into());
    assert_eq!(
        (state.good.number, state.quarantine.len(), state.epoch),
        (2, 2, 7)
    );
    assert_eq!(world.decisions(), wanted.join().unwrap());
    let history = history(&client).await;
    worker.kill();
    replays(&history).await.unwrap();
    let text = String::from_utf8(history).unwrap();
    let other = text.replacen("\"perform\"", "\"another\"", 1);
    assert_ne!(other, text);
    assert!(replays(other.as_bytes()).await.is_err());
}

/// Guarantee: a worker that dies in the middle of a soak costs nothing; runs follow each other, and signals find the newest;
/// no command is carried out by two keys.
#[tokio::test(flavor = "multi_thread")]
async fn workers_die_and_runs_end_and_it_goes_on() {
    let (server, client) = Temporal::start().await;
    let world = World::new();
    let first = server.worker(&world);
    let rollouts = Rollouts::new(client.clone());
    rollouts.start(begin(30)).await.unwrap();
    assert!(
        rollouts.start(begin(30)).await.is_err(),
        "there is one of a group"
    );
    rollouts.source_changed(GROUP, "good-1").await.unwrap();
    until(&rollouts, "a soak", |s| {
        matches!(s.phase, Phase::Soak { .. })
    })
    .await;
    first.kill();
    let second = server.worker(&world);
    let is_one = |s: &State| is_over(s, "good-1", true);
    until(&rollouts, "the promotion", is_one).await;
    let run = history(&client).await;
    let json: serde_json::Value = serde_json::from_slice(&run).unwrap();
    let begun = &json["events"][0]["attributes"]["WorkflowExecutionStartedEventAttributes"];
    let before = begun["continued_execution_run_id"].as_str().unwrap();
    assert!(!before.is_empty(), "it is the first run");
    replays(&run).await.unwrap();
    record("soak.json", json);
    rollouts.source_changed(GROUP, "bad-2").await.unwrap();
    let state = until(&rollouts, "the rollback", |s| is_over(s, "bad-2", false)).await;
    assert_eq!(state.good.digest, digest("good-1"));
    let promotions = world.decisions();
    let promotions = promotions.iter().filter(|k| k.contains("promote_config"));
    assert_eq!(promotions.count(), 1);
    second.kill();
}

/// Guarantee: people are heard while it waits for them and while it does not; who is not the newest driver any more ends.
#[tokio::test(flavor = "multi_thread")]
async fn people_are_heard_and_a_newer_driver_is_obeyed() {
    let (server, client) = Temporal::start().await;
    let world = World::new();
    let worker = server.worker(&world);
    let rollouts = Rollouts::new(client.clone());
    let mut begin = begin(ONE_RUN);
    begin.policy.approval_ms = Some(600_000);
    rollouts.start(begin).await.unwrap();
    rollouts.source_changed(GROUP, "good-1").await.unwrap();
    until(&rollouts, "a wait", |s| {
        matches!(s.phase, Phase::Approve { .. })
    })
    .await;
    assert!(
        !world
            .decisions()
            .iter()
            .any(|k| k.contains("canary_reload"))
    );
    rollouts.operator(GROUP, Operator::Approve).await.unwrap();
    until(&rollouts, "a soak", |s| {
        matches!(s.phase, Phase::Soak { .. })
    })
    .await;
    rollouts.operator(GROUP, Operator::Pause).await.unwrap();
    let is_paused = |s: &State| s.candidate.as_ref().is_some_and(|c| c.paused.is_some());
    until(&rollouts, "a pause", is_paused).await;
    rollouts.operator(GROUP, Operator::Abort).await.unwrap();
    let is_back = |s: &State| s.candidate.is_none() && matches!(s.phase, Phase::Idle);
    let state = until(&rollouts, "the way back", is_back).await;
    assert_eq!((state.good.number, state.quarantine.len()), (0, 0));
    rollouts.operator(GROUP, Operator::Unfreeze).await.unwrap();
    world.obey(8);
    let handle = client.get_workflow_handle::<Reload>(Rollouts::id(GROUP));
    let ended = handle.get_result(WorkflowGetResultOptions::default());
    let ended = tokio::time::timeout(BOUND, ended).await.unwrap().unwrap();
    assert_eq!(ended, Ended::Fenced);
    worker.kill();
}
