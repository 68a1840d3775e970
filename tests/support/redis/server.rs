//! One process of `redis-server`, as a server that holds data or as a sentinel.

use std::{
    fs::File,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{PATIENCE, eventually, options::Common};

/// What a process is.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// Holds data. The port it follows, where it is to be a replica.
    Data { replica_of: Option<u16> },
    /// Holds data as a node of a cluster.
    ClusterNode,
    /// Watches the master of that name at that port.
    Sentinel { name: String, master: u16, quorum: usize },
}

/// A running (or killed) `redis-server`.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    common: Arc<Common>,
    directory: TempDir,
    child: Mutex<Option<Child>>,
    role: Role,
}

impl Server {
    /// Starts one and waits until it answers.
    pub(crate) fn start(common: &Arc<Common>, role: Role) -> Self {
        let server = Self::launch(common, role);
        server.wait_ready();
        server
    }

    /// Starts several and waits until all of them answer.
    pub(crate) fn start_all(common: &Arc<Common>, roles: impl IntoIterator<Item = Role>) -> Vec<Self> {
        let servers: Vec<_> = roles.into_iter().map(|role| Self::launch(common, role)).collect();
        servers.iter().for_each(Self::wait_ready);
        servers
    }

    fn launch(common: &Arc<Common>, role: Role) -> Self {
        // Another process may take a port between our look and the server's: it is then tried at the next.
        for _ in 0..20 {
            let directory = tempfile::Builder::new().prefix("redis-").tempdir().unwrap();
            let port = free_port();
            let server = Self { port, common: common.clone(), directory, child: Mutex::new(None), role: role.clone() };
            server.write_conf();
            server.spawn();
            if server.has_bound() {
                return server;
            }
        }
        panic!("no port for redis-server to be had");
    }

    fn write_conf(&self) {
        let directory = self.directory.path().display();
        let mut conf = format!(
            "bind 127.0.0.1\ndir {directory}\nlogfile {directory}/redis.log\nunixsocket {directory}/redis.sock\n\
             daemonize no\nsave \"\"\nshutdown-timeout 0\n"
        );
        conf.push_str(&self.common.conf(self.port));
        match &self.role {
            Role::Data { replica_of } => {
                conf.push_str(DATA_CONF);
                if let Some(master) = replica_of {
                    conf.push_str(&format!("replicaof 127.0.0.1 {master}\n"));
                }
                conf.push_str(&self.common.data_conf());
            }
            Role::ClusterNode => {
                let tls = if self.common.tls_ca().is_some() { "tls-cluster yes\n" } else { "" };
                let bus = free_port();
                conf.push_str(DATA_CONF);
                conf.push_str(&format!(
                    "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-port {bus}\n\
                     cluster-node-timeout 1500\n{tls}"
                ));
                conf.push_str(&self.common.data_conf());
            }
            Role::Sentinel { name, master, quorum } => {
                conf.push_str(&format!(
                    "sentinel monitor {name} 127.0.0.1 {master} {quorum}\n\
                     sentinel down-after-milliseconds {name} 1500\nsentinel failover-timeout {name} 3000\n\
                     sentinel parallel-syncs {name} 2\n"
                ));
                conf.push_str(&self.common.sentinel_conf(name));
            }
        }
        std::fs::write(self.directory.path().join("redis.conf"), conf).unwrap();
    }

    fn spawn(&self) {
        let mut command = Command::new("redis-server");
        command.arg("redis.conf").current_dir(self.directory.path());
        if matches!(self.role, Role::Sentinel { .. }) {
            command.arg("--sentinel");
        }
        let silent = || Stdio::from(File::create("/dev/null").unwrap());
        let child = command.stdin(Stdio::null()).stdout(silent()).stderr(silent()).spawn();
        *self.child.lock().unwrap() = Some(child.expect("redis-server is installed"));
    }

