//! The streams and tenants of one shard, and their open requests.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldhash::fast::FixedState;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tailwater_pipeline::clock::Mono;

use crate::delivery::Acks;

use super::body::StreamBuffer;
use super::label_text;
use super::options::Limits;
use super::parts;

/// A stream without entries for this long is forgotten.
const STREAM_IDLE: Duration = Duration::from_secs(600);
/// Most tenants of one shard.
pub(super) const TENANTS_MAX: usize = 10_000;

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its labels as text.
    pub labels: Box<str>,
    /// Index of its tenant.
    pub tenant: u32,
    /// Its lane in the delivery queue.
    pub lane: u64,
    /// Its entries in the open request.
    pub buffer: StreamBuffer,
    /// The open request that holds those.
    pub open: Option<u32>,
    /// True until a request with it was handed to delivery: Loki may refuse to create it.
    pub fresh: bool,
    /// Entries before this time may be too far behind what Loki has.
    pub behind: i64,
    newest_sent: i64,
    /// The oldest entry of the first request. Loki may have had newer ones from an earlier run; that
    /// it takes this one is what is known of its window.
    oldest_first: i64,
    used: Mono,
    /// What Loki's token bucket for the stream holds, in bytes, as far as we know.
    tokens: i64,
    refilled: Mono,
}

impl Stream {
    fn new(labels: Box<str>, tenant: u32, name: Option<&str>, limits: &Limits, now: Mono) -> Self {
        Stream {
            lane: parts::lane(name, &labels),
            labels,
            tenant,
            buffer: StreamBuffer::default(),
            open: None,
            fresh: true,
            behind: i64::MIN,
            newest_sent: i64::MIN,
            oldest_first: i64::MIN,
            used: now,
            tokens: limits.stream_burst_bytes as i64,
            refilled: now,
        }
    }

    /// True if the rate limit of the stream may not let `bytes` pass now.
    pub fn is_near_rate(&mut self, bytes: usize, limits: &Limits, now: Mono) -> bool {
        let seconds = now.since(self.refilled).as_secs_f64();
        let gained = seconds * limits.stream_rate_bytes as f64;
        let burst = limits.stream_burst_bytes as i64;
        self.tokens = self.tokens.saturating_add(gained as i64).min(burst);
        self.refilled = now;
        self.tokens < bytes as i64
    }

    /// Books that the entries of the buffer are sent.
    pub fn sent(&mut self, limits: &Limits, now: Mono) {
        if std::mem::take(&mut self.fresh) {
            self.oldest_first = self.buffer.oldest();
        }
        self.used = now;
        self.newest_sent = self.newest_sent.max(self.buffer.newest());
        let behind_ns = i64::try_from(limits.behind_max.as_nanos()).unwrap_or(i64::MAX);
        let window = self.newest_sent.saturating_sub(behind_ns);
        self.behind = window.max(self.oldest_first);
        let bytes = self.buffer.entries_bytes() as i64;
        self.tokens = self.tokens.saturating_sub(bytes);
    }
}

/// A request that is being filled.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Index of its tenant.
    pub tenant: u32,
    /// Indexes of its streams.
    pub streams: Vec<u32>,
    /// Its size before compression, at most a few bytes per stream too large.
    pub bytes: usize,
    /// Records in it.
    pub items: u64,
    /// The duties for them.
    pub acks: Acks,
    /// Records of the part that is being encoded, whose duty is not in `acks` yet.
    pub part_items: u32,
    /// When it leaves.
    pub deadline: Mono,
    /// The stream that Loki may refuse; it has to stand last.
    pub risky: Option<u32>,
}

/// A tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    /// Its id; `None` = requests without one.
    pub name: Option<Arc<str>>,
    /// Headers of its requests.
    pub headers: Arc<HeaderMap>,
    /// The open request that streams may share; others belong to one stream.
    pub shared: Option<u32>,
    by_labels: HashMap<Box<str>, u32, FixedState>,
    /// False for a place that can be taken.
    live: bool,
}

