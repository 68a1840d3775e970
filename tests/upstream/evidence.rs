//! Proven unsent, or lost; sent once, or again.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use oncegate::{
    body::{BodyError, RequestBody},
    upstream::{LostHow, SendError, Unsent},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};

use crate::script::{
    GUARDED, IDEMPOTENT, OK, PASSED, Peer, Script, exchange, get, post, request, until, upstream, upstream_with,
};

async fn refused_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

// contract: R-11
#[tokio::test]
async fn a_refused_connection_is_never_sent() {
    let upstreams = upstream(refused_port().await);
    let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
    assert!(matches!(error, SendError::NeverSent(Unsent::Connect(_))), "{error:?}");
    assert_eq!(upstreams.get(0).connections(), 0);
}

// contract: R-11
#[tokio::test]
async fn a_name_without_an_address_is_never_sent() {
    let upstreams = upstream_with(1, |settings| {
        settings.urls[0].target = oncegate::config::settled::UpstreamTarget::Tcp("no such name.invalid".into(), 1);
    });
    let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
    assert!(matches!(error, SendError::NeverSent(Unsent::NameLookup(_))), "{error:?}");
}

/// How long the tests that wait for nothing wait.
const PATIENCE: Duration = Duration::from_millis(200);

/// A port whose backlog is full: the kernel drops whatever knocks.
async fn black_hole() -> (u16, impl Sized) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let mut fillers = Vec::new();
    while let Ok(Ok(stream)) = timeout(PATIENCE, TcpStream::connect(("127.0.0.1", port))).await {
        fillers.push(stream);
    }
    (port, (socket, fillers))
}

// contract: R-11
#[tokio::test]
async fn a_connection_that_is_never_accepted_times_out_unsent() {
    let (port, _kept) = black_hole().await;
    let upstreams = upstream_with(port, |settings| settings.connect_timeout = PATIENCE);
    let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
    let SendError::NeverSent(unsent) = error else { panic!("{error:?}") };
    assert!(unsent.is_connect_timeout());
    assert_eq!(upstreams.get(0).connections(), 0);
}

#[tokio::test]
async fn those_who_would_share_a_connection_do_not_wait_for_it_one_after_another() {
    let (port, _kept) = black_hole().await;
    let upstreams = Arc::new(upstream_with(port, |settings| {
        settings.connect_timeout = PATIENCE;
        settings.http2 = true;
    }));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let upstreams = Arc::clone(&upstreams);
            tokio::spawn(async move { upstreams.get(0).send(post(), GUARDED).await.unwrap_err() })
        })
        .collect();
    timeout(PATIENCE * 5, async {
        for task in tasks {
            let error = task.await.unwrap();
            assert!(matches!(error, SendError::NeverSent(Unsent::ConnectTimeout)), "{error:?}");
        }
    })
    .await
    .expect("all are told together");
}

// contract: R-11
#[tokio::test]
async fn a_reset_before_the_request_was_read_is_lost() {
    let script = Script::start(|peer: Peer| async move {
        peer.stream.readable().await.unwrap();
        peer.reset();
    })
    .await;
    let error = upstream(script.port).get(0).send(post(), GUARDED).await.unwrap_err();
    assert!(matches!(error, SendError::Lost(LostHow::Broken(_))), "the kernel had taken it: {error:?}");
}

// contract: R-11
#[tokio::test]
async fn a_connection_closed_after_the_request_was_read_is_lost() {
    let script = Script::start(|mut peer: Peer| async move { drop(peer.request().await) }).await;
    let error = upstream(script.port).get(0).send(post(), GUARDED).await.unwrap_err();
    assert!(matches!(error, SendError::Lost(LostHow::Broken(_))), "{error:?}");
    assert_eq!(script.requests(), 1);
}

// contract: R-11
#[tokio::test]
async fn an_answer_cut_in_its_head_is_lost() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.answer("HTTP/1.1 200 OK\r\ncontent-le").await;
    })
    .await;
    let error = upstream(script.port).get(0).send(post(), GUARDED).await.unwrap_err();
    assert!(matches!(error, SendError::Lost(_)), "{error:?}");
}

// contract: R-11
#[tokio::test]
async fn what_is_not_http_is_lost() {
    for garbage in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1,2\r\n\r\n"]
    {
        let script = Script::start(move |mut peer: Peer| async move {
            peer.request().await;
            peer.answer(garbage).await;
        })
        .await;
        let upstreams = upstream(script.port);
        let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
        assert!(matches!(error, SendError::Lost(LostHow::Malformed(_))), "{garbage:?}: {error:?}");
        until(|| upstreams.get(0).connections() == 0).await;
    }
}

#[tokio::test]
async fn an_answer_cut_in_its_body_is_no_whole_answer() {
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ] {
        let script = Script::start(move |mut peer: Peer| async move {
            peer.request().await;
            peer.answer(cut).await;
        })
        .await;
        let upstreams = upstream(script.port);
        let response = upstreams.get(0).send(post(), GUARDED).await.unwrap();
        assert!(response.into_body().collect().await.is_err(), "{cut}");
        until(|| upstreams.get(0).connections() == 0).await;
    }
}

/// Answers the first request of each connection, and reads the second's head without answering it.
async fn dies_on_reuse() -> Script {
    Script::start(|mut peer: Peer| async move {
        peer.head().await;
        peer.answer(OK).await;
        if peer.head().await.is_some() {
            peer.reset();
        }
    })
    .await
}

