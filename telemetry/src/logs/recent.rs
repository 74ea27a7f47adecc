//! The newest lines of the log, kept in memory for a report of a bug.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Bytes of lines that are kept.
pub(crate) const BYTES_MAX: usize = 256 << 10;

/// See the module's documentation. What is in it is what outputs get.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<Box<str>>,
    bytes: usize,
}

impl Recent {
    /// Keeps a line, and lets go of the oldest ones that have no room any more. One that has none at all
    /// is not kept.
    pub(crate) fn push(&self, line: &str) {
        if line.len() > BYTES_MAX {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.len();
        kept.lines.push_back(line.into());
        while kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.lines.pop_front() else {
                break;
            };
            kept.bytes -= oldest.len();
        }
    }

    /// All of them, the oldest first.
    pub(crate) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(kept.bytes);
        kept.lines.iter().for_each(|line| text.push_str(line));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: whatever is written, no more bytes are kept than there is room for, and these are of
    /// the newest lines, whole.
    #[test]
    fn the_newest_lines_are_kept_whole() {
        let recent = Recent::default();
        recent.push(&"x".repeat(BYTES_MAX + 1));
        assert_eq!(recent.text(), "");
        for n in 0..10_000 {
            recent.push(&format!("{n:05} {}\n", "x".repeat(n % 300)));
        }
        let text = recent.text();
        assert!(
            text.len() <= BYTES_MAX && text.len() > BYTES_MAX - 400,
            "{}",
            text.len()
        );
        let numbers: Vec<usize> = text.lines().map(|l| l[..5].parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&9_999));
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }
}
