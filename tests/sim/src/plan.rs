//! What a seed stands for: files, configuration, and what may go wrong.

use std::path::PathBuf;
use std::time::Duration;

use tailwater_pipeline::clock::Rng64;

use crate::disk::Journal;
use crate::lines::Format;
use crate::world::LOG_DIR;
use crate::writers::{LogPlan, Style};

/// Seeds from here on also rotate by copytruncate. Not all of those hold yet: of copies of less
/// than 4 KiB that are made within a second, some are read again.
pub const COPYTRUNCATE_FROM: u64 = 1_000_000_000;

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
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What a power cut leaves.
    pub journal: Journal,
    /// The file system has no birth times.
    pub no_birth: bool,
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
        let mut rng = Rng64::new(seed);
        let rng = &mut rng;
        let one_in = |rng: &mut Rng64, n| rng.below(n) == 0;
        let journal = match rng.below(3) {
            0 => Journal::Ext4,
            1 => Journal::Xfs,
            _ => Journal::Loose,
        };
        let mut blows = Blows {
            faults: 100,
            ..Blows::default()
        };
        match rng.below(4) {
            0 => {}
            1 => (blows.kill, blows.kill_inside) = (20, 20),
            2 => (blows.power, blows.kill_inside) = (15, 10),
            _ => (blows.kill, blows.power, blows.stop) = (15, 10, 15),
        }
        if one_in(rng, 8) {
            blows.clock = 20;
        }
        let format = match rng.below(3) {
            0 => Format::Cri,
            _ => Format::Plain,
        };
        if format == Format::Cri {
            // What a power cut leaves of split lines is joined at random by any reader.
            (blows.kill, blows.power) = (blows.kill + blows.power, 0);
        }
        let copies = seed >= COPYTRUNCATE_FROM;
        let logs = (0..1 + rng.below(3)).map(|i| log(rng, i as u16, format, copies));
        let logs = logs.collect();
        Plan {
            journal,
            no_birth: one_in(rng, 6) && format == Format::Plain,
            logs,
            steps: 300 + rng.below(500),
            interference: [0, 5, 20, 60][rng.below(4) as usize],
            blows,
            // A file that cannot be read holds nobody up: the pieces of a line may meet others.
            disk_faults: one_in(rng, 3) && format == Format::Plain,
            state_faults: one_in(rng, 5),
            full_disk: one_in(rng, 6),
            news_faults: one_in(rng, 3),
            loki_faults: !one_in(rng, 4),
            shards: 1 + rng.below(2) as usize,
            consumers: 1 + rng.below(4) as usize,
            queue_size: [2, 8, 100][rng.below(3) as usize],
            verified: one_in(rng, 3),
            batch: one_in(rng, 4),
            open_files_max: [16, 1024][rng.below(2) as usize],
            rescan: Duration::from_secs(1 + rng.below(8)),
            log_bytes_min: [1 << 11, 1 << 20][rng.below(2) as usize],
        }
    }

    /// The configuration of the agent.
    pub fn config(&self) -> String {
        let format = match self.logs.first().map(|l| l.format) {
            Some(Format::Cri) => {
                "      - {type: container, format: containerd, add_metadata_from_filepath: false}\n"
            }
            _ => "",
        };
        format!(
            r#"receivers:
  file_log:
    include: ["{LOG_DIR}/*.log"]
    start_at: beginning
    initial_buffer_size: 4096
    compression: auto
    rescan_interval: {rescan}ms
    open_files_max: {open}
    operators:
{format}      - {{type: regex_parser, regex: '^(?P<w>w\d+) ', on_error: send_quiet}}
processors:
  batch: {{timeout: 200ms, send_batch_size: 20}}
exporters:
  loki:
    endpoint: http://127.0.0.1:9/loki/api/v1/push
    delivery: {delivery}
    labels: {{static: {{job: sim}}, attributes: {{w: w}}}}
    sending_queue: {{queue_size: {queue}, num_consumers: {consumers}}}
"#,
            rescan = self.rescan.as_millis(),
            open = self.open_files_max,
            delivery = if self.verified { "verified" } else { "probed" },
            queue = self.queue_size,
            consumers = self.consumers,
        )
    }
}

fn log(rng: &mut Rng64, writer: u16, format: Format, copies: bool) -> LogPlan {
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
    LogPlan {
        path: PathBuf::from(format!("{LOG_DIR}/a{writer}.log")),
        writer,
        format,
        style,
        keep: [usize::MAX, usize::MAX, 1, 3][rng.below(4) as usize],
        rotations: [10, 50, 200][rng.below(3) as usize],
        late: rng.below(3) == 0,
        lines_max: 20 + rng.below(150) as u32,
    }
}
