//! YAML with comments.

/// Stands for a dollar that is to have a meaning in what is written; every other one is doubled.
const MEANT: char = '\u{e000}';

/// A value that is written.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A text, quoted where that is needed.
    Text(String),
    /// A number, a boolean or a duration, as it is.
    Plain(String),
    /// A list.
    List(Vec<Item>),
    /// A map.
    Map(Map),
}

/// An element of a list, or only comments.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Item {
    /// Lines in front of it.
    pub comments: Vec<String>,
    /// The element.
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq, Debug)]
struct Entry {
    comments: Vec<String>,
    key: String,
    value: Option<Value>,
}

/// Keys with values, in the order in which they were set.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Map {
    entries: Vec<Entry>,
    /// Comments that wait for the next key, or stand at the end.
    comments: Vec<String>,
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Plain(b.to_string())
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Value {
        Value::Map(map)
    }
}

impl<V: Into<Value>> From<Vec<V>> for Value {
    fn from(values: Vec<V>) -> Value {
        Value::List(values.into_iter().map(Item::of).collect())
    }
}

impl Item {
    /// An element.
    pub fn of(value: impl Into<Value>) -> Item {
        Item {
            comments: Vec::new(),
            value: Some(value.into()),
        }
    }
}

/// A map of these keys and values.
pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Map {
    let mut map = Map::default();
    for (key, value) in entries {
        map.set(key, value);
    }
    map
}

impl Map {
    /// Sets a key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Map {
        let (comments, value) = (std::mem::take(&mut self.comments), Some(value.into()));
        match self.entries.iter_mut().find(|e| e.key == key) {
            Some(entry) => {
                entry.value = value;
                entry.comments.extend(comments);
            }
            None => self.entries.push(Entry {
                comments,
                key: key.to_owned(),
                value,
            }),
        }
        self
    }

    /// Sets a key, if there is a value.
    pub fn set_some(&mut self, key: &str, value: Option<impl Into<Value>>) -> &mut Map {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    /// A comment in front of the key that is set next.
    pub fn comment(&mut self, text: impl Into<String>) -> &mut Map {
        self.comments.push(text.into());
        self
    }

    /// A key without a value.
    pub fn set_empty(&mut self, key: &str) -> &mut Map {
        let comments = std::mem::take(&mut self.comments);
        self.entries.push(Entry {
            comments,
            key: key.to_owned(),
            value: None,
        });
        self
    }

    /// The map under a key, made if it is not there.
    pub fn sub(&mut self, key: &str) -> &mut Map {
        if !self.has(key) {
            self.set(key, Map::default());
        }
        let i = self.entries.iter().position(|e| e.key == key).unwrap_or(0);
        let slot = &mut self.entries[i].value;
        if !matches!(slot, Some(Value::Map(_))) {
            *slot = Some(Value::Map(Map::default()));
        }
        match slot {
            Some(Value::Map(map)) => map,
            // Set above.
            _ => unreachable!("it is a map"),
        }
    }

    /// Adds an element to the list under a key.
    pub fn add_to(&mut self, key: &str, item: Item) {
        if !self.has(key) {
            self.set(key, Value::List(Vec::new()));
        }
        let entry = self.entries.iter_mut().find(|e| e.key == key);
        if let Some(Value::List(items)) = entry.and_then(|e| e.value.as_mut()) {
            items.push(item);
        }
    }

    /// Whether a key is set.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    /// The keys; `None` if there are none.
    pub fn keys(&self) -> Option<Vec<String>> {
        let keys: Vec<String> = self.entries.iter().map(|e| e.key.clone()).collect();
        (!keys.is_empty()).then_some(keys)
    }

    /// The first key.
    pub fn first_key(&self) -> Option<String> {
        self.entries.first().map(|e| e.key.clone())
    }

    /// Adds what is in another map at the end.
    pub fn append(&mut self, other: Map) {
        self.entries.extend(other.entries);
        self.comments.extend(other.comments);
    }

    /// Whether there is nothing in it, not even a comment.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.comments.is_empty()
    }

    /// The text.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        block_map(self, 0, &mut out);
        out
    }
}

