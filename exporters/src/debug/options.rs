//! Options of the exporter `debug`, as the collector names them.

use tailwater_config::Section;

/// How much is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verbosity {
    /// One line per batch.
    #[default]
    Basic,
    /// One line per record.
    Normal,
    /// Every field of every record.
    Detailed,
}

/// Options of the exporter `debug`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DebugOptions {
    /// `verbosity`. Default basic.
    pub verbosity: Verbosity,
    /// `sampling_initial`: batches shown per second before sampling starts. Default 2.
    pub sampling_initial: u64,
    /// `sampling_thereafter`: after those, every n-th is shown; 0 = none. Default 1.
    pub sampling_thereafter: u64,
    /// `use_internal_logger`: show it in the agent's own log. Default true.
    pub use_internal_logger: bool,
    /// `output_paths`: files, `stdout` or `stderr`, without the internal logger. Default stdout.
    pub output_paths: Vec<String>,
}

impl Default for DebugOptions {
    fn default() -> DebugOptions {
        DebugOptions {
            verbosity: Verbosity::Basic,
            sampling_initial: 2,
            sampling_thereafter: 1,
            use_internal_logger: true,
            output_paths: vec!["stdout".to_owned()],
        }
    }
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "use_internal_logger",
        "What is shown goes to the agent's log.",
    ),
    (
        "output_paths",
        "Files, stdout or stderr, in place of the log; stdout unless set. Needs `use_internal_logger: false`.",
    ),
    (
        "verbosity",
        "A line per batch; a line per record, data point or span as well; or every field.",
    ),
    (
        "sampling_initial",
        "Batches of each signal that are shown in each second.",
    ),
    (
        "sampling_thereafter",
        "Of what comes then, every how many one is shown; 0 = none.",
    ),
];

impl DebugOptions {
    /// Reads the options.
    pub fn decode(s: &mut Section<'_, '_>) -> DebugOptions {
        s.describe(OPTIONS);
        let d = DebugOptions::default();
        let levels = [
            ("basic", Verbosity::Basic),
            ("normal", Verbosity::Normal),
            ("detailed", Verbosity::Detailed),
        ];
        let use_internal_logger = s.bool("use_internal_logger", d.use_internal_logger);
        let paths = s.string_list("output_paths");
        if paths.is_some() && use_internal_logger {
            s.invalid("output_paths", "needs use_internal_logger: false");
        }
        if paths.as_ref().is_some_and(Vec::is_empty) {
            s.invalid(
                "output_paths",
                "must name at least one file, stdout or stderr",
            );
        }
        s.refuse(
            "sending_queue",
            "batches are shown when they come; there is no queue",
        );
        DebugOptions {
            verbosity: s.choice_any_case("verbosity", &levels, d.verbosity),
            sampling_initial: s.u64("sampling_initial", d.sampling_initial, ..),
            sampling_thereafter: s.u64("sampling_thereafter", d.sampling_thereafter, ..),
            use_internal_logger,
            output_paths: paths.unwrap_or(d.output_paths),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_config::decode_json;

    #[test]
    fn options_have_their_effect() {
        let got = decode_json(&json!({}), DebugOptions::decode).unwrap();
        assert_eq!(got, DebugOptions::default());
        let config = json!({
            "verbosity": "detailed", "sampling_initial": 5, "sampling_thereafter": 200,
            "use_internal_logger": false, "output_paths": ["stderr", "/x"],
        });
        let expect = DebugOptions {
            verbosity: Verbosity::Detailed,
            sampling_initial: 5,
            sampling_thereafter: 200,
            use_internal_logger: false,
            output_paths: vec!["stderr".into(), "/x".into()],
        };
        assert_eq!(decode_json(&config, DebugOptions::decode).unwrap(), expect);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (config, part) in [
            (json!({"verbosity": "loud"}), "basic, normal, detailed"),
            (json!({"output_paths": ["stdout"]}), "use_internal_logger"),
            (
                json!({"use_internal_logger": false, "output_paths": []}),
                "output_paths",
            ),
            (json!({"sampling_initial": -1}), "sampling_initial"),
            (json!({"sending_queue": {}}), "sending_queue"),
        ] {
            let error = decode_json(&config, DebugOptions::decode).expect_err(&config.to_string());
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
