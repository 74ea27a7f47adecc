//! The end of a queue, and how full it is.

use super::*;

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

/// Guarantees that a tenant or streams that are refused for long leave the queue open for sources
/// that have nothing under way, and that it is bounded all the same.
#[test]
fn what_waits_by_itself_does_not_close_the_queue() {
    for scope in [RetryScope::Tenant, RetryScope::Lanes] {
        let options = QueueOptions {
            queue_size: 20,
            ..QueueOptions::default()
        };
        let l = Ledger::default();
        let mut q = DeliveryQueue::new(options, RetryOptions::default(), 1);
        let mut admissions = Vec::new();
        for n in 0..40 {
            q.submit(at(0), request(&l, n, "noisy", &[n % 4], 1));
            for attempt in send_all(&mut q, at(0)) {
                q.on_result(at(0), attempt, retry(scope));
            }
            admissions.push(q.load().admission());
        }
        let first = |a| admissions.iter().position(|x| *x == a).map(|i| i + 1);
        assert_eq!(first(Admission::Scarce), Some(11), "{scope:?}");
        assert_eq!(first(Admission::Closed), Some(40), "{scope:?}");
        q.abandon();
        assert_eq!(l.open(), 0);
    }
}

/// Guarantees that an outage of the destination closes the queue at its size.
#[test]
fn a_dead_destination_closes_the_queue_at_its_size() {
    let options = QueueOptions {
        queue_size: 20,
        ..QueueOptions::default()
    };
    let l = Ledger::default();
    let mut q = DeliveryQueue::new(options, RetryOptions::default(), 1);
    for n in 0..20 {
        assert_ne!(q.load().admission(), Admission::Closed);
        q.submit(at(0), request(&l, n, "", &[n % 4], 1));
        for attempt in send_all(&mut q, at(0)) {
            q.on_result(at(0), attempt, retry(RetryScope::Destination));
        }
    }
    assert_eq!(q.load().admission(), Admission::Closed);
    q.abandon();
}
