//! Which agents a stage takes, and which are left to compare with.

use std::collections::{BTreeMap, BTreeSet};

use crate::rollout::model::{AgentId, Candidate, Collector, Policy, Select, State};

/// Agents of a stage.
pub(super) struct Chosen {
    /// All of them.
    pub members: BTreeSet<AgentId>,
    /// Those that are judged by what they count.
    pub judged: BTreeSet<AgentId>,
    /// Agents that run what is good, and go on with it.
    pub control: BTreeSet<AgentId>,
}

/// The same agents for the same fleet, in an order that is another one for each rollout.
pub(super) fn choose(
    policy: &Policy,
    state: &State,
    candidate: &Candidate,
    collectors: &[Collector],
) -> Chosen {
    let is_able = |a: &&Collector| {
        // An agent without a component of the candidate is not part of the rollout, and no failure.
        candidate.requires.is_subset(&a.components) && !state.isolated.contains(&a.id)
    };
    let able: Vec<_> = collectors.iter().filter(is_able).collect();
    let good = Some(&state.good.digest);
    let is_free = |a: &&&Collector| {
        a.connected && !candidate.offered.contains(&a.id) && a.report.effective.as_ref() == good
    };
    let mut free: Vec<_> = able.iter().copied().filter(|a| is_free(&a)).collect();
    free.sort_by_key(|a| (shuffled(state.rollout, &a.id), &a.id));
    // As many as the control group has stay out of all stages, so that there is one up to the end.
    let reserve = policy.control.min(able.len() / 2);
    let may = free.len().saturating_sub(reserve);
    let open = &free[..may];
    let select = &policy
        .stage(candidate.stage)
        .unwrap_or(&policy.canary)
        .select;
    let mut members: Vec<&Collector> = match select {
        Select::Label { key, value } => {
            let has = |a: &&&Collector| a.labels.get(key) == Some(value);
            open.iter().filter(has).copied().collect()
        }
        Select::Count(n) => open.iter().take(*n).copied().collect(),
        Select::Percent(percent) => {
            let all = (able.len() * usize::from(*percent)).div_ceil(100);
            let more = all.saturating_sub(candidate.offered.len());
            open.iter().take(more).copied().collect()
        }
    };
    if let (0, Some(label), Select::Count(_) | Select::Percent(_)) =
        (candidate.stage, &policy.spread_by, select)
    {
        members = spread(open, label, members.len());
    }
    let members_ids: BTreeSet<_> = members.iter().map(|a| a.id.clone()).collect();
    let judged = members.iter().take(policy.judged_max);
    let rest = free.iter().rev().filter(|a| !members_ids.contains(&a.id));
    Chosen {
        judged: judged.map(|a| a.id.clone()).collect(),
        control: rest.take(policy.control).map(|a| a.id.clone()).collect(),
        members: members_ids,
    }
}

/// So many agents, the values of a label in turn.
fn spread<'a>(open: &[&'a Collector], label: &str, count: usize) -> Vec<&'a Collector> {
    let mut turns: BTreeMap<Option<&String>, usize> = BTreeMap::new();
    let mut ordered: Vec<_> = open
        .iter()
        .enumerate()
        .map(|(i, agent)| {
            let turn = turns.entry(agent.labels.get(label)).or_default();
            *turn += 1;
            (*turn, i, *agent)
        })
        .collect();
    ordered.sort_by_key(|(turn, i, _)| (*turn, *i));
    ordered.into_iter().take(count).map(|(.., a)| a).collect()
}

/// A place for an agent in a rollout (FNV-1a).
fn shuffled(rollout: u64, id: &str) -> u64 {
    let bytes = rollout.to_le_bytes().into_iter().chain(id.bytes());
    let hash = bytes.fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    hash ^ (hash >> 29)
}
