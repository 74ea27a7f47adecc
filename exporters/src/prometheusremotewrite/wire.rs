//! `prometheus.WriteRequest` and `io.prometheus.write.v2.Request` in protobuf, written directly.
//!
//! The messages are those of `prompb/{remote,types}.proto` and of
//! `prompb/io/prometheus/write/v2/types.proto` of Prometheus, as the specifications 1.0 and 2.0 of
//! remote write have them:
//!
//! ```text
//! WriteRequest   { repeated TimeSeries timeseries = 1; repeated MetricMetadata metadata = 3 }
//! TimeSeries     { repeated Label labels = 1; repeated Sample samples = 2;
//!                  repeated Exemplar exemplars = 3; repeated Histogram histograms = 4 }
//! Label          { string name = 1; string value = 2 }
//! Sample         { double value = 1; int64 timestamp = 2 }
//! Exemplar       { repeated Label labels = 1; double value = 2; int64 timestamp = 3 }
//! MetricMetadata { MetricType type = 1; string metric_family_name = 2; string help = 4; string unit = 5 }
//! Histogram      { ...; int64 timestamp = 15 }
//!
//! Request        { repeated string symbols = 4; repeated TimeSeries timeseries = 5 }
//! TimeSeries     { repeated uint32 labels_refs = 1; repeated Sample samples = 2;
//!                  repeated Histogram histograms = 3; repeated Exemplar exemplars = 4; Metadata metadata = 5 }
//! Sample         { double value = 1; int64 timestamp = 2; int64 start_timestamp = 3 }
//! Exemplar       { repeated uint32 labels_refs = 1; double value = 2; int64 timestamp = 3 }
//! Metadata       { MetricType type = 1; uint32 help_ref = 3; uint32 unit_ref = 4 }
//! Histogram      { ...; int64 timestamp = 15; int64 start_timestamp = 17 }
//! ```

use super::series::{Collected, Family, Label, Sample, Series, Value};
use super::symbols::{Symbol, Symbols};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LEN: u32 = 2;

/// Bytes of `v` as a varint, 1 to 10.
#[inline]
pub(super) fn varint_len(v: u64) -> usize {
    (63 - (v | 1).leading_zeros() as usize) / 7 + 1
}

/// Appends a varint.
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// A signed number so that small ones take few bytes.
#[inline]
pub(super) fn zigzag(v: i64) -> u64 {
    (v << 1 ^ v >> 63) as u64
}

/// Appends tag and length of a field of `len` bytes.
#[inline]
pub(super) fn put_head(out: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(out, u64::from(number << 3 | LEN));
    put_varint(out, len as u64);
}

/// Appends a field of bytes.
#[inline]
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a field of varint type.
#[inline]
pub(super) fn put_varint_field(out: &mut Vec<u8>, number: u32, v: u64) {
    put_varint(out, u64::from(number << 3 | VARINT));
    put_varint(out, v);
}

/// Appends a field of type `sint32` or `sint64`.
pub(super) fn put_zigzag(out: &mut Vec<u8>, number: u32, v: i64) {
    put_varint_field(out, number, zigzag(v));
}

/// Appends a field of type `double`.
#[inline]
pub(super) fn put_double(out: &mut Vec<u8>, number: u32, v: f64) {
    put_varint(out, u64::from(number << 3 | FIXED64));
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

/// Which message a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// `prometheus.WriteRequest`.
    #[default]
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

impl Protocol {
    /// The `Content-Type` of its requests.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Protocol::V1 => "application/x-protobuf",
            Protocol::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }
}

/// A request that is being put together. Used again for the next one.
#[derive(Default)]
pub(super) struct RequestWriter {
    protocol: Protocol,
    /// The symbols of version 2, as fields of the request.
    symbols: Vec<u8>,
    /// Number of symbols.
    count: u32,
    /// Number in this request, plus one, of each symbol of the batch.
    local: Vec<u32>,
    /// Symbols of the batch that this request has.
    used: Vec<Symbol>,
    /// The rest of the request.
    body: Vec<u8>,
    /// One series.
    scratch: Vec<u8>,
    refs: Vec<u8>,
}

impl RequestWriter {
    /// A writer of requests of `protocol`.
    pub fn new(protocol: Protocol) -> RequestWriter {
        let mut writer = RequestWriter {
            protocol,
            ..RequestWriter::default()
        };
        writer.clear();
        writer
    }

