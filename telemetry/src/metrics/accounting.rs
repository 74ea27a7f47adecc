//! The accounting identity: read = delivered + in flight + filtered + dropped, at every instant.
//!
//! `in flight` is never counted, it is what remains. A record is added to `read` before anything
//! can happen to it, and a snapshot loads every outcome before it loads `read`; so the remainder
//! can never be negative, whatever other threads do meanwhile, and the five numbers of one
//! snapshot always add up.
//!
//! A source that goes back (its batch was not delivered) does not read its records a second time:
//! they stay in flight, are *owed*, and the next reading of them pays the debt.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use super::family::{Collect, Family, Gather, Kind, Labels, Level, Unit};
use super::group::AnyGroup;
use super::registry::MetricsRegistry;

/// Names a component can be given for who filtered, at most; later ones count as `other`.
const FILTERS_MAX: usize = 64;
/// The filter that stands for everything behind the component that keeps the account.
const BY_PIPELINE: &str = "pipeline";
/// The filter for records that were cut differently when they were read again.
const BY_REPLAY: &str = "replay";

/// A number of records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Log records.
    pub records: u64,
    /// Bytes as they were read.
    pub bytes: u64,
}

impl Amount {
    /// Records and their bytes.
    pub fn new(records: u64, bytes: u64) -> Amount {
        Amount { records, bytes }
    }

    pub(super) fn plus(self, other: Amount) -> Amount {
        Amount {
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
        }
    }

    pub(super) fn minus(self, other: Amount) -> Amount {
        Amount {
            records: self.records.saturating_sub(other.records),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// The share of `records` of this amount's records, bytes in proportion.
    fn share(self, records: u64) -> Amount {
        let bytes = u128::from(self.bytes) * u128::from(records) / u128::from(self.records.max(1));
        Amount {
            records,
            bytes: bytes.min(u128::from(self.bytes)) as u64,
        }
    }
}

#[derive(Debug, Default)]
struct Total {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Total {
    fn add(&self, amount: Amount) {
        self.records.fetch_add(amount.records, Ordering::AcqRel);
        self.bytes.fetch_add(amount.bytes, Ordering::AcqRel);
    }

    fn get(&self) -> Amount {
        Amount {
            records: self.records.load(Ordering::Acquire),
            bytes: self.bytes.load(Ordering::Acquire),
        }
    }

    /// Takes off at most `amount`; returns what was taken.
    fn take(&self, amount: Amount) -> Amount {
        let take = |total: &AtomicU64, want: u64| {
            let sub = |have: u64| Some(have.saturating_sub(want));
            let before = total.fetch_update(Ordering::AcqRel, Ordering::Acquire, sub);
            before.unwrap_or_else(|have| have).min(want)
        };
        Amount {
            records: take(&self.records, amount.records),
            bytes: take(&self.bytes, amount.bytes),
        }
    }
}

/// Counts what one component removes on purpose. Resolved once, when the component is built.
#[derive(Debug)]
pub struct FilterCount {
    by: String,
    total: Total,
}

impl FilterCount {
    /// Adds records that were read (or taken in) before and are now removed on purpose.
    pub fn add(&self, amount: Amount) {
        self.total.add(amount);
    }
}

/// What became of a batch that is settled as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Settlement<'a> {
    /// All records of the batch and its bytes.
    pub batch: Amount,
    /// Records of it that this component itself removed on purpose, by whom.
    pub filtered_by: &'a [(Arc<FilterCount>, u64)],
    /// Records of it that were removed on purpose behind this component.
    pub filtered: u64,
    /// Records of it that were given up, by the index of the reason.
    pub dropped: &'a [u32],
}

/// The account of one component: a receiver (what it read), an exporter (what it was handed).
#[derive(Debug)]
pub struct Accounting {
    labels: Labels,
    reasons: &'static [&'static str],
    read: Total,
    delivered: Total,
    dropped: Vec<Total>,
    filtered: RwLock<Vec<Arc<FilterCount>>>,
    pipeline: Arc<FilterCount>,
    replay: Arc<FilterCount>,
    rewound: Total,
    owed: Total,
}

impl Accounting {
    /// The account of component `component` (its id) of kind `kind` (`receiver`, `exporter`).
    /// `reasons` names the drop reasons by index. Whoever names the same component gets the same
    /// account, so a component that is replaced goes on counting where the old one was.
    pub fn new(
        registry: &MetricsRegistry,
        kind: &str,
        component: &str,
        reasons: &'static [&'static str],
    ) -> Arc<Accounting> {
        let labels = vec![
            ("kind", kind.to_owned()),
            ("component", component.to_owned()),
        ];
        registry.group_with("Accounting", labels, |labels| {
            Accounting::create(labels, reasons)
        })
    }

