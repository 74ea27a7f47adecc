//! Kind `k8s_attributes`: settings and objects of a cluster in, what the resource of its pod becomes out.

use serde_json::Value as Json;
use tailwater_config::{Errors, Section, parse};
use tailwater_pdata::Map;
use tailwater_processors::k8sattributes::K8sAttributesConfig;
use tailwater_processors::k8sattributes::conformance::resource_with;

use crate::case::{Case, Verdict};
use crate::records;

/// What telemetry is known by, unless the case says.
const UID: &str = "k8s.pod.uid";

/// Runs the case.
pub fn run(case: &Case) -> Verdict {
    compare(&case.json).into()
}

fn compare(vector: &Json) -> Result<(), String> {
    let config = vector["config"].as_object().and_then(|o| o.values().next());
    let mut config = config.ok_or("the vector configures nothing")?.clone();
    let own = config.get("pod_association").is_none();
    if own {
        config["pod_association"] = serde_json::json!(
            [{"sources": [{"from": "resource_attribute", "name": UID}]}]
        );
    }
    let node = parse(&config.to_string(), "vector").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "k8s_attributes", &mut errors);
    let config = K8sAttributesConfig::decode(&mut section);
    section.finish();
    let expect = &vector["expect"];
    if expect.get("error").is_some() {
        return match errors.is_empty() {
            true => Err("it must be refused".to_owned()),
            false => Ok(()),
        };
    }
    errors.into_result(()).map_err(|e| e.to_string())?;
    let objects = vector["input"]["objects"].as_array().ok_or("no objects")?;
    let kind = |o: &Json| o["kind"].as_str().unwrap_or_default().to_owned();
    let pod = objects.iter().find(|o| kind(o) == "Pod");
    let pod = pod.ok_or("no pod among the objects")?;
    let objects: Vec<_> = objects.iter().map(|o| (kind(o), o.to_string())).collect();
    let mut resource = records::map(&vector["input"]["resource"]);
    if own {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        resource.insert(UID, uid);
    }
    let mut got = resource_with(&config, &objects, resource)?;
    let want: Map = records::map(&expect["attributes"]);
    if own && want.get(UID).is_none() {
        got.remove(UID);
    }
    if got == want {
        return Ok(());
    }
    Err(format!("got {got:?}\n         want {want:?}"))
}
