//! A run: what changes when, what people do, and what is looked at as time goes by.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::Digest;
use crate::rollout::command::Alert;
use crate::rollout::model::{Flaw, Input, Operator, Phase, Policy, Select, Stage, State};
use crate::store::memory::MemoryStore;
use crate::store::{RolloutStore, SqliteStore};

use super::agent::Kind;
use super::control::{Control, GROUP, body_of};
use super::dice::Dice;
use super::world::{Chaos, Shared, World};

/// Time goes on by so much, ms.
const TICK_MS: u64 = 500;
/// How long things go wrong, ms.
const CHAOS_MS: u64 = 300_000;
/// How long nothing goes wrong, ms.
const CALM_MS: u64 = 700_000;
const BEGIN_MS: u64 = 1_000_000;

/// What came of a run, or of several.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    pub violations: Vec<String>,
    pub promotions: u64,
    pub rollbacks: u64,
    pub frozen: u64,
    pub paused: u64,
    pub partial: u64,
    pub rejected: u64,
    pub backend: u64,
    pub resolved: u64,
    pub restarts: u64,
    pub deaths: u64,
    pub steps: u64,
    pub calls: u64,
    /// The longest time from the end of a soak until what did harm was taken back, ms.
    pub beyond_soak_ms: u64,
}

impl Run {
    pub fn add(&mut self, other: &Run) {
        self.promotions += other.promotions;
        self.rollbacks += other.rollbacks;
        self.frozen += other.frozen;
        self.paused += other.paused;
        self.partial += other.partial;
        self.rejected += other.rejected;
        self.backend += other.backend;
        self.resolved += other.resolved;
        self.restarts += other.restarts;
        self.deaths += other.deaths;
        self.steps += other.steps;
        self.calls += other.calls;
        self.beyond_soak_ms = self.beyond_soak_ms.max(other.beyond_soak_ms);
    }

    /// What has to happen in some seeds.
    pub fn happened(&self) -> [(&'static str, u64); 10] {
        [
            ("a promotion", self.promotions),
            ("a rollback", self.rollbacks),
            ("a freeze", self.frozen),
            ("a pause", self.paused),
            ("a partial rollback", self.partial),
            ("a rejection", self.rejected),
            ("an alert about the backend", self.backend),
            ("an alert that is over", self.resolved),
            ("a restart on demand", self.restarts),
            ("a death", self.deaths),
        ]
    }
}

fn policy(fallback: &Digest, dice: &mut Dice) -> Policy {
    let wave = |percent| Stage {
        select: Select::Percent(percent),
        soak_ms: 30_000,
        failures_percent_max: 10,
    };
    let mut policy = Policy::new(fallback.clone());
    policy.canary = Stage {
        select: Select::Count(dice.range(1, 5) as usize),
        soak_ms: 40_000,
        failures_percent_max: 0,
    };
    policy.waves = [10, 50, 100].map(wave).into();
    if dice.chance(300) {
        let (key, value) = ("zone".to_owned(), "z1".to_owned());
        let stage = wave(0);
        let select = Select::Label { key, value };
        policy.waves = vec![Stage { select, ..stage }, wave(100)];
    }
    policy.spread_by = dice.chance(500).then(|| "zone".to_owned());
    policy.approval_ms = dice.chance(250).then_some(30_000);
    (policy.control, policy.judged_max) = (6, 10);
    policy.offer_ms = 20_000;
    policy.rollback_ms = 20_000;
    policy.baseline_ms = 10_000;
    policy.ailing_ms = 120_000;
    policy.limits.lag_bytes_floor = 4 << 10;
    policy
}

struct Sim {
    world: Shared,
    store: Arc<dyn RolloutStore>,
    policy: Policy,
    controls: Vec<Control>,
    chaos: Chaos,
    dice: Dice,
    submitted: u64,
    /// Revisions that were made so far, for those that come again.
    revisions: Vec<String>,
    /// The stage whose harm is timed, and for how long, ms.
    timed: Option<(u64, usize, u64)>,
    /// Quarantined digests that were looked at.
    judged: BTreeSet<Digest>,
    run: Run,
}

impl Sim {
    fn new(seed: u64, count: usize, chaos: Chaos, calm_from: u64, flaw: Option<Flaw>) -> Sim {
        let fallback = Digest::of(body_of("fallback").as_bytes());
        let mut dice = Dice::new(seed, "run");
        let mut policy = policy(&fallback, &mut dice);
        policy.flaw = flaw;
        let world = World::new(seed, count, &fallback, chaos, calm_from);
        let world = Rc::new(RefCell::new(world));
        let store: Arc<dyn RolloutStore> = match seed % 20 {
            7 => Arc::new(SqliteStore::in_memory().unwrap()),
            _ => Arc::new(MemoryStore::default()),
        };
        store
            .put_artefact("pipeline", &fallback, &body_of("fallback"))
            .unwrap();
        let planes = if chaos.control { 2 } else { 1 };
        let controls = (0..planes).map(|n| Control::new(seed, n, &world, &store, &policy));
        Sim {
            controls: controls.collect(),
            world: world.clone(),
            store: store.clone(),
            policy,
            chaos,
            dice,
            submitted: 0,
            revisions: Vec::new(),
            timed: None,
            judged: BTreeSet::new(),
            run: Run::default(),
        }
    }

