//! What a section takes note of while a decoder is run to learn its options; see
//! [`crate::reference`]. Of a configuration that is really read, nothing here does anything.

use std::ops::{Bound, RangeBounds};

use crate::error::{Errors, KeyPath};
use crate::reference::{Bounds, Recording, ValueKind};
use crate::section::Section;

impl Section<'_, '_> {
    /// Says what options of this section, or below it, do: pairs of a key, or a path joined by `::`,
    /// and a text. Elements of lists are [`ELEMENT`](crate::reference::ELEMENT), free names
    /// [`ANY_NAME`](crate::reference::ANY_NAME). A text that begins with `own: ` is about an option that
    /// the collector does not have.
    pub fn describe(&mut self, texts: &[(&str, &str)]) {
        self.record(|recording, path| {
            for (key, text) in texts {
                recording.describe(path.child(key), text);
            }
        });
    }

    /// A text that must be there and says which other options there are, one of `names`. It is given as it
    /// is written, also if it is none of them.
    pub fn variant(&mut self, key: &str, names: &[&str]) -> Option<String> {
        if !self.is_recording() {
            return self.string_required(key);
        }
        self.note(key, || one_of(names.iter().copied(), false));
        self.record(|recording, path| recording.require(&path.child(key)));
        let name = *names.get(self.way(key, "variant", names.len()))?;
        self.path = self.path.child(format!("<{name}>"));
        let path = self.path.clone();
        self.errors.begin_recorded(&path);
        Some(name.to_owned())
    }

    /// Whether a decoder is run to learn its options, and no configuration is read. Only for decoders that
    /// look at nodes later than they read them.
    pub fn is_recording(&self) -> bool {
        self.errors.recording.is_some()
    }

    /// Takes note of an option.
    pub(super) fn note(&mut self, key: &str, kind: impl FnOnce() -> ValueKind) {
        self.record(|recording, path| recording.note(&path.child(key), kind()));
    }

    /// Which of `ways` a getter goes, from 0; always 0 when a configuration is read.
    pub(super) fn way(&mut self, key: &str, what: &str, ways: usize) -> usize {
        match &mut self.errors.recording {
            Some(recording) => recording.way(&self.path.child(key), what, ways),
            None => 0,
        }
    }

    pub(super) fn record(&mut self, note: impl FnOnce(&mut Recording, &KeyPath)) {
        if let Some(recording) = &mut self.errors.recording {
            note(recording, &self.path);
        }
    }
}

impl Errors {
    /// Takes note that a section is begun.
    pub(super) fn begin_recorded(&mut self, path: &KeyPath) {
        if let Some(recording) = &mut self.recording {
            recording.begin(path);
        }
    }
}

/// One of some names.
pub(super) fn one_of<'a>(names: impl Iterator<Item = &'a str>, any_case: bool) -> ValueKind {
    ValueKind::OneOf {
        names: names.map(str::to_owned).collect(),
        any_case,
    }
}

/// What a range says, in words and as numbers.
pub(super) fn bounds<T>(
    range: &impl RangeBounds<T>,
    show: impl Fn(&T) -> String,
    number: impl Fn(&T) -> Option<f64>,
) -> Bounds {
    let low = match range.start_bound() {
        Bound::Included(low) => format!("from {}", show(low)),
        Bound::Excluded(low) => format!("above {}", show(low)),
        Bound::Unbounded => String::new(),
    };
    let high = match range.end_bound() {
        Bound::Included(high) => format!("up to {}", show(high)),
        Bound::Excluded(high) => format!("below {}", show(high)),
        Bound::Unbounded => String::new(),
    };
    let included = |bound: Bound<&T>| match bound {
        Bound::Included(n) => number(n),
        Bound::Excluded(_) | Bound::Unbounded => None,
    };
    Bounds {
        text: format!("{low} {high}").trim().to_owned(),
        least: included(range.start_bound()),
        most: included(range.end_bound()),
    }
}
