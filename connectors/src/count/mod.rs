//! `count`: metrics of how many spans, events of spans, metrics, data points and log records there were.
//!
//! What is counted together in one batch comes out as sums of deltas, resource by resource, and is delivered
//! when they are. A batch of which nothing is counted is filtered.

mod counter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tailwater_config::reference::{Bounds, ValueKind};
use tailwater_config::{Errors, KeyPath, Node, NodeValue, Section};
use tailwater_ottl::logs::LogScene;
use tailwater_ottl::requests::PlaceScene;
use tailwater_ottl::{Condition, Context, Options, Scene};
use tailwater_pdata::otlp::revise::Level;
use tailwater_pdata::otlp::{Count, CountMetric, Encoded, count_request};
use tailwater_pdata::{LogsBatch, Map, Signal, Value, ValueRef};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::component::{Connector, Ways};
use tailwater_pipeline::factory::{ConnectorFactory, ConnectorSettings, Factory, NodeCx};
use tailwater_pipeline::{AckToken, Batch, BuildError, Outcome, Part, Payload, Permit};

use crate::ottl::{ErrorMode, Report, Trouble, compiled, level};
use counter::{Counter, Kept};

/// The name of the scope of what comes out, which is that of the collector's.
const SCOPE: &str =
    "github.com/open-telemetry/opentelemetry-collector-contrib/connector/countconnector";

/// The factory of this connector.
pub fn factory() -> ConnectorFactory {
    Factory {
        kind: "count",
        about: "Makes metrics of how many spans, events, metrics, points and log records there are.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ConnectorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let settings = CountSettings::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ConnectorSettings>)
}

/// A metric that counts.
#[derive(Clone, Debug)]
pub struct Definition {
    name: String,
    description: String,
    /// One of them has to hold; without any, everything counts.
    conditions: Vec<Condition>,
    /// What is counted apart: keys, with what counts where they are not there.
    attributes: Vec<(String, Option<Value>)>,
}

/// What a `count` counts, by what it is about, in the order of what comes out.
#[derive(Clone, Debug)]
pub struct CountSettings {
    kinds: Arc<[(Context, Vec<Definition>)]>,
}

/// Key, what it is about, and the metric that is there without the key.
const KINDS: [(&str, Context, &str, &str); 5] = [
    (
        "spans",
        Context::Span,
        "trace.span.count",
        "The number of spans observed.",
    ),
    (
        "spanevents",
        Context::SpanEvent,
        "trace.span.event.count",
        "The number of span events observed.",
    ),
    (
        "metrics",
        Context::Metric,
        "metric.count",
        "The number of metrics observed.",
    ),
    (
        "datapoints",
        Context::DataPoint,
        "metric.datapoint.count",
        "The number of data points observed.",
    ),
    (
        "logs",
        Context::Log,
        "log.record.count",
        "The number of log records observed.",
    ),
];

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "spans",
        "Metrics of spans, by name; `trace.span.count` unless set.",
    ),
    (
        "spanevents",
        "Metrics of events of spans; `trace.span.event.count` unless set.",
    ),
    ("metrics", "Metrics of metrics; `metric.count` unless set."),
    (
        "datapoints",
        "Metrics of data points; `metric.datapoint.count` unless set.",
    ),
    (
        "logs",
        "Metrics of log records; `log.record.count` unless set.",
    ),
];

impl CountSettings {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> CountSettings {
        s.describe(OPTIONS);
        let kind = |(key, context, name, description): (&str, Context, &str, &str)| {
            let own = s.section_map(key, |name, s| Definition::decode(name, s, context));
            let default = || Definition {
                name: name.to_owned(),
                description: description.to_owned(),
                conditions: Vec::new(),
                attributes: Vec::new(),
            };
            let made = match own {
                Some(own) => own.into_iter().map(|(_, d)| d).collect(),
                None => vec![default()],
            };
            (context, made)
        };
        CountSettings {
            kinds: KINDS.into_iter().map(kind).collect(),
        }
    }
}

/// What its options do.
const METRIC: &[(&str, &str)] = &[
    (
        "conditions",
        "Conditions of OTTL, of which one is enough; everything counts without any.",
    ),
    (
        "attributes",
        "Each set of values of these is counted apart. Not of metrics.",
    ),
    (
        "attributes::0::key",
        "Looked for in the record, its scope and its resource.",
    ),
    (
        "attributes::0::default_value",
        "Text or number, of what lacks it; that is not counted unless this is set.",
    ),
    ("description", "Description of the metric."),
];

