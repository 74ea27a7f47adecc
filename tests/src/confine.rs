//! Limits the kernel puts on an agent: control groups, and whatever a shell can set before it
//! becomes the agent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::wait;

/// The time in which a group may use its share of CPU, in microseconds: the kernel's default.
const PERIOD_US: u32 = 100_000;

/// How long the kernel may take to clear the last process of a group away.
const CLEARED: Duration = Duration::from_secs(2);

/// Tells the groups of one process apart.
static GROUPS: AtomicU32 = AtomicU32::new(0);

/// The command, run by a shell after `script`. The shell becomes it, so its process id is the
/// child's. Only program, arguments and variables are kept.
pub fn after(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{script} && exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// A control group, of version 1 or 2. Dropping it removes it; its processes must have ended.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
}

impl Group {
    /// A group that may use so many bytes of memory, page cache included.
    ///
    /// # Errors
    /// If none can be made; this mostly takes root.
    pub fn memory(bytes: u64) -> io::Result<Group> {
        let bytes = bytes.to_string();
        let old = || {
            Group::make(
                "/sys/fs/cgroup/memory",
                &[("memory.limit_in_bytes", &bytes)],
            )
        };
        old().or_else(|_| Group::make("/sys/fs/cgroup", &[("memory.max", &bytes)]))
    }

    /// A group that may use so many percent of one core.
    ///
    /// # Errors
    /// As [`Group::memory`].
    pub fn cpu(percent: u32) -> io::Result<Group> {
        let quota = PERIOD_US / 100 * percent;
        let (period, quota) = (PERIOD_US.to_string(), quota.to_string());
        let old = [
            ("cpu.cfs_period_us", &*period),
            ("cpu.cfs_quota_us", &*quota),
        ];
        let both = format!("{quota} {period}");
        Group::make("/sys/fs/cgroup/cpu", &old)
            .or_else(|_| Group::make("/sys/fs/cgroup", &[("cpu.max", &both)]))
    }

    fn make(root: &str, limits: &[(&str, &str)]) -> io::Result<Group> {
        let number = GROUPS.fetch_add(1, Ordering::Relaxed);
        let name = format!("tailwater-test-{}-{number}", std::process::id());
        let dir = Path::new(root).join(name);
        fs::create_dir(&dir)?;
        // Dropped, and with it removed, if a limit cannot be set.
        let group = Group { dir };
        for (file, value) in limits {
            let path = group.dir.join(file);
            // The kernel makes the file. Where it does not, this is no control group, and a file
            // of ours would limit nothing.
            let mut options = fs::OpenOptions::new();
            io::Write::write_all(&mut options.write(true).open(path)?, value.as_bytes())?;
        }
        Ok(group)
    }

    /// The command inside the group.
    pub fn wrap(&self, command: &Command) -> Command {
        let procs = self.dir.join("cgroup.procs");
        after(&format!("echo $$ > '{}'", procs.display()), command)
    }

    /// Processes that were killed for want of memory; none if the kernel does not say.
    pub fn killed_for_memory(&self) -> Option<u64> {
        let files = ["memory.oom_control", "memory.events"];
        let text = files
            .iter()
            .find_map(|f| fs::read_to_string(self.dir.join(f)).ok())?;
        let line = text.lines().find_map(|l| l.strip_prefix("oom_kill "))?;
        line.trim().parse().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        wait::within(CLEARED, || fs::remove_dir(&self.dir).is_ok());
    }
}
