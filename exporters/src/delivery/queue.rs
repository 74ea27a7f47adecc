//! The delivery state machine: no I/O, no clock, no threads.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{DropReason, Outcome};

use super::backoff::Backoff;
use super::gate::Gate;
use super::options::{QueueOptions, RetryOptions};
use super::request::{Duty, OutgoingRequest};
use super::slots::{Phase, Slot, SlotId, Slots};
use super::stats::DeliveryStats;
use super::tenants::Tenants;
use super::verdict::{RetryScope, Verdict};

/// How often a request may be replaced by parts of it before it is given up: more halvings than
/// any request has bytes, so only a judge that never ends gets here.
const REPLACE_DEPTH_MAX: u32 = 64;

/// Longest wait that a destination may ask for: a broken or hostile answer must not stop delivery.
const THROTTLE_MAX: Duration = Duration::from_secs(15 * 60);

/// One attempt to send a request. It must be handed back with [`DeliveryQueue::on_result`];
/// until then it occupies its lanes.
#[derive(Debug)]
#[must_use = "an attempt that is not handed back holds its lanes for ever"]
pub struct Attempt<D> {
    /// The request.
    pub request: OutgoingRequest<D>,
    id: SlotId,
    tenant_epoch: u32,
    destination_epoch: u32,
}

/// What the queue did with a result, for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Settled; all or some of it was accepted.
    Delivered,
    /// Will be sent again.
    RetryIn(Duration),
    /// Waits until a person acts; tried again after this time.
    Held(Duration),
    /// Parts of it took its place.
    Replaced,
    /// Settled; given up.
    Dropped(DropReason),
    /// Handed back to its source, as the queue is draining.
    Returned,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Request(SlotId),
    Tenant(u32),
}

/// Finished requests on their way to one destination. See the module's documentation for the
/// rules. All times are those of one monotonic clock.
pub struct DeliveryQueue<D> {
    pub(super) slots: Slots<D>,
    pub(super) tenants: Tenants,
    pub(super) destination: Gate,
    pub(super) timers: BinaryHeap<Reverse<(Mono, Timer)>>,
    pub(super) backoff: Backoff,
    pub(super) retry: RetryOptions,
    pub(super) queue: QueueOptions,
    pub(super) stats: Arc<DeliveryStats>,
    in_flight: usize,
    pub(super) items: u64,
    pub(super) bytes: u64,
    next_key: u64,
    /// First failures since the last sign of life, see [`RetryScope::Request`].
    pub(super) streak: usize,
    pub(super) draining: bool,
    /// Requests that came, or whose time has come, see [`Self::divide_waiting`].
    pub(super) crowded: Vec<SlotId>,
    /// Since when there was something to send and nothing was settled.
    waiting_since: Option<Mono>,
}

impl<D: Duty> DeliveryQueue<D> {
    /// An empty queue; `seed` determines the jitter.
    pub fn new(queue: QueueOptions, retry: RetryOptions, seed: u64) -> DeliveryQueue<D> {
        DeliveryQueue {
            slots: Slots::new(),
            tenants: Tenants::new(),
            destination: Gate::default(),
            timers: BinaryHeap::new(),
            backoff: Backoff::new(&retry, seed),
            retry,
            queue,
            stats: Arc::default(),
            in_flight: 0,
            items: 0,
            bytes: 0,
            next_key: 0,
            streak: 0,
            draining: false,
            crowded: Vec::new(),
            waiting_since: None,
        }
    }

    /// The queue's counters.
    pub fn stats(&self) -> &Arc<DeliveryStats> {
        &self.stats
    }

    /// Takes a request. Never refuses: who submits asks [`Self::load`] before reading more. A
    /// queue that drains hands the request back at once.
    pub fn submit(&mut self, now: Mono, request: OutgoingRequest<D>) {
        if self.draining {
            self.stats.returned_items.fetch_add(request.items, Relaxed);
            request.duty.resolve(Outcome::Retry);
            return;
        }
        if request.items == 0 && request.body.is_empty() {
            request.duty.resolve(Outcome::Delivered);
            return;
        }
        self.waiting_since.get_or_insert(now);
        let several = request.lanes.len() > 1;
        let slot = self.admit(request);
        let id = self.slots.append(slot);
        if several {
            self.crowded.push(id);
        }
        self.make_ready(id);
        self.publish();
    }

    /// Accounts for a request and makes a slot for it.
    pub(super) fn admit(&mut self, request: OutgoingRequest<D>) -> Slot<D> {
        let tenant = self.tenants.enter(&request.tenant);
        let bytes = request.body_bytes() as u64;
        self.items += request.items;
        self.bytes += bytes;
        Slot::new(request, tenant, self.take_key(), bytes)
    }

    pub(super) fn take_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Lists a request if its phase is ready.
    pub(super) fn make_ready(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get(id) else {
            return;
        };
        if slot.phase() == Phase::Ready {
            let (tenant, key) = (slot.tenant, slot.key);
            self.tenants.push_ready(tenant, key, id);
        }
    }

