//! Decides what of a push is stored and what the answer is: first the checks Loki's distributor
//! makes, then those of its ingester.
//!
//! The two differ in what a failure costs and in what the client gets to hear. The distributor
//! drops single entries or streams and goes on; its errors are grouped by text. The ingester
//! handles stream after stream, and the outcome of the last one alone is reported.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Refusal;
use super::behaviour::LokiBehaviour;
use super::ingest::{self, StreamFailure};
use super::labels::Labels;
use super::metadata::normalise_name;
use super::push::{PushEntry, PushRequest, entry_wire_bytes, stream_wire_bytes};
use super::state::Store;
use crate::entry::{EntryHook, Pair};
use crate::time::rfc3339_seconds;

/// Everything a decision depends on besides the request.
pub(super) struct Context<'a> {
    pub(super) behaviour: &'a LokiBehaviour,
    pub(super) tenant: &'a str,
    pub(super) now_ns: i64,
    pub(super) hook: Option<&'a EntryHook>,
}

/// Entries lost, by the reason Loki's `loki_discarded_samples_total` would give.
pub(super) type Discarded = BTreeMap<&'static str, u64>;

/// The answer to a push and what it cost. `Ok` is 204.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) answer: Result<(), Refusal>,
    pub(super) discarded: Discarded,
}

/// A stream with parsed labels and normalised metadata.
pub(super) struct Prepared<'r> {
    pub(super) labels: Labels,
    /// The canonical label string.
    pub(super) name: String,
    pub(super) entries: Vec<PushEntry<'r>>,
}

/// Handles one push.
pub(super) fn push(context: &Context<'_>, request: PushRequest<'_>, store: &mut Store) -> Verdict {
    let mut discarded = Discarded::new();
    let answer = decide(context, request, store, &mut discarded);
    Verdict { answer, discarded }
}

fn decide(
    context: &Context<'_>,
    request: PushRequest<'_>,
    store: &mut Store,
    discarded: &mut Discarded,
) -> Result<(), Refusal> {
    let behaviour = context.behaviour;
    if request.streams.is_empty() {
        let text = "error at least one valid stream is required for ingestion";
        return Err(Refusal::new(422, text));
    }
    let sent: u64 = request
        .streams
        .iter()
        .map(|stream| stream.entries.len() as u64)
        .sum();
    let mut streams = match prepare(request) {
        Ok(streams) => streams,
        Err((reason, refusal)) => {
            discarded.insert(reason, sent);
            return Err(refusal);
        }
    };
    if behaviour
        .blocked_tenants
        .iter()
        .any(|blocked| blocked == context.tenant)
    {
        discarded.insert("blocked_ingestion", sent);
        return blocked(context);
    }
    let mut errors = Grouped::default();
    streams.retain_mut(|stream| {
        keep_stream(context, stream, &mut errors, discarded);
        !stream.entries.is_empty()
    });
    let invalid = if errors.is_empty() {
        Ok(())
    } else {
        Err(Refusal::new(400, errors.text()))
    };
    if streams.is_empty() {
        return invalid;
    }
    check_request(context, &streams, store, discarded)?;
    let failure = ingest::streams(context, merge(streams), store, discarded);
    match failure {
        Some(StreamFailure { status, text }) => Err(Refusal::new(status, text)),
        None => invalid,
    }
}

