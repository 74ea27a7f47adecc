//! Kubeconfig files: contexts, clusters and users.
//!
//! Source: the types of `client-go` (`tools/clientcmd/api/v1`), and how it puts several files together: of what
//! has the same name in several, the first one counts.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tailwater_config::{Environment, Node, Secret, parse_bytes};

use crate::access::{Access, AccessError, Target, bearer, read};

/// The files, in the order in which they count.
pub(crate) fn files(access: &Access, env: &dyn Environment) -> Vec<PathBuf> {
    if let Some(path) = &access.kube_config {
        return vec![path.clone()];
    }
    if let Some(paths) = env.variable("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        let paths = std::env::split_paths(&paths);
        return paths.filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let home = env.variable("HOME").map(PathBuf::from);
    home.iter().map(|home| home.join(".kube/config")).collect()
}

/// One of the files.
struct File {
    path: PathBuf,
    root: Node,
}

/// The server and the user of a context.
pub(crate) fn target(access: &Access, env: &dyn Environment) -> Result<Target, AccessError> {
    let paths = files(access, env);
    let mut found = Vec::new();
    for path in &paths {
        match read(env, path) {
            Ok(bytes) => found.push(File::parse(path, &bytes)?),
            // Of several files some need not be there.
            Err(_) if paths.len() > 1 => {}
            Err(error) => return Err(error),
        }
    }
    let Some(first) = found.first() else {
        return Err(AccessError::content(
            "kubeconfig",
            "none of the files that KUBECONFIG names can be read",
        ));
    };
    let place = first.path.display().to_string();
    let current = || {
        let mut names = found
            .iter()
            .filter_map(|f| text(&f.root, "current-context"));
        names.next().map(str::to_owned)
    };
    let name = access
        .context
        .clone()
        .or_else(current)
        .ok_or_else(|| AccessError::content(&place, "has no current-context; set context"))?;
    let (_, context) = entry(&found, "contexts", "context", &name)?;
    let of_context = |key| {
        text(context, key)
            .ok_or_else(|| AccessError::content(&place, format!("context {name:?} has no {key}")))
    };
    let (at, cluster) = entry(&found, "clusters", "cluster", of_context("cluster")?)?;
    let mut target = server(at, cluster, env)?;
    if let Some(user) = text(context, "user") {
        let (at, user) = entry(&found, "users", "user", user)?;
        add_user(&mut target, at, user, env)?;
    }
    Ok(target)
}

impl File {
    fn parse(path: &Path, bytes: &[u8]) -> Result<File, AccessError> {
        let name = path.display().to_string();
        let root = parse_bytes(bytes, &name)
            .map_err(|errors| AccessError::content(&name, format!("is no YAML: {errors}")))?;
        let path = path.to_path_buf();
        Ok(File { path, root })
    }

    fn problem(&self, problem: impl Into<String>) -> AccessError {
        AccessError::content(self.path.display().to_string(), problem)
    }

    /// A file that is named in this one, beside which relative paths begin.
    fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// What is in the file `key` names, or in `key-data` itself, which counts before.
    fn content(
        &self,
        node: &Node,
        key: &str,
        env: &dyn Environment,
    ) -> Result<Option<Vec<u8>>, AccessError> {
        let data = format!("{key}-data");
        if let Some(encoded) = text(node, &data) {
            let packed: String = encoded.split_whitespace().collect();
            let decoded = STANDARD.decode(packed);
            return decoded
                .map(Some)
                .map_err(|_| self.problem(format!("{data} is not base64")));
        }
        let path = text(node, key).map(|path| self.beside(path));
        path.map(|path| read(env, &path)).transpose()
    }
}

fn text<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    let value = node.get(key)?.as_str()?;
    (!value.is_empty()).then_some(value)
}

/// The entry `name` of a list of `{name, <kind>: ...}`, and the file it is in.
fn entry<'f>(
    files: &'f [File],
    list: &str,
    kind: &str,
    name: &str,
) -> Result<(&'f File, &'f Node), AccessError> {
    for file in files {
        let entries = file.root.get(list).and_then(Node::as_list);
        let mut entries = entries.unwrap_or_default().iter();
        let found = entries.find(|e| text(e, "name") == Some(name));
        if let Some(found) = found.and_then(|e| e.get(kind)) {
            return Ok((file, found));
        }
    }
    let paths: Vec<String> = files.iter().map(|f| f.path.display().to_string()).collect();
    let problem = format!("has no {kind} {name:?} in {list}");
    Err(AccessError::content(paths.join(", "), problem))
}

fn server(file: &File, cluster: &Node, env: &dyn Environment) -> Result<Target, AccessError> {
    if text(cluster, "proxy-url").is_some() {
        return Err(
            file.problem("proxy-url of a cluster is not supported; the API is reached directly")
        );
    }
    let url = text(cluster, "server").ok_or_else(|| file.problem("a cluster has no server"))?;
    let mut target = parse_url(url).ok_or_else(|| {
        file.problem(format!(
            "server {url:?} is not a URL such as https://host:6443"
        ))
    })?;
    target.authorities = file.content(cluster, "certificate-authority", env)?;
    let insecure = cluster.get("insecure-skip-tls-verify");
    target.insecure = insecure.and_then(Node::as_bool).unwrap_or(false);
    target.server_name = text(cluster, "tls-server-name").map(str::to_owned);
    Ok(target)
}

/// `https://host:port/base`; without a scheme it is HTTP, as in `client-go`.
fn parse_url(url: &str) -> Option<Target> {
    let (tls, rest) = match url.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        Some(_) => return None,
        None => (false, url),
    };
    let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => (host, port.parse().ok()?),
        Some(_) if !authority.ends_with(']') => return None,
        _ => (authority, if tls { 443 } else { 80 }),
    };
    if host.is_empty() || host.contains(['@', ' ', '?', '#']) || base.contains(['?', '#', ' ']) {
        return None;
    }
    Some(Target {
        tls,
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        base: base.trim_end_matches('/').to_owned(),
        ..Target::default()
    })
}

