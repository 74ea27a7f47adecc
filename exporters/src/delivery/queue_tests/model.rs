//! Any course of events, against a model.

use super::super::slots::{Phase, Usage};
use super::*;

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
    Divide {
        all: bool,
        by: u64,
    },
    Advance {
        millis: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..3, prop::collection::vec(0u64..6, 0..4), 1u64..20)
            .prop_map(|(tenant, lanes, items)| Op::Submit { tenant, lanes, items }),
        5 => (any::<prop::sample::Index>(), 0u8..13)
            .prop_map(|(which, how)| Op::Finish { which, how }),
        1 => (any::<bool>(), 2u64..4).prop_map(|(all, by)| Op::Divide { all, by }),
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

    /// What waits by itself is what a look at every request says.
    fn check_waiting(&self) {
        let mut walked = Usage::default();
        let slots = self.q.slots.ids().into_iter();
        for slot in slots.filter_map(|id| self.q.slots.get(id)) {
            let tenant = self.q.tenants.get(slot.tenant).expect("it has requests");
            let parked = matches!(slot.phase(), Phase::Backoff(_) | Phase::Blocked(_));
            if parked || !tenant.gate.is_open() {
                walked.add(Usage {
                    requests: 1,
                    items: slot.items,
                    bytes: slot.bytes,
                });
            }
        }
        assert_eq!(self.q.waiting(), walked);
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
            RetryScope::Lanes,
            RetryScope::Request,
            RetryScope::Tenant,
            RetryScope::Destination,
        ];
        let verdict = match how {
            0..=3 => retry(scopes[how as usize]),
            12 => Verdict::Hold {
                scope: RetryScope::Tenant,
                wait: None,
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

    /// Divides what waits by the remainders of its lanes.
    fn divide(&mut self, all: bool, by: u64) {
        let (next, waiting) = (&mut self.next, &mut self.waiting);
        self.q.divide_waiting(self.now, all, |r| {
            let n = number(r);
            let rest = |rest| r.lanes.iter().copied().filter(move |l| l % by == rest);
            let mut lanes: Vec<Vec<u64>> = (0..by).map(|i| rest(i).collect()).collect();
            lanes.retain(|l| !l.is_empty());
            if lanes.len() < 2 || r.items < lanes.len() as u64 {
                return Vec::new();
            }
            let (place, _) = waiting.remove(&n).expect("known");
            let mut left = r.items;
            let mut parts = Vec::new();
            for (i, lanes) in lanes.iter().enumerate() {
                *next += 1;
                let mut place = place.clone();
                place.push(i as u64);
                waiting.insert(*next, (place, lanes.clone()));
                let items = if i == 0 { left - 1 } else { left };
                left -= items;
                let body = vec![Bytes::copy_from_slice(&next.to_be_bytes())];
                parts.push(r.part(body, lanes.clone(), items));
            }
            parts
        });
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
                Op::Divide { all, by } => m.divide(all, by),
                Op::Advance { millis } => m.now = Mono(m.now.0 + millis * 1_000_000),
            }
            m.check_waiting();
            m.send();
            m.check_waiting();
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
        m.check_waiting();
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
                Op::Divide { all, by } => m.divide(all, by),
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
