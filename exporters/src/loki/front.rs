//! The shard's half of the exporter: batches in, finished requests out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use foldhash::fast::FixedState;
use tailwater_pdata::{LogsBatch, ValueRef};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::{AckToken, Admission, Batch, DropReason, Exporter, LogsPart, Outcome};

use tailwater_telemetry::metrics::LabelBudgetMetrics;

use crate::delivery::{Acks, Intake, OutgoingRequest, Sizer};

use super::body::BodyWriter;
use super::dead_letter::{DeadLetter, DeadLetters};
use super::line::{self, LineRecord};
use super::names::metadata_key;
use super::options::{LineFormat, LineTooLong, LokiOptions, OutsideWindow};
use super::plan::{RowPlan, row_hints, same_hints, tenant_of, unknown_format};
use super::plan_memo::PlanMemo;
use super::stats::LokiStats;
use super::streams::{ParkedLanes, Streams};
use super::wire;

/// How often idle streams are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Ends a line that was cut.
const CUT_MARK: &[u8] = b" [truncated]";

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

/// What the shards of one exporter share.
pub(super) struct Shared {
    /// What the exporter was told.
    pub options: LokiOptions,
    /// Counters.
    pub stats: Arc<LokiStats>,
    /// Where the use of labels is shown.
    pub budget: Option<Arc<LabelBudgetMetrics>>,
    /// For entries that are dropped here.
    pub dead_letters: Option<Arc<DeadLetters>>,
    /// Streams that Loki did not take lately.
    pub parked: Arc<ParkedLanes>,
    /// Active streams of all shards.
    pub streams: AtomicUsize,
    /// For entries without a time, and for the window of accepted times.
    pub clock: Arc<dyn Clock>,
}

/// The shard's half of a Loki exporter.
pub(super) struct LokiFront<O> {
    pub(super) shared: Arc<Shared>,
    pub(super) outlet: O,
    pub(super) writer: BodyWriter,
    pub(super) streams: Streams,
    /// Labels that are moved to structured metadata for streams beyond the limit.
    pub(super) moved: Vec<String>,
    /// A tenant was refused, and that was said.
    pub(super) tenant_refused: bool,
    plans: PlanMemo,
    /// Rows whose stream is known, by a hash of what decides about it; for one batch.
    pub(super) memo: HashMap<u64, (usize, Route), FixedState>,
    pub(super) label_text: String,
    pub(super) row_metadata: Vec<u8>,
    pub(super) line: Vec<u8>,
    pub(super) swept: Mono,
    /// Bytes of all open requests.
    pub(super) open_bytes: usize,
    /// Largest request in bytes.
    pub(super) request_bytes_max: usize,
    /// Largest request in records.
    pub(super) request_items_max: u64,
}

/// Where a row goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    Stream(u32),
    /// To a stream without the labels in `moved`.
    Reduced(u32),
    /// Nowhere: its tenant cannot be sent.
    NoTenant,
}

/// The times that Loki accepts, in ns since the epoch.
#[derive(Clone, Copy)]
pub(super) struct Window {
    oldest: i64,
    newest: i64,
    now: i64,
}

/// One part while it is encoded.
pub(super) struct Encoding<'a> {
    pub(super) logs: &'a LogsBatch,
    pub(super) ack: &'a AckToken,
    pub(super) window: Window,
    pub(super) now: Mono,
    pub(super) dropped: u32,
    /// Rows whose hint asks for a format that does not exist, and one of them.
    pub(super) unformatted: (usize, usize),
}

impl<O: Outlet> LokiFront<O> {
    /// A front that hands requests to `outlet`.
    pub fn new(shared: Arc<Shared>, outlet: O) -> LokiFront<O> {
        let options = &shared.options;
        let most = |sizer: Sizer| {
            let batch = options.batch.as_ref();
            let limit = batch.filter(|b| b.max_size > 0 && b.sizer == sizer);
            limit.map_or(u64::MAX, |b| b.max_size)
        };
        let bytes = usize::try_from(most(Sizer::Bytes)).unwrap_or(usize::MAX);
        let tolerance = i64::try_from(options.reorder_tolerance.as_nanos()).unwrap_or(i64::MAX);
        LokiFront {
            open_bytes: 0,
            request_bytes_max: options.max_request_bytes.min(bytes),
            request_items_max: most(Sizer::Items),
            writer: BodyWriter::new(options.compression_encoder, tolerance),
            shared,
            outlet,
            streams: Streams::default(),
            moved: Vec::new(),
            tenant_refused: false,
            plans: PlanMemo::default(),
            memo: HashMap::default(),
            label_text: String::new(),
            row_metadata: Vec::new(),
            line: Vec::new(),
            swept: Mono::default(),
        }
    }

