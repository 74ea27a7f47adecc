//! Row 22: configurations that cannot work, at the start and while the agent runs.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};
use tailwater_testkit::rng::Rng;
use tailwater_testkit::tempdir::TempDir;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::admin::Way;
use tailwater_tests::agent::{Agent, has_place, run_once};
use tailwater_tests::configs::GOOD;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, with_health_check};
use tailwater_tests::wait;

const PASS: &str = "100 % refused with the reason and its place, or accepted; no panic";

/// One random change of a text.
fn mutate(text: &str, rng: &mut Rng) -> String {
    const TOKENS: [&str; 14] = [
        "~",
        "[",
        "]",
        "{",
        "}",
        "\"",
        ":",
        "- ",
        "!!int x",
        "${env:NO_SUCH}",
        "&a",
        "*a",
        "\u{0}",
        "99999999999999999999",
    ];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = rng.below(lines.len() as u64) as usize;
    match rng.below(6) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => lines[at] = format!(" {}", lines[at]),
        3 => lines[at] = lines[at].trim_start().to_owned(),
        4 => {
            let keep = rng.below(lines[at].len() as u64 + 1) as usize;
            lines[at].truncate(keep);
        }
        _ => {
            let place = rng.below(lines[at].len() as u64 + 1) as usize;
            let token = TOKENS[rng.below(TOKENS.len() as u64) as usize];
            lines[at].insert_str(place, token);
        }
    }
    lines.join("\n") + "\n"
}

/// Guarantees that no broken file makes it panic or pass silently: accepted, or refused with a
/// place.
#[test]
fn two_hundred_broken_files_are_accepted_or_refused_with_a_place() {
    let files = scaled(200, 5_000);
    let mut row = Row::new(22, "bad configuration at the start: broken text")
        .how(format!(
            "validate on {files} random changes of a good configuration"
        ))
        .pass(PASS);
    let dir = TempDir::new("mutated").expect("a temporary directory");
    let mut rng = Rng::new(7);
    let (mut accepted, mut refused) = (0, 0);
    let path = dir.join("agent.yaml");
    let file = path.to_str().expect("temporary paths are UTF-8");
    for n in 0..files {
        let mut text = GOOD.to_owned();
        for _ in 0..=rng.below(3) {
            text = mutate(&text, &mut rng);
        }
        fs::write(&path, &text).expect("written");
        let output = run_once(&["validate", "--config", file], &dir.join("state"));
        let output = output.expect("the binary runs");
        let err = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        match code {
            Some(0) => accepted += 1,
            Some(1) => refused += 1,
            _ => panic!("file {n}: code {code:?}\n{err}\n--- file\n{text}"),
        }
        assert!(
            !err.contains("panicked"),
            "file {n}:\n{err}\n--- file\n{text}"
        );
        let placed = err.lines().any(|l| has_place(l, file));
        assert!(
            code == Some(0) || placed,
            "file {n}: no place:\n{err}\n--- file\n{text}"
        );
    }
    assert!(
        refused > files / 2 && accepted > 0,
        "{accepted} accepted, {refused} refused"
    );
    row.reached(format!(
        "{refused} refused, each with a place; {accepted} accepted"
    ));
    row.record();
}

/// Guarantees that what only the start can find is said before anything runs, with code 1: nothing
/// is read, nothing is left in the state directory that would change the next start.
#[test]
fn what_cannot_start_is_refused_by_name() {
    let mut row = Row::new(
        22,
        "bad configuration at the start: what the machine does not have",
    )
    .how("a port in use, certificates and a CA that are missing or are none")
    .pass(PASS);
    let rig = Rig::new("unstartable");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(100).expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let no_pem = rig.path("empty.pem");
    fs::write(&no_pem, "not a certificate").expect("written");
    let missing = rig.path("missing.pem");
    let tls = |option: &str, file: &std::path::Path| {
        let mut config = rig.config();
        let url = rig.loki.push_url().replace("http://", "https://");
        config["exporters"]["loki"]["endpoint"] = url.into();
        config["exporters"]["loki"]["tls"] = json!({option: file});
        config
    };
    let mut port = rig.config();
    with_health_check(&mut port);
    port["extensions"]["health_check"]["endpoint"] = taken.as_str().into();
    let no_pair = tls("cert_file", &missing);
    let cases: Vec<(&str, Value)> = vec![
        (&taken, port),
        ("missing.pem", tls("ca_file", &missing)),
        ("tls::ca_file: no certificate", tls("ca_file", &no_pem)),
        ("key_file", no_pair),
    ];
    for (named, config) in &cases {
        let file = rig.path("run/bad.yaml");
        fs::write(&file, config.to_string()).expect("written");
        let file = file.to_str().expect("temporary paths are UTF-8");
        let output = run_once(&["--config", file], &rig.state()).expect("the binary runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{named}: {err}");
        assert!(
            err.contains(named) && !err.contains("panicked"),
            "{named}: {err}"
        );
    }
    assert_eq!(rig.loki.stats().pushes, 0, "something was sent");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "{} of {} refused by name with code 1; the start after them delivered {} of {} lines",
        cases.len(),
        cases.len(),
        t.delivered,
        t.written
    ));
    row.record();
}

/// An agent that is asked by a socket, with lines that flow.
struct Running {
    rig: Rig,
    agent: Agent,
    way: Way,
    live: LiveWriter,
    good: String,
}

