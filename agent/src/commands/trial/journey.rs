//! What became of each record: collected while records are under way, shown in their order.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value as Json, json};
use tailwater_pdata::LogsBatch;
use tailwater_pipeline::trial::{By, Item, Step, Verdict, Watch};

use super::choose::Choice;
use super::heard;
use super::record::{changes, to_json};
use super::table::Table;

/// The way of one record.
#[derive(Default)]
pub struct Journey {
    /// As it came.
    pub came: Vec<Item>,
    /// In their order.
    pub steps: Vec<(Step, Vec<String>)>,
    /// Where it arrived: pipeline, exporter, records.
    pub arrived: Vec<(String, String, Vec<Item>)>,
}

/// Sums over all records.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sums {
    /// Records that came in.
    pub records: u64,
    /// What came to each exporter of a pipeline.
    pub arrived: BTreeMap<(String, String), u64>,
    /// Removed on purpose, by whom.
    pub filtered: BTreeMap<String, u64>,
    /// Given up, by whom.
    pub dropped: BTreeMap<String, u64>,
    /// Given back to the sender, by whom.
    pub handed_back: BTreeMap<String, u64>,
    /// Became parts of other records, by whom.
    pub joined: BTreeMap<String, u64>,
    /// Waiting still, by whom.
    pub held: BTreeMap<String, u64>,
}

/// The records on their way.
pub struct Journeys<'a> {
    choice: &'a Choice,
    json: bool,
    table: Table<'a>,
    open: BTreeMap<u64, Journey>,
    sums: Sums,
}

impl<'a> Journeys<'a> {
    /// None yet.
    pub fn new(choice: &'a Choice, json: bool, table: Table<'a>) -> Journeys<'a> {
        Journeys {
            choice,
            json,
            table,
            open: BTreeMap::new(),
            sums: Sums::default(),
        }
    }

    /// A record comes; its number, from 1.
    pub fn comes(&mut self, batch: &LogsBatch) -> u64 {
        self.sums.records += 1;
        let journey = self.open.entry(self.sums.records).or_default();
        journey.came = Item::rows_of(batch);
        // What was said of cutting belongs to no step.
        heard::taken();
        self.sums.records
    }

    /// Records that came.
    pub fn count(&self) -> u64 {
        self.sums.records
    }

    /// Records that are not shown yet.
    pub fn under_way(&self) -> usize {
        self.open.len()
    }

    /// Shows those before the first that is held somewhere.
    pub fn show_before(&mut self, held: Option<u64>) -> Result<()> {
        while let Some(first) = self.open.first_entry() {
            if held.is_some_and(|held| *first.key() >= held) {
                break;
            }
            let (number, journey) = first.remove_entry();
            self.show(number, &journey)?;
        }
        Ok(())
    }

    /// Shows what is left, and the sums.
    pub fn end(&mut self) -> Result<()> {
        self.show_before(None)?;
        match self.json {
            true => say!("{}", json!({"summary": self.sums.json()})),
            false => say!("{}", self.table.summary(&self.sums)),
        }
        Ok(())
    }

    fn show(&mut self, number: u64, journey: &Journey) -> Result<()> {
        self.sums.add(journey);
        match self.json {
            true => say!("{}", self.json(number, journey)),
            false => say!("{}", self.table.journey(number, journey)),
        }
        Ok(())
    }

    fn json(&self, number: u64, journey: &Journey) -> Json {
        let items = |items: &[Item]| items.iter().flat_map(to_json).collect::<Json>();
        let step = |(step, said): &(Step, Vec<String>)| {
            let changes: Option<Json> = match (&step.before[..], &step.after[..]) {
                ([before], [after]) => {
                    let change = |c: super::record::Change| {
                        let kind = match (&c.before, &c.after) {
                            (None, _) => "added",
                            (_, None) => "removed",
                            _ => "changed",
                        };
                        json!({"change": kind, "path": c.path, "before": c.before, "after": c.after})
                    };
                    Some(changes(before, after).into_iter().map(change).collect())
                }
                _ => None,
            };
            let (kind, pipeline, id) = parts(&step.by);
            let error = step.error.iter().chain(said).collect::<Vec<_>>();
            json!({
                "kind": kind, "pipeline": pipeline, "id": id,
                "verdict": verdict_name(step.verdict),
                "reason": reason(step.verdict), "errors": error, "waited": step.waited,
                "before": items(&step.before), "after": items(&step.after),
                "changes": changes, "to": step.to,
            })
        };
        let arrived = |(pipeline, exporter, came): &(String, String, Vec<Item>)| json!({"pipeline": pipeline, "exporter": exporter, "records": items(came)});
        json!({
            "record": number,
            "receiver": self.choice.receiver,
            "pipeline": self.choice.pipeline,
            "came": items(&journey.came).get(0),
            "steps": journey.steps.iter().map(step).collect::<Json>(),
            "arrived": journey.arrived.iter().map(arrived).collect::<Json>(),
        })
    }
}

