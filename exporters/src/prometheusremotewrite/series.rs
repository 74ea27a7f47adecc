//! Series of one batch: what the translator fills and the encoders read.

use super::symbols::{Symbol, Symbols};

/// Parts into which series are divided by a hash of their labels, to keep the order of each.
pub(super) const LANES: usize = 256;
/// Samples, or labels, whose memory is kept for the next batch.
const KEPT_MAX: usize = 1 << 18;
/// End of a chain.
const NONE: u32 = u32::MAX;
/// Spreads bits: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// Slots of an empty table; a power of two.
const SLOTS_MIN: usize = 256;

/// A label: name and value.
pub(super) type Label = (Symbol, Symbol);

/// Type of a metric in metadata; numbers as on the wire of both versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum MetricType {
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    Summary = 5,
}

/// What a metric is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Family {
    pub name: Symbol,
    pub kind: MetricType,
    pub help: Symbol,
    pub unit: Symbol,
}

/// One value of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// In ms since the epoch.
    pub time: i64,
    /// When counting began, in ms; 0 = not known.
    pub start: i64,
    pub value: Value,
    next: u32,
}

/// A number, or where in [`Collected::native`] a histogram is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Number(f64),
    Native { from: u32, len: u32 },
}

/// A measurement that stands for others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    pub value: f64,
    /// In ms since the epoch.
    pub time: i64,
    labels: (u32, u32),
    next: u32,
}

/// A series with what the batch has of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    labels: (u32, u32),
    pub family: u32,
    pub lane: u8,
    native: bool,
    ordered: bool,
    first: u32,
    last: u32,
    exemplars: u32,
    last_exemplar: u32,
}

/// The series of a batch. Everything is in a few vectors that are used again.
#[derive(Default)]
pub(super) struct Collected {
    pub series: Vec<Series>,
    pub families: Vec<Family>,
    /// Bodies of native histograms as protobuf messages, without their times.
    pub native: Vec<u8>,
    /// The series that each point counts with, and the part of the batch that the point is from.
    pub homes: Vec<(u32, u32)>,
    labels: Vec<Label>,
    samples: Vec<Sample>,
    exemplars: Vec<Exemplar>,
    /// Number of a series plus one; 0 = free.
    slots: Vec<u32>,
    hashes: Vec<u64>,
}

impl Collected {
    /// Forgets everything. Memory is used again, but not that of an unusually large batch.
    pub fn clear(&mut self) {
        let kept = self.samples.capacity().max(self.labels.capacity());
        if kept > KEPT_MAX || self.native.capacity() > KEPT_MAX * size_of::<Sample>() {
            *self = Collected::default();
            return;
        }
        self.series.clear();
        self.families.clear();
        self.native.clear();
        self.homes.clear();
        self.labels.clear();
        self.samples.clear();
        self.exemplars.clear();
        self.hashes.clear();
        self.slots.clear();
    }

    /// The series with these labels, which are sorted by name and have no repeats. A series holds
    /// numbers or native histograms, not both.
    pub fn series(&mut self, labels: &[Label], native: bool, family: u32, lane: u8) -> u32 {
        if self.slots.len() < 2 * (self.series.len() + 1) {
            self.grow();
        }
        let mut hash = u64::from(native);
        for (name, value) in labels {
            let pair = u64::from(*name) << 32 | u64::from(*value);
            hash = (hash.rotate_left(23) ^ pair).wrapping_mul(MULTIPLIER);
        }
        // The slot is taken from the low bits, which mix least.
        let hash = hash ^ hash >> 32;
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != 0 {
            let index = self.slots[at] - 1;
            let known = &self.series[index as usize];
            if self.hashes[index as usize] == hash
                && known.native == native
                && self.labels_at(known.labels) == labels
            {
                return index;
            }
            at = (at + 1) & mask;
        }
        let index = self.series.len() as u32;
        self.slots[at] = index + 1;
        self.hashes.push(hash);
        let labels = self.put_labels(labels);
        self.series.push(Series {
            labels,
            family,
            lane,
            native,
            ordered: true,
            first: NONE,
            last: NONE,
            exemplars: NONE,
            last_exemplar: NONE,
        });
        index
    }

