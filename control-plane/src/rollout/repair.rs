//! What is done, one after the other, about agents that do not come back from a candidate: each rung has its
//! time, and who is back leaves the ladder.
//!
//! ```text
//! taken back --time is up--> re-offer --> restart --> fallback --> isolate, and tell people
//! ```
//!
//! Pure, as everything that the machine decides by. That a rollback had to be for the same reason again and
//! again is looked at here, too: [`is_flapping`].

use std::collections::{BTreeMap, BTreeSet};

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

/// An agent that was told to begin anew because it ailed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restarted {
    /// It ailed since then, ms.
    pub since_ms: u64,
    /// When it was told, ms.
    pub at_ms: u64,
    /// When it ailed last, ms.
    pub ailed_ms: u64,
}

/// What is known of agents that ail, from one look at all of them to the next.
pub(super) struct Ailments<'a> {
    /// Those that ail.
    pub ailing: &'a mut Ailing,
    /// Those that were told to begin anew, until they were well for [`WELL_MS`].
    pub restarted: &'a mut BTreeMap<AgentId, Restarted>,
}

/// Who ails again within this time after a restart was not healed by it, ms.
const WELL_MS: u64 = 3_600_000;

impl Ailments<'_> {
    /// Takes in who ails now, and who is away. Who ails keeps the time at which that began, over a restart that did not heal
    /// it; who does not leaves, unless it is away for the restart that it was told, for which it has `back_ms`.
    pub fn look(
        &mut self,
        ails: impl Iterator<Item = AgentId>,
        is_away: impl Fn(&AgentId) -> bool,
        now: u64,
        back_ms: u64,
    ) {
        let mut found = Ailing::new();
        for id in ails {
            let told = self.restarted.get_mut(&id).map(|told| {
                told.ailed_ms = now;
                told.since_ms
            });
            let since = told.or(self.ailing.get(&id).copied());
            found.insert(id, since.unwrap_or(now));
        }
        for (id, told) in self.restarted.iter() {
            if now < told.at_ms + back_ms && is_away(id) {
                found.insert(id.clone(), told.since_ms);
            }
        }
        *self.ailing = found;
        self.restarted
            .retain(|_, told| now < told.ailed_ms + WELL_MS);
    }

    /// Those that ail for so long.
    pub fn for_long(&self, after_ms: u64, now: u64) -> Vec<AgentId> {
        let is_long = |(_, since): &(&AgentId, &u64)| now >= **since + after_ms;
        let long = self.ailing.iter().filter(is_long);
        long.map(|(id, _)| id.clone()).collect()
    }

    /// Those of so many connected agents that a restart may heal, which they are told once: they ail for so long, and
    /// few others do. What many suffer has a cause outside of them, usually the backend.
    pub fn tell_restart(&mut self, after_ms: u64, connected: usize, now: u64) -> BTreeSet<AgentId> {
        let few = (connected / 4).max(1);
        if self.ailing.len() > few || self.ailing.len() >= connected {
            return BTreeSet::new();
        }
        let long = self.for_long(after_ms, now).into_iter();
        let new: BTreeSet<_> = long.filter(|id| !self.restarted.contains_key(id)).collect();
        for id in &new {
            let told = Restarted {
                since_ms: self.ailing.get(id).copied().unwrap_or(now),
                at_ms: now,
                ailed_ms: now,
            };
            self.restarted.insert(id.clone(), told);
        }
        new
    }
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

    #[derive(Default)]
    struct Known {
        ailing: Ailing,
        restarted: BTreeMap<AgentId, Restarted>,
    }

    impl Known {
        /// These ail, and these are away; who is told to begin anew after 50, and who ails for 100.
        fn look(&mut self, ids: &[&str], away: &[&str], now: u64) -> (Vec<String>, Vec<String>) {
            let mut all = Ailments {
                ailing: &mut self.ailing,
                restarted: &mut self.restarted,
            };
            let ids = ids.iter().map(|id| (*id).to_owned());
            all.look(ids, |id| away.contains(&id.as_str()), now, 20);
            let told = all.tell_restart(50, 8, now).into_iter().collect();
            (told, all.for_long(100, now))
        }
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn who_was_well_in_between_begins_anew() {
        let mut known = Known::default();
        let none = (vec![], vec![]);
        assert_eq!(known.look(&["a", "b"], &[], 0), none);
        assert_eq!(known.look(&["a"], &[], 49), none);
        assert_eq!(known.look(&["b"], &[], 51), none);
        assert_eq!(known.look(&["a", "b"], &[], 100), none);
        assert_eq!(known.look(&["b"], &[], 101), (names(&["b"]), vec![]));
    }

    #[test]
    fn an_agent_that_ails_begins_anew_once_and_is_then_told_of() {
        let mut known = Known::default();
        let none = (vec![], vec![]);
        assert_eq!(known.look(&["a"], &[], 0), none);
        assert_eq!(known.look(&["a"], &[], 50), (names(&["a"]), vec![]));
        // It is away for it, seems well for a while, and is not.
        assert_eq!(known.look(&[], &["a"], 60), none);
        assert_eq!(known.ailing.len(), 1);
        assert_eq!(known.look(&[], &[], 70), none);
        assert!(known.ailing.is_empty());
        assert_eq!(known.look(&["a"], &[], 100), (vec![], names(&["a"])));
        assert_eq!(known.look(&["a"], &[], WELL_MS), (vec![], names(&["a"])));
        // It was well for long enough.
        assert_eq!(known.look(&[], &[], 2 * WELL_MS), none);
        assert!(known.restarted.is_empty());
        assert_eq!(known.look(&["a"], &[], 2 * WELL_MS + 1), none);
        let again = known.look(&["a"], &[], 2 * WELL_MS + 51);
        assert_eq!(again, (names(&["a"]), vec![]));
        // One that does not come back is no more than away.
        assert_eq!(known.look(&[], &["a"], 2 * WELL_MS + 80), none);
        assert!(known.ailing.is_empty());
    }

    #[test]
    fn what_many_suffer_is_not_healed_by_restarts() {
        let mut known = Known::default();
        let three = ["a", "b", "c"];
        known.look(&three, &[], 0);
        assert_eq!(known.look(&three, &[], 60).0, names(&[]));
        assert_eq!(known.look(&three[..2], &[], 70).0, names(&["a", "b"]));
        let mut alone = Known::default();
        let mut all = Ailments {
            ailing: &mut alone.ailing,
            restarted: &mut alone.restarted,
        };
        all.look(["a".to_owned()].into_iter(), |_| false, 0, 20);
        assert!(
            all.tell_restart(50, 1, 60).is_empty(),
            "nobody else is there"
        );
        assert_eq!(all.tell_restart(50, 2, 60).len(), 1);
    }
}
