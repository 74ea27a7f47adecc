//! One request on its way to all destinations that take its signal, and the answer to its sender.
//!
//! Each destination has a branch of its own. The answer is success when all have the records; while
//! one does not, and the sender has to be told to come again, those that do are remembered, see
//! [`Memory`](super::memory::Memory).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tailwater_pdata::Signal;
use tailwater_pipeline::{AckSink, Counts, DropReason, Outcome};
use tokio::sync::oneshot;

use super::answers::Answers;
use super::intake::Place;
use super::memory::{Digest, Memory};
use super::stats::Stats;
use super::status::{Code, Status};

/// How a request stands with one destination.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Branch {
    /// It does not have the records, and nobody is about to give it any.
    Open,
    /// They are on their way.
    UnderWay,
    /// They need not be sent again: delivered, filtered or given up.
    Done(Outcome, Counts),
}

/// What is known of a request as a whole, and who is told.
pub type Told = (Outcome, Counts);

/// See the module's documentation.
pub struct Request {
    signal: Signal,
    items: u64,
    /// Where it is remembered, and by what.
    memory: Option<(Digest, Weak<Memory>)>,
    /// Through which its sender is told.
    answers: Arc<Answers<Told>>,
    state: Mutex<State>,
    /// Nobody waits for the answer.
    gone: AtomicBool,
    itself: Weak<Request>,
}

struct State {
    branches: Vec<Branch>,
    tell: Option<oneshot::Sender<Told>>,
    /// Its place among the requests at the same time, until one of the destinations has answered.
    place: Option<Place>,
    stats: Arc<Stats>,
}

impl State {
    fn whole(&self) -> Told {
        let mut whole = Outcome::Delivered;
        let mut counts = Counts {
            filtered: u32::MAX,
            ..Counts::default()
        };
        for branch in &self.branches {
            let Branch::Done(outcome, own) = branch else {
                return (Outcome::Retry, Counts::default());
            };
            whole = whole.max(*outcome);
            counts.filtered = counts.filtered.min(own.filtered);
            for (all, one) in counts.dropped.iter_mut().zip(own.dropped) {
                *all = (*all).max(one);
            }
        }
        (whole, counts)
    }

    fn has(&self, branch: &Branch) -> bool {
        self.branches.contains(branch)
    }

    fn any_done(&self) -> bool {
        self.branches.iter().any(|b| matches!(b, Branch::Done(..)))
    }
}

