//! HTTP/2 on a connection: by ALPN, or with prior knowledge.

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::{
    Connection, Handler,
    arriving::Arriving,
    connection::Session,
    deadline::{Age, Deadline},
    exchange::{Answer, Exchange},
    frames::Frames,
    guard,
    pulse::{Pulse, Wait},
    refusal::{Reason, Refusal},
    wire::Wire,
};

/// Streams that a client may have open at a time; what it also may have reset and left us to clean up.
const STREAMS_MAX: u32 = 200;
/// Streams that were reset before we answered (CVE-2023-44487), and that we reset for a client's errors
/// (CVE-2025-8671). Beyond, the connection ends with ENHANCE_YOUR_CALM.
const RESETS_MAX: usize = 100;
/// Body bytes that a client may send on one stream, and on all of a connection, before we take them.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What h2 takes of a head, as a multiple of `max_head`: beyond, it answers by itself, and nobody hears of it.
const HEAD_ROOM: usize = 2;
/// Bytes of answers that wait for one stream's window.
const SEND_BUFFER: usize = 64 * 1024;
/// A client that says nothing is asked whether it is still there, and is given that long to say so.
const PING_AFTER: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Serves requests until the connection ends, its deadlines end it, or `stop` does and what is under way is answered.
pub(super) async fn serve<H: Handler>(session: Session<H>) -> hyper::Result<()> {
    let Session { mut stream, sniffed, permit, handler, connection, limits, pulse, stop } = session;
    stream.put_back(sniffed);
    let max_head = limits.max_head;
    let service =
        service_fn(|request| answer(request, max_head, handler.clone(), Arc::clone(&connection), Arc::clone(&pulse)));
    let wire = Wire::new(stream, Frames::new(), Arc::clone(&pulse), None, limits.write_timeout, permit);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(max_head.saturating_mul(HEAD_ROOM)).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN);
    let mut http = pin!(builder.serve_connection(TokioIo::new(wire), service));
    let mut stopped = pin!(stop.cancelled());
    let (mut stopping, mut hurried) = (false, false);
    let mut deadline = Deadline::new(&pulse, &limits);
    let mut age = Age::new(&pulse, &limits);

    let ended = std::future::poll_fn(|cx| {
        if !hurried && stopped.as_mut().poll(cx).is_ready() {
            hurried = true;
            pulse.hurry();
            if !stopping {
                stopping = true;
                http.as_mut().graceful_shutdown();
            }
        }
        loop {
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                return Poll::Ready(Ok(ended));
            }
            // A handshake has a deadline of its own, and nobody yet who would understand a GOAWAY.
            if !stopping && !pulse.is_head_awaited() && age.is_reached(cx) {
                stopping = true;
                http.as_mut().graceful_shutdown();
                continue;
            }
            match ready!(deadline.poll(&pulse, &limits, cx)) {
                // GOAWAY first, and once more the same time for the client to close: a request that crosses ours on
                // its way is answered, or known not to have been handled.
                Wait::Idle if !stopping => {
                    stopping = true;
                    pulse.idle_anew();
                    http.as_mut().graceful_shutdown();
                }
                wait @ (Wait::Head | Wait::Idle | Wait::Write | Wait::Linger | Wait::HalfClosed) => {
                    return Poll::Ready(Err(wait));
                }
            }
        }
    })
    .await;
    match ended {
        Ok(ended) => ended,
        Err(Wait::Head) if pulse.has_opened() => {
            // Counted and logged like that of HTTP/1.1; between frames of a head there is no way to answer it.
            drop(handler.refuse(Refusal::from(Reason::HeadTimeout), Arc::clone(&connection)).await);
            Ok(())
        }
        // Who has not even begun asked for nothing.
        Err(Wait::Head | Wait::Idle | Wait::Write | Wait::Linger | Wait::HalfClosed) => Ok(()),
    }
}

async fn answer<H: Handler>(
    request: Request<Incoming>,
    max_head: usize,
    handler: H,
    connection: Arc<Connection>,
    pulse: Arc<Pulse>,
) -> Result<Response<Answer<H::Body>>, Infallible> {
    pulse.heads_ended(1);
    let exchange = Exchange::new(pulse);
    let response = match check(&request, max_head) {
        Ok(()) => handler.handle(request.map(Arriving::on_stream), connection, None).await,
        Err(reason) => handler.refuse(Refusal::from(reason), connection).await,
    };
    Ok(response.map(|body| Answer::on_stream(body, exchange)))
}

