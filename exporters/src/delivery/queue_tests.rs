use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{Admission, DropReason, Outcome};

use super::*;

/// What became of the duties of a test, by request.
#[derive(Default)]
struct Book {
    /// Duties that are open, per request.
    open: HashMap<u64, usize>,
    outcomes: Vec<(u64, Outcome)>,
    dropped: u64,
}

#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Book>>);

struct TestDuty {
    request: u64,
    ledger: Ledger,
    resolved: bool,
}

impl Ledger {
    fn duty(&self, request: u64) -> TestDuty {
        *self.0.lock().unwrap().open.entry(request).or_default() += 1;
        TestDuty {
            request,
            ledger: self.clone(),
            resolved: false,
        }
    }

    fn open(&self) -> usize {
        self.0.lock().unwrap().open.values().sum()
    }

    fn outcomes(&self) -> Vec<(u64, Outcome)> {
        self.0.lock().unwrap().outcomes.clone()
    }
}

impl Duty for TestDuty {
    fn share(&mut self) -> TestDuty {
        self.ledger.duty(self.request)
    }
    fn count_dropped(&mut self, _reason: DropReason, items: u64) {
        self.ledger.0.lock().unwrap().dropped += items;
    }
    fn resolve(mut self, outcome: Outcome) {
        self.resolved = true;
        let mut book = self.ledger.0.lock().unwrap();
        *book.open.get_mut(&self.request).expect("opened before") -= 1;
        book.outcomes.push((self.request, outcome));
    }
}

impl Drop for TestDuty {
    fn drop(&mut self) {
        assert!(
            self.resolved || std::thread::panicking(),
            "request {} was lost",
            self.request
        );
    }
}

type Queue = DeliveryQueue<TestDuty>;
type Request = OutgoingRequest<TestDuty>;

/// A request whose number is in its body.
fn request(ledger: &Ledger, n: u64, tenant: &str, lanes: &[u64], items: u64) -> Request {
    let tenant = (!tenant.is_empty()).then(|| tenant.into());
    let body = vec![Bytes::copy_from_slice(&n.to_be_bytes())];
    OutgoingRequest::new(
        body,
        Arc::default(),
        tenant,
        lanes.to_vec(),
        items,
        ledger.duty(n),
    )
}

fn number(r: &Request) -> u64 {
    u64::from_be_bytes(r.body[0][..].try_into().expect("eight bytes"))
}

fn queue(num_consumers: usize) -> Queue {
    let queue = QueueOptions {
        num_consumers,
        ..QueueOptions::default()
    };
    let retry = RetryOptions {
        randomization_factor: 0.0,
        ..RetryOptions::default()
    };
    DeliveryQueue::new(queue, retry, 1)
}

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000_000)
}

fn retry<D>(scope: RetryScope) -> Verdict<D> {
    Verdict::Retry {
        scope,
        after: None,
        cause: "test".into(),
    }
}

fn send_all(q: &mut Queue, now: Mono) -> Vec<Attempt<TestDuty>> {
    std::iter::from_fn(|| q.next_to_send(now)).collect()
}

fn numbers(attempts: &[Attempt<TestDuty>]) -> Vec<u64> {
    attempts.iter().map(|a| number(&a.request)).collect()
}

#[test]
fn requests_that_share_a_lane_go_one_after_another() {
    let (mut q, l) = (queue(10), Ledger::default());
    for (n, lanes) in [(1, &[1, 2][..]), (2, &[2, 3]), (3, &[4]), (4, &[3, 1])] {
        q.submit(at(0), request(&l, n, "", lanes, 1));
    }
    let mut sent = send_all(&mut q, at(0));
    assert_eq!(numbers(&sent), [1, 3]);
    q.on_result(at(0), sent.remove(0), Verdict::Delivered);
    let mut next = send_all(&mut q, at(0));
    assert_eq!(numbers(&next), [2], "4 still waits for lane 3");
    q.on_result(at(0), next.remove(0), Verdict::Delivered);
    let mut next = send_all(&mut q, at(0));
    assert_eq!(numbers(&next), [4]);
    q.on_result(at(0), next.remove(0), Verdict::Delivered);
    q.on_result(at(0), sent.remove(0), Verdict::Delivered);
    assert!(q.is_empty() && l.open() == 0);
    assert_eq!(q.stats().sent_items(), 4);
}

