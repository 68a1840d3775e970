//! The JSON Schema of a configuration file (draft 2020-12), made from the reference.
//!
//! It refuses what its author's editor can see at once: unknown keys, wrong types, words and units. Relations between
//! keys are left to [`crate::config::load`], which says why.

use serde_json::{Map, Value, json};

use super::reference::{KeyDoc, Kind, Table, pattern};

/// A text with something of the environment in it can be anything.
const FROM_ENVIRONMENT: &str = r"\$\{";

/// The whole schema.
pub(crate) fn schema() -> Value {
    let definitions: Map<String, Value> = Table::ALL
        .into_iter()
        .filter(|table| *table != Table::Top)
        .map(|table| (definition(table).to_owned(), object(table)))
        .collect();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:oncegate:schema:configuration",
        "title": "Oncegate configuration",
    });
    if let (Value::Object(schema), Value::Object(top)) = (&mut schema, object(Table::Top)) {
        schema.extend(top);
        schema.insert("$defs".to_owned(), definitions.into());
    }
    schema
}

fn definition(table: Table) -> &'static str {
    match table {
        Table::Top => "file",
        Table::Server => "server",
        Table::ServerTls => "server-tls",
        Table::Admin => "admin",
        Table::Log => "log",
        Table::Store => "store",
        Table::StoreMemory => "store-memory",
        Table::StoreRedis => "store-redis",
        Table::Sentinel => "sentinel",
        Table::Upstream => "upstream",
        Table::UpstreamTls => "upstream-tls",
        Table::Route => "route",
        Table::Policy => "policy",
    }
}

fn reference(table: Table) -> Value {
    json!({"$ref": format!("#/$defs/{}", definition(table))})
}

fn object(table: Table) -> Value {
    let own = table.keys();
    let policy = Table::Policy.keys().filter(|_| table == Table::Route);
    let properties: Map<String, Value> = own.chain(policy).map(|doc| (doc.key.to_owned(), property(doc))).collect();
    let mut object = json!({"type": "object", "additionalProperties": false, "properties": properties});
    match table {
        Table::ServerTls => object["required"] = json!(["cert", "key"]),
        Table::Sentinel => object["required"] = json!(["master", "nodes"]),
        Table::Route => object["required"] = json!(["name", "path"]),
        Table::Upstream => {
            object["oneOf"] = json!([{"required": ["url"]}, {"required": ["urls"]}]);
        }
        Table::UpstreamTls => {
            // `dependentRequired` would be shorter, but common editors' validators know only draft 7.
            object["if"] = json!({"anyOf": [{"required": ["cert"]}, {"required": ["key"]}]});
            object["then"] = json!({"required": ["cert", "key"]});
        }
        Table::Top
        | Table::Server
        | Table::Admin
        | Table::Log
        | Table::Store
        | Table::StoreMemory
        | Table::StoreRedis
        | Table::Policy => {}
    }
    object
}

fn property(doc: &KeyDoc) -> Value {
    let mut property = json!({"description": doc.meaning});
    if let (Value::Object(property), Value::Object(values)) = (&mut property, values(doc)) {
        property.extend(values);
    }
    if let Some(default) = doc.default {
        property["default"] = json_of(default);
    }
    if !matches!(doc.kind, Kind::Table(_) | Kind::Named(_) | Kind::Tables(_)) {
        property["examples"] = json!([json_of(doc.example)]);
    }
    property
}

/// What the texts of a list look like, where that is no more than a few words; such a list is never empty.
fn items(key: &str) -> Option<&'static str> {
    match key {
        "key" => Some(r"^(header|query|json|form|content):."),
        "scope" => Some(r"^((header|cookie|query):.|tls:subject$)"),
        "fingerprint" => Some(r"^(method|path|query|content-type|body|json-body|header:.+)$"),
        "methods" | "urls" | "cluster" | "nodes" => Some("."),
        _ => None,
    }
}

fn values(doc: &KeyDoc) -> Value {
    let kind = doc.kind;
    let from_environment = json!({"type": "string", "pattern": FROM_ENVIRONMENT});
    let or_from_environment = |value: Value| json!({"anyOf": [value, from_environment]});
    let texts = match items(doc.key) {
        Some(pattern) => {
            let item = json!({"type": "string", "pattern": format!(r"{pattern}|{FROM_ENVIRONMENT}")});
            json!({"type": "array", "minItems": 1, "items": item})
        }
        None => json!({"type": "array", "items": {"type": "string"}}),
    };
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::File => json!({"type": "string", "minLength": 1}),
        Kind::Duration | Kind::Size => or_from_environment(json!({"type": "string", "pattern": pattern(kind)})),
        Kind::DurationOrOff => {
            json!({"anyOf": [{"const": "off"}, {"type": "string", "pattern": pattern(kind)}, from_environment]})
        }
        Kind::Integer { min, max } => or_from_environment(json!({"type": "integer", "minimum": min, "maximum": max})),
        Kind::Boolean => or_from_environment(json!({"type": "boolean"})),
        Kind::Choice(words) => or_from_environment(json!({"enum": words()})),
        Kind::Texts => texts,
        Kind::TextsOr(word) => json!({"anyOf": [{"const": word}, texts, from_environment]}),
        Kind::Statuses => json!({"type": "array", "items": {"anyOf": [
            {"type": "integer", "minimum": 200, "maximum": 599},
            {"type": "string", "pattern": r"^[2-5][0-9][0-9](\+retry-after)?$"},
            from_environment,
        ]}}),
        Kind::Table(table) => reference(table),
        Kind::Named(table) => json!({"type": "object", "additionalProperties": reference(table)}),
        Kind::Tables(table) => json!({"type": "array", "items": reference(table)}),
    }
}

/// The reference's TOML as JSON.
fn json_of(toml: &str) -> Value {
    let document: toml::Table =
        format!("value = {toml}").parse().expect("the reference holds TOML; a test reads all of it");
    serde_json::to_value(&document["value"]).expect("TOML without dates is JSON")
}
