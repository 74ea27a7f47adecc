//! OTLP in, OTLP out: MB of requests, before compression, per second of CPU of the program between.
//!
//! A floor that only receives and sends, our binary, our binary while it changes each item, and any
//! other agent. CPU is user and system time of the program's process. All programs of a case run at the
//! same time and get their share in turns, so that what else the machine does falls on each alike;
//! medians of the turns are printed. Senders and destination are in this process and not in the
//! figure. Every item has arrived, which is counted, and was answered with success.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use serde_json::json;
use tailwater_benches::otlp::destination::Destination;
use tailwater_benches::otlp::floor;
use tailwater_benches::otlp::load::{Load, Sender};
use tailwater_benches::otlp::programs::{Program, Way};
use tailwater_benches::otlp::requests::request;
use tailwater_benches::otlp::wire::Carrier;
use tailwater_benches::process::Process;
use tailwater_benches::report::{median, mib, table};
use tailwater_pdata::Signal;

/// What was answered with success arrives within this time.
const ARRIVAL_TIME: Duration = Duration::from_secs(60);

/// MB per second of CPU of OTLP in and out, as ratios to a floor and to other agents.
#[derive(Parser)]
struct Options {
    /// The agent's release binary.
    #[arg(long, required_unless_present = "floor_at")]
    bin: Option<PathBuf>,
    /// Another agent's binary; takes part in every case.
    #[arg(long, requires = "peer_config")]
    peer: Option<PathBuf>,
    /// The other agent's arguments, separated by blanks; ${CONFIG} is replaced.
    #[arg(long, allow_hyphen_values = true, default_value = "--config ${CONFIG}")]
    peer_args: String,
    /// The other agent's configuration; ${LISTEN} and ${SINK} (host:port), ${CARRIER} (http or
    /// grpc), ${COMPRESSION} (none or gzip), ${SIGNAL} and ${STATE} (a folder) are replaced.
    #[arg(long)]
    peer_config: Option<PathBuf>,
    /// Which signals.
    #[arg(long, value_delimiter = ',', default_value = "logs,metrics,traces", value_parser = signal)]
    signals: Vec<Signal>,
    /// Which protocols.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "http,grpc")]
    carriers: Vec<Carrier>,
    /// Whether requests are compressed, in and out.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "none,gzip")]
    compressions: Vec<Compression>,
    /// Items of a request: 512 is what SDKs send at most, 8192 what a collector does.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
    items: u64,
    /// Requests at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    in_flight: u64,
    /// MB of requests, before compression, that each program gets in a turn; a fifth of that where they
    /// are compressed.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    mb: u64,
    /// Turns; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Print a JSON object per case instead of a table.
    #[arg(long)]
    json: bool,
    /// Be the floor program (used by the benchmark itself).
    #[arg(long, hide = true, requires = "floor_to")]
    floor_at: Option<SocketAddr>,
    /// Where the floor program sends to.
    #[arg(long, hide = true)]
    floor_to: Option<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Compression {
    None,
    Gzip,
}

fn signal(text: &str) -> Result<Signal, String> {
    let known = Signal::ALL.into_iter().find(|s| s.as_str() == text);
    known.ok_or_else(|| "logs, metrics or traces".to_owned())
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let (Some(at), Some(to)) = (options.floor_at, options.floor_to) {
        let zip = options.compressions.contains(&Compression::Gzip);
        return floor::run(at, to, options.carriers[0], zip);
    }
    let programs = programs(&options)?;
    let mut rows = Vec::new();
    for &carrier in &options.carriers {
        for &compression in &options.compressions {
            for &signal in &options.signals {
                let case = Case {
                    signal,
                    carrier,
                    compression,
                };
                let figures = case.measure(&options, &programs);
                let figures = figures.with_context(|| case.name())?;
                if options.json {
                    println!("{}", case.as_json(&options, &figures));
                } else {
                    rows.extend(case.rows(&figures));
                }
            }
        }
    }
    if !options.json {
        println!(
            "medians of {} turns; {} items a request, {} requests at a time; every item arrived",
            options.runs, options.items, options.in_flight
        );
        print!("{}", table(&HEAD, &rows));
    }
    Ok(())
}

/// The floor, our binary in two ways, the other agent.
fn programs(options: &Options) -> Result<Vec<Program>> {
    let mut programs = vec![Program::Floor(std::env::current_exe()?)];
    if let Some(bin) = &options.bin {
        let bin = std::path::absolute(bin)?;
        programs.push(Program::Tailwater(bin.clone()));
        programs.push(Program::Touching(bin));
    }
    if let (Some(bin), Some(config)) = (&options.peer, &options.peer_config) {
        let args = options.peer_args.split_whitespace().map(str::to_owned);
        programs.push(Program::Peer {
            bin: std::path::absolute(bin)?,
            args: args.collect(),
            config: config.clone(),
        });
    }
    Ok(programs)
}

#[derive(Clone, Copy)]
struct Case {
    signal: Signal,
    carrier: Carrier,
    compression: Compression,
}

/// A program that runs.
struct Running {
    name: String,
    process: Process,
    sender: Sender,
    destination: Destination,
    /// MB per second of CPU, by turn.
    rates: Vec<f64>,
    /// MB per second of the clock.
    speeds: Vec<f64>,
    peak_bytes: u64,
}

impl Case {
    fn name(&self) -> String {
        let zip = match self.compression {
            Compression::None => "",
            Compression::Gzip => ", gzip",
        };
        format!("{} over {}{zip}", self.signal, self.carrier.name())
    }

