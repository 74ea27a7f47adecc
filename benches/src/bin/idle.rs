//! What the agent costs when little happens, and how it holds under a limit of memory:
//! 10,000 idle files, time to the first line, a backlog of 2 GiB in 96 MiB.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use tailwater_benches::agent::{Agent, Place, Run, Work, watch};
use tailwater_benches::content::{Format, generate};
use tailwater_benches::memory_limit::MemoryLimit;
use tailwater_benches::process::Process;
use tailwater_benches::report::{median, mib};
use tailwater_benches::sink::Sink;

/// Between the last delivery and the measurement of an idle agent.
const SETTLE: Duration = Duration::from_secs(5);

/// Idle files, time to the first line, a backlog in little memory.
#[derive(Parser)]
struct Options {
    /// The agent's release binary.
    #[arg(long)]
    bin: PathBuf,
    /// Number of idle files.
    #[arg(long, default_value_t = 10_000)]
    idle_files: u64,
    /// How long the idle agent is watched.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    idle_seconds: u64,
    /// MiB of container logs for the backlog.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// The limit of memory for the backlog, in MiB.
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u64).range(1..))]
    memory_mib: u64,
    /// Runs where a median is taken.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let work = tempfile::Builder::new()
        .prefix("tailwater-bench-")
        .tempdir()?;
    let bench = Bench {
        agent: Agent::Tailwater {
            bin: std::path::absolute(&options.bin)?,
            set: Vec::new(),
        },
        bin: std::path::absolute(&options.bin)?,
        sink: Sink::start()?,
        work: work.path(),
        options: &options,
    };
    bench.idle().context("idle files")?;
    bench.first_line().context("first line")?;
    bench.backlog().context("backlog under a limit of memory")
}

struct Bench<'a> {
    bin: PathBuf,
    agent: Agent,
    sink: Sink,
    work: &'a Path,
    options: &'a Options,
}

impl Bench<'_> {
    fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.join(name);
        std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }

    fn idle(&self) -> Result<()> {
        let (logs, state) = (self.dir("idle")?, self.dir("idle-state")?);
        let content = generate(&logs, Format::Plain, self.options.idle_files, 1)?;
        self.sink.reset();
        let place = Place {
            logs: &logs,
            state: &state,
            format: Format::Plain,
            work: Work::Pass,
        };
        let command = &mut self.agent.command(&place, &self.sink)?;
        let mut process = Process::start(command, &state.join("output.txt"))?;
        let run = watch(&mut process, content, &self.sink)?;
        std::thread::sleep(SETTLE);
        let (before, start) = (process.usage()?, Instant::now());
        std::thread::sleep(Duration::from_secs(self.options.idle_seconds));
        let (after, took) = (process.usage()?, start.elapsed());
        let cpu = after.cpu_seconds() - before.cpu_seconds();
        println!(
            "{} idle files: {:.2} % of a core over {:.0} s, RSS {} MiB (peak {} MiB); all first \
             lines were there {:.2} s after the start",
            content.files,
            cpu / took.as_secs_f64() * 100.0,
            took.as_secs_f64(),
            mib(after.resident_bytes),
            mib(after.resident_peak_bytes),
            run.wall.as_secs_f64()
        );
        Ok(())
    }

    fn first_line(&self) -> Result<()> {
        let logs = self.dir("first")?;
        let content = generate(&logs, Format::Plain, 1, 1)?;
        // A batch that waits for more lines would be all that is measured.
        let set = vec!["processors.batch.timeout=0s".to_owned()];
        let agent = Agent::Tailwater {
            bin: self.bin.clone(),
            set,
        };
        let mut first = Vec::new();
        for i in 0..self.options.runs {
            let state = self.dir(&format!("first-{i}"))?;
            let place = Place {
                logs: &logs,
                state: &state,
                format: Format::Plain,
                work: Work::Pass,
            };
            first.push(agent.run(&place, content, &self.sink)?.first.as_secs_f64() * 1e3);
        }
        let runs = first.len();
        println!(
            "start to first delivered line: {:.0} ms (median of {runs}, without batching)",
            median(first)
        );
        Ok(())
    }

    fn backlog(&self) -> Result<()> {
        let limit = match MemoryLimit::new(self.options.memory_mib << 20) {
            Ok(limit) => limit,
            Err(e) => {
                println!("skipped: backlog under a limit of memory: {e:#}");
                return Ok(());
            }
        };
        let logs = &self.dir("backlog-logs")?;
        let content = generate(logs, Format::Cri, 1, self.options.mib << 20)?;
        let state = self.dir("backlog")?;
        let place = Place {
            logs,
            state: &state,
            format: Format::Cri,
            work: Work::Pass,
        };
        self.sink.reset();
        let mut command = limit.wrap(&self.agent.command(&place, &self.sink)?);
        let mut process = Process::start(&mut command, &state.join("output.txt"))?;
        let run = watch(&mut process, content, &self.sink).and_then(Run::exact)?;
        println!(
            "backlog of {} MiB under a limit of {} MiB: delivered, once and whole, in {:.1} s, \
             peak RSS {} MiB",
            self.options.mib,
            self.options.memory_mib,
            run.wall.as_secs_f64(),
            mib(run.usage.resident_peak_bytes)
        );
        drop(process);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Options::command().debug_assert();
    }
}
