//! `validate`, `components`, `print-config`: looking without starting anything.

use anyhow::Result;
use tailwater_config::{ComponentKind, ProcessEnvironment, SecretPaths, resolve};
use tailwater_pipeline::factory::Factory;

use super::check::{check, complain, sources, warn};
use crate::cli::{ConfigArgs, Format, Mode, exit};
use crate::registry::registry;

/// `tailwater validate`.
pub fn validate(args: &ConfigArgs) -> Result<u8> {
    match check(args) {
        Ok(checked) => {
            warn(&checked.warnings);
            Ok(exit::OK)
        }
        Err(errors) => Ok(complain(&errors)),
    }
}

/// `tailwater components`: YAML, as the collector prints it.
pub fn components() -> Result<u8> {
    let r = registry();
    println!("buildinfo:");
    println!("  command: tailwater");
    println!("  description: one native agent for logs, metrics and traces");
    println!("  version: {}", env!("CARGO_PKG_VERSION"));
    list(ComponentKind::Receiver, &r.receivers);
    list(ComponentKind::Processor, &r.processors);
    list(ComponentKind::Exporter, &r.exporters);
    println!("connectors: []");
    list(ComponentKind::Extension, &r.extensions);
    println!("providers:");
    ["env", "file", "yaml"]
        .iter()
        .for_each(|p| println!("  - scheme: {p}"));
    Ok(exit::OK)
}

fn list<S: ?Sized>(kind: ComponentKind, factories: &[Factory<S>]) {
    println!("{}:", kind.section());
    for f in factories {
        println!("  - name: {}", f.kind);
        println!("    about: {}", f.about);
        if !f.signals.is_empty() {
            println!("    signals: [{}]", f.signals.join(", "));
        }
    }
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
        Format::Yaml => print!("{}", tailwater_config::to_yaml(&root)),
        Format::Json => print!("{}", tailwater_config::to_json(&root)),
    }
    Ok(exit::OK)
}

/// Places of secrets that the generic names do not cover.
fn secret_paths() -> SecretPaths {
    SecretPaths::new().with("exporters::**::headers::*")
}
