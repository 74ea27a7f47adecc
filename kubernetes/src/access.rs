//! Where the API is, and who one is there.
//!
//! What is in files is read anew each time a connection is made or a request is sent: tokens of service accounts are
//! replaced every hour or so, and certificates, too.

use std::io;
use std::path::{Path, PathBuf};

use tailwater_config::{Environment, Secret};

use crate::kubeconfig;

/// Where Kubernetes puts what belongs to the service account of a pod.
pub const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How one shows who one is: `auth_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Auth {
    /// Not at all; the server is not verified either.
    None,
    /// By the token of the service account of the pod that this runs in.
    #[default]
    ServiceAccount,
    /// As `kubectl` does, by the files that `KUBECONFIG` names, or `~/.kube/config`.
    KubeConfig,
}

/// How the API is reached: nothing of it is looked at before it is used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// How one shows who one is.
    pub auth: Auth,
    /// `context`: the one of a kubeconfig file that is used in place of its current one.
    pub context: Option<String>,
    /// `kube_config_path`: the kubeconfig file, in place of those that the environment names.
    pub kube_config: Option<PathBuf>,
}

/// A server, and what is shown to it. Debug output holds no secret.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Target {
    /// TLS is spoken.
    pub tls: bool,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What paths begin with: empty, or `/` and more without a `/` at the end.
    pub base: String,
    /// The name that its certificate has to have, if it is not `host`.
    pub server_name: Option<String>,
    /// The authorities for its certificate in PEM form; those of the system without any.
    pub authorities: Option<Vec<u8>>,
    /// Its certificate is not verified.
    pub insecure: bool,
    /// A certificate to show and its key, in PEM form.
    pub identity: Option<(Vec<u8>, Secret)>,
    /// The header `Authorization`.
    pub authorization: Option<Secret>,
}

/// Why it is not known where the API is, or who one is.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// This does not run in a pod.
    #[error(
        "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this does not run in a pod, \
         or its service links are off; set auth_type: kubeConfig"
    )]
    NotInCluster,
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What is in a file, or in a variable, cannot be used.
    #[error("{place}: {problem}")]
    Content {
        /// Where.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

impl AccessError {
    pub(crate) fn content(place: impl Into<String>, problem: impl Into<String>) -> AccessError {
        let (place, problem) = (place.into(), problem.into());
        AccessError::Content { place, problem }
    }
}

impl Access {
    /// Finds out where the API is now.
    ///
    /// # Errors
    /// It is not said, or files that say it cannot be used.
    pub fn target(&self, env: &dyn Environment) -> Result<Target, AccessError> {
        match self.auth {
            Auth::None => Ok(Target {
                insecure: true,
                ..in_cluster(env)?
            }),
            Auth::ServiceAccount => service_account(Path::new(SERVICE_ACCOUNT_DIR), env),
            Auth::KubeConfig => kubeconfig::target(self, env),
        }
    }

    /// The files that [`Access::target`] reads, as far as they are known before.
    pub fn files(&self, env: &dyn Environment) -> Vec<PathBuf> {
        match self.auth {
            Auth::None => Vec::new(),
            Auth::ServiceAccount => {
                let file = |name| Path::new(SERVICE_ACCOUNT_DIR).join(name);
                ["token", "ca.crt"].map(file).to_vec()
            }
            Auth::KubeConfig => kubeconfig::files(self, env),
        }
    }
}

/// Where the API is for pods.
fn in_cluster(env: &dyn Environment) -> Result<Target, AccessError> {
    let value = |name: &str| {
        let value = env.variable(name)?.into_string().ok()?;
        (!value.is_empty()).then_some(value)
    };
    let found = value("KUBERNETES_SERVICE_HOST").zip(value("KUBERNETES_SERVICE_PORT"));
    let (host, port) = found.ok_or(AccessError::NotInCluster)?;
    let port = port.parse().map_err(|_| {
        AccessError::content(
            "KUBERNETES_SERVICE_PORT",
            format!("{port:?} is not a port, a number up to 65535"),
        )
    })?;
    Ok(Target {
        tls: true,
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        ..Target::default()
    })
}

/// Access by the token in `dir`.
pub(crate) fn service_account(dir: &Path, env: &dyn Environment) -> Result<Target, AccessError> {
    let target = in_cluster(env)?;
    let token = read(env, &dir.join("token"))?;
    // Without a file of authorities, those of the system count, as everywhere in Kubernetes' own clients.
    let authorities = env.read_file(&dir.join("ca.crt")).ok();
    Ok(Target {
        authorities,
        authorization: Some(bearer(&token)),
        ..target
    })
}

/// The header for a token, which may end with a line feed.
pub(crate) fn bearer(token: &[u8]) -> Secret {
    let token = String::from_utf8_lossy(token);
    Secret::new(format!("Bearer {}", token.trim()))
}

pub(crate) fn read(env: &dyn Environment, path: &Path) -> Result<Vec<u8>, AccessError> {
    env.read_file(path).map_err(|error| AccessError::Read {
        path: path.to_path_buf(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::MemoryEnvironment;

    fn pod() -> MemoryEnvironment {
        MemoryEnvironment::new()
            .with_variable("KUBERNETES_SERVICE_HOST", "10.96.0.1")
            .with_variable("KUBERNETES_SERVICE_PORT", "443")
    }

    #[test]
    fn a_pod_has_its_service_account() {
        let dir = Path::new(SERVICE_ACCOUNT_DIR);
        let env = pod()
            .with_file(dir.join("token"), "abc\n")
            .with_file(dir.join("ca.crt"), "PEM");
        let target = Access::default().target(&env).unwrap();
        assert_eq!(
            (&*target.host, target.port, target.tls),
            ("10.96.0.1", 443, true)
        );
        assert_eq!(target.authorities.as_deref(), Some(&b"PEM"[..]));
        assert_eq!(target.authorization.unwrap().expose(), "Bearer abc");
        assert!(!target.insecure);
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            (MemoryEnvironment::new(), "KUBERNETES_SERVICE_HOST"),
            (pod(), "serviceaccount/token"),
            (
                pod().with_variable("KUBERNETES_SERVICE_PORT", "http"),
                "is not a port",
            ),
        ];
        for (env, wanted) in cases {
            let error = Access::default().target(&env).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn without_authentication_nothing_is_verified_or_shown() {
        let access = Access {
            auth: Auth::None,
            ..Access::default()
        };
        let env = pod().with_variable("KUBERNETES_SERVICE_HOST", "[fd00::1]");
        let target = access.target(&env).unwrap();
        assert!(target.insecure && target.authorization.is_none());
        assert_eq!(target.host, "fd00::1");
    }
}
