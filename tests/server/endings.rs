//! How connections end: early answers, clients that leave, too many of them, and the drain.

use std::{io::Write, thread::sleep, time::Duration};

use oncegate::server::{Limits, TurnedAway};

use crate::harness::{Server, eventually, limits, now};

// contract: R-7
#[test]
fn an_answer_given_before_the_body_was_read_reaches_the_client() {
    let server = Server::start();
    for _ in 0..20 {
        let mut client = server.client();
        client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
        for _ in 0..90 {
            client.send([b'x'; 10_000]);
        }
        let (status, head, _) = client.answer().unwrap();
        assert_eq!(status, 413);
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(client.read_to_end().unwrap(), "");
    }
}

// contract: R-7
#[test]
fn what_a_client_goes_on_sending_after_an_early_answer_does_not_reset_the_connection() {
    let server = Server::start();
    let mut client = server.client();
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
    assert_eq!(client.answer().unwrap().0, 413);
    assert_eq!(client.read_to_end().unwrap(), "");
    for _ in 0..10 {
        sleep(Duration::from_millis(10));
        client.stream.write_all(&[b'x'; 1000]).unwrap();
    }
    drop(client);
    eventually("the end of the connection", || server.connections.open() == 0);
}

// contract: R-7
#[test]
fn a_client_that_sends_a_whole_upload_before_it_reads_finds_its_early_answer() {
    let server = Server::start();
    let upload = vec![b'x'; 64 << 20]; // More than the system's buffers take.
    for _ in 0..3 {
        let mut client = server.client();
        client.send(format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", upload.len()));
        client.stream.write_all(&upload).expect("all of it is taken");
        assert_eq!(client.answer().unwrap().0, 413);
        assert_eq!(client.read_to_end().unwrap(), "");
    }
}

#[test]
fn an_endless_body_that_nobody_reads_is_not_read_for_ever() {
    let server = Server::with(Limits { linger_timeout: Duration::from_millis(300), ..limits() });
    let mut client = server.client();
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.stream.set_nonblocking(true).unwrap();
    eventually("the end of the connection", || {
        let mut client = &client.stream;
        client.write(b"400\r\n").is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
            || server.handled() == 1 && server.connections.open() == 0
    });
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let server = Server::start();
    let mut client = server.client();
    client.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request", || server.handled() == 1);
    drop(client);
    eventually("the end of its handling", || server.dropped() == 1);
    eventually("the end of the connection", || server.connections.open() == 0);
}

#[test]
fn a_client_that_says_it_sends_no_more_still_gets_its_answer() {
    let serve = |path: &str| {
        let (_server, mut client) = Server::after(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.answer().unwrap().0, 200);
        let answered = now();
        assert_eq!(client.read_to_end().unwrap(), "");
        answered.elapsed()
    };
    serve("/a");
    // The end follows at once, not when some deadline fires; a busy machine has three tries to show it.
    assert!((0..3).any(|_| serve("/slow") < Duration::from_millis(400)));
}

#[test]
fn a_connection_too_many_is_answered_503_and_closed() {
    let server = Server::with(Limits { max_connections: 2, ..limits() });
    let mut first = server.client();
    let mut second = server.client();
    for client in [&mut first, &mut second] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
    }
    let mut third = server.client();
    let (status, head, body) = third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: 1") && body.contains("\"executed\":\"no\""), "{head}{body}");
    assert_eq!(third.read_to_end().unwrap(), "");
    assert_eq!((server.connections.turned_away(), server.handled()), (1, 2));

    drop(first);
    eventually("room", || server.connections.open() == 1);
    let mut fourth = server.client();
    assert_eq!(fourth.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap().0, 200);
}

#[test]
fn a_connection_too_many_of_one_client_is_answered_503_and_closed() {
    let limits = Limits { max_connections_per_address: Some(2), ..limits() };
    let server = Server::with(limits.clone());
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let [mut first, mut second] = [server.client(), server.client()];
    for client in [&mut first, &mut second] {
        client.send(request).answer().unwrap();
    }
    let mut third = server.client();
    let (status, head, body) = third.send(request).answer().unwrap();
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: 1") && body.contains("\"executed\":\"no\""), "{head}{body}");
    assert_eq!(third.read_to_end().unwrap(), "");
    assert_eq!(server.turned_away(), [TurnedAway::MaxConnectionsPerAddress]);
    let mut neighbour = server.client_from([127, 0, 0, 2]);
    assert_eq!(neighbour.send(request).answer().unwrap().0, 200);

    drop(first);
    eventually("room", || server.connections.open() == 2);
    assert_eq!(server.client().send(request).answer().unwrap().0, 200);

    // A proxy before us is nobody's client.
    let server = Server::with(Limits { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..limits });
    let mut many: Vec<_> = (0..5).map(|_| server.client()).collect();
    assert!(many.iter_mut().all(|client| client.send(request).answer().unwrap().0 == 200));
}

#[test]
fn clients_behind_a_proxy_are_counted_by_the_address_that_it_names() {
    let server = Server::with(Limits {
        max_connections_per_address: Some(1),
        proxy_protocol: true,
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..limits()
    });
    let named = |address: &str| {
        let mut client = server.client();
        client.send(format!("PROXY TCP6 {address} ::1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let status = client.answer().unwrap().0;
        (client, status)
    };
    let (first, status) = named("2001:db8::1");
    assert_eq!(status, 200);
    assert_eq!(named("2001:db8::2").1, 503, "a neighbour in the same network");
    assert_eq!(named("2001:db8:1::1").1, 200);
    drop(first);
    eventually("room", || server.connections.open() == 0);
    assert_eq!(named("2001:db8::2").1, 200);
}

// contract: R-23
#[test]
fn a_drain_closes_idle_connections_and_lets_busy_ones_finish() {
    let server = Server::start();
    let mut idle = server.client();
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
    let mut fresh = server.client();
    let mut busy = server.client();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request", || server.handled() == 2 && server.connections.open() == 3);

    server.stop();
    assert_eq!(idle.read_to_end().unwrap(), "");
    assert_eq!(fresh.read_to_end().unwrap(), "");
    let (status, head, body) = busy.answer().unwrap();
    assert_eq!((status, &*body), (200, "slow"));
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(busy.read_to_end().unwrap(), "");
    drop((idle, fresh, busy));
    eventually("the server's end", || server.is_over());
    assert!(std::net::TcpStream::connect(server.address).is_err());
}
