//! From bytes to batches: cuts records, decodes them, adds what is known of the file, runs the
//! operators and gives every record its time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regex::bytes::Regex;
use tailwater_pdata::{Cell, Column, LogsBatch, Map, SourceRows, Text, Times, Value};
use tailwater_pipeline::BufferPool;
use tailwater_pipeline::clock::Mono;
use tailwater_telemetry::metrics::FilesMetrics;

use super::catalog::FileNo;
use super::file_attrs::FileAttributes;
use super::hash::stable_hash;
use super::identity::TRAIL_BYTES;
use super::logfs::LogFs;
use super::position::Position;
use super::resume::{Points, Reading, ties_before};
use super::rules::RuleSets;
use super::settings::Settings;
use super::stamp::{Ties, stamp_observed};
use super::tail::{Chunk, Tail};
use super::whole_lines::{end_at_whole_line, trim_complete_lines};
use crate::input::charset::{Charset, raw_bodies};
use crate::input::frame::{FrameSpec, FrameState, Frames, Input, Oversize, Split, Token, Trim};
use crate::operators::{Chain, OperatorCx, Passed};

/// What one read became.
pub struct Cut {
    /// Batches to emit, in order; each has one resource.
    pub batches: Vec<LogsBatch>,
    /// Where the file stands when they are delivered.
    pub position: Arc<Position>,
    /// Records: those in `batches`, the filtered and the dropped ones.
    pub records: u32,
    /// Records that operators removed on purpose, by the operator's id.
    pub filtered: Vec<(Arc<str>, u64)>,
    /// Records dropped because an operator failed and `on_error` said so.
    pub dropped: u32,
    /// Bytes of the file.
    pub bytes: u64,
    /// Offset of the first byte.
    pub from_offset: u64,
    /// Some record has no time of its own, and none that an earlier reading gave it.
    pub wants_mark: bool,
    /// The position moved, even if there is no record.
    pub moved: bool,
    /// It had been read before a rewind.
    pub replay: bool,
    /// Where `batches` have lines with parts that were read earlier: the other files of the log. Their
    /// positions may not pass these parts before the batches are delivered.
    pub parts_of: Vec<FileNo>,
}

/// Cuts the content of all files of one source.
pub struct Cutter {
    fs: Arc<dyn LogFs>,
    rules: RuleSets,
    files: BTreeMap<FileNo, Known>,
    metrics: Arc<FilesMetrics>,
    frames: Frames,
}

/// What is kept of a file from read to read.
struct Known {
    /// The number of the rules that the rest is by.
    rules: u64,
    attributes: FileAttributes,
    /// Its own, if it is one of `files`.
    resource: Option<Arc<Map>>,
    lineage: u64,
    searched: Searched,
    /// Where reading can go back to while operators hold something back.
    points: Points,
}

/// The part of an unfinished record that was searched for its end already.
#[derive(Clone, Copy, Default)]
struct Searched {
    /// Where it begins in the file.
    offset: u64,
    len: usize,
    /// Hash of its last bytes: it is searched again if it was overwritten.
    hash: u64,
}

impl Searched {
    const HASHED_BYTES: usize = 64;

    fn of(content: &[u8], offset: u64, len: usize) -> Searched {
        let hash = stable_hash(&content[len.saturating_sub(Self::HASHED_BYTES)..len]);
        Searched { offset, len, hash }
    }

    /// How much of `content`, which begins at `offset`, need not be searched.
    fn in_content(self, content: &[u8], offset: u64) -> usize {
        let is_there = self.offset == offset && self.len <= content.len();
        if is_there && Searched::of(content, offset, self.len).hash == self.hash {
            self.len
        } else {
            0
        }
    }
}

impl Cutter {
    /// A cutter that runs `chain` on every batch and `header_chain` on header lines.
    pub fn new(
        settings: Arc<Settings>,
        fs: Arc<dyn LogFs>,
        chain: Chain,
        header_chain: Chain,
        metrics: Arc<FilesMetrics>,
    ) -> Cutter {
        Cutter {
            fs,
            rules: RuleSets::new(settings, chain, header_chain),
            files: BTreeMap::new(),
            metrics,
            frames: Frames::default(),
        }
    }

