//! Smaller requests out of one request.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;

use bytes::Bytes;
use foldhash::fast::FixedState;

use crate::delivery::{Duty, OutgoingRequest};

use super::body::BodyWriter;
use super::compress::CompressionEncoder;
use super::decode::RequestView;
use super::wire;

/// The lane of a stream: what two requests must not both hold at the same time.
pub(super) fn lane(tenant: Option<&str>, labels: &str) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    tenant.hash(&mut hasher);
    labels.hash(&mut hasher);
    hasher.finish()
}

/// Some entries of one stream of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Selected {
    /// Index of the stream.
    pub stream: usize,
    /// Indexes of its entries.
    pub entries: Range<usize>,
}

/// All of stream `stream`.
pub(super) fn whole(view: &RequestView, stream: usize) -> Selected {
    let entries = 0..view.streams[stream].entries.len();
    Selected { stream, entries }
}

/// Two halves of about the same number of entries: of the streams if there are several, else of
/// the entries. `None` if there is at most one entry.
pub(super) fn halves(view: &RequestView) -> Option<[Vec<Selected>; 2]> {
    let streams = view.streams.len();
    if streams == 1 {
        let all = whole(view, 0);
        let n = all.entries.len();
        let half = |entries| vec![Selected { stream: 0, entries }];
        return (n > 1).then(|| [half(0..n / 2), half(n / 2..n)]);
    }
    if streams == 0 {
        return None;
    }
    let (mut cut, mut sum) = (0, 0);
    while cut < streams - 1 && (cut == 0 || sum * 2 < view.entries()) {
        sum += view.streams[cut].entries.len();
        cut += 1;
    }
    let all = |range: Range<usize>| range.map(|i| whole(view, i)).collect();
    Some([all(0..cut), all(cut..streams)])
}

/// What a request counts against a rate, see [`RequestView::weight`].
pub(super) fn weight(view: &RequestView) -> u64 {
    let entries = view.streams.iter().flat_map(|s| &s.entries);
    entries.map(RequestView::weight).sum()
}

