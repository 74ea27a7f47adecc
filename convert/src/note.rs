//! What is to be said about places of a configuration.

use std::collections::HashSet;
use std::fmt;

/// How much a note matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing here does this.
    NoEqual,
    /// It was converted in a way that somebody should look at, or choose.
    Decide,
    /// There is nothing to do: what it is for is done anyway, or is not needed.
    NotNeeded,
}

impl Weight {
    /// The word that comments begin with.
    pub fn word(self) -> &'static str {
        match self {
            Weight::NoEqual => "NO EQUAL",
            Weight::Decide => "DECIDE",
            Weight::NotNeeded => "NOT NEEDED",
        }
    }
}

/// A remark about a place of what was converted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// How much it matters.
    pub weight: Weight,
    /// Where, as `file:line:column`.
    pub place: String,
    /// Which option.
    pub path: String,
    /// What is the matter, and what to do.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.weight.word();
        write!(f, "{}: {}: {word}: {}", self.place, self.path, self.text)
    }
}

/// The notes of one conversion.
#[derive(Default)]
pub struct Notes {
    all: Vec<Note>,
    said: HashSet<String>,
}

impl Notes {
    /// Takes a note; gives the comment that says it in the configuration.
    pub fn add(
        &mut self,
        weight: Weight,
        place: impl fmt::Display,
        path: &str,
        text: impl Into<String>,
    ) -> String {
        let (text, place) = (text.into(), place.to_string());
        let comment = format!("{}: {path}: {text}", weight.word());
        let note = Note {
            weight,
            place,
            path: path.to_owned(),
            text,
        };
        // Targets of one job share its stages: they are converted once for each.
        if self.said.insert(note.to_string()) {
            self.all.push(note);
        }
        comment
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Note> {
        self.all
    }
}