#[test]
fn a_request_in_backoff_holds_its_own_lanes_only() {
    let (mut q, l) = (queue(4), Ledger::default());
    for (n, lane) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        q.submit(at(0), request(&l, n, "", &[lane], 1));
    }
    let mut sent = send_all(&mut q, at(0));
    assert_eq!(numbers(&sent), [1, 3]);
    let d = q.on_result(at(0), sent.remove(0), retry(RetryScope::Request));
    assert_eq!(d, Decision::RetryIn(Duration::from_secs(5)));
    q.on_result(at(0), sent.remove(0), Verdict::Delivered);
    let mut sent = send_all(&mut q, at(0));
    assert_eq!(numbers(&sent), [4]);
    q.on_result(at(0), sent.remove(0), Verdict::Delivered);
    assert_eq!(q.next_wakeup(), Some(at(5)));
    let mut sent = send_all(&mut q, at(5));
    assert_eq!(numbers(&sent), [1]);
    q.on_result(at(5), sent.remove(0), Verdict::Delivered);
    let mut sent = send_all(&mut q, at(5));
    assert_eq!(numbers(&sent), [2]);
    q.on_result(at(5), sent.remove(0), Verdict::Delivered);
    assert_eq!(l.open(), 0);
}

#[test]
fn parts_take_the_place_of_the_whole_in_every_lane() {
    let (mut q, l) = (queue(10), Ledger::default());
    q.submit(at(0), request(&l, 1, "", &[1, 2], 10));
    q.submit(at(0), request(&l, 2, "", &[1], 1));
    q.submit(at(0), request(&l, 3, "", &[2], 1));
    let mut a = send_all(&mut q, at(0)).remove(0);
    let part = |r: &mut Request, n: u64, lanes: &[u64], items| {
        r.part(
            vec![Bytes::copy_from_slice(&n.to_be_bytes())],
            lanes.to_vec(),
            items,
        )
    };
    let parts = vec![
        part(&mut a.request, 11, &[1], 4),
        part(&mut a.request, 12, &[2], 3),
        part(&mut a.request, 13, &[1], 1),
    ];
    let dropped = vec![(DropReason::TooOld, 2)];
    assert_eq!(
        q.on_result(at(0), a, Verdict::Replace { parts, dropped }),
        Decision::Replaced
    );
    q.submit(at(0), request(&l, 4, "", &[1], 1));
    let mut order = Vec::new();
    while let Some(a) = q.next_to_send(at(0)) {
        order.push(number(&a.request));
        let mut held = send_all(&mut q, at(0));
        order.extend(numbers(&held));
        for a in held.drain(..).chain([a]) {
            q.on_result(at(0), a, Verdict::Delivered);
        }
    }
    let lane = |of: &[u64]| {
        order
            .iter()
            .copied()
            .filter(|n| of.contains(n))
            .collect::<Vec<_>>()
    };
    assert_eq!(lane(&[11, 13, 2, 4]), [11, 13, 2, 4]);
    assert_eq!(lane(&[12, 3]), [12, 3]);
    assert_eq!(l.open(), 0);
    let s = q.stats();
    assert_eq!((s.sent_items(), s.dropped(DropReason::TooOld)), (11, 2));
}

#[test]
fn records_that_a_replacement_leaves_out_are_counted_as_dropped() {
    let (mut q, l) = (queue(1), Ledger::default());
    q.submit(at(0), request(&l, 1, "", &[1], 10));
    let a = q.next_to_send(at(0)).expect("one is ready");
    q.on_result(
        at(0),
        a,
        Verdict::Replace {
            parts: vec![],
            dropped: vec![],
        },
    );
    assert_eq!(q.stats().dropped(DropReason::Rejected), 10);
    assert!(q.is_empty() && l.open() == 0);
}

#[test]
fn a_judge_that_replaces_for_ever_is_stopped() {
    let (mut q, l) = (queue(1), Ledger::default());
    q.submit(at(0), request(&l, 1, "", &[1], 3));
    let mut rounds = 0;
    while let Some(mut a) = q.next_to_send(at(0)) {
        let body = a.request.body.clone();
        let parts = vec![a.request.part(body, vec![1], 3)];
        q.on_result(
            at(0),
            a,
            Verdict::Replace {
                parts,
                dropped: vec![],
            },
        );
        rounds += 1;
        assert!(rounds < 100);
    }
    assert_eq!((q.stats().dropped_items(), l.open()), (3, 0));
}

