//! The documentation says what is so: its tables are made from the code, its configurations pass `check`, its commands
//! are run by the real binary and print what stands there, its links lead somewhere.
//!
//! What differs is written anew by
//!
//! ```sh
//! ONCEGATE_BLESS=1 cargo test --test docs -- --test-threads 1
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod code;
mod commands;
mod configs;
mod links;
mod page;
mod scene;
mod schema;
mod tables;
mod tools;

#[path = "../../examples/api/rest.rs"]
mod rest;
