//! Deliberately broken agents. Each must be caught, or the simulation sees nothing.
//!
//! They are broken from outside, by what is put around the parts of an agent: no production code
//! knows of them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tailwater_exporters::delivery::{
    Acks, Duty, Judge, OutgoingRequest, Reply, SendError, Verdict,
};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::fs::{Fs, FsFile};
use tailwater_pipeline::{
    AckToken, Admission, Batch, DropReason, Exporter, LogsPart, Outcome, Output, Processor,
};
use tailwater_receivers::filelog::logfs::{Entry, Kind, LogFile, LogFs, Meta, Owner};
use tailwater_receivers::filelog::watch::News;

use crate::plan::COPYTRUNCATE_FROM;

/// What is put around the parts of an agent to break it. By default nothing is.
pub trait Breaks {
    /// Around the files of logs.
    fn log_fs(&self, fs: Arc<dyn LogFs>) -> Arc<dyn LogFs> {
        fs
    }
    /// Around the files of the state.
    fn state_fs(&self, fs: Arc<dyn Fs>) -> Arc<dyn Fs> {
        fs
    }
    /// Around who decides about answers.
    fn judge(&self, judge: Arc<dyn Judge<Acks>>) -> Arc<dyn Judge<Acks>> {
        judge
    }
    /// Around the exporter's half in a shard.
    fn exporter(&self, exporter: Box<dyn Exporter>) -> Box<dyn Exporter> {
        exporter
    }
    /// Around the news of changes.
    fn news(&self, news: Box<dyn News>) -> Box<dyn News> {
        news
    }
    /// One more processor.
    fn processor(&self, _cx: &NodeCx) -> Option<Box<dyn Processor>> {
        None
    }
}

/// The agent as it is.
pub struct Whole;

impl Breaks for Whole {}

/// Positions move when a batch is handed over, before anybody answered.
pub struct AcksEarly;

struct EarlyExporter(Box<dyn Exporter>);

impl Exporter for EarlyExporter {
    fn export(&mut self, mut batch: Batch, now: Mono) {
        for part in &mut batch.parts {
            std::mem::replace(&mut part.ack, AckToken::detached()).resolve(Outcome::Delivered);
        }
        self.0.export(batch, now);
    }
    fn admission(&self) -> Admission {
        self.0.admission()
    }
    fn deadline(&self) -> Option<Mono> {
        self.0.deadline()
    }
    fn tick(&mut self, now: Mono) {
        self.0.tick(now);
    }
    fn flush(&mut self, now: Mono) {
        self.0.flush(now);
    }
}

impl Breaks for AcksEarly {
    fn exporter(&self, exporter: Box<dyn Exporter>) -> Box<dyn Exporter> {
        Box::new(EarlyExporter(exporter))
    }
}

/// One batch in twenty is not sent, but its position is passed.
pub struct LeavesHoles;

struct HolesExporter(Box<dyn Exporter>, u32);

impl Exporter for HolesExporter {
    fn export(&mut self, batch: Batch, now: Mono) {
        self.1 += 1;
        if !self.1.is_multiple_of(20) {
            return self.0.export(batch, now);
        }
        for part in batch.parts {
            part.ack.resolve(Outcome::Delivered);
        }
    }
    fn admission(&self) -> Admission {
        self.0.admission()
    }
    fn deadline(&self) -> Option<Mono> {
        self.0.deadline()
    }
    fn tick(&mut self, now: Mono) {
        self.0.tick(now);
    }
    fn flush(&mut self, now: Mono) {
        self.0.flush(now);
    }
}

impl Breaks for LeavesHoles {
    fn exporter(&self, exporter: Box<dyn Exporter>) -> Box<dyn Exporter> {
        Box::new(HolesExporter(exporter, 0))
    }
}

/// What is different about the state's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Names are never synchronised.
    NoDirSync,
    /// Content is never synchronised.
    NoFileSync,
    /// What is there at a start is not found.
    Forgotten,
}

impl Breaks for State {
    fn state_fs(&self, fs: Arc<dyn Fs>) -> Arc<dyn Fs> {
        Arc::new(StateFs(fs, *self))
    }
}

struct StateFs(Arc<dyn Fs>, State);

struct StateFile(Box<dyn FsFile>, State);

