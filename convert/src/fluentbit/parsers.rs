//! `[PARSER]` and `[MULTILINE_PARSER]`.

use super::chain::{Chain, key, re2};
use super::source::{Properties, Section};
use crate::expr;
use crate::note::{Notes, Weight};
use crate::yaml::{Value, map};

/// Where a parser puts what it found until it is known that it found something.
const PARSED: &str = "attributes.__parsed";

/// Adds the operators of the parser `name` on `field`. If it finds something, its fields replace the field
/// (unless `keep_field`), or, with `alone`, the whole record.
pub struct Use<'p> {
    /// Which.
    pub name: &'p str,
    /// What it reads.
    pub field: &'p str,
    /// Only that field goes.
    pub keep_others: bool,
    /// That field stays.
    pub keep_field: bool,
}

impl Use<'_> {
    /// Adds its operators.
    pub fn apply(
        &self,
        all: &[Section],
        chain: &mut Chain,
        place: &str,
        path: &str,
        notes: &mut Notes,
    ) {
        let Some(section) = named(all, "parser", self.name) else {
            let say = format!(
                "the parser {:?} is in no file that was read: name its file in Parsers_File, or write the operator",
                self.name
            );
            return chain.comment(notes.add(Weight::Decide, place, path, say));
        };
        let mut p = Properties::new(section);
        p.path = format!("parser.{}", self.name);
        let format = p.text("format").unwrap_or_default().to_ascii_lowercase();
        let pattern = p.text("regex").map(|r| re2(&r));
        let keep_time = p.flag("time_keep").unwrap_or(false);
        let time_key = p.text("time_key").unwrap_or_else(|| "time".to_owned());
        let time_format = p.text("time_format");
        let offset = p.text("time_offset");
        let types = p.text("types").unwrap_or_default();
        remarks(&mut p, chain, notes);
        let p_path = p.path.clone();
        let comments = p.rest(notes);
        chain.comments(comments);
        let from = ("parse_from", self.field);
        let to = ("parse_to", PARSED);
        match format.as_str() {
            "json" => chain.quiet("json_parser", None, [from, to]),
            "logfmt" => chain.quiet("key_value_parser", None, [from, to]),
            "ltsv" => chain.quiet(
                "key_value_parser",
                None,
                [("delimiter", ":"), ("pair_delimiter", "\t"), from, to],
            ),
            "regex" => {
                let pattern = pattern.unwrap_or_default();
                let names =
                    regex::Regex::new(&pattern).map(|r| r.capture_names().flatten().count());
                if names.unwrap_or(0) == 0 {
                    let say = format!(
                        "the pattern {pattern:?} has no named groups, or no equal in RE2, which looks neither ahead nor back"
                    );
                    return chain.comment(notes.add(Weight::Decide, &section.place, path, say));
                }
                chain.quiet("regex_parser", None, [("regex", &pattern), from, to]);
            }
            other => {
                let say = format!("there is no format {other:?} here");
                return chain.comment(notes.add(Weight::NoEqual, &section.place, path, say));
            }
        }
        if let Some(format) = time_format {
            time(&time_key, &format, offset, keep_time, section, chain, notes);
        }
        for (name, kind) in types.split_whitespace().filter_map(|t| t.split_once(':')) {
            let field = expr::field(PARSED, name);
            let value = match kind {
                "integer" => format!("int({field})"),
                "float" => format!("float({field})"),
                "bool" => format!("lower({field}) == \"true\""),
                "hex" => {
                    let say =
                        format!("{name} stays a text: nothing here reads hexadecimal numbers");
                    chain.comment(notes.add(Weight::Decide, &section.place, &p_path, say));
                    continue;
                }
                _ => continue,
            };
            let there = format!("{PARSED} != nil and {field} != nil");
            let entries = [("field", field.as_str()), ("value", &expr::value(&value))];
            chain.quiet("add", Some(&there), entries);
        }
        let found = format!("{PARSED} != nil");
        if !self.keep_others && !self.keep_field {
            chain.retain(vec![PARSED.to_owned()], Some(&found));
        } else if !self.keep_field {
            chain.quiet("remove", Some(&found), [("field", self.field)]);
        }
        chain.quiet("flatten", Some(&found), [("field", PARSED)]);
    }
}

/// Options of parsers without an effect here, or without an equal.
fn remarks(p: &mut Properties<'_>, chain: &mut Chain, notes: &mut Notes) {
    let all = [
        (
            "time_strict",
            Weight::NotNeeded,
            "a time that does not follow the format is none",
        ),
        (
            "time_system_timezone",
            Weight::Decide,
            "set location of time_parser",
        ),
        (
            "decode_field",
            Weight::Decide,
            "write json_parser or unquote on the field",
        ),
        (
            "decode_field_as",
            Weight::Decide,
            "write json_parser or unquote on the field",
        ),
        (
            "skip_empty_values",
            Weight::Decide,
            "fields that are empty stay",
        ),
        (
            "logfmt_no_bare_keys",
            Weight::NotNeeded,
            "a word without a value is an error in any case",
        ),
    ];
    for (key, weight, say) in all {
        let comment = p.remark(notes, weight, key, say);
        chain.comments(comment);
    }
}

