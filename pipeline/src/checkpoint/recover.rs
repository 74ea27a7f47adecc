//! Reading what is on disk, whatever state it is in.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind::PermissionDenied};
use std::path::{Path, PathBuf};

use super::frame::{
    BadHeader, FileKind, FrameReader, HEADER_BYTES, Header, Item, Part, Record, VERSION, read,
};
use super::store::{ReadErrors, StoreOptions};
use super::table::Table;
use super::{CheckpointError, OpenReport};
use crate::fs::{Fs, FsFile};

const SNAPSHOT: &str = "snapshot";
const LOG: &str = "log";
/// A snapshot that does not have its name yet.
const UNFINISHED: &str = "tmp";

/// The path of a generation's file.
pub(super) fn path_of(dir: &Path, generation: u64, kind: FileKind) -> PathBuf {
    let extension = if kind == FileKind::Snapshot {
        SNAPSHOT
    } else {
        LOG
    };
    dir.join(format!("{generation:016x}.{extension}"))
}

/// The path of a snapshot while it is written.
pub(super) fn unfinished_path_of(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation:016x}.{UNFINISHED}"))
}

/// Generations are counted up by one; names with numbers from here on were not written by us.
const GENERATION_END: u64 = 1 << 62;

/// The generation that a name belongs to, and what the file is: `None` for an unfinished one. No
/// answer for names that are not ours.
pub(super) fn generation_of(name: &Path) -> Option<(u64, Option<FileKind>)> {
    let stem = name.file_stem()?.to_str()?;
    let generation = u64::from_str_radix(stem, 16).ok()?;
    if generation >= GENERATION_END || format!("{generation:016x}") != stem {
        return None;
    }
    match name.extension()?.to_str()? {
        SNAPSHOT => Some((generation, Some(FileKind::Snapshot))),
        LOG => Some((generation, Some(FileKind::Log))),
        UNFINISHED => Some((generation, None)),
        _ => None,
    }
}

/// One file of a generation.
struct Source {
    path: PathBuf,
    file: Box<dyn FsFile>,
    header: Option<Header>,
}

/// A file that cannot even be opened.
struct Unreadable(io::ErrorKind);

impl FsFile for Unreadable {
    fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn append(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Err(self.0.into())
    }

    fn byte_len(&self) -> io::Result<u64> {
        Err(self.0.into())
    }

    fn truncate(&mut self, _len: u64) -> io::Result<()> {
        Err(self.0.into())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        Err(self.0.into())
    }
}

#[derive(Default)]
struct Generation {
    snapshot: Option<Source>,
    log: Option<Source>,
}

impl Generation {
    /// Bytes of its files, as far as the file system says.
    fn bytes(&self) -> u64 {
        let sources = [&self.snapshot, &self.log].into_iter().flatten();
        sources.map(|s| s.file.byte_len().unwrap_or(0)).sum()
    }

    /// Bytes of its log, if a crash came before its header was whole. Nothing was saved here then: the
    /// snapshot gets its name before the first record is appended.
    fn begun_bytes(&self) -> Option<u64> {
        let (None, Some(log)) = (&self.snapshot, &self.log) else {
            return None;
        };
        let bytes = log.file.byte_len().ok()?;
        (bytes <= HEADER_BYTES as u64).then_some(bytes)
    }

    /// Snapshot and log share it, so one whole header is enough.
    fn salt(&self) -> Option<u64> {
        let sources = [&self.snapshot, &self.log];
        sources
            .into_iter()
            .flatten()
            .find_map(|s| s.header)
            .map(|h| h.salt)
    }
}

/// What was read.
pub(super) struct Recovered {
    pub table: Table,
    pub report: OpenReport,
    /// The newest generation that any file belongs to; 0 = there are none.
    pub newest: u64,
    /// The oldest generation that the state was read from.
    pub oldest_used: u64,
    /// Bytes of the files of each generation.
    pub sizes: BTreeMap<u64, u64>,
}

