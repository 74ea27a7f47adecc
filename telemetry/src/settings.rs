//! The section `service::telemetry`.
//!
//! Both spellings of the collector are read: the older inline one (`metrics::address`, `resource`
//! as a map) and the declarative one (`metrics::readers`, `resource::attributes` as a list). What
//! this agent does not do (pushing its own telemetry, views, traces of itself) is refused by name.

mod described;

use std::time::Duration;

use tailwater_config::reference::{Bounds, ValueKind};
use tailwater_config::{ConfigError, Node, NodeValue, Section, nearest};
use tracing::level_filters::LevelFilter;

use described::{LOGS, METRICS, OPTIONS, PROMETHEUS};

use crate::json_text::{json_f64, json_string};
use crate::logs::{Encoding, LogSettings, OutputPath, Sampling};
use crate::metrics::{ConstantLabels, Exposition, Level};

/// Where the metrics are served when nothing else is said.
pub const METRICS_HOST_DEFAULT: &str = "localhost";
/// The port of the same.
pub const METRICS_PORT_DEFAULT: u16 = 8888;

/// The levels of the log by the names they have in the collector. Nothing of this agent is above
/// `error`, so the three highest show nothing.
const LOG_LEVELS: [(&str, LevelFilter); 7] = [
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warn", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
    ("dpanic", LevelFilter::OFF),
    ("panic", LevelFilter::OFF),
    ("fatal", LevelFilter::OFF),
];

const NO_PUSH: &str = "this agent does not push its own telemetry; scrape its metrics from \
                       metrics::readers and collect its log like any other";

/// One address metrics are served at, in Prometheus' text form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullReader {
    /// Host name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 = any.
    pub port: u16,
    /// What is shown there and under which names.
    pub exposition: Exposition,
}

/// The agent's telemetry, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Its own log.
    pub logs: LogSettings,
    /// Where its metrics are served; empty = nowhere.
    pub readers: Vec<PullReader>,
    /// Attributes of the agent itself.
    pub resource: Vec<(String, String)>,
}

impl TelemetrySettings {
    /// Reads the section; mistakes are in it. `resource` are the attributes the agent gives
    /// itself (`service.name`, `service.version`, `service.instance.id`); the section may change
    /// them, and suppress one by a null.
    pub fn decode(s: &mut Section<'_, '_>, resource: &[(&str, &str)]) -> TelemetrySettings {
        s.describe(OPTIONS);
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let mut resource: Vec<_> = resource.iter().map(own).collect();
        decode_resource(s, &mut resource);
        let logs = s.section("logs", decode_logs);
        let mut readers = s.section("metrics", decode_metrics);
        for reader in &mut readers {
            reader.exposition.resource.clone_from(&resource);
        }
        s.section("traces", decode_traces);
        TelemetrySettings {
            logs,
            readers,
            resource,
        }
    }
}

fn decode_logs(s: &mut Section<'_, '_>) -> LogSettings {
    s.describe(LOGS);
    let default = LogSettings::default();
    let encodings = [("console", Encoding::Console), ("json", Encoding::Json)];
    let paths = |list: Option<Vec<String>>, default: Vec<OutputPath>| {
        list.map_or(default, |l| {
            l.iter().map(|p| OutputPath::parse(p)).collect()
        })
    };
    s.refuse("processors", NO_PUSH);
    if s.bool("development", false) {
        s.warn(
            "development",
            "has no effect: it changes how panics and stack traces are logged",
        );
    }
    // No line of this agent has a stack trace, so there is none to leave out.
    s.bool("disable_stacktrace", false);
    LogSettings {
        level: decode_log_level(s).unwrap_or(default.level),
        encoding: s.choice("encoding", &encodings, default.encoding),
        sampling: s.section("sampling", decode_sampling),
        output_paths: paths(s.string_list("output_paths"), default.output_paths),
        error_output_paths: paths(
            s.string_list("error_output_paths"),
            default.error_output_paths,
        ),
        initial_fields: s
            .map("initial_fields")
            .unwrap_or_default()
            .iter()
            .map(|(key, node)| (key.text.clone(), json_of(node)))
            .collect(),
        disable_caller: s.bool("disable_caller", false),
    }
}

/// As the collector, the case of the word does not count.
fn decode_log_level(s: &mut Section<'_, '_>) -> Option<LevelFilter> {
    let written = s.string_optional("level")?;
    let word = written.to_lowercase();
    let found = LOG_LEVELS.iter().find(|(name, _)| *name == word);
    if found.is_none() {
        let names = LOG_LEVELS.map(|(name, _)| name);
        let error = ConfigError::new(s.span_of("level"), s.path().child("level"), "")
            .found(format!("{written:?}"))
            .allowed(names.join(", "))
            .suggest(nearest(&word, names));
        s.errors().push(error);
    }
    found.map(|(_, level)| *level)
}

