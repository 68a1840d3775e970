//! The operator's hand on a record: resolve what is unknown, forget what should not be. Each is one swap of the version
//! that was looked at, so that nobody changes what somebody else has just written.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{
    Admin, Call,
    answer::{Answer, Problem},
    base64,
    records::{absent, unavailable},
    view,
};
use crate::{
    rule::{Cell, Expect, Policy, Record, RecordId, Stored, Version, policy::KeySource},
    store::{State, Store, StoreError, Swap, Write},
    telemetry::metrics::OperatorChange,
};

/// The state of a record that there is not.
const ABSENT: &str = "absent";

/// How often a change without `If-Match` looks anew when the record moves under it.
const TRIES: usize = 5;

/// What an operator found out about an unknown request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolution {
    executed: bool,
    /// The status that was answered, where no more is known of the answer.
    status: Option<u16>,
    response: Option<Given>,
}

/// An answer as an operator gives it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body: Option<String>,
    body_base64: Option<String>,
}

/// What is to be done to a record.
enum Change {
    /// Only from unknown: frees the key.
    NotExecuted,
    /// Only from unknown.
    Executed(Box<Executed>),
    /// From any state, but from in flight only with force.
    Forget { force: bool },
}

/// What came of a request, before it is known which route's policy keeps it.
struct Executed {
    status: u16,
    /// `None`: the answer is not known.
    whole: Option<(HeaderMap, Bytes)>,
}

impl<S: Store> Admin<S> {
    pub(super) async fn resolve(&self, name: &str, call: &Call<'_>) -> Result<Answer, Problem> {
        let resolution: Resolution = serde_json::from_slice(call.body).map_err(|error| {
            Problem::bad_request(format!("The body is {{\"executed\": true or false, \"response\"?}}: {error}."))
        })?;
        self.change(name, &resolution.change()?, call).await
    }

    pub(super) async fn forget(&self, name: &str, call: &Call<'_>) -> Result<Answer, Problem> {
        self.change(name, &Change::Forget { force: force(call.query.unwrap_or_default())? }, call).await
    }

    async fn change(&self, name: &str, change: &Change, call: &Call<'_>) -> Result<Answer, Problem> {
        let id = self.id(name).await?;
        let details = match (self.store.details(&id).await, change) {
            (Err(StoreError::Damaged(why)), Change::Forget { force: true }) => {
                return self.discard(&id, &why, call).await;
            }
            (details, _) => details.map_err(|error| unavailable(&error))?.ok_or_else(absent)?,
        };
        let mut cell = details.cell;
        for _ in 0..TRIES {
            if !call.if_match.is_none_or(|tags| matches_tag(tags, cell.version)) {
                return Err(moved_on(&cell));
            }
            let next = self.next(change, &cell)?;
            let version = fresh_version()?;
            let swap = self.store.swap(&id, Expect::Version(cell.version), version, next).await;
            match swap.map_err(|error| unavailable(&error))? {
                swap @ (Swap::Done | Swap::DoneNotKept) => {
                    change.log(&id, &cell, swap == Swap::Done, call);
                    self.process.changed(change.kind());
                    return Ok(self.changed(&id, &cell, change).await);
                }
                Swap::Stale(None) => return Err(absent()),
                // An owner renewed its lease, or somebody settled the record: decide anew by what it is now.
                Swap::Stale(Some(now)) => cell = now,
            }
        }
        Err(Problem::new(StatusCode::CONFLICT, "The record keeps changing; nothing was done to it.")
            .with("state", State::of(&cell).as_str()))
    }

    /// Throws away what cannot be read (S-6): nobody knows what became of its request, so only with force.
    async fn discard(&self, id: &RecordId, why: &str, call: &Call<'_>) -> Result<Answer, Problem> {
        let not_done = |status, what| Err(Problem::new(status, format!("{what}; nothing was done to it.")));
        if call.if_match.is_some_and(|tags| tags.trim_ascii() != b"*") {
            return not_done(StatusCode::PRECONDITION_FAILED, "What is held for the record has no version");
        }
        if !self.store.discard(id).await.map_err(|error| unavailable(&error))? {
            return not_done(StatusCode::CONFLICT, "What is held for the record has changed meanwhile");
        }
        let (who, record) = (&call.caller, id.short());
        tracing::info!(%who, %record, why, "an operator threw away what could not be read: its key is free");
        self.process.changed(OperatorChange::Forgotten);
        Ok(Answer::json(&json!({ "id": id.to_string(), "state": ABSENT, "was": "damaged" })))
    }

