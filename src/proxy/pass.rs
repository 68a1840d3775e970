//! A request that passes: streamed both ways with back-pressure, store up or down (contract: P-7, R-3, section 8).

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;

use super::{
    Payload, Proxy, Reply, Visit, Visitor,
    exchange::unreachable,
    guarded::broken_body,
    headers::{self, IDEMPOTENCY_STATUS},
    refusal::Refusal,
    refused, trouble, tunnel,
};
use crate::{
    body::{BodyError, RequestBody},
    clock,
    config::settled::HostHeader,
    rule::{Outcome, method::Class, problem::Problem},
    server::{Interim, forwarded},
    store::Store,
    telemetry::metrics::Unguarded,
    upstream::{Plan, SendError},
};

impl<S: Store> Proxy<S> {
    /// Streams a request through. `unguarded` says why a request that should have been guarded is not.
    pub(super) async fn pass(
        &self,
        mut visitor: Visitor,
        body: RequestBody,
        visit: &mut Visit,
        unguarded: Option<Unguarded>,
    ) -> Reply {
        if let Some(reply) = last_hop(&mut visitor) {
            return reply;
        }
        if let Some(why) = unguarded {
            visit.metrics.unguarded(why);
        }
        let (live, route) = (Arc::clone(&visitor.live), Arc::clone(&visitor.route));
        let upgrade = headers::upgrade(visitor.head.version, &visitor.head.headers);
        let downstream = visitor.head.extensions.remove::<OnUpgrade>();
        let (body, watch) = Watched::new(body);
        let interim = visitor.interim.take();
        let mut request = request_for(visitor, RequestBody::stream(body));
        if let Some(interim) = interim {
            pass_interim(&mut request, interim);
        }
        if let Some(protocol) = &upgrade {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, protocol.clone());
        }
        let idempotent = visit.class != Class::NonIdempotent;
        let plan = Plan { guarded: unguarded.is_some(), idempotent, worker: self.worker };
        let started = clock::now();
        let sending = live.upstreams.get(route.upstream).send(request, plan);
        let sent = match route.policy.pass_timeout {
            Some(patience) => timeout(patience, sending).await.ok(),
            None => Some(sending.await),
        };
        let took = clock::now() - started;
        live.upstream_metrics[route.upstream].took(took);
        visit.upstream_took = Some(took);
        visit.bytes_in = watch.bytes();
        let refusal = match sent {
            Some(Ok(mut response)) => {
                let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                let protocol = upgrade.filter(|_| switched);
                let protocol = protocol.and_then(|asked| headers::switched_to(&asked, response.headers()));
                // What nobody asked for is no answer (RFC 9110 s7.8): nobody would know what is spoken from here on.
                if !switched || protocol.is_some() {
                    if switched {
                        tunnel::open(downstream, hyper::upgrade::on(&mut response), live.config.server.idle_timeout);
                    }
                    return passed(response.map(Payload::stream), protocol, unguarded);
                }
                tracing::warn!(route = %route.name, "the upstream switched protocols unasked");
                Refusal::new(Problem::UpstreamFailed)
            }
            Some(Err(error)) => match (watch.failure.get(), error) {
                // The client's own doing: the upstream was only told of it.
                (Some(refusal), _) => refusal.clone(),
                (None, SendError::NeverSent(unsent)) => unreachable(&unsent).passed(),
                (None, SendError::Lost(error)) => {
                    trouble::failed(&route, &error);
                    Refusal::new(Problem::UpstreamFailed)
                }
            },
            None => Refusal::new(Problem::UpstreamFailed).status(StatusCode::GATEWAY_TIMEOUT),
        };
        let mut reply = refused(refusal, &route.policy, None);
        if !watch.ended() {
            reply.response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

/// Interim answers of the upstream go on to the client (RFC 9110 s15.2), but for 100: the client has had its own. hyper
/// tells of those of an HTTP/1.1 upstream only.
fn pass_interim(request: &mut Request<RequestBody>, interim: Interim) {
    hyper::ext::on_informational(request, move |response| {
        let mut fields = response.headers().clone();
        headers::remove_hop_by_hop_in_order(&mut fields);
        interim.send(response.status(), &fields);
    });
}

/// The response of a request that was passed.
fn passed(mut response: Response<Payload>, upgraded: Option<HeaderValue>, unguarded: Option<Unguarded>) -> Reply {
    let headers = response.headers_mut();
    headers::one_content_length(headers);
    headers::remove_hop_by_hop_in_order(headers);
    if let Some(protocol) = upgraded {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    let outcome = if unguarded.is_some() { Outcome::Unguarded } else { Outcome::Passed };
    if let Some(field) = outcome.field(false) {
        headers.insert(IDEMPOTENCY_STATUS, field);
    }
    Reply { response, outcome, why: None, cause: None }
}

/// The request as the upstream sees it.
pub(super) fn request_for(visitor: Visitor, body: RequestBody) -> Request<RequestBody> {
    let Visitor { live, route, connection, interim: _, head } = visitor;
    let upstream = &live.config.upstreams[route.upstream];
    let host = super::authority(&head).to_owned();
    let (uri, method, mut fields, mut extensions) = (head.uri, head.method, head.headers, head.extensions);
    let trailers = upstream.http2 && headers::takes_trailers(&fields);
    let received = head.version;
    headers::remove_hop_by_hop(&mut fields);
    // Consumed here: the client has had its 100 (RFC 9110 s10.1.1); framing is made anew.
    fields.remove(header::EXPECT);
    fields.remove(header::CONTENT_LENGTH);
    fields.remove("http2-settings");
    if trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    forwarded::forward(&mut fields, &connection, &live.config.server.trusted_proxies, &host);
    let host = match upstream.host {
        HostHeader::Preserve => host,
        HostHeader::Upstream => upstream.urls[0].authority.clone(),
    };
    // Mostly it is the one that came.
    if fields.get(header::HOST).is_none_or(|came| came.as_bytes() != host.as_bytes())
        && let Ok(host) = HeaderValue::try_from(host)
    {
        fields.insert(header::HOST, host);
    }
    headers::add_via(&mut fields, received);
    extensions.clear();
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = origin_form(uri);
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = fields;
    *request.extensions_mut() = extensions;
    request
}

/// Path and query as they came; `*` stays `*`.
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    uri.into_parts().path_and_query.map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// `Max-Forwards` of OPTIONS and TRACE (RFC 9110 s7.6.2): at zero this is the last hop; else one less.
fn last_hop(visitor: &mut Visitor) -> Option<Reply> {
    let head = &mut visitor.head;
    if head.method != Method::OPTIONS && head.method != Method::TRACE {
        return None;
    }
    let left: u64 = head.headers.get(header::MAX_FORWARDS)?.to_str().ok()?.trim().parse().ok()?;
    if let Some(left) = left.checked_sub(1) {
        head.headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
        return None;
    }
    let mut response = Response::new(Payload::empty());
    if head.method == Method::TRACE {
        // What came is told back, less what could be a secret.
        let line = format!("TRACE {} HTTP/1.1\r\n\r\n", head.uri.path());
        *response.body_mut() = Payload::whole(Bytes::from(line));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("message/http"));
    } else {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    Some(Reply { response, outcome: Outcome::Passed, why: None, cause: None })
}

/// A request body on its way, watched: bytes, end, and the client's failures.
struct Watched {
    body: RequestBody,
    seen: Arc<Seen>,
}

/// What was seen of a body.
#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    ended: AtomicBool,
    /// What the client did wrong.
    failure: OnceLock<Refusal>,
}

impl Seen {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Watched {
    fn new(body: RequestBody) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        if body.is_end_stream() {
            seen.end();
        }
        (Self { body, seen: Arc::clone(&seen) }, seen)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.seen.bytes.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
                if self.body.is_end_stream() {
                    self.seen.end();
                }
            }
            Poll::Ready(None) => self.seen.end(),
            Poll::Ready(Some(Err(error))) => {
                _ = self.seen.failure.set(broken_body(error, self.seen.bytes() > 0));
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
