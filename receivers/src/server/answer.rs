//! The body of an answer: at most one piece of data, and trailers behind it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Answer {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    /// A body of data; without any, the head of the answer is all there is.
    pub fn data(data: impl Into<Bytes>) -> Answer {
        let data = data.into();
        Answer {
            data: (!data.is_empty()).then_some(data),
            trailers: None,
        }
    }

    /// Data with trailers.
    pub fn with_trailers(data: impl Into<Bytes>, trailers: HeaderMap) -> Answer {
        Answer {
            trailers: Some(trailers),
            ..Answer::data(data)
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64)
    }
}
