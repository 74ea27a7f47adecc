//! Draining: the end of a queue.

use std::sync::atomic::Ordering::Relaxed;

use tailwater_pipeline::Outcome;
use tailwater_pipeline::clock::Mono;

use super::queue::{Decision, DeliveryQueue};
use super::request::{Duty, OutgoingRequest};
use super::slots::{Phase, SlotId};

/// Draining. What cannot be sent at once goes back to its source, which offers it again after the
/// restart; whatever shares a lane with it goes back too, so that no lane is delivered with a gap.
impl<D: Duty> DeliveryQueue<D> {
    /// Stops taking requests and hands back what waits in a backoff or behind a pause. The rest
    /// gets one attempt each. Returns the records handed back.
    pub fn drain(&mut self, now: Mono) -> u64 {
        self.draining = true;
        self.fire(now);
        self.return_waiting()
    }

    /// Hands back everything that is not under way. Returns the records handed back.
    pub fn abandon(&mut self) -> u64 {
        self.draining = true;
        let ids = self.slots.ids();
        self.return_these(ids)
    }

    fn return_waiting(&mut self) -> u64 {
        let all = self.destination.paused_until().is_some();
        let tenants = &self.tenants;
        let paused: Vec<SlotId> = self
            .slots
            .ids()
            .into_iter()
            .filter(|id| {
                let Some(slot) = self.slots.get(*id) else {
                    return false;
                };
                let gate = tenants.get(slot.tenant).map(|t| &t.gate);
                let pause = gate.is_some_and(|g| g.paused_until().is_some());
                all || pause || matches!(slot.phase(), Phase::Backoff(_))
            })
            .collect();
        self.return_these(paused)
    }

    /// Hands back `ids` and all that waits for them; what is under way stays.
    fn return_these(&mut self, mut ids: Vec<SlotId>) -> u64 {
        let mut returned = 0;
        while let Some(id) = ids.pop() {
            let taken = self.slots.get_mut(id).and_then(|slot| slot.request.take());
            let Some(request) = taken else { continue };
            let Some((slot, followers)) = self.slots.remove(id, &request.lanes) else {
                continue;
            };
            self.release(&slot);
            returned += slot.items;
            request.duty.resolve(Outcome::Retry);
            ids.extend(followers.into_iter().map(|(_, follower)| follower));
        }
        self.stats.returned_items.fetch_add(returned, Relaxed);
        self.publish();
        returned
    }

    /// Hands back a request that failed while draining, and what now waits behind a pause.
    pub(super) fn hand_back(&mut self, id: SlotId, request: OutgoingRequest<D>) -> Decision {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.request = Some(request);
        }
        self.return_these(vec![id]);
        self.return_waiting();
        Decision::Returned
    }
}
