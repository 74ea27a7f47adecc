//! Decoding of `sending_queue` and `retry_on_failure`.

use tailwater_config::Section;

use super::options::{BatchOptions, QueueOptions, RetryOptions, Sizer};

const SIZERS: [(&str, Sizer); 3] = [
    ("requests", Sizer::Requests),
    ("items", Sizer::Items),
    ("bytes", Sizer::Bytes),
];

/// What its options do.
const RETRY: &[(&str, &str)] = &[
    ("enabled", "False: what fails once is dropped and counted."),
    (
        "initial_interval",
        "The first pause before an attempt that comes again.",
    ),
    ("randomization_factor", "How much pauses differ by chance."),
    ("multiplier", "By what each pause is longer."),
    ("max_interval", "The longest pause."),
    (
        "max_elapsed_time",
        "After so long a request is given up and counted; 0 = never.",
    ),
];

impl RetryOptions {
    /// Reads `retry_on_failure`.
    pub fn decode(s: &mut Section<'_, '_>) -> RetryOptions {
        RetryOptions::decode_with(s, RetryOptions::default())
    }

    /// Reads `retry_on_failure` of an exporter whose defaults are `d`.
    pub fn decode_with(s: &mut Section<'_, '_>, d: RetryOptions) -> RetryOptions {
        s.describe(RETRY);
        let options = RetryOptions {
            enabled: s.bool("enabled", d.enabled),
            initial_interval: s.duration("initial_interval", d.initial_interval),
            randomization_factor: s.f64("randomization_factor", d.randomization_factor, 0.0..=1.0),
            multiplier: s.f64("multiplier", d.multiplier, 0.0..),
            max_interval: s.duration("max_interval", d.max_interval),
            max_elapsed_time: s.duration("max_elapsed_time", d.max_elapsed_time),
        };
        let longest = options.max_elapsed_time;
        let interval = options.initial_interval.max(options.max_interval);
        if options.enabled && !longest.is_zero() && longest < interval {
            s.invalid(
                "max_elapsed_time",
                "must be 0 (never give up), or at least initial_interval and max_interval",
            );
        }
        options
    }
}

/// What its options do.
const QUEUE: &[(&str, &str)] = &[
    (
        "storage",
        "Id of a `file_storage` in which the queue is kept, see [DELIVERY](DELIVERY.md#a-queue-on-disk).",
    ),
    (
        "storage_bytes_max",
        "own: Bytes of its files at which sources pause, where `sizer` is not bytes; 1GiB unless set.",
    ),
    (
        "block_on_overflow",
        "Either value means true: sources pause when the queue is full, and nothing is dropped.",
    ),
    (
        "wait_for_result",
        "Either value means true: sources are told. With `storage`, true is refused.",
    ),
    ("sizer", "What `queue_size` counts; requests unless set."),
    (
        "enabled",
        "False: one request at a time, and sources pause while there is one.",
    ),
    (
        "num_consumers",
        "Requests that are under way at the same time.",
    ),
    ("queue_size", "At how much sources pause."),
    (
        "queue_bytes_max",
        "own: At how many bytes of memory sources pause.",
    ),
    (
        "batch",
        "Batches are put together by size before they are requests; off unless set.",
    ),
    ("batch::enabled", "False: as if the section was not there."),
];

impl QueueOptions {
    /// Reads `sending_queue`. `no_partition` says why there is no `batch::partition`, if there is none.
    pub fn decode(s: &mut Section<'_, '_>, no_partition: Option<&str>) -> QueueOptions {
        s.describe(QUEUE);
        let storage = s.component_id("storage").map(|id| id.to_string().into());
        let disk_max = s.byte_size_optional("storage_bytes_max", 1 << 16..);
        let mut options = QueueOptions::decode_common(s, no_partition);
        let bytes = options.sizer == Sizer::Bytes;
        if disk_max.is_some() && (storage.is_none() || bytes) {
            let why = match storage {
                None => "has no meaning without storage",
                Some(_) => "queue_size is the limit already, as the sizer is bytes",
            };
            s.invalid("storage_bytes_max", why);
        }
        options.storage_bytes_max = disk_max.unwrap_or(options.storage_bytes_max);
        options.storage = storage;
        if options.storage.is_some() {
            if !options.enabled {
                s.invalid("storage", "needs the queue; remove it or enabled: false");
            }
            if s.has("wait_for_result") && s.bool("wait_for_result", false) {
                s.invalid(
                    "wait_for_result",
                    "cannot be used with storage: what is stored is acknowledged",
                );
            }
            if bytes && options.queue_size < 1 << 16 {
                s.invalid("queue_size", "must be at least 65536 bytes with storage");
            }
        }
        options
    }

