//! Replacing `${...}` in values.
//!
//! The rules are those of the collector's resolver (confmap/expand.go).
//! A placeholder that is the whole scalar gives whatever its text means as YAML, and keeps the
//! text for options that want a string. One inside of other text is replaced by its text. What
//! comes in is looked through again, until nothing changes. Keys are left alone. At the end
//! every `$$` becomes `$`, in text that came in as well.

use std::path::Path;
use std::sync::Arc;

use crate::environment::Environment;
use crate::error::{ConfigError, Errors, KeyPath, Warning};
use crate::node::{Node, NodeValue, Span, quote};
use crate::parse::{DEPTH_MAX, depth_of, parse, parse_bytes};
use crate::placeholder::{Reference, find, parse_reference, unescape};

/// Replacements one after the other in the same value, as in the collector.
const ROUNDS_MAX: usize = 1000;
/// Text that all replacements together may bring in, in bytes.
const BYTES_MAX: usize = 16 << 20;

/// Replaces every placeholder in the values of the tree. Gives the new tree, and with it the
/// problems: every placeholder that cannot be replaced, at its position (it stays as written), and
/// a warning for every variable that is not set and has no default (its value is null).
pub fn substitute(root: Node, env: &dyn Environment) -> (Node, Errors) {
    let mut run = Run {
        env,
        errors: Errors::new(),
        bytes: 0,
        stopped: false,
    };
    let node = run.node(root, &KeyPath::root(), 0, 0);
    (unescape_all(node), run.errors)
}

struct Run<'a> {
    env: &'a dyn Environment,
    errors: Errors,
    /// Text brought in so far.
    bytes: usize,
    /// A limit was met: nothing is replaced any more.
    stopped: bool,
}

/// Where the text under work came from, for messages.
#[derive(Clone, Copy)]
struct Place<'p> {
    span: &'p Span,
    path: &'p KeyPath,
}

/// Why a text could not be replaced; already reported if it is a limit.
type Refusal = Option<String>;

impl Run<'_> {
    /// `round`: replacements that led here. `depth`: lists and maps around the node.
    fn node(&mut self, node: Node, path: &KeyPath, round: usize, depth: usize) -> Node {
        if self.stopped {
            return node;
        }
        let Node {
            value,
            span,
            text,
            expanded,
        } = node;
        let value = match value {
            NodeValue::Str(text) => return self.scalar(text, span, path, round, depth, expanded),
            NodeValue::List(items) => NodeValue::List(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(i, item)| self.node(item, &path.child(i), round, depth + 1))
                    .collect(),
            ),
            NodeValue::Map(entries) => NodeValue::Map(
                entries
                    .into_iter()
                    .map(|(key, item)| {
                        let at = path.child(&key.text);
                        (key, self.node(item, &at, round, depth + 1))
                    })
                    .collect(),
            ),
            scalar => scalar,
        };
        Node {
            value,
            span,
            text,
            expanded,
        }
    }

    /// Replaces in one string until nothing changes, or until it has become something else.
    fn scalar(
        &mut self,
        mut text: String,
        span: Span,
        path: &KeyPath,
        mut round: usize,
        depth: usize,
        mut expanded: bool,
    ) -> Node {
        let place = Place { span: &span, path };
        while let Some(placeholder) = find(&text) {
            round += 1;
            let whole = placeholder.len() == text.len();
            let got = match self.replacement(placeholder, place, round) {
                Ok(got) => got,
                Err(refusal) => {
                    self.report(refusal, place);
                    break;
                }
            };
            if !whole {
                match self.splice(&text, placeholder, &got, place) {
                    Some(spliced) => text = spliced,
                    None => break,
                }
                continue;
            }
            expanded = true;
            match got.value {
                NodeValue::Str(inner) => text = inner,
                _ => return self.grafted(got, path, round, depth),
            }
        }
        let kept = expanded.then(|| Arc::from(text.as_str()));
        Node {
            value: NodeValue::Str(text),
            span,
            text: kept,
            expanded,
        }
    }

    /// A value that is no string: replaces inside of it, and in its text alike, because it is not
    /// known yet which of both the option wants.
    fn grafted(&mut self, got: Node, path: &KeyPath, round: usize, depth: usize) -> Node {
        if depth + depth_of(&got) > DEPTH_MAX {
            self.report_limit(&got.span, path, "too many recursive expansions");
            return got;
        }
        let text = got.text.clone().and_then(|text| {
            let place = Place {
                span: &got.span,
                path,
            };
            self.text(text.to_string(), place, round).map(Arc::from)
        });
        let mut node = self.node(Node { text: None, ..got }, path, round, depth);
        (node.text, node.expanded) = (text, true);
        node
    }

    /// Replaces in the text of a value. `None` if that is not possible: then the value has no
    /// unambiguous text, which matters only if the option wants one.
    fn text(&mut self, mut text: String, place: Place<'_>, mut round: usize) -> Option<String> {
        while let Some(placeholder) = find(&text) {
            if placeholder.len() == text.len() {
                return None;
            }
            round += 1;
            let got = self.replacement(placeholder, place, round).ok()?;
            text = self.splice(&text, placeholder, &got, place)?;
        }
        Some(text)
    }

    /// What a placeholder stands for.
    fn replacement(
        &mut self,
        placeholder: &str,
        place: Place<'_>,
        round: usize,
    ) -> Result<Node, Refusal> {
        if self.stopped {
            return Err(None);
        }
        if round > ROUNDS_MAX {
            self.report_limit(place.span, place.path, "too many recursive expansions");
            return Err(None);
        }
        let got = self.retrieve(placeholder, place)?;
        // Counted with the placeholder, so that replacements by nothing come to an end as well.
        self.bytes += placeholder.len() + got.text.as_ref().map_or(0, |t| t.len());
        if self.bytes > BYTES_MAX {
            let message = format!("substitution brings in more than {BYTES_MAX} bytes");
            self.report_limit(place.span, place.path, &message);
            return Err(None);
        }
        Ok(got)
    }

    fn retrieve(&mut self, placeholder: &str, place: Place<'_>) -> Result<Node, Refusal> {
        match parse_reference(placeholder).map_err(Some)? {
            Reference::Yaml(text) => Ok(from_text(text, place.span)),
            Reference::File(path) => self.file(path),
            Reference::Variable { name, default } => match (self.env.variable(name), default) {
                (Some(value), _) => match value.to_str() {
                    Some(value) => Ok(from_text(value, place.span)),
                    None => Err(Some(format!(
                        "environment variable {name:?} is not UTF-8 text"
                    ))),
                },
                // A default of nothing is an empty text, while nothing at all is a null.
                (None, Some("")) => Ok(text_node(String::new(), place.span.clone())),
                (None, Some(default)) => Ok(from_text(default, place.span)),
                (None, None) => {
                    self.errors.warn(Warning {
                        span: Some(place.span.clone()),
                        path: place.path.clone(),
                        message: format!(
                            "Configuration references unset environment variable {name:?}"
                        ),
                    });
                    Ok(from_text("", place.span))
                }
            },
        }
    }

    fn file(&self, path: &str) -> Result<Node, Refusal> {
        let bytes = self
            .env
            .read_file(Path::new(path))
            .map_err(|error| Some(format!("unable to read the file {}: {error}", quote(path))))?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            let error = parse_bytes(&bytes, path).err().map(|e| e.to_string());
            return Err(Some(
                error.unwrap_or_else(|| format!("{path}: not UTF-8 text")),
            ));
        };
        Ok(match parse(text, path) {
            Ok(node) => with_text(node, text),
            Err(_) => text_node(text.to_owned(), Span::start_of(path)),
        })
    }

    /// Puts the text of a value in place of every occurrence of its placeholder: as written, also
    /// if it means a list or a map. `None` if that grows too long.
    fn splice(
        &mut self,
        text: &str,
        placeholder: &str,
        got: &Node,
        place: Place<'_>,
    ) -> Option<String> {
        let by = got.text.as_deref().unwrap_or_default();
        let count = text.matches(placeholder).count();
        if text.len() + count * by.len() > BYTES_MAX {
            let message = format!("expanding {placeholder}: longer than {BYTES_MAX} bytes");
            self.report_limit(place.span, place.path, &message);
            return None;
        }
        Some(text.replace(placeholder, by))
    }

    fn report(&mut self, refusal: Refusal, place: Place<'_>) {
        if let Some(message) = refusal {
            self.errors
                .push(ConfigError::new(place.span.clone(), place.path, message));
        }
    }

    fn report_limit(&mut self, span: &Span, path: &KeyPath, message: &str) {
        if !self.stopped {
            self.stopped = true;
            self.errors
                .push(ConfigError::new(span.clone(), path, message));
        }
    }
}

