//! Request bodies that are read back.

use bytes::Bytes;

use crate::loki::compress::CompressionEncoder;
use crate::loki::decode::RequestView;
use crate::loki::parts::{self, Selected};

/// Any bytes as a body, and as the message in one: what can be read can be divided, and each entry
/// is in exactly one piece then, with its bytes.
pub fn requests(data: &[u8]) {
    if let Ok(view) = RequestView::decode(&[Bytes::copy_from_slice(data)]) {
        divided(&view, 100);
    }
    let Some((first, message)) = data.split_first() else {
        return;
    };
    let block = snap::raw::Encoder::new().compress_vec(message);
    let block = block.expect("a short message");
    let (a, b) = block.split_at(block.len() / 2);
    let chunks = [a, b].map(Bytes::copy_from_slice);
    if let Ok(view) = RequestView::decode(&chunks) {
        assert_eq!(view.raw, message);
        divided(&view, u64::from(*first));
    }
}

/// Everything that is in a request: label string and bytes of each entry.
pub(super) fn entries(view: &RequestView) -> Vec<(String, Vec<u8>)> {
    let of_stream = |s| {
        let labels = view.labels(s).into_owned();
        let field = |e: &crate::loki::decode::EntryView| view.raw[e.field.clone()].to_vec();
        s.entries.iter().map(move |e| (labels.clone(), field(e)))
    };
    view.streams.iter().flat_map(of_stream).collect()
}

fn divided(view: &RequestView, piece_bytes: u64) {
    let all: Vec<Selected> = (0..view.streams.len())
        .map(|i| parts::whole(view, i))
        .collect();
    same(view, &[all]);
    for stream in &view.streams {
        for entry in &stream.entries {
            assert!(view.line(entry).len() <= entry.field.len());
            // What stands in it may be wrong, which is an error.
            let _ = view.metadata(entry);
        }
    }
    if let Some(halves) = parts::halves(view) {
        assert!(halves.iter().all(|h| !h.is_empty()));
        same(view, &halves);
    }
    let pieces = parts::cut(view, piece_bytes);
    same(view, &pieces);
    let weight: u64 = view
        .streams
        .iter()
        .flat_map(|s| &s.entries)
        .map(RequestView::weight)
        .sum();
    assert_eq!(parts::weight(view), weight);
}

/// The pieces have the entries of `view`, in order.
fn same(view: &RequestView, pieces: &[Vec<Selected>]) {
    let mut got = Vec::new();
    let mut items = 0;
    for piece in pieces {
        let part = parts::encode(view, Some("t"), piece, CompressionEncoder::Tailwater);
        assert_eq!(part.lanes.len(), piece.len());
        items += part.items;
        got.extend(entries(
            &RequestView::decode(&part.body).expect("our own encoding"),
        ));
    }
    assert_eq!(items, view.entries() as u64);
    assert_eq!(got, entries(view));
}
