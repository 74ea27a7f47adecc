//! Decoding of the exporter's section.

use std::path::PathBuf;
use std::time::Duration;

use tailwater_config::reference::ValueKind;
use tailwater_config::{NodeValue, Section};

use crate::client::{ClientOptions, Endpoint, decode_fixed_compression};
use crate::delivery::{QueueOptions, RetryOptions};

use super::compress::CompressionEncoder;
use super::names::{is_label_name, is_tenant_id};
use super::options::{
    DefaultLabels, DeliveryMode, LabelMapping, LabelOptions, Limits, LineFormat, LineTooLong,
    LokiOptions, MetadataOptions, OutsideWindow, TenantOptions,
};

/// Loki's default for the largest message between its parts, before compression.
const GRPC_BYTES_MAX: usize = 4 << 20;
/// Room for labels and framing beside the largest entry of a request.
const FRAMING_BYTES: usize = 80 << 10;

const NO_PARTITION: &str = "requests are kept apart by tenant and stream already";

/// Everything an exporter is built from.
#[derive(Clone, Debug)]
pub struct LokiSettings {
    /// The full URL of the push endpoint.
    pub endpoint: Endpoint,
    /// The HTTP client.
    pub client: ClientOptions,
    /// `sending_queue`.
    pub queue: QueueOptions,
    /// `retry_on_failure`.
    pub retry: RetryOptions,
    /// The rest.
    pub options: LokiOptions,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("endpoint", "The full URL of the push endpoint."),
    ("sending_queue", "What waits to be sent."),
    ("retry_on_failure", "How attempts come again."),
];

impl LokiSettings {
    /// Reads the section. `None` only together with an error.
    pub fn decode(s: &mut Section<'_, '_>) -> Option<LokiSettings> {
        s.describe(OPTIONS);
        let endpoint = Endpoint::decode(s, "endpoint");
        decode_fixed_compression(s, "snappy");
        let client = ClientOptions::decode(s, ClientOptions::default());
        let queue = s.section("sending_queue", |q| {
            QueueOptions::decode(q, Some(NO_PARTITION))
        });
        let retry = s.section("retry_on_failure", RetryOptions::decode);
        let mut options = decode_options(s);
        options.batch = queue.batch.clone();
        Some(LokiSettings {
            endpoint: endpoint?,
            client,
            queue,
            retry,
            options,
        })
    }
}

/// What its options do.
const OWN: &[(&str, &str)] = &[
    (
        "labels",
        "own: Where labels come from. Without it labels come from the hints of the collector's former exporter: `loki.resource.labels`, `loki.attribute.labels`, `loki.tenant`, `loki.format`.",
    ),
    (
        "default_labels_enabled",
        "Without `labels`: labels that there are besides.",
    ),
    ("default_labels_enabled::exporter", "`exporter: OTLP`."),
    (
        "default_labels_enabled::job",
        "`job`, of `service.namespace` and `service.name`.",
    ),
    (
        "default_labels_enabled::instance",
        "`instance`, of `service.instance.id`.",
    ),
    ("default_labels_enabled::level", "`level`, of the severity."),
    (
        "line_format",
        "own: What the line is: the body as it is, or all of the record as JSON or logfmt. raw with `labels`, else json.",
    ),
    (
        "structured_metadata",
        "own: Whether attributes that are no labels become structured metadata: true, false, or a section. true with `labels`, else false.",
    ),
    ("structured_metadata::enabled", "own: Whether they do."),
    (
        "structured_metadata::include",
        "own: Names of attributes that do; all unless set.",
    ),
    (
        "structured_metadata::exclude",
        "own: Names of attributes that do not.",
    ),
    ("tenant_id", "own: The tenant of records that name none."),
    ("tenant", "own: Where the tenant comes from."),
    (
        "tenant::from_resource",
        "own: The attribute of the resource that names it.",
    ),
    (
        "tenant::from_attribute",
        "own: The attribute of the record that names it.",
    ),
    (
        "tenant::allow",
        "own: The tenants that records may name, with `*` for any characters; any valid id unless set, with a warning where `from_attribute` is. Others, and those beyond 10,000 per shard, are dropped and counted as `tenant_refused`. The hint `loki.tenant` obeys it, too.",
    ),
    (
        "limits",
        "own: Those of the tenant in Loki; the defaults are Loki's.",
    ),
    (
        "streams_max",
        "own: Active streams; beyond it a label moves to structured metadata.",
    ),
    (
        "delivery",
        "own: What an answer that says too little means; see [DELIVERY](DELIVERY.md#an-answer-that-says-too-little).",
    ),
    (
        "max_request_bytes",
        "own: Before compression; must be below 4MiB.",
    ),
    (
        "reorder_tolerance",
        "own: A larger step back in time makes the stream of a request be sorted.",
    ),
    (
        "compression_encoder",
        "own: Which encoder; both write snappy.",
    ),
    (
        "dead_letter_file",
        "own: JSON lines of what will never be accepted, 64 MiB and one older file.",
    ),
    (
        "success_status",
        "own: Which answers mean success, for a proxy that answers differently; 204 unless set.",
    ),
];

