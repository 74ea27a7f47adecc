//! Decoding of the exporter's section.

use std::time::Duration;

use tailwater_config::Section;

use crate::client::{ClientOptions, Endpoint, decode_fixed_compression};
use crate::delivery::{QueueOptions, RetryOptions, Sizer};

use super::names::label;
use super::options::{Naming, Protocol, RemoteWriteOptions, ResourceLabels, TranslationOptions};

/// Headers that the protocol fixes.
const RESERVED_HEADERS: [&str; 4] = [
    "content-encoding",
    "content-type",
    "user-agent",
    "x-prometheus-remote-write-version",
];

/// Everything an exporter is built from.
#[derive(Clone, Debug)]
pub struct RemoteWriteSettings {
    /// The full URL that requests are posted to.
    pub endpoint: Endpoint,
    /// The HTTP client. Its timeout is 5 s unless it is configured.
    pub client: ClientOptions,
    /// `remote_write_queue`.
    pub queue: QueueOptions,
    /// `retry_on_failure`. The first wait is 50 ms unless it is configured.
    pub retry: RetryOptions,
    /// The rest.
    pub options: RemoteWriteOptions,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "endpoint",
        "The full URL, as `http://prometheus:9090/api/v1/write`.",
    ),
    ("remote_write_queue", "What waits to be sent."),
    ("retry_on_failure", "How attempts come again."),
    (
        "protobuf_message",
        "Version 1 or 2 of the protocol; 2 also sends start times and metadata.",
    ),
    (
        "send_metadata",
        "Type, help and unit of metrics in requests of version 1.",
    ),
    (
        "max_batch_size_bytes",
        "Of a request, before compression; a single series may be larger. 0 means 3000000.",
    ),
    (
        "max_batch_request_parallelism",
        "Requests that a large batch is divided into, by series; each gets about 1000 data points or more. `num_consumers` unless set.",
    ),
    (
        "translation_strategy",
        "How names are made; those that do not escape need version 2. UnderscoreEscapingWithSuffixes unless set.",
    ),
    (
        "add_metric_suffixes",
        "False: no suffixes; `translation_strategy` wins.",
    ),
    ("namespace", "Stands in front of names, with `_`."),
    ("external_labels", "Of all series that have no such label."),
    (
        "target_info",
        "A series per resource with its attributes as labels.",
    ),
    ("target_info::enabled", "Whether there is one."),
    ("disable_scope_info", "True: no labels `otel_scope_...`."),
    (
        "resource_to_telemetry_conversion",
        "Attributes of the resource as labels of all its series.",
    ),
    (
        "resource_to_telemetry_conversion::enabled",
        "Whether they are.",
    ),
    (
        "resource_to_telemetry_conversion::exclude_service_attributes",
        "But not `service.name`, `service.namespace`, `service.instance.id`.",
    ),
];

impl RemoteWriteSettings {
    /// Reads the section. `None` only together with an error.
    pub fn decode(s: &mut Section<'_, '_>) -> Option<RemoteWriteSettings> {
        s.describe(OPTIONS);
        let endpoint = Endpoint::decode(s, "endpoint");
        decode_fixed_compression(s, "snappy");
        let client = decode_client(s);
        s.refuse("sending_queue", "this exporter has remote_write_queue");
        s.refuse(
            "wal",
            "the queue on disk is remote_write_queue::storage, with the id of a file_storage",
        );
        s.refuse(
            "export_created_metric",
            "series with _created are not built; version 2 of the protocol sends start times",
        );
        let queue = s.section("remote_write_queue", decode_queue);
        let retry = s.section("retry_on_failure", |r| {
            let defaults = RetryOptions {
                initial_interval: Duration::from_millis(50),
                ..RetryOptions::default()
            };
            RetryOptions::decode_with(r, defaults)
        });
        let options = decode_options(s, queue.num_consumers);
        Some(RemoteWriteSettings {
            endpoint: endpoint?,
            client,
            queue,
            retry,
            options,
        })
    }
}

