//! Where lines go: a thread of their own writes them, so that a blocked terminal or a full disk
//! never stops a thread that moves data.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tracing::Level;

use super::LogError;
use super::encode::Line;
use super::recent::Recent;
use crate::metrics::SelfLogMetrics;

/// Lines that wait for the writer at most; more are lost and counted.
const LINES_MAX: usize = 4096;

/// One destination of log lines (`output_paths`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputPath {
    /// The standard error stream.
    Stderr,
    /// The standard output stream.
    Stdout,
    /// A file that is appended to.
    File(PathBuf),
}

impl OutputPath {
    /// `stderr`, `stdout`, a path or a `file://` URL, as the collector spells them.
    pub fn parse(text: &str) -> OutputPath {
        match text {
            "stderr" => OutputPath::Stderr,
            "stdout" => OutputPath::Stdout,
            path => {
                let path = path.strip_prefix("file://").unwrap_or(path);
                let path = path.strip_prefix("localhost").unwrap_or(path);
                OutputPath::File(PathBuf::from(path))
            }
        }
    }
}

enum Sink {
    Stderr,
    Stdout,
    File { path: PathBuf, file: File },
}

fn open(path: &Path) -> Result<File, LogError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| LogError::Open {
        path: path.to_owned(),
        source,
    })
}

/// An open output.
struct Output {
    sink: Sink,
    colour: bool,
    failing: bool,
}

impl Output {
    fn open(path: &OutputPath) -> Result<Output, LogError> {
        let colour_wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let (sink, terminal) = match path {
            OutputPath::Stderr => (Sink::Stderr, std::io::stderr().is_terminal()),
            OutputPath::Stdout => (Sink::Stdout, std::io::stdout().is_terminal()),
            OutputPath::File(path) => (
                Sink::File {
                    path: path.clone(),
                    file: open(path)?,
                },
                false,
            ),
        };
        Ok(Output {
            sink,
            colour: terminal && colour_wanted,
            failing: false,
        })
    }

    fn write(&mut self, line: &Line, coloured: &str) -> std::io::Result<()> {
        let text = if self.colour { coloured } else { &line.text };
        match &mut self.sink {
            Sink::Stderr => std::io::stderr().lock().write_all(text.as_bytes()),
            Sink::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()
            }
            Sink::File { file, .. } => file.write_all(text.as_bytes()),
        }
    }

    fn name(&self) -> String {
        match &self.sink {
            Sink::Stderr => "stderr".to_owned(),
            Sink::Stdout => "stdout".to_owned(),
            Sink::File { path, .. } => path.display().to_string(),
        }
    }
}

/// `line` with its level in colour.
fn coloured(line: &Line) -> String {
    let code = match line.level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "35",
    };
    let (before, rest) = line.text.split_at(line.level_at.start);
    let (level, after) = rest.split_at(line.level_at.end - line.level_at.start);
    format!("{before}\u{1b}[{code}m{level}\u{1b}[0m{after}")
}

/// All outputs, and where trouble with them is told.
pub(crate) struct Outputs {
    outputs: Vec<Output>,
    errors: Vec<Output>,
}

impl Outputs {
    /// Opens everything.
    pub(crate) fn open(paths: &[OutputPath], errors: &[OutputPath]) -> Result<Outputs, LogError> {
        let all = |paths: &[OutputPath]| -> Result<Vec<Output>, LogError> {
            paths.iter().map(Output::open).collect()
        };
        Ok(Outputs {
            outputs: all(paths)?,
            errors: all(errors)?,
        })
    }

    /// Writes a line to every output; false if one of them did not take it.
    fn write(&mut self, line: &Line) -> bool {
        let coloured = coloured(line);
        let mut trouble = Vec::new();
        let mut ok = true;
        for output in &mut self.outputs {
            let result = output.write(line, &coloured);
            ok &= result.is_ok();
            // Told once when it begins, not for every line.
            if let Err(error) = &result
                && !output.failing
            {
                trouble.push(format!(
                    "cannot write the log to {}: {error}\n",
                    output.name()
                ));
            }
            output.failing = result.is_err();
        }
        for text in trouble {
            let told = Line {
                level_at: 0..0,
                level: Level::ERROR,
                text,
            };
            for output in &mut self.errors {
                // Nobody is left to tell when this fails too.
                let _ = output.write(&told, &told.text);
            }
        }
        ok
    }

    fn reopen(&mut self) {
        for output in self.outputs.iter_mut().chain(&mut self.errors) {
            if let Sink::File { path, file } = &mut output.sink
                && let Ok(fresh) = open(path)
            {
                *file = fresh;
            }
        }
    }
}

enum Order {
    Line(Line),
    Replace(Outputs),
    Reopen,
    Flush(Sender<()>),
}

/// Hands lines to the writing thread. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Writer {
    orders: Sender<Order>,
    metrics: Arc<SelfLogMetrics>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} lines wait)", self.orders.len())
    }
}

impl Writer {
    /// Starts the thread that writes to `outputs`.
    pub(crate) fn start(
        outputs: Outputs,
        metrics: Arc<SelfLogMetrics>,
        recent: Arc<Recent>,
    ) -> Result<Writer, LogError> {
        let (orders, taken) = bounded(LINES_MAX);
        let counted = metrics.clone();
        let thread = std::thread::Builder::new().name("self-log".to_owned());
        thread
            .spawn(move || run(outputs, &taken, &counted, &recent))
            .map_err(LogError::Thread)?;
        Ok(Writer { orders, metrics })
    }

    /// Hands over a line; never blocks.
    pub(crate) fn write(&self, line: Line) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.orders.try_send(Order::Line(line))
        {
            self.metrics.lines_lost.inc();
        }
    }

    /// Later lines go to `outputs`. Waits at most `timeout` for the writer.
    pub(crate) fn replace(&self, outputs: Outputs, timeout: Duration) -> Result<(), LogError> {
        let sent = self.orders.send_timeout(Order::Replace(outputs), timeout);
        sent.map_err(|_| LogError::Blocked)
    }

    /// Opens files anew, after they were rotated.
    pub(crate) fn reopen(&self, timeout: Duration) -> Result<(), LogError> {
        self.orders
            .send_timeout(Order::Reopen, timeout)
            .map_err(|_| LogError::Blocked)
    }

    /// Waits until everything handed over so far is written, at most twice `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), LogError> {
        let (done, wait) = bounded(1);
        let sent = self.orders.send_timeout(Order::Flush(done), timeout);
        sent.map_err(|_| LogError::Blocked)?;
        wait.recv_timeout(timeout).map_err(|_| LogError::Blocked)
    }
}

fn run(mut outputs: Outputs, orders: &Receiver<Order>, metrics: &SelfLogMetrics, recent: &Recent) {
    for order in orders {
        match order {
            Order::Line(line) => {
                // Before: an output that is blocked is one of the things that a report is about.
                recent.push(&line.text);
                if !outputs.write(&line) {
                    metrics.lines_lost.inc();
                }
            }
            Order::Replace(new) => outputs = new,
            Order::Reopen => outputs.reopen(),
            Order::Flush(done) => {
                // The asker may have given up waiting.
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_goes_around_the_level_and_nothing_else() {
        let text = "time\twarn\tmessage\n".to_owned();
        let line = Line {
            text,
            level_at: 5..9,
            level: Level::WARN,
        };
        assert_eq!(coloured(&line), "time\t\u{1b}[33mwarn\u{1b}[0m\tmessage\n");
    }
}
