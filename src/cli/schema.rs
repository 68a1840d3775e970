//! `oncegate schema`: the JSON Schema of the configuration, for editors and linters.

use std::io::{self, Write};

use crate::config::schema::schema;

/// Writes the schema.
///
/// # Errors
///
/// Those of `out`.
pub fn run(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:#}", schema())
}
