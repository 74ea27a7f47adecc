//! `cors`: which pages of browsers may send, as the collector's server decides it.

use tailwater_config::Section;

/// Headers that pages may send when none are named; a few are allowed whatever is named.
const HEADERS_DEFAULT: [&str; 5] = [
    "accept",
    "accept-language",
    "content-type",
    "content-language",
    "x-requested-with",
];

/// `cors` with at least one origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cors {
    /// `allowed_origins`, in lower case.
    origins: Vec<String>,
    /// `allowed_headers`, in lower case.
    headers: Vec<String>,
    /// `exposed_headers`, as one header value.
    exposed: Option<String>,
    /// `max_age` in seconds; `None` = not sent.
    max_age: Option<u64>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("allowed_origins", "Origins that may send; one `*` in each."),
    (
        "allowed_headers",
        "Headers that requests may have besides those of the collector's default.",
    ),
    ("exposed_headers", "Headers of answers that pages may read."),
    (
        "max_age",
        "Seconds for which a browser may remember the answer; 0 = it decides.",
    ),
];

impl Cors {
    /// Reads the section. `None` if no origin is allowed, as if it was not there.
    pub fn decode(s: &mut Section<'_, '_>) -> Option<Cors> {
        s.describe(OPTIONS);
        let lower = |list: Vec<String>| -> Vec<String> {
            list.iter().map(|t| t.trim().to_ascii_lowercase()).collect()
        };
        let origins = lower(s.string_list("allowed_origins").unwrap_or_default());
        let mut headers = lower(s.string_list("allowed_headers").unwrap_or_default());
        let exposed = s.string_list("exposed_headers").unwrap_or_default();
        let max_age = s.u64("max_age", 0, ..=u64::from(u32::MAX));
        if origins.is_empty() && !headers.is_empty() {
            s.warn(
                "allowed_headers",
                "has no effect without allowed_origins: nothing is allowed",
            );
        }
        let known = if headers.is_empty() { 5 } else { 4 };
        headers.extend(HEADERS_DEFAULT[..known].iter().map(|h| (*h).to_owned()));
        if let Some(bad) = exposed
            .iter()
            .find(|h| hyper::header::HeaderName::try_from(h.as_str()).is_err())
        {
            s.invalid("exposed_headers", format!("{bad:?}: not a header name"));
        }
        (!origins.is_empty()).then(|| Cors {
            origins,
            headers,
            exposed: (!exposed.is_empty()).then(|| exposed.join(", ")),
            max_age: (max_age > 0).then_some(max_age),
        })
    }

    /// What `Access-Control-Allow-Origin` says to a page of `origin`; `None` = it is not allowed.
    pub fn allow_origin<'a>(&self, origin: &'a str) -> Option<&'a str> {
        if self.origins.iter().any(|o| o == "*") {
            return Some("*");
        }
        let lower = origin.to_ascii_lowercase();
        let allowed = self.origins.iter().any(|pattern| matches(pattern, &lower));
        allowed.then_some(origin)
    }

    /// Whether a page may send all of `headers` (a list with commas).
    pub fn allows_headers(&self, headers: &str) -> bool {
        let any = self.headers.iter().any(|h| h == "*");
        let names = headers.split(',').map(|h| h.trim().to_ascii_lowercase());
        any || names
            .filter(|name| !name.is_empty())
            .all(|name| self.headers.contains(&name))
    }

    /// `Access-Control-Expose-Headers`.
    pub fn exposed(&self) -> Option<&str> {
        self.exposed.as_deref()
    }

    /// `Access-Control-Max-Age`.
    pub fn max_age(&self) -> Option<u64> {
        self.max_age
    }
}

/// One `*` stands for any text, also none.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            text.len() >= head.len() + tail.len() && text.starts_with(head) && text.ends_with(tail)
        }
    }
}
