//! Connections: HTTP/1.1, used by one exchange at a time, and HTTP/2, shared by many.
//!
//! A connection is driven by a task on the runtime that made it; others may use it from theirs.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    body::Outgoing,
    evidence::Evidence,
    pool::{IDLE_MAX, Pool, Slot},
    stalled::Taking,
    wire::{Screened, Wire},
};
use crate::clock;

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// What hyper may hold of an answer that its client does not take yet: for a head, and no more than twice that. Its own
/// default is 408 KiB, which some hundreds of slow clients would make it reach on every connection.
const BUFFER_MAX: usize = 2 * HEAD_BYTES_MAX as usize;
/// How often an HTTP/2 connection with open streams is asked whether it lives, and how long it may think.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an ended exchange may take to leave its connection ready for the next.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// Where a connection belongs.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) pool: Weak<Pool>,
    pub(super) endpoint: usize,
    pub(super) worker: usize,
    pub(super) id: u64,
}

// === HTTP/1.1 ===

/// An HTTP/1.1 connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Exclusive {
    sender: http1::SendRequest<Outgoing>,
    evidence: Arc<Evidence>,
    slot: Arc<Slot>,
    driver: Option<AbortHandle>,
    /// `None` only where the pool is gone already.
    taking: Option<Arc<Taking>>,
    home: Home,
    idle_since: Instant,
    reused: bool,
}

impl Exclusive {
    /// Begins to speak HTTP/1.1. Must be called within a runtime, which then drives the connection.
    pub(super) async fn open(wire: Wire, home: Home) -> hyper::Result<Self> {
        let evidence = Arc::clone(wire.socket().evidence());
        let slot = Arc::clone(wire.socket().slot());
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEAD_BYTES_MAX as usize)
            .max_buf_size(BUFFER_MAX)
            .handshake(TokioIo::new(Screened::new(wire)))
            .await?;
        let driver = drive(connection.with_upgrades(), home.clone());
        let taking = home.pool.upgrade().map(|pool| pool.answers().watch(driver.clone()));
        let (driver, idle_since) = (Some(driver), clock::now());
        Ok(Self { sender, evidence, slot, driver, taking, home, idle_since, reused: false })
    }

    pub(super) fn id(&self) -> u64 {
        self.home.id
    }

    pub(super) fn home(&self) -> usize {
        self.home.worker
    }

    pub(super) fn endpoint(&self) -> usize {
        self.home.endpoint
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    pub(super) fn evidence(&self) -> &Arc<Evidence> {
        &self.evidence
    }

    pub(super) fn sender(&mut self) -> &mut http1::SendRequest<Outgoing> {
        &mut self.sender
    }

    /// How its client takes the answer.
    pub(super) fn taking(&self) -> Option<&Taking> {
        self.taking.as_deref()
    }

    /// Whether an exchange went over it before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether it can take a request now.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn rest(&mut self, now: Instant) {
        self.reused = true;
        self.idle_since = now;
    }

    /// Lets go of a connection that speaks another protocol from now on; it lives as long as its tunnel.
    pub(super) fn detach(mut self) {
        self.driver = None;
    }

    /// Ends an exchange whose answer was read to its end: the connection goes back to the pool, if it can be used again.
    pub(super) fn finish(mut self, pool: &Arc<Pool>) {
        // An answer that came before the request was sent leaves the connection in the middle of a message.
        if !self.evidence.request_done() || self.sender.is_closed() {
            return;
        }
        if self.sender.is_ready() {
            pool.put(self);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The driver has read the end, and not yet looked for the next request.
            let pool = Arc::clone(pool);
            runtime.spawn(async move {
                if let Ok(Ok(())) = timeout(SETTLE_MAX, self.sender.ready()).await {
                    pool.put(self);
                }
            });
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

// === HTTP/2 ===

/// An HTTP/2 connection. Dropping it lets its open streams end, then closes it.
#[derive(Debug)]
pub(super) struct Multiplexed {
    sender: http2::SendRequest<Outgoing>,
    evidence: Arc<Evidence>,
    slot: Arc<Slot>,
    usage: Arc<Usage>,
    home: Home,
}

/// The driven half of an HTTP/2 connection. Locked by its driver while it is polled, else free.
type Driven = http2::Connection<TokioIo<Wire>, Outgoing, TokioExecutor>;

struct Usage {
    /// Asked for the peer's SETTINGS_MAX_CONCURRENT_STREAMS; empty once the connection has ended.
    driven: Mutex<Option<Driven>>,
    /// What it said last.
    streams_max: AtomicUsize,
    now: Mutex<Streams>,
}

#[derive(Debug)]
struct Streams {
    open: usize,
    idle_since: Instant,
    used: bool,
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Usage {
    /// How many streams the peer allows. Never waits: a connection that is being polled right now is not asked.
    fn streams_max(&self) -> usize {
        if let Ok(driven) = self.driven.try_lock()
            && let Some(connection) = &*driven
        {
            self.streams_max.store(connection.current_max_send_streams(), Ordering::Relaxed);
        }
        self.streams_max.load(Ordering::Relaxed)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let mut driven = self.driven.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connection) = &mut *driven else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(connection).poll(cx));
        *driven = None;
        Poll::Ready(ended)
    }

    fn now(&self) -> MutexGuard<'_, Streams> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Multiplexed {
    /// Begins to speak HTTP/2. Must be called within a runtime, which then drives the connection.
    pub(super) async fn open_connection(wire: Wire, home: Home) -> hyper::Result<Self> {
        let evidence = Arc::clone(wire.socket().evidence());
        let slot = Arc::clone(wire.socket().slot());
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_header_list_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(wire))
            .await?;
        let usage = Arc::new(Usage {
            streams_max: AtomicUsize::new(connection.current_max_send_streams()),
            driven: Mutex::new(Some(connection)),
            now: Mutex::new(Streams { open: 0, idle_since: clock::now(), used: false }),
        });
        let polled = Arc::clone(&usage);
        let driven = poll_fn(move |cx| polled.poll(cx));
        // Not aborted: open streams outlive the pool's interest in their connection.
        drive(driven, home.clone());
        Ok(Self { sender, evidence, slot, usage, home })
    }

    pub(super) fn id(&self) -> u64 {
        self.home.id
    }

    pub(super) fn home(&self) -> usize {
        self.home.worker
    }

    pub(super) fn endpoint(&self) -> usize {
        self.home.endpoint
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Since when it has had no stream; `None` while it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let streams = self.usage.now();
        (streams.open == 0).then_some(streams.idle_since)
    }

    /// Opens a stream, unless the peer allows no more, or the connection was idle for `idle_max`.
    pub(super) fn open(&self, pool: &Arc<Pool>, idle_max: Duration, now: Instant) -> Option<Stream> {
        let mut streams = self.usage.now();
        let stale = streams.open == 0 && now.saturating_duration_since(streams.idle_since) >= idle_max;
        if self.sender.is_closed() || stale || streams.open >= self.usage.streams_max() {
            return None;
        }
        streams.open += 1;
        let reused = std::mem::replace(&mut streams.used, true);
        Some(Stream {
            sender: self.sender.clone(),
            evidence: Arc::clone(&self.evidence),
            usage: Arc::clone(&self.usage),
            pool: Arc::clone(pool),
            reused,
        })
    }
}

