//! What the receiver does with lines, without a file, a position or a thread.
//!
//! Lines are cut, decoded, given the attributes of the path they are taken to come from and put through
//! the operators by the code that does it for files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tailwater_pdata::{Cell, Column, LogsBatch, Map, SourceRows, Text, Times, Value};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::trial::{By, Item, ReceiverTrial, Step, Verdict, Watch};

use super::cutter::Header;
use super::file_attrs::FileAttributes;
use super::settings::Settings;
use super::whole_lines::trim_complete_lines;
use crate::input::charset::{Charset, raw_bodies};
use crate::input::frame::{FrameState, Frames, Input, Token};
use crate::operators::{Chain, Cover, OperatorCx, Passed, Report, Witness};

/// What a trial is made of.
pub(super) struct TrialParts {
    pub settings: Settings,
    pub attributes: FileAttributes,
    /// That of the path, if it has one of its own.
    pub resource: Option<Arc<Map>>,
    pub chain: Chain,
    pub header: Chain,
    pub clock: Arc<dyn Clock>,
}

/// Lines of one file on trial.
pub(super) struct LinesTrial {
    p: TrialParts,
    charset: Charset,
    state: FrameState,
    frames: Frames,
    header_done: bool,
    fields: Vec<(String, String)>,
    /// Bytes and records before what is offered.
    offset: u64,
    records: u64,
    operators: Vec<String>,
    waiting: Waiting,
    firsts: Firsts,
}

/// The records that an operator holds back, as they came to it.
type Waiting = BTreeMap<(usize, u64), Vec<Item>>;

/// Of records that are made of several: by the number of the last of them, that of the first.
type Firsts = BTreeMap<u64, u64>;

/// Operators take the number of a record for its place in the file. One that is made of several stands
/// where the last of them did; here it is taken for the first.
fn number_of(batch: &LogsBatch, row: usize, firsts: &Firsts) -> Option<u64> {
    let number = batch.source_offset(row)?;
    Some(firsts.get(&number).copied().unwrap_or(number))
}

impl LinesTrial {
    pub(super) fn new(p: TrialParts) -> LinesTrial {
        LinesTrial {
            charset: p.settings.charset,
            state: FrameState::default(),
            frames: Frames::default(),
            header_done: p.settings.header.is_none(),
            fields: Vec::new(),
            offset: 0,
            records: 0,
            operators: p.chain.ids().map(|id| id.to_string()).collect(),
            waiting: Waiting::new(),
            firsts: Firsts::new(),
            p,
        }
    }

    /// Takes the leading lines that describe the file.
    fn header(&mut self, content: &[u8]) -> usize {
        let Some(pattern) = &self.p.settings.header else {
            return 0;
        };
        let chain = &mut self.p.header;
        let now_ns = self.p.clock.wall_ns();
        let found = Header::read(
            pattern,
            self.p.settings.frame(self.charset),
            (self.charset, self.offset == 0),
            content,
            &mut self.frames,
            &mut |line| {
                let mut cx = OperatorCx {
                    now_ns,
                    ..OperatorCx::default()
                };
                chain.process(line, &mut cx);
            },
        );
        for (k, v) in found.fields {
            self.fields.retain(|(old, _)| *old != k);
            self.fields.push((k, v));
        }
        self.header_done |= found.is_over;
        found.bytes
    }

    /// The record of a token of `content`, which begins at `base`.
    fn record(&self, content: &[u8], token: &Token, base: u64) -> LogsBatch {
        let s = &self.p.settings;
        let line = content[token.range()].to_vec();
        let whole = Token {
            from: 0,
            index: 0,
            start: 0,
            end: line.len() as u32,
            next: line.len() as u32,
            cut: token.cut,
        };
        let mut text = Text::new(line.into());
        let at_start = base == 0 && token.from == 0;
        let slices = self
            .charset
            .slices(&mut text, 0, &[whole], at_start, &mut 0);
        let mut batch = LogsBatch::from_slices(text, slices);
        if self.charset == Charset::Nop {
            raw_bodies(&mut batch);
        }
        s.constants.add_to(&mut batch, self.p.resource.as_ref());
        self.p.attributes.add_to(&mut batch);
        let mut set = |key: &str, column| batch.attributes.set(key, column);
        for (k, v) in &self.fields {
            set(k, Column::Const(Value::str(v)));
        }
        let number = self.records + 1 + u64::from(token.index);
        let offset = base + u64::from(token.from);
        for (wanted, key, n) in [
            (s.attributes.record_number, "log.file.record_number", number),
            (s.attributes.record_offset, "log.file.record_offset", offset),
        ] {
            if wanted {
                set(key, Column::Cells(vec![Cell::Int(n as i64)]));
            }
        }
        batch
    }

