//! What is queued: a finished request and the duty to deliver it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use hyper::HeaderMap;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, DropReason, Outcome};

/// The duty behind a request. Every duty is resolved exactly once.
pub trait Duty: Send + 'static {
    /// A further duty over the same records, for a part of the request. The records are settled
    /// when this one and all shares are resolved; the worst outcome wins.
    fn share(&mut self) -> Self;

    /// Counts `items` records as given up. Called before [`Duty::resolve`].
    fn count_dropped(&mut self, reason: DropReason, items: u64);

    /// Says what became of the records. Must not block.
    fn resolve(self, outcome: Outcome);
}

/// The acknowledgement tokens of all batches that have records in a request.
///
/// A request mixes records of several batches, and which of them a destination rejected is often
/// unknown. Dropped records are therefore booked on the tokens in order, on none more than it has
/// records in the request: the totals are exact, the split between batches of one request is not.
#[derive(Debug, Default)]
pub struct Acks {
    tokens: Vec<(AckToken, u32)>,
    /// Records per token that were not booked as dropped yet; made when parts share the duty.
    room: Option<Arc<[AtomicU32]>>,
}

impl Acks {
    /// No duty at all.
    pub fn new() -> Acks {
        Acks::default()
    }

    /// Adds a token with the number of its records that are in this request. Adding a clone of the
    /// token that was added last counts into the same entry, and resolves the clone.
    pub fn add(&mut self, token: AckToken, records: u32) {
        debug_assert!(
            self.room.is_none(),
            "tokens are added before the duty is shared"
        );
        if let Some((last, n)) = self.tokens.last_mut()
            && last.same_as(&token)
        {
            *n += records;
            token.resolve(Outcome::Delivered);
            return;
        }
        self.tokens.push((token, records));
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// True without tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    fn room(&mut self) -> &Arc<[AtomicU32]> {
        let tokens = &self.tokens;
        self.room
            .get_or_insert_with(|| tokens.iter().map(|(_, n)| AtomicU32::new(*n)).collect())
    }
}

impl Duty for Acks {
    fn share(&mut self) -> Acks {
        let room = self.room().clone();
        Acks {
            tokens: self.tokens.clone(),
            room: Some(room),
        }
    }

    fn count_dropped(&mut self, reason: DropReason, items: u64) {
        let room = self.room().clone();
        let mut left = u32::try_from(items).unwrap_or(u32::MAX);
        for ((token, _), room) in self.tokens.iter().zip(room.iter()) {
            if left == 0 {
                break;
            }
            // Parts of one request are judged one after another, on one thread.
            let take = room.load(Ordering::Acquire).min(left);
            if take > 0 {
                room.fetch_sub(take, Ordering::AcqRel);
                token.count_dropped(reason, take);
                left -= take;
            }
        }
    }

    fn resolve(self, outcome: Outcome) {
        for (token, _) in self.tokens {
            token.resolve(outcome);
        }
    }
}

/// How often, and since when, the destination refused a request for its rate. Kept by the judge; a
/// part of a request begins anew, but for the number of divisions it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refusals {
    /// Number of refusals.
    pub count: u32,
    /// When the first one came.
    pub since: Option<Mono>,
    /// How many times what it is a part of was divided.
    pub divisions: u32,
}

/// A finished request.
#[derive(Debug)]
pub struct OutgoingRequest<D> {
    /// The body, in chunks that are sent one after another.
    pub body: Vec<Bytes>,
    /// Headers of this request, besides the ones the client always sends. Shared, as they are
    /// mostly the same for all requests of a tenant.
    pub headers: Arc<HeaderMap>,
    /// Whom the request counts for; a [`RetryScope::Tenant`](crate::delivery::RetryScope) verdict
    /// pauses all requests with the same tenant.
    pub tenant: Option<Arc<str>>,
    /// Hashes of the streams in it, tenant included. Sorted and without repeats; a request without
    /// lanes is sent in any order.
    pub lanes: Vec<u64>,
    /// Records in it.
    pub items: u64,
    /// What the judge remembers about it.
    pub refusals: Refusals,
    /// The duty to deliver it.
    pub duty: D,
}

impl<D: Duty> OutgoingRequest<D> {
    /// A request; `lanes` may come in any order and with repeats.
    pub fn new(
        body: Vec<Bytes>,
        headers: Arc<HeaderMap>,
        tenant: Option<Arc<str>>,
        mut lanes: Vec<u64>,
        items: u64,
        duty: D,
    ) -> OutgoingRequest<D> {
        lanes.sort_unstable();
        lanes.dedup();
        OutgoingRequest {
            body,
            headers,
            tenant,
            lanes,
            items,
            refusals: Refusals::default(),
            duty,
        }
    }

    /// A part of this request, for [`Verdict::Replace`](crate::delivery::Verdict::Replace): same
    /// headers and tenant, a share of the duty. `lanes` must be among the lanes of this request;
    /// if one is not, the part takes all of them, which keeps the order and costs parallelism.
    pub fn part(&mut self, body: Vec<Bytes>, lanes: Vec<u64>, items: u64) -> OutgoingRequest<D> {
        let (headers, tenant) = (self.headers.clone(), self.tenant.clone());
        let mut part = OutgoingRequest::new(body, headers, tenant, lanes, items, self.duty.share());
        part.refusals.divisions = self.refusals.divisions + 1;
        part
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_pipeline::ack::NoSink;
    use tailwater_pipeline::{AckWindow, Front};

    #[test]
    fn dropped_records_of_parts_never_exceed_what_a_token_has() {
        let mut w: AckWindow<u32> = AckWindow::new(Arc::new(NoSink), 0);
        let mut acks = Acks::new();
        let t = w.reserve(1, 100, 1);
        acks.add(t.clone(), 60);
        acks.add(t, 40);
        acks.add(w.reserve(2, 50, 1), 50);
        assert_eq!(acks.len(), 2);
        let mut a = acks.share();
        let mut b = acks.share();
        acks.resolve(Outcome::Delivered);
        a.count_dropped(DropReason::TooOld, 75);
        b.count_dropped(DropReason::TooOld, 75);
        a.resolve(Outcome::Delivered);
        assert_eq!(w.advance(|_| panic!("a part is open")), Front::Waiting);
        b.resolve(Outcome::Refused);
        let mut dropped = Vec::new();
        assert_eq!(
            w.advance(|s| dropped.push(s.counts.dropped_total())),
            Front::Empty
        );
        assert_eq!(dropped, [100, 50]);
    }

    #[test]
    fn a_part_that_is_retried_rewinds_the_source() {
        let mut w: AckWindow<u32> = AckWindow::new(Arc::new(NoSink), 0);
        let mut acks = Acks::new();
        acks.add(w.reserve(1, 10, 1), 10);
        let part = acks.share();
        acks.resolve(Outcome::Delivered);
        part.resolve(Outcome::Retry);
        assert_eq!(
            w.advance(|_| panic!("not final")),
            Front::Rewind(Outcome::Retry)
        );
    }

    #[test]
    fn lanes_are_sorted_and_unique() {
        let r = OutgoingRequest::new(
            vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")],
            Arc::default(),
            None,
            vec![3, 1, 3],
            1,
            Acks::new(),
        );
        assert_eq!((r.lanes.as_slice(), r.body_bytes()), (&[1, 3][..], 3));
    }
}
