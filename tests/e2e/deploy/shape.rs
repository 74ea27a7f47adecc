//! Our own table of what may stand where in the manifests and the compose file of `deploy/`: as much of Kubernetes' API
//! (1.29 and newer) and of the Compose specification as they use, not a schema of either. It takes a name that is misspelt or stands at
//! another place for what it is.

use tailwater_config::Node;

/// What may be at a place.
pub enum Shape {
    /// A text, a number, true or false.
    Scalar,
    /// A map of any names to scalars.
    Texts,
    /// Anything.
    Open,
    /// A list of these.
    List(&'static Shape),
    /// A map of any names to these.
    Named(&'static Shape),
    /// A map of these names.
    Map(&'static [(&'static str, &'static Shape)]),
}

use Shape::{List, Map, Named, Open, Scalar, Texts};

/// What is in a document that should not be there, or not there, each with its place.
pub fn differences(node: &Node, shape: &Shape) -> Vec<String> {
    let mut found = Vec::new();
    compare(node, shape, "", &mut found);
    found
}

fn compare(node: &Node, shape: &Shape, path: &str, found: &mut Vec<String>) {
    let mut wrong = |what: &str| found.push(format!("{path}: {} is {what}", node.describe()));
    match shape {
        Open => {}
        Scalar if node.as_map().is_some() || node.as_list().is_some() => wrong("no scalar"),
        Scalar => {}
        List(each) => match node.as_list() {
            Some(nodes) => {
                for (i, node) in nodes.iter().enumerate() {
                    compare(node, each, &format!("{path}/{i}"), found);
                }
            }
            None => wrong("no list"),
        },
        Texts | Named(_) | Map(_) => {
            let Some(entries) = node.as_map() else {
                wrong("no map");
                return;
            };
            for (key, node) in entries {
                let path = format!("{path}/{}", key.text);
                let shape = match shape {
                    Named(each) => Some(*each),
                    Map(names) => names
                        .iter()
                        .find(|(n, _)| *n == &*key.text)
                        .map(|(_, s)| *s),
                    _ => Some(&Scalar),
                };
                match shape {
                    Some(shape) => compare(node, shape, &path, found),
                    None => found.push(format!("{path}: there is no such name at this place")),
                }
            }
        }
    }
}

const META: Shape = Map(&[
    ("name", &Scalar),
    ("namespace", &Scalar),
    ("labels", &Texts),
    ("annotations", &Texts),
]);
const SELECTOR: Shape = Map(&[("matchLabels", &Texts)]);
const SECCOMP: Shape = Map(&[("type", &Scalar)]);
const CONTEXT: Shape = Map(&[
    ("runAsUser", &Scalar),
    ("runAsGroup", &Scalar),
    ("runAsNonRoot", &Scalar),
    ("privileged", &Scalar),
    ("allowPrivilegeEscalation", &Scalar),
    ("readOnlyRootFilesystem", &Scalar),
    (
        "capabilities",
        &Map(&[("add", &List(&Scalar)), ("drop", &List(&Scalar))]),
    ),
    ("seccompProfile", &SECCOMP),
]);
const PROBE: Shape = Map(&[
    ("httpGet", &Map(&[("path", &Scalar), ("port", &Scalar)])),
    ("periodSeconds", &Scalar),
    ("failureThreshold", &Scalar),
]);
const FIELD: Shape = Map(&[("fieldRef", &Map(&[("fieldPath", &Scalar)]))]);
const CONTAINER: Shape = Map(&[
    ("name", &Scalar),
    ("image", &Scalar),
    ("imagePullPolicy", &Scalar),
    ("restartPolicy", &Scalar),
    ("command", &List(&Scalar)),
    ("args", &List(&Scalar)),
    (
        "env",
        &List(&Map(&[
            ("name", &Scalar),
            ("value", &Scalar),
            ("valueFrom", &FIELD),
        ])),
    ),
    (
        "ports",
        &List(&Map(&[("name", &Scalar), ("containerPort", &Scalar)])),
    ),
    ("securityContext", &CONTEXT),
    (
        "resources",
        &Map(&[("requests", &Texts), ("limits", &Texts)]),
    ),
    ("livenessProbe", &PROBE),
    ("readinessProbe", &PROBE),
    ("startupProbe", &PROBE),
    (
        "volumeMounts",
        &List(&Map(&[
            ("name", &Scalar),
            ("mountPath", &Scalar),
            ("readOnly", &Scalar),
        ])),
    ),
]);
const VOLUME: Shape = Map(&[
    ("name", &Scalar),
    ("configMap", &Map(&[("name", &Scalar)])),
    ("hostPath", &Map(&[("path", &Scalar), ("type", &Scalar)])),
    ("emptyDir", &Map(&[("sizeLimit", &Scalar)])),
]);
const POD: Shape = Map(&[
    ("serviceAccountName", &Scalar),
    ("automountServiceAccountToken", &Scalar),
    ("terminationGracePeriodSeconds", &Scalar),
    ("priorityClassName", &Scalar),
    (
        "securityContext",
        &Map(&[
            ("runAsUser", &Scalar),
            ("runAsGroup", &Scalar),
            ("runAsNonRoot", &Scalar),
            ("fsGroup", &Scalar),
            ("seccompProfile", &SECCOMP),
        ]),
    ),
    (
        "tolerations",
        &List(&Map(&[("key", &Scalar), ("operator", &Scalar)])),
    ),
    ("initContainers", &List(&CONTAINER)),
    ("containers", &List(&CONTAINER)),
    ("volumes", &List(&VOLUME)),
]);
const REFERENCE: Shape = Map(&[
    ("apiGroup", &Scalar),
    ("kind", &Scalar),
    ("name", &Scalar),
    ("namespace", &Scalar),
]);

/// A document of Kubernetes, of the kinds that are used.
pub const KUBERNETES: Shape = Map(&[
    ("apiVersion", &Scalar),
    ("kind", &Scalar),
    ("metadata", &META),
    ("data", &Texts),
    ("roleRef", &REFERENCE),
    ("subjects", &List(&REFERENCE)),
    (
        "rules",
        &List(&Map(&[
            ("apiGroups", &List(&Scalar)),
            ("resources", &List(&Scalar)),
            ("verbs", &List(&Scalar)),
        ])),
    ),
    (
        "spec",
        &Map(&[
            ("selector", &SELECTOR),
            (
                "updateStrategy",
                &Map(&[("rollingUpdate", &Map(&[("maxUnavailable", &Scalar)]))]),
            ),
            ("template", &Map(&[("metadata", &META), ("spec", &POD)])),
        ]),
    ),
]);

/// A compose file.
pub const COMPOSE: Shape = Map(&[
    ("name", &Scalar),
    (
        "services",
        &Named(&Map(&[
            ("image", &Scalar),
            (
                "build",
                &Map(&[("context", &Scalar), ("dockerfile", &Scalar)]),
            ),
            ("command", &List(&Scalar)),
            ("restart", &Scalar),
            ("read_only", &Scalar),
            ("cap_drop", &List(&Scalar)),
            ("cap_add", &List(&Scalar)),
            ("security_opt", &List(&Scalar)),
            ("stop_grace_period", &Scalar),
            ("labels", &Texts),
            ("environment", &Texts),
            ("ports", &List(&Scalar)),
            ("volumes", &List(&Scalar)),
            ("depends_on", &List(&Scalar)),
        ])),
    ),
    ("volumes", &Named(&Open)),
]);

/// Guarantees that the table finds what it is there for.
#[test]
fn what_stands_at_a_wrong_place_is_found() {
    let wrong = |text: &str| {
        differences(
            &tailwater_config::parse(text, "x").expect("YAML"),
            &KUBERNETES,
        )
    };
    assert!(wrong("{kind: Pod, metadata: {name: a, labels: {x: y}}}").is_empty());
    for (text, place) in [
        ("{metdata: {}}", "/metdata"),
        ("{metadata: {name: {}}}", "/metadata/name"),
        (
            "{spec: {template: {spec: {containers: {}}}}}",
            "/spec/template/spec/containers",
        ),
        (
            "{spec: {template: {spec: {containers: [{securtyContext: {}}]}}}}",
            "/spec/template/spec/containers/0/securtyContext",
        ),
        ("{subjects: a}", "/subjects"),
    ] {
        let found = wrong(text);
        assert!(found.len() == 1 && found[0].starts_with(place), "{found:?}");
    }
}
