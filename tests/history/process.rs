//! One process of Oncegate, to be killed, frozen and started again.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running process, which ends with its test.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    data: SocketAddr,
    admin: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts one with that configuration, and waits until it listens.
    pub(crate) fn start(file: &Path) -> Self {
        let mut child = Command::new(binary())
            .args(["run", "-c"])
            .arg(file)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (sink, stderr) = (said.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let start = Instant::now();
        loop {
            let lines = said.lock().unwrap().clone();
            let after = |words: &str| lines.iter().find_map(|line| address_after(line, words));
            if let (Some(data), Some(admin)) = (after(" listening on "), after("admin listening on ")) {
                return Self { child, data, admin, said };
            }
            let ended = child.try_wait().unwrap();
            let waited = start.elapsed();
            if ended.is_some() || waited > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                panic!("oncegate does not listen: {ended:?}\n{}", said.lock().unwrap().join("\n"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.data
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// `kill -9`; what it had said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said()
    }

    /// SIGTERM, and waits for its end; what it had said.
    pub(crate) fn terminate(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it does not end: {}", self.said().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
        self.said()
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program under test: another build of it where the environment names one.
fn binary() -> PathBuf {
    std::env::var_os("ONCEGATE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_oncegate").into(), PathBuf::from)
}

/// The address behind those words. "admin listening on" is not " listening on" of the data port: that begins the message.
fn address_after(line: &str, words: &str) -> Option<SocketAddr> {
    let at = line.find(words)?;
    if !words.starts_with("admin") && line[..at].ends_with("admin") {
        return None;
    }
    let rest = &line[at + words.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
    rest[..end].parse().ok()
}
