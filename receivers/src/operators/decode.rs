//! The options of each operator.

use tailwater_config::{ConfigError, Environment, Node, NodeValue, Section, Span, Warning};

use super::container::{Container, Format};
use super::csv::CsvParser;
use super::embedded::{Embedded, EmbeddedOperator};
use super::expr::{Expr, Template};
use super::field::{Field, Root};
use super::join::Joiner;
use super::json_array::JsonArrayParser;
use super::json_parser::JsonParser;
use super::key_value::KeyValueParser;
use super::operator::Operator;
use super::options::{compiled, field, parsed, required_field, rootable_field, value_of};
use super::recombine::Recombine;
use super::regex_parser::{Groups, RegexParser};
use super::reshape::{AssignKeys, Flatten, Retain};
use super::rewrite::{RegexReplace, SanitizeUtf8, Unquote};
use super::scope::ScopeName;
use super::severity::{Preset, SeverityMap, SeverityParser, number_of};
use super::syslog::SyslogParser;
use super::time::TimeParser;
use super::trace::TraceParser;
use super::transform::{Add, Added, Filter, Noop, Remove, Transfer};
use super::uri::UriParser;
use tailwater_golang::strptime::{Layout, LayoutType, Zone};

/// Longest joined line if nothing is set, as in the collector.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The operator of this type; `None` if something it cannot do without is missing or wrong, which
/// has been reported then. `kind` is one of the supported types.
pub(super) fn operator(
    kind: &str,
    s: &mut Section<'_, '_>,
    environment: &dyn Environment,
) -> Option<Box<dyn Operator>> {
    Some(match kind {
        "add" => Box::new(add(s, environment)?),
        "container" => Box::new(container(s)),
        "copy" => Box::new(transfer(s, false)?),
        "filter" => Box::new(filter(s, environment)?),
        "json_parser" => Box::new(json(s)),
        "move" => Box::new(transfer(s, true)?),
        "noop" => Box::new(Noop),
        "regex_parser" => Box::new(regex(s)?),
        "remove" => {
            s.describe(&[(
                "field",
                "What is removed: a field, or all of attributes or resource.",
            )]);
            let field = required_field(s, "field", Field::parse_rootable)?;
            Box::new(Remove { field })
        }
        "severity_parser" => {
            let severity = Some(severity(s)?);
            Box::new(EmbeddedOperator(Embedded {
                severity,
                ..Embedded::default()
            }))
        }
        "time_parser" => {
            let time = Some(time(s)?);
            Box::new(EmbeddedOperator(Embedded {
                time,
                ..Embedded::default()
            }))
        }
        "scope_name_parser" => {
            let scope = Some(scope(s)?);
            Box::new(EmbeddedOperator(Embedded {
                scope,
                ..Embedded::default()
            }))
        }
        "trace_parser" => {
            let trace = Some(trace(s));
            Box::new(EmbeddedOperator(Embedded {
                trace,
                ..Embedded::default()
            }))
        }
        "assign_keys" => Box::new(AssignKeys::decode(s)?),
        "csv_parser" => Box::new(CsvParser::decode(s)?),
        "flatten" => Box::new(Flatten::decode(s)?),
        "json_array_parser" => Box::new(JsonArrayParser::decode(s)),
        "key_value_parser" => Box::new(KeyValueParser::decode(s)?),
        "recombine" => Box::new(Recombine::decode(s, environment)?),
        "regex_replace" => Box::new(RegexReplace::decode(s)?),
        "retain" => Box::new(Retain::decode(s)?),
        "sanitize_utf8" => Box::new(SanitizeUtf8::decode(s)),
        "syslog_parser" => Box::new(SyslogParser::decode(s)?),
        "unquote" => Box::new(Unquote::decode(s)?),
        "uri_parser" => Box::new(UriParser::decode(s)),
        _ => {
            s.error(format!("operator {kind} is not supported"));
            return None;
        }
    })
}

/// What its options do.
const ADD: &[(&str, &str)] = &[
    ("field", "Where it is put."),
    ("value", "Any value, or text with `EXPR(...)`. Required."),
];

