//! One request each connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::selector::selects;
use super::{Asked, Shared, Store};

const HEAD_BYTES_MAX: u64 = 64 << 10;
/// How long a client may take to ask.
const ASKING_MAX: Duration = Duration::from_secs(30);

pub(super) fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(ASKING_MAX))?;
    stream.set_write_timeout(Some(ASKING_MAX))?;
    let Some(mut asked) = read_request(&stream)? else {
        return Ok(());
    };
    let (status, retry_after) = {
        let mut store = shared.store();
        let delay = store.trouble.delay;
        if !delay.is_zero() {
            let until = Instant::now() + delay;
            let epoch = store.epoch;
            // Ends with the server.
            while Instant::now() < until && store.epoch == epoch {
                let left = until.saturating_duration_since(Instant::now());
                let waited = shared.changed.wait_timeout(store, left);
                store = waited.unwrap_or_else(|e| e.into_inner()).0;
            }
        }
        let trouble = &mut store.trouble;
        let refused = trouble.refuse > 0;
        trouble.refuse = trouble.refuse.saturating_sub(1);
        let answer = match refused {
            true => (trouble.status, trouble.retry_after),
            false => (200, None),
        };
        asked.status = answer.0;
        answer
    };
    if status != 200 {
        shared.store().asked.push(asked);
        return refuse(&stream, status, retry_after);
    }
    if asked.is_watch() {
        return watch(stream, asked, shared);
    }
    let (status, body) = answer(&shared.store(), &asked);
    asked.status = status;
    shared.store().asked.push(asked);
    respond(&stream, status, None, &body)
}

