//! What one receiver of notifications is still to be told: what fires and it does not know, what it knows otherwise,
//! and what is over. Pure: no socket, and time is an argument.
//!
//! Invariants: what is known to the receiver is not said again, but to one that forgets ([`Rules::again_ms`]); what
//! it was never told need not be taken back; nothing is left out for the sake of the rate, it goes with the next
//! message; what could not be said is tried again, with waits that double.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tailwater_control_plane::rollout::command::Alert;
use tailwater_control_plane::rollout::repair::FiringAlerts;

/// The first wait after a failure, ms.
const RETRY_MS: u64 = 1_000;
/// The longest, ms.
const RETRY_MS_MAX: u64 = 60_000;
/// That something is over is not said any more after this, ms.
const OVER_MS: u64 = 3_600_000;

/// How a receiver is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// It forgets what it is not told again after so long, ms.
    pub again_ms: Option<u64>,
    /// So many messages at once ...
    pub burst: u64,
    /// ... and then one in this time, ms.
    pub every_ms: u64,
}

/// What an alert is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct About {
    /// Which group.
    pub group: String,
    /// What.
    pub alert: Alert,
}

/// What is said of an alert.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about.
    pub about: About,
    /// Since then, ms.
    pub since_ms: u64,
    /// In words.
    pub text: String,
    /// It is over since then, ms.
    pub over_ms: Option<u64>,
}

/// What a receiver knows of an alert.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Known {
    notice: Notice,
    told_ms: u64,
}

/// What a receiver knows. What a program keeps, so that the next one does not say it again.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Told(Vec<Known>);

/// See the module's documentation.
#[derive(Debug)]
pub struct Outbox {
    rules: Rules,
    /// What fires, by what it is about.
    fires: BTreeMap<About, Notice>,
    /// Groups that are looked after here: what is known of others is left alone.
    groups: BTreeSet<String>,
    known: BTreeMap<About, Known>,
    failures: u32,
    /// Nothing is said before, ms.
    wait_ms: u64,
    /// Messages that may be said now, and since when that is so, ms.
    tokens: u64,
    filled_ms: u64,
}

impl Outbox {
    /// One whose receiver knows nothing.
    pub fn new(rules: Rules, now_ms: u64) -> Outbox {
        Outbox {
            rules,
            fires: BTreeMap::new(),
            groups: BTreeSet::new(),
            known: BTreeMap::new(),
            failures: 0,
            wait_ms: 0,
            tokens: rules.burst,
            filled_ms: now_ms,
        }
    }

    /// The receiver knows this, of whoever told it before.
    pub fn know(&mut self, told: Told) {
        let known = told.0.into_iter();
        self.known = known.map(|k| (k.notice.about.clone(), k)).collect();
    }

    /// This is what fires in a group.
    pub fn set(&mut self, group: &str, firing: &FiringAlerts) {
        self.groups.insert(group.to_owned());
        self.fires.retain(|about, _| about.group != group);
        for (alert, firing) in firing {
            let about = About {
                group: group.to_owned(),
                alert: *alert,
            };
            let notice = Notice {
                about: about.clone(),
                since_ms: firing.since_ms,
                text: firing.text.clone(),
                over_ms: None,
            };
            self.fires.insert(about, notice);
        }
    }

    /// Somebody else looks after a group from now on.
    pub fn leave(&mut self, group: &str) {
        self.groups.remove(group);
        self.fires.retain(|about, _| about.group != group);
    }

    /// What is to be said now, if anything and if it may be.
    pub fn due(&mut self, now_ms: u64) -> Option<Vec<Notice>> {
        if now_ms < self.wait_ms {
            return None;
        }
        let notices = self.notices(now_ms);
        if notices.is_empty() || !self.may(now_ms) {
            return None;
        }
        self.tokens -= 1;
        Some(notices)
    }

    fn notices(&mut self, now_ms: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (about, notice) in &self.fires {
            let known = self.known.get(about);
            let is_known = known.is_some_and(|k| k.notice == *notice);
            let again = self.rules.again_ms;
            let is_forgotten =
                known.is_some_and(|k| again.is_some_and(|ms| now_ms >= k.told_ms + ms));
            if !is_known || is_forgotten {
                notices.push(notice.clone());
            }
        }
        let (fires, groups) = (&self.fires, &self.groups);
        for (about, known) in &mut self.known {
            let is_ours = groups.contains(&about.group);
            if is_ours && !fires.contains_key(about) {
                let over = known.notice.over_ms.get_or_insert(now_ms);
                let over_ms = Some(*over);
                notices.push(Notice {
                    over_ms,
                    ..known.notice.clone()
                });
            }
        }
        self.known
            .retain(|_, k| k.notice.over_ms.is_none_or(|at| now_ms < at + OVER_MS));
        notices.retain(|n| n.over_ms.is_none_or(|at| now_ms < at + OVER_MS));
        notices
    }

    fn may(&mut self, now_ms: u64) -> bool {
        let more = now_ms.saturating_sub(self.filled_ms) / self.rules.every_ms.max(1);
        self.filled_ms += more * self.rules.every_ms.max(1);
        self.tokens = (self.tokens + more).min(self.rules.burst);
        self.tokens > 0
    }

    /// These were said, and taken or not.
    pub fn done(&mut self, notices: &[Notice], is_taken: bool, now_ms: u64) {
        if !is_taken {
            let wait = RETRY_MS << self.failures.min(10);
            self.failures += 1;
            self.wait_ms = now_ms + wait.min(RETRY_MS_MAX);
            return;
        }
        self.failures = 0;
        for notice in notices {
            let about = notice.about.clone();
            match notice.over_ms {
                Some(_) => {
                    self.known.remove(&about);
                }
                None => {
                    let notice = notice.clone();
                    let told_ms = now_ms;
                    self.known.insert(about, Known { notice, told_ms });
                }
            }
        }
    }

