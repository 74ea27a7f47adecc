//! A destination that takes everything and counts it: Loki's push endpoint and OTLP over HTTP.
//!
//! It runs in the benchmark's process, so none of its CPU is in the figure of an agent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::count::{self, Count};
use crate::seen::{Places, Seen};

/// Most bytes of a request's body, before and after decompression.
const BODY_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// What has arrived since the last [`Sink::reset`].
#[derive(Clone, Default, Debug)]
pub struct Arrived {
    /// Entries and bytes of lines.
    pub count: Count,
    /// Which messages they are.
    pub places: Places,
    /// Requests that were counted.
    pub requests: u64,
    /// Bytes of their bodies as they were sent.
    pub wire_bytes: u64,
    /// When the first entry arrived.
    pub first: Option<Instant>,
    /// When the last entry arrived.
    pub last: Option<Instant>,
    /// Why a request could not be counted.
    pub problem: Option<String>,
}

#[derive(Default)]
struct State {
    arrived: Mutex<Arrived>,
    /// Locked before `arrived` where both are.
    seen: Mutex<Seen>,
    news: Condvar,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A listening sink. Its threads end with the process.
pub struct Sink {
    address: SocketAddr,
    state: Arc<State>,
}

impl Sink {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start() -> Result<Sink> {
        Sink::start_with(|| {})
    }

    /// The same, and each of its threads calls `begin` before anything else.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start_with(begin: fn()) -> Result<Sink> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            begin();
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || {
                    begin();
                    connection(stream, &state);
                });
            }
        });
        Ok(Sink { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts counting at zero.
    pub fn reset(&self) {
        *self.state.seen() = Seen::default();
        *self.state.lock() = Arrived::default();
    }

    /// What has arrived.
    pub fn arrived(&self) -> Arrived {
        self.state.lock().clone()
    }

    /// Waits until what has arrived is `enough`, a request could not be counted, or `timeout` has
    /// passed.
    pub fn wait(&self, timeout: Duration, enough: impl Fn(&Arrived) -> bool) -> Arrived {
        let waiting = |a: &mut Arrived| !enough(a) && a.problem.is_none();
        let wait = self
            .state
            .news
            .wait_timeout_while(self.state.lock(), timeout, waiting);
        wait.unwrap_or_else(|e| e.into_inner()).0.clone()
    }
}

/// What a request's head says.
#[derive(Default)]
struct Head {
    path: String,
    length: Option<u64>,
    chunked: bool,
    encoding: String,
    content_type: String,
    expects_continue: bool,
}

fn connection(stream: TcpStream, state: &State) {
    let Ok(mut answers) = stream.try_clone() else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let mut requests = BufReader::with_capacity(64 << 10, stream);
    let mut buffers = Buffers::default();
    // An error ends the connection; one that concerns the counting is kept for the report.
    while let Ok(Some(head)) = read_head(&mut requests) {
        if head.expects_continue && answers.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
            return;
        }
        if read_body(&mut requests, &head, &mut buffers.body).is_err() {
            return;
        }
        // Held until it is booked, so that what waits sees both or neither.
        let mut seen = state.seen();
        let counted = buffers.count(&head, &mut seen);
        let now = Instant::now();
        let mut arrived = state.lock();
        arrived.places = seen.places();
        match counted {
            Ok(count) => {
                arrived.requests += 1;
                arrived.wire_bytes += buffers.body.len() as u64;
                arrived.count.entries += count.entries;
                arrived.count.line_bytes += count.line_bytes;
                if count.entries > 0 {
                    arrived.first.get_or_insert(now);
                    arrived.last = Some(now);
                }
            }
            Err(e) => {
                arrived
                    .problem
                    .get_or_insert_with(|| format!("POST {}: {e:#}", head.path));
            }
        }
        drop((arrived, seen));
        state.news.notify_all();
        let answer: &[u8] = if head.path.ends_with("/push") {
            b"HTTP/1.1 204 No Content\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        };
        if answers.write_all(answer).is_err() {
            return;
        }
    }
}

fn read_head(from: &mut BufReader<TcpStream>) -> Result<Option<Head>> {
    let mut from = from.take(HEAD_BYTES_MAX);
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).context("no request line")?;
    let mut head = Head {
        path: path.to_owned(),
        ..Head::default()
    };
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            bail!("the head is cut short or too long");
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim().to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = Some(value.parse()?),
            "transfer-encoding" => head.chunked = value.contains("chunked"),
            "content-encoding" => head.encoding = value,
            "content-type" => head.content_type = value,
            "expect" => head.expects_continue = value == "100-continue",
            _ => {}
        }
    }
    Ok(Some(head))
}

