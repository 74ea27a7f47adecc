//! A small fleet that answers every command at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Digest;
use crate::rollout::command::{Action, Alert, Command, Outcome};
use crate::rollout::model::{
    AgentId, Collector, Input, Operator, Phase, Policy, Report, Select, Stage, State,
};
use crate::rollout::verdict::Sample;

/// What an agent does with offers of the candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Applies,
    Refuses(&'static str),
    SaysYesAndDoesNot,
    Silent,
}

/// An agent.
pub struct Fake {
    pub reaction: Reaction,
    /// From then on it is not heard of.
    pub dead: bool,
    /// It does not take what is good back either.
    pub refuses_good: bool,
    /// It can be restarted.
    pub restarts: bool,
    pub collector: Collector,
    pub sample: Sample,
}

/// See the module's documentation.
pub struct Bench {
    pub policy: Policy,
    pub state: State,
    pub now: u64,
    pub agents: BTreeMap<AgentId, Fake>,
    /// Agents that run this drop lines.
    pub drops: Option<Digest>,
    /// Agents that run this restart at each look.
    pub restarts: Option<Digest>,
    /// The backend answers nobody.
    pub outage: bool,
    pub requires: BTreeSet<String>,
    pub refused_by_check: bool,
    pub is_stored: bool,
    pub alerts: Vec<Alert>,
    pub resolved: Vec<Alert>,
    /// Agents that begin anew on demand come back to what they should run.
    pub heals_by_restart: bool,
    pub restarted: Vec<AgentId>,
    pub commands: Vec<Action>,
}

pub fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

pub fn stage(select: Select, failures_percent_max: u8) -> Stage {
    Stage {
        select,
        soak_ms: 30_000,
        failures_percent_max,
    }
}

/// `a00`, `a01`, ...
pub fn bench(count: usize) -> Bench {
    let mut policy = Policy::new(digest("fallback"));
    policy.canary = stage(Select::Count(1), 0);
    policy.waves = vec![
        stage(Select::Percent(50), 20),
        stage(Select::Percent(100), 20),
    ];
    policy.control = 4;
    let agent = |n: usize| {
        let id = format!("a{n:02}");
        let report = Report {
            effective: Some(digest("fallback")),
            ..Report::default()
        };
        let collector = Collector {
            id: id.clone(),
            connected: true,
            labels: BTreeMap::from([("zone".into(), format!("z{}", n % 2))]),
            components: BTreeSet::from(["loki".into()]),
            report,
            healthy: Some(true),
        };
        let fake = Fake {
            reaction: Reaction::Applies,
            dead: false,
            refuses_good: false,
            restarts: true,
            collector,
            sample: Sample::default(),
        };
        (id, fake)
    };
    Bench {
        state: State::new("g", &policy),
        policy,
        now: 1_000_000,
        agents: (0..count).map(agent).collect(),
        drops: None,
        restarts: None,
        outage: false,
        requires: BTreeSet::new(),
        refused_by_check: false,
        is_stored: true,
        alerts: Vec::new(),
        resolved: Vec::new(),
        heals_by_restart: false,
        restarted: Vec::new(),
        commands: Vec::new(),
    }
}

impl Bench {
    pub fn tell(&mut self, input: Input) {
        // What is kept is all that there is: each step goes through its JSON.
        let kept = serde_json::to_string(&self.state).unwrap();
        self.state = serde_json::from_str(&kept).unwrap();
        self.state.step(&self.policy, 1, self.now, input).unwrap();
    }

    pub fn change(&mut self, revision: &str) {
        let revision = revision.to_owned();
        self.tell(Input::Changed { revision });
    }

    pub fn wants(&mut self, wants: Operator) {
        self.tell(Input::Operator { wants });
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        for fake in self.agents.values_mut() {
            let runs = fake.collector.report.effective.clone();
            let sample = &mut fake.sample;
            let lines = ms / 10;
            sample.at_ms = self.now;
            sample.requests += ms / 100;
            sample.probes_due += ms / 500;
            if self.outage {
                sample.errors_retryable += ms / 100;
                sample.lag_bytes += lines * 100;
                continue;
            }
            sample.probes_found += ms / 500;
            sample.lines_read += lines;
            let dropped = if self.drops == runs { lines / 5 } else { 0 };
            sample.lines_dropped += dropped;
            sample.lines_delivered += lines - dropped;
            if self.restarts.is_some() && self.restarts == runs {
                sample.incarnation += 1;
            }
        }
    }

