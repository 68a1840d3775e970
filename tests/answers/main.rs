//! Answers that can be read in two ways, over sockets: never taken, never stored, never told as good.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod bad;
mod harness;
