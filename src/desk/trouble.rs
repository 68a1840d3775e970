//! What goes on when the store fails: settlements that land later, claims that are taken back.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Claim, Counters, Desk, draw_version};
use crate::{
    rule::{Expect, Record, Stored, Version},
    store::{Store, Swap, Write},
};

/// Between two tries, at first.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two tries, at most.
const PAUSE_MOST: Duration = Duration::from_secs(1);
/// How often a claim must be seen gone before it is believed: a step delayed on its way may still arrive after a look
/// that overtook it. The pauses add up to about eight seconds.
const LOOKS: u32 = 12;

impl<S: Store> Desk<S> {
    /// Retries a settlement until it lands, another version is found, the process ends, or the backlog overflows.
    pub(super) fn settle_later(self: &Arc<Self>, claim: Claim, version: Version, next: Option<Write>) {
        let mut held = self.backlog.hold();
        if !held.grow(bytes(next.as_ref())) {
            tracing::error!(
                record = %claim.id.short(), route = %claim.route,
                "too many outcomes wait for the store; this one is given up, and its record will read as unknown"
            );
            return;
        }
        let desk = Arc::clone(self);
        self.background.spawn(async move {
            let _held = held;
            let mut pause = PAUSE;
            let settled = loop {
                tokio::select! {
                    biased;
                    () = desk.drain_ended() => {
                        tracing::error!(record = %claim.id.short(), "an outcome was not stored before the end");
                        return;
                    }
                    () = sleep(pause) => {}
                }
                match desk.write(&claim, version, &next).await {
                    Ok(settled) => break settled,
                    Err(error) => {
                        tracing::debug!(record = %claim.id.short(), %error, "an outcome still waits for the store");
                        pause = (pause * 2).min(PAUSE_MOST);
                    }
                }
            };
            if settled.is_written() && claim.has_lapsed() {
                Counters::count(&desk.counters().settled_late);
            }
            tracing::info!(record = %claim.id.short(), route = %claim.route, ?settled, "an outcome reached the store");
        });
    }

    /// Settles a claim that may not exist, for a request that was forwarded all the same (`on_store_down = "forward"`).
    pub fn settle_uncertain(self: &Arc<Self>, claim: Claim, record: Option<Record<Stored>>) {
        let next = claim.settlement(record);
        self.settle_later(claim, draw_version(), next);
    }

    /// Takes exactly this claim's version back, in the background, until the store says that it is gone.
    pub fn withdraw(self: &Arc<Self>, mut claim: Claim) {
        claim.disown();
        let desk = Arc::clone(self);
        self.background.spawn(async move {
            let release = draw_version();
            let mut pause = PAUSE;
            let mut seen_gone = 0;
            loop {
                match desk.store.swap(&claim.id, Expect::Version(claim.version), release, None).await {
                    Ok(Swap::Done | Swap::DoneNotKept) => {
                        tracing::info!(record = %claim.id.short(), "a claim of uncertain fate was taken back");
                        return Counters::count(&desk.counters().claims_abandoned_ok);
                    }
                    Ok(Swap::Stale(_)) if seen_gone == LOOKS => {
                        return Counters::count(&desk.counters().claims_abandoned_refused);
                    }
                    Ok(Swap::Stale(_)) => seen_gone += 1,
                    Err(_) => seen_gone = 0,
                }
                tokio::select! {
                    biased;
                    () = desk.drain_ended() => return Counters::count(&desk.counters().claims_abandoned_failed),
                    () = sleep(pause) => pause = (pause * 2).min(PAUSE_MOST),
                }
            }
        });
    }
}

fn bytes(next: Option<&Write>) -> u64 {
    let stored = match next.map(|write| &write.record) {
        Some(Record::Completed { response, .. }) => response.as_bytes().len(),
        Some(Record::InFlight { .. } | Record::Unknown { .. }) | None => 0,
    };
    // Beside the answer, what the claim itself takes.
    stored as u64 + 256
}
