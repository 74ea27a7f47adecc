//! The requests of a queue and what each of them waits for.
//!
//! Order within a lane is a chain: a request waits for the request that was last in each of its
//! lanes when it came. Submitting and finishing cost one map access per lane; nothing is searched.
//! What waits is summed up by tenant whenever that changes.

use foldhash::{HashMap, HashMapExt};
use tailwater_pipeline::clock::Mono;

use super::request::OutgoingRequest;

/// Names a slot while it is in use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct SlotId {
    index: u32,
    generation: u32,
}

/// Who waits for a request: one entry per lane.
pub(super) type Followers = Vec<(u64, SlotId)>;

/// What a request is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Waits for this many lanes.
    Blocked(u32),
    /// Could be sent.
    Ready,
    /// Under way; the request itself is with whoever sends it.
    InFlight,
    /// Waits for a time.
    Backoff(Mono),
}

impl Phase {
    /// It waits for something of its own, not for its turn.
    fn is_parked(self) -> bool {
        matches!(self, Phase::Backoff(_) | Phase::Blocked(_))
    }
}

/// Some requests of a queue.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Usage {
    pub requests: u64,
    pub items: u64,
    pub bytes: u64,
}

impl Usage {
    pub fn add(&mut self, other: Usage) {
        self.requests += other.requests;
        self.items += other.items;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Usage) {
        self.requests -= other.requests;
        self.items -= other.items;
        self.bytes -= other.bytes;
    }
}

/// The requests of one tenant.
#[derive(Clone, Copy, Default)]
pub(super) struct TenantUsage {
    pub all: Usage,
    /// Those that wait for a time or for another request.
    pub parked: Usage,
}

/// One request.
pub(super) struct Slot<D> {
    /// `None` while it is under way.
    pub request: Option<OutgoingRequest<D>>,
    phase: Phase,
    /// Place among the ready requests of its tenant.
    pub key: u64,
    pub tenant: u32,
    pub items: u64,
    pub bytes: u64,
    /// Attempts that failed.
    pub failures: u32,
    pub first_attempt: Option<Mono>,
    /// How many times it is the part of a replaced request.
    pub depth: u32,
    /// Who waits for it, per lane.
    followers: Followers,
}

