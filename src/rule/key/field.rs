//! A key in a header field: a Structured Field String, or a bare value (contract: R-4).
//!
//! `Idempotency-Key` is specified as a String
//! ([RFC 9651 s3.3.3](https://www.rfc-editor.org/rfc/rfc9651#section-3.3.3)) and mostly sent bare. Both are one key.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Item, Parser};

use super::{KeyError, checked};

/// The key in this field; `None` when the field is not there.
pub(super) fn read<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Cow<'a, [u8]>>, KeyError> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(KeyError::Malformed("the key's field comes twice"));
    }
    value(line.as_bytes()).map(Some)
}

/// The key in one line of the field.
pub(super) fn value(line: &[u8]) -> Result<Cow<'_, [u8]>, KeyError> {
    let value = trim_ows(line);
    if value.first() == Some(&b'"') { quoted(value) } else { bare(value) }
}

/// White space around a field's value is not part of it (RFC 9110 s5.5).
pub(in crate::rule) fn trim_ows(value: &[u8]) -> &[u8] {
    let is_ows = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_ows(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_ows(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

fn bare(value: &[u8]) -> Result<Cow<'_, [u8]>, KeyError> {
    // A comma makes a list, and of two keys neither is the key.
    if value.contains(&b',') {
        return Err(KeyError::Malformed("the key is a list"));
    }
    if value.contains(&b' ') {
        return Err(KeyError::Malformed("the key has a space outside quotes"));
    }
    checked(Cow::Borrowed(value))
}

fn quoted(value: &[u8]) -> Result<Cow<'_, [u8]>, KeyError> {
    // Most quoted keys have neither escapes nor parameters, and need no copy.
    if let [b'"', inner @ .., b'"'] = value
        && !inner.iter().any(|byte| matches!(byte, b'"' | b'\\'))
    {
        return checked(Cow::Borrowed(inner));
    }
    let item = Parser::new(value).parse::<Item>();
    let Ok(Item { bare_item: BareItem::String(key), .. }) = item else {
        return Err(KeyError::Malformed("the key is not a Structured Field String"));
    };
    checked(Cow::Owned(String::from(key).into_bytes()))
}
