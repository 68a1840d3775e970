//! Streamed requests may not take every connection.
//!
//! A body that streams through holds its connection for as long as its client likes to take, byte by byte. Some hundreds
//! of such clients would leave no connection to anybody else, so a quarter of them is kept for requests that are here
//! whole: those without a body, and every guarded one. (HTTP/2 needs none of this: its streams share connections.)

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::Unsent;
use crate::body::{BodyError, RequestBody};

/// How many bodies may be on their way at a time.
#[derive(Debug)]
pub(super) struct Uploads {
    places: Arc<Semaphore>,
    queue_timeout: Duration,
}

impl Uploads {
    pub(super) fn new(connections_max: usize, queue_timeout: Duration) -> Self {
        let places = connections_max - connections_max / 4;
        Self { places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))), queue_timeout }
    }

    /// The body with its place, which it gives back as soon as it has ended.
    ///
    /// # Errors
    ///
    /// There was no place within `queue_timeout`.
    pub(super) async fn admit(&self, body: RequestBody) -> Result<RequestBody, Unsent> {
        if matches!(body, RequestBody::Full(_)) {
            return Ok(body);
        }
        let admission = timeout(self.queue_timeout, Arc::clone(&self.places).acquire_owned()).await;
        let place = admission.map_err(|_| Unsent::QueueTimeout)?.expect("nobody closes the semaphore");
        Ok(RequestBody::stream(Upload { body, place: Some(place) }))
    }
}

/// A streamed body in its place.
struct Upload {
    body: RequestBody,
    place: Option<OwnedSemaphorePermit>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.place = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
