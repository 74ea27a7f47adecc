//! Finds containers of the pods on a node of Kubernetes, by its API server.
//!
//! The pods of this node are listed once; from there on a watch says what changes, and goes on where it was when it ends.
//! Only if the server has forgotten that place there is another list; a snapshot then ends what nobody heard the end of.
//! What a server refuses, how slow it is and whether it is there costs news, and nothing that is tailed already.
//!
//! A container is a source from when its pod is given to the node, which is before it writes anything: one that lives for
//! a second is read, too. Each start of it is a source of its own ([`pod`]).

pub mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tailwater_config::Environment;
use tailwater_kubernetes::access::SERVICE_ACCOUNT_DIR;
use tailwater_kubernetes::model::Pod;
pub use tailwater_kubernetes::{Access, Auth};
use tailwater_kubernetes::{ApiError, Change, Client, Form, Watch};
use tailwater_kubernetes::{follow, follow_and_list, poll};

use self::pod::{Start, before, describe};
use super::wishes::Rules;
use super::{Mode, Publisher, Stop};
use crate::metrics::{Activity, Metrics};
use crate::model::{Descriptor, Digest};

/// Where a kubelet has the logs of its pods.
pub const LOGS: &str = "/var/log/pods";
/// What it calls itself.
const USER_AGENT: &str = concat!("tailwater/", env!("CARGO_PKG_VERSION"));
/// How often everything is asked for where nothing is told. Every node of a cluster asks.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is looked whether it is time to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// Starts of containers that are known at a time. A node has some hundred pods.
const STARTS_MAX: usize = 10_000;

/// Which node of which cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// How the API server is reached.
    pub access: Access,
    /// The node's name.
    pub name: String,
    /// Where the logs of its pods are; absolute.
    pub logs: PathBuf,
}

/// Access by the service account of the pod that this runs in; none if it runs in none, or in one without.
pub fn in_pod(env: &dyn Environment) -> Option<Access> {
    let access = Access::default();
    let token = Path::new(SERVICE_ACCOUNT_DIR).join("token");
    let there = env.variable("KUBERNETES_SERVICE_HOST").is_some() && env.read_file(&token).is_ok();
    there.then_some(access)
}

/// See the module's documentation.
pub struct Kubernetes {
    node: Node,
    mode: Mode,
    seed: u64,
    teller: Teller,
}

impl Kubernetes {
    /// For the pods of this node, whose API server may come and go. `seed` spreads its requests.
    pub fn new(
        node: Node,
        mode: Mode,
        rules: Rules,
        publisher: Publisher,
        metrics: Metrics,
        seed: u64,
    ) -> Kubernetes {
        let teller = Teller {
            name: node.name.clone(),
            logs: node.logs.clone(),
            rules,
            publisher,
            metrics,
            known: BTreeMap::new(),
            room: STARTS_MAX,
            is_watched: false,
            is_lost: false,
            complained_of: BTreeSet::new(),
        };
        Kubernetes {
            node,
            mode,
            seed,
            teller,
        }
    }

    /// Watches until it is told to stop.
    pub fn run(mut self, stop: &Stop) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let activity = Activity::KubernetesWatch.name();
                tracing::error!(%error, activity, "it cannot begin");
                return;
            }
        };
        let client = Client::new(self.node.access, USER_AGENT);
        let watch = Watch {
            path: "/api/v1/pods".into(),
            labels: String::new(),
            fields: format!("spec.nodeName={}", self.node.name),
            form: Form::Whole,
        };
        let (mode, seed) = (self.mode, self.seed);
        let teller = &mut self.teller;
        let tell = move |change: Change<'_, Pod>| teller.tell(change);
        runtime.block_on(async {
            let watching = async move {
                match mode {
                    Mode::EventStream => follow(client, watch, seed, tell).await,
                    Mode::Hybrid => {
                        let every = mode.poll_interval().unwrap_or(POLL_INTERVAL);
                        follow_and_list(client, watch, every, seed, tell).await;
                    }
                    Mode::SimplePolling => poll(client, watch, POLL_INTERVAL, seed, tell).await,
                }
            };
            let stopped = async {
                while !stop.is_set() {
                    tokio::time::sleep(STOP_INTERVAL).await;
                }
            };
            tokio::select! {
                () = watching => {}
                () = stopped => {}
            }
        });
        // A name that is being looked up is not waited for.
        runtime.shutdown_background();
    }
}

