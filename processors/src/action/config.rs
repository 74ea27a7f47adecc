//! Actions as they are written: `actions` of `attributes`, `attributes` of `resource`.

use regex::Regex;
use tailwater_config::{ConfigError, Errors, Node, NodeValue, Section, nearest};
use tailwater_pdata::{Key, Map, Value};
use tailwater_pipeline::client::ContextKey;

use super::{Action, ConvertTo, Origin, Put, Source};

const ACTIONS: [&str; 7] = [
    "insert", "update", "upsert", "delete", "hash", "extract", "convert",
];
const VALUE_OPTIONS: [&str; 4] = ["value", "from_attribute", "from_context", "default_value"];

/// Actions as written.
#[derive(Clone, Debug, Default)]
pub struct ActionsConfig {
    actions: Vec<Action>,
    /// Mistakes the collector finds when it creates the processor, not when it reads its section.
    refused: Vec<ConfigError>,
}

impl ActionsConfig {
    /// The actions, in order, for use.
    pub fn for_use(self, errors: &mut Errors) -> Vec<Action> {
        for error in self.refused {
            errors.push(error);
        }
        self.actions
    }
}

/// The actions under `key`, in order. Missing and empty lists are mistakes, as in the collector.
pub fn decode_actions(section: &mut Section<'_, '_>, key: &str) -> ActionsConfig {
    let mut refused = Vec::new();
    let decoded = section.section_list(key, |s| decode_action(s, &mut refused));
    if decoded.as_ref().is_none_or(Vec::is_empty) {
        section.invalid(key, "is required: at least one action must be specified");
    }
    let actions = decoded.unwrap_or_default().into_iter().flatten().collect();
    ActionsConfig { actions, refused }
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "action",
        "insert (if there is none), update (if there is one), upsert, delete, hash (SHA-256), extract (groups of `pattern` become attributes), convert.",
    ),
    ("key", "The attribute. Of delete and hash, it or `pattern`."),
    (
        "value",
        "Of insert, update and upsert: what is set; one of `value`, `from_attribute` and `from_context`.",
    ),
    ("from_attribute", "The attribute with what is set."),
    (
        "from_context",
        "What is known of the client: `metadata.NAME` or `NAME` alone, a header, if the receiver has `include_metadata`; `client.address`; `auth.username`, `auth.raw`.",
    ),
    (
        "default_value",
        "What is set where `from_attribute` or `from_context` gives nothing.",
    ),
    (
        "pattern",
        "Of delete and hash: which attributes. Of extract: an expression with named groups.",
    ),
    ("converted_type", "Of convert: what the value becomes."),
];

/// One action with all its options read; mistakes are in the section or in `refused`.
fn decode_action(s: &mut Section<'_, '_>, refused: &mut Vec<ConfigError>) -> Option<Action> {
    s.describe(OPTIONS);
    let written = s.string_required("action");
    let options = Options::read(s);
    let written = written?;
    let name = written.to_lowercase();
    let put = match name.as_str() {
        "insert" => Put::Insert,
        "update" => Put::Update,
        "upsert" => Put::Upsert,
        "delete" | "hash" => return decode_by_name(s, &name, options),
        "extract" => return decode_extract(s, options, refused),
        "convert" => return decode_convert(s, options),
        _ => {
            let error = ConfigError::new(s.span_of("action"), s.path().child("action"), "")
                .found(format!("{written:?}"))
                .allowed(ACTIONS.join(", "))
                .suggest(nearest(&name, ACTIONS));
            s.errors().push(error);
            return None;
        }
    };
    unused(s, &name, &["pattern", "converted_type"]);
    let source = options.source(s);
    Some(Action::Put {
        key: options.key(s)?,
        put,
        source: source?,
    })
}

/// All options an action may have, so that none is unknown to any of them.
struct Options {
    key: Option<String>,
    value: Option<Value>,
    from_attribute: Option<String>,
    from_context: Option<String>,
    default: Option<Value>,
    pattern: Option<String>,
    converted_type: Option<ConvertTo>,
}

impl Options {
    fn read(s: &mut Section<'_, '_>) -> Options {
        let types = [
            ("string", ConvertTo::String),
            ("int", ConvertTo::Int),
            ("double", ConvertTo::Double),
        ];
        let text = |t: Option<String>| t.filter(|t| !t.is_empty());
        let value = |n: Option<&Node>| n.filter(|n| !n.is_null()).map(value_of);
        Options {
            key: text(s.string_optional("key")),
            value: value(s.node("value")),
            from_attribute: text(s.string_optional("from_attribute")),
            from_context: text(s.string_optional("from_context")),
            default: value(s.node("default_value")),
            pattern: text(s.string_optional("pattern")),
            converted_type: s.choice_optional("converted_type", &types),
        }
    }

