//! `clients` as exporters.

use tailwater_config::Node;

use super::Setting;
use crate::assembly::Assembly;
use crate::note::{Notes, Weight};
use crate::options::Options;
use crate::yaml::{Map, Value, map, with_environment};

/// An exporter for a client, without what depends on the jobs.
pub fn client(node: &Node, path: &str, taken: &Map, notes: &mut Notes) -> (String, Map) {
    let mut o = Options::new(node, path);
    let mut out = Map::default();
    let name = o.text("name").unwrap_or_default();
    let id = Assembly::id(|id| taken.has(id), "loki", &name);
    let url = match o.text("url") {
        Some(url) => url,
        None => {
            let say = "there is no URL; this is one of a Loki at home";
            out.comment(o.note(notes, Weight::Decide, "url", say));
            "http://localhost:3100/loki/api/v1/push".to_owned()
        }
    };
    out.set("endpoint", with_environment(&url).0);
    if let Some(tenant) = o.text("tenant_id").filter(|t| !t.is_empty()) {
        out.set("tenant_id", with_environment(&tenant).0);
    }
    text_map(&mut o, "headers", "headers", &mut out);
    let external = o.entries("external_labels");
    let labels = external
        .iter()
        .filter_map(|(k, n)| Some((k.clone(), crate::options::text(n)?)));
    for (key, value) in labels {
        let value = with_environment(&value).0;
        out.sub("labels").sub("static").set(&key, value);
    }
    out.set_some("timeout", o.text("timeout").map(Value::Plain));
    let proxy = o.text("proxy_url").filter(|url| !url.is_empty());
    out.set_some("proxy_url", proxy.map(|url| with_environment(&url).0));
    if let Some(on) = o.flag("enable_http2") {
        out.set("force_attempt_http2", on);
    }
    credentials(&mut o, notes, &mut out);
    tls(&mut o, notes, &mut out);
    batching(&mut o, notes, &mut out);
    backoff(&mut o, notes, &mut out);
    for (key, weight, say) in [
        (
            "oauth2",
            Weight::NoEqual,
            "no extension here fetches tokens; use bearer_token_file",
        ),
        (
            "follow_redirects",
            Weight::NotNeeded,
            "redirects are not followed: they are held, with an alarm",
        ),
        (
            "drop_rate_limited_batches",
            Weight::Decide,
            "what Loki refuses for its rate is sent again, never dropped",
        ),
        (
            "stream_lag_labels",
            Weight::NotNeeded,
            "lag is a metric of each file",
        ),
        (
            "proxy_from_environment",
            Weight::NotNeeded,
            "the environment counts unless proxy_url is set",
        ),
    ] {
        if let Some(comment) = o.remark(notes, weight, key, say) {
            out.comment(comment);
        }
    }
    for comment in o.rest(notes) {
        out.comment(comment);
    }
    (id, out)
}

/// A map of texts under another name.
fn text_map(o: &mut Options<'_>, from: &str, to: &str, out: &mut Map) {
    let mut own = Map::default();
    for (key, node) in o.entries(from) {
        if let Some(value) = crate::options::text(node) {
            own.set(&key, with_environment(&value).0);
        }
    }
    if !own.is_empty() {
        out.set(to, own);
    }
}

/// Sets what is there under other names; notes the rest.
fn renamed(mut o: Options<'_>, names: &[(&str, &str)], notes: &mut Notes) -> Map {
    let mut out = Map::default();
    for (from, to) in names {
        if let Some(node) = o.node(from) {
            let value = match node.as_bool() {
                Some(on) => Some(Value::from(on)),
                None => crate::options::text(node).map(|t| with_environment(&t).0.into()),
            };
            out.set_some(to, value);
        }
    }
    for comment in o.rest(notes) {
        out.comment(comment);
    }
    out
}

fn credentials(o: &mut Options<'_>, notes: &mut Notes, out: &mut Map) {
    if let Some(basic) = o.sub("basic_auth") {
        let names = [
            ("username", "username"),
            ("password", "password"),
            ("password_file", "password_file"),
        ];
        out.set("basic_auth", renamed(basic, &names, notes));
    }
    for key in ["bearer_token", "bearer_token_file"] {
        if let Some(value) = o.text(key).filter(|v| !v.is_empty()) {
            out.set(key, with_environment(&value).0);
        }
    }
    let Some(mut given) = o.sub("authorization") else {
        return;
    };
    let kind = given.text("type").unwrap_or_else(|| "Bearer".to_owned());
    let (value, file) = (given.text("credentials"), given.text("credentials_file"));
    match (kind.eq_ignore_ascii_case("bearer"), value, file) {
        (true, Some(value), _) => {
            out.set("bearer_token", with_environment(&value).0);
        }
        (true, None, Some(file)) => {
            out.set("bearer_token_file", with_environment(&file).0);
        }
        _ => {
            let say = "another type than Bearer: set the header Authorization in headers";
            out.comment(given.note(notes, Weight::Decide, "type", say));
        }
    }
    for comment in given.rest(notes) {
        out.comment(comment);
    }
}

fn tls(o: &mut Options<'_>, notes: &mut Notes, out: &mut Map) {
    let Some(mut given) = o.sub("tls_config") else {
        return;
    };
    let version = |v: String| match v.as_str() {
        "TLS10" => "1.0",
        "TLS11" => "1.1",
        "TLS12" => "1.2",
        _ => "1.3",
    };
    let versions: Vec<Setting> = [
        ("min_version", "min_version"),
        ("max_version", "max_version"),
    ]
    .into_iter()
    .filter_map(|(from, to)| Some((to, version(given.text(from)?).into())))
    .collect();
    let names = [
        ("ca_file", "ca_file"),
        ("ca", "ca_pem"),
        ("cert_file", "cert_file"),
        ("cert", "cert_pem"),
        ("key_file", "key_file"),
        ("key", "key_pem"),
        ("server_name", "server_name_override"),
        ("insecure_skip_verify", "insecure_skip_verify"),
    ];
    let mut own = renamed(given, &names, notes);
    for (key, value) in versions {
        own.set(key, value);
    }
    if !own.is_empty() {
        out.set("tls", own);
    }
}

fn batching(o: &mut Options<'_>, notes: &mut Notes, out: &mut Map) {
    let (wait, size) = (o.text("batchwait"), o.text("batchsize"));
    if wait.is_none() && size.is_none() {
        return;
    }
    if size.is_some() {
        let say = "requests are as large as max_request_bytes allows; they are sent after batchwait, or when they are full";
        out.comment(o.note(notes, Weight::NotNeeded, "batchsize", say));
    }
    if let Some(wait) = wait {
        let batch = map([("flush_timeout", Value::Plain(wait))]);
        out.sub("sending_queue").set("batch", batch);
    }
}

fn backoff(o: &mut Options<'_>, notes: &mut Notes, out: &mut Map) {
    let Some(mut given) = o.sub("backoff_config") else {
        return;
    };
    let mut own = Map::default();
    for (from, to) in [
        ("min_period", "initial_interval"),
        ("max_period", "max_interval"),
    ] {
        own.set_some(to, given.text(from).map(Value::Plain));
    }
    if given.has("max_retries") {
        let say =
            "a request is tried until it is delivered; max_elapsed_time gives it up after a time";
        own.comment(given.note(notes, Weight::Decide, "max_retries", say));
    }
    for comment in given.rest(notes) {
        own.comment(comment);
    }
    if !own.is_empty() {
        out.set("retry_on_failure", own);
    }
}
