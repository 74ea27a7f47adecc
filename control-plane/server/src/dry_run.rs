//! Whether agents would take a pipeline: an agent that can say so is asked before any is offered it. It checks and plans
//! it over its own configuration, by the rules of an offer, and touches nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_control_plane::model::Digest;
use tailwater_control_plane::rollout::ports::{Built, Call, Failure};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::CustomMessage;

use crate::hub::{Agent, Asked, Counts, DRY_RUN, Hub};
use crate::now_ms;
use crate::offers::Offers;

/// How long an attempt waits for the answer: the driver has a lease to renew.
const WAIT: Duration = Duration::from_secs(3);
/// How often it is looked whether there is one.
const LOOK: Duration = Duration::from_millis(20);
/// So many agents are asked, one after the other, before it goes on without an answer.
const AGENTS_MAX: usize = 3;

/// What is being asked.
struct Question {
    /// Of which command.
    key: String,
    uid: InstanceUid,
    id: String,
    /// Agents that were asked, this one included.
    asked: BTreeSet<InstanceUid>,
}

/// See the module's documentation.
pub struct DryRuns {
    /// The agents.
    pub hub: Arc<Hub>,
    /// How texts are offered.
    pub offers: Arc<Offers>,
    /// Of which group.
    pub group: String,
    question: Option<Question>,
}

impl DryRuns {
    /// Of the agents of a group.
    pub fn new(hub: Arc<Hub>, offers: Arc<Offers>, group: &str) -> DryRuns {
        DryRuns {
            hub,
            offers,
            group: group.to_owned(),
            question: None,
        }
    }

    /// All reasons of an agent to refuse it; none if it would take it, or if there is no agent that can say so.
    ///
    /// # Errors
    /// There is no answer yet.
    pub fn reasons(&mut self, call: &Call<'_>, built: &Built) -> Result<Vec<String>, Failure> {
        let (uid, id, count) = match self.question.as_ref().filter(|q| q.key == call.key) {
            Some(q) => (q.uid, q.id.clone(), q.asked.len()),
            None => match self.ask(call, built, BTreeSet::new())? {
                Some(asked) => asked,
                None => {
                    tracing::info!(
                        group = self.group,
                        key = call.key,
                        "no agent is there that could try it out; it is checked here alone"
                    );
                    return Ok(Vec::new());
                }
            },
        };
        if let Some(answer) = self.wait(uid, &id, WAIT.min(call.timeout)) {
            self.question = None;
            return Ok(self.said(uid, call, answer));
        }
        Counts::add(&self.hub.counts.dry_runs_silent);
        let former = self.question.take().map(|q| q.asked).unwrap_or_default();
        if count < AGENTS_MAX && self.ask(call, built, former)?.is_some() {
            let text = format!("agent {uid} does not say whether it would take it");
            return Err(Failure::Unavailable(text));
        }
        tracing::warn!(
            group = self.group,
            key = call.key,
            "no agent said whether it would take it; it is checked here alone"
        );
        Ok(Vec::new())
    }

    fn said(
        &self,
        uid: InstanceUid,
        call: &Call<'_>,
        answer: Result<usize, Vec<String>>,
    ) -> Vec<String> {
        let (agent, key) = (uid.to_string(), call.key);
        match answer {
            Ok(changes) => {
                Counts::add(&self.hub.counts.dry_runs_accepted);
                tracing::info!(agent, key, changes, "would take it");
                Vec::new()
            }
            Err(reasons) => {
                Counts::add(&self.hub.counts.dry_runs_refused);
                tracing::warn!(agent, key, ?reasons, "would refuse it");
                let reasons = match reasons.is_empty() {
                    true => vec!["it does not say why".to_owned()],
                    false => reasons,
                };
                let of = |reason: String| format!("agent {agent}: {reason}");
                reasons.into_iter().map(of).collect()
            }
        }
    }

    /// Asks an agent that was not asked. None if there is none.
    fn ask(
        &mut self,
        call: &Call<'_>,
        built: &Built,
        mut asked: BTreeSet<InstanceUid>,
    ) -> Result<Option<(InstanceUid, String, usize)>, Failure> {
        let Some(uid) = self.choose(built, &asked) else {
            return Ok(None);
        };
        let digest = Digest::of(built.body.as_bytes());
        let offer = self
            .offers
            .make(&self.group, &digest, &built.body, call.key)?;
        let files = offer.ours.config.clone().unwrap_or_default().config_map;
        let file = |(name, file): (String, tailwater_opamp::proto::AgentConfigFile)| {
            let body = String::from_utf8_lossy(&file.body).into_owned();
            json!({"name": name, "body": body, "content_type": file.content_type})
        };
        let id = format!("{}-{}", digest.short(), now_ms());
        let files: Vec<_> = files.into_iter().map(file).collect();
        let data = json!({"id": id, "files": files}).to_string().into_bytes();
        self.hub.with(uid, |agent| {
            let answer = None;
            agent.asked = Some(Asked {
                id: id.clone(),
                answer,
            });
            agent.dry_run = Some(CustomMessage {
                capability: DRY_RUN.to_owned(),
                r#type: "check".to_owned(),
                data,
            });
        });
        asked.insert(uid);
        let count = asked.len();
        self.question = Some(Question {
            key: call.key.to_owned(),
            uid,
            id: id.clone(),
            asked,
        });
        Ok(Some((uid, id, count)))
    }

    /// An agent that can say it, and has all that is needed.
    fn choose(&self, built: &Built, asked: &BTreeSet<InstanceUid>) -> Option<InstanceUid> {
        let now = now_ms();
        let fits = |agent: &Agent| {
            agent.group == self.group
                && agent.is_managed()
                && agent.is_connected(now)
                && agent.peer.custom.contains(DRY_RUN)
                && built.requires.is_subset(&agent.components(&built.requires))
        };
        let mut found: Option<InstanceUid> = None;
        self.hub.each(|uid, agent| {
            if fits(agent) && !asked.contains(&uid) && found.is_none_or(|f| uid < f) {
                found = Some(uid);
            }
        });
        found
    }

    fn wait(
        &self,
        uid: InstanceUid,
        id: &str,
        most: Duration,
    ) -> Option<Result<usize, Vec<String>>> {
        let begin = Instant::now();
        loop {
            let answer = self.hub.look(uid, |agent| {
                let asked = agent.asked.as_ref().filter(|a| a.id == id)?;
                asked.answer.clone()
            });
            if let Some(answer) = answer.flatten() {
                return Some(answer);
            }
            if begin.elapsed() >= most {
                return None;
            }
            std::thread::sleep(LOOK);
        }
    }
}
