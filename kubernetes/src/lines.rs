//! Lines out of pieces of a body.

/// The longest line: an object may be as long as etcd takes it (1.5 MiB), and is written as JSON.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 20;

/// Puts pieces together and takes lines out. Holds one line at most, and the piece it ends in.
#[derive(Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    /// Up to here there is no end of a line.
    looked: usize,
}

/// A line is longer than [`LINE_BYTES_MAX`].
#[derive(Debug, PartialEq)]
pub(crate) struct TooLong;

impl Lines {
    /// Takes a piece, and gives each line that ends in it to `each`, without its end; empty ones are left out.
    pub fn take<E: From<TooLong>>(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.buffer.extend_from_slice(piece);
        let mut start = 0;
        while let Some(at) = self.buffer[self.looked..].iter().position(|b| *b == b'\n') {
            let end = self.looked + at;
            let line = self.buffer[start..end].trim_ascii();
            (start, self.looked) = (end + 1, end + 1);
            if !line.is_empty() {
                each(line)?;
            }
        }
        self.buffer.drain(..start);
        self.looked = self.buffer.len();
        match self.buffer.len() > LINE_BYTES_MAX {
            true => Err(TooLong.into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_wherever_pieces_end() {
        let text = b"one\n\ntwo\r\nthree\nrest";
        for size in 1..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                let each = |line: &[u8]| {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                    Ok::<(), TooLong>(())
                };
                lines.take(piece, each).unwrap();
            }
            assert_eq!(found, ["one", "two", "three"], "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let (mut lines, piece) = (Lines::default(), vec![b'x'; 1 << 20]);
        let mut taken = 0;
        while lines.take(&piece, |_| Ok::<(), TooLong>(())).is_ok() {
            taken += piece.len();
            assert!(taken <= LINE_BYTES_MAX);
        }
    }
}
