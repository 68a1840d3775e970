//! Header fields on their way through: what ends here (RFC 9110 s7.6.1), what is added (contract: section 7).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::rule::keep::{HOP_BY_HOP, connection_names};

pub(crate) const IDEMPOTENCY_STATUS: HeaderName = HeaderName::from_static("idempotency-status");
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
pub(crate) const STRIPE_SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
const VIA_US: HeaderValue = HeaderValue::from_static("1.1 oncegate");

/// Removes what ends at this hop.
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

/// Adds this hop to `Via` (RFC 9110 s7.6.3).
pub(crate) fn add_via(headers: &mut HeaderMap) {
    match headers.get(header::VIA) {
        None => _ = headers.insert(header::VIA, VIA_US),
        Some(_) => _ = headers.append(header::VIA, VIA_US),
    }
}

/// Whether `Connection` asks for `Upgrade`, and to what. h2c is no upgrade here: it would hide requests in a tunnel, and
/// a server may ignore what it does not take up (RFC 9110 s7.8); some clients ask for it with every request.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let to = headers.get(header::UPGRADE)?;
    let h2c = to.to_str().is_ok_and(|names| names.split(',').any(|name| name.trim().eq_ignore_ascii_case("h2c")));
    let asked = || connection_names(headers).iter().any(|name| name == "upgrade");
    (!h2c && asked()).then(|| to.clone())
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
        headers.remove(header::CONTENT_LENGTH);
    } else if let Some(length) = headers.get(header::CONTENT_LENGTH).cloned() {
        headers.insert(header::CONTENT_LENGTH, length);
    }
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