    /// What is written in the place of `cell`; `None` frees the key.
    fn next(&self, change: &Change, cell: &Cell<Stored>) -> Result<Option<Write>, Problem> {
        let state = State::of(cell);
        match (change, state) {
            (Change::NotExecuted, State::Unknown) => Ok(None),
            (Change::Executed(executed), State::Unknown) => {
                let config = self.process.config();
                let route = config.routes.iter().chain(&config.fallback).find(|route| route.name == cell.route);
                let policy = route.map_or_else(Policy::default, |route| route.policy.clone());
                let record =
                    Record::Completed { fingerprint: cell.record.fingerprint(), response: executed.stored(&policy)? };
                Ok(Some(Write { record, keep: retention(&policy, cell), route: cell.route.clone() }))
            }
            (Change::NotExecuted | Change::Executed(_), State::InFlight | State::Completed) => {
                Err(conflict(state, "Only an unknown record can be resolved"))
            }
            (Change::Forget { force: false }, State::InFlight) => Err(conflict(
                state,
                "An owner is at work, and forgetting lets a retry run the request again; to do so all the same, say force=true",
            )),
            (Change::Forget { .. }, State::Completed | State::Unknown)
            | (Change::Forget { force: true }, State::InFlight) => Ok(None),
        }
    }

    /// What the record is after the change; one that was freed is absent. The change was made: that the store cannot
    /// show what came of it is no reason to call it failed.
    async fn changed(&self, id: &RecordId, was: &Cell<Stored>, change: &Change) -> Answer {
        let state = match change {
            Change::NotExecuted | Change::Forget { .. } => ABSENT,
            Change::Executed(_) => match self.store.details(id).await {
                Ok(Some(details)) => return Answer::record(&view::record(id, &details)),
                // Forgotten meanwhile.
                Ok(None) => ABSENT,
                Err(_) => State::Completed.as_str(),
            },
        };
        Answer::json(&json!({ "id": id.to_string(), "state": state, "was": State::of(was).as_str() }))
    }
}

impl Change {
    fn kind(&self) -> OperatorChange {
        match self {
            Self::NotExecuted => OperatorChange::ResolvedNotExecuted,
            Self::Executed(_) => OperatorChange::ResolvedExecuted,
            Self::Forget { .. } => OperatorChange::Forgotten,
        }
    }

    /// Who did what to which record; never what was answered.
    fn log(&self, id: &RecordId, was: &Cell<Stored>, had_room: bool, call: &Call<'_>) {
        let (who, record, route, was) = (&call.caller, id.short(), &was.route, State::of(was).as_str());
        match self {
            Self::NotExecuted => {
                tracing::info!(%who, %record, %route, was, "an operator resolved a record as not executed: its key is free");
            }
            Self::Executed(executed) => {
                let (status, kept) = (executed.status, executed.whole.is_some() && had_room);
                tracing::info!(%who, %record, %route, was, status, kept, "an operator resolved a record as executed");
            }
            Self::Forget { force } => {
                tracing::info!(%who, %record, %route, was, force, "an operator made a record be forgotten: its key is free");
            }
        }
    }
}

impl Resolution {
    fn change(self) -> Result<Change, Problem> {
        let Self { executed, status, response } = self;
        match (executed, response) {
            (false, None) if status.is_none() => Ok(Change::NotExecuted),
            (false, _) => Err(Problem::bad_request("What was not executed has no answer.")),
            (true, None) => {
                // 200 says no more than that it was executed.
                let status = final_status(status.unwrap_or(200))?;
                Ok(Change::Executed(Box::new(Executed { status, whole: None })))
            }
            (true, Some(_)) if status.is_some() => {
                Err(Problem::bad_request("The answer's status stands in `response`."))
            }
            (true, Some(given)) => given.executed().map(|executed| Change::Executed(Box::new(executed))),
        }
    }
}

