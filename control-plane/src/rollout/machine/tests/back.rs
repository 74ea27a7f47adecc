//! The way back.

use super::*;
use crate::rollout::command::Alert;
use crate::rollout::model::{Operator, Phase};

fn offered(bench: &Bench) -> usize {
    bench
        .state
        .candidate
        .as_ref()
        .map_or(0, |c| c.offered.len())
}

#[test]
fn a_canary_that_refuses_takes_it_back() {
    for reason in [
        "unknown option",
        "it cannot be kept: no space left on device",
    ] {
        let mut bench = bench(12);
        bench.all(Reaction::Refuses(reason));
        bench.change("bad");
        bench.until_idle();
        assert!(bench.is_quarantined("bad"));
        bench.until("said", |b| b.alerts == [Alert::RolledBack]);
        assert_eq!(bench.running("fallback"), 12);
        assert_eq!(bench.state.good.number, 0);
    }
}

#[test]
fn a_canary_that_says_yes_and_runs_something_else_takes_it_back() {
    let mut bench = bench(12);
    bench.all(Reaction::SaysYesAndDoesNot);
    bench.change("bad");
    bench.until_idle();
    assert!(bench.is_quarantined("bad"));
}

#[test]
fn a_canary_that_restarts_again_and_again_takes_it_back() {
    let mut bench = bench(12);
    bench.restarts = Some(digest("bad"));
    bench.change("bad");
    bench.until("soak", |b| b.is_soaking(0));
    bench.until_idle();
    assert!(bench.is_quarantined("bad"));
    assert_eq!(bench.running("bad"), 0);
}

#[test]
fn a_canary_that_does_harm_takes_it_back() {
    let mut bench = bench(12);
    bench.drops = Some(digest("bad"));
    bench.change("bad");
    bench.until("soak", |b| b.is_soaking(0));
    let soaks = bench.now;
    bench.until("back", |b| matches!(b.state.phase, Phase::RollBack { .. }));
    assert!(bench.now - soaks < 60_000);
    bench.until_idle();
    assert!(bench.is_quarantined("bad"));
    assert_eq!((bench.running("bad"), bench.running("fallback")), (0, 12));
}

#[test]
fn a_canary_that_goes_alone_is_bad_and_one_that_goes_with_others_is_not() {
    let soaking = || {
        let mut bench = bench(12);
        bench.change("new");
        bench.until("soak", |b| b.is_soaking(0));
        bench
    };
    let mut alone = soaking();
    let canary = alone.judged().remove(0);
    alone.agent(&canary).dead = true;
    alone.until("back", |b| matches!(b.state.phase, Phase::RollBack { .. }));
    assert!(alone.is_quarantined("new"));
    let mut together = soaking();
    for fake in together.agents.values_mut() {
        fake.dead = true;
    }
    together.until("paused", |b| b.paused().is_some());
    assert!(!together.is_quarantined("new"));
}

#[test]
fn a_backend_that_fails_during_a_canary_is_not_held_against_it() {
    let mut bench = bench(12);
    bench.change("new");
    bench.until("soak", |b| b.is_soaking(0));
    bench.outage = true;
    bench.until("paused", |b| b.paused().is_some());
    assert!(!bench.is_quarantined("new"));
    assert_eq!(bench.running("new"), 1);
}

#[test]
fn harm_in_a_wave_takes_back_all_who_were_offered_it() {
    let mut bench = bench(20);
    bench.change("new");
    bench.until("wave", |b| b.is_soaking(2));
    assert_eq!(offered(&bench), 16);
    bench.drops = Some(digest("new"));
    bench.until_idle();
    assert_eq!((bench.running("new"), bench.running("fallback")), (0, 20));
    assert!(bench.is_quarantined("new"));
}

#[test]
fn refusals_in_a_wave_count_against_its_budget() {
    // Of the nine agents of the first wave one may fail.
    for (refusing, is_back) in [(1, false), (2, true)] {
        let mut bench = bench(20);
        bench.change("new");
        bench.until("wave", |b| {
            let members = match &b.state.phase {
                Phase::Baseline { members, .. } => members.len(),
                _ => 0,
            };
            members == 9
        });
        let Phase::Baseline { members, .. } = bench.state.phase.clone() else {
            unreachable!()
        };
        for id in members.iter().take(refusing) {
            bench.agent(id).reaction = Reaction::Refuses("not me");
        }
        bench.until_idle();
        assert_eq!(bench.is_quarantined("new"), is_back, "{refusing}");
    }
}

