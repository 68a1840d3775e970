//! The key's rules, one by one, and the properties of its parsers.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use proptest::prelude::*;

use super::*;
use crate::rule::policy::{Scope, ScopePart};

const ID_KEY: IdKey = IdKey([7; 32]);
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A request, and what the search says of it: the key's bytes, none, or why it is malformed.
struct Request<'r> {
    query: Option<&'r str>,
    fields: &'r [(&'r str, &'r str)],
    body: &'r [u8],
}

type Said = Result<Option<Vec<u8>>, KeyError>;

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&str, &str)| {
        (HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    fields.iter().map(line).fold(HeaderMap::new(), |mut map, (name, value)| {
        map.append(name, value);
        map
    })
}

fn head<'a>(query: Option<&'a str>, headers: &'a HeaderMap) -> Head<'a> {
    Head { method: &Method::POST, path: "/v1/charges", query, headers, tls_subject: None }
}

impl Request<'_> {
    fn said(&self, policy: &Policy) -> Said {
        let headers = headers(self.fields);
        let head = head(self.query, &headers);
        let found = search_body(policy, &head, self.body, &ID_KEY)?;
        // The head alone must not contradict what head and body say together.
        match search(policy, &head)? {
            Search::Found(key) => assert_eq!(Some(&key), found.as_ref()),
            Search::Absent => assert_eq!(found, None),
            Search::NeedsBody => {}
        }
        Ok(found.map(|key| key.bytes.into_owned()))
    }
}

fn by(sources: Vec<KeySource>) -> Policy {
    Policy { key: sources, scope: Some(Scope::Shared), ..Policy::default() }
}

fn header_source(name: &'static str) -> KeySource {
    KeySource::Header(HeaderName::from_static(name))
}

fn field(value: &str) -> Said {
    Request { query: None, fields: &[("idempotency-key", value)], body: b"" }.said(&Policy::default())
}

fn query(text: &str) -> Said {
    Request { query: Some(text), fields: &[], body: b"" }.said(&by(vec![KeySource::Query("key".into())]))
}

fn form(text: &str) -> Said {
    Request { query: None, fields: &[FORM], body: text.as_bytes() }.said(&by(vec![KeySource::Form("key".into())]))
}

fn json_at(pointer: &str, text: &str) -> Said {
    Request { query: None, fields: &[JSON], body: text.as_bytes() }.said(&by(vec![KeySource::Json(pointer.into())]))
}

#[track_caller]
fn is(said: Said, key: &str) {
    assert_eq!(said.unwrap().as_deref(), Some(key.as_bytes()));
}

#[track_caller]
fn malformed(said: Said) {
    assert!(matches!(said, Err(KeyError::Malformed(_))), "{said:?}");
}

#[track_caller]
fn absent(said: Said) {
    assert_eq!(said, Ok(None));
}

// === header ===

// contract: R-4
#[test]
fn a_quoted_and_a_bare_key_are_one() {
    is(field("8e03978e-40d5-43e8-bc93-6894a57f9324"), "8e03978e-40d5-43e8-bc93-6894a57f9324");
    is(field("\"8e03978e-40d5-43e8-bc93-6894a57f9324\""), "8e03978e-40d5-43e8-bc93-6894a57f9324");
}

// contract: R-4
#[test]
fn parameters_after_a_quoted_key_are_ignored() {
    for value in ["\"k\";a=1", "\"k\"; a", "\"k\";a=\"x;y\";b=?1", "\"k\";d=@1659578233;e=%\"x\""] {
        is(field(value), "k");
    }
    for value in ["\"k\";", "\"k\";A=1", "\"k\";a=", "\"k\" ;a=1", "\"k\"x", "\"k\"\t;a"] {
        malformed(field(value));
    }
}

// contract: R-4
#[test]
fn a_bare_value_is_taken_whole() {
    for value in ["k;a=1", ":cHJldGVuZA==:", "?1", "42", "a\"b", "k=v", "(a)", "'k'", "\\"] {
        is(field(value), value);
    }
}