fn decode_sampling(s: &mut Section<'_, '_>) -> Option<Sampling> {
    let default = Sampling::default();
    let enabled = s.bool("enabled", true);
    let sampling = Sampling {
        tick: s.duration_in("tick", default.tick, Duration::from_millis(1)..),
        initial: s.u64("initial", default.initial, ..),
        thereafter: s.u64("thereafter", default.thereafter, ..),
    };
    enabled.then_some(sampling)
}

fn decode_metrics(s: &mut Section<'_, '_>) -> Vec<PullReader> {
    s.describe(METRICS);
    let level = s.choice_any_case("level", &Level::NAMES, Level::default());
    s.refuse(
        "views",
        "every series is shown under its own name; relabel when scraping",
    );
    let address = decode_address(s);
    let readers = s.section_list("readers", |reader| {
        reader.refuse("periodic", NO_PUSH);
        reader.section_if_present("pull", decode_pull).flatten()
    });
    let mut readers: Vec<PullReader> = match (readers, address) {
        (Some(readers), _) => readers.into_iter().flatten().collect(),
        (None, Some(reader)) => vec![reader],
        (None, None) => vec![PullReader {
            host: METRICS_HOST_DEFAULT.to_owned(),
            port: METRICS_PORT_DEFAULT,
            exposition: Exposition::default(),
        }],
    };
    if level == Level::None {
        readers.clear();
    }
    for reader in &mut readers {
        reader.exposition.level = level;
    }
    readers
}

/// `metrics::address`, the form before there were readers: `host:port`, `:port`, `[::1]:port`.
fn decode_address(s: &mut Section<'_, '_>) -> Option<PullReader> {
    let text = s.string_optional("address")?;
    if s.has("readers") {
        s.warn("address", "has no effect because readers are given");
    }
    let parsed = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = parsed else {
        s.invalid("address", format!("found {text:?}, expected host:port"));
        return None;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // An empty host means all addresses, as it does for Go's listeners.
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    Some(PullReader {
        host: host.to_owned(),
        port,
        exposition: Exposition::default(),
    })
}

fn decode_pull(s: &mut Section<'_, '_>) -> Option<PullReader> {
    for key in ["producers", "cardinality_limits"] {
        s.refuse(key, "the agent's own metrics are bounded by themselves");
    }
    let reader = s.section("exporter", |exporter| {
        // The declarative format calls it by this name while it is not final.
        let name = ["prometheus", "prometheus/development"];
        let name = if exporter.has(name[1]) {
            name[1]
        } else {
            name[0]
        };
        exporter.section_if_present(name, decode_prometheus)
    });
    if reader.is_none() {
        s.error("needs exporter::prometheus, the only one for a pull reader");
    }
    reader
}

fn decode_prometheus(s: &mut Section<'_, '_>) -> PullReader {
    s.describe(PROMETHEUS);
    let labels = s.section("with_resource_constant_labels", |labels| ConstantLabels {
        included: labels.string_list("included").unwrap_or_default(),
        excluded: labels.string_list("excluded").unwrap_or_default(),
    });
    let port = s.u64("port", METRICS_PORT_DEFAULT.into(), ..=u64::from(u16::MAX));
    PullReader {
        host: s.string("host", METRICS_HOST_DEFAULT),
        port: u16::try_from(port).unwrap_or(METRICS_PORT_DEFAULT),
        exposition: Exposition {
            without_type_suffix: s.bool("without_type_suffix", true),
            without_units: s.bool("without_units", true),
            without_scope_info: s.bool("without_scope_info", true),
            constant_labels: labels,
            ..Exposition::default()
        },
    }
}

fn decode_traces(s: &mut Section<'_, '_>) {
    for key in ["processors", "sampler", "limits"] {
        s.refuse(key, "this agent makes no traces of itself");
    }
    s.choice_any_case("level", &Level::NAMES, Level::default());
    if s.string_list("propagators")
        .is_some_and(|list| !list.is_empty())
    {
        s.warn(
            "propagators",
            "has no effect: this agent makes no traces of itself",
        );
    }
}

/// Changes `resource` by what the section says, in either spelling.
fn decode_resource(s: &mut Section<'_, '_>, resource: &mut Vec<(String, String)>) {
    let scalar = || {
        let number = ValueKind::Number(Bounds::default());
        vec![ValueKind::Text, number, ValueKind::Bool]
    };
    s.section_if_present("resource", |r| {
        let declarative =
            matches!(r.node_of("attributes", scalar), Some(n) if n.as_list().is_some());
        if !declarative {
            // Inline, `attributes` would be an attribute of that name.
            for (key, node) in r.remaining(scalar) {
                set_attribute(r, resource, &key.text, node);
            }
            if let Some(node) = r.node_of("attributes", scalar) {
                set_attribute(r, resource, "attributes", node);
            }
            return;
        }
        r.refuse("detectors", "write the attributes that are wanted");
        // It only says which version of the naming rules was followed.
        r.string_optional("schema_url");
        r.section_list("attributes", |item| {
            // The value's own type is used.
            item.string_optional("type");
            let name = item.string_required("name");
            if let (Some(name), Some(node)) = (name, item.node_of("value", scalar)) {
                set_attribute(item, resource, &name, node);
            }
        });
    });
}

fn set_attribute(
    s: &mut Section<'_, '_>,
    resource: &mut Vec<(String, String)>,
    name: &str,
    node: &Node,
) {
    let value = match &node.value {
        NodeValue::Null => {
            resource.retain(|(known, _)| known != name);
            return;
        }
        NodeValue::List(_) | NodeValue::Map(_) => {
            let path = s.path().child(name);
            let error = ConfigError::new(node.span.clone(), path, "")
                .found(node.describe())
                .allowed("a string, a number or a boolean");
            s.errors().push(error);
            return;
        }
        NodeValue::Str(text) => text.clone(),
        NodeValue::Bool(b) => b.to_string(),
        NodeValue::Int(i) => i.to_string(),
        NodeValue::Float(x) => x.to_string(),
    };
    match resource.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => resource.push((name.to_owned(), value)),
    }
}

