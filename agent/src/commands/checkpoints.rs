//! `tailwater checkpoints`: stored file positions, for people.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tailwater_pipeline::checkpoint::{Checkpoint, CheckpointStore};
use tailwater_receivers::filelog::position::Position;

use crate::cli::{StateArgs, exit};
use crate::storages::{STORE_DIR, open_store, own_directory};

/// One stored position.
struct Row {
    key: Vec<u8>,
    receiver: String,
    position: Position,
}

/// The store's directory: the given one, its `tailwater` folder, or the agent's own.
fn directory(args: &StateArgs) -> Result<PathBuf> {
    let Some(dir) = &args.state_dir else {
        return Ok(own_directory()?);
    };
    let inside = [dir.join("checkpoints"), dir.join(STORE_DIR)];
    Ok(inside
        .into_iter()
        .find(|d| d.is_dir())
        .unwrap_or_else(|| dir.clone()))
}

/// Opens the store to change it.
pub(super) fn open(args: &StateArgs) -> Result<CheckpointStore> {
    let dir = directory(args)?;
    open_store(&dir).with_context(|| "stop the agent first if it is running".to_owned())
}

fn open_existing(args: &StateArgs) -> Result<CheckpointStore> {
    let dir = directory(args)?;
    if !dir.is_dir() {
        bail!(
            "there are no stored positions in {} (choose with --state-dir)",
            dir.display()
        );
    }
    open(args)
}

fn rows(store: &CheckpointStore) -> (Vec<Row>, usize) {
    let mut unreadable = 0;
    let mut rows = Vec::new();
    for (
        key,
        Checkpoint {
            offset,
            generation,
            payload,
        },
    ) in store.with_prefix(b"")
    {
        let receiver = key.split(|b| *b == 0).next().unwrap_or_default();
        let receiver = String::from_utf8_lossy(receiver).into_owned();
        match Position::decode(offset, generation, &payload) {
            Ok(position) => rows.push(Row {
                key: key.to_vec(),
                receiver,
                position,
            }),
            Err(_) => unreadable += 1,
        }
    }
    rows.sort_by(|a, b| (&a.receiver, &a.position.path).cmp(&(&b.receiver, &b.position.path)));
    (rows, unreadable)
}

fn report(unreadable: usize) {
    if unreadable > 0 {
        eprintln!("warning: {unreadable} stored positions cannot be read by this version");
    }
}

/// `list`: a table.
pub fn list(args: &StateArgs) -> Result<u8> {
    let (rows, unreadable) = rows(&open_existing(args)?);
    println!(
        "{:<20} {:>14} {:>12}  {}",
        "receiver", "offset", "records", "path"
    );
    for r in &rows {
        let p = &r.position;
        println!(
            "{:<20} {:>14} {:>12}  {}",
            r.receiver,
            p.offset,
            p.records,
            p.path.display()
        );
    }
    println!("{} positions", rows.len());
    report(unreadable);
    Ok(exit::OK)
}

/// `export`: a JSON object per line.
pub fn export(args: &StateArgs) -> Result<u8> {
    let (rows, unreadable) = rows(&open_existing(args)?);
    for r in &rows {
        let p = &r.position;
        let line = serde_json::json!({
            "receiver": r.receiver,
            "path": p.path.to_string_lossy(),
            "offset": p.offset,
            "generation": p.generation,
            "records": p.records,
            "device": p.id.dev,
            "inode": p.id.ino,
            "birth_ns": p.id.birth_ns,
            "seen_ns": p.seen_ns,
            "gzip": p.gzip,
        });
        println!("{line}");
    }
    report(unreadable);
    Ok(exit::OK)
}

/// `reset`: forgets positions.
pub fn reset(args: &StateArgs, path: Option<&str>, yes: bool) -> Result<u8> {
    let mut store = open_existing(args)?;
    let (rows, _) = rows(&store);
    let chosen: Vec<&Row> = rows
        .iter()
        .filter(|r| path.is_none_or(|p| r.position.path.to_string_lossy().contains(p)))
        .collect();
    for r in &chosen {
        println!("{} {}", r.receiver, r.position.path.display());
    }
    if !yes {
        println!(
            "{} positions would be forgotten; add --yes to do it",
            chosen.len()
        );
        return Ok(exit::OK);
    }
    for r in &chosen {
        store.remove(&r.key);
    }
    store.commit().context("the change could not be saved")?;
    println!("{} positions forgotten", chosen.len());
    Ok(exit::OK)
}

/// What an import did with one position.
pub(super) fn tell(path: &Path, offset: u64, what: &str) {
    println!("{what:<10} {offset:>14}  {}", path.display());
}

/// `import`.
pub fn import(
    _args: &StateArgs,
    _from: crate::cli::ImportFrom,
    _file: &Path,
    _receiver: &str,
    _include: &[String],
) -> Result<u8> {
    tell(Path::new(""), 0, "");
    bail!("not built");
}
