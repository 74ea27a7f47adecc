//! What is wrong for a while, with a server, a tenant or a stream: nothing is given up, nobody else
//! waits. The exporter runs in this process.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::{Matcher, Reach, Scripted};
use tailwater_testkit::loki::{DEFAULT_TENANT, FakeLoki};
use tailwater_tests::contract::{Case, entries, entry, good, lines};
use tailwater_tests::wait;

/// Something that is wrong for a while: what the exporter does meanwhile and after it.
struct Trouble {
    name: &'static str,
    config: Value,
    begin: fn(&FakeLoki),
    end: fn(&FakeLoki),
    /// A status that is met meanwhile, 0 = no answer.
    status: u16,
    /// Part of the alarm that is shown meanwhile; empty = none.
    alarm: &'static str,
}

fn scripted(loki: &FakeLoki, status: u16, body: &str) {
    let body = body.to_owned();
    loki.script(Matcher::Any, vec![Scripted::Answer { status, body }; 3]);
}

fn troubles() -> Vec<Trouble> {
    let trouble = |name, status, alarm, begin, end| Trouble {
        name,
        config: json!({}),
        begin,
        end,
        status,
        alarm,
    };
    let blocked = |loki: &FakeLoki| {
        loki.set_behaviour(|b| b.blocked_tenants.push(DEFAULT_TENANT.into()));
    };
    let free = |loki: &FakeLoki| loki.set_behaviour(|b| b.blocked_tenants.clear());
    let nothing = |_: &FakeLoki| {};
    vec![
        trouble(
            "the tenant is blocked",
            260,
            "ingestion blocked",
            blocked,
            free,
        ),
        trouble(
            "no tenant",
            401,
            "no org id",
            |loki| loki.set_behaviour(|b| b.auth_enabled = true),
            |loki| loki.set_behaviour(|b| b.auth_enabled = false),
        ),
        trouble(
            "a label is required",
            400,
            "missing required labels env",
            |loki| loki.set_behaviour(|b| b.labels_required.push("env".into())),
            |loki| loki.set_behaviour(|b| b.labels_required.clear()),
        ),
        trouble(
            "an invalid tenant",
            400,
            "tenant ID",
            |loki| {
                scripted(
                    loki,
                    400,
                    "tenant ID 'a/b' contains unsupported character '/'",
                )
            },
            nothing,
        ),
        trouble(
            "several tenants",
            400,
            "multiple org IDs",
            |loki| scripted(loki, 400, "multiple org IDs present"),
            nothing,
        ),
        trouble(
            "a success that is none",
            200,
            "HTTP 200",
            |loki| scripted(loki, 200, ""),
            nothing,
        ),
        trouble(
            "a redirect",
            302,
            "HTTP 302",
            |loki| scripted(loki, 302, ""),
            nothing,
        ),
        trouble(
            "another address",
            404,
            "HTTP 404",
            |loki| scripted(loki, 404, "404 page not found"),
            nothing,
        ),
        trouble(
            "overload",
            503,
            "",
            |loki| {
                scripted(
                    loki,
                    503,
                    "cannot accept more requests, circuit breaker open",
                )
            },
            nothing,
        ),
        trouble(
            "an unclear error",
            500,
            "",
            |loki| scripted(loki, 500, "oops"),
            nothing,
        ),
        trouble(
            "a proxy's limit",
            429,
            "",
            |loki| scripted(loki, 429, "slow down"),
            nothing,
        ),
        trouble(
            "too many streams",
            429,
            "",
            |loki| loki.set_behaviour(|b| b.streams_max = Some(1)),
            |loki| loki.set_behaviour(|b| b.streams_max = None),
        ),
        trouble(
            "the rate of the tenant",
            429,
            "",
            |loki| {
                loki.set_behaviour(|b| {
                    (b.ingestion_rate_bytes, b.ingestion_burst_bytes) = (Some(1_000), 1_000);
                })
            },
            nothing,
        ),
        trouble(
            "the rate of a stream",
            429,
            "",
            |loki| {
                loki.set_behaviour(|b| {
                    (b.stream_rate_bytes, b.stream_burst_bytes) = (Some(500), 500);
                })
            },
            nothing,
        ),
        trouble(
            "a connection that breaks before the answer",
            0,
            "",
            |loki| loki.script(Matcher::Any, vec![Scripted::ProcessThenClose; 3]),
            nothing,
        ),
        trouble(
            "a connection that breaks before the request",
            0,
            "",
            |loki| loki.script(Matcher::Any, vec![Scripted::Close; 3]),
            nothing,
        ),
        trouble(
            "a server that is down",
            0,
            "",
            |loki| loki.set_reach(Reach::Refused).expect("closed"),
            |loki| loki.set_reach(Reach::Up).expect("the same port"),
        ),
    ]
}

