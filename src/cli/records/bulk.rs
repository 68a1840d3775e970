//! Resolves every unknown record that matches: shown first, confirmed, then one by one by the version that was shown.

use std::io::{self, IsTerminal as _, Write as _};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    Client, ask,
    change::resolve_path,
    put, say, short,
    show::{Filter, counted, matching, none_match, note_unguarded},
    table, text,
};
use crate::{
    cli::{Exit, Failure},
    store::State,
};

/// Records shown before the question; the rest are counted.
const SHOWN: usize = 20;

/// How it is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Only said.
    pub(super) dry_run: bool,
    /// Not asked about.
    pub(super) yes: bool,
    /// For scripts.
    pub(super) json: bool,
}

/// What came of it.
#[derive(Debug, Default)]
struct Tally {
    resolved: Vec<Value>,
    /// Settled, resolved or forgotten by somebody else meanwhile.
    moved_on: Vec<Value>,
}

pub(super) async fn resolve(
    client: &Client,
    filter: &Filter,
    resolution: &Value,
    manner: Manner,
) -> Result<Exit, Failure> {
    let Manner { dry_run, yes, json } = manner;
    let (records, _) = matching(client, filter, Some(State::Unknown.as_str()), usize::MAX, None).await?;
    let how = if resolution["executed"] == true { "executed" } else { "not executed" };
    if !json {
        announce(&records, how, dry_run)?;
        if records.is_empty() {
            none_match("No unknown records match.", client, filter).await;
        }
        note_unguarded(client, &records).await;
    }
    if dry_run || records.is_empty() {
        if json {
            let ids: Vec<&Value> = records.iter().map(|record| &record["id"]).collect();
            put(format_args!("{:#}", json!({ "would_resolve": ids })))?;
        }
        return Ok(Exit::Ok);
    }
    if !yes && !ask::confirm(&format!("Resolve {} as {how}?", counted(records.len())))? {
        return Err(Failure::new(Exit::Failure, "nothing was resolved", "it was not confirmed", ""));
    }
    let tally = one_by_one(client, &records, resolution).await?;
    if json {
        put(format_args!("{:#}", json!({ "resolved": tally.resolved, "moved_on": tally.moved_on })))?;
    } else {
        put(format_args!("{} resolved as {how}", counted(tally.resolved.len())))?;
    }
    if tally.moved_on.is_empty() {
        return Ok(Exit::Ok);
    }
    Err(Failure::new(
        Exit::Failure,
        format!("{} changed meanwhile, and were left as they are", counted(tally.moved_on.len())),
        "",
        "look at what is left with `oncegate records list --state unknown`",
    ))
}

fn announce(records: &[Value], how: &str, dry_run: bool) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    let shown = if dry_run { records.len() } else { SHOWN.min(records.len()) };
    put(table::table(&records[..shown]).trim_end())?;
    if shown < records.len() {
        put(format_args!("… and {} more", records.len() - shown))?;
    }
    if dry_run {
        say(format_args!("{} would be resolved as {how}; nothing was changed.", counted(records.len())));
    }
    Ok(())
}

async fn one_by_one(client: &Client, records: &[Value], resolution: &Value) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let is_watched = io::stderr().is_terminal();
    for (at, record) in records.iter().enumerate() {
        if is_watched {
            _ = write!(anstream::stderr(), "\r{}/{} {}", at + 1, records.len(), short(record));
        }
        let version = text(record, "version");
        match client.send(Method::POST, &resolve_path(record), Some(version), Some(resolution)).await {
            Ok(Ok(_)) => tally.resolved.push(record["id"].clone()),
            Ok(Err(refused)) => match refused.status {
                StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {
                    tally.moved_on.push(record["id"].clone());
                }
                // The next ones would fare no better.
                _ => return Err(stopped(&tally, records, &client.refused(&refused))),
            },
            Err(failure) => return Err(stopped(&tally, records, &failure)),
        }
    }
    if is_watched {
        say("");
    }
    Ok(tally)
}

/// Said after the failure itself: how far it came.
fn stopped(tally: &Tally, records: &[Value], failure: &Failure) -> Failure {
    // The exit code is that of what is said last.
    _ = failure.report();
    Failure::new(
        Exit::Failure,
        format!("stopped after {} of {}", tally.resolved.len(), counted(records.len())),
        "the one it stopped at may have been resolved, the rest were left as they are",
        "repeat the same command when the cause is gone: what is resolved is not touched again",
    )
}
