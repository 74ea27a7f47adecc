//! Delivery duty: every batch carries a token, and the contiguous resolved prefix of a source's
//! tokens is what its checkpoint may store.
//!
//! A token is reserved before its batch is emitted. Resolving it never blocks, allocates or fails;
//! dropping it unresolved counts as [`Outcome::Lost`], which is a bug that shows, not a silent
//! success. Clones (a batch that was cut in two, a request that holds parts of several batches)
//! each add one to what is pending, and the worst outcome wins.

mod made_of;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::client::ClientInfo;

/// What became of the records behind a token. Ordered: the worst wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Outcome {
    /// The destination accepted them.
    Delivered = 0,
    /// A component removed them on purpose.
    Filtered = 1,
    /// Given up by a counted and logged decision.
    Refused = 2,
    /// Not delivered; the source must offer them again.
    Retry = 3,
    /// A token was dropped unresolved: a bug. Treated as [`Outcome::Retry`], and counted.
    Lost = 4,
}

impl Outcome {
    fn from_u8(v: u8) -> Outcome {
        match v {
            0 => Outcome::Delivered,
            1 => Outcome::Filtered,
            2 => Outcome::Refused,
            3 => Outcome::Retry,
            _ => Outcome::Lost,
        }
    }

    /// True if a checkpoint may move past the records.
    pub fn is_final(self) -> bool {
        self <= Outcome::Refused
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why records were given up. The names are the values of the `reason` label.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason, in order of its discriminant.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];
            /// The `reason` labels, in the order of [`DropReason::ALL`].
            pub const NAMES: &'static [&'static str] = &[$($text,)*];
            /// Number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// The value of the `reason` label.
            pub fn as_str(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    /// Older than the destination accepts.
    TooOld = "too_old",
    /// Further in the future than the destination accepts.
    TooNew = "too_new",
    /// Too far behind the newest entry of its stream.
    TooFarBehind = "too_far_behind",
    /// Longer than the destination accepts.
    LineTooLong = "line_too_long",
    /// Labels that the destination does not accept.
    InvalidLabels = "invalid_labels",
    /// Structured metadata that the destination does not accept.
    InvalidMetadata = "invalid_metadata",
    /// Larger than the destination accepts in one piece.
    TooLarge = "too_large",
    /// The destination's rate limit, when the user chose to drop.
    RateLimited = "rate_limited",
    /// The destination's limit of streams, when the user chose to drop.
    StreamLimit = "stream_limit",
    /// The tenant is blocked or its id is not valid.
    TenantRefused = "tenant_refused",
    /// Rejected by the destination for another reason.
    Rejected = "rejected",
    /// The retry budget that the user set was used up.
    RetriesExhausted = "retries_exhausted",
    /// An operator failed and `on_error: drop` was set.
    OperatorError = "operator_error",
    /// It could not be encoded.
    EncodeError = "encode_error",
    /// Its file was truncated before it was delivered, so it cannot be read again.
    Truncated = "truncated",
    /// Its file is gone and was held for as long as the user allows.
    Abandoned = "abandoned",
    /// No route of a connector takes it.
    Unrouted = "unrouted",
    /// Not delivered and handed back to its sender, who was told to send it again.
    HandedBack = "handed_back",
    /// There was no room for it, and its protocol cannot make its sender wait.
    NoRoom = "no_room",
}

/// What happened to single records behind a token that as a whole was resolved as final.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that a component removed on purpose.
    pub filtered: u32,
    /// Records given up, by [`DropReason`].
    pub dropped: [u32; DropReason::COUNT],
}

impl Counts {
    /// Records given up for any reason.
    pub fn dropped_total(&self) -> u32 {
        self.dropped.iter().sum()
    }
}

/// Told when the last clone of a token was resolved. Must not block.
pub trait AckSink: Send + Sync {
    /// `key` is what [`AckToken::new`] was given.
    fn settled(&self, key: u64, outcome: Outcome, counts: &Counts);

    /// Whether the source itself offers again what is not delivered. False for data that is pushed:
    /// with such an outcome it is its sender's again, and nobody here knows whether it comes back.
    fn offers_again(&self) -> bool {
        true
    }

