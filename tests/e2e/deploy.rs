//! What `deploy/` has: configurations that the agent takes, manifests and compose files of the shape they are to have, and
//! dashboards of metrics that there are.

mod shape;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tailwater_config::{Node, parse, to_json, to_yaml};
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::{Agent, binary, free_port};

use self::shape::{COMPOSE, KUBERNETES, differences};

/// The version that images are tagged with.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}

fn text(name: &str) -> String {
    let path = deploy(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The documents of a text of YAML.
fn documents(text: &str, name: &str) -> Vec<Node> {
    let parts = text.split("\n---\n");
    parts.map(|part| parse(part, name).expect("YAML")).collect()
}

/// The document of a kind.
fn of_kind<'d>(documents: &'d [Node], kind: &str) -> &'d Node {
    let is = |d: &&Node| d.get("kind").and_then(Node::as_str) == Some(kind);
    let found = documents.iter().find(is);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

fn at<'n>(node: &'n Node, path: &str) -> &'n Node {
    let found = node.at(path);
    found.unwrap_or_else(|| panic!("no {path} in {}", to_yaml(node)))
}

/// Checks documents against our own table of what may stand where, which is no schema of Kubernetes: it finds names that
/// are misspelt or stand elsewhere.
fn assert_shape(documents: &[Node], name: &str) {
    for document in documents {
        for key in ["apiVersion", "kind"] {
            assert!(document.get(key).is_some(), "{name}: no {key}");
        }
        let wrong = differences(document, &KUBERNETES);
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
}

/// Guarantees that every manifest has the names that Kubernetes knows, at their places, and the image of this version.
#[test]
fn manifests_have_the_shape_they_are_to_have() {
    for name in [
        "base/namespace.yaml",
        "base/rbac.yaml",
        "base/daemonset.yaml",
        "sidecar/sidecar.yaml",
    ] {
        let documents = documents(&text(&format!("kubernetes/{name}")), name);
        assert_shape(&documents, name);
    }
    let kustomization = text("kubernetes/base/kustomization.yaml");
    assert!(kustomization.contains(&format!("newTag: {VERSION}")));
    for name in [
        "kubernetes/sidecar/sidecar.yaml",
        "compose/compose.yaml",
        "docker/Dockerfile",
    ] {
        assert!(
            text(name).contains(&format!("tailwater:{VERSION}")),
            "{name}"
        );
    }
}

/// Guarantees that the agent on each node has one capability and no way to more, logs that it cannot write, and the right to see
/// pods and nothing else.
#[test]
fn the_agent_on_a_node_has_few_rights() {
    let documents = documents(&text("kubernetes/base/daemonset.yaml"), "daemonset.yaml");
    let container = at(&documents[0], "spec::template::spec::containers::0");
    assert_few_rights(container, &["- DAC_READ_SEARCH", "runAsUser: 0"]);
    let rbac = self::documents(&text("kubernetes/base/rbac.yaml"), "rbac.yaml");
    let rules = to_json(at(of_kind(&rbac, "ClusterRole"), "rules"));
    let rules: Value = serde_json::from_str(&rules).expect("JSON");
    let expect = serde_json::json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    ]);
    assert_eq!(rules, expect);
}

fn assert_few_rights(container: &Node, more: &[&str]) {
    let context = to_yaml(at(container, "securityContext"));
    let lines: Vec<&str> = context.lines().map(str::trim).collect();
    let common = [
        "privileged: false",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "- ALL",
        "type: RuntimeDefault",
    ];
    for line in common.iter().chain(more) {
        assert!(lines.contains(line), "{line}: {context}");
    }
    for probe in ["livenessProbe", "readinessProbe"] {
        at(container, &format!("{probe}::httpGet::path"));
    }
    at(container, "resources::limits::memory");
    for mount in at(container, "volumeMounts").as_list().expect("a list") {
        let is_state = mount.get("name").and_then(Node::as_str) == Some("state");
        let read_only = mount.get("readOnly").and_then(Node::as_bool);
        assert_eq!(read_only != Some(true), is_state, "{}", to_yaml(mount));
    }
}

