//! The processors and connectors of a pipeline, and of those behind it, without anything around them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_pdata::{LogsBatch, Signal};

use super::Resolved;
use crate::ack::{AckSink, AckToken, Counts, DropReason, Outcome, SourceId};
use crate::batch::{Batch, Part};
use crate::clock::{Clock, Mono};
use crate::component::{BuildError, Connector, Output, Processor, Ways};
use crate::factory::NodeCx;
use crate::lanes::Wiring;
use crate::payload::Payload;
use crate::trial::{By, Item, ReceiverTrial, Step, Verdict, Watch};

/// Payloads, each with the number of the record it is or was made of.
type Numbered = Vec<(u64, Payload)>;

/// A pipeline to be tried out.
pub struct Trial {
    /// The pipeline that is tried, and those behind it.
    pipes: Vec<Pipe>,
    clock: Arc<dyn Clock>,
    cx: NodeCx,
}

/// One pipeline.
struct Pipe {
    id: String,
    stages: Vec<Stage>,
    exporters: Vec<String>,
    links: Vec<Link>,
}

struct Stage {
    by: By,
    processor: Box<dyn Processor>,
    duty: Duty,
}

/// A connector at the end of a pipeline.
struct Link {
    by: By,
    /// `None`: it passes all on to each way.
    connector: Option<Box<dyn Connector>>,
    /// Numbers of the pipelines behind it.
    ways: Vec<usize>,
    duty: Duty,
}

impl Resolved {
    /// What the receiver `id` does with lines of the file at `path`. `None`: it takes in no lines.
    pub fn receiver_trial(
        &self,
        id: &str,
        path: &Path,
        cx: &NodeCx,
    ) -> Option<Result<Box<dyn ReceiverTrial>, BuildError>> {
        let cx = NodeCx {
            id: id.into(),
            signal: Some(Signal::Logs),
            ..cx.clone()
        };
        self.receivers.get(id)?.trial(&cx, path)
    }

    /// Builds the processors of `pipeline`, and what is behind its connectors. Nothing is started.
    ///
    /// # Errors
    /// There is no such pipeline, or a node cannot be built.
    pub fn trial(&self, pipeline: &str, cx: &NodeCx) -> Result<Trial, BuildError> {
        let first = self.pipelines.iter().position(|w| w.id == pipeline);
        let Some(first) = first else {
            return Err(BuildError::new("graph", format!("no pipeline {pipeline}")));
        };
        // Those behind a pipeline stand behind it; which of them are led to is found on the way.
        let mut wanted: Vec<&Wiring> = vec![&self.pipelines[first]];
        for w in &self.pipelines[first + 1..] {
            let leads =
                |from: &&Wiring| from.connectors.iter().any(|c| c.pipelines.contains(&w.id));
            if wanted.iter().any(leads) {
                wanted.push(w);
            }
        }
        let ids: Vec<&str> = wanted.iter().map(|w| w.id.as_str()).collect();
        let pipes = wanted.iter().map(|w| self.pipe(w, &ids, cx));
        Ok(Trial {
            pipes: pipes.collect::<Result<_, _>>()?,
            clock: cx.clock.clone(),
            cx: cx.clone(),
        })
    }

    fn pipe(&self, w: &Wiring, ids: &[&str], cx: &NodeCx) -> Result<Pipe, BuildError> {
        let cx = |id: &str| NodeCx {
            id: id.into(),
            pipeline: Some(w.id.as_str().into()),
            signal: Some(w.signal),
            ..cx.clone()
        };
        let mut stages = Vec::new();
        for id in &w.processors {
            let Some(settings) = self.processors.get(id) else {
                continue;
            };
            stages.push(Stage {
                by: By::Processor(w.id.clone(), id.clone()),
                processor: settings.build(&cx(id))?,
                duty: Duty::default(),
            });
        }
        let mut links = Vec::new();
        for onward in &w.connectors {
            let Some(settings) = self.connectors.get(&onward.connector) else {
                continue;
            };
            let ways: Vec<&str> = onward.pipelines.iter().map(String::as_str).collect();
            let number = |way: &&str| ids.iter().position(|id| id == way);
            links.push(Link {
                by: By::Connector(w.id.clone(), onward.connector.clone()),
                connector: settings.build(&cx(&onward.connector), &ways)?,
                ways: ways.iter().filter_map(number).collect(),
                duty: Duty::default(),
            });
        }
        Ok(Pipe {
            id: w.id.clone(),
            stages,
            exporters: w.exporters.clone(),
            links,
        })
    }
}

impl Trial {
    /// Runs a record through.
    pub fn run(&mut self, record: u64, batch: LogsBatch, watch: &mut dyn Watch) {
        self.pass(0, 0, vec![(record, batch.into())], watch);
    }

    /// When a component has something to do by itself.
    pub fn deadline(&self) -> Option<Mono> {
        let stages = self.pipes.iter().flat_map(|p| &p.stages);
        stages.filter_map(|s| s.processor.deadline()).min()
    }