    /// Who sent the data, if it was pushed.
    fn client(&self) -> Option<Arc<ClientInfo>> {
        None
    }

    /// Which source the token with `key` is of.
    fn source(&self, key: u64) -> SourceId {
        SourceId::of(self, key)
    }
}

/// Tells apart the sources whose tokens are held at the same time, such as files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceId(usize, u64);

impl SourceId {
    /// That of a sink which stands for its sources itself.
    pub fn of<S: ?Sized>(sink: &S, key: u64) -> SourceId {
        SourceId(std::ptr::from_ref(sink).cast::<()>() as usize, key)
    }
}

/// An [`AckSink`] for data that nobody waits for.
#[derive(Debug, Default)]
pub struct NoSink;

impl AckSink for NoSink {
    fn settled(&self, _key: u64, _outcome: Outcome, _counts: &Counts) {}
}

struct Ticket {
    pending: AtomicU32,
    worst: AtomicU8,
    filtered: AtomicU32,
    dropped: [AtomicU32; DropReason::COUNT],
    key: u64,
    sink: Arc<dyn AckSink>,
}

impl Ticket {
    fn counts(&self) -> Counts {
        Counts {
            filtered: self.filtered.load(Ordering::Acquire),
            dropped: std::array::from_fn(|i| self.dropped[i].load(Ordering::Acquire)),
        }
    }

    /// The outcome once nothing is pending.
    fn outcome(&self) -> Option<Outcome> {
        let done = self.pending.load(Ordering::Acquire) == 0;
        done.then(|| Outcome::from_u8(self.worst.load(Ordering::Acquire)))
    }

    fn resolve_one(&self, outcome: Outcome) {
        self.worst.fetch_max(outcome as u8, Ordering::AcqRel);
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            let worst = Outcome::from_u8(self.worst.load(Ordering::Acquire));
            self.sink.settled(self.key, worst, &self.counts());
        }
    }
}

/// The duty to say what became of some records. See the module's documentation.
#[must_use = "a token that is dropped unresolved counts as lost"]
pub struct AckToken {
    ticket: Option<Arc<Ticket>>,
}

impl std::fmt::Debug for AckToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AckToken({:?})", self.ticket.as_ref().map(|t| t.key))
    }
}

impl AckToken {
    /// A token whose fate `sink` is told, with `key`.
    pub fn new(sink: Arc<dyn AckSink>, key: u64) -> AckToken {
        let ticket = Ticket {
            pending: AtomicU32::new(1),
            worst: AtomicU8::new(0),
            filtered: AtomicU32::new(0),
            dropped: Default::default(),
            key,
            sink,
        };
        AckToken {
            ticket: Some(Arc::new(ticket)),
        }
    }

    /// A token nobody waits for.
    pub fn detached() -> AckToken {
        AckToken::new(Arc::new(NoSink), 0)
    }

    fn ticket(&self) -> &Arc<Ticket> {
        self.ticket
            .as_ref()
            .expect("only resolve() and drop take the ticket, and they consume self")
    }

    /// Counts records of this token's batch that a component removed on purpose.
    pub fn count_filtered(&self, records: u32) {
        self.ticket().filtered.fetch_add(records, Ordering::AcqRel);
    }

    /// Counts records of this token's batch that were given up.
    pub fn count_dropped(&self, reason: DropReason, records: u32) {
        self.ticket().dropped[reason as usize].fetch_add(records, Ordering::AcqRel);
    }

