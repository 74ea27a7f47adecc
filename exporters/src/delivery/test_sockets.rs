//! The agent's socket thread, for tests.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;

/// One thread that runs a runtime for sockets, as the agent has it.
pub(crate) struct Sockets {
    /// Where to spawn.
    pub handle: Handle,
    stop: Arc<Notify>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sockets {
    pub fn new() -> Sockets {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let stop = Arc::new(Notify::new());
        let wait = stop.clone();
        let thread = std::thread::spawn(move || runtime.block_on(wait.notified()));
        Sockets {
            handle,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(t) = self.thread.take() {
            t.join().unwrap();
        }
    }
}
