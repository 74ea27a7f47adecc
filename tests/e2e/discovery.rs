//! Finding files where that is hard: kernels that give no notifications.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tailwater_tests::agent::binary;
use tailwater_tests::stand::{Stand, sorted};
use tailwater_tests::wait;

/// A process that is killed and reaped on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the agent in a user namespace of its own in which so many inotify watches are allowed;
/// its log goes to `log`. `None` where namespaces are not allowed.
fn with_few_watches(watches: u32, config: &Path, state: &Path, log: &Path) -> Option<Running> {
    let set = format!("echo {watches} > /proc/sys/user/max_inotify_watches");
    let try_it = Command::new("unshare")
        .args(["-Ur", "sh", "-c", &set])
        .output();
    if !try_it.is_ok_and(|out| out.status.success()) {
        return None;
    }
    let child = Command::new("unshare")
        .args(["-Ur", "sh", "-c", &format!("{set} && exec \"$0\" \"$@\"")])
        .arg(binary())
        .arg("--config")
        .arg(config)
        .env("TAILWATER_STATE_DIR", state)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log).expect("a log"))
        .spawn();
    Some(Running(child.expect("a process")))
}

/// Guarantees that without watches files are polled: all lines of all directories arrive, and the
/// reason is in the log, once.
#[test]
fn exhausted_watches_are_made_up_for_by_polling() {
    let mut stand = Stand::new(&json!({"poll_interval": "50ms"}));
    stand.set(&json!({"include": [stand.rig.logs("*/*.log")]}));
    for i in 0..6 {
        stand.write(&format!("{i}/x.log"), format!("{i} first\n"));
    }
    stand.config["service"]["telemetry"] = json!({"metrics": {"level": "none"}});
    let (config, log) = (stand.rig.path("agent.yaml"), stand.rig.path("agent.log"));
    fs::write(&config, stand.config.to_string()).expect("written");
    let Some(_agent) = with_few_watches(3, &config, &stand.rig.state(), &log) else {
        println!("skipped: no user namespace with a limit of watches can be made here");
        return;
    };
    let text = || fs::read_to_string(&log).unwrap_or_default();
    let arrive = |n: usize| {
        let done = wait::within(wait::BOUND, || stand.records().len() >= n);
        assert!(done, "{} of {n}\n{}", stand.records().len(), text());
    };
    arrive(6);
    for i in 0..6 {
        stand.append(&format!("{i}/x.log"), format!("{i} second\n"));
    }
    arrive(12);
    stand.write("7/new.log", "7 new\n");
    arrive(13);
    let want: Vec<String> = (0..6)
        .flat_map(|i| [format!("{i} first"), format!("{i} second")])
        .chain(["7 new".to_owned()])
        .collect();
    assert_eq!(sorted(&stand.records()), want);
    let said: Vec<String> = text()
        .lines()
        .filter(|l| l.contains("max_user_watches"))
        .map(str::to_owned)
        .collect();
    assert_eq!(said.len(), 1, "{}", text());
    let fields: Option<Value> = said[0]
        .split('\t')
        .next_back()
        .and_then(|f| serde_json::from_str(f).ok());
    assert!(
        fields.is_some_and(|f| f["receiver"] == "filelog"),
        "{}",
        said[0]
    );
}
