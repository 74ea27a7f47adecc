//! `bearertokenauth`: tokens (RFC 6750), for receivers and for exporters.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::auth::{Authenticator, ClientAuth, Denied, Roles, ServerAuth};
use tailwater_pipeline::factory::{ExtensionFactory, ExtensionSettings, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, ExtensionNode};

use super::htpasswd::same;
use super::watched::Watched;

/// The factory of `bearertokenauth`.
pub fn factory() -> ExtensionFactory {
    ExtensionFactory {
        kind: "bearertokenauth",
        about: "tokens of senders, and to send",
        signals: &[],
        decode: |node, path, errors| {
            let settings = decode(node, path, errors)?;
            Some(Box::new(settings) as Box<dyn ExtensionSettings>)
        },
    }
}

#[derive(Clone)]
struct Settings {
    header: HeaderName,
    /// Stands in front of a token, if it is not empty.
    scheme: String,
    tokens: Vec<String>,
    /// A token per line. Counts instead of `tokens`.
    file: Option<PathBuf>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("header", "The header with the token."),
    ("scheme", "Stands in front of the token; may be empty."),
    ("token", "A token. It, `tokens` or `filename` is required."),
    (
        "tokens",
        "Tokens: a receiver takes any of them, an exporter sends the first.",
    ),
    (
        "filename",
        "File with a token per line, read again when it changes; counts instead of the others.",
    ),
];

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Settings> {
    let before = errors.len();
    let mut s = Section::new(node, path, errors);
    s.describe(OPTIONS);
    let header = s.string("header", "Authorization");
    let header = HeaderName::from_bytes(header.as_bytes()).unwrap_or_else(|_| {
        s.invalid("header", "must be the name of a header");
        AUTHORIZATION
    });
    let scheme = s.string("scheme", "Bearer");
    let token = s.secret("token").filter(|t| !t.is_empty());
    let tokens = s.string_list("tokens").unwrap_or_default();
    let file = s.string_optional("filename").filter(|f| !f.is_empty());
    if token.is_some() && !tokens.is_empty() {
        s.error("either tokens or token should be provided, not both");
    }
    let token = token.map(|t| t.expose().to_owned());
    let tokens: Vec<String> = token.into_iter().chain(tokens).collect();
    if file.is_some() && !tokens.is_empty() {
        s.warn("filename", "counts instead of token and tokens");
    }
    if file.is_none() && tokens.is_empty() {
        s.error("token, tokens or filename is required");
    }
    if tokens.iter().any(|t| value(&scheme, t).is_err()) {
        s.error("a token has characters that a header cannot carry");
    }
    s.finish();
    (errors.len() == before).then_some(Settings {
        header,
        scheme,
        tokens,
        file: file.map(PathBuf::from),
    })
}

/// The header's value for a token.
fn value(scheme: &str, token: &str) -> Result<HeaderValue, String> {
    let text = match scheme {
        "" => token.to_owned(),
        _ => format!("{scheme} {token}"),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| "a token has characters that a header cannot carry".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

impl ExtensionSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        let file = self.file.as_deref().map(|f| Watched::read(f, tokens));
        let file = file
            .transpose()
            .map_err(|e| BuildError::new(format!("extension \"{}\"", cx.id), e))?;
        Ok(Box::new(BearerAuth(Arc::new(Tokens {
            header: self.header.clone(),
            scheme: self.scheme.clone(),
            given: self.tokens.clone(),
            file,
        }))))
    }

    fn authenticates(&self) -> Roles {
        Roles {
            client: true,
            server: true,
            reads_clients: false,
        }
    }

    fn reach(&self, reach: &mut Reach) {
        self.file.iter().for_each(|f| reach.reads_file(f));
    }
}

