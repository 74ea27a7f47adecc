//! What there is, and then what changes.
//!
//! A list is asked for once; from its version on, a watch tells what is added, changed and deleted. A watch that ends, as all do after
//! some minutes, goes on from the version it came to (bookmarks bring that forward where nothing happens). Only where the
//! server has forgotten that version (410) the list is asked for again, and if that does not help at once, ever more rarely.
//!
//! Source: "Efficient detection of changes" in the API concepts of Kubernetes, and what the reflector of `client-go` does.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::backoff::Backoff;
use crate::client::{ApiError, Client, Form};
use crate::lines::{Lines, TooLong};
use crate::model::{List, Meta, Object, Status};

/// Objects of a page of a list.
const PAGE: u32 = 500;
/// Objects of a list. More are an error: an agent is not meant to hold all of a large cluster.
const OBJECTS_MAX: usize = 200_000;
/// How long a watch is asked to last, and how much longer at most, at random.
const LASTS: Duration = Duration::from_secs(300);
/// How much longer a watch may stand still than it was asked to last.
const SILENCE_MORE: Duration = Duration::from_secs(30);
/// Watches that end by themselves sooner than this are not begun again at once.
const SHORT: Duration = Duration::from_secs(1);

/// Which objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Their path, as `/api/v1/pods` or `/apis/apps/v1/namespaces/shop/replicasets`.
    pub path: String,
    /// `labelSelector`; empty for all.
    pub labels: String,
    /// `fieldSelector`; empty for all.
    pub fields: String,
    /// How they are asked for.
    pub form: Form,
}

/// What is told.
#[derive(Debug)]
pub enum Change<'e, T> {
    /// These are all that there are now.
    All(Vec<T>),
    /// One is new or changed.
    Set(T),
    /// One is no more; this is how it was at last.
    Gone(T),
    /// An attempt failed; the next one comes after this pause. What was told stays as it is.
    Failed(&'e ApiError, Duration),
}

impl Watch {
    fn query(&self, more: &[(&str, &str)]) -> String {
        let mut url = format!("{}?", self.path);
        let own = [
            ("labelSelector", &*self.labels),
            ("fieldSelector", &*self.fields),
        ];
        for (key, value) in own
            .iter()
            .chain(more)
            .filter(|(_, value)| !value.is_empty())
        {
            if !url.ends_with('?') {
                url.push('&');
            }
            url.push_str(key);
            url.push('=');
            escape(value, &mut url);
        }
        url
    }
}

