//! The same conditions, on what is in a request as it came.

use std::borrow::Cow;

use tailwater_pdata::ValueRef;
use tailwater_pdata::otlp::edit::{Attributes, View};

use super::config::SPAN_KINDS;
use super::{AttributeMatch, Choice, Conditions, any_of};

/// What a resource without a name is called, as in the collector.
const NO_SERVICE: &[u8] = b"<nil-service-name>";

/// What is looked at, from the outside to the inside.
pub(crate) enum Place<'v, 'a> {
    /// The attributes of a resource.
    Resource(&'v Attributes<'a>),
    /// A scope.
    Scope(&'v View<'a>),
    /// A metric.
    Metric(&'v View<'a>),
    /// A log record, data point or span.
    Item(&'v View<'a>, &'v Attributes<'a>),
}

impl Conditions {
    /// Whether what is seen from `place` matches.
    fn hold_at(&self, place: &Place<'_, '_>) -> bool {
        let record = &self.record;
        match place {
            Place::Resource(attributes) => {
                all_match(&record.resources, attributes) && self.service_matches(attributes)
            }
            Place::Scope(scope) => {
                record.library_matches(scope.bytes("name"), scope.bytes("version"))
            }
            Place::Metric(metric) => any_of(&self.metric_names, || metric.bytes("name")),
            Place::Item(item, attributes) => {
                self.item_matches(item) && all_match(&record.attributes, attributes)
            }
        }
    }

    fn service_matches(&self, resource: &Attributes<'_>) -> bool {
        if self.services.is_empty() {
            return true;
        }
        let name = match resource.get("service.name") {
            Some(name) => {
                let mut text = Vec::new();
                name.as_ref().write_string(&mut text);
                Cow::Owned(text)
            }
            None => Cow::Borrowed(NO_SERVICE),
        };
        any_of(&self.services, || &name)
    }

    fn item_matches(&self, item: &View<'_>) -> bool {
        let record = &self.record;
        let kind = || {
            let number = usize::try_from(item.number("kind")).unwrap_or(usize::MAX);
            let name = SPAN_KINDS.get(number).copied();
            name.unwrap_or_default().as_bytes()
        };
        // The number is a signed one of 32 bits.
        let severity = || item.number("severity_number") as i32;
        any_of(&self.span_names, || item.bytes("name"))
            && any_of(&self.span_kinds, kind)
            && any_of(&record.severity_texts, || item.bytes("severity_text"))
            && record.severity.is_none_or(|s| match severity() {
                0 => s.match_undefined,
                n => n >= i32::from(s.min),
            })
            && (record.bodies.is_empty() || self.body_matches(item))
    }

    fn body_matches(&self, item: &View<'_>) -> bool {
        match item.value("body").as_ref() {
            ValueRef::Str(text) => any_of(&self.record.bodies, || text),
            _ => false,
        }
    }
}

fn all_match(wanted: &[AttributeMatch], attributes: &Attributes<'_>) -> bool {
    let one = |m: &AttributeMatch| {
        let value = attributes.get(&m.key);
        value.is_some_and(|v| m.value.matches(v.as_ref()))
    };
    wanted.iter().all(one)
}

/// Follows what `include` and `exclude` say on the way to an item.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chosen {
    include: bool,
    exclude: bool,
}

impl Chosen {
    /// What `selection` says of a request.
    pub fn by(selection: &Choice) -> Chosen {
        Chosen {
            include: true,
            exclude: selection.exclude.is_some(),
        }
    }

    /// One step further in.
    pub fn step(self, selection: &Choice, place: &Place<'_, '_>) -> Chosen {
        let holds = |c: &Option<Conditions>| c.as_ref().is_none_or(|c| c.hold_at(place));
        Chosen {
            include: self.include && holds(&selection.include),
            exclude: self.exclude && holds(&selection.exclude),
        }
    }

    /// False if nothing further in can be processed.
    pub fn may_be(self) -> bool {
        self.include
    }

    /// Whether the item is processed.
    pub fn is(self) -> bool {
        self.include && !self.exclude
    }
}