impl FsFile for StateFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }
    fn byte_len(&self) -> io::Result<u64> {
        self.0.byte_len()
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        match self.1 {
            State::NoFileSync => Ok(()),
            _ => self.0.sync_data(),
        }
    }
    fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.0.try_lock_exclusive()
    }
}

impl StateFs {
    fn file(&self, file: io::Result<Box<dyn FsFile>>) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(StateFile(file?, self.1)))
    }
}

impl Fs for StateFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.file(self.0.open(path))
    }
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.file(self.0.open_append(path))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.file(self.0.create(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.1 {
            State::NoDirSync => Ok(()),
            _ => self.0.sync_dir(dir),
        }
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        match self.1 {
            State::Forgotten => Ok(Vec::new()),
            _ => self.0.list(dir),
        }
    }
    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        self.0.create_dir(dir, mode)
    }
}

/// What is wrong about answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    /// Requests that are refused with 429 are given up.
    DropOn429,
    /// A 5xx counts as delivered.
    TrustServerErrors,
    /// No answer counts as delivered.
    TrustSilence,
    /// Of a request that is divided only the first part is sent.
    ForgetParts,
    /// A success that is none counts as one.
    TrustAnySuccess,
    /// What a 400 names is not counted.
    ForgetRefusals,
    /// A 400 is taken for a refusal of all of a request.
    DropOn400,
}

impl Breaks for Answers {
    fn judge(&self, judge: Arc<dyn Judge<Acks>>) -> Arc<dyn Judge<Acks>> {
        Arc::new(BrokenJudge(judge, *self))
    }
}

struct BrokenJudge(Arc<dyn Judge<Acks>>, Answers);

impl Judge<Acks> for BrokenJudge {
    fn judge(
        &self,
        request: &mut OutgoingRequest<Acks>,
        result: Result<Reply, SendError>,
    ) -> Verdict<Acks> {
        let status = result.as_ref().map_or(0, |r| r.status.as_u16());
        match (self.1, status) {
            (Answers::DropOn429, 429) => Verdict::Drop {
                reason: DropReason::RateLimited,
                cause: "broken on purpose".into(),
            },
            (Answers::DropOn400, 400) => Verdict::Drop {
                reason: DropReason::Rejected,
                cause: "broken on purpose".into(),
            },
            (Answers::ForgetRefusals, 400)
            | (Answers::TrustServerErrors, 500..600)
            | (Answers::TrustSilence, 0)
            | (Answers::TrustAnySuccess, 200..300) => Verdict::Delivered,
            (Answers::ForgetParts, _) => match self.0.judge(request, result) {
                Verdict::Replace { parts, dropped } => Verdict::Replace {
                    parts: parts.into_iter().enumerate().filter_map(first).collect(),
                    dropped,
                },
                other => other,
            },
            _ => self.0.judge(request, result),
        }
    }
    fn given_up(&self, body: &[Bytes], tenant: Option<&str>, reason: DropReason, cause: &str) {
        self.0.given_up(body, tenant, reason, cause);
    }
    fn divisions(&self) -> u64 {
        self.0.divisions()
    }
    fn divide(&self, request: &mut OutgoingRequest<Acks>) -> Vec<OutgoingRequest<Acks>> {
        self.0.divide(request)
    }
}

fn first((i, part): (usize, OutgoingRequest<Acks>)) -> Option<OutgoingRequest<Acks>> {
    if i == 0 {
        return Some(part);
    }
    part.duty.resolve(Outcome::Delivered);
    None
}

/// What is wrong about log files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logs {
    /// A file that has another name now is not read on, and rotated files are not looked for.
    LeavesRotated,
    /// Content that was read once is taken for what is there.
    SeesNoTruncation,
}

impl Breaks for Logs {
    fn log_fs(&self, fs: Arc<dyn LogFs>) -> Arc<dyn LogFs> {
        Arc::new(BrokenLogs(fs, *self))
    }
}

struct BrokenLogs(Arc<dyn LogFs>, Logs);

struct BrokenLog {
    file: Box<dyn LogFile>,
    fs: Arc<dyn LogFs>,
    path: PathBuf,
    kind: Logs,
    /// What was read so far, from the beginning.
    seen: Mutex<Vec<u8>>,
}

