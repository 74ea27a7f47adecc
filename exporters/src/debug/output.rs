//! Where the text goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use super::options::DebugOptions;
use super::summary::Summary;

/// One of `output_paths`.
pub(super) enum Sink {
    Stdout,
    Stderr,
    File(File),
}

impl Sink {
    fn open(path: &str) -> Result<Sink, String> {
        match path {
            "stdout" => Ok(Sink::Stdout),
            "stderr" => Ok(Sink::Stderr),
            path => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                file.map(Sink::File)
                    .map_err(|e| format!("output_paths: cannot open {path}: {e}"))
            }
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text)?;
                out.flush()
            }
            Sink::Stderr => io::stderr().lock().write_all(text),
            Sink::File(file) => file.write_all(text),
        }
    }
}

/// The agent's own log, or files. Locked once per batch.
pub(super) enum Output {
    Log,
    Sinks(Mutex<Vec<Sink>>),
}

impl Output {
    pub fn open(options: &DebugOptions) -> Result<Output, String> {
        if options.use_internal_logger {
            return Ok(Output::Log);
        }
        let sinks: Result<Vec<Sink>, String> =
            options.output_paths.iter().map(|p| Sink::open(p)).collect();
        Ok(Output::Sinks(Mutex::new(sinks?)))
    }

    /// The files among `output_paths`.
    pub fn files(options: &DebugOptions) -> impl Iterator<Item = &Path> {
        let paths = options.output_paths.iter().map(String::as_str);
        paths
            .filter(|path| !matches!(*path, "stdout" | "stderr"))
            .map(Path::new)
    }

    /// Shows the summary of a batch, and its text if there is one.
    pub fn show(&self, name: &str, summary: &Summary, text: &[u8]) -> io::Result<()> {
        match self {
            Output::Log => {
                summary.log(name);
                if !text.is_empty() {
                    tracing::info!(
                        exporter = name,
                        "{}",
                        String::from_utf8_lossy(text).trim_end()
                    );
                }
                Ok(())
            }
            Output::Sinks(sinks) => {
                let all = [summary.line().as_bytes(), text].concat();
                let mut sinks = sinks.lock().unwrap_or_else(|e| e.into_inner());
                sinks.iter_mut().try_for_each(|sink| sink.write(&all))
            }
        }
    }
}
