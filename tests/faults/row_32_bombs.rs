//! Row 32: bodies that are more than they seem: bombs, lengths that lie, nesting, counts.

use std::io::Write;

use flate2::write::DeflateEncoder;
use tailwater_tests::fault_row::Row;
use tailwater_tests::otlp_client::{GrpcClient, compress, field};

use super::attack::{ADDED_MAX, Target};

const PASS: &str = "refused after <= limit bytes inflated; RSS +<= 1x limit";
const PROTO: &str = "application/x-protobuf";
const JSON: &str = "application/json";
/// The default of `max_request_body_size`.
const LIMIT: u64 = 20 << 20;

/// A body that inflates to `mib` MiB of zeros, of pieces of one MiB that are repeated.
fn bomb(encoding: &str, mib: usize) -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    let level = flate2::Compression::default();
    match encoding {
        // Several frames or members, one after the other, are one body.
        "gzip" | "zstd" => compress(encoding, &zeros).repeat(mib),
        // Whole blocks of which each may refer to the zeros before it; its end is never reached.
        "zlib" | "deflate" => {
            let mut w = DeflateEncoder::new(Vec::new(), level);
            let mut write = || {
                w.write_all(&zeros).expect("memory");
                w.flush().expect("memory");
                w.get_ref().len()
            };
            let (first, second) = (write(), write());
            let blocks = w.get_ref();
            let head: &[u8] = if encoding == "zlib" {
                &[0x78, 0x9c]
            } else {
                &[]
            };
            let more = blocks[first..second].repeat(mib - 1);
            [head, &blocks[..first], &more].concat()
        }
        // A name, and chunks.
        "snappy" => {
            let one = compress(encoding, &zeros);
            let (name, chunks) = one.split_at(10);
            [name, &chunks.repeat(mib)].concat()
        }
        other => compress(other, &zeros.repeat(mib)),
    }
}

/// Bombs that a body within the limit can hold.
fn bombs() -> Vec<(&'static str, usize, Vec<u8>)> {
    let sizes = [
        ("zstd", 10_000),
        ("gzip", 2_000),
        ("zlib", 2_000),
        ("deflate", 2_000),
        ("lz4", 64),
        ("snappy", 300),
    ];
    let made = sizes.map(|(encoding, mib)| (encoding, mib, bomb(encoding, mib)));
    made.into()
}

/// Guarantees that a bomb of any compression, over both protocols, is refused when it has inflated to the
/// limit, and takes no more memory than that.
#[test]
fn bombs_are_refused_at_the_limit() {
    let mut row = Row::new(32, "decompression bombs")
        .how(
            "10 GB of zeros as zstd, 2 GB as gzip, zlib and deflate, 64 MB as lz4, 300 MB as snappy over HTTP, \
             64 MB as gzip and zstd and 20 MB as snappy over gRPC; each five times",
        )
        .pass(PASS);
    let bombs = bombs();
    let messages = [("gzip", 64), ("zstd", 64), ("snappy", 20)];
    let messages = messages.map(|(encoding, mib)| (encoding, bomb(encoding, mib)));
    let target = Target::start("bombs", |_| {});
    target.under(&mut row, |target| {
        for _ in 0..5 {
            for (encoding, mib, body) in &bombs {
                assert!((body.len() as u64) < LIMIT, "{encoding}: {}", body.len());
                let answer = target.client().post("/v1/logs", PROTO, encoding, body);
                let answer = answer.expect("an answer");
                assert_eq!(answer.status, 400, "{encoding} of {mib} MiB: {answer:?}");
                let text = String::from_utf8_lossy(&answer.body);
                assert!(text.contains("inflates to more"), "{encoding}: {text}");
            }
            for (encoding, message) in &messages {
                let status = GrpcClient::new(target.grpc).export_compressed(encoding, message);
                assert_eq!(status.expect("an answer"), 8, "{encoding}");
            }
        }
    });
    let added = target.added_bytes();
    row.held(
        added <= LIMIT,
        format!(
            "memory + {:.1} MiB at most, limit {} MiB",
            added as f64 / f64::from(1 << 20),
            LIMIT >> 20
        ),
    );
    assert!(added < ADDED_MAX, "{added}");
    row.reached("45 bombs refused");
    target.finish(&mut row);
    row.record();
}

/// A varint.
fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A body of a log record that is a list in a list, `depth` times.
fn nested(depth: usize) -> Vec<u8> {
    // From the inside: each length is that of all within.
    let mut heads = Vec::new();
    let mut length = 0;
    for _ in 0..depth {
        // ArrayValue: values 1; AnyValue: array_value 5.
        for number in [1, 5] {
            let head = [&[number << 3 | 2][..], &varint(length)].concat();
            length += head.len() as u64;
            heads.push(head);
        }
    }
    let value: Vec<u8> = heads.into_iter().rev().flatten().collect();
    field(1, &field(2, &field(2, &field(5, &value))))
}

/// Guarantees that lengths that lie, nesting without end and counts without measure are refused for what
/// they are, or taken for what they hold, in bounded memory.
#[test]
fn lies_nesting_and_giant_counts_are_borne() {
    let mut row = Row::new(32, "forged lengths, nesting, giant counts")
        .how(
            "snappy that claims 4 GiB and 19 MiB, protobuf nested 100,000 deep, JSON nested 1,000,000 deep, 2 \
             million empty resources and records, a million attributes of one record; each thrice",
        )
        .pass(PASS);
    let lie = |claimed: u64| [&varint(claimed)[..], b"\x00a"].concat();
    let empties = |inner: &[u8], count: usize| inner.repeat(count);
    // A resource of one scope of so many empty items.
    let items = |count| field(1, &field(2, &empties(&[0x12, 0], count)));
    let attributes = |count| {
        let record = empties(&field(6, &field(1, b"k")), count);
        field(1, &field(2, &field(2, &record)))
    };
    let gz = |plain: &[u8]| compress("gzip", plain);
    let hostile: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("snappy of 4 GiB", PROTO, "snappy", lie(u64::from(u32::MAX))),
        ("snappy of 19 MiB", PROTO, "snappy", lie(19 << 20)),
        ("nested protobuf", PROTO, "identity", nested(100_000)),
        (
            "nested JSON",
            JSON,
            "identity",
            [b"{\"resourceLogs\":".to_vec(), b"[".repeat(1_000_000)].concat(),
        ),
        (
            "resources",
            PROTO,
            "gzip",
            gz(&empties(&[0x0a, 0], 2_000_000)),
        ),
        ("records", PROTO, "gzip", gz(&items(2_000_000))),
        ("attributes", PROTO, "gzip", gz(&attributes(1_000_000))),
        (
            "a length beyond the end",
            PROTO,
            "identity",
            [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f].to_vec(),
        ),
    ];
    let target = Target::start("lies", |_| {});
    target.under(&mut row, |target| {
        for _ in 0..3 {
            for (name, kind, encoding, body) in &hostile {
                let answer = target.client().post("/v1/logs", kind, encoding, body);
                let answer = answer.expect("an answer");
                assert_eq!(answer.status, 400, "{name}: {answer:?}");
            }
        }
    });
    let added = target.added_bytes();
    row.held(
        added <= LIMIT,
        format!(
            "memory + {:.1} MiB at most, limit {} MiB",
            added as f64 / f64::from(1 << 20),
            LIMIT >> 20
        ),
    );
    assert!(added < ADDED_MAX, "{added}");
    row.reached(format!("{} refused", 3 * hostile.len()));
    target.finish(&mut row);
    row.record();
}
