//! The client of the demo: it retries as payment SDKs do.
//!
//! Up to three retries after a broken connection, a time-out, 409, 429 or any 5xx; exponential back-off with jitter; the
//! same `Idempotency-Key` each time. It is the same code in both halves of the demo and does not know which one it is in.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::Luck;

/// How long an attempt may take.
const TIMEOUT: Duration = Duration::from_millis(800);
/// Attempts after the first one.
const RETRIES: u32 = 3;
/// The longest pause before the first retry; doubles with each.
const BACK_OFF: Duration = Duration::from_millis(200);

/// What one customer owes.
#[derive(Clone)]
pub(super) struct Payment {
    /// Who pays.
    pub(super) customer: String,
    /// How much, in cents.
    pub(super) cents: u64,
    /// The idempotency key of all its attempts.
    pub(super) key: String,
}

/// How a payment ended for its client.
#[derive(Clone, Copy)]
pub(super) struct Receipt {
    /// Requests sent.
    pub(super) attempts: usize,
    /// How it ended.
    pub(super) end: End,
}

/// What the client was left with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// An answer to its request.
    Answered,
    /// The stored answer to its request, which came after the client had stopped waiting for it.
    SettledLate,
    /// The word that the outcome is unknown and held for the operator.
    Held,
    /// Nothing: all attempts are used up.
    Nothing,
}

enum Reply {
    Whole { status: StatusCode, headers: HeaderMap, body: Bytes },
    Broken,
    TimedOut,
}

/// Pays: sends the request until there is an answer or patience ends.
pub(super) async fn pay(server: SocketAddr, payment: &Payment, luck: Luck) -> Receipt {
    let (mut timed_out, mut end) = (false, End::Nothing);
    for attempt in 0..=RETRIES {
        if attempt > 0 {
            tokio::time::sleep(back_off(luck, payment, attempt)).await;
        }
        let attempts = attempt as usize + 1;
        match try_once(server, payment).await {
            Reply::Whole { status, headers, .. } if status.is_success() => {
                let late = timed_out && headers.contains_key("idempotent-replayed");
                return Receipt { attempts, end: if late { End::SettledLate } else { End::Answered } };
            }
            Reply::Whole { status, body, .. } => {
                end = if is_held(&body) { End::Held } else { End::Nothing };
                if !is_worth_a_retry(status) {
                    return Receipt { attempts, end };
                }
            }
            Reply::Broken => end = End::Nothing,
            Reply::TimedOut => (timed_out, end) = (true, End::Nothing),
        }
    }
    Receipt { attempts: RETRIES as usize + 1, end }
}

fn is_worth_a_retry(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::CONFLICT || status == StatusCode::TOO_MANY_REQUESTS
}

fn is_held(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|problem| problem["code"] == "outcome-unknown")
}

/// Between half of the step and all of it, so that clients that failed together do not come back together.
fn back_off(luck: Luck, payment: &Payment, attempt: u32) -> Duration {
    let step = BACK_OFF * 2u32.pow(attempt - 1);
    let thousandths = u32::try_from(500 + luck.draw("jitter", &payment.customer, attempt as usize) % 500)
        .expect("less than a thousand");
    step * thousandths / 1000
}

async fn try_once(server: SocketAddr, payment: &Payment) -> Reply {
    match tokio::time::timeout(TIMEOUT, exchange(server, payment)).await {
        Ok(Some((status, headers, body))) => Reply::Whole { status, headers, body },
        Ok(None) => Reply::Broken,
        Err(_) => Reply::TimedOut,
    }
}

/// One request on a connection of its own; `None` when no whole answer came.
async fn exchange(server: SocketAddr, payment: &Payment) -> Option<(StatusCode, HeaderMap, Bytes)> {
    let stream = TcpStream::connect(server).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let body = json!({ "customer": payment.customer, "amount": payment.cents }).to_string();
    let request = Request::post("/v1/charges")
        .header(header::HOST, "payments.demo")
        .header(header::AUTHORIZATION, "Bearer demo")
        .header(header::CONTENT_TYPE, "application/json")
        .header("idempotency-key", &payment.key)
        .body(Full::new(Bytes::from(body)))
        .expect("a well-formed request");
    let answer = async {
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        Some((head.status, head.headers, body.collect().await.ok()?.to_bytes()))
    };
    // In one task with its connection: a time-out that drops this future closes the socket, as a client's does.
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Whatever the connection read is in the answer's hands by now; it fails by itself if that is not enough.
        _ = &mut connection => answer.await,
    }
}
