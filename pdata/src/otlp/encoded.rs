//! [`Encoded`]: a request as the bytes it came as.

use bytes::{Bytes, BytesMut};

use super::error::WireError;
use super::limits::Limits;
use super::revise::Found;
use super::schema::Message;
use super::split::count;
use super::wire::{Fields, Raw};
use super::{schema, walk};
use crate::Signal;

/// The bodies of one or more `Export{Logs,Metrics,Trace}ServiceRequest`s, known to be well formed.
///
/// Such a body is nothing but field 1, repeated, so two bodies one after the other are one valid
/// body. That is why requests are merged by putting chunks side by side, and nothing is encoded
/// again. Fields that this build does not know stay as they are.
///
/// Cloning copies no bytes.
#[derive(Clone, Debug)]
pub struct Encoded {
    signal: Signal,
    chunks: Vec<Chunk>,
    items: usize,
}

/// A body that is well formed by itself.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub body: Bytes,
    pub items: usize,
}

/// Up to this length, in bytes, what did not change is copied: fewer pieces are sent faster.
const COPIED_MAX: usize = 4096;

impl Chunk {
    /// Puts what becomes of the body behind `new`. `each` is asked for each field of `root` that leads
    /// to items: true means that what it appended comes in its place, false that it stays.
    pub fn with_fields_replaced(
        &self,
        root: &'static Message,
        new: &mut Encoded,
        mut each: impl FnMut(Found<'_>, &mut Vec<u8>) -> bool,
    ) {
        let body = &self.body;
        let mut push = |body: Bytes| {
            let items = count(root, &body);
            new.push(Chunk { body, items });
        };
        // What was written, and behind it what has not changed since.
        let (mut written, mut replaced, mut start) = (Vec::new(), Vec::new(), 0);
        let mut any = false;
        let mut fields = Fields::new(body, 0);
        loop {
            let from = fields.at();
            let Some((number, raw)) = fields.next() else {
                break;
            };
            let (Some(message), Raw::Len(at, to)) = (root.towards_items(number), raw) else {
                continue;
            };
            let found = Found {
                message,
                number,
                field: &body[from..to],
                at: at - from,
            };
            replaced.clear();
            if !each(found, &mut replaced) {
                continue;
            }
            any = true;
            if from - start > COPIED_MAX {
                push(std::mem::take(&mut written).into());
                push(body.slice(start..from));
            } else {
                written.extend_from_slice(&body[start..from]);
            }
            written.append(&mut replaced);
            start = to;
        }
        if any {
            push(written.into());
            push(body.slice(start..));
        } else {
            new.push(self.clone());
        }
    }
}

impl Encoded {
    /// Nothing.
    pub fn empty(signal: Signal) -> Encoded {
        Encoded {
            signal,
            chunks: Vec::new(),
            items: 0,
        }
    }

    /// Takes `body` as a request of `signal` after having looked at all of it: wire types, lengths
    /// and nesting of all fields that are known, UTF-8 of strings, varints, and `limits`. Lengths of
    /// trace and span ids are not judged, nor what values mean. A known field with a wire type
    /// that is not its own is an error, as in the collector; unknown fields are kept.
    ///
    /// Allocates nothing that grows with the body.
    pub fn parse(signal: Signal, body: Bytes, limits: &Limits) -> Result<Encoded, WireError> {
        let items = walk::walk(schema::request(signal), &body, limits)?;
        Ok(Encoded::known(signal, body, items))
    }

    /// A body that is known to be right, with so many items.
    pub(super) fn known(signal: Signal, body: Bytes, items: usize) -> Encoded {
        let mut encoded = Encoded::empty(signal);
        encoded.push(Chunk { body, items });
        encoded
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        if !chunk.body.is_empty() {
            self.items += chunk.items;
            self.chunks.push(chunk);
        }
    }

    pub(super) fn parts(&self) -> &[Chunk] {
        &self.chunks
    }

    /// What it carries.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Log records, data points or spans. Of a metric with two kinds of data only the last
    /// counts, as only that is seen by whoever decodes it.
    pub fn items(&self) -> usize {
        self.items
    }

    /// True without a single byte. There may be bytes without items: a resource by itself.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Length of the body, in bytes.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|c| c.body.len()).sum()
    }

    /// Bytes of memory that this holds, for budgets. A body that shares its buffer with others
    /// counts its own part.
    pub fn heap_bytes(&self) -> usize {
        self.len() + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// The pieces of the body, in order. Each is a request by itself.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.chunks.iter().map(|c| &c.body)
    }

    /// The body in one piece. Copies if it is in several.
    pub fn body(&self) -> Bytes {
        match &self.chunks[..] {
            [] => Bytes::new(),
            [one] => one.body.clone(),
            several => {
                let mut body = BytesMut::with_capacity(self.len());
                several.iter().for_each(|c| body.extend_from_slice(&c.body));
                body.freeze()
            }
        }
    }

    /// Puts `other` behind this one. Copies no bytes.
    ///
    /// # Panics
    ///
    /// If they are of different signals.
    pub fn append(&mut self, other: Encoded) {
        assert_eq!(self.signal, other.signal, "requests of one signal");
        self.items += other.items;
        self.chunks.extend(other.chunks);
    }
}

impl PartialEq for Encoded {
    /// Same signal and same bytes, however they are cut into chunks.
    fn eq(&self, other: &Encoded) -> bool {
        self.signal == other.signal && self.body() == other.body()
    }
}