/// Reads the state from `dir`.
///
/// # Errors
/// The directory or a file cannot be opened or read, or a newer version wrote it. Damage is no
/// error.
pub(super) fn recover(
    fs: &dyn Fs,
    dir: &Path,
    options: &StoreOptions,
) -> Result<Recovered, CheckpointError> {
    let (limit, errors) = (options.live_bytes_max, options.read_errors);
    let generations = open_all(fs, dir, errors)?;
    let mut report = OpenReport::default();
    let newest = generations.keys().next_back().copied().unwrap_or(0);
    let newest_snapshot = generations.iter().rev().find(|(_, g)| g.snapshot.is_some());
    let mut base = None;
    for (&number, generation) in generations.iter().rev() {
        if let Some(table) = load_snapshot(generation, limit, errors)? {
            base = Some((number, table));
            break;
        }
    }
    let salvage = base.is_none();
    let (base, mut table) = base.unwrap_or_else(|| (0, Table::new(limit)));
    report.salvaged = salvage && newest_snapshot.is_some();
    report.used_previous_generation =
        !salvage && newest_snapshot.is_some_and(|(number, _)| *number != base);
    for generation in generations.range(base..).map(|(_, generation)| generation) {
        if generation.snapshot.is_none() && generation.log.is_none() {
            continue;
        }
        let Some(salt) = generation.salt() else {
            match generation.begun_bytes() {
                Some(bytes) => report.torn_bytes += bytes,
                // Without a salt nothing in these files can be told from damage.
                None => report.damaged_records += 1,
            }
            continue;
        };
        if salvage && let Some(snapshot) = &generation.snapshot {
            replay(snapshot, salt, errors, &mut table, &mut report)?;
        }
        if let Some(log) = &generation.log {
            replay(log, salt, errors, &mut table, &mut report)?;
        }
    }
    report.recovered = table.len();
    let oldest = generations.keys().next().copied().unwrap_or(0);
    let oldest_used = if salvage { oldest } else { base };
    Ok(Recovered {
        table,
        report,
        newest,
        oldest_used,
        sizes: generations.iter().map(|(n, g)| (*n, g.bytes())).collect(),
    })
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn open_all(
    fs: &dyn Fs,
    dir: &Path,
    errors: ReadErrors,
) -> Result<BTreeMap<u64, Generation>, CheckpointError> {
    let mut generations: BTreeMap<u64, Generation> = BTreeMap::new();
    for name in fs.list(dir).map_err(|e| io_error("list", dir, e))? {
        let Some((number, kind)) = generation_of(Path::new(&name)) else {
            continue;
        };
        // Unfinished files count too: their numbers are used up. What is known of such a file is
        // that its synchronisation may have failed, so its name must not be written again.
        let generation = generations.entry(number).or_default();
        let Some(kind) = kind else { continue };
        let path = dir.join(&name);
        let file = match fs.open(&path) {
            // Who may not read the files is not the one who wrote them; starting without them
            // would be a first run by mistake.
            Err(e) if errors == ReadErrors::Refuse || e.kind() == PermissionDenied => {
                return Err(io_error("open", &path, e));
            }
            opened => opened.unwrap_or_else(|e| Box::new(Unreadable(e.kind()))),
        };
        let header = read_header(&*file).or_else(|e| match errors {
            ReadErrors::Refuse => Err(io_error("read", &path, e)),
            ReadErrors::TakeAsDamage => Ok(Err(BadHeader::Damaged)),
        })?;
        let header = match header {
            Ok(header) => Some(header).filter(|h| h.kind == kind && h.generation == number),
            Err(BadHeader::Damaged) => None,
            Err(BadHeader::Newer(found)) => {
                return Err(CheckpointError::Newer {
                    path,
                    found,
                    supported: VERSION,
                });
            }
        };
        let source = Some(Source { path, file, header });
        match kind {
            FileKind::Snapshot => generation.snapshot = source,
            FileKind::Log => generation.log = source,
        }
    }
    Ok(generations)
}

fn read_header(file: &dyn FsFile) -> io::Result<Result<Header, BadHeader>> {
    let mut bytes = [0; HEADER_BYTES];
    let mut len = 0;
    while len < HEADER_BYTES {
        match read(file, len as u64, &mut bytes[len..])? {
            0 => break,
            n => len += n,
        }
    }
    Ok(Header::decode(&bytes[..len]))
}

/// The content of a snapshot, if every byte of it is as it was written.
fn load_snapshot(
    generation: &Generation,
    live_bytes_max: u64,
    errors: ReadErrors,
) -> Result<Option<Table>, CheckpointError> {
    let Some(snapshot) = &generation.snapshot else {
        return Ok(None);
    };
    let Some(Header { salt, .. }) = snapshot.header else {
        return Ok(None);
    };
    let mut table = Table::new(live_bytes_max);
    let mut records = 0;
    let mut reader = FrameReader::new(&*snapshot.file, salt);
    let mut end = None;
    loop {
        match reader.next() {
            _ if end.is_some_and(|count| count != records) => return Ok(None),
            Item::End => return Ok(end.map(|_| table)),
            Item::Record(Record::End { count }) if end.is_none() => end = Some(count),
            Item::Record(record) if end.is_none() => {
                table.replay(record);
                records += 1;
            }
            Item::Unreadable(kind) if errors == ReadErrors::Refuse => {
                return Err(io_error("read", &snapshot.path, kind.into()));
            }
            // Anything else is damage, and so is anything behind the end record.
            _ => return Ok(None),
        }
    }
}

/// The parts of a group that were read without a gap.
#[derive(Default)]
struct Group {
    bodies: Vec<Box<[u8]>>,
    bytes: u64,
    count: u32,
}

impl Group {
    /// Takes in the next part; false if it is not that.
    fn add(&mut self, part: Part, body: &[u8]) -> bool {
        let next = self.bodies.len() as u32;
        if part.index != next || next > 0 && part.count != self.count {
            return false;
        }
        self.count = part.count;
        self.bytes += body.len() as u64;
        self.bodies.push(body.into());
        true
    }

    fn is_whole(&self) -> bool {
        self.bodies.len() == self.count as usize
    }

    /// A part is missing: none of them is there.
    fn give_up(&mut self, report: &mut OpenReport) {
        let group = std::mem::take(self);
        report.damaged_records += group.bodies.len() as u64;
        report.damaged_bytes += group.bytes;
    }

    fn replay(&mut self, table: &mut Table) {
        for body in std::mem::take(self).bodies {
            if let Some(record) = Record::decode(&body) {
                table.replay(record);
            }
        }
    }
}

/// Takes in all records that can be read.
fn replay(
    source: &Source,
    salt: u64,
    errors: ReadErrors,
    table: &mut Table,
    report: &mut OpenReport,
) -> Result<(), CheckpointError> {
    let mut reader = FrameReader::new(&*source.file, salt);
    let mut group = Group::default();
    loop {
        let item = reader.next();
        match &item {
            Item::Part(..) => {}
            // A write that a crash interrupted.
            Item::Torn { .. } | Item::End => {
                report.torn_bytes += std::mem::take(&mut group).bytes;
            }
            Item::Record(_) | Item::Damaged { .. } | Item::Unreadable(_) => group.give_up(report),
        }
        match item {
            Item::Record(record) => table.replay(record),
            Item::Part(part, body) => {
                if !group.add(part, body) {
                    group.give_up(report);
                    if !group.add(part, body) {
                        report.damaged_records += 1;
                        report.damaged_bytes += body.len() as u64;
                    }
                }
                if group.is_whole() {
                    group.replay(table);
                }
            }
            Item::Damaged { bytes } => {
                report.damaged_records += 1;
                report.damaged_bytes += bytes;
            }
            Item::Torn { bytes } => report.torn_bytes += bytes,
            Item::Unreadable(kind) if errors == ReadErrors::Refuse => {
                return Err(io_error("read", &source.path, kind.into()));
            }
            Item::Unreadable(_) => report.damaged_records += 1,
            Item::End => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        let dir = Path::new("/d");
        for kind in [FileKind::Snapshot, FileKind::Log] {
            let path = path_of(dir, 0xAB, kind);
            assert_eq!(generation_of(&path), Some((0xAB, Some(kind))));
        }
        assert_eq!(generation_of(&unfinished_path_of(dir, 3)), Some((3, None)));
        let others = [
            "lock",
            "1.log",
            "00000000000000zz.log",
            "+000000000000001.log",
            "000000000000000A.log",
            "0000000000000001.old",
            "ffffffffffffffff.log",
            ".log",
        ];
        for name in others {
            assert_eq!(generation_of(Path::new(name)), None, "{name}");
        }
    }
}
