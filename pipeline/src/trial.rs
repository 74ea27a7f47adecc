//! Trying out: what components make of records, step by step, with nothing around them.
//!
//! The components are the real ones, in the order of a configuration. Nothing is started: no file is
//! tailed, no socket is opened, no position is stored, and records end where exporters would begin. Records
//! go through one by one; those that wait in a component for more, or for a time, are followed as well.
//! [`Resolved::trial`](crate::graph::Resolved::trial) makes a [`Trial`](crate::graph::Trial).

use std::time::Duration;

use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::{Entry, LogsBatch};

use crate::ack::DropReason;
use crate::payload::Payload;

/// What is seen of a record between two steps.
#[derive(Clone, Debug)]
pub enum Item {
    /// A log record.
    Log(Box<Entry>),
    /// What a connector made of records, such as metrics.
    Encoded(Encoded),
}

impl Item {
    /// What is in a payload.
    pub fn all_of(payload: &Payload) -> Vec<Item> {
        match payload {
            Payload::Logs(logs) => Item::rows_of(logs),
            Payload::Encoded(encoded) => vec![Item::Encoded(encoded.clone())],
        }
    }

    /// The records of a batch.
    pub fn rows_of(logs: &LogsBatch) -> Vec<Item> {
        let entries = logs.to_entries().into_iter();
        entries.map(|e| Item::Log(Box::new(e))).collect()
    }
}

/// Who does a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum By {
    /// An operator of a receiver, by its number from 0 and its id.
    Operator(usize, String),
    /// A processor, by its pipeline and its id.
    Processor(String, String),
    /// A connector, by the pipeline that it ends, and its id.
    Connector(String, String),
}

/// What became of a record in a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on, changed or not.
    Passed,
    /// It goes on; the condition of the step was false, so nothing was done.
    Skipped,
    /// It waits, for more records or for a time.
    Held,
    /// It is a part of another record now.
    Joined,
    /// It was removed on purpose.
    Filtered,
    /// It was given up; why, if that is known.
    Dropped(Option<DropReason>),
    /// It was given back to its sender, to be sent again.
    HandedBack,
}

/// One step of a record.
#[derive(Clone, Debug)]
pub struct Step {
    /// The number of the record that came in.
    pub record: u64,
    /// Who does it.
    pub by: By,
    /// As it came to the step; for what waited, as it had come.
    pub before: Vec<Item>,
    /// As it leaves the step.
    pub after: Vec<Item>,
    /// What became of it.
    pub verdict: Verdict,
    /// It had waited here.
    pub waited: bool,
    /// Of a connector: the pipelines that get it.
    pub to: Vec<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Looks on.
pub trait Watch {
    /// A step was done.
    fn step(&mut self, step: Step);

    /// A record comes to an exporter of a pipeline.
    fn arrives(&mut self, record: u64, pipeline: &str, exporter: &str, items: Vec<Item>);
}

/// What a receiver does with the content of a file before it hands records on.
pub trait ReceiverTrial {
    /// Cuts records, each a batch of its own, off `content`; `last` if no more of it follows. What stays
    /// in it is to be offered again with more behind it.
    fn cut(&mut self, content: &mut Vec<u8>, last: bool) -> Vec<LogsBatch>;

    /// Lets the operators treat a record. Gives what goes on, with the numbers of the records it was.
    fn operate(
        &mut self,
        record: u64,
        batch: LogsBatch,
        watch: &mut dyn Watch,
    ) -> Vec<(u64, LogsBatch)>;

    /// Passes on what is due now.
    fn tick(&mut self, watch: &mut dyn Watch) -> Vec<(u64, LogsBatch)>;

    /// When something is due, since the beginning of the clock.
    fn deadline(&self) -> Option<Duration>;

    /// The number of the first record that is held back.
    fn held(&self) -> Option<u64>;
}
