//! From the command line to a configuration that may be run: every mistake of every part at once.

use std::fmt::Display;
use std::hash::BuildHasher;

use tailwater_config::{
    Errors, KeyPath, Loaded, ProcessEnvironment, Section, Source, Warning, load,
};
use tailwater_pipeline::graph::{Resolved, resolve};
use tailwater_telemetry::settings::TelemetrySettings;

use crate::cli::{ConfigArgs, exit};
use crate::registry::registry;
use crate::storages;

/// A configuration with everything in it decoded and validated.
pub struct Checked {
    /// The file.
    pub loaded: Loaded,
    /// Its components.
    pub resolved: Resolved,
    /// `service::telemetry`.
    pub telemetry: TelemetrySettings,
    /// What the user should know: unset variables, old spellings, options without effect.
    pub warnings: Vec<Warning>,
}

/// The values of `--config` as sources.
///
/// # Errors
/// Every one that is none.
pub fn sources(args: &ConfigArgs) -> Result<Vec<Source>, Errors> {
    let mut errors = Errors::new();
    let mut sources = Vec::new();
    for text in &args.config {
        match Source::parse(text) {
            Ok(source) => sources.push(source),
            Err(e) => errors.push(e),
        }
    }
    errors.into_result(sources)
}

/// Loads and validates a configuration: all mistakes at once. Nothing is started, no I/O is done
/// beside reading the configuration.
///
/// # Errors
/// All problems, with the warnings: of reading the sources, or else of everything in them.
pub fn check(args: &ConfigArgs) -> Result<Checked, Errors> {
    let sources = sources(args)?;
    let mut errors = Errors::new();
    for gates in args.feature_gates.iter().filter(|g| !g.is_empty()) {
        errors.warn(Warning {
            span: None,
            path: KeyPath::root(),
            message: format!("--feature-gates {gates:?}: there are no feature gates here"),
        });
    }
    let Some(loaded) = load(&sources, &args.set, &ProcessEnvironment, &mut errors) else {
        return Err(errors);
    };
    let node = &loaded.file.service.telemetry;
    let mut section = Section::new(node, "service::telemetry", &mut errors);
    let instance = instance_id();
    let resource = [
        ("service.name", "tailwater"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", &instance),
    ];
    let telemetry = TelemetrySettings::decode(&mut section, &resource);
    section.finish();
    storages::check(&loaded.file, &mut errors);
    let Some(resolved) = resolve(&loaded.file, &registry(), &mut errors) else {
        return Err(errors);
    };
    let warnings = errors.take_warnings();
    errors.into_result(Checked {
        loaded,
        resolved,
        telemetry,
        warnings,
    })
}

/// Prints warnings to stderr.
pub fn warn(warnings: &[impl Display]) {
    for w in warnings {
        eprintln!("warning: {w}");
    }
}

/// Prints every warning and mistake to stderr and gives the exit code.
pub fn complain(errors: &Errors) -> u8 {
    warn(errors.warnings());
    // In the order in which a person goes through the file.
    let mut sorted: Vec<_> = errors.iter().collect();
    sorted.sort_by_key(|e| {
        e.span
            .as_ref()
            .map(|s| (s.source.clone(), s.line, s.column))
    });
    for e in sorted {
        eprintln!("{e}");
    }
    let n = errors.len();
    eprintln!(
        "error: {n} mistake{} in the configuration",
        if n == 1 { "" } else { "s" }
    );
    exit::ERROR
}

/// A random UUID (RFC 9562, version 4), as the collector gives each of its processes.
fn instance_id() -> String {
    let random = std::hash::RandomState::new();
    let (high, low) = (random.hash_one(1), random.hash_one(2));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff
    )
}
