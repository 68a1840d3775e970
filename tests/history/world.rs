//! A round's world: the store, the processes before it, the upstream behind them.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    fault::Kind,
    history::Trouble,
    log::Log,
    process::Process,
    relay::Relay,
    servers::{Cluster, Options, Sentinel, Single},
    upstream::Upstream,
};

/// Where the records are.
#[derive(Debug)]
pub(crate) enum Deployment {
    /// In the only process.
    Memory,
    Single(Single),
    /// A server that is reached through a relay.
    Relayed(Single, Relay),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

impl Deployment {
    pub(crate) async fn start(kind: Kind) -> Self {
        let options = Options::new;
        match kind {
            Kind::Alone => Self::Memory,
            Kind::Quiet
            | Kind::ProcessKilled
            | Kind::ProcessFrozen
            | Kind::ProcessesReplaced
            | Kind::RedisFrozen
            | Kind::RedisFull
            | Kind::RedisFlushed
            | Kind::ScriptsFlushed => Self::Single(Single::start(options())),
            Kind::RedisKilled => Self::Single(Single::start(options().append_only("always"))),
            Kind::RedisKilledEverysec => Self::Single(Single::start(options().append_only("everysec"))),
            Kind::NetworkCuts => {
                let redis = Single::start(options());
                let relay = Relay::before(redis.address()).await;
                Self::Relayed(redis, relay)
            }
            Kind::MasterKilled
            | Kind::MasterKilledLagging
            | Kind::MasterFrozen
            | Kind::FailoverUnacknowledged
            | Kind::FailoverUnacknowledgedLagging => Self::Sentinel(Sentinel::start(options())),
            Kind::ClusterMasterKilled | Kind::ClusterResharded => Self::Cluster(Cluster::start(options())),
        }
    }

    /// The tables `[store]` and `[store.redis]`.
    fn toml(&self, kind: Kind) -> String {
        let redis = match self {
            Self::Memory => return "[store]\nlease = \"2s\"\n".to_owned(),
            Self::Single(redis) => redis.toml(),
            Self::Relayed(redis, relay) => redis.toml_by(&format!("redis://{}", relay.address())),
            Self::Sentinel(set) => set.toml(),
            Self::Cluster(cluster) => cluster.toml(),
        };
        let (lease, replicas) = (kind.lease().as_millis(), kind.replicas());
        format!(
            "[store]\nkind = \"redis\"\nlease = \"{lease}ms\"\nsecret_file = \"secret\"\n\
             [store.redis]\nreplicas = {replicas}\n{redis}"
        )
    }
}

/// Everything of a round.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) store: Deployment,
    pub(crate) log: Arc<Log>,
    pub(crate) upstream: Upstream,
    directory: TempDir,
    processes: Vec<Mutex<Option<Process>>>,
    addresses: RwLock<Vec<SocketAddr>>,
    /// What processes that have ended had said.
    said: Mutex<Vec<String>>,
}

impl World {
    pub(crate) async fn start(kind: Kind, seed: u64) -> Self {
        // A store that is back is used within five seconds, and what waited for it is written then.
        let log = Arc::new(Log::new(kind.lease() + Duration::from_secs(6)));
        let upstream = Upstream::start(seed, log.clone()).await;
        let store = Deployment::start(kind).await;
        let directory = tempfile::Builder::new().prefix("oncegate-").tempdir().unwrap();
        let address = upstream.address();
        let toml = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_timeout = \"5s\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = false\n{}\
             [upstreams.main]\nurl = \"http://{address}\"\n\
             [defaults]\nscope = [\"header:authorization\"]\nresponse_timeout = \"4s\"\noutcome_timeout = \"15s\"\n\
             retention = \"1h\"\nunknown_retention = \"1h\"\n\
             [[routes]]\nname = \"charges\"\npath = \"/charges\"\n\
             [[routes]]\nname = \"refunds\"\npath = \"/refunds\"\non_in_flight = \"reject\"\n",
            store.toml(kind)
        );
        std::fs::write(directory.path().join("oncegate.toml"), toml).unwrap();
        std::fs::write(directory.path().join("secret"), "of-these-tests-0123456789abcdef0123456789abcdef\n").unwrap();
        let file = directory.path().join("oncegate.toml");
        let processes: Vec<_> = (0..kind.processes()).map(|_| Process::start(&file)).collect();
        let addresses = RwLock::new(processes.iter().map(Process::address).collect());
        let processes = processes.into_iter().map(|process| Mutex::new(Some(process))).collect();
        Self { kind, store, log, upstream, directory, processes, addresses, said: Mutex::default() }
    }

    pub(crate) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Where a process listens, or listened last.
    pub(crate) fn address(&self, process: usize) -> SocketAddr {
        self.addresses.read().unwrap()[process]
    }

    pub(crate) fn admin(&self, process: usize) -> SocketAddr {
        self.processes[process].lock().unwrap().as_ref().expect("it runs").admin()
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("oncegate.toml")
    }

    /// Everything that the processes have said, the ended ones too.
    pub(crate) fn said(&self) -> Vec<String> {
        let mut said = self.said.lock().unwrap().clone();
        for (number, process) in self.processes.iter().enumerate() {
            let lines = process.lock().unwrap().as_ref().map(Process::said).unwrap_or_default();
            said.extend(lines.iter().map(|line| format!("{number}: {line}")));
        }
        said
    }

    // === what is done to processes ===

    /// Kills a process, and starts it again a while later.
    pub(crate) fn kill(&self, process: usize, pause: Duration) {
        self.replace(process, pause, |old| self.log.during(Trouble::Killed(process), || old.kill()));
    }

    /// Ends a process as a deployment does, and starts another in its place.
    pub(crate) fn terminate(&self, process: usize, pause: Duration) {
        self.replace(process, pause, Process::terminate);
    }

    fn replace(&self, process: usize, pause: Duration, end: impl FnOnce(Process) -> Vec<String>) {
        self.log.during(Trouble::Down(process), || {
            let old = self.processes[process].lock().unwrap().take().expect("it runs");
            let lines = end(old);
            self.said.lock().unwrap().extend(lines.iter().map(|line| format!("{process}, before: {line}")));
            std::thread::sleep(pause);
            let fresh = Process::start(&self.file());
            self.addresses.write().unwrap()[process] = fresh.address();
            *self.processes[process].lock().unwrap() = Some(fresh);
        });
    }

    /// Freezes a process for that time.
    pub(crate) fn freeze(&self, process: usize, time: Duration) {
        self.log.during(Trouble::Frozen(process), || {
            let of_it = || self.processes[process].lock().unwrap();
            of_it().as_ref().expect("it runs").freeze();
            std::thread::sleep(time);
            of_it().as_ref().expect("it runs").thaw();
        });
    }
}
