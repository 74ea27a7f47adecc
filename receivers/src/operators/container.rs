//! The `container` operator: lines as Docker, CRI-O and containerd write them.
//!
//! The message becomes the body, its time the timestamp, the stream the attribute `log.iostream`
//! and the tag of CRI lines `logtag`; lines the runtime split are joined (see `join`), and the
//! path of the file says which container it is (see `kubelet_path`).
//! Sources: the collector's container operator; the CRI log format; Docker's json-file driver,
//! which appends a line end to every line that is not cut at 16 KiB.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashSet;
use tailwater_pdata::{Cell, Column, Key, LogsBatch, Map, Slice, Times, Value, ValueRef};

use super::cri::{HeaderReader, Refusal, Stream, Tag};
use super::embedded::Embedded;
use super::field::{Field, Root};
use super::join::{Joiner, Lines};
use super::json_parser::{COLUMNS_MAX, FIELDS_MAX};
use super::json_shape::Shape;
use super::json_walk::{Range, Raw, RawField, unescape, walk};
use super::kubelet_path::{self, Metadata, NAMES};
use super::operator::{Due, Operator, OperatorCx, Rows};
use super::record_error::{RecordError, kind_of};

/// The size at which Docker cuts lines, in bytes.
const DOCKER_PART_BYTES: usize = 16 * 1024;

/// Code of a row without a value in a dictionary column.
const NO_CODE: u8 = u8::MAX;

/// Most values of a dictionary column.
const CODES_MAX: usize = NO_CODE as usize - 1;

/// What the lines look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// Found out for every line.
    Auto,
    Docker,
    Crio,
    Containerd,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Auto => "container",
            Format::Docker => "docker",
            Format::Crio => "crio",
            Format::Containerd => "containerd",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) format: Format,
    pub(super) add_metadata: bool,
    pub(super) parse_from: Field,
    pub(super) embedded: Embedded,
    pub(super) joiner: Joiner,
    pub(super) parser: LineParser,
    /// Memory for what is read of a batch.
    pub(super) lines: Lines,
    pub(super) paths: PathMemo,
}

/// Values of a column by code.
#[derive(Debug)]
struct Codes(Vec<Value>);

impl Codes {
    /// True if there is no room for another value.
    fn is_full(&self) -> bool {
        self.0.len() >= CODES_MAX
    }

    /// The code of `text`, for which there must be room.
    fn code(&mut self, text: &[u8]) -> u8 {
        let found = self
            .0
            .iter()
            .position(|v| v.as_ref().as_text() == Some(text));
        let code = found.unwrap_or_else(|| {
            self.0.push(ValueRef::Str(text).to_value());
            self.0.len() - 1
        });
        code as u8
    }

    fn cell(&self, code: u8, batch: &mut LogsBatch) -> Cell {
        match self.0.get(usize::from(code)) {
            Some(value) => batch.cell(value),
            None => Cell::Absent,
        }
    }

    /// The column of `codes`: a constant if all are the same.
    fn column(&self, codes: &[u8]) -> Option<Column> {
        let first = *codes.first()?;
        if codes.iter().any(|&c| c != first) {
            return Some(Column::dict(codes.to_vec(), self.0.clone()));
        }
        self.0
            .get(usize::from(first))
            .map(|v| Column::Const(v.clone()))
    }
}

/// What one line gave.
struct Line {
    body: Slice,
    time: i64,
    stream: u8,
    tag: u8,
    partial: bool,
}

/// Reads lines; its buffers live as long as the operator.
#[derive(Debug)]
pub(super) struct LineParser {
    reader: HeaderReader,
    /// Keys of the last Docker line.
    shape: Shape,
    fields: Vec<RawField>,
    scratch: Vec<u8>,
    streams: Codes,
    tags: Codes,
    /// Names of the attributes for these two.
    stream_key: Key,
    tag_key: Key,
    /// Fields of Docker lines that are neither of log, stream and time.
    extra: Vec<(usize, String, Value)>,
    /// Their names.
    extra_names: HashSet<String>,
}

impl Default for LineParser {
    fn default() -> Self {
        LineParser {
            reader: HeaderReader::default(),
            shape: Shape::default(),
            fields: Vec::new(),
            scratch: Vec::new(),
            streams: Codes(vec!["stdout".into(), "stderr".into()]),
            tags: Codes(vec!["F".into(), "P".into()]),
            stream_key: "log.iostream".into(),
            tag_key: "logtag".into(),
            extra: Vec::new(),
            extra_names: HashSet::default(),
        }
    }
}

impl LineParser {
    fn reset(&mut self) {
        self.streams.0.truncate(2);
        self.tags.0.truncate(2);
        self.extra.clear();
        self.extra_names.clear();
    }

