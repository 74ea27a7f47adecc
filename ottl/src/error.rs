//! What can be wrong with a statement, and what can go wrong with a record.

use std::borrow::Cow;

/// A mistake in a statement or condition: found when it is compiled, never at run time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct OttlError {
    /// The character of the statement it is about, from 1.
    pub column: usize,
    /// What was found, what is allowed, and what was probably meant.
    pub message: String,
}

/// A mistake by its byte offset, before the text it is in is at hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mistake {
    pub at: usize,
    pub message: String,
}

impl Mistake {
    pub fn new(at: usize, message: impl Into<String>) -> Mistake {
        Mistake {
            at,
            message: message.into(),
        }
    }

    /// The mistake as it is shown, with its column in `text`.
    pub fn in_text(self, text: &str) -> OttlError {
        let before = text.as_bytes().get(..self.at).unwrap_or(text.as_bytes());
        // A character begins wherever a byte does not continue one.
        let column = before.iter().filter(|b| (**b & 0xc0) != 0x80).count() + 1;
        OttlError {
            column,
            message: self.message,
        }
    }
}

/// Why a statement or condition could not be carried out for one record. Cheap to make: no text is
/// written unless it is shown.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Fault {
    /// A function or an operator was given a value of a kind that it does not take.
    #[error("{place}: {found} where {wanted} is needed")]
    Kind {
        /// The function or operator.
        place: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What it was given.
        found: &'static str,
    },
    /// Anything else that a function cannot do.
    #[error("{place}: {why}")]
    Failed {
        /// The function or operator.
        place: &'static str,
        /// Why.
        why: Cow<'static, str>,
    },
    /// A key on a value that has none.
    #[error("{found} has no {key}")]
    Index {
        /// The value.
        found: &'static str,
        /// What was looked for.
        key: &'static str,
    },
    /// A value that a field cannot hold.
    #[error("{found} cannot be stored in {field}")]
    Store {
        /// The field.
        field: &'static str,
        /// The value.
        found: &'static str,
    },
    /// A condition that is neither true nor false.
    #[error("{0} is no condition: it is neither true nor false")]
    NoTruth(&'static str),
}

impl Fault {
    /// Something that cannot be done, with the function or operator and why.
    pub fn failed(place: &'static str, why: impl Into<Cow<'static, str>>) -> Fault {
        Fault::Failed {
            place,
            why: why.into(),
        }
    }
}
