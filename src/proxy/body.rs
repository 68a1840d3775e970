//! What a client is sent, and what was read on the way to it.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::visit::{BROKE_OFF, Visit};
use crate::{body::BodyError, desk::Held, upstream::UpstreamBody};

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