/// Parses labels and normalises metadata names; a failure loses the whole request.
fn prepare(request: PushRequest<'_>) -> Result<Vec<Prepared<'_>>, (&'static str, Refusal)> {
    let mut prepared = Vec::new();
    for mut stream in request.streams {
        if stream.entries.is_empty() {
            continue;
        }
        let labels = Labels::parse(&stream.labels).map_err(|error| {
            let text = format!("couldn't parse labels: {error}");
            ("invalid_labels", Refusal::new(400, text))
        })?;
        for entry in &mut stream.entries {
            if !entry.metadata.is_empty() {
                let pairs = normalise(std::mem::take(&mut entry.metadata));
                let poison = |text| ("invalid_structured_metadata", Refusal::new(500, text));
                entry.metadata = pairs.map_err(poison)?;
            }
        }
        prepared.push(Prepared {
            name: labels.to_string(),
            labels,
            entries: stream.entries,
        });
    }
    Ok(prepared)
}

/// Normalised names, the last of equal ones kept in the place of the first, empty values gone.
fn normalise(pairs: Vec<Pair<'_>>) -> Result<Vec<Pair<'_>>, String> {
    let mut out: Vec<Pair<'_>> = Vec::with_capacity(pairs.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for (name, value) in pairs {
        let name = match normalise_name(&name)? {
            Cow::Borrowed(same) if same.len() == name.len() => name,
            changed => Cow::Owned(changed.into_owned()),
        };
        match places.get(&*name) {
            Some(place) => out[*place].1 = value,
            None => {
                places.insert(name.to_string(), out.len());
                out.push((name, value));
            }
        }
    }
    out.retain(|(_, value)| !value.is_empty());
    Ok(out)
}

fn blocked(context: &Context<'_>) -> Result<(), Refusal> {
    let status = context.behaviour.blocked_status;
    if status == 200 {
        return Ok(());
    }
    let until = rfc3339_seconds(
        context
            .now_ns
            .saturating_add(nanos(Duration::from_secs(3600))),
    );
    let text = format!(
        "ingestion blocked for user {} until '{until}' with status code '{status}'",
        context.tenant
    );
    Err(Refusal::new(status, text))
}

/// Drops the entries a distributor would drop, all of them if the stream itself is invalid.
fn keep_stream(
    context: &Context<'_>,
    stream: &mut Prepared<'_>,
    errors: &mut Grouped,
    discarded: &mut Discarded,
) {
    if let Err((reason, text)) = check_labels(context, &stream.labels, &stream.name) {
        // One error for the stream, however many entries it held.
        errors.add(text);
        *discarded.entry(reason).or_default() += stream.entries.len() as u64;
        stream.entries.clear();
        return;
    }
    let name = &stream.name;
    stream
        .entries
        .retain_mut(|entry| match check_entry(context, name, entry) {
            Ok(()) => true,
            Err((reason, text)) => {
                errors.add(text);
                *discarded.entry(reason).or_default() += 1;
                false
            }
        });
}

type Check = Result<(), (&'static str, String)>;

fn check_labels(context: &Context<'_>, labels: &Labels, name: &str) -> Check {
    let behaviour = context.behaviour;
    if labels.pairs().is_empty() && !behaviour.discover_service_name {
        let text = "error at least one label pair is required per stream";
        return Err(("missing_labels", text.to_owned()));
    }
    let required = &behaviour.labels_required;
    let missing = required.iter().filter(|label| labels.get(label).is_none());
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if !missing.is_empty() {
        let (missing, tenant) = (missing.join(","), context.tenant);
        let text = format!("missing required labels {missing} for user {tenant} for stream {name}");
        return Err(("missing_enforced_labels", text));
    }
    let count = labels
        .pairs()
        .iter()
        .filter(|(label, _)| label != "service_name")
        .count();
    if let Some(max) = behaviour.label_names_max.filter(|max| count > *max) {
        let text = format!("entry for stream '{name}' has {count} label names; limit {max}");
        return Err(("max_label_names_per_series", text));
    }
    for (label, value) in labels.pairs() {
        if behaviour
            .label_name_bytes_max
            .is_some_and(|max| label.len() > max)
        {
            let text = format!("stream '{name}' has label name too long: '{label}'");
            return Err(("label_name_too_long", text));
        }
        if behaviour
            .label_value_bytes_max
            .is_some_and(|max| value.len() > max)
        {
            let text = format!("stream '{name}' has label value too long: '{value}'");
            return Err(("label_value_too_long", text));
        }
    }
    match labels.duplicate() {
        None => Ok(()),
        Some(label) => {
            let text = format!("stream '{name}' has duplicate label name: '{label}'");
            Err(("duplicate_label_names", text))
        }
    }
}

fn check_entry(context: &Context<'_>, name: &str, entry: &mut PushEntry<'_>) -> Check {
    let behaviour = context.behaviour;
    // Made only for an error: this runs for every entry.
    let time = || rfc3339_seconds(entry.ts_ns);
    if let Some(age) = behaviour.reject_old_samples {
        let oldest = context.now_ns.saturating_sub(nanos(age));
        if entry.ts_ns < oldest {
            let oldest = rfc3339_seconds(oldest);
            let text = format!(
                "entry for stream '{name}' has timestamp too old: {}, \
                 oldest acceptable timestamp is: {oldest}",
                time()
            );
            return Err(("greater_than_max_sample_age", text));
        }
    }
    if let Some(grace) = behaviour.creation_grace
        && entry.ts_ns > context.now_ns.saturating_add(nanos(grace))
    {
        let text = format!(
            "entry for stream '{name}' has timestamp too new: {}",
            time()
        );
        return Err(("too_far_in_future", text));
    }
    if let Some(max) = behaviour
        .line_bytes_max
        .filter(|max| entry.line.len() > *max)
    {
        if !behaviour.line_truncate {
            let len = entry.line.len();
            let text = format!(
                "max entry size '{max}' bytes exceeded for stream '{name}' \
                 while adding an entry with length '{len}' bytes"
            );
            return Err(("line_too_long", text));
        }
        match &mut entry.line {
            Cow::Borrowed(line) => *line = &line[..max],
            Cow::Owned(line) => line.truncate(max),
        }
    }
    check_metadata(behaviour, name, entry)
}

fn check_metadata(behaviour: &LokiBehaviour, name: &str, entry: &PushEntry<'_>) -> Check {
    if entry.metadata.is_empty() {
        return Ok(());
    }
    if !behaviour.metadata_allowed {
        let text = format!(
            "stream '{name}' includes structured metadata, but this feature is disallowed. \
             Please see `limits_config.allow_structured_metadata` or contact your Loki \
             administrator to enable it."
        );
        return Err(("disallowed_structured_metadata", text));
    }
    let bytes = entry.metadata_bytes();
    if let Some(max) = behaviour.metadata_bytes_max.filter(|max| bytes > *max) {
        let text = format!(
            "stream '{name}' has structured metadata too large: '{bytes}' bytes, limit: '{max}' \
             bytes. Please see `limits_config.max_structured_metadata_size` or contact your Loki \
             administrator to increase it."
        );
        return Err(("structured_metadata_too_large", text));
    }
    let count = entry.metadata.len();
    if let Some(max) = behaviour.metadata_pairs_max.filter(|max| count > *max) {
        let text = format!(
            "stream '{name}' has too many structured metadata labels: '{count}', limit: '{max}'. \
             Please see `limits_config.max_structured_metadata_entries_count` or contact your \
             Loki administrator to increase it."
        );
        return Err(("structured_metadata_too_many", text));
    }
    Ok(())
}

/// The checks on the request as a whole: tenant rate, then the size sent on to the ingester.
fn check_request(
    context: &Context<'_>,
    streams: &[Prepared<'_>],
    store: &mut Store,
    discarded: &mut Discarded,
) -> Result<(), Refusal> {
    let behaviour = context.behaviour;
    let entries = || streams.iter().flat_map(|stream| &stream.entries);
    let lines = entries().count() as u64;
    if let Some(rate) = behaviour.ingestion_rate_bytes {
        let bytes: u64 = entries().map(|entry| entry.counted_bytes() as u64).sum();
        let bucket = &mut store.tenant(context.tenant).bucket;
        if !bucket.take(context.now_ns, bytes, rate, behaviour.ingestion_burst_bytes) {
            discarded.insert("rate_limited", lines);
            let text = format!(
                "ingestion rate limit exceeded for user {} (limit: {rate} bytes/sec) while \
                 attempting to ingest '{lines}' lines totaling '{bytes}' bytes, reduce log volume \
                 or contact your Loki administrator to see if the limit can be increased",
                context.tenant
            );
            return Err(Refusal::new(429, text));
        }
    }
    if let Some(max) = behaviour.grpc_message_bytes_max {
        let size = |stream: &Prepared<'_>| {
            stream_wire_bytes(
                &stream.name,
                stream.entries.iter().map(entry_wire_bytes).sum(),
            )
        };
        let bytes: usize = streams.iter().map(size).sum();
        if bytes > max {
            discarded.insert("grpc_message_too_large", lines);
            let text = format!(
                "rpc error: code = ResourceExhausted desc = grpc: received message larger than \
                 max ({bytes} vs. {max})"
            );
            return Err(Refusal::new(500, text));
        }
    }
    Ok(())
}

/// Streams with equal labels become one, in the place of the first.
fn merge(streams: Vec<Prepared<'_>>) -> Vec<Prepared<'_>> {
    let mut merged: Vec<Prepared<'_>> = Vec::with_capacity(streams.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for mut stream in streams {
        match places.get(&stream.name) {
            Some(place) => merged[*place].entries.append(&mut stream.entries),
            None => {
                places.insert(stream.name.clone(), merged.len());
                merged.push(stream);
            }
        }
    }
    merged
}

/// Error texts and how often each occurred, in the order of their first occurrence.
#[derive(Default)]
struct Grouped {
    order: Vec<String>,
    counts: HashMap<String, u64>,
}

impl Grouped {
    fn add(&mut self, text: String) {
        if let Some(count) = self.counts.get_mut(&text) {
            *count += 1;
        } else {
            self.order.push(text.clone());
            self.counts.insert(text, 1);
        }
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// `N errors like: <text>`, joined by `; `.
    fn text(&self) -> String {
        let one = |text: &String| format!("{} errors like: {text}", self.counts[text]);
        self.order.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

/// A duration in nanoseconds, saturating.
pub(super) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
