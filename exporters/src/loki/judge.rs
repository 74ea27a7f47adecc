//! Turns answers into verdicts: what is counted, repeated, divided, isolated or held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tailwater_pipeline::DropReason;
use tailwater_pipeline::clock::Clock;

use crate::client::http_date;
use crate::delivery::{Duty, Judge, OutgoingRequest, Reply, RetryScope, SendError, Verdict};

use super::compress::CompressionEncoder;
use super::dead_letter::{DeadLetter, DeadLetters};
use super::decode::RequestView;
use super::label_text::same_stream;
use super::parts::{self, Selected};
use super::rates::{self, Step};
use super::refused;
use super::response::{Answer, Reach, Refusal, StreamLimit, Which, classify};
use super::streams::ParkedLanes;

/// After this many requests in a row were rejected as a whole, none accepted between them, it is
/// not single entries that are bad: requests are held instead of being taken apart and dropped.
const REJECTIONS_IN_A_ROW_MAX: u32 = 64;
/// How much of an answer is shown.
const CAUSE_BYTES_MAX: usize = 400;

/// Judges the answers of Loki.
pub(super) struct LokiJudge {
    /// Statuses that mean that everything was stored.
    pub success: Vec<u16>,
    /// How parts of requests are compressed.
    pub encoder: CompressionEncoder,
    /// Where rejected entries go.
    pub dead_letters: Option<Arc<DeadLetters>>,
    /// For `Retry-After`.
    pub clock: Arc<dyn Clock>,
    /// Streams that Loki did not take.
    pub parked: Arc<ParkedLanes>,
    /// Requests rejected as a whole since one was accepted.
    pub rejections: AtomicU32,
    /// How often a stream was parked.
    pub parkings: AtomicU64,
}

impl<D: Duty> Judge<D> for LokiJudge {
    fn judge(
        &self,
        request: &mut OutgoingRequest<D>,
        result: Result<Reply, SendError>,
    ) -> Verdict<D> {
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => return error.verdict(),
        };
        let status = reply.status.as_u16();
        let body = String::from_utf8_lossy(&reply.body);
        let answer = classify(status, &body, &self.success);
        if matches!(answer, Answer::Delivered | Answer::Partial(_)) {
            self.rejections.store(0, Ordering::Relaxed);
            self.parked.accepted(&request.lanes);
        }
        if answer == Answer::Delivered {
            return Verdict::Delivered;
        }
        let context = Context {
            judge: self,
            cause: cause(status, &body),
            truncated: reply.truncated,
            after: reply
                .headers
                .get("retry-after")
                .and_then(|v| v.to_str().ok())
                .and_then(|v| http_date::retry_after(v, self.clock.wall_ns())),
        };
        context.verdict(request, answer)
    }

    fn divisions(&self) -> u64 {
        self.parkings.load(Ordering::Acquire)
    }

    fn given_up(&self, body: &[Bytes], tenant: Option<&str>, reason: DropReason, cause: &str) {
        self.bury(body, tenant, reason, cause);
    }

    /// Parked streams get a request each, the others one together.
    fn divide(&self, request: &mut OutgoingRequest<D>) -> Vec<OutgoingRequest<D>> {
        let is_parked = |lane: &u64| self.parked.contains(*lane);
        if !request.lanes.iter().any(is_parked) {
            return Vec::new();
        }
        let Ok(view) = RequestView::decode(&request.body) else {
            return Vec::new();
        };
        let tenant = request.tenant.clone();
        let lane = |i: &usize| parts::lane(tenant.as_deref(), &view.labels(&view.streams[*i]));
        let all = 0..view.streams.len();
        let (alone, together): (Vec<_>, Vec<_>) = all.partition(|i| is_parked(&lane(i)));
        let whole = |i: &usize| parts::whole(&view, *i);
        let mut parts: Vec<Vec<Selected>> = alone.iter().map(|i| vec![whole(i)]).collect();
        if !together.is_empty() {
            parts.push(together.iter().map(whole).collect());
        }
        parts::requests(request, &view, &parts, self.encoder)
    }
}

impl LokiJudge {
    /// Writes all entries of a body as dead letters.
    fn bury(&self, body: &[Bytes], tenant: Option<&str>, reason: DropReason, cause: &str) {
        if let Some(letters) = &self.dead_letters
            && let Ok(view) = RequestView::decode(body)
        {
            let each = |s: usize| (0..view.streams[s].entries.len()).map(move |e| (s, e));
            let all = (0..view.streams.len()).flat_map(each).collect();
            write(letters, &view, tenant, (reason, cause), all);
        }
    }
}

fn cause(status: u16, body: &str) -> Arc<str> {
    let body = body.trim();
    let end = (0..=body.len().min(CAUSE_BYTES_MAX))
        .rev()
        .find(|i| body.is_char_boundary(*i));
    let shown = &body[..end.unwrap_or(0)];
    format!("HTTP {status}: {shown}").into()
}

fn scope(reach: Reach) -> RetryScope {
    match reach {
        Reach::Request => RetryScope::Request,
        Reach::Tenant => RetryScope::Tenant,
        Reach::Destination => RetryScope::Destination,
    }
}

