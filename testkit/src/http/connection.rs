//! One connection: read a request, ask the handler, write the answer, repeat.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::parse::{self, BadHead, BodyLength, Head};
use super::{Handler, Pace, Reply, Response, ServerLimits, StopSignal};

/// What is read and thrown away after refusing a body, so that the refusal reaches a client that
/// is still sending instead of being lost in a reset.
const DRAIN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of one chunk header or trailer line.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;

/// Trailer lines after a chunked body.
const TRAILER_LINES_MAX: usize = 64;

/// How much room is made for a body before its bytes arrive: an announced length is only a claim.
const BODY_RESERVE_BYTES_MAX: usize = 1024 * 1024;

/// Why reading stopped.
enum Stop {
    /// The peer is gone, or too slow.
    Io,
    /// The peer broke the protocol.
    Bad(BadHead),
    /// Head larger than the limit.
    HeadTooLarge,
    /// Body larger than the limit; this many bytes were announced or seen.
    BodyTooLarge(usize),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<BadHead> for Stop {
    fn from(bad: BadHead) -> Self {
        Self::Bad(bad)
    }
}

/// Serves a connection until either side ends it.
pub(super) fn serve(
    stream: TcpStream,
    handler: &dyn Handler,
    limits: &ServerLimits,
    stop: &StopSignal,
) {
    let timeouts = stream
        .set_read_timeout(Some(limits.io_timeout))
        .and_then(|()| stream.set_write_timeout(Some(limits.io_timeout)))
        .and_then(|()| stream.set_nodelay(true));
    if timeouts.is_err() {
        return;
    }
    let mut reader = BufReader::with_capacity(16 * 1024, &stream);
    while !stop.is_stopped() {
        match exchange(&mut reader, &stream, handler, limits, stop) {
            Ok(true) => {}
            Ok(false) => return,
            Err(refusal) => return refuse(&mut reader, &stream, refusal, stop),
        }
    }
}

/// Answers one connection too many.
pub(super) fn turn_away(mut stream: TcpStream) {
    let response = Response::text(503, "too many connections\n");
    // The client may be gone already; there is nothing else to do for it.
    let _ = write_response(&mut stream, &response, false, &StopSignal::default());
}

/// The answer that ends a connection whose request was not read to its end.
struct Refusal(Option<Response>);

/// One request and its answer. `Ok(false)` ends the connection.
fn exchange(
    reader: &mut BufReader<&TcpStream>,
    mut writer: &TcpStream,
    handler: &dyn Handler,
    limits: &ServerLimits,
    stop: &StopSignal,
) -> Result<bool, Refusal> {
    let mut head = match read_head(reader, limits.head_bytes_max) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(false),
        Err(cause) => return Err(Refusal(refusal_text(cause))),
    };
    match handler.on_head(&head.request, stop) {
        Some(Reply::Send(response)) => return Err(Refusal(Some(response))),
        Some(Reply::Close) => return Ok(false),
        None => {}
    }
    if head.expects_continue && writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
        return Ok(false);
    }
    match read_body(reader, head.length, handler.body_bytes_max()) {
        Ok(body) => head.request.body = body,
        Err(Stop::BodyTooLarge(bytes)) => {
            return Err(Refusal(Some(handler.on_oversized(&head.request, bytes))));
        }
        Err(cause) => return Err(Refusal(refusal_text(cause))),
    }
    match handler.on_request(head.request, stop) {
        Reply::Close => Ok(false),
        Reply::Send(response) => {
            let written = write_response(&mut writer, &response, head.keep_alive, stop);
            Ok(written.is_ok() && head.keep_alive)
        }
    }
}

fn refusal_text(cause: Stop) -> Option<Response> {
    match cause {
        Stop::Io | Stop::BodyTooLarge(_) => None,
        Stop::Bad(BadHead(text)) => Some(Response::text(400, format!("400 Bad Request: {text}\n"))),
        Stop::HeadTooLarge => Some(Response::text(431, "request header fields too large\n")),
    }
}

/// Sends a refusal, then reads on for a while so that the peer gets to see it.
fn refuse(
    reader: &mut BufReader<&TcpStream>,
    mut writer: &TcpStream,
    refusal: Refusal,
    stop: &StopSignal,
) {
    let Some(response) = refusal.0 else { return };
    let sent = write_response(&mut writer, &response, false, stop);
    if sent.and_then(|()| writer.shutdown(Shutdown::Write)).is_ok() {
        // Whatever ends this (end of data, error, timeout) ends the connection.
        let _ = io::copy(&mut reader.take(DRAIN_BYTES_MAX), &mut io::sink());
    }
}

