//! Row 6: lines and streams that Loki refuses. Only they are dropped, each counted and kept.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour};
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::Row;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "only the named entries are quarantined; loss of others 0";

/// Appends a line that no oracle knows.
fn append(path: &Path, line: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.expect("written");
}

/// Waits until so many records of the receivers are dropped, and expects that no more are.
fn wait_dropped(agent: &Agent, want: f64) {
    let account = || agent.scrape().account("receiver");
    let settled = wait::within(wait::BOUND, || account().dropped >= want);
    let account = account();
    assert!(
        settled && account.dropped == want,
        "{want}: {account:?}\n{}",
        tail(&agent.log())
    );
}

/// Guarantees that entries which Loki will never take are dropped and counted by themselves, and
/// that those stored in the same request are neither lost nor repeated for ever.
#[test]
fn a_partial_400_costs_only_the_entries_it_names() {
    let mut row = Row::new(6, "400 on single lines")
        .how("7 lines above Loki's limit of length among 1,600 others of their stream")
        .pass(PASS);
    let behaviour = LokiBehaviour {
        line_bytes_max: Some(1_000),
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("partial400", behaviour, Faults::default());
    let mut good = rig.writer(1, "a.log", |_| {});
    let long = "long ".repeat(300);
    let agent = rig.start(&rig.config());
    for _ in 0..7 {
        good.write_lines(200).expect("written");
        append(good.path(), &long);
    }
    good.write_lines(200).expect("written");
    rig.wait_delivered(&agent);
    wait_dropped(&agent, 7.0);
    assert_eq!(agent.scrape().account("receiver").delivered, 1_600.0);
    rig.finish(agent);
    row.reached("exactly the 7 dropped and counted; 0 of 1,600 others lost");
    row.record();
}

/// The letters of a dead letter file, by their reason.
fn letters(path: &Path) -> BTreeMap<String, Vec<String>> {
    let mut letters = BTreeMap::<String, Vec<String>>::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let letter: Value = serde_json::from_str(line).expect("a line of JSON");
        let of = |field: &str| letter[field].as_str().unwrap_or_default().to_owned();
        letters.entry(of("reason")).or_default().push(of("line"));
    }
    letters
}

/// Guarantees that refusals by age, by size and by labels, all at once and while good lines go on,
/// cost those entries only, each of them in the dead letter file with its reason.
#[test]
fn refusals_by_age_size_and_labels_cost_only_the_named() {
    let mut row = Row::new(6, "400 by age, size and labels")
        .how(
            "three files whose lines Loki refuses for their age, their length or their labels, \
             among ten good ones; dead letter file on",
        )
        .pass(PASS);
    let behaviour = LokiBehaviour {
        line_bytes_max: Some(1_000),
        reject_old_samples: Some(Duration::from_secs(3_600)),
        label_value_bytes_max: Some(40),
        ..LokiBehaviour::permissive()
    };
    let rig = Rig::with("refused", behaviour, Faults::default());
    let mut config = rig.container_config("containerd");
    let receiver = &mut config["receivers"]["filelog"];
    receiver["include_file_name"] = json!(true);
    let dead = rig.path("dead.json");
    let loki = &mut config["exporters"]["loki"];
    loki["labels"]["attributes"] = json!({"file": "log.file.name"});
    loki["dead_letter_file"] = json!(dead);
    // The agent's own limits must not catch them before Loki does.
    loki["limits"] = json!({"label_value_bytes_max": 2_000, "line_bytes_max": "1MiB"});
    let mut good: Vec<_> = (1..=10)
        .map(|id| {
            rig.writer(id, &format!("good{id}.log"), |o| {
                o.format = tailwater_testkit::writer::Format::Cri;
            })
        })
        .collect();
    let now = tailwater_testkit::time::system_unix_nanos();
    let stamp = |age_s: i64| tailwater_testkit::time::rfc3339_nanos(now - age_s * 1_000_000_000);
    let agent = rig.start(&config);
    let label = rig.logs(&format!("{}.log", "label".repeat(12)));
    for n in 0..20 {
        for writer in &mut good {
            writer.write_lines(50).expect("written");
        }
        let (recent, old) = (stamp(600 - n), stamp(7_200 - n));
        append(&rig.logs("old.log"), &format!("{old} stdout F too old {n}"));
        let long = "long ".repeat(300);
        append(
            &rig.logs("size.log"),
            &format!("{recent} stdout F {long}{n}"),
        );
        append(&label, &format!("{recent} stdout F label {n}"));
        rig.wait_delivered(&agent);
    }
    wait_dropped(&agent, 60.0);
    rig.finish(agent);
    let letters = letters(&dead);
    let counts: BTreeMap<_, _> = letters.iter().map(|(k, v)| (k.as_str(), v.len())).collect();
    assert_eq!(counts.values().sum::<usize>(), 60, "{counts:?}");
    for (text, want) in [("too old", 20), ("long", 20), ("label", 20)] {
        let of = |lines: &Vec<String>| lines.iter().filter(|l| l.starts_with(text)).count();
        let kept: Vec<_> = letters.values().map(of).filter(|n| *n > 0).collect();
        assert_eq!(kept, [want], "{text}: one reason each: {counts:?}");
    }
    row.reached(format!(
        "exactly the 60 dropped, counted and kept ({counts:?}); 0 of 10,000 others lost"
    ));
    row.record();
}
