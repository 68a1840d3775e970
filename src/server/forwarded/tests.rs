use proptest::prelude::*;

use super::*;

const PROXY: &str = "10.0.0.1:1234";

fn trusted() -> Vec<IpNet> {
    vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn client_of(peer: &str, lines: &[(&'static str, &str)]) -> String {
    client(Some(peer.parse().unwrap()), &trusted(), &headers(lines)).unwrap().to_string()
}

fn forwarded(peer: &str, tls: bool, host: &str, lines: &[(&'static str, &str)]) -> Vec<(String, String)> {
    let mut headers = headers(lines);
    let local = Some("192.0.2.1:8080".parse().unwrap());
    let connection = Connection { peer: Some(peer.parse().unwrap()), local, tls, ..Connection::default() };
    forward(&mut headers, &connection, &trusted(), host);
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    lines.sort();
    lines
}

fn lines(lines: [(&str, &str); 5]) -> Vec<(String, String)> {
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

// contract: section 7
#[test]
fn a_stranger_is_who_connected_whatever_it_says() {
    let lie = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")];
    assert_eq!(client_of("203.0.113.9:1", &lie), "203.0.113.9");
    assert_eq!(client_of("[::ffff:203.0.113.9]:1", &lie), "203.0.113.9");
}

// contract: section 7
#[test]
fn a_trusted_proxy_is_believed_back_to_the_first_stranger() {
    for (field, value, client) in [
        ("x-forwarded-for", "203.0.113.9", "203.0.113.9"),
        ("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("x-forwarded-for", "1.1.1.1, 2001:db8::1", "2001:db8::1"),
        ("x-forwarded-for", "203.0.113.9:4711", "203.0.113.9"),
        ("x-forwarded-for", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("x-forwarded-for", "1.1.1.1, nonsense", "10.0.0.1"),
        ("x-forwarded-for", "", "10.0.0.1"),
        ("forwarded", "for=203.0.113.9", "203.0.113.9"),
        ("forwarded", "For=\"[2001:db8::1]:4711\";proto=http, for=10.2.2.2", "2001:db8::1"),
        ("forwarded", "for=1.1.1.1, for=_hidden, for=10.2.2.2", "10.2.2.2"),
        ("forwarded", "host=\"a,b;for=1.1.1.1\";for=203.0.113.9", "203.0.113.9"),
        ("forwarded", "for=\"203.0.113.9\\\"", "10.0.0.1"),
        ("forwarded", "for=1.2.3.4;host=\", for=203.0.113.9", "10.0.0.1"),
        ("forwarded", "for=1.2.3.4;host=\", for=\"[2001:db8::1]\"", "10.0.0.1"),
    ] {
        assert_eq!(client_of(PROXY, &[(field, value)]), client, "{field}: {value}");
    }
}

// contract: section 7
#[test]
fn a_byte_that_is_no_text_does_not_take_away_what_a_proxy_appended_to_it() {
    let by = |lines: &[(&'static str, &[u8])]| {
        let line = |(name, value): &(&'static str, &[u8])| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        lines.iter().map(line).for_each(|(name, value)| _ = headers.append(name, value));
        client(PROXY.parse().ok(), &trusted(), &headers).unwrap().to_string()
    };
    assert_eq!(by(&[("x-forwarded-for", b"1.2.3.4"), ("x-forwarded-for", b"\xe9, 203.0.113.9")]), "203.0.113.9");
    assert_eq!(by(&[("forwarded", b"\xe9, for=203.0.113.9"), ("x-forwarded-for", b"1.2.3.4")]), "203.0.113.9");
    assert_eq!(by(&[("x-forwarded-for", b"1.2.3.4, \xe9")]), "10.0.0.1");
}

#[test]
fn a_local_peer_is_trusted_and_may_say_nothing() {
    let said = headers(&[("x-forwarded-for", "203.0.113.9")]);
    assert_eq!(client(None, &trusted(), &said), Some("203.0.113.9".parse().unwrap()));
    assert_eq!(client(None, &trusted(), &HeaderMap::new()), None);
}

// contract: section 7
#[test]
fn what_a_stranger_says_is_replaced() {
    let lies = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("x-forwarded-port", "443"),
        ("forwarded", "for=1.2.3.4"),
        ("forwarded", "for=5.6.7.8"),
    ];
    let said = forwarded("203.0.113.9:1", false, "a.example", &lies);
    assert_eq!(
        said,
        lines([
            ("forwarded", "for=203.0.113.9;host=a.example;proto=http"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-port", "8080"),
            ("x-forwarded-proto", "http"),
        ])
    );
}

// contract: section 7
#[test]
fn nobody_slips_in_what_reads_like_ours() {
    let slipped = [
        ("x_forwarded_for", "1.2.3.4"),
        ("x-forwarded_for", "1.2.3.4"),
        ("x-forwarded-prefix", "/admin"),
        ("x_forwarded_ssl", "on"),
        ("x-forwardedness", "much"),
    ];
    let names = |peer| forwarded(peer, false, "a.example", &slipped).into_iter().map(|(name, _)| name);
    let ours = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"];
    let others = |peer| names(peer).filter(|name| !ours.contains(&name.as_str())).collect::<Vec<_>>();
    assert_eq!(others("203.0.113.9:1"), ["x-forwardedness"]);
    assert_eq!(others(PROXY), ["x-forwarded-prefix", "x-forwardedness", "x_forwarded_ssl"]);
}

// contract: section 7
#[test]
fn what_a_trusted_proxy_says_is_kept_and_appended_to() {
    let before = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-for", "10.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("x-forwarded-port", "443"),
        ("forwarded", "for=203.0.113.9"),
    ];
    let said = forwarded("[fd00::1]:1", false, "a.example:81", &before);
    assert_eq!(
        said,
        lines([
            ("forwarded", "for=203.0.113.9, for=\"[fd00::1]\";host=\"a.example:81\";proto=http"),
            ("x-forwarded-for", "203.0.113.9, 10.2.2.2, fd00::1"),
            ("x-forwarded-host", "bank.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
        ])
    );
}

// contract: section 7
#[test]
fn a_proxy_that_writes_x_forwarded_for_alone_is_heard_by_who_reads_forwarded() {
    for (value, before) in [
        ("203.0.113.9", "for=203.0.113.9, "),
        ("203.0.113.9:4711, nonsense, 2001:db8::1", "for=203.0.113.9, for=unknown, for=\"[2001:db8::1]\", "),
        ("", "for=unknown, "),
    ] {
        let said = forwarded(PROXY, false, "a", &[("x-forwarded-for", value)]);
        assert_eq!(said[0].1, format!("{before}for=10.0.0.1;host=a;proto=http"), "{value}");
    }
}

// contract: section 7
#[test]
fn what_a_trusted_proxy_says_is_replaced_where_it_would_swallow_our_word() {
    for open in ["for=1.2.3.4;host=\"", "for=\"203.0.113.9\\\""] {
        let said = forwarded(PROXY, false, "a.example", &[("forwarded", open)]);
        assert_eq!(said[0], ("forwarded".to_owned(), "for=10.0.0.1;host=a.example;proto=http".to_owned()), "{open}");
    }
}

#[test]
fn the_port_is_the_one_that_the_client_meant() {
    let local = Some("192.0.2.1:8080".parse().unwrap());
    assert_eq!(port("a:81", local, true), 81);
    assert_eq!(port("[::1]:81", local, true), 81);
    assert_eq!(port("[::1]", local, true), 8080);
    assert_eq!(port("a", None, true), 443);
    assert_eq!(port("a", None, false), 80);
}

proptest! {
    #[test]
    fn nothing_that_is_said_panics_or_makes_a_stranger_believed(
        said in "[ -~]{0,40}", more in "(for=|,|;|\"|\\\\|\\[|\\]|:|1\\.1\\.1\\.1| ){0,12}",
    ) {
        for value in [said, more] {
            let mut headers = HeaderMap::new();
            headers.append("forwarded", value.parse().unwrap());
            headers.append("x-forwarded-for", value.parse().unwrap());
            let stranger = "203.0.113.9:1".parse().ok();
            prop_assert_eq!(client(stranger, &trusted(), &headers), Some("203.0.113.9".parse().unwrap()));
            let _ = client(PROXY.parse().ok(), &trusted(), &headers);
            let connection = Connection { peer: PROXY.parse().ok(), ..Connection::default() };
            forward(&mut headers, &connection, &trusted(), "a");
            let last = headers[X_FORWARDED_FOR].to_str().unwrap();
            prop_assert!(last.ends_with("10.0.0.1"));
        }
    }
}