#[test]
fn a_throttled_tenant_leaves_others_unaffected() {
    let (mut q, l) = (queue(4), Ledger::default());
    for n in 0..1000 {
        q.submit(at(0), request(&l, n, "a", &[n], 1));
        q.submit(at(0), request(&l, 1000 + n, "b", &[1000 + n], 1));
    }
    let (mut tries, mut delivered) = (0, 0);
    while delivered < 1000 {
        let sent = send_all(&mut q, at(0));
        assert!(!sent.is_empty(), "b starves after {delivered}");
        for a in sent {
            let throttled = a.request.tenant.as_deref() == Some("a");
            tries += usize::from(throttled);
            delivered += usize::from(!throttled);
            let v = if throttled {
                retry(RetryScope::Tenant)
            } else {
                Verdict::Delivered
            };
            q.on_result(at(0), a, v);
        }
    }
    assert!(tries <= 4, "{tries} attempts of a paused tenant");
    assert_eq!(q.stats().paused_tenants(), 1);
    assert_eq!(q.next_wakeup(), Some(at(5)));
    let mut probe = send_all(&mut q, at(5));
    assert_eq!(
        probe.len(),
        1,
        "one request finds out whether the tenant may send again"
    );
    q.on_result(at(5), probe.remove(0), Verdict::Delivered);
    while let Some(a) = q.next_to_send(at(5)) {
        q.on_result(at(5), a, Verdict::Delivered);
    }
    assert!(q.is_empty() && l.open() == 0);
    assert_eq!(q.stats().paused_tenants(), 0);
}

#[test]
fn a_hanging_tenant_leaves_a_place_for_others() {
    let (mut q, l) = (queue(4), Ledger::default());
    q.submit(at(0), request(&l, 100, "other", &[100], 1));
    for n in 0..10 {
        q.submit(at(0), request(&l, n, "slow", &[n], 1));
    }
    let mut sent = send_all(&mut q, at(0));
    let other = sent
        .iter()
        .position(|a| number(&a.request) == 100)
        .expect("it was first");
    q.on_result(at(0), sent.remove(other), Verdict::Delivered);
    sent.extend(send_all(&mut q, at(0)));
    assert_eq!(sent.len(), 3, "the slow tenant does not get the last place");
    q.submit(at(1), request(&l, 101, "other", &[101], 1));
    let next = q.next_to_send(at(1)).expect("there is a place");
    assert_eq!(number(&next.request), 101);
    sent.push(next);
    for a in sent {
        q.on_result(
            at(2),
            a,
            Verdict::Drop {
                reason: DropReason::Rejected,
                cause: "x".into(),
            },
        );
    }
    q.abandon();
}

#[test]
fn a_dead_destination_is_probed_by_one_request_at_a_time() {
    for (scope, tries_max) in [(RetryScope::Destination, 60), (RetryScope::Request, 75)] {
        let (mut q, l) = (queue(10), Ledger::default());
        for n in 0..10_000 {
            q.submit(at(0), request(&l, n, "", &[n % 2000], 1));
        }
        let (mut now, mut tries) = (at(0), 0);
        while now < at(600) {
            for a in send_all(&mut q, now) {
                tries += 1;
                q.on_result(now, a, retry(scope));
            }
            now = q.next_wakeup().expect("there is a next try").max(now);
        }
        assert!(
            (20..tries_max).contains(&tries),
            "{scope:?}: {tries} attempts in ten minutes"
        );
        let mut open = send_all(&mut q, now);
        assert_eq!(open.len(), 1);
        q.on_result(now, open.remove(0), Verdict::Delivered);
        assert_eq!(send_all_then_deliver(&mut q, now), 9_999);
        assert_eq!(l.open(), 0);
    }
}

fn send_all_then_deliver(q: &mut Queue, mut now: Mono) -> usize {
    let mut delivered = 0;
    while !q.is_empty() {
        while let Some(a) = q.next_to_send(now) {
            q.on_result(now, a, Verdict::Delivered);
            delivered += 1;
        }
        now = q.next_wakeup().unwrap_or(now).max(now);
    }
    delivered
}

