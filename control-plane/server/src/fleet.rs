//! The agents of a group, for the driver of its rollouts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tailwater_control_plane::model::Digest;
use tailwater_control_plane::rollout::command::{Alert, Fence};
use tailwater_control_plane::rollout::model::{AgentId, Collector, Generation, Report};
use tailwater_control_plane::rollout::ports::{Call, Failure, Fleet};
use tailwater_control_plane::rollout::verdict::Sample;
use tailwater_control_plane::store::Artefacts;
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::CustomMessage;

use crate::audit::{Audit, Entry};
use crate::hub::{Agent, Hub, STATE};
use crate::now_ms;
use crate::offers::{FALLBACK_BODY, Offer, Offers};

/// Agents are asked for their counters for so long, ms; and again when half of it is over.
const SAMPLE_MS: u64 = 60_000;

/// What is offered anew is offered anew again after this, ms.
const AGAIN_MS: u64 = 60_000;

/// Types of components that configurations of a group need: an agent that does not list its own is not known
/// to lack one.
pub type Wanted = Arc<Mutex<BTreeSet<String>>>;

/// See the module's documentation.
pub struct HubFleet {
    /// The agents of all groups.
    pub hub: Arc<Hub>,
    /// Where configurations are.
    pub artefacts: Arc<dyn Artefacts>,
    /// How they are offered.
    pub offers: Arc<Offers>,
    /// Which group.
    pub group: String,
    /// Where people look.
    pub audit: Arc<Audit>,
    /// See [`Wanted`].
    pub wanted: Wanted,
    /// How often counters are sent, ms.
    pub sample_ms: u64,
    /// How often sample lines are injected, ms; 0: never.
    pub probe_ms: u64,
    /// Sample lines have arrived when they are found at the destination, not when they are acknowledged.
    pub by_query: bool,
    /// The newest one that was obeyed.
    pub fence: Fence,
}

impl HubFleet {
    fn obey(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        if call.fence < self.fence {
            return Err(Failure::Fenced);
        }
        self.fence = call.fence;
        Ok(())
    }

    fn body(&self, digest: &Digest) -> Result<String, Failure> {
        if *digest == Digest::of(FALLBACK_BODY.as_bytes()) {
            return Ok(FALLBACK_BODY.to_owned());
        }
        let missing = || Failure::Unavailable(format!("{digest} is not kept"));
        self.artefacts.artefact(digest)?.ok_or_else(missing)
    }

    /// A new offer of a text, for a cause.
    fn offer_of(&self, digest: &Digest, cause: &str) -> Result<Arc<Offer>, Failure> {
        let body = self.body(digest)?;
        Ok(self.offers.make(&self.group, digest, &body, cause)?)
    }

    /// Has agents of which something is wanted offered it, all under one version.
    fn make_offer(
        &self,
        wanted: &[(InstanceUid, u64)],
        digest: &Digest,
        cause: &str,
    ) -> Result<(), Failure> {
        if wanted.is_empty() {
            return Ok(());
        }
        let offer = self.offer_of(digest, cause)?;
        for (uid, wait_ms) in wanted {
            let taken = |agent: &mut Agent| agent.take_on(&offer, *wait_ms, now_ms());
            if self.hub.with(*uid, taken).is_some() {
                let agent = uid.to_string();
                tracing::info!(agent, digest = digest.short(), key = cause, "is offered");
            }
        }
        // Who comes and follows may have had this one, and takes nothing older.
        if let Some(good) = self.hub.good(&self.group)
            && self.offers.key().is_some()
        {
            let newest = match good.digest == *digest {
                true => offer,
                false => self.offer_of(&good.digest, cause)?,
            };
            self.hub.set_good(&self.group, good, newest);
        }
        Ok(())
    }