    fn window(&self) -> Window {
        let limits = &self.shared.options.limits;
        let now = self.shared.clock.wall_ns();
        let span = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        // Unless the user states an age, Loki's own is taken from its first refusal: a refused
        // entry costs only itself, and a guess that is too low would lose what Loki takes.
        let age = match limits.age_max {
            Duration::ZERO => self.shared.parked.age_max_ns(),
            stated => span(stated),
        };
        let future = span(limits.future_max);
        Window {
            oldest: if age == 0 {
                i64::MIN
            } else {
                now.saturating_sub(age)
            },
            newest: if future == 0 {
                i64::MAX
            } else {
                now.saturating_add(future)
            },
            now,
        }
    }

    /// Encodes the rows of a part whose batch was split by resource.
    fn part(&mut self, logs: &LogsBatch, ack: &AckToken, now: Mono) -> u32 {
        let mut encoding = Encoding {
            logs,
            ack,
            window: self.window(),
            now,
            dropped: 0,
            unformatted: (0, 0),
        };
        self.encode(&mut encoding);
        let (n, row) = encoding.unformatted;
        if n > 0 {
            tracing::warn!(
                reason = DropReason::EncodeError.as_str(),
                dropped_items = n,
                error = unknown_format(logs, row),
                "Entries were dropped: their hint asks for a line format that does not exist."
            );
        }
        encoding.dropped
    }

    fn encode(&mut self, encoding: &mut Encoding<'_>) {
        let logs = encoding.logs;
        let shared = self.shared.clone();
        let options = &shared.options;
        let hints = row_hints(options, logs);
        let mut plans: Vec<(usize, RowPlan)> = Vec::new();
        self.memo.clear();
        let Some(hints) = hints else {
            let plan = self.plans.plan(options, logs);
            return self.rows(encoding, &plan, 0..logs.rows());
        };
        let mut current: Option<usize> = None;
        for row in 0..logs.rows() {
            let fits = |i: &usize| same_hints(logs, &hints, plans[*i].0, row);
            let found = current.filter(fits).or_else(|| (0..plans.len()).find(fits));
            let next = found.unwrap_or_else(|| {
                plans.push((row, RowPlan::new(options, logs, row)));
                plans.len() - 1
            });
            if current != Some(next) {
                // Rows of different plans have different labels though their values are the same.
                self.memo.clear();
                current = Some(next);
            }
            self.rows(encoding, &plans[next].1, row..row + 1);
        }
    }

    fn rows(&mut self, e: &mut Encoding<'_>, plan: &RowPlan, rows: std::ops::Range<usize>) {
        if plan.labels_dropped > 0 {
            add(
                &self.shared.stats.dropped_labels,
                plan.labels_dropped as u64,
            );
        }
        let Some(format) = plan.format else {
            e.unformatted.0 += rows.len();
            e.unformatted.1 = rows.start;
            for row in rows {
                let cause = unknown_format(e.logs, row);
                self.drop_row(e, plan, row, None, (DropReason::EncodeError, &cause));
            }
            return;
        };
        let mut previous: Option<(usize, Route)> = None;
        for row in rows {
            let route = match previous {
                Some((known, route)) if plan.same(e.logs, known, row) => route,
                _ => self.route(e, plan, row),
            };
            previous = Some((row, route));
            self.row(e, plan, format, row, route);
        }
    }

    #[inline]
    fn row(
        &mut self,
        e: &mut Encoding<'_>,
        plan: &RowPlan,
        format: LineFormat,
        row: usize,
        route: Route,
    ) {
        let stream = match route {
            Route::Stream(stream) | Route::Reduced(stream) => stream,
            Route::NoTenant => {
                return self.drop_row(e, plan, row, None, (DropReason::TenantRefused, ""));
            }
        };
        let Some(time) = self.time(e, row) else {
            let early = record_time(e.logs, row) < e.window.oldest;
            let reason = if early {
                DropReason::TooOld
            } else {
                DropReason::TooNew
            };
            return self.drop_row(e, plan, row, Some(stream), (reason, ""));
        };
        let limits = &self.shared.options.limits;
        self.row_metadata.clear();
        let trimmed = plan
            .metadata
            .row(limits, e.logs, row, &mut self.row_metadata);
        if trimmed + plan.metadata.trimmed > 0 {
            let n = trimmed + plan.metadata.trimmed;
            add(&self.shared.stats.trimmed_metadata, n.into());
        }
        if matches!(route, Route::Reduced(_)) {
            self.put_moved(e.logs, plan, row);
        }
        let body = match format {
            LineFormat::Raw => e.logs.body(row),
            LineFormat::Json | LineFormat::Logfmt => None,
        };
        if let Some(ValueRef::Str(text)) = body {
            // The usual case: the line is copied once, from the read buffer into the request.
            return self.line(e, plan, row, stream, time, text);
        }
        let mut text = std::mem::take(&mut self.line);
        text.clear();
        let record = LineRecord {
            logs: e.logs,
            row,
            hidden_attributes: &plan.hidden_attributes,
            hidden_resource: &plan.hidden_resource,
        };
        match (format, body) {
            (LineFormat::Raw, Some(value)) => value.write_string(&mut text),
            (LineFormat::Raw, None) => {}
            (LineFormat::Json, _) => line::json(&record, &mut text),
            (LineFormat::Logfmt, _) => line::logfmt(&record, &mut text),
        }
        self.line(e, plan, row, stream, time, &text);
        self.line = text;
    }

