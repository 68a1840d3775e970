//! What the rule reads of a request's head.

use http::{HeaderMap, Method};

/// A request's head as the client sent it, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The method; names are case-sensitive.
    pub method: &'a Method,
    /// The path, as sent.
    pub path: &'a str,
    /// What follows the first `?`, as sent; `None` and empty differ.
    pub query: Option<&'a str>,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// The subject of a client certificate that was verified.
    pub tls_subject: Option<&'a str>,
}
