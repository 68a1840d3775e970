//! Whose key it is, rule by rule.

use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;

const ID_KEY: IdKey = IdKey([7; 32]);

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn by(parts: Vec<ScopePart>) -> Policy {
    Policy { scope: Some(Scope::Parts(parts)), ..Policy::default() }
}

fn authorization() -> ScopePart {
    ScopePart::Header(header::AUTHORIZATION)
}

/// The values of the scope's parts.
fn said(policy: &Policy, query: Option<&str>, fields: &[(&str, &str)]) -> Result<Vec<Option<String>>, ScopeError> {
    let headers = headers(fields);
    let head = Head { method: &Method::POST, path: "/", query, headers: &headers, tls_subject: None };
    let ScopeValues::Parts(parts) = scope(policy, &head)? else { panic!("a scope of parts") };
    let text = |value: Cow<'_, [u8]>| String::from_utf8(value.into_owned()).unwrap();
    Ok(parts.into_iter().map(|(_, value)| value.map(text)).collect())
}

fn some(values: &[&str]) -> Result<Vec<Option<String>>, ScopeError> {
    Ok(values.iter().map(|value| Some((*value).to_owned())).collect())
}

// contract: R-5
#[test]
fn a_scope_is_read_from_headers_cookies_and_the_query() {
    let policy = by(vec![authorization(), ScopePart::Cookie("sid".into()), ScopePart::Query("tenant".into())]);
    let fields = [("authorization", "Bearer x"), ("cookie", "a=b; sid=s=1 "), ("cookie", "c=d;SID=2")];
    assert_eq!(said(&policy, Some("tenant=t%20u"), &fields), some(&["Bearer x", "s=1", "t u"]));
    assert_eq!(said(&policy, None, &[("authorization", "x")]), Ok(vec![Some("x".into()), None, None]));
}

// contract: R-5
#[test]
fn a_part_of_the_scope_that_comes_twice_is_malformed() {
    let policy = by(vec![authorization(), ScopePart::Cookie("sid".into()), ScopePart::Query("tenant".into())]);
    let twice = |query, fields: &[(&str, &str)]| {
        assert!(matches!(said(&policy, query, fields), Err(ScopeError::Malformed(_))), "{fields:?}");
    };
    twice(None, &[("authorization", "x"), ("authorization", "x")]);
    twice(None, &[("cookie", "sid=1; sid=1")]);
    twice(None, &[("cookie", "sid=1"), ("cookie", "sid=2")]);
    twice(Some("tenant=a&tenant=a"), &[]);
}

// contract: R-5
#[test]
fn a_credential_without_any_part_of_the_scope_is_refused() {
    let policy = by(vec![ScopePart::Header(HeaderName::from_static("x-tenant"))]);
    for name in ["Cookie", "Authorization", "Proxy-Authorization", "X-Api-Key", "Api-Key", "X-Auth-Token"] {
        assert_eq!(said(&policy, None, &[(name, "secret")]), Err(ScopeError::Missing), "{name}");
        assert_eq!(said(&policy, None, &[(name, "secret"), ("x-tenant", "")]), Err(ScopeError::Missing), "{name}");
        assert_eq!(said(&policy, None, &[(name, "secret"), ("x-tenant", "t")]), some(&["t"]), "{name}");
    }
    assert_eq!(said(&policy, None, &[("x-other", "1")]), Ok(vec![None]), "an anonymous caller");
}

// contract: R-5
#[test]
fn a_client_certificate_is_a_credential_and_a_scope() {
    let none = HeaderMap::new();
    let head =
        Head { method: &Method::POST, path: "/", query: None, headers: &none, tls_subject: Some("spiffe://a/b") };
    assert_eq!(scope(&by(vec![authorization()]), &head).err(), Some(ScopeError::Missing));
    let policy = by(vec![authorization(), ScopePart::TlsSubject]);
    let Ok(ScopeValues::Parts(parts)) = scope(&policy, &head) else { panic!("a scope of parts") };
    assert_eq!(parts[1].1.as_deref(), Some(b"spiffe://a/b".as_slice()));
}