fn add(s: &mut Section<'_, '_>, environment: &dyn Environment) -> Option<Add> {
    s.describe(ADD);
    let field = required_field(s, "field", Field::parse);
    let value = match s.node("value") {
        None => {
            s.error("value is required");
            None
        }
        Some(node) => match node
            .as_str()
            .filter(|t| t.starts_with("EXPR(") && t.ends_with(')'))
        {
            Some(text) => {
                let template = compiled(s, "value", Template::compile(text, environment));
                template.map(|t| Added::Expr(Box::new(t)))
            }
            None => Some(Added::Value(value_of(node))),
        },
    };
    Some(Add {
        field: field?,
        value: value?,
    })
}

/// What its options do.
const TRANSFER: &[(&str, &str)] = &[
    ("from", "The field that is copied or moved."),
    ("to", "Where it is put."),
];

fn transfer(s: &mut Section<'_, '_>, remove: bool) -> Option<Transfer> {
    s.describe(TRANSFER);
    let from = required_field(s, "from", Field::parse);
    let to = required_field(s, "to", Field::parse);
    Some(Transfer {
        from: from?,
        to: to?,
        remove,
    })
}

/// What its options do.
const FILTER: &[(&str, &str)] = &[
    (
        "expr",
        "An expression: records for which it holds are filtered.",
    ),
    ("drop_ratio", "How many of these: 1 = all."),
];

fn filter(s: &mut Section<'_, '_>, environment: &dyn Environment) -> Option<Filter> {
    s.describe(FILTER);
    let drop_ratio = s.f64("drop_ratio", 1.0, 0.0..=1.0);
    let text = s.string_required("expr")?;
    let expr = compiled(s, "expr", Expr::compile_condition(&text, environment))?;
    Some(Filter { expr, drop_ratio })
}

/// What its options do.
const JSON: &[(&str, &str)] = &[("parse_ints", "Whole numbers become integers, not doubles.")];

fn json(s: &mut Section<'_, '_>) -> JsonParser {
    s.describe(JSON);
    let (parse_from, parse_to) = (parse_from(s), parse_to(s));
    let embedded = embedded(s, &parse_to);
    JsonParser {
        from_body: parse_from == Field::body(),
        parse_from,
        parse_to,
        parse_ints: s.bool("parse_ints", false),
        embedded,
        scratch: Default::default(),
    }
}

/// What its options do.
const REGEX: &[(&str, &str)] = &[
    ("regex", "Pattern with named groups, which become fields."),
    ("cache", "Accepted: a lookup would cost what it saves."),
    ("cache::size", "Has nothing to act on."),
];

fn regex(s: &mut Section<'_, '_>) -> Option<RegexParser> {
    s.describe(REGEX);
    let (parse_from, parse_to) = (parse_from(s), parse_to(s));
    let embedded = embedded(s, &parse_to);
    // Accepted because configurations have it; a lookup would cost as much as the match saves.
    s.section_if_present("cache", |cache| {
        cache.u64("size", 0, 0..=u64::from(u16::MAX))
    });
    let pattern = s.string_required("regex")?;
    let groups = parsed(s, "regex", Groups::new(&pattern))?;
    Some(RegexParser {
        parse_from,
        parse_to,
        groups,
        embedded,
    })
}

/// What its options do.
const CONTAINER: &[(&str, &str)] = &[
    ("format", "Who wrote the line; recognised unless set."),
    (
        "add_metadata_from_filepath",
        "Names of pod, namespace and container out of the path, as attributes of the resource. Needs `include_file_path: true`.",
    ),
    (
        "max_log_size",
        "Longest line that is put together of parts.",
    ),
];

fn container(s: &mut Section<'_, '_>) -> Container {
    s.describe(CONTAINER);
    let formats = [
        ("", Format::Auto),
        ("docker", Format::Docker),
        ("crio", Format::Crio),
        ("containerd", Format::Containerd),
    ];
    if let Some(field) = rootable_field(s, "parse_to")
        && field != Field::attributes()
    {
        s.warn(
            "parse_to",
            "has no effect: container puts what it finds into attributes",
        );
    }
    let line_bytes_max = s.byte_size("max_log_size", LINE_BYTES_MAX, ..);
    Container {
        format: s.choice("format", &formats, Format::Auto),
        add_metadata: s.bool("add_metadata_from_filepath", true),
        parse_from: parse_from(s),
        embedded: embedded(s, &Field::attributes()),
        joiner: Joiner::new(usize::try_from(line_bytes_max).unwrap_or(usize::MAX)),
        parser: Default::default(),
        lines: Default::default(),
        paths: Default::default(),
    }
}

