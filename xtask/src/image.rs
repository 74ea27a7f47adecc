//! `cargo xtask image`: the image of `deploy/docker`, built from a static binary and run on a Docker Engine.
//!
//! No part of the test command: the static binary is another build of everything, which takes minutes.

use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{cargo, root, step};

/// Without the C library as a file beside it.
const STATIC: &str = "-C target-feature=+crt-static";

/// Builds the static binary, unless one is given, and tests the image of it.
pub fn image(bin: Option<std::path::PathBuf>) -> Result<()> {
    let bin = match bin {
        Some(bin) => std::path::absolute(bin)?,
        None => build()?,
    };
    let mut test = cargo(&["test", "--workspace", "--no-default-features", "--locked"]);
    test.args(["--features", "tailwater-tests/image", "--test", "image"]);
    test.args(["--", "--show-output"]);
    step("the image", test.env("TAILWATER_IMAGE_BIN", bin))
}

/// Another target than the host's, if only by name: otherwise build scripts and macros would have to be static, too.
fn build() -> Result<std::path::PathBuf> {
    let said = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = said.lines().find_map(|l| l.strip_prefix("host: "));
    let host = host.context("rustc does not say for which host it is")?;
    let mut build = cargo(&["build", "--release", "--locked", "-p", "tailwater"]);
    build.args(["--target", host]).env("RUSTFLAGS", STATIC);
    step("build the static release binary", &mut build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root().join("target"), std::path::PathBuf::from);
    Ok(target.join(host).join("release/tailwater"))
}
