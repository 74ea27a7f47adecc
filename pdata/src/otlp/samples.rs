//! Requests of any shape, made of any bytes: the bytes decide, and where they end all is 0.

use super::oracle::*;

/// The bytes that decide.
pub struct Dice<'a>(&'a [u8]);

/// Texts that are awkward somewhere.
const TEXTS: [&str; 10] = [
    "",
    "a",
    "service.name",
    "k8s.pod.name",
    "\u{0}\u{1f}\u{7f}",
    "\"\\/\n\r\t",
    "\u{e9}\u{2028}\u{1f600}",
    "null",
    "a text that is longer than one hundred and twenty-seven bytes, so that its length takes two \
     bytes and that of what it is in, too, and so on",
    "x",
];

impl<'a> Dice<'a> {
    /// Dice that show `bytes`.
    pub fn new(bytes: &'a [u8]) -> Dice<'a> {
        Dice(bytes)
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::from(self.byte()),
            2 => 1_700_000_000_000_000_000 + u64::from(self.byte()),
            3 => u64::MAX - u64::from(self.byte()),
            4 => i64::MAX as u64 + u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn small(&mut self) -> u32 {
        match self.below(3) {
            0 => 0,
            1 => u32::from(self.byte()),
            _ => self.number() as u32,
        }
    }

    fn double(&mut self) -> f64 {
        const FEW: [f64; 9] = [
            0.0,
            -0.0,
            0.1,
            1e21,
            -1e-7,
            f64::INFINITY,
            f64::NEG_INFINITY,
            5e-324,
            f64::MAX,
        ];
        match self.below(12) {
            n @ 0..=8 => FEW[usize::from(n)],
            9 => f64::from(self.byte()),
            _ => match f64::from_bits(self.number()) {
                // A number that is none is never equal to itself.
                d if d.is_nan() => 0.5,
                d => d,
            },
        }
    }

    fn text(&mut self) -> String {
        match self.below(12) {
            n @ 0..=9 => TEXTS[usize::from(n)].into(),
            n => String::from_utf8_lossy(&self.bytes(usize::from(n))).into(),
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    fn id(&mut self, len: usize) -> Vec<u8> {
        match self.below(3) {
            0 => Vec::new(),
            _ => self.bytes(len),
        }
    }

    fn many<T>(&mut self, max: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = self.below(max + 1);
        (0..n).map(|_| one(self)).collect()
    }

    fn maybe<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match self.below(4) {
            0 => None,
            _ => Some(one(self)),
        }
    }

    fn any(&mut self, depth: u8) -> AnyValue {
        let kinds = if depth < 4 { 8 } else { 6 };
        let value = match self.below(kinds) {
            0 => None,
            1 => Some(Any::String(self.text())),
            2 => Some(Any::Bool(self.below(2) == 1)),
            3 => Some(Any::Int(self.number() as i64)),
            4 => Some(Any::Double(self.double())),
            5 => Some(Any::Bytes(self.id(5))),
            6 => {
                let values = self.many(3, |d| d.any(depth + 1));
                Some(Any::Array(ArrayValue { values }))
            }
            _ => {
                let values = self.pairs(3, depth + 1);
                Some(Any::Map(KeyValueList { values }))
            }
        };
        AnyValue { value }
    }

    /// Pairs with different keys: what else means is not said by OTLP.
    fn pairs(&mut self, max: u8, depth: u8) -> Vec<KeyValue> {
        let mut pairs: Vec<KeyValue> = self.many(max, |d| KeyValue {
            key: d.text(),
            value: d.maybe(|d| d.any(depth)),
        });
        let mut seen = std::collections::HashSet::new();
        pairs.retain(|p| seen.insert(p.key.clone()));
        pairs
    }

    fn attributes(&mut self) -> Vec<KeyValue> {
        self.pairs(4, 0)
    }

    fn resource(&mut self) -> Resource {
        Resource {
            attributes: self.attributes(),
            dropped_attributes_count: self.small(),
            entity_refs: self.many(1, |d| EntityRef {
                schema_url: d.text(),
                r#type: d.text(),
                id_keys: d.many(2, Dice::text),
                description_keys: d.many(2, Dice::text),
            }),
        }
    }

    fn scope(&mut self) -> Scope {
        Scope {
            name: self.text(),
            version: self.text(),
            attributes: self.attributes(),
            dropped_attributes_count: self.small(),
        }
    }

    /// A request of log records.
    pub fn logs(&mut self) -> Logs {
        let scope = |d: &mut Self| ScopeLogs {
            scope: d.maybe(Dice::scope),
            log_records: d.many(4, Dice::record),
            schema_url: d.text(),
        };
        let resource = |d: &mut Self| ResourceLogs {
            resource: d.maybe(Dice::resource),
            scope_logs: d.many(2, scope),
            schema_url: d.text(),
        };
        Logs {
            resource_logs: self.many(3, resource),
        }
    }

    /// One log record.
    pub fn record(&mut self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.number(),
            observed_time_unix_nano: self.number(),
            severity_number: self.below(25).into(),
            severity_text: self.text(),
            body: self.maybe(|d| d.any(0)),
            attributes: self.attributes(),
            dropped_attributes_count: self.small(),
            flags: self.small(),
            trace_id: self.id(16),
            span_id: self.id(8),
            event_name: self.text(),
        }
    }

    /// A request of metrics.
    pub fn metrics(&mut self) -> Metrics {
        let scope = |d: &mut Self| ScopeMetrics {
            scope: d.maybe(Dice::scope),
            metrics: d.many(3, Dice::metric),
            schema_url: d.text(),
        };
        let resource = |d: &mut Self| ResourceMetrics {
            resource: d.maybe(Dice::resource),
            scope_metrics: d.many(2, scope),
            schema_url: d.text(),
        };
        Metrics {
            resource_metrics: self.many(3, resource),
        }
    }

    /// One metric.
    pub fn metric(&mut self) -> Metric {
        Metric {
            name: self.text(),
            description: self.text(),
            unit: self.text(),
            data: self.maybe(Dice::data),
            metadata: self.attributes(),
        }
    }

    fn data(&mut self) -> Data {
        let aggregation_temporality = self.below(3).into();
        match self.below(5) {
            0 => Data::Gauge(Gauge {
                data_points: self.many(3, Dice::point),
            }),
            1 => Data::Sum(Sum {
                data_points: self.many(3, Dice::point),
                aggregation_temporality,
                is_monotonic: self.below(2) == 1,
            }),
            2 => Data::Histogram(Histogram {
                data_points: self.many(3, Dice::histogram),
                aggregation_temporality,
            }),
            3 => Data::Exponential(ExponentialHistogram {
                data_points: self.many(3, Dice::exponential),
                aggregation_temporality,
            }),
            _ => Data::Summary(Summary {
                data_points: self.many(3, Dice::summary),
            }),
        }
    }

    fn point(&mut self) -> NumberPoint {
        NumberPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            exemplars: self.many(2, Dice::exemplar),
            flags: self.small(),
            value: self.maybe(|d| match d.below(2) {
                0 => Number::Double(d.double()),
                _ => Number::Int(d.number() as i64),
            }),
        }
    }

    fn exemplar(&mut self) -> Exemplar {
        Exemplar {
            filtered_attributes: self.attributes(),
            time_unix_nano: self.number(),
            span_id: self.id(8),
            trace_id: self.id(16),
            value: self.maybe(|d| match d.below(2) {
                0 => Example::Double(d.double()),
                _ => Example::Int(d.number() as i64),
            }),
        }
    }

    fn histogram(&mut self) -> HistogramPoint {
        HistogramPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.maybe(Dice::double),
            bucket_counts: self.many(5, Dice::number),
            explicit_bounds: self.many(4, Dice::double),
            exemplars: self.many(2, Dice::exemplar),
            flags: self.small(),
            min: self.maybe(Dice::double),
            max: self.maybe(Dice::double),
        }
    }

