//! Stages that extract: `docker`, `cri`, `json`, `logfmt`, `regex`, and `multiline`.

use tailwater_config::Node;

use super::{QUIET, Stages};
use crate::expr;
use crate::note::Weight;
use crate::options::Options;

/// Where a parser puts what only a part of is wanted of.
const PARSED: &str = "__parsed";

impl Stages<'_> {
    pub(super) fn container(&mut self, name: &str, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        for key in [
            "max_partial_lines",
            "max_partial_line_size",
            "max_partial_line_size_truncate",
        ] {
            let say =
                "max_log_size of the operator container is the limit of a joined line, in bytes";
            let comment = o.remark(self.notes, Weight::Decide, key, say);
            self.pending.extend(comment);
        }
        self.rest(o);
        if std::mem::take(&mut self.container_done) {
            return;
        }
        let mut op = self.op("container", []);
        if name == "docker" {
            op.set("format", "docker");
        }
        op.set("add_metadata_from_filepath", false);
        op.set(QUIET.0, QUIET.1);
        self.push(op, []);
        self.after_container(name);
    }

    /// The label and the field that Promtail's stage sets besides the line and its time.
    pub(in crate::promtail) fn after_container(&mut self, name: &str) {
        let stream = "attributes[\"log.iostream\"]";
        self.copy(stream, "attributes.stream");
        self.copy(stream, "resource.stream");
        self.labels.insert("stream".to_owned());
        self.extracted.insert("stream".to_owned());
        if name == "cri" {
            self.copy("attributes.logtag", "attributes.flags");
            self.extracted.insert("flags".to_owned());
        }
    }

    pub(super) fn json(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let source = o.text("source");
        let from = self.source(source.as_ref());
        let drop = o.flag("drop_malformed").unwrap_or(false);
        let expressions = o.entries("expressions");
        self.rest(o);
        self.parse("json_parser", &from, drop, []);
        for (name, node) in expressions {
            let path = format!("{path}.expressions.{name}");
            let expression = match node.is_null() {
                true => name.clone(),
                false => crate::options::text(node).unwrap_or_default(),
            };
            let expression = match expression.is_empty() {
                true => name.clone(),
                false => expression,
            };
            match members(&expression) {
                Some(members) => self.take(&members, &name),
                None => {
                    let say = format!(
                        "the JMESPath {expression:?} is more than names and dots; write what it picks as the value of \
                         an add operator, EXPR(attributes.{PARSED}...), in front of the remove that follows"
                    );
                    self.say(Weight::Decide, node, &path, say);
                }
            }
        }
        self.forget();
    }

    pub(super) fn logfmt(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let source = o.text("source");
        let from = self.source(source.as_ref());
        let mapping = o.entries("mapping");
        self.rest(o);
        let say = "a line with a word that is no key=value is not parsed at all here; Promtail skips the word";
        self.say(Weight::Decide, node, path, say);
        self.parse("key_value_parser", &from, false, []);
        for (name, node) in mapping {
            let key = crate::options::text(node).filter(|k| !k.is_empty());
            self.take(&[key.unwrap_or_else(|| name.clone())], &name);
        }
        self.forget();
    }

    fn parse<const N: usize>(
        &mut self,
        kind: &str,
        from: &str,
        drop: bool,
        more: [(&str, crate::yaml::Value); N],
    ) {
        let to = expr::field("attributes", PARSED);
        let mut op = self.op(kind, [("parse_from", from), ("parse_to", &to)]);
        op.set(QUIET.0, if drop { "drop_quiet" } else { QUIET.1 });
        self.push(op, more);
    }

    /// Extracts a member of what was parsed.
    fn take(&mut self, members: &[String], name: &str) {
        let mut from = expr::field("attributes", PARSED);
        for member in members {
            from = expr::field(&from, member);
        }
        self.copy(&from, &expr::field("attributes", name));
        self.extracted.insert(name.to_owned());
    }

    fn forget(&mut self) {
        let field = expr::field("attributes", PARSED);
        let mut op = self.op("remove", [("field", &field)]);
        op.set(QUIET.0, QUIET.1);
        self.push(op, []);
    }

    pub(super) fn regex(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let source = o.text("source");
        let from = self.source(source.as_ref());
        let expression = o.text("expression").unwrap_or_default();
        let to_labels = o.flag("labels_from_groups").unwrap_or(false);
        self.rest(o);
        let names = match regex::Regex::new(&expression) {
            Ok(regex) => regex.capture_names().flatten().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        };
        if names.is_empty() {
            let say =
                format!("the expression {expression:?} has no named groups that could be read");
            return self.say(Weight::NoEqual, node, path, say);
        }
        let mut op = self.op("regex_parser", [("regex", &expression)]);
        if from != "body" {
            op.set("parse_from", from);
        }
        op.set(QUIET.0, QUIET.1);
        self.push(op, []);
        for name in names {
            if to_labels {
                let from = expr::field("attributes", &name);
                self.copy(&from, &expr::field("resource", &name));
                self.labels.insert(name.clone());
            }
            self.extracted.insert(name);
        }
    }

    pub(super) fn multiline(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let first = o.text("firstline").unwrap_or_default();
        let wait = o.text("max_wait_time").unwrap_or_else(|| "3s".to_owned());
        let lines = o.text("max_lines").unwrap_or_else(|| "128".to_owned());
        self.rest(o);
        let is_first = format!("{} matches {}", expr::text_of("body"), expr::quoted(&first));
        let op = self.op("recombine", [("combine_field", "body")]);
        self.push(
            op,
            [
                ("is_first_entry", is_first.into()),
                ("force_flush_period", crate::yaml::Value::Plain(wait)),
                ("max_batch_size", crate::yaml::Value::Plain(lines)),
            ],
        );
    }
}

/// The names of a JMESPath that consists of names and dots.
fn members(expression: &str) -> Option<Vec<String>> {
    let mut members = Vec::new();
    let mut rest = expression;
    loop {
        let (member, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len()),
            ),
        };
        let digit = member.starts_with(|c: char| c.is_ascii_digit());
        if member.is_empty() || (digit && !rest.starts_with('"')) || member.contains('\\') {
            return None;
        }
        members.push(member.to_owned());
        match after.strip_prefix('.') {
            _ if after.is_empty() => return Some(members),
            Some(more) => rest = more,
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_names_are_told_from_others() {
        for (path, expect) in [
            ("a", Some("a")),
            ("a.b_c", Some("a|b_c")),
            ("\"a-b\".c", Some("a-b|c")),
            ("a[0]", None),
            ("a.", None),
            ("", None),
            ("a | b", None),
            ("to_number(a)", None),
            ("\"a", None),
            ("1a", None),
        ] {
            let got = members(path).map(|m| m.join("|"));
            assert_eq!(got.as_deref(), expect, "{path}");
        }
    }
}
