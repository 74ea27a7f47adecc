//! The collector's YAML configuration: reading, substitution, merging, strict decoding.
//!
//! [`load`](load()) turns sources into a [`Loaded`] configuration: an envelope of components and
//! pipelines whose references are proven, each component's own part still a [`Node`] tree. The
//! components decode theirs with a [`Section`]. Every value knows the file, line and column it was
//! written at, and every problem is reported, not only the first.
//!
//! This crate knows no component: it does not know which types exist nor what their options are.
//! It does no input or output but through an [`Environment`], and starts nothing.
//!
//! ```
//! use std::time::Duration;
//! use tailwater_config::{Errors, Section, parse};
//!
//! let node = parse("endpoint: http://loki:3100\ntimout: 5s\n", "agent.yaml")?;
//! let mut errors = Errors::new();
//! let mut section = Section::new(&node, "exporters::loki", &mut errors);
//! let endpoint = section.string_required("endpoint");
//! let timeout = section.duration("timeout", Duration::from_secs(30));
//! section.finish();
//! assert_eq!(endpoint.as_deref(), Some("http://loki:3100"));
//! assert_eq!(timeout, Duration::from_secs(30));
//! assert_eq!(
//!     errors.to_string(),
//!     "agent.yaml:2:1: exporters::loki::timout: unknown option \"timout\"; allowed: endpoint, \
//!      timeout; did you mean \"timeout\"?"
//! );
//! # Ok::<(), Errors>(())
//! ```
//!
//! Values that are secret are secret only once they are a [`Secret`]: a [`Node`] shows what it
//! holds, so pass a tree through [`redact`](redact()) before it is printed or logged.

mod admin;
mod collector_types;
mod component_id;
mod connections;
mod duration;
mod envelope;
mod environment;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod load;
mod merge;
mod node;
mod parse;
mod placeholder;
mod redact;
pub mod reference;
mod references;
mod render;
mod scalar;
mod secret;
mod section;
mod size;
mod source;
mod substitute;
mod suggest;

pub use admin::{AdminEndpoint, AdminOptions, is_loopback};
pub use collector_types::is_collector_type;
pub use component_id::{
    CanonicalType, ComponentId, ComponentKind, IdError, PipelineId, Signal, canonical_type,
    spellings,
};
pub use duration::{format_duration, parse_duration};
pub use envelope::{
    ComponentEntry, ConfigFile, Pipeline, Reference, SHUTDOWN_TIMEOUT, SandboxOptions, Service,
    WORKERS_MAX,
};
pub use environment::{Environment, MemoryEnvironment, ProcessEnvironment};
pub use error::{ConfigError, DefaultValue, ERRORS_MAX, Errors, KeyPath, Warning};
pub use load::{Loaded, load, resolve};
pub use merge::merge;
pub use node::{Key, Node, NodeValue, Span};
pub use parse::{DEPTH_MAX, SOURCE_BYTES_MAX, parse, parse_bytes};
pub use redact::{SecretPaths, redact};
pub use render::{to_json, to_yaml};
pub use secret::{REDACTED, Secret};
pub use section::Section;
pub use size::parse_byte_size;
pub use source::{Source, parse_set};
pub use substitute::substitute;
pub use suggest::nearest;