impl Given {
    fn executed(self) -> Result<Executed, Problem> {
        let Self { status, headers: given, body, body_base64 } = self;
        let status = final_status(status)?;
        let body = match (body, body_base64) {
            (Some(_), Some(_)) => return Err(Problem::bad_request("An answer has `body` or `body_base64`, not both.")),
            (Some(text), None) => Bytes::from(text),
            (None, Some(text)) => base64::decode(&text)
                .map_err(|error| Problem::bad_request(format!("`body_base64` is {error}.")))?
                .into(),
            (None, None) => Bytes::new(),
        };
        // RFC 9110 s15.3.5, s15.3.6, s15.4.5.
        if matches!(status, 204 | 205 | 304) && !body.is_empty() {
            return Err(Problem::bad_request(format!("An answer of status {status} has no body.")));
        }
        let mut headers = HeaderMap::with_capacity(given.len());
        for (name, value) in given {
            let name = HeaderName::try_from(&name)
                .map_err(|_| Problem::bad_request(format!("{name:?} is no name of a header field.")))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| Problem::bad_request(format!("The value of {name} has bytes that no field may have.")))?;
            // The replay is framed by the body that is there, whatever the operator copied.
            if !matches!(name, header::CONTENT_LENGTH | header::TRAILER) {
                headers.append(name, value);
            }
        }
        Ok(Executed { status, whole: Some((headers, body)) })
    }
}

impl Executed {
    /// As the route keeps answers.
    fn stored(&self, policy: &Policy) -> Result<Stored, Problem> {
        match &self.whole {
            None => Ok(Stored::not_kept(self.status, &HeaderMap::new())),
            Some((_, body)) if body.len() as u64 > policy.max_response_body => Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "The answer's body is longer than the route's max_response_body, {}.",
                    policy.max_response_body
                ),
            )),
            Some((headers, body)) => Ok(Stored::keep(policy, self.status, headers, std::slice::from_ref(body))),
        }
    }
}

/// How long the answer is kept. A record that was to be forgotten with a content key's window still is: beyond it
/// the same content is meant as another request.
fn retention(policy: &Policy, cell: &Cell<Stored>) -> Duration {
    const ROUNDING: Duration = Duration::from_secs(1);
    let kept = cell.age + cell.left;
    policy
        .key
        .iter()
        .find_map(|source| match source {
            KeySource::Content { window } if kept.abs_diff(*window) <= ROUNDING => Some(*window),
            KeySource::Content { .. }
            | KeySource::Header(_)
            | KeySource::Query(_)
            | KeySource::Json(_)
            | KeySource::Form(_)
            | KeySource::Composite(_) => None,
        })
        .unwrap_or(policy.retention)
}

/// Interim answers are no outcome (RFC 9110 s15).
fn final_status(status: u16) -> Result<u16, Problem> {
    if (200..=599).contains(&status) {
        Ok(status)
    } else {
        Err(Problem::bad_request("`status` is that of a final answer, 200 to 599."))
    }
}

fn force(query: &str) -> Result<bool, Problem> {
    let mut force = false;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        force = match (&*name, &*value) {
            ("force", "true") => true,
            ("force", "false") => false,
            _ => return Err(Problem::bad_request("Forgetting takes force=true, and nothing else.")),
        };
    }
    Ok(force)
}

/// `If-Match` (RFC 9110 s13.1.1): `*`, or a list of versions, quoted or bare.
fn matches_tag(tags: &[u8], version: Version) -> bool {
    let version = version.to_string();
    let Ok(tags) = std::str::from_utf8(tags) else { return false };
    tags.split(',').map(|tag| tag.trim().trim_matches('"')).any(|tag| tag == "*" || tag.eq_ignore_ascii_case(&version))
}

fn fresh_version() -> Result<Version, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("No version can be drawn: {error}."))
    })?;
    Ok(Version(bytes))
}

fn conflict(state: State, why: &str) -> Problem {
    let state = state.as_str();
    Problem::new(StatusCode::CONFLICT, format!("{why}; this one is {state}.")).with("state", state)
}

fn moved_on(cell: &Cell<Stored>) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "The record has another version by now; nothing was done to it.")
        .with("state", State::of(cell).as_str())
        .with("version", cell.version.to_string())
}
