//! Log records, as columns and in a request as it came.

use tailwater_pdata::otlp::edit::{Attributes, Edit, View};
use tailwater_pdata::{Cell, Key, LogsBatch, Slice, Value, ValueRef};

use super::counts::Tally;
use super::probability::{Randomness, Threshold};
use super::sampler::{Carried, Item, Judgement, Sampler};
use super::spans::id_of;

const THRESHOLD: &str = "sampling.threshold";
const RANDOMNESS: &str = "sampling.randomness";

/// What of a record decides.
pub(super) struct Rules {
    pub sampler: Sampler,
    pub from_attribute: Option<Key>,
    pub sampling_priority: Option<Key>,
}

impl Rules {
    /// Decides about the record with these attributes. `scratch` holds text for a moment.
    fn judge<'v>(
        &self,
        trace_id: Option<[u8; 16]>,
        attribute: impl Fn(&str, &mut dyn FnMut(ValueRef<'_>)) + 'v,
        scratch: &mut Vec<u8>,
    ) -> (Carried, Judgement) {
        let (mut carried, mut readable) = (Carried::default(), true);
        attribute(THRESHOLD, &mut |value| {
            if let Some(text) = some_text(value) {
                carried.threshold = Threshold::parse(text).ok();
                readable &= carried.threshold.is_some();
            }
        });
        attribute(RANDOMNESS, &mut |value| {
            if let Some(text) = some_text(value) {
                carried.randomness = Randomness::parse(text).ok();
                readable &= carried.randomness.is_some();
            }
        });
        scratch.clear();
        if let Some(key) = &self.from_attribute {
            attribute(key, &mut |value| match value {
                ValueRef::Bytes(bytes) => scratch.extend_from_slice(bytes),
                other => other.write_string(scratch),
            });
        }
        let mut priority = None;
        if let Some(key) = &self.sampling_priority {
            attribute(key, &mut |value| priority = self.priority(value));
        }
        let judgement = self.sampler.judge(&Item {
            trace_id,
            carried: (carried, readable),
            attribute: Some(&scratch[..]).filter(|bytes| !bytes.is_empty()),
            priority,
            is_span: false,
        });
        (carried, judgement)
    }

    /// A percentage above 0 and up to 100.
    fn priority(&self, value: ValueRef<'_>) -> Option<Threshold> {
        let percentage = match value {
            ValueRef::Int(i) => i as f64,
            ValueRef::Double(d) => d,
            _ => return None,
        };
        Threshold::of(percentage / 100.0, self.sampler.precision())
    }
}

fn some_text(value: ValueRef<'_>) -> Option<&[u8]> {
    match value {
        ValueRef::Str(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Samples the records of a request.
pub(super) struct Records<'s> {
    rules: &'s Rules,
    /// What became of them.
    pub tally: Tally,
    scratch: Vec<u8>,
}

impl<'s> Records<'s> {
    pub fn new(rules: &'s Rules) -> Records<'s> {
        Records {
            rules,
            tally: Tally::default(),
            scratch: Vec::new(),
        }
    }
}

impl Edit for Records<'_> {
    fn item(&mut self, record: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        let trace_id = id_of(record.bytes("trace_id"));
        let get = |key: &str, see: &mut dyn FnMut(ValueRef<'_>)| {
            if let Some(found) = attributes.get(key) {
                see(found.as_ref());
            }
        };
        let (before, judgement) = self.rules.judge(trace_id, get, &mut self.scratch);
        self.tally.add(&judgement);
        let Some(after) = judgement.carried.filter(|after| *after != before) else {
            return judgement.sampled;
        };
        attributes.update(|map| {
            if after.threshold != before.threshold {
                match after.threshold {
                    Some(threshold) => {
                        map.insert(THRESHOLD, text(threshold));
                    }
                    None => {
                        map.remove(THRESHOLD);
                    }
                }
            }
            if let Some(randomness) = after.randomness
                && before.randomness.is_none()
            {
                let digits = randomness.text();
                map.insert(RANDOMNESS, Value::str(String::from_utf8_lossy(&digits)));
            }
            true
        });
        judgement.sampled
    }
}

fn text(threshold: Threshold) -> Value {
    let mut digits = Vec::new();
    threshold.write(&mut digits);
    Value::str(String::from_utf8_lossy(&digits))
}

/// Keeps the records of a batch that are sampled.
pub(super) fn sample(rules: &Rules, logs: &mut LogsBatch, keep: &mut Vec<bool>) -> Tally {
    let mut tally = Tally::default();
    let mut scratch = Vec::new();
    // The text of the threshold of the record before, which is nearly always that of the next.
    let mut last: Option<(Threshold, Slice)> = None;
    keep.clear();
    for row in 0..logs.rows() {
        let trace = logs.trace.as_ref().and_then(|t| t.trace_id.get(row));
        let trace_id = trace.copied().filter(|id| *id != [0; 16]);
        let get = |key: &str, see: &mut dyn FnMut(ValueRef<'_>)| {
            if let Some(value) = logs.attribute(row, key) {
                see(value);
            }
        };
        let (before, judgement) = rules.judge(trace_id, get, &mut scratch);
        tally.add(&judgement);
        keep.push(judgement.sampled);
        let Some(after) = judgement.carried.filter(|after| *after != before) else {
            continue;
        };
        if after.threshold != before.threshold {
            let cell = match (after.threshold, last) {
                (None, _) => Cell::Absent,
                (Some(threshold), Some((same, slice))) if same == threshold => Cell::Str(slice),
                (Some(threshold), _) => {
                    let slice = logs.text.push_with(|out| threshold.write(out));
                    last = Some((threshold, slice));
                    Cell::Str(slice)
                }
            };
            logs.set_attribute(row, THRESHOLD, cell);
        }
        if let Some(randomness) = after.randomness
            && before.randomness.is_none()
        {
            let slice = logs.text.push(&randomness.text());
            logs.set_attribute(row, RANDOMNESS, Cell::Str(slice));
        }
    }
    logs.retain_rows(keep);
    tally
}
