//! `basicauth`: names and passwords (RFC 7617), for receivers (`htpasswd`) or for exporters
//! (`client_auth`).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use sha2::{Digest, Sha256};
use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::auth::{Authenticator, ClientAuth, Denied, Roles, ServerAuth};
use tailwater_pipeline::factory::{ExtensionFactory, ExtensionSettings, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, ExtensionNode};

use super::htpasswd::Users;
use super::watched::{Watched, one_line};

/// Senders that are remembered, so that slow hashes are not made for each request.
const KNOWN_MAX: usize = 1024;

/// The factory of `basicauth`.
pub fn factory() -> ExtensionFactory {
    ExtensionFactory {
        kind: "basicauth",
        about: "names and passwords of senders, or to send",
        signals: &[],
        decode: |node, path, errors| {
            let settings = decode(node, path, errors)?;
            Some(Box::new(settings) as Box<dyn ExtensionSettings>)
        },
    }
}

/// A text in the configuration or in a file.
#[derive(Clone)]
enum Text {
    Given(String),
    File(PathBuf),
}

#[derive(Clone)]
enum Settings {
    Server {
        file: Option<PathBuf>,
        inline: Option<String>,
    },
    Client {
        username: Text,
        password: Text,
    },
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "htpasswd",
        "For receivers: who may send. It or `client_auth` is required.",
    ),
    (
        "htpasswd::file",
        "File of lines `name:hash` as `htpasswd` writes them: bcrypt, `$apr1$`, `$5$`, `$6$`, `{SHA}`, `{SSHA}`, or plain text; read again when it changes.",
    ),
    ("htpasswd::inline", "Such lines."),
    ("client_auth", "For exporters: as whom one sends."),
    (
        "client_auth::username",
        "The name. It or `username_file` is required.",
    ),
    (
        "client_auth::username_file",
        "File with the name, read again when it changes.",
    ),
    (
        "client_auth::password",
        "The password. It or `password_file` is required.",
    ),
    (
        "client_auth::password_file",
        "File with the password, read again when it changes.",
    ),
];

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Settings> {
    let before = errors.len();
    let mut s = Section::new(node, path, errors);
    s.describe(OPTIONS);
    let server = s.section_if_present("htpasswd", |h| {
        let file = h.string_optional("file").filter(|f| !f.is_empty());
        let inline = h.secret("inline").filter(|t| !t.is_empty());
        let inline = inline.map(|t| t.expose().to_owned());
        if file.is_none() && inline.is_none() {
            h.error("file or inline is required");
        }
        if let Some(Err(mistakes)) = inline.as_deref().map(Users::read) {
            for mistake in mistakes {
                h.invalid("inline", mistake);
            }
        }
        let file = file.map(PathBuf::from);
        Settings::Server { file, inline }
    });
    let client = s.section_if_present("client_auth", |c| {
        let username = c.string_optional("username").filter(|t| !t.is_empty());
        let password = c.secret("password").filter(|t| !t.is_empty());
        let password = password.map(|t| t.expose().to_owned());
        let username = text(c, "username", username);
        let password = text(c, "password", password);
        Some(Settings::Client {
            username: username?,
            password: password?,
        })
    });
    if server.is_some() == client.is_some() {
        s.error("one of htpasswd (for receivers) and client_auth (for exporters) is required");
    }
    s.finish();
    let settings = server.or(client.flatten());
    settings.filter(|_| errors.len() == before)
}

/// The text `given` for `key`, or the file that `<key>_file` names; a file wins.
fn text(s: &mut Section<'_, '_>, key: &str, given: Option<String>) -> Option<Text> {
    let file = s.string_optional(&format!("{key}_file"));
    match (file.filter(|f| !f.is_empty()), given) {
        (Some(file), _) => Some(Text::File(file.into())),
        (None, Some(given)) => Some(Text::Given(given)),
        (None, None) => {
            s.error(format!("{key} or {key}_file is required"));
            None
        }
    }
}