    fn submit(&mut self, input: &Input) {
        self.submitted += 1;
        let key = format!("k{}", self.submitted);
        let body = serde_json::to_string(input).unwrap();
        self.store.submit(GROUP, &key, &body).unwrap();
    }

    fn change(&mut self, kind: Kind) -> Digest {
        let content = format!("{} {kind:?}", self.revisions.len());
        self.change_to(content, kind)
    }

    /// A revision of its own, whatever is in it.
    fn change_to(&mut self, content: String, kind: Kind) -> Digest {
        let digest = Digest::of(body_of(&content).as_bytes());
        self.world.borrow_mut().kinds.insert(digest.clone(), kind);
        let revision = format!("{content}@{}", self.submitted);
        self.revisions.push(content);
        self.submit(&Input::Changed { revision });
        digest
    }

    fn some_change(&mut self) {
        let again = !self.revisions.is_empty() && self.dice.chance(250);
        if again {
            let content =
                self.revisions[self.dice.range(0, self.revisions.len() as u64) as usize].clone();
            let digest = Digest::of(body_of(&content).as_bytes());
            let kind = self.world.borrow().kinds[&digest];
            self.change_to(content, kind);
            return;
        }
        use Kind::{Crashes, Deaf, Drops, Good, Invalid, Lags, Loses, Needs, Refused, SinkErrors};
        let kinds = [
            Good, Good, Good, Needs, Drops, Drops, Lags, Lags, SinkErrors, SinkErrors, Loses, Deaf,
            Crashes, Refused, Invalid,
        ];
        let kind = self.dice.pick(&kinds);
        self.change(kind);
    }

    /// What the one who leads knows.
    fn state(&self) -> Option<&State> {
        let now = self.world.borrow().now;
        let awake = self.controls.iter().filter(|c| !c.fate.is_frozen(now));
        let drivers = awake.filter_map(|c| c.driver.as_ref());
        drivers.filter_map(|d| d.state()).max_by_key(|s| s.step)
    }

    /// Somebody looks at it now and then.
    fn people(&mut self) {
        let Some(state) = self.state() else {
            return;
        };
        let is_calm = self.world.borrow().is_calm();
        let paused = state.candidate.as_ref().is_some_and(|c| c.paused.is_some());
        let approves = matches!(state.phase, Phase::Approve { .. });
        let frozen = state.frozen;
        let mut wants = |per_mille, wants| self.dice.chance(per_mille).then_some(wants);
        let wants = if paused {
            let abort = if is_calm { 0 } else { 8 };
            wants(60, Operator::Resume).or_else(|| wants(abort, Operator::Abort))
        } else if approves {
            let deny = if is_calm { 0 } else { 5 };
            wants(if is_calm { 500 } else { 100 }, Operator::Approve)
                .or_else(|| wants(deny, Operator::Deny))
        } else if frozen {
            wants(if is_calm { 100 } else { 5 }, Operator::Unfreeze)
        } else if is_calm {
            None
        } else {
            let rollback = self.chaos.agents.then(|| wants(1, Operator::Rollback));
            wants(2, Operator::Pause)
                .or_else(|| wants(1, Operator::Abort))
                .or(rollback.flatten())
        };
        if let Some(wants) = wants {
            self.submit(&Input::Operator { wants });
        }
    }

    fn backend(&mut self) {
        let mut world = self.world.borrow_mut();
        if !self.chaos.outages || world.is_calm() {
            if world.outage > 0 && !world.is_out() {
                world.set_outage(0);
            }
            return;
        }
        if world.outage > 0 && !world.is_out() {
            world.set_outage(0);
        } else if world.outage == 0 && self.dice.chance(12) {
            let until = world.now + self.dice.range(1_000, 60_000);
            let until = until.min(world.calm_from);
            world.set_outage(until);
        }
    }

