use std::io::{Read, Write};

use super::*;

const PODS: &str = "/api/v1/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": "n1"}})
}

/// All that is answered until the server is through, or ends.
fn get(server: &FakeKubernetes, target: &str) -> String {
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn lists_come_in_pages_and_single_objects_by_name() {
    let server = FakeKubernetes::start().unwrap();
    for name in ["x", "y", "z"] {
        server.set(PODS, pod(name));
    }
    let first = get(&server, "/api/v1/pods?limit=2");
    assert!(
        first.contains("\"continue\":\"2\"") && !first.contains("\"z\""),
        "{first}"
    );
    let rest = get(&server, "/api/v1/pods?limit=2&continue=2");
    assert!(
        rest.contains("\"z\"") && !rest.contains("continue"),
        "{rest}"
    );
    assert!(get(&server, "/api/v1/namespaces/a/pods/y").contains("\"y\""));
    assert!(get(&server, "/api/v1/namespaces/a/pods/w").contains("404"));
    assert!(!get(&server, "/api/v1/namespaces/b/pods").contains("\"x\""));
    assert_eq!(server.lists(PODS), 1);
}

#[test]
fn a_watch_tells_what_happens_after_its_version_and_ends_when_told() {
    let server = FakeKubernetes::start().unwrap();
    server.set(PODS, pod("x"));
    server.set(PODS, pod("y"));
    let told = std::thread::scope(|scope| {
        let target = "/api/v1/pods?watch=1&resourceVersion=1&allowWatchBookmarks=true";
        let watch = scope.spawn(|| get(&server, target));
        assert!(server.wait(Duration::from_secs(10), |s| s.watches(PODS) == 1));
        server.delete(PODS, "a", "x");
        server.bookmark();
        server.end_watches();
        watch.join().unwrap()
    });
    let told: String = told.split("\r\n").collect();
    assert!(
        !told.contains("\"ADDED\",\"object\":{\"metadata\":{\"name\":\"x\""),
        "{told}"
    );
    assert!(told.contains("ADDED") && told.contains("DELETED"), "{told}");
}

#[test]
fn what_is_forgotten_is_gone_and_refusals_are_counted_down() {
    let server = FakeKubernetes::start().unwrap();
    server.set(PODS, pod("x"));
    server.forget();
    let told = get(&server, "/api/v1/pods?watch=1&resourceVersion=1");
    assert!(told.contains("ERROR"), "{told}");
    server.set_trouble(|t| (t.refuse, t.status, t.retry_after) = (1, 429, Some(2)));
    let refused = get(&server, PODS);
    assert!(
        refused.starts_with("HTTP/1.1 429") && refused.contains("Retry-After: 2"),
        "{refused}"
    );
    assert!(get(&server, PODS).starts_with("HTTP/1.1 200"));
}

#[test]
fn it_goes_away_and_comes_back_with_what_it_had() {
    let mut server = FakeKubernetes::start().unwrap();
    server.set(PODS, pod("x"));
    server.leave();
    assert!(TcpStream::connect(server.addr()).is_err());
    server.come_back().unwrap();
    assert!(get(&server, PODS).contains("\"x\""));
}
