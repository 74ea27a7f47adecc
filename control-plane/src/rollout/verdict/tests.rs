use super::*;

/// An agent that does well, for so long: 100 lines, 5 requests and a sample line per second.
fn well(at_s: u64) -> Sample {
    Sample {
        at_ms: at_s * 1_000,
        incarnation: 1,
        lines_read: at_s * 100,
        lines_delivered: at_s * 100 - 10,
        lines_in_flight: 10,
        requests: at_s * 5,
        queue_bytes: 1_000,
        queue_bytes_max: 100_000,
        lag_bytes: 200_000,
        probes_due: at_s,
        probes_found: at_s,
        memory_bytes: 100 << 20,
        cpu_ms: at_s * 50,
        apply_ms: 800,
        ..Sample::default()
    }
}

fn window(change: impl Fn(&mut Sample)) -> Window {
    let mut end = well(120);
    change(&mut end);
    Window::between(&well(100), &end).unwrap()
}

fn agent(change: impl Fn(&mut Sample)) -> Compared {
    Compared {
        past: Window::between(&well(10), &well(30)).unwrap(),
        now: Some(window(change)),
        silent_ms: 0,
        restarts: 0,
    }
}

fn ok() -> Compared {
    agent(|_| ())
}

fn check(tested: Compared, control: &[Compared], expect: Verdict) -> Judgement {
    let judgement = judge(&Limits::default(), &[tested], control);
    assert_eq!(judgement.verdict(0), expect, "{judgement:?}");
    judgement
}

/// What each signal looks like.
fn signs() -> Vec<(Signal, Compared)> {
    vec![
        (Signal::Unaccounted, agent(|s| s.lines_delivered -= 100)),
        (
            Signal::Dropped,
            agent(|s| (s.lines_delivered, s.lines_dropped) = (s.lines_delivered - 100, 100)),
        ),
        (
            Signal::Intake,
            agent(|s| (s.lines_read, s.lines_delivered) = (10_500, 10_490)),
        ),
        (
            Signal::Rejected,
            agent(|s| {
                s.lines_delivered -= 100;
                (s.lines_dropped, s.lines_rejected) = (100, 100);
            }),
        ),
        (Signal::Memory, agent(|s| s.memory_bytes = 300 << 20)),
        (Signal::Cpu, agent(|s| s.cpu_ms += 10_000)),
        (Signal::Apply, agent(|s| s.apply_ms = 22_000)),
        (Signal::PermanentErrors, agent(|s| s.errors_permanent = 20)),
        (Signal::RetryableErrors, agent(|s| s.errors_retryable = 20)),
        (Signal::ThrottledErrors, agent(|s| s.errors_throttled = 20)),
        (Signal::Queue, agent(|s| s.queue_bytes = 95_000)),
        (Signal::Lag, agent(|s| s.lag_bytes = 400_000)),
        (Signal::Probe, agent(|s| s.probes_found -= 5)),
        (
            Signal::Gone,
            Compared {
                now: None,
                silent_ms: 30_000,
                ..ok()
            },
        ),
        (
            Signal::CrashLoop,
            Compared {
                now: None,
                restarts: 2,
                ..ok()
            },
        ),
    ]
}

/// Guarantee: what only agents under test suffer is held against the configuration, and by its name.
#[test]
fn each_signal_is_seen() {
    let control = [ok(), ok(), ok(), ok(), ok()];
    for (signal, sign) in signs() {
        let judgement = check(sign, &control, Verdict::Bad);
        assert_eq!(judgement.bad[&0], BTreeSet::from([signal]));
        assert_eq!(judgement.reasons(), signal.name());
    }
    check(ok(), &control, Verdict::Good);
}

/// Guarantee: what the control group suffers, too, is never held against the configuration; and but for a
/// lower intake, it is no pass either.
#[test]
fn what_others_suffer_is_not_held_against_it() {
    for (signal, sign) in signs() {
        let control = [sign, ok(), ok(), ok()];
        let expect = match signal {
            Signal::Intake => Verdict::Good,
            _ => Verdict::NoData,
        };
        check(sign, &control, expect);
        let spared = [sign, ok(), ok(), ok(), ok()];
        check(sign, &spared, Verdict::Bad);
    }
}

