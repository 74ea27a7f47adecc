//! The stage `drop`.

use tailwater_config::{Node, parse_byte_size};

use super::Stages;
use crate::expr;
use crate::note::Weight;
use crate::options::Options;

/// Bytes of a size of Promtail, whose units are powers of 1024 with or without an `i`.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let bare = text.strip_suffix('b').unwrap_or(&text);
    let bare = bare.strip_suffix('i').unwrap_or(bare);
    match bare.ends_with(|c: char| c.is_ascii_alphabetic()) {
        true => parse_byte_size(&format!("{bare}ib")),
        false => parse_byte_size(bare),
    }
}

impl Stages<'_> {
    pub(super) fn drops(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let sources = o.texts("source");
        let separator = o.text("separator").unwrap_or_else(|| ";".to_owned());
        let (expression, value) = (o.text("expression"), o.text("value"));
        let (older, longer) = (o.text("older_than"), o.text("longer_than"));
        if o.has("drop_counter_reason") {
            let say = "what is left out is counted as filtered, by operator";
            let comment = o.note(self.notes, Weight::NotNeeded, "drop_counter_reason", say);
            self.pending.push(comment);
        }
        self.rest(o);
        if older.is_some() {
            let say = "older_than: set limits::age_max of the exporter, which drops by age; this stage was left out";
            return self.say(Weight::Decide, node, path, say);
        }
        let mut conditions = Vec::new();
        let fields: Vec<String> = sources.iter().map(|s| self.field_of(s)).collect();
        let text = match fields.len() {
            0 => expr::text_of("body"),
            _ => {
                let texts: Vec<String> = fields.iter().map(|f| expr::text_of(f)).collect();
                texts.join(&format!(" + {} + ", expr::quoted(&separator)))
            }
        };
        // Only where all of them were extracted.
        conditions.extend(fields.iter().map(|f| format!("{f} != nil")));
        if let Some(pattern) = expression {
            let text = match fields.len() > 1 {
                true => format!("({text})"),
                false => text.clone(),
            };
            conditions.push(format!("{text} matches {}", expr::quoted(&pattern)));
        }
        if let Some(value) = value {
            conditions.push(format!("{text} == {}", expr::quoted(&value)));
        }
        if let Some(longer) = longer {
            let Some(bytes) = size(&longer) else {
                let say = format!("{longer:?} is no size");
                return self.say(Weight::Decide, node, path, say);
            };
            let say = "longer_than counts bytes, len() characters";
            self.say(Weight::Decide, node, path, say);
            conditions.push(format!("len({}) > {bytes}", expr::text_of("body")));
        }
        if conditions.is_empty() {
            let say = "it has no condition, and was left out";
            return self.say(Weight::Decide, node, path, say);
        }
        let op = self.op("filter", [("expr", &conditions.join(" and "))]);
        self.push(op, []);
    }
}