impl LogFs for BrokenLogs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(BrokenLog {
            file: self.0.open(path)?,
            fs: self.0.clone(),
            path: path.to_path_buf(),
            kind: self.1,
            seen: Mutex::default(),
        }))
    }
    fn look(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        self.0.look(path)
    }
    fn look_through(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        self.0.look_through(path)
    }
    fn list(&self, dir: &Path, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
        let hide = self.1 == Logs::LeavesRotated;
        self.0.list(dir, &mut |e| {
            let is_log = Path::new(&e.name).extension().is_some_and(|x| x == "log");
            if is_log || !hide {
                each(e);
            }
        })
    }
    fn owner(&self, path: &Path) -> io::Result<Owner> {
        self.0.owner(path)
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.resolve(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
}

impl LogFile for BrokenLog {
    fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
        if self.kind == Logs::LeavesRotated {
            let here = self
                .fs
                .meta(&self.path)
                .is_ok_and(|m| self.file.meta().is_ok_and(|o| o.id == m.id));
            return if here {
                self.file.read_at(offset, max, buf)
            } else {
                Ok(0)
            };
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(seen.len());
        if seen.len() < offset as usize + max {
            let end = seen.len() as u64;
            self.file
                .read_at(end, offset as usize + max - end as usize, &mut seen)?;
        }
        let to = (from + max).min(seen.len());
        buf.extend_from_slice(&seen[from..to]);
        Ok(to - from)
    }
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok(Some(from))
    }
    fn meta(&self) -> io::Result<Meta> {
        self.file.meta()
    }
    fn forget_pages(&self) -> io::Result<()> {
        Ok(())
    }
    fn try_lock_shared(&self) -> io::Result<bool> {
        Ok(true)
    }
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines without a time of their own get the time at which they are passed on.
pub struct TimesOfNow;

struct NowProcessor(Arc<dyn Clock>);

impl Processor for NowProcessor {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let mut parts: Vec<LogsPart> = batch.into_logs().collect();
        for part in &mut parts {
            let now = self.0.wall_ns();
            let rows = part.logs.rows();
            for (i, time) in part.logs.observed.each_mut(rows).iter_mut().enumerate() {
                *time = now + i as i64;
            }
        }
        out.emit(Batch::of_logs(parts));
    }
}

impl Breaks for TimesOfNow {
    fn processor(&self, cx: &NodeCx) -> Option<Box<dyn Processor>> {
        Some(Box::new(NowProcessor(cx.clock.clone())))
    }
}

/// A canary: its name, what is broken, the number of seeds within which it has to be caught, and
/// the first of them.
pub type Canary = (&'static str, Box<dyn Breaks>, u64, u64);

/// All of them.
pub fn all() -> Vec<Canary> {
    vec![
        ("acks before delivery", Box::new(AcksEarly), 20, 0),
        ("a batch is passed over", Box::new(LeavesHoles), 20, 0),
        (
            "names are not synchronised",
            Box::new(State::NoDirSync),
            2_000,
            0,
        ),
        (
            "content is not synchronised",
            Box::new(State::NoFileSync),
            400,
            0,
        ),
        (
            "positions are not found again",
            Box::new(State::Forgotten),
            20,
            0,
        ),
        ("a 429 is given up", Box::new(Answers::DropOn429), 50, 0),
        (
            "a 5xx counts as success",
            Box::new(Answers::TrustServerErrors),
            600,
            0,
        ),
        (
            "silence counts as success",
            Box::new(Answers::TrustSilence),
            50,
            0,
        ),
        (
            "any 2xx counts as success",
            Box::new(Answers::TrustAnySuccess),
            400,
            0,
        ),
        (
            "parts are forgotten",
            Box::new(Answers::ForgetParts),
            300,
            0,
        ),
        (
            "refusals are not counted",
            Box::new(Answers::ForgetRefusals),
            50,
            0,
        ),
        (
            "a 400 is taken for all of a request",
            Box::new(Answers::DropOn400),
            50,
            0,
        ),
        (
            "rotated files are left",
            Box::new(Logs::LeavesRotated),
            50,
            0,
        ),
        (
            "truncation is not seen",
            Box::new(Logs::SeesNoTruncation),
            100,
            COPYTRUNCATE_FROM,
        ),
        ("times are those of sending", Box::new(TimesOfNow), 50, 0),
    ]
}
