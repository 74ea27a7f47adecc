//! What is around the control planes: agents, the network to them, the backend, people, and who judges.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;

use crate::model::Digest;
use crate::rollout::command::{Alert, Fence};
use crate::rollout::model::{AgentId, Collector, Generation, Report};
use crate::rollout::verdict::Sample;

use super::agent::{Agent, Kind};
use super::dice::Dice;

/// How often agents say something of themselves, ms.
const REPORT_MS: u64 = 5_000;
/// Who was not heard of for so long is not connected, ms.
const CONNECTED_MS: u64 = 12_000;

/// What a seed may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chaos {
    /// Agents are lost, cut off, slow, lie, and have full disks; messages are lost.
    pub agents: bool,
    /// The backend fails for all.
    pub outages: bool,
    /// Control planes are killed at calls, freeze in the middle of them, and are two.
    pub control: bool,
}

/// Something on its way.
#[derive(Clone, Debug)]
pub enum Message {
    /// To an agent.
    Offer {
        agent: usize,
        digest: Digest,
        fence: Fence,
    },
    /// A call of a control plane that froze before it.
    Late(Late),
}

/// An offer by somebody who was gone for a while.
#[derive(Clone, Debug)]
pub struct Late {
    pub fence: Fence,
    pub epoch: u64,
    pub agents: BTreeSet<AgentId>,
    pub digest: Digest,
    pub key: String,
}

/// What the control planes see of an agent.
#[derive(Clone, Debug, Default)]
struct Seen {
    heard_ms: Option<u64>,
    report: Rc<Report>,
    sample: Option<Sample>,
    /// When it says something next, ms.
    says_ms: u64,
    /// What it said and is not heard yet.
    coming: VecDeque<(u64, Rc<Report>, Sample)>,
}

/// See the module's documentation.
pub struct World {
    pub now: u64,
    pub chaos: Chaos,
    /// Nothing goes wrong from then on, ms.
    pub calm_from: u64,
    pub agents: Vec<Agent>,
    index: BTreeMap<AgentId, usize>,
    seen: Vec<Seen>,
    pub kinds: BTreeMap<Digest, Kind>,
    /// The backend does not answer until then.
    pub outage: u64,
    on_the_way: BinaryHeap<Reverse<(u64, u64)>>,
    messages: BTreeMap<u64, Message>,
    sent: u64,
    dice: Dice,
    /// The newest fence epoch that was obeyed, and the newest true one.
    fenced: u64,
    led: u64,
    pub promoted: Vec<Generation>,
    /// What was taken back for its own fault.
    pub condemned: BTreeSet<Digest>,
    pub alerts: BTreeMap<Alert, usize>,
    pub alerted: BTreeSet<String>,
    /// Alerts that were over.
    pub resolved: u64,
    /// Agents that were restarted on demand.
    pub restarts: u64,
    pub violations: Vec<String>,
}

/// The world, as all hold it.
pub type Shared = Rc<RefCell<World>>;

impl World {
    pub fn new(seed: u64, count: usize, good: &Digest, chaos: Chaos, calm_from: u64) -> World {
        let mut dice = Dice::new(seed, "agents");
        let agents: Vec<_> = (0..count)
            .map(|n| Agent::new(n, good.clone(), &mut dice))
            .collect();
        let mut world = World {
            now: 1_000_000,
            chaos,
            calm_from,
            index: agents
                .iter()
                .enumerate()
                .map(|(i, a)| (a.id.clone(), i))
                .collect(),
            seen: vec![Seen::default(); count],
            agents,
            kinds: BTreeMap::from([(good.clone(), Kind::Good)]),
            outage: 0,
            on_the_way: BinaryHeap::new(),
            messages: BTreeMap::new(),
            sent: 0,
            dice: Dice::new(seed, "world"),
            fenced: 0,
            led: 0,
            promoted: Vec::new(),
            condemned: BTreeSet::new(),
            alerts: BTreeMap::new(),
            alerted: BTreeSet::new(),
            resolved: 0,
            restarts: 0,
            violations: Vec::new(),
        };
        for agent in 0..count {
            world.agents[agent].restart(world.now);
            world.seen[agent].says_ms = world.now + world.dice.range(0, REPORT_MS);
        }
        world
    }

