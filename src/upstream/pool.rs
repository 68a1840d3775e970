//! The connections of one upstream: who may use one, and when another may be opened.
//!
//! Each worker has a shard of idle connections, last in, first out, behind a mutex of its own that nobody else touches
//! while there is enough to go round. Open connections are counted over all workers. At the limit an idle one is taken
//! from another shard, or closed to make room; when there is none, one waits in a fair queue that every connection
//! serves which becomes idle or closes.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    connection::{Exclusive, Multiplexed, Stream},
    stalled::Answers,
};
use crate::clock;

/// How long a connection may be idle. Below the 75 s of nginx's default `keepalive_timeout`, so that most upstreams
/// find us the one who closes first.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);

/// The connections of one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    shards: Box<[Shard]>,
    open: AtomicUsize,
    open_max: usize,
    queue_timeout: Duration,
    queue: Mutex<VecDeque<Waiter>>,
    /// The queue's length, to be read without its lock.
    waiting: AtomicUsize,
    ids: AtomicU64,
    answers: Answers,
}

#[derive(Debug, Default)]
struct Shard {
    idle: Mutex<Vec<Exclusive>>,
    multiplexed: Mutex<Vec<Multiplexed>>,
    /// Held while an HTTP/2 connection is being made, so that many first requests share one.
    connecting: tokio::sync::Mutex<()>,
}

/// What a request needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    /// Which of the upstream's urls.
    pub(super) endpoint: usize,
    /// On which worker the request runs.
    pub(super) worker: usize,
    /// Reuse only what was idle for less.
    pub(super) idle_max: Duration,
    /// A new connection, never a used one.
    pub(super) fresh: bool,
    /// Streams of a shared connection, rather than a connection of one's own.
    pub(super) http2: bool,
}

/// What a request gets.
#[derive(Debug)]
pub(super) enum Grant {
    /// A connection that was idle.
    Idle(Exclusive),
    /// A stream of a shared connection.
    Stream(Stream),
    /// Leave to open a connection.
    Slot(Arc<Slot>),
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    want: Want,
    tell: oneshot::Sender<Grant>,
}

/// One of the connections that may be open. Given back once, when the socket closes.
#[derive(Debug)]
pub(super) struct Slot {
    pool: Weak<Pool>,
    freed: AtomicBool,
}

impl Slot {
    /// Gives the slot back, unless it was given on.
    pub(super) fn free(&self) {
        if !self.freed.swap(true, Ordering::AcqRel)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.open.fetch_sub(1, Ordering::SeqCst);
            pool.serve();
        }
    }

    /// Gives the slot on to the next connection: the old one's socket is closing. `None` if it has closed already.
    fn hand_on(&self) -> Option<Arc<Self>> {
        let freed = self.freed.swap(true, Ordering::AcqRel);
        (!freed).then(|| Arc::new(Self { pool: Weak::clone(&self.pool), freed: AtomicBool::new(false) }))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free();
    }
}

impl Pool {
    pub(super) fn new(workers: usize, open_max: usize, queue_timeout: Duration) -> Self {
        Self {
            shards: (0..workers.max(1)).map(|_| Shard::default()).collect(),
            open: AtomicUsize::new(0),
            open_max,
            queue_timeout,
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            ids: AtomicU64::new(0),
            answers: Answers::new(),
        }
    }

