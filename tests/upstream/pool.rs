//! Reuse, the limit, the queue, two workers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use oncegate::{
    body::RequestBody,
    upstream::{Plan, SendError, Unsent, Upstreams},
};
use tokio::sync::{Notify, mpsc};

use crate::script::{
    GUARDED, OK, PASSED, Peer, Script, exchange, get, post, request, settings, until, upstream, upstream_with, url,
    whole,
};

#[tokio::test]
async fn a_connection_is_used_again_after_any_whole_answer() {
    for answer in [
        OK,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nsum: 1\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let script = Script::start(move |mut peer: Peer| async move {
            while peer.request().await.is_some() {
                peer.answer(answer).await;
            }
        })
        .await;
        let upstreams = upstream(script.port);
        for _ in 0..5 {
            exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
        }
        assert_eq!((script.connections(), script.requests()), (1, 5), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_its_peer_closes_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let script = Script::start(move |mut peer: Peer| async move {
            peer.request().await;
            peer.answer(answer).await;
            // It says so, but does not do it.
            peer.closed().await;
        })
        .await;
        let upstreams = upstream(script.port);
        for _ in 0..2 {
            exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
        }
        assert_eq!(script.connections(), 2, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_left_unread_closes_its_connection() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345").await;
        peer.closed().await;
    })
    .await;
    let upstreams = upstream(script.port);
    drop(upstreams.get(0).send(post(), GUARDED).await.unwrap());
    until(|| upstreams.get(0).connections() == 0).await;
}

// contract: P-6
#[tokio::test]
async fn a_guarded_request_does_not_use_an_old_connection() {
    let script = Script::start(Peer::serve).await;
    let upstreams = upstream_with(script.port, |settings| settings.max_idle_guarded = Duration::ZERO);
    exchange(upstreams.get(0), post(), PASSED).await.unwrap();
    exchange(upstreams.get(0), post(), PASSED).await.unwrap();
    assert_eq!(script.connections(), 1);
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    assert_eq!(script.connections(), 2);
}

#[tokio::test]
async fn an_old_connection_makes_room_at_the_limit() {
    let script = Script::start(Peer::serve).await;
    let upstreams = upstream_with(script.port, |settings| {
        settings.max_idle_guarded = Duration::ZERO;
        settings.max_connections = 1;
    });
    for _ in 0..3 {
        exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    }
    assert_eq!(script.connections(), 3);
    until(|| upstreams.get(0).connections() == 1).await;
}

// contract: R-11
#[tokio::test]
async fn without_a_free_connection_nothing_is_sent() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
        peer.closed().await;
    })
    .await;
    let upstreams = upstream_with(script.port, |settings| {
        settings.max_connections = 1;
        settings.queue_timeout = Duration::from_millis(50);
    });
    let _held = upstreams.get(0).send(post(), GUARDED).await.unwrap();
    let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
    assert!(matches!(error, SendError::NeverSent(Unsent::QueueTimeout)), "{error:?}");
    assert_eq!(script.requests(), 1);
}

#[tokio::test]
async fn bodies_that_drip_leave_connections_to_requests_that_are_here_whole() {
    let script = Script::start(Peer::serve).await;
    let upstreams = Arc::new(upstream_with(script.port, |settings| {
        settings.max_connections = 4;
        settings.queue_timeout = Duration::from_millis(100);
    }));
    let begin = |body: mpsc::Receiver<Bytes>| {
        let upstreams = Arc::clone(&upstreams);
        let request = request(Method::POST, RequestBody::stream(Dripped(body)));
        tokio::spawn(async move { exchange(upstreams.get(0), request, PASSED).await })
    };
    let (feeds, bodies): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel(1)).unzip();
    let dripping: Vec<_> = bodies.into_iter().map(begin).collect();
    for feed in &feeds {
        feed.send(Bytes::from_static(b"x")).await.unwrap();
    }
    until(|| script.connections() == 3).await;

    let (_feed, one_more) = mpsc::channel(1);
    let one_more = tokio::time::timeout(Duration::from_secs(5), begin(one_more)).await.expect("it has no place");
    let refused = one_more.unwrap().unwrap_err();
    assert!(matches!(refused, SendError::NeverSent(Unsent::QueueTimeout)), "{refused:?}");
    for _ in 0..5 {
        exchange(upstreams.get(0), get(), PASSED).await.unwrap();
        exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    }
    // A body's end, good or bad, gives its place back.
    drop(feeds);
    for task in dripping {
        task.await.unwrap().unwrap();
    }
    for _ in 0..10 {
        let (feed, body) = mpsc::channel(1);
        feed.send(Bytes::from_static(b"x")).await.unwrap();
        let task = begin(body);
        until(|| feed.capacity() == 1).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
}

/// A body that comes as it is fed.
struct Dripped(mpsc::Receiver<Bytes>);

