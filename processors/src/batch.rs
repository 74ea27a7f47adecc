//! `batch`: collects parts until there are enough records or enough time has passed.
//!
//! Parts are put side by side, never copied together: each keeps its resource, its delivery duty
//! and its memory, so what becomes of a batch reaches the sources it came from. (The collector's
//! batch processor answers "done" at once and drops what cannot be delivered later.)

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, Output, Part, Processor};
use tailwater_telemetry::metrics::BatchMetrics;

/// Bytes of memory that are enough to pass a batch on, however few records they are: more than any
/// request has room for. Records of a megabyte would otherwise fill all memory that sources may use.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// Combinations of metadata at most, where the configuration asks for no limit.
const COMBINATIONS_MAX: usize = 10_000;

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "batch",
        about: "Collects records until there are enough or enough time has passed.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let settings = BatchConfig::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

/// The section of a `batch` processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Records that are enough to pass a batch on. 0: everything is passed on at once.
    pub send_batch_size: usize,
    /// How long the first record of a batch waits at most. Zero: everything is passed on at once.
    pub timeout: Duration,
    /// Records a batch may hold at most; larger ones are cut. 0: no limit.
    pub send_batch_max_size: usize,
    /// Keys of the client's metadata to keep batches apart by, in lower case. Data read from files has no
    /// such metadata, so all of it belongs to one combination.
    pub metadata_keys: Vec<String>,
    /// Combinations of metadata at most, in each chain of a shard: for a further one, the batch that
    /// waits for longest is passed on. 0: 10,000.
    pub metadata_cardinality_limit: usize,
}

impl Default for BatchConfig {
    /// The collector's defaults.
    fn default() -> Self {
        BatchConfig {
            send_batch_size: 8192,
            timeout: Duration::from_millis(200),
            send_batch_max_size: 0,
            metadata_keys: Vec::new(),
            metadata_cardinality_limit: 1000,
        }
    }
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "send_batch_size",
        "Records that are enough to pass a batch on; 2 MiB of memory are enough, too.",
    ),
    (
        "timeout",
        "Longest wait of the first record; 0: everything is passed on at once.",
    ),
    (
        "send_batch_max_size",
        "Larger batches are cut; 0 = no limit.",
    ),
    (
        "metadata_keys",
        "What differs in these headers of its sender goes into different batches; needs `include_metadata` of a receiver. Data from files has none.",
    ),
    (
        "metadata_cardinality_limit",
        "Combinations of these at the same time, in each chain of a shard; for a further one the batch that waits for longest is passed on. 0 means 10000.",
    ),
];

impl BatchConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> BatchConfig {
        s.describe(OPTIONS);
        let default = BatchConfig::default();
        let records = ..=u32::MAX as usize;
        let config = BatchConfig {
            send_batch_size: s.usize("send_batch_size", default.send_batch_size, records),
            timeout: s.duration("timeout", default.timeout),
            send_batch_max_size: s.usize("send_batch_max_size", 0, records),
            metadata_keys: s.string_list("metadata_keys").unwrap_or_default(),
            metadata_cardinality_limit: s.usize(
                "metadata_cardinality_limit",
                default.metadata_cardinality_limit,
                records,
            ),
        };
        let max = config.send_batch_max_size;
        if max > 0 && max < config.send_batch_size {
            s.invalid(
                "send_batch_max_size",
                "must be greater or equal to send_batch_size",
            );
        }
        let mut seen = Vec::new();
        for key in config.metadata_keys.iter().map(|k| k.to_lowercase()) {
            if seen.contains(&key) {
                s.invalid(
                    "metadata_keys",
                    format!("duplicate entry {key:?} (case does not count)"),
                );
            }
            seen.push(key);
        }
        BatchConfig {
            metadata_keys: seen,
            ..config
        }
    }
}

impl ProcessorSettings for BatchConfig {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let metrics = BatchMetrics::new(&cx.metrics, &cx.id);
        Ok(Box::new(BatchProcessor::new(self.clone(), metrics)))
    }
}

