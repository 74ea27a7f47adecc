//! The section of a `metricstransform` processor.

use regex::Regex;
use tailwater_config::Section;

use crate::streams::aggregate::Aggregation;

/// What stands for the version of the agent in new values.
const VERSION: &str = "{{version}}";

/// A change of metrics.
#[derive(Clone, Debug)]
pub struct Transform {
    /// Which metrics, and which of their points.
    pub filter: Filter,
    /// What is done with them.
    pub action: Action,
    /// What they are called then; empty: as before.
    pub new_name: String,
    /// What is done with what came of that, in order.
    pub operations: Vec<Operation>,
}

/// Names, and what labels must be.
#[derive(Clone, Debug)]
pub struct Filter {
    /// `include`.
    pub name: Text,
    /// `experimental_match_labels`: a label that is missing counts as empty.
    pub labels: Vec<(String, Text)>,
}

/// A condition on a text.
#[derive(Clone, Debug)]
pub enum Text {
    /// Equal.
    Strict(String),
    /// Somewhere in it.
    Regexp(Regex),
}

impl Text {
    /// Whether the text is meant.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Text::Strict(wanted) => wanted == text,
            Text::Regexp(pattern) => pattern.is_match(text),
        }
    }
}

/// What is done with the metrics that are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// They are changed.
    Update,
    /// Copies of them are changed.
    Insert,
    /// They become one.
    Combine {
        /// How points with equal labels and times become one.
        aggregation: Option<Aggregation>,
        /// What becomes of texts that groups of the expression found.
        case: Option<Case>,
    },
    /// They get a resource of their own, with these attributes besides.
    Group(Vec<(String, String)>),
}

/// Letters of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Small ones.
    Lower,
    /// Capital ones.
    Upper,
}

impl Case {
    /// The text in this case.
    pub fn of(self, text: &str) -> String {
        match self {
            Case::Lower => text.to_lowercase(),
            Case::Upper => text.to_uppercase(),
        }
    }
}

/// What is done with a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Points without the label get it.
    AddLabel {
        /// The label.
        label: String,
        /// Its value.
        value: String,
    },
    /// The label is renamed, then its values are.
    UpdateLabel {
        /// The label.
        label: String,
        /// Its new name; empty: as before.
        new_label: String,
        /// Values and what they become.
        values: Vec<(String, String)>,
    },
    /// Points with this value of the label are left out.
    DeleteLabelValue {
        /// The label.
        label: String,
        /// The value.
        value: String,
    },
    /// Integers become doubles and the other way round.
    ToggleScalarDataType,
    /// Values are multiplied.
    ScaleValue(f64),
    /// Other labels are left out, and points that are equal then become one.
    AggregateLabels {
        /// What stays.
        labels: Vec<String>,
        /// How points become one.
        aggregation: Option<Aggregation>,
    },
    /// These values of the label become one, and points that are equal then become one.
    AggregateLabelValues {
        /// The label.
        label: String,
        /// The values.
        values: Vec<String>,
        /// What they become.
        new_value: String,
        /// How points become one.
        aggregation: Option<Aggregation>,
    },
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "transforms",
        "Applied in order, each to what the earlier ones left.",
    ),
    ("transforms::0::include", "Name of metrics. Required."),
    (
        "transforms::0::match_type",
        "How names and labels are compared: as they are, or as expressions that match somewhere in them.",
    ),
    (
        "transforms::0::experimental_match_labels",
        "Labels and their values; a label that is missing counts as empty.",
    ),
    (
        "transforms::0::action",
        "Change the metrics, change a copy, make one of all (if type, temporality, unit and labels are the same; else they stay, and are counted), or give them a resource of their own. Required.",
    ),
    (
        "transforms::0::new_name",
        "Required for insert and combine; with regexp, `$1`, `${1}` and `${name}` are what groups found (in YAML, `$$1` and so on).",
    ),
    (
        "transforms::0::group_resource_labels",
        "Required for group: attributes of the new resource, besides those of the old one.",
    ),
    (
        "transforms::0::aggregation_type",
        "For combine: how values become one; none keeps the first value. Histograms are always added.",
    ),
    (
        "transforms::0::submatch_case",
        "For combine: the case of what groups of `include` found, which becomes labels, by the name of the group or `$1`; as found unless set.",
    ),
    (
        "transforms::0::operations",
        "What is done to each metric, in order.",
    ),
];

