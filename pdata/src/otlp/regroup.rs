//! Putting items under other resources: by the values of some of their attributes, or only together under equal
//! ones.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Encoded;
use super::edit::{attributes_of, found, one, pairs};
use super::schema::{self, Message, Role};
use super::split::count;
use super::value::{Entries, put_map};
use super::wire::{Fields, Open, Raw, put_bytes};
use crate::column::Key;
use crate::value::Map;

/// What became of the items of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Regrouped {
    /// Items that had one of the keys and moved to a resource that says so.
    pub grouped: usize,
    /// Items that had none of them.
    pub not_grouped: usize,
    /// Items that had one and stayed where they were, because the request would have become too large.
    pub left: usize,
    /// Resources there are now.
    pub resources: usize,
}

/// Bytes at most by which what is repeated for new resources makes a request larger: a request may have a large resource and
/// very many different values.
const REPEATED_MAX: usize = 64 << 20;

impl Encoded {
    /// Moves the attributes `keys` of log records, data points and spans to their resources. Items whose resources have the
    /// same attributes and all else in common come under one, and so do those of equal scopes and metrics in it. Without
    /// keys, that is all. Resources, scopes and metrics without items go.
    pub fn group_by_attributes(&self, keys: &[Key]) -> (Encoded, Regrouped) {
        let root = schema::request(self.signal());
        let mut groups = Groups {
            keys,
            told: Regrouped::default(),
            resources: Vec::new(),
            places: HashMap::new(),
            repeated: 0,
        };
        let mut rest = Vec::new();
        for body in self.chunks() {
            for (number, field, content) in fields_of(body) {
                match (root.towards_items(number), content) {
                    (Some(message), Some(buf)) => groups.resource(message, buf),
                    _ => rest.extend_from_slice(field),
                }
            }
        }
        groups.told.resources = groups.resources.len();
        let told = groups.told;
        let mut body = groups.written();
        body.extend_from_slice(&rest);
        let items = count(root, &body);
        (Encoded::known(self.signal(), body.into(), items), told)
    }
}

/// The fields of a message: number, all bytes, and the content of those that have a length.
fn fields_of(buf: &[u8]) -> impl Iterator<Item = (u32, &[u8], Option<&[u8]>)> {
    let mut fields = Fields::new(buf, 0);
    std::iter::from_fn(move || {
        let from = fields.at();
        let (number, raw) = fields.next()?;
        let content = match raw {
            Raw::Len(from, to) => Some(&buf[from..to]),
            _ => None,
        };
        Some((number, &buf[from..fields.at()], content))
    })
}

/// Items under one heading, in the order they came.
#[derive(Default)]
struct Node {
    /// Number of its field in what it is in.
    number: u32,
    /// What tells it from others; its heading, but for metrics, which have one kind of data each.
    identity: Vec<u8>,
    /// Its fields that lead to no items.
    heading: Vec<u8>,
    /// What is in it, in order; none in those that hold items.
    inner: Vec<Node>,
    /// Where they are, by number and identity.
    places: HashMap<(u32, Vec<u8>), usize>,
    /// The one that was asked for last.
    last: usize,
    /// The fields of items.
    items: Vec<u8>,
}

impl Node {
    /// The node in it for a step, which is made if need be; `new` is told the bytes of one that was.
    fn inner(&mut self, step: &Step<'_>, new: &mut usize) -> &mut Node {
        let is_it = |node: &Node| node.number == step.number && node.identity == step.identity;
        if self.inner.get(self.last).is_some_and(is_it) {
            return &mut self.inner[self.last];
        }
        let at = match self.places.entry((step.number, step.identity.to_vec())) {
            Entry::Occupied(at) => *at.get(),
            Entry::Vacant(place) => {
                *new += step.heading.len();
                self.inner.push(Node {
                    number: step.number,
                    identity: step.identity.to_vec(),
                    heading: step.heading.to_vec(),
                    ..Node::default()
                });
                *place.insert(self.inner.len() - 1)
            }
        };
        self.last = at;
        &mut self.inner[at]
    }

