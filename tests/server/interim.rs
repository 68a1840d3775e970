//! Interim answers on the wire.

use std::{io::Read, thread::sleep, time::Duration};

use oncegate::server::Limits;

use crate::harness::{Client, Server, eventually, limits};

const HINTS: &str = "GET /hints HTTP/1.1\r\nHost: a\r\n\r\n";

/// The interim answers before one answer, and it.
fn answers(client: &mut Client) -> (Vec<String>, u16, String) {
    let mut interim = Vec::new();
    loop {
        let (status, head, body) = client.answer().unwrap();
        if status >= 200 {
            return (interim, status, body);
        }
        interim.push(head);
    }
}

// contract: section 8
#[test]
fn interim_answers_come_whole_before_theirs_however_they_are_pipelined() {
    let server = Server::start();
    let mut client = server.client();
    client.send([HINTS, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n", HINTS, HINTS].concat());
    for turn in ["hints", "large", "hints", "hints"] {
        // Slower than the server: what it writes finds no room in between.
        sleep(Duration::from_millis(100));
        let (interim, status, body) = answers(&mut client);
        assert_eq!(status, 200);
        if turn == "large" {
            assert_eq!((interim.len(), body.len()), (0, 64 * 1024 * 1024));
            continue;
        }
        assert_eq!(body, "interim: true");
        let link = format!("http/1.1 103 early hints\r\nlink: {}\r\n\r\n", "x".repeat(8_000));
        let mut expected = vec![link; 8];
        expected.push("http/1.1 102 processing\r\n\r\n".to_owned());
        expected.push("http/1.1 103 early hints\r\nlink: last\r\n\r\n".to_owned());
        assert!(interim == expected, "{turn}: {:?}", interim.iter().map(String::len).collect::<Vec<_>>());
    }
}

#[test]
fn a_client_of_http1_0_gets_none() {
    let server = Server::start();
    let mut client = server.client();
    client.send("GET /hints HTTP/1.0\r\nHost: a\r\n\r\n");
    let (interim, status, body) = answers(&mut client);
    assert_eq!((interim.len(), status, &*body), (0, 200, "interim: false"));
}

#[test]
fn the_100_of_an_expectation_is_not_torn_by_them() {
    let server = Server::start();
    let mut client = server.client();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(client.answer().unwrap().0, 100);
    client.send(["abc", HINTS].concat());
    assert_eq!(client.answer().unwrap().2, "POST /echo abc");
    assert_eq!(answers(&mut client).0.len(), 10);
}

#[test]
fn a_client_that_takes_no_interim_answer_is_closed_and_one_that_left_matters_to_nobody() {
    let server = Server::with(Limits { write_timeout: Duration::from_millis(300), ..limits() });
    let mut gone = server.client();
    gone.send(HINTS);
    drop(gone);
    let mut stalled = server.client();
    socket2::SockRef::from(&stalled.stream).set_recv_buffer_size(4096).unwrap();
    // Enough of them that the kernel's buffers fill.
    stalled.send(HINTS.repeat(200));
    let mut first = [0; 26];
    stalled.stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 103 Early Hints\r\n");
    eventually("the end of both", || server.connections.open() == 0);
}
