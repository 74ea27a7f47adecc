//! `tailwater demo`: the product at work, with an account of every line at the end.
//!
//! Real parts throughout: containers' log files that rotate, the filelog receiver with the
//! container operator, the processors, the Loki exporter over HTTP. Only the endpoint is inside
//! this process (a stand-in that speaks Loki's push API), and `--loki` replaces it by a real one.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tailwater_pipeline::DropReason;
use tailwater_telemetry::metrics::{Accounting, Snapshot};
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::oracle::{DeliveryOracle, OracleReport};
use tailwater_testkit::tempdir::TempDir;
use tailwater_testkit::writer::kubernetes::{Container, NodeLogs};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Format, LogWriter, Rotation, WriterClock, WriterOptions};

use super::run::{Agent, check, complain};
use crate::cli::{ConfigArgs, DemoArgs, exit};

/// Lines a container writes between two rotations.
const ROTATE_EVERY_LINES: u64 = 20_000;
/// Rotated files kept per container: enough that nothing is deleted before it could be read.
const KEEP: usize = 200;
/// How long deliveries are waited for after the last line was written.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the demo. Exit code 0 only if every line that was written was delivered exactly once.
pub fn demo(args: &DemoArgs) -> Result<u8> {
    let dir = TempDir::new("demo").context("cannot create a temporary directory")?;
    let oracle = DeliveryOracle::new();
    let endpoint = match &args.loki {
        Some(_) => None,
        None => Some(FakeLoki::start(LokiOptions {
            behaviour: LokiBehaviour::permissive(),
            store: StoreMode::CountOnly,
            on_entry: Some(oracle.hook()),
            ..LokiOptions::default()
        })?),
    };
    let url = match (&args.loki, &endpoint) {
        (Some(url), _) => push_url(url),
        (None, Some(fake)) => fake.push_url(),
        (None, None) => unreachable!("one of the two was made above"),
    };
    let config = config(dir.path(), &url);
    let checked = match check(&ConfigArgs {
        config: vec![format!("yaml:{config}")],
        set: Vec::new(),
        feature_gates: Vec::new(),
    }) {
        Ok(checked) => checked,
        Err(errors) => return Ok(complain(&errors)),
    };
    println!(
        "writing: {} containers below {}",
        args.files,
        dir.path().display()
    );
    println!(
        "sending: {url}{}",
        if args.loki.is_none() {
            " (inside this process)"
        } else {
            ""
        }
    );
    let agent = Agent::start(&checked)?;
    let account = Accounting::new(&agent.metrics, "receiver", "filelog", DropReason::NAMES);
    let writers = start_writers(args, dir.path(), &oracle)?;
    let interrupted = on_interrupt()?;
    let begin = Instant::now();
    let mut screen = Screen::new();
    let written = || writers.iter().map(LiveWriter::lines).sum::<u64>();
    while begin.elapsed() < Duration::from_secs(args.seconds)
        && !interrupted.load(Ordering::Acquire)
    {
        std::thread::park_timeout(Duration::from_millis(250));
        screen.show(written(), &account.snapshot());
    }
    for w in writers {
        w.stop().context("a writer failed")?;
    }
    let total = oracle.report().totals.written;
    let end = Instant::now() + SETTLE_TIMEOUT;
    let settled = |s: &Snapshot| s.in_flight.records == 0 && s.read.records >= total;
    while !settled(&account.snapshot()) && Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(50));
        screen.show(total, &account.snapshot());
    }
    let seconds = begin.elapsed().as_secs_f64();
    agent.stop(Duration::from_secs(10), &|| false);
    screen.end();
    let known = endpoint.is_some().then(|| oracle.report());
    Ok(print_account(
        total,
        &account.snapshot(),
        known.as_ref(),
        seconds,
    ))
}

/// Loki's push URL from its base URL or the push URL itself.
fn push_url(url: &str) -> String {
    if url.contains("/loki/api/") {
        return url.to_owned();
    }
    format!("{}/loki/api/v1/push", url.trim_end_matches('/'))
}

fn config(dir: &std::path::Path, url: &str) -> String {
    let dir = dir.display();
    format!(
        "extensions:
  file_storage: {{directory: '{dir}/state', create_directory: true}}
receivers:
  filelog:
    include: ['{dir}/pods/*/*/*.log']
    start_at: beginning
    include_file_path: true
    include_file_name: false
    storage: file_storage
    preserve_trailing_whitespaces: true
    operators:
      - type: container
processors:
  resource:
    attributes:
      - {{key: cluster, value: demo, action: upsert}}
  attributes:
    actions:
      - {{key: logtag, action: delete}}
  batch: {{send_batch_size: 8192, timeout: 200ms}}
exporters:
  loki:
    endpoint: {url}
    labels:
      resource: {{cluster: cluster, namespace: k8s.namespace.name, pod: k8s.pod.name, container: k8s.container.name}}
      attributes: {{stream: log.iostream}}
    structured_metadata: false
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
  pipelines:
    logs: {{receivers: [filelog], processors: [resource, attributes, batch], exporters: [loki]}}
"
    )
}