#[test]
fn a_poison_request_does_not_hold_up_the_rest() {
    let (mut q, l) = (queue(2), Ledger::default());
    for n in 0..100 {
        q.submit(at(0), request(&l, n, "", &[n], 1));
    }
    let (mut now, mut delivered) = (at(0), 0);
    while delivered < 99 {
        for a in send_all(&mut q, now) {
            let poison = number(&a.request) == 0;
            delivered += usize::from(!poison);
            let v = if poison {
                retry(RetryScope::Request)
            } else {
                Verdict::Delivered
            };
            q.on_result(now, a, v);
        }
        now = q.next_wakeup().unwrap_or(now).max(now);
        assert!(now < at(10), "{delivered} delivered");
    }
    q.abandon();
    assert_eq!(l.open(), 0);
}

#[test]
fn retries_end_only_where_the_user_set_an_end() {
    let once = RetryOptions {
        enabled: false,
        ..RetryOptions::default()
    };
    let minute = RetryOptions {
        max_elapsed_time: Duration::from_secs(60),
        ..RetryOptions::default()
    };
    for (options, tries_min, tries_max) in [(once, 1, 1), (minute, 4, 12)] {
        let l = Ledger::default();
        let mut q = DeliveryQueue::new(QueueOptions::default(), options, 5);
        q.submit(at(0), request(&l, 1, "", &[1], 7));
        let (mut now, mut tries) = (at(0), 0);
        while !q.is_empty() {
            if let Some(a) = q.next_to_send(now) {
                tries += 1;
                q.on_result(now, a, retry(RetryScope::Request));
            }
            now = q.next_wakeup().unwrap_or(now).max(now);
        }
        assert!((tries_min..=tries_max).contains(&tries), "{tries}");
        assert_eq!(l.outcomes(), [(1, Outcome::Refused)]);
        assert_eq!(q.stats().dropped(DropReason::RetriesExhausted), 7);
        assert!(now <= at(60));
    }
}

#[test]
fn a_destination_cannot_ask_for_an_endless_wait() {
    let (mut q, l) = (queue(1), Ledger::default());
    q.submit(at(0), request(&l, 1, "", &[1], 1));
    for (asked, waits) in [(60, 60), (u64::MAX, 900)] {
        let a = q.next_to_send(Mono(u64::MAX / 2)).expect("ready");
        let after = Some(Duration::from_secs(asked));
        let scope = RetryScope::Destination;
        let v = Verdict::Retry {
            scope,
            after,
            cause: "slow down".into(),
        };
        let d = q.on_result(at(0), a, v);
        assert_eq!(d, Decision::RetryIn(Duration::from_secs(waits)));
    }
    q.abandon();
}

#[test]
fn what_is_held_is_kept_and_raises_an_alarm_until_it_passes() {
    let (mut q, l) = (queue(2), Ledger::default());
    q.submit(at(0), request(&l, 1, "", &[1], 1));
    q.submit(at(0), request(&l, 2, "", &[2], 1));
    let a = q.next_to_send(at(0)).expect("ready");
    let v = Verdict::Hold {
        scope: RetryScope::Destination,
        cause: "no org id".into(),
    };
    assert_eq!(
        q.on_result(at(0), a, v),
        Decision::Held(Duration::from_secs(30))
    );
    assert_eq!(q.stats().alarm().as_deref(), Some("no org id"));
    assert!(q.next_to_send(at(29)).is_none());
    assert_eq!(q.stalled_for(at(29)), Duration::from_secs(29));
    let a = q.next_to_send(at(30)).expect("tried again");
    assert_eq!(number(&a.request), 2, "another request gets its chance");
    q.on_result(at(30), a, Verdict::Delivered);
    assert_eq!(q.stats().alarm(), None);
    assert_eq!(send_all_then_deliver(&mut q, at(30)), 1);
    assert_eq!(q.stalled_for(at(99)), Duration::ZERO);
}

#[test]
fn draining_returns_what_must_wait_and_what_is_behind_it() {
    let (mut q, l) = (queue(10), Ledger::default());
    for (n, lanes) in [(1, &[1][..]), (2, &[1, 2]), (3, &[2]), (4, &[9]), (5, &[9])] {
        q.submit(at(0), request(&l, n, "", lanes, n));
    }
    let mut sent = send_all(&mut q, at(0));
    assert_eq!(numbers(&sent), [1, 4]);
    q.on_result(at(0), sent.remove(0), retry(RetryScope::Request));
    assert_eq!(
        q.drain(at(0)),
        1 + 2 + 3,
        "2 and 3 would leave a gap in their lanes"
    );
    q.submit(at(0), request(&l, 6, "", &[6], 1));
    q.on_result(at(0), sent.remove(0), Verdict::Delivered);
    let a = q.next_to_send(at(0)).expect("5 gets one attempt");
    assert_eq!(
        q.on_result(at(0), a, retry(RetryScope::Request)),
        Decision::Returned
    );
    assert!(q.is_empty() && l.open() == 0);
    let returned: Vec<u64> = l
        .outcomes()
        .iter()
        .filter(|o| o.1 == Outcome::Retry)
        .map(|o| o.0)
        .collect();
    assert_eq!(returned.len(), 5);
    assert_eq!(q.stats().returned_items(), 6 + 1 + 5);
    assert_eq!(q.stats().queue_bytes(), 0);
}

