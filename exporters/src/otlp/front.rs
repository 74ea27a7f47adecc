//! The shard's half: batches in, finished requests out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::HashMap;
use hyper::HeaderMap;
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::Encoded;
use tailwater_pipeline::auth::carry;
use tailwater_pipeline::client::ContextKey;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{
    AckToken, Admission, Batch, DropReason, Exporter, Outcome, Part, Payload, Permit,
};

use crate::delivery::{Acks, BatchOptions, Duty, Intake, OutgoingRequest, Sizer};

use super::packing::Packing;

/// What the shards of one exporter share.
pub(super) struct Shared {
    pub name: Arc<str>,
    pub packing: Packing,
    pub batch: Option<BatchOptions>,
    /// What the authenticator reads of clients.
    pub reads: Vec<ContextKey>,
    /// Bytes of a request before compression that the destination takes, as far as is known.
    pub bytes_max: Arc<AtomicUsize>,
}

/// Combinations of metadata for which something may be open, as in the collector. For a further one, what
/// waits for longest is sent off.
const PARTITIONS_MAX: usize = 10_000;

/// The values of each of `partition::metadata_keys`, then of each key that the authenticator reads.
type Combination = Vec<Vec<Box<str>>>;

/// The shard's half of an exporter. Without `batch`, what comes as one batch leaves as one request.
pub(super) struct OtlpFront {
    shared: Arc<Shared>,
    intake: Intake,
    open: Open,
    /// Whose records are open.
    combination: Combination,
    /// What is open besides, none of it empty.
    apart: HashMap<Combination, Open>,
}

/// What waits to be sent off.
struct Open {
    encoded: Encoded,
    /// The duties of its items, in order.
    duties: VecDeque<(AckToken, u64)>,
    /// The memory of those that came since the last request.
    permits: Vec<Permit>,
    deadline: Option<Mono>,
}

impl Open {
    fn new(signal: Signal) -> Open {
        Open {
            encoded: Encoded::empty(signal),
            duties: VecDeque::new(),
            permits: Vec::new(),
            deadline: None,
        }
    }
}

impl OtlpFront {
    pub fn new(shared: Arc<Shared>, intake: Intake) -> OtlpFront {
        OtlpFront {
            open: Open::new(shared.packing.signal()),
            shared,
            intake,
            combination: Vec::new(),
            apart: HashMap::default(),
        }
    }

    /// What parts are told apart by.
    fn partition(&self) -> &[String] {
        self.shared.batch.as_ref().map_or(&[], |b| &b.partition)
    }

    fn combination_of(&self, part: &Part) -> Combination {
        let client = part.ack.client();
        let values = |key: &String| match &client {
            Some(client) => client.metadata(key).to_vec(),
            None => Vec::new(),
        };
        let partition = self.partition().iter().map(values);
        let read = self.shared.reads.iter().map(|key| {
            let value = client.as_ref().and_then(|client| key.of(client));
            value.into_iter().map(Into::into).collect()
        });
        partition.chain(read).collect()
    }

    /// The headers of a request with what is open.
    fn headers(&self) -> Arc<HeaderMap> {
        let common = self.shared.packing.headers();
        if self.shared.reads.is_empty() {
            return common.clone();
        }
        let mut headers = HeaderMap::clone(common);
        let values = self.combination.iter().skip(self.partition().len());
        for (key, values) in self.shared.reads.iter().zip(values) {
            if let [value] = &values[..] {
                carry(key, value, &mut headers);
            }
        }
        Arc::new(headers)
    }

    /// Makes what is open that of another combination.
    fn turn_to(&mut self, combination: Combination, now: Mono) {
        if combination == self.combination {
            return;
        }
        let next = self.apart.remove(&combination);
        let next = next.unwrap_or_else(|| Open::new(self.shared.packing.signal()));
        let before = std::mem::replace(&mut self.open, next);
        let whose = std::mem::replace(&mut self.combination, combination);
        if before.encoded.is_empty() {
            return;
        }
        self.apart.insert(whose, before);
        if self.apart.len() >= PARTITIONS_MAX {
            let first = self.apart.iter().min_by_key(|(_, open)| open.deadline);
            let first = first.map(|(whose, _)| whose.clone());
            self.send_apart(first, now);
        }
    }

    /// Sends off what is open for other combinations.
    fn send_apart(&mut self, whose: impl IntoIterator<Item = Combination>, now: Mono) {
        for whose in whose {
            if let Some(open) = self.apart.remove(&whose) {
                let current = std::mem::replace(&mut self.open, open);
                let own = std::mem::replace(&mut self.combination, whose);
                self.send(true, now);
                self.open = current;
                self.combination = own;
            }
        }
    }

    /// Takes parts of one combination.
    fn gather(&mut self, parts: Vec<Part>, now: Mono) {
        for part in parts {
            self.take(part);
        }
        if self.open.encoded.is_empty() {
            return;
        }
        if self.is_enough(&self.open.encoded) {
            self.send(false, now);
        } else if self.open.deadline.is_none() {
            self.wait(now);
        }
    }

    fn take(&mut self, part: Part) {
        let Part { data, ack, permit } = part;
        let encoded = match data {
            Payload::Logs(logs) => Encoded::from_logs([&logs]),
            Payload::Encoded(encoded) => encoded,
        };
        let items = encoded.items() as u64;
        if items == 0 {
            // There is nothing in it that anybody counts or stores.
            return ack.resolve(Outcome::Delivered);
        }
        self.open.encoded.append(encoded);
        self.open.duties.push_back((ack, items));
        self.open.permits.push(permit);
    }