fn decode_client(s: &mut Section<'_, '_>) -> ClientOptions {
    let defaults = ClientOptions {
        timeout: Duration::from_secs(5),
        ..ClientOptions::default()
    };
    let client = ClientOptions::decode(s, defaults);
    for (name, _) in &client.headers {
        if RESERVED_HEADERS.contains(&&*name.to_ascii_lowercase()) {
            let message = format!("{name} is set by the protocol and cannot be configured");
            s.invalid("headers", message);
        }
    }
    client
}

/// What its options do.
const QUEUE: &[(&str, &str)] = &[
    (
        "storage",
        "own: Id of a `file_storage` for a [queue on disk](DELIVERY.md#a-queue-on-disk).",
    ),
    (
        "storage_bytes_max",
        "own: Bytes of its files at which sources pause; 1GiB unless set.",
    ),
    (
        "enabled",
        "False: one request at a time, and sources pause while there is one.",
    ),
    ("num_consumers", "Requests under way at the same time."),
    ("queue_size", "Requests at which sources pause."),
    (
        "queue_bytes_max",
        "own: At how many bytes of memory sources pause.",
    ),
];

fn decode_queue(s: &mut Section<'_, '_>) -> QueueOptions {
    s.describe(QUEUE);
    let d = QueueOptions {
        num_consumers: 5,
        queue_size: 10_000,
        sizer: Sizer::Requests,
        ..QueueOptions::default()
    };
    let storage = s.component_id("storage").map(|id| id.to_string().into());
    let disk_max = s.byte_size_optional("storage_bytes_max", 1 << 16..);
    let options = QueueOptions {
        enabled: s.bool("enabled", d.enabled),
        num_consumers: s.usize("num_consumers", d.num_consumers, 1..),
        queue_size: s.u64("queue_size", d.queue_size, 1..),
        queue_bytes_max: s.byte_size("queue_bytes_max", d.queue_bytes_max, 1..),
        storage_bytes_max: disk_max.unwrap_or(d.storage_bytes_max),
        storage,
        ..d
    };
    if disk_max.is_some() && options.storage.is_none() {
        s.invalid("storage_bytes_max", "has no meaning without storage");
    }
    if options.storage.is_some() && !options.enabled {
        s.invalid("storage", "needs the queue; remove it or enabled: false");
    }
    options
}

fn decode_options(s: &mut Section<'_, '_>, consumers: usize) -> RemoteWriteOptions {
    let d = RemoteWriteOptions::default();
    let protocols = [
        ("prometheus.WriteRequest", Protocol::V1),
        ("io.prometheus.write.v2.Request", Protocol::V2),
    ];
    let protocol = s.choice("protobuf_message", &protocols, d.protocol);
    let translation = decode_translation(s, protocol);
    let send_metadata = s.bool("send_metadata", d.send_metadata);
    if !send_metadata && protocol == Protocol::V2 && s.has("send_metadata") {
        s.warn(
            "send_metadata",
            "has no effect: version 2 always sends metadata",
        );
    }
    let bytes = s.byte_size("max_batch_size_bytes", 0, ..=u64::from(u32::MAX));
    RemoteWriteOptions {
        protocol,
        translation,
        send_metadata,
        // 0 means the default, as in the collector.
        request_bytes_max: match usize::try_from(bytes) {
            Ok(0) | Err(_) => d.request_bytes_max,
            Ok(bytes) => bytes,
        },
        parallelism: s.usize("max_batch_request_parallelism", consumers, 1..),
    }
}

