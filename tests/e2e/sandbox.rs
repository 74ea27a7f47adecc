//! What the agent shuts itself out of, on kernels that can do that, and that nothing it needs is
//! among it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};
use serde_json::{Value, json};
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::stand::{Stand, sorted};
use tailwater_tests::wait;

/// What the log says of a sandbox that holds, and of none.
const SANDBOXED: &str = "sandboxed: files outside";
const NOT_SANDBOXED: &str = "not sandboxed";

/// Forbids nothing that matters here, once more; false where the kernel cannot.
fn add_layer() -> bool {
    let rights = AccessFs::from_all(ABI::V1);
    let root = PathFd::new("/").expect("there is a root");
    let status = Ruleset::default()
        .handle_access(rights)
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rule(PathBeneath::new(root, rights)))
        .and_then(|ruleset| ruleset.restrict_self());
    status.is_ok_and(|s| s.ruleset == RulesetStatus::FullyEnforced)
}

/// Runs `test` where the kernel has Landlock; else says that it could not.
fn with_landlock(what: &str, test: impl FnOnce() + Send + 'static) {
    // A layer holds for the thread that adds it, so the look at the kernel has one of its own.
    if std::thread::spawn(add_layer).join().expect("no panic") {
        test();
    } else {
        println!("SKIPPED: {what}: the kernel has no Landlock");
    }
}

fn stand(sandbox: Value) -> Stand {
    let mut stand = Stand::new(&json!({}));
    if !sandbox.is_null() {
        stand.config["service"]["sandbox"] = sandbox;
    }
    stand
}

fn refused(agent: &Agent, path: &Path) -> bool {
    let log = agent.log();
    let path = path.to_string_lossy().into_owned();
    log.lines()
        .any(|l| l.contains(&path) && l.contains("service::sandbox::read"))
}

/// Guarantees that names are looked up as before: the defaults of metrics and health check, which name
/// `localhost`, work.
#[test]
fn servers_listen_on_names() {
    with_landlock("names in the sandbox", || {
        let mut stand = stand(Value::Null);
        let free = || free_port().expect("a free port");
        let exporter = json!({"prometheus": {"host": "localhost", "port": free()}});
        stand.config["service"]["telemetry"]["metrics"]["readers"] =
            json!([{"pull": {"exporter": exporter}}]);
        let health = format!("localhost:{}", free());
        stand.config["extensions"]["health_check"] = json!({"endpoint": health});
        stand.config["service"]["extensions"] = json!(["health_check"]);
        let agent = stand.start();
        assert!(agent.log().contains(SANDBOXED), "{}", agent.log());
        agent.stop_clean();
    });
}

/// Guarantees that a file outside of all that the configuration names cannot be opened, by
/// whatever link somebody makes; that this is said, with the remedy; and that both remedies work.
#[test]
fn what_the_configuration_does_not_name_is_shut_until_it_does() {
    with_landlock("files outside of the configuration", || {
        let outside = TempDir::new("outside").expect("a directory");
        fs::write(outside.join("x.log"), "out of reach\n").expect("written");
        let name = outside.path().to_string_lossy().into_owned();
        let cases = [
            (Value::Null, false),
            (json!({"read": [name]}), true),
            (json!({"enabled": false}), true),
        ];
        for (sandbox, opened) in cases {
            let stand = stand(sandbox.clone());
            stand.write("a.log", "in reach\n");
            let agent = stand.start();
            assert_eq!(
                agent.log().matches(SANDBOXED).count(),
                usize::from(!sandbox["enabled"].is_boolean())
            );
            let link = stand.rig.logs("link.log");
            symlink(outside.join("x.log"), &link).expect("a link");
            if opened {
                stand.wait(&agent, 2);
            } else {
                let said = wait::within(wait::BOUND, || refused(&agent, &link));
                assert!(said, "nothing is said of it:\n{}", agent.log());
                stand.append("a.log", "still in reach\n");
                stand.wait(&agent, 2);
            }
            agent.stop_clean();
            let read = sorted(&stand.records()).contains(&"out of reach".to_owned());
            assert_eq!(read, opened, "{sandbox}");
        }
    });
}

/// Guarantees that the sandbox takes nothing away from a configuration that works without it:
/// links that are there at the start, directories that are made, deleted and made again later,
/// owners by name, positions, an output whose directory is created, and deletion where it is asked
/// for.
#[test]
fn what_the_configuration_needs_stays_open() {
    with_landlock("what stays open in the sandbox", || {
        let outside = TempDir::new("outside").expect("a directory");
        fs::create_dir_all(outside.join("one")).expect("a directory");
        fs::write(outside.join("one/x.log"), "by a link\n").expect("written");
        let mut stand = stand(Value::Null);
        stand.config["exporters"]["file"] =
            json!({"path": stand.rig.path("made/out.json"), "create_directory": true});
        stand.set(&json!({
            "include": [stand.rig.logs("*.log"), stand.rig.logs("later/still/*.log")],
            "include_file_owner_name": true,
            "delete_after_read": true,
        }));
        symlink(outside.join("one/x.log"), stand.rig.logs("link.log")).expect("a link");
        let agent = stand.start();
        assert!(agent.log().contains(SANDBOXED), "{}", agent.log());
        let out = stand.rig.path("made/out.json");
        let wait = |text: &str| {
            let there = || fs::read_to_string(&out).is_ok_and(|all| all.contains(text));
            assert!(wait::within(wait::BOUND, there), "{text}:\n{}", agent.log());
        };
        wait("by a link");
        stand.write("later/still/1.log", "first\n");
        wait("first");
        fs::remove_dir_all(stand.rig.logs("later")).expect("removed");
        stand.write("later/still/2.log", "second\n");
        wait("second");
        let gone = || !stand.rig.logs("later/still/2.log").exists();
        assert!(wait::within(wait::BOUND, gone), "{}", agent.log());
        fs::create_dir(outside.join("two")).expect("a directory");
        fs::write(outside.join("two/y.log"), "beside it\n").expect("written");
        symlink(outside.join("two/y.log"), stand.rig.logs("link2.log")).expect("a link");
        wait("beside it");
        assert!(fs::read_to_string(&out).is_ok_and(|all| all.contains("log.file.owner.name")));
        agent.stop_clean();
    });
}

/// Guarantees that no thread of the agent can gain privileges, whatever the kernel thinks of
/// sandboxes.
#[test]
fn no_thread_can_gain_privileges() {
    let stand = stand(Value::Null);
    let agent = stand.start();
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("threads");
    let mut n = 0;
    for thread in threads {
        let status = thread.expect("a thread").path().join("status");
        // A thread may have ended in between.
        let Ok(text) = fs::read_to_string(&status) else {
            continue;
        };
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        n += 1;
    }
    assert!(n > 3, "{n} threads");
    agent.stop_clean();
}

/// Guarantees that an agent that the kernel refuses a sandbox runs without one, and says so in one
/// line.
#[test]
fn an_agent_without_a_sandbox_runs_and_says_so_once() {
    with_landlock("a kernel that refuses a sandbox", || {
        let run = || {
            // The kernel stacks a limited number of them (`LANDLOCK_MAX_NUM_LAYERS`, 16).
            while add_layer() {}
            let stand = stand(Value::Null);
            stand.write("a.log", "read\n");
            let agent = stand.start();
            stand.wait(&agent, 1);
            let log = agent.log();
            assert_eq!(log.matches(NOT_SANDBOXED).count(), 1, "{log}");
            assert!(!log.contains(SANDBOXED), "{log}");
            agent.stop_clean();
        };
        std::thread::spawn(run).join().expect("no panic");
    });
}
