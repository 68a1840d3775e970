//! The payments API of the demo: it charges whoever asks, and then loses a third of its answers.
//!
//! It is the plain thing that most APIs are: it does not look at `Idempotency-Key`. Each request that arrives is a charge
//! in its ledger. Both halves of the demo run an API of their own, with the same seed.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

use super::Luck;

/// How long a late answer takes: longer than the client waits, shorter than its retries take together.
const LATE: Duration = Duration::from_millis(1_250);
/// Between the half of an answer that arrives and the break.
const BREAK: Duration = Duration::from_millis(20);
/// A charge is a few dozen bytes of JSON.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Asks for a fate, for trying things by hand: `late`, `reset` or `cut`.
const LOSE: &str = "demo-lose";

/// A running API. Ends when dropped.
pub(super) struct Api {
    /// Where it listens.
    pub(super) address: SocketAddr,
    ledger: Arc<Ledger>,
    _server: JoinSet<()>,
}

impl Api {
    /// Starts an API on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub(super) async fn start(luck: Luck) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let ledger = Arc::new(Ledger { luck, books: Mutex::default() });
        let mut server = JoinSet::new();
        server.spawn(accept(listener, Arc::clone(&ledger)));
        Ok(Self { address, ledger, _server: server })
    }

    /// What has been charged so far.
    pub(super) fn books(&self) -> Books {
        self.ledger.books().clone()
    }
}

/// What an API has charged.
#[derive(Clone, Default)]
pub(super) struct Books {
    /// Each charge, in cents, by customer.
    pub(super) charges: BTreeMap<String, Vec<u64>>,
    /// Answers that came late, after a reset, cut.
    pub(super) lost: Lost,
}

/// Answers that were lost after charging, by kind.
#[derive(Clone, Copy, Default)]
pub(super) struct Lost {
    /// Came after the client had given up.
    pub(super) late: usize,
    /// The connection was reset before the answer.
    pub(super) reset: usize,
    /// The connection broke in the middle of the answer.
    pub(super) cut: usize,
}

impl Lost {
    pub(super) fn total(self) -> usize {
        self.late + self.reset + self.cut
    }
}

struct Ledger {
    luck: Luck,
    books: Mutex<Books>,
}

/// What becomes of the answer to a charge.
#[derive(Clone, Copy)]
enum Fate {
    Answered,
    Late,
    Reset,
    Cut,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        // A panic between two statements leaves at most a charge uncounted as lost.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges, and says how the answer will fare. `asked` overrules luck.
    fn charge(&self, customer: &str, cents: u64, asked: Option<Fate>) -> (usize, Fate) {
        let mut books = self.books();
        let charges = books.charges.entry(customer.to_owned()).or_default();
        charges.push(cents);
        let fate = asked.unwrap_or_else(|| fate(self.luck, customer, charges.len()));
        match fate {
            Fate::Answered => {}
            Fate::Late => books.lost.late += 1,
            Fate::Reset => books.lost.reset += 1,
            Fate::Cut => books.lost.cut += 1,
        }
        (books.charges.values().map(Vec::len).sum(), fate)
    }
}

/// Two in three answers arrive. Of the lost ones half are late, as in life, where a time-out is the commonest loss.
fn fate(luck: Luck, customer: &str, nth: usize) -> Fate {
    match luck.draw("fate", customer, nth) % 12 {
        0..=7 => Fate::Answered,
        8 | 9 => Fate::Late,
        10 => Fate::Reset,
        _ => Fate::Cut,
    }
}

async fn accept(listener: TcpListener, ledger: Arc<Ledger>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&ledger)));
                }
                // Out of file descriptors, most likely: others are about to be closed.
                Err(_) => tokio::time::sleep(BREAK).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, ledger: Arc<Ledger>) {
    // A second handle to the socket: hyper owns the first one by the time that a reset is wanted.
    let Ok(handle) = stream.as_fd().try_clone_to_owned().map(socket2::Socket::from) else { return };
    let reset = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let (ledger, reset) = (Arc::clone(&ledger), Arc::clone(&reset));
        async move { Ok::<_, Infallible>(answer(request, &ledger, &reset).await) }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = reset.notified() => {
            // With a linger of zero, the close that follows is a reset.
            let _ = handle.set_linger(Some(Duration::ZERO));
        }
        _ = connection => {}
    }
}

async fn answer(request: Request<Incoming>, ledger: &Ledger, reset: &Notify) -> Response<Answer> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/charges") => charge(request, ledger, reset).await,
        (&Method::GET, "/v1/charges") => {
            let charges = &ledger.books().charges;
            whole(
                StatusCode::OK,
                &json!({ "count": charges.values().map(Vec::len).sum::<usize>(), "charges": charges }),
            )
        }
        _ => whole(StatusCode::NOT_FOUND, &json!({ "error": "only /v1/charges is here" })),
    }
}

async fn charge(request: Request<Incoming>, ledger: &Ledger, reset: &Notify) -> Response<Answer> {
    let asked = request.headers().get(LOSE).and_then(|value| match value.as_bytes() {
        b"late" => Some(Fate::Late),
        b"reset" => Some(Fate::Reset),
        b"cut" => Some(Fate::Cut),
        _ => None,
    });
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let order: Option<Value> = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    let Some((customer, cents)) = order.as_ref().and_then(|order| {
        let customer = order.get("customer")?.as_str()?;
        Some((customer, order.get("amount")?.as_u64()?))
    }) else {
        return whole(StatusCode::BAD_REQUEST, &json!({ "error": "send {\"customer\": TEXT, \"amount\": CENTS}" }));
    };

    // From here on the customer's money is gone, whatever becomes of the answer.
    let (number, fate) = ledger.charge(customer, cents, asked);
    let receipt = json!({ "id": format!("ch_{number:04}"), "customer": customer, "amount": cents });
    match fate {
        Fate::Answered => whole(StatusCode::CREATED, &receipt),
        Fate::Late => {
            tokio::time::sleep(LATE).await;
            whole(StatusCode::CREATED, &receipt)
        }
        Fate::Reset => {
            reset.notify_one();
            std::future::pending().await
        }
        Fate::Cut => {
            let mut response = whole(StatusCode::CREATED, &receipt);
            response.body_mut().end = End::Breaks(Box::pin(tokio::time::sleep(BREAK)));
            response
        }
    }
}

fn whole(status: StatusCode, value: &Value) -> Response<Answer> {
    let text = Bytes::from(format!("{value}\n"));
    let mut response = Response::new(Answer { length: text.len() as u64, rest: Some(text), end: End::Whole });
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A body that arrives whole, or breaks off half-way.
struct Answer {
    length: u64,
    rest: Option<Bytes>,
    end: End,
}

enum End {
    Whole,
    Breaks(Pin<Box<tokio::time::Sleep>>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let rest = self.rest.take();
        match (&mut self.end, rest) {
            (End::Whole, rest) => Poll::Ready(rest.map(|rest| Ok(Frame::data(rest)))),
            (End::Breaks(_), Some(rest)) => Poll::Ready(Some(Ok(Frame::data(rest.slice(..rest.len() / 2))))),
            (End::Breaks(pause), None) => {
                ready!(pause.as_mut().poll(cx));
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
