//! The agent's side of the protocol, without input or output: what there is to say, what was said, and
//! what an answer asks for.
//!
//! What an agent says of itself is a set of parts ([`Report`]). A part is sent when it changed, all of
//! them after each connect and when the server asks for everything. Times are given from outside.
//!
//! Invariants: messages are numbered one after the other, a message that may not have arrived is made
//! again under its number; the status of a remote configuration is that of the newest offer; an offer is
//! handed out once, whatever is repeated; nothing is said that no capability was claimed for, nor what the
//! server said it does not take.

use std::time::Duration;

use crate::proto::{
    AgentDescription, AgentDisconnect, AgentRemoteConfig, AgentToServer, AvailableComponents,
    COMMAND_RESTART, ComponentHealth, ConnectionSettingsOffers, ConnectionSettingsRequest,
    ConnectionSettingsStatus, CustomCapabilities, CustomMessage, EffectiveConfig, ErrorDetails,
    ErrorKind, REPORT_AVAILABLE_COMPONENTS, REPORT_FULL_STATE, RemoteConfigStatus,
    ServerErrorResponse, ServerToAgent, Status, agent, server,
};
use crate::uid::InstanceUid;

/// Everything is said again at most this often, however often the server asks.
const FULL_STATE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest text of an error that is sent.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// Parts of what an agent says, as bits.
mod part {
    pub const DESCRIPTION: u16 = 1;
    pub const HEALTH: u16 = 1 << 1;
    pub const EFFECTIVE: u16 = 1 << 2;
    pub const REMOTE: u16 = 1 << 3;
    pub const CUSTOM: u16 = 1 << 4;
    pub const COMPONENTS: u16 = 1 << 5;
    pub const CONNECTION: u16 = 1 << 6;
    pub const RESULT: u16 = 1 << 7;
    pub const REQUEST: u16 = 1 << 8;
    pub const STATE: u16 = 1 << 9;
    pub const SOURCES: u16 = 1 << 10;
    pub const CHECK: u16 = 1 << 11;
    pub const ALL: u16 = (1 << 12) - 1;
}

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Who it is.
    pub description: AgentDescription,
    /// How it is.
    pub health: ComponentHealth,
    /// What is in force.
    pub effective: EffectiveConfig,
    /// Which components it has, all of them.
    pub components: AvailableComponents,
    /// What it can besides.
    pub custom: Vec<String>,
}

/// What an agent begins with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its name.
    pub uid: InstanceUid,
    /// Bits of [`agent`].
    pub capabilities: u64,
    /// What it says of itself.
    pub report: Report,
    /// What became of the newest remote configuration before it started.
    pub remote: RemoteConfigStatus,
    /// What became of the newest settings of the connection.
    pub connection: ConnectionSettingsStatus,
}

/// What an answer asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A configuration is to be put into force. [`Client::settle`] says what became of it; there is one
    /// at a time.
    Apply(AgentRemoteConfig),
    /// Other settings of the connection are offered. [`Client::connection_status`] says what became of
    /// them.
    Connection(Box<ConnectionSettingsOffers>),
    /// This is the agent's name from now on.
    Renamed(InstanceUid),
    /// The server has too much to do, perhaps for so long.
    Throttled(Option<Duration>),
    /// The server did not take what was said. It is not said again.
    Refused(String),
    /// A message of a capability that this agent has ([`Report::custom`]).
    Custom(CustomMessage),
    /// The agent is to end as by a signal, and to begin anew.
    Restart,
    /// The message is not for this agent, or asks for what was not claimed; which, for the log.
    Ignored(&'static str),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Client {
    uid: InstanceUid,
    /// Names that messages under way may still be for.
    former: Option<InstanceUid>,
    capabilities: u64,
    report: Report,
    remote: RemoteConfigStatus,
    connection: ConnectionSettingsStatus,
    result: Option<CustomMessage>,
    state: Option<CustomMessage>,
    sources: Option<CustomMessage>,
    check: Option<CustomMessage>,
    request: Option<ConnectionSettingsRequest>,
    /// Of the next message.
    sequence: u64,
    /// Parts that the server does not have as they are.
    due: u16,
    /// Health changed in what can wait for the next message.
    health_waits: bool,
    /// Parts of the message that was taken and not settled by `sent` or `lost`.
    taken: Option<u16>,
    /// Nothing was said over this connection.
    silent: bool,
    server: Option<u64>,
    server_custom: Vec<String>,
    list_components: bool,
    /// What is being put into force, by its hash.
    applying: Option<Vec<u8>>,
    /// What came in meanwhile.
    pending: Option<AgentRemoteConfig>,
    interval: Option<Duration>,
    /// When something was said last.
    spoke: Duration,
    /// When everything may be said again.
    full_from: Duration,
    full_wanted: bool,
}