fn start_writers(
    args: &DemoArgs,
    dir: &std::path::Path,
    oracle: &DeliveryOracle,
) -> Result<Vec<LiveWriter>> {
    let node = NodeLogs::create(dir)?;
    let mut writers = Vec::new();
    for i in 0..args.files {
        let container = Container {
            namespace: format!("team-{}", i % 4),
            pod: format!("shop-{i}"),
            uid: format!("0000{i:04x}-0000-4000-8000-000000000000"),
            name: "web".into(),
            id: format!("{i:064x}"),
            restarts: 0,
        };
        let path = node.add(&container)?;
        let mut options = WriterOptions::new(i, path);
        options.format = Format::Cri;
        options.rotation = Rotation::kubernetes(KEEP);
        options.pad_bytes = 80..=240;
        options.clock = WriterClock::System;
        options.oracle = Some(oracle.clone());
        let lines_per_second = args.rate.div_ceil(u64::from(args.files));
        let live = LiveOptions {
            lines_per_second,
            rotate_every_lines: Some(ROTATE_EVERY_LINES),
            lines_max: None,
        };
        writers.push(LiveWriter::start(LogWriter::create(options)?, live)?);
    }
    Ok(writers)
}

/// True after Ctrl-C or SIGTERM.
fn on_interrupt() -> Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let flag = Arc::new(AtomicBool::new(false));
    let (told, main) = (flag.clone(), std::thread::current());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                let streams = (
                    signal(SignalKind::interrupt()),
                    signal(SignalKind::terminate()),
                );
                let (Ok(mut int), Ok(mut term)) = streams else {
                    return;
                };
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                told.store(true, Ordering::Release);
                main.unpark();
            });
        })?;
    Ok(flag)
}

/// The live line: rewritten in place on a terminal, a line every two seconds elsewhere.
struct Screen {
    terminal: bool,
    last: Instant,
    printed: Instant,
    records: u64,
    bytes: u64,
}

impl Screen {
    fn new() -> Screen {
        let now = Instant::now();
        let terminal = std::io::stdout().is_terminal();
        Screen {
            terminal,
            last: now,
            printed: now,
            records: 0,
            bytes: 0,
        }
    }

    fn show(&mut self, written: u64, s: &Snapshot) {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64();
        let due = if self.terminal { 0.2 } else { 2.0 };
        if now.duration_since(self.printed).as_secs_f64() < due || seconds <= 0.0 {
            return;
        }
        let (records, bytes) = (s.delivered.records, s.delivered.bytes);
        let line = format!(
            "{:>9.0} lines/s  {:>6.1} MB/s  lag {:>8} lines  in flight {:>7}  delivered {:>10}",
            (records - self.records) as f64 / seconds,
            (bytes - self.bytes) as f64 / 1e6 / seconds,
            written.saturating_sub(s.read.records),
            s.in_flight.records,
            records,
        );
        (self.last, self.printed, self.records, self.bytes) = (now, now, records, bytes);
        match self.terminal {
            true => print!("\r{line}"),
            false => println!("{line}"),
        }
        let _ = std::io::stdout().flush();
    }

    fn end(&self) {
        if self.terminal {
            println!();
        }
    }
}

/// Prints the account; 0 if it balances.
fn print_account(total: u64, s: &Snapshot, known: Option<&OracleReport>, seconds: f64) -> u8 {
    println!();
    if let Some(report) = known {
        println!(
            "{:<44} {:>10} {:>10} {:>8}",
            "container", "written", "delivered", "missing"
        );
        for w in report.writers.iter().take(20) {
            let name = w
                .streams
                .first()
                .map_or(String::new(), |s| s.labels.clone());
            let pod = name
                .split("pod=\"")
                .nth(1)
                .and_then(|p| p.split('"').next());
            let name = pod.map_or_else(|| format!("writer {}", w.writer), str::to_owned);
            let name = format!("{name} ({} files)", w.files.len());
            println!(
                "{name:<44} {:>10} {:>10} {:>8}",
                w.written, w.delivered, w.missing
            );
        }
        if report.writers.len() > 20 {
            println!("... and {} more", report.writers.len() - 20);
        }
        println!();
    }
    let filtered: u64 = s.filtered.iter().map(|(_, a)| a.records).sum();
    let dropped: u64 = s.dropped.iter().map(|(_, a)| a.records).sum();
    println!("written    {total:>12} lines");
    println!("read       {:>12}", s.read.records);
    println!("delivered  {:>12}", s.delivered.records);
    println!("filtered   {filtered:>12}");
    println!("dropped    {dropped:>12}");
    for (reason, amount) in s.dropped.iter().filter(|(_, a)| a.records > 0) {
        println!("  {reason:<20} {:>12}", amount.records);
    }
    println!("in flight  {:>12}", s.in_flight.records);
    let mut ok = s.check().is_ok()
        && s.in_flight.records == 0
        && s.delivered.records + filtered + dropped == total;
    if let Some(report) = known {
        let t = &report.totals;
        println!(
            "at the endpoint: {} of {total} lines, {} missing, {} repeated, {} out of order, {} damaged",
            t.delivered, t.missing, t.duplicates_after_dedup, t.out_of_order, t.corrupt
        );
        ok &= report.is_faultless() && t.delivered == total;
    }
    let rate = s.delivered.bytes as f64 / 1e6 / seconds;
    println!(
        "{:.1} s, {:.0} lines/s, {rate:.1} MB/s",
        seconds,
        total as f64 / seconds
    );
    println!(
        "{}",
        if ok {
            "every line is accounted for"
        } else {
            "THE ACCOUNT DOES NOT BALANCE"
        }
    );
    if ok { exit::OK } else { exit::ERROR }
}
