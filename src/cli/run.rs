//! `oncegate run`: puts the process together, and takes it apart again.
//!
//! One thread for each core, each with a current-thread runtime of its own, accepts from the same socket and answers
//! (what is measured to cost least). A control thread serves the admin API, looks after the store, reloads the
//! configuration and drains. Nothing is shared between them but [`Shared`], the sockets and two tokens.

mod control;
mod reload;
mod upkeep;

use std::{
    io,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use self::control::Control;
use super::{Exit, Failure, RunArgs, say};
use crate::{
    admin::{self, Readiness},
    config::{
        self, Loaded, Overrides, secrets,
        settled::{Address, Store, StoreKind},
    },
    desk::{self, Budget, Desk, Gauge},
    proxy::{Live, Proxy, Shared},
    rule::identity::IdKey,
    server::{self, Connections, Limits, Listener},
    store::{
        self,
        measured::Measured,
        memory::{MemoryOptions, MemoryStore},
        redis::{CENSUS, RedisOptions, RedisStore},
    },
    telemetry::{causes, log::Log, metrics::Metrics},
    upstream::Upstreams,
};

/// Requests that are observed at a time; more are passed unobserved, and counted.
const OBSERVED_MOST: usize = 1024;

/// What a process is started with.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub loaded: Loaded,
    /// Where it came from, for reloads; `None` without a file.
    pub source: Option<Source>,
    /// Whether signals are acted upon; a proxy within another process leaves them alone.
    pub signals: bool,
}

/// Where a configuration came from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The flags that beat it.
    pub overrides: Overrides,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Where clients connect.
    pub data: Address,
    /// Where operators do.
    pub admin: Address,
    stop: CancellationToken,
    control: JoinHandle<usize>,
}

impl Running {
    /// Begins the drain, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the end; returns how many exchanges were left unfinished.
    #[must_use]
    pub fn wait(self) -> usize {
        // A control thread that panicked finished nothing.
        self.control.join().unwrap_or(usize::MAX)
    }
}

/// `oncegate run`: runs until it is told to stop.
#[must_use]
pub fn run(args: RunArgs) -> ExitCode {
    match load(args).and_then(start) {
        Ok(running) => match running.wait() {
            0 => Exit::Ok.into(),
            _ => Exit::Failure.into(),
        },
        Err(failure) => failure.report(),
    }
}

/// The value of an environment variable, for `${NAME}`.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn load(args: RunArgs) -> Result<Start, Failure> {
    let RunArgs { config, upstream, listen, admin } = args;
    let overrides = Overrides { upstream, listen, admin };
    match config.path() {
        Some(path) => {
            let loaded = config::load(&path, &overrides, &environment).map_err(|errors| bad(&errors))?;
            Ok(Start { loaded, source: Some(Source { path, overrides }), signals: true })
        }
        None if overrides.upstream.is_some() => {
            let loaded = config::for_upstream(&overrides).map_err(|errors| bad(&errors))?;
            Ok(Start { loaded, source: None, signals: true })
        }
        None => Err(Failure::new(
            Exit::Usage,
            "there is nothing to put Oncegate in front of",
            "neither a configuration nor an upstream is named",
            "say `oncegate run --upstream http://127.0.0.1:9000`, or `oncegate run -c FILE`",
        )),
    }
}

/// Shows what is wrong. Where flags alone are to blame, it is the command line that makes no sense.
fn bad(errors: &config::Errors) -> Failure {
    let mut flags: Vec<_> = errors.iter().filter_map(config::Diagnostic::flag).collect();
    if flags.len() < errors.iter().count() {
        say(format_args!("{}\n", errors.render(true)));
        let remedy = "mend it, and try it with `oncegate check FILE`";
        return Failure::new(Exit::Config, "the configuration is bad", "", remedy);
    }
    errors.iter().for_each(|error| say(format_args!("{}\n", error.render(true))));
    flags.dedup();
    let flags = flags.join(" and ");
    Failure::new(Exit::Usage, format!("{flags} cannot be used"), "", "mend what the command line says")
}

/// Binds, starts all threads, and returns.
///
/// # Errors
///
/// What could not be bound, read or made; nothing is left running then.
pub fn start(start: Start) -> Result<Running, Failure> {
    let config = &start.loaded.config;
    let Store { kind, allow_eviction, secret_file, .. } = &config.store;
    let secrets = secret_file.as_ref().map(|path| secrets::read(path)).transpose();
    let secrets = secrets.map_err(|error| cannot("the secret file cannot be used", error))?;
    match kind {
        StoreKind::Memory { max_bytes } => {
            let options = MemoryOptions { max_bytes: *max_bytes, allow_eviction: *allow_eviction };
            let id_key = match &secrets {
                Some(secrets) => IdKey::from_secret(secrets.id_key()),
                None => drawn()?,
            };
            let store = Opened { store: MemoryStore::new(options), name: "memory", settle_backlog: u64::MAX };
            assemble(start, store, id_key)
        }
        StoreKind::Redis(redis) => {
            // Replicas must come to the same ids: what is drawn here would be this process's alone.
            let id_key = secrets.as_ref().map_or_else(IdKey::fixed, |secrets| IdKey::from_secret(secrets.id_key()));
            let options = RedisOptions {
                config: redis,
                allow_eviction: *allow_eviction,
                secrets: secrets.as_ref(),
                id_key: &id_key,
                census: CENSUS,
            };
            let store = RedisStore::new(&options).map_err(|error| cannot("the Redis store cannot be used", error))?;
            let runtime = runtime().map_err(|error| cannot("a thread cannot be started", error))?;
            runtime.block_on(store.first_look(FIRST_LOOK)).map_err(|error| {
                let remedy = "use the same secret file everywhere, or another store.redis.prefix";
                Failure::new(Exit::Unavailable, "the store is another Oncegate's", error.to_string(), remedy)
            })?;
            let opened = Opened { store, name: "redis", settle_backlog: redis.settle_backlog };
            assemble(start, opened, id_key)
        }
    }
}

