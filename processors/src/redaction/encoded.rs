//! Traces and metrics in a request as it came. Lists in which nothing is found keep their bytes.

use tailwater_pdata::otlp::edit::{Attributes, Edit, Next, View};

use super::fields::{change_attributes, touches};
use super::rules::Judge;
use super::summary::Notes;

/// Looks through a request.
pub(super) struct Change<'j> {
    pub judge: &'j mut Judge,
    pub notes: &'j mut Notes,
}

impl Change<'_> {
    fn list(&mut self, attributes: &mut Attributes<'_>) {
        let mut all = attributes.iter();
        if !all.any(|(key, value)| touches(self.judge, &key, value.as_ref())) {
            return;
        }
        drop(all);
        attributes.update(|map| {
            change_attributes(self.judge, map, self.notes);
            // Of a key that came twice only the value that counts was looked at; the other one goes.
            true
        });
    }
}

impl Edit for Change<'_> {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        self.list(attributes);
        Next::Look
    }

    fn scope(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> Next {
        self.list(attributes);
        Next::Look
    }

    fn item(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        self.list(attributes);
        true
    }

    fn looks_within(&self) -> bool {
        true
    }

    fn within(&mut self, attributes: &mut Attributes<'_>) {
        self.list(attributes);
    }
}