    /// The time of a row, if Loki accepts it or it is to be clamped.
    #[inline]
    fn time(&self, e: &Encoding<'_>, row: usize) -> Option<i64> {
        let time = match record_time(e.logs, row) {
            0 => {
                add(&self.shared.stats.untimed_entries, 1);
                return Some(e.window.now);
            }
            time => time,
        };
        if (e.window.oldest..=e.window.newest).contains(&time) {
            return Some(time);
        }
        match self.shared.options.limits.outside_window {
            OutsideWindow::Drop => None,
            OutsideWindow::Clamp => {
                add(&self.shared.stats.clamped_times, 1);
                // The oldest time moves on while the request is under way.
                let margin = 60_000_000_000.min(e.window.now.saturating_sub(e.window.oldest) / 2);
                let oldest = e.window.oldest.saturating_add(margin);
                Some(time.clamp(oldest, e.window.newest))
            }
        }
    }

    /// Appends the labels that this row's stream does not have, as structured metadata.
    #[cold]
    fn put_moved(&mut self, logs: &LogsBatch, plan: &RowPlan, row: usize) {
        add(&self.shared.stats.moved_labels, 1);
        if let Some(budget) = &self.shared.budget {
            budget.demoted_records.inc();
        }
        if !self.shared.options.structured_metadata.enabled {
            return;
        }
        for label in plan.labels.iter().filter(|l| self.moved.contains(&l.name)) {
            if let Some(value) = label.source.text(logs, row) {
                let key = metadata_key(&label.name);
                wire::put_pair(&mut self.row_metadata, key.as_bytes(), value.as_bytes());
            }
        }
    }

    #[inline]
    fn line(
        &mut self,
        e: &mut Encoding<'_>,
        plan: &RowPlan,
        row: usize,
        stream: u32,
        time: i64,
        text: &[u8],
    ) {
        let limits = &self.shared.options.limits;
        if text.len() <= limits.line_bytes_max {
            return self.push(e, plan, stream, time, &[text]);
        }
        match limits.line_too_long {
            LineTooLong::Drop => {
                self.drop_row(e, plan, row, Some(stream), (DropReason::LineTooLong, ""))
            }
            LineTooLong::Truncate => {
                add(&self.shared.stats.truncated_lines, 1);
                let mut end = limits.line_bytes_max.saturating_sub(CUT_MARK.len());
                // Not within a character: continuation bytes are 10xxxxxx, at most three of them.
                let start = end.saturating_sub(3);
                while end > start && text[end] & 0xc0 == 0x80 {
                    end -= 1;
                }
                self.push(e, plan, stream, time, &[&text[..end], CUT_MARK]);
            }
        }
    }

    #[inline]
    fn push(&mut self, e: &Encoding<'_>, plan: &RowPlan, stream: u32, time: i64, line: &[&[u8]]) {
        let line_len: usize = line.iter().map(|part| part.len()).sum();
        let metadata_len = plan.metadata.fixed.len() + self.row_metadata.len();
        let bound = line_len + metadata_len + wire::ENTRY_OVERHEAD_BYTES_MAX;
        let max = self.request_bytes_max;
        let (s, open) = self.streams.stream_and_open(stream);
        let ready = open.is_some_and(|o| {
            o.bytes + bound <= max && (time >= s.behind || o.risky == Some(stream))
        });
        if !ready {
            self.join(e, stream, time, bound);
        }
        let (s, Some(open)) = self.streams.stream_and_open(stream) else {
            unreachable!("join() let the stream into a request")
        };
        let before = s.buffer.entries_bytes();
        let metadata: [&[u8]; 2] = [&plan.metadata.fixed, &self.row_metadata];
        self.writer.push(&mut s.buffer, time, line, &metadata);
        let added = s.buffer.entries_bytes() - before;
        open.bytes += added;
        open.items += 1;
        open.part_items += 1;
        let full = open.items >= self.request_items_max;
        self.open_bytes += added;
        if let Some(slot) = s.open.filter(|_| full) {
            self.close(slot, Some(e.ack), e.now);
        }
    }