    /// Has what agents run signed by the key that signs now.
    fn sign_again(&self, seen: &[(InstanceUid, Report)], cause: &str) -> Result<(), Failure> {
        let Some(key) = self.offers.key() else {
            return Ok(());
        };
        let mut wanted: BTreeMap<Digest, Vec<_>> = BTreeMap::new();
        for (uid, report) in seen {
            let again = self.hub.look(*uid, |agent| {
                let digest = agent.to_sign(key, report)?;
                let wait_ms = agent.wants(&digest, report, Some(key), now_ms())?;
                Some((digest, wait_ms))
            });
            if let Some((digest, wait_ms)) = again.flatten() {
                wanted.entry(digest).or_default().push((*uid, wait_ms));
            }
        }
        for (digest, agents) in wanted {
            // What is not kept any more stays as it is until something else is rolled out.
            if self.body(&digest).is_ok() {
                self.make_offer(&agents, &digest, cause)?;
            }
        }
        Ok(())
    }

    /// What an agent runs; remembered, if that is another thing.
    fn look(
        &self,
        uid: InstanceUid,
        bodies: &mut BTreeMap<Digest, Option<String>>,
    ) -> Option<Seen> {
        let good = self.hub.good(&self.group).map(|g| g.digest);
        let wanted = self
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // What bodies may be asked for is known before, so that nothing is read under the hub's lock.
        let named = self.hub.look(uid, |agent| {
            let shows = agent.state.layer.is_none() && agent.peer.answer_to_offer().is_some();
            let report = agent.report(&|_| None, None);
            let desired = agent.desired.as_ref().map(|d| d.offer.digest.clone());
            shows.then_some([report.answered, desired])
        })?;
        let named = named.into_iter().flatten().flatten().chain(good.clone());
        for digest in named {
            bodies
                .entry(digest)
                .or_insert_with_key(|digest| self.body(digest).ok());
        }
        let now = now_ms();
        self.hub.look(uid, |agent| {
            let body = |digest: &Digest| bodies.get(digest).cloned().flatten();
            let report = agent.report(&body, good.as_ref());
            if agent.is_known() && agent.is_connected(now) {
                agent.remember(report.effective.as_ref(), now);
            }
            Seen {
                is_connected: agent.is_connected(now) && agent.is_known(),
                is_ours: agent.group == self.group && agent.is_managed(),
                labels: labels(agent),
                components: agent.components(&wanted),
                sample: agent.sample(self.by_query),
                healthy: agent.peer.health.as_ref().map(|h| h.healthy),
                report,
            }
        })
    }

    fn members(&self) -> Vec<InstanceUid> {
        let mut uids = Vec::new();
        self.hub.each(|uid, agent| {
            if agent.group == self.group && agent.is_managed() {
                uids.push(uid);
            }
        });
        uids
    }

    fn seen(&self, agents: &BTreeSet<AgentId>) -> BTreeMap<AgentId, Seen> {
        let mut bodies = BTreeMap::new();
        let look = |id: &AgentId| {
            let seen = self.look(id.parse().ok()?, &mut bodies)?;
            (seen.is_connected && seen.is_ours).then(|| (id.clone(), seen))
        };
        agents.iter().filter_map(look).collect()
    }
}

/// What is known of an agent.
struct Seen {
    is_connected: bool,
    is_ours: bool,
    labels: BTreeMap<String, String>,
    components: BTreeSet<String>,
    report: Report,
    sample: Option<Sample>,
    healthy: Option<bool>,
}

fn labels(agent: &Agent) -> BTreeMap<String, String> {
    let mut all = agent.peer.others.clone();
    all.extend(agent.peer.identifying.clone());
    all
}

impl Fleet for HubFleet {
    fn collectors(&mut self, call: &Call<'_>) -> Result<Vec<Collector>, Failure> {
        let mut bodies = BTreeMap::new();
        let mut collectors = Vec::new();
        let mut there = Vec::new();
        for uid in self.members() {
            if let Some(seen) = self.look(uid, &mut bodies).filter(|s| s.is_ours) {
                if seen.is_connected {
                    there.push((uid, seen.report.clone()));
                }
                collectors.push(Collector {
                    id: uid.to_string(),
                    connected: seen.is_connected,
                    labels: seen.labels,
                    components: seen.components,
                    report: seen.report,
                    healthy: seen.healthy,
                });
            }
        }
        collectors.sort_by(|a, b| a.id.cmp(&b.id));
        if call.fence >= self.fence {
            self.sign_again(&there, call.key)?;
        }
        Ok(collectors)
    }