/// A text as YAML. A string is kept as written, with quotes and all, and so is what is no YAML.
fn from_text(text: &str, span: &Span) -> Node {
    match parse(text, "") {
        Ok(node) => with_text(placed(node, span), text),
        Err(_) => text_node(text.to_owned(), span.clone()),
    }
}

fn with_text(node: Node, text: &str) -> Node {
    match node.value {
        NodeValue::Str(_) => text_node(text.to_owned(), node.span),
        value => Node {
            value,
            span: node.span,
            text: Some(Arc::from(text)),
            expanded: true,
        },
    }
}

fn text_node(text: String, span: Span) -> Node {
    let kept = Some(Arc::from(text.as_str()));
    Node {
        value: NodeValue::Str(text),
        span,
        text: kept,
        expanded: true,
    }
}

/// Lets the whole tree point to the place of the placeholder it stands for.
fn placed(node: Node, span: &Span) -> Node {
    let value = match node.value {
        NodeValue::List(items) => {
            NodeValue::List(items.into_iter().map(|n| placed(n, span)).collect())
        }
        NodeValue::Map(entries) => NodeValue::Map(
            entries
                .into_iter()
                .map(|(mut key, n)| {
                    key.span = span.clone();
                    (key, placed(n, span))
                })
                .collect(),
        ),
        scalar => scalar,
    };
    Node {
        value,
        span: span.clone(),
        ..node
    }
}

fn unescape_all(node: Node) -> Node {
    let Node {
        value,
        span,
        text,
        expanded,
    } = node;
    let text = match text {
        Some(text) if text.contains("$$") => Some(Arc::from(unescape(&text))),
        text => text,
    };
    let value = match value {
        NodeValue::Str(text) => NodeValue::Str(unescape(&text)),
        NodeValue::List(items) => NodeValue::List(items.into_iter().map(unescape_all).collect()),
        NodeValue::Map(entries) => NodeValue::Map(
            entries
                .into_iter()
                .map(|(k, n)| (k, unescape_all(n)))
                .collect(),
        ),
        scalar => scalar,
    };
    Node {
        value,
        span,
        text,
        expanded,
    }
}
