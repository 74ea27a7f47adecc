//! Who we are: `Authorization` headers from the configuration, from files or from an extension.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use tailwater_pipeline::auth::{Authenticators, ClientAuth, uncarry};
use tailwater_pipeline::client::ContextKey;
use tailwater_pipeline::pem::FileMark;

use super::endpoint::basic;

impl AuthOptions {
    /// What its extension wants to know of the client whose data is sent.
    pub fn reads(&self, extensions: &Authenticators) -> Vec<ContextKey> {
        let extension = match self {
            AuthOptions::Extension(id) => extensions.client(id),
            _ => None,
        };
        extension.map_or_else(Vec::new, |e| e.reads().to_vec())
    }
}

/// Largest secret file that is read.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Where credentials come from. Debug output shows no secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum AuthOptions {
    /// No credentials (but for those in the endpoint's URL).
    #[default]
    None,
    /// `auth::authenticator`: an extension, by its id.
    Extension(String),
    /// `basic_auth`.
    Basic {
        /// `username`.
        username: String,
        /// `password`.
        password: String,
    },
    /// `basic_auth` with `password_file`, read again when it changes.
    BasicFile {
        /// `username`.
        username: String,
        /// `password_file`; a line end at its end does not count.
        password_file: PathBuf,
    },
    /// `bearer_token`.
    Bearer {
        /// The token.
        token: String,
    },
    /// `bearer_token_file`, read again when it changes.
    BearerFile(PathBuf),
}

impl fmt::Debug for AuthOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthOptions::None => f.write_str("None"),
            AuthOptions::Extension(id) => write!(f, "Extension({id:?})"),
            AuthOptions::Basic { username, .. } => write!(f, "Basic({username:?}, [REDACTED])"),
            AuthOptions::BasicFile {
                username,
                password_file,
            } => {
                write!(f, "BasicFile({username:?}, {password_file:?})")
            }
            AuthOptions::Bearer { .. } => f.write_str("Bearer([REDACTED])"),
            AuthOptions::BearerFile(path) => write!(f, "BearerFile({path:?})"),
        }
    }
}

/// What makes a header out of the content of a secret file.
enum Form {
    Basic(String),
    Bearer,
}

impl Form {
    fn header(&self, secret: &str) -> Result<HeaderValue, String> {
        match self {
            Form::Basic(user) => basic(user, secret),
            Form::Bearer => bearer(secret),
        }
    }
}

/// A secret in a file.
pub(super) struct SecretFile {
    path: PathBuf,
    form: Form,
    cached: Mutex<Option<(FileMark, HeaderValue)>>,
}

impl SecretFile {
    /// The header, from the file as it is now. Keeps the last good one if the file cannot be read,
    /// as files are often replaced in more than one step.
    fn header(&self) -> Result<HeaderValue, String> {
        let mut cached = self.cached.lock().unwrap_or_else(|e| e.into_inner());
        let mark = FileMark::of(&self.path);
        if let (Some((known, header)), Some(mark)) = (&*cached, &mark)
            && known == mark
        {
            return Ok(header.clone());
        }
        let fresh = read_secret(&self.path).and_then(|secret| self.form.header(&secret));
        match (fresh, mark, &*cached) {
            (Ok(header), Some(mark), _) => {
                *cached = Some((mark, header.clone()));
                Ok(header)
            }
            (Ok(header), None, _) => Ok(header),
            (Err(error), _, Some((_, header))) => {
                tracing::warn!(error, "using the credentials that were read before");
                Ok(header.clone())
            }
            (Err(error), _, None) => Err(error),
        }
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let fail =
        |e: &dyn fmt::Display| format!("cannot read the secret file {}: {e}", path.display());
    let size = fs::metadata(path).map_err(|e| fail(&e))?.len();
    if size > SECRET_BYTES_MAX {
        return Err(fail(&format!("{size} bytes are too much for a secret")));
    }
    let text = fs::read_to_string(path).map_err(|e| fail(&e))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(fail(&"it is empty"));
    }
    Ok(text.to_owned())
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "the bearer token has characters that a header cannot carry".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Adds the credentials of one client to its requests.
pub(super) enum Credentials {
    None,
    Fixed(HeaderValue),
    File(Box<SecretFile>),
    Extension(Arc<dyn ClientAuth>),
}

impl Credentials {
    /// Credentials as configured. Files are read once to find mistakes early.
    pub fn new(options: &AuthOptions, extensions: &Authenticators) -> Result<Credentials, String> {
        let file = |path: &PathBuf, form| {
            let file = SecretFile {
                path: path.clone(),
                form,
                cached: Mutex::default(),
            };
            file.header()?;
            Ok(Credentials::File(Box::new(file)))
        };
        match options {
            AuthOptions::None => Ok(Credentials::None),
            AuthOptions::Extension(id) => {
                let extension = extensions.client(id).map(Credentials::Extension);
                extension.ok_or_else(|| {
                    format!("the authenticator {id:?} is not an extension that can authenticate")
                })
            }
            AuthOptions::Basic { username, password } => {
                basic(username, password).map(Credentials::Fixed)
            }
            AuthOptions::Bearer { token } => bearer(token).map(Credentials::Fixed),
            AuthOptions::BasicFile {
                username,
                password_file,
            } => file(password_file, Form::Basic(username.clone())),
            AuthOptions::BearerFile(path) => file(path, Form::Bearer),
        }
    }

