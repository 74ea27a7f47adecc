//! What the agents read: deterministic log files, and what must arrive of them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::ValueEnum;

/// Most bytes of text in one record of a container runtime; longer lines are split (CRI).
const CRI_RECORD_BYTES: usize = 16 << 10;
/// Every how many messages one is long.
const LONG_EVERY: u64 = 10_000;
/// Every how many messages of a container one is written to standard error.
const STDERR_EVERY: u64 = 16;
/// When the text in memory begins: 2024-01-01T00:00:00Z in seconds since the epoch.
pub const FIRST_SECOND: u64 = 1_704_067_200;
/// How long ago files begin. Times are recent, because agents and destinations refuse old lines.
const BEGIN_BEFORE_SECONDS: u64 = 12 * 3600;
/// Time between two messages of a file: 100 GiB in one file stay in the past.
const STEP_NS: u64 = 100_137;

/// The form of the generated lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// Lines of a container runtime around JSON messages of about 245 bytes. Every 10,000th message
    /// has 20 to 40 KB and is split into records of 16 KiB.
    Cri,
    /// Text of about 118 bytes with a time in front.
    Plain,
}

/// What was generated: what has to arrive.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Content {
    /// Files.
    pub files: u64,
    /// Messages; a split one counts once.
    pub messages: u64,
    /// Bytes of the messages, without newlines and container headers.
    pub message_bytes: u64,
    /// Bytes of the files.
    pub file_bytes: u64,
}

/// A small generator of pseudo-random numbers (SplitMix64).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

const LEVELS: &[&str] = &[
    "info", "info", "info", "info", "info", "debug", "warn", "error",
];
const LOGGERS: &[&str] = &[
    "http.server",
    "db.pool",
    "cache",
    "auth.session",
    "queue.worker",
];
const TEXTS: &[&str] = &[
    "request served",
    "waited for a free connection",
    "entry not cached, asking the primary store",
    "token of the session was renewed",
    "job done, delivery acknowledged",
    "no answer from upstream within the deadline, trying again",
    "query took long on a replica, an index may help",
    "payload has no field \\\"amount\\\", refused",
];
const METHODS: &[&str] = &["GET", "GET", "GET", "POST", "PUT", "DELETE"];
const THINGS: &[&str] = &[
    "users", "orders", "invoices", "carts", "sessions", "products",
];
const STATUSES: &[&str] = &["200", "200", "200", "201", "204", "304", "404", "500"];

/// Writes `files` files of about `file_bytes` bytes each into `dir` (`*.log`).
///
/// # Errors
/// If a file cannot be written.
pub fn generate(dir: &Path, format: Format, files: u64, file_bytes: u64) -> Result<Content> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut content = Content {
        files,
        ..Content::default()
    };
    for file in 0..files {
        let path = dir.join(format!("app-{file:05}_bench_main-{file:064x}.log"));
        let out = File::create(&path).with_context(|| path.display().to_string())?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        let mut lines = Lines::new(format, file, now.saturating_sub(BEGIN_BEFORE_SECONDS));
        let mut written = 0;
        while written < file_bytes {
            lines.next();
            out.write_all(lines.records.as_bytes())?;
            written += lines.records.len() as u64;
            content.messages += 1;
            content.message_bytes += lines.message.len() as u64;
        }
        out.flush()?;
        content.file_bytes += written;
    }
    Ok(content)
}

/// The lines of one file, for tests and the small benchmarks: at least `bytes` of it.
pub fn text(format: Format, bytes: usize) -> (Vec<u8>, Content) {
    let (mut out, mut content) = (
        Vec::new(),
        Content {
            files: 1,
            ..Content::default()
        },
    );
    let mut lines = Lines::new(format, 0, FIRST_SECOND);
    while out.len() < bytes {
        lines.next();
        out.extend_from_slice(lines.records.as_bytes());
        content.messages += 1;
        content.message_bytes += lines.message.len() as u64;
    }
    content.file_bytes = out.len() as u64;
    (out, content)
}

/// Makes one message after another.
struct Lines {
    format: Format,
    file: u64,
    first_second: u64,
    at: u64,
    random: Random,
    /// The last message.
    message: String,
    /// The same as it stands in the file, newline included.
    records: String,
}

impl Lines {
    fn new(format: Format, file: u64, first_second: u64) -> Lines {
        Lines {
            format,
            file,
            first_second,
            at: 0,
            random: Random(file << 40),
            message: String::new(),
            records: String::new(),
        }
    }

