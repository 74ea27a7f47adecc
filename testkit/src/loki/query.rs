//! `GET /loki/api/v1/query_range`, as far as a look at the stored lines needs it.
//!
//! The query is a stream selector with exact matches only, `{name="value", ...}`; `start` and
//! `end` are Unix times in nanoseconds or (with a decimal point or up to ten digits) in seconds,
//! the default being the last hour; `limit` is 100 and `direction` backward by default. Metadata
//! becomes part of a result's labels, or stands beside the line when the client sends
//! `X-Loki-Response-Encoding-Flags: categorize-labels`. Everything else is refused with 400.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Refusal;
use super::labels::{Labels, is_identifier};
use super::state::State;
use super::store::{StoreMode, StoredEntry, Stream};
use crate::http::{Request, Response};
use crate::time::NANOS_PER_SECOND;

/// First of these labels names the service (Loki's `discover_service_name` list).
const SERVICE_LABELS: [&str; 13] = [
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
];

/// The query's parameters.
struct Range {
    selector: Labels,
    start_ns: i64,
    end_ns: i64,
    limit: usize,
    backward: bool,
    categorize: bool,
}

/// Answers a query.
pub(super) fn range(
    request: &Request,
    tenant: &str,
    state: &State,
    now_ns: i64,
) -> Result<Response, Refusal> {
    if state.store.mode == StoreMode::CountOnly {
        return Err(Refusal::new(501, "entries are counted, not kept"));
    }
    let range = parameters(request, state.behaviour.query_entries_max, now_ns)?;
    let discover = state.behaviour.discover_service_name;
    let mut found = Vec::new();
    for stream in state
        .store
        .find(tenant)
        .iter()
        .flat_map(|tenant| tenant.streams.values())
    {
        let labels = query_labels(stream, discover);
        let selected = |(name, value): &(String, String)| labels.get(name) == Some(value);
        if !range.selector.pairs().iter().all(selected) {
            continue;
        }
        if !labels.keys().all(|name| is_identifier(name)) {
            return Err(Refusal::new(500, "could not write JSON response"));
        }
        let in_range = |entry: &&StoredEntry| (range.start_ns..range.end_ns).contains(&entry.ts_ns);
        found.extend(
            stream
                .entries
                .iter()
                .filter(in_range)
                .map(|entry| (labels.clone(), entry)),
        );
    }
    found.sort_by_key(|(_, entry)| entry.ts_ns);
    if range.backward {
        found.reverse();
    }
    found.truncate(range.limit);
    Ok(render(&found, range.categorize))
}

fn parameters(request: &Request, limit_max: usize, now_ns: i64) -> Result<Range, Refusal> {
    let bad = |text: String| Refusal::new(400, text);
    let selector = Labels::parse(request.query_value("query").unwrap_or_default())
        .map_err(|error| bad(format!("parse error at {error}")))?;
    if selector.pairs().is_empty() {
        let text = "queries require at least one regexp or equality matcher that does not have \
                    an empty-compatible value";
        return Err(bad(text.to_owned()));
    }
    let time = |name: &str, default: i64| match request.query_value(name) {
        None => Ok(default),
        Some(text) => parse_time(text).ok_or_else(|| bad(format!("invalid {name}: {text:?}"))),
    };
    let end_ns = time("end", now_ns)?;
    let start_ns = time("start", end_ns.saturating_sub(3600 * NANOS_PER_SECOND))?;
    let limit = match request.query_value("limit") {
        None => 100,
        Some(text) => text
            .parse()
            .map_err(|_| bad(format!("invalid limit: {text:?}")))?,
    };
    if limit > limit_max {
        let text = "max entries limit per query exceeded, limit > max_entries_limit_per_query";
        return Err(bad(format!("{text} ({limit} > {limit_max})")));
    }
    let backward = match request.query_value("direction").unwrap_or("backward") {
        direction if direction.eq_ignore_ascii_case("backward") => true,
        direction if direction.eq_ignore_ascii_case("forward") => false,
        other => return Err(bad(format!("invalid direction: {other:?}"))),
    };
    let flags = request
        .header("x-loki-response-encoding-flags")
        .unwrap_or_default();
    let categorize = flags
        .split(',')
        .any(|flag| flag.trim() == "categorize-labels");
    Ok(Range {
        selector,
        start_ns,
        end_ns,
        limit,
        backward,
        categorize,
    })
}

fn parse_time(text: &str) -> Option<i64> {
    if text.contains('.') {
        let seconds: f64 = text.parse().ok()?;
        return seconds
            .is_finite()
            .then_some((seconds * NANOS_PER_SECOND as f64) as i64);
    }
    let number: i64 = text.parse().ok()?;
    Some(if text.len() <= 10 {
        number.saturating_mul(NANOS_PER_SECOND)
    } else {
        number
    })
}

/// The stream's labels as queries show them.
fn query_labels(stream: &Stream, discover: bool) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = stream.labels.pairs().iter().cloned().collect();
    if discover && !labels.contains_key("service_name") {
        let found = SERVICE_LABELS
            .iter()
            .find_map(|name| labels.get(*name).cloned());
        let service = found.unwrap_or_else(|| "unknown_service".to_owned());
        labels.insert("service_name".to_owned(), service);
    }
    labels
}

/// Groups entries by their labels, in the order found.
fn render(found: &[(BTreeMap<String, String>, &StoredEntry)], categorize: bool) -> Response {
    let mut order: Vec<(BTreeMap<String, String>, Vec<Value>)> = Vec::new();
    let mut places: BTreeMap<BTreeMap<String, String>, usize> = BTreeMap::new();
    for (labels, entry) in found {
        let mut labels = labels.clone();
        let line = String::from_utf8_lossy(&entry.line);
        let time = entry.ts_ns.to_string();
        let value = if categorize {
            let metadata: BTreeMap<_, _> = entry.metadata.iter().cloned().collect();
            json!([time, line, { "structuredMetadata": metadata }])
        } else {
            for (name, value) in &entry.metadata {
                let taken = labels.contains_key(name);
                let name = if taken {
                    format!("{name}_extracted")
                } else {
                    name.clone()
                };
                labels.insert(name, value.clone());
            }
            json!([time, line])
        };
        let place = *places.entry(labels.clone()).or_insert_with(|| {
            order.push((labels, Vec::new()));
            order.len() - 1
        });
        order[place].1.push(value);
    }
    let result: Vec<Value> = order
        .into_iter()
        .map(|(labels, values)| json!({ "stream": labels, "values": values }))
        .collect();
    let mut data = json!({ "resultType": "streams", "result": result });
    if categorize {
        data["encodingFlags"] = json!(["categorize-labels"]);
    }
    let body = json!({ "status": "success", "data": data }).to_string();
    Response::typed(200, "application/json; charset=UTF-8", body.into_bytes())
}
