//! The shard's half of the exporter: batches in, finished requests out.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{
    AckToken, Admission, Batch, DropReason, Exporter, Outcome, Part, Payload,
};

use crate::delivery::{Acks, Intake, OutgoingRequest};
use crate::snappy::Encoder;

use super::options::{Protocol, RemoteWriteOptions};
use super::series::LANES;
use super::symbols::Symbol;
use super::translate::{Dropped, Translator};
use super::wire::{RequestWriter, put_varint};

/// A batch is divided into requests that can go at the same time only if each of them gets about
/// so many points: an answer costs more than some points do.
const REQUEST_POINTS: usize = 1_000;

/// Where finished requests go.
pub(super) trait Outlet: Send {
    /// Takes a request; never blocks, never refuses.
    fn submit(&self, request: OutgoingRequest<Acks>);
    /// Whether there is room.
    fn admission(&self) -> Admission;
}

impl Outlet for Intake {
    fn submit(&self, request: OutgoingRequest<Acks>) {
        Intake::submit(self, request);
    }

    fn admission(&self) -> Admission {
        Intake::admission(self)
    }
}

/// The shard's half of an exporter. Keeps nothing between batches.
pub(super) struct RemoteWriteFront<O> {
    options: Arc<RemoteWriteOptions>,
    headers: Arc<HeaderMap>,
    outlet: O,
    translator: Translator,
    writer: RequestWriter,
    encoder: Encoder,
    /// Names of metrics whose metadata the open request has.
    described: HashSet<Symbol>,
    /// The request that each series is in.
    request_of: Vec<u32>,
    finished: Vec<Finished>,
}

/// A request without its duty.
struct Finished {
    body: Bytes,
    lanes: Vec<u64>,
    group: usize,
}

