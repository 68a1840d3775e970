//! Reads `[server]`, `[admin]`, `[log]`, `[store]` and `[upstreams.*]`. All their defaults are here.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    files::{Named, Purpose},
    reference::Table,
    section::{Section, Spot},
    settled::{
        Address, Admin, HostHeader, Log, LogFormat, Redis, RedisServers, Server, ServerTls, Store, StoreKind, Upstream,
        UpstreamTls, UpstreamUrl,
    },
    value::{self, Wrong},
    words::Kind,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// hyper reads a head into a buffer of at least this size.
const LEAST_HEAD: u64 = 8 * KIB;

/// A head is held in memory for each connection: more is an attack, not a request.
const MOST_HEAD: u64 = 16 * MIB;

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Address::Tcp(SocketAddr::from(([0, 0, 0, 0], 8080))),
            max_connections: 10_000,
            max_connections_per_address: None,
            max_in_flight: 4096,
            max_buffered: 64 * MIB,
            max_head: 32 << 10,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            // Longer than the 60 s after which common load balancers give up an idle connection of theirs.
            idle_timeout: Duration::from_secs(75),
            max_connection_age: None,
            // Within the 30 s that Kubernetes waits before it kills.
            drain_timeout: Duration::from_secs(25),
            accept_identity_change: false,
            tls: None,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 9464))), token_file: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: tracing::Level::INFO, access: true }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Memory { max_bytes: DEFAULT_MEMORY },
            lease: Duration::from_secs(15),
            allow_eviction: false,
            secret_file: None,
        }
    }
}

const DEFAULT_MEMORY: u64 = 256 * MIB;

impl Default for Redis {
    fn default() -> Self {
        Self {
            servers: RedisServers::Single("redis://127.0.0.1:6379/0".to_owned()),
            prefix: "oncegate:".to_owned(),
            timeout: Duration::from_millis(250),
            settle_backlog: 64 * MIB,
            username: None,
            password_file: None,
            tls_ca: None,
            encrypt: false,
            replicas: 0,
        }
    }
}

impl Upstream {
    /// An upstream with every default.
    #[must_use]
    pub fn new(name: &str, urls: Vec<UpstreamUrl>) -> Self {
        Self {
            name: name.to_owned(),
            urls,
            connect_timeout: Duration::from_secs(1),
            queue_timeout: Duration::from_secs(1),
            max_connections: 512,
            max_idle_guarded: Duration::from_secs(1),
            http2: false,
            host: HostHeader::Preserve,
            tls: UpstreamTls::default(),
        }
    }
}

/// Writes a value where the key was given and could be read.
macro_rules! set {
    ($field:expr, $read:expr) => {
        if let Some(Spot { value, .. }) = $read {
            $field = value;
        }
    };
}

// Behind the macro, which it uses.
mod upstreams;

pub(crate) use self::upstreams::upstreams;

/// Reads the names of files, and remembers them to be looked at.
pub(crate) struct FileNames<'a> {
    pub(crate) base: &'a Path,
    pub(crate) named: Vec<Named>,
}

impl FileNames<'_> {
    /// A file that a key names; relative paths begin at the configuration's directory.
    fn read(&mut self, section: &Section<'_, '_>, key: &'static str, purpose: Purpose) -> Option<PathBuf> {
        let Spot { value, span } = section.read(key, value::file)?;
        let path = self.base.join(value);
        self.named.push(Named { path: path.clone(), purpose, key, span, certificate: None });
        Some(path)
    }

    /// A certificate and its key, of which neither makes sense alone.
    fn read_pair(&mut self, section: &Section<'_, '_>) -> Option<(PathBuf, PathBuf)> {
        let cert = self.read(section, "cert", Purpose::Certificates);
        let key = self.read(section, "key", Purpose::PrivateKey);
        let (given, missing) = match (section.get("cert").is_some(), section.get("key").is_some()) {
            (true, false) => ("cert", "key"),
            (false, true) => ("key", "cert"),
            (true, true) | (false, false) => {
                if let (Some(_), Some(named)) = (&key, self.named.last_mut()) {
                    named.certificate.clone_from(&cert);
                }
                return cert.zip(key);
            }
        };
        let message = format!("`{given}` without `{missing}` in {}", section.title);
        section.reader.error(
            &section.place(given),
            message,
            "",
            "a certificate is of no use without its private key: name both files",
        );
        None
    }
}

