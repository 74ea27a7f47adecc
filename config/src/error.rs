//! Problems in a configuration: each says where, what was found, and what would be right.

use std::borrow::Cow;
use std::fmt;

use crate::node::Span;
use crate::reference::Recording;

/// Where an option stands in the configuration: keys joined by `::`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct KeyPath(String);

impl KeyPath {
    /// The path of the whole configuration.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a key (or the index of an element) below this one.
    #[must_use]
    pub fn child(&self, key: impl fmt::Display) -> Self {
        if self.0.is_empty() {
            Self(key.to_string())
        } else {
            Self(format!("{}::{key}", self.0))
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for KeyPath {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl From<String> for KeyPath {
    fn from(path: String) -> Self {
        Self(path)
    }
}

impl From<&KeyPath> for KeyPath {
    fn from(path: &KeyPath) -> Self {
        path.clone()
    }
}

/// Control characters are escaped: a problem is one line, whatever keys are called.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0))
    }
}

/// `text` with its control characters escaped.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = |out: String, c: char| match c.is_control() {
        true => out + &c.escape_debug().to_string(),
        false => out + c.encode_utf8(&mut [0; 4]),
    };
    Cow::Owned(text.chars().fold(String::new(), escaped))
}

/// One problem. Displayed as
/// `file.yaml:12:7: receivers::filelog::start_at: found "midle", allowed: beginning, end; did you
/// mean "end"?`, leaving out what is not known.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub struct ConfigError {
    /// Where it was written.
    pub span: Option<Span>,
    /// Which option it is about; the root if none.
    pub path: KeyPath,
    /// What is wrong, in words; may be empty if `found` and `allowed` say it all.
    pub message: String,
    /// What was written.
    pub found: Option<String>,
    /// What may be written: a list of values or names, or a description.
    pub allowed: Option<String>,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl ConfigError {
    /// A problem in words, at a place.
    pub fn new(
        span: impl Into<Option<Span>>,
        path: impl Into<KeyPath>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            span: span.into(),
            path: path.into(),
            message: message.into(),
            found: None,
            allowed: None,
            suggestion: None,
        }
    }

    /// Adds what was written.
    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// Adds what may be written.
    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Adds what was probably meant.
    #[must_use]
    pub fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(Into::into);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = &self.span {
            write!(f, "{span}: ")?;
        }
        if !self.path.as_str().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        // Libraries explain over several lines; a problem is one.
        for (i, line) in self.message.lines().map(str::trim).enumerate() {
            write!(f, "{}{}", if i > 0 { " " } else { "" }, one_line(line))?;
        }
        let mut separator = if self.message.is_empty() { "" } else { "; " };
        if let Some(found) = &self.found {
            write!(f, "{separator}found {}", one_line(found))?;
            separator = ", ";
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "{separator}allowed: {}", one_line(allowed))?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean \"{}\"?", one_line(suggestion))?;
        }
        Ok(())
    }
}

/// Something the user should know that does not stop the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// Where it was written.
    pub span: Option<Span>,
    /// Which option it is about; the root if none.
    pub path: KeyPath,
    /// What there is to know.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = &self.span {
            write!(f, "{span}: ")?;
        }
        if !self.path.as_str().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&one_line(&self.message))
    }
}

/// A default that is in force, since the option was not written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefaultValue {
    /// Where the section was written that the option would be in.
    pub span: Span,
    /// The option.
    pub path: KeyPath,
    /// Its value, as it would be written.
    pub value: String,
}

/// Most defaults that are kept.
const DEFAULTS_MAX: usize = 5_000;

/// Most problems (and most warnings) that are kept: nobody reads more, and a hostile text must not
/// turn into memory. The others are counted.
pub const ERRORS_MAX: usize = 500;

/// All problems of a configuration, in the order they were met, and the warnings. It is what
/// decoding writes into and what loading returns. Displayed as one problem a line.
///
/// Holds at most [`ERRORS_MAX`] of each; problems beyond are counted and mentioned at the end.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Errors {
    errors: Vec<ConfigError>,
    /// Problems that were not kept.
    omitted: usize,
    warnings: Vec<Warning>,
    defaults: Vec<DefaultValue>,
    /// What getters take note of while a decoder is run to learn its options.
    pub(crate) recording: Option<Box<Recording>>,
}