/// Guarantees that each variant can be put together, and is what it says: what is shown to be so of files, by what `kubectl`
/// makes of them.
#[test]
fn variants_are_what_they_say() {
    for (variant, args, more) in [
        ("base", "--watch", vec!["- DAC_READ_SEARCH", "runAsUser: 0"]),
        ("discovery", "up", vec!["- DAC_READ_SEARCH", "runAsUser: 0"]),
        (
            "non-root",
            "--watch",
            vec!["runAsNonRoot: true", "runAsUser: 65532", "runAsGroup: 0"],
        ),
    ] {
        let made = Command::new("kubectl")
            .arg("kustomize")
            .arg(deploy(&format!("kubernetes/{variant}")))
            .output();
        let Ok(made) = made else {
            println!("SKIPPED: what kustomize makes of deploy/kubernetes: there is no kubectl");
            return;
        };
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{variant}: {said}");
        let made = String::from_utf8_lossy(&made.stdout);
        let documents = documents(&made, variant);
        assert_shape(&documents, variant);
        let pod = at(of_kind(&documents, "DaemonSet"), "spec::template::spec");
        let container = at(pod, "containers::0");
        assert_few_rights(container, &more);
        let has_capability = to_yaml(container).contains("DAC_READ_SEARCH");
        assert_eq!(has_capability, variant != "non-root");
        let image = at(container, "image").as_str();
        assert_eq!(image, Some(&*format!("tailwater:{VERSION}")));
        let told = to_yaml(at(container, "args"));
        assert!(told.contains(args), "{told}");
        // The file that it is told to read is in its ConfigMap.
        let data = at(of_kind(&documents, "ConfigMap"), "data");
        let keys: Vec<&str> = data
            .as_map()
            .expect("a map")
            .iter()
            .map(|(k, _)| k.text.as_str())
            .collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert!(
            told.contains(&format!("/etc/tailwater/{}", keys[0])),
            "{told}"
        );
    }
}

/// Guarantees that the configurations are valid, without a warning.
#[test]
fn configurations_are_valid() {
    let dir = TempDir::new("deploy").expect("a directory");
    let sidecar = documents(&text("kubernetes/sidecar/sidecar.yaml"), "sidecar.yaml");
    let of_sidecar = at(of_kind(&sidecar, "ConfigMap"), "data").get("agent.yaml");
    let of_sidecar = of_sidecar.and_then(Node::as_str).expect("a configuration");
    for (name, config) in [
        ("agent.yaml", &*text("kubernetes/base/agent.yaml")),
        ("sidecar.yaml", of_sidecar),
    ] {
        let file = dir.join(name);
        fs::write(&file, config).expect("written");
        let out = Command::new(binary())
            .args(["validate", "--config"])
            .arg(&file)
            .env("TAILWATER_STATE_DIR", dir.path())
            .env("K8S_NODE_NAME", "n1")
            .env("NAMESPACE", "shop")
            .env("POD", "web-0")
            .output();
        let out = out.expect("it runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success() && !said.contains("warning"),
            "{name}: {said}"
        );
    }
}

/// Guarantees that `up` runs with each base.
#[test]
fn bases_are_valid() {
    for name in ["kubernetes/discovery/base.yaml", "compose/base.yaml"] {
        let dir = TempDir::new("deploy-base").expect("a directory");
        let mut base = text(name);
        for port in ["13133", "8888"] {
            let free = free_port().expect("a port").to_string();
            base = base.replace(port, &free);
        }
        let file = dir.join("base.yaml");
        fs::write(&file, base.replace("0.0.0.0", "127.0.0.1")).expect("written");
        let nothing = dir.join("nothing.log").display().to_string();
        let file = file.display().to_string();
        let args = ["--base", &file, "--docker", "off", "--files", &nothing];
        let agent = Agent::up(&args, &dir.join("state"), dir.path());
        agent.stop_clean();
    }
}

