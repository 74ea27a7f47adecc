//! What a seed stands for: files, configuration, and what may go wrong.

use std::path::PathBuf;
use std::time::Duration;

use tailwater_pipeline::clock::Rng64;

use crate::dice::{one_of, stream};
use crate::disk::Journal;
use crate::lines::Format;
use crate::world::{LOG_DIR, TARGET_DIR};
use crate::writers::{LogPlan, Style};

/// Seeds from here on also rotate by copytruncate.
pub const COPYTRUNCATE_FROM: u64 = 1_000_000_000;

/// Seeds from here on, up to those with copytruncate, have a second destination that takes nothing.
pub const SECOND_FROM: u64 = 500_000_000;

/// Seeds from here on have a configuration that changes while the agent runs.
pub const RELOAD_FROM: u64 = 2_000_000_000;

/// The lowest rate of a stream, bytes per second; no line is longer than a second of it.
pub const RATE_BYTES: u64 = 6_000;
/// What a stream may take at once, bytes.
pub const BURST_BYTES: u64 = 8_000;

/// Chances of what happens to the agent, per ten thousand steps.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Blows {
    /// Killed between two steps.
    pub kill: u64,
    /// Killed in the middle of a call.
    pub kill_inside: u64,
    /// The power fails.
    pub power: u64,
    /// Stopped and started again.
    pub stop: u64,
    /// The wall clock jumps.
    pub clock: u64,
    /// Some kind of fault begins or ends.
    pub faults: u64,
    /// The configuration changes.
    pub reload: u64,
}

/// What may change in the configuration while the agent runs. By default it is as at the beginning.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The log of this writer is not selected.
    pub without: Option<u16>,
    /// Something stands before the operators that are always there.
    pub before: bool,
    /// Something stands behind them.
    pub behind: bool,
    /// Records begin where a line of a writer does, not at each line.
    pub multiline: bool,
    /// Reads are this much longer.
    pub longer: u64,
    /// Nothing goes to the second destination.
    pub alone: bool,
}

impl Shape {
    /// Any shape of a plan.
    pub fn any(rng: &mut Rng64, plan: &Plan) -> Shape {
        let log = rng.below(2 * plan.logs.len() as u64) as usize;
        // What a power cut tears is not put together by lines.
        let plain = plan.logs.iter().all(|l| l.format == Format::Plain);
        let may_join = plain && plan.blows.power == 0;
        Shape {
            without: plan.logs.get(log).map(|l| l.writer),
            before: rng.below(2) == 0,
            behind: rng.below(2) == 0,
            multiline: rng.below(3) == 0 && may_join,
            longer: one_of(rng, [0, 0, 100, 5_000]),
            alone: rng.below(2) == 0,
        }
    }
}

