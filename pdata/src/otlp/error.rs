//! Why a message is refused.

use super::Limits;

/// Bytes that are not a message of their signal, or that go beyond a limit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{problem}, at byte {offset} of {path}")]
pub struct WireError {
    /// What is wrong.
    pub problem: Problem,
    /// Offset in the message, in bytes.
    pub offset: usize,
    /// The field, from the request on, as `resource_logs.scope_logs.log_records.body`; `the request`
    /// outside of all.
    pub path: String,
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// The bytes end inside of a value, or a length reaches beyond the message it is in.
    #[error("a value reaches beyond the end of its message")]
    Truncated,
    /// A varint of more than ten bytes or more than 64 bits.
    #[error("a varint is longer than 64 bits")]
    Varint,
    /// Field number 0, or one above 2^29 - 1.
    #[error("a field number is outside of 1 to 536870911")]
    Number,
    /// Groups (3, 4), which OTLP does not use, or a wire type that does not exist (6, 7).
    #[error("wire type {0} is not allowed")]
    Type(u8),
    /// A known field with the wire type of another kind of value.
    #[error("wire type {found} where {wanted} is due")]
    Mismatch {
        /// The wire type that came.
        found: u8,
        /// The wire type of the field.
        wanted: u8,
    },
    /// Packed values of eight bytes each whose length is no multiple of eight.
    #[error("packed values are cut short")]
    Packed,
    /// A `string` that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// See [`Limits::depth`].
    #[error("messages are nested deeper than {0}")]
    Depth(usize),
    /// See [`Limits::items`].
    #[error("there are more than {0} log records, data points or spans")]
    Items(usize),
    /// See [`Limits::scopes`].
    #[error("there are more than {0} resources and scopes")]
    Scopes(usize),
    /// See [`Limits::attributes`].
    #[error("a list has more than {0} attributes")]
    Attributes(usize),
    /// See [`Limits::BYTES_MAX`].
    #[error("the message is larger than {} bytes", Limits::BYTES_MAX)]
    Bytes,
}

impl Problem {
    /// True if the message may be well formed, but a limit does not allow it.
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            Problem::Depth(_)
                | Problem::Items(_)
                | Problem::Scopes(_)
                | Problem::Attributes(_)
                | Problem::Bytes
        )
    }
}

impl From<super::wire::Fault> for Problem {
    fn from(fault: super::wire::Fault) -> Problem {
        use super::wire::Fault;
        match fault {
            Fault::Truncated => Problem::Truncated,
            Fault::Varint => Problem::Varint,
            Fault::Number => Problem::Number,
            Fault::Type(wire) => Problem::Type(wire),
        }
    }
}
