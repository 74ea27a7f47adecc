//! The open requests of a shard: when an entry's stream may come in, and when a request leaves.
//!
//! Loki's answer says what became of the last stream of a request only. A stream that could be
//! refused therefore stands last, and a request holds at most one such stream. Streams that must
//! not be together have requests of their own, open side by side, so that rows of both may
//! alternate.

use tailwater_pipeline::AckToken;
use tailwater_pipeline::clock::Mono;

use crate::delivery::{OutgoingRequest, Sizer};

use super::front::{Encoding, LokiFront, Outlet, add};
use super::options::DeliveryMode;
use super::streams::Open;
use super::wire;

/// Tag and lengths of a stream besides its labels and entries.
const STREAM_OVERHEAD_BYTES: usize = 24;
/// Open requests of a shard together stay below the size of this many full ones.
const OPEN_REQUESTS_MAX: usize = 4;

impl<O: Outlet> LokiFront<O> {
    /// Makes room for an entry of `bound` bytes at `time`: sends off the request that its stream
    /// is in where it cannot take it, and lets the stream into one that can.
    #[cold]
    pub(super) fn join(&mut self, e: &Encoding<'_>, stream: u32, time: i64, bound: usize) {
        let shared = self.shared.clone();
        let options = &shared.options;
        let max = self.request_bytes_max;
        if self.open_bytes > OPEN_REQUESTS_MAX * max {
            self.close_all(Some(e.ack), e.now, |_| true);
        }
        let (s, open) = self.streams.stream_and_open(stream);
        let risky = s.fresh || time < s.behind || s.is_near_rate(max, &options.limits, e.now);
        let slot = s.open;
        if let Some(open) = open {
            let free = open.risky.is_none_or(|other| other == stream);
            if open.bytes + bound <= max && (free || !risky) {
                if risky {
                    open.risky = Some(stream);
                }
                return;
            }
        }
        if let Some(slot) = slot {
            self.close(slot, Some(e.ack), e.now);
        }
        let (s, _) = self.streams.stream_and_open(stream);
        let own = options.delivery == DeliveryMode::Verified || shared.parked.contains(s.lane);
        let (tenant, header) = (s.tenant, s.labels.len() + STREAM_OVERHEAD_BYTES);
        let slot = self.slot_for(e, tenant, own, risky, header + bound);
        self.streams.stream_mut(stream).open = Some(slot);
        let open = &mut self.streams.opens()[slot as usize];
        open.streams.push(stream);
        open.bytes += header;
        if risky {
            open.risky = Some(stream);
        }
        self.open_bytes += header;
    }

    /// An open request of a tenant for one more stream with `bytes`.
    fn slot_for(
        &mut self,
        e: &Encoding<'_>,
        tenant: u32,
        own: bool,
        risky: bool,
        bytes: usize,
    ) -> u32 {
        let linger = self.shared.options.batch.as_ref().map(|b| b.flush_timeout);
        let deadline = e.now.after(linger.unwrap_or_default());
        let common = self.streams.tenant_mut(tenant).shared;
        let Some(slot) = common.filter(|_| !own) else {
            let slot = self.streams.open(tenant, deadline);
            if !own {
                self.streams.tenant_mut(tenant).shared = Some(slot);
            }
            return slot;
        };
        let open = &self.streams.opens()[slot as usize];
        if risky && open.risky.is_some() {
            return self.streams.open(tenant, deadline);
        }
        if open.bytes + bytes <= self.request_bytes_max {
            return slot;
        }
        self.close(slot, Some(e.ack), e.now);
        let slot = self.streams.open(tenant, deadline);
        self.streams.tenant_mut(tenant).shared = Some(slot);
        slot
    }

    /// Sends off the open requests for which `which` is true.
    pub(super) fn close_all(
        &mut self,
        ack: Option<&AckToken>,
        now: Mono,
        which: impl Fn(&Open) -> bool,
    ) {
        for slot in 0..self.streams.opens().len() {
            let open = &self.streams.opens()[slot];
            if !open.streams.is_empty() && which(open) {
                self.close(slot as u32, ack, now);
            }
        }
    }

    /// Sends an open request off. `ack` is the duty of the part that is being encoded, if there is
    /// one.
    pub(super) fn close(&mut self, slot: u32, ack: Option<&AckToken>, now: Mono) {
        let Some(mut open) = self.streams.take_open(slot) else {
            return;
        };
        self.open_bytes -= open.bytes;
        if let Some(ack) = ack.filter(|_| open.part_items > 0) {
            open.acks.add(ack.clone(), open.part_items);
        }
        let owner = self.streams.tenant_mut(open.tenant);
        let (headers, name) = (owner.headers.clone(), owner.name.clone());
        if let Some(risky) = open.risky {
            // Loki's answer tells what became of the last stream.
            open.streams.retain(|s| *s != risky);
            open.streams.push(risky);
            add(&self.shared.stats.probing_requests, 1);
        }
        let mut lanes = Vec::with_capacity(open.streams.len());
        let mut raw_bytes = 0;
        for &index in &open.streams {
            let s = self.streams.stream_mut(index);
            lanes.push(s.lane);
            raw_bytes += wire::stream_len(s.labels.len(), s.buffer.entries_bytes());
        }
        self.writer.begin(raw_bytes);
        for &index in &open.streams {
            let s = self.streams.stream_mut(index);
            s.sent(&self.shared.options.limits, now);
            self.writer.stream(&s.labels, &mut s.buffer);
        }
        let body = self.writer.end();
        let stats = &self.shared.stats;
        add(&stats.requests, 1);
        add(&stats.request_raw_bytes, raw_bytes as u64);
        let request = OutgoingRequest::new(body, headers, name, lanes, open.items, open.acks);
        add(&stats.request_bytes, request.body_bytes() as u64);
        self.outlet.submit(request);
    }

    /// Adds the duty of an encoded part to the open requests that hold rows of it.
    pub(super) fn end_part(&mut self, ack: &AckToken, now: Mono) {
        for open in self.streams.opens() {
            if open.part_items > 0 {
                open.acks.add(ack.clone(), open.part_items);
                open.part_items = 0;
            }
        }
        let shared = self.shared.clone();
        if let Some(batch) = &shared.options.batch {
            self.close_all(None, now, |open| {
                let size = match batch.sizer {
                    Sizer::Bytes => open.bytes as u64,
                    Sizer::Items | Sizer::Requests => open.items,
                };
                size >= batch.min_size
            });
        }
    }
}
