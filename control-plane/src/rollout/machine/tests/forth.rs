//! Up to the promotion, and what stops on the way.

use std::collections::BTreeSet;

use super::*;
use crate::rollout::command::{Action, Alert};
use crate::rollout::machine::Stale;
use crate::rollout::model::{Input, Operator, Phase, Select};

fn offers(bench: &Bench, name: &str) -> usize {
    let wanted = digest(name);
    let is_it = |a: &&Action| a.offer().is_some_and(|(_, d)| *d == wanted);
    bench.commands.iter().filter(is_it).count()
}

#[test]
fn a_good_change_goes_canary_by_wave_to_all() {
    let mut bench = bench(20);
    bench.change("new");
    let mut seen = BTreeSet::new();
    bench.until("promoted", |b| {
        if matches!(b.state.phase, Phase::Soak { .. }) {
            seen.insert(b.running("new"));
        }
        b.is_idle() && b.state.good.number == 1
    });
    // One, half of all, and all but the control group.
    assert_eq!(seen, BTreeSet::from([1, 10, 16]));
    bench.until("all follow", |b| b.running("new") == 20);
    assert_eq!(bench.state.good.digest, digest("new"));
    assert_eq!(bench.alerts, []);
}

#[test]
fn changes_are_debounced_and_the_newest_counts() {
    let mut bench = bench(8);
    for revision in ["one", "two", "three"] {
        bench.change(revision);
        bench.during(1_000);
    }
    bench.until_idle();
    let builds = bench.commands.iter().filter_map(|a| match a {
        Action::BuildConfig { revision } => Some(&**revision),
        _ => None,
    });
    assert_eq!(builds.collect::<Vec<_>>(), ["three"]);
}

#[test]
fn what_is_good_or_quarantined_is_not_rolled_out() {
    let mut bench = bench(8);
    bench.change("fallback");
    bench.until_idle();
    assert_eq!(
        (offers(&bench, "fallback"), bench.state.good.number),
        (0, 0)
    );
    bench
        .state
        .quarantine
        .insert(digest("bad"), "it did harm".into());
    bench.change("bad");
    bench.until_idle();
    assert_eq!(offers(&bench, "bad"), 0);
    bench.until("it is said", |b| b.alerts == [Alert::Rejected]);
}

#[test]
fn what_the_check_refuses_is_offered_to_nobody() {
    let mut bench = bench(8);
    bench.refused_by_check = true;
    bench.change("bad");
    bench.until_idle();
    assert_eq!(offers(&bench, "bad"), 0);
    assert!(bench.is_quarantined("bad"));
    bench.until("it is said", |b| b.alerts == [Alert::Rejected]);
}

#[test]
fn what_is_not_stored_is_not_offered() {
    let mut bench = bench(8);
    bench.is_stored = false;
    bench.change("new");
    bench.during(600_000);
    assert!(matches!(bench.state.phase, Phase::Store));
    assert_eq!(offers(&bench, "new"), 0);
    bench.is_stored = true;
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("new"));
}

#[test]
fn approval_is_waited_for_given_denied_and_ends() {
    let asked = || {
        let mut bench = bench(8);
        bench.policy.approval_ms = Some(600_000);
        bench.change("new");
        bench.during(60_000);
        assert_eq!(offers(&bench, "new"), 0);
        bench
    };
    let mut approved = asked();
    approved.wants(Operator::Approve);
    approved.until_idle();
    assert_eq!(approved.state.good.digest, digest("new"));
    let mut denied = asked();
    denied.wants(Operator::Deny);
    let mut ended = asked();
    ended.during(600_000);
    for mut bench in [denied, ended] {
        bench.until_idle();
        assert_eq!((offers(&bench, "new"), bench.state.good.number), (0, 0));
        assert!(!bench.is_quarantined("new"), "nobody knows that it is bad");
    }
}

