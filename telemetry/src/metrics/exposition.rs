//! The text a scrape gets: names with or without suffixes, constant labels, `target_info`.
//!
//! Suffix rules are those of OpenTelemetry's Prometheus compatibility specification: the unit
//! first, then `_total` for counters, neither of them twice.

use prometheus::{TextEncoder, proto};

use super::family::{Family, Gather, Kind, Level};

/// What a scrape shows and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposition {
    /// How much is shown.
    pub level: Level,
    /// Leave out `_total` on counters. On in the collector's default.
    pub without_type_suffix: bool,
    /// Leave out `_seconds` and `_bytes` where the name itself lacks them. On in the collector's
    /// default.
    pub without_units: bool,
    /// Leave out the `otel_scope_*` labels. On in the collector's default.
    pub without_scope_info: bool,
    /// Attributes of the agent itself (`service.name`, ...), shown in `target_info`.
    pub resource: Vec<(String, String)>,
    /// Which of them are put on every series.
    pub constant_labels: ConstantLabels,
}

impl Default for Exposition {
    fn default() -> Self {
        Exposition {
            level: Level::Normal,
            without_type_suffix: true,
            without_units: true,
            without_scope_info: true,
            resource: Vec::new(),
            constant_labels: ConstantLabels::default(),
        }
    }
}

/// Which attributes of the resource are put on every series
/// (`with_resource_constant_labels`). `*` stands for any text, `?` for one character.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConstantLabels {
    /// Patterns of names to put on; none = none.
    pub included: Vec<String>,
    /// Patterns of names to leave off again.
    pub excluded: Vec<String>,
}

impl ConstantLabels {
    fn takes(&self, name: &str) -> bool {
        let any = |patterns: &[String]| {
            patterns
                .iter()
                .any(|p| wildcard(p.as_bytes(), name.as_bytes()))
        };
        any(&self.included) && !any(&self.excluded)
    }
}

/// Matches `text` against a pattern with `*` and `?`, by remembering the last star.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// The name of `family` under the switches of `exposition`.
pub(crate) fn name_of(family: &Family, exposition: &Exposition) -> String {
    let mut name = family.name.to_owned();
    if !exposition.without_units
        && let Some(suffix) = family.unit.suffix()
        && !name.split('_').any(|token| token == suffix)
    {
        name.push('_');
        name.push_str(suffix);
    }
    let counter = family.kind == Kind::Counter;
    if counter && !exposition.without_type_suffix && !name.ends_with("_total") {
        name.push_str("_total");
    }
    name
}

/// A label name: anything but letters, digits and `_` becomes `_`.
fn label_name(name: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '_'
        }
    };
    let mut out: String = name.chars().map(keep).collect();
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

fn pair(name: &str, value: &str) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(label_name(name));
    pair.set_value(value.to_owned());
    pair
}

fn extra_labels(exposition: &Exposition) -> Vec<proto::LabelPair> {
    let mut extra = Vec::new();
    if !exposition.without_scope_info {
        extra.push(pair("otel_scope_name", "tailwater"));
        extra.push(pair("otel_scope_schema_url", ""));
        extra.push(pair("otel_scope_version", env!("CARGO_PKG_VERSION")));
    }
    for (name, value) in &exposition.resource {
        if exposition.constant_labels.takes(name) {
            extra.push(pair(name, value));
        }
    }
    extra
}

fn target_info(exposition: &Exposition) -> Option<proto::MetricFamily> {
    if exposition.resource.is_empty() {
        return None;
    }
    let labels = exposition
        .resource
        .iter()
        .map(|(name, value)| pair(name, value))
        .collect();
    let mut metric = proto::Metric::from_label(labels);
    let mut gauge = proto::Gauge::default();
    gauge.set_value(1.0);
    metric.set_gauge(gauge);
    let mut family = proto::MetricFamily::default();
    family.set_name("target_info".to_owned());
    family.set_help("Attributes of this agent.".to_owned());
    family.set_field_type(proto::MetricType::GAUGE);
    family.set_metric(vec![metric]);
    Some(family)
}