impl<D> Slot<D> {
    pub fn new(request: OutgoingRequest<D>, tenant: u32, key: u64, bytes: u64) -> Slot<D> {
        let items = request.items;
        Slot {
            request: Some(request),
            phase: Phase::Ready,
            key,
            tenant,
            items,
            bytes,
            failures: 0,
            first_attempt: None,
            depth: 0,
            followers: Vec::new(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    fn usage(&self) -> Usage {
        Usage {
            requests: 1,
            items: self.items,
            bytes: self.bytes,
        }
    }
}

/// A slab of slots with the lanes between them.
pub(super) struct Slots<D> {
    entries: Vec<(u32, Option<Slot<D>>)>,
    free: Vec<u32>,
    /// The last request of every lane that has one.
    tails: HashMap<u64, SlotId>,
    /// By tenant, those that have requests.
    usage: HashMap<u32, TenantUsage>,
}

impl<D> Slots<D> {
    pub fn new() -> Slots<D> {
        Slots {
            entries: Vec::new(),
            free: Vec::new(),
            tails: HashMap::new(),
            usage: HashMap::new(),
        }
    }

    /// Tenants that have requests, and which.
    pub fn usage(&self) -> impl Iterator<Item = (u32, TenantUsage)> {
        self.usage.iter().map(|(tenant, usage)| (*tenant, *usage))
    }

    /// Changes what a request is doing.
    pub fn set_phase(&mut self, id: SlotId, phase: Phase) {
        let Some((generation, Some(slot))) = self.entries.get_mut(id.index as usize) else {
            return;
        };
        if *generation != id.generation {
            return;
        }
        let before = std::mem::replace(&mut slot.phase, phase);
        if before.is_parked() != phase.is_parked() {
            let parked = &mut self.usage.entry(slot.tenant).or_default().parked;
            if phase.is_parked() {
                parked.add(slot.usage());
            } else {
                parked.subtract(slot.usage());
            }
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn get(&self, id: SlotId) -> Option<&Slot<D>> {
        match self.entries.get(id.index as usize) {
            Some((generation, slot)) if *generation == id.generation => slot.as_ref(),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot<D>> {
        match self.entries.get_mut(id.index as usize) {
            Some((generation, slot)) if *generation == id.generation => slot.as_mut(),
            _ => None,
        }
    }

    /// All slots in use.
    pub fn ids(&self) -> Vec<SlotId> {
        let used = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, (_, slot))| slot.is_some());
        used.map(|(i, (generation, _))| SlotId {
            index: i as u32,
            generation: *generation,
        })
        .collect()
    }

    /// The slot is new: it is ready.
    fn store(&mut self, slot: Slot<D>) -> SlotId {
        let usage = self.usage.entry(slot.tenant).or_default();
        usage.all.add(slot.usage());
        if let Some(index) = self.free.pop() {
            let (generation, entry) = &mut self.entries[index as usize];
            *entry = Some(slot);
            return SlotId {
                index,
                generation: *generation,
            };
        }
        self.entries.push((0, Some(slot)));
        SlotId {
            index: (self.entries.len() - 1) as u32,
            generation: 0,
        }
    }

    /// Puts a request behind all requests that share a lane with it. It is ready if there is none.
    pub fn append(&mut self, slot: Slot<D>) -> SlotId {
        let lanes = slot
            .request
            .as_ref()
            .map(|r| r.lanes.clone())
            .unwrap_or_default();
        let id = self.store(slot);
        let mut blockers = 0;
        for lane in lanes {
            if let Some(before) = self.tails.insert(lane, id) {
                self.follow(before, lane, id);
                blockers += 1;
            }
        }
        self.block(id, blockers);
        id
    }

    fn follow(&mut self, before: SlotId, lane: u64, id: SlotId) {
        if let Some(slot) = self.get_mut(before) {
            slot.followers.push((lane, id));
        }
    }

    fn block(&mut self, id: SlotId, blockers: u32) {
        let phase = match blockers {
            0 => Phase::Ready,
            n => Phase::Blocked(n),
        };
        self.set_phase(id, phase);
    }

    /// Takes a request out that nothing is in front of. Returns it with those who waited for it,
    /// one entry per lane, their counts not yet lowered.
    pub fn remove(&mut self, id: SlotId, lanes: &[u64]) -> Option<(Slot<D>, Followers)> {
        for lane in lanes {
            if self.tails.get(lane) == Some(&id) {
                self.tails.remove(lane);
            }
        }
        let (generation, entry) = self.entries.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let mut slot = entry.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(id.index);
        if let Some(usage) = self.usage.get_mut(&slot.tenant) {
            usage.all.subtract(slot.usage());
            if slot.phase.is_parked() {
                usage.parked.subtract(slot.usage());
            }
            if usage.all == Usage::default() {
                self.usage.remove(&slot.tenant);
            }
        }
        let followers = std::mem::take(&mut slot.followers);
        Some((slot, followers))
    }

    /// One lane in front of a request became free. True if it was the last one.
    pub fn unblock(&mut self, id: SlotId) -> bool {
        match self.get(id).map(Slot::phase) {
            Some(Phase::Blocked(n)) => self.block(id, n.saturating_sub(1)),
            Some(_) => {}
            None => return false,
        }
        self.get(id).is_some_and(|s| s.phase == Phase::Ready)
    }

    /// Puts `parts` where a removed request with the lanes `lanes` and the given followers was.
    /// Every lane of a part must be one of `lanes`. Returns the new slots in order, and the
    /// followers (one entry per lane) that no part holds back.
    pub fn splice(
        &mut self,
        lanes: &[u64],
        parts: Vec<Slot<D>>,
        followers: Followers,
    ) -> (Vec<SlotId>, Vec<SlotId>) {
        let mut last: HashMap<u64, SlotId> = HashMap::new();
        let mut ids = Vec::with_capacity(parts.len());
        for part in parts {
            let part_lanes = part
                .request
                .as_ref()
                .map(|r| r.lanes.clone())
                .unwrap_or_default();
            let id = self.store(part);
            let mut blockers = 0;
            for lane in part_lanes {
                if let Some(before) = last.insert(lane, id) {
                    self.follow(before, lane, id);
                    blockers += 1;
                }
            }
            self.block(id, blockers);
            ids.push(id);
        }
        let mut freed = Vec::new();
        let mut followed: HashMap<u64, ()> = HashMap::new();
        for (lane, follower) in followers {
            followed.insert(lane, ());
            match last.get(&lane) {
                Some(&part) => self.follow(part, lane, follower),
                None => freed.push(follower),
            }
        }
        for lane in lanes {
            if let (Some(&part), false) = (last.get(lane), followed.contains_key(lane)) {
                self.tails.insert(*lane, part);
            }
        }
        (ids, freed)
    }

    /// Puts `parts` where a request that waits for others was; each of its lanes must be a lane of
    /// exactly one part. What it waited for holds back the part with that lane only, and so do the
    /// parts what waited for it. Returns the new slots in order, and the old one.
    pub fn divide(&mut self, id: SlotId, parts: Vec<Slot<D>>) -> (Vec<SlotId>, Option<Slot<D>>) {
        let mut part_of: HashMap<u64, SlotId> = HashMap::new();
        let mut ids = Vec::with_capacity(parts.len());
        for part in parts {
            let lanes = part.request.as_ref().map(|r| r.lanes.clone());
            let part = self.store(part);
            part_of.extend(lanes.into_iter().flatten().map(|lane| (lane, part)));
            ids.push(part);
        }
        let mut blockers: HashMap<SlotId, u32> = HashMap::new();
        // There is no way back from a request to what it waits for; this happens rarely enough.
        for slot in self.entries.iter_mut().filter_map(|e| e.1.as_mut()) {
            for (lane, follower) in &mut slot.followers {
                if *follower == id
                    && let Some(&part) = part_of.get(lane)
                {
                    *follower = part;
                    *blockers.entry(part).or_default() += 1;
                }
            }
        }
        let tails = part_of
            .iter()
            .filter(|(lane, _)| self.tails.get(lane) == Some(&id));
        let tails: Vec<(u64, SlotId)> = tails.map(|(lane, part)| (*lane, *part)).collect();
        let old = self.remove(id, &[]).map(|(slot, followers)| {
            for (lane, follower) in followers {
                if let Some(&part) = part_of.get(&lane) {
                    self.follow(part, lane, follower);
                }
            }
            slot
        });
        self.tails.extend(tails);
        for &part in &ids {
            self.block(part, blockers.get(&part).copied().unwrap_or(0));
        }
        (ids, old)
    }
}