    /// Goes on with other rules.
    pub fn change(
        &mut self,
        settings: Arc<Settings>,
        fs: Arc<dyn LogFs>,
        chain: Chain,
        header_chain: Chain,
    ) {
        self.rules.change(settings, chain, header_chain);
        self.fs = fs;
    }

    /// A file was opened or got another name.
    pub fn opened(&mut self, tail: &mut Tail) {
        // Kept over a rotation: the new file at the path continues the lines of the old one.
        let (lineage, searched, resource) = match self.files.get(&tail.no) {
            Some(known) => (known.lineage, known.searched, known.resource.clone()),
            None => {
                let path = tail.position.path.as_os_str().as_encoded_bytes();
                (stable_hash(path), Searched::default(), None)
            }
        };
        let rules = self.rules.of(lineage);
        tail.charset = charset_of(rules.settings.charset, tail);
        let wanted = &rules.settings.attributes;
        let attributes = FileAttributes::of(&*self.fs, &tail.position.path, wanted);
        // One that is not named any more is read to its end as what it was.
        let named = rules.settings.resource_of(&tail.position.path).cloned();
        let resource = named.or(resource);
        let rules = rules.number;
        self.files.insert(
            tail.no,
            Known {
                rules,
                attributes,
                resource,
                lineage,
                searched,
                points: Points::default(),
            },
        );
    }

    /// The settings that a file is read by. The first time that these are others than before, what is
    /// known of it is found out anew.
    fn settings_of(&mut self, tail: &mut Tail) -> Arc<Settings> {
        let rules = self.rules.of(self.lineage(tail.no));
        let (number, settings) = (rules.number, rules.settings.clone());
        let is_new = self.files.get(&tail.no).is_some_and(|k| k.rules != number);
        if is_new {
            self.opened(tail);
            if let Some(known) = self.files.get_mut(&tail.no) {
                known.searched = Searched::default();
            }
            (tail.read_bytes, tail.long_record) = (settings.read_bytes, false);
        }
        settings
    }

    /// A file is done with.
    pub fn closed(&mut self, no: FileNo) {
        self.files.remove(&no);
    }

    /// A file will be read from another position: from an earlier one, or because its content starts
    /// anew. Lines that were held and have parts in it are forgotten; the files that hold their
    /// other parts have to be read again, too.
    #[must_use]
    pub fn moved(&mut self, tail: &mut Tail) -> Vec<FileNo> {
        tail.clean = Arc::new(tail.position.clone());
        if let Some(known) = self.files.get_mut(&tail.no) {
            known.points.clear();
        }
        self.rules.forget(tail.no)
    }

    /// When [`Cutter::due`] has something to do.
    pub fn deadline(&self) -> Option<Mono> {
        self.rules.deadline().map(|d| Mono::default().after(d))
    }

    /// Files of the logs of which operators hold lines back.
    pub fn held_in(&self) -> Vec<FileNo> {
        let held = |(_, k): &(&FileNo, &Known)| self.rules.holds(k.lineage, FileNo::MAX);
        self.files.iter().filter(held).map(|(no, _)| *no).collect()
    }

    /// The newest file of each log of which operators hold lines back.
    pub fn newest_held(&self) -> Vec<FileNo> {
        let held = |(_, k): &(&FileNo, &Known)| self.rules.holds(k.lineage, FileNo::MAX);
        let held = self.files.iter().filter(held);
        let newest: BTreeMap<u64, FileNo> = held.map(|(no, k)| (k.lineage, *no)).collect();
        newest.into_values().collect()
    }

    /// True if a line is held back that has parts in this file, or may go on in it.
    pub fn is_held_in(&self, no: FileNo) -> bool {
        self.rules.holds(self.lineage(no), FileNo::MAX)
    }

