//! What goes wrong on demand.

use std::time::Instant;

use super::super::behaviour::BodyFault;
use super::*;

fn one() -> Vec<PushStream<'static>> {
    vec![good(r#"{a="1"}"#)]
}

#[test]
fn random_faults_follow_their_probability_and_repeat_from_the_seed() {
    let run = |seed| {
        let f = start(|o| {
            o.seed = seed;
            o.faults.status_429 = 0.3;
            o.faults.status_503 = 0.3;
            o.faults.reset_before = 0.1;
            o.faults.reset_after = 0.1;
        });
        let statuses: Vec<Option<u16>> = (0..60)
            .map(|_| f.try_push(one()).map(|answer| answer.status))
            .collect();
        (statuses, f.loki.stats())
    };
    let (first, stats) = run(5);
    assert_eq!(first, run(5).0);
    assert_ne!(first, run(6).0);
    for status in [None, Some(204), Some(429), Some(503)] {
        assert!(first.contains(&status), "{status:?}");
    }
    let answered: u64 = stats.push_responses.values().sum();
    assert_eq!(answered + stats.pushes_unanswered, 60);
    // A reset after processing stored its entry, a reset before did not.
    let stored = stats.entries_accepted;
    let told = stats.push_responses[&204];
    assert!(
        stored > told && stored < told + stats.pushes_unanswered,
        "{stats:?}"
    );
}

#[test]
fn a_certain_500_and_retry_after() {
    let f = start(|o| o.faults.status_500 = 1.0);
    f.expect(one(), 500, "injected fault");
    f.loki.set_faults(|faults| {
        *faults = Faults {
            status_429: 1.0,
            retry_after_seconds: Some(7),
            ..Faults::default()
        };
    });
    assert!(
        f.expect(one(), 429, "ingestion rate limit exceeded")
            .head
            .contains("\r\nRetry-After: 7")
    );
    f.loki.set_faults(|faults| *faults = Faults::default());
    f.expect(one(), 204, "");
}

#[test]
fn scripts_apply_in_order_to_the_requests_that_match() {
    let f = with(|b| b.auth_enabled = true);
    let push = |tenant: &str, label: &str| {
        let body = snappy(&encode_push(&PushRequest {
            streams: vec![good(label)],
        }));
        let headers =
            format!("Content-Type: application/x-protobuf\r\nX-Scope-OrgID: {tenant}\r\n");
        f.post(&headers, &body)
            .map(|answer| (answer.status, answer.body))
    };
    let answer = |status, body: &str| Scripted::Answer {
        status,
        body: body.to_owned(),
    };
    f.loki.script(
        Matcher::Tenant("x".into()),
        [answer(429, "one"), Scripted::Process],
    );
    f.loki
        .script(Matcher::Tenant("x".into()), [Scripted::Close]);
    let db = Matcher::Stream {
        name: "app".into(),
        value: "db".into(),
    };
    f.loki
        .script(db, [answer(503, "db"), Scripted::ProcessThenClose]);
    assert_eq!(f.loki.scripted_left(), 5);
    assert_eq!(push("y", r#"{app="web"}"#), Some((204, String::new())));
    assert_eq!(push("x", r#"{app="web"}"#), Some((429, "one".to_owned())));
    assert_eq!(push("y", r#"{app="db"}"#), Some((503, "db".to_owned())));
    assert_eq!(push("x", r#"{app="web"}"#), Some((204, String::new())));
    assert_eq!(push("x", r#"{app="web"}"#), None);
    assert_eq!(f.loki.copies("y", r#"{app="db"}"#), 0);
    assert_eq!(push("y", r#"{app="db"}"#), None);
    assert_eq!(f.loki.copies("y", r#"{app="db"}"#), 1);
    let lie = Scripted::ProcessThenAnswer {
        status: 500,
        body: "lie".into(),
    };
    f.loki.script(Matcher::Any, [lie]);
    assert_eq!(push("y", r#"{app="web"}"#), Some((500, "lie".to_owned())));
    assert_eq!(f.loki.copies("y", r#"{app="web"}"#), 2);
    assert_eq!(f.loki.scripted_left(), 0);
}

#[test]
fn a_scripted_204_without_storing_is_a_lie_the_counters_show() {
    let f = with(|_| {});
    f.loki.script(
        Matcher::Any,
        [Scripted::Answer {
            status: 204,
            body: String::new(),
        }],
    );
    f.expect(one(), 204, "");
    assert_eq!(f.loki.stats().entries_accepted, 0);
}

#[test]
fn delays_hold_a_request_back() {
    let f = start(|o| o.faults.delay = Duration::from_millis(80));
    let begin = Instant::now();
    f.expect(one(), 204, "");
    assert!(begin.elapsed() >= Duration::from_millis(80));
}

#[test]
fn hanging_requests_store_nothing_and_end_when_the_faults_change() {
    let f = start(|o| o.faults.hang = true);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| f.try_push(one()).map(|answer| answer.status));
        assert!(
            f.loki
                .wait_until(Duration::from_secs(10), |stats| stats.pushes_hanging == 1)
        );
        assert_eq!(f.loki.stats().entries_received, 0);
        f.loki.set_faults(|faults| faults.hang = false);
        assert_eq!(pushing.join().unwrap(), None);
    });
    f.expect(one(), 204, "");
}

#[test]
fn response_bodies_can_be_huge_or_slow() {
    let f = start(|o| o.faults.body = BodyFault::Huge { bytes: 3_000_000 });
    assert_eq!(f.expect(one(), 200, "").body.len(), 3_000_000);
    let pause = Duration::from_millis(2);
    f.loki
        .set_faults(|faults| faults.body = BodyFault::Slow { bytes: 30, pause });
    let begin = Instant::now();
    let answer = f.expect(vec![good("{a-b=\"1\"}")], 400, "couldn't parse labels");
    assert!(answer.body.len() >= 30 && begin.elapsed() >= pause * 30);
}

#[test]
fn a_server_that_is_down_refuses_and_comes_back_on_its_port_with_its_entries() {
    let f = with(|_| {});
    f.expect(one(), 204, "");
    f.loki.set_reach(Reach::Refused).unwrap();
    assert!(TcpStream::connect(f.loki.addr()).is_err());
    f.loki.set_reach(Reach::Unavailable).unwrap();
    f.expect(one(), 503, "");
    assert_eq!(f.get("/ready", "").status, 503);
    f.loki.set_reach(Reach::Up).unwrap();
    f.expect(one(), 204, "");
    assert_eq!(f.loki.copies(DEFAULT_TENANT, r#"{a="1"}"#), 2);
}

#[test]
fn requests_are_remembered_up_to_a_bound() {
    let f = start(|o| o.requests_kept_max = 2);
    f.expect(one(), 204, "");
    f.expect(vec![good("bad labels")], 400, "");
    f.get("/ready", "X-Probe: 1\r\n");
    let requests = f.loki.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (requests[0].status, requests[0].streams, requests[0].entries),
        (Some(400), 1, 1)
    );
    assert_eq!(
        (requests[1].method.as_str(), requests[1].path.as_str()),
        ("GET", "/ready")
    );
    assert!(
        requests[1]
            .headers
            .contains(&("x-probe".to_owned(), "1".to_owned()))
    );
}

#[test]
fn waiting_ends_when_the_condition_holds_or_the_time_is_over() {
    let f = with(|_| {});
    assert!(
        !f.loki
            .wait_until(Duration::from_millis(1), |stats| stats.entries_accepted > 0)
    );
    std::thread::scope(|scope| {
        scope.spawn(|| f.expect(one(), 204, ""));
        assert!(
            f.loki
                .wait_until(Duration::from_secs(10), |stats| stats.entries_accepted == 1)
        );
    });
}
