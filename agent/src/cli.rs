//! Arguments and exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

mod help;

use help::{
    AFTER_HELP, AGENT_HELP, CHECKPOINTS_HELP, COMPONENTS_HELP, CONVERT_HELP, DEMO_HELP, RUN_HELP,
    TAP_HELP, TOP_HELP, TRY_HELP, UP_HELP, VALIDATE_HELP,
};

/// Exit codes, as the help states them.
pub mod exit {
    /// Everything went well.
    pub const OK: u8 = 0;
    /// A configuration, start or run-time error; the message says which.
    pub const ERROR: u8 = 1;
    // 2 is the argument parser's own: the command line itself is wrong.
    /// Stopped at the deadline with records undelivered. They are read again at the next start.
    pub const UNDELIVERED: u8 = 3;
    /// A second signal ended the stop early. Nothing is lost: see [`UNDELIVERED`].
    pub const INTERRUPTED: u8 = 4;
}

/// One native agent that tails files and delivers logs to Loki, and loses nothing.
#[derive(Parser)]
#[command(name = "tailwater", version, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent (the same as giving --config without a command).
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Check a configuration without starting anything; prints every mistake with its place.
    #[command(after_help = VALIDATE_HELP)]
    Validate {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the graph and the defaults in force, and warn of what is valid and often not meant.
        #[arg(long)]
        explain: bool,
    },
    /// Show what becomes of lines or records in a pipeline, step by step. Nothing is sent or stored.
    #[command(after_help = TRY_HELP)]
    Try(TryArgs),
    /// List the components of this build and what they support; with an option, what there is to configure.
    #[command(after_help = COMPONENTS_HELP)]
    Components {
        /// Every option of a component, as Markdown: what it takes, its default and what it does. TYPE is one of
        /// the list, `service`, `operators`, or `receivers/otlp` where several have the name; without it, the
        /// list of pages.
        #[arg(long, value_name = "TYPE", num_args = 0..=1, conflicts_with = "json_schema")]
        reference: Option<Option<String>>,
        /// The JSON schema of the configuration, for editors.
        #[arg(long)]
        json_schema: bool,
    },
    /// Print the configuration in force, secrets redacted.
    #[command(alias = "print-initial-config")]
    PrintConfig {
        #[command(flatten)]
        config: ConfigArgs,
        /// How secrets are printed.
        #[arg(long, value_enum, default_value_t = Mode::Redacted)]
        mode: Mode,
        /// Output format.
        #[arg(long, value_enum, default_value_t = Format::Yaml)]
        format: Format,
        /// Check the configuration first.
        #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1)]
        #[arg(default_value_t = true, default_missing_value = "true")]
        validate: bool,
    },
    /// Watch it work: writes sample container logs, tails, processes and delivers them.
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Find containers and files by itself, tail them, and deliver to Loki. No configuration needed.
    #[command(after_help = UP_HELP)]
    Up(UpArgs),
    /// Ask a running agent whether it is ready, and which configuration is in force.
    #[command(after_help = AGENT_HELP)]
    Status(AgentArgs),
    /// Show the nodes of a running agent, what is counted of each, and how they are connected.
    #[command(after_help = AGENT_HELP)]
    Graph(AgentArgs),
    /// List the files that a running agent reads, and how far it is in each.
    #[command(after_help = AGENT_HELP)]
    Files(FilesArgs),
    /// Watch a running agent: rates, lag, queues, errors, and the files that are furthest behind.
    #[command(after_help = TOP_HELP)]
    Top(TopArgs),
    /// Write an archive for the report of a bug: what a running agent is, does and lives in.
    #[command(after_help = AGENT_HELP)]
    Diagnostics(DiagnosticsArgs),
    /// Show records that pass before or after a node of a running agent, until Ctrl-C.
    #[command(after_help = TAP_HELP)]
    Tap {
        #[command(flatten)]
        agent: AgentArgs,
        #[command(flatten)]
        tap: TapArgs,
    },
    /// Say what a configuration would change in a running agent.
    #[command(after_help = AGENT_HELP)]
    Plan {
        #[command(flatten)]
        agent: AgentArgs,
        /// The whole configuration; - is standard input.
        file: PathBuf,
    },
    /// Put a configuration into force in a running agent.
    #[command(after_help = AGENT_HELP)]
    Apply {
        #[command(flatten)]
        agent: AgentArgs,
        #[command(flatten)]
        change: ChangeArgs,
        /// The whole configuration; - is standard input.
        file: PathBuf,
    },
    /// Put an earlier configuration into force again.
    #[command(after_help = AGENT_HELP)]
    Rollback {
        #[command(flatten)]
        agent: AgentArgs,
        #[command(flatten)]
        change: ChangeArgs,
        /// Its generation; the one before what is in force if none is given.
        generation: Option<u64>,
    },
    /// Make a running agent read its configuration again, as SIGHUP does, and say what came of it.
    #[command(after_help = AGENT_HELP)]
    Reload(AgentArgs),
    /// Write the configuration of another agent anew as one of this agent.
    #[command(after_help = CONVERT_HELP)]
    Convert(ConvertArgs),
    /// Look at and change the stored file positions (the agent must not be running).
    #[command(after_help = CHECKPOINTS_HELP)]
    Checkpoints {
        #[command(subcommand)]
        command: CheckpointsCommand,
    },
}

