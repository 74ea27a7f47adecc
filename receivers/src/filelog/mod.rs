//! The `filelog` receiver (`file_log`): tails files and loses nothing.
//!
//! - `catalog`, `identity`: which files there are and which of them we knew;
//! - `source`, `tail`: the shard's half: reads fairly, follows delivery with checkpoints;
//! - `discover`, `watch`, `driver`: finds files and hears of changes;
//! - `desk`: where it is asked for its files;
//! - `links`: which symbolic links are followed;
//! - `cutter`: from bytes to records;
//! - `lanes`: positions of each destination;
//! - `trial`: what is done with lines, without a file;
//! - `stamp`: times that are the same when a line is read again.

pub mod catalog;
pub mod config;
mod cutter;
mod desk;
pub mod discover;
mod driver;
pub mod file_attrs;
pub mod file_path;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod glob;
pub mod gzip;
pub mod gzip_reader;
pub mod hash;
mod holes;
pub mod identity;
pub mod import;
pub mod lanes;
pub mod links;
pub mod logfs;
mod node;
mod open_files;
pub mod order;
pub mod position;
mod resume;
mod rules;
mod saver;
pub mod settings;
mod settled;
mod source;
pub mod stamp;
mod tail;
mod trial;
mod under_way;
pub mod watch;
mod whole_lines;

#[cfg(test)]
mod joint_tests;
#[cfg(test)]
mod update_tests;

pub use driver::Driver;
pub use node::{FilelogNode, FilelogSettings, factory};
