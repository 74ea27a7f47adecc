//! Asking the agent for another configuration. Whoever asks gets one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Thread;

use tailwater_config::Source;

use crate::layer::Layer;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// What the command line names, read again.
    Reread,
    /// This one, as text, with the `--set` of the command line over it.
    Text(String),
    /// These, laid over each other, with the `--set` of the command line over them.
    Sources(Vec<Source>),
    /// What the command line names, read again, with this over it.
    Layer(Option<Arc<Layer>>),
    /// That of an earlier generation.
    Generation(u64),
}

/// A request.
pub struct Request {
    /// What is asked for.
    pub wanted: Wanted,
    /// Who asks, for the log: `SIGHUP`, `--watch` and the like.
    pub by: &'static str,
    /// Only if this generation is in force.
    pub if_generation: Option<u64>,
    /// Only say what would change.
    pub dry_run: bool,
    /// Told what became of it.
    pub answer: Box<dyn FnOnce(Answer) + Send>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The generation in force after it.
    pub generation: u64,
    /// What was done.
    pub outcome: Outcome,
}

/// See [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force; what changed, a line each.
    Applied(Vec<String>),
    /// What is in force is the same.
    Unchanged,
    /// What would change.
    Planned(Vec<String>),
    /// Nothing was touched; all reasons.
    Refused(Vec<String>),
    /// The generation that was asked for is not kept; what there is.
    NotKept(String),
    /// A newer request came in before its turn.
    Superseded,
    /// Another generation is in force than the one that was asked for.
    Conflict,
}

/// Where requests are put. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    requests: Sender<Request>,
    supervisor: Thread,
    restart: Arc<AtomicBool>,
}

impl Control {
    /// For the calling thread, which takes the requests.
    pub fn here() -> (Control, Receiver<Request>) {
        let (requests, inbox) = channel();
        let supervisor = std::thread::current();
        let control = Control {
            requests,
            supervisor,
            restart: Arc::default(),
        };
        (control, inbox)
    }

    /// Has the agent stop, and begin anew.
    pub fn restart(&self) {
        self.restart.store(true, Ordering::Release);
        self.supervisor.unpark();
    }

    /// Whether it is to begin anew.
    pub fn restarts(&self) -> bool {
        self.restart.load(Ordering::Acquire)
    }

    /// Asks. If the agent ends first, the answer is dropped.
    pub fn ask(&self, request: Request) {
        if self.requests.send(request).is_ok() {
            self.supervisor.unpark();
        }
    }
}
