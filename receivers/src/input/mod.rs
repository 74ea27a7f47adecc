//! From bytes to records, for every receiver of text.
//!
//! - `frame`: where records end;
//! - `charset`: their encoding;
//! - `constants`, `options`: options that such receivers have in common;
//! - `kept`: what was passed on, until it is delivered.

pub mod charset;
pub mod constants;
pub mod frame;
pub mod kept;
pub mod options;
