//! What can go wrong with one record.

use tailwater_golang::strptime::TimeError;
use tailwater_pdata::ValueRef;

use super::expr::EvalError;

/// Why an operator could not treat a record. Cheap to make: the text is written only when one of
/// them is reported.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The field the operator reads is not there.
    #[error("the record has no field {0}")]
    Missing(String),
    /// The value the operator reads is not text.
    #[error("{found} cannot be parsed by {parser}, it takes text")]
    NotText {
        /// The parser.
        parser: &'static str,
        /// Kind of the value.
        found: &'static str,
    },
    /// The value is of a kind that cannot be used here.
    #[error("{found} cannot be used as {wanted}")]
    Kind {
        /// What it was meant to be.
        wanted: &'static str,
        /// Kind of the value.
        found: &'static str,
    },
    /// Not a JSON object.
    #[error("not a JSON object: {what} at byte {at}")]
    Json {
        /// What is wrong.
        what: &'static str,
        /// Where in the text.
        at: usize,
    },
    /// Text of a format that has positions.
    #[error("not {format}: {what} at byte {at}")]
    Format {
        /// What it was read as, with its article.
        format: &'static str,
        /// What is wrong.
        what: &'static str,
        /// Where in the text.
        at: usize,
    },
    /// A record with another number of fields than there are names.
    #[error("{found} fields for {wanted} names")]
    FieldCount {
        /// Names.
        wanted: usize,
        /// Fields.
        found: usize,
    },
    /// The value is not a quoted string.
    #[error("not a quoted string")]
    Unquote,
    /// More text would have been made of a record than a value may have.
    #[error("would make more than {0} bytes of text")]
    TooLong(usize),
    /// The records of a batch named too many scopes.
    #[error("more than {0} names of scopes in one read")]
    TooManyScopes(usize),
    /// The regular expression does not match.
    #[error("the regular expression does not match")]
    NoMatch,
    /// Not a line of any container runtime's format, or not of the one that was set.
    #[error("not a line of the {0} format")]
    Container(&'static str),
    /// The time stamp of a container log line is not one.
    #[error("the time stamp of the {0} line cannot be parsed")]
    ContainerTime(&'static str),
    /// `log.file.path` is not there.
    #[error(
        "the record has no attribute log.file.path; set include_file_path: true or \
         add_metadata_from_filepath: false"
    )]
    NoFilePath,
    /// `log.file.path` does not look like a file of the kubelet.
    #[error("log.file.path is not like .../<namespace>_<pod>_<uid>/<container>/<restarts>.log")]
    FilePath,
    /// A time could not be parsed.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// An expression could not be evaluated.
    #[error("expression: {0}")]
    Expr(#[from] EvalError),
    /// Only maps can be set on attributes or resource as a whole.
    #[error("only a map can be set on {0} as a whole")]
    Root(&'static str),
    /// A trace or span id is not hexadecimal.
    #[error("{0} is not hexadecimal")]
    Id(&'static str),
    /// A record would have brought more attributes than a batch may have.
    #[error("more than {0} fields in one record")]
    TooManyFields(usize),
}

/// Name of a value's kind for messages.
pub(crate) fn kind_of(v: ValueRef<'_>) -> &'static str {
    v.kind_name()
}
