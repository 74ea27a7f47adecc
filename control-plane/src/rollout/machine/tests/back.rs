//! The way back.

use super::*;
use crate::rollout::command::{Action, Alert};
use crate::rollout::model::{Operator, Phase};

fn offered(bench: &Bench) -> usize {
    bench
        .state
        .candidate
        .as_ref()
        .map_or(0, |c| c.offered.len())
}

/// A fleet of so many, whose canary runs it and is looked at.
fn soaking(count: usize, revision: &str) -> Bench {
    let mut bench = bench(count);
    bench.change(revision);
    bench.until("soak", |b| b.is_soaking(0));
    bench
}

/// The same of something that does harm.
fn harmed(count: usize, revision: &str) -> Bench {
    let mut bench = bench(count);
    bench.harm(revision);
    bench.until("soak", |b| b.is_soaking(0));
    bench
}

/// All agents run `one`, the canary `bad`, which does harm.
fn harmed_after_one() -> (Bench, String) {
    let mut bench = bench(12);
    bench.change("one");
    bench.until_idle();
    bench.until("all", |b| b.running("one") == 12);
    bench.harm("bad");
    bench.until("soak", |b| b.is_soaking(0));
    let canary = bench.judged().remove(0);
    (bench, canary)
}

impl Bench {
    /// Something that does harm is rolled out.
    fn harm(&mut self, revision: &str) {
        self.drops = Some(digest(revision));
        self.change(revision);
    }

    fn until_back(&mut self) {
        self.until("back", |b| matches!(b.state.phase, Phase::RollBack { .. }));
    }

    fn until_paused(&mut self) {
        self.until("paused", |b| b.paused().is_some());
    }

    fn until_told(&mut self, alert: Alert) {
        self.until("told", |b| b.alerts.contains(&alert));
    }
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
    let mut bench = harmed(12, "bad");
    let soaks = bench.now;
    bench.until_back();
    assert!(bench.now - soaks < 60_000);
    bench.until_idle();
    assert!(bench.is_quarantined("bad"));
    assert_eq!((bench.running("bad"), bench.running("fallback")), (0, 12));
}

#[test]
fn a_canary_that_goes_alone_is_bad_and_one_that_goes_with_others_is_not() {
    let mut alone = soaking(12, "new");
    let canary = alone.judged().remove(0);
    alone.agent(&canary).dead = true;
    alone.until_back();
    assert!(alone.is_quarantined("new"));
    let mut together = soaking(12, "new");
    for fake in together.agents.values_mut() {
        fake.dead = true;
    }
    together.until_paused();
    assert!(!together.is_quarantined("new"));
}

#[test]
fn a_backend_that_fails_during_a_canary_is_not_held_against_it() {
    let mut bench = soaking(12, "new");
    bench.outage = true;
    bench.until_paused();
    assert!(!bench.is_quarantined("new"));
    assert_eq!(bench.running("new"), 1);
}

#[test]
fn errors_that_are_over_at_once_are_not_held_against_it_and_those_that_go_on_are() {
    // The backend stumbled, and of all agents only the canary noticed.
    let mut bench = soaking(12, "new");
    let canary = bench.judged().remove(0);
    bench.during(15_000);
    bench.agent(&canary).sample.errors_retryable += 20;
    bench.until(
        "seen",
        |b| matches!(&b.state.phase, Phase::Soak { bad_since_ms, .. } if bad_since_ms.is_some()),
    );
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("new"));
    let mut bench = soaking(12, "new");
    let canary = bench.judged().remove(0);
    for _ in 0..60 {
        bench.agent(&canary).sample.errors_retryable += 2;
        bench.during(1_000);
    }
    assert!(bench.is_quarantined("new"));
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
    let mut bench = soaking(20, "new");
    bench.all(Reaction::Silent);
    bench.until_paused();
    bench.all(Reaction::Applies);
    bench.wants(Operator::Resume);
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("new"));
}

