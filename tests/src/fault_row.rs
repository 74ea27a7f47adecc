//! What a row of the fault matrix did and reached, as one line of JSON for `cargo xtask faults`.
//!
//! ```no_run
//! # use tailwater_tests::fault_row::{Row, scaled};
//! let kills = scaled(100, 1_000);
//! let mut row = Row::new(1, "kill -9 at any moment")
//!     .how(format!("{kills} random kills"))
//!     .pass("loss 0; restart <= 2 s");
//! // ... the fault; assertions on what must hold ...
//! row.reached("0 of 171,401 lines lost");
//! row.held(true, "restart 0.03 s at most");
//! row.record();
//! ```
//!
//! What must never happen (loss, a line shown twice, a wrong account) is asserted by the test. What
//! depends on the machine (times, rates) is only told, by [`Row::held`]. A test that fails before
//! it has recorded is recorded as not held.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

use serde_json::json;

/// The variable that names the file results are appended to; without it they are only printed.
pub const OUT: &str = "TAILWATER_FAULTS_OUT";

/// The variable that asks for the long form of the rows, when it is `1`.
pub const LONG: &str = "TAILWATER_FAULTS_LONG";

/// Whether the long form of the rows is asked for.
pub fn long() -> bool {
    std::env::var(LONG).is_ok_and(|v| v == "1")
}

/// How much of something is done: in the test command, or in the long form.
pub fn scaled<T>(cheap: T, in_long: T) -> T {
    if long() { in_long } else { cheap }
}

/// One row, or one part of it, on its way.
#[derive(Debug)]
pub struct Row {
    number: u32,
    fault: String,
    how: String,
    pass: String,
    reached: Vec<String>,
    why: Vec<String>,
    held: bool,
    begin: Instant,
    recorded: bool,
}

impl Row {
    /// Begins row `number`; its time runs from here. The fault's name tells apart the parts of a
    /// row, and is the same in each run.
    pub fn new(number: u32, fault: &str) -> Self {
        Self {
            number,
            fault: fault.to_owned(),
            how: String::new(),
            pass: String::new(),
            reached: Vec::new(),
            why: Vec::new(),
            held: true,
            begin: Instant::now(),
            recorded: false,
        }
    }

    /// How the fault is made here.
    #[must_use]
    pub fn how(mut self, how: impl Into<String>) -> Self {
        self.how = how.into();
        self
    }

    /// The bound that is to be met.
    #[must_use]
    pub fn pass(mut self, pass: &str) -> Self {
        pass.clone_into(&mut self.pass);
        self
    }

    /// Adds a figure.
    pub fn reached(&mut self, figure: impl Into<String>) {
        self.reached.push(figure.into());
    }

    /// Adds a figure for which there is a bound, and whether it is within.
    pub fn held(&mut self, within: bool, figure: impl Into<String>) {
        let figure = figure.into();
        if !within {
            self.held = false;
            self.why.push(format!("not within its bound: {figure}"));
        }
        self.reached.push(figure);
    }

    /// Adds a remark, above all why something is not held.
    pub fn why(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
    }

    /// Records what was reached.
    ///
    /// # Panics
    /// When there is a file to append to and that fails.
    pub fn record(mut self) {
        let held = if self.held { "true" } else { "false" };
        self.write(held);
    }

    /// Records, and says aloud, that this machine cannot show the row.
    ///
    /// # Panics
    /// As [`Row::record`].
    pub fn not_shown(mut self, why: impl Into<String>) {
        let why = why.into();
        println!("SKIPPED: row {} ({}): {why}", self.number, self.fault);
        self.why.push(why);
        self.write("not shown here");
    }

    fn write(&mut self, held: &str) {
        self.recorded = true;
        let line = json!({
            "row": self.number,
            "fault": self.fault,
            "how": self.how,
            "pass": self.pass,
            "reached": self.reached.join("; "),
            "held": held,
            "why": self.why.join("; "),
            "seconds": (self.begin.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            "long": long(),
        });
        println!("row {line}");
        let Some(path) = std::env::var_os(OUT) else {
            return;
        };
        // One write per line: tests run side by side.
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.expect("the file of results can be written");
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if !self.recorded {
            self.why.push("the test failed".to_owned());
            self.write("false");
        }
    }
}
