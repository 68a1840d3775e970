//! A value among `name=value` pairs: query, form and cookies.
//!
//! Query and form are read as the WHATWG form parser does
//! ([URL s5.1](https://url.spec.whatwg.org/#urlencoded-parsing)): pairs end at `&`, `+` is a space, `%XX` is decoded
//! once, and an escape that is none stands for itself.

use std::borrow::Cow;

use http::{HeaderMap, header};
use percent_encoding::percent_decode;

use super::{KeyError, checked};

/// How often a name occurs, and its value when that is once.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::rule) enum Once<'a> {
    Never,
    Found(Cow<'a, [u8]>),
    Twice,
}

/// The key of this name; `None` when the name is not there.
pub(super) fn key<'a>(pairs: &'a [u8], name: &str) -> Result<Option<Cow<'a, [u8]>>, KeyError> {
    match only(pairs, name) {
        Once::Never => Ok(None),
        Once::Found(value) => checked(value).map(Some),
        Once::Twice => Err(KeyError::Malformed("the key comes twice")),
    }
}

/// The value of the only pair of this name.
pub(in crate::rule) fn only<'a>(pairs: &'a [u8], name: &str) -> Once<'a> {
    let values = pairs.split(|byte| *byte == b'&').filter_map(|pair| {
        let (left, right) = split(pair, b'=').unwrap_or((pair, &[]));
        // An empty piece between two `&` is no pair.
        (!pair.is_empty() && decode(left).as_ref() == name.as_bytes()).then_some(right)
    });
    once(values.map(decode))
}

/// The value of the only cookie of this name ([RFC 6265 s5.4](https://www.rfc-editor.org/rfc/rfc6265#section-5.4)), as
/// sent: what its bytes mean is the application's.
pub(in crate::rule) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Once<'a> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let values = pairs.filter_map(|pair| {
        let (left, right) = split(pair, b'=')?;
        (left.trim_ascii() == name.as_bytes()).then(|| Cow::Borrowed(right.trim_ascii()))
    });
    once(values)
}

fn once<'a>(mut values: impl Iterator<Item = Cow<'a, [u8]>>) -> Once<'a> {
    match (values.next(), values.next()) {
        (None, _) => Once::Never,
        (Some(value), None) => Once::Found(value),
        (Some(_), Some(_)) => Once::Twice,
    }
}

fn split(pair: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(at, pair)?;
    Some((&pair[..at], &pair[at + 1..]))
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}