    /// True if a part of a line is held back that is in this file or before it.
    pub fn holds(&self, no: FileNo) -> bool {
        self.rules.holds(self.lineage(no), no)
    }

    /// Lines that operators held back and that are passed on by the clock.
    pub fn due(&mut self, now: Mono, wall_ns: i64) -> Vec<Passed> {
        let mut cx = OperatorCx {
            now_ns: wall_ns,
            elapsed: elapsed(now),
            ..OperatorCx::default()
        };
        let mut passed = self.rules.tick(&mut cx);
        for line in &mut passed {
            let batches = std::mem::take(&mut line.batches).into_iter();
            line.batches = batches.flat_map(LogsBatch::split_by_resource).collect();
        }
        passed
    }

    /// Lets the position of a file move on: to where it is read to, unless a part of a line is held
    /// that is in it or before it. If it is in it alone, then to a place before that part.
    pub fn release(&mut self, tail: &mut Tail) {
        let held = self.holds(tail.no);
        let Some(known) = self.files.get_mut(&tail.no) else {
            if !held {
                tail.clean = Arc::new(tail.position.clone());
            }
            return;
        };
        if !held {
            known.points.clear();
            tail.clean = Arc::new(tail.position.clone());
            return;
        }
        let earlier = tail.no.checked_sub(1);
        if earlier.is_some_and(|no| self.rules.holds(known.lineage, no)) {
            return;
        }
        let start = self.rules.held_starts(tail.no).into_iter().min();
        let place = start.and_then(|offset| known.points.newest(offset));
        if let Some(place) = place.filter(|p| p.offset > tail.clean.offset) {
            tail.clean = place;
        }
    }

    fn lineage(&self, no: FileNo) -> u64 {
        self.files.get(&no).map_or(0, |k| k.lineage)
    }

    /// The other files of the same log.
    fn relatives(&self, no: FileNo) -> Vec<FileNo> {
        let lineage = self.lineage(no);
        let related = self.files.iter().filter(|(_, k)| k.lineage == lineage);
        related.map(|(n, _)| *n).filter(|n| *n != no).collect()
    }

    /// Cuts what was read. `None` if there was nothing to cut yet.
    pub fn cut(
        &mut self,
        tail: &mut Tail,
        chunk: Chunk,
        pool: &Arc<BufferPool>,
        now: Mono,
        wall_ns: i64,
    ) -> std::io::Result<Option<Cut>> {
        let s = self.settings_of(tail);
        let Chunk { buf, skip, at_end } = chunk;
        let content = &buf[skip..];
        if content.is_empty() {
            tail.unfinished = false;
            pool.put(buf);
            return Ok(None);
        }
        if let Some(cut) = self.skip_hole(tail, &buf, skip, at_end, now, wall_ns)? {
            pool.put(buf);
            return Ok(Some(cut));
        }
        let from_offset = tail.position.offset;
        let end_offset = from_offset + content.len() as u64;
        let period = s.force_flush_period;
        let due = at_end && tail.flush_clock.is_due(end_offset, elapsed(now), period);
        // A read may give less than there is.
        let due = due && !tail.has_grown(end_offset);
        let header = self.header(&s, tail, content, wall_ns);
        if tail.position.header_done || s.header.is_none() {
            let input = match (at_end, due) {
                (false, _) => Input::More,
                (true, false) => Input::End,
                (true, true) => Input::Flush,
            };
            let offset = from_offset + header as u64;
            self.frame(&s, tail, &content[header..], offset, input);
        } else {
            // The next line may still be a header line, so an unfinished one waits for its end.
            self.frames = Frames::default();
        }
        let done = header + self.frames.consumed;
        let replay = from_offset < tail.cut_before;
        let recombines = self.rules.of(self.lineage(tail.no)).chain.recombines();
        let before = (recombines && done > 0).then(|| tail.position.clone());
        tail.advance(&buf, skip, done, s.head_bytes);
        // Should one be asked for later, it is not looked for in the middle.
        tail.position.header_done |= done > 0 && s.header.is_none();
        tail.unfinished = at_end && self.frames.unfinished > 0;
        if !tail.unfinished {
            tail.flush_clock.clear();
        }
        if done == 0 {
            // A record longer than the buffer: read more of it next time.
            if !at_end {
                tail.long_record = true;
                let most = s.frame(tail.charset).buffer_bytes_max().max(s.read_bytes);
                tail.read_bytes = (tail.read_bytes * 2).min(most);
            }
            pool.put(buf);
            return Ok(None);
        }
        (tail.read_bytes, tail.long_record) = (s.read_bytes, false);
        tail.active_at = now;
        let shared = pool.share(buf);
        let from = from_offset + header as u64;
        let reading = before.map(|before| Reading {
            before,
            content: shared.clone(),
            skip: skip + header,
            base: from,
        });
        let batch = self.batch(&s, tail, shared, skip + header, from);
        let mut cut = self.operate(tail, batch, reading, now, wall_ns);
        cut.from_offset = from_offset;
        cut.bytes = done as u64;
        cut.replay = replay;
        let untimed = |b: &LogsBatch| (0..b.rows()).any(|row| b.time.get(row) == 0);
        // Lines that may have been emitted before keep the marks they were stamped with.
        let marks = &tail.position.marks;
        let again = (replay || from_offset < tail.replay_until) && !marks.is_empty_at(from_offset);
        cut.wants_mark = !again && cut.batches.iter().any(untimed);
        Ok(Some(cut))
    }

