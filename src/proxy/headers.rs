//! Header fields on their way through: what ends here (RFC 9110 s7.6.1), what is added (contract: section 7).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, response};

use crate::rule::keep::{HOP_BY_HOP, connection_names};

pub(crate) const IDEMPOTENCY_STATUS: HeaderName = HeaderName::from_static("idempotency-status");
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
pub(crate) const STRIPE_SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");

/// Removes what ends at this hop from a request, whose other fields may change places.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        for name in connection_names(headers) {
            if let Ok(name) = HeaderName::try_from(name) {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The same of an answer, whose other fields stay in their order (contract: R-19).
pub(crate) fn remove_hop_by_hop_in_order(headers: &mut HeaderMap) {
    if !HOP_BY_HOP.iter().any(|name| headers.contains_key(name)) {
        return;
    }
    let named = connection_names(headers);
    let ends_here = |name: &HeaderName| HOP_BY_HOP.contains(name) || named.iter().any(|named| named == name.as_str());
    rebuild_without(headers, ends_here);
}

/// Removes these fields, and leaves the others in their order.
pub(crate) fn remove_in_order(headers: &mut HeaderMap, names: &[HeaderName]) {
    if names.iter().any(|name| headers.contains_key(name)) {
        rebuild_without(headers, |name| names.contains(name));
    }
}

/// `HeaderMap::remove` puts the last field in the removed one's place; only a map made anew keeps the order, which is
/// the upstream's to choose (contract: R-19).
fn rebuild_without(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let all = std::mem::take(headers);
    headers.reserve(all.keys_len());
    let mut last = None;
    for (name, value) in all {
        // A further value of a name comes without it.
        if name.is_some() {
            last = name.filter(|name| !goes(name));
        }
        if let Some(name) = &last {
            headers.append(name, value);
        }
    }
}

/// Adds this hop to `Via`, with the version in which the message came (RFC 9110 s7.6.3).
pub(crate) fn add_via(headers: &mut HeaderMap, received: Version) {
    headers.append(
        header::VIA,
        HeaderValue::from_static(match received {
            Version::HTTP_10 => "1.0 oncegate",
            Version::HTTP_2 => "2.0 oncegate",
            _ => "1.1 oncegate",
        }),
    );
}

/// Joins the lines of `Cookie`, which HTTP/2 may split and nothing else knows to (RFC 9113 s8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Whether `Connection` asks for `Upgrade`, and to what. h2c is no upgrade here: it would hide requests in a tunnel, and
/// a server may ignore what it does not take up (RFC 9110 s7.8); some clients ask for it with every request. What HTTP/1.0
/// asks for must be ignored.
pub(crate) fn upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let to = headers.get(header::UPGRADE).filter(|_| version == Version::HTTP_11)?;
    let h2c = to.to_str().is_ok_and(|names| names.split(',').any(|name| name.trim().eq_ignore_ascii_case("h2c")));
    let asked = || connection_names(headers).iter().any(|name| name == "upgrade");
    (!h2c && asked()).then(|| to.clone())
}

/// The protocol that an answer switches to, if it is one of those that were asked for.
pub(crate) fn switched_to(asked: &HeaderValue, answer: &HeaderMap) -> Option<HeaderValue> {
    let to = answer.get(header::UPGRADE)?;
    let wanted = to.to_str().ok()?.trim();
    asked.to_str().ok()?.split(',').any(|name| name.trim().eq_ignore_ascii_case(wanted)).then(|| to.clone())
}

/// Whether `TE` lists `trailers`.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Whether the upstream says that it replayed the answer itself.
pub(crate) fn upstream_replayed(headers: &HeaderMap) -> bool {
    let says = |name: &HeaderName, word: &str| {
        headers.get(name).is_some_and(|value| {
            let value = value.as_bytes();
            value.len() >= word.len() && value[..word.len()].eq_ignore_ascii_case(word.as_bytes())
        })
    };
    says(&IDEMPOTENT_REPLAYED, "true") || says(&IDEMPOTENCY_STATUS, "replayed")
}

/// Leaves an answer the length it really has: none beside `Transfer-Encoding`, which wins and whose
/// sender's length is not to be passed on (RFC 9112 s6.3), and of several equal lines one. To be called while the
/// hop-by-hop fields are still there.
pub(crate) fn one_content_length(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        remove_in_order(headers, &[header::CONTENT_LENGTH]);
    } else if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some()
        && let Some(length) = headers.get(header::CONTENT_LENGTH).cloned()
    {
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

/// Whether an answer's length is said to be another than it is. HEAD, 204 and 304 have no body, whatever length they say
/// (RFC 9110 s8.6).
pub(crate) fn misstates_length(method: &Method, head: &response::Parts, length: u64) -> bool {
    let bodiless = method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let stated = head.headers.get(header::CONTENT_LENGTH).and_then(|stated| stated.to_str().ok()?.parse().ok());
    !bodiless && stated.is_some_and(|stated: u64| stated != length)
}

/// Whether a media type is one of `types` (lower case, without parameters).
pub(crate) fn is_media_type(headers: &HeaderMap, types: &[String]) -> bool {
    media_type(headers).is_some_and(|found| types.iter().any(|wanted| wanted.eq_ignore_ascii_case(found)))
}

/// The media type of `Content-Type`, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_misstated_where_there_is_a_body_of_another() {
        let misstates = |method: &Method, status: u16, length| {
            let (head, ()) =
                http::Response::builder().status(status).header("content-length", "3").body(()).unwrap().into_parts();
            misstates_length(method, &head, length)
        };
        assert!(!misstates(&Method::POST, 200, 3));
        assert!(
            misstates(&Method::POST, 200, 2) && misstates(&Method::POST, 200, 0) && misstates(&Method::GET, 404, 4)
        );
        assert!(
            !misstates(&Method::HEAD, 200, 0) && !misstates(&Method::PUT, 304, 0) && !misstates(&Method::PUT, 204, 0)
        );
        let (head, ()) = http::Response::new(()).into_parts();
        assert!(!misstates_length(&Method::POST, &head, 3));
    }

    #[test]
    fn split_cookies_are_one_line_again() {
        let mut headers = HeaderMap::new();
        join_cookies(&mut headers);
        assert!(headers.is_empty());
        for crumb in ["a=1", "b=2; c=3", "d=4"] {
            headers.append(header::COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn what_is_removed_leaves_the_others_in_their_order_and_all_their_values() {
        let lines =
            [("a", "1"), ("connection", "b, close"), ("b", "1"), ("c", "1"), ("te", "x"), ("a", "2"), ("d", "1")];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop_in_order(&mut headers);
        let left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or(""))).collect();
        assert_eq!(left, [("a", "1"), ("a", "2"), ("c", "1"), ("d", "1")]);
        let before = headers.clone();
        remove_in_order(&mut headers, &[header::DATE]);
        assert_eq!(headers, before);
    }

    #[test]
    fn only_what_was_asked_for_is_switched_to() {
        let answer = |protocol| HeaderMap::from_iter([(header::UPGRADE, HeaderValue::from_static(protocol))]);
        let asked = HeaderValue::from_static("foo/2, WebSocket");
        assert_eq!(switched_to(&asked, &answer("websocket")), Some(HeaderValue::from_static("websocket")));
        assert_eq!(switched_to(&asked, &answer("foo/2")), Some(HeaderValue::from_static("foo/2")));
        assert_eq!(switched_to(&asked, &answer("foo")), None);
        assert_eq!(switched_to(&asked, &HeaderMap::new()), None);
    }
}
