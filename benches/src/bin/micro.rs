//! ns per line of the hottest functions: the snappy encoder against the `snap` crate, and the
//! reading of container lines into columns against the shortest parser of the floor.
//!
//! CPU time of this thread, the best and the median of several passes over the same text.

use std::hint::black_box;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use tailwater_benches::content::{Content, Format, text};
use tailwater_benches::cri;
use tailwater_benches::report::{median, table};
use tailwater_config::{KeyPath, MemoryEnvironment};
use tailwater_exporters::snappy::{Encoder, FRAGMENT_BYTES};
use tailwater_pdata::LogsBatch;
use tailwater_receivers::operators::{BuildCx, Chain, OperatorCx};

/// Bytes of lines per batch, as a read gives them.
const BATCH_BYTES: usize = 64 << 10;

/// ns per line of the hottest functions.
#[derive(Parser)]
struct Options {
    /// MiB of text.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// Passes over it.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    for format in [Format::Cri, Format::Plain] {
        let (text, content) = text(format, (options.mib as usize) << 20);
        println!(
            "{format:?}: {} MB, {} lines",
            content.file_bytes / 1_000_000,
            content.messages
        );
        let mut bench = Bench {
            content,
            passes: options.passes,
            rows: Vec::new(),
        };
        bench.snappy(&text)?;
        bench.split(&text)?;
        if format == Format::Cri {
            bench.cri(&text)?;
        }
        let head = [
            "function",
            "ns/line (best)",
            "ns/line (median)",
            "MB/s (median)",
            "ratio",
        ];
        print!("{}", table(&head, &bench.rows));
    }
    Ok(())
}

struct Bench {
    content: Content,
    passes: u32,
    rows: Vec<Vec<String>>,
}

impl Bench {
    /// Measures `pass` and adds a row. The ratio says how many times as fast as `reference` (ns per
    /// line) it is. Gives back the median in ns per line.
    fn measure(
        &mut self,
        name: &str,
        reference: Option<f64>,
        mut pass: impl FnMut() -> Result<()>,
    ) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..self.passes {
            let start = thread_cpu_ns();
            pass()?;
            times.push((thread_cpu_ns() - start) as f64 / self.content.messages as f64);
        }
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        let median = median(times);
        let line_bytes = self.content.file_bytes as f64 / self.content.messages as f64;
        self.rows.push(vec![
            name.to_owned(),
            format!("{best:.1}"),
            format!("{median:.1}"),
            format!("{:.0}", line_bytes / median * 1e3),
            reference.map_or("1.00".into(), |r| format!("{:.2}", r / median)),
        ]);
        Ok(median)
    }

    fn snappy(&mut self, text: &[u8]) -> Result<()> {
        let mut block = vec![0; snap::raw::max_compress_len(FRAGMENT_BYTES)];
        let mut encoder = snap::raw::Encoder::new();
        let mut by_snap = 0;
        let reference = self.measure("snappy, the snap crate", None, || {
            by_snap = 0;
            for fragment in text.chunks(FRAGMENT_BYTES) {
                by_snap += encoder.compress(fragment, &mut block)?;
            }
            Ok(())
        })?;
        let mut encoder = Encoder::default();
        let mut out = Vec::new();
        let mut by_us = 0;
        self.measure("snappy, tailwater", Some(reference), || {
            by_us = 0;
            for fragment in text.chunks(FRAGMENT_BYTES) {
                out.clear();
                encoder.append(fragment, &mut out);
                by_us += out.len();
            }
            Ok(())
        })?;
        let ratio = |n: usize| text.len() as f64 / n.max(1) as f64;
        println!(
            "compressed {:.2} : 1 by snap, {:.2} : 1 by tailwater",
            ratio(by_snap),
            ratio(by_us)
        );
        Ok(())
    }

    fn split(&mut self, text: &[u8]) -> Result<()> {
        self.measure("split into lines", None, || {
            black_box(memchr::memchr_iter(b'\n', black_box(text)).fold(0, |a, i| a ^ i));
            Ok(())
        })?;
        Ok(())
    }

    fn cri(&mut self, text: &[u8]) -> Result<()> {
        let reference = self.measure("split and parse, floor", None, || {
            let (mut parser, mut start, mut sum) = (cri::Parser::default(), 0, 0i64);
            for end in memchr::memchr_iter(b'\n', text) {
                let line = parser
                    .parse(&text[start..end])
                    .context("a line of another form")?;
                sum ^= line.time ^ line.message.len() as i64;
                start = end + 1;
            }
            black_box(sum);
            Ok(())
        })?;
        let mut chain = container()?;
        let batches = batches(text);
        let messages = self.content.messages as usize;
        self.measure(
            "split, parse and join, into columns (container)",
            Some(reference),
            || {
                let mut cx = OperatorCx::default();
                let mut rows = 0;
                for part in &batches {
                    let mut lines = Vec::with_capacity(part.len() / 64);
                    let mut start = 0;
                    for end in memchr::memchr_iter(b'\n', part) {
                        lines.push((start as u32, (end - start) as u32));
                        start = end + 1;
                    }
                    let mut batch = LogsBatch::from_lines(part.clone(), &lines);
                    chain.process(&mut batch, &mut cx);
                    rows +=
                        batch.rows() + cx.report.more.drain(..).map(|b| b.rows()).sum::<usize>();
                }
                anyhow::ensure!(rows == messages, "{rows} rows of {messages} messages");
                Ok(())
            },
        )?;
        Ok(())
    }
}

/// The operator that reads container lines, as the agent builds it.
fn container() -> Result<Chain> {
    let operators = "[{type: container, format: containerd, add_metadata_from_filepath: false}]";
    let list = tailwater_config::parse(operators, "micro").map_err(|e| anyhow::anyhow!("{e}"))?;
    let environment = MemoryEnvironment::new();
    let cx = BuildCx {
        path: KeyPath::from("operators"),
        environment: &environment,
    };
    Chain::build(list.as_list().context("a list")?, &cx).map_err(|e| anyhow::anyhow!("{e}"))
}

/// Whole lines of about [`BATCH_BYTES`].
fn batches(text: &[u8]) -> Vec<Bytes> {
    let (mut out, mut start) = (Vec::new(), 0);
    for end in memchr::memchr_iter(b'\n', text) {
        if end + 1 - start >= BATCH_BYTES || end + 1 == text.len() {
            out.push(Bytes::copy_from_slice(&text[start..=end]));
            start = end + 1;
        }
    }
    out
}

/// CPU time of this thread in ns.
fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_the_text_is_a_row() -> Result<()> {
        let (text, content) = text(Format::Cri, 4 << 20);
        let mut bench = Bench {
            content,
            passes: 1,
            rows: Vec::new(),
        };
        bench.cri(&text)
    }

    #[test]
    fn batches_hold_the_whole_text() {
        let (text, _) = text(Format::Plain, 1 << 20);
        assert_eq!(batches(&text).concat(), text);
    }
}