// contract: R-5
#[test]
fn schemes_that_change_with_each_request_are_no_scope() {
    let policy = by(vec![authorization(), ScopePart::Header(HeaderName::from_static("signature"))]);
    let unstable = [
        "AWS4-HMAC-SHA256 Credential=x",
        "aws4-hmac-sha512 x",
        "OAuth oauth_nonce=\"1\"",
        "Digest username=\"x\"",
        "hawk id=1",
        "Signature keyId=\"x\"",
        "DPoP x",
        "NEGOTIATE YII=",
        "NTLM TlRM",
        "AWS4-ECDSA-P256-SHA256 Credential=x",
    ];
    for value in unstable {
        assert_eq!(said(&policy, None, &[("authorization", value)]), Err(ScopeError::Unstable), "{value}");
    }
    assert_eq!(said(&policy, None, &[("signature", "sig1=:x:")]), Err(ScopeError::Unstable));
    for stable in ["Bearer Digest", "Basic eA==", "OAuth2 x", "Signatures x", "AWS4 x"] {
        assert!(said(&policy, None, &[("authorization", stable)]).is_ok(), "{stable}");
    }
    let elsewhere = by(vec![ScopePart::Header(HeaderName::from_static("x-user"))]);
    assert_eq!(
        said(&elsewhere, None, &[("x-user", "Digest x")]),
        some(&["Digest x"]),
        "only a credential has a scheme"
    );
}

// contract: R-5
#[test]
fn shared_callers_are_one_and_no_scope_is_nobody() {
    let headers = headers(&[("authorization", "x")]);
    let head = Head { method: &Method::POST, path: "/", query: None, headers: &headers, tls_subject: None };
    let shared = Policy { scope: Some(Scope::Shared), ..Policy::default() };
    assert!(scope(&shared, &head) == Ok(ScopeValues::Shared));
    assert_eq!(scope(&Policy::default(), &head).err(), Some(ScopeError::Missing));
}

// contract: R-5
#[test]
fn an_authority_is_lower_case_without_default_port_and_trailing_dot() {
    let cases = [
        ("api.example.com", false, "api.example.com"),
        ("API.Example.COM", false, "api.example.com"),
        ("api.example.com:80", false, "api.example.com"),
        ("api.example.com:443", true, "api.example.com"),
        ("api.example.com:443", false, "api.example.com:443"),
        ("API.example.com:80", true, "api.example.com:80"),
        ("api.example.com.", false, "api.example.com"),
        ("api.example.com.:8080", false, "api.example.com:8080"),
        ("api.example.com:", true, "api.example.com"),
        ("api.example.com:0080", false, "api.example.com"),
        ("api.example.com:08080", false, "api.example.com:8080"),
        ("[::1]", false, "[::1]"),
        ("[::1]:80", false, "[::1]"),
        ("[2001:DB8::80]", false, "[2001:db8::80]"),
        ("[2001:DB8::80]:8080", false, "[2001:db8::80]:8080"),
        ("127.0.0.1:8080", false, "127.0.0.1:8080"),
        ("", false, ""),
    ];
    for (host, tls, expected) in cases {
        assert_eq!(authority(host, tls), expected, "{host}");
    }
    assert!(matches!(authority("api.example.com:80", false), Cow::Borrowed(_)), "the common case is not copied");
}

/// An id from parts, in the order of the contract.
fn id(space: Space, host: Option<&str>, values: &[(&ScopePart, Option<&str>)], route: &str, key: &Key<'_>) -> RecordId {
    let parts = values.iter().map(|(part, value)| (*part, value.map(|value| Cow::Borrowed(value.as_bytes()))));
    record_id(&ID_KEY, space, host, &ScopeValues::Parts(parts.collect()), route, key)
}

