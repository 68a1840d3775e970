//! A master, two replicas, and three sentinels that watch them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Options, Server, eventually, options::Common, server::Role};

/// Three servers and three sentinels, with short patience: a killed master is replaced within about three
/// seconds. Shorter, and a busy machine has a replica promoted that is still being filled.
#[derive(Debug)]
pub(crate) struct Sentinel {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    common: Arc<Common>,
}

impl Sentinel {
    /// The name of the master among the sentinels.
    pub(crate) const MASTER: &'static str = "primary";
    const QUORUM: usize = 2;

    /// Starts them, and waits until the replicas follow and every sentinel knows all the others.
    pub(crate) fn start(options: Options) -> Self {
        let common = Arc::new(Common::new(options));
        let master = Server::start(&common, Role::Data { replica_of: None });
        let role = Role::Data { replica_of: Some(master.port()) };
        let replicas = Server::start_all(&common, [role.clone(), role]);
        let servers: Vec<_> = std::iter::once(master).chain(replicas).collect();
        await_replicas(&servers[0], 2);
        let role = Role::Sentinel { name: Self::MASTER.to_owned(), master: servers[0].port(), quorum: Self::QUORUM };
        let sentinels = Server::start_all(&common, [role.clone(), role.clone(), role]);
        let set = Self { servers, sentinels, common };
        set.hurry();
        set.await_sentinels();
        set
    }

    /// Sentinels look around every few seconds, which a test has no time for.
    fn hurry(&self) {
        for sentinel in &self.sentinels {
            sentinel.cli(&[
                "SENTINEL",
                "DEBUG",
                "INFO-PERIOD",
                "200",
                "PUBLISH-PERIOD",
                "200",
                "PING-PERIOD",
                "200",
                "ASK-PERIOD",
                "200",
            ]);
        }
    }

    fn await_sentinels(&self) {
        for sentinel in &self.sentinels {
            eventually("every sentinel knows the others and the replicas", || {
                let text = sentinel.try_cli(&["SENTINEL", "MASTER", Self::MASTER])?;
                let words: Vec<_> = text.lines().collect();
                let field = |name| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
                match (field("num-slaves"), field("num-other-sentinels"), field("flags")) {
                    (Some("2"), Some("2"), Some("master")) => Ok(()),
                    (_, _, _) => Err(words.join(" ")),
                }
            });
        }
    }

    /// The lines of `[store.redis]` that name it.
    pub(crate) fn toml(&self) -> String {
        let nodes: Vec<_> = self.urls().iter().map(|url| format!("\"{url}\"")).collect();
        let credentials = self.common.credentials_toml();
        format!("sentinel = {{ master = \"{}\", nodes = [{}] }}\n{credentials}", Self::MASTER, nodes.join(", "))
    }

    /// The sentinels' URLs.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Server::url).collect()
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }

    /// The three servers that hold data.
    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(crate) fn sentinels(&self) -> &[Server] {
        &self.sentinels
    }

    /// The master as the first sentinel that answers has it.
    pub(crate) fn master(&self) -> &Server {
        let port = self.master_port().expect("a sentinel answers");
        self.servers.iter().find(|server| server.port() == port).expect("the master is one of ours")
    }

    /// The servers that follow.
    pub(crate) fn replicas(&self) -> Vec<&Server> {
        let master = self.master().port();
        self.servers.iter().filter(|server| server.port() != master).collect()
    }

    fn master_port(&self) -> Option<u16> {
        self.sentinels.iter().filter(|sentinel| sentinel.is_running()).find_map(|sentinel| port_by(sentinel).ok())
    }

    /// Orders a failover, and waits until all sentinels name another master, which answers as one. The old one is asked to
    /// follow it by the sentinels.
    pub(crate) fn failover(&self) {
        let old = self.master().port();
        let mut ordered: Option<Instant> = None;
        eventually("the sentinels agree on another master", || {
            // One that was begun may be given up.
            if ordered.is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
                self.sentinels[0].try_cli(&["SENTINEL", "FAILOVER", Self::MASTER])?;
                ordered = Some(Instant::now());
            }
            self.names_other_master(old)
        });
    }

    /// Waits until all sentinels name another master than the one at that port, and it answers as a master.
    pub(crate) fn await_other_master(&self, old: u16) {
        eventually("the sentinels agree on another master", || self.names_other_master(old));
    }

    fn names_other_master(&self, old: u16) -> Result<(), String> {
        let ports: Result<Vec<_>, _> =
            self.sentinels.iter().filter(|sentinel| sentinel.is_running()).map(port_by).collect();
        let ports = ports?;
        if ports.iter().any(|port| *port == old || *port != ports[0]) {
            return Err(format!("{ports:?}, was {old}"));
        }
        let master = self.servers.iter().find(|server| server.port() == ports[0]);
        if master.is_some_and(Server::is_master) { Ok(()) } else { Err("the new master is none yet".into()) }
    }

    /// Waits until so many replicas follow the master.
    pub(crate) fn await_replicas(&self, count: usize) {
        await_replicas(self.master(), count);
    }

    /// Forgets everything.
    pub(crate) fn flush(&self) {
        self.master().cli(&["FLUSHALL", "SYNC"]);
    }
}

fn port_by(sentinel: &Server) -> Result<u16, String> {
    let answer = sentinel.try_cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Sentinel::MASTER])?;
    answer.lines().nth(1).and_then(|port| port.parse().ok()).ok_or(answer)
}

/// Waits until so many replicas follow that server and have all it had.
pub(super) fn await_replicas(master: &Server, count: usize) {
    eventually("the replicas follow", || {
        let text = master.try_cli(&["INFO", "replication"])?;
        let online = text.lines().filter(|line| line.starts_with("slave") && line.contains("state=online")).count();
        if online >= count { Ok(()) } else { Err(text) }
    });
}
