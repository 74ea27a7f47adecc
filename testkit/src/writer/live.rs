//! A writer on a thread of its own, at a rate.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::LogWriter;
use crate::http::lock;

/// The shortest time between two writes.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Lines written at once at most, so that stopping never waits long.
const BURST_LINES_MAX: u64 = 10_000;

/// How a [`LiveWriter`] runs.
#[derive(Debug, Clone, Copy)]
pub struct LiveOptions {
    /// The rate; 0 is as fast as possible.
    pub lines_per_second: u64,
    /// Rotate after so many lines.
    pub rotate_every_lines: Option<u64>,
    /// End by itself after so many lines.
    pub lines_max: Option<u64>,
}

/// A running writer. Dropping it stops the thread too, and loses its result.
#[derive(Debug)]
pub struct LiveWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<LogWriter>>>,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    stop: bool,
    finished: bool,
    lines: u64,
}

impl LiveWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// What starting a thread fails with.
    pub fn start(writer: LogWriter, options: LiveOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("writer-{}", writer.options().id))
            .spawn(move || {
                let result = run(writer, options, &for_thread);
                lock(&for_thread.progress).finished = true;
                for_thread.changed.notify_all();
                result
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Lines written by the thread so far.
    pub fn lines(&self) -> u64 {
        lock(&self.shared.progress).lines
    }

    /// Waits until the thread has written so many lines, or has ended, at most `time`. True when
    /// the lines are written.
    pub fn wait_lines(&self, lines: u64, time: Duration) -> bool {
        let progress = lock(&self.shared.progress);
        let wait = self
            .shared
            .changed
            .wait_timeout_while(progress, time, |progress| {
                progress.lines < lines && !progress.finished
            });
        wait.unwrap_or_else(PoisonError::into_inner).0.lines >= lines
    }

    /// Stops after the piece under way and gives the writer back.
    ///
    /// # Errors
    /// What writing or rotating failed with; the thread has ended then.
    pub fn stop(mut self) -> io::Result<LogWriter> {
        self.ask_to_stop();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the writer's thread panicked")),
        }
    }

    fn ask_to_stop(&self) {
        lock(&self.shared.progress).stop = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for LiveWriter {
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            // Its error has nobody to go to; a panic has been printed.
            let _ = thread.join();
        }
    }
}

fn run(mut writer: LogWriter, options: LiveOptions, shared: &Shared) -> io::Result<LogWriter> {
    let begin = Instant::now();
    let mut lines = 0;
    loop {
        let left = options.lines_max.map_or(u64::MAX, |max| max - lines);
        let due = match options.lines_per_second {
            0 => BURST_LINES_MAX,
            rate => due_lines(begin.elapsed(), rate).saturating_sub(lines),
        };
        let until_rotation = options
            .rotate_every_lines
            .map_or(u64::MAX, |every| every.max(1) - lines % every.max(1));
        let count = due.min(left).min(until_rotation).min(BURST_LINES_MAX);
        writer.write_lines(count)?;
        lines += count;
        if count > 0 && count == until_rotation {
            writer.rotate()?;
        }
        let mut progress = lock(&shared.progress);
        progress.lines = lines;
        shared.changed.notify_all();
        if progress.stop || options.lines_max == Some(lines) {
            return Ok(writer);
        }
        if count == due && options.lines_per_second > 0 {
            let next =
                Duration::from_secs_f64((lines + 1) as f64 / options.lines_per_second as f64);
            let pause = next.saturating_sub(begin.elapsed()).max(PAUSE_MIN);
            let wait = shared
                .changed
                .wait_timeout_while(progress, pause, |p| !p.stop);
            drop(wait);
        }
    }
}

/// Lines that should have been written after `elapsed`.
fn due_lines(elapsed: Duration, rate: u64) -> u64 {
    (elapsed.as_secs_f64() * rate as f64) as u64
}