    /// Skips a hole that `buf`, all NUL from `skip` on, reaches into, if it is longer than what is left
    /// unread because it may still be filled. As if its NULs had been read.
    fn skip_hole(
        &mut self,
        tail: &mut Tail,
        buf: &[u8],
        skip: usize,
        at_end: bool,
        now: Mono,
        wall_ns: i64,
    ) -> std::io::Result<Option<Cut>> {
        let s = self.settings_of(tail);
        let spec = s.frame(tail.charset);
        let in_header = s.header.is_some() && !tail.position.header_done;
        // In the middle of a record they are a part of it, and some want them as they are.
        let in_record = !tail.position.frame.is_empty() || matches!(spec.split, Split::None);
        let nul = || buf[skip..].iter().all(|b| *b == 0);
        if at_end || in_header || in_record || !nul() {
            return Ok(None);
        }
        let keep = spec.buffer_bytes_max().max(TRAIL_BYTES) as u64;
        let bytes = tail.hole_ahead((buf.len() - skip) as u64, keep)?;
        if bytes == 0 {
            return Ok(None);
        }
        let from_offset = tail.position.offset;
        let replay = from_offset < tail.cut_before;
        tail.advance(buf, skip, 0, s.head_bytes);
        tail.skip_hole(bytes);
        tail.flush_clock.clear();
        tail.unfinished = false;
        (tail.read_bytes, tail.long_record) = (s.read_bytes, false);
        tail.active_at = now;
        self.metrics.nul_bytes_skipped.inc_by(bytes);
        let nothing = LogsBatch::from_lines(Bytes::new(), &[]);
        let cut = self.operate(tail, nothing, None, now, wall_ns);
        Ok(Some(Cut {
            from_offset,
            bytes,
            replay,
            ..cut
        }))
    }