fn parse_from(s: &mut Section<'_, '_>) -> Field {
    field(s, "parse_from").unwrap_or_else(Field::body)
}

fn parse_to(s: &mut Section<'_, '_>) -> Field {
    rootable_field(s, "parse_to").unwrap_or_else(Field::attributes)
}

/// What its options do.
const PARSER: &[(&str, &str)] = &[
    ("parse_from", "The field that is parsed; `body` unless set."),
    (
        "parse_to",
        "Where what is found is put; `attributes` unless set.",
    ),
    ("body", "The field that becomes the body."),
    (
        "timestamp",
        "The field that becomes the time of the record.",
    ),
    ("severity", "The field that becomes the severity."),
    ("trace", "The fields that become the ids of the trace."),
    (
        "scope_name",
        "The field that becomes the name of the scope.",
    ),
];

/// What a parser that writes to `to` sets besides.
pub(super) fn embedded(s: &mut Section<'_, '_>, to: &Field) -> Embedded {
    s.describe(PARSER);
    let body = field(s, "body");
    if body.is_some() && *to == Field::body() {
        s.invalid("body", "cannot be set together with parse_to: body");
    }
    Embedded {
        body,
        time: s.section_if_present("timestamp", time).flatten(),
        severity: s.section_if_present("severity", severity).flatten(),
        trace: s.section_if_present("trace", trace),
        scope: s.section_if_present("scope_name", scope).flatten(),
    }
}

/// What its options do.
const SCOPE: &[(&str, &str)] = &[("parse_from", "The field with the name of the scope.")];

fn scope(s: &mut Section<'_, '_>) -> Option<ScopeName> {
    s.describe(SCOPE);
    let parse_from = required_field(s, "parse_from", Field::parse)?;
    Some(ScopeName { parse_from })
}

/// What its options do.
const TIME: &[(&str, &str)] = &[
    ("parse_from", "The field with the time."),
    (
        "layout_type",
        "What the layout is written in: directives of strptime, Go's example time, or s, ms, us, ns and the like for numbers since 1970.",
    ),
    ("layout", "How the time is written."),
    (
        "location",
        "Time zone of times without one, a name of the IANA database; unless set that of the agent, or UTC if the layout says so.",
    ),
    (
        "time_zone_locations",
        "What abbreviations of zones stand for: `IST: Asia/Kolkata`. The layout has to have one.",
    ),
];

fn time(s: &mut Section<'_, '_>) -> Option<TimeParser> {
    s.describe(TIME);
    let kinds = [
        ("strptime", LayoutType::Strptime),
        ("gotime", LayoutType::Gotime),
        ("epoch", LayoutType::Epoch),
    ];
    let kind = s.choice("layout_type", &kinds, LayoutType::Strptime);
    let parse_from = required_field(s, "parse_from", Field::parse);
    let layout = s.string_required("layout");
    let layout = layout.and_then(|text| parsed(s, "layout", Layout::parse(&text, kind)));
    let zone = match s.str_optional("location").filter(|name| !name.is_empty()) {
        Some(name) => parsed(s, "location", Zone::named(name)),
        None => layout.as_ref().map(Layout::default_zone),
    };
    let zones = zones(s, layout.as_ref());
    Some(TimeParser {
        parse_from: parse_from?,
        layout: layout?,
        zone: zone?,
        zones,
    })
}

/// The zones that abbreviations stand for.
fn zones(s: &mut Section<'_, '_>, layout: Option<&Layout>) -> Vec<(String, Zone)> {
    const KEY: &str = "time_zone_locations";
    let mut zones = Vec::new();
    for (key, node) in s.map(KEY).unwrap_or_default() {
        let zone = node
            .as_str()
            .ok_or("has to be the name of a time zone".to_owned());
        match zone.and_then(|name| Zone::named(name).map_err(|e| e.to_string())) {
            Ok(zone) => zones.push((key.text.clone(), zone)),
            Err(message) => {
                let path = s.path().child(KEY).child(&key.text);
                let e = ConfigError::new(node.span.clone(), path, message);
                s.errors().push(e);
            }
        }
    }
    if !zones.is_empty() && layout.is_some_and(|l| !l.has_zone_name()) {
        s.invalid(
            KEY,
            "needs a layout with an abbreviation of a zone (%Z, MST)",
        );
    }
    zones
}

