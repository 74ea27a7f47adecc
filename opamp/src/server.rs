//! What a server knows of one agent, and what it answers, without input or output.
//!
//! Invariants: what an agent left out is as it was; after a gap in the numbers of its messages everything is
//! asked for, unless it was said; a configuration is offered if the agent's newest answer is about another one,
//! whatever that answer was, and once over a connection until it is answered; nothing is offered that the agent
//! does not take, nor believed that it did not claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::proto::{
    AgentDescription, AgentIdentification, AgentRemoteConfig, AgentToServer, AvailableComponents,
    COMMAND_RESTART, ComponentHealth, ConnectionSettingsStatus, CustomCapabilities, CustomMessage,
    EffectiveConfig, ErrorDetails, ErrorKind, KeyValue, REPORT_AVAILABLE_COMPONENTS,
    REPORT_FULL_STATE, RemoteConfigStatus, RetryInfo, ServerErrorResponse, ServerToAgent,
    ServerToAgentCommand, Status, TextValue, agent,
};
use crate::uid::InstanceUid;

/// So many attributes, capabilities of its own, parts of health of each level are kept.
const ENTRIES_MAX: usize = 256;
/// So many components are kept.
const COMPONENTS_MAX: usize = 4096;
/// Longest text that is kept of an attribute, an error or a name, bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// A larger effective configuration is not kept, bytes.
const EFFECTIVE_BYTES_MAX: usize = 256 << 10;

/// What a server says to each agent that comes.
#[derive(Clone, Debug, Default)]
pub struct Welcome {
    /// Bits of [`crate::proto::server`].
    pub capabilities: u64,
    /// What it can besides.
    pub custom: Vec<String>,
}

/// What was new in a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// The agent says no more.
    pub farewell: bool,
    /// Messages before it are missing, or it has a number for the second time.
    pub gap: bool,
    /// It answered an offer: the newest one that it knows.
    pub answered: bool,
    /// Another configuration is in force.
    pub effective: bool,
    /// A message that the specification does not know.
    pub custom: Option<CustomMessage>,
    /// It wants a certificate: its request, PEM as it came.
    pub request: Option<Vec<u8>>,
    /// What became of settings of the connection that were offered.
    pub settings: Option<ConnectionSettingsStatus>,
    /// What it said without having claimed it; it was left out.
    pub unclaimed: Option<&'static str>,
}

/// What an agent says is in force, file by file.
pub type Files = BTreeMap<String, Vec<u8>>;

/// How something is, as far as it is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// It does what it is there for.
    pub healthy: bool,
    /// As the collector names it.
    pub status: Box<str>,
    /// What is wrong.
    pub last_error: Box<str>,
    /// Its parts, by name.
    pub parts: Box<[(Box<str>, Health)]>,
}

/// See the module's documentation. Small, as a server has thousands of them.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    sequence: Option<u64>,
    capabilities: u64,
    /// What tells it from others.
    pub identifying: BTreeMap<String, String>,
    /// Where it runs.
    pub others: BTreeMap<String, String>,
    /// How it is.
    pub health: Option<Health>,
    /// What is in force; none if it is too large to be kept. Whoever has many peers may share what is the same.
    pub effective: Option<Arc<Files>>,
    /// What became of the newest offer.
    pub remote: Option<RemoteConfigStatus>,
    /// What it can besides.
    pub custom: BTreeSet<String>,
    /// Its components as `receivers/otlp`; none as long as it has not listed them.
    pub components: Option<BTreeSet<String>>,
    components_hash: Vec<u8>,
    /// Something was said over this connection.
    greeted: bool,
    described: bool,
    wants_full: bool,
    /// Somebody wants to hear everything again, whatever was heard.
    asks_all: bool,
    wants_list: bool,
    /// What was offered over this connection and not answered.
    offered: Option<Vec<u8>>,
}

impl Peer {
    /// It came over another connection: it is greeted again, and what it was offered may have got lost.
    pub fn connected(&mut self) {
        self.greeted = false;
        self.offered = None;
    }

    /// Everything is asked for with the next answer, also what it has said already.
    pub fn ask_all(&mut self) {
        self.asks_all = true;
    }

    /// Whether it claims all of these bits of [`agent`].
    pub fn claims(&self, bits: u64) -> bool {
        self.capabilities & bits == bits
    }

    /// Whether a configuration can be offered, and it can be seen what becomes of it.
    pub fn is_configurable(&self) -> bool {
        self.claims(
            agent::ACCEPTS_REMOTE_CONFIG
                | agent::REPORTS_REMOTE_CONFIG
                | agent::REPORTS_EFFECTIVE_CONFIG,
        )
    }

    /// The hash of the newest offer that it answered or took, and its answer.
    pub fn answer_to_offer(&self) -> Option<(&[u8], Status, &str)> {
        let remote = self.remote.as_ref()?;
        let status = Status::try_from(remote.status).ok()?;
        let is_any = status != Status::Unset && !remote.last_remote_config_hash.is_empty();
        is_any.then_some((
            &remote.last_remote_config_hash[..],
            status,
            &remote.error_message[..],
        ))
    }

