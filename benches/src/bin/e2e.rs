//! Throughput per second of CPU: a floor, our binary, any other agent; over files made here.
//!
//! `cargo xtask bench` builds the release binary and runs this with `--bin`. CPU is user and system
//! time of the agent's process at the moment the last message arrived; the sink is in this process
//! and not in the figure. Files are in the page cache. The programs take turns, each run starts
//! without state, and medians are printed. On a shared machine trust CPU time, not wall time.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde_json::json;
use tailwater_benches::agent::{Agent, Place, Run, Work};
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
    /// Another agent's binary; takes part in every case.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// The other agent's arguments, separated by blanks. ${DIR} (the folder of *.log files),
    /// ${STATE} (a folder of its own), ${SINK} (host:port) and ${CONFIG} are replaced.
    #[arg(long, allow_hyphen_values = true, default_value = "--config ${CONFIG}")]
    peer_args: String,
    /// The other agent's configuration with the same placeholders; the result is ${CONFIG}.
    #[arg(long)]
    peer_config: Option<PathBuf>,
    /// What to run.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "cri,plain,many,json,ottl,json-line,ottl-line"
    )]
    cases: Vec<Case>,
    /// MiB of files to read in each case, over all files.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// Runs of each program; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where to make the files; the default is the folder for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print a JSON object per case instead of a table.
    #[arg(long)]
    json: bool,
    /// Be the floor program over this folder (used by the benchmark itself).
    #[arg(long, hide = true, requires = "floor_to")]
    floor_of: Option<PathBuf>,
    /// Where the floor program delivers to.
    #[arg(long, hide = true)]
    floor_to: Option<SocketAddr>,
    /// What the floor program reads.
    #[arg(long, hide = true, value_enum, default_value = "cri")]
    format: Format,
}

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Case {
    /// One file of container lines.
    Cri,
    /// One file of plain lines.
    Plain,
    /// Files of 1 MiB of container lines.
    Many,
    /// One file of container lines whose messages are parsed from JSON to attributes, all of which
    /// are sent as structured metadata. The floor does not do this: it is the same as for `cri`.
    Json,
    /// The same with three statements of OTTL for each message.
    Ottl,
    /// `json`, but the line alone is sent, as in `cri`: what the parser takes by itself.
    JsonLine,
    /// `ottl`, but the line alone is sent.
    OttlLine,
}

impl Case {
    fn work(self) -> Work {
        match self {
            Case::Cri | Case::Plain | Case::Many => Work::Pass,
            json => Work::Json {
                ottl: matches!(json, Case::Ottl | Case::OttlLine),
                sent: matches!(json, Case::Json | Case::Ottl),
            },
        }
    }

    fn format(self) -> Format {
        match self {
            Case::Plain => Format::Plain,
            _ => Format::Cri,
        }
    }

    fn files(self, mib: u64) -> u64 {
        match self {
            Case::Many => mib,
            _ => 1,
        }
    }

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }
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
    let agents = agents(&options)?;
    let mut rows = Vec::new();
    for &case in &options.cases {
        let (content, runs) =
            measure(&options, case, &agents).with_context(|| format!("case {}", case.name()))?;
        let figures: Vec<Figures> = runs.iter().map(|r| Figures::of(r, content)).collect();
        if options.json {
            println!("{}", as_json(&options, case, content, &agents, &figures));
        } else {
            eprintln!(
                "{}: {} MB in {} files, {} lines",
                case.name(),
                content.file_bytes / 1_000_000,
                content.files,
                content.messages
            );
            rows.extend(table_rows(case, &agents, &figures));
        }
    }
    if !options.json {
        println!("medians of {} runs; every line arrived whole", options.runs);
        print!("{}", table(&HEAD, &rows));
    }
    Ok(())
}

/// The floor, our binary, the other agent.
fn agents(options: &Options) -> Result<Vec<Agent>> {
    let mut agents = vec![Agent::Floor(std::env::current_exe()?)];
    if let Some(bin) = &options.bin {
        agents.push(Agent::Tailwater {
            bin: std::path::absolute(bin)?,
            set: Vec::new(),
        });
    }
    if let Some(bin) = &options.peer {
        agents.push(Agent::Peer {
            bin: std::path::absolute(bin)?,
            args: options
                .peer_args
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            config: options.peer_config.clone(),
        });
    }
    Ok(agents)
}

/// Runs every program of a case in turns.
fn measure(options: &Options, case: Case, agents: &[Agent]) -> Result<(Content, Vec<Vec<Run>>)> {
    let base = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new()
        .prefix("tailwater-bench-")
        .tempdir_in(base)?;
    let logs = work.path().join("logs");
    std::fs::create_dir(&logs)?;
    let files = case.files(options.mib);
    let bytes = (options.mib << 20).div_ceil(files);
    let content = generate(&logs, case.format(), files, bytes)?;
    let sink = Sink::start()?;
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); agents.len()];
    for turn in 0..options.runs {
        for (i, (agent, runs)) in agents.iter().zip(&mut runs).enumerate() {
            let name = agent.name();
            let state = work.path().join(format!("state-{i}-{turn}"));
            std::fs::create_dir(&state)?;
            let place = Place {
                logs: &logs,
                state: &state,
                format: case.format(),
                work: case.work(),
            };
            let run = agent
                .run(&place, content, &sink)
                .with_context(|| name.clone())?;
            eprintln!(
                "{} {}: {name}: {:.2} s CPU, {:.2} s",
                case.name(),
                turn + 1,
                run.usage.cpu_seconds(),
                run.wall.as_secs_f64()
            );
            runs.push(run);
        }
    }
    Ok((content, runs))
}

