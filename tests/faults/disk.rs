//! File systems of a test's own: images on loop devices whose power can be cut, and small ones in
//! memory. They need root; who asks is told why there is none.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tailwater_tests::wait;

/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN` (one number) with "no log flush"
/// (include/uapi/linux/ext4.h, fs/xfs/libxfs/xfs_fs.h).
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fd = os.open(sys.argv[1], os.O_RDONLY)\n\
    print('armed', flush=True)\n\
    sys.stdin.readline()\n\
    fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))\n";

/// Runs a program to its end.
///
/// # Errors
/// Why it could not be run, or what it said when it failed.
pub fn run(program: &str, args: &[&str]) -> Result<Output, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!(
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// A path as text.
///
/// # Panics
/// When it is not UTF-8; temporary paths are.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4, 64 MiB.
    Ext4,
    /// xfs, 300 MiB: its smallest size.
    Xfs,
}

/// A file system in an image on a loop device, and where it is mounted.
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
    options: &'static str,
}

impl Disk {
    /// Makes and mounts one.
    ///
    /// # Errors
    /// Why that is not possible here.
    pub fn create(
        kind: Kind,
        image: PathBuf,
        at: PathBuf,
        options: &'static str,
    ) -> Result<Disk, String> {
        let (size, make, quiet) = match kind {
            Kind::Ext4 => ("64M", "mkfs.ext4", ["-q", "-F"]),
            Kind::Xfs => ("300M", "mkfs.xfs", ["-q", "-f"]),
        };
        run("truncate", &["-s", size, text(&image)])?;
        run(make, &[quiet[0], quiet[1], text(&image)])?;
        let disk = Disk { image, at, options };
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts it again.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn mount(&self) -> Result<(), String> {
        let mount = ["-o", self.options, text(&self.image), text(&self.at)];
        run("mount", &mount).map(drop)
    }

    /// Makes ready to cut its power.
    ///
    /// # Errors
    /// Why that is not possible here.
    pub fn arm(&self) -> Result<Cut, String> {
        let mut child = Command::new("python3")
            .args(["-c", SHUTDOWN, text(&self.at)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("python3: {e}"))?;
        let mut line = String::new();
        let said = child.stdout.take().map(BufReader::new);
        let said = said.map(|mut out| out.read_line(&mut line));
        let cut = Cut(child);
        match said {
            Some(Ok(_)) if line == "armed\n" => Ok(cut),
            _ => Err(format!("python3 cannot open {}", self.at.display())),
        }
    }

    /// Unmounts it, when its last user has gone.
    ///
    /// # Errors
    /// What `umount` says in the end.
    pub fn unmount(&self) -> Result<(), String> {
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

/// A cut of the power of a [`Disk`] that is about to come.
pub struct Cut(Child);

impl Cut {
    /// Drops everything that is not durable, at once: the page cache and what the journal has not
    /// committed, as a power cut does (not the cache of a drive).
    ///
    /// # Errors
    /// Why that is not possible here.
    pub fn now(mut self) -> Result<(), String> {
        // The end of its input is as good as a line.
        drop(self.0.stdin.take());
        match self.0.wait() {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("the file system cannot be shut down: {other:?}")),
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A small file system in memory, mounted on a directory; unmounted on drop.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of this size (`1m`).
    ///
    /// # Errors
    /// Why that is not possible here.
    pub fn mount(path: PathBuf, size: &str) -> Result<Tmpfs, String> {
        let options = format!("size={size},mode=700");
        let args = ["-t", "tmpfs", "-o", &options, "tailwater-test", text(&path)];
        run("mount", &args)?;
        Ok(Tmpfs(path))
    }

    /// Changes how it is mounted (`ro`, `rw`).
    ///
    /// # Panics
    /// When that fails.
    pub fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        run("mount", &["-o", &options, text(&self.0)]).expect("it is mounted");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there is about to end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