struct Context<'a> {
    judge: &'a LokiJudge,
    cause: Arc<str>,
    after: Option<Duration>,
    /// The answer was longer than what was read of it, so it named more than we know.
    truncated: bool,
}

impl Context<'_> {
    fn verdict<D: Duty>(&self, request: &mut OutgoingRequest<D>, answer: Answer) -> Verdict<D> {
        match answer {
            Answer::Delivered => Verdict::Delivered,
            Answer::Retry(reach) => self.retry(reach),
            Answer::Hold(reach) => self.hold(reach),
            Answer::Partial(refusals) => self.partial(request, &refusals),
            Answer::RetryStream { labels, limit } => {
                self.retry_stream(request, labels.as_deref(), limit)
            }
            Answer::TenantRate { rate } => self.tenant_rate(request, rate),
            Answer::Split => self.split(request, DropReason::TooLarge),
            Answer::Isolate(reason) => self.isolate(request, reason),
            Answer::Drop(reason) => self.give_up(request, reason),
        }
    }

    fn retry<D>(&self, reach: Reach) -> Verdict<D> {
        Verdict::Retry {
            scope: scope(reach),
            after: self.after,
            cause: self.cause.clone(),
        }
    }

    fn hold<D>(&self, reach: Reach) -> Verdict<D> {
        Verdict::Hold {
            scope: scope(reach),
            wait: None,
            cause: self.cause.clone(),
        }
    }

    /// Counts what a partly accepted request lost, at most what it had.
    fn partial<D: Duty>(&self, request: &OutgoingRequest<D>, refusals: &[Refusal]) -> Verdict<D> {
        let letters = self.judge.dead_letters.as_deref();
        let whole_stream = refusals.iter().any(|r| r.entries.is_none());
        let counted = refusals.iter().any(|r| r.checked.is_some());
        let view = if letters.is_some() || whole_stream || counted || self.truncated {
            RequestView::decode(&request.body).ok()
        } else {
            None
        };
        let mut refusals = refused::merge(refusals);
        if let (Some(view), true) = (&view, self.truncated) {
            refusals = refused::widen(view, &refusals);
        } else if let Some(view) = &view {
            refusals.extend(refused::unnamed(view, &refusals));
        }
        if let Some(view) = &view {
            self.doubt(request, view, &refusals);
        }
        let mut room = request.items;
        let mut dropped: Vec<(DropReason, u64)> = Vec::new();
        for refusal in &refusals {
            if let (DropReason::TooOld, Which::Before(bound)) = (refusal.reason, &refusal.which) {
                self.judge
                    .parked
                    .learn_age_max(self.judge.clock.wall_ns().saturating_sub(*bound));
            }
            let entries = match (refusal.entries, &view) {
                (Some(n), _) => n,
                (None, Some(view)) => refused::stream_entries(view, refusal).max(1),
                (None, None) => 1,
            };
            let n = entries.min(room);
            room -= n;
            match dropped
                .iter_mut()
                .find(|(reason, _)| *reason == refusal.reason)
            {
                Some((_, sum)) => *sum += n,
                None => dropped.push((refusal.reason, n)),
            }
            if let (Some(letters), Some(view)) = (letters, &view) {
                let tenant = request.tenant.as_deref();
                let chosen = refused::choose(view, refusal, n);
                write(letters, view, tenant, (refusal.reason, &self.cause), chosen);
            }
        }
        tracing::warn!(
            tenant = request.tenant.as_deref().unwrap_or(""),
            dropped_items = request.items - room,
            items = request.items,
            error = &*self.cause,
            "The destination refused some entries of a request; the others are stored."
        );
        Verdict::DeliveredExcept { dropped }
    }

    /// Streams of which entries were too far behind are sent alone from now on, those included that
    /// wait in requests with others.
    fn doubt<D>(&self, request: &OutgoingRequest<D>, view: &RequestView, refusals: &[Refusal]) {
        let behind = |r: &&Refusal| r.reason == DropReason::TooFarBehind;
        for refusal in refusals.iter().filter(behind) {
            for stream in &view.streams {
                let ours = view.labels(stream);
                let named = refusal.stream.as_ref();
                let is_it = named.is_none_or(|labels| same_stream(&ours, labels));
                let lane = parts::lane(request.tenant.as_deref(), &ours);
                if is_it && self.judge.parked.doubt(lane) {
                    self.judge.parkings.fetch_add(1, Ordering::Release);
                }
            }
        }
    }

    /// Divides a request into one with the stream that has to wait and one with the others, so
    /// that they do not wait with it. The others were stored; they are sent again because only
    /// the answer to a request of their own is exact, and what is stored does not appear twice.
    fn retry_stream<D: Duty>(
        &self,
        request: &mut OutgoingRequest<D>,
        labels: Option<&str>,
        limit: StreamLimit,
    ) -> Verdict<D> {
        let Ok(view) = RequestView::decode(&request.body) else {
            return self.retry(Reach::Request);
        };
        // An answer is about the last stream unless it names one.
        let is =
            |i: &usize| labels.is_some_and(|l| same_stream(&view.labels(&view.streams[*i]), l));
        let last = view.streams.len().checked_sub(1);
        let Some(named) = (0..view.streams.len()).find(is).or(last) else {
            return self.retry(Reach::Request);
        };
        let ours = view.labels(&view.streams[named]);
        let lane = parts::lane(request.tenant.as_deref(), &ours);
        self.judge.parked.park(lane);
        self.judge.parkings.fetch_add(1, Ordering::Release);
        if view.streams.len() > 1 {
            let others = (0..view.streams.len()).filter(|i| *i != named);
            let others = others.map(|i| parts::whole(&view, i)).collect();
            let alone = vec![parts::whole(&view, named)];
            return self.replace(request, &view, &[others, alone]);
        }
        match limit {
            StreamLimit::Rate(rate) => self.rate(request, &view, rate, RetryScope::Lanes),
            StreamLimit::Count => self.retry_after(RetryScope::Lanes, Duration::ZERO),
        }
    }

    fn tenant_rate<D: Duty>(
        &self,
        request: &mut OutgoingRequest<D>,
        rate: Option<u64>,
    ) -> Verdict<D> {
        match RequestView::decode(&request.body) {
            Ok(view) => self.rate(request, &view, rate, RetryScope::Tenant),
            Err(_) => self.retry(Reach::Tenant),
        }
    }

    /// Waits, divides or gives up a request that is over a rate.
    fn rate<D: Duty>(
        &self,
        request: &mut OutgoingRequest<D>,
        view: &RequestView,
        rate: Option<u64>,
        scope: RetryScope,
    ) -> Verdict<D> {
        let now = self.judge.clock.now();
        let refusals = &mut request.refusals;
        refusals.count = refusals.count.saturating_add(1);
        refusals.since.get_or_insert(now);
        let size = parts::weight(view);
        match rates::step(size, view.entries(), rate, refusals, now) {
            Step::Wait(time) => self.retry_after(scope, time),
            Step::Cut(bytes) => self.replace(request, view, &parts::cut(view, bytes)),
            Step::GiveUp => self.give_up(request, DropReason::TooLarge),
        }
    }

    /// Again after at least `time`, and after what the answer asks for.
    fn retry_after<D>(&self, scope: RetryScope, time: Duration) -> Verdict<D> {
        let after = self.after.unwrap_or_default().max(time);
        Verdict::Retry {
            scope,
            after: (!after.is_zero()).then_some(after),
            cause: self.cause.clone(),
        }
    }

    fn split<D: Duty>(&self, request: &mut OutgoingRequest<D>, reason: DropReason) -> Verdict<D> {
        let view = RequestView::decode(&request.body).ok();
        let halves = view.and_then(|v| parts::halves(&v).map(|h| (v, h)));
        match halves {
            Some((view, halves)) => self.replace(request, &view, &halves),
            None => self.give_up(request, reason),
        }
    }

    /// Narrows down what makes Loki reject the whole request; what is left at the end is dropped.
    fn isolate<D: Duty>(&self, request: &mut OutgoingRequest<D>, reason: DropReason) -> Verdict<D> {
        let before = self.judge.rejections.fetch_add(1, Ordering::Relaxed);
        if before >= REJECTIONS_IN_A_ROW_MAX {
            self.judge
                .rejections
                .store(REJECTIONS_IN_A_ROW_MAX, Ordering::Relaxed);
            return self.hold(Reach::Request);
        }
        if reason == DropReason::InvalidLabels {
            let streams = RequestView::decode(&request.body).map_or(0, |v| v.streams.len());
            if streams == 1 {
                return self.give_up(request, reason);
            }
        }
        self.split(request, reason)
    }

    fn give_up<D: Duty>(&self, request: &OutgoingRequest<D>, reason: DropReason) -> Verdict<D> {
        let tenant = request.tenant.as_deref();
        self.judge.bury(&request.body, tenant, reason, &self.cause);
        Verdict::Drop {
            reason,
            cause: self.cause.clone(),
        }
    }

    fn replace<D: Duty>(
        &self,
        request: &mut OutgoingRequest<D>,
        view: &RequestView,
        selections: &[Vec<Selected>],
    ) -> Verdict<D> {
        Verdict::Replace {
            parts: parts::requests(request, view, selections, self.judge.encoder),
            dropped: Vec::new(),
        }
    }
}

/// Writes some entries (stream, entry) of a request as dead letters.
fn write(
    letters: &DeadLetters,
    view: &RequestView,
    tenant: Option<&str>,
    (reason, cause): (DropReason, &str),
    entries: Vec<(usize, usize)>,
) {
    for (s, e) in entries {
        let stream = &view.streams[s];
        let entry = &stream.entries[e];
        letters.write([DeadLetter {
            reason: reason.as_str(),
            cause,
            tenant,
            labels: &view.labels(stream),
            time: entry.time,
            line: view.line(entry),
            metadata: view.metadata(entry).unwrap_or_default(),
        }]);
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
