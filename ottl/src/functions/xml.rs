//! XML as maps: an element with all that it has, or only names and texts.
//!
//! Documents are read in one pass without validating them; entities are the five that are predefined, and
//! characters by number. Nothing is declared, so nothing can be expanded.

use std::borrow::Cow;
use std::collections::HashMap;

use tailwater_pdata::{Key, Map, Value};

use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::texts::PARTS_MAX;
use super::{Arg, Function, Takes, f, p};

const TEXT: &[super::Param] = &[p("target", Takes::Value(Kind::Text))];

pub(super) const FUNCTIONS: &[Function] = &[
    f("ParseXML", TEXT, Kind::Map, parse_xml),
    f("ParseSimplifiedXML", TEXT, Kind::Map, parse_simplified),
];

/// Elements within each other.
const DEPTH_MAX: usize = 100;

#[derive(Debug, Default)]
struct Element {
    /// Without a prefix, as the names of attributes.
    name: String,
    attributes: Vec<(Key, Value)>,
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Element(Element),
    Text(String),
    Comment,
}

/// What is read of a document, from the outside to the inside.
#[derive(Default)]
struct Document {
    roots: Vec<Node>,
    open: Vec<Element>,
    nodes: usize,
}

impl Document {
    fn read(text: &str) -> Result<Vec<Node>, &'static str> {
        let mut document = Document::default();
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            let (before, markup) = rest.split_at(at);
            if !before.is_empty() {
                document.push(Node::Text(unescaped(before)?))?;
            }
            rest = document.markup(markup)?;
        }
        match document.open.is_empty() {
            true => Ok(document.roots),
            false => Err("an element has no end"),
        }
    }

    fn push(&mut self, node: Node) -> Result<(), &'static str> {
        self.nodes += 1;
        if self.nodes > PARTS_MAX {
            return Err("the document has too many parts");
        }
        match self.open.last_mut() {
            Some(element) => element.nodes.push(node),
            None => self.roots.push(node),
        }
        Ok(())
    }

    /// Reads what begins with `<`; gives what is behind it.
    fn markup<'t>(&mut self, text: &'t str) -> Result<&'t str, &'static str> {
        let until = |text: &'t str, end: &str| {
            let found = text.split_once(end);
            found.ok_or("a part of the markup has no end")
        };
        if let Some(text) = text.strip_prefix("<!--") {
            let (_, rest) = until(text, "-->")?;
            self.push(Node::Comment)?;
            return Ok(rest);
        }
        if let Some(text) = text.strip_prefix("<![CDATA[") {
            let (content, rest) = until(text, "]]>")?;
            self.push(Node::Text(content.to_owned()))?;
            return Ok(rest);
        }
        if let Some(text) = text.strip_prefix("<?") {
            return Ok(until(text, "?>")?.1);
        }
        if let Some(text) = text.strip_prefix("<!") {
            return declaration(text);
        }
        if let Some(text) = text.strip_prefix("</") {
            let (name, rest) = until(text, ">")?;
            self.close(name.trim_end())?;
            return Ok(rest);
        }
        self.start(&text[1..])
    }

    /// Ends the innermost element.
    fn close(&mut self, name: &str) -> Result<(), &'static str> {
        match self.open.pop() {
            Some(element) if element.name == local(name)? => self.push(Node::Element(element)),
            _ => Err("an end is of no element that is open"),
        }
    }

    /// Reads a tag that begins an element, behind its `<`.
    fn start<'t>(&mut self, text: &'t str) -> Result<&'t str, &'static str> {
        let (name, mut rest) = name(text)?;
        let mut element = Element {
            name: local(name)?.to_owned(),
            ..Element::default()
        };
        loop {
            rest = rest.trim_start();
            if let Some(rest) = rest.strip_prefix("/>") {
                self.push(Node::Element(element))?;
                return Ok(rest);
            }
            if let Some(rest) = rest.strip_prefix('>') {
                if self.open.len() == DEPTH_MAX {
                    return Err("the elements are nested too deeply");
                }
                self.open.push(element);
                return Ok(rest);
            }
            let (key, behind) = name_of_attribute(rest)?;
            let quoted = behind.trim_start();
            let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\''));
            let quote = quote.ok_or("the value of an attribute is not in quotes")?;
            let found = quoted[1..].split_once(quote);
            let (value, behind) = found.ok_or("the value of an attribute has no end")?;
            self.nodes += 1;
            if self.nodes > PARTS_MAX {
                return Err("the document has too many parts");
            }
            let pair = (Key::from(local(key)?), Value::from(unescaped(value)?));
            element.attributes.push(pair);
            rest = behind;
        }
    }
}

/// What is behind a declaration as `<!DOCTYPE ...>`, which may have others in it.
fn declaration(text: &str) -> Result<&str, &'static str> {
    let mut depth = 1usize;
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(&text[at + 1..]);
        }
    }
    Err("a declaration has no end")
}

