//! Agents that can reload: their configuration, and how each is told that it has changed.
//!
//! Sources: the OpenTelemetry Collector, Fluent Bit (`administration/hot-reload`) and Vector by their manuals.
//! All tail the same files from the beginning, keep positions where they can, and send in short batches.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::stand_in::Manner;

/// How long an agent may take to answer that it has reloaded.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What an agent is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Ours, told by SIGHUP.
    TailwaterSighup,
    /// Ours, told by `PUT /v1/config`.
    TailwaterPut,
    /// The OpenTelemetry Collector, by SIGHUP.
    Otelcol,
    /// Fluent Bit, by `POST /api/v2/reload`.
    FluentBit,
    /// Vector, by SIGHUP.
    Vector,
    /// The agent that the judge is tested with, by a request.
    StandIn(Manner),
}

/// The names by which others are given.
pub const PEERS: [(&str, Kind); 3] = [
    ("otelcol", Kind::Otelcol),
    ("fluent-bit", Kind::FluentBit),
    ("vector", Kind::Vector),
];

/// An agent to run.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What it is.
    pub kind: Kind,
    /// Its executable.
    pub bin: PathBuf,
    /// The Collector has no `file_storage`, so its positions do not survive a reload.
    forgets: bool,
}

/// Where it works.
pub struct Place {
    /// The folder of `*.log`.
    pub logs: PathBuf,
    /// What it keeps, and its configuration.
    pub state: PathBuf,
    /// Loki.
    pub loki: SocketAddr,
    /// OTLP over HTTP.
    pub otlp: SocketAddr,
    /// Where it listens for what it is told, if it does.
    pub control: SocketAddr,
}

impl Place {
    fn config(&self) -> PathBuf {
        self.state.join("config.yaml")
    }

    fn socket(&self) -> PathBuf {
        self.state.join("admin.sock")
    }
}

/// A free port of the loopback interface.
///
/// # Errors
/// If there is none.
pub fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

