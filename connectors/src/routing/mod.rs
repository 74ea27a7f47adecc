//! `routing`: hands records to pipelines by what they are: a table of conditions says which, and what none
//! of them takes goes to the default pipelines.
//!
//! Log records are sorted in the columns of their batch, spans, metrics and points in the request as it came.
//! What goes the same way stays together and in order; text is not copied.

mod legs;
mod sort;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tailwater_config::{ConfigError, Errors, KeyPath, Node, Section};
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::component::{Connector, Ways};
use tailwater_pipeline::factory::{
    ConnectorFactory, ConnectorSettings, ConnectorUse, Factory, NodeCx,
};
use tailwater_pipeline::{Batch, BuildError, LogsPart, Part, Payload};

use crate::ottl::{ErrorMode, MODES, Report, Trouble, level};
use sort::Groups;
use table::{Named, Route};

/// The factory of this connector.
pub fn factory() -> ConnectorFactory {
    Factory {
        kind: "routing",
        about: "Hands log records, spans and points to pipelines by conditions of OTTL, in a table.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ConnectorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let settings = RoutingSettings::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ConnectorSettings>)
}

/// What a `routing` does.
#[derive(Clone, Debug)]
pub struct RoutingSettings {
    mode: ErrorMode,
    table: Arc<[Route]>,
    default: Vec<Named>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "error_mode",
        "What an error of a condition does. propagate: gives up what it is in, counted as `operator_error`. ignore, silent: the route does not pick the record.",
    ),
    (
        "default_pipelines",
        "Which get what no route moves; without any it is dropped, counted as `unrouted`.",
    ),
    ("table", "Routes, asked in order. Required."),
];

impl RoutingSettings {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> RoutingSettings {
        s.describe(OPTIONS);
        let mode = s.choice("error_mode", &MODES, ErrorMode::Propagate);
        let default = table::pipelines(s, "default_pipelines").unwrap_or_default();
        s.refuse(
            "match_once",
            "the collector has removed it: what a route moves is seen by no other one; use the action \
             copy, or several connectors side by side",
        );
        let mut routes: Vec<Route> = Vec::new();
        let read = s.section_list("table", |s| Route::decode(s, &mut routes));
        if read.is_none_or(|read| read.is_empty()) {
            s.error("invalid routing table: the routing table is empty");
        }
        RoutingSettings {
            mode,
            table: routes.into(),
            default,
        }
    }

    fn named(&self) -> impl Iterator<Item = &Named> {
        let routes = self.table.iter().flat_map(|r| &r.pipelines);
        routes.chain(&self.default)
    }
}

impl ConnectorSettings for RoutingSettings {
    fn check(&self, used: &ConnectorUse, errors: &mut Errors) {
        let signal = used.signal;
        for named in self.named() {
            if used.behind.contains(&named.id) {
                continue;
            }
            let text = format!(
                "pipeline \"{}\" does not begin with this connector, into which {signal} go",
                named.id
            );
            let error = ConfigError::new(named.span.clone(), named.path.clone(), text);
            let known = used.behind.join(", ");
            let near = tailwater_config::nearest(&named.id, used.behind.iter().map(String::as_str));
            errors.push(error.allowed(known).suggest(near));
        }
        for route in self.table.iter() {
            if let Some(text) = route.misfit(signal) {
                errors.push(ConfigError::new(
                    route.span.clone(),
                    route.path.clone(),
                    text,
                ));
            }
        }
    }

    fn build(&self, cx: &NodeCx, ways: &[&str]) -> Result<Option<Box<dyn Connector>>, BuildError> {
        let number = |named: &Named| ways.iter().position(|w| *w == named.id);
        let numbers = |list: &[Named]| list.iter().filter_map(number).collect();
        let is_whole = |r: &Route| r.context.is_none_or(|c| level(c) == WHOLE);
        Ok(Some(Box::new(Routing {
            mode: self.mode,
            // A clone has patterns of its own.
            table: self.table.to_vec(),
            ways: self.table.iter().map(|r| numbers(&r.pipelines)).collect(),
            default: numbers(&self.default),
            has_default: !self.default.is_empty(),
            by_resource: self.table.iter().all(is_whole),
            number_of_ways: ways.len(),
            report: Report::new(cx),
            clock: cx.clock.clone(),
        })))
    }
}

/// Routes about nothing deeper than this keep requests of logs in one piece.
const WHOLE: tailwater_pdata::otlp::revise::Level = tailwater_pdata::otlp::revise::Level::Resource;

/// The connector at the end of one chain.
struct Routing {
    mode: ErrorMode,
    table: Vec<Route>,
    /// By route, the numbers of those of its pipelines that can be reached from here.
    ways: Vec<Vec<usize>>,
    default: Vec<usize>,
    has_default: bool,
    /// No route looks at single records.
    by_resource: bool,
    number_of_ways: usize,
    report: Report,
    clock: Arc<dyn Clock>,
}

/// What one call of the connector knows.
struct Pass<'r> {
    routing: &'r Routing,
    now_ns: i64,
    trouble: Trouble,
    /// By way, what it gets.
    out: Vec<Batch>,
}

impl Connector for Routing {
    fn pass(&self, batch: Batch, out: &mut dyn Ways) {
        let mut pass = Pass {
            routing: self,
            now_ns: self.clock.wall_ns(),
            trouble: Trouble::default(),
            out: (0..self.number_of_ways).map(|_| Batch::default()).collect(),
        };
        for part in batch.parts {
            match &part.data {
                Payload::Encoded(e) if self.by_resource || e.signal() != Signal::Logs => {
                    pass.request(part);
                }
                _ => part.into_logs().for_each(|part| pass.logs(part)),
            }
        }
        self.report.tell(pass.trouble);
        for (way, batch) in pass.out.into_iter().enumerate() {
            if !batch.is_empty() {
                out.emit(way, batch);
            }
        }
    }
}

impl Pass<'_> {
    fn logs(&mut self, mut part: LogsPart) {
        let client = part.ack.client();
        let mut groups = Groups::default();
        let of = self.sort_logs(&mut part.logs, client.as_deref(), &mut groups);
        let Some(part) = self.given_up(part.into()) else {
            return;
        };
        self.hand_on(part, &groups, &of, &|data, wanted| {
            let Payload::Logs(logs) = data else { return };
            let keep: Vec<bool> = of.iter().map(|g| wanted(*g)).collect();
            LogsBatch::retain_rows(logs, &keep);
        });
    }

    fn request(&mut self, part: Part) {
        let client = part.ack.client();
        let mut groups = Groups::default();
        let Some((depth, of)) = self.sort_request(&part.data, client.as_deref(), &mut groups)
        else {
            self.given_up(part);
            return;
        };
        let Some(part) = self.given_up(part) else {
            return;
        };
        self.hand_on(part, &groups, &of, &|data, wanted| {
            let Payload::Encoded(request) = data else {
                return;
            };
            let mut number = 0;
            // It was gone through once already, and nothing is changed.
            let _ = request.revise(depth, &mut |_| {
                number += 1;
                of.get(number - 1).is_some_and(|group| wanted(*group))
            });
        });
    }
}

fn items(part: &Part) -> u32 {
    u32::try_from(part.data.items()).unwrap_or(u32::MAX)
}
