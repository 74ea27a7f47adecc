//! The messages, as the specification numbers their fields. Enumerations are plain numbers where a
//! peer may know more of them than this version.
//!
//! What is about packages and other connections is left out: no capability for them is claimed, and
//! unknown fields are skipped.

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

/// Bits of [`AgentToServer::capabilities`].
pub mod agent {
    /// Every agent reports status.
    pub const REPORTS_STATUS: u64 = 0x1;
    /// Remote configurations are taken.
    pub const ACCEPTS_REMOTE_CONFIG: u64 = 0x2;
    /// The configuration in force is shown.
    pub const REPORTS_EFFECTIVE_CONFIG: u64 = 0x4;
    /// Offers of settings for this connection are taken.
    pub const ACCEPTS_OPAMP_CONNECTION_SETTINGS: u64 = 0x100;
    /// It restarts when it is told to.
    pub const ACCEPTS_RESTART_COMMAND: u64 = 0x400;
    /// Health is shown.
    pub const REPORTS_HEALTH: u64 = 0x800;
    /// It is said what became of a remote configuration.
    pub const REPORTS_REMOTE_CONFIG: u64 = 0x1000;
    /// Heartbeats are sent.
    pub const REPORTS_HEARTBEAT: u64 = 0x2000;
    /// It is said which components there are.
    pub const REPORTS_AVAILABLE_COMPONENTS: u64 = 0x4000;
    /// It is said what became of offered settings.
    pub const REPORTS_CONNECTION_SETTINGS_STATUS: u64 = 0x8000;
}

/// Bits of [`ServerToAgent::capabilities`].
pub mod server {
    /// Every server takes status.
    pub const ACCEPTS_STATUS: u64 = 0x1;
    /// It offers remote configurations.
    pub const OFFERS_REMOTE_CONFIG: u64 = 0x2;
    /// It takes configurations in force.
    pub const ACCEPTS_EFFECTIVE_CONFIG: u64 = 0x4;
    /// It offers settings of connections.
    pub const OFFERS_CONNECTION_SETTINGS: u64 = 0x20;
    /// It answers requests for a certificate.
    pub const ACCEPTS_CONNECTION_SETTINGS_REQUEST: u64 = 0x40;
}

/// Bit of [`ServerToAgent::flags`]: everything is to be said again.
pub const REPORT_FULL_STATE: u64 = 0x1;
/// Bit of [`ServerToAgent::flags`]: the components are to be listed.
pub const REPORT_AVAILABLE_COMPONENTS: u64 = 0x2;

/// What an agent says.
#[derive(Clone, PartialEq, Message)]
pub struct AgentToServer {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub instance_uid: Vec<u8>,
    /// One more with each message.
    #[prost(uint64, tag = "2")]
    pub sequence_num: u64,
    /// Who it is.
    #[prost(message, optional, tag = "3")]
    pub agent_description: Option<AgentDescription>,
    /// See [`agent`].
    #[prost(uint64, tag = "4")]
    pub capabilities: u64,
    /// How it is.
    #[prost(message, optional, tag = "5")]
    pub health: Option<ComponentHealth>,
    /// What is in force.
    #[prost(message, optional, tag = "6")]
    pub effective_config: Option<EffectiveConfig>,
    /// What became of a remote configuration.
    #[prost(message, optional, tag = "7")]
    pub remote_config_status: Option<RemoteConfigStatus>,
    /// It says no more.
    #[prost(message, optional, tag = "9")]
    pub agent_disconnect: Option<AgentDisconnect>,
    /// None of ours.
    #[prost(uint64, tag = "10")]
    pub flags: u64,
    /// It wants a certificate.
    #[prost(message, optional, tag = "11")]
    pub connection_settings_request: Option<ConnectionSettingsRequest>,
    /// What it can besides.
    #[prost(message, optional, tag = "12")]
    pub custom_capabilities: Option<CustomCapabilities>,
    /// A message of one of these.
    #[prost(message, optional, tag = "13")]
    pub custom_message: Option<CustomMessage>,
    /// Which components it has.
    #[prost(message, optional, tag = "14")]
    pub available_components: Option<AvailableComponents>,
    /// What became of offered settings.
    #[prost(message, optional, tag = "15")]
    pub connection_settings_status: Option<ConnectionSettingsStatus>,
}

