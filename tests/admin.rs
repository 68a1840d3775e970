//! The admin API over a store whose every fault is at hand, and `oncegate records` before it.
//!
//! The records are put into the store directly, so that each state is had at will: lapsed leases, ids that begin alike,
//! a store that loses replies. What the API does behind a whole Oncegate is shown by `tests/it/admin.rs`.

#![expect(clippy::unwrap_used, reason = "a step that a test cannot go on without")]

#[path = "admin/api.rs"]
mod api;
#[path = "admin/change.rs"]
mod change;
#[path = "admin/command.rs"]
mod command;
#[path = "admin/harness.rs"]
mod harness;
