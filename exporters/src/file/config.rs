//! Decoding of the options of `file`.

use std::time::Duration;

use tailwater_config::Section;
use tailwater_config::reference::ValueKind;

use super::options::{FileOptions, Form, RotationOptions};

const MEGABYTE: u64 = 1 << 20;

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("path", "The file."),
    (
        "format",
        "json: a request per line; proto: each request behind its length, four bytes, the most significant one first.",
    ),
    (
        "compression",
        "zstd: each request is a frame of its own behind its length, with either format. None unless set.",
    ),
    (
        "group_by",
        "Only with `enabled: false`: use one exporter per path.",
    ),
    ("group_by::enabled", "True is refused."),
    ("group_by::NAME", "Has nothing to act on."),
    (
        "flush_interval",
        "Has nothing to act on: requests are written as they come.",
    ),
    (
        "rotation",
        "The file is renamed when it is large, and another one begun; not unless there is the section.",
    ),
    (
        "append",
        "False: the file is emptied at the start. Not with `rotation`, which appends anyway, nor with `compression`.",
    ),
    (
        "create_directory",
        "The directory is made if it is missing.",
    ),
    (
        "queue_bytes_max",
        "own: Bytes that may wait to be written before sources pause.",
    ),
];

/// Reads the options. `flush_interval` is taken with any value above zero: lines are written as
/// they come, so none waits longer. `None` if the path is missing, which is then reported.
pub fn decode(s: &mut Section<'_, '_>) -> Option<FileOptions> {
    s.describe(OPTIONS);
    let form = match s.one_of("format", &["json", "proto"], "json") {
        "proto" => Form::Proto,
        _ => Form::Json,
    };
    let compressed = s.one_of("compression", &["", "zstd"], "") == "zstd";
    s.refuse(
        "encoding",
        "there are no encoding extensions; format says how requests are written",
    );
    let grouped = s.section_if_present("group_by", |group| {
        // Options of a group that is off do not matter.
        let enabled = group.bool("enabled", false);
        group.remaining(|| vec![ValueKind::Any]);
        enabled
    });
    if grouped == Some(true) {
        s.invalid(
            "group_by",
            "groups are not supported; use one exporter per path",
        );
    }
    s.duration_in(
        "flush_interval",
        Duration::from_secs(1),
        Duration::from_nanos(1)..,
    );
    let rotation = s.section_if_present("rotation", decode_rotation);
    let append = s.bool("append", false);
    if append && rotation.is_some() {
        s.invalid(
            "append",
            "cannot be combined with rotation, which appends anyway",
        );
    }
    if append && compressed {
        s.invalid("append", "cannot be combined with compression");
    }
    let create_directory = s.bool("create_directory", false);
    let defaults = FileOptions::new("");
    let queue_bytes_max = s.byte_size("queue_bytes_max", defaults.queue_bytes_max, 1..);
    let path = s.string_required("path")?;
    Some(FileOptions {
        path: path.into(),
        rotation,
        append,
        create_directory,
        form,
        compressed,
        queue_bytes_max,
    })
}

/// What its options do.
const ROTATION: &[(&str, &str)] = &[
    (
        "max_megabytes",
        "Size at which it is renamed; a request is never divided. 0 means 100.",
    ),
    (
        "max_days",
        "Older files are deleted after so many days; 0 = never.",
    ),
    (
        "max_backups",
        "How many older files there may be; 0 = no limit.",
    ),
    (
        "localtime",
        "Names of older files have the local time, not UTC.",
    ),
];

fn decode_rotation(s: &mut Section<'_, '_>) -> RotationOptions {
    s.describe(ROTATION);
    let d = RotationOptions::default();
    // As in the collector, 0 means the default.
    let megabytes = match s.u64("max_megabytes", 0, ..=u64::MAX / MEGABYTE) {
        0 => d.max_bytes / MEGABYTE,
        n => n,
    };
    RotationOptions {
        max_bytes: megabytes * MEGABYTE,
        max_days: s.u64("max_days", d.max_days, ..),
        max_backups: s.usize("max_backups", d.max_backups, ..),
        localtime: s.bool("localtime", d.localtime),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_config::decode_json;

    #[test]
    fn options_have_their_effect() {
        let got = decode_json(&json!({"path": "/x"}), decode).unwrap();
        assert_eq!(got, Some(FileOptions::new("/x")));
        let config = json!({
            "path": "/x", "format": "json", "create_directory": true, "flush_interval": "5s",
            "queue_bytes_max": 100, "compression": "", "group_by": {"enabled": false, "x": 1},
            "rotation": {"max_megabytes": 2, "max_days": 3, "max_backups": 4, "localtime": true},
        });
        let rotation = RotationOptions {
            max_bytes: 2 << 20,
            max_days: 3,
            max_backups: 4,
            localtime: true,
        };
        let expect = FileOptions {
            rotation: Some(rotation),
            create_directory: true,
            queue_bytes_max: 100,
            ..FileOptions::new("/x")
        };
        assert_eq!(decode_json(&config, decode).unwrap(), Some(expect));
        let config = json!({"path": "/x", "format": "proto", "compression": "zstd"});
        let expect = FileOptions {
            form: Form::Proto,
            compressed: true,
            ..FileOptions::new("/x")
        };
        assert_eq!(decode_json(&config, decode).unwrap(), Some(expect));
        let config = json!({"path": "/x", "rotation": {}});
        let got = decode_json(&config, decode).unwrap().unwrap();
        assert_eq!(got.rotation, Some(RotationOptions::default()));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (config, part) in [
            (json!({}), "path: is required"),
            (json!({"path": "/x", "format": "text"}), "json"),
            (json!({"path": "/x", "compression": "gzip"}), "zstd"),
            (
                json!({"path": "/x", "compression": "zstd", "append": true}),
                "append",
            ),
            (json!({"path": "/x", "encoding": "otlp"}), "encoding"),
            (
                json!({"path": "/x", "group_by": {"enabled": true}}),
                "group_by",
            ),
            (
                json!({"path": "/x", "append": true, "rotation": {}}),
                "append",
            ),
            (json!({"path": "/x", "flush_interval": 0}), "flush_interval"),
        ] {
            let error = decode_json(&config, decode).expect_err(&config.to_string());
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
