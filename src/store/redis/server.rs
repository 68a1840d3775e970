//! One Redis server: its connections, what it says of itself, and whether it answers.
//!
//! Each thread has a connection of its own, whose driver runs on that thread; all of a thread's commands share it. A
//! connection that was silent to several commands in a row is thrown away (contract: S-8): a hung one would otherwise
//! never be left. Connections are made by tasks, never by the command that needs one, whose patience may be shorter.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::{Cmd, ConnectionInfo, InfoDict, Pipeline, Value, aio::MultiplexedConnection, cmd};
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout_at,
};

use super::{
    dialer::{CONNECT_TIMEOUT, Dialer},
    facts::Facts,
    marks::Marks,
    script::{ALWAYS, CLAIM},
    trouble::{Remedy, Trouble, told},
};
use crate::clock::{self, Instant};

/// Connections that threads share, at most.
const LINKS_MOST: usize = 16;
/// Connections that wait for replicas, at most: such a wait holds up whatever else is sent on them.
const WAITING_MOST: usize = 32;
/// So many commands in a row without an answer, and the connection is thrown away.
const SILENT_MOST: u32 = 3;
/// So many health checks in a row that failed, and all connections are thrown away.
const PINGS_MISSED_MOST: u32 = 2;
/// After a connection could not be made.
const PAUSE: Duration = Duration::from_millis(200);

/// One server.
pub(super) struct Server {
    pub(super) place: ConnectionInfo,
    dialer: Dialer,
    links: Vec<Slot>,
    /// Idle connections for steps that wait for replicas.
    waiting: Mutex<Vec<MultiplexedConnection>>,
    waiters: Semaphore,
    facts: ArcSwapOption<Facts>,
    /// Why no claim may be made here; `None` where one may.
    unfit: ArcSwapOption<String>,
    answers: AtomicBool,
    /// Health checks in a row that failed.
    pings_missed: AtomicU32,
    terms: Arc<Terms>,
    /// The key of this server's mark; `None` while it serves nothing.
    mark: ArcSwapOption<String>,
}

/// What all servers of a store are held to.
#[derive(Debug)]
pub(super) struct Terms {
    /// A full server may forget live records.
    pub(super) allow_eviction: bool,
    /// Whether only a master is of use: in a cluster the slots tell.
    pub(super) must_be_master: bool,
    /// How servers are known again.
    pub(super) marks: Marks,
}

/// A thread's connection.
#[derive(Default)]
struct Slot {
    link: ArcSwapOption<Link>,
    dialing: AtomicBool,
    dialed: Notify,
    failed: ArcSwap<Option<Failed>>,
}

/// Somebody makes a slot's connection. However that ends, a runtime's end included, the next one may try.
struct Dialing<'a>(&'a Slot);

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.dialing.store(false, Ordering::Release);
        self.0.dialed.notify_waiters();
    }
}

struct Failed {
    at: Instant,
    why: Trouble,
}

struct Link {
    connection: MultiplexedConnection,
    /// Commands in a row that got no answer in time.
    silent: AtomicU32,
}

