//! Writers of log files and what rotates them, in small steps that anything may come between.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tailwater_pipeline::clock::Mono;

use crate::dice::chance;
use crate::disk::{Node, Uid};
use crate::lines::{Format, LineId, written};
use crate::world::World;

/// A line that was begun is finished after at most this time.
const LINE_TIME_MAX: Duration = Duration::from_millis(100);
/// A writer that was not told of a rotation writes to the old file for at most this long.
const LATE_MAX: Duration = Duration::from_millis(150);
/// Without birth times, a copy smaller than this is a file of its own if it takes longer than the other.
const COPY_SMALL: usize = 4096;
const COPY_TIME: Duration = Duration::from_secs(2);

/// How a log is rotated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Not at all.
    Never,
    /// `app.log.1`, `app.log.2`, ...: older ones are renamed first.
    Numbered,
    /// `app.log.20260101-000001`: a name of its own for each.
    Dated,
    /// As `Dated`; the one before the newest is compressed.
    Compressed,
    /// As kubelet: `app.log.<time>`, compressed but for the newest.
    CopyTruncate,
    /// Deleted and created anew.
    Delete,
}

/// A log file and what becomes of it.
#[derive(Clone, Debug)]
pub struct LogPlan {
    /// Where it is.
    pub path: PathBuf,
    /// The symbolic link to it that is read.
    pub link: Option<PathBuf>,
    /// The writer's number; the only one of this file.
    pub writer: u16,
    /// How it is written.
    pub format: Format,
    /// How it is rotated.
    pub style: Style,
    /// Rotated files that are kept.
    pub keep: usize,
    /// Chance of a rotation instead of a line, per thousand.
    pub rotations: u64,
    /// The writer is told late of a rotation.
    pub late: bool,
    /// Lines it writes at most.
    pub lines_max: u32,
}

impl Default for LogPlan {
    fn default() -> LogPlan {
        LogPlan {
            path: PathBuf::new(),
            link: None,
            writer: 0,
            format: Format::Plain,
            style: Style::Never,
            keep: usize::MAX,
            rotations: 0,
            late: false,
            lines_max: 0,
        }
    }
}

/// One step of a rotation.
#[derive(Clone, Debug)]
enum Op {
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// Renames the log; the writer goes on in it for a while.
    Leave(PathBuf),
    /// Deletes the log; the writer begins another one.
    Delete,
    CopyBegin(PathBuf),
    CopyEnd(PathBuf),
    Truncate,
    GzipBegin(PathBuf),
    GzipEnd(PathBuf),
}

/// See the module's documentation.
#[derive(Default)]
pub struct Log {
    /// What it is.
    pub plan: LogPlan,
    fd: Option<Uid>,
    seq: u32,
    /// The rest of a line, until when it has to be there, and which line that is.
    rest: Option<(Mono, Vec<u8>, LineId)>,
    /// That rest is a line of the file by itself.
    rest_is_piece: bool,
    /// The power failed since the last line.
    was_cut: bool,
    script: VecDeque<Op>,
    /// When the writer hears of the rotation.
    reopen_at: Option<Mono>,
    generation: u32,
    /// Rotated files, oldest first.
    rotated: VecDeque<PathBuf>,
    /// Since when a copy is made that was small at first.
    small_copy: Option<Mono>,
}

impl Log {
    /// A log that was not begun.
    pub fn new(plan: LogPlan) -> Log {
        Log {
            plan,
            ..Log::default()
        }
    }

    /// True if nothing is left half done.
    pub fn is_settled(&self) -> bool {
        self.rest.is_none() && self.script.is_empty() && self.reopen_at.is_none()
    }

    /// Everything that ran is gone. What is read by a link is there again after the start.
    pub fn power_cut(&mut self, now: Mono) {
        self.fd = None;
        self.rest = None;
        self.was_cut = true;
        self.script.clear();
        self.small_copy = None;
        self.reopen_at = self.plan.link.is_some().then_some(now);
    }

    /// When [`Log::act_due`] has something to do.
    pub fn due_at(&self) -> Option<Mono> {
        let rest = self.rest.as_ref().map(|r| r.0);
        rest.into_iter().chain(self.reopen_at).min()
    }

    /// What has to be done by now.
    pub fn act_due(&mut self, w: &mut World) {
        let now = w.now();
        if self.rest.as_ref().is_some_and(|r| r.0 <= now) {
            self.finish_line(w);
        }
        if self.reopen_at.is_some_and(|at| at <= now) {
            self.reopen(w);
        }
    }

    /// One step. False if there is nothing to do.
    pub fn act(&mut self, w: &mut World) -> bool {
        if self.plan.path.as_os_str().is_empty() {
            return false;
        }
        if self.rest.is_some() && w.dice.writers.below(2) == 0 {
            self.finish_line(w);
            return true;
        }
        if let Some(op) = self.script.pop_front() {
            w.tell("rotate", || format!("{op:?}"));
            self.step(op, w);
            return true;
        }
        if w.calm {
            return false;
        }
        let rotations = self.plan.rotations;
        let known = w.oracle.known.contains(&self.plan.writer);
        if known
            && self.fd.is_some()
            && self.reopen_at.is_none()
            && chance(&mut w.dice.writers, rotations)
        {
            self.rotate();
            return true;
        }
        if self.seq >= self.plan.lines_max || self.rest.is_some() {
            return false;
        }
        self.write(w);
        true
    }