impl Peer {
    /// An agent of this kind; the Collector is asked for its components.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn new(kind: Kind, bin: &Path) -> Result<Peer> {
        let bin = std::path::absolute(bin)?;
        let mut forgets = false;
        if kind == Kind::Otelcol {
            let asked = Command::new(&bin).arg("components").output();
            let asked = asked.with_context(|| bin.display().to_string())?;
            forgets = !String::from_utf8_lossy(&asked.stdout).contains("file_storage");
        }
        Ok(Peer { kind, bin, forgets })
    }

    /// Its name in the table.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::TailwaterSighup => "tailwater, SIGHUP".into(),
            Kind::TailwaterPut => "tailwater, PUT".into(),
            Kind::Otelcol if self.forgets => {
                "OpenTelemetry Collector (without file_storage), SIGHUP".into()
            }
            Kind::Otelcol => "OpenTelemetry Collector, SIGHUP".into(),
            Kind::FluentBit => "Fluent Bit, POST".into(),
            Kind::Vector => "Vector, SIGHUP".into(),
            Kind::StandIn(manner) => format!("stand-in, {manner:?}").to_lowercase(),
        }
    }

    /// Its configuration, in one of two forms that differ in how it batches and what it adds to a
    /// record.
    pub fn config(&self, at: &Place, other: bool) -> String {
        let (logs, state) = (at.logs.display(), at.state.display());
        let (loki, otlp) = (at.loki, at.otlp);
        let ms = if other { 150 } else { 100 };
        match self.kind {
            Kind::TailwaterSighup | Kind::TailwaterPut => format!(
                "extensions:\n  file_storage: {{directory: {state}/storage, create_directory: true}}\n\
                 receivers:\n  file_log:\n    include: ['{logs}/*.log']\n    start_at: beginning\n    \
                 storage: file_storage\n    preserve_trailing_whitespaces: true\n    \
                 operators: [{{type: add, field: attributes.form, value: '{ms}'}}]\n\
                 processors:\n  batch: {{timeout: {ms}ms}}\n\
                 exporters:\n  loki:\n    endpoint: http://{loki}/loki/api/v1/push\n    \
                 labels: {{static: {{job: bench}}}}\n    structured_metadata: false\n\
                 service:\n  extensions: [file_storage]\n  admin: {{socket: {}}}\n  \
                 telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}\n  pipelines:\n    \
                 logs: {{receivers: [file_log], processors: [batch], exporters: [loki]}}\n",
                at.socket().display()
            ),
            Kind::Otelcol => {
                let (extension, run, storage) = match self.forgets {
                    true => ("", "", ""),
                    false => (
                        &*format!(
                            "extensions:\n  file_storage: {{directory: {state}/storage, create_directory: true}}\n"
                        ),
                        "\n  extensions: [file_storage]",
                        "\n    storage: file_storage",
                    ),
                };
                format!(
                    "{extension}receivers:\n  filelog:\n    include: ['{logs}/*.log']\n    \
                     start_at: beginning\n    preserve_trailing_whitespaces: true\n    \
                     retry_on_failure: {{enabled: true}}{storage}\n    \
                     operators: [{{type: add, field: attributes.form, value: '{ms}'}}]\n\
                     processors:\n  batch: {{timeout: {ms}ms}}\n\
                     exporters:\n  otlphttp:\n    endpoint: http://{otlp}\n    compression: zstd\n    \
                     sending_queue: {{enabled: true, queue_size: 64, block_on_overflow: true}}\n\
                     service:{run}\n  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}\n  \
                     pipelines:\n    logs: {{receivers: [filelog], processors: [batch], exporters: [otlphttp]}}\n"
                )
            }
            Kind::FluentBit => format!(
                "service:\n  flush: 0.{ms}\n  log_level: warn\n  hot_reload: on\n  http_server: on\n  \
                 http_listen: 127.0.0.1\n  http_port: {port}\n\
                 pipeline:\n  inputs:\n    - name: tail\n      path: {logs}/*.log\n      tag: bench\n      \
                 read_from_head: true\n      db: {state}/tail.db\n      refresh_interval: 1\n      \
                 buffer_max_size: 8M\n  outputs:\n    - name: loki\n      match: '*'\n      host: {ip}\n      \
                 port: {loki_port}\n      labels: job=bench\n      drop_single_key: raw\n      \
                 retry_limit: no_limits\n",
                port = at.control.port(),
                ip = loki.ip(),
                loki_port = loki.port(),
            ),
            Kind::Vector => format!(
                "data_dir: {state}\nsources:\n  in:\n    type: file\n    include: ['{logs}/*.log']\n    \
                 read_from: beginning\n    glob_minimum_cooldown_ms: 500\nsinks:\n  loki:\n    type: loki\n    \
                 inputs: [in]\n    endpoint: http://{loki}\n    encoding: {{codec: text}}\n    \
                 labels: {{job: bench}}\n    out_of_order_action: accept\n    healthcheck: {{enabled: false}}\n    \
                 acknowledgements: {{enabled: true}}\n    batch: {{timeout_secs: 0.{ms}}}\n"
            ),
            Kind::StandIn(_) => format!("form: {ms}\n"),
        }
    }

    /// Writes a form of its configuration in the place of what is there, at once.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, at: &Place, other: bool) -> Result<()> {
        let new = at.state.join("config.new");
        fs::write(&new, self.config(at, other))?;
        Ok(fs::rename(new, at.config())?)
    }

    /// The command that runs it.
    pub fn command(&self, at: &Place) -> Command {
        let mut command = Command::new(&self.bin);
        match self.kind {
            Kind::FluentBit => {
                command.arg("-c").arg(at.config());
            }
            Kind::StandIn(manner) => {
                command.arg("--stand-in").arg(&at.logs);
                command.args(["--stand-in-to", &at.loki.to_string()]);
                command.args(["--stand-in-control", &at.control.to_string()]);
                command.args(["--stand-in-manner", &format!("{manner:?}").to_lowercase()]);
            }
            _ => {
                command.arg("--config").arg(at.config());
            }
        }
        command.current_dir(&at.state);
        command.env("TAILWATER_STATE_DIR", at.state.join("own"));
        command
    }

    /// Gives it a form of its configuration, and waits for its answer where it gives one.
    ///
    /// # Errors
    /// If it cannot be told, refuses, or does not answer.
    pub fn reload(&self, at: &Place, pid: u32, other: bool) -> Result<()> {
        if self.kind == Kind::TailwaterPut {
            let socket = UnixStream::connect(at.socket()).context("its admin socket")?;
            socket.set_read_timeout(Some(ANSWER_MAX))?;
            return ask(socket, "PUT", "/v1/config", &self.config(at, other));
        }
        self.write(at, other)?;
        match self.kind {
            Kind::FluentBit | Kind::StandIn(_) => {
                let stream = TcpStream::connect(at.control).context("its HTTP server")?;
                stream.set_read_timeout(Some(ANSWER_MAX))?;
                ask(stream, "POST", "/api/v2/reload", "{}")
            }
            _ => {
                let pid = Pid::from_raw(i32::try_from(pid)?);
                let pid = pid.context("a child's process id is not 0")?;
                Ok(kill_process(pid, Signal::HUP)?)
            }
        }
    }
}

/// A request whose answer has to be a success.
fn ask(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> Result<()> {
    let mut request = String::new();
    write!(
        request,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    // The first line is all that is asked for.
    while !answer.contains(&b'\n') {
        match stream.read(&mut piece)? {
            0 => break,
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("{method} {path}: {}", answer.trim());
    }
    Ok(())
}