fn time(
    name: &str,
    format: &str,
    offset: Option<String>,
    keep: bool,
    section: &Section,
    chain: &mut Chain,
    notes: &mut Notes,
) {
    let field = expr::field(PARSED, name);
    let there = format!("{field} != nil");
    let mut op = map([
        ("type", "time_parser".into()),
        ("parse_from", field.as_str().into()),
        ("layout", format.into()),
        ("on_error", "send_quiet".into()),
    ]);
    op.set("if", format!("{PARSED} != nil and {there}"));
    if let Some(offset) = offset {
        let path = format!("parser.{name}.Time_Offset");
        let say = format!("set location of time_parser to a zone with the offset {offset}");
        chain.comment(notes.add(Weight::Decide, &section.place, &path, say));
    }
    chain.push_map(op);
    if !keep {
        chain.quiet(
            "remove",
            Some(&format!("{PARSED} != nil and {there}")),
            [("field", &field)],
        );
    }
}

/// The newest section of a kind and name.
pub fn named<'s>(all: &'s [Section], kind: &str, name: &str) -> Option<&'s Section> {
    let is = |s: &&Section| {
        let mut p = Properties::new(s);
        s.kind == kind && p.text("name").as_deref() == Some(name)
    };
    all.iter().rev().find(is)
}

/// Adds what a multi-line parser does to lines in `field`.
pub fn multiline(
    name: &str,
    field: &str,
    all: &[Section],
    chain: &mut Chain,
    place: &str,
    path: &str,
    notes: &mut Notes,
) {
    let text = expr::text_of(field);
    let continued = |pattern: &str| format!("not ({text} matches {})", expr::quoted(pattern));
    let (first, wait) = match name {
        "java" => (continued(r"^(\s|Caused by:|\.\.\. \d+ more)"), None),
        "python" => (continued(r"^(\s|\w*(Error|Exception|Warning):)"), None),
        "go" => (
            continued(r"^(\s|goroutine \d|created by |\[signal |\S+\(.*\)$|exit status)"),
            None,
        ),
        "ruby" => (continued(r"^\s+from "), None),
        _ => {
            let Some(section) = named(all, "multiline_parser", name) else {
                let say = format!(
                    "the multi-line parser {name:?} is in no file that was read; write recombine"
                );
                return chain.comment(notes.add(Weight::Decide, place, path, say));
            };
            let mut p = Properties::new(section);
            p.path = format!("multiline_parser.{name}");
            let wait = p.text("flush_timeout");
            p.text("type");
            let rules = p.all("rule");
            let start = rules.iter().find_map(|r| start_state(&r.value));
            let comments = p.rest(notes);
            chain.comments(comments);
            let Some(start) = start.filter(|s| regex::Regex::new(s).is_ok()) else {
                let say = format!(
                    "the multi-line parser {name:?} has no start_state that RE2 reads; write recombine"
                );
                return chain.comment(notes.add(Weight::Decide, place, path, say));
            };
            (format!("{text} matches {}", expr::quoted(&start)), wait)
        }
    };
    let say = "a record goes on until the next line that begins one; further states of the rules are not looked at";
    chain.comment(notes.add(Weight::Decide, place, path, say));
    let wait = match wait {
        Some(ms) if ms.bytes().all(|b| b.is_ascii_digit()) => format!("{ms}ms"),
        Some(time) => time,
        None => "4s".to_owned(),
    };
    chain.push(
        "recombine",
        [
            ("combine_field", field.into()),
            ("is_first_entry", first.into()),
            ("force_flush_period", Value::Plain(wait)),
        ],
    );
}

/// The pattern of a rule for the state that begins a record.
fn start_state(rule: &str) -> Option<String> {
    let mut parts = rule.split('"').skip(1).step_by(2);
    let state = parts.next()?;
    let pattern = parts.next()?;
    (state == "start_state").then(|| re2(pattern))
}

/// The operators of docker and cri lines: the line, its stream, and what was around it.
pub fn container(name: &str, line_key: &str, chain: &mut Chain) {
    let mut op = map([("type", "container".into())]);
    if name == "docker" {
        op.set("format", "docker");
    }
    op.set("add_metadata_from_filepath", false);
    op.set("on_error", "send_quiet");
    chain.push_map(op);
    chain.quiet(
        "move",
        None,
        [
            ("from", "attributes[\"log.iostream\"]"),
            ("to", &key("stream")),
        ],
    );
    chain.quiet("move", None, [("from", "body"), ("to", &key(line_key))]);
}
