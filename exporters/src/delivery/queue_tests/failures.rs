//! What waits for what when something fails.

use super::*;

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
        wait: None,
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

/// Guarantees that any number of streams may be refused by themselves without a pause for others.
#[test]
fn refused_lanes_are_no_sign_against_the_destination() {
    let (mut q, l) = (queue(3), Ledger::default());
    for n in 0..40 {
        q.submit(at(0), request(&l, n, "", &[n], 1));
    }
    let mut tried = 0;
    loop {
        let sent = send_all(&mut q, at(0));
        if sent.is_empty() {
            break;
        }
        for attempt in sent {
            tried += 1;
            q.on_result(at(0), attempt, retry(RetryScope::Lanes));
        }
    }
    assert_eq!(tried, 40);
    assert_eq!(q.next_wakeup(), Some(at(5)));
    assert_eq!(send_all_then_deliver(&mut q, at(5)), 40);
    assert_eq!(l.open(), 0);
}
