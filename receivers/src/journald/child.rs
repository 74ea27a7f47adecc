//! The process, and its lines on their way to the shard.
//!
//! A thread reads what it prints and stops reading where too much waits, which stops the process. It is started
//! again when it ends, later each time that nothing came of it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tailwater_pipeline::Wake;
use tailwater_telemetry::metrics::JournalMetrics;

use super::entry::cursor_of;

/// Bytes of lines that wait for the shard.
const QUEUE_BYTES: usize = 1 << 20;
/// Pauses before it is started again: the first, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a line of what it says of itself.
const WORDS_BYTES_MAX: usize = 1 << 10;

/// Lines that no shard has taken yet.
pub struct Lines {
    state: Mutex<State>,
    /// There is room, or it stops.
    changed: Condvar,
    waker: Arc<dyn Wake>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    stopping: bool,
    child: Option<Child>,
}

impl Lines {
    /// None yet; `waker` is woken when there are some.
    pub fn new(waker: Arc<dyn Wake>) -> Arc<Lines> {
        Arc::new(Lines {
            state: Mutex::default(),
            changed: Condvar::new(),
            waker,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next line.
    pub fn pop(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let line = state.lines.pop_front()?;
        state.bytes -= line.len();
        self.changed.notify_all();
        Some(line)
    }

    /// Puts a line behind the others as soon as there is room; false if it stops.
    fn push(&self, line: Vec<u8>) -> bool {
        let mut state = self.lock();
        // A line that is longer than all may come alone.
        while !state.stopping && state.bytes > 0 && state.bytes + line.len() > QUEUE_BYTES {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopping {
            return false;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        let first = state.lines.len() == 1;
        drop(state);
        if first {
            self.waker.wake();
        }
        true
    }

    /// Ends the process, and nothing comes any more.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        if let Some(child) = &mut state.child {
            end(child);
        }
        self.changed.notify_all();
    }

    /// Waits, unless it stops; false if it does.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.stopping {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.stopping
    }
}

/// Ends a process with all that it has started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // Fails only if it has ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
}

/// The program and its arguments, to go on after a cursor if there is one.
pub type Invocation = dyn Fn(Option<&str>) -> (String, Vec<String>) + Send;

/// What the thread runs, and where it begins.
pub struct Reading {
    /// What is started.
    pub command: Box<Invocation>,
    /// The last entry that is delivered.
    pub cursor: Option<String>,
    /// Longest line.
    pub line_bytes_max: usize,
    /// Counters.
    pub metrics: Arc<JournalMetrics>,
    /// The receiver, for messages.
    pub id: Arc<str>,
}

impl Reading {
    /// Reads on a thread of its own until `lines` are stopped.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(self, lines: Arc<Lines>) -> std::io::Result<JoinHandle<()>> {
        let thread = std::thread::Builder::new().name("journald".to_owned());
        thread.spawn(move || self.run(&lines))
    }

