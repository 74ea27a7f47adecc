//! What this exporter must do with any bytes. Bodies of fuzz targets: they panic where it does not
//! hold.

mod compression;
mod requests;
mod responses;

pub use compression::compression;
pub use requests::requests;
pub use responses::responses;