/// How the agent runs.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Read the configuration again when its files change.
    #[arg(long)]
    pub watch: bool,
    /// Do not start with the newest configuration that was in force if the given one is refused.
    #[arg(long)]
    pub no_last_good: bool,
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// A configuration file, or a `file:`, `env:` or `yaml:` URI. Repeat to merge several.
    #[arg(long = "config", value_name = "SOURCE")]
    pub config: Vec<String>,
    /// Set one value, e.g. `--set processors.batch.timeout=2s`. Applied after all files.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Accepted with a warning, as the collector's command line has it: there are no gates here.
    #[arg(
        long = "feature-gates",
        value_name = "LIST",
        allow_hyphen_values = true
    )]
    pub feature_gates: Vec<String>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
/// How secrets are printed.
pub enum Mode {
    /// As `[REDACTED]`.
    Redacted,
    /// As they are.
    Unredacted,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
/// Output format of `print-config`.
pub enum Format {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// Arguments of `try`.
#[derive(Args, Clone, Debug)]
pub struct TryArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A file with lines; - is standard input, which is the default where something is piped in.
    #[arg(long, value_name = "FILE", conflicts_with = "entries")]
    pub input: Option<PathBuf>,
    /// A file with records as JSON; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub entries: Option<PathBuf>,
    /// The pipeline, if there are several that carry logs.
    #[arg(long, value_name = "ID")]
    pub pipeline: Option<String>,
    /// Its receiver, if there are several that take in lines.
    #[arg(long, value_name = "ID")]
    pub receiver: Option<String>,
    /// The path that the lines are taken to have been read from, for attributes such as log.file.path;
    /// that of the input unless it is given.
    #[arg(long, value_name = "PATH", conflicts_with = "entries")]
    pub path: Option<PathBuf>,
    /// Records at most; what is behind them is not read.
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub limit: u64,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t = TrialFormat::Table)]
    pub format: TrialFormat,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
/// How `try` shows records.
pub enum TrialFormat {
    /// For people.
    Table,
    /// A line of JSON for each record.
    Json,
}

/// Arguments of `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How long logs are written; Ctrl-C ends it earlier.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Deliver to a real Loki (its base or push URL) instead of the endpoint in this process.
    #[arg(long, value_name = "URL")]
    pub loki: Option<String>,
    /// Number of containers that write logs.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub files: u32,
    /// Lines per second over all containers; 0 = as fast as they can.
    #[arg(long, default_value_t = 200_000)]
    pub rate: u64,
}

