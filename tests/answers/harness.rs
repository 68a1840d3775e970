//! Two nouns: a [`Server`] whose connections are scripts, and a [`Subject`] that sends to it through the library.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use oncegate::{
    body::RequestBody,
    config::settled::{self, HostHeader, UpstreamTarget, UpstreamTls, UpstreamUrl},
    upstream::{Plan, SendError, UpstreamBody, Upstreams},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The longest that anything here may take that should happen by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A plain, whole answer.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

// === the server ===

/// A scripted upstream. What it saw is counted by itself, whatever its script does.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

/// One connection, from the server's side.
pub(crate) struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    seen: Arc<Seen>,
}

impl Server {
    /// Each connection does as `script` says, then closes.
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let accepting = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    seen.connections.fetch_add(1, SeqCst);
                    tokio::spawn(script(Peer { stream, unread: Vec::new(), seen: Arc::clone(&seen) }));
                }
            }
        });
        Self { address, seen, accepting }
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    /// Heads that arrived whole.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Peer {
    /// Reads a request's head and says what it was; `None` when the other side has closed.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await?;
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap().to_ascii_lowercase();
        self.seen.requests.lock().unwrap().push(head.clone());
        Some(head)
    }

    /// Reads a whole request: its head, and its body by Content-Length or chunks.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        if let Some(length) = length {
            let length = length.parse().unwrap();
            while self.unread.len() < length {
                self.read().await?;
            }
            self.unread.drain(..length);
        } else if head.contains("transfer-encoding: chunked") {
            while !self.unread.ends_with(b"0\r\n\r\n") {
                self.read().await?;
            }
            self.unread.clear();
        }
        Some(head)
    }

    async fn read(&mut self) -> Option<usize> {
        self.stream.read_buf(&mut self.unread).await.ok().filter(|count| *count > 0)
    }

    /// Waits until the other side has closed.
    pub(crate) async fn closed(&mut self) {
        while self.read().await.is_some() {}
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have seen enough.
        _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads a request and answers it; false when there was none.
    pub(crate) async fn answer(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let Some(_) = self.request().await else { return false };
        self.send(bytes).await;
        true
    }
}

// === the subject ===

/// The upstream side under test, of one upstream and two workers.
pub(crate) struct Subject {
    upstreams: Upstreams,
}

pub(crate) fn url(address: SocketAddr) -> UpstreamUrl {
    UpstreamUrl {
        target: UpstreamTarget::Tcp(address.ip().to_string(), address.port()),
        tls: false,
        authority: address.to_string(),
    }
}

pub(crate) fn settings(urls: Vec<UpstreamUrl>) -> settled::Upstream {
    settled::Upstream {
        name: "api".into(),
        urls,
        connect_timeout: Duration::from_secs(5),
        queue_timeout: Duration::from_secs(5),
        max_connections: 8,
        max_idle_guarded: Duration::from_secs(5),
        http2: false,
        host: HostHeader::Preserve,
        tls: UpstreamTls::default(),
    }
}

pub(crate) const GUARDED: Plan = Plan { guarded: true, idempotent: false, worker: 0 };
pub(crate) const IDEMPOTENT: Plan = Plan { guarded: false, idempotent: true, worker: 0 };

pub(crate) fn post(body: RequestBody) -> Request<RequestBody> {
    Request::post("/v1/charges").header("host", "api.example").body(body).unwrap()
}

pub(crate) fn full(text: &'static str) -> RequestBody {
    RequestBody::full(Bytes::from_static(text.as_bytes()))
}

impl Subject {
    pub(crate) fn before(server: &Server) -> Self {
        Self::of(settings(vec![url(server.address)]))
    }

    pub(crate) fn of(settings: settled::Upstream) -> Self {
        Self { upstreams: Upstreams::new(&[Arc::new(settings)], 2).unwrap() }
    }

    /// Sends to the answer's head.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        plan: Plan,
    ) -> Result<Response<UpstreamBody>, SendError> {
        soon(self.upstreams.get(0).send(request, plan)).await
    }

    /// Sends a charge and reads its answer: `Ok` only if it is whole.
    pub(crate) async fn exchange(&self, plan: Plan) -> Result<(u16, String), String> {
        self.exchange_of(post(full("amount=1")), plan).await
    }

    pub(crate) async fn exchange_of(&self, request: Request<RequestBody>, plan: Plan) -> Result<(u16, String), String> {
        let answer = self.send(request, plan).await.map_err(|error| format!("{error:?}"))?;
        whole(answer).await.map_err(|error| format!("{error:?}"))
    }

    pub(crate) fn connections(&self) -> usize {
        self.upstreams.connections()
    }
}

/// Reads an answer to its end.
pub(crate) async fn whole<B>(answer: Response<B>) -> Result<(u16, String), B::Error>
where
    B: Body<Data = Bytes>,
{
    let status = answer.status().as_u16();
    let body = soon(answer.into_body().collect()).await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

pub(crate) fn is_lost(result: &Result<Response<UpstreamBody>, SendError>) -> bool {
    matches!(result, Err(SendError::Lost(_)))
}

// === time ===

/// A bound around what would hang in broken code.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came in time")
}

/// Looks again until it is so.
pub(crate) async fn eventually(what: &str, check: impl Fn() -> bool) {
    let mut looks = 0;
    while !check() {
        looks += 1;
        assert!(looks < 5000, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
