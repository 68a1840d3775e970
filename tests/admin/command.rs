//! `oncegate records`, by the real binary: what a person sees who is called at night.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use oncegate::{
    config::settled::Address,
    rule::{Record, RecordId, identity::Space},
    store::{
        Store as _,
        faulty::{Fault, Step},
    },
};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::{DAY, Served, TOKEN, completed, id, id_of, unknown};

/// Runs `oncegate records …`.
async fn run(arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    command.arg("records").args(arguments).env_remove("ONCEGATE_CONFIG").env_remove("CLICOLOR_FORCE");
    Said::of(command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap())
}

/// Runs it against that server, with its token.
async fn on(served: &Served, arguments: &[&str]) -> Said {
    let (address, token) = (served.address.to_string(), served.token_file());
    let at = ["--admin", &address, "--token-file", token.to_str().unwrap()];
    run(&[arguments, &at].concat()).await
}

/// What it said, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// What it printed; nothing may be amiss.
    #[track_caller]
    fn out(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.out
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.out()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless it ended so, said all of this on stderr, and printed nothing.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        // Lines end at 80 columns, wherever that is.
        let said = self.err.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(said.contains(word), "{word:?} is missing: {self:?}");
        }
        assert!(!self.err.contains(TOKEN), "the token is a secret: {self:?}");
    }
}

