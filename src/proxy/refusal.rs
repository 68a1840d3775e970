//! Refusals: a problem of the contract's section 6, as a response in the route's format.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    body::Payload,
    headers::{IDEMPOTENCY_STATUS, STRIPE_SHOULD_RETRY},
};
use crate::rule::{
    Outcome, Policy, RecordId,
    policy::ErrorFormat,
    problem::{Executed, Problem, Retry},
};

/// A refusal on its way to becoming a response.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    /// Where the problem's own status does not hold.
    status: Option<StatusCode>,
    record: Option<RecordId>,
    /// Whole seconds, where the problem's own do not hold.
    retry_after: Option<u64>,
    /// What went wrong, where the problem's own sentence is too general.
    detail: Option<String>,
    original_status: Option<u16>,
    location: Option<HeaderValue>,
    /// `on_unknown = "retry"`: an unknown outcome may be run anew.
    runs_anew: bool,
    /// A request that was never meant to be guarded.
    passed: bool,
    /// Where the problem's own word on it does not hold.
    executed: Option<Executed>,
    /// For metrics and the access line, where the problem's code is too general.
    pub(crate) reason: &'static str,
    /// For the access line, what was wrong with the request.
    pub(crate) cause: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(problem: Problem) -> Self {
        Self {
            problem,
            status: None,
            record: None,
            retry_after: None,
            detail: None,
            original_status: None,
            location: None,
            runs_anew: false,
            passed: matches!(problem, Problem::UpstreamFailed | Problem::NoRoute),
            executed: None,
            reason: problem.code(),
            cause: None,
        }
    }

    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    pub(crate) fn record(mut self, record: RecordId) -> Self {
        self.record = Some(record);
        self
    }

    /// Half the owner's age, clamped to 1–10, whole seconds.
    pub(crate) fn owner_age(mut self, running: std::time::Duration) -> Self {
        self.retry_after = Some((running.as_secs() / 2).clamp(1, 10));
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn original(mut self, status: u16, location: Option<HeaderValue>) -> Self {
        self.original_status = Some(status);
        self.location = location;
        self
    }

    pub(crate) fn runs_anew(mut self, runs_anew: bool) -> Self {
        self.runs_anew = runs_anew;
        self
    }

    pub(crate) fn passed(mut self) -> Self {
        self.passed = true;
        self
    }

    /// Of a request that had begun to stream through: an upstream that reads as it goes may have acted on what it had.
    pub(crate) fn begun(self) -> Self {
        self.executed(Executed::Maybe)
    }

    pub(crate) fn executed(mut self, executed: Executed) -> Self {
        self.executed = Some(executed);
        self
    }

    pub(crate) fn reason(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }

    /// Without quoting the request: a log line is no place for what a client sent.
    pub(crate) fn because(mut self, cause: &'static str) -> Self {
        self.cause = Some(cause);
        self
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match self.problem {
            Problem::UpstreamFailed => Outcome::Failed,
            Problem::UpstreamUnreachable | Problem::UpstreamConnectTimeout if self.passed => Outcome::Failed,
            Problem::UpstreamUnreachable | Problem::UpstreamConnectTimeout => Outcome::Released,
            Problem::InFlight | Problem::StillRunning => Outcome::InFlight,
            Problem::OutcomeUnknown => Outcome::Unknown,
            Problem::ResponseNotKept => Outcome::NotKept,
            Problem::KeyMissing
            | Problem::KeyMalformed
            | Problem::ScopeMissing
            | Problem::ScopeUnstable
            | Problem::BadRequest
            | Problem::KeyReused
            | Problem::Duplicate
            | Problem::BodyTooLarge
            | Problem::TooEarly
            | Problem::StoreUnavailable
            | Problem::Overloaded
            | Problem::StoreFull
            | Problem::Draining
            | Problem::NoRoute => Outcome::Rejected,
        }
    }

    /// The response, in the policy's format.
    pub(crate) fn render(self, policy: &Policy) -> Response<Payload> {
        let row = self.problem.row();
        let format = policy.error_format;
        let status = self.status.unwrap_or_else(|| {
            let status = match (self.problem, format) {
                (Problem::KeyReused, ErrorFormat::Stripe) => 400,
                _ => row.status,
            };
            StatusCode::from_u16(status).expect("the table has valid statuses")
        });
        let (retry, retry_after) = if self.runs_anew && self.problem == Problem::OutcomeUnknown {
            (Some(Retry::Safe), Some(1))
        } else {
            (row.retry, self.retry_after.or(row.retry_after))
        };
        let outcome = self.outcome();
        let (content_type, body) = match format {
            ErrorFormat::Problem => ("application/problem+json", self.problem_json(status, retry)),
            ErrorFormat::Stripe => ("application/json", self.stripe_json(status)),
        };
        let mut response = Response::new(Payload::whole(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let (ErrorFormat::Stripe, Some(retry)) = (format, retry) {
            let should = if retry == Retry::Never { "false" } else { "true" };
            headers.insert(STRIPE_SHOULD_RETRY, HeaderValue::from_static(should));
        }
        if let Some(url) = policy.docs_url.as_deref()
            && let Ok(link) = HeaderValue::try_from(format!("<{url}>; rel=\"describedby\""))
        {
            headers.insert(header::LINK, link);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110 s15.5.6. Other methods are as good as the upstream says.
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if let Some(location) = self.location {
            headers.insert(header::LOCATION, location);
        }
        if !self.passed
            && let Some(field) = outcome.field(false)
        {
            headers.insert(IDEMPOTENCY_STATUS, field);
        }
        response
    }

    fn sentence(&self) -> &str {
        let runs_anew = self.runs_anew && self.problem == Problem::OutcomeUnknown;
        match &self.detail {
            Some(detail) => detail,
            None if runs_anew => {
                "The request was sent on and no whole answer came; this route runs it anew when it is repeated with the same key."
            }
            None => self.problem.row().detail,
        }
    }

    fn instance(&self) -> Option<String> {
        self.record.map(|id| format!("urn:oncegate:record:{}", id.short()))
    }

    fn problem_json(&self, status: StatusCode, retry: Option<Retry>) -> Value {
        let row = self.problem.row();
        let mut members = Map::new();
        members.insert("type".into(), json!(format!("urn:oncegate:problem:{}", row.code)));
        members.insert("title".into(), json!(row.title));
        members.insert("status".into(), json!(status.as_u16()));
        members.insert("detail".into(), json!(self.sentence()));
        members.insert("code".into(), json!(row.code));
        if let Some(executed) = self.executed.or(row.executed) {
            members.insert("executed".into(), json!(executed.as_str()));
        }
        if let Some(retry) = retry {
            members.insert("retry".into(), json!(retry.as_str()));
        }
        if let Some(instance) = self.instance() {
            members.insert("instance".into(), json!(instance));
        }
        if let Some(original) = self.original_status {
            members.insert("original_status".into(), json!(original));
        }
        Value::Object(members)
    }

    fn stripe_json(&self, status: StatusCode) -> Value {
        let kind = if self.problem == Problem::KeyReused {
            "idempotency_error"
        } else if status == StatusCode::CONFLICT || status.is_server_error() {
            "api_error"
        } else {
            "invalid_request_error"
        };
        json!({"error": {"type": kind, "code": self.problem.code(), "message": self.sentence()}})
    }
}
