//! `relabel_configs`. Where all labels of a target are constants the rules are carried out here; where they are
//! those of each record, rules become operators.

use std::collections::BTreeMap;

use regex::Regex;
use tailwater_config::{Node, Span};

use super::stages::Stages;
use crate::expr;
use crate::note::{Notes, Weight};
use crate::options::Options;

/// A rule.
pub struct Rule {
    /// `source_labels`.
    pub sources: Vec<String>,
    /// Between their values.
    pub separator: String,
    /// Has to match as a whole.
    pub regex: String,
    /// The label that is set.
    pub target: String,
    /// Its value.
    pub replacement: String,
    /// What is done.
    pub action: String,
    /// Where it stands.
    pub path: String,
    /// Where it was written.
    pub span: Span,
}

/// Reads rules.
pub fn rules(nodes: &[&Node], path: &str, notes: &mut Notes) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let mut o = Options::new(node, format!("{path}[{i}]"));
        let mut text = |key: &str, or: &str| o.text(key).unwrap_or_else(|| or.to_owned());
        let rule = Rule {
            separator: text("separator", ";"),
            regex: text("regex", "(.*)"),
            target: text("target_label", ""),
            replacement: text("replacement", "$1"),
            action: text("action", "replace").to_ascii_lowercase(),
            sources: o.texts("source_labels"),
            path: o.path.clone(),
            span: node.span.clone(),
        };
        // Of hashmod, which is refused as a whole.
        o.has("modulus");
        o.rest(notes);
        rules.push(rule);
    }
    rules
}

impl Rule {
    fn pattern(&self) -> Option<Regex> {
        Regex::new(&format!("^(?s:{})$", self.regex)).ok()
    }

    /// Whether it sets its target to its sources as they are.
    pub fn joins(&self) -> bool {
        self.regex == "(.*)" && matches!(&*self.replacement, "$1" | "${1}")
    }

    /// Whether it sets its target to the first of its sources that is not empty, as the charts for
    /// Kubernetes have it.
    pub fn chooses(&self) -> bool {
        self.regex == "^;*([^;]+)(;.*)?$"
            && self.separator == ";"
            && matches!(&*self.replacement, "$1" | "${1}")
    }
}

/// Carries out rules on labels that are known; false if the target is dropped.
pub fn carry_out(rules: &[Rule], labels: &mut BTreeMap<String, String>, notes: &mut Notes) -> bool {
    for rule in rules {
        let values: Vec<&str> = rule
            .sources
            .iter()
            .map(|s| labels.get(s).map_or("", String::as_str))
            .collect();
        let joined = values.join(&rule.separator);
        let Some(pattern) = rule.pattern() else {
            let say = format!(
                "the regex {:?} could not be read; the rule was left out",
                rule.regex
            );
            notes.add(Weight::Decide, &rule.span, &rule.path, say);
            continue;
        };
        match rule.action.as_str() {
            "keep" if !pattern.is_match(&joined) => return false,
            "drop" if pattern.is_match(&joined) => return false,
            "keep" | "drop" => {}
            "replace" => {
                if let Some(found) = pattern.captures(&joined) {
                    let (mut target, mut value) = (String::new(), String::new());
                    found.expand(&rule.target, &mut target);
                    found.expand(&rule.replacement, &mut value);
                    match value.is_empty() {
                        true => labels.remove(&target),
                        false => labels.insert(target, value),
                    };
                }
            }
            "lowercase" => {
                labels.insert(rule.target.clone(), joined.to_lowercase());
            }
            "uppercase" => {
                labels.insert(rule.target.clone(), joined.to_uppercase());
            }
            "labelmap" => {
                let mapped: Vec<(String, String)> = labels
                    .iter()
                    .filter_map(|(name, value)| {
                        let found = pattern.captures(name)?;
                        let mut to = String::new();
                        found.expand(&rule.replacement, &mut to);
                        Some((to, value.clone()))
                    })
                    .collect();
                labels.extend(mapped);
            }
            "labeldrop" => labels.retain(|name, _| !pattern.is_match(name)),
            "labelkeep" => labels.retain(|name, _| pattern.is_match(name)),
            other => {
                let say = format!("the action {other:?} has no equal; the rule was left out");
                notes.add(Weight::NoEqual, &rule.span, &rule.path, say);
            }
        }
    }
    true
}

