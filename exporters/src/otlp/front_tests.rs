use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tailwater_pdata::otlp::Limits;
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::ack::{AckSink, Counts, NoSink};
use tailwater_pipeline::auth::carried;
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::clock::SystemClock;
use tailwater_pipeline::{AckWindow, Front};

use super::super::compress::Compression;
use super::super::packing::{Carrier, Form};
use super::*;
use crate::delivery::{
    Courier, Delivery, DeliveryParts, Judge, OpenAttempt, QueueOptions, Reply, RetryOptions,
    SendError, Verdict,
};

struct Yes;

impl<D: Duty> Judge<D> for Yes {
    fn judge(&self, _: &mut OutgoingRequest<D>, _: Result<Reply, SendError>) -> Verdict<D> {
        Verdict::Delivered
    }
}

struct Rig {
    front: OtlpFront,
    courier: Courier<Acks, Yes>,
    window: AckWindow<u32>,
    packing: Packing,
}

impl Rig {
    fn new(batch: Option<BatchOptions>, bytes_max: usize) -> Rig {
        Rig::reading(batch, bytes_max, Vec::new())
    }

    /// With an authenticator that reads these of clients.
    fn reading(batch: Option<BatchOptions>, bytes_max: usize, reads: Vec<ContextKey>) -> Rig {
        let delivery = Delivery::new(DeliveryParts {
            name: "otlp".into(),
            queue: QueueOptions {
                num_consumers: 1000,
                ..QueueOptions::default()
            },
            retry: RetryOptions::default(),
            seed: 1,
            clock: Arc::new(SystemClock::default()),
        });
        let packing = Packing::new(Signal::Logs, Carrier::Http, Form::Proto, Compression::None);
        let shared = Shared {
            name: "otlp".into(),
            packing: packing.clone(),
            batch,
            reads,
            bytes_max: Arc::new(AtomicUsize::new(bytes_max)),
        };
        Rig {
            front: OtlpFront::new(Arc::new(shared), Intake::Memory(delivery.handle())),
            courier: delivery.courier(Arc::new(Yes)),
            window: AckWindow::new(Arc::new(NoSink), 0),
            packing,
        }
    }

    /// A batch of parts with so many records each.
    fn export(&mut self, parts: &[u32], at: u64) {
        let mut batch = Batch::default();
        for &n in parts {
            let data = Payload::Encoded(records(n));
            let ack = self.window.reserve(1, n, 1);
            let permit = Permit::none();
            batch.parts.push(Part { data, ack, permit });
        }
        self.front.export(batch, Mono(at));
    }

    /// The requests that were made, and how many records each has.
    fn sent(&mut self) -> Vec<(u64, OpenAttempt<Acks>)> {
        let due = self.courier.due(Mono(0));
        due.attempts
            .into_iter()
            .map(|attempt| {
                let request = attempt.request().unwrap();
                let back = self.packing.unpack(&request.body).unwrap();
                assert_eq!(back.items() as u64, request.items);
                (request.items, attempt)
            })
            .collect()
    }

    fn sizes(&mut self) -> Vec<u64> {
        self.sent()
            .into_iter()
            .map(|(items, attempt)| {
                attempt.answered(
                    &Yes,
                    Err(SendError::new(crate::delivery::SendErrorKind::Timeout, "")),
                );
                items
            })
            .collect()
    }
}

fn records(n: u32) -> Encoded {
    let body = b"\x0a\x04\x12\x02\x12\x00".repeat(n as usize).into();
    Encoded::parse(Signal::Logs, body, &Limits::default()).unwrap()
}

fn batch(min_size: u64, max_size: u64, sizer: Sizer) -> Option<BatchOptions> {
    Some(BatchOptions {
        flush_timeout: Duration::from_nanos(10),
        min_size,
        max_size,
        sizer,
        partition: Vec::new(),
    })
}

#[test]
fn without_batching_a_batch_is_a_request() {
    let mut rig = Rig::new(None, usize::MAX);
    rig.export(&[3, 4], 0);
    rig.export(&[1], 0);
    rig.export(&[0], 0);
    assert_eq!(rig.sizes(), [7, 1]);
    let mut settled = 0;
    assert_eq!(rig.window.advance(|_| settled += 1), Front::Empty);
    assert_eq!(settled, 4, "what is empty is delivered");
}

