//! Decoding of the exporters' sections.

use tailwater_config::Section;
use tailwater_pdata::Signal;

use crate::client::{ClientOptions, Endpoint, GrpcOptions};
use crate::delivery::{QueueOptions, RetryOptions};

use super::compress::Compression;
use super::judge::OnConfigurationError;
use super::packing::Form;

/// A level of Go that is none of the format.
const HUFFMAN_ONLY: i64 = -2;

/// What both exporters have.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// `compression`, with its level.
    pub compression: Compression,
    /// `sending_queue`.
    pub queue: QueueOptions,
    /// `retry_on_failure`.
    pub retry: RetryOptions,
    /// `on_configuration_error`, an option of our own.
    pub on_configuration_error: OnConfigurationError,
}

/// What its options do.
const COMMON: &[(&str, &str)] = &[
    ("sending_queue", "What waits to be sent."),
    ("retry_on_failure", "How attempts come again."),
    (
        "on_configuration_error",
        "own: What is done when credentials or the address are refused (401, 403, 404, 405, 407; `UNAUTHENTICATED`, `PERMISSION_DENIED`, `UNIMPLEMENTED`). `hold` keeps everything, with an alarm, and tries again slowly.",
    ),
];

impl Common {
    fn decode(s: &mut Section<'_, '_>, compression: Compression) -> Common {
        s.describe(COMMON);
        let choices = [
            ("drop", OnConfigurationError::Drop),
            ("hold", OnConfigurationError::Hold),
        ];
        Common {
            compression,
            queue: s.section("sending_queue", |q| QueueOptions::decode(q, None)),
            retry: s.section("retry_on_failure", RetryOptions::decode),
            on_configuration_error: s.choice(
                "on_configuration_error",
                &choices,
                OnConfigurationError::Drop,
            ),
        }
    }
}

/// Settings of `otlp_http`.
#[derive(Clone, Debug)]
pub struct OtlpHttpSettings {
    /// Where logs go.
    pub logs: Option<Endpoint>,
    /// Where metrics go.
    pub metrics: Option<Endpoint>,
    /// Where traces go.
    pub traces: Option<Endpoint>,
    /// `encoding`.
    pub form: Form,
    /// The HTTP client.
    pub client: ClientOptions,
    /// The rest.
    pub common: Common,
}

/// What its options do.
const HTTP: &[(&str, &str)] = &[
    (
        "endpoint",
        "A URL, to which `/v1/logs`, `/v1/metrics`, `/v1/traces` is added. One of the endpoints is required.",
    ),
    ("logs_endpoint", "The full URL for logs."),
    ("metrics_endpoint", "The full URL for metrics."),
    ("traces_endpoint", "The full URL for traces."),
    (
        "profiles_endpoint",
        "Accepted with a warning: there are no pipelines of profiles.",
    ),
    ("encoding", "Protobuf or JSON."),
    ("compression", "Of bodies."),
    ("compression_params", "How compression works."),
    (
        "compression_params::level",
        "0 = default: 1 to 9 of gzip, zlib and deflate, and -2, which means 1, with a warning; any of zstd, of which those above 19 mean 19.",
    ),
];

impl OtlpHttpSettings {
    /// Reads the section. `None` only together with an error.
    pub fn decode(s: &mut Section<'_, '_>) -> Option<OtlpHttpSettings> {
        s.describe(HTTP);
        let base = optional_endpoint(s, "endpoint");
        if base.as_ref().is_some_and(|e| e.path.contains('?')) {
            s.invalid(
                "endpoint",
                "has a query, behind which no path fits; use logs_endpoint and the like",
            );
        }
        let mut of = |signal: Signal| {
            let own = optional_endpoint(s, &format!("{signal}_endpoint"));
            own.or_else(|| Some(base.as_ref()?.join(&format!("v1/{signal}"))))
        };
        let (logs, metrics, traces) = (of(Signal::Logs), of(Signal::Metrics), of(Signal::Traces));
        if optional_endpoint(s, "profiles_endpoint").is_some() {
            let why = "has no effect: there are no pipelines of profiles, and what other pipelines \
                       carry goes to the other endpoints";
            s.warn("profiles_endpoint", why);
        }
        let any = [
            "endpoint",
            "logs_endpoint",
            "metrics_endpoint",
            "traces_endpoint",
            "profiles_endpoint",
        ]
        .iter()
        .any(|key| s.has(key));
        if !any {
            s.error("at least one endpoint must be specified");
        }
        let forms = [("proto", Form::Proto), ("json", Form::Json)];
        let form = s.choice("encoding", &forms, Form::Proto);
        let compression = http_compression(s);
        let client = ClientOptions::decode(s, ClientOptions::default());
        Some(OtlpHttpSettings {
            logs,
            metrics,
            traces,
            form,
            client,
            common: Common::decode(s, compression),
        })
    }

