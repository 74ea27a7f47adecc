//! The section of a `log_dedup` processor.

use std::time::Duration;

use tailwater_config::{ConfigError, Section};
use tailwater_golang::strptime::Zone;
use tailwater_ottl::Context;
use tailwater_pdata::Key;

use super::fields::{Field, Fields};
use crate::ottl::{ConditionGroup, ErrorMode, conditions_of};

/// Bytes of memory of held records at which all of them are passed on before their time.
const HELD_BYTES_MAX: u64 = 64 << 20;
/// Clients of OTLP wait 5 to 10 s for an answer if nothing else is said.
const CLIENTS_WAIT: Duration = Duration::from_secs(5);
const CONTEXTS: &[Context] = &[Context::Resource, Context::Scope, Context::Log];

/// When senders are told that their records are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Acknowledge {
    /// When the records that they became were delivered.
    #[default]
    Delivered,
    /// When they are held.
    Held,
}

/// What the time of a record is that others were merged into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampMode {
    /// When it was passed on.
    Observed,
    /// That of the first of them.
    Preserved,
}

/// The section of a `log_dedup` processor.
#[derive(Clone, Debug)]
pub struct LogDedupConfig {
    /// How long records wait at most.
    pub interval: Duration,
    /// The attribute that says how many records became one.
    pub count_attribute: Key,
    /// The zone of the times in attributes.
    pub zone: Zone,
    /// What records are merged for which one of them holds; all, without any.
    pub conditions: Option<ConditionGroup>,
    /// What makes records the same.
    pub fields: Fields,
    /// What their time is.
    pub timestamp_mode: TimestampMode,
    /// Keys of the client's metadata that keep records apart, in lower case.
    pub metadata_keys: Vec<String>,
    /// Combinations of metadata at which all is passed on early; 0: no limit.
    pub metadata_cardinality_limit: usize,
    /// When senders are told.
    pub acknowledge: Acknowledge,
    /// Bytes of memory of held records at which all are passed on.
    pub held_bytes_max: u64,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "interval",
        "How long records wait at most; intervals are counted from the start of the agent.",
    ),
    (
        "log_count_attribute",
        "The attribute that says how many they were.",
    ),
    (
        "timezone",
        "Of the times in attributes; a name of the IANA database.",
    ),
    (
        "conditions",
        "Conditions of OTTL in the context `log`; only records for which one of them holds are merged, the others pass at once. One that cannot be told does not hold.",
    ),
    (
        "exclude_fields",
        "Fields that do not count and are removed: `body.a.b`, `attributes.key`, `attributes`; a dot in a key is written `\\.`.",
    ),
    (
        "include_fields",
        "Only these count, as text; of a record that has none of them, all.",
    ),
    (
        "timestamp_mode",
        "The time of the record: that at which it is passed on, 1 ns apart for each; or that of the first of them, and `last_event_timestamp` says that of the last one.",
    ),
    (
        "metadata_keys",
        "Records whose senders differ in these headers stay apart; needs `include_metadata` of a receiver.",
    ),
    (
        "metadata_cardinality_limit",
        "Combinations of these at which everything is passed on early; 0 = no limit but `held_bytes_max`.",
    ),
    (
        "acknowledge",
        "own: When sources are told: when the record was delivered that theirs became, or at once.",
    ),
    (
        "held_bytes_max",
        "own: When held records take so much memory, all of them are passed on early, and that is counted.",
    ),
];

impl LogDedupConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> LogDedupConfig {
        s.describe(OPTIONS);
        let interval = s.duration("interval", Duration::from_secs(10));
        if interval.is_zero() {
            s.invalid("interval", "must be greater than 0");
        }
        let count_attribute = s.string("log_count_attribute", "log_count");
        if count_attribute.is_empty() {
            s.invalid("log_count_attribute", "must be set");
        }
        let name = s.string("timezone", "UTC");
        let zone = Zone::named(&name).unwrap_or_else(|why| {
            s.invalid("timezone", why.to_string());
            Zone::utc()
        });
        let (exclude, include) = (fields(s, "exclude_fields"), fields(s, "include_fields"));
        if !exclude.is_empty() && !include.is_empty() {
            s.invalid(
                "include_fields",
                "cannot be used together with exclude_fields",
            );
        }
        let modes = [
            ("observed", TimestampMode::Observed),
            ("preserved", TimestampMode::Preserved),
        ];
        let when = [
            ("delivered", Acknowledge::Delivered),
            ("held", Acknowledge::Held),
        ];
        if !s.has("acknowledge") && interval >= CLIENTS_WAIT {
            s.warn(
                "interval",
                "senders of OTLP are answered when their records are delivered, up to an interval later; many wait \
                 for 5 to 10s only and then send again. Let them and the receiver's limits wait longer, or set \
                 acknowledge: held, which answers at once (what is held is lost if the agent is killed). \
                 acknowledge: delivered is right for files and silences this",
            );
        }
        LogDedupConfig {
            interval,
            count_attribute: count_attribute.into(),
            zone,
            conditions: conditions_of(s, "conditions", (Context::Log, CONTEXTS), ErrorMode::Ignore),
            fields: match (exclude.is_empty(), include.is_empty()) {
                (false, _) => Fields::Without(exclude),
                (_, false) => Fields::Only(include),
                _ => Fields::All,
            },
            timestamp_mode: s.choice("timestamp_mode", &modes, TimestampMode::Observed),
            metadata_keys: metadata_keys(s),
            metadata_cardinality_limit: s.usize(
                "metadata_cardinality_limit",
                0,
                ..=u32::MAX as usize,
            ),
            acknowledge: s.choice("acknowledge", &when, Acknowledge::default()),
            held_bytes_max: s.byte_size("held_bytes_max", HELD_BYTES_MAX, 1..),
        }
    }
}

fn metadata_keys(s: &mut Section<'_, '_>) -> Vec<String> {
    let mut keys = Vec::new();
    for key in s.string_list("metadata_keys").unwrap_or_default() {
        let key = key.to_lowercase();
        if keys.contains(&key) {
            s.invalid(
                "metadata_keys",
                format!("duplicate entry {key:?} (case does not count)"),
            );
        }
        keys.push(key);
    }
    keys
}

/// A list of fields, as `body.a.b` and `attributes.host\.name`.
fn fields(s: &mut Section<'_, '_>, key: &str) -> Vec<Field> {
    let path = s.path().child(key);
    let written = s.text_nodes(key).unwrap_or_default();
    let mut fields = Vec::with_capacity(written.len());
    for (i, (text, node)) in written.iter().enumerate() {
        let twice = written[..i].iter().any(|(before, _)| before == text);
        let field = match Field::parse(text) {
            Ok(_) if twice => Err("is there twice".to_owned()),
            Ok(Field::Attributes(names)) if names.is_empty() && key == "include_fields" => Err(
                "all attributes cannot be named: without include_fields, all of a record counts"
                    .to_owned(),
            ),
            other => other,
        };
        match field {
            Ok(field) => fields.push(field),
            Err(why) => {
                let error = ConfigError::new(node.span.clone(), path.child(i), why);
                s.errors().push(error.found(format!("{text:?}")));
            }
        }
    }
    fields
}