#[test]
fn silent_canaries_are_replaced_and_none_left_waits() {
    let mut one = bench(12);
    one.change("new");
    one.until("offer", |b| matches!(b.state.phase, Phase::Offer { .. }));
    let first = one
        .state
        .candidate
        .as_ref()
        .unwrap()
        .offered
        .first()
        .cloned();
    let first = first.unwrap();
    // It did apply it, but nobody hears of that.
    one.agent(&first).dead = true;
    one.until("another", |b| b.is_soaking(0));
    assert!(!one.judged().contains(&first));
    one.until_idle();
    assert_eq!(one.state.good.digest, digest("new"));

    let mut all = bench(12);
    all.all(Reaction::Silent);
    all.change("new");
    all.until("paused", |b| b.paused().is_some());
    assert_eq!(all.state.candidate.as_ref().unwrap().offered.len(), 3);
    all.until("said", |b| b.alerts == [Alert::Paused]);
    all.all(Reaction::Applies);
    all.wants(Operator::Resume);
    all.until_idle();
    assert_eq!(all.state.good.digest, digest("new"));
}

#[test]
fn no_data_extends_once_and_then_waits_for_somebody() {
    let mut bench = bench(12);
    bench.change("new");
    bench.until("soak", |b| b.is_soaking(0));
    let began = bench.now;
    let canary = bench.judged().remove(0);
    bench.outage = true;
    bench.until("paused", |b| b.paused().is_some());
    assert!(bench.now >= began + 60_000, "twice the soak");
    assert_eq!(bench.running("new"), 1);
    bench.until("said", |b| b.alerts.contains(&Alert::Backend));
    bench.outage = false;
    for fake in bench.agents.values_mut() {
        fake.sample.lag_bytes = 0;
    }
    bench.during(120_000);
    assert!(bench.paused().is_some(), "good, but somebody has to say so");
    bench.wants(Operator::Resume);
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("new"));
    assert!(!bench.is_quarantined("new"), "{canary}");
}

#[test]
fn a_pause_stops_and_still_looks() {
    let mut bench = bench(12);
    bench.change("new");
    bench.until("soak", |b| b.is_soaking(0));
    bench.wants(Operator::Pause);
    bench.during(300_000);
    assert!(bench.is_soaking(0));
    bench.drops = Some(digest("new"));
    bench.until("rolled back", Bench::is_idle);
    assert!(bench.is_quarantined("new"));
    assert_eq!(bench.running("new"), 0);
}

#[test]
fn a_newer_change_takes_the_canarys_place() {
    let mut bench = bench(12);
    bench.change("one");
    bench.until("soak", |b| b.is_soaking(0));
    bench.change("two");
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("two"));
    assert_eq!(bench.state.good.number, 1);
    assert!(!bench.is_quarantined("one"), "nobody knows that it is bad");
}

#[test]
fn waves_end_before_a_newer_change_and_only_the_newest_is_next() {
    let mut bench = bench(12);
    bench.change("one");
    bench.until("wave", |b| b.is_soaking(1));
    for revision in ["two", "three"] {
        bench.change(revision);
    }
    bench.until("one", |b| b.state.good.digest == digest("one"));
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("three"));
    assert_eq!(bench.state.good.number, 2);
    assert_eq!(offers(&bench, "two"), 0);
}

#[test]
fn agents_without_a_component_are_left_out_and_no_failure() {
    let mut bench = bench(12);
    bench.requires = BTreeSet::from(["kafka".into()]);
    for n in 0..8 {
        let components = &mut bench.agent(&format!("a{n:02}")).collector.components;
        components.insert("kafka".into());
    }
    bench.change("new");
    bench.until_idle();
    bench.during(120_000);
    assert_eq!((bench.running("new"), bench.running("fallback")), (8, 4));

    let mut none = super::bench(4);
    none.requires = BTreeSet::from(["kafka".into()]);
    none.change("new");
    none.until("paused", |b| b.paused().is_some());
    assert_eq!(offers(&none, "new"), 0);
}

