//! From sources to a proven configuration, in one step.

use crate::envelope::ConfigFile;
use crate::environment::Environment;
use crate::error::{ConfigError, Errors, KeyPath};
use crate::merge::merge;
use crate::node::{Node, Span};
use crate::source::{Source, parse_set};
use crate::substitute::substitute;

/// A configuration that was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The components and pipelines.
    pub file: ConfigFile,
    /// The whole tree, merged and substituted.
    pub root: Node,
}

/// Reads the sources, lays each over those before it and the `--set` values over all, replaces
/// `${}`, and proves that the parts fit together. All problems and warnings go to `errors`.
///
/// `None` if there is no tree to look at: reading, parsing or substitution failed. With problems
/// of structure, what could be read is given all the same, so that whoever decodes the components
/// can report theirs with them; it must not be run.
pub fn load(
    sources: &[Source],
    sets: &[String],
    env: &dyn Environment,
    errors: &mut Errors,
) -> Option<Loaded> {
    match resolve(sources, sets, env) {
        Ok((root, warnings)) => {
            errors.append(warnings);
            let file = ConfigFile::decode(&root, errors);
            Some(Loaded { file, root })
        }
        Err(problems) => {
            errors.append(problems);
            None
        }
    }
}

/// The merged and substituted tree of the sources, without looking at what it means. The second
/// part holds the warnings and no problem.
///
/// # Errors
/// All problems of reading and parsing (of all sources), else all of substitution.
pub fn resolve(
    sources: &[Source],
    sets: &[String],
    env: &dyn Environment,
) -> Result<(Node, Errors), Errors> {
    let mut errors = Errors::new();
    let mut trees = Vec::with_capacity(sources.len() + sets.len());
    for tree in sources
        .iter()
        .map(|s| s.read(env))
        .chain(sets.iter().map(|s| parse_set(s)))
    {
        match tree {
            Ok(tree) => trees.push(tree),
            Err(found) => errors.append(found),
        }
    }
    let mut trees = trees.into_iter();
    let first = trees.next();
    if first.is_none() && errors.is_empty() {
        let message = "no configuration given; name one with --config";
        errors.push(ConfigError::new(None, KeyPath::root(), message));
    }
    let empty = || Node::empty_map(Span::start_of("config"));
    let root = trees.fold(first.unwrap_or_else(empty), merge);
    if !errors.is_empty() {
        return Err(errors);
    }
    let (root, errors) = substitute(root, env);
    if errors.is_empty() {
        Ok((root, errors))
    } else {
        Err(errors)
    }
}