    fn grow(&mut self) {
        let slots = (2 * self.slots.len()).max(SLOTS_MIN);
        self.slots.clear();
        self.slots.resize(slots, 0);
        for (index, hash) in self.hashes.iter().enumerate() {
            let mut at = *hash as usize & (slots - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (slots - 1);
            }
            self.slots[at] = index as u32 + 1;
        }
    }

    fn put_labels(&mut self, labels: &[Label]) -> (u32, u32) {
        let from = self.labels.len() as u32;
        self.labels.extend_from_slice(labels);
        (from, labels.len() as u32)
    }

    fn labels_at(&self, (from, len): (u32, u32)) -> &[Label] {
        &self.labels[from as usize..][..len as usize]
    }

    /// Appends a value to a series.
    pub fn push(&mut self, series: u32, time: i64, start: i64, value: Value) {
        let index = self.samples.len() as u32;
        self.samples.push(Sample {
            time,
            start,
            value,
            next: NONE,
        });
        let s = &mut self.series[series as usize];
        match std::mem::replace(&mut s.last, index) {
            NONE => s.first = index,
            last => {
                let last = &mut self.samples[last as usize];
                last.next = index;
                s.ordered &= last.time <= time;
            }
        }
    }

    /// Appends an exemplar to a series.
    pub fn push_exemplar(&mut self, series: u32, value: f64, time: i64, labels: &[Label]) {
        let index = self.exemplars.len() as u32;
        let labels = self.put_labels(labels);
        self.exemplars.push(Exemplar {
            value,
            time,
            labels,
            next: NONE,
        });
        let s = &mut self.series[series as usize];
        match std::mem::replace(&mut s.last_exemplar, index) {
            NONE => s.exemplars = index,
            last => self.exemplars[last as usize].next = index,
        }
    }

    /// The labels of a series.
    pub fn labels(&self, series: &Series) -> &[Label] {
        self.labels_at(series.labels)
    }

    /// The samples of a series, oldest first; those of one time in the order they came.
    pub fn each_sample(&self, series: &Series, mut each: impl FnMut(&Sample)) {
        let mut at = series.first;
        let samples = std::iter::from_fn(|| {
            let sample = self.samples.get(at as usize)?;
            at = sample.next;
            Some(sample)
        });
        if series.ordered {
            return samples.for_each(each);
        }
        let mut sorted: Vec<&Sample> = samples.collect();
        sorted.sort_by_key(|s| s.time);
        sorted.into_iter().for_each(&mut each);
    }

    /// The exemplars of a series and their labels.
    pub fn exemplars(&self, series: &Series) -> impl Iterator<Item = (&Exemplar, &[Label])> {
        let mut at = series.exemplars;
        std::iter::from_fn(move || {
            let exemplar = self.exemplars.get(at as usize)?;
            at = exemplar.next;
            Some((exemplar, self.labels_at(exemplar.labels)))
        })
    }

    /// True if the last sample of a series is of that time.
    pub fn ends_at(&self, series: u32, time: i64) -> bool {
        let last = self.series[series as usize].last;
        self.samples
            .get(last as usize)
            .is_some_and(|s| s.time == time)
    }
}

/// The lane of what has these labels.
pub(super) fn lane(symbols: &Symbols, name: Symbol, labels: &[Label]) -> u8 {
    let mut hash = symbols.hash(name);
    for (name, value) in labels {
        let pair = symbols.hash(*name).rotate_left(17) ^ symbols.hash(*value);
        hash = (hash ^ pair).wrapping_mul(MULTIPLIER).rotate_left(23);
    }
    (hash >> 56) as u8
}

const _: () = assert!(LANES == 1 << u8::BITS);
