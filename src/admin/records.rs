//! Lists and shows records, and finds the one that an operator means.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Admin,
    answer::{Answer, Problem},
    view,
};
use crate::{
    config,
    rule::{RecordId, RouteName, record::ShortId},
    store::{Details, Filter, State, Store, StoreError},
};

/// Records on a page, where the caller does not say.
const PAGE: usize = 100;
/// The most that a caller may ask for.
const PAGE_MOST: usize = 1000;

impl<S: Store> Admin<S> {
    pub(super) async fn list(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let Asked { filter, limit, after } = Asked::parse(query.unwrap_or_default())?;
        let page = self.store.list(&filter, after.as_deref(), limit).await.map_err(|error| match &error {
            StoreError::Refused(_) if after.is_some() && self.store.figures().up => {
                Problem::bad_request(format!("`after` is not the `next` of a page: {error}."))
            }
            StoreError::Full | StoreError::Refused(_) | StoreError::Damaged(_) | StoreError::Unknown(_) => {
                unavailable(&error)
            }
        })?;
        let records: Vec<Value> = page.records.iter().map(|(id, details)| view::record(id, details)).collect();
        Ok(Answer::json(&json!({ "records": records, "next": page.next })))
    }

    pub(super) async fn show(&self, name: &str) -> Result<Answer, Problem> {
        let (id, details) = self.named(name).await?;
        Ok(Answer::record(&view::record(&id, &details)))
    }

    /// The record of that name: all its digits, or the first 16.
    ///
    /// # Errors
    ///
    /// 404 when there is none, 409 when several begin so.
    pub(super) async fn named(&self, name: &str) -> Result<(RecordId, Details), Problem> {
        let id = self.id(name).await?;
        Ok((id, self.details(&id).await?.ok_or_else(absent)?))
    }

    /// The same, whether or not it can be read.
    pub(super) async fn id(&self, name: &str) -> Result<RecordId, Problem> {
        let ids = if let Ok(id) = name.parse::<RecordId>() {
            vec![id]
        } else if let Ok(short) = name.parse::<ShortId>() {
            self.store.find(short).await.map_err(|error| unavailable(&error))?
        } else {
            return Err(Problem::not_found("A record is named by 64 hex digits, or by its first 16."));
        };
        match ids[..] {
            [] => Err(absent()),
            [id] => Ok(id),
            [_, _, ..] => {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                let detail = "Several records begin with these digits: name one by all of its own.";
                Err(Problem::new(StatusCode::CONFLICT, detail).with("ids", ids))
            }
        }
    }

    pub(super) async fn details(&self, id: &RecordId) -> Result<Option<Details>, Problem> {
        self.store.details(id).await.map_err(|error| unavailable(&error))
    }
}

pub(super) fn absent() -> Problem {
    Problem::not_found("There is no such record: it never was, was freed, or its retention is over.")
}

/// A store that could not be asked. Where nobody can tell what it did, that is said.
pub(super) fn unavailable(error: &StoreError) -> Problem {
    let detail = match error {
        StoreError::Full | StoreError::Refused(_) => format!("Nothing was changed: {error}."),
        StoreError::Damaged(_) => {
            let detail = format!("Nothing was changed: {error}. Forgetting it with force=true throws it away.");
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).with("damaged", true);
        }
        StoreError::Unknown(_) => format!("Look again before repeating a change, which may have happened: {error}."),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

/// What a list is asked for.
#[derive(Debug)]
struct Asked {
    filter: Filter,
    limit: usize,
    after: Option<String>,
}

impl Asked {
    /// A parameter that is not known is an error: a mistyped filter would show, and then change, too much.
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut asked = Self { filter: Filter::default(), limit: PAGE, after: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "state" => asked.filter.state = Some(state(&value)?),
                "route" => asked.filter.route = Some(RouteName(value.into())),
                "older" => asked.filter.older = Some(duration(&value)?),
                "limit" => asked.limit = limit(&value)?,
                "after" => asked.after = Some(value).filter(|after| !after.is_empty()).map(Cow::into_owned),
                _ => return Err(Problem::bad_request("A list takes state, route, older, limit and after.")),
            }
        }
        Ok(asked)
    }
}

fn state(text: &str) -> Result<State, Problem> {
    let named = State::ALL.into_iter().find(|state| state.as_str() == text);
    named.ok_or_else(|| Problem::bad_request("`state` is in_flight, completed or unknown."))
}

fn duration(text: &str) -> Result<Duration, Problem> {
    config::duration(text).map_err(|_| {
        Problem::bad_request("`older` is a duration with its unit, one of ms, s, m, h, d: such as 10m or 2h.")
    })
}

fn limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=PAGE_MOST).contains(limit));
    limit.ok_or_else(|| Problem::bad_request(format!("`limit` is a number from 1 to {PAGE_MOST}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_it_filters_by() {
        let Asked { filter, limit, after } =
            Asked::parse("state=unknown&route=create+charge&older=10m&limit=7&after=3-4").unwrap();
        assert_eq!(filter.state, Some(State::Unknown));
        assert_eq!(filter.route, Some(RouteName("create charge".into())));
        assert_eq!(filter.older, Some(Duration::from_secs(600)));
        assert_eq!((limit, after.as_deref()), (7, Some("3-4")));
        let Asked { filter, limit, after } = Asked::parse("after=").unwrap();
        assert!(filter.state.is_none() && filter.route.is_none() && filter.older.is_none());
        assert_eq!((limit, after), (PAGE, None));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for query in
            ["state=lost", "sate=unknown", "limit=0", "limit=1001", "limit=-1", "older=10", "older=x", "older=10M"]
        {
            assert!(Asked::parse(query).is_err(), "{query}");
        }
    }
}
