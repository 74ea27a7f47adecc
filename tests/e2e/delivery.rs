//! Files to Loki with the real binary: everything once, in order, with the right time and labels;
//! and what stopping, starting again and a missing sink do to that.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::loki::{DEFAULT_TENANT, FakeLoki};
use tailwater_testkit::message::{Found, find};
use tailwater_testkit::writer::kubernetes::{Container, NodeLogs};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Format, LogWriter};
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

/// Distinct entries over all streams of the default tenant.
fn distinct(loki: &FakeLoki) -> u64 {
    loki.stats().entries_distinct.expect("entries are kept")
}

/// Lets every writer write so many lines.
fn write_each(writers: &mut [LogWriter], lines: u64) {
    for writer in writers {
        writer.write_lines(lines).expect("written");
    }
}

/// Guarantees that plain lines, old and new, arrive once and in the order of their file.
#[test]
fn plain_lines_arrive_once_and_in_order() {
    let rig = Rig::new("plain");
    let mut writers: Vec<_> = (1..=3)
        .map(|id| rig.writer(id, &format!("app{id}.log"), |_| {}))
        .collect();
    write_each(&mut writers, 10_000);
    let agent = rig.start(&rig.config());
    for _ in 0..20 {
        write_each(&mut writers, 500);
    }
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    assert_eq!(
        (report.totals.written, report.totals.delivered),
        (60_000, 60_000)
    );
    assert_eq!(
        (report.totals.out_of_order, report.totals.duplicates_raw),
        (0, 0)
    );
    assert_eq!(
        distinct(&rig.loki),
        60_000,
        "equal lines or times must not swallow each other"
    );
}

/// Guarantees that lines of a log that repeats itself all arrive: Loki would take two equal lines
/// with equal times for one.
#[test]
fn equal_lines_are_kept_apart() {
    let rig = Rig::new("equal");
    fs::write(rig.logs("a.log"), "the same\n".repeat(5_000)).expect("written");
    let agent = rig.start(&rig.config());
    let all = wait::within(wait::BOUND, || distinct(&rig.loki) >= 5_000);
    assert!(all, "{:?}\n{}", rig.loki.stats(), agent.log());
    agent.stop_clean();
    assert_eq!(distinct(&rig.loki), 5_000);
}

fn container(pod: &str) -> Container {
    Container {
        namespace: "shop".into(),
        pod: pod.into(),
        uid: "49cc7c1f-d3a0-4f1c-9c1e-0123456789ab".into(),
        name: "web".into(),
        id: "0".repeat(64),
        restarts: 0,
    }
}

/// Guarantees what a Kubernetes user sees: the time of each line is the runtime's, to the
/// nanosecond; labels are those that were mapped and no others; the rest is structured metadata.
#[test]
fn container_logs_have_exact_times_labels_and_metadata() {
    let rig = Rig::new("cri");
    let node = NodeLogs::create(rig.path("var")).expect("directories");
    let mut writers = Vec::new();
    for (id, pod) in [(1, "cart-0"), (2, "cart-1")] {
        let path = node.add(&container(pod)).expect("a pod");
        writers.push(rig.writer(id, "unused", |o| {
            (o.path, o.format, o.stderr) = (path, Format::Cri, 0.25);
        }));
    }
    write_each(&mut writers, 4_000);
    let mut config = rig.config();
    config["receivers"]["filelog"]["include"] = json!([node.root().join("pods/*/*/*.log")]);
    config["receivers"]["filelog"]["include_file_path"] = json!(true);
    config["receivers"]["filelog"]["operators"] = json!([{"type": "container"}]);
    let loki = &mut config["exporters"]["loki"];
    loki["labels"] = json!({
        "static": {"cluster": "c1"},
        "resource": {"namespace": "k8s.namespace.name", "pod": "k8s.pod.name"},
        "attributes": {"stream": "log.iostream"},
    });
    loki["structured_metadata"] = json!(true);
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    assert_eq!(report.totals.out_of_order, 0);
    let mut expected = Vec::new();
    for pod in ["cart-0", "cart-1"] {
        for stream in ["stderr", "stdout"] {
            expected.push(format!(
                "{{cluster=\"c1\", namespace=\"shop\", pod=\"{pod}\", stream=\"{stream}\"}}"
            ));
        }
    }
    assert_eq!(rig.loki.streams(DEFAULT_TENANT), expected);
    for labels in &expected {
        for entry in rig.loki.entries(DEFAULT_TENANT, labels) {
            let Found::Valid { seq, .. } = find(&entry.line) else {
                panic!("{entry:?}")
            };
            let seq = i64::try_from(seq).expect("small");
            assert_eq!(
                entry.ts_ns,
                rig.start_ns() + seq * 1_000_000,
                "line {seq} of {labels}"
            );
            let metadata = |name: &str| {
                entry
                    .metadata
                    .iter()
                    .find(|(k, _)| k == name)
                    .map(|(_, v)| v.as_str())
            };
            assert_eq!(metadata("k8s_container_name"), Some("web"), "{entry:?}");
            assert_eq!(
                metadata("k8s_container_restart_count"),
                Some("0"),
                "{entry:?}"
            );
            assert_eq!(
                metadata("k8s_pod_uid"),
                Some(container("").uid.as_str()),
                "{entry:?}"
            );
            assert_eq!(
                metadata("k8s_pod_name"),
                None,
                "a label is not repeated: {entry:?}"
            );
        }
    }
}

