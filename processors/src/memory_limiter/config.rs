//! The section of a `memory_limiter` processor.

use std::time::Duration;

use tailwater_config::Section;

const MIB: u64 = 1 << 20;
/// Largest number of MiB the collector's 32 bit options hold.
const MIB_MAX: u64 = u32::MAX as u64;

/// When sources pause, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimiterConfig {
    /// How often memory is measured at most.
    pub check_interval: Duration,
    /// The limit in MiB; 0 = use the percentage. Wins over it.
    pub limit_mib: u64,
    /// What the soft limit is below the hard one, in MiB; 0 = a fifth of it.
    pub spike_limit_mib: u64,
    /// The limit as a percentage of the memory this process may use.
    pub limit_percentage: u64,
    /// What the soft limit is below the hard one, as a percentage of the same; 0 = a fifth of it.
    pub spike_limit_percentage: u64,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("check_interval", "How often is looked. Required."),
    (
        "limit_mib",
        "The limit, in MiB. It or `limit_percentage` is required.",
    ),
    (
        "spike_limit_mib",
        "Sources pause this much below the limit; 0 means a fifth of it.",
    ),
    (
        "limit_percentage",
        "The limit, in percent of what the process may use (cgroup, else the machine).",
    ),
    (
        "spike_limit_percentage",
        "Sources pause this much below the limit; 0 means a fifth of it.",
    ),
    (
        "min_gc_interval_when_soft_limited",
        "Accepted with a warning: there is no garbage collector to run.",
    ),
    (
        "max_gc_interval_when_soft_limited",
        "Accepted with a warning: there is no garbage collector to run.",
    ),
    (
        "min_gc_interval_when_hard_limited",
        "Accepted with a warning: there is no garbage collector to run.",
    ),
    (
        "max_gc_interval_when_hard_limited",
        "Accepted with a warning: there is no garbage collector to run.",
    ),
];

impl MemoryLimiterConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> MemoryLimiterConfig {
        s.describe(OPTIONS);
        let before = s.errors().len();
        let config = MemoryLimiterConfig {
            check_interval: s.duration("check_interval", Duration::ZERO),
            limit_mib: s.u64("limit_mib", 0, ..=MIB_MAX),
            spike_limit_mib: s.u64("spike_limit_mib", 0, ..=MIB_MAX),
            limit_percentage: s.u64("limit_percentage", 0, ..=100),
            spike_limit_percentage: s.u64("spike_limit_percentage", 0, ..=100),
        };
        decode_gc_intervals(s);
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
    }

    /// From how many bytes on sources pause, given what the process may use. `None` if that is
    /// needed and not known.
    pub fn soft_limit_bytes(&self, total_bytes: Option<u64>) -> Option<u64> {
        let (hard, spike) = if self.limit_mib > 0 {
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
        let spike = if spike == 0 { hard / 5 } else { spike };
        Some(hard.saturating_sub(spike))
    }
}

/// How often the collector may force its garbage collector. This agent has none, and its allocator
/// gives memory back by itself; so the values only have to be right.
fn decode_gc_intervals(s: &mut Section<'_, '_>) {
    let seconds = Duration::from_secs;
    let mut read = |key, default| {
        if s.has(key) {
            s.warn(key, "has no effect: there is no garbage collector to run");
        }
        s.duration(key, default)
    };
    let soft_min = read("min_gc_interval_when_soft_limited", seconds(10));
    let hard_min = read("min_gc_interval_when_hard_limited", seconds(0));
    let soft_max = read("max_gc_interval_when_soft_limited", seconds(30));
    let hard_max = read("max_gc_interval_when_hard_limited", seconds(30));
    if soft_min < hard_min {
        s.invalid(
            "min_gc_interval_when_soft_limited",
            "must not be smaller than min_gc_interval_when_hard_limited",
        );
    }
    // Defaults give way: a longer least time with the default largest one is no mistake.
    for (key, max, min) in [
        ("max_gc_interval_when_soft_limited", soft_max, soft_min),
        ("max_gc_interval_when_hard_limited", hard_max, hard_min),
    ] {
        if s.has(key) && max < min {
            s.invalid(key, "must not be smaller than the least interval");
        }
    }
}
