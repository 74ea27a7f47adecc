//! Running an agent over generated files until everything has arrived.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::content::{Content, Format};
use crate::process::{Process, Usage};
use crate::sink::{Arrived, Sink};

/// A run is given up when nothing has arrived for this long.
const STALL: Duration = Duration::from_secs(60);

/// Something that reads files and pushes them.
#[derive(Clone, Debug)]
pub enum Agent {
    /// The program of [`crate::floor`]; holds the benchmark's own executable, which contains it.
    Floor(PathBuf),
    /// The release binary of this workspace.
    Tailwater {
        /// The executable.
        bin: PathBuf,
        /// `--set` of its command line, beyond the benchmark's configuration.
        set: Vec<String>,
    },
    /// Any other agent.
    Peer {
        /// The executable.
        bin: PathBuf,
        /// Its arguments; `${DIR}`, `${STATE}`, `${SINK}` and `${CONFIG}` are replaced.
        args: Vec<String>,
        /// Its configuration, with the same placeholders.
        config: Option<PathBuf>,
    },
}

/// Where a run takes place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The folder of `*.log` files.
    pub logs: &'a Path,
    /// An empty folder for what the agent keeps.
    pub state: &'a Path,
    /// The form of the files.
    pub format: Format,
    /// What is done with the messages.
    pub work: Work,
}

/// What is done with messages, beyond reading them out of the form of the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Nothing.
    Pass,
    /// They are JSON and are parsed to attributes.
    Json {
        /// Three statements of OTTL are carried out on each.
        ottl: bool,
        /// All attributes are sent as structured metadata, not the line alone.
        sent: bool,
    },
}

/// The statements of [`Work::Json`]: one that copies, one that removes, one that depends.
const STATEMENTS: [&str; 3] = [
    r#"set(log.severity_text, log.attributes["level"])"#,
    r#"delete_key(log.attributes, "trace_id")"#,
    r#"set(log.attributes["slow"], true) where log.attributes["duration_us"] > 1000000"#,
];

/// A finished run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the process had used when the last message arrived.
    pub usage: Usage,
    /// From start of the process to the first message.
    pub first: Duration,
    /// From start of the process to the last message.
    pub wall: Duration,
    /// What arrived.
    pub arrived: Arrived,
}

impl Run {
    /// The run, if no line was repeated or out of order.
    ///
    /// # Errors
    /// If one was.
    pub fn exact(self) -> Result<Run> {
        let places = self.arrived.places;
        if places.repeated > 0 || places.out_of_order > 0 {
            bail!(
                "{} lines were repeated, {} were out of order",
                places.repeated,
                places.out_of_order
            );
        }
        Ok(self)
    }
}

impl Agent {
    /// A name for tables.
    pub fn name(&self) -> String {
        match self {
            Agent::Floor(_) => "floor".into(),
            Agent::Tailwater { .. } => "tailwater".into(),
            Agent::Peer { bin, .. } => bin
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        }
    }

    /// The command that runs it at `place`; writes its configuration.
    ///
    /// # Errors
    /// If the configuration cannot be read or written.
    pub fn command(&self, place: &Place<'_>, sink: &Sink) -> Result<Command> {
        let config = place.state.join("config.yaml");
        let fill = |text: &str| {
            text.replace("${DIR}", &place.logs.display().to_string())
                .replace("${STATE}", &place.state.display().to_string())
                .replace("${SINK}", &sink.address().to_string())
                .replace("${CONFIG}", &config.display().to_string())
        };
        let mut command;
        match self {
            Agent::Floor(bin) => {
                command = Command::new(bin);
                let format = if place.format == Format::Cri {
                    "cri"
                } else {
                    "plain"
                };
                command.args([
                    "--floor-of",
                    &fill("${DIR}"),
                    "--floor-to",
                    &fill("${SINK}"),
                ]);
                command.args(["--format", format]);
            }
            Agent::Tailwater { bin, set } => {
                fs::write(&config, fill(&config_of(place)))?;
                command = Command::new(bin);
                command.arg("--config").arg(&config);
                for set in set {
                    command.args(["--set", set]);
                }
                command.env("TAILWATER_STATE_DIR", place.state.join("own"));
            }
            Agent::Peer {
                bin,
                args,
                config: template,
            } => {
                if let Some(template) = template {
                    let text = fs::read_to_string(template)
                        .with_context(|| template.display().to_string())?;
                    fs::write(&config, fill(&text))?;
                }
                command = Command::new(bin);
                command.args(args.iter().map(|a| fill(a)));
            }
        }
        command.current_dir(place.state);
        Ok(command)
    }

