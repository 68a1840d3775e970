//! Properties of the guard. What it says of single payloads is the corpus's to show (`tests/corpus`).

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

const MAX: usize = 512;

/// Feeds pieces as a connection would: what was not let on comes again with what follows. Returns the bytes let on, the
/// heads among them, and the refusal.
fn fed(pieces: &[&[u8]]) -> (Vec<u8>, u64, Option<Refused>) {
    let mut guard = Guard::new(MAX);
    let (mut held, mut passed, mut heads) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        held.extend_from_slice(piece);
        let fed = guard.feed(&held);
        passed.extend(held.drain(..fed.pass));
        heads += fed.heads;
        if fed.refused.is_some() {
            return (passed, heads, fed.refused);
        }
        assert!(guard.is_in_body() || held.len() <= MAX, "a head is held beyond its bound");
    }
    (passed, heads, None)
}

fn cut<'a>(bytes: &'a [u8], at: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Bytes that look like requests more often than not.
fn almost_requests() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        Just("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        Just("POST / HTTP/1.1\r\nHost: a\r\n".to_owned()),
        Just("Content-Length: 3\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("3\r\nabc\r\n".to_owned()),
        Just("0\r\n\r\n".to_owned()),
        Just("0\r\nX: y\r\n\r\n".to_owned()),
        Just("abc".to_owned()),
        "[A-Za-z_-]{1,14}: [ -~]{0,9}\r\n",
        "[\\x00-\\x7f]{0,4}",
    ];
    vec(fragment, 0..12).prop_map(|fragments| fragments.concat().into_bytes())
}

proptest! {
    // contract: section 8
    #[test]
    fn a_verdict_does_not_depend_on_how_the_bytes_are_split(
        bytes in prop_oneof![almost_requests(), vec(any::<u8>(), 0..80)],
        at in vec(any::<Index>(), 0..8),
    ) {
        let whole = fed(&[&bytes]);
        prop_assert!(bytes.starts_with(&whole.0));
        prop_assert_eq!(&fed(&cut(&bytes, &at)), &whole);
        prop_assert_eq!(&fed(&bytes.chunks(1).collect::<Vec<_>>()), &whole);
    }

    /// Whatever the guard lets on as a target, hyper's URI takes whole: nothing is refused behind the guard's back, and no
    /// fragment is cut off.
    #[test]
    fn a_target_that_passes_is_a_uri_and_stays_as_it_is(
        target in prop_oneof!["/[!-~]{0,20}", "[!-~]{1,20}", "https?://a[!-~]{0,20}", "/[\\x00-\\xff]{0,6}"],
    ) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        if fed(&[request.as_bytes()]).1 == 1 {
            let uri = http::Uri::try_from(&target).unwrap();
            let origin = target.find("://").map_or(&*target, |at| {
                let rest = &target[at + 3..];
                rest.find(['/', '?']).map_or("", |at| &rest[at..])
            });
            let kept = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
            prop_assert_eq!(kept.trim_start_matches('/'), origin.trim_start_matches('/'));
        }
    }

    /// Whatever the guard lets on as a Host, `http` takes as an authority.
    #[test]
    fn a_host_that_passes_is_an_authority(host in prop_oneof!["[!-~]{1,12}", "\\[[0-9a-f:.]{0,12}\\](:[0-9]{0,6})?"]) {
        if authority_is_valid(host.as_bytes()) {
            let authority = http::uri::Authority::try_from(&*host).unwrap();
            prop_assert_eq!(authority.as_str(), &host);
        }
    }

    #[test]
    fn a_content_length_is_what_it_says(length in any::<u64>()) {
        let accepted = field::content_length(length.to_string().as_bytes());
        prop_assert_eq!(accepted, i64::try_from(length).is_ok().then_some(length));
    }

    /// Bodies pass unlooked at, however they are framed and whatever they say, and the next request is found behind them.
    #[test]
    fn requests_are_found_behind_bodies_of_any_bytes(
        bodies in vec((any::<bool>(), vec(any::<u8>(), 1..40)), 1..6),
        at in vec(any::<Index>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for (chunked, body) in &bodies {
            bytes.extend(b"POST / HTTP/1.1\r\nHost: a\r\n");
            if *chunked {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(7) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            } else {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend(body);
            }
        }
        let (passed, heads, refused) = fed(&cut(&bytes, &at));
        prop_assert_eq!((passed.len(), heads, refused), (bytes.len(), bodies.len() as u64, None));
    }
}

#[test]
fn names_that_are_like_framing_are_told_from_those_that_are_framing() {
    assert!(looks_like_framing(b"Content_Length") && looks_like_framing(b"transfer_encoding"));
    assert!(!looks_like_framing(b"Content-Length") && !looks_like_framing(b"content_type"));
}