    /// Items that one request may have, if what is open is too much for one.
    fn items_max(&self) -> Option<usize> {
        let (items, bytes) = (self.open.encoded.items(), self.open.encoded.len());
        let fit = |max: u64| {
            // Items are taken to be of one size.
            let share = items as u128 * u128::from(max) / (bytes as u128).max(1);
            usize::try_from(share).unwrap_or(usize::MAX).max(1)
        };
        let mut max = usize::MAX;
        if let Some(batch) = self.shared.batch.as_ref().filter(|b| b.max_size > 0) {
            max = match batch.sizer {
                Sizer::Bytes => fit(batch.max_size),
                Sizer::Items | Sizer::Requests => {
                    usize::try_from(batch.max_size).unwrap_or(usize::MAX)
                }
            };
        }
        let learned = self.shared.bytes_max.load(Ordering::Relaxed);
        if bytes > learned {
            max = max.min(fit(learned as u64));
        }
        (items > max).then_some(max)
    }

    /// Whether `encoded` is worth a request.
    fn is_enough(&self, encoded: &Encoded) -> bool {
        self.shared.batch.as_ref().is_none_or(|batch| {
            let size = match batch.sizer {
                Sizer::Bytes => encoded.len(),
                Sizer::Items | Sizer::Requests => encoded.items(),
            };
            size as u64 >= batch.min_size
        })
    }

    /// Sends off what is open. With `all` false, what is left over from full requests stays if it is
    /// not enough for one.
    fn send(&mut self, all: bool, now: Mono) {
        let signal = self.shared.packing.signal();
        let max = self.items_max();
        let encoded = std::mem::replace(&mut self.open.encoded, Encoded::empty(signal));
        let mut pieces = match max {
            Some(max) => encoded.split(max),
            None => vec![encoded],
        };
        let rest = pieces.pop_if(|last| !all && !self.is_enough(last));
        for piece in pieces {
            self.submit(&piece);
        }
        match rest {
            Some(rest) => {
                self.open.encoded = rest;
                self.open.permits.drain(..self.open.permits.len() - 1);
                self.wait(now);
            }
            None => {
                self.open.permits.clear();
                self.open.deadline = None;
            }
        }
    }

    fn wait(&mut self, now: Mono) {
        let linger = self.shared.batch.as_ref().map(|b| b.flush_timeout);
        self.open.deadline = linger.map(|linger| now.after(linger));
    }

    fn submit(&mut self, piece: &Encoded) {
        let items = piece.items() as u64;
        let mut acks = Acks::new();
        let mut left = items;
        while let Some((ack, n)) = self.open.duties.front_mut().filter(|_| left > 0) {
            let taken = (*n).min(left);
            left -= taken;
            let count = u32::try_from(taken).unwrap_or(u32::MAX);
            if *n > taken {
                *n -= taken;
                acks.add(ack.clone(), count);
            } else if let Some((ack, _)) = self.open.duties.pop_front() {
                acks.add(ack, count);
            }
        }
        if items == 0 {
            return;
        }
        let packing = &self.shared.packing;
        match packing.pack(piece) {
            Ok(body) => {
                let headers = self.headers();
                let request = OutgoingRequest::new(body, headers, None, Vec::new(), items, acks);
                self.intake.submit(request);
            }
            Err(e) => {
                tracing::error!(
                    exporter = &*self.shared.name,
                    dropped_items = items,
                    error = %e,
                    reason = DropReason::EncodeError.as_str(),
                    "A request cannot be made. Dropping data."
                );
                acks.count_dropped(DropReason::EncodeError, items);
                acks.resolve(Outcome::Refused);
            }
        }
    }
}

impl Exporter for OtlpFront {
    fn export(&mut self, batch: Batch, now: Mono) {
        if self.partition().is_empty() && self.shared.reads.is_empty() {
            return self.gather(batch.parts, now);
        }
        let mut parts = batch.parts.into_iter();
        let Some(first) = parts.next() else { return };
        let mut groups = vec![(self.combination_of(&first), vec![first])];
        for part in parts {
            let whose = self.combination_of(&part);
            match groups.iter_mut().find(|(known, _)| *known == whose) {
                Some((_, group)) => group.push(part),
                None => groups.push((whose, vec![part])),
            }
        }
        for (whose, group) in groups {
            self.turn_to(whose, now);
            self.gather(group, now);
        }
    }

    fn admission(&self) -> Admission {
        self.intake.admission()
    }

    fn deadline(&self) -> Option<Mono> {
        let apart = self.apart.values().filter_map(|open| open.deadline);
        apart.chain(self.open.deadline).min()
    }

    fn tick(&mut self, now: Mono) {
        let is_due = |open: &Open| open.deadline.is_some_and(|at| at <= now);
        if is_due(&self.open) {
            self.send(true, now);
        }
        let due = self.apart.iter().filter(|(_, open)| is_due(open));
        let due: Vec<_> = due.map(|(whose, _)| whose.clone()).collect();
        self.send_apart(due, now);
    }

    fn flush(&mut self, now: Mono) {
        if !self.open.encoded.is_empty() {
            self.send(true, now);
        }
        let all: Vec<_> = self.apart.keys().cloned().collect();
        self.send_apart(all, now);
    }
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
