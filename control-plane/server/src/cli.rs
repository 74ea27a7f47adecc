//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The control plane of a fleet of agents.
#[derive(Debug, Parser)]
#[command(name = "tailwater-control", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// See [`Cli`].
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves agents and people.
    Serve(Box<ServeArgs>),
    /// Lists agents, or shows one with what it ran from when.
    Agents {
        /// Which one; all without it.
        uid: Option<String>,
        /// Of this group only.
        #[arg(long)]
        group: Option<String>,
        /// How to reach the server.
        #[command(flatten)]
        to: ToArgs,
    },
    /// Lists what agents read, or shows how a source came where it is.
    Sources(SourcesArgs),
    /// Lists groups and what is rolled out, or shows one with its newest steps.
    Rollouts {
        /// Which one; all without it.
        group: Option<String>,
        /// How to reach the server.
        #[command(flatten)]
        to: ToArgs,
    },
    /// Has a pipeline rolled out to a group.
    Apply {
        /// YAML that is laid over the configuration of each agent.
        file: PathBuf,
        /// To whom.
        #[arg(long, default_value = "default")]
        group: String,
        /// How to reach the server.
        #[command(flatten)]
        to: ToArgs,
    },
    /// Lets the canary begin.
    Approve(WishArgs),
    /// Does not let it begin.
    Deny(WishArgs),
    /// Goes no further; it is looked at all the same, and taken back if it is bad.
    Pause(WishArgs),
    /// Goes on.
    Resume(WishArgs),
    /// Takes back what is being rolled out, and never offers it again.
    Rollback(WishArgs),
    /// Takes back what is being rolled out; it may be applied again.
    Abort(WishArgs),
    /// Rolls out again after too many rollbacks.
    Unfreeze(WishArgs),
    /// Shows who did what, the newest first.
    Audit {
        /// How to reach the server.
        #[command(flatten)]
        to: ToArgs,
    },
    /// Creates or updates in a Grafana: data sources for Loki and Prometheus, a folder, and the dashboards of this version.
    Grafana(GrafanaArgs),
    /// The authority that certificates of agents come from.
    Ca {
        /// What to do.
        #[command(subcommand)]
        command: CaCommand,
    },
    /// Lists certificates of agents, and requests that wait.
    Certificates {
        /// How to reach the server.
        #[command(flatten)]
        to: ToArgs,
    },
    /// All certificates of an agent stop to count, at once.
    Revoke(CertificateArgs),
    /// An agent gets the certificate that it waits for.
    Admit(CertificateArgs),
    /// Makes a signing key unless the file is there, and prints its public half for `public_keys` of agents.
    Key {
        /// Where it is.
        file: PathBuf,
    },
    /// Shows the newest version of an offer, or has the next one be above another.
    Version {
        /// The next version is above this one: the way on after the database was restored.
        #[arg(long)]
        raise: Option<u64>,
        /// How to reach the server.
        #[command(flatten)]
        to: ToArgs,
    },
    /// Makes a token: prints a line for the file of tokens.
    Token {
        /// agent, viewer, operator or admin.
        #[arg(long)]
        role: String,
        /// Of whom.
        #[arg(long)]
        name: String,
    },
}

/// See [`Command::Ca`].
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Makes it in a state directory, and prints its certificate.
    Init {
        /// The one of `serve`.
        #[arg(long)]
        state: PathBuf,
    },
    /// Makes a certificate for the listener of `serve`, for agents that trust the authority.
    Server {
        /// Where the authority is.
        #[arg(long)]
        state: PathBuf,
        /// Names or addresses under which agents reach it.
        #[arg(long, required = true)]
        host: Vec<String>,
        /// How long it lasts.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
        /// Where to write it.
        #[arg(long)]
        cert: PathBuf,
        /// Where to write its key.
        #[arg(long)]
        key: PathBuf,
    },
}

/// See [`Command::Sources`].
#[derive(Debug, Args)]
pub struct SourcesArgs {
    /// Of this agent only.
    #[arg(long)]
    pub agent: Option<String>,
    /// docker, file, static or kubernetes.
    #[arg(long)]
    pub kind: Option<String>,
    /// starting, live, draining or gone; all but those that are gone without it.
    #[arg(long)]
    pub state: Option<String>,
    /// With this in the id, a path or the value of a label.
    #[arg(long)]
    pub contains: Option<String>,
    /// So many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
    /// How the source of this id came where it is, instead.
    #[arg(long, requires = "agent", conflicts_with_all = ["kind", "state", "contains"])]
    pub history: Option<String>,
    /// How to reach the server.
    #[command(flatten)]
    pub to: ToArgs,
}

