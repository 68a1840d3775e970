//! `records resolve` and `records forget`.

use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};

use super::{
    Client, ask, bulk,
    client::{record_path, target},
    put, say, short,
    show::Filter,
    table,
    target::Target,
    text,
};
use crate::{
    cli::{Exit, Failure},
    store::State,
};

/// Examples of `oncegate records resolve`.
pub(super) const RESOLVE_EXAMPLES: &str = "\
Examples:
  oncegate records resolve 0123456789abcdef --not-executed
  oncegate records resolve 0123456789abcdef --executed --response answer.json
  oncegate records resolve 0123456789abcdef --executed --response charge.json \\
    --status 201 -H 'Content-Type: application/json'
  oncegate records resolve --route 'create charge' --older 10m \\
    --not-executed --dry-run

--not-executed frees the key: the next retry runs the request. --executed
completes the record: retries get the answer given, or are told that it was not
kept. An answer is {\"status\", \"headers\", \"body\" or \"body_base64\"}, or, with
--status, the file is the body itself.";

/// Arguments of `oncegate records resolve`.
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("outcome").args(["executed", "not_executed"]).required(true))]
pub(super) struct ResolveArgs {
    /// The record: 16 or 64 hex digits, or a problem's `instance`; without it, every
    /// unknown one that matches
    #[arg(conflicts_with_all = ["state", "route", "older"])]
    id: Option<String>,

    /// It was executed: retries get its answer
    #[arg(long)]
    executed: bool,

    /// It was not executed: the key is free, and the next retry runs the request
    #[arg(long)]
    not_executed: bool,

    /// The answer, e.g. --response answer.json, or - for stdin
    #[arg(long, value_name = "FILE", requires = "executed", conflicts_with = "not_executed")]
    response: Option<PathBuf>,

    /// The answer's status, e.g. --status 201; the response file is its body then
    #[arg(long, value_name = "CODE", requires = "executed", conflicts_with = "not_executed", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Option<u16>,

    /// A field of the answer, with --status, e.g. -H 'Content-Type: text/plain'
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", requires = "status", requires = "response")]
    headers: Vec<String>,

    /// Only records in this state; there is but one that can be resolved
    #[arg(long, value_parser = ["unknown"])]
    state: Option<String>,

    #[command(flatten)]
    filter: Filter,

    /// Only say what would be resolved, e.g. --older 10m --not-executed --dry-run
    #[arg(long)]
    dry_run: bool,

    /// Do not ask before resolving several, e.g. --state unknown --not-executed --yes
    #[arg(short, long)]
    yes: bool,

    /// Print JSON for scripts
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

/// Arguments of `oncegate records forget`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ForgetArgs {
    /// The record: 16 or 64 hex digits, or a problem's `instance`
    id: String,

    /// Also while its request is under way, e.g. forget 0123456789abcdef --force
    #[arg(long)]
    force: bool,

