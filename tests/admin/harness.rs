//! An admin API in this process, and a client that sends what it is told.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use oncegate::{
    admin::{self, Admin, Listener, Process, Readiness},
    config::{self, Config, Overrides, settled::Address},
    rule::{
        Expect, Fingerprint, Record, RecordId, RouteName, Stored, UnknownReason, Version,
        identity::{self, IdKey, ScopeValues, Space},
        key::Key,
    },
    store::{
        Store as _, Swap, Write,
        faulty::FaultyStore,
        memory::{MemoryOptions, MemoryStore},
    },
    telemetry::metrics::OperatorChange,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) const TOKEN: &str = "t0k3n-of-the-tests";
pub(crate) const ID_KEY: IdKey = IdKey([7; 32]);

const CONFIG: &str = r#"
[admin]
token_file = "night-shift.token"

[upstreams.payments]
url = "http://127.0.0.1:1"

[defaults]
scope = ["header:authorization", "query:tenant"]

[[routes]]
name = "charges"
path = "/v1/charges"
retention = "3h"
max_response_body = "1KiB"
drop_headers = ["x-secret"]

[[routes]]
name = "events"
id = "hooks"
path = "/hooks"
key = ["json:/id", "header:x-event+header:x-part"]
scope = "shared"
authority = "ignore"

[[routes]]
name = "watched"
path = "/watched"
mode = "observe"

[[routes]]
name = "legacy"
path = "/legacy"
key = ["content:10m"]
scope = "shared"

[[routes]]
name = "either"
path = "/either"
key = ["header:X-Id", "content:10m"]
key_format = "uuid"
scope = "shared"
authority = "ignore"

[[routes]]
name = "unguarded"
path = "/unguarded"
mode = "off"
"#;

/// An admin API and what is behind it.
pub(crate) struct Served {
    pub(crate) store: Arc<FaultyStore<MemoryStore>>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) address: Address,
    directory: TempDir,
}

/// What the rest of the process would tell.
struct Told(Arc<Config>);

impl Process for Told {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0)
    }

    fn metrics(&self) -> String {
        "oncegate_in_flight 0\n".to_owned()
    }

    fn changed(&self, _change: OperatorChange) {}
}

impl Served {
    /// On a port of its own, with a token.
    pub(crate) fn start() -> Self {
        Self::with(|_| (Address::Tcp(([127, 0, 0, 1], 0).into()), true))
    }

    /// On a port of its own, without a token.
    pub(crate) fn without_token() -> Self {
        Self::with(|_| (Address::Tcp(([127, 0, 0, 1], 0).into()), false))
    }

    /// On a Unix socket.
    pub(crate) fn unix() -> Self {
        Self::with(|directory| (Address::Unix(directory.join("admin.sock")), false))
    }

