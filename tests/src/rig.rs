//! Everything one test needs around an agent: files, a sink, a judge.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::{Faults, LokiBehaviour, Reach};
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::oracle::{DeliveryOracle, OracleReport};
use tailwater_testkit::tempdir::TempDir;
use tailwater_testkit::time::system_unix_nanos;
use tailwater_testkit::writer::{LogWriter, WriterClock, WriterOptions};

use crate::agent::{Agent, free_addr};
use crate::wait;

/// One minute, in nanoseconds.
const MINUTE_NS: i64 = 60_000_000_000;

/// A directory, a fake Loki that judges what it gets, and the agents on them.
pub struct Rig {
    /// What arrives, against what was written.
    pub oracle: DeliveryOracle,
    /// The sink.
    pub loki: FakeLoki,
    start_ns: i64,
    dir: TempDir,
}

impl Rig {
    /// A rig whose sink accepts everything well-formed.
    pub fn new(label: &str) -> Self {
        Self::with(label, LokiBehaviour::permissive(), Faults::default())
    }

    /// A rig with a sink of this behaviour.
    ///
    /// # Panics
    /// When directories or the server cannot be made.
    pub fn with(label: &str, behaviour: LokiBehaviour, faults: Faults) -> Self {
        Self::of(label, behaviour, faults, StoreMode::default())
    }

    /// A rig whose sink accepts everything and keeps what `store` says: many lines need not be
    /// kept to be judged.
    ///
    /// # Panics
    /// As [`Rig::with`].
    pub fn keeping(label: &str, store: StoreMode) -> Self {
        let behaviour = LokiBehaviour::permissive();
        Self::of(label, behaviour, Faults::default(), store)
    }

    fn of(label: &str, behaviour: LokiBehaviour, faults: Faults, store: StoreMode) -> Self {
        let dir = TempDir::new(label).expect("a temporary directory");
        for sub in ["logs", "state", "run"] {
            fs::create_dir(dir.join(sub)).expect("a sub-directory");
        }
        let oracle = DeliveryOracle::new();
        let on_entry = Some(oracle.hook());
        let options = LokiOptions {
            behaviour,
            faults,
            store,
            on_entry,
            ..LokiOptions::default()
        };
        let loki = FakeLoki::start(options).expect("a server on a loopback port");
        // Lines written by rigs are some minutes old at most, as real limits want them.
        let start_ns = system_unix_nanos() - 10 * MINUTE_NS;
        Self {
            oracle,
            loki,
            start_ns,
            dir,
        }
    }

    /// A path below the directory of logs.
    pub fn logs(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(name)
    }

    /// The state directory of its agents.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A path beside logs and state.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Unix time in nanoseconds of the first line of each writer; one line per millisecond.
    pub fn start_ns(&self) -> i64 {
        self.start_ns
    }

