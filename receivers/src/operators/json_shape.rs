//! The keys of the objects that one program writes: mostly the same, in the same order.
//!
//! A key that stands where it stood in the object before is recognised by one comparison, instead
//! of being searched for its end, checked and looked up.

/// What is known of the keys of the last object.
#[derive(Debug, Default)]
pub(super) struct Shape {
    keys: Vec<Known>,
}

/// A key.
#[derive(Debug)]
struct Known {
    /// The key as written, from its first quote to its colon; empty if it has another form.
    written: Vec<u8>,
    /// The column that the owner keeps with it; [`UNKNOWN`] without one.
    column: usize,
}

/// No column is kept with a key.
const UNKNOWN: usize = usize::MAX;
/// Keys longer than this, quotes and colon included, are not remembered.
const WRITTEN_BYTES_MAX: usize = 256;
/// Keys of one object that are remembered.
const KEYS_MAX: usize = 4096;

impl Shape {
    /// Bytes of the `i`-th key with its quotes and its colon, if exactly it stands at the
    /// beginning of `text`.
    #[inline]
    pub(super) fn matches(&self, i: usize, text: &[u8]) -> Option<usize> {
        let written = &self.keys.get(i)?.written[..];
        (!written.is_empty() && text.starts_with(written)).then_some(written.len())
    }

    /// The `i`-th key is another one than before; `written` is all of it from its first quote to
    /// its colon, `None` if it has an escape or blanks within.
    #[cold]
    pub(super) fn learn(&mut self, i: usize, written: Option<&[u8]>) {
        if i >= KEYS_MAX {
            return;
        }
        while self.keys.len() <= i {
            self.keys.push(Known {
                written: Vec::new(),
                column: UNKNOWN,
            });
        }
        let known = &mut self.keys[i];
        known.written.clear();
        let short = written.filter(|w| w.len() <= WRITTEN_BYTES_MAX);
        known.written.extend_from_slice(short.unwrap_or_default());
        known.column = UNKNOWN;
    }

    /// The column that is kept with the `i`-th key of the object that was walked last.
    #[inline]
    pub(super) fn column(&self, i: usize) -> Option<usize> {
        let column = self.keys.get(i)?.column;
        (column != UNKNOWN).then_some(column)
    }

    /// Keeps a column with the `i`-th key, until another key stands there.
    pub(super) fn keep_column(&mut self, i: usize, column: usize) {
        if let Some(known) = self.keys.get_mut(i).filter(|k| !k.written.is_empty()) {
            known.column = column;
        }
    }

    /// Forgets all columns: they belong to a batch.
    pub(super) fn forget_columns(&mut self) {
        self.keys.iter_mut().for_each(|k| k.column = UNKNOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_lasts_as_long_as_its_key() {
        let mut s = Shape::default();
        s.learn(1, Some(b"\"b\":"));
        assert_eq!((s.matches(0, b"\"a\":1"), s.matches(2, b"x")), (None, None));
        assert_eq!(s.matches(1, b"\"b\":1"), Some(4));
        assert_eq!(s.matches(1, b"\"b\" :1"), None);
        s.keep_column(1, 7);
        assert_eq!(s.column(1), Some(7));
        s.learn(1, Some(b"\"c\":"));
        assert_eq!(s.column(1), None);
        s.keep_column(1, 7);
        s.forget_columns();
        assert_eq!(s.column(1), None);
    }

    #[test]
    fn a_key_that_is_not_remembered_keeps_no_column() {
        let mut s = Shape::default();
        s.learn(0, None);
        s.keep_column(0, 3);
        let long = vec![b'k'; WRITTEN_BYTES_MAX + 1];
        s.learn(1, Some(&long));
        s.keep_column(1, 3);
        s.learn(KEYS_MAX, Some(b"\"a\":"));
        s.keep_column(KEYS_MAX, 3);
        assert_eq!(
            (s.column(0), s.column(1), s.column(KEYS_MAX)),
            (None, None, None)
        );
        assert_eq!((s.matches(0, b"\"a\":"), s.matches(1, &long)), (None, None));
    }
}
