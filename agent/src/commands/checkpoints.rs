//! `tailwater checkpoints`: stored file positions, for people.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tailwater_pipeline::checkpoint::{Checkpoint, CheckpointStore};
use tailwater_receivers::filelog::discover::Discovery;
use tailwater_receivers::filelog::glob::Glob;
use tailwater_receivers::filelog::import::{
    Claim, claim_offsets, claim_positions, read_bounded, read_file_storage, read_positions,
};
use tailwater_receivers::filelog::lanes::{Owner, is_mark, namespaces_in_use};
use tailwater_receivers::filelog::logfs::{LogFs, OsLogFs};
use tailwater_receivers::filelog::position::Position;

use crate::cli::{ImportFrom, StateArgs, exit};
use crate::storages::{OWN_DIR, STORE_DIR, open_store, own_directory};

/// One stored position.
struct Row {
    key: Vec<u8>,
    owner: Owner,
    position: Position,
}

/// The store's directory, the same that the agent uses, whether it is there yet or not.
fn directory(args: &StateArgs) -> Result<PathBuf> {
    Ok(match (&args.storage_dir, &args.state_dir) {
        (Some(storage), _) => storage.join(STORE_DIR),
        (None, Some(state)) => state.join(OWN_DIR),
        (None, None) => own_directory()?,
    })
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
            "there are no stored positions in {} (choose with --state-dir or --storage-dir)",
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
        if is_mark(&key) {
            continue;
        }
        match Position::decode(offset, generation, &payload) {
            Ok(position) => rows.push(Row {
                owner: Owner::of(&key),
                key: key.to_vec(),
                position,
            }),
            Err(_) => unreadable += 1,
        }
    }
    rows.sort_by(|a, b| (&a.owner, &a.position.path).cmp(&(&b.owner, &b.position.path)));
    (rows, unreadable)
}

fn positions(n: usize) -> String {
    format!("{n} position{}", if n == 1 { "" } else { "s" })
}

fn report(unreadable: usize) {
    if unreadable > 0 {
        eprintln!(
            "warning: {} cannot be read by this version",
            positions(unreadable)
        );
    }
}

/// `list`: a table.
pub fn list(args: &StateArgs) -> Result<u8> {
    let (rows, unreadable) = rows(&open_existing(args)?);
    say!(
        "{:<20} {:>14} {:>12}  path",
        "receiver",
        "offset",
        "records"
    );
    for r in &rows {
        let p = &r.position;
        say!(
            "{:<20} {:>14} {:>12}  {}",
            r.owner.to_string(),
            p.offset,
            p.records,
            p.path.display()
        );
    }
    say!("{}", positions(rows.len()));
    report(unreadable);
    Ok(exit::OK)
}

/// `export`: a JSON object per line.
pub fn export(args: &StateArgs) -> Result<u8> {
    let (rows, unreadable) = rows(&open_existing(args)?);
    for r in &rows {
        let p = &r.position;
        let line = serde_json::json!({
            "receiver": r.owner.receiver,
            "exporter": r.owner.exporter,
            "kept": r.owner.kept,
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
        say!("{line}");
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
    let print_chosen = || -> Result<()> {
        for r in &chosen {
            say!("{} {}", r.owner, r.position.path.display());
        }
        Ok(())
    };
    if !yes {
        print_chosen()?;
        say!(
            "{} would be forgotten; add --yes to do it",
            positions(chosen.len())
        );
        return Ok(exit::OK);
    }
    for r in &chosen {
        store.remove(&r.key);
    }
    store.commit().context("the change could not be saved")?;
    // Done before it is told, so that a reader who stops reading stops nothing.
    print_chosen()?;
    say!("{} forgotten", positions(chosen.len()));
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
    let keys = store.with_prefix(b"");
    // Each destination of the receiver goes on from there.
    let sets = namespaces_in_use(keys.iter().map(|(key, _)| &**key), receiver);
    let mut done = Done::default();
    match from {
        ImportFrom::Promtail => import_promtail(&store, file, &sets, &mut done)?,
        ImportFrom::Collector => import_collector(&store, file, &sets, include, &mut done)?,
    }
    store.commit().context("the positions could not be saved")?;
    for row in &done.rows {
        say!("{row}");
    }
    say!(
        "{} taken over, {} left out",
        positions(done.taken),
        done.left
    );
    Ok(if done.taken == 0 && done.left > 0 {
        exit::ERROR
    } else {
        exit::OK
    })
}

/// What became of each position that was found.
#[derive(Default)]
struct Done {
    taken: usize,
    left: usize,
    rows: Vec<String>,
}

impl Done {
    fn tell(&mut self, path: &Path, offset: u64, why_not: Option<&str>) {
        let path = path.display();
        self.rows.push(match why_not {
            None => {
                self.taken += 1;
                format!("taken    {offset:>14}  {path}")
            }
            Some(why) => {
                self.left += 1;
                format!("left out {offset:>14}  {path}: {why}")
            }
        });
    }
}

/// Largest database and positions file that are read.
const DATABASE_BYTES_MAX: u64 = 512 << 20;
const POSITIONS_BYTES_MAX: u64 = 64 << 20;

fn import_promtail(
    store: &CheckpointStore,
    file: &Path,
    sets: &[String],
    done: &mut Done,
) -> Result<()> {
    let named = || file.display().to_string();
    let saved_ns = OsLogFs.meta(file).with_context(named)?.mtime_ns;
    let text = read_bounded(file, POSITIONS_BYTES_MAX, &OsLogFs).with_context(named)?;
    let found = read_positions(&text).with_context(named)?;
    found.notes.iter().for_each(|n| eprintln!("note: {n}"));
    for claim in claim_positions(&found.files, saved_ns, &OsLogFs) {
        take_over(store, sets, claim, done);
    }
    Ok(())
}

/// The collector knows files by their first bytes only, so they are looked for among the files
/// that `include` matches.
fn import_collector(
    store: &CheckpointStore,
    file: &Path,
    sets: &[String],
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
    let finder = Discovery {
        include,
        exclude: Vec::new(),
        exclude_older_than: std::time::Duration::ZERO,
        ordering: None,
    };
    for database in databases(file)? {
        let named = || database.display().to_string();
        let bytes = read_bounded(&database, DATABASE_BYTES_MAX, &OsLogFs).with_context(named)?;
        let found = read_file_storage(&bytes).with_context(named)?;
        found.notes.iter().for_each(|n| eprintln!("note: {n}"));
        for claim in claim_offsets(&found.files, &finder, &OsLogFs) {
            take_over(store, sets, claim, done);
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

/// Stores a position in all `sets`, unless we know it better.
fn take_over(store: &CheckpointStore, sets: &[String], claim: Claim, done: &mut Done) {
    let Claim {
        path,
        offset,
        outcome,
    } = claim;
    let position = match outcome {
        Ok(position) => position,
        Err(why) => return done.tell(&path, offset, Some(&why)),
    };
    let keys: Vec<_> = sets.iter().map(|set| position.key(set)).collect();
    if keys.iter().any(|key| store.get(key).is_some()) {
        let why = "this agent has a position of its own for it";
        return done.tell(&path, offset, Some(why));
    }
    let checkpoint = Checkpoint {
        offset: position.offset,
        generation: position.generation,
        payload: position.encode(),
    };
    let batch = keys.iter().map(|key| (key.as_slice(), checkpoint.clone()));
    match store.put_all(batch) {
        Ok(()) => done.tell(&path, offset, None),
        Err(e) => done.tell(&path, offset, Some(&e.to_string())),
    }
}
