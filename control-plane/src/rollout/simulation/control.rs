//! Control planes: drivers that are killed, freeze, and are two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_telemetry::metrics::MetricsRegistry;

use crate::metrics::Metrics;
use crate::model::Digest;
use crate::rollout::command::{Alert, Fence};
use crate::rollout::driver::{Driver, Parts, Turn};
use crate::rollout::model::{AgentId, Collector, Generation, Policy, Report};
use crate::rollout::ports::{Built, Call, Configs, Failure, Fleet};
use crate::rollout::verdict::Sample;
use crate::store::{Artefacts, RolloutStore, StepRecord, StoreError, Submitted};

use super::agent::Kind;
use super::dice::Dice;
use super::world::{Late, Message, Shared};

/// The group of all simulations.
pub const GROUP: &str = "fleet";
/// How long a lease holds, ms.
pub const LEASE_MS: u64 = 10_000;
/// Steps of a driver in one instant.
const TURNS_MAX: usize = 40;

/// How a control plane fares. Each call it makes may be its last, before or after its effect.
pub struct Fate {
    dice: Mutex<Dice>,
    /// So many of a thousand calls kill it.
    pub kills: AtomicU64,
    /// The call with this number kills it; 0 for none.
    pub kill_at: AtomicU64,
    pub calls: AtomicU64,
    dead: AtomicBool,
    /// Of the lease that it has.
    epoch: AtomicU64,
    /// It does nothing until then, ms.
    frozen: AtomicU64,
}

/// What happens at a call.
enum Luck {
    Goes,
    DiesBefore,
    DiesAfter,
}

impl Fate {
    fn of(dice: Dice) -> Fate {
        Fate {
            dice: Mutex::new(dice),
            kills: AtomicU64::new(0),
            kill_at: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            frozen: AtomicU64::new(0),
        }
    }

    pub fn is_frozen(&self, now: u64) -> bool {
        self.frozen.load(Ordering::Relaxed) > now
    }

    fn call(&self) -> Luck {
        if self.dead.load(Ordering::Relaxed) {
            return Luck::DiesBefore;
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let kill_at = self.kill_at.load(Ordering::Relaxed);
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let kills = self.kills.load(Ordering::Relaxed);
        if (kills == 0 || !dice.chance(kills)) && kill_at != number {
            return Luck::Goes;
        }
        self.dead.store(true, Ordering::Relaxed);
        match dice.chance(500) {
            true => Luck::DiesBefore,
            false => Luck::DiesAfter,
        }
    }

    /// Makes a call, if it is alive, and hears of it, if it still is.
    fn through<T, E>(&self, dead: E, call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        match self.call() {
            Luck::Goes => call(),
            Luck::DiesBefore => Err(dead),
            Luck::DiesAfter => {
                let _ = call();
                Err(dead)
            }
        }
    }
}

fn died() -> StoreError {
    StoreError::Damaged("the process is dead".to_owned())
}

fn gone() -> Failure {
    Failure::Unavailable("the process is dead".to_owned())
}

/// The store, as one process reaches it.
struct Reached {
    store: Arc<dyn RolloutStore>,
    fate: Arc<Fate>,
}

impl Artefacts for Reached {
    fn put_artefact(&self, kind: &str, digest: &Digest, body: &str) -> Result<(), StoreError> {
        let call = || self.store.put_artefact(kind, digest, body);
        self.fate.through(died(), call)
    }

    fn artefact(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        self.store.artefact(digest)
    }
}

impl RolloutStore for Reached {
    fn lease(
        &self,
        group: &str,
        holder: &str,
        now_ms: u64,
        ttl_ms: u64,
    ) -> Result<Option<u64>, StoreError> {
        let epoch = self
            .fate
            .through(died(), || self.store.lease(group, holder, now_ms, ttl_ms))?;
        self.fate.epoch.store(epoch.unwrap_or(0), Ordering::Relaxed);
        Ok(epoch)
    }

    fn resign(&self, group: &str, holder: &str) -> Result<(), StoreError> {
        self.store.resign(group, holder)
    }

    fn rollout(&self, group: &str) -> Result<Option<String>, StoreError> {
        self.store.rollout(group)
    }

    fn groups(&self) -> Result<Vec<String>, StoreError> {
        self.store.groups()
    }

    fn keep_rollout(
        &self,
        group: &str,
        record: &StepRecord,
        state: &str,
        pins: &[Digest],
        consumed: Option<u64>,
    ) -> Result<bool, StoreError> {
        let keep = || {
            self.store
                .keep_rollout(group, record, state, pins, consumed)
        };
        self.fate.through(died(), keep)
    }