impl Client {
    /// An agent that has said nothing.
    pub fn new(start: Start) -> Client {
        Client {
            uid: start.uid,
            former: None,
            capabilities: start.capabilities | agent::REPORTS_STATUS,
            report: start.report,
            remote: start.remote,
            connection: start.connection,
            result: None,
            state: None,
            sources: None,
            check: None,
            request: None,
            sequence: 0,
            due: part::ALL,
            health_waits: false,
            taken: None,
            silent: true,
            server: None,
            server_custom: Vec::new(),
            list_components: false,
            applying: None,
            pending: None,
            interval: None,
            spoke: Duration::ZERO,
            full_from: Duration::ZERO,
            full_wanted: false,
        }
    }

    /// Its name.
    pub fn uid(&self) -> InstanceUid {
        self.uid
    }

    /// A connection is there: everything is said over it first.
    pub fn connected(&mut self) {
        self.lost();
        self.silent = true;
        self.server = None;
        self.server_custom.clear();
        self.list_components = false;
        self.full_wanted = false;
    }

    /// How long nothing may be said; `None`: for ever.
    pub fn set_interval(&mut self, interval: Option<Duration>) {
        self.interval = interval;
    }

    /// Shows how the agent is. With `later` that is sent with whatever is sent next.
    pub fn set_health(&mut self, health: ComponentHealth, later: bool) {
        if self.report.health != health {
            self.report.health = health;
            match later {
                true => self.health_waits = true,
                false => self.due |= part::HEALTH,
            }
        }
    }

    /// Says who the agent is.
    pub fn set_description(&mut self, description: AgentDescription) {
        if self.report.description != description {
            self.report.description = description;
            self.due |= part::DESCRIPTION;
        }
    }

    /// Shows what is in force.
    pub fn set_effective(&mut self, effective: EffectiveConfig) {
        if self.report.effective != effective {
            self.report.effective = effective;
            self.due |= part::EFFECTIVE;
        }
    }

    /// Says, in a message of our own, what came of a configuration. The newest one counts.
    pub fn set_result(&mut self, result: CustomMessage) {
        if self.result.as_ref() != Some(&result) {
            self.result = Some(result);
            self.due |= part::RESULT;
        }
    }

    /// Says, in another message of our own, what runs and what it counts. The newest one counts.
    pub fn set_state(&mut self, state: CustomMessage) {
        if self.state.as_ref() != Some(&state) {
            self.state = Some(state);
            self.due |= part::STATE;
        }
    }

    /// Says, in another message of our own, what is read. The newest one counts.
    pub fn set_sources(&mut self, sources: CustomMessage) {
        if self.sources.as_ref() != Some(&sources) {
            self.sources = Some(sources);
            self.due |= part::SOURCES;
        }
    }

    /// Whether the server has announced a custom capability over this connection.
    pub fn is_announced(&self, capability: &str) -> bool {
        self.server_custom.iter().any(|c| c == capability)
    }

    /// Answers, in one more message of our own, a question of the server. The newest one counts.
    pub fn set_check(&mut self, check: CustomMessage) {
        self.check = Some(check);
        self.due |= part::CHECK;
    }

    /// Asks for settings, again after each connect until `None` is given.
    pub fn set_request(&mut self, request: Option<ConnectionSettingsRequest>) {
        if self.request != request {
            self.request = request;
            self.due |= part::REQUEST;
        }
    }

