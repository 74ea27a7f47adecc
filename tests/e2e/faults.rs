//! A sink that refuses, lies, hangs or chokes, and a state directory without room: what is hurt is
//! the thing itself and nothing else.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::LokiStats;
use tailwater_testkit::loki::behaviour::{BodyFault, Faults, LokiBehaviour, Matcher, Scripted};
use tailwater_testkit::writer::LogWriter;
use tailwater_tests::rig::{Rig, tail, with_health_check};
use tailwater_tests::scrape::get;
use tailwater_tests::wait;

const MIB: u64 = 1024 * 1024;

/// A change of the faults.
type Fault = fn(&mut Faults);

/// One receiver per tenant, `<tenant>*.log` each; the tenant is a resource attribute.
fn tenants_config(rig: &Rig, tenants: &[&str]) -> Value {
    let mut config = rig.config();
    let base = config["receivers"]["filelog"].take();
    let mut receivers = serde_json::Map::new();
    for tenant in tenants {
        let mut receiver = base.clone();
        receiver["include"] = json!([rig.logs(&format!("{tenant}*.log"))]);
        receiver["resource"] = json!({"team": tenant});
        receivers.insert(format!("filelog/{tenant}"), receiver);
    }
    config["service"]["pipelines"]["logs"]["receivers"] = receivers.keys().cloned().collect();
    config["receivers"] = receivers.into();
    config["exporters"]["loki"]["tenant"] = json!({"from_resource": "team"});
    config
}

