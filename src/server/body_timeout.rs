//! A body that may not stay silent, nor drip for ever.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::clock;

/// Bytes a second that a hurried body must arrive with, once its [`GRACE`] is used up.
const LEAST_RATE: u32 = 1024;
/// How many times its longest silence a hurried body may be waited for, however little arrives.
const GRACE: u32 = 10;
/// For so long it may in any case: short silences are no reason for haste.
const GRACE_MIN: Duration = Duration::from_secs(10);

/// Fails after a span of silence, counted from when the body was asked for a frame and had none.
///
/// One that is [hurried](Self::hurried) fails too when it was waited for longer, all in all, than ten such spans (or ten
/// seconds) and a second for each KiB that arrived: who drips holds what the body holds for a bounded time.
///
/// A body that nobody polls is never late: it may be our own back-pressure that holds it. The timer is made at the first
/// wait and as a rule re-armed only when it fires, so a frame costs no timer operation.
#[derive(Debug)]
pub struct TimedBody<B> {
    body: B,
    patience: Duration,
    waiting_since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    hurry: Option<Hurry>,
}

/// What a hurried body has had so far.
#[derive(Debug, Default)]
struct Hurry {
    waited: Duration,
    bytes: u64,
}

/// Why a [`TimedBody`] ended.
#[derive(Debug, thiserror::Error)]
pub enum TimedBodyError<E: Error + 'static> {
    /// No frame came for that long.
    #[error("the body was silent for {0:?}")]
    Silent(Duration),
    /// It was waited for that long altogether, and too little came.
    #[error("the body arrived too slowly: it was waited for {0:?}")]
    Slow(Duration),
    /// The body itself failed.
    #[error("the body broke off")]
    Body(#[source] E),
}

impl<B> TimedBody<B> {
    /// Wraps `body`, which may be silent for no longer than `patience` at a time.
    pub const fn new(body: B, patience: Duration) -> Self {
        Self { body, patience, waiting_since: None, sleep: None, hurry: None }
    }

    /// Has it arrive with 1 KiB a second at least, after ten times its patience; not for streams that stay open by
    /// design.
    #[must_use]
    pub fn hurried(self) -> Self {
        Self { hurry: Some(self.hurry.unwrap_or_default()), ..self }
    }

    fn poll_late<E: Error>(&mut self, cx: &mut Context<'_>) -> Poll<TimedBodyError<E>> {
        let since = *self.waiting_since.get_or_insert_with(clock::now);
        let allowed = self.hurry.as_ref().map(|hurry| hurry.left(self.patience));
        let slow = allowed.filter(|allowed| *allowed < self.patience);
        let due = since + slow.unwrap_or(self.patience);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                break;
            }
            // It was armed for an earlier silence, which ended in time.
            sleep.as_mut().reset(due);
        }
        Poll::Ready(match (slow, &self.hurry) {
            (Some(rest), Some(hurry)) => TimedBodyError::Slow(hurry.waited + rest),
            (_, _) => TimedBodyError::Silent(self.patience),
        })
    }
}

impl Hurry {
    /// For how long it may still be waited for.
    fn left(&self, patience: Duration) -> Duration {
        ((patience * GRACE).max(GRACE_MIN) + Duration::from_secs(self.bytes) / LEAST_RATE).saturating_sub(self.waited)
    }

    fn had(&mut self, bytes: usize, since: Option<Instant>) {
        self.bytes += bytes as u64;
        self.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
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
                let since = self.waiting_since.take();
                if let (Some(hurry), Some(Ok(frame))) = (&mut self.hurry, &frame) {
                    hurry.had(frame.data_ref().map_or(0, Buf::remaining), since);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(TimedBodyError::Body)))
            }
            Poll::Pending => self.poll_late(cx).map(|late| Some(Err(late))),
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
        frame: Bytes,
        sleep: Option<Pin<Box<Sleep>>>,
    }

    impl TimedBody<Paced> {
        fn with_frames(mut self, frame: Bytes) -> Self {
            self.body.frame = frame;
            self
        }
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
            Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
        }
    }

    fn paced(seconds: &[u64]) -> TimedBody<Paced> {
        paced_with(seconds.iter().copied().map(Duration::from_secs).collect(), Duration::from_secs(30))
    }

    fn paced_with(pauses: VecDeque<Duration>, patience: Duration) -> TimedBody<Paced> {
        TimedBody::new(Paced { pauses, frame: Bytes::from_static(b"x"), sleep: None }, patience)
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
    async fn a_hurried_body_may_drip_for_ten_times_its_patience() {
        let begun = clock::now();
        let error = paced(&[25; 20]).hurried().collect().await.unwrap_err();
        assert!(matches!(error, TimedBodyError::Slow(_)), "{error}");
        // A second for each KiB: 11 bytes win some milliseconds.
        assert_eq!((clock::now() - begun).as_secs(), 300);
        let body = paced(&[25; 11]).hurried().collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), 11);
        // What stays open by design may drip for ever.
        assert_eq!(paced(&[25; 1000]).collect().await.unwrap().to_bytes().len(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hurried_body_has_ten_seconds_in_any_case() {
        let half = Duration::from_millis(500);
        let drip = |frames| paced_with(vec![half; frames].into(), Duration::from_millis(600)).hurried().collect();
        drip(19).await.unwrap();
        drip(21).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_hurried_body_wins_a_second_with_each_kib_and_none_while_nobody_asks() {
        let mut body = paced(&[25; 400]).with_frames(Bytes::from(vec![b'x'; 26 << 10])).hurried();
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_hurried_body_is_silent_rather_than_slow() {
        let error = paced(&[29, 31]).hurried().collect().await.unwrap_err();
        assert!(matches!(error, TimedBodyError::Silent(_)), "{error}");
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
