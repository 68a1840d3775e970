//! Answers that come before the request's body was read: the client gets them, however it writes and reads.
//!
//! The clients write without looking whether an answer is there, which no well-made client does and many do: one writes
//! all of it at once, one slowly. To both, a reset would look like a failed write, or take the answer with it.

use std::time::Duration;

use super::harness::*;

/// Beyond what the system's buffers hold of a connection.
const LARGE: usize = 10 << 20;
/// Pairs of clients in each case: in the suite, and on demand.
const SOME: usize = 5;
const MANY: usize = 100;

#[derive(Debug, Clone, Copy)]
enum Writes {
    AtOnce,
    Slowly,
}

/// Sends all of an upload, then reads the answer.
async fn upload(proxy: &Proxy, head: &str, writes: Writes) -> Reply {
    let mut connection = proxy.connect().await;
    connection.write(format!("{head}Content-Length: {LARGE}\r\n\r\n")).await;
    match writes {
        Writes::AtOnce => connection.write(vec![b'x'; LARGE]).await,
        Writes::Slowly => {
            for _ in 0..20 {
                connection.write(vec![b'x'; LARGE / 20]).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    let reply = soon(connection.reply()).await.expect("the answer is there");
    assert!(reply.whole, "{reply:?}");
    reply
}

/// So many pairs of uploads, each with an answer of that status.
async fn uploads_are_answered(proxy: &Proxy, pairs: usize, head: &str, status: u16) {
    for number in 0..pairs {
        let head = head.replace("KEY", &format!("k-{number}"));
        let (at_once, slowly) =
            tokio::join!(upload(proxy, &head, Writes::AtOnce), upload(proxy, &head, Writes::Slowly));
        assert_eq!((at_once.status, slowly.status), (status, status), "{at_once:?} {slowly:?}");
    }
}

#[tokio::test]
async fn an_upstreams_early_answer_reaches_a_client_that_writes_on() {
    upstreams_answer_early(SOME).await;
}

// contract: R-7
#[tokio::test]
async fn a_refusal_reaches_a_client_that_writes_on() {
    refusals_come_early(SOME).await;
}

#[tokio::test]
#[ignore = "takes minutes: cargo nextest run --run-ignored only"]
async fn early_answers_reach_clients_that_write_on_many_times() {
    upstreams_answer_early(MANY).await;
    refusals_come_early(MANY).await;
}

async fn upstreams_answer_early(pairs: usize) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).log("access = false")).await;
    // Some upstreams read what they do not want, some close, some reset.
    upstream.program(|seen| {
        let answer = Script::answer(413).body("no").early();
        match seen.number % 3 {
            0 => answer,
            1 => answer.close_after(),
            _ => answer.reset_after(),
        }
    });
    for method in ["POST", "PUT"] {
        uploads_are_answered(&proxy, pairs, &format!("{method} /v1/a HTTP/1.1\r\nHost: h\r\n"), 413).await;
    }
}

async fn refusals_come_early(pairs: usize) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).log("access = false")).await;
    let head = "POST /v1/a HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nIdempotency-Key: KEY\r\n";
    uploads_are_answered(&proxy, pairs, head, 413).await;
    uploads_are_answered(&proxy, pairs, &head.replace("KEY", "a, b"), 400).await;
    uploads_are_answered(&proxy, pairs, &head.replace("Host", "Expect: cake\r\nHost"), 417).await;
    assert_eq!(upstream.requests().len(), 0);
}