/// Collects parts for one chain of one shard.
pub struct BatchProcessor {
    config: BatchConfig,
    metrics: Arc<BatchMetrics>,
    /// What is kept: all of it, or apart by the metadata of who sent it.
    groups: Vec<Group>,
    /// Where the group of a combination of metadata is.
    by_metadata: HashMap<Combination, usize>,
    /// The earliest of the groups' deadlines.
    deadline: Option<Mono>,
}

/// The values of each of `metadata_keys`.
type Combination = Vec<Vec<Box<str>>>;

/// Parts that may go together.
#[derive(Default)]
struct Group {
    metadata: Combination,
    kept: Vec<Part>,
    records: usize,
    /// Memory of what is kept.
    bytes: usize,
    deadline: Option<Mono>,
}

impl Group {
    /// The kept parts, or the first of them up to `max` records; 0 = all.
    fn take(&mut self, max: usize) -> Batch {
        if max == 0 || self.records <= max {
            (self.records, self.bytes) = (0, 0);
            return Batch {
                parts: std::mem::take(&mut self.kept),
            };
        }
        let mut room = max;
        let mut whole = 0;
        for part in &self.kept {
            if part.data.items() > room {
                break;
            }
            room -= part.data.items();
            whole += 1;
        }
        let mut parts: Vec<Part> = self.kept.drain(..whole).collect();
        if room > 0
            && let Some(cut) = self.kept.first_mut()
        {
            let rest = cut.split_off(room);
            parts.push(std::mem::replace(cut, rest));
        }
        self.records -= max;
        self.bytes = self.kept.iter().map(|p| p.data.heap_bytes()).sum();
        Batch { parts }
    }
}

impl BatchProcessor {
    /// A processor with nothing kept.
    pub fn new(config: BatchConfig, metrics: Arc<BatchMetrics>) -> BatchProcessor {
        metrics.metadata_cardinality.set(1);
        let all = config.metadata_keys.is_empty().then(Group::default);
        BatchProcessor {
            config,
            metrics,
            groups: all.into_iter().collect(),
            by_metadata: HashMap::default(),
            deadline: None,
        }
    }

    /// Whether anything is ever kept.
    fn waits(&self) -> bool {
        self.config.send_batch_size > 0 && !self.config.timeout.is_zero()
    }

    /// The group that a part belongs to.
    fn group_of(&mut self, part: &Part, out: &mut dyn Output) -> usize {
        if self.config.metadata_keys.is_empty() {
            return 0;
        }
        let client = part.ack.client();
        let values = |key: &String| {
            let values = client.as_ref().map_or(&[][..], |c| c.metadata(key));
            values.to_vec()
        };
        let metadata: Combination = self.config.metadata_keys.iter().map(values).collect();
        if let Some(number) = self.by_metadata.get(&metadata) {
            return *number;
        }
        let max = match self.config.metadata_cardinality_limit {
            0 => COMBINATIONS_MAX,
            given => given,
        };
        let number = match self.groups.len() >= max {
            true => self.free_group(out),
            false => {
                self.groups.push(Group::default());
                self.groups.len() - 1
            }
        };
        self.groups[number].metadata.clone_from(&metadata);
        self.by_metadata.insert(metadata, number);
        let cardinality = i64::try_from(self.groups.len()).unwrap_or(i64::MAX);
        self.metrics.metadata_cardinality.set(cardinality);
        number
    }

    /// Frees the group that has nothing, or that waits for longest: what it has is passed on now.
    fn free_group(&mut self, out: &mut dyn Output) -> usize {
        let numbers = 0..self.groups.len();
        // Without a deadline there is nothing in it, and `None` comes first.
        let number = numbers
            .min_by_key(|n| self.groups[*n].deadline)
            .unwrap_or(0);
        self.send_all(number, out);
        let group = &mut self.groups[number];
        group.deadline = None;
        let metadata = std::mem::take(&mut group.metadata);
        self.by_metadata.remove(&metadata);
        number
    }

