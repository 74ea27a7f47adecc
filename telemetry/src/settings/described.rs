//! What the options of `service::telemetry` do, for whoever reads or writes them.

/// Of the section.
pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("logs", "The agent's own log."),
    (
        "metrics",
        "The agent's own metrics, at `/metrics`. Pushing is refused.",
    ),
    ("traces", "The agent makes no traces of itself."),
    (
        "resource",
        "Attributes of the agent itself, as a map, or as `attributes`.",
    ),
    (
        "resource::NAME",
        "An attribute; null removes one that is there by default.",
    ),
    (
        "resource::attributes",
        "Attributes as a list; as text, an attribute of that name.",
    ),
    ("resource::attributes::0::name", "Name of the attribute."),
    ("resource::attributes::0::value", "Its value."),
    (
        "resource::attributes::0::type",
        "The value's own type is used.",
    ),
    ("resource::schema_url", "Has nothing to act on."),
    ("traces::level", "Has nothing to act on."),
    ("traces::propagators", "Has nothing to act on."),
];

/// Of `logs`.
pub(super) const LOGS: &[(&str, &str)] = &[
    (
        "development",
        "Accepted with a warning: it changes how panics and stack traces are logged.",
    ),
    ("disable_stacktrace", "Has nothing to act on."),
    (
        "level",
        "debug, info, warn, error; dpanic, panic and fatal show nothing. info unless set.",
    ),
    ("encoding", "For people, or a line of JSON."),
    (
        "sampling",
        "How many lines of each place in the code are written: `initial` in each `tick`, then one of `thereafter`.",
    ),
    ("sampling::enabled", "False: all are written."),
    ("sampling::tick", "The time in which they are counted."),
    ("sampling::initial", "How many are written."),
    (
        "sampling::thereafter",
        "Of what comes then, every how many one is written; 0 = none.",
    ),
    ("output_paths", "Files, stdout, stderr; stderr unless set."),
    (
        "error_output_paths",
        "Where errors of the log itself go; stderr unless set.",
    ),
    ("initial_fields", "Fields of every line."),
    (
        "disable_caller",
        "Lines do not say where in the code they were written.",
    ),
];

/// Of `metrics`.
pub(super) const METRICS: &[(&str, &str)] = &[
    ("level", "How much is measured; none serves nothing."),
    ("address", "The older form of a reader: `host:port`."),
    (
        "readers",
        "Where metrics are served; `localhost:8888` unless set.",
    ),
    ("readers::0::pull", "A reader that is asked."),
    (
        "readers::0::pull::exporter",
        "How it answers; only prometheus.",
    ),
    (
        "readers::0::pull::exporter::prometheus",
        "In the format of Prometheus.",
    ),
    (
        "readers::0::pull::exporter::prometheus/development",
        "In the format of Prometheus.",
    ),
];

/// Of a reader of Prometheus.
pub(super) const PROMETHEUS: &[(&str, &str)] = &[
    (
        "with_resource_constant_labels",
        "Attributes of the resource that are labels of all series.",
    ),
    (
        "with_resource_constant_labels::included",
        "Names of those that are, with `*` for any characters.",
    ),
    (
        "with_resource_constant_labels::excluded",
        "Names of those that are not.",
    ),
    ("port", "The port."),
    ("host", "The host."),
    ("without_type_suffix", "No `_total` behind names."),
    ("without_units", "No units behind names."),
    ("without_scope_info", "No labels of the scope."),
];
