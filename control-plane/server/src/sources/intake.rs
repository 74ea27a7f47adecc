//! Reports of agents onto the bus, and what is on the bus into the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tailwater_control_plane::bus::{ReadFrom, Subscription};
use tailwater_control_plane::metrics::Activity;
use tailwater_control_plane::model::{Event, Source, State};
use tailwater_control_plane::registry::{Registry, Transition};
use tailwater_control_plane::report::{Report, Reported};
use tailwater_control_plane::store::{Recorded, StoreError};
use tailwater_opamp::InstanceUid;

use super::step::{FORGOTTEN, Step, UNNAMED, ns, split};
use super::{ALL_MAX, HISTORY_MAX, Known, Sources};

/// Under this name events are read.
const CONSUMER: &str = "registry";
/// Events that are read at once.
const EVENTS_MAX: usize = 256;
/// How long what was published may take to come back.
const RETURN_MAX: Duration = Duration::from_secs(5);
/// The largest event, bytes: well below what servers of events take.
const EVENT_BYTES_MAX: usize = 256 << 10;
/// So many events that were read are kept, where that is up to us.
const EVENTS_KEPT: u64 = 10_000;
/// After so many events it is looked how many are kept.
const PRUNE_AFTER: u64 = 1_000;

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// It is none.
    #[error("it is no report: {0}")]
    Unfit(String),
    /// The bus or the store is away; the same is to be taken later.
    #[error("{0}")]
    Later(#[from] StoreError),
}

/// What was done on the bus.
#[derive(Debug, Default)]
pub struct BusCounts {
    /// Events that were published.
    pub published: AtomicU64,
    /// Events that were read, and reduced or passed over.
    pub read: AtomicU64,
    /// Times that it, or what is kept of it, was not to be had.
    pub failures: AtomicU64,
    /// Times that events were forgotten before they were read.
    pub gaps: AtomicU64,
}

/// Who reads the bus, one at a time.
#[derive(Default)]
pub(super) struct Intake {
    events: Option<Box<dyn Subscription>>,
    /// What is known is not what is kept: it is to be read again.
    is_stale: bool,
    /// Of the newest event of ours, ns.
    newest_ns: i64,
    /// Events since it was looked how many are kept.
    since_prune: u64,
    /// All agents are to be asked for everything.
    asks_all: bool,
}

impl Sources {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report of an agent: when this returns, rows are as it says.
    ///
    /// # Errors
    /// It is none, or has to be taken later.
    pub fn take(&self, agent: InstanceUid, data: &[u8], now_ms: u64) -> Result<(), Untaken> {
        let report = Report::read(data).map_err(Untaken::Unfit)?;
        let mut intake = self.intake();
        // Not before what was published before: it is compared with what is known.
        self.follow_up_to(&mut intake, None, now_ms)?;
        let news = self.news(agent, report, now_ms);
        let events = chunks(news.changed, news.unnamed);
        let mut last = None;
        for (sources, unnamed) in events {
            let at_ns = intake.tick(now_ms);
            let event = Event::Reported {
                agent: agent.to_string(),
                at_ns,
                sources,
                unnamed,
            };
            last = Some(self.publish(format!("report/{agent}/{at_ns}"), &event)?);
        }
        self.follow_up_to(&mut intake, last.as_deref(), now_ms)?;
        let mut all = self.lock();
        let known = all.entry(agent).or_default();
        known.said_ms = now_ms;
        (known.lag, known.left_out) = (news.lag, news.left_out);
        Ok(())
    }

    /// Takes in what is on the bus and was not read.
    ///
    /// # Errors
    /// It cannot be read or kept; it comes again.
    pub fn follow(&self, now_ms: u64) -> Result<(), StoreError> {
        self.follow_up_to(&mut self.intake(), None, now_ms)
    }

    /// True once after events were forgotten before they were read: all agents are to be asked for everything, which makes up
    /// for what was in them.
    pub fn asks_all(&self) -> bool {
        std::mem::take(&mut self.intake().asks_all)
    }

    /// Compares a report with what is known.
    fn news(&self, agent: InstanceUid, report: Report, now_ms: u64) -> News {
        let all = self.lock();
        let others = all.iter().filter(|(uid, _)| **uid != agent);
        let others: usize = others.map(|(_, k)| k.count).sum();
        let room = ALL_MAX.saturating_sub(others);
        let none = Known::default();
        let known = all.get(&agent).unwrap_or(&none);
        let mut step = Step::of(&known.registry, ns(now_ms));
        let mut news = News {
            left_out: report.left_out,
            ..News::default()
        };
        let mut named = BTreeSet::new();
        for source in report.sources {
            if named.len() == room {
                news.left_out += 1;
                continue;
            }
            let id = format!("{agent}/{}", source.id);
            news.lag.insert(id.clone(), source.lag_bytes);
            if step.report(&id, source.clone()) {
                news.changed.push(source);
            }
            named.insert(id);
        }
        let there = known.registry.sources();
        let gone = there.filter(|s| s.state != State::Gone && !named.contains(&s.id));
        news.unnamed = gone.filter_map(|s| Some(split(&s.id)?.1)).collect();
        news
    }