    /// The next attempt to make now, if any. To be called until it returns `None`.
    pub fn next_to_send(&mut self, now: Mono) -> Option<Attempt<D>> {
        self.fire(now);
        let free = self.in_flight < self.queue.in_flight_max();
        if !free || !self.destination.admits(self.in_flight) {
            return None;
        }
        while let Some(id) = self.tenants.pop_ready(self.tenant_in_flight_max()) {
            if let Some(attempt) = self.begin(now, id) {
                return Some(attempt);
            }
        }
        None
    }

    /// One place is kept free of any single tenant once there were others.
    fn tenant_in_flight_max(&self) -> usize {
        let all = self.queue.in_flight_max();
        if self.tenants.several() {
            all.saturating_sub(1).max(1)
        } else {
            all
        }
    }

    fn begin(&mut self, now: Mono, id: SlotId) -> Option<Attempt<D>> {
        let slot = self.slots.get_mut(id)?;
        if slot.phase() != Phase::Ready {
            return None;
        }
        let request = slot.request.take()?;
        slot.first_attempt.get_or_insert(now);
        let tenant_index = slot.tenant;
        self.slots.set_phase(id, Phase::InFlight);
        let mut tenant_epoch = 0;
        if let Some(tenant) = self.tenants.get_mut(tenant_index) {
            tenant.in_flight += 1;
            tenant_epoch = tenant.gate.epoch();
        }
        self.in_flight += 1;
        self.publish();
        let destination_epoch = self.destination.epoch();
        Some(Attempt {
            request,
            id,
            tenant_epoch,
            destination_epoch,
        })
    }

    /// Lets go what waited for a time that has come.
    pub(super) fn fire(&mut self, now: Mono) {
        self.destination.refresh(now);
        while let Some(Reverse((due, timer))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            match timer {
                Timer::Request(id) => {
                    let phase = self.slots.get(id).map(Slot::phase);
                    if phase == Some(Phase::Backoff(due)) {
                        self.slots.set_phase(id, Phase::Ready);
                        self.crowded.push(id);
                        self.make_ready(id);
                    }
                }
                Timer::Tenant(index) => {
                    let ended = self
                        .tenants
                        .get_mut(index)
                        .is_some_and(|t| t.gate.refresh(now));
                    if ended {
                        self.stats.paused_tenants.fetch_sub(1, Relaxed);
                        self.tenants.list(index);
                        self.tenants.forget_idle(index);
                    }
                }
            }
        }
    }

    /// When [`Self::next_to_send`] should be called again if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<Mono> {
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let pause = self
            .destination
            .paused_until()
            .filter(|_| self.tenants.any_listed());
        match (timer, pause) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes back an attempt with what the answer meant.
    pub fn on_result(&mut self, now: Mono, attempt: Attempt<D>, verdict: Verdict<D>) -> Decision {
        let Attempt {
            request,
            id,
            tenant_epoch,
            destination_epoch,
        } = attempt;
        let Some(slot) = self.slots.get_mut(id) else {
            // Attempts come only from `begin`, and a slot in flight is never removed.
            request.duty.resolve(Outcome::Retry);
            return Decision::Returned;
        };
        let tenant_index = slot.tenant;
        self.in_flight -= 1;
        if let Some(tenant) = self.tenants.get_mut(tenant_index) {
            tenant.in_flight -= 1;
        }
        let epochs = (tenant_epoch, destination_epoch);
        self.note(tenant_index, epochs, &verdict);
        let decision = match verdict {
            Verdict::Delivered => self.deliver(id, request, &[]),
            Verdict::DeliveredExcept { dropped } => self.deliver(id, request, &dropped),
            Verdict::Drop { reason, .. } => self.give_up(id, request, reason),
            Verdict::Replace { parts, dropped } => self.replace(id, request, parts, dropped),
            Verdict::Retry { scope, after, .. } => {
                let after = after.map(|asked| asked.min(THROTTLE_MAX));
                self.retry(now, id, request, epochs, scope, after)
            }
            Verdict::Hold { scope, wait, cause } => {
                self.stats.set_alarm(Some(cause));
                self.hold(now, id, request, epochs, scope, wait)
            }
        };
        self.waiting_since = match decision {
            _ if self.slots.len() == 0 => None,
            Decision::RetryIn(_) | Decision::Held(_) => self.waiting_since.or(Some(now)),
            _ => Some(now),
        };
        self.tenants.list(tenant_index);
        self.publish();
        decision
    }

    /// What an answer says about the tenant and the destination as such, if it was a good sign.
    fn note(&mut self, tenant: u32, epochs: (u32, u32), verdict: &Verdict<D>) {
        let (tenant_ok, destination_ok) = match verdict {
            Verdict::Delivered | Verdict::DeliveredExcept { .. } | Verdict::Drop { .. } => {
                (true, true)
            }
            // It may have been the tenant's limit that a part will be under, or not.
            Verdict::Replace { .. } => (false, true),
            Verdict::Retry { scope, .. } | Verdict::Hold { scope, .. } => {
                self.stats.failed_attempts.fetch_add(1, Relaxed);
                let lanes = *scope == RetryScope::Lanes;
                (lanes, lanes || *scope == RetryScope::Tenant)
            }
        };
        if matches!(
            verdict,
            Verdict::Delivered | Verdict::DeliveredExcept { .. }
        ) {
            self.stats.set_alarm(None);
        }
        if destination_ok {
            self.streak = 0;
            self.destination.succeeded(epochs.1);
        }
        if tenant_ok && let Some(t) = self.tenants.get_mut(tenant) {
            t.gate.succeeded(epochs.0);
        }
    }