    /// Passes on what a group keeps, or the first of it up to the largest size.
    fn send(&mut self, number: usize, out: &mut dyn Output) {
        let batch = self.groups[number].take(self.config.send_batch_max_size);
        self.metrics.send_size.observe(batch.items());
        self.metrics.send_size_bytes.observe(batch.bytes());
        out.emit(batch);
    }

    /// Passes on all that a group keeps.
    fn send_all(&mut self, number: usize, out: &mut dyn Output) {
        while self.groups[number].records > 0 {
            self.send(number, out);
        }
    }

    /// Passes on everything that is enough by size, and starts or stops the clock for the rest.
    fn settle(&mut self, number: usize, out: &mut dyn Output) {
        let enough = if self.waits() {
            self.config.send_batch_size
        } else {
            1
        };
        let mut sent = false;
        loop {
            let group = &self.groups[number];
            let large = group.records > 0 && group.bytes >= KEPT_BYTES_MAX;
            if group.records < enough && !large {
                break;
            }
            self.metrics.size_trigger_send.inc();
            self.send(number, out);
            sent = true;
        }
        let group = &mut self.groups[number];
        if group.records == 0 {
            group.deadline = None;
        } else if sent || group.deadline.is_none() {
            group.deadline = Some(out.now().after(self.config.timeout));
        }
    }

    fn find_deadline(&mut self) {
        self.deadline = self.groups.iter().filter_map(|g| g.deadline).min();
    }
}