    /// Begins another request.
    pub fn clear(&mut self) {
        for symbol in self.used.drain(..) {
            self.local[symbol as usize] = 0;
        }
        self.symbols.clear();
        self.body.clear();
        self.count = 0;
        if self.protocol == Protocol::V2 {
            // The first one is empty, so that a reference to nothing is 0.
            put_bytes(&mut self.symbols, 4, b"");
            self.count = 1;
        }
    }

    /// Bytes of the request.
    pub fn len(&self) -> usize {
        self.symbols.len() + self.body.len()
    }

    /// The request, in two pieces.
    pub fn pieces(&self) -> [&[u8]; 2] {
        [&self.symbols, &self.body]
    }

    /// Bytes that a series adds at most.
    pub fn bound(&self, symbols: &Symbols, data: &Collected, series: &Series) -> usize {
        let text = |symbol: Symbol| symbols.get(symbol).len() + 12;
        let texts = |labels: &[Label]| -> usize {
            let both = labels
                .iter()
                .map(|(name, value)| text(*name) + text(*value));
            both.sum::<usize>() + 12
        };
        let family = &data.families[series.family as usize];
        // Metadata may be apart from the series, with the name again.
        let about = [family.name, family.help, family.unit].map(text);
        let mut bytes = texts(data.labels(series)) + about.iter().sum::<usize>() + 48;
        data.each_sample(series, |sample| {
            bytes += match sample.value {
                Value::Number(_) => 34,
                Value::Native { len, .. } => len as usize + 48,
            };
        });
        let exemplars = data.exemplars(series);
        bytes
            + exemplars
                .map(|(_, labels)| texts(labels) + 34)
                .sum::<usize>()
    }

    /// Appends a series.
    pub fn series(&mut self, symbols: &Symbols, data: &Collected, series: &Series) {
        self.scratch.clear();
        let number = match self.protocol {
            Protocol::V1 => {
                v1_series(&mut self.scratch, symbols, data, series);
                1
            }
            Protocol::V2 => {
                self.v2_series(symbols, data, series);
                5
            }
        };
        put_bytes(&mut self.body, number, &self.scratch);
    }

    /// Appends what a metric is about; only for version 1, where it stands apart from series.
    pub fn metadata(&mut self, symbols: &Symbols, family: &Family) {
        let out = &mut self.scratch;
        out.clear();
        put_varint_field(out, 1, family.kind as u64);
        for (number, symbol) in [(2, family.name), (4, family.help), (5, family.unit)] {
            if !symbols.get(symbol).is_empty() {
                put_bytes(out, number, symbols.get(symbol));
            }
        }
        put_bytes(&mut self.body, 3, &self.scratch);
    }

    /// The number of a symbol in this request.
    fn reference(&mut self, symbols: &Symbols, symbol: Symbol) -> u32 {
        let at = symbol as usize;
        if self.local.len() <= at {
            self.local.resize(symbols.len(), 0);
        }
        if let Some(known) = self.local[at].checked_sub(1) {
            return known;
        }
        let text = symbols.get(symbol);
        let number = match text.is_empty() {
            true => 0,
            false => {
                put_bytes(&mut self.symbols, 4, text);
                self.count += 1;
                self.count - 1
            }
        };
        self.local[at] = number + 1;
        self.used.push(symbol);
        number
    }

    /// Packs the references of labels.
    fn references(&mut self, symbols: &Symbols, labels: &[Label]) {
        let mut refs = std::mem::take(&mut self.refs);
        refs.clear();
        for (name, value) in labels {
            put_varint(&mut refs, self.reference(symbols, *name).into());
            put_varint(&mut refs, self.reference(symbols, *value).into());
        }
        self.refs = refs;
    }

    fn v2_series(&mut self, symbols: &Symbols, data: &Collected, series: &Series) {
        self.references(symbols, data.labels(series));
        put_bytes(&mut self.scratch, 1, &self.refs);
        let out = &mut self.scratch;
        data.each_sample(series, |sample| match sample.value {
            Value::Number(value) => {
                let start = field_len(sample.start);
                put_head(out, 2, 9 + field_len(sample.time) + start);
                put_double(out, 1, value);
                put_time(out, 2, sample.time);
                put_time(out, 3, sample.start);
            }
            Value::Native { .. } => put_native(out, 3, data, sample, true),
        });
        for (exemplar, labels) in data.exemplars(series) {
            self.references(symbols, labels);
            let refs = match self.refs.len() {
                0 => 0,
                len => 1 + varint_len(len as u64) + len,
            };
            let out = &mut self.scratch;
            put_head(out, 4, refs + 9 + field_len(exemplar.time));
            if refs > 0 {
                put_bytes(out, 1, &self.refs);
            }
            put_double(out, 2, exemplar.value);
            put_time(out, 3, exemplar.time);
        }
        let family = data.families[series.family as usize];
        let help = u64::from(self.reference(symbols, family.help));
        let unit = u64::from(self.reference(symbols, family.unit));
        let out = &mut self.scratch;
        put_head(out, 5, 4 + varint_len(help) + varint_len(unit));
        put_varint_field(out, 1, family.kind as u64);
        put_varint_field(out, 3, help);
        put_varint_field(out, 4, unit);
    }
}

