//! What finds sources. Each kind runs in a thread of its own and emits events; none knows the registry.

pub mod docker;
pub mod filesystem;
pub mod fixed;
pub mod kubernetes;
pub mod labels;
pub mod walk;
mod watch;
pub mod wishes;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::bus::Bus;
use crate::model::{Descriptor, Event, Origin};

/// How news are learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// By asking for everything every now and then.
    SimplePolling,
    /// By being told, and by asking for everything at each connection.
    #[default]
    EventStream,
    /// By being told, and by asking for everything every now and then besides.
    Hybrid,
}

impl Mode {
    /// True if it is told of news.
    pub fn listens(self) -> bool {
        self != Mode::SimplePolling
    }

    /// How often everything is asked for; none = only at the beginning.
    pub fn poll_interval(self) -> Option<Duration> {
        match self {
            Mode::SimplePolling => Some(Duration::from_secs(1)),
            Mode::EventStream => None,
            Mode::Hybrid => Some(Duration::from_secs(30)),
        }
    }
}

/// How long after an error of the bus it is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Says when to stop, and lets threads wait for that.
#[derive(Clone, Default, Debug)]
pub struct Stop(Arc<(AtomicBool, Mutex<()>, Condvar)>);

impl Stop {
    /// From now on all are to stop.
    pub fn stop(&self) {
        let (flag, lock, bell) = &*self.0;
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        flag.store(true, Ordering::Release);
        bell.notify_all();
    }

    /// True if it is time.
    pub fn is_set(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// Waits for so long, or until it is time; true then.
    pub fn wait(&self, time: Duration) -> bool {
        let (_, lock, bell) = &*self.0;
        let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = bell.wait_timeout_while(held, time, |()| !self.is_set());
        drop(waited);
        self.is_set()
    }
}

/// Where the events of an origin go in.
pub struct Publisher {
    bus: Arc<dyn Bus>,
    origin: Origin,
    wall: fn() -> i64,
    newest: i64,
    stop: Stop,
}

impl Publisher {
    /// For an origin whose events so far are not newer than `newest`.
    pub fn new(
        bus: Arc<dyn Bus>,
        origin: Origin,
        wall: fn() -> i64,
        newest: i64,
        stop: Stop,
    ) -> Publisher {
        Publisher {
            bus,
            origin,
            wall,
            newest,
            stop,
        }
    }

    /// The newest generation that there was before; none at the very first start.
    pub fn newest(&self) -> Option<i64> {
        (self.newest > 0).then_some(self.newest)
    }

    /// A generation that is newer than all before, whatever the clock does.
    pub fn generation(&mut self) -> i64 {
        self.newest = (self.wall)().max(self.newest.saturating_add(1));
        self.newest
    }

    /// A source is there.
    pub fn present(&mut self, key: &str, generation: i64, source: Descriptor) {
        let event = Event::Present { generation, source };
        self.publish(key, &event);
    }

    /// A source ended.
    pub fn absent(&mut self, key: &str, generation: i64, id: String) {
        let event = Event::Absent {
            generation,
            origin: self.origin,
            id,
        };
        self.publish(key, &event);
    }

    /// These are all.
    pub fn snapshot(&mut self, generation: i64, ids: Vec<String>) {
        let key = format!("{}/snapshot/{generation}", self.origin.name());
        let event = Event::Snapshot {
            generation,
            origin: self.origin,
            ids,
        };
        self.publish(&key, &event);
    }

    /// A source is there, and cannot be read. It is said once for each reason.
    pub fn unreadable(&mut self, id: String, reason: String) {
        let key = format!("{}/unreadable/{id}/{reason}", self.origin.name());
        let event = Event::Unreadable {
            origin: self.origin,
            id,
            reason,
        };
        self.publish(&key, &event);
    }

    /// A source asks for what there is not, and is read without it. It is said once for each reason.
    pub fn unheeded(&mut self, id: String, reason: String) {
        let key = format!("{}/unheeded/{id}/{reason}", self.origin.name());
        let event = Event::Unheeded {
            origin: self.origin,
            id,
            reason,
        };
        self.publish(&key, &event);
    }

    /// Until it is taken, or the end: an event that is not published would not be known of.
    fn publish(&self, key: &str, event: &Event) {
        loop {
            match self.bus.publish(key, event) {
                Ok(_) => return,
                Err(error) => tracing::error!(%error, key, "an event waits to be kept"),
            }
            if self.stop.wait(RETRY_DELAY) {
                return;
            }
        }
    }
}
