//! Against the stand-in of the testkit.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::kubernetes::FakeKubernetes;

use super::*;
use crate::access::{Access, Auth};
use crate::model::Pod;

const PODS: &str = "/api/v1/pods";
const BOUND: Duration = Duration::from_secs(20);

/// What was told, as text: `all a b`, `set a`, `gone a`, `failed 410`.
struct Told(Receiver<String>);

impl Told {
    fn next(&self) -> String {
        self.0.recv_timeout(BOUND).expect("nothing was told")
    }

    /// The next one that is no failure, and how many failures came before.
    fn next_good(&self) -> (String, usize) {
        let mut failures = 0;
        loop {
            match self.next() {
                told if told.starts_with("failed") => failures += 1,
                told => return (told, failures),
            }
        }
    }
}

struct Stand {
    server: FakeKubernetes,
    told: Told,
    _dir: tempfile::TempDir,
    /// Dropping it ends the thread that follows.
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// How it is learned what there is.
#[derive(Clone, Copy)]
enum By {
    Watch,
    WatchAndList(Duration),
    List(Duration),
}

/// Follows pods of node n1.
fn stand(prepare: impl FnOnce(&FakeKubernetes)) -> Stand {
    stand_by(By::Watch, prepare)
}

fn stand_by(by: By, prepare: impl FnOnce(&FakeKubernetes)) -> Stand {
    let server = FakeKubernetes::start().unwrap();
    prepare(&server);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    std::fs::write(&path, server.kubeconfig()).unwrap();
    let access = Access {
        auth: Auth::KubeConfig,
        kube_config: Some(path),
        context: None,
    };
    let watch = Watch {
        path: PODS.into(),
        labels: String::new(),
        fields: "spec.nodeName=n1".into(),
        form: Form::Whole,
    };
    let (say, told) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new(access, "test");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let tell = move |change: Change<'_, Pod>| tell(&say, change);
        let following = async move {
            match by {
                By::Watch => follow(client, watch, 7, tell).await,
                By::WatchAndList(every) => follow_and_list(client, watch, every, 7, tell).await,
                By::List(every) => poll(client, watch, every, 7, tell).await,
            }
        };
        runtime.block_on(async {
            tokio::select! {
                () = following => {}
                _ = stopped => {}
            }
        });
    });
    Stand {
        server,
        told: Told(told),
        _dir: dir,
        _stop: stop,
    }
}

fn tell(say: &Sender<String>, change: Change<'_, Pod>) {
    let text = match change {
        Change::All(pods) => {
            let names: Vec<String> = pods.into_iter().map(|p| p.metadata.name).collect();
            format!("all {}", names.join(" "))
        }
        Change::Set(pod) => format!("set {}", pod.metadata.name),
        Change::Gone(pod) => format!("gone {}", pod.metadata.name),
        Change::Failed(error, _) => format!("failed {error}"),
    };
    let _ = say.send(text);
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": null},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i:1"}]},
    })
}

#[test]
fn a_list_is_asked_for_once_and_then_changes_are_told() {
    let stand = stand(|s| {
        s.set(PODS, pod("a", "n1"));
        s.set(PODS, pod("b", "n2"));
    });
    assert_eq!(stand.told.next(), "all a");
    stand.server.set(PODS, pod("c", "n1"));
    stand.server.set(PODS, pod("d", "n2"));
    stand.server.delete(PODS, "a", "a");
    assert_eq!(stand.told.next(), "set c");
    assert_eq!(stand.told.next(), "gone a");
    // Ended watches go on from where they were.
    for name in ["e", "f"] {
        stand.server.end_watches();
        stand.server.set(PODS, pod(name, "n1"));
        assert_eq!(stand.told.next(), format!("set {name}"));
    }
    assert_eq!(stand.server.lists(PODS), 1);
    let asked = stand.server.asked();
    assert_eq!(asked[0].authorization.as_deref(), Some("Bearer test-token"));
    assert_eq!(asked[0].value("resourceVersion"), Some("0"));
}

#[test]
fn a_long_list_comes_in_pages() {
    let stand = stand(|s| {
        for n in 0..1201 {
            s.set(PODS, pod(&format!("p{n:04}"), "n1"));
        }
    });
    let told = stand.told.next();
    assert_eq!(told.split(' ').count(), 1 + 1201);
    let pages = stand
        .server
        .asked()
        .iter()
        .filter(|a| !a.is_watch())
        .count();
    assert_eq!((pages, stand.server.lists(PODS)), (3, 1));
}