    /// `block_on_overflow` and `wait_for_result` are taken with either value: sources always pause
    /// when the queue is full (who asks for drops is told so), and are always told the result.
    fn decode_common(s: &mut Section<'_, '_>, no_partition: Option<&str>) -> QueueOptions {
        let d = QueueOptions::default();
        if !s.bool("block_on_overflow", true) {
            let why = "has no effect: sources pause when the queue is full, and nothing is dropped";
            s.warn("block_on_overflow", why);
        }
        s.bool("wait_for_result", true);
        let sizer = s.choice_optional("sizer", &SIZERS);
        // As in the collector, a batch is counted as the queue is, if nothing else is said.
        let batch_sizer = sizer.filter(|sizer| *sizer != Sizer::Requests);
        QueueOptions {
            enabled: s.bool("enabled", d.enabled),
            num_consumers: s.usize("num_consumers", d.num_consumers, 1..),
            queue_size: s.u64("queue_size", d.queue_size, 1..),
            sizer: sizer.unwrap_or(d.sizer),
            queue_bytes_max: s.byte_size("queue_bytes_max", d.queue_bytes_max, 1..),
            batch: s.optional_section("batch", false, |b| {
                BatchOptions::decode(b, no_partition, batch_sizer)
            }),
            ..d
        }
    }
}

/// What its options do.
const BATCH: &[(&str, &str)] = &[
    ("flush_timeout", "How long the first item waits at most."),
    ("min_size", "How much is enough for a request."),
    ("max_size", "Larger ones are cut; 0 = no limit."),
    (
        "sizer",
        "What these count; unless set as `sizer` of the queue where it is items or bytes, else items.",
    ),
];

impl BatchOptions {
    /// Reads `sending_queue::batch`.
    fn decode(
        s: &mut Section<'_, '_>,
        no_partition: Option<&str>,
        sizer: Option<Sizer>,
    ) -> BatchOptions {
        s.describe(BATCH);
        let d = BatchOptions::default();
        if let Some(why) = no_partition {
            s.refuse("partition", why);
        }
        let partition = match no_partition {
            None => {
                s.describe(PARTITION);
                s.section("partition", decode_keys)
            }
            Some(_) => Vec::new(),
        };
        let options = BatchOptions {
            flush_timeout: s.duration("flush_timeout", d.flush_timeout),
            min_size: s.u64("min_size", d.min_size, ..),
            max_size: s.u64("max_size", d.max_size, ..),
            sizer: s.choice("sizer", &SIZERS[1..], sizer.unwrap_or(d.sizer)),
            partition,
        };
        if options.flush_timeout.is_zero() {
            s.invalid("flush_timeout", "must be more than zero");
        }
        if options.max_size > 0 && options.max_size < options.min_size {
            s.invalid("max_size", "must be 0 (no limit) or at least min_size");
        }
        options
    }
}

/// `metadata_keys`, in lower case.
/// What `partition` does.
const PARTITION: &[(&str, &str)] = &[
    ("partition", "What goes in different requests."),
    (
        "partition::metadata_keys",
        "What differs in these headers of its sender goes in different requests; needs `include_metadata` of a \
         receiver. Beyond 10,000 combinations in a shard, those that wait for longest are sent off.",
    ),
];

