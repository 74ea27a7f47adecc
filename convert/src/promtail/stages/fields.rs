//! Stages that move things between labels, what was extracted, and the line.

use tailwater_config::Node;

use super::{QUIET, Stages, TENANT};
use crate::expr;
use crate::note::Weight;
use crate::options::{Options, text};

impl Stages<'_> {
    pub(super) fn set_labels(&mut self, node: &Node) {
        for (key, node) in node.as_map().unwrap_or_default() {
            let source = text(node).filter(|s| !s.is_empty());
            let from = self.field_of(source.as_ref().unwrap_or(&key.text));
            let to = expr::field("resource", &key.text);
            if from != to {
                self.copy(&from, &to);
            }
            self.labels.insert(key.text.clone());
        }
    }

    pub(super) fn set_metadata(&mut self, node: &Node) {
        for (key, node) in node.as_map().unwrap_or_default() {
            let source = text(node).filter(|s| !s.is_empty());
            let source = source.as_ref().unwrap_or(&key.text);
            let to = expr::field("attributes", &key.text);
            let from = match self.labels.contains(source) {
                true => expr::field("resource", source),
                false => self.field_of(source),
            };
            if from != to {
                self.copy(&from, &to);
            }
            // What was a label is one no longer.
            if self.labels.contains(source) {
                self.remove(&from);
            }
            self.extracted.insert(key.text.clone());
            self.metadata.insert(key.text.clone());
        }
    }

    pub(super) fn static_labels(&mut self, node: &Node) {
        for (key, node) in node.as_map().unwrap_or_default() {
            let Some(value) = text(node) else { continue };
            let field = expr::field("resource", &key.text);
            let op = self.op("add", [("field", &field), ("value", &value)]);
            self.push(op, []);
            self.labels.insert(key.text.clone());
        }
    }

    pub(super) fn label_drop(&mut self, node: &Node) {
        for name in node.as_list().unwrap_or_default().iter().filter_map(text) {
            self.remove(&expr::field("resource", &name));
        }
    }

    /// Removes a field, if it is there.
    pub(super) fn remove(&mut self, field: &str) {
        let mut op = self.op("remove", [("field", field)]);
        op.set(QUIET.0, QUIET.1);
        self.push(op, []);
    }

    pub(super) fn label_allow(&mut self, node: &Node) {
        let allowed: Vec<String> = node
            .as_list()
            .unwrap_or_default()
            .iter()
            .filter_map(text)
            .collect();
        let others: Vec<String> = self.labels.iter().cloned().collect();
        for name in others.iter().filter(|name| !allowed.contains(name)) {
            self.remove(&expr::field("resource", name));
        }
    }

    pub(super) fn output(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let source = o.text("source").unwrap_or_default();
        self.rest(o);
        let from = self.field_of(&source);
        self.copy(&from, "body");
    }

    pub(super) fn set_tenant(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let (value, label, source) = (o.text("value"), o.text("label"), o.text("source"));
        self.rest(o);
        let to = expr::field("resource", TENANT);
        match (value, label, source) {
            (Some(value), ..) => {
                let op = self.op("add", [("field", &to), ("value", &value)]);
                self.push(op, []);
            }
            (_, Some(label), _) => self.copy(&expr::field("resource", &label), &to),
            (.., Some(source)) => {
                let from = self.field_of(&source);
                self.copy(&from, &to);
            }
            _ => return,
        }
        self.tenant = true;
    }

    pub(super) fn replace(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let source = o.text("source");
        let field = self.source(source.as_ref());
        let expression = o.text("expression").unwrap_or_default();
        let with = o.text("replace").unwrap_or_default();
        self.rest(o);
        let whole = whole_match(&expression);
        match whole {
            Some(pattern) if !with.contains("{{") => {
                let mut op = self.op("regex_replace", [("field", &field), ("regex", &pattern)]);
                // What is between dollars is no reference there.
                op.set("replace_with", with.replace('$', "$$"));
                op.set(QUIET.0, QUIET.1);
                self.push(op, []);
            }
            _ => {
                let say = format!(
                    "it replaces what the groups of {expression:?} match, or with a template; regex_replace replaces the \
                     whole match: put groups around what is to stay and write ${{1}} and so on in replace_with"
                );
                self.say(Weight::Decide, node, path, say);
            }
        }
    }

    pub(super) fn sampling(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let rate = o.number("rate").unwrap_or(1.0);
        let say = "what is left out is counted as filtered, by operator";
        let comment = o.remark(self.notes, Weight::NotNeeded, "drop_counter_reason", say);
        self.pending.extend(comment);
        self.rest(o);
        let op = self.op("filter", [("expr", "true")]);
        let ratio = format!("{:.6}", 1.0 - rate);
        let ratio = ratio.trim_end_matches('0');
        let ratio = match ratio.strip_suffix('.') {
            Some(whole) => format!("{whole}.0"),
            None => ratio.to_owned(),
        };
        self.push(op, [("drop_ratio", crate::yaml::Value::Plain(ratio))]);
    }
}

/// The pattern whose whole match a replace stage replaces: one without groups, or in one group as a whole.
fn whole_match(expression: &str) -> Option<String> {
    let groups = |text: &str| regex::Regex::new(text).map(|r| r.captures_len() - 1);
    match groups(expression) {
        Ok(0) => Some(expression.to_owned()),
        Ok(1) => {
            let inside = expression.strip_prefix('(')?.strip_suffix(')')?;
            let inside = match inside.strip_prefix("?P<") {
                Some(named) => named.split_once('>')?.1,
                None => inside,
            };
            (groups(inside) == Ok(0)).then(|| inside.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_as_a_whole_is_told_from_groups_in_it() {
        for (expression, expect) in [
            ("a+", Some("a+")),
            ("(a+)", Some("a+")),
            ("(?P<x>a+)", Some("a+")),
            ("password=(\\S+)", None),
            ("(a)|b", None),
            ("(a)(b)", None),
            ("(a", None),
        ] {
            assert_eq!(whole_match(expression).as_deref(), expect, "{expression}");
        }
    }
}
