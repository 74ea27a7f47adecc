//! A node of Kubernetes for a test: a stand-in for the API server, pods on the node, and their files where a kubelet has
//! them.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::kubernetes::FakeKubernetes;
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::writer::{Format, LogWriter};

use crate::agent::Agent;
use crate::rig::Rig;
use crate::wait;

/// Pods of the API.
pub const PODS: &str = "/api/v1/pods";
/// The node that agents of a test are on.
pub const NODE: &str = "n1";
/// The namespace of all pods.
pub const NAMESPACE: &str = "shop";

/// See the module's documentation.
pub struct Pods {
    /// Files, the sink, and the judge.
    pub rig: Rig,
    /// The API server.
    pub api: FakeKubernetes,
}

impl Pods {
    /// A node without pods.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(label: &str) -> Pods {
        let (rig, api) = (Rig::new(label), FakeKubernetes::start().expect("a port"));
        fs::create_dir(rig.logs("pods")).expect("a directory");
        fs::write(rig.path("kubeconfig"), api.kubeconfig()).expect("written");
        Pods { rig, api }
    }

    /// Starts `up` for the pods of the node, with `more` on its command line.
    ///
    /// # Panics
    /// When it does not start.
    pub fn up(&self, more: &[&str]) -> Agent {
        let text = |path: std::path::PathBuf| path.display().to_string();
        let (config, logs) = (
            text(self.rig.path("kubeconfig")),
            text(self.rig.logs("pods")),
        );
        let url = self.rig.loki.url();
        let args = ["--kubernetes", &config, "--node", NODE, "--pod-logs", &logs];
        let args = [&args[..], &["--loki", &url], more].concat();
        Agent::up(&args, &self.rig.state(), &self.rig.path("run"))
    }

    /// The API's object of a pod with one container, `main`, changed by `change`. Its uid is made of its name.
    pub fn object(name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let owner = json!({"kind": "StatefulSet", "name": "web", "controller": true});
        let mut pod = json!({
            "metadata": {
                "name": name, "namespace": NAMESPACE, "uid": Self::uid(name), "labels": {"app": name},
                "ownerReferences": [owner],
            },
            "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "r.io/web:1"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "startTime": "2026-01-02T03:04:05Z"},
        });
        change(&mut pod);
        pod
    }

    fn uid(name: &str) -> String {
        let fold = |hash: u64, b: u8| hash.wrapping_mul(31).wrapping_add(u64::from(b));
        let number = name.bytes().fold(7, fold) & 0xffff_ffff_ffff;
        format!("aaaaaaaa-0000-4000-8000-{number:012x}")
    }

    /// Sets a pod.
    pub fn set(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.api.set(PODS, Self::object(name, change));
    }

    /// Deletes a pod from the API.
    pub fn delete(&self, name: &str) {
        self.api.delete(PODS, NAMESPACE, name);
    }

    /// Deletes what a pod wrote, as a kubelet does after its end.
    ///
    /// # Panics
    /// When there is nothing.
    pub fn remove_files(&self, name: &str) {
        let dir = self.rig.logs(&self.dir(name));
        fs::remove_dir_all(dir).expect("the directory of a pod");
    }

    fn dir(&self, name: &str) -> String {
        format!("pods/{NAMESPACE}_{name}_{}", Self::uid(name))
    }

    /// A writer of the log of a container at a start of it, judged by the oracle.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn writer(&self, id: u32, pod: &str, container: &str, restarts: u32) -> LogWriter {
        let dir = format!("{}/{container}", self.dir(pod));
        fs::create_dir_all(self.rig.logs(&dir)).expect("a directory");
        let set = |o: &mut tailwater_testkit::writer::WriterOptions| o.format = Format::Cri;
        self.rig.writer(id, &format!("{dir}/{restarts}.log"), set)
    }

    /// Lines in the sink: all, and those whose stream has a label of this name and whose structured metadata have an entry
    /// of this name.
    pub fn lines_with(&self, label: &str, metadata: &str) -> (usize, usize) {
        let (mut all, mut with) = (0, 0);
        for stream in self.rig.loki.streams(DEFAULT_TENANT) {
            let labelled = stream.contains(&format!("{label}=\""));
            for entry in self.rig.loki.entries(DEFAULT_TENANT, &stream) {
                all += 1;
                with += usize::from(
                    labelled
                        && (metadata.is_empty()
                            || entry.metadata.iter().any(|(name, _)| name == metadata)),
                );
            }
        }
        (all, with)
    }

    /// Lets `count` pods come and go, one every `every`, each of which lives for `life`, writes all that time, and is then
    /// deleted; its files go half as long after it. `trouble` is called before each one.
    ///
    /// # Panics
    /// When files cannot be written.
    pub fn come_and_go(
        &self,
        count: u32,
        every: Duration,
        life: Duration,
        mut trouble: impl FnMut(&FakeKubernetes, u32),
    ) {
        let begin = Instant::now();
        let (mut begun, mut living) = (0, Vec::<(u32, Instant, LogWriter)>::new());
        let mut deleted = Vec::<(String, Instant)>::new();
        while begun < count || !living.is_empty() || !deleted.is_empty() {
            if begun < count && begin.elapsed() >= every * begun {
                trouble(&self.api, begun);
                let name = format!("short-{begun}");
                self.set(&name, |_| {});
                living.push((begun, Instant::now(), self.writer(begun, &name, "main", 0)));
                begun += 1;
            }
            for (_, _, writer) in &mut living {
                writer.write_lines(5).expect("written");
            }
            living.retain(|(n, since, _)| {
                let over = since.elapsed() >= life;
                if over {
                    let name = format!("short-{n}");
                    self.delete(&name);
                    deleted.push((name, Instant::now()));
                }
                !over
            });
            deleted.retain(|(name, since)| {
                let over = since.elapsed() >= life / 2;
                if over {
                    self.remove_files(name);
                }
                !over
            });
            wait::let_pass(Duration::from_millis(25));
        }
    }
}
