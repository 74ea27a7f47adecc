//! Remote write: samples per second of processor time, and bytes per sample.
//!
//! What is measured is the whole exporter but for its sockets: requests of OTLP as bytes in, finished
//! requests through the queue out, each answered with success. CPU time of this thread; the best and
//! the median of several passes over the same requests.

use anyhow::Result;
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use tailwater_benches::remote_write::{Bench, Case, ROUNDS};
use tailwater_benches::report::{median, table};
use tailwater_pdata::otlp::Encoded;

/// Samples of remote write per second of processor time, and bytes per sample.
#[derive(Parser)]
struct Options {
    /// Passes over each case.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut rows = Vec::new();
    for case in [Case::Numbers, Case::Histograms, Case::Native] {
        let requests: Vec<Encoded> = (0..ROUNDS)
            .map(|round| case.request(round))
            .collect::<Result<_>>()?;
        for (name, message) in [
            ("1.0", "prometheus.WriteRequest"),
            ("2.0", "io.prometheus.write.v2.Request"),
        ] {
            let mut bench = Bench::new(message, &runtime)?;
            rows.push(row(&mut bench, case, name, &requests, options.passes));
        }
    }
    let head = [
        "series",
        "version",
        "samples",
        "M samples/CPU s (best)",
        "(median)",
        "ns/point (median)",
        "bytes/sample",
        "OTLP bytes/sample",
    ];
    print!("{}", table(&head, &rows));
    Ok(())
}

/// Measures a case.
fn row(
    bench: &mut Bench,
    case: Case,
    version: &str,
    requests: &[Encoded],
    passes: u32,
) -> Vec<String> {
    let points: u64 = requests.iter().map(|r| r.items() as u64).sum();
    let otlp: usize = requests.iter().map(Encoded::len).sum();
    let samples = points * case.samples();
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..passes {
        let begin = thread_seconds();
        bytes = requests.iter().map(|r| bench.export(r)).sum();
        times.push(thread_seconds() - begin);
    }
    let best = times.iter().copied().fold(f64::INFINITY, f64::min);
    let middle = median(times.iter().copied());
    let rate = |seconds: f64| format!("{:.2}", samples as f64 / seconds / 1e6);
    vec![
        format!("{case:?}"),
        version.to_owned(),
        samples.to_string(),
        rate(best),
        rate(middle),
        format!("{:.0}", middle / points as f64 * 1e9),
        format!("{:.1}", bytes as f64 / samples as f64),
        format!("{:.1}", otlp as f64 / samples as f64),
    ]
}

/// CPU time of this thread.
fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
