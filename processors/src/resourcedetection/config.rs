//! The section of a `resource_detection` processor.

use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{ConfigError, ProcessEnvironment, Section, nearest};
use tailwater_kubernetes::Access;
use tailwater_pipeline::reach::Reach;

use super::detection::Detector;
use super::system::HostnameSource;
use super::{docker, env, kubernetes, system};
use crate::k8sattributes::access;

/// Detectors of the collector that are not built.
const NOT_BUILT: [&str; 27] = [
    "akamai",
    "aks",
    "alibaba_ecs",
    "azure",
    "azurecontainerapps",
    "consul",
    "digitalocean",
    "dynatrace",
    "ec2",
    "ecs",
    "eks",
    "elastic_beanstalk",
    "elasticbeanstalk",
    "gcp",
    "heroku",
    "hetzner",
    "ibmcloud_classic",
    "ibmcloud_vpc",
    "kubeadm",
    "lambda",
    "nova",
    "openshift",
    "oraclecloud",
    "scaleway",
    "tencent_cvm",
    "upcloud",
    "vultr",
];
const BUILT: [&str; 5] = ["env", "system", "docker", "k8s_api", "k8snode"];

/// Options of the collector's HTTP client, which only detectors of clouds use.
const OF_HTTP: [&str; 14] = [
    "endpoint",
    "proxy_url",
    "tls",
    "read_buffer_size",
    "write_buffer_size",
    "headers",
    "auth",
    "compression",
    "max_idle_conns",
    "max_idle_conns_per_host",
    "max_conns_per_host",
    "idle_conn_timeout",
    "disable_keep_alives",
    "http2_read_idle_timeout",
];

/// How attempts of a detector that fails are repeated.
#[derive(Clone, PartialEq, Debug)]
pub struct Retry {
    /// `retry::enabled`.
    pub enabled: bool,
    /// The first pause.
    pub initial_interval: Duration,
    /// How much of a pause is at random, from 0 to 1.
    pub randomization_factor: f64,
    /// How much longer the next pause is.
    pub multiplier: f64,
    /// The longest pause.
    pub max_interval: Duration,
    /// How long data waits for detection at first; zero: as long as `timeout`.
    pub max_elapsed_time: Duration,
}

/// A detector with what it is configured to find.
#[derive(Clone, PartialEq, Debug)]
pub enum DetectorConfig {
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    Env,
    /// The host.
    System {
        /// Where its name comes from, in order.
        sources: Vec<HostnameSource>,
        /// Names of attributes.
        attributes: Vec<&'static str>,
    },
    /// The Docker Engine.
    Docker {
        /// Names of attributes.
        attributes: Vec<&'static str>,
    },
    /// The node of a Kubernetes cluster.
    Node {
        /// How the API is reached.
        access: Access,
        /// The variable that names the node.
        variable: String,
        /// Names of attributes.
        attributes: Vec<&'static str>,
    },
}

/// The section of a `resource_detection` processor.
#[derive(Clone, PartialEq, Debug)]
pub struct ResourceDetectionConfig {
    /// What is asked. Of an attribute that several find, that of the first one counts.
    pub detectors: Vec<DetectorConfig>,
    /// What is found replaces what resources have.
    pub overrides: bool,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// How often is asked again; zero: never, once it has succeeded.
    pub refresh_interval: Duration,
    /// No data passes before all detectors have succeeded.
    pub fail_on_missing: bool,
    /// How attempts are repeated.
    pub retry: Retry,
    /// If not empty: only attributes of these names are added.
    pub only: Vec<String>,
}