/// Fifty unknown records are found, half of them resolved as executed with an answer, the other half freed.
#[tokio::test]
async fn the_night_of_fifty_unknown_records() {
    let served = Served::start();
    let (executed, lost): (Vec<RecordId>, Vec<RecordId>) = ((0..25).map(id).collect(), (25..50).map(id).collect());
    for id in &executed {
        served.put(*id, "charges", unknown(), 30 * DAY).await;
    }
    for id in &lost {
        served.put(*id, "events", unknown(), 30 * DAY).await;
    }
    served.put(id(50), "charges", completed(201), DAY).await;

    let list = on(&served, &["list", "--state", "unknown"]).await;
    assert_eq!(list.out().lines().count(), 51, "{list:?}");
    assert!(list.err.contains("50 records."), "{list:?}");

    let answer = served.file("answer.json", r#"{"status": 201, "headers": [["X-By", "hand"]], "body": "charged"}"#);
    let bulk = ["resolve", "--route", "charges", "--executed", "--response", answer.to_str().unwrap()];
    let dry = on(&served, &[&bulk[..], &["--dry-run"]].concat()).await;
    assert!(dry.err.contains("25 records would be resolved as executed; nothing was changed"), "{dry:?}");
    assert_eq!(dry.out().lines().count(), 26, "{dry:?}");
    assert_eq!(served.held(executed[0]).await, Some(unknown()));

    let done = on(&served, &[&bulk[..], &["--yes"]].concat()).await;
    assert!(done.out().contains("25 records resolved as executed"), "{done:?}");
    let freed = on(&served, &["resolve", "--state", "unknown", "--not-executed", "--yes", "--json"]).await;
    assert_eq!(freed.json()["resolved"].as_array().unwrap().len(), 25);

    for id in executed {
        let Some(Record::Completed { response, .. }) = served.held(id).await else { panic!("{id} is not completed") };
        let (headers, body) = response.parts();
        assert_eq!((response.status(), &body[..], headers["x-by"].to_str().unwrap()), (201, &b"charged"[..], "hand"));
    }
    for id in lost {
        assert_eq!(served.held(id).await, None);
    }
    assert_eq!(served.held(id(50)).await, Some(completed(201)));
    let none = on(&served, &["list", "--state", "unknown"]).await;
    assert_eq!((none.out(), none.err.trim()), ("", "No records match."));
}

#[tokio::test]
async fn tables_fit_80_columns_and_json_holds_all() {
    let served = Served::start();
    served.put(id(1), "a route whose name is longer than its column", unknown(), 30 * DAY).await;
    served.put_in_flight(id(2), DAY).await;
    served.put(id(3), "charges", completed(201), DAY).await;
    let list = on(&served, &["list"]).await;
    assert_eq!(list.out().lines().count(), 4);
    assert!(list.out().lines().all(|line| line.chars().count() <= 80), "{}", list.out);
    assert!(!list.out.contains('\u{1b}'), "no colour where there is no terminal: {list:?}");
    let json = on(&served, &["list", "--json"]).await.json();
    assert_eq!(json["records"].as_array().unwrap().len(), 3);
    assert!(json["records"].as_array().unwrap().iter().all(|record| record["id"].as_str().unwrap().len() == 64));
    let limited = on(&served, &["list", "--limit", "2"]).await;
    assert_eq!(limited.out().lines().count(), 3);
    assert!(limited.err.starts_with("2 records, and there are more: see --limit, or say --after "), "{limited:?}");
}

// contract: section 9
#[tokio::test]
async fn a_list_goes_on_where_its_page_ended() {
    let served = Served::start();
    for number in 1..=5 {
        served.put_unknown(id(number)).await;
    }
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let more = after.iter().flat_map(|after| ["--after", after]);
        let page = on(&served, &["list", "--limit", "2", "--json"].into_iter().chain(more).collect::<Vec<_>>()).await;
        let page = page.json();
        assert_eq!(page.as_object().unwrap().len(), 2, "{page}");
        seen.extend(page["records"].as_array().unwrap().iter().map(|record| record["id"].to_string()));
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    let first = on(&served, &["list", "--limit", "2"]).await;
    let next = first.err.split("--after ").nth(1).unwrap().trim().trim_end_matches('.').to_owned();
    assert_eq!(on(&served, &["list", "--after", &next]).await.out().lines().count(), 4, "the other three");
    on(&served, &["list", "--after", "nowhere"]).await.fails(64, &["`after` is not the `next` of a page"]);
}

#[tokio::test]
async fn one_record_is_shown_with_what_can_be_done() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    let short = id(1).short().to_string();
    for name in [short.clone(), id(1).to_string(), format!("urn:oncegate:record:{short}")] {
        let shown = on(&served, &["show", &name]).await;
        assert!(shown.out().contains(&id(1).to_string()) && shown.out.contains("the connection broke"), "{shown:?}");
        assert!(shown.err.contains(&format!("oncegate records resolve {short} --not-executed")), "{shown:?}");
    }
    assert_eq!(on(&served, &["show", &short, "--json"]).await.json()["state"], "unknown");
    assert!(on(&served, &["show", &short]).await.out().contains("\nsettled:  20"), "when it became unknown");
    on(&served, &["show", "0123456789abcdef"]).await.fails(1, &["there is no such record", "do:"]);
    on(&served, &["show", "order-17"]).await.fails(64, &["names no record", "instance"]);
}

#[tokio::test]
async fn the_commands_that_are_shown_can_be_pasted() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    let shown = on(&served, &["show", &id(1).to_string()]).await;
    let command = shown.err.lines().find(|line| line.contains("--not-executed")).unwrap().trim();
    let binary = Path::new(env!("CARGO_BIN_EXE_oncegate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let pasted = Command::new("sh").args(["-c", command]).env("PATH", path).output().await.unwrap();
    assert!(Said::of(pasted).out().contains("its key is free"), "{command}");
    assert_eq!(served.held(id(1)).await, None);
}

#[tokio::test]
async fn a_dry_run_says_what_would_become_of_a_record_and_changes_nothing() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    served.put(id(2), "charges", completed(201), DAY).await;
    let name = id(1).to_string();
    for (outcome, what) in [("--executed", "its retries would be told so"), ("--not-executed", "would run the request")]
    {
        let dry = on(&served, &["resolve", &name, outcome, "--dry-run"]).await;
        assert!(dry.out().contains(&name) && dry.err.contains(what), "{dry:?}");
        assert!(dry.err.contains("Nothing was changed") && !dry.err.contains("oncegate records"), "{dry:?}");
    }
    let json = on(&served, &["resolve", &name, "--executed", "--dry-run", "--json"]).await.json();
    assert_eq!(json["would_resolve"], serde_json::json!([name]));
    assert_eq!(served.held(id(1)).await, Some(unknown()));
    let completed = on(&served, &["resolve", &id(2).to_string(), "--executed", "--dry-run"]).await;
    completed.fails(1, &["would not allow", "nothing was changed", "this one is completed"]);
}

