//! Loki without a socket: the same admission as [`FakeLoki`](super::FakeLoki), called directly.
//!
//! For simulations, which decide themselves when a request arrives and what becomes of its answer.

use std::collections::BTreeMap;

use super::admit::{self, Context};
use super::behaviour::LokiBehaviour;
use super::body::unsnap;
use super::proto::{self, ReadLimits};
use super::state::Store;
use super::store::{StoreMode, StoredEntry};
use super::{DEFAULT_TENANT, Refusal};
use crate::entry::EntryHook;

/// What a push is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAnswer {
    /// HTTP status.
    pub status: u16,
    /// Plain text body; empty with 204.
    pub text: String,
    /// Entries that were not stored, by the reason Loki's `loki_discarded_samples_total` would give.
    pub discarded: BTreeMap<&'static str, u64>,
}

/// See the module's documentation.
pub struct LokiModel {
    /// Limits and rules; may change at any time.
    pub behaviour: LokiBehaviour,
    store: Store,
    hook: Option<EntryHook>,
}

impl LokiModel {
    /// An empty one. `on_entry` is called for each stored entry, repeats included.
    pub fn new(behaviour: LokiBehaviour, on_entry: Option<EntryHook>) -> Self {
        Self {
            behaviour,
            store: Store::new(StoreMode::default()),
            hook: on_entry,
        }
    }

    /// Takes a push: a raw snappy block with a protobuf request, at `now_ns` (Unix, ns).
    pub fn push(&mut self, body: &[u8], now_ns: i64) -> ModelAnswer {
        let answered = |answer, discarded| match answer {
            Ok(()) => ModelAnswer {
                status: 204,
                text: String::new(),
                discarded,
            },
            Err(Refusal { status, text }) => ModelAnswer {
                status,
                text: format!("{text}\n"),
                discarded,
            },
        };
        let bytes = match unsnap(body, self.behaviour.decompressed_bytes_max) {
            Ok(bytes) => bytes,
            Err(refusal) => return answered(Err(refusal), BTreeMap::new()),
        };
        let request = match proto::read_push(&bytes, &ReadLimits::default()) {
            Ok(request) => request,
            Err(e) => return answered(Err(Refusal::new(400, e.to_string())), BTreeMap::new()),
        };
        let context = Context {
            behaviour: &self.behaviour,
            tenant: DEFAULT_TENANT,
            now_ns,
            hook: self.hook.as_ref(),
        };
        let verdict = admit::push(&context, request, &mut self.store);
        answered(verdict.answer, verdict.discarded)
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
            None,
        );
        let answer = model.push(&snappy(&encode_push(&request)), 9);
        assert_eq!(answer.status, 400);
        assert!(answer.text.contains("max entry size"), "{}", answer.text);
        assert_eq!(answer.discarded["line_too_long"], 1);
        assert_eq!(model.streams(), ["{a=\"b\"}"]);
        assert_eq!(model.entries("{a=\"b\"}").len(), 1);
        assert_eq!(model.push(b"\xff", 9).status, 400);
    }
}