impl<O: Outlet> RemoteWriteFront<O> {
    /// A front that hands requests with `headers` to `outlet`.
    pub fn new(options: Arc<RemoteWriteOptions>, headers: Arc<HeaderMap>, outlet: O) -> Self {
        RemoteWriteFront {
            headers,
            outlet,
            translator: Translator::new(options.translation.clone()),
            writer: RequestWriter::new(options.protocol),
            options,
            encoder: Encoder::default(),
            described: HashSet::new(),
            request_of: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Makes series of all parts. Says of each what becomes of it if no request has any of it.
    fn translate(&mut self, parts: &[Part]) -> Vec<Outcome> {
        self.translator.begin();
        let mut outcomes = Vec::with_capacity(parts.len());
        let mut all = Dropped::default();
        for (number, part) in parts.iter().enumerate() {
            let items = u32::try_from(part.data.items()).unwrap_or(u32::MAX);
            let mut dropped = Dropped::default();
            match &part.data {
                Payload::Encoded(metrics) => {
                    self.translator.part(number as u32, metrics, &mut dropped);
                }
                Payload::Logs(_) => {
                    debug_assert!(false, "the graph keeps signals apart");
                    dropped.points = items;
                }
            }
            if dropped.points > 0 {
                part.ack
                    .count_dropped(DropReason::EncodeError, dropped.points);
                all.points += dropped.points;
                all.cause = all.cause.or(dropped.cause);
            }
            outcomes.push(match dropped.points {
                0 => Outcome::Delivered,
                n if n < items => Outcome::Delivered,
                _ => Outcome::Refused,
            });
        }
        if all.points > 0 {
            tracing::warn!(
                reason = DropReason::EncodeError.as_str(),
                dropped_items = all.points,
                error = all.cause.unwrap_or_default(),
                "Data points were dropped: Prometheus has nothing that they could become."
            );
        }
        outcomes
    }

    /// Writes all series, divided into requests.
    fn encode(&mut self) {
        let points = self.translator.data.homes.len();
        let groups = (points / REQUEST_POINTS).clamp(1, self.options.parallelism.min(LANES));
        self.request_of.clear();
        self.request_of
            .resize(self.translator.data.series.len(), u32::MAX);
        self.finished.clear();
        for group in 0..groups {
            self.encode_group(group, groups);
        }
    }

    /// Writes the series whose lane is `group` modulo `groups`.
    fn encode_group(&mut self, group: usize, groups: usize) {
        let mut lanes = [false; LANES];
        let mut begun = false;
        for index in 0..self.request_of.len() {
            let Translator { labels, data, .. } = &self.translator;
            let series = &data.series[index];
            let lane = usize::from(series.lane);
            if lane % groups != group {
                continue;
            }
            let bound = self.writer.bound(&labels.symbols, data, series);
            if begun && self.writer.len() + bound > self.options.request_bytes_max {
                self.finish(group, &mut lanes);
            }
            let Translator { labels, data, .. } = &self.translator;
            let series = &data.series[index];
            if self.options.send_metadata && self.options.protocol == Protocol::V1 {
                let family = &data.families[series.family as usize];
                if self.described.insert(family.name) {
                    self.writer.metadata(&labels.symbols, family);
                }
            }
            self.writer.series(&labels.symbols, data, series);
            lanes[lane] = true;
            begun = true;
            self.request_of[index] = self.finished.len() as u32;
        }
        if begun {
            self.finish(group, &mut lanes);
        }
    }

    /// Ends the open request.
    fn finish(&mut self, group: usize, lanes: &mut [bool; LANES]) {
        let pieces = self.writer.pieces();
        let mut body = Vec::new();
        put_varint(&mut body, self.writer.len() as u64);
        for piece in pieces {
            self.encoder.append(piece, &mut body);
        }
        body.shrink_to_fit();
        self.writer.clear();
        self.described.clear();
        let used = (0..LANES).filter(|lane| lanes[*lane]);
        self.finished.push(Finished {
            body: body.into(),
            lanes: used.map(|lane| lane as u64).collect(),
            group,
        });
        *lanes = [false; LANES];
    }

    /// Hands the requests over, each with the duty for the points that count with it. A point whose
    /// series are in several requests, which then are of one group, is the duty of all of them.
    fn submit(&mut self, acks: &[AckToken]) {
        let parts = acks.len();
        let requests = self.finished.len();
        let mut counts = vec![0u32; requests * parts];
        for &(series, part) in &self.translator.data.homes {
            let request = self.request_of[series as usize] as usize;
            counts[request * parts + part as usize] += 1;
        }
        let groups: Vec<usize> = self.finished.iter().map(|f| f.group).collect();
        for (number, finished) in self.finished.drain(..).enumerate() {
            let of_group = |part: &usize| {
                let mut same = (0..requests).filter(|r| groups[*r] == finished.group);
                same.any(|r| counts[r * parts + part] > 0)
            };
            let mut members: Vec<usize> = (0..parts).filter(of_group).collect();
            if members.is_empty() {
                // Only what is said of resources, which are of any part.
                members = (0..parts).collect();
            }
            let own = &counts[number * parts..][..parts];
            let mut duty = Acks::new();
            for part in members {
                duty.add(acks[part].clone(), own[part]);
            }
            let items = own.iter().map(|n| u64::from(*n)).sum();
            let headers = self.headers.clone();
            self.outlet.submit(OutgoingRequest::new(
                vec![finished.body],
                headers,
                None,
                finished.lanes,
                items,
                duty,
            ));
        }
    }
}

impl<O: Outlet> Exporter for RemoteWriteFront<O> {
    fn export(&mut self, batch: Batch, _now: Mono) {
        let parts = batch.parts;
        let outcomes = self.translate(&parts);
        self.encode();
        let acks: Vec<AckToken> = parts.into_iter().map(|part| part.ack).collect();
        self.submit(&acks);
        // The requests hold clones; these only matter if nothing is left for them.
        for (ack, outcome) in acks.into_iter().zip(outcomes) {
            ack.resolve(outcome);
        }
    }

    fn admission(&self) -> Admission {
        self.outlet.admission()
    }
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