/// What was said of a start.
struct Said {
    digest: Digest,
    ended: bool,
}

/// Turns what the API server tells into events.
struct Teller {
    name: String,
    logs: PathBuf,
    rules: Rules,
    publisher: Publisher,
    metrics: Metrics,
    /// By the uid of the pod, then by the source's id: what was said, as long as the pod is there.
    known: BTreeMap<String, BTreeMap<String, Said>>,
    /// See [`STARTS_MAX`].
    room: usize,
    is_watched: bool,
    is_lost: bool,
    /// What was said once.
    complained_of: BTreeSet<&'static str>,
}

impl Teller {
    fn tell(&mut self, change: Change<'_, Pod>) {
        match change {
            Change::All(pods) => self.all(&pods),
            Change::Set(pod) => {
                self.works();
                self.say(&pod, None);
            }
            Change::Gone(pod) => {
                self.works();
                self.gone(&pod);
            }
            Change::Failed(error, pause) => self.failed(error, pause),
        }
    }

    fn works(&mut self) {
        self.is_lost = false;
    }

    fn failed(&mut self, error: &ApiError, pause: Duration) {
        self.metrics.failed(Activity::KubernetesWatch);
        // The usual end of a watch that stood still for long: a list, and on it goes.
        if error.is_gone() && pause.is_zero() || self.is_lost {
            tracing::debug!(activity = Activity::KubernetesWatch.name(), "{error}");
            return;
        }
        self.is_lost = true;
        let hint = match error.is_denied() {
            true => " (it takes get, list and watch of pods)",
            false => "",
        };
        tracing::warn!(
            activity = Activity::KubernetesWatch.name(),
            "{error}{hint}; what is tailed stays, and it is asked again until it answers"
        );
    }

    /// These are all pods that there are.
    fn all(&mut self, pods: &[Pod]) {
        self.metrics.did(Activity::KubernetesWatch);
        if !self.is_watched || self.is_lost {
            tracing::info!(
                activity = Activity::KubernetesWatch.name(),
                node = self.name,
                pods = pods.len(),
                "the pods of this node are watched"
            );
        }
        self.is_watched = true;
        self.works();
        let generation = self.publisher.generation();
        let uids: BTreeSet<&str> = pods.iter().map(|p| &*p.metadata.uid).collect();
        // The snapshot is their end.
        self.known.retain(|uid, _| uids.contains(&**uid));
        for pod in pods {
            self.say(pod, Some(generation));
        }
        let all = self.known.values().flatten();
        let there = all.filter(|(_, said)| !said.ended);
        let ids = there.map(|(id, _)| id.clone()).collect();
        self.publisher.snapshot(generation, ids);
    }

    fn gone(&mut self, pod: &Pod) {
        if !self.is_ours(pod) {
            return;
        }
        // It is told as it was at last, which may be new.
        let mut last = pod.clone();
        last.status.phase = "Failed".into();
        self.say(&last, None);
        self.known.remove(&pod.metadata.uid);
    }

    /// Whether it is of this node, which is all that was asked for.
    fn is_ours(&mut self, pod: &Pod) -> bool {
        let ours = pod.spec.node_name == self.name;
        if !ours {
            self.complain("the API server tells of pods of other nodes; they are left alone");
        }
        ours
    }

    fn complain(&mut self, of: &'static str) {
        self.metrics.failed(Activity::KubernetesWatch);
        if self.complained_of.insert(of) {
            tracing::error!(activity = Activity::KubernetesWatch.name(), "{of}");
        }
    }

