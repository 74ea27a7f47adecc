//! What the queue does with a request that was not accepted but may be later.

use std::cmp::Reverse;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tailwater_pipeline::DropReason;
use tailwater_pipeline::clock::Mono;

use super::backoff::Backoff;
use super::gate::Gate;
use super::queue::{Decision, DeliveryQueue, Timer};
use super::request::{Duty, OutgoingRequest};
use super::slots::{Phase, SlotId};
use super::verdict::RetryScope;

/// Shortest wait of something that is held until a person acts.
const HOLD_SECONDS_MIN: u64 = 30;

impl<D: Duty> DeliveryQueue<D> {
    pub(super) fn retry(
        &mut self,
        now: Mono,
        id: SlotId,
        request: OutgoingRequest<D>,
        epochs: (u32, u32),
        scope: RetryScope,
        after: Option<Duration>,
    ) -> Decision {
        if !self.retry.enabled {
            return self.give_up(id, request, DropReason::RetriesExhausted);
        }
        let (failures, first) = match self.slots.get(id) {
            Some(s) => (s.failures, s.first_attempt.unwrap_or(now)),
            None => (0, now),
        };
        let scope_now = self.widen(scope, failures);
        let pause = match scope_now {
            RetryScope::Request | RetryScope::Lanes => Duration::ZERO,
            RetryScope::Tenant => self.pause_tenant(id, |gate, backoff| {
                gate.failed(now, epochs.0, backoff, after)
            }),
            RetryScope::Destination => {
                self.destination
                    .failed(now, epochs.1, &mut self.backoff, after)
            }
        };
        if self.draining {
            return self.hand_back(id, request);
        }
        // A request of a paused tenant or destination waits with all others, behind them.
        let own = if scope == RetryScope::Request || pause.is_zero() {
            self.backoff.wait(failures, after)
        } else {
            Duration::ZERO
        };
        let wait = pause.max(own);
        let longest = self.retry.max_elapsed_time;
        if !longest.is_zero() && now.after(wait).since(first) > longest {
            return self.give_up(id, request, DropReason::RetriesExhausted);
        }
        self.stats.retried_requests.fetch_add(1, Relaxed);
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.stats.backoff_nanos.fetch_add(nanos, Relaxed);
        self.put_back(now, id, request, now.after(own));
        Decision::RetryIn(wait)
    }

    /// Failures that seem to be of single requests concern the destination if nothing gets
    /// through any more, or if it is on probation.
    fn widen(&mut self, scope: RetryScope, failures: u32) -> RetryScope {
        if scope != RetryScope::Request {
            return scope;
        }
        if failures == 0 {
            self.streak += 1;
        }
        if self.streak >= self.queue.in_flight_max().max(3) || !self.destination.is_open() {
            return RetryScope::Destination;
        }
        scope
    }

    /// Pauses the tenant of a request by `set` and makes sure that the end of the pause is seen.
    fn pause_tenant(
        &mut self,
        id: SlotId,
        set: impl FnOnce(&mut Gate, &mut Backoff) -> Duration,
    ) -> Duration {
        let Some(index) = self.slots.get(id).map(|s| s.tenant) else {
            return Duration::ZERO;
        };
        let Some(tenant) = self.tenants.get_mut(index) else {
            return Duration::ZERO;
        };
        let was = tenant.gate.paused_until();
        let wait = set(&mut tenant.gate, &mut self.backoff);
        let is = tenant.gate.paused_until();
        if was.is_none() && is.is_some() {
            self.stats.paused_tenants.fetch_add(1, Relaxed);
        }
        if let Some(until) = is
            && was != is
        {
            self.timers.push(Reverse((until, Timer::Tenant(index))));
        }
        wait
    }

    /// Puts a request that failed behind the others that are ready, from `due` on.
    fn put_back(&mut self, now: Mono, id: SlotId, request: OutgoingRequest<D>, due: Mono) {
        let key = self.take_key();
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        slot.request = Some(request);
        slot.failures = slot.failures.saturating_add(1);
        slot.key = key;
        if due > now {
            self.slots.set_phase(id, Phase::Backoff(due));
            self.timers.push(Reverse((due, Timer::Request(id))));
        } else {
            self.slots.set_phase(id, Phase::Ready);
            self.make_ready(id);
        }
    }

    pub(super) fn hold(
        &mut self,
        now: Mono,
        id: SlotId,
        request: OutgoingRequest<D>,
        epochs: (u32, u32),
        scope: RetryScope,
        wait: Option<Duration>,
    ) -> Decision {
        let longest = self.retry.max_interval;
        let wait = wait.unwrap_or(longest.max(Duration::from_secs(HOLD_SECONDS_MIN)));
        let pause = match scope {
            RetryScope::Request | RetryScope::Lanes => Duration::ZERO,
            RetryScope::Tenant => self.pause_tenant(id, |gate, _| gate.hold(now, epochs.0, wait)),
            RetryScope::Destination => self.destination.hold(now, epochs.1, wait),
        };
        if self.draining {
            return self.hand_back(id, request);
        }
        let due = if pause.is_zero() {
            now.after(wait)
        } else {
            now
        };
        self.put_back(now, id, request, due);
        Decision::Held(pause.max(due.since(now)))
    }
}
