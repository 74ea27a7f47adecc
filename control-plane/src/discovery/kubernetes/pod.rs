//! What there is to tail of a pod: pure.
//!
//! A container that was started again writes another file, so each start of it is a source of its own, which ends when the
//! next one begins. All texts come from whoever may make a pod, through the API server: what becomes part of a path is a
//! name as Kubernetes allows it, or nothing is tailed.
//!
//! Where the kubelet has its files: `/var/log/pods/<namespace>_<pod>_<uid>/<container>/<restarts>.log`.

use std::collections::BTreeMap;
use std::path::Path;

use tailwater_kubernetes::model::{Container, ContainerStatus, Meta, Pod};

use crate::discovery::labels::{self, Workload};
use crate::discovery::wishes::{self, Parser, Rules};
use crate::model::{Descriptor, Format, Origin};

/// With it a pod that a node started from a file says under which uid the kubelet knows it.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The longest name of a pod or a node (a DNS subdomain).
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// The longest name of a namespace or a container (a DNS label).
const LABEL_BYTES_MAX: usize = 63;
/// The longest uid; those of Kubernetes have 36 bytes, digests of static pods 32.
const UID_BYTES_MAX: usize = 64;
/// More containers of one pod are not looked at.
const CONTAINERS_MAX: usize = 1000;

/// A start of a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The source's id.
    pub id: String,
    /// Its container, and how often that was started before.
    pub of: (String, u32),
    /// It ended: nothing will be added.
    pub ended: bool,
    /// What is tailed.
    pub source: Descriptor,
    /// What was asked for in vain, for people.
    pub unheeded: Option<String>,
}

/// What a pod has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Described {
    /// The newest start of each container that is to be tailed.
    pub starts: Vec<Start>,
    /// Sources that cannot be tailed, and why.
    pub unreadable: Vec<(String, String)>,
}

/// A DNS label (RFC 1123).
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let outer = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
    text.len() <= LABEL_BYTES_MAX
        && text.bytes().all(inner)
        && outer(text.as_bytes().first())
        && outer(text.as_bytes().last())
}

/// A DNS subdomain (RFC 1123): labels with dots between.
pub fn is_subdomain(text: &str) -> bool {
    // Here a part may be longer than a label.
    let part = |part: &str| {
        let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        part.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && ends(part.as_bytes().first())
            && ends(part.as_bytes().last())
    };
    text.len() <= SUBDOMAIN_BYTES_MAX && text.split('.').all(part)
}