/// What a server says.
#[derive(Clone, PartialEq, Message)]
pub struct ServerToAgent {
    /// To whom.
    #[prost(bytes = "vec", tag = "1")]
    pub instance_uid: Vec<u8>,
    /// A message could not be handled.
    #[prost(message, optional, tag = "2")]
    pub error_response: Option<ServerErrorResponse>,
    /// A configuration is offered.
    #[prost(message, optional, tag = "3")]
    pub remote_config: Option<AgentRemoteConfig>,
    /// Settings of connections are offered.
    #[prost(message, optional, tag = "4")]
    pub connection_settings: Option<ConnectionSettingsOffers>,
    /// [`REPORT_FULL_STATE`], [`REPORT_AVAILABLE_COMPONENTS`].
    #[prost(uint64, tag = "6")]
    pub flags: u64,
    /// See [`server`]; 0: as before.
    #[prost(uint64, tag = "7")]
    pub capabilities: u64,
    /// Another name for the agent.
    #[prost(message, optional, tag = "8")]
    pub agent_identification: Option<AgentIdentification>,
    /// Something is to be done; all else in the message does not count then.
    #[prost(message, optional, tag = "9")]
    pub command: Option<ServerToAgentCommand>,
    /// What the server can besides.
    #[prost(message, optional, tag = "10")]
    pub custom_capabilities: Option<CustomCapabilities>,
    /// A message of one of these.
    #[prost(message, optional, tag = "11")]
    pub custom_message: Option<CustomMessage>,
}

/// The agent says no more.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct AgentDisconnect {}

/// The agent wants settings.
#[derive(Clone, PartialEq, Message)]
pub struct ConnectionSettingsRequest {
    /// For this connection.
    #[prost(message, optional, tag = "1")]
    pub opamp: Option<OpAmpConnectionSettingsRequest>,
}

/// See [`ConnectionSettingsRequest`].
#[derive(Clone, PartialEq, Message)]
pub struct OpAmpConnectionSettingsRequest {
    /// A certificate is wanted.
    #[prost(message, optional, tag = "1")]
    pub certificate_request: Option<CertificateRequest>,
}

/// A request for a certificate.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateRequest {
    /// PEM.
    #[prost(bytes = "vec", tag = "1")]
    pub csr: Vec<u8>,
}

/// The components of an agent.
#[derive(Clone, PartialEq, Message)]
pub struct AvailableComponents {
    /// Empty unless the server asked for it.
    #[prost(btree_map = "string, message", tag = "1")]
    pub components: BTreeMap<String, ComponentDetails>,
    /// The same for the same components.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
}

/// A component, or a kind of them.
#[derive(Clone, PartialEq, Message)]
pub struct ComponentDetails {
    /// What there is to know of it.
    #[prost(message, repeated, tag = "1")]
    pub metadata: Vec<KeyValue>,
    /// What it is made of.
    #[prost(btree_map = "string, message", tag = "2")]
    pub sub_component_map: BTreeMap<String, ComponentDetails>,
}

/// Settings of this connection.
#[derive(Clone, PartialEq, Message)]
pub struct OpAmpConnectionSettings {
    /// Where to.
    #[prost(string, tag = "1")]
    pub destination_endpoint: String,
    /// What to send with each request.
    #[prost(message, optional, tag = "2")]
    pub headers: Option<Headers>,
    /// Who to be.
    #[prost(message, optional, tag = "3")]
    pub certificate: Option<TlsCertificate>,
    /// Seconds between heartbeats; 0: none.
    #[prost(uint64, tag = "4")]
    pub heartbeat_interval_seconds: u64,
    /// How TLS is made.
    #[prost(message, optional, tag = "5")]
    pub tls: Option<TlsConnectionSettings>,
    /// Through whom.
    #[prost(message, optional, tag = "6")]
    pub proxy: Option<ProxyConnectionSettings>,
}

