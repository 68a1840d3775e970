//! Looks at an HTTP/1.1 client's bytes before hyper does, and refuses what is ambiguous.
//!
//! hyper is lenient where a proxy must not be: it merges Content-Length lines, prefers Transfer-Encoding over
//! Content-Length and hides the latter, takes a bare LF for a line's end. By the time a service sees the request, the
//! evidence is gone; and two parsers that read one request differently are how requests are smuggled. So the guard parses
//! framing itself, strictly (RFC 9112; contract: section 8), and lets bytes on only when the head, the chunk's size line
//! or the trailer section that they belong to is whole and beyond doubt.
//!
//! It is a pure state machine: no I/O, no clock, no allocation. [`Guard::feed`] gives the same verdict however the bytes
//! are split. What follows from a refusal is its caller's business.

mod chunked;
mod field;
mod head;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
#[cfg(test)]
mod tests;

pub use self::chunked::may_be_trailer;
use self::{chunked::Chunked, head::Head};
pub(super) use self::{
    field::{authority_is_valid, looks_like_framing},
    head::{same_authority, target_is_valid},
};
use super::refusal::{Reason, Refusal};

/// Field lines of a head, and of a trailer section. hyper's own bound is the same.
pub const FIELDS_MAX: usize = 100;

/// Follows one client connection from request to request.
#[derive(Debug)]
pub struct Guard {
    head_bytes_max: usize,
    state: State,
    /// A request asked to switch protocols: what follows it may be another protocol's.
    paused: bool,
}

#[derive(Debug)]
enum State {
    Head(Head),
    /// That many bytes of a body are left, never 0.
    Length(u64),
    Chunked(Chunked),
    Refused,
}

/// What [`Guard::feed`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Fed {
    /// That many bytes from the start of the input may go on. The rest, unless refused, is the beginning of something: to
    /// be fed again with what follows it.
    pub pass: usize,
    /// That many of the heads that may go on ended here.
    pub heads: u64,
    /// What follows the bytes that may go on is refused. Nothing may be fed any more.
    pub refused: Option<Refused>,
}

/// Where the client broke a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// In a head: nobody has seen any of that request.
    Head(Refusal),
    /// In a body, whose request has gone on.
    Body(Refusal),
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

impl Guard {
    /// At the start of a connection whose heads may take `head_bytes_max`, request line and empty line included.
    #[must_use]
    pub const fn new(head_bytes_max: usize) -> Self {
        Self { head_bytes_max, state: State::Head(Head::new()), paused: false }
    }

    /// Looks at `input`: what the last call did not let on, and what came since.
    ///
    /// # Panics
    /// In debug builds, after a refusal.
    pub fn feed(&mut self, input: &[u8]) -> Fed {
        debug_assert!(!matches!(self.state, State::Refused), "nothing is fed after a refusal");
        let mut fed = Fed { pass: 0, heads: 0, refused: None };
        loop {
            let rest = &input[fed.pass..];
            if rest.is_empty() || self.is_paused() {
                return fed;
            }
            match self.step(rest, &mut fed.heads) {
                Ok(0) => return fed,
                Ok(passed) => fed.pass += passed,
                Err(reason) => {
                    let refusal = Refusal::from(reason);
                    let in_head = matches!(self.state, State::Head(_));
                    fed.refused = Some(if in_head { Refused::Head(refusal) } else { Refused::Body(refusal) });
                    self.state = State::Refused;
                    return fed;
                }
            }
        }
    }

    /// Whether a request's body has yet to arrive whole.
    #[must_use]
    pub const fn is_in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// Whether nothing is looked at until it is known if the protocol is switched: a request with Upgrade is behind us, its
    /// body too, and [`Guard::resume`] has not been called since.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused && !self.is_in_body()
    }

    /// The protocol was not switched: what follows is a request.
    pub const fn resume(&mut self) {
        self.paused = false;
    }

    /// Lets on one element, or as much as there is of a body's data; 0 when the element is not whole.
    fn step(&mut self, rest: &[u8], heads: &mut u64) -> Result<usize, Reason> {
        match &mut self.state {
            State::Head(head) => {
                let Some((bytes, framing)) = head.scan(rest, self.head_bytes_max)? else { return Ok(0) };
                *heads += 1;
                self.paused = head.asks_for_upgrade();
                self.state = match framing {
                    Framing::Length(0) => State::Head(Head::new()),
                    Framing::Length(left) => State::Length(left),
                    Framing::Chunked => State::Chunked(Chunked::new()),
                };
                Ok(bytes)
            }
            State::Length(left) => {
                let passed = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                *left -= passed as u64;
                if *left == 0 {
                    self.state = State::Head(Head::new());
                }
                Ok(passed)
            }
            State::Chunked(chunked) => {
                let passed = chunked.scan(rest)?;
                if chunked.is_over() {
                    self.state = State::Head(Head::new());
                }
                Ok(passed)
            }
            State::Refused => Ok(0),
        }
    }
}
