//! `records find`: the record of a request, by what its client sent.

use std::path::PathBuf;

use http::Method;
use serde_json::{Map, Value, json};

use super::{ask, client::FIND, show, target::Target};
use crate::cli::{Exit, Failure};

/// Examples of `oncegate records find`.
pub(super) const EXAMPLES: &str = "\
Examples:
  oncegate records find --route 'create charge' --authority api.example.com \\
    --key order-17 --scope 'header:authorization=Bearer abc'
  oncegate records find --request request.json

A scope value is often a secret, and command lines are seen by others: with
--request, - reads {\"route\", \"authority\", \"key\", \"scope\": {…}} from stdin.
A key made of several parts is given as several --key, in their order.";

/// Arguments of `oncegate records find`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FindArgs {
    /// The route's name, e.g. --route 'create charge'
    #[arg(long, value_name = "NAME", required_unless_present = "request")]
    route: Option<String>,

    /// The host that the client named, e.g. --authority api.example.com
    #[arg(long, value_name = "HOST")]
    authority: Option<String>,

    /// The idempotency key, e.g. --key order-17; several for one of several parts
    #[arg(long, value_name = "KEY", required_unless_present = "request")]
    key: Vec<String>,

    /// A part of the scope, e.g. --scope 'header:authorization=Bearer abc'
    #[arg(long, value_name = "PART=VALUE")]
    scope: Vec<String>,

    /// All of it as JSON, e.g. --request find.json, or - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["route", "authority", "key", "scope"])]
    request: Option<PathBuf>,

    /// Print JSON for scripts, e.g. --json | jq -r .id
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

pub(super) async fn find(args: FindArgs) -> Result<Exit, Failure> {
    let FindArgs { route, authority, key, scope, request, json, target } = args;
    let sent = match request {
        Some(file) => serde_json::from_slice(&ask::read(&file)?).map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("{} is not JSON", file.display()),
                format!("at line {}, column {}", error.line(), error.column()),
                "give {\"route\", \"authority\", \"key\", \"scope\"}",
            )
        })?,
        None => sent(route, authority, key, &scope)?,
    };
    let given = target.given();
    let client = target.client()?;
    let record = client.ask(Method::POST, FIND, None, Some(&sent)).await?;
    show::print(&client, &record, &given, json).await?;
    Ok(Exit::Ok)
}

fn sent(
    route: Option<String>,
    authority: Option<String>,
    mut key: Vec<String>,
    scope: &[String],
) -> Result<Value, Failure> {
    let key = if key.len() == 1 { key.remove(0).into() } else { Value::from(key) };
    let mut parts = Map::new();
    for part in scope {
        // Names may have no equals sign; values may.
        let (name, value) = part.split_once('=').ok_or_else(|| {
            let remedy = "say 'header:authorization=Bearer abc'";
            Failure::new(Exit::Usage, "a --scope has no value", "it is PART=VALUE", remedy)
        })?;
        parts.insert(name.trim().to_owned(), value.into());
    }
    let mut sent = json!({ "route": route, "key": key, "scope": parts });
    if let Some(authority) = authority {
        sent["authority"] = authority.into();
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_a_text_and_several_are_a_list() {
        let sent = |keys: &[&str]| {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            sent(Some("r".into()), None, keys, &["header:authorization=Basic a=b".to_owned()]).unwrap()
        };
        assert_eq!(sent(&["k"]), json!({"route": "r", "key": "k", "scope": {"header:authorization": "Basic a=b"}}));
        assert_eq!(sent(&["a", "b"])["key"], json!(["a", "b"]));
    }
}