    fn deliver(
        &mut self,
        id: SlotId,
        mut request: OutgoingRequest<D>,
        dropped: &[(DropReason, u64)],
    ) -> Decision {
        let mut accepted = request.items;
        for &(reason, n) in dropped {
            let n = n.min(accepted);
            accepted -= n;
            request.duty.count_dropped(reason, n);
            self.stats.add_dropped(&[(reason, n)]);
        }
        self.stats.sent_items.fetch_add(accepted, Relaxed);
        self.stats.sent_requests.fetch_add(1, Relaxed);
        self.stats
            .sent_bytes
            .fetch_add(request.body_bytes() as u64, Relaxed);
        self.remove(id, request, Outcome::Delivered);
        Decision::Delivered
    }

    pub(super) fn give_up(
        &mut self,
        id: SlotId,
        mut request: OutgoingRequest<D>,
        reason: DropReason,
    ) -> Decision {
        request.duty.count_dropped(reason, request.items);
        self.stats.add_dropped(&[(reason, request.items)]);
        self.remove(id, request, Outcome::Refused);
        Decision::Dropped(reason)
    }

    /// Settles a request and lets those go who waited for it only.
    fn remove(&mut self, id: SlotId, request: OutgoingRequest<D>, outcome: Outcome) {
        let Some((slot, followers)) = self.slots.remove(id, &request.lanes) else {
            return;
        };
        self.release(&slot);
        request.duty.resolve(outcome);
        for (_, follower) in followers {
            self.unblock(follower);
        }
    }

    /// One lane in front of a request is free.
    fn unblock(&mut self, id: SlotId) {
        if self.slots.unblock(id) {
            self.make_ready(id);
        }
    }

    /// Takes a removed slot out of the totals.
    pub(super) fn release(&mut self, slot: &Slot<D>) {
        self.items -= slot.items;
        self.bytes -= slot.bytes;
        self.tenants.leave(slot.tenant);
    }

    fn replace(
        &mut self,
        id: SlotId,
        mut request: OutgoingRequest<D>,
        parts: Vec<OutgoingRequest<D>>,
        mut dropped: Vec<(DropReason, u64)>,
    ) -> Decision {
        let depth = self.slots.get(id).map_or(0, |s| s.depth) + 1;
        if depth > REPLACE_DEPTH_MAX {
            for part in parts {
                part.duty.resolve(Outcome::Refused);
            }
            return self.give_up(id, request, DropReason::Rejected);
        }
        let named = dropped.iter().map(|d| d.1).sum::<u64>();
        let kept = parts.iter().map(|p| p.items).sum::<u64>();
        if named + kept < request.items {
            // Records that the judge left out are gone; the books must say so.
            dropped.push((DropReason::Rejected, request.items - named - kept));
        }
        for &(reason, n) in &dropped {
            request.duty.count_dropped(reason, n);
        }
        self.stats.add_dropped(&dropped);
        let Some((old, followers)) = self.slots.remove(id, &request.lanes) else {
            return Decision::Returned;
        };
        let parts = parts
            .into_iter()
            .map(|part| self.admit_part(part, &old, &request))
            .collect();
        self.release(&old);
        let (ids, freed) = self.slots.splice(&request.lanes, parts, followers);
        request.duty.resolve(Outcome::Delivered);
        for follower in freed {
            self.unblock(follower);
        }
        for id in ids {
            self.make_ready(id);
        }
        Decision::Replaced
    }

    /// A slot for a part that takes the place of `old`, which held `whole`.
    fn admit_part(
        &mut self,
        mut part: OutgoingRequest<D>,
        old: &Slot<D>,
        whole: &OutgoingRequest<D>,
    ) -> Slot<D> {
        let inside = part
            .lanes
            .iter()
            .all(|l| whole.lanes.binary_search(l).is_ok());
        if !inside {
            part.lanes.clone_from(&whole.lanes);
        }
        let mut slot = self.admit(part);
        slot.key = old.key;
        slot.first_attempt = old.first_attempt;
        slot.depth = old.depth + 1;
        slot
    }

    /// Requests that are not settled.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True if every request was settled.
    pub fn is_empty(&self) -> bool {
        self.slots.len() == 0
    }

    /// For how long there has been something to send while nothing was settled.
    pub fn stalled_for(&self, now: Mono) -> Duration {
        self.waiting_since
            .map_or(Duration::ZERO, |since| now.since(since))
    }

    pub(super) fn publish(&self) {
        self.stats
            .in_flight_requests
            .store(self.in_flight as u64, Relaxed);
        self.stats
            .queue_requests
            .store(self.slots.len() as u64, Relaxed);
        self.stats.queue_items.store(self.items, Relaxed);
        self.stats.queue_bytes.store(self.bytes, Relaxed);
    }
}
