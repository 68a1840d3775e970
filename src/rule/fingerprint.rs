//! The fingerprint: tells a retry from a misuse of the key (contract: R-6).
//!
//! Keyed BLAKE3-256 over the route's parts in the route's order. Each part is tagged with what it is and written with
//! its length, so no bytes can move from one part to the next unseen. Where a part has a form of its own (`json-body`,
//! `multipart/*`) and the body does not follow it to the letter, the bytes themselves are compared: two requests that
//! differ may then be told apart needlessly, but never taken for one.

mod json;
mod multipart;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use http::HeaderMap;

use super::{
    digest::Digest,
    head::Head,
    identity::IdKey,
    media,
    policy::{FingerprintPart, Policy},
    record::Fingerprint,
};

/// The fingerprint of a whole request.
#[must_use]
pub fn fingerprint(id_key: &IdKey, policy: &Policy, head: &Head<'_>, body: &[u8]) -> Fingerprint {
    let mut digest = Digest::new(id_key, "fingerprint");
    for part in &policy.fingerprint {
        add(&mut digest, part, head, body);
    }
    Fingerprint(digest.finish())
}

fn add(digest: &mut Digest, part: &FingerprintPart, head: &Head<'_>, body: &[u8]) {
    match part {
        FingerprintPart::Method => {
            digest.tag(b'm');
            digest.part(head.method.as_str().as_bytes());
        }
        FingerprintPart::Path => {
            digest.tag(b'p');
            digest.part(head.path.as_bytes());
        }
        FingerprintPart::Query => {
            digest.tag(b'q');
            digest.optional(head.query.map(str::as_bytes));
        }
        FingerprintPart::ContentType => add_content_type(digest, head.headers),
        FingerprintPart::Header(name) => {
            digest.tag(b'h');
            digest.part(name.as_str().as_bytes());
            add_lines(digest, head.headers, name);
        }
        FingerprintPart::Body => add_body(digest, head.headers, body),
        FingerprintPart::JsonBody => match json_type(head.headers).then(|| json::canonical(body)).flatten() {
            Some(canonical) => {
                digest.tag(b'j');
                digest.part(&canonical);
            }
            None => add_body(digest, head.headers, body),
        },
    }
}

/// A body is read as JSON unless its Content-Type says that it is something else.
fn json_type(headers: &HeaderMap) -> bool {
    !headers.contains_key(http::header::CONTENT_TYPE) || media::content_type(headers).is_some_and(media::is_json)
}

/// Every line of a field, so that missing, empty and repeated differ.
fn add_lines(digest: &mut Digest, headers: &HeaderMap, name: &http::HeaderName) {
    let lines = headers.get_all(name);
    digest.count(lines.iter().count());
    lines.iter().for_each(|line| digest.part(line.as_bytes()));
}

/// Type and subtype in lower case, and the parameters; of `multipart/*` without the boundary, which a client draws anew
/// for each try.
fn add_content_type(digest: &mut Digest, headers: &HeaderMap) {
    digest.tag(b't');
    let Some(content_type) = media::content_type(headers) else {
        digest.tag(b'l');
        return add_lines(digest, headers, &http::header::CONTENT_TYPE);
    };
    digest.tag(b'v');
    let essence = media::essence(content_type);
    if essence.iter().any(u8::is_ascii_uppercase) {
        digest.part(&essence.to_ascii_lowercase());
    } else {
        digest.part(essence);
    }
    let multipart = media::is_multipart(content_type);
    for parameter in media::parameters(content_type) {
        if !(multipart && media::parameter_name(parameter).eq_ignore_ascii_case(b"boundary")) {
            digest.tag(1);
            digest.part(parameter);
        }
    }
    digest.tag(0);
}

fn add_body(digest: &mut Digest, headers: &HeaderMap, body: &[u8]) {
    let multipart = media::content_type(headers).filter(|content_type| media::is_multipart(content_type));
    match multipart.map(|content_type| (content_type, multipart::parts(content_type, body))) {
        None => {
            digest.tag(b'b');
            digest.part(body);
        }
        Some((_, Some(parts))) => {
            digest.tag(b'x');
            digest.count(parts.len());
            for part in parts {
                digest.part(part.fields);
                digest.part(part.bytes);
            }
        }
        // Where the parts begin and end is then the upstream's reading of the boundary, which therefore counts.
        Some((content_type, None)) => {
            digest.tag(b'y');
            digest.part(content_type);
            digest.part(body);
        }
    }
}

#[cfg(test)]
mod tests;
