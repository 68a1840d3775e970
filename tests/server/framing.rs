//! Requests whole, split, pipelined and refused.

use std::{thread::sleep, time::Duration};

use crate::harness::Server;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
const CHUNKED: &str =
    "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n";

#[test]
fn requests_follow_each_other_on_one_connection() {
    let server = Server::start();
    let mut client = server.client();
    for (request, answer) in [(GET, "GET /a "), (POST, "POST /b abc"), (CHUNKED, "POST /c abcde"), (GET, "GET /a ")] {
        assert_eq!(client.send(request).answer().unwrap().2, answer);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.client();
    client.send([GET, CHUNKED, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", POST, GET].concat());
    let answers: Vec<_> = (0..5).map(|_| client.answer().unwrap().2).collect();
    assert_eq!(answers, ["GET /a ", "POST /c abcde", "slow", "POST /b abc", "GET /a "]);
}

#[test]
fn a_request_arrives_byte_by_byte() {
    let server = Server::start();
    let mut client = server.client();
    for byte in [GET, CHUNKED, POST].concat().as_bytes() {
        client.send([*byte]);
    }
    let answers: Vec<_> = (0..3).map(|_| client.answer().unwrap().2).collect();
    assert_eq!(answers, ["GET /a ", "POST /c abcde", "POST /b abc"]);
}

// contract: section 8
#[test]
fn a_refused_request_is_answered_after_those_before_it_and_nothing_after_it_is_read() {
    let server = Server::start();
    let mut client = server.client();
    let smuggled = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    client.send([GET, POST, smuggled, GET, GET].concat());
    assert_eq!(client.answer().unwrap().2, "GET /a ");
    assert_eq!(client.answer().unwrap().2, "POST /b abc");
    let (status, head, body) = client.answer().unwrap();
    assert_eq!((status, &*body), (400, "length-with-coding"));
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(client.read_to_end().unwrap(), "");
    assert_eq!((server.handled(), server.refused()), (2, 1));
}

// contract: section 8
#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let server = Server::start();
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 500000\r\n\r\n");
    for _ in 0..50 {
        client.send([b'x'; 10_000]);
    }
    assert_eq!(client.answer().unwrap().2, "host-repeated");
    assert_eq!(server.handled(), 0);
}

// contract: section 8
#[test]
fn a_body_that_breaks_off_in_a_bad_chunk_ends_with_the_reason() {
    let server = Server::start();
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").send("0x3\r\nabc\r\n");
    let (status, head, body) = client.answer().unwrap();
    assert_eq!((status, &*body), (400, "chunk"));
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(client.read_to_end().unwrap(), "");
}

#[test]
fn a_request_that_imitates_the_stand_in_is_handled_as_what_it_is() {
    let server = Server::start();
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n");
    assert_eq!(client.answer().unwrap().2, "GET / ");
    assert_eq!((server.handled(), server.refused()), (1, 0));
}

#[test]
fn an_incomplete_head_reaches_nobody() {
    let server = Server::start();
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\n");
    sleep(Duration::from_millis(100));
    client.half_close();
    assert_eq!(client.read_to_end().unwrap(), "");
    assert_eq!((server.handled(), server.refused()), (0, 0));
}

#[test]
fn a_head_of_just_the_limit_is_taken_and_one_byte_more_is_refused() {
    let server = Server::start();
    for (extra, status) in [(0, 200), (1, 431)] {
        let mut client = server.client();
        let fixed = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        let filler = "y".repeat(32 * 1024 - fixed + extra);
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {filler}\r\n\r\n"));
        assert_eq!(client.answer().unwrap().0, status);
    }
    let mut client = server.client();
    client.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(40_000)));
    assert_eq!(client.answer().unwrap().0, 414);
}
