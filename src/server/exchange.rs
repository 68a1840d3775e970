//! A request under way, from its whole head to the end of its answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};

use super::deadline::Pulse;

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
    /// On an HTTP/2 stream, whose window may be closed while the connection itself moves on: whether hyper has yet to
    /// come back for more. It does when the client has taken what there was.
    offer: Option<Offer>,
    /// Where its length is not known, the connection's end is its end (HTTP/1.0).
    ends_with_connection: bool,
    exchange: Exchange,
}

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
        Self { body, offer: None, ends_with_connection, exchange }
    }

    /// On one stream of many.
    pub(super) fn on_stream(body: B, exchange: Exchange) -> Self {
        let offer = Some(Offer::Taken);
        let mut answer = Self { body, offer, ends_with_connection: false, exchange };
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

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.turn(Offer::Taken);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.ends_with_connection && matches!(frame, Some(Err(_))) {
            self.exchange.pulse().set_answer_cut();
        }
        if frame.is_some() {
            self.turn(Offer::Untaken);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
