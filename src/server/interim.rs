//! Interim answers (1xx, RFC 9110 s15.2) on their way to an HTTP/1.1 client, beside hyper, whose server has no way to send
//! them.
//!
//! A request's handler is given an [`Interim`], which others may hold on to and use from their threads. What they send
//! waits in the connection's [`Line`] until the transport takes it, which it does when hyper flushes: then every byte that
//! hyper wrote has gone, and they were whole messages, since hyper has been given nothing of the request's own answer. That
//! answer is held back until the line is empty, and closes it: what comes later comes too late, and is dropped.

use std::{
    fmt::Write as _,
    future::poll_fn,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, StatusCode, header};

/// Interim answers to one request. Nobody sends as many; a client is not to be kept busy with them.
const HEADS_MAX: u32 = 16;
/// Bytes of them that may wait for the transport.
const BYTES_MAX: usize = 64 << 10;

/// Sends interim answers to the client of one request, until its answer is there.
#[derive(Debug, Clone)]
pub struct Interim {
    line: Arc<Line>,
    request: u64,
}

impl Interim {
    /// Sends an interim answer with these fields, which are to be free of hop-by-hop ones; a length is left out, since it
    /// has no body. 100 and 101 are not for a handler to send. Dropped when the answer is there already, and beyond 16
    /// heads or 64 KiB: what is interim may be.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if !status.is_informational() || matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        let mut state = self.line.state();
        if state.request != Some(self.request) || state.heads == HEADS_MAX {
            return;
        }
        let before = state.bytes.len();
        write_head(status, headers, &mut state.bytes);
        if state.bytes.len() > BYTES_MAX {
            state.bytes.truncate(before);
            return;
        }
        state.heads += 1;
        self.line.waiting.store(true, Ordering::Release);
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What waits for a connection's transport.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// There may be bytes: spares every flush the lock.
    waiting: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Which request's interim answers may be sent, counted from 0.
    request: Option<u64>,
    /// Those that were sent for it.
    heads: u32,
    /// Whole heads.
    bytes: Vec<u8>,
    /// The connection's task.
    waker: Option<Waker>,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the line for a request, the only one under way. To be awaited in the connection's task.
    pub(super) async fn open(self: &Arc<Self>, request: u64) -> Interim {
        poll_fn(|cx| {
            let mut state = self.state();
            // What is left of a request that was given up is nobody's.
            state.bytes.clear();
            (state.request, state.heads) = (Some(request), 0);
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                waker @ None => *waker = Some(cx.waker().clone()),
            }
            Poll::Ready(())
        })
        .await;
        Interim { line: Arc::clone(self), request }
    }

    /// Closes the line once the transport has taken what waits; the request's answer may follow. To be awaited in the
    /// connection's task.
    pub(super) async fn close(&self) {
        poll_fn(|_| {
            let mut state = self.state();
            if !state.bytes.is_empty() {
                // The transport wakes this task when it has taken them.
                return Poll::Pending;
            }
            state.request = None;
            Poll::Ready(())
        })
        .await;
    }

    /// What is to be written before anything else; to be asked when all that hyper wrote has gone.
    pub(super) fn take(&self, cx: &mut Context<'_>) -> Option<Vec<u8>> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        self.waiting.store(false, Ordering::Release);
        let bytes = mem::take(&mut state.bytes);
        // Their answer may wait for just this.
        cx.waker().wake_by_ref();
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// Writes a head (RFC 9112 s4) without a body.
fn write_head(status: StatusCode, headers: &HeaderMap, to: &mut Vec<u8>) {
    let mut line = String::with_capacity(32);
    // An unknown reason is an empty one; the space before it stays.
    write!(line, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default())
        .expect("a String takes every write");
    to.extend_from_slice(line.as_bytes());
    for (name, value) in headers {
        if *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING {
            continue;
        }
        to.extend_from_slice(name.as_str().as_bytes());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value.as_bytes());
        to.extend_from_slice(b"\r\n");
    }
    to.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// A connection's task, polled by hand.
    struct Task(Arc<Woken>, Waker);

    impl Task {
        fn new() -> Self {
            let woken = Arc::new(Woken::default());
            Self(Arc::clone(&woken), woken.into())
        }

        fn was_woken(&self) -> bool {
            self.0.0.swap(false, Ordering::SeqCst)
        }

        fn cx(&self) -> Context<'_> {
            Context::from_waker(&self.1)
        }

        fn open(&self, line: &Arc<Line>, request: u64) -> Interim {
            let Poll::Ready(interim) = pin!(line.open(request)).poll(&mut self.cx()) else { unreachable!() };
            interim
        }

        fn closes(&self, line: &Line) -> bool {
            pin!(line.close()).poll(&mut self.cx()).is_ready()
        }

        fn taken(&self, line: &Line) -> Option<String> {
            line.take(&mut self.cx()).map(|bytes| String::from_utf8(bytes).unwrap())
        }
    }

    fn link() -> HeaderMap {
        HeaderMap::from_iter([(header::LINK, "</a.css>".parse().unwrap()), (header::CONTENT_LENGTH, 3.into())])
    }

    const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";

    #[test]
    fn what_is_sent_wakes_the_connection_which_takes_it_and_then_answers() {
        let (line, task) = (Arc::new(Line::default()), Task::new());
        let interim = task.open(&line, 0);
        assert!(!task.was_woken() && task.taken(&line).is_none());
        interim.send(StatusCode::EARLY_HINTS, &link());
        interim.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert!(task.was_woken());
        assert!(!task.closes(&line), "the answer waits");
        assert_eq!(task.taken(&line), Some(format!("{HINT}HTTP/1.1 102 Processing\r\n\r\n")));
        assert!(task.was_woken() && task.closes(&line));
        assert_eq!(task.taken(&line), None);
    }

    #[test]
    fn what_comes_after_the_answer_or_for_another_request_is_dropped() {
        let (line, task) = (Arc::new(Line::default()), Task::new());
        let first = task.open(&line, 0);
        assert!(task.closes(&line));
        first.send(StatusCode::EARLY_HINTS, &link());
        let second = task.open(&line, 1);
        first.send(StatusCode::EARLY_HINTS, &link());
        assert!(!task.was_woken() && task.taken(&line).is_none());
        second.send(StatusCode::EARLY_HINTS, &link());
        // Given up before anybody took it.
        let _third = task.open(&line, 2);
        assert_eq!(task.taken(&line), None);
    }

    #[test]
    fn only_so_much_waits_and_neither_100_nor_101_does() {
        let (line, task) = (Arc::new(Line::default()), Task::new());
        let interim = task.open(&line, 0);
        for status in [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK] {
            interim.send(status, &link());
        }
        assert_eq!(task.taken(&line), None);
        for _ in 0..HEADS_MAX + 5 {
            interim.send(StatusCode::EARLY_HINTS, &link());
        }
        assert_eq!(task.taken(&line), Some(HINT.repeat(HEADS_MAX as usize)));
        interim.send(StatusCode::EARLY_HINTS, &link());
        assert_eq!(task.taken(&line), None, "the bound is the request's");

        let large = HeaderMap::from_iter([(header::LINK, "x".repeat(BYTES_MAX / 2).parse().unwrap())]);
        let interim = task.open(&line, 1);
        interim.send(StatusCode::EARLY_HINTS, &large);
        interim.send(StatusCode::EARLY_HINTS, &large);
        interim.send(StatusCode::EARLY_HINTS, &link());
        let taken = task.taken(&line).unwrap();
        assert!(taken.len() < BYTES_MAX && taken.ends_with(HINT), "{}", taken.len());
    }
}
