//! Control planes over one PostgreSQL, as processes: one leads, and what was kept is there whatever is killed.
#![allow(clippy::unwrap_used)]

mod peer;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tailwater_control::client::Client;
use tailwater_control::http::Target;
use tailwater_control_plane::model::{Format, Origin, State};
use tailwater_control_plane::report::{CAPABILITY, Report, Reported, TYPE};
use tailwater_opamp::proto::{AgentToServer, CustomMessage};
use tailwater_testkit::postgres::{PASSWORD, Postgres, find};

use peer::{BOUND, command, free_addr};

const PIPELINE: &str = "exporters: {loki: {labels: {static: {release: one}}}}\n";

/// A server, where there is one.
fn database() -> Option<Postgres> {
    match find() {
        Ok(binaries) => Some(Postgres::start(&binaries)),
        Err(why) => {
            println!("SKIPPED: control planes over PostgreSQL: {why}");
            None
        }
    }
}

/// All leases have ended: what a quarter of a minute does.
fn end_leases(database: &Postgres) {
    let mut client = postgres::Client::connect(&database.url(), postgres::NoTls).unwrap();
    let end = "UPDATE tailwater_control.leases SET until_ms = 0";
    client.batch_execute(end).unwrap();
}

struct Control {
    child: Child,
    client: Client,
    addr: SocketAddr,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file that nobody else may read.
fn secret(path: &Path, mode: u32) {
    fs::write(path, format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Control {
    /// One that listens, and leads if nobody else does.
    fn start(database: &Postgres) -> Control {
        let dir = tempfile::tempdir().unwrap();
        let (addr, log) = (free_addr(), dir.path().join("log"));
        let password = dir.path().join("password");
        secret(&password, 0o600);
        let child = command()
            .args([
                "serve",
                "--approval",
                "10m",
                "--listen",
                &addr.to_string(),
                "--state",
            ])
            .arg(dir.path().join("state"))
            .args([
                "--database",
                &database.url_without_password(),
                "--database-password-file",
            ])
            .arg(&password)
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let control = Control {
            child,
            client: Client::new(Target::of_api(&format!("http://{addr}"), None).unwrap()),
            addr,
            log,
            _dir: dir,
        };
        control.wait("it listens", || std::net::TcpStream::connect(addr).is_ok());
        control
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait(&self, what: &str, mut met: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !met() {
            assert!(begun.elapsed() < BOUND, "not seen: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, method: Method, path: &str, body: Option<&str>) -> Result<Value, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let asked = self.client.ask(method, path, body.map(str::to_owned));
        runtime.block_on(asked).map_err(|e| format!("{e:#}"))
    }

    /// The status of an answer to a plain request, and the whole of it.
    fn raw(&self, request: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.addr).unwrap();
        let rest = "Host: 127.0.0.1\r\nConnection: close\r\n\r\n";
        stream
            .write_all(format!("{request} HTTP/1.1\r\n{rest}").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].parse().unwrap(), answer.to_lowercase())
    }

    fn leads(&self) -> bool {
        self.raw("GET /readyz").0 == 200
    }

    fn wait_to_lead(&self) {
        self.wait("it leads", || self.leads());
    }

    fn apply(&self, text: &str) -> Result<Value, String> {
        self.ask(Method::POST, "/api/v1/rollouts/shop", Some(text))
    }

    fn group(&self) -> Value {
        self.ask(Method::GET, "/api/v1/rollouts/shop?limit=1000", None)
            .unwrap()
    }

    fn wait_for_phase(&self, phase: &str) {
        // Right after the start of a leader it may not be known.
        let now = || self.ask(Method::GET, "/api/v1/rollouts/shop", None);
        self.wait(phase, || now().is_ok_and(|g| g["phase"] == phase));
    }

    /// The epochs of all steps, the oldest first.
    fn epochs(&self) -> Vec<u64> {
        let group = self.group();
        let steps = group["steps"].as_array().unwrap().iter();
        let mut epochs: Vec<_> = steps.map(|s| s["epoch"].as_u64().unwrap()).collect();
        epochs.reverse();
        epochs
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < BOUND, "it does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Guarantee: of two control planes one leads, and the other one takes nobody's words; when the first one is stopped, the
/// other one leads at once, and goes on with all that was kept; nothing of the password is logged.
#[test]
fn of_two_control_planes_one_leads() {
    let Some(database) = database() else { return };
    let mut first = Control::start(&database);
    first.wait_to_lead();
    let second = Control::start(&database);
    assert_eq!(second.raw("GET /healthz").0, 200);
    assert!(!second.leads());
    assert!(
        second
            .raw("GET /metrics")
            .1
            .contains("\ntailwater_fleet_leader 0\n")
    );
    let (status, answer) = second.raw("GET /v1/opamp");
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("retry-after: 5"), "{answer}");
    for told in [
        second.apply(PIPELINE),
        second.ask(Method::GET, "/api/v1/agents", None),
    ] {
        let refused = told.unwrap_err();
        assert!(refused.contains("stands by"), "{refused}");
    }
    let applied = first.apply(PIPELINE).unwrap();
    first.wait_for_phase("approve");
    let before = first.epochs();
    assert!(before.iter().all(|e| *e == 1) && !before.is_empty());
    first.signal(Signal::TERM);
    assert!(first.ended().success(), "{}", first.log());
    second.wait_to_lead();
    second.wait_for_phase("approve");
    let group = second.group();
    assert_eq!(group["applied"][0]["digest"], applied["digest"]);
    second
        .ask(Method::POST, "/api/v1/rollouts/shop/approve", None)
        .unwrap();
    second.wait("the approval", || second.epochs().last() == Some(&2));
    assert_eq!(second.epochs()[..before.len()], before);
    let audit = second.ask(Method::GET, "/api/v1/audit", None).unwrap();
    let entries = audit["entries"].as_array().unwrap().iter();
    let actions: Vec<_> = entries.map(|e| e["action"].clone()).collect();
    let both = [json!("apply"), json!("approve")];
    assert!(both.iter().all(|a| actions.contains(a)), "{actions:?}");
    assert!(!(first.log() + &second.log()).contains(PASSWORD));
}

/// Guarantee: a control plane that stood by knows, when it begins to lead, what agents said of their sources meanwhile to
/// the one before, and agents that come go on from there.
#[test]
fn a_standby_knows_sources_that_came_while_it_stood_by() {
    let Some(database) = database() else { return };
    let mut first = Control::start(&database);
    first.wait_to_lead();
    let second = Control::start(&database);
    second.wait("it stands by", || second.log().contains("stands by"));
    let source = |id: &str| Reported {
        id: id.to_owned(),
        kind: Origin::Docker,
        format: Format::Docker,
        paths: vec![format!("/var/lib/docker/{id}.log")],
        state: State::Live,
        generation: 1,
        since_ms: 1,
        lag_bytes: 0,
        labels: BTreeMap::new(),
    };
    let say = async |control: &Control, ids: &[&str]| {
        let mut agent = peer::Agent::connect(control.addr, peer::uid(1)).await;
        agent.say(peer::hello(agent.uid)).await;
        let report = Report::of(ids.iter().map(|id| source(id)), 0);
        let message = CustomMessage {
            capability: CAPABILITY.to_owned(),
            r#type: TYPE.to_owned(),
            data: report.to_bytes(),
        };
        let beat = agent.beat();
        let said = AgentToServer {
            custom_message: Some(message),
            ..beat
        };
        agent.say(said).await;
        agent
    };
    let ids = |control: &Control| {
        let answer = control.ask(Method::GET, "/api/v1/sources", None);
        let all = answer.unwrap()["sources"].as_array().unwrap().clone();
        let ids = all.iter().map(|s| s["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let runtime = peer::runtime();
    let there = runtime.block_on(say(&first, &["docker:a", "docker:b"]));
    first.wait("its sources", || ids(&first).len() == 2);
    first.signal(Signal::TERM);
    assert!(first.ended().success(), "{}", first.log());
    drop(there);
    second.wait_to_lead();
    assert_eq!(ids(&second), ["docker:a", "docker:b"], "of the former one");
    let _there = runtime.block_on(say(&second, &["docker:b"]));
    second.wait("one has ended", || ids(&second) == ["docker:b"]);
    let gone = second.ask(Method::GET, "/api/v1/sources?state=gone", None);
    assert_eq!(gone.unwrap()["sources"][0]["id"], "docker:a");
}

/// Guarantee: one that froze and goes on when another one leads changes nothing, and ends.
#[test]
fn a_frozen_leader_changes_nothing() {
    let Some(database) = database() else { return };
    let mut first = Control::start(&database);
    first.wait_to_lead();
    first.apply(PIPELINE).unwrap();
    first.wait_for_phase("approve");
    let second = Control::start(&database);
    first.signal(Signal::STOP);
    end_leases(&database);
    second.wait_to_lead();
    second.wait_for_phase("approve");
    second
        .ask(Method::POST, "/api/v1/rollouts/shop/deny", None)
        .unwrap();
    second.wait("the denial", || second.epochs().last() == Some(&2));
    second.wait_for_phase("idle");
    first.signal(Signal::CONT);
    assert!(!first.ended().success());
    let log = first.log();
    assert!(log.contains("another control plane leads now"), "{log}");
    let epochs = second.epochs();
    assert!(
        epochs.is_sorted() && *epochs.last().unwrap() == 2,
        "{epochs:?}"
    );
    assert!(second.leads());
}

/// Guarantee: a database that is killed and comes back is found again, with all that was kept; meanwhile what cannot be kept
/// is refused, and says why. A control plane that is killed leaves all of it to the next one.
#[test]
fn a_killed_database_is_found_again() {
    let Some(mut database) = database() else {
        return;
    };
    let mut first = Control::start(&database);
    first.wait_to_lead();
    let one = first.apply(PIPELINE).unwrap();
    first.wait_for_phase("approve");
    database.kill();
    let refused = first.apply("exporters: {loki: {labels: {static: {release: two}}}}\n");
    assert!(refused.unwrap_err().contains("audit log cannot be written"));
    let refused = first.ask(Method::GET, "/api/v1/version", None).unwrap_err();
    assert!(refused.contains("postgres at 127.0.0.1"), "{refused}");
    assert_eq!(first.raw("GET /healthz").0, 200);
    database.start_again();
    first.wait("it asks again", || {
        first.ask(Method::GET, "/api/v1/version", None).is_ok()
    });
    first.wait_to_lead();
    let two = "exporters: {loki: {labels: {static: {release: two}}}}\n";
    first.wait("it keeps again", || first.apply(two).is_ok());
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    end_leases(&database);
    let second = Control::start(&database);
    second.wait_to_lead();
    second.wait("both", || {
        let group = second.ask(Method::GET, "/api/v1/rollouts/shop", None);
        group.is_ok_and(|g| g["applied"].as_array().is_some_and(|a| a.len() == 2))
    });
    assert_eq!(second.group()["applied"][1]["digest"], one["digest"]);
    assert!(!(first.log() + &second.log()).contains(PASSWORD));
}

/// Guarantee: what keeps a database from being used is said at the start, without the password.
#[test]
fn a_database_that_cannot_be_used_is_said() {
    let Some(database) = database() else { return };
    let dir = tempfile::tempdir().unwrap();
    let refused = |url: &str, file: Option<&Path>| {
        let mut serve = command();
        serve
            .args(["serve", "--listen", "127.0.0.1:0", "--state"])
            .arg(dir.path());
        serve.args(["--database", url]).stderr(Stdio::piped());
        if let Some(file) = file {
            serve.arg("--database-password-file").arg(file);
        }
        let out = serve.env_remove("PGPASSWORD").output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success(), "{said}");
        assert!(
            !said.contains(PASSWORD) && !said.contains("wr0ng"),
            "{said}"
        );
        said
    };
    let bare = database.url_without_password();
    let wrong = refused(&bare.replace("tailwater@", "tailwater:wr0ng@"), None);
    assert!(wrong.contains("its password is wrong"), "{wrong}");
    let file = dir.path().join("password");
    secret(&file, 0o644);
    let open = refused(&bare, Some(&file));
    assert!(open.contains("chmod 600"), "{open}");
    secret(&file, 0o600);
    let twice = refused(&database.url(), Some(&file));
    assert!(twice.contains("another one is given"), "{twice}");
    let prefer = refused(&format!("{bare}?sslmode=prefer"), Some(&file));
    assert!(prefer.contains("say verify-full"), "{prefer}");
}
