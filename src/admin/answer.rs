//! Answers of the admin API: JSON documents, and RFC 9457 problems.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Map, Value};

/// What a caller gets.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    /// The version of the record that the answer shows.
    version: Option<String>,
    body: String,
}

impl Answer {
    pub(super) fn json(value: &Value) -> Self {
        // A newline, so that a terminal's prompt begins a line of its own.
        Self { status: StatusCode::OK, content_type: "application/json", version: None, body: format!("{value}\n") }
    }

    /// A record, with its version as its entity tag (RFC 9110 s8.8.3).
    pub(super) fn record(record: &Value) -> Self {
        Self { version: record["version"].as_str().map(str::to_owned), ..Self::json(record) }
    }

    pub(super) fn metrics(text: String) -> Self {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Self { status: StatusCode::OK, content_type, version: None, body: text }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let Self { status, content_type, version, body } = self;
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        // What is true of a record now may not be so at the next request.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(tag) = version.and_then(|version| HeaderValue::try_from(format!("\"{version}\"")).ok()) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

/// Why a caller does not get what it asked for: `type`, `title`, `status`, `detail`, and members of the case.
#[derive(Debug)]
#[must_use]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    members: Vec<(&'static str, Value)>,
    /// Boxed, so that results are small.
    field: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Problem {
    /// `detail` is a sentence.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Vec::new(), field: None }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// Adds a sentence.
    pub(super) fn and(mut self, sentence: &str) -> Self {
        self.detail.push(' ');
        self.detail.push_str(sentence);
        self
    }

    /// Adds a member that programs may read.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// Adds a header field.
    pub(super) fn field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.field = Some(Box::new((name, value)));
        self
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let Self { status, detail, members, field } = self;
        let mut document = Map::new();
        // The status says all that a type would (RFC 9457 s4.2.1).
        document.insert("type".to_owned(), "about:blank".into());
        document.insert("title".to_owned(), status.canonical_reason().unwrap_or_default().into());
        document.insert("status".to_owned(), status.as_u16().into());
        document.insert("detail".to_owned(), detail.into());
        document.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let content_type = "application/problem+json";
        let body = format!("{}\n", Value::Object(document));
        let mut response = Answer { status, content_type, version: None, body }.into_response();
        if let Some((name, value)) = field.map(|field| *field) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