    /// Open connections, those that are just being made included.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Names a connection.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Gets a connection, or leave to open one; `None` when there was none within `queue_timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue; what was granted meanwhile goes to the next in it.
    pub(super) async fn acquire(self: &Arc<Self>, want: Want) -> Option<Grant> {
        // Nobody overtakes those who wait.
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Some(grant) = self.grant(&want)
        {
            return Some(grant);
        }
        let (tell, granted) = oneshot::channel();
        let mut place = Place { pool: self, ticket: self.next_id(), granted };
        {
            let mut queue = lock(&self.queue);
            queue.push_back(Waiter { ticket: place.ticket, want, tell });
            self.waiting.store(queue.len(), Ordering::SeqCst);
        }
        // Something may have become free between the look and the queue.
        self.serve();
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.answers.give_one_up();
        }
        timeout(self.queue_timeout, &mut place.granted).await.ok()?.ok()
    }

    /// How the clients of its connections take their answers.
    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Takes back a connection whose exchange has ended cleanly.
    pub(super) fn put(self: &Arc<Self>, mut connection: Exclusive) {
        connection.rest(clock::now());
        lock(&self.shard(connection.home()).idle).push(connection);
        self.serve();
    }

    /// Lets others use a new shared connection.
    pub(super) fn share(self: &Arc<Self>, connection: Multiplexed) {
        lock(&self.shard(connection.home()).multiplexed).push(connection);
        self.serve();
    }

    /// Lets one task at a time make a shared connection for a worker.
    pub(super) async fn connecting(&self, worker: usize) -> tokio::sync::MutexGuard<'_, ()> {
        self.shard(worker).connecting.lock().await
    }

    /// A stream of a connection that the worker shares already.
    pub(super) fn stream(self: &Arc<Self>, want: &Want) -> Option<Stream> {
        self.stream_of(self.shard(want.worker), want, clock::now())
    }

    /// Drops a connection that has ended.
    pub(super) fn forget(&self, home: usize, id: u64) {
        let shard = self.shard(home);
        // Dropped after the lock.
        let _idle = take(&mut lock(&shard.idle), |connection| connection.id() == id);
        let _shared = take(&mut lock(&shard.multiplexed), |connection| connection.id() == id);
    }

    /// When to look again whether a connection has been idle for too long. `None`: it has been, and is no longer in the
    /// pool.
    pub(super) fn expire(&self, home: usize, id: u64) -> Option<Instant> {
        let now = clock::now();
        let shard = self.shard(home);
        {
            let mut idle = lock(&shard.idle);
            if let Some(at) = idle.iter().position(|connection| connection.id() == id) {
                let until = idle[at].idle_since() + IDLE_MAX;
                let expired = (until <= now).then(|| idle.remove(at));
                return expired.is_none().then_some(until);
            }
        }
        let mut multiplexed = lock(&shard.multiplexed);
        if let Some(at) = multiplexed.iter().position(|connection| connection.id() == id)
            && let Some(since) = multiplexed[at].idle_since()
        {
            let until = since + IDLE_MAX;
            let expired = (until <= now).then(|| multiplexed.remove(at));
            return expired.is_none().then_some(until);
        }
        // In use.
        Some(now + IDLE_MAX)
    }

    /// Gives what is free to those who wait, in their order. Costs one load when nobody does.
    pub(super) fn serve(self: &Arc<Self>) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        // Grants whose waiter is gone. Giving them back serves the queue anew, so it must not be locked then.
        let mut refused = Vec::new();
        {
            let mut queue = lock(&self.queue);
            while let Some(front) = queue.front() {
                let Some(grant) = self.grant(&front.want) else { break };
                if let Some(waiter) = queue.pop_front()
                    && let Err(grant) = waiter.tell.send(grant)
                {
                    refused.push(grant);
                }
            }
            self.waiting.store(queue.len(), Ordering::SeqCst);
        }
        for grant in refused {
            self.give_back(grant);
        }
    }

    fn give_back(self: &Arc<Self>, grant: Grant) {
        match grant {
            Grant::Idle(connection) => {
                lock(&self.shard(connection.home()).idle).push(connection);
                self.serve();
            }
            Grant::Stream(stream) => drop(stream),
            Grant::Slot(slot) => slot.free(),
        }
    }

    fn grant(self: &Arc<Self>, want: &Want) -> Option<Grant> {
        let now = clock::now();
        let own = self.shard(want.worker);
        self.reuse(own, want, now)
            .or_else(|| self.slot().map(Grant::Slot))
            .or_else(|| self.shards.iter().find_map(|shard| self.reuse(shard, want, now)))
            .or_else(|| self.shards.iter().find_map(|shard| shard.make_room(want, now)))
    }

    fn reuse(self: &Arc<Self>, shard: &Shard, want: &Want, now: Instant) -> Option<Grant> {
        if want.fresh {
            None
        } else if want.http2 {
            self.stream_of(shard, want, now).map(Grant::Stream)
        } else {
            shard.idle(want, now).map(Grant::Idle)
        }
    }

    fn stream_of(self: &Arc<Self>, shard: &Shard, want: &Want, now: Instant) -> Option<Stream> {
        let multiplexed = lock(&shard.multiplexed);
        multiplexed
            .iter()
            .filter(|connection| connection.endpoint() == want.endpoint)
            .find_map(|connection| connection.open(self, want.idle_max, now))
    }

    fn slot(self: &Arc<Self>) -> Option<Arc<Slot>> {
        let more = |open| (open < self.open_max).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Arc::new(Slot { pool: Arc::downgrade(self), freed: AtomicBool::new(false) }))
    }

    fn shard(&self, worker: usize) -> &Shard {
        &self.shards[worker % self.shards.len()]
    }
}

impl Shard {
    fn idle(&self, want: &Want, now: Instant) -> Option<Exclusive> {
        youngest(&mut lock(&self.idle), want, now)
    }

    /// Closes the connection that was idle for longest; its slot is free for another. One that fits and came in this
    /// very moment is given instead.
    fn make_room(&self, want: &Want, now: Instant) -> Option<Grant> {
        let mut idle = lock(&self.idle);
        if !want.fresh
            && !want.http2
            && let Some(fits) = youngest(&mut idle, want, now)
        {
            return Some(Grant::Idle(fits));
        }
        while !idle.is_empty() {
            if let Some(slot) = idle.remove(0).slot().hand_on() {
                return Some(Grant::Slot(slot));
            }
        }
        drop(idle);
        let mut multiplexed = lock(&self.multiplexed);
        let unused = take(&mut multiplexed, |connection| connection.idle_since().is_some())?;
        unused.slot().hand_on().map(Grant::Slot)
    }
}

/// The youngest idle connection that fits.
fn youngest(idle: &mut Vec<Exclusive>, want: &Want, now: Instant) -> Option<Exclusive> {
    loop {
        let at = idle.iter().rposition(|connection| connection.endpoint() == want.endpoint)?;
        if !idle[at].is_usable() {
            // It has ended; its driver has not come to say so yet.
            idle.remove(at);
            continue;
        }
        // Those below are older still.
        return (now.saturating_duration_since(idle[at].idle_since()) < want.idle_max).then(|| idle.remove(at));
    }
}

/// A place in the queue; dropping it leaves.
struct Place<'a> {
    pool: &'a Arc<Pool>,
    ticket: u64,
    granted: oneshot::Receiver<Grant>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.granted.close();
        if let Ok(grant) = self.granted.try_recv() {
            // Granted in the moment of leaving.
            self.pool.give_back(grant);
            return;
        }
        if self.pool.waiting.load(Ordering::SeqCst) > 0 {
            let mut queue = lock(&self.pool.queue);
            // Dropped after the lock.
            let _left = queue.iter().position(|waiter| waiter.ticket == self.ticket).and_then(|at| queue.remove(at));
            self.pool.waiting.store(queue.len(), Ordering::SeqCst);
        }
    }
}

/// No code that holds one of these locks can panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<T>(list: &mut Vec<T>, which: impl Fn(&T) -> bool) -> Option<T> {
    list.iter().position(which).map(|at| list.remove(at))
}