    fn publish(&self, key: String, event: &Event) -> Result<String, StoreError> {
        match self.bus.publish(&key, event) {
            Ok(_) => {
                self.counts.published.fetch_add(1, Ordering::Relaxed);
                Ok(key)
            }
            Err(error) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Reads what there is, and until the event of this key came, if one is named.
    fn follow_up_to(
        &self,
        intake: &mut Intake,
        key: Option<&str>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let followed = self.read_and_reduce(intake, key, now_ms);
        if followed.is_err() {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            // It may have been kept all the same: both go by what is kept.
            intake.is_stale = true;
        }
        followed
    }

    fn read_and_reduce(
        &self,
        intake: &mut Intake,
        key: Option<&str>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        if intake.is_stale {
            self.read_again(intake, now_ms)?;
        }
        let mut events = match intake.events.take() {
            Some(events) => events,
            None => self.bus.subscribe(CONSUMER, ReadFrom::Acknowledged)?,
        };
        let until = Instant::now() + RETURN_MAX;
        let mut is_awaited = key.is_some();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = if is_awaited { left } else { Duration::ZERO };
            let batch = events.next(EVENTS_MAX, wait)?;
            if let Some(gap) = batch.gap {
                tracing::error!("{gap}: all agents are asked for all that they read");
                self.counts.gaps.fetch_add(1, Ordering::Relaxed);
                intake.asks_all = true;
            }
            let is_end = batch.events.is_empty() && batch.gap.is_none();
            for recorded in batch.events {
                self.reduce(&recorded, events.consumer(), now_ms)?;
                is_awaited &= key != Some(&*recorded.key);
                intake.since_prune += 1;
            }
            if is_end && (!is_awaited || left.is_zero()) {
                break;
            }
        }
        intake.events = Some(events);
        if intake.since_prune >= PRUNE_AFTER {
            intake.since_prune = 0;
            self.store.prune_events(EVENTS_KEPT)?;
        }
        Ok(())
    }

    /// Takes an event in: rows and how far the bus is read are written at once, then it is known, and said.
    fn reduce(&self, event: &Recorded, consumer: &str, now_ms: u64) -> Result<(), StoreError> {
        let read = Some((consumer, event.seq));
        let mut all = self.lock();
        self.counts.read.fetch_add(1, Ordering::Relaxed);
        let Some((agent, step)) = reduced(&all, &event.event) else {
            // Somebody else's, or of a newer program.
            tracing::warn!(key = event.key, "an event of the bus is passed over");
            return self.store.apply(&Default::default(), read);
        };
        if let Err(error) = self.store.apply(&step.changes, read) {
            self.metrics.failed(Activity::UpsertRegistryRecord);
            return Err(error);
        }
        for moved in &step.changes.history {
            self.say(moved);
        }
        let known = all.entry(agent).or_insert_with(|| Known {
            said_ms: now_ms,
            ..Known::default()
        });
        known.registry = step.registry;
        known.count = known.registry.sources().count();
        Ok(())
    }

    fn say(&self, moved: &Transition) {
        let activity = match (moved.from, moved.to) {
            (None, _) => Activity::RegisterService,
            (_, State::Gone) => Activity::DeregisterService,
            _ => Activity::UpsertRegistryRecord,
        };
        self.metrics.did(activity);
        let (agent, id) = moved.id.split_once('/').unwrap_or(("", &moved.id));
        let (from, to) = (moved.from.map(State::name), moved.to.name());
        let (activity, reason) = (activity.name(), &moved.reason);
        match moved.from.is_none() || moved.to == State::Gone {
            true => tracing::info!(activity, agent, source = id, from, to, "{reason}"),
            false => tracing::debug!(activity, agent, source = id, from, to, "{reason}"),
        }
    }

    /// Has what is known and how far the bus is read as they are kept.
    pub(super) fn read_again(&self, intake: &mut Intake, now_ms: u64) -> Result<(), StoreError> {
        let mut rows: BTreeMap<InstanceUid, Vec<Source>> = BTreeMap::new();
        for source in self.store.sources()? {
            if let Some((agent, _)) = split(&source.id) {
                rows.entry(agent).or_default().push(source);
            }
        }
        intake.events = None;
        intake.is_stale = false;
        let mut all = self.lock();
        let mut before = std::mem::take(&mut *all);
        for (agent, rows) in rows {
            let known = before.remove(&agent).unwrap_or_else(|| Known {
                said_ms: now_ms,
                ..Known::default()
            });
            let known = Known {
                count: rows.len(),
                registry: Registry::new(rows, BTreeMap::new()),
                ..known
            };
            all.insert(agent, known);
        }
        Ok(())
    }

    /// Ends the sources of agents that are away for longer than `away_ms` and that nobody knows any more, and forgets what
    /// is gone since before `gone_before_ms`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn forget(
        &self,
        is_known: impl Fn(InstanceUid) -> bool,
        away_ms: u64,
        gone_before_ms: u64,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let mut intake = self.intake();
        self.follow_up_to(&mut intake, None, now_ms)?;
        let is_over = |agent: &InstanceUid, known: &Known| {
            !is_known(*agent) && known.said_ms.saturating_add(away_ms) <= now_ms
        };
        let over: Vec<InstanceUid> = {
            let all = self.lock();
            let over = all.iter().filter(|(agent, known)| is_over(agent, known));
            let has_any = |known: &Known| known.registry.sources().any(|s| s.state != State::Gone);
            over.filter(|(_, k)| has_any(k)).map(|(a, _)| *a).collect()
        };
        let mut last = None;
        for agent in over {
            let at_ns = intake.tick(now_ms);
            let event = Event::Forgotten {
                agent: agent.to_string(),
                at_ns,
            };
            last = Some(self.publish(format!("forgotten/{agent}/{at_ns}"), &event)?);
        }
        self.follow_up_to(&mut intake, last.as_deref(), now_ms)?;
        let forgotten = self.store.forget_sources(ns(gone_before_ms), HISTORY_MAX)?;
        let mut all = self.lock();
        for (agent, known) in all.iter_mut() {
            known.registry.forget(&forgotten);
            known.count = known.registry.sources().count();
            if is_over(agent, known) {
                known.lag.clear();
            }
        }
        all.retain(|agent, known| is_known(*agent) || known.count > 0);
        Ok(())
    }
}

