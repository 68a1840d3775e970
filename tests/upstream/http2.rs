//! HTTP/2 upstreams, scripted frame by frame with `h2`.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use oncegate::upstream::{SendError, Unsent, Upstreams};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::script::{GUARDED, IDEMPOTENT, PASSED, exchange, get, post, upstream_with};

type Incoming = (Request<RecvStream>, SendResponse<Bytes>);

/// An HTTP/2 upstream that plays `play` on every connection.
async fn serve<F>(
    streams_max: u32,
    play: impl Fn(h2::server::Connection<TcpStream, Bytes>) -> F + Send + 'static,
) -> (Upstreams, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let connection =
                h2::server::Builder::new().max_concurrent_streams(streams_max).handshake(stream).await.unwrap();
            tokio::spawn(play(connection));
        }
    });
    (upstream_with(port, |settings| settings.http2 = true), connections)
}

fn answer((request, mut respond): Incoming) {
    let body = format!("{:?} {}", request.version(), request.uri());
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(body.into(), true).unwrap();
}

async fn answer_all(mut connection: h2::server::Connection<TcpStream, Bytes>) {
    while let Some(Ok(incoming)) = connection.accept().await {
        answer(incoming);
    }
}

#[tokio::test]
async fn the_host_becomes_the_authority() {
    let (upstreams, connections) = serve(100, answer_all).await;
    for _ in 0..3 {
        let response = upstreams.get(0).send(post(), GUARDED).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "HTTP/2.0 http://api.example.com/v1/charges?a=b");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn first_requests_that_come_together_share_a_connection() {
    let (upstreams, connections) = serve(100, answer_all).await;
    let upstreams = Arc::new(upstreams);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let upstreams = Arc::clone(&upstreams);
            tokio::spawn(async move { exchange(upstreams.get(0), post(), GUARDED).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(upstreams.get(0).connections(), 1);
}

#[tokio::test]
async fn another_connection_is_made_when_the_peer_allows_no_more_streams() {
    let (upstreams, connections) = serve(1, |mut connection| async move {
        // Answers nothing.
        let mut held = Vec::new();
        while let Some(Ok(incoming)) = connection.accept().await {
            answer_head(incoming, &mut held);
        }
    })
    .await;
    let mut held = Vec::new();
    for made in 1..=3 {
        held.push(upstreams.get(0).send(post(), GUARDED).await.unwrap());
        assert_eq!(connections.load(Ordering::SeqCst), made);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_minute() {
    let (upstreams, connections) = serve(100, answer_all).await;
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(59)).await;
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    tokio::time::resume();
    crate::script::until(|| upstreams.get(0).connections() == 0).await;
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// Begins an answer and leaves it open.
fn answer_head((_, mut respond): Incoming, held: &mut Vec<h2::SendStream<Bytes>>) {
    held.push(respond.send_response(Response::new(()), false).unwrap());
}

// contract: R-11
#[tokio::test]
async fn a_refused_stream_is_never_sent() {
    let (upstreams, _) = serve(100, |mut connection| async move {
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
    })
    .await;
    let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
    assert!(matches!(error, SendError::NeverSent(Unsent::Refused(_))), "{error:?}");
}

#[tokio::test]
async fn an_idempotent_request_whose_stream_was_refused_goes_over_a_new_connection() {
    let (upstreams, connections) = serve(100, |mut connection| async move {
        // One stream of each connection is served.
        if let Some(Ok(incoming)) = connection.accept().await {
            answer(incoming);
        }
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
    })
    .await;
    exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap();
    exchange(upstreams.get(0), get(), IDEMPOTENT).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    let error = upstreams.get(0).send(post(), PASSED).await.unwrap_err();
    assert!(matches!(error, SendError::NeverSent(Unsent::Refused(_))), "{error:?}");
}

// contract: R-11
#[tokio::test]
async fn a_stream_that_was_reset_for_another_reason_is_lost() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let (upstreams, _) = serve(100, move |mut connection| async move {
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_reset(reason);
            }
        })
        .await;
        let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
        assert!(matches!(error, SendError::Lost(_)), "{reason:?}: {error:?}");
    }
}

// contract: R-11
#[tokio::test]
async fn a_connection_that_breaks_with_the_stream_open_is_lost() {
    let (upstreams, _) = serve(100, |mut connection| async move {
        drop(connection.accept().await);
    })
    .await;
    let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
    assert!(matches!(error, SendError::Lost(_)), "{error:?}");
}

/// Writes raw frames: `h2`'s server always counts the streams it has seen into GOAWAY's last id.
async fn raw(play: impl AsyncFnOnce(TcpStream) + 'static) -> Upstreams {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        play(stream).await;
    });
    upstream_with(port, |settings| settings.http2 = true)
}

fn goaway(last: u8, reason: u8) -> [u8; 17] {
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, reason]
}

