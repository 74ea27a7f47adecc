//! The `router` operator: sends records to other operators, by expressions.

use std::sync::Arc;

use tailwater_config::{Environment, Node, Section};
use tailwater_pdata::{Cell, Key, LogsBatch};

use super::chain::To;
use super::expr::{Expr, Record, Template};
use super::operator::{OnError, Report, Rows};
use super::options::{compiled, condition};
use super::record_error::RecordError;

/// Most routes of one router.
const ROUTES_MAX: usize = 1024;

/// Where records that a route matches go, as written.
pub(super) type Names<'n> = Vec<(&'n str, &'n Node)>;

/// A way out.
#[derive(Debug)]
struct Route {
    /// `None` matches every record.
    expr: Option<Expr>,
    /// Set on records that go this way.
    attributes: Vec<(Key, Template)>,
    outputs: Vec<To>,
}

/// The first route whose expression is true takes a record. What none takes is dropped, and counted
/// as what the operator was told to drop.
///
/// Records keep their order within a route. An expression that fails on a record does not match it.
#[derive(Debug)]
pub(super) struct Router {
    routes: Vec<Route>,
    /// Memory: the route of each row.
    taken: Vec<u16>,
    text: Vec<u8>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "routes",
        "Asked in order; the first whose expression holds takes the record.",
    ),
    ("routes::0::expr", "An expression. Required."),
    (
        "routes::0::output",
        "Ids of the operators that get the record. Required.",
    ),
    (
        "routes::0::attributes",
        "Attributes that it gets; values may hold `EXPR(...)`.",
    ),
    (
        "default",
        "Ids of the operators that get what no route takes; without it that is filtered.",
    ),
];

/// Reads the options of a router; gives the names that its routes lead to, too.
pub(super) fn decode<'n>(
    s: &mut Section<'n, '_>,
    environment: &dyn Environment,
) -> Option<(Router, Vec<Names<'n>>)> {
    s.describe(OPTIONS);
    let read = s.section_list("routes", |s| route(s, environment));
    let mut routes = read.unwrap_or_default();
    let default = s.text_nodes("default").filter(|names| !names.is_empty());
    if let Some(names) = default {
        let route = Route {
            expr: None,
            attributes: Vec::new(),
            outputs: Vec::new(),
        };
        routes.push(Some((route, names)));
    }
    if routes.is_empty() {
        s.error("routes or default is required");
        return None;
    }
    if routes.len() > ROUTES_MAX {
        s.invalid("routes", format!("more than {ROUTES_MAX} routes"));
        return None;
    }
    let routes: Option<Vec<(Route, Names<'n>)>> = routes.into_iter().collect();
    let (routes, names) = routes?.into_iter().unzip();
    let router = Router {
        routes,
        taken: Vec::new(),
        text: Vec::new(),
    };
    Some((router, names))
}

fn route<'n>(s: &mut Section<'n, '_>, environment: &dyn Environment) -> Option<(Route, Names<'n>)> {
    let has_expr = s.str_optional("expr").is_some_and(|t| !t.is_empty());
    if !has_expr {
        s.error("expr is required");
    }
    let expr = condition(s, "expr", environment);
    let names = s.text_nodes("output").filter(|names| !names.is_empty());
    if names.is_none() {
        s.error("output is required: the ids of operators");
    }
    let mut attributes = Vec::new();
    for (key, text) in s.string_map("attributes").unwrap_or_default() {
        let template = Template::compile(&text, environment);
        let template = compiled(s, "attributes", template)?;
        attributes.push((Key::from(key), template));
    }
    let route = Route {
        expr: Some(expr?),
        attributes,
        outputs: Vec::new(),
    };
    Some((route, names?))
}

impl Router {
    /// Sets where each route leads to.
    pub(super) fn connect(&mut self, ways: Vec<Vec<To>>) {
        for (route, outputs) in self.routes.iter_mut().zip(ways) {
            route.outputs = outputs;
        }
    }

    /// Where a route leads to.
    pub(super) fn outputs(&self, route: usize) -> &[To] {
        self.routes.get(route).map_or(&[], |r| &r.outputs)
    }

    /// Finds the route of each row: one batch per route that takes some, in the order of routes.
    pub(super) fn route(
        &mut self,
        mut batch: LogsBatch,
        id: &Arc<str>,
        report: &mut Report,
    ) -> Vec<(usize, LogsBatch)> {
        let mut rows = Rows::new(batch.rows(), OnError::Send);
        self.taken.clear();
        for row in 0..batch.rows() {
            match self.find(&batch, row, &mut rows) {
                None => rows.filter(row),
                Some(route) => match self.mark(route, &mut batch, row) {
                    Ok(()) => self.taken.push(route as u16),
                    Err(e) => rows.fail_and_drop(row, || e),
                },
            }
        }
        rows.finish(&mut batch, id, report);
        let mut used: Vec<u16> = self.taken.clone();
        used.sort_unstable();
        used.dedup();
        let Some((last, others)) = used.split_last() else {
            return Vec::new();
        };
        let keep = |route: u16| self.taken.iter().map(|t| *t == route).collect::<Vec<_>>();
        let mut out = Vec::with_capacity(used.len());
        for route in others {
            let mut part = batch.clone();
            part.retain_rows(&keep(*route));
            out.push((usize::from(*route), part));
        }
        batch.retain_rows(&keep(*last));
        out.push((usize::from(*last), batch));
        out
    }

    fn find(&self, batch: &LogsBatch, row: usize, rows: &mut Rows) -> Option<usize> {
        self.routes.iter().position(|route| {
            let Some(expr) = &route.expr else { return true };
            expr.truth(Record { batch, row }).unwrap_or_else(|e| {
                rows.warn(|| e.into());
                false
            })
        })
    }

    /// Sets the attributes of a route.
    fn mark(&mut self, route: usize, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        for (key, template) in &self.routes[route].attributes {
            self.text.clear();
            template.render(Record { batch, row }, &mut self.text)?;
            let slice = batch.text.push(&self.text);
            batch.set_attribute(row, key, Cell::Str(slice));
        }
        Ok(())
    }
}