fn headers(tenant: Option<&str>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    if let Some(tenant) = tenant {
        let name = HeaderName::from_static("x-scope-orgid");
        headers.insert(name, HeaderValue::from_str(tenant).ok()?);
    }
    Some(headers)
}

/// Streams that Loki did not take lately, and those of which it refused entries as too far behind.
/// They get requests of their own, so that others do not wait with them, and so that a refusal is
/// seen: where the window of a stream ends is not known. Shared by the shards, which ask, and the judge, which knows.
#[derive(Debug, Default)]
pub(super) struct ParkedLanes {
    count: AtomicUsize,
    lanes: Mutex<HashSet<u64>>,
    /// Those that Loki may refuse entries of at any time.
    doubtful: Mutex<HashSet<u64>>,
    doubtful_count: AtomicUsize,
    /// Age in ns beyond which Loki said it takes no entries; 0 = it has not said.
    age_max_ns: AtomicI64,
}

/// A bound on what is remembered; beyond it others may wait with a stream.
const PARKED_MAX: usize = 100_000;

impl ParkedLanes {
    /// Loki refused an entry as older than `age_ns`: what is older is not sent again.
    pub fn learn_age_max(&self, age_ns: i64) {
        if age_ns > 0 {
            self.age_max_ns.store(age_ns, Ordering::Release);
        }
    }

    /// Age in ns beyond which Loki takes no entries, once it has said so; 0 = not known.
    pub fn age_max_ns(&self) -> i64 {
        self.age_max_ns.load(Ordering::Acquire)
    }

    /// Remembers `lane`.
    pub fn park(&self, lane: u64) {
        let mut lanes = self.lanes.lock().unwrap_or_else(|e| e.into_inner());
        if lanes.len() < PARKED_MAX {
            lanes.insert(lane);
        }
        self.count.store(lanes.len(), Ordering::Release);
    }

    /// Remembers `lane` for good: entries of it were too far behind. False if that is known.
    pub fn doubt(&self, lane: u64) -> bool {
        let mut lanes = self.doubtful.lock().unwrap_or_else(|e| e.into_inner());
        let is_new = lanes.len() < PARKED_MAX && lanes.insert(lane);
        self.doubtful_count.store(lanes.len(), Ordering::Release);
        is_new
    }

    /// Forgets `of`, which were accepted.
    pub fn accepted(&self, of: &[u64]) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut lanes = self.lanes.lock().unwrap_or_else(|e| e.into_inner());
        of.iter().for_each(|lane| {
            lanes.remove(lane);
        });
        self.count.store(lanes.len(), Ordering::Release);
    }

    /// True if requests of `lane` are its own. Two atomic reads while there are no such lanes.
    pub fn contains(&self, lane: u64) -> bool {
        let is_in = |count: &AtomicUsize, lanes: &Mutex<HashSet<u64>>| {
            count.load(Ordering::Acquire) > 0
                && lanes
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .contains(&lane)
        };
        is_in(&self.count, &self.lanes) || is_in(&self.doubtful_count, &self.doubtful)
    }
}

/// All streams and tenants of a shard.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: Vec<Option<Stream>>,
    free: Vec<u32>,
    tenants: Vec<Tenant>,
    /// Places in `tenants` that are not in use.
    free_tenants: Vec<u32>,
    by_name: HashMap<Option<Arc<str>>, u32, FixedState>,
    /// Open requests; those without streams are places that can be taken.
    opens: Vec<Open>,
    free_opens: Vec<u32>,
    live: usize,
}

impl Streams {
    /// Number of streams.
    pub fn len(&self) -> usize {
        self.live
    }

