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

/// Whether a request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is.
    Comes,
    /// A newer one was done in its place.
    IsOver,
}

/// Has `answer` say what becomes of each of `requests`, which came in one after the other, and tells who asked. Of
/// several that would change something, the newest one that is not refused is done: what is in force in the end is what
/// would be if each had been done before the next came in. Who only asks is answered last.
pub fn in_turn(requests: Vec<Request>, mut answer: impl FnMut(&Request, Turn) -> Answer) {
    let (dry, changes): (Vec<_>, Vec<_>) = requests.into_iter().partition(|r| r.dry_run);
    let mut turn = Turn::Comes;
    for request in changes.into_iter().rev() {
        let given = answer(&request, turn);
        if matches!(given.outcome, Outcome::Applied(_) | Outcome::Unchanged) {
            turn = Turn::IsOver;
        }
        (request.answer)(given);
    }
    for request in dry {
        let given = answer(&request, Turn::Comes);
        (request.answer)(given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: the newest request that is not refused is done, those before it are told so, and a request that is
    /// refused, or for another generation, takes nobody's turn; each has one answer.
    #[test]
    fn the_newest_that_is_not_refused_is_done() {
        // What is asked for, in the order of coming in, and what each is told.
        let cases = [
            ("a", "applied"),
            ("a b", "superseded applied"),
            ("a =", "superseded unchanged"),
            ("a bad", "applied refused"),
            (
                "a b bad stale gone",
                "superseded applied refused conflict not kept",
            ),
            ("bad bad", "refused refused"),
            ("bad a ?", "superseded applied planned"),
            ("? a ? b", "planned superseded planned applied"),
        ];
        for (asked, told) in cases {
            let (tell, answers) = channel();
            let request = |(i, text): (usize, &str)| {
                let tell = tell.clone();
                Request {
                    wanted: Wanted::Text(text.to_owned()),
                    by: "test",
                    if_generation: None,
                    dry_run: text == "?",
                    answer: Box::new(move |a| tell.send((i, a.outcome)).expect("heard")),
                }
            };
            let requests = asked.split(' ').enumerate().map(request).collect();
            in_turn(requests, |request, turn| {
                let Wanted::Text(text) = &request.wanted else {
                    unreachable!("made so")
                };
                let outcome = match (turn, &**text) {
                    (Turn::IsOver, _) => Outcome::Superseded,
                    (_, "bad") => Outcome::Refused(Vec::new()),
                    (_, "stale") => Outcome::Conflict,
                    (_, "gone") => Outcome::NotKept(String::new()),
                    (_, "=") => Outcome::Unchanged,
                    (_, "?") => Outcome::Planned(Vec::new()),
                    _ => Outcome::Applied(Vec::new()),
                };
                Answer {
                    generation: 1,
                    outcome,
                }
            });
            drop(tell);
            let mut answers: Vec<_> = answers.iter().collect();
            answers.sort_by_key(|(i, _)| *i);
            let said = answers.iter().map(|(_, outcome)| match outcome {
                Outcome::Applied(_) => "applied",
                Outcome::Unchanged => "unchanged",
                Outcome::Planned(_) => "planned",
                Outcome::Refused(_) => "refused",
                Outcome::NotKept(_) => "not kept",
                Outcome::Superseded => "superseded",
                Outcome::Conflict => "conflict",
            });
            assert_eq!(said.collect::<Vec<_>>().join(" "), told, "{asked}");
        }
    }
}