    /// The hash of what was offered over this connection and not answered.
    pub fn offered(&self) -> Option<&[u8]> {
        self.offered.as_deref()
    }

    /// Takes a message.
    pub fn received(&mut self, message: AgentToServer) -> Heard {
        let mut heard = Heard {
            farewell: message.agent_disconnect.is_some(),
            ..Heard::default()
        };
        let follows = self
            .sequence
            .is_some_and(|s| message.sequence_num == s.wrapping_add(1));
        heard.gap = !follows;
        if heard.gap {
            // Another process, or answers got lost: what was said may not have been heard.
            self.connected();
        }
        self.sequence = Some(message.sequence_num);
        self.capabilities = message.capabilities;
        // Everything, as far as it is claimed.
        let is_whole = message.agent_description.is_some()
            && (message.health.is_some() || !self.claims(agent::REPORTS_HEALTH))
            && (message.effective_config.is_some()
                || !self.claims(agent::REPORTS_EFFECTIVE_CONFIG))
            && (message.remote_config_status.is_some()
                || !self.claims(agent::REPORTS_REMOTE_CONFIG));
        let is_lost = heard.gap || !self.described;
        self.wants_full = is_lost && !is_whole && !heard.farewell;
        if let Some(description) = message.agent_description {
            self.described = true;
            self.describe(description);
        }
        let claimed = |bit, what: &'static str, heard: &mut Heard| {
            let claims = message.capabilities & bit != 0;
            if !claims {
                heard.unclaimed = Some(what);
            }
            claims
        };
        if let Some(health) = message.health
            && claimed(agent::REPORTS_HEALTH, "health", &mut heard)
        {
            self.health = Some(bounded(health, 2));
        }
        if let Some(effective) = message.effective_config
            && claimed(
                agent::REPORTS_EFFECTIVE_CONFIG,
                "effective_config",
                &mut heard,
            )
        {
            let new = files(effective);
            heard.effective = self.effective != new;
            self.effective = new;
        }
        if let Some(mut status) = message.remote_config_status
            && claimed(
                agent::REPORTS_REMOTE_CONFIG,
                "remote_config_status",
                &mut heard,
            )
        {
            cut(&mut status.error_message);
            status.last_remote_config_hash.truncate(TEXT_BYTES_MAX);
            heard.answered = self.remote.as_ref() != Some(&status);
            if self.offered.as_ref() == Some(&status.last_remote_config_hash) {
                self.offered = None;
            }
            self.remote = Some(status);
        }
        if let Some(components) = message.available_components
            && claimed(
                agent::REPORTS_AVAILABLE_COMPONENTS,
                "available_components",
                &mut heard,
            )
        {
            self.list(components);
        }
        if let Some(custom) = message.custom_capabilities {
            let names = custom.capabilities.into_iter().take(ENTRIES_MAX);
            self.custom = names.filter(|n| n.len() <= TEXT_BYTES_MAX).collect();
        }
        if let Some(mut status) = message.connection_settings_status
            && claimed(
                agent::REPORTS_CONNECTION_SETTINGS_STATUS,
                "connection_settings_status",
                &mut heard,
            )
        {
            cut(&mut status.error_message);
            heard.settings = Some(status);
        }
        let wanted = message.connection_settings_request.and_then(|r| r.opamp);
        heard.request = wanted.and_then(|o| o.certificate_request).map(|c| c.csr);
        heard.custom = message.custom_message;
        heard
    }

    fn describe(&mut self, description: AgentDescription) {
        self.identifying = texts(description.identifying_attributes);
        self.others = texts(description.non_identifying_attributes);
    }

    fn list(&mut self, available: AvailableComponents) {
        let mut names = BTreeSet::new();
        for (kind, details) in &available.components {
            let kinds = details.sub_component_map.keys();
            names.extend(
                kinds
                    .map(|name| format!("{kind}/{name}"))
                    .take(COMPONENTS_MAX),
            );
        }
        names = names.into_iter().take(COMPONENTS_MAX).collect();
        if !names.is_empty() {
            self.components = Some(names);
        } else if available.hash != self.components_hash {
            self.components = None;
        }
        self.components_hash = available.hash;
        self.wants_list = self.components.is_none() && !self.components_hash.is_empty();
    }

    /// What to answer to the message that was taken. `desired` is what the agent should run, if anybody said
    /// so; `uid` is whose this is; `other` is another name for it.
    pub fn answer(
        &mut self,
        welcome: &Welcome,
        uid: InstanceUid,
        other: Option<InstanceUid>,
        desired: Option<&AgentRemoteConfig>,
    ) -> ServerToAgent {
        let mut flags = 0;
        let asked = std::mem::take(&mut self.asks_all);
        if std::mem::take(&mut self.wants_full) || asked {
            flags |= REPORT_FULL_STATE;
        }
        if std::mem::take(&mut self.wants_list) {
            flags |= REPORT_AVAILABLE_COMPONENTS;
        }
        let is_first = !std::mem::replace(&mut self.greeted, true);
        let custom = || CustomCapabilities {
            capabilities: welcome.custom.clone(),
        };
        ServerToAgent {
            instance_uid: uid.0.to_vec(),
            flags,
            capabilities: welcome.capabilities,
            custom_capabilities: (is_first && !welcome.custom.is_empty()).then(custom),
            agent_identification: other.map(|new| AgentIdentification {
                new_instance_uid: new.0.to_vec(),
            }),
            remote_config: match other {
                Some(_) => None,
                None => self.offer(desired),
            },
            ..ServerToAgent::default()
        }
    }

    /// What to say without having been asked, if anything.
    pub fn push(
        &mut self,
        uid: InstanceUid,
        desired: Option<&AgentRemoteConfig>,
        custom: Option<CustomMessage>,
    ) -> Option<ServerToAgent> {
        let remote_config = match self.greeted {
            true => self.offer(desired),
            false => None,
        };
        if remote_config.is_none() && custom.is_none() {
            return None;
        }
        Some(ServerToAgent {
            instance_uid: uid.0.to_vec(),
            remote_config,
            custom_message: custom,
            ..ServerToAgent::default()
        })
    }

    fn offer(&mut self, desired: Option<&AgentRemoteConfig>) -> Option<AgentRemoteConfig> {
        let desired = desired.filter(|_| self.claims(agent::ACCEPTS_REMOTE_CONFIG))?;
        let hash = &desired.config_hash;
        let is_known = self.answer_to_offer().is_some_and(|(h, ..)| h == hash);
        if is_known || self.offered.as_ref() == Some(hash) {
            return None;
        }
        self.offered = Some(hash.clone());
        Some(desired.clone())
    }
}