    /// The index of a tenant, new or known. `None`: its name cannot be sent, or there are too many.
    pub fn tenant(&mut self, name: Option<&str>) -> Option<u32> {
        // The key of the map is an `Arc`, so a look-up by `&str` goes through the list first for
        // the usual case of few tenants.
        if self.tenants.len() <= 8 {
            let mut tenants = self.tenants.iter();
            if let Some(i) = tenants.position(|t| t.live && t.name.as_deref() == name) {
                return Some(i as u32);
            }
        }
        let key: Option<Arc<str>> = name.map(Arc::from);
        if let Some(&i) = self.by_name.get(&key) {
            return Some(i);
        }
        let valid = name.is_none_or(super::names::is_tenant_id);
        if !valid || self.by_name.len() >= TENANTS_MAX {
            return None;
        }
        let tenant = Tenant {
            name: key.clone(),
            headers: Arc::new(headers(name)?),
            shared: None,
            by_labels: HashMap::default(),
            live: true,
        };
        let i = match self.free_tenants.pop() {
            Some(i) => {
                self.tenants[i as usize] = tenant;
                i
            }
            None => {
                self.tenants.push(tenant);
                (self.tenants.len() - 1) as u32
            }
        };
        self.by_name.insert(key, i);
        Some(i)
    }

    /// The tenant at an index that [`Self::tenant`] gave.
    pub fn tenant_mut(&mut self, index: u32) -> &mut Tenant {
        &mut self.tenants[index as usize]
    }

    /// The stream at an index that [`Self::find`] or [`Self::create`] gave.
    pub fn stream_mut(&mut self, index: u32) -> &mut Stream {
        self.streams[index as usize]
            .as_mut()
            .expect("streams are only forgotten between batches, and indexes do not outlive one")
    }

    /// A stream and the open request that holds its entries, if one does.
    #[inline]
    pub fn stream_and_open(&mut self, index: u32) -> (&mut Stream, Option<&mut Open>) {
        let stream = self.streams[index as usize]
            .as_mut()
            .expect("streams are only forgotten between batches, and indexes do not outlive one");
        let open = stream.open.map(|slot| &mut self.opens[slot as usize]);
        (stream, open)
    }

    /// When the first open request has to leave.
    pub fn next_deadline(&self) -> Option<Mono> {
        let open = self.opens.iter().filter(|o| !o.streams.is_empty());
        open.map(|o| o.deadline).min()
    }

    /// Open requests, and places for more.
    pub fn opens(&mut self) -> &mut [Open] {
        &mut self.opens
    }

    /// Opens a request for a tenant.
    pub fn open(&mut self, tenant: u32, deadline: Mono) -> u32 {
        let open = Open {
            tenant,
            deadline,
            ..Open::default()
        };
        match self.free_opens.pop() {
            Some(slot) => {
                self.opens[slot as usize] = open;
                slot
            }
            None => {
                self.opens.push(open);
                (self.opens.len() - 1) as u32
            }
        }
    }

    /// Takes an open request out; its streams are in none afterwards. `None` if nothing is in it.
    pub fn take_open(&mut self, slot: u32) -> Option<Open> {
        let place = self.opens.get_mut(slot as usize)?;
        if place.streams.is_empty() {
            return None;
        }
        let open = std::mem::take(place);
        self.free_opens.push(slot);
        for &stream in &open.streams {
            self.stream_mut(stream).open = None;
        }
        let owner = self.tenant_mut(open.tenant);
        if owner.shared == Some(slot) {
            owner.shared = None;
        }
        Some(open)
    }

    /// A known stream.
    pub fn find(&self, tenant: u32, labels: &str) -> Option<u32> {
        self.tenants[tenant as usize].by_labels.get(labels).copied()
    }

    /// A new stream.
    pub fn create(&mut self, tenant: u32, labels: &str, limits: &Limits, now: Mono) -> u32 {
        let owner = &mut self.tenants[tenant as usize];
        let stream = Stream::new(labels.into(), tenant, owner.name.as_deref(), limits, now);
        let index = match self.free.pop() {
            Some(index) => {
                self.streams[index as usize] = Some(stream);
                index
            }
            None => {
                self.streams.push(Some(stream));
                (self.streams.len() - 1) as u32
            }
        };
        owner.by_labels.insert(labels.into(), index);
        self.live += 1;
        index
    }