    fn write(&self, out: &mut Vec<u8>) {
        let open = Open::field(out, self.number, 4);
        out.extend_from_slice(&self.heading);
        out.extend_from_slice(&self.items);
        self.inner.iter().for_each(|node| node.write(out));
        open.close(out);
    }
}

struct Groups<'k> {
    keys: &'k [Key],
    told: Regrouped,
    resources: Vec<Node>,
    /// By all that makes a resource.
    places: HashMap<Vec<u8>, usize>,
    repeated: usize,
}

/// A resource as it came.
struct Base {
    attributes: Map,
    /// The other fields of it, and those beside it.
    rest: Vec<u8>,
    beside: Vec<u8>,
    /// Where items go, by the attributes that they move, as they are encoded.
    places: HashMap<Vec<u8>, usize>,
}

/// One step on the way from a resource to an item.
struct Step<'p> {
    number: u32,
    identity: &'p [u8],
    heading: &'p [u8],
}

impl<'p> Step<'p> {
    /// Into what is told apart by its heading.
    fn into(number: u32, heading: &'p [u8]) -> Step<'p> {
        Step {
            number,
            identity: heading,
            heading,
        }
    }
}

impl Groups<'_> {
    fn resource(&mut self, message: &'static Message, buf: &[u8]) {
        let content = one(buf, 1);
        let mut entries = Entries::default();
        entries.decode(&content, 1);
        let mut base = Base {
            attributes: entries.into_map(),
            rest: Vec::new(),
            beside: Vec::new(),
            places: HashMap::new(),
        };
        for (number, field, _) in fields_of(&content) {
            if number != 1 {
                base.rest.extend_from_slice(field);
            }
        }
        for (number, field, _) in fields_of(buf) {
            if number != 1 && message.towards_items(number).is_none() {
                base.beside.extend_from_slice(field);
            }
        }
        for (number, _, content) in fields_of(buf) {
            if let (Some(scope), Some(buf)) = (message.towards_items(number), content) {
                self.scope(&mut base, scope, number, buf);
            }
        }
    }

    fn scope(&mut self, base: &mut Base, message: &'static Message, number: u32, buf: &[u8]) {
        let heading = heading_of(message, buf);
        for (inner, _, content) in fields_of(buf) {
            let (Some(child), Some(buf)) = (message.towards_items(inner), content) else {
                continue;
            };
            let scope = Step::into(number, &heading);
            match child.role {
                Role::Item => self.item(base, child, inner, buf, &[scope]),
                _ => self.metric(base, child, inner, buf, scope),
            }
        }
    }

    /// Of a metric with several kinds of data the last one counts.
    fn metric(
        &mut self,
        base: &mut Base,
        message: &'static Message,
        number: u32,
        buf: &[u8],
        scope: Step<'_>,
    ) {
        let heading = heading_of(message, buf);
        let is_data = |n: &u32| message.towards_items(*n).is_some();
        let numbers = fields_of(buf).map(|(n, _, _)| n).filter(is_data);
        let Some(kind) = numbers.last() else { return };
        let Some(data) = message.towards_items(kind) else {
            return;
        };
        let content = one(buf, kind);
        let data_heading = heading_of(data, &content);
        let mut identity = heading.clone();
        identity.extend_from_slice(&(heading.len() as u64).to_le_bytes());
        identity.extend_from_slice(&kind.to_le_bytes());
        identity.extend_from_slice(&data_heading);
        let metric = Step {
            number,
            identity: &identity,
            heading: &heading,
        };
        let path = [scope, metric, Step::into(kind, &data_heading)];
        for (number, _, point) in fields_of(&content) {
            if let (Some(message), Some(buf)) = (data.towards_items(number), point) {
                self.item(base, message, number, buf, &path);
            }
        }
    }

