//! Answers that no caller may take for whole ones.
//!
//! Each is sent in one piece and in pieces of one byte, after which the upstream closes its side.

use http::Request;
use oncegate::{
    body::RequestBody,
    upstream::{LostHow, SendError},
};

use crate::harness::*;

/// Heads that are malformed, or that two readers could read differently: lost at the head.
const BAD_HEADS: &[&str] = &[
    // Status lines.
    "\r\n",
    "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    " HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1\r\n\r\n",
    "HTTP/1.1 \r\n\r\n",
    "HTTP/1.1 2\r\n\r\n",
    "HTTP/1.1 20\r\n\r\n",
    "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 2x0 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 -200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200\tOK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 O\x7fK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\rX: y\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
    "HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.10 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/11 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2 200\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTPS/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "SSH-2.0-OpenSSH_9.6\r\n",
    "220 mail.example ESMTP\r\n",
    "-ERR unknown command 'POST'\r\n",
    "\x15\x03\x01\0\x02\x02\x46",
    "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    "<html>Bad Gateway</html>",
    "ok",
    "\0",
    // Line ends and folding.
    "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\rX: y\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n Content-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n \r\n\r\nok",
    // Names and values.
    "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length\t: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n: 2\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nnocolon\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\na b: c\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\na(b): c\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\na\0b: c\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nä: c\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n\"a\": c\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\x0bb\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\x7fb\r\nContent-Length: 2\r\n\r\nok",
    // Content-Length.
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 2\r\n\r\nok!",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\ncontent-length: 20\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!",
    "HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2.0\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 1 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: \"2\"\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
    // Transfer-Encoding.
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;x=1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: \"chunked\"\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\x0b\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    // Interim answers.
    "HTTP/1.1 103 Early Hints\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
];

/// Bodies that are not what their chunks say.
const BAD_CHUNKS: &[&str] = &[
    "\r\nok\r\n0\r\n\r\n",
    "x\r\nok\r\n0\r\n\r\n",
    "0x2\r\nok\r\n0\r\n\r\n",
    "-2\r\nok\r\n0\r\n\r\n",
    "+2\r\nok\r\n0\r\n\r\n",
    "2\nok\r\n0\r\n\r\n",
    "2\rok\r\n0\r\n\r\n",
    "2\r\nok0\r\n\r\n",
    "2\r\nok\n0\r\n\r\n",
    "2\r\nok!\r\n0\r\n\r\n",
    "3\r\nok\r\n0\r\n\r\n",
    "2\r\nok\r\n",
    "2\r\nok\r\n0",
    "2\r\nok\r\n0\r\n",
    "2\r\nok\r\n0\n\r\n",
    "2\r\nok\r\n0\r\n\n",
    "2\r\nok\r\n0\r\n\rx",
    "2\r\nok\r\n\r\n0\r\n\r\n",
    "2 2\r\nok\r\n0\r\n\r\n",
    "2;a\nb\r\nok\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nok\r\n0\r\n\r\n",
    "10000000000000002\r\nok\r\n0\r\n\r\n",
    "2\r\nok\r\n0\r\nX\r\n\r\n",
    "2\r\nok\r\n0\r\nX: a\0b\r\n\r\n",
    "2\r\nok\r\n0\r\na b: c\r\n\r\n",
    "2\r\nok\r\n0\r\nX: y\r\n",
];

async fn upstream(answer: String, in_bytes: bool) -> Server {
    Server::start(move |mut peer| {
        let answer = answer.clone();
        async move {
            peer.request().await;
            if in_bytes {
                for byte in answer.as_bytes() {
                    peer.send([*byte]).await;
                    tokio::task::yield_now().await;
                }
            } else {
                peer.send(answer).await;
            }
        }
    })
    .await
}

// contract: R-11
#[tokio::test]
async fn a_head_that_is_not_clear_is_never_an_answer() {
    assert!(BAD_HEADS.len() > 100);
    for answer in BAD_HEADS {
        for in_bytes in [false, true] {
            let server = upstream((*answer).to_owned(), in_bytes).await;
            let subject = Subject::before(&server);
            let result = subject.send(post(full("amount=1")), GUARDED).await;
            assert!(is_lost(&result), "{answer:?} in bytes: {in_bytes}: {result:?}");
            eventually("it is closed", || subject.connections() == 0).await;
            assert_eq!(server.requests().len(), 1);
        }
    }
}

