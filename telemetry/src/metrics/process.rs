//! What the operating system says about this process. Read at every scrape, from Linux' `/proc`
//! (proc_pid_stat(5), proc_pid_status(5)); elsewhere only the uptime is shown.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::family::{Collect, Family, Gather, Kind, Labels, Level, Unit};
use super::group::AnyGroup;
use super::registry::MetricsRegistry;

/// Clock ticks per second of `/proc/self/stat` where the kernel does not say: Linux' `USER_HZ`.
const TICKS_PER_SECOND_DEFAULT: u64 = 100;
/// Type of the auxiliary vector's entry that holds the clock ticks (getauxval(3)).
const AT_CLKTCK: u64 = 17;

/// Memory and processor time of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// User and system time of all threads so far.
    pub cpu_seconds: f64,
    /// Resident memory: what a container's limit counts, without the page cache.
    pub rss_bytes: u64,
    /// Resident anonymous memory: heap and stacks.
    pub anonymous_bytes: u64,
    /// Memory that is allocated and not freed, where the allocator says so; else resident anonymous memory.
    pub heap_bytes: u64,
    /// Address space in use.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// Asks the allocator for the bytes that are allocated and not freed.
type HeapReader = fn() -> Option<u64>;

/// Set by a program whose allocator counts.
static HEAP_READER: OnceLock<HeapReader> = OnceLock::new();

impl ProcessUsage {
    /// From now on `read` says what is allocated and not freed, in bytes. The first that is given counts.
    pub fn count_heap_by(read: fn() -> Option<u64>) {
        let _ = HEAP_READER.set(read);
    }

    /// The present usage; `None` where the operating system does not say.
    pub fn read() -> Option<ProcessUsage> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let auxv = std::fs::read("/proc/self/auxv").unwrap_or_default();
        let mut usage = ProcessUsage::parse(&stat, &status, ticks_per_second(&auxv))?;
        if let Some(bytes) = HEAP_READER.get().and_then(|read| read()) {
            usage.heap_bytes = bytes;
        }
        Some(usage)
    }

    fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<ProcessUsage> {
        // The second field is the program's name in brackets and may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let (user, system, threads) = (field(14)?, field(15)?, field(20)?);
        let line = |name: &str| {
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<u64>()
                .ok()
                .map(|kib| kib * 1024)
        };
        let anonymous_bytes = line("RssAnon").unwrap_or(0);
        Some(ProcessUsage {
            cpu_seconds: (user + system) as f64 / ticks_per_second as f64,
            rss_bytes: line("VmRSS")?,
            anonymous_bytes,
            heap_bytes: anonymous_bytes,
            virtual_bytes: line("VmSize").unwrap_or(0),
            threads,
        })
    }
}

/// The clock ticks out of the auxiliary vector, pairs of machine words.
fn ticks_per_second(auxv: &[u8]) -> u64 {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| {
        let mut le = [0; WORD];
        le.copy_from_slice(&bytes[..WORD]);
        usize::from_ne_bytes(le) as u64
    };
    let mut pairs = auxv
        .chunks_exact(2 * WORD)
        .map(|pair| (word(pair), word(&pair[WORD..])));
    let found = pairs
        .find(|(kind, _)| *kind == AT_CLKTCK)
        .map(|(_, value)| value);
    found
        .filter(|ticks| *ticks > 0)
        .unwrap_or(TICKS_PER_SECOND_DEFAULT)
}

const fn family(name: &'static str, help: &'static str, kind: Kind, unit: Unit) -> Family {
    Family {
        name,
        help,
        kind,
        unit,
        level: Level::Basic,
    }
}

/// The metrics of the process.
pub(crate) const PROCESS_FAMILIES: &[Family] = &[
    family(
        "otelcol_process_uptime",
        "Time since the process started.",
        Kind::Counter,
        Unit::Seconds,
    ),
    family(
        "otelcol_process_cpu_seconds",
        "User and system time of all threads.",
        Kind::Counter,
        Unit::Seconds,
    ),
    family(
        "otelcol_process_memory_rss",
        "Resident memory.",
        Kind::Gauge,
        Unit::Bytes,
    ),
    family(
        "otelcol_process_runtime_heap_alloc_bytes",
        "Memory that is allocated and not freed.",
        Kind::Gauge,
        Unit::Bytes,
    ),
    family(
        "otelcol_process_runtime_total_sys_memory_bytes",
        "Address space in use.",
        Kind::Gauge,
        Unit::Bytes,
    ),
    family(
        "tailwater_threads",
        "Threads of the process.",
        Kind::Gauge,
        Unit::Count,
    ),
];

const THREAD_CPU: Family = Family {
    name: "tailwater_thread_cpu_seconds",
    help: "User and system time of the living threads of a name.",
    kind: Kind::Counter,
    unit: Unit::Seconds,
    level: Level::Normal,
};

