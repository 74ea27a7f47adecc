//! `[FILTER]`.

use super::chain::{Chain, accessor, key, matching};
use super::parsers::{self, Use};
use super::source::{Properties, Section};
use crate::expr;
use crate::note::{Notes, Weight};

/// What a filter asks of the pipeline besides operators.
#[derive(Default)]
pub struct Wanted {
    /// `k8s_attributes`, with `labels` and `annotations`.
    pub kubernetes: Option<(bool, bool)>,
}

/// Adds what a filter does.
pub fn filter(
    mut p: Properties<'_>,
    all: &[Section],
    chain: &mut Chain,
    wanted: &mut Wanted,
    notes: &mut Notes,
) {
    let name = p.text("name").unwrap_or_default().to_ascii_lowercase();
    for key in ["match", "match_regex", "alias"] {
        p.all(key);
    }
    p.remark(
        notes,
        Weight::NotNeeded,
        "log_level",
        "the agent has one level of logging",
    );
    match name.as_str() {
        "parser" => parser(&mut p, all, chain, notes),
        "grep" => grep(&mut p, chain, notes),
        "record_modifier" => record_modifier(&mut p, chain, notes),
        "modify" => return modify(p, chain, notes),
        "nest" => nest(&mut p, chain, notes),
        "multiline" => {
            let field = key(&p
                .text("multiline.key_content")
                .unwrap_or_else(|| "log".to_owned()));
            let say = "waiting lines are not limited by memory but by max_sources and max_log_size of recombine";
            for option in [
                "buffer",
                "mode",
                "emitter_name",
                "emitter_storage.type",
                "emitter_mem_buf_limit",
            ] {
                p.remark(notes, Weight::NotNeeded, option, say);
            }
            let wait = p.remark(
                notes,
                Weight::Decide,
                "flush_ms",
                "set force_flush_period of recombine",
            );
            chain.comments(wait);
            for name in p.list("multiline.parser") {
                let path = p.path.clone();
                parsers::multiline(&name, &field, all, chain, &p.section.place, &path, notes);
            }
        }
        "kubernetes" => {
            let labels = p.flag("labels").unwrap_or(true);
            let annotations = p.flag("annotations").unwrap_or(true);
            wanted.kubernetes = Some((labels, annotations));
            let say = "the processor k8s_attributes asks the API for what is known of a pod; its fields have the names of the \
                       semantic conventions, not kubernetes[...]";
            chain.comment(p.note(notes, Weight::Decide, say));
            for option in [
                "kube_url",
                "kube_ca_file",
                "kube_ca_path",
                "kube_token_file",
                "kube_tag_prefix",
                "kube_meta_cache_ttl",
                "use_kubelet",
                "buffer_size",
                "tls.verify",
                "tls.debug",
                "merge_log_trim",
                "cache_use_docker_id",
            ] {
                let say = "the API is asked as the service account of the pod, and the path of a log says which pod it is";
                p.remark(notes, Weight::NotNeeded, option, say);
            }
            for option in ["k8s-logging.parser", "k8s-logging.exclude"] {
                let say = "annotations of pods choose no parser and leave nothing out: write operators and a filter";
                let comment = p.remark(notes, Weight::Decide, option, say);
                chain.comments(comment);
            }
            if p.flag("merge_log") == Some(true) {
                let to = p.text("merge_log_key");
                chain.quiet(
                    "json_parser",
                    None,
                    [
                        ("parse_from", "attributes.log"),
                        ("parse_to", "attributes.__parsed"),
                    ],
                );
                let found = Some("attributes.__parsed != nil");
                if p.flag("keep_log") == Some(false) {
                    chain.quiet("remove", found, [("field", "attributes.log")]);
                }
                let from = "attributes.__parsed";
                match to {
                    Some(to) => chain.quiet("move", found, [("from", from), ("to", &key(&to))]),
                    None => chain.quiet("flatten", found, [("field", from)]),
                }
            }
            p.all("keep_log");
        }
        other => {
            let say = match other {
                "lua" => {
                    "nothing here runs Lua: write operators, or statements of the processor transform"
                }
                "rewrite_tag" => {
                    "there are no tags: the connector routing sorts records by what is in them"
                }
                "throttle" => {
                    "records are not limited by rate; where a destination does not take more, sources pause"
                }
                "stdout" => "tailwater tap shows what passes",
                "geoip2" => "nothing here looks up addresses",
                _ => "there is no such filter here",
            };
            chain.comment(p.note(notes, Weight::NoEqual, say));
            return;
        }
    }
    let comments = p.rest(notes);
    chain.comments(comments);
}

