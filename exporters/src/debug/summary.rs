//! What is in a batch, in numbers.

use tailwater_pdata::Signal;
use tailwater_pdata::otlp::Encoded;
use tailwater_pipeline::Payload;

use super::text::names;

/// How many resources, metrics and items a batch has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    signal: Signal,
    resources: usize,
    /// Of metrics only.
    metrics: usize,
    items: usize,
}

impl Summary {
    /// Nothing.
    pub fn empty(signal: Signal) -> Summary {
        Summary {
            signal,
            resources: 0,
            metrics: 0,
            items: 0,
        }
    }

    /// Adds what is in `data`.
    pub fn add(&mut self, data: &Payload) {
        self.items += data.items();
        match data {
            Payload::Logs(logs) if logs.resource_rows.is_empty() => {
                self.resources += usize::from(!logs.is_empty());
            }
            Payload::Logs(logs) => self.resources += logs.clone().split_by_resource().len(),
            Payload::Encoded(encoded) => self.look_into(encoded),
        }
    }

    fn look_into(&mut self, encoded: &Encoded) {
        let names = names(self.signal);
        for request in encoded.views() {
            for resource in request.messages(names.resources) {
                self.resources += 1;
                if self.signal == Signal::Metrics {
                    let scopes = resource.messages(names.scopes);
                    self.metrics += scopes.map(|s| s.messages("metrics").count()).sum::<usize>();
                }
            }
        }
    }

    /// Says it in the agent's own log.
    pub fn log(&self, exporter: &str) {
        let Summary {
            resources,
            metrics,
            items,
            ..
        } = *self;
        match self.signal {
            Signal::Logs => tracing::info!(
                exporter,
                "resource logs" = resources,
                "log records" = items,
                "Logs"
            ),
            Signal::Metrics => tracing::info!(
                exporter,
                "resource metrics" = resources,
                "metrics" = metrics,
                "data points" = items,
                "Metrics"
            ),
            Signal::Traces => tracing::info!(
                exporter,
                "resource spans" = resources,
                "spans" = items,
                "Traces"
            ),
        }
    }

    /// The same as a line.
    pub fn line(&self) -> String {
        let Summary {
            resources,
            metrics,
            items,
            ..
        } = *self;
        match self.signal {
            Signal::Logs => {
                format!("Logs {{\"resource logs\": {resources}, \"log records\": {items}}}\n")
            }
            Signal::Metrics => format!(
                "Metrics {{\"resource metrics\": {resources}, \"metrics\": {metrics}, \
                 \"data points\": {items}}}\n"
            ),
            Signal::Traces => {
                format!("Traces {{\"resource spans\": {resources}, \"spans\": {items}}}\n")
            }
        }
    }
}
