//! Objects of the API, as far as anything of them is used.
//!
//! Source: the API reference of Kubernetes 1.36 (`core/v1`, `apps/v1`, `batch/v1`, `meta/v1`). Fields that are not
//! there or null are empty: servers and storage leave out what has no value.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Null is as good as nothing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// What every object has: `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Its name, unique in its namespace.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its namespace; empty for those that have none.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Never given to another object.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    /// The state it is in, for watches.
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
    /// When it was created, RFC 3339.
    #[serde(deserialize_with = "or_default")]
    pub creation_timestamp: String,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// What it belongs to.
    #[serde(deserialize_with = "or_default")]
    pub owner_references: Vec<Owner>,
}

/// What an object belongs to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// As `ReplicaSet`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its uid.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    /// It manages the object; at most one does.
    #[serde(deserialize_with = "or_default")]
    pub controller: bool,
}

/// An object that can be followed.
pub trait Object: serde::de::DeserializeOwned + Send + 'static {
    /// Its metadata.
    fn meta(&self) -> &Meta;
}

/// An object of any kind, of which only the metadata is used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Metadata.
    pub metadata: Meta,
}

impl Object for Named {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata.
    pub metadata: Meta,
    /// What is wanted.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// What there is.
    #[serde(deserialize_with = "or_default")]
    pub status: PodStatus,
}

impl Object for Pod {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// What is wanted of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it is on; empty before that is decided.
    #[serde(deserialize_with = "or_default")]
    pub node_name: String,
    /// Its host name, if that is not its name.
    #[serde(deserialize_with = "or_default")]
    pub hostname: String,
    /// It uses the network of the node, and so has the node's address.
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    /// Its containers.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// Those that run before.
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
    /// Those that somebody put into it while it ran, to look at it.
    #[serde(deserialize_with = "or_default")]
    pub ephemeral_containers: Vec<Container>,
}

/// A container of a pod as it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its image, as it was named.
    #[serde(deserialize_with = "or_default")]
    pub image: String,
}

/// What there is of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
    /// Its address.
    #[serde(rename = "podIP", deserialize_with = "or_default")]
    pub pod_ip: String,
    /// When the node took it, RFC 3339; empty before.
    #[serde(deserialize_with = "or_default")]
    pub start_time: String,
    /// Its containers.
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatus>,
    /// Those that run before.
    #[serde(deserialize_with = "or_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Those that somebody put into it while it ran.
    #[serde(deserialize_with = "or_default")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// A container of a pod as it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// As `containerd://4bf0...`; empty before it was created.
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    pub container_id: String,
    /// The image by its digest.
    #[serde(rename = "imageID", deserialize_with = "or_default")]
    pub image_id: String,
    /// How often it was started again.
    #[serde(deserialize_with = "or_default")]
    pub restart_count: u32,
    /// What it does now.
    #[serde(deserialize_with = "or_default")]
    pub state: ContainerState,
}

/// What a container does: one of these is there at most.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// It runs.
    pub running: Option<Anything>,
    /// It ended.
    pub terminated: Option<Anything>,
}

/// An object of which nothing matters but that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Anything {}

/// A list, or a page of one.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Object")]
pub(crate) struct List<T> {
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default, deserialize_with = "list_items")]
    pub items: Vec<T>,
}

fn list_items<'de, D: Deserializer<'de>, T: Object>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// What a list has.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListMeta {
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
    /// Where the next page begins; empty for the last one.
    #[serde(rename = "continue", deserialize_with = "or_default")]
    pub next: String,
}

/// The answer in place of what was asked for.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    #[serde(deserialize_with = "or_default")]
    pub code: u16,
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}