    fn run(mut self, lines: &Lines) {
        let mut pause = PAUSE;
        loop {
            let came = match self.spawn(lines) {
                Ok(None) => return,
                Ok(Some(stdout)) => {
                    let came = self.read(stdout, lines);
                    let status = reap(lines);
                    if lines.lock().stopping {
                        return;
                    }
                    tracing::warn!(
                        receiver = %self.id, status, "journalctl ended; it is started again soon"
                    );
                    came
                }
                Err(e) => {
                    tracing::error!(
                        receiver = %self.id, error = %e,
                        "cannot start journalctl; trying again soon (journalctl_path says where it is)"
                    );
                    false
                }
            };
            self.metrics.restarts.inc();
            if came {
                pause = PAUSE;
            }
            if !lines.pause(pause) {
                return;
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// Starts the process; `None` if it is to stop.
    fn spawn(&self, lines: &Lines) -> std::io::Result<Option<impl Read + use<>>> {
        let (program, arguments) = (self.command)(self.cursor.as_deref());
        // Under the lock: who stops finds it, or comes before.
        let mut state = lines.lock();
        if state.stopping {
            return Ok(None);
        }
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        state.child = Some(child);
        drop(state);
        if let Some(stderr) = stderr {
            let id = self.id.clone();
            let thread = std::thread::Builder::new().name("journald-words".to_owned());
            if let Err(e) = thread.spawn(move || pass_on(stderr, &id)) {
                reap(lines);
                return Err(e);
            }
        }
        Ok(stdout)
    }

    /// Reads to the end; whether anything came.
    fn read(&mut self, stdout: impl Read, lines: &Lines) -> bool {
        let mut from = BufReader::with_capacity(64 << 10, stdout);
        let mut came = false;
        let mut line = Vec::new();
        loop {
            line.clear();
            match next_line(&mut from, self.line_bytes_max, &mut line) {
                Ok(Line::End) => return came,
                Err(e) => {
                    tracing::warn!(receiver = %self.id, error = %e, "cannot read from journalctl");
                    return came;
                }
                Ok(Line::TooLong) => {
                    self.metrics.oversized_entries.inc();
                    tracing::warn!(
                        receiver = %self.id,
                        "an entry is longer than entry_bytes_max, and is left out"
                    );
                }
                Ok(Line::Whole) => {
                    came = true;
                    if let Some(cursor) = cursor_of(&line) {
                        self.cursor = Some(cursor.to_owned());
                    }
                    if !lines.push(std::mem::take(&mut line)) {
                        return came;
                    }
                }
            }
        }
    }
}

/// Waits for a process that has nothing more to say; how it ended.
fn reap(lines: &Lines) -> String {
    let child = lines.lock().child.take();
    let Some(mut child) = child else {
        return "unknown".to_owned();
    };
    // It may have closed its output and go on.
    let ended = child.try_wait().ok().flatten();
    if ended.is_none() {
        end(&mut child);
    }
    match ended.map_or_else(|| child.wait(), Ok) {
        Ok(status) => status.to_string(),
        Err(e) => e.to_string(),
    }
}

/// Logs what it says of itself, line by line.
fn pass_on(stderr: impl Read, id: &str) {
    let mut from = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match next_line(&mut from, WORDS_BYTES_MAX, &mut line) {
            Ok(Line::End) | Err(_) => return,
            Ok(Line::TooLong | Line::Whole) => {
                let words = String::from_utf8_lossy(&line);
                tracing::warn!(receiver = id, "journalctl: {words}");
            }
        }
    }
}

/// What was read.
#[derive(Debug, PartialEq)]
enum Line {
    Whole,
    /// Of it only the begin is there.
    TooLong,
    End,
}

/// Reads a line without its end; what the last line lacks at the end of all is no line.
fn next_line(
    from: &mut impl BufRead,
    bytes_max: usize,
    line: &mut Vec<u8>,
) -> std::io::Result<Line> {
    let mut long = false;
    loop {
        let some = match from.fill_buf() {
            Ok(some) => some,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if some.is_empty() {
            return Ok(Line::End);
        }
        let end = memchr::memchr(b'\n', some);
        let part = &some[..end.unwrap_or(some.len())];
        let fits = part.len().min(bytes_max - line.len());
        long |= fits < part.len();
        line.extend_from_slice(&part[..fits]);
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        match end {
            Some(_) if long => return Ok(Line::TooLong),
            Some(_) if line.is_empty() => {}
            Some(_) => return Ok(Line::Whole),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_length() {
        for capacity in 1..8 {
            let text = &b"abc\n\nabcdef\nabcdefg\nxyz\nrest"[..];
            let mut from = BufReader::with_capacity(capacity, text);
            let mut all = Vec::new();
            loop {
                let mut line = Vec::new();
                let what = next_line(&mut from, 6, &mut line).unwrap();
                if what == Line::End {
                    break;
                }
                all.push((what, String::from_utf8(line).unwrap()));
            }
            let whole = |text: &str| (Line::Whole, text.to_owned());
            let long = (Line::TooLong, "abcdef".to_owned());
            assert_eq!(all, [whole("abc"), whole("abcdef"), long, whole("xyz")]);
        }
    }
}