fn decode_options(s: &mut Section<'_, '_>) -> LokiOptions {
    s.describe(OWN);
    let d = LokiOptions::default();
    let mapping = s.section_if_present("labels", decode_mapping);
    if mapping.is_some() && s.has("default_labels_enabled") {
        s.invalid(
            "default_labels_enabled",
            "has no meaning beside labels, which names every label",
        );
    }
    let defaults = s.section("default_labels_enabled", decode_default_labels);
    // Without `labels` everything is as the collector's exporter did it.
    let (labels, format, metadata) = match mapping {
        Some(mapping) => (
            LabelOptions::Mapping(mapping),
            LineFormat::Raw,
            MetadataOptions::all(),
        ),
        None => (
            LabelOptions::Hints(defaults),
            LineFormat::Json,
            MetadataOptions::none(),
        ),
    };
    let formats = [
        ("raw", LineFormat::Raw),
        ("json", LineFormat::Json),
        ("logfmt", LineFormat::Logfmt),
    ];
    let deliveries = [
        ("probed", DeliveryMode::Probed),
        ("verified", DeliveryMode::Verified),
    ];
    let encoders = [
        ("tailwater", CompressionEncoder::Tailwater),
        ("snap", CompressionEncoder::Snap),
    ];
    let options = LokiOptions {
        labels,
        line_format: s.choice("line_format", &formats, format),
        structured_metadata: decode_metadata(s, metadata),
        tenant: decode_tenant(s),
        limits: s.section("limits", decode_limits),
        streams_max: s.usize("streams_max", d.streams_max, 1..),
        delivery: s.choice("delivery", &deliveries, d.delivery),
        max_request_bytes: size(s, "max_request_bytes", d.max_request_bytes),
        reorder_tolerance: s.duration("reorder_tolerance", d.reorder_tolerance),
        batch: None,
        compression_encoder: s.choice("compression_encoder", &encoders, d.compression_encoder),
        dead_letter_file: s.string_optional("dead_letter_file").map(PathBuf::from),
        success_status: decode_success(s).unwrap_or(d.success_status),
    };
    check_sizes(s, &options);
    options
}

fn check_sizes(s: &mut Section<'_, '_>, options: &LokiOptions) {
    let entry = options.limits.line_bytes_max + options.limits.metadata_bytes_max + FRAMING_BYTES;
    let request = options.max_request_bytes;
    if request >= GRPC_BYTES_MAX {
        let message = format!(
            "must be less than {GRPC_BYTES_MAX}, beyond which Loki refuses the whole request"
        );
        s.invalid("max_request_bytes", message);
    } else if request < entry {
        let message = format!(
            "must be at least {entry}: limits::line_bytes_max, limits::metadata_bytes_max and \
             {FRAMING_BYTES} for labels, or the largest entry does not fit"
        );
        s.invalid("max_request_bytes", message);
    }
}

fn size(s: &mut Section<'_, '_>, key: &str, default: usize) -> usize {
    let value = s.byte_size(key, default as u64, 1..=u64::from(u32::MAX));
    usize::try_from(value).unwrap_or(default)
}

