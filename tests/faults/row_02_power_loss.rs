//! Row 2: power cuts. The state directory is on a file system that loses what was not made durable.
//!
//! An image on a loop device is shut down by ioctl without flushing its journal. Needs root, loop
//! devices, mkfs and python3 (for the ioctl).

use std::time::Duration;

use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

use crate::disk::{Cut, Disk, Kind};

#[test]
fn power_cuts_lose_nothing_and_never_need_a_hand() {
    cuts("ext4", Kind::Ext4, "loop");
}

/// As above, where the file system does not write a file out by itself when it takes the place of
/// another one: what the agent does not synchronise is gone.
#[test]
fn power_cuts_lose_nothing_where_renaming_does_not_write_out() {
    cuts("ext4, noauto_da_alloc", Kind::Ext4, "loop,noauto_da_alloc");
}

#[test]
fn power_cuts_lose_nothing_on_xfs() {
    cuts("xfs", Kind::Xfs, "loop");
}

/// Guarantees that a power cut at any moment neither loses a line nor repeats one visibly, and
/// that the agent starts again by itself afterwards.
fn cuts(name: &str, kind: Kind, options: &'static str) {
    let cuts: u32 = scaled(8, 170);
    let mut row = Row::new(2, &format!("power loss, {name}"))
        .how(format!(
            "{cuts} cuts at random moments: {name} on a loop device, shut down without a log flush"
        ))
        .pass("loss 0; 0 crash loops; a position is never beyond what was delivered");
    let rig = Rig::new("power");
    let disk = match Disk::create(kind, rig.path("disk.img"), rig.state(), options) {
        Ok(disk) => disk,
        Err(why) => return row.not_shown(why),
    };
    if let Err(why) = disk.arm().and_then(Cut::now) {
        return row.not_shown(why);
    }
    disk.unmount().expect("unmounted");
    let config = rig.config();
    let writer = rig.writer(1, "app.log", |_| {});
    let options = LiveOptions {
        lines_per_second: 3_000,
        rotate_every_lines: None,
        lines_max: None,
    };
    let live = LiveWriter::start(writer, options).expect("a thread");
    let mut rng = Rng::new(11);
    for cut in 0..cuts {
        disk.mount().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        let agent = rig.start(&config);
        let power = disk.arm().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        wait::let_pass(Duration::from_millis(50 + rng.below(1_200)));
        // The agent outlives the cut for a moment, which with a real one it does not: nothing that it
        // does in that moment may reach the sink.
        rig.loki.set_faults(|f| f.hang = true);
        power.now().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        agent.kill();
        rig.loki.set_faults(|f| f.hang = false);
        disk.unmount().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
    }
    live.stop().expect("written");
    disk.mount().expect("mounted");
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    assert!(
        t.duplicates_raw > 0,
        "no cut came while positions were unsaved"
    );
    disk.unmount().expect("unmounted");
    row.reached(format!(
        "0 of {} lines lost, {} repeated, none of them shown by Loki; each of {cuts} starts went by \
         itself",
        t.written, t.duplicates_raw
    ));
    row.record();
}
