//! YAML text to a tree with positions.
//!
//! Built on parser events; anchors, aliases and merge keys (`<<`) are resolved here, within limits
//! that make a small hostile text fail instead of growing. Tags other than those of the core
//! schema, several documents, and keys given twice are refused.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use crate::error::{ConfigError, Errors, KeyPath};
use crate::node::{Key, Node, NodeValue, Span, quote};
use crate::scalar::resolve;

/// Largest text of one source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of lists and maps.
pub const DEPTH_MAX: usize = 128;
/// What aliases and merge keys may add, in bytes of memory (estimated).
const ALIAS_BYTES_MAX: usize = 16 << 20;
/// What one node weighs without its text, in bytes of memory (estimated).
const NODE_BYTES: usize = 128;

/// Reads one YAML document. `source` names it in positions. No document is a null.
///
/// # Errors
/// Every problem that could be found: keys given twice and refused tags do not end the reading,
/// a text that is no YAML does.
pub fn parse(text: &str, source: &str) -> Result<Node, Errors> {
    let source: Arc<str> = Arc::from(source);
    if text.len() > SOURCE_BYTES_MAX {
        let message = format!("larger than {SOURCE_BYTES_MAX} bytes");
        return Err(ConfigError::new(Span::start_of(source), KeyPath::root(), message).into());
    }
    let mut text = Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut tabs_replaced = 0;
    loop {
        let mut builder = Builder::new(source.clone());
        let mut error = match builder.run(&text) {
            Ok(node) => return builder.errors.into_result(node),
            Err(error) => error,
        };
        if let Some(index) = builder.tab_at.filter(|_| tabs_replaced < TABS_MAX)
            && let Some(spaced) = without_tabs_before(&text, index)
        {
            tabs_replaced += 1;
            text = Cow::Owned(spaced);
            continue;
        }
        if builder.tab_at.is_some() {
            error
                .message
                .push_str("; replace tabs behind colons by spaces");
        }
        builder.errors.push(*error);
        return Err(builder.errors);
    }
}

/// Most places where tabs behind a colon are accepted in one source; each costs a reading.
const TABS_MAX: usize = 64;

/// What the scanner says about `key:<tab>value`, which YAML allows.
const TAB_BEHIND_COLON: &str = "':' must be followed by a valid YAML whitespace";

/// The text with spaces for the tabs in front of a character, given by its index. `None` if there
/// are no tabs.
fn without_tabs_before(text: &str, index: usize) -> Option<String> {
    let end = text
        .char_indices()
        .nth(index)
        .map_or(text.len(), |(at, _)| at);
    let start = text[..end].trim_end_matches('\t').len();
    (start < end).then(|| {
        format!(
            "{}{}{}",
            &text[..start],
            " ".repeat(end - start),
            &text[end..]
        )
    })
}

/// Reads one YAML document from bytes, which must be UTF-8.
///
/// # Errors
/// As [`parse`], and the position of the first byte that is not UTF-8.
pub fn parse_bytes(bytes: &[u8], source: &str) -> Result<Node, Errors> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, source),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = valid.matches('\n').count() + 1;
            let column = valid
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                + 1;
            let span = Span::new(source, clamp(line), clamp(column));
            Err(ConfigError::new(span, KeyPath::root(), "not UTF-8 text").into())
        }
    }
}

