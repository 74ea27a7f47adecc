//! Records and their steps for people: what was added, removed and changed, and why something ends.

use std::fmt::Write as _;

use serde_json::Value as Json;
use tailwater_config::{ComponentEntry, ComponentKind as Kind, ConfigFile, Node};
use tailwater_pipeline::trial::{By, Item, Step, Verdict};

use super::choose::Choice;
use super::journey::{Journey, Sums, name, reason};
use super::record::{Change, changes, fields};

/// Characters of a value that are shown.
const VALUE_CHARS: usize = 120;
/// Widest column of paths that values are aligned behind.
const PATH_WIDTH_MAX: usize = 40;
/// Width of a head.
const RULE_WIDTH: usize = 72;

/// How a piece of text looks on a terminal.
#[derive(Clone, Copy)]
enum Look {
    Strong,
    Faint,
    Added,
    Removed,
    Changed,
    Trouble,
}

/// Draws what is shown.
pub struct Table<'a> {
    file: &'a ConfigFile,
    choice: &'a Choice,
    colours: bool,
    unicode: bool,
}

impl<'a> Table<'a> {
    /// Of a configuration, of which `choice` is tried.
    pub fn new(
        file: &'a ConfigFile,
        choice: &'a Choice,
        colours: bool,
        unicode: bool,
    ) -> Table<'a> {
        Table {
            file,
            choice,
            colours,
            unicode,
        }
    }

    /// The way of a record.
    pub fn journey(&self, number: u64, journey: &Journey) -> String {
        let mut out = String::new();
        let rule = if self.unicode { "─" } else { "-" };
        let head = format!("{} record {number} ", rule.repeat(2));
        let rest = rule.repeat(RULE_WIDTH.saturating_sub(head.chars().count()));
        out.push_str(&self.look(Look::Strong, &format!("{head}{rest}")));
        let from = match &self.choice.receiver {
            Some(id) => format!("receiver {id}"),
            None => format!("into pipeline {}", self.choice.pipeline),
        };
        self.head(&mut out, &from, "");
        self.items(&mut out, &journey.came);
        for (i, (step, said)) in journey.steps.iter().enumerate() {
            let mut later = journey.steps[i + 1..].iter();
            let goes_on = later.any(|(s, _)| s.by == step.by && s.waited);
            // Where it goes on, that is said there.
            if step.verdict != Verdict::Held || !goes_on || !said.is_empty() {
                self.step(&mut out, step, said);
            }
        }
        let mut arrived = &journey.arrived[..];
        while let Some(((pipeline, exporter, items), rest)) = arrived.split_first() {
            let mut exporters = vec![exporter.as_str()];
            let same = rest.iter().take_while(|(p, _, _)| p == pipeline);
            exporters.extend(same.map(|(_, exporter, _)| exporter.as_str()));
            arrived = &arrived[exporters.len()..];
            let arrow = if self.unicode { "⇒" } else { "=>" };
            let many = if exporters.len() == 1 { "" } else { "s" };
            let to = format!("{arrow} exporter{many} {}", exporters.join(", "));
            self.head(&mut out, &to, &format!("pipeline {pipeline}"));
            self.items(&mut out, items);
        }
        out
    }

    /// How many records went where.
    pub fn summary(&self, sums: &Sums) -> String {
        let plural = if sums.records == 1 { "" } else { "s" };
        let mut out = self.look(Look::Strong, &format!("{} record{plural}", sums.records));
        for ((pipeline, exporter), n) in &sums.arrived {
            let _ = write!(out, "\n  {n} to exporter {exporter} (pipeline {pipeline})");
        }
        for (what, by) in [
            ("removed on purpose by", &sums.filtered),
            ("DROPPED by", &sums.dropped),
            ("given back to the sender by", &sums.handed_back),
            ("became parts of others in", &sums.joined),
            ("still wait in", &sums.held),
        ] {
            for (by, n) in by {
                let _ = write!(out, "\n  {n} {what} {by}");
            }
        }
        out
    }

    fn step(&self, out: &mut String, step: &Step, said: &[String]) {
        let title = self.title(&step.by);
        let changed: Vec<Change> = match (&step.before[..], &step.after[..]) {
            ([before], [after]) if is_log(before) == is_log(after) => changes(before, after),
            _ => Vec::new(),
        };
        let made = !step.after.is_empty() && changed.is_empty() && !same(&step.before, &step.after);
        let mut note = match step.verdict {
            Verdict::Passed if made => match step.after.len() {
                1 => "makes this of it".to_owned(),
                n => format!("makes {n} of it"),
            },
            Verdict::Passed if changed.is_empty() => "no change".to_owned(),
            Verdict::Passed => String::new(),
            Verdict::Skipped => "skipped, its condition `if` is false".to_owned(),
            Verdict::Held => "waits here, for more or for its time".to_owned(),
            Verdict::Joined => "is a part of another record now".to_owned(),
            Verdict::Filtered => self.ends(&step.by, "removed on purpose"),
            Verdict::Dropped(_) => match reason(step.verdict) {
                Some(reason) => self.cross(&format!("DROPPED: {reason}")),
                None => self.cross("DROPPED: see the error"),
            },
            Verdict::HandedBack => self.cross("given back to its sender, to be sent again"),
        };
        if step.waited && step.verdict == Verdict::Passed {
            note = format!(
                "after it waited{}{note}",
                if note.is_empty() { "" } else { ": " }
            );
        }
        if !step.to.is_empty() {
            let to = format!("to pipeline {}", step.to.join(", "));
            note = if note == "no change" {
                to
            } else {
                format!("{to}; {note}")
            };
        }
        self.head(out, &title, &note);
        self.changes(out, &changed);
        if made {
            self.items(out, &step.after);
        }
        for text in step.error.iter().chain(said) {
            let _ = write!(
                out,
                "\n     {}",
                self.look(Look::Trouble, &format!("! {}", shown(text)))
            );
        }
    }

    /// Why a record ends here, as far as the configuration says it.
    fn ends(&self, by: &By, what: &str) -> String {
        let text = |node: Option<&Node>, key: &str| {
            let text = node?.get(key)?.as_text()?;
            Some(format!(": {key} is true: {}", cut(text)))
        };
        let why = match by {
            By::Operator(number, _) => {
                let operator = self.operator(*number);
                match operator.and_then(|o| o.get("type")?.as_text()) {
                    Some("router") => Some(": no route takes it, and there is no default".into()),
                    _ => text(operator, "expr"),
                }
            }
            By::Processor(_, id) => {
                let mut entries = self.file.components(Kind::Processor).iter();
                let entry = entries.find(|e| e.id.to_string() == *id);
                let mut listed = Vec::new();
                entry
                    .into_iter()
                    .for_each(|e| listed_texts(&e.node, &mut listed));
                match listed[..] {
                    [only] => Some(format!(": {}", cut(only))),
                    _ => None,
                }
            }
            By::Connector(..) => None,
        };
        self.cross(&format!("{what}{}", why.unwrap_or_default()))
    }

    fn cross(&self, text: &str) -> String {
        let cross = if self.unicode { "✗" } else { "x" };
        self.look(Look::Removed, &format!("{cross} {text}"))
    }

    fn operator(&self, number: usize) -> Option<&Node> {
        let id = self.choice.receiver.as_deref()?;
        let receivers: &[ComponentEntry] = self.file.components(Kind::Receiver);
        let receiver = receivers.iter().find(|r| r.id.to_string() == id)?;
        receiver.node.get("operators")?.as_list()?.get(number)
    }

    fn title(&self, by: &By) -> String {
        let By::Operator(number, id) = by else {
            return name(by);
        };
        let kind = self
            .operator(*number)
            .and_then(|o| o.get("type")?.as_text());
        match kind {
            Some(kind) if kind != id => format!("operator {kind} ({id})"),
            _ => name(by),
        }
    }

    fn head(&self, out: &mut String, title: &str, note: &str) {
        let _ = write!(out, "\n  {}", self.look(Look::Strong, &shown(title)));
        if !note.is_empty() {
            let _ = write!(out, "  {}", self.look(Look::Faint, note));
        }
    }

    fn items(&self, out: &mut String, items: &[Item]) {
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                let _ = write!(out, "\n     {}", self.look(Look::Faint, "and"));
            }
            // When it was read is no news.
            let fields = fields(item).into_iter();
            let fields: Vec<_> = fields.filter(|(p, _)| p != "observed_timestamp").collect();
            let width = width(fields.iter().map(|(path, _)| path));
            for (path, value) in &fields {
                let _ = write!(
                    out,
                    "\n       {:width$}  {}",
                    shown(path),
                    value_text(value)
                );
            }
            if fields.is_empty() {
                let _ = write!(out, "\n       {}", self.look(Look::Faint, "(empty)"));
            }
        }
    }

    fn changes(&self, out: &mut String, changes: &[Change]) {
        let width = width(changes.iter().map(|c| &c.path));
        let arrow = if self.unicode { "→" } else { "->" };
        for change in changes {
            let path = shown(&change.path);
            let (look, line) = match (&change.before, &change.after) {
                (Some(before), Some(after)) => {
                    let (before, after) = (value_text(before), value_text(after));
                    let line = format!("~ {path:width$}  {before} {arrow} {after}");
                    (Look::Changed, line)
                }
                (Some(before), None) => {
                    let line = format!("- {path:width$}  {}", value_text(before));
                    (Look::Removed, line)
                }
                (None, after) => {
                    let after = after.as_ref().map(value_text).unwrap_or_default();
                    (Look::Added, format!("+ {path:width$}  {after}"))
                }
            };
            let _ = write!(out, "\n     {}", self.look(look, &line));
        }
    }

    fn look(&self, look: Look, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match look {
            Look::Strong => "1",
            Look::Faint => "2",
            Look::Added => "32",
            Look::Removed => "31",
            Look::Changed => "33",
            Look::Trouble => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The texts in the lists of a configuration, such as conditions.
fn listed_texts<'n>(node: &'n Node, out: &mut Vec<&'n str>) {
    for (_, child) in node.as_map().unwrap_or_default() {
        listed_texts(child, out);
    }
    for child in node.as_list().unwrap_or_default() {
        out.extend(child.as_text());
        listed_texts(child, out);
    }
}

fn is_log(item: &Item) -> bool {
    matches!(item, Item::Log(_))
}

fn same(before: &[Item], after: &[Item]) -> bool {
    before.len() == after.len()
        && before
            .iter()
            .zip(after)
            .all(|(b, a)| fields(b) == fields(a))
}

fn width<'p>(paths: impl Iterator<Item = &'p String>) -> usize {
    let widths = paths.map(|p| p.chars().count());
    widths.max().unwrap_or(0).min(PATH_WIDTH_MAX)
}

/// Control characters as escapes: what is in a record must not move the cursor.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS) {
        Some((at, _)) => format!("{}... ({} bytes)", shown(&text[..at]), text.len()),
        None => shown(text),
    }
}

/// A value as JSON, so that text and numbers are told apart; cut if it is long.
fn value_text(value: &Json) -> String {
    cut(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_and_cannot_move_the_cursor() {
        assert_eq!(
            value_text(&Json::from("a\u{1b}[2J\u{9b}")),
            "\"a\\u001b[2J\\u{9b}\""
        );
        assert_eq!(value_text(&Json::from(1.0)), "1.0");
        let long = "é".repeat(VALUE_CHARS + 5);
        let text = value_text(&Json::from(long));
        assert!(text.ends_with("é... (252 bytes)"), "{text}");
    }
}
