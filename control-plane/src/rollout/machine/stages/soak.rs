//! What becomes of a stage while it runs the candidate.

use super::{DIFFERS, Health};
use std::collections::BTreeMap;

use crate::model::Digest;
use crate::rollout::Flaw;
use crate::rollout::command::{Action, Alert};
use crate::rollout::machine::Machine;
use crate::rollout::model::{Phase, Report, Subject, Subjects};
use crate::rollout::verdict::{Compared, Judgement, Limits, Sample, Verdict, Window, judge};

impl Subject {
    /// Nothing is known of it since the change.
    pub(super) fn new(past: Window, now_ms: u64) -> Subject {
        Subject {
            past,
            start: None,
            incarnation: None,
            restarts: 0,
            seen_ms: now_ms,
        }
    }

    /// Takes in what it counts, and compares. A window may begin with a sample that is not older than
    /// `begins_ms`.
    fn look(
        &mut self,
        sample: Option<Sample>,
        now: u64,
        begins_ms: u64,
        limits: &Limits,
    ) -> Compared {
        let fresh = sample.filter(|s| s.at_ms + limits.stale_ms >= now);
        let mut window = None;
        if let Some(sample) = fresh {
            self.seen_ms = self.seen_ms.max(sample.at_ms);
            self.restarts += u32::from(self.incarnation.is_some_and(|i| i != sample.incarnation));
            self.incarnation = Some(sample.incarnation);
            let is_other = |start: &Sample| start.incarnation != sample.incarnation;
            if self.start.as_ref().is_none_or(is_other) {
                self.start = (sample.at_ms >= begins_ms).then_some(sample);
            }
            window = self.start.and_then(|s| Window::between(&s, &sample));
        }
        Compared {
            past: self.past,
            now: window.filter(|w| w.ms >= limits.window_ms_min),
            silent_ms: now.saturating_sub(self.seen_ms),
            restarts: self.restarts,
        }
    }
}

fn look_at(
    subjects: &mut Subjects,
    health: &Health,
    now: u64,
    begins_ms: u64,
    limits: &Limits,
) -> Vec<Compared> {
    let look = |(id, subject): (&String, &mut Subject)| {
        let sample = health.get(id).and_then(|(_, sample)| *sample);
        subject.look(sample, now, begins_ms, limits)
    };
    subjects.iter_mut().map(look).collect()
}

/// Windows of the control group begin with what is known now, those of agents under test later: so what
/// an agent under test suffers in its window, the control group has suffered in its own.
fn begin_anew(judged: &mut Subjects, control: &mut Subjects, health: &Health) {
    for subject in judged.values_mut() {
        subject.start = None;
    }
    for (id, subject) in control {
        subject.start = health.get(id).and_then(|(_, sample)| *sample);
    }
}

/// Those that run something else than they should.
fn that_differ(subjects: &Subjects, health: &Health, digest: &Digest) -> usize {
    let differs = |report: &Report| report.effective.as_ref().is_some_and(|e| e != digest);
    let known = subjects.keys().filter_map(|id| health.get(id));
    known.filter(|(report, _)| differs(report)).count()
}

