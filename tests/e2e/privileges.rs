//! An agent with few rights, and the files that give it these.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::binary;
use tailwater_tests::stand::{Stand, sorted};
use tailwater_tests::wait;

/// A user without rights.
const NOBODY: u32 = 65_534;

/// A running agent, killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Why an agent cannot be started with other rights here.
fn hindrance() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can give rights away");
    }
    let setpriv = Command::new("setpriv").arg("--version").output();
    (!setpriv.is_ok_and(|o| o.status.success())).then_some("there is no setpriv (util-linux)")
}

/// A stand whose logs only root may read, and what else the user of the agent needs.
fn stand_of(user: u32) -> (Stand, String, String) {
    let mut stand = Stand::new(&json!({}));
    stand.config["service"]["telemetry"] = json!({"metrics": {"level": "none"}});
    for (name, mode) in [("app.log", 0o600), ("other.log", 0o640)] {
        stand.write(name, format!("{name}\n"));
        let path = stand.rig.logs(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }
    chown(stand.rig.logs("other.log"), Some(NOBODY - 1), None).expect("root may");
    fs::set_permissions(stand.dir(), fs::Permissions::from_mode(0o700)).expect("set");
    for dir in [stand.rig.state(), stand.rig.path("")] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("set");
        chown(dir, Some(user), None).expect("root may");
    }
    let config = stand.rig.path("agent.yaml");
    fs::write(&config, stand.config.to_string()).expect("written");
    // Where it was built may be out of reach for the user.
    let program = stand.rig.path("tailwater");
    fs::copy(binary(), &program).expect("copied");
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    (stand, text(program), text(config))
}

fn start(stand: &Stand, program: &str, config: &str, user: u32, capabilities: &str) -> Running {
    start_in(stand, program, config, (user, user), capabilities)
}

/// As a user and in a group.
fn start_in(
    stand: &Stand,
    program: &str,
    config: &str,
    (user, group): (u32, u32),
    capabilities: &str,
) -> Running {
    let (id, group) = (user.to_string(), group.to_string());
    let log = File::create(stand.rig.path("log")).expect("a file");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &group, "--clear-groups"]);
    command.args(["--bounding-set", capabilities, "--inh-caps", capabilities]);
    if user != 0 {
        command.args(["--ambient-caps", capabilities]);
    }
    let child = command
        .args([program, "--config", config])
        .env("TAILWATER_STATE_DIR", stand.rig.state())
        .stdin(Stdio::null())
        .stderr(log)
        .spawn();
    Running(child.expect("setpriv runs"))
}

fn log(stand: &Stand) -> String {
    fs::read_to_string(stand.rig.path("log")).unwrap_or_default()
}

/// Guarantees that a user who has nothing but CAP_DAC_READ_SEARCH, and root who has nothing else,
/// read files that only their owner may, keep positions, and go on with them after a restart.
#[test]
fn one_capability_is_enough_to_read_every_log() {
    if let Some(why) = hindrance() {
        println!("SKIPPED: an agent with one capability: {why}");
        return;
    }
    for user in [NOBODY, 0] {
        let (stand, program, config) = stand_of(user);
        for (more, before) in [("more", 2), ("again", 3)] {
            let mut agent = start(&stand, &program, &config, user, "-all,+dac_read_search");
            let there = |n: usize| wait::within(wait::BOUND, || stand.records().len() >= n);
            assert!(there(before), "{user}: {}", log(&stand));
            stand.append("app.log", format!("{more}\n"));
            assert!(there(before + 1), "{user}: {}", log(&stand));
            let status = fs::read_to_string(format!("/proc/{}/status", agent.0.id()));
            let status = status.expect("it runs");
            // Bit 2.
            assert!(status.contains("CapEff:\t0000000000000004"), "{status}");
            let pid = i32::try_from(agent.0.id()).expect("a process id fits");
            let pid = rustix::process::Pid::from_raw(pid).expect("not 0");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
            let ended = wait::for_some(wait::BOUND, || agent.0.try_wait().ok().flatten());
            assert!(
                ended.is_some_and(|s| s.success()),
                "{user}: {}",
                log(&stand)
            );
        }
        let want = ["again", "app.log", "more", "other.log"];
        assert_eq!(sorted(&stand.records()), want, "{user}: {}", log(&stand));
    }
}

/// Guarantees that another user in the group root reads, without any capability, what container runtimes write for that group: so
/// the variant without root of the manifests is enough.
#[test]
fn the_group_root_is_enough_where_it_may_read() {
    if let Some(why) = hindrance() {
        println!("SKIPPED: an agent in the group root: {why}");
        return;
    }
    let (stand, program, config) = stand_of(NOBODY);
    fs::set_permissions(stand.dir(), fs::Permissions::from_mode(0o755)).expect("set");
    for name in ["app.log", "other.log"] {
        let path = stand.rig.logs(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        chown(path, Some(0), Some(0)).expect("root may");
    }
    let _agent = start_in(&stand, &program, &config, (NOBODY, 0), "-all");
    let there = || stand.records().len() >= 2;
    assert!(wait::within(wait::BOUND, there), "{}", log(&stand));
    assert_eq!(sorted(&stand.records()), ["app.log", "other.log"]);
}

/// Guarantees that without the capability such files are not read and that it is said which right
/// is missing. (So the test above shows what it says.)
#[test]
fn without_it_the_log_says_what_is_missing() {
    if let Some(why) = hindrance() {
        println!("SKIPPED: an agent without capabilities: {why}");
        return;
    }
    let (stand, program, config) = stand_of(NOBODY);
    let _agent = start(&stand, &program, &config, NOBODY, "-all");
    let said = || log(&stand).contains("CAP_DAC_READ_SEARCH");
    assert!(wait::within(wait::BOUND, said), "{}", log(&stand));
    assert!(stand.records().is_empty());
}

fn deployed(name: &str) -> String {
    let path = format!("{}/../deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Guarantees that systemd understands every line of the unit, and that the unit gives the rights
/// that the test above shows to be enough.
#[test]
fn the_unit_for_systemd_is_one_and_gives_one_capability() {
    let unit = deployed("systemd/tailwater.service");
    for line in [
        "User=tailwater",
        "AmbientCapabilities=CAP_DAC_READ_SEARCH",
        "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
        "NoNewPrivileges=yes",
        "StateDirectory=tailwater",
        "ProtectSystem=strict",
    ] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
    let dir = TempDir::new("unit").expect("a directory");
    let file = dir.join("tailwater.service");
    let here = binary().to_string_lossy().into_owned();
    fs::write(&file, unit.replace("/usr/local/bin/tailwater", &here)).expect("written");
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output();
    let Ok(verify) = verify else {
        println!("SKIPPED: what systemd says of its unit: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verify.stderr);
    let about_it: Vec<&str> = said
        .lines()
        .filter(|l| l.contains("tailwater.service"))
        .collect();
    // Those that an older systemd does not know are meant to be ignored by it.
    let wrong = about_it.iter().filter(|l| !l.contains("landlock"));
    assert!(wrong.count() == 0 && verify.status.success(), "{said}");
}