/// Reads up to the empty line. `Ok(None)` when the peer closed before sending anything.
fn read_head(reader: &mut BufReader<&TcpStream>, max: usize) -> Result<Option<Head>, Stop> {
    let mut bytes = Vec::new();
    loop {
        let line_start = bytes.len();
        match read_line(reader, &mut bytes, max) {
            Ok(()) => {}
            Err(Stop::Io) if bytes.is_empty() => return Ok(None),
            Err(cause) => return Err(cause),
        }
        if &bytes[line_start..] == b"\r\n" {
            // Empty lines before a request line are to be ignored (RFC 9112 section 2.2).
            if line_start == 0 {
                bytes.clear();
                continue;
            }
            return Ok(Some(parse::head(&bytes)?));
        }
    }
}

/// Appends one line with its end; at most `max` bytes may stand in `out` afterwards.
fn read_line(
    reader: &mut BufReader<&TcpStream>,
    out: &mut Vec<u8>,
    max: usize,
) -> Result<(), Stop> {
    let room = max.saturating_sub(out.len()) as u64;
    let read = reader.by_ref().take(room).read_until(b'\n', out)?;
    match out.last() {
        Some(b'\n') if read > 0 => Ok(()),
        _ if read as u64 == room => Err(Stop::HeadTooLarge),
        _ => Err(Stop::Io),
    }
}

fn read_body(
    reader: &mut BufReader<&TcpStream>,
    length: BodyLength,
    max: usize,
) -> Result<Vec<u8>, Stop> {
    let mut body = Vec::new();
    match length {
        BodyLength::Bytes(bytes) if bytes > max => return Err(Stop::BodyTooLarge(bytes)),
        BodyLength::Bytes(bytes) => read_exactly(reader, &mut body, bytes)?,
        BodyLength::Chunked => loop {
            let size = read_chunk_size(reader)?;
            if size > max.saturating_sub(body.len()) {
                return Err(Stop::BodyTooLarge(body.len().saturating_add(size)));
            }
            if size == 0 {
                read_trailers(reader)?;
                break;
            }
            read_exactly(reader, &mut body, size)?;
            let mut end = [0; 2];
            reader.read_exact(&mut end)?;
            if &end != b"\r\n" {
                return Err(BadHead("chunk not followed by a line end").into());
            }
        },
    }
    Ok(body)
}

fn read_exactly(
    reader: &mut BufReader<&TcpStream>,
    body: &mut Vec<u8>,
    bytes: usize,
) -> Result<(), Stop> {
    body.reserve(bytes.min(BODY_RESERVE_BYTES_MAX));
    let read = reader.by_ref().take(bytes as u64).read_to_end(body)?;
    if read == bytes { Ok(()) } else { Err(Stop::Io) }
}

fn read_chunk_size(reader: &mut BufReader<&TcpStream>) -> Result<usize, Stop> {
    let mut line = Vec::new();
    read_line(reader, &mut line, CHUNK_LINE_BYTES_MAX)?;
    let line = line
        .strip_suffix(b"\r\n")
        .ok_or(BadHead("malformed chunk header"))?;
    Ok(parse::chunk_size(line)?)
}

fn read_trailers(reader: &mut BufReader<&TcpStream>) -> Result<(), Stop> {
    for _ in 0..TRAILER_LINES_MAX {
        let mut line = Vec::new();
        read_line(reader, &mut line, CHUNK_LINE_BYTES_MAX)?;
        if line == b"\r\n" {
            return Ok(());
        }
    }
    Err(BadHead("too many trailers").into())
}

fn write_response(
    writer: &mut impl Write,
    response: &Response,
    keep_alive: bool,
    stop: &StopSignal,
) -> io::Result<()> {
    let bodiless = matches!(response.status, 204 | 304) || response.status < 200;
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        response.status,
        reason(response.status)
    );
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !bodiless {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    head.push_str(if keep_alive {
        "\r\n"
    } else {
        "Connection: close\r\n\r\n"
    });
    let mut out = head.into_bytes();
    match response.pace {
        _ if bodiless => writer.write_all(&out)?,
        Pace::Fast => {
            out.extend_from_slice(&response.body);
            writer.write_all(&out)?;
        }
        Pace::Slow { bytes, pause } => {
            writer.write_all(&out)?;
            for piece in response.body.chunks(bytes.max(1)) {
                writer.write_all(piece)?;
                if stop.wait(pause) {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
    }
    writer.flush()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        // A reason may be empty (RFC 9112 section 4); Loki's 260 has none either.
        _ => "",
    }
}