    /// Says what became of the records. The worst outcome over all clones wins.
    pub fn resolve(mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            ticket.resolve_one(outcome);
        }
    }

    /// See [`AckSink::offers_again`].
    pub fn offers_again(&self) -> bool {
        self.ticket().sink.offers_again()
    }

    /// Who sent the data, if it was pushed.
    pub fn client(&self) -> Option<Arc<ClientInfo>> {
        self.ticket().sink.client()
    }

    /// The source of the data. Good for as long as a token of it is held.
    pub fn source(&self) -> SourceId {
        let ticket = self.ticket();
        ticket.sink.source(ticket.key)
    }

    /// True if both are clones of one token.
    pub fn same_as(&self, other: &AckToken) -> bool {
        Arc::ptr_eq(self.ticket(), other.ticket())
    }

    /// One token for records that are the duty of several sources, because some of them were made of
    /// text of each. The counts go to `self`; the outcome goes to all.
    pub fn join(self, others: Vec<AckToken>) -> AckToken {
        if others.is_empty() {
            return self;
        }
        let sink = Join(Mutex::new(Some((self, others))));
        AckToken::new(Arc::new(sink), 0)
    }

    /// Tokens for `n` branches that each get all of the records. The parent is resolved when all
    /// branches are, with the worst outcome; a record counts as dropped if any branch dropped it
    /// (the largest count of a branch) and as filtered if every branch did (the smallest).
    pub fn fork(self, n: usize) -> Vec<AckToken> {
        if n == 0 {
            self.resolve(Outcome::Filtered);
            return Vec::new();
        }
        if n == 1 {
            return vec![self];
        }
        let state = ForkState {
            parent: Some(self),
            pending: n,
            worst: Outcome::Delivered,
            counts: Counts {
                filtered: u32::MAX,
                ..Counts::default()
            },
        };
        let sink: Arc<dyn AckSink> = Arc::new(Fork(Mutex::new(state)));
        (0..n as u64)
            .map(|key| AckToken::new(sink.clone(), key))
            .collect()
    }
}

impl Clone for AckToken {
    fn clone(&self) -> AckToken {
        let ticket = self.ticket();
        ticket.pending.fetch_add(1, Ordering::AcqRel);
        AckToken {
            ticket: Some(ticket.clone()),
        }
    }
}

/// Tokens that were dropped unresolved since the process began. A bug when not 0, but for those
/// that a stop leaves.
pub fn tokens_lost() -> u64 {
    TOKENS_LOST.load(Ordering::Relaxed)
}

static TOKENS_LOST: AtomicU64 = AtomicU64::new(0);

impl Drop for AckToken {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            TOKENS_LOST.fetch_add(1, Ordering::Relaxed);
            ticket.resolve_one(Outcome::Lost);
        }
    }
}

/// Passes the outcome on to the tokens of several sources.
struct Join(Mutex<Option<(AckToken, Vec<AckToken>)>>);

impl AckSink for Join {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let tokens = self.0.lock().unwrap_or_else(|e| e.into_inner()).take();
        let Some((first, others)) = tokens else {
            return;
        };
        first.count_filtered(counts.filtered);
        for (reason, n) in DropReason::ALL.iter().zip(counts.dropped) {
            first.count_dropped(*reason, n);
        }
        first.resolve(outcome);
        others.into_iter().for_each(|t| t.resolve(outcome));
    }

    fn offers_again(&self) -> bool {
        let tokens = self.0.lock().unwrap_or_else(|e| e.into_inner());
        tokens
            .as_ref()
            .is_none_or(|(first, _)| first.offers_again())
    }

    fn client(&self) -> Option<Arc<ClientInfo>> {
        let tokens = self.0.lock().unwrap_or_else(|e| e.into_inner());
        tokens.as_ref().and_then(|(first, _)| first.client())
    }

    fn source(&self, key: u64) -> SourceId {
        let tokens = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let own = SourceId::of(self, key);
        tokens.as_ref().map_or(own, |(first, _)| first.source())
    }
}

struct ForkState {
    parent: Option<AckToken>,
    pending: usize,
    worst: Outcome,
    counts: Counts,
}

/// Joins the branches of a fan-out. Locked once per batch and branch.
struct Fork(Mutex<ForkState>);

