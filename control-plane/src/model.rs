//! What the control plane talks about: events of discovery, sources, digests, manifests. No I/O, no
//! clock, no threads.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::report::Reported;

/// SHA-256 of canonical bytes, in hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        use fmt::Write;
        let mut text = String::with_capacity(64);
        for byte in Sha256::digest(bytes) {
            let _ = write!(text, "{byte:02x}");
        }
        Digest(text)
    }

    /// Of a value: of its JSON, in which fields have a fixed order and maps are sorted.
    pub fn of_value(value: &impl Serialize) -> Digest {
        // What is digested here are structures of texts and numbers, which always have a JSON.
        Digest::of(&serde_json::to_vec(value).unwrap_or_default())
    }

    /// As it was written down.
    pub fn from_text(text: impl Into<String>) -> Digest {
        Digest(text.into())
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who found a source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A Docker Engine.
    Docker,
    /// A pattern of files.
    File,
    /// The command line, by its path.
    Static,
    /// Pods of a node of Kubernetes.
    Kubernetes,
}

impl Origin {
    /// All of them.
    pub const ALL: [Origin; 4] = [
        Origin::Docker,
        Origin::File,
        Origin::Static,
        Origin::Kubernetes,
    ];

    /// Its name in keys, metrics and the store.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Docker => "docker",
            Origin::File => "file",
            Origin::Static => "static",
            Origin::Kubernetes => "kubernetes",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Origin> {
        Origin::ALL.into_iter().find(|o| o.name() == name)
    }
}

/// What the lines of a source look like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As Docker's `json-file` driver writes them.
    Docker,
    /// As they are.
    Plain,
    /// As any runtime of containers writes them; each line says which.
    Container,
    /// The same, and what containers write is JSON, a line each.
    #[serde(rename = "container_json")]
    ContainerJson,
    /// The same, and it is pairs of keys and values (logfmt).
    #[serde(rename = "container_logfmt")]
    ContainerLogfmt,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 5] = [
        Format::Docker,
        Format::Plain,
        Format::Container,
        Format::ContainerJson,
        Format::ContainerLogfmt,
    ];
}

/// What there is to know of a source to tail it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    /// What it is called for as long as it exists: `docker:<container id>`, `file:<path>`,
    /// `kubernetes:<pod uid>/<container>/<restarts>`.
    pub id: String,
    /// Who found it.
    pub origin: Origin,
    /// The files it writes; absolute.
    pub paths: Vec<String>,
    /// What is in them.
    pub format: Format,
    /// Resource attributes of its records, after the rule of [`crate::discovery::labels`].
    pub labels: BTreeMap<String, String>,
}

impl Descriptor {
    /// Equal for what is tailed in the same way.
    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }
}

/// What discovery says. `generation` orders what is said of one source: nanoseconds since the epoch,
/// growing within an origin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A source is there, and looks like this.
    Present {
        /// See [`Event`].
        generation: i64,
        /// What it is.
        source: Descriptor,
    },
    /// A source ended: nothing will be added to its files.
    Absent {
        /// See [`Event`].
        generation: i64,
        /// Who says so.
        origin: Origin,
        /// Which one.
        id: String,
    },
    /// All that an origin has. What it had before and is not named here ended, so an end that nobody
    /// heard of is made up for.
    Snapshot {
        /// When it was asked, before the answer: what is newer is not undone by it.
        generation: i64,
        /// Whose.
        origin: Origin,
        /// The ids of all sources.
        ids: Vec<String>,
    },
    /// A source is there whose logs cannot be read.
    Unreadable {
        /// Who says so.
        origin: Origin,
        /// Which one.
        id: String,
        /// Why, for people.
        reason: String,
    },
    /// A source is there that asks for what there is not, and is read without it.
    Unheeded {
        /// Who says so.
        origin: Origin,
        /// Which one.
        id: String,
        /// What it asks for, for people.
        reason: String,
    },
    /// An agent of a fleet says what it reads: of all that it named, what is news.
    Reported {
        /// Its instance uid.
        agent: String,
        /// When it was heard, ns since the epoch, growing for each agent.
        at_ns: i64,
        /// What is new or as it was not before.
        sources: Vec<Reported>,
        /// What it does not name any more.
        unnamed: Vec<String>,
    },
    /// An agent of a fleet is away for so long that nobody waits for it.
    Forgotten {
        /// Its instance uid.
        agent: String,
        /// When, ns since the epoch.
        at_ns: i64,
    },
}

