//! `scope_name_parser` and the embedded `scope_name`.

use foldhash::HashSet;
use tailwater_pdata::{Cell, LogsBatch};

use super::embedded::required;
use super::field::Field;
use super::record_error::{RecordError, kind_of};

/// Names of scopes that one batch may bring. Every name becomes a batch of its own, which copies
/// what the rows share, so lines that each name another one would cost the square of their number.
const NAMES_MAX: usize = 256;

/// The names that a batch has brought so far.
#[derive(Debug, Default)]
pub(super) struct ScopeNames(HashSet<Box<[u8]>>);

/// Sets the name of a record's scope from a field.
#[derive(Debug)]
pub(super) struct ScopeName {
    pub(super) parse_from: Field,
}

impl ScopeName {
    pub(super) fn apply(
        &self,
        batch: &mut LogsBatch,
        row: usize,
        names: &mut ScopeNames,
    ) -> Result<(), RecordError> {
        let Some(cell) = self.parse_from.cell(batch, row) else {
            return Err(required(&self.parse_from)());
        };
        let Cell::Str(name) = cell else {
            let found = self.parse_from.get(batch, row).map_or("nothing", kind_of);
            let wanted = "the name of a scope";
            return Err(RecordError::Kind { wanted, found });
        };
        let text = batch.text.get(name);
        if !names.0.contains(text) {
            if names.0.len() >= NAMES_MAX {
                return Err(RecordError::TooManyScopes(NAMES_MAX));
            }
            names.0.insert(text.into());
        }
        batch.set_scope_name(row, name);
        Ok(())
    }
}