/// The sections of detectors, as far as they are there.
struct Sections {
    system: DetectorConfig,
    docker: DetectorConfig,
    k8s_api: DetectorConfig,
    k8snode: DetectorConfig,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "detectors",
        "env, system, docker, k8s_api (formerly k8snode), in order; of an attribute that several find, that of the first one counts. env unless set.",
    ),
    ("override", "What is found replaces what resources have."),
    (
        "timeout",
        "How long an attempt of a detector may take, and, at first, how long data waits for them.",
    ),
    (
        "refresh_interval",
        "How often is detected again; 0 = not after a success. What fails then changes nothing.",
    ),
    (
        "fail_on_missing_metadata",
        "True: no data passes before every detector has succeeded.",
    ),
    ("retry", "Of attempts that fail."),
    (
        "attributes",
        "Deprecated, with a warning: only attributes of these names; all unless set.",
    ),
    ("system", "The detector system."),
    (
        "system::hostname_sources",
        "Asked in order, the first that has a name counts: `dns` (`/etc/hosts`, then the canonical name, then the name of an address), `os`, `cname`, `lookup`. `dns`, `os` unless set.",
    ),
    (
        "docker",
        "The detector docker: the engine that `DOCKER_HOST` names, or at `/var/run/docker.sock`.",
    ),
    ("k8s_api", "The detector k8s_api."),
    (
        "k8snode",
        "The detector k8snode, the former name of k8s_api.",
    ),
    (
        "k8s_api::node_from_env_var",
        "Variable of the environment with the name of the node, which must be set; K8S_NODE_NAME unless set.",
    ),
    (
        "k8snode::node_from_env_var",
        "Variable of the environment with the name of the node, which must be set; K8S_NODE_NAME unless set.",
    ),
];

impl ResourceDetectionConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> ResourceDetectionConfig {
        s.describe(OPTIONS);
        let sections = Sections {
            system: s.section("system", system_section),
            docker: s.section("docker", |s| DetectorConfig::Docker {
                attributes: attributes(s, &docker::ATTRIBUTES),
            }),
            k8s_api: s.section("k8s_api", node_section),
            k8snode: s.section("k8snode", node_section),
        };
        for name in NOT_BUILT {
            s.refuse(name, &not_built(name));
        }
        for name in OF_HTTP {
            s.refuse(
                name,
                "no detector that is built asks a server of metadata over HTTP",
            );
        }
        let detectors = detectors(s, &sections);
        let only = s.string_list("attributes").unwrap_or_default();
        if !only.is_empty() {
            s.warn(
                "attributes",
                "is deprecated; say it in resource_attributes of each detector",
            );
        }
        let config = ResourceDetectionConfig {
            detectors,
            overrides: s.bool("override", true),
            timeout: s.duration("timeout", Duration::from_secs(5)),
            refresh_interval: s.duration("refresh_interval", Duration::ZERO),
            fail_on_missing: s.bool("fail_on_missing_metadata", false),
            retry: s.section("retry", retry),
            only,
        };
        if config.timeout.is_zero() && config.retry.max_elapsed_time.is_zero() {
            s.invalid(
                "timeout",
                "must be greater than 0, or retry::max_elapsed_time must be",
            );
        }
        if config.fail_on_missing && !config.retry.enabled {
            s.invalid(
                "fail_on_missing_metadata",
                "needs retry::enabled, as no data passes before detection has succeeded",
            );
        }
        config
    }

    /// How long data waits for detection at first.
    pub(super) fn waits(&self) -> Duration {
        match self.retry.max_elapsed_time {
            Duration::ZERO => self.timeout,
            longest => longest,
        }
    }

    /// The detectors, ready to be started. Looks at the environment.
    pub(super) fn detectors(&self) -> Result<Vec<Arc<dyn Detector>>, String> {
        let make = |config: &DetectorConfig| -> Result<Arc<dyn Detector>, String> {
            Ok(match config {
                DetectorConfig::Env => Arc::new(env::Env::new(&ProcessEnvironment)?),
                DetectorConfig::System {
                    sources,
                    attributes,
                } => Arc::new(system::System::new(sources.clone(), attributes.clone())),
                DetectorConfig::Docker { attributes } => Arc::new(docker::Docker::new(
                    attributes.clone(),
                    &ProcessEnvironment,
                )?),
                DetectorConfig::Node {
                    access,
                    variable,
                    attributes,
                } => {
                    let node = access::node_from(variable, &ProcessEnvironment)?;
                    Arc::new(kubernetes::KubernetesNode::new(
                        access.clone(),
                        node,
                        attributes.clone(),
                    ))
                }
            })
        };
        self.detectors.iter().map(make).collect()
    }

    pub(super) fn reach(&self, reach: &mut Reach) {
        for detector in &self.detectors {
            match detector {
                DetectorConfig::Env => {}
                DetectorConfig::System { .. } => system::reach(reach),
                DetectorConfig::Docker { .. } => docker::reach(reach, &ProcessEnvironment),
                DetectorConfig::Node { access, .. } => access::reach(access, reach),
            }
        }
    }
}

