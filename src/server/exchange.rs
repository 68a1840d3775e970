//! A request under way, from its whole head to the end of its answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::pulse::Pulse;

/// A request under way, until it is dropped.
pub(super) struct Exchange(Arc<Pulse>);

impl Exchange {
    /// Of a request whose head's end the pulse has been told.
    pub(super) const fn new(pulse: Arc<Pulse>) -> Self {
        Self(pulse)
    }

    pub(super) fn pulse(&self) -> &Pulse {
        &self.0
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.finished();
    }
}

/// An answer's body, which ends the exchange when hyper has taken all of it.
pub(super) struct Answer<B> {
    body: B,
    /// What of a part has yet to be offered.
    rest: Bytes,
    /// On an HTTP/2 stream, whose window may be closed while the connection itself moves on: whether hyper has yet to
    /// come back for more. It does when the client has taken what there was.
    offer: Option<Offer>,
    /// Where its length is not known, the connection's end is its end (HTTP/1.0).
    ends_with_connection: bool,
    exchange: Exchange,
}

/// Bytes that an HTTP/2 stream is offered at a time. h2 takes a part whole as soon as the client takes any of it: nobody
/// would know any more of the rest, which only the client's window lets go.
const PIECE: usize = 16 * 1024;

#[derive(PartialEq, Eq)]
enum Offer {
    Untaken,
    Taken,
}

impl<B: Body> Answer<B> {
    /// On a connection that carries one answer at a time: a client that takes nothing stalls its writes. `old`: the client
    /// knows no chunks, so an answer of unknown length ends with the connection.
    pub(super) fn new(body: B, exchange: Exchange, old: bool) -> Self {
        let ends_with_connection = old && body.size_hint().exact().is_none();
        Self { body, rest: Bytes::new(), offer: None, ends_with_connection, exchange }
    }

    /// On one stream of many.
    pub(super) fn on_stream(body: B, exchange: Exchange) -> Self {
        let offer = Some(Offer::Taken);
        let mut answer = Self { body, rest: Bytes::new(), offer, ends_with_connection: false, exchange };
        if !answer.body.is_end_stream() {
            answer.turn(Offer::Untaken);
        }
        answer
    }
}

impl<B> Answer<B> {
    fn turn(&mut self, next: Offer) {
        let Some(offer) = &mut self.offer else { return };
        if *offer == next {
            return;
        }
        match next {
            Offer::Untaken => self.exchange.pulse().offered(),
            Offer::Taken => self.exchange.pulse().taken(),
        }
        *offer = next;
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.turn(Offer::Taken);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.turn(Offer::Taken);
        let frame = if self.rest.is_empty() {
            ready!(Pin::new(&mut self.body).poll_frame(cx))
        } else {
            Some(Ok(Frame::data(std::mem::take(&mut self.rest))))
        };
        let frame = frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(mut data) if self.offer.is_some() && data.len() > PIECE => {
                    self.rest = data.split_off(PIECE);
                    Frame::data(data)
                }
                Ok(data) => Frame::data(data),
                Err(other) => other,
            })
        });
        if self.ends_with_connection && matches!(frame, Some(Err(_))) {
            self.exchange.pulse().set_answer_cut();
        }
        if frame.is_some() {
            self.turn(Offer::Untaken);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
