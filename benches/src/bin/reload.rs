//! Reloads side by side: ours by SIGHUP and by the admin API, and any of the OpenTelemetry Collector, Fluent
//! Bit and Vector that is given by its path. Prints a table: lines lost, lines that came twice, the longest
//! time without a delivery.
//!
//! Each agent tails files that rotate, at a fixed rate, and is told again and again to take another
//! configuration, in its own way. `--bin` and `--peer` name the binaries; who is not given is left out by
//! name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::{Value, json};
use tailwater_benches::reload::peers::{Kind, PEERS, Peer};
use tailwater_benches::reload::run::{Load, Outcome, run};
use tailwater_benches::reload::stand_in::{self, Manner};
use tailwater_benches::report::{mib, table};

/// What reloads cost, agent beside agent.
#[derive(Parser)]
struct Options {
    /// The agent's release binary.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Another agent, as NAME=PATH; NAME is otelcol, fluent-bit or vector.
    #[arg(long, value_parser = named)]
    peer: Vec<(Kind, PathBuf)>,
    /// MB (10^6 bytes) per second over all files.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Files.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    files: u32,
    /// Bytes of a line, about.
    #[arg(long, default_value_t = 500)]
    line_bytes: usize,
    /// Seconds between two rotations of a file.
    #[arg(long, default_value_t = 5.0)]
    rotate: f64,
    /// Rotated files that are kept of each.
    #[arg(long, default_value_t = 10)]
    keep: usize,
    /// Seconds of writing before the first reload.
    #[arg(long, default_value_t = 10.0)]
    calm: f64,
    /// Seconds of reloads.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Milliseconds from one reload to the next.
    #[arg(long, default_value_t = 1_000)]
    every: u64,
    /// Print a JSON object per agent instead of a table.
    #[arg(long)]
    json: bool,
    /// Be the agent that the judge is tested with, over this folder (used by tests).
    #[arg(
        long,
        hide = true,
        requires = "stand_in_to",
        requires = "stand_in_control"
    )]
    stand_in: Option<PathBuf>,
    /// Where that one delivers to.
    #[arg(long, hide = true)]
    stand_in_to: Option<SocketAddr>,
    /// Where that one is told to reload.
    #[arg(long, hide = true)]
    stand_in_control: Option<SocketAddr>,
    /// What that one does then.
    #[arg(long, hide = true, value_enum, default_value = "sound")]
    stand_in_manner: Manner,
}

/// `NAME=PATH`.
fn named(text: &str) -> Result<(Kind, PathBuf), String> {
    let names = PEERS.map(|(name, _)| name).join(", ");
    let (name, path) = text
        .split_once('=')
        .ok_or(format!("is to be NAME=PATH, NAME one of {names}"))?;
    let known = PEERS.iter().find(|(known, _)| *known == name);
    let (_, kind) = known.ok_or(format!("{name:?} is none of {names}"))?;
    Ok((*kind, path.into()))
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let (Some(dir), Some(to), Some(control)) = (
        &options.stand_in,
        options.stand_in_to,
        options.stand_in_control,
    ) {
        return stand_in::run(dir, to, control, options.stand_in_manner);
    }
    let peers = peers(&options)?;
    let load = Load {
        bytes_per_second: (options.rate * 1e6) as u64,
        files: options.files,
        line_bytes: options.line_bytes,
        rotate: Duration::from_secs_f64(options.rotate),
        keep: options.keep,
        calm: Duration::from_secs_f64(options.calm),
        time: Duration::from_secs_f64(options.seconds),
        every: Duration::from_millis(options.every),
    };
    let mut rows = Vec::new();
    for peer in &peers {
        let work = tempfile::Builder::new()
            .prefix("tailwater-reload-")
            .tempdir()?;
        eprintln!("{} ...", peer.name());
        let outcome = run(peer, &load, work.path())?;
        if let Some(failure) = &outcome.failure {
            eprintln!(
                "{}: {} of its reloads failed, first: {failure}",
                peer.name(),
                outcome.failed
            );
        }
        match options.json {
            true => println!("{}", as_json(peer, &outcome)),
            false => rows.push(row(peer, &outcome)),
        }
    }
    if !options.json {
        print!("{}", table(&HEAD, &rows));
        println!(
            "\n{} MB/s of lines of {} bytes in {} files, rotated every {} s; a reload every {} ms for {} s",
            options.rate,
            options.line_bytes,
            options.files,
            options.rotate,
            options.every,
            options.seconds
        );
    }
    Ok(())
}

/// Who takes part; who does not is said.
fn peers(options: &Options) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    match &options.bin {
        Some(bin) => {
            for kind in [Kind::TailwaterSighup, Kind::TailwaterPut] {
                peers.push(Peer::new(kind, bin)?);
            }
        }
        None => eprintln!("left out: tailwater (give it by --bin PATH)"),
    }
    for (name, kind) in PEERS {
        let given = options.peer.iter().filter(|(k, _)| *k == kind);
        let before = peers.len();
        for (_, bin) in given {
            peers.push(Peer::new(kind, bin).with_context(|| name.to_owned())?);
        }
        if peers.len() == before {
            eprintln!("left out: {name} (give it by --peer {name}=PATH)");
        }
    }
    if peers.is_empty() {
        bail!("there is nobody to run");
    }
    Ok(peers)
}

const HEAD: [&str; 11] = [
    "agent",
    "reloads",
    "failed",
    "lines",
    "lost",
    "twice",
    "damaged",
    "gap before, ms",
    "longest gap, ms",
    "CPU, s",
    "peak RSS, MiB",
];

fn row(peer: &Peer, o: &Outcome) -> Vec<String> {
    let name = match o.died {
        true => format!("{} (it ended)", peer.name()),
        false => peer.name(),
    };
    vec![
        name,
        o.reloads.to_string(),
        o.failed.to_string(),
        o.written.to_string(),
        o.lost.to_string(),
        o.repeated.to_string(),
        o.damaged.to_string(),
        o.gap_calm.as_millis().to_string(),
        o.gap.as_millis().to_string(),
        format!("{:.1}", o.usage.cpu_seconds()),
        mib(o.usage.resident_peak_bytes),
    ]
}

fn as_json(peer: &Peer, o: &Outcome) -> Value {
    json!({
        "agent": peer.name(),
        "reloads": o.reloads,
        "reloads_failed": o.failed,
        "failure": o.failure,
        "ended": o.died,
        "lines": o.written,
        "megabytes": o.megabytes,
        "lost": o.lost,
        "repeated": o.repeated,
        "damaged": o.damaged,
        "gap_before_ms": o.gap_calm.as_millis() as u64,
        "gap_ms": o.gap.as_millis() as u64,
        "cpu_seconds": o.usage.cpu_seconds(),
        "resident_peak_bytes": o.usage.resident_peak_bytes,
    })
}
