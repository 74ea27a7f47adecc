use std::collections::BTreeSet;

use tailwater_control_plane::rollout::model::Candidate;
use tailwater_control_plane::store::{RolloutStore, SqliteStore};
use tailwater_telemetry::metrics::MetricsRegistry;

use super::*;

#[test]
fn what_would_change_nothing_is_refused() {
    let policy = Policy::new(fallback());
    let mut state = State::new("a", &policy);
    let all = [
        Operator::Approve,
        Operator::Deny,
        Operator::Pause,
        Operator::Resume,
        Operator::Rollback,
        Operator::Abort,
        Operator::Unfreeze,
    ];
    assert!(
        all.iter()
            .all(|w| may(None, *w).is_err() && may(Some(&state), *w).is_err())
    );
    state.phase = Phase::Approve { until_ms: 5 };
    assert!(may(Some(&state), Operator::Approve).is_ok());
    assert!(may(Some(&state), Operator::Pause).is_ok());
    assert!(may(Some(&state), Operator::Resume).is_err());
    state.frozen = true;
    assert!(may(Some(&state), Operator::Unfreeze).is_ok());
}

/// Groups over a store, in a process that was just started.
fn groups(store: &Arc<SqliteStore>, dir: &tempfile::TempDir, settle: Duration) -> Groups {
    let store: Arc<dyn FleetStore> = store.clone();
    Groups::new(Shared {
        offers: Arc::new(Offers::new(store.clone(), None)),
        hub: Arc::new(Hub::new(10, false)),
        audit: Arc::new(Audit::open(dir.path()).unwrap()),
        metrics: Metrics::new(Arc::new(MetricsRegistry::default())),
        policy: Policy::new(fallback()),
        holder: "a".to_owned(),
        probe_ms: 0,
        by_query: false,
        notifier: Arc::default(),
        settle,
        store,
    })
}

/// Keeps a group in which something is under way, which agents were offered or not.
fn keep(store: &SqliteStore, group: &str, is_offered: bool) {
    let mut state = State::new(group, &Policy::new(fallback()));
    let offered = is_offered.then(|| "an agent".to_owned());
    (state.step, state.clock_ms) = (1, now_ms());
    state.candidate = Some(Candidate {
        revision: "x".to_owned(),
        digest: Some(Digest::of(b"x")),
        requires: BTreeSet::new(),
        stage: 0,
        offered: offered.into_iter().collect(),
        replacements: 0,
        paused: None,
    });
    state.phase = Phase::Select { poll_ms: 0 };
    let record = StepRecord {
        epoch: 0,
        step: 1,
        at_ms: 0,
        phase: "select".to_owned(),
        input: "tick".to_owned(),
    };
    let body = serde_json::to_string(&state).unwrap();
    let kept = store.keep_rollout(group, &record, &body, &[], None);
    assert!(kept.unwrap());
}

/// When the first step was taken by a new process, ms; none if none is.
fn first_step(store: &SqliteStore, group: &str) -> Option<u64> {
    let steps = store.steps(group, 1_000).unwrap();
    steps.iter().rev().map(|s| s.at_ms).find(|at| *at > 0)
}

/// Guarantee: agents that were offered something have their time to come back to a new process before it goes on; what
/// concerns none of them goes on at once.
#[test]
fn agents_have_time_to_come_back_to_a_new_process() {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let dir = tempfile::tempdir().unwrap();
    keep(&store, "offered", true);
    keep(&store, "unoffered", false);
    let settle = Duration::from_secs(2);
    let begun = now_ms();
    let groups = groups(&store, &dir, settle);
    groups.start().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while first_step(&store, "offered").is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let [offered, other] = ["offered", "unoffered"].map(|g| first_step(&store, g).unwrap());
    assert!(offered >= begun + 2_000, "{offered} {begun}");
    assert!(other < offered, "{other} {offered}");
}

/// Guarantee: the longer the control plane was away, the longer agents have, up to what they wait at most.
#[test]
fn agents_have_longer_when_it_was_away_for_long() {
    let store = SqliteStore::in_memory().unwrap();
    keep(&store, "offered", true);
    let mut state: State =
        serde_json::from_str(&store.rollout("offered").unwrap().unwrap()).unwrap();
    state.clock_ms = 1_000_000;
    let seconds = |state: &State, settle, away_s: u64| {
        let now = state.clock_ms + away_s * 1_000;
        let time = time_to_return(state, Duration::from_secs(settle), now);
        time.map(|t| t.as_secs())
    };
    for (settle, away, expect) in [(35, 0, 35), (35, 15, 50), (35, 3_600, 120), (600, 60, 600)] {
        assert_eq!(seconds(&state, settle, away), Some(expect), "{away}");
    }
    state.candidate.as_mut().unwrap().offered.clear();
    assert_eq!(seconds(&state, 35, 15), None);
}

/// Guarantee: a process that is to end while it waits for them ends, and what somebody wants meanwhile is kept.
#[test]
fn a_process_that_waits_for_agents_can_be_stopped() {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let dir = tempfile::tempdir().unwrap();
    keep(&store, "offered", true);
    let groups = groups(&store, &dir, Duration::from_secs(3_600));
    groups.start().unwrap();
    groups.wants("offered", Operator::Pause).unwrap();
    // It would wait for an hour.
    groups.stop();
    assert_eq!(first_step(&store, "offered"), None);
    let kept = store.submitted("offered").unwrap().expect("it is kept");
    assert!(kept.body.contains("pause"), "{}", kept.body);
}