/// A message that has an agent begin anew. Nothing else may be in it.
pub fn restart(uid: InstanceUid) -> ServerToAgent {
    ServerToAgent {
        instance_uid: uid.0.to_vec(),
        command: Some(ServerToAgentCommand {
            r#type: COMMAND_RESTART,
        }),
        ..ServerToAgent::default()
    }
}

/// The answer to a message that is none.
pub fn refusal(uid: &[u8], text: &str) -> ServerToAgent {
    error(uid, ErrorKind::BadRequest, text, None)
}

/// The answer to a message that cannot be taken in now.
pub fn unavailable(uid: &[u8], text: &str, retry_after: std::time::Duration) -> ServerToAgent {
    error(uid, ErrorKind::Unavailable, text, Some(retry_after))
}

fn error(
    uid: &[u8],
    kind: ErrorKind,
    text: &str,
    retry_after: Option<std::time::Duration>,
) -> ServerToAgent {
    let info = |after: std::time::Duration| {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        ErrorDetails::RetryInfo(RetryInfo {
            retry_after_nanoseconds: nanos,
        })
    };
    ServerToAgent {
        instance_uid: uid.to_vec(),
        error_response: Some(ServerErrorResponse {
            r#type: kind as i32,
            error_message: text.to_owned(),
            details: retry_after.map(info),
        }),
        ..ServerToAgent::default()
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| {
        let Some(TextValue::StringValue(mut value)) = attribute.value?.value else {
            return None;
        };
        cut(&mut value);
        (attribute.key.len() <= TEXT_BYTES_MAX).then_some((attribute.key, value))
    };
    attributes
        .into_iter()
        .filter_map(text)
        .take(ENTRIES_MAX)
        .collect()
}

fn files(effective: EffectiveConfig) -> Option<Arc<Files>> {
    let files = effective.config_map.unwrap_or_default().config_map;
    let bytes: usize = files.iter().map(|(n, f)| n.len() + f.body.len()).sum();
    let body = |(name, file): (String, crate::proto::AgentConfigFile)| (name, file.body);
    (bytes <= EFFECTIVE_BYTES_MAX).then(|| Arc::new(files.into_iter().map(body).collect()))
}

/// Not more of it than is kept.
fn bounded(mut health: ComponentHealth, levels: usize) -> Health {
    cut(&mut health.last_error);
    cut(&mut health.status);
    let parts = match levels {
        0 => Vec::new(),
        _ => health
            .component_health_map
            .into_iter()
            .filter(|(name, _)| name.len() <= TEXT_BYTES_MAX)
            .take(ENTRIES_MAX)
            .map(|(name, part)| (name.into(), bounded(part, levels - 1)))
            .collect(),
    };
    Health {
        healthy: health.healthy,
        status: health.status.into(),
        last_error: health.last_error.into(),
        parts: parts.into(),
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|i| text.is_char_boundary(*i));
        text.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests;