    /// Asks for the same settings once more.
    pub fn repeat_request(&mut self) {
        self.due |= part::REQUEST;
    }

    /// What became of the newest remote configuration.
    pub fn remote_status(&self) -> &RemoteConfigStatus {
        &self.remote
    }

    /// What is being put into force came into force, or did not; why. What was offered meanwhile is next.
    pub fn settle(&mut self, outcome: Result<(), String>) -> Option<Event> {
        let hash = self.applying.take()?;
        self.set_remote(hash.clone(), outcome);
        let next = self.pending.take()?;
        (next.config_hash != hash).then(|| self.apply(next))
    }

    /// The newest remote configuration is not in force any more although it was, for this reason; or it
    /// is again.
    pub fn set_in_force(&mut self, in_force: Result<(), String>) {
        let known = self.remote.status != Status::Unset as i32;
        if self.applying.is_none() && known {
            self.set_remote(self.remote.last_remote_config_hash.clone(), in_force);
        }
    }

    /// What became of offered settings.
    pub fn connection_status(&mut self, hash: Vec<u8>, status: Status, error: &str) {
        let new = ConnectionSettingsStatus {
            last_connection_settings_hash: hash,
            status: status as i32,
            error_message: cut(error),
        };
        if self.connection != new {
            self.connection = new;
            self.due |= part::CONNECTION;
        }
    }

    /// When there may be something to say though nothing happens; `None`: never.
    pub fn deadline(&self) -> Option<Duration> {
        let heartbeat = self.interval.map(|i| self.spoke + i);
        let full = self.full_wanted.then_some(self.full_from);
        heartbeat.into_iter().chain(full).min()
    }

    /// What is to be said now, if anything. It is settled by [`Client::sent`] or [`Client::lost`].
    pub fn take(&mut self, now: Duration) -> Option<AgentToServer> {
        if self.full_wanted && now >= self.full_from {
            self.full_wanted = false;
            self.full_from = now + FULL_STATE_INTERVAL;
            self.due = part::ALL;
        }
        let parts = self.due & self.welcome();
        let beat = self.interval.is_some_and(|i| now >= self.spoke + i);
        if self.taken.is_some() || (parts == 0 && !self.silent && !beat) {
            return None;
        }
        let parts = match self.health_waits {
            true => parts | part::HEALTH & self.welcome(),
            false => parts,
        };
        // A message holds one of our own.
        let parts = match parts {
            p if p & part::CHECK != 0 => p & !(part::RESULT | part::STATE | part::SOURCES),
            p if p & part::RESULT != 0 => p & !(part::STATE | part::SOURCES),
            p if p & part::STATE != 0 => p & !part::SOURCES,
            p => p,
        };
        self.health_waits &= parts & part::HEALTH == 0;
        self.spoke = now;
        self.taken = Some(parts);
        self.due &= !parts;
        Some(self.message(parts))
    }

    /// The message that was taken is on its way.
    pub fn sent(&mut self) {
        if let Some(parts) = self.taken.take() {
            self.sequence += 1;
            self.silent = false;
            self.list_components &= parts & part::COMPONENTS == 0;
        }
    }

    /// The message that was taken may not have arrived: the next one has its number, and everything.
    pub fn lost(&mut self) {
        self.taken = None;
        self.due = part::ALL;
    }

    /// The message that was taken is too large for either side: it is not sent, nor made again.
    pub fn discard(&mut self) {
        self.taken = None;
    }

    /// Goes on with a configuration that was being put into force when the agent ended.
    pub fn resume(&mut self, offer: AgentRemoteConfig) -> Event {
        self.apply(offer)
    }

    /// The last message there is to say.
    pub fn farewell(&mut self) -> AgentToServer {
        self.taken = Some(0);
        AgentToServer {
            agent_disconnect: Some(AgentDisconnect {}),
            ..self.message(0)
        }
    }

