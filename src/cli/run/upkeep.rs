//! Looks after the store: expiry, lapsed leases, unknown records whose end is near (R-18, R-20, P-5).

use std::{process, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::Exit;
use crate::{
    proxy::Shared,
    store::{Event, Store},
};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub(super) async fn keep<S: Store>(shared: Arc<Shared<S>>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        match shared.desk.store().upkeep().await {
            Ok(events) => events.into_iter().for_each(|event| tell(&shared, event)),
            Err(error) => tracing::warn!(%error, "the store could not be looked after"),
        }
    }
}

fn tell<S: Store>(shared: &Shared<S>, event: Event) {
    match event {
        Event::Lapsed { id, route } => {
            tracing::warn!(record = %id.short(), %route, "a lease lapsed: the record reads as unknown");
            shared.metrics.lapsed(&route);
        }
        Event::UnknownExpiring { id, route, left } => tracing::warn!(
            record = %id.short(), %route, seconds_left = left.as_secs(),
            "an unknown record will be forgotten within a day; resolve it before, or its key is new again"
        ),
        Event::UnknownExpired { id, route, reason } => {
            tracing::error!(
                record = %id.short(), %route, reason = reason.as_str(),
                "an unknown record was forgotten unresolved; its key is new again"
            );
            shared.metrics.unknown_expired();
        }
        Event::Wiped => {
            tracing::error!("the store came back empty: earlier requests are forgotten and would run again");
            shared.metrics.wiped();
        }
        Event::OtherIdKey => {
            tracing::error!(
                "another id key is in use in the store: give all replicas the same store.secret_file, or this one \
                 another store.redis.prefix"
            );
            shared.log.flush();
            process::exit(Exit::Unavailable as i32);
        }
    }
}
