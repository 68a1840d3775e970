//! Three nouns: a [`Server`] with an [`Echo`] handler, and a [`Client`] that sends and reads bytes.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use oncegate::{
    config::settled::Address,
    server::{
        self, Arriving, Connection, Connections, Handler, Interim, Limits, Listener, Refusal, Shared, Tls, TurnedAway,
    },
};
use tokio_util::sync::CancellationToken;

/// A server on a thread of its own; stopped when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) echo: Echo,
    pub(crate) connections: Arc<Connections>,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(limits())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::launch(bind(), limits, None)
    }

    /// A server that begins when a client has connected, sent all of this and closed its side.
    pub(crate) fn after(sent: &str) -> (Self, Client) {
        let (listener, address) = bind();
        let mut client = connect(address);
        client.send(sent).half_close();
        (Self::launch((listener, address), limits(), None), client)
    }

    /// A server on a Unix socket, which clients reach by its path alone.
    pub(crate) fn on_unix(path: &std::path::Path, limits: Limits) -> Self {
        let listener = Listener::bind(&Address::Unix(path.to_owned())).unwrap();
        Self::launch((listener, ([0, 0, 0, 0], 0).into()), limits, None)
    }

    pub(crate) fn with_tls(limits: Limits, tls: Arc<Tls>) -> Self {
        Self::launch(bind(), limits, Some(tls))
    }

    fn launch((listener, address): (Listener, SocketAddr), limits: Limits, tls: Option<Arc<Tls>>) -> Self {
        let echo = Echo::default();
        let connections = Arc::new(Connections::default());
        let stop = CancellationToken::new();
        let limits = Arc::new(ArcSwap::from_pointee(limits));
        let shared = Shared { limits, tls, connections: Arc::clone(&connections) };
        let thread = thread::spawn({
            let (echo, stop) = (echo.clone(), stop.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(server::serve(listener, echo, shared, stop)).unwrap();
            }
        });
        Self { address, echo, connections, stop, thread: Some(thread) }
    }

    pub(crate) fn client(&self) -> Client {
        connect(self.address)
    }

    /// A client at that address of this machine.
    pub(crate) fn client_from(&self, address: [u8; 4]) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        Client { stream: socket.into() }
    }

    /// How many requests the handler saw.
    pub(crate) fn handled(&self) -> usize {
        self.echo.seen.handled.load(SeqCst)
    }

    /// How many requests were refused.
    pub(crate) fn refused(&self) -> usize {
        self.echo.seen.refused.load(SeqCst)
    }

    /// How many requests' handling was given up.
    pub(crate) fn dropped(&self) -> usize {
        self.echo.seen.dropped.load(SeqCst)
    }

    /// Why connections were turned away.
    pub(crate) fn turned_away(&self) -> Vec<TurnedAway> {
        self.echo.seen.turned_away.lock().unwrap().clone()
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether every connection ended and the server with them.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().unwrap().is_finished()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        // Clients of the test may still be open: wait for the thread only where that says something.
        let ended = self.thread.take().unwrap();
        if ended.is_finished() && !thread::panicking() {
            ended.join().unwrap();
        }
    }
}

fn bind() -> (Listener, SocketAddr) {
    let listener = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
    let Address::Tcp(address) = listener.local().unwrap() else { unreachable!() };
    (listener, address)
}

pub(crate) fn connect(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    Client { stream }
}

#[expect(clippy::disallowed_methods, reason = "a test's stopwatch")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits for what must come, without saying when.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} did not come about");
}

/// Limits that no test meets by accident.
pub(crate) fn limits() -> Limits {
    let long = Duration::from_secs(60);
    Limits {
        max_connections: 10_000,
        max_connections_per_address: None,
        max_head: 32 * 1024,
        header_timeout: long,
        idle_timeout: long,
        linger_timeout: long,
        max_connection_age: None,
        write_timeout: long,
        proxy_protocol: false,
        trusted_proxies: Vec::new(),
    }
}

