//! Positions that reading can go back to although operators hold records back.
//!
//! A `recombine` that waits for the first record of the next group holds something back after
//! nearly every read. So that positions move on all the same, the places where held groups begin
//! are remembered as positions of their own: everything before such a place is in what came out, as
//! long as no group that came out reaches over it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_pdata::LogsBatch;

use super::identity::Trail;
use super::position::Position;
use super::stamp::Ties;
use crate::input::frame::Token;

/// Places of one file that are remembered. Beyond it the oldest is forgotten, which costs reading
/// again after a crash, no more.
const POINTS_MAX: usize = 16;

/// Where a read began, and what was read.
pub struct Reading {
    /// The position before it.
    pub before: Position,
    /// The buffer.
    pub content: Bytes,
    /// Where the records begin in it.
    pub skip: usize,
    /// The offset of that in the file.
    pub base: u64,
}

impl Reading {
    /// The position at which the record begins that is at `offset`. `after` is the one behind this
    /// read.
    fn position_at(&self, offset: u64, tokens: &[Token], after: &Position) -> Option<Position> {
        let rel = u32::try_from(offset.checked_sub(self.base)?).ok()?;
        let mut at = tokens.partition_point(|t| t.from < rel);
        // In the middle of a long record there is nothing to go back to.
        while at > 0 && tokens[at - 1].cut {
            at -= 1;
        }
        let Some(last) = at.checked_sub(1).map(|i| tokens[i]) else {
            return Some(self.before.clone());
        };
        let consumed = self.skip + last.next as usize;
        Some(Position {
            offset: self.base + u64::from(last.next),
            records: self.before.records + u64::from(last.index) + 1,
            trail: Trail::of(self.content.get(..consumed)?),
            frame: Vec::new(),
            ..after.clone()
        })
    }
}

/// The places of one file, ascending.
#[derive(Default)]
pub struct Points(VecDeque<Arc<Position>>);

impl Points {
    /// Adds the places in a read at which groups begin that are held now. `ties_at` gives the state
    /// of ties behind the records before an offset.
    pub fn add(
        &mut self,
        reading: &Reading,
        starts: &mut Vec<u64>,
        tokens: &[Token],
        after: &Position,
        mut ties_at: impl FnMut(u64) -> Ties,
    ) {
        starts.retain(|offset| *offset >= reading.base);
        starts.sort_unstable();
        starts.dedup();
        // The first one is what counts for as long as nothing is passed on.
        starts.truncate(POINTS_MAX);
        for offset in starts.iter() {
            let Some(mut position) = reading.position_at(*offset, tokens, after) else {
                continue;
            };
            position.ties = ties_at(*offset);
            let newest = self.0.back();
            if newest.is_some_and(|p| p.offset >= position.offset) {
                continue;
            }
            if self.0.len() == POINTS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(Arc::new(position));
        }
    }

    /// Records were put together of which the first and the last begin at these offsets: no place
    /// between the two is one any more.
    pub fn cross(&mut self, spans: &[(u64, u64)]) {
        let crossed = |offset: u64| spans.iter().any(|(a, b)| *a < offset && offset <= *b);
        self.0.retain(|p| !crossed(p.offset));
    }

    /// The newest place that is not behind `offset`; those before it are forgotten.
    pub fn newest(&mut self, offset: u64) -> Option<Arc<Position>> {
        let at = self
            .0
            .partition_point(|p| p.offset <= offset)
            .checked_sub(1)?;
        self.0.drain(..at);
        self.0.front().cloned()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The state of ties when the records before `offset` are spread, and no others.
pub fn ties_before(offset: u64, before: &Ties, batches: &[LogsBatch]) -> Ties {
    let mut ties = before.clone();
    for batch in batches {
        let is_before = |row| batch.source_offset(row).is_none_or(|o| o < offset);
        let keep: Vec<bool> = (0..batch.rows()).map(is_before).collect();
        let mut part = batch.clone();
        part.retain_rows(&keep);
        super::cutter::spread(&mut ties, &mut part);
    }
    ties
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(from: u32, next: u32, index: u32, cut: bool) -> Token {
        Token {
            from,
            index,
            start: from,
            end: next - 1,
            next,
            cut,
        }
    }

    fn reading() -> Reading {
        Reading {
            before: Position {
                offset: 100,
                records: 7,
                ..Position::default()
            },
            content: Bytes::from_static(b"__aaa\nbbb\nccc\n"),
            skip: 2,
            base: 100,
        }
    }

    #[test]
    fn a_place_is_where_a_record_begins() {
        let tokens = [
            token(0, 4, 0, false),
            token(4, 8, 1, false),
            token(8, 12, 2, false),
        ];
        let after = Position {
            offset: 112,
            records: 10,
            frame: vec![1],
            ..Position::default()
        };
        let r = reading();
        assert_eq!(r.position_at(100, &tokens, &after), Some(r.before.clone()));
        let at = r.position_at(108, &tokens, &after).expect("a place");
        assert_eq!((at.offset, at.records, at.frame.len()), (108, 9, 0));
        assert_eq!(at.trail, Trail::of(b"__aaa\nbbb\n"));
        let cut = [
            token(0, 4, 0, false),
            token(4, 8, 1, true),
            token(8, 12, 2, false),
        ];
        let at = r.position_at(108, &cut, &after).expect("a place");
        assert_eq!(at.offset, 104, "not behind a part of a record");
        assert_eq!(r.position_at(90, &tokens, &after), None);
    }

    /// Guarantee: reading does not go back to a place within a group that came out, nor behind the
    /// start of one that is held.
    #[test]
    fn places_within_groups_are_none() {
        let tokens = [
            token(0, 4, 0, false),
            token(4, 8, 1, false),
            token(8, 12, 2, false),
        ];
        let mut points = Points::default();
        let mut starts = vec![108, 104, 3, 104];
        let after = Position::default();
        points.add(&reading(), &mut starts, &tokens, &after, |_| {
            Ties::default()
        });
        let offsets = |p: &Points| p.0.iter().map(|p| p.offset).collect::<Vec<_>>();
        assert_eq!(offsets(&points), [104, 108]);
        points.cross(&[(104, 104), (100, 104)]);
        assert_eq!(offsets(&points), [108]);
        assert_eq!(points.newest(107), None);
        assert_eq!(points.newest(200).map(|p| p.offset), Some(108));
        points.clear();
        assert_eq!(points.newest(200), None);
    }
}