    fn submit(&self, group: &str, key: &str, body: &str) -> Result<bool, StoreError> {
        self.store.submit(group, key, body)
    }

    fn submitted(&self, group: &str) -> Result<Option<Submitted>, StoreError> {
        self.store.submitted(group)
    }

    fn steps(&self, group: &str, limit: usize) -> Result<Vec<StepRecord>, StoreError> {
        self.store.steps(group, limit)
    }
}

/// The agents, as one process reaches them.
struct Reach {
    world: Shared,
    store: Arc<dyn RolloutStore>,
    fate: Arc<Fate>,
}

fn obeyed(yes: bool) -> Result<(), Failure> {
    match yes {
        true => Ok(()),
        false => Err(Failure::Fenced),
    }
}

impl Reach {
    /// The process freezes here, and what it was about to do comes to pass when it goes on.
    fn freezes(
        &self,
        fence: Fence,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
        key: &str,
    ) -> bool {
        let mut world = self.world.borrow_mut();
        let may = world.chaos.control && !world.is_calm();
        let mut dice = self
            .fate
            .dice
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !may || !dice.chance(40) {
            return false;
        }
        let until = world.now + dice.range(5_000, 30_000);
        self.fate.frozen.store(until, Ordering::Relaxed);
        let late = Late {
            fence,
            epoch: self.fate.epoch.load(Ordering::Relaxed),
            agents: agents.clone(),
            digest: digest.clone(),
            key: key.to_owned(),
        };
        world.send(until, Message::Late(late));
        true
    }
}

impl Fleet for Reach {
    fn collectors(&mut self, _call: &Call<'_>) -> Result<Vec<Collector>, Failure> {
        let world = &self.world;
        self.fate
            .through(gone(), || Ok(world.borrow().collectors()))
    }

    fn offer(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
    ) -> Result<(), Failure> {
        if self.freezes(call.fence, agents, digest, call.key) {
            return Err(Failure::Unavailable("no answer in time".to_owned()));
        }
        let is_kept = self.store.artefact(digest)?.is_some();
        let epoch = self.fate.epoch.load(Ordering::Relaxed);
        let world = &self.world;
        self.fate.through(gone(), || {
            let mut world = world.borrow_mut();
            if !is_kept {
                world.violates("what is not kept is offered");
            }
            obeyed(world.offer(call.fence, epoch, agents, digest, call.key))
        })
    }

    fn reoffer(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
    ) -> Result<(), Failure> {
        self.offer(call, agents, digest)
    }

