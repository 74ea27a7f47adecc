//! The shard's half: takes requests from its queue while the nodes behind it admit more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tailwater_pdata::Signal;
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{
    AckSink, AckToken, Admission, Batch, Counts, DropReason, Outcome, Part, Permit, Progress,
    Source, SourceCx,
};
use tailwater_telemetry::metrics::{Accounting, Amount, Settlement};

use super::intake::{Queue, Waiting, place_of};

/// How long the source waits before it looks again whether more is admitted.
const CLOSED_PAUSE: Duration = Duration::from_millis(50);
/// A request that no shard could take for this long is handed back.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Bytes of requests of a signal that are passed on in one turn.
const TURN_BYTES: usize = 256 << 10;

/// See the module's documentation.
pub struct PushSource {
    queue: Arc<Queue>,
    account: Arc<Accounting>,
    /// Requests that were passed on and are not settled, by signal.
    under_way: Arc<UnderWay>,
}

type UnderWay = [AtomicUsize; Signal::ALL.len()];

impl PushSource {
    /// A source that keeps `account`.
    pub fn new(queue: Arc<Queue>, account: Arc<Accounting>) -> PushSource {
        PushSource {
            queue,
            account,
            under_way: Arc::default(),
        }
    }

    /// Hands back what nobody waits for, and what waits for too long.
    fn hand_back(&self, give_up: impl Fn(&Waiting) -> bool) {
        for request in self.queue.take_out(give_up) {
            request.token.resolve(Outcome::Retry);
        }
    }

    fn emit(&self, request: Waiting, cx: &mut dyn SourceCx) {
        let Waiting {
            records,
            token,
            permit,
            held,
            client,
            ..
        } = request;
        let amount = Amount::new(records.items() as u64, records.bytes() as u64);
        // Taken in from here on: before, it is the client's.
        self.account.read(amount);
        let signal = records.signal();
        self.under_way[place_of(signal)].fetch_add(1, Ordering::AcqRel);
        let duty = Arc::new(Duty {
            account: self.account.clone(),
            amount,
            signal,
            under_way: self.under_way.clone(),
            client,
            above: Mutex::new(Some((token, held))),
        });
        let ack = AckToken::new(duty, 0);
        let mut permit = permit;
        let mut parts: Vec<Part> = Vec::with_capacity(1);
        records.into_payloads(|data| {
            let own = match parts.is_empty() {
                true => Permit::none(),
                false => permit.split(data.heap_bytes()),
            };
            parts.push(Part {
                data,
                ack: ack.clone(),
                permit: own,
            });
        });
        // The first has what is left: what the request takes besides.
        if let Some(first) = parts.first_mut() {
            first.permit = permit;
        }
        // Each part has its own of it.
        ack.resolve(Outcome::Delivered);
        cx.emit(Batch { parts });
    }

    fn may_emit(&self, signal: Signal, cx: &dyn SourceCx) -> bool {
        // What is refused is answered at once.
        if cx.refuses(signal) {
            return true;
        }
        match cx.admission_of(signal) {
            Admission::Open => true,
            Admission::Scarce => self.under_way[place_of(signal)].load(Ordering::Acquire) == 0,
            Admission::Closed => false,
        }
    }
}

impl Source for PushSource {
    fn poll(&mut self, cx: &mut dyn SourceCx) -> Progress {
        let now = cx.now();
        let late = |since: Mono| now.since(since) >= WAIT_MAX;
        self.hand_back(|request| request.is_gone() || late(request.since));
        let (mut waits, mut more) = (false, false);
        for signal in Signal::ALL {
            let mut bytes = 0;
            while !self.queue.is_empty(signal) {
                if !self.may_emit(signal, cx) {
                    waits = true;
                    break;
                }
                if bytes >= TURN_BYTES {
                    more = true;
                    break;
                }
                let Some(request) = self.queue.pop(signal) else {
                    break;
                };
                bytes += request.records.bytes();
                self.emit(request, cx);
            }
        }
        if more {
            return Progress::Busy;
        }
        Progress::Idle(waits.then(|| now.after(CLOSED_PAUSE)))
    }

    fn drain(&mut self, _cx: &mut dyn SourceCx) -> bool {
        self.hand_back(|_| true);
        let mut under_way = self.under_way.iter();
        under_way.all(|n| n.load(Ordering::Acquire) == 0)
    }
}

impl Drop for PushSource {
    fn drop(&mut self) {
        // A shard that ends leaves nobody without an answer.
        self.hand_back(|_| true);
    }
}

/// One request in the pipelines of one lane.
struct Duty {
    account: Arc<Accounting>,
    amount: Amount,
    signal: Signal,
    under_way: Arc<UnderWay>,
    client: Arc<ClientInfo>,
    /// Who waits for the outcome, and its memory for as long as it is anywhere in the agent. Taken once.
    above: Mutex<Option<(AckToken, Permit)>>,
}

impl AckSink for Duty {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let above = self
            .above
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((above, held)) = above else { return };
        drop(held);
        let counts = complete(outcome, counts, self.amount.records);
        self.account.settled(Settlement {
            batch: self.amount,
            filtered_by: &[],
            filtered: u64::from(counts.filtered),
            dropped: &counts.dropped,
        });
        above.count_filtered(counts.filtered);
        for (reason, n) in DropReason::ALL.iter().zip(counts.dropped) {
            above.count_dropped(*reason, n);
        }
        self.under_way[place_of(self.signal)].fetch_sub(1, Ordering::AcqRel);
        above.resolve(outcome);
    }

    fn offers_again(&self) -> bool {
        false
    }

    fn client(&self) -> Option<Arc<ClientInfo>> {
        Some(self.client.clone())
    }
}

/// What became of each record. A request that comes back as a whole is the client's again, whatever
/// became of parts of it: it sends all of them again.
fn complete(outcome: Outcome, counts: &Counts, records: u64) -> Counts {
    let records = u32::try_from(records).unwrap_or(u32::MAX);
    let mut whole = Counts::default();
    let uncounted = counts.filtered == 0 && counts.dropped_total() == 0;
    match outcome {
        Outcome::Retry | Outcome::Lost => {
            whole.dropped[DropReason::HandedBack as usize] = records;
        }
        Outcome::Filtered if uncounted => whole.filtered = records,
        Outcome::Refused if uncounted => {
            whole.dropped[DropReason::Rejected as usize] = records;
        }
        _ => return counts.clone(),
    }
    whole
}
