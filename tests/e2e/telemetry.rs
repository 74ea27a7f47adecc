//! What the agent says about itself: names and labels of metrics, its levels and readers, its log,
//! and the health check.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::rig::{Rig, tail, with_health_check};
use tailwater_tests::scrape::{Scrape, get};
use tailwater_tests::wait;

/// Labels that a series must have, among others.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// Waits until the scrape has a property, and gives it.
fn scrape_that(agent: &Agent, what: &str, has: impl Fn(&Scrape) -> bool) -> Scrape {
    let found = wait::for_some(wait::BOUND, || Some(agent.scrape()).filter(&has));
    found.unwrap_or_else(|| panic!("{what}: {:#?}", agent.scrape().samples))
}

/// Guarantees the collector's names and labels, with the numbers they stand for.
#[test]
fn the_collectors_metrics_have_its_names_labels_and_the_right_numbers() {
    const LINES: u64 = 1_000;
    let rig = Rig::new("names");
    let mut writer = rig.writer(1, "a.log", |_| {});
    let agent = rig.start(&rig.config());
    writer.write_lines(LINES).expect("written");
    rig.wait_delivered(&agent);
    let lines = LINES as f64;
    let scrape = scrape_that(&agent, "all is settled", |s| {
        s.account("receiver").delivered == lines
    });
    let receiver = [("receiver", "filelog"), ("transport", "file")];
    let processor = [("processor", "batch"), ("otel_signal", "logs")];
    let exporter = [("exporter", "loki")];
    let queue = [("exporter", "loki"), ("data_type", "logs")];
    let sums: [(&str, Labels<'_>, f64); 9] = [
        ("otelcol_receiver_accepted_log_records", &receiver, lines),
        ("otelcol_receiver_refused_log_records", &receiver, 0.0),
        ("otelcol_processor_incoming_items", &processor, lines),
        ("otelcol_processor_outgoing_items", &processor, lines),
        ("otelcol_exporter_sent_log_records", &exporter, lines),
        ("otelcol_exporter_send_failed_log_records", &exporter, 0.0),
        ("otelcol_exporter_queue_size", &queue, 0.0),
        ("otelcol_fileconsumer_open_files", &[], 1.0),
        ("tailwater_tokens_lost", &[], 0.0),
    ];
    for (name, labels, want) in sums {
        assert!(scrape.has(name), "{name}");
        assert_eq!(scrape.sum(name, labels), want, "{name}");
    }
    assert!(scrape.sum("otelcol_exporter_queue_capacity", &queue) > 0.0);
    let positive: [(&str, Labels<'_>); 9] = [
        ("otelcol_process_uptime", &[]),
        ("otelcol_process_memory_rss", &[]),
        ("otelcol_process_runtime_heap_alloc_bytes", &[]),
        ("otelcol_process_runtime_total_sys_memory_bytes", &[]),
        (
            "otelcol_processor_batch_timeout_trigger_send",
            &[("processor", "batch")],
        ),
        ("tailwater_data_bytes_max", &[]),
        ("tailwater_config_generation", &[]),
        ("tailwater_checkpoint_writes", &[]),
        ("target_info", &[("service_name", "tailwater")]),
    ];
    for (name, labels) in positive {
        assert!(scrape.sum(name, labels) > 0.0, "{name}");
    }
    for name in [
        "otelcol_process_cpu_seconds",
        "tailwater_thread_cpu_seconds",
    ] {
        assert!(scrape.has(name), "{name}");
    }
    agent.stop_clean();
}

/// Guarantees that each level shows its part, and that `none` listens nowhere.
#[test]
fn levels_of_metrics_show_their_part() {
    let (normal, detailed) = (
        "otelcol_processor_batch_batch_send_size_count",
        "otelcol_processor_batch_batch_send_size_bytes_count",
    );
    for (level, want) in [
        ("basic", [false, false]),
        ("normal", [true, false]),
        ("detailed", [true, true]),
    ] {
        let rig = Rig::new("levels");
        let mut config = rig.config();
        config["service"]["telemetry"]["metrics"]["level"] = level.into();
        let agent = rig.start(&config);
        let scrape = agent.scrape();
        assert!(scrape.has("tailwater_records_read"), "{level}");
        assert_eq!(
            [normal, detailed].map(|name| scrape.has(name)),
            want,
            "{level}"
        );
        agent.stop_clean();
    }
    let rig = Rig::new("level-none");
    let mut config = rig.config();
    config["service"]["telemetry"]["metrics"]["level"] = "none".into();
    let agent = rig.start(&config);
    let refused = Scrape::fetch(agent.metrics_addr()).expect_err("nothing listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    agent.stop_clean();
}

/// Guarantees that two readers serve the same numbers, each under the names it asks for.
#[test]
fn each_reader_has_its_own_names_and_labels() {
    let rig = Rig::new("readers");
    let mut config = rig.config();
    let port = free_port().expect("a port");
    config["service"]["telemetry"] = json!({
        "resource": {"service.name": "shipper"},
        "metrics": {"readers": [{"pull": {"exporter": {"prometheus": {
            "host": "127.0.0.1", "port": port,
            "without_type_suffix": false, "without_units": false, "without_scope_info": false,
            "with_resource_constant_labels": {"included": ["service.*"], "excluded": ["*.id"]},
        }}}}]},
    });
    let mut writer = rig.writer(1, "a.log", |_| {});
    let agent = rig.start(&config);
    writer.write_lines(10).expect("written");
    rig.wait_delivered(&agent);
    let plain = scrape_that(&agent, "delivered", |s| {
        s.sum("otelcol_exporter_sent_log_records", &[]) == 10.0
    });
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let suffixed = Scrape::fetch(addr).expect("the second reader");
    let labels = [
        ("exporter", "loki"),
        ("otel_scope_name", "tailwater"),
        ("service_name", "shipper"),
    ];
    let sent = suffixed.sum("otelcol_exporter_sent_log_records_total", &labels);
    assert_eq!(sent, 10.0, "{:#?}", suffixed.samples);
    assert!(suffixed.has("otelcol_process_memory_rss_bytes"));
    assert!(!suffixed.has("otelcol_exporter_sent_log_records"));
    assert!(!plain.has("otelcol_exporter_sent_log_records_total"));
    for (scrape, with) in [(&plain, false), (&suffixed, true)] {
        let sample = scrape
            .samples
            .iter()
            .find(|s| s.name.starts_with("otelcol_exporter_sent_log"));
        let labels = &sample.expect("a series").labels;
        assert_eq!(labels.contains_key("service_name"), with);
        assert!(!labels.contains_key("service_instance_id"), "excluded");
    }
    let instance = |s: &Scrape| {
        let info = s.samples.iter().find(|s| s.name == "target_info");
        info.and_then(|i| i.labels.get("service_instance_id").cloned())
    };
    assert_eq!(instance(&plain).map(|id| id.len()), Some(36), "a UUID");
    agent.stop_clean();
}

/// Guarantees that the number of series depends on the configuration, not on the number of files
/// that come and go.
#[test]
fn files_that_come_and_go_leave_no_series_behind() {
    let rig = Rig::new("series");
    let mut first = rig.writer(0, "0.log", |_| {});
    let agent = rig.start(&rig.config());
    first.write_lines(10).expect("written");
    rig.wait_delivered(&agent);
    let before = scrape_that(&agent, "settled", |s| {
        s.account("receiver").in_flight == 0.0 && s.sum("tailwater_checkpoint_writes", &[]) > 0.0
    });
    for id in 1..200 {
        let mut writer = rig.writer(id, &format!("{id}.log"), |_| {});
        writer.write_lines(1).expect("written");
    }
    rig.wait_delivered(&agent);
    let after = scrape_that(&agent, "settled", |s| {
        s.account("receiver").in_flight == 0.0
    });
    assert_eq!(
        before.samples.len(),
        after.samples.len(),
        "{:#?}",
        after.samples
    );
    agent.stop_clean();
}

/// Guarantees that every option of the agent's own log does what it says.
#[test]
fn options_of_the_log_have_their_effect() {
    let rig = Rig::new("own-log");
    let path = rig.path("own.log");
    let mut config = rig.config();
    config["service"]["telemetry"]["logs"] = json!({
        "level": "debug",
        "encoding": "json",
        "output_paths": [path, "stderr"],
        "initial_fields": {"cluster": "c1"},
        "disable_caller": true,
        "sampling": {"enabled": false},
    });
    let agent = rig.start(&config);
    agent.stop_clean();
    let text = fs::read_to_string(&path).expect("the log file");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let has = |level: &str| lines.iter().any(|l| l["level"] == level);
    assert!(has("info") && has("debug"), "{text}");
    assert!(lines.iter().all(|l| l["cluster"] == "c1"), "{text}");
    assert!(lines.iter().all(|l| l["caller"].is_null()), "{text}");
    config["service"]["telemetry"]["logs"] = json!({"level": "error", "output_paths": [path]});
    fs::remove_file(&path).expect("a file");
    let mut agent = rig.spawn(&config);
    let up = wait::within(wait::BOUND, || Scrape::fetch(agent.metrics_addr()).is_ok());
    assert!(up && !agent.has_ended());
    agent.stop_clean();
    assert_eq!(fs::read_to_string(&path).expect("the log file"), "");
}

/// Guarantees that a destination that takes nothing shows in the health check within 30 s, with
/// the reason, that the process counts as alive, and that it is healthy again when lines arrive.
#[test]
fn a_destination_that_is_down_shows_in_the_health_check_within_thirty_seconds() {
    let rig = Rig::new("health");
    let mut config = rig.config();
    let health = with_health_check(&mut config);
    let agent = rig.start(&config);
    let answer = |path| get(health, path).expect("an answer");
    assert!(answer("/").starts_with("HTTP/1.1 200"), "{}", answer("/"));
    rig.loki.set_reach(Reach::Refused).expect("a port");
    let mut writer = rig.writer(1, "a.log", |_| {});
    writer.write_lines(100).expect("written");
    let down = Instant::now();
    let shown = wait::within(Duration::from_secs(30), || {
        answer("/").starts_with("HTTP/1.1 503")
    });
    assert!(shown, "{}\n{}", answer("/"), tail(&agent.log()));
    println!("shown after {:.1} s", down.elapsed().as_secs_f64());
    let body = answer("/");
    assert!(body.contains(r#"exporter \"loki\""#), "{body}");
    assert!(body.contains("nothing was accepted for"), "{body}");
    assert!(answer("/live").starts_with("HTTP/1.1 200"));
    rig.loki
        .set_reach(Reach::Up)
        .expect("the port is still free");
    rig.wait_delivered(&agent);
    let healthy = wait::within(wait::BOUND, || answer("/").starts_with("HTTP/1.1 200"));
    assert!(healthy, "{}", answer("/"));
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that the allocator has the settings of the program: it gives back unused pages in threads of its own.
#[test]
fn the_allocator_gives_pages_back_by_itself() {
    let rig = Rig::new("allocator");
    let agent = rig.start(&rig.config());
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("it runs");
    let names = tasks.flatten().map(|task| {
        let name = fs::read_to_string(task.path().join("comm"));
        name.unwrap_or_default()
    });
    let names: Vec<String> = names.collect();
    let gives_back = |name: &String| name.starts_with("jemalloc_bg");
    assert!(names.iter().any(gives_back), "{names:?}");
    agent.stop_clean();
}