/// A value of the configuration as JSON.
fn json_of(node: &Node) -> String {
    match &node.value {
        NodeValue::Null => "null".to_owned(),
        NodeValue::Bool(b) => b.to_string(),
        NodeValue::Int(i) => i.to_string(),
        NodeValue::Float(x) => json_f64(*x),
        NodeValue::Str(text) => json_string(text),
        NodeValue::List(items) => {
            format!(
                "[{}]",
                items.iter().map(json_of).collect::<Vec<_>>().join(", ")
            )
        }
        NodeValue::Map(entries) => {
            let pair = |(key, node): &(tailwater_config::Key, Node)| {
                format!("{}: {}", json_string(&key.text), json_of(node))
            };
            format!(
                "{{{}}}",
                entries.iter().map(pair).collect::<Vec<_>>().join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::{Errors, parse};

    const OWN: [(&str, &str); 2] = [("service.name", "tailwater"), ("service.version", "1")];

    fn decode(yaml: &str) -> (TelemetrySettings, Errors) {
        let node = parse(yaml, "t.yaml").unwrap();
        let mut errors = Errors::new();
        let mut section = Section::new(&node, "service::telemetry", &mut errors);
        let settings = TelemetrySettings::decode(&mut section, &OWN);
        section.finish();
        (settings, errors)
    }

    fn good(yaml: &str) -> TelemetrySettings {
        let (settings, errors) = decode(yaml);
        assert!(errors.is_empty(), "{yaml}\n{errors}");
        settings
    }

    #[test]
    fn an_empty_section_means_the_collectors_defaults() {
        let settings = good("");
        assert_eq!(settings.logs, LogSettings::default());
        let [reader] = &settings.readers[..] else {
            panic!("one reader: {settings:?}")
        };
        assert_eq!((reader.host.as_str(), reader.port), ("localhost", 8888));
        assert_eq!(reader.exposition.level, Level::Normal);
        assert!(reader.exposition.without_type_suffix && reader.exposition.without_units);
        assert_eq!(
            settings.resource[0],
            ("service.name".to_owned(), "tailwater".to_owned())
        );
        assert_eq!(reader.exposition.resource, settings.resource);
    }

    #[test]
    fn every_option_of_the_log_has_its_effect() {
        let yaml = "
logs:
  level: DEBUG
  encoding: json
  disable_caller: true
  disable_stacktrace: true
  sampling: {tick: 5s, initial: 2, thereafter: 0}
  output_paths: [stdout, /var/log/a.log]
  error_output_paths: [stderr]
  initial_fields: {env: prod, n: 3, nested: {a: [1, true]}}
";
        let logs = good(yaml).logs;
        let tick = Duration::from_secs(5);
        let fields = [
            ("env", "\"prod\""),
            ("n", "3"),
            ("nested", "{\"a\": [1, true]}"),
        ];
        assert_eq!(
            logs,
            LogSettings {
                level: LevelFilter::DEBUG,
                encoding: Encoding::Json,
                sampling: Some(Sampling {
                    tick,
                    initial: 2,
                    thereafter: 0
                }),
                output_paths: vec![
                    OutputPath::Stdout,
                    OutputPath::File("/var/log/a.log".into())
                ],
                error_output_paths: vec![OutputPath::Stderr],
                initial_fields: fields.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                disable_caller: true,
            }
        );
        assert_eq!(
            good("logs: {sampling: {enabled: false}}").logs.sampling,
            None
        );
        assert_eq!(good("logs: {level: fatal}").logs.level, LevelFilter::OFF);
    }

    #[test]
    fn readers_are_read_in_both_forms_and_level_none_serves_nothing() {
        let yaml = "
metrics:
  level: detailed
  readers:
    - pull:
        exporter:
          prometheus:
            host: 0.0.0.0
            port: 9000
            without_type_suffix: false
            without_scope_info: false
            with_resource_constant_labels: {included: ['service.*'], excluded: [x]}
    - pull: {exporter: {prometheus/development: {port: 9001}}}
";
        let readers = good(yaml).readers;
        let exposition = &readers[0].exposition;
        assert_eq!(
            (readers[0].host.as_str(), readers[0].port),
            ("0.0.0.0", 9000)
        );
        assert!(!exposition.without_type_suffix && !exposition.without_scope_info);
        assert!(exposition.without_units, "left out, so as without readers");
        assert_eq!(exposition.constant_labels.included, ["service.*"]);
        assert_eq!(
            (readers[1].port, readers[1].exposition.level),
            (9001, Level::Detailed)
        );
        for (address, host, port) in [
            ("0.0.0.0:8080", "0.0.0.0", 8080),
            (":1", "0.0.0.0", 1),
            ("[::1]:2", "::1", 2),
        ] {
            let readers = good(&format!("metrics: {{address: '{address}'}}")).readers;
            assert_eq!((readers[0].host.as_str(), readers[0].port), (host, port));
        }
        assert_eq!(good("metrics: {level: none}").readers, []);
        assert_eq!(good("metrics: {readers: []}").readers, []);
    }

    #[test]
    fn attributes_of_the_agent_can_be_set_changed_and_suppressed() {
        let text = |settings: TelemetrySettings| {
            let pair = |(k, v): &(String, String)| format!("{k}={v}");
            settings
                .resource
                .iter()
                .map(pair)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let inline = "resource: {service.name: x, service.version: null, n: 3, attributes: y}";
        assert_eq!(text(good(inline)), "service.name=x n=3 attributes=y");
        let list = "resource: {schema_url: u, attributes: [{name: a, value: b, type: string}]}";
        assert_eq!(
            text(good(list)),
            "service.name=tailwater service.version=1 a=b"
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (yaml, path) in [
            ("logs: {processors: [{batch: {}}]}", "logs::processors"),
            ("logs: {level: loud}", "logs::level"),
            ("logs: {encoding: jsn}", "logs::encoding"),
            ("logs: {sampling: {tick: 0s}}", "logs::sampling::tick"),
            ("logs: {sampeling: {}}", "logs::sampeling"),
            ("metrics: {views: []}", "metrics::views"),
            ("metrics: {level: most}", "metrics::level"),
            ("metrics: {address: localhost}", "metrics::address"),
            (
                "metrics: {readers: [{periodic: {}}]}",
                "metrics::readers::0::periodic",
            ),
            (
                "metrics: {readers: [{pull: {exporter: {otlp: {}}}}]}",
                "exporter::otlp",
            ),
            (
                "metrics: {readers: [{pull: {exporter: {}}}]}",
                "metrics::readers::0::pull",
            ),
            ("traces: {processors: []}", "traces::processors"),
            (
                "resource: {attributes: [{value: b}]}",
                "resource::attributes::0::name",
            ),
            ("resource: {a: [1]}", "resource::a"),
            ("profiles: {}", "service::telemetry::profiles"),
        ] {
            let (_, errors) = decode(yaml);
            let text = errors.to_string();
            assert!(
                text.contains(path) && text.starts_with("t.yaml:1:"),
                "{yaml}: {text}"
            );
        }
        let (_, mut errors) = decode("logs: {development: true}\ntraces: {propagators: [b3]}");
        assert!(errors.is_empty());
        assert_eq!(
            errors.take_warnings().len(),
            2,
            "no option is ignored in silence"
        );
    }
}
