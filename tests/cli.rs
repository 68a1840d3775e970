//! The command line, by the real binary: what it prints, where, and with which exit code.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use clap::CommandFactory as _;

/// Exit codes of the contract's section 3.
const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const BAD_CONFIG: i32 = 78;

const CONFIG: &str = r#"
[upstreams.payments]
url = "http://127.0.0.1:1"

[defaults]
scope = ["header:authorization", "query:tenant"]

[[routes]]
name = "create charge"
path = "/v1/charges"
methods = ["POST"]
key_required = true
retention = "24h"

[[routes]]
name = "events"
path = "/hooks/{*rest}"
key = ["json:/id", "header:x-event+header:x-part"]
scope = "shared"
on_duplicate = "ack"
on_in_flight = "reject"
on_unknown = "retry"

[[routes]]
name = "legacy"
path = "/legacy"
key = ["content:10s"]
scope = "shared"

[[routes]]
name = "watched"
path = "/watched"
mode = "observe"
key_required = true

[[routes]]
name = "short"
path = "/short"
max_request_body = "8B"
on_body_too_large = "pass"
max_waiters = 0
"#;

struct Oncegate(Command);

fn oncegate(arguments: &[&str]) -> Oncegate {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    command.args(arguments).env_remove("ONCEGATE_CONFIG").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    Oncegate(command)
}

impl Oncegate {
    fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    fn output(mut self) -> Output {
        self.0.output().expect("the binary runs")
    }