fn decode_translation(s: &mut Section<'_, '_>, protocol: Protocol) -> TranslationOptions {
    let d = TranslationOptions::default();
    let strategies = [
        ("UnderscoreEscapingWithSuffixes", (true, true)),
        ("UnderscoreEscapingWithoutSuffixes", (true, false)),
        ("NoUTF8EscapingWithSuffixes", (false, true)),
        ("NoTranslation", (false, false)),
    ];
    let wanted = s.choice_optional("translation_strategy", &strategies);
    let suffixes = s.bool("add_metric_suffixes", true);
    if wanted.is_some() && s.has("add_metric_suffixes") {
        s.warn(
            "add_metric_suffixes",
            "has no effect beside translation_strategy",
        );
    }
    let (escape, suffixes) = wanted.unwrap_or((true, suffixes));
    if !escape && protocol == Protocol::V1 {
        s.invalid(
            "translation_strategy",
            "names that are not escaped need protobuf_message: io.prometheus.write.v2.Request",
        );
    }
    TranslationOptions {
        naming: Naming {
            escape,
            suffixes,
            namespace: s.string("namespace", ""),
        },
        external_labels: decode_external(s, escape),
        target_info: s.section("target_info", |t| t.bool("enabled", d.target_info)),
        scope_info: !s.bool("disable_scope_info", !d.scope_info),
        resource_labels: s.section("resource_to_telemetry_conversion", |r| {
            let enabled = r.bool("enabled", false);
            let without_service = r.bool("exclude_service_attributes", false);
            if without_service && !enabled {
                r.warn(
                    "exclude_service_attributes",
                    "has no effect without enabled: true",
                );
            }
            match (enabled, without_service) {
                (false, _) => ResourceLabels::None,
                (true, false) => ResourceLabels::All,
                (true, true) => ResourceLabels::WithoutService,
            }
        }),
    }
}