    fn tick(&mut self) {
        let now = {
            let mut world = self.world.borrow_mut();
            world.now += TICK_MS;
            world.now
        };
        self.backend();
        {
            let mut world = self.world.borrow_mut();
            world.faults();
            world.live();
            world.talk();
            world.deliver();
        }
        let is_calm = self.world.borrow().is_calm();
        let kills = match self.chaos.control && !is_calm {
            true => 5,
            false => 0,
        };
        for control in &mut self.controls {
            control.fate.kills.store(kills, Ordering::Relaxed);
            let was_there = control.driver.is_some();
            control.live(now);
            self.run.deaths += u64::from(was_there && control.driver.is_none());
        }
        self.look();
    }

    /// What must hold at every instant.
    fn look(&mut self) {
        let Some(state) = self.state() else {
            return;
        };
        let new = state
            .quarantine
            .keys()
            .filter(|d| !self.judged.contains(*d));
        let new: Vec<_> = new.cloned().collect();
        let mut world = self.world.borrow_mut();
        for digest in &new {
            let kind = world.kinds.get(digest).copied();
            // An agent that lies or is lost may look like a bad configuration. The backend must not.
            if kind.is_none_or(Kind::is_good) && !self.chaos.agents {
                let why = state.quarantine[digest].clone();
                world.violates(format!("{kind:?} is blamed: {why}"));
            }
        }
        let digest = state.candidate.as_ref().and_then(|c| c.digest.as_ref());
        let kind = digest.and_then(|d| world.kinds.get(d)).copied();
        let is_paused = state.candidate.as_ref().is_some_and(|c| c.paused.is_some());
        let stage = state.candidate.as_ref().map_or(0, |c| c.stage);
        let soaks = matches!(state.phase, Phase::Soak { .. });
        // Any canary shows these.
        let shows = matches!(kind, Some(Kind::Deaf | Kind::SinkErrors | Kind::Crashes));
        if shows && stage > 0 && soaks && self.timed.is_none_or(|(_, s, _)| s != stage) {
            world.violates(format!("{kind:?} passes the canary"));
        }
        let is_timed = soaks && kind.is_some_and(Kind::is_harmful) && !self.chaos.agents;
        let place = (state.rollout, stage);
        let timed = match self.timed {
            Some((rollout, stage, ms)) if (rollout, stage) == place => ms + TICK_MS,
            _ => 0,
        };
        let soak_ms = self.policy.stage(stage).map_or(0, |s| s.soak_ms);
        // Who waits for somebody, or sees all suffer, takes the time that it takes.
        let is_held = is_paused || world.outage > 0;
        self.timed = match is_timed {
            true if is_held => Some((place.0, place.1, 0)),
            true => Some((place.0, place.1, timed)),
            false => None,
        };
        if is_timed && timed > soak_ms + 30_000 {
            world.violates(format!("{kind:?} is still there"));
        }
        drop(world);
        let beyond = timed.saturating_sub(soak_ms);
        if is_timed && !is_held {
            self.run.beyond_soak_ms = self.run.beyond_soak_ms.max(beyond);
        }
        self.judged.extend(new);
    }

