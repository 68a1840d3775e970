//! The control thread: admin API, upkeep, reloads, and the drain.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{Doors, Exit, Source, reload, upkeep};
use crate::{
    admin::{self, Admin, Process, Readiness},
    clock,
    config::Config,
    proxy::Shared,
    store::Store,
    telemetry::metrics::{OperatorChange, Readings},
};

/// What the control thread looks after.
pub(super) struct Control<S> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) doors: Doors,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) admin: admin::Listener,
    pub(super) readiness: Arc<Readiness>,
    pub(super) source: Option<Source>,
    pub(super) signals: bool,
    pub(super) stop: CancellationToken,
}

/// What a process listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl<S: Store> Control<S> {
    /// Runs until the end; returns how many exchanges were left unfinished.
    pub(super) async fn run(self, ready: SyncSender<()>) -> usize {
        let Self { shared, doors, threads, admin, readiness, source, signals, stop } = self;
        let mut signals = match signals.then(Signals::new).transpose() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "signals cannot be listened to");
                None
            }
        };
        let reloads = Arc::new(tokio::sync::Notify::new());
        let tasks = [
            tokio::spawn(admin::serve(admin, Arc::new(operators(&shared, &doors, &readiness)))),
            tokio::spawn(upkeep::keep(Arc::clone(&shared))),
            tokio::spawn(reload::watch(Arc::clone(&shared), doors.clone(), source, Arc::clone(&reloads))),
        ];
        readiness.ready();
        // Whoever started this thread may have gone.
        _ = ready.send(());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                asked = asked(&mut signals) => match asked {
                    Asked::Stop => break,
                    Asked::Reload => reloads.notify_one(),
                },
            }
        }
        let left = tokio::select! {
            left = drain(&shared, &doors, &readiness, threads) => left,
            () = second(&mut signals) => {
                tracing::warn!("a second signal: ending at once");
                shared.log.flush();
                process::exit(Exit::Failure as i32);
            }
        };
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let Left { exchanges: left, connections } = left;
        if left > 0 {
            tracing::warn!(left, "drained: requests that were left are recorded as unknown, if the store took that");
        } else if connections > 0 {
            tracing::warn!(connections, "drained: connections that were left have been cut");
        } else {
            tracing::info!(left, "drained: everything was finished");
        }
        shared.log.flush();
        // A connection that is left carries an exchange that was counted, or a request that was only passed.
        left.max(connections)
    }
}

enum Asked {
    Stop,
    Reload,
}

async fn asked(signals: &mut Option<Signals>) -> Asked {
    let Some(signals) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = signals.terminate.recv() => Asked::Stop,
        _ = signals.interrupt.recv() => Asked::Stop,
        _ = signals.hangup.recv() => Asked::Reload,
    }
}

async fn second(signals: &mut Option<Signals>) {
    loop {
        if let Asked::Stop = asked(signals).await {
            return;
        }
    }
}

/// What operators are served from.
fn operators<S: Store>(shared: &Arc<Shared<S>>, doors: &Doors, readiness: &Arc<Readiness>) -> Admin<S> {
    Admin {
        store: Arc::clone(shared.desk.store()),
        process: Box::new(Served { shared: Arc::clone(shared), doors: doors.clone() }),
        readiness: Arc::clone(readiness),
        id_key: shared.id_key,
        token_file: shared.live.load().config().admin.token_file.clone(),
    }
}

/// What the process tells operators beside its records.
struct Served<S> {
    shared: Arc<Shared<S>>,
    doors: Doors,
}

impl<S: Store> Process for Served<S> {
    fn changed(&self, change: OperatorChange) {
        self.shared.metrics.changed_by_operator(change);
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(self.shared.live.load().config())
    }

    fn metrics(&self) -> String {
        let Shared { desk, live, metrics, .. } = &*self.shared;
        let counters = desk.counters();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        metrics.render(&Readings {
            figures: desk.store().figures(),
            in_flight: desk.in_flight().held(),
            waiters: desk.waiting(),
            settled_late: count(&counters.settled_late),
            run_anew: count(&counters.run_anew),
            claims_abandoned: [
                count(&counters.claims_abandoned_ok),
                count(&counters.claims_abandoned_refused),
                count(&counters.claims_abandoned_failed),
            ],
            downstream: self.doors.server.connections.open(),
            upstream: live.load().upstreams().connections(),
        })
    }
}

/// Stops accepting, lets what is under way finish, writes what is left as unknown.
async fn drain<S: Store>(
    shared: &Shared<S>,
    doors: &Doors,
    readiness: &Readiness,
    threads: Vec<JoinHandle<()>>,
) -> Left {
    let patience = shared.live.load().config().server.drain_timeout;
    let deadline = clock::now() + patience;
    tracing::info!(
        in_flight = shared.desk.in_flight().held(),
        "draining: no new connections, up to {} s for what is under way",
        patience.as_secs()
    );
    readiness.draining();
    doors.closing.cancel();
    shared.desk.drain();
    let connections = async {
        while doors.server.connections.open() > 0 {
            sleep(POLL).await;
        }
    };
    let exchanges = shared.desk.drained(deadline, connections).await;
    let connections = doors.server.connections.open();
    if connections > 0 && exchanges > 0 {
        // Exchanges that were cut tell their clients; give those answers a moment to leave.
        sleep(LAST_WORDS).await;
    }
    doors.ended.cancel();
    drop(threads);
    Left { exchanges, connections }
}

/// What a drain could not wait for.
struct Left {
    exchanges: usize,
    connections: usize,
}

/// Between two looks at the connections that are left.
const POLL: Duration = Duration::from_millis(5);
/// What cut exchanges have for telling their clients.
const LAST_WORDS: Duration = Duration::from_millis(100);
