//! What the receiver must do with any bytes that a client sends. The body of a fuzz target: it panics
//! where that does not hold.

use crate::input::frame::{Trim, Units};

use super::framing::{Framing, properties};

/// Bytes of a connection, which may be cut anywhere: the first bytes of `data` say how messages are marked
/// off, how long they may be, and where the buffers end.
pub fn framing(data: &[u8]) {
    let Some(([choice, max, stops @ ..], content)) = data.split_first_chunk::<6>() else {
        return;
    };
    let bytes_max = 1 + usize::from(*max);
    let framing = match choice % 2 {
        0 => Framing::Counted { bytes_max },
        _ => Framing::Trailer {
            byte: 0,
            units: Units::Utf8,
            trim: Trim::default(),
            bytes_max,
        },
    };
    let stops = stops.map(|stop| content.len() * usize::from(stop) / 255);
    properties::any_split(&framing, content, &stops);
}
