//! `cargo xtask soak`: an hour of the release binary, watched.

use anyhow::Result;

use crate::faults::commit;
use crate::run::{cargo, root, step};
use crate::test::release_binary;

/// From this on a run is worth keeping.
const MINUTES_KEPT: u32 = 60;

/// Runs the soak. Its record is written to docs/faults if it is long enough, where
/// `cargo xtask faults` takes it into docs/FAULTS.md.
pub fn soak(minutes: u32, args: &[String]) -> Result<()> {
    let bin = release_binary()?;
    let out = match minutes >= MINUTES_KEPT {
        true => root().join("docs/faults"),
        false => root().join("target/soak"),
    };
    let run = [
        "run",
        "--release",
        "--quiet",
        "-p",
        "tailwater-benches",
        "--bin",
        "soak",
        "--",
    ];
    let mut c = cargo(&run);
    c.arg("--bin").arg(bin).arg("--out").arg(out);
    c.arg("--table").arg(root().join("target/soak/soak.csv"));
    c.args(["--minutes", &minutes.to_string(), "--commit", &commit()?]);
    c.args(args);
    step("soak", &mut c)
}
