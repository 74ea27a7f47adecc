//! Clients of OTLP, over HTTP/1.1 and gRPC, that show what they were answered.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_testkit::time::system_unix_nanos;

/// A client that waits longer than this waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);

/// Compressions that the collector takes over HTTP.
pub const ENCODINGS: [&str; 7] = [
    "identity", "gzip", "zstd", "zlib", "snappy", "deflate", "lz4",
];

/// Those that it takes over gRPC.
pub const GRPC_ENCODINGS: [&str; 4] = ["identity", "gzip", "zstd", "snappy"];

/// `plain` as a client compresses it.
///
/// # Panics
/// When the name is none of [`ENCODINGS`].
pub fn compress(encoding: &str, plain: &[u8]) -> Vec<u8> {
    try_compress(encoding, plain).expect("in memory")
}

fn try_compress(encoding: &str, plain: &[u8]) -> io::Result<Vec<u8>> {
    let level = flate2::Compression::default();
    match encoding {
        "identity" => Ok(plain.to_vec()),
        "gzip" => {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), level);
            w.write_all(plain)?;
            w.finish()
        }
        "zlib" | "deflate" => {
            let mut w = flate2::write::ZlibEncoder::new(Vec::new(), level);
            w.write_all(plain)?;
            w.finish()
        }
        "zstd" => zstd::encode_all(plain, 1),
        "snappy" => {
            let mut w = snap::write::FrameEncoder::new(Vec::new());
            w.write_all(plain)?;
            w.into_inner().map_err(|e| io::Error::other(e.to_string()))
        }
        "lz4" => {
            let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
            w.write_all(plain)?;
            w.finish().map_err(io::Error::other)
        }
        other => panic!("{other} is no compression"),
    }
}

/// A request of one log record of now with this body, in JSON.
pub fn log_json(body: &str) -> String {
    let time = system_unix_nanos();
    format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"{time}",
            "body":{{"stringValue":"{body}"}}}}]}}]}}]}}"#
    )
}

/// A field of protobuf that holds bytes; its number is below 16.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(content);
    out
}

/// A request of one item, as the message that it is.
fn request_proto(item: &[u8]) -> Vec<u8> {
    // resource_logs 1, scope_logs 2, log_records 2; so in the other signals.
    field(1, &field(2, &field(2, item)))
}

/// The same in protobuf.
pub fn log_proto(body: &str) -> Vec<u8> {
    // LogRecord: time_unix_nano 1 (fixed64), body 5; AnyValue: string_value 1.
    let text = field(5, &field(1, body.as_bytes()));
    request_proto(&[&[0x09][..], &system_unix_nanos().to_le_bytes(), &text].concat())
}

/// A request of one metric of this name, a gauge with one point, in protobuf.
pub fn metric_proto(name: &str) -> Vec<u8> {
    // Metric: name 1, gauge 5; Gauge: data_points 1; NumberDataPoint: time_unix_nano 3, as_double 4.
    let time = system_unix_nanos().to_le_bytes();
    let point = [&[0x19][..], &time, &[0x21], &1.0_f64.to_le_bytes()].concat();
    request_proto(&[field(1, name.as_bytes()), field(5, &field(1, &point))].concat())
}

/// A request of one span of this name, in protobuf.
pub fn span_proto(name: &str) -> Vec<u8> {
    // Span: trace_id 1, span_id 2, name 5.
    request_proto(
        &[
            field(1, &[7; 16]),
            field(2, &[8; 8]),
            field(5, name.as_bytes()),
        ]
        .concat(),
    )
}

/// An answer of HTTP.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A connection of HTTP/1.1.
#[derive(Debug)]
pub struct HttpClient {
    stream: BufReader<TcpStream>,
}

impl HttpClient {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(port: u16) -> io::Result<HttpClient> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(HttpClient {
            stream: BufReader::new(stream),
        })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// The connection broke.
    pub fn post(
        &mut self,
        path: &str,
        kind: &str,
        encoding: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n\
             Content-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        self.stream.get_mut().write_all(&request)?;
        self.answer()
    }

    /// Sends what is no request.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// The connection broke, or ended without one.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        let length = head.lines().find_map(|line| {
            let lower = line.to_ascii_lowercase();
            lower.strip_prefix("content-length: ")?.parse().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body)?;
        Ok(Answer {
            status: status.unwrap_or(0),
            head,
            body,
        })
    }
}

/// A client of gRPC; a connection for each call.
#[derive(Debug)]
pub struct GrpcClient {
    runtime: tokio::runtime::Runtime,
    port: u16,
}

impl GrpcClient {
    /// A client of a port.
    ///
    /// # Panics
    /// When there is no runtime.
    pub fn new(port: u16) -> GrpcClient {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        GrpcClient { runtime, port }
    }

    /// Exports logs; the status of gRPC.
    ///
    /// # Errors
    /// The connection broke.
    pub fn export_logs(&self, encoding: &str, body: &[u8]) -> io::Result<u8> {
        self.export_compressed(encoding, &compress(encoding, body))
    }

    /// Exports logs that are compressed already; the status of gRPC.
    ///
    /// # Errors
    /// The connection broke.
    pub fn export_compressed(&self, encoding: &str, message: &[u8]) -> io::Result<u8> {
        let call = async { tokio::time::timeout(PATIENCE, self.call(encoding, message)).await };
        let answer = self.runtime.block_on(call);
        answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn call(&self, encoding: &str, message: &[u8]) -> io::Result<u8> {
        let other = |e: hyper::Error| io::Error::other(e.to_string());
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(other)?;
        let connection = tokio::spawn(connection);
        let flag = u8::from(encoding != "identity");
        let length = u32::try_from(message.len()).expect("small").to_be_bytes();
        let frame = [&[flag][..], &length, message].concat();
        let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        let request = Request::post(format!("http://127.0.0.1{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", encoding)
            .body(Full::new(Bytes::from(frame)))
            .expect("a request");
        let response = sender.send_request(request).await.map_err(other)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(other)?;
        let status = head.headers.get("grpc-status").or(body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status")));
        let status = status.and_then(|s| s.to_str().ok()?.parse().ok());
        connection.abort();
        status.ok_or_else(|| io::Error::other("no grpc-status"))
    }
}
