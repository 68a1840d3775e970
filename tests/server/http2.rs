//! HTTP/2 with prior knowledge on the port that HTTP/1.1 is spoken on.

use std::{thread::sleep, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use oncegate::server::Limits;

use crate::harness::{Server, eventually, limits};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn connect(server: &Server) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(format!("http://a.example{path}")).body(Full::from(body)).unwrap()
}

async fn said(answer: Response<Incoming>) -> (u16, String) {
    assert_eq!(answer.version(), Version::HTTP_2);
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn requests_share_a_connection() {
    let server = Server::start();
    let mut client = connect(&server).await;
    let slow = client.send_request(post("/slow", ""));
    let quick = client.send_request(post("/b", "abc"));
    assert_eq!(said(quick.await.unwrap()).await, (200, "POST http://a.example/b abc".to_owned()));
    assert_eq!(said(slow.await.unwrap()).await, (200, "slow".to_owned()));
    let who = client.send_request(post("/who", "")).await.unwrap();
    assert!(said(who).await.1.contains("http2: true"));
}

// contract: section 8
#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_refused_and_the_connection_lives_on() {
    let server = Server::start();
    let mut client = connect(&server).await;
    let mut request = post("/", "");
    request.headers_mut().insert("host", "b.example".parse().unwrap());
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(said(answer).await, (400, "authority-mismatch".to_owned()));
    assert_eq!(said(client.send_request(post("/", "x")).await.unwrap()).await.0, 200);
    assert_eq!((server.handled(), server.refused()), (1, 1));
}

#[tokio::test]
async fn a_stream_that_is_reset_takes_its_request_along() {
    let server = Server::start();
    let mut client = connect(&server).await;
    let request = tokio::spawn(client.send_request(post("/never", "")));
    let server = tokio::task::spawn_blocking(move || {
        eventually("the request", || server.handled() == 1);
        server
    })
    .await
    .unwrap();
    request.abort();
    tokio::task::spawn_blocking(move || eventually("the end of its handling", || server.dropped() == 1)).await.unwrap();
    drop(client);
}

#[test]
fn an_http2_opening_that_stops_anywhere_is_closed() {
    let server = Server::with(Limits { header_timeout: Duration::from_millis(300), ..limits() });
    let whole = [PREFACE, SETTINGS].concat();
    for cut in [1, 2, 3, 23, 24, 25, 32] {
        let mut client = server.client();
        client.send(&whole[..cut]);
        // What comes is our own SETTINGS and GOAWAY, or for the first bytes of either protocol nothing.
        let said = client.read_to_end().unwrap();
        assert!(!said.starts_with("HTTP/1"), "{cut}: {said}");
    }
    assert_eq!(server.handled(), 0);
}

#[test]
fn an_idle_http2_connection_is_told_to_go_and_closed() {
    let server = Server::with(Limits { idle_timeout: Duration::from_millis(300), ..limits() });
    let mut client = server.client();
    client.send(PREFACE).send(SETTINGS);
    let said = client.read_to_end().unwrap().into_bytes();
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0];
    assert!(said.windows(9).any(|frame| frame == goaway), "{said:?}");
    eventually("its end", || server.connections.open() == 0);
}

#[test]
fn a_stream_that_never_opens_its_window_is_let_go() {
    let server = Server::with(Limits { write_timeout: Duration::from_millis(300), ..limits() });
    let mut client = server.client();
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    client.send(PREFACE).send([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    // :method GET, :scheme http, :path /large, :authority a
    client.send([0, 0, 13, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x44, 6]).send("/large").send([0x41, 1, b'a']);
    eventually("the request", || server.handled() == 1);
    eventually("its end", || server.connections.open() == 0);
}

// CVE-2023-44487
#[test]
fn a_client_that_resets_its_streams_in_a_row_is_told_to_calm_down() {
    let server = Server::start();
    let mut client = server.client();
    client.send(PREFACE).send(SETTINGS);
    // :method GET, :scheme http, :path /, :authority a
    let block = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
    for stream in (1..4000u32).step_by(2) {
        let headers = [&[0, 0, 6, 1, 5][..], &stream.to_be_bytes(), &block].concat();
        let reset = [&[0, 0, 4, 3, 0][..], &stream.to_be_bytes(), &[0, 0, 0, 8]].concat();
        client.send(headers).send(reset);
    }
    eventually("the end of the connection", || server.connections.open() == 0);
}

// contract: R-23
#[tokio::test]
async fn a_drain_answers_the_streams_under_way() {
    let server = Server::start();
    let mut client = connect(&server).await;
    let slow = tokio::spawn(client.send_request(post("/slow", "")));
    while server.handled() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop();
    assert_eq!(said(slow.await.unwrap().unwrap()).await.1, "slow");
    tokio::task::spawn_blocking(move || eventually("the server's end", || server.is_over())).await.unwrap();
    assert!(client.ready().await.is_err());
}

#[test]
fn a_preface_in_the_middle_of_http1_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
    assert_eq!(client.send(PREFACE).answer().unwrap().2, "method-pri");
    sleep(Duration::from_millis(1));
    assert_eq!(server.handled(), 1);
}

#[test]
fn a_head_that_stops_between_or_within_its_frames_is_closed_counted_and_logged_like_one_of_http1() {
    let server = Server::with(Limits { header_timeout: Duration::from_millis(300), ..limits() });
    // HEADERS without END_HEADERS, whole; the same, cut; the beginning of a frame's header.
    for head in [&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82][..], &[0, 0, 9, 1, 4, 0, 0, 0, 1, 0x82], &[0, 0, 9]] {
        let before = server.refused();
        let mut client = server.client();
        client.send(PREFACE).send(SETTINGS).send([0, 0, 0, 4, 1, 0, 0, 0, 0]);
        sleep(Duration::from_millis(100));
        client.send(head);
        let _said = client.read_to_end();
        eventually("its refusal", || server.refused() == before + 1);
    }
    assert_eq!(server.handled(), 0);
}

#[tokio::test]
async fn a_head_beyond_max_head_is_refused_with_a_reason() {
    let server = Server::with(Limits { max_head: 8192, ..limits() });
    let mut client = connect(&server).await;
    let mut request = post("/", "");
    request.headers_mut().insert("x", "y".repeat(9000).parse().unwrap());
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(said(answer).await, (431, "head-too-large".to_owned()));
    let answer = client.send_request(post(&format!("/{}", "y".repeat(9000)), "")).await.unwrap();
    assert_eq!(said(answer).await, (414, "target-too-long".to_owned()));
    assert_eq!((server.handled(), server.refused()), (0, 2));
}

// contract: R-23
#[tokio::test]
async fn a_drain_lets_a_slow_client_take_its_answer() {
    let server = Server::start();
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a.example/large").body(()).unwrap();
    let mut body = sender.send_request(request, true).unwrap().0.await.unwrap().into_body();
    let mut length = 0;
    let begun = crate::harness::now();
    server.stop();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        length += data.len();
        // Room for more comes late, and the farewell of idle clients is over long before.
        if begun.elapsed() < Duration::from_millis(2500) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert!(begun.elapsed() > Duration::from_millis(1500) && length >= 1 << 20, "{length} bytes");
}
