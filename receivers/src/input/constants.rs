//! `attributes` and `resource` of a receiver.

use std::sync::Arc;

use tailwater_config::{ConfigError, KeyPath, ProcessEnvironment};
use tailwater_pdata::{Cell, Column, Key, LogsBatch, Map, Value};

use crate::operators::expr::{Record, Template};

/// `attributes` and `resource` of the receiver: text that may hold `EXPR(...)`. What is the same for
/// every record is rendered once.
#[derive(Debug, Default)]
pub struct Constants {
    attributes: Vec<(Key, Value)>,
    resource: Option<Arc<Map>>,
    /// Computed for each record.
    computed: Vec<(Key, Template)>,
    computed_resource: Vec<(Key, Template)>,
}

impl Constants {
    /// The constants of the receiver at `path`, as they are written.
    ///
    /// # Errors
    /// An expression in one of them cannot be used.
    pub fn compile(
        path: &KeyPath,
        attributes: &[(String, String)],
        resource: &[(String, String)],
    ) -> Result<Constants, Box<ConfigError>> {
        let compile = |section: &str, list: &[(String, String)]| {
            let one = |(key, text): &(String, String)| {
                let template = Template::compile(text, &ProcessEnvironment).map_err(|e| {
                    let path = path.child(section).child(key);
                    Box::new(ConfigError::new(None, path, e.to_string()))
                })?;
                Ok((key.clone(), template))
            };
            list.iter()
                .map(one)
                .collect::<Result<Vec<_>, Box<ConfigError>>>()
        };
        Ok(Constants::new(
            compile("attributes", attributes)?,
            compile("resource", resource)?,
        ))
    }

    /// Record attributes and resource attributes.
    pub fn new(
        attributes: Vec<(String, Template)>,
        resource: Vec<(String, Template)>,
    ) -> Constants {
        let is_plain = |(_, template): &(String, Template)| template.is_plain();
        let value = |(key, template): (String, Template)| (Key::from(key), plain(&template));
        let keyed = |(key, template): (String, Template)| (Key::from(key), template);
        let (same, computed): (Vec<_>, Vec<_>) = attributes.into_iter().partition(is_plain);
        let (resource, by_record): (Vec<_>, Vec<_>) = resource.into_iter().partition(is_plain);
        let resource: Map = resource.into_iter().map(value).collect();
        Constants {
            attributes: same.into_iter().map(value).collect(),
            resource: (!resource.is_empty()).then(|| Arc::new(resource)),
            computed: computed.into_iter().map(keyed).collect(),
            computed_resource: by_record.into_iter().map(keyed).collect(),
        }
    }

    /// The resource that all records have; `None` if there is none.
    pub fn resource(&self) -> Option<&Map> {
        self.resource.as_deref()
    }

    /// Adds them to every record of `batch`, which has no resource yet. `resource` is that of its file, if
    /// it has one of its own.
    pub fn add_to(&self, batch: &mut LogsBatch, resource: Option<&Arc<Map>>) {
        for (key, value) in &self.attributes {
            let column = Column::Const(value.clone());
            batch.attributes.set(key.clone(), column);
        }
        if let Some(resource) = resource.or(self.resource.as_ref()) {
            batch.resource = resource.clone();
        }
        for (key, template) in &self.computed {
            for row in 0..batch.rows() {
                let cell = render(template, batch, row);
                batch.set_attribute(row, key, cell);
            }
        }
        for (key, template) in &self.computed_resource {
            for row in 0..batch.rows() {
                let cell = render(template, batch, row);
                batch.set_resource_attribute(row, key, cell);
            }
        }
    }
}

fn plain(template: &Template) -> Value {
    let batch = &LogsBatch::default();
    let mut out = Vec::new();
    // Text without an expression reads nothing of the record.
    let _ = template.render(Record { batch, row: 0 }, &mut out);
    Value::str(String::from_utf8_lossy(&out))
}

/// An expression that fails leaves the attribute out.
fn render(template: &Template, batch: &mut LogsBatch, row: usize) -> Cell {
    let mut out = Vec::new();
    match template.render(Record { batch, row }, &mut out) {
        Ok(()) => Cell::Str(batch.text.push(&out)),
        Err(_) => Cell::Absent,
    }
}
