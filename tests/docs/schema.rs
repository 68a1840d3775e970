//! `oncegate schema` knows every key, and refuses what an editor should underline.
//!
//! The judge is taplo, the linter behind the TOML support of common editors: a schema is worth what they make of it.
//! `test.sh` installs it. Where it is missing its tests say so and pass, but not in continuous integration (`CI` set).

use std::{fs, path::PathBuf, process::Command};

use oncegate::config::{Kind, reference};
use tempfile::TempDir;

use super::{page::root, tools};

#[test]
fn the_schema_has_every_key_and_its_default() {
    let schema: serde_json::Value = serde_json::from_slice(&schema()).unwrap();
    let mut found = Vec::new();
    properties(&schema, &mut found);
    for doc in reference() {
        let mut of_key = found.iter().filter(|(key, _)| *key == doc.key).peekable();
        assert!(of_key.peek().is_some(), "the schema has no {}", doc.key);
        let has_table = matches!(doc.kind, Kind::Table(_) | Kind::Named(_) | Kind::Tables(_));
        if let (Some(default), false) = (doc.default, has_table) {
            let is_so = |property: &serde_json::Value| {
                property.get("default").is_some_and(|value| {
                    let toml: toml::Table = format!("x = {default}").parse().unwrap();
                    serde_json::to_value(&toml["x"]).unwrap() == *value
                })
            };
            assert!(of_key.any(|(_, property)| is_so(property)), "{} = {default} is not in the schema", doc.key);
        }
    }
}

fn properties<'a>(schema: &'a serde_json::Value, found: &mut Vec<(&'a str, &'a serde_json::Value)>) {
    let members = schema.as_object().into_iter().flatten();
    for (name, value) in members {
        if name == "properties" {
            let keys = value.as_object().into_iter().flatten();
            found.extend(keys.map(|(key, property)| (key.as_str(), property)));
        }
        properties(value, found);
    }
    schema.as_array().into_iter().flatten().for_each(|value| properties(value, found));
}

#[test]
fn taplo_accepts_every_file_in_config() {
    let Some(linter) = Linter::find() else { return };
    let files = fs::read_dir(root().join("config")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(files.len() >= 5, "{files:?}");
    let verdict = linter.lint(&files);
    assert!(verdict.accepted, "{}", verdict.said);
}

/// A sound file: each of [`WRONG`] replaces something in it.
const SOUND: &str = r#"
[server]
listen = "127.0.0.1:8080"
drain_timeout = "30s"

[store.memory]
max_bytes = "64MiB"

[upstreams.payments]
url = "https://payments.example.com"
tls = { cert = "client.crt", key = "client.key" }

[defaults]
scope = ["header:authorization"]
key = ["header:Idempotency-Key", "content:10s"]
fingerprint = ["path", "json-body", "header:X-A"]
key_required = false
max_waiters = 100
release_on = [401, "503+retry-after"]

[[routes]]
name = "create charge"
path = "/v1/charges"
methods = ["POST"]
on_unknown = "hold"
"#;

/// What is wrong, what is replaced by what, and what the linter must say of it.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("an unknown key", "drain_timeout", "drain_timout", "'drain_timout' was unexpected"),
    ("an unknown key of a route", "on_unknown", "on_unknwon", "'on_unknwon' was unexpected"),
    ("a key in the wrong table", "key_required = false", "listen = \"[::]:80\"", "'listen' was unexpected"),
    ("an unknown table", "[store.memory]", "[store.memry]", "'memry' was unexpected"),
    ("a number for a duration", "\"30s\"", "30", "30 is not valid"),
    ("a duration without a unit", "\"30s\"", "\"30\"", "\"30\" is not valid"),
    ("a size without a unit", "\"64MiB\"", "\"64\"", "\"64\" is not valid"),
    ("a text for a boolean", "= false", "= \"no\"", "\"no\" is not valid"),
    ("a text for a number", "= 100", "= \"many\"", "\"many\" is not valid"),
    ("a number out of range", "= 100", "= -1", "-1 is not valid"),
    ("a text for a list", "[\"POST\"]", "\"POST\"", "is not of type \"array\""),
    ("a status that is none", "[401,", "[999,", "999 is not valid"),
    ("a wrong word", "\"hold\"", "\"held\"", "\"held\" is not valid"),
    ("a word where a list or another word stands", "[\"header:authorization\"]", "\"everybody\"", "is not valid"),
    (
        "a key source that is none",
        "\"header:Idempotency-Key\"",
        "\"Idempotency-Key\"",
        "\"Idempotency-Key\" does not match",
    ),
    ("a scope part that is none", "\"header:authorization\"", "\"authorization\"", "is not valid"),
    ("a fingerprint part that is none", "\"json-body\"", "\"json\"", "\"json\" does not match"),
    ("methods that are none", "[\"POST\"]", "[]", "[] has less than 1 item"),
    ("a route without a name", "name = \"create charge\"", "", "\"name\" is a required property"),
    ("an upstream without a url", "url = \"https://payments.example.com\"", "", "is not valid"),
    ("a certificate without its key", ", key = \"client.key\"", "", "\"key\" is a required property"),
    ("a table for a list of tables", "[[routes]]", "[routes]", "is not of type \"array\""),
];