/// Guarantee: a server that was away is found again, and nothing that happened meanwhile is missed, without
/// another list.
#[test]
fn a_server_that_comes_back_is_followed_from_where_it_was() {
    let mut stand = stand(|s| s.set(PODS, pod("a", "n1")));
    assert_eq!(stand.told.next(), "all a");
    assert!(stand.server.wait(BOUND, |s| s.watches(PODS) == 1));
    stand.server.leave();
    stand.server.set(PODS, pod("b", "n1"));
    stand.server.delete(PODS, "a", "a");
    assert!(stand.told.next().starts_with("failed"));
    stand.server.come_back().unwrap();
    assert_eq!(stand.told.next_good().0, "set b");
    assert_eq!(stand.told.next_good().0, "gone a");
    assert_eq!(stand.server.lists(PODS), 1);
}

#[test]
fn a_version_that_is_forgotten_costs_one_list() {
    let stand = stand(|s| s.set(PODS, pod("a", "n1")));
    assert_eq!(stand.told.next(), "all a");
    assert!(stand.server.wait(BOUND, |s| s.watches(PODS) == 1));
    stand.server.delete(PODS, "a", "a");
    assert_eq!(stand.told.next(), "gone a");
    stand.server.set(PODS, pod("b", "n1"));
    assert_eq!(stand.told.next(), "set b");
    stand.server.forget();
    let failed = stand.told.next();
    assert!(failed.contains("410"), "{failed}");
    assert_eq!(stand.told.next(), "all b");
    stand.server.set(PODS, pod("c", "n1"));
    assert_eq!(stand.told.next(), "set c");
    assert_eq!(stand.server.lists(PODS), 2);
    let asked = stand.server.asked();
    let lists: Vec<_> = asked.iter().filter(|a| !a.is_watch()).collect();
    assert_eq!(
        lists[1].value("resourceVersion"),
        None,
        "what it has at hand may be as old"
    );
}

/// Guarantee: a server that forgets every version at once is asked for lists ever more rarely.
#[test]
fn a_server_that_always_forgets_is_not_asked_in_a_loop() {
    let stand = stand(|s| {
        s.set(PODS, pod("a", "n1"));
        s.set_trouble(|t| t.forgets_at_once = true);
    });
    let (mut lists, mut pauses) = (0, 0);
    while lists < 4 {
        match stand.told.next() {
            told if told.starts_with("all") => lists += 1,
            told => {
                assert!(told.contains("410"), "{told}");
                pauses += 1;
            }
        }
    }
    assert_eq!(pauses, 3);
}

#[test]
fn refusals_are_heeded() {
    let stand = stand(|s| {
        s.set(PODS, pod("a", "n1"));
        s.set_trouble(|t| (t.refuse, t.status, t.retry_after) = (1, 429, Some(1)));
    });
    let failed = stand.told.next();
    assert!(
        failed.contains("429") && failed.contains("the test wants it so"),
        "{failed}"
    );
    assert_eq!(stand.told.next(), "all a");
    stand
        .server
        .set_trouble(|t| (t.refuse, t.status, t.retry_after) = (2, 500, None));
    stand.server.end_watches();
    let failed = stand.told.next();
    assert!(failed.contains("500"), "{failed}");
    // Not before: a watch that has not noticed its end yet would tell of it.
    stand.server.set(PODS, pod("b", "n1"));
    let (told, failures) = stand.told.next_good();
    assert_eq!((told.as_str(), failures), ("set b", 1));
    assert_eq!(stand.server.lists(PODS), 1);
}

#[test]
fn bookmarks_bring_the_version_forward() {
    let stand = stand(|s| s.set(PODS, pod("a", "n1")));
    assert_eq!(stand.told.next(), "all a");
    assert!(stand.server.wait(BOUND, |s| s.watches(PODS) == 1));
    // None of this is told to who follows n1.
    for n in 0..5 {
        stand.server.set(PODS, pod(&format!("other{n}"), "n2"));
    }
    stand.server.bookmark();
    stand.server.set(PODS, pod("b", "n1"));
    assert_eq!(stand.told.next(), "set b");
    stand.server.end_watches();
    assert!(stand.server.wait(BOUND, |s| s.watches(PODS) == 2));
    let asked = stand.server.asked();
    let last = asked.iter().rfind(|a| a.is_watch()).unwrap();
    assert_eq!(last.value("resourceVersion"), Some("7"));
}