/// Guarantees that messages which a runtime wrote in parts, mixed with those of the other stream,
/// arrive whole. (Docker's parts are not joined, as the collector's operator does not.)
#[test]
fn partial_container_lines_arrive_whole() {
    for (format, name) in [(Format::Cri, "containerd"), (Format::Docker, "docker")] {
        let rig = Rig::new("partial");
        let mut writer = rig.writer(1, "0.log", |o| {
            (o.format, o.stderr, o.pad_bytes) = (format, 0.3, 0..=900);
            if format == Format::Cri {
                (o.partial_bytes_max, o.interleave) = (200, 0.3);
            }
        });
        writer.write_lines(3_000).expect("written");
        let agent = rig.start(&rig.container_config(name));
        writer.write_lines(1_000).expect("written");
        rig.wait_delivered(&agent);
        agent.stop_clean();
        let report = rig.assert_faultless();
        assert_eq!(
            (report.totals.delivered, report.totals.duplicates_raw),
            (4_000, 0),
            "{name}"
        );
    }
}

/// Guarantees that a clean restart repeats nothing at all, and that what was written meanwhile
/// is read.
#[test]
fn a_restart_repeats_nothing_and_misses_nothing() {
    let rig = Rig::new("restart");
    let mut writers: Vec<_> = (1..=5)
        .map(|id| rig.writer(id, &format!("app{id}.log"), |_| {}))
        .collect();
    for _ in 0..4 {
        let agent = rig.start(&rig.config());
        for _ in 0..10 {
            write_each(&mut writers, 200);
        }
        rig.wait_delivered(&agent);
        agent.stop_clean();
        write_each(&mut writers, 300);
        writers[0].write_unfinished().expect("written");
    }
    let agent = rig.start(&rig.config());
    writers[0].finish_line().expect("written");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    assert_eq!(report.totals.duplicates_raw, 0, "{}", rig.summary());
    assert_eq!(report.totals.out_of_order, 0);
}

/// Guarantees that an abrupt end repeats only what Loki removes: the same line has the same time
/// again, although the lines carry none.
#[test]
fn a_replay_after_a_kill_carries_the_same_times() {
    let rig = Rig::new("replay");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(20_000).expect("written");
    rig.loki.set_faults(|f| f.delay = Duration::from_millis(50));
    for round in 1..=5 {
        let agent = rig.start(&rig.config());
        let before = rig.loki.stats().entries_accepted;
        writer.write_lines(5_000).expect("written");
        let more = rig
            .loki
            .wait_until(wait::BOUND, |s| s.entries_accepted > before);
        assert!(more, "round {round}: {}", agent.log());
        agent.kill();
    }
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    println!(
        "repeated and removed by Loki's rule: {}",
        report.totals.duplicates_raw
    );
}