#[test]
fn the_load_follows_the_sizer_and_the_bytes() {
    let l = Ledger::default();
    for (sizer, size, bytes_max, expect) in [
        (
            Sizer::Requests,
            4,
            1 << 20,
            [Admission::Open, Admission::Scarce, Admission::Closed],
        ),
        (
            Sizer::Items,
            40,
            1 << 20,
            [Admission::Open, Admission::Scarce, Admission::Closed],
        ),
        (
            Sizer::Bytes,
            32,
            1 << 20,
            [Admission::Open, Admission::Scarce, Admission::Closed],
        ),
        (
            Sizer::Requests,
            1000,
            32,
            [Admission::Open, Admission::Scarce, Admission::Closed],
        ),
    ] {
        let options = QueueOptions {
            sizer,
            queue_size: size,
            queue_bytes_max: bytes_max,
            ..QueueOptions::default()
        };
        let mut q = DeliveryQueue::new(options, RetryOptions::default(), 1);
        let mut seen = Vec::new();
        for n in 0..4 {
            q.submit(at(0), request(&l, n, "", &[n], 10));
            if n > 0 {
                seen.push(q.load().admission());
            }
        }
        assert_eq!(seen, expect, "{sizer:?}");
        q.abandon();
        assert_eq!(q.load().used, 0);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Submit {
        tenant: u8,
        lanes: Vec<u64>,
        items: u64,
    },
    Finish {
        which: prop::sample::Index,
        how: u8,
    },
    Advance {
        millis: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..3, prop::collection::vec(0u64..6, 0..4), 1u64..20)
            .prop_map(|(tenant, lanes, items)| Op::Submit { tenant, lanes, items }),
        5 => (any::<prop::sample::Index>(), 0u8..12)
            .prop_map(|(which, how)| Op::Finish { which, how }),
        1 => (0u64..20_000).prop_map(|millis| Op::Advance { millis }),
    ]
}

/// A model that checks the rules from outside.
struct Model {
    q: Queue,
    ledger: Ledger,
    now: Mono,
    next: u64,
    in_flight: Vec<Attempt<TestDuty>>,
    /// Place in the order of every unsettled request or part, with its lanes.
    waiting: HashMap<u64, (Vec<u64>, Vec<u64>)>,
    submitted: u64,
}

impl Model {
    fn new() -> Model {
        Model {
            q: queue(3),
            ledger: Ledger::default(),
            now: at(0),
            next: 0,
            in_flight: Vec::new(),
            waiting: HashMap::new(),
            submitted: 0,
        }
    }

    fn submit(&mut self, tenant: u8, lanes: &[u64], items: u64) {
        self.next += 1;
        let lanes: Vec<u64> = lanes.iter().map(|l| l + 100 * u64::from(tenant)).collect();
        let r = request(
            &self.ledger,
            self.next,
            &format!("t{tenant}"),
            &lanes,
            items,
        );
        self.waiting.insert(self.next, (vec![self.next], lanes));
        self.submitted += items;
        self.q.submit(self.now, r);
    }

    fn send(&mut self) {
        for a in send_all(&mut self.q, self.now) {
            let n = number(&a.request);
            let (place, lanes) = self.waiting[&n].clone();
            for (other, (p, l)) in &self.waiting {
                let shared = l.iter().any(|l| lanes.contains(l));
                assert!(*other == n || !shared || *p > place, "{n} overtook {other}");
            }
            self.in_flight.push(a);
        }
        assert!(self.in_flight.len() <= 3);
    }