    /// Cuts `content`, which begins at `offset`, into records.
    fn frame(&mut self, s: &Settings, tail: &mut Tail, content: &[u8], offset: u64, input: Input) {
        let mut state = FrameState::decode(&tail.position.frame).unwrap_or_else(|e| {
            tracing::warn!(path = %tail.path.display(), error = %e, "a stored position was damaged; a long line may be cut anew");
            FrameState::default()
        });
        let spec = s.frame(tail.charset);
        let known = self.files.get_mut(&tail.no);
        let last = known.as_ref().map(|k| k.searched).unwrap_or_default();
        let searched = last.in_content(content, offset);
        spec.frame_on(&mut state, content, searched, input, &mut self.frames);
        if let Some(known) = known {
            let (done, len) = (self.frames.consumed, self.frames.searched);
            known.searched = Searched::of(&content[done..], offset + done as u64, len);
        }
        if s.keep_partial_blanks {
            trim_complete_lines(&mut self.frames, content);
        }
        if self.rules.of(self.lineage(tail.no)).chain.joins_lines() {
            // A buffer that is smaller than asked for will not be larger the next time.
            let full = content.len() >= tail.read_bytes;
            let may_grow = input == Input::More && full && content.len() < spec.buffer_bytes_max();
            if end_at_whole_line(&mut self.frames, content, may_grow) {
                state = FrameState::default();
                // What was left is there to be read.
                tail.at_end = false;
            }
        }
        self.metrics.nul_bytes_skipped.inc_by(self.frames.nul_bytes);
        let cuts = self.frames.tokens.iter().filter(|t| t.cut).count() as u64;
        match spec.oversize {
            Oversize::Split => self.metrics.lines_split.inc_by(cuts),
            Oversize::Truncate => self.metrics.lines_truncated.inc_by(cuts),
        }
        tail.position.frame = state.encode();
    }

    /// Bytes of the leading lines that match `header.pattern`, whatever `multiline` says. What the
    /// metadata operators make of them stays with the file. The first other line ends the header.
    fn header(&mut self, s: &Settings, tail: &mut Tail, content: &[u8], wall_ns: i64) -> usize {
        let Some(pattern) = &s.header else {
            return 0;
        };
        if tail.position.header_done {
            return 0;
        }
        let at_start = tail.position.offset == 0;
        let (charset, source) = (tail.charset, tail.no);
        let lineage = self.lineage(source);
        let rules = self.rules.of_mut(lineage);
        let found = Header::read(
            pattern,
            s.frame(charset),
            (charset, at_start),
            content,
            &mut self.frames,
            &mut |line| {
                let mut cx = OperatorCx {
                    source,
                    now_ns: wall_ns,
                    ..OperatorCx::default()
                };
                rules.header_chain.process(line, &mut cx);
            },
        );
        for (k, v) in found.fields {
            tail.position.header.retain(|(old, _)| *old != k);
            tail.position.header.push((k, v));
        }
        tail.position.header_done |= found.is_over;
        found.bytes
    }

    /// The batch of the tokens.
    fn batch(
        &mut self,
        s: &Settings,
        tail: &mut Tail,
        shared: Bytes,
        skip: usize,
        base: u64,
    ) -> LogsBatch {
        let mut text = Text::new(shared);
        let mut invalid = 0;
        let tokens = &self.frames.tokens;
        let slices = tail
            .charset
            .slices(&mut text, skip, tokens, base == 0, &mut invalid);
        self.metrics.invalid_utf8.inc_by(invalid);
        // Where a record itself begins, not where what was skipped before it does: lines are stamped
        // by it, and blank ones may have been skipped by an earlier read.
        let rel: Vec<u32> = tokens.iter().map(|t| t.from).collect();
        let mut batch = LogsBatch::from_slices(text, slices);
        if tail.charset == Charset::Nop {
            raw_bodies(&mut batch);
        }
        // First: what is known of the file hides what was configured, as in the collector.
        let known = self.files.get(&tail.no);
        let resource = known.and_then(|known| known.resource.as_ref());
        s.constants.add_to(&mut batch, resource);
        if let Some(known) = known {
            known.attributes.add_to(&mut batch);
        }
        for (k, v) in &tail.position.header {
            batch
                .attributes
                .set(k.as_str(), Column::Const(Value::str(v)));
        }
        if s.attributes.record_number {
            let first = tail.position.records + 1;
            let cells = tokens
                .iter()
                .map(|t| Cell::Int((first + u64::from(t.index)) as i64));
            batch
                .attributes
                .set("log.file.record_number", Column::Cells(cells.collect()));
        }
        if s.attributes.record_offset {
            let cell = |t: &Token| Cell::Int((base + u64::from(t.from)) as i64);
            let cells = tokens.iter().map(cell).collect();
            batch
                .attributes
                .set("log.file.record_offset", Column::Cells(cells));
        }
        tail.position.records += u64::from(self.frames.records);
        batch.source = Some(SourceRows { base, rel });
        batch
    }