    /// The parts that this agent claims and the server takes, as far as that is known.
    fn welcome(&self) -> u16 {
        let claims = |bit, part| {
            if self.capabilities & bit != 0 {
                part
            } else {
                0
            }
        };
        let mut parts = part::DESCRIPTION;
        parts |= claims(agent::REPORTS_HEALTH, part::HEALTH);
        parts |= claims(agent::REPORTS_EFFECTIVE_CONFIG, part::EFFECTIVE);
        parts |= claims(agent::REPORTS_REMOTE_CONFIG, part::REMOTE);
        parts |= claims(agent::REPORTS_AVAILABLE_COMPONENTS, part::COMPONENTS);
        parts |= claims(agent::REPORTS_CONNECTION_SETTINGS_STATUS, part::CONNECTION);
        if !self.report.custom.is_empty() {
            parts |= part::CUSTOM;
        }
        let takes = |bit| self.server.is_some_and(|s| s & bit != 0);
        if self.server.is_some() && !takes(server::ACCEPTS_EFFECTIVE_CONFIG) {
            parts &= !part::EFFECTIVE;
        }
        if self.request.is_some() && takes(server::ACCEPTS_CONNECTION_SETTINGS_REQUEST) {
            parts |= part::REQUEST;
        }
        let is_taken = |own: &Option<CustomMessage>| {
            own.as_ref()
                .is_some_and(|m| self.server_custom.contains(&m.capability))
        };
        if is_taken(&self.result) {
            parts |= part::RESULT;
        }
        if is_taken(&self.state) {
            parts |= part::STATE;
        }
        if is_taken(&self.sources) {
            parts |= part::SOURCES;
        }
        if is_taken(&self.check) {
            parts |= part::CHECK;
        }
        parts
    }

    fn message(&self, parts: u16) -> AgentToServer {
        let has = |part: u16| parts & part != 0;
        let components = || AvailableComponents {
            components: match self.list_components {
                true => self.report.components.components.clone(),
                false => Default::default(),
            },
            hash: self.report.components.hash.clone(),
        };
        let custom = || CustomCapabilities {
            capabilities: self.report.custom.clone(),
        };
        AgentToServer {
            instance_uid: self.uid.0.to_vec(),
            sequence_num: self.sequence,
            capabilities: self.capabilities,
            agent_description: has(part::DESCRIPTION).then(|| self.report.description.clone()),
            health: has(part::HEALTH).then(|| self.report.health.clone()),
            effective_config: has(part::EFFECTIVE).then(|| self.report.effective.clone()),
            remote_config_status: has(part::REMOTE).then(|| self.remote.clone()),
            custom_capabilities: has(part::CUSTOM).then(custom),
            custom_message: match parts {
                p if p & part::CHECK != 0 => self.check.clone(),
                p if p & part::RESULT != 0 => self.result.clone(),
                p if p & part::STATE != 0 => self.state.clone(),
                p if p & part::SOURCES != 0 => self.sources.clone(),
                _ => None,
            },
            available_components: has(part::COMPONENTS).then(components),
            connection_settings_status: has(part::CONNECTION).then(|| self.connection.clone()),
            connection_settings_request: self.request.clone().filter(|_| has(part::REQUEST)),
            ..AgentToServer::default()
        }
    }

