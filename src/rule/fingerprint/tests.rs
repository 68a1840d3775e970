//! What tells a retry from a misuse of the key, part by part.

use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;

const ID_KEY: IdKey = IdKey([7; 32]);

/// A request whose parts can be changed one at a time.
#[derive(Clone)]
struct Request {
    method: Method,
    path: String,
    query: Option<String>,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Request {
    fn new(content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let fields = vec![("content-type", content_type.to_owned())];
        let (path, body) = ("/v1/charges".to_owned(), body.as_ref().to_vec());
        Self { method: Method::POST, path, query: None, fields, body }
    }

    fn by(&self, parts: &[FingerprintPart]) -> Fingerprint {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let Self { method, path, query, fields: _, body } = self;
        let head = Head { method, path, query: query.as_deref(), headers: &headers, tls_subject: None };
        fingerprint(&ID_KEY, &Policy { fingerprint: parts.to_vec(), ..Policy::default() }, &head, body)
    }

    fn default(&self) -> Fingerprint {
        self.by(&Policy::default().fingerprint)
    }
}

fn version() -> FingerprintPart {
    FingerprintPart::Header(HeaderName::from_static("x-version"))
}

// contract: R-6
#[test]
fn every_part_of_the_route_counts() {
    let base = Request::new("application/json", "{}");
    let changes: [fn(&mut Request); 8] = [
        |request| request.method = Method::PATCH,
        |request| request.path.push('/'),
        |request| request.query = Some(String::new()),
        |request| request.query = Some("a=1".into()),
        |request| request.fields[0].1 = "application/xml".into(),
        |request| request.fields.clear(),
        |request| request.fields[0].1 = String::new(),
        |request| request.body.push(b' '),
    ];
    let mut seen = vec![base.default()];
    for change in changes {
        let mut changed = base.clone();
        change(&mut changed);
        assert!(!seen.contains(&changed.default()), "change {}", seen.len());
        seen.push(changed.default());
    }
    assert_eq!(base.default(), base.clone().default());
}

// contract: R-6
#[test]
fn what_is_no_part_does_not_count() {
    let base = Request::new("application/json", "{}");
    let mut other = base.clone();
    other.fields.push(("x-version", "2".into()));
    assert_eq!(base.default(), other.default());
    assert_ne!(base.by(&[version()]), other.by(&[version()]));
}

// contract: R-6
#[test]
fn a_missing_an_empty_and_a_repeated_header_differ() {
    let with = |values: &[&str]| {
        let mut request = Request::new("text/plain", "");
        request.fields.extend(values.iter().map(|value| ("x-version", (*value).to_owned())));
        request.by(&[version()])
    };
    let all = [with(&[]), with(&[""]), with(&["", ""]), with(&["ab"]), with(&["a", "b"]), with(&["b", "a"])];
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

// contract: R-6
#[test]
fn the_order_of_the_route_and_the_key_of_the_ids_count() {
    let request = Request::new("text/plain", "POST");
    let (method, body) = (FingerprintPart::Method, FingerprintPart::Body);
    assert_ne!(request.by(&[method.clone(), body.clone()]), request.by(&[body.clone(), method]));
    let headers = HeaderMap::new();
    let head = Head { method: &request.method, path: "/", query: None, headers: &headers, tls_subject: None };
    let by = |key| fingerprint(&key, &Policy::default(), &head, b"x");
    assert_ne!(by(ID_KEY), by(IdKey([8; 32])));
}

// contract: R-6
#[test]
fn a_content_type_counts_by_its_type_in_any_case_and_its_parameters() {
    let by = |content_type| Request::new(content_type, "x").by(&[FingerprintPart::ContentType]);
    assert_eq!(by("Application/JSON;charset=utf-8"), by("application/json ; charset=utf-8"));
    assert_ne!(by("application/json"), by("application/json; charset=utf-8"));
    assert_ne!(by("text/plain; boundary=a"), by("text/plain; boundary=b"), "only of multipart is it no part");
    assert_eq!(by("multipart/form-data; boundary=a; x=1"), by("Multipart/form-data; x=1;BOUNDARY=\"b\""));
    assert_ne!(by("multipart/form-data; boundary=a"), by("multipart/mixed; boundary=a"));
    assert_ne!(by("multipart/form-data; boundary=a; x=1"), by("multipart/form-data; boundary=a; x=2"));
}

// === json-body ===

fn json_body(body: &str) -> Fingerprint {
    Request::new("application/json", body).by(&[FingerprintPart::JsonBody])
}

// contract: R-6
#[test]
fn a_json_body_counts_by_what_it_says() {
    assert_eq!(json_body(r#"{"a":1,"b":[true,"x"]}"#), json_body("{ \"b\" : [ true, \"\\u0078\" ],\n\"a\": 1.0e0 }"));
    assert_ne!(json_body(r#"{"a":1}"#), json_body(r#"{"a":"1"}"#));
    assert_ne!(json_body(r#"[1,2]"#), json_body(r#"[2,1]"#));
    let plain = |body| Request::new("application/json", body).by(&[FingerprintPart::Body]);
    assert_ne!(plain("{}"), plain("{ }"));
}

// contract: R-6
#[test]
fn a_json_body_counts_by_its_bytes_where_its_form_would_lose_something() {
    for (one, other) in [
        ("9007199254740993", "9007199254740992"),
        ("0.1", "0.1000000000000000055511151231257827"),
        ("1e400", "1e401"),
        ("1e-400", "0"),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"a":1,"a":2}"#, r#"{"a":2,"a":1}"#),
        (r#""\ud800""#, r#""\ud801""#),
        ("{} ", "{} x"),
        ("x", "y"),
    ] {
        assert_ne!(json_body(one), json_body(other), "{one} {other}");
    }
    assert_ne!(json_body("[9007199254740993]"), json_body("[9007199254740993 ]"), "compared as bytes");
    let plain = |body| Request::new("text/plain", body).by(&[FingerprintPart::JsonBody]);
    assert_ne!(plain("{}"), plain("{ }"), "another Content-Type is not read as JSON");
}

// === multipart ===

fn multipart(content_type: &str, body: &str) -> Fingerprint {
    Request::new(content_type, body).default()
}

const FORM_BODY: &str = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B\r\n\r\n\r\n--B\r\n\
                         Content-Type: image/png\r\n\r\n\u{1}\r\n\r\n--B--\r\n";

// contract: R-6
#[test]
fn a_multipart_body_counts_by_its_parts_whatever_the_boundary() {
    let base = multipart("multipart/form-data; boundary=B", FORM_BODY);
    let other = FORM_BODY.replace("--B", "----WebKitFormBoundary7MA4");
    assert_eq!(base, multipart("multipart/form-data; boundary=\"--WebKitFormBoundary7MA4\"", &other));
    assert_eq!(base, multipart("multipart/form-data; boundary=B", &format!("preamble\r\n{FORM_BODY}epilogue")));
    assert_eq!(base, multipart("multipart/form-data; boundary=B", &FORM_BODY.replace("--B\r", "--B \t\r")));
    for changed in [
        FORM_BODY.replace("\r\n1\r\n", "\r\n2\r\n"),
        FORM_BODY.replace("name=\"a\"", "name=\"b\""),
        FORM_BODY.replace("\u{1}\r\n\r\n", "\u{1}\r\n"),
        FORM_BODY.replace("--B\r\n\r\n\r\n--B", "--B"),
    ] {
        assert_ne!(base, multipart("multipart/form-data; boundary=B", &changed), "{changed}");
    }
}

// contract: R-6
#[test]
fn a_malformed_multipart_body_counts_by_its_bytes_and_its_boundary() {
    let malformed = [
        ("multipart/form-data; boundary=B", "--B\r\n\r\n1\r\n"),
        ("multipart/form-data; boundary=B", "--B\n\n1\n--B--\n"),
        ("multipart/form-data; boundary=B", "--B\r\nA: b\r\n--B--"),
        ("multipart/form-data; boundary=B", "--BB\r\n\r\n1\r\n--BB--"),
        ("multipart/form-data; boundary=B", "--B\r\n\r\n1\r\n--B--x"),
        ("multipart/form-data; boundary=B", "--B--"),
        ("multipart/form-data; boundary=B", ""),
        ("multipart/form-data", "--B\r\n\r\n1\r\n--B--"),
        ("multipart/form-data; boundary=", "--\r\n\r\n1\r\n----"),
        ("multipart/form-data; boundary=B; boundary=C", "--B\r\n\r\n1\r\n--B--"),
        ("multipart/form-data; boundary*0=B", "--B\r\n\r\n1\r\n--B--"),
        ("multipart/form-data; boundary=B; boundary*=C", "--B\r\n\r\n1\r\n--B--"),
    ];
    for (content_type, body) in malformed {
        assert_eq!(super::multipart::parts(content_type.as_bytes(), body.as_bytes()), None, "{content_type} {body:?}");
    }
    let lines = "--B\n\n1\n--B--\n";
    assert_ne!(
        multipart("multipart/form-data; boundary=B", lines),
        multipart("multipart/form-data; boundary=C", lines)
    );
}

// contract: R-6
#[test]
fn a_nested_multipart_is_compared_by_its_bytes() {
    let nested = "--B\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\n1\r\n--C--\r\n--B--";
    let other = nested.replace('C', "D").replace("Dontent", "Content");
    let parts = super::multipart::parts(b"multipart/mixed; boundary=B", nested.as_bytes()).unwrap();
    assert_eq!((parts.len(), parts[0].bytes), (1, b"--C\r\n\r\n1\r\n--C--".as_slice()));
    let by = |body| multipart("multipart/mixed; boundary=B", body);
    assert_ne!(by(nested), by(&other));
}

/// A well-formed body of these parts.
fn encode(parts: &[(String, Vec<u8>)], boundary: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (fields, bytes) in parts {
        body.extend_from_slice(format!("--{boundary}\r\n{fields}").as_bytes());
        body.extend_from_slice(if fields.is_empty() { b"\r\n" } else { b"\r\n\r\n" });
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

fn some_parts() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let fields = "|A: b|A: b\r\nC: d";
    prop::collection::vec((fields, "[ab\r\n:-]{0,12}".prop_map(String::into_bytes)), 1..4)
}

proptest! {
    #[test]
    fn a_body_encoded_anew_with_another_boundary_is_equal(parts in some_parts(), one in "Q[a-z0-9]{0,20}", other in "Z[a-z0-9]{0,20}") {
        let by = |boundary: &str| {
            let content_type = format!("multipart/form-data; boundary={boundary}");
            let body = encode(&parts, boundary);
            prop_assert!(super::multipart::parts(content_type.as_bytes(), &body).is_some());
            Ok(Request::new(&content_type, body).default())
        };
        prop_assert_eq!(by(&one)?, by(&other)?);
    }

    #[test]
    fn other_parts_are_another_body(one in some_parts(), other in some_parts()) {
        let by = |parts: &[_]| Request::new("multipart/form-data; boundary=Q", encode(parts, "Q")).default();
        prop_assert_eq!(one == other, by(&one) == by(&other));
    }

    #[test]
    fn multipart_of_any_bytes_never_panics(body in "[AB\r\n:-]{0,40}", content_type in "multipart/x; ?boundary=?\"?[AB]{0,2}\"?") {
        let _ = super::multipart::parts(content_type.as_bytes(), body.as_bytes());
    }

    #[test]
    fn bytes_that_move_between_parts_change_the_fingerprint(text in "[ab]{0,6}", a in 0..7_usize, b in 0..7_usize) {
        let (a, b) = (a.min(text.len()), b.min(text.len()));
        let cut = |at: usize| {
            let mut request = Request::new("text/plain", &text.as_bytes()[at..]);
            request.query = Some(text[..at].to_owned());
            request.by(&[FingerprintPart::Query, FingerprintPart::Body])
        };
        prop_assert_eq!(a == b, cut(a) == cut(b));
    }
}