    /// Whether the process got its port. Its own socket file appears after that, and answers only then.
    fn has_bound(&self) -> bool {
        let start = Instant::now();
        while !self.socket().exists() {
            if self.child.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                assert!(self.log().contains("Address already in use"), "redis-server ended: {}", self.log());
                return false;
            }
            assert!(start.elapsed() < PATIENCE, "redis-server does not come up: {}", self.log());
            std::thread::sleep(Duration::from_millis(3));
        }
        true
    }

    /// Waits until commands are answered: the data are loaded.
    pub(crate) fn wait_ready(&self) {
        eventually("redis-server answers", || match self.try_cli(&["PING"]) {
            Ok(answer) if answer == "PONG" => Ok(()),
            Ok(other) | Err(other) => Err(format!("{other}\n{}", self.log())),
        });
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// `redis://127.0.0.1:PORT`, or `rediss://`.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.common.scheme(), self.address())
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("redis.log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    // === commands ===

    /// Runs a command through `redis-cli` as an administrator; its answer in `redis-cli`'s raw form, trimmed.
    ///
    /// # Panics
    ///
    /// When the server cannot be reached or answers with an error.
    #[track_caller]
    pub(crate) fn cli(&self, words: &[&str]) -> String {
        self.try_cli(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same; what went wrong, or Redis' error, as the error.
    pub(crate) fn try_cli(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("redis-cli");
        command.arg("-e").arg("-s").arg(self.socket());
        if !matches!(self.role, Role::Sentinel { .. }) {
            command.args(self.common.cli_login());
        }
        command.args(words);
        let output = bounded(command)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
        }
    }

    /// `redis-cli` by the server's port, with the words before it: `--cluster check`.
    pub(crate) fn cli_by_port(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("redis-cli");
        command.args(self.common.cli_tls()).args(self.common.cli_login()).args(words);
        let output = bounded(command)?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// A field of `INFO`: `role`, `connected_slaves`.
    pub(crate) fn info(&self, field: &str) -> Option<String> {
        let text = self.try_cli(&["INFO", "everything"]).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
    }

    /// `CONFIG SET`.
    pub(crate) fn set(&self, name: &str, value: &str) {
        assert_eq!(self.cli(&["CONFIG", "SET", name, value]), "OK");
    }

    /// Whether it says that it is a master.
    pub(crate) fn is_master(&self) -> bool {
        self.info("role").as_deref() == Some("master")
    }

    // === the process ===

    pub(crate) fn is_running(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    /// `kill -9`, and waits for its end.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
            // Whoever looks for it after a restart must not find the old one's.
            let _ = std::fs::remove_file(self.socket());
        }
    }

    /// Starts it again at the same port, with the same directory and configuration, and waits until it answers.
    pub(crate) fn restart(&self) {
        self.kill();
        self.spawn();
        assert!(self.has_bound(), "another process has taken port {}", self.port);
        self.wait_ready();
    }

    /// Stops the process where it is: connections stay open, and nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap();
        let pid = Pid::from_child(child.as_ref().expect("the server runs"));
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A frozen process is killed like any other. Nothing here may panic: this may run because of a panic.
        if let Some(child) = self.child.get_mut().ok().and_then(Option::as_mut) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// For a server that holds data: replicas follow at once, and DEBUG is at hand.
const DATA_CONF: &str = "repl-diskless-sync yes\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n\
                         enable-debug-command local\n";

/// The output of a command, which is killed where it takes too long: a frozen server answers nothing.
fn bounded(mut command: Command) -> Result<Output, String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    // What it says is read beside waiting for it: a full pipe would hold it for ever.
    let mut pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reading = std::thread::spawn(move || {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let _ = pipes.0.read_to_end(&mut stdout);
        let _ = pipes.1.read_to_end(&mut stderr);
        (stdout, stderr)
    });
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            let (stdout, stderr) = reading.join().unwrap();
            return Ok(Output { status, stdout, stderr });
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("no answer within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A port that was free a moment ago.
///
/// It lies below the ports that the system gives to outgoing connections: a server that was killed must find its port
/// free when it comes back.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side begin at different places.
    let offset = u16::try_from((std::process::id().wrapping_mul(2_654_435_761) >> 8) % u32::from(COUNT)).unwrap();
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(offset) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
