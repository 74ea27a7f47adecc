//! Loki without a socket: the same admission as [`FakeLoki`](super::FakeLoki), called directly.
//!
//! For simulations, which decide themselves when a request arrives and what becomes of its answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::admit::{self, Context};
use super::behaviour::LokiBehaviour;
use super::body::unsnap;
use super::proto::{self, ReadLimits};
use super::state::Store;
use super::store::{StoreMode, StoredEntry};
use super::{DEFAULT_TENANT, Refusal};
use crate::entry::{EntryHook, EntryRef};

/// An entry of a push: time (Unix, ns) and line.
pub type ModelEntry = (i64, Vec<u8>);

/// What a push is answered, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAnswer {
    /// HTTP status.
    pub status: u16,
    /// Plain text body; empty with 204.
    pub text: String,
    /// Entries that were not stored, by the reason Loki's `loki_discarded_samples_total` would give.
    pub discarded: BTreeMap<&'static str, u64>,
    /// What was stored, repeats included, in order.
    pub stored: Vec<ModelEntry>,
    /// What was checked and not stored, in the order of the request.
    pub refused: Vec<ModelEntry>,
}

/// See the module's documentation.
pub struct LokiModel {
    /// Limits and rules; may change at any time.
    pub behaviour: LokiBehaviour,
    store: Store,
}

impl LokiModel {
    /// An empty one.
    pub fn new(behaviour: LokiBehaviour, mode: StoreMode) -> Self {
        Self {
            behaviour,
            store: Store::new(mode),
        }
    }

    /// Takes a push: a raw snappy block with a protobuf request, at `now_ns` (Unix, ns).
    pub fn push(&mut self, body: &[u8], now_ns: i64) -> ModelAnswer {
        let refuse = |refusal: Refusal| ModelAnswer {
            status: refusal.status,
            text: format!("{}\n", refusal.text),
            discarded: BTreeMap::new(),
            stored: Vec::new(),
            refused: Vec::new(),
        };
        let bytes = match unsnap(body, self.behaviour.decompressed_bytes_max) {
            Ok(bytes) => bytes,
            Err(refusal) => return refuse(refusal),
        };
        let read = || proto::read_push(&bytes, &ReadLimits::default());
        let request = match read() {
            Ok(request) => request,
            Err(e) => return refuse(Refusal::new(400, e.to_string())),
        };
        let stored: Arc<Mutex<Vec<ModelEntry>>> = Arc::default();
        let seen = stored.clone();
        let hook: EntryHook = Arc::new(move |e: &EntryRef<'_>| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((e.ts_ns, e.line.to_vec()));
        });
        let context = Context {
            behaviour: &self.behaviour,
            tenant: DEFAULT_TENANT,
            now_ns,
            hook: Some(&hook),
        };
        let verdict = admit::push(&context, request, &mut self.store);
        let mut answer = match verdict.answer {
            Ok(()) => refuse(Refusal::new(204, String::new())),
            Err(refusal) => refuse(refusal),
        };
        if answer.status == 204 {
            answer.text.clear();
        }
        answer.discarded = verdict.discarded;
        drop(hook);
        answer.stored = std::mem::take(&mut stored.lock().unwrap_or_else(PoisonError::into_inner));
        if !answer.discarded.is_empty() {
            let mut stored: Vec<&ModelEntry> = answer.stored.iter().collect();
            let entries = read().into_iter().flat_map(|r| r.streams);
            for entry in entries.flat_map(|s| s.entries) {
                let entry = (entry.ts_ns, entry.line.to_vec());
                match stored.iter().position(|s| **s == entry) {
                    Some(i) => drop(stored.swap_remove(i)),
                    None => answer.refused.push(entry),
                }
            }
        }
        answer
    }

    /// Canonical label strings of all streams, sorted.
    pub fn streams(&self) -> Vec<String> {
        let tenant = self.store.find(DEFAULT_TENANT);
        tenant.map_or_else(Vec::new, |t| t.streams.keys().cloned().collect())
    }

    /// The distinct entries of a stream in the order in which they first arrived.
    pub fn entries(&self, labels: &str) -> &[StoredEntry] {
        let tenant = self.store.find(DEFAULT_TENANT);
        let stream = tenant.and_then(|t| t.streams.get(labels));
        stream.map_or(&[], |s| &s.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loki::encode::{encode_push, snappy};
    use crate::loki::push::{PushEntry, PushRequest, PushStream};

    #[test]
    fn it_stores_and_refuses_as_the_server_does() {
        let line = |ts_ns, line: &'static str| PushEntry {
            ts_ns,
            line: line.as_bytes().into(),
            metadata: Vec::new(),
        };
        let request = PushRequest {
            streams: vec![PushStream {
                labels: "{a=\"b\"}".into(),
                entries: vec![line(7, "short"), line(8, "too long a line")],
            }],
        };
        let mut model = LokiModel::new(
            LokiBehaviour {
                line_bytes_max: Some(8),
                ..LokiBehaviour::permissive()
            },
            StoreMode::default(),
        );
        let answer = model.push(&snappy(&encode_push(&request)), 9);
        assert_eq!(answer.status, 400);
        assert!(answer.text.contains("max entry size"), "{}", answer.text);
        assert_eq!(answer.discarded["line_too_long"], 1);
        assert_eq!(answer.stored, [(7, b"short".to_vec())]);
        assert_eq!(answer.refused, [(8, b"too long a line".to_vec())]);
        assert_eq!(model.streams(), ["{a=\"b\"}"]);
        assert_eq!(model.entries("{a=\"b\"}").len(), 1);
        assert_eq!(model.push(b"\xff", 9).status, 400);
    }
}