/// Percent-encoding of a value of a query (RFC 3986).
fn escape(value: &str, out: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Tells `tell` of everything `watch` is about, from now on and until it is dropped. To be run on a runtime. `seed` spreads
/// pauses.
pub async fn follow<T: Object>(
    client: Client,
    watch: Watch,
    seed: u64,
    tell: impl FnMut(Change<'_, T>),
) {
    follow_and_list(client, watch, Duration::MAX, seed, tell).await;
}

/// As [`follow`], and everything is asked for again every so often, in case that something was not told.
pub async fn follow_and_list<T: Object>(
    client: Client,
    watch: Watch,
    every: Duration,
    seed: u64,
    mut tell: impl FnMut(Change<'_, T>),
) {
    let mut backoff = Backoff::new(seed);
    // Any version that the server has at hand: the cheapest for it.
    let mut oldest = "0";
    loop {
        let mut version = loop {
            match list(&client, &watch, oldest).await {
                Ok((objects, version)) => {
                    tell(Change::All(objects));
                    break version;
                }
                Err(error) => {
                    if error.is_gone() {
                        oldest = "";
                    }
                    rest(&mut backoff, &error, &mut tell).await;
                }
            }
        };
        let listed = Instant::now();
        loop {
            let began = Instant::now();
            let left = every.saturating_sub(listed.elapsed()).max(SHORT);
            let lasts = (LASTS + backoff.part_of(LASTS)).min(left);
            let mut told = false;
            let ended = {
                let mut tell = |change: Change<'_, T>| {
                    told = true;
                    tell(change);
                };
                watch_from(&client, &watch, &mut version, lasts, &mut tell).await
            };
            // What it had to tell shows that going on from a version works, unless it turned out at once that it does not.
            if told && (began.elapsed() >= SHORT || !ended.as_ref().is_err_and(needs_list)) {
                backoff.reset();
            }
            match ended {
                // Not what is at hand: that may be older than what was told.
                Ok(()) if listed.elapsed() >= every => {
                    oldest = "";
                    break;
                }
                Ok(()) if began.elapsed() < SHORT && !told => {
                    tokio::time::sleep(backoff.pause(None)).await;
                }
                Ok(()) => backoff.reset(),
                Err(error) if needs_list(&error) => {
                    // Once at once; a server that forgets again is not asked for lists in a loop.
                    if backoff.is_worn() {
                        rest(&mut backoff, &error, &mut tell).await;
                    } else {
                        let _ = backoff.pause(None);
                        tell(Change::Failed(&error, Duration::ZERO));
                    }
                    oldest = "";
                    break;
                }
                Err(error) => rest(&mut backoff, &error, &mut tell).await,
            }
        }
    }
}

/// Tells of all there is every so often, and of nothing else. To be run on a runtime. `seed` spreads pauses.
pub async fn poll<T: Object>(
    client: Client,
    watch: Watch,
    every: Duration,
    seed: u64,
    mut tell: impl FnMut(Change<'_, T>),
) {
    let mut backoff = Backoff::new(seed);
    loop {
        match list(&client, &watch, "").await {
            Ok((objects, _)) => {
                backoff.reset();
                tell(Change::All(objects));
                tokio::time::sleep(every - backoff.part_of(every / 10)).await;
            }
            Err(error) => rest(&mut backoff, &error, &mut tell).await,
        }
    }
}

/// Whether a watch cannot go on from the version that it came to.
fn needs_list(error: &ApiError) -> bool {
    error.is_gone() || matches!(error, ApiError::Answer { .. })
}

async fn rest<T: Object>(
    backoff: &mut Backoff,
    error: &ApiError,
    tell: &mut impl FnMut(Change<'_, T>),
) {
    let pause = backoff.pause(error.retry_after());
    tell(Change::Failed(error, pause));
    tokio::time::sleep(pause).await;
}

/// All objects, and the version at which they were that.
async fn list<T: Object>(
    client: &Client,
    watch: &Watch,
    oldest: &str,
) -> Result<(Vec<T>, String), ApiError> {
    let (mut objects, mut next) = (Vec::new(), String::new());
    loop {
        let page = PAGE.to_string();
        let version = if next.is_empty() { oldest } else { "" };
        let more = [
            ("limit", &*page),
            ("resourceVersion", version),
            ("continue", &*next),
        ];
        let list: List<T> = client.list(&watch.query(&more), watch.form).await?;
        objects.extend(list.items);
        if objects.len() > OBJECTS_MAX {
            let problem =
                format!("there are more than {OBJECTS_MAX}; narrow it down with a filter");
            return Err(ApiError::answer(&watch.path, problem));
        }
        if list.metadata.resource_version.is_empty() {
            return Err(ApiError::answer(
                &watch.path,
                "a list has no resourceVersion",
            ));
        }
        if list.metadata.next.is_empty() {
            return Ok((objects, list.metadata.resource_version));
        }
        next = list.metadata.next;
    }
}

/// A line of a watch.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

/// The object of a bookmark.
#[derive(Deserialize)]
struct Bookmark {
    metadata: Meta,
}

impl From<TooLong> for ApiError {
    fn from(_: TooLong) -> ApiError {
        ApiError::answer("a watch", "an event is longer than an object can be")
    }
}

/// Tells of what happens from `version` on, which it brings forward, until the server ends that.
async fn watch_from<T: Object>(
    client: &Client,
    watch: &Watch,
    version: &mut String,
    lasts: Duration,
    tell: &mut impl FnMut(Change<'_, T>),
) -> Result<(), ApiError> {
    let seconds = lasts.as_secs().to_string();
    let more = [
        ("watch", "1"),
        ("allowWatchBookmarks", "true"),
        ("resourceVersion", &**version),
        ("timeoutSeconds", &*seconds),
    ];
    let mut answer = client.watch(&watch.query(&more), watch.form).await?;
    let mut lines = Lines::default();
    while let Some(piece) = answer.piece(lasts + SILENCE_MORE).await? {
        lines.take(&piece, |line| event(&watch.path, line, version, tell))?;
    }
    Ok(())
}

fn event<T: Object>(
    path: &str,
    line: &[u8],
    version: &mut String,
    tell: &mut impl FnMut(Change<'_, T>),
) -> Result<(), ApiError> {
    let understood = |e: serde_json::Error| ApiError::answer(path, e);
    let event: Event<'_> = serde_json::from_slice(line).map_err(understood)?;
    let text = event.object.get();
    let change: fn(T) -> Change<'static, T> = match &*event.kind {
        "ADDED" | "MODIFIED" => Change::Set,
        "DELETED" => Change::Gone,
        "BOOKMARK" => {
            let bookmark: Bookmark = serde_json::from_str(text).map_err(understood)?;
            return go_to(path, &bookmark.metadata, version);
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(text).unwrap_or_default();
            return Err(ApiError::Refused {
                path: path.to_owned(),
                // Servers that are too old for a code in it give the reason alone.
                code: match (&*status.reason, status.code) {
                    ("Expired" | "Gone", _) => 410,
                    (_, code) => code,
                },
                message: status.message,
                retry_after: None,
            });
        }
        // What is new here is none of what is followed.
        _ => return Ok(()),
    };
    let object: T = serde_json::from_str(text).map_err(understood)?;
    go_to(path, object.meta(), version)?;
    tell(change(object));
    Ok(())
}

fn go_to(path: &str, meta: &Meta, version: &mut String) -> Result<(), ApiError> {
    if meta.resource_version.is_empty() {
        return Err(ApiError::answer(path, "an event has no resourceVersion"));
    }
    version.clone_from(&meta.resource_version);
    Ok(())
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
