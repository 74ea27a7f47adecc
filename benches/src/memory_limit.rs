//! Running a command under a limit of memory that the kernel enforces.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Where control groups for memory are, and what a limit is called there (version 1, version 2).
const HIERARCHIES: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ("/sys/fs/cgroup", "memory.max"),
];

/// A control group with a limit of memory. Page cache counts, but is given back under pressure.
/// Dropping it removes it; its processes must have ended.
pub struct MemoryLimit {
    dir: PathBuf,
}

impl MemoryLimit {
    /// Makes a group with a limit of `bytes`.
    ///
    /// # Errors
    /// If there is no hierarchy that may be written to; this mostly takes root.
    pub fn new(bytes: u64) -> Result<MemoryLimit> {
        let name = format!("tailwater-bench-{}", std::process::id());
        let mut last = None;
        for (root, file) in HIERARCHIES {
            match MemoryLimit::at(Path::new(root).join(&name), file, bytes) {
                Ok(group) => return Ok(group),
                Err(e) => last = Some(e),
            }
        }
        let e = last.context("no control groups")?;
        Err(e).context("no control group for memory can be made; run as root")
    }

    fn at(dir: PathBuf, file: &str, bytes: u64) -> io::Result<MemoryLimit> {
        fs::create_dir(&dir)?;
        // Dropped, and with it removed, if the limit cannot be set. The kernel makes the file;
        // where it does not, this is no control group and a file of ours would limit nothing.
        let group = MemoryLimit { dir };
        let mut limit = fs::OpenOptions::new()
            .write(true)
            .open(group.dir.join(file))?;
        limit.write_all(bytes.to_string().as_bytes())?;
        Ok(group)
    }

    /// `command` inside the group. Only program, arguments, environment and folder are kept.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut script = OsString::from("echo $$ > '");
        script.push(self.dir.join("cgroup.procs"));
        script.push("' && exec \"$0\" \"$@\"");
        let mut wrapped = Command::new("sh");
        wrapped
            .arg("-c")
            .arg(script)
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // A group cannot be removed before the kernel has cleared its last process away.
        for _ in 0..200 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
