//! The production driver of a shard: a thread that sleeps until data or the next timer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tailwater_telemetry::health::{ComponentHealth, HealthRegistry, State, Watch};
use tailwater_telemetry::metrics::EngineMetrics;

use super::{DRAIN_POLL, Shard, Step};
use crate::clock::Clock;
use crate::component::{ShardHandle, Wake};

/// Wakes a shard's thread; one atomic swap when it is awake anyway.
#[derive(Default)]
pub struct ShardWaker {
    pending: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Wake for ShardWaker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel)
            && let Some(thread) = &*self.thread.lock().unwrap_or_else(|e| e.into_inner())
        {
            thread.unpark();
        }
    }
}

impl ShardWaker {
    fn take(&self) -> bool {
        self.pending.swap(false, Ordering::AcqRel)
    }
}

/// Something to do to a shard between two batches.
pub type Command = Box<dyn FnOnce(&mut Shard) + Send>;

enum Message {
    Do(Command),
    Drain,
    /// The thread ends and gives what it ran.
    Move,
    Stop,
}

/// How a shard's thread goes on.
enum Go {
    On,
    Elsewhere,
    Home,
}

/// Where commands to a shard are put. Cheap to clone; outlives the shard, and does nothing then.
#[derive(Clone)]
pub struct ShardPort {
    messages: Sender<Message>,
    waker: Arc<dyn Wake>,
}

impl std::fmt::Debug for ShardPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShardPort")
    }
}

impl ShardPort {
    /// Runs `command` on the shard's thread between two batches.
    pub fn run(&self, command: Command) {
        self.send(Message::Do(command));
    }

    fn send(&self, message: Message) {
        // The thread only ends after Stop, and then there is nothing left to tell it.
        let _ = self.messages.send(message);
        self.waker.wake();
    }
}

/// A shard with its thread.
pub struct ShardThread {
    handle: ShardHandle,
    port: ShardPort,
    drained: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<Driver>>>,
}

impl ShardThread {
    /// Starts the thread of an empty shard. Panics of its components are counted in `engine`, a
    /// turn that does not end shows in `health`.
    pub fn spawn(
        index: usize,
        clock: Arc<dyn Clock>,
        engine: Arc<EngineMetrics>,
        health: &HealthRegistry,
    ) -> std::io::Result<ShardThread> {
        let now = clock.now().0;
        let watch = Watch::thread(TURN_MAX.as_nanos() as u64);
        let health = health.component("shard", &index.to_string(), watch, now);
        health.set(State::Ok, now);
        let waker = Arc::new(ShardWaker::default());
        let (messages, inbox) = unbounded();
        let drained = Arc::new(AtomicBool::new(false));
        let driver = Driver {
            shard: Shard::new(clock.clone()),
            clock,
            inbox,
            waker: waker.clone(),
            drained: drained.clone(),
            draining: false,
            engine,
            health,
        };
        let port = ShardPort {
            messages,
            waker: waker.clone(),
        };
        let handle = ShardHandle { index, waker };
        let mut shard = ShardThread {
            handle,
            port,
            drained,
            thread: None,
        };
        shard.run_in_new_thread(driver)?;
        Ok(shard)
    }

    fn run_in_new_thread(&mut self, driver: Driver) -> std::io::Result<()> {
        let name = format!("shard-{}", self.handle.index);
        let thread = thread::Builder::new().name(name);
        self.thread = Some(thread.spawn(move || driver.run())?);
        Ok(())
    }

    /// Goes on in a thread that the calling one starts, between two batches.
    ///
    /// # Errors
    /// There is no thread; the old one goes on.
    pub fn move_here(&mut self) -> std::io::Result<()> {
        let (give, given) = bounded::<Driver>(1);
        let name = format!("shard-{}", self.handle.index);
        let builder = thread::Builder::new().name(name);
        // First the new one, so that there is always one.
        let next = builder.spawn(move || given.recv().ok().and_then(Driver::run))?;
        self.port.send(Message::Move);
        let driver = self.thread.take().and_then(|thread| thread.join().ok());
        if let Some(driver) = driver.flatten() {
            // It waits for it.
            let _ = give.send(driver);
        }
        self.thread = Some(next);
        Ok(())
    }

    /// What receivers and exporters get to know about the shard.
    pub fn handle(&self) -> &ShardHandle {
        &self.handle
    }

    /// Where commands are put.
    pub fn port(&self) -> &ShardPort {
        &self.port
    }

    /// Runs `command` on the shard's thread between two batches.
    pub fn run(&self, command: Command) {
        self.port.run(command);
    }

    /// Makes the shard read nothing new and pass on what it keeps.
    pub fn drain(&self) {
        self.port.send(Message::Drain);
    }

    /// True once nothing is under way after [`ShardThread::drain`].
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    /// Ends the thread; what is still under way is given up (its tokens resolve as lost, the
    /// checkpoint stays before it).
    pub fn stop(mut self) {
        self.port.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A turn takes about a millisecond; one that takes this long hangs.
const TURN_MAX: Duration = Duration::from_secs(60);
/// A shard that panics this often is not tried again soon.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

struct Driver {
    shard: Shard,
    clock: Arc<dyn Clock>,
    inbox: Receiver<Message>,
    waker: Arc<ShardWaker>,
    drained: Arc<AtomicBool>,
    draining: bool,
    engine: Arc<EngineMetrics>,
    health: Arc<ComponentHealth>,
}

impl Driver {
    fn run(mut self) -> Option<Self> {
        let mut thread = self.waker.thread.lock().unwrap_or_else(|e| e.into_inner());
        *thread = Some(thread::current());
        drop(thread);
        loop {
            if self.waker.take() {
                self.shard.woken();
            }
            match self.take_messages() {
                Go::On => {}
                Go::Elsewhere => return Some(self),
                Go::Home => return None,
            }
            self.health.work_waiting(self.clock.now().0);
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn()));
            self.health.idle();
            match turn {
                Ok(Some(sleep)) => match sleep {
                    Some(d) => thread::park_timeout(d),
                    None => thread::park(),
                },
                Ok(None) => {}
                Err(_) => {
                    self.engine.panics.inc();
                    tracing::error!(
                        panics = self.engine.panics.get(),
                        sources = ?self.shard.source_ids(),
                        "a component panicked; its batches are offered again after a pause"
                    );
                    thread::park_timeout(PANIC_PAUSE);
                    self.shard.woken();
                }
            }
        }
    }

    fn take_messages(&mut self) -> Go {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Do(command) => command(&mut self.shard),
                Message::Drain => self.draining = true,
                Message::Move => return Go::Elsewhere,
                Message::Stop => return Go::Home,
            }
        }
        Go::On
    }

    /// How long to sleep; `None` = not at all, `Some(None)` = until woken.
    fn turn(&mut self) -> Option<Option<Duration>> {
        if self.draining {
            let done = self.shard.drain();
            self.drained.store(done, Ordering::Release);
            return Some(Some(DRAIN_POLL));
        }
        match self.shard.step() {
            Step::Busy => None,
            Step::Idle(None) => Some(None),
            Step::Idle(Some(at)) => Some(Some(at.since(self.clock.now()))),
        }
    }
}
