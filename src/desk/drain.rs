//! The end: nobody waits any more, what is under way is finished, and what is left is written `unknown` (contract: R-23).

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep_until, timeout_at};

use super::Desk;
use crate::{
    clock::{self, Instant},
    store::Store,
};

/// How long the last writes of a drain may take.
const LAST_WRITES: Duration = Duration::from_secs(1);

impl<S: Store> Desk<S> {
    /// From now on nobody waits for an owner.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until `others` have ended, no exchange is under way and nothing is left to write, at most until `deadline`;
    /// then what is left is written `unknown`. Returns how many exchanges were left.
    ///
    /// `others` are those who may still bring requests: an exchange may begin as long as they have not ended.
    pub async fn drained(&self, deadline: Instant, others: impl Future<Output = ()>) -> usize {
        self.background.close();
        let quiet = async {
            others.await;
            self.in_flight.none().await;
            self.background.wait().await;
        };
        if timeout_at(deadline, quiet).await.is_ok() {
            return 0;
        }
        // What goes on in the background holds its place among them.
        let left = self.in_flight.held();
        self.drained.cancel();
        // Writing `unknown` is one trip to the store for each; a store that does not answer must not hold the end up.
        let written = async {
            self.in_flight.none().await;
            self.background.wait().await;
        };
        _ = timeout_at(clock::now() + LAST_WRITES, written).await;
        left
    }

    /// Runs what is left of an exchange whose client went away after its record was settled, until its
    /// deadline or the drain's end. It counts against `max_in_flight`; beyond that it is dropped.
    pub fn finish_without_client(self: &Arc<Self>, deadline: Instant, rest: impl Future<Output = ()> + Send + 'static) {
        // None where the process is ending, and its runtimes with it.
        let runtime = tokio::runtime::Handle::try_current();
        let (Some(permit), Ok(runtime)) = (self.in_flight.try_hold(), runtime) else { return };
        let desk = Arc::clone(self);
        let rest = async move {
            let _permit = permit;
            tokio::select! {
                biased;
                () = rest => {}
                () = desk.drain_ended() => {}
                () = sleep_until(deadline) => {}
            }
        };
        self.background.spawn_on(rest, &runtime);
    }

    /// Ends when the drain has ended: exchanges under way are lost then.
    pub async fn drain_ended(&self) {
        self.drained.cancelled().await;
    }
}
