//! Another configuration while the agent runs: it comes into force without a line lost or repeated, or
//! not at all.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Naming, Rotation};
use tailwater_tests::admin::Way;
use tailwater_tests::agent::{Agent, binary};
use tailwater_tests::changes::Changes;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Writers that rotate, at a rate that a machine with other work keeps up with.
fn writers(rig: &Rig, lines_per_second: u64) -> Vec<LiveWriter> {
    let writer = |id: u32| {
        let writer = rig.writer(id, &format!("app-{id}.log"), |o| {
            o.rotation = Rotation::RenameCreate {
                naming: Naming::Numbered,
                keep: 1000,
                compress: Default::default(),
                late_lines: 3,
            };
        });
        let options = LiveOptions {
            lines_per_second,
            rotate_every_lines: Some(900 + 300 * u64::from(id)),
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    };
    (1..4).map(writer).collect()
}

/// Guarantees that changes of every kind, one after the other while files rotate and the sink is away
/// now and then, lose nothing and show nothing twice.
#[test]
fn changes_of_every_kind_lose_and_repeat_nothing() {
    let rig = Rig::new("reload");
    let mut config = rig.config();
    // Each answer is waited for.
    config["service"]["telemetry"]["logs"] =
        json!({"level": "info", "sampling": {"enabled": false}});
    // A request whose answer the sink's going took is sent again, in the stream that lines have then.
    let changes = Changes::new(
        &config,
        rig.loki.push_url().replace("127.0.0.1", "localhost"),
        rig.logs("*.txt"),
    );
    let changes = changes.same_streams();
    config = changes.settle();
    let agent = rig.start(&config);
    let live = writers(&rig, 2_000);
    let mut rng = Rng::new(5);
    for n in 0..60 {
        changes.make(&mut config, n);
        if n % 15 == 7 {
            rig.loki.set_reach(Reach::Refused).expect("a port");
        }
        assert!(agent.reload(&config), "{n}: {}", tail(&agent.log()));
        if n % 15 == 10 {
            rig.loki.set_reach(Reach::Up).expect("a port");
        }
        wait::let_pass(Duration::from_millis(rng.below(40)));
    }
    for writer in live {
        writer.stop().expect("written");
    }
    rig.wait_delivered(&agent);
    assert_eq!(agent.scrape().sum("tailwater_config_generation", &[]), 61.0);
    let report = rig.finish(agent);
    println!("{:?}", report.totals);
}

/// Guarantees that a configuration with a mistake changes nothing, and is told of with its place.
#[test]
fn what_is_refused_changes_nothing() {
    let rig = Rig::new("refused");
    let config = rig.config();
    let agent = rig.start(&config);
    let live = writers(&rig, 1_000);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let cases: [(&str, Value, &str); 6] = [
        (
            "/receivers/filelog/include",
            json!(7),
            "receivers::filelog::include",
        ),
        (
            "/exporters/loki/endpoint",
            json!("nowhere"),
            "exporters::loki::endpoint",
        ),
        (
            "/service/pipelines/logs/exporters",
            json!(["lokki"]),
            "lokki",
        ),
        ("/service/workers", json!(7), "service::workers"),
        (
            "/service/extensions",
            json!(["health_check"]),
            "cannot listen",
        ),
        (
            "/receivers/filelog/storage",
            json!("file_storage"),
            "file_storage",
        ),
    ];
    for (path, value, said) in cases {
        let mut wrong = config.clone();
        wrong["service"]["extensions"] = json!([]);
        wrong["service"]["workers"] = json!(0);
        wrong["receivers"]["filelog"]["storage"] = Value::Null;
        wrong["extensions"] = json!({"health_check": {"endpoint": taken}});
        *wrong.pointer_mut(path).expect("a place") = value;
        assert!(!agent.reload(&wrong), "{path}: {}", tail(&agent.log()));
        assert!(agent.log().contains(said), "{path}: {}", tail(&agent.log()));
    }
    for text in ["", "{", "receivers:\n\t- a", "a: &a [*a, *a]"] {
        let before = agent.changes()[2];
        agent.offer_text(text);
        agent.signal(rustix::process::Signal::HUP);
        assert!(
            wait::within(wait::BOUND, || agent.changes()[2] > before),
            "{text}"
        );
    }
    assert_eq!(agent.scrape().sum("tailwater_config_generation", &[]), 1.0);
    assert!(!agent.reload(&config), "it is what runs");
    for writer in live {
        writer.stop().expect("written");
    }
    rig.wait_delivered(&agent);
    rig.finish(agent);
}

fn watching(rig: &Rig, config: &Value) -> Agent {
    rig.start_by(config, |mut command: Command| {
        command.arg("--watch");
        command
    })
}

/// Guarantees that `--watch` sees a file that is replaced, and a link that leads elsewhere as in a
/// ConfigMap, and takes neither half a file nor a bad one.
#[test]
fn watched_files_are_read_when_they_change() -> io::Result<()> {
    let rig = Rig::new("watch");
    let mut config = rig.config();
    let agent = watching(&rig, &config);
    let mut writer = rig.writer(1, "app.log", |_| {});
    config["processors"]["batch"]["timeout"] = json!("30ms");
    agent.offer(&config);
    assert!(wait::within(wait::BOUND, || agent.changes() == [1, 0, 0]));
    agent.offer_text("receivers: [");
    assert!(wait::within(wait::BOUND, || agent.changes() == [1, 0, 1]));
    let file = agent.config_file().to_owned();
    let dirs = ["..1", "..2"].map(|name| rig.path(name));
    for (dir, timeout) in dirs.iter().zip(["40ms", "50ms"]) {
        fs::create_dir(dir)?;
        config["processors"]["batch"]["timeout"] = json!(timeout);
        agent.offer(&config);
        fs::copy(&file, dir.join("agent.yaml"))?;
    }
    let data = rig.path("..data");
    symlink(&dirs[0], &data)?;
    fs::remove_file(&file)?;
    symlink(data.join("agent.yaml"), &file)?;
    assert!(wait::within(wait::BOUND, || agent.changes()[0] >= 2));
    let before = agent.changes()[0];
    let new = rig.path("..new");
    symlink(&dirs[1], &new)?;
    fs::rename(&new, &data)?;
    assert!(wait::within(wait::BOUND, || agent.changes()[0] == before + 1));
    writer.write_lines(100)?;
    rig.wait_delivered(&agent);
    rig.finish(agent);
    Ok(())
}

/// Guarantees that an agent whose configuration is bad starts with the newest one that was in force,
/// says so, is unhealthy by it, and takes a good one later; and that it can be told not to.
#[test]
fn a_bad_configuration_at_the_start_is_replaced_by_the_last_good_one() {
    let rig = Rig::new("last-good");
    let config = rig.config();
    let mut writer = rig.writer(1, "app.log", |_| {});
    let first = rig.start(&config);
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&first);
    first.stop_clean();
    let mut bad = config.clone();
    bad["exporters"]["loki"]["endpoint"] = json!("nowhere");
    let mut refusing = Agent::spawn_by(&bad, &rig.state(), &rig.path("run"), |mut command| {
        command.arg("--no-last-good");
        command
    })
    .expect("a process");
    let status = refusing.wait_end(wait::BOUND).expect("it ends");
    assert_eq!(status.code(), Some(1));
    let agent = rig.start(&bad);
    let said = || {
        let log = agent.log();
        log.contains("exporters::loki::endpoint") && log.contains("--no-last-good")
    };
    assert!(wait::within(wait::BOUND, said), "{}", agent.log());
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    let mut good = config;
    good["processors"]["batch"]["timeout"] = json!("10ms");
    assert!(agent.reload(&good));
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    rig.finish(agent);
}