/// Guarantee: without a control group only what no backend can cause is evidence.
#[test]
fn without_a_control_group_little_is_evidence() {
    for (signal, sign) in signs() {
        let expect = match signal {
            Signal::Unaccounted | Signal::Dropped => Verdict::Bad,
            _ => Verdict::NoData,
        };
        check(sign, &[], expect);
        let silent = Compared { now: None, ..ok() };
        if !matches!(signal, Signal::Gone | Signal::CrashLoop) {
            check(sign, &[silent], expect);
        }
    }
    check(ok(), &[], Verdict::Good);
}

/// Guarantee: no data is no pass, whatever kind of none it is.
#[test]
fn no_data_is_no_pass() {
    let control = [ok(), ok()];
    let without = Compared { now: None, ..ok() };
    check(without, &control, Verdict::NoData);
    let mut short = ok();
    short.now = Window::between(&well(100), &well(105));
    check(short, &control, Verdict::NoData);
    // It had sample lines, and has none now.
    check(
        agent(|s| (s.probes_due, s.probes_found) = (100, 100)),
        &control,
        Verdict::NoData,
    );
    // Nothing at all happens.
    let still = Window::between(
        &well(100),
        &Sample {
            at_ms: 120_000,
            ..well(100)
        },
    );
    let idle = Compared {
        past: still.unwrap(),
        now: still,
        ..ok()
    };
    check(idle, &control, Verdict::NoData);
    let judgement = judge(&Limits::default(), &[], &control);
    assert_eq!(judgement.verdict(0), Verdict::NoData);
}

/// Guarantee: sample lines are enough for an agent that has nothing else to read.
#[test]
fn an_idle_agent_is_judged_by_sample_lines() {
    let probed = |found| {
        let probed = Sample {
            at_ms: 120_000,
            probes_due: 120,
            probes_found: found,
            ..well(100)
        };
        Window::between(&well(100), &probed)
    };
    let idle = |found| Compared {
        past: probed(120).unwrap(),
        now: probed(found),
        ..ok()
    };
    check(idle(120), &[ok()], Verdict::Good);
    check(idle(110), &[ok()], Verdict::Bad);
}

/// Guarantee: chance is no evidence: one error, one sample line, a little more lag.
#[test]
fn chance_is_no_evidence() {
    let control = [ok(), ok(), ok(), ok()];
    let chances = [
        agent(|s| s.errors_retryable = 1),
        agent(|s| s.errors_permanent = 1),
        agent(|s| s.probes_found -= 1),
        agent(|s| s.lag_bytes = 260_000),
        agent(|s| s.queue_bytes = 20_000),
        agent(|s| s.lines_rejected = 1),
        agent(|s| s.memory_bytes = 160 << 20),
        agent(|s| s.cpu_ms += 3_000),
    ];
    for chance in chances {
        check(chance, &control, Verdict::Good);
    }
}

/// Guarantee: a backlog that is being delivered is no fault.
#[test]
fn a_backlog_on_its_way_out_is_no_fault() {
    let mut draining = agent(|s| s.lag_bytes = 400_000);
    if let Some(now) = &mut draining.now {
        now.lag_before = 900_000;
    }
    check(draining, &[ok(), ok()], Verdict::Good);
}

/// Guarantee: as many may be bad as are allowed, and most have to be good.
#[test]
fn a_budget_is_kept() {
    let bad = || agent(|s| s.errors_permanent = 20);
    let silent = || Compared { now: None, ..ok() };
    let control = [ok(), ok(), ok(), ok()];
    let verdict =
        |tested: &[Compared], budget| judge(&Limits::default(), tested, &control).verdict(budget);
    assert_eq!(verdict(&[ok(), ok(), bad()], 1), Verdict::Good);
    assert_eq!(verdict(&[ok(), bad(), bad()], 1), Verdict::Bad);
    assert_eq!(verdict(&[ok(), bad()], 1), Verdict::NoData);
    assert_eq!(verdict(&[ok(), ok(), silent()], 0), Verdict::Good);
    assert_eq!(verdict(&[ok(), silent()], 0), Verdict::NoData);
}