#[test]
fn bytes_are_passed_on_as_they_came() {
    let mut rig = Rig::new(None, usize::MAX);
    let before = records(5);
    let at = before.chunks().next().unwrap().as_ptr();
    let ack = rig.window.reserve(1, 5, 1);
    let part = Part {
        data: Payload::Encoded(before),
        ack,
        permit: Permit::none(),
    };
    rig.front.export(Batch::of(part), Mono(0));
    let sent = rig.sent();
    assert_eq!(sent[0].1.request().unwrap().body[0].as_ptr(), at);
}

#[test]
fn records_of_files_are_encoded() {
    let mut rig = Rig::new(None, usize::MAX);
    let logs = LogsBatch::from_lines(Bytes::from_static(b"abc"), &[(0, 1), (1, 1), (2, 1)]);
    let ack = rig.window.reserve(1, 3, 1);
    let part = Part {
        data: Payload::Logs(logs),
        ack,
        permit: Permit::none(),
    };
    rig.front.export(Batch::of(part), Mono(0));
    assert_eq!(rig.sizes(), [3]);
}

#[test]
fn batches_are_gathered_and_leave_when_full_or_old() {
    let mut rig = Rig::new(batch(10, 0, Sizer::Items), usize::MAX);
    rig.export(&[4], 5);
    rig.export(&[4], 7);
    assert_eq!(
        (rig.sizes(), rig.front.deadline()),
        (vec![], Some(Mono(15)))
    );
    rig.export(&[4], 8);
    assert_eq!((rig.sizes(), rig.front.deadline()), (vec![12], None));
    rig.export(&[2], 20);
    rig.front.tick(Mono(29));
    assert!(rig.sizes().is_empty());
    rig.front.tick(Mono(30));
    assert_eq!((rig.sizes(), rig.front.deadline()), (vec![2], None));
    rig.export(&[1], 40);
    rig.front.flush(Mono(40));
    assert_eq!(rig.sizes(), [1]);
}

/// Somebody who sent data.
struct Sender(Arc<ClientInfo>);

impl AckSink for Sender {
    fn settled(&self, _: u64, _: Outcome, _: &Counts) {}

    fn client(&self) -> Option<Arc<ClientInfo>> {
        Some(self.0.clone())
    }
}

/// A sender with these values of the header `x-tenant`.
fn tenant(values: &[&str]) -> AckToken {
    let mut client = ClientInfo::default();
    for value in values {
        client.add_metadata("X-Tenant", value);
    }
    AckToken::new(Arc::new(Sender(Arc::new(client))), 0)
}

/// Guarantee: what differs in the metadata that is named never goes into one request, each combination
/// waits for its own time and size, and nothing is left behind.
#[test]
fn combinations_of_metadata_stay_apart() {
    let options = BatchOptions {
        partition: vec!["x-tenant".to_owned()],
        ..batch(10, 0, Sizer::Items).unwrap()
    };
    let mut rig = Rig::new(Some(options), usize::MAX);
    let part = |n, ack| Part {
        data: Payload::Encoded(records(n)),
        ack,
        permit: Permit::none(),
    };
    let export = |rig: &mut Rig, parts: Vec<(u32, &[&str])>, at| {
        let parts = parts.into_iter().map(|(n, of)| part(n, tenant(of)));
        let parts = parts.collect();
        rig.front.export(Batch { parts }, Mono(at));
    };
    export(&mut rig, vec![(4, &["a"]), (5, &["b"]), (3, &["a"])], 0);
    assert_eq!(
        (rig.sizes(), rig.front.deadline()),
        (vec![], Some(Mono(10)))
    );
    export(&mut rig, vec![(6, &[]), (3, &["a"])], 5);
    assert_eq!(rig.sizes(), [10], "a has enough");
    export(&mut rig, vec![(1, &["a", "b"])], 6);
    // What is empty is not what was not sent; several values are not one.
    export(&mut rig, vec![(2, &[""])], 7);
    rig.front.tick(Mono(10));
    assert_eq!(
        (rig.sizes(), rig.front.deadline()),
        (vec![5], Some(Mono(15)))
    );
    rig.front.tick(Mono(15));
    assert_eq!(rig.sizes(), [6]);
    rig.front.flush(Mono(15));
    let mut sizes = rig.sizes();
    sizes.sort_unstable();
    assert_eq!((sizes, rig.front.deadline()), (vec![1, 2], None));
    assert!(rig.front.apart.is_empty());
}

