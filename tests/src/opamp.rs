//! A server of OpAMP that holds an agent to every word of the specification: what an agent may not say, or
//! must say and does not, is kept as a violation.
//!
//! Source: `specification.md` of open-telemetry/opamp-spec, version 0.18.

mod seen;
mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{
    AgentConfigFile, AgentConfigMap, AgentIdentification, AgentRemoteConfig, AgentToServer,
    ConnectionSettingsOffers, CustomCapabilities, CustomMessage, ErrorDetails, ErrorKind,
    OpAmpConnectionSettings, REPORT_AVAILABLE_COMPONENTS, REPORT_FULL_STATE, RetryInfo,
    ServerErrorResponse, ServerToAgent, server,
};
use tokio::sync::{oneshot, watch};

pub use self::seen::Seen;
use crate::agent::free_addr;
use crate::wait;

/// Everything a server of this version can claim that this one does.
const CAPABILITIES: u64 = server::ACCEPTS_STATUS
    | server::OFFERS_REMOTE_CONFIG
    | server::ACCEPTS_EFFECTIVE_CONFIG
    | server::OFFERS_CONNECTION_SETTINGS
    | server::ACCEPTS_CONNECTION_SETTINGS_REQUEST;

/// What the server does with the next message instead of what it should.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Says that it has too much to do.
    Unavailable(Option<Duration>),
    /// Answers 503 with `Retry-After`, at the next request or handshake.
    Status503(u64),
    /// Says that the message is wrong.
    BadRequest,
    /// Closes the connection without an answer.
    Drop,
    /// Asks for everything.
    FullState,
    /// Asks for the list of components.
    Components,
    /// Gives the agent another name.
    Rename(InstanceUid),
    /// Has the agent begin anew.
    Restart,
    /// Says this besides.
    Say(CustomMessage),
}

/// What is wanted of agents.
#[derive(Clone, Default)]
struct Desired {
    remote: Option<AgentRemoteConfig>,
    connection: Option<ConnectionSettingsOffers>,
}

#[derive(Default)]
struct State {
    agents: BTreeMap<Vec<u8>, Seen>,
    violations: Vec<String>,
    faults: VecDeque<Fault>,
    desired: Desired,
    custom: Vec<String>,
    /// `Authorization` that requests must have, if one must.
    token: Option<String>,
    /// Connections, or requests, that were let in.
    let_in: usize,
    /// Requests under way.
    under_way: usize,
    /// When the agent was told to keep away until.
    away_until: Option<Instant>,
}

/// See the module's documentation. Ends when it is dropped.
pub struct OpAmpServer {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl OpAmpServer {
    /// Listens on any port.
    ///
    /// # Panics
    /// When there is none.
    pub fn start() -> OpAmpServer {
        OpAmpServer::start_at(free_addr())
    }

