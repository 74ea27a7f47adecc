//! Keeps secrets out of the log, whoever wrote the line.

use std::borrow::Cow;

/// What stands in place of a secret.
pub const REDACTED: &str = "[REDACTED]";

/// Parts of field names whose values are never written.
const SECRET_WORDS: [&str; 10] = [
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "api_key",
    "apikey",
    "credential",
    "private_key",
    "cookie",
];

/// True if a field of this name may hold a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// `text` without the user and password of every URL in it (RFC 3986, section 3.2.1).
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'');
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        rest = match authority.rfind('@') {
            Some(user_end) => {
                out.push_str(REDACTED);
                &after[user_end..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credentials_of_every_url_are_taken_out() {
        for (text, want) in [
            ("plain", "plain"),
            (
                "to https://h:3100/x@y failed",
                "to https://h:3100/x@y failed",
            ),
            (
                "http://u:p@h/ and http://:t@i",
                "http://[REDACTED]@h/ and http://[REDACTED]@i",
            ),
            ("http://u:p@ss@h", "http://[REDACTED]@h"),
            ("://", "://"),
            ("\"nats://u@h\"", "\"nats://[REDACTED]@h\""),
        ] {
            assert_eq!(without_credentials(text), want);
        }
    }

    #[test]
    fn names_of_secrets_are_known_in_any_spelling() {
        for name in [
            "Authorization",
            "client_secret",
            "api-key",
            "bearer_token",
            "db.password",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        assert!(!is_secret_name("endpoint") && !is_secret_name("error"));
    }
}
