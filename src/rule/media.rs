//! Reading `Content-Type` ([RFC 9110 s8.3](https://www.rfc-editor.org/rfc/rfc9110#section-8.3)) as far as key and
//! fingerprint need it.

use http::{HeaderMap, header};

/// The request's only Content-Type; `None` when it has none or several that differ, of which no two readers take the same.
pub(super) fn content_type(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let line = lines.next()?;
    lines.all(|other| other == line).then(|| line.as_bytes())
}

/// Whether a media type says JSON: `application/json` or `*/*+json`.
pub(super) fn is_json(content_type: &[u8]) -> bool {
    let essence = essence(content_type);
    essence.eq_ignore_ascii_case(b"application/json")
        || essence.contains(&b'/') && ends_with_ignore_case(essence, b"+json")
}

/// Whether a media type says `application/x-www-form-urlencoded`.
pub(super) fn is_form(content_type: &[u8]) -> bool {
    essence(content_type).eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Whether a media type says `multipart/*`.
pub(super) fn is_multipart(content_type: &[u8]) -> bool {
    essence(content_type).get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

/// Type and subtype, without parameters.
pub(super) fn essence(content_type: &[u8]) -> &[u8] {
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    content_type[..end].trim_ascii()
}

/// The parameters as sent, white space around each left out. A `;` within quotes does not divide.
pub(super) fn parameters(content_type: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = content_type.iter().position(|byte| *byte == b';').map(|at| &content_type[at + 1..]);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = parameter_end(text);
        rest = text.get(end + 1..);
        Some(text[..end].trim_ascii())
    })
    .filter(|parameter| !parameter.is_empty())
}

/// The name of a parameter, before its `=`.
pub(super) fn parameter_name(parameter: &[u8]) -> &[u8] {
    let end = parameter.iter().position(|byte| *byte == b'=').unwrap_or(parameter.len());
    parameter[..end].trim_ascii()
}

fn parameter_end(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

fn ends_with_ignore_case(text: &[u8], end: &[u8]) -> bool {
    text.len() >= end.len() && text[text.len() - end.len()..].eq_ignore_ascii_case(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_type_or_suffix_in_any_case() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json", "a/b+JSON ;x=y"]
        {
            assert!(is_json(json.as_bytes()), "{json}");
        }
        for other in ["text/json", "application/jsonl", "+json", "application/json5", "", "application"] {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn parameters_are_divided_outside_quotes_only() {
        let parts: Vec<_> = parameters(br#"a/b; x="1;\";2" ;y=3;;"#).collect();
        assert_eq!(parts, [br#"x="1;\";2""#.as_slice(), b"y=3"]);
        assert_eq!(parameter_name(b"Boundary = x"), b"Boundary");
    }
}
