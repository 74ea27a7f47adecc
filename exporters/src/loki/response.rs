//! What an answer of Loki means.
//!
//! A status alone does not say it: a 400 can mean "all but three entries are stored" or "nothing
//! is", a 500 can be permanent, a 429 can be impossible to satisfy. What decides are stable parts
//! of the texts that Loki's distributor and ingesters return. See `pkg/validation/validate.go`,
//! `pkg/distributor/distributor.go`, `pkg/ingester/stream.go` of Loki 3.

use tailwater_pipeline::DropReason;

use super::answer_time::leading_time;

/// What an answer means for the request that was sent.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Answer {
    /// Everything was accepted.
    Delivered,
    /// Everything was accepted except for what these name; trying again does not help.
    Partial(Vec<Refusal>),
    /// Nothing was accepted. Try again; `scope` says what else would fail.
    Retry(Reach),
    /// Not all of one stream was accepted, the other streams were. Try that stream again.
    RetryStream {
        /// Its labels, as Loki prints them; `None` = not named.
        labels: Option<String>,
        /// What it met.
        limit: StreamLimit,
    },
    /// Nothing was accepted, as the tenant's rate does not allow it now.
    TenantRate {
        /// Bytes per second, if the answer says so.
        rate: Option<u64>,
    },
    /// The request can only pass in smaller pieces.
    Split,
    /// Something in the request makes Loki reject all of it: find it.
    Isolate(DropReason),
    /// Nothing of it will ever be accepted.
    Drop(DropReason),
    /// Nothing helps until a person changes the configuration here or there.
    Hold(Reach),
}

/// A limit of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamLimit {
    /// It may take so many bytes per second, if the answer says so.
    Rate(Option<u64>),
    /// The tenant has as many streams as it may.
    Count,
}

/// How far a failure reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// The request.
    Request,
    /// All requests of the tenant.
    Tenant,
    /// All requests.
    Destination,
}

/// A number of entries that Loki gave up, and what is known about which.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Refusal {
    /// Why.
    pub reason: DropReason,
    /// How many; `None` = all entries of the stream.
    pub entries: Option<u64>,
    /// The labels of their stream, as Loki prints them.
    pub stream: Option<String>,
    /// Which entries of the stream.
    pub which: Which,
    /// How many entries of the stream came as far as the check that failed, if the answer says so.
    pub checked: Option<u64>,
}

/// Which entries of a stream a refusal is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// Not known, or all.
    Any,
    /// Those before a time (ns since the epoch).
    Before(i64),
    /// Those from a time on (ns since the epoch).
    From(i64),
    /// Those with lines longer than this many bytes.
    LongerThan(usize),
}

/// Entry errors: Loki stores the other entries of the request.
const ENTRY_MARKERS: [(&str, DropReason); 6] = [
    ("has timestamp too old", DropReason::TooOld),
    ("has timestamp too new", DropReason::TooNew),
    ("entry too far behind", DropReason::TooFarBehind),
    ("entry out of order", DropReason::TooFarBehind),
    ("max entry size", DropReason::LineTooLong),
    ("structured metadata", DropReason::InvalidMetadata),
];

/// Stream errors: Loki drops the whole stream and stores the others.
const STREAM_MARKERS: [&str; 4] = [
    "label names; limit",
    "label name too long",
    "label value too long",
    "duplicate label",
];

const STREAM_RATE_MARKER: &str = "per stream rate limit exceeded";
const TRAILER: &str = "total ignored: ";

