//! Connections that begin with a PROXY header.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use oncegate::server::{Limits, TurnedAway};

use crate::harness::{Client, Server, eventually, limits};

const LINE: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";
const WHO: &str = "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Version 2 of [`LINE`], with a value behind the addresses.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\xcb\x00\x71\x09\xc0\x00\x02\x01\x12\x67\x01\xbb\x04\x00\x01\x00";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn expecting() -> Limits {
    Limits { proxy_protocol: true, trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..limits() }
}

fn who(client: &mut Client, header: &[u8]) -> String {
    client.send([header, WHO.as_bytes()].concat()).read_to_end().unwrap()
}

#[test]
fn the_header_says_who_the_client_is_and_where_it_connected() {
    let server = Server::with(expecting());
    for header in [LINE.as_bytes(), BINARY] {
        let said = who(&mut server.client(), header);
        assert!(said.contains("peer: Some(203.0.113.9:4711), local: Some(192.0.2.1:443)"), "{said}");
    }
    for header in [&b"PROXY UNKNOWN\r\n"[..], LOCAL] {
        let said = who(&mut server.client(), header);
        assert!(said.contains("peer: Some(127.0.0.1:"), "{said}");
    }
    assert_eq!(server.turned_away(), []);
}

#[test]
fn the_header_may_come_in_any_pieces() {
    let server = Server::with(expecting());
    for header in [LINE.as_bytes(), BINARY] {
        for cut in 1..header.len() {
            let mut client = server.client();
            client.send(&header[..cut]);
            std::thread::sleep(Duration::from_millis(1));
            let said = who(&mut client, &header[cut..]);
            assert!(said.contains("peer: Some(203.0.113.9:4711)"), "{cut}: {said}");
        }
    }
}

#[test]
fn http2_follows_the_header_too() {
    let server = Server::with(expecting());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = runtime.block_on(async {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, BINARY).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("http://a/who").body(()).unwrap();
        let mut body = sender.send_request(request, true).unwrap().0.await.unwrap().into_body();
        body.data().await.unwrap().unwrap()
    });
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("peer: Some(203.0.113.9:4711)") && said.contains("http2: true"), "{said}");
}

#[test]
fn a_trusted_proxy_without_a_header_is_closed_unheard() {
    let server = Server::with(expecting());
    let wrong =
        ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PROXY TCP4 nonsense\r\n", "PROXY UNKNOWN\n", "\r\n\r\n\0\r\nQUIX\n"];
    for sent in wrong {
        // With bytes unread the close is a reset.
        let said = server.client().send(sent).read_to_end().unwrap_or_default();
        assert_eq!(said, "", "{sent:?}");
    }
    server.client().send("PROXY TCP4").half_close().read_to_end().unwrap();
    eventually("the count", || server.turned_away() == [TurnedAway::ProxyHeader; 5]);
    assert_eq!((server.handled(), server.refused()), (0, 0));
    assert_eq!(server.connections.turned_away(), 5);
}

#[test]
fn a_header_counts_against_the_heads_time_and_a_silent_look_is_no_offence() {
    let server = Server::with(Limits { header_timeout: Duration::from_millis(200), ..expecting() });
    let mut silent = server.client();
    assert_eq!(silent.read_to_end().unwrap(), "");
    let mut look = server.client();
    look.half_close();
    assert_eq!(look.read_to_end().unwrap(), "");
    assert_eq!(server.turned_away(), []);
    let mut slow = server.client();
    slow.send("PROXY TCP4 203");
    assert_eq!(slow.read_to_end().unwrap(), "");
    assert_eq!(server.turned_away(), [TurnedAway::ProxyHeader]);
    let mut late = server.client();
    late.send(LINE);
    assert_eq!(late.read_to_end().unwrap(), "", "the request's head has no time of its own");
    eventually("the end", || server.connections.open() == 0);
}

#[test]
fn a_stranger_needs_no_header_and_is_not_believed_one() {
    let strange = vec!["10.0.0.0/8".parse().unwrap()];
    let server = Server::with(Limits { trusted_proxies: strange, ..expecting() });
    let said = who(&mut server.client(), b"");
    assert!(said.contains("peer: Some(127.0.0.1:"), "{said}");
    for header in [LINE.as_bytes(), BINARY] {
        let said = who(&mut server.client(), header);
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    assert_eq!((server.handled(), server.refused(), server.turned_away()), (1, 2, vec![]));
}

#[test]
fn a_header_where_none_is_expected_is_a_malformed_request() {
    let server = Server::with(Limits { proxy_protocol: false, ..expecting() });
    for header in [LINE.as_bytes(), BINARY] {
        let said = who(&mut server.client(), header);
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    assert_eq!((server.handled(), server.refused()), (0, 2));
}

#[test]
fn a_unix_socket_is_believed_its_header() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _server = Server::on_unix(&path, Limits { trusted_proxies: Vec::new(), ..expecting() });
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(&[LINE.as_bytes(), WHO.as_bytes()].concat()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.contains("peer: Some(203.0.113.9:4711)"), "{said}");
}

#[test]
fn the_header_comes_before_tls() {
    let authority = crate::tls::Authority::new();
    let tls = Arc::new(oncegate::server::Tls::load(&authority.issue().1).unwrap());
    let server = Server::with_tls(expecting(), tls);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream.write_all(LINE.as_bytes()).await.unwrap();
        let mut client = authority.connect(stream, authority.client(&[], None)).await.unwrap();
        client.write_all(WHO.as_bytes()).await.unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        said
    });
    assert!(said.contains("peer: Some(203.0.113.9:4711)") && said.contains("tls: true"), "{said}");
}
