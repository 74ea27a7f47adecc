//! `tailwater demo`: the product at work, with an account of every line at the end.
//!
//! Real parts throughout: containers' log files that rotate, the filelog receiver with the
//! container operator, the processors, the Loki exporter over HTTP. Only the endpoint is inside
//! this process (a stand-in that speaks Loki's push API), and `--loki` replaces it by a real one.

mod account;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tailwater_pipeline::DropReason;
use tailwater_telemetry::metrics::{Accounting, Snapshot};
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::oracle::DeliveryOracle;
use tailwater_testkit::tempdir::TempDir;
use tailwater_testkit::writer::kubernetes::{Container, NodeLogs};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Format, LogWriter, Rotation, WriterClock, WriterOptions};

use account::Account;

use super::check::{check, complain};
use crate::cli::{ConfigArgs, DemoArgs, exit};
use crate::control::Control;
use crate::sandbox::Sandbox;
use crate::signals::Signals;
use crate::supervisor::Agent;

/// Lines a container writes between two rotations.
const ROTATE_EVERY_LINES: u64 = 20_000;
/// Rotated files kept per container: enough that nothing is deleted before it could be read.
const KEEP: usize = 200;
/// How long deliveries are waited for after the last line was written.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the agent may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the demo. Exit code 0 only if every line that was written was delivered exactly once.
pub fn demo(args: &DemoArgs) -> Result<u8> {
    let dir = TempDir::new("demo").context("cannot create a temporary directory")?;
    let oracle = DeliveryOracle::new();
    let (endpoint, url) = destination(args, &oracle)?;
    let config = config(dir.path(), &url);
    let checked = match check(&ConfigArgs {
        config: vec![format!("yaml:{config}")],
        set: Vec::new(),
        feature_gates: Vec::new(),
    }) {
        Ok(checked) => checked,
        Err(errors) => return Ok(complain(&errors)),
    };
    let (files, below) = (args.files, dir.path().display());
    say!("writing: {files} containers below {below}");
    let inside = endpoint.as_ref().map_or("", |_| " (inside this process)");
    say!("sending: {url}{inside}");
    // The first signal ends the writing, a second one the waiting for what is under way.
    let signals = Signals::listen()?;
    let agent = Agent::start(checked, Sandbox::off(), Control::here().0)?;
    let account = Accounting::new(&agent.metrics, "receiver", "file_log", DropReason::NAMES);
    let writers = start_writers(args, dir.path(), &oracle)?;
    let begin = Instant::now();
    write_and_deliver(args, writers, &oracle, &account, &signals)?;
    let seconds = begin.elapsed().as_secs_f64();
    agent.stop(STOP_TIMEOUT, &|| signals.stops() > 1);
    let account = Account {
        written: oracle.report().totals.written,
        agent: account.snapshot(),
        endpoint: endpoint.is_some().then(|| oracle.report()),
        seconds,
    };
    if account.balances() {
        account.print()?;
        return Ok(exit::OK);
    }
    // That it failed must not depend on whether somebody reads it.
    let _ = account.print();
    Ok(exit::ERROR)
}

/// Where lines go: the stand-in, which shows them to the oracle, or the Loki of `--loki`.
fn destination(args: &DemoArgs, oracle: &DeliveryOracle) -> Result<(Option<FakeLoki>, String)> {
    if let Some(url) = &args.loki {
        return Ok((None, push_url(url)));
    }
    let fake = FakeLoki::start(LokiOptions {
        behaviour: LokiBehaviour::permissive(),
        store: StoreMode::CountOnly,
        on_entry: Some(oracle.hook()),
        ..LokiOptions::default()
    })?;
    let url = fake.push_url();
    Ok((Some(fake), url))
}

/// Shows the live line while the writers write, and then until all of it is delivered.
fn write_and_deliver(
    args: &DemoArgs,
    writers: Vec<LiveWriter>,
    oracle: &DeliveryOracle,
    account: &Accounting,
    signals: &Signals,
) -> Result<()> {
    let mut screen = Screen::new();
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while Instant::now() < end && signals.stops() == 0 {
        std::thread::park_timeout(Duration::from_millis(250));
        let written = writers.iter().map(LiveWriter::lines).sum();
        screen.show(written, &account.snapshot());
    }
    for w in writers {
        w.stop().context("a writer failed")?;
    }
    let total = oracle.report().totals.written;
    let end = Instant::now() + SETTLE_TIMEOUT;
    let settled = |s: &Snapshot| s.in_flight.records == 0 && s.read.records >= total;
    while !settled(&account.snapshot()) && Instant::now() < end && signals.stops() < 2 {
        std::thread::park_timeout(Duration::from_millis(50));
        screen.show(total, &account.snapshot());
    }
    screen.end();
    Ok(())
}

/// Loki's push URL from its base URL or the push URL itself.
pub fn push_url(url: &str) -> String {
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
  file_log:
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
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    logs: {{receivers: [file_log], processors: [resource, attributes, batch], exporters: [loki]}}
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
        // The live line is for whoever looks; the demo goes on without them.
        let mut out = std::io::stdout();
        let _ = match self.terminal {
            true => write!(out, "\r{line}"),
            false => writeln!(out, "{line}"),
        };
        let _ = out.flush();
    }

    fn end(&self) {
        if self.terminal {
            let _ = writeln!(std::io::stdout());
        }
    }
}
