//! The driver of what is to be tailed: events come in, the registry follows them, what it then says is
//! rendered, kept, offered to the agent, and looked after until the agent reads it.
//!
//! ```text
//! events --> reduce, write --> build --> keep --> offer --> applied: verify, until each source is read
//!                                                  \-> refused: what was in force stays; the source
//!                                                      that it is about is found and left out
//! ```
//!
//! This is the fast one of two ways in which configuration changes: a source more or less concerns one
//! agent and no pipeline, so it is offered at once. What comes while an offer is under way is the next offer.
//! An offer is always of all sources, so one that is lost is made up for by the next.

#[cfg(test)]
mod tests;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::agents::{AgentPort, Answer, Silent};
use crate::builder::{BUILDER, Base, Rendered, build};
use crate::bus::Subscription;
use crate::metrics::{Activity, Metrics};
use crate::model::{Descriptor, Digest, Event, Manifest, Origin, State};
use crate::registry::{Changes, Registry};
use crate::store::{Offered, Retention, Store, StoreError};

/// Under this name events are read.
pub const CONSUMER: &str = "registry";

/// Version of [`Manifest`].
const SCHEMA: u32 = 1;
/// Events that are reduced in one turn.
const EVENTS_MAX: usize = 256;
/// How often the agent is asked while sources start or drain.
const VERIFY_INTERVAL: Duration = Duration::from_millis(250);
/// How long nothing is done if nothing happens.
const IDLE: Duration = Duration::from_secs(5);
/// A source that ended stays for at least this long: what it wrote last may not be seen yet.
const SETTLE: Duration = Duration::from_secs(2);
/// Sources that are gone wait this long to be taken out together: nothing depends on it.
const REMOVAL_DELAY: Duration = Duration::from_secs(2);
/// Between two offers is at least the time that the first took, but not more than this.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// After an offer without an answer, or an error of the store.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often what is over is forgotten.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// How long sources that are gone are remembered.
const GONE_KEPT: Duration = Duration::from_secs(3_600);

/// Limits that tests make smaller.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A source that ended is let go after this long, whatever is left of it.
    pub drain_max: Duration,
    /// See [`SETTLE`].
    pub settle: Duration,
    /// See [`REMOVAL_DELAY`].
    pub removal_delay: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            drain_max: Duration::from_secs(24 * 3_600),
            settle: SETTLE,
            removal_delay: REMOVAL_DELAY,
        }
    }
}

/// What the loop works with.
pub struct Parts {
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Events, for [`CONSUMER`].
    pub events: Box<dyn Subscription>,
    /// Everything but the sources.
    pub base: Base,
    /// Who is offered what comes of it.
    pub agent: Box<dyn AgentPort>,
    /// What is counted.
    pub metrics: Metrics,
    /// Wall time, ns since the epoch.
    pub wall: fn() -> i64,
    /// See [`Limits`].
    pub limits: Limits,
}

/// What an agent is to begin with: the sources that are kept, as an offer would have them.
///
/// # Errors
/// They cannot be read.
pub fn initial(store: &dyn Store, base: &Base) -> Result<Rendered, StoreError> {
    let sources = store.sources()?;
    let known = sources.iter().filter(|s| s.state != State::Gone);
    Ok(build(base, known.filter_map(|s| s.descriptor.as_ref())))
}

/// See the module's documentation.
pub struct Reconciler {
    p: Parts,
    registry: Registry,
    /// What is in force, as far as is known.
    in_force: Option<InForce>,
    /// Descriptors that the agent refused.
    quarantine: BTreeMap<String, (Digest, String)>,
    /// What was said of bad sources, so that it is said once.
    reported: BTreeMap<String, String>,
    /// When there is something to offer.
    offer_at: Option<Instant>,
    /// Not before.
    not_before: Instant,
    verify_at: Instant,
    /// How long until the next look, as nothing changes.
    verify_interval: Duration,
    prune_at: Instant,
    /// The key of the newest event that changed something.
    cause: String,
}

struct InForce {
    manifest: Digest,
    targets: Digest,
    sources: BTreeMap<String, Digest>,
}

