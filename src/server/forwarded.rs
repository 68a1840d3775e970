//! Who the client is, and what the upstream is told of it: `X-Forwarded-*` and `Forwarded` (RFC 7239).
//!
//! Pure functions. What a request says of the hops before us is believed of a trusted proxy alone, and only as far back as
//! the first address that is not one; from anybody else it is replaced (contract: section 7).

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use ipnet::IpNet;

use super::Connection;

/// `X-Forwarded-For`
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `X-Forwarded-Port`
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The client's address: the peer's, or, if that is a trusted proxy, the nearest address before it that is not one.
///
/// A Unix socket's peer has no address and is trusted: who may connect is for the file's mode to say. `None` when nobody
/// said more.
#[must_use]
pub fn client(peer: Option<SocketAddr>, trusted: &[IpNet], headers: &HeaderMap) -> Option<IpAddr> {
    let mut client = peer.map(|peer| peer.ip().to_canonical());
    if !is_trusted(peer, trusted) {
        return client;
    }
    for hop in hops(headers).into_iter().rev() {
        // A hop that hides its address (or writes nonsense) hides what lies before it too.
        let Some(address) = hop else { break };
        client = Some(address);
        if !trusted.iter().any(|network| network.contains(&address)) {
            break;
        }
    }
    client
}

/// Makes the request's fields say how it came: appended to what a trusted proxy said, in place of what anybody else did.
/// `host` is the client's Host.
pub fn forward(headers: &mut HeaderMap, connection: &Connection, trusted: &[IpNet], host: &str) {
    let Connection { peer, local, tls, .. } = connection;
    let proto = if *tls { "https" } else { "http" };
    let is_trusted = is_trusted(*peer, trusted);
    let before = if is_trusted { Before::of(headers) } else { Before::default() };
    remove_unsaid(headers, is_trusted);

    // The same for all requests of a connection, of which there may be many.
    let Named { own_for, node } = connection.named.get_or_init(|| Named::new(*peer));
    let said = |text: String| HeaderValue::try_from(text).ok();
    let x_for = match before.x_for {
        None => own_for.clone(),
        Some(before) => joined(Some(before), own_for.as_ref().and_then(|own| own.to_str().ok())).and_then(said),
    };
    set(headers, X_FORWARDED_FOR, x_for);
    set(headers, X_FORWARDED_PROTO, before.x_proto.map_or_else(|| Some(HeaderValue::from_static(proto)), said));
    set(headers, X_FORWARDED_HOST, before.x_host.map_or_else(|| HeaderValue::from_str(host).ok(), said));
    set(headers, X_FORWARDED_PORT, before.x_port.map_or_else(|| Some(port(host, *local, *tls).into()), said));
    set(headers, FORWARDED, joined(before.forwarded, Some(&element(node, host, proto))).and_then(said));
}

/// How a connection's client is named to upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// In `X-Forwarded-For`; `None` of a client without an address.
    own_for: Option<HeaderValue>,
    /// In `Forwarded`.
    node: String,
}

impl Named {
    fn new(peer: Option<SocketAddr>) -> Self {
        let address = peer.map(|peer| peer.ip().to_canonical());
        let own_for = address.and_then(|address| HeaderValue::try_from(address.to_string()).ok());
        Self { own_for, node: node(address) }
    }
}

fn is_trusted(peer: Option<SocketAddr>, trusted: &[IpNet]) -> bool {
    peer.is_none_or(|peer| {
        let address = peer.ip().to_canonical();
        trusted.iter().any(|network| network.contains(&address))
    })
}

/// Removes what nobody whom we believe said: the other `X-Forwarded-…` of strangers, and, of everybody, names that an
/// upstream which reads `_` as `-` (CGI, WSGI) takes for one of ours.
fn remove_unsaid(headers: &mut HeaderMap, is_trusted: bool) {
    let ours = [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST, &X_FORWARDED_PORT];
    let is_lookalike = |name: &str| name.contains('_') && ours.iter().any(|ours| alike(name, ours.as_str()));
    let is_unsaid = |name: &HeaderName| {
        let begin = name.as_str().get(..X_FORWARDED.len());
        begin.is_some_and(|begin| alike(begin, X_FORWARDED)) && (!is_trusted || is_lookalike(name.as_str()))
    };
    let unsaid: Vec<_> = headers.keys().filter(|name| is_unsaid(name)).cloned().collect();
    unsaid.iter().for_each(|name| drop(headers.remove(name)));
}

const X_FORWARDED: &str = "x-forwarded-";

/// Whether a name in lower case is the other one, with `_` read as `-`.
fn alike(name: &str, other: &str) -> bool {
    name.len() == other.len()
        && name.bytes().zip(other.bytes()).all(|(byte, other)| byte == other || (byte == b'_' && other == b'-'))
}

