//! THE list of components of this build. Adding one is one line here.

use tailwater_pipeline::factory::Registry;

use crate::extensions;

/// Every component.
pub fn registry() -> Registry {
    Registry {
        receivers: vec![
            tailwater_receivers::filelog::factory(),
            tailwater_receivers::journald::factory(),
            tailwater_receivers::loki::factory(),
            tailwater_receivers::nop::factory(),
            tailwater_receivers::otlp::factory(),
            tailwater_receivers::probe::factory(),
            tailwater_receivers::syslog::factory(),
        ],
        processors: vec![
            tailwater_processors::attributes::factory(),
            tailwater_processors::batch::factory(),
            tailwater_processors::cumulativetodelta::factory(),
            tailwater_processors::deltatocumulative::factory(),
            tailwater_processors::filter::factory(),
            tailwater_processors::groupbyattrs::factory(),
            tailwater_processors::interval::factory(),
            tailwater_processors::k8sattributes::factory(),
            tailwater_processors::logdedup::factory(),
            tailwater_processors::memory_limiter::factory(),
            tailwater_processors::metricstransform::factory(),
            tailwater_processors::probabilistic_sampler::factory(),
            tailwater_processors::redaction::factory(),
            tailwater_processors::resource::factory(),
            tailwater_processors::resourcedetection::factory(),
            tailwater_processors::transform::factory(),
        ],
        exporters: vec![
            tailwater_exporters::debug::factory(),
            tailwater_exporters::file::factory(),
            tailwater_exporters::loki::factory(),
            tailwater_exporters::nop::factory(),
            tailwater_exporters::otlp::grpc_factory(),
            tailwater_exporters::otlp::http_factory(),
            tailwater_exporters::prometheusremotewrite::factory(),
        ],
        connectors: vec![
            tailwater_connectors::count::factory(),
            tailwater_connectors::forward::factory(),
            tailwater_connectors::routing::factory(),
        ],
        extensions: vec![
            extensions::basicauth::factory(),
            extensions::bearertokenauth::factory(),
            extensions::file_storage::factory(),
            extensions::headers_setter::factory(),
            extensions::health_check::factory(),
            extensions::opamp::factory(),
            extensions::zpages::factory(),
        ],
    }
}
