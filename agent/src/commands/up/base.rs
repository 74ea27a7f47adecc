//! The base that `up` has if none is given: everything to one Loki, with few labels.

use std::path::{Path, PathBuf};

use serde_json::json;
use tailwater_control_plane::discovery::labels;

/// The base, as YAML, which JSON is.
pub fn text(loki: &str, roots: &[PathBuf], admin: &Path) -> String {
    // Only what is there can be named to the kernel; what comes later is opened when something is found in it.
    let read: Vec<_> = roots.iter().filter(|r| r.is_dir()).collect();
    let base = json!({
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
