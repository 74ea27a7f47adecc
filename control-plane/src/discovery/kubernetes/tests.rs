//! Against the stand-in of the testkit.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use tailwater_kubernetes::Auth;
use tailwater_telemetry::metrics::MetricsRegistry;
use tailwater_testkit::kubernetes::FakeKubernetes;

use super::*;
use crate::bus::{Bus, EmbeddedBus, ReadFrom, Subscription};
use crate::discovery::labels;
use crate::model::{Event, Format, Origin};
use crate::store::SqliteStore;

const PODS: &str = "/api/v1/pods";
const BOUND: Duration = Duration::from_secs(60);
/// Starts that may be known.
const ROOM: usize = 200;

fn wall() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_nanos() as i64
}

/// A watch of a stand-in for the API server, and what it says.
struct Rig {
    api: FakeKubernetes,
    bus: EmbeddedBus,
    metrics: Metrics,
    registry: Arc<MetricsRegistry>,
    events: Box<dyn Subscription>,
    running: Option<(Stop, std::thread::JoinHandle<()>)>,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(mode: Mode, prepare: impl FnOnce(&FakeKubernetes)) -> Rig {
        let api = FakeKubernetes::start().unwrap();
        prepare(&api);
        let bus = EmbeddedBus::new(Arc::new(SqliteStore::in_memory().unwrap()), wall);
        let registry = Arc::new(MetricsRegistry::default());
        let mut rig = Rig {
            events: bus.subscribe("test", ReadFrom::Event(0)).unwrap(),
            metrics: Metrics::new(registry.clone()),
            registry,
            dir: tempfile::tempdir().unwrap(),
            running: None,
            bus,
            api,
        };
        rig.start(mode);
        rig
    }

    /// Starts it, again if it was started before.
    fn start(&mut self, mode: Mode) {
        self.end();
        let config = self.dir.path().join("kubeconfig");
        fs::write(&config, self.api.kubeconfig()).unwrap();
        let node = Node {
            access: Access {
                auth: Auth::KubeConfig,
                kube_config: Some(config),
                context: None,
            },
            name: "n1".into(),
            logs: self.dir.path().join("pods"),
        };
        let rules = Rules {
            opt_in: false,
            tenants: ["shop".to_owned()].into(),
        };
        let stop = Stop::default();
        let bus = Arc::new(self.bus.clone());
        let publisher = Publisher::new(bus, Origin::Kubernetes, wall, 0, stop.clone());
        let mut watch = Kubernetes::new(node, mode, rules, publisher, self.metrics.clone(), 7);
        watch.teller.room = ROOM;
        let told = stop.clone();
        self.running = Some((stop, std::thread::spawn(move || watch.run(&told))));
    }

    fn end(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.stop();
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }

    /// A file as the kubelet has it.
    fn file(&self, pod: &str, container: &str, restarts: u32) {
        let dir = self.dir.path().join(format!("pods/shop_{pod}_{pod}"));
        fs::create_dir_all(dir.join(container)).unwrap();
        fs::write(dir.join(format!("{container}/{restarts}.log")), "x").unwrap();
    }

    fn next_event(&mut self) -> Event {
        let end = std::time::Instant::now() + BOUND;
        // The bell may ring late, for an event that was read already.
        while std::time::Instant::now() < end {
            if let Some(recorded) = self.events.next(1, BOUND).unwrap().events.pop() {
                return recorded.event;
            }
        }
        panic!("nothing is said");
    }

    /// What is said next, as text: `+id`, `-id`, `=[ids]`, `?id`.
    fn next(&mut self) -> String {
        let short = |id: &str| id.trim_start_matches("kubernetes:").to_owned();
        match self.next_event() {
            Event::Present { source, .. } => format!("+{}", short(&source.id)),
            Event::Absent { id, .. } => format!("-{}", short(&id)),
            Event::Snapshot { ids, .. } => {
                let ids: Vec<String> = ids.iter().map(|id| short(id)).collect();
                format!("={}", ids.join(","))
            }
            Event::Unreadable { id, .. } | Event::Unheeded { id, .. } => format!("?{}", short(&id)),
            of_a_fleet => panic!("{of_a_fleet:?}"),
        }
    }

    fn expect(&mut self, said: &[&str]) {
        for expected in said {
            assert_eq!(self.next(), *expected, "of {said:?}");
        }
    }

