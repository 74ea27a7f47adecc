//! Row 26: what only looks like a log.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tailwater_testkit::writer::{LogWriter, WriterOptions};
use tailwater_tests::fault_row::Row;
use tailwater_tests::rig::Rig;
use tailwater_tests::stand::{Stand, sorted};

const PASS: &str = "no hang; regular files only; loss 0; each file read once";

/// Guarantees that what only looks like a log hurts nobody: it is left alone, and every real file
/// beside it is read once, under however many names.
#[test]
fn what_only_looks_like_a_log_is_left_alone() {
    let mut row = Row::new(26, "links in circles, devices and FIFOs among the logs")
        .how(
            "patterns match a hard link, a soft link, links to nothing and in circles, a directory \
             that holds itself, a FIFO, a directory, /dev/zero and /dev/null",
        )
        .pass(PASS);
    let mut stand = Stand::new(&json!({}));
    let logs = stand.dir();
    let at = |name: &str| logs.join(name);
    stand.write("a.log", "a\n");
    stand.write("directory.log/inner.log", "inner\n");
    fs::hard_link(at("a.log"), at("hard.log")).expect("a hard link");
    symlink(at("a.log"), at("soft.log")).expect("a link");
    symlink(at("nothing"), at("dangling.log")).expect("a link");
    symlink(at("loop2.log"), at("loop1.log")).expect("a link");
    symlink(at("loop1.log"), at("loop2.log")).expect("a link");
    symlink("/dev/zero", at("zero.log")).expect("a link");
    symlink(&logs, at("directory.log/up")).expect("a link");
    let status = Command::new("mkfifo").arg(at("pipe.log")).status();
    assert!(status.expect("mkfifo runs").success());
    stand.set(&json!({"include": [
        at("**/*.log"), "/dev/zero", "/dev/null", at("pipe.log"), at("directory.log"),
    ]}));
    let agent = stand.start();
    stand.wait(&agent, 2);
    // What is put right later is read then.
    stand.write("nothing", "no longer dangling\n");
    stand.append("a.log", "b\n");
    stand.wait(&agent, 4);
    let used = agent.cpu_seconds();
    let said = agent
        .log()
        .matches("has further names (hard links)")
        .count();
    assert!(said > 0, "nothing is said of the hard link");
    agent.stop_clean();
    let want = ["a", "b", "inner", "no longer dangling"];
    assert_eq!(sorted(&stand.records()), want);
    row.reached("each of 4 lines once, those of the link that led nowhere as soon as it did not");
    row.held(used < 1.0, format!("{used:.2} s of CPU"));
    row.record();
}

/// Points the link at another file in one step, as container runtimes and deployments do.
fn swap(link: &Path, target: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).expect("a link");
    fs::rename(&new, link).expect("renamed");
}

fn writer(rig: &Rig, id: u32) -> LogWriter {
    let mut options = WriterOptions::new(id, rig.path(&format!("targets/{id}.txt")));
    options.oracle = Some(rig.oracle.clone());
    LogWriter::create(options).expect("a file")
}

/// Guarantees that a link which is pointed at another file while lines are written loses none: not
/// of the old target, not of the new one.
#[test]
fn a_link_whose_target_is_swapped_loses_nothing() {
    let swaps = 20;
    let mut row = Row::new(26, "a link whose target is swapped")
        .how(format!(
            "{swaps} swaps, each right after the old target was written to"
        ))
        .pass(PASS);
    let rig = Rig::new("swap");
    fs::create_dir(rig.path("targets")).expect("a directory");
    let link = rig.logs("app.log");
    let mut config: Value = rig.config();
    // A target that nothing leads to any more is read to its end like a rotated file.
    config["receivers"]["filelog"]["poll_interval"] = json!("20ms");
    let mut old = writer(&rig, 0);
    old.write_lines(50).expect("written");
    swap(&link, old.path());
    let agent = rig.start(&config);
    for id in 1..=swaps {
        rig.wait_delivered(&agent);
        let mut new = writer(&rig, id);
        old.write_lines(50).expect("written");
        swap(&link, new.path());
        new.write_lines(50).expect("written");
        old = new;
    }
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} sent twice",
        t.written, t.duplicates_raw
    ));
    row.record();
}
