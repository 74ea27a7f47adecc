//! `URL`: the parts of a URI under their names in the semantic conventions.

use std::borrow::Cow;

use tailwater_golang::uri::parameters;
use tailwater_golang::url::Url;
use tailwater_pdata::{Map, Value};

use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::texts::PARTS_MAX;
use super::{Arg, Function, Takes, f, p, text};

pub(super) const FUNCTIONS: &[Function] = &[f(
    "URL",
    &[p("uri", Takes::Value(Kind::Text))],
    Kind::Map,
    url,
)];

const PLACE: &str = "URL";

fn url<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Result<Val<'a>, Fault> {
    let text = text(PLACE, args, 0, cx)?;
    if text.is_empty() {
        return Err(Fault::failed(PLACE, "the text is empty"));
    }
    let mut map = Map::new();
    if let Some(query) = text.strip_prefix(b"?") {
        let query = parameters(query, true, PARTS_MAX);
        let query = query.map_err(|e| Fault::failed(PLACE, e.to_string()))?;
        if !query.is_empty() {
            map.insert("query", Value::Map(query));
        }
        return Ok(Val::Map(Cow::Owned(map)));
    }
    let url = Url::parse(&text).map_err(|e| Fault::failed(PLACE, e.to_string()))?;
    let part = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    for (name, bytes) in [
        ("url.original", &url.normal),
        ("url.domain", &url.host),
        ("url.scheme", &url.scheme),
        ("url.path", &url.path),
    ] {
        map.insert(name, part(bytes));
    }
    if !url.port.is_empty() {
        let port = std::str::from_utf8(&url.port)
            .ok()
            .and_then(|p| p.parse().ok());
        let port = port.ok_or_else(|| Fault::failed(PLACE, "the port is too large"))?;
        map.insert("url.port", Value::Int(port));
    }
    if let (Some(info), Some((name, password))) = (url.user_info(), &url.user) {
        map.insert("url.user_info", part(&info));
        if !name.is_empty() {
            map.insert("url.username", part(name));
        }
        if let Some(password) = password {
            map.insert("url.password", part(password));
        }
    }
    for (name, bytes) in [("url.fragment", &url.fragment), ("url.query", &url.query)] {
        if !bytes.is_empty() {
            map.insert(name, part(bytes));
        }
    }
    if let Some(extension) = url.extension() {
        map.insert("url.extension", part(extension));
    }
    Ok(Val::Map(Cow::Owned(map)))
}
