//! The floor: the shortest program that does what the agent is asked to do in this benchmark.
//!
//! It reads 256 KiB at a time, cuts lines, parses container lines, joins split ones, encodes Loki's
//! protobuf, compresses 64 KiB fragments with the agent's snappy encoder and posts bodies of about
//! 1 MiB over one connection. It has no configuration, checkpoints, back-pressure, retry, rotation
//! or metrics. How much slower the agent is than this is the price of what makes it safe.
//!
//! Sources: Loki's `push.proto`; the snappy block format (`format_description.txt`).

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tailwater_exporters::snappy::{Encoder, FRAGMENT_BYTES};

use crate::content::Format;
use crate::cri;

/// Bytes per read.
const READ_BYTES: usize = 256 << 10;
/// A body is sent when its uncompressed entries have this many bytes.
const BODY_BYTES: usize = 1 << 20;

/// Delivers every `*.log` file of `dir` to `sink`.
///
/// # Errors
/// If a file cannot be read, a line has another form, or the sink refuses.
pub fn run(dir: &Path, format: Format, sink: SocketAddr) -> Result<()> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)?
        .map(|e| e.map(|e| e.path()))
        .collect::<std::io::Result<_>>()?;
    files.retain(|p| p.extension().is_some_and(|e| e == "log"));
    files.sort();
    let mut floor = Floor {
        format,
        encoder: Encoder::default(),
        client: Client::connect(sink)?,
        body: Vec::new(),
        streams: Default::default(),
        parser: cri::Parser::default(),
        now_ns: SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i64,
    };
    for file in files {
        floor
            .file(&file)
            .with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// What is collected of one stream of one file.
#[derive(Default)]
struct Stream {
    labels: String,
    /// Encoded entries that are not compressed yet, at most about one fragment.
    raw: Vec<u8>,
    /// Compressed fragments.
    compressed: Vec<u8>,
    /// Uncompressed bytes behind `compressed`.
    compressed_from: usize,
    /// The beginning of a split line.
    held: Vec<u8>,
}

impl Stream {
    fn bytes(&self) -> usize {
        self.compressed_from + self.raw.len()
    }

    /// Appends an `Entry { timestamp, line }`.
    #[inline(always)]
    fn entry(&mut self, time: i64, line: &[u8], encoder: &mut Encoder) {
        let mut stamp = [0u8; 24];
        let mut n = 0;
        for (key, value) in [(8, time / 1_000_000_000), (16, time % 1_000_000_000)] {
            stamp[n] = key;
            n = put_varint(&mut stamp, n + 1, value as u64);
        }
        let mut head = [0u8; 48];
        head[0] = 0x12;
        let len = 2 + n + 1 + varint_len(line.len()) + line.len();
        let mut at = put_varint(&mut head, 1, len as u64);
        head[at..at + 2].copy_from_slice(&[0x0a, n as u8]);
        at += 2;
        head[at..at + n].copy_from_slice(&stamp[..n]);
        at += n;
        head[at] = 0x12;
        at = put_varint(&mut head, at + 1, line.len() as u64);
        self.raw.extend_from_slice(&head[..at]);
        self.raw.extend_from_slice(line);
        if self.raw.len() >= FRAGMENT_BYTES {
            self.compress(encoder);
        }
    }

    fn compress(&mut self, encoder: &mut Encoder) {
        encoder.append(&self.raw, &mut self.compressed);
        self.compressed_from += self.raw.len();
        self.raw.clear();
    }
}

struct Floor {
    format: Format,
    encoder: Encoder,
    client: Client,
    body: Vec<u8>,
    streams: [Stream; 2],
    parser: cri::Parser,
    /// The time of lines that have none.
    now_ns: i64,
}

impl Floor {
    fn file(&mut self, path: &Path) -> Result<()> {
        for (stream, name) in self.streams.iter_mut().zip(["stdout", "stderr"]) {
            let path = path.display();
            stream.labels = match self.format {
                Format::Plain => format!("{{cluster=\"c1\", filename=\"{path}\", job=\"bench\"}}"),
                Format::Cri => format!(
                    "{{cluster=\"c1\", filename=\"{path}\", job=\"bench\", stream=\"{name}\"}}"
                ),
            };
        }
        let mut file = File::open(path)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut have = 0;
        loop {
            if buffer.len() < have + READ_BYTES {
                buffer.resize(have + READ_BYTES, 0);
            }
            let n = file.read(&mut buffer[have..have + READ_BYTES])?;
            if n == 0 {
                break;
            }
            let mut start = 0;
            for end in memchr::memchr_iter(b'\n', &buffer[have..have + n]) {
                self.line(&buffer[start..have + end])?;
                start = have + end + 1;
            }
            buffer.copy_within(start..have + n, 0);
            have = have + n - start;
            if self.streams.iter().map(Stream::bytes).sum::<usize>() >= BODY_BYTES {
                self.send()?;
            }
        }
        self.send()
    }

    #[inline(always)]
    fn line(&mut self, line: &[u8]) -> Result<()> {
        if self.format == Format::Plain {
            self.streams[0].entry(self.now_ns, line, &mut self.encoder);
            return Ok(());
        }
        let line = self.parser.parse(line).context("a line of another form")?;
        let stream = &mut self.streams[usize::from(line.stderr)];
        if line.full && stream.held.is_empty() {
            stream.entry(line.time, line.message, &mut self.encoder);
            return Ok(());
        }
        stream.held.extend_from_slice(line.message);
        if line.full {
            let whole = std::mem::take(&mut stream.held);
            stream.entry(line.time, &whole, &mut self.encoder);
        }
        Ok(())
    }

    /// Posts what is collected, if anything is.
    fn send(&mut self) -> Result<()> {
        let streams = self.streams.iter_mut().filter(|s| s.bytes() > 0);
        let mut parts = Vec::new();
        let mut total = 0;
        for stream in streams {
            stream.compress(&mut self.encoder);
            let inner = 1 + varint_len(stream.labels.len()) + stream.labels.len();
            let mut head = vec![0u8; 24];
            head[0] = 0x0a;
            let at = put_varint(&mut head, 1, (inner + stream.compressed_from) as u64);
            head[at] = 0x0a;
            let at = put_varint(&mut head, at + 1, stream.labels.len() as u64);
            head.truncate(at);
            head.extend_from_slice(stream.labels.as_bytes());
            total += head.len() + stream.compressed_from;
            parts.push((head, stream));
        }
        if parts.is_empty() {
            return Ok(());
        }
        self.body.clear();
        let mut length = [0; 10];
        let n = put_varint(&mut length, 0, total as u64);
        self.body.extend_from_slice(&length[..n]);
        for (head, stream) in parts {
            self.encoder.append(&head, &mut self.body);
            self.body.extend_from_slice(&stream.compressed);
            stream.compressed.clear();
            stream.compressed_from = 0;
        }
        self.client.post(&self.body)
    }
}

fn varint_len(n: usize) -> usize {
    (n | 1).ilog2() as usize / 7 + 1
}

/// Writes `value` at `at` and returns where it ends.
#[inline(always)]
fn put_varint(out: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// One connection; one request after the other.
struct Client {
    requests: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Client {
    fn connect(to: SocketAddr) -> Result<Client> {
        let requests = TcpStream::connect(to).context("cannot connect to the sink")?;
        requests.set_nodelay(true)?;
        let answers = BufReader::new(requests.try_clone()?);
        Ok(Client { requests, answers })
    }

    fn post(&mut self, body: &[u8]) -> Result<()> {
        let head = format!(
            "POST /loki/api/v1/push HTTP/1.1\r\nhost: sink\r\n\
             content-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.requests.write_all(head.as_bytes())?;
        self.requests.write_all(body)?;
        let mut status = String::new();
        self.answers.read_line(&mut status)?;
        if !status.starts_with("HTTP/1.1 204") {
            bail!("the sink answers {status:?}");
        }
        let mut line = status;
        while line != "\r\n" {
            line.clear();
            if self.answers.read_line(&mut line)? == 0 {
                bail!("the answer is cut short");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::content::generate;
    use crate::sink::{Arrived, Sink};

    #[test]
    fn every_message_arrives_whole() {
        for format in [Format::Cri, Format::Plain] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let content = generate(dir.path(), format, 3, 3 << 20).expect("written");
            let sink = Sink::start().expect("started");
            run(dir.path(), format, sink.address()).expect("delivered");
            let all = |a: &Arrived| a.places.unique >= content.messages;
            let arrived = sink.wait(Duration::from_secs(10), all);
            assert_eq!(arrived.problem, None);
            assert_eq!(arrived.places.out_of_order, 0);
            assert_eq!(arrived.count.entries, content.messages);
            assert_eq!(arrived.count.line_bytes, content.message_bytes);
        }
    }
}
