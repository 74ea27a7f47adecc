//! The base that `up` has if none is given: everything to one Loki, with few labels.

use std::path::Path;

use serde_json::json;
use tailwater_control_plane::discovery::labels;

use super::wanted::Wanted;

/// The base, as YAML, which JSON is.
pub fn text(loki: &str, wanted: &Wanted, admin: &Path) -> String {
    // Only what is there can be named to the kernel; what comes later is opened when something is found in it.
    let read: Vec<_> = wanted.roots.iter().filter(|r| r.is_dir()).collect();
    let mut base = json!({
        "exporters": {"loki": {
            "endpoint": loki,
            "labels": {
                "resource": {
                    "service": labels::SERVICE,
                    "project": labels::PROJECT,
                    "container": labels::CONTAINER,
                    "image": labels::IMAGE,
                    "file": labels::FILE,
                },
                "attributes": {"stream": "log.iostream"},
            },
        }},
        "processors": {"batch": {"send_batch_size": 8192, "timeout": "200ms"}},
        "service": {
            "admin": {"socket": admin},
            "sandbox": {"read": read},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": level()}},
            "pipelines": {"logs": {"processors": ["batch"], "exporters": ["loki"]}},
        },
    });
    let exporter = &mut base["exporters"]["loki"];
    if wanted.node.is_some() {
        // The pod is no label: each has its own. It is kept beside the line.
        exporter["labels"]["resource"] = json!({
            "service": labels::SERVICE,
            "namespace": labels::NAMESPACE,
            "container": labels::K8S_CONTAINER,
            "node": labels::NODE,
        });
    }
    if wanted.node.is_some() && (wanted.docker.is_some() || wanted.looks_for_files()) {
        let resource = &mut exporter["labels"]["resource"];
        resource["image"] = labels::IMAGE.into();
        resource["file"] = labels::FILE.into();
    }
    if !wanted.rules.tenants.is_empty() {
        exporter["tenant"] =
            json!({"from_resource": labels::TENANT, "allow": wanted.rules.tenants});
    }
    // A dollar of a path or a URL is one.
    base.to_string().replace('$', "$$")
}

/// On a terminal there is the live line, and what is wrong.
fn level() -> &'static str {
    use std::io::IsTerminal;
    match std::io::stdout().is_terminal() {
        true => "warn",
        false => "info",
    }
}
