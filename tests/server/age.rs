//! Connections that are old end without cutting anything.

use std::{thread::sleep, time::Duration};

use oncegate::server::Limits;

use crate::harness::{Server, eventually, limits, now};

const AGE: Duration = Duration::from_millis(300);
const LATE: Duration = Duration::from_millis(400);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";

fn aging() -> Server {
    Server::with(Limits { max_connection_age: Some(AGE), ..limits() })
}

/// Time for a request that is on its way.
const GRACE: Duration = Duration::from_secs(1);

#[test]
fn an_idle_connection_is_closed_at_its_age_and_not_before() {
    let server = aging();
    let opened = now();
    let mut client = server.client();
    let (status, head, _) = client.send(GET).answer().unwrap();
    assert_eq!(status, 200);
    assert!(!head.contains("connection:"), "{head}");
    assert_eq!(client.read_to_end().unwrap(), "", "an end, not a reset");
    let lived = opened.elapsed();
    assert!(lived >= GRACE && lived < Duration::from_secs(5), "{lived:?}");
}

#[test]
fn a_request_that_comes_to_an_old_connection_is_answered() {
    let server = aging();
    let mut client = server.client();
    client.send(GET).answer().unwrap();
    sleep(LATE);
    let (status, head, _) = client.send(GET).answer().unwrap();
    assert_eq!(status, 200);
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(client.read_to_end().unwrap(), "");
}

#[test]
fn an_answer_under_way_is_the_last_and_says_so() {
    let server = aging();
    let mut client = server.client();
    client.send(GET).answer().unwrap();
    sleep(AGE / 2);
    // Takes as long as a whole age.
    let (status, head, body) = client.send(SLOW).answer().unwrap();
    assert_eq!((status, &*body), (200, "slow"));
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(client.read_to_end().unwrap(), "");
}

#[test]
fn an_answer_whose_head_has_left_is_finished() {
    let server = aging();
    let mut client = server.client();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request", || server.handled() == 1);
    sleep(LATE);
    let (status, head, body) = client.answer().unwrap();
    assert_eq!((status, body.len()), (200, 64 * 1024 * 1024));
    assert!(!head.contains("connection: close"), "{head}");
    assert_eq!(client.read_to_end().unwrap(), "");
}

#[test]
fn a_head_that_has_begun_is_answered() {
    let server = aging();
    let mut fresh = server.client();
    fresh.send("GET / HT");
    let mut used = server.client();
    used.send(GET).answer().unwrap();
    used.send("GET / HT");
    sleep(LATE);
    for client in [&mut fresh, &mut used] {
        let (status, head, _) = client.send("TP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
        assert_eq!(status, 200);
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(client.read_to_end().unwrap(), "");
    }
}

#[test]
fn pipelined_requests_before_the_last_answer_are_served() {
    let server = aging();
    let mut client = server.client();
    client.send([SLOW, SLOW, SLOW].concat());
    let mut answers = 0;
    while let Ok((status, head, _)) = client.answer() {
        assert_eq!(status, 200);
        answers += 1;
        if head.contains("connection: close") {
            break;
        }
    }
    assert_eq!(client.read_to_end().unwrap(), "", "nothing follows the last answer");
    assert!((1..=3).contains(&answers), "{answers}");
}

#[test]
fn a_tunnel_has_no_age() {
    let server = aging();
    let mut client = server.client();
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.answer().unwrap().0, 101);
    sleep(LATE);
    client.send("still here");
    let mut said = [0; 10];
    std::io::Read::read_exact(&mut client.stream, &mut said).unwrap();
    assert_eq!(&said, b"still here");
}

#[test]
fn http2_is_told_to_go_and_its_streams_finish() {
    let server = aging();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        tokio::time::sleep(AGE / 2).await;
        let request = http::Request::get("http://a/slow").body(()).unwrap();
        let mut body = sender.send_request(request, true).unwrap().0.await.unwrap().into_body();
        assert_eq!(&body.data().await.unwrap().unwrap()[..], b"slow");
        drop(body);
        // It ends by GOAWAY without an error, while we hold a handle that would keep it.
        connection.await.unwrap().unwrap();
        let late = http::Request::get("http://a/").body(()).unwrap();
        let refused = match sender.send_request(late, true) {
            Ok((answer, _)) => answer.await.err(),
            Err(error) => Some(error),
        };
        assert!(refused.is_some());
    });
}
