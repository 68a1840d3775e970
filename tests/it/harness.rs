//! What the tests are written with: a scripted [`Upstream`], the real [`Proxy`], and a raw client ([`Connection`], [`Reply`]).

mod client;
mod history;
mod http2;
mod proxy;
mod upstream;
mod wire;

use std::time::{Duration, Instant};

pub(crate) use self::{
    client::{Connection, Post, Reply},
    history::History,
    http2::http2,
    proxy::{Config, Proxy, binary},
    upstream::{Script, Upstream},
};

/// The longest that anything in a test may take that should happen by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again until `check` holds.
///
/// # Panics
///
/// When it does not within [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually<F, Fut>(what: &str, mut check: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let place = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let start = Instant::now();
        while !check().await {
            assert!(start.elapsed() < PATIENCE, "{place}: still not so after {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A bound around something that a broken proxy would let hang for ever.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{place}: nothing came for {PATIENCE:?}"),
        }
    }
}

/// Lets time pass where its passing is the point.
pub(crate) async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

mod tests {
    use super::*;

    #[tokio::test]
    async fn the_client_and_the_upstream_understand_each_other() {
        let upstream = Upstream::start().await;
        upstream.next(Script::answer(201).field("X-A", "1").body("hello"));
        upstream.next(
            Script::raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").then(Script::answer(200).chunked("abc")),
        );
        let mut connection = Connection::open(upstream.address()).await;
        let reply = connection.exchange("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
        assert_eq!((reply.status, reply.text(), reply.field("x-a")), (201, "hello", Some("1")));
        let reply = connection
            .exchange("POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
            .await;
        assert_eq!((reply.status, reply.text(), reply.interim.len()), (200, "abc", 1));
        let reply = connection.exchange("GET /c HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!((reply.status, reply.text()), (200, "tok_3"));
        let seen = upstream.requests();
        assert_eq!(seen.len(), 3);
        assert_eq!(
            (seen[0].method.as_str(), seen[0].target.as_str(), seen[0].body.as_slice()),
            ("POST", "/a", &b"abc"[..])
        );
        assert_eq!(seen[1].body, b"x");
        assert_eq!(upstream.executions(), 3);
    }

    #[tokio::test]
    async fn the_client_tells_a_cut_answer_from_a_whole_one() {
        let upstream = Upstream::start().await;
        upstream.next(Script::cut_body());
        let mut connection = Connection::open(upstream.address()).await;
        let reply = connection.exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(!reply.whole);
        upstream.next(Script::reset());
        let mut connection = Connection::open(upstream.address()).await;
        connection.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(connection.reply().await.is_err());
    }

    #[tokio::test]
    async fn the_upstream_holds_until_it_is_released() {
        let upstream = Upstream::start().await;
        upstream.next(Script::hold());
        let mut connection = Connection::open(upstream.address()).await;
        connection.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        upstream.saw(1).await;
        assert!(tokio::time::timeout(Duration::from_millis(50), connection.reply()).await.is_err());
        upstream.release();
        assert_eq!(connection.reply().await.unwrap().text(), "tok_1");
    }
}