fn decode_external(s: &mut Section<'_, '_>, escape: bool) -> Vec<(String, String)> {
    let key = "external_labels";
    let mut labels: Vec<(String, String)> = Vec::new();
    for (name, value) in s.string_map(key).unwrap_or_default() {
        if name.is_empty() || value.is_empty() {
            s.invalid(key, format!("{name:?}: {value:?}: neither may be empty"));
            continue;
        }
        let made = match escape {
            true => label(&name).into_owned(),
            false => name.clone(),
        };
        if labels.iter().any(|(known, _)| *known == made) {
            s.invalid(
                key,
                format!("{name:?} becomes {made:?}, which is there already"),
            );
            continue;
        }
        labels.push((made, value));
    }
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::test_config::decode_json;

    fn decode(mut config: Value) -> Result<RemoteWriteSettings, String> {
        if let Value::Object(map) = &mut config {
            map.entry("endpoint")
                .or_insert_with(|| "http://prometheus:9090/api/v1/write".into());
        }
        decode_json(&config, RemoteWriteSettings::decode).map(|s| s.expect("no error"))
    }

    #[test]
    fn an_endpoint_alone_is_what_the_collector_does() {
        let s = decode(json!({})).unwrap();
        assert_eq!(s.options, RemoteWriteOptions::default());
        assert_eq!(s.client.timeout, Duration::from_secs(5));
        assert_eq!(s.retry.initial_interval, Duration::from_millis(50));
        assert_eq!((s.queue.queue_size, s.queue.num_consumers), (10_000, 5));
        assert!(s.queue.enabled && s.queue.sizer == Sizer::Requests);
        assert!(decode_json(&json!({}), RemoteWriteSettings::decode).is_err());
        let zero = decode(json!({"max_batch_size_bytes": 0})).unwrap();
        assert_eq!(zero.options.request_bytes_max, 3_000_000);
    }

    #[test]
    fn every_option_has_its_effect() {
        let s = decode(json!({
            "namespace": "ns", "external_labels": {"a.b": "c", "d": "e"},
            "add_metric_suffixes": false, "send_metadata": true,
            "protobuf_message": "prometheus.WriteRequest", "compression": "snappy",
            "remote_write_queue": {
                "queue_size": 7, "num_consumers": 3, "queue_bytes_max": "1MiB",
                "storage": "file_storage/a", "storage_bytes_max": "2MiB",
            },
            "max_batch_size_bytes": 1000, "max_batch_request_parallelism": 2,
            "resource_to_telemetry_conversion": {
                "enabled": true, "exclude_service_attributes": true,
            },
            "target_info": {"enabled": false}, "disable_scope_info": true, "timeout": "9s",
            "retry_on_failure": {"initial_interval": "2s"}, "headers": {"X-Scope-OrgID": "t"},
        }));
        let s = s.unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let want = RemoteWriteOptions {
            protocol: Protocol::V1,
            translation: TranslationOptions {
                naming: Naming {
                    escape: true,
                    suffixes: false,
                    namespace: "ns".into(),
                },
                external_labels: vec![pair("a_b", "c"), pair("d", "e")],
                target_info: false,
                scope_info: false,
                resource_labels: ResourceLabels::WithoutService,
            },
            send_metadata: true,
            request_bytes_max: 1000,
            parallelism: 2,
        };
        assert_eq!(s.options, want);
        assert_eq!((s.queue.queue_size, s.queue.num_consumers), (7, 3));
        assert_eq!(s.queue.queue_bytes_max, 1 << 20);
        assert_eq!(s.queue.storage.as_deref(), Some("file_storage/a"));
        assert_eq!(s.queue.storage_bytes_max, 2 << 20);
        let off = decode(json!({"remote_write_queue": {"enabled": false}}));
        assert!(!off.unwrap().queue.enabled);
        assert_eq!(s.client.timeout, Duration::from_secs(9));
        assert_eq!(s.retry.initial_interval, Duration::from_secs(2));
        let v2 = "io.prometheus.write.v2.Request";
        for (strategy, escape, suffixes) in [
            ("UnderscoreEscapingWithSuffixes", true, true),
            ("UnderscoreEscapingWithoutSuffixes", true, false),
            ("NoUTF8EscapingWithSuffixes", false, true),
            ("NoTranslation", false, false),
        ] {
            let config = json!({"protobuf_message": v2, "translation_strategy": strategy});
            let options = decode(config).unwrap().options;
            assert_eq!(options.protocol, Protocol::V2);
            let n = options.translation.naming;
            assert_eq!((n.escape, n.suffixes), (escape, suffixes), "{strategy}");
        }
        // Requests under way at most are as many as consumers, unless it is said.
        let config = json!({"remote_write_queue": {"num_consumers": 3}});
        assert_eq!(decode(config).unwrap().options.parallelism, 3);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (config, part) in [
            (json!({"endpoint": "nowhere"}), "endpoint"),
            (
                json!({"wal": {"directory": "/tmp"}}),
                "remote_write_queue::storage",
            ),
            (json!({"sending_queue": {}}), "remote_write_queue"),
            (
                json!({"export_created_metric": {"enabled": true}}),
                "_created",
            ),
            (
                json!({"protobuf_message": "v2"}),
                "io.prometheus.write.v2.Request",
            ),
            (json!({"translation_strategy": "None"}), "NoTranslation"),
            (
                json!({"translation_strategy": "NoTranslation"}),
                "need protobuf_message",
            ),
            (json!({"compression": "gzip"}), "compression"),
            (json!({"headers": {"User-Agent": "x"}}), "User-Agent"),
            (
                json!({"headers": {"x-prometheus-remote-write-version": "1"}}),
                "protocol",
            ),
            (json!({"external_labels": {"a": ""}}), "empty"),
            (
                json!({"external_labels": {"a.b": "1", "a-b": "2"}}),
                "there already",
            ),
            (
                json!({"max_batch_request_parallelism": 0}),
                "max_batch_request_parallelism",
            ),
            (
                json!({"remote_write_queue": {"queue_size": 0}}),
                "queue_size",
            ),
            (
                json!({"remote_write_queue": {"num_consumers": 0}}),
                "num_consumers",
            ),
            (
                json!({"remote_write_queue": {"storage": "a", "enabled": false}}),
                "needs the queue",
            ),
            (
                json!({"remote_write_queue": {"storage_bytes_max": "1MiB"}}),
                "without storage",
            ),
            (json!({"target_info": {"enable": true}}), "enabled"),
            (json!({"no_such_option": 1}), "no_such_option"),
        ] {
            let error = decode(config.clone()).expect_err(&config.to_string());
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