/// A stream of a shared connection, open from before the request until the answer has ended.
#[derive(Debug)]
pub(super) struct Stream {
    sender: http2::SendRequest<Outgoing>,
    evidence: Arc<Evidence>,
    usage: Arc<Usage>,
    pool: Arc<Pool>,
    reused: bool,
}

impl Stream {
    pub(super) fn sender(&mut self) -> &mut http2::SendRequest<Outgoing> {
        &mut self.sender
    }

    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        {
            let mut streams = self.usage.now();
            streams.open -= 1;
            streams.idle_since = clock::now();
        }
        self.pool.serve();
    }
}

/// Runs a connection until it ends, or has been idle for too long. One timer a minute is all that idling costs.
fn drive<C>(connection: C, home: Home) -> AbortHandle
where
    C: Future<Output = hyper::Result<()>> + Send + 'static,
{
    let task = tokio::spawn(async move {
        let mut connection = pin!(connection);
        let mut look = pin!(tokio::time::sleep(IDLE_MAX));
        loop {
            tokio::select! {
                biased;
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to an upstream ended");
                    }
                    break;
                }
                () = &mut look => match home.pool.upgrade().and_then(|pool| pool.expire(home.worker, home.id)) {
                    Some(next) => look.as_mut().reset(next),
                    None => break,
                },
            }
        }
        if let Some(pool) = home.pool.upgrade() {
            pool.forget(home.worker, home.id);
        }
    });
    task.abort_handle()
}
