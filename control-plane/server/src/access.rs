//! Who may do what. Tokens are in a file, a line each: role, name, token. Only their hashes are in memory.

use std::collections::HashMap;
use std::path::Path;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use sha2::{Digest, Sha256};

use crate::secret;

/// The shortest token that is taken, characters.
const TOKEN_CHARS_MIN: usize = 16;
/// So many tokens.
const TOKENS_MAX: usize = 10_000;

/// What somebody may do. Each but `Agent` may what those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Speak OpAMP, and nothing else.
    Agent,
    /// Look.
    Viewer,
    /// Apply, pause, resume, and take back.
    Operator,
    /// Approve, deny, unfreeze, and read the audit log.
    Admin,
}

impl Role {
    /// Its name in the file of tokens.
    pub fn name(self) -> &'static str {
        match self {
            Role::Agent => "agent",
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    fn of_name(name: &str) -> Option<Role> {
        let all = [Role::Agent, Role::Viewer, Role::Operator, Role::Admin];
        all.into_iter().find(|r| r.name() == name)
    }
}

/// Somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Who {
    /// As the file of tokens names it.
    pub name: String,
    /// See [`Role`].
    pub role: Role,
}

/// Why somebody is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// No token, or one that is not known.
    Unknown,
    /// The role does not do.
    Role,
    /// A page of somebody else asks.
    Foreign,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Access {
    /// By the SHA-256 of the token; none: everybody on this machine is an admin.
    tokens: Option<HashMap<[u8; 32], Who>>,
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Access {
    /// Everybody who can reach it may do everything.
    pub fn open() -> Access {
        Access { tokens: None }
    }

    /// As a file says that others may not read.
    ///
    /// # Errors
    /// It cannot be read, others can read it, or a line of it is none; for people.
    pub fn of_file(path: &Path) -> Result<Access, String> {
        Access::of_text(&secret::read(path)?, &path.display().to_string())
    }

    fn of_text(text: &str, name: &str) -> Result<Access, String> {
        let mut tokens = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("{name}:{number}: {what}");
            let mut words = line.split_whitespace();
            let (Some(role), Some(who), Some(token), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(wrong("must be three words: role, name, token"));
            };
            let role = Role::of_name(role)
                .ok_or_else(|| wrong("the role must be agent, viewer, operator or admin"))?;
            if token.len() < TOKEN_CHARS_MIN {
                return Err(wrong(
                    "a token has at least 16 characters; `tailwater-control token` makes one",
                ));
            }
            let who = Who {
                name: who.to_owned(),
                role,
            };
            if tokens.insert(hash(token), who).is_some() {
                return Err(wrong("this token is there twice"));
            }
            if tokens.len() > TOKENS_MAX {
                return Err(wrong("too many tokens"));
            }
        }
        if tokens.is_empty() {
            return Err(format!("{name}: there is no token in it"));
        }
        Ok(Access {
            tokens: Some(tokens),
        })
    }

    /// Whether a line could stand in the file.
    ///
    /// # Errors
    /// What is wrong with it; for people.
    pub fn check_line(line: &str) -> Result<(), String> {
        Access::of_text(line, "the line").map(drop)
    }

    /// Whether there are tokens.
    pub fn is_closed(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whether agents need a token: one has been given to them.
    pub fn agents_need_one(&self) -> bool {
        let tokens = self.tokens.as_ref();
        tokens.is_some_and(|t| t.values().any(|w| w.role == Role::Agent))
    }

    /// The name of the token, if this is somebody who may speak as an agent. With `has_shown`, that is certain without
    /// one.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn agent(&self, headers: &HeaderMap, has_shown: bool) -> Result<Option<String>, Denied> {
        if headers.contains_key(ORIGIN) {
            return Err(Denied::Foreign);
        }
        if has_shown || !self.agents_need_one() {
            return Ok(None);
        }
        let who = self.who(headers)?;
        match who.role {
            Role::Agent => Ok(Some(who.name)),
            _ => Err(Denied::Role),
        }
    }

    /// Who asks, if that is somebody who may do what `least` may.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn person(&self, headers: &HeaderMap, least: Role) -> Result<Who, Denied> {
        let Some(_) = &self.tokens else {
            return match headers.contains_key(ORIGIN) || !is_local(headers) {
                true => Err(Denied::Foreign),
                false => Ok(Who {
                    name: "local".to_owned(),
                    role: Role::Admin,
                }),
            };
        };
        let who = self.who(headers)?;
        match who.role >= least && who.role != Role::Agent {
            true => Ok(who),
            false => Err(Denied::Role),
        }
    }

    fn who(&self, headers: &HeaderMap) -> Result<Who, Denied> {
        let given = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = given.and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let known = token.and_then(|t| self.tokens.as_ref()?.get(&hash(t)));
        known.cloned().ok_or(Denied::Unknown)
    }
}

