//! Throughput per second of CPU: a floor, our binary, any other agent; over files made here.
//!
//! `cargo xtask bench` builds the release binary and runs this with `--bin`. CPU is user and system
//! time of the agent's process at the moment the last message arrived; the sink is in this process
//! and not in the figure. Files are in the page cache. The programs take turns, each run starts
//! without state, and medians are printed. On a shared machine trust CPU time, not wall time.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;
use tailwater_benches::agent::{Agent, Place, Run};
use tailwater_benches::content::{Content, Format, generate};
use tailwater_benches::floor;
use tailwater_benches::report::{median, mib, table};
use tailwater_benches::sink::Sink;

/// Throughput of the agent, as ratios to a floor and to other agents.
#[derive(Parser)]
struct Options {
    /// The agent's release binary.
    #[arg(long, required_unless_present = "floor_of")]
    bin: Option<PathBuf>,
    /// Another agent's binary.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// The other agent's arguments, separated by blanks. ${DIR} (the folder of *.log files),
    /// ${STATE} (a folder of its own), ${SINK} (host:port) and ${CONFIG} are replaced.
    #[arg(long, allow_hyphen_values = true, default_value = "--config ${CONFIG}")]
    peer_args: String,
    /// The other agent's configuration with the same placeholders; the result is ${CONFIG}.
    #[arg(long)]
    peer_config: Option<PathBuf>,
    /// MiB of files to read, over all files.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// Number of files.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    files: u64,
    /// What is in the files.
    #[arg(long, value_enum, default_value = "cri")]
    format: Format,
    /// Runs of each program; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where to make the files; the default is the folder for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Be the floor program over this folder (used by the benchmark itself).
    #[arg(long, hide = true, requires = "floor_to")]
    floor_of: Option<PathBuf>,
    /// Where the floor program delivers to.
    #[arg(long, hide = true)]
    floor_to: Option<SocketAddr>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let (Some(dir), Some(sink)) = (&options.floor_of, options.floor_to) {
        floor::run(dir, options.format, sink)?;
        // Stay to be measured, as an agent does, until this process is ended.
        loop {
            std::thread::park();
        }
    }
    bench(&options)
}

fn bench(options: &Options) -> Result<()> {
    let base = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new()
        .prefix("tailwater-bench-")
        .tempdir_in(base)?;
    let logs = work.path().join("logs");
    std::fs::create_dir(&logs)?;
    let bytes = (options.mib << 20).div_ceil(options.files);
    let content = generate(&logs, options.format, options.files, bytes)?;
    let sink = Sink::start()?;
    let mut agents = vec![Agent::Floor(std::env::current_exe()?)];
    agents.extend(options.bin.clone().map(|bin| Agent::Tailwater {
        bin,
        set: Vec::new(),
    }));
    agents.extend(options.peer.clone().map(|bin| {
        Agent::Peer {
            bin,
            args: options
                .peer_args
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            config: options.peer_config.clone(),
        }
    }));
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); agents.len()];
    for turn in 0..options.runs {
        for (i, (agent, runs)) in agents.iter().zip(&mut runs).enumerate() {
            let name = agent.name();
            let state = work.path().join(format!("state-{i}-{turn}"));
            std::fs::create_dir(&state)?;
            let place = Place {
                logs: &logs,
                state: &state,
                format: options.format,
            };
            let run = agent
                .run(&place, content, &sink)
                .with_context(|| name.clone())?;
            eprintln!(
                "run {}: {name}: {:.2} s CPU, {:.2} s",
                turn + 1,
                run.usage.cpu_seconds(),
                run.wall.as_secs_f64()
            );
            runs.push(run);
        }
    }
    let figures: Vec<Figures> = runs.iter().map(|r| Figures::of(r, content)).collect();
    if options.json {
        println!("{}", as_json(options, content, &agents, &figures));
    } else {
        print(options, content, &agents, &figures);
    }
    Ok(())
}

/// Medians of one program.
struct Figures {
    cpu_seconds: f64,
    system_seconds: f64,
    wall_seconds: f64,
    mb_per_cpu_second: f64,
    lines_per_second: f64,
    lines_per_cpu_second: f64,
    resident_peak_bytes: u64,
    wire_bytes: u64,
}