fn add_user(
    target: &mut Target,
    file: &File,
    user: &Node,
    env: &dyn Environment,
) -> Result<(), AccessError> {
    for key in ["exec", "auth-provider", "as"] {
        if user.get(key).is_some_and(|node| !node.is_null()) {
            let problem = format!(
                "{key} of a user is not supported: the agent starts no program and acts for nobody else; use a token, \
                 a file with one, or a certificate"
            );
            return Err(file.problem(problem));
        }
    }
    let certificate = file.content(user, "client-certificate", env)?;
    let key = file.content(user, "client-key", env)?;
    target.identity = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let key = String::from_utf8(key)
                .map_err(|_| file.problem("client-key is not in PEM form"))?;
            Some((certificate, Secret::new(key)))
        }
        (None, None) => None,
        _ => {
            return Err(
                file.problem("a user needs both client-certificate and client-key, or none")
            );
        }
    };
    target.authorization = match (text(user, "token"), text(user, "tokenFile")) {
        (Some(token), _) => Some(bearer(token.as_bytes())),
        (None, Some(path)) => Some(bearer(&read(env, &file.beside(path))?)),
        (None, None) => text(user, "username").map(|name| {
            let password = text(user, "password").unwrap_or_default();
            let encoded = STANDARD.encode(format!("{name}:{password}"));
            Secret::new(format!("Basic {encoded}"))
        }),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Auth;
    use tailwater_config::MemoryEnvironment;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: dev
contexts:
  - {name: dev, context: {cluster: near, user: me}}
  - {name: prod, context: {cluster: far, user: other}}
clusters:
  - {name: near, cluster: {server: 'http://127.0.0.1:8001/k8s/'}}
  - {name: far, cluster: {server: 'https://[fd00::1]:6443', certificate-authority-data: UEVN, tls-server-name: api}}
users:
  - {name: me, user: {tokenFile: token}}
  - {name: other, user: {client-certificate: c.pem, client-key: k.pem}}
";

    fn env(text: &str) -> MemoryEnvironment {
        MemoryEnvironment::new()
            .with_variable("HOME", "/home/me")
            .with_file("/home/me/.kube/config", text)
            .with_file("/home/me/.kube/token", "abc\n")
            .with_file("/home/me/.kube/c.pem", "C")
            .with_file("/home/me/.kube/k.pem", "K")
    }

    fn access(context: Option<&str>) -> Access {
        Access {
            auth: Auth::KubeConfig,
            context: context.map(str::to_owned),
            kube_config: None,
        }
    }

    #[test]
    fn contexts_lead_to_servers_and_users() {
        let near = access(None).target(&env(FILE)).unwrap();
        assert_eq!(
            (&*near.host, near.port, near.tls),
            ("127.0.0.1", 8001, false)
        );
        assert_eq!(near.base, "/k8s");
        assert_eq!(near.authorization.unwrap().expose(), "Bearer abc");
        let far = access(Some("prod")).target(&env(FILE)).unwrap();
        assert_eq!((&*far.host, far.port, far.tls), ("fd00::1", 6443, true));
        assert_eq!(far.authorities.as_deref(), Some(&b"PEM"[..]));
        assert_eq!(far.server_name.as_deref(), Some("api"));
        let (certificate, key) = far.identity.unwrap();
        assert_eq!((&certificate[..], key.expose()), (&b"C"[..], "K"));
    }

    #[test]
    fn of_several_files_the_first_that_has_it_counts() {
        let env = env(FILE)
            .with_variable("KUBECONFIG", "/a:/gone:/home/me/.kube/config")
            .with_file(
                "/a",
                "clusters: [{name: near, cluster: {server: 'http://a:1'}}]\n",
            );
        let target = access(None).target(&env).unwrap();
        assert_eq!(target.host, "a");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_file() {
        let change = |from: &str, to: &str| env(&FILE.replace(from, to));
        let cases = [
            (change("current-context: dev", ""), "current-context"),
            (
                change("current-context: dev", "current-context: x"),
                "no context \"x\"",
            ),
            (
                change("cluster: near, user", "cluster: y, user"),
                "no cluster \"y\"",
            ),
            (
                change("tokenFile: token", "exec: {command: aws}"),
                "exec of a user",
            ),
            (
                change("tokenFile: token", "tokenFile: gone"),
                "/home/me/.kube/gone",
            ),
            (
                change("http://127.0.0.1:8001/k8s/", "ftp://x"),
                "is not a URL",
            ),
            (
                change("tokenFile: token", "client-key: k.pem"),
                "needs both",
            ),
            (change("contexts:", "contexts: ["), "is no YAML"),
        ];
        for (env, wanted) in cases {
            let error = access(None).target(&env).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error} (wanted {wanted})");
            assert!(error.contains("/home/me/.kube/"), "{error}");
        }
    }

    #[test]
    fn urls_of_servers() {
        let parts = |url| parse_url(url).map(|t| (t.tls, t.host, t.port, t.base));
        let some =
            |tls, host: &str, port, base: &str| Some((tls, host.to_owned(), port, base.to_owned()));
        assert_eq!(parts("https://h"), some(true, "h", 443, ""));
        assert_eq!(parts("https://[::1]"), some(true, "::1", 443, ""));
        assert_eq!(parts("h:8080/a/b"), some(false, "h", 8080, "/a/b"));
        for bad in [
            "https://",
            "https://h:99999",
            "https://h:x",
            "https://u@h",
            "https://h/?q",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
