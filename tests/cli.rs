//! The command line, by the real binary: what it prints, where, and with which exit code.

#[path = "cli/explain.rs"]
mod explain;

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
