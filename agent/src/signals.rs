//! The signals that ask the agent to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::run::reread;
use crate::control::Control;

/// The signals, caught but not counted yet.
pub struct Caught {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Caught {
    /// From now on, for as long as the process runs, none of the signals ends it; they are kept for
    /// [`Caught::listen`]. Starts no thread.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn catch() -> Result<Caught> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("cannot listen for signals")?;
        let context = runtime.enter();
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        drop(context);
        Ok(Caught {
            runtime,
            terminate,
            interrupt,
            hang_up,
        })
    }

    /// Counts them: SIGTERM and SIGINT unpark the calling thread. SIGHUP asks `control` to read the
    /// configuration again, as it reloads the collector.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn listen(self, control: Option<Control>) -> Result<Signals> {
        let stops = Arc::new(AtomicU32::new(0));
        let (told, waiting) = (stops.clone(), std::thread::current());
        let Caught {
            runtime,
            mut terminate,
            mut interrupt,
            mut hang_up,
        } = self;
        let count = async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hang_up.recv() => {
                        match &control {
                            Some(control) => control.ask(reread("SIGHUP")),
                            None => tracing::warn!("SIGHUP: there is nothing to read again"),
                        }
                        continue;
                    }
                }
                told.fetch_add(1, Ordering::AcqRel);
                waiting.unpark();
            }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(count))
            .context("cannot listen for signals")?;
        Ok(Signals { stops })
    }
}

/// Counts requests to stop, and wakes the thread that waits for them.
pub struct Signals {
    stops: Arc<AtomicU32>,
}

impl Signals {
    /// Catches the signals and counts them.
    ///
    /// # Errors
    /// As [`Caught::catch`] and [`Caught::listen`].
    pub fn listen() -> Result<Signals> {
        Caught::catch()?.listen(None)
    }

    /// How often stopping was asked for.
    pub fn stops(&self) -> u32 {
        self.stops.load(Ordering::Acquire)
    }
}
