//! The files that the receivers read. Each receiver's own thread is asked, and answers in its time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use globset::GlobBuilder;
use serde::Serialize;
use tailwater_pipeline::files::{
    FileStatus, FilesPage, FilesPart, FilesQuery, PathFilter, TailedFiles,
};
use tailwater_telemetry::rfc3339_nano;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::shown::InForce;

/// Files of an answer if nothing is said.
const LIMIT_DEFAULT: usize = 1_000;
/// Files of an answer at most.
const LIMIT_MAX: usize = 10_000;
/// How long the receivers have for an answer; a look at all files may be under way.
const PATIENCE: Duration = Duration::from_secs(10);
/// What makes a pattern of a path.
const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

/// A lane of a receiver that reads files.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The receiver.
    pub receiver: String,
    /// The exporter it reads for, if it has several.
    pub exporter: Option<String>,
    /// Where it is asked.
    pub files: Arc<dyn TailedFiles>,
}

impl Reader {
    /// What it is called in messages.
    fn name(&self) -> String {
        match &self.exporter {
            None => self.receiver.clone(),
            Some(exporter) => format!("{} to {exporter}", self.receiver),
        }
    }
}

/// Where an answer goes on: behind this file of this reader.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor {
    reader: String,
    no: u64,
}

impl Cursor {
    fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}:{}", self.no, self.reader))
    }

    fn read(text: &str) -> Option<Cursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (no, reader) = text.split_once(':')?;
        let no = no.parse().ok()?;
        Some(Cursor {
            reader: reader.to_owned(),
            no,
        })
    }
}

/// What is asked for: the query of a request.
pub struct Wanted {
    receiver: Option<String>,
    paths: Option<PathFilter>,
    limit: usize,
    after: Option<Cursor>,
    by_lag: bool,
}

impl Wanted {
    /// So many files, those that are furthest behind.
    pub fn furthest_behind(limit: usize) -> Wanted {
        Wanted {
            receiver: None,
            paths: None,
            limit,
            after: None,
            by_lag: true,
        }
    }
}

/// What is wrong with a query, for people.
#[derive(Debug)]
pub enum Mistake {
    /// It is none of those that the description of the API has.
    Form(String),
    /// It is one, and asks for what there is not.
    Value(String),
}

/// Reads a query.
///
/// # Errors
/// See [`Mistake`].
pub fn wanted(query: Option<&str>) -> Result<Wanted, Mistake> {
    let mut wanted = Wanted {
        receiver: None,
        paths: None,
        limit: LIMIT_DEFAULT,
        after: None,
        by_lag: false,
    };
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*key {
            "receiver" => wanted.receiver = Some(value.into_owned()),
            "path" => wanted.paths = Some(paths(&value).map_err(Mistake::Value)?),
            "limit" => {
                let limit = value.parse().ok();
                let limit = limit.filter(|n| (1..=LIMIT_MAX).contains(n));
                let text = || format!("limit is {value:?}; it is from 1 to {LIMIT_MAX}");
                wanted.limit = limit.ok_or_else(|| Mistake::Form(text()))?;
            }
            "after" => {
                let cursor = Cursor::read(&value);
                let text = || format!("after is {value:?}; it is what next was in an answer");
                wanted.after = Some(cursor.ok_or_else(|| Mistake::Value(text()))?);
            }
            "order" => {
                wanted.by_lag = match &*value {
                    "found" => false,
                    "lag" => true,
                    _ => {
                        let text = format!("order is {value:?}; it is found or lag");
                        return Err(Mistake::Form(text));
                    }
                }
            }
            _ => {
                return Err(Mistake::Form(format!(
                    "{key:?} is not known here; there are receiver, path, limit, after, order"
                )));
            }
        }
    }
    match wanted.by_lag && wanted.after.is_some() {
        true => {
            let text = "after goes with order=found only: by lag there is one answer";
            Err(Mistake::Value(text.to_owned()))
        }
        false => Ok(wanted),
    }
}