    #[cold]
    fn drop_row(
        &mut self,
        e: &mut Encoding<'_>,
        plan: &RowPlan,
        row: usize,
        stream: Option<u32>,
        (reason, cause): (DropReason, &str),
    ) {
        e.dropped += 1;
        e.ack.count_dropped(reason, 1);
        add(&self.shared.stats.dropped[reason as usize], 1);
        let Some(letters) = self.shared.dead_letters.clone() else {
            return;
        };
        let (labels, tenant) = match stream {
            Some(stream) => {
                let stream = self.streams.stream_mut(stream);
                let (labels, tenant) = (stream.labels.clone(), stream.tenant);
                (labels, self.streams.tenant_mut(tenant).name.clone())
            }
            // It has no stream, and is no reason to make one.
            None => {
                self.write_labels(e.logs, plan, row, false);
                let fixed = self.shared.options.tenant.fixed.as_ref();
                let tenant = tenant_of(plan, fixed, e.logs, row).map(Arc::from);
                (self.label_text.as_str().into(), tenant)
            }
        };
        let body = e.logs.body(row);
        let text = match body {
            Some(ValueRef::Str(s)) => Cow::Borrowed(s),
            Some(other) => Cow::Owned(other.to_display_string().into_bytes()),
            None => Cow::Borrowed(&b""[..]),
        };
        letters.write([DeadLetter {
            reason: reason.as_str(),
            cause,
            tenant: tenant.as_deref(),
            labels: &labels,
            time: record_time(e.logs, row),
            line: &text,
            metadata: Vec::new(),
        }]);
    }

    fn sweep(&mut self, now: Mono) {
        if now.since(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let forgotten = self.streams.forget_idle(now);
        self.forget(forgotten);
    }

    fn forget(&self, streams: usize) {
        self.shared.streams.fetch_sub(streams, Relaxed);
        let gauge = &self.shared.stats.streams_active;
        gauge.fetch_sub(streams as u64, Relaxed);
        self.show_streams();
    }

    pub(super) fn show_streams(&self) {
        if let Some(budget) = &self.shared.budget {
            let n = self.shared.streams.load(Relaxed);
            budget.streams.set(i64::try_from(n).unwrap_or(i64::MAX));
        }
    }

    fn export_part(&mut self, part: LogsPart, now: Mono) {
        let LogsPart { logs, ack, .. } = part;
        let rows = logs.rows() as u32;
        let mut dropped = 0;
        for logs in logs.split_by_resource() {
            if !logs.is_empty() {
                dropped += self.part(&logs, &ack, now);
            }
        }
        self.end_part(&ack, now);
        // The requests hold clones; this one only matters if nothing is left for them.
        ack.resolve(if dropped == rows && rows > 0 {
            Outcome::Refused
        } else {
            Outcome::Delivered
        });
    }
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// Time of a row in ns since the epoch, else the time it was observed, else 0.
#[inline]
fn record_time(logs: &LogsBatch, row: usize) -> i64 {
    match logs.time.get(row) {
        0 => logs.observed.get(row),
        time => time,
    }
}

impl<O> Drop for LokiFront<O> {
    fn drop(&mut self) {
        let streams = self.streams.len();
        self.shared.streams.fetch_sub(streams, Relaxed);
        self.shared
            .stats
            .streams_active
            .fetch_sub(streams as u64, Relaxed);
    }
}

impl<O: Outlet> Exporter for LokiFront<O> {
    fn export(&mut self, batch: Batch, now: Mono) {
        self.sweep(now);
        for part in batch.into_logs() {
            self.export_part(part, now);
        }
    }

    fn admission(&self) -> Admission {
        self.outlet.admission()
    }

    fn deadline(&self) -> Option<Mono> {
        self.streams.next_deadline()
    }

    fn tick(&mut self, now: Mono) {
        self.close_all(None, now, |open| open.deadline <= now);
        self.sweep(now);
    }

    fn flush(&mut self, now: Mono) {
        self.close_all(None, now, |_| true);
    }
}

#[cfg(test)]
#[path = "front_tests/mod.rs"]
pub(super) mod tests;
