//! Where the fields of the language are in messages, and in which form.

use std::borrow::Cow;

use tailwater_pdata::Signal;
use tailwater_pdata::Value;
use tailwater_pdata::otlp::edit::View;
use tailwater_pdata::otlp::revise::{Draft, FieldValue, Level};

use crate::error::Fault;
use crate::field::Field;
use crate::value::{Stored, Val};

/// Where a field is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// The field of a message in which it is.
    pub within: Option<&'static str>,
    /// The field it is.
    pub name: &'static str,
    pub form: Form,
}

/// What a field is to the language.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Text,
    /// So many bytes.
    Id(usize),
    /// The same in hexadecimal digits.
    IdText(usize),
    Time,
    /// A time as a number.
    Nanos,
    Int,
    /// Of 32 bits, without a sign.
    Small,
    /// An integer with a sign of its own kind.
    Zigzag,
    Bool,
    Double,
    /// An integer that may not be there.
    SomeInt,
    /// A double that may not be there.
    SomeDouble,
    /// The name of a kind of span.
    Kind,
    /// The same as an enum is written.
    KindEnum,
    Attributes,
    Ints,
    Doubles,
}

const fn at(name: &'static str, form: Form) -> Spot {
    Spot {
        within: None,
        name,
        form,
    }
}

const fn within(within: &'static str, name: &'static str, form: Form) -> Spot {
    Spot {
        within: Some(within),
        name,
        form,
    }
}

/// Where a field is in its message. Those of metrics that stand in their data are not here.
pub(crate) fn spot(field: Field) -> Option<Spot> {
    use Form::*;
    Some(match field {
        Field::ResourceAttributes => within("resource", "attributes", Attributes),
        Field::ResourceDropped => within("resource", "dropped_attributes_count", Small),
        Field::ResourceSchemaUrl | Field::ScopeSchemaUrl => at("schema_url", Text),
        Field::ScopeName => within("scope", "name", Text),
        Field::ScopeVersion => within("scope", "version", Text),
        Field::ScopeAttributes => within("scope", "attributes", Attributes),
        Field::ScopeDropped => within("scope", "dropped_attributes_count", Small),
        Field::SpanName | Field::Name | Field::MetricName => at("name", Text),
        Field::Kind => at("kind", Int),
        Field::KindString => at("kind", Kind),
        Field::KindDeprecatedString => at("kind", KindEnum),
        Field::TraceId => at("trace_id", Id(16)),
        Field::TraceIdString => at("trace_id", IdText(16)),
        Field::SpanId => at("span_id", Id(8)),
        Field::SpanIdString => at("span_id", IdText(8)),
        Field::ParentSpanId => at("parent_span_id", Id(8)),
        Field::ParentSpanIdString => at("parent_span_id", IdText(8)),
        Field::TraceState => at("trace_state", Text),
        Field::StartTime => at("start_time_unix_nano", Time),
        Field::StartTimeUnixNano => at("start_time_unix_nano", Nanos),
        Field::EndTime => at("end_time_unix_nano", Time),
        Field::EndTimeUnixNano => at("end_time_unix_nano", Nanos),
        Field::Time => at("time_unix_nano", Time),
        Field::TimeUnixNano => at("time_unix_nano", Nanos),
        Field::Attributes | Field::SpanAttributes => at("attributes", Attributes),
        Field::DroppedAttributes | Field::EventDroppedAttributes => {
            at("dropped_attributes_count", Small)
        }
        Field::DroppedEvents => at("dropped_events_count", Small),
        Field::DroppedLinks => at("dropped_links_count", Small),
        Field::Flags => at("flags", Small),
        Field::StatusCode => within("status", "code", Int),
        Field::StatusMessage => within("status", "message", Text),
        Field::MetricDescription => at("description", Text),
        Field::MetricUnit => at("unit", Text),
        Field::MetricMetadata => at("metadata", Attributes),
        Field::ValueInt => at("as_int", SomeInt),
        Field::ValueDouble => at("as_double", SomeDouble),
        Field::Count => at("count", Int),
        Field::Sum => at("sum", Double),
        Field::BucketCounts => at("bucket_counts", Ints),
        Field::ExplicitBounds => at("explicit_bounds", Doubles),
        Field::Scale => at("scale", Zigzag),
        Field::ZeroCount => at("zero_count", Int),
        Field::PositiveOffset => within("positive", "offset", Zigzag),
        Field::PositiveCounts => within("positive", "bucket_counts", Ints),
        Field::NegativeOffset => within("negative", "offset", Zigzag),
        Field::NegativeCounts => within("negative", "bucket_counts", Ints),
        _ => return None,
    })
}