    pub fn violates(&mut self, what: impl Into<String>) {
        let text = format!("at {} s: {}", (self.now - 1_000_000) / 1_000, what.into());
        self.violations.push(text);
    }

    pub fn is_calm(&self) -> bool {
        self.now >= self.calm_from
    }

    pub fn is_out(&self) -> bool {
        self.outage > self.now
    }

    pub fn send(&mut self, at: u64, message: Message) {
        self.sent += 1;
        self.on_the_way.push(Reverse((at, self.sent)));
        self.messages.insert(self.sent, message);
    }

    /// Everything up to now.
    pub fn deliver(&mut self) {
        while let Some(Reverse((at, number))) = self.on_the_way.peek().copied() {
            if at > self.now {
                break;
            }
            self.on_the_way.pop();
            match self.messages.remove(&number) {
                Some(Message::Offer {
                    agent,
                    digest,
                    fence,
                }) => {
                    let kind = self.kinds.get(&digest).copied();
                    let (kind, now) = (kind.unwrap_or(Kind::Refused), self.now);
                    let to = &mut self.agents[agent];
                    if to.is_reachable(now) {
                        to.offered(&digest, kind, fence, now, &mut self.dice);
                    }
                }
                Some(Message::Late(late)) => {
                    let _ = self.offer(
                        late.fence,
                        late.epoch,
                        &late.agents,
                        &late.digest,
                        &late.key,
                    );
                }
                None => {}
            }
        }
    }

    /// What agents say, and what is heard of that.
    pub fn talk(&mut self) {
        for agent in 0..self.agents.len() {
            while self.seen[agent].says_ms <= self.now {
                self.seen[agent].says_ms += REPORT_MS;
                self.say(agent);
            }
            let seen = &mut self.seen[agent];
            while seen.coming.front().is_some_and(|(at, ..)| *at <= self.now) {
                if let Some((_, report, sample)) = seen.coming.pop_front() {
                    let at_ms = self.now;
                    seen.heard_ms = Some(at_ms);
                    seen.report = report;
                    seen.sample = Some(Sample { at_ms, ..sample });
                }
            }
        }
    }

    fn say(&mut self, agent: usize) {
        let (now, is_out) = (self.now, self.is_out());
        if self.agents[agent].is_down(now) {
            return;
        }
        let (report, sample) = self.agents[agent].report(now, is_out, &mut self.dice);
        if !self.agents[agent].is_reachable(now) || self.is_lost() {
            return;
        }
        let delay = match self.agents[agent].faults.slow > now {
            true => self.dice.range(2_000, 8_000),
            false => self.dice.range(20, 500),
        };
        let coming = &mut self.seen[agent].coming;
        coming.push_back((now + delay, report, sample));
    }

    fn is_lost(&mut self) -> bool {
        self.chaos.agents && !self.is_calm() && self.dice.chance(15)
    }

    /// Agents go on until now.
    pub fn live(&mut self) {
        let (now, is_out) = (self.now, self.is_out());
        for agent in &mut self.agents {
            if agent.faults.down > 0 && agent.faults.down <= now {
                agent.faults.down = 0;
                agent.restart(now);
            }
            if agent.applies.is_some() {
                agent.apply(now, is_out);
            }
        }
    }

    /// The backend fails, or comes back: what agents did until now was under the former.
    pub fn set_outage(&mut self, until: u64) {
        // It may be over by now: that is what is said here.
        let (now, was_out) = (self.now, self.outage > 0);
        for agent in &mut self.agents {
            if !agent.is_down(now) {
                agent.count(now, was_out);
            }
        }
        self.outage = until;
    }

