//! What a client's bytes mean, read a second time and in the plainest way: the requests that are whole, in order.
//!
//! Only for bytes whose verdict says that so many heads are beyond doubt: nothing is checked here.

/// A request as it must reach an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meant {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
}

impl Meant {
    /// As the upstreams of these tests say it.
    pub(super) fn line(&self) -> String {
        let Self { method, host, target, body } = self;
        format!("{method} {} {target} {}", dash(host.clone()), dash(hex(body)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A word that stands where there is none.
fn dash(word: String) -> String {
    if word.is_empty() { "-".to_owned() } else { word }
}

/// The first `count` requests, or those of them that are whole.
pub(super) fn meant(mut bytes: &[u8], count: usize) -> Vec<Meant> {
    let mut requests = Vec::new();
    while requests.len() < count
        && let Some((request, rest)) = next(bytes)
    {
        requests.push(request);
        bytes = rest;
    }
    requests
}

fn next(bytes: &[u8]) -> Option<(Meant, &[u8])> {
    // RFC 9112 s2.2: one empty line before the request line is skipped.
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let (head, rest) = split(bytes, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let field = |wanted: &str| {
        fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
    };
    let (body, rest) = match (field("transfer-encoding"), field("content-length")) {
        (Some(_), _) => chunked(rest)?,
        (None, Some(length)) => {
            let length = length.parse().ok()?;
            (rest.get(..length)?.to_vec(), &rest[length..])
        }
        (None, None) => (Vec::new(), rest),
    };
    let (host, target) = match target.split_once("://") {
        // Absolute form: `http://authority/path`, whose authority is the Host.
        Some((scheme, at)) if !scheme.contains('/') => {
            let (authority, path) = at.split_at(at.find(['/', '?']).unwrap_or(at.len()));
            let slash = if path.starts_with('/') { "" } else { "/" };
            (authority.to_owned(), format!("{slash}{path}"))
        }
        _ => (field("host").unwrap_or_default(), target.to_owned()),
    };
    Some((Meant { method: method.to_owned(), host, target, body }, rest))
}

fn chunked(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, data) = split(rest, b"\r\n")?;
        let line = std::str::from_utf8(line).ok()?;
        let size = usize::from_str_radix(line.split([';', ' ']).next()?, 16).ok()?;
        if size == 0 {
            // Trailer lines, then an empty one.
            rest = data;
            loop {
                let (line, after) = split(rest, b"\r\n")?;
                rest = after;
                if line.is_empty() {
                    return Some((body, rest));
                }
            }
        }
        body.extend_from_slice(data.get(..size)?);
        rest = data[size..].strip_prefix(b"\r\n")?;
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

#[test]
fn requests_are_read_as_they_are_meant() {
    let bytes = b"POST http://h:1?q HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\n\r\nabc\r\n\
        PUT /a HTTP/1.1\r\nhost:x\r\nTransfer-Encoding: chunked\r\n\r\n2;e\r\nab\r\n1\r\nc\r\n0\r\nT: v\r\n\r\n\
        POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc";
    let lines: Vec<_> = meant(bytes, 9).iter().map(Meant::line).collect();
    assert_eq!(lines, ["POST h:1 /?q 616263", "PUT x /a 616263"]);
    assert_eq!(meant(bytes, 1).len(), 1);
}
