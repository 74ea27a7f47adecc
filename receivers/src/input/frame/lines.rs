//! Records that end at LF.

use memchr::{memchr, memchr_iter};

use super::{Boundary, Cutter, Units};

/// The first line end in `view`.
pub(super) fn newline(view: &[u8], units: Units) -> Boundary {
    let found = |lf: usize, size: usize| {
        let cr = lf >= size && units.unit(&view[lf - size..]) == u16::from(b'\r');
        let end = if cr { lf - size } else { lf };
        Boundary::Found {
            start: 0,
            end,
            next: lf + size,
            length: end,
        }
    };
    let lf = match units {
        Units::Utf8 | Units::Bytes => memchr(b'\n', view),
        Units::Utf16Le => {
            memchr_iter(b'\n', view).find(|i| i % 2 == 0 && view.get(i + 1) == Some(&0))
        }
        Units::Utf16Be => memchr_iter(b'\n', view)
            .find(|i| i % 2 == 1 && view[i - 1] == 0)
            .map(|i| i - 1),
    };
    lf.map_or(Boundary::Missing { start: 0 }, |lf| found(lf, units.size()))
}

impl Cutter<'_> {
    /// All lines of a text framed by bytes: one search for line ends over the whole buffer; only
    /// what is out of the ordinary goes the general way.
    pub(super) fn lines(&mut self) {
        let buf = self.buf;
        self.out.scanned += buf.len() as u64;
        for lf in memchr_iter(b'\n', buf) {
            let start = self.pos;
            let end = lf - usize::from(lf > start && buf[lf - 1] == b'\r');
            if end - start > self.max || buf[start] == 0 || self.state.skipping {
                // A line whose end is in the buffer is always decided, so this gets behind it.
                while self.pos <= lf && self.step() {}
                continue;
            }
            self.push(0, end - start, lf + 1 - start, false);
        }
        while self.step() {}
    }
}