    /// True if another line could be one too many for the columns of a batch.
    fn is_full(&self) -> bool {
        self.streams.is_full() || self.tags.is_full() || self.extra_names.len() > COLUMNS_MAX
    }

    /// Gives lines that were joined, by the rows of their first and last parts, the other fields of
    /// the first part, as they have them when the parts come in several batches.
    fn keep_first(&mut self, joined: &[(usize, usize)]) {
        if self.extra.is_empty() {
            return;
        }
        self.extra.retain_mut(|(row, _, _)| {
            if joined.binary_search_by_key(row, |(_, last)| *last).is_ok() {
                return false;
            }
            // Few lines are joined, and fewer have such fields.
            if let Some((_, last)) = joined.iter().find(|(first, _)| first == row) {
                *row = *last;
            }
            true
        });
    }

    #[inline]
    fn line(
        &mut self,
        batch: &mut LogsBatch,
        row: usize,
        text: Slice,
        format: Format,
    ) -> Result<Line, RecordError> {
        let bytes = batch.text.get(text);
        if format == Format::Docker || (format == Format::Auto && bytes.first() == Some(&b'{')) {
            let extra = self.extra.len();
            return self
                .docker(batch, row, text)
                .inspect_err(|_| self.extra.truncate(extra));
        }
        let header = self.reader.read(bytes).map_err(|refusal| match refusal {
            Refusal::Form => RecordError::Container(format.name()),
            Refusal::Time => RecordError::ContainerTime(format.name()),
        })?;
        if format == Format::Containerd && !header.utc {
            return Err(RecordError::Container(format.name()));
        }
        let (tag, partial) = match header.tag {
            Tag::Full => (0, false),
            Tag::Partial => (1, true),
            Tag::Other { len, partial } => {
                let tag = &bytes[header.tag_at..header.tag_at + len];
                (self.tags.code(tag), partial)
            }
        };
        let stream = match header.stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        let body = text.part(header.message_at, usize::MAX);
        Ok(Line {
            body,
            time: header.time,
            stream,
            tag,
            partial,
        })
    }

    fn docker(
        &mut self,
        batch: &mut LogsBatch,
        row: usize,
        text: Slice,
    ) -> Result<Line, RecordError> {
        let bytes = batch.text.get(text);
        let refused = RecordError::Container("docker");
        walk(bytes, false, &mut self.shape, &mut self.fields).map_err(|e| RecordError::Json {
            what: e.what,
            at: e.at,
        })?;
        if self.fields.len() > FIELDS_MAX {
            return Err(RecordError::TooManyFields(FIELDS_MAX));
        }
        let (mut log, mut stream, mut time) = (None, None, None);
        for field in &self.fields {
            match (field.key.of(bytes), &field.value) {
                (b"log", Raw::Str(range)) => log = Some(*range),
                (b"stream", Raw::Str(range)) => stream = Some(range.of(bytes)),
                (b"time", Raw::Str(range)) => time = Some(range.of(bytes)),
                (b"log" | b"stream" | b"time", _) => return Err(refused),
                (key, value) => {
                    let key = String::from_utf8_lossy(key).into_owned();
                    if !self.extra_names.contains(&key) {
                        self.extra_names.insert(key.clone());
                    }
                    self.extra.push((row, key, owned(value, bytes)));
                }
            }
        }
        let log = log.ok_or(refused)?;
        let time = time
            .and_then(|t| self.reader.time(t).filter(|(_, _, len)| *len == t.len()))
            .ok_or(RecordError::ContainerTime("docker"))?;
        let stream = stream.map_or(NO_CODE, |text| self.streams.code(text));
        let (body, ends) = self.message(batch, text, log);
        // A line that was cut has no line end; short ones without it are a last line without one.
        let partial = !ends && body.len() >= DOCKER_PART_BYTES;
        Ok(Line {
            body,
            time: time.0,
            stream,
            tag: NO_CODE,
            partial,
        })
    }

    /// The message without its line end, and whether it had one. Copied only if it has escapes
    /// other than that line end.
    fn message(&mut self, batch: &mut LogsBatch, text: Slice, log: Range) -> (Slice, bool) {
        let written = text.part(log.start as usize, log.len as usize);
        let bytes = batch.text.get(written);
        if !log.is_escaped() {
            return (written, false);
        }
        if log.escape + 2 == log.len && bytes.ends_with(b"\\n") {
            return (written.part(0, log.escape as usize), true);
        }
        self.scratch.clear();
        unescape(bytes, &mut self.scratch);
        let ends = self.scratch.last() == Some(&b'\n');
        if ends {
            self.scratch.pop();
        }
        (batch.text.push(&self.scratch), ends)
    }
}

