//! RFC 8785's own examples, and the properties of a canonical form.

use proptest::prelude::*;
use serde_json::{Map, Number, Value};

use super::*;

fn text(json: &str) -> Option<String> {
    canonical(json.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// RFC 8785 s3.2.2, without the number that no double is (`333333333.33333329`).
// contract: R-6
#[test]
fn the_rfcs_example_of_primitive_types() {
    let sample = r#"{
       "numbers": [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
       "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
       "literals": [null, true, false]
     }"#;
    let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                    \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
    assert_eq!(text(sample).unwrap(), expected);
    assert_eq!(text("333333333.33333329"), None);
}

/// RFC 8785 s3.2.3: the order is of UTF-16 units, not of code points.
// contract: R-6
#[test]
fn the_rfcs_example_of_sorting() {
    let sample = r#"{
       "\u20ac": "Euro Sign",
       "\r": "Carriage Return",
       "\ufb33": "Hebrew Letter Dalet With Dagesh",
       "1": "One",
       "\ud83d\ude00": "Emoji: Grinning Face",
       "\u0080": "Control",
       "\u00f6": "Latin Small Letter O With Diaeresis"
     }"#;
    let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
        \"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\
        \"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
    assert_eq!(text(sample).unwrap(), expected);
}

/// RFC 8785 Appendix B.
// contract: R-6
#[test]
fn the_rfcs_examples_of_numbers() {
    let examples: [(u64, &str); 26] = [
        (0x0000000000000000, "0"),
        (0x8000000000000000, "0"),
        (0x0000000000000001, "5e-324"),
        (0x8000000000000001, "-5e-324"),
        (0x7fefffffffffffff, "1.7976931348623157e+308"),
        (0xffefffffffffffff, "-1.7976931348623157e+308"),
        (0x4340000000000000, "9007199254740992"),
        (0xc340000000000000, "-9007199254740992"),
        (0x4430000000000000, "295147905179352830000"),
        (0x44b52d02c7e14af5, "9.999999999999997e+22"),
        (0x44b52d02c7e14af6, "1e+23"),
        (0x44b52d02c7e14af7, "1.0000000000000001e+23"),
        (0x444b1ae4d6e2ef4e, "999999999999999700000"),
        (0x444b1ae4d6e2ef4f, "999999999999999900000"),
        (0x444b1ae4d6e2ef50, "1e+21"),
        (0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"),
        (0x3eb0c6f7a0b5ed8d, "0.000001"),
        (0x41b3de4355555553, "333333333.3333332"),
        (0x41b3de4355555554, "333333333.33333325"),
        (0x41b3de4355555555, "333333333.3333333"),
        (0x41b3de4355555556, "333333333.3333334"),
        (0x41b3de4355555557, "333333333.33333343"),
        (0xbecbf647612f3696, "-0.0000033333333333333333"),
        (0x43143ff3c1cb0959, "1424953923781206.2"),
        (0x3ff0000000000000, "1"),
        (0x3fb999999999999a, "0.1"),
    ];
    for (bits, expected) in examples {
        assert_eq!(ecmascript(f64::from_bits(bits)), expected, "{bits:016x}");
    }
}

// contract: R-6
#[test]
fn a_number_that_is_no_doubles_shortest_form_has_no_canonical_one() {
    for lost in
        ["9007199254740993", "0.10000000000000001", "1e400", "1e-400", "123456789012345678", "1e99999999999999999999"]
    {
        assert_eq!(text(lost), None, "{lost}");
    }
    for (written, expected) in [
        ("9007199254740992", "9007199254740992"),
        ("-0", "0"),
        ("-0.0e5", "0"),
        ("1.50", "1.5"),
        ("100e-2", "1"),
        ("1E21", "1e+21"),
        ("0.0000001", "1e-7"),
    ] {
        assert_eq!(text(written).as_deref(), Some(expected));
    }
}

#[test]
fn what_is_no_single_document_has_no_canonical_form() {
    for bad in ["", "{", "{} {}", r#"{"a":1,"\u0061":2}"#, r#"{"b":1,"a":1,"b":1}"#, r#""\ud800""#, r#"{"\udc00":1}"#] {
        assert_eq!(text(bad), None, "{bad}");
    }
    assert_eq!(text(" [ { } , [ ] ] ").unwrap(), "[{},[]]");
    assert_eq!(text(&"[".repeat(100_000)), None);
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-1_000_000_i64..1_000_000).prop_map(|number| Value::Number(number.into())),
        any::<f64>().prop_filter_map("finite", |number| Number::from_f64(number).map(Value::Number)),
        ".{0,6}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((".{0,3}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same document with every object's members the other way round.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut turned = Map::new();
            members.iter().rev().for_each(|(name, value)| {
                turned.insert(name.clone(), reversed(value));
            });
            Value::Object(turned)
        }
        Value::Array(values) => Value::Array(values.iter().map(reversed).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

proptest! {
    #[test]
    fn order_and_white_space_do_not_count(document in document()) {
        let one = text(&document.to_string());
        prop_assert!(one.is_some(), "{}", document);
        prop_assert_eq!(&one, &text(&serde_json::to_string_pretty(&reversed(&document)).unwrap()));
        let one = one.unwrap();
        prop_assert_eq!(text(&one), Some(one.clone()), "a canonical form is its own");
    }

    #[test]
    fn different_values_differ(one in document(), other in document()) {
        let (a, b) = (text(&one.to_string()).unwrap(), text(&other.to_string()).unwrap());
        // The canonical form is read back as the value it was made of.
        let read = |text: &str| reversed(&serde_json::from_str(text).unwrap()).to_string();
        prop_assert_eq!(a == b, read(&a) == read(&b));
        prop_assert_eq!(one.is_object(), a.starts_with('{'));
    }

    #[test]
    fn shortest_forms_are_exact(bits: u64) {
        let double = f64::from_bits(bits);
        prop_assume!(double.is_finite());
        let written = ecmascript(double);
        prop_assert_eq!(written.parse::<f64>().unwrap(), double);
        prop_assert_eq!(text(&written), Some(written));
    }

    #[test]
    fn integers_are_kept_or_refused_never_rounded(number: i64) {
        if let Some(kept) = text(&number.to_string()) {
            prop_assert_eq!(kept, number.to_string());
        } else {
            prop_assert!(number.unsigned_abs() > 1 << 53);
        }
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = canonical(&bytes);
    }
}
