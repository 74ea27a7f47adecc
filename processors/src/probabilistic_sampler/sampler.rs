//! What becomes of an item, in each mode.

use super::config::{Mode, SamplerSettings};
use super::probability::{Randomness, Threshold};

/// What an item says about how it was sampled before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Carried {
    /// With which threshold.
    pub threshold: Option<Threshold>,
    /// What it has instead of the randomness of its trace id.
    pub randomness: Option<Randomness>,
}

/// What decided; the label `policy` of the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Policy {
    TraceIdHash,
    TraceId,
    Randomness,
    Priority,
    Missing,
    /// The attribute that is configured.
    Attribute,
}

impl Policy {
    pub const ALL: [Policy; 6] = [
        Policy::TraceIdHash,
        Policy::TraceId,
        Policy::Randomness,
        Policy::Priority,
        Policy::Missing,
        Policy::Attribute,
    ];
    pub const COUNT: usize = Policy::ALL.len();

    /// The label's value; `attribute` is the one that is configured.
    pub fn name(self, attribute: &str) -> &str {
        match self {
            Policy::TraceIdHash => "trace_id_hash",
            Policy::TraceId => "trace_id_w3c",
            Policy::Randomness => "sampling_randomness",
            Policy::Priority => "sampling_priority",
            Policy::Missing => "missing_randomness",
            Policy::Attribute => attribute,
        }
    }
}

/// An item as a sampler sees it.
pub(super) struct Item<'a> {
    /// Its trace id, if it has one.
    pub trace_id: Option<[u8; 16]>,
    /// What it says about sampling, and whether all of that could be read.
    pub carried: (Carried, bool),
    /// What decides by hash if no trace id does.
    pub attribute: Option<&'a [u8]>,
    /// What it asks for, whatever the sampler says.
    pub priority: Option<Threshold>,
    /// A span without a trace id is told to have the highest randomness when it is hashed.
    pub is_span: bool,
}

/// What becomes of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Judgement {
    pub sampled: bool,
    pub policy: Policy,
    /// What a sampled item says about sampling from now on; `None` = as before.
    pub carried: Option<Carried>,
}

enum Method {
    /// Nothing is sampled but what asks for it.
    Never,
    Hash(Threshold),
    Equalizing(Threshold),
    Proportional(f64),
}

/// Decides about items of one signal.
pub(super) struct Sampler {
    method: Method,
    seed: u32,
    precision: usize,
    fail_closed: bool,
    /// Whether hashes are of trace ids.
    by_trace: bool,
}

/// What is known before the decision.
struct Known {
    randomness: Option<Randomness>,
    policy: Policy,
    /// What the item says; `None` if that is not to be touched.
    carried: Option<Carried>,
    failed: bool,
}

impl Sampler {
    pub fn new(settings: &SamplerSettings, is_span: bool) -> Sampler {
        let percentage = settings.sampling_percentage.min(100.0);
        let ratio = (f64::from(percentage) / 100.0).max(super::probability::LEAST);
        let method = match settings.mode {
            _ if percentage == 0.0 => Method::Never,
            Mode::Equalizing => {
                let threshold = Threshold::of(ratio, settings.precision);
                Method::Equalizing(threshold.unwrap_or(Threshold::ALWAYS))
            }
            Mode::Proportional => Method::Proportional(ratio),
            // In 32 bits and cut off, as the collector always did.
            Mode::HashSeed => match (percentage * (16384.0 / 100.0)) as u64 {
                0 => Method::Never,
                accepted => Method::Hash(Threshold::of_14_bits(accepted)),
            },
        };
        Sampler {
            method,
            seed: settings.hash_seed,
            precision: settings.precision,
            fail_closed: settings.fail_closed,
            by_trace: is_span || settings.by_trace,
        }
    }

    /// Digits of the thresholds that are made.
    pub fn precision(&self) -> usize {
        self.precision
    }

