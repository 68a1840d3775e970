//! What a route is for: patterns of hosts and paths.

use percent_encoding::percent_decode_str;

use crate::config::settled::{HostPattern, PathPattern, Segment};

use super::{Wrong, wrong};

/// A route's `host`.
pub(crate) fn host(text: &str) -> Result<HostPattern, Wrong> {
    const SAY: &str = "say \"api.example.com\", or \"*.example.com\" for every name below it";
    let text = text.strip_suffix('.').unwrap_or(text);
    if !text.is_ascii() {
        return wrong("a host name that is not ASCII", "write it as clients send it, in its xn-- form");
    }
    let lower = text.to_ascii_lowercase();
    let (suffix, name) = lower.strip_prefix("*.").map_or((false, lower.as_str()), |name| (true, name));
    let bracketed =
        name.starts_with('[') && name.ends_with(']') && name[1..name.len() - 1].parse::<std::net::Ipv6Addr>().is_ok();
    if bracketed && !suffix {
        return Ok(HostPattern::Exact(lower));
    }
    if name.contains("://") {
        return wrong("a host with a scheme", "leave it out, and what follows the name: say \"api.example.com\"");
    }
    if name.contains(':') {
        return wrong("a host with a port", "leave the port out: a route is for its host on every port");
    }
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if !name.split('.').all(label) {
        return wrong("not a host name", SAY);
    }
    Ok(if suffix { HostPattern::Suffix(format!(".{name}")) } else { HostPattern::Exact(lower) })
}

/// A route's `path`.
pub(crate) fn path(text: &str) -> Result<PathPattern, Wrong> {
    let Some(rest) = text.strip_prefix('/') else {
        return wrong(
            "a path that does not begin with a slash",
            "say \"/v1/charges\", \"/v1/charges/{id}\" or \"/v1/{*rest}\"",
        );
    };
    if text.contains(['?', '#']) {
        return wrong("a path with a query or a fragment", "leave it out: a route is for its path with every query");
    }
    let mut segments = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let pieces: Vec<&str> = rest.split('/').collect();
    for (index, piece) in pieces.iter().enumerate() {
        let inner = piece.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
        // `{x}{y}`
        let inner = inner.filter(|inner| !inner.contains(['{', '}']));
        let (name, segment) =
            match inner.map(|inner| inner.strip_prefix('*').map_or((inner, false), |name| (name, true))) {
                None => {
                    segments.push(literal(piece)?);
                    continue;
                }
                Some((name, true)) if index + 1 == pieces.len() => (name, Segment::Rest(name.to_owned())),
                Some((_, true)) => {
                    return wrong("`{*…}` before the end of a path", "let it be the last segment: \"/v1/{*rest}\"");
                }
                Some((name, false)) => (name, Segment::Parameter(name.to_owned())),
            };
        let ident = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !ident {
            return wrong("a parameter without a name", "say \"{id}\": letters, digits and _");
        }
        if names.contains(&name) {
            return wrong("two parameters of one name", "give each its own: \"/customers/{customer}/cards/{card}\"");
        }
        names.push(name);
        segments.push(segment);
    }
    Ok(PathPattern { text: text.to_owned(), segments })
}

fn literal(piece: &str) -> Result<Segment, Wrong> {
    if piece.contains(['{', '}']) {
        return wrong(
            "a parameter that is not a whole segment",
            "let braces hold a segment from slash to slash: \"/v1/charges/{id}\"",
        );
    }
    if piece.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return wrong("a path with a control character", "write it as it is sent: %00");
    }
    if piece.contains(char::is_whitespace) {
        return wrong("a path with a blank", "write it as it is sent: %20");
    }
    let escapes = piece
        .split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()));
    match percent_decode_str(piece).decode_utf8() {
        Ok(decoded) if escapes => Ok(Segment::Literal(decoded.into_owned())),
        Ok(_) | Err(_) => wrong("a bad percent-encoding", "write % as %25, and other bytes as UTF-8"),
    }
}