/// The text of one scrape.
pub(crate) fn render(gathered: Gather, exposition: &Exposition) -> String {
    let extra = extra_labels(exposition);
    let to_family = |(family, mut metrics): (Family, Vec<proto::Metric>)| {
        for metric in &mut metrics {
            let mut labels = metric.get_label().to_vec();
            labels.extend(extra.iter().cloned());
            metric.set_label(labels);
        }
        let mut out = proto::MetricFamily::default();
        out.set_name(name_of(&family, exposition));
        out.set_help(family.help.to_owned());
        out.set_field_type(match family.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        out.set_metric(metrics);
        out
    };
    let mut families: Vec<_> = gathered.families.into_values().map(to_family).collect();
    families.extend(target_info(exposition));
    // The encoder refuses only a family without a name or without series, and writes to memory.
    TextEncoder::new()
        .encode_to_string(&families)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::family::Unit;

    fn family(name: &'static str, kind: Kind, unit: Unit) -> Family {
        Family {
            name,
            help: "h",
            kind,
            unit,
            level: Level::Basic,
        }
    }

    #[test]
    fn suffixes_follow_the_switches_and_are_never_doubled() {
        let all = Exposition {
            without_type_suffix: false,
            without_units: false,
            ..Exposition::default()
        };
        let none = Exposition::default();
        for (name, kind, unit, want) in [
            (
                "otelcol_process_uptime",
                Kind::Counter,
                Unit::Seconds,
                "otelcol_process_uptime_seconds_total",
            ),
            (
                "otelcol_process_cpu_seconds",
                Kind::Counter,
                Unit::Seconds,
                "otelcol_process_cpu_seconds_total",
            ),
            (
                "otelcol_process_memory_rss",
                Kind::Gauge,
                Unit::Bytes,
                "otelcol_process_memory_rss_bytes",
            ),
            (
                "otelcol_exporter_sent_log_records",
                Kind::Counter,
                Unit::Count,
                "otelcol_exporter_sent_log_records_total",
            ),
            (
                "otelcol_exporter_queue_size",
                Kind::Gauge,
                Unit::Count,
                "otelcol_exporter_queue_size",
            ),
        ] {
            assert_eq!(name_of(&family(name, kind, unit), &all), want);
            assert_eq!(name_of(&family(name, kind, unit), &none), name);
        }
    }

    #[test]
    fn constant_labels_take_patterns() {
        for (pattern, name, want) in [
            ("*", "service.name", true),
            ("service.*", "service.name", true),
            ("service.?ame", "service.name", true),
            ("*.name", "service.version", false),
            ("", "x", false),
            ("*a*b", "xaxxbxb", true),
            ("service", "service.name", false),
        ] {
            assert_eq!(
                wildcard(pattern.as_bytes(), name.as_bytes()),
                want,
                "{pattern} {name}"
            );
        }
        let labels = ConstantLabels {
            included: vec!["service.*".into()],
            excluded: vec!["*.instance.id".into()],
        };
        assert!(labels.takes("service.name") && !labels.takes("service.instance.id"));
    }

    #[test]
    fn scope_and_resource_labels_appear_only_when_asked_for() {
        let resource = vec![("service.name".to_owned(), "tail\"water".to_owned())];
        let mut exposition = Exposition {
            resource,
            ..Exposition::default()
        };
        let series = family("otelcol_x", Kind::Gauge, Unit::Count);
        let text = |e: &Exposition| {
            let mut g = Gather::new(Level::Normal);
            g.gauge(&series, &vec![("exporter", "loki".to_owned())], 1.0);
            render(g, e)
        };
        let plain = text(&exposition);
        assert!(
            plain.contains("otelcol_x{exporter=\"loki\"} 1\n"),
            "{plain}"
        );
        assert!(
            plain.contains("target_info{service_name=\"tail\\\"water\"} 1\n"),
            "{plain}"
        );
        exposition.without_scope_info = false;
        exposition.constant_labels.included = vec!["*".into()];
        let full = text(&exposition);
        assert!(full.contains("otel_scope_name=\"tailwater\""), "{full}");
        assert!(
            full.contains("service_name=\"tail\\\"water\"} 1\n"),
            "{full}"
        );
    }
}