    fn create(labels: Labels, reasons: &'static [&'static str]) -> Accounting {
        let filter = |by: &str| {
            Arc::new(FilterCount {
                by: by.to_owned(),
                total: Total::default(),
            })
        };
        let (pipeline, replay) = (filter(BY_PIPELINE), filter(BY_REPLAY));
        Accounting {
            labels,
            reasons,
            read: Total::default(),
            delivered: Total::default(),
            dropped: reasons.iter().map(|_| Total::default()).collect(),
            filtered: RwLock::new(vec![pipeline.clone(), replay.clone()]),
            pipeline,
            replay,
            rewound: Total::default(),
            owed: Total::default(),
        }
    }

    /// Records were read for the first time. Call it before they are passed on.
    pub fn read(&self, amount: Amount) {
        self.read.add(amount);
    }

    /// Records under way were not delivered and will be read again. They stay in flight.
    pub fn rewound(&self, amount: Amount) {
        self.owed.add(amount);
        self.rewound.add(amount);
    }

    /// Records were read again after [`Accounting::rewound`]. What exceeds the debt counts as
    /// read for the first time.
    pub fn reread(&self, amount: Amount) {
        let paid = self.owed.take(amount);
        self.read.add(amount.minus(paid));
    }

    /// The place where the source had been is reached again (or can no longer be reached), with
    /// `amount` still owed because the records were cut differently this time.
    pub fn replay_ended(&self, amount: Amount) {
        let left = self.owed.take(amount);
        self.replay.add(left);
    }

    /// Records that were to be read again cannot be: their bytes are gone (the file was truncated,
    /// or is given up). At most what is owed is taken, so the account stays right whoever else
    /// pays.
    pub fn owed_lost(&self, reason: usize, amount: Amount) {
        let left = self.owed.take(amount);
        self.dropped(reason, left);
    }

    /// The counter for what `by` (an operator, a processor) removes on purpose.
    pub fn filter(&self, by: &str) -> Arc<FilterCount> {
        let mut filters = self.filtered.write().unwrap_or_else(|e| e.into_inner());
        let by = if filters.len() < FILTERS_MAX {
            by
        } else {
            "other"
        };
        if let Some(known) = filters.iter().find(|f| f.by == by) {
            return known.clone();
        }
        let new = Arc::new(FilterCount {
            by: by.to_owned(),
            total: Total::default(),
        });
        filters.push(new.clone());
        new
    }

    /// A batch is settled: what was neither filtered nor dropped was delivered. The bytes of a
    /// batch with several fates are shared out by numbers of records.
    pub fn settled(&self, settlement: Settlement<'_>) {
        let Settlement {
            batch,
            filtered_by,
            filtered,
            dropped,
        } = settlement;
        let mut rest = batch;
        for (by, records) in filtered_by {
            let part = batch.share((*records).min(rest.records));
            rest = rest.minus(part);
            by.add(part);
        }
        let filtered = batch.share(filtered.min(rest.records));
        rest = rest.minus(filtered);
        for (total, &records) in self.dropped.iter().zip(dropped) {
            if records > 0 {
                let part = batch.share(u64::from(records).min(rest.records));
                rest = rest.minus(part);
                total.add(part);
            }
        }
        self.pipeline.add(filtered);
        self.delivered.add(rest);
    }

    /// Records under way are given up by this component itself, and will not be settled. What was
    /// reported as [`Accounting::rewound`] goes to [`Accounting::owed_lost`] instead.
    pub fn dropped(&self, reason: usize, amount: Amount) {
        if let Some(total) = self.dropped.get(reason) {
            total.add(amount);
        }
    }

    /// The five numbers at one instant. See the module's documentation for why they add up.
    pub fn snapshot(&self) -> Snapshot {
        let delivered = self.delivered.get();
        let by = |f: &Arc<FilterCount>| (f.by.clone(), f.total.get());
        let filtered: Vec<_> = {
            let filters = self.filtered.read().unwrap_or_else(|e| e.into_inner());
            filters.iter().map(by).collect()
        };
        let dropped: Vec<_> = self
            .reasons
            .iter()
            .copied()
            .zip(self.dropped.iter().map(Total::get))
            .collect();
        let mut settled = delivered;
        for (_, amount) in &filtered {
            settled = settled.plus(*amount);
        }
        for (_, amount) in &dropped {
            settled = settled.plus(*amount);
        }
        // INVARIANT: `read` is loaded last, see the module's documentation.
        let read = self.read.get();
        Snapshot {
            read,
            delivered,
            in_flight: read.minus(settled),
            filtered,
            dropped,
            owed: self.owed.get(),
            overdrawn: settled.minus(read),
        }
    }
}