fn clamp(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A list or map under construction.
struct Frame {
    anchor: usize,
    span: Span,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(MapFrame),
}

#[derive(Default)]
struct MapFrame {
    entries: Vec<(Key, Node)>,
    seen: HashMap<String, Span>,
    /// A key that waits for its value.
    key: Option<PendingKey>,
    merges: Vec<Node>,
}

enum PendingKey {
    Entry(Key),
    /// `<<`
    Merge,
    /// A key that was refused: its value is read and left out.
    Refused,
}

/// A complete node from the events, and what else a key needs to know of it.
struct Item {
    node: Node,
    /// The text as written, of a scalar.
    written: Option<String>,
    /// Whether it is the plain scalar `<<`.
    is_merge: bool,
}

type Fatal = Box<ConfigError>;

struct Builder {
    source: Arc<str>,
    errors: Errors,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    alias_bytes: usize,
    root: Option<Node>,
    documents: usize,
    /// Where the scanner stumbled over a tab behind a colon, as an index in characters.
    tab_at: Option<usize>,
}

impl Builder {
    fn new(source: Arc<str>) -> Self {
        Self {
            source,
            errors: Errors::new(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            alias_bytes: 0,
            root: None,
            documents: 0,
            tab_at: None,
        }
    }

    fn run(&mut self, text: &str) -> Result<Node, Fatal> {
        let mut parser = Parser::new(StrInput::new(text));
        while let Some(event) = parser.next_event() {
            let (event, at) = event.map_err(|error| {
                if error.info() == TAB_BEHIND_COLON {
                    self.tab_at = Some(error.marker().index());
                }
                let span = self.span(error.marker());
                self.fatal(span, format!("not valid YAML: {}", error.info()))
            })?;
            self.event(event, &at.start)?;
        }
        let start = Span::start_of(self.source.clone());
        Ok(self
            .root
            .take()
            .unwrap_or_else(|| Node::new(NodeValue::Null, start)))
    }

    fn event(&mut self, event: Event<'_>, at: &Marker) -> Result<(), Fatal> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.fatal(self.span(at), "more than one YAML document"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), self.span(at));
                self.remember(anchor, &node)?;
                let is_merge = style == ScalarStyle::Plain && text == "<<";
                self.place(Item {
                    node,
                    written: Some(text.into_owned()),
                    is_merge,
                })
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(anchor, tag.as_deref(), "seq", at, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => self.open(
                anchor,
                tag.as_deref(),
                "map",
                at,
                Content::Map(MapFrame::default()),
            ),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, self.span(at)),
        }
    }

    fn open(
        &mut self,
        anchor: usize,
        tag: Option<&Tag>,
        kind: &str,
        at: &Marker,
        content: Content,
    ) -> Result<(), Fatal> {
        let span = self.span(at);
        if self.stack.len() >= DEPTH_MAX {
            return Err(self.fatal(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        if let Some(tag) = tag.filter(|t| core_tag(t) != Some(kind)) {
            self.refuse_tag(tag, span.clone());
        }
        self.stack.push(Frame {
            anchor,
            span,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fatal> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let value = match frame.content {
            Content::List(items) => NodeValue::List(items),
            Content::Map(map) => self.close_map(map)?,
        };
        let node = Node::new(value, frame.span);
        self.remember(frame.anchor, &node)?;
        self.place(Item {
            node,
            written: None,
            is_merge: false,
        })
    }

    /// Adds what `<<` refers to: keys of the map itself win, then earlier maps over later ones.
    fn close_map(&mut self, map: MapFrame) -> Result<NodeValue, Fatal> {
        let MapFrame {
            mut entries,
            mut seen,
            merges,
            ..
        } = map;
        let mut sources = Vec::new();
        for merge in merges {
            match merge.value {
                NodeValue::Map(added) => sources.push(added),
                NodeValue::List(items) if items.iter().all(|n| n.as_map().is_some()) => {
                    for item in items {
                        if let NodeValue::Map(added) = item.value {
                            sources.push(added);
                        }
                    }
                }
                _ => {
                    let message = "a merge key takes a map or a list of maps";
                    return Err(self.fatal(merge.span, message));
                }
            }
        }
        for (key, node) in sources.into_iter().flatten() {
            if !seen.contains_key(&key.text) {
                seen.insert(key.text.clone(), key.span.clone());
                entries.push((key, node));
            }
        }
        Ok(NodeValue::Map(entries))
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Fatal> {
        let Some((node, bytes)) = self.anchors.get(&anchor) else {
            return Err(self.fatal(span, "an alias inside of what it refers to"));
        };
        self.alias_bytes += bytes;
        if self.alias_bytes > ALIAS_BYTES_MAX {
            let message = format!("aliases add more than {ALIAS_BYTES_MAX} bytes");
            return Err(self.fatal(span, message));
        }
        let depth = self.stack.len() + depth_of(node);
        if depth > DEPTH_MAX {
            return Err(self.fatal(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let node = node.clone();
        let written = match &node.value {
            NodeValue::Str(text) => Some(text.clone()),
            _ => node.text.as_deref().map(str::to_owned),
        };
        self.place(Item {
            node,
            written,
            is_merge: false,
        })
    }

    /// Keeps a copy of an anchored node. The copy counts as what an alias adds.
    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Fatal> {
        if anchor == 0 {
            return Ok(());
        }
        let bytes = weight(node);
        self.alias_bytes += bytes;
        if self.alias_bytes > ALIAS_BYTES_MAX {
            let message = format!("anchors hold more than {ALIAS_BYTES_MAX} bytes");
            return Err(self.fatal(node.span.clone(), message));
        }
        self.anchors.insert(anchor, (node.clone(), bytes));
        Ok(())
    }

    /// Puts a complete node where it belongs: into the list or map at hand, or as the root.
    fn place(&mut self, item: Item) -> Result<(), Fatal> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(item.node);
            return Ok(());
        };
        let map = match &mut frame.content {
            Content::List(items) => {
                items.push(item.node);
                return Ok(());
            }
            Content::Map(map) => map,
        };
        match map.key.take() {
            Some(PendingKey::Entry(key)) => map.entries.push((key, item.node)),
            Some(PendingKey::Merge) => map.merges.push(item.node),
            Some(PendingKey::Refused) => {}
            None => {
                let pending = self.pending_key(item)?;
                if let Some(Frame {
                    content: Content::Map(map),
                    ..
                }) = self.stack.last_mut()
                {
                    map.key = Some(pending);
                }
            }
        }
        Ok(())
    }

    fn pending_key(&mut self, item: Item) -> Result<PendingKey, Fatal> {
        let span = item.node.span;
        let Some(text) = item.written else {
            let message = "a key must be a scalar, not a list or a map";
            return Err(self.fatal(span, message));
        };
        let Some(Frame {
            content: Content::Map(map),
            ..
        }) = self.stack.last_mut()
        else {
            return Ok(PendingKey::Refused);
        };
        if let Some(first) = map.seen.get(&text) {
            let message = format!("key {} is given twice, first at {first}", quote(&text));
            self.errors
                .push(ConfigError::new(span, KeyPath::root(), message));
            return Ok(PendingKey::Refused);
        }
        map.seen.insert(text.clone(), span.clone());
        Ok(if item.is_merge {
            PendingKey::Merge
        } else {
            PendingKey::Entry(Key { text, span })
        })
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let as_text = || NodeValue::Str(text.to_owned());
        let value = match tag.map(|t| (core_tag(t), t)) {
            None if style == ScalarStyle::Plain => resolve(text),
            None | Some((Some("str" | "!"), _)) => as_text(),
            Some((Some(kind @ ("int" | "float" | "bool" | "null")), _)) => {
                match (kind, resolve(text)) {
                    ("int", value @ NodeValue::Int(_))
                    | ("float", value @ NodeValue::Float(_))
                    | ("bool", value @ NodeValue::Bool(_))
                    | ("null", value @ NodeValue::Null) => value,
                    ("float", NodeValue::Int(i)) => NodeValue::Float(i as f64),
                    _ => {
                        let message = format!("{} is no !!{kind}", quote(text));
                        self.errors
                            .push(ConfigError::new(span.clone(), KeyPath::root(), message));
                        as_text()
                    }
                }
            }
            Some((_, tag)) => {
                self.refuse_tag(tag, span.clone());
                as_text()
            }
        };
        let keep = !matches!(value, NodeValue::Str(_));
        let text = keep.then(|| Arc::from(text));
        Node {
            value,
            span,
            text,
            expanded: false,
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, span: Span) {
        let message = format!("tag {} is not supported here", quote(&tag.to_string()));
        self.errors
            .push(ConfigError::new(span, KeyPath::root(), message));
    }

    fn span(&self, at: &Marker) -> Span {
        Span {
            source: self.source.clone(),
            line: clamp(at.line()).max(1),
            column: clamp(at.col()).saturating_add(1),
        }
    }

    fn fatal(&self, span: Span, message: impl Into<String>) -> Fatal {
        Box::new(ConfigError::new(span, KeyPath::root(), message))
    }
}

/// The name of a core schema tag, `!` for the tag that says "not plain"; `None` for others.
fn core_tag(tag: &Tag) -> Option<&str> {
    if tag.is_yaml_core_schema() {
        Some(&tag.suffix)
    } else if format!("{}{}", tag.handle, tag.suffix) == "!" {
        Some("!")
    } else {
        None
    }
}

/// Memory that a copy of the node takes, roughly.
pub(crate) fn weight(node: &Node) -> usize {
    let own = node.text.as_ref().map_or(0, |t| t.len()) + NODE_BYTES;
    own + match &node.value {
        NodeValue::Str(text) => text.len(),
        NodeValue::List(items) => items.iter().map(weight).sum(),
        NodeValue::Map(entries) => entries.iter().map(|(k, n)| k.text.len() + weight(n)).sum(),
        _ => 0,
    }
}

/// Levels of lists and maps in the node; a scalar has none.
pub(crate) fn depth_of(node: &Node) -> usize {
    match &node.value {
        NodeValue::List(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        NodeValue::Map(entries) => 1 + entries.iter().map(|(_, n)| depth_of(n)).max().unwrap_or(0),
        _ => 0,
    }
}
