//! From bytes to records, for every receiver of text.
//!
//! - `frame`: where records end;
//! - `charset`: their encoding;
//! - `constants`, `options`: options that such receivers have in common.

pub mod charset;
pub mod constants;
pub mod frame;
pub mod options;