/// How TLS is made.
#[derive(Clone, PartialEq, Message)]
pub struct TlsConnectionSettings {
    /// Whom to trust, PEM.
    #[prost(string, tag = "1")]
    pub ca_pem_contents: String,
    /// And the system's besides.
    #[prost(bool, tag = "2")]
    pub include_system_ca_certs_pool: bool,
    /// Or anybody.
    #[prost(bool, tag = "3")]
    pub insecure_skip_verify: bool,
    /// `1.2` or `1.3`.
    #[prost(string, tag = "4")]
    pub min_version: String,
    /// The same, or empty.
    #[prost(string, tag = "5")]
    pub max_version: String,
    /// By name.
    #[prost(string, repeated, tag = "6")]
    pub cipher_suites: Vec<String>,
}

/// Through whom.
#[derive(Clone, PartialEq, Message)]
pub struct ProxyConnectionSettings {
    /// Its URL.
    #[prost(string, tag = "1")]
    pub url: String,
    /// What to send to it.
    #[prost(message, optional, tag = "2")]
    pub connect_headers: Option<Headers>,
}

/// Headers.
#[derive(Clone, PartialEq, Message)]
pub struct Headers {
    /// One after the other.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<Header>,
}

/// A header.
#[derive(Clone, PartialEq, Message)]
pub struct Header {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A certificate.
#[derive(Clone, PartialEq, Message)]
pub struct TlsCertificate {
    /// PEM.
    #[prost(bytes = "vec", tag = "1")]
    pub cert: Vec<u8>,
    /// PEM; empty if the agent has it.
    #[prost(bytes = "vec", tag = "2")]
    pub private_key: Vec<u8>,
    /// Who signed it, PEM. Nobody to be trusted by it.
    #[prost(bytes = "vec", tag = "3")]
    pub ca_cert: Vec<u8>,
}

/// Settings of connections.
#[derive(Clone, PartialEq, Message)]
pub struct ConnectionSettingsOffers {
    /// Of all of them.
    #[prost(bytes = "vec", tag = "1")]
    pub hash: Vec<u8>,
    /// Those of this connection.
    #[prost(message, optional, tag = "2")]
    pub opamp: Option<OpAmpConnectionSettings>,
}

/// Why a message was not handled.
#[derive(Clone, PartialEq, Message)]
pub struct ServerErrorResponse {
    /// See [`ErrorKind`].
    #[prost(enumeration = "ErrorKind", tag = "1")]
    pub r#type: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub error_message: String,
    /// When to come again.
    #[prost(oneof = "ErrorDetails", tags = "3")]
    pub details: Option<ErrorDetails>,
}

/// See [`ServerErrorResponse`].
#[derive(Clone, PartialEq, Oneof)]
pub enum ErrorDetails {
    /// When to come again.
    #[prost(message, tag = "3")]
    RetryInfo(RetryInfo),
}

/// What kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ErrorKind {
    /// Any.
    Unknown = 0,
    /// The message is wrong.
    BadRequest = 1,
    /// The server has too much to do.
    Unavailable = 2,
}

/// When to come again.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RetryInfo {
    /// Not before that.
    #[prost(uint64, tag = "1")]
    pub retry_after_nanoseconds: u64,
}

/// Of [`ServerToAgentCommand`]: begin anew.
pub const COMMAND_RESTART: i32 = 0;

/// Something is to be done.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ServerToAgentCommand {
    /// [`COMMAND_RESTART`].
    #[prost(int32, tag = "1")]
    pub r#type: i32,
}

/// Who an agent is.
#[derive(Clone, PartialEq, Message)]
pub struct AgentDescription {
    /// What tells it from others.
    #[prost(message, repeated, tag = "1")]
    pub identifying_attributes: Vec<KeyValue>,
    /// Where it runs.
    #[prost(message, repeated, tag = "2")]
    pub non_identifying_attributes: Vec<KeyValue>,
}

