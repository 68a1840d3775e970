//! What operators see: metrics, one access line a request, and events.
//!
//! A leaf: it counts and tells what it is handed, and decides nothing. Labels are route names and enums, never anything
//! that a client sent (contract: section 10); no line ever holds a key, a scope value, a query, a field value or a body.

pub mod access;
pub mod log;
pub mod metrics;
mod process;