    fn finish(&mut self, which: prop::sample::Index, how: u8) {
        if self.in_flight.is_empty() {
            return;
        }
        let mut a = self
            .in_flight
            .swap_remove(which.index(self.in_flight.len()));
        let n = number(&a.request);
        let scopes = [
            RetryScope::Request,
            RetryScope::Tenant,
            RetryScope::Destination,
        ];
        let verdict = match how {
            0..=2 => retry(scopes[how as usize]),
            3 => Verdict::Hold {
                scope: RetryScope::Tenant,
                cause: "h".into(),
            },
            4 => {
                self.waiting.remove(&n);
                Verdict::Drop {
                    reason: DropReason::Rejected,
                    cause: "d".into(),
                }
            }
            5 | 6 if a.request.items > 1 => self.split(&mut a, n),
            7 => {
                self.waiting.remove(&n);
                Verdict::DeliveredExcept {
                    dropped: vec![(DropReason::TooOld, 1)],
                }
            }
            _ => {
                self.waiting.remove(&n);
                Verdict::Delivered
            }
        };
        self.q.on_result(self.now, a, verdict);
    }

    /// Two parts: all lanes but the last, and the last but one with the last.
    fn split(&mut self, a: &mut Attempt<TestDuty>, n: u64) -> Verdict<TestDuty> {
        let (place, _) = self.waiting.remove(&n).expect("known");
        let lanes = a.request.lanes.clone();
        let items = a.request.items;
        let cuts = [
            &lanes[..lanes.len().saturating_sub(1)],
            &lanes[lanes.len().saturating_sub(2)..],
        ];
        let sizes = [items / 2, items - items / 2];
        let mut parts = Vec::new();
        for (i, (lanes, items)) in cuts.into_iter().zip(sizes).enumerate() {
            self.next += 1;
            let mut place = place.clone();
            place.push(i as u64);
            self.waiting.insert(self.next, (place, lanes.to_vec()));
            let body = vec![Bytes::copy_from_slice(&self.next.to_be_bytes())];
            parts.push(a.request.part(body, lanes.to_vec(), items));
        }
        Verdict::Replace {
            parts,
            dropped: vec![],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Lanes keep their order, every duty is resolved exactly once, nothing starves, and the books
    /// balance, whatever is submitted and answered.
    #[test]
    fn the_rules_hold_for_any_course_of_events(ops in prop::collection::vec(op(), 1..150)) {
        let mut m = Model::new();
        for op in ops {
            match op {
                Op::Submit { tenant, lanes, items } => m.submit(tenant, &lanes, items),
                Op::Finish { which, how } => m.finish(which, how),
                Op::Advance { millis } => m.now = Mono(m.now.0 + millis * 1_000_000),
            }
            m.send();
        }
        let mut rounds = 0;
        while !m.q.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 5000, "something starves");
            m.send();
            while let Some(a) = m.in_flight.pop() {
                m.waiting.remove(&number(&a.request));
                m.q.on_result(m.now, a, Verdict::Delivered);
            }
            m.send();
            if m.in_flight.is_empty() {
                match m.q.next_wakeup() {
                    Some(at) => m.now = m.now.max(at),
                    None => prop_assert!(m.q.is_empty(), "nothing to wait for, but not empty"),
                }
            }
        }
        prop_assert_eq!(m.ledger.open(), 0);
        let s = m.q.stats();
        prop_assert_eq!(s.sent_items() + s.dropped_items(), m.submitted);
        let gauges = (s.queue_items(), s.queue_bytes(), s.queue_requests(), s.in_flight_requests());
        prop_assert_eq!(gauges, (0, 0, 0, 0));
    }

    /// A drain at any moment settles every duty, none of them as lost or delivered by mistake.
    #[test]
    fn a_drain_at_any_moment_settles_everything(ops in prop::collection::vec(op(), 1..80)) {
        let mut m = Model::new();
        for op in ops {
            match op {
                Op::Submit { tenant, lanes, items } => m.submit(tenant, &lanes, items),
                Op::Finish { which, how } => m.finish(which, how),
                Op::Advance { millis } => m.now = Mono(m.now.0 + millis * 1_000_000),
            }
            m.send();
        }
        m.q.drain(m.now);
        for a in std::mem::take(&mut m.in_flight) {
            m.q.on_result(m.now, a, retry(RetryScope::Request));
        }
        m.q.abandon();
        prop_assert!(m.q.is_empty());
        prop_assert_eq!(m.ledger.open(), 0);
        let s = m.q.stats();
        prop_assert_eq!(s.sent_items() + s.dropped_items() + s.returned_items(), m.submitted);
    }
}