    /// Does what is due now.
    pub fn tick(&mut self, watch: &mut dyn Watch) {
        let now = self.clock.now();
        self.each_stage(watch, |processor, out| {
            if processor.deadline().is_some_and(|d| d <= now) {
                processor.tick(out);
            }
        });
    }

    /// Passes on everything that is kept.
    pub fn flush(&mut self, watch: &mut dyn Watch) {
        self.each_stage(watch, |processor, out| processor.flush(out));
    }

    /// The number of the first record that waits somewhere.
    pub fn held(&self) -> Option<u64> {
        let stages = self.pipes.iter().flat_map(|p| &p.stages);
        stages.filter_map(|s| s.duty.first()).min()
    }

    fn each_stage(
        &mut self,
        watch: &mut dyn Watch,
        mut work: impl FnMut(&mut dyn Processor, &mut Collected),
    ) {
        for pipe in 0..self.pipes.len() {
            for stage in 0..self.pipes[pipe].stages.len() {
                let now = self.clock.now();
                let batches =
                    self.pipes[pipe].stages[stage].call(Vec::new(), now, watch, &mut work);
                for batch in batches {
                    self.pass(pipe, stage + 1, batch, watch);
                }
            }
        }
    }

    /// Passes records to the stage of a pipeline with this number, and on.
    fn pass(&mut self, pipe: usize, stage: usize, records: Numbered, watch: &mut dyn Watch) {
        let now = self.clock.now();
        let Some(next) = self.pipes[pipe].stages.get_mut(stage) else {
            return self.end(pipe, records, watch);
        };
        let permits = &self.cx.budget;
        let parts = next.duty.parts(&records, |bytes| permits.take(bytes));
        let mut batch = Some(Batch { parts });
        let mut work = |processor: &mut dyn Processor, out: &mut Collected| {
            if let Some(batch) = batch.take() {
                processor.process(batch, out);
            }
        };
        for batch in next.call(records, now, watch, &mut work) {
            self.pass(pipe, stage + 1, batch, watch);
        }
    }

    /// What comes to the end of a pipeline.
    fn end(&mut self, pipe: usize, records: Numbered, watch: &mut dyn Watch) {
        let this = &mut self.pipes[pipe];
        for exporter in &this.exporters {
            for (number, payload) in &records {
                watch.arrives(*number, &this.id, exporter, Item::all_of(payload));
            }
        }
        for link in 0..self.pipes[pipe].links.len() {
            let permits = self.cx.budget.clone();
            let ids: Vec<String> = self.pipes.iter().map(|p| p.id.clone()).collect();
            let link = &mut self.pipes[pipe].links[link];
            for (way, records) in link.call(&records, &ids, &|n| permits.take(n), watch) {
                self.pass(way, 0, records, watch);
            }
        }
    }
}

impl Stage {
    /// Does something with the processor, into which `records` go, and tells what came of it.
    fn call(
        &mut self,
        records: Numbered,
        now: Mono,
        watch: &mut dyn Watch,
        work: &mut dyn FnMut(&mut dyn Processor, &mut Collected),
    ) -> Vec<Numbered> {
        let mut out = Collected {
            now,
            batches: Vec::new(),
        };
        work(&mut *self.processor, &mut out);
        let came: Vec<Numbered> = out.batches.into_iter().map(|b| self.duty.take(b)).collect();
        let on: Vec<&(u64, Payload)> = came.iter().flatten().collect();
        let nowhere = |_| Vec::new();
        self.duty.tell(&self.by, &records, &on, &nowhere, watch);
        came
    }
}

impl Link {
    fn call(
        &mut self,
        records: &Numbered,
        ids: &[String],
        permit: &dyn Fn(usize) -> crate::budget::Permit,
        watch: &mut dyn Watch,
    ) -> Vec<(usize, Numbered)> {
        let name = |way: &usize| ids[*way].clone();
        let Some(connector) = &self.connector else {
            let to: Vec<String> = self.ways.iter().map(name).collect();
            let on: Vec<&(u64, Payload)> = records.iter().collect();
            self.duty
                .tell(&self.by, records, &on, &|_| to.clone(), watch);
            let copies = self.ways.iter().map(|way| (*way, records.clone()));
            return copies.collect();
        };
        let parts = self.duty.parts(records, permit);
        let mut out = Handed(Vec::new());
        connector.pass(Batch { parts }, &mut out);
        let mut came: Vec<(usize, Numbered)> = Vec::new();
        for (way, batch) in out.0 {
            let records = self.duty.take(batch);
            if let Some(pipe) = self.ways.get(way) {
                came.push((*pipe, records));
            }
        }
        // What several pipelines get of a record is shown once.
        let mut first: BTreeMap<u64, usize> = BTreeMap::new();
        let all = || {
            came.iter()
                .flat_map(|(pipe, r)| r.iter().map(move |r| (*pipe, r)))
        };
        let on: Vec<&(u64, Payload)> = all()
            .filter(|(pipe, r)| first.entry(r.0).or_insert(*pipe) == pipe)
            .map(|(_, r)| r)
            .collect();
        let to = |number: u64| {
            let gets = all().filter(|(_, r)| r.0 == number);
            let mut to: Vec<String> = gets.map(|(pipe, _)| ids[pipe].clone()).collect();
            to.dedup();
            to
        };
        self.duty.tell(&self.by, records, &on, &to, watch);
        came
    }
}