/// Makes operators of a rule on records. `lookup` is the field of a label that discovery would have set.
pub fn operators(rule: &Rule, lookup: &dyn Fn(&str) -> Option<String>, stages: &mut Stages<'_>) {
    let mut fields = Vec::new();
    for source in &rule.sources {
        match lookup(source).or_else(|| own(source, stages)) {
            Some(field) => fields.push(field),
            None => {
                let say = format!("nothing here sets {source}; the rule was left out");
                return stages.remark(Weight::Decide, &rule.span, &rule.path, say);
            }
        }
    }
    let texts: Vec<String> = fields.iter().map(|f| expr::text_of(f)).collect();
    let joined = match texts.is_empty() {
        true => "\"\"".to_owned(),
        false => texts.join(&format!(" + {} + ", expr::quoted(&rule.separator))),
    };
    let whole = |text: &str| expr::matches_whole(&format!("({text})"), &rule.regex);
    match rule.action.as_str() {
        "keep" => stages.filter(&format!("not ({})", whole(&joined))),
        "drop" => stages.filter(&whole(&joined)),
        "replace" if rule.joins() => stages.set(&rule.target, &joined),
        "replace" if rule.chooses() => {
            let last = "\"\"".to_owned();
            let first = texts
                .iter()
                .rev()
                .fold(last, |rest, text| match rest.as_str() {
                    "\"\"" => text.clone(),
                    rest => format!("{text} != \"\" ? {text} : ({rest})"),
                });
            stages.set(&rule.target, &first);
        }
        "replace" => by_groups(rule, &joined, &whole(&joined), stages),
        "lowercase" => stages.set(&rule.target, &format!("lower({joined})")),
        "uppercase" => stages.set(&rule.target, &format!("upper({joined})")),
        other => {
            let say = format!(
                "the action {other:?} on labels of each record has no equal; name the labels one by one"
            );
            stages.remark(Weight::NoEqual, &rule.span, &rule.path, say);
        }
    }
}

/// The field of a label that a rule has set.
fn own(label: &str, stages: &Stages<'_>) -> Option<String> {
    stages.labels.contains(label).then(|| place_of(label))
}

/// Where a label is kept: one that begins with two underscores is not sent.
pub fn place_of(label: &str) -> String {
    match label.starts_with("__") {
        true => expr::field("attributes", label),
        false => expr::field("resource", label),
    }
}

fn by_groups(rule: &Rule, joined: &str, whole: &str, stages: &mut Stages<'_>) {
    let Some(parts) = references(&rule.replacement) else {
        let say = format!(
            "the replacement {:?} could not be read; the rule was left out",
            rule.replacement
        );
        return stages.remark(Weight::Decide, &rule.span, &rule.path, say);
    };
    if parts.iter().all(|p| matches!(p, Part::Text(_))) {
        let value = parts_as_expression(&parts, "");
        return stages.set_if(&rule.target, &value, whole);
    }
    let groups = "attributes.__groups";
    stages.set("__joined", joined);
    stages.regex_to("attributes.__joined", &named_groups(&rule.regex), groups);
    let value = parts_as_expression(&parts, groups);
    stages.set_if(&rule.target, &value, &format!("{groups} != nil"));
    stages.forget_field("attributes.__joined");
    stages.forget_field(groups);
}

enum Part {
    Text(String),
    Group(String),
}

fn parts_as_expression(parts: &[Part], groups: &str) -> String {
    let texts = parts.iter().map(|part| match part {
        Part::Text(text) => expr::quoted(text),
        Part::Group(name) => expr::text_of(&expr::field(groups, name)),
    });
    let texts: Vec<String> = texts.collect();
    match texts.is_empty() {
        true => "\"\"".to_owned(),
        false => texts.join(" + "),
    }
}