/// Guarantees the collector's default: what is in a file when it is first seen at the first start
/// is left out, everything later arrives, also what is written while the agent is away.
#[test]
fn start_at_end_leaves_out_what_was_there_and_nothing_else() {
    let rig = Rig::new("end");
    fs::write(rig.logs("old.log"), "old line\n".repeat(1_000)).expect("written");
    let mut config = rig.config();
    let receiver = config["receivers"]["filelog"]
        .as_object_mut()
        .expect("a map");
    receiver.remove("start_at");
    receiver.insert("include".into(), json!([rig.logs("*.log")]));
    let agent = rig.start(&config);
    let seen = wait::within(wait::BOUND, || {
        agent.scrape().sum("otelcol_fileconsumer_open_files", &[]) >= 1.0
    });
    assert!(seen, "the file was not opened:\n{}", agent.log());
    let mut writer = rig.writer(1, "old.log", |_| {});
    writer.write_lines(100).expect("written");
    // A file that appears later is new from its first line on.
    let mut second = rig.writer(2, "new.log", |_| {});
    second.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    writer.write_lines(50).expect("written");
    second.write_lines(50).expect("written");
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that SIGTERM delivers what is under way and saves how far that was: the next start
/// goes on there, without one repeat.
#[test]
fn sigterm_drains_what_is_under_way() {
    let rig = Rig::new("drain");
    let writer = rig.writer(1, "app.log", |_| {});
    rig.loki
        .set_faults(|f| f.delay = Duration::from_millis(200));
    let live = LiveOptions {
        lines_per_second: 0,
        rotate_every_lines: None,
        lines_max: None,
    };
    let live = LiveWriter::start(writer, live).expect("a thread");
    let agent = rig.start(&rig.config());
    assert!(
        rig.loki.wait_until(wait::BOUND, |s| s.pushes >= 2),
        "{}",
        agent.log()
    );
    agent.stop_clean();
    let mut writer = live.stop().expect("written");
    let first = rig.oracle.report().totals;
    assert!(first.delivered > 0);
    writer.write_lines(10).expect("written");
    rig.loki.set_faults(|f| f.delay = Duration::ZERO);
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    assert_eq!(
        report.totals.duplicates_raw, 0,
        "a drain leaves nothing to repeat"
    );
}

/// The exit code and time of an agent that is stopped while nothing can be delivered.
fn stop_while_down(agent: Agent, rig: &Rig) -> i32 {
    let code = agent.stop_within(Duration::from_secs(15));
    assert!(rig.oracle.report().totals.missing > 0, "the sink was down");
    code
}

/// Guarantees that a stop has a deadline of its own, says that something is left, and loses
/// nothing by it.
#[test]
fn a_stop_that_cannot_deliver_ends_in_time_and_loses_nothing() {
    let rig = Rig::new("deadline");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(5_000).expect("written");
    rig.loki.set_reach(Reach::Unavailable).expect("a port");
    let mut config = rig.config();
    config["service"]["shutdown_timeout"] = json!("1s");
    let agent = rig.start(&config);
    assert!(
        rig.loki.wait_until(wait::BOUND, |s| s.pushes >= 1),
        "{}",
        agent.log()
    );
    assert_eq!(stop_while_down(agent, &rig), 3);
    rig.loki
        .set_reach(Reach::Up)
        .expect("the port is still free");
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that a second SIGTERM ends the agent at once, and that the next start delivers what
/// it left.
#[test]
fn a_second_sigterm_ends_it_at_once_and_loses_nothing() {
    let rig = Rig::new("second");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(5_000).expect("written");
    rig.loki.set_faults(|f| f.hang = true);
    let mut agent = rig.start(&rig.config());
    assert!(
        rig.loki.wait_until(wait::BOUND, |s| s.pushes_hanging >= 1),
        "{}",
        agent.log()
    );
    agent.terminate();
    let noticed = wait::within(wait::BOUND, || agent.log().contains("Starting shutdown"));
    assert!(noticed && !agent.has_ended(), "{}", agent.log());
    agent.terminate();
    let status = agent.wait_end(Duration::from_secs(7));
    let status = status.unwrap_or_else(|| panic!("still running:\n{}", agent.log()));
    assert_eq!(status.code(), Some(4), "{}", agent.log());
    rig.loki.set_faults(|f| f.hang = false);
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that the agent starts and goes on without its sink, for as long as that takes.
#[test]
fn a_sink_that_is_down_at_start_costs_only_time() {
    let rig = Rig::new("down");
    rig.loki.set_reach(Reach::Refused).expect("a port");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(2_000).expect("written");
    let agent = rig.start(&rig.config());
    let tried = wait::within(wait::BOUND, || {
        agent.scrape().sum("tailwater_exporter_retries", &[]) >= 2.0
    });
    assert!(tried, "{}", agent.log());
    writer.write_lines(2_000).expect("written");
    rig.loki
        .set_reach(Reach::Up)
        .expect("the port is still free");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    assert_eq!(report.totals.out_of_order, 0);
}

/// Guarantees that what is in the queue on disk is not read again, and not lost with its file:
/// the log is gone, the agent was stopped while nobody listened, and lines arrive once and in order.
#[test]
fn lines_in_the_queue_on_disk_outlive_their_file() {
    let rig = Rig::new("loki-stored");
    let mut config = rig.config();
    let directory = rig.path("storage");
    fs::create_dir(&directory).expect("a directory");
    config["extensions"] = json!({"file_storage": {"directory": directory}});
    config["service"]["extensions"] = json!(["file_storage"]);
    config["exporters"]["loki"]["sending_queue"] = json!({"storage": "file_storage"});
    rig.loki.set_reach(Reach::Refused).expect("a port");
    let mut writers = [rig.writer(1, "app.log", |_| {})];
    write_each(&mut writers, 5_000);
    let agent = rig.start(&config);
    let labels = [("kind", "exporter"), ("component", "loki")];
    let stored = || agent.scrape().sum("tailwater_records_delivered", &labels) == 5_000.0;
    assert!(wait::within(wait::BOUND, stored), "{}", agent.log());
    agent.stop_clean();
    fs::remove_file(rig.logs("app.log")).expect("it is there");
    rig.loki.set_reach(Reach::Up).expect("a port");
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let report = rig.finish(agent);
    let totals = report.totals;
    assert_eq!((totals.out_of_order, totals.duplicates_raw), (0, 0));
}
