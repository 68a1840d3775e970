//! A body that may not stay silent.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::clock;

/// Fails after a span of silence, counted from when the body was asked for a frame and had none.
///
/// A body that nobody polls is never late: it may be our own back-pressure that holds it. The timer is made at the first
/// wait and re-armed only when it fires, so a frame costs no timer operation.
#[derive(Debug)]
pub struct TimedBody<B> {
    body: B,
    patience: Duration,
    waiting_since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Why a [`TimedBody`] ended.
#[derive(Debug, thiserror::Error)]
pub enum TimedBodyError<E: Error + 'static> {
    /// No frame came for that long.
    #[error("the body was silent for {0:?}")]
    Silent(Duration),
    /// The body itself failed.
    #[error("the body broke off")]
    Body(#[source] E),
}

impl<B> TimedBody<B> {
    /// Wraps `body`, which may be silent for no longer than `patience` at a time.
    pub const fn new(body: B, patience: Duration) -> Self {
        Self { body, patience, waiting_since: None, sleep: None }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let since = *self.waiting_since.get_or_insert_with(clock::now);
        let due = since + self.patience;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(self.patience);
            }
            // It was armed for an earlier silence, which ended in time.
            sleep.as_mut().reset(due);
        }
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body<Error: Error + 'static> + Unpin,
{
    type Data = B::Data;
    type Error = TimedBodyError<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.waiting_since = None;
                Poll::Ready(frame.map(|frame| frame.map_err(TimedBodyError::Body)))
            }
            Poll::Pending => self.poll_silence(cx).map(|patience| Some(Err(TimedBodyError::Silent(patience)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use bytes::Bytes;
    use http_body_util::BodyExt;

    use super::*;

    /// One frame after each of these pauses, then the end.
    struct Paced {
        pauses: VecDeque<Duration>,
        sleep: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Paced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(&pause) = self.pauses.front() else { return Poll::Ready(None) };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
            self.pauses.pop_front();
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    fn paced(seconds: &[u64]) -> TimedBody<Paced> {
        let pauses = seconds.iter().copied().map(Duration::from_secs).collect();
        TimedBody::new(Paced { pauses, sleep: None }, Duration::from_secs(30))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_that_is_never_silent_for_too_long_arrives() {
        let body = paced(&[29, 29, 0, 29, 29]).collect().await.unwrap();
        assert_eq!(body.to_bytes(), "xxxxx");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_fails_when_its_time_is_up() {
        let begun = clock::now();
        let mut body = paced(&[20, 20, 31]);
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
        }
        let silent = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(silent, TimedBodyError::Silent(patience) if patience == Duration::from_secs(30)));
        assert_eq!((clock::now() - begun).as_secs(), 70);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_asks_is_not_late() {
        let mut body = paced(&[10, 10]);
        body.frame().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(300)).await;
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.is_none());
    }
}