    /// Waits for a snapshot of these; nothing may be said of others meanwhile.
    fn expect_snapshot(&mut self, ids: &str) {
        loop {
            let said = self.next();
            if said == format!("={ids}") {
                return;
            }
            assert!(said.starts_with('='), "{said}");
        }
    }

    fn failures(&self) -> f64 {
        let text = self.registry.render();
        let line = text.lines().find(|l| {
            l.starts_with("tailwater_control_activity_failures") && l.contains("k8s_watch")
        });
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.end();
    }
}

fn pod(name: &str, set: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "r.io/web:1"}]},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "main", "containerID": "containerd://1", "restartCount": 0, "state": {"running": {}}},
        ]},
    });
    set(&mut pod);
    pod
}

fn plain(name: &str) -> Value {
    pod(name, |_| {})
}

fn restarted(name: &str, restarts: u32) -> Value {
    pod(name, |p| {
        p["status"]["containerStatuses"][0]["restartCount"] = restarts.into();
    })
}

/// Guarantee: containers of what is there, what comes, what is started again and what goes are said in each mode, with one
/// list where news are told; pods of other nodes are not.
#[test]
fn containers_are_said_as_pods_come_and_go() {
    for mode in [Mode::EventStream, Mode::Hybrid] {
        let mut rig = Rig::new(mode, |api| {
            api.set(PODS, plain("a"));
            api.set(PODS, pod("far", |p| p["spec"]["nodeName"] = "n2".into()));
        });
        rig.expect(&["+a/main/0", "=a/main/0"]);
        rig.api.set(PODS, plain("b"));
        rig.expect(&["+b/main/0"]);
        rig.api.set(PODS, restarted("b", 1));
        rig.expect(&["+b/main/1", "-b/main/0"]);
        // Nothing that matters to it.
        rig.api
            .set(PODS, pod("a", |p| p["status"]["podIP"] = "10.0.0.1".into()));
        rig.api.delete(PODS, "shop", "a");
        rig.expect(&["-a/main/0"]);
        rig.api.delete(PODS, "shop", "b");
        rig.expect(&["-b/main/1"]);
        assert_eq!(rig.api.lists(PODS), 1);
    }
}

/// Guarantee: where nothing is told, lists say it, the end of a pod by a snapshot.
#[test]
fn lists_say_it_where_nothing_is_told() {
    let mut rig = Rig::new(Mode::SimplePolling, |api| {
        api.set(PODS, plain("a"));
        api.set(PODS, plain("b"));
    });
    rig.expect(&["+a/main/0", "+b/main/0", "=a/main/0,b/main/0"]);
    rig.api.delete(PODS, "shop", "a");
    assert_eq!(rig.api.watches(PODS), 0);
    // The next list is some seconds away: begun anew it is asked for at once.
    rig.start(Mode::SimplePolling);
    rig.expect(&["+b/main/0", "=b/main/0"]);
}

/// Guarantee: a source says where its file is, what wrote it and what was asked for.
#[test]
fn a_source_has_its_path_and_what_it_belongs_to() {
    let mut rig = Rig::new(Mode::EventStream, |api| {
        api.set(
            PODS,
            pod("web-6c45-x", |p| {
                p["metadata"]["labels"] = json!({"pod-template-hash": "6c45"});
                let owner = json!({"kind": "ReplicaSet", "name": "web-6c45", "controller": true});
                p["metadata"]["ownerReferences"] = json!([owner]);
                p["metadata"]["annotations"] =
                    json!({"tailwater.io/parser": "json", "tailwater.io/tenant": "shop"});
                p["status"]["containerStatuses"][0]["restartCount"] = 2.into();
            }),
        );
    });
    let Event::Present { source, .. } = rig.next_event() else {
        panic!("it is there");
    };
    let path = rig
        .dir
        .path()
        .join("pods/shop_web-6c45-x_web-6c45-x/main/2.log");
    assert_eq!(source.paths, [path.to_str().unwrap()]);
    assert_eq!(source.format, Format::ContainerJson);
    let expect = [
        (labels::NAMESPACE, "shop"),
        (labels::PROJECT, "shop"),
        (labels::POD, "web-6c45-x"),
        (labels::POD_UID, "web-6c45-x"),
        (labels::NODE, "n1"),
        (labels::K8S_CONTAINER, "main"),
        (labels::RESTARTS, "2"),
        (labels::IMAGE, "r.io/web"),
        (labels::TENANT, "shop"),
        (labels::SERVICE, "web"),
        ("k8s.deployment.name", "web"),
    ];
    let expect = expect.map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(source.labels, BTreeMap::from(expect));
}