/// See [`Command::Grafana`].
#[derive(Debug, Args)]
pub struct GrafanaArgs {
    /// Where Grafana is, with the path it is served below if there is one.
    #[arg(long)]
    pub url: String,
    /// A file with the token of a service account alone; or the variable TAILWATER_GRAFANA_TOKEN.
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// Whom to trust instead of the system's authorities, PEM.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Where Grafana reaches Loki; no data source is made for it without.
    #[arg(long)]
    pub loki: Option<String>,
    /// Where Grafana reaches Prometheus; no data source is made for it without.
    #[arg(long)]
    pub prometheus: Option<String>,
    /// The folder of the dashboards.
    #[arg(long, default_value = "Tailwater")]
    pub folder: String,
    /// How long an answer may take.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: u64,
    /// Says what it would do, and changes nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Of the certificates of an agent.
#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// Which agent.
    pub uid: String,
    /// How to reach the server.
    #[command(flatten)]
    pub to: ToArgs,
}

/// Of what is being rolled out to a group.
#[derive(Debug, Args)]
pub struct WishArgs {
    /// Which group.
    #[arg(long, default_value = "default")]
    pub group: String,
    /// How to reach the server.
    #[command(flatten)]
    pub to: ToArgs,
}

/// How to reach the server.
#[derive(Debug, Args)]
pub struct ToArgs {
    /// Where it listens.
    #[arg(long, default_value = "http://127.0.0.1:4320")]
    pub server: String,
    /// A file with the token alone; or the variable TAILWATER_CONTROL_TOKEN.
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// Whom to trust instead of the system's authorities, PEM.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Prints the answer as it came, JSON.
    #[arg(long)]
    pub json: bool,
}

/// How it serves.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen, for agents (at /v1/opamp) and people. Another address than a loopback one needs TLS and
    /// tokens.
    #[arg(long, default_value = "127.0.0.1:4320")]
    pub listen: std::net::SocketAddr,
    /// Where states, configurations and the audit log are kept; with --database, the authority of certificates alone.
    #[arg(long)]
    pub state: PathBuf,
    /// Where all of that is kept instead, for several control planes: `postgres://user@host:port/name`. One of them leads,
    /// the others stand by. TLS as `sslmode` says; without it, hosts that are not on this machine need TLS.
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// A file with the password of the database alone; or the variable PGPASSWORD.
    #[arg(long, requires = "database", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
    /// Over what events of sources go.
    #[command(flatten)]
    pub bus: BusArgs,
    /// Chain of certificates of the listener, PEM.
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Agents have to show a certificate signed by one of these, PEM.
    #[arg(long, requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Certificates of agents that do not count any more, PEM.
    #[arg(long, requires = "client_ca")]
    pub client_crl: Option<PathBuf>,
    /// Each agent needs a certificate of its own, and gets it here: by the authority that `tailwater-control ca init`
    /// made in --state. Who has none may ask for one, with a token of the role agent.
    #[arg(long, requires = "tls_cert", conflicts_with = "client_ca")]
    pub issue_certificates: bool,
    /// How long a certificate of an agent lasts.
    #[arg(long, default_value = "720h", value_parser = duration)]
    pub certificate_lifetime: u64,
    /// The first certificate of an agent waits for `tailwater-control admit`.
    #[arg(long, requires = "issue_certificates")]
    pub approve_certificates: bool,
    /// How often agents with a certificate of ours are to say something.
    #[arg(long, default_value = "30s", value_parser = heartbeat)]
    pub heartbeat_interval: u64,
    /// Tokens, a line each: role, name, token.
    #[arg(long)]
    pub tokens: Option<PathBuf>,
    /// What is offered is signed by this key, PKCS#8 in PEM form; `tailwater-control key` makes one.
    #[arg(long)]
    pub signing_key: Option<PathBuf>,
    /// How long agents have to come back to a new process, or to another one that leads now, before it goes on with what was
    /// under way: longer than they wait between two attempts.
    #[arg(long, default_value = "35s", value_parser = duration)]
    pub return_timeout: u64,
    /// Connections at the same time.
    #[arg(long, default_value_t = 12_000)]
    pub connections_max: usize,
    /// Agents that are connected or known.
    #[arg(long, default_value_t = 10_000)]
    pub agents_max: usize,
    /// Largest message of an agent after decompression, bytes.
    #[arg(long, default_value_t = 4 << 20)]
    pub message_bytes_max: usize,
    /// Tell this Alertmanager what the matter is: its URL, or a file that nobody else may read, with the URL in its
    /// first line and a header in each other one. May be given several times.
    #[arg(long)]
    pub alertmanager: Vec<String>,
    /// Tell this webhook what the matter is, in the form of Alertmanager's: a URL or a file, as of --alertmanager. May
    /// be given several times.
    #[arg(long)]
    pub webhook: Vec<String>,
    /// Look for sample lines in this Loki: a URL or a file, as of --alertmanager. Without it a sample line has arrived
    /// when it is acknowledged.
    #[arg(long)]
    pub loki: Option<String>,
    /// Trust these when an Alertmanager, a webhook, Loki or the bus is spoken to, instead of the system's authorities, PEM.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// How a change is rolled out.
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Over what events of sources go.
#[derive(Debug, Args)]
pub struct BusArgs {
    /// Events of sources go over NATS JetStream instead of the database: `nats://` or `tls://` URLs of its servers with
    /// commas between them, or a file that nobody else may read with them in its first line. Servers that are not on this
    /// machine need TLS.
    #[arg(long, value_name = "URL|FILE")]
    pub bus: Option<String>,
    /// The stream there, which is made unless it is there; a fleet has one of its own.
    #[arg(
        long,
        requires = "bus",
        default_value = "tailwater-events",
        value_name = "NAME"
    )]
    pub bus_stream: String,
    /// Credentials for it, a file as `nsc` makes it; nobody else may read it.
    #[arg(long, requires = "bus", value_name = "FILE")]
    pub bus_credentials: Option<PathBuf>,
    /// A certificate to show there, PEM.
    #[arg(long, requires = "bus", requires = "bus_key", value_name = "FILE")]
    pub bus_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "bus_cert", value_name = "FILE")]
    pub bus_key: Option<PathBuf>,
    /// Servers on other machines are spoken to without TLS: what is sent, passwords too, can be read on the way.
    #[arg(long, requires = "bus")]
    pub bus_without_tls: bool,
}

