//! Spans in a request as it came: those that are not sampled are cut out where they lie.

use tailwater_pdata::ValueRef;
use tailwater_pdata::otlp::edit::{Attributes, Edit, View};

use super::counts::Tally;
use super::probability::Threshold;
use super::sampler::{Item, Sampler};
use super::tracestate::TraceState;
use crate::action::parse_double;

/// Samples the spans of a request.
pub(super) struct Spans<'s> {
    sampler: &'s Sampler,
    /// What became of them.
    pub tally: Tally,
    /// The trace state of the span of now, if it changes.
    state: Vec<u8>,
    changed: bool,
}

impl<'s> Spans<'s> {
    pub fn new(sampler: &'s Sampler) -> Spans<'s> {
        Spans {
            sampler,
            tally: Tally::default(),
            state: Vec::new(),
            changed: false,
        }
    }
}

/// The id, if it is one.
pub(super) fn id_of(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok().filter(|id| *id != [0; 16])
}

/// What OpenTracing's `sampling.priority` asks for: 0 is never, more is always.
fn priority(attributes: &Attributes<'_>) -> Option<Threshold> {
    let found = attributes.get("sampling.priority")?;
    let priority = match found.as_ref() {
        ValueRef::Int(i) => i as f64,
        ValueRef::Double(d) => d,
        ValueRef::Str(text) => parse_double(std::str::from_utf8(text).ok()?)?,
        _ => return None,
    };
    match priority {
        0.0 => Some(Threshold::NEVER),
        more if more > 0.0 => Some(Threshold::ALWAYS),
        _ => None,
    }
}

impl Edit for Spans<'_> {
    fn item(&mut self, span: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        let text = span.bytes("trace_state");
        let (mut state, read) = TraceState::parse(text);
        let judgement = self.sampler.judge(&Item {
            trace_id: id_of(span.bytes("trace_id")),
            carried: (state.carried, read.is_ok()),
            attribute: None,
            priority: priority(attributes),
            is_span: true,
        });
        self.tally.add(&judgement);
        self.changed = false;
        if let Some(carried) = judgement.carried {
            state.carried = carried;
            self.state.clear();
            state.write(&mut self.state);
            self.changed = self.state != text;
        }
        judgement.sampled
    }

    fn text(&mut self) -> Option<(&str, &[u8])> {
        self.changed.then_some(("trace_state", &self.state))
    }
}