impl ExtensionSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        let failed = |e| BuildError::new(format!("extension \"{}\"", cx.id), e);
        let authenticator = match self {
            Settings::Server { file, inline } => {
                let server = Server::new(file.as_ref(), inline.as_deref()).map_err(failed)?;
                Authenticator {
                    server: Some(Arc::new(server)),
                    client: None,
                }
            }
            Settings::Client { username, password } => {
                let client = Client {
                    username: Source::new(username).map_err(failed)?,
                    password: Source::new(password).map_err(failed)?,
                };
                client.header().map_err(failed)?;
                Authenticator {
                    client: Some(Arc::new(client)),
                    server: None,
                }
            }
        };
        Ok(Box::new(BasicAuth(authenticator)))
    }

    fn authenticates(&self) -> Roles {
        Roles {
            client: matches!(self, Settings::Client { .. }),
            server: matches!(self, Settings::Server { .. }),
            reads_clients: false,
        }
    }

    fn reach(&self, reach: &mut Reach) {
        match self {
            Settings::Server { file, .. } => file.iter().for_each(|f| reach.reads_file(f)),
            Settings::Client { username, password } => {
                for text in [username, password] {
                    if let Text::File(path) = text {
                        reach.reads_file(path);
                    }
                }
            }
        }
    }
}

struct BasicAuth(Authenticator);

impl ExtensionNode for BasicAuth {
    fn start(&mut self) -> Result<(), BuildError> {
        Ok(())
    }

    fn authenticator(&self) -> Option<Authenticator> {
        Some(self.0.clone())
    }

    fn stop(&mut self) {}
}

/// A text that may change.
enum Source {
    Given(String),
    File(Watched<String>),
}

impl Source {
    fn new(text: &Text) -> Result<Source, String> {
        Ok(match text {
            Text::Given(text) => Source::Given(text.clone()),
            Text::File(path) => Source::File(Watched::read(path, one_line)?),
        })
    }

    fn get(&self) -> Arc<String> {
        match self {
            Source::Given(text) => Arc::new(text.clone()),
            Source::File(file) => file.get(),
        }
    }
}

struct Client {
    username: Source,
    password: Source,
}