/// A record does not tell that observing left it; what its route does now, the configuration tells.
// contract: R-24
#[tokio::test]
async fn records_that_no_retry_meets_are_told_apart() {
    let served = Served::start();
    served.put(id(1), "watched", unknown(), DAY).await;
    served.put(id(2), "charges", unknown(), DAY).await;
    let note = "not enforce: watched.\nUnknown records there were observed";
    let name = id(1).to_string();
    let all = ["resolve", "--state", "unknown", "--not-executed", "--dry-run"];
    for arguments in [&["list"][..], &["show", &name], &all] {
        assert!(on(&served, arguments).await.err.contains(note), "{arguments:?}");
    }
    let other = id(2).to_string();
    for arguments in [&["list", "--route", "charges"][..], &["show", &other], &["list", "--json"]] {
        assert!(!on(&served, arguments).await.err.contains("not enforce"), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_mistyped_route_is_told_as_one() {
    let served = Served::start();
    for arguments in [&["list", "--route", "chargse"][..], &["resolve", "--route", "chargse", "--not-executed"]] {
        let said = on(&served, arguments).await;
        assert!(said.err.contains("no route \"chargse\"; it has charges, "), "{said:?}");
    }
    let known = on(&served, &["list", "--route", "charges"]).await;
    assert_eq!(known.err.trim(), "No records match.");
}

#[tokio::test]
async fn a_request_is_found_by_flags_or_from_a_file() {
    let served = Served::start();
    let charge = id_of("charges", Space::Enforce, Some("api.example.com"), "order-17");
    served.put(charge, "charges", completed(201), DAY).await;
    let flags = [
        ["find", "--route", "charges", "--authority", "api.example.com"],
        ["--key", "order-17", "--scope", "header:authorization=Bearer alice", "--json"],
    ];
    assert_eq!(on(&served, &flags.concat()).await.json()["id"], charge.to_string());
    let file = served.file(
        "find.json",
        r#"{"route": "charges", "authority": "api.example.com", "key": "order-17",
            "scope": {"header:authorization": "Bearer alice"}}"#,
    );
    let found = on(&served, &["find", "--request", file.to_str().unwrap(), "--json"]).await;
    assert_eq!(found.json()["id"], charge.to_string());
    on(&served, &["find", "--route", "charge", "--key", "k"])
        .await
        .fails(64, &["No route has this name", "name one of: charges, events, "]);
    let number = served.file("number.json", r#"{"route": "charges", "authority": "h", "key": 12}"#);
    on(&served, &["find", "--request", number.to_str().unwrap()]).await.fails(64, &["`key` is a text"]);
    let missing = on(&served, &["find", "--route", "charges", "--authority", "h", "--key", "k"]).await;
    missing.fails(1, &["there is no such record", "not sent by the client: header:authorization, query:tenant"]);
}

#[tokio::test]
async fn resolve_and_forget_say_what_became_of_the_record() {
    let served = Served::start();
    for number in 1..=3 {
        served.put_unknown(id(number)).await;
    }
    served.put_in_flight(id(4), DAY).await;
    let short = |number| id(number).short().to_string();
    let body = served.file("charge.txt", "charged");
    let with = ["--executed", "--response", body.to_str().unwrap(), "--status", "201", "-H", "X-By: hand"];
    let resolved = on(&served, &[&["resolve", &short(1)], &with[..]].concat()).await;
    assert_eq!(resolved.out().trim(), format!("{} was unknown: now completed", short(1)));
    let Some(Record::Completed { response, .. }) = served.held(id(1)).await else { panic!("not completed") };
    assert_eq!((response.status(), &response.parts().1[..]), (201, &b"charged"[..]));
    let freed = on(&served, &["resolve", &short(2), "--not-executed"]).await;
    assert_eq!(freed.out().trim(), format!("{} was unknown: its key is free", short(2)));
    let forgotten = on(&served, &["forget", &short(3)]).await;
    assert_eq!(forgotten.out().trim(), format!("{} was unknown: its key is free", short(3)));
    on(&served, &["forget", &short(4)]).await.fails(1, &["is under way", "say --force"]);
    assert!(on(&served, &["forget", &short(4), "--force"]).await.out().contains("its key is free"));
    on(&served, &["resolve", &short(1), "--executed"]).await.fails(1, &["state does not allow", "completed"]);
}

#[tokio::test]
async fn what_changed_since_it_was_looked_at_is_left_alone() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    // The record is shown, and settled by its late owner before the change arrives.
    served.store.script(Step::Manage, Fault::Delay(Duration::ZERO));
    served.store.script(Step::Manage, Fault::Hang);
    let settled_meanwhile = async {
        while served.store.hanging() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        served.settle_behind(id(1)).await;
        served.store.release();
    };
    let name = id(1).to_string();
    let arguments = ["resolve", &name, "--not-executed"];
    let (said, ()) = tokio::join!(on(&served, &arguments), settled_meanwhile);
    said.fails(1, &["changed meanwhile", "nothing was done", "decide anew"]);
    assert_eq!(served.held(id(1)).await, Some(completed(200)));
}

#[tokio::test]
async fn a_bulk_change_skips_what_changed_and_says_so() {
    let served = Served::start();
    for number in 1..=3 {
        served.put_unknown(id(number)).await;
    }
    served.store.script(Step::Free, Fault::Hang);
    let first_hangs = async {
        while served.store.hanging() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for number in 1..=3 {
            served.settle_behind(id(number)).await;
        }
        served.store.release();
    };
    let arguments = ["resolve", "--state", "unknown", "--not-executed", "--yes"];
    let (said, ()) = tokio::join!(on(&served, &arguments), first_hangs);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("0 records resolved") && said.err.contains("3 records changed meanwhile"), "{said:?}");
    for number in 1..=3 {
        assert_eq!(served.held(id(number)).await, Some(completed(200)));
    }
}

#[tokio::test]
async fn a_bulk_change_stops_when_the_store_does() {
    let served = Served::start();
    for number in 1..=3 {
        served.put_unknown(id(number)).await;
    }
    served.store.script(Step::Free, Fault::Delay(Duration::ZERO));
    served.store.script(Step::Free, Fault::LoseRequest);
    let said = on(&served, &["resolve", "--state", "unknown", "--not-executed", "--yes", "--json"]).await;
    said.fails(1, &["cannot do that now", "stopped after 1 of 3 records", "repeat the same command"]);
    assert_eq!(served.store.inner().figures().unknown, 2);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_no_usage_error() {
    let served = Served::start();
    let executed = ["resolve", "0123456789abcdef", "--executed", "--response", "/nonexistent/answer"];
    on(&served, &executed).await.fails(1, &["/nonexistent/answer cannot be read"]);
    on(&served, &["find", "--request", "/nonexistent/sent"]).await.fails(1, &["/nonexistent/sent cannot be read"]);
}

#[tokio::test]
async fn several_are_resolved_only_when_somebody_says_so() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    let said = on(&served, &["resolve", "--older", "0s", "--not-executed"]).await;
    assert_eq!(said.code, Some(64), "{said:?}");
    assert!(said.err.contains("nobody is there to confirm") && said.err.contains("--yes"), "{said:?}");
    on(&served, &["resolve", "--not-executed"]).await.fails(64, &["not said what to resolve", "--route"]);
    let there = served.file("answer.json", "{\"status\": 200}");
    for nonsense in [
        &["resolve", "0123456789abcdef"][..],
        &["resolve", "0123456789abcdef", "--executed", "--not-executed"],
        &["resolve", "0123456789abcdef", "--not-executed", "--response", there.to_str().unwrap()],
        &["resolve", "0123456789abcdef", "--not-executed", "--status", "200"],
        &["list", "--older", "10M"],
        &["resolve", "0123456789abcdef", "--route", "r", "--executed"],
        &["resolve", "--state", "completed", "--executed"],
        &["list", "--limit", "0"],
        &["find", "--route", "r"],
    ] {
        on(&served, nonsense).await.fails(64, &[]);
    }
    assert_eq!(served.held(id(1)).await, Some(unknown()));
}

#[tokio::test]
async fn who_may_not_ask_is_told_why_and_what_to_do() {
    let served = Served::start();
    let address = served.address.to_string();
    let at = |token: Option<&Path>| {
        let mut arguments = vec!["list".to_owned(), "--admin".to_owned(), address.clone()];
        arguments.extend(token.into_iter().flat_map(|file| ["--token-file".to_owned(), file.display().to_string()]));
        async move { run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    at(None).await.fails(1, &["asks for a token", "--token-file"]);
    let wrong = served.file("wrong.token", "not-the-token");
    at(Some(&wrong)).await.fails(1, &["does not take this token", "--token-file"]);
    at(Some(&served.file("empty.token", "\n"))).await.fails(1, &["empty.token", "it is empty"]);
    at(Some(Path::new("/nonexistent/token"))).await.fails(1, &["/nonexistent/token", "No such file"]);
    on(&Served::without_token(), &["list"]).await.fails(1, &["shows no records", "token_file under [admin]"]);
}

#[tokio::test]
async fn what_cannot_be_reached_is_69() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    run(&["list", "--admin", &closed]).await.fails(69, &["cannot be reached", &closed, "oncegate run"]);
    run(&["list", "--admin", "unix:/nonexistent/admin.sock"]).await.fails(69, &["cannot be reached", "No such file"]);
    run(&["list", "--admin", "nonsense"]).await.fails(64, &["no address", "unix:PATH"]);
    let served = Served::start();
    served.store.set_down(true);
    on(&served, &["list"]).await.fails(69, &["cannot do that now", "/readyz?store"]);
}

#[tokio::test]
async fn only_of_a_change_it_is_said_that_it_may_have_happened() {
    // It takes connections, and ends each.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let id = "0".repeat(64);
    for (arguments, changes) in [
        (&["list"][..], false),
        (&["show", &id], false),
        (&["find", "--route", "r", "--key", "k"], false),
        (&["forget", &id, "--force"], true),
    ] {
        let said = run(&[arguments, &["--admin", &address]].concat()).await;
        said.fails(69, &["did not answer", "--admin names"]);
        assert_eq!(said.err.contains("may have"), changes, "{said:?}");
    }
}

#[tokio::test]
async fn the_configuration_says_where_to_ask_and_with_which_token() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    let text = |listen: &str| {
        format!(
            "[admin]\nlisten = \"{listen}\"\ntoken_file = \"night-shift.token\"\n\
             [upstreams.a]\nurl = \"http://127.0.0.1:1\"\n[defaults]\nscope = \"shared\"\n"
        )
    };
    let config = served.file("oncegate.toml", &text(&served.address.to_string()));
    assert_eq!(run(&["list", "-c", config.to_str().unwrap()]).await.out().lines().count(), 2);
    let bad = served.file("bad.toml", "[admin]\nlistten = \"x\"\n");
    run(&["list", "-c", bad.to_str().unwrap()]).await.fails(78, &["listten", "the configuration is bad"]);
}

#[tokio::test]
async fn a_unix_socket_asks_for_no_token() {
    let served = Served::unix();
    served.put_unknown(id(1)).await;
    let Address::Unix(path) = &served.address else { panic!("a Unix socket") };
    let address = format!("unix:{}", path.display());
    assert_eq!(run(&["list", "--admin", &address]).await.out().lines().count(), 2);
}