fn parser(p: &mut Properties<'_>, all: &[Section], chain: &mut Chain, notes: &mut Notes) {
    let name = p.text("key_name").unwrap_or_else(|| "log".to_owned());
    let (keep_others, keep_field) = (
        p.flag("reserve_data").unwrap_or(false),
        p.flag("preserve_key").unwrap_or(false),
    );
    let parsers = p.all("parser");
    if parsers.len() > 1 {
        let say = "of several parsers the first that matches counts; here each is tried on the field, if it is still there";
        chain.comment(p.note(notes, Weight::Decide, say));
    }
    for parser in parsers {
        let one = Use {
            name: &parser.value,
            field: &accessor(&name),
            keep_others,
            keep_field,
        };
        one.apply(all, chain, &parser.place, &p.path, notes);
    }
}

fn grep(p: &mut Properties<'_>, chain: &mut Chain, notes: &mut Notes) {
    let either = p
        .text("logical_op")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let join = match either.as_str() {
        "or" => " or ",
        _ => " and ",
    };
    for (option, keeps) in [("regex", true), ("exclude", false)] {
        let mut conditions = Vec::new();
        for rule in p.all(option) {
            let (name, pattern) = rule
                .value
                .split_once(char::is_whitespace)
                .unwrap_or((&rule.value, ""));
            match matching(&accessor(name), pattern.trim(), &rule.place, &p.path, notes) {
                Ok(condition) => conditions.push(condition),
                Err(comment) => chain.comment(comment),
            }
        }
        // Without a logical operation each rule stands by itself: all of Regex, any of Exclude.
        let join = match (either.as_str(), keeps) {
            ("" | "legacy", false) => " or ",
            _ => join,
        };
        if conditions.is_empty() {
            continue;
        }
        let all = conditions.join(join);
        let drop = match keeps {
            true => format!("not ({all})"),
            false => all,
        };
        chain.push("filter", [("expr", drop.into())]);
    }
}

fn record_modifier(p: &mut Properties<'_>, chain: &mut Chain, notes: &mut Notes) {
    for record in p.all("record") {
        let (name, value) = record
            .value
            .split_once(char::is_whitespace)
            .unwrap_or((&record.value, ""));
        add(chain, &key(name), value.trim(), None);
    }
    for removed in p.all("remove_key") {
        chain.quiet("remove", None, [("field", &key(&removed.value))]);
    }
    let mut kept = p.all("allowlist_key");
    kept.extend(p.all("whitelist_key"));
    if !kept.is_empty() {
        let fields = kept.iter().map(|k| key(&k.value)).collect();
        chain.retain(fields, None);
    }
    let comment = p.remark(
        notes,
        Weight::NoEqual,
        "uuid_key",
        "transform sets one by UUID()",
    );
    chain.comments(comment);
}

/// Sets a field to a text, in which variables of the environment count.
fn add(chain: &mut Chain, field: &str, value: &str, condition: Option<&str>) {
    let mut op = crate::yaml::map([("type", "add".into()), ("field", field.into())]);
    op.set("value", crate::yaml::with_environment(value).0);
    op.set_some("if", condition);
    chain.push_map(op);
}