    /// Runs it, and gives what it printed to stdout; nothing may be amiss.
    fn prints(self) -> String {
        let output = self.output();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs it, and gives what it said on stderr; it must end so and print nothing else.
    fn fails(self, code: i32) -> String {
        let output = self.output();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}

/// A file of one test.
struct File {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("oncegate.toml");
    fs::write(&path, text).expect("a file");
    File { path, _dir: dir }
}

impl File {
    fn name(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }
}

#[test]
fn usage_errors_exit_64_and_say_so_on_stderr() {
    let config = file(CONFIG);
    let config = config.name();
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["demo", "--seed", "many"],
        &["completions", "tcsh-2"],
        &["check"],
        &["doctor"],
        &["check", config, "-c", config],
        &["explain"],
        &["explain", config],
        &["explain", "POST", "http://a/b"],
        &["explain", config, "POST", "http://a/b", "-c", config],
        &["explain", config, "NOT A METHOD", "http://a/b"],
        &["explain", config, "POST", "/b"],
        &["explain", config, "POST", "http://a b"],
        &["explain", config, "POST", "notaurl"],
        &["explain", config, "POST", "localhost:8080"],
        &["explain", config, "POST", "ftp://a/b"],
        &["explain", config, "POST", "http://a/b", "-H", "no colon"],
    ] {
        let said = oncegate(arguments).fails(USAGE);
        assert!(!said.is_empty(), "{arguments:?}");
    }
}

#[test]
fn explain_says_that_the_url_is_missing() {
    let config = file(CONFIG);
    let said = oncegate(&["explain", config.name(), "POST"]).fails(USAGE);
    assert!(said.contains("there is no URL"), "{said}");
}

#[test]
fn a_field_that_cannot_be_read_is_named_without_its_value() {
    let config = file(CONFIG);
    let said = oncegate(&["explain", config.name(), "POST", "http://a/b", "-H", "Bad Name: secret"]).fails(USAGE);
    assert!(said.contains("Bad Name") && !said.contains("secret"), "{said}");
}

#[test]
fn help_and_version_go_to_stdout_and_exit_0() {
    assert!(oncegate(&["--help"]).prints().contains("Usage: oncegate <COMMAND>"));
    assert_eq!(oncegate(&["--version"]).prints(), format!("oncegate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_help_text_fits_80_columns_and_has_an_example() {
    let mut texts = vec![("oncegate".to_owned(), oncegate(&["--help"]).prints())];
    for command in oncegate::cli::Cli::command().get_subcommands() {
        let name = command.get_name();
        texts.push((name.to_owned(), oncegate(&[name, "--help"]).prints()));
        for nested in command.get_subcommands() {
            texts.push((format!("{name} {nested}"), oncegate(&[name, nested.get_name(), "--help"]).prints()));
        }
    }
    for (name, text) in &texts {
        let wide = text.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{name}");
        let nested = name.contains(' ');
        assert!(nested || text.contains("Example") || text.contains("Try it"), "{name} has no example");
    }
    assert!(texts.len() > 5);
}

#[test]
fn help_says_what_this_is_and_of_which_command() {
    assert!(oncegate(&["-h"]).prints().starts_with("Oncegate: an idempotency reverse proxy."));
    assert!(oncegate(&["--help"]).prints().starts_with("Oncegate is an idempotency reverse proxy."));
    assert_eq!(oncegate(&["help", "check"]).prints(), oncegate(&["check", "--help"]).prints());
    assert!(!oncegate(&["man"]).prints().contains(".TH ONCEGATE-HELP"));
}

#[test]
fn errors_fit_80_columns() {
    for arguments in [
        &["run"][..],
        &["check"],
        &["records", "list"],
        &["records", "resolve", "x", "--executed"],
        &["check", "/nowhere"],
    ] {
        let said = String::from_utf8(oncegate(arguments).output().stderr).expect("text");
        let wide = said.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{arguments:?}");
    }
    let missing = oncegate(&["doctor", "/nowhere"]).fails(BAD_CONFIG);
    assert!(!missing.contains("oncegate run"), "{missing}");
}

#[test]
fn no_colour_goes_where_there_is_no_terminal() {
    let bad = file("[server]\nlisten = 1\n");
    for arguments in [&["--help"][..], &["frobnicate"], &["check"], &["check", bad.name()], &["doctor", bad.name()]] {
        let Output { stdout, stderr, .. } = oncegate(arguments).output();
        assert!(![stdout, stderr].concat().contains(&0x1b), "{arguments:?}");
    }
}

#[test]
fn a_bad_file_exits_78_for_every_command_that_reads_one() {
    let bad = file("[server]\nlissten = \"127.0.0.1:8080\"\n");
    for arguments in
        [&["check", bad.name()][..], &["doctor", bad.name()], &["explain", bad.name(), "POST", "http://a/b"]]
    {
        let said = oncegate(arguments).fails(BAD_CONFIG);
        assert!(said.contains("lissten") && said.contains("listen"), "{said}");
    }
}

#[test]
fn a_bad_file_is_told_to_scripts_alike_by_every_command() {
    let bad = file("[server]\nlissten = \"127.0.0.1:8080\"\n");
    let told = |arguments: &[&str]| {
        let output = oncegate(&[arguments, &["--json"]].concat()).output();
        assert_eq!(output.status.code(), Some(BAD_CONFIG), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    let checked = told(&["check", bad.name()]);
    assert_eq!(checked["errors"][0]["line"], 2);
    assert_eq!(told(&["doctor", bad.name()]), checked);
    assert_eq!(told(&["explain", bad.name(), "POST", "http://a/b"]), checked);
}

#[test]
fn results_that_cannot_be_written_are_an_error_of_every_command() {
    let good = file(CONFIG);
    for arguments in [
        &["check", good.name()][..],
        &["explain", good.name(), "POST", "http://a/b"],
        &["explain", good.name(), "POST", "http://a/b", "--json"],
        &["doctor", good.name()],
        &["doctor", good.name(), "--json"],
        &["schema"],
        &["man"],
        &["completions", "bash"],
        &["demo", "--seed", "1"],
    ] {
        let mut command = oncegate(arguments);
        command.0.stdout(fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device"));
        let output = command.0.stderr(Stdio::piped()).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.contains("error: the results cannot be written"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_nobody_can_hear_still_ends_with_its_exit_code() {
    for arguments in [&["check", "/nowhere"][..], &["doctor"], &["doctor", "/nowhere"], &["records", "show", "x"]] {
        let mut command = oncegate(arguments);
        command.0.stderr(fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device"));
        let code = command.0.stdout(Stdio::null()).status().expect("the binary runs").code();
        assert!(matches!(code, Some(USAGE | BAD_CONFIG | 1)) && code != Some(101), "{arguments:?}: {code:?}");
    }
}

#[test]
fn a_flag_of_run_that_cannot_be_used_is_a_usage_error_that_names_it() {
    let good = file(CONFIG);
    for (arguments, flag) in [
        (&["--upstream", "127.0.0.1:9000"][..], "--upstream"),
        (&["--upstream", "http://127.0.0.1:1", "--listen", "8080"], "--listen"),
        (&["-c", good.name(), "--listen", "8080"], "--listen"),
        (&["-c", good.name(), "--listen", "127.0.0.1:9464"], "--listen"),
        (&["-c", good.name(), "--admin", "0.0.0.0:8080"], "--admin"),
    ] {
        let said = oncegate(&[&["run"], arguments].concat()).fails(USAGE);
        assert!(said.contains(&format!("error: {flag} cannot be used")), "{said}");
        assert!(!said.contains("oncegate check"), "{said}");
    }
}

#[test]
fn run_says_that_a_file_is_bad_on_a_line_of_its_own() {
    let bad = file("[server]\nlisten = \"8080\"\n");
    let said = oncegate(&["run", "-c", bad.name(), "--admin", "9464"]).fails(BAD_CONFIG);
    assert!(said.contains("the configuration is not usable\n\nerror: the configuration is bad\n"), "{said}");
    assert!(said.contains("oncegate check FILE") && said.contains("`--admin`"), "{said}");
}

#[test]
fn the_file_is_named_by_argument_flag_or_environment() {
    let good = file(CONFIG);
    for output in [
        oncegate(&["check", good.name()]).output(),
        oncegate(&["check", "-c", good.name()]).output(),
        oncegate(&["check", "--config", good.name()]).output(),
        oncegate(&["check"]).env("ONCEGATE_CONFIG", &good.path).output(),
        oncegate(&["explain", "POST", "http://a/b"]).env("ONCEGATE_CONFIG", &good.path).output(),
        oncegate(&["explain", "POST", "http://a/b", "-c", good.name()]).output(),
        oncegate(&["explain", good.name(), "POST", "http://a/b"]).env("ONCEGATE_CONFIG", "/nowhere").output(),
    ] {
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn completions_parse_in_their_shells() {
    for (shell, check) in [("bash", &["bash", "-n"][..]), ("zsh", &["zsh", "-n"]), ("fish", &["fish", "--no-execute"])]
    {
        let script = oncegate(&["completions", shell]).prints();
        assert!(script.contains("explain"), "{shell}");
        let parser = Command::new(check[0]).args(&check[1..]).stdin(Stdio::piped()).spawn();
        let Ok(mut parser) = parser else {
            eprintln!("skipped: {shell} is not installed");
            continue;
        };
        parser.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
        assert!(parser.wait().expect("it ends").success(), "{shell}");
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir_name = dir.path().join("man1");
    assert_eq!(oncegate(&["man", dir_name.to_str().expect("UTF-8")]).prints(), "");
    let whole = oncegate(&["man"]).prints();
    assert!(whole.contains(".TH ONCEGATE 1"));
    assert!(whole.contains(".SH EXAMPLES\n") && !whole.contains(".SH EXTRA"));
    for command in oncegate::cli::Cli::command().get_subcommands() {
        let page = dir_name.join(format!("oncegate-{}.1", command.get_name()));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(whole.contains(&text), "{}", page.display());
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child =
        oncegate(&["man"]).0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_readmes_configuration_passes_check() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md");
    let blocks: Vec<_> =
        readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().expect("a block")).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        oncegate(&["check", file(block).name()]).prints();
    }
}

mod explain {
    use serde_json::{Value, json};

    use super::*;

    fn text(arguments: &[&str]) -> String {
        let config = file(CONFIG);
        oncegate(&[&["explain", config.name()], arguments].concat()).prints()
    }

    fn json(arguments: &[&str]) -> Value {
        serde_json::from_str(&text(&[arguments, &["--json"]].concat())).expect("JSON")
    }

    const CHARGES: &str = "http://api.example.com/v1/charges?tenant=7";
    const WEBSOCKET: &[&str] = &["-H", "Upgrade: websocket", "-H", "Connection: Upgrade"];

    #[test]
    fn a_guarded_request() {
        let text = text(&[
            "POST",
            CHARGES,
            "-H",
            "Idempotency-Key: key-1",
            "-H",
            "Authorization: Bearer s3cret",
            "--data",
            "{}",
        ]);
        insta::assert_snapshot!(text, @r"
        POST api.example.com/v1/charges

        route        create charge (/v1/charges)
                     not events: for other paths
                     not legacy: for other paths
                     not watched: for other paths
                     not short: for other paths
                     not default: for what no route matches
        class        non-idempotent
        guarded      yes
        key          header:idempotency-key, 5 bytes
        scope        header:authorization, query:tenant
        fingerprint  method, path, query, content-type (absent), body (2 bytes)

        first        sent to payments once; its answer is stored, then given, and kept
                     for 24 h
        retry        the stored answer; payments is not asked again
        concurrent   waits up to 30 s for the first one's answer, then 409 in-flight
        changed      422 key-reused, whatever became of the first one
        no answer    outcome-unknown: each retry gets 409 until an operator resolves it,
                     or 30 days have passed
        ");
    }

    #[test]
    fn a_request_that_is_passed() {
        insta::assert_snapshot!(text(&["GET", CHARGES]), @r"
        GET api.example.com/v1/charges

        route        default (/{*rest})
                     not create charge: for other methods
                     not events: for other paths
                     not legacy: for other paths
                     not watched: for other paths
                     not short: for other paths
        class        safe
        guarded      no: the method is safe

        every time   streamed to payments and back, a repetition too
        ");
    }

    #[test]
    fn a_request_that_is_refused() {
        insta::assert_snapshot!(text(&["POST", CHARGES]), @r"
        POST api.example.com/v1/charges

        route        create charge (/v1/charges)
                     not events: for other paths
                     not legacy: for other paths
                     not watched: for other paths
                     not short: for other paths
                     not default: for what no route matches
        class        non-idempotent
        guarded      refused
        key          none; looked at header:idempotency-key
        scope        header:authorization (missing), query:tenant

        every time   400 key-missing: it has no key, and the route requires one; nothing
                     is sent
        ");
    }

    // contract: R-5
    #[test]
    fn what_comes_of_a_scope_that_is_missing_is_said() {
        let said = |url, more: &[&str]| {
            let text = text(&[&["POST", url, "-H", "Idempotency-Key: a"], more].concat());
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(said(CHARGES, &[]).contains("header:authorization (missing), query:tenant a missing part is a value"));
        let none = said("http://a/v1/charges", &[]);
        assert!(none.contains("query:tenant (missing) shared with every caller who sends none of this"), "{none}");
        let all = said(CHARGES, &["-H", "Authorization: Bearer a"]);
        assert!(!all.contains("missing"), "{all}");
    }

    #[test]
    fn policies_change_what_would_happen() {
        let text = text(&["POST", "http://a/hooks/x/y", "-H", "X-Event: 12", "-H", "X-Part: 3"]);
        insta::assert_snapshot!(text, @r#"
        POST a/hooks/x/y

        route        events (/hooks/{*rest})
                     not create charge: for other paths
                     not legacy: for other paths
                     not watched: for other paths
                     not short: for other paths
                     not default: for what no route matches
        class        non-idempotent
        guarded      yes
        key          header:x-event+header:x-part, 3 bytes
        scope        shared
        fingerprint  method, path, query (absent), content-type (absent), body (0 bytes)

        first        sent to payments once; its answer is stored, then given, and kept
                     for 24 h
        retry        200, empty; payments is not asked again
        concurrent   409 in-flight at once
        changed      422 key-reused, whatever became of the first one
        no answer    a retry is sent to payments again (on_unknown = "retry")
        "#);
    }

    #[test]
    fn content_as_the_key() {
        insta::assert_snapshot!(text(&["POST", "http://a/legacy", "--data", "order=1"]), @r"
        POST a/legacy

        route        legacy (/legacy)
                     not create charge: for other paths
                     not events: for other paths
                     not watched: for other paths
                     not short: for other paths
                     not default: for what no route matches
        class        non-idempotent
        guarded      yes
        key          content:10s, 32 bytes
        scope        shared
        fingerprint  method, path, query (absent), content-type (absent), body (7 bytes)

        first        sent to payments once; its answer is stored, then given, and kept
                     for 10 s
        retry        the stored answer; payments is not asked again
        concurrent   waits up to 30 s for the first one's answer, then 409 in-flight
        changed      another content is another key: sent, as a first one
        no answer    outcome-unknown: each retry gets 409 until an operator resolves it,
                     or 10 s have passed
        ");
    }

    #[test]
    fn json_has_the_members_of_the_contract() {
        let arguments = ["POST", CHARGES, "-H", "Idempotency-Key: key-1", "--data", "{}"];
        assert_eq!(
            json(&arguments),
            json!({
                "route": "create charge",
                "considered": [
                    { "route": "create charge", "because": "it is the one" },
                    { "route": "events", "because": "for other paths" },
                    { "route": "legacy", "because": "for other paths" },
                    { "route": "watched", "because": "for other paths" },
                    { "route": "short", "because": "for other paths" },
                    { "route": "default", "because": "for what no route matches" },
                ],
                "upstream": "payments",
                "class": "non-idempotent",
                "guarded": true,
                "key": { "source": "header:idempotency-key", "length": 5 },
                "scope": [
                    { "part": "header:authorization", "present": false },
                    { "part": "query:tenant", "present": true },
                ],
                "fingerprint": ["method", "path", "query", "content-type (absent)", "body (2 bytes)"],
                "would": { "first": "executed", "retry": "replayed", "concurrent": "waited", "changed": "key-reused" },
            })
        );
    }

    #[test]
    fn refusals_name_their_problem() {
        for (arguments, code) in [
            (&["POST", CHARGES][..], "key-missing"),
            (&["POST", CHARGES, "-H", "Idempotency-Key: a,b"], "key-malformed"),
            (&["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Idempotency-Key: b"], "key-malformed"),
            (&["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Authorization: Digest x"], "scope-unstable"),
            (&["POST", "http://a/v1/charges", "-H", "Idempotency-Key: a", "-H", "Cookie: a=b"], "scope-missing"),
            (&["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Idempotency_Key: b"], "bad-request"),
            (&["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Early-Data: 1"], "too-early"),
            (&["POST", CHARGES, "-H", "Early-Data: 1"], "key-missing"),
            (&[&["POST", CHARGES, "-H", "Idempotency-Key: a"], WEBSOCKET].concat(), "bad-request"),
            (&["GET", CHARGES, "-H", "Content-Length: 1", "-H", "Transfer-Encoding: chunked"], "bad-request"),
            (&["POST", CHARGES, "-H", "Content-Length: 1", "-H", "Content-Length: 2"], "bad-request"),
            (&["POST", CHARGES, "-H", "Transfer-Encoding: gzip"], "bad-request"),
            (&["POST", CHARGES, "-H", "Host: a", "-H", "Host: b"], "bad-request"),
        ] {
            let explained = json(arguments);
            assert_eq!(explained["would"]["first"], code, "{arguments:?}");
            assert_eq!(explained["guarded"], false, "{arguments:?}");
        }
    }

    // contract: R-24
    #[test]
    fn observing_refuses_nothing_and_says_what_enforcing_would_do() {
        const WATCHED: &str = "http://a/watched?tenant=7";
        let long = "x".repeat(2 << 20);
        let body = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&body, long).expect("written");
        let body = format!("@{}", body.path().display());
        for (arguments, would) in [
            (&["POST", WATCHED][..], "400 key-missing: it has no key, and the route requires one"),
            (&["POST", WATCHED, "-H", "Idempotency-Key: a,b"], "400 key-malformed: "),
            (&["POST", WATCHED, "-H", "Idempotency-Key: a", "-H", "Idempotency_Key: b"], "400 bad-request: "),
            (&["POST", WATCHED, "-H", "Idempotency-Key: a", "-H", "Early-Data: 1"], "425 too-early: "),
            (&["POST", WATCHED, "-H", "Idempotency-Key: a", "-H", "Authorization: Digest x"], "400 scope-unstable: "),
            (&["POST", "http://a/watched", "-H", "Idempotency-Key: a", "-H", "Cookie: a=b"], "400 scope-missing: "),
            (&["POST", WATCHED, "-H", "Idempotency-Key: a", "--data", &body], "413 body-too-large: "),
            (&[&["POST", WATCHED, "-H", "Idempotency-Key: a"], WEBSOCKET].concat(), "400 bad-request: "),
        ] {
            let said = text(arguments).split_whitespace().collect::<Vec<_>>().join(" ");
            let every = format!("guarded observed only {}", said.split_once("observed only ").expect(&said).1);
            let expected = format!("every time streamed to payments and back; enforcing would refuse it: {would}");
            assert!(every.contains(&expected) && !every.contains("nothing is sent"), "{arguments:?}: {said}");
            assert_eq!(json(arguments)["would"]["first"], "passed", "{arguments:?}");
        }
        // What is ambiguous is refused before anybody knows its route.
        let both = ["POST", WATCHED, "-H", "Content-Length: 1", "-H", "Transfer-Encoding: chunked"];
        assert_eq!(json(&both)["would"]["first"], "bad-request");
    }

    #[test]
    fn what_passes_with_a_key_is_unguarded() {
        let unstable = ["POST", "http://a/else", "-H", "Idempotency-Key: a", "-H", "Authorization: Digest x"];
        let long = ["POST", "http://a/short", "-H", "Idempotency-Key: a", "--data", "more than 8"];
        let declared = ["POST", "http://a/short", "-H", "Idempotency-Key: a", "-H", "Content-Length: 9"];
        for arguments in [&unstable[..], &long, &declared] {
            assert_eq!(json(arguments)["would"]["first"], "unguarded", "{arguments:?}");
            assert!(text(arguments).contains("and counted\n             as unguarded"), "{}", text(arguments));
        }
        let without = ["POST", "http://a/short", "--data", "more than 8"];
        assert_eq!(json(&without)["would"]["first"], "passed");
    }

    #[test]
    fn the_length_that_a_request_declares_counts() {
        let arguments = ["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Content-Length: 2000000"];
        assert_eq!(json(&arguments)["would"]["first"], "body-too-large");
    }

    #[test]
    fn connect_is_refused_as_the_proxy_refuses_it() {
        let explained = json(&["CONNECT", "a:443"]);
        assert_eq!(explained["would"]["first"], "bad-request");
        assert!(text(&["CONNECT", "a:443"]).contains("405 bad-request: Oncegate opens no tunnels"));
    }

    // contract: R-15
    #[test]
    fn where_nobody_may_wait_nobody_does() {
        let arguments = ["POST", "http://a/short", "-H", "Idempotency-Key: a"];
        assert_eq!(json(&arguments)["would"]["concurrent"], "in-flight");
        assert!(text(&arguments).contains("concurrent   409 in-flight at once"));
    }

    #[test]
    fn an_ambiguous_request_is_refused_with_the_reason_that_run_gives() {
        let both = ["POST", CHARGES, "-H", "Content-Length: 1", "-H", "Transfer-Encoding: chunked"];
        let said = text(&both);
        let reason = oncegate::server::Refusal::from(oncegate::server::Reason::LengthWithCoding);
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(reason.detail.trim_end_matches('.')), "{said}");
    }

    // contract: R-4
    #[test]
    fn a_key_in_a_body_that_is_too_long_is_not_looked_at() {
        let config = |required| {
            file(&format!(
                "[upstreams.a]\nurl = \"http://127.0.0.1:1\"\n[defaults]\nscope = \"shared\"\nkey = [\"json:/id\", \
                 \"header:x-id\"]\nkey_required = {required}\nmax_request_body = \"8B\"\n"
            ))
        };
        let explained = |required, data| {
            let config = config(required);
            let json = ["-H", "Content-Type: application/json"];
            let arguments = [&["explain", config.name(), "POST", "http://a/b", "--data", data][..], &json].concat();
            oncegate(&arguments).prints()
        };
        let (long, short) = ("{\"id\": \"a-long-one\"}", "{}");
        let said = explained(false, long);
        assert!(said.contains("none; looked at header:x-id; not looked at json:/id"), "{said}");
        assert!(said.contains("guarded      no: its body is longer than max_request_body"), "{said}");
        let said = explained(true, long);
        assert!(said.contains("not looked at json:/id") && said.contains("413 body-too-large"), "{said}");
        let said = explained(true, short);
        assert!(said.contains("none; looked at json:/id") && said.contains("400 key-missing"), "{said}");
    }

    #[test]
    fn what_is_not_guarded_passes() {
        for arguments in [
            &["GET", CHARGES][..],
            &["PUT", CHARGES],
            &["POST", "http://a/elsewhere"],
            &["POST", "http://a/elsewhere", "-H", "Idempotency-Key: a", "-H", "Content-Type: application/grpc"],
            &["POST", "http://a/watched?tenant=7", "-H", "Idempotency-Key: a"],
            &["POST", "http://a/elsewhere", "-H", "Early-Data: 1"],
            &[&["POST", "http://a/elsewhere"], WEBSOCKET].concat(),
        ] {
            assert_eq!(json(arguments)["would"]["first"], "passed", "{arguments:?}");
        }
    }

    #[test]
    fn neither_keys_nor_scope_values_nor_bodies_are_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let body = dir.path().join("body.json");
        fs::write(&body, "{\"id\": \"hidden-body\"}").expect("a file");
        let body = format!("@{}", body.display());
        for last in ["--data", "--json"] {
            let arguments = [
                "POST",
                "http://a/v1/charges?tenant=hidden-tenant",
                "-H",
                "Idempotency-Key: hidden-key",
                "-H",
                "Authorization: Bearer hidden-token",
                "--data",
                &body,
                "--json",
            ];
            let text = text(&arguments[..if last == "--json" { arguments.len() } else { arguments.len() - 1 }]);
            assert!(!text.contains("hidden") && text.contains("21 bytes"), "{text}");
        }
    }
}

#[test]
fn doctor_exits_69_and_names_the_remedy_when_an_upstream_is_away() {
    let config = file(CONFIG);
    let output = oncegate(&["doctor", config.name()]).output();
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("failure upstream payments: 127.0.0.1:1") && said.contains("start it"), "{said}");

    let output = oncegate(&["doctor", config.name(), "--json"]).output();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(said["ok"], false);
    assert!(said["findings"].as_array().expect("a list").iter().any(|finding| finding["level"] == "failure"));
}

#[test]
fn doctor_exits_0_when_all_is_there() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = file(&CONFIG.replace("127.0.0.1:1\"", &format!("{}\"", upstream.local_addr().expect("bound"))));
    let said = oncegate(&["doctor", config.name()]).prints();
    assert!(said.lines().all(|line| line.starts_with("ok ") || line.starts_with("warning ")), "{said}");
}

/// One demo for all of its promises: it takes a few seconds.
#[test]
fn the_demo_charges_nobody_twice_shows_the_readmes_table_and_stays_up_when_asked() {
    let mut child = oncegate(&["demo", "--seed", "1", "--keep-running"])
        .0
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));

    let table: Vec<_> = lines.by_ref().skip_while(String::is_empty).take_while(|line| !line.is_empty()).collect();
    let figures = |row: &str| {
        let line = table.iter().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("{row} in {table:#?}"));
        line[row.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(figures("charges made"), ["44", "30"]);
    assert_eq!(figures("customers charged twice or more"), ["9", "0"]);
    assert_eq!(figures("money taken too much"), ["1060.49", "0.00"]);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md");
    assert!(readme.contains(&table.join("\n")), "{table:#?}");

    let where_to = lines.next().expect("what to try");
    let mut words = where_to.split(['/', ' ', ',']).filter(|word| word.starts_with("127.0.0.1:"));
    let front = words.next().expect("Oncegate's address").to_owned();
    let first = pay(&front, "reset");
    assert!(first.contains(" 502 ") && first.contains("outcome-unknown"), "{first}");
    let second = pay(&front, "reset");
    assert!(second.contains(" 409 ") && second.contains("outcome-unknown"), "{second}");

    // Read on, or the demo may wait for room in the pipe.
    let rest = std::thread::spawn(move || lines.count());
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(interrupted.success());
    let output = child.wait_with_output().expect("it ends");
    rest.join().expect("it reads");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let progress = String::from_utf8(output.stderr).expect("text");
    let shown = progress.lines().filter(|line| line.starts_with("with")).count();
    assert_eq!(shown, 2, "{progress}");
}

/// Posts one charge, and gives the whole answer.
fn pay(address: &str, lose: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let body = r#"{"customer": "me", "amount": 1}"#;
    write!(
        stream,
        "POST /v1/charges HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer me\r\nIdempotency-Key: mine\r\n\
         Demo-Lose: {lose}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}
