use proptest::prelude::*;

use super::*;

fn header(client: &str, local: &str) -> Header {
    Header::Named { client: client.parse().unwrap(), local: local.parse().unwrap() }
}

/// A binary header with this command, family and body.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&BINARY[..], &[command, family], &length, body].concat()
}

const V4: [u8; 12] = [203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 0x01, 0xbb];

#[test]
fn a_line_names_the_client() {
    for (line, expected) in [
        ("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", header("203.0.113.9:4711", "192.0.2.1:443")),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", header("255.255.255.255:65535", "0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n", header("[2001:db8::9]:4711", "[2001:db8::1]:443")),
        ("PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 443\r\n", header("203.0.113.9:4711", "[::1]:443")),
        ("PROXY UNKNOWN\r\n", Header::Unnamed),
        ("PROXY UNKNOWN ffff::1 whatever this is\r\n", Header::Unnamed),
    ] {
        assert_eq!(parse(line.as_bytes()), Ok(Some((expected, line.len()))), "{line:?}");
        let more = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(parse(more.as_bytes()), Ok(Some((expected, line.len()))), "{line:?}");
    }
}

#[test]
fn a_line_that_is_not_quite_one_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443 \r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443 more\r\n",
        "PROXY  TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
        "PROXY TCP4  203.0.113.9 192.0.2.1 4711 443\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 4711 65536\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 +711 443\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 04711 443\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 -1 443\r\n",
        "PROXY TCP4 203.0.113.09 192.0.2.1 4711 443\r\n",
        "PROXY TCP4 203.0.113 192.0.2.1 4711 443\r\n",
        "PROXY TCP4 2001:db8::9 2001:db8::1 4711 443\r\n",
        "PROXY TCP6 203.0.113.9 192.0.2.1 4711 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n",
        "PROXY TCP5 203.0.113.9 192.0.2.1 4711 443\r\n",
        "PROXY tcp4 203.0.113.9 192.0.2.1 4711 443\r\n",
        "PROXY UNKNOWNS\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Malformed::Line), "{line:?}");
    }
    for other in ["GET / HTTP/1.1\r\n", "PROXI", "proxy ", "PROXY\t", "\r\n\r\nX", "\x16\x03\x01"] {
        assert_eq!(parse(other.as_bytes()), Err(Malformed::Missing), "{other:?}");
    }
}

#[test]
fn a_line_has_an_end_within_its_bound() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(TEXT_MAX - 16));
    assert_eq!(parse(longest.as_bytes()), Ok(Some((Header::Unnamed, TEXT_MAX))));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(TEXT_MAX - 15));
    assert_eq!(parse(longer.as_bytes()), Err(Malformed::TooLong));
    assert_eq!(parse(&longer.as_bytes()[..TEXT_MAX - 1]), Ok(None));
}