/// Reads `transforms`; mistakes are in the section.
pub fn decode(s: &mut Section<'_, '_>) -> Vec<Transform> {
    s.describe(OPTIONS);
    let transforms = s.section_list("transforms", transform);
    transforms
        .unwrap_or_default()
        .into_iter()
        .flatten()
        .collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Insert,
    Update,
    Combine,
    Group,
}

fn transform(s: &mut Section<'_, '_>) -> Option<Transform> {
    let kinds = [
        ("insert", Kind::Insert),
        ("update", Kind::Update),
        ("combine", Kind::Combine),
        ("group", Kind::Group),
    ];
    let filter = filter(s);
    let kind = required_choice(s, "action", &kinds);
    let new_name = s.string("new_name", "");
    let labels = s.string_map("group_resource_labels");
    let aggregation = aggregation(s);
    let cases = [("lower", Case::Lower), ("upper", Case::Upper)];
    let case = s.choice_optional("submatch_case", &cases);
    let operations = s.section_list("operations", operation).unwrap_or_default();
    let mut needs = |key: &str, given: bool, action: &str| {
        if !given {
            s.invalid(key, format!("is required with action {action}"));
        }
    };
    let action = match kind? {
        Kind::Update => Action::Update,
        Kind::Insert => {
            needs("new_name", !new_name.is_empty(), "insert");
            Action::Insert
        }
        Kind::Combine => {
            needs("new_name", !new_name.is_empty(), "combine");
            Action::Combine { aggregation, case }
        }
        Kind::Group => {
            needs("group_resource_labels", labels.is_some(), "group");
            Action::Group(labels.unwrap_or_default())
        }
    };
    Some(Transform {
        filter: filter?,
        action,
        new_name,
        operations: operations.into_iter().flatten().collect(),
    })
}

fn required_choice<T: Clone>(
    s: &mut Section<'_, '_>,
    key: &str,
    choices: &[(&str, T)],
) -> Option<T> {
    if !s.is_given(key) {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        s.invalid(key, format!("is required; allowed: {}", names.join(", ")));
    }
    s.choice_optional(key, choices)
}

fn filter(s: &mut Section<'_, '_>) -> Option<Filter> {
    let regexp = s.choice("match_type", &[("strict", false), ("regexp", true)], false);
    let include = s.string("include", "");
    if include.is_empty() {
        s.invalid("include", "is required");
    }
    let labels = s
        .string_map("experimental_match_labels")
        .unwrap_or_default();
    let mut text = |key: &str, text: String| match regexp {
        false => Some(Text::Strict(text)),
        true => match Regex::new(&text) {
            Ok(pattern) => Some(Text::Regexp(pattern)),
            Err(error) => {
                let why = format!("{text:?} is not a valid regular expression: {error}");
                s.invalid(key, why);
                None
            }
        },
    };
    let name = text("include", include);
    let labels = labels
        .into_iter()
        .map(|(label, value)| Some((label, text("experimental_match_labels", value)?)));
    Some(Filter {
        labels: labels.collect::<Option<_>>()?,
        name: name?,
    })
}

fn aggregation(s: &mut Section<'_, '_>) -> Option<Aggregation> {
    s.choice_optional("aggregation_type", &Aggregation::NAMES)
}

#[derive(Clone, Copy)]
enum OperationKind {
    AddLabel,
    UpdateLabel,
    DeleteLabelValue,
    ToggleScalarDataType,
    ScaleValue,
    AggregateLabels,
    AggregateLabelValues,
}