/// How long the start waits for a store that is away; then it goes on without (S-8).
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// A store, and what goes with its kind.
struct Opened<S> {
    store: S,
    /// The `store` label.
    name: &'static str,
    /// Bytes of answers that may wait for it.
    settle_backlog: u64,
}

/// A key of record ids for this process alone.
fn drawn() -> Result<IdKey, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| cannot("no random secret could be drawn", error))?;
    Ok(IdKey(bytes))
}

fn cannot(what: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Config, what, why.to_string(), "")
}

fn assemble<S: store::Store>(start: Start, opened: Opened<S>, id_key: IdKey) -> Result<Running, Failure> {
    let Opened { store, name, settle_backlog } = opened;
    let Start { loaded: Loaded { config, warnings }, source, signals } = start;
    let config = Arc::new(config);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    raise_open_files();

    let listener =
        Listener::bind(&config.server.listen).map_err(|error| unbound("clients", &config.server.listen, &error))?;
    let admin_listener = admin::Listener::bind(&config.admin.listen)
        .map_err(|error| unbound("operators", &config.admin.listen, &error))?;
    let upstreams = Upstreams::new(&config.upstreams, workers)
        .map_err(|error| cannot("an upstream cannot be used", causes(&error)))?;

    let tls = config.server.tls.as_ref().map(server::Tls::load).transpose();
    let tls = tls.map_err(|error| cannot("clients cannot be served by TLS", causes(&error)))?.map(Arc::new);

    let log = Log::start(&config.log).map_err(|error| cannot("the log cannot be written", error))?;
    warnings.iter().for_each(|warning| tracing::warn!("{}", warning.summary()));
    let metrics = Arc::new(Metrics::new());
    let store = Measured::new(Arc::new(store), metrics.store(name));
    let limits = desk::Limits { lease: config.store.lease, max_in_flight: config.server.max_in_flight, settle_backlog };
    let shared = Arc::new(Shared {
        desk: Arc::new(Desk::new(Arc::new(store), limits)),
        live: ArcSwap::from_pointee(Live::new(Arc::clone(&config), upstreams, &metrics)),
        id_key,
        metrics,
        log,
        buffered: Arc::new(Budget::new(config.server.max_buffered)),
        answers: Arc::new(Budget::new(config.server.max_buffered)),
        observing: Arc::new(Gauge::new(OBSERVED_MOST)),
    });
    let doors = Doors {
        server: server::Shared {
            limits: Arc::new(ArcSwap::from_pointee(Limits::from(&config.server))),
            tls,
            connections: Arc::new(Connections::default()),
        },
        closing: CancellationToken::new(),
        ended: CancellationToken::new(),
    };
    let threads = (0..workers)
        .map(|worker| serve_on_thread(worker, &listener, Arc::clone(&shared), &doors))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| cannot("a thread cannot be started", error))?;
    let data = listener.local().map_err(|error| unbound("clients", &config.server.listen, &error))?;
    let admin = admin_listener.local();
    tracing::info!("listening on {data}");
    tracing::info!("admin listening on {admin}");
    drop(listener);

    let stop = CancellationToken::new();
    let control = Control {
        shared,
        doors,
        threads,
        admin: admin_listener,
        readiness: Arc::new(Readiness::default()),
        source,
        signals,
        stop: stop.clone(),
    };
    let (ready, started) = mpsc::sync_channel(1);
    let control = thread::Builder::new()
        .name("control".into())
        .spawn(move || runtime().map_or(usize::MAX, |runtime| runtime.block_on(control.run(ready))))
        .map_err(|error| cannot("a thread cannot be started", error))?;
    started.recv().map_err(|error| cannot("the control thread did not start", error))?;
    Ok(Running { data, admin, stop, control })
}

/// What the worker threads' servers share.
#[derive(Debug, Clone)]
struct Doors {
    server: server::Shared,
    /// Stop accepting; idle connections close.
    closing: CancellationToken,
    /// The drain is over. Until then the threads stay: exchanges outlive their clients' connections.
    ended: CancellationToken,
}

fn serve_on_thread<S: store::Store>(
    worker: usize,
    listener: &Listener,
    shared: Arc<Shared<S>>,
    doors: &Doors,
) -> io::Result<JoinHandle<()>> {
    let (listener, doors) = (listener.try_clone()?, doors.clone());
    let runtime = runtime()?;
    thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
        let Doors { server, closing, ended } = doors;
        runtime.block_on(async move {
            if let Err(error) = server::serve(listener, Proxy::new(shared, worker), server, closing).await {
                tracing::error!(%error, "a worker cannot accept connections");
            }
            ended.cancelled().await;
        });
    })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn unbound(whom: &str, address: &Address, error: &io::Error) -> Failure {
    let remedy = if error.kind() == io::ErrorKind::AddrInUse {
        "stop what listens there, or choose another address"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "choose a port above 1023, or a path that this user may write to"
    } else {
        "choose an address of this machine"
    };
    Failure::new(Exit::Unavailable, format!("cannot listen on {address} for {whom}"), error.to_string(), remedy)
}

/// A proxy needs two descriptors a request; the soft limit is often far below the hard one.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // What cannot be raised is lived with: accepting pauses when descriptors run out.
        _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
