//! What reading must do with any configuration. Body of a fuzz target: it panics where it does not
//! hold.

use crate::{
    ConfigFile, Errors, KeyPath, MemoryEnvironment, Node, NodeValue, SecretPaths, Section, Source,
    load, parse, redact, resolve, to_json, to_yaml,
};

/// Most nodes and bytes of text that a tree has per byte of what was read: references repeat text.
const GROWTH_MAX: usize = 1 << 12;

/// A configuration of several sources: it is refused with problems that say where they are, or gives
/// a tree that is the same when it is written down and read again.
///
/// The input is divided at 0x1e: a file, YAML over it, a `--set` value, the variable `V`, a second
/// file `f` that may be included.
pub fn configuration(data: &[u8]) {
    let mut parts = data.split(|b| *b == 0x1e);
    let mut bytes = || parts.next().unwrap_or_default();
    let (main, over) = (bytes(), String::from_utf8_lossy(bytes()));
    let (set, variable) = (
        String::from_utf8_lossy(bytes()),
        String::from_utf8_lossy(bytes()),
    );
    let env = MemoryEnvironment::new()
        .with_file("c.yaml", main)
        .with_file("f", bytes())
        .with_variable("W", "${env:V}")
        .with_variable("V", variable);
    let sources = [
        Source::File("c.yaml".into()),
        Source::Yaml(over.into_owned()),
    ];
    let sets: Vec<String> = match set.is_empty() {
        true => Vec::new(),
        false => vec![set.into_owned()],
    };
    let mut errors = Errors::new();
    let loaded = load(&sources, &sets, &env, &mut errors);
    located(&errors);
    match resolve(&sources, &sets, &env) {
        Ok((root, warnings)) => {
            assert!(warnings.is_empty(), "warnings only: {warnings}");
            assert_eq!(loaded.map(|l| l.root), Some(root.clone()));
            shown(&root, data.len());
            read(&root);
        }
        Err(problems) => {
            located(&problems);
            assert!(loaded.is_none() && !problems.is_empty() && !errors.is_empty());
        }
    }
}

/// Each problem is one line that says where it is.
fn located(errors: &Errors) {
    for error in errors {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
        // The last of very many says only that there are more.
        if let Some(span) = &error.span {
            assert!(span.line >= 1 && span.column >= 1, "{text}");
        } else {
            assert!(errors.len() > 100, "{text}");
        }
    }
}

/// What is written down is read as the same, and is not much larger than what it came from.
fn shown(root: &Node, input_bytes: usize) {
    let yaml = to_yaml(root);
    assert!(
        yaml.len() <= (input_bytes + 1) * GROWTH_MAX,
        "{} of {input_bytes}",
        yaml.len()
    );
    let back = again(yaml);
    assert!(root.same_value(&back), "{root:?} became {back:?}");
    // JSON is for other programs: numbers that it does not have are text.
    let json = to_json(root);
    let back = parse(&json, "json").unwrap_or_else(|e| panic!("{e}: {json}"));
    let has_all =
        !json.contains("\".inf\"") && !json.contains("\"-.inf\"") && !json.contains("\".nan\"");
    assert!(
        !has_all || root.same_value(&back),
        "{root:?} became {back:?}"
    );
    let hidden = redact(root, &SecretPaths::new());
    let back = again(to_yaml(&hidden));
    assert!(hidden.same_value(&back), "{hidden:?} became {back:?}");
    let mut errors = Errors::new();
    let _ = ConfigFile::decode(&hidden, &mut errors);
    located(&errors);
}

/// Reads what was written down, with substitution, as the next start would.
fn again(yaml: String) -> Node {
    let shown = yaml.clone();
    let read = resolve(&[Source::Yaml(yaml)], &[], &MemoryEnvironment::new());
    read.unwrap_or_else(|e| panic!("{e}: {shown:?}")).0
}

/// Reads each option at the top as each kind of value: a value, or a problem with its place.
fn read(root: &Node) {
    let NodeValue::Map(entries) = &root.value else {
        return;
    };
    for (key, _) in entries.iter().take(8) {
        let mut errors = Errors::new();
        let mut section = Section::new(root, KeyPath::root(), &mut errors);
        let key = &key.text;
        section.string_optional(key);
        section.bool(key, false);
        section.u64(key, 1, ..);
        section.f64(key, 1.0, 0.0..=1.0);
        section.byte_size(key, 1, ..);
        section.duration(key, std::time::Duration::ZERO);
        section.finish();
        located(&errors);
    }
}