/// How something is.
#[derive(Clone, PartialEq, Message)]
pub struct ComponentHealth {
    /// It does what it is there for.
    #[prost(bool, tag = "1")]
    pub healthy: bool,
    /// Since when, Unix time; 0: it does not run.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// What is wrong.
    #[prost(string, tag = "3")]
    pub last_error: String,
    /// As the collector names it.
    #[prost(string, tag = "4")]
    pub status: String,
    /// Since when it is like that, Unix time.
    #[prost(fixed64, tag = "5")]
    pub status_time_unix_nano: u64,
    /// Its parts.
    #[prost(btree_map = "string, message", tag = "6")]
    pub component_health_map: BTreeMap<String, ComponentHealth>,
}

/// What is in force.
#[derive(Clone, PartialEq, Message)]
pub struct EffectiveConfig {
    /// Files by name.
    #[prost(message, optional, tag = "1")]
    pub config_map: Option<AgentConfigMap>,
}

/// What became of a remote configuration.
#[derive(Clone, PartialEq, Message)]
pub struct RemoteConfigStatus {
    /// Which one, in the words of its offer.
    #[prost(bytes = "vec", tag = "1")]
    pub last_remote_config_hash: Vec<u8>,
    /// How far it is.
    #[prost(enumeration = "Status", tag = "2")]
    pub status: i32,
    /// Why not.
    #[prost(string, tag = "3")]
    pub error_message: String,
}

/// What became of offered settings.
#[derive(Clone, PartialEq, Message)]
pub struct ConnectionSettingsStatus {
    /// Which ones, in the words of their offer.
    #[prost(bytes = "vec", tag = "1")]
    pub last_connection_settings_hash: Vec<u8>,
    /// How far they are.
    #[prost(enumeration = "Status", tag = "2")]
    pub status: i32,
    /// Why not.
    #[prost(string, tag = "3")]
    pub error_message: String,
}

/// How far an offer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Status {
    /// There was none.
    Unset = 0,
    /// It is in force.
    Applied = 1,
    /// It is being put into force.
    Applying = 2,
    /// It is not in force.
    Failed = 3,
}

/// Another name for the agent.
#[derive(Clone, PartialEq, Message)]
pub struct AgentIdentification {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub new_instance_uid: Vec<u8>,
}

/// A configuration that is offered.
#[derive(Clone, PartialEq, Message)]
pub struct AgentRemoteConfig {
    /// Files by name.
    #[prost(message, optional, tag = "1")]
    pub config: Option<AgentConfigMap>,
    /// The server's name for it.
    #[prost(bytes = "vec", tag = "2")]
    pub config_hash: Vec<u8>,
}

/// Files by name.
#[derive(Clone, PartialEq, Message)]
pub struct AgentConfigMap {
    /// See there.
    #[prost(btree_map = "string, message", tag = "1")]
    pub config_map: BTreeMap<String, AgentConfigFile>,
}

/// A file.
#[derive(Clone, PartialEq, Message)]
pub struct AgentConfigFile {
    /// What is in it.
    #[prost(bytes = "vec", tag = "1")]
    pub body: Vec<u8>,
    /// What that is.
    #[prost(string, tag = "2")]
    pub content_type: String,
}

/// What a side can besides.
#[derive(Clone, PartialEq, Message)]
pub struct CustomCapabilities {
    /// By name.
    #[prost(string, repeated, tag = "1")]
    pub capabilities: Vec<String>,
}

/// A message that the specification does not know.
#[derive(Clone, PartialEq, Message)]
pub struct CustomMessage {
    /// One of [`CustomCapabilities`].
    #[prost(string, tag = "1")]
    pub capability: String,
    /// Which message of it.
    #[prost(string, tag = "2")]
    pub r#type: String,
    /// What it says.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
}

/// An attribute.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A value of which an agent sends texts only.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// The text.
    #[prost(oneof = "TextValue", tags = "1")]
    pub value: Option<TextValue>,
}

/// See [`AnyValue`].
#[derive(Clone, PartialEq, Oneof)]
pub enum TextValue {
    /// A text.
    #[prost(string, tag = "1")]
    StringValue(String),
}

impl KeyValue {
    /// An attribute that is a text.
    pub fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: Some(AnyValue {
                value: Some(TextValue::StringValue(value.into())),
            }),
        }
    }
}
