//! Asking an agent by its admin API: one connection for each request.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an answer may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A way in.
#[derive(Debug, Clone)]
pub enum Way {
    /// A socket.
    Socket(PathBuf),
    /// An address, and the token that is sent, if one is.
    Endpoint(SocketAddr, Option<String>),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The value of a header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Way {
    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Way::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                Box::new(stream)
            }
            Way::Endpoint(address, _) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                Box::new(stream)
            }
        })
    }

    /// Asks with further headers, and reads the whole answer.
    ///
    /// # Errors
    /// There is no connection, or no HTTP on it.
    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Reply> {
        let stream = self.connect()?;
        self.exchange(stream, method, path, headers, body, body.len())
    }

    /// Says that a body of `length` bytes follows, and sends none of it.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn announce(&self, method: &str, path: &str, length: usize) -> Reply {
        let asking = |stream| self.exchange(stream, method, path, &[], b"", length);
        let reply = self.connect().and_then(asking);
        reply.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// A look whose answer comes line by line.
    ///
    /// # Panics
    /// When there is no answer that begins.
    pub fn follow(&self, path: &str) -> Lines {
        let begin = || {
            let mut stream = self.connect()?;
            stream.write_all(self.head("GET", path, &[], 0).as_bytes())?;
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Err(io::Error::other("no HTTP"));
                }
            }
            let chunked = head.to_ascii_lowercase().contains("chunked");
            let reply = parse(&head).ok_or_else(|| io::Error::other("no HTTP"))?;
            Ok(Lines {
                reply,
                reader,
                chunked,
                rest: Vec::new(),
            })
        };
        begin().unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        if let Way::Endpoint(_, Some(token)) = self {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + &format!("Content-Length: {length}\r\n\r\n")
    }

    fn exchange(
        &self,
        mut stream: Box<dyn Stream>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        length: usize,
    ) -> io::Result<Reply> {
        stream.write_all(self.head(method, path, headers, length).as_bytes())?;
        // Who does not want a body may answer before it has read it.
        let sent = stream.write_all(body);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(e) if answer.is_empty() => return Err(sent.err().unwrap_or(e)),
            _ => {}
        }
        parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| io::Error::other("no HTTP"))
    }

    /// As [`Way::try_ask`].
    ///
    /// # Panics
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.try_ask(method, path, headers, body.as_bytes())
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// A look.
    ///
    /// # Panics
    /// As [`Way::ask`].
    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "")
    }
}

/// An answer that comes line by line; dropping it closes the connection.
pub struct Lines {
    /// Its head; the body is empty.
    pub reply: Reply,
    reader: BufReader<Box<dyn Stream>>,
    chunked: bool,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line, without its end; none at the end of the answer.
    ///
    /// # Errors
    /// The connection broke, or nothing came for a minute.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        let begin = Instant::now();
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if begin.elapsed() > TIMEOUT {
                return Err(io::Error::other("no whole line"));
            }
            let size = self.next_chunk()?;
            if size == 0 {
                return Ok(None);
            }
            let from = self.rest.len();
            self.rest.resize(from + size, 0);
            self.reader.read_exact(&mut self.rest[from..])?;
            if self.chunked {
                self.reader.read_line(&mut String::new())?;
            }
        }
    }

    /// How many bytes come in one piece; 0 at the end.
    fn next_chunk(&mut self) -> io::Result<usize> {
        if !self.chunked {
            return Ok(self.reader.fill_buf()?.len());
        }
        let mut size = String::new();
        self.reader.read_line(&mut size)?;
        usize::from_str_radix(size.trim(), 16)
            .map_err(|e| io::Error::other(format!("{size:?}: {e}")))
    }
}

fn parse(answer: &str) -> Option<Reply> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(Reply {
        status,
        headers: lines.filter_map(header).collect(),
        body: body.to_owned(),
    })
}
