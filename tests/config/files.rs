//! The files in `config/`, and the files that a configuration names.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use oncegate::config::{self, Loaded, Overrides, reference, secrets};

use super::{BASE, sound};

fn load_example(name: &str) -> Loaded {
    let env = |name: &str| (name == "REDIS_HOST").then(|| "redis".to_owned());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    config::load_alone(&path, &Overrides::default(), &env).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_example_file_is_sound() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        let _ = load_example(name.to_str().unwrap());
    }
}

#[test]
fn the_full_file_says_what_is_so_anyway() {
    let full = load_example("full.toml").config;
    let least = "[upstreams.payments]\nurl = \"http://127.0.0.1:9000\"\n[defaults]\nscope = [\"header:authorization\"]\n\
                 [[routes]]\nname = \"create charge\"\nhost = \"api.example.com\"\npath = \"/v1/charges\"\nmethods = [\"POST\"]\n";
    assert_eq!(config::show(&full), config::show(&sound(least)));
}

#[test]
fn the_full_file_has_every_key_and_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/full.toml");
    let text = fs::read_to_string(path).unwrap();
    for doc in reference() {
        let mentions = |line: &str| {
            line.split('#').nth(usize::from(line.starts_with("# "))).is_some_and(|line| {
                line.trim_start().starts_with(&format!("{} = ", doc.key)) || line.contains(&format!(" {} = ", doc.key))
            })
        };
        let table = text.lines().any(|line| {
            line.trim_start_matches("# ").contains(&format!("[{}", doc.key)) || line.contains(&format!(".{}]", doc.key))
        });
        assert!(table || text.lines().any(mentions), "{} in {}", doc.key, doc.table.title());
        if let Some(default) = doc.default {
            assert!(text.contains(&format!("{} = {default}", doc.key)), "{} = {default}", doc.key);
        }
    }
}

/// What is said of a configuration whose only file holds this.
fn look(lines: &str, content: Option<&str>) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("oncegate.toml");
    fs::write(&path, format!("{lines}\n{BASE}")).unwrap();
    if let Some(content) = content {
        fs::write(directory.path().join("named"), content).unwrap();
    }
    let place = format!("{}/", directory.path().display());
    let loaded = config::load(&path, &Overrides::default(), &|_| None);
    loaded.map(|_| ()).map_err(|errors| errors.iter().next().unwrap().message().replace(&place, ""))
}

#[test]
fn relative_paths_begin_at_the_configuration_file() {
    assert_eq!(look("[store]\nsecret_file = \"named\"", Some("s\n")), Ok(()));
}

#[test]
fn files_that_are_missing_or_hold_something_else_are_refused() {
    let cases = [
        ("[store]\nsecret_file = \"named\"", None, "`secret_file`: named cannot be read: no such file or directory"),
        ("[store]\nsecret_file = \"named\"", Some("\n \n"), "`secret_file`: named holds no secret"),
        ("[admin]\ntoken_file = \"named\"", Some(" \n"), "`token_file`: named does not hold one word"),
        ("[admin]\ntoken_file = \"named\"", Some("a b\n"), "`token_file`: named does not hold one word"),
        (
            "[store]\nkind = \"redis\"\n[store.redis]\npassword_file = \"named\"",
            Some("\n"),
            "`password_file`: named holds no password",
        ),
        (
            "[server]\ntls = { cert = \"named\", key = \"named\" }",
            Some("x"),
            "`cert`: named holds no certificate in PEM",
        ),
    ];
    for (lines, content, expected) in cases {
        assert_eq!(look(lines, content), Err(expected.to_owned()));
    }
}

#[test]
fn a_secret_that_is_missing_is_made_by_what_the_remedy_says() {
    for (table, key) in [("admin", "token_file"), ("store", "secret_file")] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("oncegate.toml");
        fs::write(&path, format!("[{table}]\n{key} = \"named\"\n{BASE}")).unwrap();
        let load = || config::load(&path, &Overrides::default(), &|_| None);
        let errors = load().unwrap_err();
        let remedy = errors.iter().next().unwrap().remedy().unwrap().to_owned();
        let command = remedy.strip_prefix("make it: ").unwrap().trim_end_matches("; all replicas need the same");
        let made = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(made.status.success(), "{command}: {made:?}");
        assert!(load().is_ok());
        let mode = fs::metadata(directory.path().join("named")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

// contract: R-5
#[test]
fn the_first_secret_seals_all_open_and_the_last_keys_the_ids() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, "new\n\n  old \r\nfirst").unwrap();
    let secrets = secrets::read(&path).unwrap();
    assert_eq!(secrets.sealing(), b"new");
    assert_eq!(secrets.id_key(), b"first");
    assert_eq!(secrets.opening().collect::<Vec<_>>(), [&b"new"[..], b"old", b"first"]);
    assert!(!format!("{secrets:?}").contains("old"));
}
