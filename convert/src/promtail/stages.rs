//! `pipeline_stages` as operators.
//!
//! Promtail keeps two maps for a line: labels, which are sent, and what was extracted, which is thrown away.
//! Here labels are attributes of the resource and what was extracted are attributes of the record; the exporter
//! sends the first ones only. So each stage is what it was, whatever the order.

mod drops;
mod fields;
mod guards;
mod parsers;
mod template;
mod times;

use std::collections::BTreeSet;

use tailwater_config::{Node, Span};

use super::relabel;
use crate::expr;
use crate::note::{Notes, Weight};
use crate::options::Options;
use crate::yaml::{Item, Map, Value, map};

/// The attribute of the resource that names the tenant.
pub const TENANT: &str = "__tenant_id__";

/// The stages of one job, being converted.
pub struct Stages<'a> {
    /// What came of them.
    pub operators: Vec<Item>,
    /// Where remarks go.
    pub notes: &'a mut Notes,
    /// Labels that a line may have so far.
    pub labels: BTreeSet<String>,
    /// What may have been extracted so far.
    pub extracted: BTreeSet<String>,
    /// What becomes structured metadata.
    pub metadata: BTreeSet<String>,
    /// A line may name its tenant.
    pub tenant: bool,
    /// Labels that are set behind the operators only.
    pub late: BTreeSet<String>,
    /// The first docker or cri stage is done by what stands before.
    pub container_done: bool,
    pending: Vec<String>,
    guard: Option<String>,
    guards: usize,
}

/// The option that makes an operator leave a record as it is when it fails, as stages do.
const QUIET: (&str, &str) = ("on_error", "send_quiet");