fn decode_default_labels(s: &mut Section<'_, '_>) -> DefaultLabels {
    DefaultLabels {
        exporter: s.bool("exporter", true),
        job: s.bool("job", true),
        instance: s.bool("instance", true),
        level: s.bool("level", true),
    }
}

/// What its options do.
const LABELS: &[(&str, &str)] = &[
    (
        "static",
        "own: Label: value. On equal names the later of these options wins.",
    ),
    ("resource", "own: Label: attribute of the resource."),
    ("attributes", "own: Label: attribute of the record."),
    ("severity", "own: Name of the label that carries the level."),
];

fn decode_mapping(s: &mut Section<'_, '_>) -> LabelMapping {
    s.describe(LABELS);
    let fixed = label_map(s, "static");
    let resource = label_map(s, "resource");
    let attributes = label_map(s, "attributes");
    let severity = s.string_optional("severity");
    if severity.as_deref().is_some_and(|name| !is_label_name(name)) {
        s.invalid("severity", NAME_RULE);
    }
    LabelMapping {
        fixed,
        resource,
        attributes,
        severity,
    }
}

const NAME_RULE: &str = "a label name has letters, digits and _ only, and no digit first";

fn label_map(s: &mut Section<'_, '_>, key: &str) -> Vec<(String, String)> {
    let pairs = s.string_map(key).unwrap_or_default();
    for (name, value) in &pairs {
        if !is_label_name(name) {
            s.invalid(key, format!("{name:?}: {NAME_RULE}"));
        } else if value.is_empty() {
            s.invalid(key, format!("{name:?} is empty"));
        }
    }
    pairs
}

/// `structured_metadata`: a boolean, or a section.
fn decode_metadata(s: &mut Section<'_, '_>, default: MetadataOptions) -> MetadataOptions {
    let key = "structured_metadata";
    let Some(node) = s
        .node_of(key, || vec![ValueKind::Bool, ValueKind::Section])
        .filter(|node| !node.is_null())
    else {
        return default;
    };
    match node.value {
        NodeValue::Bool(true) => return MetadataOptions::all(),
        NodeValue::Bool(false) => return MetadataOptions::none(),
        _ => {}
    }
    let path = s.path().child(key);
    let mut inner = Section::new(node, path, s.errors());
    let options = MetadataOptions {
        enabled: inner.bool("enabled", true),
        include: inner.string_list("include").unwrap_or_default(),
        exclude: inner.string_list("exclude").unwrap_or_default(),
    };
    inner.finish();
    options
}

fn decode_tenant(s: &mut Section<'_, '_>) -> TenantOptions {
    let fixed = s.string_optional("tenant_id").filter(|id| !id.is_empty());
    if fixed.as_deref().is_some_and(|id| !is_tenant_id(id)) {
        s.invalid(
            "tenant_id",
            "a tenant id has at most 150 letters, digits and characters of !-_.*'():",
        );
    }
    s.section("tenant", |t| {
        let options = TenantOptions {
            from_resource: t.string_optional("from_resource"),
            from_attribute: t.string_optional("from_attribute"),
            fixed: fixed.map(Into::into),
            allow: t.string_list("allow").unwrap_or_default(),
        };
        let spelled = |pattern: &String| is_tenant_id(&pattern.replace('*', "a"));
        if !options.allow.iter().all(spelled) {
            t.invalid(
                "allow",
                "each must be a tenant id; * stands for any characters",
            );
        }
        if options.from_attribute.is_some() && options.allow.is_empty() {
            t.warn(
                "from_attribute",
                "whoever writes a line may choose its tenant; set allow to those that are meant",
            );
        }
        options
    })
}

fn decode_success(s: &mut Section<'_, '_>) -> Option<Vec<u16>> {
    let key = "success_status";
    let list = s.list(key)?;
    let status = |i: i64| u16::try_from(i).ok().filter(|n| (200..300).contains(n));
    let found: Option<Vec<u16>> = list.iter().map(|n| n.as_i64().and_then(status)).collect();
    if found.as_ref().is_none_or(Vec::is_empty) {
        s.invalid(key, "must be a list of at least one status from 200 to 299");
    }
    found
}

