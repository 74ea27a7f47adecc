//! Which pod a resource belongs to.
//!
//! A resource and a pod belong together if they have the same [`Ident`]: the values that the sources of an association have. Of the
//! associations the first counts for which a resource has all values, whether a pod has them or not.

use std::net::IpAddr;

use tailwater_kubernetes::model::Pod;
use tailwater_pdata::otlp::edit::Attributes;
use tailwater_pdata::{Map, ValueRef};

/// The values of an association, each with its source.
pub type Ident = Box<str>;

const POD_IP: &str = "k8s.pod.ip";
const HOST_NAME: &str = "host.name";
const CONTAINER_ID: &str = "container.id";

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The address of whoever sent the resource.
    Connection,
    /// An attribute of the resource.
    Attribute(String),
}

/// Sources that all have to have a value.
pub type Association = Vec<Source>;

/// What a resource says of itself.
pub trait Resource {
    /// The text of an attribute.
    fn text(&self, key: &str) -> Option<String>;

    /// A number, also as text; `Some(None)`: the attribute is there and is none.
    fn number(&self, key: &str) -> Option<Option<u32>>;
}

/// The same of a value.
pub fn text_of(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Str(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// The same of a value.
pub fn number_of(value: ValueRef<'_>) -> Option<u32> {
    match value {
        ValueRef::Int(n) => u32::try_from(n).ok(),
        other => text_of(other)?.parse().ok(),
    }
}

impl Resource for Map {
    fn text(&self, key: &str) -> Option<String> {
        text_of(self.get(key)?.as_ref())
    }

    fn number(&self, key: &str) -> Option<Option<u32>> {
        Some(number_of(self.get(key)?.as_ref()))
    }
}

impl Resource for Attributes<'_> {
    fn text(&self, key: &str) -> Option<String> {
        text_of(self.get(key)?.as_ref())
    }

    fn number(&self, key: &str) -> Option<Option<u32>> {
        Some(number_of(self.get(key)?.as_ref()))
    }
}

/// What a resource is looked up by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// By this.
    pub ident: Ident,
    /// The address in it, if it is one of a connection or stands for one.
    pub address: Option<String>,
    /// It names a pod, which is thus there or was. Who only has an address may be none.
    pub names_pod: bool,
}

fn push(ident: &mut String, source: &Source, value: &str) {
    // Neither names nor values have these.
    match source {
        Source::Connection => ident.push('\u{1}'),
        Source::Attribute(name) => {
            ident.push('\u{2}');
            ident.push_str(name);
        }
    }
    ident.push('\u{3}');
    ident.push_str(value);
    ident.push('\u{4}');
}

fn of_connection(address: &str) -> Ident {
    let mut ident = String::new();
    push(&mut ident, &Source::Connection, address);
    ident.into()
}

/// What `resource`, sent from `client`, is looked up by; nothing if no association fits.
pub fn asked(
    associations: &[Association],
    resource: &dyn Resource,
    client: Option<IpAddr>,
) -> Option<Asked> {
    let set = |text: Option<String>| text.filter(|text| !text.is_empty());
    let client = client.map(|address| address.to_canonical().to_string());
    if associations.is_empty() {
        let attribute = |key| set(resource.text(key));
        let host = || attribute(HOST_NAME).filter(|name| name.parse::<IpAddr>().is_ok());
        let of_resource = attribute(POD_IP).or_else(|| attribute("ip"));
        let names_pod = of_resource.is_some();
        let address = of_resource.or(client).or_else(host)?;
        return Some(Asked {
            ident: of_connection(&address),
            address: Some(address),
            names_pod,
        });
    }
    'associations: for association in associations {
        let (mut ident, mut address, mut names_pod) = (String::new(), None, false);
        for source in association {
            let value = match source {
                Source::Connection => client.clone(),
                Source::Attribute(name) => {
                    names_pod = true;
                    set(resource.text(name))
                }
            };
            let Some(value) = value else {
                continue 'associations;
            };
            push(&mut ident, source, &value);
            if *source == Source::Connection {
                address = Some(value);
            }
        }
        return Some(Asked {
            ident: ident.into(),
            address,
            names_pod,
        });
    }
    None
}