// contract: R-11
#[tokio::test]
async fn chunks_that_are_not_clear_are_never_a_whole_answer() {
    let mut taken = Vec::new();
    for chunks in BAD_CHUNKS {
        for in_bytes in [false, true] {
            let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            let server = upstream(answer, in_bytes).await;
            let subject = Subject::before(&server);
            if let Ok(whole) = subject.exchange(GUARDED).await {
                taken.push((chunks, in_bytes, whole));
            }
        }
    }
    assert!(taken.is_empty(), "{taken:#?}");
}

// contract: R-11
#[tokio::test]
async fn an_answer_that_is_not_trusted_is_told_as_malformed_and_not_asked_for_again() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let server = Server::start(move |mut peer| async move {
        peer.answer(OK).await;
        peer.answer(both).await;
        peer.closed().await;
    })
    .await;
    let subject = Subject::before(&server);
    subject.exchange(IDEMPOTENT).await.unwrap();
    let result = subject.send(post(full("amount=1")), IDEMPOTENT).await;
    assert!(matches!(result, Err(SendError::Lost(LostHow::Malformed(_)))), "{result:?}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_flood_of_interim_answers_is_lost() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        for _ in 0..=1000 {
            peer.send("HTTP/1.1 102 Processing\r\n\r\n").await;
        }
        peer.closed().await;
    })
    .await;
    let result = Subject::before(&server).send(post(full("amount=1")), GUARDED).await;
    assert!(is_lost(&result), "{result:?}");
}

#[tokio::test]
async fn a_head_without_end_is_lost() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\n").await;
        for _ in 0..200 {
            peer.send(format!("X: {}\r\n", "y".repeat(1000))).await;
        }
        peer.closed().await;
    })
    .await;
    let result = Subject::before(&server).send(post(full("amount=1")), GUARDED).await;
    assert!(is_lost(&result), "{result:?}");
}

#[tokio::test]
async fn unusual_answers_that_are_clear_are_taken() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (answer, expected) in [
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok".to_owned(), (200, "ok")),
        ("HTTP/1.1 200 \r\ncontent-length:2\r\nContent-Length: 2\r\n\r\nok".to_owned(), (200, "ok")),
        ("HTTP/1.1 299 Özel\r\nX:\r\nContent-Length: \t2 \r\n\r\nok".to_owned(), (299, "ok")),
        ("HTTP/1.1 200 OK\r\nX: caf\u{e9}\r\nContent-Length: 2\r\n\r\nok".to_owned(), (200, "ok")),
        ("HTTP/1.1 200 OK\r\n\r\nto the end".to_owned(), (200, "to the end")),
        ("HTTP/1.0 200 OK\r\n\r\nto the end".to_owned(), (200, "to the end")),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), (204, "")),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n".to_owned(), (204, "")),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n".to_owned(), (304, "")),
        (format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}"), (200, "ok")),
        (format!("{chunked}2\r\nok\r\n0\r\n\r\n"), (200, "ok")),
        (format!("{chunked}02;a=\"b\"\r\nok\r\n000\r\nX-Sum: 1\r\n\r\n"), (200, "ok")),
    ] {
        for in_bytes in [false, true] {
            let server = upstream(answer.clone(), in_bytes).await;
            let (status, body) = Subject::before(&server).exchange(GUARDED).await.unwrap();
            assert_eq!((status, body.as_str()), expected, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whatever_its_length_says() {
    let server = Server::start(|mut peer| async move {
        while peer.answer("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n").await {}
    })
    .await;
    let subject = Subject::before(&server);
    for _ in 0..3 {
        let request = Request::head("/").header("host", "a").body(RequestBody::empty()).unwrap();
        assert_eq!(subject.exchange_of(request, IDEMPOTENT).await.unwrap(), (200, String::new()));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn interim_answers_reach_whoever_asked_for_them() {
    let server = Server::start(|mut peer| async move {
        while peer.answer(format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}")).await {}
    })
    .await;
    let subject = Subject::before(&server);
    let (tell, told) = std::sync::mpsc::sync_channel(8);
    // The second goes over a used connection, as one that may be sent once more.
    for _ in 0..2 {
        let mut request = post(full("amount=1"));
        let tell = tell.clone();
        hyper::ext::on_informational(&mut request, move |interim| {
            let link = interim.headers().get("link").cloned();
            tell.send((interim.status().as_u16(), link)).unwrap();
        });
        subject.exchange_of(request, IDEMPOTENT).await.unwrap();
        assert_eq!(told.try_recv().unwrap(), (103, Some(http::HeaderValue::from_static("</a>"))));
    }
}