fn owned(value: &Raw, text: &[u8]) -> Value {
    match value {
        Raw::Null => Value::Null,
        Raw::Bool(b) => Value::Bool(*b),
        Raw::Int(i) => Value::Int(*i),
        Raw::Double(d) => Value::Double(*d),
        Raw::Str(range) => {
            let mut out = Vec::new();
            unescape(range.of(text), &mut out);
            ValueRef::Str(&out).to_value()
        }
        Raw::Nested(v) => v.clone(),
    }
}

impl Container {
    /// Reads rows up to the first that is not an ordinary CRI line. The hot path: nearly every
    /// line of nearly every batch is one.
    fn read_cri(&mut self, batch: &LogsBatch, lines: &mut Lines) {
        let Column::Slices(bodies) = &batch.body else {
            return;
        };
        let utc_only = self.format == Format::Containerd;
        lines.resize(bodies.len());
        // Walking the columns side by side spares five checks of room per line.
        let columns = lines
            .body
            .iter_mut()
            .zip(&mut lines.time)
            .zip(&mut lines.stream);
        let columns = columns.zip(&mut lines.tag).zip(&mut lines.partial);
        let mut read = 0;
        for (&text, ((((body, time), stream), tag), partial)) in bodies.iter().zip(columns) {
            let Ok(header) = self.parser.reader.read(batch.text.get(text)) else {
                break;
            };
            if matches!(header.tag, Tag::Other { .. }) || (utc_only && !header.utc) {
                break;
            }
            *body = text.part(header.message_at, usize::MAX);
            *time = header.time;
            *stream = u8::from(header.stream == Stream::Stderr);
            *partial = header.tag == Tag::Partial;
            *tag = u8::from(*partial);
            read += 1;
        }
        lines.resize(read);
    }

    /// Reads the active rows; those that cannot be read fail.
    fn read(&mut self, batch: &mut LogsBatch, rows: &mut Rows) -> Lines {
        let n = rows.len();
        let mut lines = std::mem::take(&mut self.lines);
        lines.resize(0);
        self.parser.reset();
        let of_body = self.parse_from == Field::body();
        if of_body && rows.all_active() && self.format != Format::Docker {
            self.read_cri(batch, &mut lines);
        }
        for row in lines.body.len()..n {
            if self.parser.is_full() {
                rows.split(row);
                break;
            }
            let text = match &batch.body {
                Column::Slices(s) if of_body && !s[row].is_absent() => Ok(s[row]),
                _ => text_of(&self.parse_from, batch, row, "container"),
            };
            let line = match text {
                _ if !rows.is_active(row) => None,
                Ok(text) => match self.parser.line(batch, row, text, self.format) {
                    Ok(line) => Some(line),
                    Err(e) => {
                        rows.fail(row, || e);
                        None
                    }
                },
                Err(e) => {
                    rows.fail(row, || e);
                    None
                }
            };
            let nothing = Line {
                body: Slice::ABSENT,
                time: 0,
                stream: NO_CODE,
                tag: NO_CODE,
                partial: false,
            };
            let line = line.unwrap_or(nothing);
            lines.body.push(line.body);
            lines.time.push(line.time);
            lines.stream.push(line.stream);
            lines.tag.push(line.tag);
            lines.partial.push(line.partial);
        }
        lines
    }

    /// Puts what was read into the batch; bodies and times stay in `lines` only with `keep`.
    /// `whole`: every row was read.
    fn put(
        &mut self,
        batch: &mut LogsBatch,
        rows: &Rows,
        lines: &mut Lines,
        whole: bool,
        keep: bool,
    ) {
        let LineParser { streams, tags, .. } = &self.parser;
        let (stream_key, tag_key) = (&self.parser.stream_key, &self.parser.tag_key);
        if whole {
            let (body, time) = match keep {
                true => (lines.body.clone(), lines.time.clone()),
                false => (
                    std::mem::take(&mut lines.body),
                    std::mem::take(&mut lines.time),
                ),
            };
            batch.body = Column::Slices(body);
            batch.time = Times::Each(time);
            if let Some(column) = streams.column(&lines.stream) {
                batch.attributes.set(stream_key.clone(), column);
            }
            if let Some(column) = tags.column(&lines.tag) {
                batch.attributes.set(tag_key.clone(), column);
            }
        } else {
            let n = batch.rows();
            for row in (0..rows.len()).filter(|&row| !lines.body[row].is_absent()) {
                batch.set_body(row, Cell::Str(lines.body[row]));
                batch.time.each_mut(n)[row] = lines.time[row];
                let cells = [
                    (stream_key, streams, lines.stream[row]),
                    (tag_key, tags, lines.tag[row]),
                ];
                for (key, codes, code) in cells {
                    if code != NO_CODE {
                        let cell = codes.cell(code, batch);
                        batch.set_attribute(row, key, cell);
                    }
                }
            }
        }
        for (row, key, value) in self.parser.extra.drain(..) {
            let cell = batch.cell(&value);
            batch.set_attribute(row, &key, cell);
        }
    }

