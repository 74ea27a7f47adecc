//! The ingester's half of a push: stream limits, per-stream rates, the window behind the newest
//! entry, and storing.

use super::admit::{Context, Discarded, Prepared, nanos};
use super::push::PushEntry;
use super::state::Store;
use super::store::Stream;
use crate::entry::EntryRef;
use crate::time::{go_time, rfc3339_seconds};

/// Why entries of a stream were not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamFailure {
    pub(super) status: u16,
    pub(super) text: String,
}

/// Stores stream after stream. What is returned is the failure of the last stream, none if that
/// one succeeded: an earlier failure is forgotten, unless the behaviour says otherwise.
pub(super) fn streams(
    context: &Context<'_>,
    streams: Vec<Prepared<'_>>,
    store: &mut Store,
    discarded: &mut Discarded,
) -> Option<StreamFailure> {
    let mut outcome = None;
    for stream in streams {
        let failure = push_stream(context, &stream, store, discarded);
        if failure.is_some() || context.behaviour.last_stream_decides {
            outcome = failure;
        }
    }
    outcome
}

fn push_stream(
    context: &Context<'_>,
    prepared: &Prepared<'_>,
    store: &mut Store,
    discarded: &mut Discarded,
) -> Option<StreamFailure> {
    if let Err((reason, failure)) = create(context, prepared, store) {
        *discarded.entry(reason).or_default() += prepared.entries.len() as u64;
        return Some(failure);
    }
    let stream = store
        .tenant(context.tenant)
        .streams
        .entry(prepared.name.clone())
        .or_default();
    let mut split = Split::new(prepared.entries.len());
    sort_out(context, stream, prepared, &mut split);
    stream.head_ns = split.head_ns.or(stream.head_ns);
    for (_, cause) in &split.failed {
        *discarded.entry(cause.reason()).or_default() += 1;
    }
    store.keep(context, &prepared.name, &split.accepted);
    failure_text(context, prepared, &split.failed)
}

/// Makes sure that the stream exists; the error names why a new one may not.
fn create(
    context: &Context<'_>,
    prepared: &Prepared<'_>,
    store: &mut Store,
) -> Result<(), (&'static str, StreamFailure)> {
    let behaviour = context.behaviour;
    let tenant = store.tenant(context.tenant);
    if tenant.streams.contains_key(&prepared.name) {
        return Ok(());
    }
    if behaviour
        .streams_max
        .is_some_and(|max| tenant.streams.len() >= max)
    {
        let text = format!(
            "maximum active stream limit exceeded when trying to create stream {}, reduce the \
             number of active streams (reduce labels or reduce label values), or contact your \
             Loki administrator to see if the limit can be increased, user: '{}'",
            prepared.name, context.tenant
        );
        return Err(("stream_limit", StreamFailure { status: 429, text }));
    }
    if let Some(start) = behaviour.schema_start_ns
        && let Some(entry) = prepared.entries.iter().find(|entry| entry.ts_ns < start)
    {
        let seconds = entry.ts_ns.div_euclid(crate::time::NANOS_PER_SECOND);
        let text = format!("no schema config found for time {seconds}");
        return Err(("no_schema", StreamFailure { status: 500, text }));
    }
    let labels = prepared.labels.clone();
    tenant
        .streams
        .insert(prepared.name.clone(), Stream::new(labels));
    Ok(())
}

/// Why one entry was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Older than this, the oldest acceptable time.
    TooFarBehind(i64),
    /// No room in the stream's bucket for this many bytes.
    RateLimited(u64),
}

impl Cause {
    fn reason(self) -> &'static str {
        match self {
            Self::TooFarBehind(_) => "too_far_behind",
            Self::RateLimited(_) => "per_stream_rate_limit",
        }
    }
}

/// Which entries of a push are stored and which not.
struct Split<'e> {
    accepted: Vec<&'e PushEntry<'e>>,
    failed: Vec<(&'e PushEntry<'e>, Cause)>,
    head_ns: Option<i64>,
}

impl Split<'_> {
    fn new(entries: usize) -> Self {
        Self {
            accepted: Vec::with_capacity(entries),
            failed: Vec::new(),
            head_ns: None,
        }
    }
}