#[test]
fn waves_by_label_take_those_who_carry_it() {
    let mut bench = bench(12);
    let (key, value) = ("zone".to_owned(), "z1".to_owned());
    bench.policy.waves[0] = stage(Select::Label { key, value }, 0);
    bench.policy.control = 0;
    bench.change("new");
    bench.until("wave", |b| b.is_soaking(1));
    for (id, fake) in &bench.agents {
        let runs = fake.collector.report.effective == Some(digest("new"));
        let is_canary = !bench.judged().contains(id) && runs;
        let carries = fake.collector.labels["zone"] == "z1";
        assert!(runs == carries || is_canary, "{id}");
    }
}

#[test]
fn the_canary_is_spread_over_a_label() {
    let mut bench = bench(12);
    bench.policy.canary = stage(Select::Count(2), 0);
    bench.policy.spread_by = Some("zone".into());
    bench.change("new");
    bench.until("soak", |b| b.is_soaking(0));
    let zones = bench
        .judged()
        .into_iter()
        .map(|id| bench.agents[&id].collector.labels["zone"].clone());
    assert_eq!(zones.collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn late_agents_and_strays_are_brought_to_what_is_good() {
    let mut bench = bench(12);
    bench.agent("a03").dead = true;
    bench.change("new");
    bench.until_idle();
    bench.agent("a03").dead = false;
    bench.agent("a05").collector.report.effective = Some(digest("something of its own"));
    bench.agent("a07").collector.report.effective = None;
    bench.until("all", |b| b.running("new") == 12);
}

#[test]
fn agents_that_are_not_well_are_no_canary() {
    let mut bench = bench(12);
    bench.outage = true;
    bench.during(60_000);
    bench.change("new");
    bench.until("paused", |b| b.paused().is_some());
    assert_eq!(offers(&bench, "new"), 0);
    bench.until("said", |b| b.alerts.contains(&Alert::Backend));
}

#[test]
fn an_older_leader_is_refused_and_changes_nothing() {
    let mut bench = bench(4);
    bench.state.step(&bench.policy, 7, 5, Input::Tick).unwrap();
    let before = bench.state.clone();
    let revision = "new".to_owned();
    let refused = bench
        .state
        .step(&bench.policy, 6, 9, Input::Changed { revision });
    assert_eq!(refused, Err(Stale(7)));
    assert_eq!(bench.state, before);
}

#[test]
fn answers_that_come_late_or_twice_change_nothing() {
    let mut bench = bench(12);
    bench.change("one");
    bench.until("soak", |b| b.is_soaking(0));
    let old = bench.state.outstanding.keys().next().cloned();
    bench.during(10_000);
    let phase = bench.state.phase.clone();
    for key in [old.unwrap_or_default(), "g/0/soak/0/push_config/1".into()] {
        let outcome = crate::rollout::command::Outcome::Done;
        bench.tell(Input::Done { key, outcome });
    }
    assert_eq!(bench.state.phase, phase);
}

/// Guarantee: a clock that goes back neither ends nor extends what is on.
#[test]
fn time_does_not_go_back() {
    let mut bench = bench(4);
    bench.tell(Input::Tick);
    let clock = bench.state.clock_ms;
    bench.now -= 900_000;
    bench.tell(Input::Tick);
    assert_eq!(bench.state.clock_ms, clock);
    assert!(bench.state.due_ms > clock);
}

/// Guarantee: commands have the activity names under which they are logged, and keys of their own.
#[test]
fn commands_are_named_and_numbered() {
    let mut bench = bench(4);
    bench.change("new");
    bench.during(3_000);
    let revision = "other".to_owned();
    let new = bench
        .state
        .step(&bench.policy, 1, bench.now, Input::Changed { revision });
    let mut keys = BTreeSet::new();
    for command in new.unwrap().iter().chain(bench.state.outstanding.values()) {
        assert!(command.key.contains(command.action.activity().name()));
        assert!(command.timeout_ms > 0);
        keys.insert(command.key.clone());
        let json = serde_json::to_value(&command.action).unwrap();
        assert_eq!(json["activity"], command.action.activity().name());
    }
    assert!(keys.iter().all(|k| k.starts_with("g/")));
}