    fn add_metadata(&mut self, batch: &mut LogsBatch, rows: &mut Rows) {
        const PATH: &str = "log.file.path";
        if rows.split_at.is_none()
            && rows.all_that_stay()
            && let Some(Column::Const(path)) = batch.attributes.get(PATH)
        {
            let path = path.clone();
            match self.paths.find(path.as_ref().as_text().unwrap_or_default()) {
                Some(_) => self.paths.set_all(batch),
                None => {
                    for row in (0..rows.len())
                        .filter(|&row| rows.is_active(row))
                        .collect::<Vec<_>>()
                    {
                        rows.fail(row, || RecordError::FilePath);
                    }
                }
            }
            return;
        }
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            let Some(path) = batch.attribute(row, PATH).and_then(ValueRef::as_text) else {
                rows.fail(row, || RecordError::NoFilePath);
                continue;
            };
            let Some(found) = self.paths.find(path) else {
                rows.fail(row, || RecordError::FilePath);
                continue;
            };
            for (name, value) in NAMES.iter().zip(found) {
                if batch.resource_attribute(row, name) != Some(value.as_ref()) {
                    let cell = batch.cell(value);
                    batch.set_resource_attribute(row, name, cell);
                }
            }
        }
    }
}

impl Operator for Container {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        let mut lines = self.read(batch, rows);
        let whole = rows.all_active() && rows.split_at.is_none();
        let joined = match self.joiner.is_idle(&lines) {
            true => None,
            false => Some(self.joiner.join(&mut lines, batch, rows, cx)),
        };
        if let Some(joined) = &joined {
            self.parser.keep_first(&joined.within);
        }
        self.put(batch, rows, &mut lines, whole, joined.is_some());
        if self.add_metadata {
            self.add_metadata(batch, rows);
        }
        if let Some(joined) = joined {
            self.joiner.settle(joined, &lines, batch, rows, cx);
        }
        self.lines = lines;
        self.embedded.process(batch, rows, cx);
    }

    fn due(&mut self, cx: &mut OperatorCx) -> Vec<Due> {
        self.joiner.due(cx)
    }

    fn finish(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        self.embedded.process(batch, rows, cx);
    }

    fn deadline(&self) -> Option<Duration> {
        self.joiner.deadline()
    }

    fn holds(&self, lineage: u64, source: u64) -> bool {
        self.joiner.holds(lineage, source)
    }

    fn held_from(&self, source: u64) -> Option<u64> {
        self.joiner.held_from(source)
    }

    fn held_starts(&self, source: u64, out: &mut Vec<u64>) {
        self.joiner.held_starts(source, out);
    }

    fn held_bytes(&self) -> usize {
        self.joiner.held_bytes()
    }

    fn forget(&mut self, source: u64) -> Vec<u64> {
        self.joiner.forget(source)
    }
}

/// The text at `field`, as a slice of the batch, for an operator of the type `parser`.
pub(super) fn text_of(
    field: &Field,
    batch: &mut LogsBatch,
    row: usize,
    parser: &'static str,
) -> Result<Slice, RecordError> {
    match field.cell(batch, row) {
        Some(Cell::Str(slice)) => Ok(slice),
        Some(_) => {
            let found = field.get(batch, row).map_or("nothing", kind_of);
            Err(RecordError::NotText { parser, found })
        }
        None if field.root == Root::Body && field.keys.is_empty() => Err(RecordError::NotText {
            parser,
            found: "an empty body",
        }),
        None => Err(field.missing()),
    }
}

/// What the path last seen says, and the resource it made of the one that came with the batch.
#[derive(Debug, Default)]
pub(super) struct PathMemo {
    path: Vec<u8>,
    found: Option<Metadata>,
    resource: Option<(Arc<Map>, Arc<Map>)>,
}

impl PathMemo {
    fn find(&mut self, path: &[u8]) -> Option<&Metadata> {
        if self.path != path || path.is_empty() {
            self.path = path.to_vec();
            self.found = kubelet_path::metadata(path);
            self.resource = None;
        }
        self.found.as_ref()
    }

    /// Gives every row of `batch` what was found last.
    fn set_all(&mut self, batch: &mut LogsBatch) {
        let Some(found) = &self.found else { return };
        if let Some((before, after)) = &self.resource
            && batch.resource_rows.is_empty()
            && Arc::ptr_eq(before, &batch.resource)
        {
            batch.resource = after.clone();
            return;
        }
        let before = batch.resource.clone();
        for (name, value) in NAMES.iter().zip(found) {
            batch.set_resource_all(name, value.clone());
        }
        self.resource = Some((before, batch.resource.clone()));
    }
}