/// How deep a field is in a request of `signal`.
pub(crate) fn level(field: Field, signal: Signal) -> Level {
    match field {
        Field::ResourceAttributes | Field::ResourceDropped | Field::ResourceSchemaUrl => {
            Level::Resource
        }
        Field::ScopeName
        | Field::ScopeVersion
        | Field::ScopeAttributes
        | Field::ScopeDropped
        | Field::ScopeSchemaUrl => Level::Scope,
        Field::MetricName
        | Field::MetricDescription
        | Field::MetricUnit
        | Field::MetricType
        | Field::MetricTemporality
        | Field::MetricMonotonic
        | Field::MetricMetadata => Level::Item,
        Field::Name
        | Field::Time
        | Field::TimeUnixNano
        | Field::Attributes
        | Field::EventDroppedAttributes => Level::Part,
        // The others are of a span, or of a point.
        _ => match signal {
            Signal::Metrics => Level::Part,
            Signal::Logs | Signal::Traces => Level::Item,
        },
    }
}

const KINDS: [&str; 6] = [
    "Unspecified",
    "Internal",
    "Server",
    "Client",
    "Producer",
    "Consumer",
];

fn text(bytes: &[u8]) -> Val<'_> {
    Val::Str(Cow::Borrowed(bytes))
}

fn nanos(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

fn id<'v>(view: &View<'v>, name: &str, length: usize) -> &'v [u8] {
    match view.bytes(name) {
        [] => &[0; 16][..length],
        id => id,
    }
}

fn list<T: Into<Value>>(items: impl Iterator<Item = T>) -> Val<'static> {
    Val::List(Cow::Owned(items.map(Into::into).collect()))
}

/// The value of a field. A message that knows no such field has none.
pub(crate) fn read<'v>(view: &View<'v>, spot: Spot) -> Val<'v> {
    let name = spot.name;
    let empty;
    let view = match spot.within {
        None => view,
        // One that was not sent has what an empty one has.
        Some(within) => match view.inner(within) {
            Some(inner) => {
                empty = inner;
                &empty
            }
            None if !view.knows(within) => return Val::Nil,
            None => return absent(spot.form),
        },
    };
    if !view.knows(name) {
        return Val::Nil;
    }
    let number = || view.number(name);
    let double = || Val::Double(f64::from_bits(number()));
    match spot.form {
        Form::Text => text(view.bytes(name)),
        Form::Id(length) => Val::Bytes(Cow::Borrowed(id(view, name, length))),
        Form::IdText(length) => {
            let hex = id(view, name, length).iter().map(|b| format!("{b:02x}"));
            Val::text(hex.collect::<String>())
        }
        Form::Time => Val::Time(nanos(number())),
        Form::Nanos => Val::Int(nanos(number())),
        Form::Int | Form::Small => Val::Int(number().cast_signed()),
        Form::Zigzag => Val::Int(view.zigzag(name).into()),
        Form::Bool => Val::Bool(number() != 0),
        Form::Double => double(),
        Form::SomeInt if view.has(name) => Val::Int(number().cast_signed()),
        Form::SomeDouble if view.has(name) => double(),
        // A point with a number of the other kind: the collector gives 0, not nil.
        Form::SomeInt if view.has("as_double") => Val::Int(0),
        Form::SomeDouble if view.has("as_int") => Val::Double(0.0),
        Form::SomeInt | Form::SomeDouble => Val::Nil,
        Form::Kind => text(kind_name(number()).as_bytes()),
        Form::KindEnum => Val::text(format!("SPAN_KIND_{}", kind_name(number()).to_uppercase())),
        Form::Attributes => {
            let pair = |(key, value): (Cow<'_, str>, tailwater_pdata::otlp::edit::Found<'_>)| {
                (tailwater_pdata::Key::from(&*key), value.as_ref().to_value())
            };
            let pairs = view.pairs(name).map(pair).collect();
            Val::Map(Cow::Owned(tailwater_pdata::Map::from_entries(pairs)))
        }
        Form::Ints => list(view.numbers(name).into_iter().map(u64::cast_signed)),
        Form::Doubles => list(view.doubles(name).into_iter()),
    }
}

/// What a field of a message is that was not sent.
fn absent(form: Form) -> Val<'static> {
    match form {
        Form::Text => text(b""),
        Form::Int | Form::Small | Form::Zigzag => Val::Int(0),
        Form::Attributes => Val::Map(Cow::Owned(tailwater_pdata::Map::new())),
        Form::Ints | Form::Doubles => Val::List(Cow::Owned(Vec::new())),
        _ => Val::Nil,
    }
}

fn kind_name(kind: u64) -> &'static str {
    let kind = usize::try_from(kind).unwrap_or(usize::MAX);
    KINDS.get(kind).copied().unwrap_or_default()
}