    fn restart(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeSet<AgentId>, Failure> {
        let epoch = self.fate.epoch.load(Ordering::Relaxed);
        let world = &self.world;
        self.fate.through(gone(), || {
            let mut world = world.borrow_mut();
            obeyed(world.obeys(call.fence, epoch))?;
            Ok(world.restart(agents))
        })
    }

    fn reports(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, Report>, Failure> {
        let health = self.health(call, agents)?;
        Ok(health.into_iter().map(|(id, (r, _))| (id, r)).collect())
    }

    fn health(
        &mut self,
        _call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, (Report, Option<Sample>)>, Failure> {
        let world = &self.world;
        self.fate
            .through(gone(), || Ok(world.borrow().health(agents)))
    }

    fn promote(&mut self, call: &Call<'_>, generation: &Generation) -> Result<(), Failure> {
        let epoch = self.fate.epoch.load(Ordering::Relaxed);
        let world = &self.world;
        self.fate.through(gone(), || {
            obeyed(world.borrow_mut().promote(call.fence, epoch, generation))
        })
    }

    fn alert(
        &mut self,
        call: &Call<'_>,
        alert: Alert,
        text: &str,
        resolved: bool,
    ) -> Result<(), Failure> {
        let world = &self.world;
        self.fate.through(gone(), || {
            let mut world = world.borrow_mut();
            // Once for each key.
            if !world.alerted.insert(call.key.to_owned()) {
                return Ok(());
            }
            if resolved {
                world.resolved += 1;
                return Ok(());
            }
            *world.alerts.entry(alert).or_default() += 1;
            if alert == Alert::RolledBack
                && let Some((revision, _)) = text.split_once(" is taken back")
            {
                let digest = Digest::of(body_of(revision).as_bytes());
                world.condemned.insert(digest);
            }
            Ok(())
        })
    }
}

/// What a revision is rendered to: `number kind`; so another number gives another digest.
pub fn body_of(revision: &str) -> String {
    let content = revision.split('@').next().unwrap_or_default();
    format!("configuration {content}\n")
}

/// Renders revisions.
struct Renderer {
    world: Shared,
    fate: Arc<Fate>,
}

impl Configs for Renderer {
    fn build(
        &mut self,
        _call: &Call<'_>,
        revision: &str,
    ) -> Result<Result<Built, Vec<String>>, Failure> {
        let body = body_of(revision);
        let kind = self
            .world
            .borrow()
            .kinds
            .get(&Digest::of(body.as_bytes()))
            .copied();
        let requires = match kind {
            Some(Kind::Needs) => BTreeSet::from(["extra".to_owned()]),
            _ => BTreeSet::from(["loki".to_owned()]),
        };
        let built = Ok(Ok(Built { body, requires }));
        self.fate.through(gone(), || built)
    }

    fn validate(&mut self, _call: &Call<'_>, built: &Built) -> Result<Vec<String>, Failure> {
        let digest = Digest::of(built.body.as_bytes());
        let kind = self.world.borrow().kinds.get(&digest).copied();
        let reasons = match kind {
            Some(Kind::Invalid) => vec!["no such option".to_owned()],
            _ => Vec::new(),
        };
        self.fate.through(gone(), || Ok(reasons))
    }
}

/// One control plane, over its deaths.
pub struct Control {
    n: usize,
    lives: u64,
    world: Shared,
    store: Arc<dyn RolloutStore>,
    policy: Policy,
    metrics: Metrics,
    pub fate: Arc<Fate>,
    pub driver: Option<Driver>,
    /// It is started again then, ms.
    pub starts: u64,
    dice: Dice,
}

impl Control {
    pub fn new(
        seed: u64,
        n: usize,
        world: &Shared,
        store: &Arc<dyn RolloutStore>,
        policy: &Policy,
    ) -> Control {
        let dice = Dice::new(seed, &format!("control {n}"));
        Control {
            n,
            lives: 0,
            world: world.clone(),
            store: store.clone(),
            policy: policy.clone(),
            metrics: Metrics::new(Arc::new(MetricsRegistry::default())),
            fate: Arc::new(Fate::of(dice.clone())),
            driver: None,
            starts: 0,
            dice,
        }
    }

    fn start(&mut self) {
        self.lives += 1;
        let former = &self.fate;
        let fate = Fate::of(Dice::new(self.dice.next(), "fate"));
        let set = |to: &AtomicU64, of: &AtomicU64| {
            to.store(of.load(Ordering::Relaxed), Ordering::Relaxed)
        };
        set(&fate.kills, &former.kills);
        set(&fate.calls, &former.calls);
        set(&fate.kill_at, &former.kill_at);
        self.fate = Arc::new(fate);
        let reached = Reached {
            store: self.store.clone(),
            fate: self.fate.clone(),
        };
        let fleet = Reach {
            world: self.world.clone(),
            store: self.store.clone(),
            fate: self.fate.clone(),
        };
        let configs = Renderer {
            world: self.world.clone(),
            fate: self.fate.clone(),
        };
        self.driver = Some(Driver::new(Parts {
            store: Arc::new(reached),
            fleet: Box::new(fleet),
            configs: Box::new(configs),
            policy: self.policy.clone(),
            metrics: self.metrics.clone(),
            group: GROUP.to_owned(),
            holder: format!("control {} life {}", self.n, self.lives),
            lease_ms: LEASE_MS,
        }));
    }

    /// All that it does in this instant. The clock of each is another one.
    pub fn live(&mut self, now: u64) {
        if self.driver.is_none() && now >= self.starts {
            self.start();
        }
        if self.fate.is_frozen(now) {
            return;
        }
        let skew = self.n as u64 * 700;
        for _ in 0..TURNS_MAX {
            let Some(driver) = &mut self.driver else {
                return;
            };
            let turn = driver.turn(now + skew);
            if self.fate.dead.load(Ordering::Relaxed) {
                self.driver = None;
                self.starts = now + self.dice.range(500, 12_000);
                return;
            }
            if self.fate.is_frozen(now) {
                return;
            }
            match turn {
                Ok(Turn::Worked) => {}
                Ok(Turn::Waits(_) | Turn::Stands(_)) | Err(_) => return,
            }
        }
    }
}
