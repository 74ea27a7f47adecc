//! An hour of an agent's life: many logs at a fixed rate, all of them rotated every few seconds,
//! and a sink that fails one request in twenty. Nothing may be lost, nothing may grow.
//!
//! Ends with an error if a line is missing, shown twice, damaged, invented or out of order, or if the
//! agent gave one up. How flat memory, descriptors and threads are is stated, not judged.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::{Value, json};
use tailwater_benches::process::{Process, Usage};
use tailwater_benches::report::median;
use tailwater_benches::soak::load::{KEPT, Load, LoadOptions, is_copied, now_text};
use tailwater_benches::soak::plot::{Panel, svg};
use tailwater_benches::soak::record::section;
use tailwater_benches::soak::sample::{self, Sample};
use tailwater_benches::soak::trend::{Trend, fit};
use tailwater_benches::soak::watch::{Watch, Watcher, failed};
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour};
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::oracle::{DeliveryOracle, OracleReport};

/// Longest wait for the agent to be there.
const START_MAX: Duration = Duration::from_secs(30);
/// How long the last lines may take once nothing is written any more.
const LAST_LINES: Duration = Duration::from_secs(180);

/// Lines of a log whose repeats are told apart: minutes of them, far more than a retry takes.
const LINES_REMEMBERED: u64 = 65_536;

const MIB: f64 = 1_048_576.0;

/// Figures of the agent's own that must be 0 at the end.
const ZEROES: [&str; 5] = [
    "tailwater_records_dropped",
    "tailwater_records_overdrawn",
    "tailwater_files_abandoned_bytes",
    "tailwater_tokens_lost",
    "tailwater_panics",
];

/// Many logs rotated all the time, a sink that fails, an agent that is watched.
#[derive(Parser)]
struct Options {
    /// The agent's release binary.
    #[arg(long)]
    bin: PathBuf,
    /// How long lines are written.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Minutes at the start that are left out of the trends; a sixth of the run if not given.
    #[arg(long)]
    warm_up: Option<f64>,
    /// Number of logs.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    files: u32,
    /// MB (10^6 bytes) per second over all logs.
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
    /// Mean time between two rotations of a log, in seconds.
    #[arg(long, default_value_t = 5.0)]
    rotate: f64,
    /// Share of requests that the sink fails, in percent.
    #[arg(long, default_value_t = 5.0)]
    fail: f64,
    /// Copy and cut one log in six instead of renaming it.
    #[arg(long)]
    copytruncate: bool,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for `soak.svg`, `soak.json` and `soak.md`.
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
    /// File for what was seen each second.
    #[arg(long, default_value = "target/soak/soak.csv")]
    table: PathBuf,
    /// What the binary was built from, for the record.
    #[arg(long, default_value = "unknown")]
    commit: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let of_table = options.table.parent().unwrap_or(Path::new("."));
    for dir in [&*options.out, of_table] {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let work = tempfile::Builder::new()
        .prefix("tailwater-soak-")
        .tempdir()?;
    let run = Run::start(&options, work.path())?;
    let result = run.finish();
    if result.is_err() {
        // What a failure needs to be understood would go with the folder.
        let kept = work.keep();
        eprintln!(
            "logs, state and output of the agent are kept in {}",
            kept.display()
        );
    }
    result
}

struct Run<'a> {
    options: &'a Options,
    begin: String,
    oracle: DeliveryOracle,
    loki: FakeLoki,
    metrics: SocketAddr,
    load: Load,
    process: Process,
}