    /// Says what is new of a pod: with the generation of a list, or one of its own.
    fn say(&mut self, pod: &Pod, generation: Option<i64>) {
        if !self.is_ours(pod) {
            return;
        }
        let described = describe(pod, &self.logs, &self.rules);
        for (id, reason) in described.unreadable {
            self.publisher.unreadable(id, reason);
        }
        let uid = &pod.metadata.uid;
        if described.starts.is_empty() && !self.known.contains_key(uid) {
            return;
        }
        let generation = generation.unwrap_or_else(|| self.publisher.generation());
        let mut said = self.known.remove(uid).unwrap_or_default();
        let mut kept = BTreeSet::new();
        for start in &described.starts {
            if !said.contains_key(&start.id) {
                if self.is_full(&said) {
                    continue;
                }
                if let Some(before) = before(start)
                    && !said.contains_key(&before.id)
                {
                    self.over(&before, generation, &mut said);
                }
            }
            self.say_start(start, generation, &mut said);
            kept.extend(before(start).map(|b| b.id));
            kept.insert(start.id.clone());
        }
        for (id, said) in &mut said {
            if !kept.contains(id) || described.starts.iter().all(|s| s.id != *id) {
                self.end(id, said);
            }
        }
        // Starts that are long over are not told of again.
        said.retain(|id, _| kept.contains(id));
        if !said.is_empty() {
            self.known.insert(uid.clone(), said);
        }
    }

    fn is_full(&mut self, of_pod: &BTreeMap<String, Said>) -> bool {
        let known: usize = self.known.values().map(BTreeMap::len).sum();
        let full = known + of_pod.len() >= self.room;
        if full {
            self.complain(
                "the API server tells of too many containers; not all of them are tailed",
            );
        }
        full
    }

    fn say_start(&mut self, start: &Start, generation: i64, said: &mut BTreeMap<String, Said>) {
        let digest = start.source.digest();
        match said.get_mut(&start.id) {
            // One that ended does not go on; the next start is another source.
            Some(known) if known.ended => {}
            Some(known) => {
                if known.digest != digest {
                    known.digest = digest;
                    self.present(&start.source, generation, "changed");
                }
                if start.ended {
                    self.end(&start.id, known);
                }
            }
            None if start.ended => self.over(start, generation, said),
            None => {
                if let Some(reason) = &start.unheeded {
                    self.publisher.unheeded(start.id.clone(), reason.clone());
                }
                self.present(&start.source, generation, "there");
                let ended = false;
                said.insert(start.id.clone(), Said { digest, ended });
            }
        }
    }

    /// Says of one that was over before anything was heard of it that it was there, if there is something to read.
    fn over(&mut self, start: &Start, generation: i64, said: &mut BTreeMap<String, Said>) {
        let new = Said {
            digest: start.source.digest(),
            ended: true,
        };
        if said.insert(start.id.clone(), new).is_some() {
            return;
        }
        if !start.source.paths.iter().any(|p| Path::new(p).exists()) {
            return;
        }
        // Once for all: also for who is started again it is over.
        let key = format!("{}/over", key(&start.id));
        self.publisher
            .present(&key, generation, start.source.clone());
        let generation = self.publisher.generation();
        let key = format!("{key}/ended");
        self.publisher.absent(&key, generation, start.id.clone());
    }

    fn present(&mut self, source: &Descriptor, generation: i64, why: &str) {
        let key = format!("{}/{generation}/{why}", key(&source.id));
        self.publisher.present(&key, generation, source.clone());
    }

    fn end(&mut self, id: &str, said: &mut Said) {
        if said.ended {
            return;
        }
        said.ended = true;
        let generation = self.publisher.generation();
        let key = format!("{}/{generation}/ended", key(id));
        self.publisher.absent(&key, generation, id.to_owned());
    }
}

/// What keys of events of a source begin with: the pod's uid, the container and its start.
fn key(id: &str) -> String {
    id.replacen(':', "/", 1)
}

#[cfg(test)]
mod tests;
