//! The real binary, started with a configuration of its own and watched from outside.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Instant,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{Connection, PATIENCE, Post, Reply, Upstream, eventually, soon};

const TOKEN: &str = "t0k3n-of-the-tests";

/// The program under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_oncegate")
}

/// A configuration: tables of `key = value` lines, later lines replacing earlier ones.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    text: String,
    tables: Vec<(String, Vec<(String, String)>)>,
    descriptors: Option<u32>,
}

impl Config {
    /// One upstream, one route `charges` for `/v1/…`, callers told apart by Authorization, ports of its own.
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self::at(&upstream.url())
    }

    /// The same, for an upstream at that URL.
    pub(crate) fn at(url: &str) -> Self {
        Self::raw(String::new())
            .server("listen = \"127.0.0.1:0\"\ndrain_timeout = \"5s\"")
            .admin("listen = \"127.0.0.1:0\"\ntoken_file = \"admin.token\"")
            .upstream(&format!("url = \"{url}\""))
            .policy("scope = [\"header:authorization\"]\nresponse_timeout = \"5s\"\noutcome_timeout = \"9s\"")
            .route("name = \"charges\"\npath = \"/v1/{*rest}\"")
    }

    /// Text as it is; tables may be added behind it.
    pub(crate) fn raw(text: String) -> Self {
        Self { text, tables: Vec::new(), descriptors: None }
    }

    pub(crate) fn server(self, lines: &str) -> Self {
        self.table("[server]", lines)
    }

    pub(crate) fn admin(self, lines: &str) -> Self {
        self.table("[admin]", lines)
    }

    pub(crate) fn log(self, lines: &str) -> Self {
        self.table("[log]", lines)
    }

    pub(crate) fn store(self, lines: &str) -> Self {
        self.table("[store]", lines)
    }

    pub(crate) fn memory(self, lines: &str) -> Self {
        self.table("[store.memory]", lines)
    }

    pub(crate) fn upstream(self, lines: &str) -> Self {
        self.table("[upstreams.main]", lines)
    }

    /// Policy keys, in `[defaults]`.
    pub(crate) fn policy(self, lines: &str) -> Self {
        self.table("[defaults]", lines)
    }

    /// Adds a route.
    pub(crate) fn route(mut self, lines: &str) -> Self {
        self.tables.push(("[[routes]]".into(), pairs(lines)));
        self
    }

    /// Takes every route away.
    pub(crate) fn no_routes(mut self) -> Self {
        self.tables.retain(|(header, _)| header != "[[routes]]");
        self
    }

    /// Sets keys of a table.
    pub(crate) fn table(mut self, header: &str, lines: &str) -> Self {
        let table = match self.tables.iter_mut().position(|(name, _)| name == header) {
            Some(index) => &mut self.tables[index].1,
            None => {
                // Tables may not follow an array of tables' own sub-tables, but may stand in any order before it.
                self.tables.insert(0, (header.to_owned(), Vec::new()));
                &mut self.tables[0].1
            }
        };
        for (key, value) in pairs(lines) {
            table.retain(|(name, _)| *name != key);
            table.push((key, value));
        }
        self
    }

    /// How many file descriptors the process may have open.
    pub(crate) fn descriptors(mut self, count: u32) -> Self {
        self.descriptors = Some(count);
        self
    }

    pub(crate) fn toml(&self) -> String {
        let mut text = self.text.clone();
        for (header, lines) in &self.tables {
            writeln!(text, "{header}").unwrap();
            for (key, value) in lines {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        text
    }
}

fn pairs(lines: &str) -> Vec<(String, String)> {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_once('=').unwrap())
        .map(|(key, value)| (key.trim().into(), value.trim().into()))
        .collect()
}

/// A running proxy, which ends with its test.
pub(crate) struct Proxy {
    child: Child,
    data: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// With nothing but an upstream.
    pub(crate) async fn before(upstream: &Upstream) -> Self {
        Self::start(Config::new(upstream)).await
    }

    pub(crate) async fn start(config: Config) -> Self {
        match Self::try_start(config).await {
            Ok(proxy) => proxy,
            Err((code, stderr)) => panic!("oncegate ended with {code:?}:\n{stderr}"),
        }
    }

