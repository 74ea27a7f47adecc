//! An agent that tails files and pushes them to Loki, soundly or not: what it loses and repeats at a reload
//! has to be found.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;

/// How long it waits when there is nothing to read.
const PAUSE: Duration = Duration::from_millis(5);
/// Lines that it sends at once at most.
const BATCH_LINES_MAX: usize = 2_000;

/// What it does at a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Manner {
    /// Nothing that anybody could see.
    Sound,
    /// It drops the lines that it has read and not sent, sends the last ones again, and rests.
    Faulty,
}

/// How long a faulty one rests.
pub const REST: Duration = Duration::from_millis(300);

/// A file that is read, found again by its inode.
struct Tailed {
    reader: BufReader<File>,
    /// What was read of a line that is not complete.
    half: String,
}

/// Tails `*.log` in `dir`, pushes to Loki at `to`, and answers each request at `control`, until it is
/// killed.
///
/// # Errors
/// If it cannot read, listen or push.
pub fn run(dir: &Path, to: SocketAddr, control: SocketAddr, manner: Manner) -> Result<()> {
    let reloads = listen(control)?;
    let mut files: BTreeMap<(PathBuf, u64), Tailed> = BTreeMap::new();
    let mut sink = TcpStream::connect(to).context("Loki")?;
    let (mut batch, mut last) = (Vec::new(), Vec::new());
    loop {
        open_new(dir, &mut files)?;
        let mut read = false;
        for file in files.values_mut() {
            read |= lines(file, &mut batch)?;
        }
        if reloads.try_recv().is_ok() && manner == Manner::Faulty {
            batch = last.clone();
            std::thread::sleep(REST);
        }
        if batch.is_empty() {
            std::thread::sleep(PAUSE);
            continue;
        }
        push(&mut sink, &batch)?;
        last = std::mem::take(&mut batch);
        if !read {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Says each time that somebody asks for a reload, which is answered at once.
fn listen(control: SocketAddr) -> Result<Receiver<()>> {
    let listener = TcpListener::bind(control).context("control")?;
    let (say, reloads) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = say.send(());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    Ok(reloads)
}

/// Files that are renamed stay open; a new one of the same name is another.
fn open_new(dir: &Path, files: &mut BTreeMap<(PathBuf, u64), Tailed>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        // Between two steps of a rotation there is none.
        let Ok(file) = File::open(&path) else {
            continue;
        };
        let key = (path, file.metadata()?.ino());
        files.entry(key).or_insert_with(|| Tailed {
            reader: BufReader::with_capacity(1 << 20, file),
            half: String::new(),
        });
    }
    Ok(())
}

/// Reads complete lines; true if there were any.
fn lines(file: &mut Tailed, batch: &mut Vec<String>) -> Result<bool> {
    let mut any = false;
    while batch.len() < BATCH_LINES_MAX {
        if file.reader.read_line(&mut file.half)? == 0 || !file.half.ends_with('\n') {
            break;
        }
        let mut line = std::mem::take(&mut file.half);
        line.pop();
        batch.push(line);
        any = true;
    }
    Ok(any)
}

fn push(sink: &mut TcpStream, batch: &[String]) -> Result<()> {
    let values: Vec<_> = batch.iter().map(|line| json!(["1", line])).collect();
    let body = json!({"streams": [{"stream": {"job": "bench"}, "values": values}]}).to_string();
    write!(
        sink,
        "POST /loki/api/v1/push HTTP/1.1\r\nHost: loki\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"\r\n\r\n") {
        match sink.read(&mut piece)? {
            0 => bail!("Loki closed the connection"),
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    if !answer.starts_with(b"HTTP/1.1 204") {
        bail!("{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