    fn exponential(&mut self) -> ExponentialPoint {
        let buckets = |d: &mut Self| Buckets {
            offset: d.small() as i32,
            bucket_counts: d.many(5, Dice::number),
        };
        ExponentialPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.maybe(Dice::double),
            scale: self.small() as i32,
            zero_count: self.number(),
            positive: self.maybe(buckets),
            negative: self.maybe(buckets),
            flags: self.small(),
            exemplars: self.many(2, Dice::exemplar),
            min: self.maybe(Dice::double),
            max: self.maybe(Dice::double),
            zero_threshold: self.double(),
        }
    }

    fn summary(&mut self) -> SummaryPoint {
        SummaryPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.double(),
            quantile_values: self.many(3, |d| Quantile {
                quantile: d.double(),
                value: d.double(),
            }),
            flags: self.small(),
        }
    }

    /// A request of spans.
    pub fn traces(&mut self) -> Traces {
        let scope = |d: &mut Self| ScopeSpans {
            scope: d.maybe(Dice::scope),
            spans: d.many(4, Dice::span),
            schema_url: d.text(),
        };
        let resource = |d: &mut Self| ResourceSpans {
            resource: d.maybe(Dice::resource),
            scope_spans: d.many(2, scope),
            schema_url: d.text(),
        };
        Traces {
            resource_spans: self.many(3, resource),
        }
    }

    /// One span.
    pub fn span(&mut self) -> Span {
        Span {
            trace_id: self.id(16),
            span_id: self.id(8),
            trace_state: self.text(),
            parent_span_id: self.id(8),
            flags: self.small(),
            name: self.text(),
            kind: self.below(6).into(),
            start_time_unix_nano: self.number(),
            end_time_unix_nano: self.number(),
            attributes: self.attributes(),
            dropped_attributes_count: self.small(),
            events: self.many(2, |d| Event {
                time_unix_nano: d.number(),
                name: d.text(),
                attributes: d.attributes(),
                dropped_attributes_count: d.small(),
            }),
            dropped_events_count: self.small(),
            links: self.many(2, |d| Link {
                trace_id: d.id(16),
                span_id: d.id(8),
                trace_state: d.text(),
                attributes: d.attributes(),
                dropped_attributes_count: d.small(),
                flags: d.small(),
            }),
            dropped_links_count: self.small(),
            status: self.maybe(|d| Status {
                message: d.text(),
                code: d.below(3).into(),
            }),
        }
    }
}
