//! MB per second of CPU of the codec of OTLP: what each function does with requests of 1,000 items,
//! against `prost` decoding the same bytes into structures.
//!
//! CPU time of this thread, the best and the median of several passes.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use tailwater_benches::otlp::requests::request;
use tailwater_benches::report::{median, table};
use tailwater_pdata::otlp::edit::{Attributes, Edit, Next};
use tailwater_pdata::otlp::oracle as o;
use tailwater_pdata::otlp::{Encoded, Limits, decode_logs, encode_logs, json};
use tailwater_pdata::{LogsBatch, Signal};

/// Items of a request.
const ITEMS: u64 = 1000;

/// MB per second of CPU of the codec of OTLP.
#[derive(Parser)]
struct Options {
    /// MB of requests in each pass.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    mb: u64,
    /// Passes.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    for signal in Signal::ALL {
        let mut bench = Bench::new(signal, &options)?;
        println!(
            "{signal}: {} bytes of protobuf and {} of JSON for {} items",
            bench.proto.len(),
            bench.json.len(),
            bench.encoded.items()
        );
        bench.run()?;
        print!(
            "{}",
            table(
                &["function", "MB/s (best)", "MB/s (median)", "ratio"],
                &bench.rows
            )
        );
    }
    Ok(())
}

struct Bench {
    signal: Signal,
    proto: Bytes,
    json: Vec<u8>,
    encoded: Encoded,
    rounds: u64,
    passes: u32,
    reference: Option<f64>,
    rows: Vec<Vec<String>>,
}

impl Bench {
    fn new(signal: Signal, options: &Options) -> Result<Bench> {
        let proto = Bytes::from(request(signal, ITEMS));
        let encoded = Encoded::parse(signal, proto.clone(), &Limits::default())?;
        let mut json = Vec::new();
        json::from_proto(signal, &proto, &mut json)?;
        Ok(Bench {
            signal,
            rounds: options.mb * 1_000_000 / proto.len() as u64 + 1,
            passes: options.passes,
            proto,
            json,
            encoded,
            reference: None,
            rows: Vec::new(),
        })
    }

    fn run(&mut self) -> Result<()> {
        let (signal, limits) = (self.signal, Limits::default());
        let (proto, encoded, text) = (self.proto.clone(), self.encoded.clone(), self.json.clone());
        self.measure("prost decodes", proto.len(), || {
            match signal {
                Signal::Logs => drop(black_box(o::Logs::decode(&*proto)?)),
                Signal::Metrics => drop(black_box(o::Metrics::decode(&*proto)?)),
                Signal::Traces => drop(black_box(o::Traces::decode(&*proto)?)),
            }
            Ok(())
        })?;
        self.measure("parse", proto.len(), || {
            let encoded = Encoded::parse(signal, proto.clone(), &limits)?;
            ensure!(black_box(encoded).items() == ITEMS as usize);
            Ok(())
        })?;
        if signal == Signal::Logs {
            self.measure("decode_logs", proto.len(), || {
                black_box(decode_logs(black_box(&encoded)));
                Ok(())
            })?;
            let batches = decode_logs(&encoded);
            ensure!(batches.iter().map(LogsBatch::rows).sum::<usize>() == ITEMS as usize);
            let mut out = Vec::new();
            self.measure("encode_logs", proto.len(), || {
                out.clear();
                batches.iter().for_each(|b| encode_logs(b, &mut out));
                black_box(&out);
                Ok(())
            })?;
        }
        self.measure("split into pieces of 100", proto.len(), || {
            ensure!(black_box(encoded.clone().split(100)).len() == ITEMS as usize / 100);
            Ok(())
        })?;
        self.measure("edit of each resource", proto.len(), || {
            let mut edited = encoded.clone();
            edited.edit(&mut Change { items: false });
            black_box(edited);
            Ok(())
        })?;
        self.measure("edit of each item", proto.len(), || {
            let mut edited = encoded.clone();
            edited.edit(&mut Change { items: true });
            black_box(edited);
            Ok(())
        })?;
        self.measure("JSON to protobuf (MB of JSON)", text.len(), || {
            black_box(json::to_proto(signal, &text, &limits)?);
            Ok(())
        })?;
        let mut out = Vec::new();
        self.measure("protobuf to JSON (MB of JSON)", text.len(), || {
            out.clear();
            encoded.write_json(&mut out);
            ensure!(black_box(&out).len() == text.len());
            Ok(())
        })
    }

    /// Measures `work`, which is done to so many bytes. The ratio is that to the first measured.
    fn measure(
        &mut self,
        name: &str,
        bytes: usize,
        mut work: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut rates = Vec::new();
        for _ in 0..self.passes {
            let start = thread_cpu();
            for _ in 0..self.rounds {
                work().with_context(|| name.to_owned())?;
            }
            let took = thread_cpu() - start;
            rates.push(bytes as f64 * self.rounds as f64 / 1e6 / took.as_secs_f64());
        }
        let best = rates.iter().copied().fold(0.0, f64::max);
        let median = median(rates);
        let reference = *self.reference.get_or_insert(median);
        self.rows.push(vec![
            name.to_owned(),
            format!("{best:.0}"),
            format!("{median:.0}"),
            format!("{:.2}", median / reference),
        ]);
        Ok(())
    }
}

/// Adds an attribute to resources, or to items.
struct Change {
    items: bool,
}

impl Edit for Change {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        if self.items {
            return Next::Look;
        }
        add(attributes);
        Next::Leave
    }

    fn item(
        &mut self,
        _: &tailwater_pdata::otlp::edit::View<'_>,
        list: &mut Attributes<'_>,
    ) -> bool {
        add(list);
        true
    }
}

fn add(attributes: &mut Attributes<'_>) {
    attributes.update(|map| {
        map.insert("deployment.environment", "production");
        true
    });
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_does_its_work() -> Result<()> {
        for signal in Signal::ALL {
            let options = Options { mb: 1, passes: 1 };
            Bench::new(signal, &options)?.run()?;
        }
        Ok(())
    }
}
