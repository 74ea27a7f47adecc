//! What is known of one writer.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::report::{FileReport, StreamReport, WriterReport};
use super::seqs::{Delivery, SeqSet};
use crate::entry::EntryRef;

/// Streams of a writer whose order is followed; entries of further ones are not checked for it.
const STREAMS_MAX: usize = 10_000;

/// Pieces of files remembered; beyond it those that arrived whole are forgotten.
const SEGMENTS_MAX: usize = 4_096;

/// Ranges of missing numbers a report lists.
const RANGES_MAX: usize = 16;

/// Consecutive numbers in one file, all readable or all removed.
#[derive(Debug, Clone)]
struct Segment {
    file: Arc<str>,
    seqs: Range<u64>,
    removed: bool,
}

#[derive(Debug)]
struct StreamOrder {
    tenant: String,
    labels: String,
    /// One above the highest number delivered.
    next: u64,
    delivered: u64,
    out_of_order: u64,
}

/// Missing numbers by whether a file still holds them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) readable: u64,
    pub(super) removed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tracker {
    announced: u64,
    confirmed: u64,
    segments: Vec<Segment>,
    /// So many are looked through for those to forget.
    segments_max: usize,
    delivered: SeqSet,
    duplicates_raw: u64,
    duplicates_after_dedup: u64,
    duplicates_unclassified: u64,
    phantom: u64,
    pub(super) corrupt: u64,
    streams: HashMap<u64, StreamOrder>,
    order_unchecked: u64,
}

impl Tracker {
    /// One that can tell repeats of the newest `lines` lines.
    pub(super) fn remembering(lines: u64) -> Self {
        Self {
            delivered: SeqSet::remembering(lines),
            ..Self::default()
        }
    }

