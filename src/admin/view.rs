//! What operators see of a record. Never its key, its caller, or what was answered.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    rule::{Record, RecordId, UnknownReason},
    store::{Details, State},
};

/// A record as JSON (contract: section 9).
pub(super) fn record(id: &RecordId, Details { cell, replays }: &Details) -> Value {
    let mut view = Map::new();
    let mut member = |name: &str, value: Value| _ = view.insert(name.to_owned(), value);
    let state = State::of(cell);
    member("id", id.to_string().into());
    member("state", state.as_str().into());
    member("route", cell.route.to_string().into());
    member("version", cell.version.to_string().into());
    // An owner writes again and again: what is asked of its record is since when it is at work.
    let age = if state == State::InFlight { State::age(cell) } else { cell.age };
    member("age_seconds", seconds(age));
    member("expires_in_seconds", seconds(cell.left));
    match &cell.record {
        Record::InFlight { lease, .. } => match state {
            State::Unknown => member("reason", UnknownReason::Lapsed.as_str().into()),
            State::InFlight | State::Completed => {
                member("lease_left_seconds", seconds(lease.saturating_sub(cell.age)));
            }
        },
        Record::Completed { response, .. } => {
            member("status", response.status().into());
            member("kept", response.is_kept().into());
            if response.is_kept() {
                member("body_bytes", response.body_bytes().into());
            }
        }
        Record::Unknown { reason, status, .. } => {
            if let Some(status) = status {
                member("status", (*status).into());
            }
            member("reason", reason.as_str().into());
        }
    }
    member("replays", (*replays).into());
    Value::Object(view)
}

/// Seconds, to the millisecond.
fn seconds(duration: Duration) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a retention stay far below 2^52")]
    let seconds = duration.as_millis() as f64 / 1000.0;
    seconds.into()
}