#[test]
fn most_of_a_wave_silent_waits_for_somebody() {
    let mut bench = bench(20);
    bench.change("new");
    bench.until("soak", |b| b.is_soaking(0));
    bench.all(Reaction::Silent);
    bench.until("paused", |b| b.paused().is_some());
    bench.all(Reaction::Applies);
    bench.wants(Operator::Resume);
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("new"));
}

#[test]
fn agents_that_do_not_come_back_get_the_fallback_and_then_people() {
    let mut bench = bench(12);
    bench.change("one");
    bench.until_idle();
    bench.until("all", |b| b.running("one") == 12);
    bench.drops = Some(digest("bad"));
    bench.change("bad");
    bench.until("soak", |b| b.is_soaking(0));
    let canary = bench.judged().remove(0);
    bench.until("back", |b| matches!(b.state.phase, Phase::RollBack { .. }));
    bench.agent(&canary).dead = true;
    bench.until_idle();
    assert!(bench.state.isolated.contains(&canary));
    bench.until("said", |b| b.alerts.contains(&Alert::RollbackPartial));
    assert!(bench.is_quarantined("bad"));
    let fallback = |b: &Bench| {
        let offers = b.commands.iter().filter_map(|a| a.offer());
        let mut offers = offers.filter(|(agents, _)| agents.contains(&canary));
        offers.any(|(_, d)| *d == digest("fallback"))
    };
    assert!(fallback(&bench));
    // It takes part in nothing, and is brought back as soon as it is there.
    bench.agent(&canary).dead = false;
    bench.until("it is back", |b| b.running("one") == 12);
    bench.until("not isolated", |b| b.state.isolated.is_empty());
}

#[test]
fn the_first_configuration_ever_goes_back_to_the_fallback() {
    let mut bench = bench(4);
    bench.drops = Some(digest("first"));
    bench.change("first");
    bench.until_idle();
    assert_eq!(bench.running("fallback"), 4);
    assert_eq!(bench.state.good.digest, digest("fallback"));
}

#[test]
fn what_was_taken_back_is_not_offered_again() {
    let mut bench = bench(12);
    bench.drops = Some(digest("bad"));
    bench.change("bad");
    bench.until_idle();
    let offers = bench.commands.len();
    bench.change("bad");
    bench.until_idle();
    let mut later = bench.commands[offers..].iter().filter_map(|a| a.offer());
    assert!(!later.any(|(_, d)| *d == digest("bad")));
}

#[test]
fn three_rollbacks_in_an_hour_freeze_the_group() {
    let mut bench = bench(12);
    for revision in ["b1", "b2", "b3"] {
        bench.drops = Some(digest(revision));
        bench.change(revision);
        bench.until_idle();
    }
    bench.until("said", |b| b.alerts.contains(&Alert::Frozen));
    bench.change("good");
    bench.during(600_000);
    assert_eq!(bench.state.good.number, 0);
    bench.wants(Operator::Unfreeze);
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("good"));
}

#[test]
fn rollbacks_that_are_far_apart_freeze_nothing() {
    let mut bench = bench(4);
    for revision in ["b1", "b2", "b3"] {
        bench.drops = Some(digest(revision));
        bench.change(revision);
        bench.until_idle();
        bench.during(2_000_000);
    }
    assert!(!bench.state.frozen);
}

#[test]
fn people_take_it_back_with_blame_or_without() {
    for (wants, is_blamed) in [(Operator::Rollback, true), (Operator::Abort, false)] {
        let mut bench = bench(12);
        bench.change("new");
        bench.until("soak", |b| b.is_soaking(1));
        bench.wants(wants);
        bench.until_idle();
        assert_eq!(bench.running("fallback"), 12);
        assert_eq!(bench.is_quarantined("new"), is_blamed);
    }
}
