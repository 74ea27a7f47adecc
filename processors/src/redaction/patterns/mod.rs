//! Ready-made patterns of what should not leave a machine, chosen by name (`patterns`).
//!
//! Each finds ranges of a text that are replaced. Where a regular expression would find too much, its
//! matches are checked: card numbers by Luhn, IBANs by their check digits. All work on bytes, so text
//! that is no UTF-8 is searched, too.

mod network;
mod numbers;
#[cfg(test)]
mod tests;

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

/// How a pattern is found.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// By an expression. If a group takes part in a match, only that is replaced.
    Expression {
        /// The expression.
        text: &'static str,
        /// Whether a match is one, in the text that it is in.
        holds: fn(&[u8], &Range<usize>) -> bool,
    },
    /// By a function that gives the first one from a position on.
    Scan(fn(&[u8], usize) -> Option<Range<usize>>),
}

/// A pattern that has a name.
pub(super) struct Named {
    /// What it is called in the configuration.
    pub name: &'static str,
    how: How,
}

const fn expression(name: &'static str, text: &'static str) -> Named {
    checked(name, text, |_, _| true)
}

const fn checked(
    name: &'static str,
    text: &'static str,
    holds: fn(&[u8], &Range<usize>) -> bool,
) -> Named {
    let how = How::Expression { text, holds };
    Named { name, how }
}

const fn scan(name: &'static str, find: fn(&[u8], usize) -> Option<Range<usize>>) -> Named {
    let how = How::Scan(find);
    Named { name, how }
}

/// All of them, in the order in which they are tried: those that take more of a text come first.
///
/// Sources of the forms: private keys RFC 7468; JSON web tokens RFC 7519 and 7516; bearer and basic
/// credentials RFC 6750 and 7617; credentials in URLs RFC 3986; prefixes of keys as their issuers
/// document them; e-mail addresses RFC 5321 without quoted local parts.
pub(super) const ALL: &[Named] = &[
    expression(
        "private_key",
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|\z)",
    ),
    expression(
        "jwt",
        r"\beyJ[A-Za-z0-9_-]{5,}\.(?:eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)",
    ),
    expression(
        "bearer_token",
        r#"(?i)(?:authorization\\*["']?\s*[:=]\s*\\*["']?bearer\s+([a-z0-9._~+/-]+=*)|\bbearer\s+([a-z0-9._~+/-]{16,}=*))"#,
    ),
    expression(
        "basic_auth",
        r#"(?i)authorization\\*["']?\s*[:=]\s*\\*["']?basic\s+([a-z0-9+/_-]+={0,2})"#,
    ),
    expression(
        "url_credentials",
        r#"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:"'<>]*:([^\s/?#"'<>]+)@"#,
    ),
    expression(
        "aws_key",
        r#"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b|(?i)aws_?(?:secret_?access_?key|session_?token)\\*["']?\s*[:=]\s*\\*["']?([a-z0-9/+=]{40,})"#,
    ),
    expression(
        "github_token",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})",
    ),
    expression(
        "gitlab_token",
        r"\bgl(?:pat|dt|rt|ptt|oas|soat|cbt|ft|imt|agent)-[A-Za-z0-9_.-]{20,}",
    ),
    expression("google_api_key", r"\bAIza[A-Za-z0-9_-]{35}"),
    expression("slack_token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    expression("stripe_key", r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{10,}"),
    expression(
        "password",
        r#"(?i)(?:passwords?|passwd|passphrase|pwd|secret|client_?secret|api[_-]?key|access[_-]?token|auth[_-]?token|refresh[_-]?token)\\*["']?\s*[=:]\s*\\*(?:"((?:[^"\\]|\\.)*)"?|'((?:[^'\\]|\\.)*)'?|([^\s"',;&{\[][^\s"',;&]*?)[}\])]*(?:[\s"',;&]|\z))"#,
    ),
    expression(
        "email",
        r"[A-Za-z0-9._%+\x80-\xff-]+@(?:[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]*[A-Za-z0-9\x80-\xff])?\.)+[A-Za-z\x80-\xff](?:[A-Za-z0-9\x80-\xff-]*[A-Za-z0-9\x80-\xff])",
    ),
    scan("card", numbers::card),
    scan("iban", numbers::iban),
    checked("us_ssn", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b", numbers::is_ssn),
    checked(
        "phone",
        r"\+[1-9](?:[ .()/-]{0,3}[0-9]){7,14}\b",
        numbers::is_phone,
    ),
    scan("ipv6", network::ipv6),
    scan("ipv4", network::ipv4),
    checked(
        "mac",
        r"\b[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})\b",
        network::is_mac,
    ),
];

/// Finds what is to be replaced.
#[derive(Clone, Debug)]
pub(super) enum Finder {
    /// An expression of the configuration.
    Expression(Regex),
    /// A ready-made one.
    Checked {
        regex: Regex,
        holds: fn(&[u8], &Range<usize>) -> bool,
    },
    /// A ready-made function.
    Scan(fn(&[u8], usize) -> Option<Range<usize>>),
}

impl Finder {
    /// The pattern `name`; `None` if there is none.
    pub fn named(name: &str) -> Option<Finder> {
        let named = ALL.iter().find(|p| p.name == name)?;
        Some(match named.how {
            How::Scan(find) => Finder::Scan(find),
            How::Expression { text, holds } => {
                let regex = RegexBuilder::new(text).unicode(false).build();
                let regex = regex.expect("a test compiles each of them");
                Finder::Checked { regex, holds }
            }
        })
    }

    /// Whether there is anything to replace in `text`.
    pub fn is_in(&self, text: &[u8]) -> bool {
        match self {
            Finder::Expression(regex) => regex.is_match(text),
            Finder::Checked { regex, holds } => first(regex, *holds, text, 0).is_some(),
            Finder::Scan(find) => find(text, 0).is_some(),
        }
    }

    /// Gives all ranges that are to be replaced, in order.
    pub fn each(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        let mut at = 0;
        match self {
            Finder::Expression(regex) => regex.find_iter(text).for_each(|m| found(m.range())),
            Finder::Checked { regex, holds } => {
                let mut groups = regex.capture_locations();
                while let Some(whole) = first(regex, *holds, text, at) {
                    at = whole.end;
                    let _ = regex.captures_read_at(&mut groups, text, whole.start);
                    let inner = (1..groups.len()).find_map(|i| groups.get(i));
                    let (start, end) = inner.unwrap_or((whole.start, whole.end));
                    found(start..end);
                }
            }
            Finder::Scan(find) => {
                while let Some(range) = find(text, at) {
                    at = range.end;
                    found(range);
                }
            }
        }
    }
}

/// The first match from `at` on that holds. None of them is empty.
fn first(
    regex: &Regex,
    holds: fn(&[u8], &Range<usize>) -> bool,
    text: &[u8],
    mut at: usize,
) -> Option<Range<usize>> {
    while at <= text.len() {
        let range = regex.find_at(text, at)?.range();
        if holds(text, &range) {
            return Some(range);
        }
        at = range.start + 1;
    }
    None
}