impl Intake {
    /// A time that is later than that of each event before, whatever the clock does.
    fn tick(&mut self, now_ms: u64) -> i64 {
        self.newest_ns = ns(now_ms).max(self.newest_ns + 1);
        self.newest_ns
    }
}

/// What is news of a report.
#[derive(Default)]
struct News {
    changed: Vec<Reported>,
    unnamed: Vec<String>,
    lag: BTreeMap<String, u64>,
    left_out: u64,
}

/// What an event changes of which agent; none if it is not of an agent.
fn reduced(all: &BTreeMap<InstanceUid, Known>, event: &Event) -> Option<(InstanceUid, Step)> {
    let (agent, at_ns) = match event {
        Event::Reported { agent, at_ns, .. } | Event::Forgotten { agent, at_ns } => (agent, at_ns),
        _ => return None,
    };
    let uid: InstanceUid = agent.parse().ok()?;
    let none = Registry::default();
    let registry = all.get(&uid).map_or(&none, |k| &k.registry);
    let mut step = Step::of(registry, *at_ns);
    match event {
        Event::Reported {
            sources, unnamed, ..
        } => {
            for source in sources {
                step.report(&format!("{uid}/{}", source.id), source.clone());
            }
            for id in unnamed {
                step.end(&format!("{uid}/{id}"), UNNAMED);
            }
        }
        _ => {
            let ids: Vec<String> = registry.sources().map(|s| s.id.clone()).collect();
            for id in ids {
                step.end(&id, FORGOTTEN);
            }
        }
    }
    Some((uid, step))
}

/// In as few parts as there have to be, none too large.
fn chunks(changed: Vec<Reported>, unnamed: Vec<String>) -> Vec<(Vec<Reported>, Vec<String>)> {
    let mut all: Vec<(Vec<Reported>, Vec<String>)> = Vec::new();
    let mut size = EVENT_BYTES_MAX;
    let mut part = |bytes: usize| {
        size += bytes;
        if size > EVENT_BYTES_MAX {
            size = bytes;
            all.push(Default::default());
        }
        all.len() - 1
    };
    let of_changed: Vec<usize> = changed
        .iter()
        .map(|s| part(serde_json::to_vec(s).map_or(0, |text| text.len())))
        .collect();
    // Any character may be written as six.
    let of_unnamed: Vec<usize> = unnamed.iter().map(|id| part(6 * id.len() + 3)).collect();
    for (at, source) in of_changed.into_iter().zip(changed) {
        all[at].0.push(source);
    }
    for (at, id) in of_unnamed.into_iter().zip(unnamed) {
        all[at].1.push(id);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: nothing gets lost between parts, and none is too large.
    #[test]
    fn what_is_news_fits_into_events() {
        assert!(chunks(vec![], vec![]).is_empty());
        let ids = (0..3_000).map(|n| format!("docker:{n:0>600}"));
        let unnamed: Vec<String> = ids.collect();
        let parts = chunks(vec![], unnamed.clone());
        assert!(parts.len() > 5, "{}", parts.len());
        for (_, ids) in &parts {
            assert!(serde_json::to_vec(ids).unwrap().len() <= EVENT_BYTES_MAX);
        }
        let all: Vec<String> = parts.into_iter().flat_map(|(_, ids)| ids).collect();
        assert_eq!(all, unnamed);
    }
}
