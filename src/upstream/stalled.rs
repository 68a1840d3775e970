//! Clients that take nothing of their answers may not keep others from being served.
//!
//! An answer that streams through holds its connection for as long as its client likes to take. Some hundreds of such
//! clients would leave no connection to anybody else. So when a request finds none free, the answer whose client has taken
//! nothing for longest gives its connection up, if that is longer than [`PATIENCE`]; its client sees it broken off. As long
//! as there are connections for all, clients have the time that the server gives them. Guarded answers are not touched:
//! what they hold is known nowhere else. (HTTP/2 needs none of this: its streams share connections.)

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use crate::clock::{self, Sparing};

/// How long a client may take nothing while others find no connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// The connections of one upstream, as far as their answers are concerned.
#[derive(Debug)]
pub(super) struct Answers {
    start: Instant,
    each: Mutex<Vec<Weak<Taking>>>,
    told: Sparing,
}

/// How the client takes the answer that a connection brings.
#[derive(Debug)]
pub(super) struct Taking {
    start: Instant,
    /// Since when the client has not come for more: microseconds after the start, and one. None where it waits for the
    /// upstream, or no answer is under way.
    given: AtomicU64,
    driver: AbortHandle,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { start: clock::now(), each: Mutex::default(), told: Sparing::new() }
    }

    /// Watches a new connection, driven by that task, while it is held on to.
    pub(super) fn watch(&self, driver: AbortHandle) -> Arc<Taking> {
        let taking = Arc::new(Taking { start: self.start, given: AtomicU64::new(0), driver });
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if each.len() == each.capacity() {
            // Before it grows, those that have closed make room.
            each.retain(|taking| taking.strong_count() > 0);
        }
        each.push(Arc::downgrade(&taking));
        taking
    }

    /// Closes the connection whose client has taken nothing for longest, if that is long enough.
    pub(super) fn give_one_up(&self) {
        let now = clock::now();
        let longest = {
            let each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
            let stalled = each.iter().filter_map(Weak::upgrade).filter_map(|taking| Some((taking.since()?, taking)));
            stalled.min_by_key(|(since, _)| *since)
        };
        let Some((since, taking)) = longest else { return };
        let time = now.saturating_duration_since(since);
        if time < PATIENCE {
            return;
        }
        taking.waits();
        taking.driver.abort();
        if let Some(untold) = self.told.turn() {
            tracing::warn!(
                seconds = time.as_secs(),
                untold,
                "an upstream's connections are all in use: an answer was broken off whose client took nothing of it"
            );
        }
    }
}

impl Taking {
    /// The client was given something, and has to come for more.
    pub(super) fn gave(&self) {
        let micros = u64::try_from((clock::now() - self.start).as_micros()).unwrap_or(u64::MAX - 1);
        self.given.store(micros + 1, Relaxed);
    }

    /// The client waits for the upstream, or there is no answer to take.
    pub(super) fn waits(&self) {
        self.given.store(0, Relaxed);
    }

    fn since(&self) -> Option<Instant> {
        let micros = self.given.load(Relaxed).checked_sub(1)?;
        Some(self.start + Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    fn connection(answers: &Answers) -> (JoinHandle<()>, Arc<Taking>) {
        let driver = tokio::spawn(std::future::pending());
        let taking = answers.watch(driver.abort_handle());
        (driver, taking)
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_stalled_for_longest_is_given_up_and_none_before_its_time() {
        let answers = Answers::new();
        let (first, first_taking) = connection(&answers);
        let (second, second_taking) = connection(&answers);
        let (waiting, waiting_taking) = connection(&answers);
        waiting_taking.gave();
        waiting_taking.waits();
        first_taking.gave();
        tokio::time::advance(PATIENCE / 2).await;
        second_taking.gave();
        answers.give_one_up();
        tokio::task::yield_now().await;
        assert!(!first.is_finished(), "half of its time is left");
        tokio::time::advance(PATIENCE / 2).await;
        answers.give_one_up();
        answers.give_one_up();
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(!second.is_finished(), "half of its time is left");
        tokio::time::advance(PATIENCE).await;
        answers.give_one_up();
        assert!(second.await.unwrap_err().is_cancelled());
        answers.give_one_up();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "it waits for the upstream");
    }

    #[tokio::test]
    async fn connections_that_have_closed_are_forgotten() {
        let answers = Answers::new();
        for _ in 0..1000 {
            drop(connection(&answers));
        }
        assert!(answers.each.lock().unwrap().len() < 10);
    }
}