fn v1_labels(out: &mut Vec<u8>, symbols: &Symbols, labels: &[Label]) {
    for (name, value) in labels {
        let (name, value) = (symbols.get(*name), symbols.get(*value));
        put_head(out, 1, string_len(name) + string_len(value));
        put_bytes(out, 1, name);
        put_bytes(out, 2, value);
    }
}

fn v1_series(out: &mut Vec<u8>, symbols: &Symbols, data: &Collected, series: &Series) {
    v1_labels(out, symbols, data.labels(series));
    data.each_sample(series, |sample| {
        if let Value::Number(value) = sample.value {
            put_head(out, 2, 9 + field_len(sample.time));
            put_double(out, 1, value);
            put_time(out, 2, sample.time);
        }
    });
    for (exemplar, labels) in data.exemplars(series) {
        let both = |(name, value): &Label| {
            let len = string_len(symbols.get(*name)) + string_len(symbols.get(*value));
            1 + varint_len(len as u64) + len
        };
        let len: usize = labels.iter().map(both).sum();
        put_head(out, 3, len + 9 + field_len(exemplar.time));
        v1_labels(out, symbols, labels);
        put_double(out, 2, exemplar.value);
        put_time(out, 3, exemplar.time);
    }
    data.each_sample(series, |sample| put_native(out, 4, data, sample, false));
}

/// Appends a native histogram, if the sample is one.
fn put_native(out: &mut Vec<u8>, number: u32, data: &Collected, sample: &Sample, start: bool) {
    let Value::Native { from, len } = sample.value else {
        return;
    };
    let fields = &data.native[from as usize..][..len as usize];
    let start = if start { sample.start } else { 0 };
    // The number of the last field takes two bytes of tag.
    let start_len = match field_len(start) {
        0 => 0,
        len => len + 1,
    };
    put_head(
        out,
        number,
        fields.len() + field_len(sample.time) + start_len,
    );
    out.extend_from_slice(fields);
    put_time(out, 15, sample.time);
    put_time(out, 17, start);
}

/// Bytes of a field of text with a number below 16.
#[inline]
fn string_len(text: &[u8]) -> usize {
    1 + varint_len(text.len() as u64) + text.len()
}

/// Bytes of a field of type `int64` with a number below 16; nothing for 0.
#[inline]
fn field_len(v: i64) -> usize {
    match v {
        0 => 0,
        v => 1 + varint_len(v as u64),
    }
}

#[inline]
fn put_time(out: &mut Vec<u8>, number: u32, v: i64) {
    if v != 0 {
        put_varint_field(out, number, v as u64);
    }
}

/// Samples, histograms included, and exemplars of a request of version 2; `None` if it is none.
pub(super) fn v2_counts(request: &[u8]) -> Option<(u64, u64)> {
    let mut counts = (0, 0);
    each_field(request, &mut |number, bytes| {
        if number != 5 {
            return Some(());
        }
        each_field(bytes?, &mut |number, _| {
            match number {
                2 | 3 => counts.0 += 1,
                4 => counts.1 += 1,
                _ => {}
            }
            Some(())
        })
    })?;
    Some(counts)
}

/// Gives each field of a message, with its bytes if it has a length.
fn each_field<'a>(
    mut message: &'a [u8],
    each: &mut dyn FnMut(u64, Option<&'a [u8]>) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        let mut bytes = None;
        match tag & 7 {
            0 => {
                take_varint(&mut message)?;
            }
            1 => message = message.get(8..)?,
            2 => {
                let len = usize::try_from(take_varint(&mut message)?).ok()?;
                bytes = Some(message.get(..len)?);
                message = &message[len..];
            }
            _ => message = message.get(4..)?,
        }
        each(tag >> 3, bytes)?;
    }
    Some(())
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut v = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        v |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(v);
        }
    }
    None
}
