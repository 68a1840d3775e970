//! What hyper is not shown: heads of answers that two readers could read differently.
//!
//! hyper is a lenient client. It reads an answer with both lengths by its chunks and hides the other, takes bare line
//! feeds, and skips interim answers for ever. An answer is stored and told again, so one that can be read in two ways is
//! no answer: its connection fails, and the exchange is lost (contract: R-11).
//!
//! A pure state machine over the bytes of one HTTP/1.1 connection. It looks at heads only: from a request's dispatch to
//! the end of the final answer's head. Bodies and unasked bytes are hyper's to judge.

use memchr::memchr;

/// Interim answers before the final one. A 102 every second says for long that the request is at work, and what follows
/// is its outcome, which must not be lost to them; only a flood is.
const INTERIM_MAX: u32 = 1000;
/// Bytes of a line that has not ended; hyper bounds whole heads.
const LINE_MAX: usize = 64 << 10;

/// Looks at the heads of a connection's answers.
#[derive(Debug, Default)]
pub(super) struct Screen {
    state: State,
    /// What is here of a line whose end has not come.
    line: Vec<u8>,
    interim: u32,
    head: Head,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No answer is due, or its body is under way.
    #[default]
    Off,
    StatusLine,
    Fields,
}

/// What is known of a head that is under way.
#[derive(Debug, Default)]
struct Head {
    /// HTTP/1.0.
    old: bool,
    status: u16,
    length: Option<u64>,
    chunked: bool,
}

/// Why an answer is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    #[error("a line of the answer's head does not end in CR LF")]
    LineEnd,
    #[error("the answer's status line is malformed")]
    StatusLine,
    #[error("a line of the answer's head is too long")]
    LineTooLong,
    #[error("a field of the answer is folded")]
    Folded,
    #[error("a field name of the answer is no token")]
    FieldName,
    #[error("a field of the answer has a control character")]
    ControlCharacter,
    #[error("the answer's Content-Length is no number, or there are two that differ")]
    Length,
    #[error("the answer's Transfer-Encoding is not one \"chunked\"")]
    Coding,
    #[error("the answer has both Content-Length and Transfer-Encoding")]
    LengthWithCoding,
    #[error("the answer has a body that its status does not allow")]
    Bodiless,
    #[error("too many interim answers")]
    TooManyInterim,
}

impl Screen {
    /// A request goes out: the next byte begins an answer's head.
    pub(super) fn expect_answer(&mut self) {
        *self = Self { state: State::StatusLine, ..Self::default() };
    }