/// Reads frames until the HEADERS of a request have come.
async fn until_headers(stream: &mut TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == 1 {
            return;
        }
    }
}

// contract: R-11
#[tokio::test]
async fn a_stream_above_goaways_last_id_is_never_sent() {
    use tokio::io::AsyncWriteExt;
    tokio::task::LocalSet::new()
        .run_until(async {
            for reason in [0, 11] {
                let upstreams = raw(async move |mut stream: TcpStream| {
                    until_headers(&mut stream).await;
                    stream.write_all(&goaway(0, reason)).await.unwrap();
                    std::future::pending::<()>().await;
                })
                .await;
                let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
                assert!(matches!(error, SendError::NeverSent(Unsent::Refused(_))), "{reason}: {error:?}");
            }
        })
        .await;
}

// contract: R-11
#[tokio::test]
async fn a_stream_within_goaways_last_id_is_lost() {
    use tokio::io::AsyncWriteExt;
    tokio::task::LocalSet::new()
        .run_until(async {
            for reason in [0, 2, 11] {
                let upstreams = raw(async move |mut stream: TcpStream| {
                    until_headers(&mut stream).await;
                    stream.write_all(&goaway(1, reason)).await.unwrap();
                })
                .await;
                let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
                assert!(matches!(error, SendError::Lost(_)), "{reason}: {error:?}");
            }
        })
        .await;
}

// contract: R-11, P-2
#[tokio::test]
async fn an_answer_that_is_cut_off_without_an_error_is_not_whole() {
    use tokio::io::AsyncWriteExt;
    const HEAD: &[u8] = &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
    const LAST_HEAD: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
    const HALF: &[u8] = b"\0\0\x03\0\0\0\0\0\x01par";
    const LAST: &[u8] = b"\0\0\x03\0\x01\0\0\0\x01par";
    const RESET: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let away = goaway(1, 0);
    let none = goaway(0, 0);
    let cases: [(&str, bool, &[&[u8]]); 8] = [
        ("reset after half", false, &[HEAD, HALF, RESET]),
        ("reset after the head", false, &[HEAD, RESET]),
        ("going away after half", false, &[HEAD, HALF, &away]),
        ("going away, and not having begun, after half", false, &[HEAD, HALF, &none]),
        ("closed after half", false, &[HEAD, HALF]),
        ("whole, then reset", true, &[HEAD, LAST, RESET]),
        ("a whole head, then reset", true, &[LAST_HEAD, RESET]),
        ("whole, then going away", true, &[HEAD, HALF, LAST, &away]),
    ];
    tokio::task::LocalSet::new()
        .run_until(async {
            for (what, whole, frames) in cases {
                for at_once in [true, false] {
                    let frames: Vec<_> = frames.iter().map(|frame| frame.to_vec()).collect();
                    let upstreams = raw(async move |mut stream: TcpStream| {
                        until_headers(&mut stream).await;
                        if at_once {
                            stream.write_all(&frames.concat()).await.unwrap();
                        } else {
                            for frame in frames {
                                stream.write_all(&frame).await.unwrap();
                                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                            }
                        }
                    })
                    .await;
                    match upstreams.get(0).send(post(), GUARDED).await {
                        Ok(answer) => {
                            let body = answer.into_body().collect().await;
                            assert_eq!(body.is_ok(), whole, "{what}, at once: {at_once}: {body:?}");
                        }
                        Err(error) => assert!(!whole && matches!(error, SendError::Lost(_)), "{what}: {error:?}"),
                    }
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_is_going_away_takes_no_more_requests() {
    let (upstreams, connections) = serve(100, |mut connection| async move {
        if let Some(Ok(incoming)) = connection.accept().await {
            answer(incoming);
            connection.graceful_shutdown();
        }
        while let Some(Ok(incoming)) = connection.accept().await {
            answer(incoming);
        }
    })
    .await;
    for _ in 0..3 {
        exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
        crate::script::until(|| upstreams.get(0).connections() == 0).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn dropping_the_future_resets_the_stream_and_spares_the_connection() {
    let (arrived, cancelled) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, tell) = (Arc::clone(&arrived), Arc::clone(&cancelled));
    let (upstreams, connections) = serve(100, move |mut connection| {
        let (told, tell) = (Arc::clone(&told), Arc::clone(&tell));
        async move {
            let (_, mut first) = connection.accept().await.unwrap().unwrap();
            told.notify_one();
            tokio::spawn(async move {
                let reason = std::future::poll_fn(|cx| first.poll_reset(cx)).await.unwrap();
                assert_eq!(reason, Reason::CANCEL);
                tell.notify_one();
            });
            answer_all(connection).await;
        }
    })
    .await;
    tokio::select! {
        _ = upstreams.get(0).send(post(), PASSED) => panic!("nobody answers"),
        () = arrived.notified() => {}
    }
    cancelled.notified().await;
    exchange(upstreams.get(0), post(), PASSED).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}