/// All that resources of a pod may be looked up by. `attributes` is what is taken of it, `containers` are the ids of its
/// containers.
pub fn idents_of(
    associations: &[Association],
    pod: &Pod,
    attributes: &Map,
    containers: &[&str],
) -> Vec<Ident> {
    // Pods in the network of their node all have its address.
    let address = Some(&pod.status.pod_ip).filter(|_| !pod.spec.host_network);
    let address = address.filter(|address| !address.is_empty());
    let mut idents = Vec::new();
    for association in associations {
        let per_container = association.contains(&Source::Attribute(CONTAINER_ID.into()));
        let containers: &[&str] = if per_container { containers } else { &[""] };
        for container in containers {
            let mut ident = String::new();
            let found = association.iter().all(|source| {
                let value = match source {
                    Source::Connection => address.cloned(),
                    Source::Attribute(name) => match &**name {
                        "k8s.namespace.name" => Some(pod.metadata.namespace.clone()),
                        "k8s.pod.name" => Some(pod.metadata.name.clone()),
                        "k8s.pod.uid" => Some(pod.metadata.uid.clone()),
                        HOST_NAME | POD_IP => Some(pod.status.pod_ip.clone()),
                        CONTAINER_ID => Some((*container).to_owned()),
                        other => attributes.text(other),
                    },
                };
                let value = value.filter(|value| !value.is_empty());
                value
                    .map(|value| push(&mut ident, source, &value))
                    .is_some()
            });
            if found && !ident.is_empty() {
                idents.push(ident.into());
            }
        }
    }
    if associations.is_empty() {
        idents.extend(address.map(|address| of_connection(address)));
    }
    idents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &str) -> Source {
        Source::Attribute(name.into())
    }

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = "p".into();
        pod.metadata.namespace = "n".into();
        pod.metadata.uid = "u".into();
        pod.status.pod_ip = "10.0.0.1".into();
        pod
    }

    fn resource(pairs: &[(&str, &str)]) -> Map {
        Map::from_iter(pairs.iter().copied())
    }

    /// Whether a resource leads to the pod, by which address.
    fn leads(
        associations: &[Association],
        pod: &Pod,
        pairs: &[(&str, &str)],
        client: Option<&str>,
    ) -> Option<bool> {
        let client = client.map(|c| c.parse().unwrap());
        let asked = asked(associations, &resource(pairs), client)?;
        let extra = resource(&[("app", "web")]);
        let idents = idents_of(associations, pod, &extra, &["c1", "c2"]);
        Some(idents.contains(&asked.ident))
    }

    #[test]
    fn without_associations_addresses_count() {
        let leads = |pairs: &[(&str, &str)], client| leads(&[], &pod(), pairs, client);
        assert_eq!(
            leads(&[("k8s.pod.ip", "10.0.0.1")], Some("10.0.0.2")),
            Some(true)
        );
        assert_eq!(leads(&[("ip", "10.0.0.1")], None), Some(true));
        assert_eq!(leads(&[], Some("10.0.0.1")), Some(true));
        assert_eq!(leads(&[], Some("::ffff:10.0.0.1")), Some(true));
        assert_eq!(
            leads(&[("host.name", "10.0.0.1")], Some("10.0.0.3")),
            Some(false)
        );
        assert_eq!(leads(&[("host.name", "10.0.0.1")], None), Some(true));
        assert_eq!(
            leads(&[("host.name", "box"), ("k8s.pod.uid", "u")], None),
            None
        );
        let mut host = pod();
        host.spec.host_network = true;
        assert!(idents_of(&[], &host, &Map::new(), &[]).is_empty());
    }

    #[test]
    fn the_first_association_that_a_resource_fits_decides() {
        let associations = [
            vec![attribute("k8s.pod.name"), attribute("k8s.namespace.name")],
            vec![attribute("k8s.pod.uid")],
            vec![attribute("container.id")],
            vec![attribute("app"), Source::Connection],
        ];
        let leads = |pairs: &[(&str, &str)], client| leads(&associations, &pod(), pairs, client);
        let both = [("k8s.pod.name", "p"), ("k8s.namespace.name", "n")];
        assert_eq!(leads(&both, None), Some(true));
        assert_eq!(leads(&both[..1], None), None);
        assert_eq!(leads(&[both[0], ("k8s.pod.uid", "u")], None), Some(true));
        let other = [("k8s.pod.name", "q"), both[1], ("k8s.pod.uid", "u")];
        assert_eq!(leads(&other, None), Some(false), "no other is asked");
        assert_eq!(leads(&[("k8s.pod.uid", "")], None), None);
        assert_eq!(leads(&[("container.id", "c2")], None), Some(true));
        assert_eq!(leads(&[("container.id", "c3")], None), Some(false));
        assert_eq!(leads(&[("app", "web")], Some("10.0.0.1")), Some(true));
        assert_eq!(leads(&[("app", "web")], None), None);
    }

    #[test]
    fn an_address_alone_names_no_pod() {
        let client = Some("10.0.0.9".parse().unwrap());
        let found = asked(&[vec![Source::Connection]], &Map::new(), client).unwrap();
        assert!(!found.names_pod && found.address.as_deref() == Some("10.0.0.9"));
        let uid = resource(&[("k8s.pod.uid", "u")]);
        let found = asked(&[vec![attribute("k8s.pod.uid")]], &uid, client).unwrap();
        assert!(found.names_pod && found.address.is_none());
    }
}