/// A token per line.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let tokens: Vec<String> = lines.map(str::to_owned).collect();
    if tokens.is_empty() {
        return Err("there is no token in it".to_owned());
    }
    match tokens.iter().map(|t| value("", t)).find_map(Result::err) {
        Some(problem) => Err(problem),
        None => Ok(tokens),
    }
}

struct BearerAuth(Arc<Tokens>);

impl ExtensionNode for BearerAuth {
    fn start(&mut self) -> Result<(), BuildError> {
        Ok(())
    }

    fn authenticator(&self) -> Option<Authenticator> {
        Some(Authenticator {
            client: Some(self.0.clone()),
            server: Some(self.0.clone()),
        })
    }

    fn stop(&mut self) {}
}

struct Tokens {
    header: HeaderName,
    scheme: String,
    given: Vec<String>,
    file: Option<Watched<Vec<String>>>,
}

impl Tokens {
    /// Whether any token is the one that was sent. Looks at all of them, whichever it is.
    fn has(&self, sent: &[u8]) -> bool {
        let file = self.file.as_ref().map(Watched::get);
        let tokens = file.as_deref().unwrap_or(&self.given);
        let is = |token: &String| {
            value(&self.scheme, token).is_ok_and(|value| same(value.as_bytes(), sent))
        };
        tokens.iter().filter(|t| is(t)).count() > 0
    }
}

impl ClientAuth for Tokens {
    fn authenticate(&self, headers: &mut HeaderMap) -> Result<(), String> {
        let file = self.file.as_ref().map(Watched::get);
        let tokens = file.as_deref().unwrap_or(&self.given);
        let token = tokens.first().ok_or("there is no token")?;
        headers.insert(self.header.clone(), value(&self.scheme, token)?);
        Ok(())
    }
}

impl ServerAuth for Tokens {
    fn is_known(&self, headers: &HeaderMap) -> bool {
        self.check(headers).is_ok()
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let sent = headers.get(&self.header).ok_or(Denied::Missing)?;
        match self.has(sent.as_bytes()) {
            true => Ok(()),
            false => Err(Denied::Wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Tokens, String> {
        let node = tailwater_config::parse(yaml, "f").unwrap();
        let mut errors = Errors::new();
        let path = KeyPath::from("extensions::bearertokenauth");
        let settings = decode(&node, &path, &mut errors).ok_or_else(|| errors.to_string())?;
        Ok(Tokens {
            header: settings.header,
            scheme: settings.scheme,
            given: settings.tokens,
            file: None,
        })
    }

    /// Guarantee: what is sent is taken, by the same section or one that lists the token.
    #[test]
    fn a_token_is_sent_and_taken() {
        for (client, server, header, want) in [
            (
                "{token: abc}",
                "{tokens: [x, abc]}",
                "authorization",
                "Bearer abc",
            ),
            (
                "{token: abc, header: X-Key, scheme: ''}",
                "{tokens: [abc], header: X-Key, scheme: ''}",
                "x-key",
                "abc",
            ),
        ] {
            let (client, server) = (read(client).unwrap(), read(server).unwrap());
            let mut headers = HeaderMap::new();
            assert_eq!(server.check(&headers), Err(Denied::Missing));
            client.authenticate(&mut headers).unwrap();
            assert_eq!(headers[header], want);
            assert_eq!(server.check(&headers), Ok(()));
            headers.insert(
                server.header.clone(),
                HeaderValue::from_static("Bearer abd"),
            );
            assert_eq!(server.check(&headers), Err(Denied::Wrong));
        }
    }

    #[test]
    fn mistakes_of_the_section_are_found() {
        for (yaml, want) in [
            ("{}", "token, tokens or filename"),
            ("{token: a, tokens: [b]}", "not both"),
            ("{token: \"a\\nb\"}", "cannot carry"),
            ("{token: a, header: 'x y'}", "name of a header"),
        ] {
            let problem = read(yaml).err().unwrap_or_default();
            assert!(problem.contains(want), "{yaml}: {problem}");
        }
    }
}
