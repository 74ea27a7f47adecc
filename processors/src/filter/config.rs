//! The section of a `filter` processor: conditions per signal, in the newer and the older form, and
//! `include` and `exclude`.

use tailwater_config::Section;
use tailwater_ottl::Context;
use tailwater_pdata::Signal;

use crate::matching::config::{MatchType, attributes, match_type, severity, texts};
use crate::matching::{Choice, Conditions, LogMatch, Selection, decode_match};
use crate::ottl::{ConditionGroup, condition_groups, conditions_of, error_mode};

/// What is left out of logs.
#[derive(Clone, Debug, Default)]
pub struct LogRules {
    /// Conditions for which records are left out.
    pub groups: Vec<ConditionGroup>,
    /// What is kept by `include` and `exclude`.
    pub selection: Selection,
}

impl LogRules {
    /// True if nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
            && self.selection.include.is_none()
            && self.selection.exclude.is_none()
    }
}

/// What is left out of traces.
#[derive(Clone, Debug, Default)]
pub struct TraceRules {
    /// Conditions for which spans and their events are left out.
    pub groups: Vec<ConditionGroup>,
    /// What is kept by `include` and `exclude`.
    pub choice: Choice,
}

/// What is left out of metrics.
#[derive(Clone, Debug, Default)]
pub struct MetricRules {
    /// Conditions for which metrics and data points are left out.
    pub groups: Vec<ConditionGroup>,
    /// Resources that are kept by `include` and `exclude`.
    pub resources: Choice,
    /// Metrics that are kept by `include` and `exclude`.
    pub names: Choice,
}

/// What a `filter` leaves out.
#[derive(Clone, Debug, Default)]
pub struct FilterSettings {
    /// Of logs.
    pub logs: LogRules,
    /// Of traces.
    pub traces: TraceRules,
    /// Of metrics.
    pub metrics: MetricRules,
}

const LOGS: &[Context] = &[Context::Resource, Context::Scope, Context::Log];
const TRACES: &[Context] = &[
    Context::Resource,
    Context::Scope,
    Context::Span,
    Context::SpanEvent,
];
const METRICS: &[Context] = &[
    Context::Resource,
    Context::Scope,
    Context::Metric,
    Context::DataPoint,
];

const PROFILES: &str = "profiles are no signal of this agent";

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "log_conditions",
        "Conditions for log records, of which one is enough to leave one out, with paths that begin with their context; or groups of them.",
    ),
    ("trace_conditions", "The same for spans and their events."),
    ("metric_conditions", "The same for metrics and points."),
    ("logs", "The older form for logs."),
    ("logs::resource", "Conditions in the context resource."),
    ("traces::resource", "Conditions in the context resource."),
    ("metrics::resource", "Conditions in the context resource."),
    ("logs::log_record", "Conditions in the context log."),
    ("logs::include", "Only records that this fits stay."),
    ("logs::exclude", "Records that this fits are left out."),
    ("traces", "The older form for traces."),
    ("traces::span", "Conditions in the context span."),
    (
        "traces::spanevent",
        "Conditions in the context spanevent. A span without its events is still a span, and events are not counted.",
    ),
    ("spans", "Spans by their properties."),
    ("spans::include", "Only spans that this fits stay."),
    ("spans::exclude", "Spans that this fits are left out."),
    ("metrics", "The older form for metrics."),
    ("metrics::metric", "Conditions in the context metric."),
    ("metrics::datapoint", "Conditions in the context datapoint."),
    ("metrics::include", "Only metrics that this fits stay."),
    ("metrics::exclude", "Metrics that this fits are left out."),
];