    fn with(place: impl FnOnce(&Path) -> (Address, bool)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("night-shift.token");
        std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
        let (address, has_token) = place(directory.path());
        let listener = Listener::bind(&address).unwrap();
        let config = config::parse("oncegate.toml", CONFIG, &Overrides::default(), &|_| None).unwrap().config;
        let options = MemoryOptions { max_bytes: 8 << 20, allow_eviction: false };
        let served = Self {
            store: Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(options)))),
            readiness: Arc::default(),
            address: listener.local(),
            directory,
        };
        served.readiness.ready();
        let admin = Admin {
            store: Arc::clone(&served.store),
            process: Box::new(Told(Arc::new(config))),
            readiness: Arc::clone(&served.readiness),
            id_key: ID_KEY,
            token_file: has_token.then_some(token_file),
        };
        tokio::spawn(admin::serve(listener, Arc::new(admin)));
        served
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.directory.path().join("night-shift.token")
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    // === records ===

    /// Writes a record under the version that its id begins with.
    pub(crate) async fn put(&self, id: RecordId, route: &str, record: Record<Stored>, keep: Duration) {
        let write = Write { record, keep, route: RouteName(route.into()) };
        let version = first_version(id);
        let swap = self.store.inner().swap(&id, Expect::Absent, version, Some(write)).await.unwrap();
        assert_eq!(swap, Swap::Done);
    }

    pub(crate) async fn put_unknown(&self, id: RecordId) {
        self.put(id, "charges", unknown(), 30 * DAY).await;
    }

    pub(crate) async fn put_in_flight(&self, id: RecordId, lease: Duration) {
        let record = Record::InFlight { fingerprint: FINGERPRINT, lease, running: Duration::ZERO };
        self.put(id, "charges", record, DAY).await;
    }

    /// Somebody else settles a record, behind the back of whoever looked at it.
    pub(crate) async fn settle_behind(&self, id: RecordId) {
        let write = Write { record: completed(200), keep: DAY, route: RouteName("charges".into()) };
        let expect = Expect::Version(first_version(id));
        let swap = self.store.inner().swap(&id, expect, Version([0xee; 16]), Some(write)).await.unwrap();
        assert_eq!(swap, Swap::Done);
    }

    /// What the store holds of a record; the admin API is not asked.
    pub(crate) async fn held(&self, id: RecordId) -> Option<Record<Stored>> {
        self.store.inner().load(&id).await.unwrap().map(|cell| cell.record)
    }

    // === requests ===

    /// Sends with the token.
    pub(crate) async fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Reply {
        self.send(&format!(
            "{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n{fields}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "", "").await
    }

    pub(crate) async fn resolve(&self, id: impl std::fmt::Display, body: &str) -> Reply {
        self.ask("POST", &format!("/records/{id}/resolve"), "", body).await
    }

    /// Sends these bytes, and reads to the end of the connection.
    pub(crate) async fn send(&self, request: &str) -> Reply {
        let mut bytes = Vec::new();
        let mut stream = TcpStream::connect(self.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        // A server that refuses a body early may reset the connection behind its answer.
        let _ = stream.read_to_end(&mut bytes).await;
        Reply::parse(&String::from_utf8(bytes).unwrap())
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        match &self.address {
            Address::Tcp(address) => *address,
            Address::Unix(_) => panic!("a Unix socket has no port"),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless this is a problem document of that status; gives it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "{problem}");
        problem
    }
}

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const FINGERPRINT: Fingerprint = Fingerprint([9; 32]);

/// The id that is this number, spread over its bytes.
pub(crate) fn id(number: u8) -> RecordId {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(0..).for_each(|(byte, at)| *byte = number.wrapping_mul(31).wrapping_add(at));
    RecordId(bytes)
}

/// The version under which the harness writes a record.
pub(crate) fn first_version(id: RecordId) -> Version {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&id.0[..16]);
    Version(bytes)
}

pub(crate) fn unknown() -> Record<Stored> {
    Record::Unknown { fingerprint: FINGERPRINT, reason: UnknownReason::Lost, status: None }
}

pub(crate) fn completed(status: u16) -> Record<Stored> {
    let response = Stored::not_kept(status, &http::HeaderMap::new());
    Record::Completed { fingerprint: FINGERPRINT, response }
}

/// The id of a request of alice's with that key on a route of the harness's configuration.
pub(crate) fn id_of(route: &str, space: Space, authority: Option<&str>, key: &str) -> RecordId {
    let config = config::parse("oncegate.toml", CONFIG, &Overrides::default(), &|_| None).unwrap().config;
    let route = config.routes.iter().find(|found| &*found.name.0 == route).unwrap();
    let values: Vec<_> = match route.policy.scope.as_ref().unwrap() {
        oncegate::rule::policy::Scope::Shared => Vec::new(),
        oncegate::rule::policy::Scope::Parts(parts) => parts.iter().collect(),
    };
    let scope = if values.is_empty() {
        ScopeValues::Shared
    } else {
        ScopeValues::Parts(values.into_iter().zip([Some(b"Bearer alice"[..].into()), None]).collect())
    };
    let key = Key::named(&route.policy.key[0], key.as_bytes());
    identity::record_id(&ID_KEY, space, authority, &scope, &route.id, &key)
}
