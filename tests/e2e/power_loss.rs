//! Power cuts: the state directory is on a file system that loses what was not made durable.
//!
//! An ext4 image on a loop device is shut down by ioctl without flushing its journal, which drops
//! the page cache and uncommitted transactions as a power cut does (not a drive's own cache).
//! Needs root, loop devices, mkfs.ext4 and python3 (for the ioctl); otherwise it is skipped aloud.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

const CUTS: u32 = 12;

/// `EXT4_IOC_SHUTDOWN` with "no log flush" (include/uapi/linux/ext4.h).
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fd = os.open(sys.argv[1], os.O_RDONLY)\n\
    fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))\n";

fn run(program: &str, args: &[&str]) -> Result<Output, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!(
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// An ext4 image and where it is mounted.
struct Disk {
    image: PathBuf,
    at: PathBuf,
    options: &'static str,
}

impl Disk {
    fn create(image: PathBuf, at: PathBuf, options: &'static str) -> Result<Disk, String> {
        run("truncate", &["-s", "64M", text(&image)])?;
        run("mkfs.ext4", &["-q", "-F", text(&image)])?;
        let disk = Disk { image, at, options };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let mount = ["-o", self.options, text(&self.image), text(&self.at)];
        run("mount", &mount).map(drop)
    }

    /// Drops everything that is not durable.
    fn cut(&self) -> Result<(), String> {
        run("python3", &["-c", SHUTDOWN, text(&self.at)]).map(drop)
    }

    fn unmount(&self) -> Result<(), String> {
        let mut last = Ok(());
        wait::within(Duration::from_secs(5), || {
            last = run("umount", &[text(&self.at)]).map(drop);
            last.is_ok()
        });
        last
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted any more, or by now without users.
        let _ = Command::new("umount")
            .args(["-q", "-l"])
            .arg(&self.at)
            .status();
    }
}

#[test]
fn power_cuts_lose_nothing_and_never_need_a_hand() {
    cuts("power", "loop");
}

/// As above, where the file system does not write a file out by itself when it takes the place of
/// another one: what the agent does not synchronise is gone.
#[test]
fn power_cuts_lose_nothing_where_renaming_does_not_write_out() {
    cuts("power-noauto", "loop,noauto_da_alloc");
}

/// Guarantees that a power cut at any moment neither loses a line nor repeats one visibly, and
/// that the agent starts again by itself afterwards.
fn cuts(label: &str, options: &'static str) {
    let rig = Rig::new(label);
    let disk = match Disk::create(rig.path("disk.img"), rig.state(), options) {
        Ok(disk) => disk,
        Err(why) => return println!("SKIPPED: power cuts: {why}"),
    };
    if let Err(why) = disk.cut() {
        return println!("SKIPPED: power cuts: {why}");
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
    for cut in 0..CUTS {
        disk.mount().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        let agent = rig.start(&config);
        wait::let_pass(Duration::from_millis(50 + rng.below(1_200)));
        disk.cut().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        agent.kill();
        disk.unmount().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
    }
    live.stop().expect("written");
    disk.mount().expect("mounted");
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.assert_faultless();
    println!(
        "{CUTS} power cuts: {} lines, none lost, {} repeated and removed by Loki's rule",
        report.totals.written, report.totals.duplicates_raw
    );
    disk.unmount().expect("unmounted");
}