    /// Looks at what was read next.
    pub(super) fn look_at(&mut self, mut bytes: &[u8]) -> Result<(), Untrusted> {
        while self.state != State::Off && !bytes.is_empty() {
            let Some(end) = memchr(b'\n', bytes) else {
                if self.line.len() + bytes.len() > LINE_MAX {
                    return Err(Untrusted::LineTooLong);
                }
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.line.is_empty() {
                self.whole_line(line)?;
            } else {
                let mut joined = std::mem::take(&mut self.line);
                joined.extend_from_slice(line);
                self.whole_line(&joined)?;
            }
        }
        Ok(())
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<(), Untrusted> {
        let line = line.strip_suffix(b"\r\n").ok_or(Untrusted::LineEnd)?;
        match self.state {
            State::Off => {}
            State::StatusLine => {
                self.head = Head::begin(line)?;
                self.state = State::Fields;
            }
            State::Fields if !line.is_empty() => self.head.field(line)?,
            State::Fields => {
                self.head.finish()?;
                self.state = State::Off;
                // 101 is final: what follows is another protocol.
                if matches!(self.head.status, 100 | 102..=199) {
                    self.state = State::StatusLine;
                    self.interim += 1;
                    if self.interim > INTERIM_MAX {
                        return Err(Untrusted::TooManyInterim);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Head {
    /// RFC 9112 s4. The space before an empty reason may be missing, as with many servers it is.
    fn begin(line: &[u8]) -> Result<Self, Untrusted> {
        let (version, rest) = line.split_at_checked(9).ok_or(Untrusted::StatusLine)?;
        let old = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(Untrusted::StatusLine),
        };
        let (&[a, b, c], reason) = rest.split_first_chunk().ok_or(Untrusted::StatusLine)?;
        if ![a, b, c].iter().all(u8::is_ascii_digit) || a == b'0' || !matches!(reason.first(), None | Some(b' ')) {
            return Err(Untrusted::StatusLine);
        }
        if reason.iter().any(is_control) {
            return Err(Untrusted::ControlCharacter);
        }
        let digit = |byte| u16::from(byte - b'0');
        Ok(Self { old, status: digit(a) * 100 + digit(b) * 10 + digit(c), ..Self::default() })
    }

    /// RFC 9112 s5.
    fn field(&mut self, line: &[u8]) -> Result<(), Untrusted> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Untrusted::Folded);
        }
        let colon = memchr(b':', line).ok_or(Untrusted::FieldName)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(is_token) {
            return Err(Untrusted::FieldName);
        }
        if value.iter().any(is_control) {
            return Err(Untrusted::ControlCharacter);
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = length(value).ok_or(Untrusted::Length)?;
            // The same number twice says the same (RFC 9112 s6.3).
            if self.length.replace(length).is_some_and(|other| other != length) {
                return Err(Untrusted::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Untrusted::Coding);
            }
            self.chunked = true;
        }
        Ok(())
    }

    /// What only the whole head shows.
    fn finish(&self) -> Result<(), Untrusted> {
        if self.chunked && self.length.is_some() {
            return Err(Untrusted::LengthWithCoding);
        }
        // An HTTP/1.0 server does not know chunks (RFC 9112 s6.1).
        if self.chunked && self.old {
            return Err(Untrusted::Coding);
        }
        let bodiless = matches!(self.status, 100..=199 | 204);
        // A length of nothing is wrong there too, but clear, and common.
        if bodiless && (self.chunked || self.length.is_some_and(|length| length > 0)) {
            return Err(Untrusted::Bodiless);
        }
        Ok(())
    }
}

/// A plain decimal number below 2^63.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    number.try_into().ok()
}

/// Neither visible, nor SP, HTAB or obs-text (RFC 9110 s5.5).
fn is_control(byte: &u8) -> bool {
    (*byte < b' ' && *byte != b'\t') || *byte == 0x7f
}

/// RFC 9110 s5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one piece, and byte by byte: the same.
    fn verdict(answer: &[u8]) -> Result<(), Untrusted> {
        let mut whole = Screen::default();
        whole.expect_answer();
        let verdict = whole.look_at(answer);
        let mut split = Screen::default();
        split.expect_answer();
        assert_eq!(answer.chunks(1).try_for_each(|byte| split.look_at(byte)), verdict);
        verdict
    }

    #[test]
    fn ordinary_answers_pass() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200\r\ncontent-length:2\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\nX: ä\t\r\n\r\n0\r\n\r\n",
            "HTTP/1.0 404 Not Found\r\n\r\nno\nsuch\0thing",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\0\x01\n\n",
        ] {
            assert_eq!(verdict(answer.as_bytes()), Ok(()), "{answer:?}");
        }
    }

    #[test]
    fn interim_answers_are_bounded() {
        let interim = "HTTP/1.1 102 Processing\r\n\r\n";
        let most = INTERIM_MAX as usize;
        assert_eq!(verdict(interim.repeat(most).as_bytes()), Ok(()));
        assert_eq!(verdict(interim.repeat(most + 1).as_bytes()), Err(Untrusted::TooManyInterim));
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        assert_eq!(verdict(&[b'H'; LINE_MAX + 1]), Err(Untrusted::LineTooLong));
    }

    #[test]
    fn only_heads_are_looked_at() {
        let mut screen = Screen::default();
        assert_eq!(screen.look_at(b"\n\n"), Ok(()), "unasked bytes are hyper's to refuse");
        screen.expect_answer();
        assert_eq!(screen.look_at(b"HTTP/1.1 200 OK\r\n\r\n\n\n"), Ok(()));
        assert_eq!(screen.look_at(b"\n\n"), Ok(()));
        screen.expect_answer();
        assert_eq!(screen.look_at(b"\n\n"), Err(Untrusted::LineEnd));
    }
}