/// Checks entry by entry in the order of arrival: an accepted one moves the window at once.
fn sort_out<'e>(
    context: &Context<'_>,
    stream: &mut Stream,
    prepared: &'e Prepared<'e>,
    split: &mut Split<'e>,
) {
    let behaviour = context.behaviour;
    let mut head = stream.head_ns;
    let mut take = |bytes: u64| {
        behaviour.stream_rate_bytes.is_none_or(|rate| {
            stream
                .bucket
                .take(context.now_ns, bytes, rate, behaviour.stream_burst_bytes)
        })
    };
    let mut accepted_bytes = 0;
    for entry in &prepared.entries {
        let bytes = entry.counted_bytes() as u64;
        let cutoff = behaviour.behind_head_max.zip(head);
        let cutoff = cutoff.map(|(window, head)| head.saturating_sub(nanos(window)));
        if !behaviour.shard_streams && !take(bytes) {
            split.failed.push((entry, Cause::RateLimited(bytes)));
        } else if let Some(cutoff) = cutoff.filter(|cutoff| entry.ts_ns < *cutoff) {
            split.failed.push((entry, Cause::TooFarBehind(cutoff)));
        } else {
            head = Some(head.map_or(entry.ts_ns, |head| head.max(entry.ts_ns)));
            accepted_bytes += bytes;
            split.accepted.push(entry);
        }
    }
    if behaviour.shard_streams && !split.accepted.is_empty() && !take(accepted_bytes) {
        // All of the stream's part or nothing.
        split.accepted.clear();
        let all = prepared.entries.iter();
        let limited =
            |entry: &'e PushEntry<'e>| (entry, Cause::RateLimited(entry.counted_bytes() as u64));
        split.failed = all.map(limited).collect();
    } else {
        split.head_ns = head;
    }
}

/// One line for each failed entry up to the cap, then the exact count. The last failure decides
/// about the status.
fn failure_text(
    context: &Context<'_>,
    prepared: &Prepared<'_>,
    failed: &[(&PushEntry<'_>, Cause)],
) -> Option<StreamFailure> {
    let (_, last) = failed.last()?;
    let status = if matches!(last, Cause::RateLimited(_)) {
        429
    } else {
        400
    };
    let mut text = String::new();
    for (entry, cause) in failed
        .iter()
        .take(context.behaviour.ignored_lines_reported_max)
    {
        let reason = match cause {
            Cause::TooFarBehind(cutoff) => format!(
                "entry too far behind, entry timestamp is: {}, oldest acceptable timestamp is: {}",
                rfc3339_seconds(entry.ts_ns),
                rfc3339_seconds(*cutoff)
            ),
            Cause::RateLimited(bytes) => rate_text(context, &prepared.name, *bytes),
        };
        let time = go_time(entry.ts_ns);
        text.push_str(&format!(
            "entry with timestamp {time} ignored, reason: '{reason}',\n"
        ));
    }
    text.push_str(&format!(
        "user '{}', total ignored: {} out of {} for stream: {}",
        context.tenant,
        failed.len(),
        prepared.entries.len(),
        prepared.name
    ));
    Some(StreamFailure { status, text })
}

fn rate_text(context: &Context<'_>, name: &str, bytes: u64) -> String {
    format!(
        "Per stream rate limit exceeded (limit: {}/sec) while attempting to ingest for stream \
         '{name}' totaling {}, consider splitting a stream via additional labels or contact your \
         Loki administrator to see if the limit can be increased",
        byte_size(context.behaviour.stream_rate_bytes.unwrap_or_default()),
        byte_size(bytes)
    )
}

/// Bytes in the largest binary unit that divides them, as the server prints sizes.
fn byte_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let unit = UNITS
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(
        || format!("{bytes}B"),
        |(unit, name)| format!("{}{name}", bytes / unit),
    )
}

/// The view handed to the hook and the store.
pub(super) fn entry_ref<'a>(
    tenant: &'a str,
    labels: &'a str,
    entry: &'a PushEntry<'_>,
) -> EntryRef<'a> {
    EntryRef {
        tenant,
        labels,
        ts_ns: entry.ts_ns,
        line: &entry.line,
        metadata: &entry.metadata,
    }
}
