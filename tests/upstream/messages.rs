//! What goes over the wire, and what comes back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use oncegate::{body::RequestBody, config::settled::UpstreamTarget};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::mpsc,
};

use crate::script::{
    GUARDED, IDEMPOTENT, OK, PASSED, Peer, Script, exchange, get, post, request, until, upstream, upstream_with,
};

/// Sends each, and tells what the upstream saw.
async fn seen(requests: Vec<Request<RequestBody>>) -> Vec<String> {
    let (tell, mut told) = mpsc::channel(16);
    let script = Script::start(move |mut peer: Peer| {
        let tell = tell.clone();
        async move {
            while let Some(request) = peer.request().await {
                tell.send(request).await.unwrap();
                peer.answer(OK).await;
            }
        }
    })
    .await;
    let upstreams = upstream(script.port);
    let mut seen = Vec::new();
    for request in requests {
        exchange(upstreams.get(0), request, PASSED).await.unwrap();
        seen.push(told.recv().await.unwrap());
    }
    seen
}

/// A body of unknown length.
struct Unsized(Option<Bytes>);

impl http_body::Body for Unsized {
    type Data = Bytes;
    type Error = oncegate::body::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

#[tokio::test]
async fn each_body_has_the_framing_that_fits() {
    let streamed = || RequestBody::stream(Unsized(Some(Bytes::from_static(b"abc"))));
    let requests = vec![
        get(),
        post(),
        request(Method::POST, RequestBody::empty()),
        request(Method::POST, streamed()),
        // Rare, but spoken by some search engines' clients: a GET whose content is chunked.
        request(Method::GET, streamed()),
    ];
    let seen = seen(requests).await;
    assert_eq!(seen[0], "GET /v1/charges?a=b HTTP/1.1\r\nhost: api.example.com\r\n\r\n");
    assert!(seen[1].contains("content-length: 8\r\n") && seen[1].ends_with("\r\n\r\namount=1"), "{}", seen[1]);
    assert!(seen[2].contains("content-length: 0\r\n"), "{}", seen[2]);
    assert!(seen[3].contains("transfer-encoding: chunked\r\n"), "{}", seen[3]);
    assert!(seen[4].contains("transfer-encoding: chunked\r\n") && seen[4].contains("abc"), "{}", seen[4]);
}

#[tokio::test]
async fn an_answer_that_came_early_leaves_a_connection_that_is_not_used_again() {
    let script = Script::start(|mut peer: Peer| async move {
        // The head alone is enough for it.
        peer.head().await;
        peer.answer("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
        peer.closed().await;
    })
    .await;
    let upstreams = upstream(script.port);
    let endless = || RequestBody::stream(Endless);
    for _ in 0..2 {
        let response = upstreams.get(0).send(request(Method::POST, endless()), PASSED).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
        let at_once = Duration::from_millis(500);
        tokio::time::timeout(at_once, until(|| upstreams.get(0).connections() == 0)).await.expect("it closes at once");
    }
    assert_eq!(script.connections(), 2);
}

// contract: R-11
#[tokio::test]
async fn an_early_answer_is_read_although_the_connection_is_reset_after_it() {
    for plan in [PASSED, GUARDED] {
        let (go_on, rest) = mpsc::channel(1);
        let script = Script::start(move |mut peer: Peer| {
            let go_on = go_on.clone();
            async move {
                // Closing over what is left of the head is a reset.
                peer.stream.read_exact(&mut [0; 16]).await.unwrap();
                peer.answer("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
                drop(peer);
                // In one step with it, so that the connection is written to before it is seen to be readable.
                go_on.try_send(Bytes::from_static(b"more")).unwrap();
            }
        })
        .await;
        let upstreams = upstream(script.port);
        let response =
            upstreams.get(0).send(request(Method::POST, RequestBody::stream(Rest(rest))), plan).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
        until(|| upstreams.get(0).connections() == 0).await;
    }
}

/// A body that goes on when it is told to, and never ends.
struct Rest(mpsc::Receiver<Bytes>);

impl http_body::Body for Rest {
    type Data = Bytes;
    type Error = oncegate::body::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.0.poll_recv(cx) {
            std::task::Poll::Ready(Some(bytes)) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
            std::task::Poll::Ready(None) | std::task::Poll::Pending => std::task::Poll::Pending,
        }
    }
}

/// A body that never goes on.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = oncegate::body::BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn a_large_body_that_the_upstream_does_not_read_does_not_go_before_the_next_request() {
    let script = Script::start(|mut peer: Peer| async move {
        let mut head = [0; 64];
        peer.stream.read_exact(&mut head).await.unwrap();
        peer.answer(OK).await;
        // It stays open, and reads no more.
        std::future::pending::<()>().await;
    })
    .await;
    let upstreams = upstream(script.port);
    for _ in 0..2 {
        let large = RequestBody::full(Bytes::from(vec![b'x'; 32 << 20]));
        exchange(upstreams.get(0), request(Method::POST, large), GUARDED).await.unwrap();
    }
    assert_eq!(script.connections(), 2);
}

#[tokio::test]
async fn interim_answers_are_told_and_skipped() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.answer("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
        peer.answer(OK).await;
    })
    .await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let mut request = post();
    hyper::ext::on_informational(&mut request, move |interim| tell.lock().unwrap().push(interim.status().as_u16()));
    assert_eq!(exchange(upstream(script.port).get(0), request, GUARDED).await.unwrap(), "ok");
    assert_eq!(*told.lock().unwrap(), [103]);
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_that_is_counted_and_not_pooled() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.answer("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
        let (mut read, mut write) = peer.stream.split();
        _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let upstreams = upstream(script.port);
    let mut request = get();
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let mut response = upstreams.get(0).send(request, IDEMPOTENT).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    drop(response);
    tunnel.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    tunnel.read_exact(&mut echo).await.unwrap();
    assert_eq!((&echo, upstreams.get(0).connections()), (b"ping", 1));
    drop(tunnel);
    until(|| upstreams.get(0).connections() == 0).await;
}

#[tokio::test]
async fn a_head_without_end_is_lost() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.answer("HTTP/1.1 200 OK\r\n").await;
        for line in 0..3000 {
            peer.answer(&format!("x-{line}: {}\r\n", "y".repeat(60))).await;
        }
        peer.closed().await;
    })
    .await;
    let upstreams = upstream(script.port);
    assert!(upstreams.get(0).send(post(), GUARDED).await.is_err());
    until(|| upstreams.get(0).connections() == 0).await;
}

#[tokio::test]
async fn a_unix_socket_is_an_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.unwrap() > 0 {
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    let upstreams = upstream_with(0, |settings| settings.urls[0].target = UpstreamTarget::Unix(path));
    for _ in 0..2 {
        assert_eq!(exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap(), "ok");
    }
}
