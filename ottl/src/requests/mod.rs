//! Resources, scopes, spans, events, metrics and points of a request as it came, to read and to change.

mod spots;

use std::borrow::Cow;

use tailwater_pdata::otlp::edit::{Attributes, Found, View};
use tailwater_pdata::otlp::revise::{Level, Place};
use tailwater_pdata::{Key, Map, Slice, Value};

use self::spots::{Form, Spot, level, read, spot, write};
use crate::editors::{MetricEdit, MetricTexts};
use crate::error::Fault;
use crate::field::Field;
use crate::scene::{Scene, SceneMut};
use crate::value::{Stored, Val};

/// Who carries out editors of metrics.
pub type EditMetric = fn(&mut Place, &MetricEdit, MetricTexts) -> Result<(), Fault>;

/// A place in a request, with the cache of the statements that are carried out there.
pub struct PlaceScene<'p> {
    place: &'p mut Place,
    cache: Map,
    edit: Option<EditMetric>,
}

/// Kinds of data of a metric by the number that OTTL's enum gives them.
pub const METRIC_TYPES: [&str; 5] = [
    "gauge",
    "sum",
    "histogram",
    "exponential_histogram",
    "summary",
];

impl<'p> PlaceScene<'p> {
    /// One in which metrics are not edited.
    pub fn new(place: &'p mut Place) -> PlaceScene<'p> {
        PlaceScene {
            place,
            cache: Map::new(),
            edit: None,
        }
    }

    /// The same with somebody who edits metrics.
    pub fn editing(place: &'p mut Place, edit: EditMetric) -> PlaceScene<'p> {
        PlaceScene {
            edit: Some(edit),
            ..PlaceScene::new(place)
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
pub fn point_attributes(metric: &View<'_>) -> Val<'static> {
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
                let kind = METRIC_TYPES.iter().position(|t| Some(*t) == chosen);
                Val::Int(kind.map_or(0, |k| k as i64 + 1))
            }
            Field::PointAttributes => match self.place.level() {
                Level::Item => point_attributes(&self.place.at(Level::Item).view()),
                _ => Val::Nil,
            },
            Field::MetricTemporality | Field::MetricMonotonic => {
                match (self.view(field), self.data(field)) {
                    (Some(view), Some(spot)) => read(&view, spot),
                    _ => Val::Nil,
                }
            }
            _ => match (self.level(field), spot(field)) {
                (Some(level), Some(spot)) => {
                    let draft = self.place.at(level);
                    let apart = match spot.form {
                        Form::Attributes => draft.attributes_apart(spot.within, spot.name),
                        _ => None,
                    };
                    match apart {
                        Some(map) => Val::Map(Cow::Owned(map)),
                        None => read(&draft.view(), spot),
                    }
                }
                _ => Val::Nil,
            },
        }
    }

    fn entry(&self, field: Field, key: &str) -> Val<'_> {
        if field == Field::Cache {
            return self.cache.get(key).map_or(Val::Nil, |v| v.as_ref().into());
        }
        let (Some(level), Some(spot)) = (self.level(field), attributes(field)) else {
            return Val::Nil;
        };
        match self.place.at(level).attribute(spot.within, spot.name, key) {
            Some(Found::Plain(value)) => value.into(),
            Some(Found::Decoded(value)) => value.into(),
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
            _ => {
                if let (Some(level), Some(spot)) = (self.level(field), attributes(field)) {
                    let draft = self.place.at_mut(level);
                    draft.set_attribute(spot.within, spot.name, key, value.as_ref());
                }
            }
        }
        Ok(())
    }

    fn remove_entry(&mut self, field: Field, key: &str) {
        match field {
            Field::Cache => {
                self.cache.remove(key);
            }
            _ => {
                if let (Some(level), Some(spot)) = (self.level(field), attributes(field)) {
                    let draft = self.place.at_mut(level);
                    draft.remove_attribute(spot.within, spot.name, key);
                }
            }
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
        match self.edit {
            Some(carry_out) => carry_out(self.place, edit, texts),
            None => Err(Fault::failed("an editor of metrics", "this is no metric")),
        }
    }
}

/// The value of a field of a span, metric or point; nil if it has no such field.
pub fn field_of<'v>(view: &View<'v>, field: Field) -> Val<'v> {
    spot(field).map_or(Val::Nil, |spot| read(view, spot))
}
