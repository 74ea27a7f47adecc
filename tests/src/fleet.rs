//! A control plane and three agents, as processes, in one group; and what each ran when.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};

use crate::agent::Agent;
use crate::control::Control;
use crate::rig::Rig;
use crate::wait;

/// Rolling out takes its time: a past, a soak, and what is between, for each stage.
pub const BOUND: Duration = Duration::from_secs(180);
/// The destination takes no more labels on a stream.
const LABELS_MAX: usize = 4;

/// Options that make rollouts quick.
const QUICK: [&str; 18] = [
    "--debounce",
    "100ms",
    "--soak",
    "3s",
    "--baseline",
    "2s",
    "--confirm",
    "2s",
    "--poll",
    "500ms",
    "--probe-interval",
    "1s",
    "--reconcile",
    "1s",
    "--waves",
    "50,100",
    "--offer-timeout",
    "20s",
];

/// Of [`QUICK`], what is not said otherwise.
fn quick(args: &[&str]) -> Vec<&'static str> {
    let pairs = QUICK.chunks(2).filter(|pair| !args.contains(&pair[0]));
    pairs.flatten().copied().collect()
}

/// A machine of the fleet.
pub struct Host {
    /// Its logs and its destination.
    pub rig: Rig,
    /// Its agent.
    pub agent: Agent,
    _writer: LiveWriter,
}

/// See the module's documentation.
pub struct Fleet {
    /// The control plane.
    pub control: Control,
    /// The machines.
    pub hosts: Vec<Host>,
    /// What each agent ran, from when, ms.
    ran: BTreeMap<String, Vec<(u64, String)>>,
    /// Of the control plane.
    pub home: Rig,
}

impl Fleet {
    /// Starts one, and waits until all agents are there with their own configuration. `change` may change what that is.
    ///
    /// # Panics
    /// When they do not come.
    pub fn new(args: &[&str], change: impl Fn(&mut Value)) -> Fleet {
        let home = Rig::new("fleet");
        let control = Control::start(&home.path("run"), &[&quick(args)[..], args].concat());
        let host = |number: u32| {
            let behaviour = LokiBehaviour {
                label_names_max: Some(LABELS_MAX),
                ..LokiBehaviour::permissive()
            };
            let rig = Rig::with(&format!("fleet-{number}"), behaviour, Faults::default());
            let mut config = rig.config();
            config["extensions"]["opamp"] = json!({
                "server": {"ws": {"endpoint": control.url("ws")}},
                "heartbeat_interval": "1s",
                "capabilities": {"accepts_remote_config": true},
                "agent_description": {"non_identifying_attributes": {"tailwater.group": "shop"}},
            });
            config["service"]["extensions"] = json!(["opamp"]);
            change(&mut config);
            // Lines that are refused are lost on purpose here.
            let writer = rig.writer(number, "a.log", |o| o.oracle = None);
            let options = LiveOptions {
                lines_per_second: 50,
                rotate_every_lines: None,
                lines_max: None,
            };
            let _writer = LiveWriter::start(writer, options).expect("a thread");
            let agent = rig.start(&config);
            Host {
                rig,
                agent,
                _writer,
            }
        };
        let hosts = (1..=3).map(host).collect();
        let mut fleet = Fleet {
            control,
            hosts,
            ran: BTreeMap::new(),
            home,
        };
        fleet.wait("three agents with their own configuration", |f| {
            let runs = f.runs();
            runs.len() == 3 && runs.values().all(|r| r == "own")
        });
        fleet
    }

    /// All agents as the control plane shows them.
    pub fn agents(&self) -> Vec<Value> {
        let answer = self.control.ask(&["agents", "--group", "shop"]);
        answer["agents"].as_array().expect("a list").clone()
    }

    /// What each connected agent runs.
    pub fn runs(&self) -> BTreeMap<String, String> {
        let there = self.agents().into_iter().filter(|a| a["connected"] == true);
        let text = |v: &Value| v.as_str().unwrap_or("unknown").to_owned();
        there.map(|a| (text(&a["uid"]), text(&a["runs"]))).collect()
    }

    /// Where the group is.
    pub fn group(&self) -> Value {
        self.control.ask(&["rollouts", "shop"])
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// When it does not within [`BOUND`]; with all there is to see.
    pub fn wait(&mut self, what: &str, mut met: impl FnMut(&Fleet) -> bool) {
        let done = wait::by_asking(BOUND, || met(self));
        assert!(
            done,
            "not seen: {what}\n{}\n{}\n{}",
            self.group(),
            self.table(),
            self.control.log()
        );
    }

    /// Has a pipeline rolled out, and gives its digest.
    pub fn apply(&self, name: &str, text: &str) -> String {
        let file = self.home.path(name);
        fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("a path");
        let answer = self.control.ask(&["apply", path, "--group", "shop"]);
        answer["digest"].as_str().expect("a digest").to_owned()
    }

    /// What each agent ran when, as the control plane tells it.
    pub fn history(&mut self) -> &BTreeMap<String, Vec<(u64, String)>> {
        for agent in self.agents() {
            let uid = agent["uid"].as_str().expect("a uid").to_owned();
            let whole = self.control.ask(&["agents", &uid]);
            let ran = whole["ran"].as_array().expect("a list");
            let one = |r: &Value| {
                let runs = r["runs"].as_str().unwrap_or("unknown").to_owned();
                (r["since_ms"].as_u64().expect("a time"), runs)
            };
            self.ran.insert(uid, ran.iter().map(one).collect());
        }
        &self.ran
    }

    /// What each agent ran when, as a table.
    pub fn table(&mut self) -> String {
        self.history();
        let begin = self
            .ran
            .values()
            .flatten()
            .map(|(at, _)| *at)
            .min()
            .unwrap_or(0);
        let mut out = String::from("agent                                 after s  runs\n");
        for (uid, ran) in &self.ran {
            for (at, runs) in ran {
                let seconds = (at - begin) as f64 / 1000.0;
                let runs = runs.get(..12).unwrap_or(runs);
                out += &format!("{uid}  {seconds:7.1}  {runs}\n");
            }
        }
        out
    }

    /// Which digests each agent ran, in their order.
    pub fn order(&mut self) -> Vec<Vec<String>> {
        let ran = self.history().values();
        ran.map(|r| r.iter().map(|(_, runs)| runs.clone()).collect())
            .collect()
    }
}