/// Rules are applied in their order.
fn modify(mut p: Properties<'_>, chain: &mut Chain, notes: &mut Notes) {
    let mut conditions = Vec::new();
    for rule in p.all("condition") {
        match condition(&rule.value) {
            Some(condition) => conditions.push(condition),
            None => {
                let say = format!(
                    "the condition {:?} has no equal; the filter was left out",
                    rule.value
                );
                chain.comment(notes.add(Weight::Decide, &rule.place, &p.path, say));
                return;
            }
        }
    }
    let all = conditions.join(" and ");
    let with = |more: &str| match (all.is_empty(), more.is_empty()) {
        (true, true) => None,
        (true, false) => Some(more.to_owned()),
        (false, true) => Some(all.clone()),
        (false, false) => Some(format!("{all} and {more}")),
    };
    for property in &p.section.properties {
        let (first, second) = property
            .value
            .split_once(char::is_whitespace)
            .unwrap_or((&property.value, ""));
        let (from, to) = (key(first), key(second.trim()));
        let free = format!("{to} == nil");
        match property.key.to_ascii_lowercase().as_str() {
            "set" => add(chain, &from, second.trim(), with("").as_deref()),
            "add" => add(
                chain,
                &from,
                second.trim(),
                with(&format!("{from} == nil")).as_deref(),
            ),
            "remove" => chain.quiet("remove", with("").as_deref(), [("field", &from)]),
            "rename" => chain.quiet(
                "move",
                with(&free).as_deref(),
                [("from", &from), ("to", &to)],
            ),
            "hard_rename" => {
                chain.quiet("move", with("").as_deref(), [("from", &from), ("to", &to)])
            }
            "copy" => chain.quiet(
                "copy",
                with(&free).as_deref(),
                [("from", &from), ("to", &to)],
            ),
            "hard_copy" => chain.quiet("copy", with("").as_deref(), [("from", &from), ("to", &to)]),
            "move_to_start" | "move_to_end" => {
                let say = "the order of fields has no meaning";
                notes.add(Weight::NotNeeded, &property.place, &p.path, say);
            }
            "remove_wildcard" | "remove_regex" => {
                let say = format!(
                    "{} {:?}: delete_matching_keys of the processor transform removes by a pattern",
                    property.key, property.value
                );
                chain.comment(notes.add(Weight::Decide, &property.place, &p.path, say));
            }
            "name" | "match" | "match_regex" | "alias" | "condition" | "log_level" => {}
            other => {
                let say = format!("there is no {other:?} here");
                chain.comment(notes.add(Weight::NoEqual, &property.place, &p.path, say));
            }
        }
    }
}

fn condition(rule: &str) -> Option<String> {
    let mut words = rule.splitn(3, char::is_whitespace);
    let (what, field) = (words.next()?.to_ascii_lowercase(), key(words.next()?));
    let value = words.next().unwrap_or_default().trim();
    let text = expr::text_of(&field);
    let matches = || {
        regex::Regex::new(value).ok()?;
        Some(format!("{text} matches {}", expr::quoted(value)))
    };
    Some(match what.as_str() {
        "key_exists" => format!("{field} != nil"),
        "key_does_not_exist" => format!("{field} == nil"),
        "key_value_equals" => format!("{text} == {}", expr::quoted(value)),
        "key_value_does_not_equal" => format!("{text} != {}", expr::quoted(value)),
        "key_value_matches" => matches()?,
        "key_value_does_not_match" => format!("not ({})", matches()?),
        _ => return None,
    })
}

fn nest(p: &mut Properties<'_>, chain: &mut Chain, notes: &mut Notes) {
    let operation = p.text("operation").unwrap_or_default().to_ascii_lowercase();
    let prefix = p.text("add_prefix").or(p.text("remove_prefix"));
    if prefix.is_some() {
        let say = "names are not given a prefix: move the fields one by one";
        chain.comment(p.note(notes, Weight::Decide, say));
    }
    match operation.as_str() {
        "lift" => {
            let under = p.text("nested_under").unwrap_or_default();
            chain.quiet("flatten", None, [("field", &key(&under))]);
        }
        _ => {
            let under = p.text("nest_under").unwrap_or_default();
            for wildcard in p.all("wildcard") {
                if wildcard.value.contains('*') {
                    let say = format!(
                        "fields that match {:?} are not nested: move them one by one",
                        wildcard.value
                    );
                    chain.comment(notes.add(Weight::Decide, &wildcard.place, &p.path, say));
                    continue;
                }
                let to = expr::field(&key(&under), &wildcard.value);
                chain.quiet("move", None, [("from", &key(&wildcard.value)), ("to", &to)]);
            }
        }
    }
}