    /// Runs it until `content` has arrived. Other agents may repeat lines and mix up their order,
    /// which the result says.
    ///
    /// # Errors
    /// If it does not start, ends, stalls, or delivers something else than `content`.
    pub fn run(&self, place: &Place<'_>, content: Content, sink: &Sink) -> Result<Run> {
        sink.reset();
        let command = &mut self.command(place, sink)?;
        let log = place.state.join("output.txt");
        let mut process = Process::start(command, &log)?;
        let mut result = watch(&mut process, content, sink);
        drop(process);
        if !matches!(self, Agent::Peer { .. }) {
            result = result.and_then(Run::exact);
        }
        result.with_context(|| {
            let text = fs::read(&log).unwrap_or_default();
            let tail = text.len().saturating_sub(2000);
            format!(
                "{} said last:\n{}",
                self.name(),
                String::from_utf8_lossy(&text[tail..])
            )
        })
    }
}

/// Waits until `content` has arrived from `process` and measures it at that moment.
///
/// # Errors
/// If the process ends, nothing arrives any more, or something else arrives.
pub fn watch(process: &mut Process, content: Content, sink: &Sink) -> Result<Run> {
    let (mut before, mut since) = (0, Instant::now());
    let arrived = loop {
        let step = Duration::from_millis(200);
        let arrived = sink.wait(step, |a| a.places.unique >= content.messages);
        if let Some(problem) = arrived.problem {
            bail!("{problem}");
        }
        let entries = arrived.places.unique;
        if entries >= content.messages {
            break arrived;
        }
        if !process.is_running() {
            bail!("it ended after {entries} of {} messages", content.messages);
        }
        if entries != before {
            (before, since) = (entries, Instant::now());
        }
        if since.elapsed() > STALL {
            bail!(
                "nothing for {STALL:?} after {entries} of {} messages",
                content.messages
            );
        }
    };
    let usage = process.usage()?;
    let places = arrived.places;
    if places.unique != content.messages || places.unknown > 0 {
        bail!(
            "{} messages and {} other lines for {} messages",
            places.unique,
            places.unknown,
            content.messages
        );
    }
    if places.repeated == 0 && arrived.count.line_bytes != content.message_bytes {
        bail!(
            "{} bytes of lines for {}",
            arrived.count.line_bytes,
            content.message_bytes
        );
    }
    let after = |at: Option<Instant>| {
        at.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(process.started())
        })
    };
    Ok(Run {
        usage,
        first: after(arrived.first),
        wall: after(arrived.last),
        arrived,
    })
}

/// The agent's configuration: what a cluster would use, without the batching of others.
fn config_of(place: &Place<'_>) -> String {
    let (mut operators, stream) = match place.format {
        Format::Cri => (
            "    operators:\n      - {type: container, format: containerd, \
             add_metadata_from_filepath: false}\n"
                .to_owned(),
            ", stream: log.iostream",
        ),
        Format::Plain => (String::new(), ""),
    };
    let (json, ottl, metadata) = match place.work {
        Work::Pass => (false, false, false),
        Work::Json { ottl, sent } => (true, ottl, sent),
    };
    if json {
        operators.push_str("      - {type: json_parser}\n");
    }
    let (mut transform, mut first) = (String::new(), "");
    if ottl {
        first = "transform, ";
        transform = STATEMENTS.map(|s| format!("'{s}'")).join(", ");
        transform = format!("\n  transform: {{log_statements: [{transform}]}}");
    }
    format!(
        r#"extensions:
  file_storage: {{directory: "${{STATE}}/storage", create_directory: true}}
receivers:
  file_log:
    include: ["${{DIR}}/*.log"]
    start_at: beginning
    include_file_path: true
    include_file_name: false
    resource: {{job: bench}}
    storage: file_storage
{operators}processors:{transform}
  attributes: {{actions: [{{key: logtag, action: delete}}]}}
  resource: {{attributes: [{{key: cluster, value: c1, action: upsert}}]}}
  batch: {{send_batch_size: 8192, timeout: 1s}}
exporters:
  loki:
    endpoint: http://${{SINK}}/loki/api/v1/push
    labels:
      resource: {{job: job, cluster: cluster}}
      attributes: {{filename: log.file.path{stream}}}
    structured_metadata: {metadata}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    logs:
      receivers: [file_log]
      processors: [{first}attributes, resource, batch]
      exporters: [loki]
"#
    )
}
