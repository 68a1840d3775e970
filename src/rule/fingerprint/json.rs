//! The JSON Canonicalization Scheme ([RFC 8785](https://www.rfc-editor.org/rfc/rfc8785)), where it loses nothing.
//!
//! Members in the order of their names' UTF-16 units, no white space, strings with the fewest escapes, numbers as
//! ECMAScript writes the nearest double. Where that would make one of two different documents (a number that is no
//! double's shortest form, a member that comes twice) there is no canonical form here.

use std::borrow::Cow;

use serde_json::Number;

use crate::rule::json::{Invalid, Reader, Token};

/// How many objects and arrays may be open at once: they are written by recursion.
const DEPTH_MAX: u32 = 128;

/// The canonical form; `None` when the body is not JSON (RFC 7493), nested too deep, or would lose something.
pub(super) fn canonical(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    let mut reader = Reader::at_most(DEPTH_MAX, body).ok()?;
    write(&mut reader, &mut out).ok()?;
    reader.end().ok()?;
    Some(out)
}

fn write(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Invalid> {
    match reader.value()? {
        Token::Literal(word) => out.extend_from_slice(word.as_bytes()),
        Token::Number(number) => write_number(number, out).ok_or(Invalid)?,
        Token::Text(text) => write_text(&text.unescape().ok_or(Invalid)?, out),
        Token::Array => {
            out.push(b'[');
            let mut first = true;
            while reader.element(first)? {
                if !first {
                    out.push(b',');
                }
                first = false;
                write(reader, out)?;
            }
            out.push(b']');
        }
        Token::Object => write_object(reader, out)?,
    }
    Ok(())
}

/// A member as it was written out: its name, and where its text lies.
struct Member<'a> {
    name: Cow<'a, str>,
    from: usize,
    to: usize,
}

fn write_object(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Invalid> {
    let start = out.len();
    let mut members: Vec<Member<'_>> = Vec::new();
    while let Some(name) = reader.member(members.is_empty())? {
        let name = name.unescape().ok_or(Invalid)?;
        out.push(b',');
        let from = out.len();
        write_text(&name, out);
        out.push(b':');
        write(reader, out)?;
        members.push(Member { name, from, to: out.len() });
    }
    if !members.is_sorted_by(|a, b| a.name.encode_utf16().lt(b.name.encode_utf16())) {
        members.sort_unstable_by(|a, b| a.name.encode_utf16().cmp(b.name.encode_utf16()));
        if members.windows(2).any(|pair| pair[0].name == pair[1].name) {
            return Err(Invalid);
        }
        let mut sorted = Vec::with_capacity(out.len() - start);
        for Member { from, to, .. } in &members {
            sorted.push(b',');
            sorted.extend_from_slice(&out[*from..*to]);
        }
        out.truncate(start);
        out.append(&mut sorted);
    }
    // The comma before the first member was the place of the brace.
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
    Ok(())
}

/// RFC 8785 s3.2.2.2.
fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0xC => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Writes a number as ECMAScript does; `None` when that is another number than the one written.
fn write_number(written: &str, out: &mut Vec<u8>) -> Option<()> {
    let double: f64 = written.parse().ok().filter(|double: &f64| double.is_finite())?;
    let text = ecmascript(double);
    (Decimal::of(written) == Decimal::of(&text)).then(|| out.extend_from_slice(text.as_bytes()))
}

/// `Number::toString` of ECMAScript for a finite double (RFC 8785 s3.2.2.3).
fn ecmascript(double: f64) -> String {
    if double == 0.0 {
        return "0".to_owned();
    }
    // The shortest digits that read back as this double, of two equally near the even ones, which `{:e}` does not heed.
    let shortest = Number::from_f64(double.abs()).expect("the caller's double is finite").to_string();
    let Decimal { digits, exponent, .. } = Decimal::of(&shortest).expect("a double is written as a decimal");
    let count = i32::try_from(digits.len()).expect("a double has at most 17 digits");
    // The decimal point stands after `point` digits.
    let point = count + i32::try_from(exponent).expect("the exponent of a double fits");
    let zeros = |count: i32| "0".repeat(usize::try_from(count).expect("counted from below"));
    let text = match point {
        1..=21 if count <= point => format!("{digits}{}", zeros(point - count)),
        1..=21 => {
            let (whole, part) = digits.split_at(usize::try_from(point).expect("at least one"));
            format!("{whole}.{part}")
        }
        -5..=0 => format!("0.{}{digits}", zeros(-point)),
        _ => {
            let (head, tail) = digits.split_at(1);
            let dot = if tail.is_empty() { "" } else { "." };
            format!("{head}{dot}{tail}e{:+}", point - 1)
        }
    };
    if double < 0.0 { format!("-{text}") } else { text }
}

/// A decimal number, exactly: its significant digits and the power of ten of the last of them.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{part}");
        let significant = all.trim_start_matches('0');
        let digits = significant.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        let shift = i64::try_from(significant.len() - digits.len()).ok()? - i64::try_from(part.len()).ok()?;
        Some(Self { negative, digits: digits.to_owned(), exponent: exponent.checked_add(shift)? })
    }
}

#[cfg(test)]
mod tests;
