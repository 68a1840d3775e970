//! Blocks marked ```` ```console run ```` are run, command by command, and print what stands there.
//!
//! They meet a real binary with the `toml` block before them, in front of the API of `examples/api`; the ports of the
//! pages are replaced by free ones and back. Dates, ages and record ids may differ. `README.md` starts its servers by
//! itself, as its reader does.

use super::{
    page::{Page, blessing},
    scene::{Scene, Starts},
    tables::families,
    tools,
};

macro_rules! pages {
    ($($test:ident = $name:literal;)+) => {
        const PAGES: &[&str] = &[$($name),+];
        $(#[test]
        fn $test() {
            run($name, Starts::Alone);
        })+
    };
}

/// A page that needs json-server, as `test.sh` installs it.
const README: &str = "README.md";

pages! {
    decision = "docs/decision.md";
    promises = "docs/promises.md";
    problems = "docs/problems.md";
    http = "docs/http.md";
    unknown = "docs/unknown.md";
    admin = "docs/admin.md";
    stripe = "docs/recipes/stripe.md";
    legacy_post = "docs/recipes/legacy-post.md";
    webhooks = "docs/recipes/webhooks.md";
    cloud_events = "docs/recipes/cloud-events.md";
    cron = "docs/recipes/cron.md";
    patch_and_put = "docs/recipes/patch-and-put.md";
    delete = "docs/recipes/delete.md";
    paypal = "docs/recipes/paypal.md";
    square = "docs/recipes/square.md";
}

#[test]
fn every_page_with_commands_to_run_is_run() {
    for page in Page::all() {
        let has_commands = page.blocks().iter().any(|block| block.has("run"));
        assert_eq!(has_commands, [PAGES, &[README]].concat().contains(&&*page.name), "{}", page.name);
    }
}

#[test]
fn readme() {
    if tools::find_or_skip("json-server").is_some() {
        run(README, Starts::ByCommand);
    }
}

#[test]
fn every_command_of_the_readme_is_run() {
    let page = Page::read(README);
    for block in page.blocks().iter().filter(|block| block.is("console")) {
        assert!(block.has("run"), "{}", &page.text[block.place.clone()]);
    }
}

#[test]
fn the_binary_exports_the_metrics_of_the_table() {
    let scraped = Scene::new("", Starts::Alone).run("curl -s http://127.0.0.1:9464/metrics", "");
    let names = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let families = families();
    assert_eq!(names.collect::<Vec<_>>(), families.iter().map(|family| &*family.name).collect::<Vec<_>>());
}

fn run(name: &str, starts: Starts) {
    let mut page = Page::read(name);
    let mut scene = Scene::new("", starts);
    // From the back would keep places true, but commands follow upon each other: blocks are found anew each time.
    for index in 0..page.blocks().len() {
        let block = page.blocks().remove(index);
        let text = page.text[block.place.clone()].to_owned();
        if block.is("toml") && !block.has("fragment") {
            scene = Scene::new(&text, starts);
        } else if block.has("run") {
            let mut printed = String::new();
            for Entry { command, output: expected } in entries(&text) {
                let mut output = scene.run(&command, &expected);
                if !output.is_empty() && !output.ends_with('\n') {
                    output.push('\n');
                }
                if !blessing() && without_variable_parts(&output) != without_variable_parts(&expected) {
                    panic!("{name}: $ {command}\n=== found\n{expected}=== expected\n{output}");
                }
                printed.push_str(&format!("$ {command}\n{output}"));
            }
            if without_variable_parts(&text) != without_variable_parts(&printed) {
                page.expect(block.place, &printed);
            }
        }
    }
    page.write();
}

/// A command, and what stands below it.
#[derive(Default)]
struct Entry {
    command: String,
    output: String,
}

/// The commands of a block: lines that begin with `$ `, and those that a backslash joins to them.
fn entries(text: &str) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        if goes_on {
            let last = found.last_mut().unwrap();
            last.command.push('\n');
            last.command.push_str(line);
        } else if let Some(command) = line.strip_prefix("$ ") {
            found.push(Entry { command: command.to_owned(), ..Entry::default() });
        } else {
            let last = found.last_mut().expect("a block begins with a command");
            last.output.push_str(line);
            last.output.push('\n');
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    found
}

/// The line with `0` for each `…_seconds` of a JSON object.
fn without_seconds(line: &str) -> String {
    const SECONDS: &str = "_seconds\":";
    let mut parts = line.split(SECONDS);
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        plain.push_str(SECONDS);
        plain.push('0');
        plain.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.'));
    }
    plain
}

/// The text without what differs each time: dates, ages, ids and versions.
fn without_variable_parts(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        if let Some(what) = ["date: ", "settled: "].iter().find(|what| line.to_ascii_lowercase().starts_with(**what)) {
            plain.push_str(what);
            plain.push('\n');
            continue;
        }
        // The demo's progress, in the order of events.
        if let Some((title, _)) =
            line.split_once("Oncegate  ").filter(|(title, _)| title.trim_end().starts_with("with"))
        {
            plain.push_str(title);
            plain.push_str("progress\n");
            continue;
        }
        let line = &without_seconds(line);
        for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '=') {
            let (kept, end) = word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
            let is_id = matches!(kept.len(), 16 | 32 | 64) && kept.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_age = kept.strip_suffix('s').is_some_and(|count| count.parse::<u32>().is_ok())
                || kept.starts_with("age=")
                || (kept.starts_with("ttl=") && plain.ends_with("age;"));
            match (is_id, is_age) {
                (true, _) => plain.push_str("id"),
                (_, true) => plain.push_str("age"),
                (false, false) => plain.push_str(kept),
            }
            plain.push_str(end);
        }
        plain.push('\n');
    }
    plain
}
