//! Log records in columns.

use tailwater_ottl::logs::LogScene;
use tailwater_ottl::{Context, Scene};
use tailwater_pdata::LogsBatch;

use super::LogRules;
use crate::matching::Selected;
use crate::ottl::{ConditionGroup, Report};

/// Whether one of the conditions of a group holds; one that cannot be told does not.
pub(super) fn holds(
    group: &ConditionGroup,
    scene: &dyn Scene,
    now_ns: i64,
    report: &mut Report,
) -> bool {
    for condition in &group.conditions {
        match condition.holds(scene, now_ns) {
            Ok(true) => return true,
            Ok(false) => {}
            Err(fault) => {
                if report.error(group.mode, condition.text(), fault) {
                    return false;
                }
            }
        }
    }
    false
}

impl LogRules {
    /// Leaves in `logs` what is not left out. `keep` is a buffer to use again.
    pub(super) fn apply(
        &self,
        logs: &mut LogsBatch,
        keep: &mut Vec<bool>,
        now_ns: i64,
        report: &mut Report,
    ) {
        match self.selection.select(logs, keep) {
            Selected::All => {
                keep.clear();
                keep.resize(logs.rows(), true);
            }
            Selected::None => keep.fill(false),
            Selected::Marked => {}
        }
        let mut scene = LogScene::new(logs);
        for group in &self.groups {
            if group.context != Context::Log {
                // All records of the batch have one resource and one scope.
                scene.go_to(0);
                if !keep.is_empty() && holds(group, &scene, now_ns, report) {
                    keep.fill(false);
                }
                continue;
            }
            for (row, keep) in keep.iter_mut().enumerate() {
                if *keep {
                    scene.go_to(row);
                    *keep = !holds(group, &scene, now_ns, report);
                }
            }
        }
        logs.retain_rows(keep);
    }
}
