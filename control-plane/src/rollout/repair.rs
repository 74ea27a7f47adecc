//! What is done, one after the other, about agents that do not come back from a candidate: each rung has its
//! time, and who is back leaves the ladder.
//!
//! ```text
//! taken back --time is up--> re-offer --> restart --> fallback --> isolate, and tell people
//! ```
//!
//! Pure, as everything that the machine decides by. That a rollback had to be for the same reason again and
//! again is looked at here, too: [`is_flapping`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::Alert;
use super::model::AgentId;

/// A rung of the ladder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// They were offered what was good before.
    #[default]
    None,
    /// They are offered it anew, under another name, whatever they answered.
    Reoffer,
    /// Those that can be are restarted.
    Restart,
    /// They are offered the fallback.
    Fallback,
    /// They take part in nothing, and somebody has to look at them.
    Isolate,
}

impl Repair {
    /// The next rung. Without a fallback that is another thing than what was offered, that rung is left out.
    pub fn next(self, has_fallback: bool) -> Repair {
        match self {
            Repair::None => Repair::Reoffer,
            Repair::Reoffer => Repair::Restart,
            Repair::Restart if has_fallback => Repair::Fallback,
            Repair::Restart | Repair::Fallback | Repair::Isolate => Repair::Isolate,
        }
    }

    /// Its name in logs and in the history.
    pub fn name(self) -> &'static str {
        match self {
            Repair::None => "none",
            Repair::Reoffer => "reoffer",
            Repair::Restart => "restart",
            Repair::Fallback => "fallback",
            Repair::Isolate => "isolate",
        }
    }
}

/// Whether there were so many rollbacks, `now` included, within a time that nothing may be begun by itself
/// any more. Forgets older ones.
pub(super) fn is_flapping(
    rollbacks_ms: &mut Vec<u64>,
    now: u64,
    within_ms: u64,
    most: usize,
) -> bool {
    let since = now.saturating_sub(within_ms);
    rollbacks_ms.retain(|at| *at >= since);
    rollbacks_ms.push(now);
    rollbacks_ms.len() >= most
}

/// Something that people were told and that is not over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Firing {
    /// Since then, ms.
    pub since_ms: u64,
    /// In words.
    pub text: String,
    /// Promotions before it.
    pub generation: u64,
}

/// What people were told and is not over, by what it is about.
pub type FiringAlerts = BTreeMap<Alert, Firing>;

/// Agents that are not as they should be, and since when, ms.
pub type Ailing = BTreeMap<AgentId, u64>;

/// Brings a list of ailing agents up to date: who ails keeps the time at which that began, who does not
/// leaves. Those that ail for longer than `after_ms`.
pub(super) fn persistent(
    known: &mut Ailing,
    ails: impl Iterator<Item = AgentId>,
    now: u64,
    after_ms: u64,
) -> Vec<AgentId> {
    let found: Ailing = ails
        .map(|id| {
            let since = known.get(&id).copied().unwrap_or(now);
            (id, since)
        })
        .collect();
    *known = found;
    let is_long = |(_, since): &(&AgentId, &u64)| now >= **since + after_ms;
    known
        .iter()
        .filter(is_long)
        .map(|(id, _)| id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_ends_with_people() {
        for (has_fallback, expect) in [
            (true, vec!["reoffer", "restart", "fallback", "isolate"]),
            (false, vec!["reoffer", "restart", "isolate"]),
        ] {
            let mut rung = Repair::None;
            let mut names = Vec::new();
            while rung != Repair::Isolate {
                rung = rung.next(has_fallback);
                names.push(rung.name());
            }
            assert_eq!(names, expect);
        }
    }

    #[test]
    fn flapping_is_so_many_within_the_time() {
        let mut seen = Vec::new();
        assert!(!is_flapping(&mut seen, 1_000, 3_600_000, 3));
        assert!(!is_flapping(&mut seen, 2_000, 3_600_000, 3));
        assert!(!is_flapping(&mut seen, 3_601_500, 3_600_000, 3));
        assert!(is_flapping(&mut seen, 3_601_600, 3_600_000, 3));
    }

    #[test]
    fn who_was_well_in_between_begins_anew() {
        let mut known = Ailing::new();
        let mut look = |ids: &[&str], now| {
            let ids = ids.iter().map(|id| (*id).to_owned());
            persistent(&mut known, ids, now, 100)
        };
        assert!(look(&["a", "b"], 0).is_empty());
        assert!(look(&["a"], 50).is_empty());
        assert_eq!(look(&["a", "b"], 100), ["a"]);
        assert_eq!(look(&["b"], 200), ["b"]);
    }
}