impl Client {
    fn header(&self) -> Result<HeaderValue, String> {
        let username = self.username.get();
        if username.contains(':') {
            return Err("a user name cannot have a colon".to_owned());
        }
        let text = BASE64_STANDARD.encode(format!("{username}:{}", self.password.get()));
        let mut value = HeaderValue::from_str(&format!("Basic {text}"))
            .map_err(|_| "no header can be made of the credentials".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl ClientAuth for Client {
    fn authenticate(&self, headers: &mut HeaderMap) -> Result<(), String> {
        headers.insert(AUTHORIZATION, self.header()?);
        Ok(())
    }
}

fn users(text: &str) -> Result<Users, String> {
    Users::read(text).map_err(|mistakes| mistakes.join("; "))
}

/// Checks senders. Users of `inline` count before those of the file.
struct Server {
    inline: Users,
    file: Option<Watched<Users>>,
    /// Digests of the headers of senders that were verified, with the users they were verified by.
    known: Mutex<(usize, HashSet<[u8; 32]>)>,
}

impl Server {
    fn new(file: Option<&PathBuf>, inline: Option<&str>) -> Result<Server, String> {
        let inline = inline.map(users).transpose()?.unwrap_or_default();
        let file = file.map(|f| Watched::read(f, users)).transpose()?;
        let known = Mutex::default();
        Ok(Server {
            inline,
            file,
            known,
        })
    }

    /// The users of the file as it is now, and what tells them from those before.
    fn of_file(&self) -> (Option<Arc<Users>>, usize) {
        let users = self.file.as_ref().map(Watched::get);
        let version = users.as_ref().map_or(0, |u| Arc::as_ptr(u) as usize);
        (users, version)
    }

    fn is_remembered(&self, version: usize, digest: &[u8; 32]) -> bool {
        let known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        known.0 == version && known.1.contains(digest)
    }

    fn remember(&self, version: usize, digest: [u8; 32]) {
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        if known.0 != version || known.1.len() >= KNOWN_MAX {
            *known = (version, HashSet::new());
        }
        known.1.insert(digest);
    }
}

fn digest(headers: &HeaderMap) -> Option<[u8; 32]> {
    let value = headers.get(AUTHORIZATION)?;
    Some(Sha256::digest(value.as_bytes()).into())
}

/// Name and password of an `Authorization` header.
fn credentials(headers: &HeaderMap) -> Result<(String, String), Denied> {
    let value = headers.get(AUTHORIZATION).ok_or(Denied::Missing)?;
    let text = value.to_str().map_err(|_| Denied::Malformed)?;
    let (scheme, encoded) = text.split_once(' ').ok_or(Denied::Malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Denied::Malformed);
    }
    let bytes = BASE64_STANDARD.decode(encoded.trim());
    let bytes = bytes.map_err(|_| Denied::Malformed)?;
    let text = String::from_utf8(bytes).map_err(|_| Denied::Malformed)?;
    let (name, password) = text.split_once(':').ok_or(Denied::Malformed)?;
    Ok((name.to_owned(), password.to_owned()))
}

impl ServerAuth for Server {
    fn is_known(&self, headers: &HeaderMap) -> bool {
        digest(headers).is_some_and(|d| self.is_remembered(self.of_file().1, &d))
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let (name, password) = credentials(headers)?;
        let (file, version) = self.of_file();
        let right = self.inline.verify(&name, &password)
            || file.is_some_and(|users| users.verify(&name, &password));
        if !right {
            return Err(Denied::Wrong);
        }
        if let Some(digest) = digest(headers) {
            self.remember(version, digest);
        }
        Ok(())
    }

    fn attributes(&self, headers: &HeaderMap) -> Vec<(&'static str, String)> {
        let Ok((name, _)) = credentials(headers) else {
            return Vec::new();
        };
        let raw = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let raw = raw.unwrap_or_default().to_owned();
        vec![("username", name), ("raw", raw)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tailwater_testkit::tempdir::TempDir;

    fn sent(name: &str, password: &str) -> HeaderMap {
        let client = Client {
            username: Source::Given(name.to_owned()),
            password: Source::Given(password.to_owned()),
        };
        let mut headers = HeaderMap::new();
        client.authenticate(&mut headers).unwrap();
        headers
    }

    /// Guarantee: what the client sends the server takes, a wrong password is refused, and who was
    /// taken once is known until the passwords change.
    #[test]
    fn senders_are_checked_once_per_version_of_the_file() {
        let dir = TempDir::new("basicauth").unwrap();
        let path = dir.path().join("htpasswd");
        fs::write(&path, "a:one\n").unwrap();
        let server = Server::new(Some(&path), Some("b:two")).unwrap();
        let a = sent("a", "one");
        assert!(!server.is_known(&a));
        assert_eq!(server.check(&a), Ok(()));
        assert!(server.is_known(&a));
        assert_eq!(server.check(&sent("b", "two")), Ok(()));
        assert_eq!(server.check(&sent("a", "two")), Err(Denied::Wrong));
        assert!(!server.is_known(&sent("a", "two")));
        assert_eq!(server.check(&HeaderMap::new()), Err(Denied::Missing));
        let new = dir.path().join("new");
        fs::write(&new, "a:changed\n").unwrap();
        fs::rename(&new, &path).unwrap();
        assert!(!server.is_known(&a));
        assert_eq!(server.check(&a), Err(Denied::Wrong));
        assert_eq!(server.check(&sent("a", "changed")), Ok(()));
    }

    #[test]
    fn what_is_no_credentials_is_malformed() {
        let server = Server::new(None, Some("a:b")).unwrap();
        for value in ["Basic", "Bearer YTpi", "Basic !", "Basic YWI="] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(server.check(&headers), Err(Denied::Malformed), "{value}");
        }
    }

    #[test]
    fn mistakes_of_the_section_are_found() {
        for (yaml, want) in [
            ("{}", "one of htpasswd"),
            ("{htpasswd: {}}", "file or inline"),
            (
                "{htpasswd: {inline: nothing}}",
                "line 1: must be name:password",
            ),
            ("{client_auth: {username: a}}", "password or password_file"),
            (
                "{client_auth: {username: a, password: b}, htpasswd: {inline: 'a:b'}}",
                "one of",
            ),
            ("{htpasswd: {inline: 'a:b'}, users: 1}", "users"),
        ] {
            let node = tailwater_config::parse(yaml, "f").unwrap();
            let mut errors = Errors::new();
            let settings = decode(&node, &KeyPath::from("extensions::basicauth"), &mut errors);
            assert!(
                settings.is_none() && errors.to_string().contains(want),
                "{yaml}: {errors}"
            );
        }
    }
}