fn read_body(from: &mut BufReader<TcpStream>, head: &Head, body: &mut Vec<u8>) -> Result<()> {
    body.clear();
    if !head.chunked {
        return read_exactly(from, head.length.unwrap_or(0), body);
    }
    let mut line = String::new();
    loop {
        line.clear();
        from.take(HEAD_BYTES_MAX).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).context("size of a chunk")?;
        read_exactly(from, size, body)?;
        line.clear();
        from.take(HEAD_BYTES_MAX).read_line(&mut line)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn read_exactly(from: &mut BufReader<TcpStream>, bytes: u64, body: &mut Vec<u8>) -> Result<()> {
    if body.len() as u64 + bytes > BODY_BYTES_MAX {
        bail!("the body is too large");
    }
    if from.take(bytes).read_to_end(body)? as u64 != bytes {
        bail!("the body is cut short");
    }
    Ok(())
}

/// Memory that is used again for every request of a connection.
struct Buffers {
    body: Vec<u8>,
    plain: Vec<u8>,
    decoder: snap::raw::Decoder,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers {
            body: Vec::new(),
            plain: Vec::new(),
            decoder: snap::raw::Decoder::new(),
        }
    }
}

impl Buffers {
    fn count(&mut self, head: &Head, seen: &mut Seen) -> Result<Count> {
        let push = head.path.ends_with("/push");
        if head.content_type.contains("json") || !(push || head.path.ends_with("/v1/logs")) {
            bail!(
                "the sink counts protobuf only, at Loki's push endpoint and OTLP's /v1/logs; this \
                 is {:?}",
                head.content_type
            );
        }
        let plain = match head.encoding.as_str() {
            "gzip" => {
                self.plain.clear();
                let inflate = flate2::read::GzDecoder::new(self.body.as_slice());
                inflate.take(BODY_BYTES_MAX).read_to_end(&mut self.plain)?;
                &self.plain[..]
            }
            // Loki takes snappy on its push endpoint whether or not the header says so.
            "" | "identity" if !push => &self.body[..],
            "" | "identity" | "snappy" => {
                let len = snap::raw::decompress_len(&self.body)?;
                if len as u64 > BODY_BYTES_MAX {
                    bail!("the body is too large");
                }
                self.plain.resize(self.plain.len().max(len), 0);
                let len = self.decoder.decompress(&self.body, &mut self.plain)?;
                &self.plain[..len]
            }
            other => bail!("the sink does not read content-encoding {other}"),
        };
        let mut mark = |line: &[u8]| seen.mark(line);
        if push {
            count::loki(plain, &mut mark)
        } else {
            count::otlp(plain, &mut mark)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(sink: &Sink, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(sink.address()).expect("it listens");
        stream.write_all(request).expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("answered");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A request with one entry, the `n`-th message of a file.
    fn push(n: u8) -> Vec<u8> {
        let line = format!("{{\"file\":0,\"n\":{n}}}");
        let len = line.len() as u8;
        let head = [10, len + 4, 18, len + 2, 18, len];
        let mut encoder = snap::raw::Encoder::new();
        let body = encoder.compress_vec(&[&head, line.as_bytes()].concat());
        body.expect("compressed")
    }

    #[test]
    fn pushes_are_counted_with_a_length_and_in_chunks() {
        let sink = Sink::start().expect("started");
        let head = "POST /loki/api/v1/push HTTP/1.1\r\nContent-Type: application/x-protobuf\r\n";
        let body = push(3);
        let whole = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        let whole = [whole.as_bytes(), &body].concat();
        assert_eq!(send(&sink, &whole), "HTTP/1.1 204");
        let body = push(2);
        let parts = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            body.len()
        );
        let parts = [parts.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        assert_eq!(send(&sink, &parts), "HTTP/1.1 204");
        assert_eq!(send(&sink, &whole), "HTTP/1.1 204");
        let arrived = sink.wait(Duration::from_secs(5), |a| a.count.entries >= 3);
        let count = Count {
            entries: 3,
            line_bytes: 48,
        };
        assert_eq!(arrived.count, count);
        let places = Places {
            unique: 2,
            repeated: 1,
            out_of_order: 1,
            unknown: 0,
        };
        assert_eq!(arrived.places, places);
        assert_eq!((arrived.requests, arrived.problem), (3, None));
        assert!(arrived.first <= arrived.last && arrived.first.is_some());
        sink.reset();
        assert_eq!(sink.arrived().count, Count::default());
    }

    #[test]
    fn a_request_that_cannot_be_counted_ends_the_wait_and_is_reported() {
        let sink = Sink::start().expect("started");
        let head = "POST /loki/api/v1/push HTTP/1.1\r\nContent-Type: application/json\r\n";
        send(
            &sink,
            format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes(),
        );
        let arrived = sink.wait(Duration::from_secs(5), |a| a.count.entries > 0);
        assert!(
            arrived
                .problem
                .expect("a problem")
                .contains("protobuf only")
        );
    }
}