/// What h2 leaves to us of RFC 9113 s8.3: it refuses connection-specific fields, malformed pseudo-fields and names in upper
/// case itself, and frames bodies by frames alone, whose sum it compares with the first Content-Length.
fn check<B>(request: &Request<B>, max_head: usize) -> Result<(), Reason> {
    let uri = request.uri();
    match request.method().as_str() {
        "CONNECT" => return Err(Reason::MethodConnect),
        "PRI" => return Err(Reason::MethodPri),
        _ => {}
    }
    let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    // As large as it would be in HTTP/1.1.
    let line = request.method().as_str().len() + path.len() + "  HTTP/1.1\r\n".len();
    if line > max_head {
        return Err(Reason::TargetTooLong);
    }
    let fields = request.headers();
    let lines = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum::<usize>();
    if line + lines > max_head {
        return Err(Reason::HeadTooLarge);
    }
    if !guard::target_is_valid(request.method().as_str().as_bytes(), path.as_bytes()) {
        return Err(Reason::Target);
    }
    let mut hosts = fields.get_all(http::header::HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Reason::HostRepeated);
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let named = authority.or(host).ok_or(Reason::HostMissing)?;
    if !guard::authority_is_valid(named) {
        return Err(if authority.is_some() { Reason::Target } else { Reason::HostInvalid });
    }
    let default_port: &[u8] = if uri.scheme() == Some(&http::uri::Scheme::HTTPS) { b":443" } else { b":80" };
    if let (Some(authority), Some(host)) = (authority, host)
        && !guard::same_authority(authority, host, default_port)
    {
        return Err(Reason::Authority);
    }
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Reason::Target);
    }
    if fields.get_all(http::header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Reason::LengthRepeated);
    }
    if fields.len() > guard::FIELDS_MAX {
        return Err(Reason::TooManyFields);
    }
    if fields.keys().any(|name| guard::looks_like_framing(name.as_str().as_bytes())) {
        return Err(Reason::Lookalike);
    }
    if fields.values().any(|value| has_blank_end(value.as_bytes())) {
        return Err(Reason::FieldValue);
    }
    if fields.contains_key(http::header::TRANSFER_ENCODING) {
        return Err(Reason::Coding);
    }
    let expects = fields.get_all(http::header::EXPECT).iter();
    if expects.into_iter().any(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Reason::Expectation);
    }
    Ok(())
}

/// HTTP/1.1 takes such blanks for no part of the value, and whoever comes next may speak it.
fn has_blank_end(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.first()) || is_blank(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(build: http::request::Builder) -> Result<(), Reason> {
        check(&build.body(()).unwrap(), 1000)
    }

    // contract: section 8
    #[test]
    fn an_http2_request_names_one_authority() {
        let get = |uri: &str| Request::get(uri);
        assert_eq!(checked(get("https://a.example/x?y")), Ok(()));
        assert_eq!(checked(get("https://a.example/").header("host", "A.example:443")), Ok(()));
        assert_eq!(checked(get("http://a.example/").header("host", "b.example")), Err(Reason::Authority));
        assert_eq!(checked(get("http://a.example/").header("host", "a.example:443")), Err(Reason::Authority));
        assert_eq!(checked(get("http://a@a.example/")), Err(Reason::Target));
        assert_eq!(checked(get("/")), Err(Reason::HostMissing));
        assert_eq!(checked(get("/").header("host", "a/b")), Err(Reason::HostInvalid));
        assert_eq!(checked(get("/").header("host", "a").header("host", "a")), Err(Reason::HostRepeated));
    }

    #[test]
    fn an_http2_head_is_as_long_as_an_http1_head_may_be() {
        let get = |path: &str| Request::get(format!("http://a.example/{path}"));
        assert_eq!(checked(get(&"x".repeat(980))), Ok(()));
        assert_eq!(checked(get(&"x".repeat(990))), Err(Reason::TargetTooLong));
        assert_eq!(checked(get("").header("x", "y".repeat(980)).header("z", "")), Err(Reason::HeadTooLarge));
    }

    // contract: R-2
    #[test]
    fn an_http2_request_has_a_method_and_a_target_that_http1_would_have() {
        assert_eq!(checked(Request::connect("a.example:443")), Err(Reason::MethodConnect));
        assert_eq!(checked(Request::builder().method("PRI").uri("http://a/")), Err(Reason::MethodPri));
        assert_eq!(checked(Request::post("/x").header("host", "a").header("expect", "cake")), Err(Reason::Expectation));
        assert_eq!(
            checked(Request::post("/x").header("host", "a").header("content_length", "1")),
            Err(Reason::Lookalike)
        );
        assert_eq!(checked(Request::post("*").header("host", "a")), Err(Reason::Target));
        assert_eq!(checked(Request::get("ftp://a.example/")), Err(Reason::Target));
        assert_eq!(
            checked(
                Request::post("/x").header("host", "a").header("content-length", "1").header("content-length", "1")
            ),
            Err(Reason::LengthRepeated)
        );
        assert_eq!(checked(Request::options("*").header("host", "a")), Ok(()));
        let valued = |value: &str| checked(Request::post("/x").header("host", "a").header("idempotency-key", value));
        for value in [" k", "k ", "\tk", "k\t", " "] {
            assert_eq!(valued(value), Err(Reason::FieldValue), "{value:?}");
        }
        assert_eq!((valued("k k"), valued("")), (Ok(()), Ok(())));
    }
}