/// How a change is rolled out, in all groups.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Agents that get a change first.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub canary: u32,
    /// Then so many of a hundred, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "10,50,100", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub waves: Vec<u8>,
    /// The canary has one agent of each value of this attribute first.
    #[arg(long)]
    pub spread_by: Option<String>,
    /// How long each stage is looked at before the next one.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub soak: u64,
    /// So many of a hundred agents of a wave may fail.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub failures_percent_max: u8,
    /// Somebody has to approve a change within this time before any agent is offered it.
    #[arg(long, value_parser = duration)]
    pub approval: Option<u64>,
    /// A change waits for so long for the next one, which takes its place.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub debounce: u64,
    /// How long the past is that agents are compared with.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub baseline: u64,
    /// What is bad has to stay bad for this long.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub confirm: u64,
    /// How often agents under test are looked at.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub poll: u64,
    /// How often all agents are compared with what they should run.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub reconcile: u64,
    /// How often agents under test inject a sample line, where their pipelines have the receiver probe; 0s: never.
    #[arg(long, default_value = "2s", value_parser = probe)]
    pub probe_interval: u64,
    /// So many times the memory and the processor time of before are too much.
    #[arg(long, default_value = "2", value_parser = factor)]
    pub resources_factor: f64,
    /// So many rollbacks within an hour freeze a group.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub freeze_after: u32,
    /// People are told of agents that are not healthy, or do not run what they should, for so long; after half of it those of
    /// them that can be are restarted, once.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub ailing: u64,
    /// How long an agent has to put an offer into force; and again, to come back from one.
    #[arg(long, default_value = "1m", value_parser = duration)]
    pub offer_timeout: u64,
}

/// A duration such as `90s`, in ms.
fn duration(text: &str) -> Result<u64, String> {
    let ns = tailwater_config::parse_duration(text).ok_or("must be a duration such as 90s")?;
    let ms = u64::try_from(ns / 1_000_000).unwrap_or(0);
    match (100..=30 * 24 * 3_600_000).contains(&ms) {
        true => Ok(ms),
        false => Err("must be between 100ms and 720h".to_owned()),
    }
}

/// How often sample lines are injected, ms.
fn probe(text: &str) -> Result<u64, String> {
    let ns = tailwater_config::parse_duration(text).ok_or("must be a duration such as 2s")?;
    match u64::try_from(ns / 1_000_000).unwrap_or(u64::MAX) {
        0 => Ok(0),
        ms if (1_000..=60_000).contains(&ms) => Ok(ms),
        _ => Err("must be between 1s and 1m, or 0s".to_owned()),
    }
}

/// A number of times.
fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (1.0..=1e6).contains(&factor) => Ok(factor),
        _ => Err("must be a number from 1 on".to_owned()),
    }
}

/// A duration of whole seconds that an agent is not taken for silent in.
fn heartbeat(text: &str) -> Result<u64, String> {
    match duration(text)? {
        ms if (1_000..=60_000).contains(&ms) => Ok(ms),
        _ => Err("must be between 1s and 1m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_in_order() {
        Cli::command().debug_assert();
        assert_eq!(duration("90s"), Ok(90_000));
        assert!(duration("5").is_err() && duration("1ms").is_err());
        assert_eq!((probe("0s"), probe("2s")), (Ok(0), Ok(2_000)));
        assert!(probe("500ms").is_err() && probe("2").is_err());
        assert_eq!(factor("1.5"), Ok(1.5));
        assert!(factor("0.5").is_err() && factor("inf").is_err() && factor("x").is_err());
    }
}
