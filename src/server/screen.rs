//! The [`Guard`] as an [`Inlet`]: holds back what is not certain yet, and puts a harmless request in a refused one's place.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::{
    guard::{Fed, Guard, Refused},
    pulse::Pulse,
    refusal::{Reason, Refusal},
    wire::Inlet,
};

/// What hyper reads in place of a refused head. The service never asks what it says: it knows the request by its number
/// on the connection, which no client can choose.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Held bytes beyond this are given back to the allocator as soon as they have gone on.
const HELD_KEPT: usize = 1024;

/// Screens what an HTTP/1.1 client sends.
///
/// In the common case, a read that ends where an element ends, bytes go straight from the transport into hyper's buffer,
/// and are looked at there.
pub(super) struct Screen {
    guard: Guard,
    /// What has been read and not gone on.
    held: Vec<u8>,
    /// That many of the held bytes may go on.
    cleared: usize,
    /// The held bytes have not been looked at.
    unseen: bool,
    end: Option<End>,
}

/// What follows the cleared bytes.
#[derive(Clone, Copy)]
enum End {
    /// Nothing any more: the stand-in for a refused head was the last.
    Head,
    /// The body breaks off.
    Body(Refusal),
}

impl Screen {
    /// At a connection's start, of which `sniffed` has been read.
    pub(super) const fn new(guard: Guard, sniffed: Vec<u8>) -> Self {
        Self { guard, unseen: !sniffed.is_empty(), held: sniffed, cleared: 0, end: None }
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.cleared.min(buf.remaining());
        buf.put_slice(&self.held[..count]);
        self.held.drain(..count);
        self.cleared -= count;
        if self.held.is_empty() && self.held.capacity() > HELD_KEPT {
            self.held = Vec::new();
        }
    }

    fn look_at_held(&mut self, pulse: &Pulse) {
        let fed = self.guard.feed(&self.held);
        self.cleared = fed.pass;
        self.note(fed, pulse);
    }

    /// `fed` was found; what of it goes on is at the front of the held bytes, or has gone.
    fn note(&mut self, fed: Fed, pulse: &Pulse) {
        if fed.heads > 0 {
            pulse.heads_ended(fed.heads);
        }
        pulse.set_body_open(self.guard.is_in_body());
        match fed.refused {
            Some(Refused::Head(refusal)) => self.refuse(refusal, pulse),
            Some(Refused::Body(refusal)) => {
                self.held.truncate(self.cleared);
                self.end = Some(End::Body(refusal));
                pulse.set_body_open(true);
            }
            None if self.held.len() > self.cleared && !self.guard.is_in_body() => pulse.head_begun(),
            None => {}
        }
    }

    fn refuse(&mut self, refusal: Refusal, pulse: &Pulse) {
        self.held.truncate(self.cleared);
        self.held.extend_from_slice(STAND_IN);
        self.cleared = self.held.len();
        self.end = Some(End::Head);
        pulse.refuse(refusal);
        pulse.heads_ended(1);
    }
}

impl Inlet for Screen {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        pulse: &Pulse,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.unseen {
                self.unseen = false;
                self.look_at_held(pulse);
            }
            if self.cleared > 0 {
                self.hand_over(buf);
                return Poll::Ready(Ok(()));
            }
            match self.end {
                // Not the stream's end, at which hyper would drop the answer. The answer ends the connection.
                Some(End::Head) => return Poll::Pending,
                Some(End::Body(refusal)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
                }
                None => {}
            }
            if pulse.is_tunnel() {
                if self.held.is_empty() {
                    return Pin::new(stream).poll_read(cx, buf);
                }
                self.cleared = self.held.len();
                continue;
            }
            if self.guard.is_paused() {
                if pulse.is_idle() {
                    self.guard.resume();
                    self.unseen = !self.held.is_empty();
                    continue;
                }
                if !self.held.is_empty() {
                    // Whose bytes these are is for the answer to say.
                    pulse.withhold();
                    return Poll::Pending;
                }
            }
            if pulse.is_head_late() {
                if self.held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                self.refuse(Reason::HeadTimeout.into(), pulse);
                continue;
            }

            let before = buf.filled().len();
            ready!(Pin::new(&mut *stream).poll_read(cx, buf))?;
            let fresh = &buf.filled()[before..];
            if fresh.is_empty() {
                if self.guard.is_in_body() || pulse.half_closed() {
                    return Poll::Ready(Ok(()));
                }
                pulse.withhold();
                return Poll::Pending;
            }
            if !self.held.is_empty() {
                self.held.extend_from_slice(fresh);
                buf.set_filled(before);
                self.look_at_held(pulse);
                continue;
            }
            let fed = self.guard.feed(fresh);
            if fed.refused.is_none() {
                self.held.extend_from_slice(&fresh[fed.pass..]);
            }
            buf.set_filled(before + fed.pass);
            self.note(fed, pulse);
            if fed.pass > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
