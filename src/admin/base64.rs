//! Base64 (RFC 4648 s4), for bodies that are no text.

/// A text that is not Base64, or not in the one form that every decoder reads alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not Base64 (RFC 4648: standard alphabet, padded)")]
pub(super) struct NotBase64;

/// Decodes strictly: padded, nothing between, no stray bits (RFC 4648 s3.5).
pub(super) fn decode(text: &str) -> Result<Vec<u8>, NotBase64> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(4) {
        return Err(NotBase64);
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    let last = digits.len().saturating_sub(4);
    for (at, group) in digits.chunks_exact(4).enumerate() {
        let padding = match group {
            [.., b'=', b'='] => 2,
            [.., b'='] => 1,
            _ => 0,
        };
        if padding > 0 && at * 4 != last {
            return Err(NotBase64);
        }
        let bits = group[..4 - padding].iter().try_fold(0_u32, |bits, digit| Some(bits << 6 | value(*digit)?));
        let [_, decoded @ ..] = (bits.ok_or(NotBase64)? << (6 * padding)).to_be_bytes();
        let (kept, stray) = decoded.split_at(3 - padding);
        if stray.iter().any(|byte| *byte != 0) {
            return Err(NotBase64);
        }
        bytes.extend_from_slice(kept);
    }
    Ok(bytes)
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 s10.
    #[test]
    fn the_vectors_of_the_rfc() {
        let vectors =
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmFy", "foobar")];
        for (text, bytes) in vectors {
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()));
        }
        assert_eq!(decode("+/+/"), Ok(vec![0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn what_is_not_the_one_form_is_refused() {
        for text in ["Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9v\n", "Zm 9", "Zh==", "Zm9=", "-_-_", "Zm=v", "ä==="]
        {
            assert_eq!(decode(text), Err(NotBase64), "{text}");
        }
    }
}
