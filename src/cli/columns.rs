//! Text in columns, as wide as terminals show it: some characters take two, some none.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A text with blanks behind it, up to so many columns.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// A line in pieces of at most `width` columns, broken behind a blank or a slash where one is near.
pub(super) fn broken(line: &str, width: usize) -> Vec<String> {
    let mut rest = line;
    let mut pieces = Vec::new();
    while rest.width() > width {
        let ends = rest.char_indices().map(|(at, character)| at + character.len_utf8());
        let fitting: Vec<usize> = ends.take_while(|end| rest[..*end].width() <= width).collect();
        let gap = fitting.iter().rfind(|end| rest[..**end].ends_with([' ', '/', '+', ':']));
        let near = gap.filter(|end| rest[..**end].width() * 2 > width);
        // One character at least, however wide.
        let first = rest.chars().next().map_or(rest.len(), char::len_utf8);
        let end = near.or_else(|| fitting.last()).copied().unwrap_or(first);
        pieces.push(rest[..end].trim_end().to_owned());
        rest = &rest[end..];
    }
    pieces.push(rest.to_owned());
    pieces
}

/// A text of at most so many columns: what is longer ends in an ellipsis.
pub(super) fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let mut shown = String::new();
    for character in text.chars() {
        if shown.width() + character.width().unwrap_or(0) >= width {
            break;
        }
        shown.push(character);
    }
    shown.push('…');
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_their_columns() {
        assert_eq!(padded("注文", 6), "注文  ");
        assert_eq!(padded("order", 6), "order ");
        assert_eq!(shortened("注文を作成する", 7), "注文を…");
        assert_eq!(shortened("create order", 7), "create…");
        assert_eq!(shortened("order", 5), "order");
        for width in 1..20 {
            let pieces = broken("注文 を/作成 する order", width);
            assert!(pieces.iter().all(|piece| piece.width() <= width.max(2)), "{width}: {pieces:?}");
            let whole: String = pieces.concat().split_whitespace().collect();
            assert_eq!(whole, "注文を/作成するorder", "{width}");
        }
    }
}