impl Running {
    fn start(label: &str, lines_per_second: u64, args: &'static [&'static str]) -> Running {
        let rig = Rig::new(label);
        let mut config = rig.config();
        let socket = rig.path("admin.sock");
        config["service"]["admin"] = json!({"socket": socket});
        config["service"]["telemetry"]["logs"] =
            json!({"level": "info", "sampling": {"enabled": false}});
        let agent = rig.start_by(&config, |mut command| {
            command.args(args);
            command
        });
        let options = LiveOptions {
            lines_per_second,
            rotate_every_lines: None,
            lines_max: None,
        };
        let writer = rig.writer(1, "app.log", |_| {});
        let live = LiveWriter::start(writer, options).expect("a thread");
        let good = fs::read_to_string(agent.config_file()).expect("a file");
        Running {
            rig,
            agent,
            way: Way::Socket(socket),
            live,
            good,
        }
    }

    /// A configuration that cannot work, as the agent says that it cannot, with the reasons.
    fn broken(&self, rng: &mut Rng) -> (String, usize) {
        loop {
            let mut text = self.good.clone();
            for _ in 0..=rng.below(3) {
                text = mutate(&text, rng);
            }
            let plan = self.way.ask("POST", "/v1/plan", &[], &text);
            if plan.status != 422 {
                continue;
            }
            let reasons = plan.json()["reasons"].as_array().map_or(0, Vec::len);
            assert!(reasons > 0, "{}", plan.body);
            return (text, reasons);
        }
    }

    /// Expects one refusal, with reasons in the log, of what `offer` offers.
    fn expect_refused(&self, text: &str, offer: impl FnOnce()) {
        let before = self.agent.changes();
        offer();
        let said = wait::within(wait::BOUND, || self.agent.changes()[2] > before[2]);
        assert!(said, "no answer to\n{text}\n{}", self.agent.log());
    }

    /// The end: nothing came into force, and no line is lost or shown twice. How many reasons were said, and
    /// how many lines written.
    fn finish(self) -> (usize, u64) {
        let (log, changes) = (self.agent.log(), self.agent.changes());
        let reasons = log.matches("configuration refused: ").count();
        assert!(reasons >= changes[2], "each has a reason");
        assert_eq!(changes[0], 0, "{log}");
        self.live.stop().expect("written");
        self.rig.wait_delivered(&self.agent);
        let generation = self.agent.scrape().sum("tailwater_config_generation", &[]);
        assert_eq!(generation, 1.0);
        (reasons, self.rig.finish(self.agent).totals.written)
    }
}

/// A row about configurations offered in this way.
fn row_of(way: &str, files: usize) -> Row {
    Row::new(22, &format!("bad configuration while running, by {way}"))
        .how(format!(
            "{files} random changes of the configuration offered by {way} while lines are written"
        ))
        .pass("100 % refused with the reason; data path untouched; health says which version runs")
}

fn reach(mut row: Row, files: usize, (reasons, lines): (usize, u64)) {
    row.reached(format!(
        "{files} of {files} refused, {reasons} reasons; generation 1 all the time; 0 of {lines} lines lost or \
         shown twice"
    ));
    row.record();
}

/// Guarantees that broken configurations that are offered to a running agent by SIGHUP are refused, each
/// with its reason and place, and that no line is lost or late by it.
#[test]
fn what_is_broken_is_refused_by_sighup() {
    let files = scaled(200, 2_000);
    let row = row_of("SIGHUP", files);
    let running = Running::start("bad-sighup", 2_000, &[]);
    let mut rng = Rng::new(22);
    for _ in 0..files {
        let (text, _) = running.broken(&mut rng);
        running.expect_refused(&text, || {
            running.agent.offer_text(&text);
            running.agent.signal(rustix::process::Signal::HUP);
        });
    }
    reach(row, files, running.finish());
}

/// Guarantees the same of `PUT /v1/config`, whose answer has the reasons of the plan.
#[test]
fn what_is_broken_is_refused_by_put() {
    let files = scaled(200, 2_000);
    let row = row_of("PUT /v1/config", files);
    let running = Running::start("bad-put", 2_000, &[]);
    let mut rng = Rng::new(23);
    for n in 0..files {
        let (text, reasons) = running.broken(&mut rng);
        running.expect_refused(&text, || {
            let reply = running.way.ask("PUT", "/v1/config", &[], &text);
            assert_eq!(reply.status, 422, "{n}: {}\n{text}", reply.body);
            let said = reply.json()["reasons"].as_array().map_or(0, Vec::len);
            assert_eq!(said, reasons, "{n}: {}", reply.body);
        });
    }
    reach(row, files, running.finish());
}

/// Guarantees the same of `--watch`. Files are taken when they are the same at two looks, which takes a
/// second, so several agents have some each.
#[test]
fn what_is_broken_is_refused_by_watch() {
    const AGENTS: usize = 20;
    let each = scaled(10, 100);
    let row = row_of("--watch", AGENTS * each);
    let run = |n: usize| {
        let running = Running::start(&format!("bad-watch-{n}"), 200, &["--watch"]);
        let mut rng = Rng::new(100 + n as u64);
        for _ in 0..each {
            let (text, _) = running.broken(&mut rng);
            running.expect_refused(&text, || running.agent.offer_text(&text));
        }
        running.finish()
    };
    let all: Vec<(usize, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AGENTS).map(|n| scope.spawn(move || run(n))).collect();
        let ends = threads.into_iter().map(|t| t.join().expect("no panic"));
        ends.collect()
    });
    let sum = all.iter().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    reach(row, AGENTS * each, sum);
}