#[test]
fn agents_that_do_not_come_back_get_the_fallback_and_then_people() {
    let (mut bench, canary) = harmed_after_one();
    bench.until_back();
    bench.agent(&canary).dead = true;
    bench.until_idle();
    assert!(bench.state.isolated.contains(&canary));
    bench.until_told(Alert::RollbackPartial);
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

/// All agents run `one`, the canary runs `bad`, and is on its way back.
fn on_the_way_back(reaction: Reaction) -> (Bench, String) {
    let (mut bench, canary) = harmed_after_one();
    bench.agent(&canary).reaction = reaction;
    bench.agent(&canary).refuses_good = true;
    bench.until_back();
    (bench, canary)
}

fn rungs(bench: &Bench) -> Vec<&'static str> {
    let names = bench.commands.iter().filter_map(|a| match a {
        Action::ReofferConfig { .. } => Some("reoffer"),
        Action::RestartCollector { .. } => Some("restart"),
        Action::RollbackConfig { digest: d, .. } if *d == digest("fallback") => Some("fallback"),
        _ => None,
    });
    let mut order = Vec::new();
    for name in names {
        if order.last() != Some(&name) {
            order.push(name);
        }
    }
    order
}

#[test]
fn rollback_partial_is_reoffered_restarted_given_the_fallback_and_isolated_in_this_order() {
    let (mut bench, canary) = on_the_way_back(Reaction::Refuses("disk full"));
    bench.until_idle();
    assert_eq!(rungs(&bench), ["reoffer", "restart", "fallback"]);
    assert!(bench.state.isolated.contains(&canary));
    assert_eq!(bench.restarted, [canary.as_str()]);
    bench.until_told(Alert::RollbackPartial);
    assert!(bench.state.firing.contains_key(&Alert::RollbackPartial));
    // Somebody mends it: it comes home by itself, and those who were told hear of that.
    let fake = bench.agent(&canary);
    (fake.reaction, fake.refuses_good) = (Reaction::Applies, false);
    bench.until("home", |b| b.running("one") == 12);
    bench.until("over", |b| b.resolved.contains(&Alert::RollbackPartial));
    assert!(!bench.state.firing.contains_key(&Alert::RollbackPartial));
}

#[test]
fn an_agent_that_a_restart_heals_is_given_no_fallback_and_not_isolated() {
    let (mut bench, canary) = on_the_way_back(Reaction::Silent);
    bench.heals_by_restart = true;
    bench.until_idle();
    assert_eq!(rungs(&bench), ["reoffer", "restart"]);
    assert_eq!(bench.restarted, [canary.as_str()]);
    assert!(bench.state.isolated.is_empty());
    assert_eq!(bench.running("one"), 12);
    assert!(!bench.alerts.contains(&Alert::RollbackPartial));
}

#[test]
fn who_cannot_be_restarted_is_not_waited_for() {
    let until_isolated = |restarts: bool| {
        let (mut bench, canary) = on_the_way_back(Reaction::Silent);
        bench.agent(&canary).restarts = restarts;
        let begin = bench.now;
        bench.until_idle();
        assert!(bench.state.isolated.contains(&canary));
        bench.now - begin
    };
    let (slow, fast) = (until_isolated(true), until_isolated(false));
    assert!(fast + 50_000 < slow, "{fast} {slow}");
}

#[test]
fn a_fallback_that_is_what_was_good_is_not_given_twice() {
    let mut bench = harmed(4, "first");
    let canary = bench.judged().remove(0);
    let fake = bench.agent(&canary);
    (fake.reaction, fake.refuses_good) = (Reaction::Silent, true);
    bench.until_idle();
    let count = |what: fn(&Action) -> bool| bench.commands.iter().filter(|a| what(a)).count();
    assert_eq!(count(|a| matches!(a, Action::ReofferConfig { .. })), 1);
    assert_eq!(count(|a| matches!(a, Action::RestartCollector { .. })), 1);
    assert!(bench.state.isolated.contains(&canary));
}

#[test]
fn what_was_told_is_over_with_the_next_promotion_or_in_time() {
    let mut bench = bench(12);
    bench.harm("bad");
    bench.until_told(Alert::RolledBack);
    bench.until_idle();
    assert!(bench.resolved.is_empty());
    let mut later = on_the_way_back(Reaction::Applies).0;
    later.until_told(Alert::RolledBack);
    later.during(later.policy.told_ms + 60_000);
    assert!(later.resolved.contains(&Alert::RolledBack));
    bench.change("good");
    bench.until_idle();
    bench.until("over", |b| b.resolved == [Alert::RolledBack]);
}