    /// Runs all programs in turns.
    fn measure(&self, options: &Options, programs: &[Program]) -> Result<Vec<Running>> {
        let work = tempfile::tempdir()?;
        let plain = Bytes::from(request(self.signal, options.items));
        let zip = self.compression == Compression::Gzip;
        let bytes = options.mb * 1_000_000 / if zip { 5 } else { 1 };
        let requests = bytes / plain.len() as u64 + 1;
        let mut all = Vec::new();
        for (i, program) in programs.iter().enumerate() {
            let destination = Destination::start(self.carrier)?;
            let way = Way {
                signal: self.signal,
                carrier: self.carrier,
                zip,
                to: destination.address(),
            };
            let state = work.path().join(i.to_string());
            std::fs::create_dir(&state)?;
            let (process, at) = program.start(&way, &state)?;
            let load = Load {
                carrier: self.carrier,
                path: self.carrier.path(self.signal),
                plain: plain.clone(),
                zip,
                in_flight: options.in_flight as usize,
            };
            all.push(Running {
                name: program.name(),
                process,
                sender: Sender::new(at, load)?,
                destination,
                rates: Vec::new(),
                speeds: Vec::new(),
                peak_bytes: 0,
            });
        }
        for turn in 0..=options.runs {
            for one in &mut all {
                // The first turn warms up.
                let requests = if turn == 0 {
                    requests / 10 + 1
                } else {
                    requests
                };
                let mb = (requests * plain.len() as u64) as f64 / 1e6;
                one.turn(requests, options.items, mb, turn > 0)
                    .with_context(|| one.name.clone())?;
            }
        }
        Ok(all)
    }

    fn rows(&self, figures: &[Running]) -> Vec<Vec<String>> {
        let row = |one: &Running| {
            vec![
                self.name(),
                one.name.clone(),
                format!("{:.0}", median(one.rates.iter().copied())),
                format!("{:.2}", ratio(figures, one)),
                format!("{:.0}", median(one.speeds.iter().copied())),
                mib(one.peak_bytes),
            ]
        };
        figures.iter().map(row).collect()
    }

    fn as_json(&self, options: &Options, figures: &[Running]) -> serde_json::Value {
        let program = |one: &Running| {
            json!({
                "name": one.name,
                "mb_per_cpu_second": median(one.rates.iter().copied()),
                "floor_to_it": ratio(figures, one),
                "mb_per_second": median(one.speeds.iter().copied()),
                "resident_peak_bytes": one.peak_bytes,
            })
        };
        json!({
            "case": self.name(), "runs": options.runs, "items": options.items,
            "programs": figures.iter().map(program).collect::<Vec<_>>(),
        })
    }
}

/// How many times as much the floor gets done, in the median of turns.
fn ratio(figures: &[Running], one: &Running) -> f64 {
    let floor = figures[0].rates.iter();
    median(floor.zip(&one.rates).map(|(floor, own)| floor / own))
}

impl Running {
    fn turn(&mut self, requests: u64, items: u64, mb: f64, counts: bool) -> Result<()> {
        let wanted = self.destination.items() + requests * items;
        let (before, begin) = (self.process.usage()?, Instant::now());
        self.sender.send(requests)?;
        // Other agents answer before they deliver.
        while self.destination.items() < wanted {
            ensure!(
                begin.elapsed() < ARRIVAL_TIME,
                "{} of {wanted} items arrived",
                self.destination.items()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        let (after, took) = (self.process.usage()?, begin.elapsed());
        let arrived = self.destination.items();
        ensure!(arrived == wanted, "{arrived} items arrived, not {wanted}");
        if counts {
            // The kernel counts CPU in steps of 10 ms.
            let cpu = (after.cpu_seconds() - before.cpu_seconds()).max(0.01);
            self.rates.push(mb / cpu);
            self.speeds.push(mb / took.as_secs_f64());
        }
        self.peak_bytes = after.resident_peak_bytes;
        Ok(())
    }
}

const HEAD: [&str; 6] = [
    "case",
    "program",
    "MB per CPU s",
    "floor / it",
    "MB/s",
    "peak RSS MiB",
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Options::command().debug_assert();
    }
}