impl Processor for BatchProcessor {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        for part in batch.parts {
            if let Some(part) = part.non_empty() {
                let number = self.group_of(&part, out);
                let group = &mut self.groups[number];
                group.records += part.data.items();
                group.bytes += part.data.heap_bytes();
                group.kept.push(part);
                self.settle(number, out);
            }
        }
        self.find_deadline();
    }

    fn deadline(&self) -> Option<Mono> {
        self.deadline
    }

    fn tick(&mut self, out: &mut dyn Output) {
        for number in 0..self.groups.len() {
            let group = &mut self.groups[number];
            if group.deadline.is_some_and(|deadline| deadline <= out.now()) {
                group.deadline = None;
                while self.groups[number].records > 0 {
                    self.metrics.timeout_trigger_send.inc();
                    self.send(number, out);
                }
            }
        }
        self.find_deadline();
    }

    fn flush(&mut self, out: &mut dyn Output) {
        for number in 0..self.groups.len() {
            self.send_all(number, out);
            self.groups[number].deadline = None;
        }
        self.deadline = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;
    use tailwater_pdata::{LogsBatch, Value};
    use tailwater_pipeline::ack::NoSink;
    use tailwater_pipeline::client::ClientInfo;
    use tailwater_pipeline::{AckSink, AckToken, AckWindow, Budget, Counts, Front, Outcome};
    use tailwater_telemetry::metrics::MetricsRegistry;

    #[derive(Default)]
    struct Out {
        now: Mono,
        passed: Vec<Batch>,
    }

    impl Output for Out {
        fn emit(&mut self, batch: Batch) {
            self.passed.push(batch);
        }
        fn now(&self) -> Mono {
            self.now
        }
    }

    struct Setup {
        processor: BatchProcessor,
        metrics: Arc<BatchMetrics>,
        window: AckWindow<usize>,
        out: Out,
        /// Records put in so far; each body is its number.
        read: usize,
    }

    impl Setup {
        fn new(size: usize, timeout_ms: u64, max: usize) -> Setup {
            let config = BatchConfig {
                send_batch_size: size,
                timeout: Duration::from_millis(timeout_ms),
                send_batch_max_size: max,
                ..BatchConfig::default()
            };
            let metrics = BatchMetrics::new(&MetricsRegistry::default(), "batch");
            Setup {
                processor: BatchProcessor::new(config, metrics.clone()),
                metrics,
                window: AckWindow::new(Arc::new(NoSink), 0),
                out: Out::default(),
                read: 0,
            }
        }

        fn part(&mut self, records: usize) -> Part {
            let text: String = (self.read..self.read + records)
                .map(|i| format!("{i:06}"))
                .collect();
            let lines: Vec<_> = (0..records as u32).map(|i| (i * 6, 6)).collect();
            self.read += records;
            Part {
                data: LogsBatch::from_lines(text.into(), &lines).into(),
                ack: self.window.reserve(self.read, records as u32, 0),
                permit: Budget::new(1 << 30).take(records * 6),
            }
        }

        fn take_in(&mut self, requests: &[usize]) {
            let parts = requests.iter().map(|n| self.part(*n)).collect();
            self.processor.process(Batch { parts }, &mut self.out);
        }

        fn at_ms(&mut self, ms: u64) {
            self.out.now = Mono(ms * 1_000_000);
            self.processor.tick(&mut self.out);
        }

        fn sizes(&self) -> Vec<usize> {
            self.out.passed.iter().map(Batch::items).collect()
        }

        /// The numbers of all records passed on; resolves their duties.
        fn deliver(&mut self) -> Vec<usize> {
            let mut numbers = Vec::new();
            for part in self.out.passed.drain(..).flat_map(Batch::into_logs) {
                for entry in part.logs.to_entries() {
                    let Value::Str(body) = entry.body else {
                        panic!("a text body")
                    };
                    numbers.push(body.parse().unwrap());
                }
                part.ack.resolve(Outcome::Delivered);
            }
            numbers
        }
    }

    /// Guarantees that few records which take much memory do not wait for more of them.
    #[test]
    fn memory_decides_too() {
        for max in [0, 50] {
            let mut s = Setup::new(50, 100, max);
            for _ in 0..9 {
                let mut part = s.part(1);
                let mut text = vec![b'x'; KEPT_BYTES_MAX / 4];
                text.splice(..6, *b"000000");
                part.data = LogsBatch::from_lines(text.into(), &[(0, 6)]).into();
                s.processor.process(Batch { parts: vec![part] }, &mut s.out);
            }
            assert_eq!(s.sizes(), [4, 4]);
            assert_eq!(s.metrics.size_trigger_send.get(), 2);
            s.at_ms(100);
            assert_eq!(s.sizes(), [4, 4, 1]);
        }
    }

    #[test]
    fn size_and_time_decide_and_the_clock_starts_with_the_first_record() {
        let mut s = Setup::new(50, 100, 0);
        assert_eq!(s.processor.deadline(), None);
        s.at_ms(1000);
        s.take_in(&[20]);
        s.at_ms(1050);
        s.take_in(&[20]);
        assert_eq!(s.processor.deadline(), Some(Mono(1_100_000_000)));
        assert_eq!(s.sizes(), [0; 0]);
        s.at_ms(1099);
        assert_eq!(s.sizes(), [0; 0]);
        s.at_ms(1100);
        assert_eq!((s.sizes(), s.processor.deadline()), (vec![40], None));
        s.take_in(&[30, 40, 5]);
        assert_eq!(s.sizes(), [40, 70]);
        assert_eq!(s.processor.deadline(), Some(Mono(1_200_000_000)));
        s.processor.flush(&mut s.out);
        assert_eq!((s.sizes(), s.processor.deadline()), (vec![40, 70, 5], None));
        assert_eq!(s.metrics.size_trigger_send.get(), 1);
        assert_eq!(s.metrics.timeout_trigger_send.get(), 1);
        assert_eq!(s.deliver(), (0..115).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_size_or_a_timeout_nothing_waits() {
        for (size, timeout) in [(0, 200), (50, 0), (0, 0)] {
            let mut s = Setup::new(size, timeout, 0);
            s.take_in(&[3, 4]);
            assert_eq!((s.sizes(), s.processor.deadline()), (vec![3, 4], None));
            s.deliver();
        }
    }

    #[test]
    fn what_becomes_of_a_batch_reaches_every_source_in_it() {
        let mut s = Setup::new(10, 100, 0);
        s.take_in(&[4, 6]);
        let parts = s.out.passed.pop().unwrap().parts;
        assert_eq!(parts.len(), 2);
        for (part, outcome) in parts.into_iter().zip([Outcome::Delivered, Outcome::Retry]) {
            part.ack.resolve(outcome);
        }
        let mut done = Vec::new();
        let front = s.window.advance(|settled| done.push(settled.position));
        assert_eq!((done, front), (vec![4], Front::Rewind(Outcome::Retry)));
    }

    #[test]
    fn a_part_without_records_is_settled_and_not_kept() {
        let mut s = Setup::new(10, 100, 0);
        s.take_in(&[0]);
        assert_eq!(s.processor.deadline(), None);
        assert_eq!(s.window.advance(|_| ()), Front::Empty);
    }

    /// Someone who pushes with a tenant, perhaps.
    struct Tenant(Option<&'static str>);

    impl AckSink for Tenant {
        fn settled(&self, _key: u64, _outcome: Outcome, _counts: &Counts) {}
        fn client(&self) -> Option<Arc<ClientInfo>> {
            let mut client = ClientInfo::default();
            self.0
                .into_iter()
                .for_each(|t| client.add_metadata("Tenant", t));
            Some(Arc::new(client))
        }
    }

    fn from(s: &mut Setup, tenant: Option<&'static str>, records: usize) {
        let mut part = s.part(records);
        let pushed = AckToken::new(Arc::new(Tenant(tenant)), 0);
        std::mem::replace(&mut part.ack, pushed).resolve(Outcome::Delivered);
        s.processor.process(Batch { parts: vec![part] }, &mut s.out);
    }

    /// Guarantee: what differs in the named metadata is never in one batch, each combination waits for
    /// itself, and beyond the limit the one that waits for longest makes way; nothing is refused.
    #[test]
    fn metadata_keeps_batches_apart() {
        let mut s = Setup::new(10, 100, 0);
        s.processor = BatchProcessor::new(
            BatchConfig {
                metadata_keys: vec!["tenant".into()],
                metadata_cardinality_limit: 2,
                ..s.processor.config.clone()
            },
            s.metrics.clone(),
        );
        from(&mut s, Some("a"), 4);
        s.at_ms(10);
        from(&mut s, None, 5);
        from(&mut s, Some("a"), 6);
        assert_eq!(s.sizes(), [10], "a has enough");
        assert_eq!(s.processor.deadline(), Some(Mono(110_000_000)));
        s.at_ms(20);
        from(&mut s, Some("a"), 1);
        assert_eq!(s.metrics.metadata_cardinality.get(), 2);
        from(&mut s, Some("b"), 2);
        assert_eq!(s.sizes(), [10, 5], "who sent none waited for longest");
        assert_eq!(s.processor.deadline(), Some(Mono(120_000_000)));
        s.at_ms(120);
        let mut sizes = s.sizes();
        sizes[2..].sort();
        assert_eq!(sizes, [10, 5, 1, 2]);
        assert_eq!(s.processor.deadline(), None);
        assert_eq!(s.metrics.metadata_cardinality.get(), 2);
        s.deliver();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Guarantee: every record comes out once, in order, no batch is larger than allowed,
        /// and every duty is passed on.
        #[test]
        fn records_duties_and_order_are_kept(
            requests in prop::collection::vec(0usize..40, 0..30),
            size in 0usize..30,
            extra in prop::option::of(0usize..20),
            timeout_ms in 0u64..3,
        ) {
            let max = extra.map_or(0, |extra| (size + extra).max(1));
            let mut s = Setup::new(size, timeout_ms, max);
            for (i, request) in requests.iter().enumerate() {
                s.take_in(&[*request]);
                s.at_ms(i as u64);
                let kept = s.processor.deadline().is_some();
                prop_assert_eq!(kept, s.processor.groups[0].records > 0);
            }
            s.processor.flush(&mut s.out);
            let sizes = s.sizes();
            prop_assert!(sizes.iter().all(|n| *n > 0 && (max == 0 || *n <= max)), "{:?}", sizes);
            let read = s.read;
            prop_assert_eq!(s.deliver(), (0..read).collect::<Vec<_>>());
            prop_assert_eq!(s.window.advance(|_| ()), Front::Empty);
        }
    }
}