/// What its options do.
const OPERATION: &[(&str, &str)] = &[
    ("action", "What is done. Required."),
    (
        "label",
        "Of update_label, delete_label_value and aggregate_label_values: the label.",
    ),
    (
        "new_label",
        "Of add_label: the label, unless it is there. Of update_label: its new name.",
    ),
    (
        "new_value",
        "Of add_label: its value. Of aggregate_label_values: the value of all. `{{version}}` in it is the version of the agent.",
    ),
    (
        "label_value",
        "Of delete_label_value: points with this value are left out.",
    ),
    ("label_set", "Of aggregate_labels: labels that stay."),
    (
        "aggregated_values",
        "Of aggregate_label_values: the values that become one.",
    ),
    (
        "aggregation_type",
        "Of aggregate_labels and aggregate_label_values: how values become one.",
    ),
    (
        "experimental_scale",
        "Of experimental_scale_value: what values of gauges and sums, and sum, extremes, bounds and exemplars of histograms are multiplied by.",
    ),
    ("value_actions", "Of update_label: values that are renamed."),
    ("value_actions::0::value", "The old value."),
    ("value_actions::0::new_value", "The new one."),
];

/// As all options are known for each action, those it has no use for are only checked.
fn operation(s: &mut Section<'_, '_>) -> Option<Operation> {
    s.describe(OPERATION);
    use OperationKind as Kind;
    let kinds = [
        ("add_label", Kind::AddLabel),
        ("update_label", Kind::UpdateLabel),
        ("delete_label_value", Kind::DeleteLabelValue),
        ("toggle_scalar_data_type", Kind::ToggleScalarDataType),
        ("experimental_scale_value", Kind::ScaleValue),
        ("aggregate_labels", Kind::AggregateLabels),
        ("aggregate_label_values", Kind::AggregateLabelValues),
    ];
    let kind = required_choice(s, "action", &kinds);
    let label = s.string("label", "");
    let new_label = s.string("new_label", "");
    let new_value = version(&s.string("new_value", ""));
    let label_value = s.string("label_value", "");
    let label_set = s.string_list("label_set").unwrap_or_default();
    let aggregated = s.string_list("aggregated_values").unwrap_or_default();
    let aggregation = aggregation(s);
    let scale = s.f64("experimental_scale", 0.0, ..);
    let values = s.section_list("value_actions", |v| {
        (v.string("value", ""), version(&v.string("new_value", "")))
    });
    let mut needs = |key: &str, given: bool, action: &str| {
        if !given {
            s.invalid(key, format!("is required with action {action}"));
        }
    };
    Some(match kind? {
        Kind::AddLabel => {
            needs("new_label", !new_label.is_empty(), "add_label");
            needs("new_value", !new_value.is_empty(), "add_label");
            Operation::AddLabel {
                label: new_label,
                value: new_value,
            }
        }
        Kind::UpdateLabel => {
            needs("label", !label.is_empty(), "update_label");
            Operation::UpdateLabel {
                label,
                new_label,
                values: values.unwrap_or_default(),
            }
        }
        Kind::DeleteLabelValue => {
            needs("label", !label.is_empty(), "delete_label_value");
            Operation::DeleteLabelValue {
                label,
                value: label_value,
            }
        }
        Kind::ToggleScalarDataType => Operation::ToggleScalarDataType,
        Kind::ScaleValue => {
            needs(
                "experimental_scale",
                scale != 0.0,
                "experimental_scale_value",
            );
            Operation::ScaleValue(scale)
        }
        Kind::AggregateLabels => Operation::AggregateLabels {
            labels: label_set,
            aggregation,
        },
        Kind::AggregateLabelValues => {
            needs("label", !label.is_empty(), "aggregate_label_values");
            Operation::AggregateLabelValues {
                label,
                values: aggregated,
                new_value,
                aggregation,
            }
        }
    })
}

fn version(text: &str) -> String {
    text.replace(VERSION, env!("CARGO_PKG_VERSION"))
}
