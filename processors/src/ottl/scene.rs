//! Resources, scopes, spans, events, metrics and points of a request as it came, to read and to change.

use std::borrow::Cow;

use tailwater_ottl::{Fault, Field, MetricEdit, MetricTexts, Scene, SceneMut, Stored, Val};
use tailwater_pdata::otlp::edit::{Attributes, Found, View};
use tailwater_pdata::otlp::revise::{FieldValue, Level, Place};
use tailwater_pdata::{Key, Map, Slice, Value};

use super::metrics;
use super::spots::{Form, Spot, level, read, spot, write};

/// A place in a request, with the cache of the statements that are carried out there.
pub(crate) struct PlaceScene<'p> {
    place: &'p mut Place,
    cache: Map,
}

/// Kinds of data of a metric by the number that OTTL's enum gives them.
pub(super) const TYPES: [&str; 5] = [
    "gauge",
    "sum",
    "histogram",
    "exponential_histogram",
    "summary",
];

impl<'p> PlaceScene<'p> {
    pub fn new(place: &'p mut Place) -> PlaceScene<'p> {
        PlaceScene {
            place,
            cache: Map::new(),
        }
    }

    /// Begins with an empty cache.
    pub fn forget(&mut self) {
        if !self.cache.is_empty() {
            self.cache = Map::new();
        }
    }

    /// The level of a field, if this place has one.
    fn level(&self, field: Field) -> Option<Level> {
        let level = level(field, self.place.signal());
        (level <= self.place.level()).then_some(level)
    }

    fn view(&self, field: Field) -> Option<View<'_>> {
        Some(self.place.at(self.level(field)?).view())
    }

    /// Where a field is that stands in the data of a metric; `None` for gauges and summaries.
    fn data(&self, field: Field) -> Option<Spot> {
        let metric = self.view(field)?;
        let kind = metric.chosen()?;
        let (name, form) = match field {
            Field::MetricTemporality => ("aggregation_temporality", Form::Int),
            _ => ("is_monotonic", Form::Bool),
        };
        let within = Some(kind);
        let known = metric.inner(kind).is_some_and(|data| data.knows(name));
        known.then_some(Spot { within, name, form })
    }

    /// Lets `change` work on a list of attributes.
    fn attributes(&mut self, field: Field, change: impl FnOnce(&mut Attributes<'_>)) {
        if let (Some(level), Some(spot)) = (self.level(field), attributes(field)) {
            let draft = self.place.at_mut(level);
            draft.attributes(spot.within, spot.name, change);
        }
    }
}

/// The attributes of each point of a metric.
pub(super) fn points(metric: &View<'_>) -> Val<'static> {
    let data = metric.chosen().and_then(|kind| metric.inner(kind));
    let points = data.iter().flat_map(|d| d.messages("data_points"));
    let attributes = points.map(|point| match read(&point, ATTRIBUTES) {
        Val::Map(map) => Value::Map(map.into_owned()),
        _ => Value::Null,
    });
    Val::List(Cow::Owned(attributes.collect()))
}

/// The attributes of a point.
const ATTRIBUTES: Spot = Spot {
    within: None,
    name: "attributes",
    form: Form::Attributes,
};

/// Where a list of attributes is.
fn attributes(field: Field) -> Option<Spot> {
    spot(field).filter(|s| s.form == Form::Attributes)
}

fn owned(value: Stored) -> Result<Value, Fault> {
    // Nothing here is stored as part of a batch.
    value.into_value("an attribute", |_| Vec::new())
}

impl Scene for PlaceScene<'_> {
    fn get(&self, field: Field) -> Val<'_> {
        match field {
            Field::Cache => Val::Map(Cow::Borrowed(&self.cache)),
            Field::EventIndex => Val::Int(i64::try_from(self.place.index()).unwrap_or(i64::MAX)),
            Field::MetricType => {
                let chosen = self.view(field).and_then(|v| v.chosen());
                let kind = TYPES.iter().position(|t| Some(*t) == chosen);
                Val::Int(kind.map_or(0, |k| k as i64 + 1))
            }
            Field::PointAttributes => match self.place.level() {
                Level::Item => points(&self.place.at(Level::Item).view()),
                _ => Val::Nil,
            },
            Field::MetricTemporality | Field::MetricMonotonic => {
                match (self.view(field), self.data(field)) {
                    (Some(view), Some(spot)) => read(&view, spot),
                    _ => Val::Nil,
                }
            }
            _ => match (self.view(field), spot(field)) {
                (Some(view), Some(spot)) => read(&view, spot),
                _ => Val::Nil,
            },
        }
    }

