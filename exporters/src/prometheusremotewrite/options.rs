//! What the exporter can be told, as proven values.

pub use super::names::Naming;
pub use super::wire::Protocol;

/// How metrics become series, and series requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteWriteOptions {
    /// `protobuf_message`. Default version 1.
    pub protocol: Protocol,
    /// How metrics become series.
    pub translation: TranslationOptions,
    /// `send_metadata`: type, help and unit of metrics in requests of version 1; version 2 always
    /// has them. Default false.
    pub send_metadata: bool,
    /// `max_batch_size_bytes`: largest request before compression; only a single series can be
    /// larger. Default 3,000,000.
    pub request_bytes_max: usize,
    /// `max_batch_request_parallelism`: into how many requests a large batch is divided, so that
    /// they can be sent at the same time. Default `num_consumers`, which is 5.
    pub parallelism: usize,
}

impl Default for RemoteWriteOptions {
    fn default() -> RemoteWriteOptions {
        RemoteWriteOptions {
            protocol: Protocol::V1,
            translation: TranslationOptions::default(),
            send_metadata: false,
            request_bytes_max: 3_000_000,
            parallelism: 5,
        }
    }
}

/// How metrics become series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TranslationOptions {
    /// `namespace`, `translation_strategy`, `add_metric_suffixes`.
    pub naming: Naming,
    /// `external_labels`: labels of all series, unless a series has one of the name already.
    pub external_labels: Vec<(String, String)>,
    /// `target_info::enabled`. Default true.
    pub target_info: bool,
    /// Not `disable_scope_info`. Default true.
    pub scope_info: bool,
    /// `resource_to_telemetry_conversion`. Default none.
    pub resource_labels: ResourceLabels,
}

/// Which attributes of a resource are labels of all of its series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResourceLabels {
    /// None, but for `job` and `instance`.
    None,
    /// All.
    All,
    /// All but those that became `job` and `instance`.
    WithoutService,
}

impl Default for TranslationOptions {
    fn default() -> TranslationOptions {
        TranslationOptions {
            naming: Naming::default(),
            external_labels: Vec::new(),
            target_info: true,
            scope_info: true,
            resource_labels: ResourceLabels::None,
        }
    }
}