    /// Print JSON for scripts
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

pub(super) async fn resolve(args: ResolveArgs) -> Result<Exit, Failure> {
    let ResolveArgs {
        id,
        executed,
        not_executed: _,
        response,
        status,
        headers,
        state,
        filter,
        dry_run,
        yes,
        json,
        target,
    } = args;
    let resolution = resolution(executed, response, status, &headers)?;
    let client = target.client()?;
    match id {
        Some(id) => one(&client, &id, &resolution, dry_run, json).await,
        None if state.is_some() || filter.is_given() => {
            bulk::resolve(&client, &filter, &resolution, bulk::Manner { dry_run, yes, json }).await
        }
        None => Err(Failure::new(
            Exit::Usage,
            "it is not said what to resolve",
            "",
            "name a record, or those to resolve with --route, --older or --state unknown",
        )),
    }
}

pub(super) async fn forget(ForgetArgs { id, force, json, target: at }: ForgetArgs) -> Result<Exit, Failure> {
    let client = at.client()?;
    let path = record_path(&id)?;
    // With force it need not be one that can be shown; and an owner at work renews its lease, and with it the version:
    // what would be shown here could not be what is meant.
    let record = if force { None } else { Some(client.get(&path).await?) };
    let version = record.as_ref().map(|record| text(record, "version"));
    let query = force.then(|| ("force", "true".to_owned()));
    let asked = client.send(Method::DELETE, &target(&path, query), version, None).await?;
    let changed = asked.map_err(|refused| match text(&refused.problem, "state") {
        "in_flight" if !force => Failure::new(
            Exit::Failure,
            "the record's request is under way",
            "an owner is at work, and forgetting the record lets a retry run the request again",
            "wait for its end; or say --force to forget it all the same",
        ),
        _ => client.refused(&refused),
    })?;
    told(&json!({ "id": changed["id"], "state": changed["was"] }), &changed, json)?;
    Ok(Exit::Ok)
}

async fn one(client: &Client, id: &str, resolution: &Value, dry_run: bool, json: bool) -> Result<Exit, Failure> {
    let record = client.get(&record_path(id)?).await?;
    if dry_run {
        return would(&record, resolution, json);
    }
    let version = text(&record, "version");
    let changed = client.ask(Method::POST, &resolve_path(&record), Some(version), Some(resolution)).await?;
    told(&record, &changed, json)?;
    Ok(Exit::Ok)
}

/// What a resolution would do to a record, which is left as it is.
fn would(record: &Value, resolution: &Value, json: bool) -> Result<Exit, Failure> {
    let state = text(record, "state");
    if state != State::Unknown.as_str() {
        let why = format!("only an unknown record can be resolved; this one is {state}");
        return Err(Failure::new(
            Exit::Failure,
            "the record's state would not allow that; nothing was changed",
            why,
            "",
        ));
    }
    if json {
        put(format_args!("{:#}", json!({ "would_resolve": [record["id"]] })))?;
        return Ok(Exit::Ok);
    }
    put(table::lines(record).trim_end())?;
    let what = if resolution["executed"] != true {
        "resolved as not executed: its key would be free, and its next retry would run the request"
    } else if resolution["response"].is_null() {
        "resolved as executed: its retries would be told so, without an answer"
    } else {
        "resolved as executed: its retries would get the answer given"
    };
    say(format_args!("\nIt would be {what}.\nNothing was changed."));
    Ok(Exit::Ok)
}

/// Where a record that was shown is resolved.
pub(super) fn resolve_path(record: &Value) -> String {
    format!("/records/{}/resolve", text(record, "id"))
}

fn told(was: &Value, changed: &Value, json: bool) -> Result<(), Failure> {
    let (id, before) = (short(was), text(was, "state"));
    if json {
        put(format_args!("{changed:#}"))
    } else if changed["state"] == "absent" {
        put(format_args!("{id} was {before}: its key is free"))
    } else {
        put(format_args!("{id} was {before}: now {}", text(changed, "state")))
    }
}

/// The body of a resolution (contract: section 9).
fn resolution(
    executed: bool,
    response: Option<PathBuf>,
    status: Option<u16>,
    headers: &[String],
) -> Result<Value, Failure> {
    let Some(file) = response else {
        return Ok(match status {
            Some(status) => json!({ "executed": executed, "status": status }),
            None => json!({ "executed": executed }),
        });
    };
    let bytes = ask::read(&file)?;
    let response = match status {
        None => answer(&bytes).map_err(|why| {
            Failure::new(
                Exit::Usage,
                format!("{} holds no answer", file.display()),
                why,
                "give {\"status\": 201, \"headers\": [[\"Content-Type\", \"…\"]], \"body\": \"…\"}; or, where the \
                 file is the body alone, say --status 201",
            )
        })?,
        Some(status) => {
            let headers = headers.iter().map(|line| field(line)).collect::<Result<Vec<_>, _>>()?;
            let mut response = json!({ "status": status, "headers": headers });
            match String::from_utf8(bytes) {
                Ok(text) => response["body"] = text.into(),
                Err(error) => response["body_base64"] = base64(error.as_bytes()).into(),
            }
            response
        }
    };
    Ok(json!({ "executed": executed, "response": response }))
}

/// A whole answer as JSON. A body alone is often JSON too: what it lacks and has tells it apart.
fn answer(bytes: &[u8]) -> Result<Value, String> {
    const MEMBERS: [&str; 4] = ["status", "headers", "body", "body_base64"];
    let answer: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let Some(members) = answer.as_object() else { return Err("it is JSON, but no object".to_owned()) };
    if let Some(other) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(format!("it has a member {other:?}, which an answer has not"));
    }
    if !members.contains_key("status") {
        return Err("it has no \"status\"".to_owned());
    }
    Ok(answer)
}

fn field(line: &str) -> Result<[&str; 2], Failure> {
    let (name, value) = line.split_once(':').ok_or_else(|| {
        Failure::new(Exit::Usage, "a field has no colon", "it is NAME: VALUE", "say -H 'Content-Type: text/plain'")
    })?;
    Ok([name.trim(), value.trim()])
}

/// RFC 4648 s4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { digit.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn an_answer_is_json_or_with_a_status_the_body_itself() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("answer");
        let resolved = |bytes: &[u8], status| {
            std::fs::write(&file, bytes).unwrap();
            let headers = ["X-A: 1:2".to_owned()];
            resolution(true, Some(file.clone()), status, &headers[..usize::from(status.is_some())]).ok()
        };
        assert_eq!(resolved(b"{\"status\": 204}", None), Some(json!({"executed": true, "response": {"status": 204}})));
        for none in [&b"plain"[..], b"{\"id\": 7}", b"{\"body\": \"plain\"}", b"[201]"] {
            assert_eq!(resolved(none, None), None);
        }
        let plain = json!({"status": 201, "headers": [["X-A", "1:2"]], "body": "plain"});
        assert_eq!(resolved(b"plain", Some(201)), Some(json!({"executed": true, "response": plain})));
        let binary = json!({"status": 201, "headers": [["X-A", "1:2"]], "body_base64": "/w=="});
        assert_eq!(resolved(&[0xff], Some(201)), Some(json!({"executed": true, "response": binary})));
        assert_eq!(resolution(true, None, Some(202), &[]).ok(), Some(json!({"executed": true, "status": 202})));
        assert_eq!(resolution(false, None, None, &[]).ok(), Some(json!({"executed": false})));
    }
}
