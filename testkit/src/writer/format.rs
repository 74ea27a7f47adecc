//! From a message to the bytes of its line or lines.

use super::{WriterClock, WriterOptions};
use crate::message;
use crate::rng::Rng;
use crate::time::{rfc3339_nanos, system_unix_nanos};

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The message and a line end.
    #[default]
    Plain,
    /// `2024-01-02T15:04:05.000000006Z stdout F message`, as containerd and CRI-O write; a long
    /// message is several lines of which all but the last are marked `P`.
    Cri,
    /// `{"log":"message\n","stream":"stdout","time":"..."}`, as Docker's json-file driver writes;
    /// only the last part of a long message has the `\n`.
    Docker,
}

/// Where a container wrote a message to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl IoStream {
    /// Its name in log files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }
}

#[derive(Debug)]
pub(super) struct Formatter {
    options: WriterOptions,
    /// Reused for each message.
    message: Vec<u8>,
}

impl Formatter {
    pub(super) fn new(options: &WriterOptions) -> Self {
        // The oracle is the writer's business, and a clone here would only keep it alive.
        Self {
            options: WriterOptions {
                oracle: None,
                ..options.clone()
            },
            message: Vec::new(),
        }
    }

    /// Appends the line of message `seq`, and perhaps of the next one if that is below `end`.
    /// Returns how many messages it wrote: 1 or 2.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, seq: u64, end: u64, rng: &mut Rng) -> u64 {
        let stream = if rng.chance(self.options.stderr) {
            IoStream::Stderr
        } else {
            IoStream::Stdout
        };
        self.make(seq, rng);
        let time = self.time(seq);
        let message = std::mem::take(&mut self.message);
        let (part_bytes, cri) = match self.options.format {
            Format::Plain => (usize::MAX, false),
            Format::Cri => (self.options.partial_bytes_max.max(1), true),
            Format::Docker => (self.options.partial_bytes_max.max(1), false),
        };
        let parts = message.len().div_ceil(part_bytes);
        let both = cri && parts > 1 && seq + 1 < end && rng.chance(self.options.interleave);
        for (n, part) in message.chunks(part_bytes).enumerate() {
            self.put(out, part, n + 1 == parts, stream, time);
            if both && n == 0 {
                self.make_short(seq + 1, rng);
                let between = std::mem::take(&mut self.message);
                self.put(out, &between, true, stream.other(), self.time(seq + 1));
            }
        }
        self.message = message;
        1 + u64::from(both)
    }

    fn make(&mut self, seq: u64, rng: &mut Rng) {
        let pad_bytes = rng.within(&self.options.pad_bytes);
        self.message.clear();
        message::append(
            &mut self.message,
            self.options.id,
            seq,
            rng.next_u64(),
            pad_bytes,
        );
    }

    /// A message that fits into one line of any limit a test is likely to set.
    fn make_short(&mut self, seq: u64, rng: &mut Rng) {
        self.message.clear();
        message::append(&mut self.message, self.options.id, seq, rng.next_u64(), 8);
    }

    pub(super) fn time(&self, seq: u64) -> i64 {
        match self.options.clock {
            WriterClock::System => system_unix_nanos(),
            WriterClock::Stepping { start_ns, step_ns } => {
                start_ns.saturating_add(step_ns.saturating_mul(seq as i64))
            }
        }
    }

    /// One line. The message's characters need no escaping in JSON.
    fn put(&self, out: &mut Vec<u8>, part: &[u8], last: bool, stream: IoStream, time: i64) {
        match self.options.format {
            Format::Plain => out.extend_from_slice(part),
            Format::Cri => {
                let tag = if last { "F" } else { "P" };
                let head = format!("{} {} {tag} ", rfc3339_nanos(time), stream.name());
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(part);
            }
            Format::Docker => {
                out.extend_from_slice(b"{\"log\":\"");
                out.extend_from_slice(part);
                let end = if last { "\\n" } else { "" };
                let time = rfc3339_nanos(time);
                let tail = format!(
                    "{end}\",\"stream\":\"{}\",\"time\":\"{time}\"}}",
                    stream.name()
                );
                out.extend_from_slice(tail.as_bytes());
            }
        }
        out.push(b'\n');
    }
}