/// A number that fits a `usize` on every machine that runs this.
fn count(spot: Spot<u64>) -> Spot<usize> {
    Spot { value: usize::try_from(spot.value).unwrap_or(usize::MAX), span: spot.span }
}

/// `[server]`, but for `listen`, which a flag may beat.
pub(crate) fn server(section: &Section<'_, '_>, files: &mut FileNames<'_>) -> Server {
    let mut server = Server::default();
    set!(server.max_connections, section.integer("max_connections").map(count));
    if let Some(most) = section.integer("max_connections_per_address").map(count) {
        server.max_connections_per_address = (most.value > 0).then_some(most.value);
    }
    set!(server.max_in_flight, section.integer("max_in_flight").map(count));
    set!(server.max_buffered, section.read("max_buffered", value::size));
    set!(server.max_head, section.read("max_head", head));
    set!(server.header_timeout, section.read("header_timeout", value::timeout));
    set!(server.body_timeout, section.read("body_timeout", value::timeout));
    set!(server.idle_timeout, section.read("idle_timeout", value::timeout));
    set!(server.max_connection_age, section.read("max_connection_age", value::timeout_or_off));
    set!(server.drain_timeout, section.read("drain_timeout", value::duration));
    set!(server.accept_identity_change, section.boolean("accept_identity_change"));
    if let Some(networks) = section.list("trusted_proxies", value::network) {
        server.trusted_proxies = networks.value.into_iter().map(|network| network.value).collect();
    }
    set!(server.proxy_protocol, section.boolean("proxy_protocol"));
    if let Some(tls) = section.table("tls", &[Table::ServerTls], "[server] tls") {
        if tls.get("cert").is_none() && tls.get("key").is_none() {
            let help = "name both files: tls = { cert = \"tls.crt\", key = \"tls.key\" }";
            section.reader.error(&tls.span, "`tls` without a certificate", "", help);
        }
        let pair = files.read_pair(&tls);
        let client_ca = files.read(&tls, "client_ca", Purpose::Certificates);
        let client_certificate = tls.choice("client_certificate").map_or_else(Default::default, |spot| {
            if client_ca.is_none() && tls.get("client_ca").is_none() {
                let help = "name the authority of the clients' certificates: client_ca = \"ca.crt\"";
                section.reader.error(&spot.span, "`client_certificate` without `client_ca`", "", help);
            }
            spot.value
        });
        server.tls = pair.map(|(cert, key)| ServerTls { cert, key, client_ca, client_certificate });
    }
    server
}

fn head(text: &str) -> Result<usize, Wrong> {
    match value::size(text)? {
        bytes @ LEAST_HEAD..=MOST_HEAD => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        _ => value::wrong("out of range", "say a size from 8KiB to 16MiB"),
    }
}

/// `[admin]`, but for `listen`, which a flag may beat.
pub(crate) fn admin(section: &Section<'_, '_>, files: &mut FileNames<'_>) -> Admin {
    Admin { token_file: files.read(section, "token_file", Purpose::Token), ..Admin::default() }
}

/// Whether one of two addresses would take the other's connections.
pub(crate) fn overlap(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Unix(one), Address::Unix(other)) => one == other,
        (Address::Tcp(one), Address::Tcp(other)) => {
            let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
            same_host && one.port() == other.port() && one.port() != 0
        }
        (Address::Tcp(_), Address::Unix(_)) | (Address::Unix(_), Address::Tcp(_)) => false,
    }
}

/// `[log]`
pub(crate) fn log(section: &Section<'_, '_>) -> Log {
    let mut log = Log::default();
    set!(log.format, section.choice("format"));
    set!(log.level, section.choice("level"));
    set!(log.access, section.boolean("access"));
    log
}

