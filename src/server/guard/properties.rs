//! What holds of the guard whatever a client sends.
//!
//! What it says of single payloads is the corpus's to show (`tests/corpus`).

use http::{HeaderName, HeaderValue, Uri, uri::Authority};
use httparse::{EMPTY_HEADER, Header, Status};

use super::{FIELDS_MAX, Guard, Refused};

/// Small, so that heads of that size are tried.
const HEAD_MAX: usize = 2048;
/// The most that is held of anything else: the bound of a trailer section.
const HELD_MAX: usize = 8 * 1024;

/// The verdict does not depend on how the bytes are split, what waits for its end is bounded, and another parser finds
/// the same requests in what was let on, each framed in one way only.
pub(crate) fn hold(bytes: &[u8]) {
    let whole = feed(bytes, &[]);
    let mut each = feed(bytes, &(0..bytes.len()).collect::<Vec<_>>());
    // A head goes on all at once, so that only now it is known where each of them ends.
    let ends = std::mem::take(&mut each.head_ends);
    assert_eq!(each, Seen { head_ends: Vec::new(), ..whole });
    for count in [1, 3, 8] {
        let pieces = feed(bytes, &places(bytes, count));
        assert_eq!(pieces.head_ends.len(), ends.len());
        assert_eq!(each, Seen { head_ends: Vec::new(), ..pieces });
    }
    let (again, in_body) = read_again(&bytes[..each.passed]);
    assert_eq!(again, ends, "another parser finds other requests");
    assert!(each.refused.is_some() || each.in_body == in_body, "another parser finds another end");
}

/// What became of a connection's bytes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    passed: usize,
    /// For each head, how much had gone on when it had.
    head_ends: Vec<usize>,
    in_body: bool,
    refused: Option<Refused>,
}

/// Feeds the bytes cut at these places as a connection would: what was not let on comes again with what follows. No
/// upstream switches protocols.
fn feed(bytes: &[u8], cuts: &[usize]) -> Seen {
    let mut guard = Guard::new(HEAD_MAX);
    let mut seen = Seen { passed: 0, head_ends: Vec::new(), in_body: false, refused: None };
    for &end in cuts.iter().chain([&bytes.len()]) {
        loop {
            let fed = guard.feed(&bytes[seen.passed..end]);
            seen.passed += fed.pass;
            seen.head_ends.extend((0..fed.heads).map(|_| seen.passed));
            seen.refused = fed.refused;
            if fed.refused.is_some() {
                return seen;
            }
            if !guard.is_paused() {
                break;
            }
            guard.resume();
        }
        let held_max = if guard.is_in_body() { HELD_MAX } else { HEAD_MAX };
        assert!(end - seen.passed <= held_max, "more is held than the bound");
    }
    seen.in_body = guard.is_in_body();
    seen
}

/// So many places in the bytes, in order, which depend on nothing else.
fn places(bytes: &[u8], count: usize) -> Vec<usize> {
    let digest = *blake3::hash(bytes).as_bytes();
    let place = |pair: &[u8]| usize::from(u16::from_be_bytes([pair[0], pair[1]])) % (bytes.len() + 1);
    let mut places: Vec<_> = digest.chunks(2).take(count).map(place).collect();
    places.sort_unstable();
    places
}

/// Where the head of each request in what was let on ends, and whether the last one's body is not whole, as httparse and
/// RFC 9112 s6.3 have it.
fn read_again(bytes: &[u8]) -> (Vec<usize>, bool) {
    let (mut at, mut ends) = (0, Vec::new());
    while at < bytes.len() {
        let mut fields = [EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let Ok(Status::Complete(length)) = request.parse(&bytes[at..]) else { panic!("what was let on is no head") };
        at += length;
        ends.push(at);
        let body = match framing(&request) {
            Framing::Length(length) => usize::try_from(length).ok().filter(|length| *length <= bytes.len() - at),
            Framing::Chunked => chunked(&bytes[at..]),
        };
        match body {
            Some(length) => at += length,
            None => return (ends, true),
        }
    }
    (ends, false)
}

enum Framing {
    Length(u64),
    Chunked,
}

/// A head's framing, which is the same by every way of reading it.
fn framing(request: &httparse::Request<'_, '_>) -> Framing {
    for Header { name, value } in request.headers.iter() {
        assert!(HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_bytes(value).is_ok());
        let alias = name.replace('_', "-");
        let frames = ["content-length", "transfer-encoding", "host"];
        assert!(alias == *name || !frames.iter().any(|frames| alias.eq_ignore_ascii_case(frames)), "{name}");
    }
    let values = |wanted: &str| -> Vec<&str> {
        let wanted = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(wanted));
        wanted.map(|field| std::str::from_utf8(field.value).expect("a value that frames or routes is ASCII")).collect()
    };
    let [host] = values("host")[..] else { panic!("not one Host") };
    let host: Authority = host.parse().expect("a Host that passed is an authority");
    let target: Uri = request.path.and_then(|target| target.parse().ok()).expect("a target that passed is a URI");
    if let Some(authority) = target.authority() {
        let default = if target.scheme_str() == Some("https") { 443 } else { 80 };
        let whole =
            |authority: &Authority| (authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(default));
        assert_eq!(whole(authority), whole(&host), "a target for another host");
    }
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Framing::Length(0),
        ([length], []) => Framing::Length(length.parse().expect("a length that passed is a number")),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && request.version == Some(1) => Framing::Chunked,
        (lengths, codings) => panic!("framed by {lengths:?} and {codings:?}"),
    }
}

