//! The queue without sockets: what the tests share.

mod failures;
mod load;
mod model;
mod order;

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