    fn key(&self, s: &mut Section<'_, '_>) -> Option<Key> {
        if self.key.is_none() {
            s.invalid("key", "is required");
        }
        self.key.as_deref().map(Key::from)
    }

    /// Exactly one of the three origins of a value.
    fn source(&self, s: &mut Section<'_, '_>) -> Option<Source> {
        let value = self.value.clone().map(Origin::Value);
        let attribute = self
            .from_attribute
            .as_deref()
            .map(|a| Origin::Attribute(a.into()));
        let context = self.from_context.as_deref();
        let context = context.map(|key| Origin::Context(ContextKey::parse(key)));
        let mut given = [value, attribute, context].into_iter().flatten();
        let (Some(origin), None) = (given.next(), given.next()) else {
            s.error(
                "exactly one of \"value\", \"from_attribute\" and \"from_context\" must be \
                 specified for this action",
            );
            return None;
        };
        if matches!(origin, Origin::Value(_)) && self.default.is_some() {
            s.warn("default_value", "has no effect beside value");
        }
        Some(Source {
            origin,
            default: self.default.clone(),
        })
    }
}

/// Reports options that are given although the action has no use for them.
fn unused(s: &mut Section<'_, '_>, action: &str, options: &[&str]) {
    for option in options {
        if s.is_given(option) {
            s.invalid(option, format!("the action {action:?} does not use it"));
        }
    }
}

fn decode_by_name(s: &mut Section<'_, '_>, name: &str, options: Options) -> Option<Action> {
    unused(s, name, &VALUE_OPTIONS);
    unused(s, name, &["converted_type"]);
    if options.key.is_none() && options.pattern.is_none() {
        s.error(format!(
            "\"key\" or \"pattern\" must be specified for the action {name:?}"
        ));
        return None;
    }
    let key = options.key.as_deref().map(Key::from);
    let pattern = match options.pattern {
        Some(text) => Some(compile(s, &text, Regex::new)?),
        None => None,
    };
    Some(match name {
        "delete" => Action::Delete { key, pattern },
        _ => Action::Hash { key, pattern },
    })
}

fn decode_extract(
    s: &mut Section<'_, '_>,
    options: Options,
    refused: &mut Vec<ConfigError>,
) -> Option<Action> {
    unused(s, "extract", &VALUE_OPTIONS);
    unused(s, "extract", &["converted_type"]);
    let key = options.key(s);
    let Some(text) = &options.pattern else {
        s.invalid("pattern", "must be specified for the action \"extract\"");
        return None;
    };
    let pattern = compile(s, text, regex::bytes::Regex::new)?;
    let names: Vec<Option<&str>> = pattern.capture_names().skip(1).collect();
    if names.is_empty() || names.iter().any(Option::is_none) {
        let why = "needs at least one group, and every group needs a name: (?P<name>...), or \
                   (?:...) for a group that is not wanted";
        refused.push(ConfigError::new(
            s.span_of("pattern"),
            s.path().child("pattern"),
            why,
        ));
        return None;
    }
    let targets = names.into_iter().flatten().map(Key::from).collect();
    Some(Action::Extract {
        key: key?,
        pattern,
        targets,
    })
}

fn decode_convert(s: &mut Section<'_, '_>, options: Options) -> Option<Action> {
    unused(s, "convert", &VALUE_OPTIONS);
    unused(s, "convert", &["pattern"]);
    let key = options.key(s);
    if !s.has("converted_type") {
        s.invalid("converted_type", "must be specified: string, int or double");
    }
    Some(Action::Convert {
        key: key?,
        to: options.converted_type?,
    })
}

fn compile<R>(
    s: &mut Section<'_, '_>,
    text: &str,
    compile: impl Fn(&str) -> Result<R, regex::Error>,
) -> Option<R> {
    match compile(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            s.invalid(
                "pattern",
                format!("is not a valid regular expression: {error}"),
            );
            None
        }
    }
}

/// A value of the configuration as an attribute's value, with the type it has in YAML.
pub(crate) fn value_of(node: &Node) -> Value {
    match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(b) => Value::Bool(*b),
        NodeValue::Int(i) => Value::Int(*i),
        NodeValue::Float(d) => Value::Double(*d),
        NodeValue::Str(text) => Value::str(text),
        NodeValue::List(items) => Value::List(items.iter().map(value_of).collect()),
        NodeValue::Map(entries) => {
            let pair =
                |(k, v): &(tailwater_config::Key, Node)| (k.text.as_str().into(), value_of(v));
            Value::Map(
                entries
                    .iter()
                    .map(pair)
                    .collect::<Vec<(Key, Value)>>()
                    .into_iter()
                    .collect::<Map>(),
            )
        }
    }
}
