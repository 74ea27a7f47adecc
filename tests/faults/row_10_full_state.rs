//! Row 10: a state directory without room, or read-only. Delivery goes on, and it is said.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tailwater_testkit::writer::Format;
use tailwater_tests::fault_row::Row;
use tailwater_tests::rig::{Rig, tail, with_health_check};
use tailwater_tests::scrape::get;
use tailwater_tests::wait;

use crate::disk::Tmpfs;

const PASS: &str =
    "goes on delivering; loss 0; alarm in 10 s; repeats after a restart only of what was not saved";

/// Writes to `path` until there is no room left.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for chunk in [vec![0; 4096], vec![0; 1]] {
        while file.write_all(&chunk).is_ok() {}
    }
}

/// Guarantees that delivery goes on when positions cannot be saved, that metrics, log and health
/// check say so within ten seconds, that they are saved again once there is room, and that a kill
/// meanwhile costs nothing but repeats that Loki removes.
#[test]
fn a_full_state_directory_does_not_stop_delivery() {
    let mut row = Row::new(10, "state directory full")
        .how("a tmpfs of 1 MiB, filled, emptied after the alarm; the same with a kill while it is full")
        .pass(PASS);
    let rig = Rig::new("full");
    let _mount = match Tmpfs::mount(rig.state(), "1m") {
        Ok(mount) => mount,
        Err(why) => return row.not_shown(why),
    };
    // Lines with times of their own: where no time mark can be saved, others are shown twice after a
    // kill.
    let mut writer = rig.writer(1, "a.log", |o| o.format = Format::Cri);
    let mut config = rig.container_config("containerd");
    let health = with_health_check(&mut config);
    let agent = rig.start(&config);
    writer.write_lines(500).expect("written");
    rig.wait_delivered(&agent);
    let filler = rig.state().join("filler");
    fill(&filler);
    let begin = Instant::now();
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
    row.held(
        begin.elapsed() <= Duration::from_secs(10),
        format!("alarm after {:.1} s", begin.elapsed().as_secs_f64()),
    );
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
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    // Full again, and killed: what was read since is read anew.
    let saved = writer.lines_written();
    let wanted = || {
        agent
            .scrape()
            .sum("tailwater_checkpoint_unsaved_entries", &[])
            == 0.0
    };
    assert!(wait::within(wait::BOUND, wanted), "{}", tail(&agent.log()));
    fill(&filler);
    writer.write_lines(700).expect("written");
    rig.wait_delivered(&agent);
    let before = rig.assert_faultless().totals;
    assert_eq!(
        before.duplicates_raw, 0,
        "positions were not saved after all"
    );
    agent.kill();
    let agent = rig.start(&config);
    let unsaved = writer.lines_written() - saved;
    let again = || rig.oracle.report().totals.duplicates_raw >= unsaved;
    assert!(wait::within(wait::BOUND, again), "{}", tail(&agent.log()));
    fs::remove_file(&filler).expect("a file");
    let t = rig.finish(agent).totals;
    assert_eq!(
        t.duplicates_raw, unsaved,
        "only what was not saved is repeated"
    );
    row.reached(format!(
        "0 of {} lines lost; after a kill {unsaved} repeated, exactly those that could not be saved, \
         none of them shown by Loki",
        t.written
    ));
    row.record();
}

/// Guarantees that an agent starts where its state directory has become read-only, with the
/// positions that are in it, and says that it cannot save.
#[test]
fn a_read_only_state_directory_does_not_keep_the_agent_from_starting() {
    let mut row = Row::new(10, "state directory read-only")
        .how("a tmpfs remounted read-only between two runs, then writable again")
        .pass(PASS);
    let rig = Rig::new("read-only");
    let mount = match Tmpfs::mount(rig.state(), "1m") {
        Ok(mount) => mount,
        Err(why) => return row.not_shown(why),
    };
    let mut writer = rig.writer(1, "a.log", |_| {});
    let agent = rig.start(&rig.config());
    writer.write_lines(500).expect("written");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    mount.remount("ro");
    writer.write_lines(500).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let alarm = |value: f64| {
        let sum = || agent.scrape().sum("tailwater_checkpoint_alarm", &[]);
        wait::within(wait::BOUND, || sum() == value)
    };
    assert!(alarm(1.0), "{}", tail(&agent.log()));
    mount.remount("rw");
    assert!(alarm(0.0), "{}", tail(&agent.log()));
    let t = rig.finish(agent).totals;
    assert_eq!(t.duplicates_raw, 0, "positions were not used");
    row.reached(format!("0 of {} lines lost, 0 repeated", t.written));
    row.record();
}
