//! Row 2, on disk: positions that were damaged between two runs: flipped bits, torn tails, zeros, garbage,
//! files that cannot be read. The agent starts, says so, and loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::Format;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// The store's files that can be damaged, without the lock.
fn files(rig: &Rig) -> Vec<PathBuf> {
    let dir = fs::read_dir(rig.state().join("checkpoints")).expect("a store");
    let paths = dir.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths
        .filter(|p| p.is_file() && !p.ends_with("lock"))
        .collect();
    files.sort();
    files
}

/// Makes a file one that opens and cannot be read, as far as a test can.
fn make_unreadable(path: &Path) {
    fs::remove_file(path).expect("a file");
    fs::create_dir(path).expect("a directory in its place");
}

/// Does one of the things that disks and power cuts do to files. Says what.
fn damage(path: &Path, rng: &mut Rng) -> String {
    let mut bytes = fs::read(path).expect("a file");
    let len = bytes.len() as u64;
    let at = rng.below(len.max(1)) as usize;
    let what = match rng.below(6) {
        0 if len > 0 => {
            bytes[at] ^= 1 << rng.below(8);
            "a flipped bit"
        }
        1 if len > 0 => {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0);
            "zeros"
        }
        2 => {
            bytes.truncate(at);
            "a torn tail"
        }
        3 => {
            bytes.extend((0..rng.below(300)).map(|n| (n * 7) as u8));
            "garbage behind it"
        }
        4 => {
            bytes.clear();
            "an empty file"
        }
        _ => {
            make_unreadable(path);
            return format!("{} cannot be read", path.display());
        }
    };
    fs::write(path, &bytes).expect("written");
    format!("{what} at {at} of {len} in {}", path.display())
}

/// Guarantees that damage to any one file of the store between two runs neither keeps the agent
/// from starting nor moves a position beyond what was delivered, and is counted.
#[test]
fn damaged_positions_lose_nothing_and_never_keep_the_agent_from_starting() {
    // Runs that end by a kill or a stop, each followed by damage.
    let rounds: u32 = scaled(30, 300);
    let mut row = Row::new(2, "damaged positions")
        .how(format!(
            "{rounds} times a flipped bit, zeros, a torn tail, garbage, an empty or an unreadable \
             file in the store of positions, after a kill or a stop"
        ))
        .pass("loss 0; 0 crash loops; a position is never beyond what was delivered");
    let rig = Rig::new("damage");
    let config = rig.container_config("containerd");
    let live: Vec<_> = [1, 2]
        .map(|id| {
            let writer = rig.writer(id, &format!("{id}.log"), |o| o.format = Format::Cri);
            let options = LiveOptions {
                lines_per_second: 2_000,
                rotate_every_lines: None,
                lines_max: None,
            };
            LiveWriter::start(writer, options).expect("a thread")
        })
        .into();
    let mut rng = Rng::new(5);
    let (mut recoveries, mut done) = (0.0, String::new());
    for round in 0..rounds {
        let agent = rig.start(&config);
        recoveries += agent.scrape().sum("tailwater_checkpoint_recoveries", &[]);
        wait::let_pass(Duration::from_millis(rng.below(400)));
        if rng.chance(0.5) {
            agent.kill();
        } else {
            agent.stop_clean();
        }
        let files = files(&rig);
        let path = &files[rng.below(files.len() as u64) as usize];
        done += &format!("\n{round}: {}", damage(path, &mut rng));
    }
    for writer in live {
        writer.stop().expect("written");
    }
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let totals = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} repeated, none of them shown by Loki; {recoveries} of {rounds} \
         damages noticed and counted, the others were in files nothing depends on",
        totals.written, totals.duplicates_raw
    ));
    assert!(recoveries >= 5.0, "few were noticed: {recoveries}{done}");
    row.record();
}

/// Guarantees that a store of which the newest generation cannot be read goes on from the one
/// before it, without a line lost or repeated, and that this is said.
#[test]
fn a_generation_that_cannot_be_read_is_replaced_by_the_one_before_it() {
    let rig = Rig::new("unreadable");
    let mut config = rig.container_config("containerd");
    config["receivers"]["filelog"]["start_at"] = json!("beginning");
    let mut writer = rig.writer(1, "a.log", |o| o.format = Format::Cri);
    for _ in 0..2 {
        let agent = rig.start(&config);
        writer.write_lines(500).expect("written");
        rig.wait_delivered(&agent);
        agent.stop_clean();
    }
    let files = files(&rig);
    let newest = files
        .iter()
        .rfind(|p| p.extension() == Some("snapshot".as_ref()));
    make_unreadable(newest.expect("a snapshot"));
    writer.write_lines(500).expect("written");
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let log = agent.log();
    assert!(
        log.contains("stored positions were damaged"),
        "{}",
        tail(&log)
    );
    assert_eq!(
        agent.scrape().sum("tailwater_checkpoint_recoveries", &[]),
        1.0
    );
    agent.stop_clean();
    let totals = rig.assert_faultless().totals;
    assert_eq!((totals.written, totals.duplicates_raw), (1_500, 0));
}
