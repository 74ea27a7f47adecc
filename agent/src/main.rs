//! `tailwater`: the agent's command line. See `tailwater --help`.

use std::process::ExitCode;

mod cli;
mod commands;
mod extensions;
mod progress;
mod registry;
mod serve;
mod storages;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