    pub fn faults(&mut self) {
        let (now, count) = (self.now, self.agents.len() as u64);
        if !self.chaos.agents || self.is_calm() || !self.dice.chance(250) {
            return;
        }
        let agent = self.dice.range(0, count) as usize;
        let until = (now + self.dice.range(5_000, 90_000)).min(self.calm_from);
        let faults = &mut self.agents[agent].faults;
        match self.dice.range(0, 6) {
            0 => faults.down = until,
            1 => faults.cut_off = until,
            2 => faults.slow = until,
            3 => faults.lies = until,
            4 => faults.disk_full = until,
            // A part of the fleet at once.
            _ if self.dice.chance(200) => {
                for _ in 0..count / 3 {
                    let agent = self.dice.range(0, count) as usize;
                    self.agents[agent].faults.cut_off = until;
                }
            }
            _ => {}
        }
    }

    fn is_connected(&self, agent: usize) -> bool {
        let heard = self.seen[agent].heard_ms;
        heard.is_some_and(|at| at + CONNECTED_MS >= self.now)
    }

    pub fn collectors(&self) -> Vec<Collector> {
        let row = |(i, agent): (usize, &Agent)| Collector {
            id: agent.id.clone(),
            connected: self.is_connected(i),
            labels: agent.labels.clone(),
            components: agent.components.clone(),
            report: (*self.seen[i].report).clone(),
            healthy: None,
        };
        self.agents.iter().enumerate().map(row).collect()
    }

    pub fn health(
        &self,
        agents: &BTreeSet<AgentId>,
    ) -> BTreeMap<AgentId, (Report, Option<Sample>)> {
        let known = agents.iter().filter_map(|id| {
            let i = *self.index.get(id)?;
            let seen = &self.seen[i];
            let row = || ((*seen.report).clone(), seen.sample);
            self.is_connected(i).then(|| (id.clone(), row()))
        });
        known.collect()
    }

    /// Whether a leader is obeyed. That one that is none any more is obeyed is against the rules.
    pub fn obeys(&mut self, fence: Fence, epoch: u64) -> bool {
        if fence.epoch < self.fenced {
            return false;
        }
        self.fenced = self.fenced.max(fence.epoch);
        if epoch < self.led {
            self.violates(format!("epoch {epoch} is obeyed after epoch {}", self.led));
        }
        self.led = self.led.max(epoch);
        true
    }

    /// False if somebody else is obeyed.
    pub fn offer(
        &mut self,
        fence: Fence,
        epoch: u64,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
        key: &str,
    ) -> bool {
        if !self.obeys(fence, epoch) {
            return false;
        }
        let is_new = key.contains("/canary_reload/") || key.contains("/push_config/");
        if is_new && self.condemned.contains(digest) {
            self.violates(format!("{} is offered again", digest.short()));
        }
        for id in agents {
            let Some(agent) = self.index.get(id).copied() else {
                continue;
            };
            let delay = match self.dice.chance(20) && self.chaos.agents && !self.is_calm() {
                true => self.dice.range(1_000, 20_000),
                false => self.dice.range(5, 300),
            };
            if self.is_lost() {
                continue;
            }
            let digest = digest.clone();
            let offer = Message::Offer {
                agent,
                digest,
                fence,
            };
            self.send(self.now + delay, offer);
        }
        true
    }

    /// Those of them that hear it begin anew.
    pub fn restart(&mut self, agents: &BTreeSet<AgentId>) -> BTreeSet<AgentId> {
        let now = self.now;
        let mut heard = BTreeSet::new();
        for id in agents {
            let Some(agent) = self.index.get(id).copied() else {
                continue;
            };
            if self.agents[agent].is_reachable(now) && !self.is_lost() {
                self.agents[agent].restart(now);
                self.restarts += 1;
                heard.insert(id.clone());
            }
        }
        heard
    }

    pub fn promote(&mut self, fence: Fence, epoch: u64, generation: &Generation) -> bool {
        if !self.obeys(fence, epoch) {
            return false;
        }
        if self.promoted.last() == Some(generation) {
            return true;
        }
        let number = self.promoted.last().map_or(0, |g| g.number) + 1;
        if generation.number != number {
            self.violates(format!(
                "generation {} follows {}",
                generation.number,
                number - 1
            ));
        }
        let kind = self.kinds.get(&generation.digest).copied();
        if !kind.is_some_and(Kind::is_good) {
            self.violates(format!("{kind:?} is promoted"));
        }
        self.promoted.push(generation.clone());
        true
    }
}