    fn operate(
        &mut self,
        tail: &mut Tail,
        batch: LogsBatch,
        reading: Option<Reading>,
        now: Mono,
        wall_ns: i64,
    ) -> Cut {
        let lineage = self.lineage(tail.no);
        let mut cx = OperatorCx {
            source: tail.no,
            lineage,
            now_ns: wall_ns,
            elapsed: elapsed(now),
            ..OperatorCx::default()
        };
        let mut batch = batch;
        self.rules
            .of_mut(lineage)
            .chain
            .process(&mut batch, &mut cx);
        let report = cx.report;
        for e in report.errors.iter().filter(|e| !e.quiet) {
            tracing::warn!(
                path = %tail.path.display(), operator = %e.operator, records = e.records,
                error = %e.first, "an operator could not treat some records"
            );
        }
        let dropped = report.dropped as u32;
        let removed = report.filtered_total() as u32 + dropped;
        let mut batches = Vec::with_capacity(1);
        for b in std::iter::once(batch)
            .chain(report.more)
            .filter(|b| !b.is_empty())
        {
            if b.resource_rows.is_empty() && b.scope_names.is_empty() {
                batches.push(b);
            } else {
                batches.extend(b.split_by_resource());
            }
        }
        match reading {
            Some(reading) => self.spread_and_mark(tail, &mut batches, &reading, &report.spans),
            None => batches
                .iter_mut()
                .for_each(|b| spread(&mut tail.position.ties, b)),
        }
        self.release(tail);
        let parts_of = if report.covers.is_empty() {
            Vec::new()
        } else {
            self.relatives(tail.no)
        };
        let out: usize = batches.iter().map(LogsBatch::rows).sum();
        Cut {
            position: tail.clean.clone(),
            records: out as u32 + removed,
            batches,
            filtered: report.filtered,
            dropped,
            bytes: 0,
            from_offset: 0,
            wants_mark: false,
            moved: true,
            replay: false,
            parts_of,
        }
    }

    /// Moves ties apart, and remembers where groups of records begin that are held back.
    fn spread_and_mark(
        &mut self,
        tail: &mut Tail,
        batches: &mut [LogsBatch],
        reading: &Reading,
        spans: &[(u64, u64)],
    ) {
        let mut starts = self.rules.held_starts(tail.no);
        starts.retain(|offset| *offset >= reading.base);
        let newest = batches.iter().filter_map(|b| {
            let offsets = (0..b.rows()).filter_map(|row| b.source_offset(row));
            offsets.max()
        });
        let newest = newest.max();
        // Mostly all that came out is before what is held.
        let mixed: Vec<(u64, Ties)> = starts
            .iter()
            .filter(|start| newest.is_some_and(|o| o >= **start))
            .map(|start| (*start, ties_before(*start, &tail.position.ties, batches)))
            .collect();
        for b in batches.iter_mut() {
            spread(&mut tail.position.ties, b);
        }
        let Some(known) = self.files.get_mut(&tail.no) else {
            return;
        };
        let after = &tail.position;
        let ties_at = |offset: u64| {
            let found = mixed.iter().find(|(start, _)| *start == offset);
            found.map_or_else(|| after.ties.clone(), |(_, ties)| ties.clone())
        };
        let tokens = &self.frames.tokens;
        known
            .points
            .add(reading, &mut starts, tokens, after, ties_at);
        known.points.cross(spans);
    }

