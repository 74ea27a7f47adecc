//! Requests that were answered with failure although some destinations have them, or may have them
//! still: so that one that comes again goes only to those that do not.
//!
//! A request is known by a digest of its bytes. One that comes again takes the place of the one that
//! is remembered, once: what was answered with failure and what comes later with the same bytes are,
//! to whoever sent them, one delivery, never two. So nothing that was answered with success is ever
//! left out, however often equal requests are sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt};
use sha2::{Digest as _, Sha256};
use tailwater_pdata::Signal;
use tailwater_pipeline::client::ClientInfo;

use super::request::Request;

/// Requests that are remembered, at most: a few hundred bytes each. The oldest are forgotten.
const REQUESTS_MAX: usize = 16 << 10;

/// Metadata that may differ each time the same request is sent: it belongs to the attempt.
const OF_AN_ATTEMPT: [&str; 20] = [
    "accept-encoding",
    "b3",
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "forwarded",
    "grpc-encoding",
    "grpc-timeout",
    "grpc-trace-bin",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "uber-trace-id",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-request-id",
];

/// What tells a request from all others: half of the SHA-256 of its signal, its bytes, and what is kept of
/// its sender.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of a request of a signal, in pieces.
    pub fn of<'a>(signal: Signal, pieces: impl Iterator<Item = &'a Bytes>) -> Digest {
        let mut sha = Sha256::new();
        sha.update([match signal {
            Signal::Logs => 0u8,
            Signal::Metrics => 1,
            Signal::Traces => 2,
        }]);
        pieces.for_each(|piece| sha.update(piece));
        Digest::end(sha)
    }

    /// The same with what is kept of who sent it, but for its address: equal bytes of two tenants are two
    /// requests.
    pub fn sent_by(self, client: &ClientInfo) -> Digest {
        let of_request = |name: &str| {
            let of_attempt = OF_AN_ATTEMPT.binary_search(&name).is_ok();
            !of_attempt && !name.starts_with("x-b3-") && !name.starts_with(':')
        };
        let metadata = client.all_metadata();
        let mut kept: Vec<_> = metadata.filter(|(name, _)| of_request(name)).collect();
        if kept.is_empty() && client.auth().next().is_none() {
            return self;
        }
        kept.sort();
        let mut sha = Sha256::new();
        sha.update(self.0);
        let mut add = |text: &str| {
            sha.update((text.len() as u64).to_le_bytes());
            sha.update(text);
        };
        for (name, values) in kept {
            add(name);
            values.iter().for_each(|value| add(value));
        }
        for (name, value) in client.auth() {
            add(name);
            add(value);
        }
        Digest::end(sha)
    }

    fn end(sha: Sha256) -> Digest {
        let all: [u8; 32] = sha.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&all[..16]);
        Digest(half)
    }
}

/// See the module's documentation.
#[derive(Default)]
pub struct Memory(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_digest: Option<HashMap<Digest, (u64, Arc<Request>)>>,
    by_age: BTreeMap<u64, Digest>,
    next: u64,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a request that nobody waits for any more.
    pub fn put(&self, digest: Digest, request: Arc<Request>) {
        let mut entries = self.lock();
        let age = entries.next;
        entries.next += 1;
        let map = entries.by_digest.get_or_insert_with(HashMap::new);
        let before = map.insert(digest, (age, request));
        if let Some((age, _)) = &before {
            entries.by_age.remove(age);
        }
        entries.by_age.insert(age, digest);
        if entries.by_age.len() > REQUESTS_MAX
            && let Some((_, oldest)) = entries.by_age.pop_first()
            && let Some(map) = &mut entries.by_digest
        {
            map.remove(&oldest);
        }
    }

    /// The request with this digest, which is forgotten with that.
    pub fn take(&self, digest: &Digest) -> Option<Arc<Request>> {
        let mut entries = self.lock();
        let (age, request) = entries.by_digest.as_mut()?.remove(digest)?;
        entries.by_age.remove(&age);
        Some(request)
    }

    /// Forgets this request, if it is remembered.
    pub fn forget(&self, digest: &Digest, request: &Request) {
        let mut entries = self.lock();
        let Some(map) = &mut entries.by_digest else {
            return;
        };
        let is_it = |(_, known): &(u64, Arc<Request>)| std::ptr::eq(&**known, request);
        if map.get(digest).is_some_and(is_it)
            && let Some((age, _)) = map.remove(digest)
        {
            entries.by_age.remove(&age);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.lock().by_age.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::stats::{Stats, Transport};
    use tailwater_telemetry::metrics::MetricsRegistry;

    fn request() -> Arc<Request> {
        let stats = Stats::new(
            &MetricsRegistry::default(),
            "otlp",
            Transport::Grpc,
            &[Signal::Logs],
        );
        Request::new(Signal::Logs, 1, 2, None, Arc::default(), stats)
    }

    /// Guarantee: the number is bounded, the oldest go first, and each is given out once.
    #[test]
    fn it_forgets_the_oldest() {
        let memory = Memory::default();
        let digest = |n: usize| Digest((n as u128).to_le_bytes());
        for n in 0..REQUESTS_MAX + 3 {
            memory.put(digest(n), request());
        }
        assert_eq!(memory.len(), REQUESTS_MAX);
        assert!(memory.take(&digest(2)).is_none());
        assert!(memory.take(&digest(3)).is_some());
        assert!(memory.take(&digest(3)).is_none());
        let known = request();
        memory.put(digest(5), known.clone());
        assert_eq!(
            memory.len(),
            REQUESTS_MAX - 1,
            "it took the place of another"
        );
        memory.forget(&digest(5), &request());
        memory.forget(&digest(5), &known);
        assert!(memory.take(&digest(5)).is_none());
        assert_eq!(memory.len(), REQUESTS_MAX - 2);
    }

    /// Guarantee: a digest tells signals, bytes and nothing else apart.
    #[test]
    fn digests_tell_requests_apart() {
        let of = |signal, bytes: &'static [u8]| {
            let pieces = [Bytes::from_static(bytes)];
            Digest::of(signal, pieces.iter())
        };
        let one = of(Signal::Logs, b"\x0a\0");
        assert_eq!(one, of(Signal::Logs, b"\x0a\0"));
        assert_ne!(of(Signal::Logs, b""), of(Signal::Traces, b""));
        assert_ne!(one, of(Signal::Logs, b""));
        let sent = |headers: &[(&str, &str)]| {
            let mut client = ClientInfo::at(None);
            headers.iter().for_each(|(n, v)| client.add_metadata(n, v));
            one.sent_by(&client)
        };
        assert_eq!(one, sent(&[]));
        assert_eq!(one, sent(&[("traceparent", "1"), ("X-B3-TraceId", "2")]));
        assert_eq!(
            sent(&[("a", "1"), ("b", "2")]),
            sent(&[("b", "2"), ("a", "1")])
        );
        assert_ne!(
            sent(&[("x-scope-orgid", "a")]),
            sent(&[("x-scope-orgid", "b")])
        );
        assert_ne!(sent(&[("a", "bc")]), sent(&[("ab", "c")]));
        assert!(OF_AN_ATTEMPT.is_sorted());
    }
}