/// Medians of one program; of what must not be, the most.
struct Figures {
    cpu_seconds: f64,
    user_seconds: f64,
    system_seconds: f64,
    wall_seconds: f64,
    mb_per_cpu_second: f64,
    lines_per_second: f64,
    lines_per_cpu_second: f64,
    resident_peak_bytes: u64,
    wire_bytes: u64,
    missing: u64,
    repeated: u64,
    out_of_order: u64,
}

impl Figures {
    fn of(runs: &[Run], content: Content) -> Figures {
        let of = |f: &dyn Fn(&Run) -> f64| median(runs.iter().map(f));
        let most = |f: &dyn Fn(&Run) -> u64| runs.iter().map(f).max().unwrap_or(0);
        // The kernel counts CPU in steps of 10 ms; a run that shows none took less than one.
        let cpu_seconds = of(&|r| r.usage.cpu_seconds().max(0.01));
        let wall_seconds = of(&|r| r.wall.as_secs_f64());
        let lines = content.messages as f64;
        Figures {
            cpu_seconds,
            user_seconds: of(&|r| r.usage.user_seconds),
            system_seconds: of(&|r| r.usage.system_seconds),
            wall_seconds,
            mb_per_cpu_second: content.file_bytes as f64 / 1e6 / cpu_seconds,
            lines_per_second: lines / wall_seconds,
            lines_per_cpu_second: lines / cpu_seconds,
            resident_peak_bytes: of(&|r| r.usage.resident_peak_bytes as f64) as u64,
            wire_bytes: of(&|r| r.arrived.wire_bytes as f64) as u64,
            missing: most(&|r| content.messages - r.arrived.places.unique),
            repeated: most(&|r| r.arrived.places.repeated),
            out_of_order: most(&|r| r.arrived.places.out_of_order),
        }
    }
}

/// Throughput of our binary, if it took part.
fn ours(agents: &[Agent], figures: &[Figures]) -> Option<f64> {
    let is_ours = |a: &Agent| matches!(a, Agent::Tailwater { .. });
    let i = agents.iter().position(is_ours)?;
    Some(figures[i].mb_per_cpu_second)
}

const HEAD: [&str; 14] = [
    "case",
    "program",
    "MB per CPU s",
    "tailwater / it",
    "lines per CPU s",
    "lines/s",
    "user s",
    "system s",
    "wall s",
    "peak RSS MiB",
    "sent MB",
    "missing",
    "repeated",
    "out of order",
];

fn table_rows(case: Case, agents: &[Agent], figures: &[Figures]) -> Vec<Vec<String>> {
    let ours = ours(agents, figures);
    let row = |(a, f): (&Agent, &Figures)| {
        vec![
            case.name(),
            a.name(),
            format!("{:.0}", f.mb_per_cpu_second),
            ours.map_or("-".into(), |o| format!("{:.2}", o / f.mb_per_cpu_second)),
            format!("{:.0}", f.lines_per_cpu_second),
            format!("{:.0}", f.lines_per_second),
            format!("{:.2}", f.user_seconds),
            format!("{:.2}", f.system_seconds),
            format!("{:.2}", f.wall_seconds),
            mib(f.resident_peak_bytes),
            format!("{:.1}", f.wire_bytes as f64 / 1e6),
            f.missing.to_string(),
            f.repeated.to_string(),
            f.out_of_order.to_string(),
        ]
    };
    agents.iter().zip(figures).map(row).collect()
}

fn as_json(
    options: &Options,
    case: Case,
    content: Content,
    agents: &[Agent],
    figures: &[Figures],
) -> serde_json::Value {
    let ours = ours(agents, figures);
    let program = |(a, f): (&Agent, &Figures)| {
        let bin = match a {
            Agent::Floor(_) => Path::new("floor"),
            Agent::Tailwater { bin, .. } | Agent::Peer { bin, .. } => bin,
        };
        json!({
            "name": a.name(), "bin": bin, "cpu_seconds": f.cpu_seconds,
            "user_seconds": f.user_seconds, "system_seconds": f.system_seconds,
            "wall_seconds": f.wall_seconds, "mb_per_cpu_second": f.mb_per_cpu_second,
            "tailwater_to_it": ours.map(|o| o / f.mb_per_cpu_second),
            "lines_per_second": f.lines_per_second,
            "lines_per_cpu_second": f.lines_per_cpu_second,
            "resident_peak_bytes": f.resident_peak_bytes, "wire_bytes": f.wire_bytes,
            "missing": f.missing, "repeated": f.repeated, "out_of_order": f.out_of_order,
        })
    };
    json!({
        "case": case.name(), "runs": options.runs, "files": content.files,
        "file_bytes": content.file_bytes, "lines": content.messages,
        "programs": agents.iter().zip(figures).map(program).collect::<Vec<_>>(),
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
