//! Guarantee: remote write allocates nothing per data point: what it allocates in the steady state is
//! for requests and resources. A number, not a time: the allocator counts.

use tailwater_benches::allocations::{self, CountingAllocator};
use tailwater_benches::remote_write::{Bench, Case};
use tailwater_pdata::otlp::Encoded;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations per data point, for batches of 800 points (of histograms) and 8,000 (of numbers).
const ALLOCATIONS_MAX: f64 = 0.15;

#[test]
fn remote_write_allocates_nothing_per_point() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for message in ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"] {
        for case in [Case::Numbers, Case::Histograms, Case::Native] {
            let requests: Vec<Encoded> = (0..2)
                .map(|round| case.request(round).expect("OTLP"))
                .collect();
            let mut bench = Bench::new(message, &runtime).expect("an exporter");
            let points: usize = requests.iter().map(Encoded::items).sum();
            requests.iter().for_each(|r| {
                bench.export(r);
            });
            let before = allocations::count();
            requests.iter().for_each(|r| {
                bench.export(r);
            });
            let per_point = (allocations::count() - before) as f64 / points as f64;
            println!("{message} {case:?}: {per_point:.3} allocations per point");
            assert!(per_point < ALLOCATIONS_MAX, "{case:?}: {per_point}");
        }
    }
}
