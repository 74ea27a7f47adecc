//! Row 25: files that may not be read, and reads that fail.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::Row;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "resumes <= 5 s from the same offset; 0 re-reads";

/// Who has no rights: the user and group `nobody`.
const NOBODY: u32 = 65_534;

/// The bound on how soon reading goes on.
const RESUMES: Duration = Duration::from_secs(5);

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// An agent of [`NOBODY`]; none where this process may not become another user.
fn as_nobody(rig: &Rig) -> Option<Agent> {
    // What the agent writes to, and what is above it.
    for dir in ["", "logs", "state", "run"] {
        chown(rig.path(dir), Some(NOBODY), Some(NOBODY)).ok()?;
        set_mode(&rig.path(dir), 0o755);
    }
    let user = format!("--reuid={NOBODY}");
    let group = format!("--regid={NOBODY}");
    let may = Command::new("setpriv")
        .args([&*user, &*group, "--clear-groups", "test", "-w"])
        .arg(rig.state())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        return None;
    }
    Some(rig.start_by(&rig.config(), |command| {
        let mut other = Command::new("setpriv");
        other.args([&*user, &*group, "--clear-groups"]);
        other.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            other.env(name, value.unwrap_or_default());
        }
        other
    }))
}

/// Guarantees that a file which may not be read is reported, holds up no other, and is read from
/// where it stood as soon as it may be.
#[test]
fn permission_that_is_denied_and_granted_costs_only_time() {
    let mut row = Row::new(25, "permission denied, later granted")
        .how("an agent without rights; mode 000 before the first look, and after a rotation under way")
        .pass(PASS);
    let rig = Rig::new("denied");
    let mut closed = rig.writer(1, "closed.log", |_| {});
    let mut open = rig.writer(2, "open.log", |_| {});
    closed.write_lines(500).expect("written");
    set_mode(closed.path(), 0o000);
    let Some(agent) = as_nobody(&rig) else {
        return row.not_shown("this process may not run the agent as another user (no root)");
    };
    open.write_lines(500).expect("written");
    let of = |writer| delivered(&rig, writer);
    let first = wait::within(wait::BOUND, || of(2) == 500);
    assert!(first, "{}\n{}", rig.summary(), tail(&agent.log()));
    let said = wait::within(wait::BOUND, || {
        agent.scrape().sum("tailwater_file_errors", &[]) >= 1.0
            && agent.log().contains("ermission denied")
    });
    assert!(said, "not said:\n{}", tail(&agent.log()));
    assert_eq!(of(1), 0);
    let mut slowest = Duration::ZERO;
    for round in 0..3 {
        let begin = Instant::now();
        set_mode(closed.path(), 0o644);
        rig.wait_delivered(&agent);
        slowest = slowest.max(begin.elapsed());
        // The next file at this path may not be read; what was read goes on being known.
        closed.rotate().expect("rotated");
        set_mode(closed.path(), 0o000);
        closed.write_lines(300 + round).expect("written");
        open.write_lines(300).expect("written");
        let through = wait::within(wait::BOUND, || of(2) == open.lines_written());
        assert!(through, "{}\n{}", rig.summary(), tail(&agent.log()));
    }
    let begin = Instant::now();
    set_mode(closed.path(), 0o644);
    rig.wait_delivered(&agent);
    slowest = slowest.max(begin.elapsed());
    let t = rig.finish(agent).totals;
    assert_eq!(t.duplicates_raw, 0, "read again");
    row.reached(format!("0 of {} lines lost or read again", t.written));
    row.held(
        slowest <= RESUMES,
        format!("resumed after {:.1} s at most", slowest.as_secs_f64()),
    );
    row.record();
}

/// Lines of a writer that arrived.
fn delivered(rig: &Rig, writer: u32) -> u64 {
    let progress = rig.oracle.progress();
    let of = progress.iter().find(|p| p.writer == writer);
    of.map_or(0, |p| p.delivered)
}