    /// What must hold when everything came to its end.
    fn end(&mut self, newest: Option<&Digest>) {
        let body = self.store.rollout(GROUP).unwrap();
        let state: Option<State> = body.and_then(|b| serde_json::from_str(&b).ok());
        let mut world = self.world.borrow_mut();
        let Some(state) = state else {
            return world.violates("nothing is kept");
        };
        if !matches!(state.phase, Phase::Idle) {
            let paused = state.candidate.as_ref().and_then(|c| c.paused.clone());
            let name = state.phase.name();
            world.violates(format!("it is still in {name}, paused {paused:?}"));
        }
        if let Some(newest) = newest.filter(|newest| state.good.digest != **newest) {
            let (frozen, blamed) = (state.frozen, state.quarantine.get(newest));
            let text = format!("the newest change is not good; frozen {frozen}, blamed {blamed:?}");
            world.violates(text);
        }
        let known = world.promoted.last().map_or(0, |g| g.number);
        if known != state.good.number {
            world.violates("what is good was not made known");
        }
        let mut elsewhere = 0;
        let mut bad = 0;
        for agent in &world.agents {
            let is_able = state.good.requires.is_subset(&agent.components);
            elsewhere += u64::from(is_able && agent.runs != state.good.digest);
            bad += u64::from(state.quarantine.contains_key(&agent.runs) || !agent.kind.is_good());
        }
        if elsewhere > 0 || bad > 0 {
            world.violates(format!(
                "{elsewhere} agents run something else, {bad} something bad"
            ));
        }
        self.run.promotions = world.promoted.len() as u64;
        let alerts = |alert| world.alerts.get(&alert).copied().unwrap_or(0) as u64;
        self.run.rollbacks = alerts(Alert::RolledBack);
        self.run.frozen = alerts(Alert::Frozen);
        self.run.paused = alerts(Alert::Paused);
        self.run.partial = alerts(Alert::RollbackPartial);
        self.run.rejected = alerts(Alert::Rejected);
        self.run.backend = alerts(Alert::Backend);
        self.run.resolved = world.resolved;
        self.run.restarts = world.restarts;
        // Who was told of something is told when it is over.
        let lasting = [
            Alert::Paused,
            Alert::Backend,
            Alert::Frozen,
            Alert::RollbackPartial,
        ];
        let fires = |alert: &Alert| match alert {
            Alert::Frozen => state.frozen,
            Alert::RollbackPartial => !state.isolated.is_empty(),
            _ => state.candidate.is_some(),
        };
        for alert in lasting {
            if state.firing.contains_key(&alert) && !fires(&alert) {
                world.violates(format!("{alert:?} is not over for those who were told"));
            }
        }
        self.run.steps = state.step;
        self.run.violations = world.violations.clone();
        let calls = self.controls.iter().map(|c| &c.fate.calls);
        self.run.calls = calls.map(|c| c.load(Ordering::Relaxed)).sum();
    }
}

/// A seed, with a mistake or none. Agents go wrong in every other one, the rest is the backend's and the
/// control planes'.
pub fn run(seed: u64, flaw: Option<Flaw>) -> Run {
    let chaos = Chaos {
        agents: seed.is_multiple_of(2),
        outages: !seed.is_multiple_of(3),
        control: !seed.is_multiple_of(5),
    };
    let calm_from = BEGIN_MS + CHAOS_MS;
    let mut sim = Sim::new(seed, 200, chaos, calm_from, flaw);
    let mut change_at = BEGIN_MS + sim.dice.range(10_000, 40_000);
    let mut newest = None;
    // Without one, nothing but what is under way brings agents in line.
    let has_newest = seed % 4 != 2;
    while sim.world.borrow().now < calm_from + CALM_MS {
        let now = sim.world.borrow().now;
        if now >= change_at && now < calm_from {
            sim.some_change();
            change_at = now + sim.dice.range(20_000, 140_000);
        }
        if now >= calm_from && newest.is_none() && has_newest {
            newest = Some(sim.change(Kind::Good));
        }
        if now.is_multiple_of(1_000) {
            sim.people();
        }
        sim.tick();
        let is_over = sim.state().is_some_and(|state| {
            let is_idle = matches!(state.phase, Phase::Idle) && state.pending.is_none();
            match &newest {
                Some(newest) => is_idle && state.good.digest == *newest,
                None => is_idle && !has_newest && now >= calm_from + 100_000,
            }
        });
        // Late agents have their time after it.
        if is_over {
            for _ in 0..40_000 / TICK_MS {
                sim.tick();
            }
            break;
        }
    }
    sim.end(newest.as_ref());
    sim.run
}

/// Twelve agents, a change that does harm and one that does not; the process dies at one of its calls.
pub fn short(chaos: Chaos, kill_at: u64) -> Run {
    let mut sim = Sim::new(4, 12, chaos, BEGIN_MS, None);
    let policy = &mut sim.policy;
    (policy.approval_ms, policy.control) = (None, 2);
    policy.canary.soak_ms = 25_000;
    policy.waves = vec![Stage {
        select: Select::Percent(100),
        soak_ms: 25_000,
        failures_percent_max: 0,
    }];
    let (world, store, policy) = (&sim.world, &sim.store, &sim.policy);
    sim.controls = vec![Control::new(4, 0, world, store, policy)];
    let kill = &sim.controls[0].fate.kill_at;
    kill.store(kill_at, Ordering::Relaxed);
    let pass = |sim: &mut Sim, ms| {
        for _ in 0..ms / TICK_MS {
            sim.tick();
        }
    };
    pass(&mut sim, 20_000);
    sim.change(Kind::Drops);
    pass(&mut sim, 110_000);
    let newest = sim.change(Kind::Good);
    pass(&mut sim, 200_000);
    sim.end(Some(&newest));
    sim.run
}
