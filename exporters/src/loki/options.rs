//! What the exporter can be told, as proven values.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::BatchOptions;

use super::compress::CompressionEncoder;

/// How a record becomes a stream and an entry, and how entries become requests.
#[derive(Clone, Debug)]
pub struct LokiOptions {
    /// Where labels come from.
    pub labels: LabelOptions,
    /// What the line is; a `loki.format` hint overrides it when labels come from hints.
    pub line_format: LineFormat,
    /// What goes into structured metadata.
    pub structured_metadata: MetadataOptions,
    /// Whom a record belongs to.
    pub tenant: TenantOptions,
    /// What Loki accepts; kept here so that it never has to refuse.
    pub limits: Limits,
    /// Streams that this exporter keeps active before it moves a label to structured metadata.
    /// Shared by all shards. Default 2000.
    pub streams_max: usize,
    /// How exact answers have to be.
    pub delivery: DeliveryMode,
    /// Size of a request before compression, framing included. Default 1.5 MiB; must stay below
    /// Loki's gRPC limit of 4 MiB.
    pub max_request_bytes: usize,
    /// An entry that is this much older than one before it in the same stream and request makes
    /// the stream be sorted; smaller steps back are accepted by Loki as they are. Default 1 min.
    pub reorder_tolerance: Duration,
    /// `sending_queue::batch`. Without it a request leaves at the next turn of its shard.
    pub batch: Option<BatchOptions>,
    /// Which encoder compresses.
    pub compression_encoder: CompressionEncoder,
    /// Where entries that will never be accepted are written, as JSON lines.
    pub dead_letter_file: Option<PathBuf>,
    /// Statuses that mean that everything was stored. Default 204 alone, as Loki answers.
    pub success_status: Vec<u16>,
}

impl Default for LokiOptions {
    fn default() -> LokiOptions {
        LokiOptions {
            labels: LabelOptions::Hints(DefaultLabels::default()),
            line_format: LineFormat::Json,
            structured_metadata: MetadataOptions::none(),
            tenant: TenantOptions::default(),
            limits: Limits::default(),
            streams_max: 2_000,
            delivery: DeliveryMode::default(),
            max_request_bytes: 1_536 << 10,
            reorder_tolerance: Duration::from_secs(60),
            batch: None,
            compression_encoder: CompressionEncoder::default(),
            dead_letter_file: None,
            success_status: vec![204],
        }
    }
}

/// Where labels come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LabelOptions {
    /// From the attributes `loki.resource.labels`, `loki.attribute.labels`, `loki.tenant` and
    /// `loki.format`, as the collector's exporter took them.
    Hints(DefaultLabels),
    /// As `labels` says.
    Mapping(LabelMapping),
}

/// `default_labels_enabled`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DefaultLabels {
    /// `exporter="OTLP"`.
    pub exporter: bool,
    /// `job` from `service.namespace` and `service.name`.
    pub job: bool,
    /// `instance` from `service.instance.id`.
    pub instance: bool,
    /// `level` from the severity number.
    pub level: bool,
}

impl Default for DefaultLabels {
    fn default() -> DefaultLabels {
        DefaultLabels {
            exporter: true,
            job: true,
            instance: true,
            level: true,
        }
    }
}

/// `labels`: names of labels and where their values come from. On equal names the later source
/// wins: static, resource, attributes, severity.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelMapping {
    /// Label and value.
    pub fixed: Vec<(String, String)>,
    /// Label and resource attribute.
    pub resource: Vec<(String, String)>,
    /// Label and record attribute.
    pub attributes: Vec<(String, String)>,
    /// The label that carries the level, derived from the severity number.
    pub severity: Option<String>,
}

/// What the line of an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LineFormat {
    /// The body as text.
    #[default]
    Raw,
    /// A JSON object with everything that is not a label.
    Json,
    /// Keys and values with everything that is not a label.
    Logfmt,
}

/// `structured_metadata`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataOptions {
    /// False: none.
    pub enabled: bool,
    /// Only these attributes; empty = all.
    pub include: Vec<String>,
    /// Not these attributes.
    pub exclude: Vec<String>,
}

impl MetadataOptions {
    /// No structured metadata.
    pub fn none() -> MetadataOptions {
        MetadataOptions {
            enabled: false,
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }

    /// Everything that is not a label.
    pub fn all() -> MetadataOptions {
        MetadataOptions {
            enabled: true,
            ..MetadataOptions::none()
        }
    }

    /// Whether the attribute `key` belongs into structured metadata.
    pub fn takes(&self, key: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|k| k == key);
        self.enabled && (self.include.is_empty() || listed(&self.include)) && !listed(&self.exclude)
    }
}

