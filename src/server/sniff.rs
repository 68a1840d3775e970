//! Tells HTTP/2 with prior knowledge from HTTP/1.1 by a plain connection's first bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What an HTTP/2 client begins with (RFC 9113 s3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read at once while the protocol is unknown: most requests whole.
const FIRST_READ: usize = 4096;

/// A connection's protocol, with the bytes that told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    Http1(Vec<u8>),
    Http2(Vec<u8>),
    /// The client left without a byte.
    Nothing,
}

/// Reads until the protocol is certain. How long that may take is the caller's to bound.
///
/// # Errors
/// The transport's.
pub(super) async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Sniffed> {
    let mut read = Vec::with_capacity(FIRST_READ);
    loop {
        let ended = stream.read_buf(&mut read).await? == 0;
        if read.is_empty() {
            return Ok(Sniffed::Nothing);
        }
        let common = read.len().min(PREFACE.len());
        if read[..common] != PREFACE[..common] {
            return Ok(Sniffed::Http1(read));
        }
        if common == PREFACE.len() {
            return Ok(Sniffed::Http2(read));
        }
        if ended {
            return Ok(Sniffed::Nothing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> Sniffed {
        let mut io = tokio_test_like(pieces);
        sniff(&mut io).await.unwrap()
    }

    /// A stream that gives one piece a read.
    fn tokio_test_like(pieces: &[&[u8]]) -> impl AsyncRead + Unpin {
        let (mut client, server) = tokio::io::duplex(1);
        let bytes = pieces.concat();
        tokio::spawn(async move {
            // The test may have seen enough.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client, &bytes).await;
        });
        server
    }

    #[tokio::test]
    async fn the_preface_is_told_from_a_request_at_the_first_byte_that_differs() {
        assert_eq!(sniffed(&[b"POST / HTTP/1.1"]).await, Sniffed::Http1(b"PO".to_vec()));
        assert_eq!(sniffed(&[b"PROPFIND /"]).await, Sniffed::Http1(b"PRO".to_vec()));
        assert_eq!(
            sniffed(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"]).await,
            Sniffed::Http1(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r".to_vec())
        );
        assert_eq!(sniffed(&[PREFACE]).await, Sniffed::Http2(PREFACE.to_vec()));
    }

    #[tokio::test]
    async fn a_client_that_leaves_in_the_preface_is_served_nothing() {
        assert_eq!(sniffed(&[]).await, Sniffed::Nothing);
        assert_eq!(sniffed(&[&PREFACE[..23]]).await, Sniffed::Nothing);
    }
}