/// What its options do.
const SEVERITY: &[(&str, &str)] = &[
    ("parse_from", "The field with the severity."),
    ("preset", "Which names of severities are known beforehand."),
    (
        "mapping",
        "What stands for a severity, by its name (`error`, `warn2`): text, an integer, a range `{min, max}`, or a list of these.",
    ),
    (
        "overwrite_text",
        "The text of the severity becomes its usual name.",
    ),
];

fn severity(s: &mut Section<'_, '_>) -> Option<SeverityParser> {
    s.describe(SEVERITY);
    let presets = [
        ("default", Preset::Default),
        ("otel", Preset::Otel),
        ("aliases", Preset::Otel),
        ("none", Preset::None),
    ];
    let parse_from = required_field(s, "parse_from", Field::parse);
    let mut map = SeverityMap::new(preset(s, &presets));
    let overwrite_text = s.bool("overwrite_text", false);
    for (key, node) in s.map("mapping").unwrap_or_default() {
        let path = s.path().child("mapping").child(&key.text);
        // As in the collector: what stands for a name that is none has no severity.
        let number = number_of(&key.text).unwrap_or_else(|| {
            s.errors().warn(Warning {
                span: Some(key.span.clone()),
                path: path.clone(),
                message: "is not a severity: what stands for it stays without one".to_owned(),
            });
            0
        });
        if let Err((span, message)) = mapping(&mut map, node, number, true) {
            s.errors()
                .push(ConfigError::new(span.clone(), path, message));
        }
    }
    Some(SeverityParser {
        parse_from: parse_from?,
        map,
        overwrite_text,
    })
}

/// The preset; as in the collector the usual one if there is none of this name.
fn preset(s: &mut Section<'_, '_>, presets: &[(&str, Preset)]) -> Preset {
    let names: Vec<&str> = presets.iter().map(|(name, _)| *name).collect();
    let given = match s.is_recording() {
        true => None,
        false => s.node("preset").and_then(Node::as_str),
    };
    match given.filter(|given| !names.contains(given)) {
        Some(given) => {
            let message = format!(
                "there is no preset {given:?}: default is in force; there are {}",
                names.join(", ")
            );
            s.warn("preset", message);
            Preset::Default
        }
        None => s.choice("preset", presets, Preset::Default),
    }
}

/// What stands for a severity: text, an integer, a range, or a list of these.
fn mapping<'n>(
    map: &mut SeverityMap,
    node: &'n Node,
    number: u8,
    outer: bool,
) -> Result<(), (&'n Span, &'static str)> {
    match &node.value {
        NodeValue::Null if outer => {}
        NodeValue::List(items) if outer => {
            items
                .iter()
                .try_for_each(|item| mapping(map, item, number, false))?;
        }
        NodeValue::Str(text) => map.add_text(text, number),
        NodeValue::Int(i) => map.add_text(&i.to_string(), number),
        NodeValue::Map(entries) => {
            let bound = |name: &str| node.get(name).and_then(Node::as_i64);
            match (bound("min"), bound("max"), entries.len()) {
                (Some(min), Some(max), 2) => map.add_range(min, max, number),
                _ => return Err((&node.span, "a range has integers min and max")),
            }
        }
        _ => {
            return Err((
                &node.span,
                "takes text, an integer, a range or a list of these",
            ));
        }
    }
    Ok(())
}

/// What its options do.
const TRACE: &[(&str, &str)] = &[
    ("trace_id", "Where it is."),
    ("span_id", "Where it is."),
    ("trace_flags", "Where it is."),
    (
        "trace_id::parse_from",
        "The field; one of that name in the body unless set.",
    ),
    (
        "span_id::parse_from",
        "The field; one of that name in the body unless set.",
    ),
    (
        "trace_flags::parse_from",
        "The field; one of that name in the body unless set.",
    ),
];

fn trace(s: &mut Section<'_, '_>) -> TraceParser {
    s.describe(TRACE);
    let mut part = |key: &str| {
        let from = s
            .section_if_present(key, |s| field(s, "parse_from"))
            .flatten();
        from.unwrap_or_else(|| Field {
            root: Root::Body,
            keys: vec![key.into()],
        })
    };
    TraceParser {
        trace_id: part("trace_id"),
        span_id: part("span_id"),
        trace_flags: part("trace_flags"),
    }
}
