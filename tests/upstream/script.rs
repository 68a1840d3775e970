//! The harness: a scripted upstream that counts, settings, and requests.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use oncegate::{
    body::RequestBody,
    config::settled::{HostHeader, Upstream as Settings, UpstreamTarget, UpstreamTls, UpstreamUrl},
    upstream::{Plan, SendError, Upstream, UpstreamBody, Upstreams},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A scripted upstream.
pub(crate) struct Script {
    pub(crate) port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// One connection of it.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// Counted from 1.
    pub(crate) nth: usize,
    seen: Arc<Seen>,
    buffer: Vec<u8>,
}

impl Script {
    /// Plays `play` on every connection.
    pub(crate) async fn start<F, P>(play: P) -> Self
    where
        P: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Seen>::default();
        let counted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let nth = counted.connections.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(play(Peer { stream, nth, seen: Arc::clone(&counted), buffer: Vec::new() }));
            }
        });
        Self { port, seen }
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }
}

impl Peer {
    /// A request, whole. `None`: the connection ended first.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let mut request = self.head().await?;
        let length = if request.contains("transfer-encoding: chunked") {
            self.until(b"0\r\n\r\n").await?
        } else {
            let field = request.split("content-length: ").nth(1);
            field.map_or(0, |rest| rest.lines().next().and_then(|number| number.parse().ok()).unwrap_or(0))
        };
        while self.buffer.len() < length {
            self.more().await?;
        }
        request.push_str(&String::from_utf8_lossy(&self.buffer.drain(..length).collect::<Vec<_>>()));
        Some(request)
    }

    /// A request's head; the request counts as seen.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let end = self.until(b"\r\n\r\n").await?;
        self.seen.requests.fetch_add(1, Ordering::SeqCst);
        Some(String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<_>>()).into_owned())
    }

    /// Reads until this has come; how much that is.
    async fn until(&mut self, end: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(at + end.len());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.buffer).await.ok()?;
        (read > 0).then_some(())
    }

    pub(crate) async fn answer(&mut self, bytes: &str) {
        _ = self.stream.write_all(bytes.as_bytes()).await;
    }

    /// Answers everything, for as long as it is asked.
    pub(crate) async fn serve(mut self) {
        while self.request().await.is_some() {
            self.answer(OK).await;
        }
    }

    /// Ends the connection by RST.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Waits until the other side has closed.
    pub(crate) async fn closed(mut self) {
        let mut rest = Vec::new();
        _ = self.stream.read_to_end(&mut rest).await;
    }
}

pub(crate) fn url(port: u16) -> UpstreamUrl {
    UpstreamUrl {
        target: UpstreamTarget::Tcp("127.0.0.1".into(), port),
        tls: false,
        authority: format!("127.0.0.1:{port}"),
    }
}

pub(crate) fn settings(urls: Vec<UpstreamUrl>) -> Settings {
    Settings {
        name: "payments".into(),
        urls,
        connect_timeout: Duration::from_secs(5),
        queue_timeout: Duration::from_secs(5),
        max_connections: 512,
        max_idle_guarded: Duration::from_secs(60),
        http2: false,
        host: HostHeader::Preserve,
        tls: UpstreamTls::default(),
    }
}

/// An upstream at this port, with changed settings.
pub(crate) fn upstream_with(port: u16, change: impl FnOnce(&mut Settings)) -> Upstreams {
    let mut settings = settings(vec![url(port)]);
    change(&mut settings);
    Upstreams::new(&[Arc::new(settings)], 2).unwrap()
}

pub(crate) fn upstream(port: u16) -> Upstreams {
    upstream_with(port, |_| {})
}

/// A payment that is deduplicated.
pub(crate) const GUARDED: Plan = Plan { guarded: true, idempotent: false, worker: 0 };
/// A payment without a key.
pub(crate) const PASSED: Plan = Plan { guarded: false, idempotent: false, worker: 0 };
/// A request that may be repeated.
pub(crate) const IDEMPOTENT: Plan = Plan { guarded: false, idempotent: true, worker: 0 };

pub(crate) fn request(method: Method, body: RequestBody) -> Request<RequestBody> {
    Request::builder().method(method).uri("/v1/charges?a=b").header("host", "api.example.com").body(body).unwrap()
}

pub(crate) fn post() -> Request<RequestBody> {
    request(Method::POST, RequestBody::full(Bytes::from_static(b"amount=1")))
}

pub(crate) fn get() -> Request<RequestBody> {
    request(Method::GET, RequestBody::empty())
}

pub(crate) async fn whole(response: Response<UpstreamBody>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Sends, and reads the answer to its end.
pub(crate) async fn exchange(
    upstream: &Upstream,
    request: Request<RequestBody>,
    plan: Plan,
) -> Result<Bytes, SendError> {
    Ok(whole(upstream.send(request, plan).await?).await)
}

/// Lets other tasks work until it is so.
pub(crate) async fn until(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it came to be so");
}
