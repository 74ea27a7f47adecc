//! The operators that give the parts of a record another shape: `assign_keys`, `flatten` and
//! `retain`.

use tailwater_config::{ConfigError, Section};
use tailwater_pdata::{Cell, Key, LogsBatch, Map, Value, ValueRef};

use super::field::{Field, Root};
use super::operator::{Operator, OperatorCx, Rows};
use super::options::required_field;
use super::parsing::FieldColumns;
use super::record_error::{RecordError, kind_of};

/// `assign_keys`: gives the values of a list names, which makes it a map.
#[derive(Debug)]
pub(super) struct AssignKeys {
    field: Field,
    keys: Vec<Key>,
}

/// What its options do.
const ASSIGN: &[(&str, &str)] = &[
    ("field", "A list, which becomes a map."),
    ("keys", "The names of its values. Required."),
];

impl AssignKeys {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<AssignKeys> {
        s.describe(ASSIGN);
        let field = required_field(s, "field", Field::parse);
        let keys = s.string_list("keys").unwrap_or_default();
        if keys.is_empty() {
            s.error("keys is required: a name for each value of the list");
            return None;
        }
        let keys = keys.into_iter().map(Key::from).collect();
        Some(AssignKeys {
            field: field?,
            keys,
        })
    }

    fn apply(&self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let value = self.field.get(batch, row);
        let values = match value.ok_or_else(|| self.field.missing())? {
            ValueRef::List(values) => values,
            other => {
                let (wanted, found) = ("a list to name the values of", kind_of(other));
                return Err(RecordError::Kind { wanted, found });
            }
        };
        if values.len() != self.keys.len() {
            let (wanted, found) = (self.keys.len(), values.len());
            return Err(RecordError::FieldCount { wanted, found });
        }
        let named = self.keys.iter().cloned().zip(values.iter().cloned());
        let map: Map = named.collect();
        self.field.merge(batch, row, map);
        Ok(())
    }
}

impl Operator for AssignKeys {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if let Err(e) = self.apply(batch, row) {
                rows.fail(row, || e);
            }
        }
    }
}

/// `flatten`: puts the entries of a map where the map is.
#[derive(Debug)]
pub(super) struct Flatten {
    field: Field,
    /// Where the map is in.
    parent: Field,
    columns: FieldColumns,
}

/// What its options do.
const FLATTEN: &[(&str, &str)] = &[("field", "A map, whose entries go where it is.")];

impl Flatten {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<Flatten> {
        s.describe(FLATTEN);
        let field = required_field(s, "field", Field::parse)?;
        let mut parent = field.clone();
        parent.keys.pop();
        Some(Flatten {
            field,
            parent,
            columns: FieldColumns::default(),
        })
    }

    fn apply(&self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let value = self.field.get(batch, row);
        let map = match value.ok_or_else(|| self.field.missing())? {
            ValueRef::Map(map) => map.clone(),
            other => {
                let (wanted, found) = ("a map to flatten", kind_of(other));
                return Err(RecordError::Kind { wanted, found });
            }
        };
        if self.field.keys.is_empty() {
            // What is in the body is there already.
            return Ok(());
        }
        self.field.remove(batch, row)?;
        // All at once: each by itself would copy what is there once per entry.
        let mut merged = Map::new();
        for (key, value) in map.iter() {
            let mut child = self.parent.clone();
            child.keys.push(key.clone());
            let value = match (child.get(batch, row), value) {
                (Some(ValueRef::Map(there)), Value::Map(new)) => {
                    let mut both = there.clone();
                    for (key, value) in new.iter() {
                        both.insert(key.clone(), value.clone());
                    }
                    Value::Map(both)
                }
                _ => value.clone(),
            };
            merged.insert(key.clone(), value);
        }
        self.parent.merge(batch, row, merged);
        Ok(())
    }
}