    fn write(&mut self, w: &mut World) {
        let Some(fd) = self.open(w) else { return };
        for _ in 0..1 + w.dice.writers.below(5) {
            if self.seq >= self.plan.lines_max || !has_room(w) {
                return;
            }
            let id = (self.plan.writer, self.seq);
            self.seq += 1;
            let Some(line) = written(id, self.plan.format) else {
                return;
            };
            w.oracle.planned(id, self.plan.format);
            if std::mem::take(&mut self.was_cut) && self.plan.format.is_cri() {
                let now = w.now();
                w.oracle.taint(id, now);
            }
            if self.plan.format == Format::Plain && w.dice.blank.below(12) == 0 {
                w.disk.append_reserved(fd, b"\n");
            }
            let mut whole = line.physical.join(&b'\n');
            whole.push(b'\n');
            // Between the pieces of a line, or anywhere.
            let first = line.physical[0].len() + 1;
            let at = match w.dice.writers.below(10) {
                0 if first < whole.len() => first,
                1 if w.dice.writers.below(3) == 0 => {
                    1 + w.dice.writers.below(whole.len() as u64 - 1) as usize
                }
                _ => whole.len(),
            };
            w.disk.append_reserved(fd, &whole[..at]);
            if at < whole.len() {
                w.tell("write", || {
                    format!("{id:?} to inode object {fd}, {at} of {} bytes", whole.len())
                });
                self.rest_is_piece = at == first;
                self.rest = Some((w.now().after(LINE_TIME_MAX), whole[at..].to_vec(), id));
                return;
            }
            w.tell("write", || {
                format!("{id:?} to inode object {fd}, {at} bytes")
            });
            let now = w.now();
            w.oracle.written(id, now);
        }
    }

    fn finish_line(&mut self, w: &mut World) {
        let Some((_, rest, id)) = self.rest.take() else {
            return;
        };
        let Some(fd) = self.open(w) else { return };
        w.tell("write", || {
            format!("the rest of {id:?} to inode object {fd}")
        });
        w.disk.append_reserved(fd, &rest);
        let now = w.now();
        w.oracle.written(id, now);
    }

    /// The file that is written to.
    fn open(&mut self, w: &mut World) -> Option<Uid> {
        if let Some(fd) = self.fd {
            return Some(fd);
        }
        let fd = match w.disk.find(&self.plan.path, true) {
            Ok(fd) => fd,
            Err(_) => w.disk.create(&self.plan.path, Node::File).ok()?,
        };
        if let Some(link) = &self.plan.link {
            // It is there already but for the first time and after power cuts.
            let _ = w.disk.create(link, Node::Link(self.plan.path.clone()));
        }
        w.disk.inodes[fd].held += 1;
        // What was torn by a power cut ends here.
        if w.disk.inodes[fd].data.last().is_some_and(|b| *b != b'\n') {
            w.disk.append_reserved(fd, b"\n");
        }
        self.fd = Some(fd);
        Some(fd)
    }

    fn close(&mut self, w: &mut World) {
        if let Some(fd) = self.fd.take() {
            w.disk.inodes[fd].held -= 1;
            w.disk.free_if_unused(fd);
        }
    }

    fn reopen(&mut self, w: &mut World) {
        self.reopen_at = None;
        // A container's line may go on in the next file, but only between its pieces.
        let whole_piece = self.plan.format.is_cri() && self.rest_is_piece;
        if self.rest.is_some() && !whole_piece {
            self.finish_line(w);
        }
        self.close(w);
        self.open(w);
    }

    fn name(&self, mark: &str) -> PathBuf {
        let mut name = self.plan.path.as_os_str().to_owned();
        name.push(mark);
        PathBuf::from(name)
    }

    /// Plans a rotation.
    fn rotate(&mut self) {
        self.generation += 1;
        let mut ops = Vec::new();
        match self.plan.style {
            Style::Never => return,
            Style::Delete => ops.push(Op::Delete),
            Style::Numbered => {
                let n = self.rotated.len();
                for i in (1..=n).rev() {
                    let (from, to) = (
                        self.name(&format!(".{i}")),
                        self.name(&format!(".{}", i + 1)),
                    );
                    ops.push(Op::Rename(from, to));
                }
                ops.push(Op::Leave(self.name(".1")));
                self.rotated.push_front(self.name(&format!(".{}", n + 1)));
                if self.rotated.len() > self.plan.keep
                    && let Some(oldest) = self.rotated.pop_front()
                {
                    ops.push(Op::Remove(oldest));
                }
            }
            Style::Dated | Style::Compressed | Style::CopyTruncate => {
                let to = self.name(&format!(".20260101-{:06}", self.generation));
                match self.plan.style {
                    Style::CopyTruncate => {
                        ops.extend([
                            Op::CopyBegin(to.clone()),
                            Op::CopyEnd(to.clone()),
                            Op::Truncate,
                        ]);
                    }
                    _ => ops.push(Op::Leave(to.clone())),
                }
                if self.plan.style == Style::Compressed
                    && let Some(last) = self.rotated.pop_back()
                {
                    ops.extend([Op::GzipBegin(last.clone()), Op::GzipEnd(last.clone())]);
                    self.rotated.push_back(gz(&last));
                }
                self.rotated.push_back(to);
                if self.rotated.len() > self.plan.keep
                    && let Some(oldest) = self.rotated.pop_front()
                {
                    ops.push(Op::Remove(oldest));
                }
            }
        }
        self.script.extend(ops);
    }