impl AckSink for Fork {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let mut s = self.0.lock().unwrap_or_else(|e| e.into_inner());
        s.worst = s.worst.max(outcome);
        s.counts.filtered = s.counts.filtered.min(counts.filtered);
        for (all, one) in s.counts.dropped.iter_mut().zip(counts.dropped) {
            *all = (*all).max(one);
        }
        s.pending -= 1;
        if s.pending > 0 {
            return;
        }
        if let Some(parent) = s.parent.take() {
            parent.count_filtered(s.counts.filtered);
            for (reason, n) in DropReason::ALL.iter().zip(s.counts.dropped) {
                parent.count_dropped(*reason, n);
            }
            parent.resolve(s.worst);
        }
    }

    fn offers_again(&self) -> bool {
        let s = self.0.lock().unwrap_or_else(|e| e.into_inner());
        s.parent.as_ref().is_none_or(AckToken::offers_again)
    }

    fn client(&self) -> Option<Arc<ClientInfo>> {
        let s = self.0.lock().unwrap_or_else(|e| e.into_inner());
        s.parent.as_ref().and_then(AckToken::client)
    }

    fn source(&self, key: u64) -> SourceId {
        let s = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let own = SourceId::of(self, key);
        s.parent.as_ref().map_or(own, AckToken::source)
    }
}

/// One emitted batch that was settled.
#[derive(Debug)]
pub struct Settled<P> {
    /// What the owner stored with the batch: where its source stands after it.
    pub position: P,
    /// Records in the batch.
    pub records: u32,
    /// Bytes of the batch, as the owner counted them.
    pub bytes: u64,
    /// What became of single records.
    pub counts: Counts,
}

struct Slot<P> {
    ticket: Arc<Ticket>,
    position: P,
    records: u32,
    bytes: u64,
}

impl<P> Slot<P> {
    fn settled(self) -> Settled<P> {
        Settled {
            counts: self.ticket.counts(),
            position: self.position,
            records: self.records,
            bytes: self.bytes,
        }
    }
}

/// The batches of one source that are under way, in order. Owned by the source's shard.
pub struct AckWindow<P> {
    slots: VecDeque<Slot<P>>,
    sink: Arc<dyn AckSink>,
    key: u64,
    bytes: u64,
    records: u64,
}

/// What [`AckWindow::advance`] found at the front.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Front {
    /// Nothing is under way.
    Empty,
    /// The oldest batch is not settled yet.
    Waiting,
    /// The oldest batch was not delivered: the source must go back and offer it again.
    Rewind(Outcome),
    /// The oldest batch is settled, and the owner does not take it yet.
    Held,
}

impl<P> AckWindow<P> {
    /// A window whose tokens report to `sink` with `key`.
    pub fn new(sink: Arc<dyn AckSink>, key: u64) -> AckWindow<P> {
        AckWindow {
            slots: VecDeque::new(),
            sink,
            key,
            bytes: 0,
            records: 0,
        }
    }

    /// Number of batches under way.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True if nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes under way.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records under way.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Reserves the duty for a batch; `position` is where the source stands after it.
    pub fn reserve(&mut self, position: P, records: u32, bytes: u64) -> AckToken {
        let token = AckToken::new(self.sink.clone(), self.key);
        let ticket = token.ticket().clone();
        self.slots.push_back(Slot {
            ticket,
            position,
            records,
            bytes,
        });
        self.bytes += bytes;
        self.records += u64::from(records);
        token
    }

    /// What the owner stored with the batches under way, oldest first.
    pub fn positions(&self) -> impl Iterator<Item = &P> {
        self.slots.iter().map(|slot| &slot.position)
    }

    /// What the owner stored with the oldest batch, if that is settled as final.
    pub fn front_final(&self) -> Option<&P> {
        let front = self.slots.front()?;
        let is_final = front.ticket.outcome().is_some_and(Outcome::is_final);
        is_final.then_some(&front.position)
    }

    /// Takes the settled prefix, oldest first, and says why it stopped.
    pub fn advance(&mut self, settled: impl FnMut(Settled<P>)) -> Front {
        self.advance_while(|_| true, settled)
    }

    /// The same, up to the first batch that the owner does not want to `take`.
    pub fn advance_while(
        &mut self,
        mut take: impl FnMut(&P) -> bool,
        mut settled: impl FnMut(Settled<P>),
    ) -> Front {
        while let Some(front) = self.slots.front() {
            match front.ticket.outcome() {
                None => return Front::Waiting,
                Some(outcome) if !outcome.is_final() => return Front::Rewind(outcome),
                Some(_) if !take(&front.position) => return Front::Held,
                Some(_) => {}
            }
            if let Some(slot) = self.slots.pop_front() {
                self.bytes -= slot.bytes;
                self.records -= u64::from(slot.records);
                settled(slot.settled());
            }
        }
        Front::Empty
    }