    fn offer(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
    ) -> Result<(), Failure> {
        self.obey(call)?;
        let mut bodies = BTreeMap::new();
        let mut wanted = Vec::new();
        for id in agents {
            let Ok(uid) = id.parse::<InstanceUid>() else {
                continue;
            };
            let Some(seen) = self.look(uid, &mut bodies) else {
                continue;
            };
            let wait_ms = self.hub.look(uid, |agent| {
                agent.wants(digest, &seen.report, self.offers.key(), now_ms())
            });
            wanted.extend(wait_ms.flatten().map(|wait_ms| (uid, wait_ms)));
        }
        self.make_offer(&wanted, digest, call.key)
    }

    fn reoffer(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
    ) -> Result<(), Failure> {
        self.obey(call)?;
        let uids = agents
            .iter()
            .filter_map(|id| id.parse::<InstanceUid>().ok());
        let wanted: Vec<_> = uids.map(|uid| (uid, AGAIN_MS)).collect();
        self.make_offer(&wanted, digest, call.key)
    }

    fn restart(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeSet<AgentId>, Failure> {
        self.obey(call)?;
        let now = now_ms();
        let mut told = BTreeSet::new();
        for id in agents {
            let Ok(uid) = id.parse::<InstanceUid>() else {
                continue;
            };
            let tell = |agent: &mut Agent| {
                let may = agent.can_restart() && agent.is_managed() && agent.is_connected(now);
                agent.restart |= may;
                may
            };
            if self.hub.with(uid, tell) == Some(true) {
                tracing::warn!(agent = id, key = call.key, "is to begin anew");
                told.insert(id.clone());
            }
        }
        Ok(told)
    }

    fn reports(
        &mut self,
        _call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, Report>, Failure> {
        let seen = self.seen(agents).into_iter();
        Ok(seen.map(|(id, seen)| (id, seen.report)).collect())
    }

    fn health(
        &mut self,
        _call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, (Report, Option<Sample>)>, Failure> {
        let now = now_ms();
        let wish = json!({
            "interval_ms": self.sample_ms,
            "duration_ms": SAMPLE_MS,
            "probe_interval_ms": self.probe_ms,
        });
        for id in agents {
            let Ok(uid) = id.parse::<InstanceUid>() else {
                continue;
            };
            self.hub.with(uid, |agent| {
                let is_new = agent
                    .state
                    .sample
                    .is_none_or(|s| s.at_ms + 3 * self.sample_ms < now);
                let is_over = agent.asked_ms < now + SAMPLE_MS / 2;
                if (is_over || is_new) && agent.peer.custom.contains(STATE) {
                    agent.asked_ms = now + SAMPLE_MS;
                    agent.question = Some(CustomMessage {
                        capability: STATE.to_owned(),
                        r#type: "sample".to_owned(),
                        data: wish.to_string().into_bytes(),
                    });
                }
            });
        }
        let seen = self.seen(agents).into_iter();
        Ok(seen.map(|(id, s)| (id, (s.report, s.sample))).collect())
    }

    fn promote(&mut self, call: &Call<'_>, generation: &Generation) -> Result<(), Failure> {
        self.obey(call)?;
        if self
            .hub
            .good(&self.group)
            .is_some_and(|g| g.number > generation.number)
        {
            return Err(Failure::Fenced);
        }
        let offer = self.offer_of(&generation.digest, call.key)?;
        self.hub.set_good(&self.group, generation.clone(), offer);
        self.audit.note(Entry::of_itself(
            &self.group,
            "promote",
            &format!("generation {} is {}", generation.number, generation.digest),
        ));
        Ok(())
    }

    fn alert(
        &mut self,
        _call: &Call<'_>,
        alert: Alert,
        text: &str,
        resolved: bool,
    ) -> Result<(), Failure> {
        let (group, name) = (&self.group, alert.name());
        let action = match resolved {
            true => {
                tracing::info!(group, alert = name, "is over: {text}");
                format!("resolved {name}")
            }
            false => {
                tracing::warn!(group, alert = name, "{text}");
                format!("alert {name}")
            }
        };
        self.audit.note(Entry::of_itself(group, &action, text));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