impl Server {
    pub(super) fn new(place: ConnectionInfo, dialer: Dialer, terms: Arc<Terms>) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from) + 1;
        Self {
            place,
            dialer,
            links: (0..threads.min(LINKS_MOST)).map(|_| Slot::default()).collect(),
            waiting: Mutex::default(),
            waiters: Semaphore::new(WAITING_MOST),
            facts: ArcSwapOption::empty(),
            unfit: ArcSwapOption::empty(),
            answers: AtomicBool::new(false),
            pings_missed: AtomicU32::new(0),
            terms,
            mark: ArcSwapOption::empty(),
        }
    }

    /// `HOST:PORT`, or the socket's path.
    pub(super) fn address(&self) -> String {
        self.place.addr().to_string()
    }

    /// What the server said of itself when it was last asked; `None` before.
    pub(super) fn facts(&self) -> Option<Arc<Facts>> {
        self.facts.load_full()
    }

    /// Whether the last command was answered.
    pub(super) fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether claims may be made here, as far as is known (contract: S-3, R-5).
    pub(super) fn is_fit(&self) -> bool {
        self.unfit.load().is_none()
    }

    /// Sends a command, and waits for its answer until `deadline`.
    pub(super) async fn ask(self: &Arc<Self>, command: &Cmd, deadline: Instant) -> Result<Value, Trouble> {
        let link = self.link(deadline).await?;
        let mut connection = link.connection.clone();
        let answer = timeout_at(deadline, connection.send_packed_command(command)).await;
        let answer = self.note(&link, answer)?;
        answer.extract_error().map_err(Trouble::of)
    }

    /// Sends several commands at once; each has its own answer, which may be an error.
    pub(super) async fn ask_all(
        self: &Arc<Self>,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Trouble> {
        let link = self.link(deadline).await?;
        let mut connection = link.connection.clone();
        let count = commands.len();
        let answers = timeout_at(deadline, connection.send_packed_commands(commands, 0, count)).await;
        self.note(&link, answers)
    }

    /// Sends several commands at once on a connection that nobody else uses meanwhile.
    pub(super) async fn ask_alone(
        self: &Arc<Self>,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Trouble> {
        let none_free = || Trouble::NotSent(format!("no connection to {} was free in time", self.address()));
        let _permit = timeout_at(deadline, self.waiters.acquire())
            .await
            .map_err(|_| none_free())?
            .expect("the semaphore is never closed");
        let idle = self.waiting.lock().expect("nothing panics under the lock").pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => match timeout_at(deadline, self.connect()).await {
                Ok(connected) => connected?,
                Err(_) => return Err(Trouble::NotSent(format!("{} took too long to connect to", self.address()))),
            },
        };
        let answers = timeout_at(deadline, connection.send_packed_commands(commands, 0, commands.len())).await;
        match answers {
            Ok(Ok(answers)) => {
                self.answers.store(true, Ordering::Relaxed);
                self.waiting.lock().expect("nothing panics under the lock").push(connection);
                Ok(answers)
            }
            // Who knows what else would be answered on this connection: it is not used again.
            Ok(Err(error)) => Err(Trouble::of(error)),
            Err(_) => Err(self.silence()),
        }
    }

    /// Names the key by which this server is known again.
    pub(super) fn set_mark(&self, key: String) {
        if self.mark.load().as_deref() != Some(&key) {
            self.mark.store(Some(Arc::new(key)));
        }
    }

    /// Whether claims may be made here (contract: S-3); there is a connection then.
    pub(super) async fn fit(self: &Arc<Self>, deadline: Instant) -> Result<(), Trouble> {
        self.link(deadline).await?;
        match self.unfit.load_full() {
            None => Ok(()),
            Some(why) => Err(Trouble::NotSent(format!("{}: {why}", self.address()))),
        }
    }

    /// Asks the server about itself.
    pub(super) async fn examine(self: &Arc<Self>, deadline: Instant) -> Result<(), Trouble> {
        let (questions, mark) = self.questions();
        let answers = self.ask_all(&questions, deadline).await?;
        self.learn(answers, mark.as_deref())
    }

    /// Asks whether the server is there, and still has its data.
    pub(super) async fn ping(self: &Arc<Self>, deadline: Instant) -> Result<(), Trouble> {
        let Some(mark) = self.mark.load_full() else { return Ok(()) };
        let answer = match self.ask(cmd("GET").arg(&*mark), deadline).await {
            // It is there, and tells where the mark is moving to.
            Err(trouble) if matches!(trouble.remedy(), Remedy::Ask(_) | Remedy::Moved | Remedy::Again) => return Ok(()),
            answer => answer?,
        };
        if answer == Value::Nil {
            // It came back empty, which the examination notes.
            return self.examine(deadline).await;
        }
        self.terms.marks.read(&mark, &answer);
        Ok(())
    }

    /// A health check failed; after a few in a row no connection is trusted any more (contract: S-8).
    pub(super) fn silent_to_ping(&self) {
        if self.pings_missed.fetch_add(1, Ordering::Relaxed) + 1 >= PINGS_MISSED_MOST {
            self.pings_missed.store(0, Ordering::Relaxed);
            self.hang_up();
        }
    }

    /// A health check was answered.
    pub(super) fn heard_ping(&self) {
        self.pings_missed.store(0, Ordering::Relaxed);
    }

    fn questions(&self) -> (Pipeline, Option<Arc<String>>) {
        let mut questions = redis::pipe();
        questions.cmd("INFO");
        let mark = self.mark.load_full();
        if let Some(mark) = &mark {
            self.terms.marks.ask(&mut questions, mark);
        }
        (questions, mark)
    }

    /// Reads the answers to [`Self::questions`].
    fn learn(&self, answers: Vec<Value>, mark: Option<&String>) -> Result<(), Trouble> {
        let mut answers = answers.into_iter();
        let info = answers.next().unwrap_or_default().extract_error();
        let info = info.and_then(|info| Ok(redis::from_redis_value::<InfoDict>(info)?));
        let info = info.map_err(|error| Trouble::NotSent(format!("{}: INFO: {}", self.address(), told(&error))))?;
        let facts = Facts::read(&info);
        let known = match (mark, answers.nth(1)) {
            (Some(mark), Some(answer)) => self.terms.marks.read(mark, &answer),
            (None, _) | (_, None) => true,
        };
        let foreign = || "another id key is in use there: give all replicas the same store.secret_file".to_owned();
        let unfit = facts.unfit(self.terms.allow_eviction).or_else(|| (!known).then(foreign));
        let before = self.unfit.load_full();
        if before.as_deref() != unfit.as_ref() {
            match &unfit {
                Some(why) => tracing::error!(server = %self.address(), "guarded requests are refused: {why}"),
                None => tracing::info!(server = %self.address(), "guarded requests are served again"),
            }
        }
        self.unfit.store(unfit.map(Arc::new));
        let master = facts.master;
        self.facts.store(Some(Arc::new(facts)));
        if self.terms.must_be_master && !master {
            // Its old connections would still read (contract: S-7).
            self.hang_up();
            return Err(Trouble::NotSent(format!("{} is a replica: it takes no writes", self.address())));
        }
        Ok(())
    }

    /// Throws the connections away: the next command makes new ones.
    pub(super) fn hang_up(&self) {
        self.links.iter().for_each(|slot| slot.link.store(None));
        self.waiting.lock().expect("nothing panics under the lock").clear();
        self.answers.store(false, Ordering::Relaxed);
    }

    /// Forgets all that was learnt.
    pub(super) fn forget(&self) {
        self.hang_up();
        self.facts.store(None);
        self.unfit.store(None);
    }

    fn silence(&self) -> Trouble {
        self.answers.store(false, Ordering::Relaxed);
        Trouble::Doubt(format!("{} did not answer in time", self.address()))
    }

    /// Reads how a command ended on this connection, and leaves the connection when it is of no use any more.
    fn note<T>(
        &self,
        link: &Arc<Link>,
        answer: Result<redis::RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, Trouble> {
        match answer {
            Ok(Ok(value)) => {
                link.silent.store(0, Ordering::Relaxed);
                self.answers.store(true, Ordering::Relaxed);
                Ok(value)
            }
            Ok(Err(error)) => {
                let trouble = Trouble::of(error);
                if matches!(trouble, Trouble::Doubt(_)) {
                    self.leave(link, "broke");
                } else {
                    link.silent.store(0, Ordering::Relaxed);
                }
                Err(trouble)
            }
            Err(_) => {
                if link.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_MOST {
                    self.leave(link, "hangs");
                }
                Err(self.silence())
            }
        }
    }

    fn leave(&self, link: &Arc<Link>, why: &str) {
        self.answers.store(false, Ordering::Relaxed);
        for slot in &self.links {
            let held = slot.link.load();
            if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, link)) {
                slot.link.compare_and_swap(&*held, None);
                tracing::warn!(server = %self.address(), "a connection to Redis {why}; a new one is made");
            }
        }
        self.waiting.lock().expect("nothing panics under the lock").clear();
    }

    /// This thread's connection, made anew where there is none.
    async fn link(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Link>, Trouble> {
        let slot = &self.links[thread_ordinal() % self.links.len()];
        loop {
            let mut dialed = std::pin::pin!(slot.dialed.notified());
            dialed.as_mut().enable();
            if let Some(link) = slot.link.load_full() {
                return Ok(link);
            }
            if let Some(failed) = &**slot.failed.load()
                && clock::now() < failed.at + PAUSE
            {
                return Err(failed.why.clone());
            }
            if !slot.dialing.swap(true, Ordering::AcqRel) {
                tokio::spawn(Arc::clone(self).fill(thread_ordinal() % self.links.len()));
            }
            if timeout_at(deadline, dialed).await.is_err() {
                return Err(Trouble::NotSent(format!("{} took too long to connect to", self.address())));
            }
        }
    }

    async fn fill(self: Arc<Self>, index: usize) {
        let slot = &self.links[index];
        let _dialing = Dialing(slot);
        match self.connect().await {
            Ok(connection) => {
                slot.failed.store(Arc::new(None));
                slot.link.store(Some(Arc::new(Link { connection, silent: AtomicU32::new(0) })));
            }
            Err(why) => {
                self.answers.store(false, Ordering::Relaxed);
                slot.failed.store(Arc::new(Some(Failed { at: clock::now(), why })));
            }
        }
    }

    /// A new connection to a server that has said what it is (contract: S-3). Nothing that fails here was a step.
    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let not_sent = |why: String| Trouble::NotSent(format!("{}: {why}", self.address()));
        let deadline = clock::now() + CONNECT_TIMEOUT;
        let too_long = || not_sent("took too long to connect to".to_owned());
        let connected = timeout_at(deadline, self.dialer.dial(&self.place)).await.map_err(|_| too_long())?;
        let mut connection = connected.map_err(|error| not_sent(told(&error)))?;
        let (mut questions, mark) = self.questions();
        // What a server does not know it is told again by the step itself, which costs a trip, and a wait for replicas.
        for script in [&CLAIM, &ALWAYS] {
            questions.add_command(script.load());
        }
        let count = questions.len();
        let answers = timeout_at(deadline, connection.send_packed_commands(&questions, 0, count)).await;
        let answers = answers.map_err(|_| too_long())?.map_err(|error| not_sent(told(&error)))?;
        self.learn(answers, mark.as_deref())?;
        Ok(connection)
    }
}

/// Numbers threads as they come.
fn thread_ordinal() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static ORDINAL: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    ORDINAL.with(|ordinal| *ordinal)
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The place may hold a password.
        f.debug_struct("Server").field("address", &self.address()).finish_non_exhaustive()
    }
}
