//! What holds of the key's parsers whatever stands where the key should be.
//!
//! The input is a name, a line feed, and what is read under that name: as a field's value, a query, a form, a document.

use form_urlencoded::parse as parse_form;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, uri::PathAndQuery};
use serde_json::Value;

use super::{
    KEY_BYTES_MAX, Key, KeyError, Search, as_written, search, search_body, search_past_body,
    shadow::{Shadow, shadowed},
};
use crate::rule::{
    head::Head,
    identity::IdKey,
    policy::{FingerprintPart, KeySource, Policy, Scope, ScopePart},
};

/// Every parser keeps to R-4, agrees with another reader of the same form, and the head alone never contradicts head and
/// body together.
pub(crate) fn hold(input: &[u8]) {
    let at = memchr::memchr(b'\n', input).unwrap_or(input.len());
    let (name, value) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    in_a_field(value);
    if let Ok(name) = std::str::from_utf8(name) {
        in_pairs(name, value);
        in_json(name, value);
    }
    in_anothers_place(name, value);
}

type Said = Result<Option<Vec<u8>>, KeyError>;

/// What the search says of a request with this query, these fields and this body.
fn said(source: KeySource, query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Said {
    let policy = Policy { key: vec![source], scope: Some(Scope::Shared), ..Policy::default() };
    let head = Head { method: &Method::POST, path: "/", query, headers, tls_subject: None };
    let whole = search_body(&policy, &head, body, &IdKey([7; 32]));
    match (search(&policy, &head), search_past_body(&policy, &head)) {
        (Ok(Search::Found(key)), past) => assert_eq!((Ok(Some(key.clone())), Ok(Some(key))), (whole.clone(), past)),
        (Ok(Search::Absent), past) => assert_eq!((&whole, past), (&Ok(None), Ok(None))),
        (Ok(Search::NeedsBody), past) => assert_eq!(past, Ok(None)),
        (Err(why), past) => assert_eq!((Err(why), Err(why)), (whole.clone(), past)),
    }
    let key = whole?.map(|Key { bytes, .. }| bytes.into_owned());
    assert!(key.as_ref().is_none_or(|key| may_be_key(key)), "{key:?} is no key");
    Ok(key)
}

fn may_be_key(bytes: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// A bare key is the key that its quoted form is, white space around it is not part of it, and two of them are none.
fn in_a_field(value: &[u8]) {
    let name = HeaderName::from_static("idempotency-key");
    let Ok(line) = HeaderValue::from_bytes(value) else { return };
    let with = |lines: &[&HeaderValue]| {
        let headers = lines.iter().map(|line| (name.clone(), (*line).clone())).collect();
        said(KeySource::Header(name.clone()), None, &headers, b"")
    };
    let key = with(&[&line]);
    assert!(key != Ok(None), "a field that is there is a key or malformed");
    assert!(with(&[&line, &line]).is_err());
    let Ok(Some(key)) = key else { return };
    let quoted: Vec<u8> = key.iter().flat_map(|byte| escaped(*byte)).collect();
    for again in [[b"\"", &quoted[..], b"\""].concat(), [b" \t\"", &quoted[..], b"\"\t"].concat()] {
        let again = HeaderValue::from_bytes(&again).expect("a key is visible ASCII");
        assert_eq!(with(&[&again]), Ok(Some(key.clone())), "quoted");
    }
    assert_eq!(as_written(&KeySource::Header(name.clone()), value), key);
    if value.trim_ascii().first() != Some(&b'"') {
        assert_eq!(value.trim_ascii(), key, "a bare value is taken as it is");
    }
}

/// A byte as a Structured Field String has it (RFC 9651 s4.1.6).
fn escaped(byte: u8) -> impl Iterator<Item = u8> {
    let escape = matches!(byte, b'"' | b'\\').then_some(b'\\');
    escape.into_iter().chain([byte])
}

/// A form and a query are read as the WHATWG's parser does, and alike.
fn in_pairs(name: &str, value: &[u8]) {
    let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
    let form = said(KeySource::Form(name.into()), None, &headers, value);
    // The other parser gives text, in which what is not UTF-8 is replaced.
    if name.is_ascii() {
        let values: Vec<_> = parse_form(value).filter(|(found, _)| found == name).map(|(_, value)| value).collect();
        match (&form, &values[..]) {
            (Ok(None), []) => {}
            (Ok(Some(key)), [value]) => assert_eq!(key, value.as_bytes()),
            (Err(KeyError::Malformed(_)), [value]) => assert!(!may_be_key(value.as_bytes()), "{value} is a key"),
            (Err(KeyError::Malformed(_)), [_, _, ..]) => {}
            (said, values) => panic!("{said:?}, where another parser finds {values:?}"),
        }
    }
    let target = PathAndQuery::try_from([b"/?", value].concat());
    if let Some(query) = target.as_ref().ok().and_then(PathAndQuery::query).filter(|query| query.as_bytes() == value) {
        assert_eq!(said(KeySource::Query(name.into()), Some(query), &HeaderMap::new(), b""), form);
    }
}

/// A document's key is what another reader finds under the pointer.
fn in_json(name: &str, value: &[u8]) {
    let pointer = format!("/{name}");
    let content_type = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
    let key = said(KeySource::Json(pointer.clone()), None, &headers, value);
    let text = std::str::from_utf8(value);
    let is_json = text.as_ref().is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    assert!(is_json || key == Ok(None), "{key:?} in what is no document");
    // Documents with half a surrogate pair or too deep are none for the other reader, and this name is special to it.
    let Some(tree) = text.ok().filter(|text| !text.contains("$serde_json")).and_then(|text| text.parse::<Value>().ok())
    else {
        return;
    };
    let found = tree.pointer(&pointer).and_then(|found| match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(exponent(&number.to_string())),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    });
    match key {
        Ok(key) if matches!(tree.pointer(&pointer), Some(Value::Number(_))) => {
            assert_eq!(key.map(|key| exponent(&String::from_utf8_lossy(&key))), found);
        }
        Ok(key) => assert_eq!(key, found.map(String::into_bytes)),
        // A member that comes twice is one for the other reader.
        Err(KeyError::Malformed(_)) => {}
    }
}

/// A number with its exponent as the other reader writes it.
fn exponent(number: &str) -> String {
    number.replace('E', "e").replace("e+", "e")
}

/// What [`policy`] reads, and what frames a request.
const READ: [&str; 9] = [
    "idempotency-key",
    "authorization",
    "cookie",
    "x_tenant",
    "x-api-version",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
];
/// What `Connection` may name all the same.
const CONNECTION_ONLY: [&str; 6] = ["connection", "expect", "te", "trailer", "upgrade", "early-data"];

fn policy() -> Policy {
    let field = HeaderName::from_static;
    Policy {
        key: vec![KeySource::Header(field("idempotency-key"))],
        scope: Some(Scope::Parts(vec![
            ScopePart::Header(field("authorization")),
            ScopePart::Cookie("sid".into()),
            ScopePart::Header(field("x_tenant")),
        ])),
        fingerprint: vec![FingerprintPart::Header(field("x-api-version"))],
        ..Policy::default()
    }
}

/// A field shadows another exactly when it is another, and the same to who reads `_` as `-`; Connection exactly when it
/// names one of those.
fn in_anothers_place(name: &[u8], value: &[u8]) {
    let alias = |name: &str| name.replace('_', "-").to_ascii_lowercase();
    if let Ok(name) = HeaderName::from_bytes(name).map_err(drop).and_then(|name| match name {
        header::CONNECTION => Err(()),
        other => Ok(other),
    }) {
        let shadows = READ
            .iter()
            .chain(&CONNECTION_ONLY)
            .any(|read| name.as_str() != *read && alias(name.as_str()) == alias(read));
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("1"))]);
        assert_eq!(shadowed(&policy(), &headers), shadows.then_some(Shadow::Underscore), "{headers:?}");
    }
    if let Ok(options) = HeaderValue::from_bytes(value) {
        let named = value.split(|byte| *byte == b',').filter_map(|option| std::str::from_utf8(option).ok());
        let shadows = named.map(str::trim).any(|option| READ.iter().any(|read| alias(option) == alias(read)));
        let headers = HeaderMap::from_iter([(header::CONNECTION, options)]);
        assert_eq!(shadowed(&policy(), &headers), shadows.then_some(Shadow::Connection), "{headers:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn with(name: &str, value: impl AsRef<[u8]>) {
        hold(&[name.as_bytes(), b"\n", value.as_ref()].concat());
    }

    fn strewn(pieces: &[&'static str], count: usize) -> impl Strategy<Value = String> + use<> {
        vec(select(pieces.to_vec()), 0..count).prop_map(|pieces| pieces.concat())
    }

    /// Documents with names that pointers escape, and with names that come twice.
    fn documents() -> impl Strategy<Value = String> {
        let leaf =
            select(vec!["\"k\"", "\"\\u0061\\/\"", "\"\\ud800\"", "1", "-0.50E+1", "null", "true", "\"é\"", "\"\""]);
        leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
            let name = select(vec!["a", "a", "b", "/", "~", "~1", "", "0", "\\u0061"]);
            let member = (name, inner.clone()).prop_map(|(name, value)| format!("\"{name}\" :{value}"));
            prop_oneof![
                vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
                vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    /// RFC 6901 s4: `~01` is `~1`, never `/`.
    // contract: R-4
    #[test]
    fn escapes_of_a_pointer_are_read_once() {
        with("~01", "{\"~1\":\"k\",\"/\":\"l\"}");
        with("~1/~0", "{\"/\":{\"~\":1}}");
    }

    proptest! {
        // contract: R-4
        #[test]
        fn a_field_is_one_key_or_malformed(
            value in prop_oneof!["\"?[ -~]{0,12}\"?(; ?[a-z*]{1,2}(=[\"a-z0-9]{0,4})?)?", "[a-z]{254,257}", "[ \t\",;\\\\a-]{0,8}"],
        ) {
            with("k", value);
        }

        // contract: R-4
        #[test]
        fn pairs_are_read_as_others_read_them(
            name in "[ab]?", value in strewn(&["a", "b", "=", "&", "%61", "%", "+", "%2", "é", "%ff", "\n"], 12),
        ) {
            with(&name, value);
        }

        // contract: R-4
        #[test]
        fn a_document_is_read_as_others_read_it(
            steps in vec(select(vec!["a", "b", "~1", "~0", "~01", "0", "1", "", "-", "01", "+1"]), 1..4),
            value in documents(), noise in strewn(&["{\"a\":", "[", "]", "}", ",", "x", " "], 3), at in any::<prop::sample::Index>(),
        ) {
            let pointer = steps.join("/");
            with(&pointer, &value);
            let (before, after) = value.split_at_checked(at.index(value.len())).unwrap_or((&value, ""));
            with(&pointer, format!("{before}{noise}{after}"));
        }

        // contract: R-4
        #[test]
        fn names_shadow_what_they_are_like(
            name in prop_oneof![select([&READ[..], &CONNECTION_ONLY].concat()).prop_map(str::to_owned), "[a-z_-]{1,6}"],
            change in any::<(u32, u32)>(), more in "[ ,a-z]{0,4}",
        ) {
            let bit = |bits: u32, at: usize| bits >> (at % 32) & 1 == 1;
            let disguise = |(at, c): (usize, char)| match c {
                '-' | '_' if bit(change.0, at) => '_',
                '-' | '_' if bit(change.1, at) => '-',
                c if bit(change.1, at) => c.to_ascii_uppercase(),
                c => c,
            };
            let name: String = name.chars().enumerate().map(disguise).collect();
            with(&name, format!("{more}, {name}\t"));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..40)) {
            hold(&bytes);
        }
    }
}
