//! Bodies in the proxy: reading one whole within bounds, giving back what was read, and what a client is sent.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::visit::{BROKE_OFF, Visit};
use crate::{
    body::BodyError,
    desk::Held,
    server::{self, Reason, TimedBody, TimedBodyError, guard::may_be_trailer},
    upstream::UpstreamBody,
};

/// What a client is sent.
#[derive(Debug)]
pub(crate) enum Payload {
    /// All of it.
    Whole(Option<Bytes>),
    /// A first part, and the rest as it comes.
    Stream { prefix: std::vec::IntoIter<Bytes>, rest: Rest },
}

/// What comes after the first part of a streamed answer.
#[derive(Debug)]
pub(crate) enum Rest {
    Body(UpstreamBody),
    Guarded(Guarded),
    Trailers(Option<HeaderMap>),
}

/// The rest of a guarded answer that was let go (contract: R-13). A client that leaves does not end the exchange
/// (contract: R-9): the upstream may act for as long as it answers. So what is left is given to somebody else to read.
pub(crate) struct Guarded {
    body: Option<UpstreamBody>,
    take_over: Option<Box<dyn FnOnce(UpstreamBody) + Send>>,
}

impl Guarded {
    pub(crate) fn new(body: UpstreamBody, take_over: impl FnOnce(UpstreamBody) + Send + 'static) -> Self {
        Self { body: Some(body), take_over: Some(Box::new(take_over)) }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::upstream)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(UpstreamBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), UpstreamBody::size_hint)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let (Some(body), Some(take_over)) = (self.body.take(), self.take_over.take())
            && !body.is_end_stream()
        {
            take_over(body);
        }
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Payload {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    pub(crate) fn stream(rest: UpstreamBody) -> Self {
        Self::Stream { prefix: Vec::new().into_iter(), rest: Rest::Body(rest) }
    }

    /// Bytes of it that are in memory.
    fn bytes(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, Bytes::len) as u64,
            Self::Stream { prefix, .. } => prefix.as_slice().iter().map(|part| part.len() as u64).sum(),
        }
    }

    /// What of it is in memory counts until the client has taken it. `false`, and uncounted, where there is no room.
    pub(crate) fn counted(self, mut held: Held) -> (Self, bool) {
        if !held.grow(self.bytes()) {
            return (self, false);
        }
        let held = Arc::new(held);
        let count = |bytes| Bytes::from_owner(Counted { bytes, _held: Arc::clone(&held) });
        let counted = match self {
            Self::Whole(bytes) => Self::Whole(bytes.map(count)),
            Self::Stream { prefix, rest } => {
                Self::Stream { prefix: prefix.map(count).collect::<Vec<_>>().into_iter(), rest }
            }
        };
        (counted, true)
    }
}

/// Bytes that count for as long as anybody has them: a transport keeps them longer than the body that they come from.
struct Counted {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of every response, and the visit whose account is closed when it ends.
#[derive(Debug)]
pub struct ResponseBody {
    payload: Payload,
    visit: Option<Visit>,
}

impl ResponseBody {
    pub(crate) fn new(payload: Payload, visit: Option<Visit>) -> Self {
        Self { payload, visit }
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(visit) = &mut self.visit {
            visit.bytes_out += bytes as u64;
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut self.payload {
            Payload::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Payload::Stream { prefix, rest } => match prefix.next() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => match rest {
                    Rest::Body(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::upstream),
                    Rest::Guarded(body) => body.poll_frame(cx),
                    Rest::Trailers(trailers) => {
                        Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
                    }
                },
            },
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.sent(bytes);
            }
            Poll::Ready(None) => drop(self.visit.take()),
            Poll::Ready(Some(Err(_))) => {
                // The head is long gone; the log says that its answer broke off.
                if let Some(visit) = &mut self.visit {
                    visit.why = Some(BROKE_OFF);
                }
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.payload {
            Payload::Whole(bytes) => bytes.is_none(),
            Payload::Stream { prefix, rest } => {
                prefix.as_slice().is_empty()
                    && match rest {
                        Rest::Body(body) => body.is_end_stream(),
                        Rest::Guarded(body) => body.is_end_stream(),
                        Rest::Trailers(trailers) => trailers.is_none(),
                    }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Payload::Stream { prefix, rest } => {
                let ready: u64 = prefix.as_slice().iter().map(|part| part.len() as u64).sum();
                let rest = match rest {
                    Rest::Body(body) => body.size_hint(),
                    Rest::Guarded(body) => body.size_hint(),
                    // With trailers to come the length must not be promised, else they would not be framed.
                    Rest::Trailers(_) => SizeHint::new(),
                };
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + ready);
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + ready);
                }
                hint
            }
        }
    }
}

/// A client's body, which may not stay silent for longer than `body_timeout`, nor drip for ever where it has an end.
#[derive(Debug)]
pub(crate) struct ClientBody(TimedBody<Incoming>);

impl ClientBody {
    pub(crate) fn new(body: Incoming, patience: Duration) -> Self {
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
            Some(Err(TimedBodyError::Body(error))) => Poll::Ready(Some(Err(BodyError::Incomplete(Some(error))))),
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
