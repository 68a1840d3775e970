//! A pull reader of JSON ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259)) that keeps what trees lose: numbers as
//! written, members that come twice, strings whose escapes are no text.
//!
//! It reads every document that the grammar allows, and what it skips may be nested as deep as it likes. Who descends
//! into a document by recursion bounds the depth with [`Reader::at_most`], so that none can overflow the stack.

use std::borrow::Cow;

/// The text is not JSON, or nested too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid;

/// The beginning of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `null`, `true` or `false`.
    Literal(&'a str),
    /// A number as written.
    Number(&'a str),
    /// A string.
    Text(Text<'a>),
    /// `{`: read its members with [`Reader::member`] until `None`.
    Object,
    /// `[`: read its elements with [`Reader::element`] until `false`.
    Array,
}

/// A string between its quotes, escapes still in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

/// Reads one document from its beginning to its end.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    depth_max: u32,
}

impl<'a> Reader<'a> {
    /// Begins to read. The bytes must be UTF-8 throughout; a byte order mark before them is ignored (RFC 8259 s8.1).
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Invalid> {
        Self::at_most(u32::MAX, bytes)
    }

    /// The same of a document in which no more objects and arrays are open at once.
    pub(super) fn at_most(depth_max: u32, bytes: &'a [u8]) -> Result<Self, Invalid> {
        let text = std::str::from_utf8(bytes).map_err(|_| Invalid)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Ok(Self { text, at: 0, depth: 0, depth_max })
    }

    /// Reads the beginning of a value.
    pub(super) fn value(&mut self) -> Result<Token<'a>, Invalid> {
        self.space();
        match self.peek().ok_or(Invalid)? {
            b'"' => self.text().map(Token::Text),
            b'{' => self.open().map(|()| Token::Object),
            b'[' => self.open().map(|()| Token::Array),
            b'-' | b'0'..=b'9' => self.number().map(Token::Number),
            _ => ["null", "true", "false"]
                .into_iter()
                .find(|word| self.eat_word(word))
                .map(Token::Literal)
                .ok_or(Invalid),
        }
    }

    /// The name of an object's next member, its value next to read; `None` at the object's end.
    pub(super) fn member(&mut self, first: bool) -> Result<Option<Text<'a>>, Invalid> {
        if !self.next_in(b'}', first)? {
            return Ok(None);
        }
        let name = self.text()?;
        self.space();
        self.eat(b':')?;
        Ok(Some(name))
    }

    /// Whether the array has another element, its value next to read.
    pub(super) fn element(&mut self, first: bool) -> Result<bool, Invalid> {
        self.next_in(b']', first)
    }

    /// Reads what is left of a value whose beginning was read.
    pub(super) fn skip(&mut self, token: Token<'a>) -> Result<(), Invalid> {
        // Which of what is open are objects; by hand, since a document may be deeper than the stack.
        let mut open = Vec::new();
        let mut token = token;
        loop {
            let mut first = match token {
                Token::Literal(_) | Token::Number(_) | Token::Text(_) => false,
                Token::Object => {
                    open.push(true);
                    true
                }
                Token::Array => {
                    open.push(false);
                    true
                }
            };
            loop {
                let Some(&is_object) = open.last() else { return Ok(()) };
                let more = if is_object { self.member(first)?.is_some() } else { self.element(first)? };
                if more {
                    break;
                }
                open.pop();
                first = false;
            }
            token = self.value()?;
        }
    }

    /// Checks that only white space is left.
    pub(super) fn end(mut self) -> Result<(), Invalid> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(Invalid) }
    }

    fn open(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        self.depth += 1;
        if self.depth > self.depth_max { Err(Invalid) } else { Ok(()) }
    }

    fn next_in(&mut self, close: u8, first: bool) -> Result<bool, Invalid> {
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !first {
            self.eat(b',')?;
            self.space();
        }
        Ok(true)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.peek() != Some(byte) {
            return Err(Invalid);
        }
        self.at += 1;
        Ok(())
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn text(&mut self) -> Result<Text<'a>, Invalid> {
        self.eat(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.peek().ok_or(Invalid)? {
                b'"' => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                    match self.peek().ok_or(Invalid)? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        b'u' => {
                            let digits = self.text.as_bytes().get(self.at + 1..self.at + 5).ok_or(Invalid)?;
                            if !digits.iter().all(u8::is_ascii_hexdigit) {
                                return Err(Invalid);
                            }
                            self.at += 5;
                        }
                        _ => return Err(Invalid),
                    }
                }
                0..0x20 => return Err(Invalid),
                _ => self.at += 1,
            }
        }
    }

    fn number(&mut self) -> Result<&'a str, Invalid> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        if self.digits()? > 1 && leading_zero {
            return Err(Invalid);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<usize, Invalid> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(Invalid) } else { Ok(self.at - start) }
    }
}

