//! One second of a run, and the table of all of them.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// What was seen in one second. Counts are of the whole run so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Seconds since the start.
    pub seconds: f64,
    /// Resident memory of the agent, in bytes.
    pub resident_bytes: f64,
    /// Its open descriptors.
    pub descriptors: f64,
    /// Its threads.
    pub threads: f64,
    /// CPU time it has used, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Lines that writers have finished.
    pub lines_written: f64,
    /// Those of them that arrived.
    pub lines_delivered: f64,
    /// Bytes that writers have finished.
    pub bytes_written: f64,
    /// The most bytes in this second that were written and had not arrived, by the mean length of
    /// a line.
    pub lag_bytes: f64,
    /// The greatest age in this second, over all logs, of a line that had not arrived: an upper
    /// bound, exact to a quarter of a second.
    pub lag_seconds: f64,
    /// Requests the sink got.
    pub requests: f64,
    /// Those of them it failed on purpose.
    pub requests_failed: f64,
}

/// Names of the columns, in order.
const COLUMNS: &str = "seconds,resident_bytes,descriptors,threads,cpu_seconds,lines_written,\
                       lines_delivered,bytes_written,lag_bytes,lag_seconds,requests,requests_failed";

impl Sample {
    fn cells(&self) -> [f64; 12] {
        [
            self.seconds,
            self.resident_bytes,
            self.descriptors,
            self.threads,
            self.cpu_seconds,
            self.lines_written,
            self.lines_delivered,
            self.bytes_written,
            self.lag_bytes,
            self.lag_seconds,
            self.requests,
            self.requests_failed,
        ]
    }

    fn from_cells(cells: [f64; 12]) -> Sample {
        let [
            seconds,
            resident_bytes,
            descriptors,
            threads,
            cpu_seconds,
            lines_written,
            lines_delivered,
            bytes_written,
            lag_bytes,
            lag_seconds,
            requests,
            requests_failed,
        ] = cells;
        Sample {
            seconds,
            resident_bytes,
            descriptors,
            threads,
            cpu_seconds,
            lines_written,
            lines_delivered,
            bytes_written,
            lag_bytes,
            lag_seconds,
            requests,
            requests_failed,
        }
    }
}

/// The head of the table, with its line end.
pub fn head() -> String {
    format!("{COLUMNS}\n")
}

/// One line of the table, with its line end.
pub fn row(sample: &Sample) -> String {
    let cell = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    format!("{}\n", sample.cells().map(cell).join(","))
}

/// Reads a table.
///
/// # Errors
/// If it cannot be read, or is none of these.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Vec<Sample>> {
    let mut lines = text.lines();
    if lines.next() != Some(COLUMNS) {
        bail!("not a table of a soak: another head");
    }
    let mut samples = Vec::new();
    for (i, line) in lines.enumerate() {
        let cells: Result<Vec<f64>, _> = line.split(',').map(str::parse).collect();
        let cells = cells.ok().and_then(|c| <[f64; 12]>::try_from(c).ok());
        let cells = cells.with_context(|| format!("line {}: not 12 numbers", i + 2))?;
        samples.push(Sample::from_cells(cells));
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let cells = std::array::from_fn(|i| i as f64 + 0.125);
        let samples = [Sample::from_cells(cells), Sample::default()];
        let text = head() + &row(&samples[0]) + &row(&samples[1]);
        assert_eq!(parse(&text).expect("a table"), samples);
        assert!(text.ends_with("\n0,0,0,0,0,0,0,0,0,0,0,0\n"), "{text}");
        assert!(parse("a,b\n").is_err());
        assert!(parse(&(head() + "1,2\n")).is_err());
    }
}
