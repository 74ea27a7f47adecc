//! A running agent as a process.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tailwater_testkit::ports;

use crate::scrape::Scrape;
use crate::wait;

/// What the agent logs when its pipelines run.
const READY: &str = "Everything is ready. Begin running and processing data.";

/// Where the binary under test is: `TAILWATER_BIN`, or the release build beside this program.
///
/// # Panics
/// When it is in neither place.
pub fn binary() -> PathBuf {
    find_binary().expect("no agent to test: set TAILWATER_BIN to its path, or build it for release")
}

/// As [`binary`], without an opinion on its absence.
pub fn find_binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TAILWATER_BIN") {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let own = std::env::current_exe().ok()?;
    let beside = own.ancestors().map(|dir| dir.join("release/tailwater"));
    beside.into_iter().find(|path| path.is_file())
}

/// Runs the binary to its end with `args` and its state in `state`.
///
/// # Errors
/// What starting it fails with.
pub fn run_once(args: &[&str], state: &Path) -> io::Result<Output> {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env("TAILWATER_STATE_DIR", state)
        .stdin(Stdio::null())
        .output()
}

/// Whether a line begins with `<file>:<line>:<column>: `.
pub fn has_place(line: &str, file: &str) -> bool {
    let Some(rest) = line.strip_prefix(file).and_then(|r| r.strip_prefix(':')) else {
        return false;
    };
    let mut parts = rest.splitn(3, ':');
    let number = |part: Option<&str>| part.is_some_and(|p| p.parse::<u32>().is_ok_and(|n| n > 0));
    number(parts.next()) && number(parts.next()) && parts.next().is_some()
}

/// As [`ports::free_addr`], its port.
///
/// # Errors
/// As there.
pub fn free_port() -> io::Result<u16> {
    Ok(ports::free_addr()?.port())
}

/// As [`ports::free_addr`].
///
/// # Panics
/// As it fails.
pub fn free_addr() -> SocketAddr {
    ports::free_addr().expect("a free port")
}

/// The text of a configuration with metrics on `port`, before what it says of them itself.
fn with_telemetry(config: &Value, port: u16) -> io::Result<String> {
    let mut config = config.clone();
    let exporter = json!({"prometheus": {"host": "127.0.0.1", "port": port}});
    let telemetry = &mut config["service"]["telemetry"];
    let mut readers = vec![json!({"pull": {"exporter": exporter}})];
    if let Some(own) = telemetry["metrics"]["readers"].as_array() {
        readers.extend(own.iter().cloned());
    }
    telemetry["metrics"]["readers"] = readers.into();
    if telemetry["metrics"]["level"].is_null() {
        telemetry["metrics"]["level"] = "detailed".into();
    }
    if telemetry["logs"].is_null() {
        telemetry["logs"] = json!({"level": "info"});
    }
    // JSON is YAML.
    Ok(serde_json::to_string_pretty(&config)?)
}

/// A process; killed and reaped on drop, so nothing outlives its test.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    metrics: SocketAddr,
    log: PathBuf,
    file: PathBuf,
}

impl Agent {
    /// Starts the agent on `config` with its state in `state`, without waiting for anything. Its
    /// metrics are served on a free port, before what the configuration says of itself, and its
    /// log goes to a file in `dir`.
    ///
    /// # Errors
    /// What writing the files or starting the process fails with.
    pub fn spawn(config: &Value, state: &Path, dir: &Path) -> io::Result<Self> {
        Self::spawn_by(config, state, dir, |command| command)
    }

    /// As [`Agent::spawn`], with the command as `change` makes it of the usual one: with other
    /// variables, or started by another program that becomes the agent (see
    /// [`crate::confine::after`]).
    ///
    /// # Errors
    /// As [`Agent::spawn`].
    pub fn spawn_by(
        config: &Value,
        state: &Path,
        dir: &Path,
        change: impl FnOnce(Command) -> Command,
    ) -> io::Result<Self> {
        let port = free_port()?;
        let file = dir.join(format!("agent-{port}.yaml"));
        fs::write(&file, with_telemetry(config, port)?)?;
        let log = dir.join(format!("agent-{port}.log"));
        let mut command = Command::new(binary());
        command
            .arg("--config")
            .arg(&file)
            .env("TAILWATER_STATE_DIR", state);
        let child = change(command)
            .stdin(Stdio::null())
            .stdout(File::create(log.with_extension("out"))?)
            .stderr(File::create(&log)?)
            .spawn()?;
        Ok(Self {
            child,
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            log,
            file,
        })
    }

    /// Starts `tailwater up` with `args` and its state in `state`, and waits until its pipelines run. Its log goes
    /// to a file in `dir`. It serves no metrics unless a base says so.
    ///
    /// # Panics
    /// When it does not get there; its log is in the message.
    pub fn up(args: &[&str], state: &Path, dir: &Path) -> Self {
        let port = free_port().expect("a free port");
        let log = dir.join(format!("up-{port}.log"));
        let mut command = Command::new(binary());
        command
            .arg("up")
            .args(args)
            .env("TAILWATER_STATE_DIR", state);
        let out = File::create(log.with_extension("out")).expect("a file");
        let err = File::create(&log).expect("a file");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let mut agent = Self {
            child: command.spawn().expect("the agent starts"),
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            file: log.with_extension("yaml"),
            log,
        };
        agent.expect_ready();
        agent
    }