/// The account of one component at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything taken in.
    pub read: Amount,
    /// Accepted by the destination.
    pub delivered: Amount,
    /// Neither delivered nor given up yet.
    pub in_flight: Amount,
    /// Removed on purpose, by whom.
    pub filtered: Vec<(String, Amount)>,
    /// Given up, by reason.
    pub dropped: Vec<(&'static str, Amount)>,
    /// The part of `in_flight` that must be read again first.
    pub owed: Amount,
    /// Outcomes without a reading: always zero, unless a component settles something twice.
    pub overdrawn: Amount,
}

impl Snapshot {
    /// Proves the identity, for tests and for the page that shows it.
    ///
    /// # Errors
    /// Names the numbers that do not add up.
    pub fn check(&self) -> Result<(), String> {
        let mut sum = self.delivered.plus(self.in_flight);
        for (_, amount) in &self.filtered {
            sum = sum.plus(*amount);
        }
        for (_, amount) in &self.dropped {
            sum = sum.plus(*amount);
        }
        if sum != self.read || self.overdrawn != Amount::default() {
            return Err(format!(
                "read {:?} is not the sum {sum:?} of delivered, in flight, filtered and dropped \
                 (settled beyond what was read: {:?})",
                self.read, self.overdrawn
            ));
        }
        Ok(())
    }

    /// True when nothing is in flight.
    pub fn is_settled(&self) -> bool {
        self.in_flight == Amount::default()
    }
}

macro_rules! families {
    ($($index:ident = ($records:literal, $bytes:literal, $kind:ident, $help:literal);)*) => {
        $(const $index: [Family; 2] = [
            Family {
                name: $records,
                help: concat!("Log records ", $help),
                kind: Kind::$kind,
                unit: Unit::Count,
                level: Level::Basic,
            },
            Family {
                name: $bytes,
                help: concat!("Bytes of log records ", $help),
                kind: Kind::$kind,
                unit: Unit::Bytes,
                level: Level::Basic,
            },
        ];)*
        /// The metrics of every account.
        pub(crate) const ACCOUNTING_FAMILIES: &[[Family; 2]] = &[$($index),*];
    };
}

families! {
    READ = ("tailwater_records_read", "tailwater_bytes_read", Counter,
        "taken in. Always delivered + in flight + filtered + dropped.");
    DELIVERED = ("tailwater_records_delivered", "tailwater_bytes_delivered", Counter,
        "that the destination accepted.");
    IN_FLIGHT = ("tailwater_records_in_flight", "tailwater_bytes_in_flight", Gauge,
        "taken in and neither delivered nor given up yet.");
    FILTERED = ("tailwater_records_filtered", "tailwater_bytes_filtered", Counter,
        "removed on purpose.");
    DROPPED = ("tailwater_records_dropped", "tailwater_bytes_dropped", Counter,
        "given up, by reason.");
    REWOUND = ("tailwater_records_rewound", "tailwater_bytes_rewound", Counter,
        "that were not delivered and are read again; they stay in flight.");
    OVERDRAWN = ("tailwater_records_overdrawn", "tailwater_bytes_overdrawn", Gauge,
        "settled but never taken in: a bug when not 0.");
}

impl AnyGroup for Accounting {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Collect for Accounting {
    fn collect(&self, out: &mut Gather) {
        let now = self.snapshot();
        let with = |name: &'static str, value: &str| {
            let mut labels = self.labels.clone();
            labels.push((name, value.to_owned()));
            labels
        };
        let mut put = |families: &[Family; 2], labels: &Labels, amount: Amount| {
            for (family, value) in families.iter().zip([amount.records, amount.bytes]) {
                match family.kind {
                    Kind::Gauge => out.gauge(family, labels, value as f64),
                    _ => out.counter(family, labels, value as f64),
                }
            }
        };
        put(&READ, &self.labels, now.read);
        put(&DELIVERED, &self.labels, now.delivered);
        put(&IN_FLIGHT, &self.labels, now.in_flight);
        put(&REWOUND, &self.labels, self.rewound.get());
        put(&OVERDRAWN, &self.labels, now.overdrawn);
        for (by, amount) in &now.filtered {
            put(&FILTERED, &with("by", by), *amount);
        }
        for (reason, amount) in &now.dropped {
            put(&DROPPED, &with("reason", reason), *amount);
        }
    }

    fn series(&self) -> usize {
        // Filters are added while building; what the limit needs is the order of magnitude.
        2 * (5 + 2 + self.reasons.len())
    }
}