/// What its options do.
const RETRY: &[(&str, &str)] = &[
    ("enabled", "False: one attempt."),
    ("initial_interval", "The first pause."),
    ("randomization_factor", "How much pauses differ by chance."),
    ("multiplier", "By what each pause is longer."),
    ("max_interval", "The longest pause."),
    (
        "max_elapsed_time",
        "If set, data waits for so long at first, and not for `timeout`.",
    ),
];

fn retry(s: &mut Section<'_, '_>) -> Retry {
    s.describe(RETRY);
    let retry = Retry {
        enabled: s.bool("enabled", true),
        initial_interval: s.duration("initial_interval", Duration::from_secs(1)),
        randomization_factor: s.f64("randomization_factor", 0.5, 0.0..=1.0),
        multiplier: s.f64("multiplier", 2.0, 1.0..),
        max_interval: s.duration("max_interval", Duration::from_secs(30)),
        max_elapsed_time: s.duration("max_elapsed_time", Duration::ZERO),
    };
    if retry.enabled && retry.initial_interval.is_zero() {
        s.invalid("initial_interval", "must be greater than 0");
    }
    retry
}

fn detectors(s: &mut Section<'_, '_>, sections: &Sections) -> Vec<DetectorConfig> {
    let path = s.path().child("detectors");
    let Some(names) = s.text_nodes("detectors") else {
        return vec![DetectorConfig::Env];
    };
    if names.is_empty() {
        s.invalid("detectors", "must not be empty");
    }
    let mut wanted = Vec::new();
    for (i, (name, node)) in names.iter().enumerate() {
        let name = name.trim();
        wanted.push(match name {
            "env" => DetectorConfig::Env,
            "system" => sections.system.clone(),
            "docker" => sections.docker.clone(),
            "k8s_api" => sections.k8s_api.clone(),
            "k8snode" => sections.k8snode.clone(),
            other => {
                let known = NOT_BUILT.contains(&other);
                let problem = match known {
                    true => not_built(other),
                    false => "is no detector".to_owned(),
                };
                let error = ConfigError::new(node.span.clone(), path.child(i), problem);
                let error = error.found(format!("{other:?}")).allowed(BUILT.join(", "));
                let error = match known {
                    true => error,
                    false => error.suggest(nearest(other, BUILT)),
                };
                s.errors().push(error);
                continue;
            }
        });
    }
    wanted
}

fn not_built(detector: &str) -> String {
    format!("the detector {detector} is not built")
}

fn system_section(s: &mut Section<'_, '_>) -> DetectorConfig {
    let path = s.path().child("hostname_sources");
    let mut sources = Vec::new();
    for (i, (name, node)) in s
        .text_nodes("hostname_sources")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let mut known = HostnameSource::NAMES.iter();
        match known.find(|(known, _)| known == name) {
            Some((_, source)) => sources.push(*source),
            None => {
                let names = HostnameSource::NAMES.map(|(name, _)| name);
                let error = ConfigError::new(node.span.clone(), path.child(i), "");
                let error = error.found(format!("{name:?}")).allowed(names.join(", "));
                s.errors().push(error.suggest(nearest(name, names)));
            }
        }
    }
    if sources.is_empty() {
        sources = vec![HostnameSource::Dns, HostnameSource::Os];
    }
    DetectorConfig::System {
        sources,
        attributes: attributes(s, &system::ATTRIBUTES),
    }
}

fn node_section(s: &mut Section<'_, '_>) -> DetectorConfig {
    let variable = s.string("node_from_env_var", "");
    DetectorConfig::Node {
        access: access::decode(s),
        variable: match variable.is_empty() {
            true => "K8S_NODE_NAME".into(),
            false => variable,
        },
        attributes: attributes(s, &kubernetes::ATTRIBUTES),
    }
}

/// `resource_attributes`: those of `all` that are enabled, by themselves or by default.
fn attributes(s: &mut Section<'_, '_>, all: &[(&'static str, bool)]) -> Vec<&'static str> {
    s.describe(&[("resource_attributes", "What is added of what it finds.")]);
    s.section("resource_attributes", |s| {
        let enabled = |(name, default): &(&'static str, bool)| {
            s.describe(&[(name, "Whether it is added.")]);
            let enabled = s.section(name, |s| {
                s.describe(&[("enabled", "Whether it is.")]);
                s.bool("enabled", *default)
            });
            enabled.then_some(*name)
        };
        all.iter().filter_map(enabled).collect()
    })
}
