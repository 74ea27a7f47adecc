//! The status page: files of this build, with nothing in them that is the agent's own. What it shows it
//! asks of the API, as every other client does; so it is given to everybody who reaches a way in.
//!
//! The browser is told to load nothing from elsewhere, to run nothing that is written into the page, and to
//! show it in no frame.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
};
use hyper::{Method, Response};

use super::handlers::Reply;

/// What the browser may do with the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Where the page says whether it has to ask for the token.
const TOKEN_NEEDED: &str = "data-token=\"needed\"";
const TOKEN_NOT_NEEDED: &str = "data-token=\"none\"";

/// A file: its path, its type, its content.
#[derive(Debug)]
pub struct File(&'static str, &'static str, &'static str);

macro_rules! script {
    ($name:literal) => {
        File(
            concat!("/page/", $name),
            SCRIPT,
            include_str!(concat!("page/", $name)),
        )
    };
}

/// All of them.
static FILES: [File; 16] = [
    File("/", HTML, include_str!("page/index.html")),
    File("/page/style.css", STYLE, include_str!("page/style.css")),
    File("/page/icon.svg", IMAGE, include_str!("page/icon.svg")),
    script!("api.js"),
    script!("change.js"),
    script!("configuration.js"),
    script!("diff.js"),
    script!("dom.js"),
    script!("files.js"),
    script!("format.js"),
    script!("generations.js"),
    script!("graph.js"),
    script!("layout.js"),
    script!("main.js"),
    script!("rates.js"),
    script!("tap.js"),
];

/// The file that is asked for, if it is one of the page.
pub fn find(method: &Method, path: &str) -> Option<&'static File> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    FILES.iter().find(|File(own, ..)| *own == path)
}

/// Answers with a file; `token` says whether the API here needs one.
pub fn answer(File(_, content_type, content): &'static File, token: bool) -> Reply {
    let body = match token || *content_type != HTML {
        true => Bytes::from_static(content.as_bytes()),
        false => content.replacen(TOKEN_NEEDED, TOKEN_NOT_NEEDED, 1).into(),
    };
    let mut response = Response::new(Full::new(body).into());
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, *content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (OPENER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: the page is whole, small, and made of itself alone: each file that is named in it is
    /// there, none is there for nothing, and nothing names another place.
    #[test]
    fn the_page_is_whole_and_names_no_other_place() {
        let total: usize = FILES.iter().map(|File(.., content)| content.len()).sum();
        assert!(total < 100_000, "{total} bytes");
        let all: String = FILES.iter().map(|File(.., content)| *content).collect();
        for File(path, ..) in &FILES[1..] {
            let name = path.rsplit('/').next().unwrap();
            assert!(all.contains(&format!("/{name}\"")), "{path} is not used");
        }
        for File(path, kind, content) in &FILES {
            for import in content.split("from \"./").skip(1) {
                let name = import.split('"').next().unwrap();
                let there = find(&Method::GET, &format!("/page/{name}"));
                assert!(there.is_some(), "{path} names {name}");
            }
            // The names of XML are no places.
            let own = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains("//") || *kind == SCRIPT, "{path}");
            for elsewhere in [
                "http:",
                "https:",
                "\"//",
                "url(\"",
                "@import",
                "innerHTML",
                "eval(",
            ] {
                assert!(!own.contains(elsewhere), "{path}: {elsewhere}");
            }
        }
        let File(.., html) = find(&Method::GET, "/").unwrap();
        for name in html.split(['"', '\'']).filter(|t| t.starts_with("page/")) {
            assert!(find(&Method::GET, &format!("/{name}")).is_some(), "{name}");
        }
        assert!(
            !html.contains("style=") && !html.contains(" onclick") && html.contains(TOKEN_NEEDED)
        );
        assert_eq!(
            html.matches("<script").count(),
            html.matches("<script type=\"module\" src=").count()
        );
    }

    #[test]
    fn only_looking_leads_to_a_file() {
        assert!(find(&Method::HEAD, "/page/main.js").is_some());
        for (method, path) in [
            (Method::POST, "/"),
            (Method::GET, "/page/"),
            (Method::GET, "/page/../page/main.js"),
            (Method::GET, "/index.html"),
        ] {
            assert!(find(&method, path).is_none(), "{method} {path}");
        }
    }
}