impl http_body::Body for Dripped {
    type Data = Bytes;
    type Error = oncegate::body::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

#[tokio::test]
async fn a_connection_that_becomes_free_serves_the_queue() {
    let script = Script::start(Peer::serve).await;
    let upstreams = Arc::new(upstream_with(script.port, |settings| settings.max_connections = 4));
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let upstreams = Arc::clone(&upstreams);
            tokio::spawn(async move { exchange(upstreams.get(0), post(), GUARDED).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "ok");
    }
    assert_eq!(script.requests(), 200);
    assert!(script.connections() <= 4, "{}", script.connections());
}

#[tokio::test]
async fn a_connection_that_closes_serves_the_queue() {
    let script = Script::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.answer("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let upstreams = upstream_with(script.port, |settings| settings.max_connections = 1);
    let first = upstreams.get(0).send(post(), GUARDED).await.unwrap();
    let (second, body) = tokio::join!(exchange(upstreams.get(0), post(), GUARDED), whole(first));
    assert_eq!((second.unwrap(), body), ("ok".into(), "ok".into()));
    assert_eq!(script.connections(), 2);
}

#[tokio::test]
async fn those_who_leave_the_queue_leave_nothing_behind() {
    let release = Arc::new(Notify::new());
    let told = Arc::clone(&release);
    let script = Script::start(move |mut peer: Peer| {
        let told = Arc::clone(&told);
        async move {
            while peer.request().await.is_some() {
                told.notified().await;
                peer.answer(OK).await;
            }
        }
    })
    .await;
    let upstreams = upstream_with(script.port, |settings| {
        settings.max_connections = 1;
        settings.queue_timeout = Duration::from_millis(20);
    });
    let holder = exchange(upstreams.get(0), post(), GUARDED);
    let waiters = async {
        until(|| script.requests() == 1).await;
        for _ in 0..3 {
            let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
            assert!(matches!(error, SendError::NeverSent(Unsent::QueueTimeout)));
        }
        release.notify_one();
    };
    let (held, ()) = tokio::join!(holder, waiters);
    held.unwrap();
    release.notify_one();
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    assert_eq!((script.connections(), script.requests()), (1, 2));
}

/// A worker as the server has them: a thread with a runtime of its own, which lives until `done`.
fn worker<F, T>(done: Arc<Notify>, work: impl FnOnce() -> F + Send + 'static) -> std::thread::JoinHandle<T>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let result = work().await;
            done.notified().await;
            result
        })
    })
}

#[tokio::test]
async fn at_the_limit_a_worker_takes_what_another_left_idle() {
    let script = Script::start(Peer::serve).await;
    let upstreams = Arc::new(upstream_with(script.port, |settings| settings.max_connections = 1));
    let done = Arc::new(Notify::new());
    let (first, second) = (Arc::clone(&upstreams), Arc::clone(&upstreams));
    let maker = worker(Arc::clone(&done), move || async move {
        exchange(first.get(0), post(), GUARDED).await.unwrap();
    });
    until(|| script.requests() == 1).await;
    let over = Arc::new(Notify::new());
    over.notify_one();
    let thief = worker(over, move || async move {
        for _ in 0..10 {
            exchange(second.get(0), post(), Plan { worker: 1, ..GUARDED }).await.unwrap();
        }
    });
    until(|| script.requests() == 11).await;
    done.notify_one();
    tokio::task::spawn_blocking(move || (maker.join().unwrap(), thief.join().unwrap())).await.unwrap();
    assert_eq!((script.connections(), script.requests()), (1, 11));
}

#[tokio::test]
async fn two_workers_under_load_keep_to_the_limit() {
    let script = Script::start(Peer::serve).await;
    let upstreams = Arc::new(upstream_with(script.port, |settings| settings.max_connections = 3));
    let workers: Vec<_> = (0..2)
        .map(|worker_index| {
            let upstreams = Arc::clone(&upstreams);
            let done = Arc::new(Notify::new());
            let thread = worker(Arc::clone(&done), move || async move {
                let tasks: Vec<_> = (0..20)
                    .map(|_| {
                        let upstreams = Arc::clone(&upstreams);
                        tokio::spawn(async move {
                            for _ in 0..20 {
                                let plan = Plan { worker: worker_index, ..GUARDED };
                                assert_eq!(exchange(upstreams.get(0), post(), plan).await.unwrap(), "ok");
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
            (done, thread)
        })
        .collect();
    until(|| script.requests() == 800).await;
    assert!(script.connections() <= 3, "{}", script.connections());
    for (done, thread) in workers {
        done.notify_one();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_minute() {
    let script = Script::start(Peer::serve).await;
    let upstreams = upstream(script.port);
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(50)).await;
    exchange(upstreams.get(0), post(), PASSED).await.unwrap();
    tokio::time::advance(Duration::from_secs(50)).await;
    exchange(upstreams.get(0), post(), PASSED).await.unwrap();
    assert_eq!(script.connections(), 1, "it was not idle for a minute");
    tokio::time::advance(Duration::from_secs(61)).await;
    until(|| upstreams.get(0).connections() == 0).await;
}

#[tokio::test]
async fn a_reload_keeps_the_connections_of_an_unchanged_upstream() {
    let script = Script::start(Peer::serve).await;
    let (same, mut other) = (settings(vec![url(script.port)]), settings(vec![url(script.port)]));
    let upstreams = Upstreams::new(&[Arc::new(same.clone())], 1).unwrap();
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    other.name = "another".into();
    let upstreams = upstreams.reloaded(&[Arc::new(other), Arc::new(same)]).unwrap();
    exchange(upstreams.get(1), post(), GUARDED).await.unwrap();
    assert_eq!(script.connections(), 1);
    exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    assert_eq!(script.connections(), 2);
}