    /// Goes on until something holds, for a while at most.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Bench) -> bool) {
        for _ in 0..3_000 {
            if holds(self) {
                return;
            }
            self.go();
        }
        panic!("{what}: {:?}", self.state);
    }

    /// Goes on for so long.
    pub fn during(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.go();
        }
    }

    fn go(&mut self) {
        let number = |c: &&Command| c.key.rsplit('/').next().unwrap().parse::<u64>().unwrap();
        let is_held = |c: &&Command| {
            !self.is_stored && matches!(c.action, Action::StoreConfigArtifact { .. })
        };
        let outstanding = self.state.outstanding.values();
        let next = outstanding
            .filter(|c| !is_held(c))
            .min_by_key(number)
            .cloned();
        match next {
            Some(command) => {
                let outcome = self.answer(&command.action);
                self.commands.push(command.action);
                let key = command.key;
                self.tell(Input::Done { key, outcome });
            }
            None => {
                self.pass(1_000);
                if self.now >= self.state.due_ms {
                    self.tell(Input::Tick);
                }
            }
        }
    }

    fn answer(&mut self, action: &Action) -> Outcome {
        if let Some((agents, offered)) = action.offer() {
            for id in agents {
                self.offer(id, offered);
            }
            return Outcome::Done;
        }
        match action {
            Action::BuildConfig { revision } => Outcome::Built {
                digest: digest(revision),
                requires: self.requires.clone(),
            },
            Action::ValidateConfig { .. } if self.refused_by_check => Outcome::Refused {
                reasons: vec!["no such option".into()],
            },
            Action::ListActiveCollectors => {
                let row = |f: &Fake| Collector {
                    connected: !f.dead,
                    ..f.collector.clone()
                };
                Outcome::Collectors {
                    collectors: self.agents.values().map(row).collect(),
                }
            }
            Action::VerifyReload { agents } => Outcome::Reports {
                reports: self.heard(agents, |f| f.collector.report.clone()),
            },
            Action::VerifyCollectorHealth { agents } => Outcome::Health {
                agents: self.heard(agents, |f| (f.collector.report.clone(), Some(f.sample))),
            },
            Action::SendAlert {
                alert, resolved, ..
            } => {
                match resolved {
                    true => self.resolved.push(*alert),
                    false => self.alerts.push(*alert),
                }
                Outcome::Done
            }
            Action::RestartCollector { agents } => Outcome::Restarted {
                agents: self.restart(agents),
            },
            _ => Outcome::Done,
        }
    }

    fn restart(&mut self, agents: &BTreeSet<AgentId>) -> BTreeSet<AgentId> {
        let mut heard = BTreeSet::new();
        for id in agents {
            let fake = self.agents.get_mut(id).unwrap();
            if fake.dead || !fake.restarts {
                continue;
            }
            fake.sample.incarnation += 1;
            if self.heals_by_restart {
                fake.reaction = Reaction::Applies;
            }
            self.restarted.push(id.clone());
            heard.insert(id.clone());
        }
        heard
    }

    fn heard<T>(
        &self,
        agents: &BTreeSet<AgentId>,
        of: impl Fn(&Fake) -> T,
    ) -> BTreeMap<AgentId, T> {
        let known = agents
            .iter()
            .filter_map(|id| Some((id, self.agents.get(id)?)));
        let heard = known.filter(|(_, f)| !f.dead);
        heard.map(|(id, f)| (id.clone(), of(f))).collect()
    }

    fn offer(&mut self, id: &str, offered: &Digest) {
        let good = self.state.good.digest.clone();
        let fake = self.agents.get_mut(id).unwrap();
        if fake.dead {
            return;
        }
        let report = &mut fake.collector.report;
        let reaction = match *offered == good {
            // A liar lies about the way back, too.
            true if fake.reaction != Reaction::SaysYesAndDoesNot && !fake.refuses_good => {
                Reaction::Applies
            }
            _ => fake.reaction,
        };
        match reaction {
            Reaction::Silent => return,
            Reaction::Applies => {
                report.effective = Some(offered.clone());
                report.refused = None;
            }
            Reaction::Refuses(why) => report.refused = Some(why.into()),
            Reaction::SaysYesAndDoesNot => report.refused = None,
        }
        report.answered = Some(offered.clone());
    }

    pub fn agent(&mut self, id: &str) -> &mut Fake {
        self.agents.get_mut(id).unwrap()
    }

    pub fn all(&mut self, reaction: Reaction) {
        for fake in self.agents.values_mut() {
            fake.reaction = reaction;
        }
    }

    /// How many run it.
    pub fn running(&self, name: &str) -> usize {
        let wanted = Some(digest(name));
        let runs = |f: &&Fake| f.collector.report.effective == wanted;
        self.agents.values().filter(runs).count()
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.state.phase, Phase::Idle) && self.state.pending.is_none()
    }

    pub fn is_soaking(&self, stage: usize) -> bool {
        let candidate = self.state.candidate.as_ref();
        matches!(self.state.phase, Phase::Soak { .. })
            && candidate.is_some_and(|c| c.stage == stage)
    }

    pub fn paused(&self) -> Option<&str> {
        self.state.candidate.as_ref()?.paused.as_deref()
    }

    pub fn is_quarantined(&self, name: &str) -> bool {
        self.state.quarantine.contains_key(&digest(name))
    }

    /// Under test in the soak that is on.
    pub fn judged(&self) -> Vec<AgentId> {
        match &self.state.phase {
            Phase::Soak { judged, .. } => judged.keys().cloned().collect(),
            phase => panic!("{phase:?}"),
        }
    }

    pub fn until_idle(&mut self) {
        self.until("idle", Bench::is_idle);
    }
}