    /// A writer of `name` in the directory of logs, judged by the oracle.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn writer(&self, id: u32, name: &str, set: impl FnOnce(&mut WriterOptions)) -> LogWriter {
        let mut options = WriterOptions::new(id, self.logs(name));
        options.oracle = Some(self.oracle.clone());
        options.clock = WriterClock::Stepping {
            start_ns: self.start_ns,
            step_ns: 1_000_000,
        };
        set(&mut options);
        LogWriter::create(options).expect("a log file")
    }

    /// From `*.log` in the directory of logs to the sink: one stream, no structured metadata,
    /// quick retries. Tests change what they are about.
    pub fn config(&self) -> Value {
        json!({
            "receivers": {"filelog": {
                "include": [self.logs("*.log")],
                "start_at": "beginning",
                "poll_interval": "100ms",
                // Messages may end with a space, and are compared to the byte.
                "preserve_trailing_whitespaces": true,
            }},
            "processors": {"batch": {"timeout": "100ms"}},
            "exporters": {"loki": {
                "endpoint": self.loki.push_url(),
                "labels": {"static": {"job": "e2e"}},
                "structured_metadata": false,
                "retry_on_failure": {
                    "initial_interval": "50ms", "max_interval": "500ms", "max_elapsed_time": "0s",
                },
            }},
            "service": {"pipelines": {"logs": {
                "receivers": ["filelog"], "processors": ["batch"], "exporters": ["loki"],
            }}},
        })
    }

    /// As [`Rig::config`], for container logs: times from the lines, `stream` as a label.
    pub fn container_config(&self, format: &str) -> Value {
        let mut config = self.config();
        config["receivers"]["filelog"]["operators"] = json!([
            {"type": "container", "format": format, "add_metadata_from_filepath": false},
        ]);
        config["exporters"]["loki"]["labels"]["attributes"] = json!({"stream": "log.iostream"});
        config
    }

    /// Starts an agent and waits until it is ready.
    pub fn start(&self, config: &Value) -> Agent {
        Agent::start(config, &self.state(), &self.dir.join("run"))
    }

    /// Starts an agent and waits for nothing.
    ///
    /// # Panics
    /// When the process cannot be started.
    pub fn spawn(&self, config: &Value) -> Agent {
        Agent::spawn(config, &self.state(), &self.dir.join("run")).expect("a process")
    }

    /// Starts an agent with a command that `change` makes of the usual one, and waits until it is
    /// ready.
    ///
    /// # Panics
    /// When the process cannot be started, or does not get there.
    pub fn start_by(&self, config: &Value, change: impl FnOnce(Command) -> Command) -> Agent {
        let agent = Agent::spawn_by(config, &self.state(), &self.dir.join("run"), change);
        let mut agent = agent.expect("a process");
        agent.expect_ready();
        agent
    }

    /// Waits until every line that can still be read has arrived.
    ///
    /// # Panics
    /// When that takes longer than [`wait::BOUND`].
    pub fn wait_delivered(&self, agent: &Agent) {
        self.wait_delivered_within(agent, wait::BOUND);
    }

    /// As [`Rig::wait_delivered`], with another bound.
    ///
    /// # Panics
    /// When it takes longer.
    pub fn wait_delivered_within(&self, agent: &Agent, bound: Duration) {
        let done = wait::within(bound, || self.oracle.is_complete());
        assert!(
            done,
            "lines are missing: {}\nlog:\n{}",
            self.summary(),
            tail(&agent.log())
        );
    }

    /// The end of a test after which everything is delivered: the agent's account is right, it
    /// stops with nothing left, and nothing is missing, shown twice, damaged or invented.
    ///
    /// # Panics
    /// When one of these does not hold.
    pub fn finish(&self, agent: Agent) -> OracleReport {
        let faults = agent.scrape().faults();
        assert!(faults.is_empty(), "{faults:?}\n{}", tail(&agent.log()));
        agent.stop_clean();
        self.assert_faultless()
    }

    /// Expects that nothing is missing, shown twice, damaged or invented, and gives the report.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_faultless(&self) -> OracleReport {
        let report = self.oracle.report();
        assert!(report.is_faultless(), "{}", self.summary());
        report
    }

    /// The oracle's numbers in one line per writer.
    pub fn summary(&self) -> String {
        let report = self.oracle.report();
        let mut text = format!(
            "{:?} foreign {} unknown {}",
            report.totals, report.foreign, report.unknown
        );
        for w in &report.writers {
            let ranges = &w.missing_ranges;
            text += &format!(
                "\n  writer {}: {} of {} delivered, missing {ranges:?}, shown twice {}, damaged {}",
                w.writer, w.delivered, w.written, w.duplicates_after_dedup, w.corrupt
            );
        }
        text
    }
}

/// A sink beside that of a rig, which takes everything; whether something listens there says `reach`.
///
/// # Panics
/// When the server cannot be made.
pub fn sink_beside(reach: Reach) -> FakeLoki {
    let sink = FakeLoki::start(LokiOptions {
        behaviour: LokiBehaviour::permissive(),
        ..LokiOptions::default()
    });
    let sink = sink.expect("a server on a loopback port");
    sink.set_reach(reach).expect("a port");
    sink
}

/// Adds an exporter of this name to the configuration of a rig: its own, but to `sink`. No pipeline leads there yet.
pub fn add_exporter(config: &mut Value, name: &str, sink: &FakeLoki) {
    let mut exporter = config["exporters"]["loki"].clone();
    exporter["endpoint"] = json!(sink.push_url());
    config["exporters"][name] = exporter;
}

/// Adds a health check to a configuration, and says where it answers.
///
/// # Panics
/// When there is no free port.
pub fn with_health_check(config: &mut Value) -> SocketAddr {
    let addr = free_addr();
    config["extensions"]["health_check"] = json!({"endpoint": addr.to_string()});
    config["service"]["extensions"] = json!(["health_check"]);
    addr
}

/// The last lines of a log, for messages.
pub fn tail(log: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