    fn item(
        &mut self,
        base: &mut Base,
        message: &'static Message,
        number: u32,
        buf: &[u8],
        path: &[Step<'_>],
    ) {
        let list = attributes_of(message);
        let is_key = |key: &[u8]| self.keys.iter().any(|k| k.as_bytes() == key);
        let goes = |number: u32, content: Option<&[u8]>| {
            number == list && content.is_some_and(|pair| is_key(key_of(pair)))
        };
        let mut moved = Vec::new();
        if !self.keys.is_empty() {
            for (number, field, content) in fields_of(buf) {
                if goes(number, content) {
                    moved.extend_from_slice(field);
                }
            }
        }
        if moved.is_empty() {
            self.told.not_grouped += 1;
        } else if self.repeated > REPEATED_MAX {
            self.told.left += 1;
            moved.clear();
        } else {
            self.told.grouped += 1;
        }
        let at = match base.places.get(&moved) {
            Some(at) => *at,
            None => {
                let mut attributes = base.attributes.clone();
                for pair in pairs(&moved, list) {
                    let key = String::from_utf8_lossy(pair.key(&moved));
                    attributes.insert(&*key, found(&moved, &pair).as_ref().to_value());
                }
                let at = self.place(base, &attributes);
                base.places.insert(moved.clone(), at);
                at
            }
        };
        if moved.is_empty() {
            return self.put(at, path, number, buf, false);
        }
        let mut item = Vec::with_capacity(buf.len());
        for (number, field, content) in fields_of(buf) {
            if !(number == list && content.is_some_and(|p| self.is_key(key_of(p)))) {
                item.extend_from_slice(field);
            }
        }
        self.put(at, path, number, &item, true);
    }

    fn is_key(&self, key: &[u8]) -> bool {
        self.keys.iter().any(|k| k.as_bytes() == key)
    }

    /// The resource with these attributes and the rest of `base`, which is made if need be.
    fn place(&mut self, base: &Base, attributes: &Map) -> usize {
        let mut sorted: Vec<_> = attributes.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(b.0));
        let sorted = sorted.into_iter().map(|(k, v)| (k.clone(), v.clone()));
        let mut identity = Vec::new();
        put_map(&mut identity, 1, &Map::from_unique(sorted));
        identity.extend_from_slice(&base.rest);
        // Apart from what follows, whatever that is.
        identity.extend_from_slice(&(identity.len() as u64).to_le_bytes());
        identity.extend_from_slice(&base.beside);
        match self.places.entry(identity) {
            Entry::Occupied(at) => *at.get(),
            Entry::Vacant(place) => {
                let mut heading = Vec::new();
                let open = Open::field(&mut heading, 1, 2);
                put_map(&mut heading, 1, attributes);
                heading.extend_from_slice(&base.rest);
                open.close(&mut heading);
                heading.extend_from_slice(&base.beside);
                self.repeated += heading.len();
                self.resources.push(Node {
                    number: 1,
                    heading,
                    ..Node::default()
                });
                *place.insert(self.resources.len() - 1)
            }
        }
    }

    fn put(&mut self, at: usize, path: &[Step<'_>], number: u32, item: &[u8], moved: bool) {
        let mut new = 0;
        let mut node = &mut self.resources[at];
        for step in path {
            node = node.inner(step, &mut new);
        }
        put_bytes(&mut node.items, number, item);
        if moved {
            self.repeated += new;
        }
    }

    fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.resources.iter().for_each(|node| node.write(&mut out));
        out
    }
}

/// The key of a `KeyValue`.
fn key_of(pair: &[u8]) -> &[u8] {
    let key = fields_of(pair).filter(|(number, _, _)| *number == 1);
    key.last()
        .and_then(|(_, _, content)| content)
        .unwrap_or_default()
}

/// The fields of a message that lead to no items.
fn heading_of(message: &'static Message, buf: &[u8]) -> Vec<u8> {
    let mut heading = Vec::new();
    for (number, field, _) in fields_of(buf) {
        if message.towards_items(number).is_none() {
            heading.extend_from_slice(field);
        }
    }
    heading
}
