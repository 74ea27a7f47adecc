//! Changes of a configuration that runs.

use serde_json::{Value, json};

/// Makes the `n`th change to a configuration of a [`Rig`](crate::rig::Rig): one kind after the other, each
/// time to something that was not there before.
///
/// # Panics
/// When the configuration has other parts.
pub fn change(config: &mut Value, n: usize) {
    let text = format!("{n}");
    let pipeline = "/service/pipelines/logs";
    let set = |config: &mut Value, path: &str, value: Value| {
        *config.pointer_mut(path).expect("a place") = value;
    };
    match n % 12 {
        0 => config["processors"]["batch"]["timeout"] = json!(format!("{}ms", 20 + n % 100)),
        1 => {
            config["processors"]["attributes"] =
                json!({"actions": [{"key": "n", "value": text, "action": "upsert"}]});
            set(
                config,
                &format!("{pipeline}/processors"),
                json!(["attributes", "batch"]),
            );
        }
        2 => set(
            config,
            &format!("{pipeline}/processors"),
            json!(["batch", "attributes"]),
        ),
        3 => set(config, &format!("{pipeline}/processors"), json!([])),
        4 => config["exporters"]["loki"]["timeout"] = json!(format!("{}s", 5 + n % 20)),
        5 => config["receivers"]["filelog"]["poll_interval"] = json!(format!("{}ms", 100 + n)),
        6 => {
            config["service"]["telemetry"]["logs"]["disable_caller"] = json!(n % 24 == 6);
        }
        7 => config["service"]["memory_limit_mib"] = json!(96 + n % 64),
        8 => {
            config["extensions"]["health_check"] = json!({"endpoint": "127.0.0.1:0"});
            config["service"]["extensions"] = match n % 24 {
                8 => json!(["health_check"]),
                _ => json!([]),
            };
        }
        9 => {
            let operators = json!([{"type": "add", "field": "attributes.op", "value": text}]);
            config["receivers"]["filelog"]["operators"] = operators;
        }
        10 => set(config, &format!("{pipeline}/processors"), json!(["batch"])),
        _ => {
            config["exporters"]["debug"] = json!({"verbosity": "basic"});
            let exporters = match n % 24 {
                11 => json!(["loki", "debug"]),
                _ => json!(["loki"]),
            };
            set(config, &format!("{pipeline}/exporters"), exporters);
        }
    }
}
