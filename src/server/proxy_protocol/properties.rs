//! What holds of PROXY headers whatever a connection begins with.

use std::net::{IpAddr, SocketAddr};

use super::{BINARY, BINARY_BODY_MAX, BINARY_HEAD, Header, PROXY, TEXT_MAX, parse};

/// The verdict does not depend on how the bytes were split, no header is longer than its bound, and what a header says
/// is what the same addresses say in each version.
pub(crate) fn hold(bytes: &[u8]) {
    let whole = parse(bytes);
    let first = (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|verdict| *verdict != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), whole, "a verdict once given is the verdict on all that follows");
    match whole {
        Ok(Some((header, length))) => {
            assert!(length <= bytes.len() && length <= BINARY_HEAD + BINARY_BODY_MAX);
            reads_back(header);
        }
        Ok(None) => assert!(bytes.len() < TEXT_MAX.max(BINARY_HEAD + BINARY_BODY_MAX), "nobody waits for ever"),
        Err(_) => {}
    }
}

fn reads_back(header: Header) {
    let Header::Named { client, local } = header else { return };
    assert!([client, local].iter().all(|address| address.ip() == address.ip().to_canonical()));
    if client.is_ipv4() == local.is_ipv4() {
        let family = if client.is_ipv4() { 4 } else { 6 };
        let (from, to) = (client.port(), local.port());
        let line = format!("PROXY TCP{family} {} {} {from} {to}\r\n", client.ip(), local.ip());
        assert_eq!(parse(line.as_bytes()), Ok(Some((header, line.len()))), "{line}");
    }
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    let binary = [&BINARY[..], &[PROXY, 0x21, 0, 36], &octets(client), &octets(local), &ports].concat();
    assert_eq!(parse(&binary), Ok(Some((header, binary.len()))), "{binary:02x?}");
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    proptest! {
        #[test]
        fn a_line_is_read_in_one_way(
            words in vec(
                select(vec!["TCP4", "TCP6", "UNKNOWN", "1.2.3.4", "::1", "::ffff:1.2.3.4", "80", "0", "01", "+1", "65536", ""]),
                1..7,
            ),
            end in select(vec!["\r\n", "\n", "\r", "", " \r\n"]),
            address in any::<[SocketAddr; 2]>(),
        ) {
            hold(format!("PROXY {}{end}GET /", words.join(" ")).as_bytes());
            let family = if address[0].is_ipv4() { 4 } else { 6 };
            let [client, local] = address;
            let (from, to) = (client.port(), local.port());
            hold(format!("PROXY TCP{family} {} {} {from} {to}{end}", client.ip(), local.ip()).as_bytes());
        }

        #[test]
        fn a_binary_header_is_read_in_one_way(
            command in 0x1f..0x23_u8, family in prop_oneof![select(vec![0x11, 0x21, 0x31]), any::<u8>()],
            length in 0..80_u16, body in vec(any::<u8>(), 0..80),
        ) {
            hold(&[&BINARY[..], &[command, family], &length.to_be_bytes(), &body].concat());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..60), signature in select(vec![&b""[..], b"PROXY ", BINARY])) {
            hold(&[signature, &bytes].concat());
        }
    }
}