/// What its options do.
const LIMITS: &[(&str, &str)] = &[
    ("line_bytes_max", "own: Longest line."),
    ("line_too_long", "own: What becomes of a longer one."),
    (
        "age_max",
        "own: Oldest entry; 0 = learned from Loki's first refusal.",
    ),
    (
        "future_max",
        "own: Furthest entry in the future of the agent's own clock; 0 = Loki decides.",
    ),
    (
        "outside_window",
        "own: What becomes of entries outside of these.",
    ),
    ("label_names_max", "own: Labels of a stream."),
    ("label_name_bytes_max", "own: Longest name of a label."),
    ("label_value_bytes_max", "own: Longest value of a label."),
    (
        "metadata_pairs_max",
        "own: Pairs of structured metadata of an entry.",
    ),
    (
        "metadata_bytes_max",
        "own: Bytes of structured metadata of an entry.",
    ),
    ("stream_rate_bytes", "own: Of a stream, per second."),
    ("stream_burst_bytes", "own: Of a stream, at once."),
    (
        "behind_max",
        "own: How far behind the newest entry of its stream an entry may be.",
    ),
];

fn decode_limits(s: &mut Section<'_, '_>) -> Limits {
    s.describe(LIMITS);
    let d = Limits::default();
    let too_long = [
        ("truncate", LineTooLong::Truncate),
        ("drop", LineTooLong::Drop),
    ];
    let outside = [
        ("drop", OutsideWindow::Drop),
        ("clamp", OutsideWindow::Clamp),
    ];
    let duration =
        |s: &mut Section<'_, '_>, key, default| s.duration_in(key, default, Duration::ZERO..);
    Limits {
        line_bytes_max: size(s, "line_bytes_max", d.line_bytes_max),
        line_too_long: s.choice("line_too_long", &too_long, d.line_too_long),
        age_max: duration(s, "age_max", d.age_max),
        future_max: duration(s, "future_max", d.future_max),
        outside_window: s.choice("outside_window", &outside, d.outside_window),
        label_names_max: s.usize("label_names_max", d.label_names_max, 1..),
        label_name_bytes_max: size(s, "label_name_bytes_max", d.label_name_bytes_max),
        label_value_bytes_max: size(s, "label_value_bytes_max", d.label_value_bytes_max),
        metadata_pairs_max: s.usize("metadata_pairs_max", d.metadata_pairs_max, ..),
        metadata_bytes_max: size(s, "metadata_bytes_max", d.metadata_bytes_max),
        stream_rate_bytes: s.byte_size("stream_rate_bytes", d.stream_rate_bytes, 1..),
        stream_burst_bytes: s.byte_size("stream_burst_bytes", d.stream_burst_bytes, 1..),
        behind_max: duration(s, "behind_max", d.behind_max),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::test_config::decode_json;

    fn decode(mut config: Value) -> Result<LokiSettings, String> {
        if let Value::Object(map) = &mut config {
            map.entry("endpoint")
                .or_insert_with(|| "http://loki:3100/loki/api/v1/push".into());
        }
        decode_json(&config, LokiSettings::decode).map(|s| s.expect("no error, so settings"))
    }

    #[test]
    fn an_endpoint_alone_is_what_the_collectors_exporter_did() {
        let s = decode(json!({})).unwrap();
        let labels = LabelOptions::Hints(DefaultLabels::default());
        assert_eq!(
            (s.options.labels, s.options.line_format),
            (labels, LineFormat::Json)
        );
        assert_eq!(s.options.structured_metadata, MetadataOptions::none());
        assert_eq!(s.options.limits, Limits::default());
        assert_eq!(s.options.success_status, [204]);
        assert!(decode_json(&json!({}), LokiSettings::decode).is_err());
    }

    #[test]
    fn every_option_has_its_effect() {
        let s = decode(json!({
            "labels": {
                "static": {"cluster": "c1"}, "resource": {"pod": "k8s.pod.name"},
                "attributes": {"stream": "log.iostream"}, "severity": "level",
            },
            "line_format": "logfmt", "structured_metadata": {"include": ["a"], "exclude": ["b"]},
            "tenant_id": "t",
            "tenant": {"from_resource": "r", "from_attribute": "a", "allow": ["b", "c*"]},
            "streams_max": 7, "delivery": "verified", "max_request_bytes": "1MiB",
            "reorder_tolerance": "2s", "compression_encoder": "snap",
            "dead_letter_file": "/tmp/x", "success_status": [200, 204], "compression": "snappy",
            "sending_queue": {"batch": {"min_size": 3}},
            "limits": {
                "line_bytes_max": 1, "line_too_long": "drop", "age_max": "1h", "future_max": "0s",
                "outside_window": "clamp", "label_names_max": 2, "label_name_bytes_max": 3,
                "label_value_bytes_max": 4, "metadata_pairs_max": 5, "metadata_bytes_max": 6,
                "stream_rate_bytes": 7, "stream_burst_bytes": 8, "behind_max": "9s",
            },
        }));
        let o = s.unwrap().options;
        let pair = |a: &str, b: &str| vec![(a.to_owned(), b.to_owned())];
        let want = LabelMapping {
            fixed: pair("cluster", "c1"),
            resource: pair("pod", "k8s.pod.name"),
            attributes: pair("stream", "log.iostream"),
            severity: Some("level".into()),
        };
        assert_eq!(o.labels, LabelOptions::Mapping(want));
        assert_eq!(o.line_format, LineFormat::Logfmt);
        let m = &o.structured_metadata;
        assert!(m.takes("a") && !m.takes("b") && !m.takes("c"));
        assert_eq!(o.tenant.fixed.as_deref(), Some("t"));
        assert_eq!(o.tenant.from_resource.as_deref(), Some("r"));
        assert_eq!(o.tenant.allow, ["b", "c*"]);
        assert_eq!((o.streams_max, o.delivery), (7, DeliveryMode::Verified));
        assert_eq!(
            (o.max_request_bytes, o.reorder_tolerance.as_secs()),
            (1 << 20, 2)
        );
        assert_eq!(o.compression_encoder, CompressionEncoder::Snap);
        assert_eq!(o.success_status, [200, 204]);
        assert_eq!(o.batch.map(|b| b.min_size), Some(3));
        let l = o.limits;
        assert_eq!((l.line_bytes_max, l.line_too_long), (1, LineTooLong::Drop));
        assert_eq!((l.age_max.as_secs(), l.future_max.as_secs()), (3600, 0));
        assert_eq!(
            (l.outside_window, l.label_names_max),
            (OutsideWindow::Clamp, 2)
        );
        assert_eq!((l.label_name_bytes_max, l.label_value_bytes_max), (3, 4));
        assert_eq!((l.metadata_pairs_max, l.metadata_bytes_max), (5, 6));
        assert_eq!((l.stream_rate_bytes, l.stream_burst_bytes), (7, 8));
        assert_eq!(l.behind_max.as_secs(), 9);
        let off = decode(json!({"labels": {}, "structured_metadata": false})).unwrap();
        assert!(!off.options.structured_metadata.enabled);
        assert!(
            decode(json!({"labels": {}}))
                .unwrap()
                .options
                .structured_metadata
                .enabled
        );
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (config, part) in [
            (json!({"endpoint": "not a url"}), "endpoint"),
            (json!({"labels": {"static": {"a.b": "c"}}}), "label name"),
            (json!({"labels": {"attributes": {"a": ""}}}), "is empty"),
            (json!({"labels": {"severity": "9"}}), "label name"),
            (
                json!({"labels": {}, "default_labels_enabled": {"job": true}}),
                "has no meaning",
            ),
            (json!({"default_labels_enabled": {"jobs": true}}), "jobs"),
            (json!({"tenant_id": "a/b"}), "tenant"),
            (json!({"tenant": {"allow": ["a/b"]}}), "tenant id"),
            (json!({"max_request_bytes": "4MiB"}), "max_request_bytes"),
            (json!({"max_request_bytes": "100KiB"}), "max_request_bytes"),
            (json!({"success_status": [404]}), "success_status"),
            (json!({"success_status": []}), "success_status"),
            (json!({"line_format": "xml"}), "line_format"),
            (json!({"compression": "gzip"}), "compression"),
            (json!({"structured_metadata": {"includes": []}}), "includes"),
            (json!({"no_such_option": 1}), "no_such_option"),
        ] {
            let error = decode(config.clone()).unwrap_err();
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
