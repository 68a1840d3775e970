//! What two sides speak once they have switched protocols: bytes both ways (RFC 9110 s7.8).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::sleep,
};

/// Carries bytes both ways once both sides have switched. A tunnel may be quiet for as long as both sides are there; once
/// one has ended, the other may be silent for `patience` at most: it could be a server that nobody told of its client's
/// end, and would hold a connection of the upstream for ever.
pub(super) fn open(downstream: Option<OnUpgrade>, upstream: OnUpgrade, patience: Duration) {
    let Some(downstream) = downstream else { return };
    tokio::spawn(async move {
        let (Ok(downstream), Ok(upstream)) = tokio::join!(downstream, upstream) else { return };
        carry(TokioIo::new(downstream), TokioIo::new(upstream), patience).await;
    });
}

async fn carry<D, U>(downstream: D, upstream: U, patience: Duration)
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let seen = Arc::new(Seen::default());
    let mut sides = (Side { io: downstream, seen: Arc::clone(&seen) }, Side { io: upstream, seen: Arc::clone(&seen) });
    let one_has_left = async {
        let mut before = None;
        loop {
            sleep(patience).await;
            let now = seen.half_ended.load(Relaxed).then(|| seen.moved.load(Relaxed));
            if now.is_some() && now == before {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        // There is nobody left to tell of an error.
        _ = copy_bidirectional(&mut sides.0, &mut sides.1) => {}
        () = one_has_left => {}
    }
}

/// What was seen of a tunnel.
#[derive(Default)]
struct Seen {
    /// Bytes read of either side.
    moved: AtomicU64,
    /// One side sends no more.
    half_ended: AtomicBool,
}

/// One side, watched.
struct Side<S> {
    io: S,
    seen: Arc<Seen>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Side<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        match buf.filled().len() - before {
            0 => self.seen.half_ended.store(true, Relaxed),
            read => _ = self.seen.moved.fetch_add(read as u64, Relaxed),
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::timeout,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(75);

    #[tokio::test(start_paused = true)]
    async fn a_quiet_tunnel_lasts_while_both_sides_are_there() {
        let ((_client, downstream), (upstream, _server)) = (duplex(64), duplex(64));
        assert!(timeout(PATIENCE * 100, carry(downstream, upstream, PATIENCE)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_is_silent_after_the_others_end_is_let_go() {
        let ((client, downstream), (upstream, mut server)) = (duplex(64), duplex(64));
        drop(client);
        let carrying = tokio::spawn(carry(downstream, upstream, PATIENCE));
        let mut said = Vec::new();
        server.read_to_end(&mut said).await.unwrap();
        assert!(timeout(PATIENCE * 4, carrying).await.is_ok(), "its end was told, and it said nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_the_other_sides_end_is_carried_while_it_comes() {
        let ((mut client, downstream), (upstream, mut server)) = (duplex(64), duplex(64));
        client.shutdown().await.unwrap();
        let carrying = tokio::spawn(carry(downstream, upstream, PATIENCE));
        for _ in 0..10 {
            sleep(PATIENCE * 3 / 4).await;
            server.write_all(b"still here").await.unwrap();
            let mut heard = [0; 10];
            client.read_exact(&mut heard).await.unwrap();
        }
        assert!(!carrying.is_finished());
        drop(server);
        assert!(timeout(Duration::from_millis(1), carrying).await.is_ok());
    }
}
