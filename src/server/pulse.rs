//! What a connection is doing, and since when.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Limits, refusal::Refusal};
use crate::clock;

/// How long a client that was told to go may be silent before it is taken to have heard it.
const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// The same while we drain: its answer was written a while ago, and everybody waits for this client.
const LINGER_HURRIED: Duration = Duration::from_millis(250);

/// How long an answer may still come to a client that has closed its side. It may have said only that it sends no more;
/// or it has left, which looks the same until we write, and its request is given up then.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// How long a client with nothing under way may be silent, while we drain: it is to say that it heard of it (HTTP/2's
/// GOAWAY and PING), and to take what is on its way to it.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long an old connection may stay idle. Closed at once, it would cut off the requests that are on their way to it:
/// those of a busy client often are. They are answered, and told that the connection ends.
const OLD_IDLE: Duration = Duration::from_secs(1);

/// What a connection is doing, as those who move its bytes see it.
///
/// All of it is written and read by tasks of one thread, mostly by one task; the atomics are there for the compiler.
pub(super) struct Pulse {
    start: Instant,
    /// Since when the head (or handshake) under way is being awaited.
    head: Stamp,
    /// Since when a write has been waiting for the client.
    stalled: Stamp,
    /// Since when we have been waiting for the client to hear that the connection ends.
    lingering: Stamp,
    /// Since when a client that we wait for so has sent nothing.
    lingering_in_silence: Stamp,
    /// Since when no request has been under way.
    idle: Stamp,
    /// Since when the client's side has been closed, while a request is under way.
    half_closed: Stamp,
    /// Since when no HTTP/2 stream has taken anything of its answer.
    untaken: Stamp,
    /// HTTP/2 streams that have yet to take what is there of their answers.
    untaken_answers: AtomicU64,
    /// Requests whose head has arrived whole.
    begun: AtomicU64,
    /// Requests whose answer has been written or given up.
    finished: AtomicU64,
    /// The latest request's body has not arrived whole.
    body_open: AtomicBool,
    /// The connection carries another protocol from here on.
    tunnel: AtomicBool,
    /// The head under way is late.
    head_late: AtomicBool,
    /// The next answer is the last.
    old: AtomicBool,
    /// The client is taken to have left.
    gone: AtomicBool,
    /// A read waits for the exchange's end, of which the transport knows nothing.
    withheld: AtomicBool,
    /// Since when everything is to end soon.
    hurried: Stamp,
    /// An answer that ends with its connection has broken off.
    answer_cut: AtomicBool,
    /// Which request, counted from 0, is refused, and why. None after it is looked at.
    refused: OnceLock<(u64, Refusal)>,
}

/// Which deadline a connection meets next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// For a whole head, or for a handshake's end.
    Head,
    /// For the next request.
    Idle,
    /// For the client to take what is written.
    Write,
    /// For the client to hear that the connection ends.
    Linger,
    /// For the answer to a client that has closed its side.
    HalfClosed,
}

impl Pulse {
    /// A connection accepted at `start`, whose first head is awaited from then on.
    pub(super) fn new(start: Instant) -> Self {
        let pulse = Self {
            start,
            head: Stamp::default(),
            stalled: Stamp::default(),
            lingering: Stamp::default(),
            lingering_in_silence: Stamp::default(),
            idle: Stamp::default(),
            half_closed: Stamp::default(),
            untaken: Stamp::default(),
            untaken_answers: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            body_open: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            head_late: AtomicBool::new(false),
            old: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            withheld: AtomicBool::new(false),
            hurried: Stamp::default(),
            answer_cut: AtomicBool::new(false),
            refused: OnceLock::new(),
        };
        pulse.head.set(start, start);
        pulse
    }

    /// When the connection was accepted.
    pub(super) const fn start(&self) -> Instant {
        self.start
    }

    /// The first byte of a head is there, and not its last.
    pub(super) fn head_begun(&self) {
        if !self.head.is_set() {
            self.head.set(self.start, clock::now());
        }
    }

    /// Nothing of a head that began to arrive is missing.
    pub(super) fn head_over(&self) {
        self.head.clear();
    }

