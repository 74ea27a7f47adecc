//! How the API of the cluster is reached: options that several components have.

use tailwater_config::{Environment, ProcessEnvironment, Section};
use tailwater_kubernetes::{Access, Auth};
use tailwater_pipeline::reach::Reach;

/// What it calls itself.
pub(crate) const USER_AGENT: &str = concat!("tailwater/", env!("CARGO_PKG_VERSION"));

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "auth_type",
        "Who one is to the API server: the pod's service account; what the files that `KUBECONFIG` names, `~/.kube/config` or `kube_config_path` say; or nobody, which verifies nothing.",
    ),
    (
        "context",
        "Of kubeConfig: the context, in place of the current one.",
    ),
    ("kube_config_path", "Of kubeConfig: the file."),
];

/// `auth_type`, `context` and `kube_config_path`.
pub(crate) fn decode(s: &mut Section<'_, '_>) -> Access {
    s.describe(OPTIONS);
    if s.str_optional("auth_type") == Some("tls") {
        s.invalid(
            "auth_type",
            "tls is not supported (nor does it work in the collector); use kubeConfig with a client certificate",
        );
    }
    let kinds = [
        ("none", Auth::None),
        ("serviceAccount", Auth::ServiceAccount),
        ("kubeConfig", Auth::KubeConfig),
        ("tls", Auth::ServiceAccount),
    ];
    let auth = s.choice("auth_type", &kinds, Auth::ServiceAccount);
    let set = |text: Option<String>| text.filter(|text| !text.is_empty());
    let context = set(s.string_optional("context"));
    let kube_config = set(s.string_optional("kube_config_path"));
    for (key, is_set) in [
        ("context", context.is_some()),
        ("kube_config_path", kube_config.is_some()),
    ] {
        if is_set && auth != Auth::KubeConfig {
            s.invalid(key, "is used with auth_type: kubeConfig only");
        }
    }
    Access {
        auth,
        context,
        kube_config: kube_config.map(|path| in_home(&path, &ProcessEnvironment).into()),
    }
}

/// A path that may begin with `~/`.
fn in_home(path: &str, env: &dyn Environment) -> String {
    let home = env
        .variable("HOME")
        .and_then(|home| home.into_string().ok());
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => format!("{home}/{rest}"),
        _ => path.to_owned(),
    }
}

/// Adds the files and the server it uses.
pub(crate) fn reach(access: &Access, reach: &mut Reach) {
    for file in access.files(&ProcessEnvironment) {
        reach.reads_file(&file);
    }
    // What is wrong is said when it is used.
    if let Ok(target) = access.target(&ProcessEnvironment) {
        reach.connects_to(format!("{}:{}", target.host, target.port));
    }
}

/// The node that a variable names.
///
/// # Errors
/// It names none.
pub(crate) fn node_from(variable: &str, env: &dyn Environment) -> Result<String, String> {
    let node = env.variable(variable).and_then(|v| v.into_string().ok());
    node.filter(|node| !node.is_empty()).ok_or_else(|| {
        format!(
            "node_from_env_var: variable {variable} is not set or empty; set it to the name of the node, in a pod by \
             fieldPath: spec.nodeName"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::MemoryEnvironment;

    #[test]
    fn a_node_has_to_be_named() {
        let env = MemoryEnvironment::new()
            .with_variable("N", "n1")
            .with_variable("E", "");
        assert_eq!(node_from("N", &env), Ok("n1".into()));
        for variable in ["E", "MISSING"] {
            assert!(node_from(variable, &env).unwrap_err().contains(variable));
        }
    }

    #[test]
    fn a_tilde_is_home() {
        let env = MemoryEnvironment::new().with_variable("HOME", "/home/me");
        assert_eq!(in_home("~/.kube/config", &env), "/home/me/.kube/config");
        assert_eq!(in_home("/etc/k", &env), "/etc/k");
    }
}
