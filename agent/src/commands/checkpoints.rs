//! `tailwater checkpoints`: stored file positions, for people.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tailwater_pipeline::checkpoint::{Checkpoint, CheckpointStore};
use tailwater_receivers::filelog::discover::Discovery;
use tailwater_receivers::filelog::glob::Glob;
use tailwater_receivers::filelog::identity::{Head, TRAIL_BYTES, Trail};
use tailwater_receivers::filelog::import::{read_file_storage, read_positions};
use tailwater_receivers::filelog::logfs::{LogFs, OsLogFs};
use tailwater_receivers::filelog::position::Position;

use crate::cli::{ImportFrom, StateArgs, exit};
use crate::storages::{STORE_DIR, open_store, own_directory};

/// Bytes by which an imported file is recognised, the receiver's default `fingerprint_size`.
const HEAD_BYTES: usize = 1000;

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
        "{:<20} {:>14} {:>12}  path",
        "receiver", "offset", "records"
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

/// `import`: takes over the positions of another agent, which must be stopped.
pub fn import(
    args: &StateArgs,
    from: ImportFrom,
    file: &Path,
    receiver: &str,
    include: &[String],
) -> Result<u8> {
    let mut store = open(args)?;
    let mut done = Done { taken: 0, left: 0 };
    match from {
        ImportFrom::Promtail => import_promtail(&store, file, receiver, &mut done)?,
        ImportFrom::Collector => import_collector(&store, file, receiver, include, &mut done)?,
    }
    store.commit().context("the positions could not be saved")?;
    println!(
        "{} positions taken over, {} left out",
        done.taken, done.left
    );
    Ok(if done.taken == 0 && done.left > 0 {
        exit::ERROR
    } else {
        exit::OK
    })
}

struct Done {
    taken: usize,
    left: usize,
}

impl Done {
    fn tell(&mut self, path: &Path, offset: u64, why_not: Option<&str>) {
        match why_not {
            None => {
                self.taken += 1;
                println!("taken    {offset:>14}  {}", path.display());
            }
            Some(why) => {
                self.left += 1;
                println!("left out {offset:>14}  {}: {why}", path.display());
            }
        }
    }
}

fn import_promtail(
    store: &CheckpointStore,
    file: &Path,
    receiver: &str,
    done: &mut Done,
) -> Result<()> {
    let text = std::fs::read(file).with_context(|| file.display().to_string())?;
    let found = read_positions(&text).with_context(|| file.display().to_string())?;
    found.notes.iter().for_each(|n| eprintln!("note: {n}"));
    for p in &found.files {
        take_over(store, receiver, &p.path, p.offset, 0, done);
    }
    Ok(())
}

/// The collector knows files by their first bytes only, so they are looked for among the files
/// that `include` matches.
fn import_collector(
    store: &CheckpointStore,
    file: &Path,
    receiver: &str,
    include: &[String],
    done: &mut Done,
) -> Result<()> {
    if include.is_empty() {
        bail!("the collector stores no paths: name the files with --include GLOB");
    }
    let include = include
        .iter()
        .map(|text| Glob::new(text).with_context(|| format!("--include {text:?}")))
        .collect::<Result<Vec<_>>>()?;
    let discovery = Discovery {
        include,
        exclude: Vec::new(),
        exclude_older_than: std::time::Duration::ZERO,
        ordering: None,
    };
    let candidates = discovery.scan(0).files;
    for database in databases(file)? {
        let bytes = std::fs::read(&database).with_context(|| database.display().to_string())?;
        let found = read_file_storage(&bytes).with_context(|| database.display().to_string())?;
        found.notes.iter().for_each(|n| eprintln!("note: {n}"));
        for known in &found.files {
            let begins = |path: &Path| {
                let mut head = Vec::new();
                let want = known.fingerprint_first_bytes.len();
                let read = OsLogFs
                    .open(path)
                    .and_then(|f| f.read_at(0, want, &mut head));
                read.is_ok() && head == known.fingerprint_first_bytes
            };
            let matching: Vec<_> = candidates.iter().filter(|c| begins(&c.path)).collect();
            match matching.as_slice() {
                [one] => {
                    take_over(
                        store,
                        receiver,
                        &one.path,
                        known.offset,
                        known.record_number,
                        done,
                    );
                }
                [] => done.tell(Path::new("?"), known.offset, Some("no file begins like it")),
                several => {
                    let why = format!("{} files begin alike; it is not clear which", several.len());
                    done.tell(&several[0].path, known.offset, Some(&why));
                }
            }
        }
    }
    Ok(())
}

/// The file itself, or the filelog databases of a storage directory.
fn databases(file: &Path) -> Result<Vec<PathBuf>> {
    if !file.is_dir() {
        return Ok(vec![file.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(file).with_context(|| file.display().to_string())? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.starts_with("receiver_filelog_") {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("{} holds no receiver_filelog_* file", file.display());
    }
    Ok(found)
}

/// Stores a position for the file at `path`, unless we know it better.
fn take_over(
    store: &CheckpointStore,
    receiver: &str,
    path: &Path,
    offset: u64,
    records: u64,
    done: &mut Done,
) {
    let position = match position_at(path, offset, records) {
        Ok(position) => position,
        Err(e) => return done.tell(path, offset, Some(&e.to_string())),
    };
    let key = position.key(receiver);
    if store.get(&key).is_some() {
        return done.tell(
            path,
            offset,
            Some("this agent has a position of its own for it"),
        );
    }
    let checkpoint = Checkpoint {
        offset,
        generation: position.generation,
        payload: position.encode(),
    };
    match store.put(&key, checkpoint) {
        Ok(()) => done.tell(path, offset, None),
        Err(e) => done.tell(path, offset, Some(&e.to_string())),
    }
}

/// The position at `offset` of the file that is at `path` now.
fn position_at(path: &Path, offset: u64, records: u64) -> Result<Position> {
    let file = OsLogFs.open(path)?;
    let meta = file.meta()?;
    if offset > meta.size {
        bail!(
            "the file is shorter ({} bytes) than what was read",
            meta.size
        );
    }
    let mut head = Vec::new();
    file.read_at(0, HEAD_BYTES.min(offset as usize), &mut head)?;
    let mut trail = Vec::new();
    let from = offset.saturating_sub(TRAIL_BYTES as u64);
    file.read_at(from, (offset - from) as usize, &mut trail)?;
    Ok(Position {
        offset,
        id: meta.id,
        head: Head::of(&head),
        trail: Trail::of(&trail),
        records,
        path: path.to_path_buf(),
        ..Position::default()
    })
}
