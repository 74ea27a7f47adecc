//! A run: the world, one life of the agent after the other, and what is wrong at the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_pipeline::clock::{Clock, Mono, Rng64};

use crate::agent::{Life, Settings};
use crate::canary::Breaks;
use crate::dice::{one_of, stream};
use crate::network::{Network, Trouble};
use crate::oracle::{self, Violation};
use crate::plan::{Plan, Shape};
use crate::views::AgentFs;
use crate::world::{DiskFaults, START_NS, SharedWorld, World};

/// The agent's thread that finds files looks at least this often.
const DRIVER_WAIT_MAX: Duration = Duration::from_millis(500);
/// Without faults everything has to be caught up after this much simulated time.
const CATCH_UP_MAX: Duration = Duration::from_secs(1_200);
/// How far the wall clock is set back.
const CLOCK_BACK_NS: i64 = 1_000_000;
/// How far ahead the wall clock may be.
const CLOCK_OFF_MAX_NS: u64 = 240_000_000_000;
/// How far off a clock may be that is set anywhere.
const CLOCK_WILD_NS: u64 = 3 * 3_600_000_000_000;
/// Steps without faults at most, so that a run ends.
const CALM_STEPS_MAX: u64 = 60_000;

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong; empty = nothing.
    pub violations: Vec<Violation>,
    /// Equal for equal runs.
    pub hash: u64,
    /// What happened, if it was asked for.
    pub story: Vec<String>,
    /// Lines that were written.
    pub lines: usize,
    /// Lines that nobody could read in time.
    pub gone: usize,
}

/// Something that happens to the agent or its world; each by a random stream of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    Clock,
    KillInside,
    Kill,
    Power,
    Stop,
    Disk,
    State,
    Full,
    News,
    Trouble,
    Rate,
    Streams,
    Reload,
}

/// Those that begin and end.
const FAULTS: [Blow; 7] = [
    Blow::Disk,
    Blow::State,
    Blow::Full,
    Blow::News,
    Blow::Trouble,
    Blow::Rate,
    Blow::Streams,
];

/// The random streams of all of them.
fn chances(seed: u64) -> Vec<Rng64> {
    use Blow::*;
    let others = [Clock, KillInside, Kill, Power, Stop];
    let all = others.into_iter().chain(FAULTS).chain([Reload]);
    all.map(|b| stream(seed, &format!("chance of {b:?}")))
        .collect()
}

/// Something that can be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    Driver,
    Shard(usize),
    Store,
    Courier,
    Network,
}

struct Sim<'a> {
    plan: &'a Plan,
    settings: Settings,
    world: SharedWorld,
    net: Network,
    life: Option<Life>,
    start_at: Mono,
    variant: &'a dyn Breaks,
    /// By [`Blow`].
    chances: Vec<Rng64>,
    runtime: tokio::runtime::Handle,
}

/// Runs a seed. `tell`: the story is wanted.
pub fn run(seed: u64, variant: &dyn Breaks, tell: bool) -> Outcome {
    run_plan(&Plan::of(seed), seed, variant, tell)
}

/// Runs a plan.
pub fn run_plan(plan: &Plan, seed: u64, variant: &dyn Breaks, tell: bool) -> Outcome {
    let world = SharedWorld(Arc::new(Mutex::new(World::new(plan, seed, tell))));
    // Nothing ever runs on it: nodes only keep its handle.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let done = match (runtime, Settings::of(plan, &Shape::default())) {
        (Ok(runtime), Ok(settings)) => {
            let mut sim = Sim {
                plan,
                settings,
                world: world.clone(),
                net: Network::new(plan),
                life: None,
                start_at: Mono(0),
                variant,
                chances: chances(seed),
                runtime: runtime.handle().clone(),
            };
            let done = catch_unwind(AssertUnwindSafe(|| sim.run()));
            // Whatever it holds must not act on the world any more.
            sim.world.lock().boot += 1;
            done.map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                Violation::Panic(text.unwrap_or_default())
            })
        }
        (Err(e), _) => Err(Violation::NoStart(e.to_string())),
        (_, Err(e)) => Err(Violation::NoStart(e)),
    };
    let mut world = world.lock();
    world.oracle.violations.extend(done.err());
    let violations = world.oracle.verdict();
    Outcome {
        violations,
        hash: world.trace.hash,
        story: world.trace.story.take().unwrap_or_default(),
        lines: world.oracle.lines().count(),
        gone: world
            .oracle
            .lines()
            .filter(|(_, l)| l.gone.is_some())
            .count(),
    }
}