    /// What came out of the operators, each with its number.
    fn numbered(&self, batches: Vec<LogsBatch>, record: u64) -> Vec<(u64, LogsBatch)> {
        let now_ns = self.p.clock.wall_ns();
        let (mut out, firsts) = (Vec::new(), &self.firsts);
        for mut batch in batches {
            while batch.rows() > 1 {
                let rest = batch.split_off(1);
                let first = std::mem::replace(&mut batch, rest);
                out.push((number_of(&first, 0, firsts).unwrap_or(record), first));
            }
            if !batch.is_empty() {
                out.push((number_of(&batch, 0, firsts).unwrap_or(record), batch));
            }
        }
        for (_, batch) in &mut out {
            batch.observed = Times::Const(now_ns);
            batch.source = None;
        }
        out
    }

    /// Tells the steps of a call. Only now is it known what still waits, and what has become a part of
    /// something that does.
    fn tell(&mut self, steps: Vec<Step>, watch: &mut dyn Watch) {
        let mut held = self.p.chain.held_starts(0);
        for number in &mut held {
            *number = self.firsts.get(number).copied().unwrap_or(*number);
        }
        if held.is_empty() {
            self.firsts.clear();
        }
        self.waiting.retain(|(_, number), _| held.contains(number));
        for mut step in steps {
            if step.verdict == Verdict::Held && !held.contains(&step.record) {
                step.verdict = Verdict::Joined;
            }
            watch.step(step);
        }
    }

    fn cx(&self) -> OperatorCx {
        OperatorCx {
            now_ns: self.p.clock.wall_ns(),
            elapsed: self.p.clock.now().since(Mono::default()),
            ..OperatorCx::default()
        }
    }
}

impl ReceiverTrial for LinesTrial {
    fn cut(&mut self, content: &mut Vec<u8>, last: bool) -> Vec<LogsBatch> {
        let s = &self.p.settings;
        if self.offset == 0 && s.charset == Charset::Utf8 && content.len() >= 2 {
            self.charset = Charset::by_mark(&content[..2]).unwrap_or(s.charset);
        }
        let mut done = 0;
        if !self.header_done {
            done = self.header(content);
            self.frames = Frames::default();
            // The last line may be no header although it is not ended.
            self.header_done |= last;
        }
        let body = &content[done..];
        if self.header_done {
            let spec = self.p.settings.frame(self.charset);
            let input = if last { Input::Flush } else { Input::More };
            spec.frame(&mut self.state, body, input, &mut self.frames);
            if self.p.settings.keep_partial_blanks {
                trim_complete_lines(&mut self.frames, body);
            }
        }
        let base = self.offset + done as u64;
        let tokens = &self.frames.tokens;
        let records = tokens.iter().map(|t| self.record(body, t, base)).collect();
        self.records += u64::from(self.frames.records);
        done += self.frames.consumed;
        self.offset += done as u64;
        content.drain(..done);
        self.frames = Frames::default();
        records
    }

    fn operate(
        &mut self,
        record: u64,
        mut batch: LogsBatch,
        watch: &mut dyn Watch,
    ) -> Vec<(u64, LogsBatch)> {
        batch.source = Some(SourceRows {
            base: record,
            rel: vec![0; batch.rows()],
        });
        let mut cx = self.cx();
        let mut witness = Looking {
            operators: &self.operators,
            waiting: &mut self.waiting,
            firsts: &mut self.firsts,
            record,
            came: Vec::new(),
            seen: Seen::default(),
            steps: Vec::new(),
        };
        self.p.chain.process_seen(&mut batch, &mut cx, &mut witness);
        let steps = witness.steps;
        let mut batches = vec![batch];
        batches.append(&mut cx.report.more);
        let numbered = self.numbered(batches, record);
        self.tell(steps, watch);
        numbered
    }

    fn tick(&mut self, watch: &mut dyn Watch) -> Vec<(u64, LogsBatch)> {
        let mut cx = self.cx();
        let mut witness = Looking {
            operators: &self.operators,
            waiting: &mut self.waiting,
            firsts: &mut self.firsts,
            record: 0,
            came: Vec::new(),
            seen: Seen::default(),
            steps: Vec::new(),
        };
        let passed = self.p.chain.tick_seen(&mut cx, &mut witness).into_iter();
        let steps = witness.steps;
        let batches: Vec<LogsBatch> = passed.flat_map(|p: Passed| p.batches).collect();
        let numbered = self.numbered(batches, 0);
        self.tell(steps, watch);
        numbered
    }

    fn deadline(&self) -> Option<Duration> {
        self.p.chain.deadline()
    }

