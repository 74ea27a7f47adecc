//! Where the text of a batch lives: the shared read buffer and the batch's own arena.

use bytes::Bytes;

/// A range of text of one batch: 4 bytes of offset, 4 of length. The top bit of the offset says
/// which space it points into (the shared buffer or the arena), so both are limited to 2 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    off: u32,
    len: u32,
}

const ARENA: u32 = 1 << 31;

/// Texts from this size on get no more room in the arena than they need.
const LARGE_BYTES: usize = 64 << 10;

impl Slice {
    /// Marks a row without a value in a slice column.
    pub const ABSENT: Slice = Slice {
        off: u32::MAX,
        len: 0,
    };
    /// The empty text.
    pub const EMPTY: Slice = Slice { off: 0, len: 0 };

    /// A range of the shared buffer.
    #[inline]
    pub fn shared(off: u32, len: u32) -> Slice {
        debug_assert!(off < ARENA);
        Slice { off, len }
    }

    /// Length in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// True for [`Slice::ABSENT`].
    #[inline]
    pub fn is_absent(self) -> bool {
        self.off == u32::MAX
    }

    /// The part `from..from + len` of this slice; both are clamped to its end.
    #[inline]
    pub fn part(self, from: usize, len: usize) -> Slice {
        let from = from.min(self.len());
        let len = len.min(self.len() - from);
        Slice {
            off: self.off + from as u32,
            len: len as u32,
        }
    }
}

/// The text of one batch.
#[derive(Clone, Debug, Default)]
pub struct Text {
    shared: Bytes,
    arena: Vec<u8>,
}

impl Text {
    /// Text over a buffer that was filled by a read. At most 2 GiB.
    pub fn new(shared: Bytes) -> Text {
        assert!(
            shared.len() < ARENA as usize,
            "a read buffer is limited to 2 GiB"
        );
        Text {
            shared,
            arena: Vec::new(),
        }
    }

    /// The bytes of `slice`; empty for [`Slice::ABSENT`].
    #[inline]
    pub fn get(&self, slice: Slice) -> &[u8] {
        if slice.is_absent() {
            return &[];
        }
        let (space, off) = match slice.off & ARENA {
            0 => (&self.shared[..], slice.off),
            _ => (&self.arena[..], slice.off & !ARENA),
        };
        &space[off as usize..off as usize + slice.len()]
    }

    /// Copies `bytes` into the arena.
    pub fn push(&mut self, bytes: &[u8]) -> Slice {
        self.push_with(|arena| arena.extend_from_slice(bytes))
    }

    /// Lets `write` append to the arena; what it appended is the slice.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Slice {
        let off = self.arena.len();
        write(&mut self.arena);
        let len = self.arena.len() - off;
        assert!(
            self.arena.len() < ARENA as usize,
            "computed text of a batch is limited to 2 GiB"
        );
        Slice {
            off: off as u32 | ARENA,
            len: len as u32,
        }
    }

    /// Copies existing slices, one after another, into one new slice of the arena.
    pub fn concat(&mut self, parts: &[Slice]) -> Slice {
        self.concat_after(&[], parts)
    }

    /// As [`Text::concat`], with `before` in front.
    pub fn concat_after(&mut self, before: &[u8], parts: &[Slice]) -> Slice {
        let off = self.arena.len();
        let bytes = before.len() + parts.iter().map(|p| p.len()).sum::<usize>();
        if bytes >= LARGE_BYTES {
            // Doubling would take twice what is needed; a quarter keeps copying rare.
            self.arena.reserve_exact(bytes.max(off / 4));
        }
        self.arena.extend_from_slice(before);
        for &p in parts {
            if p.is_absent() {
                continue;
            }
            match p.off & ARENA {
                0 => {
                    let o = p.off as usize;
                    self.arena.extend_from_slice(&self.shared[o..o + p.len()]);
                }
                _ => {
                    let o = (p.off & !ARENA) as usize;
                    self.arena.extend_from_within(o..o + p.len());
                }
            }
        }
        Slice {
            off: off as u32 | ARENA,
            len: (self.arena.len() - off) as u32,
        }
    }

    /// The slice of text that is a part of this one: it is told by where it lies, not by what it says.
    pub fn slice_of(&self, part: &[u8]) -> Option<Slice> {
        let within = |space: &[u8]| {
            let from = (part.as_ptr() as usize).checked_sub(space.as_ptr() as usize)?;
            (from.checked_add(part.len())? <= space.len()).then_some(from as u32)
        };
        let len = part.len() as u32;
        if let Some(off) = within(&self.shared) {
            return Some(Slice { off, len });
        }
        within(&self.arena).map(|off| Slice {
            off: off | ARENA,
            len,
        })
    }

    /// The shared buffer.
    pub fn shared(&self) -> &Bytes {
        &self.shared
    }

    /// Bytes held: the whole shared buffer (a slice pins all of it) and the arena.
    pub fn heap_bytes(&self) -> usize {
        self.shared.len() + self.arena.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_reach_both_spaces() {
        let mut t = Text::new(Bytes::from_static(b"hello world"));
        let w = Slice::shared(6, 5);
        let a = t.push(b"big ");
        let c = t.concat(&[a, w, Slice::ABSENT, a]);
        assert_eq!(t.get(c), b"big worldbig ");
        assert_eq!(t.get(c.part(4, 5)), b"world");
        assert_eq!(t.get(w.part(3, 99)), b"ld");
        assert_eq!(t.get(Slice::ABSENT), b"");
        let d = t.concat_after(b"<", &[c, w]);
        assert_eq!(t.get(d), b"<big worldbig world");
    }

    #[test]
    fn parts_of_a_text_are_found_again_by_their_place() {
        let mut t = Text::new(Bytes::from_static(b"hello world"));
        let a = t.push(b"arena");
        for slice in [Slice::shared(6, 5), Slice::shared(11, 0), a, a.part(2, 2)] {
            let found = t.slice_of(t.get(slice)).unwrap();
            assert_eq!(t.get(found), t.get(slice));
            assert_eq!(found.len(), slice.len());
        }
        assert_eq!(t.slice_of(b"world".to_vec().as_slice()), None);
    }

    #[test]
    fn large_texts_take_the_room_they_need() {
        let mut t = Text::new(vec![b'x'; 1 << 20].into());
        let all = Slice::shared(0, 1 << 20);
        t.concat_after(b"y", &[all]);
        assert!(t.heap_bytes() < (2 << 20) + 4096);
    }
}