/// Arguments of `up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// Deliver to this Loki (its base or push URL) instead of the endpoint in this process.
    #[arg(long, value_name = "URL", conflicts_with = "base")]
    pub loki: Option<String>,
    /// The socket of the Docker Engine whose containers are tailed, or off. /var/run/docker.sock unless pods are tailed.
    #[arg(long, value_name = "SOCKET|off")]
    pub docker: Option<String>,
    /// Tail the pods of a node of Kubernetes: on, off, a kubeconfig file, or auto: if this runs in a pod that knows its node.
    #[arg(long, value_name = "auto|on|off|FILE", default_value = "auto")]
    pub kubernetes: String,
    /// The node whose pods are tailed, instead of K8S_NODE_NAME.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the node has the logs of its pods.
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs: PathBuf,
    /// Tail only containers that ask for it: label or annotation tailwater.io/logs: "true".
    #[arg(long)]
    pub opt_in: bool,
    /// A tenant that containers may choose: label or annotation tailwater.io/tenant. Repeatable.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Vec<String>,
    /// Files to tail: a path, or a pattern with * ? [ { and **. Repeatable.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub files: Vec<String>,
    /// How what is there is learned.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Discovery::EventStream)]
    pub discovery: Discovery,
    /// Where positions and the registry are kept, instead of TAILWATER_STATE_DIR.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// What happens to the records: a configuration that what is found is put in front of.
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[value(rename_all = "snake_case")]
/// How what is there is learned.
pub enum Discovery {
    /// By asking every second.
    SimplePolling,
    /// By being told.
    EventStream,
    /// By being told, and by asking every 30 seconds.
    Hybrid,
}

impl From<Discovery> for tailwater_control_plane::discovery::Mode {
    fn from(mode: Discovery) -> Self {
        match mode {
            Discovery::SimplePolling => Self::SimplePolling,
            Discovery::EventStream => Self::EventStream,
            Discovery::Hybrid => Self::Hybrid,
        }
    }
}

/// Arguments of `convert`.
#[derive(Args, Clone, Debug)]
pub struct ConvertArgs {
    /// Whose configuration it is.
    #[arg(long, value_enum)]
    pub from: ConvertFrom,
    /// The configuration; - is standard input.
    pub file: PathBuf,
    /// A new file for what is written, instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
/// Whose configuration is converted.
pub enum ConvertFrom {
    /// Promtail.
    Promtail,
    /// Fluent Bit, in its classic form or as YAML.
    FluentBit,
}

#[derive(Subcommand)]
enum CheckpointsCommand {
    /// Print every stored position.
    List(StateArgs),
    /// Print every stored position as JSON lines.
    Export(StateArgs),
    /// Forget stored positions: the files are read anew according to `start_at`.
    Reset {
        #[command(flatten)]
        state: StateArgs,
        /// Only positions of files whose path contains this text.
        #[arg(long)]
        path: Option<String>,
        /// Do it; without this, only say what would be forgotten.
        #[arg(long)]
        yes: bool,
    },
    /// Take over positions, so that a migration repeats no line.
    Import {
        #[command(flatten)]
        state: StateArgs,
        /// Whose positions they are.
        #[arg(long, value_enum)]
        from: ImportFrom,
        /// The collector's file_storage file or directory, or Promtail's positions.yaml.
        file: PathBuf,
        /// Id of the receiver that will go on with them, as the configuration spells it.
        #[arg(long, default_value = "file_log")]
        receiver: String,
        /// Glob of files to find the collector's (content-identified) files among. Repeatable.
        #[arg(long)]
        include: Vec<String>,
    },
}

/// Which agent, and how its answer is printed.
#[derive(Args, Clone, Debug, Default)]
pub struct AgentArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which agent.
#[derive(Args, Clone, Debug, Default)]
pub struct PlaceArgs {
    /// The socket of the agent, service::admin::socket.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["endpoint", "token_file"])]
    pub socket: Option<PathBuf>,
    /// The address of the agent, service::admin::endpoint, as http://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The file with the token for the address.
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
}

/// Which files of an agent.
#[derive(Args, Clone, Debug, Default)]
pub struct FilesArgs {
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Only those of this receiver.
    #[arg(long, value_name = "ID")]
    pub receiver: Option<String>,
    /// Only paths that begin like this, or, with * ? [ or {, that match it as a whole.
    #[arg(long, value_name = "PREFIX|GLOB")]
    pub path: Option<String>,
    /// As they were found, or those that are furthest behind first.
    #[arg(long, value_enum, default_value_t = Order::Found)]
    pub order: Order,
    /// So many at most.
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub limit: Option<usize>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
/// In which order files are listed.
pub enum Order {
    /// As they were found.
    #[default]
    Found,
    /// The one that is furthest behind first; at most 10,000.
    Lag,
}

/// How an agent is watched.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    pub interval: f64,
    /// Print one look as text and end, as where the output is no terminal.
    #[arg(long)]
    pub once: bool,
}

fn parse_interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.2..=60.0).contains(s));
    seconds.ok_or_else(|| "a number from 0.2 to 60".to_owned())
}