/// Guarantees that one tenant's 429s delay that tenant alone.
#[test]
fn a_429_storm_on_one_tenant_leaves_the_other_going() {
    let behaviour = LokiBehaviour {
        auth_enabled: true,
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("storm", behaviour, Faults::default());
    let config = tenants_config(&rig, &["calm", "noisy"]);
    // Many files of the one, so that what cannot be delivered is more than a queue holds.
    let mut noisy: Vec<_> = (10..50)
        .map(|id| rig.writer(id, &format!("noisy{id}.log"), |_| {}))
        .collect();
    let mut calm = rig.writer(2, "calm.log", |_| {});
    let refusal = Scripted::Answer {
        status: 429,
        body: "Ingestion rate limit exceeded".into(),
    };
    // Without an end, until the scripts are cleared.
    rig.loki
        .script(Matcher::Tenant("noisy".into()), vec![refusal; 100_000]);
    for writer in &mut noisy {
        writer.write_lines(5_000).expect("written");
    }
    let agent = rig.start(&config);
    let refused = |s: &LokiStats| s.push_responses.contains_key(&429);
    assert!(rig.loki.wait_until(wait::BOUND, refused), "{}", agent.log());
    for round in 0..10 {
        calm.write_lines(2_000).expect("written");
        let through = wait::within(wait::BOUND, || delivered(&rig, 2) == calm.lines_written());
        assert!(
            through,
            "round {round}: the calm tenant waits\n{}\n{}",
            rig.summary(),
            tail(&agent.log())
        );
    }
    assert!((10..50).all(|id| delivered(&rig, id) == 0));
    rig.loki.clear_scripts();
    rig.wait_delivered_within(&agent, Duration::from_secs(60));
    agent.stop_clean();
    rig.assert_faultless();
}

/// Lines of a writer that arrived.
fn delivered(rig: &Rig, writer: u32) -> u64 {
    let report = rig.oracle.report();
    report
        .writers
        .iter()
        .find(|w| w.writer == writer)
        .map_or(0, |w| w.delivered)
}

/// Guarantees that `delivery: verified` is not fooled by a success that hides refused streams.
#[test]
fn a_204_that_hides_refusals_hides_nothing_from_verified_delivery() {
    let behaviour = LokiBehaviour {
        stream_rate_bytes: Some(300_000),
        stream_burst_bytes: 300_000,
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("hidden", behaviour, Faults::default());
    let mut config = rig.config();
    config["receivers"]["filelog"]["include_file_name"] = json!(true);
    let loki = &mut config["exporters"]["loki"];
    loki["labels"]["attributes"] = json!({"file": "log.file.name"});
    loki["delivery"] = json!("verified");
    loki["limits"] = json!({"stream_rate_bytes": 300_000, "stream_burst_bytes": 300_000});
    let mut writers: Vec<LogWriter> = (0..12)
        .map(|id| rig.writer(id, &format!("s{id}.log"), |_| {}))
        .collect();
    for (i, writer) in writers.iter_mut().enumerate() {
        // Some have far more than the rate allows at once, most do not.
        writer
            .write_lines(if i % 4 == 0 { 8_000 } else { 300 })
            .expect("written");
    }
    let agent = rig.start(&config);
    rig.wait_delivered_within(&agent, Duration::from_secs(60));
    agent.stop_clean();
    rig.assert_faultless();
    let stats = rig.loki.stats();
    assert_eq!(stats.discarded_hidden, 0, "{stats:?}");
}

/// Guarantees that entries which Loki will never take are dropped and counted by themselves, and
/// that those stored in the same request are neither lost nor repeated for ever.
#[test]
fn a_partial_400_costs_only_the_entries_it_names() {
    let behaviour = LokiBehaviour {
        line_bytes_max: Some(1_000),
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("partial400", behaviour, Faults::default());
    let mut good = rig.writer(1, "a.log", |_| {});
    let long = format!("{}\n", "long ".repeat(300));
    let agent = rig.start(&rig.config());
    for _ in 0..7 {
        good.write_lines(200).expect("written");
        let mut file = File::options()
            .append(true)
            .open(good.path())
            .expect("a file");
        file.write_all(long.as_bytes()).expect("written");
    }
    good.write_lines(200).expect("written");
    rig.wait_delivered(&agent);
    let settled = wait::within(wait::BOUND, || {
        agent.scrape().account("receiver").dropped >= 7.0
    });
    let account = agent.scrape().account("receiver");
    assert!(settled, "{account:?}\n{}", tail(&agent.log()));
    assert_eq!((account.dropped, account.delivered), (7.0, 1_600.0));
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that a request which is too large for the server is sent in smaller ones.
#[test]
fn a_request_that_is_too_large_is_split() {
    type Limit = fn(&mut LokiBehaviour);
    let cases: [(&str, Limit); 2] = [
        ("500 by the message's size", |b| {
            b.grpc_message_bytes_max = Some(200_000)
        }),
        ("413 by the body's size", |b| b.body_bytes_max = 60_000),
    ];
    for (name, limit) in cases {
        let mut behaviour = LokiBehaviour::permissive();
        limit(&mut behaviour);
        let rig = Rig::with("large", behaviour, Faults::default());
        let mut writer = rig.writer(1, "a.log", |_| {});
        writer.write_lines(10_000).expect("written");
        let agent = rig.start(&rig.config());
        rig.wait_delivered(&agent);
        let account = agent.scrape().account("receiver");
        assert_eq!(account.dropped, 0.0, "{name}: {account:?}");
        agent.stop_clean();
        rig.assert_faultless();
        let refused = rig.loki.stats().push_responses;
        assert!(
            refused.keys().any(|s| *s != 204),
            "{name}: the limit was never met: {refused:?}"
        );
    }
}

/// Guarantees that an answer that never comes, comes slowly or is huge costs time, not lines and
/// not memory.
#[test]
fn answers_that_hang_dribble_or_never_end_cost_only_time() {
    let rig = Rig::new("answers");
    let mut config = rig.config();
    config["exporters"]["loki"]["timeout"] = json!("1s");
    let mut writer = rig.writer(1, "a.log", |_| {});
    let agent = rig.start(&config);
    let faults: [(&str, Fault); 4] = [
        ("hang", |f| f.hang = true),
        // Always errors: a success with a body would be a 200, which no Loki answers.
        ("slow", |f| {
            let (bytes, pause) = (3_000, Duration::from_millis(2));
            (f.status_500, f.body) = (1.0, BodyFault::Slow { bytes, pause });
        }),
        ("huge", |f| {
            (f.status_500, f.body) = (1.0, BodyFault::Huge { bytes: 64 << 20 });
        }),
        ("none", |_| {}),
    ];
    for (name, fault) in faults {
        rig.loki.set_faults(|f| {
            *f = Faults::default();
            fault(f);
        });
        let pushes = rig.loki.stats().pushes;
        writer.write_lines(1_000).expect("written");
        let tried = rig.loki.wait_until(wait::BOUND, |s| s.pushes >= pushes + 2);
        assert!(tried || name == "none", "{name}: {}", tail(&agent.log()));
    }
    rig.wait_delivered(&agent);
    let peak = agent.resident_bytes_peak();
    assert!(peak < 160 * MIB, "{} MiB resident", peak / MIB);
    agent.stop_clean();
    rig.assert_faultless();
}

/// A small file system mounted on a directory; unmounted on drop.
struct Mount(PathBuf);

impl Mount {
    /// `None`, said aloud, when this process may not mount.
    fn tmpfs(path: PathBuf, size: &str) -> Option<Mount> {
        let options = format!("size={size},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tailwater-test"])
            .arg(&path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Mount(path)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                println!("SKIPPED: a full state directory: cannot mount a tmpfs: {why}");
                None
            }
            Err(e) => {
                println!("SKIPPED: a full state directory: cannot run mount: {e}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there is about to end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Guarantees that delivery goes on when positions cannot be saved, that metrics, log and health
/// check say so within ten seconds, and that they are saved again once there is room.
#[test]
fn a_full_state_directory_does_not_stop_delivery() {
    let rig = Rig::new("full");
    let Some(_mount) = Mount::tmpfs(rig.state(), "1m") else {
        return;
    };
    let mut writer = rig.writer(1, "a.log", |_| {});
    let mut config = rig.config();
    let health = with_health_check(&mut config);
    let agent = rig.start(&config);
    writer.write_lines(500).expect("written");
    rig.wait_delivered(&agent);
    let filler = rig.state().join("filler");
    fill(&filler);
    let failed = wait::within(Duration::from_secs(10), || {
        writer.write_lines(200).expect("written");
        rig.wait_delivered(&agent);
        let scrape = agent.scrape();
        let sum = |name| scrape.sum(name, &[]);
        let answer = get(health, "/").expect("an answer");
        sum("tailwater_checkpoint_write_failures") > 0.0
            && sum("tailwater_checkpoint_alarm") == 1.0
            && sum("tailwater_checkpoint_unsaved_seconds") > 0.0
            && answer.starts_with("HTTP/1.1 503")
            && answer.contains("not saved")
            && answer.contains("No space")
    });
    assert!(
        failed,
        "metrics or health check do not say it: {}\n{}",
        get(health, "/").unwrap_or_default(),
        tail(&agent.log())
    );
    let log = agent.log().to_lowercase();
    assert!(
        log.contains("no space"),
        "the reason is not in the log:\n{}",
        tail(&log)
    );
    assert_eq!(
        log.matches("checkpoints cannot be saved").count(),
        1,
        "said once, not at every attempt:\n{log}"
    );
    fs::remove_file(&filler).expect("a file");
    writer.write_lines(500).expect("written");
    rig.wait_delivered(&agent);
    let saved = wait::within(wait::BOUND, || {
        let scrape = agent.scrape();
        let sum = |name| scrape.sum(name, &[]);
        let answer = get(health, "/").expect("an answer");
        sum("tailwater_checkpoint_alarm") == 0.0
            && sum("tailwater_checkpoint_unsaved_entries") == 0.0
            && sum("tailwater_checkpoint_entries") == 1.0
            && answer.starts_with("HTTP/1.1 200")
    });
    assert!(saved, "not saved again:\n{}", tail(&agent.log()));
    agent.stop_clean();
    writer.write_lines(100).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    assert_eq!(
        report.totals.duplicates_raw, 0,
        "positions were not saved after all"
    );
}

/// Writes to `path` until there is no room left.
fn fill(path: &std::path::Path) {
    let mut file = File::create(path).expect("a file");
    for chunk in [vec![0; 4096], vec![0; 1]] {
        while file.write_all(&chunk).is_ok() {}
    }
}

/// Guarantees that an agent starts where its state directory has become read-only, with the
/// positions that are in it, and says that it cannot save.
#[test]
fn a_read_only_state_directory_does_not_keep_the_agent_from_starting() {
    let rig = Rig::new("read-only");
    let Some(mount) = Mount::tmpfs(rig.state(), "1m") else {
        return;
    };
    let mut writer = rig.writer(1, "a.log", |_| {});
    let agent = rig.start(&rig.config());
    writer.write_lines(500).expect("written");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        let mut command = Command::new("mount");
        let status = command.args(["-o", &options]).arg(&mount.0).status();
        assert!(status.expect("mount runs").success(), "{options}");
    };
    remount("ro");
    writer.write_lines(500).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let alarm = |value: f64| {
        let sum = || agent.scrape().sum("tailwater_checkpoint_alarm", &[]);
        wait::within(wait::BOUND, || sum() == value)
    };
    assert!(alarm(1.0), "{}", tail(&agent.log()));
    remount("rw");
    assert!(alarm(0.0), "{}", tail(&agent.log()));
    agent.stop_clean();
    let report = rig.assert_faultless();
    assert_eq!(report.totals.duplicates_raw, 0, "positions were not used");
}
