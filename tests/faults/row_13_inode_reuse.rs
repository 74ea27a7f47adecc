//! Row 13: a new file gets the inode of a deleted one.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use serde_json::json;
use tailwater_testkit::writer::{Compress, Naming, Rotation};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

use crate::disk::{Disk, Kind};

const PASS: &str = "loss 0; shown twice 0";

/// A file system of the test's own for its logs, where nobody else takes the inodes that become
/// free. Without one the logs are where they are, and inodes may not be used again.
fn own_disk(rig: &Rig, row: &mut Row) -> Option<Disk> {
    let disk = Disk::create(Kind::Ext4, rig.path("disk.img"), rig.logs(""), "loop");
    disk.map_err(|why| row.why(format!("not on a file system of its own: {why}")))
        .ok()
}

/// Guarantees that a new file with the inode of a deleted one is a new file.
#[test]
fn a_reused_inode_is_a_new_file() {
    let mut row = Row::new(13, "inode reuse by deletion")
        .how("60 files deleted and made anew at once, some of them while the agent is down")
        .pass(PASS);
    let rig = Rig::new("inode");
    let _disk = own_disk(&rig, &mut row);
    let mut config = rig.config();
    config["processors"]["batch"]["timeout"] = json!("10ms");
    let mut writer = rig.writer(1, "app.log", |o| o.rotation = Rotation::DeleteCreate);
    let (mut inodes, mut reused) = (HashSet::new(), 0);
    let mut agent = rig.start(&config);
    for round in 0..60 {
        let inode = fs::metadata(rig.logs("app.log")).expect("a file").ino();
        reused += u32::from(!inodes.insert(inode));
        writer.write_lines(20 + round % 7).expect("written");
        rig.wait_delivered(&agent);
        if round % 10 == 9 {
            // Reuse while nobody looks.
            agent.stop_clean();
            writer.rotate().expect("rotated");
            writer.write_lines(40).expect("written");
            agent = rig.start(&config);
            rig.wait_delivered(&agent);
        }
        writer.rotate().expect("rotated");
    }
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, 0 shown twice; {reused} of 60 inodes were used again",
        t.written
    ));
    row.record();
}

/// Lines of the head that each generation begins with, 64 bytes each: 4 KiB.
const HEAD_LINES: u64 = 64;

/// Guarantees that generations which take turns with two inodes and all begin with the same 4 KiB
/// are told apart: each line of each of them arrives exactly once.
#[test]
fn generations_with_the_same_inode_and_the_same_head_are_told_apart() {
    let rounds: u64 = scaled(100, 10_000);
    let mut row = Row::new(13, "inode reuse, keep 1, same head")
        .how(format!(
            "{rounds} rotations by rename of which one file is kept, each file begins with the same \
             4 KiB; every 25th while the agent is down"
        ))
        .pass(PASS);
    let rig = Rig::new("heads");
    let _disk = own_disk(&rig, &mut row);
    let mut config = rig.config();
    config["processors"]["batch"]["timeout"] = json!("5ms");
    let mut writer = rig.writer(1, "app.log", |o| {
        o.rotation = Rotation::RenameCreate {
            naming: Naming::Numbered,
            keep: 1,
            compress: Compress::Never,
            late_lines: 0,
        };
    });
    let path = writer.path().to_owned();
    let head = format!("{:<63}\n", "the same head in every file").repeat(HEAD_LINES as usize);
    let mut inodes = HashSet::new();
    let mut agent = rig.start(&config);
    for round in 0..rounds {
        let file = OpenOptions::new().append(true).open(&path);
        file.and_then(|mut f| f.write_all(head.as_bytes()))
            .expect("written");
        inodes.insert(fs::metadata(&path).expect("a file").ino());
        writer.write_lines(3 + round % 5).expect("written");
        let heads = (round + 1) * HEAD_LINES;
        let all = wait::within(wait::BOUND, || {
            rig.oracle.is_complete() && rig.oracle.report().foreign >= heads
        });
        let foreign = rig.oracle.report().foreign;
        assert!(
            all && foreign == heads,
            "round {round}: {foreign} of {heads} lines of heads: {}\n{}",
            rig.summary(),
            tail(&agent.log())
        );
        if round % 25 == 24 {
            agent.stop_clean();
            writer.rotate().expect("rotated");
            agent = rig.start(&config);
        } else {
            writer.rotate().expect("rotated");
        }
    }
    let faults = agent.scrape().faults();
    assert!(faults.is_empty(), "{faults:?}");
    agent.stop_clean();
    let report = rig.oracle.report();
    let t = report.totals;
    assert_eq!(
        (t.missing, t.duplicates_raw, report.foreign),
        (0, 0, rounds * HEAD_LINES),
        "{}",
        rig.summary()
    );
    row.reached(format!(
        "0 of {} lines lost, 0 sent twice; {} inodes for {rounds} files",
        t.written + report.foreign,
        inodes.len()
    ));
    row.record();
}