/// A name that leads here only by somebody else's doing is none of ours.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers
        .get(HOST)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let ip = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// A token that nobody can guess.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_token() -> Result<String, getrandom::Error> {
    use base64::Engine;
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use hyper::header::HeaderValue;

    const FILE: &str = "# people\nviewer vera aaaaaaaaaaaaaaaa\noperator otto bbbbbbbbbbbbbbbb\n\
                        admin anna cccccccccccccccc\nagent fleet dddddddddddddddd\n";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn bearer(letter: &str) -> HeaderMap {
        headers(&[("authorization", &format!("Bearer {}", letter.repeat(16)))])
    }

    #[test]
    fn roles_may_what_they_may() {
        let access = Access::of_text(FILE, "tokens").unwrap();
        let may = |letter, least| access.person(&bearer(letter), least).map(|w| w.name);
        for (letter, name, most) in [("a", "vera", 1), ("b", "otto", 2), ("c", "anna", 3)] {
            for (level, least) in [(1, Role::Viewer), (2, Role::Operator), (3, Role::Admin)] {
                let wanted = match level <= most {
                    true => Ok(name.to_owned()),
                    false => Err(Denied::Role),
                };
                assert_eq!(may(letter, least), wanted, "{name} {least:?}");
            }
            assert_eq!(access.agent(&bearer(letter), false), Err(Denied::Role));
        }
        assert_eq!(
            may("d", Role::Viewer),
            Err(Denied::Role),
            "an agent looks at nothing"
        );
        assert_eq!(
            access.agent(&bearer("d"), false),
            Ok(Some("fleet".to_owned()))
        );
        assert_eq!(access.agent(&HeaderMap::new(), true), Ok(None));
        assert_eq!(may("e", Role::Viewer), Err(Denied::Unknown));
        assert_eq!(
            access.person(&HeaderMap::new(), Role::Viewer),
            Err(Denied::Unknown)
        );
        assert_eq!(access.agent(&HeaderMap::new(), false), Err(Denied::Unknown));
    }

    #[test]
    fn without_tokens_pages_and_names_of_others_get_nothing() {
        let open = Access::open();
        let may =
            |pairs: &[(&'static str, &str)]| open.person(&headers(pairs), Role::Admin).is_ok();
        assert!(may(&[("host", "127.0.0.1:4320")]) && may(&[("host", "[::1]:4320")]));
        assert!(may(&[("host", "localhost")]));
        assert!(!may(&[("host", "evil.example:4320")]) && !may(&[]));
        assert!(!may(&[
            ("host", "localhost"),
            ("origin", "http://localhost:4320")
        ]));
        assert!(open.agent(&HeaderMap::new(), false).is_ok());
        assert!(
            open.agent(&headers(&[("origin", "http://evil.example")]), true)
                .is_err()
        );
    }

    #[test]
    fn a_broken_file_is_refused_with_its_line() {
        let wrong = |text: &str| Access::of_text(text, "t").unwrap_err();
        assert!(wrong("\nroot anna cccccccccccccccc").starts_with("t:2: the role"));
        assert!(wrong("admin anna short").contains("16 characters"));
        assert!(wrong("admin anna").contains("three words"));
        assert!(wrong("admin a cccccccccccccccc\nviewer b cccccccccccccccc").contains("twice"));
        assert!(wrong("# nobody").contains("no token"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, FILE).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Access::of_file(&path).unwrap_err().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Access::of_file(&path).is_ok());
    }

    #[test]
    fn new_tokens_are_taken() {
        let (a, b) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(a, b);
        assert!(Access::of_text(&format!("admin a {a}\n"), "t").is_ok());
    }
}
