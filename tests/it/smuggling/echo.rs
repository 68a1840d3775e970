//! Real servers that say what they read: each request that one of them parsed whole is a line of its log, written before
//! the answer, and the answer is the same line.
//!
//! A line is `PEER METHOD HOST TARGET BODY`: which connection it came on, and the body in hex. nginx and HAProxy pass what
//! they parsed on to a hyper server that records it; Node and h11 are programs of their own.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, UnixStream},
    process::{Child, Command},
    sync::mpsc,
};

use super::super::harness::{eventually, soon};

/// A request as a server parsed it.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The connection it came on.
    pub(super) peer: String,
    /// What it was.
    pub(super) line: String,
}

/// A server that runs until it is dropped.
pub(super) struct Echo {
    pub(super) url: String,
    log: mpsc::Receiver<String>,
    _child: Option<Child>,
    _directory: TempDir,
}

impl Echo {
    /// hyper, in this process.
    pub(super) async fn hyper() -> Option<Self> {
        let (address, log) = recorder().await;
        let url = format!("http://{address}");
        Some(Self { url, log, _child: None, _directory: tempfile::tempdir().unwrap() })
    }

    /// nginx, before a recorder.
    pub(super) async fn nginx() -> Option<Self> {
        let program = program("nginx")?;
        Self::before_a_recorder(Command::new(program).args(["-e", "stderr", "-c"]), include_str!("nginx.conf")).await
    }

    /// HAProxy, before a recorder.
    pub(super) async fn haproxy() -> Option<Self> {
        let program = program("haproxy")?;
        Self::before_a_recorder(Command::new(program).args(["-db", "-f"]), include_str!("haproxy.cfg")).await
    }

    /// Node's http server.
    pub(super) async fn node() -> Option<Self> {
        let program = program("node")?;
        Self::program(Command::new(program).arg("-e").arg(include_str!("server.js"))).await
    }

    /// A Python server on h11.
    pub(super) async fn h11() -> Option<Self> {
        let mut python = None;
        for candidate in ["python3", "/usr/bin/python3"] {
            let imports = Command::new(candidate).args(["-c", "import h11"]).stderr(Stdio::null()).status().await;
            if imports.is_ok_and(|status| status.success()) {
                python = Some(candidate);
                break;
            }
        }
        let python = python.or_else(|| missing("h11 for Python 3 (Debian: python3-h11)"))?;
        Self::program(Command::new(python).arg("-c").arg(include_str!("server.py"))).await
    }

    /// Starts a server with a configuration of its own, on a socket in a directory of its own.
    async fn before_a_recorder(command: &mut Command, configuration: &str) -> Option<Self> {
        let (address, log) = recorder().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let file = directory.path().join("configuration");
        std::fs::write(&file, configuration.replace("DIR", path).replace("RECORDER", &address.to_string())).unwrap();
        let child = command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let socket = directory.path().join("listen.sock");
        eventually("the server listens", || async { UnixStream::connect(&socket).await.is_ok() }).await;
        Some(Self { url: format!("unix:{}", socket.display()), log, _child: Some(child), _directory: directory })
    }

    /// Starts a program that says where it listens, then what it reads.
    async fn program(command: &mut Command) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = piped.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = soon(lines.next_line()).await.unwrap().expect("it says where it listens");
        let port = first.strip_prefix("listening ").unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let (sink, log) = mpsc::channel(LOG_LINES);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await
                && sink.send(line).await.is_ok()
            {}
        });
        Some(Self { url, log, _child: Some(child), _directory: directory })
    }

    /// What was parsed since the last call, up to the request of that line, which is the last.
    pub(super) async fn until(&mut self, last: &str) -> Vec<Parsed> {
        let mut all: Vec<Parsed> = Vec::new();
        while all.last().is_none_or(|parsed| parsed.line != last) {
            let line = soon(self.log.recv()).await.expect("the server lives");
            let (peer, line) = line.split_once(' ').unwrap();
            all.push(Parsed { peer: peer.to_owned(), line: line.to_owned() });
        }
        all
    }
}

/// Lines that wait to be looked at.
const LOG_LINES: usize = 1024;

/// Where a program is; when it is nowhere, the test that needs it cannot run.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut found = env::split_paths(&path).chain(administrators).map(|directory| directory.join(name));
    found.find(|path| Path::is_file(path)).or_else(|| missing(name))
}

/// Says that a test does not run; where everything must run, that is a failure.
fn missing<T>(what: &str) -> Option<T> {
    assert!(env::var_os("CI").is_none(), "{what} is not installed");
    eprintln!("skipped: {what} is not installed");
    None
}

/// A hyper server and what it reads.
async fn recorder() -> (std::net::SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sink, log) = mpsc::channel(LOG_LINES);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let sink = sink.clone();
            let service = hyper::service::service_fn(move |request| record(request, peer.port(), sink.clone()));
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).max_headers(256);
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, log)
}

async fn record(
    request: Request<Incoming>,
    port: u16,
    sink: mpsc::Sender<String>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let field = |name: &str| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let meant = super::meant::Meant {
        method: head.method.to_string(),
        host: field("host").unwrap_or_default(),
        target: head.uri.to_string(),
        body: body.to_vec(),
    };
    // The server before this one knows whose connection it was.
    let line = format!("{} {}", field("x-peer").unwrap_or_else(|| port.to_string()), meant.line());
    sink.send(line.clone()).await.expect("the test reads the log");
    Ok(Response::new(Full::from(line)))
}
