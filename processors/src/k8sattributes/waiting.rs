//! Parts that wait for metadata of their pod.

use std::collections::{HashSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tailwater_pipeline::Part;
use tailwater_pipeline::clock::Mono;
use tailwater_telemetry::metrics::K8sWaitingMetrics;

use super::LOOK;
use super::association::{Asked, Ident};
use super::table::Table;

/// Pods that were waited for in vain, as far as they are remembered.
const GIVEN_UP_MAX: usize = 4096;

struct Held {
    idents: Vec<Ident>,
    part: Part,
    until: Mono,
}

/// What waits, in order, and what is not waited for any more.
pub(super) struct Waiting {
    held: VecDeque<Held>,
    bytes: usize,
    given_up: HashSet<Ident, RandomState>,
    /// What was known when it was looked last.
    number: u64,
    look_at: Mono,
    meters: Arc<K8sWaitingMetrics>,
}

impl Waiting {
    pub fn new(meters: Arc<K8sWaitingMetrics>) -> Waiting {
        Waiting {
            held: VecDeque::new(),
            bytes: 0,
            given_up: HashSet::default(),
            number: 0,
            look_at: Mono(0),
            meters,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of what waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When to look again.
    pub fn look_at(&self) -> Option<Mono> {
        (!self.held.is_empty()).then_some(self.look_at)
    }

    /// Something waits for this.
    pub fn waits_for(&self, ident: &str) -> bool {
        self.held
            .iter()
            .any(|h| h.idents.iter().any(|i| **i == *ident))
    }

    /// It was waited for this in vain.
    pub fn gave_up(&self, ident: &str) -> bool {
        self.given_up.contains(ident)
    }

    /// Keeps a part until what it misses is known, but no longer than what waits for the same already.
    pub fn push(&mut self, missing: Vec<Asked>, part: Part, now: Mono, late: Duration) {
        let idents: Vec<Ident> = missing.into_iter().map(|asked| asked.ident).collect();
        let same = self
            .held
            .iter()
            .filter(|h| h.idents.iter().any(|i| idents.contains(i)));
        let until = same.map(|h| h.until).min().unwrap_or(now.after(late));
        if self.held.is_empty() {
            self.look_at = now.after(LOOK);
        }
        self.bytes += part.permit.bytes();
        self.meters.waiting.add(items(&part));
        self.held.push_back(Held {
            idents,
            part,
            until,
        });
        // Not as if it had been looked for: what it waits for may have become known meanwhile.
        self.number = 0;
    }

    /// What does not wait any more at `now`, in order. `number` tells states of the table apart.
    pub fn release<T: Deref<Target = Table>>(
        &mut self,
        now: Mono,
        number: u64,
        table: impl FnOnce() -> T,
    ) -> Vec<Part> {
        let over = self.held.iter().any(|h| h.until <= now);
        if self.held.is_empty() || (number == self.number && !over) {
            if self.look_at <= now {
                self.look_at = now.after(LOOK);
            }
            return Vec::new();
        }
        (self.number, self.look_at) = (number, now.after(LOOK));
        let table = table();
        let (mut released, mut stays) = (Vec::new(), VecDeque::new());
        for held in self.held.drain(..) {
            let is_known = |i: &Ident| table.pod(i).is_some_and(|pod| table.is_complete(pod));
            let known = held.idents.iter().all(is_known);
            if !known && held.until > now {
                stays.push_back(held);
                continue;
            }
            if !known {
                let nothing = held.idents.iter().any(|i| table.pod(i).is_none());
                if nothing {
                    self.meters.without.inc_by(held.part.data.items() as u64);
                }
                if self.given_up.len() >= GIVEN_UP_MAX {
                    self.given_up.clear();
                }
                self.given_up.extend(held.idents);
            }
            self.bytes = self.bytes.saturating_sub(held.part.permit.bytes());
            self.meters.waiting.add(-items(&held.part));
            released.push(held.part);
        }
        self.held = stays;
        released
    }

    /// Everything, whatever it waits for.
    pub fn take_all(&mut self) -> Vec<Part> {
        self.bytes = 0;
        let all = self.held.drain(..).map(|held| held.part);
        let all: Vec<Part> = all.collect();
        for part in &all {
            self.meters.waiting.add(-items(part));
            self.meters.without.inc_by(part.data.items() as u64);
        }
        all
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for held in &self.held {
            self.meters.waiting.add(-items(&held.part));
        }
    }
}

fn items(part: &Part) -> i64 {
    i64::try_from(part.data.items()).unwrap_or(i64::MAX)
}