    /// Ends the duty for a source that is given up. `settled` gets every batch that was settled
    /// as final, also behind one that was not. Returns the records and bytes of the others; what
    /// becomes of those later is not told any more.
    pub fn give_up(&mut self, mut settled: impl FnMut(Settled<P>)) -> (u64, u64) {
        let mut left = (0, 0);
        for slot in self.slots.drain(..) {
            if slot.ticket.outcome().is_some_and(Outcome::is_final) {
                settled(slot.settled());
            } else {
                left.0 += u64::from(slot.records);
                left.1 += slot.bytes;
            }
        }
        (self.records, self.bytes) = (0, 0);
        left
    }

    /// Gives memory back while nothing is under way; for a source that is at rest.
    pub fn rest(&mut self) {
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
    }

    /// Forgets everything under way (before a rewind). Returns the records and bytes forgotten.
    pub fn clear(&mut self) -> (u64, u64) {
        self.slots.clear();
        (
            std::mem::take(&mut self.records),
            std::mem::take(&mut self.bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counter(AtomicU64);
    impl AckSink for Counter {
        fn settled(&self, _key: u64, _outcome: Outcome, _counts: &Counts) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn window() -> (AckWindow<u64>, Arc<Counter>) {
        let c = Arc::new(Counter::default());
        (AckWindow::new(c.clone(), 1), c)
    }

    #[test]
    fn only_the_contiguous_prefix_is_taken() {
        let (mut w, told) = window();
        let (a, b, c) = (
            w.reserve(10, 1, 1),
            w.reserve(20, 1, 1),
            w.reserve(30, 1, 1),
        );
        b.resolve(Outcome::Delivered);
        let mut seen = Vec::new();
        assert_eq!(w.advance(|s| seen.push(s.position)), Front::Waiting);
        assert!(seen.is_empty());
        a.resolve(Outcome::Filtered);
        assert_eq!(w.advance(|s| seen.push(s.position)), Front::Waiting);
        assert_eq!(seen, [10, 20]);
        c.resolve(Outcome::Refused);
        assert_eq!(w.advance(|s| seen.push(s.position)), Front::Empty);
        assert_eq!(seen, [10, 20, 30]);
        assert_eq!(told.0.load(Ordering::SeqCst), 3);
        assert_eq!((w.bytes(), w.records()), (0, 0));
    }

    #[test]
    fn a_settled_batch_waits_while_its_owner_does_not_take_it() {
        let (mut w, _) = window();
        w.reserve(10, 1, 1).resolve(Outcome::Delivered);
        w.reserve(20, 1, 1).resolve(Outcome::Delivered);
        let mut seen = Vec::new();
        let front = w.advance_while(|p| *p < 20, |s| seen.push(s.position));
        assert_eq!((front, seen), (Front::Held, vec![10]));
        assert_eq!(w.front_final(), Some(&20));
        let again = w.reserve(30, 1, 1);
        assert_eq!(w.positions().collect::<Vec<_>>(), [&20, &30]);
        assert_eq!(w.advance(|_| {}), Front::Waiting);
        assert_eq!(w.front_final(), None, "not settled");
        again.resolve(Outcome::Retry);
        assert_eq!(w.front_final(), None, "not final");
        assert_eq!(
            w.advance_while(|_| false, |_| {}),
            Front::Rewind(Outcome::Retry)
        );
    }

    #[test]
    fn a_dropped_token_is_lost_and_never_passes_as_delivered() {
        let (mut w, _) = window();
        let t = w.reserve(10, 1, 1);
        let clone = t.clone();
        t.resolve(Outcome::Delivered);
        assert_eq!(w.advance(|_| panic!("nothing is settled")), Front::Waiting);
        let before = tokens_lost();
        drop(clone);
        assert!(tokens_lost() > before, "and it is counted");
        assert_eq!(
            w.advance(|_| panic!("lost is not settled")),
            Front::Rewind(Outcome::Lost)
        );
        assert_eq!(w.clear(), (1, 1));
    }

    #[test]
    fn a_joint_token_is_the_duty_of_every_source() {
        let ((mut a, _), (mut b, _)) = (window(), window());
        let joint = a.reserve(10, 3, 1).join(vec![b.reserve(7, 0, 0)]);
        let part = joint.clone();
        joint.count_dropped(DropReason::TooOld, 1);
        joint.resolve(Outcome::Delivered);
        assert_eq!(b.advance(|_| panic!("a part is open")), Front::Waiting);
        part.resolve(Outcome::Delivered);
        let mut dropped = Vec::new();
        a.advance(|s| dropped.push((s.position, s.counts.dropped_total())));
        b.advance(|s| dropped.push((s.position, s.counts.dropped_total())));
        assert_eq!(dropped, [(10, 1), (7, 0)]);
        let joint = a.reserve(20, 1, 1).join(vec![b.reserve(9, 0, 0)]);
        joint.resolve(Outcome::Retry);
        let rewind = Front::Rewind(Outcome::Retry);
        assert_eq!(a.advance(|_| panic!("handed back")), rewind);
        assert_eq!(b.advance(|_| panic!("handed back")), rewind);
    }

    #[test]
    fn giving_up_takes_what_was_delivered_behind_what_was_not() {
        let (mut w, _) = window();
        let (a, b, c, d) = (
            w.reserve(10, 1, 10),
            w.reserve(20, 2, 20),
            w.reserve(30, 4, 40),
            w.reserve(40, 8, 80),
        );
        a.resolve(Outcome::Delivered);
        c.count_dropped(DropReason::TooOld, 1);
        c.resolve(Outcome::Delivered);
        d.resolve(Outcome::Retry);
        let mut seen = Vec::new();
        let left = w.give_up(|s| seen.push((s.position, s.counts.dropped_total())));
        assert_eq!(seen, [(10, 0), (30, 1)]);
        assert_eq!(left, (10, 100), "one under way, one handed back");
        assert!(w.is_empty() && (w.records(), w.bytes()) == (0, 0));
        b.resolve(Outcome::Delivered);
        assert_eq!(w.advance(|_| panic!("nobody is told")), Front::Empty);
    }

    #[test]
    fn a_fan_out_is_as_good_as_its_worst_branch() {
        let (mut w, _) = window();
        let mut branches = w.reserve(10, 5, 1).fork(2);
        let (a, b) = (branches.remove(0), branches.remove(0));
        a.count_dropped(DropReason::TooOld, 2);
        a.count_filtered(1);
        a.resolve(Outcome::Delivered);
        assert_eq!(w.advance(|_| panic!("one branch is open")), Front::Waiting);
        b.count_dropped(DropReason::TooOld, 1);
        b.resolve(Outcome::Delivered);
        let mut counts = None;
        w.advance(|s| counts = Some(s.counts));
        let counts = counts.unwrap();
        assert_eq!((counts.filtered, counts.dropped_total()), (0, 2));
    }

    proptest::proptest! {
        #[test]
        fn property_the_window_never_passes_an_unsettled_batch(
            order in proptest::collection::vec((0usize..16, 0u8..5), 0..48),
        ) {
            let (mut w, _) = window();
            let mut tokens: Vec<Option<AckToken>> =
                (0..16u64).map(|i| Some(w.reserve(i, 1, 1))).collect();
            let mut outcomes = [None; 16];
            let mut taken = 0u64;
            for (i, o) in order {
                let Some(t) = tokens[i].take() else { continue };
                let outcome = Outcome::from_u8(o);
                t.resolve(outcome);
                outcomes[i] = Some(outcome);
                let mut next = taken;
                let front = w.advance(|s| {
                    assert_eq!(s.position, next);
                    next += 1;
                });
                taken = next;
                let expect = outcomes.iter().take_while(|o| o.is_some_and(|o| o.is_final())).count();
                proptest::prop_assert_eq!(taken, expect as u64);
                match outcomes.get(expect).copied().flatten() {
                    Some(o) => proptest::prop_assert_eq!(front, Front::Rewind(o)),
                    None if expect == 16 => proptest::prop_assert_eq!(front, Front::Empty),
                    None => proptest::prop_assert_eq!(front, Front::Waiting),
                }
            }
        }
    }
}
