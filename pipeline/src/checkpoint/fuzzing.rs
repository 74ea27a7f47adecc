//! What a store must do whatever is in its files. Body of a fuzz target: it panics where it does not
//! hold.

use std::path::Path;
use std::sync::Arc;

use super::frame::{FileKind, Header, frame};
use super::recover::path_of;
use super::{Checkpoint, CheckpointError, CheckpointStore, OpenReport, StoreOptions};
use crate::fs::{Fs, SimFs};

const DIR: &str = "/s";
const SALT: u64 = 0x5a17;

/// Files of two generations with any content: opening never panics, fails only where a newer version
/// wrote, and finds nothing that is not written there as a whole record. What is put then and committed
/// is there again, after a kill and after a power loss, and no damage is left; what is put together is
/// there together.
///
/// The input is read as pieces, a byte and what it announces: below 192, so many bytes as the body
/// of a record with a true checksum; below 250, (byte - 192) * 16 bytes as they are; then the next
/// of the four files begins, with a header that is true, absent or announced.
pub fn files(data: &[u8]) {
    let fs = SimFs::new(1);
    fs.create_dir(Path::new(DIR), 0o700).expect("an empty disk");
    let mut contents = Vec::new();
    let mut rest = data;
    for (generation, kind) in [
        (1, FileKind::Snapshot),
        (1, FileKind::Log),
        (2, FileKind::Snapshot),
        (2, FileKind::Log),
    ] {
        if let Some(content) = file(&mut rest, generation, kind) {
            fs.set_content(&path_of(Path::new(DIR), generation, kind), content.clone());
            contents.push(content);
        }
    }
    let (mut store, first) = match open(&fs) {
        Ok(opened) => opened,
        Err(CheckpointError::Newer { .. }) => return,
        Err(e) => panic!("{e}"),
    };
    let found = all(&store);
    assert_eq!(first.recovered, found.len());
    for (key, checkpoint) in &found {
        assert!(
            is_written(&contents, key, checkpoint),
            "{key:?} {checkpoint:?}"
        );
    }
    // Anything that was found goes on from there, and what is new begins.
    let mut want = found;
    let new = Checkpoint {
        offset: 7,
        generation: 1,
        payload: b"new".to_vec(),
    };
    if !want.iter().any(|(key, _)| **key == *b"\0new") {
        want.insert(0, (b"\0new"[..].into(), new));
    }
    for (key, checkpoint) in &mut want {
        checkpoint.offset = checkpoint.offset.saturating_add(1);
        store.put(key, checkpoint.clone()).expect("it goes on");
    }
    want.sort_by(|a, b| a.0.cmp(&b.0));
    store.commit().expect("a disk that works");
    assert_eq!(all(&store), want);
    drop(store);
    fs.kill();
    again(&fs, &want);
    fs.crash(0);
    let mut store = again(&fs, &want);
    // Saved together, and power is lost at some step of it: all of it is there or nothing.
    let before = want.clone();
    want.iter_mut().for_each(|(_, c)| c.payload.truncate(1));
    let batch = want
        .iter()
        .map(|(key, checkpoint)| (&**key, checkpoint.clone()));
    store.put_all(batch).expect("it goes on");
    let (step, seed) = (
        data.len() as u64 % 16,
        data.iter().map(|b| u64::from(*b)).sum(),
    );
    fs.halt_at(fs.operations() + step);
    let saved = store.commit().is_ok();
    drop(store);
    fs.crash(seed);
    let (store, report) = open(&fs).expect("what this version wrote");
    let found = all(&store);
    assert!(
        found == want || (!saved && found == before),
        "{found:?} of {want:?}"
    );
    assert!(!report.may_lack_keys(), "{report:?}");
}

/// Opens once more: nothing is damaged, and `want` is there.
fn again(fs: &SimFs, want: &[(Box<[u8]>, Checkpoint)]) -> CheckpointStore {
    let (store, report) = open(fs).expect("what this version wrote");
    assert_eq!(all(&store), want);
    let whole = OpenReport {
        recovered: want.len(),
        ..OpenReport::default()
    };
    assert_eq!(report, whole);
    store
}

fn open(fs: &SimFs) -> Result<(CheckpointStore, OpenReport), CheckpointError> {
    let options = StoreOptions {
        seed: 4,
        log_bytes_min: 256,
        ..StoreOptions::default()
    };
    CheckpointStore::open(Arc::new(fs.clone()), Path::new(DIR), options)
}

fn all(store: &CheckpointStore) -> Vec<(Box<[u8]>, Checkpoint)> {
    store.with_prefix(b"")
}

/// True if one of the files holds the record.
fn is_written(contents: &[Vec<u8>], key: &[u8], checkpoint: &Checkpoint) -> bool {
    let mut body = vec![1];
    body.extend_from_slice(&(key.len() as u16).to_le_bytes());
    body.extend_from_slice(&checkpoint.generation.to_le_bytes());
    body.extend_from_slice(&checkpoint.offset.to_le_bytes());
    body.extend_from_slice(key);
    body.extend_from_slice(&checkpoint.payload);
    contents
        .iter()
        .any(|c| c.windows(body.len()).any(|w| w == body))
}

/// The content of the next file; `None` if it is not there.
fn file(rest: &mut &[u8], generation: u64, kind: FileKind) -> Option<Vec<u8>> {
    let header = take(rest, 1).first().copied().unwrap_or_default();
    let header = match header % 8 {
        7 => return None,
        6 => Vec::new(),
        n => {
            // Sometimes that of another generation or with another salt.
            let header = Header {
                kind,
                generation: generation + u64::from(n == 5),
                salt: SALT + u64::from(n == 4),
            };
            header.encode().to_vec()
        }
    };
    let mut out = header;
    loop {
        let Some(piece) = take(rest, 1).first() else {
            return Some(out);
        };
        match *piece {
            n @ 0..192 => frame(SALT, take(rest, usize::from(n)), &mut out),
            n @ 192..250 => out.extend_from_slice(take(rest, usize::from(n - 192) * 16)),
            _ => return Some(out),
        }
    }
}

/// Takes up to `n` bytes from the front.
fn take<'a>(rest: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(n.min(rest.len()));
    *rest = left;
    taken
}