/// Guarantees that a directory that is named for the first time by a later configuration is read, from
/// within the sandbox.
#[test]
fn directories_that_are_named_later_can_be_read() {
    let rig = Rig::new("wider");
    let mut config = rig.config();
    let others = tailwater_testkit::tempdir::TempDir::new("wider-others").expect("a directory");
    let agent = rig.start(&config);
    let mut writer = rig.writer(1, "app.log", |_| {});
    let mut other = rig.writer(2, "other.log", |o| o.path = others.path().join("other.log"));
    writer.write_lines(100).expect("written");
    other.write_lines(100).expect("written");
    let include = json!([rig.logs("*.log"), others.path().join("*.log")]);
    config["receivers"]["filelog"]["include"] = include;
    // One that fails when it is built is no reason to think that it was done.
    let mut failing = config.clone();
    let url = rig.loki.push_url().replace("http://", "https://");
    failing["exporters"]["loki"]["endpoint"] = url.into();
    failing["exporters"]["loki"]["tls"] = json!({"ca_file": rig.path("missing.pem")});
    assert!(!agent.reload(&failing), "{}", tail(&agent.log()));
    assert!(agent.reload(&config), "{}", tail(&agent.log()));
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    rig.finish(agent);
}

/// Guarantees that positions do not stay behind when the directory of their storage would be another one: that is
/// refused by the plan, in force is what was, and a storage that nobody has positions in changes.
#[test]
fn the_directory_of_positions_cannot_change() {
    let rig = Rig::new("moved");
    let mut config = rig.config();
    let socket = rig.path("admin.sock");
    let directories = ["a", "b", "c"].map(|name| rig.path(name));
    directories
        .iter()
        .for_each(|d| fs::create_dir(d).expect("a directory"));
    let [a, b, c] = directories;
    config["extensions"] =
        json!({"file_storage": {"directory": a}, "file_storage/other": {"directory": c}});
    config["service"]["extensions"] = json!(["file_storage", "file_storage/other"]);
    config["service"]["admin"] = json!({"socket": socket});
    config["receivers"]["filelog"]["storage"] = json!("file_storage");
    let agent = rig.start(&config);
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    let mut moved = config.clone();
    moved["extensions"]["file_storage"]["directory"] = json!(b);
    let plan = Way::Socket(socket).ask("POST", "/v1/plan", &[], &moved.to_string());
    assert_eq!(plan.status, 422, "{}", plan.body);
    let reasons = plan.json()["reasons"].to_string();
    assert!(
        reasons.contains("filelog") && reasons.contains("would stay behind"),
        "{reasons}"
    );
    assert!(!agent.reload(&moved), "{}", tail(&agent.log()));
    assert!(!b.join("tailwater").exists(), "something was made of it");
    config["extensions"]["file_storage/other"]["directory"] = json!(b);
    assert!(agent.reload(&config), "{}", tail(&agent.log()));
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    agent.kill();
    let agent = rig.start(&config);
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    rig.finish(agent);
}