/// Every metric of this module.
pub(crate) fn families() -> impl Iterator<Item = &'static Family> {
    PROCESS_FAMILIES.iter().chain([&THREAD_CPU])
}

/// Thread names that are shown, at most.
const THREAD_NAMES_MAX: usize = 256;

/// Name and clock ticks of a thread, from its `stat`.
fn thread_ticks(stat: &str) -> Option<(&str, u64)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, fields) = rest.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((name, user + system))
}

/// Processor time by name of thread. A thread that ends meanwhile is left out.
fn thread_cpu_seconds() -> BTreeMap<String, f64> {
    let auxv = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let ticks_per_second = ticks_per_second(&auxv) as f64;
    let mut by_name = BTreeMap::new();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return by_name;
    };
    for task in tasks.flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        if let Some((name, ticks)) = thread_ticks(&stat)
            && (by_name.len() < THREAD_NAMES_MAX || by_name.contains_key(name))
        {
            *by_name.entry(name.to_owned()).or_default() += ticks as f64 / ticks_per_second;
        }
    }
    by_name
}

/// The series of the process itself.
#[derive(Debug)]
pub struct ProcessMetrics {
    started: Instant,
}

impl ProcessMetrics {
    /// Shows the process from now on; the uptime counts from the first call.
    pub fn new(registry: &MetricsRegistry) -> Arc<ProcessMetrics> {
        registry.group_with("ProcessMetrics", Vec::new(), |_| ProcessMetrics {
            started: Instant::now(),
        })
    }
}

impl AnyGroup for ProcessMetrics {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Collect for ProcessMetrics {
    fn collect(&self, out: &mut Gather) {
        let mut values = vec![self.started.elapsed().as_secs_f64()];
        if let Some(usage) = ProcessUsage::read() {
            values.extend([
                usage.cpu_seconds,
                usage.rss_bytes as f64,
                usage.heap_bytes as f64,
                usage.virtual_bytes as f64,
                usage.threads as f64,
            ]);
        }
        let labels = Labels::new();
        for (family, value) in PROCESS_FAMILIES.iter().zip(values) {
            match family.kind {
                Kind::Counter => out.counter(family, &labels, value),
                _ => out.gauge(family, &labels, value),
            }
        }
        if out.shows(THREAD_CPU.level) {
            for (name, seconds) in thread_cpu_seconds() {
                out.counter(&THREAD_CPU, &vec![("thread", name)], seconds);
            }
        }
    }

    fn series(&self) -> usize {
        PROCESS_FAMILIES.len() + THREAD_NAMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 100 200 300";
        let status = "Name:\ta\nVmSize:\t  2048 kB\nVmRSS:\t   1024 kB\nRssAnon:\t 512 kB\n";
        let usage = ProcessUsage::parse(stat, status, 100).unwrap();
        assert_eq!(
            usage,
            ProcessUsage {
                cpu_seconds: 3.0,
                rss_bytes: 1 << 20,
                anonymous_bytes: 512 << 10,
                heap_bytes: 512 << 10,
                virtual_bytes: 2 << 20,
                threads: 9,
            }
        );
        assert_eq!(ProcessUsage::parse("", status, 100), None);
        assert_eq!(ProcessUsage::parse("7 (x", status, 100), None);
        assert_eq!(ProcessUsage::parse(stat, "VmRSS: lots", 100), None);
    }

    #[test]
    fn a_threads_time_is_user_and_system_time_under_its_name() {
        let stat = "8 (find-a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 100 2 3";
        assert_eq!(thread_ticks(stat), Some(("find-a (b) c", 300)));
        for bad in [
            "",
            "8 (x",
            "8 (x) S 1",
            "8 (x) S 1 7 7 0 -1 41 1 2 3 4 a 50",
        ] {
            assert_eq!(thread_ticks(bad), None, "{bad}");
        }
    }

    #[test]
    fn clock_ticks_come_from_the_auxiliary_vector() {
        let words = [3_usize, 9, 17, 250, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(ticks_per_second(&bytes), 250);
        assert_eq!(ticks_per_second(&bytes[..5]), 100);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_threads() {
        let usage = ProcessUsage::read().unwrap();
        assert!(usage.rss_bytes > 0 && usage.threads > 0);
        let registry = MetricsRegistry::default();
        let _process = ProcessMetrics::new(&registry);
        let text = registry.render();
        assert!(
            text.contains("\ntailwater_thread_cpu_seconds{thread=\""),
            "{text}"
        );
        for family in PROCESS_FAMILIES {
            assert!(
                text.contains(&format!("\n{} ", family.name)),
                "{} missing",
                family.name
            );
        }
    }
}
