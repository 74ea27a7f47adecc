//! From the command line to a configuration that may be run: every mistake of every part at once.

use std::fmt::Display;
use std::hash::BuildHasher;
use std::sync::OnceLock;

use tailwater_config::{
    DefaultValue, Environment, Errors, KeyPath, Loaded, Section, Source, Warning, load,
};
use tailwater_pipeline::graph::{Resolved, resolve};
use tailwater_telemetry::settings::TelemetrySettings;

use crate::cli::{ConfigArgs, exit};
use crate::extensions::opamp;
use crate::layer::check_layered;
use crate::offer::{Offer, Reading};
use crate::registry::registry;
use crate::storages;

/// A configuration with everything in it decoded and validated.
pub struct Checked {
    /// What was offered, as it was read.
    pub offer: Offer,
    /// The file.
    pub loaded: Loaded,
    /// Its components.
    pub resolved: Resolved,
    /// `service::telemetry`.
    pub telemetry: TelemetrySettings,
    /// What the user should know: unset variables, old spellings, options without effect.
    pub warnings: Vec<Warning>,
    /// The defaults that are in force.
    pub defaults: Vec<DefaultValue>,
}

impl Checked {
    /// Whether a control plane may lay something over it.
    pub fn takes_layers(&self) -> bool {
        opamp::running(&self.loaded.file).is_some_and(|s| s.takes_layers())
    }
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
    let offer = offer(args)?;
    check_offer(&offer, &Reading::of(&offer))
}

/// What the command line offers.
///
/// # Errors
/// Every source that is none.
pub fn offer(args: &ConfigArgs) -> Result<Offer, Errors> {
    Ok(Offer {
        sources: sources(args)?,
        sets: args.set.clone(),
        gates: args.feature_gates.clone(),
        layer: None,
        files: None,
    })
}

/// As [`check`], of what is offered, in the environment in which it is read.
///
/// # Errors
/// As [`check`].
pub fn check_offer(offer: &Offer, reading: &Reading<'_>) -> Result<Checked, Errors> {
    let checked = match &offer.layer {
        Some(layer) => check_layered(offer, layer, reading)?,
        None => check_sources(&offer.sources, &offer.sets, &offer.gates, reading)?,
    };
    Ok(Checked {
        offer: offer
            .with_layer(offer.layer.clone().filter(|_| checked.takes_layers()))
            .as_read(reading.files()),
        ..checked
    })
}

/// As [`check_offer`], of sources alone. The offer in what it gives is empty.
///
/// # Errors
/// As [`check`].
pub fn check_sources(
    sources: &[Source],
    sets: &[String],
    gates: &[String],
    env: &dyn Environment,
) -> Result<Checked, Errors> {
    let mut errors = Errors::new();
    for gates in gates.iter().filter(|g| !g.is_empty()) {
        errors.warn(Warning {
            span: None,
            path: KeyPath::root(),
            message: format!("--feature-gates {gates:?}: there are no feature gates here"),
        });
    }
    let Some(loaded) = load(sources, sets, env, &mut errors) else {
        return Err(errors);
    };
    let node = &loaded.file.service.telemetry;
    let mut section = Section::new(node, "service::telemetry", &mut errors);
    let resource = [
        ("service.name", "tailwater"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance_id()),
    ];
    let telemetry = TelemetrySettings::decode(&mut section, &resource);
    section.finish();
    storages::check(&loaded.file, &mut errors);
    opamp::check(&loaded.file, &mut errors);
    let Some(resolved) = resolve(&loaded.file, &registry(), &mut errors) else {
        return Err(errors);
    };
    let (warnings, defaults) = (errors.take_warnings(), errors.take_defaults());
    errors.into_result(Checked {
        offer: Offer::default(),
        loaded,
        resolved,
        telemetry,
        warnings,
        defaults,
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
    for e in mistakes(errors) {
        eprintln!("{e}");
    }
    let n = errors.len();
    eprintln!(
        "error: {n} mistake{} in the configuration",
        if n == 1 { "" } else { "s" }
    );
    exit::ERROR
}

/// Every mistake as text, in the order in which a person goes through the file.
pub fn mistakes(errors: &Errors) -> Vec<String> {
    let mut sorted: Vec<_> = errors.iter().collect();
    sorted.sort_by_key(|e| {
        e.span
            .as_ref()
            .map(|s| (s.source.clone(), s.line, s.column))
    });
    sorted.into_iter().map(ToString::to_string).collect()
}

/// The id of this process, as the collector gives one to each of its.
fn instance_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(random_uuid)
}

/// A random UUID (RFC 9562, version 4).
fn random_uuid() -> String {
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