    /// `count` heads arrived whole.
    pub(super) fn heads_ended(&self, count: u64) {
        self.head.clear();
        self.begun.fetch_add(count, Relaxed);
    }

    /// The handshake is over; a first request is awaited.
    pub(super) fn handshake_ended(&self) {
        self.head.clear();
        self.idle_anew();
    }

    /// The idle time counts from now.
    pub(super) fn idle_anew(&self) {
        self.idle.set(self.start, clock::now());
    }

    /// Whether a head, or a handshake, is under way.
    pub(super) fn is_head_awaited(&self) -> bool {
        self.head.is_set()
    }

    /// How many heads have arrived whole.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// A request's answer was written, or given up.
    pub(super) fn finished(&self) {
        if self.finished.fetch_add(1, Relaxed) + 1 == self.begun.load(Relaxed) {
            self.idle_anew();
            if self.head.is_set() {
                // A head that began to arrive meanwhile could not go on, since nothing was read.
                self.head.set(self.start, clock::now());
            }
        }
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.finished.load(Relaxed) >= self.begun.load(Relaxed)
    }

    /// Whether nothing is under way and all that was answered has been written.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_idle() && !self.stalled.is_set()
    }

    /// A write found no room (`true`), or took something.
    pub(super) fn write_waits(&self, waits: bool) {
        if !waits {
            self.stalled.clear();
        } else if !self.stalled.is_set() {
            self.stalled.set(self.start, clock::now());
        }
    }

    /// An HTTP/2 stream is offered something of its answer.
    pub(super) fn offered(&self) {
        if self.untaken_answers.fetch_add(1, Relaxed) == 0 {
            self.untaken.set(self.start, clock::now());
        }
    }

    /// An HTTP/2 stream took what it was offered, or was given up.
    pub(super) fn taken(&self) {
        if self.untaken_answers.fetch_sub(1, Relaxed) == 1 {
            self.untaken.clear();
        } else {
            self.untaken.set(self.start, clock::now());
        }
    }

    /// A read is left pending until no request is under way.
    pub(super) fn withhold(&self) {
        self.withheld.store(true, Relaxed);
    }

    /// Whether a read was left pending that can go on now: then hyper is to be run once more.
    pub(super) fn may_go_on(&self) -> bool {
        self.is_idle() && self.withheld.swap(false, Relaxed)
    }

    /// The client closed its side. Whether that is to be taken for its leaving: not while an answer may still come.
    pub(super) fn half_closed(&self) -> bool {
        if !self.half_closed.is_set() {
            self.half_closed.set(self.start, clock::now());
        }
        self.is_idle() || self.gone.load(Relaxed)
    }

    /// The client is taken to have left.
    pub(super) fn set_gone(&self) {
        self.gone.store(true, Relaxed);
    }

    /// Our side is closed; what the client still sends is thrown away.
    pub(super) fn linger_begun(&self) {
        self.lingering.set(self.start, clock::now());
        self.linger_on();
    }

    /// The client still sends what is thrown away.
    pub(super) fn linger_on(&self) {
        self.lingering_in_silence.set(self.start, clock::now());
    }

    /// Everything is to end soon: nobody is waited for longer than need be.
    pub(super) fn hurry(&self) {
        self.hurried.set(self.start, clock::now());
    }

    /// Bytes moved, either way. While we drain that puts off the farewell: an answer may be on its way, or the client's
    /// word that it has room for more of it.
    pub(super) fn moved(&self) {
        if self.hurried.is_set() {
            self.hurry();
        }
    }

    /// Whether a client of HTTP/2 has begun to speak it.
    pub(super) fn has_opened(&self) -> bool {
        self.idle.is_set()
    }

    /// Tells whether the latest request's body has yet to arrive whole.
    pub(super) fn set_body_open(&self, open: bool) {
        self.body_open.store(open, Relaxed);
    }

    /// Whether the body of the request of this number, counted from 0, has yet to arrive whole.
    pub(super) fn is_body_open(&self, number: u64) -> bool {
        self.body_open.load(Relaxed) && self.begun() == number + 1
    }

    /// An answer that ends with its connection has broken off: closing it properly would make it look whole.
    pub(super) fn set_answer_cut(&self) {
        self.answer_cut.store(true, Relaxed);
    }

    /// Whether an answer that ends with its connection has broken off.
    pub(super) fn is_answer_cut(&self) -> bool {
        self.answer_cut.load(Relaxed)
    }

    /// The connection carries another protocol from here on.
    pub(super) fn set_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    /// Whether the connection carries another protocol.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// The connection is to end with its next answer.
    pub(super) fn set_old(&self) {
        self.old.store(true, Relaxed);
    }

    /// Whether the connection is to end with its next answer.
    pub(super) fn is_old(&self) -> bool {
        self.old.load(Relaxed)
    }

    /// The head under way is late: the transport is to refuse it when it is next asked.
    pub(super) fn set_head_late(&self) {
        self.head_late.store(true, Relaxed);
    }

    /// Whether the head under way is late.
    pub(super) fn is_head_late(&self) -> bool {
        self.head_late.load(Relaxed)
    }

    /// The request after those that have begun is refused.
    pub(super) fn refuse(&self, refusal: Refusal) {
        // A second refusal changes nothing: nothing is read after the first.
        let _ = self.refused.set((self.begun(), refusal));
    }

    /// Why the request of this number, counted from 0, is refused, if it is.
    pub(super) fn refusal(&self, number: u64) -> Option<Refusal> {
        self.refused.get().filter(|(refused, _)| *refused == number).map(|(_, refusal)| *refusal)
    }

    /// What is being waited for, and until when; `None` while a handler is at work or a tunnel is open.
    pub(super) fn due(&self, limits: &Limits) -> Option<(Instant, Wait)> {
        let after =
            |stamp: &Stamp, patience: Duration, wait: Wait| stamp.get(self.start).map(|at| (at + patience, wait));
        let silence = if self.hurried.is_set() { LINGER_HURRIED } else { LINGER_SILENCE };
        let silence = after(&self.lingering_in_silence, silence, Wait::Linger);
        if let Some(due) = silence
            .into_iter()
            .chain(after(&self.lingering, limits.linger_timeout, Wait::Linger))
            .min_by_key(|(at, _)| *at)
        {
            return Some(due);
        }
        let stalled = after(&self.stalled, limits.write_timeout, Wait::Write)
            .or_else(|| after(&self.untaken, limits.write_timeout, Wait::Write));
        if self.is_tunnel() {
            return stalled;
        }
        if !self.is_idle() {
            let left =
                if self.gone.load(Relaxed) { None } else { after(&self.half_closed, HALF_CLOSED, Wait::HalfClosed) };
            return stalled.into_iter().chain(left).min_by_key(|(at, _)| *at);
        }
        let idle = if self.is_old() { limits.idle_timeout.min(OLD_IDLE) } else { limits.idle_timeout };
        if stalled.is_some() {
            return stalled;
        }
        let next = after(&self.head, limits.header_timeout, Wait::Head).or_else(|| after(&self.idle, idle, Wait::Idle));
        let farewell = self.hurried.get(self.start).filter(|_| !self.head.is_set()).map(|hurried| {
            let idle = self.idle.get(self.start).unwrap_or(self.start);
            (idle.max(hurried) + FAREWELL, Wait::Idle)
        });
        next.into_iter().chain(farewell).min_by_key(|(at, _)| *at)
    }
}

/// A moment or none: microseconds after the connection's start, and one.
#[derive(Default)]
struct Stamp(AtomicU64);

impl Stamp {
    fn is_set(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    fn set(&self, start: Instant, now: Instant) {
        let micros = u64::try_from((now - start).as_micros()).unwrap_or(u64::MAX - 1);
        self.0.store(micros + 1, Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    fn get(&self, start: Instant) -> Option<Instant> {
        let micros = self.0.load(Relaxed).checked_sub(1)?;
        Some(start + Duration::from_micros(micros))
    }
}
