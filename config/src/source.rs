//! Where a configuration comes from: the values of `--config` and `--set`.

use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::error::{ConfigError, Errors, KeyPath};
use crate::merge::merge;
use crate::node::{Key, Node, NodeValue, Span, one_line, quote};
use crate::parse::{DEPTH_MAX, depth_of, parse, parse_bytes};

/// A scheme in front of a URI: a letter and at least one more of letters, digits, `+`, `.`, `-`.
/// One letter is no scheme, so a drive letter begins a path.
pub(crate) fn split_scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, opaque) = uri.split_once(':')?;
    let mut bytes = scheme.bytes();
    let valid = scheme.len() >= 2
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'.' | b'-'));
    valid.then_some((scheme, opaque))
}

/// What is said about `http:` and `https:`.
pub(crate) const NO_HTTP: &str =
    "reading configuration over HTTP is not supported; fetch it to a file and use file:";

/// One configuration to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file (`file:PATH`, or just the path), relative to the working directory.
    File(PathBuf),
    /// YAML in an environment variable (`env:NAME`).
    Variable(String),
    /// YAML itself (`yaml:TEXT`). A key `a::b` at the top stands for nested keys.
    Yaml(String),
    /// YAML that came in by another way, under a name for messages.
    Named {
        /// The name.
        name: String,
        /// The text.
        text: String,
    },
}

impl Source {
    /// Reads the value of `--config`.
    ///
    /// # Errors
    /// A scheme other than `file`, `env` and `yaml`.
    #[expect(
        clippy::result_large_err,
        reason = "called once per source, the error is shown"
    )]
    pub fn parse(uri: &str) -> Result<Self, ConfigError> {
        let refuse = |message: String| ConfigError::new(None, KeyPath::root(), message);
        match split_scheme(uri) {
            None if uri.is_empty() => Err(refuse("an empty name of a file".to_owned())),
            Some(("file" | "env", "")) => Err(refuse(format!("{}: a name is missing", quote(uri)))),
            None => Ok(Source::File(PathBuf::from(uri))),
            Some(("file", path)) => Ok(Source::File(PathBuf::from(path))),
            Some(("env", name)) => Ok(Source::Variable(name.to_owned())),
            Some(("yaml", text)) => Ok(Source::Yaml(text.to_owned())),
            Some(("http" | "https", _)) => Err(refuse(format!("{}: {NO_HTTP}", quote(uri)))),
            Some((scheme, _)) => Err(refuse(format!(
                "unsupported scheme on URI {}: {scheme:?}; a file whose name holds a colon is \
                 written file:NAME",
                quote(uri)
            ))
            .allowed("file, env, yaml")),
        }
    }

    /// Reads the tree, which is a map or null.
    ///
    /// # Errors
    /// What reading or parsing gave, and a tree that is no map.
    pub fn read(&self, env: &dyn Environment) -> Result<Node, Errors> {
        let node = match self {
            Source::File(path) => read_file(path, env)?,
            Source::Variable(name) => read_variable(name, env)?,
            Source::Yaml(text) => parse(text, "yaml:")?,
            Source::Named { name, text } => parse(text, name)?,
        };
        top_map(node)
    }
}

fn read_file(path: &Path, env: &dyn Environment) -> Result<Node, Errors> {
    let name = path.display().to_string();
    let bytes = env.read_file(path).map_err(|error| {
        let message = format!("cannot read the file: {error}");
        ConfigError::new(Span::start_of(name.as_str()), KeyPath::root(), message)
    })?;
    parse_bytes(&bytes, &name)
}

fn read_variable(name: &str, env: &dyn Environment) -> Result<Node, Errors> {
    let source = format!("env:{name}");
    let fail =
        |message: &str| ConfigError::new(Span::start_of(source.as_str()), KeyPath::root(), message);
    let value = env
        .variable(name)
        .ok_or_else(|| fail("the environment variable is not set"))?;
    let text = value.to_str().ok_or_else(|| fail("not UTF-8 text"))?;
    parse(text, &source)
}

/// The tree of one `--set a.b.c=v`: every dot splits, the value is YAML.
///
/// # Errors
/// No equal sign, an empty key, or a value that is no YAML.
pub fn parse_set(set: &str) -> Result<Node, Errors> {
    // Without the value: it may be a secret, and this is shown with every problem.
    let keys = set.split('=').next().unwrap_or_default();
    let source = format!("--set {}", one_line(keys));
    let span = Span::start_of(source.as_str());
    let fail = |message: &str| ConfigError::new(span.clone(), KeyPath::root(), message);
    let (keys, value) = set
        .split_once('=')
        .ok_or_else(|| fail("missing equal sign; write a.b.c=value"))?;
    let keys: Vec<&str> = keys.trim().split('.').collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(fail("an empty key; write a.b.c=value").into());
    }
    let value = parse(value.trim(), &source)?;
    nest(&keys, value, &span)
}

