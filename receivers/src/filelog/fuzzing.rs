//! What the receiver must do with any bytes. Bodies of fuzz targets: they panic where it does not
//! hold.

mod compressed;
mod patterns;

pub use compressed::compressed;
pub use patterns::patterns;