    /// Listens at an address.
    ///
    /// # Panics
    /// When it is not to be had.
    pub fn start_at(addr: SocketAddr) -> OpAmpServer {
        let state: Arc<Mutex<State>> = Arc::default();
        let (changed, changes) = watch::channel(0);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(addr).await.expect("a port");
                tell.send(listener.local_addr().expect("bound"))
                    .expect("it waits");
                tokio::select! {
                    () = serve::accept(listener, shared, changes) => {}
                    _ = stopped => {}
                }
            });
        });
        OpAmpServer {
            addr: told.recv().expect("it listens"),
            state,
            changed,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its URL with a scheme.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.addr)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Offers a configuration to all agents.
    pub fn offer(&self, hash: &str, files: &[(&str, &str)]) {
        let file = |(name, body): &(&str, &str)| {
            let file = AgentConfigFile {
                body: body.as_bytes().to_vec(),
                content_type: "text/yaml".into(),
            };
            ((*name).to_owned(), file)
        };
        let config_map = files.iter().map(file).collect();
        self.state().desired.remote = Some(AgentRemoteConfig {
            config: Some(AgentConfigMap { config_map }),
            config_hash: hash.as_bytes().to_vec(),
        });
        self.changed.send_modify(|n| *n += 1);
    }

    /// Offers settings of the connection to all agents.
    pub fn offer_settings(&self, hash: &str, settings: OpAmpConnectionSettings) {
        self.state().desired.connection = Some(ConnectionSettingsOffers {
            hash: hash.as_bytes().to_vec(),
            opamp: Some(settings),
        });
        self.changed.send_modify(|n| *n += 1);
    }

    /// Does this with one of the next messages.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// Announces custom capabilities to agents that come from now on.
    pub fn announce(&self, capability: &str) {
        self.state().custom.push(capability.to_owned());
    }

    /// Lets nobody in without this `Authorization`.
    pub fn require(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    /// How many connections, or requests, were let in.
    pub fn let_in(&self) -> usize {
        self.state().let_in
    }

    /// What it knows of the only agent there is.
    pub fn seen(&self) -> Option<Seen> {
        self.state().agents.values().last().cloned()
    }

    /// What it knows of an agent.
    pub fn seen_as(&self, uid: InstanceUid) -> Option<Seen> {
        self.state().agents.get(uid.0.as_slice()).cloned()
    }

    /// Waits until what it knows of an agent is as it should be, and gives that.
    ///
    /// # Panics
    /// When that takes longer than [`wait::BOUND`].
    pub fn wait(&self, what: &str, good: impl Fn(&Seen) -> bool) -> Seen {
        let mut last = None;
        let found = wait::for_some(wait::BOUND, || {
            last = self.seen();
            last.clone().filter(&good)
        });
        let violations = self.state().violations.clone();
        found.unwrap_or_else(|| panic!("{what}: {last:#?}\n{violations:#?}"))
    }

    /// Expects that nothing was against the specification.
    ///
    /// # Panics
    /// When something was.
    pub fn assert_strict(&self) {
        let violations = self.state().violations.clone();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

impl Drop for OpAmpServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    /// Takes a message and says what to answer; none: close the connection.
    fn take(&mut self, message: &AgentToServer, first: bool) -> Option<ServerToAgent> {
        let uid = message.instance_uid.clone();
        let seen = self.agents.entry(uid.clone()).or_default();
        let known = !seen.messages.is_empty();
        seen.judge(message, first, &self.custom, &mut self.violations);
        let mut answer = ServerToAgent {
            instance_uid: uid.clone(),
            capabilities: CAPABILITIES,
            custom_capabilities: (first || !known).then(|| CustomCapabilities {
                capabilities: self.custom.clone(),
            }),
            ..ServerToAgent::default()
        };
        let goes = message.agent_disconnect.is_some();
        let before_connect = matches!(self.faults.front(), Some(Fault::Status503(_)));
        if let Some(fault) = (!goes && !before_connect)
            .then(|| self.faults.pop_front())
            .flatten()
        {
            match self.faulty(fault, &uid, &mut answer) {
                Some(true) => return Some(answer),
                Some(false) => {}
                None => return None,
            }
        }
        let seen = self.agents.entry(uid).or_default();
        seen.answered = true;
        if seen.full_asked {
            answer.flags |= REPORT_FULL_STATE;
        }
        self.desired.add_to(seen, &mut answer);
        Some(answer)
    }

    /// True: the answer is all there is to say; none: there is no answer.
    fn faulty(&mut self, fault: Fault, uid: &[u8], answer: &mut ServerToAgent) -> Option<bool> {
        let error = |kind, details| ServerErrorResponse {
            r#type: kind as i32,
            error_message: "as the test wants it".into(),
            details,
        };
        match fault {
            Fault::Unavailable(after) => {
                let nanos = after.map(|a| u64::try_from(a.as_nanos()).expect("short"));
                let info = |n| {
                    ErrorDetails::RetryInfo(RetryInfo {
                        retry_after_nanoseconds: n,
                    })
                };
                *answer = ServerToAgent {
                    instance_uid: uid.to_vec(),
                    error_response: Some(error(ErrorKind::Unavailable, nanos.map(info))),
                    ..ServerToAgent::default()
                };
                self.away_until = after.map(|a| Instant::now() + a);
                self.agents.entry(uid.to_vec()).or_default().lost();
                Some(true)
            }
            Fault::BadRequest => {
                *answer = ServerToAgent {
                    instance_uid: uid.to_vec(),
                    error_response: Some(error(ErrorKind::BadRequest, None)),
                    ..ServerToAgent::default()
                };
                Some(true)
            }
            Fault::Drop | Fault::Status503(_) => {
                self.agents.entry(uid.to_vec()).or_default().lost();
                None
            }
            Fault::FullState => {
                self.agents.entry(uid.to_vec()).or_default().full_asked = true;
                Some(false)
            }
            Fault::Restart => {
                *answer = tailwater_opamp::restart(InstanceUid::from_bytes(uid)?);
                Some(true)
            }
            Fault::Say(message) => {
                answer.custom_message = Some(message);
                Some(false)
            }
            Fault::Components => {
                answer.flags = REPORT_AVAILABLE_COMPONENTS;
                Some(false)
            }
            Fault::Rename(new) => {
                answer.agent_identification = Some(AgentIdentification {
                    new_instance_uid: new.0.to_vec(),
                });
                let mut seen = self.agents.remove(uid).unwrap_or_default();
                seen.full_asked = true;
                self.agents.insert(new.0.to_vec(), seen);
                Some(true)
            }
        }
    }
}

impl Desired {
    /// Adds what an agent does not have by its own word: by the hash, whatever the status.
    fn add_to(&self, seen: &Seen, answer: &mut ServerToAgent) {
        let remote = self
            .remote
            .as_ref()
            .filter(|r| seen.takes_remote(&r.config_hash));
        answer.remote_config = remote.cloned();
        let settings = self
            .connection
            .as_ref()
            .filter(|c| seen.takes_settings(&c.hash));
        answer.connection_settings = settings.cloned();
    }

    /// What there is to say to an agent by itself.
    fn push(&self, seen: &Seen) -> Option<ServerToAgent> {
        let mut message = ServerToAgent {
            instance_uid: seen.messages.last()?.instance_uid.clone(),
            ..ServerToAgent::default()
        };
        self.add_to(seen, &mut message);
        let says = message.remote_config.is_some() || message.connection_settings.is_some();
        says.then_some(message)
    }
}
