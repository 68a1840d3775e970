//! Where the commands of a page run: a directory, an API, a proxy, and free ports in place of the page's.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{rest, tools};

/// The addresses that pages speak of.
const DATA: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9464";
const API: &str = "127.0.0.1:9000";
const ANY: &str = "127.0.0.1:0";

/// What npm's runner does: the name's version is that which `test.sh` installs.
const NPX: &str = r#"#!/bin/sh
[ "$1" = --yes ] && shift
name=${1%@*}
shift
exec "$TOOLS/$name" "$@"
"#;

/// How a page's servers come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starts {
    /// API and proxy are there when the first command runs.
    Alone,
    /// By commands that end in ` &`.
    ByCommand,
}

/// A directory with a configuration, an API and a proxy.
pub(crate) struct Scene {
    directory: TempDir,
    starts: Starts,
    api: String,
    config: String,
    proxy: Option<Proxy>,
    servers: Vec<Server>,
    /// Names of records: the page's, and what they are in this run.
    records: Vec<(String, String)>,
}

struct Proxy {
    _server: Server,
    data: String,
    admin: String,
}

impl Scene {
    pub(crate) fn new(config: &str, starts: Starts) -> Self {
        let listener = TcpListener::bind(ANY).unwrap();
        let api = listener.local_addr().unwrap().to_string();
        if starts == Starts::Alone {
            thread::spawn(move || rest::serve(&listener));
        }
        let directory = tempfile::tempdir().unwrap();
        let config = config.replace(API, &api);
        let file = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        file("oncegate.toml", &config);
        file("admin.token", "token-of-the-examples\n");
        file("secret", "secret-of-the-examples\n");
        fs::create_dir(directory.path().join("bin")).unwrap();
        file("bin/npx", NPX);
        fs::set_permissions(directory.path().join("bin/npx"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, starts, api, config, proxy: None, servers: Vec::new(), records: Vec::new() }
    }

    /// What a command prints, in the page's words. `expected` tells the names that it gives to records.
    pub(crate) fn run(&mut self, command: &str, expected: &str) -> String {
        if let Some(server) = command.strip_suffix(" &") {
            assert_eq!(self.starts, Starts::ByCommand, "a page that starts a server: {command}");
            self.serve(server);
            return String::new();
        }
        if self.proxy.is_none() && self.starts == Starts::Alone {
            let from = match self.config.as_str() {
                "" => format!("--upstream http://{}", self.api),
                _ => "-c oncegate.toml".to_owned(),
            };
            self.proxy = Some(self.start(&format!("oncegate run {from} --listen {ANY} --admin {ANY}")));
        }
        let command = command.replace("cargo run --release -- ", "oncegate ");
        let script = self.replacements().fold(command, |text, (page, real)| text.replace(page, real));
        let output = self.command("sh").args(["-c", &format!("exec 2>&1\n{script}")]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
        self.learn(expected, &text);
        self.replacements().fold(text, |text, (page, real)| text.replace(real, page))
    }

    fn replacements(&self) -> impl Iterator<Item = (&str, &str)> {
        let proxy = self.proxy.iter().flat_map(|Proxy { data, admin, .. }| [(DATA, &**data), (ADMIN, &**admin)]);
        // A socket's path is the page's own.
        let proxy = proxy.filter(|(_, real)| !real.starts_with("unix:"));
        let records = self.records.iter().map(|(page, real)| (&**page, &**real));
        proxy.chain([(API, &*self.api)]).chain(records)
    }

    /// Names in the order in which they stand there.
    fn learn(&mut self, expected: &str, printed: &str) {
        let names = |text: &str| {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            let is_name = |word: &&str| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            words.filter(is_name).map(str::to_owned).collect::<Vec<_>>()
        };
        let new = names(expected).into_iter().zip(names(printed)).filter(|(page, real)| page != real);
        for pair in new.collect::<Vec<_>>() {
            if !self.records.contains(&pair) {
                self.records.push(pair);
            }
        }
    }

    /// Starts what a page runs in the background, and returns when it listens.
    fn serve(&mut self, command: &str) {
        if command.starts_with("oncegate run ") {
            let admin = if command.contains("--admin ") { String::new() } else { format!(" --admin {ANY}") };
            let command = command.replace(DATA, ANY).replace(API, &self.api);
            self.proxy = Some(self.start(&format!("{command}{admin}")));
            return;
        }
        if command == "cargo run --example api" {
            let listener = TcpListener::bind(&self.api).unwrap();
            thread::spawn(move || rest::serve(&listener));
            return;
        }
        let port = |address: &str| format!("--port {}", address.rsplit(':').next().unwrap());
        let command = command.replace(&port(API), &port(&self.api));
        let child = self.command("sh").args(["-c", &format!("exec {command}")]).stdout(Stdio::null()).spawn().unwrap();
        self.servers.push(Server(child));
        // A minute: other tests load the machine.
        let listens = (0..1200).any(|_| {
            thread::sleep(Duration::from_millis(50));
            TcpStream::connect(&self.api).is_ok()
        });
        assert!(listens, "it does not listen: {command}");
    }

    /// A command that finds `oncegate` and nothing of the user's own settings.
    fn command(&self, program: &str) -> Command {
        let here = self.directory.path();
        let binary = Path::new(env!("CARGO_BIN_EXE_oncegate")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}", binary.display(), here.join("bin").display());
        let mut command = Command::new(program);
        command.current_dir(here).env_clear().env("PATH", path).env("HOME", here);
        if let Some(directory) = tools::find("json-server").as_deref().and_then(Path::parent) {
            command.env("TOOLS", directory);
        }
        command.stdin(Stdio::null());
        command
    }

    fn start(&self, script: &str) -> Proxy {
        let mut command = self.command("sh");
        command.args(["-c", &format!("exec {script}")]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let server = Server(child);
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
        Proxy { _server: server, data, admin }
    }
}

/// A process that ends with its scene.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
