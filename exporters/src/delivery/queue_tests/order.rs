//! Order within lanes, and parts in the place of the whole.

use super::*;

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

/// Guarantees that a stream which is refused by itself keeps nobody waiting who does not have to.
#[test]
fn what_waits_with_a_refused_lane_is_divided_and_the_rest_goes_on() {
    let (mut q, l) = (queue(10), Ledger::default());
    // Lane 1 is refused; 2 and 3 hold it together with others, 4 waits behind one of them.
    for (n, lanes) in [(1, &[1][..]), (2, &[1, 2]), (3, &[1, 3]), (4, &[2, 3])] {
        q.submit(at(0), request(&l, n, "", lanes, lanes.len() as u64));
    }
    let mut sent = send_all(&mut q, at(0));
    assert_eq!(numbers(&sent), [1]);
    q.on_result(at(0), sent.remove(0), retry(RetryScope::Lanes));
    assert!(send_all(&mut q, at(0)).is_empty());
    let mut apart = |r: &mut Request| {
        let body = |n: u64| vec![Bytes::copy_from_slice(&n.to_be_bytes())];
        let n = number(r);
        let (one, other) = (vec![1], vec![n]);
        vec![
            r.part(body(10 * n), other, 1),
            r.part(body(10 * n + 1), one, 1),
        ]
    };
    // The last one has no lane 1, so the parts do not fit it and it stays as it is.
    q.divide_waiting(at(0), false, &mut apart);
    let mut sent = send_all(&mut q, at(0));
    assert_eq!(numbers(&sent), [20, 30]);
    for attempt in sent.drain(..) {
        q.on_result(at(0), attempt, Verdict::Delivered);
    }
    let mut sent = send_all(&mut q, at(0));
    assert_eq!(numbers(&sent), [4]);
    q.on_result(at(0), sent.remove(0), Verdict::Delivered);
    for want in [1, 21, 31] {
        let mut sent = send_all(&mut q, at(5));
        assert_eq!(numbers(&sent), [want], "lane 1 keeps its order");
        q.on_result(at(5), sent.remove(0), Verdict::Delivered);
    }
    assert!(q.is_empty() && l.open() == 0);
    assert_eq!(q.stats().sent_items(), 7);
}

/// Guarantees that what is known of a stream by now counts for requests that only wait for their turn,
/// and for those whose pause is over: a refusal in a request with others may be hidden.
#[test]
fn what_waits_for_its_turn_is_divided_as_well() {
    let (mut q, l) = (queue(1), Ledger::default());
    q.submit(at(0), request(&l, 1, "", &[1, 2], 2));
    let mut sent = send_all(&mut q, at(0));
    q.submit(at(0), request(&l, 2, "", &[3, 4], 2));
    q.on_result(at(0), sent.remove(0), retry(RetryScope::Lanes));
    let apart = |r: &mut Request| {
        let body = |n: u64| vec![Bytes::copy_from_slice(&n.to_be_bytes())];
        let (n, lanes) = (number(r), r.lanes.clone());
        let mut one = |i: usize| r.part(body(10 * n + i as u64), vec![lanes[i]], 1);
        vec![one(0), one(1)]
    };
    for (now, want) in [(0, [20, 21]), (5, [10, 11])] {
        q.divide_waiting(at(now), false, apart);
        let mut got = Vec::new();
        for _ in want {
            let mut sent = send_all(&mut q, at(now));
            got.extend(numbers(&sent));
            q.on_result(at(now), sent.remove(0), Verdict::Delivered);
        }
        got.sort_unstable();
        assert_eq!(got, want);
    }
    assert!(q.is_empty() && l.open() == 0);
}