// contract: R-5
#[test]
fn every_part_of_the_identity_counts() {
    let header = KeySource::Header(HeaderName::from_static("idempotency-key"));
    let composite = KeySource::Composite(vec![header.clone()]);
    let content = KeySource::Content { window: std::time::Duration::from_secs(1) };
    let (part, other) = (authorization(), ScopePart::Cookie("authorization".into()));
    let key = Key::named(&header, b"k");
    let (enforce, host) = (Space::Enforce, Some("a"));
    let ids = [
        id(enforce, host, &[(&part, Some("s"))], "r", &key),
        id(Space::Observe, host, &[(&part, Some("s"))], "r", &key),
        id(enforce, None, &[(&part, Some("s"))], "r", &key),
        id(enforce, Some(""), &[(&part, Some("s"))], "r", &key),
        id(enforce, Some("as"), &[(&part, Some(""))], "r", &key),
        id(enforce, host, &[(&part, Some(""))], "r", &key),
        id(enforce, host, &[(&part, None)], "r", &key),
        id(enforce, host, &[(&other, Some("s"))], "r", &key),
        id(enforce, host, &[(&part, Some("s")), (&other, None)], "r", &key),
        id(enforce, host, &[(&part, Some("sr"))], "", &key),
        id(enforce, host, &[(&part, Some("s"))], "rk", &Key::named(&header, b"")),
        id(enforce, host, &[(&part, Some("s"))], "r", &Key::named(&header, b"l")),
        id(enforce, host, &[(&part, Some("s"))], "r", &Key::named(&composite, b"k")),
        id(enforce, host, &[(&part, Some("s"))], "r", &Key::named(&content, b"k")),
        record_id(&ID_KEY, enforce, host, &ScopeValues::Shared, "r", &key),
        record_id(&IdKey([8; 32]), enforce, host, &ScopeValues::Shared, "r", &key),
    ];
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(ids[0], id(enforce, host, &[(&part, Some("s"))], "r", &key), "and nothing else does");
}

// contract: R-5
#[test]
fn the_same_key_from_another_source_is_the_same_record() {
    let (query, json) = (KeySource::Query("key".into()), KeySource::Json("/key".into()));
    let by = |source| record_id(&ID_KEY, Space::Enforce, None, &ScopeValues::Shared, "r", &Key::named(source, b"1"));
    assert_eq!(by(&query), by(&json));
}

// contract: R-5
#[test]
fn an_id_key_comes_of_its_secret_alone_and_is_not_shown() {
    assert!(IdKey::from_secret(b"a") == IdKey::from_secret(b"a"));
    assert!(IdKey::from_secret(b"a") != IdKey::from_secret(b"b"));
    assert!(IdKey::fixed() == IdKey::fixed());
    assert_eq!(format!("{ID_KEY:?}"), "IdKey(..)");
}

proptest! {
    #[test]
    fn bytes_that_move_between_scope_values_change_the_id(text in "[ab]{0,6}", a in 0..7_usize, b in 0..7_usize) {
        let (a, b) = (a.min(text.len()), b.min(text.len()));
        let source = KeySource::Query("key".into());
        let (left, right) = (authorization(), ScopePart::Query("t".into()));
        let cut = |at: usize| {
            let values = [(&left, Some(&text[..at])), (&right, Some(&text[at..]))];
            id(Space::Enforce, None, &values, "r", &Key::named(&source, b"k"))
        };
        prop_assert_eq!(a == b, cut(a) == cut(b));
    }

    #[test]
    fn an_authority_of_any_text_never_panics_and_is_stable(host in "[a-c.:\\[\\]0-9A-C]{0,12}|.{0,12}", tls: bool) {
        let once = authority(&host, tls).into_owned();
        prop_assert!(!once.bytes().any(|byte| byte.is_ascii_uppercase()));
    }

    #[test]
    fn cookies_of_any_text_never_panic(line in "[a-c=; \",]{0,24}") {
        let headers = headers(&[("cookie", &line)]);
        key::cookie(&headers, "a");
    }
}