/// A whole path as a glob if there is a wildcard in it, else what paths begin with.
fn paths(text: &str) -> Result<PathFilter, String> {
    if !text.contains(WILDCARDS) {
        let prefix = text.as_bytes().to_vec();
        let begins = move |path: &Path| path.as_os_str().as_encoded_bytes().starts_with(&prefix);
        return Ok(Arc::new(begins));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    let glob = glob.map_err(|e| format!("path is no pattern: {e}"))?;
    let glob = glob.compile_matcher();
    Ok(Arc::new(move |path: &Path| glob.is_match(path)))
}

/// A file as JSON has it.
#[derive(Serialize)]
struct File<'a> {
    receiver: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter: Option<&'a str>,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    device: u64,
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    birth_ns: Option<i64>,
    generation: u64,
    compressed: bool,
    size: u64,
    read: u64,
    acknowledged: u64,
    lag_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<f64>,
    changed: String,
    state: &'static str,
    held_deleted_bytes: u64,
}

impl<'a> File<'a> {
    fn new(reader: &'a Reader, file: &FileStatus) -> File<'a> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        File {
            receiver: &reader.receiver,
            exporter: reader.exporter.as_deref(),
            path: text(&file.path),
            place: file.place.as_deref().map(text),
            device: file.device,
            inode: file.inode,
            birth_ns: file.birth_ns,
            generation: file.generation,
            compressed: file.compressed,
            size: file.size,
            read: file.read,
            acknowledged: file.acknowledged,
            lag_bytes: file.lag_bytes,
            lag_seconds: file.lag.map(|lag| (lag.as_secs_f64() * 1e3).round() / 1e3),
            changed: rfc3339_nano(file.changed_ns),
            state: file.state.name(),
            held_deleted_bytes: file.held_deleted_bytes,
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    generation: u64,
    files: Vec<File<'a>>,
    next: Option<String>,
    /// Readers that did not answer: they have not begun, or look at many files.
    unanswered: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSuchReceiver(pub String);

/// Asks the receivers, and gives the answer as JSON.
///
/// # Errors
/// The receiver that is named reads no files.
pub async fn files(in_force: &InForce, wanted: &Wanted) -> Result<String, NoSuchReceiver> {
    let mut readers: Vec<&Reader> = in_force.readers.iter().collect();
    readers.sort_by_key(|r| r.name());
    if let Some(id) = &wanted.receiver {
        let mut known: Vec<&str> = readers.iter().map(|r| r.receiver.as_str()).collect();
        known.dedup();
        if !known.contains(&id.as_str()) {
            let known = known.join(", ");
            let known = if known.is_empty() { "none" } else { &known };
            let text = format!("no receiver {id:?} reads files; those that do: {known}");
            return Err(NoSuchReceiver(text));
        }
        readers.retain(|r| r.receiver == *id);
    }
    let mut answer = Answer {
        generation: in_force.generation,
        files: Vec::new(),
        next: None,
        unanswered: Vec::new(),
    };
    let until = Instant::now() + PATIENCE;
    match wanted.by_lag {
        true => by_lag(&readers, wanted, until, &mut answer).await,
        false => in_order(&readers, wanted, until, &mut answer).await,
    }
    let text = serde_json::to_string(&answer).expect("text and numbers are JSON");
    Ok(text + "\n")
}

/// Asks one reader. None if it does not answer in time.
async fn ask(reader: &Reader, query: FilesQuery, until: Instant) -> Option<FilesPage> {
    let (tell, told) = oneshot::channel();
    // Whoever asked may be gone.
    let answer = Box::new(move |page| drop(tell.send(page)));
    reader.files.ask(query, answer);
    timeout_at(until, told).await.ok()?.ok()
}

/// One reader after the other, from the cursor on, until the answer is full.
async fn in_order<'a>(
    readers: &[&'a Reader],
    wanted: &Wanted,
    until: Instant,
    answer: &mut Answer<'a>,
) {
    for reader in readers {
        let name = reader.name();
        let from = match &wanted.after {
            Some(cursor) if name < cursor.reader => continue,
            Some(cursor) if name == cursor.reader => cursor.no,
            _ => 0,
        };
        let query = FilesQuery {
            paths: wanted.paths.clone(),
            part: FilesPart::After(from),
            limit: wanted.limit - answer.files.len(),
        };
        let Some(page) = ask(reader, query, until).await else {
            answer.unanswered.push(name);
            continue;
        };
        let last = page.files.last().map_or(from, |f| f.no);
        let new = page.files.iter().map(|f| File::new(reader, f));
        answer.files.extend(new);
        // One that is full says by this whether there is more, also if that is of the next reader.
        if page.more || answer.files.len() == wanted.limit && !is_last(reader, readers) {
            let cursor = Cursor {
                reader: name,
                no: last,
            };
            answer.next = Some(cursor.text());
            return;
        }
    }
}

fn is_last(reader: &Reader, readers: &[&Reader]) -> bool {
    readers.last().is_some_and(|r| std::ptr::eq(*r, reader))
}

/// The files that are furthest behind, of all readers.
async fn by_lag<'a>(
    readers: &[&'a Reader],
    wanted: &Wanted,
    until: Instant,
    answer: &mut Answer<'a>,
) {
    for reader in readers {
        let query = FilesQuery {
            paths: wanted.paths.clone(),
            part: FilesPart::FurthestBehind,
            limit: wanted.limit,
        };
        match ask(reader, query, until).await {
            Some(page) => {
                let new = page.files.iter().map(|f| File::new(reader, f));
                answer.files.extend(new);
            }
            None => answer.unanswered.push(reader.name()),
        }
    }
    let furthest = |f: &File<'_>| std::cmp::Reverse(f.lag_bytes);
    answer.files.sort_by_key(furthest);
    answer.files.truncate(wanted.limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tailwater_config::{Node, NodeValue, Span};
    use tailwater_pipeline::files::{FileState, FilesAnswer};
    use tailwater_pipeline::plan::GraphSpec;

    /// Has files of these lags, numbered from 1; none: it does not answer.
    #[derive(Debug)]
    struct Fake(Option<Vec<u64>>);

    impl TailedFiles for Fake {
        fn ask(&self, query: FilesQuery, answer: FilesAnswer) {
            let Some(lags) = &self.0 else {
                return;
            };
            let mut files: Vec<FileStatus> =
                (1..).zip(lags).map(|(no, lag)| file(no, *lag)).collect();
            files.retain(|f| query.paths.as_ref().is_none_or(|takes| takes(&f.path)));
            match query.part {
                FilesPart::After(after) => files.retain(|f| f.no > after),
                FilesPart::FurthestBehind => files.sort_by_key(|f| std::cmp::Reverse(f.lag_bytes)),
            }
            let more = files.len() > query.limit;
            files.truncate(query.limit);
            answer(FilesPage { files, more });
        }
    }

    fn file(no: u64, lag_bytes: u64) -> FileStatus {
        FileStatus {
            no,
            path: Path::new(&format!("/var/log/{no}.log")).into(),
            place: (no == 2).then(|| Path::new("/var/log/old/2.log").into()),
            device: 7,
            inode: no,
            birth_ns: (no == 1).then_some(5),
            generation: 0,
            compressed: false,
            size: 100 + lag_bytes,
            read: 100,
            acknowledged: 100,
            lag_bytes,
            lag: (lag_bytes == 0).then_some(Duration::ZERO),
            changed_ns: 0,
            state: FileState::Open,
            held_deleted_bytes: 0,
        }
    }

    /// A receiver, its exporter if it has several, and the lags of its files.
    type Read<'a> = (&'a str, Option<&'a str>, Option<Vec<u64>>);

    fn in_force(readers: Vec<Read<'_>>) -> InForce {
        let reader = |(receiver, exporter, lags): Read<'_>| Reader {
            receiver: receiver.to_owned(),
            exporter: exporter.map(str::to_owned),
            files: Arc::new(Fake(lags)),
        };
        InForce {
            generation: 3,
            config: Node::new(NodeValue::Null, Span::start_of("config")),
            graph: GraphSpec::default(),
            layer: None,
            resource: Vec::new(),
            generations: Vec::new(),
            readers: readers.into_iter().map(reader).collect(),
        }
    }

    fn get(in_force: &InForce, query: &str) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let wanted = wanted(Some(query)).unwrap();
        let text = runtime.block_on(files(in_force, &wanted)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn names(answer: &Value) -> Vec<String> {
        let files = answer["files"].as_array().unwrap().iter();
        let text = |f: &Value, key: &str| f[key].as_str().unwrap_or("-").to_owned();
        files
            .map(|f| {
                format!(
                    "{} {} {}",
                    text(f, "receiver"),
                    text(f, "exporter"),
                    f["inode"]
                )
            })
            .collect()
    }

    /// Guarantee: page by page each file of each reader is told once, whatever the pages are cut like,
    /// and the last page says that it is the last.
    #[test]
    fn pages_have_each_file_once() {
        let there = in_force(vec![
            ("file_log", Some("b"), Some(vec![0, 0])),
            ("file_log", Some("a"), Some(vec![0, 0, 0])),
            ("file_log/other", None, Some(vec![])),
            ("x", None, Some(vec![0])),
        ]);
        let all = names(&get(&there, ""));
        assert_eq!(all.len(), 6, "{all:?}");
        assert_eq!(
            (all[0].as_str(), all[5].as_str()),
            ("file_log a 1", "x - 1")
        );
        for limit in 1..=7 {
            let (mut found, mut after, mut pages) = (Vec::new(), String::new(), 0);
            loop {
                let page = get(&there, &format!("limit={limit}{after}"));
                assert!(page["files"].as_array().unwrap().len() <= limit);
                found.extend(names(&page));
                pages += 1;
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
                assert!(pages < 20, "it does not end");
            }
            assert_eq!(found, all, "{limit}");
        }
    }

    #[test]
    fn files_are_told_by_receiver_by_path_and_by_lag() {
        let there = in_force(vec![
            ("a", None, Some(vec![5, 0, 70])),
            ("b", None, Some(vec![60])),
        ]);
        assert_eq!(names(&get(&there, "receiver=b")), ["b - 1"]);
        let worst = get(&there, "order=lag&limit=3");
        assert_eq!(names(&worst), ["a - 3", "b - 1", "a - 1"]);
        assert_eq!(worst["next"], Value::Null);
        for (query, want) in [
            ("path=%2Fvar%2Flog%2F2", vec!["a - 2"]),
            ("path=/var/log/*.log&receiver=b", vec!["b - 1"]),
            ("path=/var/*.log", vec![]),
            ("path=/var/**/3.log", vec!["a - 3"]),
            ("path=/var/log/[23].log", vec!["a - 2", "a - 3"]),
            ("path=var", vec![]),
        ] {
            assert_eq!(names(&get(&there, query)), want, "{query}");
        }
        let unknown = wanted(Some("receiver=c")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let refused = runtime.block_on(files(&there, &unknown)).unwrap_err();
        assert!(refused.0.contains("a, b"), "{refused:?}");
    }

    #[test]
    fn what_is_not_known_is_left_out_and_who_is_silent_is_named() {
        let there = in_force(vec![("a", None, Some(vec![0, 9])), ("b", None, None)]);
        let answer = get(&there, "");
        assert_eq!(answer["generation"], 3);
        let [first, second] = answer["files"].as_array().unwrap().as_slice() else {
            panic!("{answer}");
        };
        assert_eq!(
            (&first["birth_ns"], &first["place"]),
            (&5.into(), &Value::Null)
        );
        assert_eq!(
            (&first["lag_seconds"], &first["state"]),
            (&0.0.into(), &"open".into())
        );
        assert!(second.get("lag_seconds").is_none() && second.get("birth_ns").is_none());
        assert_eq!(second["place"], "/var/log/old/2.log");
        assert_eq!(second["changed"], "1970-01-01T00:00:00Z");
        assert_eq!(answer["unanswered"], serde_json::json!(["b"]));
    }

    #[test]
    fn queries_are_read_strictly() {
        for query in [
            "limit=0",
            "limit=10001",
            "limit=-1",
            "limit=x",
            "limit",
            "after=x",
            "after=",
            "order=size",
            "path=[",
            "paths=/x",
            "order=lag&after=MTpi",
        ] {
            assert!(wanted(Some(query)).is_err(), "{query}");
        }
        let cursor = Cursor {
            reader: "a to b:c/ü".to_owned(),
            no: 77,
        };
        assert_eq!(Cursor::read(&cursor.text()), Some(cursor));
    }
}
