//! Parts of a request: where its key is, what tells its caller, what makes it the same; methods, statuses, media types.

use http::{HeaderName, Method};

use crate::rule::policy::{FingerprintPart, KeySource, ScopePart, StatusMatch};

use super::{Wrong, named, timeout, wrong};

/// A method's name, which is case-sensitive (RFC 9110 s9.1).
pub(crate) fn method(text: &str) -> Result<Method, Wrong> {
    if matches!(text, "CONNECT" | "PRI") {
        return wrong("a method that no route ever sees", "leave it out: CONNECT and PRI are refused");
    }
    let upper = text.to_ascii_uppercase();
    let standard = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];
    if text != upper && standard.contains(&upper.as_str()) {
        return wrong("methods are case-sensitive", format!("say \"{upper}\""));
    }
    Method::from_bytes(text.as_bytes()).or_else(|_| wrong("not a method", "say \"POST\""))
}

/// A field's name.
pub(crate) fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    HeaderName::from_bytes(text.as_bytes())
        .or_else(|_| wrong("not the name of a header", "names are letters, digits and dashes: X-Request-Id"))
}

/// A field that identity or fingerprint may read: not one that says how the message travels.
fn end_to_end(text: &str) -> Result<HeaderName, Wrong> {
    let name = header_name(text)?;
    let travels = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if travels.contains(&name.as_str()) {
        return wrong(
            "a header that belongs to one connection, not to the request",
            "choose one that the client sets for the request itself",
        );
    }
    Ok(name)
}

const KEY_HELP: &str = "say \"header:Idempotency-Key\", \"query:key\", \"json:/event/id\", \"form:key\", two joined by +, or \"content:10s\"";

/// A key source (contract: R-4).
pub(crate) fn key_source(text: &str) -> Result<KeySource, Wrong> {
    let mut parts: Vec<String> = Vec::new();
    for piece in text.split('+') {
        // A `+` may also stand within a name: it joins only what has a prefix of its own.
        match parts.last_mut() {
            Some(last)
                if !["header:", "query:", "json:", "form:", "content:"]
                    .iter()
                    .any(|prefix| piece.starts_with(prefix)) =>
            {
                last.push('+');
                last.push_str(piece);
            }
            Some(_) | None => parts.push(piece.to_owned()),
        }
    }
    if parts.len() == 1 {
        return simple_source(text);
    }
    let parts: Vec<_> = parts.iter().map(|part| simple_source(part)).collect::<Result<_, _>>()?;
    if parts.iter().any(|part| matches!(part, KeySource::Content { .. })) {
        return wrong(
            "a content source joined with others",
            "let it stand alone, last in the list: key = [\"header:Idempotency-Key\", \"content:10s\"]",
        );
    }
    Ok(KeySource::Composite(parts))
}

fn simple_source(text: &str) -> Result<KeySource, Wrong> {
    match text.split_once(':') {
        Some(("header", name)) if name.contains('+') => wrong(
            "headers joined by +, of which one does not say that it is a header",
            "let each part say where it is: \"header:ce-source+header:ce-id\"",
        ),
        Some(("header", name)) => end_to_end(name).map(KeySource::Header),
        Some(("query", name)) => named(name, "say \"query:key\"").map(KeySource::Query),
        Some(("form", name)) => named(name, "say \"form:key\"").map(KeySource::Form),
        Some(("json", pointer)) => json_pointer(pointer).map(KeySource::Json),
        Some(("content", window)) => timeout(window).map(|window| KeySource::Content { window }),
        Some(_) | None => wrong("not a place to find a key", KEY_HELP),
    }
}

/// RFC 6901 s3, but not the whole document.
fn json_pointer(text: &str) -> Result<String, Wrong> {
    let escapes = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if text.starts_with('/') && escapes {
        Ok(text.to_owned())
    } else {
        wrong("not a JSON pointer", "begin each member's name with a slash: say \"json:/event/id\" (~ is ~0, / is ~1)")
    }
}

/// A scope part (contract: R-5).
pub(crate) fn scope_part(text: &str) -> Result<ScopePart, Wrong> {
    match text.split_once(':') {
        Some(("header", name)) => end_to_end(name).map(ScopePart::Header),
        Some(("cookie", name)) => named(name, "say \"cookie:session\"").map(ScopePart::Cookie),
        Some(("query", name)) => named(name, "say \"query:api_key\"").map(ScopePart::Query),
        Some(("tls", "subject")) => Ok(ScopePart::TlsSubject),
        Some(_) | None if text == "shared" => {
            wrong("`shared` in a list", "when all callers are one, say scope = \"shared\", without the brackets")
        }
        Some(_) | None => wrong(
            "not something that tells callers apart",
            "say \"header:authorization\", \"cookie:session\", \"query:api_key\" or \"tls:subject\"",
        ),
    }
}

/// A part of a fingerprint (contract: R-6).
pub(crate) fn fingerprint_part(text: &str) -> Result<FingerprintPart, Wrong> {
    Ok(match text {
        "method" => FingerprintPart::Method,
        "path" => FingerprintPart::Path,
        "query" => FingerprintPart::Query,
        "content-type" => FingerprintPart::ContentType,
        "body" => FingerprintPart::Body,
        "json-body" => FingerprintPart::JsonBody,
        _ => match text.strip_prefix("header:") {
            Some(name) => FingerprintPart::Header(end_to_end(name)?),
            None => {
                return wrong(
                    "not a part of a request",
                    "say method, path, query, content-type, body, json-body or header:NAME",
                );
            }
        },
    })
}

/// `503+retry-after`, `"503"`.
pub(crate) fn status(text: &str) -> Result<StatusMatch, Wrong> {
    let (digits, with_retry_after) = text.strip_suffix("+retry-after").map_or((text, false), |digits| (digits, true));
    match digits.parse() {
        Ok(status @ 200..=599) => Ok(StatusMatch { status, with_retry_after }),
        Ok(_) | Err(_) => wrong("not a final status", "say a number from 200 to 599, or \"503+retry-after\""),
    }
}

/// `text/event-stream`.
pub(crate) fn media_type(text: &str) -> Result<String, Wrong> {
    let token = |part: &str| !part.is_empty() && HeaderName::from_bytes(part.as_bytes()).is_ok();
    match text.split_once('/') {
        Some(_) if text.contains('*') => wrong("a pattern of media types", "name each type: \"text/event-stream\""),
        Some((kind, subtype)) if token(kind) && token(subtype) => Ok(text.to_ascii_lowercase()),
        Some(_) | None => wrong("not a media type", "say \"text/event-stream\", without parameters"),
    }
}
