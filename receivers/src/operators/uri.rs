//! The `uri_parser` operator: the parts of an absolute URI, of an absolute path, or of a query that
//! begins with `?`.
//!
//! The grammar is that of Go's `net/url` for the URI of a request, which the collector uses: no
//! fragment, `scheme` in lower case, `path` as written where it is valid, `query` as a map of
//! lists.

use tailwater_config::Section;
use tailwater_golang::uri::{Part, Parts, UriError, parameters};
use tailwater_pdata::{Cell, LogsBatch, Map, Slice, Value};

use super::json_parser::FIELDS_MAX;
use super::operator::{Operator, OperatorCx, Rows};
use super::parsing::{Parsing, push_names};
use super::record_error::RecordError;

/// Names of what is found.
const NAMES: [&str; 6] = ["scheme", "user", "host", "port", "path", "query"];
const SCHEME: usize = 0;
const USER: usize = 1;
const HOST: usize = 2;
const PORT: usize = 3;
const PATH: usize = 4;
const QUERY: usize = 5;

/// See the module.
#[derive(Debug)]
pub(super) struct UriParser {
    parsing: Parsing,
    names: Vec<Slice>,
    fields: Vec<(Slice, Cell)>,
}

impl UriParser {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> UriParser {
        UriParser {
            parsing: Parsing::decode("uri_parser", s),
            names: Vec::new(),
            fields: Vec::new(),
        }
    }

    fn apply(&mut self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let text = self.parsing.text(batch, row)?;
        let bytes = batch.text.get(text);
        let (parts, query) = match bytes.strip_prefix(b"?") {
            Some(query) => (Parts::default(), read_query(query, true)?),
            None => {
                let parts = Parts::read(bytes).map_err(wrong)?;
                let query = parts.query.map_or(&[][..], |(from, to)| &bytes[from..to]);
                // As in the collector, what is wrong in the query of a URI is left out.
                let query = read_query(query, false)?;
                (parts, query)
            }
        };
        self.fields.clear();
        let found = [
            (SCHEME, parts.scheme),
            (USER, parts.user),
            (HOST, parts.host),
            (PORT, parts.port),
            (PATH, parts.path),
        ];
        for (name, part) in found {
            let slice = match part {
                Some(Part::Span(from, to)) if from < to => text.part(from, to - from),
                Some(Part::Made(made)) if !made.is_empty() => batch.text.push(&made),
                _ => continue,
            };
            self.fields.push((self.names[name], Cell::Str(slice)));
        }
        if !query.is_empty() {
            let cell = batch.big_cell(Value::Map(query));
            self.fields.push((self.names[QUERY], cell));
        }
        self.parsing.set(batch, row, &self.fields);
        Ok(())
    }
}

impl Operator for UriParser {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        self.parsing.begin(batch);
        push_names(&NAMES, batch, &mut self.names);
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if let Err(e) = self.apply(batch, row) {
                rows.fail(row, || e);
            }
        }
        self.parsing.finish(batch, rows, cx);
    }
}

fn wrong(e: UriError) -> RecordError {
    match e {
        UriError::Wrong { what, at } => RecordError::Format {
            format: "a URI",
            what,
            at,
        },
        UriError::TooMany(most) => RecordError::TooManyFields(most),
    }
}

fn read_query(query: &[u8], strict: bool) -> Result<Map, RecordError> {
    parameters(query, strict, FIELDS_MAX).map_err(wrong)
}