/// What a uid may be.
pub fn is_uid(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=UID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// What is said of a thing in place of its name, if that is none.
fn shown(text: &str) -> String {
    text.chars()
        .take(64)
        .flat_map(char::escape_default)
        .collect()
}

/// What there is to tail of a pod whose files are below `logs`.
pub fn describe(pod: &Pod, logs: &Path, rules: &Rules) -> Described {
    let mut described = Described::default();
    let place = match Place::of(&pod.metadata, logs) {
        Ok(place) => place,
        Err(reason) => {
            let id = format!("kubernetes:{}", shown(&pod.metadata.uid));
            described.unreadable.push((id, reason));
            return described;
        }
    };
    let (spec, status) = (&pod.spec, &pod.status);
    let kinds = [
        (&spec.init_containers, &status.init_container_statuses),
        (&spec.containers, &status.container_statuses),
        (
            &spec.ephemeral_containers,
            &status.ephemeral_container_statuses,
        ),
    ];
    let over = matches!(&*status.phase, "Succeeded" | "Failed");
    let all = kinds
        .iter()
        .flat_map(|(containers, statuses)| containers.iter().map(move |c| (c, *statuses)));
    for (container, statuses) in all.take(CONTAINERS_MAX) {
        let status = statuses.iter().find(|s| s.name == container.name);
        match start(pod, &place, container, status, rules) {
            Ok(Some(mut start)) => {
                start.ended |= over;
                described.starts.push(start);
            }
            Ok(None) => {}
            Err(reason) => {
                let uid = &pod.metadata.uid;
                let id = format!("kubernetes:{uid}/{}", shown(&container.name));
                described.unreadable.push((id, reason));
            }
        }
    }
    described
}

/// The start before the newest one of a container, if there was one: what it wrote last may be there yet.
pub fn before(start: &Start) -> Option<Start> {
    let restarts = start.of.1.checked_sub(1)?;
    let mut before = start.clone();
    before.of.1 = restarts;
    before.ended = true;
    before.id = id(start.id.rsplit_once('/')?.0, restarts);
    for path in &mut before.source.paths {
        *path = log(path.rsplit_once('/')?.0, restarts);
    }
    before.source.id.clone_from(&before.id);
    let labels = &mut before.source.labels;
    labels.insert(labels::RESTARTS.to_owned(), restarts.to_string());
    Some(before)
}

fn id(container: &str, restarts: u32) -> String {
    format!("{container}/{restarts}")
}

fn log(dir: &str, restarts: u32) -> String {
    format!("{dir}/{restarts}.log")
}

/// Where the files of a pod are.
struct Place(String);

impl Place {
    fn of(meta: &Meta, logs: &Path) -> Result<Place, String> {
        let check = |what: &str, text: &str, good: bool| match good {
            true => Ok(()),
            false => Err(format!(
                "its {what} is \"{}\", which Kubernetes does not allow; it is part of no path",
                shown(text)
            )),
        };
        let (namespace, name) = (&*meta.namespace, &*meta.name);
        check("namespace", namespace, is_label(namespace))?;
        check("name", name, is_subdomain(name))?;
        check("uid", &meta.uid, is_uid(&meta.uid))?;
        let uid = meta.annotations.get(MIRROR).unwrap_or(&meta.uid);
        check("uid on the node", uid, is_uid(uid))?;
        let logs = logs.to_str().ok_or("the directory of logs is no UTF-8")?;
        Ok(Place(format!("{logs}/{namespace}_{name}_{uid}")))
    }
}

fn start(
    pod: &Pod,
    place: &Place,
    container: &Container,
    status: Option<&ContainerStatus>,
    rules: &Rules,
) -> Result<Option<Start>, String> {
    let (meta, name) = (&pod.metadata, &*container.name);
    if !is_label(name) {
        return Err("its name is none that Kubernetes allows; it is part of no path".to_owned());
    }
    let Some(wish) = wishes::read(&meta.annotations, Some(name), rules)? else {
        return Ok(None);
    };
    let restarts = status.map_or(0, |s| s.restart_count);
    let mut of_pod = of_pod(pod);
    of_pod.insert(labels::K8S_CONTAINER, name.to_owned());
    of_pod.insert(labels::RESTARTS, restarts.to_string());
    let image = labels::repository(&container.image);
    of_pod.insert(labels::IMAGE, image.to_owned());
    if let Some(tenant) = wish.tenant {
        of_pod.insert(labels::TENANT, tenant);
    }
    of_pod.retain(|_, value| !value.is_empty());
    let own = of_pod.into_iter().map(|(k, v)| (k.to_owned(), v));
    let id = id(&format!("kubernetes:{}/{name}", meta.uid), restarts);
    Ok(Some(Start {
        of: (name.to_owned(), restarts),
        ended: status.is_some_and(|s| s.state.terminated.is_some()),
        unheeded: wish.unheeded,
        source: Descriptor {
            id: id.clone(),
            origin: Origin::Kubernetes,
            paths: vec![log(&format!("{}/{name}", place.0), restarts)],
            format: match wish.parser {
                Parser::None => Format::Container,
                Parser::Json => Format::ContainerJson,
                Parser::Logfmt => Format::ContainerLogfmt,
            },
            labels: own.collect(),
        },
        id,
    }))
}

/// Attributes that all containers of a pod have.
fn of_pod(pod: &Pod) -> BTreeMap<&'static str, String> {
    let meta = &pod.metadata;
    let Workload { attribute, name } = labels::workload(meta, &pod.spec.node_name);
    let mut own = BTreeMap::from([
        (labels::NAMESPACE, meta.namespace.clone()),
        (labels::PROJECT, meta.namespace.clone()),
        (labels::POD, meta.name.clone()),
        (labels::POD_UID, meta.uid.clone()),
        (labels::NODE, pod.spec.node_name.clone()),
    ]);
    own.extend(attribute.map(|attribute| (attribute, name.clone())));
    own.insert(labels::SERVICE, name);
    own
}
