//! What content is cut by, and what it was cut by before settings changed.

use std::sync::Arc;
use std::time::Duration;

use super::catalog::FileNo;
use super::settings::Settings;
use crate::operators::{Chain, OperatorCx, Passed};

/// Settings and the operators that belong to them.
pub struct Rules {
    /// Which ones, in their order.
    pub number: u64,
    /// Validated settings.
    pub settings: Arc<Settings>,
    /// Runs on every batch.
    pub chain: Chain,
    /// Runs on header lines.
    pub header_chain: Chain,
}

/// The rules of one source.
///
/// INVARIANT: a line of which operators hold parts back is passed on by the rules that these were cut
/// by, and until then so is whatever else comes in its log: else it would be cut or come twice.
pub struct RuleSets {
    current: Rules,
    /// Replaced ones that hold something back.
    replaced: Vec<Rules>,
}

impl RuleSets {
    /// Rules to begin with.
    pub fn new(settings: Arc<Settings>, chain: Chain, header_chain: Chain) -> RuleSets {
        RuleSets {
            current: Rules {
                number: 0,
                settings,
                chain,
                header_chain,
            },
            replaced: Vec::new(),
        }
    }

    /// Other rules from now on.
    pub fn change(&mut self, settings: Arc<Settings>, chain: Chain, header_chain: Chain) {
        let next = Rules {
            number: self.current.number + 1,
            settings,
            chain,
            header_chain,
        };
        let mut replaced = std::mem::replace(&mut self.current, next);
        // It may hold something back for as long as records come, and its log with it.
        replaced.chain.hurry();
        self.replaced.push(replaced);
        self.forget_replaced();
    }

    fn forget_replaced(&mut self) {
        self.replaced.retain(|r| r.chain.deadline().is_some());
    }

    fn all(&self) -> impl Iterator<Item = &Rules> {
        self.replaced.iter().chain([&self.current])
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Rules> {
        self.replaced.iter_mut().chain([&mut self.current])
    }

    /// The rules of a log.
    pub fn of(&self, lineage: u64) -> &Rules {
        let mut replaced = self.replaced.iter();
        let holds = |r: &&Rules| r.chain.holds(lineage, FileNo::MAX);
        replaced.find(holds).unwrap_or(&self.current)
    }

    /// The rules of a log, to be used.
    pub fn of_mut(&mut self, lineage: u64) -> &mut Rules {
        self.forget_replaced();
        let mut replaced = self.replaced.iter_mut();
        let holds = |r: &&mut Rules| r.chain.holds(lineage, FileNo::MAX);
        replaced.find(holds).unwrap_or(&mut self.current)
    }

    /// As [`Chain::holds`].
    pub fn holds(&self, lineage: u64, no: FileNo) -> bool {
        self.all().any(|r| r.chain.holds(lineage, no))
    }

    /// As [`Chain::held_starts`].
    pub fn held_starts(&self, no: FileNo) -> Vec<u64> {
        self.all().flat_map(|r| r.chain.held_starts(no)).collect()
    }

    /// As [`Chain::deadline`].
    pub fn deadline(&self) -> Option<Duration> {
        self.all().filter_map(|r| r.chain.deadline()).min()
    }

    /// As [`Chain::tick`].
    pub fn tick(&mut self, cx: &mut OperatorCx) -> Vec<Passed> {
        self.all_mut().flat_map(|r| r.chain.tick(cx)).collect()
    }

    /// As [`Chain::forget`].
    pub fn forget(&mut self, no: FileNo) -> Vec<FileNo> {
        self.all_mut().flat_map(|r| r.chain.forget(no)).collect()
    }
}
