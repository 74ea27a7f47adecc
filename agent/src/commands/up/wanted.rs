//! What `up` looks for, of what the command line says and of what is there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tailwater_config::Environment;
use tailwater_control_plane::discovery::docker;
use tailwater_control_plane::discovery::kubernetes::pod::is_subdomain;
use tailwater_control_plane::discovery::kubernetes::{Access, Auth, Node, in_pod};
use tailwater_control_plane::discovery::walk::{Pattern, is_pattern};
use tailwater_control_plane::discovery::wishes::Rules;

use crate::cli::UpArgs;
use crate::commands::check::warn;

/// Where an Engine usually is.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Where links in the directories of pods lead to if the node's runtime is Docker.
const DOCKER_CONTAINERS: &str = "/var/lib/docker/containers";
/// Names the node, as `fieldPath: spec.nodeName` gives it to a pod.
const NODE_VARIABLE: &str = "K8S_NODE_NAME";

/// What is looked for.
pub struct Wanted {
    /// The socket of an Engine.
    pub docker: Option<PathBuf>,
    /// A node of Kubernetes.
    pub node: Option<Node>,
    /// Patterns of files.
    pub patterns: Vec<Pattern>,
    /// Files by name; absolute.
    pub named: Vec<String>,
    /// What containers may ask for.
    pub rules: Rules,
    /// Directories that logs are below, as far as they are known.
    pub roots: Vec<PathBuf>,
}

impl Wanted {
    /// Finds it out.
    ///
    /// # Errors
    /// Something cannot be, or there is nothing to look for.
    pub fn of(args: &UpArgs, env: &dyn Environment) -> Result<Wanted> {
        let (patterns, named): (Vec<_>, Vec<_>) = args.files.iter().partition(|p| is_pattern(p));
        let mut wanted = Wanted {
            docker: None,
            node: node(args, env)?,
            patterns: Vec::new(),
            named: named.into_iter().map(absolute).collect::<Result<_>>()?,
            rules: Rules {
                opt_in: args.opt_in,
                tenants: args.tenant.iter().cloned().collect(),
            },
            roots: Vec::new(),
        };
        for text in patterns {
            let pattern = Pattern::new(&absolute(text)?);
            let pattern = pattern.map_err(|e| anyhow::anyhow!("--files {text:?}: {e}"))?;
            wanted.roots.push(pattern.root().to_path_buf());
            wanted.patterns.push(pattern);
        }
        let parents = wanted.named.iter().filter_map(|p| Path::new(p).parent());
        wanted.roots.extend(parents.map(Path::to_path_buf));
        if let Some(node) = &wanted.node {
            wanted.roots.push(node.logs.clone());
            wanted.roots.push(DOCKER_CONTAINERS.into());
        }
        wanted.add_docker(args.docker.as_deref())?;
        Ok(wanted)
    }

    /// Whether files are looked for.
    pub fn looks_for_files(&self) -> bool {
        !self.patterns.is_empty() || !self.named.is_empty()
    }

    fn add_docker(&mut self, said: Option<&str>) -> Result<()> {
        let others = self.looks_for_files() || self.node.is_some();
        let socket = match (said, &self.node) {
            (Some("off"), _) if !others => {
                bail!(
                    "there is nothing to look for: --docker is off, --files names nothing, and --kubernetes is off or \
                     knows of no node"
                );
            }
            // A node's containers are pods: they would be found twice.
            (Some("off"), _) | (None, Some(_)) => return Ok(()),
            (said, _) => PathBuf::from(said.unwrap_or(DOCKER_SOCKET)),
        };
        match docker::probe(&socket) {
            Ok(engine) => self.roots.push(engine.containers),
            Err(error) if !others => {
                bail!(
                    "{error}\nStart it, name its socket with --docker, or name files with --files"
                )
            }
            Err(error) => warn(&[format!(
                "{error}; everything else is tailed, and containers as soon as it is there (--docker off does not look)"
            )]),
        }
        self.docker = Some(socket);
        Ok(())
    }
}

fn absolute(text: &String) -> Result<String> {
    let path = std::path::absolute(text).with_context(|| format!("--files {text:?}"))?;
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("--files {}: it is no UTF-8", path.display()))
}

/// The node whose pods are tailed.
fn node(args: &UpArgs, env: &dyn Environment) -> Result<Option<Node>> {
    let access = match &*args.kubernetes {
        "off" => return Ok(None),
        "on" => Access::default(),
        "auto" => match in_pod(env) {
            Some(access) => access,
            None => return Ok(None),
        },
        path => Access {
            auth: Auth::KubeConfig,
            context: None,
            kube_config: Some(path.into()),
        },
    };
    let variable = env.variable(NODE_VARIABLE);
    let variable = variable.and_then(|v| v.into_string().ok());
    let name = args.node.clone().or(variable).filter(|n| !n.is_empty());
    let Some(name) = name else {
        let what = format!(
            "which node's pods to tail is not known: --node names it, or {NODE_VARIABLE} \
             (in a pod by fieldPath: spec.nodeName)"
        );
        if args.kubernetes == "auto" {
            warn(&[format!("{what}; no pods are tailed")]);
            return Ok(None);
        }
        bail!("{what}");
    };
    if !is_subdomain(&name) {
        bail!("--node {name:?} is no name of a node");
    }
    let logs = std::path::absolute(&args.pod_logs)?;
    if logs.to_str().is_none() {
        bail!("--pod-logs {}: it is no UTF-8", logs.display());
    }
    Ok(Some(Node { access, name, logs }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tailwater_config::MemoryEnvironment;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: UpArgs,
    }

    fn found(line: &[&str], env: &MemoryEnvironment) -> Result<Option<Node>> {
        let line = ["up"].iter().chain(line);
        node(&Line::try_parse_from(line)?.up, env)
    }

    fn pod() -> MemoryEnvironment {
        let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        MemoryEnvironment::new()
            .with_variable("KUBERNETES_SERVICE_HOST", "10.96.0.1")
            .with_file(token, "abc")
    }

    /// Guarantee: pods are tailed without being asked for where this runs in one that knows its node, and nowhere else.
    #[test]
    fn a_pod_that_knows_its_node_tails_its_pods() {
        let named = || pod().with_variable(NODE_VARIABLE, "n1");
        let of = |line: &[&str], env| found(line, &env).unwrap().map(|n| n.name);
        assert_eq!(of(&[], named()).as_deref(), Some("n1"));
        assert_eq!(of(&["--node", "n2"], named()).as_deref(), Some("n2"));
        assert_eq!(of(&["--kubernetes", "off"], named()), None);
        assert_eq!(of(&[], pod()), None);
        assert_eq!(of(&[], MemoryEnvironment::new()), None);
        let file = found(
            &["--kubernetes", "/k", "--node", "n1"],
            &MemoryEnvironment::new(),
        );
        let file = file.unwrap().unwrap();
        assert_eq!(file.access.kube_config.as_deref(), Some(Path::new("/k")));
        assert_eq!(file.logs, Path::new("/var/log/pods"));
    }

    #[test]
    fn a_node_has_to_be_one() {
        for (line, about) in [
            (&["--kubernetes", "on"][..], "which node's pods"),
            (
                &["--kubernetes", "on", "--node", "a,b=c"][..],
                "no name of a node",
            ),
        ] {
            let error = found(line, &MemoryEnvironment::new()).unwrap_err();
            assert!(error.to_string().contains(about), "{error}");
        }
    }
}
