//! What holds of forwarded fields whatever a request says of the hops before us.
//!
//! The input is three lines: `Forwarded`, `X-Forwarded-For`, and a host. An empty line is a field that is not there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderValue, header::FORWARDED};
use ipnet::IpNet;

use super::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, client, forward};
use crate::server::{Connection, guard::authority_is_valid};

/// A client's address; nobody's proxy.
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 4711);
/// A proxy before us.
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1234);
/// Our own address, as the next hop sees it.
const OURS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5678);

fn trusted() -> Vec<IpNet> {
    ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")).to_vec()
}

/// A stranger is never believed, what the nearest proxy says cannot be outdone by what came before it, and the next hop
/// finds the client that we found.
pub(crate) fn hold(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut field = || lines.next().filter(|line| !line.is_empty()).and_then(|line| HeaderValue::from_bytes(line).ok());
    let (forwarded, forwarded_for) = (field(), field());
    let host = lines.next().filter(|host| authority_is_valid(host)).and_then(|host| std::str::from_utf8(host).ok());
    let said = Said { forwarded, forwarded_for, host: host.unwrap_or("a.example") };
    said.by_a_stranger();
    said.before_a_proxy();
    said.to_the_next_hop();
}

struct Said<'a> {
    forwarded: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    host: &'a str,
}

impl Said<'_> {
    fn headers(&self) -> HeaderMap {
        let forwarded = self.forwarded.iter().map(|value| (FORWARDED, value.clone()));
        forwarded.chain(self.forwarded_for.iter().map(|value| (X_FORWARDED_FOR, value.clone()))).collect()
    }

    fn forwarded_by(&self, peer: SocketAddr, mut headers: HeaderMap) -> HeaderMap {
        let connection = Connection { peer: Some(peer), local: Some(OURS), ..Connection::default() };
        forward(&mut headers, &connection, &trusted(), self.host);
        headers
    }

    /// All that a stranger says is replaced.
    fn by_a_stranger(&self) {
        let headers = self.headers();
        assert_eq!(client(Some(STRANGER), &trusted(), &headers), Some(STRANGER.ip()));
        assert_eq!(self.forwarded_by(STRANGER, headers), self.forwarded_by(STRANGER, HeaderMap::new()));
    }

    /// A proxy appends the address it was asked from, to the last line or in one of its own. Where that can be read, it is
    /// the client; one that hides whom it speaks for hides what came before, too; else nothing is believed.
    fn before_a_proxy(&self) {
        let other = IpAddr::from([10, 9, 9, 9]);
        for (name, elements, nearest) in [
            (FORWARDED, "for=203.0.113.9", STRANGER.ip()),
            (FORWARDED, "for=_hidden, for=10.9.9.9", other),
            (X_FORWARDED_FOR, "203.0.113.9", STRANGER.ip()),
            (X_FORWARDED_FOR, "unknown, 10.9.9.9", other),
        ] {
            let mut lines = self.headers();
            if name == X_FORWARDED_FOR {
                lines.remove(FORWARDED);
            }
            let mut one_line = lines.clone();
            let before = lines.get(&name).map_or(Vec::new(), |value| [value.as_bytes(), b", "].concat());
            let appended = HeaderValue::from_bytes(&[&before, elements.as_bytes()].concat());
            one_line.insert(&name, appended.expect("values with a comma between them are one"));
            lines.append(&name, HeaderValue::from_static(elements));
            for headers in [one_line, lines] {
                let found = client(Some(PROXY), &trusted(), &headers);
                assert!([Some(nearest), Some(PROXY.ip())].contains(&found), "{found:?} by {headers:?}");
            }
        }
    }

    /// What is sent on says to the next hop what was said to us, and where it came from.
    fn to_the_next_hop(&self) {
        let headers = self.headers();
        let found = client(Some(PROXY), &trusted(), &headers);
        let sent = self.forwarded_by(PROXY, headers);
        for name in [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO] {
            assert_eq!(sent.get_all(&name).iter().count(), 1, "{name}: {sent:?}");
        }
        let text = |name| sent.get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap_or_default());
        assert!(text(X_FORWARDED_FOR).ends_with("10.0.0.1"), "{sent:?}");
        assert_eq!(client(Some(OURS), &trusted(), &sent), found, "{sent:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn strewn() -> impl Strategy<Value = String> {
        let pieces = [
            "for=",
            "For=\"",
            "\"",
            "\\",
            ",",
            ", ",
            ";",
            "host=",
            "1.2.3.4",
            "10.9.9.9",
            "[2001:db8::1]:80",
            "fd00::2",
            ":81",
            "unknown",
            "_x",
            " ",
            "é",
        ];
        vec(select(pieces.to_vec()), 0..9).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        // contract: section 7
        #[test]
        fn nobody_is_believed_beyond_the_nearest_proxy(
            forwarded in strewn(), forwarded_for in strewn(), host in select(vec!["a", "[::1]:81", "b:0", "\""]),
        ) {
            hold(format!("{forwarded}\n{forwarded_for}\n{host}").as_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..60)) {
            hold(&bytes);
        }
    }
}
