//! A push as JSON: `{"streams": [{"stream": {"job": "a"}, "values": [["1700000000000000000", "line",
//! {"trace": "1"}]]}]}`; times are ns since the epoch, metadata may be missing.
//!
//! Source: grafana/loki, docs/sources/reference/loki-http-api.md.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::entries::{Entries, Problem, Push, time};
use super::labels::{Labels, in_order};

/// Reads a whole push.
///
/// # Errors
/// It is broken, or see [`Push::add`].
pub fn read(body: &Bytes, push: &mut Push<'_>) -> Result<(), Problem> {
    let mut failed = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let request = Request {
        push,
        failed: &mut failed,
    };
    let read = request.deserialize(&mut deserializer);
    let read = read.and_then(|()| deserializer.end());
    match (failed, read) {
        (Some(problem), _) => Err(problem),
        (None, Ok(())) => Ok(()),
        (None, Err(e)) => Err(Problem::Invalid(format!("not a push in JSON: {e}"))),
    }
}

/// Text as bytes: what escapes make need not be characters.
struct Bare<'d>(Cow<'d, [u8]>);

impl<'d> Deserialize<'d> for Bare<'d> {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Bare<'d>, D::Error> {
        struct Of;
        impl<'d> Visitor<'d> for Of {
            type Value = Bare<'d>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'d [u8]) -> Result<Bare<'d>, E> {
                Ok(Bare(Cow::Borrowed(bytes)))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bare<'d>, E> {
                Ok(Bare(Cow::Owned(bytes.to_vec())))
            }
        }
        from.deserialize_bytes(Of)
    }
}

impl Bare<'_> {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// `{"streams": [...]}`.
struct Request<'a, 'r> {
    push: &'a mut Push<'r>,
    failed: &'a mut Option<Problem>,
}

impl<'d> DeserializeSeed<'d> for Request<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'d>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'d> Visitor<'d> for Request<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with streams")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Bare<'d>>()? {
            match &*key.0 {
                b"streams" => map.next_value_seed(Streams {
                    push: self.push,
                    failed: self.failed,
                })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The streams.
struct Streams<'a, 'r> {
    push: &'a mut Push<'r>,
    failed: &'a mut Option<Problem>,
}

impl<'d> DeserializeSeed<'d> for Streams<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'d>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'d> Visitor<'d> for Streams<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of streams")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut all: A) -> Result<(), A::Error> {
        while let Some((entries, labels)) = all.next_element_seed(Stream)? {
            if let Err(problem) = self.push.add(entries, &labels) {
                *self.failed = Some(problem);
                return Err(A::Error::custom("the push is not taken"));
            }
        }
        Ok(())
    }
}

/// `{"stream": {...}, "values": [...]}`.
struct Stream;

impl<'d> DeserializeSeed<'d> for Stream {
    type Value = (Entries, Labels);

    fn deserialize<D: Deserializer<'d>>(self, from: D) -> Result<(Entries, Labels), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'d> Visitor<'d> for Stream {
    type Value = (Entries, Labels);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with stream and values")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<(Entries, Labels), A::Error> {
        let (mut entries, mut labels) = (Entries::new(Bytes::new()), Labels::new());
        while let Some(key) = map.next_key::<Bare<'d>>()? {
            match &*key.0 {
                b"stream" => {
                    let pairs = map.next_value::<Option<Pairs<'d>>>()?;
                    let pairs = pairs.map(|pairs| pairs.0).unwrap_or_default();
                    let text = |(n, v): (Bare<'_>, Bare<'_>)| (n.text(), v.text());
                    labels = in_order(pairs.into_iter().map(text).collect());
                }
                b"values" => map.next_value_seed(Values(&mut entries))?,
                // Loki answers it with success, and keeps nothing.
                b"entries" => {
                    let text = "entries are of the older API (/api/prom/push); this one has values";
                    return Err(A::Error::custom(text));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok((entries, labels))
    }
}

/// An object of texts.
struct Pairs<'d>(Vec<(Bare<'d>, Bare<'d>)>);

impl<'d> Deserialize<'d> for Pairs<'d> {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Pairs<'d>, D::Error> {
        struct Of;
        impl<'d> Visitor<'d> for Of {
            type Value = Pairs<'d>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Pairs<'d>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(Of)
    }
}

/// The entries of a stream.
struct Values<'a>(&'a mut Entries);

impl<'d> DeserializeSeed<'d> for Values<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'d>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'d> Visitor<'d> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of entries")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut all: A) -> Result<(), A::Error> {
        while all.next_element_seed(Entry(self.0))?.is_some() {}
        Ok(())
    }
}

/// `["time", "line", {...}]`; null is none.
struct Entry<'a>(&'a mut Entries);

impl<'d> DeserializeSeed<'d> for Entry<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'d>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'d> Visitor<'d> for Entry<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of a time and a line")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut parts: A) -> Result<(), A::Error> {
        let missing = |what| A::Error::custom(format!("an entry without a {what}"));
        let ns: Bare<'d> = parts.next_element()?.ok_or_else(|| missing("time"))?;
        let ns = std::str::from_utf8(&ns.0).ok().and_then(|t| t.parse().ok());
        let ns = ns.ok_or_else(|| A::Error::custom("the time of an entry is no number of ns"))?;
        let line: Bare<'d> = parts.next_element()?.ok_or_else(|| missing("line"))?;
        let entries = self.0;
        entries.begin();
        let line = entries.copied(&line.0);
        if let Some(pairs) = parts.next_element::<Option<Pairs<'d>>>()? {
            for (name, value) in pairs.map(|pairs| pairs.0).unwrap_or_default() {
                let value = entries.copied(&value.0);
                entries.pair(&name.0, value);
            }
        }
        while parts.next_element::<IgnoredAny>()?.is_some() {}
        entries.end(time(0, ns), line);
        Ok(())
    }
}