/// The value below nested keys.
fn nest(keys: &[&str], value: Node, span: &Span) -> Result<Node, Errors> {
    if keys.len() + depth_of(&value) > DEPTH_MAX {
        let message = format!("nested deeper than {DEPTH_MAX} levels");
        return Err(ConfigError::new(span.clone(), KeyPath::root(), message).into());
    }
    Ok(keys.iter().rev().fold(value, |node, key| {
        let key = Key {
            text: (*key).to_owned(),
            span: span.clone(),
        };
        Node::new(NodeValue::Map(vec![(key, node)]), span.clone())
    }))
}

/// Takes a map or null as the top of a configuration, and splits its keys at `::`.
fn top_map(node: Node) -> Result<Node, Errors> {
    let span = node.span.clone();
    let entries = match node.value {
        NodeValue::Null => Vec::new(),
        NodeValue::Map(entries) => entries,
        _ => {
            let error = ConfigError::new(span, KeyPath::root(), "no configuration")
                .found(node.type_name())
                .allowed("a map");
            return Err(error.into());
        }
    };
    let mut plain = Vec::with_capacity(entries.len());
    let mut nested = Vec::new();
    for (key, value) in entries {
        if !key.text.contains("::") {
            plain.push((key, value));
            continue;
        }
        let keys: Vec<&str> = key.text.split("::").collect();
        nested.push(nest(&keys, value, &key.span)?);
    }
    if nested.len() > NESTED_KEYS_MAX {
        let message = format!("more than {NESTED_KEYS_MAX} keys with :: in them");
        return Err(ConfigError::new(span, KeyPath::root(), message).into());
    }
    let top = Node::new(NodeValue::Map(plain), span.clone());
    let nested = nested
        .into_iter()
        .fold(Node::empty_map(span.clone()), merge);
    let mut top = merge(top, nested);
    top.span = span;
    Ok(top)
}

/// Most keys with `::` at the top of one source; merging them costs the square of their number.
const NESTED_KEYS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::MemoryEnvironment;

    #[test]
    fn a_config_value_is_a_path_unless_it_has_a_scheme() {
        for (uri, expect) in [
            ("a.yaml", Source::File("a.yaml".into())),
            ("/etc/a b.yaml", Source::File("/etc/a b.yaml".into())),
            ("c:/a.yaml", Source::File("c:/a.yaml".into())),
            ("file:a.yaml", Source::File("a.yaml".into())),
            ("env:CONFIG", Source::Variable("CONFIG".into())),
            ("yaml:a: 1", Source::Yaml("a: 1".into())),
        ] {
            assert_eq!(Source::parse(uri).unwrap(), expect, "{uri}");
        }
        let http = Source::parse("https://example.org/a.yaml")
            .unwrap_err()
            .to_string();
        assert!(http.contains("HTTP is not supported"), "{http}");
        let other = Source::parse("s3:bucket").unwrap_err().to_string();
        assert!(other.contains("allowed: file, env, yaml"), "{other}");
        for nothing in ["", "file:", "env:"] {
            let error = Source::parse(nothing).unwrap_err().to_string();
            assert!(error.contains("name"), "{error}");
        }
    }

    #[test]
    fn every_dot_of_a_set_splits_and_its_value_is_yaml() {
        let node = parse_set("receivers.filelog.include=[a, b]").unwrap();
        let list = node.at("receivers::filelog::include").unwrap();
        assert_eq!(list.as_list().unwrap().len(), 2);
        assert_eq!(list.span.source.as_ref(), "--set receivers.filelog.include");
        assert_eq!(
            parse_set("a=").unwrap().at("a").unwrap().value,
            NodeValue::Null
        );
        for bad in ["a", "=1", "a..b=1", "a=[", ""] {
            assert!(parse_set(bad).is_err(), "{bad}");
        }
        let lines = parse_set("a\nb: 1").unwrap_err().to_string();
        assert!(lines.starts_with("--set a\\nb: 1:1:1: "), "{lines}");
        let deep = parse_set(&format!("{}=1", "a.".repeat(100_000) + "b")).unwrap_err();
        assert!(
            deep.to_string().contains("nested deeper"),
            "no overflow of the stack"
        );
    }

    #[test]
    fn keys_with_double_colons_at_the_top_are_nested_keys() {
        let env = MemoryEnvironment::new();
        let node = Source::Yaml("a::b: 1\na:\n  c: 2\n".into())
            .read(&env)
            .unwrap();
        assert_eq!(node.at("a::b").unwrap().as_i64(), Some(1));
        assert_eq!(node.at("a::c").unwrap().as_i64(), Some(2));
    }

    #[test]
    fn what_cannot_be_read_says_which_source_it_was() {
        let env = MemoryEnvironment::new().with_file("list.yaml", "- 1");
        for (source, expect) in [
            (
                Source::File("none.yaml".into()),
                "none.yaml:1:1: cannot read the file",
            ),
            (
                Source::File("list.yaml".into()),
                "list.yaml:1:1: no configuration; found a list",
            ),
            (
                Source::Variable("NONE".into()),
                "env:NONE:1:1: the environment variable is not set",
            ),
        ] {
            let error = source.read(&env).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }
}