impl<'a> Stages<'a> {
    /// With the labels that a line has at first.
    pub fn new(notes: &'a mut Notes, labels: BTreeSet<String>) -> Stages<'a> {
        Stages {
            operators: Vec::new(),
            notes,
            labels,
            extracted: BTreeSet::new(),
            metadata: BTreeSet::new(),
            tenant: false,
            late: BTreeSet::new(),
            container_done: false,
            pending: Vec::new(),
            guard: None,
            guards: 0,
        }
    }

    /// Converts a list of stages.
    pub fn all(&mut self, stages: &[&Node], path: &str) {
        for (i, stage) in stages.iter().enumerate() {
            let path = format!("{path}[{i}]");
            for (key, node) in stage.as_map().unwrap_or_default() {
                self.one(&key.text, node, &format!("{path}.{}", key.text));
            }
        }
    }

    /// Ends: what waits to be said is said.
    pub fn finish(&mut self) {
        let comments = std::mem::take(&mut self.pending);
        if !comments.is_empty() {
            self.operators.push(Item {
                comments,
                value: None,
            });
        }
    }

    fn one(&mut self, name: &str, node: &Node, path: &str) {
        match name {
            "docker" | "cri" => self.container(name, node, path),
            "json" => self.json(node, path),
            "logfmt" => self.logfmt(node, path),
            "regex" => self.regex(node, path),
            "replace" => self.replace(node, path),
            "template" => self.template(node, path),
            "timestamp" => self.timestamp(node, path),
            "labels" => self.set_labels(node),
            "structured_metadata" | "non_indexed_labels" => self.set_metadata(node),
            "static_labels" => self.static_labels(node),
            "labeldrop" => self.label_drop(node),
            "labelallow" => self.label_allow(node),
            "output" => self.output(node, path),
            "tenant" => self.set_tenant(node, path),
            "match" => self.matching(node, path),
            "drop" => self.drops(node, path),
            "multiline" => self.multiline(node, path),
            "sampling" => self.sampling(node, path),
            "decolorize" => {
                self.rest(Options::new(node, path));
                let op = self.op("regex_replace", [("field", "body")]);
                self.push(op, [("regex_name", "ansi_control_sequences".into())]);
            }
            other => {
                let say = match other {
                    "metrics" => {
                        "the connector count makes metrics of log records, in a pipeline of metrics"
                    }
                    "limit" => {
                        "lines are not limited by rate; the exporter holds back what Loki refuses for its rate, \
                         and nothing is lost"
                    }
                    "pack" => {
                        "line_format: json of the exporter puts all that is not a label into the line"
                    }
                    "geoip" => "nothing here looks up addresses",
                    "eventlogmessage" => "nothing here reads Windows events",
                    _ => "there is no such stage here",
                };
                self.say(Weight::NoEqual, node, path, say);
            }
        }
    }

    /// Says something in front of the next operator.
    fn say(&mut self, weight: Weight, node: &Node, path: &str, text: impl Into<String>) {
        let comment = self.notes.add(weight, &node.span, path, text);
        self.pending.push(comment);
    }

    /// What options are left over is said.
    fn rest(&mut self, options: Options<'_>) {
        let comments = options.rest(self.notes);
        self.pending.extend(comments);
    }

    fn op<const N: usize>(&self, kind: &str, entries: [(&str, &str); N]) -> Map {
        let mut op = map([("type", kind.into())]);
        for (key, value) in entries {
            op.set(key, value);
        }
        op
    }

    /// Adds an operator, which acts if the stage does.
    fn push<const N: usize>(&mut self, mut op: Map, entries: [(&str, Value); N]) {
        for (key, value) in entries {
            op.set(key, value);
        }
        if let Some(guard) = &self.guard {
            op.set("if", guard.clone());
        }
        self.push_as_it_is(op);
    }

    /// Adds an operator that acts if the stage does and `condition` holds.
    fn push_if(&mut self, op: Map, condition: &str) {
        let mut op = op;
        let both = match &self.guard {
            Some(guard) => format!("{guard} and ({condition})"),
            None => condition.to_owned(),
        };
        op.set("if", both);
        self.push_as_it_is(op);
    }

    fn push_as_it_is(&mut self, op: Map) {
        self.operators.push(Item {
            comments: std::mem::take(&mut self.pending),
            value: Some(op.into()),
        });
    }

    /// Where a name is looked for: what was extracted, or else a label.
    fn field_of(&self, name: &str) -> String {
        match self.labels.contains(name) && !self.extracted.contains(name) {
            true => expr::field("resource", name),
            false => expr::field("attributes", name),
        }
    }

    /// What a stage reads: `source`, or the line.
    fn source(&self, source: Option<&String>) -> String {
        match source {
            Some(name) if !name.is_empty() => self.field_of(name),
            _ => "body".to_owned(),
        }
    }

    /// Copies a field, if it is there.
    fn copy(&mut self, from: &str, to: &str) {
        let mut op = self.op("copy", [("from", from), ("to", to)]);
        op.set(QUIET.0, QUIET.1);
        self.push(op, []);
    }

    /// Says something about another place in front of the next operator.
    pub fn remark(&mut self, weight: Weight, span: &Span, path: &str, text: impl Into<String>) {
        let comment = self.notes.add(weight, span, path, text);
        self.pending.push(comment);
    }

    /// Leaves out records for which an expression holds.
    pub fn filter(&mut self, expression: &str) {
        let op = self.op("filter", [("expr", expression)]);
        self.push(op, []);
    }

    /// Sets a label, or takes it away if the value is empty.
    pub fn set(&mut self, label: &str, expression: &str) {
        self.set_where(label, expression, None);
    }

    /// The same, if a condition holds.
    pub fn set_if(&mut self, label: &str, expression: &str, condition: &str) {
        self.set_where(label, expression, Some(condition));
    }

    fn set_where(&mut self, label: &str, expression: &str, condition: Option<&str>) {
        let field = relabel::place_of(label);
        let mut op = self.op(
            "add",
            [("field", &field), ("value", &expr::value(expression))],
        );
        op.set(QUIET.0, QUIET.1);
        match condition {
            Some(condition) => self.push_if(op, condition),
            None => self.push(op, []),
        }
        let mut op = self.op("remove", [("field", &field)]);
        op.set(QUIET.0, QUIET.1);
        self.push_if(op, &format!("{field} == \"\""));
        self.labels.insert(label.to_owned());
    }

    /// Takes a field apart by a pattern.
    pub fn regex_to(&mut self, from: &str, regex: &str, to: &str) {
        let mut op = self.op(
            "regex_parser",
            [("regex", regex), ("parse_from", from), ("parse_to", to)],
        );
        op.set(QUIET.0, QUIET.1);
        self.push(op, []);
    }

    /// Removes a field, if it is there.
    pub fn forget_field(&mut self, field: &str) {
        self.remove(field);
    }

    /// Adds an operator.
    pub fn add(&mut self, op: Map) {
        self.push(op, []);
    }

    /// Copies a field, if it is there.
    pub fn copy_field(&mut self, from: &str, to: &str) {
        self.copy(from, to);
    }
}
