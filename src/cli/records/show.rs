//! `records list` and `records show`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Client,
    client::{record_path, target},
    put, say, table,
    target::Target,
};
use crate::{
    cli::{Exit, Failure},
    config,
    store::State,
};

/// The most that the admin API gives at once.
const PAGE: usize = 1000;

/// Arguments of `oncegate records list`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: Filter,

    /// Only records in this state, e.g. --state unknown
    #[arg(long, value_parser = ["in_flight", "completed", "unknown"])]
    state: Option<String>,

    /// How many at most, e.g. --limit 20
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,

    /// Go on behind a page: what --json gave as `next`, e.g. --after 3-128
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,

    /// Print JSON for scripts, e.g. --json | jq -r '.records[].id'
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

/// Arguments of `oncegate records show`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ShowArgs {
    /// The record: 16 or 64 hex digits, or a problem's `instance`
    id: String,

    /// Print JSON for scripts, e.g. --json | jq .state
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

/// Which records are meant.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Filter {
    /// Only records of this route, e.g. --route 'create charge'
    #[arg(long, value_name = "NAME")]
    route: Option<String>,

    /// Only records whose state is at least this old, e.g. --older 10m
    #[arg(long, value_name = "DURATION", value_parser = older)]
    older: Option<Duration>,
}

impl Filter {
    /// Whether it leaves anything out.
    pub(super) fn is_given(&self) -> bool {
        self.route.is_some() || self.older.is_some()
    }

    fn query(&self, state: Option<&str>) -> Vec<(&'static str, String)> {
        let Self { route, older } = self;
        let older = older.map(config::show_duration);
        let pairs = [("state", state.map(str::to_owned)), ("route", route.clone()), ("older", older)];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

pub(super) async fn list(ListArgs { filter, state, limit, after, json, target }: ListArgs) -> Result<Exit, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let client = target.client()?;
    let (records, next) = matching(&client, &filter, state.as_deref(), limit, after).await?;
    if json {
        put(format_args!("{:#}", json!({ "records": records, "next": next })))?;
        return Ok(Exit::Ok);
    }
    if records.is_empty() {
        none_match("No records match.", &client, &filter).await;
    } else {
        put(table::table(&records).trim_end())?;
        let more =
            next.map_or_else(String::new, |next| format!(", and there are more: see --limit, or say --after {next}"));
        say(format_args!("{}{more}.", counted(records.len())));
        note_unguarded(&client, &records).await;
    }
    Ok(Exit::Ok)
}

/// Says that nothing was found; and why, where the route's name is none of the configuration's.
pub(super) async fn none_match(what: &str, client: &Client, filter: &Filter) {
    say(what);
    let Some(route) = &filter.route else { return };
    // That the configuration cannot be seen is no reason to fail: nothing was asked of it.
    let Ok(config) = client.get("/config").await else { return };
    let names: Vec<_> = routes(&config).filter_map(|route| route["name"].as_str()).collect();
    if !names.is_empty() && !names.contains(&route.as_str()) {
        say(format_args!("The configuration has no route {route:?}; it has {}.", names.join(", ")));
    }
}

fn routes(config: &Value) -> impl Iterator<Item = &Value> {
    config["routes"].as_array().into_iter().flatten().chain([&config["fallback"]])
}

/// Says which unknown records nobody's retry meets: a record does not tell whether observing left it, but its route's mode
/// does whether anything looks at it.
pub(super) async fn note_unguarded(client: &Client, records: &[Value]) {
    let unknown = || records.iter().filter(|record| record["state"] == State::Unknown.as_str());
    if unknown().next().is_none() {
        return;
    }
    // As above.
    let Ok(config) = client.get("/config").await else { return };
    let unguarded = routes(&config).filter(|route| route["mode"] == "observe" || route["mode"] == "off");
    let names = unguarded.filter_map(|route| route["name"].as_str());
    let names: Vec<_> = names.filter(|name| unknown().any(|record| record["route"] == **name)).collect();
    if !names.is_empty() {
        let what = if names.len() == 1 { "This route does" } else { "These routes do" };
        say(format_args!(
            "{what} not enforce: {}.\n\
             Unknown records there were observed, or are left from before: no retry is\n\
             refused or answered by them.",
            names.join(", ")
        ));
    }
}

pub(super) async fn show(ShowArgs { id, json, target }: ShowArgs) -> Result<Exit, Failure> {
    let given = target.given();
    let client = target.client()?;
    let record = client.get(&record_path(&id)?).await?;
    print(&client, &record, &given, json).await?;
    Ok(Exit::Ok)
}

/// Shows one record, and what can be done about it by commands that are `given` the same flags.
pub(super) async fn print(client: &Client, record: &Value, given: &str, json: bool) -> Result<(), Failure> {
    if json {
        return put(format_args!("{record:#}"));
    }
    put(table::lines(record).trim_end())?;
    if record["state"] == State::Unknown.as_str() {
        say(format_args!(
            "\nLook in the upstream whether it was executed. If it was, its retries are told so:\n  \
             oncegate records resolve {id} --executed{given}\n\
             If it was not, its next retry runs it:\n  \
             oncegate records resolve {id} --not-executed{given}",
            id = super::short(record)
        ));
        note_unguarded(client, std::slice::from_ref(record)).await;
    }
    Ok(())
}

/// A duration as the configuration has it.
fn older(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|wrong| wrong.help)
}

/// At most `limit` records that match, behind the cursor `after`; and the cursor of more, if there are any.
pub(super) async fn matching(
    client: &Client,
    filter: &Filter,
    state: Option<&str>,
    limit: usize,
    mut after: Option<String>,
) -> Result<(Vec<Value>, Option<String>), Failure> {
    let mut records: Vec<Value> = Vec::new();
    loop {
        let mut query = filter.query(state);
        query.push(("limit", (limit - records.len()).min(PAGE).to_string()));
        query.extend(after.map(|after| ("after", after)));
        let mut page = client.get(&target("/records", query)).await?;
        match page["records"].take() {
            Value::Array(found) => records.extend(found),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {}
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() || records.len() >= limit {
            return Ok((records, after));
        }
    }
}

/// A number of records in words.
pub(super) fn counted(records: usize) -> String {
    if records == 1 { "1 record".to_owned() } else { format!("{records} records") }
}
