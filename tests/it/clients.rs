//! Programs of other people talk through the proxy: gRPC's and websockets' own clients and servers, in Python.
//!
//! What they try is in `clients/`, one script for a protocol, and behaves the same without a proxy. The environment they
//! run in is made by `clients/prepare.sh`, once for a build directory. Where it cannot be made these tests say so and
//! pass.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use super::harness::*;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    time::timeout,
};

/// The longest a script may take: they know their own deadlines, and this machine may be busy.
const SCRIPT: std::time::Duration = std::time::Duration::from_secs(60);

const GRPC: &str = "grpc_calls.py";
const WEBSOCKET: &str = "websocket_talk.py";

// contract: section 8
// contract: R-3
#[tokio::test]
async fn grpcs_own_client_and_server_talk_as_if_nothing_were_between_them() {
    let Some(python) = Python::prepared().await else { return };
    let server = python.serve(GRPC, &[]).await;
    let proxy = Proxy::start(
        Config::at(&server.url("http")).upstream("http2 = true").route("name = \"all\"\npath = \"/{*rest}\""),
    )
    .await;
    python.succeeds(GRPC, &["call", &proxy.address().to_string()]).await;
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("oncegate_unguarded_total", &[("why", "grpc")]) > 1000.0);
    assert_eq!(metrics.sum("oncegate_connections", &[("side", "upstream")]), 1.0, "calls share a connection");
    eventually("no call is under way", || async {
        proxy.metrics().await.sum("oncegate_connections", &[("side", "downstream")]) == 0.0
    })
    .await;
}

// contract: section 8
#[tokio::test]
async fn grpc_talks_over_tls_on_both_sides() {
    let Some(python) = Python::prepared().await else { return };
    let files = Files::new();
    let server = python.serve(GRPC, &[&files.cert, &files.key]).await;
    let config = files
        .serve(Config::at(&server.url("https")))
        .upstream(&format!("http2 = true\ntls = {{ ca = \"{}\", server_name = \"localhost\" }}", files.cert));
    let proxy = Proxy::start(config).await;
    python.succeeds(GRPC, &["call", &proxy.address().to_string(), &files.cert]).await;
}

#[tokio::test]
async fn a_grpc_client_understands_that_the_upstream_is_away() {
    let Some(python) = Python::prepared().await else { return };
    let away = Upstream::start().await.stop().await;
    let proxy = Proxy::start(Config::at(&format!("http://{away}")).upstream("http2 = true")).await;
    python.succeeds(GRPC, &["unavailable", &proxy.address().to_string()]).await;
}

// contract: section 8
#[tokio::test]
async fn websockets_own_client_and_server_talk_as_if_nothing_were_between_them() {
    let Some(python) = Python::prepared().await else { return };
    let server = python.serve(WEBSOCKET, &[]).await;
    let proxy = Proxy::start(Config::at(&server.url("http"))).await;
    python.succeeds(WEBSOCKET, &["talk", &format!("ws://{}", proxy.address())]).await;
    eventually("no tunnel is left", || async { proxy.metrics().await.sum("oncegate_connections", &[]) == 0.0 }).await;
}

// contract: section 8
#[tokio::test]
async fn websockets_talk_over_tls_on_both_sides() {
    let Some(python) = Python::prepared().await else { return };
    let files = Files::new();
    let server = python.serve(WEBSOCKET, &[&files.cert, &files.key]).await;
    let config = files
        .serve(Config::at(&server.url("https")))
        .upstream(&format!("tls = {{ ca = \"{}\", server_name = \"localhost\" }}", files.cert));
    let proxy = Proxy::start(config).await;
    python.succeeds(WEBSOCKET, &["talk", &format!("wss://{}", proxy.address()), &files.cert]).await;
}

// contract: R-7
#[tokio::test]
async fn a_websocket_client_that_is_guarded_is_refused() {
    let Some(python) = Python::prepared().await else { return };
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("guard = [\"GET\"]")).await;
    python.succeeds(WEBSOCKET, &["refused", &format!("ws://{}", proxy.address()), "k-1"]).await;
    assert_eq!(upstream.requests().len(), 0);
}

/// A Python that has the packages.
struct Python(PathBuf);

impl Python {
    /// `None`, with the reason on stderr, where it cannot be had.
    async fn prepared() -> Option<Self> {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clients");
        // The tests of this file run in processes of their own, and one of them makes it for all.
        let lock = std::fs::File::create(directory.with_extension("lock")).unwrap();
        let _held = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
        let making = Command::new("sh").arg(scripts().join("prepare.sh")).arg(&directory).output();
        let made = timeout(SCRIPT, making).await.expect("the packages are there within a minute").unwrap();
        if !made.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&made.stderr));
            return None;
        }
        Some(Self(directory.join("bin").join("python")))
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        // Nothing that this machine's user has set for Python, for proxies or for gRPC.
        command.env_clear().arg(scripts().join(script)).args(arguments).kill_on_drop(true);
        command
    }

    /// Starts a script's server.
    async fn serve(&self, script: &str, arguments: &[&str]) -> Server {
        let arguments = [&["serve"], arguments].concat();
        let mut command = self.command(script, &arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = soon(lines.next_line()).await.unwrap().expect("the server says where it listens");
        Server { port: port.parse().unwrap(), _child: child, _stdin: stdin }
    }

    /// Runs a script to its end, which has to be a good one.
    async fn succeeds(&self, script: &str, arguments: &[&str]) {
        let running = self.command(script, arguments).stdin(Stdio::null()).output();
        let Output { status, stdout, stderr } =
            timeout(SCRIPT, running).await.expect("the script ends by itself").unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(status.success(), "{script} {arguments:?}: {status}\n{}{}", text(&stdout), text(&stderr));
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients")
}

/// A script's server, which ends with its test.
struct Server {
    port: u16,
    _child: Child,
    _stdin: ChildStdin,
}

impl Server {
    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }
}

/// A certificate for this machine that is its own authority, and its key, as files.
struct Files {
    _directory: tempfile::TempDir,
    cert: String,
    key: String,
}

impl Files {
    fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (cert, key) = (write("tls.crt", made.cert.pem()), write("tls.key", made.signing_key.serialize_pem()));
        Self { _directory: directory, cert, key }
    }

    /// Has the proxy speak TLS with it.
    fn serve(&self, config: Config) -> Config {
        config.server(&format!("tls = {{ cert = \"{}\", key = \"{}\" }}", self.cert, self.key))
    }
}