/// `[store]`
pub(crate) fn store(section: &Section<'_, '_>, files: &mut FileNames<'_>) -> Store {
    let mut store = Store::default();
    let mut kind = Kind::Memory;
    set!(kind, section.choice("kind"));
    set!(store.lease, section.read("lease", value::timeout));
    set!(store.allow_eviction, section.boolean("allow_eviction"));
    store.secret_file = files.read(section, "secret_file", Purpose::Secrets);
    let mut max_bytes = DEFAULT_MEMORY;
    if let Some(memory) = section.table("memory", &[Table::StoreMemory], "[store.memory]") {
        set!(max_bytes, memory.read("max_bytes", positive_size));
    }
    let mut redis = Redis::default();
    if let Some(table) = section.table("redis", &[Table::StoreRedis], "[store.redis]") {
        redis = read_redis(&table, files);
        let help = "the memory store is used, and this table is not: say kind = \"redis\", or leave the table out";
        if kind == Kind::Memory {
            let key = section.get("redis").map_or_else(|| table.span.clone(), |entry| entry.key_span);
            section.reader.warn(&key, "[store.redis] without `kind = \"redis\"`", help);
        }
        if redis.encrypt && section.get("secret_file").is_none() {
            section.reader.error(
                &table.place("encrypt"),
                "`encrypt` without `secret_file`",
                "",
                "stored responses are sealed with a key derived from it: [store] secret_file = \"/etc/oncegate/secret\"",
            );
        }
    }
    if kind == Kind::Redis && section.get("secret_file").is_none() {
        section.reader.warn(
            &section.place("kind"),
            "Redis without `secret_file`: record ids are keyed with a public key",
            "whoever reads Redis can test guesses of keys and credentials: [store] secret_file = \"/etc/oncegate/secret\"",
        );
    }
    store.kind = match kind {
        Kind::Memory => StoreKind::Memory { max_bytes },
        Kind::Redis => StoreKind::Redis(redis),
    };
    store
}

fn positive_size(text: &str) -> Result<u64, Wrong> {
    match value::size(text)? {
        0 => value::wrong("no room at all", "say 64MiB, 256MiB, 1GiB"),
        bytes => Ok(bytes),
    }
}

fn read_redis(section: &Section<'_, '_>, files: &mut FileNames<'_>) -> Redis {
    let mut redis = Redis::default();
    let places: Vec<_> = ["url", "cluster", "sentinel"].into_iter().filter(|key| section.get(key).is_some()).collect();
    if let [_, second, ..] = places[..] {
        let message = format!("`{}` and `{second}` in [store.redis]", places[0]);
        section.reader.error(
            &section.place(second),
            message,
            "",
            "records are in one place: give url, cluster or sentinel",
        );
    }
    set!(redis.servers, section.read("url", |text| value::redis_url(text).map(RedisServers::Single)));
    if let Some(nodes) = section.list("cluster", value::redis_url) {
        redis.servers = RedisServers::Cluster(some_nodes(section, nodes));
    }
    if let Some(sentinel) = section.table("sentinel", &[Table::Sentinel], "[store.redis] sentinel") {
        let master = sentinel.read("master", value::line);
        let nodes = sentinel.list("nodes", value::redis_url);
        for key in ["master", "nodes"] {
            if sentinel.get(key).is_none() {
                let help = "say sentinel = { master = \"m\", nodes = [\"redis://s1:26379\"] }";
                section.reader.error(&sentinel.span, format!("`sentinel` without `{key}`"), "", help);
            }
        }
        if let (Some(master), Some(nodes)) = (master, nodes) {
            redis.servers = RedisServers::Sentinel { master: master.value, nodes: some_nodes(&sentinel, nodes) };
        }
    }
    set!(redis.prefix, section.read("prefix", prefix));
    set!(redis.timeout, section.read("timeout", value::timeout));
    set!(redis.settle_backlog, section.read("settle_backlog", value::size));
    redis.username = section.read("username", value::line).map(|name| name.value);
    redis.password_file = files.read(section, "password_file", Purpose::Password);
    redis.tls_ca = files.read(section, "tls_ca", Purpose::Certificates);
    set!(redis.encrypt, section.boolean("encrypt"));
    if let Some(replicas) = section.integer("replicas") {
        redis.replicas = u32::try_from(replicas.value).unwrap_or(u32::MAX);
    }
    redis
}

/// Braces tell a Cluster which keys belong together: those of a record, by braces of our own.
fn prefix(text: &str) -> Result<String, Wrong> {
    if text.contains(['{', '}']) {
        return value::wrong(
            "braces in a prefix",
            "leave them out: Oncegate spreads the records over a Cluster by its own",
        );
    }
    Ok(text.to_owned())
}

fn some_nodes(section: &Section<'_, '_>, nodes: Spot<Vec<Spot<String>>>) -> Vec<String> {
    if nodes.value.is_empty() {
        section.reader.error(&nodes.span, "no node at all", "", "name at least one: [\"redis://10.0.0.1:6379\"]");
    }
    nodes.value.into_iter().map(|node| node.value).collect()
}