    /// What operators passed on late, as a cut: its delivery lets the positions of the file and of
    /// those that follow it move on.
    pub fn held(&mut self, tail: &mut Tail, passed: Passed) -> Cut {
        let mut batches = passed.batches;
        batches
            .iter_mut()
            .for_each(|b| spread(&mut tail.position.ties, b));
        self.release(tail);
        let out: usize = batches.iter().map(LogsBatch::rows).sum();
        let filtered: u64 = passed.filtered.iter().map(|(_, n)| n).sum();
        Cut {
            position: tail.clean.clone(),
            records: (out as u64 + filtered + passed.dropped) as u32,
            batches,
            filtered: passed.filtered,
            dropped: passed.dropped as u32,
            bytes: 0,
            from_offset: tail.position.offset,
            wants_mark: false,
            moved: true,
            replay: false,
            parts_of: self.relatives(tail.no),
        }
    }

    /// Gives every record its observed time; marks must be in place.
    pub fn stamp(&self, tail: &Tail, cut: &mut Cut, wall_ns: i64) {
        for b in &mut cut.batches {
            stamp_observed(b, &tail.position.marks, wall_ns);
        }
    }
}

/// The leading lines of a file that describe it, as far as they are there.
#[derive(Default)]
pub(super) struct Header {
    /// Their bytes.
    pub bytes: usize,
    /// A line follows that is none.
    pub is_over: bool,
    /// What they say, in their order; the last one of a name counts.
    pub fields: Vec<(String, String)>,
}

impl Header {
    /// Reads the lines of `content` that match `pattern`, by `spec`, whose pattern does not count here.
    /// `process` makes attributes of each.
    pub(super) fn read(
        pattern: &Regex,
        spec: FrameSpec,
        (charset, at_start): (Charset, bool),
        content: &[u8],
        frames: &mut Frames,
        process: &mut dyn FnMut(&mut LogsBatch),
    ) -> Header {
        let spec = FrameSpec {
            split: Split::Newline,
            trim: Trim::NONE,
            oversize: Oversize::Split,
            ..spec
        };
        spec.frame(&mut FrameState::default(), content, Input::More, frames);
        let (mut header, mut lines) = (Header::default(), 0);
        for t in &frames.tokens {
            let (mut line, _) = charset.decode(&content[t.range()]);
            if at_start && lines == 0 && line.starts_with('\u{feff}') {
                line.remove(0);
            }
            let blank_before = t.index > lines && !pattern.is_match(b"");
            if blank_before || !pattern.is_match(line.as_bytes()) {
                header.is_over = true;
                break;
            }
            (header.bytes, lines) = (t.next as usize, t.index + 1);
            let length = line.len() as u32;
            let mut batch = LogsBatch::from_lines(line.into_bytes().into(), &[(0, length)]);
            process(&mut batch);
            let rows = 0..batch.rows();
            header
                .fields
                .extend(rows.flat_map(|r| attributes_of(&batch, r)));
        }
        header.is_over |= frames.records > lines && !pattern.is_match(b"");
        header
    }
}

/// The `configured` encoding, or what a byte order mark says where that is UTF-8.
fn charset_of(configured: Charset, tail: &Tail) -> Charset {
    if configured != Charset::Utf8 {
        return configured;
    }
    let mut mark = Vec::new();
    let read = tail.file.as_ref().map(|f| f.read_whole_at(0, 2, &mut mark));
    match read {
        Some(Ok(2)) => Charset::by_mark(&mark).unwrap_or(configured),
        _ => configured,
    }
}

/// Moves repeats in `batch` apart.
pub(super) fn spread(ties: &mut Ties, batch: &mut LogsBatch) {
    if batch.time != Times::Const(0) {
        ties.spread(batch);
    }
}

/// The operators' clock.
fn elapsed(now: Mono) -> Duration {
    now.since(Mono::default())
}

fn attributes_of(batch: &LogsBatch, row: usize) -> Vec<(String, String)> {
    let map: Map = batch.attributes_of(row);
    map.iter()
        .map(|(k, v)| (k.to_string(), v.as_ref().to_display_string()))
        .collect()
}