    /// Where requests of `signal` go.
    pub fn endpoint(&self, signal: Signal) -> Option<&Endpoint> {
        match signal {
            Signal::Logs => self.logs.as_ref(),
            Signal::Metrics => self.metrics.as_ref(),
            Signal::Traces => self.traces.as_ref(),
        }
    }
}

/// A URL, if there is one; the empty text is none.
fn optional_endpoint(s: &mut Section<'_, '_>, key: &str) -> Option<Endpoint> {
    let mut url = s.string_optional(key).filter(|url| !url.is_empty())?;
    if !url.contains("://") {
        // The collector takes it, and then cannot send.
        s.warn(key, "has no scheme; http:// is taken");
        url.insert_str(0, "http://");
    }
    Endpoint::parse(&url)
        .map_err(|e| s.invalid(key, e.problem))
        .ok()
}

fn http_compression(s: &mut Section<'_, '_>) -> Compression {
    const NAMES: [&str; 9] = [
        "gzip",
        "zstd",
        "zlib",
        "deflate",
        "snappy",
        "x-snappy-framed",
        "lz4",
        "none",
        "",
    ];
    let name = s.one_of("compression", &NAMES, "gzip");
    s.section("compression_params", |p| {
        let mut level = p.i64("level", 0, ..);
        if level == HUFFMAN_ONLY && ["gzip", "zlib", "deflate"].contains(&name) {
            let why = "Huffman coding alone is not built in: the fastest level, 1, is taken";
            p.warn("level", why);
            level = 1;
        }
        Compression::http(name, level).unwrap_or_else(|problem| {
            p.invalid("level", problem);
            Compression::None
        })
    })
}

/// Settings of `otlp_grpc`.
#[derive(Clone, Debug)]
pub struct OtlpGrpcSettings {
    /// The client.
    pub client: GrpcOptions,
    /// The rest.
    pub common: Common,
}

/// What its options do.
const GRPC: &[(&str, &str)] = &[("compression", "Of messages.")];