/// Answers with what it was sent: method, target and body. Paths that begin otherwise than `/` plus a word below are
/// echoed at once.
#[derive(Clone, Default)]
pub(crate) struct Echo {
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    handled: AtomicUsize,
    refused: AtomicUsize,
    dropped: AtomicUsize,
    turned_away: Mutex<Vec<TurnedAway>>,
}

/// Counts a handler's future that did not come to its end.
struct Unfinished(Option<Arc<Seen>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(seen) = self.0.take() {
            seen.dropped.fetch_add(1, SeqCst);
        }
    }
}

impl Handler for Echo {
    type Body = Full<Bytes>;

    async fn handle(
        &self,
        request: Request<Arriving>,
        connection: Arc<Connection>,
        interim: Option<Interim>,
    ) -> Response<Full<Bytes>> {
        self.seen.handled.fetch_add(1, SeqCst);
        let mut unfinished = Unfinished(Some(Arc::clone(&self.seen)));
        let answer = echo(request, &connection, interim).await;
        unfinished.0 = None;
        answer
    }

    async fn refuse(&self, refusal: Refusal, _: Arc<Connection>) -> Response<Full<Bytes>> {
        self.seen.refused.fetch_add(1, SeqCst);
        text(refusal.status.as_u16(), refusal.reason.as_str().to_owned())
    }

    fn turned_away(&self, why: TurnedAway) {
        self.seen.turned_away.lock().unwrap().push(why);
    }
}

async fn echo(request: Request<Arriving>, connection: &Connection, interim: Option<Interim>) -> Response<Full<Bytes>> {
    let line = format!("{} {} ", request.method(), request.uri());
    match request.uri().path() {
        // Answers without a look at the body.
        "/early" => text(413, "early".to_owned()),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            text(200, "slow".to_owned())
        }
        "/never" => std::future::pending().await,
        "/large" => text(200, "x".repeat(64 * 1024 * 1024)),
        "/upgrade" => upgrade(request),
        // Hints that fit no buffer, then one after a while, then the answer.
        "/hints" => {
            let hint = |value: String| {
                let fields = http::HeaderMap::from_iter([(http::header::LINK, value.parse().unwrap())]);
                interim.iter().for_each(|interim| interim.send(http::StatusCode::EARLY_HINTS, &fields));
            };
            (0..8).for_each(|_| hint("x".repeat(8_000)));
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::thread::spawn({
                let interim = interim.clone();
                move || interim.iter().for_each(|it| it.send(http::StatusCode::PROCESSING, &http::HeaderMap::new()))
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
            hint("last".to_owned());
            text(200, format!("interim: {}", interim.is_some()))
        }
        "/who" => text(200, format!("{connection:?}")),
        _ => match request.into_body().collect().await {
            Ok(body) => text(200, line + &String::from_utf8_lossy(&body.to_bytes())),
            Err(error) => match Refusal::of(&error) {
                Some(refusal) => text(refusal.status.as_u16(), refusal.reason.as_str().to_owned()),
                None => text(400, format!("body: {error}")),
            },
        },
    }
}

/// Switches to a protocol in which the server says what the client says.
fn upgrade(mut request: Request<Arriving>) -> Response<Full<Bytes>> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(tunnel) = upgraded.await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(tunnel));
            // Until the client leaves.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
    answer.body(Full::default()).unwrap()
}

fn text(status: u16, text: String) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(text)).unwrap()
}

/// A raw client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    /// Sends bytes; that the server has closed meanwhile is for the reading to show.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// Says that no more will come.
    pub(crate) fn half_close(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// All that comes until the server closes.
    pub(crate) fn read_to_end(&mut self) -> io::Result<String> {
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// One answer with Content-Length: status, head, body.
    pub(crate) fn answer(&mut self) -> io::Result<(u16, String, String)> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head[9..12].parse().unwrap();
        let length =
            head.split("content-length: ").nth(1).map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, head, String::from_utf8_lossy(&body).into_owned()))
    }
}