/// Guarantee: where the authenticator reads something of clients, data of those in whom it differs never goes
/// into one request, with and without batching, and each request carries what was read for it.
#[test]
fn what_an_authenticator_reads_is_kept_apart_and_carried() {
    let key = ContextKey::parse("x-tenant");
    for batching in [None, batch(10, 0, Sizer::Items)] {
        let mut rig = Rig::reading(batching, usize::MAX, vec![key.clone()]);
        let part = |n, ack| Part {
            data: Payload::Encoded(records(n)),
            ack,
            permit: Permit::none(),
        };
        let mut parts = Vec::new();
        for (n, of) in [(1, &["a"][..]), (2, &["b"]), (4, &["a"]), (8, &[])] {
            parts.push(part(n, tenant(of)));
        }
        rig.front.export(Batch { parts }, Mono(0));
        rig.front.flush(Mono(0));
        let mut seen = Vec::new();
        for (items, attempt) in rig.sent() {
            let request = attempt.request().unwrap();
            let value = carried(&key, &request.headers);
            seen.push((items, value.map(|v| v.to_str().unwrap().to_owned())));
            let error = SendError::new(crate::delivery::SendErrorKind::Timeout, "");
            attempt.answered(&Yes, Err(error));
        }
        seen.sort();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(seen, [(2, some("b")), (5, some("a")), (8, None)]);
    }
}

/// Guarantee: however many combinations there are, memory for them is bounded, and nothing is lost.
#[test]
fn combinations_are_limited() {
    let options = BatchOptions {
        partition: vec!["x-tenant".to_owned()],
        ..batch(10, 0, Sizer::Items).unwrap()
    };
    let mut rig = Rig::new(Some(options), usize::MAX);
    let mut sent = 0;
    for n in 0..PARTITIONS_MAX + 50 {
        let part = Part {
            data: Payload::Encoded(records(1)),
            ack: tenant(&[&n.to_string()]),
            permit: Permit::none(),
        };
        rig.front.export(Batch::of(part), Mono(n as u64));
        assert!(rig.front.apart.len() < PARTITIONS_MAX);
        sent += rig.sizes().len();
    }
    assert_eq!(sent, 50);
    rig.front.flush(Mono(0));
    while sent < PARTITIONS_MAX + 50 {
        let more = rig.sizes().len();
        assert_ne!(more, 0);
        sent += more;
    }
}

#[test]
fn no_request_is_larger_than_wanted() {
    let mut rig = Rig::new(batch(4, 5, Sizer::Items), usize::MAX);
    rig.export(&[12], 0);
    assert_eq!(rig.sizes(), [5, 5], "the rest is not enough for one");
    rig.export(&[3], 0);
    assert_eq!(rig.sizes(), [5]);
    // 6 bytes each.
    let mut rig = Rig::new(batch(1, 13, Sizer::Bytes), usize::MAX);
    rig.export(&[5], 0);
    assert_eq!(rig.sizes(), [2, 2, 1]);
    let mut rig = Rig::new(None, 12);
    rig.export(&[3, 2], 0);
    assert_eq!(rig.sizes(), [2, 2, 1], "as the destination taught");
}

proptest! {
    /// Guarantee: however batches are cut and gathered, every part is settled exactly when all of its
    /// records are, and none is sent twice.
    #[test]
    fn duties_follow_their_records(
        parts in prop::collection::vec(1_u32..20, 1..12),
        max_size in 0_u64..9,
        min_size in 0_u64..9,
    ) {
        let min_size = if max_size > 0 { min_size.min(max_size) } else { min_size };
        let mut rig = Rig::new(batch(min_size, max_size, Sizer::Items), usize::MAX);
        for n in &parts {
            rig.export(&[*n], 0);
        }
        rig.front.flush(Mono(0));
        let (mut done, mut settled) = (0, 0);
        for (items, attempt) in rig.sent() {
            prop_assert!(max_size == 0 || items <= max_size);
            attempt.answered(&Yes, Err(SendError::new(crate::delivery::SendErrorKind::Timeout, "")));
            done += items;
            rig.window.advance(|_| settled += 1);
            let mut whole = 0;
            let expect = parts.iter().take_while(|n| {
                whole += u64::from(**n);
                whole <= done
            });
            prop_assert_eq!(settled, expect.count());
        }
        prop_assert_eq!(done, parts.iter().map(|n| u64::from(*n)).sum::<u64>());
    }
}