impl FilterSettings {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> FilterSettings {
        s.describe(OPTIONS);
        let mode = error_mode(s);
        let mut settings = FilterSettings::default();
        settings.logs.groups = condition_groups(s, "log_conditions", LOGS, mode);
        settings.traces.groups = condition_groups(s, "trace_conditions", TRACES, mode);
        settings.metrics.groups = condition_groups(s, "metric_conditions", METRICS, mode);
        s.refuse("profile_conditions", PROFILES);
        s.refuse("profiles", PROFILES);
        s.section("logs", |s| {
            let old = [
                ("resource", Context::Resource),
                ("log_record", Context::Log),
            ];
            let groups = old.map(|(key, context)| conditions_of(s, key, (context, LOGS), mode));
            let before = settings.logs.groups.len();
            settings.logs.groups.extend(groups.into_iter().flatten());
            let include = s.section_if_present("include", log_properties);
            let exclude = s.section_if_present("exclude", log_properties);
            alone(s, settings.logs.groups.len() > before, "log_record");
            settings.logs.selection = Selection { include, exclude };
        });
        let mut mixed = false;
        s.section("traces", |s| {
            let old = [
                ("resource", Context::Resource),
                ("span", Context::Span),
                ("spanevent", Context::SpanEvent),
            ];
            let groups = old.map(|(key, context)| conditions_of(s, key, (context, TRACES), mode));
            settings.traces.groups.extend(groups.into_iter().flatten());
            mixed = !s.is_recording() && ["resource", "span", "spanevent"].iter().any(|k| s.has(k));
        });
        s.section("spans", |s| {
            if !s.is_recording() {
                alone(s, mixed, "resource, span and spanevent of traces");
            }
            let include = s.section_if_present("include", decode_match);
            let exclude = s.section_if_present("exclude", decode_match);
            let mut of = |m: Option<crate::matching::MatchConfig>| {
                m.map(|m| m.for_signal(Signal::Traces, s.errors()))
            };
            settings.traces.choice = Choice {
                include: of(include),
                exclude: of(exclude),
            };
        });
        s.section("metrics", |s| {
            let old = [
                ("resource", Context::Resource),
                ("metric", Context::Metric),
                ("datapoint", Context::DataPoint),
            ];
            let groups = old.map(|(key, context)| conditions_of(s, key, (context, METRICS), mode));
            let before = settings.metrics.groups.len();
            settings.metrics.groups.extend(groups.into_iter().flatten());
            let include = s.section_if_present("include", metric_properties);
            let exclude = s.section_if_present("exclude", metric_properties);
            alone(
                s,
                settings.metrics.groups.len() > before,
                "metric and datapoint",
            );
            let of = |pick: fn(&Properties) -> &Option<Conditions>| Choice {
                include: include.as_ref().and_then(|p| pick(p).clone()),
                exclude: exclude.as_ref().and_then(|p| pick(p).clone()),
            };
            settings.metrics.resources = of(|p| &p.resources);
            settings.metrics.names = of(|p| &p.names);
        });
        settings
    }
}

/// Both forms in one section are a mistake, as in the collector.
fn alone(s: &mut Section<'_, '_>, conditions: bool, names: &str) {
    for key in ["include", "exclude"] {
        if conditions && s.has(key) {
            s.invalid(key, format!("cannot be used together with {names}"));
        }
    }
}

/// What its options do.
const LOG_PROPERTIES: &[(&str, &str)] = &[
    ("bodies", "Texts of the body, of which one is enough."),
    (
        "severity_texts",
        "Texts of the severity, of which one is enough.",
    ),
    ("severity_number", "The severity."),
    ("record_attributes", "Attributes that must all be there."),
    (
        "resource_attributes",
        "Attributes of the resource that must all be there.",
    ),
    ("record_attributes::0::key", "Its key."),
    ("resource_attributes::0::key", "Its key."),
    ("record_attributes::0::value", "Its value; any unless set."),
    (
        "resource_attributes::0::value",
        "Its value; any unless set.",
    ),
];

/// `include` or `exclude` of log records.
fn log_properties(s: &mut Section<'_, '_>) -> LogMatch {
    s.describe(LOG_PROPERTIES);
    // A severity alone is compared, not matched.
    let matched = [
        "bodies",
        "severity_texts",
        "record_attributes",
        "resource_attributes",
    ];
    let needed = s.is_recording()
        || !s.is_given("severity_number")
        || s.is_given("match_type")
        || matched.iter().any(|key| s.is_given(key));
    let how = match needed {
        true => match_type(s),
        false => MatchType::Strict,
    };
    LogMatch {
        bodies: texts(s, "bodies", how),
        severity_texts: texts(s, "severity_texts", how),
        severity: s.section_if_present("severity_number", severity).flatten(),
        attributes: attributes(s, "record_attributes", how),
        resources: attributes(s, "resource_attributes", how),
        libraries: Vec::new(),
    }
}

/// `include` or `exclude` of metrics. The two properties decide for themselves: one about resources, the
/// other about metrics.
struct Properties {
    resources: Option<Conditions>,
    names: Option<Conditions>,
}

/// What its options do.
const METRIC_PROPERTIES: &[(&str, &str)] = &[
    ("metric_names", "Names, of which one is enough."),
    (
        "resource_attributes",
        "Attributes of the resource that must all be there.",
    ),
    ("resource_attributes::0::key", "Its key."),
    (
        "resource_attributes::0::value",
        "Its value; any unless set.",
    ),
];

fn metric_properties(s: &mut Section<'_, '_>) -> Properties {
    s.describe(METRIC_PROPERTIES);
    if s.node_of("match_type", Vec::new).and_then(|n| n.as_text()) == Some("expr") {
        let why = "expr is not supported: write the expressions as conditions of OTTL under metrics::datapoint";
        s.invalid("match_type", why);
    }
    let how = match_type(s);
    s.refuse(
        "expressions",
        "write them as conditions of OTTL under metrics::datapoint",
    );
    let names = texts(s, "metric_names", how);
    let resources = attributes(s, "resource_attributes", how);
    let resources = (!resources.is_empty()).then(|| Conditions {
        record: LogMatch {
            resources,
            ..LogMatch::default()
        },
        ..Conditions::default()
    });
    let names = (!names.is_empty()).then(|| Conditions {
        metric_names: names,
        ..Conditions::default()
    });
    Properties { resources, names }
}