/// Texts and references of a replacement; `None` if it has one that cannot be.
fn references(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        if let Some(after) = after.strip_prefix('$') {
            parts.push(Part::Text("$".to_owned()));
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(inside) => inside.split_once('}')?,
            None => after.split_at(
                after
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(after.len()),
            ),
        };
        if name.is_empty() {
            return None;
        }
        parts.push(Part::Group(match name.parse::<u32>() {
            Ok(n) => format!("g{n}"),
            Err(_) => name.to_owned(),
        }));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Some(parts)
}

/// A pattern whose groups without a name are called `g1`, `g2`, by their number.
fn named_groups(pattern: &str) -> String {
    let mut out = "^(?:".to_owned();
    let (mut number, mut class) = (0, false);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            '[' => class = true,
            ']' => class = false,
            '(' if !class => match chars.peek() {
                Some('?') => {
                    let named = pattern_is_named(chars.clone().collect::<String>().as_str());
                    number += u32::from(named);
                }
                _ => {
                    number += 1;
                    out.push_str(&format!("?P<g{number}>"));
                }
            },
            _ => {}
        }
    }
    out.push_str(")$");
    out
}

fn pattern_is_named(rest: &str) -> bool {
    let is = |prefix: &str| rest.starts_with(prefix);
    is("?P<") || (is("?<") && !is("?<=") && !is("?<!"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::parse;

    fn read(yaml: &str) -> Vec<Rule> {
        let node = parse(yaml, "f").unwrap();
        let nodes: Vec<&Node> = node.as_list().unwrap().iter().collect();
        rules(&nodes, "relabel_configs", &mut Notes::default())
    }

    /// Guarantee: rules on constants do what Prometheus defines.
    #[test]
    fn rules_are_carried_out_on_constants() {
        for (yaml, expect) in [
            (
                "[{source_labels: [a, b], target_label: c}]",
                Some("a=1 b=2 c=1;2"),
            ),
            (
                "[{source_labels: [a, b], separator: /, target_label: c, regex: '(.*)/(.*)', replacement: '$2-${1}x'}]",
                Some("a=1 b=2 c=2-1x"),
            ),
            (
                "[{source_labels: [a], regex: x, target_label: c}]",
                Some("a=1 b=2"),
            ),
            ("[{source_labels: [none], target_label: a}]", Some("b=2")),
            (
                "[{source_labels: [a], regex: '1', action: keep}]",
                Some("a=1 b=2"),
            ),
            ("[{source_labels: [a], regex: '2', action: keep}]", None),
            ("[{source_labels: [a], regex: '1', action: drop}]", None),
            ("[{action: labeldrop, regex: b}]", Some("a=1")),
            ("[{action: labelkeep, regex: b}]", Some("b=2")),
            (
                "[{action: labelmap, regex: '(a)', replacement: 'x_$1'}]",
                Some("a=1 b=2 x_a=1"),
            ),
            (
                "[{target_label: c, replacement: 'X'}, {source_labels: [c], target_label: c, action: lowercase}]",
                Some("a=1 b=2 c=x"),
            ),
            (
                "[{source_labels: [a], regex: '1', target_label: c, replacement: ''}]",
                Some("a=1 b=2"),
            ),
        ] {
            let start = [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
            let mut labels = BTreeMap::from(start);
            let kept = carry_out(&read(yaml), &mut labels, &mut Notes::default());
            let text: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(kept.then(|| text.join(" ")).as_deref(), expect, "{yaml}");
        }
    }

    #[test]
    fn groups_get_names() {
        for (pattern, expect) in [
            ("(a)(b)", "^(?:(?P<g1>a)(?P<g2>b))$"),
            (
                "(?:a)([(])\\((?P<x>c)(d)",
                "^(?:(?:a)(?P<g1>[(])\\((?P<x>c)(?P<g3>d))$",
            ),
            ("a", "^(?:a)$"),
        ] {
            assert_eq!(named_groups(pattern), expect, "{pattern}");
        }
    }
}
