//! Requests that wait with a stream that is refused by itself, though other streams of theirs
//! could go on.
//!
//! A stream that its destination does not take waits in a request of its own. Requests that were
//! made before that was known hold it together with other streams, and would keep all of them
//! waiting. They are divided while they wait.

use tailwater_pipeline::Outcome;
use tailwater_pipeline::clock::Mono;

use super::queue::DeliveryQueue;
use super::request::{Duty, OutgoingRequest};
use super::slots::{Phase, SlotId};

impl<D: Duty> DeliveryQueue<D> {
    /// Offers requests that wait at `now` and have several lanes to `divide`: `all` of them, or those that
    /// came since the last call, or whose time has come. It returns what is to stand in the place of one, in
    /// order, each lane in exactly one part; nothing, to leave it as it is.
    pub fn divide_waiting(
        &mut self,
        now: Mono,
        all: bool,
        mut divide: impl FnMut(&mut OutgoingRequest<D>) -> Vec<OutgoingRequest<D>>,
    ) {
        self.fire(now);
        let new = std::mem::take(&mut self.crowded);
        let ids = if all { self.slots.ids() } else { new };
        for id in ids {
            let Some(mut request) = self.take_crowded(id) else {
                continue;
            };
            let parts = divide(&mut request);
            self.put_divided(id, request, parts);
        }
        self.publish();
    }

    /// Takes a request with several lanes that waits for others, or for its turn, out of its slot.
    fn take_crowded(&mut self, id: SlotId) -> Option<OutgoingRequest<D>> {
        let slot = self.slots.get_mut(id)?;
        let waits = matches!(slot.phase(), Phase::Blocked(_) | Phase::Ready);
        slot.request.take_if(|r| waits && r.lanes.len() > 1)
    }

    fn put_divided(
        &mut self,
        id: SlotId,
        request: OutgoingRequest<D>,
        parts: Vec<OutgoingRequest<D>>,
    ) {
        let mut lanes: Vec<u64> = parts.iter().flat_map(|p| p.lanes.clone()).collect();
        lanes.sort_unstable();
        let items = parts.iter().map(|p| p.items).sum::<u64>();
        let whole = lanes == request.lanes && items == request.items;
        let Some(old) = self.slots.get_mut(id).filter(|_| whole) else {
            // Left as it is; the shares of its duty say nothing.
            parts
                .into_iter()
                .for_each(|p| p.duty.resolve(Outcome::Delivered));
            if let Some(slot) = self.slots.get_mut(id) {
                slot.request = Some(request);
            }
            return;
        };
        let old = (old.key, old.first_attempt, old.depth);
        let parts = parts.into_iter().map(|part| {
            let mut slot = self.admit(part);
            (slot.key, slot.first_attempt, slot.depth) = old;
            slot
        });
        let parts = parts.collect();
        let (ids, old) = self.slots.divide(id, parts);
        if let Some(old) = old {
            self.release(&old);
        }
        request.duty.resolve(Outcome::Delivered);
        for id in ids {
            self.make_ready(id);
        }
    }
}
