//! HTTP/1.1 (and 1.0) on a connection.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    Connection, Handler,
    arriving::Arriving,
    connection::Session,
    deadline::{Age, Deadline},
    exchange::{Answer, Exchange},
    guard::Guard,
    interim::Line,
    pulse::{Pulse, Wait},
    screen::Screen,
    wire::Wire,
};

/// Serves requests until the connection ends, its deadlines end it, or `stop` does and the answer under way is written.
pub(super) async fn serve<H: Handler>(session: Session<H>) -> hyper::Result<()> {
    let Session { stream, sniffed, permit, handler, connection, limits, pulse, stop } = session;
    let calls = AtomicU64::new(0);
    let line = Arc::new(Line::default());
    let service = service_fn(|request| {
        let number = calls.fetch_add(1, Relaxed);
        answer(number, request, handler.clone(), Arc::clone(&connection), Arc::clone(&pulse), Arc::clone(&line))
    });
    let screen = Screen::new(Guard::new(limits.max_head), sniffed);
    let wire = Wire::new(stream, screen, Arc::clone(&pulse), Some(Arc::clone(&line)), limits.write_timeout, permit);
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(limits.max_head.max(BUFFER_MIN));
    let mut http = pin!(builder.serve_connection(TokioIo::new(wire), service).with_upgrades());
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let mut deadline = Deadline::new(&pulse, &limits);
    let mut age = Age::new(&pulse, &limits);

    std::future::poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            pulse.hurry();
            if pulse.is_quiet() {
                return Poll::Ready(Ok(()));
            }
            http.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if pulse.may_go_on() {
                continue;
            }
            if age.is_reached(cx) {
                pulse.set_old();
            }
            match deadline.poll(&pulse, &limits, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Wait::Head) if !pulse.is_head_late() => pulse.set_head_late(),
                Poll::Ready(Wait::HalfClosed) => pulse.set_gone(),
                Poll::Ready(Wait::Head | Wait::Idle | Wait::Write | Wait::Linger) => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

/// hyper's buffer for one direction of a connection. Back-pressure begins here.
const BUFFER_MIN: usize = 64 * 1024;

async fn answer<H: Handler>(
    number: u64,
    request: Request<Incoming>,
    handler: H,
    connection: Arc<Connection>,
    pulse: Arc<Pulse>,
    line: Arc<Line>,
) -> Result<Response<Answer<H::Body>>, Infallible> {
    let exchange = Exchange::new(pulse);
    let pulse = exchange.pulse();
    let refusal = pulse.refusal(number);
    let old = request.version() == Version::HTTP_10;
    let request = request.map(Arriving::on_connection);
    let mut response = match refusal {
        Some(refusal) => handler.refuse(refusal, connection).await,
        None if request.version() == Version::HTTP_11 => {
            let interim = line.open(number).await;
            let response = handler.handle(request, connection, Some(interim)).await;
            line.close().await;
            response
        }
        // HTTP/1.0 knows no interim answers (RFC 9110 s15.2).
        None => handler.handle(request, connection, None).await,
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        pulse.set_tunnel();
    } else if refusal.is_some() || pulse.is_old() || pulse.is_body_open(number) {
        // RFC 9112 s9.6. What is left of the body will be thrown away, and nothing read after it.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answer::new(body, exchange, old)))
}
