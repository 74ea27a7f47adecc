//! What a server knows of an agent, and what the agent may say next.

use serde_json::Value;
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{
    AgentDescription, AgentToServer, AvailableComponents, ComponentHealth,
    ConnectionSettingsStatus, EffectiveConfig, RemoteConfigStatus, TextValue, agent,
};

/// Every bit that this version of the specification defines for agents.
const DEFINED: u64 = 0xffff;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every message.
    pub messages: Vec<AgentToServer>,
    /// The newest of each part.
    pub description: AgentDescription,
    /// Health.
    pub health: ComponentHealth,
    /// What is in force.
    pub effective: EffectiveConfig,
    /// What became of the newest configuration.
    pub remote: Option<RemoteConfigStatus>,
    /// What became of the newest settings.
    pub connection: Option<ConnectionSettingsStatus>,
    /// Its components.
    pub components: Option<AvailableComponents>,
    /// Messages of our own, as JSON.
    pub results: Vec<Value>,
    /// Requests for certificates.
    pub requests: Vec<Vec<u8>>,
    /// It has said farewell.
    pub gone: bool,
    pub(super) answered: bool,
    pub(super) full_asked: bool,
}

impl Seen {
    /// What is in force, as text.
    pub fn effective_text(&self) -> String {
        let map = self
            .effective
            .config_map
            .clone()
            .unwrap_or_default()
            .config_map;
        let bodies = map
            .values()
            .map(|f| String::from_utf8_lossy(&f.body).into_owned());
        bodies.collect::<Vec<_>>().join("\n")
    }

    /// Status and hash of the newest configuration.
    pub fn status(&self) -> (i32, String) {
        let status = self.remote.clone().unwrap_or_default();
        let hash = String::from_utf8_lossy(&status.last_remote_config_hash).into_owned();
        (status.status, hash)
    }

    /// Why the newest configuration is not in force.
    pub fn error(&self) -> String {
        self.remote.clone().unwrap_or_default().error_message
    }

    /// Status and hash of the newest settings.
    pub fn settings_status(&self) -> (i32, String) {
        let status = self.connection.clone().unwrap_or_default();
        let hash = String::from_utf8_lossy(&status.last_connection_settings_hash).into_owned();
        (status.status, hash)
    }

    /// An attribute of its description.
    pub fn attribute(&self, key: &str) -> Option<String> {
        let all = self.description.identifying_attributes.iter();
        let mut all = all.chain(&self.description.non_identifying_attributes);
        let value = all.find(|a| a.key == key)?.value.clone()?.value?;
        let TextValue::StringValue(text) = value;
        Some(text)
    }

    pub(super) fn takes_remote(&self, hash: &[u8]) -> bool {
        let last = self.messages.last().map_or(0, |m| m.capabilities);
        let known = self
            .remote
            .as_ref()
            .map(|r| r.last_remote_config_hash.as_slice());
        last & agent::ACCEPTS_REMOTE_CONFIG != 0 && known != Some(hash)
    }

    pub(super) fn takes_settings(&self, hash: &[u8]) -> bool {
        let last = self.messages.last().map_or(0, |m| m.capabilities);
        let known = self
            .connection
            .as_ref()
            .map(|c| c.last_connection_settings_hash.as_slice());
        last & agent::ACCEPTS_OPAMP_CONNECTION_SETTINGS != 0 && known != Some(hash)
    }

    /// The newest message is not answered: the agent cannot know that it arrived.
    pub(super) fn lost(&mut self) {
        self.answered = false;
    }

