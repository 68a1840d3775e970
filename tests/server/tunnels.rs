//! Connections that carry another protocol from some point on.

use std::{
    io::{Read, Write},
    thread::sleep,
    time::Duration,
};

use oncegate::server::Limits;

use crate::harness::{Server, eventually, limits};

const UPGRADE: &str = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
const NOT_HTTP: &[u8] = b"\x00\xff\n\nGET\r\n\r\n";

// contract: section 8
#[test]
fn a_tunnel_carries_any_bytes_and_meets_no_deadline_of_http() {
    let short = Duration::from_millis(100);
    let server = Server::with(Limits { header_timeout: short, idle_timeout: short, ..limits() });
    let mut client = server.client();
    assert_eq!(client.send(UPGRADE).answer().unwrap().0, 101);
    for _ in 0..3 {
        sleep(short);
        let mut said = [0; NOT_HTTP.len()];
        client.send(NOT_HTTP).stream.read_exact(&mut said).unwrap();
        assert_eq!(said, NOT_HTTP);
    }
    assert_eq!(server.connections.open(), 1, "a tunnel is a connection");
    drop(client);
    eventually("its end", || server.connections.open() == 0);
}

#[test]
fn a_tunnel_whose_client_takes_nothing_is_ended() {
    let patience = Duration::from_millis(300);
    let server = Server::with(Limits { write_timeout: patience, ..limits() });
    let mut client = server.client();
    assert_eq!(client.send(UPGRADE).answer().unwrap().0, 101);
    // Until neither side's buffers take more of what is echoed, and then no longer.
    client.stream.set_write_timeout(Some(patience / 3)).unwrap();
    while client.stream.write(&[b'x'; 65_536]).is_ok() {}
    eventually("its end", || server.connections.open() == 0);
}

#[test]
fn what_a_client_sends_before_it_is_told_to_switch_belongs_to_the_tunnel() {
    let server = Server::start();
    let mut client = server.client();
    client.send([UPGRADE.as_bytes(), NOT_HTTP].concat());
    assert_eq!(client.answer().unwrap().0, 101);
    let mut said = [0; NOT_HTTP.len()];
    client.stream.read_exact(&mut said).unwrap();
    assert_eq!(said, NOT_HTTP);
}

#[test]
fn what_follows_an_upgrade_that_is_not_granted_is_a_request() {
    let server = Server::start();
    let mut client = server.client();
    let asks = "POST /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc";
    client.send([asks, asks].concat());
    for _ in 0..2 {
        assert_eq!(client.answer().unwrap().2, "POST /a abc");
    }
    assert_eq!(client.send([asks.as_bytes(), NOT_HTTP].concat()).answer().unwrap().2, "POST /a abc");
    assert_eq!(client.answer().unwrap().2, "request-line");
}
