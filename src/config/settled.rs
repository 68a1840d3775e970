//! The validated configuration. What is here cannot be wrong; all of it comes from [`crate::config::load`].

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::Method;
use ipnet::IpNet;

use crate::rule::{Policy, RouteName};

/// Everything `oncegate run` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
    /// `[store]`
    pub store: Store,
    /// `[upstreams.*]`, by name in alphabetical order.
    pub upstreams: Vec<Arc<Upstream>>,
    /// `[defaults]` over what is built in, of which only how refusals look is for requests that have no route. It may
    /// lack a scope.
    pub defaults: Policy,
    /// `[[routes]]`, in the file's order.
    pub routes: Vec<Arc<Route>>,
    /// What a request that no route matches meets: the only upstream with `[defaults]`; `None` with several upstreams
    /// (contract: R-1).
    pub fallback: Option<Arc<Route>>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where clients connect.
    pub listen: Address,
    /// Beyond: 503 and close.
    pub max_connections: usize,
    /// Of them, from one client's address; `None` without a limit.
    pub max_connections_per_address: Option<usize>,
    /// Guarded exchanges under way, client or no client.
    pub max_in_flight: usize,
    /// Bytes of bodies of guarded requests and answers being held.
    pub max_buffered: u64,
    /// Bytes of a request's head.
    pub max_head: usize,
    /// Accept, or first byte of a later request, to the whole head.
    pub header_timeout: Duration,
    /// Longest silence while a request body arrives.
    pub body_timeout: Duration,
    /// Between an answer and the first byte of the next request.
    pub idle_timeout: Duration,
    /// From accept to the connection's drain; `None` without a limit.
    pub max_connection_age: Option<Duration>,
    /// From SIGTERM to the end.
    pub drain_timeout: Duration,
    /// A reload may put live records out of reach.
    pub accept_identity_change: bool,
    /// TLS for clients.
    pub tls: Option<ServerTls>,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections of `trusted_proxies`, and those on a Unix socket, begin with a PROXY header.
    pub proxy_protocol: bool,
}

/// `server.tls`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Authority of client certificates, PEM.
    pub client_ca: Option<PathBuf>,
    /// With an authority: whether a client may come without a certificate.
    pub client_certificate: ClientCertificate,
}

/// `server.tls.client_certificate`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Every client needs one.
    #[default]
    Required,
    /// One that is shown must be the authority's; a client may show none.
    Optional,
}

/// A place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where health, metrics and records are served.
    pub listen: Address,
    /// Holds the bearer token.
    pub token_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `format`
    pub format: LogFormat,
    /// `level`: error, warn, info, debug, trace.
    pub level: tracing::Level,
    /// One line a request.
    pub access: bool,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which store.
    pub kind: StoreKind,
    /// How long an owner may stay silent; renewed every third of it.
    pub lease: Duration,
    /// A full store may forget live records (P-1 ends there).
    pub allow_eviction: bool,
    /// Secrets that seal and key ids.
    pub secret_file: Option<PathBuf>,
}

/// `store.kind` with that kind's own table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// `[store.memory]`
    Memory {
        /// Bytes the records may take.
        max_bytes: u64,
    },
    /// `[store.redis]`
    Redis(Redis),
}

/// `[store.redis]`
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// Where the servers are.
    pub servers: RedisServers,
    /// Begins every key.
    pub prefix: String,
    /// Of one operation.
    pub timeout: Duration,
    /// Bytes of answers waiting for Redis to come back.
    pub settle_backlog: u64,
    /// ACL user.
    pub username: Option<String>,
    /// Holds the password.
    pub password_file: Option<PathBuf>,
    /// Authority of the servers' certificates, PEM.
    pub tls_ca: Option<PathBuf>,
    /// Stored responses are sealed.
    pub encrypt: bool,
    /// Replicas that must acknowledge a claim and a completion.
    pub replicas: u32,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // URLs may hold a password.
        f.debug_struct("Redis").field("prefix", &self.prefix).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Where the Redis servers are.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisServers {
    /// `url`
    Single(String),
    /// `cluster`
    Cluster(Vec<String>),
    /// `sentinel`
    Sentinel {
        /// The master's name.
        master: String,
        /// The sentinels.
        nodes: Vec<String>,
    },
}

/// `[upstreams.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The metric label.
    pub name: String,
    /// Where it is; at least one.
    pub urls: Vec<UpstreamUrl>,
    /// Name look-up, TCP and TLS handshake.
    pub connect_timeout: Duration,
    /// For a free connection.
    pub queue_timeout: Duration,
    /// Open connections.
    pub max_connections: usize,
    /// A guarded request reuses only a connection idle for less.
    pub max_idle_guarded: Duration,
    /// Prior-knowledge h2c, or h2 by ALPN on https.
    pub http2: bool,
    /// Whose Host the upstream sees.
    pub host: HostHeader,
    /// TLS to the upstream.
    pub tls: UpstreamTls,
}

/// One `url` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// Where to connect.
    pub target: UpstreamTarget,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// `HOST` or `HOST:PORT` as it goes into a Host field with `host = "upstream"`; `localhost` for `unix:`.
    pub authority: String,
}

/// Where an upstream is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamTarget {
    /// Name or address (IPv6 without brackets), and port.
    Tcp(String, u16),
    /// A socket's path.
    Unix(PathBuf),
}

/// `upstreams.NAME.host`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Preserve,
    /// The url's.
    Upstream,
}

/// `upstreams.NAME.tls`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authority of its certificate; system roots where there is none.
    pub ca: Option<PathBuf>,
    /// Our certificate chain.
    pub cert: Option<PathBuf>,
    /// Our private key.
    pub key: Option<PathBuf>,
    /// The name its certificate must have, and SNI.
    pub server_name: Option<String>,
}

/// One `[[routes]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The metric label; `default` for the fallback.
    pub name: RouteName,
    /// Part of the record's identity.
    pub id: String,
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// Which methods; `None` is all.
    pub methods: Option<Vec<Method>>,
    /// Where its requests go: an index into [`Config::upstreams`].
    pub upstream: usize,
    /// How they are handled.
    pub policy: Policy,
}

impl Route {
    /// Whether it matches every path, so that no request but `OPTIONS *` reaches the fallback.
    #[must_use]
    pub fn catches_all(&self) -> bool {
        let every_path = matches!(self.path.segments[..], [Segment::Rest(_)]);
        self.host == HostPattern::Any && self.methods.is_none() && every_path
    }
}

/// `host` of a route, in lower case, without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// `*.example.com`: any name below; holds `.example.com`.
    Suffix(String),
    /// Any.
    Any,
}

/// `path` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// As written.
    pub text: String,
    /// Between slashes, in order; `/` is one empty literal.
    pub segments: Vec<Segment>,
}

/// A segment of a path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// These bytes, percent-decoded.
    Literal(String),
    /// `{name}`: one non-empty segment.
    Parameter(String),
    /// `{*name}`: the rest, at least one segment, which may be empty. Only at the end.
    Rest(String),
}
