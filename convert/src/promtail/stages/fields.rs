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
        let regex = regex::Regex::new(&expression);
        if regex.is_ok_and(|r| r.capture_names().flatten().next().is_some()) {
            let say = "what its named groups match is not extracted: write a regex_parser in front of it if later stages want it";
            self.say(Weight::Decide, node, path, say);
        }
        let as_it_is = with.replace('$', "$$");
        let by_match = whole_match(&expression).map(|pattern| (pattern, as_it_is.clone()));
        let found = by_match.or_else(|| around_groups(&expression, &as_it_is));
        match found {
            Some((pattern, with)) if !as_it_is.contains("{{") => {
                let mut op = self.op("regex_replace", [("field", &field), ("regex", &pattern)]);
                op.set("replace_with", with);
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

/// A pattern and a replacement that leave what is around the groups of `expression`, and put `with` in the place of
/// each; `None` unless its groups simply follow one another.
fn around_groups(expression: &str, with: &str) -> Option<(String, String)> {
    let (mut pattern, mut replacement) = (String::new(), String::new());
    let (mut outside, mut number) = (String::new(), 0);
    let mut chars = expression.chars().peekable();
    let mut keep = |outside: &mut String, pattern: &mut String, replacement: &mut String| {
        if !outside.is_empty() {
            number += 1;
            pattern.push_str(&format!("({})", std::mem::take(outside)));
            replacement.push_str(&format!("${{{number}}}"));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => outside.extend([c, chars.next()?]),
            '[' => {
                outside.push(c);
                loop {
                    match chars.next()? {
                        '\\' => outside.extend(['\\', chars.next()?]),
                        ']' => break outside.push(']'),
                        c => outside.push(c),
                    }
                }
            }
            '(' => {
                let mut inside = String::new();
                loop {
                    match chars.next()? {
                        '\\' => inside.extend(['\\', chars.next()?]),
                        '(' => return None,
                        ')' => break,
                        c => inside.push(c),
                    }
                }
                if let Some(special) = inside.strip_prefix('?') {
                    let named = special.strip_prefix('P').unwrap_or(special);
                    inside = named.strip_prefix('<')?.split_once('>')?.1.to_owned();
                }
                if matches!(chars.peek(), Some('*' | '+' | '?' | '{')) {
                    return None;
                }
                keep(&mut outside, &mut pattern, &mut replacement);
                pattern.push_str(&format!("(?:{inside})"));
                replacement.push_str(with);
            }
            '|' => return None,
            c => outside.push(c),
        }
    }
    keep(&mut outside, &mut pattern, &mut replacement);
    let groups = |text: &str| regex::Regex::new(text).is_ok();
    (groups(expression) && groups(&pattern)).then_some((pattern, replacement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_groups_stays() {
        for (expression, expect) in [
            ("token=(\\S+)", Some("(token=)(?:\\S+) ${1}X")),
            (
                "(?P<a>\\d+)-(\\d+) x",
                Some("(?:\\d+)(-)(?:\\d+)( x) X${1}X${2}"),
            ),
            ("[(](a)[)]", Some("([(])(?:a)([)]) ${1}X${2}")),
            ("\\((a)", Some("(\\()(?:a) ${1}X")),
            ("a(b)?", None),
            ("a((b)c)", None),
            ("a(b)|c", None),
            ("a(?:b)(c)", None),
            ("a(b", None),
        ] {
            let got = around_groups(expression, "X").map(|(p, r)| format!("{p} {r}"));
            assert_eq!(got.as_deref(), expect, "{expression}");
        }
        let (pattern, with) = around_groups("id=(\\w+); pw=(\\w+)", "*").unwrap();
        let regex = regex::Regex::new(&pattern).unwrap();
        let replaced = regex.replace_all("id=a; pw=b, id=c; pw=d", with.as_str());
        assert_eq!(replaced, "id=*; pw=*, id=*; pw=*");
    }

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