impl Operator for Flatten {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        self.columns.begin(batch);
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if self.columns.is_full(batch) {
                rows.split(row);
                break;
            }
            if let Err(e) = self.apply(batch, row) {
                rows.fail(row, || e);
            }
        }
    }
}

/// `retain`: keeps some fields of the parts of the record they are in; other parts stay.
#[derive(Debug)]
pub(super) struct Retain {
    fields: Vec<Field>,
    /// Memory for the values of one record.
    kept: Vec<Option<Cell>>,
}

/// The parts of a record that fields can be in.
const ROOTS: [Root; 3] = [Root::Body, Root::Attributes, Root::Resource];

/// What its options do.
const RETAIN: &[(&str, &str)] = &[(
    "fields",
    "What is kept of the parts of the record that they are in. Required.",
)];

impl Retain {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<Retain> {
        s.describe(RETAIN);
        let nodes = s.text_nodes("fields").unwrap_or_default();
        if nodes.is_empty() {
            s.error("fields is required: the fields to keep");
            return None;
        }
        let mut fields = Vec::with_capacity(nodes.len());
        for (text, node) in nodes {
            match Field::parse(text) {
                Ok(field) => fields.push(field),
                Err(e) => {
                    let path = s.path().child("fields");
                    let error = ConfigError::new(node.span.clone(), path, e.to_string());
                    s.errors().push(error);
                }
            }
        }
        let kept = Vec::new();
        Some(Retain { fields, kept })
    }

    fn names(&self, root: Root) -> bool {
        self.fields.iter().any(|f| f.root == root)
    }

    /// The names to keep of the attributes or the resource, if none goes deeper than that.
    fn top_names(&self, root: Root) -> Option<Vec<&Key>> {
        let of_root = self.fields.iter().filter(|f| f.root == root);
        of_root
            .map(|f| match &f.keys[..] {
                [key] => Some(key),
                _ => None,
            })
            .collect()
    }

    /// Does it for whole columns; false if that cannot be done.
    fn retain_columns(&self, batch: &mut LogsBatch) -> bool {
        if self.names(Root::Body) {
            return false;
        }
        let attributes = self.top_names(Root::Attributes);
        let (Some(attributes), Some(resource)) = (attributes, self.top_names(Root::Resource))
        else {
            return false;
        };
        if !attributes.is_empty() {
            batch.attributes.retain(|key, _| attributes.contains(&key));
        }
        if !resource.is_empty() {
            batch.resource_rows.retain(|key, _| resource.contains(&key));
            let drop: Vec<Key> = batch.resource.iter().map(|(k, _)| k.clone()).collect();
            for key in drop.iter().filter(|key| !resource.contains(key)) {
                batch.remove_resource_all(key);
            }
        }
        true
    }

    fn retain_row(&mut self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        self.kept.clear();
        let cells = self.fields.iter().map(|f| f.cell(batch, row));
        self.kept.extend(cells);
        for root in ROOTS {
            if self.names(root) {
                let keys = Vec::new();
                Field { root, keys }.remove(batch, row)?;
            }
        }
        for (field, cell) in self.fields.iter().zip(&self.kept) {
            match cell {
                Some(Cell::Null) if field.root == Root::Body && field.keys.is_empty() => {}
                Some(cell) => field.set(batch, row, *cell)?,
                None => {}
            }
        }
        Ok(())
    }
}

impl Operator for Retain {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        if rows.all_active() && self.retain_columns(batch) {
            return;
        }
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if let Err(e) = self.retain_row(batch, row) {
                rows.fail(row, || e);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_to_keep_name_their_parts() {
        let fields = ["body.a", "attributes.x.y"].map(|t| Field::parse(t).expect("a field"));
        let retain = Retain {
            fields: fields.to_vec(),
            kept: Vec::new(),
        };
        assert!(retain.names(Root::Body) && !retain.names(Root::Resource));
        assert_eq!(retain.top_names(Root::Attributes), None);
        assert_eq!(retain.top_names(Root::Resource), Some(Vec::new()));
    }
}
