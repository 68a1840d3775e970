//! Three masters with a replica each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Options, PATIENCE, Server, eventually, options::Common, sentinel::await_replicas, server::Role};

/// Six nodes, with a node time-out of 1.5 s: a killed master is replaced within about three seconds.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Server>,
    common: Arc<Common>,
}

impl Cluster {
    const MASTERS: usize = 3;

    /// Starts it, and waits until every node sees all slots served and every master has its replica.
    pub(crate) fn start(options: Options) -> Self {
        let common = Arc::new(Common::new(options));
        let nodes = Server::start_all(&common, std::iter::repeat_n(Role::ClusterNode, 2 * Self::MASTERS));
        let cluster = Self { nodes, common };
        cluster.create();
        cluster.await_whole();
        cluster
    }

    fn create(&self) {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        let mut words = vec!["--cluster", "create"];
        words.extend(addresses.iter().map(String::as_str));
        words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        self.nodes[0].cli_by_port(&words).unwrap_or_else(|said| panic!("the cluster was not made: {said}"));
    }

    /// Waits until every running node sees all slots served, and every master has a replica that follows.
    pub(crate) fn await_whole(&self) {
        self.await_slots();
        let running = self.nodes.iter().filter(|node| node.is_running());
        for master in running.filter(|node| node.is_master()) {
            await_replicas(master, 1);
        }
    }

    /// Waits until every running node sees all slots served.
    pub(crate) fn await_slots(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            eventually("the cluster serves every slot", || {
                let text = node.try_cli(&["CLUSTER", "INFO"])?;
                let has = |line: &str| text.lines().any(|have| have.trim() == line);
                let whole = has("cluster_state:ok") && has("cluster_slots_ok:16384") && has("cluster_known_nodes:6");
                if whole { Ok(()) } else { Err(text) }
            });
        }
    }

    /// The lines of `[store.redis]` that name it.
    pub(crate) fn toml(&self) -> String {
        let nodes: Vec<_> = self.urls().iter().map(|url| format!("\"{url}\"")).collect();
        format!("cluster = [{}]\n{}", nodes.join(", "), self.common.credentials_toml())
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }

    pub(crate) fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The running nodes that say they are masters.
    pub(crate) fn masters(&self) -> Vec<&Server> {
        self.nodes.iter().filter(|node| node.is_running() && node.is_master()).collect()
    }

    /// The running nodes that follow that master.
    pub(crate) fn replicas_of(&self, master: &Server) -> Vec<&Server> {
        let port = master.port().to_string();
        let running = self.nodes.iter().filter(|node| node.is_running() && node.port() != master.port());
        running.filter(|node| node.info("master_port").as_deref() == Some(&port)).collect()
    }

    /// Makes a replica of that master take its place, in agreement with it.
    pub(crate) fn failover(&self, master: &Server) {
        let replicas = self.replicas_of(master);
        let replica = replicas.first().expect("the master has a replica");
        let mut asked = None::<Instant>;
        eventually("the replica is the master", || {
            // Right after slots were moved, the other masters may refuse their votes: it is asked again.
            if asked.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                asked = Some(Instant::now());
                // It is an error where it has become the master meanwhile.
                let _ = replica.try_cli(&["CLUSTER", "FAILOVER"]);
            }
            if replica.is_master() && !master.is_master() { Ok(()) } else { Err(replica.log()) }
        });
        self.await_slots();
    }

    /// Moves that many slots from one master to another.
    pub(crate) fn reshard(&self, from: &Server, to: &Server, slots: usize) {
        let (source, target) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
        let (address, slots) = (from.address().to_string(), slots.to_string());
        let words = [
            "--cluster",
            "reshard",
            &address,
            "--cluster-from",
            &source,
            "--cluster-to",
            &target,
            "--cluster-slots",
            &slots,
            "--cluster-yes",
        ];
        // Right after another change, nodes may not agree yet, and redis-cli refuses to begin.
        let start = Instant::now();
        while let Err(said) = from.cli_by_port(&words) {
            assert!(start.elapsed() < PATIENCE, "slots were not moved: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Forgets everything.
    pub(crate) fn flush(&self) {
        for master in self.masters() {
            master.cli(&["FLUSHALL", "SYNC"]);
        }
    }
}