/// Guarantees that what may pass is never given up: nothing is dropped, what a person has to act
/// on is shown, and everything arrives once it is over.
#[test]
fn what_may_pass_is_kept_until_it_does() {
    let mut failed = Vec::new();
    for trouble in troubles() {
        // Refused streams are exact in requests of their own.
        let mut config = trouble.config.clone();
        config["delivery"] = "verified".into();
        let mut case = Case::start(&config, |_| {});
        (trouble.begin)(&case.loki);
        let sent = [good(), entries("three", "good", 5, 60)].concat();
        case.bench.send(&sent);
        let met = wait::within(wait::BOUND, || {
            case.bench.advance(Duration::from_millis(50));
            let stats = case.loki.stats();
            match trouble.status {
                0 => case.bench.stats().failed_attempts() > 0,
                status => stats.push_responses.contains_key(&status),
            }
        });
        let alarm = || case.bench.stats().alarm().unwrap_or_default();
        let shown = trouble.alarm.is_empty()
            || wait::within(wait::BOUND, || alarm().contains(trouble.alarm));
        if !met || !shown {
            failed.push(format!(
                "{}: {:?}, {:?}",
                trouble.name,
                case.loki.stats(),
                alarm()
            ));
        }
        (trouble.end)(&case.loki);
        let dropped = case.bench.settle();
        let want = lines(&sent);
        if !dropped.is_empty() || case.stored() != want || case.bench.stats().alarm().is_some() {
            failed.push(format!(
                "{}: dropped {dropped:?}, {:?}",
                trouble.name,
                case.loki.stats()
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Guarantees that data is given up only where the user said so, and is then counted and kept.
#[test]
fn what_is_given_up_after_a_time_is_counted_and_kept() {
    for (retry, attempts) in [
        (
            json!({"initial_interval": "1s", "max_interval": "2s", "max_elapsed_time": "10s"}),
            4..14,
        ),
        (json!({"enabled": false}), 1..2),
    ] {
        let mut case = Case::start(&json!({"retry_on_failure": retry}), |_| {});
        case.loki.set_faults(|f| f.status_500 = 1.0);
        let sent = entries("one", "lost", 9, 60);
        case.bench.send(&sent);
        let dropped = case.bench.settle();
        assert_eq!(dropped, [("retries_exhausted", 9)].into());
        let reason = || "retries_exhausted".to_owned();
        let want: Vec<_> = lines(&sent)
            .into_iter()
            .map(|line| (line, reason()))
            .collect();
        assert_eq!(case.letters(), want);
        let pushes = case.loki.stats().pushes;
        assert!(attempts.contains(&pushes), "{pushes} attempts");
    }
}

/// Guarantees that a tenant which is over its rate, for however long, costs the other tenants no
/// time at all, and is asked about as rarely as the waits say.
#[test]
fn a_storm_on_one_tenant_costs_the_others_nothing() {
    for retry_after in [None, Some(30)] {
        let config = json!({"tenant": {"from_resource": "team"}});
        let mut case = Case::start(&config, |b| b.auth_enabled = true);
        case.loki
            .set_faults(|f| f.retry_after_seconds = retry_after);
        let refusal = Scripted::Answer {
            status: 429,
            body: "Ingestion rate limit exceeded for user noisy (limit: 100000 bytes/sec) while \
                   attempting to ingest '1' lines totaling '60' bytes, reduce log volume"
                .into(),
        };
        let noisy = Matcher::Tenant("noisy".into());
        case.loki.script(noisy, vec![refusal; 10_000]);
        let of = |team: &str, n: i64| {
            let mut entries = entries(&format!("app{}", n % 20), &format!("round {n:03}"), 5, 60);
            for entry in &mut entries {
                entry.resource.insert("team", team);
            }
            entries
        };
        let count = |case: &Case, team: &str| -> usize {
            let streams = case.loki.streams(team);
            streams
                .iter()
                .map(|labels| case.loki.entries(team, labels).len())
                .sum()
        };
        for n in 0..100 {
            case.bench.send(&of("noisy", n));
            case.bench.send(&of("calm", n));
            // No time passes for the exporter.
            let through =
                wait::within(wait::BOUND, || count(&case, "calm") == 5 * (n as usize + 1));
            assert!(through, "round {n}: {:?}", case.bench.stats());
            case.bench.advance(Duration::from_secs(1));
        }
        for _ in 0..500 {
            case.bench.advance(Duration::from_secs(1));
        }
        // 600 s, waits of 0.5 s to 3 s or of 30 s, and what was under way at the beginning.
        let refused = case.loki.stats().push_responses[&429];
        let most = retry_after.map_or(1_200, |s| 600 / s) + 10;
        assert!(
            (1..=most).contains(&refused),
            "{refused} attempts, {retry_after:?}"
        );
        assert_eq!(count(&case, "noisy"), 0);
        case.loki.clear_scripts();
        assert!(case.bench.settle().is_empty());
        assert_eq!(count(&case, "noisy"), 500);
    }
}

/// Guarantees that a wait which the server asks for is kept to.
#[test]
fn retry_after_is_a_floor() {
    let mut case = Case::start(&json!({}), |_| {});
    case.loki.set_faults(|f| {
        f.status_503 = 1.0;
        f.retry_after_seconds = Some(600);
    });
    case.bench.send(&entries("one", "good", 43, 60));
    let refused = case
        .loki
        .wait_until(wait::BOUND, |s| s.push_responses.contains_key(&503));
    assert!(refused);
    case.loki.set_faults(|f| f.status_503 = 0.0);
    let counted = wait::within(wait::BOUND, || case.bench.stats().failed_attempts() == 1);
    assert!(counted);
    // Ten minutes, less what the clock had moved before the answer was taken in.
    for _ in 0..59 {
        case.bench.advance(Duration::from_secs(10));
    }
    assert_eq!(case.loki.stats().pushes, 1);
    assert_eq!(case.bench.open_records(), 43);
    assert!(case.bench.settle().is_empty());
    assert_eq!(case.stored().len(), 43);
}

/// Guarantees that streams which may not be made, for however long, hold up no stream that shared
/// requests with them.
#[test]
fn streams_that_are_refused_hold_up_no_other() {
    let mut case = Case::start(&json!({}), |_| {});
    // The good streams exist before the limit is met, and are then sent together.
    let names: Vec<String> = (0..4).map(|i| format!("good{i}")).collect();
    let round = |names: &[String], n: i64| {
        let entries = names
            .iter()
            .map(|name| entry(name, &format!("{name} {n:02}"), 200 - n));
        entries.collect::<Vec<_>>()
    };
    case.bench.send(&round(&names, 0));
    assert!(case.bench.settle().is_empty());
    case.loki.set_behaviour(|b| b.streams_max = Some(4));
    let refused: Vec<String> = (0..6).map(|i| format!("refused{i}")).collect();
    let both = [&names[..], &refused[..]].concat();
    for n in 1..=30 {
        case.bench.send(&round(&both, n));
        case.bench.advance(Duration::from_millis(50));
    }
    let through = wait::within(wait::BOUND, || {
        case.bench.advance(Duration::from_millis(50));
        case.stored().len() == 4 * 31
    });
    assert!(
        through,
        "{} stored, {:?}",
        case.stored().len(),
        case.bench.stats()
    );
    assert_eq!(case.loki.stats().discarded_hidden, 0);
    case.loki.set_behaviour(|b| b.streams_max = None);
    assert!(case.bench.settle().is_empty());
    assert_eq!(case.stored().len(), 4 * 31 + 6 * 30);
}