    fn held(&self) -> Option<u64> {
        let number = self.p.chain.held_from(0)?;
        Some(self.firsts.get(&number).copied().unwrap_or(number))
    }
}

/// What was reported up to now.
#[derive(Clone, Copy, Default)]
struct Seen {
    filtered: u64,
    dropped: u64,
    errors: usize,
    spans: usize,
}

impl Seen {
    fn of(report: &Report) -> Seen {
        Seen {
            filtered: report.filtered_total(),
            dropped: report.dropped,
            errors: report.errors.len(),
            spans: report.spans.len(),
        }
    }
}

/// Tells of each operator what it did to a record.
struct Looking<'a> {
    operators: &'a [String],
    waiting: &'a mut Waiting,
    firsts: &'a mut Firsts,
    record: u64,
    /// The records that came to the operator.
    came: Vec<(u64, Vec<Item>)>,
    seen: Seen,
    steps: Vec<Step>,
}

impl Looking<'_> {
    /// The records of a batch by their numbers.
    fn rows(&self, batch: &LogsBatch) -> Vec<(u64, Vec<Item>)> {
        let number = |row| number_of(batch, row, self.firsts).unwrap_or(self.record);
        let items = Item::rows_of(batch).into_iter().enumerate();
        items.map(|(row, item)| (number(row), vec![item])).collect()
    }

    fn tell(&mut self, operator: usize, step: Step) {
        let by = By::Operator(operator, self.operators[operator].clone());
        self.steps.push(Step { by, ..step });
    }

    fn went_on(
        &mut self,
        operator: usize,
        on: Vec<(u64, Vec<Item>)>,
        skipped: bool,
        report: &Report,
    ) {
        let now = Seen::of(report);
        let before = std::mem::replace(&mut self.seen, now);
        let fresh = report.errors.get(before.errors..).unwrap_or_default();
        let mut error = fresh.first().map(|e| e.first.to_string());
        let came = std::mem::take(&mut self.came);
        let (filtered, dropped) = (now.filtered > before.filtered, now.dropped > before.dropped);
        for (number, after) in &on {
            if came.iter().any(|(n, _)| n == number) {
                continue;
            }
            // One that waited goes on before the one that came.
            let held = self.waiting.remove(&(operator, *number));
            let step = step_of(*number, held.unwrap_or_default(), after.clone());
            self.tell(
                operator,
                Step {
                    waited: true,
                    ..step
                },
            );
        }
        for (number, before) in came {
            let after = on.iter().filter(|(n, _)| *n == number);
            let after: Vec<Item> = after.flat_map(|(_, items)| items.clone()).collect();
            let verdict = match (after.is_empty(), skipped) {
                (false, true) => Verdict::Skipped,
                (false, false) => Verdict::Passed,
                (true, _) if dropped => Verdict::Dropped(None),
                (true, _) if filtered => Verdict::Filtered,
                (true, _) => {
                    self.waiting.insert((operator, number), before.clone());
                    Verdict::Held
                }
            };
            let step = step_of(number, before, after);
            let error = error.take();
            self.tell(
                operator,
                Step {
                    verdict,
                    error,
                    ..step
                },
            );
        }
    }
}

/// A step in which a record passed.
fn step_of(record: u64, before: Vec<Item>, after: Vec<Item>) -> Step {
    Step {
        record,
        by: By::Operator(0, String::new()),
        before,
        after,
        verdict: Verdict::Passed,
        waited: false,
        to: Vec::new(),
        error: None,
    }
}

impl Witness for Looking<'_> {
    fn comes(&mut self, _: usize, batch: &LogsBatch) {
        self.came = self.rows(batch);
    }

    fn went(
        &mut self,
        operator: usize,
        on: &mut dyn Iterator<Item = &LogsBatch>,
        skipped: bool,
        report: &Report,
    ) {
        for (first, last) in report.spans.get(self.seen.spans..).unwrap_or_default() {
            let first = self.firsts.get(first).copied().unwrap_or(*first);
            if first < *last {
                self.firsts.insert(*last, first);
            }
        }
        let on = on.flat_map(|b| self.rows(b)).collect();
        self.went_on(operator, on, skipped, report);
    }

    fn due(&mut self, operator: usize, covers: &[Cover], batch: &LogsBatch, report: &Report) {
        self.came.clear();
        let first = covers.iter().map(|c| c.offset).min();
        if let Some((first, last)) = first.zip(batch.source_offset(0))
            && first < last
        {
            let first = self.firsts.get(&first).copied().unwrap_or(first);
            self.firsts.insert(last, first);
        }
        let on = self.rows(batch);
        self.went_on(operator, on, false, report);
    }
}
