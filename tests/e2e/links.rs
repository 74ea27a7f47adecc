//! What somebody who writes among the logs can make the agent read, and what they cannot.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use serde_json::{Value, json};
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::Agent;
use tailwater_tests::stand::{Stand, sorted};
use tailwater_tests::wait;

/// A user of a container.
const POD: u32 = 1000;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A file that its owner alone may read.
fn secret(path: &Path, owner: u32) {
    fs::write(path, "secret\n").expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
    chown(path, Some(owner), None).expect("root may");
}

fn said(agent: &Agent, path: &Path) -> usize {
    let path = path.to_string_lossy().into_owned();
    let log = agent.log();
    let lines = log.lines();
    lines
        .filter(|l| l.contains(&path) && l.contains("links::roots"))
        .count()
}

/// Guarantees that a user who writes among the logs cannot have a file of another user delivered:
/// not by a link to it, not by one to its directory, not by one to a place of secrets made as root
/// of a container. It is said once, it is counted, and what the user writes is read all the same.
#[test]
fn a_container_cannot_have_the_files_of_others_read() {
    if !is_root() {
        println!("SKIPPED: links of other users: only root can make them");
        return;
    }
    let elsewhere = TempDir::new("elsewhere").expect("a directory");
    secret(&elsewhere.join("x.log"), 0);
    let attacks: [(&str, &Path, u32); 3] = [
        ("file.log", &elsewhere.join("x.log"), POD),
        ("dir", elsewhere.path(), POD),
        ("etc.log", Path::new("/etc/passwd"), 0),
    ];
    let cases = [
        (Value::Null, 0),
        (json!({"follow": "inside"}), 0),
        (json!({"roots": [elsewhere.path(), "/etc"]}), 2),
        (json!({"follow": "all"}), 2),
    ];
    for (links, read) in cases {
        let mut stand = Stand::new(&json!({}));
        let include = [stand.rig.logs("*.log"), stand.rig.logs("*/*.log")];
        stand.set(&json!({"include": include}));
        if !links.is_null() {
            stand.set(&json!({"links": links}));
        }
        for (name, target, owner) in attacks {
            let link = stand.rig.logs(name);
            symlink(target, &link).expect("a link");
            lchown(&link, Some(owner), None).expect("root may");
        }
        stand.write("own.log", "own\n");
        let agent = stand.start();
        if read > 0 {
            let read_all = || {
                let texts = sorted(&stand.records());
                texts.iter().any(|t| t == "secret") && texts.iter().any(|t| t.starts_with("root:"))
            };
            assert!(
                wait::within(wait::BOUND, read_all),
                "{links}: {}",
                agent.log()
            );
        } else {
            let paths = attacks.map(|(name, ..)| stand.rig.logs(name));
            let all = || paths.iter().all(|p| said(&agent, p) == 1);
            assert!(wait::within(wait::BOUND, all), "{links}: {}", agent.log());
            // A complete look later, it is still said once.
            stand.write("second.log", "own\n");
            stand.wait(&agent, 2);
            assert!(all(), "{links}: {}", agent.log());
            assert!(agent.scrape().sum("tailwater_file_errors", &[]) >= 3.0);
        }
        agent.stop_clean();
        if read == 0 {
            assert_eq!(sorted(&stand.records()), ["own", "own"], "{links}");
        }
    }
}

/// Guarantees that a container that swaps its file for a link, after the agent has found the file,
/// gains nothing by it; and that the agent goes on with the file when it is one again.
#[test]
fn a_file_that_becomes_a_link_is_not_followed() {
    if !is_root() {
        println!("SKIPPED: links of other users: only root can make them");
        return;
    }
    let elsewhere = TempDir::new("elsewhere").expect("a directory");
    secret(&elsewhere.join("x"), 0);
    let stand = Stand::new(&json!({}));
    stand.write("a.log", "1\n");
    let agent = stand.start();
    stand.wait(&agent, 1);
    let path = stand.rig.logs("a.log");
    for round in 0..20 {
        let link = stand.rig.path("link");
        symlink(elsewhere.join("x"), &link).expect("a link");
        lchown(&link, Some(POD), None).expect("root may");
        fs::rename(&link, &path).expect("swapped");
        if round == 0 {
            let refused = || said(&agent, &path) == 1;
            assert!(wait::within(wait::BOUND, refused), "{}", agent.log());
        }
        let fresh = stand.rig.path("fresh");
        fs::write(&fresh, format!("fresh {round}\n")).expect("written");
        fs::rename(&fresh, &path).expect("swapped");
        if round == 19 {
            let back = || sorted(&stand.records()).contains(&"fresh 19".to_owned());
            assert!(wait::within(wait::BOUND, back), "{}", agent.log());
        }
    }
    agent.stop_clean();
    assert!(!sorted(&stand.records()).contains(&"secret".to_owned()));
}

/// Guarantees that the layout of a Kubernetes node with Docker, links to links to files that only
/// root may read, is read with `links::follow: inside`; and so is what a user links to its own files
/// elsewhere by default, also when the link moves on to the next file.
#[test]
fn honest_links_are_followed() {
    let stand_dir = TempDir::new("node").expect("a directory");
    let at = |name: &str| stand_dir.join(name);
    for dir in [
        "log/containers",
        "log/pods/ns_pod_1/app",
        "docker/abc",
        "data",
        "app",
    ] {
        fs::create_dir_all(at(dir)).expect("a directory");
    }
    fs::write(at("docker/abc/abc-json.log"), "container\n").expect("written");
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(at("docker/abc/abc-json.log"), mode).expect("set");
    symlink(
        at("docker/abc/abc-json.log"),
        at("log/pods/ns_pod_1/app/0.log"),
    )
    .expect("a link");
    symlink(
        at("log/pods/ns_pod_1/app/0.log"),
        at("log/containers/pod_ns_app.log"),
    )
    .expect("a link");
    let mut stand = Stand::new(&json!({
        "include": [at("log/containers/*.log"), at("docker/*/nothing")],
        "links": {"follow": "inside"},
    }));
    stand.config["receivers"]["filelog/app"] = json!({
        "include": [at("app/current")], "start_at": "beginning", "include_file_name": false,
        "poll_interval": "50ms",
    });
    stand.config["service"]["pipelines"]["logs"]["receivers"] = json!(["filelog", "filelog/app"]);
    for name in ["data/1.log", "data/2.log"] {
        fs::write(at(name), format!("{name}\n")).expect("written");
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).expect("set");
    }
    symlink(at("data/1.log"), at("app/current")).expect("a link");
    if is_root() {
        for name in ["data/1.log", "data/2.log"] {
            chown(at(name), Some(POD), None).expect("root may");
        }
        lchown(at("app/current"), Some(POD), None).expect("root may");
    }
    let agent = stand.start();
    stand.wait(&agent, 2);
    symlink(at("data/2.log"), at("app/next")).expect("a link");
    fs::rename(at("app/next"), at("app/current")).expect("swapped");
    stand.wait(&agent, 3);
    agent.stop_clean();
    assert_eq!(
        sorted(&stand.records()),
        ["container", "data/1.log", "data/2.log"]
    );
}
