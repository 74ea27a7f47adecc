//! Processors: what stands between receivers and exporters.
//!
//! Each works on whole batches in columns ([`tailwater_pdata::LogsBatch`]) by plain calls on the
//! thread of its shard, and passes the delivery duty of every part on. Options, defaults and
//! meanings are the collector's; where data read from files gives an option no meaning, decoding
//! says so in a warning.
//!
//! A processor is a module here and one line in [`factories`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod action;
pub mod attributes;
pub mod batch;
pub mod cumulativetodelta;
pub mod deltatocumulative;
mod duties;
pub mod filter;
pub mod groupbyattrs;
pub mod interval;
mod joint;
pub mod k8sattributes;
pub mod logdedup;
pub mod matching;
pub mod memory_limiter;
pub mod metricstransform;
pub mod ottl;
pub mod probabilistic_sampler;
pub mod redaction;
mod remembered;
pub mod resource;
pub mod resourcedetection;
pub mod streams;
pub mod transform;

use tailwater_pipeline::factory::ProcessorFactory;

/// Every processor of this crate.
pub fn factories() -> Vec<ProcessorFactory> {
    vec![
        attributes::factory(),
        batch::factory(),
        cumulativetodelta::factory(),
        deltatocumulative::factory(),
        filter::factory(),
        groupbyattrs::factory(),
        interval::factory(),
        k8sattributes::factory(),
        logdedup::factory(),
        memory_limiter::factory(),
        metricstransform::factory(),
        probabilistic_sampler::factory(),
        redaction::factory(),
        resource::factory(),
        resourcedetection::factory(),
        transform::factory(),
    ]
}