/// Decides what `status` with `body` means. `success` are the statuses that mean that everything
/// was stored: 204 for Loki, which gives other 2xx answers for what it did not store.
pub(super) fn classify(status: u16, body: &str, success: &[u16]) -> Answer {
    if success.contains(&status) {
        return Answer::Delivered;
    }
    let lower = body.to_ascii_lowercase();
    let has = |marker: &str| lower.contains(marker);
    match status {
        400 => bad_request(body, &lower),
        401..=405 | 407 => Answer::Hold(Reach::Destination),
        413 => Answer::Split,
        422 if has("at least one valid stream") => Answer::Drop(DropReason::EncodeError),
        429 => rate_limited(body, &lower),
        500.. if has("label name is empty") || has("resulted in invalid name") => {
            Answer::Isolate(DropReason::InvalidMetadata)
        }
        500.. if has("received message larger than max") => Answer::Split,
        500.. if has("no schema config found") => Answer::Isolate(DropReason::TooOld),
        503 => Answer::Retry(Reach::Destination),
        408 | 425 | 500.. => Answer::Retry(Reach::Request),
        // A blocked tenant is answered with a 2xx (260), which must not pass for success.
        _ if has("ingestion blocked") => Answer::Hold(Reach::Tenant),
        200..=399 => Answer::Hold(Reach::Destination),
        _ => Answer::Isolate(DropReason::Rejected),
    }
}

fn bad_request(body: &str, lower: &str) -> Answer {
    if lower.contains("couldn't parse labels") || lower.contains("error parsing labels") {
        return Answer::Isolate(DropReason::InvalidLabels);
    }
    if lower.contains("missing required labels") {
        return Answer::Hold(Reach::Request);
    }
    if lower.contains(STREAM_RATE_MARKER) {
        // Entries over the rate in a stream with other bad entries. What is stored already does
        // not appear twice, so all of it is sent again and only the bad entries stay refused.
        return stream_rate(body);
    }
    let refusals = refusals(body);
    if !refusals.is_empty() {
        return Answer::Partial(refusals);
    }
    if lower.contains("tenant id") || lower.contains("multiple org ids") {
        return Answer::Hold(Reach::Tenant);
    }
    Answer::Isolate(DropReason::Rejected)
}

fn rate_limited(body: &str, lower: &str) -> Answer {
    if lower.contains(STREAM_RATE_MARKER) {
        return stream_rate(body);
    }
    if lower.contains("maximum active stream limit") {
        let labels = body
            .split_once("create stream ")
            .and_then(|(_, rest)| label_set(rest));
        let limit = StreamLimit::Count;
        return Answer::RetryStream { labels, limit };
    }
    if lower.contains("ingestion rate limit") {
        // "(limit: 4194304 bytes/sec) while attempting to ingest '9' lines totaling ..."
        let rate = number_after(lower, "limit: ");
        return Answer::TenantRate { rate };
    }
    // A proxy's, for one: its limit may be anything.
    Answer::Retry(Reach::Tenant)
}

/// "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream
/// '{...}' totaling 245B, ...": the size is that of one entry, so only the rate says something.
fn stream_rate(body: &str) -> Answer {
    let at = body.to_ascii_lowercase().find(STREAM_RATE_MARKER);
    let text = at.and_then(|at| body.get(at..)).unwrap_or(body);
    let labels = quoted_labels(text, "for stream '").or_else(|| trailer_labels(body));
    let limit = StreamLimit::Rate(size_after(text, "limit: "));
    Answer::RetryStream { labels, limit }
}

/// The refusals that a 400 names. Two forms exist. The distributor's: messages, each with
/// `N errors like: ` in front. An ingester's: a line for each of the first ten entries and a
/// trailer with the exact number, `total ignored: N out of M for stream: {...}`.
fn refusals(body: &str) -> Vec<Refusal> {
    let mut found = Vec::new();
    for (count, message) in grouped(body) {
        if let Some(refusal) = refusal(message, count) {
            found.push(refusal);
        }
    }
    if let Some((before, trailer)) = body.split_once(TRAILER) {
        return ingester_refusals(before, trailer);
    }
    found
}

/// Pieces of the form `N errors like: message`; all of `body` once if there is none.
fn grouped(body: &str) -> Vec<(u64, &str)> {
    const MARK: &str = " errors like: ";
    let starts: Vec<(usize, u64, usize)> = body
        .match_indices(MARK)
        .map(|(at, _)| {
            let digits = body[..at].bytes().rev().take_while(u8::is_ascii_digit);
            let start = at - digits.count();
            let count = body[start..at].parse().unwrap_or(1);
            (start, count, at + MARK.len())
        })
        .collect();
    if starts.is_empty() {
        return vec![(1, body)];
    }
    let end_of = |i: usize| starts.get(i + 1).map_or(body.len(), |next| next.0);
    let piece = |(i, s): (usize, &(usize, u64, usize))| (s.1, &body[s.2..end_of(i).max(s.2)]);
    starts.iter().enumerate().map(piece).collect()
}