    fn next(&mut self) {
        self.message.clear();
        self.records.clear();
        let at = self.at;
        self.at += 1;
        let mut time = String::with_capacity(32);
        push_time(&mut time, self.first_second * 1_000_000_000 + at * STEP_NS);
        // Writing to a String cannot fail.
        let _ = match self.format {
            Format::Plain => self.plain(&time, at),
            Format::Cri => self.json(at),
        };
        if self.format == Format::Plain {
            self.records.push_str(&self.message);
            self.records.push('\n');
            return;
        }
        let stream = if is_stderr(at) { "stderr" } else { "stdout" };
        let mut rest = self.message.as_str();
        loop {
            // The content is ASCII, so any place is a boundary of characters.
            let (part, tail) = rest.split_at(rest.len().min(CRI_RECORD_BYTES));
            let tag = if tail.is_empty() { 'F' } else { 'P' };
            let _ = writeln!(self.records, "{time} {stream} {tag} {part}");
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
    }

    fn plain(&mut self, time: &str, at: u64) -> std::fmt::Result {
        let (r, file) = (&mut self.random, self.file);
        let (method, thing, status) = (r.pick(METHODS), r.pick(THINGS), r.pick(STATUSES));
        let (id, took, bytes) = (r.below(1_000_000), r.below(2_000_000), r.below(100_000));
        write!(
            self.message,
            "{time} INFO file={file} n={at} {method} /api/v1/{thing}/{id} status={status} \
             took_us={took} bytes={bytes}"
        )
    }

    fn json(&mut self, at: u64) -> std::fmt::Result {
        let (r, file) = (&mut self.random, self.file);
        let (level, logger, text) = (r.pick(LEVELS), r.pick(LOGGERS), r.pick(TEXTS));
        let (method, thing, status) = (r.pick(METHODS), r.pick(THINGS), r.pick(STATUSES));
        let (id, took, trace) = (r.below(1_000_000), r.below(2_000_000), [r.next(), r.next()]);
        write!(
            self.message,
            "{{\"file\":{file},\"n\":{at},\"level\":\"{level}\",\"logger\":\"{logger}\",\
             \"msg\":\"{text}\",\"method\":\"{method}\",\"path\":\"/api/v1/{thing}/{id}\",\
             \"status\":{status},\"duration_us\":{took},\"trace_id\":\"{:016x}{:016x}\"",
            trace[0], trace[1]
        )?;
        if at % LONG_EVERY == LONG_EVERY - 1 {
            let end = self.message.len() + 20_000 + r.below(20_000) as usize;
            // No blanks: agents trim lines, and a part of a split line must not end in one.
            self.message.push_str(",\"dump\":\"");
            while self.message.len() < end {
                write!(self.message, "{}/{:016x}/", r.pick(LOGGERS), r.next())?;
            }
            self.message.push('"');
        }
        self.message.push('}');
        Ok(())
    }
}

/// Where a message stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Number of its file.
    pub file: u64,
    /// Its number in the file.
    pub n: u64,
    /// Written to standard error by a container: another stream than the rest of its file, and the
    /// order holds within a stream.
    pub stderr: bool,
}

fn is_stderr(n: u64) -> bool {
    n % STDERR_EVERY == STDERR_EVERY - 1
}

/// The place of a generated message. `None` for any other text.
pub fn place_of(line: &[u8]) -> Option<Place> {
    let (of_file, of_number): (&[u8], &[u8]) = match line.first()? {
        b'{' => (b"{\"file\":", b",\"n\":"),
        _ => (b" INFO file=", b" n="),
    };
    let rest = match line.first()? {
        b'{' => line,
        // The time in front.
        _ => line.get(30..)?,
    };
    let (file, rest) = number(rest.strip_prefix(of_file)?)?;
    let (n, _) = number(rest.strip_prefix(of_number)?)?;
    let stderr = line[0] == b'{' && is_stderr(n);
    Some(Place { file, n, stderr })
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let len = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&text[..len]).ok()?;
    Some((digits.parse().ok()?, &text[len..]))
}

/// Appends a time in ns since the epoch in RFC 3339 form with nine digits.
fn push_time(out: &mut String, ns: u64) {
    let (second, ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let (year, month, day) = civil(second / 86_400);
    let (h, m, s) = (second / 3600 % 24, second / 60 % 60, second % 60);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{year}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ns:09}Z"
    );
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar, counted in cycles of
/// 400 years that begin in March.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (cycle, of_cycle) = (day / 146_097, day % 146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, over) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (cycle * 400 + year + over, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_messages_have_the_size_that_is_stated_and_long_ones_are_split() {
        let (text, content) = text(Format::Cri, 4 << 20);
        let mean = content.message_bytes as f64 / content.messages as f64;
        assert!((230.0..260.0).contains(&mean), "{mean}");
        let lines: Vec<&[u8]> = text
            .split(|&b| b == b'\n')
            .filter(|l| !l.is_empty())
            .collect();
        let partial = lines
            .iter()
            .filter(|l| l[30..].starts_with(b" stdout P "))
            .count()
            + lines
                .iter()
                .filter(|l| l[30..].starts_with(b" stderr P "))
                .count();
        assert!(partial >= 1, "no split record in {} lines", lines.len());
        assert_eq!(lines.len() - partial, content.messages as usize);
        assert!(lines.iter().all(|l| l.len() <= CRI_RECORD_BYTES + 41));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (second, want) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_868_799, "2000-02-29T23:59:59"),
            (FIRST_SECOND, "2024-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            let mut out = String::new();
            push_time(&mut out, second * 1_000_000_000 + 7);
            assert_eq!(out, format!("{want}.000000007Z"));
        }
    }

    #[test]
    fn the_place_of_a_message_is_found_in_it() {
        for format in [Format::Cri, Format::Plain] {
            let mut lines = Lines::new(format, 7, FIRST_SECOND);
            for n in 0..40 {
                lines.next();
                let place = place_of(lines.message.as_bytes());
                let stderr = lines.records.contains(" stderr ");
                assert_eq!(place, Some(Place { file: 7, n, stderr }));
            }
        }
        for other in [&b""[..], b"{", b"text", b"{\"file\":x,\"n\":1}"] {
            assert_eq!(place_of(other), None);
        }
    }

    #[test]
    fn plain_messages_have_the_size_that_is_stated() {
        let (_, content) = text(Format::Plain, 1 << 20);
        let mean = content.message_bytes as f64 / content.messages as f64;
        assert!((105.0..130.0).contains(&mean), "{mean}");
    }

    #[test]
    fn files_hold_what_the_content_says() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let content = generate(dir.path(), Format::Plain, 3, 10_000).expect("written");
        let files = std::fs::read_dir(dir.path()).expect("listed");
        let bytes: u64 = files
            .map(|f| f.expect("entry").metadata().expect("metadata").len())
            .sum();
        assert_eq!((content.files, content.file_bytes), (3, bytes));
        assert_eq!(content.file_bytes, content.message_bytes + content.messages);
    }
}