    /// Takes an answer, and says what it asks for.
    pub fn received(&mut self, message: ServerToAgent) -> Vec<Event> {
        let to = InstanceUid::from_bytes(&message.instance_uid);
        // One without an address is an answer on this agent's own connection.
        let ours = message.instance_uid.is_empty() || to == Some(self.uid) || to == self.former;
        if !ours {
            return vec![Event::Ignored("a message for another instance")];
        }
        if message.capabilities != 0 {
            self.server = Some(message.capabilities);
        }
        if let Some(error) = message.error_response {
            return vec![self.error(error)];
        }
        if let Some(command) = message.command {
            // All else in the message does not count then.
            let may = self.capabilities & agent::ACCEPTS_RESTART_COMMAND != 0;
            return vec![match command.r#type {
                COMMAND_RESTART if may => Event::Restart,
                COMMAND_RESTART => Event::Ignored("a restart, which this agent does not claim"),
                _ => Event::Ignored("a command that is not known"),
            }];
        }
        if let Some(custom) = message.custom_capabilities {
            self.server_custom = custom.capabilities;
            // It has not seen what it could not take before.
            self.due |= part::RESULT | part::STATE | part::SOURCES;
        }
        let mut events = Vec::new();
        if let Some(new) = message.agent_identification {
            events.extend(self.rename(&new.new_instance_uid));
        }
        if message.flags & REPORT_AVAILABLE_COMPONENTS != 0 {
            self.list_components = true;
            self.due |= part::COMPONENTS;
        }
        self.full_wanted |= message.flags & REPORT_FULL_STATE != 0;
        if let Some(custom) = message.custom_message {
            events.push(match self.report.custom.contains(&custom.capability) {
                true => Event::Custom(custom),
                false => Event::Ignored("a custom message of a capability that was not announced"),
            });
        }
        if let Some(offer) = message.remote_config {
            events.extend(self.offered(offer));
        }
        if let Some(offer) = message.connection_settings {
            events.extend(self.offered_settings(offer));
        }
        events
    }

    fn error(&mut self, error: ServerErrorResponse) -> Event {
        if error.r#type != ErrorKind::Unavailable as i32 {
            return Event::Refused(error.error_message);
        }
        self.due = part::ALL;
        Event::Throttled(error.details.map(|ErrorDetails::RetryInfo(info)| {
            Duration::from_nanos(info.retry_after_nanoseconds)
        }))
    }

    fn rename(&mut self, bytes: &[u8]) -> Option<Event> {
        let Some(new) = InstanceUid::from_bytes(bytes) else {
            return Some(Event::Ignored("a new instance uid that is not of 16 bytes"));
        };
        if new == self.uid {
            return None;
        }
        self.former = Some(self.uid);
        self.uid = new;
        // To the server this is an agent that it knows nothing of.
        self.due = part::ALL;
        self.silent = true;
        Some(Event::Renamed(new))
    }

    fn offered(&mut self, offer: AgentRemoteConfig) -> Option<Event> {
        if self.capabilities & agent::ACCEPTS_REMOTE_CONFIG == 0 {
            return Some(Event::Ignored(
                "a remote configuration, which is not accepted",
            ));
        }
        match &self.applying {
            Some(hash) if *hash == offer.config_hash => {
                self.pending = None;
                None
            }
            Some(_) => {
                self.pending = Some(offer);
                None
            }
            None => {
                let known = self.remote.status != Status::Unset as i32
                    && self.remote.last_remote_config_hash == offer.config_hash;
                (!known).then(|| self.apply(offer))
            }
        }
    }

    fn apply(&mut self, offer: AgentRemoteConfig) -> Event {
        self.applying = Some(offer.config_hash.clone());
        self.remote = RemoteConfigStatus {
            last_remote_config_hash: offer.config_hash.clone(),
            status: Status::Applying as i32,
            error_message: String::new(),
        };
        self.due |= part::REMOTE;
        Event::Apply(offer)
    }

    fn offered_settings(&mut self, offer: ConnectionSettingsOffers) -> Option<Event> {
        if self.capabilities & agent::ACCEPTS_OPAMP_CONNECTION_SETTINGS == 0 {
            return Some(Event::Ignored(
                "settings of connections, which are not accepted",
            ));
        }
        offer.opamp.as_ref()?;
        let known = self.connection.status != Status::Unset as i32
            && self.connection.last_connection_settings_hash == offer.hash;
        (!known).then(|| Event::Connection(Box::new(offer)))
    }

    fn set_remote(&mut self, hash: Vec<u8>, outcome: Result<(), String>) {
        let error = outcome.err();
        let new = RemoteConfigStatus {
            last_remote_config_hash: hash,
            status: match error {
                None => Status::Applied as i32,
                Some(_) => Status::Failed as i32,
            },
            error_message: cut(&error.unwrap_or_default()),
        };
        if self.remote != new {
            self.remote = new;
            self.due |= part::REMOTE;
        }
    }
}

/// A text of bounded length.
fn cut(text: &str) -> String {
    if text.len() <= ERROR_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=ERROR_BYTES_MAX)
        .rev()
        .find(|i| text.is_char_boundary(*i));
    format!("{}...", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests;
