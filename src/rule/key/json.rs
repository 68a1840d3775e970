//! A key in a JSON body, named by a JSON Pointer ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)).
//!
//! The document is read once, without a tree: the pointer's path is followed, all else is skipped. A member twice on
//! that path is malformed, since readers differ in which one they take ([RFC 8259 s4](https://www.rfc-editor.org/rfc/rfc8259#section-4)).

use std::borrow::Cow;

use super::{KeyError, checked};
use crate::rule::json::{Invalid, Reader, Token};

/// The key that the pointer names; `None` when the document is not JSON, or has no string or number there.
pub(super) fn read<'a>(body: &'a [u8], pointer: &str) -> Result<Option<Cow<'a, [u8]>>, KeyError> {
    match find(body, pointer) {
        Err(Invalid) | Ok(Found::Nothing) => Ok(None),
        Ok(Found::Number(number)) => checked(Cow::Borrowed(number.as_bytes())).map(Some),
        Ok(Found::Text(Some(Cow::Borrowed(text)))) => checked(Cow::Borrowed(text.as_bytes())).map(Some),
        Ok(Found::Text(Some(Cow::Owned(text)))) => checked(Cow::Owned(text.into_bytes())).map(Some),
        Ok(Found::Text(None)) => Err(KeyError::Malformed("the key has half a surrogate pair")),
        Ok(Found::Twice) => Err(KeyError::Malformed("a member on the key's path comes twice")),
    }
}

/// What the pointer names.
enum Found<'a> {
    Nothing,
    Number(&'a str),
    Text(Option<Cow<'a, str>>),
    Twice,
}

fn find<'a>(body: &'a [u8], pointer: &str) -> Result<Found<'a>, Invalid> {
    let mut reader = Reader::new(body)?;
    let found = follow(&mut reader, pointer)?;
    // Only a whole document is JSON, however early the key was found.
    reader.end()?;
    Ok(found)
}

/// Reads one value, of which `pointer` names a part; empty, it names the value itself.
fn follow<'a>(reader: &mut Reader<'a>, pointer: &str) -> Result<Found<'a>, Invalid> {
    let token = reader.value()?;
    let Some(rest) = pointer.strip_prefix('/') else {
        reader.skip(token)?;
        return Ok(match token {
            Token::Number(number) => Found::Number(number),
            Token::Text(text) => Found::Text(text.unescape()),
            Token::Literal(_) | Token::Object | Token::Array => Found::Nothing,
        });
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (step, rest) = rest.split_at(end);
    match token {
        Token::Object => in_object(reader, &unescape(step), rest),
        Token::Array => in_array(reader, step, rest),
        Token::Literal(_) | Token::Number(_) | Token::Text(_) => Ok(Found::Nothing),
    }
}

fn in_object<'a>(reader: &mut Reader<'a>, name: &str, rest: &str) -> Result<Found<'a>, Invalid> {
    let (mut first, mut seen) = (true, false);
    let mut found = Found::Nothing;
    while let Some(member) = reader.member(first)? {
        first = false;
        if !member.is(name) {
            let token = reader.value()?;
            reader.skip(token)?;
        } else {
            let value = follow(reader, rest)?;
            found = if seen { Found::Twice } else { value };
            seen = true;
        }
    }
    Ok(found)
}

fn in_array<'a>(reader: &mut Reader<'a>, step: &str, rest: &str) -> Result<Found<'a>, Invalid> {
    let wanted = index(step);
    let mut found = Found::Nothing;
    let mut at = 0;
    while reader.element(at == 0)? {
        if Some(at) == wanted {
            found = follow(reader, rest)?;
        } else {
            let token = reader.value()?;
            reader.skip(token)?;
        }
        at += 1;
    }
    Ok(found)
}

/// An array index: digits without a leading zero (RFC 6901 s4). `-` names what is after the last element: nothing.
fn index(step: &str) -> Option<usize> {
    let plain = step == "0" || !step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit());
    if plain { step.parse().ok() } else { None }
}

/// `~1` is `/`, then `~0` is `~` (RFC 6901 s4: in this order, so that `~01` is `~1`).
fn unescape(step: &str) -> Cow<'_, str> {
    if step.contains('~') { Cow::Owned(step.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(step) }
}