/// Guarantee: a past in trouble is none to compare with.
#[test]
fn a_past_in_trouble_is_not_sound() {
    let limits = Limits::default();
    assert!(window(|_| ()).is_sound(&limits));
    for (signal, sign) in signs() {
        let Some(now) = sign.now else {
            continue;
        };
        // How much is read and what that takes is what the past is asked for.
        let is_asked_for = matches!(
            signal,
            Signal::Intake | Signal::Memory | Signal::Cpu | Signal::Apply
        );
        assert_eq!(now.is_sound(&limits), is_asked_for, "{signal:?}");
    }
    assert!(
        !window(|s| s.lag_bytes = 100_000).is_sound(&limits),
        "it catches up"
    );
}

#[test]
fn windows_are_of_one_process() {
    let other = Sample {
        incarnation: 2,
        ..well(120)
    };
    assert_eq!(Window::between(&well(100), &other), None);
    assert_eq!(Window::between(&well(100), &well(100)), None);
    assert_eq!(Window::between(&well(100), &well(90)), None);
    let back = Sample {
        at_ms: 120_000,
        ..well(90)
    };
    assert_eq!(Window::between(&well(100), &back), None);
}

/// Guarantee: a queue that fills is seen before it is half full, and one that is as full as it was is not.
#[test]
fn a_queue_that_fills_is_seen_by_its_slope() {
    let control = [ok(), ok()];
    check(agent(|s| s.queue_bytes = 30_000), &control, Verdict::Bad);
    let mut level = agent(|s| s.queue_bytes = 30_000);
    level.past.queue_percent = 29;
    check(level, &control, Verdict::Good);
    let mut before = agent(|s| s.queue_bytes = 30_000);
    if let Some(now) = &mut before.now {
        now.queue_percent_before = 28;
    }
    check(before, &control, Verdict::Good);
}

/// Guarantee: who has more to do may use more of the processor.
#[test]
fn more_work_takes_more_time() {
    let busy = agent(|s| {
        (s.lines_read, s.lines_delivered) = (40_000, 39_990);
        s.cpu_ms += 20_000;
    });
    check(busy, &[ok(), ok()], Verdict::Good);
}

/// Guarantee: a state that was kept by an earlier version, without what is counted since, is read.
#[test]
fn samples_of_earlier_versions_are_read() {
    let old = r#"{"at_ms": 5, "incarnation": 1, "lines_read": 7}"#;
    let sample: Sample = serde_json::from_str(old).unwrap();
    assert_eq!((sample.lines_read, sample.memory_bytes), (7, 0));
}

/// Guarantee: a configuration may take some seconds more to come into force, and twice as long as the one before; an agent
/// that was never offered anything has no past to compare with.
#[test]
fn what_takes_long_to_come_into_force_is_held_against_it() {
    let control = [ok(), ok(), ok(), ok()];
    let took = |past_ms, now_ms| {
        let mut agent = agent(|s| s.apply_ms = now_ms);
        agent.past.apply_ms = past_ms;
        agent
    };
    for (past_ms, now_ms, expect) in [
        (800, 21_000, Verdict::Good),
        (800, 22_000, Verdict::Bad),
        (20_000, 59_000, Verdict::Good),
        (20_000, 61_000, Verdict::Bad),
        (0, 60_000, Verdict::Good),
        (800, 0, Verdict::Good),
    ] {
        check(took(past_ms, now_ms), &control, expect);
    }
    // What keeps all machines busy keeps nobody alone.
    check(took(800, 22_000), &[], Verdict::NoData);
}

/// Guarantee: who read a backlog before the change, and has read it to its end since, does not read less; who reads half of
/// what is usual does.
#[test]
fn a_backlog_that_was_read_is_not_what_is_usually_read() {
    let control = [ok(), ok(), ok(), ok()];
    // Of 300 lines per second 200 are of the backlog.
    let catches_up = |lines_read| {
        let mut agent =
            agent(|s| (s.lines_read, s.lines_delivered) = (lines_read, lines_read - 10));
        let past = &mut agent.past;
        (past.read, past.bytes_read) = (6_000, 600_000);
        (past.lag_before, past.lag) = (9_400_000, 9_000_000);
        agent
    };
    let past = catches_up(12_000).past;
    assert!(!past.is_sound(&Limits::default()), "it is taken anew");
    check(catches_up(12_000), &control, Verdict::Good);
    check(catches_up(10_900), &control, Verdict::Bad);
    let mut unknown = catches_up(12_000);
    unknown.past.bytes_read = 0;
    check(unknown, &control, Verdict::Bad);
}
