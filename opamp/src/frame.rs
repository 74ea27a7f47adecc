//! How a message stands in a WebSocket message: a header that is 0, then the message.

use prost::Message;

/// Why a WebSocket message holds none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header is not that of this version.
    #[error("the header of the message is not 0")]
    Header,
    /// The rest is no such message.
    #[error("not the message that was expected: {0}")]
    Message(String),
}

/// Puts the header in front.
pub fn frame(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + message.encoded_len());
    out.push(0);
    // A vector has room for everything.
    let _ = message.encode(&mut out);
    out
}

/// Takes the header off.
///
/// # Errors
/// It is not 0, or what follows is not the message.
pub fn unframe<M: Message + Default>(bytes: &[u8]) -> Result<M, FrameError> {
    let mut rest = bytes;
    match prost::encoding::decode_varint(&mut rest) {
        Ok(0) => M::decode(rest).map_err(|e| FrameError::Message(e.to_string())),
        _ => Err(FrameError::Header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ServerToAgent;

    #[test]
    fn only_a_header_of_zero_is_taken() {
        let message = ServerToAgent {
            flags: 3,
            ..ServerToAgent::default()
        };
        let framed = frame(&message);
        assert_eq!(framed, [0, 6 << 3, 3]);
        assert_eq!(unframe(&framed), Ok(message));
        assert_eq!(unframe(&[0]), Ok(ServerToAgent::default()), "an empty one");
        // Zero may be written at any length.
        assert_eq!(unframe(&[0x80, 0x00]), Ok(ServerToAgent::default()));
        for wrong in [&[][..], &[1], &[0x80], &[0x80; 11]] {
            assert_eq!(unframe::<ServerToAgent>(wrong), Err(FrameError::Header));
        }
        let cut = unframe::<ServerToAgent>(&[0, 6 << 3]);
        assert!(matches!(cut, Err(FrameError::Message(_))), "{cut:?}");
    }
}
