//! How much of one request is taken.

/// What a request may hold. What goes beyond is refused as a whole, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Messages within messages: a record is at 3, its body at 4, and a map within a map takes 3
    /// more. At most [`Limits::DEPTH_MAX`]. Protobuf decoders stop at 100. Default 64.
    pub depth: usize,
    /// Log records, data points or spans of a request. Default 1,000,000.
    pub items: usize,
    /// Resources and scopes of a request, together: as columns each scope takes about 600 bytes,
    /// however small it came. Default 100,000.
    pub scopes: usize,
    /// Attributes of one list: of a resource, scope, record, point, span, event, link or exemplar,
    /// and entries of one map value. Default 65,536.
    pub attributes: usize,
}

impl Limits {
    /// The deepest nesting that [`Limits::depth`] can allow.
    pub const DEPTH_MAX: usize = 100;
    /// The largest message, as protobuf has it: 2 GiB less one byte.
    pub const BYTES_MAX: usize = i32::MAX as usize;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            depth: 64,
            items: 1_000_000,
            scopes: 100_000,
            attributes: 65_536,
        }
    }
}
