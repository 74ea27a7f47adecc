//! Many logs written at a fixed rate in all, each rotated every few seconds in one of several ways.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tailwater_testkit::oracle::DeliveryOracle;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::time::system_unix_nanos;
use tailwater_testkit::writer::{
    Compress, Format, LogWriter, Naming, Rotation, WriterClock, WriterOptions,
};

/// Between two rounds over all files.
const TICK: Duration = Duration::from_millis(50);

/// Rotated files that are kept of a log; older ones are deleted.
pub const KEPT: usize = 12;

/// What is written.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Number of logs.
    pub files: u32,
    /// Bytes per second over all of them.
    pub bytes_per_second: u64,
    /// Mean time between two rotations of a log; the real ones are between half and one and a half
    /// of it.
    pub rotate_every: Duration,
    /// One log in six is copied and cut instead of renamed. What is written between copy and cut
    /// would be gone; nothing is here, so everything can be read.
    pub copytruncate: bool,
    /// Seed of everything random.
    pub seed: u64,
}

/// A running load. Dropping it ends its thread at the next round.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    bytes: AtomicU64,
    rotations: AtomicU64,
}

impl Load {
    /// Makes `plain` and `containers` below `dir`, with a folder for each log as in `/var/log`, and
    /// writes to the logs from a thread.
    ///
    /// # Errors
    /// If directories, files or the thread cannot be made.
    pub fn start(dir: &Path, options: LoadOptions, oracle: &DeliveryOracle) -> Result<Load> {
        let mut rng = Rng::new(options.seed);
        let logs = (0..options.files).map(|id| Log::create(dir, id, options, oracle, &mut rng));
        let logs = logs.collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || write(logs, options, rng, &of_thread))?;
        Ok(Load {
            shared,
            thread: Some(thread),
        })
    }

    /// Bytes written so far, over all logs.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Rotations so far, over all logs.
    pub fn rotations(&self) -> u64 {
        self.shared.rotations.load(Ordering::Relaxed)
    }

    /// Whether it still writes.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }

    /// Stops writing; what was written is complete lines.
    ///
    /// # Errors
    /// If a write or a rotation has failed.
    pub fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.context("writing the logs"),
            _ => bail!("the writing thread panicked"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// One log and when it is rotated next.
struct Log {
    writer: LogWriter,
    rotate_at: Duration,
}

impl Log {
    fn create(
        dir: &Path,
        id: u32,
        options: LoadOptions,
        oracle: &DeliveryOracle,
        rng: &mut Rng,
    ) -> io::Result<Log> {
        let (format, rotation) = kind(id, options.copytruncate);
        let sub = match format {
            Format::Plain => "plain",
            Format::Cri | Format::Docker => "containers",
        };
        let own = dir.join(sub).join(format!("app{id}"));
        fs::create_dir_all(&own)?;
        let mut of = WriterOptions::new(id, own.join(format!("app{id}.log")));
        (of.format, of.rotation, of.seed) = (format, rotation, options.seed);
        (of.pad_bytes, of.stderr) = (100..=300, 0.2);
        // Container lines carry their time; that of plain ones is the agent's to give.
        of.clock = WriterClock::System;
        of.oracle = Some(oracle.clone());
        Ok(Log {
            writer: LogWriter::create(of)?,
            rotate_at: options.rotate_every.mul_f64(unit(rng)),
        })
    }
}

/// Whether the log `id` is copied and cut, if any is.
pub fn is_copied(id: u32) -> bool {
    matches!(kind(id, true).1, Rotation::CopyTruncate { .. })
}

/// How logs are written and rotated, in turn.
fn kind(id: u32, copytruncate: bool) -> (Format, Rotation) {
    let rename = |naming, compress, late_lines| Rotation::RenameCreate {
        naming,
        keep: KEPT,
        compress,
        late_lines,
    };
    let copy = Rotation::CopyTruncate {
        keep: KEPT,
        compress: Compress::Delayed,
        late_lines: 0,
    };
    match id % 6 {
        0 => (Format::Plain, rename(Naming::Numbered, Compress::Never, 0)),
        1 => (
            Format::Plain,
            rename(Naming::Numbered, Compress::Delayed, 2),
        ),
        2 => (
            Format::Cri,
            rename(Naming::Kubernetes, Compress::Delayed, 0),
        ),
        3 => (Format::Cri, rename(Naming::Kubernetes, Compress::Never, 2)),
        4 => (Format::Plain, rename(Naming::Numbered, Compress::AtOnce, 0)),
        _ if copytruncate => (Format::Plain, copy),
        _ => (Format::Cri, rename(Naming::Numbered, Compress::Delayed, 1)),
    }
}

/// A random number between 0 and 1.
fn unit(rng: &mut Rng) -> f64 {
    rng.below(1 << 20) as f64 / f64::from(1 << 20)
}

/// Rounds over all logs until told to stop. A round writes to each log what is due by then, so
/// that the rate holds over time whatever a round took.
fn write(
    mut logs: Vec<Log>,
    options: LoadOptions,
    mut rng: Rng,
    shared: &Shared,
) -> io::Result<()> {
    let begin = Instant::now();
    let each = options.bytes_per_second as f64 / f64::from(options.files.max(1));
    while !shared.stop.load(Ordering::Relaxed) {
        let mut bytes = 0;
        for log in &mut logs {
            let now = begin.elapsed();
            let due = (each * now.as_secs_f64()) as u64;
            while log.writer.bytes_written() < due {
                log.writer.write_lines(1)?;
            }
            if now >= log.rotate_at {
                log.writer.rotate()?;
                shared.rotations.fetch_add(1, Ordering::Relaxed);
                log.rotate_at = now + options.rotate_every.mul_f64(0.5 + unit(&mut rng));
            }
            bytes += log.writer.bytes_written();
        }
        shared.bytes.store(bytes, Ordering::Relaxed);
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// The wall clock, for the record of a run: `2024-01-02T15:04:05Z`.
pub fn now_text() -> String {
    tailwater_testkit::time::rfc3339_seconds(system_unix_nanos())
}
