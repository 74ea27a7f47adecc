//! The section of a `memory_limiter` processor.

use std::time::Duration;

use tailwater_config::Section;

use super::{Intervals, Limits};

const MIB: u64 = 1 << 20;
/// Largest number of MiB the collector's 32 bit options hold.
const MIB_MAX: u64 = u32::MAX as u64;

/// When sources pause, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimiterConfig {
    /// How often memory is measured at most.
    pub check_interval: Duration,
    /// The hard limit in MiB; 0 = use the percentage. Wins over it.
    pub limit_mib: u64,
    /// What the soft limit is below the hard one, in MiB; 0 = a fifth of it.
    pub spike_limit_mib: u64,
    /// The hard limit as a percentage of the memory this process may use.
    pub limit_percentage: u64,
    /// What the soft limit is below the hard one, as a percentage of the same; 0 = a fifth of it.
    pub spike_limit_percentage: u64,
    /// Least time between two requests to the allocator to give memory back, above the soft
    /// limit. (The collector has a garbage collector there; this agent has none.)
    pub min_gc_interval_when_soft_limited: Duration,
    /// The same above the hard limit.
    pub min_gc_interval_when_hard_limited: Duration,
    /// What that time grows to at most while such requests achieve nothing, above the soft limit.
    pub max_gc_interval_when_soft_limited: Duration,
    /// The same above the hard limit.
    pub max_gc_interval_when_hard_limited: Duration,
}

impl MemoryLimiterConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> MemoryLimiterConfig {
        let before = s.errors().len();
        let config = MemoryLimiterConfig {
            check_interval: s.duration("check_interval", Duration::ZERO),
            limit_mib: s.u64("limit_mib", 0, ..=MIB_MAX),
            spike_limit_mib: s.u64("spike_limit_mib", 0, ..=MIB_MAX),
            limit_percentage: s.u64("limit_percentage", 0, ..=100),
            spike_limit_percentage: s.u64("spike_limit_percentage", 0, ..=100),
            min_gc_interval_when_soft_limited: s
                .duration("min_gc_interval_when_soft_limited", Duration::from_secs(10)),
            min_gc_interval_when_hard_limited: s
                .duration("min_gc_interval_when_hard_limited", Duration::ZERO),
            max_gc_interval_when_soft_limited: s
                .duration("max_gc_interval_when_soft_limited", Duration::from_secs(30)),
            max_gc_interval_when_hard_limited: s
                .duration("max_gc_interval_when_hard_limited", Duration::from_secs(30)),
        };
        // How options fit together says nothing about one that could not be read.
        if s.errors().len() == before {
            config.check(s);
        }
        config
    }

    fn check(&self, s: &mut Section<'_, '_>) {
        if self.check_interval.is_zero() {
            s.invalid("check_interval", "must be specified and greater than zero");
        }
        if self.limit_mib == 0 && self.limit_percentage == 0 {
            s.error("limit_mib or limit_percentage must be specified and greater than zero");
        }
        if self.limit_mib > 0 && self.spike_limit_mib >= self.limit_mib {
            s.invalid("spike_limit_mib", "must be smaller than limit_mib");
        }
        if self.limit_percentage > 0 && self.spike_limit_percentage >= self.limit_percentage {
            s.invalid(
                "spike_limit_percentage",
                "must be smaller than limit_percentage",
            );
        }
        let (soft, hard) = (
            self.min_gc_interval_when_soft_limited,
            self.min_gc_interval_when_hard_limited,
        );
        if soft < hard {
            s.invalid(
                "min_gc_interval_when_soft_limited",
                "must not be smaller than min_gc_interval_when_hard_limited",
            );
        }
        // Defaults give way: a longer least time with the default largest one is no mistake.
        for (key, max, min) in [
            (
                "max_gc_interval_when_soft_limited",
                self.max_gc_interval_when_soft_limited,
                soft,
            ),
            (
                "max_gc_interval_when_hard_limited",
                self.max_gc_interval_when_hard_limited,
                hard,
            ),
        ] {
            if s.has(key) && max < min {
                s.invalid(key, "must not be smaller than the least interval");
            }
        }
    }

    /// The limits in bytes, given what the process may use. `None` if that is needed and not
    /// known.
    pub fn limits(&self, total_bytes: Option<u64>) -> Option<Limits> {
        let (hard_bytes, spike) = if self.limit_mib > 0 {
            (self.limit_mib * MIB, self.spike_limit_mib * MIB)
        } else {
            let total = total_bytes?;
            let share = |percentage: u64| {
                u64::try_from(u128::from(total) * u128::from(percentage) / 100).unwrap_or(u64::MAX)
            };
            (
                share(self.limit_percentage),
                share(self.spike_limit_percentage),
            )
        };
        let spike = if spike == 0 { hard_bytes / 5 } else { spike };
        Some(Limits {
            hard_bytes,
            soft_bytes: hard_bytes.saturating_sub(spike),
        })
    }

    /// The times between measurements and requests.
    pub fn intervals(&self) -> Intervals {
        let soft = self.min_gc_interval_when_soft_limited;
        let hard = self.min_gc_interval_when_hard_limited;
        Intervals {
            check: self.check_interval,
            reclaim_soft: soft..=self.max_gc_interval_when_soft_limited.max(soft),
            reclaim_hard: hard..=self.max_gc_interval_when_hard_limited.max(hard),
        }
    }
}
