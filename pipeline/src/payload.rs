//! What a batch carries: log records as columns, or a message of any signal as it came.

use tailwater_pdata::otlp::{self, Encoded};
use tailwater_pdata::{LogsBatch, Signal};

/// The data of one [`Part`](crate::Part).
// A batch holds few of them, and a box would be one more allocation for each read.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Payload {
    /// Log records of one resource and scope.
    Logs(LogsBatch),
    /// An OTLP message as it was received: any signal, any number of resources. Who does not look
    /// into it passes its bytes on.
    Encoded(Encoded),
}

impl From<LogsBatch> for Payload {
    fn from(logs: LogsBatch) -> Payload {
        Payload::Logs(logs)
    }
}

impl From<Encoded> for Payload {
    fn from(encoded: Encoded) -> Payload {
        Payload::Encoded(encoded)
    }
}

impl Payload {
    /// The signal it belongs to.
    pub fn signal(&self) -> Signal {
        match self {
            Payload::Logs(_) => Signal::Logs,
            Payload::Encoded(e) => e.signal(),
        }
    }

    /// Number of items: log records, data points or spans.
    #[inline]
    pub fn items(&self) -> usize {
        match self {
            Payload::Logs(logs) => logs.rows(),
            Payload::Encoded(e) => e.items(),
        }
    }

    /// True without items.
    pub fn is_empty(&self) -> bool {
        self.items() == 0
    }

    /// Bytes of memory it pins, for budgets. An estimate within a few percent.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Payload::Logs(logs) => logs.heap_bytes(),
            Payload::Encoded(e) => e.heap_bytes(),
        }
    }

    /// Splits off the items from `at`.
    pub fn split_off(&mut self, at: usize) -> Payload {
        match self {
            Payload::Logs(logs) => Payload::Logs(logs.split_off(at)),
            Payload::Encoded(e) => Payload::Encoded(e.split_off(at)),
        }
    }

    /// The records as columns. An encoded message has as many batches as it has resources and
    /// scopes; a message that is not of logs has none.
    pub fn into_logs(self) -> Logs {
        match self {
            Payload::Logs(logs) => Logs {
                first: Some(logs),
                rest: Vec::new().into_iter(),
            },
            Payload::Encoded(e) => {
                debug_assert_eq!(e.signal(), Signal::Logs, "the graph keeps signals apart");
                let batches = match e.signal() {
                    Signal::Logs => otlp::decode_logs(&e),
                    _ => Vec::new(),
                };
                Logs {
                    first: None,
                    rest: batches.into_iter(),
                }
            }
        }
    }
}

/// The batches of log records of one [`Payload`].
pub struct Logs {
    first: Option<LogsBatch>,
    rest: std::vec::IntoIter<LogsBatch>,
}

impl Iterator for Logs {
    type Item = LogsBatch;

    fn next(&mut self) -> Option<LogsBatch> {
        self.first.take().or_else(|| self.rest.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = usize::from(self.first.is_some()) + self.rest.len();
        (n, Some(n))
    }
}

impl ExactSizeIterator for Logs {}