/// Whom a record belongs to: the first of these that gives something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TenantOptions {
    /// The resource attribute that holds the tenant.
    pub from_resource: Option<String>,
    /// The record attribute that holds the tenant.
    pub from_attribute: Option<String>,
    /// `tenant_id`: for records that name none.
    pub fixed: Option<Arc<str>>,
    /// `allow`: which tenants records may name, `*` for any characters; empty = any. What a record
    /// names may come from whoever wrote the line.
    pub allow: Vec<String>,
}

impl TenantOptions {
    /// Whether a record may belong to `tenant`. The one that is configured needs no allowance.
    pub fn admits(&self, tenant: &str) -> bool {
        self.allow.is_empty()
            || self.fixed.as_deref() == Some(tenant)
            || self.allow.iter().any(|pattern| fits(pattern, tenant))
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any characters.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

/// What to do with an entry outside the window of time that Loki accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OutsideWindow {
    /// Drop and count it.
    #[default]
    Drop,
    /// Give it the nearest time that is accepted.
    Clamp,
}

/// What to do with a line that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LineTooLong {
    /// Cut it and end it with a marker.
    #[default]
    Truncate,
    /// Drop and count the record.
    Drop,
}

/// `limits`: Loki's, with its defaults. They have to be those of the tenant.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// Longest line in bytes. Default 256 KiB.
    pub line_bytes_max: usize,
    /// What to do with a longer one.
    pub line_too_long: LineTooLong,
    /// Oldest entry. Zero (the default) = as Loki says when it refuses one: those that follow
    /// are then not sent. A refused entry costs only itself.
    pub age_max: Duration,
    /// Furthest in the future of our own clock. Zero (the default) = Loki decides: our clock may be
    /// the wrong one, and a refused entry costs only itself.
    pub future_max: Duration,
    /// What to do with others.
    pub outside_window: OutsideWindow,
    /// Most labels of a stream, `service_name` not counted. Default 15.
    pub label_names_max: usize,
    /// Longest label name in bytes. Default 1024.
    pub label_name_bytes_max: usize,
    /// Longest label value in bytes. Default 2048.
    pub label_value_bytes_max: usize,
    /// Most pairs of structured metadata of an entry. Default 128.
    pub metadata_pairs_max: usize,
    /// Most bytes of names and values of structured metadata of an entry. Default 64 KiB.
    pub metadata_bytes_max: usize,
    /// What a stream may take, per second. Default 3 MiB.
    pub stream_rate_bytes: u64,
    /// What a stream may take at once. Default 15 MiB.
    pub stream_burst_bytes: u64,
    /// How far an entry may be behind the newest of its stream. Default 1 h.
    pub behind_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line_bytes_max: 256 << 10,
            line_too_long: LineTooLong::default(),
            age_max: Duration::ZERO,
            future_max: Duration::ZERO,
            outside_window: OutsideWindow::default(),
            label_names_max: 15,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 2048,
            metadata_pairs_max: 128,
            metadata_bytes_max: 64 << 10,
            stream_rate_bytes: 3 << 20,
            stream_burst_bytes: 15 << 20,
            behind_max: Duration::from_secs(3600),
        }
    }
}

/// How exact answers have to be. Loki reports only what happened to the last stream of a request,
/// so a request with several streams can be answered with success though a stream was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeliveryMode {
    /// A request holds at most one stream that could be refused (it is new, far behind its newest
    /// entry, or near its rate limit) and that one stands last.
    #[default]
    Probed,
    /// Each request holds one stream, so every answer is exact. Costs a round trip per stream and
    /// turn, and compresses small streams badly.
    Verified,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_allowed_by_name_or_pattern() {
        for (pattern, text, want) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "", false),
            ("*", "", true),
            ("team-*", "team-1", true),
            ("team-*", "team-", true),
            ("team-*", "other-team-1", false),
            ("*-eu", "a-eu", true),
            ("*-eu", "a-eu-us", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("a*bb*b", "abb", false),
            ("**", "x", true),
        ] {
            assert_eq!(fits(pattern, text), want, "{pattern} {text}");
        }
        let mut options = TenantOptions::default();
        assert!(options.admits("whoever"));
        options.allow = vec!["team-*".into()];
        options.fixed = Some("rest".into());
        assert!(options.admits("team-1") && options.admits("rest") && !options.admits("whoever"));
    }
}
