//! Row 11: the directory of logs is unmounted under the agent, and mounted again.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tailwater_testkit::writer::{LogWriter, Rotation};
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

use crate::disk::{Disk, Kind, run, text};

const PASS: &str = "goes on <= 5 s; loss 0; positions kept (0 sent twice)";

/// A directory mounted in another place; unmounted on drop.
struct Bind {
    from: PathBuf,
    at: PathBuf,
}

impl Bind {
    fn mount(&self) -> Result<(), String> {
        run("mount", &["--bind", text(&self.from), text(&self.at)]).map(drop)
    }

    fn unmount(&self) {
        run("umount", &["-l", text(&self.at)]).expect("it is mounted");
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        // Not mounted any more, where the test has ended well.
        let _ = Command::new("umount")
            .args(["-q", "-l"])
            .arg(&self.at)
            .status();
    }
}

fn writers(rig: &Rig, dir: &Path) -> Vec<LogWriter> {
    let writer = |id| {
        rig.writer(id, "unused", |o| {
            o.path = dir.join(format!("{id}.log"));
            o.rotation = Rotation::default();
        })
    };
    (1..=3).map(writer).collect()
}

fn write(writers: &mut [LogWriter], rotate: bool) {
    for writer in writers {
        writer.write_lines(200).expect("written");
        if rotate {
            writer.rotate().expect("rotated");
            writer.write_lines(200).expect("written");
        }
    }
}

/// How long it takes until what is there is delivered.
fn until_delivered(rig: &Rig, agent: &Agent) -> f64 {
    let begin = Instant::now();
    rig.wait_delivered(agent);
    begin.elapsed().as_secs_f64()
}

/// Guarantees that logs whose directory goes away under the agent and comes back, with new lines
/// and after a rotation, are read on where they were.
#[test]
fn a_directory_that_is_unmounted_and_mounted_again_is_read_on() {
    let rounds: usize = scaled(4, 100);
    let mut row = Row::new(11, "directory unmounted and mounted again")
        .how(format!(
            "{rounds} times umount -l of the directory of three logs under the running agent, for \
             0.5 to 1.5 s; lines and, every other time, rotations meanwhile"
        ))
        .pass(PASS);
    let rig = Rig::new("unmounted");
    let from = rig.path("disk");
    fs::create_dir(&from).expect("a directory");
    let bind = Bind {
        from: from.clone(),
        at: rig.logs(""),
    };
    if let Err(why) = bind.mount() {
        return row.not_shown(why);
    }
    let mut writers = writers(&rig, &from);
    write(&mut writers, false);
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let mut longest = 0.0_f64;
    for round in 0..rounds {
        bind.unmount();
        write(&mut writers, round % 2 == 1);
        wait::let_pass(Duration::from_millis(500 * (round as u64 % 3 + 1)));
        bind.mount().expect("mounted again");
        write(&mut writers, false);
        longest = longest.max(until_delivered(&rig, &agent));
    }
    let t = rig.finish(agent).totals;
    row.reached(format!("0 of {} lines lost, 0 shown twice", t.written));
    row.held(
        t.duplicates_raw == 0,
        format!("{} sent twice", t.duplicates_raw),
    );
    row.held(
        longest <= 5.0,
        format!("everything delivered {longest:.1} s after the mount at most"),
    );
    row.record();
}

/// Guarantees that logs whose file system is mounted by another device number the next time (as
/// after a reboot) are read on where they were.
#[test]
fn a_file_system_that_comes_back_under_another_number_is_read_on() {
    let mut row = Row::new(11, "file system under another device number")
        .how(
            "three logs on ext4 on a loop device; while the agent is down it is unmounted, attached to \
             another loop device and mounted again",
        )
        .pass(PASS);
    let rig = Rig::new("device");
    let image = rig.path("disk.img");
    let disk = match Disk::create(Kind::Ext4, image.clone(), rig.logs(""), "loop") {
        Ok(disk) => disk,
        Err(why) => return row.not_shown(why),
    };
    let device = |at: &Path| fs::metadata(at).expect("a directory").dev();
    let before = device(&rig.logs(""));
    let mut writers = writers(&rig, &rig.logs(""));
    write(&mut writers, false);
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    write(&mut writers, true);
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let paths: Vec<_> = writers.iter().map(|w| w.path().to_owned()).collect();
    drop(writers);
    disk.unmount().expect("unmounted");
    // Takes the number that is free now.
    let other = rig.path("other.img");
    run("truncate", &["-s", "1M", text(&other)]).expect("made");
    let taken = run("losetup", &["--show", "-f", text(&other)]).expect("attached");
    let taken = String::from_utf8_lossy(&taken.stdout).trim().to_owned();
    let mounted = disk.mount();
    run("losetup", &["-d", &taken]).expect("detached");
    mounted.expect("mounted again");
    let agent = rig.start(&rig.config());
    for path in &paths {
        let file = OpenOptions::new().append(true).open(path);
        let written = file.and_then(|mut f| f.write_all(b"a line after the mount\n"));
        written.expect("written");
    }
    let changed = before != device(&rig.logs(""));
    let foreign = || rig.oracle.report().foreign >= 3;
    assert!(wait::within(wait::BOUND, foreign), "{}", tail(&agent.log()));
    let faults = agent.scrape().faults();
    assert!(faults.is_empty(), "{faults:?}");
    agent.stop_clean();
    disk.unmount().expect("unmounted");
    let report = rig.oracle.report();
    let t = report.totals;
    let shown = t.duplicates_after_dedup + t.duplicates_unclassified;
    assert_eq!(
        (t.missing, t.corrupt + t.phantom),
        (0, 0),
        "{}",
        rig.summary()
    );
    assert!(changed, "the device number is the same as before");
    row.reached(format!("0 of {} lines lost", t.written));
    row.held(
        t.duplicates_raw == 0,
        format!(
            "{} sent twice, {shown} of them shown twice",
            t.duplicates_raw
        ),
    );
    row.record();
}