impl Reconciler {
    /// Goes on with what is kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(parts: Parts) -> Result<Reconciler, StoreError> {
        let registry = Registry::new(parts.store.sources()?, parts.store.snapshots()?);
        let newest = parts.store.offers(1)?;
        let cause = newest.first().map(|o| o.manifest.cause.clone());
        let now = Instant::now();
        let reconciler = Reconciler {
            p: parts,
            registry,
            in_force: None,
            quarantine: BTreeMap::new(),
            reported: BTreeMap::new(),
            // What is in force is not known: it is offered, and if it is the same, nothing changes.
            offer_at: Some(now),
            not_before: now,
            verify_at: now,
            verify_interval: VERIFY_INTERVAL,
            prune_at: now + PRUNE_INTERVAL,
            cause: cause.unwrap_or_default(),
        };
        reconciler.count();
        Ok(reconciler)
    }

    /// Works until it is told to stop; who tells wakes the bus, too.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.turn();
        }
    }

    /// Waits for something to do, and does it.
    pub fn turn(&mut self) {
        let wait = self.due().saturating_duration_since(Instant::now());
        if let Err(error) = self.take_events(wait) {
            tracing::error!(%error, activity = Activity::UpsertRegistryRecord.name(), "events wait");
            self.p.metrics.failed(Activity::UpsertRegistryRecord);
            std::thread::park_timeout(RETRY_DELAY);
            return;
        }
        let now = Instant::now();
        if self.offer_at.is_some_and(|at| at <= now) && self.not_before <= now {
            self.p.metrics.did(Activity::ScheduleReconcile);
            self.reconcile();
        }
        if self.verify_at <= now {
            self.verify();
        }
        if self.prune_at <= now {
            self.prune_at = now + PRUNE_INTERVAL;
            self.prune();
        }
    }

    fn due(&self) -> Instant {
        let offer = self.offer_at.map(|at| at.max(self.not_before));
        let dues = [offer, Some(self.verify_at), Some(self.prune_at)];
        let first = dues.into_iter().flatten().min();
        first.unwrap_or_else(|| Instant::now() + IDLE)
    }

    /// Asks for an offer in so long, if none is due sooner.
    fn offer_in(&mut self, delay: Duration) {
        let at = Instant::now() + delay;
        self.offer_at = Some(self.offer_at.map_or(at, |due| due.min(at)));
    }

    fn take_events(&mut self, wait: Duration) -> Result<(), StoreError> {
        let batch = self.p.events.next(EVENTS_MAX, wait)?;
        if let Some(gap) = batch.gap {
            // Not with the events of a store, which keeps what a consumer has not had.
            tracing::error!("{gap}: what ended meanwhile stays until its origin is listed again");
            self.p.metrics.failed(Activity::UpsertRegistryRecord);
        }
        for recorded in batch.events {
            let changes = self.registry.reduce(&recorded.event, (self.p.wall)());
            let read = (self.p.events.consumer(), recorded.seq);
            // It stays unread if this fails, and the loop starts over from the store.
            if let Err(error) = self.p.store.apply(&changes, Some(read)) {
                self.reopen();
                return Err(error);
            }
            self.remark(&recorded.event);
            self.took(&changes, &recorded.key);
        }
        Ok(())
    }

    /// Says and counts what changes nothing.
    fn remark(&self, event: &Event) {
        let counts = event.origin().and_then(|o| self.p.metrics.sources(o));
        let Some(counts) = counts else {
            return;
        };
        match event {
            Event::Unreadable { id, reason, .. } => {
                tracing::warn!(source = id, "its logs cannot be read: {reason}");
                counts.unreadable.inc();
            }
            Event::Unheeded { id, reason, .. } => {
                tracing::warn!(source = id, "it is read all the same: {reason}");
                counts.unheeded.inc();
            }
            _ => {}
        }
    }

    /// Events that were not taken come again.
    fn reopen(&mut self) {
        let again = self.p.events.restart();
        if let Err(error) = again {
            tracing::error!(%error, "events cannot be read again");
        }
    }

    fn took(&mut self, changes: &Changes, key: &str) {
        if changes.is_empty() {
            return;
        }
        let before = self.wanted_of(changes);
        self.registry.take(changes);
        self.verify_interval = VERIFY_INTERVAL;
        for _ in &changes.sources {
            self.p.metrics.did(Activity::UpsertRegistryRecord);
        }
        for moved in &changes.history {
            tracing::debug!(
                activity = Activity::UpsertRegistryRecord.name(),
                source = moved.id,
                generation = moved.generation,
                from = moved.from.map(State::name),
                to = moved.to.name(),
                "{}",
                moved.reason
            );
        }
        if changes.history.iter().any(|m| m.to == State::Draining) {
            self.verify_at = self.verify_at.min(Instant::now() + VERIFY_INTERVAL);
        }
        let after = self.wanted_of(changes);
        if before != after {
            if !key.is_empty() {
                self.cause = key.to_owned();
            }
            let only_less = after.iter().all(|(id, d)| before.get(id) == Some(d));
            match only_less {
                true => self.offer_in(self.p.limits.removal_delay),
                false => self.offer_in(Duration::ZERO),
            }
        }
        self.count();
    }

    /// What is to be tailed: all but what is gone, and what the agent refused.
    fn wanted(&self) -> Vec<&Descriptor> {
        let rows = self.registry.sources().filter(|s| s.state != State::Gone);
        let described = rows.filter_map(|s| s.descriptor.as_ref());
        described.filter(|d| !self.is_quarantined(d)).collect()
    }

    fn is_quarantined(&self, descriptor: &Descriptor) -> bool {
        let known = self.quarantine.get(&descriptor.id);
        known.is_some_and(|(digest, _)| *digest == descriptor.digest())
    }

    /// How each of the sources that changes are about is to be tailed; those that are not to be are left out.
    fn wanted_of(&self, changes: &Changes) -> BTreeMap<String, Digest> {
        let rows = changes.sources.iter();
        let known = rows.filter_map(|s| self.registry.source(&s.id));
        let wanted = known.filter(|s| s.state != State::Gone);
        let described = wanted.filter_map(|s| s.descriptor.as_ref());
        let good = described.filter(|d| !self.is_quarantined(d));
        good.map(|d| (d.id.clone(), d.digest())).collect()
    }

    fn render(&self, wanted: &[&Descriptor]) -> Rendered {
        let rendered = build(&self.p.base, wanted.iter().copied());
        self.p.metrics.did(Activity::BuildConfig);
        for _ in &rendered.sources {
            self.p.metrics.did(Activity::RenderConfig);
        }
        for _ in &rendered.refused {
            self.p.metrics.failed(Activity::RenderConfig);
        }
        rendered
    }

    /// Brings the agent in line with the registry.
    fn reconcile(&mut self) {
        self.offer_at = None;
        let begin = Instant::now();
        let rendered = self.render(&self.wanted());
        self.report_refused(&rendered);
        if self.in_force.as_ref().map(|f| &f.targets) == Some(&rendered.digest) {
            return;
        }
        match self.offer(&rendered) {
            Ok(Answer::Applied(changes)) => {
                self.applied(&rendered, &changes, begin.elapsed());
            }
            Ok(Answer::Refused(reasons)) => {
                self.p.metrics.failed(Activity::PushConfig);
                self.isolate(&rendered, &reasons);
            }
            Err(error) => {
                self.p.metrics.failed(Activity::PushConfig);
                tracing::error!(
                    activity = Activity::PushConfig.name(),
                    "{error}; it is offered again"
                );
                self.in_force = None;
                self.offer_in(RETRY_DELAY);
            }
        }
        self.not_before = Instant::now() + begin.elapsed().min(PAUSE_MAX);
        self.count();
    }

    fn manifest(&self, rendered: &Rendered) -> Manifest {
        Manifest {
            schema: SCHEMA,
            builder: BUILDER.to_owned(),
            pipeline: self.p.base.digest().clone(),
            targets: rendered.digest.clone(),
            generations: self.registry.generations(),
            cause: self.cause.clone(),
            parent: self.in_force.as_ref().map(|f| f.manifest.clone()),
        }
    }

    /// Keeps it, then offers it, and keeps the answer.
    fn offer(&mut self, rendered: &Rendered) -> Result<Answer, Silent> {
        let manifest = self.manifest(rendered);
        let base = &self.p.base;
        let kept = self
            .p
            .store
            .put_artefact("pipeline", base.digest(), base.text())
            .and_then(|()| {
                let store = &self.p.store;
                store.put_artefact("targets", &rendered.digest, &rendered.targets)
            });
        match kept {
            Ok(()) => self.p.metrics.did(Activity::StoreConfigArtifact),
            // What is not kept is not offered.
            Err(error) => {
                self.p.metrics.failed(Activity::StoreConfigArtifact);
                return Err(Silent(format!("it was not asked, as {error}")));
            }
        }
        let answer = self.p.agent.offer(&manifest, &rendered.targets)?;
        let (applied, text) = match &answer {
            Answer::Applied(changes) => (true, changes.join("; ")),
            Answer::Refused(reasons) => (false, reasons.join("; ")),
        };
        let offered = Offered {
            manifest,
            applied,
            answer: text,
        };
        if let Err(error) = self.p.store.record_offer(&offered, (self.p.wall)()) {
            tracing::warn!(%error, "an offer is not in the history");
        }
        Ok(answer)
    }

    fn applied(&mut self, rendered: &Rendered, changes: &[String], took: Duration) {
        self.p.metrics.did(Activity::PushConfig);
        let before = self.in_force.take().map(|f| f.sources).unwrap_or_default();
        for id in rendered
            .sources
            .keys()
            .filter(|id| !before.contains_key(*id))
        {
            self.p.metrics.did(Activity::RegisterService);
            tracing::info!(
                activity = Activity::RegisterService.name(),
                source = id,
                labels = self.labels(id),
                "it is tailed"
            );
        }
        for id in before
            .keys()
            .filter(|id| !rendered.sources.contains_key(*id))
        {
            self.p.metrics.did(Activity::DeregisterService);
            tracing::info!(
                activity = Activity::DeregisterService.name(),
                source = id,
                "it is not tailed any more"
            );
        }
        let manifest = self.manifest(rendered);
        tracing::info!(
            activity = Activity::PushConfig.name(),
            targets = rendered.digest.short(),
            sources = rendered.sources.len(),
            took_ms = took.as_secs_f64() * 1e3,
            ?changes,
            "in force"
        );
        self.in_force = Some(InForce {
            manifest: manifest.digest(),
            targets: rendered.digest.clone(),
            sources: rendered.sources.clone(),
        });
        (self.verify_at, self.verify_interval) = (Instant::now(), VERIFY_INTERVAL);
    }

    fn labels(&self, id: &str) -> String {
        let descriptor = self.registry.source(id).and_then(|s| s.descriptor.as_ref());
        let labels = descriptor.into_iter().flat_map(|d| &d.labels);
        let labels: Vec<String> = labels.map(|(k, v)| format!("{k}={v}")).collect();
        labels.join(" ")
    }

    /// After a refusal: finds which of the sources that are new or changed it is about, one by one, and leaves
    /// these out. What was in force stays until the rest is offered.
    fn isolate(&mut self, rendered: &Rendered, reasons: &[String]) {
        for reason in reasons {
            tracing::error!(activity = Activity::PushConfig.name(), "refused: {reason}");
        }
        let before = self.in_force.as_ref().map(|f| f.sources.clone());
        let before = before.unwrap_or_default();
        let suspects: BTreeSet<String> = rendered
            .sources
            .iter()
            .filter(|(id, digest)| before.get(*id) != Some(*digest))
            .map(|(id, _)| id.clone())
            .collect();
        let innocent: Vec<Descriptor> = self
            .wanted()
            .into_iter()
            .filter(|d| !suspects.contains(&d.id))
            .cloned()
            .collect();
        let mut found = Vec::new();
        for id in &suspects {
            let Some(suspect) = self.registry.source(id).and_then(|s| s.descriptor.clone()) else {
                continue;
            };
            let alone = build(&self.p.base, innocent.iter().chain([&suspect]));
            match self.p.agent.validate(&alone.targets) {
                Ok(Answer::Applied(_)) => self.p.metrics.did(Activity::ValidateConfig),
                Ok(Answer::Refused(reasons)) => {
                    self.p.metrics.failed(Activity::ValidateConfig);
                    found.push((suspect, reasons.join("; ")));
                }
                Err(error) => {
                    tracing::error!(activity = Activity::ValidateConfig.name(), "{error}");
                    self.offer_in(RETRY_DELAY);
                    return;
                }
            }
        }
        if found.is_empty() {
            // It is none of them: the base, or something of the machine.
            tracing::error!(
                activity = Activity::PushConfig.name(),
                "it is about none of the sources; it is offered again"
            );
            self.offer_in(PRUNE_INTERVAL);
            return;
        }
        for (suspect, reason) in found {
            tracing::error!(source = suspect.id, "it is left out: {reason}");
            let digest = suspect.digest();
            self.quarantine.insert(suspect.id, (digest, reason));
        }
        self.offer_in(Duration::ZERO);
    }

    /// Says what could not be rendered, once for each reason.
    fn report_refused(&mut self, rendered: &Rendered) {
        for (id, reason) in &rendered.refused {
            if self.reported.get(id) != Some(reason) {
                tracing::error!(
                    activity = Activity::RenderConfig.name(),
                    source = id,
                    "it is left out: {reason}"
                );
            }
        }
        self.reported = rendered.refused.clone();
    }

    /// Shows how many sources there are of each kind.
    fn count(&self) {
        for origin in Origin::ALL {
            let Some(counts) = self.p.metrics.sources(origin) else {
                continue;
            };
            let of_origin = || self.registry.sources().filter(move |s| s.origin == origin);
            let count = |state| of_origin().filter(|s| s.state == state).count() as i64;
            counts.starting.set(count(State::Starting));
            counts.live.set(count(State::Live));
            counts.draining.set(count(State::Draining));
            let bad = of_origin().filter(|s| {
                let quarantined = s
                    .descriptor
                    .as_ref()
                    .is_some_and(|d| self.is_quarantined(d));
                s.state != State::Gone && (quarantined || self.reported.contains_key(&s.id))
            });
            counts.quarantined.set(bad.count() as i64);
        }
    }

    fn prune(&mut self) {
        let keep = Retention {
            events: 10_000,
            history: 10_000,
            offers: 100,
            gone_before_ns: (self.p.wall)().saturating_sub(GONE_KEPT.as_nanos() as i64),
        };
        match self.p.store.prune(&keep) {
            Ok(forgotten) => {
                self.registry.forget(&forgotten);
                let known = |id: &String| self.registry.source(id).is_some();
                self.quarantine.retain(|id, _| known(id));
            }
            Err(error) => tracing::warn!(%error, "what is over is still kept"),
        }
    }
}