/// Text in which `${NAME}` of the environment keeps its meaning: names of capitals, digits and underscores,
/// with a default behind `:` or `:-`. True if there was one.
pub fn with_environment(text: &str) -> (String, bool) {
    let (mut out, mut rest, mut found) = (String::new(), text, false);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Some((inside, after)) = from[2..].split_once('}') else {
            rest = from;
            break;
        };
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default.strip_prefix('-').unwrap_or(default))),
            None => (inside, None),
        };
        let first = name.bytes().next();
        let is_name = first.is_some_and(|b| b.is_ascii_uppercase() || b == b'_')
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        match is_name {
            true => {
                found = true;
                out.push(MEANT);
                out.push_str(&format!("{{env:{name}"));
                if let Some(default) = default {
                    out.push_str(&format!(":-{default}"));
                }
                out.push('}');
            }
            false => out.push_str(&from[..inside.len() + 3]),
        }
        rest = after;
    }
    out.push_str(rest);
    (out, found)
}

fn indent(level: usize, out: &mut String) {
    out.push_str(&"  ".repeat(level));
}

fn comments(lines: &[String], level: usize, out: &mut String) {
    for comment in lines {
        // A comment is one line, whatever was quoted in it.
        let comment: String = comment
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        for line in wrapped(&comment, 130) {
            indent(level, out);
            out.push_str("# ");
            out.push_str(&line);
            out.push('\n');
        }
    }
}

/// The words of a text in lines of about so many characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines
            .last()
            .is_some_and(|l| !l.is_empty() && l.len() + word.len() >= width);
        if full {
            lines.push("  ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            if !line.trim().is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn block_map(map: &Map, level: usize, out: &mut String) {
    for (i, entry) in map.entries.iter().enumerate() {
        let behind_dash = i == 0 && out.ends_with("- ");
        if !behind_dash {
            comments(&entry.comments, level, out);
            indent(level, out);
        }
        out.push_str(&scalar(&entry.key));
        out.push(':');
        match &entry.value {
            None => out.push('\n'),
            Some(value) => block_value(value, level, out),
        }
    }
    comments(&map.comments, level, out);
}

fn block_value(value: &Value, level: usize, out: &mut String) {
    match flow(value, 100) {
        Some(text) => {
            out.push(' ');
            out.push_str(&text);
            out.push('\n');
        }
        None => {
            out.push('\n');
            match value {
                Value::Map(map) => block_map(map, level + 1, out),
                Value::List(items) => block_list(items, level + 1, out),
                Value::Text(_) | Value::Plain(_) => {}
            }
        }
    }
}

fn block_list(items: &[Item], level: usize, out: &mut String) {
    for item in items {
        comments(&item.comments, level, out);
        let Some(value) = &item.value else { continue };
        if let Value::Map(map) = value
            && let Some(first) = map.entries.first()
        {
            comments(&first.comments, level, out);
        }
        indent(level, out);
        out.push_str("- ");
        match (flow(value, 120), value) {
            (Some(text), _) => {
                out.push_str(&text);
                out.push('\n');
            }
            (None, Value::Map(map)) => block_map(map, level + 1, out),
            (None, _) => {
                out.pop();
                block_value(value, level, out);
            }
        }
    }
}

/// A value on one line, if it is short and has no comments.
fn flow(value: &Value, width: usize) -> Option<String> {
    let text = match value {
        Value::Text(text) => return Some(scalar(text)),
        Value::Plain(text) => return Some(text.clone()),
        Value::List(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| match (&item.value, item.comments.is_empty()) {
                    (Some(value), true) => flow(value, width),
                    _ => None,
                })
                .collect();
            format!("[{}]", texts?.join(", "))
        }
        Value::Map(map) => {
            let whole = map.comments.is_empty();
            let texts: Option<Vec<String>> = map
                .entries
                .iter()
                .map(|e| match (&e.value, whole && e.comments.is_empty()) {
                    (Some(value), true) => {
                        Some(format!("{}: {}", scalar(&e.key), flow(value, width)?))
                    }
                    _ => None,
                })
                .collect();
            format!("{{{}}}", texts?.join(", "))
        }
    };
    (text.chars().count() <= width).then_some(text)
}

