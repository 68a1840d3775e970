//! Blocks marked ```` ```console run ```` are run, command by command, and print what stands there.
//!
//! They meet a real binary with the `toml` block before them, in front of the API of `examples/api`; the ports of the
//! pages are replaced by free ones and back. Dates, ages and record ids may differ.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
};

use tempfile::TempDir;

use super::{page::Page, rest, tables::families};

/// The addresses that pages speak of.
const DATA: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9464";
const API: &str = "127.0.0.1:9000";

macro_rules! pages {
    ($($test:ident = $name:literal;)+) => {
        const PAGES: &[&str] = &[$($name),+];
        $(#[test]
        fn $test() {
            run($name);
        })+
    };
}

pages! {
    decision = "docs/decision.md";
    promises = "docs/promises.md";
    problems = "docs/problems.md";
    http = "docs/http.md";
    unknown = "docs/unknown.md";
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
        assert_eq!(has_commands, PAGES.contains(&&*page.name), "{}", page.name);
    }
}

#[test]
fn the_binary_exports_the_metrics_of_the_table() {
    let scraped = Scene::new("").run("curl -s http://127.0.0.1:9464/metrics");
    let names = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let families = families();
    assert_eq!(names.collect::<Vec<_>>(), families.iter().map(|family| &*family.name).collect::<Vec<_>>());
}

fn run(name: &str) {
    let mut page = Page::read(name);
    let mut scene = Scene::new("");
    // From the back would keep places true, but commands follow upon each other: blocks are found anew each time.
    for index in 0..page.blocks().len() {
        let block = page.blocks().remove(index);
        let text = page.text[block.place.clone()].to_owned();
        if block.is("toml") && !block.has("fragment") {
            scene = Scene::new(&text);
        } else if block.has("run") {
            let mut printed = String::new();
            for command in commands(&text) {
                printed.push_str(&format!("$ {command}\n"));
                let output = scene.run(&command);
                printed.push_str(&output);
                if !output.is_empty() && !output.ends_with('\n') {
                    printed.push('\n');
                }
            }
            if without_variable_parts(&text) != without_variable_parts(&printed) {
                page.expect(block.place, &printed);
            }
        }
    }
    page.write();
}

/// The commands of a block: lines that begin with `$ `, and those that a backslash joins to them.
fn commands(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        if goes_on {
            let last = found.last_mut().unwrap();
            last.push('\n');
            last.push_str(line);
        } else if let Some(command) = line.strip_prefix("$ ") {
            found.push(command.to_owned());
        } else {
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    found
}

/// A directory with a configuration, an API, and a proxy that starts with the first command.
struct Scene {
    directory: TempDir,
    api: String,
    config: String,
    proxy: Option<Proxy>,
}

struct Proxy {
    child: Child,
    data: String,
    admin: String,
}

impl Scene {
    fn new(config: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = listener.local_addr().unwrap().to_string();
        thread::spawn(move || rest::serve(&listener));
        let directory = tempfile::tempdir().unwrap();
        let config = config.replace(API, &api);
        fs::write(directory.path().join("oncegate.toml"), &config).unwrap();
        fs::write(directory.path().join("admin.token"), "token-of-the-examples\n").unwrap();
        fs::write(directory.path().join("secret"), "secret-of-the-examples\n").unwrap();
        Self { directory, api, config, proxy: None }
    }

    fn run(&mut self, command: &str) -> String {
        if self.proxy.is_none() {
            self.proxy = Some(self.start());
        }
        let Proxy { data, admin, .. } = self.proxy.as_ref().unwrap();
        let ports = [(DATA, data), (ADMIN, admin), (API, &self.api)];
        let script = ports.iter().fold(command.to_owned(), |text, (page, real)| text.replace(page, real));
        let output = self.command("sh").args(["-c", &format!("exec 2>&1\n{script}")]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
        ports.iter().fold(text, |text, (page, real)| text.replace(*real, page))
    }

    /// A command that finds `oncegate` and nothing of the user's own settings.
    fn command(&self, program: &str) -> Command {
        let binary = std::path::Path::new(env!("CARGO_BIN_EXE_oncegate")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env_clear().env("PATH", path).env("HOME", self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    fn start(&self) -> Proxy {
        let mut command = self.command(env!("CARGO_BIN_EXE_oncegate"));
        command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        match self.config.as_str() {
            "" => command.args(["--upstream", &format!("http://{}", self.api)]),
            _ => command.args(["-c", "oncegate.toml"]),
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let mut listening = |what: &str| {
            for line in lines.by_ref() {
                if let Some((before, address)) = line.split_once("listening on ")
                    && before.contains("admin") == (what == "admin")
                {
                    return address.trim().to_owned();
                }
                said.push(line);
            }
            panic!("oncegate does not say where it listens for {what}:\n{}", said.join("\n"));
        };
        let (data, admin) = (listening("clients"), listening("admin"));
        // Nobody reads on: a full pipe would stop the log, and the proxy with it.
        thread::spawn(move || lines.for_each(drop));
        Proxy { child, data, admin }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The text without what differs each time: dates, ages, ids and versions.
fn without_variable_parts(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        if line.to_ascii_lowercase().starts_with("date: ") {
            plain.push_str("date\n");
            continue;
        }
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