/// Of which agent an archive is made, and where it goes.
#[derive(Args, Clone, Debug)]
pub struct DiagnosticsArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The new file; - is standard output. tailwater-diagnostics-TIME.tar.gz here if none is given.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|n| *n > 0);
    limit.ok_or_else(|| "a number from 1 on".to_owned())
}

/// What of the records that pass is shown.
#[derive(Args, Clone, Debug)]
pub struct TapArgs {
    /// The node: its key as `graph` has it, or its id if that is enough.
    pub node: String,
    /// What comes to it; the default where something does.
    #[arg(long, conflicts_with = "after")]
    pub before: bool,
    /// What leaves it; the default of a receiver.
    #[arg(long)]
    pub after: bool,
    /// Records per second at most, on average.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rate: u32,
    /// Records in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub limit: Option<u64>,
    /// How long at most.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
}

/// How a change is asked for.
#[derive(Args, Clone, Debug)]
pub struct ChangeArgs {
    /// Only if this generation is in force.
    #[arg(long, value_name = "N")]
    pub if_generation: Option<u64>,
    /// Only say what would change.
    #[arg(long)]
    pub dry_run: bool,
}

/// Where state is.
#[derive(Args, Clone, Debug)]
pub struct StateArgs {
    /// The state directory, as in TAILWATER_STATE_DIR; defaults to the one the agent would use.
    #[arg(long, value_name = "DIR", conflicts_with = "storage_dir")]
    pub state_dir: Option<PathBuf>,
    /// The `directory` of the file_storage extension that the receiver names.
    #[arg(long, value_name = "DIR")]
    pub storage_dir: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
/// Whose positions are imported.
pub enum ImportFrom {
    /// The OpenTelemetry Collector's file_storage.
    Collector,
    /// Promtail's positions file.
    Promtail,
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => commands::run::run(&cli.run),
        Some(Command::Run(config)) => commands::run::run(&config),
        Some(Command::Validate { config, explain }) => {
            commands::inspect::validate(&config, explain)
        }
        Some(Command::Try(args)) => commands::trial::try_out(&args),
        Some(Command::Components {
            reference,
            json_schema,
        }) => match reference {
            _ if json_schema => commands::inspect::json_schema(),
            Some(kind) => commands::inspect::reference(kind.as_deref()),
            None => commands::inspect::components(),
        },
        Some(Command::PrintConfig {
            config,
            mode,
            format,
            validate,
        }) => commands::inspect::print_config(&config, mode, format, validate),
        Some(Command::Demo(args)) => commands::demo::demo(&args),
        Some(Command::Up(args)) => commands::up::up(&args),
        Some(Command::Status(agent)) => commands::admin::status(&agent),
        Some(Command::Graph(agent)) => commands::admin::graph(&agent),
        Some(Command::Files(args)) => commands::files::files(&args),
        Some(Command::Top(args)) => commands::top::top(&args),
        Some(Command::Diagnostics(args)) => commands::diagnostics::diagnostics(&args),
        Some(Command::Tap { agent, tap }) => commands::tap::tap(&agent, &tap),
        Some(Command::Plan { agent, file }) => commands::admin::plan(&agent, &file),
        Some(Command::Apply {
            agent,
            change,
            file,
        }) => commands::admin::apply(&agent, &file, &change),
        Some(Command::Rollback {
            agent,
            change,
            generation,
        }) => commands::admin::rollback(&agent, generation, &change),
        Some(Command::Reload(agent)) => commands::admin::reload(&agent),
        Some(Command::Convert(args)) => commands::convert::convert(&args),
        Some(Command::Checkpoints { command }) => match command {
            CheckpointsCommand::List(state) => commands::checkpoints::list(&state),
            CheckpointsCommand::Export(state) => commands::checkpoints::export(&state),
            CheckpointsCommand::Reset { state, path, yes } => {
                commands::checkpoints::reset(&state, path.as_deref(), yes)
            }
            CheckpointsCommand::Import {
                state,
                from,
                file,
                receiver,
                include,
            } => commands::checkpoints::import(&state, from, &file, &receiver, &include),
        },
    };
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever read the output has seen enough: `checkpoints list | head`.
        Err(e) if is_broken_pipe(&e) => ExitCode::from(exit::OK),
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(exit::ERROR)
        }
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    let io = e.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