#[test]
fn a_binary_header_names_the_client() {
    let expected = header("203.0.113.9:4711", "192.0.2.1:443");
    let values = [&V4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
    for (bytes, expected) in [
        (binary(0x21, 0x11, &V4), expected),
        (binary(0x21, 0x12, &V4), expected),
        (binary(0x21, 0x11, &values), expected),
        (
            binary(0x21, 0x21, &[&[0; 15][..], &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat()),
            header("[::1]:1", "[::2]:2"),
        ),
        (binary(0x20, 0x00, b""), Header::Unnamed),
        (binary(0x20, 0x11, &V4), Header::Unnamed),
        (binary(0x20, 0xff, b"skipped"), Header::Unnamed),
        (binary(0x21, 0x00, b""), Header::Unnamed),
        (binary(0x21, 0x10, &V4), Header::Unnamed),
        (binary(0x21, 0x31, &[b'/'; 216]), Header::Unnamed),
    ] {
        assert_eq!(parse(&bytes), Ok(Some((expected, bytes.len()))), "{bytes:02x?}");
        let more = [&bytes[..], b"\x16\x03\x01"].concat();
        assert_eq!(parse(&more), Ok(Some((expected, bytes.len()))), "{bytes:02x?}");
    }
}

#[test]
fn a_binary_header_that_is_not_quite_one_is_refused() {
    for (bytes, expected) in [
        (binary(0x11, 0x11, &V4), Malformed::Command),
        (binary(0x22, 0x11, &V4), Malformed::Command),
        (binary(0x21, 0x13, &V4), Malformed::Family),
        (binary(0x21, 0x41, &V4), Malformed::Family),
        (binary(0x21, 0x11, &V4[..11]), Malformed::TooShort),
        (binary(0x21, 0x21, &V4), Malformed::TooShort),
        (binary(0x21, 0x11, b""), Malformed::TooShort),
        (binary(0x21, 0x11, &[0; BINARY_BODY_MAX + 1]), Malformed::TooLong),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Malformed::Missing),
    ] {
        assert_eq!(parse(&bytes), Err(expected), "{bytes:02x?}");
    }
    let longest = binary(0x21, 0x11, &[0; BINARY_BODY_MAX]);
    assert_eq!(parse(&longest), Ok(Some((header("0.0.0.0:0", "0.0.0.0:0"), longest.len()))));
    // Its length says so: nobody waits for the rest.
    assert_eq!(parse(&binary(0x21, 0x11, &[0; BINARY_BODY_MAX + 1])[..BINARY_HEAD]), Err(Malformed::TooLong));
}

#[tokio::test]
async fn what_follows_the_header_is_left() {
    let (mut proxy, mut ours) = tokio::io::duplex(7);
    let sent = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\nGET / HTTP/1.1\r\n";
    let writing = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut proxy, sent.as_bytes()).await });
    let mut left = Vec::new();
    assert_eq!(read(&mut ours, &mut left).await.unwrap(), header("203.0.113.9:4711", "192.0.2.1:443"));
    ours.read_to_end(&mut left).await.unwrap();
    assert_eq!(left, b"GET / HTTP/1.1\r\n");
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_header_that_breaks_off_is_none() {
    let mut left = Vec::new();
    let error = read(&mut &b"PROXY TCP4 203"[..], &mut left).await.unwrap_err();
    assert_eq!(error.into_inner().unwrap().downcast_ref(), Some(&Malformed::BrokenOff));
    assert_eq!(left, b"PROXY TCP4 203");
}

fn sound() -> impl Strategy<Value = Vec<u8>> {
    let line = ("TCP[46]", "[0-9a-f:.]{2,16}", "[0-9a-f:.]{2,16}", any::<u16>(), any::<u16>()).prop_map(
        |(family, client, local, from, to)| format!("PROXY {family} {client} {local} {from} {to}\r\n").into(),
    );
    let bytes = (0x20..0x23_u8, any::<u8>(), prop::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(command, family, body)| binary(command, family, &body));
    prop_oneof![line, bytes]
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_splits(mut bytes in sound(), change in any::<(usize, u8)>(), more in "[ -~]{0,20}") {
        if change.0 % 3 == 0 {
            let at = change.0 % bytes.len();
            bytes[at] = change.1;
        }
        bytes.extend(more.as_bytes());
        let whole = parse(&bytes);
        let first = (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|verdict| *verdict != Ok(None));
        // A verdict once given is the verdict on all that follows.
        prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
    }

    #[test]
    fn nothing_makes_it_panic_or_read_beyond_its_bounds(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for signature in [&b""[..], TEXT, BINARY, &BINARY[..11]] {
            let bytes = [signature, &bytes].concat();
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && length <= BINARY_HEAD + BINARY_BODY_MAX);
            }
        }
    }

    #[test]
    fn every_address_reads_back(client: SocketAddr, local: SocketAddr) {
        let strip = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let expected = Header::Named { client: strip(client), local: strip(local) };
        if client.is_ipv4() == local.is_ipv4() {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port());
            prop_assert_eq!(parse(line.as_bytes()), Ok(Some((expected, line.len()))));
        }
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let body = [
            &octets(client)[..],
            &octets(local),
            &client.port().to_be_bytes(),
            &local.port().to_be_bytes(),
        ].concat();
        prop_assert_eq!(parse(&binary(0x21, 0x21, &body)), Ok(Some((expected, 16 + 36))));
    }
}