impl Machine<'_> {
    /// All that answered run it: they are looked at from now on.
    pub(super) fn soak(&mut self) {
        let now = self.now();
        let stage = self.s.candidate.as_ref().map_or(0, |c| c.stage);
        let soak_ms = self.p.stage(stage).map_or(0, |s| s.soak_ms);
        let Phase::Offer {
            judged, control, ..
        } = std::mem::replace(&mut self.s.phase, Phase::Idle)
        else {
            return;
        };
        let heard = |subjects: Subjects| -> Subjects {
            let heard = |s| Subject { seen_ms: now, ..s };
            subjects.into_iter().map(|(i, s)| (i, heard(s))).collect()
        };
        self.enter(Phase::Soak {
            judged: heard(judged),
            control: heard(control),
            until_ms: now + soak_ms,
            extended: false,
            bad_since_ms: None,
            bad_then: BTreeMap::new(),
            begun_ms: None,
            settle_ms: now,
            poll_ms: now,
        });
        self.poll_soak();
    }

    pub(in crate::rollout::machine) fn poll_soak(&mut self) {
        let Phase::Soak {
            judged, control, ..
        } = &self.s.phase
        else {
            return;
        };
        let agents = judged.keys().chain(control.keys()).cloned().collect();
        self.poll_again_in(self.p.poll_ms);
        if !self.is_asked(|a| matches!(a, Action::VerifyCollectorHealth { .. })) {
            self.issue(Action::VerifyCollectorHealth { agents });
        }
    }

    /// Judges. This goes on while the rollout waits for somebody.
    pub(in crate::rollout::machine) fn looked(&mut self, health: &Health) {
        let (now, policy) = (self.s.clock_ms, self.p);
        let (Some(digest), good) = (self.candidate_digest(), self.s.good.digest.clone()) else {
            return;
        };
        let Phase::Soak {
            judged,
            control,
            begun_ms,
            settle_ms,
            ..
        } = &mut self.s.phase
        else {
            return;
        };
        // An agent that does not run what is good any more is nothing to compare with.
        control.retain(|id, _| {
            let report = health.get(id).map(|(report, _)| report);
            report.is_none_or(|r| r.effective.as_ref() == Some(&good))
        });
        let begun = *begun_ms.get_or_insert_with(|| {
            begin_anew(judged, control, health);
            now
        });
        let differ = that_differ(judged, health, &digest);
        let mut compared = look_at(control, health, now, u64::MAX, &policy.limits);
        let tested = look_at(judged, health, now, begun + policy.poll_ms, &policy.limits);
        if policy.has(Flaw::NoControlGroup) {
            compared = tested.iter().map(Compared::spared).collect();
        }
        let mut judgement = judge(&policy.limits, &tested, &compared);
        if !judgement.shared.is_empty() {
            *settle_ms = now + policy.settle_ms;
        }
        let settles = now < *settle_ms;
        if settles {
            *begun_ms = None;
            judgement.keep_own_causes();
        }
        let count = judged.len();
        let budget = self.budget(count);
        let verdict = match judgement.verdict(budget) {
            Verdict::Good if settles => Verdict::NoData,
            verdict => verdict,
        };
        if self.is_confirmed(verdict, &mut judgement, &tested) && !policy.has(Flaw::NeverRollsBack)
        {
            let text = format!(
                "{} of {count}: {}",
                judgement.bad.len(),
                judgement.reasons()
            );
            return self.roll_back(true, &text);
        }
        if differ > budget {
            return self.roll_back(true, &format!("{differ} agents: {DIFFERS}"));
        }
        self.soaked(verdict);
        self.begin_windows();
    }

    /// Whether it is bad for long enough. What was over at once is no more held against it: windows begin anew then.
    fn is_confirmed(
        &mut self,
        verdict: Verdict,
        judgement: &mut Judgement,
        tested: &[Compared],
    ) -> bool {
        let (now, confirm_ms) = (self.s.clock_ms, self.p.confirm_ms);
        let budget = self.budget(tested.len());
        let Phase::Soak {
            judged,
            bad_since_ms,
            bad_then,
            ..
        } = &mut self.s.phase
        else {
            return false;
        };
        if verdict != Verdict::Bad {
            *bad_since_ms = None;
            bad_then.clear();
            return false;
        }
        let Some(since) = *bad_since_ms else {
            *bad_since_ms = Some(now);
            let windows = judged.keys().zip(tested);
            let known = windows.filter_map(|(id, c)| Some((id.clone(), c.now?)));
            *bad_then = known.collect();
            return false;
        };
        if now < since + confirm_ms {
            return false;
        }
        let agents: Vec<_> = judged.keys().zip(tested).collect();
        judgement.keep(|i, signal| {
            let (id, compared) = agents[i];
            let both = compared.now.zip(bad_then.get(id));
            !signal.is_fleeting() || both.is_none_or(|(now, then)| now.goes_on(signal, then))
        });
        if judgement.bad.len() > budget {
            return true;
        }
        if let Phase::Soak {
            bad_since_ms,
            bad_then,
            begun_ms,
            ..
        } = &mut self.s.phase
        {
            (*bad_since_ms, *begun_ms) = (None, None);
            bad_then.clear();
        }
        false
    }

    /// Windows that are long begin anew, so that what begins late is not thinned out; but not before an end
    /// that would then be without data, nor while something bad is to be confirmed.
    fn begin_windows(&mut self) {
        let (now, limits, poll_ms) = (self.s.clock_ms, self.p.limits, self.p.poll_ms);
        let is_paused = self.is_paused();
        let Phase::Soak {
            control,
            begun_ms,
            until_ms,
            bad_since_ms: None,
            ..
        } = &mut self.s.phase
        else {
            return;
        };
        let is_long = begun_ms.is_some_and(|at| now >= at + limits.window_ms_max);
        let is_alone = !control.is_empty() && control.values().all(|c| c.start.is_none());
        let has_time = is_paused || now + limits.window_ms_min + 4 * poll_ms < *until_ms;
        if is_alone || (is_long && has_time) {
            *begun_ms = None;
        }
    }

    /// Goes on if the time is up.
    fn soaked(&mut self, verdict: Verdict) {
        let now = self.s.clock_ms;
        let stage = self.s.candidate.as_ref().map_or(0, |c| c.stage);
        let soak_ms = self.p.stage(stage).map_or(0, |s| s.soak_ms);
        let is_paused = self.is_paused();
        let Phase::Soak {
            until_ms,
            extended,
            settle_ms,
            ..
        } = &mut self.s.phase
        else {
            return;
        };
        if now < *until_ms || is_paused {
            return;
        }
        // In the time that was added.
        let is_shared = *settle_ms + soak_ms > now;
        match verdict {
            Verdict::Good => self.next_stage(stage + 1),
            Verdict::NoData if self.p.has(Flaw::NoDataPasses) => self.next_stage(stage + 1),
            // It is about to be confirmed, or not.
            Verdict::Bad => {}
            Verdict::NoData if !*extended => {
                (*extended, *until_ms) = (true, now + soak_ms);
            }
            Verdict::NoData => {
                if is_shared {
                    let text = "agents that did not change suffer, too";
                    self.alert(Alert::Backend, text);
                }
                self.pause("it cannot be said whether it does harm");
            }
        }
    }
}