    /// Forgets streams without entries for long, and tenants without streams. Returns how many
    /// streams.
    pub fn forget_idle(&mut self, now: Mono) -> usize {
        let before = self.live;
        for (index, slot) in self.streams.iter_mut().enumerate() {
            let idle = slot
                .as_ref()
                .is_some_and(|s| s.buffer.is_empty() && now.since(s.used) > STREAM_IDLE);
            if idle && let Some(stream) = slot.take() {
                let owner = &mut self.tenants[stream.tenant as usize];
                owner.by_labels.remove(&stream.labels);
                self.free.push(index as u32);
                self.live -= 1;
            }
        }
        for (index, tenant) in self.tenants.iter_mut().enumerate() {
            if tenant.live && tenant.by_labels.is_empty() {
                tenant.live = false;
                self.by_name.remove(&tenant.name);
                self.free_tenants.push(index as u32);
            }
        }
        before - self.live
    }

    /// Among `names`, the label with the most different values over all streams.
    pub fn most_diverse(&self, names: &[&str]) -> Option<usize> {
        // Asked for each further stream, and there may be many more than are wanted.
        if names.is_empty() {
            return None;
        }
        let mut values: Vec<HashSet<&str>> = names.iter().map(|_| HashSet::new()).collect();
        for stream in self.streams.iter().flatten() {
            for (name, value) in label_text::parse(&stream.labels).unwrap_or_default() {
                if let Some(i) = names.iter().position(|n| *n == name) {
                    values[i].insert(value);
                }
            }
        }
        let most = values.iter().enumerate().max_by_key(|(_, v)| v.len());
        most.filter(|(_, v)| v.len() > 1).map(|(i, _)| i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_found_by_tenant_and_labels_and_forgotten_when_idle() {
        let mut s = Streams::default();
        let (limits, now) = (Limits::default(), Mono(0));
        let (a, b) = (s.tenant(Some("a")).unwrap(), s.tenant(None).unwrap());
        assert_eq!(
            (s.tenant(Some("a")), s.tenant(Some("x/y"))),
            (Some(a), None)
        );
        let one = s.create(a, "{x=\"1\"}", &limits, now);
        let two = s.create(b, "{x=\"1\"}", &limits, now);
        assert_eq!(s.find(a, "{x=\"1\"}"), Some(one));
        let lane = s.stream_mut(one).lane;
        assert_ne!(lane, s.stream_mut(two).lane);
        let later = now.after(STREAM_IDLE).after(Duration::from_secs(1));
        s.stream_mut(two).used = later;
        assert_eq!((s.forget_idle(later), s.len()), (1, 1));
        assert_eq!(
            (s.find(a, "{x=\"1\"}"), s.find(b, "{x=\"1\"}")),
            (None, Some(two))
        );
        assert_eq!(
            s.create(a, "{y=\"1\"}", &limits, now),
            one,
            "the place is used again"
        );
    }

    #[test]
    fn many_tenants_are_found_too() {
        let mut s = Streams::default();
        let ids: Vec<_> = (0..50).map(|i| s.tenant(Some(&format!("t{i}")))).collect();
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(s.tenant(Some(&format!("t{i}"))), *id);
        }
        s.forget_idle(Mono(0));
        assert_eq!(s.by_name.len(), 0, "they had no streams");
        let again = s.tenant(Some("t7"));
        assert_eq!((again, s.tenants.len()), (ids[49], 50));
    }

    #[test]
    fn a_stream_near_its_rate_is_noticed_and_recovers() {
        let limits = Limits {
            stream_rate_bytes: 100,
            stream_burst_bytes: 1_000,
            ..Limits::default()
        };
        let mut s = Stream::new("{}".into(), 0, None, &limits, Mono(0));
        assert!(!s.is_near_rate(1_000, &limits, Mono(0)));
        s.tokens = 0;
        assert!(s.is_near_rate(1, &limits, Mono(0)));
        assert!(!s.is_near_rate(200, &limits, Mono(2_000_000_000)));
        assert!(s.is_near_rate(201, &limits, Mono(2_000_000_000)));
    }

    #[test]
    fn parked_lanes_are_remembered_until_accepted() {
        let p = ParkedLanes::default();
        assert!(!p.contains(1));
        p.park(1);
        assert!(p.contains(1) && !p.contains(2));
        p.accepted(&[2, 1]);
        assert!(!p.contains(1));
    }
}