    /// Adds to the headers of one request; an extension does it in [`Credentials::finish`]. `url` are the credentials in the endpoint's URL, which
    /// count if there are no others.
    pub fn add_to(&self, headers: &mut HeaderMap, url: Option<&HeaderValue>) -> Result<(), String> {
        let value = match (self, url) {
            (Credentials::None, None) => return Ok(()),
            (Credentials::None, Some(url)) => url.clone(),
            (Credentials::Fixed(value), _) => value.clone(),
            (Credentials::File(file), _) => file.header()?,
            (Credentials::Extension(_), _) => return Ok(()),
        };
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// Has the extension change the headers of one request, if there is one: as in the collector, after all
    /// that is configured. What was carried along for it ends here.
    pub fn finish(&self, headers: &mut HeaderMap) -> Result<(), String> {
        if let Credentials::Extension(extension) = self {
            extension.authenticate(headers)?;
        }
        uncarry(headers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(credentials: &Credentials) -> String {
        let url = HeaderValue::from_static("Basic url");
        let mut headers = HeaderMap::new();
        credentials.add_to(&mut headers, Some(&url)).unwrap();
        headers[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn configured_credentials_win_over_the_url() {
        let options = AuthOptions::Basic {
            username: "a".into(),
            password: "b:c".into(),
        };
        assert_eq!(
            sent(&Credentials::new(&options, &Authenticators::default()).unwrap()),
            "Basic YTpiOmM="
        );
        assert_eq!(
            sent(&Credentials::new(&AuthOptions::None, &Authenticators::default()).unwrap()),
            "Basic url"
        );
    }

    #[test]
    fn a_secret_file_is_read_again_when_it_changes_and_survives_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let missing = Credentials::new(
            &AuthOptions::BearerFile(path.clone()),
            &Authenticators::default(),
        );
        assert!(missing.err().unwrap().contains("token"));
        fs::write(&path, "one\n").unwrap();
        let c = Credentials::new(
            &AuthOptions::BearerFile(path.clone()),
            &Authenticators::default(),
        )
        .unwrap();
        assert_eq!(sent(&c), "Bearer one");
        fs::write(&path, "number two\n").unwrap();
        assert_eq!(sent(&c), "Bearer number two");
        fs::remove_file(&path).unwrap();
        assert_eq!(sent(&c), "Bearer number two");
    }

    #[test]
    fn what_a_header_cannot_carry_is_refused() {
        let bad = [
            AuthOptions::Bearer {
                token: "a\nb".into(),
            },
            AuthOptions::Basic {
                username: "a:b".into(),
                password: String::new(),
            },
            AuthOptions::Extension("oauth2client".into()),
        ];
        for options in bad {
            assert!(
                Credentials::new(&options, &Authenticators::default()).is_err(),
                "{options:?}"
            );
        }
    }
}
