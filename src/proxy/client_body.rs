//! Bodies of requests: bounded in time, read whole where a rule needs them.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::{
    body::BodyError,
    desk::Held,
    server::{self, Arriving, Reason, TimedBody, TimedBodyError, guard::may_be_trailer},
};

/// A client's body, which may not stay silent for longer than `body_timeout`, nor drip for ever where it has an end.
#[derive(Debug)]
pub(crate) struct ClientBody(TimedBody<Arriving>);

impl ClientBody {
    pub(crate) fn new(body: Arriving, patience: Duration) -> Self {
        // One of no stated length may be a stream that stays open by design.
        let has_end = body.size_hint().exact().is_some();
        let body = Self(TimedBody::new(body, patience));
        if has_end { body.hurried() } else { body }
    }

    /// The same, where nothing is done before the whole of it is there.
    pub(crate) fn hurried(self) -> Self {
        Self(self.0.hurried())
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(checked(frame))),
            Some(Err(TimedBodyError::Silent(_))) => Poll::Ready(Some(Err(BodyError::Silent))),
            Some(Err(TimedBodyError::Slow(_))) => Poll::Ready(Some(Err(BodyError::Slow))),
            Some(Err(TimedBodyError::Body(error))) => Poll::Ready(Some(Err(BodyError::Incomplete(Some(error.into()))))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Trailers of HTTP/2 have passed no guard: refuses those that HTTP/1.1 would have been refused.
fn checked(frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
    let allowed = |trailers: &HeaderMap| trailers.keys().all(|name| may_be_trailer(name.as_str().as_bytes()));
    if frame.trailers_ref().is_none_or(allowed) {
        Ok(frame)
    } else {
        Err(BodyError::Malformed(Box::new(server::Refusal::from(Reason::Trailer))))
    }
}

/// A request body that was read whole.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// Its place in `max_buffered`.
    pub(crate) held: Held,
}

/// Why a request body was not read whole.
#[derive(Debug)]
pub(crate) enum NotWhole<B> {
    /// Longer than the limit. What was read comes back, and the rest is still to come.
    TooLarge(Prefixed<B>),
    /// `max_buffered` is reached.
    Overloaded,
    /// It has trailers.
    Trailers,
    /// The client went, stalled, or broke its framing.
    Failed(BodyError),
}

/// Reads a body whole, up to `limit` bytes (contract: R-7).
pub(crate) async fn read_whole<B>(mut body: B, limit: u64, mut held: Held) -> Result<Whole, NotWhole<B>>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut parts: Vec<Bytes> = Vec::new();
    let mut length = 0;
    // Decided from Content-Length where there is one.
    if body.size_hint().exact().is_some_and(|exact| exact > limit) {
        return Err(NotWhole::TooLarge(Prefixed::new(parts, body)));
    }
    while let Some(frame) = body.frame().await {
        let data = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(_)) => return Err(NotWhole::Trailers),
            Err(error) => return Err(NotWhole::Failed(error)),
        };
        length += data.len() as u64;
        if length > limit {
            parts.push(data);
            return Err(NotWhole::TooLarge(Prefixed::new(parts, body)));
        }
        if !held.grow(data.len() as u64) {
            return Err(NotWhole::Overloaded);
        }
        parts.push(data);
    }
    Ok(Whole { bytes: join(parts), held })
}

/// Reads what is left of a body, up to `limit` bytes; whether it ended.
pub(crate) async fn discard<B>(mut body: B, limit: u64) -> bool
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    if body.size_hint().lower() > limit {
        return false;
    }
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
        if length > limit {
            return false;
        }
    }
    true
}

/// One piece of several; the only one as it is.
pub(crate) fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

/// A body whose beginning was read already.
#[derive(Debug)]
pub(crate) struct Prefixed<B> {
    prefix: std::vec::IntoIter<Bytes>,
    rest: B,
}

impl<B> Prefixed<B> {
    fn new(prefix: Vec<Bytes>, rest: B) -> Self {
        Self { prefix: prefix.into_iter(), rest }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Prefixed<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.prefix.next() {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.as_slice().is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 = self.prefix.as_slice().iter().map(|part| part.len() as u64).sum();
        self.rest.size_hint().exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(rest + read))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn trailers_that_http1_would_have_been_refused_are_refused() {
        let trailers = |name| {
            let field = (HeaderName::from_static(name), HeaderValue::from_static("1"));
            checked(Frame::trailers(HeaderMap::from_iter([field])))
        };
        assert!(trailers("x-sum").is_ok());
        for name in ["content-length", "host", "authorization", "idempotency-key", "content_length"] {
            let error = trailers(name).unwrap_err();
            assert_eq!(server::Refusal::of(&error).map(|refusal| refusal.reason), Some(Reason::Trailer), "{name}");
        }
    }
}