#[test]
fn taplo_refuses_what_is_wrong_and_says_what() {
    let Some(linter) = Linter::find() else { return };
    let file = |index: usize, text: &str| {
        let file = linter.directory.path().join(format!("{index}.toml"));
        fs::write(&file, text).unwrap();
        file
    };
    let sound = linter.lint(&[file(WRONG.len(), SOUND)]);
    assert!(sound.accepted, "{}", sound.said);

    // All at once: taplo takes long to start.
    let wrong = WRONG.iter().enumerate().map(|(index, (what, from, to, _))| {
        assert_eq!(SOUND.matches(from).count(), 1, "{what}: `{from}` is not there once");
        file(index, &SOUND.replace(from, to))
    });
    let verdict = linter.lint(&wrong.collect::<Vec<_>>());
    assert!(!verdict.accepted);
    for (index, (what, _, _, must_say)) in WRONG.iter().enumerate() {
        let said = verdict.errors(&format!("/{index}.toml:"));
        assert!(!said.is_empty(), "{what} is accepted");
        assert!(said.iter().any(|error| error.contains(must_say)), "{what}: not {must_say:?} but {said:#?}");
    }
}

/// taplo with the schema that the binary prints.
struct Linter {
    program: PathBuf,
    directory: TempDir,
}

struct Verdict {
    accepted: bool,
    said: String,
}

impl Linter {
    fn find() -> Option<Self> {
        let program = tools::find_or_skip("taplo")?;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("schema.json"), schema()).unwrap();
        Some(Self { program, directory })
    }

    fn lint(&self, files: &[PathBuf]) -> Verdict {
        let schema = format!("file://{}", self.directory.path().join("schema.json").display());
        // Nothing of the user's settings: they may name other schemas, and far ones.
        let mut command = Command::new(&self.program);
        command.args(["lint", "--no-auto-config", "--colors", "never", "--schema", &schema]).args(files);
        let output = command.current_dir(self.directory.path()).env_remove("TAPLO_CONFIG").output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        Verdict { accepted: output.status.success(), said }
    }
}

impl Verdict {
    /// What is wrong in a file: lines `error: …`, each with the place in the line below it.
    fn errors(&self, file: &str) -> Vec<&str> {
        let lines: Vec<_> = self.said.lines().collect();
        let errors = lines.windows(2).filter_map(|pair| Some((pair[0].strip_prefix("error: ")?, pair[1])));
        errors.filter(|(_, place)| place.contains(file)).map(|(error, _)| error).collect()
    }
}

fn schema() -> Vec<u8> {
    Command::new(env!("CARGO_BIN_EXE_oncegate")).arg("schema").output().unwrap().stdout
}
