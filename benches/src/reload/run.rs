//! One agent's run.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{LogWriter, Naming, Rotation, WriterClock, WriterOptions};

use super::judge::Judge;
use super::peers::{Peer, Place, free_addr};
use crate::process::{Process, Usage};

/// How long the first line may take.
const START_MAX: Duration = Duration::from_secs(30);
/// At the end it is given up when nothing new has arrived for this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done to each agent.
#[derive(Clone, Debug)]
pub struct Load {
    /// Bytes per second over all files.
    pub bytes_per_second: u64,
    /// Files.
    pub files: u32,
    /// Bytes of a line, about.
    pub line_bytes: usize,
    /// Time between two rotations of a file.
    pub rotate: Duration,
    /// Rotated files that are kept of each.
    pub keep: usize,
    /// For how long lines are written before the first reload.
    pub calm: Duration,
    /// For how long reloads go on.
    pub time: Duration,
    /// Time from one reload to the next.
    pub every: Duration,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Reloads that it was told of.
    pub reloads: u64,
    /// Those of them that it refused or did not answer, and what it said first.
    pub failed: u64,
    /// What it said to the first of those.
    pub failure: Option<String>,
    /// It had ended before it was stopped.
    pub died: bool,
    /// Lines written.
    pub written: u64,
    /// MB written.
    pub megabytes: f64,
    /// Lines that never arrived.
    pub lost: u64,
    /// Arrivals beyond the first of a line.
    pub repeated: u64,
    /// Arrivals of lines that nobody wrote so.
    pub damaged: u64,
    /// Longest time without an arrival before the first reload.
    pub gap_calm: Duration,
    /// Longest time without an arrival while it was reloaded.
    pub gap: Duration,
    /// What the process had used before it was stopped.
    pub usage: Usage,
}

/// Runs `peer` in the empty folder `work`.
///
/// # Errors
/// If it does not start or delivers nothing at all; what it said last is told.
pub fn run(peer: &Peer, load: &Load, work: &Path) -> Result<Outcome> {
    let judge = Judge::start()?;
    let at = Place {
        logs: work.join("logs"),
        state: work.join("state"),
        loki: judge.loki(),
        otlp: judge.otlp(),
        control: free_addr()?,
    };
    fs::create_dir(&at.logs)?;
    fs::create_dir(&at.state)?;
    peer.write(&at, false)?;
    let output = work.join("output.txt");
    let process = Process::start(&mut peer.command(&at), &output)?;
    let result = watch(peer, load, &at, &judge, process);
    result.with_context(|| {
        let text = fs::read(&output).unwrap_or_default();
        let tail = text.len().saturating_sub(2_000);
        let tail = String::from_utf8_lossy(&text[tail..]).into_owned();
        format!("{} said last:\n{tail}", peer.name())
    })
}

fn watch(
    peer: &Peer,
    load: &Load,
    at: &Place,
    judge: &Judge,
    mut process: Process,
) -> Result<Outcome> {
    let live = start(load, at, judge)?;
    let begin = Instant::now();
    while judge.delivered() == 0 {
        if !process.is_running() {
            bail!("it ended before anything arrived");
        }
        if begin.elapsed() > START_MAX {
            bail!("nothing arrived within {START_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(load.calm / 2);
    // The beginning has a backlog; the calm half begins here.
    judge.take_gap();
    std::thread::sleep(load.calm / 2);
    let gap_calm = judge.take_gap();
    let (mut reloads, mut failed, mut failure) = (0, 0, None);
    let (begin, mut next) = (Instant::now(), Instant::now());
    while begin.elapsed() < load.time && process.is_running() {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += load.every;
        let told = peer.reload(at, process.id(), reloads % 2 == 0);
        reloads += 1;
        if let Err(error) = told {
            failed += 1;
            failure.get_or_insert_with(|| format!("{error:#}"));
        }
    }
    let gap = judge.take_gap();
    let mut megabytes = 0.0;
    for writer in live {
        megabytes += writer.stop()?.bytes_written() as f64 / 1e6;
    }
    let (mut delivered, mut since) = (judge.delivered(), Instant::now());
    while !judge.oracle.is_complete() && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
        let now = judge.delivered();
        if now != delivered {
            (delivered, since) = (now, Instant::now());
        }
    }
    let died = !process.is_running();
    let usage = process.usage().unwrap_or_default();
    drop(process);
    let totals = judge.totals();
    Ok(Outcome {
        reloads,
        failed,
        failure,
        died,
        written: totals.written,
        megabytes,
        lost: totals.missing,
        repeated: totals.duplicates_raw,
        damaged: totals.corrupt + totals.phantom,
        gap_calm,
        gap,
        usage,
    })
}

/// Begins to write.
fn start(load: &Load, at: &Place, judge: &Judge) -> Result<Vec<LiveWriter>> {
    let each = load.bytes_per_second / u64::from(load.files.max(1));
    let lines_per_second = (each / load.line_bytes.max(1) as u64).max(1);
    let rotate = (load.rotate.as_secs_f64() * lines_per_second as f64) as u64;
    let start = |id: u32| {
        let mut options = WriterOptions::new(id, at.logs.join(format!("app-{id}.log")));
        options.oracle = Some(judge.oracle.clone());
        options.clock = WriterClock::System;
        // Name, number, checksum and the end of the line take the rest.
        let pad = load.line_bytes.saturating_sub(24);
        options.pad_bytes = pad * 9 / 10..=pad * 11 / 10;
        options.rotation = Rotation::RenameCreate {
            naming: Naming::Numbered,
            keep: load.keep,
            compress: Default::default(),
            late_lines: 0,
        };
        let live = LiveOptions {
            lines_per_second,
            rotate_every_lines: Some(rotate.max(1)),
            lines_max: None,
        };
        Ok(LiveWriter::start(LogWriter::create(options)?, live)?)
    };
    (1..=load.files).map(start).collect()
}
