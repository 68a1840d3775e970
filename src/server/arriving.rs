//! A request's body as it arrives, whose end is an end.
//!
//! hyper ends a body without an error where the client resets its HTTP/2 stream with NO_ERROR, too. Half a request taken
//! for a whole one is another request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A request's body. It ends where the client ended it, or with an error.
#[derive(Debug)]
pub struct Arriving {
    body: Incoming,
    on_stream: bool,
}

/// Why a body did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub enum ArrivingError {
    /// The client went, or broke its framing; [`Refusal::of`](super::Refusal::of) says which rule, where it was one.
    #[error("the body broke off")]
    Broken(#[from] hyper::Error),
    /// The client ended its HTTP/2 stream before its body, without an error.
    #[error("the body was cut off")]
    Cut,
}

impl Arriving {
    /// On an HTTP/1.1 connection.
    pub(super) const fn on_connection(body: Incoming) -> Self {
        Self { body, on_stream: false }
    }

    /// On an HTTP/2 stream.
    pub(super) const fn on_stream(body: Incoming) -> Self {
        Self { body, on_stream: true }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = ArrivingError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ArrivingError>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(frame) => Some(frame.map_err(ArrivingError::from)),
            // Whether END_STREAM came; what comes after it changes nothing.
            None if self.on_stream && !self.body.is_end_stream() => Some(Err(ArrivingError::Cut)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
