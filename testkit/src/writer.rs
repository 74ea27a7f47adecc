//! Writes log files the way container runtimes and applications do, and rotates them in every
//! usual way.
//!
//! Everything is synchronous: [`LogWriter::write_lines`] returns when the lines are in the file,
//! [`LogWriter::rotate`] when the rotation is over. Equal options give equal bytes (with
//! [`WriterClock::Stepping`]). [`live::LiveWriter`] runs a writer on a thread at a rate.
//!
//! With an oracle given, every line is announced before and confirmed after it is written, and
//! lines whose file is deleted or cut off are reported as removed.

pub mod kubernetes;
pub mod live;

mod format;
mod rotation;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use crate::oracle::DeliveryOracle;
use crate::rng::Rng;
use format::Formatter;

pub use format::{Format, IoStream};
pub use rotation::{Compress, Naming, Rotation};

/// Bytes collected before they are written.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Where a line's timestamp comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterClock {
    /// The n-th line is written at `start_ns + n * step_ns`, whatever the time is.
    Stepping {
        /// Unix time of the first line.
        start_ns: i64,
        /// Time between lines.
        step_ns: i64,
    },
    /// The wall clock.
    System,
}

/// How a [`LogWriter`] writes.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// The writer's number in its messages; unique within a test.
    pub id: u32,
    /// The file. Its directory must exist.
    pub path: PathBuf,
    /// The form of a line.
    pub format: Format,
    /// What [`LogWriter::rotate`] does.
    pub rotation: Rotation,
    /// Seed of pads, lengths and the choice between stdout and stderr.
    pub seed: u64,
    /// Length of a message's pad in bytes.
    pub pad_bytes: RangeInclusive<usize>,
    /// Messages longer than this are split as container runtimes do (CRI and Docker only).
    /// containerd and Docker split at 16 KiB.
    pub partial_bytes_max: usize,
    /// Share of messages that go to stderr (CRI and Docker only).
    pub stderr: f64,
    /// Share of split messages that have a message of the other stream written between their
    /// parts, as happens when a process uses both (CRI only).
    pub interleave: f64,
    /// Timestamps.
    pub clock: WriterClock,
    /// Whether the file is opened for appending. Without it, writing after a truncation leaves a
    /// hole of zero bytes, as with applications that keep their own offset.
    pub append: bool,
    /// Told about everything.
    pub oracle: Option<DeliveryOracle>,
}

impl WriterOptions {
    /// Plain lines of about 100 bytes, rotated by renaming, one line per millisecond from
    /// 2024-01-02T00:00:00Z on.
    pub fn new(id: u32, path: impl Into<PathBuf>) -> Self {
        Self {
            id,
            path: path.into(),
            format: Format::Plain,
            rotation: Rotation::default(),
            seed: 0,
            pad_bytes: 60..=100,
            partial_bytes_max: 16 * 1024,
            stderr: 0.0,
            interleave: 0.0,
            clock: WriterClock::Stepping {
                start_ns: 1_704_153_600_000_000_000,
                step_ns: 1_000_000,
            },
            append: true,
            oracle: None,
        }
    }
}

/// One file a writer has written, wherever it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Where it is.
    pub path: PathBuf,
    /// The numbers of the lines that begin in it.
    pub seqs: Range<u64>,
    /// Whether it has been compressed with gzip.
    pub compressed: bool,
}

/// A writer and the files it keeps.
#[derive(Debug)]
pub struct LogWriter {
    options: WriterOptions,
    formatter: Formatter,
    rng: Rng,
    file: File,
    /// First line of the live file.
    first_seq: u64,
    /// The next line.
    next_seq: u64,
    /// The second half of a line that was left unfinished.
    unfinished: Option<Vec<u8>>,
    /// Rotated files that exist, newest first.
    rotated: VecDeque<WrittenFile>,
    /// Names given by [`Naming::Kubernetes`] so far; the last one, in seconds.
    last_suffix_seconds: i64,
    bytes_written: u64,
}

impl LogWriter {
    /// Opens (or creates) the file; an existing one is continued at its end.
    ///
    /// # Errors
    /// What opening fails with.
    pub fn create(options: WriterOptions) -> io::Result<Self> {
        let file = open(&options.path, options.append)?;
        Ok(Self {
            formatter: Formatter::new(&options),
            rng: Rng::new(options.seed ^ u64::from(options.id) << 32),
            file,
            first_seq: 0,
            next_seq: 0,
            unfinished: None,
            rotated: VecDeque::new(),
            last_suffix_seconds: i64::MIN,
            bytes_written: 0,
            options,
        })
    }

    /// The options it was made with.
    pub fn options(&self) -> &WriterOptions {
        &self.options
    }

    /// The live file.
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Lines written so far, over all files.
    pub fn lines_written(&self) -> u64 {
        self.next_seq
    }

    /// Bytes written so far, over all files, before compression.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// The rotated files that still exist, newest first, without the live one.
    pub fn rotated(&self) -> impl Iterator<Item = &WrittenFile> {
        self.rotated.iter()
    }

    /// Writes `lines` messages; a line left unfinished is finished first.
    ///
    /// # Errors
    /// What writing fails with; the lines of the failed piece count as announced, not written.
    pub fn write_lines(&mut self, lines: u64) -> io::Result<Range<u64>> {
        self.finish_line()?;
        let start = self.next_seq;
        let end = start + lines;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES_MAX + 1024);
        let mut seq = start;
        while seq < end {
            buffer.clear();
            let first = seq;
            while seq < end && buffer.len() < BUFFER_BYTES_MAX {
                seq += self.formatter.append(&mut buffer, seq, end, &mut self.rng);
            }
            self.announce(first..seq);
            self.put(&buffer)?;
            self.next_seq = seq;
            self.confirm();
        }
        Ok(start..end)
    }

    /// Writes the first half of one more line and no line end. It does not count as written until
    /// [`LogWriter::finish_line`], the next [`LogWriter::write_lines`], or a rotation.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn write_unfinished(&mut self) -> io::Result<()> {
        self.finish_line()?;
        let mut line = Vec::new();
        self.formatter
            .append(&mut line, self.next_seq, self.next_seq + 1, &mut self.rng);
        let rest = line.split_off(line.len() / 2);
        self.announce(self.next_seq..self.next_seq + 1);
        self.put(&line)?;
        self.unfinished = Some(rest);
        Ok(())
    }

    /// Writes the rest of an unfinished line, if there is one.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn finish_line(&mut self) -> io::Result<()> {
        if let Some(rest) = self.unfinished.take() {
            self.put(&rest)?;
            self.next_seq += 1;
            self.confirm();
        }
        Ok(())
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// What `fsync` fails with.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes_written += bytes.len() as u64;
        Ok(())
    }

    fn announce(&self, seqs: Range<u64>) {
        if let Some(oracle) = &self.options.oracle {
            oracle.announce(self.options.id, &self.generation_name(), seqs);
        }
    }

    fn confirm(&self) {
        if let Some(oracle) = &self.options.oracle {
            oracle.confirm(self.options.id, self.next_seq);
        }
    }

    fn removed(&self, seqs: Range<u64>) {
        if let Some(oracle) = &self.options.oracle {
            oracle.removed(self.options.id, seqs);
        }
    }

    /// Names a file for the oracle for good, although its path changes: path and first line.
    fn generation_name(&self) -> String {
        format!("{}@{}", self.options.path.display(), self.first_seq)
    }
}

fn open(path: &Path, append: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true);
    if append {
        return options.append(true).open(path);
    }
    let mut file = options.write(true).truncate(false).open(path)?;
    io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
