//! Running commands and finding the workspace.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The workspace's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// `cargo` with arguments, in the workspace.
pub fn cargo(args: &[&str]) -> Command {
    let mut c = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    c.args(args).current_dir(root());
    c
}

/// Runs a command to its end, printing what it is and how long it took.
pub fn step(name: &str, command: &mut Command) -> Result<()> {
    watched(name, command, |_| {})
}

/// As [`step`], and shows each line of what it prints to `see` as well.
pub fn step_lines(name: &str, command: &mut Command, see: impl FnMut(&str)) -> Result<()> {
    watched(name, command.stdout(Stdio::piped()), see)
}

fn watched(name: &str, command: &mut Command, mut see: impl FnMut(&str)) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let output = child.stdout.take();
    for line in output.into_iter().flat_map(|o| BufReader::new(o).lines()) {
        let line = line?;
        println!("{line}");
        see(&line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    println!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// A step that goes on beside others. It is ended when it is dropped.
pub struct Background {
    name: &'static str,
    child: Child,
    since: Instant,
}

impl Background {
    /// Starts it.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Background> {
        println!("== {name}, beside what follows");
        Ok(Background {
            name,
            child: command.spawn().with_context(|| name.to_owned())?,
            since: Instant::now(),
        })
    }

    /// Waits until it has ended.
    pub fn wait(mut self) -> Result<()> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} failed: {status}", self.name);
        }
        println!(
            "== {}: {:.1} s",
            self.name,
            self.since.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
