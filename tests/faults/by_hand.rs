//! Files that tests put together themselves, of lines that the oracle knows and of others.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use tailwater_testkit::message;
use tailwater_testkit::oracle::Totals;
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::{Rig, tail};

/// Messages of a writer, announced and confirmed as if they were written already.
pub fn messages(rig: &Rig, writer: u32, seqs: Range<u64>) -> Vec<String> {
    rig.oracle.announce(writer, "by hand", seqs.clone());
    rig.oracle.confirm(writer, seqs.end);
    let message = |seq| {
        let mut line = Vec::new();
        message::append(&mut line, writer, seq, seq, 40);
        String::from_utf8(line).expect("messages are ASCII")
    };
    seqs.map(message).collect()
}

/// The same, each with a line end.
pub fn text(rig: &Rig, writer: u32, seqs: Range<u64>) -> Vec<u8> {
    messages(rig, writer, seqs)
        .iter()
        .flat_map(|m| [m.as_bytes(), b"\n"].concat())
        .collect()
}

/// Appends to a file, which is made if it is not there.
pub fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a file");
    file.write_all(bytes).expect("written");
}

/// Every message arrived once, whatever else did.
pub fn assert_all_arrived(rig: &Rig, agent: Agent) -> Totals {
    rig.wait_delivered(&agent);
    let faults = agent.scrape().faults();
    assert!(faults.is_empty(), "{faults:?}\n{}", tail(&agent.log()));
    agent.stop_clean();
    let report = rig.oracle.report();
    let t = report.totals;
    let faults = t.missing + t.duplicates_after_dedup + t.duplicates_unclassified + t.corrupt;
    assert_eq!(faults + t.phantom + report.unknown, 0, "{}", rig.summary());
    t
}
