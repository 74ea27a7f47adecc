//! The account at the end of the demo: what was written, and what became of it.

use std::io;

use tailwater_telemetry::metrics::{Amount, Snapshot};
use tailwater_testkit::oracle::{OracleReport, WriterReport};

/// Rows of the table by file that are printed; files with something missing are printed anyway.
const ROWS_MAX: usize = 40;

/// Everything known when all is over.
pub struct Account {
    /// Lines written.
    pub written: u64,
    /// The agent's own account.
    pub agent: Snapshot,
    /// What arrived, if the endpoint was ours.
    pub endpoint: Option<OracleReport>,
    /// How long it took.
    pub seconds: f64,
}

impl Account {
    /// True if every line that was written was delivered, and none twice, out of order or damaged.
    pub fn balances(&self) -> bool {
        let s = &self.agent;
        let ours =
            s.check().is_ok() && s.in_flight.records == 0 && s.delivered.records == self.written;
        let theirs = self
            .endpoint
            .as_ref()
            .is_none_or(|r| r.is_faultless() && r.totals.delivered == self.written);
        ours && theirs
    }

    /// Prints it.
    pub fn print(&self) -> io::Result<()> {
        say!();
        if let Some(report) = &self.endpoint {
            print_files(report)?;
        }
        self.print_reasons()?;
        if let Some(report) = &self.endpoint {
            let t = &report.totals;
            say!(
                "at the endpoint: {} of {} lines, {} missing, {} repeated, {} out of order, {} damaged",
                t.delivered,
                self.written,
                t.missing,
                t.duplicates_after_dedup,
                t.out_of_order,
                t.corrupt
            );
        }
        say!(
            "{:.1} s, {:.0} lines/s, {:.1} MB/s",
            self.seconds,
            self.written as f64 / self.seconds,
            self.agent.delivered.bytes as f64 / 1e6 / self.seconds
        );
        say!(
            "{}",
            if self.balances() {
                "every line is accounted for: written = delivered"
            } else {
                "THE ACCOUNT DOES NOT BALANCE: not every line that was written was delivered"
            }
        );
        Ok(())
    }

    fn print_reasons(&self) -> io::Result<()> {
        let s = &self.agent;
        row("lines written", self.written)?;
        row("read", s.read.records)?;
        row("delivered", s.delivered.records)?;
        rows_by("filtered", &s.filtered)?;
        rows_by("dropped", &s.dropped)?;
        row("in flight", s.in_flight.records)
    }
}

fn row(name: &str, records: u64) -> io::Result<()> {
    say!("{name:<24} {records:>12}");
    Ok(())
}

/// The sum of all reasons, and a row for each that occurred.
fn rows_by<N: AsRef<str>>(name: &str, by: &[(N, Amount)]) -> io::Result<()> {
    row(name, by.iter().map(|(_, a)| a.records).sum())?;
    for (reason, amount) in by.iter().filter(|(_, a)| a.records > 0) {
        row(&format!("  {}", reason.as_ref()), amount.records)?;
    }
    Ok(())
}

/// A row per file. The endpoint counts by writer, so what was delivered of a file is what was
/// written to it without what is missing.
fn print_files(report: &OracleReport) -> io::Result<()> {
    say!(
        "{:<44} {:>9} {:>9} {:>8}",
        "file (number of its first line)",
        "written",
        "delivered",
        "missing"
    );
    let all = report.writers.iter().flat_map(files_of);
    let mut left_out = 0;
    for (i, (name, written, missing)) in all.enumerate() {
        if i >= ROWS_MAX && missing == 0 {
            left_out += 1;
            continue;
        }
        say!(
            "{name:<44} {written:>9} {:>9} {missing:>8}",
            written - missing
        );
    }
    if left_out > 0 {
        say!("... and {left_out} more files, nothing missing of any of them");
    }
    say!();
    Ok(())
}

/// Short name, lines written and lines missing of each file of a container.
fn files_of(w: &WriterReport) -> impl Iterator<Item = (String, u64, u64)> {
    w.files
        .iter()
        .map(|f| (short_name(&f.file), f.written, f.missing))
}

/// `team/pod/container/0.log (20000)` of `.../pods/team_pod_uid/container/0.log@20000`. Rotation
/// renames a file after it was written, so the number of its first line tells the files apart.
fn short_name(file: &str) -> String {
    let name = file.split_once("/pods/").map_or(file, |(_, name)| name);
    let (name, first) = name.rsplit_once('@').unwrap_or((name, "0"));
    let mut pod = name.splitn(3, '_');
    let name = match (
        pod.next(),
        pod.next(),
        pod.next().and_then(|uid| uid.split_once('/')),
    ) {
        (Some(namespace), Some(pod), Some((_, rest))) => format!("{namespace}/{pod}/{rest}"),
        _ => name.to_owned(),
    };
    format!("{name} ({first})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_shown_without_what_is_the_same_for_all() {
        assert_eq!(
            short_name("/tmp/x/pods/team-0_shop-1_0000-4000/web/0.log@20000"),
            "team-0/shop-1/web/0.log (20000)"
        );
        assert_eq!(short_name("/other/a.log"), "/other/a.log (0)");
    }
}