/// A tracer that makes reads of one file fail, until it is dropped.
struct FailingReads {
    tracer: Child,
    report: std::path::PathBuf,
}

impl FailingReads {
    /// `None` where nobody may trace.
    fn start(rig: &Rig, agent: &Agent, file: &Path, error: &str) -> Option<FailingReads> {
        let report = rig.path("trace.txt");
        let _ = fs::remove_file(&report);
        let inject = format!("inject=pread64,read:error={error}");
        let tracer = Command::new("strace")
            .args(["-f", "-q", "-e", "trace=pread64,read", "-e", &inject, "-o"])
            .arg(&report)
            .arg("-P")
            .arg(file)
            .args(["-p", &agent.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut failing = FailingReads {
            tracer: tracer.ok()?,
            report,
        };
        // It is at work when the kernel says that all threads of the agent have a tracer.
        let threads = format!("/proc/{}/task", agent.pid());
        let attached = wait::within(Duration::from_secs(5), || {
            let mut threads = fs::read_dir(&threads).expect("it runs");
            threads.all(|thread| {
                let status = thread.map(|t| t.path().join("status"));
                let text = status.and_then(fs::read_to_string).unwrap_or_default();
                !text.contains("TracerPid:\t0")
            })
        });
        let alive = matches!(failing.tracer.try_wait(), Ok(None));
        (attached && alive).then_some(failing)
    }

    /// Reads that were made to fail so far.
    fn failed(&self) -> usize {
        let text = fs::read_to_string(&self.report).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("(INJECTED)"))
            .count()
    }
}

impl Drop for FailingReads {
    fn drop(&mut self) {
        // Asked to end, it lets the agent go; killed, it would leave it stopped.
        if let Some(pid) = i32::try_from(self.tracer.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.tracer.wait();
    }
}

/// Guarantees that a read which fails moves nothing: the file is read from the same place when
/// reads succeed again, the others go on meanwhile, and it is said.
#[test]
fn reads_that_fail_are_tried_again_at_the_same_place() {
    let rounds = 3;
    let mut row = Row::new(25, "EIO on read")
        .how(format!(
            "every read of one file fails with EIO (strace), {rounds} times, under writing"
        ))
        .pass(PASS);
    let rig = Rig::new("eio");
    let mut bad = rig.writer(1, "bad.log", |_| {});
    let mut good = rig.writer(2, "good.log", |_| {});
    bad.write_lines(500).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let mut slowest = Duration::ZERO;
    let mut failed = 0;
    for _ in 0..rounds {
        let Some(failing) = FailingReads::start(&rig, &agent, bad.path(), "EIO") else {
            return row.not_shown("strace is not here, or may not trace");
        };
        let before = delivered(&rig, 1);
        bad.write_lines(500).expect("written");
        good.write_lines(500).expect("written");
        let met = wait::within(wait::BOUND, || failing.failed() >= 1);
        assert!(met, "no read failed\n{}", tail(&agent.log()));
        let through = wait::within(wait::BOUND, || delivered(&rig, 2) == good.lines_written());
        assert!(
            through,
            "the other file waits\n{}\n{}",
            rig.summary(),
            tail(&agent.log())
        );
        let said = wait::within(wait::BOUND, || {
            agent.scrape().sum("tailwater_file_errors", &[]) >= 1.0
        });
        assert!(said, "not counted\n{}", tail(&agent.log()));
        assert_eq!(delivered(&rig, 1), before);
        failed += failing.failed();
        drop(failing);
        let begin = Instant::now();
        rig.wait_delivered(&agent);
        slowest = slowest.max(begin.elapsed());
    }
    let t = rig.finish(agent).totals;
    assert_eq!(t.duplicates_raw, 0, "read again");
    row.reached(format!(
        "0 of {} lines lost or read again; {failed} reads failed",
        t.written
    ));
    row.held(
        slowest <= RESUMES,
        format!("resumed after {:.1} s at most", slowest.as_secs_f64()),
    );
    row.record();
}
