//! A measured child process.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Clock ticks per second in `/proc/PID/stat`: fixed at 100 in the kernel's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Usage {
    /// CPU time in user mode, of all its threads.
    pub user_seconds: f64,
    /// CPU time in the kernel.
    pub system_seconds: f64,
    /// Memory that is resident now, in bytes.
    pub resident_bytes: u64,
    /// The most memory that was resident (`VmHWM`), in bytes.
    pub resident_peak_bytes: u64,
    /// Threads now.
    pub threads: u64,
}

impl Usage {
    /// CPU time in all.
    pub fn cpu_seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds
    }
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    started: Instant,
}

impl Process {
    /// Starts `command` with its output in the file `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Process> {
        let out = fs::File::create(log).with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Process { child, started })
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// False once it has ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, at most `timeout`.
    ///
    /// # Errors
    /// If it has not ended by then, or ended with an error.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("it ended with {status}");
            }
            if Instant::now() > end {
                bail!("it has not ended within {timeout:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it has used so far, also after its end as long as it was not waited for.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn usage(&self) -> Result<Usage> {
        let proc = Path::new("/proc").join(self.id().to_string());
        let stat = fs::read_to_string(proc.join("stat")).context("the process is gone")?;
        let status = fs::read_to_string(proc.join("status")).context("the process is gone")?;
        parse(&stat, &status).context("/proc has an unknown form")
    }

    /// Descriptors it has open.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn descriptors(&self) -> Result<usize> {
        let dir = Path::new("/proc").join(self.id().to_string()).join("fd");
        Ok(fs::read_dir(dir).context("the process is gone")?.count())
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// If it has ended already.
    pub fn terminate(&self) -> Result<()> {
        let id = i32::try_from(self.id())?;
        let pid = Pid::from_raw(id).context("a child's process id is not 0")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Source: proc(5), fields 14 and 15 of `stat`; `VmRSS`, `VmHWM` and `Threads` of `status`.
fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The second field, the name, may hold blanks and parentheses.
    let (_, stat) = stat.rsplit_once(')')?;
    let mut ticks = stat
        .split_ascii_whitespace()
        .skip(11)
        .map(str::parse::<f64>);
    let number = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_ascii_whitespace().next()?.parse::<u64>().ok())
    };
    // A process that has ended has no memory.
    let memory = |name: &str| number(name).unwrap_or(0) << 10;
    Some(Usage {
        user_seconds: ticks.next()?.ok()? / TICKS_PER_SECOND,
        system_seconds: ticks.next()?.ok()? / TICKS_PER_SECOND,
        resident_bytes: memory("VmRSS:"),
        resident_peak_bytes: memory("VmHWM:"),
        threads: number("Threads:").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_in_spite_of_a_strange_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0";
        let status = "Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t5\n";
        let usage = parse(stat, status).expect("parsed");
        assert_eq!((usage.user_seconds, usage.system_seconds), (2.5, 0.5));
        assert_eq!(
            (usage.resident_bytes, usage.resident_peak_bytes),
            (1 << 20, 2 << 20)
        );
        assert_eq!(usage.threads, 5);
        assert_eq!(parse("7 (a) S 1", status), None);
    }

    #[test]
    fn a_child_is_measured_and_its_failure_is_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = dir.path().join("log");
        let mut fails =
            Process::start(Command::new("sh").args(["-c", "exit 3"]), &log).expect("sh");
        assert!(fails.wait(Duration::from_secs(10)).is_err());
        let mut runs = Process::start(Command::new("sh").args(["-c", "read x"]), &log).expect("sh");
        let _ = runs.wait(Duration::from_secs(10));
        let sleeper = Process::start(Command::new("sleep").arg("30"), &log).expect("sleep");
        let usage = sleeper.usage().expect("running");
        assert!(usage.resident_bytes > 0 && usage.threads == 1);
        // Standard input, output and error; perhaps one of the program's own while it starts.
        assert!(sleeper.descriptors().expect("running") >= 3);
        sleeper.terminate().expect("running");
    }
}