    /// Starts one; the exit code and what it said when it ends instead.
    pub(crate) async fn try_start(config: Config) -> Result<Self, (Option<i32>, String)> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("oncegate.toml"), config.toml()).unwrap();
        std::fs::write(directory.path().join("admin.token"), format!("{TOKEN}\n")).unwrap();
        let file = directory.path().join("oncegate.toml");
        Self::launch(directory, &file, config.descriptors).await
    }

    /// Starts one with a configuration file that is already there, somewhere below `directory`.
    pub(crate) async fn launch(
        directory: TempDir,
        file: &Path,
        descriptors: Option<u32>,
    ) -> Result<Self, (Option<i32>, String)> {
        let mut command = match descriptors {
            None => Command::new(binary()),
            Some(count) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={count}")).arg(binary());
                command
            }
        };
        command.arg("run").arg("-c").arg(file).current_dir(directory.path()).env_clear();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let sink = stderr.clone();
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sink.lock().unwrap().push(line);
            }
        });
        let start = Instant::now();
        loop {
            let said = stderr.lock().unwrap().clone();
            let admin = said.iter().find_map(|line| address_after(line, "admin listening on "));
            let data = said
                .iter()
                .filter(|line| !line.contains("admin listening on "))
                .find_map(|line| address_after(line, "listening on "));
            if let (Some(data), Some(admin)) = (data, admin) {
                return Ok(Self { child, data, admin, directory, stderr });
            }
            if let Some(status) = child.try_wait().unwrap() {
                reading.await.unwrap();
                let said = stderr.lock().unwrap().join("\n");
                return Err((status.code(), said));
            }
            assert!(start.elapsed() < PATIENCE, "oncegate does not say where it listens:\n{}", said.join("\n"));
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.data
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("oncegate.toml")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// Everything the process has said so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    /// Waits until the log has a line with every one of these words, and returns it.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) -> impl Future<Output = String> {
        let place = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            loop {
                let found = self
                    .stderr
                    .lock()
                    .unwrap()
                    .iter()
                    .find(|line| words.iter().all(|word| line.contains(word)))
                    .cloned();
                if let Some(line) = found {
                    return line;
                }
                assert!(start.elapsed() < PATIENCE, "{place}: no line says {words:?}:\n{}", self.said());
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.data).await
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> Post {
        Post::new(self.data, method, target)
    }

    pub(crate) fn get(&self, target: &str) -> Post {
        self.request("GET", target)
    }

    /// A POST with a body, no key and no caller.
    pub(crate) fn post(&self, target: &str) -> Post {
        self.request("POST", target).field("Content-Type", "text/plain").body("amount=100")
    }

    /// Alice's charge under that key.
    pub(crate) fn charge(&self, key: impl AsRef<str>) -> Post {
        self.post("/v1/charges").auth("alice").key(key)
    }

    /// Sends raw bytes on a connection of their own and reads the answer.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> Reply {
        self.connect().await.exchange(bytes).await
    }

    pub(crate) async fn signal(&self, name: &str) {
        let done = Command::new("sh").arg("-c").arg(format!("kill -s {name} {}", self.pid())).status().await.unwrap();
        assert!(done.success(), "kill -s {name}");
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn exit(&mut self) -> Option<i32> {
        soon(self.child.wait()).await.unwrap().code()
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Writes the configuration file anew; the proxy finds out by itself.
    pub(crate) fn rewrite(&self, config: &Config) {
        let fresh = self.directory.path().join("fresh.toml");
        std::fs::write(&fresh, config.toml()).unwrap();
        std::fs::rename(&fresh, self.file()).unwrap();
    }

    /// Writes the configuration file anew, sends SIGHUP, and waits until the reload ended with that result.
    pub(crate) async fn reload(&self, config: &Config, result: &str) {
        let name = "oncegate_config_reloads_total";
        let before = self.metrics().await.sum(name, &[("result", result)]);
        self.rewrite(config);
        self.signal("HUP").await;
        eventually(&format!("a reload ends {result}: {}", self.said()), || async {
            self.metrics().await.sum(name, &[("result", result)]) > before
        })
        .await;
    }

    // === the admin API ===

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// A request to the admin API without the token.
    pub(crate) fn open_admin(&self, method: &str, target: &str) -> Post {
        Post::new(self.admin, method, target)
    }

    /// A request to the admin API with the token.
    pub(crate) fn admin(&self, method: &str, target: &str) -> Post {
        self.open_admin(method, target).field("Authorization", &format!("Bearer {TOKEN}"))
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let reply = self.open_admin("GET", "/metrics").send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        Metrics::parse(reply.text())
    }

    /// The list of records, with that query.
    pub(crate) async fn records(&self, query: &str) -> Vec<serde_json::Value> {
        let reply = self.admin("GET", &format!("/records?{query}")).send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["records"].as_array().unwrap().clone()
    }

    /// The only record there is.
    pub(crate) async fn record(&self) -> serde_json::Value {
        let mut records = self.records("limit=10").await;
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }

    /// Waits until the only record is in that state.
    pub(crate) async fn settles(&self, state: &str) {
        eventually(&format!("the record is {state}"), || async {
            let records = self.records("limit=10").await;
            records.len() == 1 && records[0]["state"] == state
        })
        .await;
    }

    // === the process ===

    /// CPU time used so far, in clock ticks (hundredths of a second).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        let words: Vec<u64> =
            after_name.split_whitespace().skip(11).take(2).map(|word| word.parse().unwrap()).collect();
        words.iter().sum()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

fn address_after(line: &str, words: &str) -> Option<SocketAddr> {
    let rest = &line[line.find(words)? + words.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// A scrape of `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect())
    }

    /// The sum of every series of that name with those labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels).map(|(_, _, value)| value).sum()
    }

    /// Whether there is a series of that name with those labels.
    pub(crate) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.series(name, labels).next().is_some()
    }

    fn series<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a (String, BTreeMap<String, String>, f64)> {
        let is_meant = move |sample: &&(String, BTreeMap<String, String>, f64)| {
            sample.0 == name
                && labels.iter().all(|(label, value)| sample.1.get(*label).is_some_and(|have| have == value))
        };
        self.0.iter().filter(is_meant)
    }
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    let labels = labels.split("\",").filter(|label| !label.is_empty());
    let labels = labels
        .map(|label| label.trim_end_matches('"').split_once("=\""))
        .map(|pair| pair.map(|(l, v)| (l.into(), v.into())));
    Some((name.into(), labels.collect::<Option<_>>()?, value.parse().ok()?))
}