    /// How often in a row it was not taken.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What the receiver knows.
    pub fn told(&self) -> Told {
        Told(self.known.values().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use tailwater_control_plane::rollout::repair::Firing;

    use super::*;

    const RULES: Rules = Rules {
        again_ms: None,
        burst: 3,
        every_ms: 10_000,
    };

    fn fires(texts: &[(Alert, &str)]) -> FiringAlerts {
        let one = |(alert, text): &(Alert, &str)| {
            let firing = Firing {
                since_ms: 5,
                text: (*text).to_owned(),
                generation: 0,
            };
            (*alert, firing)
        };
        texts.iter().map(one).collect()
    }

    fn outbox() -> Outbox {
        Outbox::new(RULES, 0)
    }

    /// Says what is due, and gives its texts; those that are over in brackets.
    fn say(outbox: &mut Outbox, now: u64) -> Vec<String> {
        let Some(notices) = outbox.due(now) else {
            return Vec::new();
        };
        outbox.done(&notices, true, now);
        let shown = |n: &Notice| match n.over_ms {
            None => n.text.clone(),
            Some(_) => format!("({})", n.text),
        };
        notices.iter().map(shown).collect()
    }

    /// Guarantee: what fires is said once, what it is now if that is another thing, and that it is over.
    #[test]
    fn each_change_is_said_once() {
        let mut outbox = outbox();
        outbox.set("a", &fires(&[(Alert::Paused, "x")]));
        assert_eq!(say(&mut outbox, 0), ["x"]);
        assert!(say(&mut outbox, 60_000).is_empty());
        outbox.set("a", &fires(&[(Alert::Paused, "y")]));
        assert_eq!(say(&mut outbox, 61_000), ["y"]);
        outbox.set("b", &fires(&[(Alert::Frozen, "z")]));
        outbox.set("a", &fires(&[]));
        assert_eq!(say(&mut outbox, 62_000), ["z", "(y)"]);
        assert!(say(&mut outbox, 3_600_000).is_empty());
    }

    /// Guarantee: what the receiver was never told is not taken back.
    #[test]
    fn what_was_over_before_it_could_be_said_is_not_said() {
        let mut outbox = outbox();
        outbox.set("a", &fires(&[(Alert::Paused, "x")]));
        let notices = outbox.due(0).unwrap();
        outbox.done(&notices, false, 0);
        outbox.set("a", &fires(&[]));
        assert!(say(&mut outbox, 100_000).is_empty());
    }

    /// Guarantee: what is not taken is tried again for as long as it fires, with waits that double up to a bound.
    #[test]
    fn what_is_not_taken_is_tried_again() {
        let mut outbox = outbox();
        outbox.set("a", &fires(&[(Alert::Paused, "x")]));
        let (mut now, mut times) = (0, Vec::new());
        while times.len() < 9 {
            if let Some(notices) = outbox.due(now) {
                outbox.done(&notices, false, now);
                times.push(now);
            }
            now += 500;
        }
        let waits: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(waits[0] == 1_000 && waits[7] >= 60_000, "{waits:?}");
        assert_eq!(outbox.failures(), 9);
        assert_eq!(say(&mut outbox, now + 60_000), ["x"]);
        assert_eq!(outbox.failures(), 0);
    }

    /// Guarantee: there are no more messages than the rate allows, and nothing is left out for it.
    #[test]
    fn the_rate_is_kept_and_nothing_left_out() {
        let mut outbox = outbox();
        let (mut said, mut last) = (0, Vec::new());
        for i in 0..100_u64 {
            let text = i.to_string();
            outbox.set("a", &fires(&[(Alert::Paused, &text)]));
            let texts = say(&mut outbox, i * 100);
            said += usize::from(!texts.is_empty());
            last.extend(texts);
        }
        assert_eq!(said, 3, "{last:?}");
        assert_eq!(say(&mut outbox, 10_000), ["99"]);
    }

    /// Guarantee: a receiver that forgets is told again, and another one is not.
    #[test]
    fn who_forgets_is_told_again() {
        let rules = Rules {
            again_ms: Some(60_000),
            ..RULES
        };
        let mut outbox = Outbox::new(rules, 0);
        outbox.set("a", &fires(&[(Alert::Paused, "x")]));
        assert_eq!(say(&mut outbox, 0), ["x"]);
        assert!(say(&mut outbox, 59_000).is_empty());
        assert_eq!(say(&mut outbox, 60_000), ["x"]);
    }

    /// Guarantee: the next process says nothing again, and says what is over since; of groups that others look after
    /// it says nothing.
    #[test]
    fn what_is_known_outlives_the_process() {
        let mut former = outbox();
        former.set("a", &fires(&[(Alert::Paused, "x")]));
        former.set("b", &fires(&[(Alert::Frozen, "y")]));
        assert_eq!(say(&mut former, 0).len(), 2);
        let kept = serde_json::to_string(&former.told()).unwrap();
        let mut next = outbox();
        next.know(serde_json::from_str(&kept).unwrap());
        assert!(say(&mut next, 1).is_empty());
        next.set("a", &fires(&[(Alert::Paused, "x")]));
        assert!(say(&mut next, 2).is_empty());
        next.set("b", &fires(&[]));
        assert_eq!(say(&mut next, 3), ["(y)"]);
        next.leave("a");
        assert!(say(&mut next, 4).is_empty());
    }
}
