//! Requests for a change that come in while another one is handled.

use std::fs;
use std::io::Write;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tailwater_tests::admin::{Reply, Way};
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::{Rig, tail};

/// An agent that is kept busy: it reads a configuration that is at the other end of a pipe.
struct Busy {
    rig: Rig,
    agent: Agent,
    way: Way,
    config: Value,
}

impl Busy {
    fn start(label: &str) -> Busy {
        let rig = Rig::new(label);
        let socket = rig.path("admin.sock");
        mknodat(CWD, rig.path("pipe"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        let mut config = rig.config();
        config["service"]["admin"] = json!({"socket": socket});
        let agent = rig.start(&config);
        let text = fs::read_to_string(agent.config_file()).expect("a file");
        let config = serde_json::from_str(&text).expect("it is JSON");
        let way = Way::Socket(socket);
        Busy {
            rig,
            agent,
            way,
            config,
        }
    }

    /// A configuration with this timeout of `batch`.
    fn with_timeout(&self, timeout: &str) -> String {
        let mut config = self.config.clone();
        config["processors"]["batch"]["timeout"] = json!(timeout);
        config.to_string()
    }

    fn put(&self, text: &str, if_match: &str) -> Reply {
        self.way
            .ask("PUT", "/v1/config", &[("If-Match", if_match)], text)
    }
}

/// Guarantees that requests that come in while another one is handled are each answered: done, refused, or put aside for
/// a newer one that was done; those that are refused keep nobody from being done. What is in force is what the newest
/// answer says.
#[test]
fn requests_that_come_in_meanwhile_are_each_answered() {
    let busy = Busy::start("turns");
    let pipe = busy.rig.path("pipe");
    let first = busy.with_timeout(&format!("${{file:{}}}", pipe.display()));
    let timeouts = ["42ms", "43ms"];
    let good = timeouts.map(|timeout| busy.with_timeout(timeout));
    let bad = busy.with_timeout("soon");
    let answers: Vec<(&str, Reply)> = std::thread::scope(|scope| {
        let mut asked = vec![("41ms", scope.spawn(|| busy.put(&first, "*")))];
        // Opened only when the agent reads it, which it goes on with until it is closed.
        let mut open = fs::OpenOptions::new()
            .write(true)
            .open(&pipe)
            .expect("a pipe");
        for (timeout, text) in timeouts.iter().zip(&good) {
            asked.push((timeout, scope.spawn(|| busy.put(text, "*"))));
        }
        asked.push(("bad", scope.spawn(|| busy.put(&bad, "*"))));
        asked.push(("stale", scope.spawn(|| busy.put(&good[0], "\"77\""))));
        let back = || busy.way.ask("POST", "/v1/generations/1/apply", &[], "");
        asked.push(("100ms", scope.spawn(back)));
        asked.push(("100ms", scope.spawn(back)));
        open.write_all(b"41ms").expect("read");
        drop(open);
        let all = asked.into_iter();
        all.map(|(what, a)| (what, a.join().expect("no panic")))
            .collect()
    });
    let mut newest = (0, "");
    for (what, reply) in &answers {
        let log = || tail(&busy.agent.log());
        match (*what, reply.status) {
            ("bad", 422) | ("stale", 412) | (_, 409) if *what != "41ms" => {}
            ("41ms" | "42ms" | "43ms" | "100ms", 200) => {
                let generation = reply.json()["generation"].as_u64().expect("a number");
                newest = newest.max((generation, *what));
            }
            _ => panic!("{what}: {} {}\n{}", reply.status, reply.body, log()),
        }
        assert!(reply.header("etag").starts_with('"'), "{what}");
    }
    assert_ne!(newest.1, "41ms", "none of them was done: {answers:?}");
    let config = busy.way.get("/v1/config");
    assert!(
        config.body.contains(newest.1),
        "{newest:?}\n{}",
        config.body
    );
    assert_eq!(config.header("etag"), format!("\"{}\"", newest.0));
    busy.agent.stop_clean();
}
