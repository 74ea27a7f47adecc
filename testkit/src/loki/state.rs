//! What changes while the server runs: the store, the scripts, the counters.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::LokiStats;
use super::admit::Context;
use super::behaviour::{Faults, LokiBehaviour, Matcher, Reach, Scripted};
use super::ingest::entry_ref;
use super::labels::Labels;
use super::push::{PushEntry, PushRequest};
use super::store::{Kept, StoreMode, Tenant};
use crate::rng::Rng;

/// One request as the server saw it; what a test wants to know about a client's behaviour.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Header names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// Length of the body as received.
    pub body_bytes: usize,
    /// The status answered; `None` when the connection was closed instead.
    pub status: Option<u16>,
    /// Streams of a push that could be decoded.
    pub streams: usize,
    /// Entries of a push that could be decoded.
    pub entries: usize,
}

/// Tenants and what they stored.
pub(super) struct Store {
    pub(super) mode: StoreMode,
    tenants: HashMap<String, Tenant>,
    pub(super) accepted: u64,
    pub(super) distinct: u64,
    pub(super) not_kept: u64,
}

impl Store {
    pub(super) fn new(mode: StoreMode) -> Self {
        Self {
            mode,
            tenants: HashMap::new(),
            accepted: 0,
            distinct: 0,
            not_kept: 0,
        }
    }

    pub(super) fn tenant(&mut self, name: &str) -> &mut Tenant {
        // Not `entry`, which would allocate the name for each call.
        if !self.tenants.contains_key(name) {
            self.tenants.insert(name.to_owned(), Tenant::default());
        }
        self.tenants
            .get_mut(name)
            .expect("inserted above if it was missing")
    }

    pub(super) fn find(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(tenant)
    }

    pub(super) fn streams_active(&self) -> usize {
        self.tenants
            .values()
            .map(|tenant| tenant.streams.len())
            .sum()
    }

    /// Stores accepted entries of an existing stream and shows them to the hook, in order.
    pub(super) fn keep(&mut self, context: &Context<'_>, name: &str, entries: &[&PushEntry<'_>]) {
        let (mode, mut distinct) = (self.mode, self.distinct);
        let Some(stream) = self.tenant(context.tenant).streams.get_mut(name) else {
            return;
        };
        let mut not_kept = 0;
        for entry in entries {
            let entry = entry_ref(context.tenant, name, entry);
            if let StoreMode::Entries { entries_max } = mode {
                match stream.keep(&entry, distinct < entries_max as u64) {
                    Kept::New => distinct += 1,
                    Kept::NoRoom => not_kept += 1,
                    Kept::Repeat => {}
                }
            }
            if let Some(hook) = context.hook {
                hook(&entry);
            }
        }
        stream.copies += entries.len() as u64;
        self.accepted += entries.len() as u64;
        self.distinct = distinct;
        self.not_kept += not_kept;
    }
}

/// Everything behind the server's lock.
pub(super) struct State {
    pub(super) behaviour: Arc<LokiBehaviour>,
    pub(super) faults: Faults,
    /// Counts changes of the faults; a hanging request waits for the next one.
    pub(super) fault_epoch: u64,
    pub(super) reach: Reach,
    pub(super) ready: bool,
    pub(super) rng: Rng,
    pub(super) store: Store,
    pub(super) stats: LokiStats,
    pub(super) scripts: Vec<(Matcher, VecDeque<Scripted>)>,
    pub(super) requests: VecDeque<RequestRecord>,
}

impl State {
    /// Takes the next step of the first script that applies and has one left.
    pub(super) fn next_scripted(
        &mut self,
        tenant: &str,
        request: Option<&PushRequest<'_>>,
    ) -> Option<Scripted> {
        let applies = |matcher: &Matcher| match matcher {
            Matcher::Any => true,
            Matcher::Tenant(wanted) => wanted == tenant,
            Matcher::Stream { name, value } => request.is_some_and(|request| {
                request.streams.iter().any(|stream| {
                    Labels::parse(&stream.labels).is_ok_and(|l| l.get(name) == Some(value))
                })
            }),
        };
        let mut left = self
            .scripts
            .iter_mut()
            .filter(|(_, queue)| !queue.is_empty());
        left.find(|(matcher, _)| applies(matcher))
            .and_then(|(_, queue)| queue.pop_front())
    }

    /// The counters with those that are derived filled in.
    pub(super) fn stats(&self) -> LokiStats {
        LokiStats {
            entries_accepted: self.store.accepted,
            entries_distinct: match self.store.mode {
                StoreMode::Entries { .. } => Some(self.store.distinct),
                StoreMode::CountOnly => None,
            },
            entries_not_kept: self.store.not_kept,
            streams_active: self.store.streams_active(),
            ..self.stats.clone()
        }
    }

    /// Adds a verdict's losses to the counters; `hidden` when the client was told of success.
    pub(super) fn count_discarded(&mut self, lost: &BTreeMap<&'static str, u64>, hidden: bool) {
        for (reason, entries) in lost {
            *self
                .stats
                .discarded
                .entry((*reason).to_owned())
                .or_default() += entries;
            if hidden {
                self.stats.discarded_hidden += entries;
            }
        }
    }
}