impl Request {
    /// A request of `items` records for `branches` destinations, of which none has it yet.
    pub fn new(
        signal: Signal,
        items: u64,
        branches: usize,
        memory: Option<(Digest, Weak<Memory>)>,
        answers: Arc<Answers<Told>>,
        stats: Arc<Stats>,
    ) -> Arc<Request> {
        Arc::new_cyclic(|itself| Request {
            signal,
            items,
            memory,
            answers,
            state: Mutex::new(State {
                branches: vec![Branch::Open; branches],
                tell: None,
                place: None,
                stats,
            }),
            gone: AtomicBool::new(false),
            itself: itself.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its sender does not wait any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Somebody waits for it now. `room` says which destinations have room; returns those that it
    /// must be given to, by number, each with what `room` gave. `None` if there are some that do not
    /// have it, and none of them has room.
    pub fn begin<P>(
        &self,
        place: Place,
        stats: &Arc<Stats>,
        mut room: impl FnMut(usize) -> Option<P>,
    ) -> Option<(Pending, Vec<(usize, P)>)> {
        let (tell, told) = oneshot::channel();
        let mut state = self.lock();
        self.gone.store(false, Ordering::Release);
        state.stats = stats.clone();
        let mut to = Vec::new();
        for (number, branch) in state.branches.iter_mut().enumerate() {
            if *branch == Branch::Open
                && let Some(permit) = room(number)
            {
                *branch = Branch::UnderWay;
                to.push((number, permit));
            }
        }
        if state.has(&Branch::UnderWay) {
            state.place = Some(place);
            state.tell = Some(tell);
        } else if state.has(&Branch::Open) {
            self.end(&state);
            return None;
        } else {
            let _ = tell.send(state.whole());
        }
        let request = self.itself.upgrade();
        Some((Pending { told, request }, to))
    }

    /// Nothing of it is under way: counts it, and remembers it as far as that is of use.
    fn end(&self, state: &State) {
        let (outcome, _) = state.whole();
        let accepted = matches!(outcome, Outcome::Delivered | Outcome::Filtered);
        state.stats.count(self.signal, self.items, accepted);
        if !outcome.is_final() {
            self.remember(state);
        }
    }

    /// Remembers it for when it comes again, if that is of use.
    fn remember(&self, state: &State) {
        let Some((digest, memory)) = &self.memory else {
            return;
        };
        let (Some(memory), Some(itself)) = (memory.upgrade(), self.itself.upgrade()) else {
            return;
        };
        if state.any_done() || state.has(&Branch::UnderWay) {
            memory.put(*digest, itself);
        } else {
            memory.forget(digest, self);
        }
    }

    /// Nobody waits any more, and what is under way goes on; false if the answer was told already.
    fn leave(&self) -> bool {
        let mut state = self.lock();
        let waited = state.tell.take().is_some();
        let place = state.place.take();
        if waited {
            self.gone.store(true, Ordering::Release);
            self.remember(&state);
        }
        drop(state);
        drop(place);
        waited
    }

    /// The sender went away without an answer.
    fn abandon(&self) {
        if !self.leave() {
            // It was told, but the sender does not know.
            self.gone.store(true, Ordering::Release);
            self.remember(&self.lock());
        }
    }
}

impl AckSink for Request {
    fn settled(&self, key: u64, outcome: Outcome, counts: &Counts) {
        let mut state = self.lock();
        let number = usize::try_from(key).unwrap_or(usize::MAX);
        let Some(branch) = state.branches.get_mut(number) else {
            return;
        };
        *branch = if outcome.is_final() {
            Branch::Done(outcome, counts.clone())
        } else {
            Branch::Open
        };
        // What the others still have to answer for is bounded by their share of memory.
        let place = state.place.take();
        if !state.has(&Branch::UnderWay) {
            self.end(&state);
            if let Some(tell) = state.tell.take() {
                self.answers.tell(tell, state.whole());
            }
        }
        drop(state);
        drop(place);
    }

    fn offers_again(&self) -> bool {
        false
    }
}

/// A request that waits for the fate of its records. Dropping it says that nobody waits.
pub struct Pending {
    told: oneshot::Receiver<Told>,
    request: Option<Arc<Request>>,
}

impl Pending {
    /// One of a request without records: a success.
    pub fn empty() -> Pending {
        let (tell, told) = oneshot::channel();
        let _ = tell.send((Outcome::Delivered, Counts::default()));
        Pending {
            told,
            request: None,
        }
    }

    /// Waits for the answer, at most `for_at_most`.
    ///
    /// # Errors
    /// What the request is answered with if it was not delivered.
    pub async fn answer(mut self, for_at_most: Duration) -> Result<(), Status> {
        let told = match tokio::time::timeout(for_at_most, &mut self.told).await {
            Ok(told) => told,
            Err(_) if self.request.as_ref().is_some_and(|r| r.leave()) => {
                self.request = None;
                return Err(Status::unavailable(
                    "not delivered in time; it may be delivered still",
                ));
            }
            // It is settled, and is not remembered any more: the answer is on its way, and what is said
            // instead would have all of it sent again.
            Err(_) => (&mut self.told).await,
        };
        self.request = None;
        // A token tells its sink even when it is dropped, so the other end is not dropped untold.
        match told.unwrap_or((Outcome::Lost, Counts::default())) {
            (Outcome::Delivered | Outcome::Filtered, _) => Ok(()),
            (Outcome::Refused, counts) => Err(Status::new(Code::Internal, reasons(&counts))),
            (Outcome::Retry | Outcome::Lost, _) => Err(Status::unavailable("not delivered")),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            request.abandon();
        }
    }
}

fn reasons(counts: &Counts) -> String {
    let named = DropReason::ALL.iter().zip(counts.dropped);
    let named: Vec<String> = named
        .filter(|(_, n)| *n > 0)
        .map(|(reason, n)| format!("{n} {}", reason.as_str()))
        .collect();
    format!("given up: {}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::stats::Transport;
    use tailwater_telemetry::metrics::MetricsRegistry;

    /// Guarantee: a request that is settled while its sender's time runs out, before the answer has come back to
    /// the thread of the listeners, is answered with what became of it.
    #[tokio::test(start_paused = true)]
    async fn what_is_settled_at_the_last_moment_is_told() {
        let stats = Stats::new(
            &MetricsRegistry::default(),
            "otlp",
            Transport::Grpc,
            &[Signal::Logs],
        );
        let answers = Arc::<Answers<Told>>::default();
        let request = Request::new(Signal::Logs, 1, 2, None, answers.clone(), stats);
        let (tell, told) = oneshot::channel();
        {
            let mut state = request.lock();
            state.branches = vec![Branch::UnderWay; 2];
            state.tell = Some(tell);
        }
        let pending = Pending {
            told,
            request: Some(request.clone()),
        };
        for branch in 0..2 {
            request.settled(branch, Outcome::Delivered, &Counts::default());
        }
        let deliver = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answers.deliver().await;
        };
        tokio::select! {
            answer = pending.answer(Duration::from_millis(10)) => assert_eq!(answer, Ok(())),
            () = deliver => unreachable!("it ends with the test"),
        }
    }
}