    /// Decides about `item`.
    pub fn judge(&self, item: &Item<'_>) -> Judgement {
        let mut known = match self.method {
            Method::Never => Known {
                randomness: Some(Randomness::ALL),
                policy: Policy::Priority,
                carried: Some(item.carried.0),
                failed: !item.carried.1,
            },
            Method::Hash(_) => self.hashed(item),
            Method::Equalizing(_) | Method::Proportional(_) => Self::consistent(item),
        };
        self.check(&mut known);
        let mut threshold = match (known.failed, self.fail_closed) {
            (true, true) => Threshold::NEVER,
            (true, false) => Threshold::ALWAYS,
            (false, _) => self.threshold(known.carried.and_then(|c| c.threshold)),
        };
        if let Some(asked) = item.priority {
            (threshold, known.policy) = (asked, Policy::Priority);
        }
        let sampled = threshold.samples(known.randomness.unwrap_or(Randomness::ALL));
        let mut carried = known.carried.filter(|_| sampled);
        if let Some(carried) = &mut carried {
            // A probability that was applied before cannot be raised again.
            let before = carried.threshold.filter(|before| *before > threshold);
            carried.threshold = Some(before.unwrap_or(threshold));
        }
        Judgement {
            sampled,
            policy: known.policy,
            carried,
        }
    }

    /// Randomness by hash. What says something about sampling is left as it is: it was meant for
    /// the other modes.
    fn hashed(&self, item: &Item<'_>) -> Known {
        let trace = item.trace_id.as_ref().filter(|_| self.by_trace);
        let (bytes, policy) = match (trace, item.attribute) {
            (Some(id), _) => (Some(&id[..]), Policy::TraceIdHash),
            (None, Some(bytes)) => (Some(bytes), Policy::Attribute),
            (None, None) => (None, Policy::Missing),
        };
        let randomness = bytes.map(|bytes| Randomness::of_hash(bytes, self.seed));
        let (mut carried, readable) = item.carried;
        let in_use = carried.randomness.is_some() || carried.threshold.is_some();
        let failed = !readable || in_use;
        if !failed {
            carried.randomness = match item.is_span {
                true => Some(randomness.unwrap_or(Randomness::ALL)),
                false => randomness,
            };
        }
        Known {
            randomness,
            policy,
            carried: Some(carried).filter(|_| !failed),
            failed,
        }
    }

    /// Randomness that the item says, or of its trace id.
    fn consistent(item: &Item<'_>) -> Known {
        let (carried, readable) = item.carried;
        let (randomness, policy) = match (carried.randomness, item.trace_id) {
            _ if !readable => (None, Policy::Missing),
            (Some(randomness), _) => (Some(randomness), Policy::Randomness),
            (None, Some(id)) => (Some(Randomness::of_trace(&id)), Policy::TraceId),
            (None, None) => (None, Policy::Missing),
        };
        Known {
            randomness,
            policy,
            carried: Some(carried).filter(|_| readable),
            failed: !readable,
        }
    }

    /// Without randomness nothing can be decided; and a threshold that would not have let the item
    /// pass is a lie.
    fn check(&self, known: &mut Known) {
        if known.failed {
            return;
        }
        let Some(randomness) = known.randomness else {
            known.failed = true;
            return;
        };
        let carried = known.carried.as_mut();
        if let Some(carried) = carried
            && carried.threshold.is_some_and(|t| !t.samples(randomness))
        {
            carried.threshold = None;
            known.failed = true;
        }
    }

    fn threshold(&self, before: Option<Threshold>) -> Threshold {
        match self.method {
            Method::Never => Threshold::NEVER,
            Method::Hash(threshold) => threshold,
            Method::Equalizing(threshold) => before.map_or(threshold, |b| b.max(threshold)),
            Method::Proportional(ratio) => {
                let probability = before.map_or(1.0, Threshold::probability) * ratio;
                // One that has become too small for a threshold is none.
                Threshold::of(probability, self.precision).unwrap_or(Threshold::NEVER)
            }
        }
    }
}