impl Definition {
    fn decode(name: &str, s: &mut Section<'_, '_>, context: Context) -> Definition {
        s.describe(METRIC);
        if name.is_empty() {
            s.error("metric name missing");
        }
        let options = Options {
            context,
            prefixed: false,
            encoded: false,
        };
        let path = s.path().child("conditions");
        let texts = s.text_nodes("conditions").unwrap_or_default();
        let mut conditions = Vec::new();
        for (i, (text, node)) in texts.into_iter().enumerate() {
            let written = (text, node, path.child(i));
            conditions.extend(compiled(s, written, |t| Condition::compile(t, options)));
        }
        if context == Context::Metric && s.list("attributes").is_some_and(|list| !list.is_empty()) {
            s.invalid(
                "attributes",
                "are not supported for metrics, which have none",
            );
        }
        let attributes = s.section_list("attributes", |s| {
            let key = s.string_required("key").unwrap_or_default();
            if key.is_empty() && s.has("key") {
                s.invalid("key", "attribute key missing");
            }
            (key, default_value(s))
        });
        Definition {
            name: name.to_owned(),
            description: s.string("description", ""),
            conditions,
            attributes: attributes.unwrap_or_default(),
        }
    }

    /// Whether it counts what `scene` shows.
    fn counts(&self, scene: &dyn Scene, now_ns: i64, trouble: &mut Trouble) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        self.conditions.iter().any(|condition| {
            condition.holds(scene, now_ns).unwrap_or_else(|fault| {
                trouble.error(ErrorMode::Ignore, condition.text(), fault);
                false
            })
        })
    }
}

/// An empty text and zero are no default, as in the collector.
fn default_value(s: &mut Section<'_, '_>) -> Option<Value> {
    let node = s.node_of("default_value", || {
        vec![ValueKind::Text, ValueKind::Number(Bounds::default())]
    })?;
    match &node.value {
        NodeValue::Null => None,
        NodeValue::Int(0) => None,
        NodeValue::Int(i) => Some(Value::Int(*i)),
        NodeValue::Float(f) => (*f != 0.0).then_some(Value::Double(*f)),
        _ => match node.as_text() {
            Some(text) => (!text.is_empty()).then(|| Value::str(text)),
            None => {
                s.invalid(
                    "default_value",
                    "has to be a string, an integer or a double",
                );
                None
            }
        },
    }
}

impl ConnectorSettings for CountSettings {
    fn gives(&self, _: Signal) -> Signal {
        Signal::Metrics
    }

    fn build(&self, cx: &NodeCx, ways: &[&str]) -> Result<Option<Box<dyn Connector>>, BuildError> {
        let signal = cx.signal.unwrap_or(Signal::Logs);
        let is_of = |context: Context| match signal {
            Signal::Logs => context == Context::Log,
            Signal::Traces => matches!(context, Context::Span | Context::SpanEvent),
            Signal::Metrics => matches!(context, Context::Metric | Context::DataPoint),
        };
        let kinds = self.kinds.iter().filter(|(context, _)| is_of(*context));
        Ok(Some(Box::new(Counting {
            // A clone has patterns of its own.
            kinds: kinds.cloned().collect(),
            number_of_ways: ways.len(),
            report: Report::new(cx),
            clock: cx.clock.clone(),
        })))
    }
}

/// The connector at the end of one chain.
struct Counting {
    kinds: Vec<(Context, Vec<Definition>)>,
    number_of_ways: usize,
    report: Report,
    clock: Arc<dyn Clock>,
}

impl Connector for Counting {
    fn pass(&self, batch: Batch, out: &mut dyn Ways) {
        let (now_ns, mut trouble) = (self.clock.wall_ns(), Trouble::default());
        let definitions = self.kinds.iter().map(|(_, d)| d.len()).sum();
        let mut counter = Counter::new(definitions);
        let (mut duties, mut permits): (Vec<(AckToken, u32)>, Vec<Permit>) = Default::default();
        for part in batch.parts {
            let records = u32::try_from(part.data.items()).unwrap_or(u32::MAX);
            let Part { data, ack, permit } = part;
            match data {
                Payload::Encoded(request) if request.signal() != Signal::Logs => {
                    self.request(request, &mut counter, now_ns, &mut trouble);
                }
                data => {
                    for mut logs in data.into_logs() {
                        self.logs(&mut logs, &mut counter, now_ns, &mut trouble);
                    }
                }
            }
            match trouble.gives_up(self.report.id()) {
                None => {
                    duties.push((ack, records));
                    permits.push(permit);
                }
                // What was counted of it before stays counted.
                Some(reason) => {
                    ack.count_dropped(reason, records);
                    ack.resolve(Outcome::Refused);
                }
            }
        }
        self.report.tell(trouble);
        self.emit(counter.into_kept(now_ns), duties, permits, out);
    }
}

impl Counting {
    fn emit(
        &self,
        kept: Vec<Kept>,
        duties: Vec<(AckToken, u32)>,
        mut permits: Vec<Permit>,
        out: &mut dyn Ways,
    ) {
        if kept.is_empty() || duties.is_empty() {
            for (ack, records) in duties {
                ack.count_filtered(records);
                ack.resolve(Outcome::Filtered);
            }
            return;
        }
        let definitions: Vec<&Definition> = self.kinds.iter().flat_map(|(_, d)| d).collect();
        let data = request_of(kept, &definitions);
        // What was counted is let go of, but for as much memory as the counts take.
        let bytes = data.heap_bytes();
        let permit = match permits.first_mut() {
            Some(first) => first.split(bytes.min(first.bytes())),
            None => Permit::none(),
        };
        drop(permits);
        let part = Part {
            data: data.into(),
            ack: AckToken::made_of(duties),
            permit,
        };
        let branches = Batch::of(part).fork(self.number_of_ways);
        for (way, branch) in branches.into_iter().enumerate() {
            out.emit(way, branch);
        }
    }