    /// Lines confirmed, and those of them that arrived.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.confirmed, self.delivered.count(0, self.confirmed))
    }

    pub(super) fn announce(&mut self, file: &str, seqs: Range<u64>) {
        let seqs = self.announced..seqs.end;
        if seqs.is_empty() {
            return;
        }
        self.announced = seqs.end;
        match self.segments.last_mut() {
            Some(last) if !last.removed && &*last.file == file => last.seqs.end = seqs.end,
            _ => {
                self.forget_settled();
                self.segments.push(Segment {
                    file: file.into(),
                    seqs,
                    removed: false,
                });
            }
        }
    }

    pub(super) fn confirm(&mut self, end: u64) {
        self.confirmed = self.confirmed.max(end.min(self.announced));
    }

    /// Looks at the pieces concerned alone: a file that rotates ten times a second has thousands.
    pub(super) fn removed(&mut self, seqs: Range<u64>) {
        let first = self.segments.partition_point(|s| s.seqs.end <= seqs.start);
        let end = self.segments.partition_point(|s| s.seqs.start < seqs.end);
        let end = end.max(first);
        let mut split = Vec::with_capacity(end - first + 2);
        for segment in &self.segments[first..end] {
            let (start, end) = (segment.seqs.start, segment.seqs.end);
            let from = seqs.start.clamp(start, end);
            let to = seqs.end.clamp(from, end);
            for (seqs, gone) in [(start..from, false), (from..to, true), (to..end, false)] {
                if !seqs.is_empty() {
                    let removed = segment.removed || gone;
                    split.push(Segment {
                        file: Arc::clone(&segment.file),
                        seqs,
                        removed,
                    });
                }
            }
        }
        self.segments.splice(first..end, split);
    }

    /// Segments are in the order of their numbers, so forgetting some leaves gaps that are known
    /// to have arrived whole. What did not arrive stays: it is looked at again when there is twice as much.
    fn forget_settled(&mut self) {
        if self.segments.len() >= self.segments_max.max(SEGMENTS_MAX) {
            let delivered = &self.delivered;
            self.segments
                .retain(|s| delivered.first_absent(s.seqs.start, s.seqs.end).is_some());
            self.segments_max = 2 * self.segments.len();
        }
    }

    pub(super) fn deliver(&mut self, seq: u64, entry: &EntryRef<'_>) {
        if seq >= self.announced {
            self.phantom += 1;
            return;
        }
        let identity = entry.identity_hash();
        let form = (identity ^ (identity >> 32)) as u32;
        match self.delivered.insert(seq, form) {
            Delivery::First => return self.follow_order(seq, entry),
            Delivery::SameForm => {}
            Delivery::OtherForm => self.duplicates_after_dedup += 1,
            Delivery::Unknown => self.duplicates_unclassified += 1,
        }
        self.duplicates_raw += 1;
    }

    fn follow_order(&mut self, seq: u64, entry: &EntryRef<'_>) {
        let hash = entry.stream_hash();
        if !self.streams.contains_key(&hash) && self.streams.len() >= STREAMS_MAX {
            self.order_unchecked += 1;
            return;
        }
        let stream = self.streams.entry(hash).or_insert_with(|| StreamOrder {
            tenant: entry.tenant.to_owned(),
            labels: entry.labels.to_owned(),
            next: 0,
            delivered: 0,
            out_of_order: 0,
        });
        stream.delivered += 1;
        stream.out_of_order += u64::from(seq < stream.next);
        stream.next = stream.next.max(seq + 1);
    }

    /// Numbers of a segment that are confirmed and not delivered.
    fn missing_of(&self, segment: &Segment) -> u64 {
        let end = segment.seqs.end.min(self.confirmed);
        let written = end.saturating_sub(segment.seqs.start);
        written - self.delivered.count(segment.seqs.start, end)
    }

    pub(super) fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        for segment in &self.segments {
            let count = self.missing_of(segment);
            if segment.removed {
                missing.removed += count;
            } else {
                missing.readable += count;
            }
        }
        missing
    }

    fn missing_ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        while let Some(start) = self.delivered.first_absent(at, self.confirmed) {
            if ranges.len() == RANGES_MAX {
                break;
            }
            let end = self.gap_end(start);
            ranges.push(start..end);
            at = end;
        }
        ranges
    }

    /// The first delivered number after a missing one, or the end: doubling steps over the gap,
    /// then halving, so that a backlog of millions costs nothing.
    fn gap_end(&self, start: u64) -> u64 {
        let (mut at, mut step) = (start + 1, 1);
        let empty = |from: u64, to: u64| self.delivered.count(from, to) == 0;
        while at < self.confirmed && empty(at, self.confirmed.min(at + step)) {
            at = self.confirmed.min(at + step);
            step *= 2;
        }
        while at < self.confirmed && step > 0 {
            if at + step <= self.confirmed && empty(at, at + step) {
                at += step;
            }
            step /= 2;
        }
        at
    }

    fn files(&self) -> Vec<FileReport> {
        let mut files: Vec<FileReport> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for segment in &self.segments {
            let written = segment
                .seqs
                .end
                .min(self.confirmed)
                .saturating_sub(segment.seqs.start);
            let missing = self.missing_of(segment);
            let at = *known.entry(&segment.file).or_insert_with(|| {
                files.push(FileReport {
                    file: segment.file.to_string(),
                    written: 0,
                    missing: 0,
                });
                files.len() - 1
            });
            files[at].written += written;
            files[at].missing += missing;
        }
        files
    }

    pub(super) fn report(&self, writer: u32) -> WriterReport {
        let missing = self.missing();
        let mut streams: Vec<StreamReport> = self
            .streams
            .values()
            .map(|stream| StreamReport {
                tenant: stream.tenant.clone(),
                labels: stream.labels.clone(),
                delivered: stream.delivered,
                out_of_order: stream.out_of_order,
            })
            .collect();
        streams.sort_by(|a, b| (&a.tenant, &a.labels).cmp(&(&b.tenant, &b.labels)));
        WriterReport {
            writer,
            written: self.confirmed,
            delivered: self.delivered.count(0, self.confirmed),
            missing: missing.readable + missing.removed,
            missing_removed: missing.removed,
            missing_ranges: self.missing_ranges(),
            duplicates_raw: self.duplicates_raw,
            duplicates_after_dedup: self.duplicates_after_dedup,
            duplicates_unclassified: self.duplicates_unclassified,
            out_of_order: streams.iter().map(|stream| stream.out_of_order).sum(),
            order_unchecked: self.order_unchecked,
            corrupt: self.corrupt,
            phantom: self.phantom,
            files: self.files(),
            streams,
        }
    }
}