    fn step(&mut self, op: Op, w: &mut World) {
        let path = self.plan.path.clone();
        match op {
            // What a power cut undid need not be there.
            Op::Rename(from, to) => drop(w.disk.rename(&from, &to)),
            Op::Remove(path) => drop(w.disk.unlink(&path)),
            Op::Leave(to) => {
                if w.disk.rename(&path, &to).is_ok() {
                    let late = match self.plan.late {
                        true => w.dice.writers.below(LATE_MAX.as_nanos() as u64),
                        false => 0,
                    };
                    self.reopen_at = Some(w.now().after(Duration::from_nanos(late)));
                }
            }
            Op::Delete => {
                self.finish_line(w);
                let _ = w.disk.unlink(&path);
                self.reopen(w);
            }
            Op::CopyBegin(to) => {
                let Some(data) = content(w, &path) else {
                    return;
                };
                let half = w.dice.writers.below(data.len() as u64 + 1) as usize;
                self.small_copy = (half < COPY_SMALL).then(|| w.now());
                if let Ok(uid) = w.disk.create(&to, Node::File) {
                    w.disk.append_reserved(uid, &data[..half]);
                }
            }
            Op::CopyEnd(to) => {
                let (Some(data), Ok(uid)) = (content(w, &path), w.disk.find(&to, true)) else {
                    return;
                };
                let have = w.disk.inodes[uid].data.len();
                w.disk
                    .append_reserved(uid, data.get(have..).unwrap_or_default());
                // The end of a line that is written between copying and truncating is in no copy.
                let last = data.rsplit(|b| *b == b'\n').next().unwrap_or_default();
                if !last.is_empty() {
                    w.oracle.fragments.push(last.to_vec());
                }
            }
            Op::Truncate => {
                self.finish_line(w);
                // Nothing tells it from a small file that is equal by chance, and from that nobody cuts
                // anything.
                let began = self.small_copy.take().filter(|_| w.disk.no_birth);
                if began.is_some_and(|at| w.now().since(at) >= COPY_TIME) {
                    w.oracle.repeating.insert(self.plan.writer);
                }
                if let Ok(uid) = w.disk.find(&path, true) {
                    w.disk.truncate(uid, 0);
                }
            }
            Op::GzipBegin(from) => {
                let Some((bytes, plain)) = compressed(w, &from) else {
                    return;
                };
                // The header comes in one piece.
                let half = w.dice.writers.below(bytes.len() as u64 + 1) as usize;
                let half = if half < 20 { 0 } else { half };
                if let Ok(uid) = w.disk.create(&gz(&from), Node::File) {
                    w.disk.append_reserved(uid, &bytes[..half]);
                    w.disk.inodes[uid].plain = Some(plain);
                }
            }
            Op::GzipEnd(from) => self.end_gzip(&from, w),
        }
    }

    fn end_gzip(&mut self, from: &Path, w: &mut World) {
        let (Some((bytes, plain)), Ok(uid)) = (compressed(w, from), w.disk.find(&gz(from), true))
        else {
            return;
        };
        let have = w.disk.inodes[uid].data.len();
        if bytes.starts_with(&w.disk.inodes[uid].data) {
            w.disk.append_reserved(uid, &bytes[have..]);
        } else {
            // The file was written to after it had been begun.
            w.disk.truncate(uid, 0);
            w.disk.append_reserved(uid, &bytes);
        }
        w.disk.inodes[uid].plain = Some(plain);
        // gzip gives the compressed file the time of the plain one.
        if let Ok(from) = w.disk.find(from, true) {
            w.disk.inodes[uid].mtime_ns = w.disk.inodes[from].mtime_ns;
        }
        let _ = w.disk.unlink(from);
    }
}

fn gz(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    PathBuf::from(name)
}

fn content(w: &World, path: &Path) -> Option<Vec<u8>> {
    let uid = w.disk.find(path, true).ok()?;
    Some(w.disk.inodes[uid].data.clone())
}

fn compressed(w: &World, path: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    let plain = content(w, path)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain).ok()?;
    Some((encoder.finish().ok()?, plain))
}

/// Writers stop before the disk is full, so that it is the agent that meets it.
fn has_room(w: &World) -> bool {
    w.disk.room() > 20_000
}