fn ingester_refusals(entries: &str, trailer: &str) -> Vec<Refusal> {
    let digits = trailer.bytes().take_while(u8::is_ascii_digit).count();
    let total: u64 = trailer[..digits].parse().unwrap_or(1);
    let checked = number_after(trailer, " out of ");
    let stream = trailer
        .split_once("for stream: ")
        .and_then(|(_, rest)| label_set(rest));
    let mut found: Vec<Refusal> = Vec::new();
    let mut listed = 0;
    for line in entries.split("entry with timestamp ").skip(1) {
        let Some(mut refusal) = refusal(line, 1) else {
            continue;
        };
        listed += 1;
        refusal.stream = stream.clone();
        refusal.checked = checked;
        match found.iter_mut().find(|f| f.reason == refusal.reason) {
            Some(same) => same.entries = same.entries.map(|n| n + 1),
            None => found.push(refusal),
        }
    }
    // The list is capped, the total is not. What is not listed counts for the last reason.
    let rest = total.saturating_sub(listed);
    match found.last_mut() {
        Some(last) => last.entries = last.entries.map(|n| n + rest),
        None => found.push(Refusal {
            reason: DropReason::Rejected,
            entries: Some(total),
            stream,
            which: Which::Any,
            checked,
        }),
    }
    found
}

fn refusal(message: &str, count: u64) -> Option<Refusal> {
    let lower = message.to_ascii_lowercase();
    let stream = quoted_labels(message, "stream '");
    if STREAM_MARKERS.iter().any(|m| lower.contains(m)) {
        return Some(Refusal {
            reason: DropReason::InvalidLabels,
            entries: None,
            stream,
            which: Which::Any,
            checked: None,
        });
    }
    let (marker, reason) = ENTRY_MARKERS.iter().find(|(m, _)| lower.contains(m))?;
    let time_after = |text: &str| {
        let (_, rest) = message.split_once(text)?;
        leading_time(rest)
    };
    let bound = "oldest acceptable timestamp is: ";
    let which = match reason {
        DropReason::TooOld | DropReason::TooFarBehind => time_after(bound).map(Which::Before),
        DropReason::TooNew => time_after("timestamp too new: ").map(Which::From),
        DropReason::LineTooLong => {
            let size = number_after(&lower, &format!("{marker} '"));
            size.map(|n| Which::LongerThan(usize::try_from(n).unwrap_or(usize::MAX)))
        }
        _ => None,
    };
    Some(Refusal {
        reason: *reason,
        entries: Some(count),
        stream,
        which: which.unwrap_or(Which::Any),
        checked: None,
    })
}

fn trailer_labels(body: &str) -> Option<String> {
    let (_, trailer) = body.split_once(TRAILER)?;
    let (_, rest) = trailer.split_once("for stream: ")?;
    label_set(rest)
}

fn quoted_labels(text: &str, mark: &str) -> Option<String> {
    let (_, rest) = text.split_once(mark)?;
    label_set(rest)
}

/// The label set `{a="b", ...}` that `text` begins with.
fn label_set(text: &str) -> Option<String> {
    if !text.starts_with('{') {
        return None;
    }
    let (mut quoted, mut escaped) = (false, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(text[..=i].to_owned()),
            _ => {}
        }
    }
    None
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

/// A size as Loki prints it: `3MB`, `1.5kB`, `700B`; binary multiples.
fn size_after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    let number = |b: &u8| b.is_ascii_digit() || *b == b'.';
    let digits = rest.bytes().take_while(number).count();
    let value: f64 = rest[..digits].parse().ok()?;
    let unit = rest.as_bytes().get(digits).map(u8::to_ascii_lowercase);
    let shift = match unit {
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        _ => 0,
    };
    Some((value * f64::from(1u32 << shift)) as u64)
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
