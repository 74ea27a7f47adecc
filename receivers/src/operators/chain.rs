//! A chain: operators and the ways between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tailwater_config::Warning;
use tailwater_pdata::{Columns, LogsBatch};

use super::expr::{Expr, Record};
use super::operator::{Cover, OnError, Operator, OperatorCx, Passed, Report, Rows};
use super::router::Router;

/// Where an operator sends what it is done with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum To {
    /// Another operator, by its position.
    Operator(usize),
    /// Out of the chain.
    Out,
}

/// An operator and its surroundings.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) id: Arc<str>,
    pub(super) condition: Option<Expr>,
    pub(super) on_error: OnError,
    /// Every one but the last gets a copy. Never empty.
    pub(super) outputs: Vec<To>,
    pub(super) operator: Box<dyn Operator>,
    /// Sends rows on, instead of `outputs`.
    pub(super) router: Option<Router>,
}

/// What came of a batch in an operator, besides what is left of it.
struct Treated {
    /// Rows that go on before it.
    ahead: Option<LogsBatch>,
    /// Rows that have to come again, behind it.
    tail: Option<LogsBatch>,
    /// The condition was false for all of it.
    skipped: bool,
}

/// Sees what operators do, for people who try them out. Operators are numbered as they are configured.
pub trait Witness {
    /// `batch` comes to an operator.
    fn comes(&mut self, _operator: usize, _batch: &LogsBatch) {}

    /// It is done with it: what goes on, and all that was reported so far. `skipped`: its `if` was
    /// false.
    fn went(
        &mut self,
        _operator: usize,
        _on: &mut dyn Iterator<Item = &LogsBatch>,
        _skipped: bool,
        _report: &Report,
    ) {
    }

    /// It passes on a record that it held back, since its time is over. `covers`: where the parts of it
    /// begin.
    fn due(&mut self, _operator: usize, _covers: &[Cover], _batch: &LogsBatch, _report: &Report) {}
}

/// Nobody looks.
struct Unseen;

impl Witness for Unseen {}

/// The operators of one receiver in one shard. Made by [`Chain::build`].
///
/// Records keep their order within an output. Nothing here blocks or fails: what goes wrong with a
/// record follows its operator's `on_error` and is in the report.
#[derive(Debug, Default)]
pub struct Chain {
    stages: Vec<Stage>,
    entry: Option<To>,
    joins_lines: bool,
    recombines: bool,
    /// Memory of the last call; empty between calls.
    work: VecDeque<(To, LogsBatch)>,
    out: Vec<LogsBatch>,
    /// What its configuration is warned of.
    pub(super) warnings: Vec<Warning>,
}

impl Chain {
    /// `outputs` point to stages or out, and never lead back.
    pub(super) fn new(
        stages: Vec<Stage>,
        joins_lines: bool,
        recombines: bool,
        warnings: Vec<Warning>,
    ) -> Chain {
        let entry = (!stages.is_empty()).then_some(To::Operator(0));
        Chain {
            stages,
            entry,
            joins_lines,
            recombines,
            warnings,
            ..Chain::default()
        }
    }

    /// True if an operator joins the parts of lines that a container runtime has split, and may
    /// hold some back.
    pub fn joins_lines(&self) -> bool {
        self.joins_lines
    }

    /// True if an operator puts consecutive records together, and mostly holds some back.
    pub fn recombines(&self) -> bool {
        self.recombines
    }

    /// True without operators: batches pass as they are.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Runs `batch` through the operators. What comes out first is left in `batch`, which may
    /// have become empty; everything else is in `cx.report.more`, to be passed on after it.
    pub fn process(&mut self, batch: &mut LogsBatch, cx: &mut OperatorCx) {
        self.process_seen(batch, cx, &mut Unseen);
    }

    /// [`Chain::process`], and `witness` is told what each operator does.
    pub fn process_seen(
        &mut self,
        batch: &mut LogsBatch,
        cx: &mut OperatorCx,
        witness: &mut impl Witness,
    ) {
        let Some(entry) = self.entry else { return };
        let mut out = std::mem::take(&mut self.out);
        self.work.push_back((entry, std::mem::take(batch)));
        self.run(cx, &mut out, witness);
        let mut all = out.drain(..);
        if let Some(first) = all.next() {
            *batch = first;
        }
        cx.report.more.extend(all);
        self.out = out;
    }

    /// Passes on what operators hold back and what is due at `cx.elapsed`, line by line.
    pub fn tick(&mut self, cx: &mut OperatorCx) -> Vec<Passed> {
        self.tick_seen(cx, &mut Unseen)
    }

    /// [`Chain::tick`], and `witness` is told what each operator does.
    pub fn tick_seen(&mut self, cx: &mut OperatorCx, witness: &mut impl Witness) -> Vec<Passed> {
        let mut passed = Vec::new();
        let before = (cx.source, cx.lineage);
        for i in 0..self.stages.len() {
            for due in self.stages[i].operator.due(cx) {
                let (covers, mut batch) = (due.covers, due.batch);
                // An operator behind this one may hold it back in its turn.
                cx.lineage = due.lineage;
                cx.source = covers.last().map_or(before.0, |c| c.source);
                cx.covering.clone_from(&covers);
                let mut batches = Vec::new();
                let dropped = cx.report.dropped;
                let filtered = std::mem::take(&mut cx.report.filtered);
                let stage = &mut self.stages[i];
                let mut rows = Rows::new(batch.rows(), stage.on_error);
                stage.operator.finish(&mut batch, &mut rows, cx);
                rows.finish(&mut batch, &stage.id, &mut cx.report);
                witness.due(i, &covers, &batch, &cx.report);
                fan_out(&self.stages[i].outputs, batch, &mut self.work);
                self.run(cx, &mut batches, witness);
                passed.push(Passed {
                    covers,
                    batches,
                    filtered: std::mem::replace(&mut cx.report.filtered, filtered),
                    dropped: cx.report.dropped - dropped,
                });
            }
        }
        cx.covering.clear();
        (cx.source, cx.lineage) = before;
        passed
    }

