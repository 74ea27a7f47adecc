//! Which streams share a request, and when it leaves.

use super::*;

#[test]
fn known_streams_share_a_request_and_only_one_that_may_be_refused_stands_last() {
    let mut rig = rig(mapping());
    let one = |pod: &str, line: &str| Entry {
        resource: map(&[("k8s.pod.name", pod)]),
        ..entry(line)
    };
    let export = |rig: &mut Rig, pods: &[&str]| {
        for pod in pods {
            rig.export(LogsBatch::from_entries(&[one(pod, "x")]));
        }
    };
    export(&mut rig, &["a", "b"]);
    assert_eq!(rig.messages().len(), 2, "both are new");
    export(&mut rig, &["a", "new", "b"]);
    let messages = rig.messages();
    assert_eq!(messages.len(), 1);
    let pods: Vec<_> = messages[0].1.iter().map(|s| s.0.as_str()).collect();
    let labels = |p: &str| format!("{{cluster=\"c1\", pod=\"{p}\"}}");
    assert_eq!(pods, [labels("a"), labels("b"), labels("new")]);
    // An entry far behind what was sent makes its stream one that may be refused.
    let old = Entry {
        time: NOW - 2 * HOUR,
        ..one("a", "old")
    };
    rig.export(LogsBatch::from_entries(&[old]));
    export(&mut rig, &["b", "newer"]);
    let messages = rig.messages();
    assert_eq!(messages.len(), 2);
    let mut last: Vec<_> = messages
        .iter()
        .map(|m| m.1.last().unwrap().0.clone())
        .collect();
    last.sort();
    assert_eq!(last, [labels("a"), labels("newer")]);
    assert_eq!(rig.shared.stats.probing_requests(), 5);
    // So does one older than all that was sent in this run: Loki may have newer ones of it.
    let older = Entry {
        time: NOW - HOUR / 60,
        ..one("b", "older")
    };
    rig.export(LogsBatch::from_entries(&[older, one("a", "x")]));
    let messages = rig.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].1.last().unwrap().0, labels("b"));
}

#[test]
fn verified_delivery_and_parked_streams_get_requests_of_their_own() {
    let options = LokiOptions {
        delivery: DeliveryMode::Verified,
        ..mapping()
    };
    for (options, park) in [(options, false), (mapping(), true)] {
        let mut rig = rig(options);
        let one = |pod: &str| {
            LogsBatch::from_entries(&[Entry {
                resource: map(&[("k8s.pod.name", pod)]),
                ..entry("x")
            }])
        };
        for _ in 0..2 {
            ["a", "b", "c"].iter().for_each(|pod| rig.export(one(pod)));
        }
        let first = rig.take();
        if park {
            rig.shared.parked.park(first[1].lanes[0]);
        }
        for _ in 0..5 {
            ["a", "b", "c"].iter().for_each(|pod| rig.export(one(pod)));
        }
        let lanes: Vec<_> = rig.take().iter().map(|r| r.lanes.len()).collect();
        // Streams that are not parked share one.
        let want: &[usize] = if park { &[1, 2] } else { &[1, 1, 1] };
        assert_eq!(lanes.iter().sum::<usize>(), 3);
        assert_eq!(lanes.len(), want.len());
    }
}

/// Rows of streams that must not be together alternate in a batch.
#[test]
fn alternating_streams_do_not_tear_requests_apart() {
    for delivery in [DeliveryMode::Probed, DeliveryMode::Verified] {
        let mut options = LokiOptions {
            delivery,
            ..mapping()
        };
        // Both streams are always near their rate.
        options.limits.stream_burst_bytes = 1;
        let mut rig = rig(options);
        let each = |i: usize| Entry {
            attributes: map(&[("log.iostream", ["stdout", "stderr"][i % 2])]),
            ..entry(&i.to_string())
        };
        let entries: Vec<_> = (0..1_000).map(each).collect();
        rig.export(LogsBatch::from_entries(&entries));
        rig.export(LogsBatch::from_entries(&entries));
        let requests = rig.take();
        let items: Vec<_> = requests.iter().map(|r| r.items).collect();
        assert_eq!(items, [1_000, 1_000], "{delivery:?}");
    }
}

#[test]
fn open_requests_together_are_bounded() {
    let options = LokiOptions {
        delivery: DeliveryMode::Verified,
        max_request_bytes: 20_000,
        ..mapping()
    };
    let mut rig = rig(options);
    for i in 0..200 {
        let e = Entry {
            resource: map(&[("k8s.pod.name", &format!("p{i}"))]),
            ..entry(&"x".repeat(1_000))
        };
        rig.export(LogsBatch::from_entries(&[e]));
        assert!(rig.front.open_bytes <= 4 * 20_000 + 2_000);
    }
    assert!(!rig.sent.0.lock().unwrap().is_empty());
    assert_eq!(rig.messages().len(), 200);
    assert_eq!(rig.front.open_bytes, 0);
}

