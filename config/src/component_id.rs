//! Ids of components and pipelines, and the old spellings of component types.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;

/// Longest name in bytes, as in the collector.
const NAME_BYTES_MAX: usize = 1024;
/// Longest type in bytes, as in the collector.
const TYPE_BYTES_MAX: usize = 63;

/// Anything but separators, control characters and symbols.
static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[^\pZ\pC\pS]+$").expect("the pattern is a valid constant"));

/// The id of a component: `type` or `type/name`. Unique among the components of its kind.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ComponentId {
    kind: String,
    name: String,
}

/// Why a text is no id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdError {
    /// Nothing but blanks.
    #[error("id must not be empty")]
    Empty,
    /// `/x`.
    #[error("in {0:?} id: the part before / should not be empty")]
    NoType(String),
    /// `x/`.
    #[error("in {0:?} id: the part after / should not be empty")]
    NoName(String),
    /// A type that is not a letter followed by at most 62 letters, digits and underscores.
    #[error("in {id:?} id: invalid character(s) in type {part:?}")]
    Type {
        /// The whole id.
        id: String,
        /// The type.
        part: String,
    },
    /// A name with separators, control characters or symbols.
    #[error("in {id:?} id: invalid character(s) in name {part:?}")]
    Name {
        /// The whole id.
        id: String,
        /// The name.
        part: String,
    },
    /// A name of more than 1024 bytes.
    #[error("in an id: the name is longer than 1024 characters ({0} characters)")]
    NameLength(usize),
    /// A pipeline of another signal than traces, metrics and logs.
    #[error("in {id:?} id: unknown signal {signal:?}")]
    Signal {
        /// The whole id.
        id: String,
        /// The signal.
        signal: String,
    },
}

impl ComponentId {
    /// Reads `type[/name]`: split at the first `/`, both parts trimmed.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let (kind, name) = split(text)?;
        let mut bytes = kind.bytes();
        let valid = kind.len() <= TYPE_BYTES_MAX
            && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            return Err(IdError::Type {
                id: text.to_owned(),
                part: kind.to_owned(),
            });
        }
        Ok(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The type as written, such as `filelog`. See [`canonical_type`] for its present spelling.
    pub fn type_name(&self) -> &str {
        &self.kind
    }

    /// The name behind the `/`; empty if there is none.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.kind, &self.name)
    }
}

/// Splits an id and checks its name.
fn split(text: &str) -> Result<(&str, &str), IdError> {
    let (kind, name) = match text.split_once('/') {
        Some((kind, name)) => (kind.trim(), Some(name.trim())),
        None => (text.trim(), None),
    };
    match (kind, name) {
        ("", None) => return Err(IdError::Empty),
        ("", Some(_)) => return Err(IdError::NoType(text.to_owned())),
        (_, Some("")) => return Err(IdError::NoName(text.to_owned())),
        _ => {}
    }
    let name = name.unwrap_or_default();
    if name.len() > NAME_BYTES_MAX {
        return Err(IdError::NameLength(name.len()));
    }
    if !name.is_empty() && !NAME.is_match(name) {
        return Err(IdError::Name {
            id: text.to_owned(),
            part: name.to_owned(),
        });
    }
    Ok((kind, name))
}

fn show(f: &mut fmt::Formatter<'_>, first: &str, name: &str) -> fmt::Result {
    f.write_str(first)?;
    if !name.is_empty() {
        write!(f, "/{name}")?;
    }
    Ok(())
}

/// What a pipeline carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Measurements.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// All signals.
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

    /// The name as in ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id of a pipeline: `signal` or `signal/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PipelineId {
    /// What it carries.
    pub signal: Signal,
    /// The name behind the `/`; empty if there is none.
    pub name: String,
}

impl PipelineId {
    /// Reads `signal[/name]`: split at the first `/`, both parts trimmed.
    ///
    /// # Errors
    /// The rule that the text breaks. Profiles are an unknown signal here.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let (signal, name) = split(text)?;
        let known = Signal::ALL.into_iter().find(|s| s.as_str() == signal);
        let Some(signal) = known else {
            return Err(IdError::Signal {
                id: text.to_owned(),
                signal: signal.to_owned(),
            });
        };
        Ok(Self {
            signal,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for PipelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.signal.as_str(), &self.name)
    }
}

/// The kinds of components.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ComponentKind {
    /// Takes data in.
    Receiver,
    /// Changes data on its way.
    Processor,
    /// Sends data out.
    Exporter,
    /// Ends pipelines as an exporter and begins others as a receiver.
    Connector,
    /// Serves other components.
    Extension,
}

impl ComponentKind {
    /// All kinds.
    pub const ALL: [ComponentKind; 5] = [
        ComponentKind::Receiver,
        ComponentKind::Processor,
        ComponentKind::Exporter,
        ComponentKind::Connector,
        ComponentKind::Extension,
    ];

    /// The word for one of them, as in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            ComponentKind::Receiver => "receiver",
            ComponentKind::Processor => "processor",
            ComponentKind::Exporter => "exporter",
            ComponentKind::Connector => "connector",
            ComponentKind::Extension => "extension",
        }
    }

    /// The key of their section.
    pub fn section(self) -> &'static str {
        match self {
            ComponentKind::Receiver => "receivers",
            ComponentKind::Processor => "processors",
            ComponentKind::Exporter => "exporters",
            ComponentKind::Connector => "connectors",
            ComponentKind::Extension => "extensions",
        }
    }
}

impl fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Old spellings of types (renamed in the collector from v0.144 to v0.154) and the present ones.
const ALIASES: &[(ComponentKind, &str, &str)] = &[
    (ComponentKind::Receiver, "filelog", "file_log"),
    (ComponentKind::Receiver, "hostmetrics", "host_metrics"),
    (ComponentKind::Processor, "k8sattributes", "k8s_attributes"),
    (
        ComponentKind::Processor,
        "resourcedetection",
        "resource_detection",
    ),
    (ComponentKind::Processor, "logdedup", "log_dedup"),
    (
        ComponentKind::Exporter,
        "prometheusremotewrite",
        "prometheus_remote_write",
    ),
    (ComponentKind::Exporter, "otlp", "otlp_grpc"),
    (ComponentKind::Exporter, "otlphttp", "otlp_http"),
    (ComponentKind::Exporter, "loadbalancing", "load_balancing"),
    (ComponentKind::Connector, "spanmetrics", "span_metrics"),
    (ComponentKind::Connector, "servicegraph", "service_graph"),
];

/// The present spelling of a component's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CanonicalType<'a> {
    /// The spelling to look the component up by.
    pub name: &'a str,
    /// Whether the given spelling was an old one. The collector warns:
    /// `"filelog" alias is deprecated; use "file_log" instead`.
    pub is_alias: bool,
}

/// The older spellings of a type of a kind.
pub fn spellings(kind: ComponentKind, name: &str) -> Vec<&'static str> {
    let of_it = ALIASES
        .iter()
        .filter(|(k, _, new)| *k == kind && *new == name);
    of_it.map(|(_, old, _)| *old).collect()
}

/// The present spelling of a type of a kind. Types without an old spelling are given back.
pub fn canonical_type(kind: ComponentKind, name: &str) -> CanonicalType<'_> {
    let alias = ALIASES
        .iter()
        .find(|(k, old, _)| *k == kind && *old == name);
    match alias {
        Some((_, _, new)) => CanonicalType {
            name: new,
            is_alias: true,
        },
        None => CanonicalType {
            name,
            is_alias: false,
        },
    }
}