impl Watch for Journeys<'_> {
    fn step(&mut self, step: Step) {
        let said = heard::taken();
        self.open
            .entry(step.record)
            .or_default()
            .steps
            .push((step, said));
    }

    fn arrives(&mut self, record: u64, pipeline: &str, exporter: &str, items: Vec<Item>) {
        let arrived = &mut self.open.entry(record).or_default().arrived;
        arrived.push((pipeline.to_owned(), exporter.to_owned(), items));
    }
}

/// What does a step, which pipeline it is in, and its id.
fn parts(by: &By) -> (&'static str, Option<&str>, &str) {
    match by {
        By::Operator(_, id) => ("operator", None, id),
        By::Processor(pipeline, id) => ("processor", Some(pipeline), id),
        By::Connector(pipeline, id) => ("connector", Some(pipeline), id),
    }
}

/// Who does a step, for people.
pub fn name(by: &By) -> String {
    let (kind, _, id) = parts(by);
    format!("{kind} {id}")
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Skipped => "skipped",
        Verdict::Held => "held",
        Verdict::Joined => "joined",
        Verdict::Filtered => "filtered",
        Verdict::Dropped(_) => "dropped",
        Verdict::HandedBack => "handed_back",
    }
}

/// Why it was given up, as in the label `reason` of metrics.
pub fn reason(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Dropped(reason) => reason.map(|r| r.as_str()),
        _ => None,
    }
}

impl Sums {
    /// Adds what became of a record.
    fn add(&mut self, journey: &Journey) {
        for (pipeline, exporter, items) in &journey.arrived {
            let to = (pipeline.clone(), exporter.clone());
            *self.arrived.entry(to).or_default() += items.len() as u64;
        }
        for (i, (step, _)) in journey.steps.iter().enumerate() {
            let by = name(&step.by);
            let later = &journey.steps[i + 1..];
            let goes_on = later.iter().any(|(s, _)| s.by == step.by && s.waited);
            let sum = match step.verdict {
                Verdict::Filtered => &mut self.filtered,
                Verdict::Dropped(_) => &mut self.dropped,
                Verdict::HandedBack => &mut self.handed_back,
                Verdict::Joined => &mut self.joined,
                Verdict::Held if !goes_on => &mut self.held,
                _ => continue,
            };
            *sum.entry(by).or_default() += 1;
        }
    }

    fn json(&self) -> Json {
        let arrived = self.arrived.iter().map(
            |((pipeline, exporter), n)| json!({"pipeline": pipeline, "exporter": exporter, "records": n}),
        );
        json!({
            "records": self.records,
            "arrived": arrived.collect::<Json>(),
            "filtered": self.filtered, "dropped": self.dropped, "handed_back": self.handed_back,
            "joined": self.joined, "held": self.held,
        })
    }
}