/// Guarantee: an exporter that is replaced, as its labels change, goes on with the connections that are open.
#[test]
fn connections_outlive_their_exporter() {
    let rig = Rig::new("connections");
    let mut config = rig.config();
    let agent = rig.start(&config);
    let mut writer = rig.writer(1, "app.log", |_| {});
    for n in 0..5 {
        config["exporters"]["loki"]["labels"]["static"] = json!({"cluster": format!("c{n}")});
        assert!(agent.reload(&config), "{}", tail(&agent.log()));
        writer.write_lines(50).expect("written");
        rig.wait_delivered(&agent);
    }
    assert_eq!(rig.loki.connections_accepted(), 1);
    config["exporters"]["loki"]["idle_conn_timeout"] = json!("50s");
    assert!(agent.reload(&config), "{}", tail(&agent.log()));
    writer.write_lines(50).expect("written");
    rig.wait_delivered(&agent);
    assert_eq!(rig.loki.connections_accepted(), 2);
    rig.finish(agent);
}

/// The numbers of the generations that can be gone back to, and the one in force.
fn kept(way: &Way) -> (Vec<u64>, u64) {
    let answer = way.get("/v1/generations").json();
    let all = answer["generations"].as_array().expect("a list");
    let numbers = all.iter().map(|g| g["number"].as_u64().expect("a number"));
    (
        numbers.collect(),
        answer["generation"].as_u64().expect("a number"),
    )
}

