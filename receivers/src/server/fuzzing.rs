//! What a receiver must do with any bytes that a client sends. The body of a fuzz target: it panics
//! where that does not hold.

use bytes::Bytes;

use super::grpc::unframe;
use super::inflate::{Encoding, STEP_BYTES};

/// What a body of the target may inflate to.
const MAX: usize = 1 << 20;

/// A body in the encoding that its first byte chooses: no more is inflated than allowed, and for no
/// more is room asked than for a step beyond it; what a frame of gRPC holds is a part of it.
pub fn bodies(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let encoding = Encoding::ALL[usize::from(*choice) % Encoding::ALL.len()];
    let body = Bytes::copy_from_slice(body);
    let mut asked = 0usize;
    let mut room = |bytes: usize| {
        asked += bytes;
        true
    };
    let inflated = encoding.inflate(body.clone(), MAX, &mut room);
    assert!(
        asked <= MAX + 2 * STEP_BYTES,
        "{encoding:?}: room for {asked}"
    );
    if let Ok(inflated) = &inflated {
        assert!(inflated.len() <= MAX, "{encoding:?}: {}", inflated.len());
        // With just as much allowed it is the same, with less it is refused.
        let again = encoding.inflate(body.clone(), inflated.len(), &mut |_| true);
        assert_eq!(again.ok().as_ref(), Some(inflated), "{encoding:?}");
        if let Some(less) = inflated.len().checked_sub(1) {
            let again = encoding.inflate(body.clone(), less, &mut |_| true);
            assert!(again.is_err(), "{encoding:?} beyond {less}");
        }
    }
    if let Ok((message, _)) = unframe(body.clone()) {
        assert_eq!(message, body.slice(body.len() - message.len()..));
    }
}