fn read_request(stream: &TcpStream) -> io::Result<Option<Asked>> {
    let mut reader = BufReader::new(stream.take(HEAD_BYTES_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut parts = line.split(' ');
    let (Some("GET"), Some(target)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(k, v)| (decoded(k), decoded(v))).collect();
    let mut authorization = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
    Ok(Some(Asked {
        path: path.to_owned(),
        query,
        authorization,
        status: 200,
    }))
}

fn decoded(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match byte {
            b'%' => {
                let pair = hex(bytes.next()).zip(hex(bytes.next()));
                out.extend(pair.map(|(high, low)| (high * 16 + low) as u8));
            }
            b'+' => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

fn refuse(stream: &TcpStream, status: u16, retry_after: Option<u64>) -> io::Result<()> {
    let body = status_object(status, "Refused", "the test wants it so");
    respond(stream, status, retry_after, &body)
}

fn respond(
    mut stream: &TcpStream,
    status: u16,
    retry_after: Option<u64>,
    body: &Value,
) -> io::Result<()> {
    let body = body.to_string();
    let retry_after = retry_after.map(|s| format!("Retry-After: {s}\r\n"));
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
        retry_after.unwrap_or_default(),
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}

/// A path within a namespace asks for those of the collection that are in it.
fn collection_of(path: &str) -> (String, Option<&str>, Option<&str>) {
    let Some((front, rest)) = path.split_once("/namespaces/") else {
        return match path.rsplit_once('/') {
            // `/api/v1/nodes/n1`, while `/api/v1/nodes` has three parts.
            Some((collection, name))
                if path.matches('/').count() == 4 && path.starts_with("/api/v1/") =>
            {
                (collection.to_owned(), None, Some(name))
            }
            _ => (path.to_owned(), None, None),
        };
    };
    let mut parts = rest.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(namespace), None, _) => (format!("{front}/namespaces"), None, Some(namespace)),
        (namespace, Some(kind), name) => (format!("{front}/{kind}"), namespace, name),
        _ => (path.to_owned(), None, None),
    }
}

fn answer(store: &Store, asked: &Asked) -> (u16, Value) {
    let (collection, namespace, name) = collection_of(&asked.path);
    let empty = Default::default();
    let objects = store.objects.get(&collection).unwrap_or(&empty);
    if let Some(name) = name {
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        return match objects.get(&key) {
            Some(object) => (200, object.clone()),
            None => (
                404,
                status_object(404, "NotFound", &format!("{name:?} not found")),
            ),
        };
    }
    let (labels, fields) = selectors(store, asked);
    let wanted = objects.iter().filter(|((in_namespace, _), object)| {
        namespace.is_none_or(|n| n == in_namespace) && selects(labels, fields, object)
    });
    let all: Vec<&Value> = wanted.map(|(_, object)| object).collect();
    let number = |key| asked.value(key).and_then(|v| v.parse().ok());
    let from: usize = number("continue").unwrap_or(0).min(all.len());
    let limit = number("limit").unwrap_or(usize::MAX);
    let to = from.saturating_add(limit).min(all.len());
    let mut metadata = json!({"resourceVersion": store.version.to_string()});
    if to < all.len() {
        metadata["continue"] = to.to_string().into();
    }
    let list =
        json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": &all[from..to]});
    (200, list)
}

fn selectors<'a>(store: &Store, asked: &'a Asked) -> (&'a str, &'a str) {
    if store.trouble.ignores_selectors {
        return ("", "");
    }
    let value = |key| asked.value(key).unwrap_or_default();
    (value("labelSelector"), value("fieldSelector"))
}

fn watch(mut stream: TcpStream, asked: Asked, shared: &Shared) -> io::Result<()> {
    let (collection, namespace, _) = collection_of(&asked.path);
    let namespace = namespace.map(str::to_owned);
    let from = asked.value("resourceVersion").and_then(|v| v.parse().ok());
    let mut from: u64 = from.unwrap_or(0);
    let lasts = asked.value("timeoutSeconds").and_then(|v| v.parse().ok());
    let end = Instant::now() + Duration::from_secs(lasts.unwrap_or(300));
    let wants_bookmarks = asked.value("allowWatchBookmarks") == Some("true");
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let mut store = shared.store();
    store.asked.push(asked.clone());
    let (epoch, mut bookmarks) = (store.epoch, store.bookmarks);
    let (labels, fields) = selectors(&store, &asked);
    let nonsense = store.trouble.nonsense > 0;
    store.trouble.nonsense = store.trouble.nonsense.saturating_sub(1);
    loop {
        if from < store.oldest || store.trouble.forgets_at_once {
            drop(store);
            let gone = status_object(410, "Expired", "too old resource version");
            send(&mut stream, &json!({"type": "ERROR", "object": gone}))?;
            return finish(&mut stream);
        }
        let news = store.events.iter().filter(|e| e.version > from);
        let news = news.filter(|e| e.collection == collection);
        let news = news.filter(|e| {
            let in_namespace = e.object["metadata"]["namespace"].as_str();
            namespace.as_deref().is_none_or(|n| in_namespace == Some(n))
                && selects(labels, fields, &e.object)
        });
        let mut out: Vec<Value> = news
            .map(|e| json!({"type": e.kind, "object": e.object}))
            .collect();
        from = store.version;
        if wants_bookmarks && store.bookmarks != bookmarks {
            bookmarks = store.bookmarks;
            let metadata = json!({"resourceVersion": from.to_string()});
            out.push(json!({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": metadata}}));
        }
        let left = end.saturating_duration_since(Instant::now());
        let over = store.epoch != epoch || left.is_zero();
        if !out.is_empty() {
            drop(store);
            for event in &out {
                send(&mut stream, event)?;
            }
            store = shared.store();
        } else if nonsense {
            drop(store);
            send(&mut stream, &json!(["nonsense"]))?;
            return finish(&mut stream);
        } else if over {
            drop(store);
            return finish(&mut stream);
        } else {
            let waited = shared.changed.wait_timeout(store, left);
            store = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

/// An event, in two chunks, as lines need not end where pieces do.
fn send(stream: &mut TcpStream, event: &Value) -> io::Result<()> {
    let line = format!("{event}\n");
    let (head, tail) = line.as_bytes().split_at(line.len() / 2);
    for piece in [head, tail] {
        write!(stream, "{:x}\r\n", piece.len())?;
        stream.write_all(piece)?;
        stream.write_all(b"\r\n")?;
    }
    stream.flush()
}

fn finish(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()
}