/// What a trusted proxy said.
#[derive(Default)]
struct Before {
    x_for: Option<String>,
    x_proto: Option<String>,
    x_host: Option<String>,
    x_port: Option<String>,
    forwarded: Option<String>,
}

impl Before {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            x_for: list(headers, &X_FORWARDED_FOR),
            x_proto: list(headers, &X_FORWARDED_PROTO),
            x_host: list(headers, &X_FORWARDED_HOST),
            x_port: list(headers, &X_FORWARDED_PORT),
            forwarded: elements_before(headers),
        }
    }
}

/// What came as `Forwarded`. Of proxies that write `X-Forwarded-For` alone, the same in its form (RFC 7239 s7.4): who reads
/// `Forwarded` would take the proxy for the client otherwise, our own element being the only one.
fn elements_before(headers: &HeaderMap) -> Option<String> {
    match list(headers, &FORWARDED) {
        // A quote that is not closed would swallow our own element, too.
        Some(text) => split_unquoted(&text, ',').is_some().then_some(text),
        None if headers.contains_key(X_FORWARDED_FOR) => {
            Some(hops(headers).into_iter().map(node).collect::<Vec<_>>().join(", "))
        }
        None => None,
    }
}

/// The addresses of the hops before the peer, farthest first, by `Forwarded` or, without one, `X-Forwarded-For`. `None` of
/// a hop that gave none.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    if let Some(forwarded) = list(headers, &FORWARDED) {
        return parse_forwarded(&forwarded).into_iter().map(|node| node.and_then(|node| node_address(&node))).collect();
    }
    list(headers, &X_FORWARDED_FOR)
        .map(|text| text.split(',').map(|hop| node_address(hop.trim())).collect())
        .unwrap_or_default()
}

/// The `for` of each element (RFC 7239 s4), unquoted. Tolerant: what cannot be read is a hop that said nothing.
///
/// A quote that a client opened and did not close would swallow what the proxies appended, and leave its own lie as the
/// last word: then nothing of the field is believed.
fn parse_forwarded(text: &str) -> Vec<Option<String>> {
    let Some(elements) = split_unquoted(text, ',') else { return vec![None] };
    elements
        .into_iter()
        .map(|element| {
            split_unquoted(element, ';')?.into_iter().find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| unquoted(value.trim()))
            })
        })
        .collect()
}

/// Parts between separators that stand outside quotes; `None` when a quote is not closed.
fn split_unquoted(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text
        .split(|character| {
            let literal = escaped;
            escaped = quoted && !literal && character == '\\';
            if !literal && character == '"' {
                quoted = !quoted;
            }
            !quoted && character == separator
        })
        .collect();
    (!quoted).then_some(parts)
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut escaped = false;
    inner
        .chars()
        .filter(|&character| {
            escaped = character == '\\' && !escaped;
            !escaped
        })
        .collect()
}

/// An address with or without brackets and port.
fn node_address(node: &str) -> Option<IpAddr> {
    let address = match node.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        // One colon: IPv4 with a port. More: IPv6 as X-Forwarded-For has it.
        None if node.matches(':').count() == 1 => node.split(':').next().unwrap_or(node),
        None => node,
    };
    address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Our own element of `Forwarded`.
fn element(node: &str, host: &str, proto: &str) -> String {
    let is_token = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let quote = if is_token { "" } else { "\"" };
    [node, ";host=", quote, host, quote, ";proto=", proto].concat()
}

/// A hop as `Forwarded` names it (RFC 7239 s6).
fn node(address: Option<IpAddr>) -> String {
    match address {
        Some(IpAddr::V4(address)) => format!("for={address}"),
        Some(IpAddr::V6(address)) => format!("for=\"[{address}]\""),
        None => "for=unknown".to_owned(),
    }
}

/// The port that the client meant: its Host's, else where it connected, else its scheme's.
fn port(host: &str, local: Option<SocketAddr>, tls: bool) -> u16 {
    let after_name = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    let named = after_name.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    named.or_else(|| local.map(|local| local.port())).unwrap_or(if tls { 443 } else { 80 })
}

/// A list field's lines as one, `?` for each byte that is no text.
///
/// Such a byte must not take its line away: with it would go what the proxies appended to that line, and a client's lie in
/// another line, or in the other field, would be the last word.
fn list(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { '?' };
    let lines: Vec<String> =
        headers.get_all(name).iter().map(|line| line.as_bytes().iter().map(text).collect()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

fn joined(before: Option<String>, own: Option<&str>) -> Option<String> {
    match (before, own) {
        (Some(before), Some(own)) if !before.is_empty() => Some(before + ", " + own),
        (_, Some(own)) => Some(own.to_owned()),
        (before, None) => before,
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    // A Host that the guard let on, and what was a field's value before, are field values.
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

#[cfg(test)]
mod tests;