    /// Writes `text` in the place of its configuration at once, and says nothing to it.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn offer_text(&self, text: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, text).expect("a file");
        fs::rename(&new, &self.file).expect("a file");
    }

    /// As [`Agent::offer_text`], with metrics where they are.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn offer(&self, config: &Value) {
        let text = with_telemetry(config, self.metrics.port()).expect("it is JSON");
        self.offer_text(&text);
    }

    /// Its configuration file.
    pub fn config_file(&self) -> &Path {
        &self.file
    }

    /// How often it has said that a configuration came into force, was the same, or was refused.
    pub fn changes(&self) -> [usize; 3] {
        self.changes_since(0)
    }

    /// As [`Agent::changes`], from this byte of its log on.
    fn changes_since(&self, at: u64) -> [usize; 3] {
        let log = self.log_since(at);
        let texts = [
            "configuration changed",
            "configuration unchanged",
            "what runs goes on as it was",
        ];
        texts.map(|text| log.matches(text).count())
    }

    /// Offers a configuration, asks it to read it, and waits for its answer: whether it came into
    /// force.
    ///
    /// # Panics
    /// When it does not answer within [`wait::BOUND`].
    pub fn reload(&self, config: &Value) -> bool {
        // Of what comes after the last answer alone: a log of a thousand answers is long.
        let at = fs::metadata(&self.log).map_or(0, |m| m.len());
        self.offer(config);
        self.signal(Signal::HUP);
        let mut now = [0; 3];
        let answered = wait::within(wait::BOUND, || {
            now = self.changes_since(at);
            now != [0; 3]
        });
        assert!(answered, "no answer:\n{}", self.log());
        now[0] > 0
    }

    /// As [`Agent::spawn`], and waits until the pipelines run.
    ///
    /// # Panics
    /// When it does not get there; its log is in the message.
    pub fn start(config: &Value, state: &Path, dir: &Path) -> Self {
        let mut agent = Self::spawn(config, state, dir).expect("the agent starts");
        agent.expect_ready();
        agent
    }

    /// Waits until the pipelines run.
    ///
    /// # Panics
    /// When they do not; its log is in the message.
    pub fn expect_ready(&mut self) {
        let ready = wait::within(wait::BOUND, || self.is_ready() || self.has_ended());
        assert!(
            ready && !self.has_ended(),
            "the agent is not ready:\n{}",
            self.log()
        );
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log_since(0)
    }

    /// What it has logged from this byte on.
    fn log_since(&self, at: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(at))?;
            log.read_to_end(&mut bytes)
        });
        // A log that is not there yet says nothing.
        read.map_or_else(
            |_| String::new(),
            |_| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Whether its pipelines run.
    pub fn is_ready(&self) -> bool {
        self.log().contains(READY)
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Sends a signal to this process alone.
    ///
    /// # Panics
    /// When it cannot be sent although the process has not been reaped.
    pub fn signal(&self, signal: Signal) {
        let raw = i32::try_from(self.child.id()).expect("a process id fits");
        let pid = Pid::from_raw(raw).expect("a child's process id is not 0");
        kill_process(pid, signal).expect("a child that was not reaped can be signalled");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end, at most `bound`.
    pub fn wait_end(&mut self, bound: Duration) -> Option<ExitStatus> {
        wait::for_some(bound, || self.child.try_wait().ok().flatten())
    }

    /// SIGTERM, then the exit code.
    ///
    /// # Panics
    /// When it does not end within `bound`, or by a signal.
    pub fn stop_within(mut self, bound: Duration) -> i32 {
        self.terminate();
        let status = self.wait_end(bound);
        let status = status.unwrap_or_else(|| panic!("still running:\n{}", self.log()));
        status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal ({status}):\n{}", self.log()))
    }

    /// Stops it and expects that everything under way was delivered.
    ///
    /// # Panics
    /// When the exit code is not 0.
    pub fn stop_clean(self) {
        let log = self.log.clone();
        let code = self.stop_within(wait::BOUND);
        assert_eq!(
            code,
            0,
            "exit code; log:\n{}",
            fs::read_to_string(log).unwrap_or_default()
        );
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Panics
    /// When it had ended by itself before: nothing may make it do that.
    pub fn kill(mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!(
                "the agent had ended by itself with {status}:\n{}",
                self.log()
            );
        }
        self.child.kill().expect("a running child can be killed");
        self.child.wait().expect("a killed child can be reaped");
    }

    /// SIGKILL to a process that may have been ended by the test already, in whatever way.
    ///
    /// # Panics
    /// When it cannot be reaped.
    pub fn end_now(mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be reaped");
    }

    /// Its metrics now.
    ///
    /// # Panics
    /// When they cannot be had.
    pub fn scrape(&self) -> Scrape {
        Scrape::fetch(self.metrics)
            .unwrap_or_else(|e| panic!("no metrics: {e}; log:\n{}", self.log()))
    }

    /// Where the metrics are served.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics
    }

    /// The most memory it has had resident, in bytes.
    ///
    /// # Panics
    /// When `/proc` does not say.
    pub fn resident_bytes_peak(&self) -> u64 {
        self.proc_kib("VmHWM:") * 1024
    }

    /// The memory it has resident now, in bytes.
    ///
    /// # Panics
    /// When `/proc` does not say.
    pub fn resident_bytes(&self) -> u64 {
        self.proc_kib("VmRSS:") * 1024
    }

    /// CPU time it has used, user and system, in seconds.
    ///
    /// # Panics
    /// When `/proc` does not say.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("a stat");
        // Source: proc(5), fields 14 and 15, in hundredths; the second may hold blanks.
        let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
        let ticks = rest.split_whitespace().skip(11).take(2);
        ticks
            .map(|t| t.parse::<f64>().expect("a number"))
            .sum::<f64>()
            / 100.0
    }

    /// Descriptors it has open now.
    ///
    /// # Panics
    /// When `/proc` does not say.
    pub fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        open.expect("a running process").count()
    }

    fn proc_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.unwrap_or_else(|e| panic!("no status ({e}):\n{}", self.log()));
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.expect("the kernel reports memory in KiB")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only when it has ended and was reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