impl Sim<'_> {
    fn run(&mut self) {
        for _ in 0..self.plan.steps {
            self.blow();
            self.turn();
        }
        self.calm_down();
        self.catch_up();
        // A restart changes nothing that can be seen.
        self.stop();
        self.start_at = self.world.lock().now();
        self.catch_up();
        self.world.lock().end_boot();
        self.life = None;
    }

    fn wrong(&self, violation: Violation) {
        self.world.lock().oracle.violations.push(violation);
    }

    /// Until everything has arrived, with nothing wrong any more.
    fn catch_up(&mut self) {
        let began = self.world.lock().now();
        for step in 0..CALM_STEPS_MAX {
            self.turn();
            if step % 16 == 0 && self.is_caught_up() {
                return self.check_drops(true);
            }
            if self.world.lock().now().since(began) > CATCH_UP_MAX {
                break;
            }
        }
        let (missing, first) = {
            let mut w = self.world.lock();
            let first = w.oracle.missing.first().copied();
            for (uid, ino) in first.map_or(Vec::new(), |id| oracle::holders(&w.disk, id)) {
                w.tell("there", || {
                    format!("{first:?} is in inode object {uid}, ino={ino}")
                });
            }
            (w.oracle.missing.len(), first)
        };
        let queued = self
            .life
            .as_ref()
            .map_or(0, |l| l.exporter.delivery().stats().queue_items());
        let text = format!(
            "{missing} lines missing from {first:?} on, {queued} queued, agent runs: {}",
            self.life.is_some()
        );
        self.wrong(Violation::Stuck(text));
    }

    fn is_caught_up(&self) -> bool {
        let world = self.world.lock();
        if !world.oracle.missing.is_empty() || !world.logs.iter().all(|l| l.is_settled()) {
            return false;
        }
        let settled = |l: &Life| l.accounts.iter().all(|a| a.snapshot().is_settled());
        self.net.is_idle() && self.life.as_ref().is_some_and(settled)
    }

    fn calm_down(&mut self) {
        let mut w = self.world.lock();
        w.tell("calm", String::new);
        w.calm = true;
        w.faults = DiskFaults::default();
        w.interference = 0;
        w.disk.capacity_bytes = None;
        w.calls_left = None;
        (w.news.lost, w.news.delay_max) = (0, Duration::ZERO);
        self.net.heal();
        drop(w);
        if self.plan.blows.reload > 0 {
            self.reload(&Shape::default());
        }
    }

    /// True if this happens now.
    fn hits(&mut self, blow: Blow, per_10_000: u64) -> bool {
        let rng = &mut self.chances[blow as usize];
        per_10_000 > 0 && rng.below(10_000) < per_10_000
    }

    /// The things that may go wrong, now and then.
    fn blow(&mut self) {
        let blows = self.plan.blows;
        for fault in FAULTS {
            if self.hits(fault, blows.faults / 4) {
                self.toggle(fault);
            }
        }
        if self.hits(Blow::Clock, blows.clock) {
            self.set_clock();
        }
        // Drawn whether there is somebody to be hit or not.
        let inside = self.hits(Blow::KillInside, blows.kill_inside);
        let kill = self.hits(Blow::Kill, blows.kill);
        let power = self.hits(Blow::Power, blows.power);
        let stop = self.hits(Blow::Stop, blows.stop);
        if self.hits(Blow::Reload, blows.reload) {
            let rng = &mut self.chances[Blow::Reload as usize];
            let shape = Shape::any(rng, self.plan);
            self.reload(&shape);
        }
        if self.life.is_none() {
            return;
        }
        if inside {
            let mut w = self.world.lock();
            let calls = 1 + w.dice.inside.below(30);
            w.calls_left.get_or_insert(calls);
        }
        if kill || power {
            self.die(power);
        } else if stop {
            self.stop();
        }
    }

    /// The configuration has another shape from now on.
    fn reload(&mut self, shape: &Shape) {
        self.world.lock().tell("reload", || format!("{shape:?}"));
        let reloaded = Settings::of(self.plan, shape).and_then(|settings| {
            self.settings = settings;
            let Some(life) = &mut self.life else {
                return Ok(());
            };
            let fs = AgentFs {
                world: self.world.clone(),
                boot: self.world.lock().boot,
                keeps: true,
            };
            life.reload(&self.settings, self.plan, &fs, self.variant)
        });
        if let Err(e) = reloaded {
            self.wrong(Violation::NoStart(e));
        }
    }

    /// Somebody sets the wall clock.
    fn set_clock(&mut self) {
        let rng = &mut self.chances[Blow::Clock as usize];
        let mut w = self.world.lock();
        let now = START_NS + w.now().0 as i64;
        let off = w.clock.wall_ns() - now;
        let to = if self.plan.wild_clock {
            rng.below(2 * CLOCK_WILD_NS) as i64 - CLOCK_WILD_NS as i64
        } else {
            // Within what Loki takes as present, and never back by much.
            let to = rng.below(CLOCK_OFF_MAX_NS) as i64;
            if to > off { to } else { off - CLOCK_BACK_NS }
        };
        w.clock.set_wall_ns(now + to);
        w.disk.now_ns = now + to;
        w.tell("clock", || {
            format!("is off by {} s now", to / 1_000_000_000)
        });
    }

    /// Some kind of fault begins or ends.
    fn toggle(&mut self, fault: Blow) {
        let plan = self.plan;
        let rng = &mut self.chances[fault as usize];
        let mut w = self.world.lock();
        match fault {
            Blow::Disk if plan.disk_faults => {
                let state = w.faults.state;
                w.faults = DiskFaults {
                    read: one_of(rng, [0, 0, 20, 200]),
                    short: one_of(rng, [0, 0, 20, 200]),
                    open: one_of(rng, [0, 0, 20, 200]),
                    list: one_of(rng, [0, 0, 20, 200]),
                    state,
                };
                let faults = w.faults;
                w.tell("disk", || format!("{faults:?}"));
            }
            Blow::State if plan.state_faults => {
                w.faults.state = one_of(rng, [0, 0, 20, 200]);
                let faults = w.faults;
                w.tell("disk", || format!("{faults:?}"));
            }
            Blow::Full if plan.full_disk => {
                let full = w.disk.capacity_bytes.is_none();
                let room = rng.below(2_000) as usize;
                w.disk.capacity_bytes = full.then(|| w.disk.used_bytes() + room);
                w.tell("full", || format!("{full}"));
            }
            Blow::News if plan.news_faults => {
                w.news.lost = one_of(rng, [0, 100, 1000]);
                w.news.delay_max = Duration::from_millis(one_of(rng, [0, 20, 1_500]));
                w.news.queue_max = one_of(rng, [64, 4]);
                let (lost, delay) = (w.news.lost, w.news.delay_max);
                w.tell("news", || format!("lost {lost}, late {delay:?}"));
            }
            Blow::Trouble if plan.loki_faults => {
                let well = rng.below(2) == 0;
                self.net.trouble = if well {
                    Trouble::default()
                } else {
                    Trouble::some(rng)
                };
                let trouble = self.net.trouble;
                w.tell("trouble", || format!("{trouble:?}"));
            }
            Blow::Rate if plan.limits.rate => {
                let (on, sharded) = (rng.below(2) == 0, rng.below(2) == 0);
                self.net.limit_rate(on, sharded);
                w.tell("rate", || format!("limited: {on}, sharded: {sharded}"));
            }
            Blow::Streams if plan.limits.streams => {
                let max = one_of(rng, [1, 2, 5_000]);
                self.net.limit_streams(max);
                w.tell("streams", || format!("at most {max}"));
            }
            _ => {}
        }
    }

    /// The process is gone, with or without the machine.
    fn die(&mut self, power: bool) {
        let mut w = self.world.lock();
        w.tell(if power { "power" } else { "kill" }, String::new);
        self.net.orphan(&mut w.dice.lives);
        if power {
            w.power_cut();
        } else {
            w.end_boot();
        }
        let pause = one_of(&mut w.dice.lives, [0, 10, 300, 5_000]);
        let pause = Duration::from_millis(w.dice.lives.below(pause + 1));
        self.start_at = w.now().after(pause);
        drop(w);
        self.check_drops(false);
        if let Some(life) = self.life.take() {
            self.check_accounts(&life);
        }
    }

    /// What this life of the agent counts as given up is what Loki told it that it refuses: never
    /// more, and when all is settled, not less.
    fn check_drops(&self, is_settled: bool) {
        let Some(life) = &self.life else { return };
        let dropped = life.accounts.each_ref().map(|a| {
            let dropped = a.snapshot().dropped;
            dropped.iter().map(|(_, n)| n.records).sum::<u64>()
        });
        let (least, most) = self.net.refused;
        let wrong = |n: &u64| *n > most || is_settled && *n < least;
        if dropped.iter().any(wrong) {
            let [receiver, exporter] = dropped;
            self.wrong(Violation::Account(format!(
                "Loki refused {least} to {most} entries; given up by the receiver's account {receiver}, \
                 by the exporter's {exporter}"
            )));
        }
    }

    fn check_accounts(&self, life: &Life) {
        if let Err(e) = life.check_accounts() {
            self.wrong(Violation::Account(e));
        }
    }

    fn start(&mut self) {
        let (boot, calm) = {
            let mut w = self.world.lock();
            w.tell("start", String::new);
            (w.boot, w.calm)
        };
        self.net.refused = (0, 0);
        let fs = AgentFs {
            world: self.world.clone(),
            boot,
            keeps: true,
        };
        match Life::start(&self.settings, self.plan, &fs, self.variant, &self.runtime) {
            Ok(life) => self.life = Some(life),
            Err(e) => {
                let mut w = self.world.lock();
                let dead = w.dead;
                w.tell("failed", || e.clone());
                w.end_boot();
                self.start_at = w.now().after(Duration::from_secs(1));
                drop(w);
                if calm && !dead {
                    self.wrong(Violation::NoStart(e));
                }
            }
        }
    }

    /// Does one thing, or lets time pass.
    fn turn(&mut self) {
        let mut w = self.world.lock();
        w.act_due();
        let (now, calm) = (w.now(), w.calm);
        match w.dice.turn.below(100) {
            0..16 if !calm => {
                w.act();
                return;
            }
            16..18 if !calm => return w.write_back(),
            18..40 if !calm => return self.pass(&mut w),
            0..30 if calm && w.act() => return,
            _ => {}
        }
        drop(w);
        if self.life.is_none() && now >= self.start_at {
            return self.start();
        }
        let jobs = self.ready(now);
        let mut w = self.world.lock();
        if jobs.is_empty() {
            return self.pass_to_next(&mut w);
        }
        let job = jobs[w.dice.turn.below(jobs.len() as u64) as usize];
        w.tell("job", || format!("{job:?}"));
        drop(w);
        self.do_job(job, now);
        if self.world.lock().dead {
            self.die(false);
        }
    }

    /// Lets some time pass.
    fn pass(&self, w: &mut World) {
        let most = match w.dice.turn.below(20) {
            0 => 1_000_000,
            1..5 => 60_000,
            _ => 2_000,
        };
        let by = Duration::from_micros(1 + w.dice.turn.below(most));
        self.advance(w, by);
    }

    /// Lets time pass until something happens by itself.
    fn pass_to_next(&self, w: &mut World) {
        let now = w.now();
        let mut next: Vec<Mono> = self.net.next().into_iter().collect();
        next.extend(w.news.queue.front().map(|q| q.0));
        match &self.life {
            None => next.push(self.start_at),
            Some(life) => {
                next.push(life.driver_at);
                next.extend(life.shards.iter().filter_map(|s| s.next));
                next.extend(life.store_at);
                next.extend(life.courier_at);
            }
        }
        let at = next.into_iter().min().unwrap_or(now.after(DRIVER_WAIT_MAX));
        self.advance(w, at.since(now).max(Duration::from_micros(1)));
    }

    fn advance(&self, w: &mut World, by: Duration) {
        // A line that was begun does not wait.
        let limit = w.act_at().map_or(by, |at| at.since(w.now()));
        w.advance(by.min(limit).max(Duration::from_nanos(1)));
    }

    fn ready(&self, now: Mono) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(8);
        if self.net.next().is_some_and(|at| at <= now) {
            jobs.push(Job::Network);
        }
        let Some(life) = &self.life else { return jobs };
        let news = {
            let w = self.world.lock();
            w.news.rescan || w.news.queue.front().is_some_and(|q| q.0 <= now)
        };
        if news || life.driver_at <= now {
            jobs.push(Job::Driver);
        }
        let shards = life.shards.iter().enumerate();
        jobs.extend(
            shards
                .filter(|(_, s)| s.is_ready(now))
                .map(|(i, _)| Job::Shard(i)),
        );
        if life.store_news || life.store_at.is_some_and(|at| at <= now) {
            jobs.push(Job::Store);
        }
        if life.courier_news || life.courier_at.is_some_and(|at| at <= now) {
            jobs.push(Job::Courier);
        }
        jobs
    }

    fn do_job(&mut self, job: Job, now: Mono) {
        if job == Job::Network {
            return self.network();
        }
        let Some(life) = &mut self.life else { return };
        match job {
            Job::Driver => {
                let next = life.driver.turn(now);
                if let Some(second) = &mut life.second {
                    second.turn(now);
                }
                let heard = life.driver.listen(now, Duration::ZERO);
                let latest = now.after(DRIVER_WAIT_MAX);
                life.driver_at = if heard > 0 { now } else { next.min(latest) };
                life.store_news = true;
            }
            Job::Shard(i) => {
                life.shards[i].wake();
                life.shards[i].next = match life.shards[i].shard.step() {
                    tailwater_pipeline::shard::Step::Busy => Some(now),
                    tailwater_pipeline::shard::Step::Idle(next) => next,
                };
                (life.store_news, life.courier_news) = (true, true);
            }
            Job::Store => self.save(now),
            Job::Courier => self.courier(now),
            Job::Network => {}
        }
    }

    fn save(&mut self, now: Mono) {
        if let Some(life) = &mut self.life {
            life.store_news = false;
            let before = life.positions.stats().commits;
            life.store_at = life.store.step(now);
            let stats = life.positions.stats();
            if stats.commits > before && stats.unsaved_keys == 0 {
                self.world.lock().oracle.saved();
            }
        }
    }

    fn courier(&mut self, now: Mono) {
        let Some(life) = &mut self.life else { return };
        life.courier_news = false;
        let due = life.courier.due(now);
        life.courier_at = due.wakeup;
        for open in due.attempts {
            self.net.send(open, &mut self.world.lock());
        }
    }

    fn network(&mut self) {
        let answer = self.net.step(&mut self.world.lock());
        let Some((open, result)) = answer else { return };
        match &mut self.life {
            Some(life) => {
                open.answered(&*life.judge, result);
                life.courier_news = true;
            }
            None => drop(open),
        }
    }

    /// SIGTERM: as the graph stops, with a deadline.
    fn stop(&mut self) {
        let deadline = {
            let mut w = self.world.lock();
            w.tell("stop", String::new);
            let most = if w.calm {
                30_000
            } else {
                one_of(&mut w.dice.lives, [0, 200, 30_000])
            };
            w.now().after(Duration::from_millis(most))
        };
        self.until(deadline, |life, _| {
            let mut done = true;
            for s in &mut life.shards {
                done &= s.shard.drain();
            }
            done
        });
        let Some(life) = &self.life else { return };
        life.delivery().close();
        self.until(deadline, |life, net| {
            life.shards.iter_mut().for_each(|s| {
                s.shard.drain();
            });
            life.exporter.delivery().stats().queue_items() == 0 && net.is_idle()
        });
        drop(self.net.cut());
        let Some(mut life) = self.life.take() else {
            return;
        };
        life.delivery().abandon();
        life.shards.iter_mut().for_each(|s| {
            s.shard.drain();
        });
        let now = self.world.lock().now();
        let Life {
            store,
            driver,
            shards,
            courier,
            exporter,
            accounts,
            judge,
            ..
        } = life;
        drop((driver, shards, courier, judge));
        drop(store.finish(now));
        for account in &accounts {
            if let Err(e) = account.snapshot().check() {
                self.wrong(Violation::Account(e));
            }
        }
        drop(exporter);
        let mut w = self.world.lock();
        w.end_boot();
        let pause = w.dice.lives.below(3_000);
        self.start_at = w.now().after(Duration::from_millis(pause));
    }

    /// Everything but the sources and the driver goes on until `done` or the deadline.
    fn until(&mut self, deadline: Mono, mut done: impl FnMut(&mut Life, &Network) -> bool) {
        loop {
            let now = {
                let mut w = self.world.lock();
                w.act_due();
                w.now()
            };
            let Some(life) = &mut self.life else { return };
            let over = done(life, &self.net) || now >= deadline;
            self.save(now);
            self.courier(now);
            while self.net.next().is_some_and(|at| at <= now) {
                self.network();
            }
            let mut w = self.world.lock();
            if w.dead {
                drop(w);
                return self.die(false);
            }
            if over {
                return;
            }
            // As often as a shard looks that is being drained.
            self.advance(&mut w, Duration::from_millis(20));
        }
    }
}
