//! HTTP/2 on a connection: by ALPN, or with prior knowledge.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    Connection, Handler,
    connection::Session,
    deadline::{Age, Deadline, Pulse, Wait},
    exchange::{Answer, Exchange},
    guard,
    refusal::{Reason, Refusal},
    sniff::PREFACE,
    wire::{Inlet, Wire},
};

/// Streams that a client may have open at a time; what it also may have reset and left us to clean up.
const STREAMS_MAX: u32 = 200;
/// Streams that were reset before we answered (CVE-2023-44487), and that we reset for a client's errors
/// (CVE-2025-8671). Beyond, the connection ends with ENHANCE_YOUR_CALM.
const RESETS_MAX: usize = 100;
/// Body bytes that a client may send on one stream, and on all of a connection, before we take them.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of answers that wait for one stream's window.
const SEND_BUFFER: usize = 64 * 1024;
/// A client that says nothing is asked whether it is still there, and is given that long to say so.
const PING_AFTER: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Serves requests until the connection ends, its deadlines end it, or `stop` does and what is under way is answered.
pub(super) async fn serve<H: Handler>(session: Session<H>) -> hyper::Result<()> {
    let Session { stream, sniffed, permit, handler, connection, limits, pulse, stop } = session;
    let service = service_fn(|request| answer(request, handler.clone(), Arc::clone(&connection), Arc::clone(&pulse)));
    let wire = Wire::new(stream, Opening::new(sniffed), Arc::clone(&pulse), None, limits.write_timeout, permit);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN);
    let mut http = pin!(builder.serve_connection(TokioIo::new(wire), service));
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let mut deadline = Deadline::new(&pulse, &limits);
    let mut age = Age::new(&pulse, &limits);

    std::future::poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            pulse.hurry();
            http.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                return Poll::Ready(ended);
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
                Wait::Head | Wait::Idle | Wait::Write | Wait::Linger | Wait::HalfClosed => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

async fn answer<H: Handler>(
    request: Request<Incoming>,
    handler: H,
    connection: Arc<Connection>,
    pulse: Arc<Pulse>,
) -> Result<Response<Answer<H::Body>>, Infallible> {
    pulse.heads_ended(1);
    let exchange = Exchange::new(pulse);
    let response = match check(&request) {
        Ok(()) => handler.handle(request, connection, None).await,
        Err(reason) => handler.refuse(Refusal::from(reason), connection).await,
    };
    Ok(response.map(|body| Answer::on_stream(body, exchange)))
}

/// What h2 leaves to us of RFC 9113 s8.3: it refuses connection-specific fields, malformed pseudo-fields and names in upper
/// case itself, and frames bodies by frames alone, whose sum it compares with the first Content-Length.
fn check<B>(request: &Request<B>) -> Result<(), Reason> {
    let uri = request.uri();
    match request.method().as_str() {
        "CONNECT" => return Err(Reason::MethodConnect),
        "PRI" => return Err(Reason::MethodPri),
        _ => {}
    }
    let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if !guard::target_is_valid(request.method().as_str().as_bytes(), path.as_bytes()) {
        return Err(Reason::Target);
    }
    let mut hosts = request.headers().get_all(http::header::HOST).iter();
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
    let fields = request.headers();
    if fields.get_all(http::header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Reason::LengthRepeated);
    }
    if fields.len() > guard::FIELDS_MAX {
        return Err(Reason::TooManyFields);
    }
    if fields.keys().any(|name| guard::looks_like_framing(name.as_str().as_bytes())) {
        return Err(Reason::Lookalike);
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

/// Follows the preface and the first SETTINGS frame (RFC 9113 s3.4), for which h2 would wait for ever.
struct Opening {
    /// What was read to tell the protocol.
    sniffed: Vec<u8>,
    /// The first frame's header, as far as it is there.
    header: [u8; FRAME_HEADER],
    seen: usize,
}

const FRAME_HEADER: usize = 9;
/// The kind of a SETTINGS frame, and the flag of one that acknowledges another's.
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

impl Opening {
    const fn new(sniffed: Vec<u8>) -> Self {
        Self { sniffed, header: [0; FRAME_HEADER], seen: 0 }
    }

    /// Whether the opening is whole with these bytes.
    ///
    /// # Errors
    /// The first frame is not SETTINGS, which h2 does not insist on. All else is h2's to check.
    fn is_over_with(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let header_at = PREFACE.len();
        let body_at = header_at + FRAME_HEADER;
        for (position, byte) in (self.seen..body_at).zip(bytes) {
            if let Some(place) = position.checked_sub(header_at) {
                self.header[place] = *byte;
            }
        }
        self.seen += bytes.len();
        let [high, middle, low, kind, flags, ..] = self.header;
        if self.seen >= body_at && (kind, flags & ACK) != (SETTINGS, 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is not SETTINGS"));
        }
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        Ok(self.seen >= body_at + length)
    }
}

impl Inlet for Opening {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        pulse: &Pulse,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.sniffed.is_empty() {
            ready!(Pin::new(stream).poll_read(cx, buf))?;
        } else {
            let count = self.sniffed.len().min(buf.remaining());
            buf.put_slice(&self.sniffed[..count]);
            self.sniffed.drain(..count);
        }
        if pulse.begun() == 0 && pulse.is_head_awaited() && self.is_over_with(&buf.filled()[before..])? {
            pulse.handshake_ended();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(build: http::request::Builder) -> Result<(), Reason> {
        check(&build.body(()).unwrap())
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
    }

    #[test]
    fn the_opening_is_over_with_the_last_byte_of_the_first_settings() {
        let settings = [&PREFACE[..], &[0, 0, 6, 4, 0, 0, 0, 0, 0], &[0, 3, 0, 0, 0, 1]].concat();
        for cut in 1..settings.len() {
            let mut opening = Opening::new(Vec::new());
            assert!(!opening.is_over_with(&settings[..cut]).unwrap());
            assert!(opening.is_over_with(&settings[cut..]).unwrap());
        }
    }

    #[test]
    fn an_opening_without_settings_is_none() {
        for first in [[0, 0, 8, 6, 0, 0, 0, 0, 0], [0, 0, 0, 4, 1, 0, 0, 0, 0], *b"GET / HTT"] {
            assert!(Opening::new(Vec::new()).is_over_with(&[&PREFACE[..], &first].concat()).is_err(), "{first:?}");
        }
    }
}