/// What Loki does not take although it is well.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LokiLimits {
    /// Entries this far behind the newest of their stream are refused.
    pub window: bool,
    /// Longer lines are refused, bytes; the agent is not told.
    pub line_bytes_max: Option<usize>,
    /// A stream's rate may be limited for a time.
    pub rate: bool,
    /// The agent is configured for the lowest rate.
    pub rate_known: bool,
    /// The number of streams is limited to one at first, and changes.
    pub streams: bool,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What a power cut leaves.
    pub journal: Journal,
    /// The file system has no birth times.
    pub no_birth: bool,
    /// What is read are symbolic links to the files.
    pub links: bool,
    /// The files.
    pub logs: Vec<LogPlan>,
    /// Steps with faults.
    pub steps: u64,
    /// Chance that somebody acts in the middle of a call of the agent, per thousand.
    pub interference: u64,
    /// What happens to the agent.
    pub blows: Blows,
    /// Reading logs may fail.
    pub disk_faults: bool,
    /// Saving positions may fail.
    pub state_faults: bool,
    /// The state's disk may be full.
    pub full_disk: bool,
    /// News may be late, and may be lost.
    pub news_faults: bool,
    /// Loki may fail.
    pub loki_faults: bool,
    /// What Loki refuses.
    pub limits: LokiLimits,
    /// The wall clock may be set anywhere, not only ahead by minutes. Loki has its own.
    pub wild_clock: bool,
    /// There is a second destination, which is down all the time.
    pub second: bool,
    /// Shards.
    pub shards: usize,
    /// `num_consumers`.
    pub consumers: usize,
    /// `queue_size`.
    pub queue_size: u64,
    /// `delivery: verified`.
    pub verified: bool,
    /// A `batch` processor stands in the chain.
    pub batch: bool,
    /// `open_files_max`.
    pub open_files_max: usize,
    /// `rescan_interval`.
    pub rescan: Duration,
    /// The log of the store is replaced above this size.
    pub log_bytes_min: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let below = |what, n| stream(seed, what).below(n);
        let one_in = |what, n| below(what, n) == 0;
        let mut blows = Blows {
            faults: 100,
            ..Blows::default()
        };
        match below("blows", 4) {
            0 => {}
            1 => (blows.kill, blows.kill_inside) = (20, 20),
            2 => (blows.power, blows.kill_inside) = (15, 10),
            _ => (blows.kill, blows.power, blows.stop) = (15, 10, 15),
        }
        if seed >= RELOAD_FROM {
            blows.reload = [20, 60, 200][below("reload", 3) as usize];
        }
        if one_in("clock", 8) {
            blows.clock = 20;
        }
        let limits = LokiLimits {
            window: one_in("window", 4),
            line_bytes_max: one_in("line length", 6).then_some(2_000),
            rate: one_in("rate", 5),
            rate_known: one_in("known rate", 2),
            streams: one_in("streams", 8),
        };
        let format = match one_in("format", 3) {
            true if limits.window => Format::OldCri,
            true => Format::Cri,
            false => Format::Plain,
        };
        let links = one_in("links", 6);
        let copies = (COPYTRUNCATE_FROM..RELOAD_FROM).contains(&seed);
        let logs = 0..1 + below("logs", 3) as u16;
        Plan {
            journal: [Journal::Ext4, Journal::Xfs, Journal::Loose][below("journal", 3) as usize],
            no_birth: one_in("birth times", 6) && format == Format::Plain,
            links,
            logs: logs.map(|i| log(seed, i, format, links, copies)).collect(),
            steps: 300 + below("steps", 500),
            interference: [0, 5, 20, 60][below("interference", 4) as usize],
            blows,
            disk_faults: one_in("disk faults", 3),
            state_faults: one_in("state faults", 5),
            full_disk: one_in("full disk", 6),
            news_faults: one_in("news", 3),
            loki_faults: !one_in("loki", 4),
            limits,
            wild_clock: one_in("wild clock", 4),
            second: match seed {
                RELOAD_FROM.. => one_in("second", 4),
                _ => (SECOND_FROM..COPYTRUNCATE_FROM).contains(&seed),
            },
            shards: 1 + below("shards", 2) as usize,
            consumers: 1 + below("consumers", 4) as usize,
            queue_size: [2, 8, 100][below("queue", 3) as usize],
            verified: one_in("verified", 3),
            batch: one_in("batch", 4),
            open_files_max: [2, 1024][below("open files", 2) as usize],
            rescan: Duration::from_secs(1 + below("rescan", 8)),
            log_bytes_min: [1 << 11, 1 << 20][below("state size", 2) as usize],
        }
    }

    /// The configuration of the agent in a shape.
    pub fn config(&self, shape: &Shape) -> String {
        let format = match self.logs.first().map(|l| l.format) {
            Some(f) if f.is_cri() => {
                "      - {type: container, format: containerd, add_metadata_from_filepath: false}\n"
            }
            _ => "",
        };
        format!(
            r#"receivers:
  file_log:
    include: ["{LOG_DIR}/*.log"]
{exclude}{multiline}    start_at: beginning
    initial_buffer_size: {read}
    compression: auto
    rescan_interval: {rescan}ms
    open_files_max: {open}
    operators:
{before}{format}      - {{type: regex_parser, regex: '^(?P<w>w\d+) ', on_error: send_quiet}}
{behind}processors:
  batch: {{timeout: 200ms, send_batch_size: 20}}
exporters:
  loki:
    endpoint: http://127.0.0.1:9/loki/api/v1/push
    delivery: {delivery}
    labels: {{static: {{job: sim}}, attributes: {{w: w}}}}
    sending_queue: {{queue_size: {queue}, num_consumers: {consumers}}}
{limits}"#,
            exclude = match shape.without {
                Some(writer) => format!("    exclude: [\"{LOG_DIR}/a{writer}.log\"]\n"),
                None => String::new(),
            },
            multiline = match shape.multiline {
                true => "    multiline: {line_start_pattern: '^w'}\n",
                false => "",
            },
            before = match shape.before {
                true => "      - {type: noop}\n",
                false => "",
            },
            behind = match shape.behind {
                true => "      - {type: add, field: attributes.shape, value: other}\n",
                false => "",
            },
            read = 4096 + shape.longer,
            rescan = self.rescan.as_millis(),
            open = self.open_files_max,
            delivery = if self.verified { "verified" } else { "probed" },
            queue = self.queue_size,
            consumers = self.consumers,
            limits = match self.limits.rate_known {
                true => format!(
                    "    limits: {{stream_rate_bytes: {RATE_BYTES}, stream_burst_bytes: {BURST_BYTES}}}\n"
                ),
                false => String::new(),
            },
        )
    }
}

fn log(seed: u64, writer: u16, format: Format, links: bool, copies: bool) -> LogPlan {
    let mut rng = stream(seed, ["log 0", "log 1", "log 2"][usize::from(writer % 3)]);
    let style = match rng.below(8) {
        0 => Style::Never,
        1 | 2 => Style::Numbered,
        3 | 4 => Style::Dated,
        5 => Style::Compressed,
        // A runtime that splits lines does not rotate like that: what is lost between copy and
        // truncation could be the end of a line.
        6 if copies && format == Format::Plain => Style::CopyTruncate,
        6 => Style::Dated,
        _ => Style::Delete,
    };
    let name = PathBuf::from(format!("{LOG_DIR}/a{writer}.log"));
    LogPlan {
        path: match links {
            true => PathBuf::from(format!("{TARGET_DIR}/a{writer}/0.log")),
            false => name.clone(),
        },
        link: links.then_some(name),
        writer,
        format,
        style,
        keep: one_of(&mut rng, [usize::MAX, usize::MAX, 1, 3]),
        rotations: one_of(&mut rng, [10, 50, 200]),
        late: rng.below(3) == 0,
        lines_max: 20 + rng.below(150) as u32,
    }
}
