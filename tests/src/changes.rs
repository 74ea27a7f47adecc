//! Changes of a configuration that runs.

use serde_json::{Value, json};

/// A kind of change: its name, and what makes it. The number of the change makes its values new; `on` is
/// true and false by turns, for what comes and goes.
type Kind = (&'static str, fn(&Changes, &mut Value, usize, bool));

/// All kinds, in the order in which they follow each other.
const KINDS: [Kind; 20] = [
    ("settings of a processor", |_, config, n, _| {
        config["processors"]["batch"]["timeout"] = json!(format!("{}ms", 20 + n % 100));
    }),
    ("a processor comes", |_, config, n, _| {
        config["processors"]["attributes"] =
            json!({"actions": [{"key": "n", "value": format!("{n}"), "action": "upsert"}]});
        reading(config)["processors"] = json!(["attributes", "batch"]);
    }),
    ("order of processors", |_, config, _, _| {
        reading(config)["processors"] = json!(["batch", "attributes"]);
    }),
    ("processors go", |_, config, _, _| {
        reading(config)["processors"] = json!([]);
    }),
    ("settings of the exporter", |_, config, n, _| {
        config["exporters"]["loki"]["timeout"] = json!(format!("{}s", 5 + n % 20 + n / 20 % 2));
    }),
    ("polling", |_, config, n, _| {
        config["receivers"]["filelog"]["poll_interval"] = json!(format!("{}ms", 100 + n % 400));
    }),
    ("the agent's log", |_, config, _, on| {
        config["service"]["telemetry"]["logs"]["disable_caller"] = json!(on);
    }),
    ("memory limit", |_, config, n, _| {
        config["service"]["memory_limit_mib"] = json!(96 + n % 64);
    }),
    ("an extension comes or goes", |_, config, _, on| {
        config["extensions"]["health_check"] = json!({"endpoint": "127.0.0.1:0"});
        extension(config, "health_check", on);
    }),
    ("operators", |_, config, n, _| {
        config["receivers"]["filelog"]["operators"] =
            json!([{"type": "add", "field": "attributes.op", "value": format!("{n}")}]);
    }),
    ("a processor of before", |_, config, _, _| {
        reading(config)["processors"] = json!(["batch"]);
    }),
    ("an exporter comes or goes", |_, config, _, on| {
        config["exporters"]["debug"] = json!({"verbosity": "basic"});
        sending(config)["exporters"] = match on {
            true => json!(["loki", "debug"]),
            false => json!(["loki"]),
        };
    }),
    ("globs", |_, config, _, on| {
        let exclude = if on {
            json!(["**/app-2.log"])
        } else {
            json!([])
        };
        config["receivers"]["filelog"]["exclude"] = exclude;
    }),
    ("labels", |changes, config, n, _| {
        let labels = &mut config["exporters"]["loki"]["labels"];
        match changes.labels {
            true => labels["static"]["change"] = json!(format!("{n}")),
            // A label that no record has.
            false => labels["attributes"] = json!({format!("change_{n}"): "no.such.attribute"}),
        }
    }),
    ("the endpoint", |changes, config, _, on| {
        config["exporters"]["loki"]["endpoint"] = json!(changes.endpoints[usize::from(on)]);
    }),
    ("credentials", |_, config, n, _| {
        config["extensions"]["basicauth"] =
            json!({"client_auth": {"username": "tailwater", "password": format!("{n}")}});
        extension(config, "basicauth", true);
        config["exporters"]["loki"]["auth"] = json!({"authenticator": "basicauth"});
    }),
    ("a pipeline comes or goes", |changes, config, _, on| {
        changes.other_pipeline(config, !on);
    }),
    ("a connector comes or goes", |_, config, _, on| {
        let exporters = sending(config)["exporters"].clone();
        let pipelines = config["service"]["pipelines"].as_object_mut();
        let pipelines = pipelines.expect("a map");
        pipelines.remove(BEHIND);
        if on {
            pipelines["logs"]["exporters"] = json!(["forward"]);
            let behind = json!({"receivers": ["forward"], "exporters": exporters});
            pipelines.insert(BEHIND.to_owned(), behind);
            config["connectors"] = json!({"forward": null});
        } else {
            pipelines["logs"]["exporters"] = exporters;
        }
    }),
    ("the agent's metrics", |_, config, _, on| {
        let level = if on { "normal" } else { "detailed" };
        config["service"]["telemetry"]["metrics"]["level"] = json!(level);
    }),
    ("limit of a line", |_, config, _, on| {
        let size = if on { "2MiB" } else { "1MiB" };
        config["receivers"]["filelog"]["max_log_size"] = json!(size);
    }),
];

/// How many kinds there are.
pub const KINDS_COUNT: usize = KINDS.len();

/// The pipeline behind the connector.
const BEHIND: &str = "logs/behind";

/// The pipeline that reads the logs.
fn reading(config: &mut Value) -> &mut Value {
    &mut config["service"]["pipelines"]["logs"]
}

/// The pipeline that sends them.
fn sending(config: &mut Value) -> &mut Value {
    let pipelines = &mut config["service"]["pipelines"];
    match pipelines[BEHIND].is_null() {
        true => &mut pipelines["logs"],
        false => &mut pipelines[BEHIND],
    }
}

/// Names an extension in `service::extensions`, or takes its name away.
fn extension(config: &mut Value, name: &str, on: bool) {
    let list = config["service"]["extensions"].as_array();
    let mut list = list.cloned().unwrap_or_default();
    list.retain(|e| e != name);
    if on {
        list.push(json!(name));
    }
    config["service"]["extensions"] = json!(list);
}

/// Changes of every kind to a configuration of a [`Rig`](crate::rig::Rig), one kind after the other, each
/// time to something that was not there before.
///
/// Another pipeline goes and comes with them, which reads other files. What is written there meanwhile is
/// read when it is back: so both begin, and end, with [`Changes::settle`].
pub struct Changes {
    start: Value,
    endpoints: [String; 2],
    other: Value,
    labels: bool,
}

impl Changes {
    /// Of `config`; `endpoint` is another way to the sink, `other` matches what the other
    /// pipeline reads.
    ///
    /// # Panics
    /// When the configuration has other parts than that of a rig.
    pub fn new(config: &Value, endpoint: String, other: impl Into<std::path::PathBuf>) -> Changes {
        let first = config["exporters"]["loki"]["endpoint"].as_str();
        Changes {
            start: config.clone(),
            endpoints: [first.expect("an endpoint").to_owned(), endpoint],
            other: json!([other.into()]),
            labels: true,
        }
    }

    /// Without changes of the labels that lines have. What is under way when an agent is killed is sent
    /// again, with what labels it has then: in another stream no rule of Loki knows it again.
    #[must_use]
    pub fn same_streams(mut self) -> Changes {
        self.labels = false;
        self
    }

    /// Makes the `n`th change.
    pub fn make(&self, config: &mut Value, n: usize) {
        let (_, make) = KINDS[n % KINDS.len()];
        make(self, config, n, (n / KINDS.len()).is_multiple_of(2));
    }

    /// The name of the kind of the `n`th change.
    pub fn name(n: usize) -> &'static str {
        KINDS[n % KINDS.len()].0
    }

    /// The configuration to begin and to end with: all that is written is read.
    pub fn settle(&self) -> Value {
        let mut config = self.start.clone();
        self.other_pipeline(&mut config, true);
        config
    }

    fn other_pipeline(&self, config: &mut Value, on: bool) {
        let mut receiver = self.start["receivers"]["filelog"].clone();
        receiver["include"] = self.other.clone();
        config["receivers"]["filelog/other"] = receiver;
        let pipelines = config["service"]["pipelines"].as_object_mut();
        let pipelines = pipelines.expect("a map");
        pipelines.remove("logs/other");
        if on {
            let pipeline = json!({"receivers": ["filelog/other"], "exporters": ["loki"]});
            pipelines.insert("logs/other".to_owned(), pipeline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: each change changes something, however often, and kinds do not undo each other.
    #[test]
    fn each_change_changes_something() {
        let mut config = json!({
            "receivers": {"filelog": {"include": ["/logs/*.log"]}},
            "processors": {"batch": {}},
            "exporters": {"loki": {"endpoint": "http://a", "labels": {"static": {"job": "e2e"}}}},
            "service": {"pipelines": {"logs": {
                "receivers": ["filelog"], "processors": ["batch"], "exporters": ["loki"],
            }}},
        });
        let changes = Changes::new(&config, "http://b".to_owned(), "/logs/other.txt");
        config = changes.settle();
        for n in 0..10 * KINDS_COUNT {
            let before = config.clone();
            changes.make(&mut config, n);
            assert_ne!(config, before, "{n}: {}", Changes::name(n));
            let exporters = sending(&mut config)["exporters"].clone();
            assert!(exporters[0] == "loki", "{n}: {exporters}");
        }
    }
}