/// Guarantee: annotations are obeyed, also those that come later; what is not allowed is reported once.
#[test]
fn annotations_are_obeyed() {
    let annotated = |name: &str, annotations: Value| {
        pod(name, |p| p["metadata"]["annotations"] = annotations.clone())
    };
    let mut rig = Rig::new(Mode::EventStream, |api| {
        api.set(PODS, annotated("no", json!({"tailwater.io/logs": "false"})));
        api.set(
            PODS,
            annotated("other", json!({"tailwater.io/tenant": "x"})),
        );
    });
    rig.expect(&["?other/main", "="]);
    rig.api.set(PODS, plain("no"));
    rig.expect(&["+no/main/0"]);
    let json = json!({"tailwater.io/parser.main": "json"});
    rig.api.set(PODS, annotated("no", json));
    rig.expect(&["+no/main/0"]);
    rig.api
        .set(PODS, annotated("no", json!({"tailwater.io/logs": "false"})));
    rig.expect(&["-no/main/0"]);
    rig.api
        .set(PODS, annotated("odd", json!({"tailwater.io/parser": "x"})));
    rig.expect(&["?odd/main/0", "+odd/main/0"]);
}

/// Guarantee: containers that run before and those that are put in later are read as well; a pod that a node made of a file is
/// found under the uid that the kubelet gave it; and what is over when it is heard of is read, if it is there.
#[test]
fn all_kinds_of_containers_are_read() {
    let terminated = json!({"terminated": {"exitCode": 0}});
    let mut rig = Rig::new(Mode::EventStream, |_| {});
    rig.expect(&["="]);
    rig.file("p", "init", 0);
    rig.file("p", "main", 0);
    rig.api.set(
        PODS,
        pod("p", |p| {
            p["spec"]["initContainers"] = json!([{"name": "init"}, {"name": "removed"}]);
            p["spec"]["ephemeralContainers"] = json!([{"name": "debug"}]);
            p["status"]["initContainerStatuses"] = json!([
                {"name": "init", "restartCount": 0, "state": terminated},
                {"name": "removed", "restartCount": 0, "state": terminated},
            ]);
            p["status"]["containerStatuses"][0]["restartCount"] = 1.into();
        }),
    );
    rig.expect(&[
        "+p/init/0",
        "-p/init/0",
        "+p/main/0",
        "-p/main/0",
        "+p/main/1",
        "+p/debug/0",
    ]);
    rig.api.set(
        PODS,
        pod("static-n1", |p| {
            p["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0a1b"});
        }),
    );
    let Event::Present { source, .. } = rig.next_event() else {
        panic!("it is there");
    };
    assert_eq!(source.id, "kubernetes:static-n1/main/0");
    assert!(source.paths[0].ends_with("/shop_static-n1_0a1b/main/0.log"));
    assert_eq!(source.labels[labels::SERVICE], "static");
    // Again from the beginning: what is over is not said to be there again.
    rig.start(Mode::EventStream);
    rig.expect(&[
        "+p/main/1",
        "+p/debug/0",
        "+static-n1/main/0",
        "=p/debug/0,p/main/1,static-n1/main/0",
    ]);
}

/// Guarantee: a pod whose containers ended is over while it is there yet, and one that ends before anything was heard of it
/// is read, if its files are there.
#[test]
fn pods_that_end_are_drained() {
    let mut rig = Rig::new(Mode::EventStream, |api| api.set(PODS, plain("job")));
    rig.expect(&["+job/main/0", "=job/main/0"]);
    rig.api.set(
        PODS,
        pod("job", |p| p["status"]["phase"] = "Succeeded".into()),
    );
    rig.expect(&["-job/main/0"]);
    rig.api.delete(PODS, "shop", "job");
    rig.file("short", "main", 0);
    rig.api.set(
        PODS,
        pod("short", |p| p["status"]["phase"] = "Failed".into()),
    );
    rig.expect(&["+short/main/0", "-short/main/0"]);
    rig.api.delete(PODS, "shop", "short");
    // Without a file there is nothing to say.
    rig.api.set(
        PODS,
        pod("no-file", |p| p["status"]["phase"] = "Failed".into()),
    );
    rig.api.set(PODS, plain("last"));
    rig.expect(&["+last/main/0"]);
}

