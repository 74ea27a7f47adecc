//! Deliberately broken agents. Each must be caught, or the simulation sees nothing.

use std::sync::Arc;

use tailwater_exporters::delivery::{Acks, Judge};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::fs::Fs;
use tailwater_pipeline::{Exporter, Processor};
use tailwater_receivers::filelog::logfs::LogFs;
use tailwater_receivers::filelog::watch::News;

/// What is put around the parts of an agent to break it. By default nothing is.
pub trait Breaks {
    /// Around the files of logs.
    fn log_fs(&self, fs: Arc<dyn LogFs>) -> Arc<dyn LogFs> {
        fs
    }
    /// Around the files of the state.
    fn state_fs(&self, fs: Arc<dyn Fs>) -> Arc<dyn Fs> {
        fs
    }
    /// Around who decides about answers.
    fn judge(&self, judge: Arc<dyn Judge<Acks>>) -> Arc<dyn Judge<Acks>> {
        judge
    }
    /// Around the exporter's half in a shard.
    fn exporter(&self, exporter: Box<dyn Exporter>) -> Box<dyn Exporter> {
        exporter
    }
    /// Around the news of changes.
    fn news(&self, news: Box<dyn News>) -> Box<dyn News> {
        news
    }
    /// One more processor.
    fn processor(&self, _cx: &NodeCx) -> Option<Box<dyn Processor>> {
        None
    }
}

/// The agent as it is.
pub struct Whole;

impl Breaks for Whole {}