/// Pieces of at most `bytes` by [`weight`], or of one entry, in order.
pub(super) fn cut(view: &RequestView, bytes: u64) -> Vec<Vec<Selected>> {
    let mut pieces = Vec::new();
    let (mut piece, mut size): (Vec<Selected>, u64) = (Vec::new(), 0);
    for (stream, s) in view.streams.iter().enumerate() {
        for (e, entry) in s.entries.iter().enumerate() {
            let weight = RequestView::weight(entry);
            if size > 0 && size + weight > bytes {
                pieces.push(std::mem::take(&mut piece));
                size = 0;
            }
            size += weight;
            match piece.last_mut() {
                Some(last) if last.stream == stream => last.entries.end = e + 1,
                _ => piece.push(Selected {
                    stream,
                    entries: e..e + 1,
                }),
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// A part of a request, encoded.
pub(super) struct EncodedPart {
    /// The body.
    pub body: Vec<Bytes>,
    /// The lanes of its streams.
    pub lanes: Vec<u64>,
    /// Its entries.
    pub items: u64,
}

/// Encodes some streams and entries of a request again; the entries keep their bytes.
pub(super) fn encode(
    view: &RequestView,
    tenant: Option<&str>,
    selected: &[Selected],
    encoder: CompressionEncoder,
) -> EncodedPart {
    let fields = |s: &Selected| {
        let entries = &view.streams[s.stream].entries[s.entries.clone()];
        match (entries.first(), entries.last()) {
            (Some(first), Some(last)) => first.field.start..last.field.end,
            _ => 0..0,
        }
    };
    let labels = |s: &Selected| view.labels(&view.streams[s.stream]);
    let size = |s: &Selected| wire::stream_len(labels(s).len(), fields(s).len());
    let mut writer = BodyWriter::new(encoder, i64::MAX);
    writer.begin(selected.iter().map(size).sum());
    let mut header = Vec::new();
    for s in selected {
        header.clear();
        wire::put_stream_header(&mut header, &labels(s), fields(s).len());
        writer.bytes(&header);
        writer.bytes(&view.raw[fields(s)]);
    }
    EncodedPart {
        body: writer.end(),
        lanes: selected.iter().map(|s| lane(tenant, &labels(s))).collect(),
        items: selected.iter().map(|s| s.entries.len() as u64).sum(),
    }
}

/// The requests for some selections of `view`, which is what `request` holds.
pub(super) fn requests<D: Duty>(
    request: &mut OutgoingRequest<D>,
    view: &RequestView,
    selections: &[Vec<Selected>],
    encoder: CompressionEncoder,
) -> Vec<OutgoingRequest<D>> {
    let tenant = request.tenant.clone();
    let encoded = selections
        .iter()
        .map(|s| encode(view, tenant.as_deref(), s, encoder));
    encoded
        .map(|part| request.part(part.body, part.lanes, part.items))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::body::StreamBuffer;
    use super::super::wire::oracle;
    use super::*;

    /// A request with streams of the given numbers of entries.
    pub(crate) fn view(sizes: &[usize]) -> RequestView {
        let mut writer = BodyWriter::new(CompressionEncoder::Tailwater, i64::MAX);
        let mut buffers: Vec<_> = sizes.iter().map(|_| StreamBuffer::default()).collect();
        for (s, (buffer, n)) in buffers.iter_mut().zip(sizes).enumerate() {
            for i in 0..*n {
                let line = format!("line {i} of {s} {}", "-".repeat(i * 37 % 400));
                writer.push(buffer, (s * 1_000 + i) as i64, &[line.as_bytes()], &[]);
            }
        }
        let labels = |s: usize| format!("{{s=\"{s}\"}}");
        let len =
            |(s, b): (usize, &StreamBuffer)| wire::stream_len(labels(s).len(), b.entries_bytes());
        writer.begin(buffers.iter().enumerate().map(len).sum());
        for (s, buffer) in buffers.iter_mut().enumerate() {
            writer.stream(&labels(s), buffer);
        }
        RequestView::decode(&writer.end()).unwrap()
    }

    #[test]
    fn halving_until_single_entries_keeps_every_entry_once_and_unchanged() {
        for sizes in [
            &[1][..],
            &[7],
            &[1_000],
            &[1, 1],
            &[1, 500, 1],
            &[300, 1, 1, 200],
        ] {
            let whole = view(sizes);
            let mut want = oracle::decode(&encode_all(&whole)).streams;
            let (mut queue, mut got) = (vec![encode_all(&whole)], Vec::new());
            while let Some(body) = queue.pop() {
                let view = RequestView::decode(&[body.clone().into()]).unwrap();
                match halves(&view) {
                    None => got.extend(oracle::decode(&body).streams),
                    Some(parts) => {
                        let encode = |p: &Vec<_>| encode(&view, None, p, Default::default());
                        let parts: Vec<_> = parts.iter().map(encode).collect();
                        assert_eq!(parts[0].items + parts[1].items, view.entries() as u64);
                        assert!(parts.iter().all(|p| p.items > 0));
                        queue.extend(parts.into_iter().map(|p| p.body.concat()).rev());
                    }
                }
            }
            // One stream message per entry now; put them together again.
            got.dedup_by(|b, a| {
                let same = a.labels == b.labels;
                if same {
                    a.entries.append(&mut b.entries);
                }
                same
            });
            want.sort_by(|a, b| a.labels.cmp(&b.labels));
            assert_eq!(got, want, "{sizes:?}");
        }
    }

    fn encode_all(view: &RequestView) -> Vec<u8> {
        let all: Vec<_> = (0..view.streams.len()).map(|i| whole(view, i)).collect();
        encode(view, None, &all, CompressionEncoder::Snap)
            .body
            .concat()
    }

    #[test]
    fn lanes_are_stable_and_depend_on_the_tenant() {
        let labels = "{a=\"b\"}";
        assert_eq!(lane(Some("t"), labels), lane(Some("t"), labels));
        assert_ne!(lane(Some("t"), labels), lane(None, labels));
        assert_ne!(lane(None, "{a=\"c\"}"), lane(None, labels));
    }
}