#[test]
fn a_rollout_that_waits_for_somebody_fires_until_it_goes_on() {
    let mut bench = soaking(12, "new");
    bench.outage = true;
    bench.until_paused();
    bench.until_told(Alert::Backend);
    assert!(bench.state.firing.contains_key(&Alert::Paused));
    bench.outage = false;
    bench.wants(Operator::Resume);
    bench.until("over", |b| {
        b.resolved.contains(&Alert::Paused) && b.resolved.contains(&Alert::Backend)
    });
}

#[test]
fn agents_that_ail_for_long_are_told_of_and_so_is_that_they_are_well() {
    let mut bench = bench(6);
    bench.agent("a03").collector.healthy = Some(false);
    bench.during(bench.policy.ailing_ms / 2);
    assert!(bench.alerts.is_empty());
    bench.until_told(Alert::Ailing);
    assert!(bench.state.firing[&Alert::Ailing].text.contains("a03"));
    bench.during(bench.policy.ailing_ms);
    assert_eq!(bench.alerts, [Alert::Ailing], "once");
    bench.agent("a03").collector.healthy = Some(true);
    bench.until("over", |b| b.resolved == [Alert::Ailing]);
}

#[test]
fn an_agent_that_ails_is_restarted_once_and_then_people_look_at_it() {
    let mut bench = bench(6);
    bench.agent("a03").collector.healthy = Some(false);
    bench.during(bench.policy.ailing_ms / 2 - 60_000);
    assert!(bench.restarted.is_empty());
    bench.until("a restart", |b| b.restarted == ["a03"]);
    assert!(bench.alerts.is_empty());
    bench.until_told(Alert::Ailing);
    bench.during(3 * bench.policy.ailing_ms);
    assert_eq!(bench.restarted, ["a03"], "once");
    let kept = &bench.state.restarted["a03"];
    assert!(kept.at_ms > kept.since_ms, "{kept:?}");
    // One whose restart heals it is no matter for people.
    let mut healed = soaking(6, "new");
    healed.agent("a03").collector.healthy = Some(false);
    healed.until_idle();
    assert!(healed.restarted.is_empty(), "not during a rollout");
    healed.until("a restart", |b| b.restarted == ["a03"]);
    healed.agent("a03").collector.healthy = Some(true);
    healed.during(2 * healed.policy.ailing_ms);
    assert!(healed.alerts.is_empty() && healed.state.ailing.is_empty());
}

#[test]
fn agents_are_not_restarted_for_what_all_of_them_suffer() {
    let mut bench = bench(6);
    for fake in bench.agents.values_mut() {
        fake.collector.healthy = Some(false);
    }
    bench.until_told(Alert::Ailing);
    bench.during(bench.policy.ailing_ms);
    assert!(bench.restarted.is_empty());
}

#[test]
fn the_first_configuration_ever_goes_back_to_the_fallback() {
    let mut bench = bench(4);
    bench.harm("first");
    bench.until_idle();
    assert_eq!(bench.running("fallback"), 4);
    assert_eq!(bench.state.good.digest, digest("fallback"));
}

#[test]
fn what_was_taken_back_is_not_offered_again() {
    let mut bench = bench(12);
    bench.harm("bad");
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
        bench.harm(revision);
        bench.until_idle();
    }
    bench.until_told(Alert::Frozen);
    bench.change("good");
    bench.during(600_000);
    assert_eq!(bench.state.good.number, 0);
    bench.wants(Operator::Unfreeze);
    bench.until("over", |b| b.resolved.contains(&Alert::Frozen));
    bench.until_idle();
    assert_eq!(bench.state.good.digest, digest("good"));
}

#[test]
fn rollbacks_that_are_far_apart_freeze_nothing() {
    let mut bench = bench(4);
    for revision in ["b1", "b2", "b3"] {
        bench.harm(revision);
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