// === impl Text ===

impl<'a> Text<'a> {
    /// The string itself; `None` when an escape names half a surrogate pair, which is no text.
    pub(super) fn unescape(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.raw));
        }
        let mut plain = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
            plain.push_str(&rest[..at]);
            let escape = rest.as_bytes()[at + 1];
            rest = &rest[at + 2..];
            plain.push(match escape {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => unicode(&mut rest)?,
                itself => char::from(itself),
            });
        }
        plain.push_str(rest);
        Some(Cow::Owned(plain))
    }

    /// Whether it is this text.
    pub(super) fn is(self, text: &str) -> bool {
        if self.escaped { self.unescape().is_some_and(|plain| plain == text) } else { self.raw == text }
    }
}

/// The character after `\u`, of two escapes where it needs a surrogate pair.
fn unicode(rest: &mut &str) -> Option<char> {
    let high = unit(rest)?;
    if !(0xD800..0xDC00).contains(&high) {
        return char::from_u32(high);
    }
    *rest = rest.strip_prefix("\\u")?;
    let low = unit(rest)?;
    (0xDC00..0xE000).contains(&low).then(|| char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)))?
}

fn unit(rest: &mut &str) -> Option<u32> {
    let (digits, after) = rest.split_at_checked(4)?;
    *rest = after;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn valid(bytes: &[u8]) -> bool {
        fn read(bytes: &[u8]) -> Result<(), Invalid> {
            let mut reader = Reader::new(bytes)?;
            let token = reader.value()?;
            reader.skip(token)?;
            reader.end()
        }
        read(bytes).is_ok()
    }

    #[test]
    fn refuses_what_the_grammar_refuses() {
        for bad in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "'a'",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\n\"",
            "nul",
            "nullx",
            "1 2",
            "{}{}",
            "NaN",
            "[1 2]",
            "\"",
            "\"\\",
            "--1",
        ] {
            assert!(!valid(bad.as_bytes()), "{bad:?}");
        }
        assert!(!valid(b"\"\xff\""), "not UTF-8");
        for good in ["0", "-0", " [ ] ", "{ }", "1E+5", "\"\\ud800\"", "[[],{\"\":[null,true,false]}]", "\"\u{7f}\""] {
            assert!(valid(good.as_bytes()), "{good:?}");
        }
    }

    #[test]
    fn what_is_skipped_may_be_nested_as_deep_as_it_likes() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(valid(&nested(1 << 19)));
        assert!(valid(["{\"a\":".repeat(1 << 17), "1".into(), "}".repeat(1 << 17)].concat().as_bytes()));
        assert!(!valid(&vec![b'['; 1 << 20]));
        assert!(!valid("{\"a\":".repeat(1 << 18).as_bytes()));
    }

    #[test]
    fn nesting_is_bounded_for_those_who_say_so() {
        let skipped = |depth_max, text: &'static str| {
            let mut reader = Reader::at_most(depth_max, text.as_bytes())?;
            let token = reader.value()?;
            reader.skip(token)
        };
        assert_eq!(skipped(2, "[[],{}]"), Ok(()));
        assert_eq!(skipped(2, "[[{}]]"), Err(Invalid));
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        assert!(valid("\u{feff}{}".as_bytes()));
        assert!(!valid("\u{feff}\u{feff}{}".as_bytes()));
    }

    #[test]
    fn surrogates_pair_up_or_are_no_text() {
        let text = |json: &'static str| {
            let Ok(Token::Text(text)) = Reader::new(json.as_bytes()).unwrap().value() else { panic!("a string") };
            text.unescape()
        };
        assert_eq!(text(r#""a\u00e9\ud83d\ude00\/\n""#).unwrap(), "a\u{e9}\u{1f600}/\n");
        for lone in [r#""\ud83d""#, r#""\ud83dx""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#""\ud83d\n""#] {
            assert_eq!(text(lone), None, "{lone}");
        }
    }

    /// Texts that are nearly JSON: pieces of it, strewn.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"",
            "\\",
            "\\u00e9",
            "0",
            "1",
            "-",
            ".",
            "e",
            "E+",
            "null",
            "true",
            " ",
            "\n",
            "\u{0}",
            "é",
            "{\"a\":1}",
            "[1]",
            "\\n",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn agrees_with_another_reader(text in nearly_json()) {
            prop_assert_eq!(valid(text.as_bytes()), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            valid(&bytes);
        }

        #[test]
        fn strings_are_read_as_another_reader_does(text in ".*") {
            let json = serde_json::to_string(&text).unwrap();
            let Ok(Token::Text(read)) = Reader::new(json.as_bytes()).unwrap().value() else { panic!("a string") };
            prop_assert!(read.is(&text));
        }
    }
}