// contract: R-4
#[test]
fn escapes_are_read_and_bad_ones_malformed() {
    is(field(r#""a\"b\\c""#), r#"a"b\c"#);
    is(field(r#""f \"oo""#), r#"f "oo"#);
    for value in [r#""a\b""#, r#""a\""#, r#""a\"#, r#""\u0061""#] {
        malformed(field(value));
    }
}

// contract: R-4
#[test]
fn a_list_is_malformed() {
    for value in ["a,b", "\"a\", \"b\"", "a,", ",", "\"a\",", "\"a\",\"a\""] {
        malformed(field(value));
    }
    is(field("\"a,b\""), "a,b");
}

// contract: R-4
#[test]
fn an_empty_or_overlong_key_is_malformed() {
    for value in ["", "\"\"", "\"\";a"] {
        malformed(field(value));
    }
    let longest = "k".repeat(KEY_BYTES_MAX);
    is(field(&longest), &longest);
    is(field(&format!("\"{longest}\"")), &longest);
    malformed(field(&format!("{longest}k")));
    malformed(field(&format!("\"{longest}k\"")));
    is(field(&format!("\"{}\"", "\\\\".repeat(KEY_BYTES_MAX))), &"\\".repeat(KEY_BYTES_MAX));
}

// contract: R-4
#[test]
fn only_visible_ascii_is_a_key_and_space_only_within_quotes() {
    is(field("\"a b\""), "a b");
    is(field("\" \""), " ");
    for value in ["a b", "a\tb", "\"a\tb\"", "k\u{e9}", "\"k\u{e9}\"", "\u{feff}k"] {
        malformed(field(value));
    }
}

// contract: R-4
#[test]
fn white_space_around_the_field_is_no_part_of_it() {
    for value in [" k", "k \t", "\t\"k\" "] {
        is(field(value), "k");
    }
    malformed(field(" \t"));
}

// contract: R-4
#[test]
fn two_field_lines_are_malformed_even_if_equal() {
    let twice = [("idempotency-key", "k"), ("Idempotency-Key", "k")];
    malformed(Request { query: None, fields: &twice, body: b"" }.said(&Policy::default()));
}

/// The String examples of the structured field tests that the HTTP working group keeps: value, and its text.
// contract: R-4
#[test]
fn structured_field_strings_read_as_the_working_groups_tests_say() {
    let good = [
        (r#""foo bar""#, "foo bar"),
        (r#"   "foo bar"  "#, "foo bar"),
        (r#""i\"m a \\string\\""#, r#"i"m a \string\"#),
        ("\"b4r\"; a=1", "b4r"),
    ];
    for (value, key) in good {
        is(field(value), key);
    }
    let long = format!("\"{}\"", "foo ".repeat(62));
    is(field(&long), &"foo ".repeat(62));
    // Those with control characters are no field values: the server refuses them before.
    for value in [r#""foo \,""#, r#""foo \""#, r#""foo \"#, "\"foo", "\"", "\"fü\"", "\"foo\", \"bar\""] {
        malformed(field(value));
    }
}

// contract: R-4
#[test]
fn a_uuid_format_takes_nothing_else() {
    let policy = Policy { key_format: KeyFormat::Uuid, ..Policy::default() };
    let said = |value| Request { query: None, fields: &[("idempotency-key", value)], body: b"" }.said(&policy);
    is(said("8E03978E-40d5-43e8-bc93-6894a57f9324"), "8E03978E-40d5-43e8-bc93-6894a57f9324");
    is(said("\"8e03978e-40d5-43e8-bc93-6894a57f9324\""), "8e03978e-40d5-43e8-bc93-6894a57f9324");
    for value in [
        "k",
        "8e03978e40d543e8bc936894a57f9324",
        "8e03978e-40d5-43e8-bc93-6894a57f932g",
        "8e03978e-40d5-43e8-bc93-6894a57f93244",
        "{8e03978e-40d5-43e8-bc93-6894a57f9324}",
        "8e03978-e40d5-43e8-bc93-6894a57f9324",
    ] {
        malformed(said(value));
    }
}

// === query and form ===

// contract: R-4
#[test]
fn query_and_form_values_are_decoded_once() {
    for read in [query, form] {
        is(read("a=1&key=k%2Bl&b"), "k+l");
        is(read("key=a%2541"), "a%41");
        is(read("key=a+b"), "a b");
        is(read("k%65y=v"), "v");
        is(read("key=a=b"), "a=b");
        is(read("key=%zz%4"), "%zz%4");
        is(read("key=a;b"), "a;b");
        absent(read("Key=v&keys=v&xkey=v&&=v"));
        absent(read(""));
    }
}

// contract: R-4
#[test]
fn query_and_form_keys_must_be_one_and_visible() {
    for read in [query, form] {
        for text in ["key=a&key=a", "key=a&k%65y=b", "key=", "key", "key=%00", "key=%C3%A9", "key=%0A", "key=a%7F"] {
            malformed(read(text));
        }
        malformed(read(&format!("key={}", "k".repeat(KEY_BYTES_MAX + 1))));
    }
    malformed(query("key=é"));
}

// === JSON ===

// contract: R-4
#[test]
fn a_json_string_or_number_is_a_key_as_written() {
    is(json_at("/id", r#"{"id":"k"}"#), "k");
    is(json_at("/id", r#"{"id":1}"#), "1");
    is(json_at("/id", r#"{"id":"1"}"#), "1");
    is(json_at("/id", r#"{"id":1.0}"#), "1.0");
    is(json_at("/id", r#"{"id":-0E+05}"#), "-0E+05");
    is(json_at("/id", r#"{"id":12345678901234567890123}"#), "12345678901234567890123");
    is(json_at("/id", r#" {"a":[1,{"id":2}], "\u0069d" : "a\u0020b\/" } "#), "a b/");
}

// contract: R-4
#[test]
fn other_json_values_are_no_key_and_bad_strings_malformed() {
    for value in ["null", "true", "false", "{}", "[]", "[\"k\"]"] {
        absent(json_at("/id", &format!("{{\"id\":{value}}}")));
    }
    for value in [r#""""#, r#""é""#, r#""\n""#, r#""\ud800""#, r#""\u0000""#] {
        malformed(json_at("/id", &format!("{{\"id\":{value}}}")));
    }
    malformed(json_at("/id", &format!("{{\"id\":\"{}\"}}", "k".repeat(256))));
    malformed(json_at("/id", &format!("{{\"id\":{}}}", "1".repeat(256))));
}

/// The document and the pointers of RFC 6901 s5.
// contract: R-4
#[test]
fn json_pointers_read_as_their_rfc_says() {
    let document = r#"{"foo":["bar","baz"],"":10,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
    let examples = [
        ("/foo/0", "bar"),
        ("/foo/1", "baz"),
        ("/", "10"),
        ("/a~1b", "1"),
        ("/c%d", "2"),
        ("/e^f", "3"),
        ("/g|h", "4"),
        ("/i\\j", "5"),
        ("/k\"l", "6"),
        ("/ ", "7"),
        ("/m~0n", "8"),
    ];
    for (pointer, key) in examples {
        is(json_at(pointer, document), key);
    }
    for pointer in ["/foo", "/foo/2", "/foo/-", "/foo/00", "/foo/01", "/foo/+1", "/foo/", "/foo/0/x", "/nope", "/a/b"] {
        absent(json_at(pointer, document));
    }
    is(json_at("/~01", r#"{"~1":"k"}"#), "k");
    is(json_at("/0", r#"{"0":"k"}"#), "k");
    is(json_at("/a/b/1/c", r#"{"a":{"b":[0,{"c":"k"}]}}"#), "k");
}

// contract: R-4
#[test]
fn a_member_twice_on_the_pointers_path_is_malformed_and_elsewhere_no_matter() {
    for twice in [
        r#"{"a":{"b":"k"},"a":{"b":"k"}}"#,
        r#"{"a":1,"a":{"b":"k"}}"#,
        r#"{"a":{"b":"k"},"\u0061":1}"#,
        r#"{"a":{"b":"k","b":"l"}}"#,
        r#"{"a":1,"a":2,"a":{"b":"k"}}"#,
    ] {
        malformed(json_at("/a/b", twice));
    }
    is(json_at("/a/b", r#"{"x":1,"x":2,"a":{"b":"k","c":1,"c":2}}"#), "k");
    absent(json_at("/a/b", r#"{"a":{"b":"k"},"a":1"#));
}

// contract: R-4
#[test]
fn invalid_json_yields_no_key() {
    for body in [r#"{"id":"k""#, r#"{"id":"k"} x"#, r#"{"id":"k",}"#, "", "k", r#"{"id":01}"#] {
        absent(json_at("/id", body));
    }
    let policy = by(vec![KeySource::Json("/id".into())]);
    absent(Request { query: None, fields: &[JSON], body: b"{\"id\":\"k\",\"x\":\"\xff\"}" }.said(&policy));
}

// contract: R-4
#[test]
fn json_has_its_key_however_deep_it_is_and_with_a_byte_order_mark() {
    let deep = format!("{{\"id\":\"k\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    is(json_at("/id", &deep), "k");
    is(json_at("/id", "\u{feff}{\"id\":\"k\"}"), "k");
}

// contract: R-4
#[test]
fn a_body_source_is_looked_at_only_if_the_content_type_fits() {
    let policy = by(vec![KeySource::Json("/id".into())]);
    let said = |fields: &[(&str, &str)]| Request { query: None, fields, body: br#"{"id":"k"}"# }.said(&policy);
    for fits in ["application/json", "Application/Problem+JSON; charset=utf-8"] {
        is(said(&[("content-type", fits)]), "k");
    }
    absent(said(&[]));
    absent(said(&[("content-type", "text/plain")]));
    absent(said(&[FORM]));
    // The same line twice says the same.
    is(said(&[JSON, JSON]), "k");
    absent(said(&[JSON, ("content-type", "application/x+json")]));
    absent(Request { query: None, fields: &[JSON], body: b"key=k" }.said(&by(vec![KeySource::Form("key".into())])));
}

// === several sources ===

// contract: R-4
#[test]
fn sources_are_tried_in_order() {
    let policy = by(vec![header_source("x-key"), KeySource::Json("/id".into()), KeySource::Query("key".into())]);
    let said = |fields: &[(&str, &str)], body| Request { query: Some("key=q"), fields, body }.said(&policy);
    is(said(&[("x-key", "h"), JSON], br#"{"id":"j"}"#), "h");
    is(said(&[JSON], br#"{"id":"j"}"#), "j");
    is(said(&[JSON], br#"{"no":"j"}"#), "q");
    is(said(&[], br#"{"id":"j"}"#), "q");
    malformed(said(&[("x-key", "a,b"), JSON], br#"{"id":"j"}"#));
    malformed(said(&[JSON], br#"{"id":""}"#));

    let json = headers(&[JSON]);
    let head = head(Some("key=q"), &json);
    assert_eq!(search(&policy, &head), Ok(Search::NeedsBody));
    let past = search_past_body(&policy, &head).unwrap().unwrap();
    assert_eq!((&*past.bytes, label(past.source).as_ref()), (b"q".as_slice(), "query:key"));
}

// contract: R-4
#[test]
fn a_composite_needs_all_its_parts_and_none_malformed() {
    let composite = KeySource::Composite(vec![header_source("ce-source"), header_source("ce-id")]);
    let policy = by(vec![composite]);
    let said = |fields: &[(&str, &str)]| Request { query: None, fields, body: b"" }.said(&policy);
    let both = said(&[("ce-source", "/a"), ("ce-id", "1")]).unwrap().unwrap();
    assert_eq!(both, b"\x02\0\0\0\0\0\0\0/a\x01\0\0\0\0\0\0\x001");
    absent(said(&[("ce-source", "/a")]));
    absent(said(&[("ce-id", "1")]));
    malformed(said(&[("ce-id", "a,b")]));
    malformed(said(&[("ce-source", "/a"), ("ce-id", "")]));
    let moved = said(&[("ce-source", "/"), ("ce-id", "a1")]).unwrap().unwrap();
    assert_ne!(both, moved);
}

// contract: R-4
#[test]
fn a_composite_asks_for_the_body_only_if_its_other_parts_are_there() {
    let policy = by(vec![KeySource::Composite(vec![header_source("x-tenant"), KeySource::Json("/id".into())])]);
    let without = headers(&[JSON]);
    assert_eq!(search(&policy, &head(None, &without)), Ok(Search::Absent));
    let with = headers(&[JSON, ("x-tenant", "t")]);
    assert_eq!(search(&policy, &head(None, &with)), Ok(Search::NeedsBody));
    let found = search_body(&policy, &head(None, &with), br#"{"id":1}"#, &ID_KEY).unwrap().unwrap();
    assert_eq!(found.bytes, Key::joined(&policy.key[0], [b"t".as_slice(), b"1"]).bytes);
}

// contract: R-4
#[test]
fn content_is_a_key_where_scope_and_body_are_there() {
    let window = Duration::from_secs(10);
    let mut policy = by(vec![header_source("idempotency-key"), KeySource::Content { window }]);
    let none = headers(&[]);
    let found = |policy: &Policy, headers: &HeaderMap, body: &'static [u8]| {
        search_body(policy, &head(None, headers), body, &ID_KEY)
            .unwrap()
            .map(|key| (key.bytes.into_owned(), key.content))
    };
    let (bytes, content) = found(&policy, &none, b"{}").unwrap();
    assert_eq!(bytes, fingerprint(&ID_KEY, &policy, &head(None, &none), b"{}").0);
    assert_eq!(content, Some(window));
    assert_eq!(found(&policy, &none, b""), None, "never for an empty body");
    assert_eq!(search(&policy, &head(None, &none)), Ok(Search::NeedsBody));

    let given = headers(&[("idempotency-key", "k")]);
    assert_eq!(found(&policy, &given, b"{}"), Some((b"k".to_vec(), None)), "last in the list");

    policy.scope = Some(Scope::Parts(vec![ScopePart::Header(header::AUTHORIZATION)]));
    assert_eq!(found(&policy, &none, b"{}"), None, "nobody knows whose it is");
    assert_eq!(search(&policy, &head(None, &none)), Ok(Search::Absent));
    assert!(found(&policy, &headers(&[("authorization", "Bearer x")]), b"{}").is_some());
    assert_eq!(found(&policy, &headers(&[("authorization", "")]), b"{}"), None);
}

#[test]
fn a_key_is_not_shown_when_debugged() {
    let source = header_source("idempotency-key");
    let shown = format!("{:?}", Key::named(&source, b"hunter2"));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(
        label(&KeySource::Composite(vec![source, KeySource::Json("/a".into())])),
        "header:idempotency-key+json:/a"
    );
}

// === properties ===

/// A Structured Field String of this text.
fn sf_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    #[test]
    fn a_field_of_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let headers = HeaderMap::from_iter([(HeaderName::from_static("idempotency-key"), value)]);
            if let Ok(Some(key)) = field::read(&headers, &HeaderName::from_static("idempotency-key")) {
                prop_assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
                prop_assert!(key.iter().all(|byte| (b' '..=b'~').contains(byte)));
            }
        }
    }

    #[test]
    fn quoted_and_bare_forms_agree(key in "[!#-+\\--~][!-+\\--~]{0,40}") {
        prop_assert_eq!(field(&key), field(&sf_string(&key)));
        prop_assert_eq!(field(&key).unwrap().unwrap(), key.into_bytes());
    }

    #[test]
    fn what_is_quoted_is_what_is_read(key in "[ -~]{1,255}", parameters in "(; ?[a-z]{1,3}(=[0-9]{1,5})?){0,3}") {
        prop_assert_eq!(field(&format!("{}{parameters}", sf_string(&key))).unwrap().unwrap(), key.into_bytes());
    }

    #[test]
    fn different_fields_are_different_keys(a in "[ -~]{1,20}", b in "[ -~]{1,20}") {
        prop_assert_eq!(a == b, field(&sf_string(&a)) == field(&sf_string(&b)));
    }

    #[test]
    fn pairs_of_any_bytes_never_panic_and_read_back(
        noise in prop::collection::vec(any::<u8>(), 0..60), name in "[a-z%+]{1,3}", key in "[ -~]{1,60}",
    ) {
        let _ = pairs::key(&noise, &name);
        let encoded = form_urlencoded::Serializer::new(String::new()).append_pair("x", &key).append_pair("key", &key).finish();
        prop_assert_eq!(form(&encoded).unwrap().unwrap(), key.as_bytes());
        prop_assert_eq!(query(&encoded).unwrap().unwrap(), key.as_bytes());
    }

    #[test]
    fn pairs_agree_with_another_parser(text in "[a-b&=%+6 0-2]{0,30}") {
        let all: Vec<_> = form_urlencoded::parse(text.as_bytes()).filter(|(name, _)| name == "a").collect();
        match pairs::only(text.as_bytes(), "a") {
            Once::Never => prop_assert!(all.is_empty()),
            Once::Found(value) => {
                prop_assert_eq!(all.len(), 1);
                prop_assert_eq!(String::from_utf8_lossy(&value), all[0].1.as_ref());
            }
            Once::Twice => prop_assert!(all.len() > 1),
        }
    }

    #[test]
    fn json_of_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80), pointer in "(/[a~01]{0,2}){0,3}") {
        let _ = json::read(&bytes, &pointer);
    }

    #[test]
    fn a_string_in_json_is_the_key_it_spells(key in "[ -~]{1,60}", name in ".{0,8}") {
        let document = serde_json::json!({ "before": [1, { "x": null }], &name: { "id": &key }, "zzz": {} });
        let pointer = format!("/{}/id", name.replace('~', "~0").replace('/', "~1"));
        prop_assume!(name != "before" && name != "zzz");
        prop_assert_eq!(json_at(&pointer, &document.to_string()).unwrap().unwrap(), key.into_bytes());
    }
}
