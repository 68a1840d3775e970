//! What holds of fingerprints whatever the body.
//!
//! The input is a Content-Type, a line feed, and a body.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Map, Value};

use super::{fingerprint, json, multipart};
use crate::rule::{
    head::Head,
    identity::IdKey,
    media,
    policy::{FingerprintPart, Policy},
    record::Fingerprint,
};

/// What is equal by its form has one fingerprint however it is written, and what has no form counts by its bytes.
pub(crate) fn hold(input: &[u8]) {
    let at = memchr::memchr(b'\n', input).unwrap_or(input.len());
    let (content_type, body) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    as_json(body);
    let Ok(content_type) = HeaderValue::from_bytes(content_type) else { return };
    as_multipart(&content_type, body);
    by_every_part(content_type, body);
}

fn by(parts: &[FingerprintPart], headers: &HeaderMap, body: &[u8]) -> Fingerprint {
    let head = Head { method: &Method::POST, path: "/", query: Some("q"), headers, tls_subject: None };
    fingerprint(&IdKey([7; 32]), &Policy { fingerprint: parts.to_vec(), ..Policy::default() }, &head, body)
}

fn typed(content_type: &HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.clone())])
}

/// A request is equal to itself, and unequal to one whose body, read as bytes, is longer.
fn by_every_part(content_type: HeaderValue, body: &[u8]) {
    let headers = typed(&content_type);
    let tenant = FingerprintPart::Header(HeaderName::from_static("x-tenant"));
    let mut parts = Policy::default().fingerprint;
    parts.extend([tenant, FingerprintPart::JsonBody]);
    assert_eq!(by(&parts, &headers, body), by(&parts, &headers, body));
    let longer = [body, b" "].concat();
    if !media::is_multipart(content_type.as_bytes()) {
        assert_ne!(by(&parts, &headers, body), by(&parts, &headers, &longer));
    }
}

// === json-body ===

fn by_json(body: &[u8]) -> Fingerprint {
    by(&[FingerprintPart::JsonBody], &typed(&HeaderValue::from_static("application/json")), body)
}

/// A canonical form is its own (RFC 8785), says what the document says, and is the same for its members in another order;
/// without one, bytes count.
fn as_json(body: &[u8]) {
    let Some(canonical) = json::canonical(body) else {
        assert_ne!(by_json(body), by_json(&[body, b" "].concat()));
        return;
    };
    assert_eq!(json::canonical(&canonical).as_ref(), Some(&canonical));
    assert_eq!(by_json(body), by_json(&canonical));
    // A tree is read less deep, and this name is special to its reader.
    let (Ok(tree), Ok(plain)) = (serde_json::from_slice::<Value>(body), serde_json::from_slice::<Value>(&canonical))
    else {
        return;
    };
    if memchr::memmem::find(body, b"$serde_json").is_none() {
        assert!(same(&tree, &plain), "{tree} became {plain}");
        let pretty = serde_json::to_vec_pretty(&reversed(&tree)).expect("a tree is text");
        assert_eq!(json::canonical(&pretty), Some(canonical));
    }
}

/// Whether two documents say the same, numbers being doubles (RFC 7493 s2.2) of which no digit may be lost.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one.as_f64() == other.as_f64() && digits(&one.to_string()) == digits(&other.to_string())
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_in = |(name, value): (&String, &Value)| other.get(name).is_some_and(|other| same(value, other));
            one.len() == other.len() && one.iter().all(is_in)
        }
        (one, other) => one == other,
    }
}

/// The digits of a number that are not just zeros around it.
fn digits(number: &str) -> String {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

/// The same document with every object's members in reverse.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(reversed).collect(),
        Value::Object(members) => {
            let members: Map<_, _> =
                members.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect();
            Value::Object(members)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

// === multipart ===

/// A body of these parts, divided by this boundary (RFC 2046 s5.1.1).
fn encode(parts: &[multipart::Part<'_>], boundary: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for multipart::Part { fields, bytes } in parts {
        let gap: &[u8] = if fields.is_empty() { b"\r\n" } else { b"\r\n\r\n" };
        body.extend([b"--", boundary.as_bytes(), b"\r\n", fields, gap, bytes, b"\r\n"].concat());
    }
    body.extend([b"--", boundary.as_bytes(), b"--\r\n"].concat());
    body
}

/// Parts are the same whatever divides them, and no byte of them may change.
fn as_multipart(content_type: &HeaderValue, body: &[u8]) {
    if !media::is_multipart(content_type.as_bytes()) {
        return;
    }
    let parts = multipart::parts(content_type.as_bytes(), body);
    let body_part = [FingerprintPart::Body];
    let found = by(&body_part, &typed(content_type), body);
    let Some(parts) = parts else {
        assert_ne!(found, by(&body_part, &typed(content_type), &[body, b" "].concat()), "bytes count");
        return;
    };
    assert!(!parts.is_empty());
    // It is in none of the parts.
    let boundary = format!("oncegate-{}", blake3::hash(body).to_hex());
    let boundary = &boundary[..60];
    let other =
        HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}")).expect("a boundary is a value");
    let again = encode(&parts, boundary);
    assert_eq!(multipart::parts(other.as_bytes(), &again), Some(parts.clone()));
    assert_eq!(by(&body_part, &typed(&other), &again), found);
    let mut more = parts.clone();
    let last = more.last_mut().expect("there is one");
    let longer = [last.bytes, b" "].concat();
    last.bytes = &longer;
    assert_ne!(by(&body_part, &typed(&other), &encode(&more, boundary)), found);
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn documents() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number:e}")),
            "[1-9][0-9]?\\.[0-9]{13,18}",
            "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?",
        ];
        let text = prop_oneof![
            ".{0,4}".prop_map(|text| format!("{text:?}")),
            select(vec!["\"\\ud83d\\ude00\"", "\"\\u0061\\/\"", "\"\\ud800\"", "\"a\""]).prop_map(str::to_owned)
        ];
        let leaf = prop_oneof![
            number,
            text.clone(),
            select(vec!["null", "true", "false", "nul", "01"]).prop_map(str::to_owned)
        ];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            let members = vec((text.clone(), inner.clone()), 0..4);
            let members = members.prop_map(|members| {
                members.into_iter().map(|(name, value)| format!(" {name}:\n{value}")).collect::<Vec<_>>()
            });
            prop_oneof![
                vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
                members.prop_map(|members| format!("{{{}}}", members.join(",\t"))),
            ]
        })
    }

    proptest! {
        // contract: R-6
        #[test]
        fn documents_that_say_the_same_are_equal(document in documents(), content_type in select(vec!["application/json", "a/b+json;c", "text/plain"])) {
            hold(format!("{content_type}\n{document}").as_bytes());
        }

        // contract: R-6
        #[test]
        fn parts_are_the_same_whatever_divides_them(
            pieces in vec(select(vec!["--B", "\r\n", "\r\n\r\n", "--B\r\n", "\r\n--B", "--B--", "--", "A: b", "\r\n--B--\r\n", " ", "x"]), 0..12),
            boundary in select(vec!["B", "\"B\"", "B;boundary=C", "", "BB", "B;x=\"a;b\""]),
        ) {
            hold(format!("multipart/form-data; boundary={boundary}\n{}", pieces.concat()).as_bytes());
            let body = pieces.concat();
            hold(format!("multipart/mixed; boundary={boundary}\n--B\r\n{body}\r\n--B\r\nA: b\r\n\r\n{body}\r\n--B--").as_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..60)) {
            hold(&bytes);
        }
    }
}
