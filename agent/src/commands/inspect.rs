//! `validate`, `components`, `print-config`: looking without starting anything.

use anyhow::{Result, bail};
use tailwater_config::{ComponentKind, ProcessEnvironment, SecretPaths, nearest, resolve};
use tailwater_pipeline::factory::Factory;

use super::check::{check, complain, sources, warn};
use crate::cli::{ConfigArgs, Format, Mode, exit};
use crate::reference;
use crate::registry::registry;

/// `tailwater validate`, and with `explain` what a valid configuration means.
pub fn validate(args: &ConfigArgs, explain: bool) -> Result<u8> {
    match check(args) {
        Ok(checked) => {
            warn(&checked.warnings);
            if explain {
                return super::explain::explain(&checked, &checked.offer.sources);
            }
            Ok(exit::OK)
        }
        Err(errors) => Ok(complain(&errors)),
    }
}

/// `tailwater components`: YAML, as the collector prints it.
pub fn components() -> Result<u8> {
    let r = registry();
    say!("buildinfo:");
    say!("  command: tailwater");
    say!("  description: one native agent for logs, metrics and traces");
    say!("  version: {}", env!("CARGO_PKG_VERSION"));
    list(ComponentKind::Receiver, &r.receivers)?;
    list(ComponentKind::Processor, &r.processors)?;
    list(ComponentKind::Exporter, &r.exporters)?;
    list(ComponentKind::Connector, &r.connectors)?;
    list(ComponentKind::Extension, &r.extensions)?;
    say!("ottl:");
    let mut converters: Vec<&str> = tailwater_ottl::converters().collect();
    converters.sort_unstable();
    let editors: Vec<&str> = tailwater_ottl::editors().collect();
    say!("  editors: [{}]", editors.join(", "));
    say!("  converters: [{}]", converters.join(", "));
    say!("  not_built: [{}]", tailwater_ottl::NOT_BUILT.join(", "));
    let editors_not_built = tailwater_ottl::EDITORS_NOT_BUILT.join(", ");
    say!("  editors_not_built: [{editors_not_built}]");
    say!("providers:");
    for scheme in ["env", "file", "yaml"] {
        say!("  - scheme: {scheme}");
    }
    Ok(exit::OK)
}

/// `tailwater components --reference [TYPE]`: what there is to configure.
pub fn reference(kind: Option<&str>) -> Result<u8> {
    if let Some(text) = reference::pages(kind) {
        say!("{}", text.trim_end());
        return Ok(exit::OK);
    }
    let kind = kind.unwrap_or_default();
    let names = reference::names();
    let near = nearest(kind, names.iter().map(String::as_str));
    let near = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
    bail!(
        "there is no component {kind:?}{near} There are: {}",
        names.join(", ")
    )
}

/// `tailwater components --json-schema`.
pub fn json_schema() -> Result<u8> {
    say!("{}", reference::json_schema().trim_end());
    Ok(exit::OK)
}

fn list<S: ?Sized>(kind: ComponentKind, factories: &[Factory<S>]) -> std::io::Result<()> {
    say!("{}:", kind.section());
    for f in factories {
        say!("  - name: {}", f.kind);
        say!("    about: {}", f.about);
        if !f.signals.is_empty() {
            say!("    signals: [{}]", f.signals.join(", "));
        }
    }
    Ok(())
}

/// `tailwater print-config`: merged and substituted, secrets redacted.
pub fn print_config(args: &ConfigArgs, mode: Mode, format: Format, validate: bool) -> Result<u8> {
    let read = if validate {
        check(args).map(|checked| checked.loaded.root)
    } else {
        sources(args)
            .and_then(|sources| resolve(&sources, &args.set, &ProcessEnvironment))
            .map(|(root, _)| root)
    };
    let root = match read {
        Ok(root) => root,
        Err(errors) => return Ok(complain(&errors)),
    };
    let root = match mode {
        Mode::Redacted => tailwater_config::redact(&root, &secret_paths()),
        Mode::Unredacted => root,
    };
    match format {
        Format::Yaml => say!("{}", tailwater_config::to_yaml(&root).trim_end()),
        Format::Json => say!("{}", tailwater_config::to_json(&root).trim_end()),
    }
    Ok(exit::OK)
}

/// Places of secrets that the generic names do not cover.
pub fn secret_paths() -> SecretPaths {
    SecretPaths::new()
        .with("exporters::**::headers::*")
        .with("extensions::basicauth::htpasswd::inline")
        .with("extensions::bearertokenauth::tokens::*")
        .with("extensions::headers_setter::headers::*::value")
        .with("extensions::headers_setter::headers::*::default_value")
        .with("processors::redaction::hmac_key")
}
