//! What statements are carried out on.

use tailwater_pdata::{Key, Map, Slice, Value};

use crate::editors::{MetricEdit, MetricTexts};
use crate::error::Fault;
use crate::field::Field;
use crate::value::{Stored, Val};

/// A record, or whatever a context is about, to read. A field that it does not have is nil.
pub trait Scene {
    /// The value of a field.
    fn get(&self, field: Field) -> Val<'_>;

    /// An entry of a field that is a map; nil if it is not there.
    fn entry(&self, field: Field, key: &str) -> Val<'_>;
}

/// The same, to change.
pub trait SceneMut: Scene {
    /// Lets go of what a value borrows, at no more cost than needed.
    fn store(&self, val: Val<'_>) -> Stored {
        Stored::of(val)
    }

    /// The text of a slice that [`SceneMut::store`] gave.
    fn text_of(&self, slice: Slice) -> Vec<u8>;

    /// Sets a field.
    ///
    /// # Errors
    /// It cannot hold the value.
    fn set(&mut self, field: Field, value: Stored) -> Result<(), Fault>;

    /// Sets an entry of a field that is a map.
    ///
    /// # Errors
    /// It cannot hold the value.
    fn set_entry(&mut self, field: Field, key: &Key, value: Stored) -> Result<(), Fault>;

    /// Sets a field, or an entry of it, to a value that stays where it is for as long as statements are
    /// carried out on records of this batch.
    ///
    /// # Errors
    /// It cannot hold the value.
    fn set_literal(&mut self, field: Field, key: Option<&Key>, value: &Value) -> Result<(), Fault> {
        match key {
            Some(key) => self.set_entry(field, key, Stored::Value(value.clone())),
            None => self.set(field, Stored::Value(value.clone())),
        }
    }

    /// Whether entries of attributes are set one by one at a cost that does not grow with their number.
    fn has_columns(&self) -> bool {
        false
    }

    /// Removes an entry.
    fn remove_entry(&mut self, field: Field, key: &str);

    /// Keeps the entries whose keys `keep` says true to.
    fn retain(&mut self, field: Field, keep: &mut dyn FnMut(&str) -> bool);

    /// Lets `change` work on a field that is a map.
    ///
    /// # Errors
    /// Those of `change`; then nothing is changed.
    fn update(
        &mut self,
        field: Field,
        change: &mut dyn FnMut(&mut Map) -> Result<(), Fault>,
    ) -> Result<(), Fault>;

    /// Changes the metric that this is about, or adds one like it; `texts` are what the one or the other
    /// gets.
    ///
    /// # Errors
    /// It is no metric, or not of a kind that this can be done to.
    fn edit_metric(&mut self, edit: &MetricEdit, texts: MetricTexts) -> Result<(), Fault> {
        let _ = (edit, texts);
        Err(Fault::failed("an editor of metrics", "this is no metric"))
    }
}

/// What is known while a statement is carried out.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// What it is carried out on.
    pub scene: &'a dyn Scene,
    /// The time, in ns since 1970.
    pub now_ns: i64,
}

/// What constants are worked out on: there is nothing.
pub(crate) struct Nothing;

impl Scene for Nothing {
    fn get(&self, _: Field) -> Val<'_> {
        Val::Nil
    }
    fn entry(&self, _: Field, _: &str) -> Val<'_> {
        Val::Nil
    }
}