/// Guarantee: names that lead out of the directory, or are none, become part of no path, and stop nobody else.
#[test]
fn names_that_are_none_become_no_path() {
    let mut rig = Rig::new(Mode::EventStream, |_| {});
    rig.expect(&["="]);
    let long = "x".repeat(300);
    for (n, (field, bad)) in [
        ("namespace", "../../etc"),
        ("namespace", "a_b"),
        ("name", ".."),
        ("name", "a..b"),
        ("name", "A"),
        ("name", &long),
        ("uid", "../x"),
        ("uid", ""),
        ("mirror", "../../x"),
        ("container", ".."),
        ("container", "a/b"),
        ("container", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let object = pod(&format!("p{n}"), |p| match field {
            "container" => p["spec"]["containers"][0]["name"] = bad.into(),
            "mirror" => {
                p["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": bad});
            }
            field => p["metadata"][field] = bad.into(),
        });
        rig.api.set(PODS, object);
        let said = rig.next();
        assert!(
            said.starts_with('?') && said.len() < 200,
            "{field} {bad}: {said}"
        );
    }
    rig.api.set(PODS, plain("good"));
    rig.expect(&["+good/main/0"]);
}

/// Guarantee: a server that refuses, is slow, talks nonsense and forgets costs news some time and no source anything; each
/// failure is counted, and no more lists are asked for than it makes necessary.
#[test]
fn a_server_in_trouble_costs_time_only() {
    let mut rig = Rig::new(Mode::EventStream, |api| {
        api.set(PODS, plain("a"));
        api.set_trouble(|t| {
            (t.refuse, t.status, t.retry_after) = (1, 429, Some(1));
            t.delay = Duration::from_millis(50);
        });
    });
    rig.expect(&["+a/main/0", "=a/main/0"]);
    assert_eq!((rig.failures(), rig.api.lists(PODS)), (1.0, 1));
    assert!(rig.api.wait(BOUND, |api| api.watches(PODS) == 1));
    // Refused while it goes on: nothing is said of it.
    rig.api
        .set_trouble(|t| (t.refuse, t.status, t.retry_after) = (1, 500, None));
    rig.api.end_watches();
    rig.api.set(PODS, plain("b"));
    rig.expect(&["+b/main/0"]);
    assert_eq!(rig.api.lists(PODS), 1);
    // It forgets, and things happen that it cannot tell of any more.
    rig.api.set_trouble(|t| (t.refuse, t.status) = (1, 500));
    rig.api.end_watches();
    rig.api.delete(PODS, "shop", "a");
    rig.api.set(PODS, plain("c"));
    rig.api.forget();
    rig.expect(&["+c/main/0", "=b/main/0,c/main/0"]);
    assert_eq!(rig.api.lists(PODS), 2);
    // What is no event ends a watch; a list makes up for it.
    rig.api.set_trouble(|t| t.nonsense = 1);
    rig.api.end_watches();
    rig.expect_snapshot("b/main/0,c/main/0");
    rig.api.set(PODS, plain("d"));
    rig.expect(&["+d/main/0"]);
    assert!(rig.failures() >= 4.0, "{}", rig.failures());
}

/// Guarantee: a server that tells of what was not asked for, of whatever number of it, is not believed, and said to do so.
#[test]
fn a_server_that_lies_is_not_believed() {
    let mut rig = Rig::new(Mode::EventStream, |api| {
        api.set_trouble(|t| t.ignores_selectors = true);
        for n in 0..50 {
            let node = json!(format!("other-{n}"));
            api.set(
                PODS,
                pod(&format!("p{n}"), |p| p["spec"]["nodeName"] = node),
            );
        }
        api.set(PODS, plain("mine"));
        for n in 0..5 {
            let containers: Vec<Value> =
                (0..90).map(|c| json!({"name": format!("c{c}")})).collect();
            api.set(
                PODS,
                pod(&format!("z{n}"), |p| {
                    p["spec"]["containers"] = containers.into()
                }),
            );
        }
    });
    assert_eq!(rig.next(), "+mine/main/0");
    let mut said = 1;
    loop {
        match rig.next_event() {
            Event::Present { .. } => said += 1,
            Event::Snapshot { ids, .. } => {
                assert_eq!((ids.len(), said), (ROOM, ROOM));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(rig.failures() >= 50.0);
}
