//! Which entries of a request an answer is about. Loki says how many it refused and why, not always
//! which; the number is exact, the choice is what fits best.

use tailwater_pipeline::DropReason;

use super::decode::{EntryView, RequestView};
use super::label_text::same_stream;
use super::response::{Refusal, Which};

/// Loki prints some bounds in whole seconds.
const SECOND_NS: i64 = 1_000_000_000;

/// One refusal for each stream and reason. An answer has one for each text, and texts hold times.
pub(super) fn merge(refusals: &[Refusal]) -> Vec<Refusal> {
    let mut merged: Vec<Refusal> = Vec::new();
    for refusal in refusals {
        let same = |m: &&mut Refusal| m.reason == refusal.reason && m.stream == refusal.stream;
        match merged.iter_mut().find(same) {
            Some(same) => {
                same.entries = same.entries.zip(refusal.entries).map(|(a, b)| a + b);
                same.which = wider(same.which, refusal.which);
            }
            None => merged.push(refusal.clone()),
        }
    }
    merged
}

fn wider(a: Which, b: Which) -> Which {
    match (a, b) {
        (Which::Before(a), Which::Before(b)) => Which::Before(a.max(b)),
        (Which::From(a), Which::From(b)) => Which::From(a.min(b)),
        (Which::LongerThan(a), Which::LongerThan(b)) => Which::LongerThan(a.min(b)),
        _ => Which::Any,
    }
}

/// The refusals of an answer that was cut: one for each reason, about all entries of the request
/// that what is left of the answer applies to, and at least as many as it named.
pub(super) fn widen(view: &RequestView, refusals: &[Refusal]) -> Vec<Refusal> {
    let mut wide: Vec<Refusal> = Vec::new();
    for refusal in refusals {
        let n = refusal.entries.unwrap_or(1);
        match wide.iter_mut().find(|w| w.reason == refusal.reason) {
            Some(same) => {
                same.entries = same.entries.map(|sum| sum + n);
                same.which = wider(same.which, refusal.which);
            }
            None => wide.push(Refusal {
                entries: Some(n),
                stream: None,
                ..refusal.clone()
            }),
        }
    }
    for refusal in wide.iter_mut().filter(|w| w.which != Which::Any) {
        let named = fitting(view, refusal, 0).len() as u64;
        refusal.entries = refusal.entries.map(|n| n.max(named));
    }
    wide
}

/// What an ingester's answer does not tell of: entries of its stream that the distributor refused
/// before. Its errors give way to those of the ingester; only the number of entries that were left
/// shows that there were any.
pub(super) fn unnamed(view: &RequestView, refusals: &[Refusal]) -> Option<Refusal> {
    let told = refusals.iter().find(|r| r.checked.is_some())?;
    let all = Refusal {
        reason: DropReason::Rejected,
        which: Which::Any,
        checked: None,
        ..told.clone()
    };
    let sent = stream_entries(view, &all);
    let n = sent.checked_sub(told.checked?).filter(|n| *n > 0)?;
    Some(Refusal {
        entries: Some(n),
        ..all
    })
}

/// How many entries the stream of a refusal has.
pub(super) fn stream_entries(view: &RequestView, refusal: &Refusal) -> u64 {
    fitting(view, refusal, 0).len() as u64
}

/// The `n` entries (stream, entry) that a refusal fits best, in order.
pub(super) fn choose(view: &RequestView, refusal: &Refusal, n: u64) -> Vec<(usize, usize)> {
    let mut found = fitting(view, refusal, SECOND_NS);
    let size = |range: &std::ops::Range<usize>| i64::try_from(range.len()).unwrap_or(i64::MAX);
    found.sort_by_key(|&(s, e)| {
        let entry = &view.streams[s].entries[e];
        match refusal.which {
            Which::Before(_) => entry.time,
            Which::From(_) => entry.time.saturating_neg(),
            Which::LongerThan(_) => -size(&entry.line),
            // Of the reasons without a bound, those about metadata concern single entries.
            Which::Any => -size(&entry.metadata),
        }
    });
    found.truncate(usize::try_from(n).unwrap_or(usize::MAX));
    found.sort_unstable();
    found
}

/// The entries that a refusal may be about, `slack` ns beyond its bound.
fn fitting(view: &RequestView, refusal: &Refusal, slack: i64) -> Vec<(usize, usize)> {
    let stream = |s: &usize| match &refusal.stream {
        Some(labels) => same_stream(&view.labels(&view.streams[*s]), labels),
        None => view.streams.len() == 1 || refusal.which != Which::Any,
    };
    let entry = |e: &EntryView| match refusal.which {
        Which::Any => true,
        Which::Before(bound) => e.time < bound.saturating_add(slack),
        Which::From(bound) => e.time >= bound,
        Which::LongerThan(bytes) => e.line.len() > bytes,
    };
    let mut found = Vec::new();
    for s in (0..view.streams.len()).filter(stream) {
        let entries = view.streams[s].entries.iter().enumerate();
        found.extend(entries.filter(|(_, e)| entry(e)).map(|(e, _)| (s, e)));
    }
    found
}
