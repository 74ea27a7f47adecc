//! The section of a `probabilistic_sampler` processor.

use tailwater_config::Section;
use tailwater_pdata::Key;

use super::probability::{DIGITS_MAX, LEAST};

/// How items are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// By a hash of 14 bits, whatever was sampled before.
    HashSeed,
    /// Down to the probability that is configured.
    Equalizing,
    /// The configured share of what comes, whatever was sampled before.
    Proportional,
}

/// What a `probabilistic_sampler` does.
#[derive(Clone, PartialEq, Debug)]
pub struct SamplerSettings {
    /// The percentage of items that are sampled; above 100 is the same as 100.
    pub sampling_percentage: f32,
    /// What hashes begin with, so that samplers one after another decide differently.
    pub hash_seed: u32,
    /// How.
    pub mode: Mode,
    /// Hexadecimal digits of thresholds, 1 to 14.
    pub precision: usize,
    /// Items about which nothing can be decided are not sampled.
    pub fail_closed: bool,
    /// Log records: hashes are of trace ids; else of `from_attribute` only.
    pub by_trace: bool,
    /// Log records: the attribute whose value is hashed where there is no trace id.
    pub from_attribute: Option<Key>,
    /// Log records: the attribute that names the percentage of its record.
    pub sampling_priority: Option<Key>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "sampling_percentage",
        "How much is passed on; above 100 is 100.",
    ),
    (
        "mode",
        "By a hash of 14 bits of the trace id; by its random bits, down to the percentage: what was sampled with a lower one before passes; or the percentage of what comes.",
    ),
    (
        "hash_seed",
        "What hashes begin with. Samplers one behind another need different ones, those side by side the same.",
    ),
    ("sampling_precision", "Hexadecimal digits of thresholds."),
    (
        "fail_closed",
        "What nothing can be decided about is left out: without a trace id, with a trace state or attributes that cannot be read or contradict it, or, with hash_seed, that say something about sampling.",
    ),
    (
        "attribute_source",
        "Of log records with hash_seed: what is hashed. record: only `from_attribute`.",
    ),
    (
        "from_attribute",
        "Of log records with hash_seed: the attribute that is hashed where there is no trace id.",
    ),
    (
        "sampling_priority",
        "Of log records: an attribute with a percentage of its own, above 0 and up to 100.",
    ),
];

impl SamplerSettings {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> SamplerSettings {
        s.describe(OPTIONS);
        let modes = [
            ("hash_seed", Mode::HashSeed),
            ("equalizing", Mode::Equalizing),
            ("proportional", Mode::Proportional),
        ];
        let text = |key: Option<String>| key.filter(|k| !k.is_empty()).map(Key::from);
        let settings = SamplerSettings {
            sampling_percentage: percentage(s),
            hash_seed: s.u64("hash_seed", 0, ..=u64::from(u32::MAX)) as u32,
            mode: s.choice("mode", &modes, Mode::HashSeed),
            precision: s.usize("sampling_precision", 4, 1..=DIGITS_MAX),
            fail_closed: s.bool("fail_closed", true),
            by_trace: s.choice(
                "attribute_source",
                &[("traceID", true), ("record", false)],
                true,
            ),
            from_attribute: text(s.string_optional("from_attribute")),
            sampling_priority: text(s.string_optional("sampling_priority")),
        };
        if settings.mode != Mode::HashSeed {
            for key in ["hash_seed", "attribute_source", "from_attribute"] {
                if s.has(key) {
                    s.warn(key, "has no effect but in mode: hash_seed");
                }
            }
        }
        settings
    }
}

fn percentage(s: &mut Section<'_, '_>) -> f32 {
    let percentage = s.f64("sampling_percentage", 0.0, 0.0..) as f32;
    if !percentage.is_finite() {
        s.invalid("sampling_percentage", "must be a number");
    } else if percentage > 0.0 && f64::from(percentage) / 100.0 < LEAST {
        s.invalid(
            "sampling_percentage",
            "is too small: leave it 0, or name one from 1.4e-15 on",
        );
    }
    percentage
}