// contract: P-6
#[tokio::test]
async fn a_request_that_must_not_be_repeated_is_not_on_a_connection_that_died() {
    let guarded_put = oncegate::upstream::Plan { guarded: true, idempotent: true, worker: 0 };
    for plan in [GUARDED, PASSED, guarded_put] {
        let script = dies_on_reuse().await;
        let upstreams = upstream(script.port);
        exchange(upstreams.get(0), post(), plan).await.unwrap();
        let error = exchange(upstreams.get(0), post(), plan).await.unwrap_err();
        assert!(matches!(error, SendError::Lost(_)), "{error:?}");
        assert_eq!((script.connections(), script.requests()), (1, 2), "{plan:?}");
    }
}

#[tokio::test]
async fn an_idempotent_request_is_sent_once_more_on_a_new_connection() {
    let script = dies_on_reuse().await;
    let upstreams = upstream(script.port);
    exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap();
    assert_eq!(exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap(), "ok");
    assert_eq!((script.connections(), script.requests()), (2, 3));
}

#[tokio::test]
async fn an_idempotent_request_is_not_sent_a_third_time() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        if peer.nth == 1 {
            peer.answer(OK).await;
            peer.request().await;
        }
    })
    .await;
    let upstreams = upstream(script.port);
    exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap();
    assert!(exchange(upstreams.get(0), get(), IDEMPOTENT).await.is_err());
    assert_eq!(script.requests(), 3);
}

#[tokio::test]
async fn an_idempotent_request_that_was_answered_in_part_is_not_repeated() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.answer(OK).await;
        peer.request().await;
        peer.answer("HTTP/1.1 2").await;
    })
    .await;
    let upstreams = upstream(script.port);
    exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap();
    assert!(exchange(upstreams.get(0), get(), IDEMPOTENT).await.is_err());
    assert_eq!(script.requests(), 2);
}

/// One frame, then silence for ever.
struct Begun(Option<Bytes>);

impl Body for Begun {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

#[tokio::test]
async fn a_body_that_was_begun_is_not_taken_from_the_client_twice() {
    let script = dies_on_reuse().await;
    let upstreams = upstream(script.port);
    exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap();
    let begun = request(Method::PUT, RequestBody::stream(Begun(Some(Bytes::from_static(b"x")))));
    let error = upstreams.get(0).send(begun, IDEMPOTENT).await.unwrap_err();
    assert!(matches!(error, SendError::Lost(_)), "{error:?}");
    assert_eq!(script.requests(), 2);
}

#[tokio::test]
async fn a_body_of_which_nothing_came_yet_is_sent_to_the_new_connection() {
    let script = dies_on_reuse().await;
    let upstreams = upstream(script.port);
    exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap();
    let silent = request(Method::PUT, RequestBody::stream(Begun(None)));
    let response = upstreams.get(0).send(silent, IDEMPOTENT).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!((script.connections(), script.requests()), (2, 3));
}

// contract: P-6
#[tokio::test]
async fn a_connection_that_closed_while_it_was_idle_is_not_used() {
    let close = Arc::new(Notify::new());
    let told = Arc::clone(&close);
    let script = Script::start(move |mut peer: Peer| {
        let told = Arc::clone(&told);
        async move {
            peer.request().await;
            peer.answer(OK).await;
            told.notified().await;
        }
    })
    .await;
    let upstreams = upstream(script.port);
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    assert_eq!(upstreams.get(0).connections(), 1);
    close.notify_one();
    until(|| upstreams.get(0).connections() == 0).await;
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    assert_eq!((script.connections(), script.requests()), (2, 2));
}

/// Fails before it gives a byte.
struct Failing;

impl Body for Failing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Err(BodyError::Incomplete(None))))
    }
}

// contract: R-11
#[tokio::test]
async fn a_client_that_left_before_a_byte_was_written_sent_nothing() {
    let script = Script::start(Peer::serve).await;
    let upstreams = upstream(script.port);
    let error = upstreams.get(0).send(request(Method::POST, RequestBody::stream(Failing)), PASSED).await.unwrap_err();
    assert!(matches!(error, SendError::NeverSent(Unsent::RequestBody(_))), "{error:?}");
    until(|| upstreams.get(0).connections() == 0).await;
    assert_eq!(script.requests(), 0);
}

#[tokio::test]
async fn a_client_that_left_in_the_middle_is_told_apart_from_the_upstream() {
    let arrived = Arc::new(Notify::new());
    let tell = Arc::clone(&arrived);
    let script = Script::start(move |mut peer: Peer| {
        let tell = Arc::clone(&tell);
        async move {
            peer.head().await;
            tell.notify_one();
            peer.closed().await;
        }
    })
    .await;
    let (gate, chunks) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BodyError>>(1);
    let sending = async {
        let body = RequestBody::stream(Chunks(chunks));
        upstream(script.port).get(0).send(request(Method::POST, body), PASSED).await
    };
    let leaving = async {
        gate.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.unwrap();
        arrived.notified().await;
        gate.send(Err(BodyError::Incomplete(None))).await.unwrap();
    };
    let (sent, ()) = tokio::join!(sending, leaving);
    let error = sent.unwrap_err();
    assert!(matches!(error, SendError::Lost(LostHow::RequestBody(_))), "{error:?}");
}

/// A body whose frames come over a channel.
struct Chunks(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, BodyError>>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx)
    }
}

#[tokio::test]
async fn dropping_the_future_closes_the_connection() {
    let (arrived, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, tell) = (Arc::clone(&arrived), Arc::clone(&gone));
    let script = Script::start(move |mut peer: Peer| {
        let (told, tell) = (Arc::clone(&told), Arc::clone(&tell));
        async move {
            peer.request().await;
            told.notify_one();
            peer.closed().await;
            tell.notify_one();
        }
    })
    .await;
    let upstreams = upstream(script.port);
    tokio::select! {
        _ = upstreams.get(0).send(post(), GUARDED) => panic!("nobody answers"),
        () = arrived.notified() => {}
    }
    gone.notified().await;
    until(|| upstreams.get(0).connections() == 0).await;
}