fn decode_keys(s: &mut Section<'_, '_>) -> Vec<String> {
    let mut keys = Vec::new();
    for key in s.string_list("metadata_keys").unwrap_or_default() {
        let key = key.to_lowercase();
        if keys.contains(&key) {
            let text = format!("duplicate entry {key:?} (case does not count)");
            s.invalid("metadata_keys", text);
        }
        keys.push(key);
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::test_config::decode_json;

    fn queue(config: Value) -> Result<QueueOptions, String> {
        decode_json(&config, |s| QueueOptions::decode(s, None))
    }

    fn retry(config: Value) -> Result<RetryOptions, String> {
        decode_json(&config, RetryOptions::decode)
    }

    #[test]
    fn nothing_written_gives_the_defaults() {
        assert_eq!(queue(json!({})).unwrap(), QueueOptions::default());
        assert_eq!(retry(json!({})).unwrap(), RetryOptions::default());
        let batch = queue(json!({"batch": null})).unwrap().batch;
        assert_eq!(batch, Some(BatchOptions::default()));
        for (sizer, expect) in [
            ("requests", Sizer::Items),
            ("items", Sizer::Items),
            ("bytes", Sizer::Bytes),
        ] {
            let batch = queue(json!({"sizer": sizer, "batch": {}})).unwrap().batch;
            assert_eq!(batch.unwrap().sizer, expect, "as the queue is counted");
        }
    }

    #[test]
    fn every_option_has_its_effect() {
        let got = queue(json!({
            "enabled": false, "num_consumers": 2, "queue_size": 3, "sizer": "bytes",
            "queue_bytes_max": 4096, "block_on_overflow": false, "wait_for_result": true,
            "batch": {"flush_timeout": "1s", "min_size": 5, "max_size": 6, "sizer": "bytes",
                "partition": {"metadata_keys": ["X-Tenant"]}},
        }));
        let batch = BatchOptions {
            flush_timeout: Duration::from_secs(1),
            min_size: 5,
            max_size: 6,
            sizer: Sizer::Bytes,
            partition: vec!["x-tenant".to_owned()],
        };
        let expect = QueueOptions {
            enabled: false,
            num_consumers: 2,
            queue_size: 3,
            sizer: Sizer::Bytes,
            queue_bytes_max: 4096,
            batch: Some(batch),
            ..QueueOptions::default()
        };
        assert_eq!(got.unwrap(), expect);
        let got = retry(json!({
            "enabled": true, "initial_interval": "1s", "randomization_factor": 0.25,
            "multiplier": 2, "max_interval": "2s", "max_elapsed_time": "3s",
        }));
        let expect = RetryOptions {
            enabled: true,
            initial_interval: Duration::from_secs(1),
            randomization_factor: 0.25,
            multiplier: 2.0,
            max_interval: Duration::from_secs(2),
            max_elapsed_time: Duration::from_secs(3),
        };
        assert_eq!(got.unwrap(), expect);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (config, part) in [
            (json!({"num_consumers": 0}), "num_consumers"),
            (json!({"queue_size": 0}), "queue_size"),
            (json!({"sizer": "lines"}), "requests, items, bytes"),
            (json!({"batch": {"sizer": "requests"}}), "items, bytes"),
            (json!({"batch": {"min_size": 5, "max_size": 4}}), "max_size"),
            (
                json!({"batch": {"partition": {"metadata_keys": ["a", "A"]}}}),
                "duplicate entry \"a\"",
            ),
            (json!({"queue_sise": 1}), "queue_size"),
        ] {
            let error = queue(config.clone()).expect_err(&config.to_string());
            assert!(error.contains(part), "{config}: {error}");
        }
        let none = decode_json(&json!({"batch": {"partition": {}}}), |s| {
            QueueOptions::decode(s, Some("not here"))
        });
        assert!(none.unwrap_err().contains("not here"));
        for (config, part) in [
            (json!({"max_elapsed_time": "1s"}), "max_elapsed_time"),
            (json!({"randomization_factor": 1.5}), "randomization_factor"),
            (json!({"multiplier": -1}), "multiplier"),
        ] {
            let error = retry(config.clone()).expect_err(&config.to_string());
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