impl<'a> Run<'a> {
    fn start(options: &'a Options, work: &Path) -> Result<Run<'a>> {
        let oracle = DeliveryOracle::remembering(LINES_REMEMBERED);
        let each = options.fail / 100.0 / 5.0;
        let loki = FakeLoki::start(LokiOptions {
            // Loki's own limits but for rates, whose refusals would come on top of the faults.
            behaviour: LokiBehaviour {
                ingestion_rate_bytes: None,
                stream_rate_bytes: None,
                ..LokiBehaviour::default()
            },
            faults: Faults {
                reset_before: each,
                status_429: each,
                status_500: each,
                status_503: each,
                reset_after: each,
                ..Faults::default()
            },
            store: StoreMode::CountOnly,
            seed: options.seed,
            on_entry: Some(oracle.hook()),
            requests_kept_max: 0,
            ..LokiOptions::default()
        })?;
        let (logs, state) = (work.join("logs"), work.join("state"));
        fs::create_dir(&state)?;
        let of_load = LoadOptions {
            files: options.files,
            bytes_per_second: (options.rate * 1e6) as u64,
            rotate_every: Duration::from_secs_f64(options.rotate),
            copytruncate: options.copytruncate,
            seed: options.seed,
        };
        let metrics = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let file = work.join("agent.yaml");
        let config = config(&logs, &loki.push_url(), metrics.port());
        fs::write(&file, serde_json::to_string_pretty(&config)?)?;
        let mut command = Command::new(std::path::absolute(&options.bin)?);
        command.arg("--config").arg(&file).current_dir(work);
        command.env("TAILWATER_STATE_DIR", &state);
        fs::create_dir(&logs)?;
        let process = Process::start(&mut command, &work.join("output.txt"))?;
        // What rotated away before the agent was there is not its to read.
        let waited = Instant::now();
        while TcpStream::connect(metrics).is_err() {
            if waited.elapsed() > START_MAX {
                bail!("the agent did not start within {START_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let load = Load::start(&logs, of_load, &oracle)?;
        Ok(Run {
            options,
            begin: now_text(),
            oracle,
            loki,
            metrics,
            load,
            process,
        })
    }

    fn finish(mut self) -> Result<()> {
        let samples = self.watch()?;
        let rotations = self.load.rotations();
        self.load.stop()?;
        let waited = Instant::now();
        while !self.oracle.is_complete() && waited.elapsed() < LAST_LINES {
            std::thread::sleep(Duration::from_millis(50));
        }
        let last_lines = waited.elapsed();
        let figures = zeroes(self.metrics)?;
        let usage = self.process.usage()?;
        self.process.terminate()?;
        let stop = self.process.wait(Duration::from_secs(60));
        let report = self.oracle.report();
        let account = account(&report, &self.loki, self.options.copytruncate);
        let mut record = record(self.options, &samples, &account, &usage);
        record["begin"] = self.begin.clone().into();
        record["rotations"] = rotations.into();
        record["last_lines_seconds"] = rounded(last_lines.as_secs_f64()).into();
        record["agent_must_be_zero"] = figures.clone();
        write_out(self.options, &samples, &record)?;
        println!("{}", serde_json::to_string_pretty(&record)?);
        judge(&report, &figures)?;
        stop.context("the agent did not stop as it should")
    }

    /// Samples until the time is over, written to disk as they come.
    fn watch(&mut self) -> Result<Vec<Sample>> {
        let path = &self.options.table;
        let mut table = fs::File::create(path).with_context(|| path.display().to_string())?;
        table.write_all(sample::head().as_bytes())?;
        let (mut watcher, mut samples) = (Watcher::default(), Vec::new());
        let end = self.options.minutes * 60.0;
        while samples.last().is_none_or(|s: &Sample| s.seconds < end) {
            if !self.process.is_running() {
                bail!("the agent has ended");
            }
            if !self.load.is_running() {
                bail!("the logs are no longer written");
            }
            let on = Watch {
                process: &self.process,
                load: &self.load,
                oracle: &self.oracle,
                loki: &self.loki,
            };
            let sample = watcher.second(&on)?;
            table.write_all(sample::row(&sample).as_bytes())?;
            samples.push(sample);
            if samples.len() % 60 == 0 {
                progress(&sample);
            }
        }
        Ok(samples)
    }
}

fn progress(s: &Sample) {
    println!(
        "{:5.1} min: {:.1} MiB resident, {} descriptors, {} threads, {:.1} s of CPU, {} lines \
         written, {} of them under way, lag {:.1} s",
        s.seconds / 60.0,
        s.resident_bytes / MIB,
        s.descriptors,
        s.threads,
        s.cpu_seconds,
        s.lines_written,
        s.lines_written - s.lines_delivered,
        s.lag_seconds
    );
}

/// Plain and container logs, a stream per log, everything else as it is by default.
fn config(logs: &Path, push: &str, metrics: u16) -> Value {
    let receiver = |dir: &str, operators: Value| {
        json!({
            "include": [logs.join(dir).join("*/*.log")],
            "start_at": "beginning",
            "preserve_trailing_whitespaces": true,
            "operators": operators,
        })
    };
    let container = json!([
        {"type": "container", "format": "containerd", "add_metadata_from_filepath": false},
    ]);
    let reader = json!({"prometheus": {"host": "127.0.0.1", "port": metrics}});
    json!({
        "receivers": {
            "file_log/plain": receiver("plain", json!([])),
            "file_log/containers": receiver("containers", container),
        },
        "processors": {"batch": {"timeout": "1s"}},
        "exporters": {"loki": {
            "endpoint": push,
            "labels": {
                "static": {"job": "soak"},
                "attributes": {"file": "log.file.name", "stream": "log.iostream"},
            },
            "structured_metadata": false,
        }},
        "service": {
            "telemetry": {
                "metrics": {"level": "detailed", "readers": [{"pull": {"exporter": reader}}]},
                "logs": {"level": "warn"},
            },
            "pipelines": {"logs": {
                "receivers": ["file_log/plain", "file_log/containers"],
                "processors": ["batch"],
                "exporters": ["loki"],
            }},
        },
    })
}

/// What the agent says of [`ZEROES`].
fn zeroes(metrics: SocketAddr) -> Result<Value> {
    let mut stream = TcpStream::connect(metrics).context("the agent's metrics")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(16 << 20).read_to_string(&mut text)?;
    let sum = |name: &str| {
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let value = rest
                .starts_with([' ', '{'])
                .then(|| rest.rsplit(' ').next())??;
            value.parse::<f64>().ok()
        };
        text.lines().filter_map(of).sum::<f64>()
    };
    if sum("tailwater_records_read") == 0.0 {
        bail!("the agent's metrics say nothing of records");
    }
    Ok(ZEROES
        .iter()
        .map(|name| ((*name).to_owned(), Value::from(sum(name))))
        .collect())
}

/// What became of the lines.
fn account(report: &OracleReport, loki: &FakeLoki, copytruncate: bool) -> Value {
    let (t, stats) = (&report.totals, loki.stats());
    let [lost, twice, order] = by_copytruncate(report);
    json!({
        "copytruncate": copytruncate.then(|| json!({
            "lost": lost, "shown_twice": twice, "out_of_order": order,
        })),
        "written": t.written,
        "delivered": t.delivered,
        "lost": t.missing,
        "shown_twice": t.duplicates_after_dedup + t.duplicates_unclassified,
        "sent_again": t.duplicates_raw,
        "out_of_order": t.out_of_order,
        "damaged": t.corrupt,
        "invented": t.phantom + report.foreign + report.unknown,
        "requests": stats.pushes,
        "requests_failed": failed(&stats),
        "answers": stats.push_responses.iter().map(|(k, v)| (k.to_string(), (*v).into()))
            .collect::<serde_json::Map<_, _>>(),
        "unanswered": stats.pushes_unanswered,
        "streams": stats.streams_active,
    })
}

/// Everything a reader of the run wants to know.
fn record(options: &Options, samples: &[Sample], account: &Value, usage: &Usage) -> Value {
    let from = warm_up(options) * 60.0;
    let steady: Vec<&Sample> = samples.iter().filter(|s| s.seconds >= from).collect();
    let most = |of: fn(&Sample) -> f64| samples.iter().map(of).fold(0.0, f64::max);
    let middle = |of: fn(&Sample) -> f64| median(steady.iter().map(|s| of(s)));
    let slope = |of: fn(&Sample) -> f64, unit: f64| {
        trend(samples, from, of).map(|t| {
            json!({
                "per_hour": rounded(t.slope * 3600.0 / unit),
                "error_per_hour": rounded(t.slope_error * 3600.0 / unit),
                "first": rounded(t.first / unit),
                "last": rounded(t.last / unit),
            })
        })
    };
    let (last, first) = (samples.last().copied().unwrap_or_default(), steady.first());
    let cpu = first.map_or(0.0, |f| {
        (last.cpu_seconds - f.cpu_seconds) / (last.seconds - f.seconds).max(1.0)
    });
    json!({
        "command": command(options),
        "commit": options.commit,
        "minutes": rounded(last.seconds / 60.0),
        "files": options.files,
        "rotated_files_kept": KEPT,
        "bytes_per_second": rounded(last.bytes_written / last.seconds.max(1.0)),
        "lines_per_second": rounded(last.lines_written / last.seconds.max(1.0)),
        "account": account,
        "trends_from_minute": warm_up(options),
        "resident_mib": slope(|s| s.resident_bytes, MIB),
        "descriptors": slope(|s| s.descriptors, 1.0),
        "threads": slope(|s| s.threads, 1.0),
        "resident_mib_median": rounded(middle(|s| s.resident_bytes) / MIB),
        "resident_mib_peak": rounded(usage.resident_peak_bytes as f64 / MIB),
        "descriptors_most": most(|s| s.descriptors),
        "threads_most": most(|s| s.threads),
        "cpu_percent_of_a_core": rounded(cpu * 100.0),
        "lag_seconds_median": rounded(middle(|s| s.lag_seconds)),
        "lag_seconds_most": rounded(most(|s| s.lag_seconds)),
        "lag_bytes_median": middle(|s| s.lag_bytes).round(),
        "lag_bytes_most": most(|s| s.lag_bytes).round(),
    })
}

/// The command that repeats the run.
fn command(options: &Options) -> String {
    let copy = match options.copytruncate {
        true => " --copytruncate",
        false => "",
    };
    format!(
        "cargo xtask soak --minutes {} -- --files {} --rate {} --rotate {} --fail {} --seed {}{copy}",
        options.minutes, options.files, options.rate, options.rotate, options.fail, options.seed
    )
}

/// Minutes that are left out of the trends.
fn warm_up(options: &Options) -> f64 {
    options.warm_up.unwrap_or(options.minutes / 6.0)
}

fn trend(samples: &[Sample], from: f64, of: fn(&Sample) -> f64) -> Option<Trend> {
    let steady = samples.iter().filter(|s| s.seconds >= from);
    fit(&steady.map(|s| (s.seconds, of(s))).collect::<Vec<_>>())
}

/// To three decimals.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn write_out(options: &Options, samples: &[Sample], record: &Value) -> Result<()> {
    let put = |name: &str, text: String| {
        let path = options.out.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    put("soak.json", serde_json::to_string_pretty(record)? + "\n")?;
    put("soak.svg", plot(options, samples, record))?;
    put("soak.md", section(record))
}

fn plot(options: &Options, samples: &[Sample], record: &Value) -> String {
    let points = |of: fn(&Sample) -> f64, unit: f64| -> Vec<(f64, f64)> {
        samples.iter().map(|s| (s.seconds, of(s) / unit)).collect()
    };
    let from = warm_up(options) * 60.0;
    let trended = |name: &str, of: fn(&Sample) -> f64, unit: f64, of_unit: &str| {
        let points = points(of, unit);
        let steady: Vec<_> = points.iter().copied().filter(|p| p.0 >= from).collect();
        let trend = fit(&steady).map(|t| {
            let note = format!("{:+.2} {of_unit} per hour", t.slope * 3600.0);
            (from, t, note)
        });
        Panel {
            name: name.into(),
            points,
            trend,
        }
    };
    let rate = |name: &str, of: fn(&Sample) -> f64, unit: f64| Panel {
        name: name.into(),
        points: samples
            .windows(2)
            .map(|w| {
                let time = (w[1].seconds - w[0].seconds).max(0.1);
                (w[1].seconds, (of(&w[1]) - of(&w[0])) / time / unit)
            })
            .collect(),
        trend: None,
    };
    let lag = Panel {
        name: "Age of the oldest line under way, seconds".into(),
        points: points(|s| s.lag_seconds, 1.0),
        trend: None,
    };
    let panels = [
        trended("Resident memory, MiB", |s| s.resident_bytes, MIB, "MiB"),
        trended("Open descriptors", |s| s.descriptors, 1.0, ""),
        trended("Threads", |s| s.threads, 1.0, ""),
        rate("CPU, percent of a core", |s| s.cpu_seconds, 0.01),
        lag,
        rate("Lines delivered per second", |s| s.lines_delivered, 1.0),
    ];
    let text = format!(
        "{} lines written, {} delivered, {} lost, {} shown twice; {} rotations; {} of {} requests \
         failed",
        record["account"]["written"],
        record["account"]["delivered"],
        record["account"]["lost"],
        record["account"]["shown_twice"],
        record["rotations"],
        record["account"]["requests_failed"],
        record["account"]["requests"],
    );
    let title = format!(
        "Soak: {} logs, {} MB/s, each rotated every {} s",
        options.files, options.rate, options.rotate
    );
    svg(&title, &text, &panels)
}

/// Of the logs that are copied and cut: lines lost, shown twice and out of order.
fn by_copytruncate(report: &OracleReport) -> [u64; 3] {
    let copied = report.writers.iter().filter(|w| is_copied(w.writer));
    copied.fold([0; 3], |[lost, twice, order], w| {
        let repeated = w.duplicates_after_dedup + w.duplicates_unclassified;
        [lost + w.missing, twice + repeated, order + w.out_of_order]
    })
}

/// Whether every line arrived once, whole and in order, and the agent's account agrees.
fn judge(report: &OracleReport, figures: &Value) -> Result<()> {
    let bad = report
        .writers
        .iter()
        .filter(|w| w.missing + w.duplicates_after_dedup + w.out_of_order > 0);
    for w in bad.take(20) {
        println!(
            "writer {}: missing {:?}, shown twice {}, out of order {}",
            w.writer, w.missing_ranges, w.duplicates_after_dedup, w.out_of_order
        );
    }
    if !report.is_faultless() || report.totals.out_of_order > 0 {
        bail!(
            "lines are missing, repeated, damaged or out of order: {:?}",
            report.totals
        );
    }
    let counts = figures.as_object().into_iter().flatten();
    let bad: Vec<String> = counts
        .filter(|(_, value)| value.as_f64() != Some(0.0))
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    if !bad.is_empty() {
        bail!("the agent says: {}", bad.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Options::command().debug_assert();
    }
}