impl Figures {
    fn of(runs: &[Run], content: Content) -> Figures {
        let of = |f: &dyn Fn(&Run) -> f64| median(runs.iter().map(f));
        // The kernel counts CPU in steps of 10 ms; a run that shows none took less than one.
        let cpu_seconds = of(&|r| r.usage.cpu_seconds().max(0.01));
        let wall_seconds = of(&|r| r.wall.as_secs_f64());
        let lines = content.messages as f64;
        Figures {
            cpu_seconds,
            system_seconds: of(&|r| r.usage.system_seconds),
            wall_seconds,
            mb_per_cpu_second: content.file_bytes as f64 / 1e6 / cpu_seconds,
            lines_per_second: lines / wall_seconds,
            lines_per_cpu_second: lines / cpu_seconds,
            resident_peak_bytes: of(&|r| r.usage.resident_peak_bytes as f64) as u64,
            wire_bytes: of(&|r| r.arrived.wire_bytes as f64) as u64,
        }
    }
}

/// Throughput of our binary divided by that of each other program.
fn ratios(agents: &[Agent], figures: &[Figures]) -> Vec<(String, f64)> {
    let is_ours = |a: &Agent| matches!(a, Agent::Tailwater { .. });
    let Some(ours) = agents.iter().position(is_ours) else {
        return Vec::new();
    };
    let rate = |i: usize| figures[i].mb_per_cpu_second;
    let others = (0..agents.len()).filter(|&i| i != ours);
    others
        .map(|i| (agents[i].name(), rate(ours) / rate(i)))
        .collect()
}

fn print(options: &Options, content: Content, agents: &[Agent], figures: &[Figures]) {
    println!(
        "{} MB in {} files, {} lines, {:?}; medians of {} runs; every line arrived, once and whole",
        content.file_bytes / 1_000_000,
        content.files,
        content.messages,
        options.format,
        options.runs
    );
    let head = [
        "program",
        "MB per CPU s",
        "lines/s",
        "lines per CPU s",
        "CPU s",
        "of it system",
        "wall s",
        "peak RSS MiB",
        "sent MB",
    ];
    let row = |(a, f): (&Agent, &Figures)| {
        vec![
            a.name(),
            format!("{:.0}", f.mb_per_cpu_second),
            format!("{:.0}", f.lines_per_second),
            format!("{:.0}", f.lines_per_cpu_second),
            format!("{:.2}", f.cpu_seconds),
            format!("{:.2}", f.system_seconds),
            format!("{:.2}", f.wall_seconds),
            mib(f.resident_peak_bytes),
            format!("{:.1}", f.wire_bytes as f64 / 1e6),
        ]
    };
    print!(
        "{}",
        table(
            &head,
            &agents.iter().zip(figures).map(row).collect::<Vec<_>>()
        )
    );
    for (name, ratio) in ratios(agents, figures) {
        println!("tailwater / {name}: {ratio:.2} (MB per CPU second)");
    }
}

fn as_json(
    options: &Options,
    content: Content,
    agents: &[Agent],
    figures: &[Figures],
) -> serde_json::Value {
    let program = |(a, f): (&Agent, &Figures)| {
        let bin = match a {
            Agent::Floor(_) => Path::new("floor"),
            Agent::Tailwater { bin, .. } | Agent::Peer { bin, .. } => bin,
        };
        json!({
            "name": a.name(), "bin": bin, "cpu_seconds": f.cpu_seconds,
            "system_seconds": f.system_seconds, "wall_seconds": f.wall_seconds,
            "mb_per_cpu_second": f.mb_per_cpu_second, "lines_per_second": f.lines_per_second,
            "lines_per_cpu_second": f.lines_per_cpu_second,
            "resident_peak_bytes": f.resident_peak_bytes, "wire_bytes": f.wire_bytes,
        })
    };
    let ratios = ratios(agents, figures)
        .into_iter()
        .map(|(name, r)| (name, json!(r)));
    json!({
        "format": format!("{:?}", options.format).to_lowercase(), "runs": options.runs,
        "files": content.files, "file_bytes": content.file_bytes, "lines": content.messages,
        "programs": agents.iter().zip(figures).map(program).collect::<Vec<_>>(),
        "tailwater_to": ratios.collect::<serde_json::Map<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Options::command().debug_assert();
    }
}