    /// Holds a message to the specification, and keeps what it says.
    pub(super) fn judge(
        &mut self,
        m: &AgentToServer,
        first: bool,
        announced: &[String],
        violations: &mut Vec<String>,
    ) {
        let number = m.sequence_num;
        let mut wrong = |what: &str| violations.push(format!("message {number}: {what}: {m:?}"));
        match InstanceUid::from_bytes(&m.instance_uid) {
            Some(uid) if uid.0[6] >> 4 == 7 => {}
            _ => wrong("instance_uid is no UUID of version 7"),
        }
        if let Some(last) = self.messages.last() {
            let again = !self.answered && number == last.sequence_num;
            // An agent that said farewell and comes again is a new process.
            let anew = self.gone && number == 0;
            if number != last.sequence_num + 1 && !again && !anew {
                wrong(&format!("sequence_num after {}", last.sequence_num));
            }
        }
        if m.capabilities & agent::REPORTS_STATUS == 0 || m.capabilities & !DEFINED != 0 {
            wrong("capabilities");
        }
        for (present, bit, name) in parts(m) {
            if present && bit != 0 && m.capabilities & bit == 0 {
                wrong(&format!("{name} without its capability"));
            }
        }
        let farewell = m.agent_disconnect.is_some();
        // A request says nothing about whether it is the first to this server; but after a farewell
        // everything is new.
        let begins = (self.messages.is_empty() && number == 0) || self.gone;
        let must_be_full = (first || self.full_asked || begins) && !farewell;
        for (present, bit, name) in parts(m) {
            let claimed = bit == 0 || m.capabilities & bit != 0;
            if must_be_full && claimed && !present {
                wrong(&format!("{name} is missing where everything is to be said"));
            }
        }
        if !must_be_full && self.answered {
            for (same, name) in self.same_parts(m) {
                if same {
                    wrong(&format!("{name} again without a change"));
                }
            }
        }
        if let Some(custom) = &m.custom_message
            && !announced.contains(&custom.capability)
        {
            wrong("a custom message of a capability that the server did not announce");
        }
        if m.flags != 0 {
            wrong("flags");
        }
        self.full_asked = self.messages.is_empty() && !first && !begins;
        self.keep(m, farewell);
    }

    /// The parts that say what was said before.
    fn same_parts(&self, m: &AgentToServer) -> [(bool, &'static str); 5] {
        fn same<T: PartialEq>(new: &Option<T>, old: &T) -> bool {
            new.as_ref() == Some(old)
        }
        let said = m.remote_config_status.is_some();
        let remote = said && m.remote_config_status == self.remote;
        let said = m.connection_settings_status.is_some();
        let connection = said && m.connection_settings_status == self.connection;
        [
            (
                same(&m.agent_description, &self.description),
                "agent_description",
            ),
            (same(&m.health, &self.health), "health"),
            (
                same(&m.effective_config, &self.effective),
                "effective_config",
            ),
            (remote, "remote_config_status"),
            (connection, "connection_settings_status"),
        ]
    }

    fn keep(&mut self, m: &AgentToServer, farewell: bool) {
        self.gone = farewell;
        if let Some(d) = &m.agent_description {
            self.description = d.clone();
        }
        if let Some(h) = &m.health {
            self.health = h.clone();
        }
        if let Some(e) = &m.effective_config {
            self.effective = e.clone();
        }
        self.remote = m.remote_config_status.clone().or(self.remote.take());
        self.connection = m
            .connection_settings_status
            .clone()
            .or(self.connection.take());
        if let Some(c) = &m.available_components {
            let listed = !c.components.is_empty() || self.components.is_none();
            if listed {
                self.components = Some(c.clone());
            }
        }
        if let Some(custom) = &m.custom_message {
            let value = serde_json::from_slice(&custom.data).unwrap_or(Value::Null);
            self.results.push(value);
        }
        let request = m.connection_settings_request.clone();
        let request = request.and_then(|r| r.opamp?.certificate_request);
        self.requests.extend(request.map(|r| r.csr));
        self.messages.push(m.clone());
    }
}

/// The parts of a message that can be left out, and the capabilities they need.
fn parts(m: &AgentToServer) -> [(bool, u64, &'static str); 6] {
    [
        (m.agent_description.is_some(), 0, "agent_description"),
        (m.health.is_some(), agent::REPORTS_HEALTH, "health"),
        (
            m.effective_config.is_some(),
            agent::REPORTS_EFFECTIVE_CONFIG,
            "effective_config",
        ),
        (
            m.remote_config_status.is_some(),
            agent::REPORTS_REMOTE_CONFIG,
            "remote_config_status",
        ),
        (
            m.available_components.is_some(),
            agent::REPORTS_AVAILABLE_COMPONENTS,
            "available_components",
        ),
        (
            m.connection_settings_status.is_some(),
            agent::REPORTS_CONNECTION_SETTINGS_STATUS,
            "connection_settings_status",
        ),
    ]
}
