//! The agents that are connected or known: what they said, and what they should run.
//!
//! No sockets and no clock: connections bring messages and take answers, times are arguments. One lock; nothing
//! waits under it.

mod agent;
mod arrivals;
mod streams;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tailwater_control_plane::report::CAPABILITY as SOURCES;
use tailwater_control_plane::rollout::model::Generation;
use tailwater_opamp::proto::{AgentToServer, ServerToAgent, Status, server};
use tailwater_opamp::{Files, InstanceUid, Peer, Welcome, restart, unavailable};
use tokio::sync::{Notify, oneshot};

pub use self::agent::{Agent, Asked, Desired, OwnState, Ran, is_group};
pub use self::arrivals::Arrivals;
use crate::offers::Offer;

/// Our own message of what runs and what it counts. See `docs/OPAMP.md`.
pub const STATE: &str = "io.tailwater.state/v1";
/// Our own question whether a configuration would be taken. See `docs/OPAMP.md`.
pub const DRY_RUN: &str = "io.tailwater.dry-run/v1";
/// Whom to come back to when there is no room.
const FULL_RETRY: Duration = Duration::from_secs(60);
/// An agent that asks over HTTP and did not for so long is away, ms.
const POLL_MS_MAX: u64 = 90_000;

/// What is counted, from the start of the process.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages of agents.
    pub received: AtomicU64,
    /// Messages to agents.
    pub sent: AtomicU64,
    /// Messages that are none, too large, or of a wrong kind.
    pub refused: AtomicU64,
    /// Times that everything was asked for because something was missing.
    pub gaps: AtomicU64,
    /// Agents that got another name because theirs was taken.
    pub conflicts: AtomicU64,
    /// Configurations that were offered.
    pub offers: AtomicU64,
    /// Offers that an agent refused.
    pub offers_refused: AtomicU64,
    /// Connections under a name that is not that of their certificate, or whose certificate was revoked.
    pub strangers: AtomicU64,
    /// Agents that were turned away for lack of room.
    pub full: AtomicU64,
    /// Reports of what agents read.
    pub reports: AtomicU64,
    /// Of these, none that can be read or kept.
    pub reports_refused: AtomicU64,
    /// Agents that were told to begin anew.
    pub restarts: AtomicU64,
    /// Dry runs that an agent accepted.
    pub dry_runs_accepted: AtomicU64,
    /// Dry runs that an agent refused.
    pub dry_runs_refused: AtomicU64,
    /// Dry runs that an agent did not answer in time.
    pub dry_runs_silent: AtomicU64,
}

impl Counts {
    /// One more.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who waits at the other end of a connection.
#[derive(Debug)]
struct Connection {
    id: u64,
    /// Woken when there is something to say, or when it is to end. None for requests over HTTP.
    wake: Option<Arc<Notify>>,
    /// Wants to know whether it lives.
    challenger: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Inner {
    agents: HashMap<InstanceUid, Box<Agent>>,
    /// Effective configurations: many agents have the same.
    shown: HashSet<Arc<Files>>,
    connections: u64,
    good: HashMap<String, (Generation, Arc<Offer>)>,
}

/// See the module's documentation.
pub struct Hub {
    inner: Mutex<Inner>,
    welcome: Welcome,
    agents_max: usize,
    /// What is counted.
    pub counts: Counts,
}

/// How a connection wants to speak for an agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// It takes the place of another one.
    pub anyway: bool,
    /// It has shown all that an agent has to show.
    pub is_enrolled: bool,
}

/// An answer, and what else there is to do.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub message: ServerToAgent,
    /// The agent wants a certificate: its request.
    pub request: Option<Vec<u8>>,
}

/// What became of the wish to speak for an agent.
pub enum Attached {
    /// The connection of this number speaks for it.
    As(u64),
    /// Another one does. It lives if this is answered; if it is dropped or not answered, it does not.
    Taken(oneshot::Receiver<()>),
    /// There is no room for another agent.
    Full,
}

