//! Nobody holds a connection without making progress. Limits are short here, and only lower bounds are exact: a busy
//! machine may take longer.

use std::{
    io::Read,
    thread::sleep,
    time::{Duration, Instant},
};

use oncegate::server::Limits;

use crate::harness::{Client, Server, limits, now};

const SHORT: Duration = Duration::from_millis(300);
/// What no deadline of these tests takes, whatever the machine does.
const AMPLE: Duration = Duration::from_secs(10);

/// How long after `begun` the server closed, and what it said.
fn closed(client: &mut Client, begun: Instant) -> (Duration, String) {
    let said = client.read_to_end().unwrap();
    (begun.elapsed(), said)
}

#[test]
fn a_silent_connection_is_closed_in_silence() {
    let server = Server::with(Limits { header_timeout: SHORT, ..limits() });
    let begun = now();
    let (after, said) = closed(&mut server.client(), begun);
    assert!(after >= SHORT && after < AMPLE, "{after:?}");
    assert_eq!(said, "");
}

#[test]
fn half_a_head_is_answered_408_when_its_time_is_up() {
    let server = Server::with(Limits { header_timeout: SHORT, ..limits() });
    let begun = now();
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHo");
    let (after, said) = closed(&mut client, begun);
    assert!(after >= SHORT && after < AMPLE, "{after:?}");
    assert!(said.starts_with("HTTP/1.1 408 ") && said.ends_with("head-timeout"), "{said}");
    assert_eq!(server.handled(), 0);
}

#[test]
fn a_dripped_head_wins_no_time() {
    let server = Server::with(Limits { header_timeout: SHORT, ..limits() });
    let begun = now();
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut byte = [0];
    while client.stream.read(&mut byte).is_err() {
        client.send("y");
        assert!(begun.elapsed() < AMPLE);
    }
    assert!(begun.elapsed() >= SHORT);
}

#[test]
fn a_later_head_has_its_time_from_its_first_byte() {
    let server = Server::with(Limits { header_timeout: SHORT, ..limits() });
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
    sleep(SHORT * 2);
    let begun = now();
    client.send("GET / HTTP/1.1\r\n");
    let (after, said) = closed(&mut client, begun);
    assert!(after >= SHORT && after < AMPLE, "{after:?}");
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[test]
fn an_idle_connection_is_closed() {
    let server = Server::with(Limits { idle_timeout: SHORT, ..limits() });
    let mut client = server.client();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
        sleep(SHORT / 3);
    }
    let begun = now() - SHORT / 3;
    let (after, said) = closed(&mut client, begun);
    assert!(after >= SHORT - Duration::from_millis(20) && after < AMPLE, "{after:?}");
    assert_eq!(said, "");
}

#[test]
fn a_handler_at_work_meets_no_deadline() {
    let server = Server::with(Limits {
        header_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        write_timeout: Duration::from_millis(100),
        ..limits()
    });
    let mut client = server.client();
    assert_eq!(client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap().2, "slow");
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let server = Server::with(Limits { write_timeout: SHORT, ..limits() });
    let mut client = server.client();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let begun = now();
    while server.connections.open() == 0 || server.handled() == 0 {
        sleep(Duration::from_millis(5));
    }
    while server.connections.open() > 0 {
        sleep(Duration::from_millis(20));
        assert!(begun.elapsed() < AMPLE);
    }
    assert!(begun.elapsed() >= SHORT);
}

#[test]
fn thousands_of_silent_connections_end_and_others_are_served_meanwhile() {
    let server = Server::with(Limits { header_timeout: Duration::from_secs(2), ..limits() });
    let mut silent: Vec<_> = (0..2000).map(|_| server.client()).collect();
    for client in &mut silent[1000..] {
        client.send("GET / HT");
    }
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
    for client in &mut silent {
        client.read_to_end().unwrap();
    }
    drop(silent);
    let begun = now();
    while server.connections.open() > 1 {
        sleep(Duration::from_millis(20));
        assert!(begun.elapsed() < AMPLE, "{} are left", server.connections.open());
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
}