/// Guarantees that generations survive a kill: one goes back to any of them, numbers go on, secrets stay
/// where they were, and a damaged one is left out with a line in the log. A start with the same
/// configuration has the same number.
#[test]
fn one_goes_back_to_earlier_generations_after_a_restart() {
    let rig = Rig::new("kept");
    let mut config = rig.config();
    let socket = rig.path("admin.sock");
    config["service"]["admin"] = json!({"socket": socket});
    config["exporters"]["loki"]["headers"] = json!({"X-Secret": "${env:KEPT_SECRET}"});
    let way = Way::Socket(socket);
    let secret = |mut command: Command| {
        command.env("KEPT_SECRET", "hunter2");
        command
    };
    let mut writer = rig.writer(1, "app.log", |_| {});
    let agent = rig.start_by(&config, secret);
    for timeout in ["31ms", "32ms"] {
        config["processors"]["batch"]["timeout"] = json!(timeout);
        assert!(agent.reload(&config), "{}", tail(&agent.log()));
    }
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    let file = agent.config_file().to_owned();
    agent.kill();
    // With the same file: nothing is new.
    let again = |command: Command| {
        let mut other = Command::new(command.get_program());
        other.arg("--config").arg(&file);
        other.env("TAILWATER_STATE_DIR", rig.state());
        secret(other)
    };
    let agent = rig.start_by(&config, again);
    assert_eq!(kept(&way), (vec![1, 2, 3], 3), "{}", tail(&agent.log()));
    let reply = way.ask("POST", "/v1/generations/2/apply", &[], "");
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.json()["generation"], 4);
    let config_now = || way.get("/v1/config").body;
    assert!(config_now().contains("31ms"), "{}", config_now());
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    agent.kill();
    let dir = rig.state().join("generations");
    for entry in fs::read_dir(&dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        let text = fs::read_to_string(&path).expect("text");
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        assert!(text.contains("${env:KEPT_SECRET}") && !text.contains("hunter2"));
    }
    let damaged = dir.join("2");
    let text = fs::read_to_string(&damaged).expect("text");
    fs::write(&damaged, &text[..text.len() / 2]).expect("written");
    // Now the file on the command line, which is the configuration of generation 3, is another one than
    // what was in force.
    let agent = rig.start_by(&config, again);
    assert_eq!(kept(&way), (vec![1, 3, 4, 5], 5), "{}", tail(&agent.log()));
    let said = agent.log();
    let said = said.lines().filter(|l| l.contains("kept generations"));
    let said: Vec<&str> = said.collect();
    assert!(
        said.len() == 1 && said[0].contains("generations/2"),
        "{said:?}"
    );
    let reply = way.ask("POST", "/v1/generations/2/apply", &[], "");
    assert_eq!(reply.status, 404, "{}", reply.body);
    let output = tailwater(&way, &["rollback", "1"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(kept(&way), (vec![1, 3, 4, 5, 6], 6));
    assert!(config_now().contains("100ms"), "{}", config_now());
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    rig.assert_faultless();
}

/// Runs a command that asks the running agent.
fn tailwater(way: &Way, args: &[&str]) -> Output {
    let Way::Socket(socket) = way else {
        unreachable!("it is made so")
    };
    let mut command = Command::new(binary());
    command.args(args).env("TAILWATER_ADMIN", socket);
    command.output().expect("a process")
}
