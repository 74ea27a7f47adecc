//! The tenants of a queue: who may send next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use super::gate::Gate;
use super::slots::SlotId;

/// One tenant that has requests, or is paused.
pub(super) struct Tenant {
    name: Option<Arc<str>>,
    pub gate: Gate,
    /// Requests that could be sent, oldest key first.
    ready: BinaryHeap<Reverse<(u64, SlotId)>>,
    pub in_flight: usize,
    /// Requests in any phase.
    pub requests: usize,
    /// True while it is in the rotation.
    listed: bool,
}

/// All tenants, served in turn.
pub(super) struct Tenants {
    entries: Vec<Option<Tenant>>,
    free: Vec<u32>,
    by_name: HashMap<Option<Arc<str>>, u32>,
    rotation: VecDeque<u32>,
    /// There was more than one at the same time.
    several: bool,
}

impl Tenants {
    pub fn new() -> Tenants {
        Tenants {
            entries: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::new(),
            rotation: VecDeque::new(),
            several: false,
        }
    }

    /// The tenant called `name`, with one request more.
    pub fn enter(&mut self, name: &Option<Arc<str>>) -> u32 {
        if let Some(&index) = self.by_name.get(name) {
            if let Some(t) = self.get_mut(index) {
                t.requests += 1;
            }
            return index;
        }
        let tenant = Tenant {
            name: name.clone(),
            gate: Gate::default(),
            ready: BinaryHeap::new(),
            in_flight: 0,
            requests: 1,
            listed: false,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = Some(tenant);
                index
            }
            None => {
                self.entries.push(Some(tenant));
                (self.entries.len() - 1) as u32
            }
        };
        self.by_name.insert(name.clone(), index);
        self.several |= self.by_name.len() > 1;
        index
    }

    /// A request of the tenant was settled. Forgets the tenant if nothing is left of it and
    /// nothing has to be remembered about it.
    pub fn leave(&mut self, index: u32) {
        if let Some(t) = self.get_mut(index) {
            t.requests -= 1;
        }
        self.forget_idle(index);
    }

    /// Forgets a tenant without requests and without a pause.
    pub fn forget_idle(&mut self, index: u32) {
        let idle = self
            .get(index)
            .is_some_and(|t| t.requests == 0 && t.gate.paused_until().is_none());
        if idle && let Some(t) = self.entries[index as usize].take() {
            if t.listed {
                self.rotation.retain(|&i| i != index);
            }
            self.by_name.remove(&t.name);
            self.free.push(index);
        }
    }

    pub fn get(&self, index: u32) -> Option<&Tenant> {
        self.entries.get(index as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut Tenant> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// Whether there ever was more than one tenant at the same time.
    pub fn several(&self) -> bool {
        self.several
    }

    /// A request of the tenant could be sent.
    pub fn push_ready(&mut self, index: u32, key: u64, id: SlotId) {
        if let Some(t) = self.get_mut(index) {
            t.ready.push(Reverse((key, id)));
        }
        self.list(index);
    }

    /// Puts a tenant that has something ready into the rotation.
    pub fn list(&mut self, index: u32) {
        let Some(t) = self.get_mut(index) else { return };
        if !t.listed && !t.ready.is_empty() {
            t.listed = true;
            self.rotation.push_back(index);
        }
    }

    /// True if a tenant in the rotation has something ready. It may turn out to be paused.
    pub fn any_listed(&self) -> bool {
        !self.rotation.is_empty()
    }

    /// The next request to send, its tenant in turn, while no tenant has more than `each_max`
    /// under way. A tenant that may not send leaves the rotation; [`Self::list`] puts it back when
    /// its state changes.
    pub fn pop_ready(&mut self, each_max: usize) -> Option<SlotId> {
        while let Some(index) = self.rotation.pop_front() {
            let Some(t) = self.get_mut(index) else {
                continue;
            };
            t.listed = false;
            if t.in_flight >= each_max || !t.gate.admits(t.in_flight) {
                continue;
            }
            let next = t.ready.pop();
            self.list(index);
            if let Some(Reverse((_, id))) = next {
                return Some(id);
            }
        }
        None
    }
}