fn refused(field: &'static str, found: &'static str) -> Fault {
    Fault::Store { field, found }
}

/// Sets a field but lists of attributes. A message that knows no such field stays as it is, as a point of
/// another kind does in the collector.
pub(crate) fn write(draft: &mut Draft, spot: Spot, value: Stored) -> Result<(), Fault> {
    let name = spot.name;
    let wrong = |value: &Stored| refused(name, value.kind());
    let whole = |value: &Stored| match value {
        Stored::Value(Value::Int(i)) => Ok(*i),
        other => Err(wrong(other)),
    };
    let number = match spot.form {
        Form::Text => {
            let text = bytes_of(name, value)?;
            draft.set(spot.within, name, FieldValue::Bytes(&text));
            return Ok(());
        }
        Form::Id(length) | Form::IdText(length) => {
            let id = id_of(name, length, value)?;
            draft.set(spot.within, name, FieldValue::Bytes(&id));
            return Ok(());
        }
        Form::Ints | Form::Doubles => {
            let numbers = numbers_of(name, spot.form, value)?;
            draft.set(spot.within, name, FieldValue::Numbers(&numbers));
            return Ok(());
        }
        Form::Attributes => return Err(wrong(&value)),
        Form::Time => match value {
            Stored::Time(ns) => ns.max(0).cast_unsigned(),
            other => return Err(wrong(&other)),
        },
        Form::Nanos => whole(&value)?.max(0).cast_unsigned(),
        Form::Int | Form::SomeInt => whole(&value)?.cast_unsigned(),
        Form::Small => {
            let small = u32::try_from(whole(&value)?);
            small
                .map_err(|_| refused(name, "a number that is out of range"))?
                .into()
        }
        Form::Zigzag => {
            let small = i32::try_from(whole(&value)?);
            let small = small.map_err(|_| refused(name, "a number that is out of range"))?;
            i64::from(small).cast_unsigned()
        }
        Form::Bool => match value {
            Stored::Value(Value::Bool(b)) => b.into(),
            other => return Err(wrong(&other)),
        },
        Form::Double | Form::SomeDouble => match value {
            Stored::Value(Value::Double(d)) => d.to_bits(),
            other => return Err(wrong(&other)),
        },
        Form::Kind | Form::KindEnum => kind_of(name, value)?,
    };
    draft.set(spot.within, name, FieldValue::Number(number));
    Ok(())
}

fn bytes_of(field: &'static str, value: Stored) -> Result<Vec<u8>, Fault> {
    match value {
        Stored::Text(text) => Ok(String::from_utf8_lossy(&text).into_owned().into_bytes()),
        Stored::Value(Value::Str(text)) => Ok(text.as_bytes().to_vec()),
        other => Err(refused(field, other.kind())),
    }
}

/// An id as bytes, or as text of hexadecimal digits. One of zeros is none.
fn id_of(field: &'static str, length: usize, value: Stored) -> Result<Vec<u8>, Fault> {
    let id = match value {
        Stored::Value(Value::Bytes(bytes)) => bytes.to_vec(),
        other => {
            let text = bytes_of(field, other)?;
            let digit = |b: &u8| {
                char::from(*b)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            let digits: Option<Vec<u8>> = text.iter().map(digit).collect();
            let digits = digits.filter(|d| d.len() == 2 * length).unwrap_or_default();
            let (pairs, _) = digits.as_chunks::<2>();
            pairs.iter().map(|[high, low]| high << 4 | low).collect()
        }
    };
    if id.len() != length {
        return Err(refused(field, "what is no id of this length"));
    }
    Ok(match id.iter().all(|b| *b == 0) {
        true => Vec::new(),
        false => id,
    })
}

fn numbers_of(field: &'static str, form: Form, value: Stored) -> Result<Vec<u64>, Fault> {
    let Stored::Value(Value::List(items)) = value else {
        return Err(refused(field, value.kind()));
    };
    let number = |item: &Value| match (form, item) {
        (Form::Ints, Value::Int(i)) => Ok(i.cast_unsigned()),
        (Form::Doubles, Value::Double(d)) => Ok(d.to_bits()),
        (_, other) => Err(refused(field, other.as_ref().kind_name())),
    };
    items.iter().map(number).collect()
}

/// A kind of span by its name, in either form.
fn kind_of(field: &'static str, value: Stored) -> Result<u64, Fault> {
    let text = bytes_of(field, value)?;
    let text = String::from_utf8_lossy(&text);
    let name = text.strip_prefix("SPAN_KIND_").unwrap_or(&text);
    let kind = KINDS.iter().position(|k| k.eq_ignore_ascii_case(name));
    let kind = kind.ok_or_else(|| refused(field, "what is no kind of span"))?;
    Ok(kind as u64)
}
