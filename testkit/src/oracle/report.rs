//! What the oracle says.

use std::ops::Range;

/// One file of a writer, by the name it had when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The name given to [`super::DeliveryOracle::announce`]. Files that arrived whole may be
    /// left out when a writer had thousands.
    pub file: String,
    /// Lines confirmed.
    pub written: u64,
    /// Those of them that did not arrive.
    pub missing: u64,
}

/// The part of one stream that came from one writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// Its tenant.
    pub tenant: String,
    /// Its canonical label string.
    pub labels: String,
    /// Lines that arrived here first.
    pub delivered: u64,
    /// Lines that arrived after one with a higher number; repeats are not counted.
    pub out_of_order: u64,
}

/// Everything about one writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterReport {
    /// Its number.
    pub writer: u32,
    /// Lines confirmed. `written = delivered + missing` holds always.
    pub written: u64,
    /// Those of them that arrived, repeats counted once.
    pub delivered: u64,
    /// Those of them that did not.
    pub missing: u64,
    /// The part of `missing` that no file holds any longer.
    pub missing_removed: u64,
    /// The first ranges of missing numbers, at most 16.
    pub missing_ranges: Vec<Range<u64>>,
    /// Deliveries beyond the first of a line.
    pub duplicates_raw: u64,
    /// Those of them that Loki would show, for stream, time or metadata differ.
    pub duplicates_after_dedup: u64,
    /// Those of them whose first form the oracle no longer remembered.
    pub duplicates_unclassified: u64,
    /// Sum over the streams.
    pub out_of_order: u64,
    /// Lines in more streams than the oracle follows the order of.
    pub order_unchecked: u64,
    /// Deliveries of cut or altered lines.
    pub corrupt: u64,
    /// Deliveries of lines that were never announced.
    pub phantom: u64,
    /// By file.
    pub files: Vec<FileReport>,
    /// By stream, sorted.
    pub streams: Vec<StreamReport>,
}

/// Sums over all writers; each field as in [`WriterReport`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lines confirmed.
    pub written: u64,
    /// Lines that arrived.
    pub delivered: u64,
    /// Lines that did not.
    pub missing: u64,
    /// Missing lines no file holds any longer.
    pub missing_removed: u64,
    /// Deliveries beyond the first of a line.
    pub duplicates_raw: u64,
    /// Repeats that Loki would show.
    pub duplicates_after_dedup: u64,
    /// Repeats of which that is not known.
    pub duplicates_unclassified: u64,
    /// Lines after one with a higher number.
    pub out_of_order: u64,
    /// Cut or altered lines.
    pub corrupt: u64,
    /// Lines never announced.
    pub phantom: u64,
}

impl Totals {
    pub(super) fn of(writers: &[WriterReport]) -> Self {
        let mut totals = Self::default();
        for writer in writers {
            totals.written += writer.written;
            totals.delivered += writer.delivered;
            totals.missing += writer.missing;
            totals.missing_removed += writer.missing_removed;
            totals.duplicates_raw += writer.duplicates_raw;
            totals.duplicates_after_dedup += writer.duplicates_after_dedup;
            totals.duplicates_unclassified += writer.duplicates_unclassified;
            totals.out_of_order += writer.out_of_order;
            totals.corrupt += writer.corrupt;
            totals.phantom += writer.phantom;
        }
        totals
    }

    /// Missing lines that a file still holds, or held until it was delivered.
    pub fn missing_readable(&self) -> u64 {
        self.missing - self.missing_removed
    }
}

/// The whole state of an oracle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OracleReport {
    /// Sums.
    pub totals: Totals,
    /// By writer, sorted.
    pub writers: Vec<WriterReport>,
    /// Entries without a message in them.
    pub foreign: u64,
    /// Entries that name a writer which never announced anything.
    pub unknown: u64,
}

impl OracleReport {
    /// Nothing missing, repeated in a way Loki shows, damaged or invented. Repeats that Loki
    /// removes are allowed, and the order is not judged.
    pub fn is_faultless(&self) -> bool {
        let t = &self.totals;
        let faults = t.missing
            + t.duplicates_after_dedup
            + t.duplicates_unclassified
            + t.corrupt
            + t.phantom
            + self.foreign
            + self.unknown;
        faults == 0
    }
}

/// What the product itself says about lines that did not arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounted {
    /// Filtered by configuration.
    pub filtered: u64,
    /// Dropped or refused for a named reason.
    pub dropped: u64,
    /// Read and not resolved yet.
    pub in_flight: u64,
    /// Not read yet.
    pub unread: u64,
}

/// Written lines against the account given of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Lines confirmed.
    pub written: u64,
    /// Lines that arrived.
    pub delivered: u64,
    /// Lines that did not, because no file held them any longer, or for another reason.
    pub missing: u64,
    /// Sum of the account.
    pub accounted: u64,
    /// Missing lines without an explanation: positive is silent loss. Negative is an account that
    /// claims more losses than there are.
    pub unexplained: i64,
}

impl Balance {
    pub(super) fn of(totals: &Totals, accounted: &Accounted) -> Self {
        let sum = accounted.filtered + accounted.dropped + accounted.in_flight + accounted.unread;
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            written: totals.written,
            delivered: totals.delivered,
            missing: totals.missing,
            accounted: sum,
            unexplained: signed(totals.missing).saturating_sub(signed(sum)),
        }
    }

    /// Whether every missing line is accounted for, and nothing else.
    pub fn is_exact(&self) -> bool {
        self.unexplained == 0
    }
}
