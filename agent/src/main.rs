//! `tailwater`: the agent's command line. See `tailwater --help`.

use std::process::ExitCode;

/// As `println!`, but what cannot be printed is an error and no panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout(), $($text)*)?
    }};
}

mod admin;
mod cli;
mod commands;
mod control;
mod extensions;
mod layer;
mod lent;
// The lints look at it in every build.
// Looked at by clippy also where it is left out.
#[cfg(any(feature = "jemalloc", clippy))]
#[cfg_attr(not(feature = "jemalloc"), allow(dead_code))]
mod memory;
mod offer;
mod progress;
mod reference;
mod registry;
mod sandbox;
mod serve;
mod signals;
mod storages;
mod supervisor;
mod watch;

fn main() -> ExitCode {
    cli::main()
}