/// The length of a chunked body, if it is there whole.
fn chunked(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let Ok(Status::Complete((line, size))) = httparse::parse_chunk_size(&bytes[at..]) else {
            panic!("what was let on is no chunk's size")
        };
        at += line;
        if size == 0 {
            let mut fields = [EMPTY_HEADER; FIELDS_MAX];
            let trailers = httparse::parse_headers(&bytes[at..], &mut fields);
            let Ok(Status::Complete((length, fields))) = trailers else { panic!("what was let on are no trailers") };
            for Header { name, .. } in fields {
                let never = ["content-length", "transfer-encoding", "host", "authorization", "idempotency-key"];
                assert!(!never.contains(&&*name.to_ascii_lowercase()), "{name} among trailers");
            }
            return Some(at + length);
        }
        let size = usize::try_from(size).ok().filter(|size| *size < bytes.len() - at)?;
        at += size;
        let end = &bytes[at..bytes.len().min(at + 2)];
        assert_eq!(end, b"\r\n", "a chunk's data ends otherwise");
        at += 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Bytes that look like requests more often than not: heads with any framing, bodies with any other.
    fn almost_requests() -> impl Strategy<Value = Vec<u8>> {
        let line = select(vec![
            "POST / HTTP/1.1\r\nHost: a\r\n",
            "\r\nPUT /a?b HTTP/1.1\r\nhost: a:80\r\n",
            "POST HTTP://A/ HTTP/1.1\r\nHost: a:80\r\n",
            "GET https://b?c HTTP/1.1\r\nHost: a\r\n",
            "OPTIONS * HTTP/1.0\r\nHost: [::1]:80\r\n",
            "GET / HTTP/1.1\r\n",
        ]);
        let field = select(vec![
            "Content-Length: 3\r\n",
            "content-length:3 \r\n",
            "Content-Length: 03\r\n",
            "Content_Length: 3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding: Chunked\r\n",
            "Transfer_Encoding: x\r\n",
            "Host: b\r\n",
            "Upgrade: h\r\n",
            "X: y\n",
        ]);
        let other = "[A-Za-z_-]{1,14}:[ -~\t\\x80-\\xff]{0,9}\r\n";
        let field = prop_oneof![3 => field.prop_map(str::to_owned), 1 => other];
        let body = select(vec![
            "",
            "",
            "abc",
            "3\r\nabc\r\n0\r\n\r\n",
            "1;x=y\r\n\n\r\n00\r\nX: y\r\n\r\n",
            "0\r\nHost: y\r\n\r\n",
        ]);
        let request = (line, vec(field, 0..4), body, "[\\x00-\\x7f]{0,2}", 0..9_u8);
        let request = request.prop_map(|(line, fields, body, noise, how)| {
            let noise = if how == 0 { &*noise } else { "" };
            [line, &fields.concat(), "\r\n", body, noise].concat()
        });
        vec(request, 0..4).prop_map(|requests| requests.concat().into_bytes())
    }

    proptest! {
        // contract: section 8
        #[test]
        fn almost_requests_are_read_in_one_way(bytes in almost_requests()) {
            hold(&bytes);
        }

        // contract: section 8
        #[test]
        fn requests_with_one_byte_changed_are_read_in_one_way(
            mut bytes in almost_requests(), change in any::<(prop::sample::Index, u8)>(),
        ) {
            if !bytes.is_empty() {
                let at = change.0.index(bytes.len());
                bytes[at] = change.1;
            }
            hold(&bytes);
        }
    }

    #[test]
    fn held_bytes_stay_within_their_bounds() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ";
        let trailers = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ";
        for start in [&head[..], trailers] {
            hold(&[start, &[b'x'; HELD_MAX]].concat());
        }
    }
}