impl Errors {
    /// No problems.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a problem.
    pub fn push(&mut self, error: ConfigError) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        } else {
            self.omitted += 1;
        }
    }

    /// Adds a problem that is only described if it is kept.
    pub(crate) fn push_with(&mut self, error: impl FnOnce() -> ConfigError) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error());
        } else {
            self.omitted += 1;
        }
    }

    /// Adds a warning, once.
    pub fn warn(&mut self, warning: Warning) {
        if self.warnings.len() < ERRORS_MAX && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Takes account of a default that is in force, once.
    pub(crate) fn note_default(&mut self, default: DefaultValue) {
        if self.defaults.len() < DEFAULTS_MAX && self.defaults.last() != Some(&default) {
            self.defaults.push(default);
        }
    }

    /// Takes the defaults out that are in force in what was decoded.
    pub fn take_defaults(&mut self) -> Vec<DefaultValue> {
        std::mem::take(&mut self.defaults)
    }

    /// Takes over all problems and warnings of another.
    pub fn append(&mut self, other: Errors) {
        self.omitted += other.omitted;
        for error in other.errors {
            self.push(error);
        }
        for warning in other.warnings {
            self.warn(warning);
        }
        for default in other.defaults {
            self.note_default(default);
        }
    }

    /// Whether there is no problem. Warnings do not count.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Number of problems, with those that were not kept. Warnings do not count.
    pub fn len(&self) -> usize {
        self.errors.len() + self.omitted
    }

    /// The problems that were kept.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.errors.iter()
    }

    /// The warnings.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Takes the warnings out.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// The value if there is no problem, else the problems.
    ///
    /// # Errors
    /// This, if it holds at least one problem.
    pub fn into_result<T>(self, value: T) -> Result<T, Errors> {
        if self.errors.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl From<ConfigError> for Errors {
    fn from(error: ConfigError) -> Self {
        Self {
            errors: vec![error],
            ..Self::default()
        }
    }
}

impl IntoIterator for Errors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n... and {} more problems", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_control_characters_are_shown_on_one_line() {
        let path = KeyPath::from("receivers").child("a\n\u{1b}b");
        assert_eq!(path.to_string(), "receivers::a\\n\\u{1b}b");
        assert_eq!(path.as_str(), "receivers::a\n\u{1b}b");
        let error = ConfigError::new(None, "", "unknown").allowed("x\ny");
        let error = error.suggest(Some("x\ny"));
        assert_eq!(
            error.to_string(),
            "unknown; allowed: x\\ny; did you mean \"x\\ny\"?"
        );
    }

    #[test]
    fn a_problem_is_shown_with_all_that_is_known_of_it() {
        let span = Span::new("file.yaml", 12, 7);
        let error = ConfigError::new(span.clone(), "a::b", "").found("\"midle\"");
        let error = error.allowed("beginning, middle").suggest(Some("middle"));
        let shown = "file.yaml:12:7: a::b: found \"midle\", allowed: beginning, middle; did you \
                     mean \"middle\"?";
        assert_eq!(error.to_string(), shown);
        assert_eq!(ConfigError::new(None, "", "is bad").to_string(), "is bad");
        let error = ConfigError::new(None, "", "no pattern:\n    (\n    ^\nunclosed");
        assert_eq!(error.to_string(), "no pattern: ( ^ unclosed");
        let error = ConfigError::new(span, "a", "unknown").allowed("x");
        assert_eq!(error.to_string(), "file.yaml:12:7: a: unknown; allowed: x");
    }

    #[test]
    fn problems_beyond_the_limit_are_counted() {
        let mut errors = Errors::new();
        for i in 0..ERRORS_MAX + 3 {
            errors.push(ConfigError::new(None, "", i.to_string()));
        }
        let mut more = Errors::from(ConfigError::new(None, "", "first"));
        more.append(errors);
        assert_eq!(
            (more.len(), more.iter().count()),
            (ERRORS_MAX + 4, ERRORS_MAX)
        );
        assert!(more.to_string().ends_with("... and 4 more problems"));
        assert!(more.into_result(()).is_err());
    }
}
