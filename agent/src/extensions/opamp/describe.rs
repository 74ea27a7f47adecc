//! What the agent says of itself that does not change by itself: who it is, what it is made of, and what is
//! in force.

use std::collections::BTreeMap;

use prost::Message;
use sha2::{Digest, Sha256};
use tailwater_config::{ComponentKind, to_yaml};
use tailwater_opamp::proto::{
    AgentConfigFile, AgentConfigMap, AgentDescription, AvailableComponents, ComponentDetails,
    EffectiveConfig, KeyValue,
};
use tailwater_pipeline::factory::Factory;

use super::settings::Settings;
use crate::admin::shown::InForce;
use crate::registry::registry;

/// What tells the agent's own telemetry from that of others.
const IDENTIFYING: [&str; 4] = [
    "service.name",
    "service.namespace",
    "service.version",
    "service.instance.id",
];

/// Who the agent is, and where it runs.
pub fn description(settings: &Settings, resource: &[(String, String)]) -> AgentDescription {
    let system = rustix::system::uname();
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    let mut identifying = BTreeMap::new();
    let mut others = BTreeMap::from([
        ("os.type".to_owned(), std::env::consts::OS.to_owned()),
        (
            "os.description".to_owned(),
            format!("{} {}", text(system.sysname()), text(system.release())),
        ),
        ("host.name".to_owned(), text(system.nodename())),
        ("host.arch".to_owned(), architecture().to_owned()),
    ]);
    for (key, value) in resource {
        if IDENTIFYING.contains(&key.as_str()) {
            identifying.insert(key.clone(), value.clone());
        } else if settings.include_resource {
            others.insert(key.clone(), value.clone());
        }
    }
    identifying.extend(settings.identifying.iter().cloned());
    others.extend(settings.others.iter().cloned());
    let list = |map: BTreeMap<String, String>| -> Vec<KeyValue> {
        map.into_iter().map(|(k, v)| KeyValue::text(k, v)).collect()
    };
    AgentDescription {
        identifying_attributes: list(identifying),
        non_identifying_attributes: list(others),
    }
}

/// `host.arch` of the semantic conventions.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "x86" => "x86",
        other => other,
    }
}

/// The components of this build.
pub fn components() -> AvailableComponents {
    let r = registry();
    let mut map = BTreeMap::new();
    let mut add = |kind: ComponentKind, parts| {
        let details = ComponentDetails {
            metadata: Vec::new(),
            sub_component_map: parts,
        };
        map.insert(kind.section().to_owned(), details);
    };
    add(ComponentKind::Receiver, details(&r.receivers));
    add(ComponentKind::Processor, details(&r.processors));
    add(ComponentKind::Exporter, details(&r.exporters));
    add(ComponentKind::Connector, details(&r.connectors));
    add(ComponentKind::Extension, details(&r.extensions));
    let mut components = AvailableComponents {
        components: map,
        hash: Vec::new(),
    };
    components.hash = Sha256::digest(components.encode_to_vec()).to_vec();
    components
}

fn details<S: ?Sized>(factories: &[Factory<S>]) -> BTreeMap<String, ComponentDetails> {
    let one = |f: &Factory<S>| {
        let mut metadata = vec![
            KeyValue::text("description", f.about),
            KeyValue::text("version", env!("CARGO_PKG_VERSION")),
        ];
        if !f.signals.is_empty() {
            metadata.push(KeyValue::text("signals", f.signals.join(", ")));
        }
        let details = ComponentDetails {
            metadata,
            ..ComponentDetails::default()
        };
        (f.kind.to_owned(), details)
    };
    factories.iter().map(one).collect()
}

/// What is in force, as the admin API shows it: without secrets.
pub fn effective(in_force: &InForce) -> EffectiveConfig {
    let file = AgentConfigFile {
        body: to_yaml(&in_force.config).into_bytes(),
        content_type: "text/yaml".to_owned(),
    };
    let config_map = BTreeMap::from([(String::new(), file)]);
    EffectiveConfig {
        config_map: Some(AgentConfigMap { config_map }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_components_have_one_hash_and_their_kinds() {
        let all = components();
        assert_eq!(all, components());
        assert_eq!(all.hash.len(), 32);
        let names: Vec<&str> = all.components.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "connectors",
                "exporters",
                "extensions",
                "processors",
                "receivers"
            ]
        );
        let extensions = &all.components["extensions"].sub_component_map;
        assert!(extensions.contains_key("opamp"));
    }
}
