//! What stands between the senders and the destination.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tailwater_pdata::Signal;

use super::wire::Carrier;
use crate::process::Process;

/// A program listens within this time.
const START_TIME: Duration = Duration::from_secs(30);

/// A program that passes on requests.
#[derive(Clone, Debug)]
pub enum Program {
    /// The program of [`super::floor`]; holds the benchmark's own executable, which contains it.
    Floor(PathBuf),
    /// The release binary of this workspace, without a processor.
    Tailwater(PathBuf),
    /// The same, and an attribute is added to each record, point and span.
    Touching(PathBuf),
    /// Any other agent.
    Peer {
        /// The executable.
        bin: PathBuf,
        /// Its arguments; `${CONFIG}` is replaced.
        args: Vec<String>,
        /// Its configuration; `${LISTEN}` and `${SINK}` (host:port), `${CARRIER}` (`http` or `grpc`),
        /// `${COMPRESSION}` (`gzip` or `none`), `${SIGNAL}` and `${STATE}` are replaced.
        config: PathBuf,
    },
}

/// How a program is to pass on.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// What is sent.
    pub signal: Signal,
    /// The protocol in and out.
    pub carrier: Carrier,
    /// Whether requests are compressed, in and out.
    pub zip: bool,
    /// Where they end.
    pub to: SocketAddr,
}

impl Program {
    /// A name for tables.
    pub fn name(&self) -> String {
        match self {
            Program::Floor(_) => "floor".into(),
            Program::Tailwater(_) => "tailwater".into(),
            Program::Touching(_) => "tailwater, touching each item".into(),
            Program::Peer { bin, .. } => {
                let name = bin.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            }
        }
    }

    /// Starts it in the empty folder `state` and waits until it listens at the address given back.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, way: &Way, state: &Path) -> Result<(Process, SocketAddr)> {
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let at = probe.local_addr()?;
        drop(probe);
        let mut command = self.command(way, at, state)?;
        command.current_dir(state);
        let log = state.join("output.txt");
        let mut process = Process::start(&mut command, &log)?;
        let begin = Instant::now();
        while TcpStream::connect(at).is_err() {
            if !process.is_running() || begin.elapsed() > START_TIME {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("{} does not listen at {at}; it said:\n{said}", self.name());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok((process, at))
    }

    fn command(&self, way: &Way, at: SocketAddr, state: &Path) -> Result<Command> {
        let config = state.join("config.yaml");
        let mut command;
        match self {
            Program::Floor(bin) => {
                command = Command::new(bin);
                command.args(["--floor-at", &at.to_string()]);
                command.args(["--floor-to", &way.to.to_string()]);
                command.args(["--carriers", way.carrier.name()]);
                if way.zip {
                    command.args(["--compressions", "gzip"]);
                } else {
                    command.args(["--compressions", "none"]);
                }
            }
            Program::Tailwater(bin) | Program::Touching(bin) => {
                let touch = matches!(self, Program::Touching(_));
                fs::write(&config, config_of(way, at, touch).to_string())?;
                command = Command::new(bin);
                command.arg("--config").arg(&config);
                command.env("TAILWATER_STATE_DIR", state.join("own"));
            }
            Program::Peer {
                bin,
                args,
                config: template,
            } => {
                let text =
                    fs::read_to_string(template).with_context(|| template.display().to_string())?;
                let text = text
                    .replace("${LISTEN}", &at.to_string())
                    .replace("${SINK}", &way.to.to_string())
                    .replace("${CARRIER}", way.carrier.name())
                    .replace("${COMPRESSION}", way.compression())
                    .replace("${SIGNAL}", way.signal.as_str())
                    .replace("${STATE}", &state.display().to_string());
                fs::write(&config, text)?;
                command = Command::new(bin);
                let config = config.display().to_string();
                command.args(args.iter().map(|a| a.replace("${CONFIG}", &config)));
            }
        }
        Ok(command)
    }
}

impl Way {
    /// What requests are compressed with.
    pub fn compression(&self) -> &'static str {
        if self.zip { "gzip" } else { "none" }
    }
}

/// The agent's configuration.
fn config_of(way: &Way, at: SocketAddr, touch: bool) -> Value {
    let (exporter, endpoint) = match way.carrier {
        Carrier::Http => ("otlp_http", format!("http://{}", way.to)),
        Carrier::Grpc => ("otlp_grpc", way.to.to_string()),
    };
    let mut options = json!({"endpoint": endpoint, "compression": way.compression()});
    if way.carrier == Carrier::Grpc {
        options["tls"] = json!({"insecure": true});
    }
    let action =
        json!({"key": "deployment.environment", "value": "production", "action": "insert"});
    let processors = if touch { vec!["attributes"] } else { vec![] };
    let mut config = json!({
        "receivers": {"otlp": {"protocols": {way.carrier.name(): {"endpoint": at.to_string()}}}},
        "exporters": {exporter: options},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {way.signal.as_str(): {
                "receivers": ["otlp"], "processors": processors, "exporters": [exporter],
            }},
        },
    });
    if touch {
        config["processors"] = json!({"attributes": {"actions": [action]}});
    }
    config
}
