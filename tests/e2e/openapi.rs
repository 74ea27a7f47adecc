//! The description of the admin API, held against the running agent by a tool that is not ours: schemathesis
//! makes requests of all operations, right ones and wrong ones, and checks each answer.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::admin::Way;
use tailwater_tests::agent::free_port;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The tool's own bound is below it.
const BOUND: Duration = Duration::from_secs(900);

/// Guarantees that for all operations, whatever is asked, the answers are those that are described: no status
/// that is not, no answer of another form, nothing wrong taken and nothing right refused; and that the agent
/// goes on with what it had, without a loss.
#[test]
fn the_agent_answers_as_its_description_says() {
    let Some(python) = std::env::var_os("TAILWATER_SCHEMATHESIS_PYTHON") else {
        println!(
            "SKIPPED: the description of the admin API against the agent: TAILWATER_SCHEMATHESIS_PYTHON names \
             no Python that has schemathesis"
        );
        return;
    };
    let rig = Rig::new("openapi");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port")));
    let token = rig.path("token");
    fs::write(&token, TOKEN).expect("a file");
    let mut config = rig.config();
    config["service"]["admin"] = json!({"endpoint": address.to_string(), "token_file": token});
    let agent = rig.start(&config);
    let options = LiveOptions {
        lines_per_second: 500,
        rotate_every_lines: None,
        lines_max: None,
    };
    let live = LiveWriter::start(rig.writer(1, "app.log", |_| {}), options).expect("a thread");
    let way = Way::Endpoint(address, Some(TOKEN.to_owned()));
    let description = way.get("/v1/openapi.json");
    // From a file: the tool leaves out what it gets the description from.
    let served = rig.path("openapi.json");
    fs::write(&served, &description.body).expect("a file");
    let seen = rig.path("seen");
    let said = rig.path("said");
    let output = || fs::File::options().append(true).create(true).open(&said);
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e");
    let mut child = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(format!("{here}/openapi.toml"))
        .arg("run")
        .arg(&served)
        .args(["--url", &format!("http://{address}")])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--checks", "all", "--max-examples", "25", "--seed", "1"])
        .args([
            "--continue-on-failure",
            "--request-timeout",
            "20",
            "--no-color",
        ])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .args(["--generation-database", "none"])
        .env("SCHEMATHESIS_HOOKS", format!("{here}/openapi_hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TAILWATER_SEEN", &seen)
        .current_dir(rig.path("run"))
        .stdin(Stdio::null())
        .stdout(output().expect("a file"))
        .stderr(output().expect("a file"))
        .spawn()
        .expect("a process");
    let ended = wait::for_some(BOUND, || child.try_wait().expect("a process"));
    if ended.is_none() {
        child.kill().expect("a child that was not reaped");
    }
    let said = fs::read_to_string(&said).unwrap_or_default();
    let code = ended.and_then(|status| status.code());
    assert_eq!(code, Some(0), "{said}\n{}", tail(&agent.log()));
    // Each operation was asked, and taps had something to show.
    let described = operations(&description.json());
    let seen = fs::read_to_string(seen).expect("a file");
    let asked: BTreeSet<&str> = seen
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(operation, _)| operation)
        .collect();
    let missing: Vec<_> = described
        .iter()
        .filter(|o| !asked.contains(o.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}\n{said}");
    assert!(seen.lines().any(|l| l == "GET /v1/tap 200"), "{seen}");
    assert_eq!(way.get("/v1/generations").json()["generation"], 1);
    live.stop().expect("written");
    rig.wait_delivered(&agent);
    rig.finish(agent);
}

fn operations(description: &Value) -> BTreeSet<String> {
    let paths = description["paths"].as_object().expect("a map").iter();
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().expect("a map").keys();
        let names = methods.map(|method| format!("{} {path}", method.to_uppercase()));
        names.collect::<Vec<_>>()
    };
    paths.flat_map(of).collect()
}