fn name(text: &str) -> Result<(&str, &str), &'static str> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '-' | '.');
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let begins = text.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | ':'));
    match begins {
        true => Ok(text.split_at(end)),
        false => Err("a name is expected"),
    }
}

/// The name of an attribute, and what is behind its `=`.
fn name_of_attribute(text: &str) -> Result<(&str, &str), &'static str> {
    let (key, rest) = name(text)?;
    let rest = rest.trim_start().strip_prefix('=');
    Ok((key, rest.ok_or("an attribute has no value")?))
}

/// A name without its prefix.
fn local(name: &str) -> Result<&str, &'static str> {
    match name.split_once(':') {
        None => Ok(name),
        Some(("", _) | (_, "")) => Ok(name),
        Some((_, local)) if !local.contains(':') => Ok(local),
        Some(_) => Err("a name has two prefixes"),
    }
}

/// Text with its entities as the characters they are.
fn unescaped(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        let (entity, behind) = behind.split_once(';').ok_or("an entity has no end")?;
        out.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "apos" => '\'',
            "quot" => '"',
            _ => {
                let number = entity.strip_prefix('#').ok_or("an entity is not known")?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                let code = code.ok().and_then(char::from_u32);
                code.ok_or("an entity is no character")?
            }
        });
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

type Done<'a> = Result<Val<'a>, Fault>;

fn nodes(place: &'static str, args: &[Arg], cx: &Cx<'_>) -> Result<Vec<Node>, Fault> {
    let Some(Arg::Value(expr)) = args.first() else {
        return Ok(Vec::new());
    };
    let found = match expr.eval(cx)? {
        Val::Str(text) => Document::read(&String::from_utf8_lossy(&text)),
        other => return Err(super::wrong(place, "text", &other)),
    };
    found.map_err(|why| Fault::failed(place, why))
}

fn elements(nodes: &[Node]) -> impl Iterator<Item = &Element> {
    nodes.iter().filter_map(|node| match node {
        Node::Element(element) => Some(element),
        _ => None,
    })
}

fn parse_xml<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "ParseXML";
    let nodes = nodes(PLACE, args, cx)?;
    let root = elements(&nodes).next();
    let root = root.ok_or_else(|| Fault::failed(PLACE, "there is no element"))?;
    Ok(Val::Map(Cow::Owned(whole(root))))
}

/// An element as `tag`, `content`, `attributes` and `children`.
fn whole(element: &Element) -> Map {
    let mut map = Map::new();
    map.insert("tag", Value::str(&element.name));
    let mut content = String::new();
    for node in &element.nodes {
        if let Node::Text(text) = node {
            content.push_str(text.trim());
        }
    }
    if !content.is_empty() {
        map.insert("content", Value::from(content));
    }
    if !element.attributes.is_empty() {
        let attributes = Map::from_entries(element.attributes.clone());
        map.insert("attributes", Value::Map(attributes));
    }
    let children: Vec<Value> = elements(&element.nodes)
        .map(|child| Value::Map(whole(child)))
        .collect();
    if !children.is_empty() {
        map.insert("children", Value::List(children));
    }
    map
}

fn parse_simplified<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "ParseSimplifiedXML";
    let nodes = nodes(PLACE, args, cx)?;
    if elements(&nodes).next().is_none() {
        return Err(Fault::failed(PLACE, "there is no element"));
    }
    Ok(Val::Map(Cow::Owned(simplified(&nodes))))
}

/// Elements by name: the text of one that has nothing else, or a map of those in it; lists of several with
/// one name. What is empty is left out.
fn simplified(nodes: &[Node]) -> Map {
    let mut several: HashMap<&str, usize> = HashMap::new();
    for element in elements(nodes) {
        *several.entry(&element.name).or_default() += 1;
    }
    let mut entries: Vec<(Key, Value)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for element in elements(nodes).filter(|e| !e.nodes.is_empty()) {
        let name = element.name.as_str();
        let value = match leaf(element) {
            "" => {
                let map = simplified(&element.nodes);
                (!map.is_empty()).then_some(Value::Map(map))
            }
            text => Some(Value::str(text)),
        };
        if several.get(name).is_none_or(|n| *n == 1) {
            entries.extend(value.map(|value| (Key::from(name), value)));
            continue;
        }
        let at = *places.entry(name).or_insert_with(|| {
            entries.push((Key::from(name), Value::List(Vec::new())));
            entries.len() - 1
        });
        if let (Some((_, Value::List(list))), Some(value)) = (entries.get_mut(at), value) {
            list.push(value);
        }
    }
    Map::from_entries(entries)
}

/// The first text of an element without others in it.
fn leaf(element: &Element) -> &str {
    if elements(&element.nodes).next().is_some() {
        return "";
    }
    let text = element.nodes.iter().find_map(|node| match node {
        Node::Text(text) => Some(text.as_str()),
        _ => None,
    });
    text.unwrap_or_default()
}