/// Guarantee: who asks for everything from time to time is told of it, after what was told and never of an older state.
#[test]
fn everything_is_asked_for_again() {
    let every = Duration::from_secs(1);
    let stand = stand_by(By::WatchAndList(every), |s| s.set(PODS, pod("a", "n1")));
    assert_eq!(stand.told.next(), "all a");
    assert!(stand.server.wait(BOUND, |s| s.watches(PODS) == 1));
    stand.server.set(PODS, pod("b", "n1"));
    assert_eq!(stand.told.next(), "set b");
    assert_eq!(stand.told.next(), "all a b");
    let asked = stand.server.asked();
    let lists: Vec<_> = asked.iter().filter(|a| !a.is_watch()).collect();
    assert_eq!(lists[0].value("resourceVersion"), Some("0"));
    assert_eq!(lists[1].value("resourceVersion"), None);
    let watch = asked.iter().find(|a| a.is_watch()).unwrap();
    assert_eq!(watch.value("timeoutSeconds"), Some("1"));
}

#[test]
fn lists_alone_do_as_well() {
    let every = Duration::from_millis(50);
    let stand = stand_by(By::List(every), |s| {
        s.set(PODS, pod("a", "n1"));
        s.set_trouble(|t| (t.refuse, t.status) = (1, 500));
    });
    assert!(stand.told.next().contains("500"));
    assert_eq!(stand.told.next(), "all a");
    stand.server.delete(PODS, "a", "a");
    while stand.told.next() != "all " {}
    assert_eq!(stand.server.watches(PODS), 0);
}

/// Guarantee: what is no event ends a watch, and a list makes up for it, again and again.
#[test]
fn nonsense_is_made_up_for() {
    let stand = stand(|s| {
        s.set(PODS, pod("a", "n1"));
        s.set_trouble(|t| t.nonsense = 2);
    });
    for _ in 0..2 {
        assert_eq!(stand.told.next(), "all a");
        let failed = stand.told.next();
        assert!(failed.contains("not understood"), "{failed}");
    }
    assert_eq!(stand.told.next(), "all a");
    stand.server.set(PODS, pod("b", "n1"));
    assert_eq!(stand.told.next(), "set b");
}

#[test]
fn a_slow_server_is_waited_for() {
    let stand = stand(|s| {
        s.set(PODS, pod("a", "n1"));
        s.set_trouble(|t| t.delay = Duration::from_millis(300));
    });
    assert_eq!(stand.told.next(), "all a");
}

#[test]
fn values_of_queries_are_escaped() {
    let watch = Watch {
        path: "/x".into(),
        labels: "a=b,c!=d e".into(),
        fields: String::new(),
        form: Form::Whole,
    };
    assert_eq!(
        watch.query(&[("watch", "1"), ("continue", "")]),
        "/x?labelSelector=a%3Db%2Cc%21%3Dd%20e&watch=1"
    );
}

#[test]
fn events_that_are_not_understood_end_a_watch_and_unknown_kinds_do_not() {
    let mut version = "5".to_owned();
    let mut told = Vec::new();
    let mut tell = |change: Change<'_, Pod>| {
        if let Change::Set(pod) = change {
            told.push(pod.metadata.name);
        }
    };
    let mut take = |line: &str| event::<Pod>(PODS, line.as_bytes(), &mut version, &mut tell);
    assert!(take(r#"{"type":"NEW","object":{"x":[1,{"y":2}]}}"#).is_ok());
    assert!(
        take(r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}"#)
            .is_ok()
    );
    for bad in [
        "",
        "{",
        r#"{"type":"ADDED"}"#,
        r#"{"type":"ADDED","object":[]}"#,
        "\u{fffd}",
    ] {
        assert!(matches!(take(bad), Err(ApiError::Answer { .. })), "{bad}");
    }
    assert!(
        take(r#"{"type":"ERROR","object":{"reason":"Expired"}}"#)
            .unwrap_err()
            .is_gone()
    );
    assert_eq!((told, version.as_str()), (vec!["a".to_owned()], "9"));
}