/// Guarantees that the compose file has the names that Compose knows, at their places, and mounts what is there; and, where there is
/// Compose, that it says so, too.
#[test]
fn the_compose_file_is_one() {
    let file = deploy("compose/compose.yaml");
    let compose = parse(&text("compose/compose.yaml"), "compose.yaml").expect("YAML");
    let wrong = differences(&compose, &COMPOSE);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let volumes = at(&compose, "volumes").as_map().expect("a map");
    for (service, section) in at(&compose, "services").as_map().expect("a map") {
        let mounts = section.get("volumes").and_then(Node::as_list);
        for mount in mounts.unwrap_or_default() {
            let mount = mount.as_str().expect("a text");
            let source = mount.split(':').next().unwrap_or_default();
            let there = match source.strip_prefix('.') {
                Some(_) => deploy("compose").join(source).exists(),
                None => source.starts_with('/') || volumes.iter().any(|(k, _)| k.text == *source),
            };
            assert!(there, "{}: {mount}", service.text);
        }
    }
    let checked = Command::new("docker")
        .args(["compose", "--file"])
        .arg(&file)
        .args(["config", "--quiet"])
        .output();
    let Ok(checked) = checked else {
        println!("SKIPPED: what Compose says of its file: there is no docker");
        return;
    };
    let said = String::from_utf8_lossy(&checked.stderr);
    match said.contains("is not a docker command")
        || said.contains("unknown command")
        || said.contains("unknown flag")
    {
        true => println!("SKIPPED: what Compose says of its file: docker has no compose"),
        false => assert!(checked.status.success(), "{said}"),
    }
}

/// Names of metrics in an expression.
fn metrics(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = |w: &&str| w.starts_with("tailwater_") || w.starts_with("otelcol_");
    words.filter(ours).collect()
}

/// Guarantees that each panel of each dashboard shows something that is counted: every metric in its expressions is one that
/// the agent or the control plane declares.
#[test]
fn dashboards_show_metrics_that_there_are() {
    let families = tailwater_telemetry::metrics::families();
    let declared: BTreeSet<&str> = families.iter().map(|family| family.name).collect();
    // The program for fleets has its own, and shows those of the library, too.
    let fleet = include_str!("../../control-plane/server/src/api/metrics.rs");
    let of_fleet = |name: &str| {
        let name = name.strip_suffix("_total").unwrap_or(name);
        fleet.contains(&format!("\"{name}\""))
    };
    for name in ["agent.json", "control-plane.json"] {
        let board: Value = serde_json::from_str(&text(&format!("grafana/{name}"))).expect("JSON");
        let mut ids = BTreeSet::new();
        let mut shown = 0;
        let panels = board["panels"].as_array().expect("panels").iter();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_u64()), "{name}: {panel}");
            let is_row = panel["type"] == "row";
            let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
            assert_eq!(is_row, targets.is_empty(), "{name}: {panel}");
            for target in targets {
                let expression = target["expr"].as_str().expect("an expression");
                let metrics = metrics(expression);
                assert!(!metrics.is_empty(), "{name}: {expression}");
                for metric in metrics {
                    let known = declared.contains(metric) || of_fleet(metric);
                    assert!(known, "{name}: {metric} is not declared");
                    shown += 1;
                }
            }
        }
        assert!(shown > 10, "{name}");
        let variables = board["templating"]["list"].as_array().expect("variables");
        for variable in variables.iter().filter(|v| v["type"] == "query") {
            let query = variable["query"].as_str().expect("a query");
            let metrics = metrics(query);
            let known = |m: &&str| declared.contains(*m) || of_fleet(m);
            assert!(metrics.len() == 1 && metrics.iter().all(known), "{query}");
        }
    }
    assert!(!declared.contains("tailwater_no_such_metric") && !of_fleet("tailwater_fleet_no"));
}