    fn logs(
        &self,
        logs: &mut LogsBatch,
        counter: &mut Counter,
        now_ns: i64,
        trouble: &mut Trouble,
    ) {
        if logs.is_empty() {
            return;
        }
        let resource = counter.resource(&logs.resource);
        let definitions = || self.kinds.iter().flat_map(|(_, d)| d).enumerate();
        for row in 0..logs.rows() {
            counter.time(
                resource,
                Context::Log,
                logs.time.get(row).max(0).cast_unsigned(),
            );
        }
        let looks = |d: &Definition| !d.conditions.is_empty() || !d.attributes.is_empty();
        for (n, _) in definitions().filter(|(_, d)| !looks(d)) {
            counter.add(resource, (Context::Log, n), &[], logs.rows() as u64);
        }
        if definitions().all(|(_, d)| !looks(d)) {
            return;
        }
        for row in 0..logs.rows() {
            for (n, definition) in definitions().filter(|(_, d)| looks(d)) {
                let found = definition.attributes.iter().map(|(key, default)| {
                    let own = logs.attribute(row, key).map(ValueRef::to_value);
                    let own = own.or_else(|| logs.scope.attributes.get(key).cloned());
                    let own = own.or_else(|| logs.resource.get(key).cloned());
                    Some((key.as_str(), own.or_else(|| default.clone())?))
                });
                let Some(attributes) = found.collect::<Option<Vec<_>>>() else {
                    continue;
                };
                let mut scene = LogScene::new(logs);
                scene.go_to(row);
                if definition.counts(&scene, now_ns, trouble) {
                    counter.add(resource, (Context::Log, n), &attributes, 1);
                }
            }
        }
    }

    fn request(
        &self,
        mut request: Encoded,
        counter: &mut Counter,
        now_ns: i64,
        trouble: &mut Trouble,
    ) {
        let mut first = 0;
        // By number, those that were seen in this request.
        let mut resources: Vec<Option<usize>> = Vec::new();
        for (context, definitions) in &self.kinds {
            let (context, base) = (*context, first);
            first += definitions.len();
            if definitions.is_empty() {
                continue;
            }
            let done = request.revise(level(context), &mut |place| {
                let number = place.number(Level::Resource);
                if resources.len() <= number {
                    resources.resize(number + 1, None);
                }
                let resource = *resources[number].get_or_insert_with(|| {
                    let draft = place.at(Level::Resource);
                    let map = draft.attributes_apart(Some("resource"), "attributes");
                    counter.resource(&map.unwrap_or_default())
                });
                let own = level(context);
                let view = place.at(own).view();
                let times: &[&str] = match context {
                    Context::Span => &["start_time_unix_nano", "end_time_unix_nano"],
                    Context::Metric => &[],
                    _ => &["time_unix_nano"],
                };
                for time in times {
                    counter.time(resource, context, view.number(time));
                }
                for (n, definition) in definitions.iter().enumerate() {
                    let found = definition.attributes.iter().map(|(key, default)| {
                        let lists = [
                            (own, None),
                            (Level::Scope, Some("scope")),
                            (Level::Resource, Some("resource")),
                        ];
                        let found = lists.into_iter().find_map(|(level, within)| {
                            let found = place.at(level).attribute(within, "attributes", key)?;
                            Some(found.as_ref().to_value())
                        });
                        Some((key.as_str(), found.or_else(|| default.clone())?))
                    });
                    let Some(attributes) = found.collect::<Option<Vec<_>>>() else {
                        continue;
                    };
                    let scene = PlaceScene::new(place);
                    if definition.counts(&scene, now_ns, trouble) {
                        counter.add(resource, (context, base + n), &attributes, 1);
                    }
                }
                true
            });
            if let Err(why) = done {
                trouble.too_much(why);
                return;
            }
        }
    }
}

/// The request that says what was counted.
fn request_of(kept: Vec<Kept>, definitions: &[&Definition]) -> Encoded {
    let (resources, counts): (Vec<Map>, Vec<_>) =
        kept.into_iter().map(|k| (k.resource, k.counts)).unzip();
    let metrics = counts.into_iter().map(|c| metrics_of(c, definitions));
    count_request(SCOPE, resources.iter().zip(metrics))
}

fn metrics_of<'d>(counts: Vec<Vec<Count>>, definitions: &[&'d Definition]) -> Vec<CountMetric<'d>> {
    let metric = |(counts, definition): (Vec<Count>, &&'d Definition)| CountMetric {
        name: &definition.name,
        description: &definition.description,
        counts,
    };
    let metrics = counts.into_iter().zip(definitions).map(metric);
    metrics.filter(|m| !m.counts.is_empty()).collect()
}
