//! The configuration as a tree in which every value knows where it was written.

use std::fmt;
use std::sync::Arc;

/// A place in a source, for messages. Displayed as `name:line:column`.
#[derive(Clone, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Name of the source: the path of a file as given, or the URI for text that is no file.
    pub source: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Span {
    /// A place in the named source. Line and column count from 1.
    pub fn new(source: impl Into<Arc<str>>, line: u32, column: u32) -> Self {
        Self {
            source: source.into(),
            line,
            column,
        }
    }

    /// The beginning of the named source.
    pub fn start_of(source: impl Into<Arc<str>>) -> Self {
        Self::new(source, 1, 1)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

/// A key of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// The key as text. A key that YAML reads as another type (`1:`) is kept as it was written.
    pub text: String,
    /// Where the key stands.
    pub span: Span,
}

/// What a node holds.
#[derive(Clone, PartialEq, Debug)]
pub enum NodeValue {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true` or `false` in lower, upper or title case. `yes`, `no`, `on` and `off` are strings.
    Bool(bool),
    /// A decimal, hexadecimal (`0x`), octal (`0o` or a leading zero) or binary (`0b`) integer.
    Int(i64),
    /// A number with a fraction or an exponent, `.inf`, `.nan`, or an integer beyond 64 bits.
    Float(f64),
    /// Any other scalar.
    Str(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order as written. Keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A value and where it came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// The value.
    pub value: NodeValue,
    /// Where it was written. Values out of an environment variable point to the placeholder.
    pub span: Span,
    /// The text as written, of a scalar whose value is not a string, and of everything that
    /// `${}` gave unless it has no unambiguous text. `None` for other values.
    pub text: Option<Arc<str>>,
    /// Whether the value is the outcome of a `${}` that was the whole scalar. Such a value is
    /// read by a string option as [`Node::text`], whatever type YAML sees in it.
    pub expanded: bool,
}

impl Node {
    /// A node that keeps no text.
    pub fn new(value: NodeValue, span: Span) -> Self {
        Self {
            value,
            span,
            text: None,
            expanded: false,
        }
    }

    /// An empty map.
    pub fn empty_map(span: Span) -> Self {
        Self::new(NodeValue::Map(Vec::new()), span)
    }

    /// Whether this is a null.
    pub fn is_null(&self) -> bool {
        matches!(self.value, NodeValue::Null)
    }

    /// The entries of a map; `None` if this is no map.
    pub fn as_map(&self) -> Option<&[(Key, Node)]> {
        match &self.value {
            NodeValue::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The elements of a list; `None` if this is no list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            NodeValue::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value of a string node; `None` for every other type. Strings out of `${}` that YAML
    /// reads as another type are given by [`Node::as_text`].
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Str(text) => Some(text),
            _ => None,
        }
    }

    /// What a string option reads: a string, or the text of a value that came out of `${}`.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Str(text) => Some(text),
            _ if self.expanded => self.text.as_deref(),
            _ => None,
        }
    }

    /// The value of a boolean node.
    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            NodeValue::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// The value of an integer node.
    pub fn as_i64(&self) -> Option<i64> {
        match self.value {
            NodeValue::Int(i) => Some(i),
            _ => None,
        }
    }

    /// The value of a number, as a double.
    pub fn as_f64(&self) -> Option<f64> {
        match self.value {
            NodeValue::Int(i) => Some(i as f64),
            NodeValue::Float(x) => Some(x),
            _ => None,
        }
    }

    /// The value under a key of a map; `None` if this is no map or has no such key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// The entry of a key of a map, with the key's own position.
    pub fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        self.as_map()?.iter().find(|(k, _)| k.text == key)
    }

    /// The node at a path of keys, `a::b::c`. List elements are addressed by their index.
    pub fn at(&self, path: &str) -> Option<&Node> {
        path.split("::")
            .try_fold(self, |node, part| match &node.value {
                NodeValue::List(items) => items.get(part.parse::<usize>().ok()?),
                _ => node.get(part),
            })
    }

    /// The name of the type with its article, as messages say it.
    pub fn type_name(&self) -> &'static str {
        match self.value {
            NodeValue::Null => "null",
            NodeValue::Bool(_) => "a boolean",
            NodeValue::Int(_) => "an integer",
            NodeValue::Float(_) => "a number",
            NodeValue::Str(_) => "a string",
            NodeValue::List(_) => "a list",
            NodeValue::Map(_) => "a map",
        }
    }

    /// The value as a message shows it: short, on one line, strings quoted.
    pub fn describe(&self) -> String {
        match &self.value {
            NodeValue::Null => "null".to_owned(),
            NodeValue::Str(text) => quote(text),
            NodeValue::List(_) | NodeValue::Map(_) => self.type_name().to_owned(),
            NodeValue::Bool(b) => b.to_string(),
            NodeValue::Int(i) => self.text.as_deref().map_or_else(|| i.to_string(), shorten),
            NodeValue::Float(x) => self.text.as_deref().map_or_else(|| x.to_string(), shorten),
        }
    }

    /// Whether both nodes hold the same values; positions and texts do not count, neither does
    /// the order of keys.
    pub fn same_value(&self, other: &Node) -> bool {
        match (&self.value, &other.value) {
            (NodeValue::List(a), NodeValue::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.same_value(y))
            }
            (NodeValue::Map(a), NodeValue::Map(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|(k, x)| other.get(&k.text).is_some_and(|y| x.same_value(y)))
            }
            (NodeValue::Float(a), NodeValue::Float(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        }
    }
}

/// Longest value a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// Quotes a text for a message: control characters escaped, long texts cut.
pub(crate) fn quote(text: &str) -> String {
    format!("{:?}", shorten(text))
}

/// A text as a part of a line, without quotes.
pub(crate) fn one_line(text: &str) -> String {
    shorten(text).escape_debug().to_string()
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}