/// What a processor emits.
struct Collected {
    now: Mono,
    batches: Vec<Batch>,
}

impl Output for Collected {
    fn emit(&mut self, batch: Batch) {
        if !batch.is_empty() {
            self.batches.push(batch);
        }
    }

    fn now(&self) -> Mono {
        self.now
    }
}

/// What a connector hands on.
struct Handed(Vec<(usize, Batch)>);

impl Ways for Handed {
    fn emit(&mut self, way: usize, batch: Batch) {
        if !batch.is_empty() {
            self.0.push((way, batch));
        }
    }
}

/// Follows records through a component by their delivery duty.
#[derive(Default)]
struct Duty {
    settled: Arc<Told>,
    /// What is in the component: the number of each record, and how it came.
    under_way: BTreeMap<u64, Vec<Item>>,
    numbers: HashMap<SourceId, u64>,
}

/// Number, outcome and counts of the records that are settled.
#[derive(Default)]
struct Told(Mutex<Vec<(u64, Outcome, Counts)>>);

impl AckSink for Told {
    fn settled(&self, key: u64, outcome: Outcome, counts: &Counts) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.push((key, outcome, counts.clone()));
    }
}

impl Duty {
    /// The parts of a batch of `records`, each with a duty of its own.
    fn parts(
        &mut self,
        records: &Numbered,
        permit: impl Fn(usize) -> crate::budget::Permit,
    ) -> Vec<Part> {
        let mut parts = Vec::new();
        for (number, payload) in records {
            let ack = AckToken::new(self.settled.clone(), *number);
            self.numbers.insert(ack.source(), *number);
            let came = self.under_way.entry(*number).or_default();
            came.extend(Item::all_of(payload));
            parts.push(Part {
                permit: permit(payload.heap_bytes()),
                data: payload.clone(),
                ack,
            });
        }
        parts
    }

    /// What is in a batch that came out; its duty is done.
    fn take(&self, batch: Batch) -> Numbered {
        let take = |part: Part| {
            let number = self.numbers.get(&part.ack.source()).copied();
            part.ack.resolve(Outcome::Delivered);
            (number.unwrap_or(0), part.data)
        };
        batch.parts.into_iter().map(take).collect()
    }

    /// The first record that is in the component.
    fn first(&self) -> Option<u64> {
        self.under_way.keys().next().copied()
    }

    /// Tells what became of the records that came `in_now`, and of those that had waited. `on` is what
    /// came out.
    fn tell(
        &mut self,
        by: &By,
        in_now: &Numbered,
        on: &[&(u64, Payload)],
        to: &dyn Fn(u64) -> Vec<String>,
        watch: &mut dyn Watch,
    ) {
        let mut told = self
            .settled
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let settled = std::mem::take(&mut *told);
        drop(told);
        let mut numbers: Vec<u64> = in_now.iter().map(|(n, _)| *n).collect();
        numbers.extend(on.iter().map(|(n, _)| *n));
        numbers.extend(settled.iter().map(|(n, _, _)| *n));
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let came = in_now.iter().filter(|(n, _)| *n == number);
            let came: Vec<Item> = came.flat_map(|(_, p)| Item::all_of(p)).collect();
            let waited = came.is_empty();
            let out = on.iter().filter(|(n, _)| *n == number);
            let after: Vec<Item> = out.flat_map(|(_, p)| Item::all_of(p)).collect();
            let outcome = settled.iter().find(|(n, _, _)| *n == number);
            let before = match outcome {
                Some(_) => self.under_way.remove(&number).unwrap_or(came),
                None => self.under_way.get(&number).cloned().unwrap_or(came),
            };
            let verdict = match (after.is_empty(), outcome) {
                (false, _) => Verdict::Passed,
                (true, None) => Verdict::Held,
                (true, Some((_, outcome, counts))) => verdict(*outcome, counts),
            };
            watch.step(Step {
                record: number,
                by: by.clone(),
                before,
                after,
                verdict,
                waited,
                to: to(number),
                error: None,
            });
        }
        let under_way = &self.under_way;
        self.numbers.retain(|_, n| under_way.contains_key(n));
    }
}

/// What it means that nothing of a record came out.
fn verdict(outcome: Outcome, counts: &Counts) -> Verdict {
    let reason = DropReason::ALL.iter().zip(counts.dropped);
    let reason = reason.into_iter().find(|(_, n)| *n > 0);
    match outcome {
        Outcome::Filtered => Verdict::Filtered,
        _ if reason.is_some() => Verdict::Dropped(reason.map(|(r, _)| *r)),
        Outcome::Delivered if counts.filtered > 0 => Verdict::Filtered,
        Outcome::Delivered => Verdict::Joined,
        Outcome::Refused => Verdict::Dropped(None),
        Outcome::Retry => Verdict::HandedBack,
        Outcome::Lost => Verdict::Dropped(None),
    }
}