impl Event {
    /// Who found what it is about; none of what agents of a fleet say.
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Event::Present { source, .. } => Some(source.origin),
            Event::Absent { origin, .. }
            | Event::Snapshot { origin, .. }
            | Event::Unreadable { origin, .. }
            | Event::Unheeded { origin, .. } => Some(*origin),
            Event::Reported { .. } | Event::Forgotten { .. } => None,
        }
    }

    /// Its generation, if it has one.
    pub fn generation(&self) -> Option<i64> {
        match self {
            Event::Present { generation, .. }
            | Event::Absent { generation, .. }
            | Event::Snapshot { generation, .. } => Some(*generation),
            _ => None,
        }
    }
}

/// Where a source is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there; no agent has said yet that it reads it.
    Starting,
    /// It is there, and read.
    Live,
    /// It ended; what is left is being read and delivered.
    Draining,
    /// It ended, and nothing of it is left. It is kept for a while, as history.
    Gone,
}

impl State {
    /// All of them.
    pub const ALL: [State; 4] = [State::Starting, State::Live, State::Draining, State::Gone];

    /// Its name in the store, the log and metrics.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Live => "live",
            State::Draining => "draining",
            State::Gone => "gone",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// A row of the registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// See [`Descriptor::id`].
    pub id: String,
    /// Who found it.
    pub origin: Origin,
    /// Of the newest thing that was said about whether it is there.
    pub generation: i64,
    /// Of its descriptor; 0 without one.
    pub described: i64,
    /// What it is; none if only its end was heard of.
    pub descriptor: Option<Descriptor>,
    /// Whether it is there.
    pub present: bool,
    /// Where it is in its life.
    pub state: State,
    /// Since when, ns since the epoch.
    pub since_ns: i64,
    /// An agent has read something of it.
    pub seen: bool,
}

/// What is offered to an agent, by its parts. Its digest is what an offer is known by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this structure.
    pub schema: u32,
    /// What rendered it.
    pub builder: String,
    /// The base: everything but the sources.
    pub pipeline: Digest,
    /// The sources.
    pub targets: Digest,
    /// The newest generation of each origin that went into it.
    pub generations: BTreeMap<Origin, i64>,
    /// The key of the newest event that led to it.
    pub cause: String,
    /// The manifest that it follows.
    pub parent: Option<Digest>,
}

impl Manifest {
    /// See [`Manifest`].
    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha_256_and_follow_the_content() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        let one = Descriptor {
            id: "file:/a".into(),
            origin: Origin::File,
            paths: vec!["/a".into()],
            format: Format::Plain,
            labels: BTreeMap::from([("b".into(), "1".into()), ("a".into(), "2".into())]),
        };
        let mut other = one.clone();
        assert_eq!(one.digest(), other.digest());
        other.labels.insert("a".into(), "3".into());
        assert_ne!(one.digest(), other.digest());
    }

    /// Guarantee: what is in the store reads back as it was.
    #[test]
    fn names_and_events_read_back() {
        for origin in Origin::ALL {
            assert_eq!(Origin::of_name(origin.name()), Some(origin));
        }
        for state in State::ALL {
            assert_eq!(State::of_name(state.name()), Some(state));
        }
        let event = Event::Snapshot {
            generation: 7,
            origin: Origin::Docker,
            ids: vec!["docker:a".into()],
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"event":"snapshot","generation":7,"origin":"docker","ids":["docker:a"]}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