/// Words that YAML, of whichever version, does not read as text.
const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// A text as a scalar that is a text wherever it stands.
fn scalar(text: &str) -> String {
    let mut dollars = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '$' => dollars.push_str("$$"),
            MEANT => dollars.push('$'),
            c => dollars.push(c),
        }
    }
    let text = dollars;
    if text
        .chars()
        .any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}')
    {
        let mut out = "\"".to_owned();
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                    out.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                c => out.push(c),
            }
        }
        out.push('"');
        return out;
    }
    let first = text.chars().next();
    let plain = first.is_some_and(|c| c.is_ascii_alphabetic() || c == '/' || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/_.-*".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    // A URL is easier to read without quotes; a colon counts only before a blank.
    let url = text.starts_with("http") && text.contains("://");
    let url = url
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/_.-:@".contains(c));
    match plain || (url && !text.ends_with(':')) {
        true => text,
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::{Node, NodeValue, parse};

    /// Guarantee: whatever text is written is read again as that text, in a block and in a flow.
    #[test]
    fn texts_are_read_as_they_were_written() {
        for text in [
            "",
            "a",
            "true",
            "No",
            "1",
            "1.5",
            "~",
            "null",
            "a: b",
            "a #b",
            "- a",
            "'",
            "\"",
            "it's",
            "{a}",
            "[b]",
            "a\nb",
            "\t",
            "\u{1}",
            "ä",
            "*",
            "&x",
            "!t",
            "%d",
            "@x",
            "`",
            "http://a:1/b",
            "http://a:",
            "a:",
            ":a",
            ", ",
            "^(?P<a>\\d+) {x}",
            "\\",
            "0x1f",
            "2001-01-01",
            "<<",
            "=",
            "a ",
            " a",
            "/var/log/*.log",
            "*.log",
            "-",
            "---",
        ] {
            let mut m = Map::default();
            m.set("flow", map([("k", text.into())]));
            m.set("list", vec![text]);
            m.sub("block").comment("a comment").set("k", text);
            m.set(text, "key");
            let yaml = m.to_yaml();
            let node = parse(&yaml, "f").unwrap_or_else(|e| panic!("{text:?}: {e}\n{yaml}"));
            let at = |path: &str| node.at(path).and_then(Node::as_str).map(str::to_owned);
            for path in ["flow::k", "list::0", "block::k"] {
                assert_eq!(at(path).as_deref(), Some(text), "{path}\n{yaml}");
            }
            let is = |k: &str, v: &Node| k == text && v.value == NodeValue::Str("key".into());
            let entries = node.as_map().unwrap();
            assert!(entries.iter().any(|(k, v)| is(&k.text, v)), "{yaml}");
        }
    }

    #[test]
    fn dollars_are_texts_unless_the_environment_is_meant() {
        let (text, found) = with_environment("a$1 ${1} ${x} ${LOKI_URL} ${P:-1}${Q:a}");
        assert!(found);
        let written = scalar(&text);
        assert_eq!(
            written,
            "'a$$1 $${1} $${x} ${env:LOKI_URL} ${env:P:-1}${env:Q:a}'".replace("Q:a", "Q:-a")
        );
        assert_eq!(with_environment("${").0, "${");
    }

    #[test]
    fn comments_stand_before_what_they_are_about() {
        let mut m = Map::default();
        m.comment("one").set("a", "b");
        let mut list = vec![Item::of(map([("x", "1".into())]))];
        list.push(Item {
            comments: vec!["two\nlines".to_owned()],
            value: None,
        });
        m.set("l", Value::List(list));
        m.comment("end");
        assert_eq!(
            m.to_yaml(),
            "# one\na: b\nl:\n  - {x: '1'}\n  # two lines\n# end\n"
        );
    }
}