    fn entry(&self, field: Field, key: &str) -> Val<'_> {
        if field == Field::Cache {
            return self.cache.get(key).map_or(Val::Nil, |v| v.as_ref().into());
        }
        let (Some(view), Some(spot)) = (self.view(field), attributes(field)) else {
            return Val::Nil;
        };
        let view = match spot.within {
            Some(within) => view.inner(within),
            None => Some(view),
        };
        let found = view.and_then(|v| v.pairs(spot.name).filter(|(k, _)| *k == key).last());
        match found {
            Some((_, Found::Plain(value))) => value.into(),
            Some((_, Found::Decoded(value))) => value.into(),
            None => Val::Nil,
        }
    }
}

impl SceneMut for PlaceScene<'_> {
    fn text_of(&self, _: Slice) -> Vec<u8> {
        Vec::new()
    }

    fn set(&mut self, field: Field, value: Stored) -> Result<(), Fault> {
        if field == Field::Cache || attributes(field).is_some() {
            let map = match owned(value)? {
                Value::Map(map) => map,
                other => {
                    let found = other.as_ref().kind_name();
                    return Err(Fault::Store {
                        field: "a map",
                        found,
                    });
                }
            };
            if field == Field::Cache {
                self.cache = map;
            } else {
                self.attributes(field, |list| {
                    list.update(|old| {
                        *old = map;
                        true
                    });
                });
            }
            return Ok(());
        }
        let spot = match field {
            Field::MetricTemporality | Field::MetricMonotonic => self.data(field),
            _ => spot(field),
        };
        match (self.level(field), spot) {
            (Some(level), Some(spot)) => write(self.place.at_mut(level), spot, value),
            _ => Ok(()),
        }
    }

    fn set_entry(&mut self, field: Field, key: &Key, value: Stored) -> Result<(), Fault> {
        let value = owned(value)?;
        match field {
            Field::Cache => {
                self.cache.insert(key.clone(), value);
            }
            _ => self.attributes(field, |list| list.set(key, value.as_ref())),
        }
        Ok(())
    }

    fn remove_entry(&mut self, field: Field, key: &str) {
        match field {
            Field::Cache => {
                self.cache.remove(key);
            }
            _ => self.attributes(field, |list| list.remove_if(|k| k == key)),
        }
    }

    fn retain(&mut self, field: Field, keep: &mut dyn FnMut(&str) -> bool) {
        match field {
            Field::Cache => self.cache.retain(|key, _| keep(key)),
            _ => self.attributes(field, |list| list.remove_if(|key| !keep(key))),
        }
    }

    fn update(
        &mut self,
        field: Field,
        change: &mut dyn FnMut(&mut Map) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut done = Ok(());
        let mut changed = |map: &mut Map| {
            let mut new = map.clone();
            done = change(&mut new);
            let is_new = done.is_ok() && new != *map;
            if is_new {
                *map = new;
            }
            is_new
        };
        match field {
            Field::Cache => {
                changed(&mut self.cache);
            }
            _ => self.attributes(field, |list| list.update(changed)),
        }
        done
    }

    fn edit_metric(&mut self, edit: &MetricEdit, texts: MetricTexts) -> Result<(), Fault> {
        metrics::edit(self.place, edit, texts)
    }
}

/// Sets the texts that are given.
pub(super) fn put_texts(draft: &mut tailwater_pdata::otlp::revise::Draft, texts: MetricTexts) {
    for (name, text) in [
        ("name", texts.name),
        ("description", texts.description),
        ("unit", texts.unit),
    ] {
        if let Some(text) = text {
            draft.set(None, name, FieldValue::Bytes(&text));
        }
    }
}