#[test]
fn a_request_never_exceeds_its_size_and_nothing_is_lost() {
    let options = LokiOptions {
        max_request_bytes: 64 << 10,
        ..mapping()
    };
    let mut rig = rig(options);
    let line = |i: usize| format!("{i} {}", "x".repeat(i * 7919 % 3000));
    for part in 0..20 {
        let each = |i: usize| Entry {
            attributes: map(&[("log.iostream", ["stdout", "stderr"][i % 2])]),
            ..entry(&line(part * 50 + i))
        };
        let entries: Vec<_> = (0..50).map(each).collect();
        rig.export(LogsBatch::from_entries(&entries));
    }
    assert_eq!(rig.settled().0, Front::Waiting);
    let mut got = Vec::new();
    let requests = rig.sent.0.lock().unwrap().len();
    for message in rig.messages() {
        let push = oracle::Push {
            streams: message
                .1
                .iter()
                .map(|(labels, entries)| oracle::Stream {
                    labels: labels.clone(),
                    entries: entries.clone(),
                })
                .collect(),
        };
        assert!(prost::Message::encoded_len(&push) <= 64 << 10);
        got.extend(lines(&message).into_iter().flat_map(|s| s.1));
    }
    assert!((20..60).contains(&requests), "{requests}");
    got.sort();
    let mut want: Vec<_> = (0..1000).map(line).collect();
    want.sort();
    assert_eq!(got, want);
    assert_eq!(rig.settled(), (Front::Empty, 0));
}

#[test]
fn a_batch_is_kept_open_as_long_as_it_was_asked_for() {
    use crate::delivery::BatchOptions;
    let batch = BatchOptions {
        flush_timeout: Duration::from_secs(1),
        min_size: 5,
        ..BatchOptions::default()
    };
    let mut rig = rig(LokiOptions {
        batch: Some(batch),
        ..mapping()
    });
    let sent = |rig: &Rig| rig.sent.0.lock().unwrap().len();
    rig.export(LogsBatch::from_entries(&[entry("1"), entry("2")]));
    let deadline = Mono(1).after(Duration::from_secs(1));
    assert_eq!((sent(&rig), rig.front.deadline()), (0, Some(deadline)));
    rig.front.tick(Mono(2));
    assert_eq!(sent(&rig), 0);
    rig.front.tick(deadline);
    assert_eq!((sent(&rig), rig.front.deadline()), (1, None));
    let five: Vec<_> = (0..5).map(|i| entry(&i.to_string())).collect();
    rig.export(LogsBatch::from_entries(&five));
    assert_eq!(sent(&rig), 2, "the smallest size is reached");
    let batch = BatchOptions {
        max_size: 2,
        min_size: 0,
        ..BatchOptions::default()
    };
    let bytes = BatchOptions {
        max_size: 100,
        sizer: Sizer::Bytes,
        ..batch.clone()
    };
    for batch in [batch, bytes] {
        let mut rig = super::tests::rig(LokiOptions {
            batch: Some(batch),
            ..mapping()
        });
        rig.export(LogsBatch::from_entries(&five));
        let items: Vec<_> = rig.take().iter().map(|r| r.items).collect();
        assert_eq!(items, [2, 2, 1]);
    }
    let mut plain = super::tests::rig(mapping());
    plain.export(LogsBatch::from_entries(&[entry("1")]));
    assert_eq!(plain.front.deadline(), Some(Mono(1)), "at the next turn");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Whatever the records and limits are, every record is in exactly one request, in order
    /// within its stream, and no request is too large.
    #[test]
    fn every_record_is_sent_once_and_in_order(
        parts in proptest::collection::vec(
            proptest::collection::vec((0usize..5, 0usize..3, 0usize..700, any::<bool>()), 1..40),
            1..8,
        ),
        verified in any::<bool>(),
        burst in prop_oneof![Just(1u64), Just(15 << 20)],
        max in 3_000usize..20_000,
        streams_max in 1usize..20,
    ) {
        let mut options = mapping();
        options.max_request_bytes = max;
        options.streams_max = streams_max;
        options.limits.stream_burst_bytes = burst;
        options.tenant.from_attribute = Some("tenant".into());
        if verified {
            options.delivery = DeliveryMode::Verified;
        }
        let mut rig = rig(options);
        let mut n = 0;
        for part in &parts {
            let entries: Vec<_> = part
                .iter()
                .map(|(stream, tenant, len, flush)| {
                    n += 1;
                    let mut e = entry(&format!("{n} {}", "x".repeat(*len)));
                    e.time = NOW + n;
                    e.attributes = map(&[
                        ("log.iostream", &format!("s{stream}")),
                        ("tenant", ["a", "b", "c"][*tenant]),
                    ]);
                    if *flush {
                        e.attributes.insert("extra", Value::Int(n));
                    }
                    e
                })
                .collect();
            rig.export(LogsBatch::from_entries(&entries));
            if part.len() % 3 == 0 {
                rig.front.flush(Mono(1));
            }
        }
        let total: usize = parts.iter().map(Vec::len).sum();
        let mut seen = std::collections::HashMap::new();
        let mut numbers = Vec::new();
        for (tenant, streams) in rig.messages() {
            let size = |s: &(String, Vec<oracle::Entry>)| {
                let entries: usize = s.1.iter().map(|e| prost::Message::encoded_len(e) + 4).sum();
                s.0.len() + entries
            };
            prop_assert!(streams.iter().map(size).sum::<usize>() <= max + 64);
            for (labels, entries) in streams {
                let last = seen.entry((tenant.clone(), labels)).or_insert(0);
                for e in entries {
                    prop_assert!(e.time() > *last);
                    *last = e.time();
                    numbers.push(e.time() - NOW);
                }
            }
        }
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (1..=total as i64).collect::<Vec<_>>());
        prop_assert_eq!(rig.settled(), (Front::Empty, 0));
    }
}