    /// When [`Chain::tick`] has something to do, on the clock of [`OperatorCx::elapsed`].
    pub fn deadline(&self) -> Option<Duration> {
        self.stages
            .iter()
            .filter_map(|s| s.operator.deadline())
            .min()
    }

    /// Offset of the first row of `source` that is held back. Its checkpoint must not pass it.
    pub fn held_from(&self, source: u64) -> Option<u64> {
        self.stages
            .iter()
            .filter_map(|s| s.operator.held_from(source))
            .min()
    }

    /// Offsets of the first rows of `source` of all that is held back.
    pub fn held_starts(&self, source: u64) -> Vec<u64> {
        let mut starts = Vec::new();
        for stage in &self.stages {
            stage.operator.held_starts(source, &mut starts);
        }
        starts
    }

    /// Another chain takes over: what this one holds back is passed on as soon as it may be.
    pub fn hurry(&mut self) {
        for stage in &mut self.stages {
            stage.operator.hurry();
        }
    }

    /// True if a row of `lineage` is held back that has parts from `source`, or from a source with a
    /// lower number: the sources of a lineage are numbered in their order. The checkpoint of `source`
    /// must not move, since its rows would be delivered without what belongs before them.
    pub fn holds(&self, lineage: u64, source: u64) -> bool {
        let holds = |s: &Stage| s.operator.holds(lineage, source);
        self.stages.iter().any(holds)
    }

    /// Bytes held back, for budgets.
    pub fn held_bytes(&self) -> usize {
        self.stages.iter().map(|s| s.operator.held_bytes()).sum()
    }

    /// Forgets the lines held back that have parts from `source`, because it will be read again from
    /// [`Chain::held_from`] or its content is gone. Returns the other sources that they have parts
    /// from: these have to be read again, too.
    pub fn forget(&mut self, source: u64) -> Vec<u64> {
        let forget = |s: &mut Stage| s.operator.forget(source);
        self.stages.iter_mut().flat_map(forget).collect()
    }

    /// The ids of the operators, in their order.
    pub fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.stages.iter().map(|s| &s.id)
    }

    /// Does all of `work`.
    fn run(&mut self, cx: &mut OperatorCx, out: &mut Vec<LogsBatch>, witness: &mut impl Witness) {
        while let Some((to, mut batch)) = self.work.pop_front() {
            let To::Operator(i) = to else {
                if !batch.is_empty() {
                    out.push(batch);
                }
                continue;
            };
            let stage = &mut self.stages[i];
            witness.comes(i, &batch);
            if let Some(router) = &mut stage.router {
                let routed = router.route(batch, &stage.id, &mut cx.report);
                let on = routed.iter().map(|(_, batch)| batch);
                witness.went(i, &mut on.into_iter(), false, &cx.report);
                for (route, batch) in routed.into_iter().rev() {
                    fan_out(router.outputs(route), batch, &mut self.work);
                }
                continue;
            }
            let Treated {
                ahead,
                tail,
                skipped,
            } = stage.process(&mut batch, cx);
            let on = ahead.iter().chain([&batch]);
            witness.went(i, &mut on.into_iter(), skipped, &cx.report);
            if let Some(tail) = tail {
                self.work.push_front((to, tail));
            }
            for batch in [Some(batch), ahead].into_iter().flatten() {
                if !batch.is_empty() {
                    fan_out(&self.stages[i].outputs, batch, &mut self.work);
                }
            }
        }
    }
}

/// Puts `batch` in front of `work`, once for every output.
fn fan_out(outputs: &[To], batch: LogsBatch, work: &mut VecDeque<(To, LogsBatch)>) {
    let Some((last, others)) = outputs.split_last() else {
        return;
    };
    let copies: Vec<_> = others.iter().map(|to| (*to, batch.clone())).collect();
    work.push_front((*last, batch));
    for copy in copies.into_iter().rev() {
        work.push_front(copy);
    }
}

impl Stage {
    /// Treats `batch`.
    fn process(&mut self, batch: &mut LogsBatch, cx: &mut OperatorCx) -> Treated {
        let mut rows = Rows::new(batch.rows(), self.on_error);
        if let Some(condition) = &self.condition {
            for row in 0..batch.rows() {
                match condition.truth(Record { batch, row }) {
                    Ok(true) => {}
                    Ok(false) => rows.skip(row),
                    Err(e) => rows.fail(row, || e.into()),
                }
            }
        }
        self.operator.process(batch, &mut rows, cx);
        let tail = rows.split_at.map(|at| {
            let mut tail = batch.split_off(at);
            let n = tail.rows();
            let drop_absent = |columns: &mut Columns| columns.retain(|_, c| !c.is_absent(n));
            drop_absent(&mut tail.attributes);
            tail
        });
        let ahead = rows.ahead.take();
        let skipped = rows.all_skipped();
        rows.finish(batch, &self.id, &mut cx.report);
        Treated {
            ahead,
            tail,
            skipped,
        }
    }
}
