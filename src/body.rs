//! Request bodies on their way to an upstream, and why one may break off. A leaf: proxy, server and upstream share it.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// What is sent to an upstream.
pub enum RequestBody {
    /// All of it; `None` once it was sent, or where there is none.
    Full(Option<Bytes>),
    /// As it comes.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>),
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Full(None)
    }

    /// A body that is here whole.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// A body that is still to come; without an allocation where there is none.
    #[must_use]
    pub fn stream(body: impl Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        if body.is_end_stream() { Self::empty() } else { Self::Stream(Box::pin(body)) }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => f.debug_tuple("Full").field(&bytes.as_ref().map_or(0, Bytes::len)).finish(),
            Self::Stream(body) => f.debug_tuple("Stream").field(&body.size_hint()).finish(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client fell silent for `body_timeout`.
    #[error("the request body stopped arriving")]
    Silent,
    /// The client sent so little, for so long, that nobody waits for the rest.
    #[error("the request body arrived too slowly")]
    Slow,
    /// The client went, or broke its framing.
    #[error("the request body did not arrive whole")]
    Incomplete(#[source] Option<Box<dyn Error + Send + Sync>>),
    /// The client sent what a body must not have.
    #[error("the request body is malformed")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
    /// The upstream's answer broke off.
    #[error("the upstream's answer broke off")]
    Upstream(#[source] Box<dyn Error + Send + Sync>),
}

impl BodyError {
    /// An answer that broke off.
    #[must_use]
    pub fn upstream(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Upstream(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_body_has_ended_from_the_start() {
        assert!(RequestBody::full(Bytes::new()).is_end_stream());
        assert!(RequestBody::stream(RequestBody::empty()).is_end_stream());
        assert_eq!(RequestBody::empty().size_hint().exact(), Some(0));
    }

    #[test]
    fn a_full_body_says_its_length_and_hides_its_bytes() {
        let body = RequestBody::full(Bytes::from_static(b"card=4242"));
        assert_eq!(body.size_hint().exact(), Some(9));
        assert!(!body.is_end_stream());
        assert!(!format!("{body:?}").contains("4242"));
    }
}