impl OtlpGrpcSettings {
    /// Reads the section. `None` only together with an error.
    pub fn decode(s: &mut Section<'_, '_>) -> Option<OtlpGrpcSettings> {
        s.describe(GRPC);
        let client = GrpcOptions::decode(s);
        let name = s.one_of(
            "compression",
            &["gzip", "zstd", "snappy", "none", ""],
            "gzip",
        );
        let common = Common::decode(s, Compression::grpc(name));
        Some(OtlpGrpcSettings {
            client: client?,
            common,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::test_config::decode_json;

    fn http(config: Value) -> Result<OtlpHttpSettings, String> {
        decode_json(&config, OtlpHttpSettings::decode).map(|s| s.unwrap())
    }

    fn grpc(config: Value) -> Result<OtlpGrpcSettings, String> {
        decode_json(&config, OtlpGrpcSettings::decode).map(|s| s.unwrap())
    }

    #[test]
    fn paths_of_signals_are_made_as_the_collector_does() {
        let s = http(json!({"endpoint": "http://h:1/otlp/", "logs_endpoint": "https://l/x?k=1"}));
        let s = s.unwrap();
        let shown = |signal| {
            let e = s.endpoint(signal).unwrap();
            format!("{}://{}{}", e.scheme(), e.host_port(), e.path)
        };
        assert_eq!(shown(Signal::Logs), "https://l:443/x?k=1");
        assert_eq!(shown(Signal::Metrics), "http://h:1/otlp/v1/metrics");
        assert_eq!(shown(Signal::Traces), "http://h:1/otlp/v1/traces");
        let s = http(json!({"traces_endpoint": "http://t"})).unwrap();
        assert!(s.endpoint(Signal::Logs).is_none() && s.endpoint(Signal::Traces).is_some());
    }

    #[test]
    fn defaults_are_the_collectors() {
        let s = http(json!({"endpoint": "http://h"})).unwrap();
        assert_eq!(s.client.timeout.as_secs(), 30);
        assert_eq!(s.form, Form::Proto);
        let s = (s.common, grpc(json!({"endpoint": "h:1"})).unwrap());
        for common in [&s.0, &s.1.common] {
            assert_eq!(common.compression, Compression::Gzip(6));
            assert_eq!(common.queue, QueueOptions::default());
            assert_eq!(common.retry, RetryOptions::default());
            assert_eq!(common.on_configuration_error, OnConfigurationError::Drop);
        }
        assert_eq!(s.1.client.timeout.as_secs(), 5);
        assert!(s.1.client.endpoint.https);
    }

    #[test]
    fn every_option_has_its_effect() {
        let s = http(json!({
            "endpoint": "http://h", "encoding": "json", "compression": "deflate",
            "compression_params": {"level": 9}, "timeout": "1s",
            "on_configuration_error": "hold",
            "sending_queue": {"storage": "file_storage/a", "storage_bytes_max": 1 << 20,
                "sizer": "items", "queue_size": 5, "num_consumers": 2},
            "retry_on_failure": {"enabled": false},
        }));
        let s = s.unwrap();
        assert_eq!(s.form, Form::Json);
        assert_eq!(s.client.timeout.as_secs(), 1);
        assert_eq!(s.common.compression, Compression::Zlib("deflate", 9));
        assert_eq!(s.common.on_configuration_error, OnConfigurationError::Hold);
        assert!(!s.common.retry.enabled);
        let q = &s.common.queue;
        assert_eq!(q.storage.as_deref(), Some("file_storage/a"));
        assert_eq!((q.storage_bytes_max, q.queue_size), (1 << 20, 5));
        for (name, expect) in [
            ("snappy", Compression::SnappyFramed("snappy")),
            ("zstd", Compression::Zstd(1)),
            ("none", Compression::None),
            ("", Compression::None),
        ] {
            let s = grpc(json!({"endpoint": "h:1", "compression": name})).unwrap();
            assert_eq!(s.common.compression, expect);
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        // A missing scheme is a warning.
        assert!(http(json!({"endpoint": "h:1"})).is_ok());
        assert!(http(json!({"profiles_endpoint": "http://p"})).is_ok());
        let fastest = http(json!({"endpoint": "http://h", "compression_params": {"level": -2}}));
        assert_eq!(fastest.unwrap().common.compression, Compression::Gzip(1));
        let queue = |q: Value| json!({"endpoint": "http://h", "sending_queue": q});
        for (config, part) in [
            (json!({}), "at least one endpoint"),
            (
                json!({"endpoint": "ftp://h:1"}),
                "only http:// and https://",
            ),
            (json!({"endpoint": "http://h/?a=b"}), "query"),
            (
                json!({"endpoint": "http://h", "profiles_endpoint": "ftp://x"}),
                "profiles_endpoint",
            ),
            (
                json!({"endpoint": "http://h", "encoding": "xml"}),
                "proto, json",
            ),
            (json!({"endpoint": "http://h", "compression": "br"}), "gzip"),
            (
                json!({"endpoint": "http://h", "compression": "lz4",
                    "compression_params": {"level": 3}}),
                "no levels",
            ),
            (
                json!({"endpoint": "http://h", "balancer_name": "x"}),
                "balancer_name",
            ),
            (
                queue(json!({"storage": "a", "enabled": false})),
                "needs the queue",
            ),
            (
                queue(json!({"storage": "a", "wait_for_result": true})),
                "wait_for_result",
            ),
            (
                queue(json!({"storage_bytes_max": 1 << 20})),
                "without storage",
            ),
            (
                queue(json!({"storage": "a", "sizer": "bytes", "queue_size": 1000})),
                "65536",
            ),
        ] {
            let error = http(config.clone()).expect_err(&config.to_string());
            assert!(error.contains(part), "{config}: {error}");
        }
        for (config, part) in [
            (json!({"endpoint": "h:1", "compression": "lz4"}), "gzip"),
            (json!({"endpoint": "h:1", "encoding": "json"}), "encoding"),
            (
                json!({"endpoint": "h:1", "compression_params": {}}),
                "compression_params",
            ),
        ] {
            let error = grpc(config.clone()).expect_err(&config.to_string());
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
