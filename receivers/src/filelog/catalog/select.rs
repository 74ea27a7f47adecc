//! Which files are selected, when that changes while they are read.
//!
//! A file that is not selected any more is read as far as it goes then and let go; its position is kept.
//! If its path is selected again before that, it is read on, wherever rotation has put it meanwhile, and
//! before what is at its path by then.

use std::sync::Arc;

use super::super::logfs::LogFs;
use super::super::position::Position;
use super::super::settings::Settings;
use super::{Action, Catalog, FileNo, Rules};
use crate::operators::Chain;

/// What a source takes over.
pub struct NewSettings {
    /// Validated settings.
    pub settings: Arc<Settings>,
    /// The file system.
    pub fs: Arc<dyn LogFs>,
    /// The operators, and those for header lines.
    pub chains: (Chain, Chain),
}

impl Catalog {
    /// Goes on with other rules. Files are opened by them from now on; the next scan tells which ones
    /// match.
    pub fn take_over(&mut self, rules: Rules, fs: Arc<dyn LogFs>) {
        self.rules = Rules {
            started_ns: self.rules.started_ns,
            // What is known begins with as many.
            head_bytes: rules.head_bytes.max(self.rules.head_bytes),
            ..rules
        };
        self.fs = fs;
    }

    /// A file that the last scan did not find: because the patterns do not select it any more?
    pub(super) fn deselect(&mut self, no: FileNo, actions: &mut Vec<(usize, Action)>) {
        if let Some(live) = self.live.get_mut(&no)
            && !(self.rules.selects)(&live.path)
        {
            live.deselected = true;
            actions.push((live.shard, Action::Deselected(no)));
        }
    }

    /// Files that are being let go and whose paths are selected again. Rotation may have taken them away
    /// meanwhile: what comes after them at their paths is read after all that is in them.
    pub(super) fn reselect(&mut self, actions: &mut Vec<(usize, Action)>) {
        for (no, live) in &mut self.live {
            if live.deselected && (self.rules.selects)(&live.path) {
                live.deselected = false;
                actions.push((live.shard, Action::Reselected(*no)));
            }
        }
    }

    /// Told by a shard that a file which is not selected was read as far as it is to be read. Only if
    /// that is still so it is let go: what is opened next at its path comes after it or is known.
    pub fn let_go(&mut self, no: FileNo, position: Position) -> Vec<(usize, Action)> {
        match self.live.get(&no) {
            Some(live) if live.deselected => {
                let end = (live.shard, Action::LetGo(no));
                self.finished(no, position);
                vec![end]
            }
            _ => Vec::new(),
        }
    }
}
