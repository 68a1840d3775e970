//! What arrives on an HTTP/2 connection, frame by frame as far as deadlines need it: h2 would wait for ever for the
//! preface, the first SETTINGS frame, and the rest of a head (RFC 9113 s3.4, s4.3).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::{pulse::Pulse, sniff::PREFACE, wire::Inlet};

/// Stamps the pulse with the beginnings and ends of frames. What they hold is h2's to check.
pub(super) struct Frames {
    /// Bytes of the preface that have yet to come.
    preface_left: usize,
    /// The header of the frame under way, as far as it is there.
    header: [u8; FRAME_HEADER],
    header_seen: usize,
    /// Bytes of the frame's payload that have yet to come.
    payload_left: usize,
    /// A head whose last frame has yet to come.
    block_open: bool,
    /// The first frame has ended.
    opened: bool,
}

const FRAME_HEADER: usize = 9;
/// Kinds of frames, and their flags (RFC 9113 s6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

impl Frames {
    pub(super) const fn new() -> Self {
        Self {
            preface_left: PREFACE.len(),
            header: [0; FRAME_HEADER],
            header_seen: 0,
            payload_left: 0,
            block_open: false,
            opened: false,
        }
    }

    /// Follows these bytes.
    ///
    /// # Errors
    /// The first frame is not SETTINGS, which h2 does not insist on.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<()> {
        let preface = self.preface_left.min(bytes.len());
        self.preface_left -= preface;
        let mut bytes = &bytes[preface..];
        while !bytes.is_empty() {
            let header = (FRAME_HEADER - self.header_seen).min(bytes.len());
            self.header[self.header_seen..][..header].copy_from_slice(&bytes[..header]);
            self.header_seen += header;
            bytes = &bytes[header..];
            if self.header_seen < FRAME_HEADER {
                break;
            }
            if header > 0 {
                self.begin()?;
            }
            let payload = self.payload_left.min(bytes.len());
            self.payload_left -= payload;
            bytes = &bytes[payload..];
            if self.payload_left == 0 {
                self.end();
            }
        }
        Ok(())
    }

    /// The header of a frame is whole.
    fn begin(&mut self) -> io::Result<()> {
        let [high, middle, low, kind, flags, ..] = self.header;
        if !self.opened && (kind, flags & ACK) != (SETTINGS, 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is not SETTINGS"));
        }
        self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
        Ok(())
    }

    fn end(&mut self) {
        let [.., kind, flags, _, _, _, _] = self.header;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block_open = flags & END_HEADERS == 0;
        }
        self.header_seen = 0;
        self.opened = true;
    }

    /// Whether a head, or a frame that may be one's, has begun and not ended. Bodies have a deadline of their own.
    const fn is_head_open(&self) -> bool {
        let [_, _, _, kind, ..] = self.header;
        let frame_open = self.header_seen > 0 && !(self.header_seen == FRAME_HEADER && kind == DATA);
        self.block_open || frame_open
    }
}

impl Inlet for Frames {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        pulse: &Pulse,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        let was_opened = self.opened;
        self.follow(&buf.filled()[before..])?;
        if self.opened && !was_opened {
            pulse.handshake_ended();
        }
        if self.opened {
            if self.is_head_open() {
                pulse.head_begun();
            } else {
                pulse.head_over();
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_SETTINGS: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];

    fn opened() -> Frames {
        let mut frames = Frames::new();
        frames.follow(&[&PREFACE[..], &FIRST_SETTINGS].concat()).unwrap();
        assert!(frames.opened && !frames.is_head_open());
        frames
    }

    #[test]
    fn the_opening_is_over_with_the_last_byte_of_the_first_settings() {
        let opening = [&PREFACE[..], &FIRST_SETTINGS].concat();
        for cut in 1..opening.len() {
            let mut frames = Frames::new();
            frames.follow(&opening[..cut]).unwrap();
            assert!(!frames.opened);
            frames.follow(&opening[cut..]).unwrap();
            assert!(frames.opened);
        }
    }

    #[test]
    fn an_opening_without_settings_is_none() {
        for first in [[0, 0, 8, 6, 0, 0, 0, 0, 0], [0, 0, 0, 4, 1, 0, 0, 0, 0], *b"GET / HTT"] {
            assert!(Frames::new().follow(&[&PREFACE[..], &first].concat()).is_err(), "{first:?}");
        }
    }

    #[test]
    fn a_head_is_open_from_its_first_byte_to_the_end_of_its_last_frame() {
        let head = [0, 0, 2, HEADERS, 0, 0, 0, 0, 1, 8, 8, 0, 0, 1, CONTINUATION, END_HEADERS, 0, 0, 0, 1, 8];
        for cut in 1..head.len() {
            let mut frames = opened();
            frames.follow(&head[..cut]).unwrap();
            assert!(frames.is_head_open(), "{cut} bytes");
            frames.follow(&head[cut..]).unwrap();
            assert!(!frames.is_head_open());
        }
    }

    #[test]
    fn a_body_under_way_is_no_head() {
        let data = [0, 0, 5, DATA, 0, 0, 0, 0, 1, 1, 2];
        let mut frames = opened();
        frames.follow(&data).unwrap();
        assert!(!frames.is_head_open());
        frames.follow(&[3, 4, 5, 0]).unwrap();
        assert!(frames.is_head_open(), "whose frame begins here is not known yet");
    }

    #[test]
    fn an_empty_frame_ends_with_its_header() {
        let mut frames = opened();
        frames.follow(&[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]).unwrap();
        assert!(!frames.is_head_open());
    }
}