impl Hub {
    /// A hub for at most so many agents. With `issues`, agents are told that they can ask for certificates.
    pub fn new(agents_max: usize, issues: bool) -> Hub {
        let settings = match issues {
            true => {
                server::OFFERS_CONNECTION_SETTINGS | server::ACCEPTS_CONNECTION_SETTINGS_REQUEST
            }
            false => 0,
        };
        Hub {
            inner: Mutex::default(),
            welcome: Welcome {
                capabilities: server::ACCEPTS_STATUS
                    | server::OFFERS_REMOTE_CONFIG
                    | server::ACCEPTS_EFFECTIVE_CONFIG
                    | settings,
                custom: vec![STATE.to_owned(), DRY_RUN.to_owned(), SOURCES.to_owned()],
            },
            agents_max,
            counts: Counts::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection wants to speak for an agent. With `anyway` it takes the place of another one, and so does one that
    /// has the certificate of the agent where the other has none.
    pub fn attach(
        &self,
        uid: InstanceUid,
        wake: Option<Arc<Notify>>,
        how: How,
        now_ms: u64,
    ) -> Attached {
        let mut inner = self.lock();
        inner.connections += 1;
        let id = inner.connections;
        if !inner.agents.contains_key(&uid) && !make_room(&mut inner, self.agents_max) {
            Counts::add(&self.counts.full);
            return Attached::Full;
        }
        let agent = inner.agents.entry(uid);
        let agent = agent.or_insert_with(|| Box::new(Agent::new(now_ms)));
        if let Some(other) = agent.connection.as_mut().filter(|c| c.wake.is_some()) {
            if !(how.anyway || how.is_enrolled && !agent.is_enrolled) {
                let (tell, told) = oneshot::channel();
                // The former one that wanted to know gets no answer, and comes in its turn.
                other.challenger = Some(tell);
                if let Some(wake) = &other.wake {
                    wake.notify_one();
                }
                return Attached::Taken(told);
            }
            if let Some(wake) = &other.wake {
                wake.notify_one();
            }
        }
        let is_same = wake.is_none() && agent.connection.is_some();
        agent.is_enrolled = how.is_enrolled;
        agent.connection = Some(Connection {
            id,
            wake,
            challenger: None,
        });
        if !is_same {
            agent.peer.connected();
            agent.restart = false;
            // It may be another process of it, which runs something else.
            agent.state = OwnState::default();
        }
        Attached::As(id)
    }

    /// A connection is over. What the agent should run stays.
    pub fn detach(&self, uid: InstanceUid, connection: u64, now_ms: u64) {
        let mut inner = self.lock();
        let Some(agent) = inner.agents.get_mut(&uid) else {
            return;
        };
        if agent
            .connection
            .as_ref()
            .is_some_and(|c| c.id == connection)
        {
            agent.connection = None;
            agent.seen_ms = now_ms;
            agent.state.sample = None;
        }
    }

    /// Something came over a connection: it lives. False if it does not speak for the agent any more.
    pub fn lives(&self, uid: InstanceUid, connection: u64) -> bool {
        let mut inner = self.lock();
        let agent = inner.agents.get_mut(&uid);
        let own = agent
            .and_then(|a| a.connection.as_mut())
            .filter(|c| c.id == connection);
        let Some(own) = own else {
            return false;
        };
        if let Some(challenger) = own.challenger.take() {
            // Who does not wait any more has gone.
            let _ = challenger.send(());
        }
        true
    }

    /// Takes a message of an agent, and gives the answer. None if another connection speaks for it.
    pub fn received(
        &self,
        uid: InstanceUid,
        connection: u64,
        message: AgentToServer,
        now_ms: u64,
    ) -> Option<Reply> {
        Counts::add(&self.counts.received);
        if !self.lives(uid, connection) {
            return None;
        }
        let mut inner = self.lock();
        let Inner {
            agents,
            good,
            shown,
            ..
        } = &mut *inner;
        let count = agents.len();
        let agent = agents.get_mut(&uid)?;
        let is_known = agent.is_described();
        let heard = agent.received(message, now_ms);
        if heard.gap && is_known {
            Counts::add(&self.counts.gaps);
        }
        if let Some(what) = heard.unclaimed {
            tracing::debug!(%uid, "an agent says what it did not claim: {what}");
        }
        if heard.answered
            && let Some((_, Status::Failed, why)) = agent.peer.answer_to_offer()
        {
            Counts::add(&self.counts.offers_refused);
            tracing::warn!(%uid, "an agent refused what it was offered: {why}");
        }
        if let Some(failed) = heard.settings.filter(|s| s.status == Status::Failed as i32) {
            let why = failed.error_message;
            tracing::warn!(%uid, "an agent cannot use the certificate that it was given: {why}");
        }
        if heard.effective {
            share(shown, &mut agent.peer, count);
        }
        if heard.farewell {
            agent.connection = None;
            agent.state.sample = None;
        }
        if agent.restart && !heard.farewell {
            agent.restart = false;
            Counts::add(&self.counts.restarts);
            Counts::add(&self.counts.sent);
            return Some(Reply {
                message: restart(uid),
                request: heard.request,
            });
        }
        agent.follow(good.get(&agent.group), now_ms);
        let desired = agent.desired.as_ref().map(|d| d.offer.clone());
        let desired = desired.as_deref().filter(|_| agent.is_enrolled);
        let desired = desired.map(|offer| agent.offer_of(offer));
        let mut answer = agent.peer.answer(&self.welcome, uid, None, desired);
        if answer.remote_config.is_some() {
            Counts::add(&self.counts.offers);
        }
        // The agent takes what it has been greeted with.
        if agent.is_ours() {
            answer.custom_message = agent.next_question();
        }
        answer.connection_settings = agent.settings.take().map(|s| *s);
        Counts::add(&self.counts.sent);
        Some(Reply {
            message: answer,
            request: heard.request,
        })
    }

    /// Whether a message over HTTP is of another process than the one whose name this is.
    pub fn is_other(&self, uid: InstanceUid, message: &AgentToServer, now_ms: u64) -> bool {
        let mut inner = self.lock();
        let agent = inner.agents.get_mut(&uid);
        agent.is_some_and(|a| a.streams.hear(message.sequence_num, now_ms, POLL_MS_MAX))
    }

    /// Nobody speaks for an agent any more; a connection that does is woken, and ends.
    pub fn expel(&self, uid: InstanceUid) {
        let mut inner = self.lock();
        let agent = inner.agents.get_mut(&uid);
        if let Some(connection) = agent.and_then(|a| a.connection.take())
            && let Some(wake) = connection.wake
        {
            wake.notify_one();
        }
    }

    /// The answer to the first message of an agent whose name is taken: another name.
    pub fn renamed(
        &self,
        uid: InstanceUid,
        message: AgentToServer,
        new: InstanceUid,
    ) -> ServerToAgent {
        Counts::add(&self.counts.conflicts);
        Counts::add(&self.counts.sent);
        let mut stranger = Peer::default();
        stranger.received(message);
        stranger.answer(&self.welcome, uid, Some(new), None)
    }

    /// The answer when there is no room.
    pub fn full(uid: InstanceUid) -> ServerToAgent {
        unavailable(&uid.0, "there is no room for another agent", FULL_RETRY)
    }

    /// What to say over a connection without having been asked. `Err` if it is to end.
    ///
    /// # Errors
    /// Another connection speaks for the agent.
    pub fn push(&self, uid: InstanceUid, connection: u64) -> Result<Push, Ended> {
        let mut inner = self.lock();
        let agent = inner.agents.get_mut(&uid).ok_or(Ended)?;
        let own = agent.connection.as_ref().filter(|c| c.id == connection);
        let is_challenged = own.ok_or(Ended)?.challenger.is_some();
        if std::mem::take(&mut agent.restart) {
            Counts::add(&self.counts.restarts);
            Counts::add(&self.counts.sent);
            let message = Some(restart(uid));
            return Ok(Push {
                message,
                is_challenged,
            });
        }
        let desired = agent.desired.as_ref().map(|d| d.offer.clone());
        let desired = desired.as_deref().filter(|_| agent.is_enrolled);
        let desired = desired.map(|offer| agent.offer_of(offer));
        let is_greeted = agent.is_ours();
        let question = match is_greeted {
            true => agent.next_question(),
            false => None,
        };
        let mut message = agent.peer.push(uid, desired, question);
        if let Some(settings) = agent.settings.take() {
            let message = message.get_or_insert_with(|| ServerToAgent {
                instance_uid: uid.0.to_vec(),
                ..ServerToAgent::default()
            });
            message.connection_settings = Some(*settings);
        }
        if let Some(message) = &message {
            Counts::add(&self.counts.sent);
            if message.remote_config.is_some() {
                Counts::add(&self.counts.offers);
            }
        }
        Ok(Push {
            message,
            is_challenged,
        })
    }

    /// Looks at an agent, or changes what its connection has nothing to say about.
    pub fn look<T>(&self, uid: InstanceUid, work: impl FnOnce(&mut Agent) -> T) -> Option<T> {
        self.lock().agents.get_mut(&uid).map(|agent| work(agent))
    }

    /// Does something with an agent, and wakes its connection if there may be something to say.
    pub fn with<T>(&self, uid: InstanceUid, work: impl FnOnce(&mut Agent) -> T) -> Option<T> {
        let mut inner = self.lock();
        let agent = inner.agents.get_mut(&uid)?;
        let done = work(agent);
        let wants = agent.has_question()
            || agent.desired.is_some()
            || agent.settings.is_some()
            || agent.restart;
        if let Some(wake) = agent.connection.as_ref().and_then(|c| c.wake.as_ref())
            && wants
        {
            wake.notify_one();
        }
        Some(done)
    }

    /// The newest report of what it reads of each agent that made one since this was asked last.
    pub fn take_reports(&self) -> Vec<(InstanceUid, Vec<u8>)> {
        let mut inner = self.lock();
        let agents = inner.agents.iter_mut();
        agents
            .filter_map(|(uid, agent)| Some((*uid, agent.sources_said.take()?)))
            .collect()
    }

    /// Reports that could not be taken, for the next time; a newer one of an agent takes the place of its own.
    pub fn give_back(&self, reports: impl IntoIterator<Item = (InstanceUid, Vec<u8>)>) {
        let mut inner = self.lock();
        for (uid, data) in reports {
            if let Some(agent) = inner.agents.get_mut(&uid) {
                agent.sources_said.get_or_insert(data);
            }
        }
    }

    /// Every agent is asked for everything, with the answer to its next message.
    pub fn ask_all(&self) {
        let mut inner = self.lock();
        inner.agents.values_mut().for_each(|a| a.peer.ask_all());
    }

    /// Whether an agent is known.
    pub fn knows(&self, uid: InstanceUid) -> bool {
        self.lock().agents.contains_key(&uid)
    }

    /// Looks at all agents.
    pub fn each(&self, mut look: impl FnMut(InstanceUid, &Agent)) {
        let inner = self.lock();
        for (uid, agent) in &inner.agents {
            look(*uid, agent);
        }
    }

    /// What agents of a group that connect are to run.
    pub fn set_good(&self, group: &str, generation: Generation, offer: Arc<Offer>) {
        let mut inner = self.lock();
        inner.good.insert(group.to_owned(), (generation, offer));
    }

    /// What was promoted in a group since the start of the process.
    pub fn good(&self, group: &str) -> Option<Generation> {
        Some(self.lock().good.get(group)?.0.clone())
    }

    /// Forgets agents that are away for so long.
    pub fn forget(&self, away_ms: u64, now_ms: u64) {
        let mut inner = self.lock();
        inner
            .agents
            .retain(|_, a| a.is_connected(now_ms) || a.seen_ms + away_ms > now_ms);
    }
}

/// What to say over a connection.
pub struct Push {
    /// A message.
    pub message: Option<ServerToAgent>,
    /// Somebody wants to know whether the other end lives: it is to be asked.
    pub is_challenged: bool,
}

/// The connection speaks for nobody any more.
#[derive(Debug)]
pub struct Ended;

/// What is the same is kept once.
fn share(shown: &mut HashSet<Arc<Files>>, peer: &mut Peer, agents: usize) {
    let Some(files) = &mut peer.effective else {
        return;
    };
    match shown.get(files) {
        Some(known) => *files = known.clone(),
        None => {
            if shown.len() > 2 * agents {
                shown.retain(|files| Arc::strong_count(files) > 1);
            }
            shown.insert(files.clone());
        }
    }
}

/// Whether there is room, after the agent that is away for longest made it.
fn make_room(inner: &mut Inner, max: usize) -> bool {
    if inner.agents.len() < max {
        return true;
    }
    let away = inner.agents.iter().filter(|(_, a)| a.connection.is_none());
    let oldest = away.min_by_key(|(_, a)| a.seen_ms).map(|(uid, _)| *uid);
    oldest.is_some_and(|uid| inner.agents.remove(&uid).is_some())
}

#[cfg(test)]
mod tests;
